"""The engine's own bounded pool of threads for synchronous steps."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any

__all__ = ["StepThreads"]

_Job = tuple["Future[Any]", Callable[..., Any], tuple[Any, ...]]


class StepThreads:
    """At most `limit` threads that are made when needed and end with the pool.

    They are daemons, which those of `ThreadPoolExecutor` are not: a step that never returns must not keep the program from
    ending.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._threads = 0
        self._idle = 0

    def submit(self, function: Callable[..., Any], *args: Any) -> Future[Any]:
        """Run `function` in a thread as soon as one is free."""
        future: Future[Any] = Future()
        with self._lock:
            self._jobs.put((future, function, args))
            if self._idle:
                self._idle -= 1
            elif self._threads < self._limit:
                self._threads += 1
                threading.Thread(target=self._work, name="durable_sqlite step", daemon=True).start()
        return future

    def close(self) -> None:
        """Let the threads end once they are free. Jobs that have not begun never will."""
        with self._lock:
            for _ in range(self._threads):
                self._jobs.put(None)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            future, function, args = job
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(function(*args))
                except BaseException as error:  # noqa: BLE001 - it is the waiting task's to judge, SystemExit included
                    future.set_exception(error)
            del job, future, function, args  # a thread at rest must not keep arguments alive
            with self._lock:
                self._idle += 1

"""Finds what a test has left behind: threads, tasks, descriptors, connections."""

from __future__ import annotations

import asyncio
import gc
import os
import sqlite3
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

from durable_sqlite._sqlite.link import Guardian

__all__ = ["Leftovers"]

_DESCRIPTORS = Path("/proc/self/fd")
_PATIENCE = 5.0  # seconds for a thread that has done its work to be gone


class Leftovers:
    """What is there before a test, and what is there after it besides."""

    def __init__(self) -> None:
        self._connections: list[sqlite3.Connection] = []
        self._threads: set[threading.Thread] = set()
        self._tasks: set[int] = set()
        self._descriptors: set[tuple[str, str]] = set()
        self._before = 0

    @contextmanager
    def watching(self) -> Generator[None]:
        """See every connection that is made from now on."""
        connect: Callable[..., sqlite3.Connection] = sqlite3.connect

        def noted(*args: Any, **how: Any) -> sqlite3.Connection:
            connection = connect(*args, **how)
            self._connections.append(connection)
            return connection

        with patch.object(sqlite3, "connect", noted):
            yield

    def begin(self) -> None:
        """Before a test: what is there now is not its own."""
        self._connections = [each for each in self._connections if _is_open(each)]
        self._threads = set(threading.enumerate())
        self._tasks = {id(task) for task in _tasks()}
        self._descriptors = set(_descriptors())
        self._before = len(self._connections)

    def found(self) -> list[str]:
        """After it: what it has left, in words. It is named once: the next test is not blamed for it."""
        found = self._found()
        if found:
            gc.collect()  # what only garbage holds is as good as gone; collecting after every test would take too long
            found = self._found()
        return found

    def _found(self) -> list[str]:
        threads = [each for each in threading.enumerate() if each not in self._threads and not _was_dismissed(each)]
        for thread in threads:
            thread.join(_PATIENCE)
        return [
            *(f"a thread: {thread!r}" for thread in threads if thread.is_alive()),
            *(f"a task: {task!r}" for task in _tasks() if id(task) not in self._tasks),
            *(f"a descriptor: {each}" for each in sorted(set(_descriptors()) - self._descriptors)),
            *(f"a connection: {each!r}" for each in self._connections[self._before :] if _is_open(each)),
        ]


def _was_dismissed(thread: threading.Thread) -> bool:
    """A guardian of a journal that was closed ends at its next look, a second later: nothing can wake it."""
    guardian = getattr(getattr(thread, "_target", None), "__self__", None)
    return isinstance(guardian, Guardian) and guardian._dismissed


def _is_open(connection: sqlite3.Connection) -> bool:
    try:
        return connection.total_changes >= 0
    except sqlite3.ProgrammingError:
        return False


def _tasks() -> list[asyncio.Task[Any]]:
    """Tasks that could go on, whatever their loop; there is no public way to ask for those of a loop that has gone.

    A body that was unloaded leaves tasks that nobody tells of their end: what they were to run has ended.
    """
    known: Any = getattr(asyncio.tasks, "_scheduled_tasks", None) or getattr(asyncio.tasks, "_all_tasks", ())
    return [task for task in list(known) if not task.done() and getattr(task.get_coro(), "cr_frame", True) is not None]


def _descriptors() -> list[tuple[str, str]]:
    if not _DESCRIPTORS.is_dir():
        return []  # elsewhere than on Linux, connections and threads have to do
    found: list[tuple[str, str]] = []
    for name in os.listdir(_DESCRIPTORS):  # noqa: PTH208 - twice as fast, for every test
        try:
            found.append((name, str((_DESCRIPTORS / name).readlink())))
        except OSError:  # that by which they are listed
            continue
    return found

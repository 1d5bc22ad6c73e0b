"""Notices that the application's event loop is blocked while it is blocked, and says by what.

A thread asks the loop to answer, and measures how long that takes; it needs no timer in the loop. While no answer comes,
the thread looks at what the loop's thread is at: its stack tells the place, the context of its task tells the step.
"""

from __future__ import annotations

import asyncio
import contextvars
import gc
import logging
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from ._clock import Clock
from ._context import StepScope, scope
from ._stats import LoopStats

__all__ = ["Watchdog"]

logger = logging.getLogger("durable_sqlite")

_ASKS = 2  # how often it asks within the limit
_OFTEN, _SELDOM = 0.0005, 0.5  # seconds between two looks, at the least and at the most
_ASLEEP = 0.5  # seconds by which a look may be late: then it was not only the loop that did not go on
_MINUTE = 60.0

_LIBRARY = str(Path(__file__).parent)
_ASYNCIO = str(Path(asyncio.__file__).parent)


class Watchdog:
    """Watches one event loop, from `start` until `stop`.

    Args:
        title: How messages name the engine.
        loop: The loop, which is running; `start` is called on it.
        clock: For the time of its last turn.
        limit: For how many seconds it may be blocked before that is said; None: it is not watched.
        body: The run id of the body that is being driven right now, which no task of the loop tells. Called from the thread.
        monotonic: Seconds on a clock that never goes back.
        wait: Waits for so many seconds, or until it is to end, which is its answer.
    """

    def __init__(
        self,
        title: str,
        loop: asyncio.AbstractEventLoop,
        clock: Clock,
        limit: float | None,
        body: Callable[[], str | None],
        *,
        monotonic: Callable[[], float] = time.monotonic,
        wait: Callable[[float], bool] | None = None,
    ) -> None:
        self.last_tick: int | None = None
        """When the loop last answered, in microseconds UTC; None where it is not watched."""
        self._title = title
        self._loop = loop
        self._clock = clock
        self._limit = limit
        self._body = body
        self._monotonic = monotonic
        self._ended = threading.Event()
        self._wait = wait or self._ended.wait
        self._every = min(_SELDOM, max(_OFTEN, (limit or 0) / _ASKS))
        self.thread: threading.Thread | None = None
        self._here = 0
        self._lock = threading.Lock()
        self._asked: float | None = None
        self._looked: float | None = None
        self._told = False
        """That the loop does not answer."""
        self._away = False
        """The loop was not running: it had no way to answer."""
        self._lag: float | None = None
        self._lags: deque[tuple[float, float]] = deque()
        """What may yet be the largest lag of the last minute, with the time of each; the largest first."""

    def start(self) -> None:
        """Watch the loop that runs here, from now on."""
        if self._limit is None:
            return
        self._here = threading.get_ident()
        self.last_tick = self._clock.now()
        self.thread = threading.Thread(target=self._watch, name="durable_sqlite watchdog", daemon=True)
        self.thread.start()

    def stop(self) -> None:
        """Watch no more; the thread ends by itself."""
        self._ended.set()

    def seen(self) -> LoopStats:
        """How late the loop was."""
        now = self._monotonic()
        while self._lags and self._lags[0][0] < now - _MINUTE:
            self._lags.popleft()
        return LoopStats(self._lag, self._lags[0][1] if self._lags else None)

    # The loop's side -------------------------------------------------------------------------------------------------

    def _answer(self, asked: float) -> None:
        self.last_tick = self._clock.now()
        now = self._monotonic()
        lag = now - asked
        with self._lock:
            told, self._told = self._told, False
            away, self._away = self._away, False
            self._asked = None
        if away:
            return
        self._note(now, lag)
        if told:
            logger.warning("the event loop of %s turns again: it was blocked for %.3g s", self._title, lag)
        elif self._limit is not None and lag >= self._limit:
            logger.warning(
                "the event loop of %s stood still for %.3g s, and what held it up was not seen: it was over just then, or it "
                "held the interpreter's lock, or the whole process was stopped",
                self._title,
                lag,
            )

    def _note(self, now: float, lag: float) -> None:
        self._lag = lag
        while self._lags and self._lags[-1][1] <= lag:
            self._lags.pop()
        self._lags.append((now, lag))
        if self._lags[0][0] < now - _MINUTE:
            self._lags.popleft()

    # The thread's side -----------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        while not self._wait(self._every):
            self.look()

    def look(self) -> None:
        """Ask the loop to answer; where it still has not answered the last time, see whether that takes too long."""
        now = self._monotonic()
        late = self._looked is not None and now - self._looked > self._every + _ASLEEP
        self._looked = now
        asked = self._asked
        if asked is None:
            self._asked = now
            try:
                self._loop.call_soon_threadsafe(self._answer, now)
            except RuntimeError:  # it is closed
                self.stop()
        elif not self._loop.is_running():
            self._away = True
        elif not late and not self._told and self._limit is not None and now - asked >= self._limit:
            # Where this thread is late itself, the loop may have had no turn either: see next time.
            self._tell(asked, now - asked)

    def _tell(self, asked: float, took: float) -> None:
        frames = sys._current_frames()  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] - no other way to see a thread
        stack = list(_stack(frames.get(self._here)))
        who = self._who()
        with self._lock:
            if not stack or self._asked != asked:
                return  # it rests, or has turned meanwhile: what was seen may be of later
            self._told = True
        logger.warning(
            "%s blocks the event loop of %s, for %.3g s by now, %s: nothing else goes on meanwhile. What waits without "
            "`await`, or computes, belongs in a step that is a plain function: it runs in a thread",
            who,
            self._title,
            took,
            _place(stack),
        )

    def _who(self) -> str:
        task = asyncio.current_task(self._loop)
        here = None if task is None else _scope_of(task)
        if isinstance(here, StepScope):
            return f"run {here.step.run_id}, step {here.step.name}, key {here.step.key}"
        if (run_id := self._body()) is not None:
            return f"the body of run {run_id}"
        return "a callback" if task is None else f"{task.get_name()}, which is no step,"


def _scope_of(task: asyncio.Task[Any]) -> object:
    """Where the code of a task belongs, which its context tells: also of a task that a step has made."""
    if sys.version_info >= (3, 12):
        return task.get_context().get(scope)
    # Before 3.12 nothing but the garbage collector is told which context a task has.
    contexts = (each for each in gc.get_referents(task) if isinstance(each, contextvars.Context))
    return next((context.get(scope) for context in contexts), None)


def _stack(frame: FrameType | None) -> Iterator[tuple[CodeType, int]]:
    """What a loop's thread is at, innermost first, up to the loop itself; nothing where the loop waits for events."""
    while frame is not None and not _is_loop(frame.f_code):
        if frame.f_back is not None and _is_loop(frame.f_back.f_code) and frame.f_code.co_name == "select":
            return
        yield frame.f_code, frame.f_lineno
        frame = frame.f_back


def _is_loop(code: CodeType) -> bool:
    return code.co_filename.startswith(_ASYNCIO) and code.co_name in {"_run", "_run_once", "run_forever", "run"}


def _place(stack: list[tuple[CodeType, int]]) -> str:
    """The innermost place outside of this library, and where the application's code is if that is elsewhere."""
    outside = [each for each in stack if not each[0].co_filename.startswith((_LIBRARY, _ASYNCIO))]
    if not outside:
        return f"at {_line(*stack[0])}"
    first, last = _line(*outside[0]), _line(*outside[-1])
    return f"at {first}" if first == last else f"at {first}, called from {last}"


def _line(code: CodeType, number: int) -> str:
    return f"{code.co_filename}:{number} in {code.co_qualname}"

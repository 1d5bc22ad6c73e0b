"""Drives runs until the process is told to end: SIGTERM and SIGINT, as long as somebody serves.

The handlers are plain ones of the `signal` module, and not those of the event loop: only so can what was there before be
put back exactly, whoever had set it, and only so do several engines of one process each hear of a signal.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any

from ._drain import Drain
from .errors import UsageError

__all__ = ["serve"]

logger = logging.getLogger("durable_sqlite")

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


async def serve(drain: Drain, limit: int) -> None:
    """Wait until the process is told to end, or somebody else drains; then drain.

    Raises:
        KeyboardInterrupt: SIGINT came while it drained.
        SystemExit: SIGTERM came while it drained; the exit code is the customary 143.
        UsageError: This is not the main thread, which alone hears of signals.
    """
    if threading.current_thread() is not threading.main_thread():
        raise UsageError(
            "engine.serve() hears of signals, which Python delivers to the main thread only: run it there, or call "
            "`await engine.drain()` yourself when it is time"
        )
    told: asyncio.Queue[int] = asyncio.Queue()
    handlers = [Handler(number, asyncio.get_running_loop(), told.put_nowait) for number in _SIGNALS]
    hearing = asyncio.ensure_future(told.get())
    waiting = asyncio.ensure_future(drain.over.wait())
    draining: asyncio.Future[bool] | None = None
    try:
        await asyncio.wait((hearing, waiting), return_when=asyncio.FIRST_COMPLETED)
        if not hearing.done():
            return
        logger.info("%s: draining", signal.Signals(hearing.result()).name)
        draining = asyncio.ensure_future(drain.drain(limit, "; a second signal ends at once"))
        hearing = asyncio.ensure_future(told.get())
        await asyncio.wait((hearing, draining), return_when=asyncio.FIRST_COMPLETED)
        if hearing.done():
            for handler in handlers:
                handler.remove()  # before anything else is waited for: a third signal does what it did before
            drain.hurry()
            await draining
            if hearing.result() == signal.SIGINT:
                raise KeyboardInterrupt
            raise SystemExit(128 + hearing.result())
        await draining
    finally:
        for handler in handlers:
            handler.remove()
        for left in (hearing, waiting, draining):
            if left is not None:
                left.cancel()


class Handler:
    """Hears of one signal, and passes it on to whoever serves beside it.

    Args:
        number: The signal.
        loop: Where it is told.
        tell: Is called there with the signal.
    """

    def __init__(self, number: int, loop: asyncio.AbstractEventLoop, tell: Callable[[int], object]) -> None:
        self._number = number
        self._loop = loop
        self._tell = tell
        self._pid = os.getpid()
        self._there = True
        self.before: object = signal.signal(number, self)

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Hear of it; Python calls this in the main thread, between any two instructions."""
        if os.getpid() != self._pid:
            # A forked child has no part in this: without a word it would swallow what is to end it.
            self._put_back(_before_all(self))
            signal.raise_signal(number)
            return
        with suppress(RuntimeError):  # the loop is closed by now
            self._loop.call_soon_threadsafe(self._tell, number)
        if isinstance(self.before, Handler):
            self.before(number, frame)

    def remove(self) -> None:
        """Put back what was there before. Twice is harmless."""
        if not self._there:
            return
        self._there = False
        current: object = signal.getsignal(self._number)
        if current is self:
            self._put_back(self.before)
        while isinstance(current, Handler):  # somebody has begun to serve since, and goes on
            if current.before is self:
                current.before = self.before
                return
            current = current.before

    def _put_back(self, before: Any) -> None:
        # None: it was set by something else than Python, and Python cannot put that back.
        signal.signal(self._number, signal.SIG_DFL if before is None else before)


def _before_all(handler: object) -> object:
    """What was there before anybody served."""
    while isinstance(handler, Handler):
        handler = handler.before
    return handler

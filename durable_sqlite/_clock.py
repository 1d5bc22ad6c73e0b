"""Time as the engine sees it: integer microseconds UTC, injected, never read elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import asyncio  # only named here: the command line asks for the time, and has no use for an event loop

__all__ = ["Alarm", "Clock", "SystemClock", "from_datetime", "microseconds", "to_datetime"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LONGEST_NAP = 3600.0  # seconds: a loop timer drifts and does not see clock changes, so look again at least hourly


class Alarm(Protocol):
    """A callback that was asked for and may be called off."""

    def cancel(self) -> None:
        """Do not call."""


class Clock(Protocol):
    """The time, and a way to be called when it comes."""

    def now(self) -> int:
        """The time in microseconds UTC."""
        ...

    def call_at(self, loop: asyncio.AbstractEventLoop, when: int, callback: Callable[[], object]) -> Alarm:
        """Call `callback` on `loop` when `when` has come: late rather than never, never early."""
        ...


class _Nap:
    """A chain of loop timers towards one time of the wall clock."""

    __slots__ = ("_callback", "_clock", "_handle", "_loop", "_when")

    def __init__(
        self, clock: SystemClock, loop: asyncio.AbstractEventLoop, when: int, callback: Callable[[], object]
    ) -> None:
        self._clock = clock
        self._loop = loop
        self._when = when
        self._callback = callback
        self._handle: asyncio.Handle = loop.call_soon(self._look)

    def _look(self) -> None:
        left = (self._when - self._clock.now()) / 1_000_000
        if left > 0:
            self._handle = self._loop.call_later(min(left, _LONGEST_NAP), self._look)
        else:
            self._callback()

    def cancel(self) -> None:
        self._handle.cancel()


class SystemClock:
    """The machine's own clock."""

    def now(self) -> int:
        """The time in microseconds UTC."""
        return time.time_ns() // 1000

    def call_at(self, loop: asyncio.AbstractEventLoop, when: int, callback: Callable[[], object]) -> Alarm:
        """Call `callback` on `loop` once the machine's clock shows `when`."""
        return _Nap(self, loop, when, callback)


def to_datetime(instant: int) -> datetime:
    """The aware UTC datetime of a number of microseconds."""
    return _EPOCH + timedelta(microseconds=instant)


def from_datetime(moment: datetime) -> int:
    """Microseconds UTC of an aware datetime.

    Raises:
        ValueError: The datetime is naive: which instant it means is anyone's guess.
        TypeError: It is no datetime.
    """
    if not isinstance(moment, datetime):  # pyright: ignore[reportUnnecessaryIsInstance] - of code that is not checked
        raise TypeError(f"an instant is a datetime with a time zone, not {type(moment).__name__}")
    if moment.tzinfo is None or moment.utcoffset() is None:
        raise ValueError(f"{moment!r} has no time zone: write datetime(..., tzinfo=UTC)")
    return (moment - _EPOCH) // timedelta(microseconds=1)


def microseconds(duration: float | timedelta) -> int:
    """A duration in seconds or as a timedelta, as microseconds, rounded up so that nothing fires early.

    Raises:
        ValueError: The duration is NaN or infinite.
        TypeError: It is neither a number nor a timedelta.
    """
    if isinstance(duration, timedelta):
        return duration // timedelta(microseconds=1)
    if isinstance(duration, bool) or not isinstance(duration, (int, float)):
        raise TypeError(f"a duration is a number of seconds or a timedelta, not {type(duration).__name__}")
    if isinstance(duration, float) and not abs(duration) < float("inf"):
        raise ValueError(f"a duration must be finite, not {duration!r}")
    whole, part = divmod(duration, 1)
    return int(whole) * 1_000_000 + -int(-part * 1_000_000 // 1)

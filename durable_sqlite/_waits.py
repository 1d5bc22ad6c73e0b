"""Durable waits that a body can ask for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from datetime import datetime, timedelta
from typing import Any

from ._clock import SystemClock, from_datetime, microseconds
from ._context import body

__all__ = ["sleep", "sleep_until"]


def sleep(duration: float | timedelta) -> Coroutine[Any, Any, None]:
    """Wait for a duration, in seconds or as a timedelta: over restarts, and without holding memory or a process.

    Zero and negative durations are recorded and return at once. Outside a run it is `asyncio.sleep`.

    Raises:
        ValueError: The duration is NaN or infinite.
        TypeError: It is neither a number nor a timedelta.
    """
    length = microseconds(duration)
    return _sleep(lambda now: now + length, length / 1_000_000)


def sleep_until(moment: datetime) -> Coroutine[Any, Any, None]:
    """Wait until an aware datetime; one in the past returns at once. Outside a run it is `asyncio.sleep`.

    Raises:
        ValueError: The datetime has no time zone.
        TypeError: It is no datetime.
    """
    deadline = from_datetime(moment)
    return _sleep(lambda _now: deadline, (deadline - SystemClock().now()) / 1_000_000)


def _sleep(until: Callable[[int], int], outside: float) -> Coroutine[Any, Any, None]:
    here = body()
    return asyncio.sleep(max(0.0, outside)) if here is None else here.sleep(until)

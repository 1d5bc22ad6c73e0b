"""What has ended for a body, in the order in which it is given: as it came, unless a test asks for another order.

Steps that run beside each other may end in any order, so an order that a test draws is one that could have come by itself.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

from ._call import Call
from ._context import NOWHERE, Order

__all__ = ["Arrivals"]

R = TypeVar("R")


class Arrivals(Generic[R]):
    """Gives out what has ended.

    Args:
        results: What has ended, oldest first; others append to it.
        loop: The host's loop.
        again: Is called when nothing more is waited for.
    """

    def __init__(
        self,
        results: deque[tuple[Call, R]],
        loop: asyncio.AbstractEventLoop,
        again: Callable[[], None],
    ) -> None:
        self._results = results
        self._loop = loop
        self._again = again
        self._alarm: asyncio.TimerHandle | None = None
        self._patient = True

    def __bool__(self) -> bool:
        """Whether something has ended and was not given."""
        return bool(self._results)

    def next(self, place: int, more: Callable[[], bool]) -> tuple[Call, R] | None:
        """What is to be given now, if anything is.

        Args:
            place: How many outcomes the run has recorded.
            more: Whether more is on its way, so that another order could still be drawn.
        """
        if not self._results:
            return None
        if not NOWHERE.orders:
            return self._results.popleft()
        return self._drawn(NOWHERE.orders[-1], place, more)

    def stop(self) -> None:
        """The pass is over."""
        if self._alarm is not None:
            self._alarm.cancel()

    def _drawn(self, order: Order, place: int, more: Callable[[], bool]) -> tuple[Call, R] | None:
        if self._patient and more():
            if self._alarm is None:
                self._alarm = self._loop.call_later(order.patience, self._hurry)
            return None
        self.stop()
        self._alarm, self._patient = None, True
        index = order.pick(place, [call.key for call, _ in self._results])
        drawn = self._results[index]
        del self._results[index]
        return drawn

    def _hurry(self) -> None:
        self._patient = False
        self._again()

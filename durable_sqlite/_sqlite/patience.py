"""Waiting for a lock or for the storage to heal: for ever, with growing pauses, and never silently."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from .faults import Fault, name_of

__all__ = ["LOGGER", "Patience", "Pauses"]

LOGGER = logging.getLogger("durable_sqlite.storage")

_FIRST_WARNING = 5.0
_NEXT_WARNING = 60.0
_LONGEST = {Fault.BUSY: 0.5, Fault.STALLED: 5.0, Fault.DOUBT: 5.0}


class Pauses:
    """Where pauses come from.

    Args:
        now: Seconds on a clock that never goes back.
        sleep: Waits for a number of seconds.
        chance: A number from 0 to 1: workers that wait for one lock should not all come back at once.
    """

    def __init__(
        self, now: Callable[[], float], sleep: Callable[[float], Awaitable[object]], chance: Callable[[], float]
    ) -> None:
        self.now = now
        self.sleep = sleep
        self.chance = chance


class Patience:
    """One wait, from the first obstacle to its end."""

    def __init__(self, pauses: Pauses, path: str) -> None:
        self._pauses = pauses
        self._path = path
        self._delay = 0.02
        self._since: float | None = None
        self._warn_at = 0.0
        self._stalled = False

    async def wait(self, fault: Fault, error: BaseException) -> None:
        """Pause before the next try; say so where it takes long."""
        now = self._pauses.now()
        if self._since is None:
            self._since = now
            self._warn_at = now + _FIRST_WARNING
        if fault is Fault.BUSY:
            self._warn_if_long(now, self._since)
        elif not self._stalled:
            self._stalled = True
            LOGGER.error(
                "storage stalled: %s answered %s (%s); nothing is lost, and it is tried again until it heals",
                self._path,
                name_of(error),
                error,
            )
        await self._pauses.sleep(self._delay * (0.5 + self._pauses.chance() / 2))
        self._delay = min(self._delay * 2, _LONGEST[fault])

    def _warn_if_long(self, now: float, since: float) -> None:
        if now >= self._warn_at:
            self._warn_at = now + _NEXT_WARNING
            LOGGER.warning(
                "waiting for %.0f s for the write lock of %s, which another connection holds; nothing is lost",
                now - since,
                self._path,
            )

    def over(self) -> None:
        """The obstacle is gone."""
        if self._stalled:
            LOGGER.warning("storage of %s works again", self._path)
        self._since = None
        self._stalled = False
        self._delay = 0.02

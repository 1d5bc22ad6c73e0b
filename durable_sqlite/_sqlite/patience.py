"""Waiting for a lock or for the storage to heal: for ever, with growing pauses, and never silently."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from ..errors import StorageStalled
from .faults import Fault, name_of

__all__ = ["LOGGER", "Patience", "Pauses"]

LOGGER = logging.getLogger("durable_sqlite.storage")

_FIRST_WARNING = 5.0
_NEXT_WARNING = 60.0
_STILL_STALLED = 600.0
_LONGEST = {Fault.BUSY: 0.5, Fault.STALLED: 5.0, Fault.DOUBT: 5.0}
_SHORTEST = 0.001


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
        self._warn_at = 0.0
        self._stalled = False
        self.since: float | None = None
        """When the first obstacle was met; None where there is none."""
        self.tries = 0
        """How often the obstacle was met."""

    def meet(self) -> float:
        """Note that an obstacle is there; since when one is."""
        if self.since is None:
            self.since = self._pauses.now()
            self._warn_at = self.since + _FIRST_WARNING
        return self.since

    async def wait(self, fault: Fault, error: BaseException, *, at_most: float | None = None) -> None:
        """Pause before the next try; say so where it takes long.

        Args:
            fault: What the obstacle means.
            error: What it was.
            at_most: The longest that the pause may be.
        """
        since = self.meet()
        self.tries += 1
        now = self._pauses.now()
        if fault is Fault.BUSY:
            self._warn_if_long(now, since, error)
        else:
            self._tell_of_stall(now, since, error)
        delay = self._delay * (0.5 + self._pauses.chance() / 2)
        await self._pauses.sleep(delay if at_most is None else max(_SHORTEST, min(delay, at_most)))
        self._delay = min(self._delay * 2, _LONGEST[fault])

    def _warn_if_long(self, now: float, since: float, error: BaseException) -> None:
        if now >= self._warn_at:
            self._warn_at = now + _NEXT_WARNING
            LOGGER.warning(
                "waiting for %.0f s for the write lock of %s, which another connection holds (%s); nothing is lost",
                now - since,
                self._path,
                name_of(error),
            )

    def _tell_of_stall(self, now: float, since: float, error: BaseException) -> None:
        if not self._stalled:
            self._stalled = True
            self._warn_at = now + _STILL_STALLED
            LOGGER.error(
                "storage stalled: %s answered %s (%s); nothing is lost, and it is tried again until it heals",
                self._path,
                name_of(error),
                error,
            )
        elif now >= self._warn_at:
            self._warn_at = now + _STILL_STALLED
            LOGGER.error(
                "storage stalled for %.0f s: %s answers %s (%s); nothing is lost, and it is tried again until it heals",
                now - since,
                self._path,
                name_of(error),
                error,
            )

    def stalled(self, fault: Fault, error: BaseException, waited: float, what_of_it: str) -> StorageStalled:
        """What somebody is told who waits no longer."""
        if fault is Fault.BUSY:
            why = f"another connection has held the lock of {self._path} for {waited:g} s ({name_of(error)})"
            move = "let the program that holds it end its transaction"
        else:
            why = f"the storage of {self._path} has been stalled for {waited:g} s ({name_of(error)}: {error})"
            move = "see to the disk"
        return StorageStalled(f"{why}: {what_of_it}. Runs wait and go on by themselves when that is over; {move}")

    def over(self) -> None:
        """The obstacle is gone."""
        if self._stalled:
            LOGGER.warning("storage of %s works again", self._path)
        self.since = None
        self.tries = 0
        self._stalled = False
        self._delay = 0.02

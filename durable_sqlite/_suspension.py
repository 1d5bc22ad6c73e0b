"""How a run rests and goes on: it is given back to the journal, and taken again by the pass that still has its body."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial
from typing import Protocol

from ._clock import Clock
from ._ledger import Ledger
from ._records import Memory, News, Rest, Suspension, Wait
from .errors import LeaseLost

__all__ = ["Rester", "Suspender"]


class Rester(Protocol):
    """A pass, as far as its rest concerns it."""

    def rested(self) -> None:
        """The run is at rest, and that is committed."""
        ...

    def disturbed(self, news: Suspension, *, paused: bool) -> None:
        """The run is not at rest, since there is news; `paused` says what rest was tried."""
        ...

    def went_on(self, news: News) -> None:
        """The run is held again, and that is committed; `news` is what is asked of it."""
        ...

    def overtaken(self) -> None:
        """Somebody else has taken the run."""
        ...

    def refused(self, error: BaseException) -> None:
        """The journal takes nothing more of this pass."""
        ...


class Suspender:
    """Gives a run back and takes it again, for one pass.

    Args:
        ledger: What the pass writes.
        clock: The time.
        memory: What earlier passes wrote of what the run waits for.
        rester: The pass.
    """

    def __init__(self, ledger: Ledger, clock: Clock, memory: Memory, rester: Rester) -> None:
        self._ledger = ledger
        self._clock = clock
        self._rester = rester
        self._written: Mapping[str, Wait] = {wait.key: wait for wait in memory.waits}
        """What the journal holds of what the run waits for."""
        self.suspending = False
        """Whether it is being given back."""
        self.returning = False
        """Whether it is being taken again."""
        self.at_rest = False
        self.paused = False
        """Whether it rests because it is paused."""

    def suspend(self, waits: Mapping[str, Wait], due: int | None, *, paused: bool, interrupted: bool) -> None:
        """Give the run back until one of these waits is over, the nearest at `due`; or until it is no longer to be paused.

        `interrupted` says that a step among them may have begun in a process that died.
        """
        self.suspending = True
        rest = Rest(
            at=self._clock.now(),
            opened=[wait for key, wait in waits.items() if self._written.get(key) != wait],
            closed=[key for key in self._written if key not in waits],
            due=due,
            paused=paused,
            interrupted=interrupted,
        )
        self._ledger.suspend(rest).add_done_callback(partial(self._suspended, waits, paused))

    def _suspended(self, waits: Mapping[str, Wait], paused: bool, write: asyncio.Future[Suspension]) -> None:  # noqa: FBT001 - a callback takes no keywords
        self.suspending = False
        if write.cancelled() or write.exception() is not None:
            return
        outcome = write.result()
        if outcome.suspended:
            self._written = waits
            self.at_rest, self.paused = True, paused
            self._rester.rested()
        else:
            self._rester.disturbed(outcome, paused=paused)

    def go_on(self) -> None:
        """Take the run again, and go on once that is committed.

        Not earlier: a claim of this very worker may have taken the run just before, for another pass. That pass has the same
        owner and epoch as this one would have, so the journal could not tell their writes apart.
        """
        self.at_rest = self.paused = False
        self.returning = True
        self._ledger.reclaim(self._clock.now()).add_done_callback(self._went_on)

    def _went_on(self, write: asyncio.Future[News]) -> None:
        self.returning = False
        if write.cancelled():
            return
        error = write.exception()
        if error is None:
            self._rester.went_on(write.result())
        elif isinstance(error, LeaseLost):
            self._rester.overtaken()
        else:
            self._rester.refused(error)

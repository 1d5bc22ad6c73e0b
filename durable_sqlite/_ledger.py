"""All that one pass writes about its run, in its order, under its hold."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from ._records import (
    End,
    Ended,
    Entry,
    FailedAttempt,
    Hold,
    Intent,
    NewQuestion,
    News,
    Report,
    Request,
    Rest,
    RunRow,
    Suspension,
)
from ._replay import Changes
from ._tables import Effect, Undone, Work
from .journal import Journal

__all__ = ["Ledger"]

T = TypeVar("T")


class Ledger:
    """The writes of a pass: the order of the calls is their order in the journal, and none lands without the others before it.

    Args:
        journal: Where they are kept.
        hold: The right to write.
        refused: Is called with the reason where one is refused: then the journal takes nothing more of this pass.
    """

    def __init__(self, journal: Journal, hold: Hold, refused: Callable[[BaseException], None]) -> None:
        self.hold = hold
        self._journal = journal
        self._refused = refused
        self._last: asyncio.Future[Any] | None = None
        self._waiting: list[asyncio.Future[None]] = []
        """Done once the last write is over."""

    async def committed(self) -> bool:
        """Wait until all that was written so far is committed; False if the last of it was refused."""
        while self._last is not None and not self._last.done():
            over = asyncio.get_running_loop().create_future()
            self._waiting.append(over)
            await over
        last = self._last
        return last is None or not (last.cancelled() or last.exception() is not None)

    def record(self, entry: Entry, takes: Sequence[int] = ()) -> None:
        """Append an outcome, and note that it took these messages."""
        self._keep(self._journal.record(self.hold, entry, takes))

    def expire(self, entry: Entry, deadline: int) -> asyncio.Future[bool]:
        """Append that nothing came in time, unless something did."""
        return self._keep(self._journal.expire(self.hold, entry, deadline))

    def transact(self, entry: Entry, work: Work[Effect]) -> asyncio.Future[Entry | Undone]:
        """Run a transaction, and append its outcome in the same commit."""
        return self._keep(self._journal.transact_step(self.hold, entry, work))

    def fail(self, attempt: FailedAttempt) -> None:
        """Keep a failed attempt."""
        self._keep(self._journal.fail(self.hold, attempt))

    def intend(self, intent: Intent) -> None:
        """Note that an at-most-once step is about to begin."""
        self._keep(self._journal.intend(self.hold, intent))

    def amend(self, changes: Changes) -> None:
        """Rewrite entries as a person accepted it."""
        if changes:
            self._keep(self._journal.amend(self.hold, changes.changed, changes.removed))

    def settle_changes(self) -> None:
        """Note that the replay for which changes were accepted is over."""
        self._keep(self._journal.settle_changes(self.hold))

    def ask(self, question: NewQuestion) -> asyncio.Future[bool]:
        """Store a question."""
        return self._keep(self._journal.ask(self.hold, question))

    def withdraw(self, keys: Sequence[str], at: int) -> None:
        """Close questions that the body no longer waits for."""
        self._keep(self._journal.withdraw(self.hold, keys, at))

    def abandon(self, children: Sequence[str], request: Request) -> asyncio.Future[Sequence[RunRow]]:
        """Ask child runs to end that the body no longer waits for."""
        return self._keep(self._journal.abandon(self.hold, children, request))

    def set_aside(self, message: int, error: bytes) -> None:
        """Keep a message out of the way that does not fit its type."""
        self._keep(self._journal.set_aside(self.hold, message, error))

    def reopen(self, key: str, answer: bytes, error: bytes) -> None:
        """Take an answer away again that does not fit its type."""
        self._keep(self._journal.reopen(self.hold, key, answer, error))

    def report(self, report: Report) -> asyncio.Future[None]:
        """Keep what the body says of itself."""
        return self._keep(self._journal.report(self.hold, report))

    def suspend(self, rest: Rest) -> asyncio.Future[Suspension]:
        """Give the run back until one of its waits is over."""
        return self._keep(self._journal.suspend(self.hold, rest))

    def reclaim(self, at: int) -> asyncio.Future[News]:
        """Take the run again. A refusal says that somebody else has it by now, which is no fault."""
        write = self._last = self._journal.reclaim(self.hold, at)
        write.add_done_callback(self._tell_if_last)
        self.hold = self.hold.next
        return write

    def end(self, end: End) -> asyncio.Future[Ended | None]:
        """Stop the run."""
        return self._keep(self._journal.end(self.hold, end))

    def give_back(self, at: int) -> None:
        """Make the run pending again; a refusal says that it is somebody else's by now."""
        self._journal.give_back(self.hold, at).add_done_callback(_heard)

    def leave(self, at: int, *, interrupted: bool) -> asyncio.Future[None]:
        """Make the run pending again in good order; a refusal says that it is somebody else's by now, or has ended."""
        write = self._journal.leave(self.hold, at, interrupted=interrupted)
        write.add_done_callback(_heard)
        return write

    def _keep(self, write: asyncio.Future[T]) -> asyncio.Future[T]:
        self._last = write
        write.add_done_callback(self._kept)
        return write

    def _kept(self, write: asyncio.Future[Any]) -> None:
        if not write.cancelled() and (error := write.exception()) is not None:
            self._refused(error)
        self._tell_if_last(write)

    def _tell_if_last(self, write: asyncio.Future[Any]) -> None:
        if write is self._last:  # else what came after it is waited for as well
            waiting, self._waiting = self._waiting, []
            for over in waiting:
                if not over.done():
                    over.set_result(None)


def _heard(future: asyncio.Future[None]) -> None:
    future.exception()

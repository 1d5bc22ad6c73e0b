"""What an engine needs of storage: the port that every journal implements.

A journal object is one worker's door to one journal. Writing verbs are plain functions: **the call fixes the order, the
future it returns is done after the commit**. Each verb is one transaction; many may share a commit. Cancelling a future
does not undo the write. A verb about a run that this worker drives takes its `Hold` and is refused with `LeaseLost`,
without any effect, once the run is owned by somebody else or by a later epoch.

Verbs whose refusal is an answer (`RunConflict`, `UnknownRun`, `LeaseLost` …) set it as the future's exception.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from typing import Protocol

from ._records import (
    CancelRequest,
    Claimed,
    End,
    Entry,
    FailedAttempt,
    Hold,
    IfExists,
    Intent,
    Memory,
    NewRun,
    Resumed,
    Resumption,
    RunQuery,
    RunRow,
    Settlement,
    Started,
    Suspension,
    Wait,
    WorkerRow,
)

__all__ = ["Journal"]


class Journal(Protocol):
    """Storage for runs and their entries."""

    # Life ------------------------------------------------------------------------------------------------------------

    async def open(self, name: str, at: int) -> None:
        """Open or create the journal and enrol this worker under `name`.

        Raises:
            NotAJournal: The file is something else; it was not touched.
            JournalTooNew: Written by a newer version of this library.
        """

    async def close(self, at: int) -> None:
        """Commit what is queued, give every run that this worker drives back, and sign off.

        Runs given back are pending again and count no death. Calling it twice is harmless.
        """

    def stop(self) -> None:
        """Let go without waiting, as the end of the program does: what is queued is still committed."""

    # Writes of clients -----------------------------------------------------------------------------------------------

    def start(self, new: NewRun, if_exists: IfExists, *, drive: bool) -> asyncio.Future[Started]:
        """Store a run; with `drive`, this worker holds it from its first moment on.

        The same id, workflow and input attach to the run that exists, ended or not.

        Raises:
            RunConflict: The id is taken by another workflow or input, or `replace` was asked of a run that has not ended.
            RunExists: The id is taken and `fail` was asked.
        """
        ...

    def cancel(self, run_id: str, request: CancelRequest) -> asyncio.Future[RunRow]:
        """Ask a run to end; the run afterwards. A second request changes nothing. A run that never began ends here.

        Raises:
            UnknownRun: No run has this id.
            WrongState: The run has stopped; the message says how.
        """
        ...

    def resume(self, run_id: str, how: Resumption) -> asyncio.Future[Resumed]:
        """Make a failed or parked run pending again, with a fresh count of deaths.

        The failures that are found in its error are forgotten, with their attempts, and so is what was asked for after the
        body saw them. Of two at once one wins.

        Raises:
            UnknownRun: No run has this id.
            WrongState: The run is neither failed nor parked; or `retry` names what is not recorded; or there is an input to
                be corrected, and something is recorded already.
        """
        ...

    def discard(self, run_id: str, at: int) -> asyncio.Future[RunRow]:
        """Mark a dead letter as seen to; it changes no state, and twice is harmless.

        Raises:
            UnknownRun: No run has this id.
            WrongState: The run is neither failed nor parked.
        """
        ...

    def settle(self, run_id: str, how: Settlement) -> asyncio.Future[RunRow]:
        """Decide an at-most-once step of a run that is parked as ambiguous, and make the run pending again.

        Raises:
            UnknownRun: No run has this id.
            WrongState: The run is not parked as ambiguous, or nothing of this key is in doubt.
        """
        ...

    # Writes of the worker --------------------------------------------------------------------------------------------

    def claim(
        self, workflows: Collection[str], now: int, limit: int, *, suspects: bool
    ) -> asyncio.Future[list[Claimed]]:
        """Take up to `limit` runs that are pending, or suspended and due, oldest due first.

        Args:
            workflows: Names of the workflows that this process knows.
            now: The time that decides what is due.
            limit: The largest number of runs to take.
            suspects: Take one run of those whose owners died twice or more in a row, instead of all the others.
        """
        ...

    def reclaim(self, hold: Hold, at: int) -> asyncio.Future[None]:
        """Take a suspended run again whose body this worker still has; the new hold is the old one with the next epoch.

        Raises:
            LeaseLost: Somebody else has driven it since.
        """
        ...

    def record(self, hold: Hold, entry: Entry) -> asyncio.Future[None]:
        """Append one outcome. A second outcome for a key is refused by the journal itself."""
        ...

    def intend(self, hold: Hold, intent: Intent) -> asyncio.Future[None]:
        """Note that an at-most-once step is about to begin; again is harmless."""
        ...

    def fail(self, hold: Hold, attempt: FailedAttempt) -> asyncio.Future[None]:
        """Keep a failed attempt, and when the next one may begin."""
        ...

    def amend(
        self, hold: Hold, changed: Sequence[tuple[str, str, bytes]], removed: Sequence[str]
    ) -> asyncio.Future[None]:
        """Rewrite entries as a person accepted it.

        Args:
            hold: The right to write.
            changed: Key, new name and new digest of calls that the code now makes differently.
            removed: Keys of calls that the code no longer makes.
        """
        ...

    def settle_changes(self, hold: Hold) -> asyncio.Future[None]:
        """Note that the replay for which changes were accepted is over: later ones are divergences again."""
        ...

    def suspend(self, hold: Hold, waits: Sequence[Wait], at: int) -> asyncio.Future[Suspension]:
        """Give the run back until one of `waits` is over, unless news has come for it: then nothing changes.

        The news is looked for in the same transaction, so no wake-up is lost. A suspended run belongs to nobody.
        """
        ...

    def end(self, hold: Hold, end: End) -> asyncio.Future[None]:
        """Stop the run for good, or park it. With a failed or parked run this is its dead letter."""
        ...

    def give_back(self, hold: Hold, at: int) -> asyncio.Future[None]:
        """Make a run pending again without counting a death."""
        ...

    def take_over(
        self, dead: Sequence[int], max_recoveries: int, parked_result: bytes, at: int
    ) -> asyncio.Future[list[RunRow]]:
        """Free the runs that dead workers drove, and strike those workers off; the runs that were freed or parked.

        A run with a new outcome since its owner died the last time has one death now, a run without one has one more;
        at `max_recoveries` of them it is parked as `crash_loop` with `parked_result`. So while `deaths` is above zero the
        last owner died; suspension, an end and an orderly close make it zero.
        """
        ...

    # Reads -----------------------------------------------------------------------------------------------------------

    async def run(self, run_id: str) -> RunRow | None:
        """The run of this id, or None."""
        ...

    async def runs(self, query: RunQuery) -> list[RunRow]:
        """The runs that a query asks for."""
        ...

    async def count(self, query: RunQuery) -> int:
        """How many runs a query asks for; its limit is ignored."""
        ...

    async def entries(self, run: int) -> list[Entry]:
        """All entries of a run by their order, `removed` ones included."""
        ...

    async def memory(self, run: int) -> Memory:
        """All that is known of what a run has done and waits for: one state of the journal, at one look."""
        ...

    async def waits(self, run: int) -> list[Wait]:
        """What a run waited for when it was last suspended."""
        ...

    async def next_due(self, workflows: Collection[str]) -> int | None:
        """When the next suspended run of these workflows is due, or None."""
        ...

    async def backlog(self) -> list[tuple[str, str, int]]:
        """Name, origin and number of the pending or due-to-come runs, by workflow: what recovery has to know."""
        ...

    async def workers(self) -> list[WorkerRow]:
        """All other workers that are enrolled, dead or alive."""
        ...

"""The port on one SQLite file: each verb hands its statements to the writer, or looks with the reader."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from .._findings import Verification
from .._records import (
    Answered,
    Claimed,
    End,
    Ended,
    Entry,
    FailedAttempt,
    Hold,
    IfExists,
    Intent,
    Mail,
    Memory,
    NewAnswer,
    NewMessage,
    NewQuestion,
    NewRun,
    News,
    OpenQuestion,
    Pruned,
    Pruning,
    Pulse,
    QuestionQuery,
    Report,
    Request,
    Rest,
    Resumed,
    Resumption,
    RunQuery,
    RunRow,
    Sent,
    Settlement,
    Started,
    Suspension,
    Wait,
    WorkerRow,
)
from .._tables import Effect, Undone, Work
from . import clients, control, driving, queries, recording, reviving, transactions, verify
from .care import Care
from .files import written_at
from .pruning import prune

__all__ = ["SqliteJournal"]

T = TypeVar("T")


class SqliteJournal(Care):
    """A journal in an SQLite file. What its verbs promise stands at the port."""

    # Writes of clients -----------------------------------------------------------------------------------------------

    def start(
        self,
        new: NewRun,
        if_exists: IfExists,
        *,
        drive: bool,
        message: NewMessage | None = None,
        caller: Hold | None = None,
    ) -> asyncio.Future[Started]:
        """Store a run, and a message to it if there is one."""
        return self._submit(
            lambda desk: clients.start(desk, new, if_exists, drive=drive, message=message, caller=caller),
            drives=caller is not None,
            late=lambda started: started.hold and self._not_driven(started.hold, new.at),
        )

    def signal(
        self, run_id: str, message: NewMessage, *, caller: Hold | None = None, at_rest: Hold | None = None
    ) -> asyncio.Future[Sent]:
        """Store a message to a run, and wake it where it waits for one."""
        return self._submit(
            lambda desk: clients.signal(desk, run_id, message, caller=caller, at_rest=at_rest),
            drives=caller is not None,
            late=lambda sent: sent.taken and self._not_driven(sent.taken.hold, message.at),
        )

    def answer(
        self, run_id: str, answer: NewAnswer, *, caller: Hold | None = None, at_rest: Hold | None = None
    ) -> asyncio.Future[Answered]:
        """Answer a question, and wake the run where it waits for that."""
        return self._submit(
            lambda desk: clients.answer(desk, run_id, answer, caller=caller, at_rest=at_rest),
            drives=caller is not None,
            late=lambda answered: answered.taken and self._not_driven(answered.taken.hold, answer.at),
        )

    def _not_driven(self, hold: Hold, at: int) -> asyncio.Future[None]:
        """Give back a run whose caller was given up: it does not know of the hold, so nobody here would drive it."""
        back = self.give_back(hold, at)
        back.add_done_callback(lambda back: back.exception())
        return back

    def cancel(self, run_id: str, request: Request, *, caller: Hold | None = None) -> asyncio.Future[Sequence[RunRow]]:
        """Ask a run and its descendants to end."""
        return self._submit(
            lambda desk: control.cancel(desk, run_id, request, caller=caller), drives=caller is not None
        )

    def terminate(self, run_id: str, request: Request) -> asyncio.Future[Sequence[RunRow]]:
        """End a run and its descendants at once."""
        return self._submit(lambda desk: control.terminate(desk, run_id, request), drives=False)

    def pause(self, run_id: str, request: Request) -> asyncio.Future[Sequence[RunRow]]:
        """Pause a run and its descendants."""
        return self._submit(lambda desk: control.pause(desk, run_id, request), drives=False)

    def resume(self, run_id: str, how: Resumption) -> asyncio.Future[Resumed]:
        """Let a paused run go on, or make a failed or parked one pending again."""
        return self._submit(lambda desk: reviving.resume(desk, run_id, how), drives=False)

    def settle(self, run_id: str, how: Settlement) -> asyncio.Future[RunRow]:
        """Decide what is in doubt, and make the run pending again."""
        return self._submit(lambda desk: reviving.settle(desk, run_id, how), drives=False)

    def discard(self, run_id: str, at: int) -> asyncio.Future[RunRow]:
        """Mark a dead letter as seen to."""
        return self._submit(lambda desk: reviving.discard(desk, run_id, at), drives=False)

    def prune(self, pruning: Pruning) -> asyncio.Future[Pruned]:
        """Forget runs that ended long ago."""
        return self._submit(lambda desk: prune(desk, pruning), drives=False)

    def transact(self, work: Work[T]) -> asyncio.Future[T]:
        """Run a body inside the batch's transaction; what it gave, once that is committed."""

        def blame(error: sqlite3.Error) -> BaseException:
            return error

        return self._submit(lambda desk: transactions.transact(desk, work, self._bench), drives=False, blame=blame)

    # Writes of the worker --------------------------------------------------------------------------------------------

    def claim(
        self,
        workflows: Collection[str],
        now: int,
        limit: int,
        *,
        suspects: bool,
        only: Collection[str] | None = None,
    ) -> asyncio.Future[list[Claimed]]:
        """Take up to `limit` runs that are ready, oldest due first."""
        return self._submit(lambda desk: driving.claim(desk, workflows, now, limit, suspects=suspects, only=only))

    def reclaim(self, hold: Hold, at: int) -> asyncio.Future[News]:
        """Take a run at rest again whose body this worker still has."""
        return self._submit(lambda desk: driving.reclaim(desk, hold, at))

    def record(self, hold: Hold, entry: Entry, takes: Sequence[int] = ()) -> asyncio.Future[None]:
        """Append one outcome, and note that it took these messages."""
        return self._submit(lambda desk: recording.record(desk, hold, entry, takes))

    def transact_step(self, hold: Hold, entry: Entry, work: Work[Effect]) -> asyncio.Future[Entry | Undone]:
        """Run a body as `transact` does, and append its outcome in the same commit."""
        return self._submit(lambda desk: transactions.transact_step(desk, hold, entry, work, self._bench), blame=Undone)

    def expire(self, hold: Hold, entry: Entry, deadline: int) -> asyncio.Future[bool]:
        """Append the outcome of a wait whose deadline has passed, unless something came in time."""
        return self._submit(lambda desk: recording.expire(desk, hold, entry, deadline))

    def ask(self, hold: Hold, question: NewQuestion) -> asyncio.Future[bool]:
        """Store a question; whether it is answered."""
        return self._submit(lambda desk: recording.ask(desk, hold, question))

    def withdraw(self, hold: Hold, keys: Sequence[str], at: int) -> asyncio.Future[None]:
        """Close questions that the body no longer waits for."""
        return self._submit(lambda desk: recording.withdraw(desk, hold, keys, at))

    def set_aside(self, hold: Hold, message: int, error: bytes) -> asyncio.Future[None]:
        """Keep a message out of the way, with the reason."""
        return self._submit(lambda desk: recording.set_aside(desk, hold, message, error))

    def reopen(self, hold: Hold, key: str, answer: bytes, error: bytes) -> asyncio.Future[None]:
        """Take this answer of a question away again, with the reason."""
        return self._submit(lambda desk: recording.reopen(desk, hold, key, answer, error))

    def abandon(self, hold: Hold, children: Sequence[str], request: Request) -> asyncio.Future[Sequence[RunRow]]:
        """Ask children that the body no longer waits for to end."""
        return self._submit(lambda desk: control.abandon(desk, hold, children, request))

    def report(self, hold: Hold, report: Report) -> asyncio.Future[None]:
        """Keep what the body says of itself."""
        return self._submit(lambda desk: recording.report(desk, hold, report))

    def intend(self, hold: Hold, intent: Intent) -> asyncio.Future[None]:
        """Note that an at-most-once step is about to begin."""
        return self._submit(lambda desk: recording.intend(desk, hold, intent))

    def fail(self, hold: Hold, attempt: FailedAttempt) -> asyncio.Future[None]:
        """Keep a failed attempt, and when the next one may begin."""
        return self._submit(lambda desk: recording.fail(desk, hold, attempt))

    def amend(
        self, hold: Hold, changed: Sequence[tuple[str, str, bytes]], removed: Sequence[str]
    ) -> asyncio.Future[None]:
        """Rewrite entries as a person accepted it."""
        return self._submit(lambda desk: recording.amend(desk, hold, changed, removed))

    def settle_changes(self, hold: Hold) -> asyncio.Future[None]:
        """Note that the replay for which changes were accepted is over."""
        return self._submit(lambda desk: recording.settle_changes(desk, hold))

    def suspend(self, hold: Hold, rest: Rest) -> asyncio.Future[Suspension]:
        """Give the run back until one of its waits is over, unless news has come for it."""
        return self._submit(lambda desk: driving.suspend(desk, hold, rest))

    def end(self, hold: Hold, end: End) -> asyncio.Future[Ended | None]:
        """Stop the run for good, or park it; how it has stopped."""
        return self._submit(lambda desk: driving.end(desk, hold, end))

    def give_back(self, hold: Hold, at: int) -> asyncio.Future[None]:
        """Make a run pending again without counting a death."""
        return self._submit(lambda desk: driving.give_back(desk, hold, at))

    def leave(self, hold: Hold, at: int, *, interrupted: bool) -> asyncio.Future[None]:
        """Make a run pending again in good order: its count of deaths begins anew."""
        return self._submit(lambda desk: driving.leave(desk, hold, at, interrupted=interrupted))

    def sound(self) -> asyncio.Future[list[WorkerRow]]:
        """Write something, and look at all other workers."""
        return self._submit(lambda desk: queries.workers(desk, desk.me))

    def take_over(
        self,
        dead: Sequence[int],
        max_recoveries: int,
        parked_result: bytes,
        at: int,
        *,
        if_still: Mapping[int, int] | None = None,
    ) -> asyncio.Future[list[RunRow]]:
        """Free the runs that dead workers drove, and strike those workers off; the runs that were freed or parked."""
        still = if_still or {}
        return self._submit(
            lambda desk: driving.take_over(desk, dead, max_recoveries, parked_result, at, if_still=still)
        )

    # Care ------------------------------------------------------------------------------------------------------------

    async def verify(self, runs: bool | Collection[str]) -> Verification:  # noqa: FBT001 - all, none, or these
        """Hold the journal against its checksums; then take what is stored of these runs for right, or of all."""
        async with self._aside() as look:
            found = await verify.verify(look)
        if runs:
            await self._submit(lambda desk: verify.accept(desk, runs), drives=False)
        return found

    # Reads -----------------------------------------------------------------------------------------------------------

    async def run(self, run_id: str, *, patient: bool = False) -> RunRow | None:
        """The run of this id, or None."""
        return await self._read(lambda tables: queries.run(tables, run_id), patient=patient)

    async def runs(self, query: RunQuery) -> list[RunRow]:
        """The runs that a query asks for."""
        return await self._read(lambda tables: queries.runs(tables, query), patient=False)

    async def count(self, query: RunQuery) -> int:
        """How many runs a query asks for; its limit is ignored."""
        return await self._read(lambda tables: queries.count(tables, query), patient=False)

    async def entries(self, run: int) -> list[Entry]:
        """All entries of a run by their order, `removed` ones included."""
        return await self._read(lambda tables: queries.entries(tables, run), patient=False)

    async def memory(self, run: int) -> Memory:
        """All that is known of what a run has done and waits for."""
        return await self._read(lambda tables: queries.memory(tables, run), patient=False)

    async def waits(self, run: int) -> list[Wait]:
        """What a run waited for when it was last suspended."""
        return await self._read(lambda tables: queries.waits(tables, run), patient=False)

    async def memories(self, runs: Sequence[int]) -> list[Memory]:
        """The memory of each of these runs, at one look."""
        return await self._read(lambda tables: [queries.memory(tables, run) for run in runs])

    async def mail(self, run: int, awaited: Collection[str] = ()) -> Mail:
        """What has come for a run and was not recorded, and which of the awaited runs have ended."""
        return await self._read(lambda tables: queries.mail(tables, run, awaited))

    async def questions(self, query: QuestionQuery) -> list[OpenQuestion]:
        """The open questions that a query asks for."""
        return await self._read(lambda tables: queries.questions(tables, query), patient=False)

    async def news(self) -> list[News]:
        """The runs that this worker drives for which there is mail, or which were asked to end or to pause."""
        me = self._open_writer().batch.me
        return await self._read(lambda tables: queries.news(tables, me))

    async def changes(self, query: RunQuery, since: int) -> list[RunRow]:
        """The runs that a query asks for and that changed after `since`, in the order of their changes."""
        return await self._read(lambda tables: queries.changes(tables, query, since), patient=False)

    async def stops(self, since: int) -> tuple[int, list[int]]:
        """The numbers of the runs that stopped since, and the last change there is."""
        return await self._read(lambda tables: queries.stops(tables, since))

    async def pulse(self) -> Pulse:
        """What tells whether anybody has written since an earlier look.

        In memory it is always the same: nobody else can write, and whoever writes here knows of it.
        """
        me = self._open_writer().batch.me
        if self._is_in_memory:
            return Pulse(0, 0)
        signs = self._signs()  # before the look: what is written after it has to show
        return replace(await self._read(lambda tables: queries.pulse(tables, me)), signs=signs)

    def seems_still(self, since: Pulse) -> bool:
        """Whether neither the mark nor the WAL has changed since that pulse.

        Other workers write the mark after each commit. Others write into the WAL before theirs, and within one moment of the
        file system's clock perhaps twice.
        """
        return since.signs is not None and since.signs == self._signs()

    def _signs(self) -> tuple[object, ...] | None:
        mark = self._open_writer().batch.mark
        if mark is None or self._network:  # there, a look may take as long as an answer of the network
            return None
        try:
            return mark.said(), *written_at(self.path)
        except OSError:
            return None

    async def ready(self, workflows: Collection[str], now: int, *, only: Collection[str] | None = None) -> bool:
        """Whether `claim` would find a run of these workflows, suspects included."""
        return await self._read(lambda tables: queries.ready(tables, workflows, now, only))

    async def next_due(self, workflows: Collection[str], *, only: Collection[str] | None = None) -> int | None:
        """When the next run at rest of these workflows is due, or None."""
        return await self._read(lambda tables: queries.next_due(tables, workflows, only))

    async def backlog(self) -> list[tuple[str, str, int]]:
        """Name, origin and number of the pending or due-to-come runs, by workflow."""
        return await self._read(queries.backlog)

    async def strangers(self, known: Collection[str]) -> list[tuple[str, str]]:
        """Name and origin of the workflows besides those known of which there are runs that nobody drives."""
        return await self._read(lambda tables: queries.strangers(tables, known))

    async def workers(self) -> list[WorkerRow]:
        """All other workers that are enrolled, dead or alive."""
        me = self._open_writer().batch.me
        return await self._read(lambda tables: queries.workers(tables, me))

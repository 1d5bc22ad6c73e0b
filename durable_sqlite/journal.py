"""What an engine needs of storage: the port that every journal implements.

A journal object is one worker's door to one journal. Writing verbs are plain functions: **the call fixes the order, the
future it returns is done after the commit**. Each verb is one transaction; many may share a commit. Cancelling a future
does not undo the write. A verb about a run that this worker drives takes its `Hold` and is refused with `LeaseLost`,
without any effect, once the run is owned by somebody else or by a later epoch.

Where the storage is in trouble, the verbs of the worker wait for as long as that lasts. So do those of clients that come
from the body of a run; from the application they raise `StorageStalled` after a stated time, and its message says whether
something was stored.

Verbs whose refusal is an answer (`RunConflict`, `UnknownRun`, `LeaseLost` …) set it as the future's exception.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from ._records import (
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
from ._tables import Effect, Undone, Work

__all__ = ["Journal", "Lease"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Lease:
    """How a worker holds its runs while others could take them."""

    length: int
    """Microseconds for which it may be silent."""
    host: str
    """Which start of which machine it runs on."""
    at: Callable[[], int]
    """The time; called on any thread."""
    ticked: Callable[[], int | None]
    """When the event loop last turned, if that is known; called on any thread."""
    lapsed: Callable[[str], None]
    """Is told on the loop why the worker may no longer drive runs: what it holds is lost, or may be at any moment."""


class Journal(Protocol):
    """Storage for runs and their entries."""

    # Life ------------------------------------------------------------------------------------------------------------

    async def open(self, name: str, at: int, lease: Lease | None = None) -> None:
        """Open or create the journal and enrol this worker under `name`; its lease is kept from then on.

        Raises:
            NotAJournal: The file is something else; it was not touched.
            JournalTooNew: Written by a newer version of this library.
        """

    async def close(self, at: int) -> None:
        """Commit what is queued, give every run that this worker drives back, and sign off.

        Runs given back are pending again and count no death. Calling it twice is harmless.
        """

    async def assured(self) -> None:
        """Wait until nobody else can have taken this worker's runs; where somebody has, for ever.

        For a process that stood still, and is about to begin something that others have done in the meantime.
        """

    async def rejoin(self, name: str, at: int) -> None:
        """Give back what this worker still holds, and begin anew as another one: late writes of the old one are refused."""

    def stop(self) -> None:
        """Let go without waiting, as the end of the program does: what is queued is still committed."""

    # Writes of clients -----------------------------------------------------------------------------------------------

    # With `caller`, the verb comes from the body of that run, and is refused with `LeaseLost` unless the hold is good.

    def start(
        self,
        new: NewRun,
        if_exists: IfExists,
        *,
        drive: bool,
        message: NewMessage | None = None,
        caller: Hold | None = None,
    ) -> asyncio.Future[Started]:
        """Store a run, and a message to it if there is one; with `drive`, this worker holds it from its first moment on.

        The same id, workflow and input attach to the run that exists, ended or not. A run that the same parent started
        under its uid is attached to whatever `if_exists` says: the parent asks again after a crash.

        A run with a parent inherits the parent's deadline where that is nearer than its own, unless it is detached; and
        where the parent was asked to end or to pause, so was it.

        Raises:
            RunConflict: The id is taken by another workflow or input, or `replace` was asked of a run that has not ended.
            RunExists: The id is taken and `fail` was asked.
            SignalRejected: There is a message, and the run has ended; nothing changed.
        """
        ...

    # With `at_rest`, the hold of the run's body that rests in this worker's memory, the verb takes a run that it wakes, as
    # `reclaim` does, and the answer says so: it is this worker's to drive then. Where that cannot be, the run is pending.

    def signal(
        self, run_id: str, message: NewMessage, *, caller: Hold | None = None, at_rest: Hold | None = None
    ) -> asyncio.Future[Sent]:
        """Store a message to a run; a suspended run that waits for one of its name is pending then.

        A message whose `dedupe` value the run has had already changes nothing, also where the run has ended.

        Raises:
            UnknownRun: No run has this id.
            SignalRejected: The run has ended: it is completed, failed or cancelled. A parked run takes messages.
        """
        ...

    def answer(
        self, run_id: str, answer: NewAnswer, *, caller: Hold | None = None, at_rest: Hold | None = None
    ) -> asyncio.Future[Answered]:
        """Answer a question; a suspended run that asks it is pending then. Of two answers one wins.

        An answer whose `dedupe` value answered a question of the run already changes nothing.

        Raises:
            UnknownRun: No run has this id.
            SignalRejected: The run has ended, the question was not asked yet and `early` is not said, or no key is named
                and the suspend point has asked several; the message lists their keys.
            SignalSuperseded: The question was answered before, or is closed, or its deadline was before `answer.at`; also
                where the run has ended since.
        """
        ...

    def cancel(self, run_id: str, request: Request, *, caller: Hold | None = None) -> asyncio.Future[Sequence[RunRow]]:
        """Ask a run and its descendants to end; the run afterwards, then those of the others that were told now.

        A second request changes nothing. A run that never began ends here: one that has neither entries nor waits, and that
        nobody left in the middle. A paused
        run goes on, to its end, and a request to pause is gone. Descendants are the runs that its body started and theirs,
        but for detached ones and what those started.

        Raises:
            UnknownRun: No run has this id.
            WrongState: The run has stopped; the message says how.
        """
        ...

    def terminate(self, run_id: str, request: Request) -> asyncio.Future[Sequence[RunRow]]:
        """End a run and its descendants as cancelled, at once and without clean-up; the run, then the others that ended now.

        A run that is parked or failed is ended too. Whoever drives one of them finds its writes refused.

        Raises:
            UnknownRun: No run has this id.
            WrongState: The run is completed or cancelled.
        """
        ...

    def pause(self, run_id: str, request: Request) -> asyncio.Future[Sequence[RunRow]]:
        """Pause a run and its descendants; the run afterwards, then those of the others that were told now.

        What nobody drives is paused at once, and due at its deadline only; what is driven is paused when it comes to rest.
        A second request changes nothing. A descendant that was asked to end is left alone.

        Raises:
            UnknownRun: No run has this id.
            WrongState: The run has stopped, or was asked or told to end.
        """
        ...

    def resume(self, run_id: str, how: Resumption) -> asyncio.Future[Resumed]:
        """Let a paused run and its paused descendants go on, or make a failed or parked run pending again.

        Where the run failed or was parked, its count of deaths is fresh; the failures that are found in its error are
        forgotten, with their attempts, and so is what was asked for after the body saw them: messages that it took then
        may be taken again, questions are asked again. A child run whose failure is forgotten, or that the body waited for by
        its handle, and that has failed or is parked, is resumed in the same way, first; so is one that failed at a deadline
        which it had from this run. Of two at once one wins.

        Raises:
            UnknownRun: No run has this id.
            WrongState: The run is neither failed nor parked nor paused, nor asked to pause; or `retry` names what is not
                recorded; or there is an input to be corrected, and something is recorded already, or the run is paused.
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

    def prune(self, pruning: Pruning) -> asyncio.Future[Pruned]:
        """Forget runs that have ended, with all that belongs to them, oldest end first; their ids are free again.

        A run stays, whatever is asked, while somebody waits for its end; while a run above it exists that is neither
        completed nor cancelled, since that one may ask for it again; and while a run is left below it that is not to be
        forgotten, detached ones aside. A detached run outlives the run that started it.
        """
        ...

    def transact(self, work: Work[T]) -> asyncio.Future[T]:
        """Run a body inside the batch's transaction, in a savepoint of its own; what it gave, once that is committed.

        What it raises is the future's exception, its rows are gone then, and the other writes of the batch are untouched.
        So is an error at COMMIT for which it is to blame, such as a deferred constraint, and a `TimeoutError` where its SQL
        took longer than its budget. Trouble of the storage is waited out as for any write, and the body is called again.
        """
        ...

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
        """Take up to `limit` runs that are pending, or suspended and due, oldest due first.

        Where there are more, each workflow gets as many as any other, and of its own the oldest due: a long queue of one
        does not hold up the others.

        Args:
            workflows: Names of the workflows that this process knows.
            now: The time that decides what is due.
            limit: The largest number of runs to take.
            suspects: Take one run of those whose owners died twice or more in a row, instead of all the others.
            only: Take none but the runs with these ids, and those that their bodies started and did not detach.
        """
        ...

    def reclaim(self, hold: Hold, at: int) -> asyncio.Future[News]:
        """Take a run at rest again whose body this worker still has; the new hold is the old one with the next epoch.

        A pause stays in force unless the run's deadline has come. The answer is what is asked of the run: a request to cancel
        that the body was not given, and the request to pause that is in force.

        Raises:
            LeaseLost: Somebody else has driven it since.
        """
        ...

    def record(self, hold: Hold, entry: Entry, takes: Sequence[int] = ()) -> asyncio.Future[None]:
        """Append one outcome, and note that it took these messages. A second outcome for a key is refused by the journal.

        An entry that tells the body to end also ends a pause, and a request to pause.
        """
        ...

    def transact_step(self, hold: Hold, entry: Entry, work: Work[Effect]) -> asyncio.Future[Entry | Undone]:
        """Run a body as `transact` does, and append its outcome in the same commit; the entry as it was recorded.

        The entry's outcome and payload are those of the effect. Where the body or its commit fails, nothing is recorded, and
        the answer says so; the next entry may take its place in the run's order.
        """
        ...

    def expire(self, hold: Hold, entry: Entry, deadline: int) -> asyncio.Future[bool]:
        """Append the outcome of a wait whose deadline has passed, unless what it waited for was stored in time.

        Then nothing changes, and the answer is False. For a wait for a message: one of the entry's name that was sent at the
        deadline or before, and was neither taken nor set aside. For a question: its answer. A question is closed by this, as
        of its deadline.
        """
        ...

    def ask(self, hold: Hold, question: NewQuestion) -> asyncio.Future[bool]:
        """Store a question; whether it is answered. Again is harmless, and the one that is stored stays.

        The oldest answer that came early for its name is its answer.
        """
        ...

    def withdraw(self, hold: Hold, keys: Sequence[str], at: int) -> asyncio.Future[None]:
        """Close those of these questions that are open: the body no longer waits for them."""
        ...

    def set_aside(self, hold: Hold, message: int, error: bytes) -> asyncio.Future[None]:
        """Keep a message out of the way, with the reason: it does not fit its type."""
        ...

    def reopen(self, hold: Hold, key: str, answer: bytes, error: bytes) -> asyncio.Future[None]:
        """Take this answer of a question away again, with the reason: it does not fit its type.

        Where the question has another answer by now, or none, nothing changes.
        """
        ...

    def abandon(self, hold: Hold, children: Sequence[str], request: Request) -> asyncio.Future[Sequence[RunRow]]:
        """Ask those of these runs that this run's body started, and have not stopped, to end, with their descendants.

        The runs that were told now.
        """
        ...

    def report(self, hold: Hold, report: Report) -> asyncio.Future[None]:
        """Keep what the body says of itself."""
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

    def suspend(self, hold: Hold, rest: Rest) -> asyncio.Future[Suspension]:
        """Give the run back until one of its waits is over, unless news has come for it: then nothing changes.

        News is: a request to cancel that the body was not given; a message, neither taken nor set aside, of the name of an
        open wait for one; an answer to an open question of the run's that is not recorded; the end of a run whose end is
        waited for. With `rest.paused` only the request to cancel is, and that the run is not to be paused any more;
        without, also that it is to be paused. It is looked for in the same transaction, so no wake-up is lost.

        A run at rest belongs to nobody: it is suspended, or paused and due at its deadline only.
        """
        ...

    def end(self, hold: Hold, end: End) -> asyncio.Future[Ended | None]:
        """Stop the run for good, or park it; how it has stopped: a request to end that was committed first has won.

        None where the run goes on: it was to be completed with `drained` as the last thing that its body knew, and more
        messages of that name have come since, neither taken nor set aside. Then that entry is forgotten, as if the body had
        not asked yet, what it took may be taken again, and the run is pending.

        With a failed or parked run this is its dead letter; one that failed at an inherited deadline leaves none: it is
        marked as seen to. A parked run has not ended: whoever waits for it goes on waiting. Questions that are open are
        closed.
        """
        ...

    def give_back(self, hold: Hold, at: int) -> asyncio.Future[None]:
        """Make a run pending again without counting a death."""
        ...

    def leave(self, hold: Hold, at: int, *, interrupted: bool) -> asyncio.Future[None]:
        """Make a run pending again in good order, or paused where that was asked: its count of deaths begins anew.

        Args:
            hold: The right to drive it.
            at: The time.
            interrupted: Something may have begun for it that is not recorded.
        """
        ...

    def sound(self) -> asyncio.Future[list[WorkerRow]]:
        """Write something, so that it is known that writing is possible now, and look at all other workers."""
        ...

    def take_over(
        self,
        dead: Sequence[int],
        max_recoveries: int,
        parked_result: bytes,
        at: int,
        *,
        if_still: Mapping[int, int] | None = None,
    ) -> asyncio.Future[list[RunRow]]:
        """Free the runs that dead workers drove, and strike those workers off; the runs that were freed or parked.

        A worker in `if_still` whose counters are not what is said there any more is alive, and is left alone.

        A run with a new outcome since its owner died the last time has one death now, a run without one has one more;
        at `max_recoveries` of them it is parked as `crash_loop` with `parked_result`. So while `deaths` is above zero the
        last owner died; suspension, an end and an orderly close make it zero.
        """
        ...

    # Reads -----------------------------------------------------------------------------------------------------------

    # What the application asks raises `StorageStalled` where the storage is in trouble for longer than a stated time; what
    # only the worker asks waits for ever. So does `run` with `patient`.

    async def run(self, run_id: str, *, patient: bool = False) -> RunRow | None:
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

    async def memories(self, runs: Sequence[int]) -> list[Memory]:
        """The memory of each of these runs, at one look."""
        ...

    async def mail(self, run: int, awaited: Collection[str] = ()) -> Mail:
        """What has come for a run and was not recorded, and which of the awaited runs have ended."""
        ...

    async def questions(self, query: QuestionQuery) -> list[OpenQuestion]:
        """The open questions that a query asks for, of runs that have not stopped; oldest first, then by run and key."""
        ...

    async def news(self) -> list[News]:
        """The runs that this worker drives for which there is mail, or which were asked to end or to pause.

        Mail is also the end of a run that a wait is for, as far as waits were written.
        """
        ...

    async def changes(self, query: RunQuery, since: int) -> list[RunRow]:
        """The runs that a query asks for and that changed after `since`, in the order of their changes.

        The query's own order and `after` are ignored. There may be more than its limit: what one commit changed stays
        together.
        """
        ...

    async def stops(self, since: int) -> tuple[int, list[int]]:
        """The numbers of the runs that stopped after `since` and have not changed again, and the last change there is."""
        ...

    async def pulse(self) -> Pulse:
        """What tells whether anybody has written since an earlier look."""
        ...

    def seems_still(self, since: Pulse) -> bool:
        """Whether nothing shows, at a glance that costs next to nothing, that anybody has written since that pulse.

        A commit of another worker shows once it is acknowledged; but for one that was in doubt, and what is written by nobody
        who is enrolled. So ask for the pulse now and then in any case.
        """
        ...

    async def ready(self, workflows: Collection[str], now: int, *, only: Collection[str] | None = None) -> bool:
        """Whether `claim` would find a run of these workflows, suspects included."""
        ...

    async def next_due(self, workflows: Collection[str], *, only: Collection[str] | None = None) -> int | None:
        """When the next suspended run of these workflows is due, or None; `only` is that of `claim`."""
        ...

    async def backlog(self) -> list[tuple[str, str, int]]:
        """Name, origin and number of the runs that nobody drives and that have not stopped, by workflow."""
        ...

    async def strangers(self, known: Collection[str]) -> list[tuple[str, str]]:
        """Name and origin of the workflows besides those known of which there are runs that `backlog` counts.

        Cheap however many runs there are. Where runs of one workflow have several origins, it is one of them.
        """
        ...

    async def workers(self) -> list[WorkerRow]:
        """All other workers that are enrolled, dead or alive."""
        ...

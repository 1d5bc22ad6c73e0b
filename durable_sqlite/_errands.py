"""What the journal itself does for a body's durable calls: start a run, send, answer, ask, take what is there.

An errand that was run and whose outcome is not recorded is run again after a crash. So each is told apart by the run and
the key it comes from, and finds itself done.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol, TypeVar, cast

from ._attempt import Doubt, Fault, Result
from ._call import Call
from ._clock import Clock
from ._codec import Vault, load_error
from ._ids import derived
from ._ledger import Ledger
from ._mail import Mailbox
from ._records import (
    Answered,
    Entry,
    Hold,
    Kind,
    NewAnswer,
    NewMessage,
    NewQuestion,
    NewRun,
    Outcome,
    Request,
    RunRow,
    Sent,
    Started,
    State,
    Taken,
)
from ._specs import (
    AnswerQuestion,
    AskQuestion,
    AwaitRun,
    CancelRun,
    Errand,
    SendMessage,
    StartRun,
    Wish,
    WorkflowSpec,
)
from ._stops import dump_refusal, dump_stop, load_refusal, load_stop
from .errors import DurableError, RunError, UnknownRun
from .journal import Journal

__all__ = ["Errands", "PostOffice", "child_id", "end_of", "is_detached", "read_wish"]

T = TypeVar("T")

_NULL = b"null"


class PostOffice(Protocol):
    """Whoever knows the other runs that are driven here."""

    def reserve(self) -> bool:
        """Keep room for the body of a run that is being started, if there is some; `release` gives it back."""
        ...

    def release(self) -> None:
        """The start is answered."""
        ...

    def know(self, workflow: WorkflowSpec) -> None:
        """Let runs of this workflow be driven here."""
        ...

    def started(self, started: Started) -> None:
        """A run was started, or attached to."""
        ...

    def at_rest(self, run_id: str) -> Hold | None:
        """The hold of this run's body that rests here, with which the run may be taken; None where none does."""
        ...

    def mailed(self, row: RunRow, taken: Taken | None = None) -> None:
        """A message or an answer has come for this run, which was taken with it if its body rested here."""
        ...

    def told(self, *rows: RunRow) -> None:
        """These runs were asked to end or to pause, or go on, or have ended without their bodies."""
        ...


class Errands:
    """Runs errands for one pass and collects what came of them.

    Args:
        row: The run for whose body they are.
        journal: Does what is about other runs.
        ledger: What the pass writes about its own.
        post: Hears what they mean for other runs.
        clock: The time of what is sent.
        vault: Seals what is stored.
        mailbox: Hears of runs that have ended already.
        results: Where outcomes are put.
        landed: Is called when there is something to look at.
        refused: Is called with the reason where the journal will have nothing more of this pass.
        diverged: Is called with what differs, where a call asks for another child run than it has.
        look: Looks at the mail, and calls what it is given afterwards.
        awaits: Lets this pass hear of the end of a run.
    """

    def __init__(
        self,
        row: RunRow,
        *,
        journal: Journal,
        ledger: Ledger,
        post: PostOffice,
        clock: Clock,
        vault: Vault,
        mailbox: Mailbox,
        results: deque[tuple[Call, Result | Fault | Doubt]],
        landed: Callable[[], None],
        refused: Callable[[BaseException], None],
        diverged: Callable[[str], None],
        look: Callable[[Callable[[], None] | None], None],
        awaits: Callable[[str], None],
    ) -> None:
        self._row = row
        self._journal = journal
        self._ledger = ledger
        self._post = post
        self._clock = clock
        self._vault = vault
        self._mailbox = mailbox
        self._results = results
        self._landed = landed
        self._refused_all = refused
        self._diverged = diverged
        self._look = look
        self._awaits = awaits
        self._under_way: set[Call] = set()
        self._over = False

    def __len__(self) -> int:
        """How many are under way, besides those that the body can wait for in suspension."""
        return len(self._under_way)

    def stop(self) -> None:
        """The pass is over: what comes back now is nobody's."""
        self._over = True
        self._under_way.clear()

    def ask(self, call: Call, question: AskQuestion) -> None:
        """Store a question; nothing in the body waits for that, only for the answer."""
        payload = self._vault.seal(question.data, f"run {self._row.id}, {call.key}: question")
        now = self._clock.now()
        asked = self._ledger.ask(NewQuestion(call.key, call.name, payload, question.schema, now, call.deadline))
        asked.add_done_callback(self._asked)

    def begin(self, call: Call, errand: Errand) -> None:
        """Run the errand of a call."""
        hold = self._ledger.hold
        self._under_way.add(call)
        where = f"run {self._row.id}, {call.key}"
        match errand:
            case StartRun():
                self._post.know(errand.workflow)
                new = self._new_run(call, errand, hold)
                drive = self._post.reserve()
                started = self._journal.start(new, errand.options.if_exists, drive=drive, caller=hold)
                if drive:
                    started.add_done_callback(lambda _: self._post.release())
                self._expect(call, started, self._started)
            case SendMessage():
                dedupe = errand.dedupe or derived(self._row.uid, call.key)
                at_rest = self._post.at_rest(errand.run_id)
                message = NewMessage(errand.name, self._vault.seal(errand.data, where), self._clock.now(), dedupe)
                self._expect(
                    call, self._journal.signal(errand.run_id, message, caller=hold, at_rest=at_rest), self._sent
                )
            case AnswerQuestion():
                at_rest = self._post.at_rest(errand.run_id)
                answer = NewAnswer(
                    name=errand.name,
                    key=errand.key,
                    payload=self._vault.seal(errand.data, where),
                    at=self._clock.now(),
                    by=errand.by,
                    early=errand.early,
                    dedupe=derived(self._row.uid, call.key),
                )
                self._expect(
                    call, self._journal.answer(errand.run_id, answer, caller=hold, at_rest=at_rest), self._sent
                )
            case CancelRun():
                request = Request(self._clock.now(), errand.reason, errand.by)
                self._expect(call, self._journal.cancel(errand.run_id, request, caller=hold), self._told)
            case AwaitRun():
                self._expect(call, asyncio.ensure_future(self._journal.run(errand.run_id, patient=True)), self._found)
            case _:
                self._look(partial(self._take_all, call))

    # What came back --------------------------------------------------------------------------------------------------

    def _expect(self, call: Call, write: asyncio.Future[T], act: Callable[[Call, T], None]) -> None:
        def done(write: asyncio.Future[T]) -> None:
            if write.cancelled():
                return
            error = write.exception()
            if error is None:
                act(call, write.result())  # also where the pass is over: other runs are concerned
                self._landed()
            elif not self._over:
                self._failed(call, error)

        write.add_done_callback(done)

    def _failed(self, call: Call, error: BaseException) -> None:
        if not isinstance(error, RunError):
            self._refused_all(error)
        elif call.wish is not None and isinstance(call.wish.errand, CancelRun):
            # A run that is cancelled already refuses; but that may be this very call's doing, before a crash.
            looking = asyncio.ensure_future(self._journal.run(error.run_id, patient=True))
            self._expect(call, looking, partial(self._see_whether_cancelled, error))
        else:
            self._refused(call, error)
            self._landed()

    def _see_whether_cancelled(self, error: RunError, call: Call, row: RunRow | None) -> None:
        if row is not None and row.state is State.CANCELLED:
            self._finish(call, self._value(call, _NULL))
        else:
            self._refused(call, error)

    def _refused(self, call: Call, error: RunError) -> None:
        where = f"run {self._row.id}, {call.key}"
        self._finish(call, Result(Outcome.DECLARED, self._vault.seal_error(dump_refusal(error), where)))

    def _finish(self, call: Call, result: Result) -> None:
        self._under_way.discard(call)
        if not self._over:
            self._results.append((call, result))

    def _value(self, call: Call, data: bytes) -> Result:
        return Result(Outcome.VALUE, self._vault.seal(data, f"run {self._row.id}, {call.key}"))

    def _asked(self, asked: asyncio.Future[bool]) -> None:
        if not self._over and not asked.cancelled() and asked.exception() is None and asked.result():
            self._look(None)

    def _started(self, call: Call, started: Started) -> None:
        self._post.started(started)
        if not started.created and self._is_another(call, started.row):
            return
        if call.kind is Kind.CHILD:
            self._attend(call, started.row)
        else:
            # Asked again after a crash, the journal only finds what this very call has made.
            made = started.created or started.row.uid == _uid_of_child(self._row, call)
            handle = {"id": started.row.id, "created": made}
            self._finish(call, self._value(call, json.dumps(handle).encode()))

    def _is_another(self, call: Call, row: RunRow) -> bool:
        """Whether this very call started the run before a crash, as a run of another workflow or with another input."""
        assert call.wish is not None
        errand = cast("StartRun", call.wish.errand)
        if row.uid != _uid_of_child(self._row, call):
            return False
        if (row.workflow, row.input_digest) == (errand.workflow.name, errand.digest):
            return False
        what = "another input" if row.workflow == errand.workflow.name else f"workflow {row.workflow}"
        self._under_way.discard(call)
        self._diverged(
            f"run {self._row.id}, {call.key}: the code asks for a child run of {errand.workflow.name}, and the call has started "
            f"run {row.id} with {what} already. Mend the code and call `resume` on the run."
        )
        return True

    def _found(self, call: Call, row: RunRow | None) -> None:
        if row is None:
            assert call.wish is not None
            run_id = cast("AwaitRun", call.wish.errand).run_id
            self._refused(call, UnknownRun(run_id, f"no run has the id {run_id}"))
        else:
            self._attend(call, row)

    def _attend(self, call: Call, row: RunRow) -> None:
        """From now on the call waits for the end of a run, unless it was given up meanwhile."""
        self._under_way.discard(call)
        if call.given_up or self._over:
            return
        call.target = row.id
        self._mailbox.wait(call)
        if row.state.ended:
            self._mailbox.heard(row)
        else:
            self._awaits(row.id)

    def _sent(self, call: Call, sent: Sent | Answered) -> None:
        self._finish(call, self._value(call, _NULL))
        self._post.mailed(sent.row, sent.taken)

    def _told(self, call: Call, rows: Sequence[RunRow]) -> None:
        self._post.told(*rows)
        self._finish(call, self._value(call, _NULL))

    def _take_all(self, call: Call) -> None:
        self._finish(call, Result(Outcome.VALUE, b""))  # whoever records it puts in what is there then
        self._landed()

    def _new_run(self, call: Call, errand: StartRun, hold: Hold) -> NewRun:
        workflow, options = errand.workflow, errand.options
        run_id = child_id(self._row, call)
        return NewRun(
            id=run_id,
            uid=_uid_of_child(self._row, call),
            workflow=workflow.name,
            origin=workflow.origin,
            version=workflow.version,
            input=self._vault.seal(errand.data, f"run {run_id}: input"),
            input_digest=errand.digest,
            at=self._clock.now(),
            tags=options.tags,
            deadline=options.deadline,
            parent=hold.run,
            parent_key=call.key,
            detached=options.detached,
        )


def child_id(row: RunRow, call: Call) -> str:
    """The id of the run that a call of `row`'s body starts: the chosen one, or one that is the same after a crash."""
    assert call.wish is not None
    errand = cast("StartRun", call.wish.errand)
    return errand.options.id or derived(row.uid, call.key)


def is_detached(call: Call) -> bool:
    """Whether the child run of this call goes its own way."""
    assert call.wish is not None
    return cast("StartRun", call.wish.errand).options.detached


def _uid_of_child(row: RunRow, call: Call) -> str:
    return derived(row.uid, call.key, "uid")


def end_of(row: RunRow, vault: Vault) -> Result:
    """What a body is given of a run that it waited for: its result, or how it failed or was cancelled."""
    if row.state is State.COMPLETED:
        return Result(Outcome.VALUE, row.result or b"")
    where = f"run {row.id}: error"
    record = None if row.result is None else load_error(vault.open(row.result, where)).record
    return Result(Outcome.ERROR, vault.seal_error(dump_stop(row, record), where))


def read_wish(vault: Vault, wish: Wish, entry: Entry, where: str) -> tuple[Any, Exception | None]:
    """What the body gets of a recorded outcome that is no step's: the value, or the error that is raised there.

    Raises:
        Undecodable: The stored bytes do not fit the types in the code.
    """
    if entry.outcome is Outcome.TIMEOUT:
        return None, None
    encoded = vault.open(entry.payload, where)
    match entry.outcome:
        case Outcome.VALUE:
            return wish.read(encoded, where), None
        case Outcome.DECLARED:
            return None, load_refusal(encoded)
        case _:
            error: DurableError = load_stop(encoded, entry.key)
            return None, error

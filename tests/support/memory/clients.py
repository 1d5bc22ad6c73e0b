"""What is started, sent and answered."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from durable_sqlite._clock import to_datetime
from durable_sqlite._records import (
    Answered,
    Hold,
    IfExists,
    Kind,
    Message,
    NewAnswer,
    NewMessage,
    NewRun,
    Question,
    RunRow,
    Sent,
    Started,
    State,
    Taken,
)
from durable_sqlite.errors import LeaseLost, RunConflict, RunExists, SignalRejected, SignalSuperseded, UnknownRun
from tests.support.disk import ENDED, Disk, is_for
from tests.support.memory.door import Door

__all__ = ["Clients", "give", "signal", "start"]


class Clients(Door):
    """The verbs of those who start runs and talk to them."""

    def start(
        self,
        new: NewRun,
        if_exists: IfExists,
        *,
        drive: bool,
        message: NewMessage | None = None,
        caller: Hold | None = None,
    ) -> asyncio.Future[Started]:
        """Store a run, or attach."""

        def act() -> Started | Exception:
            owner = self.me if drive and not self._fenced() else None
            return start(self.disk, new, if_exists, message, owner)

        return self._submit_from(caller, act)

    def signal(
        self, run_id: str, message: NewMessage, *, caller: Hold | None = None, at_rest: Hold | None = None
    ) -> asyncio.Future[Sent]:
        """Store a message."""

        def act() -> Sent | Exception:
            before = self.disk.by_id(run_id)
            sent = signal(self.disk, run_id, message)
            if not isinstance(sent, Sent):
                return sent
            row, taken = self._taken(before, sent.row, at_rest, sent.message, message.at)
            return replace(sent, row=row, taken=taken)

        return self._submit_from(caller, act)

    def answer(
        self, run_id: str, answer: NewAnswer, *, caller: Hold | None = None, at_rest: Hold | None = None
    ) -> asyncio.Future[Answered]:
        """Answer a question, or keep the answer for it."""

        def act() -> Answered | Exception:
            before = self.disk.by_id(run_id)
            if before is None:
                return UnknownRun(run_id, f"no run {run_id}")
            answered = _answer(self.disk, before, answer)
            if isinstance(answered, Exception) or answered.key is None:
                return answered
            question = self.disk.asked[before.no][answered.key]
            row, taken = self._taken(before, answered.row, at_rest, question, answer.at)
            return replace(answered, row=row, taken=taken)

        return self._submit_from(caller, act)

    def _taken(
        self, before: RunRow | None, row: RunRow, at_rest: Hold | None, what: Message | Question, at: int
    ) -> tuple[RunRow, Taken | None]:
        """Take a run that was woken just now, if its body rests with its worker and nobody has driven it since."""
        woken = before is not None and before.state is State.SUSPENDED and row.state is State.PENDING
        if not woken or at_rest is None or self._fenced():
            return row, None
        news = self._retake(at_rest, at)
        if isinstance(news, LeaseLost):
            return row, None
        return self.disk.runs[row.no], Taken(Hold(row.no, at_rest.epoch + 1), what, news)


def start(
    disk: Disk, new: NewRun, if_exists: IfExists, message: NewMessage | None, owner: int | None
) -> Started | Exception:
    """Store a run, or attach."""

    def insert() -> Started:
        row = disk.insert(new, owner)
        if message is not None:
            row = _store(disk, row, message).row
        return Started(row, created=True, hold=None if row.owner is None else Hold(row.no, row.epoch))

    def attach(row: RunRow) -> Started | SignalRejected:
        sent = None if message is None else _send(disk, row, message)
        if isinstance(sent, SignalRejected):
            return sent
        return Started(row if sent is None else sent.row, created=False, hold=None)

    row = disk.by_id(new.id)
    if row is None:
        return insert()
    if new.parent is not None and (row.parent, row.uid) == (new.parent, new.uid):
        return attach(row)
    if if_exists is IfExists.REPLACE and row.state.ended:
        disk.forget(row.no)
        return insert()
    return _taken(row, new, if_exists) or attach(row)


def signal(disk: Disk, run_id: str, message: NewMessage) -> Sent | Exception:
    """Store a message."""
    row = disk.by_id(run_id)
    return UnknownRun(run_id, f"no run {run_id}") if row is None else _send(disk, row, message)


def _taken(row: RunRow, new: NewRun, if_exists: IfExists) -> RunConflict | RunExists | None:
    """Why the id cannot be had."""
    if if_exists is IfExists.FAIL:
        return RunExists(new.id, f"run {new.id} exists")
    if if_exists is IfExists.REPLACE:
        return RunConflict(new.id, f"run {new.id} has not ended")
    if (row.workflow, row.input_digest) != (new.workflow, new.input_digest):
        return RunConflict(new.id, f"id {new.id} is taken")
    return None


def _send(disk: Disk, row: RunRow, message: NewMessage) -> Sent | SignalRejected:
    for known in disk.mail[row.no]:
        if message.dedupe is not None and known.dedupe == message.dedupe:
            return Sent(row, known, new=False)
    if row.state in ENDED:
        return SignalRejected(row.id, f"run {row.id} is {row.state.value}")
    return _store(disk, row, message)


def _store(disk: Disk, row: RunRow, message: NewMessage) -> Sent:
    stored = Message(len(disk.mail[row.no]) + 1, message.name, message.payload, message.at, message.dedupe)
    disk.mail[row.no].append(stored)
    awaited = any(
        wait.kind is Kind.SIGNAL and is_for(wait, message.name, message.at) for wait in disk.open_waits[row.no]
    )
    if awaited and row.state is State.SUSPENDED:
        row = disk.ready(row, message.at)
    return Sent(row, stored, new=True)


def _answer(disk: Disk, row: RunRow, answer: NewAnswer) -> Answered | SignalRejected:
    known = _repeated(disk, row, answer) or _meant(disk, row, answer)
    if isinstance(known, Answered | SignalRejected):
        return known
    question = known
    if question is None:
        if row.state in ENDED:
            return SignalRejected(row.id, f"run {row.id} is {row.state.value}")
        disk.early[row.no].append(answer)
        return Answered(row, None)
    return _over(row, question, answer) or _give(disk, row, question, answer)


def _repeated(disk: Disk, row: RunRow, answer: NewAnswer) -> Answered | None:
    """What became of the same answer before."""
    if answer.dedupe is None:
        return None
    if answer.dedupe in disk.senders[row.no]:
        return Answered(row, disk.senders[row.no][answer.dedupe])
    return Answered(row, None) if any(early.dedupe == answer.dedupe for early in disk.early[row.no]) else None


def _give(disk: Disk, row: RunRow, question: Question, answer: NewAnswer) -> Answered:
    give(disk, row.no, question, answer)
    awaited = any(wait.kind is Kind.QUESTION and wait.key == question.key for wait in disk.open_waits[row.no])
    if awaited and row.state is State.SUSPENDED:
        row = disk.ready(row, answer.at)
    return Answered(row, question.key)


def _meant(disk: Disk, row: RunRow, answer: NewAnswer) -> Question | SignalRejected | None:
    """The question that is meant; None where the answer is to be kept for the next one."""
    if answer.key is not None:
        question = disk.asked[row.no].get(answer.key)
        if question is None or question.name != answer.name:
            return SignalRejected(row.id, f"run {row.id} has asked no {answer.name} with the key {answer.key}")
        return question
    asked = [question for question in disk.questions(row.no) if question.name == answer.name]
    if len(asked) > 1:
        keys = ", ".join(question.key for question in asked)
        return SignalRejected(row.id, f"run {row.id} has asked {answer.name} several times; name a key: {keys}")
    if asked:
        return asked[0]
    return None if answer.early else SignalRejected(row.id, f"run {row.id} has not asked {answer.name}")


def _over(row: RunRow, question: Question, answer: NewAnswer) -> SignalRejected | None:
    """Why a question takes no answer any more."""
    if question.answered_at is not None:
        at, by = question.answered_at, question.answered_by
    elif row.state in ENDED and question.closed_at == row.ended_at != question.deadline:
        return SignalRejected(row.id, f"run {row.id} is {row.state.value}")
    elif question.closed_at is not None:
        at, by = question.closed_at, ""
    elif question.deadline is not None and answer.at > question.deadline:
        at, by = question.deadline, ""
    else:
        return None
    return SignalSuperseded(row.id, f"{question.key} of run {row.id} is over", at=to_datetime(at), by=by)


def give(disk: Disk, no: int, question: Question, answer: NewAnswer) -> None:
    """Store an answer to a question."""
    assert question.is_open, f"{question} takes no answer"
    disk.asked[no][question.key] = replace(
        question, answer=answer.payload, answered_at=answer.at, answered_by=answer.by
    )
    disk.senders[no] = {dedupe: key for dedupe, key in disk.senders[no].items() if key != question.key}
    if answer.dedupe is not None:
        disk.senders[no][answer.dedupe] = question.key

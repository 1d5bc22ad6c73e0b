"""Verbs of clients that give something to runs: starts, messages, answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from .._clock import to_datetime
from .._records import (
    Answered,
    Hold,
    IfExists,
    Message,
    NewAnswer,
    NewMessage,
    NewRun,
    News,
    Question,
    Request,
    RunRow,
    Sent,
    Started,
    State,
    Taken,
)
from ..errors import LeaseLost, RunConflict, RunExists, SignalRejected, SignalSuperseded, UnknownRun
from .desk import Desk, unknown
from .driving import reclaim
from .rows import Row, message_of, question_of, request_of

__all__ = ["answer", "signal", "start"]

_ENDED = frozenset({State.COMPLETED, State.FAILED, State.CANCELLED})

# Starting ------------------------------------------------------------------------------------------------------------


def start(
    desk: Desk,
    new: NewRun,
    if_exists: IfExists,
    *,
    drive: bool,
    message: NewMessage | None = None,
    caller: Hold | None = None,
) -> Started | LeaseLost | RunConflict | RunExists | SignalRejected:
    """Store a run, or attach to the one that exists."""
    if caller is not None and not desk.holds(caller):
        return desk.lost(caller)
    taken = desk.first("taken", {"id": new.id})
    if taken is None:
        return _insert(desk, new, message, drive=drive)
    no, _workflow, _digest, word, uid, parent = taken
    if new.parent is not None and (uid, parent) == (new.uid, new.parent):
        # Asked again after a crash: this very call made the run.
        return _attach(desk, no, message)
    if if_exists is IfExists.REPLACE and State(word).ended:
        desk.change("forget", {"run": no})
        desk.change("mark_under_way", {"id": new.id})
        return _insert(desk, new, message, drive=drive)
    return _refusal(new, if_exists, taken) or _attach(desk, no, message)


def _refusal(new: NewRun, if_exists: IfExists, taken: Row) -> RunConflict | RunExists | None:
    """Why a start cannot attach to the run that has its id."""
    _no, workflow, digest, word, _uid, _parent = taken
    match if_exists:
        case IfExists.FAIL:
            return RunExists(new.id, f"run {new.id} exists already ({word}); choose another id, or attach to it")
        case IfExists.REPLACE:
            told = f"run {new.id} is {word}: only a run that has ended can be replaced. Cancel or terminate it first."
            return RunConflict(new.id, told)
        case _ if (workflow, digest) == (new.workflow, new.input_digest):
            return None
        case _:
            what = "another input" if workflow == new.workflow else f"another workflow, {workflow}"
            return RunConflict(new.id, f"run {new.id} exists with {what}: choose another id")


def _attach(desk: Desk, no: int, message: NewMessage | None) -> Started | SignalRejected:
    row = desk.run(no)
    if message is not None:
        sent = _send(desk, row, message)
        if isinstance(sent, SignalRejected):
            return sent
        row = sent.row
    return Started(row, created=False, hold=None)


def _insert(desk: Desk, new: NewRun, message: NewMessage | None, *, drive: bool) -> Started:
    deadline, cancel, pause = _heritage(desk, new)
    own = None if new.deadline is None else new.at + new.deadline
    inherited = deadline is not None and (own is None or deadline < own)
    if inherited:
        own = deadline
    # A fenced worker still takes orders, but somebody else will drive them.
    held = drive and not desk.fenced and cancel is None and pause is None
    if cancel is not None:
        state = State.CANCELLED
    elif pause is not None:
        state = State.PAUSED
    else:
        state = State.RUNNING if held else State.PENDING
    desk.touch(
        "insert_run",
        {
            "id": new.id,
            "uid": new.uid,
            "workflow": new.workflow,
            "origin": new.origin,
            "version": new.version,
            "state": state,
            "reason": cancel and cancel.reason,
            "input_digest": new.input_digest,
            "at": new.at,
            "ended_at": cancel and new.at,
            "due": own if state is State.PAUSED else None,
            "owner": desk.me if held else None,
            "epoch": int(held),
            "input": new.input,
            "deadline_at": own,
            "inherited": inherited,
            "parent": new.parent,
            "parent_key": new.parent_key,
            "detached": new.detached,
            "cancel_at": cancel and cancel.at,
            "cancel_reason": cancel and cancel.reason,
            "cancel_by": cancel and cancel.by,
            "pause_at": pause and pause.at,
            "pause_reason": pause and pause.reason,
            "pause_by": pause and pause.by,
        },
    )
    ((no, *_),) = desk.all("taken", {"id": new.id})
    for name, value in new.tags.items():
        desk.change("insert_tag", {"run": no, "name": name, "value": value})
    if message is not None:
        _store(desk, no, message)
    if cancel is not None:
        desk.ended(new.id, new.at)
    return Started(desk.run(no), created=True, hold=Hold(no, 1) if held else None)


def _heritage(desk: Desk, new: NewRun) -> tuple[int | None, Request | None, Request | None]:
    """What a run gets from its parent: the deadline, a request to cancel, a request to pause."""
    if new.parent is None or new.detached:
        return None, None, None
    ((deadline, *requests),) = desk.all("heritage", {"run": new.parent})
    return deadline, request_of(*requests[:3]), request_of(*requests[3:])


# Messages ------------------------------------------------------------------------------------------------------------


def signal(
    desk: Desk, run_id: str, message: NewMessage, *, caller: Hold | None = None, at_rest: Hold | None = None
) -> Sent | LeaseLost | UnknownRun | SignalRejected:
    """Store a message, and wake a run that waits for it, or take it where its body rests here."""
    if caller is not None and not desk.holds(caller):
        return desk.lost(caller)
    row = desk.by_id(run_id)
    return unknown(run_id) if row is None else _send(desk, row, message, at_rest)


def _send(desk: Desk, row: RunRow, message: NewMessage, at_rest: Hold | None = None) -> Sent | SignalRejected:
    if message.dedupe is not None:
        found = desk.first("message_of", {"run": row.no, "dedupe": message.dedupe})
        if found is not None:
            return Sent(row, message_of(found), new=False)
    if row.state in _ENDED:
        return SignalRejected(
            row.id, f"run {row.id} is {row.state}: it takes no message any more, and {message.name} was not stored"
        )
    stored = _store(desk, row.no, message)
    awaited = {"run": row.no, "name": message.name, "at": message.at}
    row, taken = _wake(desk, row, "waits_for_message", awaited, what=stored, at_rest=at_rest)
    return Sent(row, stored, new=True, taken=taken)


def _wake(
    desk: Desk, row: RunRow, waits: str, values: Mapping[str, Any], *, what: Message | Question, at_rest: Hold | None
) -> tuple[RunRow, Taken | None]:
    """Wake a suspended run that waits for what has come, or take it where its body rests here; the run then, and how.

    Until now it was suspended: had anything else come that it waits for, it would be pending.
    """
    if row.state is not State.SUSPENDED or not desk.all(waits, values):
        return row, None
    if at_rest is not None and not desk.fenced:
        news = reclaim(desk, at_rest, values["at"])
        if isinstance(news, News):
            return desk.run(row.no), Taken(at_rest.next, what, news)
    desk.touch("wake", {"run": row.no, "at": values["at"]})
    return desk.run(row.no), None


def _store(desk: Desk, run: int, message: NewMessage) -> Message:
    values = {
        "run": run,
        "name": message.name,
        "at": message.at,
        "dedupe": message.dedupe,
        "payload": message.payload,
    }
    ((no,),) = desk.all("insert_message", values)
    return Message(no, message.name, message.payload, message.at, message.dedupe)


# Answers -------------------------------------------------------------------------------------------------------------


def answer(
    desk: Desk, run_id: str, new: NewAnswer, *, caller: Hold | None = None, at_rest: Hold | None = None
) -> Answered | LeaseLost | UnknownRun | SignalRejected:
    """Answer a question, and wake a run that asks it, or take it where its body rests here."""
    if caller is not None and not desk.holds(caller):
        return desk.lost(caller)
    row = desk.by_id(run_id)
    if row is None:
        return unknown(run_id)
    if new.dedupe is not None:
        before = desk.first("answered_before", {"run": row.no, "dedupe": new.dedupe})
        if before is not None:
            return Answered(row, before[0])
    question = _choose(desk, row, new)
    if isinstance(question, SignalRejected):
        return question
    values = {
        "run": row.no,
        "name": new.name,
        "payload": new.payload,
        "at": new.at,
        "by": new.by,
        "dedupe": new.dedupe,
    }
    if question is None:
        desk.change("keep_early", values)
        return Answered(row, None)
    desk.change("answer", values | {"key": question.key})
    answered = replace(question, answer=new.payload, answered_at=new.at, answered_by=new.by)
    awaited = {"run": row.no, "key": question.key, "at": new.at}
    row, taken = _wake(desk, row, "waits_for_answer", awaited, what=answered, at_rest=at_rest)
    return Answered(row, question.key, taken)


def _choose(desk: Desk, row: RunRow, new: NewAnswer) -> Question | SignalRejected | None:
    """The question that is to be answered; None where it has not been asked yet and the answer is to wait for it."""
    if new.key is not None:
        named = desk.first("question", {"run": row.no, "key": new.key})
        if named is not None:
            return _answerable(row, question_of(named), new)
    questions = [question_of(found) for found in desk.all("questions_of", {"run": row.no, "name": new.name})]
    if new.key is not None:
        early = ": an early answer takes no key" if new.early else ""
        told = f"it has not asked the question {new.key} of {new.name}{early}. {_keys(questions)}"
    elif len(questions) == 1:
        return _answerable(row, questions[0], new)
    elif questions:
        told = f"{new.name} has asked several questions there: name the key of one. {_keys(questions)}"
    elif row.state in _ENDED:
        told = f"it never asked {new.name}"
    elif new.early:
        return None
    else:
        told = f"it has not asked {new.name} yet: wait until it has, or say early=True to answer in advance"
    return SignalRejected(row.id, f"run {row.id} is {row.state}, and {told}")


def _answerable(row: RunRow, question: Question, new: NewAnswer) -> Question | SignalRejected:
    asked = f"the question {question.key} of run {row.id}"
    if question.name != new.name:
        return SignalRejected(row.id, f"{asked} is one of {question.name}, not of {new.name}: it was not answered")
    if question.answered_at is not None:
        at, by = to_datetime(question.answered_at), question.answered_by
        told = f"{asked} was answered at {at.isoformat()} by {by or 'somebody'}: that answer counts"
        return SignalSuperseded(row.id, told, at=at, by=by)
    timed_out = question.deadline is not None and question.closed_at == question.deadline
    if row.state in _ENDED and question.closed_at == row.ended_at and not timed_out:
        return SignalRejected(row.id, f"run {row.id} is {row.state}: nobody waits for the answer to {question.key}")
    late = question.deadline is not None and new.at > question.deadline
    late = late and (question.closed_at is None or timed_out)
    over_at = question.deadline if late else question.closed_at
    if over_at is None:
        return question
    at = to_datetime(over_at)
    what = "its deadline was" if late else "it was closed"
    return SignalSuperseded(row.id, f"{asked} is over, {what} at {at.isoformat()}: nobody waits for its answer", at=at)


def _keys(questions: Sequence[Question]) -> str:
    if not questions:
        return "It has asked none"
    return f"Its questions: {', '.join(f'{each.key} ({_word(each)})' for each in questions)}"


def _word(question: Question) -> str:
    if question.is_open:
        return "open"
    return "closed" if question.answer is None else "answered"

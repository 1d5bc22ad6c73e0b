"""Verbs of the worker that write down what a run's body has done, asked and said."""

from __future__ import annotations

from collections.abc import Sequence

from .._records import CANCEL_KEY, Entry, FailedAttempt, Hold, Intent, Kind, NewQuestion, Report
from ..errors import JournalError, LeaseLost
from .desk import Desk
from .sums import of_entry

__all__ = [
    "amend",
    "ask",
    "expire",
    "fail",
    "intend",
    "record",
    "reopen",
    "report",
    "set_aside",
    "settle_changes",
    "withdraw",
]

# Outcomes ------------------------------------------------------------------------------------------------------------


def record(desk: Desk, hold: Hold, entry: Entry, takes: Sequence[int] = ()) -> LeaseLost | None:
    """Append one outcome, and take messages."""
    written = desk.connection.execute(
        desk.sql["record"],
        {
            "key": entry.key,
            "seq": entry.seq,
            "kind": entry.kind,
            "name": entry.name,
            "digest": entry.digest,
            "outcome": entry.outcome,
            "asked": entry.asked,
            "started_at": entry.started_at,
            "at": entry.at,
            "attempts": entry.attempts,
            "removed": entry.removed,
            "payload": entry.payload,
            "checksum": of_entry(hold.run, entry),
            "run": hold.run,
            "me": desk.me,
            "epoch": hold.epoch,
        },
    ).rowcount
    if not written:
        return desk.lost(hold)
    if entry.key == CANCEL_KEY:
        desk.touch("end_pause", {"run": hold.run})
    for no in takes:
        if not desk.change("take_message", {"run": hold.run, "no": no, "key": entry.key}):
            # Raised, so that the outcome is not kept either.
            raise JournalError(
                f"message {no} of run number {hold.run} is not there to be taken by {entry.key}: nothing was recorded"
            )
    return None


def expire(desk: Desk, hold: Hold, entry: Entry, deadline: int) -> bool | LeaseLost:
    """Append the outcome of a wait that is over by its deadline, unless what it waited for came in time."""
    if not desk.holds(hold):
        return desk.lost(hold)
    values = {"run": hold.run, "key": entry.key, "name": entry.name, "deadline": deadline, "at": deadline}
    if entry.kind is Kind.SIGNAL and desk.all("in_time", values):
        return False
    if entry.kind is Kind.QUESTION:
        if desk.all("news_of_question", values):
            return False
        desk.change("close_question", values)
    record(desk, hold, entry)
    return True


def intend(desk: Desk, hold: Hold, intent: Intent) -> LeaseLost | None:
    """Note that an at-most-once step is about to begin."""
    values = desk.holding(
        hold, key=intent.key, name=intent.name, digest=intent.digest, asked=intent.asked, at=intent.at
    )
    return None if desk.change("intend", values) else desk.lost(hold)


def fail(desk: Desk, hold: Hold, attempt: FailedAttempt) -> LeaseLost | None:
    """Keep a failed attempt."""
    values = desk.holding(
        hold,
        key=attempt.key,
        number=attempt.number,
        started_at=attempt.started_at,
        at=attempt.at,
        next_at=attempt.next_at,
        error=attempt.error,
    )
    return None if desk.change("fail", values) else desk.lost(hold)


# Questions and messages ----------------------------------------------------------------------------------------------


def ask(desk: Desk, hold: Hold, question: NewQuestion) -> bool | LeaseLost:
    """Store a question, and give it an answer that came early."""
    if not desk.holds(hold):
        return desk.lost(hold)
    key = {"run": hold.run, "key": question.key}
    fresh = desk.change(
        "ask",
        {
            **key,
            "name": question.name,
            "payload": question.payload,
            "schema": question.schema,
            "at": question.at,
            "deadline": question.deadline,
        },
    )
    early = desk.first("first_early", {"run": hold.run, "name": question.name}) if fresh else None
    if early is not None:
        no, payload, at, by, dedupe = early
        desk.change("answer", {**key, "payload": payload, "at": at, "by": by, "dedupe": dedupe})
        desk.change("forget_early", {"run": hold.run, "no": no})
        return True
    ((*_, answered, _at, _by, _closed, _error),) = desk.all("question", key)
    return answered is not None


def withdraw(desk: Desk, hold: Hold, keys: Sequence[str], at: int) -> LeaseLost | None:
    """Close questions that the body no longer waits for."""
    if not desk.holds(hold):
        return desk.lost(hold)
    for key in keys:
        desk.change("close_question", {"run": hold.run, "key": key, "at": at})
    return None


def set_aside(desk: Desk, hold: Hold, message: int, error: bytes) -> LeaseLost | None:
    """Keep a message out of the way."""
    if not desk.holds(hold):
        return desk.lost(hold)
    desk.change("set_aside", {"run": hold.run, "no": message, "error": error})
    return None


def reopen(desk: Desk, hold: Hold, key: str, answer: bytes, error: bytes) -> LeaseLost | None:
    """Take an answer away again."""
    if not desk.holds(hold):
        return desk.lost(hold)
    desk.change("reopen", {"run": hold.run, "key": key, "answer": answer, "error": error})
    return None


# The run itself ------------------------------------------------------------------------------------------------------


def report(desk: Desk, hold: Hold, report: Report) -> LeaseLost | None:
    """Keep what the body says of itself."""
    done, total = report.progress or (None, None)
    values = desk.holding(hold, status=report.status, done=done, total=total, at=report.at)
    return None if desk.touch("report", values) else desk.lost(hold)


def amend(
    desk: Desk, hold: Hold, changed: Sequence[tuple[str, str, bytes]], removed: Sequence[str]
) -> LeaseLost | None:
    """Rewrite entries as a person accepted it."""
    if not desk.holds(hold):
        return desk.lost(hold)
    for key, name, digest in changed:
        desk.change("amend", {"run": hold.run, "key": key, "name": name, "digest": digest})
    for key in removed:
        desk.change("remove", {"run": hold.run, "key": key})
    return None


def settle_changes(desk: Desk, hold: Hold) -> LeaseLost | None:
    """Later changes are divergences again."""
    return None if desk.touch("settle_changes", desk.holding(hold)) else desk.lost(hold)

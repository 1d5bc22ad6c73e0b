"""One run as a document for programs: what `show --json` prints, and `export` writes."""

from __future__ import annotations

from ._facts import Facts
from ._light import TYPE_CHECKING
from ._payload import Payload, error_of
from ._rows import Attempt, Entry
from ._text import iso
from ._words import liveness

if TYPE_CHECKING:
    from typing import Any

__all__ = ["document", "waits"]


def document(facts: Facts, path: str) -> dict[str, Any]:
    """One run for a program."""
    run = facts.run
    failures: dict[str, list[Attempt]] = {}
    for attempt in facts.attempts:
        failures.setdefault(attempt.key, []).append(attempt)
    return {
        "id": run.id,
        "uid": run.uid,
        "workflow": run.workflow,
        "origin": run.origin,
        "version": run.version,
        "state": run.state,
        "reason": run.reason,
        "error": None if facts.error is None else facts.error.document(),
        "tags": dict(facts.tags),
        "created_at": iso(run.created_at),
        "updated_at": iso(run.updated_at),
        "ended_at": iso(run.ended_at),
        "due_at": iso(run.due_at),
        "deadline_at": iso(run.deadline_at),
        "discarded_at": iso(run.discarded_at),
        "status": run.status,
        "progress": None if run.progress is None else {"done": run.done, "total": run.total},
        "parent": run.parent,
        "parent_key": run.parent_key,
        "detached": bool(run.detached),
        "crashes": run.deaths,
        "cancel": _request(run.cancel_at, run.cancel_by, run.cancel_reason),
        "pause": _request(run.pause_at, run.pause_by, run.pause_reason),
        "worker": _worker(facts, path),
        "input": facts.input.document(),
        "result": facts.result.document() if run.state == "completed" and facts.result is not None else None,
        "entry_count": facts.entry_count,
        "entries": [_entry(facts, entry, failures.get(entry.key, [])) for entry in facts.entries],
        "trying": [
            {"key": key, "attempts": [_attempt(facts, attempt) for attempt in failed]}
            for key, failed in facts.trying.items()
        ],
        "began": [{"key": intent.key, "name": intent.name, "at": iso(intent.at)} for intent in facts.intents],
        "waits": waits(facts),
        "messages": [
            {
                "no": message.no,
                "name": message.name,
                "sent_at": iso(message.sent_at),
                "dedupe": message.dedupe,
                "message": facts.payload(message).document(),
                "error": _stored(message.error, facts),
            }
            for message in facts.messages
        ],
        "questions": [
            {
                "key": question.key,
                "point": question.name,
                "open": question.is_open,
                "asked_at": iso(question.asked_at),
                "until": iso(question.deadline_at),
                "question": facts.payload(question).document(),
                "answered_at": iso(question.answered_at),
                "answered_by": question.answered_by,
                "answer": None
                if question.answer_size is None
                else Payload(question.answer_size, question.answer or b"", facts.codec).document(),
                "closed_at": iso(question.closed_at),
                "error": _stored(question.error, facts),
            }
            for question in facts.questions
        ],
        "children": [
            {
                "id": child.id,
                "workflow": child.workflow,
                "state": child.state,
                "reason": child.reason,
                "key": child.parent_key,
                "created_at": iso(child.created_at),
                "ended_at": iso(child.ended_at),
            }
            for child in facts.children
        ],
    }


def waits(facts: Facts) -> list[dict[str, Any]]:
    """What a run waits for, for a program."""
    return [
        {
            "key": wait.key,
            "kind": wait.kind,
            "name": wait.name,
            "since": iso(wait.since_at),
            "until": iso(wait.deadline_at),
            "run": wait.target,
        }
        for wait in facts.waits
    ]


def _request(at: int | None, by: str | None, reason: str | None) -> dict[str, Any] | None:
    return None if at is None else {"at": iso(at), "by": by, "reason": reason}


def _stored(error: bytes | None, facts: Facts) -> dict[str, Any] | None:
    found = error_of(error, facts.codec)
    return None if found is None else found.document()


def _worker(facts: Facts, path: str) -> dict[str, Any] | None:
    owner = facts.owner
    if owner is None:
        return None
    return {"no": owner.no, "pid": owner.pid, "host": owner.host, "alive": liveness(path, owner).alive}


def _entry(facts: Facts, entry: Entry, failures: list[Attempt]) -> dict[str, Any]:
    payload = facts.payload(entry)
    error = error_of(payload.data, payload.codec) if entry.outcome == "error" else None
    return {
        "seq": entry.seq,
        "key": entry.key,
        "kind": entry.kind,
        "name": entry.name,
        "outcome": entry.outcome,
        "started_at": iso(entry.started_at),
        "recorded_at": iso(entry.recorded_at),
        "attempts": entry.attempts,
        "failures": [_attempt(facts, failure) for failure in failures],
        "removed": bool(entry.removed),
        "decided_by": entry.decided_by,
        "value": None if entry.outcome in ("error", "timeout") else payload.document(),
        "error": None if error is None else error.document(),
    }


def _attempt(facts: Facts, attempt: Attempt) -> dict[str, Any]:
    return {
        "number": attempt.number,
        "started_at": iso(attempt.started_at),
        "ended_at": iso(attempt.ended_at),
        "next_at": iso(attempt.next_at),
        "error": _stored(attempt.error, facts),
    }

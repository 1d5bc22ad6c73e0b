"""Runs, entries and waits for tests of a journal."""

from __future__ import annotations

from durable_sqlite._records import CancelRequest, Entry, Hold, IfExists, Kind, NewRun, Outcome, Started, Wait
from durable_sqlite.journal import Journal

__all__ = ["asked", "begin", "entry", "new_run", "wait"]


def new_run(
    run_id: str = "a",
    *,
    workflow: str = "ship",
    origin: str = "shop.ship",
    digest: bytes = b"digest",
    at: int = 10,
    tags: dict[str, str] | None = None,
    uid: str | None = None,
) -> NewRun:
    """A run to be started."""
    return NewRun(
        id=run_id,
        uid=uid or f"uid of {run_id}",
        workflow=workflow,
        origin=origin,
        version="1",
        input=b'{"n":1}',
        input_digest=digest,
        at=at,
        tags=tags or {},
    )


def entry(key: str = "s#1", *, seq: int = 1, kind: Kind = Kind.STEP, payload: bytes = b"1", at: int = 30) -> Entry:
    """An outcome."""
    return Entry(
        seq=seq,
        key=key,
        kind=kind,
        name="s",
        digest=b"\x00\xff",
        outcome=Outcome.VALUE,
        payload=payload,
        asked=seq - 1,
        started_at=at - 5,
        at=at,
        attempts=2,
    )


def wait(key: str = "sleep#1", *, since: int = 40, deadline: int | None = None) -> Wait:
    """A wait for a time, or for something that may never come."""
    return Wait(key, Kind.SLEEP, "sleep", since, deadline)


def asked(at: int = 50, reason: str = "too late", by: str = "ann") -> CancelRequest:
    """A request to cancel."""
    return CancelRequest(at, reason, by)


async def begin(journal: Journal, run_id: str = "a", *, at: int = 10, workflow: str = "ship") -> tuple[Started, Hold]:
    """Start a run that this worker drives."""
    started = await journal.start(new_run(run_id, at=at, workflow=workflow), IfExists.ATTACH, drive=True)
    assert started.hold is not None
    return started, started.hold

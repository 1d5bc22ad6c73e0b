"""What survives of a journal in memory."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from durable_sqlite._records import Entry, FailedAttempt, Intent, NewRun, RunQuery, RunRow, State, Wait, WorkerRow

__all__ = ["Disk", "fits"]


@dataclass(slots=True)
class Disk:
    """What is committed."""

    runs: dict[int, RunRow] = field(default_factory=dict[int, RunRow])
    ids: dict[str, int] = field(default_factory=dict[str, int])
    kept: dict[int, dict[str, Entry]] = field(default_factory=dict[int, dict[str, Entry]])
    failed: dict[int, dict[tuple[str, int], FailedAttempt]] = field(
        default_factory=dict[int, dict[tuple[str, int], FailedAttempt]]
    )
    intents: dict[int, dict[str, Intent]] = field(default_factory=dict[int, dict[str, Intent]])
    open_waits: dict[int, tuple[Wait, ...]] = field(default_factory=dict[int, tuple[Wait, ...]])
    survived: dict[int, int] = field(default_factory=dict[int, int])
    enrolled: dict[int, WorkerRow] = field(default_factory=dict[int, WorkerRow])
    fenced: set[int] = field(default_factory=set[int])
    last_run: int = 0
    last_worker: int = 0
    commits: int = 0
    violations: list[str] = field(default_factory=list[str])
    """Promises that were broken by whoever writes: a test asserts that there are none."""

    def put(self, row: RunRow, **changes: Any) -> RunRow:
        """Store a changed run."""
        row = self.runs[row.no] = replace(row, **changes)
        assert (row.owner is not None) == (row.state is State.RUNNING), row
        assert (row.ended_at is not None) == row.state.stopped, row
        assert row.result is None or row.state.stopped, row
        return row

    def insert(self, new: NewRun, owner: int | None) -> RunRow:
        """Store a fresh run."""
        self.last_run += 1
        no = self.ids[new.id] = self.last_run
        self.kept[no] = {}
        self.open_waits[no] = ()
        self.survived[no] = 0
        row = RunRow(
            no=no,
            id=new.id,
            uid=new.uid,
            workflow=new.workflow,
            origin=new.origin,
            version=new.version,
            state=State.PENDING if owner is None else State.RUNNING,
            reason="",
            input=new.input,
            input_digest=new.input_digest,
            result=None,
            created_at=new.at,
            updated_at=new.at,
            ended_at=None,
            due_at=None,
            owner=owner,
            epoch=0 if owner is None else 1,
            deaths=0,
            accept_changes=False,
            cancel=None,
            tags=dict(new.tags),
            deadline_at=None if new.deadline is None else new.at + new.deadline,
            deadline_length=new.deadline,
        )
        self.runs[no] = row
        return row

    def forget(self, no: int) -> None:
        """Remove a run with all that belongs to it."""
        del self.ids[self.runs.pop(no).id]
        self.failed.pop(no, None)
        self.intents.pop(no, None)
        for table in (self.kept, self.open_waits, self.survived):
            del table[no]


def fits(row: RunRow, query: RunQuery) -> bool:
    """Whether a query asks for this run, its limit aside."""
    after = query.after
    return (
        (query.workflow is None or row.workflow == query.workflow)
        and (query.reason is None or row.reason == query.reason)
        and (not query.letters or (row.state in (State.FAILED, State.PARKED) and row.discarded_at is None))
        and (not query.states or row.state in query.states)
        and all(row.tags.get(name) == value for name, value in query.tags)
        and (query.created_from is None or row.created_at >= query.created_from)
        and (query.created_before is None or row.created_at < query.created_before)
        and (after is None or (row.no < after if query.newest_first else row.no > after))
    )

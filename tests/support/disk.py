"""What survives of a journal in memory."""

from __future__ import annotations

from collections.abc import Iterable
from copy import copy
from dataclasses import dataclass, field, fields, replace
from typing import Any

from durable_sqlite._records import (
    CANCEL_KEY,
    Entry,
    FailedAttempt,
    Intent,
    Message,
    NewAnswer,
    NewRun,
    Question,
    Request,
    RunQuery,
    RunRow,
    State,
    Wait,
    WorkerRow,
)
from tests.support.memory.tables import UserTables

__all__ = ["ENDED", "Disk", "fits", "is_for", "is_ready"]

ENDED = frozenset({State.COMPLETED, State.FAILED, State.CANCELLED})
"""Where a run takes no message any more, and whoever waits for its end has it."""


@dataclass(slots=True)
class Disk:
    """What is committed. Tables are by the run's number."""

    runs: dict[int, RunRow] = field(default_factory=dict[int, RunRow])
    ids: dict[str, int] = field(default_factory=dict[str, int])
    kept: dict[int, dict[str, Entry]] = field(default_factory=dict[int, dict[str, Entry]])
    failed: dict[int, dict[tuple[str, int], FailedAttempt]] = field(
        default_factory=dict[int, dict[tuple[str, int], FailedAttempt]]
    )
    intents: dict[int, dict[str, Intent]] = field(default_factory=dict[int, dict[str, Intent]])
    open_waits: dict[int, tuple[Wait, ...]] = field(default_factory=dict[int, tuple[Wait, ...]])
    mail: dict[int, list[Message]] = field(default_factory=dict[int, list[Message]])
    asked: dict[int, dict[str, Question]] = field(default_factory=dict[int, dict[str, Question]])
    early: dict[int, list[NewAnswer]] = field(default_factory=dict[int, list[NewAnswer]])
    senders: dict[int, dict[str, str]] = field(default_factory=dict[int, dict[str, str]])
    """Which question an answer with this `dedupe` value answered."""
    survived: dict[int, int] = field(default_factory=dict[int, int])
    enrolled: dict[int, WorkerRow] = field(default_factory=dict[int, WorkerRow])
    fenced: set[int] = field(default_factory=set[int])
    last_run: int = 0
    last_worker: int = 0
    commits: int = 0
    ticks: int = 0
    """How many commits have changed a run."""
    violations: list[str] = field(default_factory=list[str])
    """Promises that were broken by whoever writes: a test asserts that there are none."""
    tables: UserTables = field(default_factory=UserTables)
    """The application's own rows."""
    _ticked: bool = False

    def save(self) -> dict[str, Any]:
        """All that is there about runs, to be put back with `restore`."""
        return {each.name: _copied(getattr(self, each.name)) for each in fields(self) if each.name != "tables"}

    def restore(self, saved: dict[str, Any]) -> None:
        """Put back what was there."""
        for name, value in saved.items():
            setattr(self, name, value)

    def begin(self) -> None:
        """The next batch has a number of its own, if it changes a run."""
        self._ticked = False

    def _tick(self) -> int:
        if not self._ticked:
            self._ticked = True
            self.ticks += 1
        return self.ticks

    def workers(self, *, but: int) -> list[WorkerRow]:
        """All workers except one."""
        owners = {row.owner for row in self.runs.values()}
        return [replace(row, holds=no in owners) for no, row in sorted(self.enrolled.items()) if no != but]

    # Runs ------------------------------------------------------------------------------------------------------------

    def by_id(self, run_id: str) -> RunRow | None:
        """The run of this id."""
        return self.runs.get(self.ids.get(run_id, 0))

    def put(self, row: RunRow, **changes: Any) -> RunRow:
        """Store a changed run."""
        assert self.runs[row.no] == row, f"{row} is not what is stored: {self.runs[row.no]}"
        row = replace(row, **changes, changed=self._tick())
        self._check(row)
        self.runs[row.no] = row
        return row

    def _check(self, row: RunRow) -> None:
        assert (row.owner is not None) == (row.state is State.RUNNING), row
        assert (row.ended_at is not None) == row.state.stopped, row
        assert row.result is None or row.state.stopped, row
        assert row.due_at is None or row.state in {State.SUSPENDED, State.PAUSED}, row
        assert row.pause is not None or row.state is not State.PAUSED, row
        assert row.pause is None or row.state in {State.PAUSED, State.RUNNING}, row
        assert row.pause is None or row.cancel is None, row
        if row.state.stopped:
            assert not self.open_waits[row.no], f"{row} has stopped and waits for {self.open_waits[row.no]}"
            still_open = [question for question in self.asked[row.no].values() if question.is_open]
            assert not still_open, f"{row} has stopped and asks {still_open}"

    def insert(self, new: NewRun, owner: int | None) -> RunRow:
        """Store a fresh run; it has what its parent hands down."""
        self.last_run += 1
        no = self.last_run
        parent = None if new.parent is None else self.runs[new.parent]
        row = RunRow(
            no=no,
            id=new.id,
            uid=new.uid,
            workflow=new.workflow,
            origin=new.origin,
            version=new.version,
            state=State.PENDING,
            reason="",
            input=new.input,
            input_digest=new.input_digest,
            result=None,
            created_at=new.at,
            updated_at=new.at,
            ended_at=None,
            due_at=None,
            owner=None,
            epoch=0,
            deaths=0,
            accept_changes=False,
            cancel=None,
            tags=dict(new.tags),
            deadline_at=None if new.deadline is None else new.at + new.deadline,
            deadline_length=new.deadline,
            parent=new.parent,
            parent_id=None if parent is None else parent.id,
            parent_key=new.parent_key,
            detached=new.detached,
        )
        self._make_room(row)
        if parent is not None and not new.detached:
            row = self._hand_down(parent, row)
        if owner is not None and row.state is State.PENDING:
            return self.put(row, state=State.RUNNING, owner=owner, epoch=1)
        return self.put(row)

    def _make_room(self, row: RunRow) -> None:
        no = self.ids[row.id] = row.no
        self.runs[no] = row
        self.kept[no] = {}
        self.open_waits[no] = ()
        self.mail[no] = []
        self.asked[no] = {}
        self.early[no] = []
        self.senders[no] = {}
        self.survived[no] = 0

    def _hand_down(self, parent: RunRow, row: RunRow) -> RunRow:
        if parent.deadline_at is not None and (row.deadline_at is None or parent.deadline_at < row.deadline_at):
            length = parent.deadline_at - row.created_at
            row = self.put(row, deadline_at=parent.deadline_at, deadline_length=length, deadline_inherited=True)
        if parent.cancel is not None:
            row = self.stop(row, State.CANCELLED, row.created_at, reason=parent.cancel.reason, cancel=parent.cancel)
            self.wake_waiters(row, row.created_at)
            return row
        if parent.pause is not None:
            return self.lay_aside(row, row.created_at, pause=parent.pause)
        return row

    def forget(self, no: int) -> None:
        """Remove a run with all that belongs to it; it leaves its children behind."""
        del self.ids[self.runs.pop(no).id]
        self.failed.pop(no, None)
        self.intents.pop(no, None)
        for table in (self.kept, self.open_waits, self.mail, self.asked, self.early, self.senders, self.survived):
            del table[no]
        for row in self.runs.values():
            if row.parent == no:
                self.runs[row.no] = replace(row, parent=None, parent_id=None)

    # States ----------------------------------------------------------------------------------------------------------

    def told_to_end(self, row: RunRow) -> bool:
        """Whether its body was given a cancel: by somebody's request, or by its deadline."""
        return CANCEL_KEY in self.kept[row.no]

    def unheard(self, row: RunRow) -> Request | None:
        """The request to cancel that its body was not given."""
        return None if self.told_to_end(row) else row.cancel

    def deadline(self, row: RunRow) -> int | None:
        """When it is driven though nothing has come for it: at its deadline, until its body was told."""
        return None if self.told_to_end(row) else row.deadline_at

    def ready(self, row: RunRow, at: int, **changes: Any) -> RunRow:
        """Make it pending."""
        return self.put(row, state=State.PENDING, owner=None, due_at=None, updated_at=at, **changes)

    def lay_aside(self, row: RunRow, at: int, **changes: Any) -> RunRow:
        """Make it paused."""
        due = self.deadline(row)
        return self.put(row, state=State.PAUSED, owner=None, due_at=due, updated_at=at, **changes)

    def free(self, row: RunRow, at: int, **changes: Any) -> RunRow:
        """What becomes of a run whose driver lets go of it in the middle: pending, or paused where that was asked."""
        freed = self.ready if row.pause is None else self.lay_aside
        return freed(row, at, **({"interrupted": True} | changes))

    def stop(self, row: RunRow, state: State, at: int, **changes: Any) -> RunRow:
        """Make it completed, cancelled, failed or parked: it waits for nothing and asks nothing any more."""
        self.open_waits[row.no] = ()
        self.close_questions(row.no, self.asked[row.no], at)
        return self.put(row, state=state, owner=None, due_at=None, pause=None, ended_at=at, updated_at=at, **changes)

    def wake_waiters(self, ended: RunRow, at: int) -> int:
        """Make the suspended runs pending that wait for the end of this one; how many."""
        assert ended.state in ENDED, ended
        woken = [
            row
            for row in self.runs.values()
            if row.state is State.SUSPENDED and any(wait.target == ended.id for wait in self.open_waits[row.no])
        ]
        for row in woken:
            self.ready(row, at)
        return len(woken)

    def has_ended(self, run_id: str | None) -> bool:
        """Whether the run of this id is completed, failed or cancelled."""
        row = None if run_id is None else self.by_id(run_id)
        return row is not None and row.state in ENDED

    def wanted(self, only: Iterable[str] | None) -> list[RunRow]:
        """All runs; or those with these ids, and what is below them."""
        if only is None:
            return list(self.runs.values())
        tops = {self.ids[run_id] for run_id in only if run_id in self.ids}
        below = {row.no for top in tops for row in self.family(top)}
        return [self.runs[no] for no in sorted(tops | below)]

    def family(self, no: int) -> list[RunRow]:
        """All that this run's body started, and theirs, by number; but no detached run, and nothing below one."""
        children = [row for row in self.runs.values() if row.parent == no and not row.detached]
        found = children + [row for child in children for row in self.family(child.no)]
        return sorted(found, key=lambda row: row.no)

    # Messages and questions ------------------------------------------------------------------------------------------

    def waiting_mail(self, no: int) -> list[Message]:
        """The messages that were neither taken nor set aside, oldest first."""
        return [message for message in self.mail[no] if message.taken_by is None and message.error is None]

    def questions(self, no: int) -> list[Question]:
        """All that were ever asked, in that order."""
        return list(self.asked[no].values())

    def unrecorded_answers(self, no: int) -> list[Question]:
        """The questions that are answered, while no entry says so."""
        return [each for each in self.questions(no) if each.answer is not None and each.key not in self.kept[no]]

    def close_questions(self, no: int, keys: Iterable[str], at: int) -> None:
        """Close those of these questions that are open."""
        for key in keys:
            question = self.asked[no].get(key)
            if question is not None and question.is_open:
                self.asked[no][key] = replace(question, closed_at=at)


def _copied(value: Any) -> Any:
    """A copy of a table, down to its rows, which never change."""
    return {key: copy(each) for key, each in value.items()} if hasattr(value, "items") else copy(value)


def fits(row: RunRow, query: RunQuery) -> bool:
    """Whether a query asks for this run, its limit and its place in the list aside."""
    return (
        (query.workflow is None or row.workflow == query.workflow)
        and (query.reason is None or row.reason == query.reason)
        and (not query.letters or (row.state in {State.FAILED, State.PARKED} and row.discarded_at is None))
        and (not query.states or row.state in query.states)
        and all(row.tags.get(name) == value for name, value in query.tags)
        and (query.created_from is None or row.created_at >= query.created_from)
        and (query.created_before is None or row.created_at < query.created_before)
    )


def is_ready(row: RunRow, now: int) -> bool:
    """Whether a worker may take this run: it is pending, or at rest and due."""
    return row.state is State.PENDING or (row.due_at is not None and row.due_at <= now)


def is_for(wait: Wait, name: str, at: int) -> bool:
    """Whether a message of this name, sent at this time, is one that the wait waits for."""
    return wait.name == name and (wait.deadline is None or at <= wait.deadline)

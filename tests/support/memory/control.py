"""What people ask of runs: to end, to pause, to go on."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from dataclasses import replace

from durable_sqlite._records import (
    CANCEL_KEY,
    Entry,
    FailedAttempt,
    Hold,
    Kind,
    Outcome,
    Reason,
    Request,
    Resumed,
    Resumption,
    RunRow,
    Settlement,
    State,
    abandoner,
)
from durable_sqlite.errors import UnknownRun, WrongState
from tests.support.disk import Disk
from tests.support.memory.door import Door

__all__ = ["Control"]

_LETTERS = frozenset({State.FAILED, State.PARKED})


class Control(Door):
    """The verbs by which people act on runs."""

    def cancel(self, run_id: str, request: Request, *, caller: Hold | None = None) -> asyncio.Future[Sequence[RunRow]]:
        """Ask a run and its descendants to end."""

        def act() -> Sequence[RunRow] | Exception:
            row = self.disk.by_id(run_id)
            if row is None:
                return _unknown(run_id)
            if row.state.stopped:
                return _wrong(row)
            return [row] if row.cancel is not None else _tell_to_end(self.disk, row, request)

        return self._submit_from(caller, act)

    def abandon(self, hold: Hold, children: Sequence[str], request: Request) -> asyncio.Future[Sequence[RunRow]]:
        """Ask children that the body no longer waits for to end."""

        def act(parent: RunRow) -> Sequence[RunRow]:
            told: list[RunRow] = []
            for run_id in children:
                row = self.disk.by_id(run_id)
                is_child = row is not None and row.parent == parent.no and not row.detached
                if row is not None and is_child and not row.state.stopped and row.cancel is None:
                    told += _tell_to_end(self.disk, row, request)
            return told

        return self._submit_held(hold, act)

    def terminate(self, run_id: str, request: Request) -> asyncio.Future[Sequence[RunRow]]:
        """End a run and its descendants at once."""

        def act() -> Sequence[RunRow] | Exception:
            row = self.disk.by_id(run_id)
            if row is None:
                return _unknown(run_id)
            if row.state in {State.COMPLETED, State.CANCELLED}:
                return _wrong(row)
            others = self.disk.family(row.no)
            doomed = [row, *(each for each in others if not each.state.stopped or each.state is State.PARKED)]
            ended = [_terminate(self.disk, each, request) for each in doomed]
            for each in ended:
                self.disk.wake_waiters(each, request.at)
            return ended

        return self._submit(act, drives=False)

    def pause(self, run_id: str, request: Request) -> asyncio.Future[Sequence[RunRow]]:
        """Pause a run and its descendants."""

        def act() -> Sequence[RunRow] | Exception:
            row = self.disk.by_id(run_id)
            if row is None:
                return _unknown(run_id)
            if row.state.stopped or row.cancel is not None or self.disk.told_to_end(row):
                return _wrong(row)
            if row.pause is not None:
                return [row]
            rest = [each for each in self.disk.family(row.no) if _may_pause(self.disk, each)]
            return [_pause(self.disk, each, request) for each in (row, *rest)]

        return self._submit(act, drives=False)

    def resume(self, run_id: str, how: Resumption) -> asyncio.Future[Resumed]:
        """Let a run go on."""

        def act() -> Resumed | Exception:
            row = self.disk.by_id(run_id)
            if row is None:
                return _unknown(run_id)
            if row.pause is not None and not how.retry and how.input is None:
                paused = [each for each in self.disk.family(row.no) if each.pause is not None]
                others = [_go_on(self.disk, each, how.at) for each in paused]
                accepts = row.accept_changes or how.accept_changes
                return Resumed(_go_on(self.disk, row, how.at, accept_changes=accepts), (), others)
            if row.state not in _LETTERS:
                return _wrong(row)
            kept = self.disk.kept[row.no]
            if any(key not in kept for key in how.retry):
                return WrongState(run_id, f"run {run_id} has not recorded all of {', '.join(how.retry)}")
            if how.input is not None and kept:
                return WrongState(run_id, f"run {run_id} has recorded outcomes that belong to its input")
            parent = self.disk.runs.get(row.parent or 0)
            return _revive(self.disk, row, how, None if parent is None else parent.deadline_at)

        return self._submit(act, drives=False)

    def settle(self, run_id: str, how: Settlement) -> asyncio.Future[RunRow]:
        """Decide what is in doubt."""

        def act() -> RunRow | Exception:
            row = self.disk.by_id(run_id)
            if row is None:
                return _unknown(run_id)
            if (row.state, row.reason) != (State.PARKED, Reason.AMBIGUOUS):
                return _wrong(row)
            if not _decide(self.disk, row.no, how):
                return WrongState(run_id, f"nothing of the key {how.key} is in doubt")
            _ask_again(self.disk, row.no, ())
            return _reopen(self.disk, row, how.at, accept_changes=False)

        return self._submit(act, drives=False)

    def discard(self, run_id: str, at: int) -> asyncio.Future[RunRow]:
        """Mark a dead letter as seen to."""

        def act() -> RunRow | Exception:
            row = self.disk.by_id(run_id)
            if row is None:
                return _unknown(run_id)
            if row.state not in _LETTERS:
                return _wrong(row)
            return self.disk.put(row, discarded_at=at if row.discarded_at is None else row.discarded_at)

        return self._submit(act, drives=False)


def _unknown(run_id: str) -> UnknownRun:
    return UnknownRun(run_id, f"no run {run_id}")


def _wrong(row: RunRow) -> WrongState:
    asked = " and was asked to end" if row.cancel is not None else ""
    return WrongState(row.id, f"run {row.id} is {row.state.value} {row.reason}{asked}")


# To end and to pause -------------------------------------------------------------------------------------------------


def _tell_to_end(disk: Disk, row: RunRow, request: Request) -> list[RunRow]:
    """Ask a run and its descendants to end; those that were told now, the run itself first."""
    rest = [each for each in disk.family(row.no) if not each.state.stopped and each.cancel is None]
    told = [_cancel(disk, each, request) for each in (row, *rest)]
    for each in told:
        if each.state is State.CANCELLED:
            disk.wake_waiters(each, request.at)
    return [disk.runs[each.no] for each in told]


def _cancel(disk: Disk, row: RunRow, request: Request) -> RunRow:
    fresh = not row.interrupted and (row.state is State.PENDING or (row.state is State.PAUSED and row.epoch == 0))
    if fresh and not disk.kept[row.no] and not disk.open_waits[row.no]:
        return disk.stop(row, State.CANCELLED, request.at, reason=request.reason, cancel=request)
    if row.state is State.RUNNING:
        return disk.put(row, cancel=request, pause=None, updated_at=request.at)
    return disk.ready(row, request.at, cancel=request, pause=None)


def _terminate(disk: Disk, row: RunRow, request: Request) -> RunRow:
    return disk.stop(
        row,
        State.CANCELLED,
        request.at,
        reason=request.reason,
        result=None,
        failed_keys=(),
        cancel=request,
        epoch=row.epoch + 1,
        deaths=0,
        interrupted=False,
        discarded_at=None,
    )


def _may_pause(disk: Disk, row: RunRow) -> bool:
    return not row.state.stopped and row.cancel is None and row.pause is None and not disk.told_to_end(row)


def _pause(disk: Disk, row: RunRow, request: Request) -> RunRow:
    if row.state is State.RUNNING:
        return disk.put(row, pause=request, updated_at=request.at)
    return disk.lay_aside(row, request.at, pause=request)


# To go on ------------------------------------------------------------------------------------------------------------


def _go_on(disk: Disk, row: RunRow, at: int, **changes: object) -> RunRow:
    if row.state is State.PAUSED:
        return disk.ready(row, at, pause=None, **changes)
    return disk.put(row, pause=None, updated_at=at, **changes)


def _revive(disk: Disk, row: RunRow, how: Resumption, parents: int | None) -> Resumed:
    """Make a dead letter pending, its children first; `parents` is the deadline that its parent has now."""
    keys = {*row.failed_keys, *how.retry}
    seen = [disk.kept[row.no][key].at for key in keys if key in disk.kept[row.no]]
    gone = _forget(disk, row.no, keys)
    deadline, length, inherited = _deadline(row, how.at, parents)
    others: list[RunRow] = []
    for child in [
        each for each in disk.runs.values() if each.state in _LETTERS and _goes_on_with(disk, row, each, gone)
    ]:
        resumed = _revive(disk, child, Resumption(how.at), deadline)
        others += [*resumed.others, resumed.row]
    if seen:
        others += _take_up(disk, row, abandoner(row.id), min(seen), (how.at, deadline))
    data, digest = how.input or (row.input, row.input_digest)
    row = _reopen(
        disk,
        row,
        how.at,
        accept_changes=how.accept_changes,
        deadline_at=deadline,
        deadline_length=length,
        deadline_inherited=inherited,
        input=data,
        input_digest=digest,
    )
    return Resumed(row, tuple(entry.key for entry in gone), others)


def _take_up(disk: Disk, parent: RunRow, by: str, since: int, at: tuple[int, int | None]) -> list[RunRow]:
    """Let children go on that were given up since then, with those below them."""
    others: list[RunRow] = []
    for child in [each for each in disk.runs.values() if each.parent == parent.no and not each.detached]:
        asked = child.cancel
        if child.state is State.CANCELLED and asked is not None and asked.by == by and asked.at >= since:
            others += _take_up(disk, child, by, since, at)
            _forget(disk, child.no, {CANCEL_KEY})
            deadline, length, inherited = _deadline(child, *at)
            times = {"deadline_at": deadline, "deadline_length": length, "deadline_inherited": inherited}
            others.append(_reopen(disk, child, at[0], accept_changes=False, cancel=None, **times))
    return others


def _goes_on_with(disk: Disk, parent: RunRow, child: RunRow, gone: Sequence[Entry]) -> bool:
    """Whether a parent that is resumed has forgotten that this child failed, or failed with it before it knew."""
    if child.parent != parent.no:
        return False
    if any(entry.key == child.parent_key or (entry.kind, entry.name) == (Kind.RUN, child.id) for entry in gone):
        return True
    known = disk.kept[parent.no].get(child.parent_key or "")
    both = parent.reason == child.reason == Reason.DEADLINE and child.deadline_inherited
    return both and (known is None or known.kind is not Kind.CHILD)


def _deadline(row: RunRow, at: int, parents: int | None) -> tuple[int | None, int | None, bool]:
    """When it must have ended now, how long that is, and whether it is the parent's."""
    if row.deadline_inherited and parents is not None and parents > at:
        return parents, parents - at, True
    if row.reason == Reason.DEADLINE and row.deadline_length is not None:
        # A deadline of its own, given to it alone: at its end there is a letter.
        return at + row.deadline_length, row.deadline_length, False
    return row.deadline_at, row.deadline_length, row.deadline_inherited


def _reopen(disk: Disk, row: RunRow, at: int, **changes: object) -> RunRow:
    return disk.ready(
        row, at, reason="", result=None, ended_at=None, deaths=0, failed_keys=(), discarded_at=None, **changes
    )


def _forget(disk: Disk, no: int, keys: set[str]) -> list[Entry]:
    """Forget these outcomes and what was asked for after the first was seen, with what hangs on them."""
    kept = disk.kept[no]
    seen = [kept[key].seq for key in keys if key in kept]
    gone = [
        entry
        for entry in sorted(kept.values(), key=lambda entry: entry.seq)
        if entry.key in keys or (seen and entry.asked >= min(seen))
    ]
    forgotten = [entry.key for entry in gone]
    for key in forgotten:
        del kept[key]
        disk.intents.get(no, {}).pop(key, None)
    failed = disk.failed.get(no, {})
    disk.failed[no] = {which: attempt for which, attempt in failed.items() if which[0] in kept}
    for message in disk.mail[no]:
        if message.taken_by in forgotten:
            disk.mail[no][message.no - 1] = replace(message, taken_by=None)
    _ask_again(disk, no, forgotten)
    return gone


def _ask_again(disk: Disk, no: int, forgotten: Collection[str]) -> None:
    """Drop the questions that are to be asked again; an answer that nobody has seen yet is kept."""
    for question in disk.questions(no):
        if question.key in forgotten or (question.key not in disk.kept[no] and question.answer is None):
            del disk.asked[no][question.key]
            senders = disk.senders[no]
            disk.senders[no] = {dedupe: key for dedupe, key in senders.items() if key != question.key}


def _decide(disk: Disk, no: int, how: Settlement) -> bool:
    """Write what a person decided; whether there was something to decide."""
    kept, intents = disk.kept[no], disk.intents.get(no, {})
    intent = None if how.key in kept else intents.get(how.key)
    if intent is None:
        return False
    if how.payload is None:
        failed = disk.failed.setdefault(no, {})
        number = 1 + max((n for key, n in failed if key == how.key), default=0)
        failed[how.key, number] = FailedAttempt(how.key, number, intent.at, how.at, how.at, how.error)
        del intents[how.key]
        return True
    kept[how.key] = Entry(
        1 + max((entry.seq for entry in kept.values()), default=0),
        how.key,
        Kind.STEP,
        intent.name,
        intent.digest,
        Outcome.VALUE,
        how.payload,
        intent.asked,
        intent.at,
        how.at,
        decided_by=how.by,
    )
    return True

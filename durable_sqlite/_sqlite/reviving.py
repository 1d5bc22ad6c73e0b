"""Verbs by which a person lets a run go on, or decides about one that has stopped."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass, field

from .._records import CANCEL_KEY, Kind, Reason, Resumed, Resumption, RunRow, Settlement, State, abandoner
from ..errors import UnknownRun, WrongState
from .desk import Desk, unknown

__all__ = ["discard", "resume", "settle"]


def resume(desk: Desk, run_id: str, how: Resumption) -> Resumed | UnknownRun | WrongState:
    """Let a paused run go on, or make a dead letter pending again and forget what is to be tried again."""
    run = desk.by_id(run_id)
    if run is None:
        return unknown(run_id)
    if run.pause is not None:
        return _unpause(desk, run, how)
    if run.state not in (State.FAILED, State.PARKED):
        told = f"run {run_id} is {run.state}: only a run that is failed, parked or paused, or asked to pause, can be resumed"
        return WrongState(run_id, told)
    refusal = _unfit(desk, run, how)
    if refusal is not None:
        return refusal
    if how.input is not None:
        data, digest = how.input
        desk.touch("correct_input", {"run": run.no, "input": data, "digest": digest})
    parent = None
    if run.deadline_inherited and run.parent is not None:
        ((parent, *_),) = desk.all("heritage", {"run": run.parent})
    revival = _Revival(desk, how.at)
    forgotten = revival.revive(run, {*run.failed_keys, *how.retry}, parent, accept=how.accept_changes)
    return Resumed(desk.run(run.no), forgotten, [desk.run(no) for no in revival.others])


def _unpause(desk: Desk, run: RunRow, how: Resumption) -> Resumed | WrongState:
    if how.retry or how.input is not None:
        # Its body may be in memory somewhere, and has seen what would be forgotten.
        told = (
            f"run {run.id} is {run.state} and to be paused: it can go on as it is; only a run that is failed or parked"
        )
        return WrongState(run.id, f"{told} can try something again, or get another input")
    values = {"at": how.at, "accept": how.accept_changes}
    desk.touch("unpause", values | {"run": run.no})
    others = desk.below(run.no, lambda no: desk.touch("unpause", {"run": no, "at": how.at, "accept": False}) > 0)
    return Resumed(desk.run(run.no), (), [desk.run(no) for no in others])


def _unfit(desk: Desk, run: RunRow, how: Resumption) -> WrongState | None:
    """Why a run cannot be resumed in this way."""
    asked = {"run": run.no, "keys": json.dumps(how.retry), "first": None}
    known = {key for key, _kind, _name in desk.all("to_forget", asked)}
    missing = [key for key in how.retry if key not in known]
    if missing:
        return WrongState(run.id, f"run {run.id} has recorded no {', '.join(missing)}: `history()` lists its keys")
    ((recorded,),) = desk.all("has_entries", {"run": run.no})
    if how.input is not None and recorded:
        return WrongState(
            run.id,
            f"run {run.id} has recorded outcomes that belong to its input: start a new run with the corrected one",
        )
    return None


@dataclass(slots=True)
class _Revival:
    """One `resume` of dead letters: the run that a person named, and first the children that go on with it."""

    desk: Desk
    at: int
    others: list[int] = field(default_factory=list[int])
    """The children, each after its own."""

    def revive(
        self, run: RunRow, keys: Collection[str], parents: int | None, *, accept: bool = False
    ) -> tuple[str, ...]:
        """Make a dead letter pending again; the keys of all that was forgotten.

        Args:
            run: It is failed or parked.
            keys: Of the outcomes that are to be forgotten, with what was asked for after the body saw them.
            parents: The deadline that its parent has now, where it matters.
            accept: Whether changes of the code are accepted.
        """
        ((seen,),) = self.desk.all("seen_since", {"run": run.no, "keys": json.dumps(sorted(keys))})
        forgotten = self._forget(run.no, keys)
        deadline, length, inherited = self._deadline(run, parents)
        fallen = {
            "run": run.no,
            "keys": json.dumps([key for key, _kind, _name in forgotten]),
            # A wait for a run by its handle is named by that run's id.
            "ids": json.dumps([name for _key, kind, name in forgotten if kind == Kind.RUN]),
            "late": run.reason == Reason.DEADLINE,
        }
        for (no,) in self.desk.all("fallen", fallen):
            child = self.desk.run(no)
            self.revive(child, child.failed_keys, deadline)
            self.others.append(no)
        self._take_up(run.no, abandoner(run.id), seen, deadline)
        values = {"run": run.no, "at": self.at, "accept": accept}
        self.desk.touch("resume", values | {"deadline_at": deadline, "length": length, "inherited": inherited})
        self.desk.change("mark_under_way", {"id": run.id})
        return tuple(key for key, _kind, _name in forgotten)

    def _take_up(self, parent: int, by: str, since: int | None, deadline: int | None) -> None:
        """Let children go on that were given up because of what is forgotten now, with all that is below them."""
        for (no,) in self.desk.all("given_up", {"run": parent, "by": by, "since": since}):
            self._take_up(no, by, since, deadline)
            child = self.desk.run(no)
            self._forget(no, [CANCEL_KEY])
            at, length, inherited = self._deadline(child, deadline)
            self.desk.touch("uncancel", {"run": no})
            values = {
                "run": no,
                "at": self.at,
                "accept": False,
                "deadline_at": at,
                "length": length,
                "inherited": inherited,
            }
            self.desk.touch("resume", values)
            self.desk.change("mark_under_way", {"id": child.id})
            self.others.append(no)

    def _forget(self, run: int, keys: Collection[str]) -> list[tuple[str, str, str]]:
        """Forget these outcomes and what was asked for after the first of them was seen: key, kind and name of each."""
        wanted = {"run": run, "keys": json.dumps(sorted(keys))}
        ((first,),) = self.desk.all("first_to_forget", wanted)
        forgotten: list[tuple[str, str, str]] = [
            (key, kind, name) for key, kind, name in self.desk.all("to_forget", wanted | {"first": first})
        ]
        for key, _kind, _name in forgotten:
            self.desk.change("forget_entry", {"run": run, "key": key})
            self.desk.change("forget_intent", {"run": run, "key": key})
        gone = {"run": run, "keys": json.dumps([key for key, _kind, _name in forgotten])}
        self.desk.change("forget_attempts", gone)
        self.desk.change("give_back_messages", gone)
        self.desk.change("forget_questions", gone)
        return forgotten

    def _deadline(self, run: RunRow, parents: int | None) -> tuple[int | None, int | None, bool]:
        """When the run has to have ended now, how long that is given, and whether it is its parent's."""
        if run.deadline_inherited and parents is not None and parents > self.at:
            return parents, parents - self.at, True
        if run.deadline_length is not None and run.reason == Reason.DEADLINE:
            return self.at + run.deadline_length, run.deadline_length, False
        return run.deadline_at, run.deadline_length, run.deadline_inherited


def settle(desk: Desk, run_id: str, how: Settlement) -> RunRow | UnknownRun | WrongState:
    """Decide what is in doubt."""
    run = desk.by_id(run_id)
    if run is None:
        return unknown(run_id)
    if (run.state, run.reason) != (State.PARKED, Reason.AMBIGUOUS):
        return WrongState(run_id, f"run {run_id} is {run.state}: only a run that is parked as ambiguous can be settled")
    doubt = desk.first("doubtful", {"run": run.no, "key": how.key})
    if doubt is None:
        return WrongState(run_id, f"run {run_id}: nothing of the key {how.key} is in doubt")
    name, digest, asked, began = doubt
    if how.payload is None:
        again = {"run": run.no, "key": how.key, "began": began, "at": how.at, "error": how.error}
        desk.change("decide_retry", again)
        desk.change("forget_intent", {"run": run.no, "key": how.key})
    else:
        (seq,) = desk.one("next_seq", {"run": run.no})
        decision = {
            "seq": seq,
            "name": name,
            "digest": digest,
            "asked": asked,
            "began": began,
            "by": how.by,
            "payload": how.payload,
        }
        desk.change("decide_value", {"run": run.no, "key": how.key, "at": how.at, **decision})
    # What it asked when it was parked was closed then.
    desk.change("forget_questions", {"run": run.no, "keys": "[]"})
    same = {"deadline_at": run.deadline_at, "length": run.deadline_length, "inherited": run.deadline_inherited}
    desk.touch("resume", same | {"run": run.no, "at": how.at, "accept": False})
    return desk.run(run.no)


def discard(desk: Desk, run_id: str, at: int) -> RunRow | UnknownRun | WrongState:
    """Mark a dead letter as seen to."""
    run = desk.by_id(run_id)
    if run is None:
        return unknown(run_id)
    if not desk.touch("discard", {"run": run.no, "at": at}):
        return WrongState(run_id, f"run {run_id} is {run.state}: only a failed or parked run is a dead letter")
    return desk.run(run.no)

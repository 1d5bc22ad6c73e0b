"""What each verb of the port does inside its transaction.

Each function runs on the connection's thread, in a batch with others. It **returns** a refusal that is an answer
(`LeaseLost`, `RunConflict` …) and has then changed nothing, so that the others are not disturbed.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from .._records import (
    CANCEL_KEY,
    CancelRequest,
    Claimed,
    End,
    Entry,
    FailedAttempt,
    Hold,
    IfExists,
    Intent,
    NewRun,
    Reason,
    Resumed,
    Resumption,
    RunRow,
    Settlement,
    Started,
    State,
    Suspension,
    Wait,
)
from ..errors import LeaseLost, RunConflict, RunExists, UnknownRun, WrongState
from .rows import Row, Tables

__all__ = [
    "Desk",
    "amend",
    "cancel",
    "claim",
    "discard",
    "end",
    "fail",
    "give_back",
    "intend",
    "reclaim",
    "record",
    "release",
    "resume",
    "settle",
    "settle_changes",
    "start",
    "suspend",
    "take_over",
]


@dataclass(slots=True)
class Desk(Tables):
    """What a verb works with, and who is writing."""

    me: int
    fenced: bool
    """This worker may no longer drive runs; its clients may go on."""

    def holding(self, hold: Hold, **more: object) -> dict[str, object]:
        """The parameters that make a write conditional on the hold."""
        return {"run": hold.run, "me": self.me, "epoch": hold.epoch, **more}


# Writes of clients ---------------------------------------------------------------------------------------------------


def start(desk: Desk, new: NewRun, if_exists: IfExists, *, drive: bool) -> Started | RunConflict | RunExists:
    """Store a run, or attach to the one that exists."""
    taken = desk.first("taken", {"id": new.id})
    if taken is None:
        return _insert(desk, new, drive=drive)
    no, workflow, digest, word = taken
    match if_exists:
        case IfExists.FAIL:
            return RunExists(new.id, f"run {new.id} exists already ({word}); choose another id, or attach to it")
        case IfExists.REPLACE if State(word).stopped:
            desk.change("forget", {"run": no})
            return _insert(desk, new, drive=drive)
        case IfExists.REPLACE:
            return RunConflict(new.id, f"run {new.id} is {word}: only a run that has ended can be replaced")
        case _:
            if (workflow, digest) == (new.workflow, new.input_digest):
                return Started(desk.run(no), created=False, hold=None)
            what = "another input" if workflow == new.workflow else f"another workflow, {workflow}"
            return RunConflict(new.id, f"run {new.id} exists with {what}: choose another id")


def _insert(desk: Desk, new: NewRun, *, drive: bool) -> Started:
    # A fenced worker still takes orders, but somebody else will drive them.
    held = drive and not desk.fenced
    no = desk.connection.execute(
        desk.sql["insert_run"],
        {
            "id": new.id,
            "uid": new.uid,
            "workflow": new.workflow,
            "origin": new.origin,
            "version": new.version,
            "state": State.RUNNING if held else State.PENDING,
            "input_digest": new.input_digest,
            "at": new.at,
            "owner": desk.me if held else None,
            "epoch": int(held),
            "input": new.input,
            "deadline": new.deadline,
        },
    ).lastrowid
    assert no is not None
    for name, value in new.tags.items():
        desk.change("insert_tag", {"run": no, "name": name, "value": value})
    return Started(desk.run(no), created=True, hold=Hold(no, 1) if held else None)


def cancel(desk: Desk, run_id: str, request: CancelRequest) -> RunRow | UnknownRun | WrongState:
    """Ask a run to end; one that never began ends here."""
    found = desk.runs(desk.sql["where_id"], {"id": run_id})
    if not found:
        return _unknown(run_id)
    (run,) = found
    if run.state.stopped:
        told = f" ({run.reason})" if run.reason else ""
        return WrongState(run_id, f"run {run_id} is {run.state.value}{told}: there is nothing left to cancel")
    if run.cancel is None:
        asked = {"run": run.no, "at": request.at, "reason": request.reason, "by": request.by}
        desk.change("ask_cancel", asked)
        if run.state is State.PENDING and desk.change("cancel_unbegun", {"run": run.no, "at": request.at}):
            desk.change("forget_waits", {"run": run.no})
    return desk.run(run.no)


def resume(desk: Desk, run_id: str, how: Resumption) -> Resumed | UnknownRun | WrongState:
    """Make a dead letter pending again, and forget what is to be tried again."""
    found = desk.runs(desk.sql["where_id"], {"id": run_id})
    if not found:
        return _unknown(run_id)
    (run,) = found
    if run.state not in (State.FAILED, State.PARKED):
        return WrongState(run_id, f"run {run_id} is {run.state}: only a failed or parked run can be resumed")
    refusal = _unfit(desk, run, how)
    if refusal is not None:
        return refusal
    if how.input is not None:
        data, digest = how.input
        desk.change("correct_input", {"run": run.no, "input": data, "digest": digest})
    forgotten = _forget(desk, run.no, {*run.failed_keys, *how.retry})
    desk.change("resume", {"run": run.no, "at": how.at, "accept": int(how.accept_changes)})
    return Resumed(desk.run(run.no), forgotten)


def _unfit(desk: Desk, run: RunRow, how: Resumption) -> WrongState | None:
    """Why a run cannot be resumed in this way."""
    known = {key for (key,) in desk.all("to_forget", {"run": run.no, "keys": json.dumps(how.retry), "first": None})}
    unknown = [key for key in how.retry if key not in known]
    if unknown:
        return WrongState(run.id, f"run {run.id} has recorded no {', '.join(unknown)}: `history()` lists its keys")
    ((recorded,),) = desk.all("has_entries", {"run": run.no})
    if how.input is not None and recorded:
        return WrongState(
            run.id,
            f"run {run.id} has recorded outcomes that belong to its input: start a new run with the corrected one",
        )
    return None


def _forget(desk: Desk, run: int, keys: Collection[str]) -> tuple[str, ...]:
    """Forget these outcomes and what was asked for after the first of them was seen; the keys of all that is forgotten."""
    wanted = {"run": run, "keys": json.dumps(sorted(keys))}
    ((first,),) = desk.all("first_to_forget", wanted)
    forgotten = tuple(key for (key,) in desk.all("to_forget", wanted | {"first": first}))
    for key in forgotten:
        desk.change("forget_entry", {"run": run, "key": key})
        desk.change("forget_intent", {"run": run, "key": key})
    desk.change("forget_attempts", {"run": run, "keys": json.dumps(forgotten)})
    return forgotten


def settle(desk: Desk, run_id: str, how: Settlement) -> RunRow | UnknownRun | WrongState:
    """Decide what is in doubt."""
    found = desk.runs(desk.sql["where_id"], {"id": run_id})
    if not found:
        return _unknown(run_id)
    (run,) = found
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
        decision = {
            "name": name,
            "digest": digest,
            "asked": asked,
            "began": began,
            "by": how.by,
            "payload": how.payload,
        }
        desk.change("decide_value", {"run": run.no, "key": how.key, "at": how.at, **decision})
    desk.change("resume", {"run": run.no, "at": how.at, "accept": 0})
    return desk.run(run.no)


def discard(desk: Desk, run_id: str, at: int) -> RunRow | UnknownRun | WrongState:
    """Mark a dead letter as seen to."""
    found = desk.runs(desk.sql["where_id"], {"id": run_id})
    if not found:
        return _unknown(run_id)
    (run,) = found
    if not desk.change("discard", {"run": run.no, "at": at}):
        return WrongState(run_id, f"run {run_id} is {run.state}: only a failed or parked run is a dead letter")
    return desk.run(run.no)


def _unknown(run_id: str) -> UnknownRun:
    return UnknownRun(run_id, f"no run has the id {run_id}")


# Writes of the worker ------------------------------------------------------------------------------------------------


def claim(desk: Desk, workflows: Collection[str], now: int, limit: int, *, suspects: bool) -> list[Claimed]:
    """Take runs that are ready, oldest due first."""
    asked = {"workflows": json.dumps(sorted(workflows)), "now": now, "limit": limit}
    if suspects:
        ready = desk.all("claim_suspect", {"workflows": asked["workflows"]})
    else:
        pending = desk.all("claim_pending", {"workflows": asked["workflows"], "limit": limit})
        ready = sorted(pending + desk.all("claim_due", asked))
    return [_take(desk, no, now) for _due, no in ready[:limit]]


def _take(desk: Desk, no: int, now: int) -> Claimed:
    desk.change("take", {"run": no, "me": desk.me, "at": now})
    row = desk.run(no)
    return Claimed(row, Hold(no, row.epoch))


def reclaim(desk: Desk, hold: Hold, at: int) -> LeaseLost | None:
    """Take a suspended run again that nobody has driven since."""
    return None if desk.change("reclaim", desk.holding(hold, at=at)) else lost(desk, hold)


def record(desk: Desk, hold: Hold, entry: Entry) -> LeaseLost | None:
    """Append one outcome."""
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
            "run": hold.run,
            "me": desk.me,
            "epoch": hold.epoch,
        },
    ).rowcount
    return None if written else lost(desk, hold)


def intend(desk: Desk, hold: Hold, intent: Intent) -> LeaseLost | None:
    """Note that an at-most-once step is about to begin."""
    values = desk.holding(
        hold, key=intent.key, name=intent.name, digest=intent.digest, asked=intent.asked, at=intent.at
    )
    return None if desk.change("intend", values) else lost(desk, hold)


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
    return None if desk.change("fail", values) else lost(desk, hold)


def amend(
    desk: Desk, hold: Hold, changed: Sequence[tuple[str, str, bytes]], removed: Sequence[str]
) -> LeaseLost | None:
    """Rewrite entries as a person accepted it."""
    if _held(desk, hold) is None:
        return lost(desk, hold)
    for key, name, digest in changed:
        desk.change("amend", {"run": hold.run, "key": key, "name": name, "digest": digest})
    for key in removed:
        desk.change("remove", {"run": hold.run, "key": key})
    return None


def settle_changes(desk: Desk, hold: Hold) -> LeaseLost | None:
    """Later changes are divergences again."""
    return None if desk.change("settle_changes", desk.holding(hold)) else lost(desk, hold)


def suspend(desk: Desk, hold: Hold, waits: Sequence[Wait], at: int) -> Suspension | LeaseLost:
    """Give the run back until a wait is over, unless the body has not heard of a request to cancel."""
    held = _held(desk, hold)
    if held is None:
        return lost(desk, hold)
    *request, news, deadline = held
    if news:
        return Suspension(suspended=False, cancel=CancelRequest(*request))
    desk.change("forget_waits", {"run": hold.run})
    for wait in waits:
        desk.change(
            "insert_wait",
            {
                "run": hold.run,
                "key": wait.key,
                "kind": wait.kind,
                "name": wait.name,
                "since": wait.since,
                "deadline": wait.deadline,
            },
        )
    due = min((wait.deadline for wait in waits if wait.deadline is not None), default=None)
    if deadline is not None and not _told_to_end(desk, hold):
        due = deadline if due is None else min(due, deadline)
    desk.change("suspend", {"run": hold.run, "due": due, "at": at})
    return Suspension(suspended=True)


def end(desk: Desk, hold: Hold, how: End) -> LeaseLost | None:
    """Stop the run for good, or park it; a request to cancel that was committed first wins over an end of its own."""
    held = _held(desk, hold)
    if held is None:
        return lost(desk, hold)
    _, why, _, undelivered, _ = held
    if undelivered and how.state is not State.PARKED:
        how = End(State.CANCELLED, why, None, how.at)
    values = desk.holding(
        hold,
        state=how.state,
        reason=how.reason,
        result=how.result,
        at=how.at,
        failed_keys=json.dumps(how.failed_keys),
    )
    desk.change("end", values)
    desk.change("forget_waits", {"run": hold.run})
    return None


def give_back(desk: Desk, hold: Hold, at: int) -> LeaseLost | None:
    """Make a run pending again."""
    return None if desk.change("give_back", desk.holding(hold, at=at)) else lost(desk, hold)


def take_over(desk: Desk, dead: Sequence[int], max_recoveries: int, parked_result: bytes, at: int) -> list[RunRow]:
    """Free or park the runs of dead workers, and strike those off."""
    freed: list[RunRow] = []
    for worker in dead:
        for no, deaths, survived in desk.all("orphans", {"owner": worker}):
            ((entries,),) = desk.all("count_entries", {"run": no})
            # A new outcome is progress: the way to `crash_loop` begins anew, with this death.
            in_a_row = 1 if entries > survived else deaths + 1
            fate: dict[str, object] = {"run": no, "deaths": in_a_row, "survived": entries, "at": at}
            if in_a_row >= max_recoveries:
                desk.change("park", fate | {"reason": Reason.CRASH_LOOP, "result": parked_result})
                desk.change("forget_waits", {"run": no})
            else:
                desk.change("free", fate)
            freed.append(desk.run(no))
        desk.change("strike", {"no": worker})
    return freed


def release(desk: Desk, at: int) -> None:
    """Give back what this worker drives, and sign off."""
    desk.change("release", {"me": desk.me, "at": at})
    desk.change("strike", {"no": desk.me})


def _held(desk: Desk, hold: Hold) -> Row | None:
    return desk.first("held", desk.holding(hold, cancel_key=CANCEL_KEY))


def _told_to_end(desk: Desk, hold: Hold) -> bool:
    """Whether the body has been cancelled already: its deadline has nothing more to say."""
    return desk.first("has_entry", {"run": hold.run, "key": CANCEL_KEY}) is not None


def lost(desk: Desk, hold: Hold) -> LeaseLost:
    """Why a write with this hold was refused."""
    now = desk.first("whose", {"run": hold.run})
    if now is None:
        return LeaseLost(f"run number {hold.run} was replaced; this write was refused and nothing changed")
    run_id, word, owner, epoch = now
    driver = {None: "nobody", desk.me: "this worker"}.get(owner, f"worker {owner}")
    return LeaseLost(
        f"run {run_id} is {word}, driven by {driver} in epoch {epoch}, and this write came from epoch {hold.epoch}: "
        "it was refused and nothing changed. Drop the body"
    )

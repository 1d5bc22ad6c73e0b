"""Verbs of the worker about who drives a run, and about how that ends."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from .._records import (
    CANCEL_KEY,
    Claimed,
    Drained,
    End,
    Ended,
    Hold,
    Kind,
    News,
    Reason,
    Rest,
    RunRow,
    State,
    Suspension,
    Wait,
)
from ..errors import JournalDamaged, LeaseLost
from .desk import Desk, Held
from .faults import STORAGE_ERRORS, Fault, fault_of
from .patience import LOGGER
from .rows import Row, request_of

__all__ = ["claim", "end", "give_back", "leave", "quarantine", "reclaim", "release", "suspend", "take_over"]


def claim(
    desk: Desk, workflows: Collection[str], now: int, limit: int, *, suspects: bool, only: Collection[str] | None = None
) -> list[Claimed]:
    """Take runs that are ready: as many of each workflow as of any other, and of these the oldest due."""
    limit = min(limit, 1) if suspects else limit
    asked = {"workflows": json.dumps(sorted(workflows)), "now": now, "limit": limit, "suspects": suspects}
    if only is not None:
        ready = desk.all("claim_below", asked | {"ids": json.dumps(sorted(only))})
    else:
        ready = _ready(desk, asked, suspects=suspects)
    taken = [_take(desk, no, now) for no in _in_turn(ready, limit)]
    return [claimed for claimed in taken if claimed is not None]


def _ready(desk: Desk, asked: Mapping[str, object], *, suspects: bool) -> list[Row]:
    ready = desk.all("claim_paused", asked)
    if suspects:
        ready += desk.all("claim_suspect", asked)
    else:
        ready += desk.all("claim_pending", asked) + desk.all("claim_due", asked)
    return ready


def _in_turn(ready: list[Row], limit: int) -> list[int]:
    """Who of those that are ready comes to be driven: a long queue of one workflow does not hold up the others."""
    before: Counter[str] = Counter()
    places: list[tuple[int, int, int]] = []
    for due, no, workflow in sorted(ready):
        places.append((before[workflow], due, no))
        before[workflow] += 1
    return [no for _due, no in sorted((due, no) for _place, due, no in sorted(places)[:limit])]


def _take(desk: Desk, no: int, now: int) -> Claimed | None:
    """Take a run; None where that cannot be done, because the run is damaged: its neighbours are taken all the same."""
    try:
        if not desk.touch("take", {"run": no, "me": desk.me, "at": now}):
            LOGGER.error("an index of the journal is damaged: it names run number %d as ready, and it is not", no)
            return None
        row = desk.run(no)
    except (*STORAGE_ERRORS, JournalDamaged) as error:
        quarantine(desk, no, error, now)
        return None
    return Claimed(row, Hold(no, row.epoch))


def quarantine(desk: Desk, no: int, error: sqlite3.Error | UnicodeDecodeError | JournalDamaged, at: int) -> None:
    """Keep a run that cannot be read or written from those who look for runs.

    Raises:
        sqlite3.Error: The storage is in trouble, and the run is not to blame.
    """
    if isinstance(error, STORAGE_ERRORS) and fault_of(error) is not Fault.REFUSED:
        raise error
    try:
        parked = desk.touch("quarantine", {"run": no, "reason": Reason.DAMAGED, "at": at})
    except STORAGE_ERRORS as worse:
        if fault_of(worse) is not Fault.REFUSED:
            raise
        parked = 0
    fate = "is parked" if parked else "cannot even be parked"
    LOGGER.error("run number %d is damaged and %s (%s): `engine.verify()` names all that is damaged", no, fate, error)


def reclaim(desk: Desk, hold: Hold, at: int) -> News | LeaseLost:
    """Take a run at rest again that nobody has driven since."""
    taken = desk.touching("reclaim", desk.holding(hold, at=at, cancel_key=CANCEL_KEY))
    if not taken:
        return desk.lost(hold)
    ((*requests,),) = taken
    return News(hold.run, request_of(*requests[:3]), request_of(*requests[3:]))


# Coming to rest ------------------------------------------------------------------------------------------------------


def suspend(desk: Desk, hold: Hold, rest: Rest) -> Suspension | LeaseLost:
    """Give the run back until a wait is over, unless there is news that the body has not heard of."""
    held = desk.held(hold)
    if held is None:
        return desk.lost(hold)
    if _has_news(desk, hold.run, held, rest):
        return Suspension(suspended=False, cancel=held.unheard, pause=held.pause)
    for key in rest.closed:
        desk.change("close_wait", {"run": hold.run, "key": key})
    for wait in rest.opened:
        desk.change(
            "open_wait",
            {
                "run": hold.run,
                "key": wait.key,
                "kind": wait.kind,
                "name": wait.name,
                "since": wait.since,
                "deadline": wait.deadline,
                "target": wait.target,
            },
        )
    times = [None if rest.paused else rest.due, None if held.told else held.deadline]
    due = min((time for time in times if time is not None), default=None)
    state = State.PAUSED if rest.paused else State.SUSPENDED
    desk.touch(
        "come_to_rest",
        {"run": hold.run, "state": state, "due": due, "at": rest.at, "interrupted": rest.interrupted},
    )
    return Suspension(suspended=True, pause=held.pause)


def _has_news(desk: Desk, run: int, held: Held, rest: Rest) -> bool:
    if held.unheard is not None or rest.paused != (held.pause is not None):
        return True
    if rest.paused:
        return False
    gone = [*rest.closed, *(wait.key for wait in rest.opened)]
    ((old,),) = desk.all("news_of_waits", {"run": run, "closed": json.dumps(gone)})
    return bool(old) or any(_is_over(desk, run, wait) for wait in rest.opened)


def _is_over(desk: Desk, run: int, wait: Wait) -> bool:
    """Whether what a wait waits for has come."""
    match wait.kind:
        case Kind.SIGNAL:
            found = desk.all("news_of_signal", {"run": run, "name": wait.name, "deadline": wait.deadline})
        case Kind.QUESTION:
            found = desk.all("news_of_question", {"run": run, "key": wait.key})
        case _:
            found = desk.all("news_of_run", {"target": wait.target}) if wait.target is not None else []
    return bool(found)


def end(desk: Desk, hold: Hold, how: End) -> Ended | LeaseLost | None:
    """Stop the run for good, or park it; a request to cancel that was committed first wins over an end of its own."""
    held = desk.held(hold)
    if held is None:
        return desk.lost(hold)
    if held.unheard is not None and how.state is not State.PARKED:
        how = End(State.CANCELLED, held.unheard.reason, None, how.at)
    if how.state is State.COMPLETED and how.drained is not None and _more_has_come(desk, hold, how.drained):
        desk.touch("give_back", desk.holding(hold, at=how.at, cancel_key=CANCEL_KEY))
        return None
    values = desk.holding(
        hold,
        state=how.state,
        reason=how.reason,
        result=how.result,
        at=how.at,
        failed_keys=json.dumps(how.failed_keys),
        interrupted=how.interrupted,
    )
    desk.touch("end", values)
    desk.stopped(hold.run, how.at)
    return Ended(how.state, 0 if how.state is State.PARKED else desk.ended(held.id, how.at))


def _more_has_come(desk: Desk, hold: Hold, drained: Drained) -> bool:
    """Whether more messages have come since all that were there were taken; then it is as if that had not been asked yet."""
    if not desk.all("more_signals", {"run": hold.run, "name": drained.name, "heard": drained.heard}):
        return False
    desk.change("forget_entry", {"run": hold.run, "key": drained.key})
    desk.change("give_back_messages", {"run": hold.run, "keys": json.dumps([drained.key])})
    return True


# Letting go ----------------------------------------------------------------------------------------------------------


def give_back(desk: Desk, hold: Hold, at: int) -> LeaseLost | None:
    """Make a run pending again, or paused where that was asked."""
    given = desk.touch("give_back", desk.holding(hold, at=at, cancel_key=CANCEL_KEY))
    return None if given else desk.lost(hold)


def leave(desk: Desk, hold: Hold, at: int, *, interrupted: bool) -> LeaseLost | None:
    """Make a run pending again in good order, or paused where that was asked."""
    values = desk.holding(hold, at=at, cancel_key=CANCEL_KEY, interrupted=interrupted)
    return None if desk.touch("leave", values) else desk.lost(hold)


def take_over(
    desk: Desk, dead: Sequence[int], max_recoveries: int, parked_result: bytes, at: int, *, if_still: Mapping[int, int]
) -> list[RunRow]:
    """Free or park the runs of dead workers, and strike those off."""
    freed: list[RunRow] = []
    for worker in dead:
        if worker in if_still and desk.all("moved", {"no": worker}) != [(if_still[worker],)]:
            continue
        for no, deaths, survived in desk.all("orphans", {"owner": worker}):
            ((entries,),) = desk.all("count_entries", {"run": no})
            # A new outcome is progress: the way to `crash_loop` begins anew, with this death.
            in_a_row = 1 if entries > survived else deaths + 1
            fate: dict[str, object] = {"run": no, "deaths": in_a_row, "survived": entries, "at": at}
            if in_a_row >= max_recoveries:
                desk.touch("park", fate | {"reason": Reason.CRASH_LOOP, "result": parked_result})
                desk.stopped(no, at)
            else:
                desk.touch("free", fate | {"cancel_key": CANCEL_KEY})
            freed.append(desk.run(no))
        desk.change("strike", {"no": worker})
    return freed


def release(desk: Desk, at: int) -> None:
    """Give back what this worker drives, and sign off."""
    desk.touch("release", {"me": desk.me, "at": at, "cancel_key": CANCEL_KEY})
    desk.change("strike", {"no": desk.me})

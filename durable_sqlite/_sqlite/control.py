"""Verbs that ask something of a run and its descendants: to end, to pause; and at once: to be over."""

from __future__ import annotations

from collections.abc import Sequence

from .._records import Hold, Request, RunRow
from ..errors import LeaseLost, UnknownRun, WrongState
from .desk import Desk, asked, unknown

__all__ = ["abandon", "cancel", "pause", "terminate"]


def cancel(
    desk: Desk, run_id: str, request: Request, *, caller: Hold | None = None
) -> Sequence[RunRow] | LeaseLost | UnknownRun | WrongState:
    """Ask a run and its descendants to end; those that never began end here."""
    if caller is not None and not desk.holds(caller):
        return desk.lost(caller)
    run = desk.by_id(run_id)
    if run is None:
        return unknown(run_id)
    if run.state.stopped:
        return WrongState(run_id, f"run {_told(run)}: there is nothing left to cancel")
    if run.cancel is not None:
        return [run]
    return [desk.run(no) for no in _tell_all(desk, run.no, request)]


def abandon(desk: Desk, hold: Hold, children: Sequence[str], request: Request) -> Sequence[RunRow] | LeaseLost:
    """Ask children that the body no longer waits for to end."""
    if not desk.holds(hold):
        return desk.lost(hold)
    told: list[int] = []
    for child in children:
        for (no,) in desk.all("child", {"id": child, "run": hold.run}):
            told += _tell_all(desk, no, request)
    return [desk.run(no) for no in told]


def _tell_all(desk: Desk, no: int, request: Request) -> list[int]:
    """Ask a run to end, and where this is news to it, its descendants; those that were told."""
    if not _tell(desk, no, request):
        return []
    return [no, *desk.below(no, lambda each: _tell(desk, each, request))]


def _tell(desk: Desk, no: int, request: Request) -> bool:
    values = asked(no, request)
    if desk.touch("cancel_unbegun", values):
        _bury(desk, no, request.at)
        return True
    return desk.touch("ask_cancel", values) > 0


def terminate(desk: Desk, run_id: str, request: Request) -> Sequence[RunRow] | UnknownRun | WrongState:
    """End a run and its descendants at once."""
    run = desk.by_id(run_id)
    if run is None:
        return unknown(run_id)
    if not _terminate(desk, run.no, request, named=True):
        return WrongState(run_id, f"run {_told(run)}: there is nothing left to terminate")
    # From the top down: a run that waits for one that ends with it is not woken.
    others = desk.below(run.no, lambda each: _terminate(desk, each, request, named=False))
    return [desk.run(no) for no in (run.no, *others)]


def _terminate(desk: Desk, no: int, request: Request, *, named: bool) -> bool:
    if not desk.touch("terminate", asked(no, request) | {"named": named}):
        return False
    _bury(desk, no, request.at)
    return True


def _bury(desk: Desk, no: int, at: int) -> None:
    """What is to be done for a run that has ended without its driver."""
    desk.stopped(no, at)
    ((run_id, *_),) = desk.all("whose", {"run": no})
    desk.ended(run_id, at)


def pause(desk: Desk, run_id: str, request: Request) -> Sequence[RunRow] | UnknownRun | WrongState:
    """Pause a run and its descendants, at once or when they come to rest."""
    run = desk.by_id(run_id)
    if run is None:
        return unknown(run_id)
    if run.state.stopped:
        return WrongState(run_id, f"run {_told(run)}: there is nothing left to pause")
    if run.cancel is not None:
        return WrongState(run_id, f"run {run_id} was asked to end: let it, or terminate it")
    if run.pause is not None:
        return [run]
    if not desk.touch("ask_pause", asked(run.no, request)):
        return WrongState(run_id, f"run {run_id} was told to end, as its deadline has passed: let it, or terminate it")
    others = desk.below(run.no, lambda each: desk.touch("ask_pause", asked(each, request)) > 0)
    return [desk.run(no) for no in (run.no, *others)]


def _told(run: RunRow) -> str:
    why = f" ({run.reason})" if run.reason else ""
    return f"{run.id} is {run.state}{why}"

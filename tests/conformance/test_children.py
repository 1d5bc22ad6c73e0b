"""What every journal promises about runs that other runs start and wait for."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable
from dataclasses import replace
from typing import Any

import pytest

from durable_sqlite._records import CANCEL_KEY, End, Ended, Hold, IfExists, Kind, NewRun, RunQuery, RunRow, State
from durable_sqlite.errors import LeaseLost, RunConflict, RunExists, SignalRejected
from durable_sqlite.journal import Journal
from tests.conformance.adapters import Lab
from tests.support.journals import (
    asked,
    awaits_end,
    begin,
    completed,
    entry,
    failed,
    look,
    new_message,
    new_run,
    rest,
    wait,
)

Over = Callable[[Callable[[Lab], Coroutine[Any, Any, None]]], None]

_ENDS = [completed(), failed(), End(State.CANCELLED, "enough", None, 60)]
_PARK = End(State.PARKED, "diverged", b"{}", 60)


async def _child(journal: Journal, run_id: str, parent: int, **options: Any) -> tuple[RunRow, Hold]:
    """A child that this worker drives."""
    new = new_run(run_id, at=20, parent=parent, **options)
    started = await journal.start(new, IfExists.ATTACH, drive=True)
    assert started.hold is not None
    return started.row, started.hold


async def _tree(journal: Journal) -> dict[str, Hold]:
    """The run `a` with two children, grandchildren, and a detached child with a child of its own."""
    started, hold = await begin(journal)
    holds, numbers = {"a": hold}, {"a": started.row.no}
    for run_id, parent, detached in (
        ("b", "a", False),
        ("b1", "b", False),
        ("b2", "b", False),
        ("c", "a", False),
        ("d", "a", True),
        ("d1", "d", False),
    ):
        row, holds[run_id] = await _child(journal, run_id, numbers[parent], detached=detached)
        numbers[run_id] = row.no
    await begin(journal, "stranger")
    return holds


def _ids(rows: Iterable[RunRow]) -> list[str]:
    return sorted(row.id for row in rows)


# Birth ---------------------------------------------------------------------------------------------------------------


def test_a_child_knows_who_started_it(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        started, hold = await begin(journal)
        new = new_run("b", parent=started.row.no, parent_key="child#1", detached=True)
        child = (await journal.start(new, IfExists.ATTACH, drive=True, caller=hold)).row
        assert (child.parent, child.parent_id, child.parent_key) == (started.row.no, "a", "child#1")
        assert (child.detached, child.state, child.epoch) == (True, State.RUNNING, 1)
        assert await look(journal, "b") == child
        parent = started.row
        assert (parent.parent, parent.parent_id, parent.parent_key, parent.detached) == (None, None, None, False)

    lab(program)


@pytest.mark.parametrize("if_exists", list(IfExists))
@pytest.mark.parametrize("ended", [True, False])
def test_a_parent_that_asks_again_after_a_crash_gets_the_child_it_has(
    lab: Over, if_exists: IfExists, ended: bool
) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        started, hold = await begin(journal)
        child, childs = await _child(journal, "b", started.row.no)
        if ended:
            await journal.end(childs, completed())
        new = new_run("b", at=70, parent=started.row.no)
        again = await journal.start(new, if_exists, drive=True, caller=hold)
        assert (again.created, again.hold, again.row.no) == (False, None, child.no)
        if ended:
            with pytest.raises(SignalRejected):
                await journal.start(new, if_exists, drive=True, message=new_message(), caller=hold)
        else:
            await journal.start(new, if_exists, drive=True, message=new_message(), caller=hold)
            assert len((await journal.mail(child.no)).messages) == 1

    lab(program)


def test_a_child_of_another_parent_or_with_another_uid_is_any_run(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        started, _ = await begin(journal)
        other, _ = await begin(journal, "other")
        await _child(journal, "b", started.row.no)
        for new in (
            new_run("b", parent=started.row.no, uid="else"),
            new_run("b", parent=other.row.no),
            new_run("b"),
        ):
            with pytest.raises(RunExists):
                await journal.start(new, IfExists.FAIL, drive=False)
            with pytest.raises(RunConflict):
                await journal.start(new, IfExists.REPLACE, drive=False)
            assert not (await journal.start(new, IfExists.ATTACH, drive=False)).created
            with pytest.raises(RunConflict):
                await journal.start(replace(new, input_digest=b"2", uid="2"), IfExists.ATTACH, drive=False)

    lab(program)


def test_a_parent_that_is_replaced_leaves_its_children_behind(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        started, hold = await begin(journal)
        await _child(journal, "b", started.row.no)
        await journal.end(hold, completed())
        await journal.start(new_run(at=70), IfExists.REPLACE, drive=True)
        child = await look(journal, "b")
        assert (child.parent, child.parent_id, child.state) == (None, None, State.RUNNING)
        assert _ids(await journal.cancel("a", asked(80))) == ["a"]
        assert (await look(journal, "b")).cancel is None

    lab(program)


def test_a_child_has_the_nearer_deadline_of_its_parents_and_its_own(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        for number, (parents, own, detached, deadline, length, inherited) in enumerate(
            [
                (100, None, False, 110, 90, True),
                (100, 80, False, 100, 80, False),
                (100, 91, False, 110, 90, True),
                (100, 500, False, 110, 90, True),
                (100, 500, True, 520, 500, False),
                (100, None, True, None, None, False),
                (None, 80, False, 100, 80, False),
                (None, None, False, None, None, False),
            ]
        ):
            started, _ = await begin(journal, f"a{number}", deadline=parents)
            child, hold = await _child(journal, f"b{number}", started.row.no, deadline=own, detached=detached)
            assert (child.deadline_at, child.deadline_length, child.deadline_inherited) == (deadline, length, inherited)
            await journal.suspend(hold, rest(wait()))
            assert (await look(journal, f"b{number}")).due_at == deadline

    lab(program)


@pytest.mark.parametrize("delivered", [True, False])
def test_a_child_of_a_run_that_was_asked_to_end_ends_before_it_begins(lab: Over, delivered: bool) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        started, hold = await begin(journal)
        await journal.cancel("a", asked())
        if delivered:
            await journal.record(hold, entry(CANCEL_KEY, kind=Kind.CANCEL))
        new = new_run("b", at=60, parent=started.row.no)
        child = await journal.start(new, IfExists.ATTACH, drive=True, caller=hold)
        assert (child.created, child.hold) == (True, None)
        row = child.row
        assert (row.state, row.reason, row.cancel, row.ended_at) == (State.CANCELLED, "too late", asked(), 60)
        assert await look(journal, "b") == row
        free = new_run("c", at=60, parent=started.row.no, detached=True)
        detached = await journal.start(free, IfExists.ATTACH, drive=True, caller=hold)
        assert (detached.row.state, detached.row.cancel) == (State.RUNNING, None)

    lab(program)


def test_a_child_of_a_run_that_was_asked_to_pause_is_paused_from_its_first_moment_on(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        started, hold = await begin(journal, deadline=100)
        await journal.pause("a", asked())
        new = new_run("b", at=60, parent=started.row.no)
        child = await journal.start(new, IfExists.ATTACH, drive=True, caller=hold)
        assert (child.created, child.hold) == (True, None)
        assert (child.row.state, child.row.pause, child.row.due_at) == (State.PAUSED, asked(), 110)
        assert await journal.claim(["ship"], 109, 9, suspects=False) == []
        free = new_run("c", at=60, parent=started.row.no, detached=True)
        detached = await journal.start(free, IfExists.ATTACH, drive=True, caller=hold)
        assert (detached.row.state, detached.row.pause) == (State.RUNNING, None)

    lab(program)


def test_the_children_that_have_not_stopped_are_remembered(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        holds = await _tree(journal)
        assert list((await journal.memory(holds["a"].run)).children) == ["b", "c", "d"]
        await journal.suspend(holds["b"], rest(wait()))
        await journal.end(holds["c"], _PARK)
        await journal.end(holds["d"], completed())
        both = await journal.memories([holds["a"].run, holds["b"].run])
        assert [list(memory.children) for memory in both] == [["b"], ["b1", "b2"]]

    lab(program)


# What is asked of a parent -------------------------------------------------------------------------------------------


def test_what_is_asked_of_a_run_is_asked_of_its_descendants_but_not_of_detached_ones_and_below(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        await _tree(journal)
        first, *others = await journal.pause("a", asked(50))
        assert (first.id, _ids(others)) == ("a", ["b", "b1", "b2", "c"])
        assert all(row.pause == asked(50) for row in (first, *others))
        first, *others = await journal.cancel("a", asked(51))
        assert (first.id, _ids(others)) == ("a", ["b", "b1", "b2", "c"])
        assert all((row.cancel, row.updated_at) == (asked(51), 51) for row in (first, *others))
        first, *others = await journal.terminate("a", asked(52))
        assert (first.id, _ids(others)) == ("a", ["b", "b1", "b2", "c"])
        assert all(row.state is State.CANCELLED for row in (first, *others))
        for run_id in ("d", "d1", "stranger"):
            row = await look(journal, run_id)
            assert (row.state, row.cancel, row.pause) == (State.RUNNING, None, None)

    lab(program)


def test_only_those_who_were_told_now_are_named(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        holds = await _tree(journal)
        await journal.end(holds["b"], completed())
        await journal.end(holds["b2"], _PARK)
        assert _ids(await journal.pause("b1", asked(50))) == ["b1"]
        assert _ids(await journal.pause("a", asked(51))) == ["a", "c"]
        assert _ids(await journal.cancel("c", asked(52))) == ["c"]
        # The grandchild is told though its parent has ended.
        assert _ids(await journal.cancel("a", asked(53))) == ["a", "b1"]
        assert (await look(journal, "c")).cancel == asked(52)
        parked = await look(journal, "b2")
        assert (parked.state, parked.cancel) == (State.PARKED, None)
        assert _ids(await journal.terminate("a", asked(54))) == ["a", "b1", "b2", "c"]
        assert (await look(journal, "b")).state is State.COMPLETED

    lab(program)


def test_a_pause_leaves_descendants_alone_that_were_asked_to_end(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        await _tree(journal)
        await journal.cancel("b1", asked(50))
        assert _ids(await journal.pause("a", asked(51))) == ["a", "b", "b2", "c"]
        row = await look(journal, "b1")
        assert (row.cancel, row.pause) == (asked(50), None)

    lab(program)


def test_descendants_that_never_began_end_with_the_request_and_their_waiters_wake(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        started, _ = await begin(journal)
        await journal.start(new_run("b", parent=started.row.no), IfExists.ATTACH, drive=False)
        _, waiter = await begin(journal, "waiter")
        await journal.suspend(waiter, rest(awaits_end("b", kind=Kind.RUN)))
        first, child = await journal.cancel("a", asked())
        assert (first.state, child.id, child.state) == (State.RUNNING, "b", State.CANCELLED)
        assert (child.reason, child.ended_at) == ("too late", 50)
        assert (await look(journal, "waiter")).state is State.PENDING

    lab(program)


def test_children_that_nobody_waits_for_any_more_are_asked_to_end_with_their_descendants(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        holds = await _tree(journal)
        await journal.end(holds["c"], completed())
        told = await journal.abandon(holds["a"], ["b", "b1", "c", "stranger", "nobody"], asked())
        assert _ids(told) == ["b", "b1", "b2"]
        assert all(row.cancel == asked() for row in told)
        assert await journal.abandon(holds["a"], ["b"], asked(60)) == []
        assert (await look(journal, "stranger")).cancel is None
        with pytest.raises(LeaseLost):
            await journal.abandon(Hold(holds["a"].run, 9), ["c"], asked())

    lab(program)


# The end of a run that is waited for ---------------------------------------------------------------------------------


@pytest.mark.parametrize("end", _ENDS)
def test_the_end_of_a_run_wakes_whoever_waits_for_it(lab: Over, end: End) -> None:
    async def program(lab: Lab) -> None:
        journal, other = await lab.worker(), await lab.worker()
        started, hold = await begin(journal)
        _, childs = await _child(other, "b", started.row.no)
        await journal.suspend(hold, rest(wait("t", deadline=900), awaits_end("b")))
        for run_id, target in (("w1", "b"), ("w2", "other"), ("paused", "b")):
            _, waiter = await begin(journal, run_id)
            await journal.suspend(waiter, rest(awaits_end(target, kind=Kind.RUN)))
        await journal.pause("paused", asked())
        assert await other.end(childs, end) == Ended(end.state, 2)
        states = {row.id: row.state for row in await journal.runs(RunQuery())}
        assert states == {
            "a": State.PENDING,
            "b": end.state,
            "w1": State.PENDING,
            "w2": State.SUSPENDED,
            "paused": State.PAUSED,
        }
        row = await look(journal)
        assert (row.due_at, row.updated_at) == (None, 60)

    lab(program)


def test_whoever_waits_for_a_run_that_is_parked_goes_on_waiting(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        started, hold = await begin(journal)
        child, childs = await _child(journal, "b", started.row.no)
        assert await journal.end(childs, _PARK) == Ended(State.PARKED, 0)
        assert (await journal.suspend(hold, rest(awaits_end("b")))).suspended
        await journal.terminate("b", asked(70))
        assert (await look(journal)).state is State.PENDING
        assert (await journal.mail(started.row.no, ["b"])).ended == [await look(journal, "b")]
        assert child.no

    lab(program)


@pytest.mark.parametrize("end", _ENDS)
@pytest.mark.parametrize("end_first", [True, False])
def test_no_wake_up_is_lost_between_an_end_and_a_run_that_comes_to_rest(lab: Over, end_first: bool, end: End) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        started, hold = await begin(journal)
        _, childs = await _child(journal, "b", started.row.no)
        if end_first:
            ended, rested = journal.end(childs, end), journal.suspend(hold, rest(awaits_end("b")))
            assert (await ended, (await rested).suspended) == (Ended(end.state, 0), False)
        else:
            rested, ended = journal.suspend(hold, rest(awaits_end("b"))), journal.end(childs, end)
            assert ((await rested).suspended, await ended) == (True, Ended(end.state, 1))

    lab(program)


def test_whether_awaited_runs_have_ended_is_read_with_the_mail(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        started, _ = await begin(journal)
        ends: list[tuple[str, End | None]] = [("b", completed()), ("c", _PARK), ("d", None), ("e", failed())]
        for run_id, end in ends:
            _, hold = await _child(journal, run_id, started.row.no)
            if end is not None:
                await journal.end(hold, end)
        mail = await journal.mail(started.row.no, ["e", "d", "c", "b", "nobody"])
        assert sorted(mail.ended, key=lambda row: row.id) == [await look(journal, "b"), await look(journal, "e")]
        assert (await journal.mail(started.row.no, ["d"])).ended == []

    lab(program)


def test_a_child_that_fails_at_its_parents_deadline_leaves_no_letter(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        started, hold = await begin(journal, deadline=100)
        for run_id, own, reason in (("b", None, "deadline"), ("c", 20, "deadline"), ("d", None, "error")):
            _, childs = await _child(journal, run_id, started.row.no, deadline=own)
            await journal.end(childs, failed(120, reason=reason))
        await journal.end(hold, failed(130, reason="deadline"))
        assert _ids(await journal.runs(RunQuery(letters=True))) == ["a", "c", "d"]
        assert (await look(journal, "b")).discarded_at == 120

    lab(program)


def test_a_worker_that_dies_wakes_nobody_who_waits_for_its_runs(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal, victim = await lab.worker(), await lab.worker()
        started, hold = await begin(journal)
        new: NewRun = new_run("b", parent=started.row.no)
        await victim.start(new, IfExists.ATTACH, drive=True)
        await journal.suspend(hold, rest(awaits_end("b")))
        await lab.kill(victim)
        (freed,) = await journal.take_over([each.no for each in await journal.workers()], 1, b"{}", 50)
        assert (freed.id, freed.state) == ("b", State.PARKED)
        assert (await look(journal)).state is State.SUSPENDED

    lab(program)

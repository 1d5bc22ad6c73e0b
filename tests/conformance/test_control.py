"""What every journal promises to those who ask runs to end, to pause and to go on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from durable_sqlite._records import CANCEL_KEY, End, Ended, Entry, Hold, IfExists, Kind, Report, Resumption, State
from durable_sqlite.errors import LeaseLost, UnknownRun, WrongState
from durable_sqlite.journal import Journal
from tests.conformance.adapters import Lab
from tests.support.journals import (
    asked,
    awaits_answer,
    awaits_end,
    awaits_message,
    begin,
    completed,
    entry,
    failed,
    look,
    new_answer,
    new_message,
    new_question,
    new_run,
    rest,
    wait,
)

Over = Callable[[Callable[[Lab], Coroutine[Any, Any, None]]], None]

_CANCELLED = End(State.CANCELLED, "enough", None, 60)
_PARKED = End(State.PARKED, "diverged", b"{}", 60)


def _told_to_end(seq: int = 1) -> Entry:
    return entry(CANCEL_KEY, seq=seq, kind=Kind.CANCEL)


async def _paused(journal: Journal, run_id: str = "a", *, deadline: int | None = None) -> Hold:
    """A run that was paused while it was suspended."""
    _, hold = await begin(journal, run_id, deadline=deadline)
    await journal.suspend(hold, rest(wait("t", deadline=70)))
    await journal.pause(run_id, asked())
    return hold


# Cancel --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cancel_first", [True, False])
def test_cancel_and_completion_at_once_are_one_order(lab: Over, cancel_first: bool) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        _, hold = await begin(journal)
        if cancel_first:
            told, ended = journal.cancel("a", asked()), journal.end(hold, completed())
            await asyncio.gather(told, ended)
            row = await look(journal)
            assert (row.state, row.reason, row.result) == (State.CANCELLED, "too late", None)
        else:
            ended, told = journal.end(hold, completed()), journal.cancel("a", asked())
            with pytest.raises(WrongState, match="completed"):
                await told
            await ended
            assert (await look(journal)).state is State.COMPLETED

    lab(program)


def test_cancel_beats_pause(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        _, hold = await begin(journal)
        await journal.pause("a", asked(50))
        (row,) = await journal.cancel("a", asked(51))
        assert (row.state, row.cancel, row.pause) == (State.RUNNING, asked(51), None)
        refused = await journal.suspend(hold, rest(at=52, paused=True))
        assert (refused.suspended, refused.cancel, refused.pause) == (False, asked(51), None)
        with pytest.raises(WrongState):
            await journal.pause("a", asked(53))
        await journal.record(hold, _told_to_end())
        assert (await journal.suspend(hold, rest(wait(), at=54))).suspended
        with pytest.raises(WrongState):
            await journal.pause("a", asked(55))

    lab(program)


def test_a_request_that_the_body_was_given_is_not_named_again(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        _, hold = await begin(journal)
        await journal.cancel("a", asked())
        await journal.record(hold, _told_to_end())
        await journal.signal("a", new_message())
        refused = await journal.suspend(hold, rest(awaits_message()))
        assert (refused.suspended, refused.cancel) == (False, None)

    lab(program)


def test_a_paused_run_that_is_cancelled_goes_on_to_its_end(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        await _paused(journal, deadline=900)
        (row,) = await journal.cancel("a", asked(51))
        assert (row.state, row.cancel, row.pause, row.due_at) == (State.PENDING, asked(51), None, None)
        assert [each.row.id for each in await journal.claim(["ship"], 60, 9, suspects=False)] == ["a"]

    lab(program)


def test_a_paused_run_that_never_began_is_cancelled_at_once(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        await journal.start(new_run(), IfExists.ATTACH, drive=False)
        await journal.pause("a", asked(50))
        (row,) = await journal.cancel("a", asked(51))
        assert (row.state, row.reason, row.ended_at, row.pause) == (State.CANCELLED, "too late", 51, None)

    lab(program)


def test_a_run_that_was_left_in_the_middle_before_its_first_outcome_is_driven_to_its_end(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        _, hold = await begin(journal)
        await journal.give_back(hold, 30)
        (row,) = await journal.cancel("a", asked(51))
        assert (row.state, row.cancel) == (State.PENDING, asked(51))  # a step may have begun, and its clean-up is due

    lab(program)


# Terminate -----------------------------------------------------------------------------------------------------------


def test_a_run_that_is_terminated_has_ended_and_every_late_write_is_refused(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal, other = await lab.worker(), await lab.worker()
        started, hold = await begin(journal)
        await journal.record(hold, entry())
        await journal.ask(hold, new_question())
        await journal.cancel("a", asked(50, "first", "ann"))
        await journal.signal("a", new_message())
        (row,) = await other.terminate("a", asked(51, "at once", "bob"))
        assert (row.state, row.reason, row.ended_at, row.result) == (State.CANCELLED, "at once", 51, None)
        assert (row.owner, row.epoch, row.cancel) == (None, 2, asked(51, "at once", "bob"))
        assert await look(journal) == row
        memory = await journal.memory(started.row.no)
        for late in (Hold(hold.run, 1), Hold(hold.run, 2)):
            for refused in (
                journal.record(late, entry("s#2", seq=2)),
                journal.record(late, entry("paid#1", seq=2), [1]),
                journal.expire(late, entry("s#2", seq=2), 60),
                journal.ask(late, new_question("review#2")),
                journal.report(late, Report("late", None, 60)),
                journal.suspend(late, rest(wait())),
                journal.suspend(late, rest(paused=True)),
                journal.end(late, completed()),
                journal.give_back(late, 60),
                journal.reclaim(late, 60),
                journal.signal("a", new_message(), caller=late),
            ):
                with pytest.raises(LeaseLost):
                    await refused
        assert await journal.memory(started.row.no) == memory
        assert memory.questions[0].closed_at == 51
        assert await look(journal) == row

    lab(program)


@pytest.mark.parametrize("terminate_first", [True, False])
def test_terminate_and_completion_at_once_are_one_order(lab: Over, terminate_first: bool) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        _, hold = await begin(journal)
        if terminate_first:
            ended, late = journal.terminate("a", asked()), journal.end(hold, completed())
            with pytest.raises(LeaseLost):
                await late
        else:
            late, ended = journal.end(hold, completed()), journal.terminate("a", asked())
            assert await late == Ended(State.COMPLETED, 0)
            with pytest.raises(WrongState, match="completed"):
                await ended
        await asyncio.gather(ended, return_exceptions=True)
        assert (await look(journal)).state is (State.CANCELLED if terminate_first else State.COMPLETED)

    lab(program)


@pytest.mark.parametrize("end", [failed(keys=["s#1"]), _PARKED])
def test_a_dead_letter_may_be_terminated(lab: Over, end: End) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        _, hold = await begin(journal)
        await journal.end(hold, end)
        (row,) = await journal.terminate("a", asked(70))
        assert (row.state, row.result, row.ended_at, row.failed_keys) == (State.CANCELLED, None, 70, ())
        for refused in (journal.resume("a", Resumption(80)), journal.discard("a", 80)):
            with pytest.raises(WrongState):
                await refused

    lab(program)


@pytest.mark.parametrize("end", [completed(), _CANCELLED])
def test_terminate_pause_and_cancel_say_what_is_wrong(lab: Over, end: End) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        _, hold = await begin(journal)
        for verb in (journal.terminate, journal.pause, journal.cancel):
            with pytest.raises(UnknownRun):
                await verb("nobody", asked())
        await journal.end(hold, end)
        for verb in (journal.terminate, journal.pause, journal.cancel):
            with pytest.raises(WrongState, match=end.state.value) as caught:
                await verb("a", asked())
            assert caught.value.run_id == "a"

    lab(program)


@pytest.mark.parametrize("how", ["pending", "suspended", "paused"])
def test_what_nobody_drives_is_terminated_too(lab: Over, how: str) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        started, hold = await begin(journal, deadline=900)
        await journal.record(hold, entry())
        if how == "pending":
            await journal.give_back(hold, 30)
        else:
            await journal.suspend(hold, rest(wait(deadline=100), awaits_answer()))
        if how == "paused":
            await journal.pause("a", asked(45))
        (row,) = await journal.terminate("a", asked())
        assert (row.state, row.due_at, row.pause, row.epoch) == (State.CANCELLED, None, None, 2)
        assert await journal.waits(started.row.no) == []
        assert await journal.claim(["ship"], 999, 9, suspects=False) == []

    lab(program)


def test_terminating_a_run_wakes_whoever_waits_for_it_or_for_a_descendant(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        started, hold = await begin(journal)
        child = new_run("b", parent=started.row.no)
        await journal.start(child, IfExists.ATTACH, drive=True)
        failing = await journal.start(new_run("c", parent=started.row.no), IfExists.ATTACH, drive=True)
        assert failing.hold is not None
        await journal.end(failing.hold, failed())
        await journal.suspend(hold, rest(awaits_end("b")))
        for run_id, target in (("w1", "a"), ("w2", "b"), ("w3", "c")):
            _, waiter = await begin(journal, run_id)
            assert (await journal.suspend(waiter, rest(awaits_end(target)))).suspended is (target != "c")
        first, second = await journal.terminate("a", asked())
        assert ((first.id, first.state), (second.id, second.state)) == (
            ("a", State.CANCELLED),
            ("b", State.CANCELLED),
        )
        assert (await look(journal, "c")).state is State.FAILED
        assert [(await look(journal, name)).state for name in ("w1", "w2")] == [State.PENDING] * 2

    lab(program)


# Pause ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suspended", [True, False])
def test_what_nobody_drives_is_paused_at_once_and_due_at_its_deadline_only(lab: Over, suspended: bool) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        started, hold = await begin(journal, deadline=890)
        if suspended:
            await journal.suspend(hold, rest(wait(deadline=100)))
        else:
            await journal.give_back(hold, 30)
        (row,) = await journal.pause("a", asked())
        assert (row.state, row.pause, row.due_at, row.updated_at) == (State.PAUSED, asked(), 900, 50)
        assert await look(journal) == row
        assert len(await journal.waits(started.row.no)) == suspended
        assert await journal.claim(["ship"], 899, 9, suspects=False) == []
        assert await journal.next_due(["ship"]) == 900
        assert await journal.backlog() == [("ship", "shop.ship", 1)]
        (claimed,) = await journal.claim(["ship"], 900, 9, suspects=False)
        assert (claimed.row.state, claimed.row.pause) == (State.RUNNING, None)

    lab(program)


def test_a_paused_run_without_a_deadline_is_never_due(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        await _paused(journal)
        assert await journal.next_due(["ship"]) is None
        assert await journal.claim(["ship"], 999, 9, suspects=False) == []

    lab(program)


def test_paused_runs_are_claimed_at_their_deadlines_in_due_order_with_the_others(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        for run_id, deadline in (("p1", 80), ("p2", 50)):
            await _paused(journal, run_id, deadline=deadline)
        _, hold = await begin(journal, "s")
        await journal.suspend(hold, rest(wait(deadline=75)))
        claimed = [await journal.claim(["ship"], 90, 2, suspects=False) for _ in range(2)]
        assert [[each.row.id for each in batch] for batch in claimed] == [["p2", "s"], ["p1"]]

    lab(program)


def test_what_is_driven_is_paused_when_it_comes_to_rest(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        started, hold = await begin(journal, deadline=900)
        (row,) = await journal.pause("a", asked())
        assert (row.state, row.pause, row.updated_at) == (State.RUNNING, asked(), 50)
        await journal.record(hold, entry())
        refused = await journal.suspend(hold, rest(wait("t", deadline=100), at=60))
        assert (refused.suspended, refused.cancel, refused.pause) == (False, None, asked())
        done = await journal.suspend(hold, rest(wait("t", deadline=100), at=61, paused=True))
        assert done.suspended
        row = await look(journal)
        assert (row.state, row.owner, row.due_at, row.updated_at) == (State.PAUSED, None, 910, 61)
        assert (row.pause, row.deaths, row.interrupted) == (asked(), 0, False)
        assert await journal.waits(started.row.no) == [wait("t", deadline=100)]

    lab(program)


@pytest.mark.parametrize("at_rest", [True, False])
def test_a_body_that_was_told_to_end_is_not_held_up_by_a_pause(lab: Over, at_rest: bool) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        _, hold = await begin(journal, deadline=10)
        await journal.pause("a", asked())
        await journal.record(hold, _told_to_end())
        assert (await look(journal)).pause is None
        if at_rest:
            assert (await journal.suspend(hold, rest(wait("t", deadline=100)))).suspended
        with pytest.raises(WrongState):
            await journal.pause("a", asked())
        assert (await look(journal)).pause is None

    lab(program)


def test_a_run_that_comes_to_rest_paused_looks_for_no_mail(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        _, hold = await begin(journal)
        await journal.ask(hold, new_question())
        await journal.signal("a", new_message())
        await journal.answer("a", new_answer())
        await journal.pause("a", asked())
        waits = (awaits_message(), awaits_answer())
        assert (await journal.suspend(hold, rest(*waits, paused=True))).suspended

    lab(program)


@pytest.mark.parametrize("resume_first", [True, False])
def test_a_resume_in_the_moment_of_coming_to_rest_is_not_lost(lab: Over, resume_first: bool) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        _, hold = await begin(journal)
        await journal.pause("a", asked())
        if resume_first:
            resumed, rested = journal.resume("a", Resumption(60)), journal.suspend(hold, rest(paused=True))
            assert (await resumed).row.pause is None
            refused = await rested
            assert (refused.suspended, refused.pause) == (False, None)
            assert (await look(journal)).state is State.RUNNING
        else:
            rested, resumed = journal.suspend(hold, rest(paused=True)), journal.resume("a", Resumption(60))
            assert (await rested).suspended
            row = (await resumed).row
            assert (row.state, row.pause, row.due_at, row.updated_at) == (State.PENDING, None, None, 60)

    lab(program)


@pytest.mark.parametrize("pause_first", [True, False])
def test_a_pause_in_the_moment_of_coming_to_rest_is_not_lost(lab: Over, pause_first: bool) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        _, hold = await begin(journal)
        if pause_first:
            told, rested = journal.pause("a", asked()), journal.suspend(hold, rest(wait()))
            assert (await rested).pause == asked()
            assert (await told)[0].state is State.RUNNING
        else:
            rested, told = journal.suspend(hold, rest(wait())), journal.pause("a", asked())
            assert (await rested).suspended
            assert (await told)[0].state is State.PAUSED

    lab(program)


@pytest.mark.parametrize("pause_first", [True, False])
def test_a_pause_in_the_moment_of_taking_a_resident_run_again_is_not_lost(lab: Over, pause_first: bool) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        _, hold = await begin(journal, deadline=900)
        await journal.suspend(hold, rest(wait()))
        if pause_first:
            told, taken = journal.pause("a", asked()), journal.reclaim(hold, 60)
        else:
            taken, told = journal.reclaim(hold, 60), journal.pause("a", asked())
        await asyncio.gather(told, taken)
        row = await look(journal)
        assert (row.state, row.pause, row.epoch, row.due_at) == (State.RUNNING, asked(), 2, None)
        assert not (await journal.suspend(Hold(hold.run, 2), rest(wait()))).suspended

    lab(program)


def test_a_paused_run_that_is_taken_again_at_its_deadline_is_paused_no_longer(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        hold = await _paused(journal, deadline=90)
        await journal.reclaim(hold, 100)
        row = await look(journal)
        assert (row.state, row.pause, row.epoch) == (State.RUNNING, None, 2)

    lab(program)


def test_the_first_request_to_pause_stays(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        await begin(journal)
        await journal.pause("a", asked(50, "first", "ann"))
        (row,) = await journal.pause("a", asked(51, "second", "bob"))
        assert (row.pause, row.updated_at) == (asked(50, "first", "ann"), 50)
        await _paused(journal, "b")
        (row,) = await journal.pause("b", asked(70, "second", "bob"))
        assert (row.pause, row.state) == (asked(), State.PAUSED)

    lab(program)


@pytest.mark.parametrize("how", ["given back", "closed", "taken over"])
def test_a_run_that_is_to_be_paused_is_paused_when_its_worker_lets_go_of_it(lab: Over, how: str) -> None:
    async def program(lab: Lab) -> None:
        journal, other = await lab.worker(), await lab.worker()
        _, hold = await begin(journal, deadline=890)
        await other.pause("a", asked())
        if how == "given back":
            await journal.give_back(hold, 60)
        elif how == "closed":
            await journal.close(60)
        else:
            await lab.kill(journal)
            dead = [each.no for each in await other.workers()]
            freed = await other.take_over(dead, 9, b"{}", 60)
            assert [(row.state, row.deaths) for row in freed] == [(State.PAUSED, 1)]
        row = await look(other)
        assert (row.state, row.owner, row.pause, row.due_at) == (State.PAUSED, None, asked(), 900)
        assert (row.interrupted, row.updated_at) == (True, 60)
        assert await other.claim(["ship"], 899, 9, suspects=False) == []

    lab(program)


@pytest.mark.parametrize("end", [completed(), failed(), _PARKED])
def test_a_run_that_ends_is_not_to_be_paused_any_more(lab: Over, end: End) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        _, hold = await begin(journal)
        await journal.pause("a", asked())
        await journal.end(hold, end)
        row = await look(journal)
        assert (row.state, row.pause) == (end.state, None)
        if end.state is not State.COMPLETED:
            assert (await journal.resume("a", Resumption(70))).row.state is State.PENDING

    lab(program)


# Going on ------------------------------------------------------------------------------------------------------------


def test_a_paused_run_goes_on_with_its_paused_descendants(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        started, _ = await begin(journal)
        free = new_run("d", parent=started.row.no, detached=True)
        for new in (new_run("b", parent=started.row.no), new_run("c", parent=started.row.no), free):
            await journal.start(new, IfExists.ATTACH, drive=new.id == "b")
        await journal.pause("c", asked(49))
        await journal.pause("d", asked(49))
        await journal.pause("a", asked(50))
        resumed = await journal.resume("a", Resumption(60))
        assert (resumed.row.id, resumed.row.state, resumed.row.pause) == ("a", State.RUNNING, None)
        others = {row.id: (row.state, row.pause, row.updated_at) for row in resumed.others}
        assert others == {"b": (State.RUNNING, None, 60), "c": (State.PENDING, None, 60)}
        assert resumed.forgotten == ()
        assert (await look(journal, "d")).state is State.PAUSED

    lab(program)


def test_a_paused_run_goes_on_as_it_is_but_for_changes_of_the_code_that_a_person_accepts(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        hold = await _paused(journal)
        await journal.reclaim(hold, 55)
        hold = Hold(hold.run, 2)
        await journal.record(hold, entry())
        assert (await journal.suspend(hold, rest(paused=True))).suspended
        for how in (Resumption(60, retry=("s#1",)), Resumption(60, input=(b"{}", b"d"))):
            with pytest.raises(WrongState):
                await journal.resume("a", how)
        assert (await look(journal)).state is State.PAUSED
        row = (await journal.resume("a", Resumption(60, accept_changes=True))).row
        assert (row.state, row.accept_changes) == (State.PENDING, True)
        assert await journal.entries(hold.run) == [entry()]

    lab(program)


def test_of_two_resumes_of_a_paused_run_one_wins(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal, other = await lab.worker(), await lab.worker()
        await _paused(journal, deadline=900)
        done = await asyncio.gather(
            journal.resume("a", Resumption(60)), other.resume("a", Resumption(60)), return_exceptions=True
        )
        assert sorted(isinstance(each, WrongState) for each in done) == [False, True]
        row = await look(journal)
        assert (row.state, row.pause, row.due_at) == (State.PENDING, None, None)

    lab(program)


def test_a_resident_body_goes_on_after_its_run_was_paused_and_resumed(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        hold = await _paused(journal)
        await journal.resume("a", Resumption(60))
        await journal.reclaim(hold, 61)
        assert (await look(journal)).state is State.RUNNING

    lab(program)

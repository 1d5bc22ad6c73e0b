"""What every journal promises to those who start, cancel and resume runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

import pytest

from durable_sqlite._records import CANCEL_KEY, End, Hold, IfExists, Kind, NewRun, Resumption, RunQuery, State
from durable_sqlite.errors import EngineClosed, LeaseLost, RunConflict, RunExists, UnknownRun, WrongState
from tests.conformance.adapters import Lab
from tests.support.journals import asked, awaits_message, begin, entry, new_message, new_run, rest, wait

Over = Callable[[Callable[[Lab], Coroutine[Any, Any, None]]], None]


def test_a_started_run_is_what_was_asked_for(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        started = await journal.start(new_run(tags={"customer": "7", "b": ""}), IfExists.ATTACH, drive=False)
        run = started.row
        assert (started.created, started.hold) == (True, None)
        assert (run.id, run.uid, run.workflow, run.origin, run.version) == ("a", "uid of a", "ship", "shop.ship", "1")
        assert (run.input, run.input_digest, run.result, run.reason) == (b'{"n":1}', b"digest", None, "")
        assert (run.state, run.owner, run.epoch, run.deaths) == (State.PENDING, None, 0, 0)
        assert (run.created_at, run.updated_at, run.ended_at, run.due_at) == (10, 10, None, None)
        assert (run.cancel, run.accept_changes, run.tags) == (None, False, {"customer": "7", "b": ""})
        assert await journal.run("a") == run

    lab(program)


def test_a_run_that_is_driven_from_the_start_is_held_by_its_starter(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        started, hold = await begin(journal)
        assert hold == Hold(started.row.no, 1)
        assert (started.row.state, started.row.epoch) == (State.RUNNING, 1)
        assert await journal.claim(["ship"], 99, 9, suspects=False) == []

    lab(program)


def test_the_same_id_workflow_and_input_attach(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        started, hold = await begin(journal)
        again = await journal.start(new_run(uid="other", at=11), IfExists.ATTACH, drive=True)
        assert (again.created, again.hold, again.row) == (False, None, started.row)
        await journal.end(hold, End(State.COMPLETED, "", b"null", 20))
        ended = await journal.start(new_run(), IfExists.ATTACH, drive=True)
        assert (ended.created, ended.hold, ended.row.state) == (False, None, State.COMPLETED)

    lab(program)


@pytest.mark.parametrize("other", [new_run(workflow="sail"), new_run(digest=b"another")])
def test_the_same_id_with_another_workflow_or_input_is_a_conflict(lab: Over, other: NewRun) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        started, _ = await begin(journal)
        with pytest.raises(RunConflict) as caught:
            await journal.start(other, IfExists.ATTACH, drive=True)
        assert caught.value.run_id == "a"
        assert await journal.run("a") == started.row

    lab(program)


def test_fail_refuses_an_id_that_is_taken(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        assert (await journal.start(new_run(), IfExists.FAIL, drive=False)).created
        with pytest.raises(RunExists):
            await journal.start(new_run(), IfExists.FAIL, drive=False)
        assert await journal.count(RunQuery()) == 1

    lab(program)


def test_replace_takes_the_place_of_a_run_that_has_ended_and_of_nothing_else(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        assert (await journal.start(new_run("fresh"), IfExists.REPLACE, drive=False)).created
        first, hold = await begin(journal)
        with pytest.raises(RunConflict):
            await journal.start(new_run(digest=b"2"), IfExists.REPLACE, drive=True)
        await journal.record(hold, entry())
        await journal.end(hold, End(State.FAILED, "error", b"{}", 20))
        second = await journal.start(new_run(digest=b"2", uid="two", tags={"t": "2"}), IfExists.REPLACE, drive=True)
        assert second.created
        assert second.row.no > first.row.no
        assert (second.row.uid, second.row.tags, second.row.result) == ("two", {"t": "2"}, None)
        assert await journal.entries(first.row.no) == []
        assert await journal.entries(second.row.no) == []
        with pytest.raises(LeaseLost):
            await journal.record(hold, entry("s#2", seq=2))

    lab(program)


def test_a_run_that_is_parked_is_not_replaced_since_whoever_waits_for_it_still_waits(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        _, hold = await begin(journal)
        await journal.end(hold, End(State.PARKED, "error", b"{}", 20))
        with pytest.raises(RunConflict):
            await journal.start(new_run(digest=b"2", uid="two"), IfExists.REPLACE, drive=True)
        row = await journal.run("a")
        assert row is not None
        assert row.state is State.PARKED

    lab(program)


def test_the_number_of_a_replaced_run_is_never_used_again(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        numbers: list[int] = []
        for _ in range(3):
            started = await journal.start(new_run(), IfExists.REPLACE, drive=True)
            assert started.hold is not None
            await journal.end(started.hold, End(State.CANCELLED, "", None, 20))
            numbers.append(started.row.no)
        assert numbers == sorted(set(numbers))

    lab(program)


def test_twenty_starts_of_one_id_at_once_are_one_run(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        workers = [await lab.worker() for _ in range(4)]
        starts = [worker.start(new_run(), IfExists.ATTACH, drive=True) for worker in workers for _ in range(5)]
        done = await asyncio.gather(*starts)
        assert sum(each.created for each in done) == 1
        assert sum(each.hold is not None for each in done) == 1
        assert {each.row.no for each in done} == {done[0].row.no}

    lab(program)


def test_a_run_that_never_began_is_cancelled_at_once(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        await journal.start(new_run(), IfExists.ATTACH, drive=False)
        (run,) = await journal.cancel("a", asked())
        assert (run.state, run.reason, run.ended_at, run.result) == (State.CANCELLED, "too late", 50, None)
        assert run.cancel == asked()
        assert await journal.claim(["ship"], 99, 9, suspects=False) == []

    lab(program)


def test_a_run_that_began_gets_a_request_and_goes_on(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        _, hold = await begin(journal)
        (run,) = await journal.cancel("a", asked())
        assert (run.state, run.cancel, run.updated_at) == (State.RUNNING, asked(), 50)
        await journal.record(hold, entry())
        await journal.give_back(hold, 55)
        (claimed,) = await journal.claim(["ship"], 60, 9, suspects=False)
        assert claimed.row.cancel == asked()

    lab(program)


def test_a_pending_run_with_a_past_is_not_ended_by_cancel(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        _, hold = await begin(journal)
        await journal.record(hold, entry())
        await journal.give_back(hold, 20)
        (run,) = await journal.cancel("a", asked())
        assert run.state is State.PENDING

    lab(program)


def test_a_run_that_has_waited_for_something_has_a_past_though_nothing_is_recorded(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        _, hold = await begin(journal)
        await journal.suspend(hold, rest(awaits_message()))
        assert (await journal.signal("a", new_message())).row.state is State.PENDING
        (run,) = await journal.cancel("a", asked(60))
        assert (run.state, run.cancel) == (State.PENDING, asked(60))

    lab(program)


def test_the_first_request_to_cancel_stays(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        await begin(journal)
        await journal.cancel("a", asked(50, "first", "ann"))
        (run,) = await journal.cancel("a", asked(51, "second", "bob"))
        assert run.cancel == asked(50, "first", "ann")
        assert run.updated_at == 50

    lab(program)


def test_a_request_to_cancel_wakes_a_suspended_run(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        _, hold = await begin(journal)
        await journal.suspend(hold, rest(wait(deadline=9_000)))
        (run,) = await journal.cancel("a", asked())
        assert (run.state, run.due_at) == (State.PENDING, None)
        await journal.reclaim(hold, 60)
        assert (await journal.run("a") or run).epoch == 2

    lab(program)


def test_cancel_and_resume_say_what_is_wrong(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        _, hold = await begin(journal)
        with pytest.raises(UnknownRun):
            await journal.cancel("b", asked())
        with pytest.raises(UnknownRun):
            await journal.resume("b", Resumption(1, accept_changes=False))
        with pytest.raises(WrongState, match="running"):
            await journal.resume("a", Resumption(1, accept_changes=False))
        await journal.end(hold, End(State.COMPLETED, "", b"1", 20))
        with pytest.raises(WrongState, match="completed"):
            await journal.cancel("a", asked())
        with pytest.raises(WrongState, match="completed"):
            await journal.resume("a", Resumption(1, accept_changes=False))

    lab(program)


def test_a_parked_run_that_is_resumed_is_as_good_as_new(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        _, hold = await begin(journal)
        await journal.record(hold, entry())
        await journal.end(hold, End(State.PARKED, "diverged", b"{}", 20))
        with pytest.raises(WrongState, match="diverged"):
            await journal.cancel("a", asked())
        run = (await journal.resume("a", Resumption(30, accept_changes=True))).row
        assert (run.state, run.reason, run.result, run.ended_at) == (State.PENDING, "", None, None)
        assert (run.accept_changes, run.deaths, run.updated_at) == (True, 0, 30)
        (claimed,) = await journal.claim(["ship"], 40, 9, suspects=False)
        assert await journal.entries(claimed.row.no) == [entry()]
        await journal.settle_changes(claimed.hold)
        now = await journal.run("a")
        assert now is not None
        assert not now.accept_changes

    lab(program)


def test_a_recorded_cancel_is_an_entry_like_any_other(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        started, hold = await begin(journal)
        await journal.cancel("a", asked())
        await journal.record(hold, entry(CANCEL_KEY, kind=Kind.CANCEL))
        assert [each.key for each in await journal.entries(started.row.no)] == [CANCEL_KEY]

    lab(program)


def test_a_journal_that_was_closed_says_so(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        await journal.close(9)
        await journal.close(9)
        with pytest.raises(EngineClosed):
            await journal.start(new_run(), IfExists.ATTACH, drive=False)
        with pytest.raises(EngineClosed):
            await journal.run("a")

    lab(program)


def test_lists_are_filtered_sorted_and_paged(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        for number in range(6):
            tags = {"odd": str(number % 2), "all": "x"}
            new = new_run(f"r{number}", workflow="ship" if number < 4 else "sail", at=number * 10, tags=tags)
            await journal.start(new, IfExists.ATTACH, drive=False)
        await journal.cancel("r1", asked())
        everything = RunQuery()

        async def ids(**changes: Any) -> list[str]:
            query = replace(everything, **changes)
            found = [run.id for run in await journal.runs(query)]
            assert await journal.count(query) == len(await journal.runs(replace(query, limit=None)))
            return found

        assert await ids() == ["r5", "r4", "r3", "r2", "r1", "r0"]
        assert await ids(newest_first=False, limit=2) == ["r0", "r1"]
        second = (await journal.runs(replace(everything, limit=2)))[-1].no
        assert await ids(limit=2, after=second) == ["r3", "r2"]
        third = (await journal.runs(replace(everything, newest_first=False, limit=3)))[-1].no
        assert await ids(newest_first=False, after=third) == ["r3", "r4", "r5"]
        assert await ids(workflow="sail") == ["r5", "r4"]
        assert await ids(states=(State.CANCELLED,)) == ["r1"]
        assert await ids(states=(State.CANCELLED, State.PENDING), workflow="ship") == ["r3", "r2", "r1", "r0"]
        assert await ids(tags=(("odd", "1"),)) == ["r5", "r3", "r1"]
        assert await ids(tags=(("odd", "1"), ("all", "x")), workflow="sail") == ["r5"]
        assert await ids(tags=(("odd", "1"), ("all", "y"))) == []
        assert await ids(created_from=20, created_before=40) == ["r3", "r2"]
        assert await ids(limit=0) == []

    lab(program)

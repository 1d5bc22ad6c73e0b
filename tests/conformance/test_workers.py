"""What every journal promises to the worker that drives runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

import pytest

from durable_sqlite._records import (
    CANCEL_KEY,
    End,
    Ended,
    FailedAttempt,
    Hold,
    IfExists,
    Intent,
    Kind,
    Report,
    State,
    WorkerRow,
)
from durable_sqlite.errors import JournalError, LeaseLost
from durable_sqlite.journal import Journal
from tests.conformance.adapters import Lab
from tests.support.journals import (
    asked,
    begin,
    completed,
    entry,
    look,
    new_answer,
    new_message,
    new_question,
    new_run,
    rest,
    wait,
)

Over = Callable[[Callable[[Lab], Coroutine[Any, Any, None]]], None]


async def _state(journal: Journal, run_id: str = "a") -> State:
    run = await journal.run(run_id)
    assert run is not None
    return run.state


def test_entries_come_back_as_they_were_recorded_in_their_order(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        started, hold = await begin(journal)
        two = entry("z#1", seq=1, payload=b"\x00\xff")
        one = replace(entry("a#1", seq=2, kind=Kind.SLEEP), digest=b"", payload=b"", attempts=1)
        await asyncio.gather(journal.record(hold, two), journal.record(hold, one))
        assert await journal.entries(started.row.no) == [two, one]

    lab(program)


def test_a_second_outcome_for_a_key_is_refused_by_the_journal_itself(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        started, hold = await begin(journal)
        await journal.record(hold, entry())
        neighbours = [journal.record(hold, entry(f"n#{seq}", seq=seq)) for seq in (2, 3)]
        again = journal.record(hold, entry(seq=4, payload=b"2"))
        neighbours.append(journal.record(hold, entry("n#5", seq=5)))
        with pytest.raises((JournalError, AssertionError)) as caught:
            await again
        assert not isinstance(caught.value, LeaseLost)
        await asyncio.gather(*neighbours)
        assert [each.seq for each in await journal.entries(started.row.no)] == [1, 2, 3, 5]
        _forgive(journal)

    lab(program)


def _forgive(journal: Journal) -> None:
    """The violation was the test's own."""
    disk = getattr(journal, "disk", None)
    if disk is not None:
        disk.violations.clear()


def test_every_write_about_a_run_is_refused_without_its_hold(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal, other = await lab.worker(), await lab.worker()
        started, hold = await begin(journal)
        await journal.record(hold, entry())
        child = new_run("b", parent=started.row.no)
        await journal.start(child, IfExists.ATTACH, drive=False, message=new_message())
        await journal.signal("a", new_message())
        for key in ("review#1", "review#2"):
            await journal.ask(hold, new_question(key))
        await journal.answer("a", new_answer("review#2"))
        before, memory, others = await look(journal), await journal.memory(hold.run), await look(journal, "b")
        for writer, stale in ((journal, Hold(hold.run, 2)), (journal, Hold(hold.run, 0)), (other, hold)):
            refusals: list[asyncio.Future[Any]] = [
                writer.record(stale, entry("s#2", seq=2)),
                writer.amend(stale, [("s#1", "t", b"")], []),
                writer.settle_changes(stale),
                writer.suspend(stale, rest(wait())),
                writer.end(stale, End(State.COMPLETED, "", b"1", 40)),
                writer.give_back(stale, 40),
                writer.leave(stale, 40, interrupted=False),
                writer.reclaim(stale, 40),
                writer.expire(stale, entry("s#2", seq=2), 40),
                writer.ask(stale, new_question()),
                writer.withdraw(stale, ["review#1"], 40),
                writer.set_aside(stale, 1, b"why"),
                writer.reopen(stale, "review#2", b"true", b"why"),
                writer.abandon(stale, ["b"], asked()),
                writer.report(stale, Report("late", None, 40)),
                writer.intend(stale, Intent("s#2", "s", b"", 0, 40)),
                writer.fail(stale, FailedAttempt("s#2", 1, 10, 20, 30, b"e")),
            ]
            for refused in refusals:
                with pytest.raises(LeaseLost):
                    await refused
        with pytest.raises(LeaseLost):
            await journal.record(Hold(hold.run + 1_000, 1), entry("s#2", seq=2))
        assert (await look(journal), await look(journal, "b")) == (before, others)
        assert await journal.memory(started.row.no) == memory

    lab(program)


def test_a_run_that_has_ended_takes_no_late_write(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        _, hold = await begin(journal)
        first = journal.end(hold, End(State.COMPLETED, "", b"1", 20))
        late: list[asyncio.Future[Any]] = [
            journal.end(hold, End(State.FAILED, "error", b"{}", 21)),
            journal.record(hold, entry()),
        ]
        await first
        for each in late:
            with pytest.raises(LeaseLost):
                await each
        run = await journal.run("a")
        assert run is not None
        assert (run.state, run.result, run.ended_at, run.owner) == (State.COMPLETED, b"1", 20, None)

    lab(program)


@pytest.mark.parametrize("state", [State.COMPLETED, State.FAILED])
def test_a_request_to_cancel_that_came_first_wins_over_an_end_that_had_not_heard_of_it(lab: Over, state: State) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        _, hold = await begin(journal)
        await journal.cancel("a", asked())
        await journal.end(hold, End(state, "error", b"1", 60))
        run = await journal.run("a")
        assert run is not None
        assert (run.state, run.reason, run.result, run.ended_at) == (State.CANCELLED, "too late", None, 60)

    lab(program)


def test_an_end_that_has_heard_of_the_request_stands_and_so_does_a_park(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        for name, end in (("a", End(State.FAILED, "error", b"1", 60)), ("b", End(State.PARKED, "diverged", b"2", 60))):
            _, hold = await begin(journal, name)
            await journal.cancel(name, asked())
            if end.state is State.FAILED:
                await journal.record(hold, entry(CANCEL_KEY, kind=Kind.CANCEL))
            await journal.end(hold, end)
            run = await journal.run(name)
            assert run is not None
            assert (run.state, run.reason, run.result) == (end.state, end.reason, end.result)

    lab(program)


def test_claims_come_in_due_order_and_in_bounded_batches(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        for number, due in enumerate((70, 50, 60, 400)):
            _, hold = await begin(journal, f"t{number}", at=1)
            await journal.suspend(hold, rest(wait("x", deadline=due), wait("y", deadline=due + 9), wait("z"), at=5))
        _, never = await begin(journal, "never", at=1)
        await journal.suspend(never, rest(wait(), at=5))
        for number, at in enumerate((65, 55)):
            await journal.start(new_run(f"p{number}", at=at), IfExists.ATTACH, drive=False)
        await journal.start(new_run("foreign", workflow="other", at=1), IfExists.ATTACH, drive=False)
        assert await journal.next_due(["ship", "other"]) == 50
        assert await journal.next_due(["other"]) is None
        first = await journal.claim(["ship"], 100, 2, suspects=False)
        second = await journal.claim(["nobody", "ship"], 100, 9, suspects=False)
        assert [each.row.id for each in first] == ["t1", "p1"]
        assert [each.row.id for each in second] == ["t2", "p0", "t0"]
        assert await journal.claim(["ship"], 100, 9, suspects=False) == []
        assert await journal.next_due(["ship"]) == 400
        for each in first + second:
            assert each.hold == Hold(each.row.no, each.row.epoch)
            assert (each.row.state, each.row.due_at, each.row.updated_at) == (State.RUNNING, None, 100)
            await journal.record(each.hold, entry())

    lab(program)


def test_a_timer_is_never_claimed_early(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        _, hold = await begin(journal)
        await journal.suspend(hold, rest(wait(deadline=100)))
        assert await journal.claim(["ship"], 99, 9, suspects=False) == []
        assert len(await journal.claim(["ship"], 100, 9, suspects=False)) == 1

    lab(program)


def test_a_look_tells_whether_there_is_a_run_to_claim(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        assert not await journal.ready(["ship"], 999)
        _, sleeping = await begin(journal, "sleeping")
        _, paused = await begin(journal, "paused", deadline=190)
        await journal.suspend(sleeping, rest(wait(deadline=300)))
        await journal.suspend(paused, rest(wait(deadline=100)))
        await journal.pause("paused", asked())
        assert [await journal.ready(["sail", "ship"], now) for now in (199, 200)] == [False, True]
        assert [each.row.id for each in await journal.claim(["ship"], 250, 9, suspects=False)] == ["paused"]
        assert [await journal.ready(["ship"], now) for now in (299, 300)] == [False, True]
        await journal.start(new_run("pending", workflow="sail"), IfExists.ATTACH, drive=False)
        assert [await journal.ready(names, 1) for names in (["ship"], ["ship", "sail"], [])] == [False, True, False]

    lab(program)


def test_of_two_workers_that_claim_one_run_one_gets_it(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal, other = await lab.worker(), await lab.worker()
        for number in range(9):
            await journal.start(new_run(str(number)), IfExists.ATTACH, drive=False)
        claims = [each.claim(["ship"], 20, 4, suspects=False) for _ in range(2) for each in (journal, other)]
        taken = [claimed.row.id for batch in await asyncio.gather(*claims) for claimed in batch]
        assert sorted(taken) == [str(number) for number in range(9)]

    lab(program)


def test_a_suspended_run_belongs_to_nobody_and_lists_what_it_waits_for(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        started, hold = await begin(journal)
        waits = [wait("b", deadline=300), wait("a", since=41, deadline=200)]
        done = await journal.suspend(hold, rest(*waits, at=42))
        assert (done.suspended, done.cancel) == (True, None)
        run = await journal.run("a")
        assert run is not None
        assert (run.state, run.owner, run.due_at, run.updated_at) == (State.SUSPENDED, None, 200, 42)
        assert await journal.waits(started.row.no) == waits
        with pytest.raises(LeaseLost):
            await journal.record(hold, entry())

    lab(program)


def test_suspending_again_writes_the_difference_of_the_waits_and_an_end_clears_them(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        started, hold = await begin(journal)
        await journal.suspend(hold, rest(wait("a", deadline=50), at=42))
        await journal.reclaim(hold, 50)
        assert await journal.waits(started.row.no) == [wait("a", deadline=50)]
        hold = Hold(hold.run, hold.epoch + 1)
        await journal.suspend(hold, rest(wait("b"), at=52, closed=["a"]))
        run = await journal.run("a")
        assert run is not None
        assert run.due_at is None
        assert await journal.waits(started.row.no) == [wait("b")]
        await journal.reclaim(hold, 60)
        await journal.end(Hold(hold.run, 3), End(State.COMPLETED, "", b"1", 70))
        assert await journal.waits(started.row.no) == []

    lab(program)


def test_news_that_came_while_suspending_forbids_it(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        started, hold = await begin(journal)
        request, refused = journal.cancel("a", asked()), journal.suspend(hold, rest(wait(), at=60))
        await request
        assert (await refused).cancel == asked()
        assert not (await refused).suspended
        assert await _state(journal) is State.RUNNING
        assert await journal.waits(started.row.no) == []
        await journal.record(hold, entry(CANCEL_KEY, kind=Kind.CANCEL))
        assert (await journal.suspend(hold, rest(wait(), at=70))).suspended

    lab(program)


def test_a_resident_body_loses_its_run_once_somebody_else_has_driven_it(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal, other = await lab.worker(), await lab.worker()
        _, hold = await begin(journal)
        await journal.suspend(hold, rest(wait(deadline=50)))
        (claimed,) = await other.claim(["ship"], 60, 9, suspects=False)
        await other.suspend(claimed.hold, rest(wait(deadline=90), at=70))
        with pytest.raises(LeaseLost):
            await journal.reclaim(hold, 80)
        assert await _state(journal) is State.SUSPENDED

    lab(program)


def test_a_person_may_have_entries_rewritten(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        started, hold = await begin(journal)
        for seq in (1, 2, 3):
            await journal.record(hold, entry(f"s#{seq}", seq=seq))
        await journal.amend(hold, [("s#1", "t", b"new"), ("unknown", "t", b"")], ["s#3", "unknown"])
        one, two, three = await journal.entries(started.row.no)
        assert one == replace(entry("s#1", seq=1), name="t", digest=b"new")
        assert two == entry("s#2", seq=2)
        assert three == replace(entry("s#3", seq=3), removed=True)

    lab(program)


def test_an_orderly_close_gives_runs_back_without_a_death(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal, other = await lab.worker(), await lab.worker()
        _, hold = await begin(journal)
        assert [each.name for each in await other.workers()] == ["worker-1"]
        late = journal.record(hold, entry())
        await journal.close(80)
        await late
        run = await other.run("a")
        assert run is not None
        assert (run.state, run.owner, run.deaths, run.updated_at) == (State.PENDING, None, 0, 80)
        assert await other.workers() == []
        assert [each.row.id for each in await other.claim(["ship"], 90, 9, suspects=False)] == ["a"]

    lab(program)


def test_the_workflows_that_a_process_does_not_know_are_found_among_however_many_runs(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        assert await journal.strangers([]) == []
        for name, workflow in (("a", "ship"), ("b", "ship"), ("c", "sail"), ("d", "row"), ("e", "sail")):
            await journal.start(new_run(name, workflow=workflow, origin=f"m:{workflow}"), IfExists.ATTACH, drive=False)
        _, sleeping = await begin(journal, "f", workflow="dive")
        await journal.suspend(sleeping, rest(wait(deadline=9), at=1))
        await begin(journal, "g", workflow="fly")  # somebody drives it, so it is known there
        _, over = await begin(journal, "h", workflow="walk")
        await journal.end(over, completed())
        assert await journal.strangers(["sail", "other"]) == [
            ("dive", "shop.ship"),
            ("row", "m:row"),
            ("ship", "m:ship"),
        ]
        assert await journal.strangers(["sail", "ship", "dive", "row"]) == []

    lab(program)


def test_a_worker_that_begins_anew_gives_back_what_it_holds_and_is_another_one(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal, other = await lab.worker(), await lab.worker()
        _, hold = await begin(journal)
        (before,) = await other.workers()
        assert (before.name, before.holds) == ("worker-1", True)
        await journal.rejoin("anew", 80)
        run = await other.run("a")
        assert run is not None
        assert (run.state, run.owner, run.deaths, run.updated_at) == (State.PENDING, None, 0, 80)
        (after,) = await other.workers()
        assert (after.name, after.holds, after.no > before.no) == ("anew", False, True)
        with pytest.raises(LeaseLost):
            await journal.record(hold, entry())
        (claimed,) = await journal.claim(["ship"], 90, 9, suspects=False)
        await journal.record(claimed.hold, entry())
        (after,) = await other.workers()
        assert after.holds

    lab(program)


def test_a_worker_that_was_struck_off_begins_anew_and_drives_again(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        zombie, other = await lab.worker(), await lab.worker()
        _, lost = await begin(zombie)
        await other.take_over([each.no for each in await other.workers()], 9, b"{}", 30)
        (theirs,) = await other.claim(["ship"], 40, 9, suspects=False)
        await zombie.start(new_run("b"), IfExists.ATTACH, drive=False)
        await zombie.rejoin("anew", 50)
        assert [each.row.id for each in await zombie.claim(["ship"], 60, 9, suspects=False)] == ["b"]
        with pytest.raises(LeaseLost):
            await zombie.record(lost, entry())
        await other.record(theirs.hold, entry())

    lab(program)


def test_a_worker_that_has_moved_since_is_not_taken_over(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal, other = await lab.worker(), await lab.worker()
        _, hold = await begin(journal)
        (seen,) = await other.workers()
        await journal.record(hold, entry())
        assert await other.take_over([seen.no], 9, b"{}", 30, if_still={seen.no: seen.moved}) == []
        await journal.record(hold, entry("s#2", seq=2))
        (seen,) = await other.sound()
        assert seen.holds
        (freed,) = await other.take_over([seen.no], 9, b"{}", 30, if_still={seen.no: seen.moved})
        assert freed.id == "a"
        assert await other.take_over([seen.no], 9, b"{}", 30, if_still={seen.no: seen.moved}) == []

    lab(program)


def test_a_long_queue_of_one_workflow_does_not_hold_up_the_others(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        for number in range(8):
            await journal.start(new_run(f"a{number}", workflow="ship", at=number), IfExists.ATTACH, drive=False)
        _, hold = await begin(journal, "b0", workflow="sail")
        await journal.suspend(hold, rest(wait(deadline=20), at=15))
        await journal.start(new_run("b1", workflow="sail", at=21), IfExists.ATTACH, drive=False)
        await journal.start(new_run("c0", workflow="row", at=22), IfExists.ATTACH, drive=False)
        names = ["ship", "sail", "row"]
        claims = [await journal.claim(names, 30, 4, suspects=False) for _ in range(4)]
        assert [[each.row.id for each in claimed] for claimed in claims] == [
            ["a0", "a1", "b0", "c0"],
            ["a2", "a3", "a4", "b1"],
            ["a5", "a6", "a7"],
            [],
        ]

    lab(program)


def test_each_write_of_a_worker_moves_its_counters(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal, other = await lab.worker(), await lab.worker()
        seen = [each.moved for each in await other.workers()]
        for _ in range(3):
            await journal.sound()
            moved = [each.moved for each in await other.workers()]
            assert moved > seen
            seen = moved

    lab(program)


def test_the_backlog_counts_what_waits_to_be_driven_by_workflow_and_origin(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        for name, workflow, origin in (("a", "ship", "m"), ("b", "ship", "m"), ("c", "ship", "n"), ("d", "sail", "m")):
            await journal.start(new_run(name, workflow=workflow, origin=origin), IfExists.ATTACH, drive=False)
        _, sleeping = await begin(journal, "e")
        await journal.suspend(sleeping, rest(wait(deadline=9), at=1))
        _, idle = await begin(journal, "f")
        await journal.suspend(idle, rest(wait(), at=1))
        await begin(journal, "g")
        assert await journal.backlog() == [
            ("sail", "m", 1),
            ("ship", "m", 2),
            ("ship", "n", 1),
            ("ship", "shop.ship", 2),
        ]

    lab(program)


def test_workers_list_the_others(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        first, second = await lab.worker(), await lab.worker()
        (one,) = await second.workers()
        (two,) = await first.workers()
        assert (one.name, one.started_at, two.name) == ("worker-1", 1, "worker-2")
        assert isinstance(one, WorkerRow)
        assert one.no != two.no
        assert one.pid > 0

    lab(program)


def test_the_order_of_calls_is_the_order_of_writes(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        started = journal.start(new_run(), IfExists.ATTACH, drive=True)
        guess = Hold(1, 1)
        writes = [journal.record(guess, entry(f"s#{seq}", seq=seq)) for seq in range(1, 50)]
        end = journal.end(guess, End(State.COMPLETED, "", b"1", 90))
        late = journal.record(guess, entry("late", seq=99))
        assert (await started).row.no == guess.run
        await asyncio.gather(*writes)
        assert await end == Ended(State.COMPLETED, 0)
        with pytest.raises(LeaseLost):
            await late
        assert len(await journal.entries(1)) == 49

    lab(program)


def test_a_cancelled_caller_does_not_undo_the_write(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        started, hold = await begin(journal)
        first, second = journal.record(hold, entry()), journal.record(hold, entry("s#2", seq=2))
        first.cancel()
        await second
        assert [each.key for each in await journal.entries(started.row.no)] == ["s#1", "s#2"]

    lab(program)


def test_what_is_queued_when_a_worker_lets_go_is_still_committed(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        started, hold = await begin(journal)
        journal.record(hold, entry())
        journal.stop()
        journal.stop()
        await journal.close(9)
        other = await lab.worker()
        assert [each.key for each in await other.entries(started.row.no)] == ["s#1"]
        run = await other.run("a")
        assert run is not None
        assert run.state is State.RUNNING
        assert len(await other.workers()) == 1

    lab(program)


def test_failed_attempts_come_back_in_their_order_and_belong_to_their_run(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        started, hold = await begin(journal)
        other, others_hold = await begin(journal, "b")
        second = FailedAttempt("pay#1", 2, 30, 40, None, b"\x00e2")
        first = FailedAttempt("pay#1", 1, 10, 20, 30, b"e1")
        for holder, attempt in ((hold, second), (hold, first), (others_hold, first)):
            await journal.fail(holder, attempt)
        assert (await journal.memory(started.row.no)).attempts == [first, second]
        assert (await journal.memory(other.row.no)).attempts == [first]

    lab(program)


def test_a_failed_attempt_of_a_run_that_is_driven_elsewhere_is_refused(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        started, hold = await begin(journal)
        with pytest.raises(LeaseLost):
            await journal.fail(Hold(hold.run, hold.epoch + 1), FailedAttempt("pay#1", 1, 10, 20, 30, b"e"))
        assert (await journal.memory(started.row.no)).attempts == []

    lab(program)


def test_whoever_asks_for_some_runs_gets_these_and_what_is_below_them_alone(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        top = await journal.start(new_run("top"), IfExists.ATTACH, drive=False)
        child = await journal.start(new_run("child", parent=top.row.no, at=11), IfExists.ATTACH, drive=False)
        await journal.start(new_run("below", parent=child.row.no, at=12), IfExists.ATTACH, drive=False)
        await journal.start(new_run("apart", parent=top.row.no, detached=True), IfExists.ATTACH, drive=False)
        await journal.start(new_run("other", at=1), IfExists.ATTACH, drive=False)
        assert not await journal.ready(["ship"], 50, only=["nobody"])
        assert not await journal.ready(["another"], 50, only=["top"])
        assert await journal.ready(["ship"], 50, only=["top"])
        first = await journal.claim(["ship"], 50, 2, suspects=False, only=["top", "nobody"])
        rest_of_them = await journal.claim(["ship"], 50, 9, suspects=False, only=["top", "nobody"])
        assert [one.row.id for one in first] == ["top", "child"]
        assert [one.row.id for one in rest_of_them] == ["below"]
        assert await journal.claim(["ship"], 50, 9, suspects=False, only=[]) == []
        assert not await journal.ready(["ship"], 50, only=["top"])
        assert await journal.ready(["ship"], 50)

    lab(program)


def test_whoever_asks_for_some_runs_is_told_when_these_are_due(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        for run_id, due in (("soon", 60), ("later", 90)):
            _, hold = await begin(journal, run_id)
            await journal.suspend(hold, rest(wait(deadline=due)))
        assert await journal.next_due(["ship"]) == 60
        assert await journal.next_due(["ship"], only=["later"]) == 90
        assert await journal.next_due(["another"], only=["later"]) is None
        assert not await journal.ready(["ship"], 60, only=["later"])
        assert await journal.ready(["ship"], 90, only=["later"])
        assert [one.row.id for one in await journal.claim(["ship"], 99, 9, suspects=False, only=["later"])] == ["later"]

    lab(program)

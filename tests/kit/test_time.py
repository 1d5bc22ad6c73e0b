"""Time stands still, and passes when the test says so."""

from __future__ import annotations

import asyncio
import socket
import threading
from datetime import UTC, datetime, timedelta

import pytest

from durable_sqlite import Retry, RunFailed, step, workflow
from durable_sqlite.errors import UsageError
from durable_sqlite.testing import Harness, Stuck, _clock, _harness, _process, harness
from durable_sqlite.testing._clock import START, StandingClock, StandingLoop
from tests.kit import flows


def test_a_workflow_of_weeks_ends_at_its_time(durable: Harness) -> None:
    began = durable.now
    assert durable.run(flows.weeks, 8) == 8
    assert durable.now - began == timedelta(weeks=8)


def test_what_is_due_happens_at_its_time_in_order(durable: Harness) -> None:
    for minutes in (30, 10, 20):
        durable.start(flows.ticks, minutes)
    durable.advance(timedelta(minutes=15))
    assert flows.world == ["fetch 10 1"]
    durable.advance(timedelta(minutes=60))
    assert flows.world == ["fetch 10 1", "fetch 20 1", "fetch 30 1"]


def test_advance_stops_exactly_where_it_was_told_to(durable: Harness) -> None:
    run = durable.start(flows.ticks, 10)
    began = durable.now
    durable.advance(timedelta(seconds=599, microseconds=999_999))
    assert durable.state(run) == "suspended"
    durable.advance(0.000001)
    assert durable.state(run) == "completed"
    assert durable.now - began == timedelta(minutes=10)


def test_a_due_workflow_that_sleeps_again_is_driven_on_in_one_advance(durable: Harness) -> None:
    run = durable.start(flows.weeks, 3)
    durable.advance(timedelta(weeks=2, days=1))
    assert flows.world == ["fetch 0 1", "fetch 1 1"]
    assert [entry.recorded_at for entry in durable.history(run) if entry.name == "sleep"] == [
        datetime(2023, 11, 21, 22, 13, 20, tzinfo=UTC),
        datetime(2023, 11, 28, 22, 13, 20, tzinfo=UTC),
    ]


def test_time_begins_where_the_test_says() -> None:
    with harness(now=datetime(2030, 1, 1, tzinfo=UTC)) as durable:
        assert durable.now == datetime(2030, 1, 1, tzinfo=UTC)
        assert "2030-01-01" in repr(durable)


def test_time_does_not_go_back(durable: Harness) -> None:
    with pytest.raises(UsageError, match="time does not go back"):
        durable.advance(-1)


def test_sleeping_in_a_step_takes_the_time_of_the_test(durable: Harness) -> None:
    run = durable.start(flows.rests, 3600)
    assert flows.world == []
    durable.advance(3599)
    assert durable.state(run) == "running"
    durable.advance(1)
    assert flows.world == ["awake"]
    assert durable.state(run) == "completed"


def test_a_step_that_hangs_runs_into_its_timeout(durable: Harness) -> None:
    @step(timeout=timedelta(hours=1), retry=Retry(max_attempts=2, initial_delay=60))
    async def hangs() -> None:
        await asyncio.Event().wait()

    @workflow
    async def waits() -> None:
        await hangs()

    run = durable.start(waits)
    began = durable.now
    with pytest.raises(RunFailed, match="took longer than 3600 s"):
        durable.result(run)
    assert timedelta(hours=2) < durable.now - began < timedelta(hours=3)


def test_waiting_for_a_run_that_waits_for_a_message_says_what_it_waits_for(durable: Harness) -> None:
    run = durable.start(flows.hears)
    with pytest.raises(Stuck, match=r"is suspended at 2023-11-14 22:13:25; it waits for .*kit-go"):
        durable.result(run)


def test_waiting_for_a_run_ends_where_it_was_given_no_more_time(durable: Harness) -> None:
    run = durable.start(flows.weeks, 3)
    with pytest.raises(Stuck, match=r"2023-11-22 .*and was given no more time"):
        durable.result(run, within=timedelta(days=8))
    assert durable.result(run) == 3


def test_a_program_that_never_rests_does_not_hang_the_test(durable: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_harness, "_MOST_MOMENTS", 100)

    @workflow
    async def polls() -> None:
        await spins()

    @step
    async def spins() -> None:
        while True:  # noqa: ASYNC110
            await asyncio.sleep(0.0001)

    run = durable.start(polls)
    with pytest.raises(Stuck, match="is running at"):
        durable.result(run)


def test_awaiting_what_needs_time_is_refused(durable: Harness) -> None:
    with pytest.raises(Stuck, match="does not come while time stands still"):
        durable.do(asyncio.sleep(1))
    run = durable.start(flows.hears)
    durable.signal(run, flows.Go(word="now"))
    assert durable.do(run.result()) == "now"


@pytest.fixture
def waited_for(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Is set once the kit waits for what comes from elsewhere."""
    patience, waits = StandingLoop._patience, threading.Event()

    def patient(loop: StandingLoop) -> float:
        seconds = patience(loop)
        if seconds:
            waits.set()
        return seconds

    monkeypatch.setattr(StandingLoop, "_patience", patient)
    return waits


def test_steps_may_use_threads_of_the_loop(
    waited_for: threading.Event, durable: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_clock, "_UNSEEN", 0)

    @step
    async def aside() -> str:
        return await asyncio.to_thread(lambda: f"from a thread, {waited_for.wait(timeout=20)}")

    @workflow
    async def threads() -> str:
        return await aside()

    assert durable.state(run := durable.start(threads)) == "completed"
    assert durable.result(run) == "from a thread, True"


def test_steps_may_talk_over_sockets(
    waited_for: threading.Event, durable: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_clock, "_UNSEEN", 0)
    here, there = socket.socketpair()

    def greet() -> None:
        waited_for.wait(timeout=20)
        there.sendall(b"hello")
        there.close()

    @step
    async def talks() -> bytes:
        reader, writer = await asyncio.open_connection(sock=here)
        said = await reader.read()
        writer.close()
        await writer.wait_closed()
        return said

    @workflow
    async def calls() -> bytes:
        return await talks()

    other = threading.Thread(target=greet)
    other.start()
    assert durable.state(run := durable.start(calls)) == "completed"
    assert durable.result(run) == b"hello"
    other.join()


def test_steps_may_wait_for_threads_of_their_own(
    waited_for: threading.Event, durable: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_clock, "_UNSEEN", 20)

    @step
    async def own() -> bool:
        loop, answer = asyncio.get_running_loop(), asyncio.get_running_loop().create_future()

        def work() -> None:
            loop.call_soon_threadsafe(answer.set_result, waited_for.wait(timeout=20))

        thread = threading.Thread(target=work)
        thread.start()
        await answer
        thread.join()
        return bool(answer.result())

    @workflow
    async def owns() -> bool:
        return await own()

    assert durable.state(run := durable.start(owns)) == "completed"
    assert durable.result(run)


def test_plain_steps_run_in_threads_and_are_waited_for(durable: Harness) -> None:
    run = durable.start(flows.both, 2)
    assert durable.state(run) == "completed"
    assert [entry.value for entry in durable.history(run)] == [20, "durable_sqlite step"]


def test_plain_steps_at_once_end_in_the_order_in_which_they_began(
    durable: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_process, "_A_WHILE", 20)
    ended = threading.Event()

    @step
    def slow() -> bool:
        return ended.wait(timeout=0.1)  # in vain: the other one has not begun

    @step
    def fast() -> None:
        ended.set()

    @workflow
    async def race() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(slow())
            group.create_task(fast())

    history = durable.history(durable.start(race))
    assert [(entry.name, entry.value) for entry in history] == [("slow", False), ("fast", None)]


def test_a_plain_step_that_takes_a_while_does_not_hold_up_the_others(durable: Harness) -> None:
    both = threading.Barrier(2)

    @step
    def meets() -> int:
        return both.wait(timeout=20)

    @workflow
    async def meeting() -> int:
        async with asyncio.TaskGroup() as group:
            one, other = group.create_task(meets()), group.create_task(meets())
        return one.result() + other.result()

    assert durable.run(meeting) == 1


def test_a_deadline_passes_with_the_test_clock(durable: Harness) -> None:
    run = durable.start(flows.hears.options(deadline=timedelta(days=1)))
    durable.advance(timedelta(days=2))
    assert durable.info(run).reason == "deadline"


def test_the_timeout_of_a_question_passes(durable: Harness) -> None:
    run = durable.start(flows.asks)
    durable.advance(timedelta(days=1))
    assert durable.result(run) is None


def test_an_alarm_that_is_due_rings_at_once_unless_it_is_called_off() -> None:
    clock, rung = StandingClock(), list[str]()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        clock.call_at(loop, START, lambda: rung.append("due"))
        clock.call_at(loop, START, lambda: rung.append("called off")).cancel()
        clock.call_at(loop, START + 1, lambda: rung.append("called off")).cancel()
        clock.call_at(loop, START + 2, lambda: rung.append("later"))
        assert clock.next() == START + 2
        clock.move_to(START + 2)
        clock.move_to(START)
        await asyncio.sleep(0)

    asyncio.run(main())
    assert rung == ["due", "later"]
    assert (clock.now(), clock.next()) == (START + 2, None)


def test_what_does_not_let_go_is_left_alone(durable: Harness) -> None:
    async def stubborn() -> None:
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                if durable_closed:
                    raise

    durable_closed: list[bool] = []
    with pytest.raises(Stuck, match="does not come while time stands still"):
        durable.do(stubborn())
    durable_closed.append(True)

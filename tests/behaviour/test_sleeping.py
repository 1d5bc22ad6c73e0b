"""Durable time: sleeps, and asyncio's own timers in a body."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from durable_sqlite import Engine, Kind, Run, State, now, sleep, sleep_until, step, workflow
from durable_sqlite._clock import to_datetime
from tests.support.clock import START, ManualClock
from tests.support.restarts import die, quiet
from tests.support.stage import Stage

BEGIN = to_datetime(START)


async def state(run: Run[Any]) -> State:
    return (await run.info()).state


def test_a_sleep_is_never_early_and_its_deadline_is_absolute_over_restarts(tmp_path: Path) -> None:
    clock = ManualClock()

    @workflow
    async def nap() -> datetime:
        await sleep(100)
        return now()

    async def scenario() -> None:
        async with Engine(tmp_path / "j.db", clock=clock) as engine:
            await nap.options(id="x").start()
            await quiet(engine)
            clock.advance(60)
        async with Engine(tmp_path / "j.db", workflows=[nap], clock=clock) as engine:
            run = engine.run("x")
            clock.advance(39.999_999)
            await quiet(engine)
            assert await state(run) is State.SUSPENDED
            assert (await run.info()).waiting_for[0].startswith("sleep (sleep#1) since 2023-11-14T22:13:20")
            await die(engine)
        async with Engine(tmp_path / "j.db", workflows=[nap], clock=clock) as engine:
            clock.advance(0.000_001)
            await quiet(engine)
            assert await nap.options(id="x").start() is not None
            assert datetime.fromisoformat(await engine.run("x")) == BEGIN + timedelta(seconds=100)

    asyncio.run(scenario())


def test_a_sleep_that_is_overdue_fires_late_rather_than_never(tmp_path: Path) -> None:
    clock = ManualClock()

    @workflow
    async def nap() -> str:
        await sleep(timedelta(hours=1))
        return "awake"

    async def scenario() -> None:
        async with Engine(tmp_path / "j.db", clock=clock) as engine:
            await nap.options(id="x").start()
            await quiet(engine)
        clock.advance(7 * 86_400)
        async with Engine(tmp_path / "j.db", workflows=[nap], clock=clock) as engine:
            assert await engine.run("x").result(timeout=20) == "awake"
            (entry,) = await engine.run("x").history()
            assert (entry.kind, entry.recorded_at) == (Kind.SLEEP, BEGIN + timedelta(days=7))

    asyncio.run(scenario())


@pytest.mark.parametrize("duration", [0, -1, 0.0, -5.5, timedelta(0), timedelta(days=-1), -(10**13)])
def test_zero_and_negative_sleeps_are_recorded_and_return_at_once(duration: float | timedelta) -> None:
    @workflow
    async def nap() -> None:
        await sleep(duration)

    async def scenario() -> None:
        async with Engine(":memory:", clock=ManualClock()):
            run = await nap.start()
            await run
            assert [entry.key for entry in await run.history()] == ["sleep#1"]

    asyncio.run(scenario())


@pytest.mark.parametrize("duration", [10**13, 1e300, timedelta.max])
def test_a_sleep_longer_than_a_journal_can_name_lasts_for_ever(duration: float | timedelta) -> None:
    clock = ManualClock()

    @workflow
    async def nap() -> None:
        await sleep(duration)

    async def scenario() -> None:
        async with Engine(":memory:", clock=clock) as engine:
            run = await nap.start()
            await quiet(engine)
            info = await run.info()
            assert info.state is State.SUSPENDED
            assert "until beyond the year 9999" in info.waiting_for[0]
            await run.cancel()
            await quiet(engine)
            assert await state(run) is State.CANCELLED

    asyncio.run(scenario())


@pytest.mark.parametrize("moment", [BEGIN - timedelta(days=1), datetime.min.replace(tzinfo=UTC), BEGIN])
def test_sleeping_until_the_past_returns_at_once(moment: datetime) -> None:
    @workflow
    async def nap() -> None:
        await sleep_until(moment)

    async def scenario() -> None:
        async with Engine(":memory:", clock=ManualClock()):
            await nap()

    asyncio.run(scenario())


def test_sleeping_until_a_moment_wakes_then() -> None:
    clock = ManualClock()

    @workflow
    async def nap() -> None:
        await sleep_until(BEGIN + timedelta(seconds=10))

    async def scenario() -> None:
        async with Engine(":memory:", clock=clock) as engine:
            run = await nap.start()
            await quiet(engine)
            clock.advance(9)
            await quiet(engine)
            assert await state(run) is State.SUSPENDED
            clock.advance(1)
            await run

    asyncio.run(scenario())


def test_what_is_no_time_is_refused_where_it_is_said() -> None:
    vague: Any = sleep
    for wrong in (math.nan, math.inf, -math.inf):
        with pytest.raises(ValueError, match="finite"):
            _ = sleep(wrong)
    for strange in ("1", None, True):
        with pytest.raises(TypeError):
            _ = vague(strange)


def test_what_is_no_instant_is_refused_where_it_is_said() -> None:
    vague: Any = sleep_until
    with pytest.raises(ValueError, match="time zone"):
        _ = sleep_until(datetime(2030, 1, 1))  # noqa: DTZ001
    for strange in ("2030-01-01", None, 5, BEGIN.date(), timedelta(1)):
        with pytest.raises(TypeError, match="a datetime with a time zone"):
            _ = vague(strange)


async def in_no_time() -> None:
    async with asyncio.timeout(math.nan):
        await asyncio.sleep(0)


async def at_no_time() -> None:
    async with asyncio.timeout_at(math.nan):
        await asyncio.sleep(0)


async def called_at_no_time() -> None:
    asyncio.get_running_loop().call_later(math.nan, print)


NO_TIMES: list[Callable[[], Coroutine[Any, Any, None]]] = [
    lambda: sleep(math.nan),
    lambda: asyncio.sleep(math.nan),
    in_no_time,
    at_no_time,
    called_at_no_time,
]


def test_what_is_no_time_is_refused_in_a_body_before_anything_is_recorded() -> None:
    @workflow
    async def nap() -> int:
        refused = 0
        for wait in NO_TIMES:
            try:
                await wait()
            except ValueError:
                refused += 1
        return refused

    async def scenario() -> None:
        async with Engine(":memory:"):
            run = await nap.start()
            assert await run.result(timeout=5) == len(NO_TIMES)
            assert await run.history() == []

    asyncio.run(scenario())


def test_outside_a_run_a_sleep_is_the_one_of_asyncio() -> None:
    async def scenario() -> None:
        await sleep(0)
        await sleep(-1)
        await sleep_until(datetime.now(UTC) - timedelta(days=1))

    asyncio.run(scenario())


def test_asyncio_s_own_timers_are_durable_with_absolute_deadlines(tmp_path: Path) -> None:
    clock = ManualClock()
    stage = Stage()

    @step
    async def slow() -> str:
        await stage.enter("slow")
        return "done"

    @workflow
    async def flow() -> list[str]:
        told: list[str] = []
        await asyncio.sleep(10)
        told.append("slept")
        try:
            async with asyncio.timeout(10):
                await sleep(3600)
        except TimeoutError:
            told.append("timeout")
        try:
            await asyncio.wait_for(slow(), 10)
        except TimeoutError:
            told.append("wait_for")
        done, _ = await asyncio.wait([asyncio.ensure_future(asyncio.sleep(3600))], timeout=10)
        told.append(f"wait {len(done)}")
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
            await asyncio.wait([task])
        return told

    async def scenario() -> None:
        for waits_for in ("asyncio.sleep#1", "asyncio.timeout#1"):
            async with Engine(tmp_path / "j.db", workflows=[flow], clock=clock) as engine:
                await flow.options(id="x").start()
                await quiet(engine)
                clock.advance(6)
                await quiet(engine)
                assert waits_for in str((await engine.run("x").info()).waiting_for)
                await die(engine)
            clock.advance(4)
        async with Engine(tmp_path / "j.db", workflows=[flow], clock=clock) as engine:
            await stage.seen("slow")
            await die(engine)
        clock.advance(10)  # the timeout of a step that was in flight passes while nobody drives it
        async with Engine(tmp_path / "j.db", workflows=[flow], clock=clock) as engine:
            run = engine.run("x")
            await stage.seen("slow")
            await quiet_after(clock, engine, 10)
            await quiet_after(clock, engine, 10)
            assert await run == ["slept", "timeout", "wait_for", "wait 0"]
            kinds = [(entry.kind, entry.name) for entry in await run.history()]
            assert kinds == [(Kind.TIMER, "asyncio.sleep"), *[(Kind.TIMER, "asyncio.timeout")] * 3]

    asyncio.run(scenario())


async def quiet_after(clock: ManualClock, engine: Engine, seconds: float) -> None:
    for _ in range(20):
        await asyncio.sleep(0.001)
    clock.advance(seconds)
    await quiet(engine)


def test_a_step_given_up_by_a_timeout_is_cancelled_and_its_late_result_is_nobody_s() -> None:
    clock = ManualClock()
    stage = Stage()
    ended: list[str] = []

    @step
    async def stubborn() -> str:
        try:
            await stage.enter("stubborn")
        except asyncio.CancelledError:
            ended.append("asked to go")
            await stage.enter("going")
        return "late"

    @step
    async def after() -> str:
        ended.append("after")
        return "after"

    @workflow
    async def flow() -> str:
        try:
            return await asyncio.wait_for(stubborn(), 5)
        except TimeoutError:
            return await after()

    async def scenario() -> None:
        async with Engine(":memory:", clock=clock):
            run = await flow.start()
            await stage.seen("stubborn")
            clock.advance(5)
            await stage.seen("going")
            await asyncio.sleep(0.01)
            assert ended == ["asked to go"]  # no fresh step starts before it is gone
            stage.let("going")
            assert await run == "after"
            assert [entry.key for entry in await run.history()] == ["asyncio.timeout#1", "after#1"]

    asyncio.run(scenario())


def test_a_step_that_does_not_go_is_waited_for_only_so_long(caplog: pytest.LogCaptureFixture) -> None:
    clock = ManualClock()
    stage = Stage()

    @step
    async def stubborn(name: str) -> str:
        try:
            await stage.enter(name)
        except asyncio.CancelledError:
            await stage.enter(f"{name} going")
        return "late"

    @step
    async def after() -> str:
        return "after"

    @workflow
    async def flow() -> str:
        try:
            async with asyncio.timeout(5):
                await asyncio.gather(stubborn("a"), stubborn("b"))
        except TimeoutError:
            return await after()
        return "not reached"

    async def scenario() -> None:
        async with Engine(":memory:", clock=clock):
            run = await flow.start()
            await stage.seen("a", "b")
            clock.advance(5)
            await stage.seen("a going", "b going")
            clock.advance(10)
            assert await run == "after"
            stage.let("a going", "b going")

    asyncio.run(scenario())
    assert "step stubborn#1 was cancelled" in caplog.text


def test_a_deadline_that_was_written_stays_when_the_code_has_another_delay(tmp_path: Path) -> None:
    clock = ManualClock()

    @workflow(name="nap")
    async def before() -> None:
        await sleep(100)

    @workflow(name="nap")
    async def after() -> None:
        await sleep(1000)

    async def scenario() -> None:
        async with Engine(tmp_path / "j.db", clock=clock) as engine:
            await before.options(id="x").start()
            await quiet(engine)
        async with Engine(tmp_path / "j.db", workflows=[after], clock=clock) as engine:
            clock.advance(100)
            await quiet(engine)
            assert await state(engine.run("x")) is State.COMPLETED

    asyncio.run(scenario())


def test_many_sleepers_that_are_due_at_once_all_wake(tmp_path: Path) -> None:
    clock = ManualClock()

    @workflow
    async def nap(number: int) -> int:
        await sleep(100 + number % 7)
        return number

    async def scenario() -> None:
        async with Engine(tmp_path / "j.db", clock=clock, synchronous="normal") as engine:
            await asyncio.gather(*(nap.options(id=f"n{number}").start(number) for number in range(250)))
            await quiet(engine)
            assert await engine.count(state="suspended") == 250
        clock.advance(103)
        async with Engine(tmp_path / "j.db", workflows=[nap], clock=clock, max_resident=20) as engine:
            await quiet(engine)
            assert await engine.count(state="completed") == sum(number % 7 <= 3 for number in range(250))
            clock.advance(4)
            await quiet(engine)
            assert await engine.count(state="completed") == 250

    asyncio.run(scenario())

"""After deaths: what is taken over, what is counted, and which runs are parked."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from durable_sqlite import Engine, RunParked, State, current_step, sleep, step, workflow
from durable_sqlite._neighbours import Neighbours
from durable_sqlite._records import RunRow
from tests.support.clock import ManualClock
from tests.support.restarts import die, quiet
from tests.support.stage import Stage, ended


def test_opening_an_engine_takes_over_what_a_dead_one_left_and_drives_it(tmp_path: Path) -> None:
    stage = Stage()

    @step
    async def act(number: int) -> int:
        await stage.enter(str(number))
        return number

    @workflow
    async def flow(number: int) -> int:
        return await act(number)

    async def scenario() -> None:
        async with Engine(tmp_path / "j.db") as engine:
            for number in range(5):
                await flow.options(id=f"n{number}").start(number)
            await stage.seen(*"01234")
            await die(engine)
        assert list(tmp_path.glob("*-worker-*"))  # noqa: ASYNC240
        stage.let(*"01234")
        async with Engine(tmp_path / "j.db", workflows=[flow]) as engine:
            assert [await engine.run(f"n{number}") for number in range(5)] == list(range(5))
        assert sorted(tmp_path.iterdir()) == [tmp_path / "j.db", tmp_path / "j.db-mark"]  # noqa: ASYNC240

    asyncio.run(scenario())


def test_opening_an_engine_sweeps_away_what_processes_left_that_died_while_they_opened_one(tmp_path: Path) -> None:
    async def scenario() -> None:
        (tmp_path / "j.db-worker-1XGM87MG3MYQCNZE5YGT817J21").touch()
        async with Engine(tmp_path / "j.db"):
            pass
        assert sorted(tmp_path.iterdir()) == [tmp_path / "j.db", tmp_path / "j.db-mark"]  # noqa: ASYNC240

    asyncio.run(scenario())


def test_an_engine_that_is_struck_off_while_it_opens_begins_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage, look = Stage(), Neighbours.look

    @step
    async def act() -> int:
        await stage.enter("act")
        return 1

    @workflow
    async def flow() -> int:
        return await act()

    async def struck_before(neighbours: Neighbours) -> list[RunRow]:
        monkeypatch.setattr(Neighbours, "look", look)
        with closing(sqlite3.connect(tmp_path / "j.db", isolation_level=None)) as connection:
            connection.execute("DELETE FROM durable_workers WHERE no = (SELECT max(no) FROM durable_workers)")
        return await look(neighbours)

    async def scenario() -> None:
        async with Engine(tmp_path / "j.db") as engine:
            await flow.options(id="x").start()
            await stage.seen("act")
            await die(engine)
        stage.let("act")
        monkeypatch.setattr(Neighbours, "look", struck_before)
        async with Engine(tmp_path / "j.db", workflows=[flow]) as engine:
            assert await engine.run("x") == 1
        assert sorted(tmp_path.iterdir()) == [tmp_path / "j.db", tmp_path / "j.db-mark"]  # noqa: ASYNC240

    asyncio.run(scenario())


def test_a_live_worker_s_runs_are_left_alone(tmp_path: Path) -> None:
    stage = Stage()

    @step
    async def act() -> int:
        await stage.enter("act")
        return 1

    @workflow
    async def flow() -> int:
        return await act()

    async def scenario() -> None:
        async with Engine(tmp_path / "j.db") as first:
            run = await flow.options(id="x").start()
            await stage.seen("act")
            async with Engine(tmp_path / "j.db", workflows=[flow]) as second:
                await quiet(second)
                assert (await second.run("x").info()).state is State.RUNNING
                stage.let("act")
                assert await second.run("x").result(timeout=20) == 1
            assert await run == 1
            await first.join()
        assert stage.began == ["act"]

    asyncio.run(scenario())


def test_recovered_says_that_the_body_may_have_begun_in_a_process_that_died(tmp_path: Path) -> None:
    told: list[tuple[str, int, bool, str]] = []
    stage = Stage()

    @step
    async def act(what: str) -> str:
        info = current_step()
        told.append((what, info.attempt, info.recovered, info.idempotency_key))
        await stage.enter(what)
        return what

    @workflow
    async def flow() -> None:
        await asyncio.gather(act("a"), act("b"))
        await act("c")

    async def scenario() -> None:
        async with Engine(tmp_path / "j.db") as engine:
            await flow.options(id="x").start()
            await stage.seen("a", "b")
            await die(engine)
        stage.let("a", "b", "c")
        async with Engine(tmp_path / "j.db", workflows=[flow]) as engine:
            await engine.run("x")

    asyncio.run(scenario())
    assert [line[:3] for line in told] == [
        ("a", 1, False),
        ("b", 1, False),
        ("a", 1, True),
        ("b", 1, True),
        ("c", 1, False),
    ]
    assert told[0][3] == told[2][3] != told[1][3] == told[3][3] != told[4][3]


def crashing(stage: Stage) -> tuple[Any, Any]:
    @step
    async def crash(number: int) -> int:
        await stage.enter(f"crash{number}")
        return number

    @workflow
    async def poison(steps: int) -> int:
        return sum([await crash(number) for number in range(steps)])

    return poison, crash


async def deaths(path: Path, flow: Any, stage: Stage, name: str, number: int, **options: Any) -> None:
    """Kill `number` engines in a row while they drive a run in its step `name`."""
    for _ in range(number):
        stage.forget()
        async with Engine(path, workflows=[flow], **options) as engine:
            await stage.seen(name)
            await die(engine)


@pytest.mark.contradicts("crash", reason="it counts deaths")
def test_a_run_that_kills_its_owners_is_parked_after_so_many_deaths_and_not_before(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stage = Stage()
    poison, _ = crashing(stage)

    async def scenario() -> None:
        path = tmp_path / "j.db"
        async with Engine(path, drive=False):
            await poison.options(id="x").start(1)
        await deaths(path, poison, stage, "crash0", 4)
        stage.forget()
        async with Engine(path, workflows=[poison]) as engine:
            await stage.seen("crash0")  # four deaths: one more chance
            await die(engine)
        async with Engine(path, workflows=[poison]) as engine:
            run = engine.run("x")
            parked = await ended(run, RunParked)
            assert parked.reason == "crash_loop"
            assert "5 processes in a row died" in str(parked)
            assert "run x is parked" in caplog.text
            stage.let("crash0")
            await run.resume()
            assert await run == 0

    asyncio.run(scenario())
    assert len(stage.began) == 6


def test_max_recoveries_is_an_option(tmp_path: Path) -> None:
    stage = Stage()
    poison, _ = crashing(stage)

    async def scenario() -> None:
        path = tmp_path / "j.db"
        async with Engine(path, drive=False):
            await poison.options(id="x").start(1)
        await deaths(path, poison, stage, "crash0", 2, max_recoveries=2)
        async with Engine(path, workflows=[poison], max_recoveries=2) as engine:
            assert (await ended(engine.run("x"), RunParked)).reason == "crash_loop"

    asyncio.run(scenario())


@pytest.mark.contradicts("crash", reason="it counts deaths")
def test_progress_and_an_orderly_close_reset_the_count(tmp_path: Path) -> None:
    stage = Stage()
    poison, _ = crashing(stage)

    async def scenario() -> None:
        path = tmp_path / "j.db"
        async with Engine(path, drive=False):
            await poison.options(id="x").start(2)
        await deaths(path, poison, stage, "crash0", 4)
        stage.let("crash0")
        await deaths(path, poison, stage, "crash1", 4)  # one new outcome: the count began anew
        stage.forget()
        async with Engine(path, workflows=[poison]) as engine:
            await stage.seen("crash1")  # and this one is closed in order
        await deaths(path, poison, stage, "crash1", 4)
        stage.let("crash1")
        async with Engine(path, workflows=[poison]) as engine:
            assert await engine.run("x") == 1

    asyncio.run(scenario())


@pytest.mark.contradicts("crash", reason="it counts deaths")
def test_suspects_are_driven_one_at_a_time_and_their_neighbours_flow(tmp_path: Path) -> None:
    stage = Stage()
    poison, _ = crashing(stage)

    @step
    async def work(number: int) -> int:
        await stage.enter(f"work{number}")
        return number

    @workflow
    async def good(number: int) -> int:
        return await work(number) + await work(number + 100)

    async def scenario() -> None:
        path = tmp_path / "j.db"
        workflows = [good, poison]
        async with Engine(path, drive=False):
            await poison.options(id="bad").start(1)
            for number in range(3):
                await good.options(id=f"n{number}").start(number)
        for _ in range(2):
            stage.forget()
            async with Engine(path, workflows=workflows) as engine:
                await stage.seen("crash0", "work0", "work1", "work2")
                await die(engine)
        stage.began.clear()
        stage.forget()
        async with Engine(path, workflows=workflows) as engine:
            fresh = await good.options(id="fresh").start(7)
            await stage.seen("work7")  # what is not suspected flows
            for _ in range(20):
                await asyncio.sleep(0.001)
            assert sorted(stage.began) == ["crash0", "work7"]  # of four suspects one, the oldest
            stage.let("work7", "work107")
            assert await fresh == 114
            await die(engine)
        stage.forget()
        stage.began.clear()
        stage.let("work0", "work1", "work2", "work100", "work101", "work102")
        async with Engine(path, workflows=workflows) as engine:
            for number in range(3):  # each suspect clears itself by progress and lets the next one begin
                assert await engine.run(f"n{number}").result(timeout=20) == 2 * number + 100
            await stage.seen("crash0")
            stage.let("crash0")
            assert await engine.run("bad") == 0

    asyncio.run(scenario())


def test_a_suspect_that_is_suspended_or_ends_lets_the_next_one_begin(tmp_path: Path) -> None:
    clock = ManualClock()
    stage = Stage()
    hold = [True]

    @workflow
    async def naps(number: int) -> int:
        if hold[0]:
            await crash(number)
        if number % 2:
            await sleep(100)
        return number

    @step
    async def crash(number: int) -> None:
        await stage.enter(str(number))

    async def scenario() -> None:
        path = tmp_path / "j.db"
        async with Engine(path, drive=False, clock=clock):
            for number in range(4):
                await naps.options(id=f"n{number}").start(number)
        for _ in range(2):
            stage.forget()
            async with Engine(path, workflows=[naps], clock=clock) as engine:
                await stage.seen(*"0123")
                await die(engine)
        hold[0] = False
        async with Engine(path, workflows=[naps], clock=clock) as engine:
            await quiet(engine)
            states = [(await engine.run(f"n{number}").info()).state for number in range(4)]
            assert states == [State.COMPLETED, State.SUSPENDED] * 2
            clock.advance(100)
            assert [await engine.run(f"n{number}").result(timeout=20) for number in range(4)] == list(range(4))

    asyncio.run(scenario())


def test_an_orderly_close_in_the_middle_of_a_step_is_no_death_and_the_step_is_cancelled(tmp_path: Path) -> None:
    stage = Stage()
    cancelled: list[int] = []

    @step
    async def act() -> int:
        try:
            await stage.enter("act")
        except asyncio.CancelledError:
            cancelled.append(1)
            raise
        return 1

    @workflow
    async def flow() -> int:
        return await act()

    async def scenario() -> None:
        for _ in range(7):
            stage.forget()
            async with Engine(tmp_path / "j.db", workflows=[flow]) as engine:
                await flow.options(id="x").start()
                await stage.seen("act")
        stage.let("act")
        async with Engine(tmp_path / "j.db", workflows=[flow]) as engine:
            assert await engine.run("x") == 1

    asyncio.run(scenario())
    assert len(cancelled) == 7


@pytest.mark.contradicts("two", "crash", reason="its engine says what it does not know")
def test_a_run_of_an_unknown_workflow_waits_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    @workflow(name="shipping")
    async def flow(wait: float) -> str:
        await sleep(wait)
        return "done"

    async def scenario() -> None:
        async with Engine(tmp_path / "j.db", clock=ManualClock()) as engine:
            await flow.options(id="sleeping").start(100.0)
            await quiet(engine)
        async with Engine(tmp_path / "j.db", drive=False, clock=ManualClock()):
            await flow.options(id="waiting").start(0.0)
        clock = ManualClock()
        with caplog.at_level(logging.WARNING):
            async with Engine(tmp_path / "j.db", clock=clock) as engine:
                clock.advance(200)
                await quiet(engine)
                for name, state in (("sleeping", State.SUSPENDED), ("waiting", State.PENDING)):
                    info = await engine.run(name).info()
                    assert info.state is state
                    assert "a process that knows workflow shipping" in info.waiting_for[-1]
                run = await flow.options(id="waiting").start(0.0)  # starting makes it known
                assert await run == "done"
                assert await engine.run("sleeping") == "done"
        assert "workflow shipping (defined in tests.behaviour.test_recovery:" in caplog.text

    asyncio.run(scenario())


def test_an_engine_that_does_not_drive_takes_nothing_over(tmp_path: Path) -> None:
    stage = Stage()
    poison, _ = crashing(stage)

    async def scenario() -> None:
        async with Engine(tmp_path / "j.db") as engine:
            await poison.options(id="x").start(1)
            await stage.seen("crash0")
            await die(engine)
        async with Engine(tmp_path / "j.db", drive=False) as client:
            assert (await client.run("x").info()).state is State.RUNNING
            stage.let("crash0")
        async with Engine(tmp_path / "j.db", workflows=[poison]) as engine:
            assert await engine.run("x") == 0

    asyncio.run(scenario())

"""Limits: how many entries a run may have, and how large a value may be."""

from __future__ import annotations

import asyncio
from pathlib import Path

from durable_sqlite import Engine, Outcome, RunParked, Signal, sleep, step, workflow
from tests.support.clock import ManualClock
from tests.support.restarts import quiet
from tests.support.stage import Stage, ended

effects: list[int] = []


class Reminder(Signal):
    pass


@step
async def act(number: int) -> int:
    effects.append(number)
    return number


def test_a_workflow_that_goes_on_for_ever_is_parked_with_a_hint_and_no_effect_is_repeated(tmp_path: Path) -> None:
    effects.clear()

    @workflow
    async def endless() -> int:
        total = 0
        for number in range(1, 7):
            total += await act(number)
        return total

    async def scenario() -> None:
        async with Engine(tmp_path / "j.db", max_entries=4) as engine:
            parked = await ended(await endless.options(id="x").start(), RunParked)
            assert parked.reason == "max_entries"
            assert "it has 4 entries" in str(parked)
            assert "start a new run" in str(parked)
            assert await engine.count(state="parked") == 1
        async with Engine(tmp_path / "j.db", workflows=[endless], max_entries=6) as engine:
            await engine.run("x").resume()
            assert await engine.run("x") == 21

    asyncio.run(scenario())
    assert effects == [1, 2, 3, 4, 5, 6]


def test_steps_in_flight_land_before_the_limit_parks_the_run(tmp_path: Path) -> None:
    stage = Stage()

    @step
    async def slow(name: str) -> str:
        await stage.enter(name)
        return name

    async def two(name: str) -> str:
        return await slow(f"{name}1") + await slow(f"{name}2")

    @workflow
    async def wide() -> list[str]:
        return list(await asyncio.gather(two("a"), two("b")))

    async def scenario() -> None:
        stage.let("a1", "a2", "b2")
        async with Engine(tmp_path / "j.db", max_entries=2) as engine:
            run = await wide.options(id="x").start()
            await stage.seen("a1", "b1")
            for _ in range(20):
                await asyncio.sleep(0.001)
            assert "a2" not in stage.began  # b1 has a right to the last entry
            stage.let("b1")
            assert (await ended(run, RunParked)).reason == "max_entries"
            assert len(await run.history()) == 2
            await engine.join()
        async with Engine(tmp_path / "j.db", workflows=[wide]) as engine:
            await engine.run("x").resume()
            assert await engine.run("x") == ["a1a2", "b1b2"]

    asyncio.run(scenario())
    assert sorted(stage.began) == ["a1", "a2", "b1", "b2"]


def test_timers_count_as_entries_too() -> None:
    clock = ManualClock()

    @workflow
    async def naps() -> None:
        while True:
            await sleep(1)

    async def scenario() -> None:
        async with Engine(":memory:", clock=clock, max_entries=3) as engine:
            run = await naps.start()
            for _ in range(3):
                await quiet(engine)
                clock.advance(1)
            await quiet(engine)
            clock.advance(1)
            assert (await ended(run, RunParked)).reason == "max_entries"
            assert len(await run.history()) == 3

    asyncio.run(scenario())


def test_a_wait_for_which_nothing_came_in_time_counts_as_an_entry_too() -> None:
    clock = ManualClock()

    @workflow
    async def asks_again() -> None:
        while True:
            await Reminder.wait(timeout=1)

    async def scenario() -> None:
        async with Engine(":memory:", clock=clock, max_entries=2) as engine:
            run = await asks_again.start()
            for _ in range(3):
                await quiet(engine)
                clock.advance(1)
            assert (await ended(run, RunParked)).reason == "max_entries"
            assert [entry.outcome for entry in await run.history()] == [Outcome.TIMEOUT] * 2

    asyncio.run(scenario())

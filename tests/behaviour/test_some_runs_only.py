"""An engine that drives some runs and no others."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from durable_sqlite import Engine, State, UsageError, sleep, workflow
from durable_sqlite._clock import to_datetime
from tests.support.clock import START, ManualClock
from tests.support.restarts import die, quiet


@workflow
async def rests(seconds: float) -> str:
    await sleep(seconds)
    return "awake"


@workflow
async def has_a_child(seconds: float) -> str:
    return await rests(seconds)


@pytest.mark.contradicts("two", "crash", reason="it asks the engine that it has started for what that has driven")
def test_an_engine_notes_which_runs_it_has_driven_where_somebody_wants_to_know(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Engine(tmp_path / "j.db", drive=False) as client:
            for run_id in ("done", "asleep"):
                await rests.options(id=run_id, engine=client).start(60.0 * (run_id == "asleep"))
        engine = Engine(tmp_path / "j.db", workflows=[rests])
        driven = engine._front.driven = set[str]()
        async with engine:
            await quiet(engine)
            assert driven == {"done", "asleep"}

    asyncio.run(scenario())


def test_only_the_named_runs_and_their_children_are_taken_up(tmp_path: Path) -> None:
    async def scenario() -> None:
        clock = ManualClock()
        engine = Engine(tmp_path / "j.db", clock=clock)
        await engine.__aenter__()
        for run_id in ("mine", "yours"):
            await has_a_child.options(id=run_id, engine=engine).start(60)
        await quiet(engine)
        await die(engine)
        clock.advance(61)
        async with Engine(tmp_path / "j.db", clock=clock, only=["mine"]) as engine:
            await quiet(engine)
            assert await engine.run("mine").result() == "awake"
            await quiet(engine)
            states = [info.state async for info in engine.runs()]
            assert sorted(states) == ["completed", "completed", "suspended", "suspended"]
            assert (await engine.run("yours").info()).state is State.SUSPENDED

    asyncio.run(scenario())


def test_what_is_started_there_is_driven_as_well(tmp_path: Path) -> None:
    async def scenario() -> None:
        clock = ManualClock()
        async with Engine(tmp_path / "j.db", clock=clock, unload_after=0, only=[]) as engine:
            run = await rests.start(60)
            await quiet(engine)
            assert (await run.info()).state is State.SUSPENDED
            clock.advance(61)
            await quiet(engine)
            assert await run == "awake"

    asyncio.run(scenario())


def test_an_engine_says_when_it_has_something_to_drive_next(tmp_path: Path) -> None:
    async def scenario() -> None:
        clock = ManualClock()
        async with Engine(tmp_path / "j.db", clock=clock, unload_after=0) as engine:
            assert await engine.next_due() is None
            for seconds in (90, 60):
                await rests.options(id=f"rests-{seconds}").start(seconds)
            await quiet(engine)
            assert await engine.next_due() == to_datetime(START + 60_000_000)
            async with engine.anew(only=["rests-90"], workflows=[rests]) as other:
                assert await other.next_due() == to_datetime(START + 90_000_000)
            clock.advance(61)
            await quiet(engine)
            assert await engine.next_due() == to_datetime(START + 90_000_000)

    asyncio.run(scenario())


@pytest.mark.parametrize("ids", ["mine", [""], [7]])
def test_ids_that_are_none_are_refused(tmp_path: Path, ids: Any) -> None:
    with pytest.raises(UsageError):
        Engine(tmp_path / "j.db", only=ids)


def test_what_is_ready_is_to_be_driven_now_also_where_the_engine_has_stood_down(tmp_path: Path) -> None:
    async def scenario() -> None:
        clock = ManualClock()
        async with Engine(tmp_path / "j.db", clock=clock, workflows=[rests]) as engine:
            await engine.drain(0)
            await rests.start(60)
            assert await engine.next_due() == to_datetime(START)

    asyncio.run(scenario())


def test_an_engine_knows_its_file(tmp_path: Path) -> None:
    assert Engine(tmp_path / "j.db").path == tmp_path / "j.db"
    assert Engine(":memory:").path is None


def test_nothing_is_said_of_workflows_that_are_left_to_others_on_purpose(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    @workflow
    async def theirs() -> None: ...

    async def scenario() -> None:
        async with Engine(tmp_path / "j.db", drive=False) as client:
            await theirs.options(engine=client).start()
        async with Engine(tmp_path / "j.db", only=["another"]):
            pass
        assert "does not know" not in caplog.text
        async with Engine(tmp_path / "j.db"):
            assert "does not know" in caplog.text

    asyncio.run(scenario())

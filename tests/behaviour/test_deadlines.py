"""A run's deadline: in force whatever happens, told like a cancel, and a reason of its own."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest

from durable_sqlite import (
    DefinitionError,
    Engine,
    Retry,
    RunCancelled,
    RunFailed,
    State,
    current_step,
    sleep,
    step,
    workflow,
)
from durable_sqlite._clock import to_datetime
from tests.support.clock import START, ManualClock
from tests.support.gates import Gate
from tests.support.restarts import die, quiet
from tests.support.stage import until

did: list[str] = []


@pytest.fixture(autouse=True)
def nothing_done() -> None:
    did.clear()


@step
async def act(what: str) -> str:
    did.append(what)
    return what


@workflow
async def tidy(seconds: float) -> str:
    try:
        await act("work")
        await sleep(seconds)
        return "in time"
    finally:
        await act("clean")


async def fails(engine: Engine, run_id: str = "x") -> RunFailed:
    with pytest.raises(RunFailed) as failed:
        await engine.run(run_id).result(timeout=20)
    return failed.value


def test_a_run_that_takes_too_long_is_told_cleans_up_once_and_fails_with_the_reason() -> None:
    clock = ManualClock()

    async def scenario() -> None:
        async with Engine(":memory:", clock=clock) as engine:
            run = await tidy.options(id="x", deadline=60).start(3600)
            await quiet(engine)
            assert (await run.info()).deadline == to_datetime(START + 60_000_000)
            clock.advance(59.9)
            await quiet(engine)
            assert (await run.info()).state is State.SUSPENDED
            clock.advance(0.1)
            failure = await fails(engine)
            assert failure.reason == "deadline"
            assert failure.record is not None
            assert failure.record.is_a(TimeoutError)
            assert "60 s" in failure.record.message
            (letter,) = [letter async for letter in engine.dead_letters(reason="deadline")]
            assert letter.keys == ()

    asyncio.run(scenario())
    assert did == ["work", "clean"]


@pytest.mark.contradicts("two", "crash", reason="it counts alarms")
def test_a_run_that_ends_in_time_hears_nothing_of_it() -> None:
    clock = ManualClock()

    async def scenario() -> None:
        async with Engine(":memory:", clock=clock) as engine:
            run = await tidy.options(deadline=timedelta(minutes=1)).start(30)
            await quiet(engine)
            clock.advance(30)
            assert await run.result(timeout=20) == "in time"
            assert clock.armed() == [] or min(clock.armed()) > START + 60_000_000

    asyncio.run(scenario())


@pytest.mark.parametrize("unload_after", [0.0, 3600.0])
def test_a_deadline_is_in_force_over_a_restart_and_while_nobody_was_there(tmp_path: Path, unload_after: float) -> None:
    clock = ManualClock()

    async def scenario() -> None:
        async with Engine(tmp_path / "j.db", clock=clock, unload_after=unload_after) as engine:
            await tidy.options(id="x", deadline=60).start(30)
            await quiet(engine)
        clock.advance(3600)
        async with Engine(tmp_path / "j.db", clock=clock, workflows=[tidy]) as engine:
            assert (await fails(engine)).reason == "deadline"

    asyncio.run(scenario())
    assert did == ["work", "clean"]


def test_a_crash_after_it_was_told_replays_the_same_end(tmp_path: Path) -> None:
    clock = ManualClock()
    cleaning = asyncio.Event()

    @step
    async def clean_slowly() -> None:
        did.append("clean")
        cleaning.set()
        if not current_step().recovered:
            await asyncio.sleep(3600)

    @workflow
    async def slow() -> None:
        try:
            await sleep(3600)
        finally:
            await clean_slowly()

    async def scenario() -> None:
        engine = Engine(tmp_path / "j.db", clock=clock)
        async with engine:
            await slow.options(id="x", deadline=60).start()
            await quiet(engine)
            clock.advance(60)
            await cleaning.wait()
            await die(engine)
        async with Engine(tmp_path / "j.db", clock=clock, workflows=[slow]) as engine:
            assert (await fails(engine)).reason == "deadline"
            assert [entry.name for entry in await engine.run("x").history()] == ["deadline", "clean_slowly"]

    asyncio.run(scenario())
    assert did == ["clean", "clean"]


def test_it_is_seen_during_a_back_off_and_during_a_step() -> None:
    clock = ManualClock()

    @step(retry=Retry.fixed(3600))
    async def shaky() -> None:
        did.append("shaky")
        raise OSError

    @step
    async def endless() -> None:
        did.append("endless")
        await asyncio.sleep(3600)

    @workflow
    async def in_back_off() -> None:
        await shaky()

    @workflow
    async def in_a_step() -> None:
        await endless()

    async def scenario() -> None:
        async with Engine(":memory:", clock=clock) as engine:
            await in_back_off.options(id="b", deadline=60).start()
            await in_a_step.options(id="s", deadline=60).start()
            await until(lambda: len(did) == 2)
            while (await engine.run("b").info()).state is not State.SUSPENDED:
                pass  # the failed attempt is on its way to the journal
            assert "next attempt of shaky" in (await engine.run("b").info()).waiting_for[0]
            clock.advance(60)
            for run_id in "bs":
                assert (await fails(engine, run_id)).reason == "deadline"

    asyncio.run(scenario())
    assert did == ["shaky", "endless"]


def test_a_run_whose_time_is_over_before_it_begins_starts_no_step(tmp_path: Path) -> None:
    clock = ManualClock()

    async def scenario() -> None:
        async with Engine(tmp_path / "j.db", clock=clock, drive=False):
            await plain.options(id="x", deadline=60).start()
        clock.advance(61)
        async with Engine(tmp_path / "j.db", clock=clock, workflows=[plain]) as engine:
            assert (await fails(engine)).reason == "deadline"

    asyncio.run(scenario())
    assert did == []


@workflow
async def plain() -> None:
    await act("never")


def test_resume_gives_the_time_anew_and_forgets_what_came_of_its_end() -> None:
    clock = ManualClock()

    async def scenario() -> None:
        async with Engine(":memory:", clock=clock) as engine:
            await tidy.options(id="x", deadline=60).start(100)
            await quiet(engine)
            clock.advance(60)
            assert (await fails(engine)).reason == "deadline"
            assert set(await engine.run("x").resume()) == {"~cancel", "act#2"}
            await quiet(engine)
            assert (await engine.run("x").info()).deadline == to_datetime(START + 120_000_000)
            clock.advance(40)
            assert await engine.run("x").result(timeout=20) == "in time"

    asyncio.run(scenario())
    assert did == ["work", "clean", "clean"]


def test_whoever_is_first_is_the_reason() -> None:
    clock = ManualClock()

    @workflow
    async def stubborn() -> None:
        try:
            await sleep(3600)
        except asyncio.CancelledError:
            await sleep(100)

    async def scenario() -> None:
        async with Engine(":memory:", clock=clock) as engine:
            run = await stubborn.options(id="c", deadline=60).start()
            await stubborn.options(id="d", deadline=60).start()
            await quiet(engine)
            await run.cancel(reason="asked")
            await quiet(engine)
            clock.advance(60)
            await quiet(engine)
            await engine.run("d").cancel(reason="late")
            clock.advance(100)
            with pytest.raises(RunCancelled, match="asked"):
                await run.result(timeout=20)
            assert (await fails(engine, "d")).reason == "deadline"

    asyncio.run(scenario())


@pytest.mark.parametrize("held", ["the end", "what tells of it"])
def test_a_deadline_that_passes_while_the_end_is_on_its_way_is_too_late(
    tmp_path: Path, held: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = ManualClock()

    async def scenario() -> None:
        async with Engine(tmp_path / "j.db", clock=clock) as engine:
            run = await tidy.options(id="x", deadline=60).start(30)
            await quiet(engine)
            gate = Gate(engine, "end", monkeypatch, before=held == "the end")
            clock.advance(30)
            await gate.reached()
            clock.advance(30)
            for _ in range(20):
                await asyncio.sleep(0)
            gate.open()
            assert await run.result(timeout=20) == "in time"
        async with Engine(tmp_path / "j.db", clock=clock, workflows=[tidy]) as engine:
            await quiet(engine)
            assert await engine.run("x").result(timeout=20) == "in time"
            assert [entry.key for entry in await engine.run("x").history()] == ["act#1", "sleep#1", "act#2"]

    asyncio.run(scenario())
    assert did == ["work", "clean"]


@pytest.mark.parametrize("wrong", [0, -1, float("inf"), float("nan"), "1", timedelta.max])
def test_a_deadline_that_is_no_positive_duration_is_refused(wrong: float) -> None:
    with pytest.raises(DefinitionError, match="deadline"):
        tidy.options(deadline=wrong)

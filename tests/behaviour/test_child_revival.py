"""Children that were cancelled, and what becomes of them when the parent is resumed."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from durable_sqlite import (
    Engine,
    Retry,
    RunCancelled,
    RunFailed,
    State,
    WrongState,
    sleep,
    step,
    workflow,
)
from tests.support.clock import ManualClock
from tests.support.restarts import die, quiet
from tests.support.stage import ended

did: list[str] = []
down: set[str] = set()


@pytest.fixture(autouse=True)
def forget() -> None:
    did.clear()
    down.clear()


@step
async def act(what: str) -> str:
    did.append(what)
    return what


@step(retry=Retry.fixed(0, max_attempts=2))
async def call(where: str) -> str:
    did.append(where)
    if where in down:
        raise ConnectionError(f"{where} is down")
    return where.upper()


def test_a_child_that_was_cancelled_stays_cancelled() -> None:
    @workflow
    async def parent() -> None:
        await naps.options(id="kid")()

    @workflow
    async def naps() -> None:
        await sleep(3600)

    async def scenario() -> None:
        async with Engine(":memory:", clock=ManualClock()) as engine:
            run = await parent.start()
            await quiet(engine)
            await engine.run("kid").cancel(reason="dup")
            for _ in range(2):
                failed = await ended(run, RunFailed)
                assert failed.record is not None
                assert failed.record.is_a(RunCancelled)
                assert await run.resume() == ("naps#1",)
            with pytest.raises(WrongState):
                await engine.run("kid").resume()
            await ended(run, RunFailed)

    asyncio.run(scenario())


def test_a_child_that_was_given_up_because_a_sibling_failed_goes_on_with_the_resume(tmp_path: Path) -> None:
    """It was cancelled; but that the sibling failed has, from now on, not happened."""

    @workflow
    async def patient() -> str:
        await act("patient")
        await sleep(100)
        return "patient"

    @workflow
    async def parent() -> list[str]:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(patient.options(id="patient")()), group.create_task(late())]
        return [task.result() for task in tasks]

    async def late() -> str:
        await sleep(10)
        return await call("bank")

    async def scenario() -> None:
        clock = ManualClock()
        async with Engine(tmp_path / "j.db", clock=clock) as engine:
            down.add("bank")
            run = await parent.options(id="p").start()
            await quiet(engine)
            clock.advance(10)
            await ended(run, RunFailed)
            await ended(engine.run("patient"), RunCancelled)
            down.clear()
            await run.resume()
            await quiet(engine)
            await die(engine)
        clock.advance(200)
        async with Engine(tmp_path / "j.db", clock=clock, workflows=[parent, patient]) as engine:
            assert await engine.run("p").result(timeout=20) == ["patient", "BANK"]

    asyncio.run(scenario())
    assert did.count("bank") == 3


@pytest.mark.parametrize("chosen", [True, False])
def test_a_child_that_goes_on_with_the_resume_has_its_own_children_go_on(chosen: bool) -> None:
    @workflow
    async def naps() -> str:
        await sleep(100)
        return "awake"

    @workflow
    async def patient() -> str:
        return await (naps.options(id="naps") if chosen else naps)()

    @workflow
    async def parent() -> list[str]:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(patient()), group.create_task(late())]
        return [task.result() for task in tasks]

    async def late() -> str:
        await sleep(10)
        return await call("bank")

    async def scenario() -> None:
        clock = ManualClock()
        async with Engine(":memory:", clock=clock) as engine:
            down.add("bank")
            run = await parent.start()
            await quiet(engine)
            clock.advance(10)
            await ended(run, RunFailed)
            await quiet(engine)
            assert await engine.count(state="cancelled") == 2
            down.clear()
            await run.resume()
            await quiet(engine)
            clock.advance(100)
            assert await run.result(timeout=20) == ["awake", "BANK"]

    asyncio.run(scenario())


def test_a_child_that_was_given_up_before_the_failure_stays_as_it_is() -> None:
    @workflow
    async def naps() -> None:
        await sleep(100)

    @workflow
    async def parent() -> str:
        try:
            async with asyncio.timeout(10):
                await naps.options(id="naps")()
        except TimeoutError:
            await sleep(10)
        return await call("bank")

    async def scenario() -> None:
        clock = ManualClock()
        async with Engine(":memory:", clock=clock) as engine:
            down.add("bank")
            run = await parent.start()
            for _ in range(2):
                await quiet(engine)
                clock.advance(10)
            await ended(run, RunFailed)
            down.clear()
            await run.resume()
            assert await run.result(timeout=20) == "BANK"
            assert (await engine.run("naps").info()).state is State.CANCELLED

    asyncio.run(scenario())

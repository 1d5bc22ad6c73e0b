"""Children and changes of the code: a call is held against the child that it has, ended or not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from durable_sqlite import (
    Engine,
    RunParked,
    SuspendedStepConflict,
    Workflow,
    sleep,
    step,
    workflow,
)
from tests.support.clock import ManualClock
from tests.support.restarts import die, quiet
from tests.support.stage import ended

effects: list[str] = []


@pytest.fixture(autouse=True)
def forget() -> None:
    effects.clear()


@step
async def act(what: str) -> str:
    effects.append(what)
    return what


@workflow
async def greet(name: str) -> str:
    return f"hello {await act(name)}"


@workflow
async def naps(seconds: float) -> str:
    await sleep(seconds)
    return "awake"


def parent_that(call: Callable[[], Coroutine[Any, Any, Any]]) -> Workflow[[], str]:
    @workflow(name="parent")
    async def parent() -> str:
        return f"got {await call()}"

    return parent


@pytest.mark.parametrize("ended_before", [True, False])
@pytest.mark.parametrize("changed", ["arguments", "workflow"])
def test_a_call_that_asks_for_another_child_than_it_has_is_a_divergence(
    tmp_path: Path, ended_before: bool, changed: str
) -> None:
    first = parent_that(lambda: naps.options(key="kid")(100))
    second = parent_that(
        lambda: naps.options(key="kid")(200) if changed == "arguments" else greet.options(key="kid")("ada")
    )

    async def scenario() -> None:
        clock = ManualClock()
        async with Engine(tmp_path / "j.db", clock=clock) as engine:
            await first.options(id="p").start()
            await quiet(engine)
            await die(engine)
        if ended_before:
            clock.advance(100)
            async with Engine(tmp_path / "j.db", clock=clock, workflows=[naps]) as engine:
                await engine.join()
        async with Engine(tmp_path / "j.db", clock=clock, workflows=[second, naps, greet]) as engine:
            await quiet(engine)
            clock.advance(300)
            assert (await ended(engine.run("p"), RunParked)).reason == "diverged"
            assert await engine.count() == 2
            assert effects == []
        async with Engine(tmp_path / "j.db", clock=clock, workflows=[first, naps, greet]) as engine:
            await engine.run("p").resume()
            assert await engine.run("p").result(timeout=20) == "got awake"

    asyncio.run(scenario())


@pytest.mark.parametrize("reverse", [False, True])
def test_a_step_that_meets_the_entry_of_a_child_or_the_reverse_is_a_conflict(tmp_path: Path, reverse: bool) -> None:
    async def as_step() -> str:
        said = await act.options(key="same")("ada")
        await sleep(100)
        return said

    async def as_child() -> str:
        said = await greet.options(key="same")("ada")
        await sleep(100)
        return said

    before, after = (as_child, as_step) if reverse else (as_step, as_child)

    async def scenario() -> None:
        clock = ManualClock()
        async with Engine(tmp_path / "j.db", clock=clock) as engine:
            await parent_that(before).options(id="p").start()
            await quiet(engine)
            await die(engine)
        clock.advance(100)
        async with Engine(tmp_path / "j.db", clock=clock, workflows=[parent_that(after)]) as engine:
            parked = await ended(engine.run("p"), RunParked)
            assert parked.record is not None
            assert parked.record.is_a(SuspendedStepConflict)

    asyncio.run(scenario())
    assert effects == ["ada"]

"""`each` and changes of the code: the calls are compared one by one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from durable_sqlite import (
    Engine,
    RunParked,
    Workflow,
    current_step,
    each,
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
    effects.append(f"{current_step().key} {what}")
    return what


def flow_of(body: Callable[[], Awaitable[Any]]) -> Workflow[[], str]:
    """A workflow that shows what `body` returns."""

    @workflow(name="flow")
    async def flow() -> str:
        return str(await body())

    return flow


async def over_a_change(path: Path, before: Callable[[], Awaitable[Any]], after: Callable[[], Awaitable[Any]]) -> str:
    """Record a fan-out, change the code, and replay it: what the run says then."""
    clock = ManualClock()

    async def with_a_nap(body: Callable[[], Awaitable[Any]]) -> object:
        told = await body()
        await sleep(10)
        return told

    async with Engine(path, clock=clock) as engine:
        await flow_of(lambda: with_a_nap(before)).options(id="x").start()
        await quiet(engine)
        await die(engine)
    clock.advance(10)
    effects.clear()
    flow = flow_of(lambda: with_a_nap(after))
    async with Engine(path, clock=clock, workflows=[flow]) as engine:
        return str(await engine.run("x").result(timeout=20))


@pytest.mark.parametrize(("before", "after"), [(1, None), (None, 1), (3, 2), (2, 3)])
def test_another_concurrency_is_no_change(tmp_path: Path, before: int | None, after: int | None) -> None:
    async def scenario() -> None:
        said = await over_a_change(
            tmp_path / "j.db",
            lambda: each(act, "abcd", concurrency=before),
            lambda: each(act, "abcd", concurrency=after),
        )
        assert said == "['a', 'b', 'c', 'd']"

    asyncio.run(scenario())
    assert effects == []


def test_items_at_the_end_may_come_and_go(tmp_path: Path) -> None:
    async def scenario() -> None:
        more = await over_a_change(tmp_path / "1.db", lambda: each(act, "ab"), lambda: each(act, "abc"))
        assert more == "['a', 'b', 'c']"
        assert effects == ["act#1[2] c"]
        fewer = await over_a_change(tmp_path / "2.db", lambda: each(act, "abc"), lambda: each(act, "ab"))
        assert fewer == "['a', 'b']"
        assert effects == []

    asyncio.run(scenario())


@pytest.mark.parametrize("after", ["xb", "ba", "b", "xab"])
def test_other_items_in_the_place_of_recorded_ones_are_a_divergence(tmp_path: Path, after: str) -> None:
    async def scenario() -> None:
        with pytest.raises(RunParked, match=r"act#1\[0\]") as parked:
            await over_a_change(tmp_path / "j.db", lambda: each(act, "ab"), lambda: each(act, after))
        assert parked.value.reason == "diverged"

    asyncio.run(scenario())
    assert effects == []


def test_a_recorded_item_that_has_moved_is_not_run_again(tmp_path: Path) -> None:
    """Its place is taken by nothing; but the same call is about to be made elsewhere."""

    async def before() -> object:
        return await each(act, "ab")

    async def after() -> object:
        return [*await each(act, "a"), await act("b")]

    async def scenario() -> None:
        with pytest.raises(RunParked, match="Running it would repeat its effect"):
            await over_a_change(tmp_path / "j.db", before, after)

    asyncio.run(scenario())
    assert effects == []


def test_a_limit_of_entries_parks_a_fan_out_that_goes_on_when_it_is_raised(tmp_path: Path) -> None:
    flow = flow_of(lambda: each(act, "abcdef", concurrency=1))

    async def scenario() -> None:
        path = tmp_path / "j.db"
        async with Engine(path, max_entries=4) as engine:
            assert (await ended(await flow.options(id="x").start(), RunParked)).reason == "max_entries"
            assert len(effects) == 4
            del engine
        async with Engine(path, workflows=[flow]) as engine:
            await engine.run("x").resume()
            assert await engine.run("x").result(timeout=20) == "['a', 'b', 'c', 'd', 'e', 'f']"

    asyncio.run(scenario())
    assert len(effects) == 6

"""Runs that a body finds by their ids: to wait for, to attach to, to be refused by."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from durable_sqlite import (
    Engine,
    Outcome,
    Run,
    RunCancelled,
    RunConflict,
    RunExists,
    RunFailed,
    Signal,
    State,
    Suspend,
    UnknownRun,
    sleep,
    step,
    workflow,
)
from tests.support.clock import ManualClock
from tests.support.restarts import die, quiet
from tests.support.stage import ended

effects: list[str] = []
told: list[str] = []


@pytest.fixture(autouse=True)
def forget() -> None:
    effects.clear()
    told.clear()


class Knock(Signal):
    where: str


class HowManyKids(Suspend[int]):
    what: str


class Point(BaseModel):
    x: int


@step
async def act(what: str) -> str:
    effects.append(what)
    return what


@workflow
async def plot(x: int) -> Point:
    await act(f"plot {x}")
    return Point(x=x)


@workflow
async def naps(seconds: float) -> str:
    await sleep(seconds)
    return "awake"


@workflow
async def breaks(why: str) -> str:
    raise LookupError(why)


@workflow
async def listens() -> str:
    went = await Knock.wait()
    number = await HowManyKids(what="how many?")
    return f"{went.where} {number}"


async def over_a_restart(folder: Path, flow: Callable[[], Coroutine[Any, Any, Any]], meanwhile: float = 10) -> Engine:
    """Start `flow` as `x`, kill the process when it waits, and go on `meanwhile` seconds later; the second engine, closed."""
    clock = ManualClock()
    body = workflow(flow)
    async with Engine(folder / "j.db", clock=clock) as engine:
        await body.options(id="x").start()
        await quiet(engine)
        await die(engine)
    clock.advance(meanwhile)
    async with Engine(folder / "j.db", clock=clock, workflows=[body, plot, naps, breaks, listens]) as engine:
        await engine.run("x").result(timeout=20)
    return engine


# Found by a body -----------------------------------------------------------------------------------------------------


def test_a_body_waits_for_any_run_by_a_typed_handle(tmp_path: Path) -> None:
    async def flow() -> str:
        stranger = plot.run("stranger")
        point = await stranger.result()
        told.append(type(point).__name__)
        await sleep(10)
        return f"{stranger.id} {point.x}"

    async def scenario() -> None:
        async with Engine(tmp_path / "j.db") as engine:
            await plot.options(id="stranger").start(3)
            await quiet(engine)
            assert await plot.run("stranger") == Point(x=3)
            assert await engine.run("stranger") == {"x": 3}  # plain data: the type is not known there
        await over_a_restart(tmp_path, flow)
        async with Engine(tmp_path / "j.db", drive=False) as engine:
            assert await engine.run("x") == "stranger 3"

    asyncio.run(scenario())
    assert told == ["Point", "Point"]


@pytest.mark.parametrize("unload_after", [0.0, 3600.0])
def test_the_end_of_a_run_that_is_no_child_wakes_whoever_waits_for_it(unload_after: float) -> None:
    @workflow
    async def waits() -> str:
        try:
            return await naps.run("stranger").result()
        except RunFailed as failed:
            return f"{failed.key}: {failed.reason}"

    async def scenario() -> None:
        clock = ManualClock()
        async with Engine(":memory:", clock=clock, unload_after=unload_after) as engine:
            await naps.options(id="stranger").start(100)
            runs = [await waits.start() for _ in range(3)]
            await quiet(engine)
            info = await runs[0].info()
            assert info.state is State.SUSPENDED
            assert info.waiting_for[0].startswith("the end of run stranger (result#1) since ")
            clock.advance(100)
            for run in runs:
                assert await run.result(timeout=20) == "awake"

    asyncio.run(scenario())


def test_a_failed_stranger_is_told_like_a_failed_child() -> None:
    @workflow
    async def waits() -> str:
        try:
            return await breaks.run("stranger").result()
        except RunFailed as failed:
            record = failed.record
            return f"{failed.run_id} {failed.key} {failed.reason} {'' if record is None else record.message}"

    async def scenario() -> None:
        async with Engine(":memory:"):
            await ended(await breaks.options(id="stranger").start("no tea"), RunFailed)
            assert await waits() == "stranger result#1 error no tea"

    asyncio.run(scenario())


def test_an_unknown_run_is_an_error_in_the_body_and_again_on_replay(tmp_path: Path) -> None:
    async def flow() -> None:
        nobody: Run[Any] = plot.run("nobody")
        for attempt in (nobody.result, lambda: nobody.signal(Knock(where="north")), nobody.cancel):
            try:
                await attempt()
            except UnknownRun as unknown:
                told.append(f"{unknown.run_id}: {unknown}")
        await sleep(10)

    async def scenario() -> None:
        engine = await over_a_restart(tmp_path, flow)
        assert "closed" in repr(engine)

    asyncio.run(scenario())
    assert told == ["nobody: no run has the id nobody"] * 6


def test_a_handle_that_an_application_holds_is_durable_where_a_body_uses_it() -> None:
    held: list[Run[str]] = []

    @workflow
    async def flow() -> str:
        return await held[0]

    async def scenario() -> None:
        clock = ManualClock()
        async with Engine(":memory:", clock=clock) as engine:
            held.append(await naps.start(100))
            run = await flow.start()
            await quiet(engine)
            clock.advance(100)
            assert await run.result(timeout=20) == "awake"
            assert [entry.key for entry in await run.history()] == ["result#1"]

    asyncio.run(scenario())


# Ids that are taken --------------------------------------------------------------------------------------------------


def test_a_chosen_id_attaches_to_the_run_of_the_same_input_and_conflicts_with_any_other(tmp_path: Path) -> None:
    async def flow() -> None:
        point = await plot.options(id="taken")(3)
        handle = await plot.options(id="taken").start(3)
        told.append(f"{point.x} {handle.created}")
        for attempt in (
            lambda: plot.options(id="taken")(4),
            lambda: plot.options(id="taken").start(4),
            lambda: naps.options(id="taken")(3),
            lambda: plot.options(id="taken", if_exists="fail")(3),
            lambda: plot.options(id="busy", if_exists="replace")(3),
        ):
            try:
                await attempt()
            except (RunConflict, RunExists) as refused:
                told.append(f"{type(refused).__name__} {refused.run_id}")
        await sleep(10)

    async def scenario() -> None:
        async with Engine(tmp_path / "j.db", clock=ManualClock()):
            await plot.options(id="taken")(3)
            await naps.options(id="busy").start(3600)
        await over_a_restart(tmp_path, flow)
        async with Engine(tmp_path / "j.db", drive=False) as engine:
            history = await engine.run("x").history()
            assert [entry.key for entry in history if entry.outcome is Outcome.DECLARED] == [
                "plot#3",
                "plot#4",
                "naps#1",
                "plot#5",
                "plot#6",
            ]

    asyncio.run(scenario())
    first, again = told[:6], told[6:]
    assert first == again
    assert first == [
        "3 False",
        "RunConflict taken",
        "RunConflict taken",
        "RunConflict taken",
        "RunExists taken",
        "RunConflict busy",
    ]
    assert effects == ["plot 3"]


@pytest.mark.parametrize("if_exists", ["attach", "fail", "replace"])
def test_a_child_with_a_chosen_id_is_this_very_call_s_also_after_a_crash(tmp_path: Path, if_exists: str) -> None:
    chosen: Any = if_exists

    async def flow() -> str:
        slow = naps.options(id="kid", if_exists=chosen)
        return await slow(10)

    async def scenario() -> None:
        await over_a_restart(tmp_path, flow)
        async with Engine(tmp_path / "j.db", drive=False) as engine:
            assert await engine.run("x") == "awake"
            assert await engine.count(workflow=naps) == 1

    asyncio.run(scenario())


def test_a_run_that_a_body_attached_to_is_no_child_of_it() -> None:
    @workflow
    async def flow() -> str:
        try:
            async with asyncio.timeout(10):
                return await naps.options(id="stranger")(100)
        except TimeoutError:
            return await naps.options(id="stranger")(100)

    async def scenario() -> None:
        clock = ManualClock()
        async with Engine(":memory:", clock=clock) as engine:
            stranger = await naps.options(id="stranger").start(100)
            run = await flow.start()
            await quiet(engine)
            clock.advance(10)
            await quiet(engine)
            info = await stranger.info()
            assert (info.state, info.parent) == (State.SUSPENDED, None)
            await run.cancel()
            await ended(run, RunCancelled)
            assert (await stranger.info()).state is State.SUSPENDED
            clock.advance(90)
            assert await stranger.result(timeout=20) == "awake"

    asyncio.run(scenario())

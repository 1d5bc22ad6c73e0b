"""What a child is given and gives: inputs, results, errors."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from durable_sqlite import (
    Engine,
    ErrorRecord,
    Kind,
    Outcome,
    PayloadTooLarge,
    RunCancelled,
    RunFailed,
    RunParked,
    State,
    StepFailed,
    Unstorable,
    sleep,
    step,
    workflow,
)
from tests.support.clock import ManualClock
from tests.support.families import becomes, children, recorded
from tests.support.restarts import die, quiet
from tests.support.stage import Stage, ended

effects: list[str] = []


@pytest.fixture(autouse=True)
def forget() -> None:
    effects.clear()


@step
async def act(what: str) -> str:
    effects.append(what)
    return what


@step
async def refuse(why: str) -> str:
    effects.append("refuse")
    raise LookupError(why)


@workflow
async def greet(name: str) -> str:
    return f"hello {await act(name)}"


@workflow
async def fails(why: str) -> str:
    return await refuse(why)


@workflow
async def naps(seconds: float) -> str:
    await sleep(seconds)
    return "awake"


# Inputs and results --------------------------------------------------------------------------------------------------


def test_an_input_that_cannot_be_stored_is_an_error_at_the_call_and_starts_nothing() -> None:
    vague: Any = greet

    @workflow
    async def parent() -> list[str]:
        told: list[str] = []
        calls: list[tuple[Any, tuple[object, ...]]] = [
            (vague, (object(),)),
            (vague.start, (object(),)),
            (vague, ("x" * 2_000,)),
            (vague, ()),
        ]
        for call, arguments in calls:
            try:
                call(*arguments)  # not awaited: the error is here
            except (Unstorable, PayloadTooLarge, TypeError) as error:
                told.append(f"{type(error).__name__}: {error}")
        told.append(await greet("ada"))
        return told

    async def scenario() -> None:
        async with Engine(":memory:", payload_limit=1_000) as engine:
            run = await parent.start()
            first, second, third, fourth, fifth = await run
            assert first == second
            assert first.startswith("Unstorable: workflow greet: input")
            assert "$.name" in first
            assert third.startswith("PayloadTooLarge")
            assert fourth.startswith("TypeError")
            assert fifth == "hello ada"
            assert [entry.name for entry in await run.history()] == ["greet"]
            assert await engine.count(workflow=greet) == 1

    asyncio.run(scenario())


def test_results_keep_their_types_and_are_what_replay_would_give(tmp_path: Path) -> None:
    kept: list[object] = []
    seen: list[list[Any]] = []

    class Model(BaseModel):
        words: list[str]

    @dataclass
    class Point:
        x: int

    @workflow
    async def model() -> Model:
        made = Model(words=["a"])
        kept.append(made)
        return made

    @workflow
    async def pair() -> tuple[Point, Decimal]:
        return Point(3), Decimal("1.20")

    @workflow
    async def nothing() -> None:
        return None

    @workflow
    async def empty() -> list[bytes]:
        return []

    @workflow
    async def parent() -> None:
        got: list[Any] = [await model(), await pair(), await asyncio.gather(nothing()), await empty()]
        seen.append(got)
        await sleep(10)

    async def scenario() -> None:
        clock = ManualClock()
        async with Engine(tmp_path / "j.db", clock=clock) as engine:
            await parent.options(id="x").start()
            await quiet(engine)
            await die(engine)
        clock.advance(10)
        async with Engine(tmp_path / "j.db", clock=clock, workflows=[parent]) as engine:
            await engine.run("x")

    asyncio.run(scenario())
    first, again = seen
    assert first == again == [Model(words=["a"]), (Point(3), Decimal("1.20")), [None], []]
    assert first[0] is not kept[0]


# Errors --------------------------------------------------------------------------------------------------------------


def test_a_failed_child_raises_the_same_error_on_the_first_pass_and_on_replay(tmp_path: Path) -> None:
    caught: list[RunFailed] = []

    @workflow
    async def parent() -> str:
        try:
            await fails("no tea")
        except RunFailed as error:
            caught.append(error)
        await sleep(10)
        return "went on"

    async def scenario() -> None:
        clock = ManualClock()
        async with Engine(tmp_path / "j.db", clock=clock) as engine:
            await parent.options(id="x").start()
            await quiet(engine)
            (child,) = await children(engine, "x")
            assert (await engine.run(child).info()).state is State.FAILED
            (entry,) = await engine.run("x").history()
            assert (entry.key, entry.kind, entry.outcome) == ("fails#1", Kind.CHILD, Outcome.ERROR)
            await die(engine)
        clock.advance(10)
        async with Engine(tmp_path / "j.db", clock=clock, workflows=[parent]) as engine:
            assert await engine.run("x") == "went on"
        for error in caught:
            assert type(error) is RunFailed
            assert (error.run_id, error.reason, error.key) == (child, "retries_exhausted", "fails#1")
            assert error.record is not None
            assert error.record.is_a(StepFailed)
            assert error.record.key == "refuse#1"
            assert error.record.cause is not None
            assert error.record.cause.is_a(LookupError)
            assert error.record.cause.message == "no tea"
        first, again = caught
        assert (str(first), first.record) == (str(again), again.record)

    asyncio.run(scenario())
    assert effects == ["refuse"]


def test_a_failure_that_nobody_catches_goes_up_with_its_whole_chain() -> None:
    @workflow
    async def middle() -> str:
        return await fails("no tea")

    @workflow
    async def top() -> str:
        return await middle()

    async def scenario() -> None:
        async with Engine(":memory:") as engine:
            run = await top.start()
            failed = await ended(run, RunFailed)
            assert (failed.run_id, failed.reason, failed.key) == (run.id, "error", None)
            chain: list[tuple[str, str | None]] = []
            link: ErrorRecord | None = failed.record
            while link is not None:
                chain.append((link.type.rpartition(".")[2], link.key))
                link = link.cause
            assert chain == [
                ("RunFailed", "middle#1"),
                ("RunFailed", "fails#1"),
                ("StepFailed", "refuse#1"),
                ("LookupError", None),
            ]
            assert await engine.count(state="failed") == 3

    asyncio.run(scenario())


def test_a_child_that_somebody_cancels_raises_run_cancelled_and_the_parent_goes_on() -> None:
    @workflow
    async def parent() -> str:
        try:
            return await naps.options(id="kid")(3600)
        except RunCancelled as cancelled:
            return f"{cancelled.run_id} {cancelled.key} {cancelled.reason}: {cancelled}"

    async def scenario() -> None:
        async with Engine(":memory:") as engine:
            run = await parent.start()
            await quiet(engine)
            await engine.run("kid").cancel(reason="dup", by="ada")
            assert await run == "kid naps#1 dup: run kid was cancelled by ada: dup"
            assert (await run.info()).state is State.COMPLETED

    asyncio.run(scenario())


def test_a_cancelled_child_that_nobody_catches_fails_its_parent() -> None:
    @workflow
    async def parent() -> str:
        return await naps.options(id="kid")(3600)

    async def scenario() -> None:
        async with Engine(":memory:") as engine:
            run = await parent.start()
            await quiet(engine)
            await engine.run("kid").cancel(reason="dup")
            failed = await ended(run, RunFailed)
            assert failed.record is not None
            assert failed.record.is_a(RunCancelled)

    asyncio.run(scenario())


@pytest.mark.parametrize("unload_after", [0.0, 3600.0])
def test_a_parent_waits_on_a_parked_child_and_goes_on_after_its_resume(unload_after: float) -> None:
    mended: list[bool] = []

    @workflow
    async def fragile() -> str:
        await act("begin")
        if not mended:
            await asyncio.get_running_loop().create_future()  # which nothing will bring about
        return "mended"

    @workflow
    async def parent() -> str:
        return await fragile.options(id="kid")()

    async def scenario() -> None:
        async with Engine(":memory:", unload_after=unload_after) as engine:
            run = await parent.start()
            await quiet(engine)
            parked = await ended(engine.run("kid"), RunParked)
            assert parked.reason == "not_durable"
            info = await run.info()
            assert info.state is State.SUSPENDED
            assert info.waiting_for[0].startswith("child run kid of fragile (fragile#1) since ")
            mended.append(True)
            await engine.run("kid").resume()
            assert await run.result(timeout=20) == "mended"

    asyncio.run(scenario())
    assert effects == ["begin"]


@pytest.mark.parametrize("way", ["call", "handle"])
def test_a_parent_that_is_driven_anew_beside_a_parked_child_still_waits_for_it(tmp_path: Path, way: str) -> None:
    mended: list[bool] = []

    @workflow
    async def fragile() -> str:
        if not mended:
            await asyncio.get_running_loop().create_future()  # which nothing will bring about
        return "mended"

    async def by_handle() -> str:
        return await (await fragile.options(id="kid").start()).result()

    @workflow
    async def parent() -> str:
        wait: Coroutine[Any, Any, str] = fragile.options(id="kid")() if way == "call" else by_handle()
        async with asyncio.TaskGroup() as group:
            said = group.create_task(wait)
            group.create_task(sleep(10))
        return said.result()

    async def scenario() -> None:
        clock = ManualClock()
        async with Engine(tmp_path / "j.db", clock=clock) as engine:
            await parent.options(id="p").start()
            await quiet(engine)
            await ended(engine.run("kid"), RunParked)
            await die(engine)
        clock.advance(10)
        async with Engine(tmp_path / "j.db", clock=clock, workflows=[parent, fragile]) as engine:
            await quiet(engine)
            await recorded(engine.run("p"), 1 if way == "call" else 2)
            await becomes(engine.run("p"), State.SUSPENDED)
            mended.append(True)
            await engine.run("kid").resume()
            assert await engine.run("p").result(timeout=20) == "mended"

    asyncio.run(scenario())


@pytest.mark.contradicts("two", "crash", reason="it asks for a child as soon as its own engine is at rest")
def test_a_child_that_was_parked_is_heard_of_while_a_step_of_the_parent_is_in_flight() -> None:
    mended: list[bool] = []
    stage = Stage()

    @step
    async def slow() -> str:
        await stage.enter("slow")
        return "slow"

    @workflow
    async def fragile() -> str:
        if not mended:
            await asyncio.get_running_loop().create_future()  # which nothing will bring about
        return "mended"

    async def branch() -> None:
        await act(await fragile.options(id="kid")())
        stage.let("slow")

    @workflow
    async def parent() -> str:
        async with asyncio.TaskGroup() as group:
            slow_one = group.create_task(slow())
            group.create_task(branch())
        return slow_one.result()

    async def scenario() -> None:
        async with Engine(":memory:") as engine:
            run = await parent.start()
            await stage.seen("slow")
            await ended(engine.run("kid"), RunParked)
            await engine.run("kid").info()
            mended.append(True)
            await engine.run("kid").resume()
            # The step ends only after the branch has gone on.
            assert await run.result(timeout=5) == "slow"

    asyncio.run(scenario())
    assert effects == ["mended"]

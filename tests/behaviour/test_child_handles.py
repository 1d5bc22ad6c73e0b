"""Handles in a body: runs that it started without waiting, runs that it found, ids that are taken."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from durable_sqlite import (
    Engine,
    Kind,
    NotDurable,
    Outcome,
    RunCancelled,
    RunFailed,
    Signal,
    SignalRejected,
    State,
    Suspend,
    UsageError,
    WrongState,
    sleep,
    step,
    workflow,
)
from tests.support.clock import ManualClock
from tests.support.gates import Gate
from tests.support.restarts import die, quiet
from tests.support.stage import ended

effects: list[str] = []
told: list[str] = []


@pytest.fixture(autouse=True)
def forget() -> None:
    effects.clear()
    told.clear()


class Depart(Signal):
    where: str


class WhatNumber(Suspend[int]):
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
    went = await Depart.wait()
    number = await WhatNumber(what="how many?")
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


# Started in a body ---------------------------------------------------------------------------------------------------


def test_a_started_child_gives_a_typed_handle_that_outlives_the_process(tmp_path: Path) -> None:
    async def flow() -> str:
        handle = await plot.start(3)
        told.append(f"{handle.id} {handle.created}")
        await sleep(10)
        return f"{(await handle.result()).x} {(await handle).x}"

    async def scenario() -> None:
        await over_a_restart(tmp_path, flow)
        async with Engine(tmp_path / "j.db", drive=False) as engine:
            assert await engine.run("x") == "3 3"
            history = await engine.run("x").history()
            assert [(entry.key, entry.kind) for entry in history] == [
                ("plot#1", Kind.ACT),
                ("sleep#1", Kind.SLEEP),
                ("result#1", Kind.RUN),
                ("result#2", Kind.RUN),
            ]
            (child,) = [info async for info in engine.runs(workflow=plot)]
            assert child.parent == "x"

    asyncio.run(scenario())
    first, again = told
    assert first == again
    assert first.endswith(" True")
    assert effects == ["plot 3"]


def test_a_child_that_was_started_outlives_the_body_that_started_it() -> None:
    @workflow
    async def flow() -> str:
        return (await naps.start(100)).id

    async def scenario() -> None:
        clock = ManualClock()
        async with Engine(":memory:", clock=clock) as engine:
            child = await flow()
            await quiet(engine)
            assert (await engine.run(child).info()).state is State.SUSPENDED
            clock.advance(100)
            assert await engine.run(child).result(timeout=20) == "awake"

    asyncio.run(scenario())


def test_a_message_an_answer_and_a_cancel_through_a_handle_are_durable_calls_made_once(tmp_path: Path) -> None:
    async def flow() -> str:
        first, second = await listens.start(), await listens.start()
        await first.signal(Depart(where="north"))
        await second.cancel(reason="not needed", by="x")
        await sleep(10)  # long enough for the question to be asked
        await first.answer(WhatNumber, 7, by="x")
        await sleep(10)
        try:
            await second.result()
        except RunCancelled as cancelled:
            told.append(f"{cancelled.run_id == second.id} {cancelled.reason} {cancelled.key}")
        return await first.result()

    async def scenario() -> None:
        clock = ManualClock()
        body = workflow(flow)
        for _ in range(4):
            async with Engine(tmp_path / "j.db", clock=clock, workflows=[body, listens]) as engine:
                await body.options(id="x").start()
                await quiet(engine)
                await die(engine)
            clock.advance(10)
        async with Engine(tmp_path / "j.db", clock=clock, workflows=[body, listens]) as engine:
            assert await engine.run("x").result(timeout=20) == "north 7"
            keys = [entry.key for entry in await engine.run("x").history() if entry.kind is Kind.ACT]
            assert keys == ["listens#1", "listens#2", "signal#1", "cancel#1", "answer#1"]
            first, second = [info.id async for info in engine.runs(workflow=listens, newest_first=False)]
            assert [entry.key for entry in await engine.run(first).history()] == ["Depart#1", "WhatNumber#1"]
            assert await engine.run(first).messages() == []
            assert (await engine.run(second).info()).reason == "not needed"

    asyncio.run(scenario())
    assert set(told) == {"True not needed result#1"}


def test_a_cancel_that_was_not_recorded_before_a_crash_is_not_refused_because_it_worked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @workflow
    async def flow() -> str:
        handle = await naps.options(id="kid").start(3600)
        await sleep(10)
        await handle.cancel(reason="not needed")
        return "cancelled it"

    async def scenario() -> None:
        clock = ManualClock()
        async with Engine(tmp_path / "j.db", clock=clock) as engine:
            await flow.options(id="x").start()
            await quiet(engine)
            gate = Gate(engine, "cancel", monkeypatch)
            clock.advance(10)
            await gate.reached()
            await die(engine)
        monkeypatch.undo()
        async with Engine(tmp_path / "j.db", clock=clock, workflows=[naps]) as engine:  # it does not know the parent
            assert (await ended(engine.run("kid"), RunCancelled)).reason == "not needed"
        async with Engine(tmp_path / "j.db", clock=clock, workflows=[flow]) as engine:
            assert await engine.run("x").result(timeout=20) == "cancelled it"

    asyncio.run(scenario())


@pytest.mark.contradicts("crash", reason="its body notes each pass")
def test_what_a_run_refuses_is_raised_in_the_body_and_again_on_replay(tmp_path: Path) -> None:
    async def flow() -> None:
        done = await plot.start(3)
        await done.result()
        attempts: list[Callable[[], Coroutine[Any, Any, None]]] = [
            lambda: done.signal(Depart(where="north")),
            lambda: done.answer(WhatNumber, 7),
            done.cancel,
        ]
        for attempt in attempts:
            try:
                await attempt()
            except (SignalRejected, WrongState) as refused:
                told.append(f"{type(refused).__name__} {refused.run_id == done.id} {refused}")
        await sleep(10)

    async def scenario() -> None:
        await over_a_restart(tmp_path, flow)
        async with Engine(tmp_path / "j.db", drive=False) as engine:
            refusals = [e.key for e in await engine.run("x").history() if e.outcome is Outcome.DECLARED]
            assert refusals == ["signal#1", "answer#1", "cancel#1"]

    asyncio.run(scenario())
    first, again = told[:3], told[3:]
    assert first == again
    assert [said.split(" ")[:2] for said in first] == [
        ["SignalRejected", "True"],
        ["SignalRejected", "True"],
        ["WrongState", "True"],
    ]


def test_what_only_an_application_may_do_is_refused_in_a_body() -> None:
    @workflow
    async def flow() -> list[str]:
        handle = await naps.start(100)
        refused: list[str] = []
        for ask in (
            handle.info,
            handle.history,
            handle.messages,
            handle.questions,
            handle.pause,
            handle.terminate,
            handle.resume,
            handle.discard,
        ):
            try:
                await ask()
            except NotDurable as error:
                refused.append(str(error))
        try:
            await handle.result(timeout=3)
        except UsageError as error:
            refused.append(str(error))
        return refused

    async def scenario() -> None:
        async with Engine(":memory:"):
            *others, last = await flow()
            assert len(others) == 8
            assert all("inside a body is not recorded" in said for said in others)
            assert "asyncio.timeout" in last

    asyncio.run(scenario())


@pytest.mark.parametrize("unload_after", [0.0, 3600.0])
def test_a_second_wait_for_a_run_that_goes_on_again_waits_for_its_new_end(unload_after: float) -> None:
    down = ["the bank"]

    @step
    async def check() -> None:
        if down:
            raise ConnectionError(down[0])

    @workflow
    async def shaky() -> str:
        await check()
        await sleep(100)
        return "awake"

    @workflow
    async def flow() -> str:
        handle = await shaky.options(id="kid").start()
        try:
            return await handle.result()
        except RunFailed:
            await sleep(10)
            return f"again: {await handle.result()}"

    async def scenario() -> None:
        clock = ManualClock()
        async with Engine(":memory:", clock=clock, unload_after=unload_after) as engine:
            run = await flow.start()
            await quiet(engine)
            down.clear()
            await engine.run("kid").resume()
            for seconds in (10, 90):
                await quiet(engine)
                clock.advance(seconds)
            assert await run.result(timeout=20) == "again: awake"

    asyncio.run(scenario())


def test_two_branches_that_wait_for_one_run_both_hear_of_its_end() -> None:
    @workflow
    async def flow() -> list[str]:
        handle = await naps.start(10)
        return list(await asyncio.gather(handle.result(), handle.result()))

    async def scenario() -> None:
        clock = ManualClock()
        async with Engine(":memory:", clock=clock, unload_after=10_000) as engine:
            run = await flow.start()
            await quiet(engine)
            clock.advance(10)
            assert await run.result(timeout=20) == ["awake", "awake"]
            keys = [entry.key for entry in await run.history() if entry.kind is Kind.RUN]
            assert len(set(keys)) == 2

    asyncio.run(scenario())


def test_a_wait_by_handle_that_is_given_up_leaves_the_run_alone() -> None:
    @workflow
    async def flow() -> str:
        handle = await naps.options(id="kid").start(100)
        try:
            async with asyncio.timeout(10):
                await handle.result()
        except TimeoutError:
            return f"later: {await handle.result()}"
        return "not reached"

    async def scenario() -> None:
        clock = ManualClock()
        async with Engine(":memory:", clock=clock) as engine:
            run = await flow.start()
            await quiet(engine)
            clock.advance(10)
            await quiet(engine)
            assert (await engine.run("kid").info()).state is State.SUSPENDED
            clock.advance(90)
            assert await run.result(timeout=20) == "later: awake"

    asyncio.run(scenario())

"""Parents and children at one moment: the end of a child, its start, and what happens beside that."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from durable_sqlite import (
    Engine,
    Kind,
    Run,
    RunCancelled,
    RunFailed,
    State,
    current_step,
    sleep,
    step,
    workflow,
)
from tests.support.clock import ManualClock
from tests.support.families import becomes, recorded
from tests.support.gates import Gate, eventually
from tests.support.restarts import die, quiet
from tests.support.stage import Stage, ended, until

effects: list[str] = []


@pytest.fixture(autouse=True)
def forget() -> None:
    effects.clear()


@step
async def act(what: str) -> str:
    effects.append(f"{current_step().run_id} {what}")
    return what


@workflow
async def child(name: str, seconds: float) -> str:
    await act(f"{name} begins")
    try:
        await sleep(seconds)
        return await act(f"{name} is done")
    except asyncio.CancelledError:
        await act(f"{name} tidies up")
        raise


# The moment at which the child ends ----------------------------------------------------------------------------------


@pytest.mark.parametrize("parent_is", ["resident", "unloaded", "dead"])
def test_the_end_of_a_child_reaches_a_parent_wherever_that_is(tmp_path: Path, parent_is: str) -> None:
    clock = ManualClock()

    @workflow
    async def parent() -> str:
        await act("begin")
        return await child.options(id="kid")("a", 100)

    async def scenario() -> None:
        path = tmp_path / "j.db"
        async with Engine(path, clock=clock, unload_after=0 if parent_is == "unloaded" else 3600) as engine:
            run = await parent.options(id="p").start()
            await quiet(engine)
            assert (await run.info()).state is State.SUSPENDED
            if parent_is == "dead":
                await die(engine)
            else:
                clock.advance(100)
                assert await run.result(timeout=20) == "a is done"
        if parent_is == "dead":
            async with Engine(path, clock=clock, workflows=[child]) as engine:  # it does not know the parent
                clock.advance(100)
                assert await engine.run("kid").result(timeout=20) == "a is done"
            async with Engine(path, clock=clock, workflows=[parent]) as engine:
                assert await engine.run("p").result(timeout=20) == "a is done"

    asyncio.run(scenario())
    assert effects == ["p begin", "kid a begins", "kid a is done"]


def test_a_child_that_ends_while_a_step_of_its_parent_is_in_flight_is_heard_at_once() -> None:
    stage = Stage()

    @step
    async def slow() -> str:
        await stage.enter("slow")
        return "slow"

    async def branch() -> None:
        await act(await child("a", 10))
        stage.let("slow")

    @workflow
    async def parent() -> str:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(slow())
            group.create_task(branch())
        return task.result()

    async def scenario() -> None:
        clock = ManualClock()
        async with Engine(":memory:", clock=clock) as engine:
            run = await parent.options(id="p").start()
            await stage.seen("slow")
            await until(lambda: len(effects) == 1)
            (kid,) = [engine.run(info.id) async for info in engine.runs(workflow=child)]
            await becomes(kid, State.SUSPENDED)
            clock.advance(10)
            assert await run.result(timeout=20) == "slow"

    asyncio.run(scenario())


@pytest.mark.contradicts("two", "crash", reason="it decides what the one engine hears first")
@pytest.mark.parametrize(
    ("held", "said", "keys"),
    [
        pytest.param(
            "reclaim",
            "linger",
            ["child#1"],
            marks=pytest.mark.contradicts("unload", reason="its parent is to be in memory when the child ends"),
        ),
        ("end", "too long", ["asyncio.timeout#1"]),
    ],
)
def test_the_end_of_a_child_and_its_parent_s_timeout_at_once_are_one_order(
    tmp_path: Path, held: str, said: str, keys: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Held is what tells the parent that the child has ended: that it is to go on, or that alone."""
    stage = Stage()

    @step
    async def linger() -> str:
        await stage.enter("linger")
        return "linger"

    @workflow
    async def child() -> str:
        return await linger()

    @workflow
    async def parent() -> str:
        try:
            async with asyncio.timeout(10):
                return await child.options(id="kid")()
        except TimeoutError:
            return "too long"

    async def scenario() -> None:
        clock = ManualClock()
        async with Engine(tmp_path / "j.db", clock=clock) as engine:
            run = await parent.options(id="p").start()
            await stage.seen("linger")
            await becomes(run, State.SUSPENDED)
            gate = Gate(engine, held, monkeypatch)
            stage.let("linger")
            await gate.reached()
            await becomes(engine.run("kid"), State.COMPLETED)
            clock.advance(10)
            if held == "end":
                await becomes(run, State.COMPLETED)
            gate.open()
            assert await run.result(timeout=20) == said
            assert [entry.key for entry in await run.history()] == keys
            await die(engine)
        monkeypatch.undo()
        async with Engine(tmp_path / "j.db", clock=clock, workflows=[parent, child]) as engine:
            assert await engine.run("p").result(timeout=20) == said
            assert (await engine.run("kid").info()).state is State.COMPLETED

    asyncio.run(scenario())


@pytest.mark.parametrize("first", ["the child ends", "the parent gives it up"])
def test_the_end_of_a_child_and_its_parent_s_giving_it_up_at_once_are_one_order(
    tmp_path: Path, first: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Held is the end of the child until its parent has asked it to end; or what asks it, until it has ended."""
    stage = Stage()

    @step
    async def linger() -> str:
        await stage.enter("linger")
        return "linger"

    @workflow
    async def child() -> str:
        return await linger()

    @workflow
    async def parent() -> str:
        try:
            async with asyncio.timeout(10):
                return await child.options(id="kid")()
        except TimeoutError:
            await sleep(1e6)
        return "too long"

    async def scenario() -> None:
        clock = ManualClock()
        async with Engine(tmp_path / "j.db", clock=clock) as engine:
            run = await parent.options(id="p").start()
            kid = engine.run("kid")
            await stage.seen("linger")
            await becomes(run, State.SUSPENDED)
            if first == "the child ends":
                gate = Gate(engine, "abandon", monkeypatch, before=True)
                clock.advance(10)
                await gate.reached()
                stage.let("linger")
                await becomes(kid, State.COMPLETED)
                gate.open()
            else:
                gate = Gate(engine, "end", monkeypatch, before=True)
                stage.let("linger")
                await gate.reached()
                clock.advance(10)
                await recorded(run, 1)
                await becomes(run, State.SUSPENDED)
                gate.open()
            await becomes(run, State.SUSPENDED)
            await becomes(kid, State.COMPLETED if first == "the child ends" else State.CANCELLED)
            await die(engine)
        monkeypatch.undo()
        async with Engine(tmp_path / "j.db", clock=clock, workflows=[parent, child]) as engine:
            run, kid = engine.run("p"), engine.run("kid")
            await quiet(engine)
            clock.advance(1e6)
            assert await run.result(timeout=20) == "too long"
            assert [entry.key for entry in await run.history()] == ["asyncio.timeout#1", "sleep#1"]
            assert [entry.key for entry in await kid.history()] == ["linger#1"]
            if first == "the child ends":
                assert await kid.result(timeout=20) == "linger"
            else:
                assert (await ended(kid, RunCancelled)).reason.endswith("no longer waits for it")

    asyncio.run(scenario())
    assert stage.began == ["linger"]


@pytest.mark.contradicts("two", "crash", "unload", reason="it decides what the one engine hears first")
def test_a_cancel_that_a_parent_hears_of_before_the_end_of_its_child_is_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = Stage()

    @step
    async def linger(where: str) -> None:
        await stage.enter(where)

    @workflow
    async def child() -> None:
        await linger("child")

    @workflow
    async def parent() -> None:
        try:
            await child.options(id="kid")()
        except asyncio.CancelledError:
            await linger("tidy up")
            raise

    async def scenario() -> None:
        clock = ManualClock()
        async with Engine(tmp_path / "j.db", clock=clock) as engine:
            run = await parent.options(id="p").start()
            await stage.seen("child")
            await becomes(run, State.SUSPENDED)
            gate = Gate(engine, "reclaim", monkeypatch)
            stage.let("child")
            await gate.reached()
            await run.cancel(reason="enough")
            gate.open()
            await stage.seen("tidy up")
            await die(engine)
        monkeypatch.undo()
        stage.let("tidy up")
        async with Engine(tmp_path / "j.db", clock=clock, workflows=[parent, child]) as engine:
            assert (await ended(engine.run("p"), RunCancelled)).reason == "enough"
            assert [entry.key for entry in await engine.run("p").history()] == ["~cancel", "linger#1"]
            assert (await engine.run("kid").info()).state is State.COMPLETED

    asyncio.run(scenario())


# A start that is on its way ------------------------------------------------------------------------------------------


def test_a_child_whose_parent_ends_while_it_is_being_started_is_asked_to_end(monkeypatch: pytest.MonkeyPatch) -> None:
    @step
    async def late() -> None:
        raise LookupError("a sibling")

    @workflow
    async def parent() -> None:
        await sleep(1)
        async with asyncio.TaskGroup() as group:
            group.create_task(child.options(id="kid")("a", 100))
            group.create_task(late())

    async def scenario() -> None:
        clock = ManualClock()
        async with Engine(":memory:", clock=clock) as engine:
            run = await parent.start()
            await quiet(engine)
            gate = Gate(engine, "start", monkeypatch)
            clock.advance(1)
            await gate.reached()
            await ended(run, RunFailed)
            gate.open()
            assert (await ended(engine.run("kid"), RunCancelled)).reason.endswith("no longer waits for it")

    asyncio.run(scenario())


@pytest.mark.contradicts("two", "crash", "unload", reason="its body notes each pass")
def test_whoever_waits_for_a_run_in_memory_goes_on_there_though_another_who_waited_for_it_has_gone() -> None:
    passes: list[str] = []

    @workflow
    async def waits(name: str) -> str:
        passes.append(name)
        return await child.run("kid").result()

    async def scenario() -> None:
        clock = ManualClock()
        async with Engine(":memory:", clock=clock, unload_after=10_000) as engine:
            await child.options(id="kid").start("kid", 100)
            goes, stays = await waits.start("goes"), await waits.start("stays")
            await quiet(engine)
            await goes.cancel()
            await ended(goes, RunCancelled)
            clock.advance(100)
            assert await stays.result(timeout=20) == "kid is done"

    asyncio.run(scenario())
    assert passes == ["goes", "stays"]


def test_a_child_that_is_given_up_while_it_is_being_started_ends_and_the_parent_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    @workflow
    async def parent() -> str:
        await sleep(1)
        try:
            async with asyncio.timeout(10):
                return await child.options(id="kid")("a", 100)
        except TimeoutError:
            await sleep(100)
        return "went on"

    async def gave_up(run: Run[str]) -> bool:
        return any(entry.kind is Kind.TIMER for entry in await run.history())

    async def scenario() -> None:
        clock = ManualClock()
        async with Engine(":memory:", clock=clock) as engine:
            run = await parent.start()
            await quiet(engine)
            gate = Gate(engine, "start", monkeypatch)
            clock.advance(1)
            await gate.reached()
            clock.advance(10)
            await eventually(lambda: gave_up(run))
            gate.open()
            await ended(engine.run("kid"), RunCancelled)
            assert (await run.info()).state in {State.RUNNING, State.SUSPENDED}
            clock.advance(100)
            assert await run.result(timeout=5) == "went on"
            assert [entry.kind for entry in await run.history()] == [Kind.SLEEP, Kind.TIMER, Kind.SLEEP]

    asyncio.run(scenario())

"""What a run's rest or end sets off comes after its commit: that the body goes, that others may have it, that they wake."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from durable_sqlite import Engine, Signal, State, Unloading, sleep, step, workflow
from tests.support.clock import ManualClock
from tests.support.families import becomes, recorded
from tests.support.gates import Gate, session_of
from tests.support.restarts import die, quiet
from tests.support.stage import Stage, until

seen: list[str] = []


@pytest.fixture(autouse=True)
def forget() -> None:
    seen.clear()


class Whistle(Signal):
    pass


@workflow
async def rests(name: str) -> str:
    seen.append(f"{name} begins")
    try:
        await Whistle.wait()
    except Unloading:
        seen.append(f"{name} leaves")
        raise
    return name


@workflow
async def ends(name: str) -> str:
    """Ends after its sleep, without anything that would have to be recorded."""
    await sleep(10)
    return name


@workflow
async def waits_for_its_child() -> str:
    return await ends.options(id="child")("the child")


async def a_while() -> None:
    """As long as anything that does not wait for the test would take by far."""
    for _ in range(200):
        await asyncio.sleep(0)


@pytest.mark.parametrize("held", ["the commit", "what tells of it"])
@pytest.mark.parametrize("needed_by", ["nobody", "another run"])
def test_a_body_leaves_memory_after_its_rest_is_committed(
    held: str, needed_by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        room, unload_after = (1, 3600) if needed_by == "another run" else (10, 0)
        async with Engine(":memory:", clock=ManualClock(), max_resident=room, unload_after=unload_after) as engine:
            gate = Gate(engine, "suspend", monkeypatch, before=held == "the commit")
            run = await rests.start("one")
            await gate.reached()
            other = await rests.start("other") if needed_by == "another run" else None
            await a_while()
            assert seen == ["one begins"]
            assert (await run.info()).state is (State.RUNNING if held == "the commit" else State.SUSPENDED)
            gate.open()
            await until(lambda: "one leaves" in seen)
            if other is not None:
                await quiet(engine)
                assert seen[:3] == ["one begins", "one leaves", "other begins"]
            await run.signal(Whistle())
            assert await run.result(timeout=20) == "one"

    asyncio.run(scenario())


def test_a_run_is_anybody_s_after_its_rest_is_committed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        clock = ManualClock()
        async with Engine(tmp_path / "j.db", clock=clock) as engine:
            gate = Gate(engine, "suspend", monkeypatch, before=True)
            run = await rests.options(id="x", engine=engine).start("x")
            await gate.reached()
            async with Engine(tmp_path / "j.db", clock=clock, workflows=[rests]) as other:
                await run.signal(Whistle())
                await session_of(other)._hear()
                await quiet(other)
                assert not session_of(other).worker._residents.passes
                assert (await run.info()).state is State.RUNNING
                gate.open()
                assert await run.result(timeout=20) == "x"
                assert seen == ["x begins"]

    asyncio.run(scenario())


@pytest.mark.parametrize("unload_after", [0.0, 3600.0])
def test_whoever_waits_for_a_run_wakes_after_its_end_is_committed(
    unload_after: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    woken: list[str] = []

    async def scenario() -> None:
        clock = ManualClock()
        async with Engine(":memory:", clock=clock, unload_after=unload_after) as engine:
            parent = await waits_for_its_child.start()
            await quiet(engine)
            child = ends.run("child")

            async def waits(name: str) -> None:
                if name == "result":
                    await child.result(timeout=20)
                else:
                    async for info in child.watch():
                        if info.state is State.COMPLETED:
                            break
                woken.append(name)

            waiting = [asyncio.create_task(waits(name)) for name in ("result", "watch")]
            await until(lambda: len(engine._front.listeners) == 2)
            gate = Gate(engine, "end", monkeypatch, before=True)
            clock.advance(10)
            await gate.reached()
            await a_while()
            assert woken == []
            assert (await parent.info()).state is State.SUSPENDED
            assert (await child.info()).state is State.RUNNING
            gate.open()
            await asyncio.gather(*waiting)
            assert await parent.result(timeout=20) == "the child"

    asyncio.run(scenario())


def test_an_end_that_is_not_committed_when_the_process_dies_was_told_to_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = Stage()

    @step
    async def work() -> str:
        await stage.enter("work")
        return "done"

    @workflow
    async def child() -> str:
        return await work()

    @workflow
    async def parent() -> str:
        return await child.options(id="kid")()

    async def scenario() -> None:
        async with Engine(tmp_path / "j.db") as engine:
            run = await parent.options(id="p").start()
            await stage.seen("work")
            await becomes(run, State.SUSPENDED)
            gate = Gate(engine, "end", monkeypatch, before=True)
            waiting = asyncio.create_task(engine.run("kid").result())
            stage.let("work")
            await gate.reached()
            await recorded(engine.run("kid"), 1)
            await a_while()
            assert not waiting.done()
            waiting.cancel()
            await die(engine)
        monkeypatch.undo()
        async with Engine(tmp_path / "j.db", workflows=[parent, child]) as engine:
            assert await engine.run("p").result(timeout=20) == "done"
            assert await engine.run("kid").result(timeout=20) == "done"

    asyncio.run(scenario())
    assert stage.began == ["work"]

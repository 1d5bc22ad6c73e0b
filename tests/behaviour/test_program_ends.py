"""Programs end while bodies are in memory, at rest or at work: that is no outcome of any run."""

from __future__ import annotations

import asyncio
import signal
from contextlib import nullcontext
from pathlib import Path

import pytest

from durable_sqlite import Engine, Signal, Unloading, sleep, step, workflow
from tests.support.clock import ManualClock
from tests.support.gates import eventually
from tests.support.stage import Stage

effects: list[str] = []
stages = [Stage()]


@pytest.fixture(autouse=True)
def stage() -> Stage:
    effects.clear()
    stages[0] = Stage()
    return stages[0]


class GoHome(Signal):
    pass


@step
async def slow() -> None:
    await stages[0].enter("slow")


@step
async def clean_up(place: str) -> None:
    effects.append(f"clean up {place}")


@workflow(name="program-ends-below")
async def below() -> None:
    await GoHome.wait()


async def rest(place: str) -> None:
    match place:
        case "a-step":
            await slow()
        case "a-child":
            await below.options(id="below")()
        case "a-sleep":
            await sleep(100)
        case _:
            await GoHome.wait()


@workflow(name="program-ends-careful")
async def careful(place: str) -> str:
    """Would notice whatever ends it, and clean up."""
    try:
        await rest(place)
    except BaseException as error:
        if not isinstance(error, Unloading):
            effects.append(repr(error))
        await clean_up(place)
        raise
    return place


PLACES = ["a-step", "a-child", "a-sleep", "a-message"]


async def program(path: Path, unload_after: float, ends: str) -> None:
    engine = Engine(path, clock=ManualClock(), unload_after=unload_after)
    await engine.__aenter__()
    try:
        for place in PLACES:
            await careful.options(id=place).start(place)
        await stages[0].seen("slow")
        await eventually(lambda: all_rest(engine))
        if ends.startswith("Ctrl-C"):
            asyncio.get_running_loop().call_soon(signal.raise_signal, signal.SIGINT)
            await asyncio.sleep(20)
        elif ends == "an error":
            raise LookupError
    finally:
        if not ends.endswith("forgotten"):
            await engine.__aexit__(None, None, None)


async def all_rest(engine: Engine) -> bool:
    return await engine.count(state="suspended") == len(PLACES)  # not the step, but the child


async def next_program(path: Path) -> None:
    clock = ManualClock()
    clock.advance(100)
    async with Engine(path, clock=clock, drive=False) as client:
        assert [await client.run(info.id).history() async for info in client.runs()] == [[]] * (len(PLACES) + 1)
    stages[0].forget()
    stages[0].let("slow")
    async with Engine(path, clock=clock, workflows=[careful, below]) as engine:
        for run_id in ("a-message", "below"):
            await engine.run(run_id).signal(GoHome())
        for place in PLACES:
            assert await engine.run(place).result(timeout=20) == place
            assert len(await engine.run(place).history()) == 1


@pytest.mark.parametrize(
    "ends", ["Ctrl-C", "Ctrl-C, its engine forgotten", "in order", "its engine forgotten", "an error"]
)
@pytest.mark.parametrize("unload_after", [0.0, 3600.0], ids=["unloaded", "resident"])
def test_the_end_of_a_program_cancels_no_body_begins_no_clean_up_and_records_nothing(
    tmp_path: Path, ends: str, unload_after: float, stage: Stage
) -> None:
    error = KeyboardInterrupt if ends.startswith("Ctrl-C") else LookupError
    with nullcontext() if ends in {"in order", "its engine forgotten"} else pytest.raises(error):
        asyncio.run(program(tmp_path / "j.db", unload_after, ends))
    assert effects == []
    asyncio.run(next_program(tmp_path / "j.db"))
    assert effects == []
    assert stage.began == ["slow", "slow"]

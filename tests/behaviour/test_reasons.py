"""Every reason for a dead letter: produced, read back, and brought to the run's end."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from durable_sqlite import (
    DeadLetter,
    Engine,
    Permanent,
    Reason,
    Retry,
    Run,
    Workflow,
    sleep,
    step,
    workflow,
)
from tests.support.clock import ManualClock
from tests.support.restarts import die, quiet
from tests.support.stage import Stage

broken: list[bool] = []
stage = Stage()


@pytest.fixture(autouse=True)
def broken_at_first() -> None:
    broken[:] = [True]
    stage.__init__()  # type: ignore[misc]


@step(name="shaky", retry=Retry.fixed(0, max_attempts=2))
async def shaky(permanent: bool) -> str:
    if broken[0]:
        raise Permanent("no") if permanent else OSError("down")
    return "done"


@step(name="held_up")
async def held_up() -> str:
    if broken[0]:
        await stage.enter("held_up")
    return "done"


@step(name="only_once", at_most_once=True)
async def only_once() -> str:
    await stage.enter("only_once")
    return "done"


def flow(body: Callable[..., Any]) -> Workflow[..., str]:
    return workflow(name="flow")(body)


async def exhausted() -> str:
    return await shaky(permanent=False)


async def permanent() -> str:
    return await shaky(permanent=True)


async def raising() -> str:
    if broken[0]:
        raise ValueError("the body")
    return "done"


async def slow() -> str:
    await sleep(3600 if broken[0] else 1)
    return "done"


async def stuck() -> str:
    if broken[0]:
        await asyncio.Event().wait()
    return "done"


async def many() -> str:
    for _ in range(3):
        await held_up()
    return "done"


async def held() -> str:
    return await held_up()


async def once() -> str:
    return await only_once()


async def resume(run: Run[Any]) -> None:
    await run.resume()


async def settle(run: Run[Any]) -> None:
    await run.settle("only_once#1", "done", by="ada")


@pytest.mark.parametrize(
    ("reason", "body", "deaths", "way_out"),
    [
        (Reason.RETRIES_EXHAUSTED, exhausted, 0, resume),
        (Reason.PERMANENT, permanent, 0, resume),
        (Reason.ERROR, raising, 0, resume),
        (Reason.DEADLINE, slow, 0, resume),
        (Reason.NOT_DURABLE, stuck, 0, resume),
        (Reason.MAX_ENTRIES, many, 0, resume),
        pytest.param(
            Reason.CRASH_LOOP, held, 2, resume, marks=pytest.mark.contradicts("crash", reason="it counts deaths")
        ),
        (Reason.AMBIGUOUS, once, 1, settle),
    ],
)
def test_a_reason_is_produced_read_back_and_brought_to_its_end(
    tmp_path: Path,
    reason: Reason,
    body: Callable[..., Any],
    deaths: int,
    way_out: Callable[[Run[Any]], Awaitable[None]],
) -> None:
    path, clock, wanted = tmp_path / "j.db", ManualClock(), flow(body)
    if reason is Reason.MAX_ENTRIES:
        broken[0] = False

    async def scenario() -> None:
        async with Engine(path, clock=clock, workflows=[wanted], max_recoveries=2, max_entries=2) as engine:
            await wanted.options(id="x", deadline=60).start()
            if deaths:
                await die_at(engine, body)
            else:
                await quiet(engine)
                clock.advance(61 if reason is Reason.DEADLINE else 0)
                await quiet(engine)
        for _ in range(deaths - 1):
            async with Engine(path, clock=clock, workflows=[wanted], max_recoveries=2, max_entries=2) as engine:
                await die_at(engine, body)
        async with Engine(path, clock=clock, workflows=[wanted], max_recoveries=2) as engine:
            await quiet(engine)
            letter = await the_letter(engine)
            assert letter.reason == reason
            assert letter.error is not None
            broken[0] = False
            await way_out(letter.run)
            await quiet(engine)
            clock.advance(1)
            assert await letter.run.result(timeout=20) == "done"
            assert [letter async for letter in engine.dead_letters()] == []

    asyncio.run(scenario())


async def die_at(engine: Engine, body: Callable[..., Any]) -> None:
    await stage.seen("only_once" if body is once else "held_up")
    await die(engine)
    stage.forget()


async def the_letter(engine: Engine) -> DeadLetter:
    (letter,) = [letter async for letter in engine.dead_letters()]
    return letter


def test_diverged_is_produced_read_back_and_brought_to_its_end(tmp_path: Path) -> None:
    broken[0] = False

    async def scenario() -> None:
        async with Engine(tmp_path / "k.db", workflows=[flow(first_version)]) as engine:
            await flow(first_version).options(id="x").start()
            await stage.seen("gate")
            await die(engine)
        stage.forget()
        async with Engine(tmp_path / "k.db", workflows=[flow(second_version)]) as engine:
            await quiet(engine)
            letter = await the_letter(engine)
            assert letter.reason == Reason.DIVERGED
            assert letter.error is not None
            assert "gate" not in letter.error.message
            stage.let("gate")
            await letter.run.resume(accept_changes=True)
            assert await letter.run.result(timeout=20) == "done"

    asyncio.run(scenario())


@step(name="gate")
async def gate() -> str:
    await stage.enter("gate")
    return "done"


async def first_version() -> str:
    await shaky(permanent=False)
    return await gate()


async def second_version() -> str:
    await shaky(permanent=True)
    return await gate()


def test_undecodable_is_produced_read_back_and_brought_to_its_end(tmp_path: Path) -> None:
    def version(returns: type) -> Workflow[..., str]:
        async def measure() -> Any:
            return "seven"

        measure.__annotations__["return"] = returns
        measured = step(name="measure")(measure)

        async def body() -> str:
            await measured()
            return await gate()

        return flow(body)

    async def scenario() -> None:
        async with Engine(tmp_path / "j.db") as engine:
            await version(str).options(id="x").start()
            await stage.seen("gate")
            await die(engine)
        stage.forget()
        async with Engine(tmp_path / "j.db", workflows=[version(int)]) as engine:
            await quiet(engine)
            letter = await the_letter(engine)
            assert letter.reason == Reason.UNDECODABLE
        stage.let("gate")
        async with Engine(tmp_path / "j.db", workflows=[version(str)]) as engine:
            await engine.run("x").resume()
            assert await engine.run("x").result(timeout=20) == "done"

    asyncio.run(scenario())


def test_damaged_is_produced_read_back_and_brought_to_its_end(tmp_path: Path) -> None:
    broken[0] = False

    async def scenario() -> None:
        async with Engine(tmp_path / "j.db", workflows=[flow(first_version)]) as engine:
            await flow(first_version).options(id="x").start()
            await stage.seen("gate")
            await die(engine)
        stage.forget()
        with closing(sqlite3.connect(tmp_path / "j.db", isolation_level=None)) as connection:
            assert connection.execute("UPDATE durable_entries SET started_at = 5").rowcount == 1
        async with Engine(tmp_path / "j.db", workflows=[flow(first_version)]) as engine:
            await quiet(engine)
            letter = await the_letter(engine)
            assert letter.reason == Reason.DAMAGED
            assert letter.error is not None
            assert "shaky#1" in letter.error.message
            await engine.verify(accept=["x"])
            stage.let("gate")
            await letter.run.resume()
            assert await letter.run.result(timeout=20) == "done"

    asyncio.run(scenario())


def test_no_reason_is_left_out() -> None:
    here = Path(__file__).read_text(encoding="utf-8")
    assert [reason for reason in Reason if f"Reason.{reason.name}" not in here] == []

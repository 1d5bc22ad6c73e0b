"""Time, chance and logs of a body: the same on every pass."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any
from uuid import UUID

import pytest

from durable_sqlite import (
    Engine,
    RunLogFilter,
    Unloading,
    current_run,
    now,
    random,
    sleep,
    step,
    uuid,
    workflow,
)
from durable_sqlite._clock import to_datetime
from tests.support.clock import START, ManualClock
from tests.support.restarts import die, quiet
from tests.support.stage import Stage

BEGIN = to_datetime(START)


async def both_passes(path: Path, body: Any, clock: ManualClock) -> list[Any]:
    """What a body made on its first pass, and on a second one much later."""
    made: list[Any] = []
    stage = Stage()

    @step
    async def hold() -> None:
        await stage.enter("hold")

    @workflow
    async def flow() -> None:
        made.append(await body())
        await hold()

    async with Engine(path, clock=clock) as engine:
        await flow.options(id="x").start()
        await stage.seen("hold")
        await die(engine)
    stage.let("hold")
    clock.advance(1_000_000)
    async with Engine(path, workflows=[flow], clock=clock) as engine:
        await engine.run("x")
    return made


def test_time_and_chance_are_the_same_on_every_pass_and_differ_by_branch_and_run(tmp_path: Path) -> None:
    clock = ManualClock()

    @step
    async def act() -> None:
        clock.advance(7)

    async def branch() -> tuple[UUID, float]:
        await act()
        return uuid(), random().random()

    async def body() -> list[Any]:
        told: list[Any] = [now(), asyncio.get_running_loop().time(), uuid(), uuid(), random().randint(0, 10**9)]
        await act()
        told += [now(), uuid(), *await asyncio.gather(branch(), branch())]
        return told

    async def scenario() -> None:
        first, second = await both_passes(tmp_path / "j.db", body, clock)
        assert first == second
        (other, _) = await both_passes(tmp_path / "k.db", body, clock)
        begin, seconds, one, two, _number, after, three, (four, x), (five, y) = first
        assert begin == BEGIN
        assert seconds == START / 1_000_000
        assert after == BEGIN + timedelta(seconds=7)
        assert len({one, two, three, four, five, *other[2:4]}) == 7
        assert one.version == 4
        assert x != y

    asyncio.run(scenario())


def test_a_body_s_time_is_that_of_the_last_thing_it_was_given() -> None:
    clock = ManualClock()

    @step
    async def act() -> None:
        clock.advance(3)

    @workflow
    async def flow() -> list[datetime]:
        times = [now()]
        await sleep(10)
        times.append(now())
        await act()
        times.append(now())
        return times

    async def scenario() -> None:
        async with Engine(":memory:", clock=clock) as engine:
            run = await flow.start()
            await quiet(engine)
            clock.advance(12)  # late by two seconds: the body hears when it was woken
            assert await run == [BEGIN + timedelta(seconds=seconds) for seconds in (0, 12, 15)]

    asyncio.run(scenario())


def test_a_clock_that_goes_back_never_takes_a_body_back() -> None:
    clock = ManualClock()

    @step
    async def act() -> None:
        clock.advance(-3600)

    @workflow
    async def flow() -> list[datetime]:
        await act()
        first = now()
        await act()
        return [first, now()]

    async def scenario() -> None:
        async with Engine(":memory:", clock=clock):
            assert await flow() == [BEGIN, BEGIN]

    asyncio.run(scenario())


def test_outside_a_body_time_and_chance_are_real() -> None:
    assert abs(now() - datetime.now(UTC)) < timedelta(minutes=1)
    assert uuid() != uuid()
    assert isinstance(random(), Random)

    @step
    async def act() -> bool:
        return abs(now() - datetime.now(UTC)) < timedelta(minutes=1)

    @workflow
    async def flow() -> bool:
        return await act()

    async def scenario() -> None:
        async with Engine(":memory:", clock=ManualClock()):
            assert await flow()

    asyncio.run(scenario())


class Kept(logging.Handler):
    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.addFilter(RunLogFilter(**options))
        self.lines: list[tuple[Any, ...]] = []

    def emit(self, record: logging.LogRecord) -> None:
        fields = vars(record)
        self.lines.append(
            (record.getMessage(), fields["run_id"], fields["workflow"], fields["step"], fields["attempt"])
        )


@pytest.fixture
def handlers() -> Iterator[tuple[Kept, Kept]]:
    logger = logging.getLogger("tests.behaviour.shop")
    logger.setLevel(logging.INFO)
    kept, everything = Kept(), Kept(replayed=True)
    for handler in (kept, everything):
        logger.addHandler(handler)
    yield kept, everything
    for handler in (kept, everything):
        logger.removeHandler(handler)


def test_each_line_of_a_body_is_logged_once_and_knows_its_run_and_step(
    tmp_path: Path, handlers: tuple[Kept, Kept]
) -> None:
    kept, everything = handlers
    logger = logging.getLogger("tests.behaviour.shop")
    stage = Stage()
    clock = ManualClock()

    @step
    async def act(name: str) -> None:
        logger.info("in step %s", name)
        await stage.enter(name)

    @step
    def plain() -> None:
        logger.info("in a thread")

    @workflow
    async def flow() -> None:
        logger.info("begin")
        await act("a")
        logger.info("after a")
        await act("b")
        logger.info("after b")
        await plain()
        try:
            await sleep(100)
        except Unloading:
            logger.info("unloading %s", current_run().unloading)
            raise
        logger.info("end")

    async def scenario() -> None:
        stage.let("a")
        async with Engine(tmp_path / "j.db", clock=clock) as engine:
            await flow.options(id="x").start()
            await stage.seen("b")
            await die(engine)
        stage.let("b")
        async with Engine(tmp_path / "j.db", workflows=[flow], clock=clock) as engine:
            await quiet(engine)
        clock.advance(100)
        async with Engine(tmp_path / "j.db", workflows=[flow], clock=clock) as engine:
            await engine.run("x")
        logger.info("outside")

    asyncio.run(scenario())
    body = ("x", "flow", "", 0)
    assert kept.lines == [
        ("begin", *body),
        ("in step a", "x", "flow", "act#1", 1),
        ("after a", *body),
        ("in step b", "x", "flow", "act#2", 1),
        ("in step b", "x", "flow", "act#2", 1),
        ("after b", *body),
        ("in a thread", "x", "flow", "plain#1", 1),
        ("end", *body),
        ("outside", "", "", "", 0),
    ]
    assert [line[0] for line in everything.lines].count("begin") == 3
    assert ("unloading True", *body) in everything.lines

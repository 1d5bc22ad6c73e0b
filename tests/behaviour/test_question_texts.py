"""Suspend points: their texts and their status, and what of them is compared on replay."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from durable_sqlite import (
    Engine,
    Run,
    RunParked,
    Signal,
    Suspend,
    UsageError,
    set_status,
    sleep,
    workflow,
)
from durable_sqlite._clock import to_datetime
from tests.support.clock import START, ManualClock
from tests.support.restarts import die, quiet
from tests.support.stage import ended

BEGIN = to_datetime(START)


class Ruling(BaseModel):
    granted: bool
    by: str = ""


class Repaint(Suspend[Ruling]):
    cost: int
    why: str = "leaks"


class Tally(Suspend[int]):
    pass


class Dry(Signal):
    pass


@workflow
async def repaints(cost: int) -> bool:
    return (await Repaint(cost=cost)).granted


# Texts that people give ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("by", ["\ud800", "x" * 10_000, 5], ids=["surrogate", "long", "number"])
def test_an_author_that_cannot_be_kept_is_refused_at_the_door(by: Any, inside: bool) -> None:
    @workflow
    async def answers() -> str:
        try:
            await repaints.run("x").answer(Repaint, Ruling(granted=True), by=by)
        except UsageError:
            return "refused"
        return "answered"

    async def scenario() -> None:
        async with Engine(":memory:", clock=ManualClock()) as engine:
            run = await repaints.options(id="x").start(1)
            await quiet(engine)
            if inside:
                assert await (await answers.start()).result(timeout=5) == "refused"
            else:
                with pytest.raises(UsageError):
                    await run.answer(Repaint, Ruling(granted=True), by=by)
            assert len(await run.questions()) == 1

    asyncio.run(scenario())


def test_a_status_given_to_a_wait_is_shown_until_the_body_says_something_else() -> None:
    @workflow
    async def flow() -> None:
        set_status("at work")
        await Tally().wait(status="ask the warden")
        await Dry.wait()
        set_status(None)
        await Dry.wait()

    async def scenario() -> None:
        async with Engine(":memory:", clock=ManualClock(), unload_after=0) as engine:
            run = await flow.start()
            shown: list[str | None] = []

            async def look() -> None:
                await quiet(engine)
                shown.append((await run.info()).status)

            await look()
            await run.answer(Tally, 1)
            await look()
            await run.signal(Dry())
            await look()
            assert shown == ["ask the warden", "ask the warden", None]

    asyncio.run(scenario())


@pytest.mark.parametrize("status", ["x" * 1_001, 5, b"text"], ids=["long", "number", "bytes"])
def test_a_status_given_to_a_wait_is_held_to_the_rule_of_set_status(status: Any) -> None:
    @workflow
    async def flow() -> str:
        try:
            await Tally().wait(status=status, timeout=0)
        except UsageError as error:
            return str(error)
        return ""

    async def scenario() -> None:
        async with Engine(":memory:"):
            assert "at most 1,000 characters" in await flow()

    asyncio.run(scenario())


# Replay --------------------------------------------------------------------------------------------------------------


def test_another_text_of_a_question_is_a_divergence_and_another_timeout_is_none(tmp_path: Path) -> None:
    why, days = ["leaks"], [1]

    @workflow
    async def flow() -> int:
        verdict = await Repaint(cost=1, why=why[-1]).wait(timeout=timedelta(days=days[-1]))
        await sleep(100)
        return -1 if verdict is None else int(verdict.granted)

    async def scenario() -> None:
        clock = ManualClock()
        async with Engine(tmp_path / "j.db", clock=clock) as engine:
            for name in "xy":
                run = await flow.options(id=name).start()
                await quiet(engine)
                await run.answer(Repaint, Ruling(granted=True))
                await quiet(engine)
        days.append(7)
        clock.advance(100)
        async with Engine(tmp_path / "j.db", clock=clock, drive=False) as client:
            await client.run("y").pause()
        async with Engine(tmp_path / "j.db", clock=clock, workflows=[flow]) as engine:
            assert await engine.run("x").result(timeout=20) == 1
            why.append("squeaks")
            await engine.run("y").resume()
            parked = await ended(engine.run("y"), RunParked)
            assert parked.reason == "diverged"
            assert "the arguments of question Repaint differ" in str(parked)

    asyncio.run(scenario())


def test_a_question_that_is_open_when_the_process_dies_stays_the_same_question_with_its_first_deadline(
    tmp_path: Path,
) -> None:
    days = [1]

    @workflow
    async def flow() -> int | None:
        return await Tally().wait(timeout=timedelta(days=days[-1]))

    async def scenario() -> None:
        clock = ManualClock()
        async with Engine(tmp_path / "j.db", clock=clock) as engine:
            run = await flow.options(id="x").start()
            await quiet(engine)
            before = await run.questions()
            await die(engine)
        days.append(7)
        clock.advance(3600)
        async with Engine(tmp_path / "j.db", clock=clock, workflows=[flow]) as engine:
            await quiet(engine)
            run = flow.run("x")
            assert await run.questions() == before
            assert before[0].deadline == BEGIN + timedelta(days=1)
            clock.advance(23 * 3600)
            assert await run.result(timeout=20) is None

    asyncio.run(scenario())


def test_a_schema_is_plain_json() -> None:
    async def scenario() -> None:
        async with Engine(":memory:", clock=ManualClock()) as engine:
            run: Run[Any] = await repaints.start(1)
            await quiet(engine)
            (question,) = await run.questions()
            assert json.loads(json.dumps(question.answer_schema)) == question.answer_schema

    asyncio.run(scenario())

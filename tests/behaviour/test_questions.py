"""Suspend points: what a run asks is stored, seen and answered, and the answer is the body's."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import BaseModel

from durable_sqlite import (
    Engine,
    Kind,
    Outcome,
    RunFailed,
    Signal,
    State,
    Suspend,
    UnknownRun,
    Unstorable,
    step,
    workflow,
)
from durable_sqlite._clock import to_datetime
from durable_sqlite.errors import PayloadTooLarge
from tests.support.clock import START, ManualClock
from tests.support.restarts import quiet
from tests.support.stage import Stage, ended

BEGIN = to_datetime(START)


class Verdict(BaseModel):
    granted: bool
    by: str = ""


class Refit(Suspend[Verdict]):
    cost: int
    why: str = "leaks"


class Count(Suspend[int]):
    pass


class Wish(Suspend[str]):
    pass


class Perhaps(Suspend[None | int]):
    pass


class Several(Suspend[list[int]]):
    pass


class Colour(Suspend[Literal["red", "green"]]):
    pass


class Price(Suspend[Decimal], name="questions.price"):
    pass


class Raw(Suspend[bytes]):
    pass


class Ready(Signal):
    pass


@workflow
async def refits(cost: int) -> bool:
    return (await Refit(cost=cost)).granted


async def asked(engine: Engine, **how: Any) -> list[str]:
    return [f"{question.run_id} {question.key}" async for question in engine.questions(**how)]


# Asking --------------------------------------------------------------------------------------------------------------


def test_a_question_is_listed_with_what_it_asks_and_the_schema_of_its_answer() -> None:
    async def scenario() -> None:
        async with Engine(":memory:", clock=ManualClock()) as engine:
            run = await refits.options(id="x").start(700)
            await quiet(engine)
            assert (await run.info()).state is State.SUSPENDED
            (question,) = await run.questions()
            assert [one async for one in engine.questions()] == [question]
            assert (question.run_id, question.workflow, question.key, question.point) == (
                "x",
                "refits",
                "Refit#1",
                "Refit",
            )
            assert question.question == {"cost": 700, "why": "leaks"}
            assert question.answer_schema == Verdict.model_json_schema()
            assert (question.asked_at, question.deadline, question.error) == (BEGIN, None, None)
            await run.answer(Refit, Verdict(granted=True))
            assert await run.result(timeout=20)
            assert await run.questions() == []
            assert await asked(engine) == []

    asyncio.run(scenario())


def test_awaiting_a_question_and_its_wait_are_the_same() -> None:
    @workflow
    async def flow() -> list[bool]:
        return [(await Refit(cost=1)).granted, (await Refit(cost=2).wait()).granted]

    async def scenario() -> None:
        async with Engine(":memory:", clock=ManualClock()) as engine:
            run = await flow.start()
            for key in ("Refit#1", "Refit#2"):
                await quiet(engine)
                await run.answer(Refit, Verdict(granted=key == "Refit#1"), key=key)
            assert await run.result(timeout=20) == [True, False]

    asyncio.run(scenario())


def test_a_question_is_visible_while_another_branch_runs_a_step(tmp_path: Path) -> None:
    stage = Stage()

    @step
    async def work() -> str:
        await stage.enter("work")
        return "worked"

    @workflow
    async def flow() -> tuple[str, bool]:
        verdict, worked = await asyncio.gather(Refit(cost=1).wait(), work())
        return worked, verdict.granted

    async def scenario() -> None:
        async with Engine(tmp_path / "j.db") as engine:
            run = await flow.options(id="x").start()
            await stage.seen("work")
            assert await asked(engine) == ["x Refit#1"]
            assert (await run.info()).state is State.RUNNING
            async with Engine(tmp_path / "j.db", drive=False) as client:  # anybody sees it
                assert await asked(client) == ["x Refit#1"]
            await run.answer(Refit, Verdict(granted=True))
            assert await asked(engine) == []
            stage.let("work")
            assert await run.result(timeout=20) == ("worked", True)

    asyncio.run(scenario())


def test_the_questions_of_all_runs_are_listed_oldest_first_and_found_by_workflow_and_point() -> None:
    @workflow
    async def counts() -> int:
        return await Count()

    async def scenario() -> None:
        clock = ManualClock()
        async with Engine(":memory:", clock=clock) as engine:
            for number, name in enumerate("cab"):
                await refits.options(id=name).start(number)
                await quiet(engine)
                clock.advance(1)
            await counts.options(id="0").start()
            await quiet(engine)
            assert await asked(engine) == ["c Refit#1", "a Refit#1", "b Refit#1", "0 Count#1"]
            assert await asked(engine, limit=2) == ["c Refit#1", "a Refit#1"]
            assert await asked(engine, limit=0) == []
            for how in ({"workflow": counts}, {"workflow": "counts"}, {"point": Count}, {"point": "Count"}):
                assert await asked(engine, **how) == ["0 Count#1"]
            assert await asked(engine, workflow=counts, point=Refit) == []
            assert len(await refits.run("a").questions()) == 1

    asyncio.run(scenario())


def test_more_questions_than_one_page_are_all_listed() -> None:
    @workflow
    async def many() -> list[int]:
        return await asyncio.gather(*[Count().wait(key=f"n{number}") for number in range(150)])

    async def scenario() -> None:
        async with Engine(":memory:", clock=ManualClock()) as engine:
            run = await many.options(id="x").start()
            await quiet(engine)
            keys = [question.key for question in await run.questions()]
            assert sorted(keys) == sorted(f"n{number}" for number in range(150))
            assert len(await asked(engine)) == 150
            assert len(await asked(engine, limit=101)) == 101
            for number, key in enumerate(sorted(keys)):
                await run.answer(Count, number, key=key)
            assert sorted(await run.result(timeout=20)) == list(range(150))

    asyncio.run(scenario())


def test_asking_about_the_questions_of_no_run_says_so() -> None:
    async def scenario() -> None:
        async with Engine(":memory:") as engine:
            with pytest.raises(UnknownRun):
                await engine.run("x").questions()

    asyncio.run(scenario())


def test_a_question_that_cannot_be_stored_is_refused_in_the_body() -> None:
    @workflow
    async def flow(length: int) -> None:
        vague: Any = "many"
        question = Refit(cost=1, why="x" * length) if length else Refit.model_construct(cost=vague)
        await question

    async def scenario() -> None:
        async with Engine(":memory:", payload_limit=200):
            for length, error in ((0, Unstorable), (300, PayloadTooLarge)):
                failed = await ended(await flow.start(length), RunFailed)
                assert failed.record is not None
                assert failed.record.is_a(error)

    asyncio.run(scenario())


# Answers -------------------------------------------------------------------------------------------------------------

ANSWERS: list[tuple[type[Suspend[Any]], Any]] = [
    (Count, 0),
    (Wish, ""),
    (Perhaps, None),
    (Perhaps, 0),
    (Several, []),
    (Colour, "green"),
    (Price, Decimal("0.00")),
    (Raw, b""),
]


@pytest.mark.parametrize(("point", "value"), ANSWERS)
def test_an_answer_that_is_false_or_nothing_is_an_answer_on_the_first_pass_and_on_replay(
    tmp_path: Path, point: type[Suspend[Any]], value: Any
) -> None:
    got: list[Any] = []

    @workflow
    async def flow(name: str) -> None:
        points = {one.__name__: one for one, _ in ANSWERS}
        got.append(await points[name]().wait(timeout=100))
        await Ready.wait()

    async def scenario() -> None:
        async with Engine(tmp_path / "j.db", clock=ManualClock()) as engine:
            run = await flow.options(id="x").start(point.__name__)
            await quiet(engine)
            await run.answer(point, value)
            await quiet(engine)
            (entry,) = await run.history()
            assert (entry.kind, entry.outcome) == (Kind.QUESTION, Outcome.VALUE)
        async with Engine(tmp_path / "j.db", clock=ManualClock(), workflows=[flow]) as engine:
            await engine.run("x").signal(Ready())
            await engine.run("x").result(timeout=20)

    asyncio.run(scenario())
    assert got == [value, value]
    assert [type(one) for one in got] == [type(value)] * 2


@pytest.mark.parametrize(
    ("point", "value"),
    [
        (Refit, {"granted": True}),
        (Refit, "yes"),
        (Count, "7"),
        (Count, 1.5),
        (Count, None),
        (Colour, "blue"),
        (Wish, "\ud800"),
    ],
)
def test_an_answer_that_does_not_fit_is_refused_at_whoever_gives_it_and_not_stored(point: Any, value: Any) -> None:
    @workflow
    async def flow() -> None:
        await asyncio.gather(*[question.wait() for question in (Refit(cost=1), Count(), Colour(), Wish())])

    async def scenario() -> None:
        async with Engine(":memory:", clock=ManualClock()) as engine:
            run = await flow.start()
            await quiet(engine)
            with pytest.raises(Unstorable, match=f"{point.__name__}: answer"):
                await run.answer(point, value)
            assert len(await run.questions()) == 4

    asyncio.run(scenario())


def test_history_shows_the_answer_and_who_gave_it_when(tmp_path: Path) -> None:
    async def scenario() -> None:
        clock = ManualClock()
        async with Engine(tmp_path / "j.db", clock=clock) as engine:
            run = await refits.options(id="x").start(1)
            await quiet(engine)
            clock.advance(60)
            await run.answer(Refit, Verdict(granted=True, by="the owner"), by="ada")
            await run.result(timeout=20)
        async with Engine(tmp_path / "j.db", clock=clock) as engine:
            (entry,) = await engine.run("x").history()
            assert (entry.key, entry.name, entry.decided_by) == ("Refit#1", "Refit", "ada")
            assert entry.value == {"granted": True, "by": "the owner"}
            assert (entry.started_at, entry.recorded_at) == (BEGIN, BEGIN + timedelta(minutes=1))

    asyncio.run(scenario())

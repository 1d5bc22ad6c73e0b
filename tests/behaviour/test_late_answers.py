"""Answers to questions that are over, and answers that the bodies of other runs give."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from durable_sqlite import (
    Engine,
    Outcome,
    RunCancelled,
    RunFailed,
    RunParked,
    Signal,
    SignalRejected,
    SignalSuperseded,
    Suspend,
    step,
    workflow,
)
from durable_sqlite._clock import to_datetime
from tests.support.clock import START, ManualClock
from tests.support.crash_points import Teller, crash_everywhere
from tests.support.gates import Gate
from tests.support.restarts import die, quiet
from tests.support.stage import ended

BEGIN = to_datetime(START)


class Bid(Suspend[int]):
    round: int = 0


class Forward(Signal):
    pass


@workflow
async def bids(rounds: int) -> list[int]:
    """Asks one after the other, each after a message."""
    got: list[int] = []
    for number in range(rounds):
        await Forward.wait()
        got.append(await Bid(round=number))
    return got


@workflow
async def bids_in_time() -> list[int | None]:
    return [await Bid(round=number).wait(timeout=10) for number in range(2)]


# Late ----------------------------------------------------------------------------------------------------------------


def test_an_answer_after_the_deadline_is_superseded_though_nobody_has_driven_the_run_since(tmp_path: Path) -> None:
    async def scenario() -> None:
        clock = ManualClock()
        async with Engine(tmp_path / "j.db", clock=clock) as engine:
            await bids_in_time.options(id="x").start()
            await quiet(engine)
        clock.advance(10.000_001)
        async with Engine(tmp_path / "j.db", clock=clock, drive=False) as client:
            (question,) = await client.run("x").questions()
            assert question.deadline == BEGIN + timedelta(seconds=10)
            with pytest.raises(SignalSuperseded, match="its deadline was at 2023-11-14T22:13:30") as late:
                await client.run("x").answer(Bid, 7)
            assert (late.value.at, late.value.by) == (BEGIN + timedelta(seconds=10), "")
        async with Engine(tmp_path / "j.db", clock=clock, workflows=[bids_in_time]) as engine:
            await quiet(engine)
            assert [entry.outcome for entry in await engine.run("x").history()] == [Outcome.TIMEOUT]

    asyncio.run(scenario())


def test_a_question_that_timed_out_is_over_and_does_not_poison_the_next_one() -> None:
    async def scenario() -> None:
        clock = ManualClock()
        async with Engine(":memory:", clock=clock) as engine:
            run = await bids_in_time.start()
            await quiet(engine)
            clock.advance(10)
            await quiet(engine)
            (question,) = await run.questions()
            assert (question.key, question.deadline) == ("Bid#2", BEGIN + timedelta(seconds=20))
            with pytest.raises(SignalSuperseded) as late:
                await run.answer(Bid, 7, key="Bid#1")
            assert late.value.at == BEGIN + timedelta(seconds=10)
            await run.answer(Bid, 0, key="Bid#2")
            assert await run.result(timeout=20) == [None, 0]

    asyncio.run(scenario())


def test_an_answer_to_a_question_that_timed_out_in_the_moment_of_the_run_s_end_is_superseded() -> None:
    @workflow
    async def flow() -> int | None:
        return await Bid().wait(timeout=10)

    async def scenario() -> None:
        clock = ManualClock()
        async with Engine(":memory:", clock=clock) as engine:
            run = await flow.start()
            await quiet(engine)
            clock.advance(10)
            assert await run.result(timeout=20) is None
            with pytest.raises(SignalSuperseded) as late:
                await run.answer(Bid, 7)
            assert late.value.at == BEGIN + timedelta(seconds=10)

    asyncio.run(scenario())


@workflow
async def lets_the_race_decide() -> str:
    async with asyncio.timeout(10):
        done, left = await asyncio.wait(
            [asyncio.create_task(Bid().wait()), asyncio.create_task(Forward.wait())],
            return_when=asyncio.FIRST_COMPLETED,
        )
    for task in left:
        task.cancel()
    await Forward.wait()
    return type(done.pop().result()).__name__


def test_a_question_that_lost_a_race_is_closed_and_an_answer_to_it_superseded() -> None:
    async def scenario() -> None:
        clock = ManualClock()
        async with Engine(":memory:", clock=clock) as engine:
            run = await lets_the_race_decide.start()
            await quiet(engine)
            clock.advance(1)
            await run.signal(Forward())
            await quiet(engine)
            assert await run.questions() == []
            clock.advance(1)
            with pytest.raises(SignalSuperseded, match="it was closed at") as late:
                await run.answer(Bid, 7)
            assert (late.value.at, late.value.by) == (BEGIN + timedelta(seconds=1), "")
            await run.signal(Forward())
            assert await run.result(timeout=20) == "Forward"

    asyncio.run(scenario())


def test_a_question_that_a_timeout_of_asyncio_gave_up_is_closed() -> None:
    @workflow
    async def flow() -> str:
        try:
            async with asyncio.timeout(10):
                await Bid()
        except TimeoutError:
            await Forward.wait()
            return "too late"
        return "in time"

    async def scenario() -> None:
        clock = ManualClock()
        async with Engine(":memory:", clock=clock) as engine:
            run = await flow.start()
            await quiet(engine)
            clock.advance(10)
            await quiet(engine)
            with pytest.raises(SignalSuperseded):
                await run.answer(Bid, 7)
            await run.signal(Forward())
            assert await run.result(timeout=20) == "too late"

    asyncio.run(scenario())


async def cancelled(engine: Engine) -> Any:
    run = await bids.options(id="x").start(1)
    await run.signal(Forward())
    await quiet(engine)
    await run.cancel()
    await ended(run, RunCancelled)
    return run


async def failed(engine: Engine) -> Any:
    @workflow
    async def fails() -> None:
        waiting = asyncio.create_task(Bid().wait())
        await Forward.wait()
        waiting.cancel()
        raise LookupError

    run = await fails.options(id="x").start()
    await quiet(engine)
    await run.signal(Forward())
    await ended(run, RunFailed)
    return run


@pytest.mark.parametrize("end", [cancelled, failed])
def test_nobody_answers_a_run_that_has_ended(end: Callable[[Engine], Any]) -> None:
    async def scenario() -> None:
        async with Engine(":memory:", clock=ManualClock()) as engine:
            run = await end(engine)
            with pytest.raises(SignalRejected):
                await run.answer(Bid, 7)
            with pytest.raises(SignalRejected):
                await run.answer(Bid, 7, key="Bid#1")
            assert await run.questions() == []
            assert [question async for question in engine.questions()] == []

    asyncio.run(scenario())


def test_a_question_of_a_parked_run_is_asked_again_when_it_goes_on() -> None:
    mended: list[bool] = []

    @workflow
    async def flow() -> int:
        bid = asyncio.create_task(Bid().wait())
        await Forward.wait()
        while not mended:  # noqa: ASYNC110 - for which it is parked
            await asyncio.sleep(0)
        return await bid

    async def scenario() -> None:
        async with Engine(":memory:", clock=ManualClock()) as engine:
            run = await flow.start()
            await run.signal(Forward())
            await ended(run, RunParked)
            assert await run.questions() == []
            with pytest.raises(SignalRejected):
                await run.answer(Bid, 7)
            mended.append(True)
            await run.resume()
            await quiet(engine)
            await run.answer(Bid, 7)
            assert await run.result(timeout=20) == 7

    asyncio.run(scenario())


# From bodies ---------------------------------------------------------------------------------------------------------

done: list[str] = []


@step
async def act(what: str) -> str:
    done.append(what)
    return what


@workflow
async def answers(run_id: str) -> list[str]:
    refusals: list[str] = []
    await act("before")
    for number, key in enumerate(("Bid#1", "Bid#1", None)):
        try:
            await bids.run(run_id).answer(Bid, number, key=key, by="a run")
        except SignalRejected as error:
            refusals.append(type(error).__name__)
    await act("after")
    return refusals


def test_a_body_answers_once_and_is_refused_the_same_way_whenever_the_process_dies() -> None:
    async def story(teller: Teller) -> tuple[list[str], list[int]]:
        run = await bids.options(id="asker").start(1)
        await run.signal(Forward(), dedupe="go")
        await teller.at(1)
        answerer = await answers.options(id="answerer").start("asker")
        return await answerer.result(), await run.result()

    told = crash_everywhere(story, bids, answers, effects=done)
    assert told.returned == (["SignalSuperseded", "SignalSuperseded"], [0])
    assert told.runs["answerer"].keys == ["act#1", "answer#1", "answer#2", "answer#3", "act#2"]
    assert [outcome for _, outcome, _ in told.runs["answerer"].history[1:4]] == ["value", "declared", "declared"]


def test_what_a_body_had_answered_when_the_process_died_is_its_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with Engine(tmp_path / "j.db", clock=ManualClock()) as engine:
            run = await bids.options(id="x").start(1)
            await run.signal(Forward())
            await quiet(engine)
            gate = Gate(engine, "answer", monkeypatch)
            await answers.options(id="y").start("x")
            await gate.reached()  # it is stored, and the body was not told
            await die(engine)
        async with Engine(tmp_path / "j.db", clock=ManualClock(), workflows=[answers, bids]) as engine:
            assert await answers.run("y").result(timeout=20) == ["SignalSuperseded", "SignalSuperseded"]
            assert await bids.run("x").result(timeout=20) == [0]

    asyncio.run(scenario())


def test_what_a_superseded_answer_says_is_the_same_on_replay(tmp_path: Path) -> None:
    said: list[tuple[str, Any, str, str]] = []

    @workflow
    async def flow() -> None:
        try:
            await bids.run("x").answer(Bid, 8)
        except SignalSuperseded as error:
            said.append((error.run_id, error.at, error.by, str(error)))
        await Forward.wait()

    async def scenario() -> None:
        async with Engine(tmp_path / "j.db", clock=ManualClock()) as engine:
            run = await bids.options(id="x").start(1)
            await run.signal(Forward())
            await quiet(engine)
            await run.answer(Bid, 7, by="ada")
            await flow.options(id="y").start()
            await quiet(engine)
        async with Engine(tmp_path / "j.db", clock=ManualClock(), workflows=[flow]) as engine:
            await engine.run("y").signal(Forward())
            await engine.run("y").result(timeout=20)

    asyncio.run(scenario())
    first, again = said
    assert first == again
    assert first[:3] == ("x", BEGIN, "ada")

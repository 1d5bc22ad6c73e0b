"""Which answer counts: by key or without, early, late, twice, from two senders, and from the bodies of other runs."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest

from durable_sqlite import (
    Engine,
    RunCancelled,
    Signal,
    SignalRejected,
    SignalSuperseded,
    State,
    Suspend,
    UnknownRun,
    step,
    workflow,
)
from durable_sqlite._clock import to_datetime
from tests.support.clock import START, ManualClock
from tests.support.gates import Gate
from tests.support.restarts import die, quiet
from tests.support.stage import Stage, ended

BEGIN = to_datetime(START)


class Vote(Suspend[int]):
    round: int = 0


class Veto(Suspend[bool]):
    pass


class Onward(Signal):
    pass


@workflow
async def votes(rounds: int) -> list[int]:
    """Asks one after the other, each after a message."""
    got: list[int] = []
    for number in range(rounds):
        await Onward.wait()
        got.append(await Vote(round=number))
    return got


@workflow
async def votes_in_time() -> list[int | None]:
    return [await Vote(round=number).wait(timeout=10) for number in range(2)]


@workflow
async def votes_twice() -> list[int]:
    return list(await asyncio.gather(Vote(round=1).wait(key="left"), Vote(round=2).wait(key="right")))


# With a key and without ----------------------------------------------------------------------------------------------


def test_without_a_key_the_only_question_of_a_suspend_point_is_answered() -> None:
    async def scenario() -> None:
        async with Engine(":memory:", clock=ManualClock()) as engine:
            run = await votes.start(1)
            await run.signal(Onward())
            await quiet(engine)
            await run.answer(Vote, 7)
            assert await run.result(timeout=20) == [7]

    asyncio.run(scenario())


def test_without_a_key_several_questions_are_refused_with_their_keys_and_with_one_each_is_answered() -> None:
    async def scenario() -> None:
        async with Engine(":memory:", clock=ManualClock()) as engine:
            run = await votes_twice.options(id="x").start()
            await quiet(engine)
            with pytest.raises(SignalRejected, match=r"left \(open\), right \(open\)") as refused:
                await run.answer(Vote, 0)
            assert type(refused.value) is SignalRejected
            await run.answer(Vote, 2, key="right")
            await quiet(engine)
            with pytest.raises(SignalRejected, match=r"left \(open\), right \(answered\)"):
                await run.answer(Vote, 0)
            await run.answer(Vote, 1, key="left")
            assert await run.result(timeout=20) == [1, 2]
            with pytest.raises(SignalRejected, match="several"):
                await run.answer(Vote, 0)

    asyncio.run(scenario())


def test_a_question_that_was_not_asked_yet_takes_no_answer() -> None:
    async def scenario() -> None:
        async with Engine(":memory:", clock=ManualClock()) as engine:
            run = await votes.options(id="x").start(1)
            await quiet(engine)
            said = "run x is suspended, and it has not asked Vote yet: wait until it has, or say early=True"
            for key in (None, "Vote#1"):
                with pytest.raises(
                    SignalRejected, match=said if key is None else "has not asked the question Vote#1"
                ) as no:
                    await run.answer(Vote, 7, key=key)
                assert type(no.value) is SignalRejected
            await run.signal(Onward())
            await quiet(engine)
            assert len(await run.questions()) == 1

    asyncio.run(scenario())


@pytest.mark.parametrize("key", ["Vote#2", "left", "", "Vote"])
def test_a_key_that_no_question_has_is_refused_with_those_that_there_are(key: str) -> None:
    async def scenario() -> None:
        async with Engine(":memory:", clock=ManualClock()) as engine:
            run = await votes.start(1)
            await run.signal(Onward())
            await quiet(engine)
            with pytest.raises(SignalRejected, match=r"Its questions: Vote#1 \(open\)"):
                await run.answer(Vote, 7, key=key)
            with pytest.raises(SignalRejected, match="is one of Vote, not of Veto"):
                await run.answer(Veto, True, key="Vote#1")
            assert len(await run.questions()) == 1

    asyncio.run(scenario())


def test_an_answer_to_no_run_is_refused() -> None:
    async def scenario() -> None:
        async with Engine(":memory:") as engine:
            with pytest.raises(UnknownRun):
                await engine.run("x").answer(Vote, 7, early=True)

    asyncio.run(scenario())


# Twice ---------------------------------------------------------------------------------------------------------------


def test_of_two_answers_the_first_counts_and_the_second_learns_when_and_by_whom(tmp_path: Path) -> None:
    async def scenario() -> None:
        clock = ManualClock()
        async with Engine(tmp_path / "j.db", clock=clock) as engine:
            run = await votes.options(id="x").start(1)
            await run.signal(Onward())
            await quiet(engine)
            clock.advance(60)
            await run.answer(Vote, 7, by="ada")
            clock.advance(60)
            for _ in range(2):  # also when the run has ended
                for key in (None, "Vote#1"):
                    with pytest.raises(SignalSuperseded, match=r"answered at 2023-11-14T22:14:20.* by ada") as late:
                        await run.answer(Vote, 8, key=key, by="bob")
                    assert (late.value.run_id, late.value.at, late.value.by) == (
                        "x",
                        BEGIN + timedelta(minutes=1),
                        "ada",
                    )
                assert await run.result(timeout=20) == [7]

    asyncio.run(scenario())


def test_an_answer_that_waits_for_its_process_counts_as_the_first(tmp_path: Path) -> None:
    async def scenario() -> None:
        clock = ManualClock()
        async with Engine(tmp_path / "j.db", clock=clock) as engine:
            run = await votes.options(id="x").start(1)
            await run.signal(Onward())
            await quiet(engine)
            await die(engine)
        async with Engine(tmp_path / "j.db", clock=clock, drive=False) as client:
            await client.run("x").answer(Vote, 7, by="ada")
            with pytest.raises(SignalSuperseded):
                await client.run("x").answer(Vote, 8, by="bob")
        async with Engine(tmp_path / "j.db", clock=clock, workflows=[votes]) as engine:
            assert await engine.run("x").result(timeout=20) == [7]

    asyncio.run(scenario())


def test_a_second_click_never_answers_the_next_question() -> None:
    async def scenario() -> None:
        async with Engine(":memory:", clock=ManualClock()) as engine:
            run = await votes.start(2)
            await run.signal(Onward())
            await quiet(engine)
            await run.answer(Vote, 1, key="Vote#1")
            await run.signal(Onward())
            await quiet(engine)
            with pytest.raises(SignalSuperseded):
                await run.answer(Vote, 9, key="Vote#1")
            with pytest.raises(SignalRejected, match=r"Vote#1 \(answered\), Vote#2 \(open\)"):
                await run.answer(Vote, 9)
            await run.answer(Vote, 2, key="Vote#2")
            assert await run.result(timeout=20) == [1, 2]

    asyncio.run(scenario())


@pytest.mark.parametrize("engines", [1, 2])
def test_of_two_senders_at_once_exactly_one_wins(tmp_path: Path, engines: int) -> None:
    async def scenario() -> None:
        clock = ManualClock()
        async with Engine(tmp_path / "j.db", clock=clock) as engine, Engine(tmp_path / "j.db", drive=False) as client:
            run = await votes.options(id="x", engine=engine).start(1)
            await run.signal(Onward())
            await quiet(engine)
            other = engine if engines == 1 else client
            ada, bob = run.answer(Vote, 1, by="ada"), other.run("x").answer(Vote, 2, by="bob")
            outcomes = await asyncio.gather(ada, bob, return_exceptions=True)
            (won,) = [number for number, outcome in enumerate(outcomes, start=1) if outcome is None]
            (lost,) = [outcome for outcome in outcomes if outcome is not None]
            assert isinstance(lost, SignalSuperseded)
            assert lost.by == {1: "ada", 2: "bob"}[won]
            assert await run.result(timeout=20) == [won]

    asyncio.run(scenario())


@pytest.mark.parametrize("drives", ["ada", "bob"])
@pytest.mark.parametrize("held", ["the answer", "what tells of it"])
def test_of_two_senders_the_one_whose_answer_is_stored_first_wins_whoever_sent_first_and_stays_the_winner(
    tmp_path: Path, drives: str, held: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ada sends first. Held until Bob's answer is there is what she sends, or only the news that it is stored."""

    async def scenario() -> None:
        path, clock = tmp_path / "j.db", ManualClock()
        async with Engine(path, clock=clock) as engine, Engine(path, clock=clock, drive=False) as client:
            run = await votes.options(id="x", engine=engine).start(2)
            await run.signal(Onward())
            await quiet(engine)
            of_ada, of_bob = (engine, client) if drives == "ada" else (client, engine)
            before = held == "the answer"
            gate = Gate(of_ada, "answer", monkeypatch, before=before)
            ada = asyncio.create_task(of_ada.run("x").answer(Vote, 1, by="ada"))
            await gate.reached()
            bob = asyncio.create_task(of_bob.run("x").answer(Vote, 2, by="bob"))
            await asyncio.wait([bob])
            gate.open()
            await asyncio.wait([ada])
            won, lost = (bob, ada) if before else (ada, bob)
            assert won.exception() is None
            superseded = lost.exception()
            assert isinstance(superseded, SignalSuperseded)
            assert superseded.by == ("bob" if before else "ada")
            await quiet(engine)
            await die(engine)
        async with Engine(path, clock=clock, workflows=[votes]) as engine:
            run = votes.run("x")
            await run.signal(Onward())
            await quiet(engine)
            await run.answer(Vote, 3, key="Vote#2")
            assert await run.result(timeout=20) == [2 if before else 1, 3]

    asyncio.run(scenario())


# Early ---------------------------------------------------------------------------------------------------------------


def test_an_early_answer_fills_the_next_question_of_its_suspend_point() -> None:
    async def scenario() -> None:
        clock = ManualClock()
        async with Engine(":memory:", clock=clock) as engine:
            run = await votes.start(1)
            await quiet(engine)
            await run.answer(Vote, 7, by="ada", early=True)
            await quiet(engine)
            assert (await run.info()).state is State.SUSPENDED
            clock.advance(60)
            await run.signal(Onward())
            assert await run.result(timeout=20) == [7]
            entry = (await run.history())[-1]
            assert (entry.key, entry.decided_by) == ("Vote#1", "ada")
            with pytest.raises(SignalSuperseded) as late:
                await run.answer(Vote, 8)
            assert (late.value.at, late.value.by) == (BEGIN, "ada")

    asyncio.run(scenario())


def test_early_answers_are_used_up_one_a_question_in_the_order_in_which_they_came(tmp_path: Path) -> None:
    async def scenario() -> None:
        clock = ManualClock()
        async with Engine(tmp_path / "j.db", clock=clock) as engine:
            run = await votes.options(id="x").start(3)
            await quiet(engine)
            await run.answer(Vote, 1, early=True)
            await run.answer(Vote, 2, early=True)
            await die(engine)
        async with Engine(tmp_path / "j.db", clock=clock, workflows=[votes]) as engine:
            run = votes.run("x")
            for _ in range(3):
                await run.signal(Onward())
                await quiet(engine)
            (question,) = await run.questions()
            assert question.key == "Vote#3"
            await run.answer(Vote, 3, key="Vote#3")
            assert await run.result(timeout=20) == [1, 2, 3]

    asyncio.run(scenario())


def test_an_early_answer_is_given_at_once_though_a_step_beside_the_question_goes_on() -> None:
    stage = Stage()

    @step
    async def work(what: str) -> str:
        await stage.enter(what)
        return what

    @workflow
    async def flow() -> str:
        await work("first")
        beside = asyncio.create_task(work("beside"))
        vote = await Vote()
        return f"{vote} {await work('after')} {await beside}"

    async def scenario() -> None:
        async with Engine(":memory:"):
            run = await flow.start()
            await stage.seen("first")
            await run.answer(Vote, 7, early=True)
            stage.let("first")
            await stage.seen("beside", "after")
            stage.let("beside", "after")
            assert await run.result(timeout=20) == "7 after beside"

    asyncio.run(scenario())


def test_early_is_an_ordinary_answer_where_the_question_is_asked_already() -> None:
    async def scenario() -> None:
        async with Engine(":memory:", clock=ManualClock()) as engine:
            run = await votes.start(2)
            await run.signal(Onward())
            await quiet(engine)
            await run.answer(Vote, 1, early=True)
            with pytest.raises(SignalSuperseded):
                await run.answer(Vote, 9, early=True)
            await run.signal(Onward())
            await quiet(engine)
            await run.answer(Vote, 2, key="Vote#2")
            assert await run.result(timeout=20) == [1, 2]

    asyncio.run(scenario())


def test_an_early_answer_takes_no_key_and_a_run_that_has_ended_takes_none() -> None:
    async def scenario() -> None:
        async with Engine(":memory:", clock=ManualClock()) as engine:
            run = await votes.options(id="x").start(1)
            await quiet(engine)
            with pytest.raises(SignalRejected, match="an early answer takes no key"):
                await run.answer(Vote, 7, key="Vote#1", early=True)
            over = await votes.options(id="y").start(0)
            await over
            with pytest.raises(SignalRejected, match="run y is completed, and it never asked Vote"):
                await over.answer(Vote, 7, early=True)
            await run.cancel()
            await ended(run, RunCancelled)
            with pytest.raises(SignalRejected, match="run x is cancelled, and it never asked Vote"):
                await run.answer(Vote, 7, early=True)

    asyncio.run(scenario())

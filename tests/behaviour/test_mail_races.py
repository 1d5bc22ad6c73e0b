"""Messages and answers against other events, forced into both orders: one wins, and stays the winner."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from durable_sqlite import (
    Engine,
    Run,
    RunCancelled,
    Signal,
    SignalRejected,
    Suspend,
    sleep,
    workflow,
)
from tests.support.clock import ManualClock
from tests.support.gates import Gate
from tests.support.restarts import die, quiet
from tests.support.stage import ended


class Ball(Signal):
    n: int = 0


class Toss(Suspend[int]):
    pass


@workflow
async def catches() -> int:
    """Gets what comes: a message, or an answer."""
    ball, toss = asyncio.create_task(Ball.wait()), asyncio.create_task(Toss().wait(key="toss"))
    await asyncio.wait([ball, toss], return_when=asyncio.FIRST_COMPLETED)
    if ball.done():
        toss.cancel()
        return ball.result().n
    ball.cancel()
    return toss.result()


async def throw(run: Run[Any]) -> None:
    await run.signal(Ball(n=7))


async def toss(run: Run[Any]) -> None:
    await run.answer(Toss, 7)


BOTH = pytest.mark.parametrize("send", [throw, toss])
MEMORY = pytest.mark.parametrize("unload_after", [0.0, 3600.0])


# Against other events ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("signal_first", [True, False])
def test_a_message_and_a_cancel_that_come_together_are_given_in_the_order_of_the_journal(
    signal_first: bool, tmp_path: Path
) -> None:
    """Nobody drives the run when they come. The cancel goes first to a body, and what was not taken stays listed."""

    async def scenario() -> None:
        async with Engine(tmp_path / "j.db") as engine:
            await catches.options(id="x").start()
            await quiet(engine)
        async with Engine(tmp_path / "j.db", drive=False) as client:
            run = client.run("x")
            if signal_first:
                await throw(run)
            await run.cancel()
            if not signal_first:
                await throw(run)
        async with Engine(tmp_path / "j.db", workflows=[catches]) as engine:
            await ended(engine.run("x"), RunCancelled)
            assert [entry.key for entry in await engine.run("x").history()] == ["~cancel"]
            assert len(await engine.run("x").messages()) == 1

    asyncio.run(scenario())


def test_a_message_that_comes_while_the_run_ends_is_kept_or_refused_and_never_half_of_each(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    @workflow
    async def flow() -> str:
        await sleep(10)
        return "done"

    async def scenario() -> None:
        clock = ManualClock()
        async with Engine(":memory:", clock=clock) as engine:
            for before in (True, False):
                run = await flow.start()
                await quiet(engine)
                with monkeypatch.context() as patch:
                    gate = Gate(engine, "end", patch, before=before)
                    clock.advance(10)
                    await gate.reached()
                    if before:
                        await throw(run)
                    else:
                        with pytest.raises(SignalRejected):
                            await throw(run)
                    gate.open()
                    assert await run.result(timeout=20) == "done"
                    assert len(await run.messages()) == before

    asyncio.run(scenario())


@pytest.mark.parametrize("answer_first", [True, False])
def test_an_answer_and_a_message_that_race_have_one_winner_and_it_stays_the_winner(
    answer_first: bool, tmp_path: Path
) -> None:
    @workflow
    async def flow() -> str:
        toss, ball = asyncio.create_task(Toss().wait(timeout=60)), asyncio.create_task(Ball.wait())
        done, left = await asyncio.wait([toss, ball], return_when=asyncio.FIRST_COMPLETED)
        for task in left:
            task.cancel()
        first = "ball" if ball in done else "toss"
        await sleep(100)
        return first

    async def scenario() -> None:
        clock = ManualClock()
        async with Engine(tmp_path / "j.db", clock=clock) as engine:
            run = await flow.options(id="x").start()
            await quiet(engine)
            for send in (toss, throw) if answer_first else (throw, toss):
                try:
                    await send(run)
                except SignalRejected:
                    assert send is toss  # its question was closed
                await quiet(engine)
            await die(engine)
        clock.advance(100)
        async with Engine(tmp_path / "j.db", clock=clock, workflows=[flow]) as engine:
            assert await engine.run("x").result(timeout=20) == ("toss" if answer_first else "ball")

    asyncio.run(scenario())


def test_an_answer_that_comes_before_the_run_knows_that_its_question_is_stored_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def scenario() -> None:
        async with Engine(":memory:", clock=ManualClock()) as engine:
            gate = Gate(engine, "ask", monkeypatch)
            run = await catches.start()
            await gate.reached()
            await toss(run)
            gate.open()
            assert await run.result(timeout=20) == 7

    asyncio.run(scenario())


def test_an_answer_that_comes_while_its_question_is_being_given_up_is_taken_as_little_as_one_that_comes_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    @workflow
    async def flow() -> str:
        async with asyncio.timeout(10):
            toss = asyncio.create_task(Toss().wait())
            await Ball.wait()
            toss.cancel()
        await Ball.wait()
        return "gave up"

    async def scenario() -> None:
        async with Engine(":memory:", clock=ManualClock()) as engine:
            for before in (True, False):
                run = await flow.start()
                await quiet(engine)
                with monkeypatch.context() as patch:
                    gate = Gate(engine, "withdraw", patch, before=before)
                    await throw(run)
                    await gate.reached()
                    if before:
                        await toss(run)
                    else:
                        with pytest.raises(SignalRejected):
                            await toss(run)
                    gate.open()
                    await quiet(engine)
                    assert await run.questions() == []
                    await throw(run)
                    assert await run.result(timeout=20) == "gave up"

    asyncio.run(scenario())

"""Messages that bodies send: once, whatever becomes of the process, and refused the same way on every replay."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from durable_sqlite import (
    Engine,
    Kind,
    Outcome,
    RunFailed,
    RunParked,
    Signal,
    SignalRejected,
    State,
    UnknownRun,
    current_run,
    sleep,
    step,
    workflow,
)
from tests.support.clock import ManualClock
from tests.support.crash_points import Teller, crash_everywhere
from tests.support.gates import Gate
from tests.support.restarts import die, quiet
from tests.support.stage import ended

done: list[str] = []


@pytest.fixture(autouse=True)
def forget() -> None:
    done.clear()


class Penny(Signal):
    n: int = 0


@step
async def act(what: str) -> str:
    done.append(what)
    return what


@workflow
async def takes(count: int) -> list[int]:
    return [(await Penny.wait()).n for _ in range(count)]


# From bodies ---------------------------------------------------------------------------------------------------------


@workflow
async def tells(run_id: str) -> str:
    await act("before")
    await takes.run(run_id).signal(Penny(n=1))
    await takes.run(run_id).signal(Penny(n=1))
    await act("after")
    return "told"


def test_a_body_sends_each_message_once_whenever_the_process_dies() -> None:
    async def story(teller: Teller) -> list[int]:
        run = await takes.options(id="taker").start(3)
        sender = await tells.options(id="sender").start("taker")
        assert await sender.result() == "told"
        await run.signal(Penny(n=2), dedupe="the last one")
        return await run.result()

    told = crash_everywhere(story, takes, tells, effects=done)
    assert told.returned == [1, 1, 2]
    assert told.runs["sender"].keys == ["act#1", "signal#1", "signal#2", "act#2"]
    assert told.runs["taker"].untaken == ()


def test_what_a_body_had_sent_when_the_process_died_is_not_sent_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with Engine(tmp_path / "j.db", clock=ManualClock()) as engine:
            await takes.options(id="taker").start(3)
            gate = Gate(engine, "signal", monkeypatch)
            await tells.options(id="sender").start("taker")
            await gate.reached()  # it is stored, and the body was not told
            await die(engine)
        async with Engine(tmp_path / "j.db", clock=ManualClock(), workflows=[takes, tells]) as engine:
            assert await tells.run("sender").result(timeout=20) == "told"
            await quiet(engine)
            assert len(await engine.run("taker").history()) == 2
            assert await engine.run("taker").messages() == []

    asyncio.run(scenario())


def test_a_message_to_a_run_that_has_ended_in_the_meantime_was_sent_nevertheless() -> None:
    async def story(teller: Teller) -> list[int]:
        run = await takes.options(id="taker").start(2)
        await tells.options(id="sender").start("taker")
        taken = await run.result()  # after the commit that stores the second message, perhaps before it is recorded
        assert await teller.engine.run("sender").result() == "told"
        return taken

    assert crash_everywhere(story, takes, tells, effects=done).returned == [1, 1]


def test_a_refused_message_is_refused_again_on_every_replay(tmp_path: Path) -> None:
    refusals: list[tuple[str, str]] = []

    @workflow
    async def flow() -> int:
        for run_id in ("ended", "nobody"):
            try:
                await takes.run(run_id).signal(Penny(n=1))
            except (SignalRejected, UnknownRun) as error:
                refusals.append((type(error).__name__, error.run_id))
        return (await Penny.wait()).n

    async def scenario() -> None:
        async with Engine(tmp_path / "j.db") as engine:
            await (await takes.options(id="ended").start(0))
            run = await flow.options(id="x").start()
            await quiet(engine)
            assert [(entry.key, entry.kind, entry.outcome) for entry in await run.history()] == [
                ("signal#1", Kind.ACT, Outcome.DECLARED),
                ("signal#2", Kind.ACT, Outcome.DECLARED),
            ]
        async with Engine(tmp_path / "j.db", workflows=[flow, takes]) as engine:
            await takes.options(id="nobody").start(1)  # would take it by now
            await flow.run("x").signal(Penny(n=7))
            assert await flow.run("x").result(timeout=20) == 7
            await quiet(engine)
            assert (await engine.run("nobody").info()).state is State.SUSPENDED

    asyncio.run(scenario())
    assert refusals == [("SignalRejected", "ended"), ("UnknownRun", "nobody")] * 2


def test_a_refusal_that_a_body_does_not_catch_fails_its_run() -> None:
    @workflow
    async def flow() -> None:
        await takes.run("nobody").signal(Penny())

    async def scenario() -> None:
        async with Engine(":memory:"):
            failed = await ended(await flow.start(), RunFailed)
            assert failed.record is not None
            assert failed.record.is_a(UnknownRun)

    asyncio.run(scenario())


def test_a_body_may_name_the_message_itself_and_is_then_one_of_many_senders() -> None:
    @workflow
    async def flow() -> None:
        await takes.run("x").signal(Penny(n=1), dedupe="msg-1")

    async def scenario() -> None:
        async with Engine(":memory:", clock=ManualClock()) as engine:
            run = await takes.options(id="x").start(2)
            for _ in range(2):
                await flow()
            await quiet(engine)
            assert (await run.info()).state is State.SUSPENDED
            await run.signal(Penny(n=2))
            assert await run.result(timeout=20) == [1, 2]

    asyncio.run(scenario())


def test_a_body_may_send_a_message_to_itself() -> None:
    @workflow
    async def flow() -> list[int]:
        me = takes.run(current_run().run_id)
        await me.signal(Penny(n=1))
        waiting = asyncio.create_task(Penny.wait())
        first = await waiting
        later = asyncio.create_task(Penny.wait())
        await me.signal(Penny(n=2))
        return [first.n, (await later).n]

    async def story(teller: Teller) -> list[int]:
        return await (await flow.options(id="x").start()).result()

    told = crash_everywhere(story, flow, ordered=False)  # the second message and its wait are in flight at once
    assert told.returned == [1, 2]
    assert told.runs["x"].keys == ["signal#1", "Penny#1", "signal#2", "Penny#2"]


def test_another_message_under_the_key_of_a_recorded_one_is_a_divergence(tmp_path: Path) -> None:
    numbers = [1]

    @workflow
    async def flow() -> None:
        await takes.run("x").signal(Penny(n=numbers[-1]))
        await sleep(100)

    async def scenario() -> None:
        clock = ManualClock()
        async with Engine(tmp_path / "j.db", clock=clock) as engine:
            await takes.options(id="x").start(2)
            await flow.options(id="y").start()
            await quiet(engine)
        numbers.append(2)
        clock.advance(100)
        async with Engine(tmp_path / "j.db", clock=clock, workflows=[flow, takes]) as engine:
            parked = await ended(engine.run("y"), RunParked)
            assert parked.reason == "diverged"

    asyncio.run(scenario())


def test_a_step_may_not_send_a_message_since_it_may_run_again() -> None:
    @step
    async def sends(run_id: str) -> None:
        await takes.run(run_id).signal(Penny())

    @workflow
    async def flow(run_id: str) -> None:
        await sends(run_id)

    async def scenario() -> None:
        async with Engine(":memory:") as engine:
            run = await takes.start(1)
            failed = await ended(await flow.start(run.id), RunFailed)
            assert "inside a step may happen more than once" in str(failed)
            await quiet(engine)
            assert await run.messages() == []

    asyncio.run(scenario())

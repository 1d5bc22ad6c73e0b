"""Messages to runs: kept in order until they are taken, whenever they come, and taken once."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from durable_sqlite import (
    Engine,
    Kind,
    Outcome,
    Run,
    RunCancelled,
    RunFailed,
    RunParked,
    Signal,
    SignalRejected,
    State,
    UnknownRun,
    sleep,
    step,
    workflow,
)
from durable_sqlite._clock import to_datetime
from tests.support.clock import START, ManualClock
from tests.support.restarts import die, quiet
from tests.support.stage import Stage, ended

BEGIN = to_datetime(START)


class Parcel(Signal):
    n: int = 0


class Place(Signal):
    where: str


class Nudge(Signal):
    """A message that has only a name."""


@workflow
async def takes(count: int) -> list[int]:
    return [(await Parcel.wait()).n for _ in range(count)]


@workflow
async def ignores() -> None:
    await sleep(100)


async def sent(run: Run[Any], *numbers: int) -> None:
    for number in numbers:
        await run.signal(Parcel(n=number))


# When it comes -------------------------------------------------------------------------------------------------------


def test_a_signal_sent_before_the_wait_is_not_lost() -> None:
    stage = Stage()

    @step
    async def work() -> None:
        await stage.enter("work")

    @workflow
    async def flow() -> int:
        await work()
        return (await Parcel.wait()).n

    async def scenario() -> None:
        async with Engine(":memory:"):
            run = await flow.start()
            await stage.seen("work")
            await run.signal(Parcel(n=7))
            stage.let("work")
            assert await run.result(timeout=20) == 7

    asyncio.run(scenario())


def test_a_signal_wakes_the_run_that_waits_for_it() -> None:
    async def scenario() -> None:
        async with Engine(":memory:", clock=ManualClock()) as engine:
            run = await takes.start(1)
            await quiet(engine)
            assert (await run.info()).state is State.SUSPENDED
            await run.signal(Parcel(n=7))
            assert await run.result(timeout=20) == [7]
            (entry,) = await run.history()
            assert (entry.key, entry.kind, entry.outcome, entry.value) == (
                "Parcel#1",
                Kind.SIGNAL,
                Outcome.VALUE,
                {"n": 7},
            )

    asyncio.run(scenario())


def test_a_signal_sent_while_no_process_drives_the_run_is_there_when_one_does(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Engine(tmp_path / "j.db") as engine:
            await takes.options(id="x").start(2)
            await quiet(engine)
            await die(engine)
        async with Engine(tmp_path / "j.db", drive=False) as client:
            await sent(client.run("x"), 1, 2)
        async with Engine(tmp_path / "j.db", workflows=[takes]) as engine:
            assert await engine.run("x").result(timeout=20) == [1, 2]

    asyncio.run(scenario())


def test_a_signal_that_was_taken_is_not_taken_again_after_a_crash(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Engine(tmp_path / "j.db") as engine:
            run = await takes.options(id="x").start(2)
            await sent(run, 1)
            await quiet(engine)
            assert [entry.value for entry in await run.history()] == [{"n": 1}]
            await die(engine)
        async with Engine(tmp_path / "j.db", workflows=[takes]) as engine:
            run = takes.run("x")
            await quiet(engine)
            assert (await run.info()).state is State.SUSPENDED
            await sent(run, 2)
            assert await run.result(timeout=20) == [1, 2]

    asyncio.run(scenario())


def test_signals_are_taken_in_the_order_in_which_they_were_stored_class_by_class() -> None:
    @workflow
    async def flow() -> list[str]:
        await sleep(10)
        places = [(await Place.wait()).where for _ in range(2)]
        return [*places, *[str((await Parcel.wait()).n) for _ in range(3)]]

    async def scenario() -> None:
        clock = ManualClock()
        async with Engine(":memory:", clock=clock) as engine:
            run = await flow.start()
            await sent(run, 3, 1)
            await run.signal(Place(where="Oslo"))
            await sent(run, 2)
            await run.signal(Place(where="Lima"))
            await quiet(engine)
            clock.advance(10)
            assert await run.result(timeout=20) == ["Oslo", "Lima", "3", "1", "2"]

    asyncio.run(scenario())


@pytest.mark.parametrize("signal", [Parcel(), Nudge()], ids=["all defaults", "no fields"])
def test_a_message_with_nothing_in_it_is_a_message(signal: Signal) -> None:
    @workflow
    async def flow(name: str) -> str:
        return repr(await (Parcel.wait(timeout=10) if name == "Parcel" else Nudge.wait(timeout=10)))

    async def scenario() -> None:
        async with Engine(":memory:", clock=ManualClock()):
            run = await flow.start(type(signal).__name__)
            await run.signal(signal)
            assert await run.result(timeout=20) == repr(signal)

    asyncio.run(scenario())


# Twice ---------------------------------------------------------------------------------------------------------------


def test_a_message_that_is_sent_again_with_its_dedupe_value_is_the_same_message() -> None:
    async def scenario() -> None:
        async with Engine(":memory:", clock=ManualClock()) as engine:
            run, other = await takes.start(2), await takes.start(1)
            for number in (1, 2):  # whatever it says the second time
                await run.signal(Parcel(n=number), dedupe="msg-1")
            await quiet(engine)
            await run.signal(Parcel(n=3), dedupe="msg-1")  # it is taken by now
            await quiet(engine)
            assert (await run.info()).state is State.SUSPENDED
            assert await run.messages() == []
            await other.signal(Parcel(n=4), dedupe="msg-1")  # of another run
            await run.signal(Parcel(n=5), dedupe="msg-2")
            assert (await run.result(timeout=20), await other.result(timeout=20)) == ([1, 5], [4])
            await run.signal(Parcel(n=6), dedupe="msg-2")  # also once the run has ended: it was taken

    asyncio.run(scenario())


def test_messages_without_a_dedupe_value_are_all_different() -> None:
    async def scenario() -> None:
        async with Engine(":memory:"):
            run = await takes.start(3)
            await sent(run, 1, 1, 1)
            assert await run.result(timeout=20) == [1, 1, 1]

    asyncio.run(scenario())


# To whom -------------------------------------------------------------------------------------------------------------


async def completed() -> Run[Any]:
    run = await takes.options(id="x").start(0)
    await run
    return run


async def failed() -> Run[Any]:
    @workflow
    async def fails() -> None:
        raise LookupError

    run = await fails.options(id="x").start()
    await ended(run, RunFailed)
    return run


async def cancelled() -> Run[Any]:
    run = await takes.options(id="x").start(1)
    await run.cancel()
    await ended(run, RunCancelled)
    return run


@pytest.mark.parametrize("end", [completed, failed, cancelled])
def test_a_run_that_has_ended_rejects_messages_and_stores_none(end: Any) -> None:
    async def scenario() -> None:
        async with Engine(":memory:"):
            run = await end()
            with pytest.raises(
                SignalRejected, match=f"run x is {end.__name__}: it takes no message any more"
            ) as caught:
                await run.signal(Parcel())
            assert caught.value.run_id == "x"
            assert await run.messages() == []

    asyncio.run(scenario())


def test_a_parked_run_keeps_messages_for_the_day_when_it_goes_on() -> None:
    mended: list[bool] = []

    @workflow
    async def flow() -> int:
        if not mended:
            await asyncio.get_running_loop().create_future()
        return (await Parcel.wait()).n

    async def scenario() -> None:
        async with Engine(":memory:"):
            run = await flow.start()
            await ended(run, RunParked)
            await run.signal(Parcel(n=7))
            assert [message.message for message in await run.messages()] == [{"n": 7}]
            mended.append(True)
            await run.resume()
            assert await run.result(timeout=20) == 7

    asyncio.run(scenario())


def test_a_message_to_no_run_is_refused_and_keeps_nothing_for_a_run_to_come() -> None:
    async def scenario() -> None:
        async with Engine(":memory:") as engine:
            with pytest.raises(UnknownRun):
                await engine.run("x").signal(Parcel(n=1))
            run = await takes.options(id="x").start(1)
            await quiet(engine)
            assert (await run.info()).state is State.SUSPENDED

    asyncio.run(scenario())


def test_what_nobody_took_stays_listed_also_when_the_run_has_ended() -> None:
    async def scenario() -> None:
        clock = ManualClock()
        async with Engine(":memory:", clock=clock) as engine:
            run = await ignores.start()
            await run.signal(Parcel(n=1), dedupe="msg-1")
            clock.advance(1)
            await run.signal(Place(where="Oslo"))
            await quiet(engine)
            for _ in range(2):
                first, second = await run.messages()
                assert (first.name, first.message, first.sent_at) == ("Parcel", {"n": 1}, BEGIN)
                assert (first.dedupe, first.error) == ("msg-1", None)
                assert (second.name, second.message) == ("Place", {"where": "Oslo"})
                assert (second.sent_at, second.dedupe) == (BEGIN + timedelta(seconds=1), None)
                clock.advance(100)
                await run

    asyncio.run(scenario())


# Branches ------------------------------------------------------------------------------------------------------------


@workflow
async def queues() -> list[int]:
    """Three branches that wait for the same class, the last one first."""

    async def branch(number: int) -> int:
        await sleep(30 - 10 * number)
        return (await Parcel.wait()).n

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(branch(number)) for number in range(3)]
    return [task.result() for task in tasks]


@pytest.mark.parametrize("unload_after", [0.0, 3600.0])
@pytest.mark.parametrize("crash", [False, True])
def test_the_branch_that_has_waited_longest_takes_the_oldest_message_over_restarts_and_unloads(
    tmp_path: Path, unload_after: float, crash: bool
) -> None:
    clock = ManualClock()

    async def one_life(engine: Engine, seconds: float, *numbers: int) -> None:
        await quiet(engine)
        clock.advance(seconds)
        await quiet(engine)
        await sent(engine.run("x"), *numbers)
        await quiet(engine)
        if crash:
            await die(engine)

    async def scenario() -> None:
        def opened() -> Engine:
            return Engine(tmp_path / "j.db", workflows=[queues], clock=clock, unload_after=unload_after)

        async with opened() as engine:
            await queues.options(id="x").start()
            await one_life(engine, 10)
        async with opened() as engine:
            await one_life(engine, 10)
        async with opened() as engine:
            await one_life(engine, 10)
        async with opened() as engine:
            await one_life(engine, 0, 1)
        async with opened() as engine:
            await sent(engine.run("x"), 2, 3)
            assert await queues.run("x").result(timeout=20) == [3, 2, 1]

    asyncio.run(scenario())


def test_a_key_names_the_wait_and_is_no_filter() -> None:
    @workflow
    async def flow() -> list[int]:
        first, second = Parcel.wait(key="card"), Parcel.wait(key="cash")
        return [message.n for message in await asyncio.gather(first, second)]

    async def scenario() -> None:
        async with Engine(":memory:"):
            run = await flow.start()
            await run.signal(Parcel(n=1), dedupe="cash")
            await sent(run, 2)
            assert await run.result(timeout=20) == [1, 2]
            assert [(entry.key, entry.name) for entry in await run.history()] == [
                ("card", "Parcel"),
                ("cash", "Parcel"),
            ]

    asyncio.run(scenario())


def test_a_branch_that_gave_up_its_wait_leaves_the_message_to_the_next_one() -> None:
    @workflow
    async def flow() -> int:
        first = asyncio.create_task(Parcel.wait())
        second = asyncio.create_task(Parcel.wait())
        await asyncio.wait([first, second], timeout=10)
        first.cancel()
        return (await second).n

    async def scenario() -> None:
        clock = ManualClock()
        async with Engine(":memory:", clock=clock) as engine:
            run = await flow.start()
            await quiet(engine)
            clock.advance(10)
            await quiet(engine)
            await sent(run, 7)
            assert await run.result(timeout=20) == 7
            assert await run.messages() == []

    asyncio.run(scenario())

"""Runs that wait for messages and answers: suspended only when nothing is in flight, out of memory, found by any engine."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from durable_sqlite import Engine, Run, Signal, SignalSuperseded, State, Suspend, sleep, step, workflow
from tests.support.clock import ManualClock
from tests.support.gates import eventually, session_of
from tests.support.restarts import die, quiet
from tests.support.stage import Stage

SINCE = "since 2023-11-14T22:13:20.000+00:00"

passes: list[str] = []


@pytest.fixture(autouse=True)
def forget() -> None:
    passes.clear()


class Guest(Signal):
    n: int = 0


class Host(Signal):
    pass


class Seat(Suspend[int]):
    guest: int


@workflow
async def dinner(name: str) -> list[int]:
    """Waits for three guests, each of whom is then asked for."""
    passes.append(name)
    seats: list[int] = []
    for _ in range(3):
        guest = await Guest.wait()
        seats.append(await Seat(guest=guest.n))
    return seats


async def state(run: Run[Any]) -> State:
    return (await run.info()).state


# What suspends a run -------------------------------------------------------------------------------------------------


def test_a_run_with_a_step_in_flight_beside_its_waits_is_not_suspended() -> None:
    stage = Stage()

    @step
    async def cook() -> str:
        await stage.enter("cook")
        return "soup"

    @workflow
    async def flow() -> tuple[str, int, int]:
        soup, guest, seat = await asyncio.gather(cook(), Guest.wait(), Seat(guest=1).wait())
        return soup, guest.n, seat

    async def scenario() -> None:
        async with Engine(":memory:", clock=ManualClock(), unload_after=0) as engine:
            run = await flow.start()
            await stage.seen("cook")
            assert await state(run) is State.RUNNING
            await run.signal(Guest(n=7))
            await eventually(run.history)
            assert await state(run) is State.RUNNING
            stage.let("cook")
            await quiet(engine)
            assert await state(run) is State.SUSPENDED
            assert (await run.info()).waiting_for == (f"an answer to Seat (Seat#1) {SINCE}",)
            await run.answer(Seat, 4)
            assert await run.result(timeout=20) == ("soup", 7, 4)

    asyncio.run(scenario())


def test_what_a_run_waits_for_is_said_wait_by_wait_and_nothing_is_said_of_what_is_over() -> None:
    @workflow
    async def flow() -> None:
        await asyncio.gather(sleep(100), Guest.wait(key="the-first"), Host.wait(timeout=50), Seat(guest=1).wait())

    async def scenario() -> None:
        clock = ManualClock()
        async with Engine(":memory:", clock=clock) as engine:
            run = await flow.start()
            await quiet(engine)
            assert (await run.info()).waiting_for == (
                f"a message Host (Host#1) {SINCE} until 2023-11-14T22:14:10.000+00:00",
                f"an answer to Seat (Seat#1) {SINCE}",
                f"sleep (sleep#1) {SINCE} until 2023-11-14T22:15:00.000+00:00",
                f"a message Guest (the-first) {SINCE}",
            )
            await run.signal(Guest())
            await run.answer(Seat, 1)
            await quiet(engine)
            assert [text.partition(" since")[0] for text in (await run.info()).waiting_for] == [
                "a message Host (Host#1)",
                "sleep (sleep#1)",
            ]
            clock.advance(100)
            await run.result(timeout=20)
            assert (await run.info()).waiting_for == ()

    asyncio.run(scenario())


def test_a_message_that_no_branch_waits_for_wakes_nobody() -> None:
    async def scenario() -> None:
        async with Engine(":memory:", clock=ManualClock(), unload_after=0) as engine:
            run = await dinner.start("x")
            await quiet(engine)
            await run.signal(Host())
            await quiet(engine)
            assert passes == ["x"]
            assert await state(run) is State.SUSPENDED
            assert [message.name for message in await run.messages()] == ["Host"]

    asyncio.run(scenario())


# Out of memory -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("unload_after", "max_resident"),
    [
        (0.0, 1),
        (0.0, 10_000),
        (3600.0, 1),
        pytest.param(
            3600.0,
            10_000,
            marks=pytest.mark.contradicts("two", "crash", "unload", reason="it counts what one engine has in memory"),
        ),
    ],
)
def test_runs_that_leave_memory_at_each_wait_are_woken_by_messages_and_answers(
    max_resident: int, unload_after: float
) -> None:
    async def scenario() -> None:
        clock = ManualClock()
        async with Engine(":memory:", clock=clock, unload_after=unload_after, max_resident=max_resident) as engine:
            runs = [await dinner.start(name) for name in "abc"]
            for number in range(3):
                for run in runs:
                    await quiet(engine)
                    await run.signal(Guest(n=number))
                for run in runs:
                    await quiet(engine)
                    (question,) = await run.questions()
                    assert question.question == {"guest": number}
                    await run.answer(Seat, 10 * number, key=question.key)
            for run in runs:
                assert await run.result(timeout=20) == [0, 10, 20]
            if unload_after == 0:
                assert len(passes) == 3 * 7  # nothing but its rows was left of each, six times
            elif max_resident > 1:
                assert len(passes) == 3

    asyncio.run(scenario())


@workflow
async def crowd(size: int) -> list[int]:
    """Waits for many guests and many seats at once; each guest takes a seat of the same number."""
    passes.append("crowd")

    async def one(number: int) -> int:
        guest = await Guest.wait()
        seat = await Seat(guest=number).wait(key=f"seat-{number}")
        return 1000 * guest.n + seat

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(number)) for number in range(size)]
    return [task.result() for task in tasks]


def test_a_run_with_two_hundred_waits_gets_each_message_once_and_in_order_over_restarts(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Engine(tmp_path / "j.db", clock=ManualClock()) as engine:
            run = await crowd.options(id="x").start(200)
            await quiet(engine)
            info = await run.info()
            assert info.state is State.SUSPENDED
            assert len(info.waiting_for) == 200
            for number in range(50):
                await run.signal(Guest(n=number))
            await quiet(engine)
            assert len(await run.questions()) == 50
            await die(engine)
        async with Engine(tmp_path / "j.db", clock=ManualClock(), drive=False) as client:
            for number in range(50, 200):
                await client.run("x").signal(Guest(n=number))
        async with Engine(tmp_path / "j.db", clock=ManualClock(), workflows=[crowd]) as engine:
            await quiet(engine)
            run = crowd.run("x")
            assert len(await run.questions()) == 200
            for question in reversed(await run.questions()):
                await run.answer(Seat, question.question["guest"], key=question.key)
            assert await run.result(timeout=60) == [1001 * number for number in range(200)]
            assert await run.messages() == []

    asyncio.run(scenario())


def test_many_runs_wait_and_each_gets_its_own_message() -> None:
    @workflow
    async def waits() -> int:
        return (await Guest.wait()).n

    async def scenario() -> None:
        async with Engine(":memory:", clock=ManualClock(), unload_after=0, max_resident=10) as engine:
            runs = [await waits.start() for _ in range(300)]
            await quiet(engine)
            assert await engine.count(state="suspended") == 300
            assert not session_of(engine).worker._residents.passes
            for number, run in enumerate(runs):
                await run.signal(Guest(n=number))
            assert [await run.result(timeout=20) for run in runs] == list(range(300))

    asyncio.run(scenario())


# Several engines -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("drive", [False, True])
@pytest.mark.parametrize("unload_after", [0.0, 3600.0])
def test_what_is_sent_through_another_engine_reaches_the_one_that_drives_the_run(
    tmp_path: Path, drive: bool, unload_after: float
) -> None:
    async def scenario() -> None:
        clock = ManualClock()
        async with (
            Engine(tmp_path / "j.db", clock=clock, unload_after=unload_after) as engine,
            Engine(tmp_path / "j.db", clock=clock, drive=drive) as other,
        ):
            await dinner.options(id="x", engine=engine).start("x")
            await quiet(engine)
            run = other.run("x")
            for number in range(3):
                await run.signal(Guest(n=number))
                questions = await eventually(run.questions)
                assert questions[0].question == {"guest": number}
                await run.answer(Seat, number, key=questions[0].key)
            assert await run.result(timeout=20) == [0, 1, 2]

    asyncio.run(scenario())


def test_what_another_engine_sends_to_a_run_with_a_step_in_flight_is_taken_beside_the_step(tmp_path: Path) -> None:
    stage = Stage()

    @step
    async def cook() -> None:
        await stage.enter("cook")

    @workflow
    async def flow() -> list[int]:
        async def guests() -> list[int]:
            return [(await Guest.wait()).n, await Seat(guest=1)]

        found, _ = await asyncio.gather(guests(), cook())
        return found

    async def scenario() -> None:
        async with (
            Engine(tmp_path / "j.db") as engine,
            Engine(tmp_path / "j.db", drive=False) as client,
        ):
            await flow.options(id="x", engine=engine).start()
            await stage.seen("cook")
            run = client.run("x")
            await run.signal(Guest(n=7))
            await eventually(run.questions)
            await run.answer(Seat, 8, by="ada")
            with pytest.raises(SignalSuperseded):
                await run.answer(Seat, 9)

            async def both_recorded() -> bool:
                return len(await run.history()) == 2

            await eventually(both_recorded)
            assert await state(run) is State.RUNNING
            stage.let("cook")
            assert await run.result(timeout=20) == [7, 8]

    asyncio.run(scenario())


def test_a_client_that_drives_nothing_starts_sends_answers_and_reads(tmp_path: Path) -> None:
    async def scenario() -> None:
        clock = ManualClock()
        async with Engine(tmp_path / "j.db", clock=clock, drive=False) as client:
            run = await dinner.options(id="x").signal_with_start(Guest(n=1), "x")
            await run.signal(Guest(n=2))
            await run.answer(Seat, 5, early=True)
            await quiet(client)
            assert await state(run) is State.PENDING
            assert [message.message for message in await run.messages()] == [{"n": 1}, {"n": 2}]
            assert passes == []
        async with Engine(tmp_path / "j.db", clock=clock, workflows=[dinner]) as engine:
            await quiet(engine)
            assert [entry.value for entry in await engine.run("x").history()] == [{"n": 1}, 5, {"n": 2}]
        async with Engine(tmp_path / "j.db", clock=clock, drive=False) as client:
            assert [question.key async for question in client.questions()] == ["Seat#2"]

    asyncio.run(scenario())


def test_a_question_in_a_wrapper_of_asyncio_leaves_memory_like_any_other() -> None:
    @workflow
    async def flow() -> int:
        passes.append("flow")
        first = await asyncio.wait_for(Seat(guest=1), 100)
        return first + await asyncio.shield(Seat(guest=2))

    async def scenario() -> None:
        async with Engine(":memory:", clock=ManualClock(), unload_after=0) as engine:
            run = await flow.start()
            for number in (1, 2):
                await quiet(engine)
                (question,) = await run.questions()
                await run.answer(Seat, number, key=question.key)
            assert await run.result(timeout=20) == 3

    asyncio.run(scenario())
    assert len(passes) == 3


def test_questions_may_be_gathered_as_they_stand_and_two_equal_ones_are_two() -> None:
    @workflow
    async def flow() -> list[int]:
        return list(await asyncio.gather(Seat(guest=1), Seat(guest=1)))

    async def scenario() -> None:
        async with Engine(":memory:", clock=ManualClock()) as engine:
            run = await flow.start()
            await quiet(engine)
            for number, question in enumerate(await run.questions()):
                await run.answer(Seat, number, key=question.key)
            assert await run.result(timeout=20) == [0, 1]

    asyncio.run(scenario())

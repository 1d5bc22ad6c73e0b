"""Bodies that wait for messages and answers come out the same whenever the process dies: before each commit and after it."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import pytest

from durable_sqlite import (
    RunCancelled,
    Signal,
    State,
    Suspend,
    WrongState,
    current_run,
    now,
    set_status,
    sleep,
    step,
    workflow,
)
from durable_sqlite._records import NewMessage
from tests.support.crash_points import Story, Teller, Told, crash_everywhere
from tests.support.gates import session_of

done: list[str] = []


class Command(Signal):
    do: str = ""
    n: int = 0


class Halt(Signal):
    pass


class Permit(Suspend[bool]):
    to: str


class Amount(Suspend[None | int]):
    pass


@step
async def act(what: str) -> str:
    done.append(what)
    return what


MEMORY = pytest.mark.parametrize("unload_after", [0.0, 3600.0])


def told(story: Story, *workflows: Any, unload_after: float, ordered: bool = True) -> Told:
    """The story, after every crash, without and with a while in which nobody was there."""
    first = crash_everywhere(story, *workflows, unload_after=unload_after, effects=done, ordered=ordered)
    later = crash_everywhere(story, *workflows, unload_after=unload_after, effects=done, ordered=ordered, downtime=0.5)
    assert first == later
    return first


@MEMORY
def test_an_actor_that_obeys_commands_until_it_is_told_to_halt(unload_after: float) -> None:
    @workflow
    async def actor() -> list[str]:
        log: list[str] = []
        halt = asyncio.create_task(Halt.wait())
        while not halt.done():
            command = asyncio.create_task(Command.wait(timeout=60))
            await asyncio.wait([halt, command], return_when=asyncio.FIRST_COMPLETED)
            if not command.done():
                command.cancel()
            elif (given := command.result()) is None:
                log.append("bored")
            else:
                log.append(await act(f"{given.do} {given.n}"))
        return log

    async def story(teller: Teller) -> list[str]:
        run = await actor.options(id="x").start()
        for number in range(3):
            await teller.at(10 * number)
            await run.signal(Command(do="go", n=number), dedupe=f"go {number}")
        await teller.at(100)
        await run.signal(Command(do="stop"), dedupe="stop")
        await teller.at(110)
        await run.signal(Halt(), dedupe="halt")
        return await run.result()

    came = told(story, actor, unload_after=unload_after)
    assert came.returned == ["go 0", "go 1", "go 2", "bored", "stop 0"]
    assert came.runs["x"].untaken == ()


@MEMORY
def test_a_race_between_a_question_a_message_and_a_timeout_keeps_its_winner(unload_after: float) -> None:
    @workflow
    async def races() -> list[str]:
        winners: list[str] = []
        for number in range(3):
            permit = asyncio.create_task(Permit(to=f"pass {number}").wait())
            command = asyncio.create_task(Command.wait())
            try:
                async with asyncio.timeout(10):
                    await asyncio.wait([permit, command], return_when=asyncio.FIRST_COMPLETED)
                winners.append("permit" if permit.done() else "command")
            except TimeoutError:
                winners.append("nobody")
            permit.cancel()
            command.cancel()
            await act(f"{number} {winners[-1]} {now():%M:%S}")
        return winners

    async def story(teller: Teller) -> list[str]:
        run = await races.options(id="x").start()
        await teller.at(5)
        await teller.answer("x", Permit, value=True, key="Permit#1", by="ada")
        await teller.at(12)
        await run.signal(Command(), dedupe="the only one")
        return await run.result()

    came = told(story, races, unload_after=unload_after)
    assert came.returned == ["permit", "command", "nobody"]


@MEMORY
def test_branches_that_hand_messages_on_through_a_queue(unload_after: float) -> None:
    @workflow
    async def factory() -> list[str]:
        queue: asyncio.Queue[Command | None] = asyncio.Queue()
        made: list[str] = []

        async def receive() -> None:
            while (command := await Command.wait()).do != "close":
                await queue.put(command)
            for _ in range(2):
                await queue.put(None)

        async def work(name: str) -> None:
            while (command := await queue.get()) is not None:
                made.append(await act(f"{name} {command.n}"))

        async with asyncio.TaskGroup() as group:
            group.create_task(receive())
            group.create_task(work("left"))
            group.create_task(work("right"))
        return made

    async def story(teller: Teller) -> list[str]:
        run = await factory.options(id="x").start()
        for number in range(4):
            await teller.at(number)
            await run.signal(Command(n=number), dedupe=str(number))
        await teller.at(10)
        await run.signal(Command(do="close"), dedupe="close")
        return sorted(made.partition(" ")[2] for made in await run.result())

    assert told(story, factory, unload_after=unload_after, ordered=False).returned == ["0", "1", "2", "3"]


@MEMORY
def test_a_chain_of_questions_with_early_falsy_and_missing_answers(unload_after: float) -> None:
    @workflow
    async def asks() -> list[Any]:
        got: list[Any] = []
        set_status("asking")
        got.append(await Permit(to="enter").wait(status="at the door"))
        got.extend([await Amount().wait(timeout=10) for _ in range(3)])
        await act("noted")
        set_status("done")
        return got

    async def story(teller: Teller) -> list[Any]:
        run = await asks.options(id="x").start()
        await teller.at(1)
        await teller.answer("x", Permit, value=False, key="Permit#1", by="ada")
        await teller.answer("x", Amount, None, "Amount#1")
        await teller.at(2)
        await teller.answer("x", Amount, 0, "Amount#2", by="bob")
        got = await run.result()
        assert (await run.info()).status == "done"
        assert [entry.decided_by for entry in await run.history()] == ["ada", None, "bob", None, None]
        return got

    came = told(story, asks, unload_after=unload_after)
    assert came.returned == [False, None, 0, None]
    assert [outcome for _, outcome, _ in came.runs["x"].history] == ["value", "value", "value", "timeout", "value"]


@workflow
async def pings(other: str, rounds: int) -> list[int]:
    """Sends to the other one, and waits for what that sends back."""
    got: list[int] = []
    for number in range(rounds):
        await pings.run(other).signal(Command(n=number))
        got.append((await Command.wait()).n)
    await act(f"{current_run().run_id} is done")
    return got


@MEMORY
def test_two_runs_that_send_each_other_messages(unload_after: float) -> None:
    async def story(teller: Teller) -> list[list[int]]:
        right = await waits_for_a_word.options(id="right").start()
        ping = await pings.options(id="ping").start("right", 3)
        return [await ping.result(), await right.result()]

    @workflow
    async def waits_for_a_word() -> list[int]:
        got: list[int] = []
        for _ in range(3):
            command = await Command.wait()
            await pings.run("ping").signal(Command(n=10 * command.n))
            got.append(command.n)
        return got

    came = told(story, pings, waits_for_a_word, unload_after=unload_after)
    assert came.returned == [[0, 10, 20], [0, 1, 2]]


@MEMORY
def test_messages_that_fit_no_type_between_those_that_do(unload_after: float) -> None:
    @workflow
    async def takes() -> list[int]:
        first = [(await Command.wait()).n for _ in range(2)]
        await sleep(10)
        return first + [command.n for command in await Command.drain()]

    async def story(teller: Teller) -> list[int]:
        run = await takes.options(id="x").start()
        await teller.at(1)
        journal, clock = session_of(teller.engine).journal, teller.engine._clock
        for number in range(5):
            if number % 2:
                payload = f'{{"n":{number}}}'.encode()
                sent = await journal.signal("x", NewMessage("Command", payload, clock.now(), dedupe=str(number)))
            else:
                sent = await journal.signal("x", NewMessage("Command", b'{"n":"x"}', clock.now(), dedupe=str(number)))
            session_of(teller.engine).worker.mailed(sent.row)
        await teller.at(2)
        await run.signal(Command(n=5), dedupe="5")
        got = await run.result()
        assert all(message.error is not None for message in await run.messages())
        return got

    came = told(story, takes, unload_after=unload_after)
    assert came.returned == [1, 3, 5]
    assert came.runs["x"].untaken == ("Command",) * 3


@MEMORY
def test_a_cancel_during_waits_lets_the_body_clean_up_once(unload_after: float) -> None:
    @workflow
    async def flow() -> None:
        try:
            await asyncio.gather(Command.wait(), Permit(to="stay").wait())
        finally:
            await act("tidied up")
            await Amount().wait(timeout=5)

    async def story(teller: Teller) -> str:
        run = await flow.options(id="x").start()
        await teller.at(1)
        with suppress(WrongState):
            await run.cancel(reason="enough", by="ada")
        with pytest.raises(RunCancelled):
            await run.result()
        assert await run.questions() == []
        return (await run.info()).reason

    came = told(story, flow, unload_after=unload_after)
    assert came.returned == "enough"
    assert came.runs["x"].state is State.CANCELLED
    assert came.runs["x"].keys == ["~cancel", "act#1", "Amount#1"]

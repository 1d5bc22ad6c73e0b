"""Draining a mailbox: all that is there, once, in order, and without waiting."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from durable_sqlite import Engine, Kind, Signal, SignalRejected, State, sleep, workflow
from tests.support.clock import ManualClock
from tests.support.crash_points import Teller, crash_everywhere
from tests.support.gates import Gate, send_raw
from tests.support.restarts import die, quiet


class Chore(Signal):
    """Something to be done; `text` makes it long."""

    n: int = 0
    text: str = ""


class Bell(Signal):
    pass


@workflow
async def collects() -> list[list[int]]:
    """Drains at once, then after each message `Bell`, twice."""
    batches = [[order.n for order in await Chore.drain()]]
    for _ in range(2):
        await Bell.wait()
        batches.append([order.n for order in await Chore.drain()])
    return batches


def test_a_drain_gives_all_that_is_there_in_order_or_nothing_without_waiting() -> None:
    async def scenario() -> None:
        async with Engine(":memory:", clock=ManualClock()) as engine:
            run = await collects.start()
            await quiet(engine)
            for number in (3, 1, 2):
                await run.signal(Chore(n=number))
            await run.signal(Bell())
            await quiet(engine)
            assert await run.messages() == []
            await run.signal(Bell())
            assert await run.result(timeout=20) == [[], [3, 1, 2], []]
            drains = [entry for entry in await run.history() if entry.kind is Kind.DRAIN]
            assert [entry.key for entry in drains] == ["Chore#1", "Chore#2", "Chore#3"]
            assert [entry["n"] for entry in drains[1].value] == [3, 1, 2]

    asyncio.run(scenario())


def test_a_drain_takes_only_its_own_class_and_what_came_before_the_run_began() -> None:
    async def scenario() -> None:
        async with Engine(":memory:", clock=ManualClock()) as engine:
            run = await collects.signal_with_start(Chore(n=1))
            await run.signal(Bell())
            await run.signal(Chore(n=2))
            await quiet(engine)
            await run.signal(Bell())
            assert [number for batch in await run.result(timeout=20) for number in batch] == [1, 2]

    asyncio.run(scenario())


def test_what_was_drained_is_drained_again_on_replay_and_never_twice(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Engine(tmp_path / "j.db", clock=ManualClock()) as engine:
            run = await collects.options(id="x").start()
            await quiet(engine)
            await run.signal(Chore(n=1))
            await run.signal(Bell())
            await quiet(engine)
            await run.signal(Chore(n=2))
            await quiet(engine)
            await die(engine)
        async with Engine(tmp_path / "j.db", clock=ManualClock(), workflows=[collects]) as engine:
            await engine.run("x").signal(Chore(n=3))
            await engine.run("x").signal(Bell())
            assert await engine.run("x").result(timeout=20) == [[], [1], [2, 3]]

    asyncio.run(scenario())


def test_drains_are_the_same_whenever_the_process_dies() -> None:
    async def story(teller: Teller) -> list[list[int]]:
        run = await collects.options(id="x").start()
        await teller.at(1)
        for number in (1, 2):
            await run.signal(Chore(n=number), dedupe=f"order {number}")
        await run.signal(Bell(), dedupe="first")
        await teller.at(2)
        await run.signal(Chore(n=3), dedupe="order 3")
        await run.signal(Bell(), dedupe="second")
        return await run.result()

    for unload_after in (0.0, 3600.0):
        assert crash_everywhere(story, collects, unload_after=unload_after).returned == [[], [1, 2], [3]]


def test_a_drain_leaves_for_the_next_one_what_an_entry_has_no_room_for() -> None:
    async def scenario() -> None:
        async with Engine(":memory:", clock=ManualClock(), payload_limit=200) as engine:
            run = await collects.start()
            await quiet(engine)
            for number in range(5):
                await run.signal(Chore(n=number, text="x" * 60))
            await run.signal(Bell())
            await quiet(engine)
            assert [message.message["n"] for message in await run.messages()] == [2, 3, 4]
            await run.signal(Bell())
            assert await run.result(timeout=20) == [[], [0, 1], [2, 3]]
            assert [message.message["n"] for message in await run.messages()] == [4]

    asyncio.run(scenario())


def test_thousands_of_messages_are_drained_in_order_entry_by_entry() -> None:
    @workflow
    async def flow() -> list[int]:
        await Bell.wait()
        numbers: list[int] = []
        while chores := await Chore.drain():
            numbers.extend(chore.n for chore in chores)
        return numbers

    async def scenario() -> None:
        async with Engine(":memory:", clock=ManualClock(), payload_limit=20_000) as engine:
            run = await flow.start()
            await quiet(engine)
            await asyncio.gather(*[run.signal(Chore(n=number)) for number in range(3_000)])
            await run.signal(Bell())
            assert await run.result(timeout=60) == list(range(3_000))
            assert 4 < len(await run.history()) < 10

    asyncio.run(scenario())


@pytest.mark.parametrize("over", [-1, 0, 1, 2, 1_000])
def test_a_drain_gives_a_message_that_fills_an_entry_by_itself(tmp_path: Path, over: int) -> None:
    """`over` is by how much the entry, which has two brackets more than the message, is past the limit."""
    bare = len('{"n":1,"text":""}')
    lengths: list[int] = []

    @workflow
    async def flow() -> int:
        got = [*await Chore.drain(), *await Chore.drain()]
        lengths.extend(len(order.text) for order in got)
        return len(got)

    async def scenario() -> None:
        async with Engine(tmp_path / "j.db", drive=False):  # its own limit is larger
            run = await flow.options(id="x").start()
            await run.signal(Chore(n=1, text="x" * (98 - bare + over)))
            await run.signal(Chore(n=2))
        async with Engine(tmp_path / "j.db", workflows=[flow], payload_limit=100) as engine:
            assert await engine.run("x").result(timeout=20) == 2

    asyncio.run(scenario())
    assert lengths == [98 - bare + over, 0]


def test_a_drain_sets_aside_what_does_not_fit_and_gives_the_rest() -> None:
    async def scenario() -> None:
        async with Engine(":memory:", clock=ManualClock()) as engine:
            run = await collects.start()
            await quiet(engine)
            await run.signal(Chore(n=1))
            await send_raw(engine, run.id, "Chore", b'{"n":"many"}')
            await send_raw(engine, run.id, "Chore", b"no json")
            await run.signal(Chore(n=2))
            await run.signal(Bell())
            await quiet(engine)
            wrong, broken = await run.messages()
            assert wrong.message == {"n": "many"}
            assert wrong.error is not None
            assert "n: " in wrong.error.message
            assert broken.message is None
            assert broken.error is not None
            await run.signal(Bell())
            assert await run.result(timeout=20) == [[], [1, 2], []]

    asyncio.run(scenario())


def test_a_drain_is_no_wait_so_the_run_is_not_suspended_during_it(monkeypatch: pytest.MonkeyPatch) -> None:
    @workflow
    async def flow() -> int:
        await sleep(10)
        return len(await Chore.drain())

    async def scenario() -> None:
        clock = ManualClock()
        async with Engine(":memory:", clock=clock) as engine:
            run = await flow.start()
            await quiet(engine)
            gate = Gate(engine, "mail", monkeypatch, before=True)
            clock.advance(10)
            await gate.reached()
            assert (await run.info()).state is State.RUNNING
            await run.signal(Chore())  # while it looks
            gate.open()
            assert await run.result(timeout=20) == 1

    asyncio.run(scenario())


def test_a_message_that_comes_after_the_drain_in_which_the_run_ends_is_refused_or_listed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    @workflow
    async def flow() -> int:
        await sleep(10)
        return len(await Chore.drain())

    async def scenario() -> None:
        clock = ManualClock()
        async with Engine(":memory:", clock=clock) as engine:
            run = await flow.start()
            await quiet(engine)
            gate = Gate(engine, "record", monkeypatch)  # the end is queued behind it by then
            clock.advance(10)
            await gate.reached(2)
            with pytest.raises(SignalRejected):
                await run.signal(Chore())
            gate.open()
            assert await run.result(timeout=20) == 0
            assert await run.messages() == []

    asyncio.run(scenario())

"""Messages and answers that come while a run goes to rest or wakes: no wake-up is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from durable_sqlite import (
    Engine,
    Run,
    Signal,
    State,
    Suspend,
    sleep,
    step,
    workflow,
)
from durable_sqlite._records import RunRow, Taken
from tests.support.clock import ManualClock
from tests.support.gates import Gate, deaf, eventually, session_of
from tests.support.restarts import cut, die, quiet
from tests.support.stage import Stage

Send = Callable[[Run[Any]], Awaitable[None]]


class Kite(Signal):
    n: int = 0


class Tug(Suspend[int]):
    pass


@workflow
async def catches() -> int:
    """Gets what comes: a message, or an answer."""
    ball, tug = asyncio.create_task(Kite.wait()), asyncio.create_task(Tug().wait(key="tug"))
    await asyncio.wait([ball, tug], return_when=asyncio.FIRST_COMPLETED)
    if ball.done():
        tug.cancel()
        return ball.result().n
    ball.cancel()
    return tug.result()


async def throw(run: Run[Any]) -> None:
    await run.signal(Kite(n=7))


async def tug(run: Run[Any]) -> None:
    await run.answer(Tug, 7)


BOTH = pytest.mark.parametrize("send", [throw, tug])
MEMORY = pytest.mark.parametrize("unload_after", [0.0, 3600.0])


# Between the check and the wait --------------------------------------------------------------------------------------


@pytest.mark.contradicts("two", "crash", reason="the question is written with the rest that it holds back")
@BOTH
@MEMORY
def test_what_is_stored_while_the_run_is_about_to_suspend_keeps_it_awake(
    send: Send, unload_after: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with Engine(":memory:", clock=ManualClock(), unload_after=unload_after) as engine:
            gate = Gate(engine, "suspend", monkeypatch, before=True)
            run = await catches.start()
            await gate.reached()
            await send(run)
            gate.open()
            assert await run.result(timeout=20) == 7

    asyncio.run(scenario())


@pytest.mark.contradicts("two", "crash", reason="its message comes from its own process")
@BOTH
def test_what_is_stored_just_after_the_run_has_suspended_wakes_it_though_it_does_not_know_that_it_has(
    send: Send, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with Engine(":memory:", clock=ManualClock()) as engine:
            gate = Gate(engine, "suspend", monkeypatch)
            run = await catches.start()
            await gate.reached()
            assert (await run.info()).state is State.SUSPENDED
            looks = Gate(engine, "mail", monkeypatch)
            looks.open()
            await send(run)
            await looks.reached()
            for _ in range(3):
                await asyncio.sleep(0)  # what was found is in the mailbox, and the run is told of its rest only now
            gate.open()
            assert await run.result(timeout=20) == 7

    asyncio.run(scenario())


@BOTH
@MEMORY
def test_what_another_process_stores_while_the_run_is_about_to_suspend_is_not_lost(
    send: Send, unload_after: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        clock = ManualClock()
        for before in (True, False):
            run_id = f"run-{before}"
            async with Engine(tmp_path / "j.db", clock=clock, unload_after=unload_after) as engine:
                with monkeypatch.context() as patch:
                    gate = Gate(engine, "suspend", patch, before=before)
                    run = await catches.options(id=run_id).start()
                    await gate.reached()
                    await eventually(run.questions)  # what was asked for before is there for others by now
                    async with Engine(tmp_path / "j.db", clock=clock, drive=False) as client:
                        await send(client.run(run_id))
                    gate.open()
                    assert await run.result(timeout=20) == 7

    asyncio.run(scenario())


@BOTH
def test_what_another_process_stores_in_that_moment_is_found_though_nobody_hears_of_it(
    send: Send, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        clock = ManualClock()
        async with Engine(tmp_path / "j.db", clock=clock) as engine:
            gate = Gate(engine, "suspend", monkeypatch, before=True)
            run = await catches.options(id="x").start()
            await gate.reached()
            await deaf(engine)
            await eventually(run.questions)
            async with Engine(tmp_path / "j.db", clock=clock, drive=False) as client:
                await send(client.run("x"))
            gate.open()
            assert await run.result(timeout=20) == 7

    asyncio.run(scenario())


@pytest.mark.contradicts("two", "crash", reason="one commit is to have both writes")
@BOTH
@pytest.mark.parametrize("message_first", [True, False])
def test_what_is_queued_with_the_suspension_is_not_lost_in_either_order(
    send: Send, message_first: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both writes are asked for in one turn of the loop, so that one commit has them."""
    sending: list[asyncio.Task[None]] = []

    async def scenario() -> None:
        async with Engine(":memory:", clock=ManualClock(), unload_after=0) as engine:
            run = catches.run("x")
            journal = session_of(engine).journal
            suspend = journal.suspend

            def suspend_and_send(*args: Any, **options: Any) -> asyncio.Future[Any]:
                if sending:
                    return suspend(*args, **options)
                if message_first:
                    sending.append(eager(send(run)))
                    return suspend(*args, **options)
                write = suspend(*args, **options)
                sending.append(eager(send(run)))
                return write

            monkeypatch.setattr(journal, "suspend", suspend_and_send)
            await catches.options(id="x").start()
            assert await run.result(timeout=20) == 7

    asyncio.run(scenario())
    assert len(sending) == 1


def eager(coro: Any) -> asyncio.Task[None]:
    """Run a coroutine up to its first wait here and now, then go on with it as a task."""
    waited: asyncio.Future[Any] = coro.send(None)
    waited._asyncio_future_blocking = False  # it is the task that waits

    async def rest() -> None:
        await asyncio.wait([waited])
        try:
            coro.send(None)
        except StopIteration:
            return
        raise AssertionError("it waits twice")

    return asyncio.get_running_loop().create_task(rest())


# While the run comes and goes ----------------------------------------------------------------------------------------


@BOTH
def test_what_comes_for_a_run_that_leaves_memory_in_the_same_moment_is_not_lost(
    send: Send, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with Engine(":memory:", clock=ManualClock()) as engine:
            run = await catches.start()
            await quiet(engine)
            worker = session_of(engine).worker
            mailed = worker.mailed

            def mailed_and_unloaded(row: RunRow, taken: Taken | None = None) -> None:
                mailed(row, taken)
                worker._unload(next(iter(worker._residents.passes.values())))

            def nothing(_run_id: str) -> None:
                """What is sent does not take the run along, as where something else had come before."""

            monkeypatch.setattr(worker, "at_rest", nothing)
            monkeypatch.setattr(worker, "mailed", mailed_and_unloaded)
            await send(run)
            monkeypatch.undo()
            assert await run.result(timeout=20) == 7

    asyncio.run(scenario())


@BOTH
def test_what_comes_for_a_run_that_is_claimed_and_not_loaded_yet_is_not_lost(
    send: Send, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = Stage()

    @step
    async def work() -> None:
        await stage.enter("work")

    @workflow
    async def flow() -> int:
        await sleep(10)
        caught = asyncio.create_task(catches.fn())
        await work()
        return await caught

    async def scenario() -> None:
        clock = ManualClock()
        async with Engine(":memory:", clock=clock, unload_after=0) as engine:
            run = await flow.start()
            await quiet(engine)
            gate = Gate(engine, "memories", monkeypatch)
            clock.advance(10)
            await gate.reached()  # what is recorded was read, and this is not in it
            if send is throw:
                await send(run)
            else:
                await run.answer(Tug, 7, early=True)
            gate.open()
            await stage.seen("work")

            async def caught() -> bool:
                return any(entry.name in {"Kite", "Tug"} for entry in await run.history())

            await eventually(caught)  # the step is in flight, so the run does not look because it would suspend
            stage.let("work")
            assert await run.result(timeout=20) == 7

    asyncio.run(scenario())


@pytest.mark.contradicts("unload", reason="its body is to be in memory when the message comes")
@BOTH
def test_what_comes_while_the_run_is_taken_again_is_not_lost(send: Send, monkeypatch: pytest.MonkeyPatch) -> None:
    @workflow
    async def flow() -> int:
        await sleep(10)
        return await catches.fn()

    async def scenario() -> None:
        clock = ManualClock()
        async with Engine(":memory:", clock=clock, unload_after=3600) as engine:
            run = await flow.start()
            await quiet(engine)
            gate = Gate(engine, "reclaim", monkeypatch)
            clock.advance(10)
            await gate.reached()
            if send is throw:
                await send(run)
            else:
                await run.answer(Tug, 7, early=True)
            gate.open()
            assert await run.result(timeout=20) == 7

    asyncio.run(scenario())


@pytest.mark.contradicts("two", "crash", reason="its message comes from its own process")
@pytest.mark.contradicts("unload", reason="its body is to be in memory when the message comes")
def test_a_message_that_is_taken_when_the_process_dies_before_the_commit_is_taken_by_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        clock = ManualClock()
        async with Engine(tmp_path / "j.db", clock=clock) as engine:
            run = await catches.options(id="x").start()
            await quiet(engine)
            # Both are asked for in one turn: what is held back must not let pass what comes after it.
            held = [Gate(engine, each, monkeypatch, before=True) for each in ("record", "end")]
            await throw(run)
            await held[0].asked()
            cut(engine)
            for gate in held:
                gate.open()
            await die(engine)
        async with Engine(tmp_path / "j.db", clock=clock, workflows=[catches]) as engine:
            assert await catches.run("x").result(timeout=20) == 7
            assert await engine.run("x").messages() == []

    asyncio.run(scenario())


@pytest.mark.contradicts("two", "crash", reason="its message comes from its own process")
@pytest.mark.contradicts("unload", reason="its body is to be in memory when the message comes")
def test_messages_that_come_while_one_is_being_taken_are_taken_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    @workflow
    async def flow() -> list[int]:
        return [(await Kite.wait()).n for _ in range(4)]

    async def scenario() -> None:
        async with Engine(":memory:", clock=ManualClock()) as engine:
            run = await flow.start()
            await quiet(engine)
            looks, rests = Gate(engine, "mail", monkeypatch), Gate(engine, "suspend", monkeypatch, before=True)
            await run.signal(Kite(n=1))
            await rests.reached()
            await run.signal(Kite(n=2))
            await looks.reached()
            await run.signal(Kite(n=3))  # the look that is under way has not seen it
            looks.open()
            rests.open()
            await run.signal(Kite(n=4))
            assert await run.result(timeout=20) == [1, 2, 3, 4]

    asyncio.run(scenario())

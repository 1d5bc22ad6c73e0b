"""What a body may not do, because the journal cannot give it back."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from durable_sqlite import (
    Engine,
    NotDurable,
    RunFailed,
    RunParked,
    State,
    StepFailed,
    UsageError,
    current_run,
    sleep,
    step,
    workflow,
)
from tests.support.restarts import quiet
from tests.support.stage import ended


@step
async def act(what: str = "") -> str:
    return what


@workflow
async def other() -> None:
    return


Body = Callable[[], Awaitable[Any]]


async def network() -> None:
    await asyncio.open_connection("localhost", 1)


async def thread() -> None:
    await asyncio.to_thread(len, "x")


async def executor() -> None:
    await asyncio.get_running_loop().run_in_executor(None, len, "x")


async def process() -> None:
    await asyncio.create_subprocess_exec("true")


async def callback_from_a_thread() -> None:
    asyncio.get_running_loop().call_soon_threadsafe(len, "x")


async def bare_task() -> None:
    await asyncio.Task(two("a"))


async def two(what: str) -> str:
    return await act(what) + await act(what)


async def as_completed() -> None:
    coroutines = [two("a"), two("b")]
    try:
        for first in asyncio.as_completed(coroutines):
            await first
    finally:
        for coroutine in coroutines:
            coroutine.close()


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (network, "belongs in a step"),
        (thread, "belongs in a step"),
        (executor, "belongs in a step"),
        (process, "belongs in a step"),
        (callback_from_a_thread, "belongs in a step"),
        (as_completed, "make them tasks first"),
        (bare_task, "use asyncio.create_task"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_body_is_refused_what_cannot_be_given_back(body: Body, says: str) -> None:
    @workflow
    async def flow() -> None:
        await body()

    async def scenario() -> None:
        async with Engine(":memory:") as engine:
            run = await flow.start()
            failed = await ended(run, RunFailed)
            assert failed.record is not None
            assert failed.record.is_a(NotDurable)
            assert says in failed.record.message
            assert await run.history() == []
            assert await engine.count(workflow=other) == 0

    asyncio.run(scenario())


def test_a_body_is_refused_run_handles_and_futures_locks_and_queues_of_the_application() -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        foreign = loop.create_future()
        lock, queue, event = asyncio.Lock(), asyncio.Queue[int](), asyncio.Event()
        waiters = [loop.create_task(lock.acquire()), loop.create_task(queue.get()), loop.create_task(event.wait())]
        await asyncio.sleep(0)
        second = loop.create_task(lock.acquire())
        await asyncio.sleep(0)
        async with Engine(":memory:") as engine:
            handle = engine.run("x")
            bodies: list[tuple[Body, str]] = [
                (lambda: foreign, "belongs in a step"),
                (lock.acquire, "belongs in a step"),
                (queue.get, "belongs in a step"),
                (event.wait, "belongs in a step"),
                (handle.info, "asking about a run"),
                (handle.history, "asking about a run"),
                (handle.terminate, "terminating a run"),
                (handle.pause, "pausing a run"),
                (handle.messages, "asking about a run"),
                (handle.questions, "asking about a run"),
                (handle.resume, "resuming a run"),
            ]
            for body, says in bodies:
                run = await run_body(body)
                failed = await ended(run, RunFailed)
                assert failed.record is not None
                assert failed.record.is_a(NotDurable), body
                assert says in failed.record.message
        for task in [*waiters, second]:
            task.cancel()
        await asyncio.wait([*waiters, second])

    asyncio.run(scenario())


async def run_body(body: Callable[[], Any]) -> Any:
    @workflow
    async def flow() -> None:
        await body()

    return await flow.start()


def test_a_body_at_rest_that_waits_for_nothing_durable_is_parked_and_goes_on_once_mended() -> None:
    async def hang() -> None:
        await act("before")
        await asyncio.Event().wait()

    async def mended() -> str:
        return await act("before")

    async def scenario() -> None:
        async with Engine(":memory:"):
            run = await run_body(hang)
            parked = await ended(run, RunParked)
            assert parked.reason == "not_durable"
            assert "waits for something that nothing in it will bring about" in str(parked)
            assert (await run.info()).state is State.PARKED

            @workflow(name="flow")
            async def flow() -> str:
                return await mended()

            again = await flow.options(id=run.id).start()
            await again.resume()
            assert await again == "before"

    asyncio.run(scenario())


def test_a_body_that_waits_for_a_thread_is_parked() -> None:
    pool = ThreadPoolExecutor(1)
    release = threading.Event()

    async def body() -> None:
        await asyncio.wrap_future(pool.submit(release.wait))

    async def scenario() -> None:
        async with Engine(":memory:"):
            assert (await ended(await run_body(body), RunParked)).reason == "not_durable"

    try:
        asyncio.run(scenario())
    finally:
        release.set()
        pool.shutdown()


def test_a_body_that_spins_is_parked_and_the_application_has_its_turn_meanwhile() -> None:
    turns: list[int] = []

    async def body() -> None:
        while True:  # noqa: ASYNC110
            await asyncio.sleep(0)

    async def scenario() -> None:
        async def tick() -> None:
            while True:
                turns.append(1)
                await asyncio.sleep(0)

        ticking = asyncio.create_task(tick())
        async with Engine(":memory:"):
            parked = await ended(await run_body(body), RunParked)
            assert parked.reason == "not_durable"
            assert "spins" in str(parked)
        ticking.cancel()

    asyncio.run(scenario())
    assert len(turns) > 20


def test_starting_a_run_in_a_step_is_an_error_that_explains_itself() -> None:
    @step
    async def starts() -> None:
        await other.start()

    @step
    async def calls() -> None:
        await other()

    @workflow
    async def flow() -> list[str]:
        told: list[str] = []
        for call in (starts, calls):
            try:
                await call()
            except StepFailed as failed:
                assert failed.is_a(UsageError)  # noqa: PT017
                told.append(failed.message)
        return told

    async def scenario() -> None:
        async with Engine(":memory:") as engine:
            for message in await flow():
                assert "a step may run again after a crash" in message
            assert await engine.count(workflow=other) == 0

    asyncio.run(scenario())


@pytest.mark.contradicts("unload", "crash", reason="its body is to stay in memory")
def test_a_body_s_context_taken_elsewhere_is_no_body() -> None:
    taken: list[contextvars.Context] = []

    async def body() -> None:
        taken.append(contextvars.copy_context())
        current_run()
        await sleep(3600)

    async def scenario() -> None:
        async with Engine(":memory:") as engine:
            run = await run_body(body)
            await quiet(engine)
            with pytest.raises(NotDurable, match="belongs in a step"):
                _ = taken[0].run(act, "elsewhere")
            with pytest.raises(NotDurable, match="belongs in a step"):
                _ = taken[0].run(sleep, 1)
            await run.cancel()

    asyncio.run(scenario())


def test_a_refusal_may_be_handled_by_the_body() -> None:
    async def body() -> str:
        try:
            await asyncio.to_thread(len, "x")
        except NotDurable:
            await act("instead")
        return ""

    async def scenario() -> None:
        async with Engine(":memory:"):
            run = await run_body(body)
            await run
            assert [entry.key for entry in await run.history()] == ["act#1"]

    asyncio.run(scenario())


def test_a_lock_of_the_application_that_a_body_takes_first_does_not_reach_the_application_s_loop() -> None:
    """Nothing can tell beforehand whose lock this is; but the wait for it ends in a parked run, not in a hang."""

    async def scenario() -> None:
        lock = asyncio.Lock()
        await lock.acquire()
        async with Engine(":memory:"):
            run = await run_body(lock.acquire)
            assert (await ended(run, RunParked)).reason == "not_durable"

    asyncio.run(scenario())

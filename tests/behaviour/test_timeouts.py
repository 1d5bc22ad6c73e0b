"""Time limits of attempts: they fire with the clock, count as failures, and what comes later is nobody's."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from durable_sqlite import Engine, Retry, RunFailed, StepFailed, current_step, sleep, step, workflow
from tests.behaviour import sample_steps
from tests.support.clock import ManualClock
from tests.support.gates import eventually
from tests.support.restarts import quiet
from tests.support.stage import until

began: list[int] = []


@pytest.fixture(autouse=True)
def nothing_began() -> None:
    began.clear()


async def turns(count: int = 50) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def test_an_attempt_that_takes_too_long_is_cancelled_and_has_failed() -> None:
    clock = ManualClock()
    cancelled: list[str] = []

    @step(timeout=5)
    async def endless() -> None:
        began.append(1)
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            cancelled.append("told")
            raise

    @workflow
    async def flow() -> str:
        try:
            await endless()
        except StepFailed as failure:
            return f"{failure.is_a(TimeoutError)}: {failure.message}"
        return "ended"

    async def scenario() -> None:
        async with Engine(":memory:", clock=clock):
            run = await flow.start()
            await until(lambda: began)
            clock.advance(4.999)
            await turns()
            assert cancelled == []
            clock.advance(0.001)
            assert await run.result(timeout=20) == "True: attempt 1 took longer than 5 s"

    asyncio.run(scenario())
    assert cancelled == ["told"]


def test_each_attempt_has_its_own_time_and_a_call_may_choose_another() -> None:
    clock = ManualClock()
    tried: list[int] = []

    @step(timeout=5, retry=Retry.fixed(1, max_attempts=2))
    async def endless() -> None:
        began.append(current_step().attempt)
        await asyncio.sleep(3600)

    @workflow
    async def flow() -> None:
        await endless.options(timeout=2)()

    async def scenario() -> None:
        async with Engine(":memory:", clock=clock) as engine:
            run = await flow.start()
            for wait in (1.0, 0.0):
                await until(lambda: began)
                tried.append(began.pop())
                clock.advance(2)
                await turns()
                clock.advance(wait)
            with pytest.raises(RunFailed) as failed:
                await run.result(timeout=20)
            assert failed.value.reason == "retries_exhausted"
            (entry,) = await engine.run(run.id).history()
            assert [failure.error.type for failure in entry.failures] == ["builtins.TimeoutError"]

    asyncio.run(scenario())
    assert tried == [1, 2]


def test_a_body_that_swallows_its_cancellation_is_left_behind_after_a_moment_and_its_result_never_lands(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = ManualClock()
    release = asyncio.Event()

    @step(timeout=5)
    async def mule() -> str:
        began.append(1)
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                began.append(2)
        return "too late"

    @workflow
    async def flow() -> str:
        try:
            return await mule()
        except StepFailed as failure:
            await sleep(1)
            return failure.message

    async def scenario() -> None:
        async with Engine(":memory:", clock=clock) as engine:
            run = await flow.start()
            await until(lambda: began)
            clock.advance(5)
            await turns()
            assert began == [1, 2]
            clock.advance(1)
            await quiet(engine)
            release.set()
            await turns()
            clock.advance(1)
            assert await run.result(timeout=20) == "attempt 1 took longer than 5 s"

    asyncio.run(scenario())
    assert "it is left behind" in caplog.text


@pytest.mark.parametrize("own", [True, False])
def test_a_thread_cannot_be_stopped_but_its_late_result_is_dropped(own: bool, caplog: pytest.LogCaptureFixture) -> None:
    clock = ManualClock()
    release = threading.Event()
    done: list[str] = []

    def block() -> str:
        began.append(1)
        release.wait(20)
        done.append("done")
        return "too late"

    with ThreadPoolExecutor(1) as pool:
        blocking = step(timeout=5, name="block")(block) if own else step(timeout=5, name="block", executor=pool)(block)

        @workflow
        async def flow() -> str:
            try:
                return await blocking()
            except StepFailed as failure:
                return failure.message

        async def scenario() -> None:
            async with Engine(":memory:", clock=clock) as engine:
                run = await flow.start()
                await until(lambda: began)
                clock.advance(5)
                assert await run.result(timeout=20) == "attempt 1 took longer than 5 s"
                release.set()
                await until(lambda: done)
                assert [entry.outcome for entry in await engine.run(run.id).history()] == ["error"]

        asyncio.run(scenario())
    assert "cannot be stopped" in caplog.text


def test_a_process_cannot_be_stopped_either(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    clock = ManualClock()
    flag = tmp_path / "flag"

    @workflow
    async def flow() -> str:
        try:
            return await sample_steps.wait_for_a_file(str(flag))
        except StepFailed as failure:
            return failure.message

    async def scenario() -> None:
        async with Engine(":memory:", clock=clock) as engine:
            run = await flow.start()
            await until(clock.armed)
            clock.advance(5)
            assert await run.result(timeout=20) == "attempt 1 took longer than 5 s"
            flag.touch()
            assert [entry.outcome for entry in await engine.run(run.id).history()] == ["error"]

    with sample_steps.slow_pool:
        asyncio.run(scenario())
    assert "cannot be stopped" in caplog.text


def test_an_attempt_that_ends_in_time_has_no_alarm_left() -> None:
    clock = ManualClock()

    @step(timeout=5)
    async def quick() -> str:
        return "quick"

    @workflow
    async def flow() -> str:
        return await quick()

    async def scenario() -> None:
        async with Engine(":memory:", clock=clock):
            assert await flow() == "quick"
            assert clock.armed() == []

    asyncio.run(scenario())


def test_a_step_that_is_given_up_has_no_time_limit_any_more() -> None:
    clock = ManualClock()

    @step(timeout=5)
    async def endless() -> None:
        began.append(1)
        await asyncio.sleep(3600)

    @workflow
    async def flow() -> str:
        try:
            async with asyncio.timeout(3):
                await endless()
        except TimeoutError:
            await sleep(10)
            return "given up"
        return "ended"

    async def scenario() -> None:
        async with Engine(":memory:", clock=clock) as engine:
            run = await flow.start()
            await until(lambda: began)
            clock.advance(3)
            await quiet(engine)
            clock.advance(10)
            assert await run.result(timeout=20) == "given up"
            assert [entry.key for entry in await engine.run(run.id).history()] == ["asyncio.timeout#1", "sleep#1"]

    asyncio.run(scenario())


def test_an_attempt_that_ends_in_the_moment_its_time_is_up_has_ended_in_time() -> None:
    clock = ManualClock()

    @step(timeout=5)
    async def in_time() -> str:
        clock.advance(5)  # the alarm rings after this turn of the loop, and the attempt ends within it
        return "in time"

    @workflow
    async def flow() -> str:
        return await in_time()

    async def scenario() -> None:
        async with Engine(":memory:", clock=clock):
            assert await (await flow.start()).result(timeout=20) == "in time"

    asyncio.run(scenario())


@pytest.mark.contradicts("crash", reason="it counts what one engine says")
def test_a_step_that_was_given_up_and_goes_after_its_grace_disturbs_nobody(caplog: pytest.LogCaptureFixture) -> None:
    clock = ManualClock()
    release = asyncio.Event()

    @step
    async def mule() -> None:
        began.append(1)
        try:
            await release.wait()
        except asyncio.CancelledError:
            await release.wait()
            began.append(2)
            raise

    @step
    async def after() -> str:
        return "after"

    @workflow
    async def flow() -> str:
        try:
            async with asyncio.timeout(3):
                await mule()
        except TimeoutError:
            await after()
            await sleep(100)
        return "done"

    async def scenario() -> None:
        async with Engine(":memory:", clock=clock) as engine:
            run = await flow.start()
            await until(lambda: began)
            clock.advance(3)
            await turns()
            assert len(await eventually(run.history)) == 1  # nothing begins beside it
            clock.advance(10)
            await quiet(engine)
            assert len(await run.history()) == 2
            release.set()
            await until(lambda: len(began) == 2)
            clock.advance(100)
            assert await run.result(timeout=20) == "done"

    asyncio.run(scenario())
    assert [record.levelname for record in caplog.records] == ["WARNING"]

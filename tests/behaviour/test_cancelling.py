"""Cancelling a run: one recorded point in its order, after which it may clean up with steps."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from durable_sqlite import (
    Engine,
    Kind,
    Run,
    RunCancelled,
    RunFailed,
    State,
    WrongState,
    sleep,
    step,
    workflow,
)
from tests.support.clock import ManualClock
from tests.support.restarts import die, quiet
from tests.support.stage import Stage, ended

effects: list[str] = []


@pytest.fixture(autouse=True)
def forget() -> None:
    effects.clear()


@step
async def act(what: str) -> str:
    effects.append(what)
    return what


async def keys(run: Run[Any]) -> list[str]:
    return [entry.key for entry in await run.history()]


@pytest.mark.parametrize("unload_after", [0.0, 5.0])
def test_a_suspended_run_is_cancelled_once_cleans_up_with_steps_and_says_who_and_why(unload_after: float) -> None:
    @workflow
    async def flow() -> None:
        await act("begin")
        try:
            await sleep(3600)
        finally:
            await act("clean up")

    async def scenario() -> None:
        async with Engine(":memory:", unload_after=unload_after) as engine:
            run = await flow.start()
            await quiet(engine)
            await run.cancel(reason="dup", by="ada")
            await quiet(engine)
            cancelled = await ended(run, RunCancelled)
            assert cancelled.reason == "dup"
            assert "by ada: dup" in str(cancelled)
            assert await keys(run) == ["act#1", "~cancel", "act#2"]
            info = await run.info()
            assert (info.state, info.reason, info.error) == (State.CANCELLED, "dup", None)
            assert (await run.history())[1].kind is Kind.CANCEL

    asyncio.run(scenario())
    assert effects == ["begin", "clean up"]


def test_a_step_in_flight_is_cancelled_and_is_no_outcome() -> None:
    stage = Stage()

    @step
    async def slow() -> None:
        try:
            await stage.enter("slow")
        except asyncio.CancelledError:
            effects.append("the step's own clean-up")
            raise

    @workflow
    async def flow() -> None:
        try:
            await slow()
        except asyncio.CancelledError:
            await act("after")
            raise

    async def scenario() -> None:
        async with Engine(":memory:"):
            run = await flow.start()
            await stage.seen("slow")
            await run.cancel()
            await ended(run, RunCancelled)
            assert await keys(run) == ["~cancel", "act#1"]

    asyncio.run(scenario())
    assert effects == ["the step's own clean-up", "after"]


def test_clean_up_steps_run_once_also_over_a_restart(tmp_path: Path) -> None:
    stage = Stage()

    @step
    async def clean(number: int) -> None:
        await stage.enter(f"clean{number}")

    @workflow
    async def flow() -> None:
        try:
            await sleep(3600)
        finally:
            for number in range(3):
                await clean(number)

    async def scenario() -> None:
        stage.let("clean0")
        async with Engine(tmp_path / "j.db") as engine:
            run = await flow.options(id="x").start()
            await quiet(engine)
            await run.cancel(reason="enough")
            await stage.seen("clean1")
            await die(engine)
        stage.let("clean1", "clean2")
        async with Engine(tmp_path / "j.db", workflows=[flow]) as engine:
            run = engine.run("x")
            assert (await ended(run, RunCancelled)).reason == "enough"
            assert await keys(run) == ["~cancel", "clean#1", "clean#2", "clean#3"]

    asyncio.run(scenario())
    assert stage.began == ["clean0", "clean1", "clean1", "clean2"]


def test_a_cancel_that_was_asked_for_before_a_kill_is_delivered_after_it(tmp_path: Path) -> None:
    stage = Stage()

    @step
    async def slow() -> None:
        await stage.enter("slow")

    @workflow
    async def flow() -> None:
        await act("begin")
        await slow()

    async def scenario() -> None:
        async with Engine(tmp_path / "j.db") as engine:
            await flow.options(id="x").start()
            await stage.seen("slow")
            async with Engine(tmp_path / "j.db", drive=False) as client:
                await client.run("x").cancel(reason="gone")
            await die(engine)
        async with Engine(tmp_path / "j.db", workflows=[flow]) as engine:
            assert (await ended(engine.run("x"), RunCancelled)).reason == "gone"

    asyncio.run(scenario())
    assert effects == ["begin"]


def test_a_body_that_swallows_the_cancel_ends_cancelled_and_may_go_on_after_uncancel() -> None:
    @workflow
    async def swallows() -> str:
        try:
            await sleep(3600)
        except asyncio.CancelledError:
            await act("swallowed")
        return "as if nothing had happened"

    @workflow
    async def goes_on() -> str:
        try:
            await sleep(3600)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            assert task is not None
            task.uncancel()
            await sleep(0)
        return "went on"

    async def scenario() -> None:
        async with Engine(":memory:") as engine:
            runs = [await swallows.start(), await goes_on.start()]
            await quiet(engine)
            for run in runs:
                await run.cancel()
            await ended(runs[0], RunCancelled)
            assert await runs[1] == "went on"

    asyncio.run(scenario())
    assert effects == ["swallowed"]


@pytest.mark.parametrize("told_by", ["a cancel", "a deadline"])
def test_a_body_that_goes_on_after_uncancel_is_told_once_and_goes_on_after_a_crash_too(
    tmp_path: Path, told_by: str
) -> None:
    """It has been told, so neither a second cancel nor its deadline interrupts it any more; terminate would end it."""

    @workflow
    async def flow() -> str:
        told = 0
        for _ in range(3):
            try:
                await sleep(100)
            except asyncio.CancelledError:
                task = asyncio.current_task()
                assert task is not None
                task.uncancel()
                told += 1
                await act("went on")
        return f"told {told} time"

    async def scenario() -> None:
        clock = ManualClock()
        async with Engine(tmp_path / "j.db", clock=clock) as engine:
            run = await flow.options(id="x", deadline=50).start()
            await quiet(engine)
            if told_by == "a cancel":
                await run.cancel()
            else:
                clock.advance(50)
            await quiet(engine)
            assert await keys(run) == ["~cancel", "act#1"]
            await die(engine)
        clock.advance(50)
        async with Engine(tmp_path / "j.db", clock=clock, workflows=[flow]) as engine:
            run = engine.run("x")
            await run.cancel()
            for _ in range(2):
                await quiet(engine)
                clock.advance(100)
            assert await run.result(timeout=20) == "told 1 time"
            assert await keys(run) == ["~cancel", "act#1", "sleep#2", "sleep#3"]

    asyncio.run(scenario())
    assert effects == ["went on"]


def test_a_task_group_passes_the_cancel_on_and_its_branches_clean_up() -> None:
    async def branch(name: str) -> None:
        try:
            await sleep(3600)
        finally:
            await act(f"clean {name}")

    @workflow
    async def flow() -> None:
        async with asyncio.TaskGroup() as group:
            for name in "ab":
                group.create_task(branch(name))

    async def scenario() -> None:
        async with Engine(":memory:") as engine:
            run = await flow.start()
            await quiet(engine)
            await run.cancel()
            await ended(run, RunCancelled)

    asyncio.run(scenario())
    assert sorted(effects) == ["clean a", "clean b"]


def test_a_failed_task_group_is_a_failure_though_python_counts_a_cancel_there() -> None:
    @step
    async def fail() -> None:
        raise ValueError

    async def branch() -> None:
        await fail()

    @workflow
    async def flow() -> str:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(branch())
                await sleep(3600)
        except* Exception:
            pass
        await sleep(0)
        return "done"

    @workflow
    async def cancelled_after() -> str:
        await flow.fn()
        try:
            await sleep(3600)
        except asyncio.CancelledError:
            return "swallowed"
        return "not reached"

    async def scenario() -> None:
        async with Engine(":memory:") as engine:
            assert await flow() == "done"
            run = await cancelled_after.start()
            await quiet(engine)
            await run.cancel()
            await ended(run, RunCancelled)

    asyncio.run(scenario())


def test_an_error_in_the_clean_up_fails_the_run() -> None:
    @workflow
    async def flow() -> None:
        try:
            await sleep(3600)
        finally:
            raise LookupError("while cleaning up")

    async def scenario() -> None:
        async with Engine(":memory:") as engine:
            run = await flow.start()
            await quiet(engine)
            await run.cancel()
            failed = await ended(run, RunFailed)
            assert failed.record is not None
            assert failed.record.is_a(LookupError)

    asyncio.run(scenario())


def test_a_body_that_cancels_itself_has_failed() -> None:
    @workflow
    async def flow() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await sleep(1)

    async def scenario() -> None:
        async with Engine(":memory:"):
            failed = await ended(await flow.start(), RunFailed)
            assert failed.record is not None
            assert failed.record.is_a(asyncio.CancelledError)

    asyncio.run(scenario())


def test_a_run_that_never_began_ends_without_a_pass(tmp_path: Path) -> None:
    @workflow
    async def flow() -> None:
        await act("begin")

    async def scenario() -> None:
        async with Engine(tmp_path / "j.db", drive=False):
            run = await flow.options(id="x").start()
            waiting = asyncio.create_task(run.result())
            await asyncio.sleep(0.01)
            await run.cancel(reason="no need")
            with pytest.raises(RunCancelled, match="no need"):
                await waiting
        async with Engine(tmp_path / "j.db", workflows=[flow]) as engine:
            await engine.join()

    asyncio.run(scenario())
    assert effects == []


@pytest.mark.contradicts("two", "crash", reason="its run has begun when it is started")
def test_a_cancel_before_the_first_step_begins_is_delivered() -> None:
    stage = Stage()

    @step
    async def slow() -> None:
        await stage.enter("slow")

    @workflow
    async def flow() -> None:
        await slow()

    async def scenario() -> None:
        async with Engine(":memory:"):
            run = await flow.start()
            await run.cancel()
            await ended(run, RunCancelled)
            assert await keys(run) == ["~cancel"]

    asyncio.run(scenario())


def test_asking_twice_changes_nothing_and_asking_too_late_is_refused_with_the_end() -> None:
    @workflow
    async def flow() -> None:
        try:
            await sleep(3600)
        finally:
            await act("clean up")

    @workflow
    async def quick() -> None:
        return

    async def scenario() -> None:
        async with Engine(":memory:") as engine:
            run = await flow.start()
            await quiet(engine)
            await asyncio.gather(run.cancel(reason="first"), run.cancel(reason="second"))
            assert (await ended(run, RunCancelled)).reason == "first"
            with pytest.raises(WrongState, match="cancelled"):
                await run.cancel()
            done = await quick.start()
            await done
            with pytest.raises(WrongState, match="completed") as caught:
                await done.cancel()
            assert caught.value.run_id == done.id

    asyncio.run(scenario())
    assert effects == ["clean up"]


def test_a_cancel_during_the_suspension_is_not_lost() -> None:
    """Whatever is asked while the suspension is being written, the run hears of it."""

    @workflow
    async def flow() -> None:
        await sleep(3600)

    async def scenario(turns: int, unload_after: float) -> None:
        async with Engine(":memory:", unload_after=unload_after) as engine:
            run = await flow.start()
            for _ in range(turns):
                await asyncio.sleep(0)
            await run.cancel(reason=str(turns))
            await ended(run, RunCancelled)
            await engine.join()

    for turns in range(25):
        asyncio.run(scenario(turns, 5.0 * (turns % 2)))

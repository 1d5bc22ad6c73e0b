"""Moments at which two things happen at once, and what is left of the corners."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import pickle
from pathlib import Path
from typing import Any

import pytest

from durable_sqlite import (
    Engine,
    EngineClosed,
    JournalError,
    LeaseLost,
    RunCancelled,
    RunFailed,
    State,
    Unloading,
    WrongLoop,
    sleep,
    step,
    workflow,
)
from tests.behaviour import sample_steps
from tests.support.clock import ManualClock
from tests.support.gates import session_of
from tests.support.restarts import quiet
from tests.support.stage import Stage, ended, until

effects: list[str] = []


@pytest.fixture(autouse=True)
def forget() -> None:
    effects.clear()


@step
async def act(what: str) -> str:
    effects.append(what)
    return what


@workflow
async def naps() -> str:
    await sleep(100)
    return "awake"


@pytest.mark.contradicts("two", "crash", reason="its run has begun when it is started")
def test_a_cancel_is_heard_whenever_it_comes(tmp_path: Path) -> None:
    @workflow
    async def flow(name: str) -> None:
        await act(f"{name} one")
        await act(f"{name} two")
        await sleep(3600)

    async def scenario() -> None:
        async with Engine(tmp_path / "j.db", synchronous="normal") as engine:
            for turns in range(80):
                run = await flow.options(id=f"n{turns}").start(f"n{turns}")
                for _ in range(turns):
                    await asyncio.sleep(0)
                await run.cancel()
                await ended(run, RunCancelled)
                keys = [entry.key for entry in await run.history()]
                assert keys in (["~cancel"], ["act#1", "~cancel"], ["act#1", "act#2", "~cancel"])
            await engine.join()

    asyncio.run(scenario())
    assert len(effects) == len(set(effects))


def test_a_late_result_of_what_was_given_up_in_the_same_turn_is_nobody_s() -> None:
    go = asyncio.Event()

    @step
    async def wait(name: str) -> str:
        await go.wait()
        return name

    async def busy() -> None:
        go.set()
        for _ in range(4_000):  # the body's loop is pumped in slices: both steps end meanwhile
            await asyncio.sleep(0)

    @workflow
    async def flow() -> str:
        first, second = asyncio.create_task(wait("a")), asyncio.create_task(wait("b"))
        await act("both begin")
        spinning = asyncio.create_task(busy())
        await asyncio.wait([first, second], return_when=asyncio.FIRST_COMPLETED)
        second.cancel()
        await asyncio.wait([second, spinning])
        await act("after")
        return first.result() + str(second.cancelled())

    async def scenario() -> None:
        async with Engine(":memory:"):
            run = await flow.start()
            assert await run == "aTrue"
            assert [entry.key for entry in await run.history()] == ["act#1", "wait#1", "act#2"]

    asyncio.run(scenario())


@pytest.mark.contradicts("two", "crash", "unload", reason="its engines decide which of them drives what")
def test_a_body_that_was_suspended_here_and_driven_elsewhere_since_is_dropped(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Two engines, one of which does not see time pass: its resident body is stale when it wakes."""
    slow, fast = ManualClock(), ManualClock()
    caplog.set_level("DEBUG", "durable_sqlite")

    async def scenario() -> None:
        async with Engine(tmp_path / "j.db", clock=slow, unload_after=10_000) as first:
            run = await naps.options(id="x").start()
            await quiet(first)
            assert first._session is not None
            assert first._session._listener is not None
            first._session._listener.cancel()  # else it may hear in time that the run has ended elsewhere
            fast.advance(100)
            async with Engine(tmp_path / "j.db", clock=fast, workflows=[naps]) as second:
                assert await second.run("x").result(timeout=20) == "awake"
            slow.advance(200)
            await quiet(first)
            assert await run == "awake"
            assert len(await run.history()) == 1

    asyncio.run(scenario())
    assert "was taken by another pass" in caplog.text


def test_a_due_body_that_is_claimed_by_its_own_worker_while_at_rest_is_replaced() -> None:
    """The journal gives the run to whoever asks first, and the body in memory makes way."""
    clock = ManualClock()

    async def scenario() -> None:
        async with Engine(":memory:", clock=clock) as engine:
            run = await naps.start()
            await quiet(engine)
            clock._now += 100_000_000  # time passes and no alarm rings yet
            session = engine._session
            assert session is not None
            session.worker.look()
            await quiet(engine)
            assert await run.result(timeout=20) == "awake"
            clock.advance(1)
            await quiet(engine)

    asyncio.run(scenario())


def test_an_endless_asyncio_wait_is_a_wait_without_deadline_that_a_cancel_ends() -> None:
    @workflow
    async def flow() -> None:
        await asyncio.sleep(math.inf)

    async def scenario() -> None:
        async with Engine(":memory:", clock=ManualClock()) as engine:
            run = await flow.start()
            await quiet(engine)
            info = await run.info()
            assert info.state is State.SUSPENDED
            assert "until" not in info.waiting_for[0]
            await run.cancel()
            await ended(run, RunCancelled)

    asyncio.run(scenario())


def test_alarms_are_set_for_the_nearest_deadline_of_all_bodies() -> None:
    clock = ManualClock()

    @workflow
    async def nap(seconds: int) -> int:
        await sleep(seconds)
        return seconds

    async def scenario() -> None:
        async with Engine(":memory:", clock=clock, unload_after=10_000) as engine:
            runs = [await nap.start(seconds) for seconds in (30, 10, 20, 40)]
            for seconds in (10, 20, 30, 40):
                await quiet(engine)
                clock.advance(10)
                await quiet(engine)
                for run in runs:
                    info = await run.info()
                    assert (info.state is State.COMPLETED) == (await_seconds(await run.history()) > 0), seconds
                assert await engine.count(state="completed") == seconds // 10

    asyncio.run(scenario())


def await_seconds(history: Any) -> int:
    return len(history)


def test_clean_up_of_an_unloaded_body_may_misuse_coroutines_and_still_records_nothing() -> None:
    @workflow
    async def flow() -> None:
        try:
            await sleep(100)
        except Unloading:
            call = act("never")
            call.send(None)
            with pytest.raises(asyncio.CancelledError):
                call.throw(asyncio.CancelledError())
            raise

    async def scenario() -> None:
        async with Engine(":memory:", clock=ManualClock(), unload_after=0) as engine:
            run = await flow.start()
            await quiet(engine)
            assert await run.history() == []

    asyncio.run(scenario())
    assert effects == []


def test_a_start_that_commits_while_its_engine_closes_is_driven_by_the_next_one(tmp_path: Path) -> None:
    @workflow
    async def flow() -> str:
        return await act("once")

    async def scenario() -> None:
        async with Engine(tmp_path / "j.db") as engine:
            starting = asyncio.create_task(flow.options(id="x").start())
            await asyncio.sleep(0)
            closing = asyncio.create_task(engine.close())
            await asyncio.wait([starting, closing])
        async with Engine(tmp_path / "j.db", workflows=[flow]) as engine:
            assert await engine.run("x").result(timeout=20) == "once"

    asyncio.run(scenario())
    assert effects == ["once"]


def test_an_engine_may_be_closed_while_it_is_still_claiming_what_waits(tmp_path: Path) -> None:
    @workflow
    async def flow() -> str:
        return await act("once")

    async def scenario() -> None:
        for turns in range(12):
            effects.clear()
            async with Engine(tmp_path / f"{turns}.db", drive=False):
                await flow.options(id="x").start()
            async with Engine(tmp_path / f"{turns}.db", workflows=[flow]):
                for _ in range(turns):
                    await asyncio.sleep(0)
            async with Engine(tmp_path / f"{turns}.db", workflows=[flow]) as engine:
                assert await engine.run("x").result(timeout=20) == "once"

    asyncio.run(scenario())


@pytest.mark.parametrize(("error", "level"), [(LeaseLost("struck off"), "WARNING"), (RuntimeError("odd"), "ERROR")])
def test_a_claim_that_fails_is_logged_and_the_next_one_works(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, error: Exception, level: str
) -> None:
    async def scenario() -> None:
        async with Engine(":memory:", clock=ManualClock()) as engine:
            session = engine._session
            assert session is not None
            journal: Any = session.journal

            def fail(*_args: object, **_options: object) -> Any:
                failed = asyncio.get_running_loop().create_future()
                failed.set_exception(error)
                return failed

            with monkeypatch.context() as patch:
                patch.setattr(journal, "claim", fail)
                session.worker.look()
                await quiet(engine)
            assert [record.levelname for record in caplog.records] == [level]
            assert await flow_of_one() == "one"

    async def flow_of_one() -> str:
        @workflow
        async def flow() -> str:
            return await act("one")

        return await flow()

    assert issubclass(LeaseLost, JournalError)
    asyncio.run(scenario())


@pytest.mark.parametrize("verb", ["pulse", "stops", "news"])
def test_what_another_process_has_written_while_the_storage_could_not_be_read_is_heard_when_that_heals(
    tmp_path: Path, verb: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[str] = []

    async def fail(*_args: object) -> Any:
        looks.append(verb)
        raise JournalError("the disk is on fire")

    async def scenario() -> None:
        clock = ManualClock()
        async with Engine(tmp_path / "j.db", clock=clock) as engine, Engine(tmp_path / "j.db", drive=False) as client:
            run = await naps.start()
            await quiet(engine)
            with monkeypatch.context() as patch:
                patch.setattr(session_of(engine).journal, verb, fail)
                await client.run(run.id).cancel(reason="enough")
                await until(lambda: len(looks) >= 2)
            assert (await ended(run, RunCancelled)).reason == "enough"

    asyncio.run(scenario())
    assert len(caplog.records) == 1, "it is said once, not at each look"
    assert "the disk is on fire" in caplog.text


def test_another_process_is_told_apart_by_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        async with Engine(":memory:") as engine:
            with monkeypatch.context() as patch:
                patch.setattr(os, "getpid", lambda: -1)
                with pytest.raises(WrongLoop, match="forked"):
                    await engine.count()
            assert await engine.count() == 0

    asyncio.run(scenario())


def test_an_engine_that_was_never_opened_has_no_loop_and_may_be_left() -> None:
    async def scenario() -> None:
        engine = Engine(":memory:")
        with pytest.raises(EngineClosed):
            _ = engine.host.loop
        await engine.__aexit__(None, None, None)

    asyncio.run(scenario())


class Failing:
    """A codec that fails once it is told to."""

    name = "failing"
    broken = False

    def encode(self, data: bytes, /) -> bytes:
        if self.broken:
            raise OSError("the key is gone")
        return data[::-1]

    def decode(self, data: bytes, /) -> bytes:
        return data[::-1]


@pytest.mark.contradicts("two", "crash", reason="its run waits until there is another engine")
def test_an_outcome_that_the_codec_cannot_store_is_said_and_the_run_waits_for_the_next_engine(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stage = Stage()

    @step
    async def slow() -> str:
        await stage.enter("slow")
        return "done"

    @workflow
    async def flow() -> str:
        return await slow()

    async def scenario() -> None:
        codec = Failing()
        async with Engine(tmp_path / "j.db", codec=codec) as engine:
            run = await flow.options(id="x").start()
            await stage.seen("slow")
            codec.broken = True
            stage.let("slow")
            await quiet(engine)
            async with asyncio.timeout(20):
                while "cannot be recorded" not in caplog.text:  # noqa: ASYNC110
                    await asyncio.sleep(0.001)
            assert (await run.info()).state in (State.PENDING, State.RUNNING)
        async with Engine(tmp_path / "j.db", codec=Failing(), workflows=[flow]) as engine:
            assert await engine.run("x") == "done"

    with caplog.at_level(logging.ERROR):
        asyncio.run(scenario())
    assert stage.began == ["slow", "slow"]


def test_a_step_for_another_process_travels_as_its_name() -> None:
    for there in (sample_steps.add, sample_steps.Shop.price):
        travelled = pickle.loads(pickle.dumps(there._spec.fn))
        assert travelled is there.fn


def test_an_error_of_asyncio_s_about_loops_is_explained_and_others_are_left_alone() -> None:
    @workflow
    async def flow() -> None:
        raise RuntimeError("a different thing")

    async def scenario() -> None:
        async with Engine(":memory:"):
            failed = await ended(await flow.start(), RunFailed)
            assert failed.record is not None
            assert failed.record.message == "a different thing"

    asyncio.run(scenario())

"""Moments that chance brings about too rarely, held open by a gate: nothing is lost in them and nothing comes twice."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from durable_sqlite import (
    DeadLetter,
    Engine,
    EngineClosed,
    RunCancelled,
    RunFailed,
    Unknown,
    Unloading,
    sleep,
    step,
    workflow,
)
from durable_sqlite._records import RunRow
from durable_sqlite._run import Pass
from durable_sqlite._sqlite import SqliteJournal
from tests.support.clock import ManualClock
from tests.support.gates import Gate, session_of
from tests.support.restarts import die, quiet
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


@workflow
async def tidies_up_slowly() -> None:
    try:
        await sleep(3600)
    finally:
        await act("begin to tidy up")
        await sleep(100)
        await act("tidied up")


async def asleep(engine: Engine) -> Pass:
    """The body of the only run, once it is at rest in memory."""
    await quiet(engine)
    (body,) = session_of(engine).worker._residents.passes.values()
    assert body.at_rest
    return body


# Cancelling ----------------------------------------------------------------------------------------------------------


@pytest.mark.contradicts("unload", "crash", reason="its body is to be in memory, at rest")
def test_a_cancel_reaches_a_run_that_leaves_memory_in_the_same_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        async with Engine(":memory:", clock=ManualClock()) as engine:
            run = await naps.start()
            body = await asleep(engine)
            worker = session_of(engine).worker
            told = worker.told

            def told_and_unloaded(*rows: RunRow) -> None:
                told(*rows)
                worker._unload(body)

            monkeypatch.setattr(worker, "told", told_and_unloaded)
            await run.cancel(reason="enough")
            assert (await ended(run, RunCancelled)).reason == "enough"

    asyncio.run(scenario())


def test_a_cancel_reaches_a_run_that_is_claimed_and_not_loaded_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage()

    @step
    async def slow() -> None:
        await stage.enter("slow")

    @workflow
    async def flow() -> None:
        await sleep(100)
        await slow()

    async def scenario() -> None:
        clock = ManualClock()
        async with Engine(":memory:", clock=clock, unload_after=0) as engine:
            run = await flow.start()
            await quiet(engine)
            gate = Gate(engine, "memories", monkeypatch)
            clock.advance(100)
            await gate.reached()
            await run.cancel(reason="enough")
            gate.open()
            # Not when the step has ended, which here is never: at once.
            assert (await ended(run, RunCancelled)).reason == "enough"

    asyncio.run(scenario())


def test_asking_again_while_a_cancelled_run_tidies_up_changes_nothing() -> None:
    async def scenario() -> None:
        clock = ManualClock()
        async with Engine(":memory:", clock=clock) as engine:
            run = await tidies_up_slowly.start()
            await quiet(engine)
            await run.cancel(reason="first")
            await quiet(engine)
            await run.cancel(reason="second")
            await quiet(engine)
            clock.advance(100)
            assert (await ended(run, RunCancelled)).reason == "first"
            assert [entry.key for entry in await run.history()] == ["~cancel", "act#1", "sleep#2", "act#2"]

    asyncio.run(scenario())
    assert effects == ["begin to tidy up", "tidied up"]


def test_what_comes_due_while_the_suspension_is_being_written_is_not_slept_through(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def scenario() -> None:
        clock = ManualClock()
        async with Engine(":memory:", clock=clock) as engine:
            run = await tidies_up_slowly.start()
            await quiet(engine)
            gate = Gate(engine, "suspend", monkeypatch)
            await run.cancel(reason="first")
            await gate.reached()
            await run.cancel(reason="second")  # this nudge meets a body that is being suspended
            clock.advance(100)
            gate.open()
            assert (await ended(run, RunCancelled)).reason == "first"

    asyncio.run(scenario())
    assert effects == ["begin to tidy up", "tidied up"]


@pytest.mark.parametrize("before", [True, False], ids=["before the commit", "after the commit"])
@pytest.mark.parametrize("unload_after", [0.0, 3600.0], ids=["unloaded", "resident"])
def test_a_timer_that_is_due_in_the_moment_of_the_suspension_fires_and_a_replay_keeps_its_place(
    tmp_path: Path, before: bool, unload_after: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Due before the suspension is written, or when it is and the run has not heard of it; then its process dies."""

    @workflow
    async def flow() -> str:
        await sleep(100)
        await act("slept")
        await sleep(100)
        return "over"

    async def scenario() -> None:
        clock = ManualClock()
        async with Engine(tmp_path / "j.db", clock=clock, unload_after=unload_after) as engine:
            gate = Gate(engine, "suspend", monkeypatch, before=before)
            run = await flow.options(id="x").start()
            await gate.reached()
            clock.advance(100)
            for _ in range(20):
                await asyncio.sleep(0)
            if before:  # else whoever looks for what is due may take it before the run hears of its rest
                assert await run.history() == []
            gate.open()
            await until(lambda: effects)
            await quiet(engine)
            assert [entry.key for entry in await run.history()] == ["sleep#1", "act#1"]
            await die(engine)
        monkeypatch.undo()
        clock.advance(100)
        async with Engine(tmp_path / "j.db", clock=clock, workflows=[flow]) as engine:
            assert await engine.run("x").result(timeout=20) == "over"
            assert [entry.key for entry in await engine.run("x").history()] == ["sleep#1", "act#1", "sleep#2"]

    asyncio.run(scenario())
    assert effects == ["slept"]


def test_a_step_that_still_waits_for_an_earlier_commit_when_the_run_is_cancelled_never_begins(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    @workflow
    async def flow() -> None:
        await act("first")
        await act("second")

    async def scenario() -> None:
        async with Engine(":memory:") as engine:
            gate = Gate(engine, "record", monkeypatch)
            run = await flow.start()
            await gate.reached()
            await run.cancel()
            await gate.reached(2)  # the cancel has been given to the body
            gate.open()
            await ended(run, RunCancelled)
            assert [entry.key for entry in await run.history()] == ["act#1", "~cancel"]

    asyncio.run(scenario())
    assert effects == ["first"]


def test_a_cancel_while_a_probe_is_asked_stops_the_probe_and_decides_nothing(tmp_path: Path) -> None:
    stage = Stage()

    async def ask() -> Unknown:
        await stage.enter("probe")
        return Unknown()

    @step(at_most_once=True, probe=ask)
    async def transfer() -> None:
        await stage.enter("transfer")

    @workflow
    async def flow() -> None:
        await transfer()

    async def scenario() -> None:
        async with Engine(tmp_path / "j.db") as engine:
            await flow.options(id="x").start()
            await stage.seen("transfer")
            await die(engine)
        async with Engine(tmp_path / "j.db", workflows=[flow]) as engine:
            await stage.seen("probe")
            await engine.run("x").cancel(reason="enough")
            assert (await ended(engine.run("x"), RunCancelled)).reason == "enough"
            assert [entry.key for entry in await engine.run("x").history()] == ["~cancel"]

    asyncio.run(scenario())
    assert stage.began == ["transfer", "probe"]


# Ends ----------------------------------------------------------------------------------------------------------------


def test_who_is_told_of_a_run_in_the_moment_of_closing_hears_that_the_engine_is_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def scenario() -> None:
        engine = Engine(":memory:", clock=ManualClock())
        async with engine:
            run = await naps.start()
            await quiet(engine)
            waiting = asyncio.create_task(run.result())
            await until(lambda: len(engine._front.listeners))
            session = session_of(engine)
            close = session.close

            async def close_and_tell() -> None:
                await close()
                engine._front.changed(run.id)
                engine._front.changed(run.id)  # twice in one turn is once

            monkeypatch.setattr(session, "close", close_and_tell)
        with pytest.raises(EngineClosed):
            await waiting

    asyncio.run(scenario())


@pytest.mark.contradicts("unload", "crash", reason="its body is to be in memory, at rest")
def test_a_body_that_is_taken_out_of_memory_twice_is_taken_out_once() -> None:
    @workflow
    async def flow() -> None:
        try:
            await sleep(100)
        except Unloading:
            effects.append("unloaded")
            raise

    async def scenario() -> None:
        async with Engine(":memory:", clock=ManualClock()) as engine:
            await flow.start()
            body = await asleep(engine)
            body.unload()
            body.unload()

    asyncio.run(scenario())
    assert effects == ["unloaded"]


@pytest.mark.parametrize("place", ["file", "memory"])
def test_an_engine_that_cannot_be_opened_leaves_nothing_behind(
    tmp_path: Path, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = ":memory:" if place == "memory" else tmp_path / "j.db"

    async def refuse(*_: object) -> None:
        raise OSError("no more files")

    async def scenario() -> None:
        with monkeypatch.context() as patch:
            patch.setattr(SqliteJournal, "open", refuse)
            with pytest.raises(OSError, match="no more files"):
                async with Engine(path):
                    pass
        assert not list(tmp_path.iterdir())  # noqa: ASYNC240
        async with Engine(path) as engine:
            assert await engine.count() == 0

    asyncio.run(scenario())


def test_what_breaks_in_an_attempt_after_its_run_has_left_is_nobody_s_concern(tmp_path: Path) -> None:
    stage = Stage()

    @step
    async def stubborn() -> str:
        try:
            await stage.enter("stubborn")
        except asyncio.CancelledError:
            return "too late"
        return "done"

    @workflow
    async def flow() -> str:
        return await stubborn()

    def breaks(where: str) -> None:
        if where == "step.after":
            effects.append(where)
            raise RuntimeError("odd")

    async def scenario() -> None:
        engine = Engine(tmp_path / "j.db")
        engine._failpoint = breaks
        async with engine:
            await flow.options(id="x").start()
            await stage.seen("stubborn")
        assert effects == ["step.after"]
        stage.let("stubborn")
        async with Engine(tmp_path / "j.db", workflows=[flow]) as after:
            assert await after.run("x").result(timeout=20) == "done"

    asyncio.run(scenario())


def test_a_program_that_forgets_an_engine_in_memory_ends_in_order() -> None:
    async def forgets() -> None:
        engine = Engine(":memory:")
        await engine.__aenter__()
        await naps.options(engine=engine).start()

    asyncio.run(forgets())


# Dead letters --------------------------------------------------------------------------------------------------------


@pytest.mark.contradicts("two", "crash", reason="it holds the hook of the engine that drives")
def test_the_hook_is_not_told_of_a_letter_that_was_redriven_before_it_could_be_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[str] = []
    broken = [True]

    def hook(letter: DeadLetter) -> None:
        told.append(letter.run.id)

    @workflow
    async def flow() -> None:
        if broken:
            raise ValueError

    async def scenario() -> None:
        async with Engine(":memory:", on_dead_letter=hook) as engine:
            await ended(await flow.options(id="told").start(), RunFailed)
            await until(lambda: told)
            tell = engine._tell
            asked: list[str] = []
            redriven = asyncio.Event()

            async def tell_later(run_id: str) -> None:
                asked.append(run_id)
                await redriven.wait()
                await tell(run_id)

            monkeypatch.setattr(engine, "_tell", tell_later)
            run = await flow.options(id="untold").start()
            await ended(run, RunFailed)
            broken.clear()
            await run.resume()
            await run
            redriven.set()
            await until(lambda: not engine._telling)
            assert asked == ["untold"]

    asyncio.run(scenario())
    assert told == ["told"]


# Bodies --------------------------------------------------------------------------------------------------------------


def test_an_outcome_for_which_the_body_has_cancelled_its_own_future_is_recorded_and_given_to_nobody() -> None:
    @workflow
    async def flow() -> str:
        dropped = act("dropped")
        future: Any = dropped.send(None)  # as a coroutine that somebody drives by hand
        future.cancel()
        return await act("kept")

    async def scenario() -> None:
        async with Engine(":memory:"):
            run = await flow.start()
            assert await run == "kept"
            assert [entry.value for entry in await run.history()] == ["dropped", "kept"]

    asyncio.run(scenario())
    assert effects == ["dropped", "kept"]


def test_a_run_that_takes_the_place_of_one_whose_body_is_stale_here_still_hears_of_a_cancel(tmp_path: Path) -> None:
    stage, slow, fast = Stage(), ManualClock(), ManualClock()

    @step
    async def work() -> None:
        await stage.enter("work")

    @workflow
    async def flow(again: bool) -> str:
        await sleep(100)
        if again:
            await work()
        return "awake"

    async def scenario() -> None:
        async with Engine(tmp_path / "j.db", clock=slow, unload_after=10_000) as first:
            await flow.options(id="x").start(again=False)
            await quiet(first)
            fast.advance(100)
            async with Engine(tmp_path / "j.db", clock=fast, workflows=[flow]) as second:
                assert await second.run("x").result(timeout=20) == "awake"
            run = await flow.options(id="x", if_exists="replace").start(again=True)
            await quiet(first)
            slow.advance(100)  # the stale body finds out that its run was replaced, and is dropped
            await stage.seen("work")
            await run.cancel(reason="enough")
            assert (await ended(run, RunCancelled)).reason == "enough"

    asyncio.run(scenario())


@pytest.mark.parametrize("place", ["file", "memory"])
def test_an_engine_whose_opening_is_cancelled_leaves_nothing_open(tmp_path: Path, place: str) -> None:
    path = ":memory:" if place == "memory" else tmp_path / "j.db"

    async def opens() -> None:
        async with Engine(path):
            raise AssertionError("it was cancelled before it was open")

    async def scenario() -> None:
        opening = asyncio.create_task(opens())
        await asyncio.sleep(0)
        opening.cancel()
        await asyncio.wait([opening])
        assert opening.cancelled()
        async with Engine(path) as engine:
            assert await engine.count() == 0
        assert not list(tmp_path.glob("*-worker-*"))  # noqa: ASYNC240

    asyncio.run(scenario())

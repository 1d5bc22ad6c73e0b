"""Draining an engine: what is in flight ends, nothing else begins, and others go on at once with all the rest."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from durable_sqlite import (
    Engine,
    EngineClosed,
    Retry,
    Run,
    Signal,
    State,
    Tx,
    UsageError,
    current_step,
    each,
    set_status,
    sleep,
    step,
    transaction,
    workflow,
)
from durable_sqlite import _drain as draining
from durable_sqlite._records import RunRow
from tests.support.clock import ManualClock
from tests.support.gates import Gate, session_of
from tests.support.restarts import quiet
from tests.support.stage import Stage, until


class DrainingNews(Signal):
    number: int


stage = Stage()
effects: list[str] = []


@pytest.fixture(autouse=True)
def forget() -> None:
    global stage  # noqa: PLW0603 - its events belong to one loop
    stage = Stage()
    effects.clear()


@step
async def act(what: str) -> str:
    effects.append(f"{what}{current_step().attempt}{' again' if current_step().recovered else ''}")
    await stage.enter(what)
    return what


@workflow
async def two(first: str = "one", second: str = "two") -> list[str]:
    return [await act(first), await act(second)]


@workflow
async def naps(seconds: float) -> str:
    await sleep(seconds)
    return await act("awake")


async def row_of(engine: Engine, run: Run[Any] | str) -> RunRow:
    row = await session_of(engine).journal.run(run if isinstance(run, str) else run.id)
    assert row is not None
    return row


async def bounded(waiting: Awaitable[bool]) -> bool:
    async with asyncio.timeout(20):
        return await waiting


@pytest.mark.contradicts("two", "crash", reason="the engine that starts its run is the one that drives it")
def test_a_step_in_flight_ends_and_is_recorded_and_the_next_begins_elsewhere(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Engine(tmp_path / "j.db") as first, Engine(tmp_path / "j.db") as second:
            run = await two.options(engine=first).start()
            await stage.seen("one")
            drained = asyncio.create_task(first.drain())
            await quiet(second)
            assert not drained.done()
            assert (await row_of(second, run)).state is State.RUNNING
            stage.let("one", "two")
            assert await bounded(drained)
            row = await row_of(second, run)
            assert (row.state, row.owner, row.deaths, row.interrupted) == (State.PENDING, None, 0, False)
            assert [entry.key for entry in await second.run(run.id).history()] == ["act#1"]
            session_of(second).know(two.spec)
            # It hears of the run's end in the other engine, and still answers.
            assert await run.result(timeout=20) == ["one", "two"]
            assert effects == ["one1", "two1"]

    asyncio.run(scenario())


@pytest.mark.contradicts("crash", reason="it foretells whether a step was interrupted")
def test_a_step_in_flight_at_the_limit_is_cancelled_and_begins_again_elsewhere(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock = ManualClock()

    async def scenario() -> None:
        async with Engine(tmp_path / "j.db", clock=clock) as engine:
            run = await two.options(id="x").start()
            await stage.seen("one")
            drained = asyncio.create_task(engine.drain(timedelta(seconds=7)))
            await until(lambda: caplog.messages)
            clock.advance(6.9)
            await asyncio.sleep(0.001)
            assert not drained.done()
            clock.advance(0.1)
            assert await bounded(drained) is False
            assert caplog.messages == [
                "draining: 1 step in flight: act#1 of run x; waiting up to 7 s",
                "drained: 1 step in flight: act#1 of run x; cancelled, unrecorded, to begin again elsewhere",
            ]
            row = await row_of(engine, run)
            assert (row.state, row.owner, row.deaths, row.interrupted) == (State.PENDING, None, 0, True)
            assert await run.history() == []
        stage.forget()
        stage.let("one", "two")
        async with Engine(tmp_path / "j.db", workflows=[two], clock=clock) as engine:
            assert await engine.run("x").result(timeout=20) == ["one", "two"]
        assert effects == ["one1", "one1 again", "two1"]

    asyncio.run(scenario())


@pytest.mark.contradicts("unload", "crash", reason="its body is in memory when the engine drains")
def test_what_is_suspended_leaves_memory_at_once_and_stays_suspended(tmp_path: Path) -> None:
    clock = ManualClock()

    async def scenario() -> None:
        async with Engine(tmp_path / "j.db", clock=clock, unload_after=3600) as engine:
            run = await naps.start(100)
            await quiet(engine)
            assert session_of(engine).worker.has(run.id)
            assert await bounded(engine.drain())
            assert not session_of(engine).worker.has(run.id)
            assert (await row_of(engine, run)).state is State.SUSPENDED
            clock.advance(101)
            await quiet(engine)
            assert (await row_of(engine, run)).state is State.SUSPENDED
            assert effects == []
            stage.let("awake")
            async with Engine(tmp_path / "j.db", clock=clock, workflows=[naps]):
                assert await run.result(timeout=20) == "awake"

    asyncio.run(scenario())


def test_a_body_that_comes_to_wait_while_its_engine_drains_is_suspended_for_others() -> None:
    @workflow
    async def waits() -> None:
        await act("one")
        await DrainingNews.wait(timeout=60)

    async def scenario() -> None:
        async with Engine(":memory:") as engine:
            run = await waits.start()
            await stage.seen("one")
            drained = asyncio.create_task(engine.drain())
            await asyncio.sleep(0)
            stage.let("one")
            assert await bounded(drained)
            assert (await run.info()).state is State.SUSPENDED
            assert not session_of(engine).worker.has(run.id)
            assert [wait.name for wait in await session_of(engine).journal.waits((await row_of(engine, run)).no)] == [
                "DrainingNews"
            ]

    asyncio.run(scenario())


def test_a_body_that_ends_while_its_engine_drains_has_ended() -> None:
    @workflow
    async def one() -> str:
        return await act("one")

    async def scenario() -> None:
        async with Engine(":memory:") as engine:
            run = await one.start()
            await stage.seen("one")
            drained = asyncio.create_task(engine.drain())
            await asyncio.sleep(0)
            stage.let("one")
            assert await bounded(drained)
            assert await run == "one"

    asyncio.run(scenario())


@pytest.mark.contradicts("crash", reason="it foretells whether a step was interrupted")
def test_a_run_started_in_an_engine_that_drains_is_stored_for_others(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Engine(tmp_path / "j.db") as first:
            await two.start("held")
            await stage.seen("held")
            drained = asyncio.create_task(first.drain())
            await asyncio.sleep(0)
            run = await two.options(id="late", engine=first).start()
            await quiet_for_a_turn()
            assert (await row_of(first, run)).state is State.PENDING
            assert effects == ["held1"]
            stage.let("held", "one", "two")
            assert await bounded(drained)
            assert (await two.options(id="later", engine=first).start()).created
            assert await first.count(state="pending") == 3
            async with Engine(tmp_path / "j.db", workflows=[two]):
                for run_id in ("late", "later"):
                    assert await first.run(run_id).result(timeout=20) == ["one", "two"]

    asyncio.run(scenario())


async def quiet_for_a_turn() -> None:
    for _ in range(20):
        await asyncio.sleep(0.001)


@pytest.mark.parametrize("verb", ["start", "claim", "memories"])
def test_a_run_that_comes_in_just_as_the_engine_drains_is_given_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    async def scenario() -> None:
        async with (
            Engine(tmp_path / "j.db", workflows=[two]) as engine,
            Engine(tmp_path / "j.db", drive=False) as client,
        ):
            await quiet(engine)
            gate = Gate(engine, verb, monkeypatch)
            where = engine if verb == "start" else client
            starting = [asyncio.create_task(two.options(id=f"x{n}", engine=where).start()) for n in range(3)]
            await gate.reached(3 if verb == "start" else 1)
            drained = asyncio.create_task(engine.drain())
            await asyncio.sleep(0)
            gate.open()
            assert await bounded(drained)
            runs = await asyncio.gather(*starting)
            await until(lambda: not session_of(engine).worker._leaving)
            for run in runs:
                row = await row_of(engine, run.id)
                assert (row.state, row.owner, row.deaths, row.interrupted) == (State.PENDING, None, 0, False)
            assert effects == []

    asyncio.run(scenario())


def test_a_drained_engine_answers_and_takes_messages_until_it_is_closed(tmp_path: Path) -> None:
    @workflow
    async def hears() -> int:
        return (await DrainingNews.wait()).number

    async def scenario() -> None:
        async with Engine(tmp_path / "j.db") as engine:
            run, other = await hears.start(), await naps.start(100)
            await quiet(engine)
            assert await bounded(engine.drain())
            await engine.join()
            await run.signal(DrainingNews(number=7))
            await other.cancel(reason="no more")
            await quiet(engine)
            assert (await run.info()).state is State.PENDING
            assert [message.name for message in await run.messages()] == ["DrainingNews"]
            assert await engine.count(state="pending") == 2
            async with Engine(tmp_path / "j.db", workflows=[hears, naps]):
                assert await run.result(timeout=20) == 7
        with pytest.raises(EngineClosed):
            await engine.drain()

    asyncio.run(scenario())


def test_draining_twice_is_harmless_and_the_nearer_limit_is_in_force() -> None:
    clock = ManualClock()

    async def scenario() -> None:
        async with Engine(":memory:", clock=clock) as engine:
            await two.start()
            await stage.seen("one")
            drains = [asyncio.create_task(engine.drain(seconds)) for seconds in (30, 10)]
            await asyncio.sleep(0.001)
            clock.advance(10)
            async with asyncio.timeout(20):
                assert await asyncio.gather(*drains) == [False, False]
            assert clock.armed() == []
            assert await bounded(engine.drain()) is False
        async with Engine(":memory:") as engine:
            assert [await engine.drain() for _ in range(2)] == [True, True]

    asyncio.run(scenario())


def test_whoever_joins_is_told_when_the_engine_has_drained() -> None:
    async def scenario() -> None:
        async with Engine(":memory:") as engine:
            await two.start()
            await stage.seen("one")
            joining = asyncio.create_task(engine.join())
            drained = asyncio.create_task(engine.drain())
            await asyncio.sleep(0.001)
            assert not joining.done()
            stage.let("one")
            assert await bounded(drained)
            await joining
            assert effects == ["one1"]

    asyncio.run(scenario())


@pytest.mark.parametrize(("delay", "state"), [(0.5, State.SUSPENDED), (60, State.SUSPENDED)], ids=["short", "long"])
def test_a_step_between_two_attempts_is_not_waited_for_and_keeps_its_count(
    tmp_path: Path, delay: float, state: State
) -> None:
    clock = ManualClock()

    @step(retry=Retry(max_attempts=3, initial_delay=delay, jitter=0))
    async def fails() -> str:
        effects.append(f"attempt {current_step().attempt}")
        if current_step().attempt == 1:
            raise ValueError("once more")
        return "done"

    @workflow
    async def tries() -> str:
        return await fails()

    async def scenario() -> None:
        async with Engine(tmp_path / "j.db", clock=clock) as engine:
            run = await tries.options(id="x").start()
            await until(lambda: effects)
            await until(clock.armed)
            assert await bounded(engine.drain())
            assert (await row_of(engine, run)).state is state
        async with Engine(tmp_path / "j.db", clock=clock, workflows=[tries]) as engine:
            await quiet(engine)
            assert effects == ["attempt 1"]
            clock.advance(delay)
            assert await engine.run("x").result(timeout=20) == "done"
            assert effects == ["attempt 1", "attempt 2"]

    asyncio.run(scenario())


def test_a_transaction_in_flight_is_committed_and_the_next_is_not_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @transaction
    def note(tx: Tx, what: str) -> str:
        effects.append(what)
        return what

    @workflow
    async def notes() -> list[str]:
        return [await note("one"), await note("two")]

    async def scenario() -> None:
        async with Engine(tmp_path / "j.db") as engine:
            gate = Gate(engine, "transact_step", monkeypatch)
            run = await notes.start()
            await gate.reached()
            drained = asyncio.create_task(engine.drain())
            await asyncio.sleep(0)
            gate.open()
            assert await bounded(drained)
            assert effects == ["one"]
            assert [entry.key for entry in await run.history()] == ["note#1"]
            assert (await row_of(engine, run)).state is State.PENDING

    asyncio.run(scenario())


def test_of_a_fan_out_no_further_item_begins() -> None:
    @workflow
    async def many() -> list[str]:
        return await each(act, ["a", "b", "c"], concurrency=2)

    async def scenario() -> None:
        async with Engine(":memory:") as engine:
            run = await many.start()
            await stage.seen("a", "b")
            drained = asyncio.create_task(engine.drain())
            await asyncio.sleep(0.001)
            stage.let("a")
            await until(lambda: len(session_of(engine).worker.in_flight()) == 1)
            assert not drained.done()
            stage.let("b")
            assert await bounded(drained)
            assert sorted(effects) == ["a1", "b1"]
            assert (await row_of(engine, run)).state is State.PENDING
            assert len(await run.history()) == 2

    asyncio.run(scenario())


def test_parent_and_child_are_both_let_go_and_go_on_elsewhere(tmp_path: Path) -> None:
    @workflow
    async def parent() -> list[str]:
        return await two("one", "two")

    async def scenario() -> None:
        async with Engine(tmp_path / "j.db") as engine:
            run = await parent.options(id="x").start()
            await stage.seen("one")
            drained = asyncio.create_task(engine.drain())
            await asyncio.sleep(0)
            stage.let("one", "two")
            assert await bounded(drained)
            assert await engine.count(state="suspended") == await engine.count(state="pending") == 1
            async with Engine(tmp_path / "j.db", workflows=[parent, two]):
                assert await run.result(timeout=20) == ["one", "two"]
            assert effects == ["one1", "two1"]

    asyncio.run(scenario())


@pytest.mark.parametrize("own", [True, False], ids=["the engine's threads", "an executor"])
def test_a_synchronous_step_that_waits_for_a_thread_does_not_begin(own: bool) -> None:
    go = threading.Event()

    async def scenario(executor: ThreadPoolExecutor | None) -> None:
        @step(executor=executor)
        def works(what: str) -> str:
            effects.append(what)
            go.wait(20)
            return what

        @workflow
        async def both() -> list[str]:
            return list(await asyncio.gather(works("one"), works("two")))

        async with Engine(":memory:", step_threads=1) as engine:
            run = await both.start()
            await until(lambda: effects and len(session_of(engine).worker.in_flight()) == 2)
            drained = asyncio.create_task(engine.drain())
            await until(lambda: len(session_of(engine).worker.in_flight()) == 1)
            go.set()
            assert await bounded(drained)
            assert effects == ["one"]
            assert [entry.key for entry in await run.history()] == ["works#1"]
            row = await row_of(engine, run)
            assert (row.state, row.interrupted) == (State.PENDING, False)

    if own:
        asyncio.run(scenario(None))
    else:
        with ThreadPoolExecutor(1) as pool:
            asyncio.run(scenario(pool))


@pytest.mark.parametrize(
    "stops",
    [
        "drain",
        pytest.param(
            "pause",
            marks=pytest.mark.contradicts("two", "crash", reason="its pause is heard before the gate opens"),
        ),
    ],
)
def test_an_at_most_once_step_of_which_it_is_written_down_that_it_begins_does_begin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stops: str
) -> None:
    @step(at_most_once=True)
    async def pay() -> str:
        effects.append("paid")
        return "paid"

    @workflow
    async def pays() -> list[str]:
        return [await pay(), await act("two")]

    async def scenario() -> None:
        async with Engine(tmp_path / "j.db", unload_after=0) as engine:
            gate = Gate(engine, "intend", monkeypatch)
            run = await pays.start()
            await gate.reached()
            stopping: Awaitable[Any]
            if stops == "drain":
                stopping = asyncio.create_task(engine.drain())
                await asyncio.sleep(0)
            else:
                stopping = asyncio.sleep(0)
                await run.pause()
            gate.open()
            await stopping
            await quiet(engine)
            assert effects == ["paid"]
            assert [entry.key for entry in await run.history()] == ["pay#1"]

    asyncio.run(scenario())


def test_an_at_most_once_step_that_waits_for_a_thread_is_waited_for() -> None:
    go = threading.Event()

    @step
    def works() -> None:
        go.wait(20)

    @step(at_most_once=True)
    def pay() -> None:
        effects.append("paid")

    @workflow
    async def both() -> None:
        await asyncio.gather(works(), pay())

    async def scenario() -> None:
        async with Engine(":memory:", step_threads=1) as engine:
            run = await both.start()
            await until(lambda: len(session_of(engine).worker._around.runner._jobs) == 2)
            drained = asyncio.create_task(engine.drain())
            await asyncio.sleep(0)
            go.set()
            assert await bounded(drained)
            assert effects == ["paid"]
            assert (await run.info()).state is State.COMPLETED

    asyncio.run(scenario())


def test_a_step_whose_earlier_writes_are_not_committed_yet_is_held_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with Engine(tmp_path / "j.db") as engine:
            stage.let("one", "two")
            gate = Gate(engine, "record", monkeypatch)
            run = await two.start()
            await gate.reached()
            drained = asyncio.create_task(engine.drain())
            await asyncio.sleep(0)
            gate.open()
            assert await bounded(drained)
            assert effects == ["one1"]
            assert (await row_of(engine, run)).state is State.PENDING

    asyncio.run(scenario())


def test_messages_are_left_for_whoever_goes_on_as_soon_as_nothing_is_in_flight() -> None:
    @workflow
    async def hears() -> None:
        while True:
            effects.append(str((await DrainingNews.wait()).number))
            if len(effects) == 1:
                await act("one")

    async def scenario() -> None:
        async with Engine(":memory:") as engine:
            run = await hears.start()
            await run.signal(DrainingNews(number=1))
            await stage.seen("one")
            for number in range(2, 100):
                await run.signal(DrainingNews(number=number))
            drained = asyncio.create_task(engine.drain())
            await asyncio.sleep(0)
            stage.let("one")
            assert await bounded(drained)
            assert len(await run.messages()) == 98
            assert (await row_of(engine, run)).state is State.PENDING

    asyncio.run(scenario())


def test_a_request_to_cancel_still_reaches_a_step_in_flight() -> None:
    async def scenario() -> None:
        async with Engine(":memory:") as engine:
            run = await two.start()
            await stage.seen("one")
            drained = asyncio.create_task(engine.drain())
            await asyncio.sleep(0)
            await run.cancel(reason="enough")
            assert await bounded(drained)
            assert (await run.info()).state is State.CANCELLED

    asyncio.run(scenario())


def test_time_limits_of_steps_in_flight_stay_in_force() -> None:
    clock = ManualClock()

    @workflow
    async def limited() -> str:
        try:
            async with asyncio.timeout(5):
                return await act("one")
        except TimeoutError:
            return "too late"

    async def scenario() -> None:
        async with Engine(":memory:", clock=clock) as engine:
            run = await limited.start()
            await stage.seen("one")
            drained = asyncio.create_task(engine.drain(30))
            await asyncio.sleep(0.001)
            clock.advance(5)
            assert await bounded(drained)
            assert await run == "too late"

    asyncio.run(scenario())


@pytest.mark.contradicts("crash", reason="it foretells whether a step was interrupted")
def test_what_the_body_says_of_itself_while_its_engine_drains_is_kept() -> None:
    @workflow
    async def tells() -> None:
        await act("one")
        set_status("one is done")
        await act("two")

    async def scenario() -> None:
        async with Engine(":memory:") as engine:
            run = await tells.start()
            await stage.seen("one")
            drained = asyncio.create_task(engine.drain())
            await asyncio.sleep(0)
            stage.let("one")
            assert await bounded(drained)
            assert (await run.info()).status == "one is done"
            assert effects == ["one1"]

    asyncio.run(scenario())


def test_a_limit_of_no_time_cancels_at_once_and_a_body_is_unloaded_not_cancelled() -> None:
    seen: list[str] = []

    @workflow
    async def careful() -> None:
        try:
            await act("one")
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise
        finally:
            seen.append("left")

    async def scenario() -> None:
        async with Engine(":memory:") as engine:
            run = await careful.start()
            await stage.seen("one")
            assert await bounded(engine.drain(-1)) is False
            assert seen == ["left"]
            assert (await row_of(engine, run)).state is State.PENDING

    asyncio.run(scenario())


@pytest.mark.contradicts("two", "crash", reason="its engine drains itself")
def test_a_run_is_given_back_only_when_its_cancelled_step_has_gone_or_had_its_time() -> None:
    clock = ManualClock()
    go = Stage()

    @step
    async def stubborn() -> None:
        effects.append("began")
        while True:
            try:
                await go.enter("end")
            except asyncio.CancelledError:
                effects.append("swallowed")
            else:
                return

    @workflow
    async def one() -> None:
        await stubborn()

    async def scenario(*, goes: bool) -> None:
        effects.clear()
        go.forget()
        async with Engine(":memory:", clock=clock) as engine:
            run = await one.start()
            await go.seen("end")
            drained = asyncio.create_task(engine.drain(0))
            await until(lambda: effects == ["began", "swallowed"])
            await asyncio.sleep(0.001)
            assert not drained.done()
            assert (await row_of(engine, run)).state is State.RUNNING
            if goes:
                go.let("end")
            else:
                clock.advance(5)
            assert await bounded(drained) is False
            assert (await row_of(engine, run)).state is State.PENDING
            assert await run.history() == []
            go.let("end")

    asyncio.run(scenario(goes=False))
    go.close("end")
    asyncio.run(scenario(goes=True))


def test_runs_are_given_back_only_when_the_last_of_the_cancelled_steps_has_gone() -> None:
    go = Stage()

    @step
    async def slow(name: str) -> None:
        try:
            await asyncio.Future()
        finally:
            await go.enter(name)

    @workflow
    async def one(name: str) -> None:
        await slow(name)

    async def scenario() -> None:
        async with Engine(":memory:", clock=ManualClock()) as engine:
            runs = [await one.start(name) for name in ("first", "last")]
            await until(lambda: len(session_of(engine).worker.in_flight()) == 2)
            drained = asyncio.create_task(engine.drain(0))
            await go.seen("first", "last")
            go.let("first")
            await until(lambda: len(session_of(engine).drain._going) == 1)
            await quiet_for_a_turn()
            assert not drained.done()
            assert [(await row_of(engine, run)).state for run in runs] == [State.RUNNING] * 2
            go.let("last")
            assert await bounded(drained) is False
            assert [(await row_of(engine, run)).state for run in runs] == [State.PENDING] * 2

    asyncio.run(scenario())


def test_a_storage_that_does_not_take_what_is_given_back_is_not_waited_for_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(draining, "_PATIENCE", 0.001)

    async def scenario() -> None:
        async with Engine(tmp_path / "j.db") as engine:
            gate = Gate(engine, "leave", monkeypatch)
            await two.start()
            await stage.seen("one")
            drained = asyncio.create_task(engine.drain())
            await asyncio.sleep(0)
            stage.let("one")
            assert await bounded(drained) is False
            assert "has not taken yet that 1 runs are given back" in caplog.messages[-1]
            gate.open()

    asyncio.run(scenario())


def test_a_claim_that_the_storage_does_not_answer_is_not_waited_for_past_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with (
            Engine(tmp_path / "j.db", workflows=[two]) as engine,
            Engine(tmp_path / "j.db", drive=False) as client,
        ):
            await quiet(engine)
            gate = Gate(engine, "claim", monkeypatch)
            run = await two.options(engine=client, id="x").start()
            await gate.reached()
            assert await bounded(engine.drain(0))
            gate.open()
            await until(lambda: session_of(engine).worker._claims.under_way is None)
            await until(lambda: not session_of(engine).worker._leaving)
            assert (await row_of(engine, run.id)).state is State.PENDING

    asyncio.run(scenario())


def test_steps_and_bodies_cannot_drain_the_engine_that_drives_them() -> None:
    @step
    async def drains() -> None:
        await asyncio.wait_for(holder[0].drain(), 20)

    @workflow
    async def one() -> str:
        try:
            await drains()
        except Exception as error:
            return str(error)
        return ""

    holder: list[Engine] = []

    async def scenario() -> None:
        async with Engine(":memory:") as engine:
            holder.append(engine)
            assert "draining an engine inside a step" in await one()

    asyncio.run(scenario())


def test_a_client_has_nothing_to_drain_and_nothing_to_serve(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Engine(tmp_path / "j.db", drive=False) as client:
            assert await client.drain() is True
            with pytest.raises(UsageError, match="drives no runs"):
                await client.serve()

    asyncio.run(scenario())


def test_many_steps_are_named_up_to_a_point() -> None:
    steps = [("x", f"act#{number}") for number in range(7)]
    assert draining._told(steps) == (
        "7 steps in flight: act#0 of run x, act#1 of run x, act#2 of run x, act#3 of run x, act#4 of run x and 2 more"
    )

"""Terminating a run: over at once, without clean-up, for runs that do not let themselves be cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from durable_sqlite import (
    Engine,
    Run,
    RunCancelled,
    RunFailed,
    RunInfo,
    RunParked,
    Signal,
    SignalRejected,
    State,
    Suspend,
    UnknownRun,
    WrongState,
    sleep,
    step,
    workflow,
)
from tests.support.clock import ManualClock
from tests.support.gates import Gate, session_of
from tests.support.restarts import die, quiet
from tests.support.stage import Stage, ended, until

effects: list[str] = []
stages = [Stage()]


@pytest.fixture(autouse=True)
def stage() -> Stage:
    """Of each test its own, also for the steps that are defined once."""
    effects.clear()
    stages[0] = Stage()
    return stages[0]


class TerminatingPaid(Signal):
    number: int


class TerminatingReview(Suspend[bool]):
    what: str


@step
async def act(what: str) -> str:
    effects.append(what)
    return what


@step
async def slow() -> str:
    await stages[0].enter("slow")
    effects.append("slow")
    return "late"


@workflow
async def tidies_up(how: str) -> None:
    try:
        match how:
            case "running":
                await slow()
            case "failed":
                raise ValueError
            case "parked":
                await asyncio.get_running_loop().create_future()
            case _:
                await TerminatingReview(what="go on?")
    finally:
        if how != "failed":
            await act("clean up")


async def is_over(run: Run[Any], reason: str = "enough", by: str = "ada") -> RunInfo:
    """The run, which has been terminated: whoever waits for it hears so, with reason and author."""
    cancelled = await ended(run, RunCancelled)
    assert cancelled.reason == reason
    assert f"by {by}: {reason}" in str(cancelled)
    info = await run.info()
    assert (info.state, info.reason, info.error, info.waiting_for) == (State.CANCELLED, reason, None, ())
    assert info.ended_at is not None
    return info


# One that cannot be cancelled ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("unload_after", [0.0, 1e6])
def test_a_body_that_swallows_every_cancellation_in_a_loop_is_ended(unload_after: float) -> None:
    clock = ManualClock()

    @workflow
    async def stubborn() -> None:
        while True:
            try:
                await sleep(100)
            except asyncio.CancelledError:
                await act("swallowed")

    async def scenario() -> None:
        async with Engine(":memory:", clock=clock, unload_after=unload_after) as engine:
            run = await stubborn.start()
            await quiet(engine)
            await run.cancel(reason="please", by="bob")
            await quiet(engine)
            clock.advance(100)
            await quiet(engine)
            assert (await run.info()).state is State.SUSPENDED
            waiting = asyncio.create_task(is_over(run))
            await until(lambda: len(engine._front.listeners))
            await run.terminate(reason="enough", by="ada")
            await waiting
            assert [entry.key for entry in await run.history()] == ["~cancel", "act#1", "sleep#2"]
            clock.advance(1000)
            await quiet(engine)
            assert len(await run.history()) == 3
            assert not session_of(engine).worker._residents.passes

    asyncio.run(scenario())
    assert effects == ["swallowed"]


@pytest.mark.leaves(reason="a body that does not end is left where it is")
def test_a_body_that_catches_everything_and_spins_is_ended(stage: Stage) -> None:
    @workflow
    async def stubborn() -> None:
        while True:
            try:
                await slow()
            except BaseException:
                continue

    async def scenario() -> None:
        async with Engine(":memory:") as engine:
            run = await stubborn.start()
            await stage.seen("slow")
            await run.terminate(reason="enough", by="ada")
            await is_over(run)
            await quiet(engine)
            assert not session_of(engine).worker._residents.passes

    asyncio.run(scenario())
    assert stage.began == ["slow"]


# In every state ------------------------------------------------------------------------------------------------------


def test_a_step_in_flight_is_cancelled_and_no_clean_up_begins(stage: Stage) -> None:
    async def scenario() -> None:
        async with Engine(":memory:") as engine:
            run = await tidies_up.start("running")
            await stage.seen("slow")
            waiting = asyncio.create_task(is_over(run))
            await until(lambda: len(engine._front.listeners))
            await run.terminate(reason="enough", by="ada")
            await waiting
            await quiet(engine)
            assert await run.history() == []

    asyncio.run(scenario())
    assert effects == []


def test_what_a_step_brings_that_does_not_let_itself_be_stopped_is_nobody_s(stage: Stage) -> None:
    @step
    async def stubborn() -> str:
        try:
            await stage.enter("stubborn")
        except asyncio.CancelledError:
            await stage.enter("going")
        effects.append("late")
        return "late"

    @workflow
    async def flow() -> str:
        return await stubborn()

    async def scenario() -> None:
        async with Engine(":memory:") as engine:
            run = await flow.start()
            await stage.seen("stubborn")
            await run.terminate(reason="enough", by="ada")
            await stage.seen("going")
            before = await is_over(run)
            stage.let("going")
            await until(lambda: effects)
            await quiet(engine)
            assert await run.info() == before
            assert await run.history() == []

    asyncio.run(scenario())


@pytest.mark.parametrize("unload_after", [0.0, 1e6])
@pytest.mark.parametrize("how", ["suspended", "paused", "failed", "parked", "waits for room", "pending"])
def test_a_run_in_any_state_that_is_not_final_is_ended_without_clean_up(
    tmp_path: Path, how: str, unload_after: float, stage: Stage
) -> None:
    async def scenario() -> None:
        room = 1 if how == "waits for room" else 100
        drives = how != "pending"
        async with Engine(tmp_path / "j.db", drive=drives, unload_after=unload_after, max_resident=room) as engine:
            if how == "waits for room":
                await tidies_up.start("running")
                await stage.seen("slow")
            run = await tidies_up.options(id="x").start(how)
            if how != "waits for room":
                await quiet(engine)
            if how == "paused":
                await run.pause()
                await quiet(engine)
            expected = {"waits for room": "pending"}.get(how, how)
            assert (await run.info()).state == expected
            await run.terminate(reason="enough", by="ada")
            await is_over(run)
            assert [letter async for letter in engine.dead_letters()] == []
            assert await run.questions() == []
            with pytest.raises(SignalRejected):
                await run.answer(TerminatingReview, True)
            with pytest.raises(SignalRejected):
                await run.signal(TerminatingPaid(number=1))
            stage.let("slow")
        effects.clear()
        async with Engine(tmp_path / "j.db", workflows=[tidies_up]) as engine:
            await quiet(engine)
            await is_over(engine.run("x"))
            assert await engine.run("x").history() == []

    asyncio.run(scenario())
    assert "clean up" not in effects or how == "waits for room"


def test_what_a_run_had_recorded_stays_for_people_to_see() -> None:
    @workflow
    async def flow() -> None:
        await act("first")
        await sleep(100)

    async def scenario() -> None:
        async with Engine(":memory:") as engine:
            run = await flow.start()
            await quiet(engine)
            await run.terminate()
            assert [entry.value for entry in await run.history()] == ["first"]

    asyncio.run(scenario())


def test_a_run_that_tidies_up_after_a_cancel_is_ended_in_the_middle_and_the_last_word_is_the_reason(
    stage: Stage,
) -> None:
    @workflow
    async def flow() -> None:
        try:
            await sleep(100)
        finally:
            await slow()
            await act("clean up")

    async def scenario() -> None:
        async with Engine(":memory:") as engine:
            run = await flow.start()
            await quiet(engine)
            await run.cancel(reason="please", by="bob")
            await stage.seen("slow")
            await run.terminate(reason="enough", by="ada")
            await is_over(run)
            assert [entry.key for entry in await run.history()] == ["~cancel"]

    asyncio.run(scenario())
    assert effects == []


@pytest.mark.parametrize("how", ["completed", "cancelled", "terminated"])
def test_a_run_that_has_a_final_end_keeps_it(how: str) -> None:
    @workflow
    async def flow() -> str:
        if how != "completed":
            await sleep(100)
        return "done"

    async def scenario() -> None:
        async with Engine(":memory:") as engine:
            run = await flow.start()
            await quiet(engine)
            if how == "cancelled":
                await run.cancel(reason="first")
            elif how == "terminated":
                await run.terminate(reason="first")
            await quiet(engine)
            before = await run.info()
            with pytest.raises(WrongState, match="completed" if how == "completed" else "cancelled") as refused:
                await run.terminate(reason="second")
            assert refused.value.run_id == run.id
            assert await run.info() == before
            with pytest.raises(UnknownRun):
                await engine.run("nobody").terminate()

    asyncio.run(scenario())


@pytest.mark.parametrize(("how", "stop"), [("failed", RunFailed), ("parked", RunParked)])
def test_a_dead_letter_that_is_terminated_cannot_be_resumed(how: str, stop: type[Exception]) -> None:
    async def scenario() -> None:
        async with Engine(":memory:"):
            run = await tidies_up.start(how)
            await ended(run, stop)
            await run.terminate(reason="enough", by="ada")
            for refused in (run.resume, run.discard, run.pause, run.cancel):
                with pytest.raises(WrongState):
                    await refused()
            await is_over(run)

    asyncio.run(scenario())


# Who hears of it -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("unload_after", [0.0, 1e6])
def test_children_end_with_their_parent_but_not_detached_ones(unload_after: float) -> None:
    @workflow
    async def parent() -> None:
        await tidies_up.options(id="free", detached=True).start("suspended")
        await asyncio.gather(*(tidies_up.options(id=f"child{n}")("suspended") for n in range(3)))

    async def scenario() -> None:
        async with Engine(":memory:", unload_after=unload_after) as engine:
            run = await parent.start()
            await quiet(engine)
            assert await engine.count(state="suspended") == 5
            await run.terminate(reason="enough", by="ada")
            for run_id in (run.id, "child0", "child1", "child2"):
                await is_over(engine.run(run_id))
            await quiet(engine)
            assert (await engine.run("free").info()).state is State.SUSPENDED

    asyncio.run(scenario())
    assert effects == []


@pytest.mark.parametrize("unload_after", [0.0, 1e6])
@pytest.mark.parametrize("waits", ["for a child", "by a handle"])
def test_a_body_that_waits_for_a_run_that_is_terminated_is_told_so(waits: str, unload_after: float) -> None:
    @workflow
    async def waiter() -> str:
        try:
            if waits == "for a child":
                await tidies_up.options(id="x")("suspended")
            else:
                await tidies_up.run("x").result()
        except RunCancelled as cancelled:
            return cancelled.reason
        return "not reached"

    async def scenario() -> None:
        async with Engine(":memory:", unload_after=unload_after) as engine:
            if waits == "by a handle":
                await tidies_up.options(id="x").start("suspended")
            run = await waiter.start()
            await quiet(engine)
            await engine.run("x").terminate(reason="enough", by="ada")
            assert await run.result(timeout=20) == "enough"

    asyncio.run(scenario())
    assert effects == []


# Through another engine ----------------------------------------------------------------------------------------------


async def elsewhere(path: Path, how: str, unload_after: float, before: Callable[[Engine], Awaitable[None]]) -> None:
    """A run that one engine drives, and that another one terminates while somebody waits for it at the first."""
    clock = ManualClock()
    async with (
        Engine(path, clock=clock, unload_after=unload_after) as engine,
        Engine(path, clock=clock, drive=False) as client,
    ):
        run = await tidies_up.options(engine=engine).start(how)
        await before(engine)
        waiting = asyncio.create_task(is_over(run))
        await until(lambda: len(engine._front.listeners))
        await client.run(run.id).terminate(reason="enough", by="ada")
        await is_over(client.run(run.id))
        await waiting
        clock.advance(unload_after)
        await until(lambda: not session_of(engine).worker._residents.passes)
    assert effects == []


@pytest.mark.parametrize("unload_after", [0.0, 1e6], ids=["unloaded", "resident"])
def test_whoever_waits_where_a_suspended_run_was_driven_hears_of_its_end_elsewhere(
    tmp_path: Path, unload_after: float
) -> None:
    asyncio.run(elsewhere(tmp_path / "j.db", "suspended", unload_after, quiet))


def test_whoever_waits_where_a_step_is_in_flight_hears_of_its_end_elsewhere(tmp_path: Path, stage: Stage) -> None:
    async def in_flight(_: Engine) -> None:
        await stage.seen("slow")

    asyncio.run(elsewhere(tmp_path / "j.db", "running", 5.0, in_flight))


def test_the_late_result_of_a_step_is_refused_where_nobody_has_heard_of_the_end_yet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: Stage
) -> None:
    async def deaf() -> None:
        """Hear nothing of what other processes write."""

    async def scenario() -> None:
        path = tmp_path / "j.db"
        async with Engine(path) as engine, Engine(path, drive=False) as client:
            run = await tidies_up.options(engine=engine).start("running")
            await stage.seen("slow")
            monkeypatch.setattr(session_of(engine).worker, "hear_news", deaf)
            await client.run(run.id).terminate(reason="enough", by="ada")
            stage.let("slow")
            await until(lambda: not session_of(engine).worker._residents.passes)
            await is_over(run)
            assert await run.history() == []

    asyncio.run(scenario())
    assert effects == ["slow"]  # it ran to its end, and no clean-up followed


def test_a_run_that_is_terminated_while_its_owner_is_dead_is_never_driven_again(tmp_path: Path, stage: Stage) -> None:
    async def scenario() -> None:
        async with Engine(tmp_path / "j.db") as engine:
            await tidies_up.options(id="x").start("running")
            await stage.seen("slow")
            await die(engine)
        async with Engine(tmp_path / "j.db", drive=False) as client:
            await client.run("x").terminate(reason="enough", by="ada")
        async with Engine(tmp_path / "j.db", workflows=[tidies_up]) as engine:
            await quiet(engine)
            await is_over(engine.run("x"))

    asyncio.run(scenario())
    assert stage.began == ["slow"]
    assert effects == []


@pytest.mark.contradicts("two", "crash", reason="it decides what the one engine hears first")
def test_a_run_that_is_terminated_before_it_hears_that_mail_forbade_its_rest_looks_for_none(
    monkeypatch: pytest.MonkeyPatch, stage: Stage
) -> None:
    """The commit that was to suspend it has found a message, and its body is gone before that answer comes."""

    @workflow
    async def flow() -> int:
        await slow()
        return (await TerminatingPaid.wait()).number

    def unheard(_row: object) -> None:
        """Let the engine not know of the message."""

    async def scenario() -> None:
        async with Engine(":memory:", clock=ManualClock()) as engine:
            run = await flow.start()
            await stage.seen("slow")
            with monkeypatch.context() as patch:
                patch.setattr(session_of(engine).worker, "mailed", unheard)
                await run.signal(TerminatingPaid(number=7))
            suspend, looks = Gate(engine, "suspend", monkeypatch), Gate(engine, "mail", monkeypatch)
            looks.open()
            stage.let("slow")
            await suspend.reached()
            assert (await run.info()).state is State.RUNNING
            await run.terminate(reason="enough", by="ada")
            suspend.open()
            await is_over(run)
            await quiet(engine)
            assert looks._reached == 0

    asyncio.run(scenario())


@pytest.mark.contradicts("two", "crash", reason="its new run is known while the claim is held")
def test_a_run_that_takes_the_place_of_one_that_was_terminated_during_a_claim_hears_nothing_of_that(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    @workflow
    async def naps() -> str:
        await sleep(100)
        return "awake"

    async def scenario() -> None:
        clock = ManualClock()
        async with Engine(":memory:", clock=clock) as engine:
            run = await naps.options(id="x").start()
            await quiet(engine)
            claim = Gate(engine, "claim", monkeypatch, before=True)
            session_of(engine).worker.look()
            await claim.reached()
            await run.terminate()
            again = await naps.options(id="x", if_exists="replace").start()
            assert session_of(engine).worker.has("x")
            claim.open()
            await quiet(engine)
            clock.advance(100)
            assert await again.result(timeout=20) == "awake"

    asyncio.run(scenario())

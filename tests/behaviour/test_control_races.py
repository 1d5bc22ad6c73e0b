"""Requests to runs that meet something else in the same moment: one order is recorded, and every replay keeps to it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import pytest

from durable_sqlite import (
    Engine,
    Retry,
    Run,
    RunCancelled,
    RunFailed,
    Signal,
    SignalRejected,
    State,
    StepFailed,
    Suspend,
    WrongState,
    sleep,
    step,
    workflow,
)
from tests.support.clock import ManualClock
from tests.support.crash_points import Teller, crash_everywhere
from tests.support.gates import Gate, session_of
from tests.support.restarts import die, quiet
from tests.support.stage import Stage, ended, until

RESIDENT = pytest.mark.parametrize("unload_after", [0.0, 1e6], ids=["unloaded", "resident"])

effects: list[str] = []
stages = [Stage()]


@pytest.fixture(autouse=True)
def stage() -> Stage:
    """Of each test its own, also for the steps that are defined once."""
    effects.clear()
    stages[0] = Stage()
    return stages[0]


class RacingPaid(Signal):
    number: int


class RacingReview(Suspend[bool]):
    what: str


@step
async def act(what: str) -> str:
    effects.append(what)
    return what


@step
async def slow(name: str) -> str:
    await stages[0].enter(name)
    return name


@step(retry=Retry.fixed(3600))
async def shaky() -> None:
    raise ConnectionError


@step(retry=Retry.fixed(0.5, max_attempts=None))
async def soon_again() -> None:
    raise ConnectionError


@step
async def endless() -> None:
    await asyncio.sleep(1e5)


@workflow(name="racing-child")
async def child_flow(how: str) -> None:
    try:
        await sleep(1e5)
    finally:
        await act(f"{how} of the child")


async def keys(run: Run[Any]) -> list[str]:
    return [entry.key for entry in await run.history() if entry.seq]  # what is still being tried has no place yet


async def becomes(run: Run[Any], state: State) -> None:
    """Wait until the run is in this state, as the journal has it."""
    async with asyncio.timeout(10):
        while (await run.info()).state is not state:  # noqa: ASYNC110
            await asyncio.sleep(0.001)


async def shows(run: Run[Any], number: int) -> None:
    """Wait until its history has so many entries, one that is still being tried included."""
    async with asyncio.timeout(10):
        while len(await run.history()) < number:  # noqa: ASYNC110
            await asyncio.sleep(0.001)


async def deaf() -> None:
    """Hear nothing of what other processes write."""


# Cancelling, wherever the run is --------------------------------------------------------------------------------------


async def two_branches() -> None:
    await asyncio.gather(endless(), sleep(1e5))


async def at_a_queue() -> None:
    queue: asyncio.Queue[int] = asyncio.Queue()

    async def feed() -> None:
        queue.put_nowait((await RacingPaid.wait()).number)

    async with asyncio.TaskGroup() as group:
        group.create_task(feed())
        await queue.get()


PLACES: dict[str, Callable[[], Coroutine[Any, Any, Any]]] = {
    "a step": endless,
    "a sleep": lambda: sleep(1e5),
    "asyncio.sleep": lambda: asyncio.sleep(1e5),
    "a timeout": lambda: asyncio.wait_for(RacingPaid.wait(), 1e5),
    "a message": RacingPaid.wait,
    "a message in time": lambda: RacingPaid.wait(timeout=1e5),
    "a question": lambda: RacingReview(what="go on?").wait(),
    "a child": lambda: child_flow("clean up"),
    "a back-off": shaky,
    "a short back-off": soon_again,
    "two branches": two_branches,
    "a queue that another branch feeds": at_a_queue,
}


@workflow
async def tidies_up(place: str) -> str:
    """Does something, waits somewhere, and cleans up with two steps; then goes on if it is let."""
    await act("begin")
    try:
        await PLACES[place]()
    finally:
        await act("clean up 1")
        await slow("clean up 2")
    return await act("never")


ONE_ORDER = ["act#1", "~cancel", "act#2", "slow#1"]


@pytest.mark.parametrize("place", PLACES)
@RESIDENT
def test_a_cancel_reaches_the_run_there_and_its_clean_up_runs_once(
    place: str, unload_after: float, stage: Stage
) -> None:
    stage.let("clean up 2")

    async def scenario() -> None:
        async with Engine(":memory:", clock=ManualClock(), unload_after=unload_after) as engine:
            run = await tidies_up.start(place)
            await at_its_place(engine, run, place)
            await run.cancel(reason="enough", by="ada")
            cancelled = await ended(run, RunCancelled)
            assert "by ada: enough" in str(cancelled)
            assert await keys(run) == ONE_ORDER
            await quiet(engine)
            await is_forgotten(engine)

    asyncio.run(scenario())
    assert effects == ["begin", *(["clean up 1", "clean up of the child"] if place == "a child" else ["clean up 1"])]
    assert stage.began == ["clean up 2"]


async def at_its_place(engine: Engine, run: Run[Any], place: str) -> None:
    """Wait until the run is where it is to be cancelled."""
    if place in ("a step", "two branches", "a short back-off"):
        await shows(run, 2 if place == "a short back-off" else 1)
        assert (await run.info()).state is State.RUNNING
    elif place == "a back-off":
        await becomes(run, State.SUSPENDED)
    else:
        await quiet(engine)
        assert (await run.info()).state is State.SUSPENDED


async def is_forgotten(engine: Engine) -> None:
    """Nothing of runs that have ended is kept in memory."""
    worker = session_of(engine).worker
    there = worker._residents
    kept = there.passes, there.by_id, there.idle, worker._awaited, worker._unheard
    await until(lambda: not any(kept))
    assert len(engine._front.listeners) == 0


@pytest.mark.parametrize("place", PLACES)
def test_a_cancel_keeps_its_place_over_a_crash_in_the_clean_up(tmp_path: Path, place: str, stage: Stage) -> None:
    async def scenario() -> None:
        clock = ManualClock()
        async with Engine(tmp_path / "j.db", clock=clock) as engine:
            run = await tidies_up.options(id="x").start(place)
            await at_its_place(engine, run, place)
            await run.cancel(reason="enough", by="ada")
            await stage.seen("clean up 2")
            assert await keys(run) == ONE_ORDER[:3]
            await die(engine)
        assert effects.count("clean up 1") == 1
        stage.let("clean up 2")
        async with Engine(tmp_path / "j.db", clock=clock, workflows=[tidies_up, child_flow]) as engine:
            assert (await ended(engine.run("x"), RunCancelled)).reason == "enough"
            assert await keys(engine.run("x")) == ONE_ORDER

    asyncio.run(scenario())
    assert [effect for effect in effects if "child" not in effect] == ["begin", "clean up 1"]
    assert stage.began == ["clean up 2"] * 2


@pytest.mark.parametrize("place", PLACES)
def test_a_cancel_that_no_process_was_there_for_reaches_the_run_at_the_same_place(
    tmp_path: Path, place: str, stage: Stage
) -> None:
    stage.let("clean up 2")

    async def scenario() -> None:
        clock = ManualClock()
        async with Engine(tmp_path / "j.db", clock=clock) as engine:
            run = await tidies_up.options(id="x").start(place)
            await at_its_place(engine, run, place)
        async with Engine(tmp_path / "j.db", clock=clock, drive=False) as client:
            await client.run("x").cancel(reason="enough", by="ada")
            assert (await client.run("x").info()).state is not State.CANCELLED
        async with Engine(tmp_path / "j.db", clock=clock, workflows=[tidies_up, child_flow]) as engine:
            assert (await ended(engine.run("x"), RunCancelled)).reason == "enough"
            assert await keys(engine.run("x")) == ONE_ORDER

    asyncio.run(scenario())
    assert [effect for effect in effects if "child" not in effect] == ["begin", "clean up 1"]


@pytest.mark.parametrize("place", PLACES)
def test_a_run_that_is_cancelled_ends_the_same_wherever_its_process_dies(place: str) -> None:
    stages[0].let("clean up 2")
    done: list[str] = effects

    async def story(teller: Teller) -> str:
        run = await tidies_up.options(id="x").start(place)
        await teller.at(10.25)  # in the middle of the short back-off
        with suppress(WrongState):  # it has ended by then, after a crash
            await run.cancel(reason="enough", by="ada")
        with pytest.raises(RunCancelled) as cancelled:
            await run
        return cancelled.value.reason

    told = crash_everywhere(story, tidies_up, child_flow, effects=done, ordered=place != "a child")
    assert told.returned == "enough"
    assert told.runs["x"].keys == ONE_ORDER
    assert told.runs["x"].state is State.CANCELLED


def test_a_run_that_is_cancelled_twice_ends_the_same_wherever_its_process_dies() -> None:
    stages[0].let("clean up 2")

    async def story(teller: Teller) -> list[str]:
        run = await tidies_up.options(id="x").start("a sleep")
        await teller.at(10)
        for reason in ("first", "second"):
            with suppress(WrongState):
                await run.cancel(reason=reason)
        with pytest.raises(RunCancelled) as cancelled:
            await run
        return [cancelled.value.reason]

    told = crash_everywhere(story, tidies_up, effects=effects)
    assert told.returned == ["first"]
    assert told.runs["x"].keys == ONE_ORDER


def test_a_run_that_is_paused_resumed_and_cancelled_ends_the_same_wherever_its_process_dies() -> None:
    stages[0].let("clean up 2")

    async def story(teller: Teller) -> str:
        run = await tidies_up.options(id="x").start("a sleep")
        for seconds, request in ((10, run.pause), (20, run.resume), (30, run.pause), (40, run.cancel)):
            await teller.at(seconds)
            with suppress(WrongState):
                await request()
            if request == run.pause and not teller.retold:
                assert (await run.info()).state is State.PAUSED
        with pytest.raises(RunCancelled) as cancelled:
            await run
        return cancelled.value.reason

    told = crash_everywhere(story, tidies_up, effects=effects)
    assert told.runs["x"].keys == ONE_ORDER


def test_a_run_that_is_paused_over_its_timer_ends_the_same_wherever_its_process_dies() -> None:
    @workflow
    async def naps() -> str:
        await act("before")
        await sleep(15)
        return await act("after")

    async def story(teller: Teller) -> str:
        run = await naps.options(id="x").start()
        await teller.at(10)
        if (await run.info()).state is State.SUSPENDED:
            await run.pause()
        await teller.at(20)
        paused = (await run.info()).state is State.PAUSED
        assert paused or teller.retold
        if paused:
            assert "after" not in effects
            await run.resume()
        return await run

    told = crash_everywhere(story, naps, effects=effects)
    assert told.returned == "after"
    assert told.runs["x"].keys == ["act#1", "sleep#1", "act#2"]


# Before the first step -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ended_by", ["a close", "a kill", "a kill that somebody has seen"])
def test_a_run_whose_first_step_had_begun_when_its_process_ended_cleans_up_when_it_is_cancelled(
    tmp_path: Path, ended_by: str, stage: Stage
) -> None:
    @workflow(name="racing-first")
    async def flow() -> None:
        try:
            await slow("first")
        finally:
            await act("clean up")

    async def scenario() -> None:
        async with Engine(tmp_path / "j.db") as engine:
            await flow.options(id="x").start()
            await stage.seen("first")
            if ended_by != "a close":
                await die(engine)
        if ended_by == "a kill that somebody has seen":
            async with Engine(tmp_path / "j.db", workflows=[child_flow]) as other:
                await quiet(other)
                await other.run("x").cancel(reason="enough")
        else:
            async with Engine(tmp_path / "j.db", drive=False) as client:
                await client.run("x").cancel(reason="enough")
        async with Engine(tmp_path / "j.db", workflows=[flow]) as engine:
            await ended(engine.run("x"), RunCancelled)

    asyncio.run(scenario())
    assert effects == ["clean up"]


@pytest.mark.contradicts("two", "crash", reason="its cancel is heard before the gate opens")
def test_a_cancel_that_comes_before_the_first_step_begins_keeps_its_place_over_a_crash_in_the_clean_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: Stage
) -> None:
    """The run is claimed for its first pass, and its body has not begun."""

    @workflow(name="racing-before-first")
    async def flow() -> None:
        try:
            await slow("first")
        finally:
            await act("clean up 1")
            await slow("clean up 2")

    async def scenario() -> None:
        path = tmp_path / "j.db"
        async with Engine(path, drive=False) as client, Engine(path, workflows=[flow]) as engine:
            gate = Gate(engine, "memories", monkeypatch)
            await flow.options(id="x", engine=client).start()
            await gate.reached()
            await engine.run("x").cancel(reason="enough")
            gate.open()
            await stage.seen("clean up 2")
            await die(engine)
        monkeypatch.undo()
        assert effects == ["clean up 1"]
        stage.let("clean up 2")
        async with Engine(path, workflows=[flow]) as engine:
            assert (await ended(engine.run("x"), RunCancelled)).reason == "enough"
            assert await keys(engine.run("x")) == ["~cancel", "act#1", "slow#2"]

    asyncio.run(scenario())
    assert effects == ["clean up 1"]
    assert stage.began == ["clean up 2"] * 2


def test_a_run_that_waits_for_room_is_cancelled_at_once_and_never_has_a_body(stage: Stage) -> None:
    @workflow
    async def flow(name: str) -> None:
        try:
            await slow(name)
        finally:
            await act(f"clean up {name}")

    async def scenario() -> None:
        async with Engine(":memory:", max_resident=1):
            first = await flow.start("first")
            await stage.seen("first")
            second = await flow.start("second")
            await second.cancel(reason="no need")
            assert (await ended(second, RunCancelled)).reason == "no need"
            stage.let("first")
            await first

    asyncio.run(scenario())
    assert effects == ["clean up first"]
    assert stage.began == ["first"]


# Against the end -----------------------------------------------------------------------------------------------------


@workflow
async def one_step(how: str) -> str:
    await slow("only")
    if how == "fails":
        raise ValueError
    return "done"


@pytest.mark.parametrize("how", ["completes", "fails"])
def test_a_cancel_that_is_committed_before_the_end_wins_though_the_body_never_heard_of_it(
    tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch, stage: Stage
) -> None:
    async def scenario() -> None:
        path = tmp_path / "j.db"
        async with Engine(path) as engine, Engine(path, drive=False) as client:
            run = await one_step.options(engine=engine).start(how)
            await stage.seen("only")
            monkeypatch.setattr(session_of(engine).worker, "hear_news", deaf)
            await client.run(run.id).cancel(reason="enough", by="ada")
            stage.let("only")
            cancelled = await ended(run, RunCancelled)
            assert "by ada: enough" in str(cancelled)
            assert [letter async for letter in client.dead_letters()] == []

    asyncio.run(scenario())


Ask = Callable[[Run[Any]], Coroutine[Any, Any, object]]
ASK: dict[str, Ask] = {
    "cancel": lambda run: run.cancel(),
    "pause": lambda run: run.pause(),
    "terminate": lambda run: run.terminate(),
}


@pytest.mark.parametrize("request_", ASK)
def test_a_request_that_is_committed_after_the_end_is_refused_though_nobody_has_heard_of_that_end(
    request_: str, monkeypatch: pytest.MonkeyPatch, stage: Stage
) -> None:
    stage.let("only")

    async def scenario() -> None:
        async with Engine(":memory:") as engine:
            gate = Gate(engine, "end", monkeypatch)
            run = await one_step.start("completes")
            await gate.reached()
            with pytest.raises(WrongState, match="completed"):
                await ASK[request_](run)
            gate.open()
            assert await run.result(timeout=20) == "done"

    asyncio.run(scenario())


def test_a_pause_that_is_committed_just_before_the_end_does_not_hold_it_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: Stage
) -> None:
    async def scenario() -> None:
        path = tmp_path / "j.db"
        async with Engine(path) as engine, Engine(path, drive=False) as client:
            run = await one_step.options(engine=engine).start("completes")
            await stage.seen("only")
            monkeypatch.setattr(session_of(engine).worker, "hear_news", deaf)
            await client.run(run.id).pause()
            stage.let("only")
            assert await run.result(timeout=20) == "done"
            assert (await run.info()).waiting_for == ()

    asyncio.run(scenario())


@pytest.mark.parametrize("how", ["completes", "fails"])
@pytest.mark.parametrize(
    "request_",
    [
        "cancel",
        pytest.param(
            "terminate",
            marks=pytest.mark.contradicts("two", "crash", reason="its request comes behind what its engine writes"),
        ),
    ],
)
def test_a_request_that_is_committed_while_the_end_is_on_its_way_wins(
    tmp_path: Path, request_: str, how: str, monkeypatch: pytest.MonkeyPatch, stage: Stage
) -> None:
    stage.let("only")

    async def scenario() -> None:
        path = tmp_path / "j.db"
        async with Engine(path) as engine:
            gate = Gate(engine, "end", monkeypatch, before=True)
            run = await one_step.options(id="x").start(how)
            await gate.reached()
            await (run.cancel if request_ == "cancel" else run.terminate)(reason="enough")
            gate.open()
            assert (await ended(run, RunCancelled)).reason == "enough"
            await until(lambda: not session_of(engine).worker._residents.passes)
        async with Engine(path, workflows=[one_step]) as engine:
            await quiet(engine)
            assert (await ended(engine.run("x"), RunCancelled)).reason == "enough"
            assert await keys(engine.run("x")) == ["slow#1"]
            assert [letter async for letter in engine.dead_letters()] == []

    asyncio.run(scenario())
    assert stage.began == ["only"]


# Against what the body waits for -------------------------------------------------------------------------------------


@workflow
async def tells(what: str) -> str:
    """Waits for something, says in a step how that ended, and rests in another."""
    try:
        if what == "a timer":
            await sleep(100)
        elif what == "a message":
            await RacingPaid.wait()
        elif what == "a step":
            await slow("it")
        else:
            await child_flow.options(id="c")("end")
        await act("it came")
        await sleep(1e5)
    except asyncio.CancelledError:
        await slow("clean up")
        raise
    return "not reached"


NAMES = {"a timer": "sleep#1", "a message": "RacingPaid#1", "a step": "slow#1", "a child": "racing-child#1"}


async def happen(what: str, run: Run[Any], clock: ManualClock) -> None:
    """What it waits for."""
    if what == "a timer":
        clock.advance(100)
    elif what == "a message":
        await run.signal(RacingPaid(number=1))
    elif what == "a step":
        stages[0].let("it")
    else:
        clock.advance(1e5)


@pytest.mark.parametrize("turns", range(0, 24, 3))
@pytest.mark.parametrize("first", ["it", "the cancel"])
@pytest.mark.parametrize("what", NAMES)
def test_a_cancel_and_what_is_waited_for_come_in_one_order_and_a_replay_keeps_to_it(
    tmp_path: Path, what: str, first: str, turns: int, stage: Stage
) -> None:
    """Whichever comes first by so many turns of the loop, what is recorded is what the body has seen."""

    async def scenario() -> None:
        clock = ManualClock()
        path = tmp_path / "j.db"
        async with Engine(path, clock=clock, unload_after=1e6) as engine:
            run = await tells.options(id="x").start(what)
            if what == "a step":
                await stage.seen("it")
            else:
                await quiet(engine)
            requests: list[Coroutine[Any, Any, None]] = [happen(what, run, clock), run.cancel(reason="enough")]
            if first == "the cancel":
                requests.reverse()
            await requests[0]
            for _ in range(turns):
                await asyncio.sleep(0)
            await requests[1]
            await stage.seen("clean up")
            before = await keys(run)
            seen = list(effects)
            await die(engine)
        came = [key for key in before if key != "~cancel"]
        assert before[-1] == "~cancel"
        assert came in ([], [NAMES[what]], [NAMES[what], "act#1"])
        assert seen.count("it came") <= 1
        assert ("it came" in seen) >= (len(came) == 2)  # its outcome is dropped where the cancel came first
        stage.let("clean up", "it")
        async with Engine(path, clock=clock, workflows=[tells, child_flow]) as engine:
            assert (await ended(engine.run("x"), RunCancelled)).reason == "enough"
            after = await keys(engine.run("x"))
        assert after == [*before, "slow#2" if what == "a step" else "slow#1"]
        assert effects.count("it came") == seen.count("it came")

    asyncio.run(scenario())


@RESIDENT
def test_a_message_that_comes_after_the_cancel_is_left_and_one_that_comes_too_late_is_refused(
    unload_after: float, stage: Stage
) -> None:
    async def scenario() -> None:
        async with Engine(":memory:", unload_after=unload_after) as engine:
            run = await tells.start("a message")
            await quiet(engine)
            await run.cancel()
            await run.signal(RacingPaid(number=1))
            await stage.seen("clean up")
            assert [message.name for message in await run.messages()] == ["RacingPaid"]
            stage.let("clean up")
            await ended(run, RunCancelled)
            assert await keys(run) == ["~cancel", "slow#1"]
            with pytest.raises(SignalRejected, match="cancelled"):
                await run.signal(RacingPaid(number=2))

    asyncio.run(scenario())


def test_a_question_that_is_open_when_the_run_is_cancelled_takes_no_answer_any_more(stage: Stage) -> None:
    stage.let("clean up 2")

    async def scenario() -> None:
        async with Engine(":memory:") as engine:
            run = await tidies_up.start("a question")
            await quiet(engine)
            await run.cancel()
            await ended(run, RunCancelled)
            assert await run.questions() == []
            assert [question async for question in engine.questions()] == []
            with pytest.raises(SignalRejected):
                await run.answer(RacingReview, True)

    asyncio.run(scenario())


def test_a_deadline_and_a_cancel_in_one_moment_are_one_end() -> None:
    @workflow
    async def flow() -> None:
        try:
            await sleep(1e5)
        finally:
            await act("clean up")

    async def scenario() -> None:
        for cancel_first in (True, False):
            effects.clear()
            clock = ManualClock()
            async with Engine(":memory:", clock=clock) as engine:
                run = await flow.options(deadline=60).start()
                await quiet(engine)
                if cancel_first:
                    await run.cancel(reason="enough")
                clock.advance(60)
                if not cancel_first:
                    await quiet(engine)
                    with pytest.raises(WrongState, match="deadline"):
                        await run.cancel()
                await ended(run, RunCancelled if cancel_first else RunFailed)
                assert await keys(run) == ["~cancel", "act#1"]
            assert effects == ["clean up"]

    asyncio.run(scenario())


def test_children_are_asked_to_end_in_the_commit_that_asks_their_parent(tmp_path: Path) -> None:
    @workflow
    async def parent() -> None:
        await child_flow.options(id="child")("clean up")

    async def scenario() -> None:
        path = tmp_path / "j.db"
        async with Engine(path) as engine:
            await parent.options(id="x").start()
            await quiet(engine)
        async with Engine(path, drive=False) as client:
            await client.run("x").cancel(reason="enough", by="ada")
            with pytest.raises(WrongState, match="asked to end"):
                await client.run("child").pause()  # though nobody drives either
        async with Engine(path, workflows=[parent, child_flow]) as engine:
            for run_id in ("x", "child"):
                assert "by ada: enough" in str(await ended(engine.run(run_id), RunCancelled))

    asyncio.run(scenario())
    assert effects == ["clean up of the child"]


# Against each other --------------------------------------------------------------------------------------------------


def test_of_two_processes_that_cancel_a_run_at_once_the_first_stays(tmp_path: Path, stage: Stage) -> None:
    async def scenario() -> None:
        path = tmp_path / "j.db"
        async with Engine(path) as engine, Engine(path, drive=False) as one, Engine(path, drive=False) as two:
            run = await tidies_up.options(engine=engine).start("a sleep")
            await quiet(engine)
            await asyncio.gather(
                one.run(run.id).cancel(reason="enough", by="one"), two.run(run.id).cancel(reason="enough", by="two")
            )
            stage.let("clean up 2")
            cancelled = await ended(engine.run(run.id), RunCancelled)
            assert "by one: enough" in str(cancelled) or "by two: enough" in str(cancelled)
            assert await keys(run) == ONE_ORDER

    asyncio.run(scenario())
    assert effects == ["begin", "clean up 1"]


@pytest.mark.parametrize("place", ["a step", "a sleep", "a back-off"])
def test_of_all_requests_at_once_a_cancel_beats_a_pause_and_terminate_beats_both(place: str, stage: Stage) -> None:
    stage.let("clean up 2")

    async def scenario(order: list[str]) -> None:
        effects.clear()
        async with Engine(":memory:", clock=ManualClock()) as engine:
            run = await tidies_up.start(place)
            await at_its_place(engine, run, place)
            async with asyncio.timeout(20):
                await asyncio.gather(*(ASK[name](run) for name in order), return_exceptions=True)
            await ended(run, RunCancelled)
            assert effects[1:] == ([] if "terminate" in order else ["clean up 1"])
            await is_forgotten(engine)

    for order in (["cancel", "pause"], ["pause", "cancel"], ["pause", "cancel", "terminate"], ["terminate", "cancel"]):
        asyncio.run(scenario(order))


@pytest.mark.parametrize("seed", range(12))
def test_a_run_that_is_paused_and_resumed_at_random_does_everything_once_and_in_order(seed: int) -> None:
    chance = Random(seed)

    @workflow
    async def flow() -> int:
        for number in range(8):
            await act(str(number))
            if number % 2:
                await sleep(1)
        return 8

    async def scenario() -> None:
        clock = ManualClock()
        async with Engine(":memory:", clock=clock, unload_after=chance.choice([0, 1.5, 1e6])) as engine:
            run = await flow.start()
            for _ in range(60):
                with suppress(WrongState):
                    await (run.pause() if chance.random() < 0.5 else run.resume())
                for _ in range(chance.randrange(12)):
                    await asyncio.sleep(0)
                clock.advance(chance.choice([0, 0, 0.5, 1]))
            with suppress(WrongState):
                await run.resume()
            async with asyncio.timeout(20):
                while not (await run.info()).state.stopped:
                    await quiet(engine)
                    clock.advance(1)
            assert await run == 8
            await is_forgotten(engine)

    asyncio.run(scenario())
    assert effects == [str(number) for number in range(8)]


# While something is on its way to the journal ------------------------------------------------------------------------


@workflow
async def naps_then_slow() -> None:
    await sleep(100)
    await slow("slow")


@pytest.mark.contradicts("two", "crash", reason="its request is heard before the gate opens")
@pytest.mark.parametrize("request_", ASK)
def test_a_request_reaches_a_run_that_is_claimed_and_not_loaded_yet_before_its_next_step(
    request_: str, monkeypatch: pytest.MonkeyPatch, stage: Stage
) -> None:
    async def scenario() -> None:
        clock = ManualClock()
        async with Engine(":memory:", clock=clock, unload_after=0) as engine:
            run = await naps_then_slow.start()
            await quiet(engine)
            gate = Gate(engine, "memories", monkeypatch)
            clock.advance(100)
            await gate.reached()
            await ASK[request_](run)
            gate.open()
            if request_ == "pause":
                await becomes(run, State.PAUSED)
                await run.terminate()
            await ended(run, RunCancelled)
            await until(lambda: not session_of(engine).worker._residents.passes)

    asyncio.run(scenario())
    assert stage.began == []


@workflow
async def two_steps() -> str:
    await slow("only")
    return await act("next")


@pytest.mark.parametrize("request_", ASK)
def test_what_another_process_asks_of_a_run_that_is_claimed_and_not_loaded_yet_is_not_lost(
    tmp_path: Path, request_: str, monkeypatch: pytest.MonkeyPatch, stage: Stage
) -> None:
    """The news comes once, and must not have to wait for the end of the step that begins then."""

    async def scenario() -> None:
        path = tmp_path / "j.db"
        async with Engine(path, drive=False) as client, Engine(path, workflows=[two_steps]) as engine:
            gate = Gate(engine, "memories", monkeypatch)
            run = await two_steps.options(engine=client).start()
            await gate.reached()
            await ASK[request_](run)
            await session_of(engine)._hear()
            monkeypatch.setattr(session_of(engine).worker, "hear_news", deaf)
            gate.open()
            if request_ == "pause":
                await quiet_or_began(engine, stage)
                stage.let("only")
                await becomes(run, State.PAUSED)
                assert effects == []
            else:
                with pytest.raises(RunCancelled):
                    await engine.run(run.id).result(timeout=5)

    asyncio.run(scenario())


async def quiet_or_began(engine: Engine, stage: Stage) -> None:
    """Wait until the run has either begun its step or come to rest without."""
    await until(lambda: stage.began or not session_of(engine).worker.held())


@pytest.mark.contradicts("two", "crash", reason="its engine is deaf, and has to know of a resume")
def test_a_pause_that_a_run_has_not_heard_of_is_found_when_it_comes_to_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: Stage
) -> None:
    @workflow
    async def flow() -> str:
        await slow("slow")
        await sleep(100)
        return await act("next")

    async def scenario() -> None:
        clock, path = ManualClock(), tmp_path / "j.db"
        async with Engine(path, clock=clock) as engine, Engine(path, drive=False) as client:
            monkeypatch.setattr(session_of(engine).worker, "hear_news", deaf)
            run = await flow.options(engine=engine).start()
            await stage.seen("slow")
            await client.run(run.id).pause()
            stage.let("slow")
            await becomes(run, State.PAUSED)
            clock.advance(200)
            await quiet(engine)
            assert ((await run.info()).state, effects) == (State.PAUSED, [])
            await run.resume()
            assert await run.result(timeout=20) == "next"

    asyncio.run(scenario())


@pytest.mark.contradicts("two", "crash", reason="its pause is heard before the step ends")
def test_a_resume_while_the_pause_is_being_written_is_not_lost(monkeypatch: pytest.MonkeyPatch, stage: Stage) -> None:
    async def scenario() -> None:
        async with Engine(":memory:") as engine:
            run = await two_steps.start()
            await stage.seen("only")
            gate = Gate(engine, "suspend", monkeypatch)
            await run.pause()
            stage.let("only")
            await gate.reached()
            assert (await run.info()).state is State.PAUSED
            await run.resume()
            gate.open()
            assert await run.result(timeout=20) == "next"

    asyncio.run(scenario())


def test_a_pause_while_a_suspension_is_being_written_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    @workflow
    async def flow() -> str:
        await sleep(100)
        return await act("next")

    async def scenario() -> None:
        clock = ManualClock()
        async with Engine(":memory:", clock=clock) as engine:
            gate = Gate(engine, "suspend", monkeypatch)
            run = await flow.start()
            await gate.reached()
            await run.pause()
            gate.open()
            clock.advance(200)
            await quiet(engine)
            await run.info()
            await quiet(engine)
            assert ((await run.info()).state, effects) == (State.PAUSED, [])
            await run.resume()
            assert await run.result(timeout=20) == "next"

    asyncio.run(scenario())


@pytest.mark.contradicts("two", "crash", reason="its pause is heard before the gate opens")
def test_a_step_that_still_waits_for_an_earlier_commit_when_the_run_is_paused_does_not_begin(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    @workflow
    async def flow() -> str:
        await act("first")
        return await act("second")

    async def scenario() -> None:
        async with Engine(":memory:") as engine:
            gate = Gate(engine, "record", monkeypatch)
            run = await flow.start()
            await gate.reached()
            await run.pause()
            gate.open()
            await quiet(engine)
            assert ((await run.info()).state, effects) == (State.PAUSED, ["first"])
            await run.resume()
            assert await run.result(timeout=20) == "second"

    asyncio.run(scenario())


# What is kept in memory of what is driven elsewhere ------------------------------------------------------------------


@workflow
async def is_paid() -> int:
    return (await RacingPaid.wait()).number


@workflow
async def waits_for_paid() -> int:
    return await is_paid.run("paid").result()


@RESIDENT
def test_whoever_waits_for_a_run_that_slept_here_hears_of_its_end_in_another_process(
    tmp_path: Path, unload_after: float
) -> None:
    async def scenario() -> None:
        clock, path = ManualClock(), tmp_path / "j.db"
        async with (
            Engine(path, clock=clock, unload_after=unload_after) as here,
            Engine(path, clock=clock, workflows=[is_paid]) as there,
        ):
            run = await is_paid.options(engine=here).start()
            await quiet(here)
            waiting = asyncio.create_task(run.result(timeout=20))
            await until(lambda: len(here._front.listeners))
            await there.run(run.id).signal(RacingPaid(number=5))
            assert await there.run(run.id).result(timeout=20) == 5
            assert await waiting == 5

    asyncio.run(scenario())


@RESIDENT
def test_nothing_is_kept_of_runs_that_have_ended_wherever_that_was(tmp_path: Path, unload_after: float) -> None:
    async def scenario() -> None:
        clock, path = ManualClock(), tmp_path / "j.db"
        async with (
            Engine(path, clock=clock, unload_after=unload_after) as here,
            Engine(path, clock=clock, workflows=[is_paid]) as there,
        ):
            await is_paid.options(id="paid", engine=there).start()
            await quiet(there)
            run = await waits_for_paid.options(engine=here).start()
            await quiet(here)
            await there.run("paid").signal(RacingPaid(number=4))
            assert await run.result(timeout=20) == 4
            for engine in (here, there):
                await quiet(engine)
                await is_forgotten(engine)

    asyncio.run(scenario())


@RESIDENT
def test_nothing_is_kept_of_runs_that_have_ended_in_any_way(unload_after: float, stage: Stage) -> None:
    @workflow
    async def family(how: str) -> None:
        if how == "fails":
            await asyncio.gather(child_flow("x"), act("y"))
            raise ValueError
        if how == "catches":
            with suppress(StepFailed, RunCancelled):
                await child_flow.options(id=f"{how}-child")("caught")
        elif how == "gives-up":
            with suppress(TimeoutError):
                await asyncio.wait_for(is_paid.run("paid").result(), 10)
        else:
            await sleep(1e5)

    async def scenario() -> None:
        clock = ManualClock()
        async with Engine(":memory:", clock=clock, unload_after=unload_after) as engine:
            paid = await is_paid.options(id="paid").start()
            hows = ("fails", "catches", "gives-up", "sleeps", "cancelled", "terminated", "late")
            runs = {how: await family.options(id=how, deadline=2e5).start(how) for how in hows[:-1]}
            runs["late"] = await family.options(id="late", deadline=50).start("late")
            await quiet(engine)
            await runs["cancelled"].cancel()
            await runs["terminated"].terminate()
            await engine.run("catches-child").cancel()
            await paid.signal(RacingPaid(number=1)) if unload_after else None
            for seconds in (10, 50, 1e5):
                clock.advance(seconds)
                await quiet(engine)
            if not unload_after:
                await paid.signal(RacingPaid(number=1))
            await paid
            await until(lambda: not session_of(engine).worker._residents.passes)
            assert await engine.count(state=["pending", "running", "suspended", "paused"]) == 0
            await is_forgotten(engine)

    asyncio.run(scenario())


# What this process has only imported ---------------------------------------------------------------------------------


@workflow(name="racing-imported")
async def imported() -> str:
    paid = await RacingPaid.wait()
    return await act(f"paid {paid.number}")


@pytest.mark.parametrize("wakes", ["a message", "a message from elsewhere", "a resume", "a resume from elsewhere"])
def test_a_run_that_waits_without_a_deadline_goes_on_in_a_process_that_has_only_imported_its_workflow(
    tmp_path: Path, wakes: str
) -> None:
    path = tmp_path / "j.db"

    async def scenario() -> None:
        async with Engine(path) as engine:
            run = await imported.options(id="x").start()
            await quiet(engine)
            if "resume" in wakes:
                await run.pause()
                await run.signal(RacingPaid(number=1))
        async with Engine(path) as engine, Engine(path, drive=False) as client:
            await quiet(engine)
            run = (client if "elsewhere" in wakes else engine).run("x")
            if "resume" in wakes:
                await run.resume()
            else:
                await run.signal(RacingPaid(number=1))
            await session_of(engine)._hear()
            await engine.run("x").result(timeout=5)

    asyncio.run(scenario())
    assert effects == ["paid 1"]

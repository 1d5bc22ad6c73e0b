"""Pausing a run: what is in flight ends, nothing else begins, and nothing is lost until somebody lets it go on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from durable_sqlite import (
    Engine,
    Kind,
    Retry,
    Run,
    RunCancelled,
    RunFailed,
    RunInfo,
    Signal,
    State,
    Suspend,
    UnknownRun,
    WrongState,
    sleep,
    step,
    workflow,
)
from durable_sqlite._clock import to_datetime
from tests.support.clock import START, ManualClock
from tests.support.gates import session_of
from tests.support.restarts import die, quiet
from tests.support.stage import Stage, ended, until

RESIDENT = pytest.mark.parametrize("unload_after", [0.0, 1e6], ids=["unloaded", "resident"])
PAUSED_AT = to_datetime(START).isoformat(timespec="milliseconds")

effects: list[str] = []


@pytest.fixture(autouse=True)
def forget() -> None:
    effects.clear()


class PausingPaid(Signal):
    number: int


class PausingReview(Suspend[bool]):
    what: str


@step
async def act(what: str) -> str:
    effects.append(what)
    return what


@workflow
async def naps(seconds: float) -> str:
    await sleep(seconds)
    await act("first")
    return await act("second")


@workflow
async def is_paid() -> int:
    paid = await PausingPaid.wait()
    await act("took")
    return paid.number


@workflow
async def tidies_up() -> str:
    try:
        await act("work")
        await sleep(3600)
        return "in time"
    finally:
        await act("clean up")


async def hear(engine: Engine) -> None:
    """What an engine does as soon as it sees that somebody else has written."""
    await session_of(engine)._hear()
    await quiet(engine)


async def settled(run: Run[Any], engine: Engine) -> RunInfo:
    """The run once there is nothing to drive, which must not take for ever."""
    async with asyncio.timeout(10):
        await quiet(engine)
        await run.info()  # looks at the mail that began earlier have ended when this one has
        await quiet(engine)
    return await run.info()


async def comes(look: Callable[[], Awaitable[object]]) -> None:
    """Wait until a look at the journal finds what it is to find."""
    async with asyncio.timeout(20):
        while not await look():  # noqa: ASYNC110 - it may be another process that writes
            await asyncio.sleep(0.001)


async def keys(run: Run[Any]) -> list[str]:
    return [entry.key for entry in await run.history()]


async def attempts(run: Run[Any], number: int) -> bool:
    """Whether its one step has failed this often."""
    return len((await run.history())[0].failures) == number


# What ends and what does not begin ------------------------------------------------------------------------------------


@pytest.mark.contradicts("two", "crash", reason="its pause is heard at once")
def test_a_step_in_flight_ends_and_is_recorded_and_nothing_else_begins_until_resume() -> None:
    stage = Stage()

    @step
    async def slow() -> str:
        await stage.enter("slow")
        return "done"

    @workflow
    async def flow() -> str:
        await slow()
        return await act("next")

    async def scenario() -> None:
        async with Engine(":memory:", clock=ManualClock()) as engine:
            run = await flow.start()
            await stage.seen("slow")
            await run.pause(reason="the bank is down", by="ada")
            info = await run.info()
            assert info.state is State.RUNNING
            assert info.waiting_for == (
                f"what is in flight, to be paused then: pause was asked by ada at {PAUSED_AT} (the bank is down)",
            )
            stage.let("slow")
            info = await settled(run, engine)
            assert info.state is State.PAUSED
            assert await keys(run) == ["slow#1"]
            assert effects == []
            assert await run.resume() == ()
            assert await run == "next"
            assert (await run.info()).waiting_for == ()

    asyncio.run(scenario())
    assert (stage.began, effects) == (["slow"], ["next"])


@pytest.mark.contradicts("two", "crash", reason="its pause is to be heard before the step in flight ends")
def test_each_branch_ends_what_it_has_in_flight_and_begins_nothing_more() -> None:
    stage = Stage()

    @step
    async def slow(name: str) -> None:
        await stage.enter(name)

    async def branch(name: str) -> None:
        await slow(f"{name}1")
        await slow(f"{name}2")

    @workflow
    async def flow() -> None:
        async with asyncio.TaskGroup() as group:
            for name in "ab":
                group.create_task(branch(name))

    async def scenario() -> None:
        async with Engine(":memory:") as engine:
            run = await flow.start()
            await stage.seen("a1", "b1")
            await run.pause()
            stage.let("a1")
            await comes(run.history)
            assert (await run.info()).state is State.RUNNING
            stage.let("b1")
            assert (await settled(run, engine)).state is State.PAUSED
            assert stage.began == ["a1", "b1"]
            stage.let("a2", "b2")
            await run.resume()
            await run

    asyncio.run(scenario())
    assert stage.began == ["a1", "b1", "a2", "b2"]


@pytest.mark.contradicts("two", "crash", reason="its pause is heard at once")
def test_an_attempt_that_fails_while_it_is_in_flight_is_recorded_and_tried_again_only_after_resume() -> None:
    stage = Stage()

    @step(retry=Retry.fixed(0, max_attempts=2))
    async def shaky() -> None:
        effects.append("attempt")
        await stage.enter("shaky")
        if len(effects) == 1:
            raise ConnectionError

    @workflow
    async def flow() -> None:
        await shaky()

    async def scenario() -> None:
        async with Engine(":memory:") as engine:
            run = await flow.start()
            await stage.seen("shaky")
            await run.pause()
            stage.let("shaky")
            assert (await settled(run, engine)).state is State.PAUSED
            (trying,) = await run.history()
            assert (trying.outcome, len(trying.failures)) == (None, 1)
            assert effects == ["attempt"]
            await run.resume()
            await run

    asyncio.run(scenario())
    assert effects == ["attempt"] * 2


def test_a_body_that_has_nothing_more_to_begin_ends_though_it_was_to_be_paused() -> None:
    stage = Stage()

    @step
    async def slow() -> str:
        await stage.enter("slow")
        return "done"

    @workflow
    async def flow() -> str:
        return await slow()

    async def scenario() -> None:
        async with Engine(":memory:"):
            run = await flow.start()
            await stage.seen("slow")
            await run.pause()
            stage.let("slow")
            assert await run.result(timeout=20) == "done"
            assert (await run.info()).waiting_for == ()

    asyncio.run(scenario())


def test_a_run_that_nobody_drives_yet_is_paused_at_once_and_begins_after_resume(tmp_path: Path) -> None:
    @workflow
    async def flow() -> str:
        return await act("first")

    async def scenario() -> None:
        async with Engine(tmp_path / "j.db", drive=False, clock=ManualClock()) as client:
            run = await flow.options(id="x").start()
            await run.pause(by="ada")
            info = await run.info()
            assert info.state is State.PAUSED
            assert info.waiting_for == (f"resume: pause was asked by ada at {PAUSED_AT}",)
            assert await client.count(state="paused") == 1
        async with Engine(tmp_path / "j.db", workflows=[flow]) as engine:
            run = engine.run("x")
            assert (await settled(run, engine)).state is State.PAUSED
            assert effects == []
            await run.resume()
            assert await run == "first"

    asyncio.run(scenario())
    assert effects == ["first"]


def test_a_run_that_waits_for_room_is_paused_before_its_first_step() -> None:
    stage = Stage()

    @step
    async def slow(name: str) -> None:
        await stage.enter(name)

    @workflow
    async def flow(name: str) -> None:
        await slow(name)

    async def scenario() -> None:
        async with Engine(":memory:", max_resident=1) as engine:
            first = await flow.start("first")
            await stage.seen("first")
            second = await flow.start("second")
            await second.pause()
            stage.let("first")
            await first
            assert (await settled(second, engine)).state is State.PAUSED
            assert stage.began == ["first"]
            stage.let("second")
            await second.resume()
            await second

    asyncio.run(scenario())
    assert stage.began == ["first", "second"]


# Time ----------------------------------------------------------------------------------------------------------------


@RESIDENT
def test_a_timer_that_comes_due_meanwhile_fires_after_resume_and_not_before(unload_after: float) -> None:
    clock = ManualClock()

    async def scenario() -> None:
        async with Engine(":memory:", clock=clock, unload_after=unload_after) as engine:
            run = await naps.start(100)
            await quiet(engine)
            await run.pause()
            clock.advance(500)
            assert (await settled(run, engine)).state is State.PAUSED
            assert (await run.history(), effects) == ([], [])
            await run.resume()
            assert await run.result(timeout=20) == "second"
            slept = (await run.history())[0]
            assert (slept.kind, slept.recorded_at) == (Kind.SLEEP, to_datetime(START) + timedelta(seconds=500))

    asyncio.run(scenario())
    assert effects == ["first", "second"]


@RESIDENT
def test_a_run_that_goes_on_before_its_timer_is_due_waits_for_it_as_before(unload_after: float) -> None:
    clock = ManualClock()

    async def scenario() -> None:
        async with Engine(":memory:", clock=clock, unload_after=unload_after) as engine:
            run = await naps.start(100)
            await quiet(engine)
            waits = (await run.info()).waiting_for
            await run.pause()
            clock.advance(50)
            await quiet(engine)
            await run.resume()
            info = await settled(run, engine)
            assert (info.state, info.waiting_for) == (State.SUSPENDED, waits)
            clock.advance(49.999_999)
            assert (await settled(run, engine)).state is State.SUSPENDED
            clock.advance(0.000_001)
            assert await run.result(timeout=20) == "second"

    asyncio.run(scenario())


@pytest.mark.contradicts("two", "crash", reason="its pause is heard at once")
@pytest.mark.parametrize("delay", [0.5, 60.0])
@RESIDENT
def test_a_back_off_is_paused_and_keeps_its_count_and_what_is_left_of_the_wait(
    delay: float, unload_after: float
) -> None:
    clock = ManualClock()

    @step(retry=Retry.fixed(delay, max_attempts=3))
    async def shaky() -> None:
        effects.append("attempt")
        raise ConnectionError

    @workflow
    async def flow() -> None:
        await shaky()

    async def scenario() -> None:
        async with Engine(":memory:", clock=clock, unload_after=unload_after) as engine:
            run = await flow.start()
            await comes(run.history)
            await run.pause()
            clock.advance(delay / 2)
            assert (await settled(run, engine)).state is State.PAUSED
            await run.resume()
            await run.pause()
            clock.advance(delay)
            assert (await settled(run, engine)).state is State.PAUSED
            assert len(effects) == 1
            await run.resume()
            await comes(lambda: attempts(run, 2))
            clock.advance(delay)
            failed = await ended(run, RunFailed)
            assert failed.reason == "retries_exhausted"

    asyncio.run(scenario())
    assert effects == ["attempt"] * 3


@RESIDENT
def test_a_deadline_is_in_force_meanwhile(unload_after: float) -> None:
    clock = ManualClock()

    async def scenario() -> None:
        async with Engine(":memory:", clock=clock, unload_after=unload_after) as engine:
            run = await tidies_up.options(deadline=60).start()
            await quiet(engine)
            await run.pause()
            clock.advance(59.999_999)
            assert (await settled(run, engine)).state is State.PAUSED
            clock.advance(0.000_001)
            assert (await ended(run, RunFailed)).reason == "deadline"
            assert await keys(run) == ["act#1", "~cancel", "act#2"]

    asyncio.run(scenario())
    assert effects == ["work", "clean up"]


def test_a_deadline_that_passes_while_nobody_was_there_is_told_to_a_paused_run(tmp_path: Path) -> None:
    clock = ManualClock()

    async def scenario() -> None:
        async with Engine(tmp_path / "j.db", clock=clock) as engine:
            run = await tidies_up.options(id="x", deadline=60).start()
            await quiet(engine)
            await run.pause()
        clock.advance(3600)
        async with Engine(tmp_path / "j.db", clock=clock, workflows=[tidies_up]) as engine:
            assert (await ended(engine.run("x"), RunFailed)).reason == "deadline"

    asyncio.run(scenario())
    assert effects == ["work", "clean up"]


def test_a_deadline_ends_a_step_that_a_pause_still_waits_for_and_the_clean_up_is_not_held_up() -> None:
    clock, stage = ManualClock(), Stage()

    @step
    async def slow() -> None:
        await stage.enter("slow")

    @workflow
    async def flow() -> None:
        try:
            await slow()
        finally:
            await act("clean up")
            await sleep(10)
            await act("cleaned up")

    async def scenario() -> None:
        async with Engine(":memory:", clock=clock) as engine:
            run = await flow.options(deadline=60).start()
            await stage.seen("slow")
            await run.pause()
            clock.advance(60)
            await until(lambda: effects)
            info = await settled(run, engine)
            assert info.state is State.SUSPENDED
            assert info.waiting_for[0].startswith("sleep (sleep#1) since ")
            clock.advance(10)
            assert (await ended(run, RunFailed)).reason == "deadline"
            assert await keys(run) == ["~cancel", "act#1", "sleep#1", "act#2"]

    asyncio.run(scenario())
    assert effects == ["clean up", "cleaned up"]


def test_a_run_that_never_began_and_is_paused_fails_at_its_deadline_without_a_step(tmp_path: Path) -> None:
    clock = ManualClock()

    @workflow
    async def flow() -> None:
        await act("never")

    async def scenario() -> None:
        async with Engine(tmp_path / "j.db", clock=clock, drive=False):
            run = await flow.options(id="x", deadline=60).start()
            await run.pause()
        async with Engine(tmp_path / "j.db", clock=clock, workflows=[flow]) as engine:
            await quiet(engine)
            clock.advance(60)
            assert (await ended(engine.run("x"), RunFailed)).reason == "deadline"

    asyncio.run(scenario())
    assert effects == []


def test_a_run_that_tidies_up_after_its_deadline_and_is_asked_to_pause_comes_to_its_end() -> None:
    clock, stage = ManualClock(), Stage()

    @step
    async def clean_slowly() -> None:
        await stage.enter("clean slowly")

    @workflow
    async def flow() -> None:
        try:
            await sleep(3600)
        finally:
            await clean_slowly()
            await sleep(10)
            await act("cleaned up")

    async def scenario() -> None:
        async with Engine(":memory:", clock=clock) as engine:
            run = await flow.options(deadline=60).start()
            await quiet(engine)
            clock.advance(60)
            await stage.seen("clean slowly")
            with pytest.raises(WrongState, match="told to end, as its deadline has passed"):
                await run.pause()
            stage.let("clean slowly")
            assert (await settled(run, engine)).state is State.SUSPENDED
            assert await keys(run) == ["~cancel", "clean_slowly#1"]
            clock.advance(10)
            assert (await ended(run, RunFailed)).reason == "deadline"

    asyncio.run(scenario())
    assert effects == ["cleaned up"]


# Messages and answers ------------------------------------------------------------------------------------------------


@RESIDENT
def test_messages_are_kept_meanwhile_and_taken_after_resume_in_order(unload_after: float) -> None:
    @workflow
    async def flow() -> list[int]:
        return [(await PausingPaid.wait()).number for _ in range(3)]

    async def scenario() -> None:
        async with Engine(":memory:", unload_after=unload_after) as engine:
            run = await flow.start()
            await run.signal(PausingPaid(number=0))
            await quiet(engine)
            await run.pause()
            for number in (1, 2):
                await run.signal(PausingPaid(number=number))
            assert (await settled(run, engine)).state is State.PAUSED
            assert [message.message["number"] for message in await run.messages()] == [1, 2]
            await run.resume()
            assert await run.result(timeout=20) == [0, 1, 2]

    asyncio.run(scenario())


@RESIDENT
def test_an_answer_is_kept_meanwhile_and_given_after_resume(unload_after: float) -> None:
    @workflow
    async def flow() -> bool:
        return await PausingReview(what="a large order")

    async def scenario() -> None:
        async with Engine(":memory:", unload_after=unload_after) as engine:
            run = await flow.start()
            await quiet(engine)
            await run.pause()
            assert [question.key for question in await run.questions()] == ["PausingReview#1"]
            await run.answer(PausingReview, True, by="ada")
            assert (await settled(run, engine)).state is State.PAUSED
            assert await run.questions() == []
            await run.resume()
            assert await run.result(timeout=20) is True
            assert (await run.history())[0].decided_by == "ada"

    asyncio.run(scenario())


@pytest.mark.parametrize(("sent_after", "taken"), [(10.0, 7), (10.000_001, None)])
@RESIDENT
def test_what_was_in_time_for_a_wait_is_told_after_resume_by_when_it_was_sent(
    sent_after: float, taken: int | None, unload_after: float
) -> None:
    clock = ManualClock()

    @workflow
    async def flow() -> int | None:
        paid = await PausingPaid.wait(timeout=10)
        return None if paid is None else paid.number

    async def scenario() -> None:
        async with Engine(":memory:", clock=clock, unload_after=unload_after) as engine:
            run = await flow.start()
            await quiet(engine)
            await run.pause()
            clock.advance(sent_after)
            await run.signal(PausingPaid(number=7))
            clock.advance(100)
            assert (await settled(run, engine)).state is State.PAUSED
            await run.resume()
            assert await run.result(timeout=20) == taken
            assert len(await run.messages()) == (taken is None)

    asyncio.run(scenario())


@RESIDENT
def test_the_end_of_a_run_that_a_paused_one_waits_for_is_told_after_resume(unload_after: float) -> None:
    @workflow
    async def flow() -> int:
        return await is_paid.run("other").result()

    async def scenario() -> None:
        async with Engine(":memory:", unload_after=unload_after) as engine:
            other = await is_paid.options(id="other").start()
            run = await flow.start()
            await quiet(engine)
            await run.pause()
            await other.signal(PausingPaid(number=4))
            assert await other == 4
            assert (await settled(run, engine)).state is State.PAUSED
            await run.resume()
            assert await run.result(timeout=20) == 4

    asyncio.run(scenario())


# Cancel beats pause --------------------------------------------------------------------------------------------------


@RESIDENT
def test_a_paused_run_that_is_cancelled_cleans_up_with_steps_and_ends(unload_after: float) -> None:
    async def scenario() -> None:
        async with Engine(":memory:", unload_after=unload_after) as engine:
            run = await tidies_up.start()
            await quiet(engine)
            await run.pause(reason="wait", by="ada")
            await quiet(engine)
            await run.cancel(reason="enough", by="bob")
            cancelled = await ended(run, RunCancelled)
            assert "by bob: enough" in str(cancelled)
            assert await keys(run) == ["act#1", "~cancel", "act#2"]

    asyncio.run(scenario())
    assert effects == ["work", "clean up"]


def test_a_cancel_does_not_wait_for_the_step_that_a_pause_waits_for() -> None:
    stage = Stage()

    @step
    async def slow() -> None:
        await stage.enter("slow")

    @workflow
    async def flow() -> None:
        try:
            await slow()
        finally:
            await act("clean up")

    async def scenario() -> None:
        async with Engine(":memory:"):
            run = await flow.start()
            await stage.seen("slow")
            await run.pause()
            await run.cancel()
            await ended(run, RunCancelled)
            assert await keys(run) == ["~cancel", "act#1"]

    asyncio.run(scenario())


def test_a_paused_run_that_never_began_is_cancelled_without_a_pass(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Engine(tmp_path / "j.db", drive=False):
            run = await naps.start(1)
            await run.pause()
            await run.cancel(reason="no need")
            assert (await ended(run, RunCancelled)).reason == "no need"

    asyncio.run(scenario())


def test_a_run_that_was_asked_to_end_cannot_be_paused(tmp_path: Path) -> None:
    stage = Stage()

    @step
    async def clean() -> None:
        await stage.enter("clean")

    @workflow
    async def flow() -> None:
        try:
            await sleep(3600)
        finally:
            await clean()

    async def scenario() -> None:
        async with Engine(tmp_path / "j.db") as engine:
            run = await flow.start()
            await quiet(engine)
            await run.cancel()
            with pytest.raises(WrongState, match="asked to end") as refused:
                await run.pause()
            assert refused.value.run_id == run.id
            await stage.seen("clean")
            with pytest.raises(WrongState, match="asked to end"):
                await run.pause()
            stage.let("clean")
            await ended(run, RunCancelled)

    asyncio.run(scenario())


# Who may ask what ----------------------------------------------------------------------------------------------------


def test_a_run_that_has_stopped_cannot_be_paused_and_the_refusal_says_how_it_has() -> None:
    @workflow
    async def ends() -> None:
        return

    @workflow
    async def fails() -> None:
        raise ValueError

    @workflow
    async def strays() -> None:
        await asyncio.get_running_loop().create_future()

    async def scenario() -> None:
        async with Engine(":memory:") as engine:
            runs = [await ends.start(), await fails.start(), await strays.start(), await naps.start(100)]
            await quiet(engine)
            await runs[3].cancel()
            await quiet(engine)
            for run, state in zip(runs, ("completed", "failed", "parked", "cancelled"), strict=True):
                with pytest.raises(WrongState, match=state) as refused:
                    await run.pause()
                assert refused.value.run_id == run.id
                assert (await run.info()).waiting_for == ()
            with pytest.raises(UnknownRun):
                await engine.run("nobody").pause()

    asyncio.run(scenario())


def test_asking_twice_is_harmless_and_the_first_reason_author_and_time_stay() -> None:
    clock = ManualClock()

    async def scenario() -> None:
        async with Engine(":memory:", clock=clock) as engine:
            run = await naps.start(100)
            await quiet(engine)
            await run.pause(reason="first", by="ada")
            clock.advance(1)
            await run.pause(reason="second", by="bob")
            waits = (await run.info()).waiting_for
            assert waits == (f"resume: pause was asked by ada at {PAUSED_AT} (first)",)
            await run.resume()  # once is enough
            assert (await settled(run, engine)).state is not State.PAUSED

    asyncio.run(scenario())


def test_a_run_that_is_not_paused_cannot_be_resumed() -> None:
    stage = Stage()

    @step
    async def slow() -> None:
        await stage.enter("slow")

    @workflow
    async def flow() -> None:
        await slow()

    async def scenario() -> None:
        async with Engine(":memory:") as engine:
            run = await flow.start()
            await stage.seen("slow")
            with pytest.raises(WrongState, match="running"):
                await run.resume()
            stage.let("slow")
            await run
            with pytest.raises(WrongState, match="completed"):
                await run.resume()
            asleep = await naps.start(100)
            await quiet(engine)
            with pytest.raises(WrongState, match="suspended"):
                await asleep.resume()
            with pytest.raises(UnknownRun):
                await engine.run("nobody").resume()

    asyncio.run(scenario())


def test_a_run_with_a_step_in_flight_that_is_to_be_paused_and_then_is_not_goes_on_as_if_nothing_had_been() -> None:
    stage = Stage()

    @step
    async def slow() -> None:
        await stage.enter("slow")

    @workflow
    async def flow() -> str:
        await slow()
        return await act("next")

    async def scenario() -> None:
        async with Engine(":memory:"):
            run = await flow.start()
            await stage.seen("slow")
            await run.pause()
            assert await run.resume() == ()
            assert (await run.info()).waiting_for == ()
            with pytest.raises(WrongState, match="running"):
                await run.resume()
            stage.let("slow")
            assert await run.result(timeout=20) == "next"
            assert await keys(run) == ["slow#1", "act#1"]

    asyncio.run(scenario())
    assert stage.began == ["slow"]


def test_of_two_who_resume_a_paused_run_at_once_one_is_told_that_the_other_was_faster() -> None:
    async def scenario() -> None:
        async with Engine(":memory:", clock=ManualClock()) as engine:
            run = await naps.start(0.5)
            await run.pause()
            await quiet(engine)
            both = await asyncio.gather(run.resume(), run.resume(), return_exceptions=True)
            assert sorted(isinstance(one, WrongState) for one in both) == [False, True]

    asyncio.run(scenario())


@pytest.mark.contradicts("two", "crash", reason="it resumes in an engine that knows the code")
def test_a_paused_run_goes_on_as_it_is_with_no_step_tried_again_and_no_other_input() -> None:
    async def scenario() -> None:
        async with Engine(":memory:", clock=ManualClock()) as engine:
            run = await tidies_up.start()
            await quiet(engine)
            await run.pause()
            with pytest.raises(WrongState):
                await run.resume(retry=["act#1"])
            with pytest.raises(WrongState):
                await run.resume(input={})
            assert (await settled(run, engine)).state is State.PAUSED

    asyncio.run(scenario())
    assert effects == ["work"]


# Who hears of it -----------------------------------------------------------------------------------------------------


@RESIDENT
def test_children_are_paused_with_their_parent_and_go_on_with_it_but_not_detached_ones(unload_after: float) -> None:
    clock = ManualClock()

    @workflow
    async def parent() -> str:
        await naps.options(id="free", detached=True).start(100)
        return await naps.options(id="child")(100)

    async def scenario() -> None:
        async with Engine(":memory:", clock=clock, unload_after=unload_after) as engine:
            run = await parent.start()
            child, free = engine.run("child"), engine.run("free")
            await quiet(engine)
            await run.pause(reason="all of it", by="ada")
            clock.advance(100)
            assert (await settled(run, engine)).state is State.PAUSED
            assert (await child.info()).waiting_for == (f"resume: pause was asked by ada at {PAUSED_AT} (all of it)",)
            assert await free.result(timeout=20) == "second"
            assert effects == ["first", "second"]
            await run.resume()
            assert await run.result(timeout=20) == "second"

    asyncio.run(scenario())


def test_a_child_alone_is_paused_and_its_parent_goes_on_waiting() -> None:
    clock = ManualClock()

    @workflow
    async def parent() -> str:
        return await naps.options(id="child")(100)

    async def scenario() -> None:
        async with Engine(":memory:", clock=clock) as engine:
            run = await parent.start()
            await quiet(engine)
            await engine.run("child").pause()
            clock.advance(100)
            info = await settled(run, engine)
            assert info.state is State.SUSPENDED
            assert info.waiting_for[0].startswith("child run child of naps (naps#1) since ")
            await engine.run("child").resume()
            assert await run.result(timeout=20) == "second"

    asyncio.run(scenario())


@pytest.mark.contradicts("two", "crash", reason="the engine that starts its run is the one that drives it")
@pytest.mark.parametrize("driver", ["client", "worker"])
def test_another_engine_on_the_file_pauses_a_step_in_flight(tmp_path: Path, driver: str) -> None:
    stage = Stage()

    @step
    async def slow(name: str) -> None:
        await stage.enter(name)

    @workflow
    async def flow() -> None:
        for name in ("one", "two"):
            await slow(name)

    async def scenario() -> None:
        path, drives = tmp_path / "j.db", driver == "worker"
        async with Engine(path) as engine, Engine(path, drive=drives, workflows=[flow]) as other:
            run = await flow.options(engine=engine).start()
            await stage.seen("one")
            await other.run(run.id).pause(by="ada")
            await session_of(engine)._hear()
            stage.let("one")
            assert (await settled(run, engine)).state is State.PAUSED
            assert stage.began == ["one"]
            stage.let("two")
            await other.run(run.id).resume()
            await other.run(run.id).result(timeout=20)

    asyncio.run(scenario())
    assert stage.began == ["one", "two"]


@RESIDENT
def test_a_timer_does_not_fire_in_a_run_that_another_engine_has_paused(tmp_path: Path, unload_after: float) -> None:
    clock = ManualClock()

    async def scenario() -> None:
        path = tmp_path / "j.db"
        async with (
            Engine(path, clock=clock, unload_after=unload_after) as engine,
            Engine(path, clock=clock, drive=False) as client,
        ):
            run = await naps.options(engine=engine).start(100)
            await quiet(engine)
            await client.run(run.id).pause()
            await hear(engine)
            clock.advance(200)
            assert (await settled(run, engine)).state is State.PAUSED
            assert (effects, await run.history()) == ([], [])
            await client.run(run.id).resume()
            await hear(engine)
            assert await run.result(timeout=20) == "second"

    asyncio.run(scenario())


@RESIDENT
def test_a_message_is_not_taken_by_a_run_that_another_engine_has_paused(tmp_path: Path, unload_after: float) -> None:
    clock = ManualClock()

    async def scenario() -> None:
        path = tmp_path / "j.db"
        async with (
            Engine(path, clock=clock, unload_after=unload_after) as engine,
            Engine(path, clock=clock, drive=False) as client,
        ):
            run = await is_paid.options(engine=engine).start()
            await quiet(engine)
            await client.run(run.id).pause()
            await hear(engine)
            await run.signal(PausingPaid(number=9))
            assert (await settled(run, engine)).state is State.PAUSED
            assert (effects, await run.history()) == ([], [])
            await client.run(run.id).resume()
            await hear(engine)
            assert await run.result(timeout=20) == 9

    asyncio.run(scenario())


# Restarts ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ends", ["killed", "closed"])
@pytest.mark.parametrize("asked", ["in flight", "at rest", "then unloaded"])
def test_a_pause_holds_over_a_restart_and_a_crash(tmp_path: Path, ends: str, asked: str) -> None:
    clock, stage = ManualClock(), Stage()

    @step
    async def slow() -> None:
        await stage.enter("slow")

    @workflow
    async def flow() -> str:
        await act("first")
        if asked == "in flight":
            await slow()
        else:
            await sleep(100)
        return await act("next")

    async def scenario() -> None:
        async with Engine(tmp_path / "j.db", clock=clock, unload_after=5) as engine:
            run = await flow.options(id="x").start()
            if asked == "in flight":
                await stage.seen("slow")
            else:
                await quiet(engine)
            await run.pause(reason="why", by="ada")
            if asked == "then unloaded":
                await quiet(engine)
                clock.advance(5)
                await quiet(engine)
            if ends == "killed":
                await die(engine)
        stage.let("slow")
        clock.advance(1000)
        for _ in range(2):  # also where it is not resumed the first time
            async with Engine(tmp_path / "j.db", clock=clock, workflows=[flow]) as engine:
                info = await settled(engine.run("x"), engine)
                assert info.state is State.PAUSED
                assert info.waiting_for == (f"resume: pause was asked by ada at {PAUSED_AT} (why)",)
                assert effects == ["first"]
        async with Engine(tmp_path / "j.db", clock=clock, workflows=[flow]) as engine:
            await engine.run("x").resume()
            assert await engine.run("x").result(timeout=20) == "next"

    asyncio.run(scenario())
    assert effects == ["first", "next"]
    assert stage.began == (["slow"] * 2 if asked == "in flight" else [])


def test_a_pause_that_another_process_asks_for_is_not_lost_with_the_owner(tmp_path: Path) -> None:
    stage = Stage()

    @step
    async def slow() -> None:
        await stage.enter("slow")

    @workflow
    async def flow() -> str:
        await slow()
        return await act("next")

    async def scenario() -> None:
        async with Engine(tmp_path / "j.db") as engine:
            run = await flow.options(id="x").start()
            await stage.seen("slow")
            async with Engine(tmp_path / "j.db", drive=False) as client:
                await client.run(run.id).pause(by="ada")
            await die(engine)
        stage.let("slow")
        async with Engine(tmp_path / "j.db", workflows=[flow]) as engine:
            run = engine.run("x")
            assert (await settled(run, engine)).state is State.PAUSED
            assert stage.began == ["slow"]
            await run.resume()
            assert await run.result(timeout=20) == "next"

    asyncio.run(scenario())
    assert stage.began == ["slow"] * 2


def test_a_resume_that_was_committed_before_a_kill_is_in_force_after_it(tmp_path: Path) -> None:
    clock = ManualClock()

    async def scenario() -> None:
        async with Engine(tmp_path / "j.db", clock=clock) as engine:
            run = await naps.options(id="x").start(100)
            await quiet(engine)
            await run.pause()
        async with Engine(tmp_path / "j.db", clock=clock, drive=False) as client:
            await client.run("x").resume()
            await die(client)
        clock.advance(100)
        async with Engine(tmp_path / "j.db", clock=clock, workflows=[naps]) as engine:
            assert await engine.run("x").result(timeout=20) == "second"

    asyncio.run(scenario())


@pytest.mark.contradicts("two", "crash", reason="its pause is to be heard before the step in flight ends")
@pytest.mark.contradicts("unload", reason="it counts what is in memory")
def test_a_paused_run_leaves_memory_like_any_other_and_comes_back_where_it_stood() -> None:
    clock, stage = ManualClock(), Stage()

    @step
    async def slow() -> None:
        await stage.enter("slow")

    @workflow
    async def flow() -> str:
        await slow()
        return await act("next")

    async def scenario() -> None:
        async with Engine(":memory:", clock=clock, unload_after=5) as engine:
            run = await flow.start()
            await stage.seen("slow")
            await run.pause()
            stage.let("slow")
            await quiet(engine)
            assert session_of(engine).worker._residents.passes
            clock.advance(5)
            await quiet(engine)
            assert not session_of(engine).worker._residents.passes
            await run.resume()
            assert await run.result(timeout=20) == "next"

    asyncio.run(scenario())
    assert stage.began == ["slow"]

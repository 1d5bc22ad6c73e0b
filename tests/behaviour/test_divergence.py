"""Changed code meets a journal: what passes, what is refused before any later effect, and how it goes on."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from durable_sqlite import (
    Engine,
    ReplayDiverged,
    RunParked,
    State,
    SuspendedStepConflict,
    Workflow,
    WrongState,
    sleep,
    step,
    workflow,
)
from durable_sqlite._clock import SystemClock
from tests.support.clock import ManualClock
from tests.support.restarts import die, quiet
from tests.support.stage import ended

effects: list[str] = []


@step
async def act(what: str) -> str:
    effects.append(what)
    return what.upper()


@step
async def act_too(what: str) -> str:
    effects.append(f"too {what}")
    return what


@step
async def stop_here() -> None:
    """Where the old code stands at the restart: it never ends there."""
    if not mended:
        await asyncio.Event().wait()


mended: list[bool] = []

Flow = Workflow[[], Any]
Body = Callable[[], Any]


@pytest.fixture(autouse=True)
def forget() -> None:
    effects.clear()
    mended.clear()


def flow(body: Body) -> Flow:
    """The same workflow with another body."""

    @workflow(name="flow")
    async def changing() -> Any:
        return await body()

    return changing


async def old() -> None:
    await act("one")
    await act("two")
    await stop_here()


async def begin(path: Path, body: Body = old, *, recorded: int = 2) -> None:
    """Drive the old code until it stands, then die."""
    await _until_it_stands(path, body, recorded)
    gc.collect()  # the old code's steps are gone, as from a process that has ended
    mended.append(True)


async def _until_it_stands(path: Path, body: Body, recorded: int) -> None:
    async with Engine(path) as engine:
        run = await flow(body).options(id="x").start()
        async with asyncio.timeout(20):
            while len(await run.history()) < recorded:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
        await die(engine)


async def go_on(path: Path, body: Body) -> Any:
    async with Engine(path, workflows=[flow(body)]) as engine:
        return await engine.run("x").result(timeout=20)


async def parks(path: Path, body: Body, error: type[BaseException] = ReplayDiverged) -> str:
    """The message with which the changed code is parked, after which no effect has happened."""
    before = list(effects)
    async with Engine(path, workflows=[flow(body)]) as engine:
        parked = await ended(engine.run("x"), RunParked)
        assert parked.reason == "diverged"
        assert parked.record is not None
        assert parked.record.is_a(error)
        info = await engine.run("x").info()
        assert (info.state, info.reason) == (State.PARKED, "diverged")
        await quiet(engine)
    assert effects == before
    return parked.record.message


async def resume(path: Path, body: Body, *, accept_changes: bool = False) -> Any:
    async with Engine(path, workflows=[flow(body)]) as engine:
        run = engine.run("x")
        await run.resume(accept_changes=accept_changes)
        return await run.result(timeout=20)


def test_steps_of_other_names_may_be_inserted_and_reordered(tmp_path: Path) -> None:
    async def both() -> None:
        await act("one")
        await act_too("two")
        await stop_here()

    async def new() -> list[str]:
        second = await act_too("two")
        await act_too("inserted")
        first = await act("one")
        return [first, second]

    async def scenario() -> None:
        await begin(tmp_path / "j.db", both)
        assert await go_on(tmp_path / "j.db", new) == ["ONE", "two"]

    asyncio.run(scenario())
    assert effects == ["one", "too two", "too inserted"]


def test_a_changed_argument_parks_the_run_before_any_later_effect(tmp_path: Path) -> None:
    async def gathered() -> list[str]:
        return list(await asyncio.gather(act("one!"), act_too("beside")))

    async def right() -> str:
        return await act("one") + await act("two")

    async def scenario() -> None:
        path = tmp_path / "j.db"
        await begin(path)
        message = await parks(path, gathered)
        assert "run x, act#1" in message
        assert "arguments" in message
        assert "accept_changes=True" in message
        assert await resume(path, right) == "ONETWO"

    asyncio.run(scenario())
    assert effects == ["one", "two"]


def test_a_changed_argument_can_be_accepted_for_the_run(tmp_path: Path) -> None:
    async def new() -> str:
        return await act("one!") + await act("two") + await act("three")

    async def scenario() -> None:
        path = tmp_path / "j.db"
        await begin(path)
        await parks(path, new)
        assert await resume(path, new, accept_changes=True) == "ONETWOTHREE"

    asyncio.run(scenario())
    assert effects == ["one", "two", "three"]


def test_what_was_accepted_once_is_not_accepted_again(tmp_path: Path) -> None:
    async def new() -> None:
        await act("one!")
        await act("two")
        await sleep(3600)

    async def newer() -> None:
        await act("one!!")
        await act("two")
        await sleep(3600)

    async def scenario() -> None:
        path = tmp_path / "j.db"
        await begin(path)
        await parks(path, new)
        clock = ManualClock(SystemClock().now())
        async with Engine(path, workflows=[flow(new)], clock=clock) as engine:
            await engine.run("x").resume(accept_changes=True)
            await quiet(engine)
            assert (await engine.run("x").info()).state is State.SUSPENDED
        clock.advance(7200)
        async with Engine(path, workflows=[flow(newer)], clock=clock) as engine:
            assert (await ended(engine.run("x"), RunParked)).reason == "diverged"

    asyncio.run(scenario())


def test_a_removed_step_of_the_same_name_is_noticed(tmp_path: Path) -> None:
    async def new() -> str:
        return await act("two")

    async def scenario() -> None:
        path = tmp_path / "j.db"
        await begin(path)
        assert "act#1" in await parks(path, new)
        assert await resume(path, new, accept_changes=True) == "ONE"  # a person said that this is what act#1 gave

    asyncio.run(scenario())
    assert effects == ["one", "two"]


def test_a_recorded_call_that_was_moved_is_not_run_again_unasked(tmp_path: Path) -> None:
    async def branch() -> str:
        return await act("two")

    async def new() -> str:
        return await act("one") + await asyncio.create_task(branch())

    async def scenario() -> None:
        path = tmp_path / "j.db"
        await begin(path)
        message = await parks(path, new)
        assert "0/act#1" in message
        assert "act#2" in message
        assert await resume(path, new, accept_changes=True) == "ONETWO"
        async with Engine(path) as engine:
            history = await engine.run("x").history()
            assert [(entry.key, entry.removed) for entry in history] == [
                ("act#1", False),
                ("act#2", True),
                ("0/act#1", False),
            ]

    asyncio.run(scenario())
    assert effects == ["one", "two", "two"]


def recording_a_step_that_goes(path: Path) -> None:
    """Record an outcome of a step that no longer exists afterwards."""

    @step(name="levy")
    async def levy(cents: int) -> int:
        effects.append("levy")
        return cents

    async def with_it() -> None:
        await levy(5)
        await stop_here()

    asyncio.run(begin(path, with_it, recorded=1))


def test_a_renamed_step_is_noticed_before_it_runs_again(tmp_path: Path) -> None:
    path = tmp_path / "j.db"
    recording_a_step_that_goes(path)
    gc.collect()

    @step
    async def levy_card(cents: int) -> int:
        effects.append("levy_card")
        return cents

    async def renamed() -> int:
        return await levy_card(5)

    async def scenario() -> None:
        message = await parks(path, renamed)
        assert "levy#1" in message
        assert '@step(name="levy")' in message

    asyncio.run(scenario())
    assert effects == ["levy"]

    @step(name="levy")
    async def kept(cents: int) -> int:
        effects.append("kept")
        return cents

    async def named() -> int:
        return await kept(5)

    assert asyncio.run(resume(path, named)) == 5
    assert effects == ["levy"]


@pytest.mark.contradicts("two", "crash", reason="a definition is to be gone, and the engine that drives holds it")
def test_the_removal_of_a_step_can_be_accepted_for_the_run(tmp_path: Path) -> None:
    path = tmp_path / "j.db"
    recording_a_step_that_goes(path)
    gc.collect()

    async def without() -> str:
        return await act("instead")

    async def scenario() -> None:
        await parks(path, without)
        assert await resume(path, without, accept_changes=True) == "INSTEAD"

    asyncio.run(scenario())
    assert effects == ["levy", "instead"]


@pytest.mark.contradicts("two", "crash", reason="a definition is to be gone, and the engine that drives holds it")
def test_an_accepted_removal_holds_after_a_wait_too(tmp_path: Path) -> None:
    path = tmp_path / "j.db"
    recording_a_step_that_goes(path)
    gc.collect()

    async def without() -> str:
        await act_too("before the wait")
        return await act("after the wait")

    async def waiting_first() -> str:
        await sleep(60)
        return await act("after the wait")

    async def scenario() -> None:
        await parks(path, without)
        clock = ManualClock(SystemClock().now())
        async with Engine(path, workflows=[flow(waiting_first)], clock=clock) as engine:
            run = engine.run("x")
            await run.resume(accept_changes=True)
            await quiet(engine)
            assert (await run.info()).state is State.SUSPENDED
            clock.advance(61)
            assert await run == "AFTER THE WAIT"
            assert [entry.key for entry in await run.history() if entry.removed] == ["levy#1"]

    asyncio.run(scenario())
    assert effects == ["levy", "after the wait"]


def test_a_step_that_still_exists_may_be_called_no_longer(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def both() -> None:
        await act("one")
        await act_too("two")
        await stop_here()

    async def new() -> str:
        return await act("one") + await act("three")

    async def scenario() -> None:
        await begin(tmp_path / "j.db", both)
        assert await go_on(tmp_path / "j.db", new) == "ONETHREE"

    asyncio.run(scenario())
    assert "act_too#1" in caplog.text  # said, since the outcome is nobody's now


def test_a_wait_that_became_a_step_or_the_reverse_is_a_conflict_that_nobody_can_accept(tmp_path: Path) -> None:
    @step(name="sleep")
    async def sleep_step() -> None:
        effects.append("sleep step")

    async def waiting() -> None:
        await sleep(0)
        await stop_here()

    async def acting() -> None:
        await sleep_step()
        await act("later")

    async def scenario() -> None:
        path = tmp_path / "j.db"
        await begin(path, waiting, recorded=1)
        assert "sleep#1" in await parks(path, acting, SuspendedStepConflict)
        async with Engine(path, workflows=[flow(acting)]) as engine:
            await engine.run("x").resume(accept_changes=True)
            assert (await ended(engine.run("x"), RunParked)).reason == "diverged"
        other = tmp_path / "k.db"
        mended.clear()

        async def before() -> None:
            await sleep_step()
            await stop_here()

        await begin(other, before, recorded=1)
        await parks(other, waiting, SuspendedStepConflict)

    asyncio.run(scenario())
    assert effects == ["sleep step"]


def test_only_a_parked_run_can_be_resumed() -> None:
    async def done() -> int:
        return 1

    async def scenario() -> None:
        async with Engine(":memory:"):
            run = await flow(done).start()
            assert await run == 1
            with pytest.raises(WrongState, match="completed"):
                await run.resume()

    asyncio.run(scenario())


def test_a_run_is_mended_in_the_same_process_by_starting_it_with_the_mended_code(tmp_path: Path) -> None:
    async def wrong() -> str:
        return await act("one!")

    async def right() -> str:
        return await act("one") + await act("two")

    async def scenario() -> None:
        path = tmp_path / "j.db"
        await begin(path)
        async with Engine(path, workflows=[flow(wrong)]) as engine:
            await ended(engine.run("x"), RunParked)
            attached = await flow(right).options(id="x").start()
            assert not attached.created
            await attached.resume()
            assert await attached == "ONETWO"

    asyncio.run(scenario())
    assert effects == ["one", "two"]


def test_a_result_whose_type_changed_parks_the_run_until_the_code_is_mended(tmp_path: Path) -> None:
    @step(name="typed")
    async def before() -> str:
        effects.append("typed")
        return "not a number"

    @step(name="typed")
    async def after() -> int:
        raise AssertionError

    async def old_body() -> None:
        await before()
        await stop_here()

    async def new_body() -> None:
        await after()
        await act("later")

    async def scenario() -> None:
        path = tmp_path / "j.db"
        await begin(path, old_body, recorded=1)
        async with Engine(path, workflows=[flow(new_body)]) as engine:
            parked = await ended(engine.run("x"), RunParked)
            assert parked.reason == "undecodable"
            assert "typed#1" in str(parked)
        await resume(path, old_body)

    asyncio.run(scenario())
    assert effects == ["typed"]


def test_an_input_whose_type_changed_parks_the_run(tmp_path: Path) -> None:
    @workflow(name="typed")
    async def before(text: str) -> None:
        await stop_here()

    @workflow(name="typed")
    async def after(text: int) -> int:
        return text

    async def scenario() -> None:
        async with Engine(tmp_path / "j.db", drive=False):
            await before.options(id="x").start("not a number")
        mended.append(True)
        async with Engine(tmp_path / "j.db", workflows=[after]) as engine:
            parked = await ended(engine.run("x"), RunParked)
            assert parked.reason == "undecodable"
        async with Engine(tmp_path / "j.db", workflows=[before]) as engine:
            await engine.run("x").resume()
            assert await engine.run("x") is None

    asyncio.run(scenario())


def test_an_annotation_that_cannot_be_resolved_any_more_parks_the_run_until_the_code_is_mended(tmp_path: Path) -> None:
    @workflow(name="typed")
    async def right(number: int) -> int:
        return await counted() + number

    async def takes(number: int) -> int:
        return number

    @workflow(name="typed")
    async def wrong_step(number: int) -> int:
        return await uncounted() + number

    @step(name="counted")
    async def counted() -> int:
        effects.append("counted")
        return 1

    async def gives() -> int:
        return 1

    takes.__annotations__["number"] = gives.__annotations__["return"] = "Missing"
    wrong_input = workflow(name="typed")(takes)
    uncounted = step(name="counted")(gives)

    async def scenario() -> None:
        async with Engine(tmp_path / "j.db", drive=False):
            await right.options(id="x").start(5)
        async with Engine(tmp_path / "j.db", workflows=[wrong_input]) as engine:
            parked = await ended(engine.run("x"), RunParked)
            assert parked.reason == "undecodable"
            assert "'Missing'" in str(parked)
        async with Engine(tmp_path / "j.db", workflows=[right]) as engine:
            await engine.run("x").resume()
            assert await engine.run("x") == 6

        @workflow(name="typed")
        async def stops(number: int) -> int:
            await counted()
            await stop_here()
            return number

        async with Engine(tmp_path / "j.db", workflows=[stops]) as engine:
            run = await stops.options(id="y").start(5)
            async with asyncio.timeout(20):
                while not await run.history():  # noqa: ASYNC110
                    await asyncio.sleep(0.001)
        async with Engine(tmp_path / "j.db", workflows=[wrong_step]) as engine:
            assert (await ended(engine.run("y"), RunParked)).reason == "undecodable"

    asyncio.run(scenario())
    assert effects == ["counted", "counted"]

"""A child has the nearer deadline of its parent's and its own; what ends by an inherited one is its parent's dead letter."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from durable_sqlite import DeadLetter, Engine, RunFailed, State, sleep, step, workflow
from durable_sqlite._clock import to_datetime
from tests.support.clock import START, ManualClock
from tests.support.restarts import die, quiet
from tests.support.stage import ended

effects: list[str] = []


@pytest.fixture(autouse=True)
def forget() -> None:
    effects.clear()


@step
async def act(what: str) -> str:
    effects.append(what)
    return what


@workflow
async def naps(name: str, seconds: float) -> str:
    await act(f"{name} begins")
    try:
        await sleep(seconds)
        return await act(f"{name} wakes")
    except asyncio.CancelledError:
        await act(f"{name} tidies up")
        raise


@workflow
async def parent(seconds: float, own: float | None, detached: bool = False) -> str:
    child = naps.options(id="kid", detached=detached)
    try:
        return await (child if own is None else child.options(deadline=own))("kid", seconds)
    finally:
        await act("parent is left")


@workflow
async def grandparent(seconds: float) -> str:
    return await parent.options(id="p")(seconds, None)


async def letters(engine: Engine) -> list[str]:
    return sorted([f"{letter.run.id} {letter.reason}" async for letter in engine.dead_letters()])


async def deadline(engine: Engine, run_id: str) -> float | None:
    """A run's deadline in seconds from the start of the test."""
    found = (await engine.run(run_id).info()).deadline
    return None if found is None else (found - to_datetime(START)).total_seconds()


@pytest.mark.parametrize(
    ("parents", "own", "detached", "expected"),
    [
        (60, None, False, 60),
        (60, 30, False, 30),
        (60, 90, False, 60),
        (None, 30, False, 30),
        (None, None, False, None),
        (60, None, True, None),
        (60, 90, True, 90),
    ],
)
def test_a_child_has_the_nearer_deadline(
    parents: float | None, own: float | None, detached: bool, expected: float | None
) -> None:
    async def scenario() -> None:
        async with Engine(":memory:", clock=ManualClock()) as engine:
            flow = parent if parents is None else parent.options(deadline=parents)
            await flow.start(3600, own, detached)
            await quiet(engine)
            assert await deadline(engine, "kid") == expected

    asyncio.run(scenario())


def test_the_length_of_a_deadline_counts_from_the_start_of_the_run_that_has_it() -> None:
    @workflow
    async def late() -> str:
        await sleep(20)
        return await naps.options(id="kid", deadline=30)("kid", 3600)

    async def scenario() -> None:
        clock = ManualClock()
        async with Engine(":memory:", clock=clock) as engine:
            await late.options(id="p", deadline=60).start()
            await quiet(engine)
            clock.advance(20)
            await quiet(engine)
            assert (await deadline(engine, "p"), await deadline(engine, "kid")) == (60, 50)

    asyncio.run(scenario())


@pytest.mark.parametrize("unload_after", [0.0, 3600.0])
def test_at_an_inherited_deadline_all_fail_tidy_up_once_and_one_letter_is_left(unload_after: float) -> None:
    told: list[str] = []

    def hook(letter: DeadLetter) -> None:
        told.append(letter.run.id)

    async def scenario() -> None:
        clock = ManualClock()
        async with Engine(":memory:", clock=clock, unload_after=unload_after, on_dead_letter=hook) as engine:
            await grandparent.options(id="g", deadline=60).start(3600)
            await quiet(engine)
            clock.advance(60)
            for run_id in ("g", "p", "kid"):
                failed = await ended(engine.run(run_id), RunFailed)
                assert failed.reason == "deadline"
                assert failed.record is not None
                assert failed.record.is_a(TimeoutError)
            await quiet(engine)
            assert await letters(engine) == ["g deadline"]
            for _ in range(20):
                await asyncio.sleep(0.001)

    asyncio.run(scenario())
    assert sorted(effects) == ["kid begins", "kid tidies up", "parent is left"]
    assert told == ["g"]


def test_a_child_that_fails_at_its_own_deadline_leaves_a_letter_and_its_parent_may_catch_that() -> None:
    @workflow
    async def patient() -> str:
        try:
            return await naps.options(id="kid", deadline=30)("kid", 3600)
        except RunFailed as failed:
            return f"{failed.key} {failed.reason}"

    async def scenario() -> None:
        clock = ManualClock()
        async with Engine(":memory:", clock=clock) as engine:
            run = await patient.options(deadline=60).start()
            await quiet(engine)
            clock.advance(30)
            assert await run.result(timeout=20) == "naps#1 deadline"
            assert await letters(engine) == ["kid deadline"]

    asyncio.run(scenario())


def test_a_deadline_that_passes_while_nobody_is_there_ends_the_family(tmp_path: Path) -> None:
    async def scenario() -> None:
        clock = ManualClock()
        async with Engine(tmp_path / "j.db", clock=clock) as engine:
            await grandparent.options(id="g", deadline=60).start(30)
            await quiet(engine)
            await die(engine)
        clock.advance(3600)
        async with Engine(tmp_path / "j.db", clock=clock, workflows=[grandparent, parent, naps]) as engine:
            for run_id in ("g", "p", "kid"):
                assert (await ended(engine.run(run_id), RunFailed)).reason == "deadline"
            await quiet(engine)
            assert await letters(engine) == ["g deadline"]

    asyncio.run(scenario())
    assert sorted(effects) == ["kid begins", "kid tidies up", "parent is left"]


def test_a_child_that_nobody_drives_at_the_deadline_fails_by_it_later_and_is_not_cancelled(tmp_path: Path) -> None:
    @workflow
    async def child() -> str:
        return await naps.fn("kid", 30)

    @workflow
    async def flow() -> str:
        return await child.options(id="kid")()

    async def scenario() -> None:
        clock = ManualClock()
        async with Engine(tmp_path / "j.db", clock=clock) as engine:
            await flow.options(id="p", deadline=60).start()
            await quiet(engine)
            await die(engine)
        clock.advance(60)
        async with Engine(tmp_path / "j.db", clock=clock, workflows=[flow]) as engine:  # it does not know the child
            assert (await ended(engine.run("p"), RunFailed)).reason == "deadline"
            assert (await engine.run("kid").info()).state is State.SUSPENDED
        async with Engine(tmp_path / "j.db", clock=clock, workflows=[child]) as engine:
            assert (await ended(engine.run("kid"), RunFailed)).reason == "deadline"
            assert await letters(engine) == ["p deadline"]

    asyncio.run(scenario())
    assert effects == ["kid begins", "kid tidies up"]


def test_an_inherited_deadline_is_in_force_while_the_family_is_paused() -> None:
    async def scenario() -> None:
        clock = ManualClock()
        async with Engine(":memory:", clock=clock) as engine:
            run = await grandparent.options(id="g", deadline=60).start(30)
            await quiet(engine)
            await run.pause()
            clock.advance(60)
            for run_id in ("g", "p", "kid"):
                assert (await ended(engine.run(run_id), RunFailed)).reason == "deadline"
            await quiet(engine)
            assert await letters(engine) == ["g deadline"]

    asyncio.run(scenario())


@pytest.mark.parametrize("unload_after", [0.0, 3600.0])
def test_a_resume_gives_the_whole_family_its_time_anew(unload_after: float) -> None:
    async def scenario() -> None:
        clock = ManualClock()
        async with Engine(":memory:", clock=clock, unload_after=unload_after) as engine:
            run = await grandparent.options(id="g", deadline=60).start(100)
            await quiet(engine)
            clock.advance(60)
            await ended(run, RunFailed)
            for run_id in ("p", "kid"):
                await ended(engine.run(run_id), RunFailed)
            await quiet(engine)
            clock.advance(10)
            await run.resume()
            await quiet(engine)
            for run_id in ("g", "p", "kid"):
                assert (await engine.run(run_id).info()).state is State.SUSPENDED
                assert await deadline(engine, run_id) == 130
            clock.advance(30)  # the nap is over at 100
            assert await run.result(timeout=20) == "kid wakes"
            assert await engine.count() == 3
            assert await letters(engine) == []

    asyncio.run(scenario())
    assert sorted(effects) == ["kid begins", "kid tidies up", "kid wakes", "parent is left", "parent is left"]


def test_a_child_that_an_inherited_deadline_ended_does_not_go_on_alone_for_ever() -> None:
    """Resumed by itself it has no more time than its parent had."""

    async def scenario() -> None:
        clock = ManualClock()
        async with Engine(":memory:", clock=clock) as engine:
            run = await parent.options(id="p", deadline=60).start(100, None)
            await quiet(engine)
            clock.advance(60)
            await ended(run, RunFailed)
            await ended(engine.run("kid"), RunFailed)
            await quiet(engine)
            await engine.run("kid").resume()
            await quiet(engine)
            assert await deadline(engine, "kid") == 120
            await run.resume()
            clock.advance(40)
            assert await run.result(timeout=20) == "kid wakes"

    asyncio.run(scenario())

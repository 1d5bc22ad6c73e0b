"""What a step's body is told of a beginning that may have been before, wherever the run has been in between."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from durable_sqlite import Engine, NotDone, Retry, RunFailed, RunParked, current_step, step, workflow
from tests.support.clock import START, ManualClock
from tests.support.restarts import die, quiet
from tests.support.stage import Stage, ended, until

stage = Stage()
told: list[tuple[str, int, bool]] = []


@pytest.fixture(autouse=True)
def a_fresh_stage() -> None:
    stage.__init__()  # type: ignore[misc]
    told.clear()


async def work(name: str) -> str:
    here = current_step()
    told.append((here.key, here.attempt, here.recovered))
    await stage.enter(name)
    return name


@step
async def charge() -> str:
    return await work("charge")


@step(at_most_once=True)
async def transfer() -> str:
    return await work("transfer")


def ask_the_bank() -> NotDone:
    return NotDone()


@step(at_most_once=True, probe=ask_the_bank)
async def probed_transfer() -> str:
    return await work("transfer")


@step
async def refuse() -> str:
    raise OSError


@step(retry=Retry.fixed(10.0, max_attempts=3))
async def charge_again() -> str:
    name = await work(f"charge {current_step().attempt}")
    if current_step().attempt == 1:
        raise OSError
    return name


@workflow
async def pay_again() -> str:
    return await charge_again()


@workflow
async def pay_again_and_once() -> list[str]:
    return list(await asyncio.gather(charge_again(), charge()))


@workflow
async def pay_twice() -> list[str]:
    return list(await asyncio.gather(charge(), transfer()))


@workflow
async def pay_with_probe() -> str:
    return await probed_transfer()


@workflow
async def pay_and_refuse() -> list[str]:
    return list(await asyncio.gather(charge(), refuse()))


def test_a_step_that_a_kill_cut_off_is_told_so_though_its_run_was_parked_since(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Engine(tmp_path / "j.db") as engine:
            await pay_twice.options(id="x").start()
            await stage.seen("charge", "transfer")
            await die(engine)
        stage.forget()
        stage.let("charge", "transfer")
        async with Engine(tmp_path / "j.db", workflows=[pay_twice]) as engine:
            run = engine.run("x")
            assert (await ended(run, RunParked)).reason == "ambiguous"
            await run.settle("transfer#1", "transfer")
            assert await run == ["charge", "transfer"]

    asyncio.run(scenario())
    assert told == [("charge#1", 1, False), ("transfer#1", 1, False), ("charge#1", 1, True)]


def test_a_step_whose_probe_knows_of_no_effect_is_told_that_it_may_have_begun(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Engine(tmp_path / "j.db") as engine:
            await pay_with_probe.options(id="x").start()
            await stage.seen("transfer")
            await die(engine)
        stage.forget()
        stage.let("transfer")
        async with Engine(tmp_path / "j.db", workflows=[pay_with_probe]) as engine:
            assert await engine.run("x") == "transfer"

    asyncio.run(scenario())
    assert told == [("probed_transfer#1", 1, False), ("probed_transfer#1", 1, True)]


@pytest.mark.contradicts("crash", reason="a death between its steps is told to them as well")
def test_a_step_that_the_failure_of_its_run_cut_off_is_told_so_after_the_resume() -> None:
    async def scenario() -> None:
        async with Engine(":memory:") as engine:
            run = await pay_and_refuse.options(id="x").start()
            await ended(run, RunFailed)
            stage.forget()
            stage.let("charge")
            await run.resume()
            await ended(engine.run("x"), RunFailed)

    asyncio.run(scenario())
    assert told == [("charge#1", 1, False), ("charge#1", 1, True)]


def test_an_attempt_that_a_kill_cut_off_is_told_so_though_a_clock_that_went_back_puts_it_off(tmp_path: Path) -> None:
    clock = ManualClock()

    async def scenario() -> None:
        async with Engine(tmp_path / "j.db", clock=clock) as engine:
            stage.let("charge 1")
            await pay_again.options(id="x").start()
            await quiet(engine)
            clock.advance(10)
            await stage.seen("charge 2")
            await die(engine)
        stage.forget()
        stage.let("charge 2")
        behind = ManualClock(START + 5_000_000)
        async with Engine(tmp_path / "j.db", workflows=[pay_again], clock=behind, unload_after=0) as engine:
            await quiet(engine)
            assert len(told) == 2
            behind.advance(5)
            assert await engine.run("x") == "charge 2"

    asyncio.run(scenario())
    assert told == [("charge_again#1", 1, False), ("charge_again#1", 2, False), ("charge_again#1", 2, True)]


def test_an_attempt_that_a_kill_cut_off_is_told_so_though_another_step_begins_before_it(tmp_path: Path) -> None:
    clock = ManualClock()

    async def scenario() -> None:
        async with Engine(tmp_path / "j.db", clock=clock) as engine:
            stage.let("charge 1")
            await pay_again_and_once.options(id="x").start()
            await stage.seen("charge", "charge 1")
            await until(lambda: clock.now() + 10_000_000 in clock.armed())  # its next attempt waits
            clock.advance(10)
            await stage.seen("charge 2")
            await die(engine)
        stage.forget()
        stage.let("charge", "charge 2")
        behind = ManualClock(START + 5_000_000)
        async with Engine(tmp_path / "j.db", workflows=[pay_again_and_once], clock=behind) as engine:
            await quiet(engine)
            assert [key for key, *_ in told[3:]] == ["charge#1"]
            behind.advance(5)
            assert await engine.run("x") == ["charge 2", "charge"]

    asyncio.run(scenario())
    assert told[3:] == [("charge#1", 1, True), ("charge_again#1", 2, True)]

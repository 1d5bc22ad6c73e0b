"""The modes in which tests of behaviour are played do what they say, or a pass in them would mean nothing."""

from __future__ import annotations

import ast
import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from durable_sqlite import Engine, step, workflow
from durable_sqlite._context import NOWHERE
from tests.support.clock import ManualClock
from tests.support.modes import MODES, Mode, Play, driver_of
from tests.support.restarts import quiet


@step
async def count(number: int) -> int:
    executed.append(number)
    return number


@workflow
async def counts() -> int:
    total = 0
    for number in range(20):
        total += await count(number)
        if number % 5 == 4:
            await asyncio.sleep(60)  # at rest, with nothing in flight: here an engine can die between steps
    return total


executed: list[int] = []


def played(mode: Mode) -> tuple[Play, int]:
    """What a mode does, and what a run comes to in it."""
    play, clock = Play(mode), ManualClock()
    executed.clear()

    async def scenario() -> int:
        async with Engine(":memory:", clock=clock) as engine:
            run = await counts.start()
            for _ in range(4):
                await quiet(engine)
                clock.advance(60)
            result = await run.result(timeout=20)
            assert (driver_of(engine) is not None) == (mode in ("two", "crash"))
            assert len(NOWHERE.engines) == 1
            return result

    with play.on("test_modes"):
        return play, asyncio.run(scenario())


def test_as_it_is_nothing_is_done_to_an_engine() -> None:
    play, result = played("as_is")
    assert (result, play.counts) == (190, {})
    assert executed == [*range(20)]


def test_with_two_engines_the_second_drives_what_the_first_has_started() -> None:
    play, result = played("two")
    assert (result, play.counts) == (190, {"engines": 1})


def test_an_engine_that_crashes_between_steps_is_replaced_and_repeats_none() -> None:
    play, result = played("crash")
    assert (result, play.counts) == (190, {"engines": 2, "crashes": 1})
    assert executed == [*range(20)]


def test_the_test_decides_when_an_engine_crashes_so_that_it_can_be_repeated() -> None:
    play = Play("crash")
    fatal: list[int] = []

    async def scenario() -> None:
        async with Engine(":memory:", clock=ManualClock()) as engine:
            pair = driver_of(engine)
            assert pair is not None
            fatal.append(pair._fatal)

    for name in ("one", "one", "another", "a third"):
        with play.on(name):
            asyncio.run(scenario())
    assert fatal[0] == fatal[1]
    assert len(set(fatal)) > 1


@pytest.mark.parametrize(("mode", "resident"), [("as_is", 1), ("unload", 0)])
def test_unloading_leaves_no_body_in_memory_that_waits(mode: Mode, resident: int) -> None:
    @workflow
    async def waits() -> None:
        await asyncio.sleep(10)

    async def scenario() -> int:
        async with Engine(":memory:", clock=ManualClock(), unload_after=3600) as engine:
            await waits.start()
            await quiet(engine)
            return (await engine.stats()).bodies.resident

    with Play(mode).on("test_modes"):
        assert asyncio.run(scenario()) == resident


BEHAVIOUR = Path(__file__).parents[1] / "behaviour"


def marks(within: ast.AST) -> Iterator[ast.Call]:
    """What is marked as contradicting modes, within this piece of code."""
    for node in ast.walk(within):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "contradicts":
            yield node


@pytest.mark.parametrize("path", sorted(BEHAVIOUR.glob("test_*.py")), ids=lambda path: path.stem)
def test_only_single_tests_are_left_out_of_a_mode_and_each_says_why(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    tests = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    of_tests = [mark for test in tests for decorator in test.decorator_list for mark in marks(decorator)]
    assert {*marks(tree)} == {*of_tests}
    for mark in of_tests:
        modes = [ast.literal_eval(mode) for mode in mark.args]
        assert modes
        assert set(modes) <= set(MODES[1:])
        [reason] = [ast.literal_eval(given.value) for given in mark.keywords if given.arg == "reason"]
        assert reason

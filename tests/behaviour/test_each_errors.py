"""`each` where something is wrong: errors of items, wrong arguments, and no run around it."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from durable_sqlite import (
    Engine,
    Outcome,
    Retry,
    RunFailed,
    StepFailed,
    Unstorable,
    UsageError,
    Workflow,
    current_step,
    each,
    step,
    workflow,
)
from tests.support.clock import ManualClock
from tests.support.restarts import quiet
from tests.support.stage import Stage, ended

effects: list[str] = []
stage = Stage()


@pytest.fixture(autouse=True)
def forget() -> None:
    effects.clear()
    vars(stage).update(vars(Stage()))  # as new


class Declined(Exception):
    pass


class Crowd:
    """Counts how many are there at once."""

    def __init__(self) -> None:
        self.now = self.most = 0
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        with self._lock:
            self.now += 1
            self.most = max(self.most, self.now)

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self.now -= 1


@step
async def double(number: int) -> int:
    effects.append(f"double {number}")
    return 2 * number


@step
async def stay(name: str) -> str:
    try:
        await stage.enter(name)
    except asyncio.CancelledError:
        effects.append(f"{name} was cancelled")
        raise
    return name.upper()


@step(raises=(Declined,))
async def picky(number: int) -> int:
    effects.append(f"picky {number}")
    if number == 2:
        raise Declined("two")
    if number == 3:
        raise LookupError("three")
    return number


@workflow
async def child(number: int) -> int:
    return await double(number)


def flow_of(body: Callable[[], Awaitable[Any]]) -> Workflow[[], str]:
    """A workflow that shows what `body` returns."""

    @workflow(name="flow")
    async def flow() -> str:
        return str(await body())

    return flow


# Errors --------------------------------------------------------------------------------------------------------------


def test_the_first_error_is_raised_the_others_are_given_up_and_nothing_begins_afterwards() -> None:
    @step
    async def fail_or_stay(name: str) -> str:
        if name == "bad":
            await stage.enter("bad")
            raise LookupError("bad")
        await stay.fn(name)
        return name

    async def body() -> object:
        try:
            return await each(fail_or_stay, ["a", "bad", "b", "c", "d"], concurrency=3)
        except StepFailed as failed:
            return f"{failed.key} {failed.is_a(LookupError)} {await double(1)}"

    async def scenario() -> None:
        async with Engine(":memory:"):
            run = await flow_of(body).start()
            await stage.seen("a", "bad", "b")
            stage.let("bad")
            assert await run == "fail_or_stay#1[1] True 2"
            assert [entry.key for entry in await run.history()] == ["fail_or_stay#1[1]", "double#1"]

    asyncio.run(scenario())
    assert sorted(effects[:2]) == ["a was cancelled", "b was cancelled"]
    assert effects[2:] == ["double 1"]
    assert stage.began == ["a", "bad", "b"]


def test_an_error_that_nobody_catches_fails_the_run_and_the_item_is_tried_again_by_a_resume() -> None:
    flow = flow_of(lambda: each(picky, [1, 3, 4], concurrency=1))

    async def scenario() -> None:
        async with Engine(":memory:") as engine:
            run = await flow.start()
            failed = await ended(run, RunFailed)
            assert failed.reason == "retries_exhausted"
            (letter,) = [letter async for letter in engine.dead_letters()]
            assert letter.keys == ("picky#1[1]",)
            assert await run.resume() == ("picky#1[1]",)
            await ended(run, RunFailed)

    asyncio.run(scenario())
    assert effects == ["picky 1", "picky 3", "picky 3"]


def test_errors_that_are_collected_stand_in_the_place_of_results() -> None:
    seen: list[list[int | Exception]] = []

    async def body() -> object:
        seen.append(await each(picky, [1, 2, 3, 4], concurrency=2, on_error="collect"))
        return len(seen)

    async def scenario() -> None:
        async with Engine(":memory:"):
            run = await flow_of(body).start()
            assert await run == "1"
            outcomes = {entry.key: entry.outcome for entry in await run.history()}
            assert outcomes == {
                "picky#1[0]": Outcome.VALUE,
                "picky#1[1]": Outcome.DECLARED,
                "picky#1[2]": Outcome.ERROR,
                "picky#1[3]": Outcome.VALUE,
            }

    asyncio.run(scenario())
    ((one, two, three, four),) = seen
    assert (one, four) == (1, 4)
    assert type(two) is Declined
    assert isinstance(three, StepFailed)
    assert three.key == "picky#1[2]"


def test_failed_children_are_collected_too() -> None:
    @workflow
    async def visit(number: int) -> int:
        return await picky(number)

    async def body() -> object:
        told = await each(visit, [1, 3], on_error="collect")
        return [f"{said.reason} {said.key}" if isinstance(said, RunFailed) else said for said in told]

    async def scenario() -> None:
        async with Engine(":memory:"):
            assert await flow_of(body)() == "[1, 'retries_exhausted visit#1[1]']"

    asyncio.run(scenario())


def test_an_item_that_cannot_be_stored_is_an_error_and_what_is_open_is_given_up() -> None:
    anything: Any = stay

    async def body() -> object:
        try:
            return await each(anything, ["a", object(), "b"], concurrency=3)
        except Unstorable as error:
            return "$.name" in str(error)

    async def scenario() -> None:
        async with Engine(":memory:"):
            run = await flow_of(body).start()
            assert await run == "True"
            assert await run.history() == []

    asyncio.run(scenario())
    assert stage.began == []


def test_each_item_is_retried_on_its_own_and_holds_up_nobody() -> None:
    attempts: list[tuple[str, int]] = []

    @step
    async def shaky(name: str) -> str:
        attempts.append((name, current_step().attempt))
        if name == "b" and current_step().attempt < 3:
            raise OSError
        return name

    flow = flow_of(lambda: each(shaky.options(retry=Retry.fixed(60, max_attempts=3)), "abcd", concurrency=2))

    async def scenario() -> None:
        clock = ManualClock()
        async with Engine(":memory:", clock=clock) as engine:
            run = await flow.start()
            await quiet(engine)
            assert attempts == [("a", 1), ("b", 1), ("c", 1), ("d", 1)]
            for known in (5, 6):
                clock.advance(60)
                while len(attempts) < known:  # noqa: ASYNC110
                    await asyncio.sleep(0)
                await quiet(engine)
            assert await run.result(timeout=20) == "['a', 'b', 'c', 'd']"

    asyncio.run(scenario())
    assert attempts[4:] == [("b", 2), ("b", 3)]


# At the door ---------------------------------------------------------------------------------------------------------


def test_what_makes_no_sense_is_refused_where_it_is_called() -> None:
    async def plain(number: int) -> int:
        return number

    wrong: Any = each
    refused: list[str] = []

    async def body() -> None:
        calls: list[tuple[Any, dict[str, Any]]] = [
            (plain, {}),
            (len, {}),
            (child.start, {}),
            (double, {"concurrency": 0}),
            (double, {"concurrency": -1}),
            (double, {"concurrency": 1.5}),
            (double, {"concurrency": True}),
            (double, {"on_error": "ignore"}),
        ]
        for function, options in calls:
            try:
                wrong(function, [1], **options)
            except UsageError as error:
                refused.append(str(error))

    async def scenario() -> None:
        await body()
        async with Engine(":memory:"):
            await flow_of(body)()

    asyncio.run(scenario())
    assert refused[:8] == refused[8:]
    assert len(refused) == 16
    assert all("takes a step or a workflow" in said for said in refused[:3])
    assert all("takes a whole number from 1" in said for said in refused[3:7])
    assert 'takes "fail" or "collect"' in refused[7]
    for items in (3, forever()):
        with pytest.raises(TypeError):
            wrong(double, items)


async def forever() -> AsyncIterator[int]:
    yield 1


def test_frameworks_take_it_for_a_coroutine_function() -> None:
    is_coroutine_function: Any = vars(asyncio)["iscoroutinefunction"]
    assert is_coroutine_function(each)
    assert inspect.getdoc(each)


# Outside a run -------------------------------------------------------------------------------------------------------


def test_outside_a_run_it_calls_the_function_as_often_and_in_the_same_manner() -> None:
    crowd = Crowd()

    @step
    async def meet(number: int) -> int:
        with crowd:
            for _ in range(10):
                await asyncio.sleep(0)
        if number == 3:
            raise LookupError("three")
        return number

    async def scenario() -> None:
        assert await each(meet, [], concurrency=2) == []
        assert await each(meet, [5, 1, 2]) == [5, 1, 2]
        assert crowd.most == 3
        crowd.most = 0
        told = await each(meet, range(6), concurrency=2, on_error="collect")
        assert crowd.most == 2
        assert [said for said in told if not isinstance(said, Exception)] == [0, 1, 2, 4, 5]
        assert isinstance(told[3], LookupError)
        with pytest.raises(LookupError, match="three"):
            await each(meet, range(6), concurrency=1)
        async with Engine(":memory:") as engine:
            assert await each(child, [1, 2], concurrency=1) == [2, 4]
            assert await engine.count(workflow=child) == 2

    asyncio.run(scenario())


def test_outside_a_run_an_error_leaves_nothing_behind_that_still_runs() -> None:
    @step
    async def fail_or_stay(name: str) -> str:
        if name == "bad":
            await stage.seen("a", "b")
            raise LookupError("bad")
        await stay.fn(name)
        return name

    async def scenario() -> None:
        with pytest.raises(LookupError, match="bad"):
            await each(fail_or_stay, ["a", "b", "bad", "c"], concurrency=3)
        assert sorted(effects) == ["a was cancelled", "b was cancelled"]

    asyncio.run(scenario())
    assert stage.began == ["a", "b"]


def test_outside_a_run_what_is_open_is_cancelled_with_it() -> None:
    async def scenario() -> None:
        running = asyncio.ensure_future(each(stay, "abc", concurrency=2))
        await stage.seen("a", "b")
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert sorted(effects) == ["a was cancelled", "b was cancelled"]

    asyncio.run(scenario())
    assert stage.began == ["a", "b"]


def test_inside_a_step_it_calls_steps_as_functions_and_starts_no_runs() -> None:
    @step
    async def outer(how: str) -> list[int]:
        return await each(double if how == "steps" else child, [1, 2])

    async def scenario() -> None:
        async with Engine(":memory:") as engine:
            run = await flow_of(lambda: outer("steps")).start()
            assert await run == "[2, 4]"
            assert [entry.key for entry in await run.history()] == ["outer#1"]
            failed = await ended(await flow_of(lambda: outer("workflows")).start(), RunFailed)
            assert failed.record is not None
            assert failed.record.cause is not None
            assert failed.record.cause.is_a(UsageError)
            assert await engine.count(workflow=child) == 0

    asyncio.run(scenario())

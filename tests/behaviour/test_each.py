"""`each`: one call for each of many items, in their order, and never more at once than was allowed."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from durable_sqlite import (
    Engine,
    Kind,
    Workflow,
    each,
    step,
    workflow,
)
from tests.support.families import recorded
from tests.support.stage import Stage

effects: list[str] = []
stage = Stage()


@pytest.fixture(autouse=True)
def forget() -> None:
    effects.clear()
    vars(stage).update(vars(Stage()))  # as new


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


@workflow
async def child(number: int) -> int:
    return await double(number)


def flow_of(body: Callable[[], Awaitable[Any]]) -> Workflow[[], str]:
    """A workflow that shows what `body` returns."""

    @workflow(name="flow")
    async def flow() -> str:
        return str(await body())

    return flow


# Results, order, keys ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("work", [double, child])
def test_results_come_in_the_order_of_the_items_and_each_has_a_key_of_its_own(work: Any) -> None:
    flow = flow_of(lambda: each(work, [3, 1, 2]))

    async def scenario() -> None:
        async with Engine(":memory:"):
            run = await flow.start()
            assert await run == "[6, 2, 4]"
            history = await run.history()
            assert sorted(entry.key for entry in history) == [f"{work.name}#1[{index}]" for index in range(3)]
            assert {entry.kind for entry in history} == {Kind.STEP if work is double else Kind.CHILD}

    asyncio.run(scenario())


def test_the_order_of_the_results_is_not_the_order_in_which_they_come() -> None:
    flow = flow_of(lambda: each(stay, "abc"))

    async def scenario() -> None:
        async with Engine(":memory:"):
            run = await flow.start()
            await stage.seen("a", "b", "c")
            for number, name in enumerate("cab", start=1):
                stage.let(name)
                await recorded(run, number)
            assert await run == "['A', 'B', 'C']"
            assert [entry.key for entry in await run.history()] == ["stay#1[2]", "stay#1[0]", "stay#1[1]"]

    asyncio.run(scenario())


def test_no_items_are_no_calls() -> None:
    flow = flow_of(lambda: each(double, []))

    async def scenario() -> None:
        async with Engine(":memory:"):
            run = await flow.start()
            assert await run == "[]"
            assert await run.history() == []

    asyncio.run(scenario())


def test_items_may_come_from_any_iterable_and_are_taken_when_it_is_called() -> None:
    def numbers() -> Iterator[int]:
        effects.append("asked")
        yield from (1, 2)

    async def body() -> object:
        known = [3, 4]
        calls, others = each(double, numbers()), each(double, known)
        effects.append("called")
        known.append(5)
        return await calls + await others

    async def scenario() -> None:
        async with Engine(":memory:"):
            assert await flow_of(body)() == "[2, 4, 6, 8]"
            assert await flow_of(lambda: each(double, {1: "x", 2: "y"}, concurrency=1))() == "[2, 4]"

    asyncio.run(scenario())
    assert effects[:2] == ["asked", "called"]


def test_two_fan_outs_and_a_call_of_one_function_have_keys_of_their_own_in_each_branch() -> None:
    async def branch() -> list[int]:
        return await each(double, [7])

    async def body() -> object:
        first = each(double, [1])
        alone = double(2)
        second = each(double, [3, 4])
        told = [await second, await alone, await first]
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(branch()), group.create_task(each(double, [8]))]
        return [*told, *(task.result() for task in tasks)]

    async def scenario() -> None:
        async with Engine(":memory:"):
            run = await flow_of(body).start()
            assert await run == "[[6, 8], 4, [2], [14], [16]]"
            assert {entry.key: entry.value for entry in await run.history()} == {
                "double#1[0]": 2,
                "double#2": 4,
                "double#3[0]": 6,
                "double#3[1]": 8,
                "0/double#1[0]": 14,
                "double#4[0]": 16,
            }

    asyncio.run(scenario())


def test_a_chosen_key_names_the_fan_out() -> None:
    flow = flow_of(lambda: each(double.options(key="pages"), [1, 2]))

    async def scenario() -> None:
        async with Engine(":memory:"):
            run = await flow.start()
            assert await run == "[2, 4]"
            assert sorted(entry.key for entry in await run.history()) == ["pages[0]", "pages[1]"]

    asyncio.run(scenario())


def test_a_method_is_called_on_its_object() -> None:
    class Shop:
        def __init__(self, rate: int) -> None:
            self.rate = rate

        @step
        async def price(self, cents: int) -> int:
            return self.rate * cents

    flow = flow_of(lambda: each(Shop(3).price, [1, 2]))

    async def scenario() -> None:
        async with Engine(":memory:"):
            assert await flow() == "[3, 6]"

    asyncio.run(scenario())


def test_runs_that_fan_out_may_be_called_in_a_fan_out() -> None:
    @workflow
    async def row(number: int) -> list[int]:
        return await each(double, range(number), concurrency=1)

    flow = flow_of(lambda: each(row, range(4), concurrency=2))

    async def scenario() -> None:
        async with Engine(":memory:"):
            assert await flow() == "[[], [0], [0, 2], [0, 2, 4]]"

    asyncio.run(scenario())


# Concurrency ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("concurrency", [1, 3, 10, 99])
def test_never_more_are_in_flight_than_allowed_and_as_many_as_that(concurrency: int) -> None:
    crowd = Crowd()

    @step
    async def meet(number: int) -> int:
        with crowd:
            for _ in range(20):
                await asyncio.sleep(0)
        return number

    flow = flow_of(lambda: each(meet, range(30), concurrency=concurrency))

    async def scenario() -> None:
        async with Engine(":memory:"):
            assert await flow() == str(list(range(30)))

    asyncio.run(scenario())
    assert crowd.most == min(concurrency, 30)


def test_without_a_limit_all_are_in_flight() -> None:
    flow = flow_of(lambda: each(stay, [str(number) for number in range(40)]))

    async def scenario() -> None:
        async with Engine(":memory:"):
            run = await flow.start()
            names = [str(number) for number in range(40)]
            await stage.seen(*names)
            stage.let(*names)
            assert await run == str(names)

    asyncio.run(scenario())


def test_steps_in_threads_keep_to_the_limit_too() -> None:
    crowd = Crowd()
    pairs = threading.Barrier(2)

    @step
    def meet(number: int) -> int:
        with crowd:
            pairs.wait(20)  # two are there, or the test fails
        return number

    flow = flow_of(lambda: each(meet, range(8), concurrency=2))

    async def scenario() -> None:
        async with Engine(":memory:", step_threads=8):
            assert await flow() == str(list(range(8)))

    asyncio.run(scenario())
    assert crowd.most == 2


def test_children_keep_to_the_limit_too_and_the_next_begins_when_one_has_ended() -> None:
    @workflow
    async def visit(name: str) -> str:
        return await stay(name)

    flow = flow_of(lambda: each(visit, "abcd", concurrency=2))

    async def scenario() -> None:
        async with Engine(":memory:") as engine:
            run = await flow.start()
            await stage.seen("a", "b")
            assert await engine.count(workflow=visit) == 2
            stage.let("b")
            await stage.seen("c")
            assert stage.began == ["a", "b", "c"]
            assert await engine.count(workflow=visit) == 3
            stage.let(*"acd")
            assert await run == "['A', 'B', 'C', 'D']"

    asyncio.run(scenario())


@pytest.mark.parametrize(("items", "concurrency"), [(300, 20), pytest.param(10_000, 50, marks=pytest.mark.thorough)])
def test_many_workflows_do_not_load_many_bodies(items: int, concurrency: int) -> None:
    seen: list[int] = []

    async def scenario() -> None:
        async with Engine(":memory:") as engine:
            session = engine._session
            assert session is not None
            worker = session.worker

            @step
            async def look(number: int) -> int:
                seen.append(len(worker._residents.passes))
                return number

            @workflow
            async def visit(number: int) -> int:
                return await look(number)

            assert await flow_of(lambda: each(visit, range(items), concurrency=concurrency))() == str(
                list(range(items))
            )
            assert await engine.count(workflow=visit, state="completed") == items

    asyncio.run(scenario())
    assert len(seen) == items
    # The parent is one of them, and a body that has ended may still be on its way out.
    assert max(seen) <= concurrency + 5

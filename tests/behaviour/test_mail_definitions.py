"""Signals and suspend points as classes: their names are addresses, and only bodies wait for them."""

from __future__ import annotations

import asyncio
import inspect
import math
import sys
from collections.abc import Callable, Coroutine, Iterator
from datetime import timedelta
from types import ModuleType
from typing import Any, Generic, TypeVar

import pytest

from durable_sqlite import (
    DefinitionError,
    Engine,
    InvalidName,
    Run,
    RunFailed,
    Signal,
    Suspend,
    UsageError,
    step,
    workflow,
)
from tests.support.clock import ManualClock
from tests.support.restarts import quiet
from tests.support.stage import ended

T = TypeVar("T")


class Wink(Signal, name="eye.wink"):
    n: int = 0


class DoubleWink(Wink):
    m: int = 0


class HowFar(Suspend[int], name="how-far"):
    to: str = "Lima"


class HowFarByShip(HowFar):
    ship: str = "Fram"


class Crate(Signal, Generic[T]):
    content: T


class CrateOfInts(Crate[int]):
    pass


# Names ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def module() -> Iterator[Callable[[str, str], ModuleType]]:
    """Makes modules from their text."""
    made: list[str] = []

    def make(name: str, text: str) -> ModuleType:
        made.append(name)
        module = sys.modules[name] = ModuleType(name)
        exec("from durable_sqlite import Signal, Suspend\n" + text, vars(module))
        return module

    yield make
    for name in made:
        sys.modules.pop(name, None)


def test_two_classes_under_one_name_are_an_error_that_names_both(module: Callable[[str, str], ModuleType]) -> None:
    first = module("shop_a", "class Sold(Signal): ...\nclass Refund(Suspend[bool]): ...")
    with pytest.raises(DefinitionError, match=r"shop_b\.Sold and shop_a\.Sold would both be stored as the signal Sold"):
        module("shop_b", "class Sold(Signal): ...")
    with pytest.raises(DefinitionError, match=r"shop_b\.Refund and shop_a\.Refund .* suspend point Refund"):
        module("shop_b", "class Refund(Suspend[str]): ...")
    with pytest.raises(DefinitionError, match=r"shop_b\.Gone and shop_a\.Sold .* signal Sold"):
        module("shop_b", "class Gone(Signal, name='Sold'): ...")
    del first


def test_a_name_of_its_own_makes_room_for_both_and_a_signal_may_have_the_name_of_a_suspend_point(
    module: Callable[[str, str], ModuleType],
) -> None:
    kept = [
        module("shop_c", "class Lost(Signal): ..."),
        module("shop_d", "class Lost(Signal, name='shop_d.Lost'): ..."),
        module("shop_e", "class Lost(Suspend[bool]): ..."),
        module("shop_c", "class Lost(Signal): ..."),  # the same one, reloaded
    ]
    assert len({id(one.Lost) for one in kept}) == 4


@pytest.mark.parametrize("name", ["", "a b", "<script>", "-x", "x" * 201, "\ud800"])
def test_a_name_outside_the_rule_is_refused_where_it_is_written(name: str) -> None:
    with pytest.raises(InvalidName, match="the name of a signal"):
        type("Odd", (Signal,), {"__module__": __name__}, name=name)
    with pytest.raises(InvalidName, match="the name of a suspend point"):
        type("Odd", (Suspend[int],), {"__module__": __name__}, name=name)


def test_a_class_is_stored_under_the_name_that_it_was_given() -> None:
    @workflow
    async def flow() -> tuple[int, int]:
        return (await Wink.wait()).n, await HowFar()

    async def scenario() -> None:
        async with Engine(":memory:", clock=ManualClock()) as engine:
            run = await flow.start()
            await run.signal(Wink(n=1))
            await run.signal(Wink(n=2))
            await quiet(engine)
            assert [message.name for message in await run.messages()] == ["eye.wink"]
            assert [question.point for question in await run.questions()] == ["how-far"]
            assert "an answer to how-far (how-far#1)" in (await run.info()).waiting_for[0]
            await run.answer(HowFar, 0)
            assert await run.result(timeout=20) == (1, 0)
            assert [entry.key for entry in await run.history()] == ["eye.wink#1", "how-far#1"]

    asyncio.run(scenario())


def test_a_subclass_of_a_signal_or_a_suspend_point_is_an_address_of_its_own() -> None:
    @workflow
    async def flow() -> list[str]:
        first = asyncio.create_task(Wink.wait())
        second = asyncio.create_task(DoubleWink.wait())
        third = asyncio.create_task(HowFarByShip().wait())
        return [repr(await first), repr(await second), repr(await third)]

    async def scenario() -> None:
        async with Engine(":memory:", clock=ManualClock()) as engine:
            run = await flow.start()
            await run.signal(DoubleWink(n=1, m=2))
            await run.signal(Wink(n=3))
            await quiet(engine)
            assert [question.point for question in await run.questions()] == ["HowFarByShip"]
            await run.answer(HowFarByShip, 5)
            assert await run.result(timeout=20) == ["Wink(n=3)", "DoubleWink(n=1, m=2)", "5"]

    asyncio.run(scenario())


def test_a_suspend_point_must_say_what_answers_it() -> None:
    with pytest.raises(DefinitionError, match=r"Vague does not say what answers it: derive it from Suspend\[Answer\]"):
        type("Vague", (Suspend,), {"__module__": __name__})


# Generics ------------------------------------------------------------------------------------------------------------


def test_a_class_derived_from_a_generic_signal_is_a_signal() -> None:
    @workflow
    async def flow() -> int:
        return (await CrateOfInts.wait()).content

    async def scenario() -> None:
        async with Engine(":memory:"):
            run = await flow.start()
            await run.signal(CrateOfInts(content=7))
            assert await run.result(timeout=20) == 7

    asyncio.run(scenario())


@pytest.mark.parametrize("kind", [Crate, Crate[int], Signal])
def test_a_generic_signal_is_no_address_by_itself(kind: Any) -> None:
    @workflow
    async def flow() -> str:
        try:
            await kind.wait(timeout=0)
        except UsageError as error:
            return str(error)
        return "waited"

    async def scenario() -> None:
        async with Engine(":memory:"):
            run = await flow.start()
            assert "is no signal: define" in await run.result(timeout=20)
            with pytest.raises(UsageError, match="is no message"):
                await run.signal(kind() if kind is Signal else kind(content=7))

    asyncio.run(scenario())


@pytest.mark.parametrize("point", [Suspend, Suspend[int], HowFar(), Wink, int, "how-far"])
def test_what_is_no_suspend_point_cannot_be_answered(point: Any) -> None:
    async def scenario() -> None:
        async with Engine(":memory:") as engine:
            with pytest.raises(UsageError, match=r"is no suspend point: name the class"):
                await engine.run("x").answer(point, 7)

    asyncio.run(scenario())


# Where one may wait --------------------------------------------------------------------------------------------------

WAITS: list[tuple[str, Callable[[], Coroutine[Any, Any, Any]]]] = [
    ("Wink.wait()", Wink.wait),
    ("Wink.drain()", Wink.drain),
    ("HowFar.wait()", HowFar().wait),
]


@pytest.mark.parametrize(("what", "wait"), WAITS, ids=[what for what, _ in WAITS])
def test_waiting_in_the_application_or_in_a_step_is_refused_at_once(
    what: str, wait: Callable[[], Coroutine[Any, Any, Any]]
) -> None:
    @step
    async def waits() -> None:
        await wait()

    @step
    def waits_in_a_thread() -> None:
        wait().close()

    @workflow
    async def flow(in_a_thread: bool) -> None:
        await (waits_in_a_thread() if in_a_thread else waits())

    async def scenario() -> None:
        said = f"{what} waits in the body of a workflow, not in a step or in the application"
        with pytest.raises(UsageError) as refused:
            _ = wait()  # it is not even awaited
        assert str(refused.value) == said
        async with Engine(":memory:"):
            with pytest.raises(UsageError):
                await wait()
            for in_a_thread in (False, True):
                failed = await ended(await flow.start(in_a_thread), RunFailed)
                assert said in str(failed)

    asyncio.run(scenario())


def test_awaiting_a_question_in_the_application_is_refused() -> None:
    async def scenario() -> None:
        async with Engine(":memory:"):
            with pytest.raises(UsageError, match=r"HowFar\.wait\(\) waits in the body of a workflow"):
                await HowFar()

    asyncio.run(scenario())


def test_frameworks_are_told_that_waits_and_sends_are_coroutine_functions() -> None:
    functions: list[Any] = [Wink.wait, Wink.drain, HowFar.wait, HowFar().wait, Run[int].signal, Run[int].answer]
    for function in functions:
        assert asyncio.iscoroutinefunction(function)  # pyright: ignore[reportDeprecated] - frameworks still ask so


@pytest.mark.parametrize("timeout", [math.nan, math.inf, "3 s", True])
def test_what_is_no_time_limit_is_refused_before_anything_is_asked(timeout: Any) -> None:
    @workflow
    async def flow() -> list[str]:
        refused: list[str] = []
        for wait in (Wink.wait, HowFar().wait):
            try:
                await wait(timeout=timeout)
            except (ValueError, TypeError) as error:
                refused.append(type(error).__name__)
        return refused

    async def scenario() -> None:
        async with Engine(":memory:"):
            run = await flow.start()
            assert len(await run.result(timeout=20)) == 2
            assert await run.history() == []

    asyncio.run(scenario())


def test_a_wait_that_is_called_and_not_awaited_is_named_when_the_body_returns() -> None:
    @workflow
    async def flow() -> None:
        forgotten = [Wink.wait(), Wink.drain(), HowFar().wait(timeout=timedelta(days=1))]
        del forgotten

    async def scenario() -> None:
        async with Engine(":memory:"):
            run = await flow.start()
            failed = await ended(run, RunFailed)
            assert failed.record is not None
            assert "eye.wink#1, eye.wink#2, how-far#1 was called and never awaited" in failed.record.message
            assert await run.questions() == []

    asyncio.run(scenario())


def test_the_docs_of_waits_show_their_options() -> None:
    assert list(inspect.signature(Wink.wait).parameters) == ["timeout", "key"]
    assert list(inspect.signature(HowFar.wait).parameters) == ["self", "timeout", "key", "status"]

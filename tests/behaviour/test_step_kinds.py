"""Where steps run: on the loop, in threads, in executors; as methods; inside one another; and what they are given."""

from __future__ import annotations

import asyncio
import inspect
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest

from durable_sqlite import (
    DefinitionError,
    Engine,
    RunFailed,
    Step,
    StepFailed,
    UsageError,
    current_run,
    current_step,
    step,
    workflow,
)
from tests.behaviour import sample_steps
from tests.support.restarts import die
from tests.support.stage import Stage, ended


@pytest.fixture(scope="module", autouse=True)
def end_of_pools() -> Iterator[None]:
    yield
    sample_steps.pool.shutdown()
    sample_steps.threads.shutdown()


def test_a_plain_function_runs_in_a_thread_of_the_engine() -> None:
    @step
    def where() -> tuple[str, str]:
        return threading.current_thread().name, current_step().key

    @workflow
    async def flow() -> tuple[str, str]:
        return await where()

    async def scenario() -> None:
        async with Engine(":memory:"):
            assert await flow() == ("durable_sqlite step", "where#1")

    asyncio.run(scenario())


def test_many_plain_functions_share_a_bounded_number_of_threads() -> None:
    seen: set[int] = set()
    lock = threading.Lock()
    most, here = [0], [0]

    @step
    def work(number: int) -> int:
        with lock:
            here[0] += 1
            most[0] = max(most[0], here[0])
            seen.add(threading.get_ident())
        with lock:
            here[0] -= 1
        return number

    @workflow
    async def flow() -> int:
        return sum(await asyncio.gather(*(work(number) for number in range(100))))

    async def scenario() -> None:
        async with Engine(":memory:", step_threads=3):
            assert await flow() == sum(range(100))

    asyncio.run(scenario())
    assert len(seen) <= 3
    assert most[0] <= 3


@pytest.mark.leaves(reason="the pool is shared, and ends with the last test of the file")
def test_an_executor_may_be_another_process_and_the_step_knows_its_attempt_there() -> None:
    @workflow
    async def flow() -> tuple[int, tuple[int, str, int], int]:
        return await sample_steps.add(1), await sample_steps.where(), await sample_steps.Shop(3).price(5)

    async def scenario() -> None:
        async with Engine(":memory:"):
            total, (pid, key, attempt), price = await flow()
            assert (total, price) == (3, 15)
            assert pid != os.getpid()
            assert (key, attempt) == ("where#1", 1)

    asyncio.run(scenario())


def test_errors_come_back_from_another_process() -> None:
    @workflow
    async def told() -> list[str]:
        calls = asyncio.gather(sample_steps.fail(), sample_steps.stop(), return_exceptions=True)
        return [error.message for error in await calls if isinstance(error, StepFailed)]

    async def scenario() -> None:
        async with Engine(":memory:"):
            assert await told() == ["in another process", "the step raised StopIteration"]

    asyncio.run(scenario())


@pytest.mark.leaves(reason="the pool is shared, and ends with the last test of the file")
def test_an_executor_of_threads_takes_steps_too() -> None:
    @workflow
    async def flow() -> str:
        return await sample_steps.one_step_in_another()

    async def scenario() -> None:
        async with Engine(":memory:"):
            assert len(await flow()) == 26

    asyncio.run(scenario())


def test_stop_iteration_out_of_a_plain_function_is_a_failure_not_a_hang() -> None:
    @step
    def odd() -> None:
        raise StopIteration

    @workflow
    async def flow() -> None:
        await odd()

    async def scenario() -> None:
        async with Engine(":memory:"):
            failed = await ended(await flow.start(), RunFailed)
            assert failed.record is not None
            assert failed.record.cause is not None
            assert failed.record.cause.is_a(RuntimeError)

    asyncio.run(scenario())


def test_what_a_step_gives_is_decoded_from_what_is_stored_on_both_passes(tmp_path: Path) -> None:
    got: list[Any] = []
    kept: list[list[int]] = []
    stage = Stage()

    @dataclass
    class Box:
        items: list[int] = field(default_factory=list[int])

    @step
    async def typed() -> tuple[int, Box]:
        return 1, Box([2])

    @step
    async def untyped():  # type: ignore[no-untyped-def]  # noqa: ANN202
        kept.append([1, 2])
        return kept[-1]

    @step
    async def hold() -> None:
        await stage.enter("hold")

    @workflow
    async def flow() -> None:
        got.append((await typed(), await untyped()))
        await hold()

    async def scenario() -> None:
        async with Engine(tmp_path / "j.db") as engine:
            await flow.options(id="x").start()
            await stage.seen("hold")
            await die(engine)
        stage.let("hold")
        async with Engine(tmp_path / "j.db", workflows=[flow]) as engine:
            await engine.run("x")

    asyncio.run(scenario())
    assert got == [((1, Box([2])), [1, 2])] * 2
    assert got[0][1] is not kept[0]


def test_arguments_are_copies_so_a_step_cannot_change_what_the_body_holds() -> None:
    @step
    async def spoil(items: list[int], *, ids: dict[str, list[int]]) -> int:
        items.append(4)
        ids["a"].append(1)
        return len(items)

    @workflow
    async def flow() -> tuple[int, list[int], dict[str, list[int]]]:
        items, ids = [1, 2, 3], {"a": [0]}
        length = await spoil(items, ids=ids)
        return length, items, ids

    async def scenario() -> None:
        async with Engine(":memory:"):
            assert await flow() == (4, [1, 2, 3], {"a": [0]})

    asyncio.run(scenario())


def test_ignored_parameters_and_receivers_do_not_belong_to_the_call_s_identity(tmp_path: Path) -> None:
    stage = Stage()

    class Client:
        """Cannot be stored."""

        def __init__(self, name: str) -> None:
            self.name = name

        @step
        async def fetch(self, path: str, *, retries: int = 3) -> str:
            stage.began.append(f"{self.name} {path} {retries}")
            return path

        @classmethod
        @step
        async def made(cls, path: str) -> str:
            return f"{cls.__name__} {path}"

        @staticmethod
        @step
        async def plain(path: str) -> str:
            return path

    @step(ignore=("client",))
    async def use(client: Client, path: str) -> str:
        stage.began.append(f"{client.name} {path}")
        return path

    @step
    async def hold() -> None:
        await stage.enter("hold")

    clients = [Client("first"), Client("second")]

    @workflow
    async def flow() -> list[str]:
        client = clients.pop(0)
        anyway: Any = Client  # a checker sees no step beneath another decorator
        got = [await client.fetch("/a"), await use(client, "/b"), await anyway.made("/c"), await anyway.plain("/d")]
        got.append(await client.fetch.options(key="mine")("/e", retries=3))
        await hold()
        return got

    async def scenario() -> None:
        async with Engine(tmp_path / "j.db") as engine:
            await flow.options(id="x").start()
            await stage.seen("hold")
            await die(engine)
        stage.let("hold")
        async with Engine(tmp_path / "j.db", workflows=[flow]) as engine:
            assert await engine.run("x") == ["/a", "/b", "Client /c", "/d", "/e"]

    asyncio.run(scenario())
    assert stage.began == ["first /a 3", "first /b", "first /e 3", "hold", "hold"]


def test_a_step_called_in_a_step_is_part_of_the_outer_one() -> None:
    @step
    async def inner() -> str:
        return current_step().key

    @step
    def inner_plain() -> str:
        return current_step().key

    @step
    async def outer() -> list[str]:
        return [await inner(), await inner_plain()]

    @workflow
    async def flow() -> list[str]:
        return await outer()

    async def scenario() -> None:
        async with Engine(":memory:"):
            run = await flow.start()
            assert await run == ["outer#1", "outer#1"]
            assert [entry.key for entry in await run.history()] == ["outer#1"]

    asyncio.run(scenario())


def test_outside_a_run_a_step_is_just_its_function() -> None:
    @step
    async def double(number: int) -> int:
        return 2 * number

    @step
    def triple(number: int) -> int:
        return 3 * number

    class Shop:
        @step
        async def price(self, cents: int) -> int:
            return cents + 1

    async def scenario() -> None:
        assert await double(2) == 4
        assert await triple(2) == 6
        assert await Shop().price(1) == 2
        assert await Shop.price(Shop(), 1) == 2
        with pytest.raises(UsageError):
            current_step()
        with pytest.raises(UsageError):
            current_run()

    asyncio.run(scenario())


is_coroutine_function: Any = vars(asyncio)["iscoroutinefunction"]


def test_a_step_and_a_workflow_look_like_their_functions() -> None:
    @step
    async def documented(number: int, *, loud: bool = False) -> int:
        """What it does."""
        return number

    class Shop:
        @step(name="shop.price")
        def price(self, cents: int) -> int:
            return cents

    @workflow
    async def flow(number: int) -> int:
        """What it is for."""
        return number

    assert documented.__doc__ == "What it does."
    assert str(inspect.signature(documented)) == "(number: 'int', *, loud: 'bool' = False) -> 'int'"
    assert list(inspect.signature(Shop().price).parameters) == ["cents"]
    assert list(inspect.signature(Shop.price).parameters) == ["self", "cents"]
    assert is_coroutine_function(documented)
    assert is_coroutine_function(flow)
    assert (documented.name, Shop.price.name, flow.name) == ("documented", "shop.price", "flow")
    assert repr(Shop.price) == "<step shop.price>"
    assert repr(flow) == "<workflow flow>"
    assert flow.__doc__ == "What it is for."
    assert asyncio.run(flow.fn(3)) == 3
    assert documented.fn.__name__ == "documented"


class Called:
    """An object that can be called is a function as well."""

    async def __call__(self, number: int) -> int:
        return number


def test_what_cannot_be_a_step_or_a_workflow_is_refused_where_it_is_decorated() -> None:
    async def coroutine() -> None: ...

    def plain() -> None: ...

    def generator() -> Iterator[int]:
        yield 1

    async def asynchronous_generator() -> Any:
        yield 1

    async def method(self) -> None: ...  # type: ignore[no-untyped-def]  # noqa: ANN001

    make_step: Any = step
    make_workflow: Any = workflow
    wrong: list[tuple[Any, Any]] = [
        (make_step, staticmethod(coroutine)),
        (make_step, classmethod(cast(Any, coroutine))),
        (make_step, 5),
        (make_step, Stage),
        (make_step, generator),
        (make_step, asynchronous_generator),
        (make_step, step(coroutine)),
        (make_step(executor=sample_steps.threads), coroutine),
        (make_step(raises=(5,)), coroutine),
        (make_step(raises=(KeyboardInterrupt,)), coroutine),
        (make_step(ignore=("nothing",)), coroutine),
        (make_workflow, plain),
        (make_workflow, method),
        (make_workflow, workflow(coroutine)),
        (make_workflow, step(coroutine)),
    ]
    for decorate, thing in wrong:
        with pytest.raises(DefinitionError):
            decorate(thing)
    assert isinstance(step(plain), Step)


def test_an_object_without_a_name_is_named_after_its_class() -> None:
    assert step(Called()).name == "Called"

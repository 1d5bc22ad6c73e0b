"""Bodies leave memory and come back; nothing of that is seen by anyone but the body's own clean-up code."""

from __future__ import annotations

import asyncio
import gc
import logging
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest

from durable_sqlite import (
    Engine,
    Run,
    Signal,
    State,
    Suspend,
    Tx,
    Unloading,
    _body_loop,
    current_run,
    each,
    sleep,
    step,
    transaction,
    workflow,
)
from tests.support.clock import ManualClock
from tests.support.gates import session_of
from tests.support.house import python
from tests.support.restarts import quiet

seen: list[str] = []


@pytest.fixture(autouse=True)
def forget() -> None:
    seen.clear()


@step
async def act(what: str) -> str:
    seen.append(what)
    return what


async def naps(engine: Engine, clock: ManualClock, *, seconds: float = 10) -> None:
    await quiet(engine)
    clock.advance(seconds)
    await quiet(engine)


@pytest.mark.parametrize("unload_after", [0.0, 3.0, 3600.0])
@pytest.mark.parametrize("max_resident", [1, 10_000])
def test_resident_and_unloaded_bodies_give_the_same_results(unload_after: float, max_resident: int) -> None:
    clock = ManualClock()

    @workflow
    async def flow(name: str) -> list[str]:
        told: list[str] = []
        for number in range(3):
            told.append(await act(f"{name}{number}"))
            await sleep(10)
        return told

    async def scenario() -> None:
        async with Engine(":memory:", clock=clock, unload_after=unload_after, max_resident=max_resident) as engine:
            runs = [await flow.start(name) for name in "abcd"]
            for _ in range(3):
                await naps(engine, clock)
            assert await engine.count(state="completed") == len(runs)
            for name, run in zip("abcd", runs, strict=True):
                assert await run == [f"{name}{number}" for number in range(3)]

    asyncio.run(scenario())
    assert sorted(seen) == sorted(f"{name}{number}" for name in "abcd" for number in range(3))


@pytest.mark.contradicts("unload", "crash", reason="it says when a body leaves memory")
def test_a_suspended_body_stays_in_memory_for_a_while_and_then_goes() -> None:
    clock = ManualClock()

    @workflow
    async def flow() -> None:
        try:
            await sleep(100)
        except Unloading:
            seen.append("unloaded")
            raise

    async def scenario() -> None:
        async with Engine(":memory:", clock=clock, unload_after=5) as engine:
            first = await flow.start()
            await naps(engine, clock, seconds=3)
            await flow.start()
            await naps(engine, clock, seconds=1.9)
            assert seen == []
            await naps(engine, clock, seconds=0.1)
            assert seen == ["unloaded"]
            await naps(engine, clock, seconds=3)
            assert seen == ["unloaded"] * 2
            await naps(engine, clock, seconds=100)
            await first

    asyncio.run(scenario())


@workflow
async def waits(name: str, seconds: float) -> str:
    """Says when it leaves memory, and when it is awake."""
    try:
        await sleep(seconds)
        await sleep(10)
    except Unloading:
        seen.append(name)
        raise
    return f"{name} is awake"


@pytest.mark.contradicts("unload", reason="it says when a body leaves memory")
def test_unless_it_is_said_otherwise_a_suspended_body_stays_in_memory_for_five_seconds() -> None:
    clock = ManualClock()

    async def scenario() -> None:
        async with Engine(":memory:", clock=clock) as engine:
            await waits.start("a", 100)
            await naps(engine, clock, seconds=4.999_999)
            assert seen == []
            await naps(engine, clock, seconds=0.000_001)
            assert seen == ["a"]

    asyncio.run(scenario())


@pytest.mark.contradicts("two", "crash", "unload", reason="it counts what one engine has in memory")
def test_the_body_that_was_used_least_recently_makes_room_first() -> None:
    clock = ManualClock()

    async def scenario() -> None:
        async with Engine(":memory:", clock=clock, unload_after=3600, max_resident=4) as engine:
            runs: list[Run[str]] = []

            async def begin(name: str, seconds: float) -> None:
                runs.append(await waits.start(name, seconds))
                await quiet(engine)

            for name, seconds in (("a", 1), ("b", 100), ("c", 100)):
                await begin(name, seconds)
            await naps(engine, clock, seconds=1)  # "a" sleeps a second time, so it is the one that was used last
            await begin("d", 100)
            assert seen == []
            for name, gone in (("e", "b"), ("f", "c"), ("g", "a")):
                await begin(name, 100)
                assert seen.pop() == gone
                assert seen == []
            for _ in range(2):
                await naps(engine, clock, seconds=100)
            assert [await run.result(timeout=20) for run in runs] == [f"{name} is awake" for name in "abcdefg"]

    asyncio.run(scenario())


@pytest.mark.contradicts("two", "crash", "unload", reason="it counts what one engine has in memory")
def test_a_body_makes_room_for_one_that_needs_it_and_else_stays() -> None:
    """However often the engine looks for runs to drive while all the room is taken."""
    clock = ManualClock()

    async def scenario() -> None:
        async with Engine(":memory:", clock=clock, unload_after=3600, max_resident=2) as engine:
            runs = [await waits.start("a", 1)]
            await quiet(engine)
            runs.append(await waits.start("b", 100))
            await naps(engine, clock, seconds=1)  # the engine looks, since "a" is due, and there is nothing to claim
            assert seen == []
            runs.append(await waits.start("c", 200))
            await quiet(engine)
            assert seen == ["b"]
            await naps(engine, clock, seconds=10)  # "a" ends
            assert await runs[0].result(timeout=20) == "a is awake"
            await naps(engine, clock, seconds=89)  # "b" is due and finds room
            assert seen == ["b"]
            await naps(engine, clock, seconds=101)
            await naps(engine, clock, seconds=10)
            assert [await run.result(timeout=20) for run in runs] == [f"{name} is awake" for name in "abc"]
            assert seen == ["b"]

    asyncio.run(scenario())


@pytest.mark.contradicts("unload", reason="it says when a body leaves memory")
def test_nothing_of_an_unloaded_body_is_left_in_memory() -> None:
    class Load:
        """Something large."""

    clock = ManualClock()
    left: list[weakref.ref[object]] = []

    @workflow
    async def flow() -> None:
        load = Load()
        left.append(weakref.ref(load))
        async with asyncio.TaskGroup() as group:
            group.create_task(asyncio.sleep(200))
            await sleep(100)

    async def scenario() -> None:
        async with Engine(":memory:", clock=clock, unload_after=5) as engine:
            run = await flow.start()
            await naps(engine, clock, seconds=4)
            left.extend(weakref.ref(one) for one in session_of(engine).worker._residents.passes.values())
            assert [ref() is None for ref in left] == [False, False]
            await naps(engine, clock, seconds=1)
            gc.collect()
            assert [ref() is None for ref in left] == [True, True]
            for _ in range(2):
                await naps(engine, clock, seconds=100)
            await run.result(timeout=20)

    asyncio.run(scenario())


def test_unloading_is_seen_by_what_is_for_every_end_and_by_nothing_else() -> None:
    """At each unload anew; and never by code that handles errors, or the cancellation of a task."""
    clock = ManualClock()

    class Held:
        async def __aenter__(self) -> None: ...

        async def __aexit__(
            self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
        ) -> None:
            seen.append(f"exit {kind and kind.__name__} {current_run().unloading}")

    @workflow
    async def flow() -> str:
        for _ in range(2):
            async with Held():
                try:
                    try:
                        await sleep(10)
                    except Exception:
                        seen.append("an error")
                    except asyncio.CancelledError:
                        seen.append("a cancellation")
                    finally:
                        seen.append(f"finally {current_run().unloading}")
                except BaseException as error:
                    seen.append(type(error).__name__)
                    raise
        return "awake"

    async def scenario() -> None:
        async with Engine(":memory:", clock=clock, unload_after=0) as engine:
            run = await flow.start()
            await quiet(engine)
            unloaded = ["finally True", "Unloading", "exit Unloading True"]
            assert seen == unloaded
            await naps(engine, clock)
            slept = ["finally False", "exit None False"]
            assert seen == [*unloaded, *slept, *unloaded]
            await naps(engine, clock)
            assert seen == [*unloaded, *slept, *unloaded, *slept, *slept]
            assert await run.result(timeout=20) == "awake"
            assert len(await run.history()) == 2

    asyncio.run(scenario())
    assert not issubclass(Unloading, Exception | asyncio.CancelledError)


@pytest.mark.contradicts("unload", reason="it says when a body leaves memory")
def test_clean_up_code_that_runs_at_an_unload_records_nothing_and_starts_no_step(tmp_path: Path) -> None:
    clock = ManualClock()

    async def branch() -> None:
        try:
            await sleep(100)
        finally:
            await act("branch")

    @workflow
    async def flow() -> str:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(branch())
                try:
                    await sleep(100)
                finally:
                    seen.append("unloading" if current_run().unloading else "awake")
                    await act("clean")
                    await asyncio.sleep(1)
                    await asyncio.gather(act("x"), act("y"))
        except BaseException:
            seen.append("caught")
            await act("caught")
            raise
        return "done"

    async def scenario() -> None:
        async with Engine(tmp_path / "j.db", clock=clock, unload_after=0) as engine:
            await flow.options(id="x").start()
            await quiet(engine)
            assert await engine.run("x").history() == []
            assert (await engine.run("x").info()).state is State.SUSPENDED
        assert "unloading" in seen
        assert "clean" not in seen
        assert "branch" not in seen
        seen.clear()
        clock.advance(100)
        async with Engine(tmp_path / "j.db", workflows=[flow], clock=clock) as engine:
            await quiet(engine)
            clock.advance(1)
            assert await engine.run("x") == "done"
            assert sorted(seen) == ["awake", "branch", "clean", "x", "y"]

    asyncio.run(scenario())


class Parting(Signal):
    pass


class Farewell(Suspend[bool]):
    pass


@transaction
def write(tx: Tx) -> None:
    seen.append("write")


@workflow
async def other() -> None:
    await Parting.wait()


async def with_a_group() -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(act("a branch"))
        await act("a group")


LAST_ACTS: dict[str, Callable[[], Coroutine[Any, Any, object]]] = {
    "a step": lambda: act("a step"),
    "a fan-out": lambda: each(act, ["one", "two"]),
    "a transaction": write,
    "a child": other.options(id="child"),
    "a start": lambda: other.options(id="started").start(),
    "a message": lambda: other.run("other").signal(Parting()),
    "a cancel": lambda: other.run("other").cancel(),
    "an answer": lambda: other.run("other").answer(Farewell, True),
    "the end of a run": lambda: other.run("other").result(),
    "a wait": Parting.wait,
    "a drain": Parting.drain,
    "a question": lambda: Farewell().wait(status="farewell"),
    "a sleep": lambda: sleep(0),
    "asyncio.sleep": lambda: asyncio.sleep(0.1),
    "asyncio.timeout": lambda: asyncio.wait_for(act("in time"), 1),
    "a task group": with_a_group,
}


@pytest.mark.parametrize("what", LAST_ACTS)
@pytest.mark.parametrize("goes", ["unloaded", "when its engine is closed"])
def test_no_durable_call_of_an_unloading_body_answers_or_does_anything(tmp_path: Path, what: str, goes: str) -> None:
    clock = ManualClock()

    @workflow
    async def flow() -> None:
        try:
            await sleep(100)
        finally:
            if current_run().unloading:
                seen.append("asks")
                await LAST_ACTS[what]()
                seen.append("answered")

    async def scenario() -> None:
        path = tmp_path / "j.db"
        async with Engine(path, clock=clock, unload_after=0 if goes == "unloaded" else 3600) as engine:
            await other.options(id="other").start()
            run = await flow.options(id="x").start()
            await quiet(engine)
            before = await run.info()
            assert before.state is State.SUSPENDED
        async with Engine(path, clock=clock, drive=False) as client:
            assert seen == ["asks"]
            assert await client.run("x").info() == before
            assert await client.run("x").history() == []
            assert [question async for question in client.questions()] == []
            assert {info.id async for info in client.runs()} == {"x", "other"}
            left = await client.run("other").info()
            assert (left.state, await client.run("other").messages()) == (State.SUSPENDED, [])
            clock.advance(100)
        async with Engine(path, clock=clock, workflows=[flow]) as engine:
            await engine.run("x").result(timeout=20)
            assert [entry.key for entry in await engine.run("x").history()] == ["sleep#1"]

    asyncio.run(scenario())
    assert seen == ["asks"]


@pytest.mark.leaves(reason="a body that does not end is left where it is")
def test_a_body_that_catches_everything_still_cannot_stay(caplog: pytest.LogCaptureFixture) -> None:
    clock = ManualClock()

    @workflow
    async def stubborn() -> None:
        while True:
            try:
                await sleep(100)
            except BaseException:
                continue

    @workflow
    async def loud() -> None:
        try:
            await sleep(100)
        except BaseException:
            raise LookupError("while unloading") from None

    @workflow
    async def returns() -> str:
        try:
            await sleep(100)
        except BaseException:
            return "swallowed"
        return "slept"

    async def scenario() -> None:
        async with Engine(":memory:", clock=clock, unload_after=0) as engine:
            runs = [await stubborn.start(), await loud.start(), await returns.start()]
            await quiet(engine)
            for run in runs:
                assert (await run.info()).state is State.SUSPENDED
            clock.advance(100)
            assert await runs[2] == "slept"

    with caplog.at_level(logging.DEBUG, logger="durable_sqlite"):
        asyncio.run(scenario())
    assert "swallows BaseException" in caplog.text
    assert "LookupError('while unloading')" in caplog.text


def test_a_program_ends_though_a_body_of_it_catches_everything_for_ever(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        """
import asyncio

from durable_sqlite import Engine, sleep, workflow


@workflow
async def stubborn() -> None:
    while True:
        try:
            await sleep(3600)
        except BaseException:
            pass


async def main() -> None:
    async with Engine(":memory:", unload_after=0) as engine:
        await stubborn.start()
        await engine.join()
        while (await engine.stats()).bodies.resident:
            await asyncio.sleep(0.001)


asyncio.run(main())
print("over")
""",
        encoding="utf-8",
    )
    assert python(program).split() == ["over"]


def test_async_generators_are_closed_in_order_when_the_body_ends_and_may_call_steps(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def source(name: str) -> AsyncIterator[int]:
        try:
            yield 1
            yield 2
        finally:
            await act(f"close {name}")
            if name == "c":
                raise LookupError("in a generator")

    @asynccontextmanager
    async def managed() -> AsyncGenerator[str]:
        yield await act("enter")
        await act("exit")

    @workflow
    async def flow() -> int:
        total = 0
        generators = [source(name) for name in "abc"]
        for generator in generators:
            async for number in generator:
                total += number
                break
        async with managed():
            total += 1
        return total

    async def scenario() -> None:
        async with Engine(":memory:"):
            run = await flow.start()
            assert await run == 4
            assert [entry.value for entry in await run.history()] == ["enter", "exit", "close a", "close b", "close c"]

    asyncio.run(scenario())
    assert "in a generator" in caplog.text


def test_async_generators_of_an_unloaded_body_are_put_away_too() -> None:
    clock = ManualClock()

    async def source() -> AsyncIterator[int]:
        try:
            yield 1
            await sleep(100)
            yield 2
        except BaseException as error:
            seen.append(type(error).__name__)
            await sleep(1)
            raise

    keep_on = [True]

    async def stubborn() -> AsyncIterator[int]:
        while True:
            try:
                yield 1
            except BaseException:
                if not keep_on:
                    raise

    @workflow
    async def flow() -> int:
        held, waiting, never = source(), source(), stubborn()
        total = await anext(held) + await anext(never)
        async for number in waiting:
            total += number
        return total

    async def scenario() -> None:
        async with Engine(":memory:", clock=clock, unload_after=0) as engine:
            run = await flow.start()
            await quiet(engine)
            assert seen == ["Unloading", "Unloading"]
            clock.advance(100)
            await quiet(engine)
            clock.advance(1)
            assert await run == 5

    kept = len(_body_loop._KEPT)
    asyncio.run(scenario())
    keep_on.clear()
    del _body_loop._KEPT[kept:]


def test_many_generators_and_tasks_that_ended_are_let_go_while_the_body_lives() -> None:
    async def source() -> AsyncIterator[int]:
        yield 1

    @workflow
    async def flow() -> int:
        total = 0
        for _ in range(200):
            async for number in source():
                total += number
            total += await asyncio.create_task(one())
        await act("end")
        return total

    async def one() -> int:
        return 1

    async def scenario() -> None:
        async with Engine(":memory:"):
            assert await flow() == 400

    asyncio.run(scenario())

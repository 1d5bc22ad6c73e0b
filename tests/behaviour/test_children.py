"""A workflow called in the body of another run is a child run, with an id of its own."""

from __future__ import annotations

import asyncio

import pytest

from durable_sqlite import (
    DuplicateKey,
    Engine,
    Kind,
    NotDurable,
    Run,
    RunFailed,
    State,
    UsageError,
    current_run,
    sleep,
    step,
    workflow,
)
from tests.support.families import children
from tests.support.stage import Stage, ended

effects: list[str] = []


@pytest.fixture(autouse=True)
def forget() -> None:
    effects.clear()


@step
async def act(what: str) -> str:
    effects.append(what)
    return what


@workflow
async def greet(name: str) -> str:
    return f"hello {await act(name)}"


@workflow
async def naps(seconds: float) -> str:
    await sleep(seconds)
    return "awake"


# Calls ---------------------------------------------------------------------------------------------------------------


def test_a_workflow_called_in_a_body_is_a_run_of_its_own_and_gives_its_result() -> None:
    @workflow
    async def parent(name: str) -> str:
        return (await greet(name)).upper()

    async def scenario() -> None:
        async with Engine(":memory:") as engine:
            run = await parent.start("ada")
            assert await run == "HELLO ADA"
            (entry,) = await run.history()
            assert (entry.key, entry.kind, entry.name, entry.value) == ("greet#1", Kind.CHILD, "greet", "hello ada")
            (child,) = await children(engine, run.id)
            info = await engine.run(child).info()
            assert (info.workflow, info.state, info.parent) == ("greet", State.COMPLETED, run.id)
            assert [entry.key for entry in await engine.run(child).history()] == ["act#1"]
            assert (await run.info()).parent is None

    asyncio.run(scenario())
    assert effects == ["ada"]


def test_children_run_beside_each_other_and_give_their_results_to_the_calls_that_made_them() -> None:
    stage = Stage()

    @step
    async def meet(name: str) -> str:
        await stage.enter(name)
        return name

    @workflow
    async def child(name: str) -> str:
        return await meet(name)

    @workflow
    async def parent() -> list[str]:
        return list(await asyncio.gather(child("a"), child("b"), child("c")))

    async def scenario() -> None:
        async with Engine(":memory:"):
            run = await parent.start()
            await stage.seen("a", "b", "c")
            for name in "cab":
                stage.let(name)
            assert await run == ["a", "b", "c"]
            assert sorted(entry.key for entry in await run.history()) == ["child#1", "child#2", "child#3"]

    asyncio.run(scenario())


def test_a_replacement_of_the_parent_inherits_no_child() -> None:
    @workflow
    async def parent(name: str) -> str:
        return await greet(name)

    async def scenario() -> None:
        async with Engine(":memory:") as engine:
            first = await parent.options(id="x").start("ada")
            await first
            (old,) = await children(engine, "x")
            second = await parent.options(id="x", if_exists="replace").start("ada")
            assert await second == "hello ada"
            (new,) = await children(engine, "x")
            assert new != old
            assert await engine.count(workflow=greet) == 2

    asyncio.run(scenario())
    assert effects == ["ada", "ada"]


def test_a_key_of_its_own_names_the_call_and_is_refused_twice() -> None:
    @workflow
    async def parent() -> str:
        first = await greet.options(key="first")("ada")
        try:
            await greet.options(key="first")("bob")
        except DuplicateKey as twice:
            return f"{first}, {type(twice).__name__}"
        return "not reached"

    async def scenario() -> None:
        async with Engine(":memory:") as engine:
            run = await parent.start()
            assert await run == "hello ada, DuplicateKey"
            assert [entry.key for entry in await run.history()] == ["first"]
            assert await engine.count(workflow=greet) == 1

    asyncio.run(scenario())


def test_tags_and_id_of_a_call_are_the_child_s() -> None:
    @workflow
    async def parent() -> str:
        return await greet.options(id="kid", tags={"team": "eu"})("ada")

    async def scenario() -> None:
        async with Engine(":memory:") as engine:
            await parent.options(id="p", tags={"team": "us"})()
            info = await engine.run("kid").info()
            assert (info.tags, info.parent) == ({"team": "eu"}, "p")

    asyncio.run(scenario())


def test_the_bare_function_of_a_workflow_is_no_child_run() -> None:
    @workflow
    async def parent() -> str:
        return await greet.fn("ada")

    async def scenario() -> None:
        async with Engine(":memory:") as engine:
            run = await parent.start()
            assert await run == "hello ada"
            assert [entry.key for entry in await run.history()] == ["act#1"]
            assert await engine.count() == 1

    asyncio.run(scenario())


def test_outside_a_run_a_called_workflow_starts_a_run_and_awaits_it() -> None:
    async def scenario() -> None:
        async with Engine(":memory:") as engine:
            assert await greet("ada") == "hello ada"
            (info,) = [info async for info in engine.runs()]
            assert (info.workflow, info.state, info.parent) == ("greet", State.COMPLETED, None)

    asyncio.run(scenario())


def test_starting_a_run_or_waiting_for_one_inside_a_step_is_refused_with_the_reason() -> None:
    given: list[Run[str]] = []

    @step
    async def meddle(how: str) -> str:
        match how:
            case "call":
                return await greet("ada")
            case "start":
                return (await greet.start("ada")).id
            case _:
                return await given[0].result()

    @workflow
    async def parent(how: str) -> str:
        return await meddle(how)

    async def scenario() -> None:
        async with Engine(":memory:") as engine:
            given.append(await naps.start(3600))
            for how in ("call", "start", "wait"):
                failed = await ended(await parent.start(how), RunFailed)
                assert failed.record is not None
                cause = failed.record.cause
                assert cause is not None
                assert cause.is_a(UsageError)
                assert "inside a step may happen more than once" in cause.message
                assert "step meddle#1" in cause.message
            assert await engine.count(workflow=greet) == 0

    asyncio.run(scenario())


@pytest.mark.contradicts("two", "crash", reason="its body names the engine that drives it")
def test_a_child_lives_in_the_journal_of_its_parent() -> None:
    async def scenario() -> None:
        async with Engine(":memory:") as other, Engine(":memory:") as engine:

            @workflow
            async def parent() -> str:
                try:
                    await greet.options(engine=other)("ada")
                except UsageError as refused:
                    return f"{refused}; {await greet.options(engine=engine)('bob')}"
                return "not reached"

            said = await parent()
            assert "choose no other engine" in said
            assert said.endswith("hello bob")
            assert await other.count() == 0

    asyncio.run(scenario())
    assert effects == ["bob"]


# Family --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("unload_after", [0.0, 3600.0])
@pytest.mark.parametrize("max_resident", [1, 2, 10_000])
def test_runs_call_runs_that_call_runs(unload_after: float, max_resident: int) -> None:
    @workflow
    async def factorial(number: int) -> int:
        if number == 0:
            return 1
        return number * await factorial(number - 1)

    async def scenario() -> None:
        async with Engine(":memory:", unload_after=unload_after, max_resident=max_resident) as engine:
            assert await (await factorial.start(6)).result(timeout=20) == 720
            assert await engine.count() == 7

    asyncio.run(scenario())


@pytest.mark.parametrize("max_resident", [1, 2, 3])
def test_many_children_find_room_one_after_the_other(max_resident: int) -> None:
    @workflow
    async def parent() -> list[str]:
        return list(await asyncio.gather(*[greet(str(number)) for number in range(8)]))

    async def scenario() -> None:
        async with Engine(":memory:", max_resident=max_resident) as engine:
            run = await parent.start()
            assert await run.result(timeout=20) == [f"hello {number}" for number in range(8)]
            await engine.join()

    asyncio.run(scenario())
    assert sorted(effects) == [str(number) for number in range(8)]


def test_join_does_not_return_between_the_end_of_a_child_and_its_parent_s_going_on() -> None:
    @step
    async def wait() -> None:
        await go.wait()

    @workflow
    async def child() -> str:
        await wait()
        return "done"

    @workflow
    async def parent() -> str:
        done = await child()
        effects.append("went on")
        return done

    go = asyncio.Event()

    async def scenario() -> None:
        async with Engine(":memory:") as engine:
            for rounds in range(1, 11):  # which turn of the loop comes first is not the same each time
                go.clear()
                run = await parent.start()
                async for info in run.watch():
                    if info.state is State.SUSPENDED:
                        break
                joined = asyncio.create_task(engine.join())
                await asyncio.sleep(0)  # it waits now
                go.set()
                await joined
                assert effects == ["went on"] * rounds
                assert (await run.info()).state is State.COMPLETED

    asyncio.run(scenario())


def test_a_body_knows_its_own_run_and_not_its_parent_s() -> None:
    @workflow
    async def child() -> str:
        return f"{current_run().run_id} {current_run().workflow}"

    @workflow
    async def parent() -> str:
        return f"{await child.options(id='kid')()}, {current_run().run_id} {current_run().workflow}"

    async def scenario() -> None:
        async with Engine(":memory:"):
            assert await parent.options(id="p")() == "kid child, p parent"

    asyncio.run(scenario())


def test_looking_at_a_child_from_the_body_is_refused() -> None:
    @workflow
    async def parent() -> str:
        handle = await greet.start("ada")
        try:
            await handle.info()
        except NotDurable as refused:
            return str(refused)
        return "not reached"

    async def scenario() -> None:
        async with Engine(":memory:"):
            assert "asking about a run inside a body is not recorded" in await parent()

    asyncio.run(scenario())

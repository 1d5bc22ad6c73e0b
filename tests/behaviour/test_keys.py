"""Keys and branches: which outcome belongs to which call."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from durable_sqlite import (
    DuplicateKey,
    Engine,
    InvalidName,
    OpenBranches,
    Run,
    RunFailed,
    current_step,
    sleep,
    step,
    workflow,
)
from tests.support.restarts import die, quiet
from tests.support.stage import Stage, ended


async def keys(run: Run[object]) -> list[str]:
    return [entry.key for entry in await run.history()]


@step
async def echo(value: str) -> str:
    return value


@step
async def other(value: str) -> str:
    return value


def test_a_call_is_counted_when_it_is_made_not_when_it_is_awaited() -> None:
    @workflow
    async def crossed() -> list[str]:
        first, second = echo("first"), echo("second")
        return [await second, await first]

    async def scenario() -> None:
        async with Engine(":memory:"):
            run = await crossed.start()
            assert await run == ["second", "first"]
            history = await run.history()
            assert [(entry.key, entry.value) for entry in history] == [("echo#2", "second"), ("echo#1", "first")]

    asyncio.run(scenario())


def test_each_task_is_a_branch_numbered_by_its_parent() -> None:
    async def pair(name: str) -> str:
        async with asyncio.TaskGroup() as group:
            one = group.create_task(echo(name))  # only wraps a call: no branch of its own
            two = group.create_task(deeper(name))
        return one.result() + two.result()

    async def deeper(name: str) -> str:
        return await echo(name)

    @workflow
    async def tree() -> list[str]:
        await other("root")
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(pair(name)) for name in "ab"]
        return [task.result() for task in tasks]

    async def scenario() -> None:
        async with Engine(":memory:"):
            run = await tree.start()
            assert await run == ["aa", "bb"]
            assert set(await keys(run)) == {"other#1", "0/echo#1", "0.0/echo#1", "1/echo#1", "1.0/echo#1"}

    asyncio.run(scenario())


def test_gather_over_steps_keeps_the_keys_of_the_calls() -> None:
    @workflow
    async def gathered() -> list[str]:
        return list(await asyncio.gather(echo("a"), other("b"), echo("c")))

    async def scenario() -> None:
        async with Engine(":memory:"):
            run = await gathered.start()
            assert await run == ["a", "b", "c"]
            assert {entry.key: entry.value for entry in await run.history()} == {
                "echo#1": "a",
                "other#1": "b",
                "echo#2": "c",
            }

    asyncio.run(scenario())


def test_wait_for_makes_no_branch_on_any_version_of_python() -> None:
    async def inner() -> str:
        return await echo("inner")

    @workflow
    async def waited() -> str:
        one = await asyncio.wait_for(echo("a"), 60)
        two = await asyncio.wait_for(inner(), 60)
        return one + two + await asyncio.create_task(inner())

    async def scenario() -> None:
        async with Engine(":memory:"):
            run = await waited.start()
            assert await run == "ainnerinner"
            assert await keys(run) == ["echo#1", "echo#2", "0/echo#1"]

    asyncio.run(scenario())


def test_branches_that_call_the_same_steps_get_their_own_results_with_all_timings_reversed(tmp_path: Path) -> None:
    stage = Stage()

    @step
    async def stamp(branch: str, number: int) -> str:
        await stage.enter(f"{branch}{number}")
        return f"{branch}{number}"

    async def three(branch: str) -> list[str]:
        return [await stamp(branch, number) for number in (1, 2, 3)]

    @workflow
    async def pair() -> list[list[str]]:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(three(branch)) for branch in "ab"]
        return [task.result() for task in tasks]

    async def scenario() -> None:
        async with Engine(tmp_path / "j.db") as engine:
            run = await pair.options(id="x").start()
            stage.let("a1", "a2")
            await stage.seen("a3", "b1")  # a is ahead by two recorded steps
            await die(engine)
        async with Engine(tmp_path / "j.db", workflows=[pair]) as engine:
            stage.let("b1", "b2", "b3")  # now b overtakes
            await stage.seen("b3")
            stage.let("a3")
            run = engine.run("x")
            assert await run == [["a1", "a2", "a3"], ["b1", "b2", "b3"]]
            assert {entry.key: entry.value for entry in await run.history()} == {
                f"{place}/stamp#{number}": f"{branch}{number}"
                for place, branch in enumerate("ab")
                for number in (1, 2, 3)
            }
        assert sorted(stage.began) == ["a1", "a2", "a3", "a3", "b1", "b1", "b2", "b3"]  # in flight at the kill: twice

    asyncio.run(scenario())


def test_an_explicit_key_replaces_name_and_count() -> None:
    seen: list[str] = []

    @step
    async def note() -> str:
        seen.append(current_step().key)
        return current_step().key

    async def inside() -> str:
        return await note.options(key="mine:2")()

    @workflow
    async def named() -> list[str]:
        return [await note.options(key="mine:1")(), await note(), await asyncio.create_task(inside())]

    async def scenario() -> None:
        async with Engine(":memory:"):
            assert await named() == ["mine:1", "note#1", "0/mine:2"]

    asyncio.run(scenario())
    assert seen == ["mine:1", "note#1", "0/mine:2"]


def test_an_explicit_key_used_twice_is_an_error_and_no_later_effect_happens() -> None:
    effects: list[str] = []

    @step
    async def act(what: str) -> None:
        effects.append(what)

    @workflow
    async def doubled() -> None:
        await act.options(key="once")("first")
        await act.options(key="once")("second")
        await act("third")

    async def scenario() -> None:
        async with Engine(":memory:"):
            failed = await ended(await doubled.start(), RunFailed)
            assert failed.record is not None
            assert failed.record.is_a(DuplicateKey)
            assert "'once'" in failed.record.message

    asyncio.run(scenario())
    assert effects == ["first"]


def test_an_explicit_key_follows_the_rule_of_names() -> None:
    @workflow
    async def odd() -> None:
        await echo.options(key="echo#1")("x")

    async def scenario() -> None:
        async with Engine(":memory:"):
            failed = await ended(await odd.start(), RunFailed)
            assert failed.record is not None
            assert failed.record.is_a(InvalidName)

    asyncio.run(scenario())


@pytest.mark.parametrize("kill", [False, True])
def test_a_branch_that_nobody_awaits_fails_the_run_and_is_named(tmp_path: Path, *, kill: bool) -> None:
    stage = Stage()

    @step
    async def slow() -> None:
        await stage.enter("slow")

    @step
    async def quick() -> None:
        await stage.enter("quick")

    async def forgotten() -> None:
        await slow()

    @workflow
    async def leaky() -> None:
        task = asyncio.create_task(forgotten())
        await quick()
        del task

    async def scenario() -> None:
        async with Engine(tmp_path / "j.db") as engine:
            await leaky.options(id="x").start()
            await stage.seen("slow", "quick")
            if kill:
                await die(engine)
            else:
                stage.let("quick")
                await engine.join()
        async with Engine(tmp_path / "j.db", workflows=[leaky]) as engine:
            stage.let("quick")
            failed = await ended(engine.run("x"), RunFailed)
            assert failed.record is not None
            assert failed.record.is_a(OpenBranches)
            assert "branches 0 " in failed.record.message
            assert "0/slow#1" in failed.record.message

    asyncio.run(scenario())


@pytest.mark.parametrize("kill", [False, True])
def test_a_call_that_nobody_awaits_fails_the_run_and_is_named(tmp_path: Path, *, kill: bool) -> None:
    stage = Stage()

    @step
    async def quick() -> None:
        await stage.enter("quick")

    @workflow
    async def leaky() -> None:
        forgotten = echo("x")
        await quick()
        del forgotten

    async def scenario() -> None:
        async with Engine(tmp_path / "j.db") as engine:
            await leaky.options(id="x").start()
            await stage.seen("quick")
            if kill:
                await die(engine)
            else:
                stage.let("quick")
                await engine.join()
        async with Engine(tmp_path / "j.db", workflows=[leaky]) as engine:
            stage.let("quick")
            failed = await ended(engine.run("x"), RunFailed)
            assert failed.record is not None
            assert failed.record.is_a(OpenBranches)
            assert "echo#1 was called and never awaited" in failed.record.message

    asyncio.run(scenario())


def test_a_branch_that_ended_may_be_left_alone() -> None:
    @workflow
    async def tidy() -> str:
        task = asyncio.create_task(echo("a"))
        await asyncio.wait([task])
        idle = asyncio.create_task(sleep(3600))
        idle.cancel()
        await asyncio.wait([idle])
        return task.result()

    async def scenario() -> None:
        async with Engine(":memory:") as engine:
            run = await tidy.start()
            await quiet(engine)
            assert await run == "a"

    asyncio.run(scenario())


def test_a_body_of_many_branches_is_driven_in_slices() -> None:
    @workflow
    async def wide() -> int:
        async def branch(number: int) -> int:
            await asyncio.sleep(0)
            return number

        numbers = await asyncio.gather(*(branch(number) for number in range(1_500)))
        return sum(numbers) + len(await echo("x"))

    async def scenario() -> None:
        async with Engine(":memory:"):
            assert await wide() == sum(range(1_500)) + 1

    asyncio.run(scenario())

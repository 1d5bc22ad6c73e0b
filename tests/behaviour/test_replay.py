"""Replay after a restart: nothing recorded runs again, and everything reaches the body in its order."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from pathlib import Path

import pytest

from durable_sqlite import Engine, current_run, current_step, sleep, step, workflow
from tests.support.restarts import cut, die, quiet
from tests.support.stage import Stage, until


def test_after_a_kill_no_recorded_step_runs_again(tmp_path: Path) -> None:
    stage = Stage()

    @step
    async def add(number: int) -> int:
        await stage.enter(str(number))
        return number + 1

    @workflow
    async def chain() -> int:
        number = 0
        for _ in range(4):
            number = await add(number)
        return number

    async def scenario() -> None:
        for killed_in in range(4):
            async with Engine(tmp_path / "j.db", workflows=[chain]) as engine:
                await chain.options(id="x").start()
                await stage.seen(str(killed_in))
                await die(engine)
            stage.let(str(killed_in))
            stage.forget()
        async with Engine(tmp_path / "j.db", workflows=[chain]) as engine:
            assert await engine.run("x") == 4
        assert stage.began == ["0", "0", "1", "1", "2", "2", "3", "3"]

    asyncio.run(scenario())


def test_a_step_killed_between_effect_and_record_runs_again_with_the_same_key_and_attempt(tmp_path: Path) -> None:
    attempts: list[tuple[int, bool, str]] = []

    @step
    async def before() -> int:
        return 1

    @step
    async def act() -> int:
        info = current_step()
        attempts.append((info.attempt, info.recovered, info.idempotency_key))
        return len(attempts)

    @workflow
    async def flow() -> int:
        return await before() + await act()

    async def scenario() -> None:
        engine = Engine(tmp_path / "j.db")

        def at(name: str) -> None:
            if name == "step.after" and attempts:
                cut(engine)

        engine._failpoint = at
        async with engine:
            await flow.options(id="x").start()
            await until(lambda: attempts)
            await asyncio.sleep(0)
            await die(engine)
        async with Engine(tmp_path / "j.db", workflows=[flow]) as engine:
            assert await engine.run("x") == 3

    asyncio.run(scenario())
    assert [attempt[:2] for attempt in attempts] == [(1, False), (1, True)]
    assert len({attempt[2] for attempt in attempts}) == 1


@pytest.mark.parametrize("unload_after", [0.0, 5.0])
def test_wait_for_the_first_repeats_the_recorded_order(tmp_path: Path, unload_after: float) -> None:
    stage = Stage()

    @step
    async def race(name: str) -> str:
        await stage.enter(name)
        return name

    async def lane(name: str) -> str:
        return await race(name)

    @workflow
    async def racing() -> list[str]:
        left = {asyncio.create_task(lane(name)) for name in "abc"}
        order: list[str] = []
        while left:
            done, left = await asyncio.wait(left, return_when=asyncio.FIRST_COMPLETED)
            order.extend(task.result() for task in done)
        await sleep(0)
        return order

    async def scenario() -> None:
        async with Engine(tmp_path / "j.db", unload_after=unload_after) as engine:
            run = await racing.options(id="x").start()
            await stage.seen("a", "b", "c")
            for number, name in enumerate("ca", start=1):
                stage.let(name)
                await until_recorded(run_id="x", engine=engine, number=number)
            await die(engine)
        async with Engine(tmp_path / "j.db", workflows=[racing]) as engine:
            stage.let("b")
            run = engine.run("x")
            assert await run == ["c", "a", "b"]

    asyncio.run(scenario())
    assert sorted(stage.began) == ["a", "b", "b", "c"]


async def until_recorded(*, run_id: str, engine: Engine, number: int) -> None:
    async with asyncio.timeout(20):
        while len(await engine.run(run_id).history()) < number:  # noqa: ASYNC110
            await asyncio.sleep(0.001)


def test_as_completed_over_tasks_and_a_queue_fed_by_branches_repeat_the_recorded_order(tmp_path: Path) -> None:
    stage = Stage()

    @step
    async def race(name: str) -> str:
        await stage.enter(name)
        return name

    async def feed(queue: asyncio.Queue[str], name: str) -> None:
        await queue.put(await race(name))

    async def lane(name: str) -> str:
        return await race(name)

    @workflow
    async def consume() -> list[str]:
        queue: asyncio.Queue[str] = asyncio.Queue()
        async with asyncio.TaskGroup() as group:
            for name in "abc":
                group.create_task(feed(queue, name))
            first = [await queue.get() for _ in range(3)]
        tasks = [asyncio.create_task(lane(name)) for name in "def"]
        second = [await task for task in asyncio.as_completed(tasks)]
        return first + second

    async def scenario() -> None:
        async with Engine(tmp_path / "j.db") as engine:
            await consume.options(id="x").start()
            for number, name in enumerate("bcafd", start=1):
                await stage.seen(name)
                stage.let(name)
                await until_recorded(run_id="x", engine=engine, number=number)
            await die(engine)
        async with Engine(tmp_path / "j.db", workflows=[consume]) as engine:
            stage.let("e")
            assert await engine.run("x") == ["b", "c", "a", "f", "d", "e"]

    asyncio.run(scenario())


def test_what_is_recorded_first_reaches_the_body_first_whatever_it_asks_for_first(tmp_path: Path) -> None:  # noqa: C901
    """A group that aborts its siblings does so at the same point on replay."""
    stage = Stage()
    caught: list[str] = []

    @step
    async def fail() -> None:
        await stage.enter("fail")
        raise ValueError

    @step
    async def work(number: int) -> int:
        await stage.enter(f"work{number}")
        return number

    @step
    async def clean(number: int) -> None:
        caught.append(f"clean{number}")

    @step
    async def last() -> None:
        await stage.enter("last")

    async def busy() -> None:
        number = 0
        try:
            while True:
                number += await work(number + 1)
        except asyncio.CancelledError:
            await clean(number)
            raise

    @workflow
    async def group() -> str:
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(busy())
                tasks.create_task(fail())
        except* Exception:
            caught.append("group")
        await last()
        return "done"

    async def scenario() -> None:
        async with Engine(tmp_path / "j.db") as engine:
            await group.options(id="x").start()
            stage.let("work1")
            await stage.seen("work2", "fail")
            stage.let("fail")
            await stage.seen("last")
            await die(engine)
        async with Engine(tmp_path / "j.db", workflows=[group]) as engine:
            stage.let("last", "work2")
            assert await engine.run("x") == "done"
            assert [entry.key for entry in await engine.run("x").history()] == [
                "0/work#1",
                "fail#1",
                "0/clean#1",
                "last#1",
            ]

    asyncio.run(scenario())
    assert caught == ["clean1", "group", "group"]


def test_every_pass_begins_in_an_empty_context_and_steps_get_copies_of_the_body_s() -> None:
    colour: ContextVar[str] = ContextVar("colour", default="none")
    seen: list[str] = []

    @step
    async def look() -> None:
        seen.append(colour.get())
        colour.set("set in a step")

    @step
    def look_in_a_thread() -> None:
        seen.append(colour.get())

    @workflow
    async def flow() -> str:
        before = colour.get()
        colour.set("set in the body")
        await look()
        await look_in_a_thread()
        return f"{before}, {colour.get()}"

    async def scenario() -> None:
        async with Engine(":memory:"):
            colour.set("set in the application")
            assert await flow() == "none, set in the body"

    asyncio.run(scenario())
    assert seen == ["set in the body", "set in the body"]


def test_a_body_can_see_whether_it_replays(tmp_path: Path) -> None:
    seen: list[tuple[str, bool, bool]] = []
    stage = Stage()

    @step
    async def act(name: str) -> None:
        await stage.enter(name)

    @workflow
    async def flow() -> tuple[str, str]:
        here = current_run()
        for name in "ab":
            await act(name)
            seen.append((name, here.replaying, here.unloading))
        return here.run_id, here.workflow

    async def scenario() -> None:
        stage.let("a")
        async with Engine(tmp_path / "j.db") as engine:
            await flow.options(id="x").start()
            await stage.seen("b")
            await die(engine)
        stage.let("b")
        async with Engine(tmp_path / "j.db", workflows=[flow]) as engine:
            assert await engine.run("x") == ["x", "flow"]

    asyncio.run(scenario())
    assert seen == [("a", False, False), ("a", True, False), ("b", False, False)]


def test_a_hundred_kills_with_progress_in_between_park_nothing(tmp_path: Path) -> None:
    stage = Stage()

    @step
    async def act(number: int) -> int:
        await stage.enter(str(number))
        return number

    @workflow
    async def long() -> int:
        return sum([await act(number) for number in range(100)])

    async def scenario() -> None:
        for number in range(100):
            async with Engine(tmp_path / "j.db", workflows=[long], synchronous="normal") as engine:
                await long.options(id="x").start()
                await stage.seen(str(number))
                await die(engine)
            stage.let(str(number))
        async with Engine(tmp_path / "j.db", workflows=[long]) as engine:
            assert await engine.run("x") == sum(range(100))
            await quiet(engine)

    asyncio.run(scenario())

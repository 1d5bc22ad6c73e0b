"""What the campaign of waiting programs has found, each made small."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from durable_sqlite import Engine, Run, RunCancelled, Signal, Suspend, Workflow, step, workflow
from tests.support.clock import ManualClock
from tests.support.restarts import die
from tests.support.stage import Stage, ended


class Hint(Signal):
    n: int


class Verdict(Suspend[str]):
    """A question that is all in its name."""


@workflow
async def judged() -> str | None:
    return await Verdict().wait(timeout=5)


def working(stage: Stage) -> tuple[Workflow[[], Any], Workflow[[], Any]]:
    """Two workflows that nobody finds who is not given them: one takes a hint while it works, one cleans up after it."""

    @step
    async def work(name: str) -> None:
        await stage.enter(name)

    async def take() -> None:
        await work(f"hint {(await Hint.wait()).n}")

    @workflow
    async def hinted() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(take())
            group.create_task(work("long"))

    @workflow
    async def tidy() -> None:
        try:
            await work("long")
        finally:
            await work("clean up")

    return hinted, tidy


def test_a_message_that_comes_with_the_start_is_taken_while_another_branch_works() -> None:
    async def scenario() -> None:
        stage = Stage()
        hinted, _ = working(stage)
        async with Engine(":memory:"):  # of a file, it would hear its own commits in the end
            run = await hinted.options(id="x").signal_with_start(Hint(n=1))
            await stage.seen("long", "hint 1")
            stage.let("long", "hint 1")
            await run.result()

    asyncio.run(scenario())


def test_an_early_answer_wins_against_a_timeout_that_passed_before_anybody_drove_the_run(tmp_path: Path) -> None:
    async def scenario() -> None:
        clock = ManualClock()
        async with Engine(tmp_path / "j.db", drive=False, clock=clock):
            run = await judged.options(id="x").start()
            await run.answer(Verdict, "yes", early=True)
        clock.advance(10)
        async with Engine(tmp_path / "j.db", clock=clock) as engine:
            assert await engine.run("x").result() == "yes"

    asyncio.run(scenario())


def test_a_run_that_was_cut_off_in_its_first_step_cleans_up_when_it_is_cancelled(tmp_path: Path) -> None:
    async def scenario() -> None:
        stage = Stage()
        _, tidy = working(stage)
        engine = Engine(tmp_path / "j.db")
        await engine.__aenter__()
        await tidy.options(id="x", engine=engine).start()
        await stage.seen("long")
        await die(engine)
        stage.forget()
        async with Engine(tmp_path / "j.db") as stranger:  # it does not know the workflow, so the run is pending
            await stranger.run("x").cancel()
        stage.let("clean up")
        async with Engine(tmp_path / "j.db", workflows=[tidy]) as engine:
            run: Run[Any] = engine.run("x")
            await ended(run, RunCancelled)
            assert stage.began == ["long", "clean up"]

    asyncio.run(scenario())

"""Dead letters of families: a failed child is resumed first, and nothing that is recorded runs again."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from durable_sqlite import (
    Engine,
    Retry,
    Run,
    RunFailed,
    State,
    StepFailed,
    step,
    workflow,
)
from tests.support.restarts import die, quiet
from tests.support.stage import ended

did: list[str] = []
down: set[str] = set()


@pytest.fixture(autouse=True)
def forget() -> None:
    did.clear()
    down.clear()


@step
async def act(what: str) -> str:
    did.append(what)
    return what


@step(retry=Retry.fixed(0, max_attempts=2))
async def call(where: str) -> str:
    did.append(where)
    if where in down:
        raise ConnectionError(f"{where} is down")
    return where.upper()


@workflow
async def leaf(where: str) -> str:
    await act(f"before {where}")
    return await call(where)


@workflow
async def middle(where: str) -> str:
    await act("middle")
    return await leaf.options(id=f"leaf-{where}")(where)


@workflow
async def top(where: str) -> str:
    await act("top")
    return await middle.options(id=f"middle-{where}")(where)


async def letters(engine: Engine) -> dict[str, tuple[str, ...]]:
    return {letter.run.id: letter.keys async for letter in engine.dead_letters(newest_first=False)}


async def fails_everywhere(engine: Engine) -> Run[str]:
    """A family of three that has failed because the bank is down."""
    down.add("bank")
    run = await top.options(id="top").start("bank")
    await ended(run, RunFailed)
    await quiet(engine)
    assert did == ["top", "middle", "before bank", "bank", "bank"]
    did.clear()
    return run


@pytest.mark.parametrize("unload_after", [0.0, 3600.0])
def test_to_resume_a_run_that_failed_by_its_child_resumes_the_child_first_and_repeats_nothing(
    unload_after: float,
) -> None:
    async def scenario() -> None:
        async with Engine(":memory:", unload_after=unload_after) as engine:
            run = await fails_everywhere(engine)
            assert await letters(engine) == {
                "top": ("middle#1",),
                "middle-bank": ("leaf#1",),
                "leaf-bank": ("call#1",),
            }
            down.clear()
            assert await run.resume() == ("middle#1",)
            assert await run.result(timeout=20) == "BANK"
            assert await letters(engine) == {}
            assert await engine.count(state="completed") == 3

    asyncio.run(scenario())
    assert did == ["bank"]


def test_a_family_that_is_resumed_too_early_fails_again_with_a_fresh_budget(tmp_path: Path) -> None:
    async def scenario() -> None:
        path = tmp_path / "j.db"
        async with Engine(path) as engine:
            run = await fails_everywhere(engine)
            await run.resume()
            await die(engine)
        did.clear()
        async with Engine(path, workflows=[top, middle, leaf]) as engine:
            failed = await ended(engine.run("top"), RunFailed)
            assert failed.record is not None
            assert "bank is down" in str(failed)
            await quiet(engine)
            assert did == ["bank", "bank"]
            assert list(await letters(engine)) == ["top", "middle-bank", "leaf-bank"]
            down.clear()
            await engine.run("top").resume()
            assert await engine.run("top").result(timeout=20) == "BANK"

    asyncio.run(scenario())
    assert did == ["bank"] * 3


def test_the_letters_of_a_family_may_be_redriven_from_below() -> None:
    async def scenario() -> None:
        async with Engine(":memory:") as engine:
            run = await fails_everywhere(engine)
            down.clear()
            await engine.run("leaf-bank").resume()
            assert await engine.run("leaf-bank").result(timeout=20) == "BANK"
            assert list(await letters(engine)) == ["top", "middle-bank"]
            await run.resume()
            assert await run.result(timeout=20) == "BANK"

    asyncio.run(scenario())
    assert did == ["bank"]


def test_a_bulk_redrive_takes_a_family_as_one() -> None:
    async def scenario() -> None:
        async with Engine(":memory:") as engine:
            run = await fails_everywhere(engine)
            other = await leaf.options(id="other").start("bank")
            await ended(other, RunFailed)
            did.clear()
            down.clear()
            # The others were resumed with their parent; nobody is asked twice.
            assert await engine.redrive() == ["top", "other"]
            assert await run.result(timeout=20) == "BANK"
            assert await other.result(timeout=20) == "BANK"
            assert await letters(engine) == {}

    asyncio.run(scenario())
    assert did == ["bank", "bank"]


def test_each_failed_child_that_is_found_in_the_error_is_resumed() -> None:
    @workflow
    async def parent() -> list[str]:
        async def branch(where: str) -> str:
            try:
                return await leaf.options(id=where)(where)
            except RunFailed as failed:
                raise ValueError("wrapped") from failed

        results = await asyncio.gather(*[branch(where) for where in ("bank", "post", "shop")], return_exceptions=True)
        failures = [said for said in results if isinstance(said, Exception)]
        if failures:
            raise ExceptionGroup("some failed", failures)
        return [str(said) for said in results]

    async def scenario() -> None:
        down.update(("bank", "shop"))
        async with Engine(":memory:") as engine:
            run = await parent.options(id="p").start()
            await ended(run, RunFailed)
            failed = (await letters(engine))["p"]
            assert sorted(failed) == ["0/leaf#1", "2/leaf#1"]
            down.clear()
            did.clear()
            assert sorted(await run.resume()) == sorted(failed)
            assert await run.result(timeout=20) == ["BANK", "POST", "SHOP"]

    asyncio.run(scenario())
    assert sorted(did) == ["bank", "shop"]


def test_a_failure_of_a_child_that_the_body_caught_stays_unless_it_is_named() -> None:
    @workflow
    async def parent() -> str:
        try:
            said = await leaf.options(id="leaf-post")("post")
        except RunFailed:
            said = "no post"
        return f"{said}, {await call('bank')}"

    async def scenario() -> None:
        down.update(("post", "bank"))
        async with Engine(":memory:") as engine:
            run = await parent.options(id="p").start()
            await ended(run, RunFailed)
            down.clear()
            down.add("bank")
            assert await run.resume() == ("call#1",)
            await ended(run, RunFailed)
            await quiet(engine)
            assert (await engine.run("leaf-post").info()).state is State.FAILED
            down.clear()
            did.clear()
            assert await run.resume(retry=["leaf#1"]) == ("leaf#1", "call#1")
            assert await run.result(timeout=20) == "POST, BANK"
            assert await engine.run("leaf-post").result() == "POST"

    asyncio.run(scenario())
    assert did == ["post", "bank"]


def test_a_failed_run_that_a_body_waited_for_by_its_handle_is_resumed_if_it_is_its_child() -> None:
    @workflow
    async def parent() -> str:
        handle = await leaf.options(id="leaf-bank").start("bank")
        return await handle.result()

    @workflow
    async def stranger() -> str:
        return await leaf.run("leaf-bank").result()

    async def scenario() -> None:
        down.add("bank")
        async with Engine(":memory:") as engine:
            run = await parent.options(id="p").start()
            await ended(run, RunFailed)
            other = await stranger.options(id="s").start()
            await ended(other, RunFailed)
            assert await letters(engine) == {"p": ("result#1",), "leaf-bank": ("call#1",), "s": ("result#1",)}
            down.clear()
            did.clear()
            await other.resume()  # it is no family, so it looks again and nothing else
            await ended(other, RunFailed)
            assert did == []
            await run.resume()
            assert await run.result(timeout=20) == "BANK"
            await other.resume()
            assert await other.result(timeout=20) == "BANK"

    asyncio.run(scenario())
    assert did == ["bank"]


def test_what_a_parent_did_after_the_failure_of_its_child_is_forgotten_with_it() -> None:
    @workflow
    async def parent() -> str:
        try:
            return await leaf.options(id="leaf-bank")("bank")
        except RunFailed:
            await act("compensate")
            raise

    async def scenario() -> None:
        down.add("bank")
        async with Engine(":memory:"):
            run = await parent.start()
            await ended(run, RunFailed)
            down.clear()
            assert await run.resume() == ("leaf#1", "act#1")
            assert await run.result(timeout=20) == "BANK"
            assert [entry.key for entry in await run.history()] == ["leaf#1"]

    asyncio.run(scenario())
    assert did == ["before bank", "bank", "bank", "compensate", "bank"]


def test_a_letter_of_a_parent_names_the_child_and_counts_no_attempts_of_its_own() -> None:
    async def scenario() -> None:
        async with Engine(":memory:") as engine:
            await fails_everywhere(engine)
            found = {letter.run.id: letter async for letter in engine.dead_letters()}
            assert [found[run].reason for run in ("top", "middle-bank", "leaf-bank")] == [
                "error",
                "error",
                "retries_exhausted",
            ]
            assert [found[run].attempts for run in ("top", "middle-bank", "leaf-bank")] == [0, 0, 2]
            error = found["top"].error
            assert error is not None
            assert error.is_a(RunFailed)
            assert error.cause is not None
            assert error.cause.cause is not None
            assert error.cause.cause.is_a(StepFailed)

    asyncio.run(scenario())

"""How messages are sent: checked at the sender, together with a start, and from the bodies of other runs."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from durable_sqlite import (
    Engine,
    NotDurable,
    Run,
    RunCancelled,
    RunConflict,
    RunExists,
    RunParked,
    Signal,
    SignalRejected,
    UnknownRun,
    Unstorable,
    UsageError,
    step,
    workflow,
)
from durable_sqlite.errors import PayloadTooLarge
from tests.support.clock import ManualClock
from tests.support.restarts import quiet
from tests.support.stage import ended

done: list[str] = []


@pytest.fixture(autouse=True)
def forget() -> None:
    done.clear()


class Coin(Signal):
    n: int = 0


class Mentioned(BaseModel):
    n: int = 0


@step
async def act(what: str) -> str:
    done.append(what)
    return what


@workflow
async def takes(count: int) -> list[int]:
    return [(await Coin.wait()).n for _ in range(count)]


@workflow
async def never_ends(mended: bool = False) -> None:
    await asyncio.get_running_loop().create_future()


# At the sender -------------------------------------------------------------------------------------------------------


def test_what_does_not_fit_the_signal_is_refused_at_the_sender_and_not_stored() -> None:
    vague: Any = Coin

    async def scenario() -> None:
        async with Engine(":memory:"):
            run = await takes.start(1)
            with pytest.raises(ValidationError):
                await run.signal(vague(n="many"))
            with pytest.raises(Unstorable, match=r"message Coin: .*n"):
                await run.signal(Coin.model_construct(n=vague))
            assert await run.messages() == []
            await run.signal(Coin(n=7))
            assert await run.result(timeout=20) == [7]

    asyncio.run(scenario())


@pytest.mark.parametrize("thing", [Mentioned(), Mentioned, Coin, Signal(), Signal, "Coin", None])
def test_what_is_no_message_is_refused_with_what_to_send_instead(thing: Any) -> None:
    async def scenario() -> None:
        async with Engine(":memory:"):
            run = await takes.start(1)
            with pytest.raises(UsageError, match=r"is no message: define `class Paid\(Signal\)"):
                await run.signal(thing)

    asyncio.run(scenario())


def test_a_message_that_is_too_large_is_refused_at_the_sender() -> None:
    class Long(Signal):
        text: str

    @workflow
    async def flow() -> int:
        return len((await Long.wait()).text)

    async def scenario() -> None:
        async with Engine(":memory:", payload_limit=100):
            run = await flow.start()
            with pytest.raises(PayloadTooLarge, match="message Long"):
                await run.signal(Long(text="x" * 100))
            assert await run.messages() == []
            await run.signal(Long(text="x" * 80))
            assert await run.result(timeout=20) == 80

    asyncio.run(scenario())


@pytest.mark.parametrize("dedupe", ["\ud800", "x" * 10_000, 5, b"m"], ids=["surrogate", "long", "number", "bytes"])
def test_a_dedupe_value_that_cannot_be_kept_is_refused_at_the_door(dedupe: Any) -> None:
    async def scenario() -> None:
        async with Engine(":memory:"):
            run = await takes.start(1)
            with pytest.raises(UsageError):
                await run.signal(Coin(), dedupe=dedupe)
            assert await run.messages() == []

    asyncio.run(scenario())


# Together with a start -----------------------------------------------------------------------------------------------


def test_signal_with_start_starts_the_run_with_the_message_in_one_commit(tmp_path: Path) -> None:
    commits: list[str] = []

    async def scenario() -> None:
        engine = Engine(tmp_path / "j.db", drive=False)
        engine._failpoint = lambda name: commits.append(name) if name == "commit.after" else None
        async with engine:
            commits.clear()
            run = await takes.options(id="x").signal_with_start(Coin(n=7), 1)
            assert commits == ["commit.after"]
            assert run.created
            assert [message.message for message in await run.messages()] == [{"n": 7}]
        async with Engine(tmp_path / "j.db", workflows=[takes]):
            assert await takes.run("x").result(timeout=20) == [7]

    asyncio.run(scenario())


def test_signal_with_start_finds_the_message_at_once_where_the_engine_drives_the_run_from_the_start() -> None:
    @workflow
    async def flow() -> tuple[int | None, int]:
        first = await Coin.wait(timeout=0)
        return (None if first is None else first.n), len(await Coin.drain())

    async def scenario() -> None:
        async with Engine(":memory:"):
            run = await flow.signal_with_start(Coin(n=7))
            assert await run.result(timeout=20) == (7, 0)

    asyncio.run(scenario())


def test_signal_with_start_attaches_to_the_run_that_is_there_and_wakes_it() -> None:
    async def scenario() -> None:
        async with Engine(":memory:", clock=ManualClock()) as engine:
            await takes.options(id="x").start(2)
            await quiet(engine)
            for number in (1, 2):
                run = await takes.options(id="x").signal_with_start(Coin(n=number), 2)
                assert not run.created
                await quiet(engine)
            assert await run.result(timeout=20) == [1, 2]

    asyncio.run(scenario())


async def completed() -> Run[Any]:
    run = await takes.options(id="x").start(0)
    await run
    return run


async def cancelled() -> Run[Any]:
    run = await takes.options(id="x").start(0)
    await run
    run = await takes.options(id="x", if_exists="replace").start(1)
    await run.cancel()
    await ended(run, RunCancelled)
    return run


def test_signal_with_start_is_refused_when_the_run_has_ended_and_replaces_it_where_that_is_asked() -> None:
    async def scenario() -> None:
        async with Engine(":memory:"):
            run = await completed()
            with pytest.raises(SignalRejected, match="run x is completed"):
                await takes.options(id="x").signal_with_start(Coin(), 0)
            assert await run.messages() == []
            run = await takes.options(id="x", if_exists="replace").signal_with_start(Coin(n=7), 1)
            assert run.created
            assert await run.result(timeout=20) == [7]

    asyncio.run(scenario())


def test_signal_with_start_that_cannot_start_stores_no_message() -> None:
    async def scenario() -> None:
        async with Engine(":memory:"):
            run = await takes.options(id="x").start(1)
            with pytest.raises(RunConflict):
                await takes.options(id="x").signal_with_start(Coin(n=1), 2)
            with pytest.raises(RunExists):
                await takes.options(id="x", if_exists="fail").signal_with_start(Coin(n=1), 1)
            with pytest.raises(RunConflict):
                await takes.options(id="x", if_exists="replace").signal_with_start(Coin(n=1), 1)
            with pytest.raises(UsageError, match="is no message"):
                await takes.options(id="y").signal_with_start(Mentioned(), 1)  # type: ignore[arg-type]  # on purpose
            assert await run.messages() == []
            with pytest.raises(UnknownRun):
                await takes.run("y").info()

    asyncio.run(scenario())


def test_signal_with_start_of_a_parked_run_leaves_the_message_there() -> None:
    async def scenario() -> None:
        async with Engine(":memory:"):
            run = await never_ends.options(id="x").start()
            await ended(run, RunParked)
            again = await never_ends.options(id="x").signal_with_start(Coin(n=7))
            assert not again.created
            assert [message.message for message in await run.messages()] == [{"n": 7}]

    asyncio.run(scenario())


def test_a_body_that_sends_with_a_start_is_told_how_to_do_it_instead() -> None:
    @workflow
    async def flow() -> str:
        try:
            await takes.signal_with_start(Coin(), 1)
        except NotDurable as error:
            return str(error)
        return ""

    async def scenario() -> None:
        async with Engine(":memory:") as engine:
            run = await flow.start()
            assert "starting a run with a message inside a body is not recorded" in await run.result(timeout=20)
            assert await engine.count() == 1

    asyncio.run(scenario())

"""The storage is in trouble, or its files are taken away: what runs, callers and waiters see of it."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from durable_sqlite import (
    DeadLetter,
    Engine,
    JournalGone,
    Signal,
    State,
    StorageStalled,
    Suspend,
    UsageError,
    sleep,
    step,
    workflow,
)
from tests.sqlite.faults import BUSY, FULL, IOERR, Hours, Impatient, Weather, faulty
from tests.support.clock import ManualClock
from tests.support.restarts import quiet
from tests.support.stage import Stage, until


class Paid(Signal, name="paid-in-storage"):
    by: str


class Review(Suspend[bool], name="review-in-storage"):
    what: str


@step
async def act(what: str) -> str:
    return what


@workflow
async def flow(what: str) -> str:
    return await act(what)


def stormy(path: Path, weather: Weather, hours: Hours, **options: Any) -> Engine:
    """An engine whose storage is as the weather is, and whose waits for it take no time."""
    engine = Engine(path, **options)
    engine._journal_options.update(hours.options, connection=faulty(weather))
    return engine


# Stalled -------------------------------------------------------------------------------------------------------------


@pytest.mark.contradicts("two", "crash", reason="its storage stalls for one engine, by one clock")
@pytest.mark.parametrize("error", [FULL, IOERR, BUSY], ids=str)
@pytest.mark.parametrize("where", ["BEGIN IMMEDIATE", "COMMIT"])
def test_runs_wait_for_the_storage_and_go_on_and_only_callers_are_told(
    tmp_path: Path, error: sqlite3.Error, where: str
) -> None:
    stage, weather = Stage(), Weather()

    @step
    async def hold(what: str) -> str:
        await stage.enter(what)
        return what

    @workflow
    async def long(what: str) -> list[str]:
        return [await hold(f"{what}{number}") for number in range(3)]

    async def scenario() -> None:
        hours = Hours(lambda now: weather.good() if now >= 300 else None)
        async with stormy(tmp_path / "j.db", weather, hours) as engine:
            runs = [await long.start(what) for what in "abc"]
            await stage.seen("a0", "b0", "c0")
            weather.bad(error, where)
            stage.let(*(f"{what}{number}" for what in "abc" for number in range(3)))
            with pytest.raises(StorageStalled):
                await flow.options(id="late").start("x")
            assert await asyncio.gather(*(run.result() for run in runs)) == [
                [f"{what}{number}" for number in range(3)] for what in "abc"
            ]
            assert hours.now >= 300
            assert await engine.count(state="failed") == await engine.count(state="parked") == 0
            assert await flow.options(id="late").start("x")

    asyncio.run(scenario())


@pytest.mark.contradicts("two", "crash", reason="its storage stalls for one engine, by one clock")
def test_a_lock_held_for_75_seconds_is_told_to_callers_after_the_stated_time_and_fails_no_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, stage = tmp_path / "j.db", Stage()

    @step
    async def hold() -> str:
        await stage.enter("hold")
        return "held"

    @workflow
    async def holds() -> str:
        return await hold()

    async def scenario() -> None:
        with closing(sqlite3.connect(path, isolation_level=None)) as shell:
            hours = Hours(lambda now: shell.execute("ROLLBACK") if now >= 75 and shell.in_transaction else None)
            engine = Engine(path, storage_patience=timedelta(seconds=20))
            engine._journal_options.update(hours.options, connection=Impatient)
            async with engine:
                run = await holds.start()
                await stage.seen("hold")
                shell.execute("BEGIN IMMEDIATE")
                stage.let("hold")
                with pytest.raises(StorageStalled, match="for 20 s"):
                    await flow.options(id="s").start("x")
                assert (await run.info()).state is State.RUNNING  # a look needs no lock
                assert await run.result() == "held"
                assert hours.now >= 75
                assert (await flow.options(id="s").start("x")).created

    with caplog.at_level(logging.WARNING, "durable_sqlite.storage"):
        asyncio.run(scenario())
    told = [record.getMessage() for record in caplog.records]
    assert any("write lock" in each and "another connection holds (SQLITE_BUSY)" in each for each in told)


def test_calls_of_a_body_are_no_calls_of_the_application(tmp_path: Path) -> None:
    weather, stage = Weather(), Stage()

    @workflow
    async def child() -> str:
        return "grown"

    @step
    async def hold() -> None:
        await stage.enter("hold")

    @workflow
    async def parent(friend: str) -> str:
        await hold()
        other = engine.run(friend)
        await other.signal(Paid(by="ada"))
        return await child()

    @workflow
    async def taker() -> str:
        return (await Paid.wait()).by

    hours = Hours(lambda now: weather.good() if now >= 3_600 else None)
    engine = stormy(tmp_path / "j.db", weather, hours)

    async def scenario() -> None:
        async with engine:
            friend = await taker.start()
            run = await parent.start(friend.id)
            await stage.seen("hold")
            weather.bad(FULL, "BEGIN", "SELECT")
            stage.let("hold")
            await until(lambda: hours.now >= 3_600)
            assert await run.result() == "grown"
            assert await friend.result() == "ada"

    asyncio.run(scenario())


def test_what_the_application_looks_up_is_answered_in_the_stated_time_too(tmp_path: Path) -> None:
    weather, hours = Weather(), Hours()

    async def scenario() -> None:
        async with stormy(tmp_path / "j.db", weather, hours, storage_patience=7) as engine:
            run = await flow.options(id="r").start("x")
            await run.result()
            weather.bad(FULL, "BEGIN")
            for look in (run.info(), run.history(), run.messages(), run.questions(), run.result(), engine.count()):
                with pytest.raises(StorageStalled, match="for 7 s"):
                    await look
            for listing in (engine.runs(), engine.questions(), engine.dead_letters(), engine.watch(), run.watch()):
                with pytest.raises(StorageStalled, match="for 7 s"):
                    await anext(listing)
            weather.good()
            assert await run.result() == "x"

    asyncio.run(scenario())


def test_a_dead_letter_is_told_of_though_the_storage_stalls_at_that_moment(tmp_path: Path) -> None:
    weather, letters = Weather(), list[DeadLetter]()

    @workflow
    async def fails() -> None:
        raise ValueError("no")

    async def scenario() -> None:
        hours = Hours(lambda now: weather.good() if now >= 3_600 else None)

        armed = False

        def failpoint(name: str) -> None:
            if name == "commit.after" and armed:
                weather.bad(FULL, "BEGIN")

        engine = stormy(tmp_path / "j.db", weather, hours, on_dead_letter=letters.append)
        engine._failpoint = failpoint
        async with engine:
            run = await fails.start()
            with pytest.raises(Exception, match="no"):
                await run.result()
            await until(lambda: letters)
            letters.clear()
            await run.resume()
            armed = True
            await until(lambda: hours.now >= 3_600)
            armed = False
            await until(lambda: letters)
            assert letters[0].run.id == run.id

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("patience", "error"), [(0, UsageError), (-1, UsageError), (float("nan"), ValueError), ("30", TypeError)]
)
def test_a_patience_that_makes_no_sense_is_refused(patience: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        Engine(":memory:", storage_patience=patience)


# Gone ----------------------------------------------------------------------------------------------------------------


@pytest.mark.contradicts("two", "crash", reason="it counts what one engine says")
@pytest.mark.parametrize("suffix", ["", "-wal"])
def test_files_that_are_taken_away_stop_the_engine_and_fail_no_run(
    tmp_path: Path, suffix: str, caplog: pytest.LogCaptureFixture
) -> None:
    path, stage, seen = tmp_path / "j.db", Stage(), list[str]()
    target = Path(f"{path}{suffix}")

    @step
    async def hold() -> str:
        await stage.enter("hold")
        return "held"

    @workflow
    async def holds() -> str:
        try:
            return await hold()
        except BaseException as error:
            seen.append(type(error).__name__)
            raise

    @workflow
    async def asks() -> bool:
        return await Review(what="x").wait()

    async def scenario() -> None:
        engine = Engine(path, workflows=[holds, asks])
        async with engine:
            run, asked = await holds.options(id="r").start(), await asks.options(id="q").start()
            await stage.seen("hold")
            waiting: list[asyncio.Task[Any]] = [
                asyncio.ensure_future(run.result()),
                asyncio.ensure_future(engine.join()),
            ]
            waiting.append(asyncio.ensure_future(_drain(engine.watch())))
            await asyncio.sleep(0)
            target.rename(tmp_path / "away")  # noqa: ASYNC240 - nothing may come in between
            for waiter in waiting:
                with pytest.raises(JournalGone, match="start again"):
                    await asyncio.wait_for(waiter, 20)
            assert seen == ["Unloading"]
            stage.let("hold")
            for call in (
                run.info(),
                run.cancel(),
                run.signal(Paid(by="x")),
                asked.answer(Review, True),
                holds.start(),
                engine.count(),
                engine.join(),
                engine.transact(lambda tx: None),
            ):
                with pytest.raises(JournalGone, match="moved, replaced or deleted"):
                    await call
            with pytest.raises(JournalGone):
                engine.connect()
        (tmp_path / "away").rename(target)
        async with Engine(path, workflows=[holds, asks]) as again:
            assert await again.run("r").result() == "held"
            await quiet(again)
            await again.run("q").answer(Review, True)
            assert await again.run("q").result() is True
            assert await again.count(state=[State.FAILED, State.PARKED]) == 0

    asyncio.run(scenario())
    told = [record for record in caplog.records if record.levelname == "CRITICAL"]
    assert len(told) == 1
    assert not any("Task exception was never retrieved" in record.getMessage() for record in caplog.records)


async def _drain(listing: Any) -> None:
    async for _ in listing:
        pass


def test_a_replaced_journal_is_not_written_into(tmp_path: Path) -> None:
    path = tmp_path / "j.db"

    async def scenario() -> None:
        async with Engine(path) as engine:
            await (await flow.start("x")).result()
            path.rename(tmp_path / "away")
            path.write_bytes(b"somebody else's")
            with pytest.raises(JournalGone):
                await engine.count()

    asyncio.run(scenario())
    assert path.read_bytes() == b"somebody else's"


# Clocks --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("jump", [3_600, -3_600])
def test_a_clock_that_jumps_by_an_hour_loses_no_timer_and_fires_none_early(tmp_path: Path, jump: int) -> None:
    """Late it may be, by what the clock was set back; and what the clock says is due, is."""
    clock = ManualClock()

    @workflow
    async def naps() -> str:
        await sleep(7_200)
        return "awake"

    async def scenario() -> None:
        async with Engine(tmp_path / "j.db", clock=clock) as engine:
            run = await naps.start()
            await quiet(engine)
            due = clock.now() + 7_200_000_000
            clock.advance(jump)
            await quiet(engine)
            assert (await run.info()).state is State.SUSPENDED
            left = (due - clock.now()) / 1_000_000
            assert left == 7_200 - jump
            clock.advance(left - 1)
            await quiet(engine)
            assert (await run.info()).state is State.SUSPENDED
            clock.advance(1)
            assert await run.result() == "awake"

    asyncio.run(scenario())

"""Care for a journal by its engine: copies, pruning, retention, and how it is doing."""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from durable_sqlite import (
    Engine,
    EngineClosed,
    Run,
    Signal,
    State,
    Suspend,
    UnknownRun,
    UsageError,
    sleep,
    step,
    workflow,
)
from durable_sqlite._clock import to_datetime
from durable_sqlite._records import Pruned, Pruning
from durable_sqlite.errors import JournalError
from tests.support.clock import START, ManualClock
from tests.support.gates import Gate, eventually, session_of
from tests.support.restarts import die, quiet
from tests.support.stage import Stage, ended, until

DAY = 86_400
STAGE: list[Stage] = []
COUNTS: dict[str, int] = {}


class Paid(Signal):
    pass


class Review(Suspend[bool]):
    pass


@step
async def act(what: str) -> str:
    if what == "bad":
        raise ValueError(what)
    COUNTS[what] = COUNTS.get(what, 0) + 1
    return what


@step
async def held(what: str) -> str:
    COUNTS[what] = COUNTS.get(what, 0) + 1
    await STAGE[0].enter(what)
    return what


@workflow
async def flow(what: str) -> str:
    return await act(what)


@workflow
async def naps(days: float) -> str:
    await sleep(days * DAY)
    return "awake"


@workflow
async def two_steps() -> list[str]:
    return [await act("first"), await held("second")]


@workflow
async def asks() -> bool:
    return await Review().wait()


@workflow
async def gets_paid() -> str:
    await Paid.wait()
    return "paid"


@workflow
async def parent(what: str) -> str:
    child = await flow.options(id="child", detached=True).start("detached")
    await flow.options(id="called")(what)
    return await child


@pytest.fixture(autouse=True)
def stage() -> Stage:
    STAGE[:] = [Stage()]
    COUNTS.clear()
    return STAGE[0]


async def ids(engine: Engine) -> set[str]:
    return {info.id async for info in engine.runs()}


async def over(*runs: Run[Any]) -> None:
    for run in runs:
        await run.result(timeout=20)


# Copies --------------------------------------------------------------------------------------------------------------


def test_a_backup_that_is_opened_elsewhere_goes_on_with_what_was_being_driven(tmp_path: Path, stage: Stage) -> None:
    async def live() -> None:
        async with Engine(tmp_path / "j.db", clock=ManualClock()) as engine:
            run = await two_steps.options(id="a").start()
            await stage.seen("second")
            assert await engine.backup(tmp_path / "copy.db") == tmp_path / "copy.db"
            stage.let("second")
            await over(run)

    async def restored() -> None:
        async with Engine(tmp_path / "elsewhere" / "j.db", workflows=[two_steps], clock=ManualClock()) as engine:
            assert (await engine.stats()).stale == 0  # the engine that was alive in the copy is struck off
            assert await engine.run("a").result(timeout=20) == ["first", "second"]

    asyncio.run(live())
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "copy.db").rename(tmp_path / "elsewhere" / "j.db")
    stage.forget()
    asyncio.run(restored())
    assert COUNTS == {"first": 1, "second": 2}  # what was recorded at that moment is not done again


def test_a_backup_is_named_relative_to_where_the_process_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        monkeypatch.chdir(tmp_path)
        async with Engine(":memory:") as engine:
            assert await engine.backup("copy.db") == tmp_path / "copy.db"
            with pytest.raises(UsageError, match="overwrite=True"):
                await engine.backup("copy.db")
            await engine.backup("copy.db", overwrite=True)
        with pytest.raises(EngineClosed):
            await engine.backup("late.db")
        with pytest.raises(EngineClosed):
            await Engine(":memory:").backup("early.db")

    asyncio.run(scenario())
    assert [each.name for each in tmp_path.iterdir()] == ["copy.db"]


def test_a_client_may_make_a_backup(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Engine(tmp_path / "j.db", drive=False) as client:
            await flow.options(id="a").start("x")
            await client.backup(tmp_path / "copy.db")
        async with Engine(tmp_path / "copy.db", drive=False) as copy:
            assert await copy.count(state="pending") == 1

    asyncio.run(scenario())


# Pruning -------------------------------------------------------------------------------------------------------------


def test_runs_that_ended_longer_ago_than_this_are_forgotten_and_their_ids_are_free() -> None:
    async def scenario() -> None:
        clock = ManualClock()
        async with Engine(":memory:", clock=clock) as engine:
            await over(await flow.options(id="old").start("x"))
            clock.advance(DAY)
            await over(await flow.options(id="young").start("x"))
            await naps.options(id="asleep").start(90)
            await quiet(engine)
            assert await engine.prune(timedelta(days=1, seconds=1)) == 0
            assert await engine.prune(DAY) == 1
            assert await ids(engine) == {"young", "asleep"}
            with pytest.raises(UnknownRun):
                await engine.run("old").info()
            again = await flow.options(id="old", if_exists="fail").start("y")
            assert await again.result(timeout=20) == "y"

    asyncio.run(scenario())


def test_dead_letters_are_kept_unless_they_were_discarded_or_are_named() -> None:
    async def scenario() -> None:
        clock = ManualClock()
        async with Engine(":memory:", clock=clock) as engine:
            runs = [await flow.options(id=run_id).start("bad") for run_id in ("a", "b")]
            for run in runs:
                await ended(run, Exception)
            await runs[1].discard()
            clock.advance(60)
            assert await engine.prune(0, states=["completed", State.CANCELLED]) == 0
            assert await engine.prune(30) == 1
            assert await ids(engine) == {"a"}
            assert await engine.prune(30, states="failed") == 1
            assert await ids(engine) == set()

    asyncio.run(scenario())


def test_a_family_goes_when_its_head_has_ended_and_a_detached_child_outlives_it() -> None:
    async def scenario() -> None:
        clock = ManualClock()
        async with Engine(":memory:", clock=clock) as engine:
            head = await parent.options(id="head").start("x")
            await over(head)
            assert await ids(engine) == {"head", "child", "called"}
            clock.advance(DAY)
            assert await engine.prune(1) == 3

    asyncio.run(scenario())


def test_a_run_that_another_waits_for_is_kept_until_that_one_has_its_result() -> None:
    async def scenario() -> None:
        clock = ManualClock()
        async with Engine(":memory:", clock=clock) as engine:
            late = await naps.options(id="late").start(1)
            waiting = await waits_for.options(id="waiting").start("late")
            await quiet(engine)
            await engine.run("waiting").pause()
            clock.advance(DAY)
            await over(late)
            clock.advance(DAY)
            assert await engine.prune(60) == 0  # the paused one is going to look at it
            await engine.run("waiting").resume()
            assert await waiting.result(timeout=20) == "awake"
            assert await engine.prune(60) == 1
            assert await ids(engine) == {"waiting"}

    asyncio.run(scenario())


@workflow
async def waits_for(run_id: str) -> str:
    run = await naps.options(id=run_id).start(1)
    return await run


def test_many_runs_are_forgotten_in_small_transactions_between_which_others_write(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def scenario() -> None:
        async with Engine(":memory:", clock=ManualClock()) as engine:
            await over(*[await flow.start("x") for _ in range(10)])
            gate = Gate(engine, "prune", monkeypatch)
            pruning = asyncio.create_task(engine.prune(0, batch=3))
            await gate.reached()
            assert await engine.count() == 7  # the first batch is committed
            assert await flow("between") == "between"
            gate.open()
            assert await pruning == 11  # the one that ended meanwhile had ended by that time
            assert gate._done > 4

    asyncio.run(scenario())


def test_a_dead_letter_that_goes_lets_go_of_those_below_it_in_the_same_call() -> None:
    async def scenario() -> None:
        clock = ManualClock()
        async with Engine(":memory:", clock=clock) as engine:
            run = await breaks.options(id="head").start()
            clock.advance(1)
            await engine.run("head").signal(Paid())
            await ended(run, Exception)
            assert await ids(engine) == {"head", "called"}
            assert await engine.prune(0) == 0
            assert await engine.prune(0, states=["completed", "failed"]) == 2

    asyncio.run(scenario())


@workflow
async def breaks() -> str:
    await flow.options(id="called")("x")
    await Paid.wait()
    return await act("bad")


@pytest.mark.parametrize(
    ("older_than", "options", "why"),
    [
        (-1, {}, "age"),
        (timedelta(days=-1), {}, "age"),
        (0, {"states": ["running"]}, "and none that are"),
        (0, {"states": "paused"}, "and none that are"),
        (0, {"batch": 0}, "batch"),
        (0, {"batch": True}, "batch"),
    ],
)
def test_a_pruning_that_makes_no_sense_is_refused(older_than: float, options: dict[str, Any], why: str) -> None:
    async def scenario() -> None:
        async with Engine(":memory:") as engine:
            await over(await flow.start("x"))
            with pytest.raises(UsageError, match=why):
                await engine.prune(older_than, **options)
            assert await engine.count() == 1

    asyncio.run(scenario())


def test_pages_of_forgotten_runs_are_used_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Engine(tmp_path / "j.db", clock=ManualClock(), synchronous="normal") as engine:
            sizes: list[int] = []
            for _ in range(3):
                await over(*[await flow.start("x" * 5_000) for _ in range(40)])
                sizes.append((await engine.stats()).journal.pages)
                assert await engine.prune(0) == 40
                assert (await engine.stats()).journal.free_pages > 40
            assert sizes[2] <= sizes[1] <= sizes[0] + 8

    asyncio.run(scenario())


# Retention -----------------------------------------------------------------------------------------------------------


def test_with_retention_old_runs_go_after_opening_and_then_hourly(tmp_path: Path) -> None:
    clock = ManualClock()

    async def before() -> None:
        async with Engine(tmp_path / "j.db", clock=clock):
            await over(await flow.options(id="old").start("x"))
            clock.advance(2 * DAY)

    async def scenario() -> None:
        async with Engine(tmp_path / "j.db", clock=clock, retention=timedelta(days=1)) as engine:
            await until_gone(engine, "old")
            await over(await flow.options(id="next").start("x"))
            await ended(await flow.options(id="letter").start("bad"), Exception)
            retention = session_of(engine)._retention
            for _ in range(24):
                alarm = await rung(retention)
                assert await ids(engine) == {"next", "letter"}
                clock.advance(3_600)
                await another(retention, alarm)
            await until_gone(engine, "next")
            assert await ids(engine) == {"letter"}
            await rung(retention)
        assert clock.armed() == []  # a closed engine prunes nothing

    asyncio.run(before())
    asyncio.run(scenario())


async def rung(retention: Any) -> Any:
    """Wait until it is done for this hour; the alarm of the next."""
    await until(lambda: retention._alarm is not None)
    return retention._alarm


async def another(retention: Any, alarm: object) -> None:
    """Wait until that alarm has rung."""
    await until(lambda: retention._alarm is not alarm)


async def until_gone(engine: Engine, run_id: str) -> None:
    async def gone() -> bool:
        return run_id not in await ids(engine)

    await eventually(gone)


async def suspended(engine: Engine, number: int) -> bool:
    return await engine.count(state="suspended") == number


@pytest.mark.parametrize("options", [{"retention": None}, {"retention": 60, "drive": False}])
def test_without_retention_and_in_clients_nothing_goes_by_itself(tmp_path: Path, options: dict[str, Any]) -> None:
    clock = ManualClock()

    async def before() -> None:
        async with Engine(tmp_path / "j.db", clock=clock):
            await over(await flow.options(id="old").start("x"))
            clock.advance(DAY)

    async def scenario() -> None:
        async with Engine(tmp_path / "j.db", clock=clock, **options) as engine:
            assert session_of(engine)._retention._task is None
            assert await ids(engine) == {"old"}

    asyncio.run(before())
    asyncio.run(scenario())


def test_a_journal_that_cannot_be_pruned_now_is_pruned_an_hour_later(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        clock = ManualClock()
        async with Engine(":memory:", clock=clock, retention=60) as engine:
            retention = session_of(engine)._retention
            alarm = await rung(retention)
            await over(await flow.options(id="old").start("x"))
            journal = session_of(engine).journal
            prune = journal.prune

            def broken(pruning: Pruning) -> asyncio.Future[Pruned]:
                monkeypatch.setattr(journal, "prune", prune)
                raise JournalError("the disk is away")

            monkeypatch.setattr(journal, "prune", broken)
            clock.advance(3_600)
            await until(lambda: retention._alarm not in (alarm, None))
            assert await ids(engine) == {"old"}
            with caplog.at_level(logging.INFO):
                clock.advance(3_600)
                await until_gone(engine, "old")
                await rung(retention)
            assert "1 run(s) that ended more than 60 s ago were forgotten" in caplog.text

    asyncio.run(scenario())
    assert "cannot be forgotten now, it is tried again later: the disk is away" in caplog.text


def test_a_journal_that_is_gone_is_pruned_no_more(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(pruning: Pruning) -> asyncio.Future[Pruned]:
        raise EngineClosed("the journal is closed")

    async def scenario() -> None:
        clock = ManualClock()
        async with Engine(":memory:", clock=clock, retention=60) as engine:
            retention = session_of(engine)._retention
            await rung(retention)
            monkeypatch.setattr(session_of(engine).journal, "prune", gone)
            clock.advance(3_600)
            await until(lambda: retention._task is not None and retention._task.done() and not retention._alarm)
            assert retention._task is not None
            assert retention._task.exception() is None

    asyncio.run(scenario())
    assert caplog.text == ""


def test_an_engine_that_closes_in_the_middle_of_pruning_closes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clock = ManualClock()

    async def before() -> None:
        async with Engine(tmp_path / "j.db", clock=clock):
            await over(await flow.options(id="old").start("x"))
            clock.advance(DAY)

    async def scenario() -> None:
        async with Engine(tmp_path / "j.db", clock=clock, retention=60):
            pass  # it had no turn yet, or has just asked
        engine = Engine(tmp_path / "j.db", clock=clock, retention=60)
        async with engine:
            await until_gone(engine, "old")
            await die(engine)

    asyncio.run(before())
    asyncio.run(scenario())


@pytest.mark.parametrize("retention", [0, -1, "month", float("inf"), timedelta(0)])
def test_a_retention_that_makes_no_sense_is_refused(retention: Any) -> None:
    with pytest.raises(UsageError, match="retention"):
        Engine(":memory:", retention=retention)


# How it is doing -----------------------------------------------------------------------------------------------------


@pytest.mark.contradicts("two", "crash", "unload", reason="it counts workers, and bodies in memory")
def test_stats_tell_what_is_in_the_journal_and_in_memory(tmp_path: Path, stage: Stage) -> None:
    async def scenario() -> None:
        clock = ManualClock()
        async with Engine(tmp_path / "j.db", clock=clock, workflows=[flow]) as engine:
            await over(await flow.start("x"))
            await ended(await flow.start("bad"), Exception)
            await naps.start(2)
            await asks.start()
            paid = await gets_paid.options(id="paid").start()
            await two_steps.start()
            await stage.seen("second")
            await eventually(partial(suspended, engine, 3))
            await paid.pause()
            await paid.signal(Paid())
            async with Engine(tmp_path / "j.db", drive=False, clock=clock) as client:
                stats = await client.stats()
                assert (stats.alive, stats.stale, stats.bodies.resident) == (2, 0, 0)
                assert stats.worker == session_of(client).name
            stats = await engine.stats()
            assert stats.at == to_datetime(START)
            assert stats.alive == stats.journal.workers == 1
            assert {state: number for state, number in stats.journal.runs.items() if number} == {
                State.COMPLETED: 1,
                State.FAILED: 1,
                State.SUSPENDED: 2,
                State.PAUSED: 1,
                State.RUNNING: 1,
            }
            assert set(stats.journal.runs) == set(State)
            assert (stats.journal.dead_letters, stats.journal.waits, stats.journal.questions) == (1, 2, 1)
            assert stats.journal.messages == 1
            assert stats.journal.next_due_at == to_datetime(START + 2 * DAY * 1_000_000)
            assert (stats.bodies.resident, stats.bodies.suspended, stats.bodies.steps) == (4, 3, 1)
            assert stats.commits.count > 5
            assert stats.commits.waiting == 0
            stage.let("second")

    asyncio.run(scenario())


def test_stats_tell_how_long_the_oldest_run_has_waited_for_a_worker(tmp_path: Path) -> None:
    async def scenario() -> None:
        clock = ManualClock()
        async with Engine(tmp_path / "j.db", clock=clock, drive=False) as engine:
            assert (await engine.stats()).oldest_pending is None
            await flow.start("x")
            clock.advance(30)
            await flow.start("y")
            clock.advance(12)
            assert (await engine.stats()).oldest_pending == 42.0

    asyncio.run(scenario())


@pytest.mark.contradicts("two", "crash", reason="it counts workers")
def test_stats_tell_of_engines_that_died(tmp_path: Path) -> None:
    async def scenario() -> None:
        engine = Engine(tmp_path / "j.db", clock=ManualClock())
        async with engine:
            await die(engine)
        async with Engine(tmp_path / "j.db", clock=ManualClock(), drive=False) as client:  # it takes over nothing
            stats = await client.stats()
            assert (stats.alive, stats.stale, stats.journal.workers) == (1, 1, 2)

    asyncio.run(scenario())

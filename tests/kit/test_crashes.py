"""A process that dies where the test says, and the one after it."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from durable_sqlite import Engine, UnknownRun, current_run, step, workflow
from durable_sqlite.cli.demo_order import order
from durable_sqlite.errors import UsageError
from durable_sqlite.testing import Crashed, Harness, _process, harness
from durable_sqlite.testing._store import about
from tests.kit import flows


def test_a_crash_after_a_step_loses_its_outcome_and_the_step_runs_again(durable: Harness) -> None:
    durable.crash(after=flows.fetch)
    with pytest.raises(Crashed, match="the process died after fetch#1"):
        durable.start(flows.once.options(id="a"), 1)
    durable.restart()
    assert durable.result(durable.engine.run("a")) == 10
    first, second = durable.calls(flows.fetch)
    assert (first.recovered, second.recovered) == (False, True)
    assert first.idempotency_key == second.idempotency_key
    assert flows.world == ["fetch 1 1"] * 2


def test_a_crash_before_a_step_comes_before_its_effect(durable: Harness) -> None:
    durable.crash(before=flows.fetch)
    with pytest.raises(Crashed, match="before fetch#1"):
        durable.start(flows.once.options(id="a"), 1)
    assert flows.world == []
    durable.restart()
    assert durable.state("a") == "completed"
    assert flows.world == ["fetch 1 1"]


def test_a_crash_after_a_step_that_failed_comes_before_its_failure_is_recorded(durable: Harness) -> None:
    durable.fail(flows.fetch)
    durable.crash(after=flows.fetch)
    with pytest.raises(Crashed):
        durable.start(flows.once.options(id="a"), 1)
    durable.restart()
    assert durable.state("a") == "completed"


@pytest.mark.parametrize("landed", [False, True])
def test_a_crash_around_a_write_keeps_it_or_loses_it(durable: Harness, landed: bool) -> None:
    durable.crash(at=1, landed=landed)
    with pytest.raises(Crashed, match=f"{'after' if landed else 'before'} write 1 .*the start of a run"):
        durable.start(flows.hears.options(id="a"))
    durable.restart()
    if landed:
        assert durable.state("a") == "suspended"
    else:
        with pytest.raises(UnknownRun):
            durable.state("a")


def test_writes_are_counted_from_where_the_crash_was_asked_for(durable: Harness) -> None:
    durable.start(flows.once, 1)
    before = len(durable.writes)
    durable.crash(at=2)
    with pytest.raises(Crashed, match=f"before write {before + 2} "):
        durable.start(flows.once, 2)
    assert "the outcome of fetch#1 and the end of the run" in durable.writes


@pytest.mark.parametrize(("after", "rows"), [(False, 0), (True, 1)])
def test_a_crash_around_a_transaction_is_a_crash_around_its_commit(tmp_path: Path, after: bool, rows: int) -> None:
    folder = tmp_path / "schema"
    folder.mkdir()
    (folder / "0001_bookings.sql").write_text("CREATE TABLE bookings (name TEXT NOT NULL) STRICT;")

    @workflow
    async def books() -> int:
        return await flows.book("ada")

    with harness(schema=folder) as durable:
        if after:
            durable.crash(after=flows.book)
        else:
            durable.crash(before=flows.book)
        with pytest.raises(Crashed, match="the outcome of book#1"):
            durable.start(books.options(id="a"))
        assert len(durable.calls(flows.book)) == 1
        durable.restart()
        assert durable.result(durable.engine.run("a")) == 1
        assert len(durable.calls(flows.book)) == 2 - rows


def test_a_run_goes_until_the_crash_however_long_that_takes(durable: Harness) -> None:
    began = durable.now
    durable.crash(after=flows.fetch)
    run = durable.run_until_crash(flows.weeks, 2)
    assert durable.now - began == timedelta(weeks=1)
    durable.restart(after=timedelta(days=3))
    assert durable.result(run) == 2
    assert durable.now - began == timedelta(days=7 + 3 + 7)


def test_a_crash_before_the_run_is_stored_gives_a_handle_on_nothing(durable: Harness) -> None:
    durable.crash(at=1)
    run = durable.run_until_crash(flows.once.options(id="mine"), 1)
    durable.restart()
    assert run.id == "mine"
    with pytest.raises(UnknownRun):
        durable.info(run)


def test_a_crash_that_does_not_come_is_said(durable: Harness) -> None:
    with pytest.raises(UsageError, match=r"call durable\.crash"):
        durable.run_until_crash(flows.once, 1)
    durable.crash(after=flows.naps)
    with pytest.raises(AssertionError, match=r"the process has not died: run .* is completed"):
        durable.run_until_crash(flows.once, 1)
    with pytest.raises(AssertionError, match=r"the process has not died: run .* it waits for"):
        durable.run_until_crash(flows.hears)


def test_a_dead_process_does_nothing_more(durable: Harness) -> None:
    durable.crash(before=flows.fetch)
    run = durable.run_until_crash(flows.once, 1)
    for dead in (
        lambda: durable.state(run),
        lambda: durable.advance(1),
        durable.settle,
        lambda: durable.engine,
        lambda: durable.start(flows.once, 2),
    ):
        with pytest.raises(Crashed, match=r"died before fetch#1: call durable.restart\(\)"):
            dead()
    assert "without a process" in repr(durable)


def test_a_crash_is_asked_for_at_one_place(durable: Harness) -> None:
    wrong: Any = durable.crash
    for options in ({}, {"at": 0}, {"after": flows.fetch, "before": flows.fetch}, {"at": 1, "after": flows.fetch}):
        with pytest.raises(UsageError, match="crash\\(\\) takes one of"):
            wrong(**options)


def test_restart_kills_a_process_that_lives(durable: Harness) -> None:
    run = durable.start(flows.rests, 10)
    assert durable.state(run) == "running"
    durable.restart()
    durable.advance(9)
    assert flows.world == []
    assert durable.result(run) == "awake"
    assert [called.recovered for called in durable.calls(flows.naps)] == [False, True]


def test_the_next_process_may_crash_as_it_takes_over(durable: Harness) -> None:
    durable.crash(after=flows.fetch)
    run = durable.run_until_crash(flows.once, 1)
    durable.crash(at=1)
    with pytest.raises(Crashed, match="that the runs of the dead process are free"):
        durable.restart()
    durable.restart()
    assert durable.result(run) == 10


def test_a_run_that_kills_each_process_is_parked(durable: Harness) -> None:
    durable.crash(after=flows.fetch)
    run = durable.run_until_crash(flows.once, 1)
    for _ in range(4):
        durable.crash(after=flows.fetch)
        with pytest.raises(Crashed):
            durable.restart()
    durable.restart()
    assert durable.info(run).reason == "crash_loop"
    assert len(durable.calls(flows.fetch)) == 5


def test_clean_up_in_a_crash_leaves_no_effect(durable: Harness) -> None:
    @step
    async def careful() -> None:
        try:
            durable.effects.append("begun")
            await asyncio.sleep(60)
        finally:
            durable.effects.append("cleaned up")

    @workflow
    async def tidy() -> None:
        try:
            await careful()
        finally:
            if not current_run().unloading:
                durable.effects.append("body")

    run = durable.start(tidy)
    durable.restart()
    assert durable.effects == ["begun", "begun"]
    durable.result(run)
    assert durable.effects == ["begun", "begun", "cleaned up", "body"]


def test_a_step_that_swallows_its_cancellation_dies_all_the_same(durable: Harness) -> None:
    @step
    async def stubborn() -> str:
        for _ in range(1_000):
            try:
                await asyncio.sleep(1)
            except asyncio.CancelledError:
                continue
        return "done"

    @workflow
    async def stands() -> str:
        return await stubborn()

    run = durable.start(stands)
    durable.restart()
    assert durable.result(run) == "done"


def test_what_was_about_to_happen_in_the_moment_of_the_crash_does_not(durable: Harness) -> None:
    @workflow
    async def pair() -> list[int]:
        return list(await asyncio.gather(flows.fetch(1), flows.fetch.options(key="other")(2)))

    durable.crash(before=flows.fetch)  # the other one is ready to begin
    run = durable.run_until_crash(pair)
    assert flows.world == []
    durable.restart()
    assert durable.result(run) == [10, 20]


def test_the_application_does_nothing_more_after_the_crash(durable: Harness) -> None:
    dead: list[bool] = []

    async def application() -> None:
        await flows.once.options(id="a").start(1)
        while True:
            dead.append(durable.effects.muted)
            await asyncio.sleep(0)

    durable.crash(before=flows.fetch)
    with pytest.raises(Crashed):
        durable.do(application())
    assert dead
    assert not any(dead)


@pytest.mark.parametrize("executor", [None, ThreadPoolExecutor])
def test_a_plain_step_in_flight_ends_before_the_next_process_begins(
    durable: Harness, monkeypatch: pytest.MonkeyPatch, executor: type[ThreadPoolExecutor] | None
) -> None:
    monkeypatch.setattr(_process, "_A_WHILE", 20)
    pool = None if executor is None else executor()
    hold, entered = threading.Event(), threading.Event()

    @step(executor=pool)
    def blocks() -> None:
        flows.world.append("began")
        entered.set()
        hold.wait(timeout=20)
        flows.world.append("ended")

    @workflow
    async def blocked() -> None:
        await blocks()

    async def start() -> None:
        await blocked.options(id="b").start()
        await asyncio.to_thread(entered.wait)

    with monkeypatch.context() as patch:
        patch.setattr(_process, "_A_WHILE", 0)
        durable.do(start())
    timer = threading.Timer(0.05, hold.set)
    timer.start()
    durable.restart()
    timer.join()
    assert flows.world == ["began", "ended"] * 2
    assert durable.state("b") == "completed"
    if pool is not None:
        pool.shutdown()


def test_a_journal_in_a_file_goes_on_in_an_engine_of_the_application(tmp_path: Path) -> None:
    path = tmp_path / "orders.db"
    with harness(path=path) as durable:
        run = durable.start(flows.hears)
        with closing(durable.engine.connect()) as connection:
            connection.execute("CREATE TABLE mine (n INTEGER)")
        durable.restart()
        assert durable.state(run) == "suspended"
        with closing(sqlite3.connect(path)) as look:
            assert look.execute("SELECT count(*) FROM durable_runs").fetchone() == (1,)

    async def main() -> str:
        async with Engine(path, workflows=[flows.hears]) as engine:
            await engine.run(run.id).signal(flows.Go(word="on"))
            return str(await engine.run(run.id).result(timeout=20))

    assert asyncio.run(main()) == "on"


def test_a_journal_in_memory_has_no_other_connection(durable: Harness) -> None:
    with pytest.raises(UsageError, match="in memory"):
        durable.engine.connect()


def test_the_journal_holds_against_its_checksums_after_a_crash(durable: Harness) -> None:
    durable.crash(at=2, landed=True)
    durable.run_until_crash(flows.both, 1)
    durable.restart()
    assert not durable.do(durable.engine.verify()).findings


def test_an_engine_that_cannot_open_says_why_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "0001_wrong.sql").write_text("CREATE NONSENSE;")
    with pytest.raises(UsageError, match="0001_wrong"), harness(schema=tmp_path):
        pass


def test_another_connection_that_holds_the_file_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "orders.db"
    with harness(path=path) as durable, closing(sqlite3.connect(path, isolation_level=None)) as other:
        pauses: list[float] = []

        def pause(seconds: float) -> None:
            pauses.append(seconds)
            other.rollback()

        monkeypatch.setattr(time, "sleep", pause)
        other.execute("BEGIN IMMEDIATE")
        assert durable.run(flows.once, 1) == 10
        assert len(pauses) == 1


def test_the_order_of_the_demo_survives_every_crash(
    durable: Harness, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DEMO_LOG", str(tmp_path / "log"))
    assert durable.crash_everywhere(order, "pot").result == "parcel from pot, shelf 7, paid 13.00, on its way"


def test_what_is_unknown_of_the_journal_is_still_told_as_a_write() -> None:
    assert about(partial(print)) == "a write"
    assert about(print) == "print"

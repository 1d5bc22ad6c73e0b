"""Several engines on one journal: what becomes of one that dies, hangs, or was away for too long."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from weakref import ref

import pytest

from durable_sqlite import (
    Engine,
    JournalError,
    LeaseLost,
    State,
    UsageError,
    _session,
    current_step,
    sleep,
    step,
    workflow,
)
from durable_sqlite._clock import SystemClock
from durable_sqlite._liveness import side_file, this_start
from durable_sqlite._records import RunRow
from durable_sqlite._session import Session
from durable_sqlite._sqlite import SqliteJournal
from tests.support.clock import ManualClock
from tests.support.gates import deaf, session_of
from tests.support.restarts import die, quiet
from tests.support.stage import Stage, until

stage = Stage()
effects: list[str] = []


@pytest.fixture(autouse=True)
def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    effects.clear()
    vars(stage).update(vars(Stage()))  # as new
    monkeypatch.setattr(_session, "LOOK_EVERY", 0.001)


@step
async def work(name: str) -> str:
    effects.append(f"{name} begins, {'again' if current_step().recovered else 'anew'}")
    try:
        await stage.enter(name)
    except asyncio.CancelledError:
        effects.append(f"{name} is cancelled")
        raise
    return name.upper()


@workflow
async def job(name: str) -> str:
    first = await work(name)
    return first + await work(f"more {name}")


@workflow
async def nap(seconds: float) -> str:
    await sleep(seconds)
    return "awake"


async def take_over(by: Engine, of: Engine) -> list[str]:
    """Let one engine give up the other; the runs that are freed."""
    journal = session_of(of).journal
    assert isinstance(journal, SqliteJournal)
    assert journal._writer is not None
    freed = await session_of(by).journal.take_over([journal._writer.batch.me], 9, b"{}", 0)
    session_of(by)._taken_over(freed)
    return [row.id for row in freed]


@pytest.mark.contradicts("two", "crash", reason="it counts workers")
def test_what_a_process_that_died_has_left_goes_on_in_one_that_lives(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Engine(tmp_path / "j.db", workflows=[job]) as living:
            await deaf(living)  # it looks by itself
            async with Engine(tmp_path / "j.db") as dying:
                await job.options(id="x", engine=dying).start("a")
                await stage.seen("a")
                neighbours = session_of(living)._neighbours
                assert neighbours is not None
                neighbours.heard()  # of the new worker; of its end it does not hear
                await die(dying)
            stage.let("a", "more a")
            assert await living.run("x").result(timeout=20) == "AMORE A"
            assert [row.name for row in await session_of(living).journal.workers()] == []
        assert effects == ["a begins, anew", "a is cancelled", "a begins, again", "more a begins, anew"]

    asyncio.run(scenario())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["j.db", "j.db-mark"]


@pytest.mark.contradicts("two", "crash", reason="the engine that starts its run is the one that drives it")
def test_the_late_result_of_a_worker_that_was_given_up_is_discarded_and_it_goes_on_with_the_rest(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        async with Engine(tmp_path / "j.db") as zombie, Engine(tmp_path / "j.db", workflows=[job]) as other:
            before = await _names(other)
            await job.options(id="x", engine=zombie).start("a")
            await stage.seen("a")
            assert await take_over(other, zombie) == ["x"]
            await until(lambda: effects.count("a begins, again") == 1)
            # Both are in the step now. Whoever comes first, only the owner's outcome counts.
            stage.let("a")
            stage.let("more a")
            assert await other.run("x").result(timeout=20) == "AMORE A"
            run = await job.options(id="y", engine=zombie).start("b")
            stage.let("b", "more b")
            assert await run.result(timeout=20) == "BMORE B"
            (after,) = await _names(other)
            assert after not in before
            history = await other.run("x").history()
            assert [entry.key for entry in history] == ["work#1", "work#2"]

    with caplog.at_level(logging.WARNING):
        asyncio.run(scenario())
    assert caplog.text.count("lost its lease") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["j.db", "j.db-mark"]


async def _names(engine: Engine) -> list[str]:
    return [row.name for row in await session_of(engine).journal.workers()]


@pytest.mark.contradicts("two", "crash", reason="the engine that starts its run is the one that drives it")
def test_a_worker_that_learns_that_it_was_given_up_breaks_off_its_steps_and_records_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        async with Engine(tmp_path / "j.db") as zombie, Engine(tmp_path / "j.db") as other:
            await job.options(id="x", engine=zombie).start("a")
            await stage.seen("a")
            await take_over(other, zombie)
            session_of(zombie).lapsed("a test says so")
            session_of(zombie).lapsed("and says so again")
            await until(lambda: "a is cancelled" in effects)
            run = other.run("x")
            assert (await run.info()).state in {State.PENDING, State.RUNNING}
            stage.let("a", "more a")
            assert await run.result(timeout=20) == "AMORE A"
            assert [entry.attempts for entry in await run.history()] == [1, 1]

    with caplog.at_level(logging.WARNING):
        asyncio.run(scenario())
    assert caplog.text.count("lost its lease") == 1


def test_a_worker_whose_lease_may_be_over_gives_its_runs_back_and_takes_them_up_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Engine(tmp_path / "j.db") as engine:
            run = await job.options(id="x").start("a")
            await stage.seen("a")
            session_of(engine).lapsed("a test says so")
            await until(lambda: "a is cancelled" in effects)
            stage.let("a", "more a")
            assert await run.result(timeout=20) == "AMORE A"
            assert effects == ["a begins, anew", "a is cancelled", "a begins, again", "more a begins, anew"]
            row = await session_of(engine).journal.run("x")
            assert row is not None
            assert row.deaths == 0, "nobody has died"

    asyncio.run(scenario())


def test_a_run_that_is_started_while_the_worker_begins_anew_is_driven_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with Engine(tmp_path / "j.db") as engine:
            await job.options(id="x").start("a")
            await stage.seen("a")
            session = session_of(engine)
            may, rejoin = asyncio.Event(), session.journal.rejoin

            async def late(name: str, at: int) -> None:
                await may.wait()
                await rejoin(name, at)

            monkeypatch.setattr(session.journal, "rejoin", late)
            session.lapsed("a test says so")
            await until(lambda: session.worker.away)
            early = await job.options(id="y").start("b")
            joining = asyncio.ensure_future(engine.join())
            await asyncio.wait([joining], timeout=0.01)
            assert not joining.done(), "there is something left to drive"
            may.set()
            others = [await job.options(id=f"z{number}").start("c") for number in range(20)]
            stage.let("a", "more a", "b", "more b")
            for _ in others:
                stage.let("c", "more c")
            assert await early.result(timeout=20) == "BMORE B"
            assert [await one.result(timeout=20) for one in others] == ["CMORE C"] * 20
            assert await engine.run("x").result(timeout=20) == "AMORE A"
            await joining

    asyncio.run(scenario())


def test_a_worker_that_cannot_begin_anew_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        async with Engine(tmp_path / "j.db") as engine:

            async def broken(_name: str, _at: int) -> None:
                raise LeaseLost("as a test says")

            monkeypatch.setattr(session_of(engine).journal, "rejoin", broken)
            session_of(engine).lapsed("a test says so")
            await until(lambda: "drives nothing any more" in caplog.text)

    asyncio.run(scenario())


def test_an_engine_may_be_closed_while_it_begins_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        async with Engine(tmp_path / "j.db") as engine:
            await job.options(id="x").start("a")
            await stage.seen("a")

            async def never(_name: str, _at: int) -> None:
                await asyncio.Event().wait()

            monkeypatch.setattr(session_of(engine).journal, "rejoin", never)
            session_of(engine).lapsed("a test says so")
            await until(lambda: session_of(engine).worker.away)
        async with Engine(tmp_path / "j.db", workflows=[job]) as engine:
            stage.let("a", "more a")
            assert await engine.run("x").result(timeout=20) == "AMORE A"

    asyncio.run(scenario())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["j.db", "j.db-mark"]


@pytest.mark.contradicts("two", "crash", reason="the engine that starts its run is the one that drives it")
@pytest.mark.parametrize("hours", [1, -1])
def test_a_clock_that_jumps_ends_no_lease_and_loses_no_timer(tmp_path: Path, hours: int) -> None:
    async def scenario() -> None:
        clock = ManualClock()
        async with (
            Engine(tmp_path / "j.db", clock=clock) as first,
            Engine(tmp_path / "j.db", clock=clock, workflows=[job]) as second,
        ):
            await job.options(id="x", engine=first).start("a")
            timer = await nap.options(id="n", engine=first).start(60)
            await stage.seen("a")
            await quiet(second)
            clock.advance(hours * 3600)
            for _ in range(3):
                await session_of(second)._neighbours.look()  # type: ignore[union-attr]
            row = await session_of(second).journal.run("x")
            assert row is not None
            assert (row.state, row.deaths) == (State.RUNNING, 0)
            stage.let("a", "more a")
            assert await second.run("x").result(timeout=20) == "AMORE A"
            clock.advance(60 - min(0, hours) * 3600)
            assert await timer.result(timeout=20) == "awake"
        assert effects == ["a begins, anew", "more a begins, anew"]

    asyncio.run(scenario())


@pytest.mark.parametrize("lease", [0, -1.0, 0.05, timedelta(milliseconds=99)])
def test_a_lease_that_no_thread_could_keep_is_refused(lease: float | timedelta) -> None:
    with pytest.raises(UsageError, match=r"Engine\(lease=\.\.\.\) takes at least 0\.1 s"):
        Engine("j.db", lease=lease)


@pytest.mark.contradicts("two", "crash", reason="it counts workers")
def test_the_journal_says_which_start_of_which_machine_a_worker_runs_on(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Engine(tmp_path / "j.db", lease=3) as first, Engine(tmp_path / "j.db", drive=False) as second:
            (seen,) = await session_of(second).journal.workers()
            assert (seen.host, seen.lease) == (this_start(), 3_000_000)
            assert side_file(tmp_path / "j.db", seen.name).exists()
            assert first != second

    asyncio.run(scenario())


@pytest.mark.contradicts("two", "crash", reason="it counts workers")
def test_a_lease_that_is_renewed_says_when_the_event_loop_last_turned(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Engine(tmp_path / "j.db", lease=0.1) as first, Engine(tmp_path / "j.db", drive=False) as second:
            began = SystemClock().now() - 1_000_000  # the loop may have turned last before that
            run = await job.options(id="x", engine=first).start("a")
            await stage.seen("a")
            async with asyncio.timeout(20):
                while True:
                    (row,) = await session_of(second).journal.workers()
                    if row.ticked_at is not None:
                        break
            assert row.holds
            assert row.beat_at is not None
            assert began <= row.ticked_at <= row.beat_at
            assert session_of(first).name == row.name
            stage.let("a", "more a")
            assert await run.result(timeout=20) == "AMORE A"

    asyncio.run(scenario())


def test_a_worker_drives_what_a_client_starts_if_the_module_of_the_workflow_is_imported(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Engine(tmp_path / "j.db"), Engine(tmp_path / "j.db", drive=False) as client:
            run = await nap.options(id="x", engine=client).start(0)
            assert await run.result(timeout=20) == "awake"

    asyncio.run(scenario())


def test_a_worker_leaves_what_it_does_not_know_alone_and_says_so_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    @workflow
    async def foreign() -> str:
        return "driven"

    async def scenario() -> None:
        async with Engine(tmp_path / "j.db"), Engine(tmp_path / "j.db", drive=False) as client:
            runs = [await foreign.options(id=name, engine=client).start() for name in "ab"]
            await until(lambda: "runs of workflow foreign" in caplog.text)
            runs.append(await foreign.options(id="c", engine=client).start())
            known = await nap.options(id="x", engine=client).start(0)
            assert await known.result(timeout=20) == "awake", "the others flow"
            assert [(await run.info()).state for run in runs] == [State.PENDING] * 3
        async with Engine(tmp_path / "j.db", workflows=[foreign]) as engine:
            assert await engine.run("c").result(timeout=20) == "driven"

    asyncio.run(scenario())
    assert caplog.text.count("does not know it") == 1
    assert "Engine(workflows=[...])" in caplog.text


def test_an_engine_in_memory_begins_anew_too() -> None:
    """It has no file beside the journal that says that it lives."""

    async def scenario() -> None:
        async with Engine(":memory:") as engine:
            run = await job.start("a")
            await stage.seen("a")
            before = session_of(engine).name
            session_of(engine).lapsed("a test says so")
            await until(lambda: "a is cancelled" in effects)
            stage.let("a", "more a")
            assert await run.result(timeout=20) == "AMORE A"
            assert session_of(engine).name != before

    asyncio.run(scenario())


def test_a_look_at_the_other_workers_that_fails_is_told_and_the_next_one_finds_what_they_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        async with Engine(tmp_path / "j.db", workflows=[job]) as living:
            neighbours = session_of(living)._neighbours
            assert neighbours is not None
            look, failed = neighbours.look, list[JournalError]()

            async def fails_once() -> Sequence[RunRow]:
                if not failed:
                    failed.append(JournalError("as a test says"))
                    raise failed[0]
                return await look()

            async with Engine(tmp_path / "j.db") as dying:
                await job.options(id="x", engine=dying).start("a")
                await stage.seen("a")
                monkeypatch.setattr(neighbours, "look", fails_once)
                await die(dying)
            stage.let("a", "more a")
            assert await living.run("x").result(timeout=20) == "AMORE A"
            assert failed

    asyncio.run(scenario())
    assert caplog.text.count("the other workers cannot be looked at now: as a test says") == 1


def test_the_keeper_of_a_lease_does_not_keep_what_the_lease_is_for() -> None:
    async def scenario() -> None:
        session = Session(Engine(":memory:")._plan())
        lease, kept = session._lease(), ref(session)
        del session
        gc.collect()
        assert kept() is None
        lease.lapsed("a test says so")
        assert lease.ticked() is None

    asyncio.run(scenario())

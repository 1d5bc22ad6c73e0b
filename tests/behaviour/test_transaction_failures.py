"""Transactions that fail: their rows are gone, everybody else's stay, and what follows is as for any step."""

from __future__ import annotations

import asyncio
import itertools
import sqlite3
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from durable_sqlite import (
    Engine,
    Outcome,
    Permanent,
    Retry,
    RetryAfter,
    RunFailed,
    RunParked,
    State,
    StepFailed,
    Tx,
    current_step,
    step,
    transaction,
    workflow,
)
from tests.support.clock import ManualClock
from tests.support.crash_points import Teller, crash_everywhere
from tests.support.restarts import die, quiet
from tests.support.stage import Stage, ended

_PATIENCE = 20.0

_ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"


def tables(tx: Tx) -> None:
    tx.execute("CREATE TABLE IF NOT EXISTS notes (no INTEGER PRIMARY KEY, text TEXT NOT NULL)")


def notes(tx: Tx) -> list[str]:
    return tx.fetch_all(str, "SELECT text FROM notes ORDER BY no")


@transaction
def note(tx: Tx, text: str) -> int:
    return tx.execute("INSERT INTO notes (text) VALUES (?)", (text,)).lastrowid or 0


class Declined(Exception):
    def __init__(self, code: str, cents: int) -> None:
        super().__init__(code, cents)
        self.code = code


class Stubborn(BaseException):
    """Neither an Exception nor one of those that end a program."""


# The policy ----------------------------------------------------------------------------------------------------------


def test_rows_written_before_an_exception_are_gone_the_error_is_recorded_and_a_retry_succeeds() -> None:
    @transaction(retry=Retry(max_attempts=3, initial_delay=10, factor=1, jitter=0))
    def twice_wrong(tx: Tx) -> int:
        attempt = current_step().attempt
        note.fn(tx, f"attempt {attempt}")
        if attempt < 3:
            raise ValueError(f"not at attempt {attempt}")
        return attempt

    @workflow
    async def flow() -> int:
        await note("before")
        return await twice_wrong()

    async def scenario() -> None:
        clock = ManualClock()
        async with Engine(":memory:", clock=clock) as engine:
            await engine.transact(tables)
            run = await flow.start()
            for _ in range(2):
                await quiet(engine)
                assert await engine.transact(notes) == ["before"]
                clock.advance(10)
            assert await run.result(timeout=_PATIENCE) == 3
            assert await engine.transact(notes) == ["before", "attempt 3"]
            entry = (await run.history())[1]
            assert (entry.key, entry.attempts, entry.outcome) == ("twice_wrong#1", 3, Outcome.VALUE)
            told = [failure.error.message for failure in entry.failures]
            assert told == ["not at attempt 1", "not at attempt 2"]

    asyncio.run(scenario())


@pytest.mark.contradicts("crash", reason="it foretells whether a step was interrupted")
def test_attempts_are_counted_over_a_restart_in_the_back_off(tmp_path: Path) -> None:
    attempts: list[int] = []

    @transaction(retry=Retry(max_attempts=3, initial_delay=100, factor=1, jitter=0))
    def fails(tx: Tx) -> None:
        note.fn(tx, "never")
        attempts.append(current_step().attempt)
        raise ValueError

    @workflow
    async def flow() -> None:
        await fails()

    async def scenario() -> None:
        clock = ManualClock()
        for _ in range(2):
            async with Engine(tmp_path / "j.db", clock=clock, workflows=[flow]) as engine:
                await engine.transact(tables)
                await flow.options(id="x").start()
                await quiet(engine)
                await die(engine)
            clock.advance(100)
        async with Engine(tmp_path / "j.db", clock=clock, workflows=[flow]) as engine:
            failed = await ended(engine.run("x"), RunFailed)
            assert failed.reason == "retries_exhausted"
            assert await engine.transact(notes) == []
        assert attempts == [1, 2, 3]

    asyncio.run(scenario())


def test_a_body_gets_a_step_failed_that_says_which_and_why() -> None:
    @transaction(retry=Retry(max_attempts=2, initial_delay=0, jitter=0))
    def fails(tx: Tx) -> None:
        tx.execute("INSERT INTO notes (text) VALUES (NULL)")

    @workflow
    async def flow() -> tuple[str, str, str, int, bool]:
        try:
            await fails.options(key="null")()
        except StepFailed as failed:
            return failed.key, failed.type, failed.message, failed.attempts, failed.is_a(sqlite3.IntegrityError)
        raise AssertionError

    async def scenario() -> None:
        async with Engine(":memory:") as engine:
            await engine.transact(tables)
            assert await flow() == (
                "null",
                "sqlite3.IntegrityError",
                "NOT NULL constraint failed: notes.text",
                2,
                True,
            )

    asyncio.run(scenario())


def test_a_declared_error_undoes_the_rows_and_is_raised_as_its_own_class_on_both_passes(tmp_path: Path) -> None:
    stage = Stage()
    got: list[Declined] = []
    calls: list[int] = []

    @transaction(raises=(Declined,), retry=Retry(max_attempts=5, initial_delay=0))
    def charge(tx: Tx) -> None:
        calls.append(1)
        note.fn(tx, "charged")
        raise Declined("51", 700)

    @step
    async def hold() -> None:
        await stage.enter("hold")

    @workflow
    async def flow() -> str:
        try:
            await charge()
        except Declined as declined:
            got.append(declined)
            await hold()
            return declined.code
        raise AssertionError

    async def scenario() -> None:
        async with Engine(tmp_path / "j.db") as engine:
            await engine.transact(tables)
            await flow.options(id="x").start()
            await stage.seen("hold")
            assert await engine.transact(notes) == []
            await die(engine)
        stage.let("hold")
        async with Engine(tmp_path / "j.db", workflows=[flow]) as engine:
            assert await engine.run("x") == "51"
            assert (await engine.run("x").history())[0].outcome is Outcome.DECLARED
        assert [(type(each), each.args) for each in got] == [(Declined, ("51", 700))] * 2
        assert calls == [1]

    asyncio.run(scenario())


def test_permanent_is_not_tried_again_and_retry_after_is_waited_for() -> None:
    attempts: list[int] = []

    @transaction(retry=Retry(max_attempts=5, initial_delay=1, jitter=0))
    def first_later_then_never(tx: Tx) -> None:
        note.fn(tx, "never")
        attempts.append(current_step().attempt)
        if len(attempts) == 1:
            raise RetryAfter(60, "in a minute")
        raise Permanent("never")

    @workflow
    async def flow() -> None:
        await first_later_then_never()

    async def scenario() -> None:
        clock = ManualClock()
        async with Engine(":memory:", clock=clock) as engine:
            await engine.transact(tables)
            run = await flow.start()
            await quiet(engine)
            clock.advance(59)
            await quiet(engine)
            assert attempts == [1]
            clock.advance(1)
            failed = await ended(run, RunFailed)
            assert failed.reason == "permanent"
            assert attempts == [1, 2]
            assert await engine.transact(notes) == []

    asyncio.run(scenario())


def test_a_failed_run_that_is_resumed_runs_the_transaction_again() -> None:
    mended: list[bool] = []

    @transaction
    def act(tx: Tx) -> str:
        note.fn(tx, "acted")
        if not mended:
            raise ValueError
        return "done"

    @workflow
    async def flow() -> str:
        await note("before")
        return await act()

    async def scenario() -> None:
        async with Engine(":memory:") as engine:
            await engine.transact(tables)
            run = await flow.start()
            await ended(run, RunFailed)
            mended.append(True)
            assert list(await run.resume()) == ["act#1"]
            assert await run.result(timeout=_PATIENCE) == "done"
            assert await engine.transact(notes) == ["before", "acted"]

    asyncio.run(scenario())


def test_whatever_else_a_transaction_raises_is_its_outcome() -> None:
    @transaction(retry=Retry(max_attempts=5, initial_delay=0))
    def raises(tx: Tx, what: str) -> None:
        note.fn(tx, what)
        if what == "base":
            raise Stubborn
        if what == "stop":
            raise StopIteration
        raise asyncio.CancelledError

    @workflow
    async def flow(what: str) -> str:
        try:
            await raises.options(retry=Retry.none())(what)
        except StepFailed as failed:
            return failed.type
        raise AssertionError

    async def scenario() -> None:
        async with Engine(":memory:") as engine:
            await engine.transact(tables)
            told = [await (await flow.start(what)).result(timeout=_PATIENCE) for what in ("base", "stop", "cancelled")]
            assert [each.rpartition(".")[2] for each in told] == ["Stubborn", "StopIteration", "CancelledError"]
            assert await engine.transact(notes) == []

    asyncio.run(scenario())


@pytest.mark.parametrize("ending", [KeyboardInterrupt, SystemExit])
def test_the_end_of_the_program_in_a_transaction_is_no_outcome_and_leaves_no_rows(
    tmp_path: Path, ending: type[BaseException]
) -> None:
    interrupt = [True]
    tries: list[int] = []

    @transaction
    def act(tx: Tx) -> int:
        tries.append(1)
        note.fn(tx, "acted")
        if interrupt[0]:
            raise ending
        return 5

    @workflow
    async def flow() -> int:
        return await act()

    async def program() -> int:
        async with Engine(tmp_path / "j.db", workflows=[flow]) as engine:
            await engine.transact(tables)
            run = await flow.options(id="x").start()
            return await run.result(timeout=_PATIENCE)

    for _ in range(7):
        with pytest.raises(ending):
            asyncio.run(program())
    interrupt[0] = False
    assert asyncio.run(program()) == 5
    assert len(tries) == 8

    async def look() -> list[str]:
        async with Engine(tmp_path / "j.db") as engine:
            return await engine.transact(notes)

    assert asyncio.run(look()) == ["acted"]


# Beside others -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("in_the_way", ["raises", "deferred", "too late", "caught and gone on"])
def test_a_transaction_that_fails_amid_fifty_runs_leaves_forty_nine_committed(tmp_path: Path, in_the_way: str) -> None:
    gate = asyncio.Event()

    @step
    async def ready() -> None:
        await gate.wait()

    @transaction
    def act(tx: Tx, number: int) -> int:
        note.fn(tx, f"note {number}")
        if number == 25:
            match in_the_way:
                case "raises":
                    raise ValueError
                case "deferred":
                    tx.execute("INSERT INTO parts VALUES (99)")
                case "too late":
                    tx.execute(_ENDLESS)
                case _:
                    with pytest.raises(TimeoutError):
                        tx.execute(_ENDLESS)
        return number

    @workflow
    async def flow(number: int) -> int:
        await ready()
        return await act.options(timeout=0.05)(number)

    def more_tables(tx: Tx) -> None:
        tables(tx)
        tx.execute("CREATE TABLE parts (note INTEGER REFERENCES notes (no) DEFERRABLE INITIALLY DEFERRED)")

    async def scenario() -> None:
        async with Engine(tmp_path / "j.db") as engine:
            await engine.transact(more_tables)
            runs = [await flow.start(number) for number in range(50)]
            gate.set()
            results = await asyncio.gather(*(run.result(timeout=_PATIENCE) for run in runs), return_exceptions=True)
            assert isinstance(results[25], RunFailed)
            del results[25]
            others = [number for number in range(50) if number != 25]
            assert results == others
            assert sorted(await engine.transact(notes)) == sorted(f"note {number}" for number in others)
            assert await engine.transact(lambda tx: tx.fetch_all(int, "SELECT note FROM parts")) == []

    asyncio.run(scenario())


def test_a_deferred_constraint_that_fails_at_the_commit_is_that_step_s_own_error() -> None:
    @transaction
    def dangling(tx: Tx) -> int:
        note.fn(tx, "dangling")
        tx.execute("INSERT INTO parts VALUES (99)")
        return 1

    @workflow
    async def flow() -> str:
        try:
            await dangling()
        except StepFailed as failed:
            await note("went on")
            return f"{failed.type}: {failed.message}"
        raise AssertionError

    def more_tables(tx: Tx) -> None:
        tables(tx)
        tx.execute("CREATE TABLE parts (note INTEGER REFERENCES notes (no) DEFERRABLE INITIALLY DEFERRED)")

    async def scenario() -> None:
        async with Engine(":memory:") as engine:
            await engine.transact(more_tables)
            assert await flow() == "sqlite3.IntegrityError: FOREIGN KEY constraint failed"
            assert await engine.transact(notes) == ["went on"]
            with pytest.raises(sqlite3.IntegrityError):
                await engine.transact(dangling)
            assert await engine.transact(notes) == ["went on"]

    asyncio.run(scenario())


def test_a_transaction_that_is_called_again_because_of_another_one_starts_the_same_runs(tmp_path: Path) -> None:
    gate = asyncio.Event()
    ids: defaultdict[int, list[str]] = defaultdict(list)

    @step
    async def ready() -> None:
        await gate.wait()

    @workflow
    async def child(number: int) -> int:
        return number

    @transaction
    def begin(tx: Tx, number: int) -> str:
        ids[number].append(tx.start(child, number))
        if number == 5:
            tx.execute("INSERT INTO parts VALUES (99)")  # which nobody hears of before the commit
        return ids[number][-1]

    @workflow
    async def flow(number: int) -> str:
        await ready()
        return await begin(number)

    def more_tables(tx: Tx) -> None:
        tables(tx)
        tx.execute("CREATE TABLE parts (note INTEGER REFERENCES notes (no) DEFERRABLE INITIALLY DEFERRED)")

    async def scenario() -> None:
        async with Engine(tmp_path / "j.db") as engine:
            await engine.transact(more_tables)
            runs = [await flow.start(number) for number in range(10)]
            gate.set()
            await ended(runs.pop(5), RunFailed)
            started = [await run.result(timeout=_PATIENCE) for run in runs]
            assert max(len(own) for own in ids.values()) > 1
            assert all(len(set(own)) == 1 for own in ids.values())
            others = [number for number in range(10) if number != 5]
            assert [await child.run(run_id).result(timeout=_PATIENCE) for run_id in started] == others
            assert await engine.count(workflow=child) == 9

    asyncio.run(scenario())


# Time ----------------------------------------------------------------------------------------------------------------


def timed(ticks: Iterator[float]) -> Engine:
    """An engine whose transactions are timed by a clock of the test's."""
    engine = Engine(":memory:")
    engine._journal_options["monotonic"] = lambda: next(ticks)
    return engine


def test_sql_that_takes_longer_than_its_time_is_interrupted_and_the_attempt_has_failed() -> None:
    @transaction(timeout=3)
    def forever(tx: Tx) -> None:
        note.fn(tx, "never")
        tx.execute(_ENDLESS)

    @workflow
    async def flow() -> tuple[str, str]:
        try:
            await forever()
        except StepFailed as failed:
            return failed.type, failed.message
        raise AssertionError

    async def scenario() -> None:
        async with timed(itertools.count(0.0, 0.25)) as engine:
            await engine.transact(tables)
            run = await flow.options(id="x").start()
            kind, message = await run.result(timeout=_PATIENCE)
            assert kind == "builtins.TimeoutError"
            assert message.startswith("run x, transaction forever#1 took longer than 3 s")
            assert await engine.transact(notes) == []

    asyncio.run(scenario())


@pytest.mark.contradicts("two", "crash", reason="it counts what one engine says")
def test_python_code_that_takes_longer_than_its_time_is_named_and_its_rows_stay(
    caplog: pytest.LogCaptureFixture,
) -> None:
    now = [0.0]

    @transaction(timeout=3)
    def slow(tx: Tx) -> None:
        note.fn(tx, "slow")
        now[0] += 4

    @workflow
    async def flow() -> None:
        await slow()

    async def scenario() -> None:
        engine = Engine(":memory:")
        engine._journal_options["monotonic"] = lambda: now[0]
        async with engine:
            await engine.transact(tables)
            await (await flow.options(id="x").start())
            assert await engine.transact(notes) == ["slow"]
            (record,) = [each for each in caplog.records if each.levelname == "WARNING"]
            assert "run x, transaction slow#1 took 4.0 s" in record.getMessage()

    asyncio.run(scenario())


def test_a_transaction_that_timed_out_may_be_tried_again() -> None:
    @transaction(retry=Retry(max_attempts=2, initial_delay=0, jitter=0), timeout=3)
    def slow_at_first(tx: Tx) -> int:
        note.fn(tx, f"attempt {current_step().attempt}")
        if current_step().attempt == 1:
            tx.execute(_ENDLESS)
        return current_step().attempt

    @workflow
    async def flow() -> int:
        return await slow_at_first()

    async def scenario() -> None:
        async with timed(itertools.count(0.0, 0.25)) as engine:
            await engine.transact(tables)
            assert await (await flow.start()).result(timeout=_PATIENCE) == 2
            assert await engine.transact(notes) == ["attempt 2"]

    asyncio.run(scenario())


# At every commit -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("unload_after", [0.0, 1_000.0])
def test_wherever_the_process_dies_rows_are_there_once_and_the_run_repeats_itself(unload_after: float) -> None:
    @step
    async def walk(to: str) -> str:
        return f"walked to {to}"

    @transaction(retry=Retry(max_attempts=2, initial_delay=1, jitter=0), raises=(Declined,))
    def moody(tx: Tx, text: str) -> str:
        note.fn(tx, f"{text} {current_step().attempt}")
        if text == "declined":
            raise Declined("51", 700)
        if current_step().attempt == 1:
            raise ValueError
        return text

    @transaction
    def begin(tx: Tx) -> str:
        note.fn(tx, "begin")
        return tx.start(child.options(id="child"))

    @workflow
    async def child() -> int:
        return await note("by the child")

    @workflow
    async def flow() -> list[Any]:
        told: list[Any] = [await note("first"), await moody("second")]
        try:
            await moody("declined")
        except Declined as declined:
            told.append(declined.code)
        told += await asyncio.gather(note("left"), walk("the middle"), note("right"))
        return [*told, await begin()]

    async def story(teller: Teller) -> list[Any]:
        await teller.engine.transact(tables)
        result = await (await flow.options(id="x").start())
        assert await teller.engine.run("child").result() > 0
        return [*result, sorted(await teller.engine.transact(notes))]

    told = crash_everywhere(story, flow, child, unload_after=unload_after, ordered=False)
    assert told.returned[-1] == sorted(["first", "second 2", "left", "right", "begin", "by the child"])
    assert told.runs["x"].state is State.COMPLETED


# Limits --------------------------------------------------------------------------------------------------------------


def test_a_run_whose_journal_is_full_of_entries_is_parked_and_leaves_no_rows_beyond_them() -> None:
    @workflow
    async def flow() -> None:
        for number in range(10):
            await note(str(number))

    async def scenario() -> None:
        async with Engine(":memory:", max_entries=4) as engine:
            await engine.transact(tables)
            run = await flow.start()
            parked = await ended(run, RunParked)
            assert parked.reason == "max_entries"
            recorded = [entry.key for entry in await run.history()]
            assert len(await engine.transact(notes)) == len(recorded) == 4

    asyncio.run(scenario())

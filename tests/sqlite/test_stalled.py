# pyright: reportPrivateUsage=false
# Batches and connections have no public name.
"""Who waits for a storage in trouble, for how long, and what those are told who do not wait any longer."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Awaitable, Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from durable_sqlite._records import Hold, IfExists, QuestionQuery, RunQuery
from durable_sqlite._sqlite import SqliteJournal
from durable_sqlite._sqlite.link import JobConnection
from durable_sqlite.errors import EngineClosed, JournalError, StorageStalled
from tests.sqlite.faults import BUSY, FULL, IOERR, Hours, Impatient, Weather, faulty, opened, storage_error
from tests.support.journals import (
    asked,
    awaits_answer,
    awaits_message,
    begin,
    entry,
    new_answer,
    new_message,
    new_question,
    new_run,
    rest,
    statement,
)
from tests.support.stage import until

READONLY = storage_error(sqlite3.SQLITE_READONLY, "SQLITE_READONLY")
CANTOPEN = storage_error(sqlite3.SQLITE_CANTOPEN, "SQLITE_CANTOPEN")
DOUBTFUL = "nobody knows yet whether this call took effect"


def heals_at(time: float, weather: Weather) -> Callable[[float], object]:
    return lambda now: weather.good() if now >= time else None


# Writes --------------------------------------------------------------------------------------------------------------


def test_a_start_is_withdrawn_after_the_stated_time_of_a_foreign_lock_and_the_run_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "j.db"

    async def main() -> None:
        with closing(sqlite3.connect(path, isolation_level=None)) as shell:
            hours = Hours(lambda now: shell.execute("ROLLBACK") if now >= 75 and shell.in_transaction else None)
            async with opened(path, connection=Impatient, **hours.options) as journal:
                row, hold = await begin(journal)
                shell.execute("BEGIN IMMEDIATE")
                recorded = journal.record(hold, entry())
                with pytest.raises(
                    StorageStalled, match=r"held the lock of .* for 30 s .SQLITE_BUSY.: nothing of this call was stored"
                ):
                    await journal.start(new_run("b"), IfExists.ATTACH, drive=True)
                assert hours.now == pytest.approx(30)
                assert not recorded.done()
                await recorded
                assert 75 <= hours.now < 76
                assert await journal.run("b") is None
                assert len(await journal.entries(row.row.no)) == 1

    asyncio.run(main())


@pytest.mark.parametrize("error", [FULL, IOERR, READONLY, BUSY], ids=str)
def test_a_withdrawn_write_is_never_applied_and_the_others_keep_their_order(
    tmp_path: Path, error: sqlite3.Error
) -> None:
    async def main() -> None:
        weather = Weather()
        hours = Hours(heals_at(40, weather))
        async with opened(tmp_path / "j.db", connection=faulty(weather), **hours.options) as journal:
            row, hold = await begin(journal)
            weather.bad(error)
            writes: list[asyncio.Future[Any]] = []
            for seq in (1, 2, 3):
                writes += [journal.record(hold, entry(f"s#{seq}", seq=seq)), journal.signal("a", new_message())]
            answers = await asyncio.gather(*writes, return_exceptions=True)
            assert [type(answer) for answer in answers] == [type(None), StorageStalled] * 3
            assert [each.seq for each in await journal.entries(row.row.no)] == [1, 2, 3]
            assert not (await journal.memory(row.row.no)).messages
            # Nothing is left over of it.
            await journal.signal("a", new_message())
            assert journal._writer is not None
            assert (journal._writer._clients, journal._writer._bodies, journal._writer.batch.singly) == (0, 0, 0)

    asyncio.run(main())


def test_a_write_is_withdrawn_from_among_those_that_are_applied_apart(tmp_path: Path) -> None:
    async def main() -> None:
        weather = Weather()
        hours = Hours(heals_at(40, weather))
        async with opened(tmp_path / "j.db", connection=faulty(weather), **hours.options) as journal:
            row, hold = await begin(journal)
            await journal.record(hold, entry())
            message = journal.signal("a", new_message())
            twice = journal.record(hold, entry("s#1", seq=9))  # so that each of the batch is applied by itself
            writes = [journal.record(hold, entry(f"s#{seq}", seq=seq)) for seq in (2, 3)]
            weather.spared = 1
            weather.bad(FULL)
            with pytest.raises(StorageStalled):
                await message
            assert journal._writer is not None
            assert journal._writer.batch.singly == 3
            with pytest.raises(JournalError, match="nothing changed"):
                await twice
            await asyncio.gather(*writes)
            assert [each.seq for each in await journal.entries(row.row.no)] == [1, 2, 3]
            assert not (await journal.memory(row.row.no)).messages

    asyncio.run(main())


ASKED: dict[str, Callable[[SqliteJournal], Awaitable[object]]] = {
    "start": lambda journal: journal.start(new_run("b"), IfExists.ATTACH, drive=True),
    "signal": lambda journal: journal.signal("a", new_message()),
    "answer": lambda journal: journal.answer("a", new_answer(early=True)),
    "cancel": lambda journal: journal.cancel("a", asked()),
    "terminate": lambda journal: journal.terminate("a", asked()),
    "pause": lambda journal: journal.pause("a", asked()),
    "discard": lambda journal: journal.discard("a", 5),
    "transact": lambda journal: journal.transact(statement("SELECT 1")),
    "run": lambda journal: journal.run("a"),
    "runs": lambda journal: journal.runs(RunQuery()),
    "count": lambda journal: journal.count(RunQuery()),
    "entries": lambda journal: journal.entries(1),
    "memory": lambda journal: journal.memory(1),
    "waits": lambda journal: journal.waits(1),
    "questions": lambda journal: journal.questions(QuestionQuery()),
    "changes": lambda journal: journal.changes(RunQuery(), 0),
}


@pytest.mark.parametrize("verb", list(ASKED))
def test_what_the_application_asks_is_answered_in_the_stated_time(tmp_path: Path, verb: str) -> None:
    async def main() -> None:
        weather, hours = Weather(), Hours()
        async with opened(tmp_path / "j.db", connection=faulty(weather), patience=12.5, **hours.options) as journal:
            await begin(journal)
            weather.bad(FULL)
            with pytest.raises(StorageStalled, match=r"12\.5 s .*SQLITE_FULL") as caught:
                await ASKED[verb](journal)
            assert hours.now == pytest.approx(12.5, abs=0.01)
            assert "Runs wait and go on by themselves" in str(caught.value)
            weather.good()

    asyncio.run(main())


FOR_EVER: dict[str, Callable[[SqliteJournal, Any], Awaitable[object]]] = {
    "record": lambda journal, hold: journal.record(hold, entry()),
    "claim": lambda journal, hold: journal.claim(["ship"], 9, 9, suspects=False),
    "start in a body": lambda journal, hold: journal.start(new_run("b"), IfExists.ATTACH, drive=True, caller=hold),
    "signal in a body": lambda journal, hold: journal.signal("a", new_message(), caller=hold),
    "cancel in a body": lambda journal, hold: journal.cancel("a", asked(), caller=hold),
    "run in a body": lambda journal, hold: journal.run("a", patient=True),
    "memories": lambda journal, hold: journal.memories([1]),
    "mail": lambda journal, hold: journal.mail(1),
    "next_due": lambda journal, hold: journal.next_due(["ship"]),
    "pulse": lambda journal, hold: journal.pulse(),
}


@pytest.mark.parametrize("verb", list(FOR_EVER))
def test_what_a_run_asks_waits_for_as_long_as_it_takes_and_at_a_bounded_pace(tmp_path: Path, verb: str) -> None:
    async def main() -> None:
        weather = Weather()
        hours = Hours(heals_at(3_600, weather))
        async with opened(tmp_path / "j.db", connection=faulty(weather), **hours.options) as journal:
            _, hold = await begin(journal)
            weather.bad(FULL)
            await FOR_EVER[verb](journal, hold)
            assert hours.now >= 3_600
            assert max(hours.pauses) <= 5
            assert len(hours.pauses) < 3_600 / 5 + 20

    asyncio.run(main())


def test_whoever_asks_during_a_long_pause_is_answered_in_time_too(tmp_path: Path) -> None:
    async def main() -> None:
        weather, late, times = Weather(), list[asyncio.Future[Any]](), list[float]()

        def then(now: float) -> None:
            if now >= 100 and not late:
                times.append(now)
                late.append(journal.signal("a", new_message()))
                late[0].add_done_callback(lambda _: times.append(hours.now))

        hours = Hours(then)
        async with opened(tmp_path / "j.db", connection=faulty(weather), patience=1.0, **hours.options) as journal:
            _, hold = await begin(journal)
            weather.bad(FULL)
            recorded = journal.record(hold, entry())
            await until(lambda: len(times) == 2)
            assert times[1] - times[0] == pytest.approx(1.0)
            assert isinstance(late[0].exception(), StorageStalled)
            weather.good()
            await recorded

    asyncio.run(main())


def test_a_short_obstacle_withdraws_nothing_of_a_long_queue(tmp_path: Path) -> None:
    """The stated time is that of the obstacle, not that of those who were busy before."""

    async def main() -> None:
        weather = Weather()
        hours = Hours(heals_at(1_000.5, weather))
        async with opened(tmp_path / "j.db", connection=faulty(weather), **hours.options) as journal:
            await begin(journal)
            sent = journal.signal("a", new_message())
            hours.now = 1_000.0
            weather.bad(BUSY)
            await sent

    asyncio.run(main())


# Doubt ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("landed", [True, False])
def test_a_write_in_doubt_is_told_as_unknown_and_takes_effect_then_or_never(tmp_path: Path, landed: bool) -> None:
    async def main() -> None:
        weather = Weather()
        hours = Hours(heals_at(60, weather))
        async with opened(tmp_path / "j.db", connection=faulty(weather), **hours.options) as journal:
            row, hold = await begin(journal)
            recorded = journal.record(hold, entry())
            sent = journal.signal("a", new_message())
            weather.bad(IOERR, "COMMIT", after=landed)
            weather.bad(IOERR, "PRAGMA synchronous")  # it cannot be opened again either
            with pytest.raises(StorageStalled, match=DOUBTFUL):
                await sent
            assert hours.now == pytest.approx(30)
            later = journal.signal("a", new_message("later"))
            await recorded
            with pytest.raises(StorageStalled, match="nothing of this call was stored"):
                await later
            assert hours.now >= 60
            memory = await journal.memory(row.row.no)
            assert len(memory.entries) == 1
            assert [message.name for message in memory.messages] == (["paid"] if landed else [])

    asyncio.run(main())


def test_a_run_whose_start_was_in_doubt_is_left_to_whoever_looks_next(tmp_path: Path) -> None:
    """Its caller was told that nobody knows, so nobody here drives it, though this worker got it."""

    async def main() -> None:
        weather = Weather()
        hours = Hours(heals_at(60, weather))
        async with opened(tmp_path / "j.db", connection=faulty(weather), **hours.options) as journal:
            _, hold = await begin(journal)
            weather.bad(IOERR, "COMMIT", after=True)
            weather.bad(IOERR, "PRAGMA synchronous")
            with pytest.raises(StorageStalled, match=DOUBTFUL):
                await journal.start(new_run("b"), IfExists.ATTACH, drive=True)
            await journal.record(hold, entry())
            (claimed,) = await journal.claim(["ship"], 99, 9, suspects=False)
            assert claimed.row.id == "b"
            assert claimed.row.deaths == 0

    asyncio.run(main())


TAKING: dict[str, Callable[[SqliteJournal, Hold], Awaitable[Any]]] = {
    "signal": lambda journal, hold: journal.signal("a", new_message(), at_rest=hold),
    "answer": lambda journal, hold: journal.answer("a", new_answer(), at_rest=hold),
}


@pytest.mark.parametrize("verb", TAKING)
def test_a_run_that_was_taken_with_what_was_in_doubt_is_left_to_whoever_looks_next(tmp_path: Path, verb: str) -> None:
    """Its sender was told that nobody knows, so its body does not go on, though this worker got the run."""

    async def main() -> None:
        weather = Weather()
        hours = Hours(heals_at(60, weather))
        async with opened(tmp_path / "j.db", connection=faulty(weather), **hours.options) as journal:
            _, hold = await begin(journal)
            await journal.ask(hold, new_question())
            await journal.suspend(hold, rest(awaits_message(), awaits_answer()))
            weather.bad(IOERR, "COMMIT", after=True)
            weather.bad(IOERR, "PRAGMA synchronous")
            with pytest.raises(StorageStalled, match=DOUBTFUL):
                await TAKING[verb](journal, hold)
            await journal.sound()
            (claimed,) = await journal.claim(["ship"], 99, 9, suspects=False)
            assert (claimed.hold.epoch, claimed.row.deaths) == (hold.epoch + 2, 0)

    asyncio.run(main())


def test_a_start_in_doubt_that_finds_a_run_takes_it_from_nobody(tmp_path: Path) -> None:
    async def main() -> None:
        weather = Weather()
        hours = Hours(heals_at(60, weather))
        async with opened(tmp_path / "j.db", connection=faulty(weather), **hours.options) as journal:
            _, hold = await begin(journal)
            weather.bad(IOERR, "COMMIT", after=True)
            weather.bad(IOERR, "PRAGMA synchronous")
            with pytest.raises(StorageStalled, match=DOUBTFUL):
                await journal.start(new_run("a"), IfExists.ATTACH, drive=True)
            await journal.record(hold, entry())  # it is still held
            assert await journal.claim(["ship"], 99, 9, suspects=False) == []

    asyncio.run(main())


def test_a_rollback_that_fails_leaves_no_doubt(tmp_path: Path) -> None:
    async def main() -> None:
        weather, hours = Weather(), Hours()
        async with opened(tmp_path / "j.db", connection=faulty(weather), **hours.options) as journal:
            await begin(journal)
            weather.bad(IOERR, "INSERT INTO durable_signals", "rollback()", "PRAGMA synchronous")
            with pytest.raises(StorageStalled, match="nothing of this call was stored"):
                await journal.signal("a", new_message())
            weather.good()
            await journal.signal("a", new_message("later"))
            assert [message.name for message in (await journal.memory(1)).messages] == ["later"]

    asyncio.run(main())


# A storage that does not even answer ---------------------------------------------------------------------------------


@pytest.mark.parametrize("landed", [True, False])
def test_a_storage_that_is_silent_is_told_too_while_the_thread_is_stuck_in_it(tmp_path: Path, landed: bool) -> None:
    stuck, go_on = threading.Event(), threading.Event()
    on = False

    def plan(sql: str, call: Callable[[], Any]) -> Any:
        nonlocal on
        if on and sql == "COMMIT":
            on = False
            stuck.set()
            go_on.wait(20)
            if not landed:
                raise IOERR
        return call()

    async def main() -> None:
        nonlocal on
        hours = Hours()
        async with opened(tmp_path / "j.db", connection=faulty(plan), patience=0.01, **hours.options) as journal:
            row, hold = await begin(journal)
            on = True
            recorded, first = journal.record(hold, entry()), journal.start(new_run("b"), IfExists.ATTACH, drive=True)
            await until(stuck.is_set)
            queued = journal.signal("a", new_message())  # the thread has not even seen it
            for _ in range(3):
                await asyncio.sleep(0)
            assert not first.done()
            hours.now = 0.02
            for write in (first, queued):
                with pytest.raises(StorageStalled, match=f"has not answered for 0.01 s: {DOUBTFUL}"):
                    await write
            assert not recorded.done()
            go_on.set()
            await recorded
            await journal.record(hold, entry("s#2", seq=2))
            (memory,) = await journal.memories([row.row.no])  # this look waits for as long as it takes
            assert not memory.messages
            claimed = await journal.claim(["ship"], 99, 9, suspects=False)
            assert [each.row.id for each in claimed] == (["b"] if landed else [])

    asyncio.run(main())


def test_a_read_that_is_stuck_is_told_and_the_worker_goes_on_waiting(tmp_path: Path) -> None:
    stuck, go_on = threading.Event(), threading.Event()
    on = False

    def plan(sql: str, call: Callable[[], Any]) -> Any:
        if on and sql == "BEGIN":
            stuck.set()
            go_on.wait(20)
        return call()

    async def main() -> None:
        nonlocal on
        async with opened(tmp_path / "j.db", connection=faulty(plan)) as journal:
            await begin(journal)
            assert journal._reader is not None
            journal._reader._settings = replace(journal._reader._settings, patience=0.001)
            on = True
            worker = asyncio.ensure_future(journal.memories([1]))
            await until(stuck.is_set)
            with pytest.raises(StorageStalled, match="could not be looked up"):
                await journal.run("a")
            assert not worker.done()
            go_on.set()
            assert len(await worker) == 1

    asyncio.run(main())


# Connections that wear out -------------------------------------------------------------------------------------------


class Spoilt(JobConnection):
    """Connections that never work again once the storage had refused them, as those that SQLite opened for reading."""

    error: sqlite3.Error | None = None
    made = 0

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        Spoilt.made += 1
        self._spoilt: sqlite3.Error | None = None

    def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
        self._spoilt = self._spoilt or Spoilt.error
        if self._spoilt is not None and sql.startswith("BEGIN"):
            raise self._spoilt
        return super().execute(sql, parameters)


@pytest.fixture
def spoilt() -> type[Spoilt]:
    Spoilt.error, Spoilt.made = None, 0
    return Spoilt


@pytest.mark.parametrize("error", [READONLY, IOERR, CANTOPEN], ids=str)
def test_a_connection_that_stays_broken_is_replaced_and_heals_without_a_restart(
    tmp_path: Path, spoilt: type[Spoilt], error: sqlite3.Error, caplog: pytest.LogCaptureFixture
) -> None:
    def heal(now: float) -> None:
        if now >= 20:
            Spoilt.error = None

    async def main() -> None:
        hours = Hours(heal)
        async with opened(tmp_path / "j.db", connection=spoilt, **hours.options) as journal:
            row, hold = await begin(journal)
            await journal.run("a")
            spoilt.error = error
            recorded = journal.record(hold, entry())
            await asyncio.gather(recorded, *(journal.memories([1]) for _ in range(3)))
            assert hours.now >= 20
            spoilt.made = 0
            await journal.record(hold, entry("s#2", seq=2))
            assert len(await journal.entries(row.row.no)) == 2
            assert spoilt.made == 0

    asyncio.run(main())
    told = [record.getMessage() for record in caplog.records if record.levelname != "DEBUG"]
    assert sum("storage stalled" in each for each in told) <= 4  # one for the writer, one for each that looked
    assert not any("not committed" in each for each in told)


def test_a_database_in_memory_is_never_opened_anew(spoilt: type[Spoilt]) -> None:
    async def main() -> None:
        weather = Weather()
        hours = Hours(heals_at(20, weather))
        async with opened(":memory:", connection=faulty(weather), **hours.options) as journal:
            _, hold = await begin(journal)
            weather.bad(IOERR)
            await journal.record(hold, entry())
            assert await journal.run("a") is not None

    asyncio.run(main())


# The end -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("doubt", [True, False])
def test_a_journal_closes_in_a_stated_time_though_the_storage_is_stalled(
    tmp_path: Path, doubt: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        weather, hours = Weather(), Hours()
        journal = SqliteJournal(tmp_path / "j.db", connection=faulty(weather), **hours.options)
        await journal.open("w", 1)
        _, hold = await begin(journal)
        hours.now = 1_000
        weather.bad(FULL, "COMMIT" if doubt else "BEGIN")
        if doubt:
            weather.bad(FULL, "PRAGMA synchronous")
        recorded = journal.record(hold, entry())
        await journal.close(2)
        assert hours.now == pytest.approx(1_030, abs=5)
        with pytest.raises(StorageStalled):
            await recorded
        with pytest.raises(EngineClosed):
            await journal.record(hold, entry())

    asyncio.run(main())
    assert "could not be given back" in caplog.text

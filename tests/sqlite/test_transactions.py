# pyright: reportPrivateUsage=false
# Writers and benches have no public name.
"""Transactions in a file: what they may touch, how long they may take, and what becomes of their batch."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from durable_sqlite._records import IfExists, Kind, Outcome, RunQuery
from durable_sqlite._sqlite import SqliteJournal, statements, transactions
from durable_sqlite._sqlite.link import JobConnection
from durable_sqlite._tables import Door, Effect, Undone
from durable_sqlite.errors import JournalError, UsageError
from durable_sqlite.journal import Journal
from tests.sqlite.faults import BUSY, FULL, IOERR, Naps, Script, faulty, opened, storage_error
from tests.support.journals import (
    begin,
    bookings,
    entry,
    inserts,
    make_bookings,
    new_message,
    new_run,
    statement,
    work,
)
from tests.support.stage import until

ENTRY = replace(entry(), kind=Kind.TRANSACTION, payload=b"")
ENDLESS = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) "


def _insert(door: Door, name: str) -> None:
    door.execute("INSERT INTO bookings (name) VALUES (?)", (name,))


class Clock:
    """A clock that goes on by `pace` at each look."""

    def __init__(self, pace: float = 0.0) -> None:
        self.pace = pace
        self._seconds = 0.0

    def __call__(self) -> float:
        self._seconds += self.pace
        return self._seconds

    def advance(self, seconds: float) -> None:
        self._seconds += seconds


# Batches -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["raises", "rolls back", "breaks at commit", "takes too long"])
def test_a_failing_transaction_amid_fifty_operations_leaves_the_other_forty_nine_committed(
    tmp_path: Path, how: str
) -> None:
    clock = Clock()

    def body(door: Door) -> Effect:
        _insert(door, "gone")
        match how:
            case "raises":
                raise ValueError
            case "rolls back":
                door.execute("INSERT OR ROLLBACK INTO bookings (name) VALUES (NULL)", ())
            case "breaks at commit":
                door.execute("INSERT INTO parts VALUES ('nothing')", ())
            case _:
                clock.pace = 1.0
                try:
                    door.execute(f"{ENDLESS} INSERT INTO bookings SELECT 'n' || i FROM n", ())
                finally:
                    clock.pace = 0.0
        return Effect(Outcome.VALUE, b"1")

    async def main() -> None:
        script = Script()
        async with opened(tmp_path / "j.db", connection=faulty(script), monotonic=clock) as journal:
            await make_bookings(journal)
            sql = "CREATE TABLE parts (of TEXT REFERENCES bookings (name) DEFERRABLE INITIALLY DEFERRED)"
            await journal.transact(statement(sql))
            holds = [(await begin(journal, f"run {number}"))[1] for number in range(50)]
            script.seen.clear()
            writes: list[asyncio.Future[Any]] = []
            for number, hold in enumerate(holds):
                if number == 25:
                    writes.append(journal.transact_step(hold, ENTRY, work(body)))
                elif number % 2:
                    writes.append(journal.transact_step(hold, ENTRY, inserts(f"booking {number}")))
                else:
                    writes.append(journal.record(hold, entry()))
            answers = await asyncio.gather(*writes)
            assert [number for number, answer in enumerate(answers) if isinstance(answer, Undone)] == [25]
            assert await bookings(journal) == [
                f"booking {number}" for number in range(50) if number % 2 and number != 25
            ]
            memories = await journal.memories([hold.run for hold in holds])
            assert [len(memory.entries) for memory in memories] == [int(number != 25) for number in range(50)]
            # Where it is known who is to blame, the others still share one commit.
            assert (script.seen.count("COMMIT") < 5) == (how != "breaks at commit")

    asyncio.run(main())


@pytest.mark.parametrize("what", ["conflict", "trigger", "commit"])
def test_each_of_several_culprits_in_a_batch_gets_its_own_error(tmp_path: Path, what: str) -> None:
    async def main() -> None:
        async with opened(tmp_path / "j.db") as journal:
            await make_bookings(journal)
            for sql in (
                "CREATE TRIGGER no BEFORE INSERT ON bookings WHEN new.name LIKE 'bad%' BEGIN SELECT RAISE(ROLLBACK, 'bad'); END",
                "CREATE TABLE parts (of TEXT REFERENCES bookings (name) DEFERRABLE INITIALLY DEFERRED)",
            ):
                await journal.transact(statement(sql))
            bad = {
                "conflict": "INSERT OR ROLLBACK INTO bookings (name) VALUES (NULL)",
                "trigger": "INSERT INTO bookings (name) VALUES ('bad')",
                "commit": "INSERT INTO parts VALUES ('nothing')",
            }[what]
            writes: list[asyncio.Future[Any]] = []
            for number in range(9):
                body = inserts(f"n{number}") if number % 3 else statement(bad)
                writes.append(journal.transact(body))
            answers = await asyncio.gather(*writes, return_exceptions=True)
            assert [isinstance(answer, sqlite3.IntegrityError) for answer in answers] == [True, False, False] * 3
            assert await bookings(journal) == ["n1", "n2", "n4", "n5", "n7", "n8"]

    asyncio.run(main())


def test_a_body_cannot_go_on_by_itself_when_its_batch_was_rolled_back(tmp_path: Path) -> None:
    def body(door: Door) -> None:
        with pytest.raises(sqlite3.IntegrityError):
            door.execute("INSERT OR ROLLBACK INTO bookings (name) VALUES (NULL)", ())
        for use in (
            lambda: _insert(door, "a commit of its own"),
            lambda: door.executemany("INSERT INTO bookings (name) VALUES (?)", (("b",),)),
            lambda: door.start(new_run("also"), IfExists.ATTACH),
            lambda: door.signal("a", new_message()),
        ):
            with pytest.raises(sqlite3.IntegrityError):
                use()
        raise KeyError

    async def main() -> None:
        async with opened(tmp_path / "j.db") as journal:
            await make_bookings(journal)
            with pytest.raises(sqlite3.IntegrityError):
                await journal.transact(work(body))
            assert await bookings(journal) == []
            assert await journal.count(RunQuery()) == 0

    asyncio.run(main())


def test_a_second_outcome_is_refused_by_the_journal_and_takes_its_rows_along(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path / "j.db") as journal:
            await make_bookings(journal)
            _, hold = await begin(journal)
            await journal.transact_step(hold, ENTRY, inserts("a"))
            neighbour = journal.transact(inserts("c"))
            with pytest.raises(JournalError, match="nothing changed"):
                await journal.transact_step(hold, replace(ENTRY, seq=2), inserts("b"))
            await neighbour
            assert await bookings(journal) == ["a", "c"]

    asyncio.run(main())


def test_bodies_that_take_long_together_do_not_share_one_commit(tmp_path: Path) -> None:
    clock = Clock()

    def body(door: Door) -> None:
        clock.advance(0.1)
        _insert(door, f"{clock():.1f}")

    async def main() -> None:
        script = Script()
        async with opened(tmp_path / "j.db", connection=faulty(script), monotonic=clock) as journal:
            await make_bookings(journal)
            script.seen.clear()
            await asyncio.gather(*(journal.transact(work(body)) for _ in range(9)))
            assert script.seen.count("COMMIT") == 3

    asyncio.run(main())


# What they may touch -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sql", "why"),
    [
        ("BEGIN", "neither begin nor end"),
        ("END", "neither begin nor end"),
        ("ROLLBACK TO durable_tx", "neither begin nor end"),
        ("RELEASE durable_tx", "neither begin nor end"),
        ("DETACH main", "atomic in each file"),
        ("PRAGMA synchronous", "PRAGMA synchronous"),
        ("PRAGMA page_size = 512", "PRAGMA page_size"),
        ("PRAGMA wal_checkpoint(TRUNCATE)", "PRAGMA wal_checkpoint"),
        ("SELECT * FROM pragma_journal_mode", "PRAGMA journal_mode"),
        ("/* hm */ vacuum", "VACUUM"),
        ("ANALYZE", "reaches beyond"),
        ("REINDEX durable_runs_due", "durable_runs_due"),
        ("SELECT load_extension('x')", "load_extension"),
        ("SELECT (SELECT id FROM durable_runs)", "durable_runs"),
        ("INSERT INTO durable_meta VALUES ('codec', 'x')", "durable_meta"),
        ("UPDATE durable_entries SET payload = x''", "durable_entries"),
        ("DROP TABLE durable_ticks", "durable_ticks"),
        ("ALTER TABLE durable_runs ADD COLUMN mine", "durable_runs"),
        ("CREATE INDEX mine ON durable_runs (id)", "durable_runs"),
        ("DROP INDEX durable_runs_due", "durable_runs_due"),
        ("CREATE TRIGGER mine AFTER INSERT ON durable_runs BEGIN SELECT 1; END", "durable_runs"),
        ("CREATE TEMP TRIGGER mine AFTER INSERT ON bookings BEGIN SELECT 1; END", "temporary"),
        ("CREATE TEMP VIEW mine AS SELECT 1", "temporary"),
        ("CREATE TABLE mine AS SELECT * FROM durable_runs", "durable_runs"),
        ("CREATE INDEX durable_mine ON bookings (name)", "durable_mine"),
        ("CREATE VIEW DURABLE_mine AS SELECT 1", "DURABLE_mine"),
        ("CREATE TRIGGER durable_mine AFTER INSERT ON bookings BEGIN SELECT 1; END", "durable_mine"),
        ("CREATE VIRTUAL TABLE durable_mine USING fts5(x)", "durable_mine"),
        ("ALTER TABLE bookings ADD COLUMN run INTEGER REFERENCES durable_runs", "bookings"),
        ("INSERT INTO reaching VALUES (1)", "durable_runs"),
        ("SELECT * FROM looking", "durable_runs"),
        ("DELETE FROM sqlite_sequence", "SQLite's own"),
        ("INSERT INTO sqlite_sequence VALUES ('durable_runs', 7)", "SQLite's own"),
        (statements.load()["bump"], "durable_workers"),
        (statements.load()["batch"], "durable_workers"),
    ],
)
@pytest.mark.parametrize("caught", [True, False])
def test_a_transaction_reaches_nothing_but_the_applications_own_tables(
    tmp_path: Path, sql: str, why: str, caught: bool
) -> None:
    reached: list[Exception] = []

    def body(door: Door) -> None:
        try:
            door.execute(sql, {"me": 1})
        except UsageError as error:
            reached.append(error)
            if not caught:
                raise

    async def main() -> None:
        async with opened(tmp_path / "j.db") as journal:
            await make_bookings(journal)
            await begin(journal)
            for made in (
                "CREATE VIEW looking AS SELECT id FROM durable_runs",
                "CREATE TABLE reaching (x)",
                "CREATE TRIGGER far AFTER INSERT ON reaching BEGIN DELETE FROM durable_runs; END",
            ):
                await journal.transact(statement(made))
            with closing(sqlite3.connect(tmp_path / "j.db")) as other:
                schema = other.execute("SELECT * FROM sqlite_schema").fetchall()
                await asyncio.gather(journal.transact(work(body)), return_exceptions=True)
                assert why in str(reached[0])
                assert other.execute("SELECT * FROM sqlite_schema").fetchall() == schema
            # Ours go on, also those that the application's had the words of.
            assert (await journal.start(new_run("b"), IfExists.ATTACH, drive=True)).created
            assert await journal.count(RunQuery()) == 2

    asyncio.run(main())


def test_sqlites_own_schema_cannot_be_written(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path / "j.db") as journal:
            with pytest.raises(sqlite3.OperationalError, match="may not be modified"):
                await journal.transact(statement("DELETE FROM sqlite_schema"))

    asyncio.run(main())


def test_a_transaction_may_shape_the_applications_own_tables(tmp_path: Path) -> None:
    def body(door: Door) -> list[Any]:
        for sql in (
            "CREATE TABLE runs (no INTEGER PRIMARY KEY AUTOINCREMENT, durable_name TEXT)",
            "CREATE TABLE signals (run INTEGER REFERENCES runs (no))",
            "CREATE INDEX runs_pending ON runs (durable_name)",
            "CREATE TABLE log (what)",
            "CREATE TRIGGER logs AFTER INSERT ON runs BEGIN INSERT INTO log (what) VALUES (new.durable_name); END",
            "CREATE VIEW all_runs AS SELECT * FROM runs",
            "ALTER TABLE log ADD COLUMN at INTEGER",
            "ALTER TABLE log RENAME TO logged",
            "INSERT INTO runs (durable_name) VALUES ('a')",
            "REINDEX runs_pending",
            "CREATE VIRTUAL TABLE texts USING fts5(body)",
            "INSERT INTO texts VALUES ('some words')",
        ):
            door.execute(sql, ())
        found = [
            door.execute("SELECT durable_name FROM all_runs", ()).rows,
            door.execute("SELECT what FROM logged", ()).rows,
            door.execute("SELECT body FROM texts WHERE texts MATCH 'words'", ()).rows,
            [row[1] for row in door.execute("PRAGMA table_info(runs)", ())],
        ]
        for sql in (
            "DROP VIEW all_runs",
            "DROP TRIGGER logs",
            "DROP TABLE texts",
            "DROP TABLE signals",
            "DROP TABLE runs",
        ):
            door.execute(sql, ())
        return found

    async def main() -> None:
        async with opened(tmp_path / "j.db") as journal:
            found = await journal.transact(work(body))
            assert found == [[("a",)], [("a",)], [("some words",)], ["no", "durable_name"]]

    asyncio.run(main())


def test_the_words_of_a_statement_of_ours_do_not_reach_the_prepared_one(tmp_path: Path) -> None:
    sql = statements.load()["taken"]

    async def main() -> None:
        async with opened(tmp_path / "j.db") as journal:
            for _ in range(2):
                await journal.start(new_run(), IfExists.ATTACH, drive=False)  # prepares it
                with pytest.raises(UsageError, match="durable_runs"):
                    await journal.transact(statement(sql, {"id": "a"}))

    asyncio.run(main())


def test_what_a_transaction_has_prepared_is_used_again(tmp_path: Path) -> None:
    asked: list[int] = []

    async def main() -> None:
        async with opened(tmp_path / "j.db") as journal:
            await make_bookings(journal)
            guard = journal._bench.guard
            assert journal._writer is not None

            def spy(action: int, *what: str | None) -> int:
                asked.append(action)
                return guard(action, *what)

            await journal._writer.link.run(lambda connection: connection.set_authorizer(spy))
            _, hold = await begin(journal)
            for seq in (1, 2, 3):
                asked.clear()
                await journal.transact_step(hold, replace(ENTRY, key=f"s#{seq}", seq=seq), inserts(f"a{seq}"))
            assert asked == []

    asyncio.run(main())


def test_only_the_applications_code_is_watched(tmp_path: Path) -> None:
    def body(door: Door) -> None:
        def more() -> Iterator[tuple[str]]:
            # Amid a statement of the application's, and then that one goes on.
            door.start(new_run("b"), IfExists.ATTACH)
            yield ("a",)
            with pytest.raises(UsageError, match="durable_runs"):
                door.execute("SELECT 1 FROM durable_runs", ())
            yield ("b",)

        assert door.executemany("INSERT INTO bookings (name) VALUES (?)", more()) == 2

    async def main() -> None:
        async with opened(tmp_path / "j.db") as journal:
            await make_bookings(journal)
            await journal.transact(work(body))
            assert not journal._bench.guard.on
            assert await bookings(journal) == ["a", "b"]

    asyncio.run(main())


def test_a_trigger_that_is_made_amid_a_statement_reaches_no_further(tmp_path: Path) -> None:
    def body(door: Door) -> None:
        def more() -> Iterator[tuple[str]]:
            yield ("a",)
            door.execute("CREATE TRIGGER far AFTER INSERT ON bookings BEGIN DELETE FROM durable_runs; END", ())
            yield ("b",)

        door.executemany("INSERT INTO bookings (name) VALUES (?)", more())

    async def main() -> None:
        async with opened(tmp_path / "j.db") as journal:
            await make_bookings(journal)
            await journal.start(new_run(), IfExists.ATTACH, drive=False)
            with pytest.raises(UsageError, match="durable_runs"):
                await journal.transact(work(body))
            assert await journal.count(RunQuery()) == 1

    asyncio.run(main())


@pytest.mark.parametrize("sql", ["SELECT ?", "CREATE TABLE x (y)", "", "-- nothing"])
def test_many_is_for_what_writes(tmp_path: Path, sql: str) -> None:
    async def main() -> None:
        async with opened(tmp_path / "j.db") as journal:
            with pytest.raises(UsageError, match="use execute"):
                await journal.transact(work(lambda door: door.executemany(sql, ((1,),))))

    asyncio.run(main())


@pytest.mark.parametrize("sql", ["SELECT 1;", "SELECT 1; -- and no more; really", "SELECT ';' ;\n/* ; */", ""])
def test_one_statement_may_end_as_it_likes(tmp_path: Path, sql: str) -> None:
    async def main() -> None:
        async with opened(tmp_path / "j.db") as journal:
            rows = await journal.transact(statement(sql))
            assert len(rows) == bool(sql)

    asyncio.run(main())


@pytest.mark.parametrize(
    ("sql", "values", "error"),
    [
        ("SELECT 1; DELETE FROM bookings", (), UsageError),
        ("SELECT 1;;", (), UsageError),
        ("SELECT ?", (), sqlite3.ProgrammingError),
        ("SELEC", (), sqlite3.OperationalError),
        ("SELECT ';' FROM nowhere", (), sqlite3.OperationalError),
        ("CREATE TRIGGER t AFTER INSERT ON nowhere BEGIN SELECT 1; SELECT 2; END", (), sqlite3.OperationalError),
        ("SELECT ?", (object(),), (sqlite3.ProgrammingError, sqlite3.InterfaceError)),
    ],
)
def test_a_statement_that_is_wrong_is_the_bodys_error(
    tmp_path: Path, sql: str, values: tuple[object, ...], error: type[Exception]
) -> None:
    async def main() -> None:
        async with opened(tmp_path / "j.db") as journal:
            await make_bookings(journal)
            with pytest.raises(error):
                await journal.transact(statement(sql, values))

    asyncio.run(main())


@pytest.mark.parametrize("values", [(None, 1), ("a",)], ids=["wrong", "taken"])
def test_what_goes_wrong_in_a_statement_that_makes_the_values_of_another_fails_the_transaction_that_it_undid(
    tmp_path: Path, values: tuple[Any, ...]
) -> None:
    met: list[BaseException] = []

    def body(door: Door) -> Effect:
        def each() -> Iterator[tuple[str]]:
            yield ("b",)
            door.execute("INSERT OR ROLLBACK INTO bookings (name) VALUES (?)", values[:1])
            yield ("c",)

        _insert(door, "a")
        for _ in range(2):
            with pytest.raises(sqlite3.IntegrityError) as caught:
                door.executemany("INSERT INTO bookings (name) VALUES (?)", each())
            met.append(caught.value)
        return Effect(Outcome.VALUE, b"1")

    async def main() -> None:
        async with opened(tmp_path / "j.db") as journal:
            await make_bookings(journal)
            _, hold = await begin(journal)
            undone = await journal.transact_step(hold, ENTRY, work(body))
            assert isinstance(undone, Undone)
            assert met == [undone.error, undone.error]
            assert await bookings(journal) == []

    asyncio.run(main())


# Time ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("caught", [True, False])
@pytest.mark.parametrize(
    "sql", [f"{ENDLESS} SELECT count(*) FROM n", f"{ENDLESS} INSERT INTO bookings SELECT 'n' || i FROM n"]
)
def test_sql_that_runs_too_long_is_interrupted_and_fails_its_transaction_alone(
    tmp_path: Path, sql: str, caught: bool
) -> None:
    clock = Clock()

    def body(door: Door) -> None:
        _insert(door, "gone")
        clock.pace = 1.0
        try:
            door.execute(sql, ())
        except TimeoutError:
            if not caught:
                raise

    async def main() -> None:
        async with opened(tmp_path / "j.db", monotonic=clock) as journal:
            await make_bookings(journal)
            writes: list[asyncio.Future[Any]] = [
                journal.transact(each) for each in (inserts("a"), work(body), inserts("b"))
            ]
            with pytest.raises(TimeoutError, match=r"book took longer than 5 s"):
                await writes[1]
            await asyncio.gather(writes[0], writes[2])
            clock.pace = 0
            assert await bookings(journal) == ["a", "b"]

    asyncio.run(main())


def test_a_start_that_is_interrupted_amid_a_body_fails_its_transaction_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite then undoes more than the start: the whole commit."""
    clock = Clock()
    monkeypatch.setattr(transactions, "_STEPS", 1)

    def late(sql: str, call: Callable[[], Any]) -> Any:
        if sql.startswith("INSERT INTO durable_run_tags"):
            clock.advance(10)
        return call()

    def body(door: Door) -> None:
        _insert(door, "gone")
        with pytest.raises(TimeoutError):
            door.start(new_run(tags={"team": "eu"}), IfExists.ATTACH)

    async def main() -> None:
        async with opened(tmp_path / "j.db", monotonic=clock, connection=faulty(late)) as journal:
            await make_bookings(journal)
            writes: list[asyncio.Future[Any]] = [
                journal.transact(each) for each in (inserts("a"), work(body), inserts("b"))
            ]
            with pytest.raises(TimeoutError, match=r"book took longer than 5 s"):
                await writes[1]
            await asyncio.gather(writes[0], writes[2])
            assert await bookings(journal) == ["a", "b"]
            assert await journal.count(RunQuery()) == 0

    asyncio.run(main())


@pytest.mark.parametrize("many", [True, False])
def test_many_short_statements_are_held_to_the_same_time(tmp_path: Path, many: bool) -> None:
    clock = Clock()

    def body(door: Door) -> None:
        values = ((f"n{number}",) for number in range(1_000_000))
        if many:
            door.executemany("INSERT INTO bookings (name) VALUES (?)", values)
        else:
            for value in values:
                door.execute("INSERT INTO bookings (name) VALUES (?)", value)

    async def main() -> None:
        async with opened(tmp_path / "j.db", monotonic=clock) as journal:
            await make_bookings(journal)
            clock.pace = 0.001
            with pytest.raises(TimeoutError, match="book"):
                await journal.transact(work(body))
            assert await bookings(journal) == []

    asyncio.run(main())


def test_python_that_takes_too_long_is_told_by_name(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()

    async def main() -> None:
        async with opened(tmp_path / "j.db", monotonic=clock) as journal:
            await journal.transact(work(lambda _door: clock.advance(4), what="short"))
            await journal.transact(work(lambda _door: clock.advance(6), what="the step book of run 7"))

    asyncio.run(main())
    (told,) = [record.getMessage() for record in caplog.records]
    assert told.startswith("the step book of run 7 took 6.0 s")


def test_a_body_that_does_not_return_is_told_of_while_it_runs(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    stuck, go_on = threading.Event(), threading.Event()
    monkeypatch.setattr("durable_sqlite._sqlite.writer._LOOK_AFTER", 0)

    def body(_door: Door) -> None:
        stuck.set()
        go_on.wait(20)

    async def main() -> None:
        async with opened(tmp_path / "j.db", monotonic=clock) as journal:
            write = journal.transact(work(body))
            await until(stuck.is_set)
            assert caplog.records == []
            clock.advance(5.5)
            await until(lambda: bool(caplog.records))
            for _ in range(10):
                await asyncio.sleep(0)
            go_on.set()
            await write

    asyncio.run(main())
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 2
    assert told[0].startswith("book has been running for 5.5 s")


# The storage ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [FULL, IOERR, BUSY, storage_error(sqlite3.SQLITE_NOMEM, "SQLITE_NOMEM")], ids=str)
@pytest.mark.parametrize("caught", [True, False])
def test_trouble_of_the_storage_inside_a_body_is_waited_out_and_the_body_is_called_again(
    tmp_path: Path, error: sqlite3.Error, caught: bool
) -> None:
    calls: list[str] = []

    def body(door: Door) -> Effect:
        calls.append("called")
        try:
            _insert(door, "a")
        except sqlite3.Error:
            if not caught:
                raise
        return Effect(Outcome.VALUE, b"1")

    async def main() -> None:
        script, naps = Script(), Naps()
        async with opened(tmp_path / "j.db", connection=faulty(script), sleep=naps) as journal:
            await make_bookings(journal)
            _, hold = await begin(journal)
            script.before["/* tx */ INSERT"] = [error, error]
            neighbour = journal.record(hold, entry("other#1", seq=1))
            step = await journal.transact_step(hold, replace(ENTRY, seq=2), work(body))
            await neighbour
            assert not isinstance(step, Undone)
            assert len(naps.taken) == 2
            assert len(calls) == 3
            assert await bookings(journal) == ["a"]
            assert len(await journal.entries(hold.run)) == 2

    asyncio.run(main())


def test_damage_that_a_body_meets_is_the_journals_error_and_not_the_steps(tmp_path: Path) -> None:
    async def main() -> None:
        script = Script()
        async with opened(tmp_path / "j.db", connection=faulty(script)) as journal:
            await make_bookings(journal)
            _, hold = await begin(journal)
            script.before["/* tx */ INSERT"] = [storage_error(sqlite3.SQLITE_CORRUPT, "SQLITE_CORRUPT")]
            with pytest.raises(JournalError, match="damaged"):
                await journal.transact_step(hold, ENTRY, inserts("a"))

    asyncio.run(main())


def test_numbers_that_are_used_up_are_no_full_disk(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path / "j.db") as journal:
            await journal.transact(statement("CREATE TABLE numbered (no INTEGER PRIMARY KEY AUTOINCREMENT)"))
            await journal.transact(statement("INSERT INTO numbered VALUES (9223372036854775807)"))
            with pytest.raises(sqlite3.OperationalError, match="full"):
                await journal.transact(statement("INSERT INTO numbered DEFAULT VALUES"))

    asyncio.run(main())


def test_a_body_in_its_own_way_waits_for_nobody(tmp_path: Path) -> None:
    async def main() -> None:
        script = Script()
        async with opened(tmp_path / "j.db", connection=faulty(script)) as journal:
            await make_bookings(journal)
            script.before["/* tx */ INSERT"] = [storage_error(sqlite3.SQLITE_LOCKED, "SQLITE_LOCKED")]
            with pytest.raises(sqlite3.OperationalError, match="LOCKED"):
                await journal.transact(inserts("a"))

    asyncio.run(main())


def test_trouble_amid_a_start_is_waited_out_too(tmp_path: Path) -> None:
    async def main() -> None:
        script, naps = Script(), Naps()
        async with opened(tmp_path / "j.db", connection=faulty(script), sleep=naps) as journal:
            script.before["INSERT INTO durable_run_tags"] = [FULL]
            new = new_run(tags={"team": "eu"})
            await journal.transact(work(lambda door: door.start(new, IfExists.ATTACH)))
            assert len(naps.taken) == 1
            assert await journal.count(RunQuery()) == 1

    asyncio.run(main())


def test_trouble_amid_a_start_that_undoes_the_whole_commit_is_waited_out_too(tmp_path: Path) -> None:
    """SQLite may answer a full disk, an I/O error or a want of memory by a rollback of its own."""
    troubles = [FULL]

    class Undoing(JobConnection):
        def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
            if troubles and sql.startswith("INSERT INTO durable_run_tags"):
                super().execute("ROLLBACK")
                raise troubles.pop()
            return super().execute(sql, parameters)

    async def main() -> None:
        naps = Naps()
        async with opened(tmp_path / "j.db", connection=Undoing, sleep=naps) as journal:
            await make_bookings(journal)
            new = new_run(tags={"team": "eu"})
            beside = journal.transact(inserts("a"))
            await journal.transact(work(lambda door: door.start(new, IfExists.ATTACH)))
            await beside
            assert len(naps.taken) == 1
            assert await journal.count(RunQuery()) == 1
            assert await bookings(journal) == ["a"]

    asyncio.run(main())


def test_a_start_that_fails_amid_a_body_is_undone_whole(tmp_path: Path) -> None:
    def body(door: Door) -> None:
        with pytest.raises(UnicodeEncodeError):
            door.start(new_run(tags={"team": "\ud800"}), IfExists.ATTACH)
        _insert(door, "a")

    async def main() -> None:
        async with opened(tmp_path / "j.db") as journal:
            await make_bookings(journal)
            await journal.transact(work(body))
            assert await journal.count(RunQuery()) == 0
            assert await bookings(journal) == ["a"]

    asyncio.run(main())


@pytest.mark.parametrize("landed", [True, False])
def test_after_a_doubtful_commit_rows_are_there_once(tmp_path: Path, landed: bool) -> None:
    async def main() -> None:
        script = Script()
        async with opened(tmp_path / "j.db", connection=faulty(script), sleep=Naps()) as journal:
            await make_bookings(journal)
            _, hold = await begin(journal)
            (script.after if landed else script.before)["COMMIT"] = [IOERR]
            client, step = journal.transact(inserts("a")), journal.transact_step(hold, ENTRY, inserts("b"))
            await asyncio.gather(client, step)
            assert await bookings(journal) == ["a", "b"]
            # The connection that was opened then is watched as the first one was.
            with pytest.raises(UsageError):
                await journal.transact(statement("DELETE FROM durable_runs"))

    asyncio.run(main())


@pytest.mark.parametrize("landed", [True, False])
def test_a_struck_off_worker_in_doubt_says_so_rather_than_write_rows_twice(tmp_path: Path, landed: bool) -> None:
    async def main() -> None:
        script = Script()
        async with opened(tmp_path / "j.db", connection=faulty(script), sleep=Naps()) as journal:
            await make_bookings(journal)
            with closing(sqlite3.connect(tmp_path / "j.db", isolation_level=None)) as other:
                other.execute("DELETE FROM durable_workers")
            (script.after if landed else script.before)["COMMIT"] = [IOERR]
            first, second = journal.transact(inserts("a")), journal.transact(inserts("b"))
            started = journal.start(new_run(), IfExists.ATTACH, drive=False)
            for each in (first, second):
                with pytest.raises(JournalError, match="nobody knows"):
                    await each
            assert (await started).row.id == "a"
            assert await bookings(journal) == (["a", "b"] if landed else [])
            assert await journal.count(RunQuery()) == 1

    asyncio.run(main())


def test_what_is_queued_when_the_program_ends_is_still_committed(tmp_path: Path) -> None:
    path = tmp_path / "j.db"

    async def main() -> None:
        journal = SqliteJournal(path)
        await journal.open("w", 1)
        await make_bookings(journal)
        journal.transact(inserts("a"))
        journal.stop()

    asyncio.run(main())
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT name FROM bookings").fetchall() == [("a",)]


def test_a_journal_in_memory_has_transactions_too() -> None:
    async def main() -> None:
        async with opened(":memory:") as journal:
            await make_bookings(journal)
            await journal.transact(inserts("a"))
            assert await bookings(journal) == ["a"]
            assert await journal.count(RunQuery()) == 0

    asyncio.run(main())


def test_transactions_of_several_processes_meet_in_one_file(tmp_path: Path) -> None:
    async def book(journal: Journal, names: list[str]) -> None:
        await asyncio.gather(*(journal.transact(inserts(name)) for name in names))

    async def main() -> None:
        async with opened(tmp_path / "j.db") as one, opened(tmp_path / "j.db") as two:
            await make_bookings(one)
            await asyncio.gather(book(one, [f"a{n}" for n in range(50)]), book(two, [f"b{n}" for n in range(50)]))
            assert len(await bookings(one)) == 100

    asyncio.run(main())

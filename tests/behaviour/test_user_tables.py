"""The application's own tables in the journal's file: how they are made, and how they are reached past the engine."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from durable_sqlite import (
    DurableError,
    Engine,
    EngineClosed,
    RunFailed,
    Tx,
    UsageError,
    step,
    transaction,
    workflow,
)
from durable_sqlite._sqlite import user_schema
from tests.support.stage import ended

ORDERS = "CREATE TABLE orders (id TEXT PRIMARY KEY, cents INTEGER NOT NULL) STRICT;"
NOTES = """
-- What people say; of orders.
CREATE TABLE notes (
    no INTEGER PRIMARY KEY,
    "order" TEXT REFERENCES orders (id),
    text TEXT NOT NULL DEFAULT 'semi;colon'
);
INSERT INTO orders VALUES ('first', 7);
CREATE TRIGGER noted AFTER INSERT ON orders BEGIN
    INSERT INTO notes ("order") VALUES (new.id);
END;
"""


def write(folder: Path, files: Mapping[str, str]) -> Path:
    schema = folder / "schema"
    schema.mkdir(exist_ok=True)
    for name, sql in files.items():
        (schema / name).write_text(sql, encoding="utf-8")
    return schema


def own_tables(journal: Path) -> set[str]:
    """Those that are neither the journal's nor SQLite's."""
    with closing(sqlite3.connect(f"file:{journal}?mode=ro", uri=True)) as connection:
        found = {name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    return {name for name in found if not name.startswith(("durable_", "sqlite_"))}


def orders(tx: Tx) -> list[str]:
    return tx.fetch_all(str, "SELECT id FROM orders ORDER BY id")


@transaction
def add(tx: Tx, order: str) -> None:
    tx.execute("INSERT INTO orders VALUES (?, 1)", (order,))


@workflow
async def adds(order: str) -> None:
    await add(order)


async def opened(path: Path, schema: Path) -> None:
    async with Engine(path, schema=schema):
        pass


# The schema ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("memory", [False, True])
def test_numbered_files_are_applied_in_their_order_before_anything_is_driven(tmp_path: Path, memory: bool) -> None:
    schema = write(tmp_path, {"0001_orders.sql": ORDERS, "0002_notes.sql": NOTES, "readme.txt": "no SQL"})

    async def scenario() -> None:
        async with Engine(":memory:" if memory else tmp_path / "j.db", schema=str(schema)) as engine:
            await adds("second")
            assert await engine.transact(orders) == ["first", "second"]
            assert await engine.transact(lambda tx: tx.fetch_all(str, "SELECT text FROM notes")) == ["semi;colon"]

    asyncio.run(scenario())


def test_statements_may_stand_beside_each_other_on_a_line(tmp_path: Path) -> None:
    async def scenario() -> None:
        schema = write(
            tmp_path, {"0001_a.sql": "CREATE TABLE a (x); CREATE TABLE b (x); -- two\nCREATE TABLE c (x);\n-- the end"}
        )
        await opened(tmp_path / "j.db", schema)
        assert own_tables(tmp_path / "j.db") == {"a", "b", "c"}

    asyncio.run(scenario())


def test_each_file_is_applied_once_and_a_new_one_when_the_engine_opens_next(tmp_path: Path) -> None:
    async def scenario() -> None:
        schema = write(tmp_path, {"0001_orders.sql": ORDERS})
        for _ in range(2):
            await opened(tmp_path / "j.db", schema)
        assert own_tables(tmp_path / "j.db") == {"orders"}
        write(tmp_path, {"0002_notes.sql": NOTES})
        for _ in range(2):
            async with Engine(tmp_path / "j.db", schema=schema) as engine:
                assert await engine.transact(orders) == ["first"]
        assert own_tables(tmp_path / "j.db") == {"orders", "notes"}
        async with Engine(tmp_path / "j.db") as engine:  # without a word of it, the tables are there all the same
            assert await engine.transact(orders) == ["first"]

    asyncio.run(scenario())


def test_a_file_that_was_changed_or_taken_away_after_it_was_applied_is_refused_by_name(tmp_path: Path) -> None:
    async def scenario() -> None:
        schema = write(tmp_path, {"0001_orders.sql": ORDERS, "0002_notes.sql": NOTES})
        await opened(tmp_path / "j.db", schema)
        write(tmp_path, {"0001_orders.sql": ORDERS + "CREATE TABLE more (x);"})
        with pytest.raises(DurableError, match="0001_orders"):
            await opened(tmp_path / "j.db", schema)
        write(tmp_path, {"0001_orders.sql": ORDERS})
        (schema / "0002_notes.sql").unlink()
        with pytest.raises(DurableError, match="0002_notes"):
            await opened(tmp_path / "j.db", schema)
        write(tmp_path, {"0002_notes.sql": NOTES})
        await opened(tmp_path / "j.db", schema)
        assert own_tables(tmp_path / "j.db") == {"orders", "notes"}

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "wrong",
    [
        "INSERT INTO nowhere VALUES (1);",
        "CREATE TABLE durable_mine (x);",
        "DROP TABLE durable_runs;",
        "DELETE FROM durable_entries;",
        "COMMIT;",
        "ATTACH ':memory:' AS other;",
        "PRAGMA foreign_keys = off;",
        "PRAGMA user_version = 99;",
        "CREATE TABLE unfinished (",
    ],
)
def test_a_file_that_cannot_be_applied_leaves_nothing_of_itself_and_is_named(tmp_path: Path, wrong: str) -> None:
    async def scenario() -> None:
        schema = write(tmp_path, {"0001_orders.sql": ORDERS, "0002_wrong.sql": f"CREATE TABLE half (x);\n{wrong}\n"})
        with pytest.raises(DurableError, match="0002_wrong"):
            await opened(tmp_path / "j.db", schema)
        assert "half" not in own_tables(tmp_path / "j.db") if (tmp_path / "j.db").exists() else True
        write(tmp_path, {"0002_wrong.sql": NOTES})
        async with Engine(tmp_path / "j.db", schema=schema) as engine:
            await adds("second")
            assert await engine.transact(orders) == ["first", "second"]

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "names", [["0002_a.sql"], ["0001_a.sql", "0003_b.sql"], ["0001_a.sql", "0001_b.sql"], ["a.sql"]]
)
def test_files_that_are_not_numbered_one_two_three_are_refused(tmp_path: Path, names: list[str]) -> None:
    async def scenario() -> None:
        schema = write(tmp_path, {name: f"CREATE TABLE t{number} (x);" for number, name in enumerate(names)})
        with pytest.raises(DurableError, match="number"):
            await opened(tmp_path / "j.db", schema)

    asyncio.run(scenario())


def test_a_folder_that_is_not_there_is_refused_and_no_journal_is_made(tmp_path: Path) -> None:
    with pytest.raises(DurableError, match="nowhere"):
        asyncio.run(opened(tmp_path / "j.db", tmp_path / "nowhere"))


def test_engines_that_open_at_once_apply_each_file_once(tmp_path: Path) -> None:
    schema = write(tmp_path, {"0001_orders.sql": ORDERS, "0002_notes.sql": NOTES})
    barrier = threading.Barrier(4)
    caught: list[BaseException] = []

    def life() -> None:
        barrier.wait()
        try:
            asyncio.run(opened(tmp_path / "j.db", schema))
        except BaseException as error:
            caught.append(error)

    threads = [threading.Thread(target=life) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert caught == []
    with closing(sqlite3.connect(tmp_path / "j.db")) as connection:
        assert connection.execute("SELECT id FROM orders").fetchall() == [("first",)]


# A connection of one's own -------------------------------------------------------------------------------------------


def test_a_connection_reads_and_writes_the_applications_tables(tmp_path: Path) -> None:
    schema = write(tmp_path, {"0001_orders.sql": ORDERS, "0002_notes.sql": NOTES})

    async def scenario() -> None:
        async with Engine(tmp_path / "j.db", schema=schema) as engine:
            await adds("second")
            with closing(engine.connect()) as connection:
                assert connection.execute("SELECT id FROM orders ORDER BY id").fetchall() == [("first",), ("second",)]
                connection.execute("INSERT INTO orders VALUES ('third', 3)")
                connection.execute("BEGIN IMMEDIATE")
                connection.execute("INSERT INTO orders VALUES ('fourth', 4)")
                connection.execute("ROLLBACK")
                connection.executescript(
                    "INSERT INTO orders VALUES ('fifth', 5); INSERT INTO orders VALUES ('sixth', 6);"
                )
            assert await engine.transact(orders) == ["fifth", "first", "second", "sixth", "third"]

    asyncio.run(scenario())


def test_a_connection_is_configured_as_the_journal_needs_it(tmp_path: Path) -> None:
    schema = write(tmp_path, {"0001_orders.sql": ORDERS, "0002_notes.sql": NOTES})

    async def scenario() -> None:
        async with Engine(tmp_path / "j.db", schema=schema) as engine:
            with closing(engine.connect()) as connection:

                def pragma(name: str) -> object:
                    return connection.execute(f"PRAGMA {name}").fetchone()[0]

                assert (pragma("journal_mode"), pragma("foreign_keys"), pragma("wal_autocheckpoint")) == ("wal", 1, 0)
                assert pragma("synchronous") == 2
                assert isinstance(waits := pragma("busy_timeout"), int)
                assert waits > 0
                with pytest.raises(sqlite3.IntegrityError):
                    connection.execute("""INSERT INTO notes ("order") VALUES ('nobody')""")

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "sql",
    [
        "DELETE FROM durable_entries",
        "UPDATE durable_runs SET state = 'failed'",
        "DROP TABLE durable_meta",
        "CREATE TABLE durable_mine (x)",
        "CREATE TRIGGER mine AFTER INSERT ON durable_runs BEGIN SELECT 1; END",
        "PRAGMA user_version = 99",
        "PRAGMA application_id = 1",
        "PRAGMA journal_mode = delete",
        "PRAGMA wal_checkpoint",
        "PRAGMA wal_autocheckpoint = 1000",
        "PRAGMA synchronous = off",
        "PRAGMA writable_schema = on",
        "PRAGMA schema_version = 5",
    ],
)
def test_a_connection_may_read_the_journals_tables_and_change_nothing_that_is_the_journals(
    tmp_path: Path, sql: str
) -> None:
    schema = write(tmp_path, {"0001_orders.sql": ORDERS})

    async def scenario() -> None:
        async with Engine(tmp_path / "j.db", schema=schema) as engine:
            await adds.options(id="x").start("second")
            await engine.run("x")
            with closing(engine.connect()) as connection:
                assert connection.execute("SELECT id FROM durable_runs").fetchall() == [("x",)]
                with pytest.raises(sqlite3.DatabaseError):
                    connection.execute(sql)
            assert len(await engine.run("x").history()) == 1

    asyncio.run(scenario())


def test_a_step_may_take_a_connection_and_a_body_may_not(tmp_path: Path) -> None:
    schema = write(tmp_path, {"0001_orders.sql": ORDERS})
    engines: list[Engine] = []

    @step
    def in_a_thread() -> int:
        with closing(engines[0].connect()) as connection:
            connection.execute("INSERT INTO orders VALUES ('by a step', 1)")
            return len(connection.execute("SELECT id FROM orders").fetchall())

    @workflow
    async def by_a_step() -> int:
        return await in_a_thread()

    @workflow
    async def in_the_body() -> None:
        engines[0].connect()

    async def scenario() -> None:
        async with Engine(tmp_path / "j.db", schema=schema) as engine:
            engines.append(engine)
            assert await by_a_step() == 1
            assert await engine.transact(orders) == ["by a step"]
            assert "NotDurable" in str(await ended(await in_the_body.start(), RunFailed))

    asyncio.run(scenario())


@pytest.mark.contradicts("two", "crash", reason="its journal is in memory")
def test_there_is_no_connection_to_a_journal_in_memory_or_to_an_engine_that_is_not_open(tmp_path: Path) -> None:
    async def scenario() -> None:
        engine = Engine(tmp_path / "j.db")
        with pytest.raises(EngineClosed):
            engine.connect()
        async with engine:
            engine.connect().close()
        with pytest.raises(EngineClosed):
            engine.connect()
        async with Engine(":memory:") as engine:
            with pytest.raises(UsageError, match="memory"):
                engine.connect()

    asyncio.run(scenario())


def test_a_connection_that_writes_for_a_while_holds_runs_up_and_loses_none(tmp_path: Path) -> None:
    schema = write(tmp_path, {"0001_orders.sql": ORDERS})

    async def scenario() -> None:
        async with Engine(tmp_path / "j.db", schema=schema) as engine:
            with closing(engine.connect()) as connection:
                connection.execute("BEGIN IMMEDIATE")
                connection.execute("INSERT INTO orders VALUES ('mine', 1)")
                waiting = asyncio.create_task(engine.transact(add, "theirs"))
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(asyncio.shield(waiting), 0.05)
                connection.execute("COMMIT")
            await waiting
            assert await engine.transact(orders) == ["mine", "theirs"]

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("refused", "why"),
    [
        ("ATTACH ':memory:' AS other", "atomic in each file for itself"),
        ("PRAGMA wal_checkpoint", "the engine sees to what it sets"),
        ("PRAGMA user_version = 9", "the engine sees to what it sets"),
        ("DELETE FROM durable_runs", "the journal's own"),
        ("DROP TABLE durable_runs", "the journal's own"),
    ],
)
def test_a_connection_says_why_it_refuses_a_statement(tmp_path: Path, refused: str, why: str) -> None:
    async def scenario() -> None:
        async with Engine(tmp_path / "j.db") as engine:
            with closing(engine.connect()) as connection:
                for run in (connection.execute, connection.executescript, connection.cursor().execute):
                    with pytest.raises(sqlite3.DatabaseError, match=why):
                        run(refused)
                with pytest.raises(sqlite3.OperationalError, match=r"^no such table: nowhere$"):
                    connection.execute("SELECT * FROM nowhere")
                with pytest.raises(sqlite3.DatabaseError, match="the journal's own"):
                    connection.executemany("DELETE FROM durable_runs WHERE no = ?", [(1,)])

    asyncio.run(scenario())


def test_a_connection_as_a_context_commits_or_rolls_back_and_closes(tmp_path: Path) -> None:
    schema = write(tmp_path, {"0001_orders.sql": ORDERS})

    async def scenario() -> None:
        async with Engine(tmp_path / "j.db", schema=schema) as engine:
            with engine.connect() as connection:
                connection.execute("BEGIN")
                connection.execute("INSERT INTO orders VALUES ('kept', 1)")
            with pytest.raises(ZeroDivisionError), engine.connect() as connection:  # noqa: PT012 - the rows are the point
                connection.execute("BEGIN")
                connection.execute("INSERT INTO orders VALUES ('undone', 1)")
                raise ZeroDivisionError
            with engine.connect() as connection:
                assert connection.execute("SELECT id FROM orders").fetchall() == [("kept",)]
            with pytest.raises(sqlite3.ProgrammingError, match="closed"):
                connection.execute("SELECT 1")

    asyncio.run(scenario())


@pytest.mark.contradicts("two", "crash", reason="it counts engines that open")
def test_a_file_that_another_process_applied_between_the_look_and_the_lock_is_not_applied_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    schema = write(tmp_path, {"0001_orders.sql": ORDERS})
    applied = user_schema._applied
    looks: list[int] = []

    def stale(connection: sqlite3.Connection, sql: Mapping[str, str]) -> dict[int, tuple[str, bytes]]:
        looks.append(1)
        return {} if len(looks) == 1 else applied(connection, sql)

    async def scenario() -> None:
        async with Engine(tmp_path / "j.db", schema=schema):
            pass
        monkeypatch.setattr(user_schema, "_applied", stale)
        async with Engine(tmp_path / "j.db", schema=schema) as engine:
            assert await engine.transact(orders) == []
        assert len(looks) == 2

    asyncio.run(scenario())


def test_a_schema_starts_no_runs_and_sends_no_messages() -> None:
    nothing: Any = None
    with pytest.raises(UsageError, match="starts no runs"):
        user_schema._NoRuns().start(nothing, nothing, nothing)
    with pytest.raises(UsageError, match="sends no messages"):
        user_schema._NoRuns().signal("x", nothing)

"""Journals that earlier versions made: they are brought up to date with everything that is in them."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from durable_sqlite._records import FailedAttempt, IfExists, Intent, RunQuery
from durable_sqlite._sqlite import connect, migrate
from tests.sqlite.faults import opened
from tests.support.journals import (
    awaits_answer,
    awaits_message,
    begin,
    entry,
    failed,
    new_answer,
    new_message,
    new_question,
    new_run,
    rest,
)

Rows = dict[str, dict[str, list[Any]]]
"""Columns by table, without the prefix."""


def _nothing(_name: str) -> None:
    return


async def _fill(path: Path) -> None:
    """Something in every table."""
    async with opened(path) as journal:
        _, hold = await begin(journal, "waits", deadline=1_000)
        await journal.record(hold, entry())
        await journal.fail(hold, FailedAttempt("s#2", 1, 20, 30, 40, b"error"))
        await journal.intend(hold, Intent("s#3", "s", b"digest", 1, 30))
        await journal.ask(hold, new_question())
        await journal.answer("waits", new_answer(name="sign", early=True))
        await journal.signal("waits", new_message("other"))
        await journal.suspend(hold, rest(awaits_message(), awaits_answer()))
        await journal.start(new_run("pending", tags={"team": "eu"}), IfExists.ATTACH, drive=False)
        _, hold = await begin(journal, "letter")
        await journal.end(hold, failed(keys=["s#1"]))


def _tables(connection: sqlite3.Connection) -> list[str]:
    sql = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite%' ORDER BY name"
    return [name for (name,) in connection.execute(sql).fetchall()]


def _content(connection: sqlite3.Connection) -> Rows:
    found: Rows = {}
    for table in _tables(connection):
        cursor = connection.execute(f"SELECT * FROM {table}")
        names = [each[0] for each in cursor.description]
        columns = zip(*cursor.fetchall(), strict=True)
        found[table.removeprefix("durable_")] = {
            name: list(column) for name, column in zip(names, columns, strict=False)
        }
    return found


def _make_old(path: Path, version: int, content: Rows) -> None:
    """A journal as it was, with as much as it could hold."""
    with closing(sqlite3.connect(path, isolation_level=None)) as old:
        known = migrate.read(migrate.find())[:version]
        connect.prepare(old, known, path=str(path), synchronous="full", failpoint=_nothing)
        old.execute("PRAGMA foreign_keys = OFF")
        for table in _tables(old):
            names = [row[1] for row in old.execute(f"PRAGMA table_info({table})")]
            old.execute(f"DELETE FROM {table}")
            rows = list(zip(*(content[table].get(name, []) for name in names), strict=True))
            assert rows or table == "workers"
            marks = ", ".join("?" * len(names))
            old.executemany(f"INSERT INTO {table} ({', '.join(names)}) VALUES ({marks})", rows)


@pytest.mark.parametrize("version", [1, 2, 3])
def test_everything_in_a_journal_of_before_is_there_afterwards(tmp_path: Path, version: int) -> None:
    asyncio.run(_fill(tmp_path / "new.db"))
    with closing(sqlite3.connect(tmp_path / "new.db")) as new:
        content = _content(new)
        schema = new.execute("SELECT name, sql FROM sqlite_schema ORDER BY name").fetchall()
    path = tmp_path / "old.db"
    _make_old(path, version, content)
    with closing(sqlite3.connect(path)) as old:
        before = _content(old)

    async def main() -> None:
        async with opened(path) as one, opened(path) as two:
            assert await one.count(RunQuery()) == await two.count(RunQuery()) == 3
            assert len(await one.entries(1)) == 1
            assert (await one.start(new_run("fresh"), IfExists.ATTACH, drive=False)).row.no == 4

    asyncio.run(main())
    with closing(sqlite3.connect(path)) as after:
        assert after.execute("SELECT name, sql FROM sqlite_schema ORDER BY name").fetchall() == schema
        assert after.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert after.execute("PRAGMA foreign_key_check").fetchall() == []
        after.execute("DELETE FROM durable_runs WHERE id = 'fresh'")
        now = _content(after)
    for table in before.keys() - {"workers", "ticks"}:
        assert now[table] | before[table] == now[table], table


@pytest.mark.parametrize("version", [1, 2, 3])
@pytest.mark.parametrize("point", ["migrate.before_commit", "migrate.after_commit"])
def test_a_crash_while_a_journal_is_brought_up_to_date_loses_nothing(tmp_path: Path, version: int, point: str) -> None:
    asyncio.run(_fill(tmp_path / "new.db"))
    with closing(sqlite3.connect(tmp_path / "new.db")) as new:
        content = _content(new)
    path, known = tmp_path / "old.db", migrate.read(migrate.find())
    _make_old(path, version, content)

    class Crash(Exception):
        pass

    def crash(name: str) -> None:
        if name == point:
            raise Crash

    for _ in known[version:]:
        with closing(sqlite3.connect(path, isolation_level=None)) as dying, pytest.raises(Crash):
            connect.prepare(dying, known, path=str(path), synchronous="full", failpoint=crash)

    async def main() -> None:
        async with opened(path) as journal:
            assert await journal.count(RunQuery()) == 3
            assert len(await journal.entries(1)) == 1

    asyncio.run(main())

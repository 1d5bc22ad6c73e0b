"""docs/spec.md: the format is what it says, and what it says not to do is noticed."""

from __future__ import annotations

import asyncio
import re
import sqlite3
import time
from contextlib import closing, suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from durable_sqlite import Engine, Retry, RunFailed, RunParked, Signal, step, workflow
from durable_sqlite._records import Kind, Outcome, State
from durable_sqlite._sqlite import sums
from durable_sqlite._sqlite.connect import APPLICATION_ID
from tests.support.house import ROOT

_PAGE = (ROOT / "docs" / "spec.md").read_text(encoding="utf-8")


class SentBySql(Signal):
    text: str


@workflow
async def listens() -> str:
    return (await SentBySql.wait()).text


def _program() -> Any:
    """The two blocks of the page that need nothing of ours."""
    program = ModuleType("by_sql")
    for block in re.findall(r"^```python\n(.*?)^```$", _PAGE, re.DOTALL | re.MULTILINE)[:2]:
        exec(compile(block, "spec.md", "exec"), vars(program))
    return program


def _documented() -> dict[str, set[str]]:
    """Table by table, the columns that the page describes."""
    found: dict[str, set[str]] = {}
    for section in re.split(
        r"^### ", _PAGE.partition("\n## Tables\n")[2].partition("\n## Writing\n")[0], flags=re.MULTILINE
    ):
        title, _, text = section.partition("\n")
        cells = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
        columns = [set(re.findall(r"`(\w+)`", cell)) for cell in cells]
        tables = re.findall(r"durable_\w+", title)
        if len(tables) == 1:
            found[tables[0]] = set().union(*columns)
        else:
            found |= dict(zip(tables, columns, strict=True))
    return found


def test_the_page_describes_every_table_and_every_column(tmp_path: Path) -> None:
    async def main() -> None:
        async with Engine(tmp_path / "j.db"):
            pass
        with closing(sqlite3.connect(tmp_path / "j.db")) as connection:
            kinds = connection.execute("SELECT type, name FROM sqlite_schema").fetchall()
            tables = [name for kind, name in kinds if kind == "table" and name.startswith("durable_")]
            there = {
                table: {row[1] for row in connection.execute(f"PRAGMA table_xinfo({table})").fetchall()}
                for table in tables
            }
            (version,) = connection.execute("PRAGMA user_version").fetchone()
        assert _documented() == there
        assert {kind for kind, _ in kinds} == {"table", "index"}  # neither views nor triggers
        assert f"this page is about schema {version}" in _PAGE
        assert hex(APPLICATION_ID) in _PAGE

    asyncio.run(main())


class Refused(Exception):
    pass


@step(raises=(Refused,))
async def refuses(why: str) -> str:
    raise Refused(why, 5)


@step(retry=Retry.fixed(0.001, max_attempts=2))
async def fails() -> None:
    try:
        await refuses.fn("inside")
    except Refused as refused:
        error = ExceptionGroup("both", [ValueError("one")])
        error.add_note("twice")
        raise error from refused


@workflow
async def goes_wrong(data: bytes) -> None:
    with suppress(Refused):
        await refuses("no")
    with suppress(TimeoutError):
        await SentBySql.wait(timeout=0)
    await fails()


def _fields_of(payload: bytes) -> set[str]:
    """The names of all fields, of objects in objects as well."""
    return set(re.findall(r'(?<!\\)"(\w+)":', payload.decode()))


def test_errors_are_stored_in_the_fields_that_the_page_describes(tmp_path: Path) -> None:
    async def main() -> None:
        async with Engine(tmp_path / "j.db") as engine:
            with pytest.raises(RunFailed):
                await (await goes_wrong.options(id="r").start(b"\xff")).result(timeout=30)
            assert (await engine.verify()).findings == ()

    asyncio.run(main())
    with closing(_program().connected(tmp_path / "j.db")) as connection:
        rows = connection.execute("SELECT outcome, payload FROM durable_entries WHERE outcome <> 'value'").fetchall()
        rows += connection.execute("SELECT 'error', error FROM durable_attempts").fetchall()
        ((given, ended),) = connection.execute("SELECT input, result FROM durable_runs").fetchall()
    assert given == b'{"data":"_w=="}'
    described, declared = (
        {name for row in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)}
        for table in _PAGE.partition("\n## Payloads\n")[2].partition("\n## ")[0].split("An outcome `declared`")
    )
    assert [payload for outcome, payload in rows if outcome == "timeout"] == [b""]
    errors = [payload for outcome, payload in [*rows, ("error", ended)] if outcome == "error"]
    assert set[str]().union(*map(_fields_of, errors)) == described
    assert [_fields_of(payload) for outcome, payload in rows if outcome == "declared"] == [declared]


def test_the_page_has_every_word_and_the_sums_of_this_version() -> None:
    for words in (State, Kind, Outcome):
        assert [word for word in words if f"`{word}`" not in _PAGE] == []
    assert [part.name for part in sums.PARTS if f"`{part.name}`" not in _PAGE] == []
    assert f'SUMS = "{sums._VERSION}"' in _PAGE
    assert tuple(re.split(r",\s*", _program().RUN)) == sums.RUN.pieces[0].plain


@pytest.mark.parametrize("text", ["plain", "it's", "€ and \U0001f40d", "both ' and \"", "a\\b\n\t\r\x01"])
def test_its_checksum_is_the_one_that_is_kept(text: str) -> None:
    values = (1, 2, text, 3, None, None)
    assert _program().checksum("signal", values, [None, b"\x00{}"]) == sums.checksum("signal", *values, None, b"\x00{}")


def test_a_message_that_was_sent_by_sql_wakes_the_run_and_leaves_a_sound_journal(tmp_path: Path) -> None:
    async def main() -> None:
        path = tmp_path / "j.db"
        async with Engine(path, workflows=[listens]) as engine:
            run = await listens.options(id="für-ada", tags={"a": "b"}).start()
            await engine.join()
            said = await asyncio.to_thread(_program().send, path, run.id, "SentBySql", {"text": "ahoy"}, "d'1")
            assert said == "sent"
            assert await run.result(timeout=30) == "ahoy"
            assert (await engine.verify()).findings == ()

    asyncio.run(main())


def test_a_message_that_was_sent_by_sql_while_nobody_was_there_is_taken_by_the_next_engine(tmp_path: Path) -> None:
    async def main() -> None:
        path = tmp_path / "j.db"
        async with Engine(path) as engine:
            run = await listens.options(id="r").start()
            await engine.join()
        assert _program().send(path, run.id, "SentBySql", {"text": "ahoy"}) == "sent"
        async with Engine(path, workflows=[listens]) as engine:
            assert await engine.run("r").result(timeout=30) == "ahoy"
            assert (await engine.verify()).findings == ()

    asyncio.run(main())


def test_a_bare_insert_is_taken_for_damage_as_the_page_says(tmp_path: Path) -> None:
    async def main() -> None:
        path = tmp_path / "j.db"
        async with Engine(path) as engine:
            run = await listens.options(id="r").start()
            await engine.join()
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute(
                "INSERT INTO durable_signals (run, no, name, sent_at, payload) VALUES (1, 1, 'SentBySql', ?, ?)",
                (time.time_ns() // 1_000, b'{"text":"ahoy"}'),
            )
            connection.execute("UPDATE durable_runs SET state = 'pending'")
        async with Engine(path, workflows=[listens]) as engine:
            with pytest.raises(RunParked) as parked:
                await engine.run(run.id).result(timeout=30)
            assert parked.value.reason == "damaged"

    asyncio.run(main())


def test_a_journal_with_a_codec_is_refused_by_it(tmp_path: Path) -> None:
    async def main() -> None:
        class Plain:
            name = "plain"

            def encode(self, data: bytes, /) -> bytes:
                return data

            def decode(self, data: bytes, /) -> bytes:
                return data

        async with Engine(tmp_path / "j.db", codec=Plain()) as engine:
            run = await listens.start()
            await engine.join()
        with pytest.raises(ValueError, match="not written like this"):
            _program().send(tmp_path / "j.db", run.id, "SentBySql", {"text": "ahoy"})

    asyncio.run(main())

"""What shows beside a journal, without a look into it, that somebody may have written."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from durable_sqlite._records import Pulse
from durable_sqlite._sqlite import queries
from durable_sqlite._sqlite.mark import Mark, mark_file
from tests.sqlite.faults import opened
from tests.support.journals import begin, new_message


def test_a_journal_that_nobody_writes_to_seems_still_however_often_it_is_asked(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path / "j.db") as journal, opened(tmp_path / "j.db") as other:
            await begin(other)
            seen = await journal.pulse()
            assert all(journal.seems_still(seen) for _ in range(3))
            await other.signal("a", new_message())
            assert not journal.seems_still(seen)
            after = await journal.pulse()
            assert after != seen
            assert journal.seems_still(after)
            assert not journal.seems_still(seen)

    asyncio.run(main())


def test_what_is_written_by_sql_shows_in_the_wal(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path / "j.db") as journal:
            await begin(journal)
            os.utime(tmp_path / "j.db-wal", ns=(0, 0))  # as if nobody had written for long
            seen = await journal.pulse()
            assert journal.seems_still(seen)
            with closing(sqlite3.connect(tmp_path / "j.db")) as shell:
                shell.execute("CREATE TABLE notes (text)")
            assert not journal.seems_still(seen)

    asyncio.run(main())


def test_what_is_written_while_the_pulse_is_taken_shows_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        async with opened(tmp_path / "j.db") as journal, opened(tmp_path / "j.db") as other:
            await begin(other)
            take = queries.pulse

            def slow(*args: Any) -> Pulse:
                pulse = take(*args)
                # Another worker commits after the look, and before its answer.
                mark = Mark(mark_file(str(tmp_path / "j.db")))
                mark.take(identity, 63)
                mark.write(99)
                mark.close()
                return pulse

            mark = journal._open_writer().batch.mark
            assert mark is not None
            identity = mark._identity.hex()
            with monkeypatch.context() as patch:
                patch.setattr(queries, "pulse", slow)
                seen = await journal.pulse()
            assert not journal.seems_still(seen)

    asyncio.run(main())


@pytest.mark.parametrize("what", ["the WAL", "the mark", "neither"])
def test_where_signs_cannot_be_read_nothing_seems_still(
    tmp_path: Path, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise OSError(5, "Input/output error")

    async def main() -> None:
        async with opened(tmp_path / "j.db") as journal:
            await begin(journal)
            seen = await journal.pulse()
            assert journal.seems_still(seen)
            with monkeypatch.context() as patch:
                match what:
                    case "the WAL":
                        patch.setattr("durable_sqlite._sqlite.journal.written_at", fail)
                    case "the mark":
                        patch.setattr(Mark, "said", fail)
                    case _:
                        patch.setattr(journal._open_writer().batch, "mark", None)
                assert not journal.seems_still(seen)
                blind = await journal.pulse()
                assert not journal.seems_still(blind)
            assert blind == seen
            assert not journal.seems_still(blind)
            assert journal.seems_still(seen)

    asyncio.run(main())


def test_a_mark_that_was_let_go_says_nothing(tmp_path: Path) -> None:
    mark = Mark(str(tmp_path / "m"))
    mark.take("fedcba9876543210", 1)
    mark.write(5)
    assert mark.said()
    mark.close()
    assert mark.said() == b""


def test_on_a_network_nothing_seems_still_since_even_a_glance_may_take_long(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path / "j.db", network=True) as journal:
            await begin(journal)
            assert not journal.seems_still(await journal.pulse())

    asyncio.run(main())


@pytest.mark.parametrize("theirs", [False, True])
def test_reading_a_mark_leaves_no_trace_of_it_unless_it_is_another_users(
    tmp_path: Path, theirs: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    silent = getattr(os, "O_NOATIME", 0)
    tried: list[bool] = []

    def restricted(path: str, flags: int, mode: int) -> int:
        tried.append(bool(flags & silent))
        if theirs and len(tried) == 1:
            raise PermissionError(1, "Operation not permitted")
        return opening(path, flags, mode)

    opening = os.open
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", restricted)
        Mark(str(tmp_path / "m")).close()
    assert tried == [bool(silent), False][: 1 + theirs]

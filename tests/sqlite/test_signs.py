"""What shows beside a journal, without a look into it, that somebody may have written."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from durable_sqlite import JournalError
from durable_sqlite._records import Pulse
from durable_sqlite._sqlite import queries
from durable_sqlite._sqlite.mark import Mark, mark_file
from tests.sqlite.faults import opened
from tests.support.journals import begin, new_message


def test_a_journal_that_nobody_writes_to_seems_still_however_often_it_is_asked(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path / "j.db") as journal, opened(tmp_path / "j.db") as other:
            await begin(other)
            assert not journal.seems_still()
            seen = await journal.pulse()
            assert all(journal.seems_still() for _ in range(3))
            await other.signal("a", new_message())
            assert not journal.seems_still()
            assert await journal.pulse() != seen
            assert journal.seems_still()

    asyncio.run(main())


def test_what_is_written_by_sql_shows_in_the_wal(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path / "j.db") as journal:
            await begin(journal)
            await journal.pulse()
            os.utime(tmp_path / "j.db-wal", ns=(0, 0))  # as if nobody had written for long
            assert not journal.seems_still()
            await journal.pulse()
            assert journal.seems_still()
            with closing(sqlite3.connect(tmp_path / "j.db")) as shell:
                shell.execute("CREATE TABLE notes (text)")
            assert not journal.seems_still()

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
                await journal.pulse()
            assert not journal.seems_still()

    asyncio.run(main())


def test_a_look_that_fails_leaves_nothing_behind_that_would_pass_for_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> Pulse:
        raise JournalError("not now")

    async def main() -> None:
        async with opened(tmp_path / "j.db") as journal, opened(tmp_path / "j.db") as other:
            await begin(other)
            await journal.pulse()
            await other.signal("a", new_message())
            with monkeypatch.context() as patch:
                patch.setattr(queries, "pulse", broken)
                with pytest.raises(JournalError):
                    await journal.pulse()
            assert not journal.seems_still()

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
            await journal.pulse()
            assert journal.seems_still()
            with monkeypatch.context() as patch:
                match what:
                    case "the WAL":
                        patch.setattr("durable_sqlite._sqlite.journal.written_at", fail)
                    case "the mark":
                        patch.setattr(Mark, "said", fail)
                    case _:
                        patch.setattr(journal._open_writer().batch, "mark", None)
                assert not journal.seems_still()
                await journal.pulse()
                assert not journal.seems_still()
            await journal.pulse()
            assert journal.seems_still()

    asyncio.run(main())


def test_a_mark_that_was_let_go_says_nothing(tmp_path: Path) -> None:
    mark = Mark(str(tmp_path / "m"))
    mark.take("fedcba9876543210", 1)
    mark.write(5)
    assert mark.said()
    mark.close()
    assert mark.said() == b""

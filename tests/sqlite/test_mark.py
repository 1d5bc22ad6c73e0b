"""The mark beside the journal: a journal that went back is noticed when it is opened, and only then."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from durable_sqlite._findings import Finding, FindingKind
from durable_sqlite._records import IfExists
from durable_sqlite._sqlite import SqliteJournal
from durable_sqlite._sqlite.mark import Mark, Seen, glance, mark_file
from tests.sqlite.faults import opened
from tests.support.journals import begin, entry, new_message, new_run

OTHER = "0123456789abcdef"
OWN = "fedcba9876543210"


def mark_of(path: Path) -> Path:
    return Path(mark_file(str(path)))


def latest_of(path: Path, identity: str = OWN) -> int:
    mark = Mark(str(path))
    try:
        return mark.look(identity).latest
    finally:
        mark.close()


def write(path: Path, worker: int, latest: int, identity: str = OWN) -> None:
    mark = Mark(str(path))
    mark.take(identity, worker)
    mark.write(latest)
    mark.close()


# The file itself -----------------------------------------------------------------------------------------------------


def test_the_largest_number_of_any_worker_counts(tmp_path: Path) -> None:
    for worker, latest in ((1, 5), (2, 9), (3, 7), (2, 8)):
        write(tmp_path / "m", worker, latest)
    assert latest_of(tmp_path / "m") == 8


def test_who_does_not_keep_a_mark_reads_the_same_and_makes_none(tmp_path: Path) -> None:
    assert glance(str(tmp_path / "m"), OWN) is None
    assert list(tmp_path.iterdir()) == []
    write(tmp_path / "m", 1, 5)
    mark = Mark(str(tmp_path / "m"))
    try:
        mark.take(OWN, 2)
        mark.write(9)
        assert glance(str(tmp_path / "m"), OWN) == mark.look(OWN) == Seen(9, ())
        assert glance(str(tmp_path / "m"), OTHER) == Seen(0, (OWN,))
    finally:
        mark.close()


@pytest.mark.parametrize("byte", range(32))
def test_a_slot_that_was_torn_or_damaged_says_nothing(tmp_path: Path, byte: int) -> None:
    path = tmp_path / "m"
    write(path, 1, 5)
    write(path, 2, 9)
    data = bytearray(path.read_bytes())
    data[2 * 32 + byte] ^= 1
    path.write_bytes(data)
    assert latest_of(path) == 5
    path.write_bytes(data[: 2 * 32 + byte])
    assert latest_of(path) == 5


def test_a_mark_is_for_its_owner_alone_and_stays_small(tmp_path: Path) -> None:
    for worker in range(200):
        write(tmp_path / "m", worker, worker)
    assert (tmp_path / "m").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "m").stat().st_size == 64 * 32


def test_what_is_said_of_other_journals_is_forgotten_once_it_is_told(tmp_path: Path) -> None:
    write(tmp_path / "m", 1, 5, OTHER)
    mark = Mark(str(tmp_path / "m"))
    assert mark.look(OWN).strangers == (OTHER,)
    mark.take(OWN, 2)
    assert mark.look(OWN).strangers == ()
    mark.close()


def test_a_mark_that_was_let_go_says_nothing_more(tmp_path: Path) -> None:
    mark = Mark(str(tmp_path / "m"))
    mark.take(OWN, 1)
    mark.write(5)
    mark.close()
    mark.write(6)
    assert latest_of(tmp_path / "m") == 5


# What opening says ---------------------------------------------------------------------------------------------------


def work(path: Path, *names: str, **options: Any) -> list[Finding]:
    """Open, begin runs of these names, and close; what the journal reports of itself."""

    async def main() -> list[Finding]:
        async with opened(path, **options) as journal:
            for name in names:
                await journal.start(*_new(name), drive=False)
            return list((await journal.verify(False)).findings)

    return asyncio.run(main())


def _new(name: str) -> Any:
    return new_run(name), IfExists.ATTACH


def kinds(findings: Sequence[Finding]) -> list[FindingKind]:
    return [finding.kind for finding in findings]


def test_a_restored_backup_is_reported_and_not_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "j.db"
    assert work(path, "a") == []
    shutil.copy(path, tmp_path / "backup")
    assert work(path, "b", "c") == []
    shutil.copy(tmp_path / "backup", path)
    with caplog.at_level(logging.ERROR):
        (finding,) = work(path)
    assert finding.kind is FindingKind.WENT_BACK
    assert "went back by 3 commits" in finding.what  # two starts, and the release of the worker
    assert "went back by 3 commits" in caplog.text


def test_a_loss_is_told_once_and_kept_until_somebody_has_seen_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "j.db"
    work(path, "a")
    shutil.copy(path, tmp_path / "backup")
    work(path, "b")
    work(path, "c")  # another worker, whose slot stays as it is
    shutil.copy(tmp_path / "backup", path)
    work(path)
    caplog.clear()
    assert kinds(work(path)) == [FindingKind.WENT_BACK]
    assert not caplog.records

    async def see() -> None:
        async with opened(path) as journal:
            assert len((await journal.verify(True)).findings) == 1

    asyncio.run(see())
    assert work(path) == []


def test_a_second_loss_is_told_again(tmp_path: Path) -> None:
    path = tmp_path / "j.db"
    work(path, "a")
    shutil.copy(path, tmp_path / "backup")
    for number in (1, 2):
        work(path, "b")
        shutil.copy(tmp_path / "backup", path)
        assert kinds(work(path)) == [FindingKind.WENT_BACK], number


def test_a_journal_without_its_mark_is_silent(tmp_path: Path) -> None:
    path = tmp_path / "j.db"
    work(path, "a")
    shutil.copy(path, tmp_path / "copy.db")
    work(path, "b")
    assert work(tmp_path / "copy.db") == []
    mark_of(path).unlink()
    shutil.copy(tmp_path / "copy.db", path)
    assert work(path) == []


def test_a_mark_of_another_journal_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "j.db"
    work(path, "a")
    work(tmp_path / "other.db", "b")
    shutil.copy(tmp_path / "other.db", path)
    assert kinds(work(path)) == [FindingKind.OTHER_JOURNAL]


@pytest.mark.parametrize("damage", ["x" * 16, "0123456789ABCDEF", "", "0123456789abcde"])
def test_an_identity_that_is_damaged_is_reported_and_made_anew(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "j.db"
    work(path, "a")
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE durable_meta SET value = ? WHERE name = 'identity'", (damage,))
        connection.commit()
    told = work(path)
    assert any("the journal's identity is damaged" in finding.what for finding in told)
    with closing(sqlite3.connect(path)) as connection:
        ((fresh,),) = connection.execute("SELECT value FROM durable_meta WHERE name = 'identity'").fetchall()
    assert re.fullmatch("[0-9a-f]{16}", fresh)
    assert len(work(path)) == len(told)  # it is told once


@pytest.mark.parametrize("damage", ["no JSON", "7", "[7]", '[["no kind", "what"]]'])
def test_reports_that_are_damaged_themselves_are_reported(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "j.db"
    work(path, "a")
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("INSERT INTO durable_meta (name, value) VALUES ('reports', ?)", (damage,))
        connection.commit()
    (finding,) = work(path)
    assert finding.kind is FindingKind.STRUCTURE
    assert "earlier findings is damaged" in finding.what


def test_a_journal_that_was_deleted_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "j.db"
    work(path, "a")
    path.unlink()
    assert kinds(work(path)) == [FindingKind.OTHER_JOURNAL]


_KILLED = """
import asyncio, os, sys
from pathlib import Path
from tests.sqlite.faults import opened
from tests.sqlite.test_mark import _new

async def main() -> None:
    async with opened(Path(sys.argv[1])) as journal:
        for number in range(5):
            await journal.start(*_new(f"k{number}"), drive=False)
        os._exit(0)

asyncio.run(main())
"""


@pytest.mark.parametrize(("share", "lost"), [(1.0, 0), (0.9, 1), (0.5, 1), (0.0, 5)])
def test_a_wal_that_was_cut_is_reported(tmp_path: Path, share: float, lost: int) -> None:
    path = tmp_path / "j.db"
    work(path, "a")
    subprocess.run([sys.executable, "-c", _KILLED, str(path)], check=True)
    wal = Path(f"{path}-wal")
    os.truncate(wal, int(wal.stat().st_size * share))
    findings = work(path)
    assert kinds(findings) == ([FindingKind.WENT_BACK] if lost else [])
    for finding in findings:
        assert int(finding.what.split(" by ")[1].split()[0]) >= lost


def test_two_workers_side_by_side_are_no_loss(tmp_path: Path) -> None:
    path = tmp_path / "j.db"

    async def main() -> None:
        async with opened(path) as first, opened(path) as second:
            for number in range(20):
                journal: SqliteJournal = (first, second)[number % 2]
                await journal.start(*_new(f"r{number}"), drive=False)
                async with opened(path) as third:
                    assert (await third.verify(False)).ok

    asyncio.run(main())
    assert work(path) == []


def test_the_mark_has_the_number_of_each_commit_that_is_acknowledged(tmp_path: Path) -> None:
    path = tmp_path / "j.db"

    async def main() -> None:
        async with opened(path) as journal:
            _, hold = await begin(journal)
            identity = await journal._read(lambda tables: tables.one("meta_value", {"name": "identity"})[0])
            for seq in range(1, 5):
                await journal.record(hold, entry(f"s#{seq}", seq=seq))
                (number,) = await journal._read(lambda tables: tables.one("last_commit", {}))
                assert latest_of(mark_of(path), identity) == number

    asyncio.run(main())


def test_a_mark_that_cannot_be_written_holds_up_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    async def main() -> None:
        async with opened(tmp_path / "j.db") as journal:
            await begin(journal)
            monkeypatch.setattr(os, "pwrite", full)
            for _ in range(3):
                await journal.signal("a", new_message())
            monkeypatch.undo()

    asyncio.run(main())
    assert caplog.text.count("cannot be written") == 1
    assert work(tmp_path / "j.db") == []


def test_a_mark_that_cannot_be_opened_holds_up_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    mark_of(tmp_path / "j.db").mkdir()
    assert work(tmp_path / "j.db", "a") == []
    assert "cannot be opened" in caplog.text

"""`migrate`, `backup`, `prune` and `export`: the care of a journal."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from durable_sqlite._sqlite import connect, migrate
from durable_sqlite.cli._journal import known_version
from tests.cli.support import durable_sqlite

pytestmark = pytest.mark.thorough  # each test starts several processes: too many for every day


@pytest.fixture
def journal(shop: Path, tmp_path: Path) -> Path:
    """A journal of its own."""
    return Path(shutil.copy(shop, tmp_path / "runs.db"))


def _versioned(path: Path, version: int) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(f"PRAGMA user_version = {version}")


def test_a_journal_that_is_up_to_date_is_left_as_it_is(journal: Path) -> None:
    before = journal.read_bytes()
    said = durable_sqlite("migrate", "--db", journal, cwd=journal.parent)
    assert f"is up to date (schema {known_version()})" in said.out
    assert journal.read_bytes() == before


def test_an_older_journal_is_brought_up_to_date(tmp_path: Path) -> None:
    old = tmp_path / "old.db"
    old.touch(mode=0o600)
    known = migrate.read(migrate.find())[:-1]
    with closing(sqlite3.connect(old, isolation_level=None)) as connection:
        connect.prepare(connection, known, path=str(old), synchronous="normal", failpoint=lambda _name: None)
    assert "durable_sqlite migrate" in durable_sqlite("list", "--db", old, cwd=tmp_path, codes=(6,)).err
    document = durable_sqlite("migrate", "--db", old, "--json", cwd=tmp_path).data
    assert (document["before"], document["after"]) == (known_version() - 1, known_version())
    assert "holds no runs" in durable_sqlite("list", "--db", old, cwd=tmp_path).err


def test_a_newer_journal_is_not_touched(journal: Path) -> None:
    _versioned(journal, known_version() + 1)
    before = journal.read_bytes()
    assert "newer durable_sqlite" in durable_sqlite("migrate", "--db", journal, cwd=journal.parent, codes=(6,)).err
    assert journal.read_bytes() == before


def test_a_backup_is_a_journal_for_its_owner_alone(journal: Path) -> None:
    folder = journal.parent
    said = durable_sqlite("backup", "copy.db", "--db", journal, cwd=folder)
    assert "copy.db is a complete copy" in said.out
    assert (folder / "copy.db").stat().st_mode & 0o777 == 0o600
    assert "run-done" in durable_sqlite("list", "--db", "copy.db", cwd=folder).out
    assert "copy.db" in durable_sqlite("backup", "copy.db", "--db", journal, cwd=folder, codes=(2,)).err
    document = durable_sqlite("backup", "copy.db", "--overwrite", "--db", journal, "--json", cwd=folder).data
    assert document == {"file": str(folder / "copy.db"), "bytes": (folder / "copy.db").stat().st_size}


@pytest.mark.parametrize("file", ["", "nowhere/copy.db", "runs.db"])
def test_a_backup_that_cannot_be_made_is_refused(journal: Path, file: str) -> None:
    before = journal.read_bytes()
    durable_sqlite("backup", file, "--db", journal, cwd=journal.parent, codes=(2,))
    # An engine that was open leaves its mark beside the journal, as always.
    assert {path.name for path in journal.parent.iterdir()} <= {"runs.db", "runs.db-mark"}
    assert journal.read_bytes()[:16] == before[:16]


def test_old_runs_are_forgotten(journal: Path) -> None:
    folder = journal.parent
    assert durable_sqlite("prune", "--older-than", "30d", "--db", journal, "--json", cwd=folder).data["forgotten"] == 0
    said = durable_sqlite("prune", "--older-than", "1m", "--state", "cancelled", "--db", journal, cwd=folder)
    assert said.out == "1 run that ended more than 1 min ago forgotten\n"
    assert "holds no run" in durable_sqlite("show", "run-cancelled", "--db", journal, cwd=folder, codes=(3,)).err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["prune"], "--older-than"),
        (["prune", "--older-than", "month"], "is no length of time"),
        (["prune", "--older-than", "1d", "--state", "running"], "invalid choice"),
        (["backup"], "FILE"),
        (["migrate", "now"], "unrecognized arguments"),
        (["export"], "ID"),
    ],
)
def test_what_is_typed_wrong_is_said(journal: Path, words: list[str], told: str) -> None:
    assert told in durable_sqlite(*words, "--db", journal, cwd=journal.parent, codes=(2,)).err


def test_all_of_a_run_is_one_document(journal: Path) -> None:
    exported = durable_sqlite("export", "run-done", "--db", journal, cwd=journal.parent).data
    assert exported["id"] == "run-done"
    assert [entry["key"] for entry in exported["entries"]] == ["charge#1", "ship#1"]
    assert exported == durable_sqlite("show", "run-done", "--json", "--db", journal, cwd=journal.parent).data
    assert "holds no run" in durable_sqlite("export", "nobody", "--db", journal, cwd=journal.parent, codes=(3,)).err


@pytest.mark.parametrize("words", [["migrate"], ["backup", "b.db"], ["prune", "--older-than", "1d"], ["export", "@"]])
def test_none_makes_a_journal_or_touches_what_is_none(tmp_path: Path, words: list[str]) -> None:
    assert "there is no journal" in durable_sqlite(*words, "--db", "new.db", cwd=tmp_path, codes=(2,)).err
    (tmp_path / "text.db").write_text("just a text, and rather a long one at that\n" * 99)
    before = (tmp_path / "text.db").read_bytes()
    assert "no SQLite database" in durable_sqlite(*words, "--db", "text.db", cwd=tmp_path, codes=(6,)).err
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("text.db", before)]

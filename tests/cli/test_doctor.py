"""`doctor`: it finds what is wrong with a journal and what it stands on, says what cannot be known, and changes nothing."""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from durable_sqlite._sqlite.mark import Mark, mark_file
from durable_sqlite.cli import _standing
from durable_sqlite.cli._standing import has_wal_reset_bug
from tests.cli.journals import HOUR, SECOND, made
from tests.cli.support import Said, durable_sqlite
from tests.cli.test_ground import loaded

IDENTITY = "00112233445566ff"
"""Of the journals that `made` makes."""


def look(db: Path, *words: str, codes: tuple[int, ...] = (0,)) -> Said:
    return durable_sqlite(*words, "--db", db, cwd=db.parent, codes=codes)


def _checks(said: Said) -> dict[str, tuple[str, str]]:
    return {check["name"]: (check["level"], check["text"]) for check in said.data["checks"]}


def test_doctor_finds_a_sound_journal_sound(shop: Path) -> None:
    said = look(shop, "doctor")
    assert said.out.splitlines()[-1] == "nothing is wrong"
    assert "integrity_check: ok" in said.out
    data = look(shop, "doctor", "--json").data
    assert data["sound"] is True
    checks = {check["name"]: check["level"] for check in data["checks"]}
    assert {checks[name] for name in ("permissions", "mode", "schema", "structure", "references", "wal")} == {"ok"}
    assert checks["workers"] == "note"


def test_doctor_names_what_is_wrong(shop: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.db"
    shutil.copy(shop, bad)
    bad.chmod(0o644)
    with closing(sqlite3.connect(bad, isolation_level=None)) as connection:
        connection.execute("PRAGMA foreign_keys = OFF")
        connection.execute("PRAGMA journal_mode = DELETE").fetchall()
        connection.execute("INSERT INTO durable_run_tags VALUES (999, 'a', 'b')")
    said = look(bad, "doctor", "--json", codes=(1,))
    checks = _checks(said)
    assert checks["permissions"] == ("wrong", f"others may open {bad} (mode 0644)")
    assert checks["mode"][0] == "wrong"
    assert checks["references"] == (
        "wrong",
        "1 row of durable_run_tags belong to a row of durable_runs that is not there",
    )
    assert look(bad, "doctor", codes=(1,)).out.splitlines()[-1] == "3 things are wrong"


def test_doctor_says_that_a_journal_is_damaged_instead_of_giving_up(shop: Path, tmp_path: Path) -> None:
    data = bytearray(shop.read_bytes())
    data[3 * 4096 : 8 * 4096] = b"\xaa" * (5 * 4096)
    (tmp_path / "damaged.db").write_bytes(data)
    (tmp_path / "damaged.db").chmod(0o600)
    said = look(tmp_path / "damaged.db", "doctor", codes=(1,))
    assert "WRONG  structure" in said.out
    assert "restore a backup" in said.out


def test_doctor_looks_at_an_older_journal_too(shop: Path, tmp_path: Path) -> None:
    shutil.copy(shop, tmp_path / "old.db")
    with closing(sqlite3.connect(tmp_path / "old.db")) as connection:
        connection.execute("PRAGMA user_version = 4")
    assert f"durable_sqlite migrate --db {tmp_path / 'old.db'}\n" in look(tmp_path / "old.db", "doctor").out


def test_doctor_names_who_stays_in_a_read_transaction(shop: Path, tmp_path: Path) -> None:
    if not Path("/proc/locks").exists():
        pytest.skip("this system does not tell who holds which lock")
    path = tmp_path / "read.db"
    shutil.copy(shop, path)
    with closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("CREATE TABLE mine (x)")
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM durable_runs").fetchall()
        said = look(path, "doctor", "--json")
    level, text = _checks(said)["readers"]
    assert level == "note"
    assert re.match(
        rf"process {os.getpid()} \(.+\) reads all the time, and keeps the WAL from being written back", text
    )
    assert re.search(r"at least for the 0.2 s of this look, and at most \d+ \w+, as old as the process is", text)


@pytest.mark.parametrize(
    ("version", "affected"),
    [
        ((3, 6, 23), False),
        ((3, 7, 0), True),
        ((3, 40, 1), True),
        ((3, 44, 5), True),
        ((3, 44, 6), False),
        ((3, 45, 0), True),
        ((3, 50, 6), True),
        ((3, 50, 7), False),
        ((3, 51, 0), True),
        ((3, 51, 2), True),
        ((3, 51, 3), False),
        ((3, 53, 0), False),
    ],
)
def test_doctor_knows_which_versions_of_sqlite_have_the_bug(version: tuple[int, ...], affected: bool) -> None:
    assert has_wal_reset_bug(version) is affected


# What was written ----------------------------------------------------------------------------------------------------


@pytest.fixture
def own(shop: Path, tmp_path: Path) -> Path:
    """A copy of the shop's journal for one test alone."""
    return Path(shutil.copy(shop, tmp_path / "own.db"))


def edit(path: Path, *statements: str) -> None:
    """Write past the library."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for sql in statements:
            assert connection.execute(sql).rowcount, sql


def _wrong(said: Said) -> list[tuple[str, str]]:
    return [(check["name"], check["text"]) for check in said.data["checks"] if check["level"] == "wrong"]


def test_what_is_recorded_is_held_against_its_checksums(own: Path) -> None:
    level, text = _checks(look(own, "doctor", "--json"))["checksums"]
    assert level == "ok"
    assert re.fullmatch(r"\d\d rows of 15 runs are as they were written", text)


@pytest.mark.parametrize(
    ("sql", "told"),
    [
        (
            "UPDATE durable_entries SET payload = x'32' WHERE key = 'charge#1' AND payload = x'2263685f313722'",
            "run run-done: its entry charge#1 is not what was recorded",
        ),
        (
            "DELETE FROM durable_waits WHERE key = 'Paid#1'",
            "run run-listens: of its waits, 1 were written: 1 are missing",
        ),
        (
            "UPDATE durable_runs SET input = x'31' WHERE id = 'run-paused'",
            "run run-paused: its own row is not what was written",
        ),
        (
            "UPDATE durable_runs SET status = 'x' WHERE id = 'run-asks'",
            "run run-asks: its own row is not what was written",
        ),
    ],
    ids=["an entry", "a lost row", "an input", "a status"],
)
def test_a_row_that_is_not_what_was_written_is_wrong_and_its_run_is_named(own: Path, sql: str, told: str) -> None:
    edit(own, sql)
    said = look(own, "doctor", "--json", codes=(1,))
    assert _wrong(said) == [("checksums", told)]
    for_people = look(own, "doctor", codes=(1,)).out
    assert f"WRONG  checksums    {told}\n" in for_people
    assert "restore a backup; or `engine.verify(accept=[id])`" in for_people
    assert for_people.splitlines()[-1] == "1 thing is wrong"


def test_of_very_many_findings_people_are_shown_some_and_programs_all(tmp_path: Path) -> None:
    path = tmp_path / "many.db"
    with made(path) as make:
        for number in range(50):
            make.run(f"run-{number:02}")
    edit(path, "UPDATE durable_runs SET status = 'x'")
    assert len(_wrong(look(path, "doctor", "--json", codes=(1,)))) == 50
    said = look(path, "doctor", codes=(1,)).out
    assert "run run-19: " in said
    assert "run run-20: " not in said
    assert "and 30 more like these: --json names all" in said
    assert said.splitlines()[-1] == "50 things are wrong"


def test_a_changed_table_of_the_journals_own_is_wrong(own: Path) -> None:
    edit(own, "ALTER TABLE durable_runs ADD COLUMN mine TEXT")
    assert _wrong(look(own, "doctor", "--json", codes=(1,))) == [
        ("schema", "the journal's own tables are not as this library made them")
    ]


def test_what_an_engine_found_damaged_is_wrong_also_for_a_quick_look(tmp_path: Path) -> None:
    path = tmp_path / "parked.db"
    with made(path) as make:
        make.run("bad", "parked", reason="damaged")
        make.run("seen to", "parked", reason="damaged", discarded_at=make.now)
    told = ("damage", "run bad is parked, since its rows do not fit their checksums")
    assert _wrong(look(path, "doctor", "--json", codes=(1,))) == [told]
    assert _wrong(look(path, "doctor", "--quick", "--json", codes=(1,))) == [told]


def test_a_quick_look_says_what_it_leaves_out(own: Path) -> None:
    edit(own, "UPDATE durable_runs SET status = 'x'")
    said = look(own, "doctor", "--quick")
    assert "not looked at, nor the checksums" in said.out
    assert said.out.splitlines()[-1] == "nothing is wrong that is seen at once"


def test_an_older_journal_has_no_checksums_and_it_is_said(own: Path) -> None:
    edit(own, "UPDATE durable_runs SET status = 'x'")
    with closing(sqlite3.connect(own)) as connection:
        connection.execute("PRAGMA user_version = 5")
    said = look(own, "doctor", "--json")
    assert _checks(said)["checksums"] == (
        "note",
        "a journal of schema 5 has none, so damage to what is recorded cannot be seen",
    )


def test_sums_that_another_version_made_are_not_taken_for_damage(own: Path) -> None:
    edit(own, "UPDATE durable_meta SET value = 'other' WHERE name = 'sums'", "UPDATE durable_sums SET checksum = 0")
    level, text = _checks(look(own, "doctor", "--json"))["checksums"]
    assert level == "note"
    assert "nothing can be held against them" in text


def test_a_journal_older_than_its_tables_now_is_not_called_damaged(tmp_path: Path) -> None:
    path = tmp_path / "first.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA application_id = {0x44755271}")
        connection.execute("PRAGMA user_version = 1")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE runs (no INTEGER PRIMARY KEY)")
    path.chmod(0o600)
    said = look(path, "doctor")
    assert "some of it is not looked at before it is migrated (no such table" in said.out


# The mark ------------------------------------------------------------------------------------------------------------


def sign(path: Path, latest: int, identity: str = IDENTITY) -> None:
    """Write a mark beside a journal, as a worker does after a commit."""
    mark = Mark(mark_file(str(path)))
    mark.take(identity, 1)
    mark.write(latest)
    mark.close()


def test_commits_that_got_lost_are_noticed_before_an_engine_opens_the_journal(own: Path) -> None:
    edit(own, "UPDATE durable_ticks SET commits = 40")
    assert "there is no mark beside it" in _checks(look(own, "doctor", "--json"))["commits"][1]
    sign(own, 40)
    assert _checks(look(own, "doctor", "--json"))["commits"] == ("ok", "all 40 that its mark knows of are there")
    sign(own, 42)
    said = look(own, "doctor", codes=(1,)).out
    assert "the journal went back by 2 commits: the mark beside it says 42, and it holds 40" in said
    assert "find out what took them away" in said


def test_a_mark_of_another_journal_is_noticed(own: Path) -> None:
    sign(own, 3, "ffffffffffffffff")
    [(name, text)] = _wrong(look(own, "doctor", "--json", codes=(1,)))
    assert name == "commits"
    assert f"the mark beside the journal is of another journal (ffffffffffffffff, and not {IDENTITY})" in text


def test_what_an_engine_noticed_is_told_until_it_is_acknowledged(own: Path) -> None:
    edit(own, """INSERT INTO durable_meta (name, value) VALUES ('reports', '[["went_back", "it went back"]]')""")
    assert _wrong(look(own, "doctor", "--json", codes=(1,))) == [("commits", "it went back")]


@pytest.mark.parametrize("spoil", [os.mkdir, os.mkfifo], ids=["folder", "pipe"])
def test_a_mark_that_is_none_is_told_and_not_waited_for(own: Path, spoil: Callable[[Path], object]) -> None:
    spoil(Path(mark_file(str(own))))
    assert "cannot be read" in look(own, "doctor", codes=(0, 1)).out


def test_holding_all_against_its_checksums_imports_neither_engine_nor_pydantic_nor_asyncio(shop: Path) -> None:
    modules = loaded([["doctor", "--db", str(shop)]])
    assert "durable_sqlite._sqlite.verify" in modules
    assert not {"pydantic", "asyncio", "aiosqlite", "durable_sqlite.engine"} & modules


# Workers and readers -------------------------------------------------------------------------------------------------


def test_workers_elsewhere_are_told_with_what_they_said_last(tmp_path: Path) -> None:
    path = tmp_path / "far.db"
    with made(path) as make:
        lease: dict[str, Any] = {"host": "another machine", "lease": 15 * SECOND}
        busy = make.worker("writes", beat_at=make.now - 9 * HOUR, **lease)
        # It has so much to write that it need not renew its lease besides.
        make.entry(make.run("r", "running", owner=busy, epoch=1, ago=HOUR), "step#1", 1, ago=SECOND)
        silent = make.worker("silent", beat_at=make.now - 3 * HOUR, **lease)
        make.run("s", "running", owner=silent, epoch=1, ago=5 * HOUR)
        make.worker("idle", ago=9 * HOUR, **lease)
    lines = [line for line in look(path, "doctor").out.splitlines() if "  workers " in line]
    assert re.search(r"it last wrote something \d+ s ago, by its own clock, and its lease is 15 s", lines[0])
    assert "it last wrote something 3 h ago, by its own clock: with a lease of 15 s, it looks dead" in lines[1]
    assert f"worker 3 (process {os.getpid()}): it runs on another machine" in lines[2]


def test_the_reader_whose_process_is_the_oldest_comes_first(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lived: dict[int, tuple[int | None, str]] = {
        7: (3 * SECOND, "sqlite3"),
        8: (9 * HOUR, "backup"),
        9: (None, ""),
        -1: (None, ""),
    }

    def holders(_path: str) -> set[int]:
        return set(lived)

    monkeypatch.setattr(_standing, "_holders", holders)
    monkeypatch.setattr(_standing, "_process", lived.__getitem__)
    told = [check.text for check in _standing.readers(str(own))]
    assert told[0].startswith("process 8 (backup) reads all the time")
    assert told[0].endswith("at most 9 h, as old as the process is")
    assert told[1].startswith("process 7 (sqlite3)")
    assert {text.split(" reads")[0] for text in told[2:]} == {"process 9", "a process that cannot be seen from here"}


def test_where_the_system_does_not_tell_who_reads_it_is_said(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def untold(_path: str) -> set[int]:
        raise OSError

    monkeypatch.setattr(_standing, "_holders", untold)
    [check] = _standing.readers(str(own))
    assert (check.level, check.text) == ("note", "who reads, and how long, cannot be seen on this system")

"""What all commands share: they start at once, find journal and run, end with a code, and leave no trace."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from durable_sqlite._sqlite import migrate
from durable_sqlite.cli._commands import TABLE, Entry, load
from durable_sqlite.cli._journal import Journal, Tables, known_version
from durable_sqlite.cli._settings import Setting
from tests.cli.journals import made
from tests.cli.support import Said, durable_sqlite, environment
from tests.support.house import python

_LOADED = """
import contextlib, io, json, sys
from durable_sqlite.cli import main
for words in {words}:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        main(words)
print(json.dumps(sorted(sys.modules)))
"""
_HEAVY = {
    "pydantic",
    "pydantic_core",
    "asyncio",
    "aiosqlite",
    "rich",
    "durable_sqlite.engine",
    "durable_sqlite._records",
}
_LOOKING = [entry for entry in TABLE if entry.group == "Look" or entry.name == "doctor"]
_OF_A_RUN = ["show", "why", "timeline"]


def loaded(words: list[list[str]]) -> set[str]:
    return set(json.loads(python("-c", _LOADED.format(words=words))))


# Starting at once ----------------------------------------------------------------------------------------------------


def test_help_and_wrong_words_import_neither_engine_nor_pydantic_nor_asyncio() -> None:
    words = [["--help"], [], ["lst"], *([*entry.name.split(), "--help"] for entry in TABLE)]
    assert not _HEAVY & loaded(words)


def test_looking_imports_neither_engine_nor_pydantic_nor_asyncio_nor_anybodys_code(shop: Path) -> None:
    db = ["--db", str(shop)]
    words = [["list", *db], ["stats", *db], ["doctor", "--quick", *db], ["watch", "run-done", *db]]
    words += [[name, run, *db] for name in _OF_A_RUN for run in ("run-done", "run-failed", "run-held")]
    words += [[*each, "--json"] for each in words]
    modules = loaded(words)
    assert not (_HEAVY | {"shop", "shop.flows"}) & modules
    assert "durable_sqlite.cli._timeline" in modules


def test_a_command_imports_no_module_of_another() -> None:
    modules = loaded([["list", "--help"]])
    assert {name for name in modules if name.endswith(("._show", "._why", "._doctor", "._timeline"))} == set()


@pytest.mark.parametrize("entry", TABLE, ids=lambda entry: entry.name.replace(" ", "-"))
def test_each_line_of_the_table_is_a_command_that_teaches_by_examples(entry: Entry, tmp_path: Path) -> None:
    assert callable(load(entry).run)
    said = durable_sqlite(*entry.name.split(), "--help", cwd=tmp_path)
    assert f"usage: durable_sqlite {entry.name}" in said.out
    assert "examples:" in said.out


def test_help_lists_all_commands_and_the_exit_codes(tmp_path: Path) -> None:
    said = durable_sqlite("--help", cwd=tmp_path)
    assert all(f"  {entry.name}" in said.out for entry in TABLE)
    assert "75 the journal is busy" in said.out
    assert durable_sqlite(cwd=tmp_path, codes=(2,)).out == said.out


def test_a_slip_of_the_finger_is_answered_with_what_was_meant(tmp_path: Path) -> None:
    assert "do you mean `durable_sqlite list`?" in durable_sqlite("lsit", cwd=tmp_path, codes=(2,)).err
    assert "no command 'frobnicate'" in durable_sqlite("frobnicate", cwd=tmp_path, codes=(2,)).err
    assert "unrecognized arguments: --nope" in durable_sqlite("list", "--nope", cwd=tmp_path, codes=(2,)).err
    assert "no option '--nope'" in durable_sqlite("--nope", "list", cwd=tmp_path, codes=(2,)).err


def test_the_version_is_told(tmp_path: Path) -> None:
    assert durable_sqlite("--version", cwd=tmp_path).out.startswith("durable_sqlite 0.")


# Which journal -------------------------------------------------------------------------------------------------------


def test_the_journal_is_named_before_or_behind_the_command(shop: Path, tmp_path: Path) -> None:
    before = durable_sqlite("--db", shop, "--json", "list", cwd=tmp_path)
    behind = durable_sqlite("list", f"--db={shop}", "--json", cwd=tmp_path)
    assert before.data == behind.data
    assert len(before.data["runs"]) == 15


def test_an_option_beats_the_environment_which_beats_pyproject(shop: Path, tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text('[tool.durable_sqlite]\ndb = "toml.db"\n')
    inside = tmp_path / "a" / "b"
    inside.mkdir(parents=True)
    assert "there is no journal" in durable_sqlite("list", cwd=inside, codes=(2,)).err
    assert str(tmp_path / "toml.db") in durable_sqlite("list", cwd=inside, codes=(2,)).err
    by_name = {"DURABLE_SQLITE_DB": "env.db"}
    assert "no journal env.db (DURABLE_SQLITE_DB)" in durable_sqlite("list", cwd=inside, env=by_name, codes=(2,)).err
    durable_sqlite("list", "--db", shop, cwd=inside, env=by_name)


def test_pyproject_names_a_journal_relative_to_itself(shop: Path, tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text('[tool.durable_sqlite]\ndb = "data/shop.db"\n')
    (tmp_path / "data").mkdir()
    shutil.copy(shop, tmp_path / "data")
    inside = tmp_path / "src"
    inside.mkdir()
    (inside / "pyproject.toml").write_text("[tool.other]\n")  # has no table of ours, so it is passed by
    assert "run-done" in durable_sqlite("list", cwd=inside).out


@pytest.mark.parametrize(
    "text", ["[tool.durable_sqlite\n", "[tool]\ndurable_sqlite = 3\n", "[tool.durable_sqlite]\ndb = 3\n"]
)
def test_a_pyproject_that_says_nonsense_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "pyproject.toml").write_text(text)
    said = durable_sqlite("list", cwd=tmp_path, codes=(2,))
    assert str(tmp_path / "pyproject.toml") in said.err


def test_without_a_journal_it_says_how_to_name_one(tmp_path: Path) -> None:
    said = durable_sqlite("list", cwd=tmp_path, codes=(2,))
    assert all(word in said.err for word in ("--db FILE", "DURABLE_SQLITE_DB", "[tool.durable_sqlite]"))


# What is no journal --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("entry", _LOOKING, ids=lambda entry: entry.name)
def test_no_command_creates_a_journal_that_is_not_there(entry: Entry, tmp_path: Path) -> None:
    words = [entry.name, "@"] if entry.name in _OF_A_RUN else [entry.name]
    said = durable_sqlite(*words, "--db", "new.db", cwd=tmp_path, codes=(2,))
    assert "there is no journal new.db (--db); nothing was created" in said.err
    assert "Engine('new.db')" in said.err
    assert said.out == ""
    assert list(tmp_path.iterdir()) == []


def _other(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(
            "PRAGMA journal_mode=WAL; CREATE TABLE durable_runs (id); INSERT INTO durable_runs VALUES (1)"
        )


@pytest.mark.parametrize("entry", _LOOKING, ids=lambda entry: entry.name)
def test_a_file_that_is_no_journal_is_refused_untouched(entry: Entry, tmp_path: Path) -> None:
    words = [entry.name, "@"] if entry.name in _OF_A_RUN else [entry.name]
    _other(tmp_path / "other.db")
    (tmp_path / "text.db").write_text("just a text, and rather a long one at that\n" * 99)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    other = durable_sqlite(*words, "--db", "other.db", cwd=tmp_path, codes=(6,))
    assert "an SQLite database of another application" in other.err
    assert "is no SQLite database" in durable_sqlite(*words, "--db", "text.db", cwd=tmp_path, codes=(6,)).err
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_what_is_no_file_or_empty_is_told_apart(tmp_path: Path) -> None:
    (tmp_path / "empty.db").touch()
    os.mkfifo(tmp_path / "pipe.db")
    assert (
        "is empty, so it is no journal yet" in durable_sqlite("list", "--db", "empty.db", cwd=tmp_path, codes=(6,)).err
    )
    assert "is no file" in durable_sqlite("list", "--db", "pipe.db", cwd=tmp_path, codes=(2,)).err
    assert "is no file" in durable_sqlite("list", "--db", ".", cwd=tmp_path, codes=(2,)).err
    assert "names no file" in durable_sqlite("list", "--db", ":memory:", cwd=tmp_path, codes=(2,)).err
    assert "names no file" in durable_sqlite("list", "--db", "", cwd=tmp_path, codes=(2,)).err


def _set_version(shop: Path, to: Path, version: int) -> Path:
    shutil.copy(shop, to)
    with closing(sqlite3.connect(to, isolation_level=None)) as connection:
        connection.execute(f"PRAGMA user_version = {version}")
    return to


def test_an_older_journal_is_not_migrated_but_said_how(shop: Path, tmp_path: Path) -> None:
    old = _set_version(shop, tmp_path / "old.db", known_version() - 1)
    before = old.read_bytes()
    said = durable_sqlite("list", "--db", old, cwd=tmp_path, codes=(6,))
    assert f"`durable_sqlite migrate --db {old}`" in said.err
    assert old.read_bytes() == before


def test_a_newer_journal_is_read_and_said_to_be_newer(shop: Path, tmp_path: Path) -> None:
    new = _set_version(shop, tmp_path / "new.db", known_version() + 1)
    said = durable_sqlite("list", "--db", new, cwd=tmp_path)
    assert "run-done" in said.out
    assert "was written by a newer durable_sqlite" in said.err


def test_a_newer_journal_that_cannot_be_read_says_so(shop: Path, tmp_path: Path) -> None:
    new = _set_version(shop, tmp_path / "new.db", known_version() + 1)
    with closing(sqlite3.connect(new, isolation_level=None)) as connection:
        connection.execute("ALTER TABLE durable_runs RENAME COLUMN status TO said")
    said = durable_sqlite("list", "--db", new, cwd=tmp_path, codes=(6,))
    assert "was written by a newer durable_sqlite" in said.err
    assert "no such column: status" in said.err


def test_the_newest_schema_is_the_last_migration() -> None:
    assert known_version() == len(migrate.read(migrate.find()))


def test_a_damaged_journal_is_named_with_what_to_do(shop: Path, tmp_path: Path) -> None:
    data = bytearray(shop.read_bytes())
    data[4096:] = b"\xaa" * (len(data) - 4096)
    (tmp_path / "damaged.db").write_bytes(data)
    said = durable_sqlite("list", "--db", "damaged.db", cwd=tmp_path, codes=(6,))
    assert "is damaged" in said.err
    assert "durable_sqlite doctor" in said.err


# No trace ------------------------------------------------------------------------------------------------------------


def test_looking_at_a_resting_journal_leaves_nothing_behind(shop: Path, tmp_path: Path) -> None:
    copy = tmp_path / "rest.db"
    shutil.copy(shop, copy)
    before, changed = copy.read_bytes(), copy.stat().st_mtime_ns
    for words in (["list"], ["show", "@"], ["doctor"], ["stats"], ["timeline", "@"], ["watch", "--for", "0s"]):
        durable_sqlite(*words, "--db", copy, cwd=tmp_path, codes=(0, 1))
    assert [path.name for path in tmp_path.iterdir()] == ["rest.db"]
    assert (copy.read_bytes(), copy.stat().st_mtime_ns) == (before, changed)


def test_what_was_committed_last_is_seen_in_a_journal_that_is_open(shop: Path, tmp_path: Path) -> None:
    copy = tmp_path / "open.db"
    shutil.copy(shop, copy)
    with closing(sqlite3.connect(copy, isolation_level=None)) as connection:
        connection.execute("PRAGMA wal_autocheckpoint = 0").fetchall()
        connection.execute("UPDATE durable_runs SET status = 'just now' WHERE id = 'run-done'")
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("UPDATE durable_runs SET status = 'not yet' WHERE id = 'run-done'")
        said = durable_sqlite("show", "run-done", "--db", copy, cwd=tmp_path)
        connection.execute("ROLLBACK")
    assert "just now" in said.out


def test_a_look_at_a_resting_journal_is_repeated_where_somebody_opens_it_meanwhile(shop: Path, tmp_path: Path) -> None:
    copy = tmp_path / "rest.db"
    shutil.copy(shop, copy)
    looks: list[str] = []
    with (
        closing(sqlite3.connect(copy, isolation_level=None)) as writer,
        Journal(Setting(str(copy), ""), print) as journal,
    ):

        def look_while_somebody_writes(tables: Tables) -> str:
            if not looks:
                writer.execute("UPDATE durable_runs SET status = 'new' WHERE id = 'run-done'")
            ((status,),) = tables.ask("SELECT coalesce(status, 'old') FROM durable_runs WHERE id = 'run-done'", {})
            looks.append(status)
            return looks[-1]

        assert not journal.is_live
        assert journal.read(look_while_somebody_writes) == "new"
        assert looks == ["old", "new"]
        assert journal.is_live


_OPENED = """
import contextlib, io, json, os, sys
db, *targets = sys.argv[1:]
own = {os.path.realpath(db + end) for end in ("", "-wal", "-shm")}
opened = []
def watch(event, arguments):
    if event == "open" and isinstance(arguments[0], str) and os.path.realpath(arguments[0]) in own:
        opened.append(arguments[0])
from durable_sqlite.cli import main
sys.addaudithook(watch)
looks = [["list"], ["show", "run-held"], ["why", "run-held"], ["stats"], ["doctor"], ["watch", "run-done"], ["timeline", "@"]]
looks += [["timeline", "@", "--svg", target] for target in targets]
for words in looks:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        main([*words, "--db", db])
print(json.dumps(opened))
"""


def test_no_command_opens_the_journals_files_itself(shop: Path, tmp_path: Path) -> None:
    # Whoever closes such a file drops the locks that SQLite holds on it in the same process.
    copy = tmp_path / "open.db"
    shutil.copy(shop, copy)
    (tmp_path / "link.svg").symlink_to(copy)
    with closing(sqlite3.connect(copy, isolation_level=None)) as connection:
        connection.execute("UPDATE durable_runs SET status = 'x'")
        targets: list[str | Path] = [copy, tmp_path / "link.svg", f"{copy}-wal", f"{copy}-shm"]
        assert json.loads(python("-c", _OPENED, copy, *targets)) == []


def test_a_journal_that_somebody_has_locked_is_busy(shop: Path, tmp_path: Path) -> None:
    copy = tmp_path / "locked.db"
    shutil.copy(shop, copy)
    with closing(sqlite3.connect(copy, isolation_level=None)) as connection:
        connection.execute("PRAGMA locking_mode = EXCLUSIVE").fetchall()
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("UPDATE durable_runs SET status = 'mine'")
        said = durable_sqlite("list", "--db", copy, cwd=tmp_path, codes=(75,))
        connection.execute("ROLLBACK")
    assert "locked by another program" in said.err
    assert "try again" in said.err


# Which run -----------------------------------------------------------------------------------------------------------


def _shown(shop: Path, typed: str, *, codes: tuple[int, ...] = (0,)) -> Said:
    return durable_sqlite("show", "--json", "--db", shop, "--", typed, cwd=shop.parent, codes=codes)


@pytest.mark.parametrize(
    ("typed", "run"),
    [
        ("run-done", "run-done"),
        ("run-d", "run-done"),
        ("slept", "run-overslept"),
        ("child-of", "child-of-done"),
        ("@", "run-paused"),
    ],
)
def test_a_run_is_named_by_id_beginning_ending_or_as_the_newest(shop: Path, typed: str, run: str) -> None:
    assert _shown(shop, typed).data["id"] == run


def test_a_text_that_fits_several_runs_lists_them(shop: Path) -> None:
    said = _shown(shop, "run-pa", codes=(2,))
    assert all(name in said.err for name in ("run-paused", "run-parent", "run-parked", "type more"))
    # What begins with one and ends another is two runs as well.
    assert "child-parked" in _shown(shop, "parked", codes=(2,)).err


@pytest.mark.parametrize("typed", ["nobody", "", "@@", "RUN-DONE", "run-done ", "%", "\x1b[31m", "x" * 10_000])
def test_a_run_that_is_not_there_is_code_3(shop: Path, typed: str) -> None:
    said = _shown(shop, typed, codes=(3,))
    assert "holds no run" in said.err
    assert "\x1b" not in said.err


def test_bytes_that_are_no_text_are_told_as_such(shop: Path) -> None:
    for words in (["show", "run-\udcff"], ["list", "--workflow", "\udcff"], ["list", "--tag", "a=\udcff"]):
        said = durable_sqlite(*words, "--db", shop, cwd=shop.parent, codes=(2,))
        assert "is no text, since UTF-8 cannot hold it" in said.err


def test_an_empty_journal_says_that_it_holds_no_runs(tmp_path: Path) -> None:
    with made(tmp_path / "none.db"):
        pass
    said = durable_sqlite("list", "--db", "none.db", cwd=tmp_path)
    assert (said.out, said.err) == ("", "none.db holds no runs\n")
    assert "holds no runs" in durable_sqlite("why", "@", "--db", "none.db", cwd=tmp_path, codes=(3,)).err


# How it ends ---------------------------------------------------------------------------------------------------------


def _process(*words: str | Path, stdout: int, folder: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "durable_sqlite", *map(str, words)]
    return subprocess.Popen(command, stdout=stdout, stderr=subprocess.PIPE, env=environment(), cwd=folder)


def test_a_pipe_that_nobody_reads_ends_it_quietly(shop: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    process = _process("list", "--db", shop, stdout=writing, folder=shop.parent)
    os.close(writing)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (0, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no full device here")
def test_output_that_cannot_be_written_is_told(shop: Path) -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    process = _process("list", "--db", shop, stdout=full, folder=shop.parent)
    os.close(full)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 74
    assert b"output could not be written" in errors
    assert b"Traceback" not in errors


def test_an_interruption_ends_it_with_130_and_no_word(shop: Path) -> None:
    process = _process("watch", "run-asks", "--db", shop, stdout=subprocess.PIPE, folder=shop.parent)
    assert process.stdout is not None
    assert b"run-asks" in process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (130, b"")


_BROKEN = """
import sys
from durable_sqlite.cli import _list, main
from durable_sqlite.cli._commands import Command
def run(call): raise ZeroDivisionError("\\x1b[31m what now")
_list.COMMANDS = {"list": Command(lambda parser: None, run)}
sys.exit(main(["list"]))
"""


def test_a_fault_of_ours_is_one_sentence_and_a_traceback_only_on_wish(tmp_path: Path) -> None:
    def said(**more: str) -> Said:
        command = [sys.executable, "-c", _BROKEN]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment(**more), capture_output=True, text=True, timeout=60, check=False
        )
        return Said(done.returncode, done.stdout, done.stderr)

    quiet, loud = said(), said(DURABLE_SQLITE_TRACEBACK="1")
    assert quiet.code == loud.code == 70
    assert "an error of durable_sqlite itself: ZeroDivisionError: \\x1b[31m what now" in quiet.err
    assert "Traceback" not in quiet.err
    assert "Traceback" in loud.err

"""All states that a journal went through on a tape, each held against what the library and SQLite say of it; and which of
them is owed at each place of the tape.

A power cut may leave one of these states and nothing else, byte for byte: so each of them is checked once, and an image only
has to be one of them, not older than what was acknowledged.
"""

from __future__ import annotations

import os
import sqlite3
from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from hashlib import sha1
from pathlib import Path
from typing import Any

from durable_sqlite._sqlite import statements
from durable_sqlite._sqlite.connect import uri
from durable_sqlite._sqlite.rows import Tables
from durable_sqlite._sqlite.sums import misfits
from tests.campaigns.fleet.trace import digest

from .disk import Disk
from .tape import Link, Said, Tape, Unlink, Write

__all__ = ["NOTHING", "State", "States", "fingerprint", "put", "read_pages"]

_WAL_HEADER, _FRAME_HEADER = 32, 24
_JOURNAL = "j.db"

Fact = tuple[str, ...]


def put(folder: Path, files: dict[str, bytes]) -> Path:
    """Let the folder hold these files, and no others; the journal's path."""
    for path in os.scandir(folder):
        os.unlink(path)  # noqa: PTH108 - a million times
    for name, data in files.items():
        with open(f"{folder}/{name}", "wb") as file:  # noqa: PTH123
            file.write(data)
    return folder / _JOURNAL


def fingerprint(pages: bytes) -> bytes:
    """What tells states apart: of all pages, as a connection reads them."""
    return sha1(pages).digest()


def read_pages(path: Path) -> bytes:
    """All pages as a connection reads them, after SQLite has recovered what is to be recovered."""
    with closing(sqlite3.connect(uri(str(path), "mode=rw"), uri=True, isolation_level=None)) as connection:
        ((many,),) = connection.execute("PRAGMA page_count").fetchall()
        return connection.serialize() if many else b""


NOTHING = fingerprint(b"")
"""A file that holds nothing, or none at all."""


@dataclass(frozen=True, slots=True)
class State:
    """What the journal holds after a commit."""

    number: int
    at: int
    """How many operations were over when it was there for the first time."""
    commit: int
    """The number of its last commit, as the mark tells it."""
    facts: frozenset[Fact]


@dataclass(slots=True)
class States:
    """The states of a tape.

    Args:
        tape: The recording.
        folder: An empty folder to work in.
    """

    tape: Tape
    folder: Path
    found: dict[bytes, State] = field(default_factory=dict[bytes, State])
    """By their fingerprints."""
    problems: list[str] = field(default_factory=list[str])
    """What was wrong with a state, or with an acknowledgement, without any power cut."""
    owed: list[int] = field(default_factory=list[int])
    """The number of the oldest state that holds all that was acknowledged, at each place of the tape."""
    reached: list[int] = field(default_factory=list[int])
    """The number of the newest state there is, at each place of the tape."""

    _sql: Mapping[str, str] = field(default_factory=statements.load)

    def __post_init__(self) -> None:
        self.found[NOTHING] = State(0, 0, 0, frozenset())
        self._find()
        self._see_what_is_owed()

    def _find(self) -> None:
        disk = Disk(self.tape)
        self._look(disk)
        for index in self._commits():
            disk.play(index + 1)
            self._look(disk)

    def _commits(self) -> list[int]:
        """Where on the tape there may be a new state."""
        names = {number: name for name, number in self.tape.numbers.items()}
        found: list[int] = []
        commits = False
        is_wal = False
        for index, op in enumerate(self.tape.ops):
            match op:
                case Write(file, at, data) if names.get(file) == f"{_JOURNAL}-wal":
                    within = (at - _WAL_HEADER) % (_FRAME_HEADER + 4096)
                    if at >= _WAL_HEADER and within == 0:
                        is_wal = True
                        commits = data[4:8] != bytes(4)  # how many pages there are then; only the last frame says it
                    elif commits and within == _FRAME_HEADER:
                        found.append(index)
                case Unlink() if not is_wal:
                    found.append(index)  # a rollback journal is removed: that is the commit
                case Link(name, file):
                    names[file] = name
                case _:
                    pass
        return found

    def _look(self, disk: Disk) -> None:
        path = put(self.folder, disk.as_it_is())
        if not path.exists():
            return
        pages = read_pages(path)
        mark = fingerprint(pages)
        if mark not in self.found:
            commit, facts = self._read(pages) if pages else (0, frozenset[Fact]())
            self.found[mark] = State(len(self.found), disk.at, commit, facts)

    def _read(self, pages: bytes) -> tuple[int, frozenset[Fact]]:
        """Hold a state against all that tells whether it is sound; what is in it."""
        # A copy in memory has no WAL, so it must not say that it has one.
        alone = pages[:18] + b"\x01\x01" + pages[20:]
        with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
            connection.deserialize(alone)
            told = connection.execute("PRAGMA integrity_check").fetchall()
            told += connection.execute("PRAGMA foreign_key_check").fetchall()
            if told != [("ok",)]:
                self.problems.append(f"state {len(self.found)}: SQLite says {told[:3]}")
            tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_schema")}
            if "durable_sums" not in tables:
                return 0, frozenset()
            rows = Tables(connection, self._sql)
            for (number,) in connection.execute("SELECT no FROM durable_runs").fetchall():
                for misfit in misfits(rows, number)[0]:
                    self.problems.append(f"state {len(self.found)}: run number {number}: {misfit.what}")
            if "bookings" in tables and (torn := _torn_bookings(connection)):
                self.problems.append(
                    f"state {len(self.found)}: rows of transactions are not as the journal says: {torn}"
                )
            ((commit,),) = rows.all("last_commit", {})
            return commit, frozenset(_facts(connection, "payments" in tables))

    def lost(self, cut: int, state: State) -> list[Fact]:
        """What was acknowledged before that place of the tape, and is not in this state."""
        ids: dict[str, str] = {}
        missing: list[Fact] = []
        for op in self.tape.ops[:cut]:
            if isinstance(op, Said):
                _note_ids(op.line, ids)
                missing += [fact for fact in _acknowledged(op.line, ids) if fact not in state.facts]
        return missing

    # What is owed ----------------------------------------------------------------------------------------------------

    def _see_what_is_owed(self) -> None:
        since: dict[Fact, int] = {}
        for state in self.found.values():
            for fact in state.facts:
                since.setdefault(fact, state.number)
        arrivals = [state.at for state in self.found.values()]
        # What was on the disk in the beginning stays there, whoever was told of it.
        owed = newest = max((state.number for state in self.found.values() if state.at == 0), default=0)
        ids: dict[str, str] = {}
        for line in self.tape.said:
            _note_ids(line, ids)
        for index in range(len(self.tape.ops) + 1):
            while newest + 1 < len(arrivals) and arrivals[newest + 1] <= index:
                newest += 1
            self.owed.append(owed)
            self.reached.append(newest)
            if index == len(self.tape.ops):
                break
            op = self.tape.ops[index]
            if isinstance(op, Said):
                _note_ids(op.line, ids)
                for fact in _acknowledged(op.line, ids):
                    if fact not in since:
                        self.problems.append(f"{fact} was acknowledged and never stored")
                    owed = max(owed, since.get(fact, 0))


def _note_ids(line: str, ids: dict[str, str]) -> None:
    match line.split(" "):
        case ["took", _, _, no, _, run_id] if run_id:
            ids[no] = run_id
        case _:
            pass


def _acknowledged(line: str, ids: dict[str, str]) -> list[Fact]:
    """What has to be on the disk for certain when this was said."""
    facts: list[Fact] = []
    match line.split(" "):
        case ["started", _, run_id]:
            facts = [("run", run_id)]
        case ["sent", _, run_id, n]:
            facts = [("message", run_id, n)]
        case ["result", _, run_id, _]:
            facts = [("end", run_id)]
        case ["paid", _, no, what]:
            facts = [("payment", no, what)]
        case ["kept", _, no, key, what]:
            facts = [("entry", ids[no], key, what)]
        case ["failed", _, no, key, attempt]:
            facts = [("attempt", ids[no], key, attempt)]
        case ["began", _, run_id, key, _]:
            facts = [("run", run_id)]
            if key.rpartition("/")[2].startswith("launch"):  # it must not happen twice, so it is announced
                facts.append(("intent", run_id, key))
        case _:
            pass
    return facts


def _torn_bookings(connection: sqlite3.Connection) -> Counter[Fact]:
    """Rows without the outcome of their step, and outcomes without their rows."""
    rows = Counter[Fact](connection.execute("SELECT run, key FROM bookings").fetchall())
    recorded = Counter[Fact](
        connection.execute(
            "SELECT r.id, e.key FROM durable_entries e JOIN durable_runs r ON r.no = e.run WHERE e.kind = 'transaction'"
        ).fetchall()
    )
    return (rows - recorded) + (recorded - rows)


def _facts(connection: sqlite3.Connection, paid: bool) -> list[Fact]:
    """What a state holds, of what may be acknowledged."""

    def all_of(sql: str) -> list[Any]:
        return connection.execute(sql).fetchall()

    ids = dict(all_of("SELECT no, id FROM durable_runs"))
    facts: list[Fact] = [("run", run_id) for run_id in ids.values()]
    facts += [("end", run_id) for (run_id,) in all_of("SELECT id FROM durable_runs WHERE state = 'completed'")]
    for run, key, payload in all_of("SELECT run, key, payload FROM durable_entries"):
        facts += [("entry", ids[run], key, digest(payload)), ("intent", ids[run], key)]
    facts += [
        ("attempt", ids[run], key, str(n)) for run, key, n in all_of("SELECT run, key, number FROM durable_attempts")
    ]
    facts += [("intent", ids[run], key) for run, key in all_of("SELECT run, key FROM durable_intents")]
    facts += [("message", ids[run], str(n)) for run, n in all_of("SELECT run, dedupe FROM durable_signals")]
    if paid:
        facts += [("payment", str(no), digest(data)) for no, data in all_of("SELECT no, data FROM payments")]
    return facts

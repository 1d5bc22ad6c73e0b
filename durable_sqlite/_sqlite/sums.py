"""Checksums: whether what the journal holds is what was written.

Each row of a run has a checksum over all that it says. For each run and each kind of its rows, `durable_sums` keeps how many
there are, and the XOR of their checksums; an entry keeps its own besides. So a bit that flipped, a row that was lost, that
came back or was moved, and a row that somebody wrote by hand do not fit any more.

The sums are kept by temporary triggers, which only a writer's own connection has: whatever statement writes a row moves its
sum, and whoever writes past the journal does not.
"""

from __future__ import annotations

import sqlite3
import struct
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from .._records import Entry
from .faults import STORAGE_ERRORS, Fault, fault_of, is_unreadable, name_of
from .rows import Row, Tables

__all__ = [
    "DRIVEN",
    "MAIL",
    "PARTS",
    "RUN",
    "Misfit",
    "Part",
    "are_ours",
    "arm",
    "checksum",
    "fill",
    "forgiving",
    "misfits",
    "of_entry",
    "reseal",
]


@dataclass(frozen=True, slots=True)
class Piece:
    """Columns that are summed together.

    Args:
        label: Told to the checksum, so that the same values elsewhere have another.
        plain: Numbers and words.
        blobs: Bytes, of any length.
    """

    label: str
    plain: tuple[str, ...]
    blobs: tuple[str, ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        """All of them, bytes last."""
        return self.plain + self.blobs


@dataclass(frozen=True, slots=True)
class Part:
    """Rows of a run that have one sum.

    Args:
        name: As it stands in `durable_sums`.
        what: What people call it.
        table: Where they are.
        pieces: What of a row is summed: all its columns, in pieces that are written at different times.
        run: The column with the number of the run.
        where: Which rows of the table, where there are others; `{row}` stands for the row.
    """

    name: str
    what: str
    table: str
    pieces: tuple[Piece, ...]
    run: str = "run"
    where: str = "true"

    @property
    def columns(self) -> tuple[str, ...]:
        """All that is summed."""
        return tuple(column for piece in self.pieces for column in piece.columns)


RUN = Part(
    "run",
    "its own row",
    "durable_runs",
    (
        # A run may have a large input: what changes all the time is summed without it.
        Piece(
            "run",
            (
                *("no", "id", "uid", "workflow", "origin", "version", "state", "reason", "created_at", "updated_at"),
                *("ended_at", "due_at", "owner", "epoch", "deaths", "survived", "accept_changes"),
                *("cancel_at", "cancel_reason", "cancel_by", "failed_keys", "discarded_at"),
                *("deadline_at", "deadline_length", "deadline_inherited", "interrupted"),
                *("parent", "parent_key", "detached", "pause_at", "pause_reason", "pause_by"),
                *("status", "progress_done", "progress_total", "changed"),
            ),
        ),
        Piece("input", ("no",), ("input_digest", "input")),
        Piece("result", ("no",), ("result",)),
    ),
    run="no",
)

ENTRIES = Part(
    "entries",
    "its entries",
    "durable_entries",
    (
        Piece(
            "entry",
            (
                *("run", "key", "seq", "kind", "name", "outcome", "asked", "started_at", "recorded_at"),
                *("attempts", "removed", "decided_by"),
            ),
            ("digest", "payload"),
        ),
    ),
)

_SIGNAL = (Piece("signal", ("run", "no", "name", "sent_at", "dedupe", "taken_by"), ("error", "payload")),)

PARTS: tuple[Part, ...] = (
    RUN,
    Part("tags", "its tags", "durable_run_tags", (Piece("tag", ("run", "name", "value")),)),
    ENTRIES,
    Part(
        "attempts",
        "its failed attempts",
        "durable_attempts",
        (Piece("attempt", ("run", "key", "number", "started_at", "ended_at", "next_at"), ("error",)),),
    ),
    Part(
        "intents",
        "its at-most-once steps",
        "durable_intents",
        (Piece("intent", ("run", "key", "name", "asked", "at"), ("digest",)),),
    ),
    Part(
        "waits",
        "its waits",
        "durable_waits",
        (Piece("wait", ("run", "key", "kind", "name", "since_at", "deadline_at", "target", "over")),),
    ),
    # Those that were taken are many in the end, and nobody reads them again.
    Part("mail", "its messages", "durable_signals", _SIGNAL, where="{row}taken_by IS NULL"),
    Part("taken", "the messages it has taken", "durable_signals", _SIGNAL, where="{row}taken_by IS NOT NULL"),
    Part(
        "questions",
        "its questions",
        "durable_questions",
        (
            Piece(
                "question",
                (
                    *("no", "run", "key", "name", "asked_at", "deadline_at", "schema", "answered_at", "answered_by"),
                    *("dedupe", "closed_at"),
                ),
                ("payload", "answer", "error"),
            ),
        ),
    ),
    Part(
        "early",
        "its early answers",
        "durable_early",
        (Piece("early", ("run", "no", "name", "sent_at", "sent_by", "dedupe"), ("payload",)),),
    ),
)
"""All that is summed of a run."""

DRIVEN = tuple(part for part in PARTS if part.name != "taken")
"""What is held against its sum when a run is about to be driven."""

MAIL = tuple(part for part in PARTS if part.name in ("mail", "questions"))
"""What comes for a run while it is driven."""

_BLOBS = {piece.label: len(piece.blobs) for part in PARTS for piece in part.pieces}

_PIECES = {part.name: part.pieces for part in PARTS}

_VERSION = blake2b(repr(PARTS).encode(), digest_size=8).hexdigest()
"""Which columns are summed. A version of the code that sums others finds that the journal has other sums, and makes its own."""


_SIGNED = struct.Struct("<q").unpack


# Of one row ----------------------------------------------------------------------------------------------------------


def checksum(label: str, *values: Any) -> int:
    """The checksum of the values of a piece, its bytes last: 64 bits, signed as SQLite has them."""
    plain = len(values) - _BLOBS[label]
    blobs = values[plain:]
    sizes = [len(blob) if isinstance(blob, bytes) else blob for blob in blobs]
    # ascii() gives the same text on every version of Python, whatever the characters are.
    text = ascii((label, values[:plain], sizes)).encode()
    # Where it is no bytes, there is none, or a damaged row has something else there.
    data = b"".join([blob for blob in blobs if isinstance(blob, bytes)])
    found: int = _SIGNED(blake2b(text + data, digest_size=8).digest())[0]
    return found


def of_entry(run: int, entry: Entry) -> int:
    """The checksum of an entry, as `checksum` gives it."""
    digest, payload = entry.digest, entry.payload
    plain = (
        run,
        entry.key,
        entry.seq,
        entry.kind._value_,
        entry.name,
        entry.outcome._value_,
        entry.asked,
        entry.started_at,
        entry.at,
        entry.attempts,
        1 if entry.removed else 0,
        entry.decided_by,
    )
    text = ascii(("entry", plain, [len(digest), len(payload)])).encode()
    found: int = _SIGNED(blake2b(text + digest + payload, digest_size=8).digest())[0]
    return found


def of_row(part: str, *values: Any) -> int:
    """The checksum of a row from the values of all columns of its part."""
    pieces = _PIECES[part]
    if len(pieces) == 1:
        return checksum(pieces[0].label, *values)
    first, found = 0, 0
    for piece in pieces:
        last = first + len(piece.columns)
        found ^= checksum(piece.label, *values[first:last])
        first = last
    return found


def _change(label: str, *values: Any) -> int:
    """What the XOR has to change by where a row's old values, which come first, become its new ones."""
    half = len(values) // 2
    return checksum(label, *values[:half]) ^ checksum(label, *values[half:])


# Keeping the sums ----------------------------------------------------------------------------------------------------

_XOR = "({0} | {1}) & ~({0} & {1})"

_ADD = f"""
ON CONFLICT (run, part) DO UPDATE SET
    number = number + excluded.number, checksum = {_XOR.format("checksum", "excluded.checksum")}"""
"""Evaluates what is added once, whatever it costs."""


def arm(connection: sqlite3.Connection) -> None:
    """Let a connection keep the sums, for as long as it is open; after all migrations. Again is harmless."""
    _teach(connection)
    for part in PARTS:
        for name, when, body in _triggers(part):
            connection.execute(
                f"CREATE TEMP TRIGGER IF NOT EXISTS durable_sums_{name} AFTER {when} ON main.{part.table} BEGIN {body} END"
            )
    # A run takes its rows along, and so its sums; what SQLite does by itself to the rows comes before this.
    connection.execute(
        "CREATE TEMP TRIGGER IF NOT EXISTS durable_sums_forget AFTER DELETE ON main.durable_runs BEGIN "
        "DELETE FROM durable_sums WHERE run = old.no; END"
    )
    # The number of its last commit outlives a worker.
    connection.execute(
        "CREATE TEMP TRIGGER IF NOT EXISTS durable_commits_keep AFTER DELETE ON main.durable_workers BEGIN "
        "UPDATE durable_ticks SET commits = max(commits, old.latest); END"
    )


def _teach(connection: sqlite3.Connection) -> None:
    connection.create_function("durable_sum", -1, checksum, deterministic=True)
    connection.create_function("durable_row", -1, of_row, deterministic=True)
    connection.create_function("durable_change", -1, _change, deterministic=True)


def _triggers(part: Part) -> Iterator[tuple[str, str, str]]:
    """Name, event and statements of each trigger of a part."""
    yield f"{part.name}_made", "INSERT", _moved(part, 1, "new")
    if part.where != "true":
        yield f"{part.name}_changed", "UPDATE", f"{_moved(part, -1, 'old')} {_moved(part, 1, 'new')}"
    elif part is ENTRIES:
        change = _XOR.format("coalesce(old.checksum, 0)", "coalesce(new.checksum, 0)")
        yield f"{part.name}_changed", "UPDATE", _moved(part, 0, "new", change)
    else:
        for piece in part.pieces:
            change = f"durable_change('{piece.label}', {_of('old', piece.columns)}, {_of('new', piece.columns)})"
            event = f"UPDATE OF {', '.join(piece.columns)}"
            yield f"{part.name}_changed_{piece.label}", event, _moved(part, 0, "new", change)
    if part is not RUN:
        yield f"{part.name}_gone", "DELETE", _moved(part, -1, "old")


def _moved(part: Part, number: int, row: str, change: str | None = None) -> str:
    """A statement that adds so many rows, and a change of the XOR, to a sum."""
    if change is None:
        change = f"{row}.checksum" if part is ENTRIES else f"durable_row('{part.name}', {_of(row, part.columns)})"
    where = part.where.format(row=f"{row}.")
    return (
        "INSERT INTO durable_sums (run, part, number, checksum) "
        f"SELECT {row}.{part.run}, '{part.name}', {number}, coalesce({change}, 0) WHERE {where}{_ADD};"
    )


def _of(row: str, columns: Sequence[str]) -> str:
    return ", ".join(f"{row}.{column}" for column in columns)


# Making them anew ----------------------------------------------------------------------------------------------------


class _Together:
    """The XOR of all rows of a group."""

    def __init__(self) -> None:
        self._found = 0

    def step(self, checksum: int) -> None:
        """One more row."""
        self._found ^= checksum

    def finalize(self) -> int:
        """All of them."""
        return self._found


def fill(tables: Tables) -> None:
    """Sum what is there, unless it was summed by the same columns before. Call it before `arm`.

    What was damaged by then is taken as it is: nothing tells what it was.
    """
    if are_ours(tables):
        return
    connection = tables.connection
    _teach(connection)
    connection.execute("BEGIN IMMEDIATE")
    try:
        if not are_ours(tables):  # else another process was faster
            connection.execute("DELETE FROM durable_sums")
            _sum_up(connection, "true", {})
            tables.change("meta_set", {"name": "sums", "value": _VERSION})
        connection.execute("COMMIT")
    except BaseException:
        connection.rollback()
        raise


def are_ours(tables: Tables) -> bool:
    """Whether the journal has sums, over the columns that this version of the code sums."""
    return tables.all("meta_value", {"name": "sums"}) == [(_VERSION,)]


def reseal(tables: Tables, run: int) -> None:
    """Take what is stored of a run for right, as a person said."""
    connection, values = tables.connection, {"run": run}
    _sum_up(connection, "{run} = :run", values, before="DELETE FROM durable_sums WHERE run = :run")


def _sum_up(connection: sqlite3.Connection, which: str, values: dict[str, int], before: str = "") -> None:
    connection.create_aggregate("durable_xor", 1, _Together)
    row = f"durable_row('entries', {', '.join(ENTRIES.columns)})"
    # Nothing in these statements comes from outside.
    sql = f"UPDATE durable_entries SET checksum = {row} WHERE {which.format(run='run')}"  # noqa: S608
    connection.execute(sql, values)
    if before:  # the triggers, where they are, have just written there
        connection.execute(before, values)
    for part in PARTS:
        row = "checksum" if part is ENTRIES else f"durable_row('{part.name}', {', '.join(part.columns)})"
        sql = (
            "INSERT INTO durable_sums (run, part, number, checksum) "  # noqa: S608
            f"SELECT {part.run}, '{part.name}', count(*), durable_xor({row}) FROM {part.table} "
            f"WHERE {part.where.format(row='')} AND {which.format(run=part.run)} GROUP BY {part.run}"
        )
        connection.execute(sql, values)


# Holding rows against them -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Misfit:
    """Something that is not what was written."""

    part: str
    key: str | None
    """The key of the entry, where it is one."""
    what: str
    """In words, to go on after the name of the run."""


def _as_far_as_it_goes(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


@contextmanager
def forgiving(connection: sqlite3.Connection) -> Generator[None]:
    """Read also words that are no words any more."""
    before = connection.text_factory
    connection.text_factory = _as_far_as_it_goes
    try:
        yield
    finally:
        connection.text_factory = before


def misfits(tables: Tables, run: int, parts: Sequence[Part] = PARTS) -> tuple[list[Misfit], int]:
    """What of a run is not what was written, at one state of the journal; and how many rows were looked at."""
    kept = {part: (number, total) for part, number, total in _read(tables, tables.sql["sums"], run)}
    found: list[Misfit] = []
    looked = 0
    for part in parts:
        try:
            rows = _read(tables, _READ[part.name], run)
        except STORAGE_ERRORS as error:
            if fault_of(error) is not Fault.REFUSED:
                raise
            found.append(Misfit(part.name, None, f"{part.what} cannot be read ({name_of(error)}: {error})"))
        else:
            looked += len(rows)
            found += _misfits_of(part, rows, *kept.get(part.name, (0, 0)))
    return found, looked


def _read(tables: Tables, sql: str, run: int) -> list[Row]:
    try:
        return tables.connection.execute(sql, {"run": run}).fetchall()
    except STORAGE_ERRORS as error:
        if not is_unreadable(error):
            raise
    with forgiving(tables.connection):  # it costs something for each word, so it is the exception
        return tables.connection.execute(sql, {"run": run}).fetchall()


def _misfits_of(part: Part, rows: Sequence[Row], number: int, total: int) -> Iterator[Misfit]:
    seen, told = 0, False
    for row in rows:
        own = of_row(part.name, *row[: len(part.columns)])
        seen ^= own
        if part is ENTRIES and own != row[-1]:
            told = True
            yield Misfit(part.name, row[1], f"its entry {row[1]} is not what was recorded")
    missing = number - len(rows)
    if missing and part is RUN:
        yield Misfit(part.name, None, f"{part.what} {'is missing' if missing > 0 else 'was never written'}")
    elif missing:
        fate = "missing" if missing > 0 else "there that were never written"
        yield Misfit(part.name, None, f"of {part.what}, {number} were written: {abs(missing)} are {fate}")
    elif seen != total and not told:
        yield Misfit(part.name, None, f"{part.what} {'is' if part is RUN else 'are'} not what was written")


def _reading(part: Part) -> str:
    own = ", checksum" if part is ENTRIES else ""
    which = f"{part.run} = :run AND {part.where.format(row='')}"
    return f"SELECT {', '.join(part.columns)}{own} FROM {part.table} WHERE {which}"  # noqa: S608 - our own names


_READ = {part.name: _reading(part) for part in PARTS}

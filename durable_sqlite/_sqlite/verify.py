"""Holds a whole journal against its checksums, a page at a time, beside whatever else goes on."""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable, Collection, Iterator
from functools import partial
from hashlib import blake2b
from typing import Any, Literal

from .._findings import Finding, FindingKind, Verification
from . import past
from .faults import STORAGE_ERRORS, Fault, fault_of, name_of
from .rows import Tables
from .sums import forgiving, misfits, reseal

__all__ = ["accept", "as_made", "as_written", "remember_schema", "verify"]

_PAGE = 100
"""Runs that are looked at in one hop to the thread; each is one short read of its own."""

_MANY = 100
"""Lines that SQLite says of the file at most."""

_RESTORE = "restore a backup"
_ACCEPT = "`engine.verify(accept=[id])` takes what is stored for right, where `history()` shows that it will do"

Hop = Callable[[Callable[[Tables], Any]], Awaitable[Any]]
"""Looks at one state of the journal."""


async def verify(look: Hop) -> Verification:
    """Hold everything against what was written."""
    findings: list[Finding] = await look(past.told_of)
    for check in (_structure, as_made, _references, _strays):
        findings += await look(check)
    written = await as_written(look)
    return Verification((*findings, *written.findings), written.runs, written.rows)


async def as_written(look: Hop) -> Verification:
    """Hold the rows of all runs against their checksums, and nothing else."""
    findings: list[Finding] = []
    runs, rows, after = 0, 0, 0
    while numbers := await look(partial(_numbers, after=after)):
        for number in numbers:
            found, looked = await look(partial(_of_run, number=number))
            findings += found
            runs, rows, after = runs + 1, rows + looked, number
    return Verification(tuple(findings), runs, rows)


def accept(tables: Tables, runs: Literal[True] | Collection[str]) -> None:
    """Take what is stored for right: of these runs; or of all, and then the mark's reports are seen to as well."""
    if runs is True:
        past.acknowledge(tables)
        for number in _numbers(tables, 0, -1):
            if misfits(tables, number)[0]:
                reseal(tables, number)
    else:
        for run_id in runs:
            reseal(tables, tables.one("number_of", {"id": run_id})[0])


# Of the whole file ---------------------------------------------------------------------------------------------------


def _structure(tables: Tables) -> list[Finding]:
    """What SQLite itself finds: broken pages, indexes that do not fit their tables, rows that break a rule."""
    lines, error = _asked(tables, f"PRAGMA integrity_check({_MANY})")
    told = [text for (text,) in lines if text != "ok"]
    if error is not None:
        told.append(f"it cannot be checked ({error})")
    return [
        Finding(FindingKind.STRUCTURE, f"SQLite says of the file: {' '.join(text.split())}", _RESTORE) for text in told
    ]


def as_made(tables: Tables) -> list[Finding]:
    """Whether the journal's own tables are still as the migrations made them."""
    try:
        kept, now = tables.all("meta_value", {"name": "schema"}), _shape(tables)
    except STORAGE_ERRORS as error:
        _see_whether_it_heals(error)
        return [Finding(FindingKind.SCHEMA, f"the schema cannot be read ({name_of(error)}: {error})", _RESTORE)]
    if kept == [(now,)]:
        return []
    return [Finding(FindingKind.SCHEMA, "the journal's own tables are not as this library made them", _RESTORE)]


def remember_schema(tables: Tables) -> None:
    """Note what the journal's own tables look like, where they are as they have to be: just made, or just migrated."""
    kept = tables.first("meta_value", {"name": "schema"})
    ((version,),) = tables.connection.execute("PRAGMA user_version").fetchall()
    if kept is None or not kept[0].startswith(f"{version}:"):
        tables.change("meta_set", {"name": "schema", "value": _shape(tables)})


def _shape(tables: Tables) -> str:
    ((version,),) = tables.connection.execute("PRAGMA user_version").fetchall()
    rows = tables.all("own_shape", {})
    return f"{version}:{blake2b(ascii(rows).encode(), digest_size=16).hexdigest()}"


def _references(tables: Tables) -> list[Finding]:
    """Rows that belong to rows which are not there. The application's own tables are its own business."""
    found: list[Finding] = []
    for (name,) in _asked(tables, tables.sql["own_tables"])[0]:
        lines, error = _asked(tables, f"PRAGMA foreign_key_check({name})")
        if lines:
            told = f"{len(lines)} rows of {name} belong to a row of {lines[0][2]} that is not there"
            found.append(Finding(FindingKind.REFERENCE, told, _RESTORE))
        if error is not None:
            found.append(Finding(FindingKind.STRUCTURE, f"{name} cannot be read ({error})", _RESTORE))
    return found


def _strays(tables: Tables) -> list[Finding]:
    """Rows without which nothing can be written."""
    rows, error = _asked(tables, tables.sql["tick_now"])
    if rows:
        return []
    fate = "is missing" if error is None else f"cannot be read ({error})"
    return [Finding(FindingKind.STRUCTURE, f"the row of durable_ticks {fate}", _RESTORE)]


def _asked(tables: Tables, sql: str) -> tuple[list[Any], str | None]:
    """The rows, as far as they can be read, and why they cannot be read to their end."""
    rows: list[Any] = []
    try:
        with forgiving(tables.connection):
            rows.extend(tables.connection.execute(sql))
    except STORAGE_ERRORS as error:
        _see_whether_it_heals(error)
        return rows, f"{name_of(error)}: {error}"
    return rows, None


def _see_whether_it_heals(error: sqlite3.Error | UnicodeDecodeError) -> None:
    if fault_of(error) is not Fault.REFUSED:
        raise error


# Of each run ---------------------------------------------------------------------------------------------------------


def _numbers(tables: Tables, after: int, limit: int = _PAGE) -> list[int]:
    """The numbers of the next runs: those that are there, and those that are summed, since either may be lost."""
    found: set[int] = set()
    for name in ("numbers", "numbers_summed"):
        try:
            there = tables.all(name, {"after": after, "limit": limit})
        except STORAGE_ERRORS as error:  # told of by `_structure`
            _see_whether_it_heals(error)
        else:
            # A damaged tree gives what is no number, or numbers from before: who goes on from those goes round for ever.
            found.update(no for (no,) in there if isinstance(no, int) and no > after)
    return sorted(found) if limit < 0 else sorted(found)[:limit]


def _of_run(tables: Tables, number: int) -> tuple[list[Finding], int]:
    unfit, looked = misfits(tables, number)
    if not unfit:
        return [], looked
    with forgiving(tables.connection):
        try:
            named = tables.first("id_of", {"run": number})
        except STORAGE_ERRORS as error:
            _see_whether_it_heals(error)
            named = None
    run = None if named is None else named[0]
    who = f"run number {number}" if run is None else f"run {run}"
    return list(_told(who, run, unfit)), looked


def _told(who: str, run: str | None, unfit: Collection[Any]) -> Iterator[Finding]:
    for each in unfit:
        kind = FindingKind.ROWS if each.key is None else FindingKind.ENTRY
        yield Finding(
            kind, f"{who}: {each.what}", _RESTORE if run is None else f"{_RESTORE}; or {_ACCEPT}", run, each.key
        )

"""What a journal holds, over any connection that may read it: without an engine, and without the application's code."""

from __future__ import annotations

import os

from .._clock import to_datetime
from .._records import State, StateName
from .._stats import JournalStats
from .connect import MEMORY
from .rows import Tables

__all__ = ["stats"]


def stats(tables: Tables, path: str) -> JournalStats:
    """Count what is in the journal; in a snapshot, all of it is of one moment.

    Reads indexes, and the parts of them that tell of what has not ended; entries are not counted.
    """
    runs: dict[State | StateName, int] = dict.fromkeys(State, 0)
    for word, number in tables.all("count_by_state", {}):
        runs[State(word)] = number
    ((letters, waits, questions, messages, workers, pending_at, due_at),) = tables.all("count_the_rest", {})
    return JournalStats(
        file_bytes=_size(path),
        wal_bytes=_size(f"{path}-wal"),
        page_bytes=_pragma(tables, "page_size"),
        pages=_pragma(tables, "page_count"),
        free_pages=_pragma(tables, "freelist_count"),
        schema=_pragma(tables, "user_version"),
        runs=runs,
        dead_letters=letters,
        waits=waits,
        questions=questions,
        messages=messages,
        workers=workers,
        oldest_pending_at=None if pending_at is None else to_datetime(pending_at),
        next_due_at=None if due_at is None else to_datetime(due_at),
    )


def _pragma(tables: Tables, name: str) -> int:
    ((value,),) = tables.connection.execute(f"PRAGMA {name}").fetchall()
    return int(value)


def _size(path: str) -> int:
    # Never by opening it: closing that descriptor again would drop SQLite's locks.
    if path.startswith(MEMORY):
        return 0
    try:
        return os.stat(path).st_size  # noqa: PTH116 - the path is SQLite's, not one to be taken apart
    except FileNotFoundError:
        return 0

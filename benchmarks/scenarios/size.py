"""What a step takes on disk."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from benchmarks.limits import insert
from benchmarks.ours import runs_of
from benchmarks.peers import dbos_sqlite, mundane_file, unhinged_sqlite
from benchmarks.shape import OURS, Figures, Scenario, Side, most

__all__ = ["SCENARIO"]

BYTES = "bytes a step on disk"
PAYLOAD = 2
"""Bytes of the values that are stored at most: `1` to `50`."""
STEPS = 50
BASE = 5
"""Steps of the runs that are taken away, so that what a run takes besides is not counted."""


def _bytes(folder: Path) -> int:
    """Bytes of all databases there, as they are once their logs are written back, without pages that are free."""
    return sum(_used(path) for path in folder.rglob("*") if path.is_file() and _is_database(path))


def _is_database(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(15) == b"SQLite format 3"


def _used(path: Path) -> int:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        pages, free, size = (
            int(connection.execute(f"PRAGMA {pragma}").fetchall()[0][0])
            for pragma in ("page_count", "freelist_count", "page_size")
        )
        return (pages - free) * size


def _step(work: Callable[[Path, int, int], object]) -> Callable[[Path, int], Figures]:
    """How much more runs of many steps take than runs of few."""

    def measure(folder: Path, runs: int) -> Figures:
        used: list[int] = []
        for steps in (BASE, STEPS):
            place = folder / str(steps)
            place.mkdir()
            work(place, runs, steps)
            used.append(_bytes(place))
        few, many = used
        return {BYTES: (many - few) / (runs * (STEPS - BASE))}

    return measure


def _bare(folder: Path, runs: int, steps: int) -> object:
    return insert(folder, runs * steps)


SCENARIO = Scenario(
    name="size",
    work="how much more 200 runs of 50 steps take than 200 runs of 5; the limit: rows of run, key and value",
    size=200,
    quick=10,
    sides=(
        Side(OURS, _step(runs_of)),
        Side("limit", _step(_bare)),
        Side("dbos", _step(dbos_sqlite.concurrent), needs=dbos_sqlite.NEEDS, share=0.05),
        Side("mundane", _step(mundane_file.concurrent), needs=mundane_file.NEEDS, share=0.05),
        Side("unhinged", _step(unhinged_sqlite.concurrent), needs=unhinged_sqlite.NEEDS, share=0.1),
    ),
    floors=(most("bytes a step besides its payload", 200, lambda sides: sides[OURS][BYTES] - PAYLOAD),),
    main=BYTES,
    rounds=1,
    notes="Values are numbers of one or two digits. The peers store fewer runs.",
)

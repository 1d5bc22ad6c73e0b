"""One run of many small steps, one after another: what a commit for each step costs."""

from __future__ import annotations

from pathlib import Path

from benchmarks.limits import insert
from benchmarks.ours import runs_of
from benchmarks.peers import dbos_sqlite, mundane_file, unhinged_sqlite
from benchmarks.shape import OURS, Figures, Scenario, Side, least, ratio
from benchmarks.stopwatch import rates

__all__ = ["SCENARIO"]

RATE = "steps a second"


def _ours(folder: Path, steps: int) -> Figures:
    return rates("step", steps, runs_of(folder, 1, steps))


def _limit(folder: Path, steps: int) -> Figures:
    return rates("step", steps, insert(folder, steps, rows_in_a_commit=1))


def _dbos(folder: Path, steps: int) -> Figures:
    return rates("step", steps, dbos_sqlite.concurrent(folder, 1, steps))


def _mundane(folder: Path, steps: int) -> Figures:
    return rates("step", steps, mundane_file.concurrent(folder, 1, steps))


def _unhinged(folder: Path, steps: int) -> Figures:
    return rates("step", steps, unhinged_sqlite.concurrent(folder, 1, steps))


SCENARIO = Scenario(
    name="sequential",
    work="one run of 1,000 small steps; the limit: one INSERT and one COMMIT each",
    size=1_000,
    quick=10,
    sides=(
        Side(OURS, _ours),
        Side("limit", _limit),
        Side("dbos", _dbos, needs=dbos_sqlite.NEEDS),
        Side("mundane", _mundane, needs=mundane_file.NEEDS, share=0.2),
        Side("unhinged", _unhinged, needs=unhinged_sqlite.NEEDS),
    ),
    floors=(
        least("of the limit", 0.5, ratio(RATE, "limit"), believable=1.0),
        least("times DBOS", 8, ratio(RATE, "dbos")),
    ),
    main=RATE,
    rounds=7,
    notes="mundane takes 200 steps, since it commits each of them twice.",
    tried=(
        (
            "Besides its COMMIT a step is some 200 µs of Python on the event loop and some 60 on the journal's thread, and "
            "two hand-overs between them, each of which waits for the interpreter's lock; the limit is one thread in C."
        ),
        (
            "A second pump of the body, a task that only waited and a read after each commit of one's own were taken out: a "
            "step costs a quarter less."
        ),
        (
            "A step takes six turns of the event loop. Five, and four, were tried, and brought about a hundredth: a turn alone "
            "is 2 µs. It stays at six, and a test holds it."
        ),
    ),
)

"""Many runs at once, which share their commits."""

from __future__ import annotations

from pathlib import Path

from benchmarks.limits import insert
from benchmarks.ours import runs_of
from benchmarks.peers import dbos_sqlite, mundane_file, unhinged_sqlite
from benchmarks.shape import OURS, Figures, Scenario, Side, least, ratio
from benchmarks.stopwatch import rates

__all__ = ["SCENARIO"]

STEPS = 30
RATE = "steps a second"


def _ours(folder: Path, runs: int) -> Figures:
    return rates("step", runs * STEPS, runs_of(folder, runs, STEPS))


def _limit(folder: Path, runs: int) -> Figures:
    return rates("step", runs * STEPS, insert(folder, runs * STEPS))


def _dbos(folder: Path, runs: int) -> Figures:
    return rates("step", runs * STEPS, dbos_sqlite.concurrent(folder, runs, STEPS))


def _mundane(folder: Path, runs: int) -> Figures:
    return rates("step", runs * STEPS, mundane_file.concurrent(folder, runs, STEPS))


def _unhinged(folder: Path, runs: int) -> Figures:
    return rates("step", runs * STEPS, unhinged_sqlite.concurrent(folder, runs, STEPS))


SCENARIO = Scenario(
    name="concurrent",
    work="100 runs of 30 steps at once; the limit: the same rows, 100 to a commit",
    size=100,
    quick=3,
    sides=(
        Side(OURS, _ours),
        Side("limit", _limit),
        Side("dbos", _dbos, needs=dbos_sqlite.NEEDS, share=0.2),
        Side("mundane", _mundane, needs=mundane_file.NEEDS, share=0.2),
        Side("unhinged", _unhinged, needs=unhinged_sqlite.NEEDS, share=0.5),
    ),
    floors=(
        least("of the limit", 0.25, ratio(RATE, "limit"), believable=1.0),
        least("times DBOS", 100, ratio(RATE, "dbos")),
    ),
    main=RATE,
    rounds=5,
    notes="DBOS and mundane drive 20 runs at once instead of 100, and unhinged 50, since all would take minutes.",
    tried=(
        (
            "What limits it is the thread of the event loop, not the disk: a step is five callbacks of the loop (its task twice, "
            "its body, its commit, its end) and some 300 calls of Python, where the limit writes a row in C."
        ),
        (
            "Less for each step: no task that only waits, no second pump of the body, no copies to compare, ids by pairs of "
            "characters, an idempotency key only where a step asks for it. Together a step takes about a third less."
        ),
        (
            "Beginning an attempt in the very turn of the commit that it waits for, without a turn in between: nothing was "
            "gained, and a branch could be overtaken. Taken back."
        ),
    ),
)

"""Many runs of one step started at once: what a run costs."""

from __future__ import annotations

import gc
from pathlib import Path

from benchmarks.limits import insert
from benchmarks.ours import runs_of
from benchmarks.peers import dbos_sqlite, mundane_file, unhinged_sqlite
from benchmarks.shape import OURS, Figures, Scenario, Side, least, ratio
from benchmarks.stopwatch import rates

__all__ = ["SCENARIO"]

RATE = "runs a second"


def _ours(folder: Path, runs: int) -> Figures:
    return rates("run", runs, runs_of(folder, runs, 1))


def _collected(folder: Path, runs: int) -> Figures:
    """The same work in a program that lets Python look for garbage less often."""
    before = gc.get_threshold()
    gc.set_threshold(50_000)
    try:
        return _ours(folder, runs)
    finally:
        gc.set_threshold(*before)


def _limit(folder: Path, runs: int) -> Figures:
    return rates("run", runs, insert(folder, runs))


def _dbos(folder: Path, runs: int) -> Figures:
    return rates("run", runs, dbos_sqlite.concurrent(folder, runs, 1))


def _mundane(folder: Path, runs: int) -> Figures:
    return rates("run", runs, mundane_file.concurrent(folder, runs, 1))


def _unhinged(folder: Path, runs: int) -> Figures:
    return rates("run", runs, unhinged_sqlite.concurrent(folder, runs, 1))


SCENARIO = Scenario(
    name="start",
    work="2,000 runs of one step started at once; the limit: as many rows, 100 to a commit",
    size=2_000,
    quick=20,
    sides=(
        Side(OURS, _ours),
        Side("collected", _collected),
        Side("limit", _limit),
        Side("dbos", _dbos, needs=dbos_sqlite.NEEDS, share=0.1),
        Side("mundane", _mundane, needs=mundane_file.NEEDS, share=0.1),
        Side("unhinged", _unhinged, needs=unhinged_sqlite.NEEDS, share=0.1),
    ),
    floors=(least("times DBOS", 100, ratio(RATE, "dbos")),),
    main=RATE,
    rounds=5,
    notes=(
        "The peers start 200 runs at once instead of 2,000, since all would take minutes. With thousands of runs in memory "
        "Python's search for garbage is a large part of the time, and how often it searches is the application's to say."
    ),
    tried=(
        (
            "A run is three writes (start, outcome, end) with a checksum each, a body on its own event loop, and a task for "
            "the step: some 1,000 calls of Python, where the limit has one `executemany` for a hundred rows."
        ),
        (
            "Who waits for a run that completes here is given its result; it was read from the file before. That was one of two "
            "reads a run, and 14 % of its processor time."
        ),
        (
            "One hop to the reading thread for all who ask in the same turn: 8 % less, but a slow look would hold up those with "
            "it. Left out."
        ),
        (
            "A run left some ninety objects that hold each other for Python to search for: what a pass is made of lets go of it "
            "now once it is over, and is freed without a search. That is some 5 % here, where most of what is searched are the "
            "runs that are under way: with the search turned off, it is 45 %. Fewer objects a run would help: there are some 130."
        ),
    ),
)

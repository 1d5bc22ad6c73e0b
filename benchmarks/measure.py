"""One measurement in a process of its own."""

from __future__ import annotations

import multiprocessing
import tempfile
from pathlib import Path

from benchmarks import processes, waits
from benchmarks.scenarios import SCENARIOS

__all__ = ["FIGURES", "figures", "once"]

FIGURES = {**waits.FIGURES, **processes.FIGURES}

_SECONDS = "seconds"


def _measure(name: str, side: str, answer: multiprocessing.SimpleQueue[dict[str, float]]) -> None:
    with tempfile.TemporaryDirectory(prefix="durable_sqlite-bench-") as folder:
        if name in FIGURES:
            answer.put(FIGURES[name](Path(folder)))
        else:
            scenario = SCENARIOS[name]
            answer.put({_SECONDS: (scenario.ours if side == "ours" else scenario.limit)(Path(folder))})


def once(name: str, side: str) -> float:
    """Seconds that one side of a scenario takes in a fresh process."""
    return figures(name, side)[_SECONDS]


def figures(name: str, side: str = "ours") -> dict[str, float]:
    """What a scenario measures in a fresh process."""
    context = multiprocessing.get_context("spawn")
    answer: multiprocessing.SimpleQueue[dict[str, float]] = context.SimpleQueue()
    process = context.Process(target=_measure, args=(name, side, answer))
    process.start()
    process.join()
    if process.exitcode != 0:
        raise SystemExit(f"{name} ({side}) ended with {process.exitcode}")
    return answer.get()

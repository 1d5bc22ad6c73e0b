"""One measurement in a process of its own."""

from __future__ import annotations

import multiprocessing
import tempfile
from pathlib import Path

from benchmarks.scenarios import SCENARIOS

__all__ = ["once"]


def _measure(name: str, side: str, answer: multiprocessing.SimpleQueue[float]) -> None:
    scenario = SCENARIOS[name]
    with tempfile.TemporaryDirectory(prefix="durable_sqlite-bench-") as folder:
        answer.put((scenario.ours if side == "ours" else scenario.limit)(Path(folder)))


def once(name: str, side: str) -> float:
    """Seconds that one side of a scenario takes in a fresh process."""
    context = multiprocessing.get_context("spawn")
    answer: multiprocessing.SimpleQueue[float] = context.SimpleQueue()
    process = context.Process(target=_measure, args=(name, side, answer))
    process.start()
    process.join()
    if process.exitcode != 0:
        raise SystemExit(f"{name} ({side}) ended with {process.exitcode}")
    return answer.get()

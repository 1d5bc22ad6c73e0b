"""Where a scenario spends its time: the costliest functions of the thread that drives it."""

from __future__ import annotations

import cProfile
import pstats
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measure import here, side_of
from benchmarks.shape import OURS, Scenario

__all__ = ["Cost", "costs"]

_ROOT = Path(__file__).resolve().parent.parent
_MOST = 10
_IMPORT = re.compile(r"^import time:\s+(\d+) \|\s+(\d+) \|(.+)$", re.MULTILINE)
_WAITING = ("<method 'poll' of 'select.epoll' objects>", "<built-in method time.sleep>")
"""Where this thread is while another one works: that of the journal, which commits, or a process."""


@dataclass(frozen=True, slots=True)
class Cost:
    """One function."""

    share: float
    """Of all the time that was measured, in itself."""
    total: float
    """The same, with all that it calls."""
    calls: int
    where: str


def costs(scenario: Scenario, size: int) -> list[Cost]:
    """The functions in which our side of a scenario spends most time in themselves, costliest first.

    The profiler costs as well, and most where there are many small calls: the order is what to read, not the seconds.
    """
    if scenario.name == "cold":
        return _imports()
    here(scenario, side_of(scenario, OURS), scenario.quick)  # what is imported and built once is not what is asked for
    profile = cProfile.Profile()
    profile.enable()
    try:
        here(scenario, side_of(scenario, OURS), size)
    finally:
        profile.disable()
    found = pstats.Stats(profile).get_stats_profile()
    whole = found.total_tt or 1.0
    rows = [
        Cost(
            of.tottime / whole,
            of.cumtime / whole,
            int(of.ncalls.split("/")[0]),
            _where(name, of.file_name, of.line_number),
        )
        for name, of in found.func_profiles.items()
    ]
    return sorted(rows, key=_share)[:_MOST]


def _imports() -> list[Cost]:
    """The modules whose import takes longest."""
    command = [sys.executable, "-X", "importtime", "-c", "from durable_sqlite import *"]
    said = subprocess.run(command, capture_output=True, text=True, check=True, cwd=_ROOT).stderr
    rows = [(int(own), int(total), name.strip()) for own, total, name in _IMPORT.findall(said)]
    whole = sum(own for own, _, _ in rows) or 1
    return sorted((Cost(own / whole, total / whole, 1, name) for own, total, name in rows), key=_share)[:_MOST]


def _share(cost: Cost) -> float:
    return -cost.share


def _where(name: str, file: str, line: int) -> str:
    if name in _WAITING:
        return "(waiting for the journal's thread, or for time)"
    path = Path(file)
    if path.is_relative_to(_ROOT):
        return f"{path.relative_to(_ROOT)}:{line} {name}"
    return name if file == "~" else f"{path.parent.name}/{path.name} {name}"

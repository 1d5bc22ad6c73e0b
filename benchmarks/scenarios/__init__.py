"""What is measured: one file for each scenario."""

from __future__ import annotations

from benchmarks.scenarios import (
    cold,
    concurrent,
    growth,
    recovery,
    replay,
    sequential,
    signal,
    size,
    start,
    timers,
    transaction,
    waiting,
)
from benchmarks.shape import Scenario

__all__ = ["SCENARIOS"]

SCENARIOS: dict[str, Scenario] = {
    scenario.name: scenario
    for scenario in (
        sequential.SCENARIO,
        concurrent.SCENARIO,
        start.SCENARIO,
        transaction.SCENARIO,
        replay.SCENARIO,
        signal.SCENARIO,
        timers.SCENARIO,
        waiting.SCENARIO,
        recovery.SCENARIO,
        growth.SCENARIO,
        size.SCENARIO,
        cold.SCENARIO,
    )
}

"""How long the last commits took, and how much they held."""

from __future__ import annotations

from math import ceil

from .._stats import CommitStats

__all__ = ["Meter"]

_KEPT = 1_000


class Meter:
    """The last commits of one writer. Its thread notes them, any other may read."""

    def __init__(self) -> None:
        self._count = 0
        self._writes = 0
        self._last: list[tuple[float, int]] = []

    def note(self, seconds: float, operations: int) -> None:
        """A commit of so many operations took so long."""
        if len(self._last) < _KEPT:
            self._last.append((seconds, operations))
        else:
            self._last[self._count % _KEPT] = (seconds, operations)
        self._count += 1
        self._writes += operations

    def read(self, waiting: int) -> CommitStats:
        """What was noted, and how many operations wait now."""
        last = self._last.copy()
        times = sorted(seconds for seconds, _ in last)
        return CommitStats(
            count=self._count,
            writes=self._writes,
            waiting=waiting,
            median=_quantile(times, 0.5),
            p99=_quantile(times, 0.99),
            batch=sum(operations for _, operations in last) / len(last) if last else None,
        )


def _quantile(times: list[float], share: float) -> float | None:
    """The smallest of these, which are sorted, that so large a share of them does not exceed."""
    return times[max(0, ceil(share * len(times)) - 1)] if times else None

"""Time by the clock, and time of the processor: the second says what work costs also where others use the machine."""

from __future__ import annotations

from dataclasses import dataclass, field
from time import perf_counter, process_time

from benchmarks.shape import Figures

__all__ = ["Stopwatch", "Took", "agree", "rates"]


@dataclass(frozen=True, slots=True)
class Took:
    """What some work took."""

    seconds: float
    cpu: float
    """Seconds of the processor, in all threads of the process."""


@dataclass(slots=True)
class Stopwatch:
    """Runs since it was made."""

    _began: float = field(default_factory=perf_counter)
    _cpu: float = field(default_factory=process_time)

    def took(self) -> Took:
        """What was taken until now."""
        return Took(perf_counter() - self._began, process_time() - self._cpu)


def rates(unit: str, number: int, took: Took) -> Figures:
    """How many a second, and what each of them costs."""
    return {f"{unit}s a second": number / took.seconds, cpu_of(unit): 1e6 * took.cpu / number}


def cpu_of(unit: str) -> str:
    """The name of the figure."""
    return f"µs of CPU a {unit}"


def agree(got: object, wanted: object) -> None:
    """See that the work came to what it should. No assertion: `python -O` leaves those out, and with them the work.

    Raises:
        SystemExit: It came to something else.
    """
    if got != wanted:
        raise SystemExit(f"the work came to {got!r}, and not to {wanted!r}: nothing of this is to be measured")

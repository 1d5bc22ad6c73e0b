"""What a test may let go wrong, as plain values: whoever drives the runs makes it so."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..errors import UsageError

__all__ = ["Crash", "Fail"]


@dataclass(frozen=True, slots=True)
class Crash:
    """The process dies at one of its writes to the journal."""

    at: int
    """Which of them, counted from 1 since the process began."""
    side: Literal["before", "after"]
    """Whether it dies just before that write is committed, or just after, when nobody has heard of it yet."""

    def __post_init__(self) -> None:
        _counted("Crash(at=...)", self.at)
        if self.side not in ("before", "after"):
            raise UsageError(f'Crash(side=...) takes "before" or "after", not {self.side!r}')


@dataclass(frozen=True, slots=True)
class Fail:
    """The first attempts of a step fail."""

    step: str
    """The step's name."""
    times: int
    """How many attempts fail, in each call of it."""

    def __post_init__(self) -> None:
        if not isinstance(self.step, str) or not self.step:
            raise UsageError(f"Fail(step=...) takes the name of a step, not {self.step!r}")
        _counted("Fail(times=...)", self.times)


def _counted(what: str, number: object) -> None:
    if isinstance(number, bool) or not isinstance(number, int) or number < 1:
        raise UsageError(f"{what} takes a whole number from 1, not {number!r}")

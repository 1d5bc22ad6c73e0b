"""What a run of the benchmarks found, as it is kept: measurements, and what is made of them."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from benchmarks.shape import OURS, Figures, Floor, Scenario

__all__ = ["Result", "Verdict", "beside", "median", "verdicts"]


@dataclass(slots=True)
class Result:
    """One scenario, measured."""

    name: str
    work: str
    notes: str
    tried: tuple[str, ...]
    main: str
    size: int
    quick: bool
    taken_at: str
    load: float
    """Of the machine, when it began."""
    seconds: float = 0.0
    """That all of it took."""
    sizes: dict[str, int] = field(default_factory=dict[str, int])
    """What each side was given."""
    rounds: list[dict[str, Figures]] = field(default_factory=list[dict[str, Figures]])
    durability: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    log_grew: dict[str, int] = field(default_factory=dict[str, int])
    """Bytes by which the log of a side grew while it was timed, the most of all rounds."""
    left_out: list[str] = field(default_factory=list[str])
    floors: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    profile: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a floor is met."""

    floor: Floor
    values: tuple[float, ...]
    """One of each round in which it could be measured."""

    @property
    def value(self) -> float | None:
        """The median over the rounds; None where it could not be measured."""
        return statistics.median(self.values) if self.values else None

    @property
    def word(self) -> str:
        """`met` or `missed` where all rounds agree, `unclear` where they do not, or what else is wrong with it."""
        if not self.values:
            return "not measured"
        if self.floor.believable is not None and max(self.values) > self.floor.believable:
            return "not believable"
        met = {self.floor.met(value) for value in self.values}
        if len(met) > 1:
            return "unclear"
        return "met" if met == {True} else "missed"

    def plain(self) -> dict[str, Any]:
        """As it is kept."""
        floor = self.floor
        return {
            "says": floor.says,
            "bound": floor.bound,
            "at_least": floor.at_least,
            "value": self.value,
            "values": [*self.values],
            "verdict": self.word,
        }


def verdicts(scenario: Scenario, rounds: list[dict[str, Figures]]) -> list[Verdict]:
    """Each floor with its figures in the rounds: the sides of one round were measured in turn."""
    return [Verdict(floor, _values(floor, rounds)) for floor in scenario.floors]


def _values(floor: Floor, rounds: list[dict[str, Figures]]) -> tuple[float, ...]:
    values: list[float] = []
    for one in rounds:
        try:
            values.append(floor.value(one))
        except KeyError:
            continue  # a side that did not take part
    return tuple(values)


def median(rounds: list[Mapping[str, Figures]] | list[dict[str, Figures]], side: str, figure: str) -> float | None:
    """The median of one figure of one side; None where it has none."""
    values = [one[side][figure] for one in rounds if side in one and figure in one[side]]
    return statistics.median(values) if values else None


def beside(rounds: list[dict[str, Figures]], side: str, figure: str) -> float | None:
    """The median of how many times as much ours has of a figure as another side of the same round."""
    values = [one[OURS][figure] / one[side][figure] for one in rounds if _both(one, side, figure)]
    return statistics.median(values) if values else None


def _both(one: dict[str, Figures], side: str, figure: str) -> bool:
    return all(name in one and figure in one[name] for name in (OURS, side))

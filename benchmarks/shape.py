"""What a scenario is made of. Values only: nothing here measures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

__all__ = ["OURS", "Figures", "Floor", "Round", "Scenario", "Side", "least", "most", "ratio"]

Figures = dict[str, float]
"""What one side measured in one process, by what it is."""

Round = Mapping[str, Figures]
"""What the sides of a scenario measured in turn, by the name of the side."""

OURS = "ours"


@dataclass(frozen=True, slots=True)
class Side:
    """One of the programs that are measured in turn."""

    name: str
    measure: Callable[[Path, int], Figures]
    """Does its work in an empty folder, at a size, and tells what it took."""
    needs: str = ""
    """The module of a peer that has to be installed for it."""
    share: float = 1.0
    """Which part of the size it is given: a peer that is slow would take minutes otherwise."""
    most_rounds: int = 100
    """In how many rounds it takes part: the same, for one whose work cannot be less."""
    stores: bool = True
    """Whether it opens a database, so that it has to show at what durability."""


@dataclass(frozen=True, slots=True)
class Floor:
    """A figure that is to be reached."""

    says: str
    bound: float
    value: Callable[[Round], float]
    """The figure of one round; a KeyError where a side did not take part."""
    at_least: bool
    believable: float | None = None
    """What it can be at most: nothing beats a limit, so whoever seems to was not measured well."""

    def met(self, value: float) -> bool:
        """Whether this is good enough."""
        return value >= self.bound if self.at_least else value <= self.bound


@dataclass(frozen=True, slots=True)
class Scenario:
    """One kind of work, what does it, and what is asked of it."""

    name: str
    work: str
    size: int
    quick: int
    """The size at which it is only seen that it works."""
    sides: tuple[Side, ...]
    floors: tuple[Floor, ...]
    main: str
    """The figure that all sides have, for tables and pictures."""
    rounds: int = 5
    notes: str = ""
    """What a reader has to know to judge it."""
    tried: tuple[str, ...] = ()
    """What was tried to reach its floors and what came of it; told where one is missed."""


def ratio(figure: str, over: str, *, of: str = OURS) -> Callable[[Round], float]:
    """How many times as much of a figure one side has as another."""
    return lambda sides: sides[of][figure] / sides[over][figure]


def least(says: str, bound: float, value: Callable[[Round], float], believable: float | None = None) -> Floor:
    """A figure that is to be at least so much."""
    return Floor(says, bound, value, at_least=True, believable=believable)


def most(says: str, bound: float, value: Callable[[Round], float]) -> Floor:
    """A figure that is to be at most so much."""
    return Floor(says, bound, value, at_least=False)

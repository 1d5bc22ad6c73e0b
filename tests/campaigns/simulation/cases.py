"""What chance decides about a case: what runs do, what clients ask, and the troubles of processes, clock and disk."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from .errands import Act

__all__ = ["HEALED_AT", "Case", "Trouble", "draw"]

HEALED_AT = 7.0
"""Seconds after which nothing more goes wrong."""

_LEAVES = ("walk", "walk", "climb", "book", "book", "launch", "leap", "nap", "letter", "ask", "late")
_NAPS = (0.0, 0.2, 1.0, 3.0)
_LIMITS = (0.0, 0.3, 1.5)
_LENGTHS = (0.1, 0.5, 1.5, 2.5, 4.0)
_STANDS = (0.5, 3.5, 5.0)
_JUMPS = (-20.0, -3.0, -0.4, 0.4, 3.0, 20.0)
_KINDS = {
    "kill": 3,
    "die": 4,
    "stand": 4,
    "block": 2,
    "close": 1,
    "interrupt": 1,
    "jump": 2,
    "lock": 2,
    "full": 2,
    "stuck": 1,
    "doubt": 4,
    "unreadable": 1,
    "join": 1,
}
_FAILPOINTS = ("commit.before", "commit.after", "step.before", "step.after")


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """Something that goes wrong."""

    at: float
    kind: str
    process: int
    """Which of those that live, as it were a number on a ring."""
    length: float = 0.0
    """Seconds until it is over, or by which the clock is set."""
    place: str = ""
    """At which failpoint it dies."""
    count: int = 0
    """How many of these are let pass before."""
    outcomes: tuple[bool, ...] = ()
    """Whether each COMMIT that fails is stored all the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """All that is decided before a case begins."""

    seed: int
    engines: int
    scripts: tuple[list[Act], ...]
    starts: tuple[float, ...]
    cancels: tuple[float | None, ...]
    troubles: tuple[Trouble, ...]

    def __str__(self) -> str:
        lines = [f"seed {self.seed}, {self.engines} engines"]
        for number, script in enumerate(self.scripts):
            lines.append(f"run-{number} at {self.starts[number]:.2f}, cancelled at {self.cancels[number]}: {script}")
        return "\n".join([*lines, *map(str, self.troubles)])


def draw(seed: int) -> Case:
    """The case of this seed."""
    chance = Random(seed)
    runs = chance.choice((1, 2, 3))
    ids = itertools.count(1)
    troubles = sorted((_trouble(chance) for _ in range(chance.randint(1, 6))), key=lambda trouble: trouble.at)
    return Case(
        seed=seed,
        engines=chance.choice((1, 2, 2, 3)),
        scripts=tuple(_script(chance, ids, chance.randint(2, 4), 2) for _ in range(runs)),
        starts=tuple(chance.random() * 2 for _ in range(runs)),
        cancels=tuple(chance.random() * 6 if chance.random() < 0.1 else None for _ in range(runs)),
        troubles=tuple(troubles),
    )


def _script(chance: Random, ids: Iterator[int], length: int, depth: int, *, letters: bool = True) -> list[Act]:
    return [_act(chance, ids, depth, letters=letters) for _ in range(length)]


def _act(chance: Random, ids: Iterator[int], depth: int, *, letters: bool) -> Act:
    number = next(ids)
    if depth and chance.random() < 0.2:
        if chance.random() < 0.5:
            # Whose letter is whose is only told within one branch, and children get none.
            return ["child", number, _script(chance, ids, 2, depth - 1, letters=False)]
        ways = [_script(chance, ids, 2, depth - 1, letters=False) for _ in range(2)]
        return ["fork", number, *ways]
    kind = chance.choice(_LEAVES)
    if kind == "letter" and not letters:
        kind = "walk"
    if kind in {"nap", "late"}:
        return [kind, number, chance.choice(_NAPS if kind == "nap" else _LIMITS)]
    return [kind, number]


def _trouble(chance: Random) -> Trouble:
    (kind,) = chance.choices(list(_KINDS), list(_KINDS.values()))
    return Trouble(
        at=chance.random() * (HEALED_AT - 1.0),
        kind=kind,
        process=chance.randrange(6),
        length=chance.choice({"jump": _JUMPS, "stand": _STANDS}.get(kind, _LENGTHS)),
        place=chance.choice(_FAILPOINTS),
        count=chance.choice((0, 0, 1, 2, 5)),
        outcomes=tuple(chance.random() < 0.5 for _ in range(chance.choice((1, 1, 2, 3)))),
    )

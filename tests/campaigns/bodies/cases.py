"""What chance decides about a case: programs, when they are cancelled, and how the processes that drive them end."""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random

from .programs import Node, generate, outline

__all__ = ["Case", "Life", "draw"]

_MOST_LIVES = 5  # processes that are disturbed, before one that is left alone


@dataclass(frozen=True, slots=True, kw_only=True)
class Life:
    """One process. Without anything that ends it, it lives until every run has stopped."""

    slice: int = 1_000
    """Callbacks of a body after which the host gets its turn."""
    shuffle: int | None = None
    """Seed of the order in which the host's loop does what is ready."""
    crash_at_commit: int | None = None
    crash_lands: bool = False
    """The commit at which it dies is on the disk."""
    crash_after: float | None = None
    """Seconds after which it dies between two commits."""
    leave_after: float | None = None
    """Seconds after which it ends by itself."""
    orderly: bool = False
    """It closes its engine before it ends; else the program just ends, as by Ctrl-C."""
    downtime: float = 0.0
    """Seconds until the next one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """All that is decided before a case begins."""

    seed: int
    programs: tuple[Node, ...]
    starts: tuple[float, ...]
    """When each run is started, in seconds."""
    cancels: tuple[float | None, ...]
    """When each run is cancelled, in seconds."""
    cancels_at_commit: tuple[int | None, ...]
    """After which commit to the disk each run is cancelled: in the thick of things."""
    unload_after: float = 0.0
    commit_delay: float | None = None
    max_resident: int = 100
    retries: bool = False
    """Steps that do not say it themselves are tried twice."""
    lives: tuple[Life, ...] = ()

    def __str__(self) -> str:
        lines = [f"seed {self.seed}, unload_after {self.unload_after}, commit_delay {self.commit_delay}"]
        lines[0] += ", all is tried twice" if self.retries else ""
        for number, program in enumerate(self.programs):
            lines.append(f"run {number}, started at {self.starts[number]:g}, cancelled at {self._cancel(number)}")
            lines.append(outline(program, indent="  "))
        return "\n".join([*lines, *map(str, self.lives)])

    def _cancel(self, number: int) -> str:
        commit = self.cancels_at_commit[number]
        return f"{self.cancels[number]}" if commit is None else f"commit {commit}"


def draw(seed: int, *, only_crowded: bool = False) -> Case:
    """The case of this seed.

    In a crowded one, many runs rest, are cancelled and are claimed in one and the same commit.
    """
    chance = Random(seed)
    crowded = chance.random() < 0.2 or only_crowded
    runs = 4 if crowded else chance.choice((1, 1, 1, 2, 3))
    hurry = 0.8 if crowded else 0.25
    return Case(
        seed=seed,
        programs=tuple(generate(chance, calm=crowded or chance.random() < 0.4) for _ in range(runs)),
        starts=tuple(chance.choice((0.0, 0.0, chance.random() * 3)) for _ in range(runs)),
        cancels=tuple(chance.random() * 12 if chance.random() < 0.25 else None for _ in range(runs)),
        cancels_at_commit=tuple(chance.randint(2, 40) if chance.random() < hurry else None for _ in range(runs)),
        unload_after=chance.choice((0.0, 0.0, 2.0, 1e6)),
        commit_delay=0.5 if crowded else chance.choice((None, None, 0.02, 0.5)),
        max_resident=chance.choice((100, 100, 3 if crowded else 1)),
        retries=chance.random() < 0.4,
        lives=tuple(_life(chance, runs) for _ in range(chance.randint(0, _MOST_LIVES))),
    )


def _life(chance: Random, runs: int) -> Life:
    how = chance.random()
    shaken = Life(
        slice=chance.choice((1_000, 1_000, 1, 2, 3)),
        shuffle=chance.getrandbits(32) if chance.random() < 0.5 else None,
        downtime=chance.choice((0.0, 0.0, 1.0, 7.0)),
    )
    if how < 0.6:
        return replace(shaken, crash_at_commit=chance.randint(2, 10 + 8 * runs), crash_lands=chance.random() < 0.3)
    if how < 0.75:
        return replace(shaken, crash_after=chance.random() * 10)
    if how < 0.9:
        return replace(shaken, leave_after=chance.random() * 10, orderly=chance.random() < 0.5)
    return shaken

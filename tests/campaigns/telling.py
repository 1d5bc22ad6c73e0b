"""Tells people what a campaign of cases has come to."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Protocol

__all__ = ["tell"]


class _Problem(Protocol):
    @property
    def what(self) -> str: ...

    @property
    def detail(self) -> object: ...


class _Tally(Protocol):
    @property
    def cases(self) -> int: ...

    @property
    def counts(self) -> Mapping[str, int]: ...

    @property
    def found(self) -> Sequence[tuple[int, Sequence[_Problem]]]: ...


def tell(command: str, tally: _Tally, seconds: float) -> None:
    """What was played and seen, and of each kind of problem how often, the first one, and how it is played again."""
    write = sys.stdout.write
    counts = ", ".join(f"{name} {count:,}" for name, count in sorted(tally.counts.items()))
    write(f"{tally.cases:,} cases in {seconds:.0f} s: {counts}\n{len(tally.found):,} cases broke a promise\n")
    kinds = Counter(problems[0].what for _, problems in tally.found)
    for what, count in kinds.most_common():
        seed, problems = next(found for found in tally.found if found[1][0].what == what)
        write(f"  {count:5,}  {what}: {problems[0].detail}\n")
        write(f"         again: python -m tests.campaigns {command} --cases 1 --seed {seed}\n")

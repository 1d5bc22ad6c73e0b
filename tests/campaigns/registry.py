"""What campaigns there are, and the broken rules that each must notice: found in the folders beside this file, listed nowhere.

A folder is a campaign if it has a module `campaign` with a function `register(subparsers)`, which adds its commands and gives
each a default `run`: a function of the options that gives an exit code or, better, a `Result`. If that module has a function
`broken_rules()`, what it gives stands in the table of mutants.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

__all__ = ["BrokenRule", "Result", "broken_rules", "campaigns", "sentence"]


@dataclass(frozen=True, slots=True)
class BrokenRule:
    """An engine, a journal or a checker with one rule broken on purpose, and how to see whether it is noticed."""

    campaign: str
    """The command that must notice it."""
    name: str
    what: str
    """What is broken, in a sentence."""
    unit: str
    """What is counted until it is noticed."""
    most: int
    """In how many of these it has to be noticed."""
    until_noticed: Callable[[], int | None]
    """Play; after how many it was noticed, or None."""
    needs: str | None = None
    """What is missing here without which it cannot be noticed."""


@dataclass(frozen=True, slots=True)
class Result:
    """What a campaign has come to."""

    counts: Mapping[str, int]
    """What was played and seen."""
    findings: Sequence[str]
    """The promises that were broken."""
    expected: bool = False
    """A rule was broken on purpose: something has to be found."""
    seeds: str = ""
    """Which ones were played, in words."""
    figures: Mapping[str, object] = field(default_factory=dict[str, object])
    """Whatever else belongs into its record."""

    @property
    def code(self) -> int:
        """0 if it found what it was to find: nothing, or the mutant."""
        return int(bool(self.findings) != self.expected)


def campaigns() -> list[ModuleType]:
    """The modules of all campaigns, by name."""
    here = Path(__file__).parent
    names = sorted(found.name for found in pkgutil.iter_modules([str(here)]) if found.ispkg)
    return [
        importlib.import_module(f"{__package__}.{name}.campaign")
        for name in names
        if (here / name / "campaign.py").exists()
    ]


def broken_rules() -> Iterator[BrokenRule]:
    """All that any campaign must notice."""
    for campaign in campaigns():
        if hasattr(campaign, "broken_rules"):
            yield from campaign.broken_rules()


def sentence(function: Callable[..., object]) -> str:
    """What a function that breaks a rule says of itself."""
    return (function.__doc__ or function.__name__).strip().splitlines()[0]

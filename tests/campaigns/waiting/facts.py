"""What the model is told and holds, in plain values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["Broken", "Fact", "Letter", "Question", "must"]


class Broken(AssertionError):
    """A promise was broken: which one, and the facts."""


def must(promise: object, otherwise: str, *facts: object) -> None:
    """A promise must have been kept."""
    if not promise:
        raise Broken(f"{otherwise}: {', '.join(map(str, facts))}")


@dataclass(frozen=True, slots=True)
class Letter:
    """A message that nobody has taken."""

    name: str
    value: str
    at: int
    stored_at: int


@dataclass(slots=True)
class Question:
    """A question as those who may answer it see it."""

    key: str
    name: str
    deadline: int | None
    state: str = "open"
    """Or `answered`, `closed`, or `closing`: nobody waits for it, and the journal need not know that yet."""
    value: Any = None


@dataclass(frozen=True, slots=True)
class Fact:
    """An entry as it was recorded. The value of an error is how the run ended that was waited for."""

    key: str
    kind: str
    name: str
    outcome: str
    value: Any
    at: int

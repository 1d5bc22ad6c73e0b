"""What a probe says of an at-most-once step that may have begun before its process died."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

__all__ = ["Answer", "Done", "NotDone", "Unknown"]

T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Done(Generic[T_co]):
    """The effect has happened, and this is what the step would have returned."""

    value: T_co


@dataclass(frozen=True, slots=True)
class NotDone:
    """The effect has not happened and will not: the step may begin."""


@dataclass(frozen=True, slots=True)
class Unknown:
    """Nobody can tell: a person must decide."""


Answer = Done[T_co] | NotDone | Unknown

"""Random bodies: what a program may consist of, and how chance puts one together."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from random import Random

__all__ = ["Node", "generate", "outline", "smaller"]


@dataclass(frozen=True, slots=True)
class Node:
    """One act of a body. What each kind does is in `acts`."""

    kind: str
    id: int
    parts: tuple[Node, ...] = ()
    seconds: float = 0.0
    flag: bool = False
    failures: int = 0
    """How many attempts fail before one does not."""


_LEAVES = (
    "step",
    "step",
    "stubborn",
    "boom",
    "declared",
    "quits",
    "flaky",
    "flaky",
    "healing",
    "asking",
    "tardy",
    "lingering",
    "haunting",
    "sleep",
    "pause",
    "zero",
    "parity",
    "queue",
    "generator",
    "keyed",
    "chance",
    "shared",
    "handover",
)
_CALM_LEAVES = (*_LEAVES[:3], *(["sleep", "pause", "healing"] * 4))
"""Of programs that are suspended most of the time."""

_INNER = (
    "sequence",
    "sequence",
    "gather",
    "direct",
    "group",
    "failing_group",
    "timeout",
    "wait_for",
    "shield",
    "cleanup",
    "catch",
    "swallow",
    "race",
    "first",
    "as_completed",
    "lock",
    "elapsed",
)
_SLEEPS = (0.0, 0.5, 1.0, 3.0, 100.0)
_PAUSES = (0.0, 0.5, 1.0, 3.0)
_LIMITS = (0.5, 2.0, 6.0)
_FAILURES = (0, 1, 1, 2, 3, 5)
_SEVERAL = {"sequence", "gather", "group", "failing_group", "race", "first", "as_completed"}


def generate(chance: Random, *, calm: bool) -> Node:
    """A program of three acts, each up to three deep; a calm one sleeps most of the time."""
    ids = itertools.count(1)
    leaves = _CALM_LEAVES if calm else _LEAVES
    return Node("sequence", 0, tuple(_act(chance, 3, ids, leaves) for _ in range(3)))


def _act(chance: Random, depth: int, ids: Iterator[int], leaves: tuple[str, ...]) -> Node:
    number = next(ids)
    if depth == 0 or chance.random() < 0.35:
        return _leaf(chance, number, leaves)
    kind = chance.choice(_INNER)
    if kind == "direct":
        return Node(kind, number, seconds=chance.choice(_PAUSES), flag=chance.random() < 0.5)
    count = chance.choice((2, 2, 3)) if kind in _SEVERAL else 1
    parts = tuple(_act(chance, depth - 1, ids, leaves) for _ in range(count))
    return Node(kind, number, parts, chance.choice(_LIMITS), chance.random() < 0.5)


def _leaf(chance: Random, number: int, leaves: tuple[str, ...]) -> Node:
    kind = chance.choice(leaves)
    if kind == "stubborn" and chance.random() < 0.1:
        return Node("mule", number)
    lengths = {"sleep": _SLEEPS, "pause": _PAUSES}.get(kind, (0.0,))
    return Node(kind, number, seconds=chance.choice(lengths), failures=chance.choice(_FAILURES))


def outline(program: Node, *, indent: str = "") -> str:
    """A program for people to read, one act a line."""
    extra = f" {program.seconds:g}s" if program.seconds else ""
    extra += f" fails {program.failures}x" if program.failures else ""
    lines = [f"{indent}{program.kind} {program.id}{extra}{' *' if program.flag else ''}"]
    lines += [outline(part, indent=indent + "  ") for part in program.parts]
    return "\n".join(lines)


def smaller(program: Node) -> Iterator[Node]:
    """Programs that do a little less: for a failing one to be made small."""
    for index, part in enumerate(program.parts):
        rest = (*program.parts[:index], *program.parts[index + 1 :])
        if rest or program.kind == "sequence":
            yield _with(program, rest)
        for replacement in itertools.chain(part.parts, smaller(part)):
            yield _with(program, (*program.parts[:index], replacement, *program.parts[index + 1 :]))


def _with(program: Node, parts: tuple[Node, ...]) -> Node:
    return replace(program, parts=parts)

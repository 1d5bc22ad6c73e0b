"""Random bodies that wait: what a program may consist of, and how hypothesis draws one."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace

from hypothesis import strategies as st

__all__ = ["POINTS", "SIGNALS", "Node", "by_name", "name_of", "programs"]

SIGNALS = ("waiting-ping", "waiting-pong")
POINTS = ("waiting-choice", "waiting-consent")


@dataclass(frozen=True, slots=True)
class Node:
    """One act of a body. What each kind does is in `acts`, what it may come to in `model`."""

    kind: str
    parts: tuple[Node, ...] = ()
    name: str = ""
    """Of the signal or the suspend point; the status that a sequence sets."""
    seconds: float = 0.0
    """How long it takes, or may take; 0 without a limit."""
    count: int = 0
    """How many items, or rounds; which run a message is for."""
    failures: int = 0
    """How many attempts fail; which item fails, counted from 1."""
    limit: int = 0
    """How many items may be open at once; 0 for all."""
    flag: bool = False
    """Errors are collected; the child is detached."""
    id: int = 0

    def __repr__(self) -> str:
        given = [f"{name}={value!r}" for name in self.__slots__ if name != "kind" and (value := getattr(self, name))]
        return f"Node({', '.join([repr(self.kind), *given])})"


_LIMITS = (0.0, 2.0, 6.0)
_LEAVES = (
    *(Node("wait", name=SIGNALS[0], seconds=limit) for limit in _LIMITS),
    *(Node("wait", name=name, seconds=limit) for name in SIGNALS for limit in _LIMITS),
    *(Node("step", seconds=seconds) for seconds in (0.0, 0.0, 1.0, 4.0)),
    Node("step", failures=1),
    *(Node("once", seconds=seconds) for seconds in (0.0, 1.0, 4.0)),
    *(Node("book", failures=failures) for failures in (0, 0, 1)),
    *(Node("ask", name=POINTS[0], seconds=limit) for limit in _LIMITS),
    *(Node("ask", name=name, seconds=limit) for name in POINTS for limit in _LIMITS),
    *(Node("sleep", seconds=seconds) for seconds in (0.0, 1.0, 5.0, 50.0)),
    *(Node("tries", seconds=seconds, failures=failures) for seconds in (0.0, 1.0) for failures in (1, 2, 3)),
    *(Node("drain", name=name) for name in (SIGNALS[0], *SIGNALS)),
    *(Node("send", name=name, count=run) for name in SIGNALS for run in (0, 1, 2)),
    *(
        Node("each_step", count=3, limit=2, seconds=seconds, flag=flag)
        for seconds in (0.0, 1.0)
        for flag in (True, False)
    ),
    *(Node("each_step", count=4, failures=failures, flag=flag) for failures in (0, 2) for flag in (True, False)),
)
_WITH_ONE = (
    Node("cleanup"),
    Node("cleanup", seconds=1.0),
    Node("cleanup", failures=1),
    Node("catch"),
    *(Node("limit", seconds=seconds) for seconds in (0.5, 2.0, 6.0)),
    Node("child"),
    Node("child"),
    Node("each_child", count=2),
    Node("each_child", count=3, limit=2, flag=True),
)
_REPEATED = tuple(leaf for leaf in _LEAVES if leaf.kind != "send")  # what became of a message is told by its act
_WITH_TWO = (Node("start"), Node("start", flag=True))
_WITH_SEVERAL = (
    *(Node("sequence", name=name) for name in ("", "here", "there")),
    *(Node(kind) for kind in ("group", "group", "gather", "race", "race")),
)


def _loop(count: int, part: Node) -> Node:
    return Node("loop", (part,), count=count)


def _inner(part: st.SearchStrategy[Node]) -> st.SearchStrategy[Node]:
    one, two, three = st.tuples(part), st.tuples(part, part), st.tuples(part, part, part)
    return st.one_of(
        st.builds(_with_parts, st.sampled_from(_WITH_SEVERAL), two),
        st.builds(_with_parts, st.sampled_from(_WITH_ONE), one),
        st.builds(_with_parts, st.sampled_from(_WITH_SEVERAL), three),
        st.builds(_with_parts, st.sampled_from(_WITH_TWO), two),
        st.builds(_loop, st.sampled_from((2, 3)), st.sampled_from(_REPEATED)),
    )


def _with_parts(node: Node, parts: tuple[Node, ...]) -> Node:
    return replace(node, parts=parts)


def programs() -> st.SearchStrategy[Node]:
    """Programs of one to three acts, of up to about five leaves each; each act does at least one durable call."""
    act = st.recursive(st.sampled_from(_LEAVES), _inner, max_leaves=5)
    acts = st.one_of(st.tuples(act, act), st.tuples(act, act, act), st.tuples(act))
    return st.builds(_with_parts, st.sampled_from(_WITH_SEVERAL[:3]), acts).map(_numbered)


def _numbered(program: Node) -> Node:
    return _with_ids(program, itertools.count(1))


def _with_ids(node: Node, ids: Iterator[int]) -> Node:
    number = next(ids)
    return replace(node, id=number, parts=tuple(_with_ids(part, ids) for part in node.parts))


def name_of(root: str, node: Node, item: int | None = None) -> str:
    """The name of the program that a child run of this node plays; `root` is that of any run above it."""
    base = f"{root.partition(':')[0]}:{node.id}"
    return base if item is None else f"{base}[{item}]"


def by_name(name: str, program: Node) -> Iterator[tuple[str, Node]]:
    """All programs that runs of this one and its children play, by their names."""
    yield name, program
    yield from _below(name, program)


def _below(name: str, node: Node) -> Iterator[tuple[str, Node]]:
    for part in node.parts:
        yield from _below(name, part)
    if node.kind in {"child", "start"}:
        yield name_of(name, node), node.parts[0]
    for item in range(node.count if node.kind == "each_child" else 0):
        yield name_of(name, node, item), node.parts[0]

"""Random bodies that wait: what a program may consist of, and how hypothesis draws one."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace

from hypothesis import strategies as st

__all__ = ["POINTS", "SIGNALS", "Node", "by_name", "name_of", "outline", "programs"]

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
    """How many items; which run a message is for."""
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


_LIMITS = st.sampled_from((0.0, 0.0, 2.0, 6.0))
_STATUSES = st.sampled_from(("", "here", "there"))
_FAILS = st.sampled_from((0, 0, 0, 1))


def _leaves() -> st.SearchStrategy[Node]:
    signal, point = st.sampled_from((SIGNALS[0], *SIGNALS)), st.sampled_from((POINTS[0], *POINTS))
    wait = st.builds(Node, st.just("wait"), name=signal, seconds=_LIMITS)
    ask = st.builds(Node, st.just("ask"), name=point, seconds=_LIMITS)
    return st.one_of(
        wait,
        st.builds(Node, st.just("step"), seconds=st.sampled_from((0.0, 0.0, 1.0, 4.0)), failures=_FAILS),
        ask,
        st.builds(Node, st.just("sleep"), seconds=st.sampled_from((0.0, 1.0, 5.0, 50.0))),
        wait,
        st.builds(
            Node, st.just("tries"), seconds=st.sampled_from((0.0, 1.0)), failures=st.integers(min_value=0, max_value=3)
        ),
        st.builds(Node, st.just("drain"), name=signal),
        st.builds(Node, st.just("send"), name=signal, count=st.integers(min_value=0, max_value=2)),
        st.builds(
            Node,
            st.just("each_step"),
            count=st.integers(min_value=1, max_value=4),
            failures=st.sampled_from((0, 0, 2)),
            limit=st.integers(min_value=0, max_value=2),
            seconds=st.sampled_from((0.0, 1.0)),
            flag=st.booleans(),
        ),
        ask,
    )


def _inner(part: st.SearchStrategy[Node]) -> st.SearchStrategy[Node]:
    one, two = st.tuples(part), st.tuples(part, part)
    several = st.one_of(two, st.tuples(part, part, part))
    return st.one_of(
        st.builds(Node, st.just("sequence"), several, _STATUSES),
        st.builds(Node, st.sampled_from(("group", "gather", "race")), several),
        st.builds(Node, st.just("cleanup"), one, seconds=st.sampled_from((0.0, 1.0)), failures=_FAILS),
        st.builds(Node, st.sampled_from(("child", "catch")), one),
        st.builds(Node, st.just("start"), two, flag=st.booleans()),
        st.builds(
            Node,
            st.just("each_child"),
            one,
            count=st.integers(min_value=1, max_value=3),
            limit=st.integers(min_value=0, max_value=2),
            flag=st.booleans(),
        ),
    )


def programs() -> st.SearchStrategy[Node]:
    """Programs of one to three acts, of up to about five leaves each; each act does at least one durable call."""
    act = st.recursive(_leaves(), _inner, max_leaves=5)
    acts = st.one_of(st.tuples(act, act), st.tuples(act, act, act), st.tuples(act))
    return st.builds(Node, st.just("sequence"), acts, _STATUSES).map(_numbered)


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


def outline(node: Node, *, indent: str = "") -> str:
    """A program for people to read, one act a line."""
    extras = (node.name, f"{node.seconds:g}s" if node.seconds else "", f"x{node.count}" if node.count else "")
    fails = f"fails {node.failures}" if node.failures else ""
    words = (node.kind, str(node.id), *extras, fails, f"at most {node.limit}" if node.limit else "", "*" * node.flag)
    return "\n".join([indent + " ".join(word for word in words if word), *(outline(p, indent=indent + "  ") for p in node.parts)])

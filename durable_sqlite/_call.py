"""One durable call of a body while it is open, and how a body awaits it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextvars import Context
from dataclasses import dataclass
from types import CodeType
from typing import Any, Protocol

from ._body_loop import BodyTimer
from ._records import Kind, Wait
from ._specs import StepCall, Until, Wish

__all__ = ["OWN_CALLS", "Call", "awaiting", "fanning_out"]


@dataclass(slots=True, eq=False)
class Call:
    """A durable call, from the moment its key is fixed until its outcome is given or it is given up."""

    key: str
    kind: Kind
    name: str
    digest: bytes = b""
    step: StepCall | None = None
    context: Context | None = None
    """The caller's, for a step's body to run in a copy of."""
    wish: Wish | None = None
    """Set where it is neither a step nor a wait for time alone."""
    target: str | None = None
    """The id of the run whose end it waits for, once that is known."""
    delay: Until | None = None
    """Makes the deadline from the body's time."""
    deadline: int | None = None
    timer: BodyTimer | None = None
    """Set where asyncio itself waits: the timer whose callback runs."""
    future: asyncio.Future[Any] | None = None
    asked: int = 0
    since: int = 0
    attempt: int = 1
    """The number of the attempt that is made, or will be."""
    began: int = 0
    """When the first attempt began; 0 before."""
    cut_off: bool = False
    """A step whose next attempt may have begun in a process that left the run in the middle, and has not begun here."""
    given_up: bool = False
    """The body no longer waits for it."""

    def as_wait(self) -> Wait:
        """As the journal keeps it while the run is suspended."""
        return Wait(self.key, self.kind, self.name, self.since, self.deadline, self.target)


class _Desk(Protocol):
    def register(self, call: Call) -> asyncio.Future[Any]:
        """Note that the body waits for `call`."""
        ...

    def give_up(self, call: Call) -> None:
        """Note that the body no longer waits for `call`."""
        ...

    def awaited(self, call: Call) -> None:
        """Note that what was called is awaited by now."""
        ...


async def awaiting(desk: _Desk, call: Call) -> Any:
    """Wait for a call's outcome. A task that only wraps this is no branch of its own."""
    future = desk.register(call)
    try:
        return await future
    except asyncio.CancelledError:
        desk.give_up(call)
        raise


async def fanning_out(desk: _Desk, whole: Call, parts: Iterator[Call], limit: int, *, collect: bool) -> list[Any]:
    """Wait for the outcomes of many calls, at most `limit` of them open at once; in the order of the calls.

    Args:
        desk: Where calls are registered.
        whole: Stands for all of them until it is awaited.
        parts: Makes the calls, one after the other.
        limit: How many may be open.
        collect: Put errors in the place of results. Else the first error is raised, and what is open is given up.
    """
    desk.awaited(whole)
    fan = _Fan(desk, parts, collect=collect)
    try:
        while fan.open(limit):
            await fan.landing()
            fan.collect()
    except (Exception, asyncio.CancelledError):
        fan.give_up()
        raise
    return fan.results


class _Fan:
    """The calls of one fan-out: which are open, which have landed, and what they brought."""

    def __init__(self, desk: _Desk, parts: Iterator[Call], *, collect: bool) -> None:
        self.results: list[Any] = []
        self._desk = desk
        self._parts = parts
        self._collect = collect
        self._places: dict[asyncio.Future[Any], tuple[int, Call]] = {}
        self._landed: list[asyncio.Future[Any]] = []
        self._news: asyncio.Future[None] | None = None

    def open(self, limit: int) -> bool:
        """Open calls until there are `limit`; whether any is open."""
        while len(self._places) < limit and (part := next(self._parts, None)) is not None:
            future = self._desk.register(part)
            self._places[future] = (len(self.results), part)
            self.results.append(None)
            future.add_done_callback(self._land)
        return bool(self._places)

    def landing(self) -> asyncio.Future[None]:
        """Done once a call has landed."""
        self._news = asyncio.get_running_loop().create_future()
        if self._landed:
            self._news.set_result(None)
        return self._news

    def collect(self) -> None:
        """Put what has landed in its place; raise the first error, unless errors are collected as well."""
        landed, self._landed = self._landed, []
        for future in landed:
            place, _ = self._places.pop(future)
            error = future.exception()
            self.results[place] = error if error is not None and self._collect else future.result()

    def give_up(self) -> None:
        """Nobody waits for what is open any more."""
        for _, part in self._places.values():
            self._desk.give_up(part)

    def _land(self, future: asyncio.Future[Any]) -> None:
        self._landed.append(future)
        if self._news is not None and not self._news.done():
            self._news.set_result(None)


OWN_CALLS: frozenset[CodeType] = frozenset({awaiting.__code__, fanning_out.__code__})

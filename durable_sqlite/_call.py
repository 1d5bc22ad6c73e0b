"""One durable call of a body while it is open, and how a body awaits it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import Context
from dataclasses import dataclass
from types import CodeType
from typing import Any, Protocol

from ._body_loop import BodyTimer
from ._context import StepCall
from ._records import Kind, Wait
from ._replay import Asked

__all__ = ["OWN_CALLS", "Call", "awaiting"]


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
    delay: Callable[[int], int] | None = None
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

    def compared(self) -> Asked:
        """As far as it is held against the journal."""
        return Asked(self.key, self.kind, self.name, self.digest)

    def as_wait(self) -> Wait:
        """As the journal keeps it while the run is suspended."""
        return Wait(self.key, self.kind, self.name, self.since, self.deadline)


class _Desk(Protocol):
    def register(self, call: Call) -> asyncio.Future[Any]:
        """Note that the body waits for `call`."""
        ...

    def give_up(self, call: Call) -> None:
        """Note that the body no longer waits for `call`."""
        ...


async def awaiting(desk: _Desk, call: Call) -> Any:
    """Wait for a call's outcome. A task that only wraps this is no branch of its own."""
    future = desk.register(call)
    try:
        return await future
    except asyncio.CancelledError:
        desk.give_up(call)
        raise


OWN_CALLS: frozenset[CodeType] = frozenset({awaiting.__code__})

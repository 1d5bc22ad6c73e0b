"""Bodies for the model: programs on asyncio's own tasks, whose durable calls are futures that the model resolves."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Collection
from contextlib import asynccontextmanager
from contextvars import ContextVar, copy_context
from dataclasses import dataclass, field
from typing import Any

from .acts import Acts
from .facts import Fact
from .programs import Node

__all__ = ["Body", "Call", "branching"]

_CALLS = {
    "step": ("step", "work"),
    "cleanup": ("step", "work"),
    "tries": ("step", "tries"),
    "limit": ("timer", "asyncio.timeout"),
    "once": ("step", "once"),
    "book": ("transaction", "book"),
    "each_step": ("step", "item"),
    "sleep": ("sleep", "sleep"),
    "wait": ("signal", ""),
    "drain": ("drain", ""),
    "ask": ("question", ""),
    "send": ("act", "signal"),
    "start": ("act", "wait-and-play"),
    "child": ("child", "wait-and-play"),
    "each_child": ("child", "wait-and-play"),
}
"""Kind and name of the entry that each kind of act leaves; without a name it is the act's own."""
_ERRORS = {
    state: type(name, (Exception,), {})
    for state, name in (("", "StepFailed"), ("failed", "RunFailed"), ("cancelled", "RunCancelled"))
}
"""What a call raises: a step, or one that waits for a run that ended so."""


@dataclass(eq=False, slots=True)
class Call:
    """A durable call that a body waits for."""

    key: str
    kind: str
    name: str
    node: Node
    since: int
    deadline: int | None
    number: int
    """Which item of a fan-out."""
    future: asyncio.Future[Any] = field(repr=False)


@dataclass(slots=True)
class _Branch:
    path: str = ""
    counts: Counter[str] = field(default_factory=Counter[str])


_branch: ContextVar[_Branch] = ContextVar("branch")


def branching(loop: asyncio.AbstractEventLoop, coro: Any, **how: Any) -> asyncio.Task[Any]:
    """A task factory: each task that a body creates is a branch, numbered by its parent."""
    here, context = _branch.get(), copy_context()
    number, here.counts[""] = here.counts[""], here.counts[""] + 1
    context.run(_branch.set, _Branch(f"{here.path}.{number}".removeprefix(".")))
    return asyncio.Task(coro, loop=loop, name=how.get("name"), context=context)


class Body:
    """One run's body, and the durable calls that it waits for.

    Args:
        program: What it plays.
        at: When the run was created.
        loop: Runs until nothing in it is ready; its tasks are made by `branching`.
        given_up: Is told of each call that the body no longer waits for.
    """

    def __init__(
        self, program: Node, at: int, loop: asyncio.AbstractEventLoop, given_up: Callable[[Call], object]
    ) -> None:
        self.open: dict[str, Call] = {}
        """By key, in the order in which they were asked."""
        self.said: tuple[int, frozenset[str | None]] = (0, frozenset({None}))
        """The statuses that were set last, after how many outcomes; branches may have set several there."""
        self.clock = at
        """The time of the last outcome."""
        self.place = 0
        """How many outcomes it was given."""
        self._program, self._created, self._loop, self._given_up = program, at, loop, given_up
        self._facts: list[Fact] = []
        self._over = False
        self._main = self._begin()

    # For the model ---------------------------------------------------------------------------------------------------

    def give(self, fact: Fact) -> None:
        """Give it an outcome; one that no call waits for tells it to end."""
        self._facts.append(fact)
        self._give(fact)

    def take_back(self) -> Fact:
        """Begin again, and give all outcomes but the last."""
        last = self._facts.pop()
        self.open, self.clock, self.place, self.said = {}, self._created, 0, (0, frozenset({None}))
        self._main = self._begin()
        for fact in self._facts:
            self._give(fact)
        return last

    @property
    def ending(self) -> tuple[str, Any] | None:
        """How it has ended: `returned` with what, `raised`, or `told` to end."""
        if not self._main.done():
            return None
        if self._main.cancelled():
            return "told", None
        return ("returned", self._main.result()) if self._main.exception() is None else ("raised", None)

    def put_away(self) -> None:
        """Let nothing of it go on."""
        self._over = True
        for call in list(self.open.values()):
            call.future.cancel()
        self._loop.run_forever()
        self.open.clear()

    # For its program -------------------------------------------------------------------------------------------------

    async def leaf(self, node: Node) -> Any:
        return await self._wait(self._call(node))

    async def start(self, node: Node) -> Any:
        call = self._call(node)
        await self._wait(call)
        return call

    async def result(self, started: Call) -> Any:
        key = self._key("result")
        return await self._wait(self._call(started.node, key, kind="run", name=started.key))

    async def each(self, node: Node) -> list[Any]:
        key, calls, left = self._key(_CALLS[node.kind][1]), list[Call](), range(node.count)
        while True:
            free = (node.limit or node.count) - sum(not call.future.done() for call in calls)
            calls += [self._call(node, f"{key}[{number}]", number) for number in left[len(calls) :][:free]]
            waiting = [call.future for call in calls if not call.future.done()]
            if not waiting:
                return [call.future.exception() or call.future.result() for call in calls]
            try:
                await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                failed = next((one.exception() for one in waiting if one.done() and one.exception()), None)
                if failed is not None and not node.flag:
                    raise failed  # noqa: TRY301 - what is open is given up below
            except (Exception, asyncio.CancelledError):
                self._give_up([call for call in calls if not call.future.done()])
                raise

    @asynccontextmanager
    async def limit(self, node: Node) -> AsyncGenerator[None, None]:
        """What `asyncio.timeout` does, with a call in the place of its timer."""
        task = asyncio.current_task()
        assert task is not None
        call, before, expired = self._call(node), task.cancelling(), list[bool]()

        def ring(timer: asyncio.Future[Any]) -> None:
            if not timer.cancelled():
                expired.append(True)
                task.cancel()

        call.future.add_done_callback(ring)
        try:
            yield
        except asyncio.CancelledError as error:
            if expired and task.uncancel() <= before:
                raise TimeoutError from error
            raise
        except BaseException:
            if expired:
                task.uncancel()
            raise
        else:
            if expired:
                task.uncancel()
        finally:
            call.future.remove_done_callback(ring)
            self._give_up([call])

    def say(self, status: str) -> None:
        here, known = self.said
        self.said = (self.place, frozenset({status}) | (known if here == self.place else frozenset()))

    # Inner part ------------------------------------------------------------------------------------------------------

    def _begin(self) -> asyncio.Task[Any]:
        context = copy_context()
        context.run(_branch.set, _Branch())
        main = asyncio.Task(Acts(self).go(self._program), loop=self._loop, context=context)
        self._loop.run_forever()
        return main

    def _give(self, fact: Fact) -> None:
        self.clock, self.place = fact.at, self.place + 1
        call = self.open.pop(fact.key, None)
        if call is None:
            self._main.cancel()
        elif fact.outcome == "error":
            call.future.set_exception(_ERRORS[fact.value]())
        else:
            call.future.set_result(fact.value)
        self._loop.run_forever()

    def _key(self, name: str) -> str:
        branch = _branch.get()
        branch.counts[name] += 1
        return f"{branch.path}/{name}#{branch.counts[name]}".removeprefix("/")

    def _call(self, node: Node, key: str = "", number: int = 0, *, kind: str = "", name: str = "") -> Call:
        if self._over:
            raise asyncio.CancelledError
        usual, called = _CALLS[node.kind]
        kind, name = kind or usual, name or called or node.name
        timed = kind in {"sleep", "timer"} or (kind in {"signal", "question"} and node.seconds)
        deadline = self.clock + round(node.seconds * 1_000_000) if timed else None
        key = key or self._key(name)
        self.open[key] = call = Call(key, kind, name, node, self.clock, deadline, number, self._loop.create_future())
        return call

    async def _wait(self, call: Call) -> Any:
        try:
            return await call.future
        except asyncio.CancelledError:
            self._give_up([call])
            raise

    def _give_up(self, calls: Collection[Call]) -> None:
        for call in calls:
            if self.open.pop(call.key, None) is not None and not self._over:
                self._given_up(call)

"""What each act of a program does, written as people write bodies: in plain asyncio, and in calls of the library.

The plain part is shared with the model, where asyncio itself says what a body does and only the calls are stand-ins.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from typing import Any, Literal, Protocol

from durable_sqlite import (
    Done,
    NotDone,
    Retry,
    Run,
    Signal,
    SignalRejected,
    Suspend,
    Tx,
    UnknownRun,
    Workflow,
    current_run,
    current_step,
    each,
    set_status,
    sleep,
    step,
    transaction,
    workflow,
)
from durable_sqlite._context import StepInfo

from .programs import Node, name_of

__all__ = ["POINTS", "SIGNALS", "Acts", "Calls", "Choice", "Ping", "Scene", "Stage"]


class Ping(Signal, name="waiting-ping"):
    n: str


class Pong(Signal, name="waiting-pong"):
    n: str


class Choice(Suspend[int], name="waiting-choice"):
    node: int


class Consent(Suspend[int], name="waiting-consent"):
    node: int


SIGNALS: dict[str, type[Ping | Pong]] = {"waiting-ping": Ping, "waiting-pong": Pong}
POINTS: dict[str, type[Choice | Consent]] = {"waiting-choice": Choice, "waiting-consent": Consent}


class Scene(Protocol):
    """What programs and steps ask of the world in which they are played."""

    def program(self, name: str) -> Node:
        """The program of this name."""
        ...

    def began(self, info: StepInfo) -> None:
        """An attempt's body begins."""
        ...

    def gone(self, info: StepInfo, *, performed: bool) -> None:
        """An attempt's body is over; if `performed`, its effect has happened."""
        ...

    def had_effect(self, info: StepInfo) -> bool:
        """Whether the effect of a step has happened."""
        ...


class Calls(Protocol):
    """Durable calls, made by the library or stood in for by the model."""

    async def leaf(self, node: Node) -> Any:
        """One call that is waited for."""
        ...

    async def start(self, node: Node) -> Any:
        """Start a run; what `result` takes."""
        ...

    async def result(self, started: Any) -> Any:
        """Wait for a run that was started."""
        ...

    async def each(self, node: Node) -> list[Any]:
        """One call for each item."""
        ...

    def limit(self, node: Node) -> AbstractAsyncContextManager[object]:
        """A time limit, as `asyncio.timeout` is one."""
        ...

    def say(self, status: str) -> None:
        """Set the status."""
        ...


class Acts:
    """Plays programs: the part of them that is plain asyncio."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    async def go(self, node: Node) -> Any:  # noqa: C901, PLR0911, PLR0912 - one case for each kind of act
        """Play one act."""
        match node.kind:
            case "sequence":
                if node.name:
                    self._calls.say(node.name)
                return [await self.go(part) for part in node.parts]
            case "limit":
                try:
                    async with self._calls.limit(node):
                        return await self.go(node.parts[0])
                except TimeoutError:
                    return "late"
            case "loop":
                return [await self.go(node.parts[0]) for _ in range(node.count)]
            case "group":
                async with asyncio.TaskGroup() as group:
                    tasks = [group.create_task(self.go(part)) for part in node.parts]
                return [task.result() for task in tasks]
            case "gather":
                results = await asyncio.gather(*map(self.go, node.parts), return_exceptions=True)
                return [_shown(result) for result in results]
            case "race":
                return await self._race(node)
            case "cleanup":
                try:
                    return await self.go(node.parts[0])
                finally:
                    await self._calls.leaf(node)
            case "catch":
                try:
                    return await self.go(node.parts[0])
                except Exception as error:
                    return _shown(error)
            case "start":
                started = await self._calls.start(node)
                return [await self.go(node.parts[1]), await self._calls.result(started)]
            case "each_step" | "each_child":
                return [_shown(result) for result in await self._calls.each(node)]
            case _:
                return await self._calls.leaf(node)

    async def _race(self, node: Node) -> Any:
        """The first one wins; the others are told to end, and are waited for even when this branch is told as well."""
        tasks = [asyncio.create_task(self.go(part)) for part in node.parts]
        told: asyncio.CancelledError | None = None
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError as error:
            told = error
        place = next((place for place, task in enumerate(tasks) if task.done()), 0)
        for task in tasks:
            task.cancel()
        while left := [task for task in tasks if not task.done()]:
            try:
                await asyncio.wait(left)
            except asyncio.CancelledError as error:
                told = error
        errors = [None if task.cancelled() else task.exception() for task in tasks]
        if told is not None:
            raise told
        failed = errors[place]
        if failed is not None:
            raise failed
        return [place, tasks[place].result()]


def _shown(result: Any) -> Any:
    return type(result).__name__ if isinstance(result, Exception) else result


class Stage:
    """The one workflow and its steps. `scene` is the world in which they are played just now."""

    scene: Scene

    def __init__(self) -> None:
        steps = _Steps(lambda: self.scene)

        @workflow(name="wait-and-play")
        async def play(name: str) -> Any:
            return await Acts(_Library(steps, self.workflow, name)).go(self.scene.program(name))

        self.workflow: Workflow[[str], Any] = play


class _Steps:
    """The steps, as methods of whatever knows the scene."""

    def __init__(self, scene: Callable[[], Scene]) -> None:
        self._scene = scene

    async def _work(self, x: int, seconds: float, failures: int) -> int:
        info = current_step()
        performed = False
        self._scene().began(info)
        try:
            await asyncio.sleep(seconds)
            performed = True
        finally:
            self._scene().gone(info, performed=performed)
        if info.attempt <= failures:
            raise OSError(info.attempt)
        return x

    @step
    async def work(self, x: int, seconds: float, failures: int) -> int:
        return await self._work(x, seconds, failures)

    @step(retry=Retry.fixed(3.0, max_attempts=3))
    async def tries(self, x: int, seconds: float, failures: int) -> int:
        return await self._work(x, seconds, failures)

    async def _ask_the_scene(self, x: int, _seconds: float) -> Done[int] | NotDone:
        return Done(x) if self._scene().had_effect(current_step()) else NotDone()

    @step(at_most_once=True, probe=_ask_the_scene)
    async def once(self, x: int, seconds: float) -> int:
        return await self._work(x, seconds, 0)

    @step
    async def item(self, what: tuple[int, float, int]) -> int:
        return await self._work(*what)


@transaction
def book(tx: Tx, x: int, failures: int) -> int:
    """A row that is there if and only if the outcome is."""
    here = current_step()
    tx.execute("INSERT INTO bookings (run, key) VALUES (?, ?)", (here.run_id, here.key))
    if failures:
        raise OSError(x)
    return x


class _Library:
    """Durable calls as the library makes them."""

    def __init__(self, steps: _Steps, play: Workflow[[str], Any], name: str) -> None:
        self._steps = steps
        self._play = play
        self._name = name

    async def leaf(self, node: Node) -> Any:  # noqa: PLR0911 - one case for each kind of leaf
        match node.kind:
            case "step" | "cleanup":
                return await self._steps.work(node.id, node.seconds, node.failures)
            case "tries":
                return await self._steps.tries(node.id, node.seconds, node.failures)
            case "once":
                return await self._steps.once(node.id, node.seconds)
            case "book":
                return await book(node.id, node.failures)
            case "sleep":
                await sleep(node.seconds)
                return None
            case "wait":
                signal = SIGNALS[node.name]
                message = await (signal.wait(timeout=node.seconds) if node.seconds else signal.wait())
                return None if message is None else message.n
            case "drain":
                return [message.n for message in await SIGNALS[node.name].drain()]
            case "ask":
                question = POINTS[node.name](node=node.id)
                return await (question.wait(timeout=node.seconds) if node.seconds else question)
            case "send":
                return await self._send(node)
            case _:
                return await self._play(name_of(self._name, node))

    async def _send(self, node: Node) -> str:
        message = SIGNALS[node.name](n=f"{current_run().run_id}#{node.id}")
        try:
            await self._play.run(f"run-{node.count}").signal(message)
        except (SignalRejected, UnknownRun) as error:
            return type(error).__name__
        return "accepted"

    async def start(self, node: Node) -> Run[Any]:
        return await self._play.options(detached=node.flag).start(name_of(self._name, node))

    async def result(self, started: Run[Any]) -> Any:
        return await started.result()

    async def each(self, node: Node) -> list[Any]:
        if node.kind == "each_child":
            return await self._each(self._play, [name_of(self._name, node, k) for k in range(node.count)], node)
        items = [(10 * node.id + k, node.seconds, int(k + 1 == node.failures)) for k in range(node.count)]
        return await self._each(self._steps.item, items, node)

    async def _each(self, fn: Callable[[Any], Coroutine[Any, Any, Any]], items: list[Any], node: Node) -> list[Any]:
        how: Literal["collect", "fail"] = "collect" if node.flag else "fail"
        if how == "collect":
            return await each(fn, items, concurrency=node.limit or None, on_error=how)
        return await each(fn, items, concurrency=node.limit or None, on_error=how)

    def limit(self, node: Node) -> AbstractAsyncContextManager[object]:
        return asyncio.timeout(node.seconds)

    def say(self, status: str) -> None:
        set_status(status)

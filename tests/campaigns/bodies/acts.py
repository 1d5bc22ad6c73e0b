"""What each act of a program does, written as people write bodies."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextvars import ContextVar
from types import TracebackType
from typing import Any

from durable_sqlite import Retry, StepFailed, Workflow, current_run, now, random, sleep, uuid, workflow
from durable_sqlite._context import Body

from .programs import Node
from .steps import Refused, Scene, Steps

__all__ = ["Stage"]


class Stage:
    """The one workflow and its steps. `scene` is the world in which they are played just now."""

    scene: Scene

    def __init__(self) -> None:
        steps = Steps(lambda: self.scene)

        @workflow(name="play")
        async def play(run: str) -> Any:
            acts = _Acts(steps, self.scene, current_run())
            return await acts.go(self.scene.program(run))

        self.workflow: Workflow[[str], Any] = play


_Act = Callable[[Node], Awaitable[Any]]
_ONCE_MORE = Retry.fixed(1.5, max_attempts=2)
_limited: ContextVar[bool] = ContextVar("limited", default=False)
"""Whether a time limit is around."""


class _MendedGroup(asyncio.TaskGroup):
    """A TaskGroup that takes back its own request to cancel its parent, as that of Python 3.13 does.

    Before 3.13, a branch that fails while the group waits leaves `cancelling()` of the parent at 1 for good, and then an
    `asyncio.timeout` around the group lets its CancelledError out instead of making it a TimeoutError. So within a time
    limit programs use this one, elsewhere asyncio's own.
    """

    _parent_cancel_requested: bool
    _parent_task: asyncio.Task[Any] | None

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        asked_before = self._parent_cancel_requested
        try:
            await super().__aexit__(kind, error, traceback)
        finally:
            if sys.version_info < (3, 13) and self._parent_cancel_requested and not asked_before:
                assert self._parent_task is not None
                self._parent_task.uncancel()


def _group() -> asyncio.TaskGroup:
    return _MendedGroup() if _limited.get() else asyncio.TaskGroup()


class _Leaves:
    """Acts without parts. One method for each kind, of its name."""

    def __init__(self, steps: Steps, scene: Scene, body: Body) -> None:
        self._steps = steps
        self._scene = scene
        self._body = body
        self._acts_over = 0
        self._mutex = asyncio.Lock()

    def note(self, what: str) -> None:
        if not self._body.unloading:
            self._scene.saw(self._body, what)

    async def decide(self, node: Node, *, first: bool) -> int:
        """An effect that may happen in one way or the other, never in both."""
        return await self._steps.arm(node.id, 1 if first else -1)

    async def step(self, node: Node) -> Any:
        return await self._steps.ok(node.id)

    async def stubborn(self, node: Node) -> Any:
        return await self._steps.stubborn(node.id)

    async def mule(self, node: Node) -> Any:
        return await self._steps.mule(node.id)

    async def boom(self, node: Node) -> Any:
        boom = self._steps.boom.options(retry=_ONCE_MORE) if node.failures % 2 else self._steps.boom
        try:
            return await boom(node.id)
        except StepFailed as error:
            return str(error)

    async def declared(self, node: Node) -> Any:
        try:
            return await self._steps.declared(node.id)
        except Refused as error:
            return error.x

    async def quits(self, node: Node) -> Any:
        try:
            return await self._steps.quits(node.id)
        except StepFailed as error:
            return error.type

    async def flaky(self, node: Node) -> Any:
        return await self._tried(self._steps.flaky(node.id, node.failures))

    async def healing(self, node: Node) -> Any:
        return await self._tried(self._steps.healing(node.id, node.failures))

    async def asking(self, node: Node) -> Any:
        return await self._tried(self._steps.asking(node.id, node.failures))

    async def tardy(self, node: Node) -> Any:
        return await self._tried(self._steps.tardy(node.id))

    async def lingering(self, node: Node) -> Any:
        return await self._tried(self._steps.lingering(node.id))

    async def haunting(self, node: Node) -> Any:
        return await self._tried(self._steps.haunting(node.id))

    async def _tried(self, call: Awaitable[int]) -> Any:
        try:
            return await call
        except StepFailed as error:
            return [error.type, error.attempts, error.reason]

    async def sleep(self, node: Node) -> Any:
        await sleep(node.seconds)

    async def pause(self, node: Node) -> Any:
        return await asyncio.sleep(node.seconds, node.id)

    async def zero(self, node: Node) -> Any:
        await asyncio.sleep(0)
        return node.id

    async def parity(self, node: Node) -> Any:
        return await self.decide(node, first=self._acts_over % 2 == 0)

    async def queue(self, node: Node) -> Any:
        queue: asyncio.Queue[int] = asyncio.Queue()

        async def produce() -> None:
            for k in range(2):
                await queue.put(await self._steps.ok(node.id * 10 + k))

        async def consume() -> list[int]:
            return [await self._steps.ok(await queue.get()) for _ in range(2)]

        return (await asyncio.gather(produce(), consume()))[1]

    async def generator(self, node: Node) -> Any:
        async def numbers() -> AsyncGenerator[int, None]:
            try:
                for k in range(3):
                    yield await self._steps.ok(node.id + k)
            finally:
                self.note(f"closing generator {node.id}")
                await self._steps.ok(-node.id)
                self.note(f"closed generator {node.id}")

        async for number in numbers():
            return number  # left open: closed in its turn when the body ends
        return None

    async def keyed(self, node: Node) -> Any:
        return await self._steps.ok.options(key=f"mine-{node.id}")(node.id)

    async def chance(self, node: Node) -> Any:
        self.note(f"{uuid()} {random().random()} {now()}")
        return await self._steps.stamp(uuid(), random().random(), now())

    async def shared(self, node: Node) -> Any:
        ledger = await self._steps.ledger(node.id)
        self.note(f"ledger {ledger}")
        return [await self._steps.ledger(-node.id), ledger]

    async def handover(self, node: Node) -> Any:
        event = asyncio.Event()

        async def late() -> int:
            await event.wait()
            return await self._steps.ok(node.id)

        async def early() -> int:
            x = await self._steps.ok(-node.id)
            event.set()
            return x

        return await asyncio.gather(late(), early())

    async def direct(self, node: Node) -> Any:
        first, last = self._steps.ok(node.id), self._steps.ok(-node.id)
        if node.flag:
            return [await last, await first]
        return await asyncio.gather(first, sleep(node.seconds), last)


class _Acts(_Leaves):
    """Acts with parts."""

    async def go(self, node: Node) -> Any:
        """Play one act, and note what the body saw of it."""
        act: _Act = getattr(self, node.kind)
        self.note(f"+{node.kind} {node.id}")
        try:
            value = await act(node)
        except BaseException as error:
            self.note(f"!{node.kind} {node.id} {type(error).__name__}")
            raise
        self.note(f"-{node.kind} {node.id} {value!r}")
        self._acts_over += 1
        return value

    def _spawn(self, node: Node) -> list[asyncio.Task[Any]]:
        return [asyncio.create_task(self.go(part)) for part in node.parts]

    async def sequence(self, node: Node) -> Any:
        return [await self.go(part) for part in node.parts]

    async def gather(self, node: Node) -> Any:
        found = await asyncio.gather(*map(self.go, node.parts), return_exceptions=node.flag)
        return [type(x).__name__ if isinstance(x, BaseException) else x for x in found]

    async def group(self, node: Node) -> Any:
        try:
            async with _group() as group:
                tasks = [group.create_task(self.go(part)) for part in node.parts]
        except BaseExceptionGroup as error:
            self.note(f"group {[type(x).__name__ for x in error.exceptions]}")
            return "group"
        return [task.result() for task in tasks]

    async def failing_group(self, node: Node) -> Any:
        async def fail() -> None:
            await self._steps.ok(node.id)
            self.note(f"failing {node.id}")
            raise ValueError(node.id)

        try:
            async with _group() as group:
                for part in node.parts:
                    group.create_task(self.go(part))
                group.create_task(fail())
                if node.flag:
                    await self._steps.ok(-node.id)
        except* ValueError:
            pass
        return "aborted"

    async def timeout(self, node: Node) -> Any:
        token = _limited.set(True)
        try:
            async with asyncio.timeout(node.seconds):
                return await self.go(node.parts[0])
        except TimeoutError:
            return "timeout"
        finally:
            _limited.reset(token)

    async def wait_for(self, node: Node) -> Any:
        token = _limited.set(True)
        try:
            return await asyncio.wait_for(self.go(node.parts[0]), node.seconds)
        except TimeoutError:
            return "timeout"
        finally:
            _limited.reset(token)

    async def shield(self, node: Node) -> Any:
        task = asyncio.create_task(self.go(node.parts[0]))
        try:
            return await asyncio.wait_for(asyncio.shield(task), node.seconds)
        except TimeoutError:
            self.note(f"shield {node.id} over")
            return await task
        except asyncio.CancelledError:
            task.cancel()
            raise

    async def cleanup(self, node: Node) -> Any:
        try:
            return await self.go(node.parts[0])
        finally:
            await self._steps.ok(node.id)
            self.note(f"clean {node.id}")

    async def catch(self, node: Node) -> Any:
        try:
            return await self.go(node.parts[0])
        except asyncio.CancelledError:
            self.note(f"caught {node.id}")
            await self._steps.ok(node.id)
            raise

    async def swallow(self, node: Node) -> Any:
        try:
            return await self.go(node.parts[0])
        except BaseException as error:
            self.note(f"swallowed {type(error).__name__}")
            return "swallowed"

    async def race(self, node: Node) -> Any:
        tasks = self._spawn(node)
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            winner = next(task for task in tasks if task.done())
        finally:
            for task in tasks:
                task.cancel()
        await asyncio.wait(tasks)
        return [tasks.index(winner), winner.result()]

    async def first(self, node: Node) -> Any:
        tasks = self._spawn(node)
        try:
            done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            raise
        winners = sorted(tasks.index(task) for task in done)
        if node.flag:
            for task in pending:  # in the order of a set
                task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return [winners, await self.decide(node, first=winners[0] == 0)]

    async def as_completed(self, node: Node) -> Any:
        tasks = self._spawn(node)
        try:
            return [await task for task in asyncio.as_completed(tasks)]
        finally:
            for task in tasks:
                task.cancel()

    async def lock(self, node: Node) -> Any:
        async with self._mutex:
            value = await self._steps.ok(node.id)
        return [value, await self.go(node.parts[0])]

    async def elapsed(self, node: Node) -> Any:
        loop = asyncio.get_running_loop()
        before = loop.time()
        await self.go(node.parts[0])
        length = loop.time() - before
        self.note(f"elapsed {length:.6f}")
        return await self.decide(node, first=length > 1.0)

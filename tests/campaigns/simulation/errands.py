"""What runs do, and what each must come to whatever happens: a script is a list of acts, each a list with its name first."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from durable_sqlite import (
    Done,
    NotDone,
    Retry,
    Signal,
    Suspend,
    Tx,
    Unknown,
    Workflow,
    current_run,
    current_step,
    sleep,
    step,
    transaction,
    workflow,
)
from durable_sqlite._context import StepInfo

__all__ = ["Act", "Letter", "Scene", "Stage", "Whether", "acts_in", "come_to", "set_up"]

Act = list[Any]


class Letter(Signal, name="simulation-letter"):
    n: int


class Never(Signal, name="simulation-never"):
    """Nobody sends it."""


class Whether(Suspend[int], name="simulation-whether"):
    n: int


class Scene(Protocol):
    """What steps ask of the world in which they are played."""

    def duration(self) -> float:
        """How long the next attempt takes."""
        ...

    def began(self, info: StepInfo) -> None:
        """An attempt's body begins."""
        ...

    def effect(self, info: StepInfo, value: int) -> None:
        """It has its effect, and would return this."""
        ...

    def gone(self, info: StepInfo) -> None:
        """Its body is over."""
        ...

    def probe(self, info: StepInfo) -> Done[int] | NotDone | Unknown:
        """What became of an attempt that began before."""
        ...


class _Stumbled(Exception):
    """The first attempt."""


class _Steps:
    """The steps, as methods of whatever knows the scene."""

    def __init__(self, scene: Callable[[], Scene]) -> None:
        self._scene = scene

    async def _work(self, value: int) -> int:
        info = current_step()
        self._scene().began(info)
        try:
            await asyncio.sleep(self._scene().duration())
            self._scene().effect(info, value)
        finally:
            self._scene().gone(info)
        return value

    @step
    async def walk(self, n: int) -> int:
        return await self._work(n + 1)

    @step(retry=Retry(max_attempts=5, initial_delay=0.2, jitter=0.5, on=_Stumbled))
    async def climb(self, n: int) -> int:
        value = await self._work(n + 3)
        if current_step().attempt == 1:
            raise _Stumbled
        return value

    async def _ask_the_world(self, _n: int) -> Done[int] | NotDone | Unknown:
        return self._scene().probe(current_step())

    @step(at_most_once=True, probe=_ask_the_world)
    async def launch(self, n: int) -> int:
        return await self._work(7 * n)

    @step(at_most_once=True)
    async def leap(self, n: int) -> int:
        return await self._work(11 * n)


@transaction
def book(tx: Tx, n: int) -> int:
    here = current_step()
    tx.execute("INSERT INTO bookings (run, key) VALUES (?, ?)", (here.run_id, here.key))
    return n + 7


def set_up(tx: Tx) -> None:
    """A table without any rule that would hide a second row."""
    tx.execute("CREATE TABLE bookings (run TEXT NOT NULL, key TEXT NOT NULL)")


class Stage:
    """The one workflow and its steps. `scene` is the world in which they are played just now."""

    scene: Scene

    def __init__(self) -> None:
        self._steps = _Steps(lambda: self.scene)

        @workflow(name="simulation-errand")
        async def errand(script: list[Act]) -> list[Any]:
            return [await self._act(*act) for act in script]

        self.workflow: Workflow[[list[Act]], list[Any]] = errand

    async def _act(self, kind: str, n: int, *parts: Any) -> Any:  # noqa: PLR0911 - one case for each kind of act
        match kind:
            case "nap":
                return await sleep(parts[0])
            case "letter":
                return (await Letter.wait()).n
            case "ask":
                return await Whether(n=n).wait()
            case "late":
                try:
                    async with asyncio.timeout(parts[0]):
                        return await Never.wait()
                except TimeoutError:
                    return "late"
            case "child":
                return await self.workflow.options(id=f"{current_run().run_id}.{n}")(parts[0])
            case "fork":
                async with asyncio.TaskGroup() as group:
                    ways = [group.create_task(self.workflow.fn(part)) for part in parts]
                return [way.result() for way in ways]
            case "book":
                return await book(n)
            case _:
                return await getattr(self._steps, kind)(n)


# What they come to ---------------------------------------------------------------------------------------------------

_VALUES: dict[str, Callable[[int], Any]] = {
    "walk": lambda n: n + 1,
    "climb": lambda n: n + 3,
    "launch": lambda n: 7 * n,
    "leap": lambda n: 11 * n,
    "book": lambda n: n + 7,
    "ask": lambda n: n + 5,
    "letter": lambda n: n,
    "nap": lambda n: None,
    "late": lambda n: "late",
}


def come_to(script: list[Act]) -> list[Any]:
    """What a run of this script must give."""
    return [_come_to(*act) for act in script]


def _come_to(kind: str, n: int, *parts: Any) -> Any:
    match kind:
        case "child":
            return come_to(parts[0])
        case "fork":
            return [come_to(part) for part in parts]
        case _:
            return _VALUES[kind](n)


def acts_in(script: list[Act], kind: str) -> Iterator[Act]:
    """The acts of this kind in a script, those of branches included and those of children not."""
    for act in script:
        if act[0] == kind:
            yield act
        if act[0] == "fork":
            for part in act[2:]:
                yield from acts_in(part, kind)

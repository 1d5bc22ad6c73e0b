"""docs/identity.md: of each change of code that its tables name, a run in flight goes on, or is stopped before any effect."""

from __future__ import annotations

import asyncio
import gc
import re
import sys
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest

from durable_sqlite import Engine, ReplayDiverged, RunParked, Signal, SuspendedStepConflict, Workflow
from tests.support.house import ROOT
from tests.support.stage import ended

effects: list[str] = []


class GoOn(Signal):
    """What the run waits for while its code is changed."""


_OLD = """
import asyncio

from pydantic import BaseModel

from durable_sqlite import Retry, sleep, step, workflow
from tests.behaviour.test_changes_of_code import GoOn, effects


class Order(BaseModel):
    item: str


@step
async def reserve(order: Order) -> str:
    effects.append("reserve")
    return order.item


@step
async def weigh(item: str) -> int:
    effects.append("weigh")
    return len(item)


@step
async def stick(text: str) -> str:
    effects.append(f"stick {text}")
    return text


@step
async def ship(item: str) -> str:
    effects.append("ship")
    return f"{item} is on its way"


async def label(side: str) -> str:
    return await stick(side)


@workflow(name="fulfil")
async def fulfil(order: Order) -> list[object]:
    item = await reserve(order)
    weight = await weigh(item)
    fragile = await stick("fragile")
    upright = await stick("upright")
    async with asyncio.TaskGroup() as group:
        left = group.create_task(label("left"))
        right = group.create_task(label("right"))
    await sleep(0)
    await GoOn.wait()
    return [await ship(item), weight, fragile, upright, left.result(), right.result()]
"""
_RESULT: list[object] = ["a book is on its way", 6, "fragile", "upright", "left", "right"]
_DONE = ["reserve", "weigh", "stick fragile", "stick upright", "stick left", "stick right"]


@dataclass(frozen=True, slots=True)
class Change:
    """One change of the code above: what is written for what."""

    written: tuple[tuple[str, str], ...]
    error: type[Exception] | None = None
    """With what the run is parked; None: it goes on."""
    result: tuple[object, ...] = tuple(_RESULT)
    more: tuple[str, ...] = ("ship",)
    """The effects after the change."""

    def __call__(self, code: str) -> str:
        for old, new in self.written:
            assert old in code
            code = code.replace(old, new)
        return code


_FREE = {
    "insert a step of another name": Change(
        (
            ("async def label", '@step\nasync def seal() -> None:\n    effects.append("seal")\n\n\nasync def label'),
            ("    weight = await weigh(item)\n", "    await seal()\n    weight = await weigh(item)\n"),
        ),
        more=("seal", "ship"),
    ),
    "reorder steps of different names within a branch": Change(
        (
            ("    weight = await weigh(item)\n", ""),
            ("    await sleep(0)\n", "    await sleep(0)\n    weight = await weigh(item)\n"),
        ),
    ),
    "rename a parameter's class, a variable, a helper": Change(
        (("Order", "Purchase"), ("fragile =", "care ="), ("weight, fragile,", "weight, care,"), ("label(", "put_on(")),
    ),
    "add a parameter with a default to a step": Change((("weigh(item: str)", 'weigh(item: str, unit: str = "kg")'),)),
    'rename the *function* of a step and keep `@step(name="old")`': Change(
        (("@step\nasync def weigh(", '@step(name="weigh")\nasync def scale('), ("await weigh(", "await scale(")),
    ),
    "change a step's retry policy or time limit": Change(
        (("@step\n", "@step(retry=Retry(max_attempts=9), timeout=60)\n"),),
    ),
    "no longer call a step that is still defined": Change(
        (("    weight = await weigh(item)\n", "    weight = 0\n"),),
        result=(_RESULT[0], 0, *_RESULT[2:]),
    ),
    "change what a step that has not run yet does": Change(
        (("is on its way", "waits for you"),), result=("a book waits for you", *_RESULT[1:])
    ),
}

_DIVERGES = {
    "change an argument of a recorded call": Change((("weigh(item)", 'weigh(item + "!")'),), ReplayDiverged),
    "rename a recorded step, or remove its definition": Change((("weigh(", "scale("),), ReplayDiverged),
    "remove an earlier call of the same step, with other arguments, in a branch": Change(
        (('    fragile = await stick("fragile")\n', '    fragile = ""\n'),), ReplayDiverged
    ),
    "add a branch before others": Change(
        (("        left = ", '        group.create_task(label("top"))\n        left = '),), ReplayDiverged
    ),
    "move a recorded call elsewhere": Change(
        (
            ("@workflow", "async def aside(item: str) -> int:\n    return await weigh(item)\n\n\n@workflow"),
            ("await weigh(item)\n    fragile", "await asyncio.create_task(aside(item))\n    fragile"),
        ),
        ReplayDiverged,
    ),
    "make a wait of a step, or the reverse": Change(
        (
            ("await sleep(0)", "await nap()"),
            ("@workflow", '@step(name="sleep")\nasync def nap() -> None: ...\n\n\n@workflow'),
        ),
        SuspendedStepConflict,
    ),
}


@contextmanager
def _loaded(code: str) -> Generator[ModuleType]:
    """A module of this code; it is gone afterwards, as with a process that has ended."""
    module = ModuleType("changing")
    sys.modules[module.__name__] = module
    try:
        exec(compile(code, "changing.py", "exec"), vars(module))
        yield module
    finally:
        del sys.modules[module.__name__]
        vars(module).clear()
        gc.collect()


async def _begun(path: Path) -> None:
    with _loaded(_OLD) as code:
        fulfil: Workflow[..., object] = code.fulfil
        order: object = code.Order(item="a book")
        async with Engine(path) as engine:
            await fulfil.options(id="order-1").start(order)
            await engine.join()
    assert sorted(effects) == sorted(_DONE)


@pytest.fixture(autouse=True)
def _from_the_start() -> None:
    effects.clear()


@pytest.mark.parametrize("row", _FREE)
def test_a_run_in_flight_goes_on_with_a_change_that_the_page_calls_free(tmp_path: Path, row: str) -> None:
    change = _FREE[row]

    async def main() -> None:
        path = tmp_path / "j.db"
        await _begun(path)
        with _loaded(change(_OLD)) as code:
            async with Engine(path, workflows=[code.fulfil]) as engine:
                run = engine.run("order-1")
                await run.signal(GoOn())
                assert await run.result(timeout=20) == list(change.result)
        assert effects[len(_DONE) :] == list(change.more)

    asyncio.run(main())


@pytest.mark.parametrize("row", _DIVERGES)
def test_a_run_in_flight_is_stopped_before_any_effect_by_a_change_that_the_page_calls_a_divergence(
    tmp_path: Path, row: str
) -> None:
    change = _DIVERGES[row]

    async def main() -> None:
        path = tmp_path / "j.db"
        await _begun(path)
        with _loaded(change(_OLD)) as code:
            async with Engine(path, workflows=[code.fulfil]) as engine:
                await engine.run("order-1").signal(GoOn())
                parked = await ended(engine.run("order-1"), RunParked)
        assert change.error is not None
        assert parked.reason == "diverged"
        assert parked.record is not None
        assert parked.record.is_a(change.error)
        assert effects[len(_DONE) :] == []

    asyncio.run(main())


def test_the_tables_of_the_page_are_those_that_are_tried() -> None:
    page = (ROOT / "docs" / "identity.md").read_text(encoding="utf-8")
    free, diverges = (
        list(re.findall(r"^\| ([^|]+) \|", page.partition(title)[2].partition("\n## ")[0], re.MULTILINE)[1:])
        for title in ("\n## Which changes are free\n", "\n## Which are divergences\n")
    )
    assert free == list(_FREE)
    assert diverges == list(_DIVERGES)

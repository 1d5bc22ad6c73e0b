"""`None`, `0`, `""`, `[]` and `b""` are values wherever a body gets them from, on the first pass and on replay."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from durable_sqlite import Engine, Outcome, Signal, each, step, workflow
from tests.support.clock import ManualClock
from tests.support.restarts import die, quiet

VALUES: list[tuple[Any, Any]] = [
    (type(None), None),
    (int, 0),
    (float, 0.0),
    (bool, False),
    (str, ""),
    (bytes, b""),
    (list[int], []),
    (dict[str, int], {}),
    (tuple[int, ...], ()),
]


class GoOnward(Signal):
    pass


def giving(kind: Any, value: Any, calls: list[str]) -> Callable[[], Coroutine[Any, Any, Any]]:
    """A function that says that it gives this kind of value."""

    async def gives() -> Any:
        calls.append("called")
        return value

    gives.__annotations__["return"] = kind
    return gives


@pytest.mark.parametrize("source", ["a step", "a step of a fan-out", "a child", "a run that is waited for"])
@pytest.mark.parametrize(("kind", "value"), VALUES, ids=[repr(value) for _, value in VALUES])
def test_what_is_empty_or_nothing_is_a_value_wherever_it_comes_from(
    tmp_path: Path, kind: Any, value: Any, source: str
) -> None:
    calls: list[str] = []
    got: list[Any] = []
    gives = step(name="gives")(giving(kind, value, calls))
    child = workflow(name="empty-values-child")(giving(kind, value, calls))

    async def one(_: int) -> Any:
        return await gives()

    one.__annotations__["return"] = kind
    of_many = step(name="of-many")(one)

    async def take() -> Any:
        match source:
            case "a step":
                return await gives()
            case "a step of a fan-out":
                return (await each(of_many, [1, 2]))[1]
            case "a child":
                return await child()
            case _:
                return await (await child.start()).result()

    async def flow() -> Any:
        got.append(await take())
        await GoOnward.wait()
        return got[-1]

    flow.__annotations__["return"] = kind
    whole = workflow(name="empty-values")(flow)

    async def scenario() -> None:
        async with Engine(tmp_path / "j.db", clock=ManualClock()) as engine:
            run = await whole.options(id="x").start()
            await quiet(engine)
            assert all(entry.outcome is Outcome.VALUE for entry in await run.history())
            await die(engine)
        async with Engine(tmp_path / "j.db", clock=ManualClock(), workflows=[whole, child]) as engine:
            run = whole.run("x")
            await quiet(engine)
            await run.signal(GoOnward())
            got.append(await run.result(timeout=20))
            got.append(await (await whole.options(id="x").start()).result())

    asyncio.run(scenario())
    assert got == [value] * 4  # on the first pass, on replay, and twice as the result of the run
    assert {type(one) for one in got} == {type(value)}
    assert len(calls) == (2 if source == "a step of a fan-out" else 1)

"""The workflows of the journals that are damaged."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from pydantic import BaseModel

from durable_sqlite import Retry, Signal, Suspend, Workflow, sleep, step, workflow

__all__ = ["FLOWS", "Decision", "Go", "Note", "Review", "add", "answered", "failing", "family", "sleeper", "waiter"]


class Go(Signal, name="damage-go"):
    """What waiters wait for."""

    by: int


class Note(Signal, name="damage-note"):
    """What nobody takes."""

    text: str


class Decision(BaseModel):
    """An answer."""

    granted: bool


class Review(Suspend[Decision], name="damage-review"):
    """A question."""

    about: str


failed_once: set[int] = set()


@step(name="damage.add")
async def add_one(total: int, text: str) -> tuple[int, str]:
    return total + 1, text


@step(name="damage.shaky", retry=Retry.fixed(0, max_attempts=3))
async def shaky(number: int) -> int:
    if number not in failed_once:
        failed_once.add(number)
        raise OSError("down")
    return number


@step(name="damage.once", at_most_once=True)
async def once(number: int) -> int:
    return number


@workflow(name="damage.add")
async def add(steps: int, text: str) -> int:
    total = 0
    for _ in range(steps):
        total, text = await add_one(total, text)
    return total


@workflow(name="damage.waiter")
async def waiter(steps: int, text: str) -> int:
    total = 0
    for number in range(steps):
        total, text = await add_one(total, text)
        total = total - number + await shaky(number)
    total += (await Go.wait()).by
    return total + await once((await Go.wait()).by)


@workflow(name="damage.answered")
async def answered(text: str) -> str:
    first = await Review(about=text).wait()
    second = await Review(about=text).wait(timeout=timedelta(days=365))
    return f"{first.granted} {second}"


@workflow(name="damage.family")
async def family(text: str) -> int:
    return await add(3, text) + await waiter(2, text)


@workflow(name="damage.failing")
async def failing(text: str) -> int:
    await add_one(1, text)
    raise ValueError(text)


@workflow(name="damage.sleeper")
async def sleeper(text: str) -> str:
    await sleep(timedelta(days=365))
    return text


FLOWS: tuple[Workflow[..., Any], ...] = (add, waiter, answered, family, failing, sleeper)

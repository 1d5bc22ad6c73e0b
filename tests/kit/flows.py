"""Workflows that tests of the testing kit drive."""

from __future__ import annotations

import asyncio
import threading
from datetime import timedelta

from pydantic import BaseModel

from durable_sqlite import Signal, Suspend, Tx, current_step, sleep, step, transaction, workflow

__all__ = [
    "Go",
    "Parcel",
    "Question",
    "asks",
    "book",
    "both",
    "fetch",
    "grind",
    "hears",
    "naps",
    "once",
    "rests",
    "ticks",
    "weeks",
    "world",
]

world: list[str] = []
"""What the steps did, as a program without the kit would see it."""


class Go(Signal, name="kit-go"):
    word: str


class Question(Suspend[str], name="kit-question"):
    text: str


class Parcel(BaseModel):
    weight: int
    to: str


@step
async def fetch(number: int) -> int:
    world.append(f"fetch {number} {current_step().attempt}")
    return number * 10


@step
def grind(number: int) -> str:
    world.append(f"grind {number}")
    return threading.current_thread().name


@step
async def naps(seconds: float) -> str:
    await asyncio.sleep(seconds)
    world.append("awake")
    return "awake"


@transaction
def book(tx: Tx, name: str) -> int:
    tx.execute("INSERT INTO bookings(name) VALUES (?)", (name,))
    [(count,)] = tx.execute("SELECT count(*) FROM bookings").rows
    return int(count)


@workflow
async def once(number: int) -> int:
    return await fetch(number)


@workflow
async def both(number: int) -> str:
    first = await fetch(number)
    await grind(number)
    return f"both {first}"


@workflow
async def weeks(count: int) -> int:
    for week in range(count):
        await sleep(timedelta(weeks=1))
        await fetch(week)
    return count


@workflow
async def ticks(minutes: int) -> None:
    await sleep(timedelta(minutes=minutes))
    await fetch(minutes)


@workflow
async def hears() -> str:
    return (await Go.wait()).word


@workflow
async def asks() -> str | None:
    return await Question(text="which?").wait(timeout=timedelta(days=1))


@workflow
async def rests(seconds: float) -> str:
    return await naps(seconds)

"""What the runs of a fleet do, and what each of them must come to whatever happens to the processes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from durable_sqlite import (
    Done,
    NotDone,
    Retry,
    Signal,
    Suspend,
    Tx,
    Workflow,
    current_run,
    current_step,
    sleep,
    step,
    transaction,
    workflow,
)

from .trace import LOG

__all__ = ["DEEDS", "LETTERS", "POST", "SAFE", "WORKFLOWS", "Letter", "model", "set_up"]

LETTERS = 3
"""How many messages are sent to each run of `post`, numbered from 1."""


class Letter(Signal, name="fleet-letter"):
    n: int


class Whether(Suspend[int], name="fleet-whether"):
    n: int


# Steps ---------------------------------------------------------------------------------------------------------------


@step
async def walk(x: int) -> int:
    await LOG.work()
    return x + 1


@step
def carry(x: int) -> int:
    """In a thread."""
    LOG.began()
    return 2 * x


class Stumbled(Exception):
    """The first attempt."""


@step(retry=Retry(max_attempts=5, initial_delay=0, jitter=0, on=Stumbled))
async def climb(x: int) -> int:
    await LOG.work()
    if current_step().attempt == 1:
        raise Stumbled
    return x + 3


async def ask_the_world(_x: int) -> Done[int] | NotDone:
    return Done(7) if LOG.had_effect() else NotDone()


@step(at_most_once=True, probe=ask_the_world)
async def launch(_x: int) -> int:
    await LOG.work()
    LOG.effect()
    return 7


@transaction
def book(tx: Tx, x: int) -> int:
    here = current_step()
    tx.execute("INSERT INTO bookings (run, key, value) VALUES (?, ?, ?)", (here.run_id, here.key, x))
    return x + 7


def set_up(tx: Tx) -> None:
    """A table without any rule that would hide a second row."""
    tx.execute("CREATE TABLE IF NOT EXISTS bookings (run TEXT, key TEXT, value INTEGER)")


# Workflows -----------------------------------------------------------------------------------------------------------


@workflow(name="fleet-errand")
async def errand(n: int) -> list[int]:
    first = await walk(n)
    second = await carry(first)
    return [first, second, await walk(second)]


@workflow(name="fleet-fork")
async def fork(n: int) -> list[int]:
    async def way(x: int) -> int:
        return await carry(await walk(x))

    async with asyncio.TaskGroup() as group:
        ways = [group.create_task(way(n + k)) for k in range(3)]
    return [each.result() for each in ways] + list(await asyncio.gather(walk(n), carry(n)))


@workflow(name="fleet-family")
async def family(n: int) -> list[Any]:
    return [await errand(n), await walk(n), *await asyncio.gather(errand(n + 1), fork(n))]


@workflow(name="fleet-post")
async def post(n: int) -> list[int]:
    told = [(await Letter.wait()).n, await walk(n)]
    told += [(await Letter.wait()).n for _ in range(LETTERS - 1)]
    return [*told, await carry(n)]


@workflow(name="fleet-nap")
async def nap(n: int) -> list[int]:
    before = await walk(n)
    await sleep(0.02)
    return [before, await walk(before)]


@workflow(name="fleet-books")
async def books(n: int) -> list[int]:
    first = await book(n)
    second = await walk(first)
    return [first, second, *await asyncio.gather(book(n + 1), book(n + 2))]


@workflow(name="fleet-hill")
async def hill(n: int) -> list[int]:
    return [await climb(n), await walk(n), await climb(n + 1)]


@workflow(name="fleet-careful")
async def careful(n: int) -> list[int]:
    return [await walk(n), await launch(n), await launch(n + 1)]


@workflow(name="fleet-listener")
async def listener(n: int) -> list[int]:
    told = [(await Letter.wait()).n, (await Letter.wait()).n]
    return [*told, await Whether(n=n).wait(), await walk(n)]


@workflow(name="fleet-couple")
async def couple(n: int) -> list[int]:
    """Sends messages and an answer out of its body."""
    other = await listener.options(id=f"listener-{current_run().run_id}").start(n)
    await other.signal(Letter(n=1))
    walked = await walk(n)
    await other.signal(Letter(n=2))
    await other.answer(Whether, n + 5, early=True)
    return [walked, *await other.result()]


# What they come to ---------------------------------------------------------------------------------------------------

DEEDS: dict[str, Workflow[[int], Any]] = {
    "errand": errand,
    "fork": fork,
    "family": family,
    "post": post,
    "nap": nap,
    "books": books,
    "hill": hill,
    "couple": couple,
    "careful": careful,
}
"""What is started from outside, by the beginning of a run's id."""

SAFE = tuple(name for name in DEEDS if name != "careful")
"""Those for whose steps it is no harm to be begun by two processes at once, where one of them was taken for dead."""

POST = post

WORKFLOWS: tuple[Workflow[[int], Any], ...] = (*DEEDS.values(), listener)

_MODELS: dict[str, Callable[[int], list[Any]]] = {
    "fleet-errand": lambda n: [n + 1, 2 * (n + 1), 2 * (n + 1) + 1],
    "fleet-fork": lambda n: [2 * (n + 1), 2 * (n + 2), 2 * (n + 3), n + 1, 2 * n],
    "fleet-family": lambda n: [
        model("fleet-errand", n),
        n + 1,
        model("fleet-errand", n + 1),
        model("fleet-fork", n),
    ],
    "fleet-post": lambda n: [1, n + 1, *range(2, LETTERS + 1), 2 * n],
    "fleet-nap": lambda n: [n + 1, n + 2],
    "fleet-books": lambda n: [n + 7, n + 8, n + 8, n + 9],
    "fleet-hill": lambda n: [n + 3, n + 1, n + 4],
    "fleet-careful": lambda n: [n + 1, 7, 7],
    "fleet-listener": lambda n: [1, 2, n + 5, n + 1],
    "fleet-couple": lambda n: [n + 1, 1, 2, n + 5, n + 1],
}


def model(workflow_name: str, n: int) -> list[Any]:
    """What a run of this workflow with this input must give."""
    return _MODELS[workflow_name](n)

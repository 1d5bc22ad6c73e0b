"""The picture of a timeline that README.md shows: a run is made for it, and the command line draws it.

`python -m tests.support.picture` takes some seconds and writes `docs/pictures/timeline.svg`.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
from pathlib import Path

from durable_sqlite import Engine, Retry, Signal, current_step, each, step, workflow
from tests.support.house import ROOT, environment


class Paid(Signal):
    receipt: str


@step
async def reserve(_item: str) -> None:
    await asyncio.sleep(0.5)


@step(retry=Retry(max_attempts=4, initial_delay=0.5, jitter=0))
async def charge(_cents: int) -> None:
    await asyncio.sleep(0.3)
    if current_step().attempt < 3:
        raise ConnectionError("the bank does not answer")


@step
async def pack(item: str) -> str:
    await asyncio.sleep(0.6 + len(item) / 10)
    return item


@workflow
async def ship(items: list[str]) -> list[str]:
    return await each(pack, items, concurrency=2)


@workflow
async def order(items: list[str]) -> list[str]:
    await reserve(items[0])
    await charge(1200)
    await Paid.wait()
    return await ship(items)


async def make(journal: Path) -> None:
    """A run with retries, a wait and a child."""
    async with Engine(journal):
        run = await order.options(id="order-A1").start(["a book", "a pen", "a lamp"])
        async for info in run.watch():
            if any("Paid" in sentence for sentence in info.waiting_for):
                break
        await asyncio.sleep(1.2)
        await run.signal(Paid(receipt="r-17"))
        await run


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(make(Path(folder) / "orders.db"))
        words = [
            "timeline",
            "order-A1",
            "--db",
            f"{folder}/orders.db",
            "--svg",
            str(ROOT / "docs/pictures/timeline.svg"),
        ]
        subprocess.run([sys.executable, "-m", "durable_sqlite", *words], env=environment(), check=True)

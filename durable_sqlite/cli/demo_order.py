"""The demo's application: an order of five steps, each of which leaves a line in a log outside the journal.

`python -m durable_sqlite.cli.demo_order JOURNAL LOG`
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from .._context import current_step
from .._steps import step
from .._workflows import workflow
from ..engine import Engine

__all__ = ["RUN_ID", "order"]

RUN_ID = "order-1"


def _leave(word: str) -> None:
    """Write what this process does where no crash can take it back, and tell whoever watches."""
    info = current_step()
    line = f"{word} {info.key} {os.getpid()} {info.idempotency_key} {int(info.recovered)}\n"
    descriptor = os.open(os.environ["DEMO_LOG"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, line.encode())
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    print(line, end="", flush=True)


@step
async def reserve(item: str) -> str:
    """Put the item aside."""
    _leave("began")
    return f"{item}, shelf 7"


@step
async def price(item: str) -> int:
    """Look the price up, in cents."""
    _leave("began")
    return 1000 + len(item) * 100


@step
async def charge(cents: int) -> str:
    """Take the money; slow the first time, so that there is a middle to be killed in."""
    _leave("began")
    if not current_step().recovered:
        await asyncio.sleep(60)
    return f"paid {cents / 100:.2f}"


@step
def pack(place: str) -> str:
    """Pack it, in a thread: this is a plain function."""
    _leave("began")
    return f"parcel from {place}"


@step
async def ship(parcel: str, receipt: str) -> str:
    """Hand it over."""
    _leave("began")
    return f"{parcel}, {receipt}, on its way"


@workflow
async def order(item: str) -> str:
    """One order."""
    place = await reserve(item)
    cents = await price(item)
    receipt = await charge(cents)
    parcel = await pack(place)
    return await ship(parcel, receipt)


async def _main(journal: Path) -> None:
    async with Engine(journal):
        run = await order.options(id=RUN_ID).start("teapot")
        print(f"ended {await run}", flush=True)


if __name__ == "__main__":
    os.environ["DEMO_LOG"] = sys.argv[2]
    asyncio.run(_main(Path(sys.argv[1])))

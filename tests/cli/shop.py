"""An application for the commands that act, as people write one: a script beside its journal. Tests copy this file."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from durable_sqlite import Engine, Retry, Signal, Suspend, current_step, set_status, sleep, step, workflow


class Decision(BaseModel):
    granted: bool
    by: str


class Review(Suspend[Decision]):
    cents: int


class Paid(Signal):
    receipt: str


@step
async def reserve(item: str) -> str:
    sys.stdout.write(f"reserving {item}\n")
    return f"{item}, shelf 7"


@step
def charge(cents: int) -> str:
    if Path("die").exists() and not current_step().recovered:
        os.kill(os.getpid(), signal.SIGKILL)
    return f"paid {cents}"


@step(retry=Retry(max_attempts=2, initial_delay=0.01))
def ship(place: str) -> str:
    if not Path("open").exists():
        raise RuntimeError("the warehouse is closed")
    return f"{place}, on its way"


@workflow
async def order(item: str, cents: int = 1200) -> str:
    set_status("working")
    place = await reserve(item)
    await charge(cents)
    decision = await Review(cents=cents)
    return await pack(place) if decision.granted else "refused"


@workflow
async def pack(place: str) -> str:
    return await ship(place)


@workflow
async def delivery(item: str) -> str:
    return await ship(item)


@workflow
async def payment() -> str:
    paid = await Paid.wait()
    return paid.receipt


@workflow
async def nap(seconds: float) -> str:
    await sleep(seconds)
    return "awake"


async def main(name: str, ids: str, *arguments: str) -> None:
    async with Engine("runs.db") as engine:
        known: dict[str, Any] = {"order": order, "delivery": delivery, "payment": payment}
        for run_id in ids.split(","):
            if name == "nap":
                await nap.options(id=run_id).start(float(arguments[0]))
            else:
                await known[name].options(id=run_id).start(*arguments)
        await engine.join()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))

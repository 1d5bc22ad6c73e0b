"""A journey of three bookings. The last one fails for good, so what was booked is given back, newest first.

Kill it anywhere, start it again: it goes on booking or giving back where it was, and gives nothing back twice.
"""

import asyncio
import sys

from durable_sqlite import Engine, Permanent, RunFailed, StepFailed, step, workflow


class SoldOut(Permanent):
    """There is no use in trying again."""


@step
async def book(what: str) -> str:
    print(f"booking {what}", flush=True)
    await asyncio.sleep(0.3)
    if what == "a car":
        raise SoldOut("no car is left")
    return f"{what} (booking {len(what)})"


@step
async def give_back(booked: str) -> None:
    print(f"giving back {booked}", flush=True)
    await asyncio.sleep(0.3)


@workflow
async def journey(wishes: list[str]) -> list[str]:
    done: list[str] = []
    try:
        for wish in wishes:
            done.append(await book(wish))  # noqa: PERF401 - what was booked must be known where the next one fails
    except StepFailed:
        for booked in reversed(done):  # plain Python: it is recorded step by step like all else
            await give_back(booked)
        raise
    return done


async def main() -> None:
    async with Engine(sys.argv[1] if len(sys.argv) > 1 else "saga.db"):
        run = await journey.options(id="journey").start(["a flight", "a hotel", "a car"])
        try:
            print("booked:", ", ".join(await run), flush=True)
        except RunFailed as failed:
            print("not booked:", failed.record.message if failed.record else failed, flush=True)


if __name__ == "__main__":
    asyncio.run(main())

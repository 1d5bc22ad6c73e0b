"""An order that a person has to release.

Start it, kill it while it waits, start it again: it still knows who is asked what. Then answer from another terminal, with
the name of whoever decides: `python examples/review.py review.db ada`.
"""

import asyncio
import sys

from pydantic import BaseModel

from durable_sqlite import Engine, Signal, Suspend, each, set_status, step, workflow


class Decision(BaseModel):
    granted: bool
    by: str


class Review(Suspend[Decision]):  # the model is the question, the parameter types the answer
    order: str
    cents: int


class Paid(Signal):  # the class is the address, the fields are the message
    receipt: str


@step
async def pack(item: str) -> str:
    print(f"packing {item}", flush=True)
    return f"packed {item}"


@workflow
async def ship(items: list[str]) -> list[str]:
    return await each(pack, items, concurrency=2)  # in the order of the items


@workflow
async def order(name: str, cents: int) -> list[str]:
    decision = await Review(order=name, cents=cents).wait(timeout=3 * 86_400, status="in review")
    if decision is None or not decision.granted:  # None: nobody answered in three days
        return ["not released"]
    set_status(f"released by {decision.by}")
    paid = await Paid.wait()  # also if it was sent long before
    return [f"paid with {paid.receipt}", *await ship(["a book", "a pen", "a lamp"])]  # a child run


async def wait_for_it(journal: str) -> None:
    async with Engine(journal):
        run = await order.options(id="order-1").start("order-1", 129_00)
        async for info in run.watch():
            print(f"{info.state}: {info.status}", flush=True)
            for asked in await run.questions():
                print(f"{asked.point} of {asked.question}? answer with: review.py {journal} NAME", flush=True)
        print("; ".join(await run), flush=True)


async def release(journal: str, by: str) -> None:
    async with Engine(journal, drive=False):  # a client: it drives nothing
        run = order.run("order-1")
        await run.signal(Paid(receipt="r-17"), dedupe="payment-17")  # kept until the run wants it
        await run.answer(Review, Decision(granted=True, by=by), by=by)


if __name__ == "__main__":
    file = sys.argv[1] if len(sys.argv) > 1 else "review.db"
    asyncio.run(release(file, sys.argv[2]) if len(sys.argv) > 2 else wait_for_it(file))  # noqa: PLR2004

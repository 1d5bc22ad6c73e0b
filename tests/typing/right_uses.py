"""Uses that both checkers must accept, with the types they must see. Read by checkers, never run."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any, assert_type
from uuid import UUID

from pydantic import BaseModel

from durable_sqlite import (
    Codec,
    DeadLetter,
    Done,
    Engine,
    ErrorRecord,
    Failure,
    HistoryEntry,
    NotDone,
    Permanent,
    Reason,
    Retry,
    RetryAfter,
    Run,
    RunInfo,
    State,
    Step,
    StepFailed,
    Unknown,
    Workflow,
    current_run,
    current_step,
    now,
    random,
    sleep,
    sleep_until,
    step,
    uuid,
    workflow,
)


class Order(BaseModel):
    id: str
    cents: int


class CardDeclined(Exception):
    """The bank said no."""


class Reversed:
    name = "reversed"

    def encode(self, data: bytes, /) -> bytes:
        return data[::-1]

    def decode(self, data: bytes, /) -> bytes:
        return data[::-1]


@step
async def charge(order: Order, *, attempts: int = 3) -> str:
    return current_step().idempotency_key + order.id * attempts


@step
def render(order: Order) -> bytes:
    return order.id.encode()


@step(name="ship:v2", ignore=("client",), raises=(CardDeclined,))
async def ship(order: Order, client: object = None) -> Order:
    return order.model_copy(update={"id": str(client)})


@step(executor=ThreadPoolExecutor())
def shrink(pdf: bytes) -> int:
    return len(pdf)


@step(retry=Retry(max_attempts=None, on=(OSError, TimeoutError), unless=lambda error: bool(error.args)), timeout=20)
async def fetch(url: str) -> bytes:
    if not url:
        raise Permanent("there is no such page") from None
    raise RetryAfter(timedelta(minutes=1), "too many requests")


async def worth_it(error: Exception) -> bool:
    return isinstance(error, OSError)


@step(retry=Retry.exponential(0.5, max_delay=timedelta(hours=1)), timeout=timedelta(seconds=3))
def compute(number: int) -> int:
    return number


async def look_it_up(reference: str, cents: int) -> Done[str] | NotDone | Unknown:
    return Done(reference) if cents else NotDone()


@step(at_most_once=True, probe=look_it_up)
async def transfer(reference: str, cents: int) -> str:
    return reference * cents


def tell(letter: DeadLetter) -> None:
    assert_type(letter.reason, str)


async def tell_later(letter: DeadLetter) -> None:
    assert_type(letter.keys, tuple[str, ...])


class Shop:
    """A class whose methods are steps."""

    @step
    async def stock(self, name: str) -> int:
        return len(name)

    @step(ignore=())
    def price(self, name: str, *, vat: bool = True) -> float:
        return len(name) * 1.2 if vat else 1.0


@workflow
async def fulfil(order: Order, gift: bool = False) -> int:
    charge_id = await charge(order)
    assert_type(charge_id, str)
    assert_type(await charge(order, attempts=2), str)
    assert_type(await render(order), bytes)
    assert_type(await ship(order), Order)
    assert_type(await shrink(b""), int)
    assert_type(await charge.options(key="charge:v2")(order), str)
    assert_type(await Shop().stock("tea"), int)
    assert_type(await Shop().price("tea", vat=False), float)
    assert_type(await Shop().stock.options(key="stock")("tea"), int)
    assert_type(await fetch("a"), bytes)
    assert_type(await compute(1), int)
    assert_type(await transfer("a", 1), str)
    assert_type(await fetch.options(retry=Retry.none(), timeout=1.5)("a"), bytes)
    assert_type(await compute.options(key="k", retry=Retry.fixed(5, max_attempts=None))(1), int)
    # mypy gives up on `gather`, without a word, where a call's type has `Any` in it.
    both = await asyncio.gather(charge(order), render(order))
    assert_type(both, tuple[str, bytes])
    async with asyncio.TaskGroup() as group:
        task = group.create_task(ship(order))
    assert_type(task, asyncio.Task[Order])
    assert_type(await asyncio.wait_for(render(order), 3), bytes)
    assert_type(await sleep(1), None)
    assert_type(await sleep(timedelta(hours=1)), None)
    assert_type(await sleep_until(datetime(2030, 1, 1, tzinfo=UTC)), None)
    assert_type(now(), datetime)
    assert_type(uuid(), UUID)
    assert_type(random(), Random)
    assert_type(current_run().run_id, str)
    assert_type(current_step().attempt, int)
    assert_type(current_step().recovered, bool)
    return len(charge_id) + gift


@workflow(name="nightly", version="2")
async def nightly() -> None:
    try:
        await charge(Order(id="1", cents=1))
    except StepFailed as failed:
        assert_type(failed.is_a(ValueError), bool)
        assert_type(failed.attempts, int)
        assert_type(failed.reason, str)


async def definitions(order: Order) -> None:
    """What the decorators make."""
    takes: Step[[Order], bytes] = render
    whole: Workflow[[], None] = nightly
    codec: Codec = Reversed()
    calls: tuple[Coroutine[Any, Any, str], Coroutine[Any, Any, bytes]] = (charge(order), takes(order))
    runs: tuple[Coroutine[Any, Any, int], Coroutine[Any, Any, None]] = (fulfil(order), whole())
    assert_type(await asyncio.gather(fulfil.start(order), nightly.start()), tuple[Run[int], Run[None]])
    assert_type(codec.name, str)
    assert_type(len(calls) + len(runs), int)


async def application(order: Order) -> None:
    """What an application does."""
    patient = Retry(initial_delay=timedelta(seconds=2), factor=1.5, jitter=0, max_elapsed=3600, on=worth_it)
    assert_type(patient.delay(3, 0.5), int)
    async with Engine("orders.db", workflows=[fulfil, nightly], synchronous="normal", codec=Reversed()) as engine:
        assert_type(engine, Engine)
        run = await fulfil.start(order)
        assert_type(run, Run[int])
        named = await fulfil.options(id="order-A1", tags={"team": "eu"}, if_exists="replace", engine=engine).start(
            order, gift=True
        )
        assert_type(named, Run[int])
        assert_type(await run, int)
        assert_type(await run.result(), int)
        assert_type(await run.result(timeout=timedelta(seconds=3)), int)
        assert_type(await run.info(), RunInfo)
        assert_type((await run.info()).state, State)
        assert_type(run.created, bool)
        assert_type(await fulfil(order), int)
        assert_type(await nightly(), None)
        await run.cancel(reason="dup", by="ada")
        await run.resume(accept_changes=True)
        assert_type(await run.resume(retry=["charge#1"], input={"order": {"id": "1"}}), Sequence[str])
        await run.settle("transfer#1", "receipt 7", by="ada")
        await run.settle("transfer#1", retry=True)
        await run.discard()
        assert_type((await run.info()).deadline, datetime | None)
        assert_type(await fulfil.options(deadline=timedelta(days=1)).start(order), Run[int])
        other = engine.run("order-A1")
        entries = await other.history()
        assert_type(entries[0], HistoryEntry)
        assert_type(entries[0].failures, tuple[Failure, ...])
        assert_type(entries[0].failures[0].error, ErrorRecord)
        listed = engine.runs(workflow=fulfil, state="failed", tags={"team": "eu"}, limit=20)
        assert_type(listed, AsyncIterator[RunInfo])
        async for info in listed:
            assert_type(info, RunInfo)
        async for letter in engine.dead_letters(workflow=fulfil, reason=Reason.PERMANENT, tags={"team": "eu"}, limit=5):
            assert_type(letter, DeadLetter)
            assert_type(letter.error, ErrorRecord | None)
            assert_type(await letter.redrive(), Sequence[str])
            await letter.discard()
        assert_type(
            await engine.redrive(reason="retries_exhausted", created_before=datetime(2030, 1, 1, tzinfo=UTC), limit=20),
            list[str],
        )
        assert_type(await engine.count(state=State.SUSPENDED), int)
        assert_type(await engine.join(), None)
    for hook in (tell, tell_later):
        async with Engine(":memory:", retry=patient, on_dead_letter=hook):
            pass

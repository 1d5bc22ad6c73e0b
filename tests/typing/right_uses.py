"""Uses that both checkers must accept, with the types they must see. Read by checkers, never run."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from sqlite3 import Connection
from typing import Any, assert_type
from uuid import UUID

from hypothesis.strategies import SearchStrategy
from pydantic import BaseModel

from durable_sqlite import (
    Codec,
    DeadLetter,
    Done,
    Engine,
    ErrorRecord,
    Failure,
    HistoryEntry,
    MessageInfo,
    NotDone,
    Permanent,
    Progress,
    QuestionInfo,
    Reason,
    Retry,
    RetryAfter,
    Rows,
    Run,
    RunInfo,
    Signal,
    State,
    Stats,
    Step,
    StepFailed,
    Suspend,
    Transaction,
    Tx,
    Unknown,
    Workflow,
    current_run,
    current_step,
    each,
    now,
    random,
    set_progress,
    set_status,
    sleep,
    sleep_until,
    step,
    transaction,
    uuid,
    workflow,
)
from durable_sqlite.testing import (
    Crash,
    Difference,
    Explored,
    Fail,
    Harness,
    ReplayReport,
    Schedules,
    StepCalled,
    check_replay,
    harness,
    schedules,
    strategies,
)


class Order(BaseModel):
    id: str
    cents: int


class Paid(Signal):
    charge_id: str


class Shipped(Signal, name="shipped"):
    parcels: int


class Decision(BaseModel):
    granted: bool
    by: str


class Review(Suspend[Decision]):
    order: Order
    reason: str


class HowMany(Suspend[int], name="how-many"):
    """Any type may answer."""


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


@transaction
def book(tx: Tx, order: Order, *, twice: bool = False) -> int:
    rows = tx.execute("INSERT INTO bookings (id, cents) VALUES (?, :cents)", {"id": order.id, "cents": order.cents})
    assert_type(rows, Rows)
    assert_type(rows.lastrowid, int | None)
    assert_type(list(rows), list[tuple[Any, ...]])
    assert_type(tx.executemany("INSERT INTO bookings VALUES (?, ?)", [("a", 1)]), int)
    assert_type(tx.fetch_one(Order, "SELECT id, cents FROM bookings WHERE id = ?", (order.id,)), Order | None)
    assert_type(tx.fetch_all(Order, "SELECT id, cents FROM bookings"), list[Order])
    assert_type(tx.fetch_one(int, "SELECT count(*) FROM bookings"), int | None)
    assert_type(tx.fetch_all(tuple[str, int], "SELECT id, cents FROM bookings"), list[tuple[str, int]])
    assert_type(tx.start(fulfil.options(id=f"order-{order.id}"), order, gift=twice), str)
    assert_type(tx.start(nightly), str)
    tx.signal(f"order-{order.id}", Paid(charge_id="c"), dedupe="paid")
    return len(rows)


@transaction(
    name="void:v2", raises=(CardDeclined,), retry=Retry.none(), timeout=timedelta(seconds=1), ignore=("reason",)
)
def void(tx: Tx, order_id: str, reason: object = None) -> None:
    tx.execute("DELETE FROM bookings WHERE id = ?", (order_id,))


@workflow
async def booking(order: Order) -> int:
    """Transactions are steps of which the caller does not pass the `Tx`."""
    assert_type(await book(order), int)
    assert_type(await book(order, twice=True), int)
    assert_type(await void("a"), None)
    assert_type(await book.options(key="k", retry=Retry.fixed(1, max_attempts=2), timeout=1.5)(order), int)
    both = await asyncio.gather(book(order), charge(order))
    assert_type(both, tuple[int, str])
    taken: Transaction[[str, object], None] = void
    assert_type(taken.name, str)
    return both[0]


async def outside(order: Order) -> None:
    """Transactions of the application."""

    def accept(tx: Tx, given: Order, note: str = "") -> str:
        return tx.start(fulfil, given) + note

    async with Engine("orders.db", schema=Path("schema")) as engine, Engine("other.db", schema="schema"):
        assert_type(await engine.transact(accept, order), str)
        assert_type(await engine.transact(accept, order, note="n"), str)
        assert_type(await engine.transact(book, order, twice=True), int)
        assert_type(await engine.transact(lambda tx: tx.fetch_all(int, "SELECT 1")), list[int])
        assert_type(engine.connect(), Connection)


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


@workflow
async def waiting(order: Order) -> int:
    """What a body can wait for."""
    set_status("waiting")
    set_progress(1, 3)
    assert_type(await Paid.wait(), Paid)
    assert_type(await Paid.wait(key="first"), Paid)
    assert_type(await Paid.wait(timeout=timedelta(days=3)), Paid | None)
    assert_type(await Shipped.drain(), list[Shipped])
    assert_type(await Review(order=order, reason="large"), Decision)
    assert_type(await Review(order=order, reason="large").wait(status="in review"), Decision)
    assert_type(await Review(order=order, reason="large").wait(timeout=3.5, key="again"), Decision | None)
    assert_type(await HowMany(), int)
    assert_type(await asyncio.gather(Paid.wait(), HowMany().wait(timeout=1)), tuple[Paid, int | None])
    assert_type(await fulfil(order), int)
    child = await fulfil.options(detached=True, deadline=60, key="child").start(order)
    assert_type(child, Run[int])
    assert_type(await child, int)
    await child.signal(Paid(charge_id="c"), dedupe="m-1")
    await child.answer(Review, Decision(granted=True, by="ada"), key="Review#1", by="ada", early=True)
    await child.answer(HowMany, 7)
    assert_type(await each(render, [order], concurrency=4), list[bytes])
    assert_type(await each(fulfil, (order for _ in range(3))), list[int])
    assert_type(await each(render, [order], on_error="collect"), list[bytes | Exception])
    async with asyncio.TaskGroup() as group:
        pages = group.create_task(each(render, [order]))
    assert_type(pages, asyncio.Task[list[bytes]])
    return 1


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


async def steering(engine: Engine, run: Run[int], order: Order) -> None:
    """What people and other programs do to runs."""
    await run.pause(reason="stock", by="ada")
    await run.terminate(reason="stuck", by="ada")
    await run.signal(Paid(charge_id="ch_1"), dedupe="msg-17")
    await run.answer(Review, Decision(granted=True, by="ada"))
    assert_type(await fulfil.options(id="x").signal_with_start(Paid(charge_id="c"), order, gift=True), Run[int])
    assert_type(fulfil.run("order-A1"), Run[int])
    assert_type(await run.messages(), Sequence[MessageInfo])
    assert_type(await run.questions(), Sequence[QuestionInfo])
    assert_type((await run.info()).progress, Progress | None)
    async for info in run.watch():
        assert_type(info, RunInfo)
    async for info in engine.watch(workflow=fulfil, state="failed", tags={"team": "eu"}):
        assert_type(info.status, str | None)
    async for asked in engine.questions(workflow=fulfil, point=Review, limit=3):
        assert_type(asked, QuestionInfo)
    assert_type(await engine.resume("order-A1", retry=["charge#1"]), Sequence[str])


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
        assert_type(await engine.backup("copy.db"), Path)
        assert_type(await engine.backup(Path("copy.db"), overwrite=True), Path)
        assert_type(await engine.prune(timedelta(days=30)), int)
        assert_type(await engine.prune(3_600.0, states=["completed", State.FAILED], batch=10), int)
        stats = await engine.stats()
        assert_type(stats, Stats)
        assert_type(stats.journal.runs["completed"], int)
        assert_type(stats.commits.p99, float | None)
    for hook in (tell, tell_later):
        async with Engine(":memory:", retry=patient, on_dead_letter=hook):
            pass


async def checking(order: Order) -> None:
    """The testing kit."""
    report = check_replay(fulfil, "orders.db", open_only=True)
    assert_type(report, ReplayReport)
    assert_type(check_replay([fulfil, nightly], Path("orders.db")).fits, bool)
    assert_type(report.divergences, tuple[Difference, ...])
    with schedules(7) as schedule:
        assert_type(schedule, Schedules)
    assert_type(await strategies.runs(fulfil).example().start(), Run[int])
    assert_type(strategies.faults(charge, book, "ship", crashes=2), SearchStrategy[tuple[Crash | Fail, ...]])
    assert_type(strategies.schedules(), SearchStrategy[Schedules])
    assert_type(Crash(1, "before").at, int)
    del order


def testing_kit(durable: Harness, order: Order) -> None:
    run = durable.start(fulfil, order)
    assert_type(run, Run[int])
    assert_type(durable.run(fulfil, order), int)
    assert_type(durable.result(run, within=timedelta(days=1)), int)
    assert_type(durable.do(run.info()), RunInfo)
    assert_type(durable.state(run.id), State)
    durable.signal(run, Paid(charge_id="c"), dedupe="d")
    durable.answer(run, Review, Decision(granted=True, by="ada"), by="ada")
    durable.advance(timedelta(days=3))
    durable.crash(after=charge)
    durable.crash(before=book)
    durable.crash(at=3, landed=True)
    assert_type(durable.run_until_crash(fulfil, order), Run[int])
    durable.restart(after=3600)
    durable.fail(charge, times=2, error=ValueError("no"))
    durable.replace(render, lambda order: order.id.encode())
    assert_type(durable.calls(charge), list[StepCalled])
    assert_type(durable.crash_everywhere(fulfil, order, script=lambda scene, _run: scene.advance(1)), Explored)
    with harness(seed=1, now=datetime(2030, 1, 1, tzinfo=UTC)) as other:
        assert_type(other, Harness)

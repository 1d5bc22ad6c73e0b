"""Transactions of the application: rows, runs and messages are one commit, outside of any run."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Callable
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from durable_sqlite import (
    Engine,
    EngineClosed,
    RunConflict,
    RunExists,
    RunFailed,
    Signal,
    SignalRejected,
    State,
    Tx,
    UnknownRun,
    UsageError,
    step,
    transaction,
    workflow,
)
from tests.support.gates import eventually
from tests.support.restarts import quiet
from tests.support.stage import ended, until

_PATIENCE = 20.0


class TxNudge(Signal):
    text: str = ""


class Order(BaseModel):
    id: str
    cents: int


def tables(tx: Tx) -> None:
    tx.execute("CREATE TABLE IF NOT EXISTS orders (id TEXT PRIMARY KEY, cents INTEGER NOT NULL)")
    tx.execute("CREATE TABLE IF NOT EXISTS counters (n INTEGER NOT NULL)")


def orders(tx: Tx) -> list[str]:
    return tx.fetch_all(str, "SELECT id FROM orders ORDER BY id")


@step
async def pack(order: Order) -> str:
    return f"packed {order.id}"


@workflow
async def fulfil(order: Order) -> str:
    return await pack(order)


@workflow
async def listens() -> str:
    return (await TxNudge.wait()).text


def accept(tx: Tx, order: Order) -> str:
    tx.execute("INSERT INTO orders VALUES (?, ?)", (order.id, order.cents))
    return tx.start(fulfil.options(id=f"order-{order.id}"), order)


A, B = Order(id="a", cents=1), Order(id="b", cents=2)

# Values --------------------------------------------------------------------------------------------------------------


def test_it_gives_what_the_function_returned_and_records_nothing() -> None:
    made = object()

    def look(tx: Tx, number: int, *, word: str) -> tuple[object, int, str]:
        return made, number, word

    async def scenario() -> None:
        async with Engine(":memory:") as engine:
            assert await engine.transact(look, 7, word="w") == (made, 7, "w")
            assert await engine.transact(lambda tx: tx.fetch_one(int, "SELECT 3")) == 3
            assert await engine.count() == 0

    asyncio.run(scenario())


def test_a_decorated_transaction_is_run_as_its_function() -> None:
    @transaction(raises=(LookupError,))
    def add(tx: Tx, order: Order) -> Order:
        accept(tx, order)
        return order

    async def scenario() -> None:
        async with Engine(":memory:") as engine:
            await engine.transact(tables)
            assert await engine.transact(add, A) is A
            assert await engine.transact(orders) == ["a"]

    asyncio.run(scenario())


def test_an_exception_passes_through_as_it_is_and_nothing_of_the_transaction_stays() -> None:
    class Odd(Exception):
        def __init__(self, first: int, second: object) -> None:  # pickle could not make it again
            super().__init__("odd")
            self.facts = (first, second)

    error = Odd(1, threading.Lock())

    def act(tx: Tx) -> None:
        accept(tx, A)
        raise error

    async def scenario() -> None:
        async with Engine(":memory:") as engine:
            await engine.transact(tables)
            with pytest.raises(Odd) as caught:
                await engine.transact(act)
            assert caught.value is error
            assert await engine.transact(orders) == []
            assert await engine.count() == 0

    asyncio.run(scenario())


def test_it_has_the_context_of_its_caller() -> None:
    colour: ContextVar[str] = ContextVar("colour", default="none")

    def look(tx: Tx) -> str:
        seen = colour.get()
        colour.set("leaked")
        return seen

    async def scenario() -> None:
        async with Engine(":memory:") as engine:
            colour.set("red")
            assert await engine.transact(look) == "red"
            assert colour.get() == "red"

    asyncio.run(scenario())


def test_sql_that_takes_too_long_is_a_time_out_error() -> None:
    def forever(tx: Tx) -> None:
        accept(tx, A)
        tx.execute("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n")

    async def scenario() -> None:
        ticks = itertools.count(0.0, 0.25)
        engine = Engine(":memory:")
        engine._journal_options["monotonic"] = lambda: next(ticks)
        async with engine:
            await engine.transact(tables)
            with pytest.raises(TimeoutError, match="transaction forever took longer than 5 s"):
                await engine.transact(forever)
            with pytest.raises(TimeoutError, match="transaction forever took longer than 2 s"):
                await engine.transact(transaction(timeout=2)(forever))
            assert await engine.transact(orders) == []

    asyncio.run(scenario())


# Refused -------------------------------------------------------------------------------------------------------------


async def is_async(tx: Tx) -> None: ...


@pytest.mark.parametrize("fn", [is_async, 3, fulfil, pack])
def test_what_is_no_plain_function_is_refused(fn: Any) -> None:
    async def scenario() -> None:
        async with Engine(":memory:") as engine:
            with pytest.raises(UsageError, match="plain function"):
                await engine.transact(fn)

    asyncio.run(scenario())


def test_it_is_refused_in_bodies_and_in_steps_and_in_transactions() -> None:
    engines: list[Engine] = []

    @step
    async def in_a_step() -> None:
        await engines[0].transact(orders)

    @transaction
    def in_a_transaction(tx: Tx) -> None:
        coroutine = engines[0].transact(orders)
        try:
            coroutine.send(None)
        finally:
            coroutine.close()

    @workflow
    async def by(what: str) -> None:
        match what:
            case "body":
                await engines[0].transact(orders)
            case "step":
                await in_a_step()
            case _:
                await in_a_transaction()

    async def scenario() -> None:
        async with Engine(":memory:") as engine:
            engines.append(engine)
            for what, says in (
                ("body", "engine.transact() inside a body is not recorded"),
                ("step", "engine.transact() inside a step may happen more than once"),
                ("transaction", "engine.transact() inside a step may happen more than once"),
            ):
                assert says in str(await ended(await by.start(what), RunFailed))

    asyncio.run(scenario())


def test_an_engine_that_is_closed_refuses_it() -> None:
    async def scenario() -> None:
        engine = Engine(":memory:")
        with pytest.raises(UsageError):
            await engine.transact(orders)
        async with engine:
            pass
        with pytest.raises(EngineClosed):
            await engine.transact(orders)

    asyncio.run(scenario())


# Runs ----------------------------------------------------------------------------------------------------------------


def test_a_row_and_a_run_are_one_commit_and_the_run_is_driven() -> None:
    async def scenario() -> None:
        async with Engine(":memory:") as engine:
            await engine.transact(tables)
            run_id = await engine.transact(accept, A)
            assert run_id == "order-a"
            assert await engine.run(run_id).result(timeout=_PATIENCE) == "packed a"
            assert (await engine.run(run_id).info()).parent is None
            assert await engine.transact(orders) == ["a"]

    asyncio.run(scenario())


def test_a_run_that_is_given_no_id_gets_one_of_its_own_each_time() -> None:
    def begin(tx: Tx) -> list[str]:
        return [tx.start(fulfil, A), tx.start(fulfil, A), tx.start(fulfil.options(tags={"a": "b"}), B)]

    async def scenario() -> None:
        async with Engine(":memory:") as engine:
            ids = [*await engine.transact(begin), *await engine.transact(begin)]
            assert len(set(ids)) == 6
            for run_id in ids:
                await engine.run(run_id).result(timeout=_PATIENCE)

    asyncio.run(scenario())


def test_a_message_wakes_the_run_that_waits_for_it_and_a_second_one_with_its_dedupe_value_is_the_same() -> None:
    def tell(tx: Tx, text: str) -> None:
        tx.signal("listener", TxNudge(text=text), dedupe="once")

    async def scenario() -> None:
        async with Engine(":memory:", unload_after=0) as engine:
            run = await listens.options(id="listener").start()
            await quiet(engine)
            assert (await run.info()).state is State.SUSPENDED
            await engine.transact(tell, "first")
            await engine.transact(tell, "second")
            assert await run.result(timeout=_PATIENCE) == "first"
            assert await run.messages() == []

    asyncio.run(scenario())


def test_a_run_may_be_started_and_sent_a_message_in_one_commit() -> None:
    def begin(tx: Tx) -> str:
        run_id = tx.start(listens)
        tx.signal(run_id, TxNudge(text="welcome"))
        return run_id

    async def scenario() -> None:
        async with Engine(":memory:") as engine:
            run_id = await engine.transact(begin)
            assert await engine.run(run_id).result(timeout=_PATIENCE) == "welcome"

    asyncio.run(scenario())


def test_an_id_that_is_taken_is_attached_to_refused_or_replaced_as_it_was_asked() -> None:
    def begin(tx: Tx, order: Order, if_exists: Any) -> str:
        tx.execute("INSERT INTO counters VALUES (1)")
        return tx.start(fulfil.options(id="one", if_exists=if_exists), order)

    async def scenario() -> None:
        async with Engine(":memory:") as engine:
            await engine.transact(tables)
            await engine.transact(begin, A, "attach")
            first = await engine.run("one").info()
            await engine.run("one").result(timeout=_PATIENCE)
            assert await engine.transact(begin, A, "attach") == "one"
            assert (await engine.run("one").info()).uid == first.uid
            with pytest.raises(RunConflict):
                await engine.transact(begin, B, "attach")
            with pytest.raises(RunExists):
                await engine.transact(begin, A, "fail")
            assert await engine.transact(begin, B, "replace") == "one"
            assert await engine.run("one").result(timeout=_PATIENCE) == "packed b"
            assert (await engine.run("one").info()).uid != first.uid
            assert await engine.transact(lambda tx: tx.fetch_one(int, "SELECT count(*) FROM counters")) == 3

    asyncio.run(scenario())


def test_a_message_to_no_run_or_to_one_that_has_ended_is_refused_and_takes_the_rows_along() -> None:
    def tell(tx: Tx, run_id: str) -> None:
        tx.execute("INSERT INTO counters VALUES (1)")
        tx.signal(run_id, TxNudge())

    async def scenario() -> None:
        async with Engine(":memory:") as engine:
            await engine.transact(tables)
            await (await fulfil.options(id="done").start(A))
            for run_id, error in (("nobody", UnknownRun), ("done", SignalRejected)):
                with pytest.raises(error):
                    await engine.transact(tell, run_id)
            assert await engine.transact(lambda tx: tx.fetch_one(int, "SELECT count(*) FROM counters")) == 0

    asyncio.run(scenario())


def test_whoever_stops_waiting_for_it_undoes_nothing_and_its_runs_are_driven_all_the_same(tmp_path: Path) -> None:
    here, go = threading.Event(), threading.Event()

    def slow(tx: Tx) -> str:
        here.set()
        assert go.wait(_PATIENCE)
        return accept(tx, A)

    async def scenario() -> None:
        async with Engine(tmp_path / "j.db") as engine:
            await engine.transact(tables)
            task = asyncio.create_task(engine.transact(slow))
            await until(here.is_set)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            go.set()
            assert await engine.transact(orders) == ["a"]
            assert await engine.run("order-a").result(timeout=_PATIENCE) == "packed a"

    asyncio.run(scenario())


def test_a_client_that_drives_nothing_may_do_it_and_another_engine_drives_the_run(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Engine(tmp_path / "j.db", drive=False) as client:
            await client.transact(tables)
            await client.transact(accept, A)
            assert (await client.run("order-a").info()).state is State.PENDING
            async with Engine(tmp_path / "j.db", workflows=[fulfil]) as engine:
                assert await engine.run("order-a").result(timeout=_PATIENCE) == "packed a"
                await client.transact(accept, B)  # while the other one is open
                assert await engine.run("order-b").result(timeout=_PATIENCE) == "packed b"

    asyncio.run(scenario())


def test_a_message_from_another_engine_wakes_a_run_that_waits(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Engine(tmp_path / "j.db", workflows=[listens]) as engine:
            run = await listens.options(id="listener", engine=engine).start()
            await quiet(engine)
            async with Engine(tmp_path / "j.db", drive=False) as client:
                await client.transact(lambda tx: tx.signal("listener", TxNudge(text="from afar")))
                assert await run.result(timeout=_PATIENCE) == "from afar"

    asyncio.run(scenario())


# Several engines -----------------------------------------------------------------------------------------------------


def test_several_engines_on_one_file_lose_no_increment(tmp_path: Path) -> None:
    def count_up(tx: Tx) -> int:
        seen = tx.fetch_one(int, "SELECT n FROM counters")
        assert seen is not None
        tx.execute("UPDATE counters SET n = ?", (seen + 1,))  # read, then written: only a real transaction keeps it
        return seen + 1

    def begin(tx: Tx) -> None:
        tables(tx)
        tx.execute("INSERT INTO counters VALUES (0)")

    def life(made: list[int]) -> None:
        async def scenario() -> None:
            async with Engine(tmp_path / "j.db", drive=False) as engine:
                made.extend(await asyncio.gather(*(engine.transact(count_up) for _ in range(40))))

        asyncio.run(scenario())

    async def with_the_engine(act: Callable[[Tx], Any]) -> Any:
        async with Engine(tmp_path / "j.db") as engine:
            return await engine.transact(act)

    asyncio.run(with_the_engine(begin))
    made: list[list[int]] = [[], [], []]
    threads = [threading.Thread(target=life, args=(own,)) for own in made]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(itertools.chain(*made)) == list(range(1, 121))
    assert asyncio.run(with_the_engine(lambda tx: tx.fetch_one(int, "SELECT n FROM counters"))) == 120


def test_whatever_a_watcher_sees_of_a_row_it_sees_of_its_run(tmp_path: Path) -> None:
    async def scenario() -> None:
        path = tmp_path / "j.db"
        async with Engine(path, workflows=[fulfil]) as engine, Engine(path, drive=False) as other:
            await engine.transact(tables)

            async def arrived() -> list[str]:
                return await other.transact(orders)

            task = asyncio.create_task(engine.transact(accept, A))
            await eventually(arrived)
            assert (await other.run("order-a").info()).workflow == "fulfil"
            await task

    asyncio.run(scenario())


def test_a_function_that_hands_back_a_coroutine_is_refused_and_writes_nothing(tmp_path: Path) -> None:
    async def later(_tx: Tx) -> None:
        raise AssertionError

    def hides_it(tx: Tx) -> object:
        tx.execute("CREATE TABLE half (x)")
        return later(tx)

    async def scenario() -> None:
        async with Engine(tmp_path / "j.db") as engine:
            with pytest.raises(UsageError, match="a coroutine"):
                await engine.transact(hides_it)
            assert not await engine.transact(
                lambda tx: tx.execute("SELECT 1 FROM sqlite_schema WHERE name = 'half'").rows
            )

    asyncio.run(scenario())

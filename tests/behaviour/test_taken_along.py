"""What is sent to a run whose body rests in this process takes the run along, and nobody holds what nobody drives."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from durable_sqlite import Engine, Run, RunCancelled, Signal, State, Suspend, step, workflow
from durable_sqlite._records import Hold, News, RunRow, Taken
from durable_sqlite._run import Pass
from tests.support.clock import ManualClock
from tests.support.gates import Gate, deaf, session_of
from tests.support.restarts import quiet
from tests.support.stage import Stage, ended, until

Send = Callable[[Run[Any]], Coroutine[Any, Any, None]]


class Parcel(Signal, name="taken-parcel"):
    n: int = 0


class Receipt(Suspend[int], name="taken-receipt"):
    pass


@workflow
async def gets(seconds: float = 3600) -> int | None:
    """Gets what comes: a message, or an answer."""
    parcel = asyncio.create_task(Parcel.wait(timeout=seconds))
    receipt = asyncio.create_task(Receipt().wait(key="receipt", timeout=seconds))
    await asyncio.wait([parcel, receipt], return_when=asyncio.FIRST_COMPLETED)
    if not parcel.done():
        parcel.cancel()
        return receipt.result()
    receipt.cancel()
    return None if (got := parcel.result()) is None else got.n


async def message(run: Run[Any]) -> None:
    await run.signal(Parcel(n=7))


async def answer(run: Run[Any]) -> None:
    await run.answer(Receipt, 7)


SENDS: dict[str, Send] = {"signal": message, "answer": answer}
BOTH = pytest.mark.parametrize("verb", SENDS)
WHEN = pytest.mark.parametrize("before", [True, False], ids=["before the commit", "before it is heard of"])


def body_in(engine: Engine) -> Pass:
    (body,) = session_of(engine).worker._residents.passes.values()
    return body


async def row_of(engine: Engine, run_id: str) -> RunRow:
    row = await session_of(engine).journal.run(run_id)
    assert row is not None
    return row


async def at_rest(engine: Engine, *args: Any) -> Run[int | None]:
    run = await gets.options(id="x").start(*args)
    await quiet(engine)
    return run


async def half_sent(
    engine: Engine, verb: str, monkeypatch: pytest.MonkeyPatch, *, before: bool = False
) -> tuple[Run[int | None], Gate, asyncio.Task[None]]:
    """A run at rest to which something is being sent, held up before the commit or before it is heard of."""
    run = await at_rest(engine)
    gate = Gate(engine, verb, monkeypatch, before=before)
    sending = asyncio.create_task(SENDS[verb](run))
    await gate.reached()
    return run, gate, sending


# One commit ----------------------------------------------------------------------------------------------------------


@pytest.mark.contradicts("two", "crash", "unload", reason="its body rests where the message comes from")
@BOTH
def test_a_body_at_rest_goes_on_with_the_commit_of_what_is_sent_to_it(
    verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a look nor a second commit lies between: all of them are held, and the body goes on."""

    async def scenario() -> None:
        async with Engine(":memory:", clock=ManualClock()) as engine:
            run = await at_rest(engine)
            held = [Gate(engine, each, monkeypatch, before=True) for each in ("claim", "reclaim", "mail", "memories")]
            await SENDS[verb](run)
            assert await run.result(timeout=20) == 7
            reached = [gate._reached for gate in held]
            for gate in held:
                gate.open()
            assert reached == [0, 0, 0, 0]

    asyncio.run(scenario())


@pytest.mark.contradicts("two", "crash", "unload", reason="its body rests where the message comes from")
@BOTH
def test_a_body_at_rest_goes_on_at_once_with_what_another_body_sends_to_it(
    verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    @workflow
    async def sends() -> None:
        await SENDS[verb](gets.run("x"))

    async def scenario() -> None:
        async with Engine(":memory:", clock=ManualClock(), workflows=[sends]) as engine:
            run = await at_rest(engine)
            held = [Gate(engine, each, monkeypatch, before=True) for each in ("claim", "reclaim", "mail", "memories")]
            await sends()
            assert await run.result(timeout=20) == 7
            reached = [gate._reached for gate in held]
            for gate in held:
                gate.open()
            assert reached == [0, 0, 0, 0]

    asyncio.run(scenario())


def test_what_several_send_at_once_is_given_in_its_order() -> None:
    @workflow
    async def flow() -> list[int]:
        return [(await Parcel.wait()).n for _ in range(5)]

    async def scenario() -> None:
        async with Engine(":memory:", clock=ManualClock()) as engine:
            run = await flow.start()
            await quiet(engine)
            await asyncio.gather(*(run.signal(Parcel(n=n)) for n in range(5)))
            assert await run.result(timeout=20) == [0, 1, 2, 3, 4]

    asyncio.run(scenario())


@pytest.mark.contradicts("two", "crash", "unload", reason="its body rests where the message comes from")
def test_what_another_process_has_sent_before_and_nobody_has_heard_of_is_given_before(tmp_path: Path) -> None:
    @workflow
    async def flow() -> list[int]:
        return [(await Parcel.wait()).n for _ in range(2)]

    async def scenario() -> None:
        clock = ManualClock()
        async with Engine(tmp_path / "j.db", clock=clock, unload_after=3600) as engine:
            run = await flow.options(id="x").start()
            await quiet(engine)
            await deaf(engine)
            async with Engine(tmp_path / "j.db", clock=clock, drive=False) as client:
                await client.run("x").signal(Parcel(n=1))
            assert body_in(engine).at_rest
            await run.signal(Parcel(n=2))
            assert await run.result(timeout=20) == [1, 2]

    asyncio.run(scenario())


# Nobody holds what nobody drives -------------------------------------------------------------------------------------


@pytest.mark.contradicts("two", "crash", "unload", reason="its body rests where the message comes from")
@BOTH
@WHEN
def test_a_body_that_leaves_memory_meanwhile_is_loaded_again(
    verb: str, before: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with Engine(":memory:", clock=ManualClock()) as engine:
            run, gate, sending = await half_sent(engine, verb, monkeypatch, before=before)
            session_of(engine).worker._unload(body_in(engine))  # as it does to make room
            gate.open()
            await sending
            await engine.join()  # it is not quiet before the run was driven
            assert (await run.info()).state is State.COMPLETED
            assert await run.result(timeout=20) == 7

    asyncio.run(scenario())


@pytest.mark.contradicts("two", "crash", "unload", reason="its body rests where the message comes from")
@BOTH
def test_what_is_given_back_is_looked_for_once_that_is_committed(verb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        async with Engine(":memory:", clock=ManualClock()) as engine:
            run = await at_rest(engine)
            gate, back = Gate(engine, verb, monkeypatch), Gate(engine, "leave", monkeypatch, before=True)
            sending = asyncio.create_task(SENDS[verb](run))
            await gate.reached()
            session_of(engine).worker._unload(body_in(engine))
            gate.open()
            await sending
            await back.reached()
            await quiet(engine)  # it has looked, and found nothing
            back.open()
            assert await run.result(timeout=20) == 7

    asyncio.run(scenario())


@pytest.mark.contradicts("two", "crash", "unload", reason="its body rests where the message comes from")
@BOTH
def test_a_body_that_left_memory_to_make_room_comes_back_when_there_is_some(
    verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = Stage()

    @step
    async def work() -> None:
        await stage.enter("work")

    @workflow
    async def busy() -> None:
        await work()

    async def scenario() -> None:
        async with Engine(":memory:", clock=ManualClock(), max_resident=1) as engine:
            run, gate, sending = await half_sent(engine, verb, monkeypatch)
            other = await busy.start()  # the only place is its own now
            await stage.seen("work")
            gate.open()
            await sending
            stage.let("work")
            await other
            assert await run.result(timeout=20) == 7

    asyncio.run(scenario())


@pytest.mark.contradicts("two", "crash", "unload", reason="its body rests where the message comes from")
@BOTH
@WHEN
def test_a_run_whose_lease_is_over_meanwhile_is_given_back_and_driven_again(
    verb: str, before: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with Engine(tmp_path / "j.db", clock=ManualClock()) as engine:
            run, gate, sending = await half_sent(engine, verb, monkeypatch, before=before)
            session = session_of(engine)
            session.lapsed("a test says so")
            await until(lambda: session._rejoining is None)
            gate.open()
            await sending
            assert await run.result(timeout=20) == 7

    asyncio.run(scenario())


@pytest.mark.contradicts("two", "crash", "unload", reason="its body rests where the message comes from")
@BOTH
@WHEN
def test_what_is_heard_of_while_the_lease_is_over_holds_nothing(
    verb: str, before: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with Engine(tmp_path / "j.db", clock=ManualClock()) as engine:
            run, gate, sending = await half_sent(engine, verb, monkeypatch, before=before)
            worker = session_of(engine).worker
            await worker.step_back()
            gate.open()
            await sending
            await until(lambda: not worker._leaving)
            row = await row_of(engine, "x")
            assert (row.state, row.owner, row.deaths, row.interrupted) == (State.PENDING, None, 0, False)
            worker.come_back()
            assert await run.result(timeout=20) == 7

    asyncio.run(scenario())


@pytest.mark.contradicts("two", "crash", "unload", reason="its body rests where the message comes from")
@BOTH
@WHEN
def test_a_run_whose_engine_stands_down_meanwhile_is_left_to_others(
    verb: str, before: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with Engine(tmp_path / "j.db", clock=ManualClock()) as engine:
            _, gate, sending = await half_sent(engine, verb, monkeypatch, before=before)
            assert await engine.drain()
            gate.open()
            await sending
            await until(lambda: not session_of(engine).worker._leaving)
            row = await row_of(engine, "x")
            assert (row.state, row.owner, row.deaths, row.interrupted) == (State.PENDING, None, 0, False)
            async with Engine(tmp_path / "j.db", clock=ManualClock(), workflows=[gets]) as other:
                assert await other.run("x").result(timeout=20) == 7

    asyncio.run(scenario())


@pytest.mark.contradicts("two", "crash", "unload", reason="its body rests where the message comes from")
@BOTH
def test_a_run_whose_engine_closes_before_it_hears_is_given_back(
    verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with Engine(tmp_path / "j.db", clock=ManualClock()) as engine:
            _, gate, sending = await half_sent(engine, verb, monkeypatch)
        gate.open()
        await sending
        async with Engine(tmp_path / "j.db", clock=ManualClock(), drive=False) as client:
            row = await row_of(client, "x")
            assert (row.state, row.owner, row.deaths) == (State.PENDING, None, 0)
        async with Engine(tmp_path / "j.db", clock=ManualClock(), workflows=[gets]) as engine:
            assert await engine.run("x").result(timeout=20) == 7

    asyncio.run(scenario())


@pytest.mark.contradicts("two", "crash", "unload", reason="its body rests where the message comes from")
@BOTH
@WHEN
def test_a_run_whose_sender_is_cancelled_meanwhile_goes_on(
    verb: str, before: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with Engine(":memory:", clock=ManualClock()) as engine:
            run, gate, sending = await half_sent(engine, verb, monkeypatch, before=before)
            sending.cancel()
            await asyncio.wait([sending])
            assert sending.cancelled()
            gate.open()
            assert await run.result(timeout=20) == 7

    asyncio.run(scenario())


@pytest.mark.contradicts("two", "crash", "unload", reason="its body rests where the message comes from")
@BOTH
def test_a_body_that_wakes_for_another_reason_before_it_hears_gets_what_came(
    verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its deadline comes: it wants the run again, and finds it taken, by its own worker."""

    async def scenario() -> None:
        clock = ManualClock()
        async with Engine(":memory:", clock=clock, unload_after=3600) as engine:
            run = await at_rest(engine, 10.0)
            gate, again = Gate(engine, verb, monkeypatch), Gate(engine, "reclaim", monkeypatch)
            sending = asyncio.create_task(SENDS[verb](run))
            await gate.reached()
            clock.advance(10)
            await again.reached()
            gate.open()
            await sending
            again.open()
            assert await run.result(timeout=20) == 7

    asyncio.run(scenario())


@pytest.mark.contradicts("two", "crash", "unload", reason="its body rests where the message comes from")
@BOTH
def test_a_run_that_is_cancelled_before_its_body_hears_ends_cancelled(
    verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with Engine(":memory:", clock=ManualClock()) as engine:
            run, gate, sending = await half_sent(engine, verb, monkeypatch)
            await run.cancel(reason="enough")
            gate.open()
            await sending
            assert (await ended(run, RunCancelled)).run_id == "x"

    asyncio.run(scenario())


@pytest.mark.contradicts("two", "crash", "unload", reason="its body rests where the message comes from")
def test_a_body_goes_on_for_its_own_hold_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        async with Engine(":memory:", clock=ManualClock()) as engine:
            run = await at_rest(engine)
            body = body_in(engine)
            gate = Gate(engine, "leave", monkeypatch)
            late = Hold(body.hold.run, body.hold.epoch + 2)
            question = (await session_of(engine).journal.memory(late.run)).questions[0]
            session_of(engine).worker.mailed(body.row, Taken(late, question, News(late.run, None, None)))
            await gate.reached()
            gate.open()
            await quiet(engine)
            assert body.at_rest
            await run.signal(Parcel(n=7))
            assert await run.result(timeout=20) == 7

    asyncio.run(scenario())


@pytest.mark.contradicts("two", "crash", "unload", reason="its body rests where the message comes from")
def test_no_hold_is_lent_where_nothing_is_to_be_taken_up() -> None:
    async def scenario() -> None:
        async with Engine(":memory:", clock=ManualClock()) as engine:
            await at_rest(engine)
            worker, body = session_of(engine).worker, body_in(engine)
            assert worker.at_rest("x") == body.hold
            assert worker.at_rest("nobody") is None
            for why in ("away", "standing_down", "closed"):
                setattr(worker, why, True)
                assert worker.at_rest("x") is None
                setattr(worker, why, False)
            body._rester.at_rest = False
            assert worker.at_rest("x") is None
            body._rester.at_rest = True

    asyncio.run(scenario())

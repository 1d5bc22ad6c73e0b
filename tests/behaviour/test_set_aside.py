"""Messages and answers that come past all types: out of the way, with the reason, and the run goes on waiting."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from pathlib import Path

import pytest

from durable_sqlite import Engine, Signal, State, Suspend, workflow
from durable_sqlite._clock import to_datetime
from tests.support.clock import START, ManualClock
from tests.support.gates import Gate, answer_raw, eventually, send_raw
from tests.support.restarts import die, quiet


class Price(Signal):
    n: int


class HowMany(Suspend[int]):
    text: str = "how many?"


@workflow
async def takes(count: int) -> list[int | None]:
    got: list[int | None] = []
    for _ in range(count):
        paid = await Price.wait(timeout=100)
        got.append(None if paid is None else paid.n)
    return got


@workflow
async def asks() -> int | None:
    return await HowMany().wait(timeout=100)


def put_in(journal: Path, payloads: list[bytes], at: int) -> None:
    """Do by hand what a send does, for the only run of a journal that nobody has open."""
    by_hand = sqlite3.connect(journal)
    names = [name for (name,) in by_hand.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    (signals,), (runs,) = ([name for name in names if name.endswith(end)] for end in ("signals", "runs"))
    for number, payload in enumerate(payloads, start=1):
        by_hand.execute(
            f"INSERT INTO {signals} (run, no, name, sent_at, payload) SELECT no, ?, 'Price', ?, ? FROM {runs}",
            (number, at, payload),
        )
    by_hand.execute(f"UPDATE {runs} SET state = 'pending', due_at = NULL")
    by_hand.commit()
    by_hand.close()


# Messages ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("payload", "shown", "why"),
    [
        (b'{"n":"many"}', {"n": "many"}, "n: "),
        (b"{}", {}, "n: "),
        (b"[1]", [1], ""),
        (b"null", None, ""),
        (b"7", 7, ""),
        (b"no json", None, "JSON"),
        (b"", None, "JSON"),
        (b"\xff\xfe", None, ""),
    ],
)
def test_a_message_that_fits_no_type_is_set_aside_with_its_error_and_the_run_waits_on(
    payload: bytes, shown: object, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        async with Engine(":memory:", clock=ManualClock()) as engine:
            run = await takes.options(id="x").start(1)
            await quiet(engine)
            await send_raw(engine, "x", "Price", payload)
            await quiet(engine)
            info = await run.info()
            assert info.state is State.SUSPENDED
            assert info.waiting_for[0].startswith("a message Price (Price#1)")
            (message,) = await run.messages()
            assert message.message == shown
            assert message.error is not None
            assert message.error.type == "durable_sqlite.errors.Undecodable"
            assert why in message.error.message
            await run.signal(Price(n=7))
            assert await run.result(timeout=20) == [7]
            assert await run.messages() == [message]  # still there, for people to see

    with caplog.at_level(logging.WARNING, logger="durable_sqlite"):
        asyncio.run(scenario())
    assert "run x: message 1, Price, was set aside" in caplog.text


def test_a_message_put_into_the_file_by_sql_and_accepted_is_held_against_the_type_when_it_is_taken(
    tmp_path: Path,
) -> None:
    clock = ManualClock()

    async def scenario() -> None:
        async with Engine(tmp_path / "j.db", clock=clock) as engine:
            await takes.options(id="x").start(2)
            await quiet(engine)
        put_in(tmp_path / "j.db", [b'{"n":"many"}', b'{"n":7}', b"{", b'{"n":8}'], clock.now())
        async with Engine(tmp_path / "j.db", clock=clock, drive=False) as client:
            assert not (await client.verify(accept=["x"])).ok  # nobody sent them
        async with Engine(tmp_path / "j.db", clock=clock, workflows=[takes]) as engine:
            assert await takes.run("x").result(timeout=20) == [7, 8]
            first, third = await engine.run("x").messages()
            assert (first.message, third.message) == ({"n": "many"}, None)
            assert first.error is not None
            assert third.error is not None

    asyncio.run(scenario())


def test_what_was_set_aside_stays_so_after_a_crash_and_is_not_looked_at_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock = ManualClock()

    async def scenario() -> None:
        async with Engine(tmp_path / "j.db", clock=clock) as engine:
            await takes.options(id="x").start(1)
            await quiet(engine)
            await send_raw(engine, "x", "Price", b"{}")
            await quiet(engine)
            await die(engine)
        async with Engine(tmp_path / "j.db", clock=clock, workflows=[takes]) as engine:
            await quiet(engine)
            run = takes.run("x")
            assert (await run.info()).state is State.SUSPENDED
            await run.signal(Price(n=7))
            assert await run.result(timeout=20) == [7]

    with caplog.at_level(logging.WARNING, logger="durable_sqlite"):
        asyncio.run(scenario())
    assert caplog.text.count("was set aside") == 1


def test_a_message_that_was_set_aside_is_nothing_that_came_in_time() -> None:
    async def scenario() -> None:
        clock = ManualClock()
        async with Engine(":memory:", clock=clock) as engine:
            run = await takes.start(2)
            await quiet(engine)
            await send_raw(engine, run.id, "Price", b"{}")
            await quiet(engine)
            clock.advance(100)
            await quiet(engine)
            assert [entry.outcome for entry in await run.history()] == ["timeout"]
            await run.signal(Price(n=7))
            assert await run.result(timeout=20) == [None, 7]

    asyncio.run(scenario())


# Answers -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("payload", [b'"many"', b"null", b"1.5", b"{", b""])
def test_an_answer_that_fits_no_type_is_set_aside_and_the_question_stays_open(
    payload: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        clock = ManualClock()
        async with Engine(":memory:", clock=clock) as engine:
            run = await asks.options(id="x").start()
            await quiet(engine)
            clock.advance(1)
            await answer_raw(engine, "x", "HowMany", payload, by="a robot")
            await quiet(engine)
            assert (await run.info()).state is State.SUSPENDED
            (question,) = await run.questions()
            assert (question.key, question.asked_at) == ("HowMany#1", to_datetime(START))
            assert question.error is not None
            assert question.error.type == "durable_sqlite.errors.Undecodable"
            await run.answer(HowMany, 7, by="ada")
            assert await run.result(timeout=20) == 7
            (entry,) = await run.history()
            assert entry.decided_by == "ada"

    with caplog.at_level(logging.WARNING, logger="durable_sqlite"):
        asyncio.run(scenario())
    assert "run x: the answer to HowMany#1 was set aside" in caplog.text


def test_an_early_answer_that_fits_no_type_is_set_aside_when_the_question_is_asked() -> None:
    @workflow
    async def flow() -> int:
        await Price.wait()
        return await HowMany()

    async def scenario() -> None:
        async with Engine(":memory:", clock=ManualClock()) as engine:
            run = await flow.start()
            await quiet(engine)
            await answer_raw(engine, run.id, "HowMany", b'"many"', early=True)
            await run.signal(Price(n=1))
            await quiet(engine)
            (question,) = await run.questions()
            assert question.error is not None
            await run.answer(HowMany, 0)
            assert await run.result(timeout=20) == 0

    asyncio.run(scenario())


def test_an_answer_that_was_set_aside_is_nothing_that_came_in_time() -> None:
    async def scenario() -> None:
        clock = ManualClock()
        async with Engine(":memory:", clock=clock) as engine:
            run = await asks.start()
            await quiet(engine)
            await answer_raw(engine, run.id, "HowMany", b"{")
            await quiet(engine)
            clock.advance(100)
            assert await run.result(timeout=20) is None

    asyncio.run(scenario())


@pytest.mark.contradicts("two", "crash", "unload", reason="it decides what the one engine hears first")
def test_an_answer_that_comes_while_a_wrong_one_is_set_aside_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        async with Engine(":memory:", clock=ManualClock()) as engine:
            run = await asks.start()
            await quiet(engine)

            async def aside_by_now() -> bool:
                (question,) = await run.questions()
                return question.error is not None

            first = Gate(engine, "mail", monkeypatch)
            await answer_raw(engine, run.id, "HowMany", b"{")
            await first.reached()
            await run.signal(Price(n=1))  # for which somebody has to look again
            second = Gate(engine, "mail", monkeypatch)
            aside = Gate(engine, "reopen", monkeypatch, before=True)
            first.open()
            await second.reached()  # this look has found the wrong answer too
            aside.open()
            await eventually(aside_by_now)
            await run.answer(HowMany, 7)
            second.open()
            assert await run.result(timeout=20) == 7

    asyncio.run(scenario())

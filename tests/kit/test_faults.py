"""Steps that fail, fakes, and what was called."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from durable_sqlite import Retry, RunFailed, SignalSuperseded, Tx, step, workflow
from durable_sqlite.errors import UsageError
from durable_sqlite.testing import Harness, harness
from tests.kit import flows

_SCHEMA = "CREATE TABLE bookings (name TEXT NOT NULL) STRICT;"


@pytest.fixture
def schema(tmp_path: Path) -> Path:
    folder = tmp_path / "schema"
    folder.mkdir()
    (folder / "0001_bookings.sql").write_text(_SCHEMA)
    return folder


def test_a_step_fails_as_often_as_the_test_says(durable: Harness) -> None:
    @workflow
    async def tries() -> int:
        return await flows.fetch.options(retry=Retry(max_attempts=5, initial_delay=60))(1)

    durable.fail(flows.fetch, times=2, error=ConnectionError("no answer"))
    run = durable.start(tries)
    assert durable.result(run) == 10
    assert [called.attempt for called in durable.calls(flows.fetch)] == [1, 2, 3]
    [entry] = durable.history(run)
    assert [failure.error.message for failure in entry.failures] == ["no answer", "no answer"]


def test_a_step_fails_with_a_class_or_with_a_plain_error(durable: Harness) -> None:
    durable.fail(flows.fetch, error=KeyError)
    with pytest.raises(RunFailed, match="KeyError"):
        durable.run(flows.once, 1)
    durable.fail(flows.fetch)
    with pytest.raises(RunFailed, match="fails, as the test has asked"):
        durable.run(flows.once, 1)
    assert durable.run(flows.once, 1) == 10


def test_a_fake_stands_in_for_a_step_and_its_result_is_recorded(durable: Harness) -> None:
    durable.replace(flows.fetch, lambda number: number + 1)
    run = durable.start(flows.both, 1)
    assert durable.result(run) == "both 2"
    assert durable.history(run)[0].value == 2
    assert flows.world == ["grind 1"]


def test_a_fake_may_be_a_coroutine_function_also_of_a_plain_step(durable: Harness) -> None:
    async def fake(number: int) -> str:
        return f"fake {number}"

    durable.replace(flows.grind, fake)
    run = durable.start(flows.both, 1)
    assert durable.history(run)[1].value == "fake 1"


def test_a_fake_that_gives_what_the_step_may_not_give_fails_the_step(durable: Harness) -> None:
    def wrong(number: int) -> Any:
        return f"no number like {number}"

    durable.replace(flows.fetch, wrong)
    with pytest.raises(RunFailed):
        durable.run(flows.once, 1)


def test_what_was_called_is_told_with_its_arguments(durable: Harness) -> None:
    run = durable.start(flows.both, 3)
    [called] = durable.calls(flows.fetch)
    assert (called.run_id, called.key, called.attempt, called.recovered) == (run.id, "fetch#1", 1, False)
    assert called.arguments == {"number": 3}
    assert called.idempotency_key
    assert durable.calls(flows.naps) == []


def test_a_method_is_told_of_like_any_step(durable: Harness) -> None:
    class Shop:
        @step
        async def sell(self, what: str, count: int = 1) -> str:
            return f"{count} {what}"

    shop = Shop()

    @workflow
    async def sells() -> str:
        return await shop.sell("pen")

    durable.replace(Shop.sell, lambda self, what, count=1: f"fake {what} {count}")
    assert durable.run(sells) == "fake pen 1"
    assert durable.calls(Shop.sell)[0].arguments == {"self": shop, "what": "pen", "count": 1}


def test_a_transaction_is_faked_failed_and_told_of(tmp_path: Path, schema: Path) -> None:
    @workflow
    async def books(name: str) -> int:
        return await flows.book.options(retry=Retry(max_attempts=2, initial_delay=1))(name)

    def twice(tx: Tx, name: str) -> int:
        return flows.book.fn(tx, name) + flows.book.fn(tx, name)

    with harness(schema=schema) as durable:
        durable.fail(flows.book, error=ValueError("not now"))
        assert durable.run(books, "ada") == 1
        assert [called.arguments for called in durable.calls(flows.book)] == [{"name": "ada"}] * 2
        durable.replace(flows.book, twice)
        assert durable.run(books, "bob") == 2 + 3


def test_a_step_outside_of_runs_is_its_own_function(durable: Harness) -> None:
    durable.replace(flows.fetch, lambda number: -number)

    @workflow
    async def negative() -> int:
        return await flows.fetch(1)

    assert durable.run(negative) == -1
    assert durable.do(_call()) == "plain"


async def _call() -> str:
    @step
    async def plain() -> str:
        return "plain"

    return await plain()


def test_what_is_no_step_is_refused(durable: Harness) -> None:
    undecorated: Any = flows.fetch.fn
    for refused in (lambda: durable.fail(undecorated), lambda: durable.calls(undecorated)):
        with pytest.raises(UsageError, match="name the decorated function itself"):
            refused()


def test_messages_and_answers_reach_the_run(durable: Harness) -> None:
    hearing, asking = durable.start(flows.hears), durable.start(flows.asks)
    durable.signal(hearing, flows.Go(word="go"))
    [question] = durable.questions(asking)
    assert question.question == {"text": "which?"}
    durable.answer(asking.id, flows.Question, "this", by="ada")
    assert (durable.result(hearing), durable.result(asking)) == ("go", "this")
    with pytest.raises(SignalSuperseded):
        durable.answer(asking, flows.Question, "that")


def test_an_early_answer_waits_for_its_question(durable: Harness) -> None:
    @workflow
    async def later() -> str | None:
        await flows.naps(timedelta(hours=1).total_seconds())
        return await flows.Question(text="?").wait()

    run = durable.start(later)
    durable.answer(run, flows.Question, "before", early=True)
    assert durable.result(run) == "before"

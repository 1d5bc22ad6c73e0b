"""What every journal promises about what is sent to a run whose body rests in its worker's memory: it takes the run along."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest

from durable_sqlite._records import Answered, Hold, News, Sent, State, Taken
from durable_sqlite.errors import LeaseLost
from durable_sqlite.journal import Journal
from tests.conformance.adapters import Lab
from tests.support.journals import (
    asked,
    awaits_answer,
    awaits_message,
    begin,
    entry,
    look,
    new_answer,
    new_message,
    new_question,
    rest,
    wait,
)

Over = Callable[[Callable[[Lab], Coroutine[Any, Any, None]]], None]
Send = Callable[[Journal, Hold | None], Awaitable[Sent | Answered]]


def message(journal: Journal, at_rest: Hold | None) -> Awaitable[Sent]:
    return journal.signal("a", new_message(at=60), at_rest=at_rest)


def answer(journal: Journal, at_rest: Hold | None) -> Awaitable[Answered]:
    return journal.answer("a", new_answer("review#1", at=60), at_rest=at_rest)


BOTH = pytest.mark.parametrize("send", [message, answer])


async def _resting(journal: Journal, *others: Any) -> Hold:
    """A suspended run that waits for a message and for an answer, and for these."""
    _, hold = await begin(journal)
    await journal.ask(hold, new_question())
    assert (await journal.suspend(hold, rest(awaits_message(), awaits_answer(), *others))).suspended
    return hold


async def _is_pending(journal: Journal, sent: Sent | Answered) -> None:
    assert sent.taken is None
    assert (sent.row.state, sent.row.owner) == (State.PENDING, None)
    assert await look(journal) == sent.row


@BOTH
def test_what_wakes_a_run_whose_body_rests_with_its_worker_takes_it_as_a_claim_would(lab: Over, send: Send) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        hold = await _resting(journal, wait("t", deadline=900))
        sent = await send(journal, hold)
        assert sent.taken is not None
        taken = Hold(hold.run, hold.epoch + 1)
        row = await look(journal)
        assert (row.state, row.epoch, row.due_at, row.updated_at) == (State.RUNNING, taken.epoch, None, 60)
        assert row.owner is not None
        assert sent.row == row
        memory = await journal.memory(hold.run)
        if isinstance(sent, Sent):
            assert sent.taken == Taken(taken, sent.message, News(hold.run, None, None))
            assert [*memory.messages] == [sent.message]
        else:
            assert sent.taken == Taken(taken, memory.questions[0], News(hold.run, None, None))
        assert await journal.claim(["ship"], 999, 9, suspects=False) == []
        with pytest.raises(LeaseLost):
            await journal.record(hold, entry())
        await journal.record(taken, entry())

    lab(program)


def test_what_wakes_nobody_takes_nothing(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        hold = await _resting(journal)
        sent = await journal.signal("a", new_message("other"), at_rest=hold)
        assert (sent.taken, sent.row.state, sent.row.epoch) == (None, State.SUSPENDED, hold.epoch)
        early = await journal.answer("a", new_answer(name="other", early=True), at_rest=hold)
        assert (early.taken, early.row.state, early.row.epoch) == (None, State.SUSPENDED, hold.epoch)

    lab(program)


@BOTH
def test_what_comes_after_something_else_has_woken_the_run_leaves_it_to_a_claim(lab: Over, send: Send) -> None:
    """The body has not heard of the other thing, which came first."""

    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        hold = await _resting(journal)
        await journal.signal("a", new_message(at=55))
        await _is_pending(journal, await send(journal, hold))
        (claimed,) = await journal.claim(["ship"], 70, 9, suspects=False)
        assert claimed.hold == Hold(hold.run, hold.epoch + 1)

    lab(program)


@BOTH
def test_a_run_that_another_pass_has_driven_since_is_not_taken_for_the_body_of_before(lab: Over, send: Send) -> None:
    async def program(lab: Lab) -> None:
        journal, other = await lab.worker(), await lab.worker()
        hold = await _resting(journal, wait("t", deadline=45))
        (claimed,) = await other.claim(["ship"], 45, 9, suspects=False)
        waits = (awaits_message(), awaits_answer())
        await other.suspend(claimed.hold, rest(closed=["t"], stays=waits, at=50))
        await _is_pending(journal, await send(journal, hold))

    lab(program)


@BOTH
def test_a_run_that_is_driven_by_then_stays_with_whoever_drives_it(lab: Over, send: Send) -> None:
    async def program(lab: Lab) -> None:
        journal, other = await lab.worker(), await lab.worker()
        hold = await _resting(journal, wait("t", deadline=45))
        (claimed,) = await other.claim(["ship"], 45, 9, suspects=False)
        sent = await send(journal, hold)
        assert (sent.taken, sent.row.state, sent.row.epoch) == (None, State.RUNNING, claimed.hold.epoch)
        await other.record(claimed.hold, entry())

    lab(program)


@BOTH
def test_a_paused_run_is_not_taken(lab: Over, send: Send) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        hold = await _resting(journal)
        await journal.pause("a", asked())
        sent = await send(journal, hold)
        assert (sent.taken, sent.row.state, sent.row.epoch) == (None, State.PAUSED, hold.epoch)

    lab(program)


@BOTH
def test_a_worker_that_was_struck_off_delivers_and_takes_nothing(lab: Over, send: Send) -> None:
    async def program(lab: Lab) -> None:
        zombie, other = await lab.worker(), await lab.worker()
        hold = await _resting(zombie)
        (me,) = await other.workers()
        await other.take_over([me.no], 9, b"{}", 45)
        await _is_pending(other, await send(zombie, hold))
        assert len(await other.claim(["ship"], 70, 9, suspects=False)) == 1

    lab(program)


@BOTH
def test_of_two_that_are_sent_at_once_the_first_takes_the_run(lab: Over, send: Send) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        hold = await _resting(journal)
        first, second = send(journal, hold), journal.signal("a", new_message(at=61), at_rest=hold)
        assert (await first).taken is not None
        sent = await second
        assert (sent.taken, sent.row.state, sent.row.epoch) == (None, State.RUNNING, hold.epoch + 1)

    lab(program)

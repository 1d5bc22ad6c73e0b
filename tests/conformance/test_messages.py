"""What every journal promises about messages to runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from durable_sqlite._records import (
    CANCEL_KEY,
    End,
    Entry,
    Hold,
    IfExists,
    Kind,
    Mail,
    Message,
    Outcome,
    State,
    Wait,
)
from durable_sqlite.errors import LeaseLost, RunConflict, SignalRejected, UnknownRun
from durable_sqlite.journal import Journal
from tests.conformance.adapters import Lab
from tests.support.journals import (
    asked,
    awaits_answer,
    awaits_message,
    begin,
    completed,
    entry,
    failed,
    look,
    new_answer,
    new_message,
    new_question,
    new_run,
    rest,
    wait,
)

Over = Callable[[Callable[[Lab], Coroutine[Any, Any, None]]], None]


async def _waiting(journal: Journal, *waits: Wait) -> Hold:
    """A suspended run that waits for these."""
    _, hold = await begin(journal)
    assert (await journal.suspend(hold, rest(*waits))).suspended
    return hold


def _timeout(key: str = "paid#1", *, seq: int = 1, name: str = "paid") -> Entry:
    return entry(key, seq=seq, kind=Kind.SIGNAL, name=name, outcome=Outcome.TIMEOUT, payload=b"")


# Kept until taken ----------------------------------------------------------------------------------------------------


def test_messages_are_kept_in_the_order_in_which_they_were_stored(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal, other = await lab.worker(), await lab.worker()
        started, _ = await begin(journal)
        await begin(journal, "b")
        sent = await journal.signal("a", new_message(payload=b"\x00\xff", at=52))
        assert (sent.new, sent.row, sent.message) == (True, started.row, Message(1, "paid", b"\x00\xff", 52))
        await journal.signal("b", new_message(payload=b"b"))
        await other.signal("a", new_message("shipped", payload=b"", at=51, dedupe="x"))
        await journal.signal("a", new_message(payload=b"3", at=50))
        messages = [
            Message(1, "paid", b"\x00\xff", 52),
            Message(2, "shipped", b"", 51, "x"),
            Message(3, "paid", b"3", 50),
        ]
        assert (await journal.memory(started.row.no)).messages == messages
        assert await journal.mail(started.row.no) == Mail(messages, [], [])

    lab(program)


def test_a_message_that_was_taken_is_not_there_any_more(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        started, hold = await begin(journal)
        for number in range(4):
            await journal.signal("a", new_message(payload=str(number).encode()))
        await journal.record(hold, entry("paid#1", kind=Kind.SIGNAL), [2])
        await journal.record(hold, entry("drain#1", seq=2, kind=Kind.DRAIN), [1, 3])
        left = [Message(4, "paid", b"3", 50)]
        assert (await journal.memory(started.row.no)).messages == left
        assert (await journal.mail(started.row.no)).messages == left
        assert (await journal.signal("a", new_message())).message.no == 5

    lab(program)


def test_a_message_is_not_taken_by_an_outcome_that_is_refused(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        started, hold = await begin(journal)
        await journal.signal("a", new_message())
        with pytest.raises(LeaseLost):
            await journal.record(Hold(hold.run, 7), entry("paid#1", kind=Kind.SIGNAL), [1])
        assert [message.no for message in (await journal.mail(started.row.no)).messages] == [1]
        assert await journal.entries(started.row.no) == []

    lab(program)


def test_a_message_that_is_set_aside_stays_visible_with_the_reason_and_out_of_the_way(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        started, hold = await begin(journal)
        await journal.signal("a", new_message(dedupe="x"))
        await journal.set_aside(hold, 1, b"\x00why")
        aside = Message(1, "paid", b"m", 50, "x", None, b"\x00why")
        assert (await journal.memory(started.row.no)).messages == [aside]
        assert (await journal.mail(started.row.no)).messages == []
        assert await journal.news() == []
        assert (await journal.signal("a", new_message(dedupe="x"))).message == aside
        assert (await journal.suspend(hold, rest(awaits_message()))).suspended

    lab(program)


def test_a_replacement_has_none_of_the_messages(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        _, hold = await begin(journal)
        await journal.signal("a", new_message(dedupe="x"))
        await journal.end(hold, completed())
        started = await journal.start(new_run(at=70), IfExists.REPLACE, drive=False)
        assert (await journal.memory(started.row.no)).messages == []
        assert (await journal.signal("a", new_message(dedupe="x"))).new

    lab(program)


# Waking --------------------------------------------------------------------------------------------------------------


def test_a_message_wakes_a_suspended_run_that_waits_for_its_name(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        await _waiting(journal, awaits_message("other"), awaits_message(key="paid#2", deadline=900))
        row = (await journal.signal("a", new_message(at=70))).row
        assert (row.state, row.due_at, row.updated_at) == (State.PENDING, None, 70)
        assert await look(journal) == row
        (claimed,) = await journal.claim(["ship"], 80, 9, suspects=False)
        assert claimed.row.id == "a"
        assert len(await journal.waits(row.no)) == 2

    lab(program)


@pytest.mark.parametrize(
    "other",
    [awaits_message("refunded"), awaits_answer("paid"), Wait("paid", Kind.SLEEP, "paid", 1), wait("paid")],
)
def test_a_message_of_a_name_that_no_wait_is_for_wakes_nobody(lab: Over, other: Wait) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        await _waiting(journal, other)
        await begin(journal, "b")
        sent = await journal.signal("a", new_message())
        assert (sent.new, sent.row.state) == (True, State.SUSPENDED)
        assert await journal.claim(["ship"], 80, 9, suspects=False) == []

    lab(program)


def test_a_message_to_a_paused_run_waits_until_it_goes_on(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        await _waiting(journal, awaits_message())
        await journal.pause("a", asked())
        sent = await journal.signal("a", new_message())
        assert (sent.new, sent.row.state) == (True, State.PAUSED)
        assert await journal.claim(["ship"], 80, 9, suspects=False) == []

    lab(program)


@pytest.mark.parametrize("written_before", [True, False])
@pytest.mark.parametrize(
    "other", [awaits_message("refunded"), awaits_answer("paid"), Wait("paid", Kind.SLEEP, "paid", 1)]
)
def test_a_message_of_a_name_that_no_wait_is_for_does_not_forbid_to_rest(
    lab: Over, other: Wait, written_before: bool
) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        _, hold = await begin(journal)
        if written_before:
            await journal.suspend(hold, rest(other))
            await journal.reclaim(hold, 45)
            hold = Hold(hold.run, hold.epoch + 1)
        await journal.signal("a", new_message())
        assert (await journal.suspend(hold, rest(*[] if written_before else [other], at=60))).suspended

    lab(program)


@pytest.mark.parametrize("signal_first", [True, False])
def test_no_wake_up_is_lost_between_a_signal_and_a_run_that_comes_to_rest(lab: Over, signal_first: bool) -> None:
    async def program(lab: Lab) -> None:
        journal, other = await lab.worker(), await lab.worker()
        _, hold = await begin(journal)
        if signal_first:
            await other.signal("a", new_message())
            done = await journal.suspend(hold, rest(awaits_message()))
            assert (done.suspended, done.cancel, done.pause) == (False, None, None)
            assert ((await look(journal)).state, await journal.waits(hold.run)) == (State.RUNNING, [])
        else:
            rested, sent = journal.suspend(hold, rest(awaits_message())), journal.signal("a", new_message())
            assert (await rested).suspended
            assert (await sent).row.state is State.PENDING

    lab(program)


def test_a_message_for_a_wait_of_before_that_is_still_open_forbids_to_rest_and_for_one_that_is_over_does_not(
    lab: Over,
) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        hold = await _waiting(journal, awaits_message())
        await journal.reclaim(hold, 50)
        hold = Hold(hold.run, hold.epoch + 1)
        await journal.signal("a", new_message())
        assert not (await journal.suspend(hold, rest(wait("t"), at=60))).suspended
        assert (await journal.suspend(hold, rest(wait("t"), at=60, closed=["paid#1"]))).suspended

    lab(program)


def test_a_wait_that_is_written_again_takes_the_place_of_the_one_before(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        hold = await _waiting(journal, awaits_message(key="x"))
        await journal.signal("a", new_message())
        await journal.reclaim(hold, 50)
        hold = Hold(hold.run, hold.epoch + 1)
        assert (await journal.suspend(hold, rest(wait("x", deadline=90), at=60))).suspended
        assert await journal.waits(hold.run) == [wait("x", deadline=90)]

    lab(program)


def test_what_was_taken_does_not_forbid_to_rest(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        _, hold = await begin(journal)
        await journal.signal("a", new_message())
        taken = journal.record(hold, entry("paid#1", kind=Kind.SIGNAL), [1])
        assert (await journal.suspend(hold, rest(awaits_message(key="paid#2")))).suspended
        await taken

    lab(program)


# Twice, late, to nobody ----------------------------------------------------------------------------------------------


def test_a_message_that_was_sent_twice_is_one(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal, other = await lab.worker(), await lab.worker()
        _, hold = await begin(journal)
        await begin(journal, "b")
        both = await asyncio.gather(
            *(each.signal("a", new_message(payload=b"1", dedupe="x")) for each in (journal, other, journal))
        )
        assert sorted(sent.new for sent in both) == [False, False, True]
        assert {sent.message for sent in both} == {Message(1, "paid", b"1", 50, "x")}
        await journal.record(hold, entry("paid#1", kind=Kind.SIGNAL), [1])
        again = await journal.signal("a", new_message("other", payload=b"2", at=70, dedupe="x"))
        assert (again.new, again.message) == (False, Message(1, "paid", b"1", 50, "x", "paid#1"))
        assert (await journal.mail(hold.run)).messages == []
        assert (await journal.signal("b", new_message(dedupe="x"))).new
        assert (await journal.signal("a", new_message(dedupe="y"))).new
        assert [(await journal.signal("a", new_message())).new for _ in range(2)] == [True, True]

    lab(program)


@pytest.mark.parametrize(
    "end", [completed(), failed(), End(State.CANCELLED, "enough", None, 60), End(State.PARKED, "diverged", b"{}", 60)]
)
def test_a_run_that_has_ended_takes_no_message_and_a_parked_one_does(lab: Over, end: End) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        started, hold = await begin(journal)
        await journal.signal("a", new_message(dedupe="x"))
        await journal.end(hold, end)
        if end.state is State.PARKED:
            assert (await journal.signal("a", new_message())).row.state is State.PARKED
        else:
            with pytest.raises(SignalRejected, match=end.state.value) as caught:
                await journal.signal("a", new_message())
            assert caught.value.run_id == "a"
        again = await journal.signal("a", new_message(dedupe="x"))
        assert (again.new, again.message.no) == (False, 1)
        assert len((await journal.memory(started.row.no)).messages) == 1 + (end.state is State.PARKED)

    lab(program)


@pytest.mark.parametrize("signal_first", [True, False])
def test_a_message_in_the_moment_of_the_end_is_stored_or_refused_to_its_sender(lab: Over, signal_first: bool) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        started, hold = await begin(journal)
        if signal_first:
            sent, ended = journal.signal("a", new_message()), journal.end(hold, completed())
            assert (await sent).row.state is State.RUNNING
        else:
            ended, sent = journal.end(hold, completed()), journal.signal("a", new_message())
            with pytest.raises(SignalRejected):
                await sent
        await ended
        assert len((await journal.memory(started.row.no)).messages) == signal_first

    lab(program)


def test_a_message_to_no_run_says_so(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        with pytest.raises(UnknownRun):
            await journal.signal("nobody", new_message())

    lab(program)


# Deadlines -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("at", "wins"), [(99, True), (100, True), (101, False)])
def test_a_message_that_was_sent_at_the_deadline_or_before_wins_over_it(lab: Over, at: int, wins: bool) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        _, hold = await begin(journal)
        sent, expired = journal.signal("a", new_message(at=at)), journal.expire(hold, _timeout(), 100)
        assert (await sent).new
        assert await expired is not wins
        assert await journal.entries(hold.run) == ([] if wins else [_timeout()])
        assert len((await journal.mail(hold.run)).messages) == 1

    lab(program)


def test_a_message_that_comes_after_the_wait_has_expired_is_kept_for_the_next_one(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        _, hold = await begin(journal)
        expired, sent = journal.expire(hold, _timeout(), 100), journal.signal("a", new_message(at=99))
        assert await expired
        assert (await sent).new
        assert not (await journal.suspend(hold, rest(awaits_message(key="paid#2"), at=110))).suspended
        await journal.record(hold, entry("paid#2", seq=2, kind=Kind.SIGNAL), [1])

    lab(program)


def test_a_message_that_is_not_for_the_wait_does_not_keep_it_from_expiring(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        _, hold = await begin(journal)
        await begin(journal, "b")
        for number, name in enumerate(("paid", "paid", "refunded")):
            await journal.signal("a", new_message(name, at=number))
        await journal.signal("b", new_message(at=1))
        await journal.record(hold, entry("paid#0", kind=Kind.SIGNAL), [1])
        await journal.set_aside(hold, 2, b"why")
        assert await journal.expire(hold, _timeout(seq=2), 100)
        assert not await journal.expire(hold, _timeout("r#1", seq=3, name="refunded"), 100)
        # A timer waits for nothing that could have come.
        timer = entry("timer#1", seq=3, kind=Kind.TIMER, name="refunded", outcome=Outcome.TIMEOUT)
        assert await journal.expire(hold, timer, 100)

    lab(program)


# With a start, and from a body ---------------------------------------------------------------------------------------


def test_a_run_and_a_message_to_it_are_stored_together(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        first = await journal.start(new_run(), IfExists.ATTACH, drive=True, message=new_message(dedupe="x"))
        assert (first.created, first.row.state) == (True, State.RUNNING)
        second = await journal.start(new_run(), IfExists.ATTACH, drive=True, message=new_message(payload=b"2"))
        again = await journal.start(new_run(), IfExists.ATTACH, drive=True, message=new_message(dedupe="x"))
        assert (second.created, again.created) == (False, False)
        assert [each.payload for each in (await journal.mail(first.row.no)).messages] == [b"m", b"2"]
        with pytest.raises(RunConflict):
            await journal.start(new_run(digest=b"2"), IfExists.ATTACH, drive=True, message=new_message())
        assert len((await journal.mail(first.row.no)).messages) == 2

    lab(program)


def test_a_start_that_attaches_with_a_message_wakes_the_run_and_is_refused_by_one_that_has_ended(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        hold = await _waiting(journal, awaits_message())
        woken = await journal.start(new_run(), IfExists.ATTACH, drive=True, message=new_message(dedupe="x"))
        assert (woken.created, woken.hold, woken.row.state) == (False, None, State.PENDING)
        await journal.reclaim(hold, 60)
        await journal.end(Hold(hold.run, hold.epoch + 1), completed(70))
        with pytest.raises(SignalRejected):
            await journal.start(new_run(), IfExists.ATTACH, drive=True, message=new_message())
        known = await journal.start(new_run(), IfExists.ATTACH, drive=True, message=new_message(dedupe="x"))
        assert (known.created, known.row.state) == (False, State.COMPLETED)
        fresh = await journal.start(new_run(), IfExists.REPLACE, drive=False, message=new_message(dedupe="x"))
        assert fresh.created
        assert [each.no for each in (await journal.mail(fresh.row.no)).messages] == [1]

    lab(program)


@pytest.mark.parametrize("how", ["epoch", "suspended", "struck off"])
def test_what_a_body_asks_for_is_refused_where_its_worker_has_lost_the_run(lab: Over, how: str) -> None:
    async def program(lab: Lab) -> None:
        journal, other = await lab.worker(), await lab.worker()
        started, hold = await begin(journal)
        _, others_hold = await begin(other, "b")
        await other.record(others_hold, entry())
        if how == "epoch":
            hold = Hold(hold.run, hold.epoch + 1)
        elif how == "suspended":
            await journal.suspend(hold, rest(wait()))
        else:
            dead = [each.no for each in await other.workers()]
            await other.take_over(dead, 9, b"{}", 30)
        child = new_run("c", parent=started.row.no)
        for refused in (
            journal.start(child, IfExists.ATTACH, drive=True, caller=hold),
            journal.start(new_run("b"), IfExists.ATTACH, drive=True, message=new_message(), caller=hold),
            journal.signal("b", new_message(), caller=hold),
            journal.signal("nobody", new_message(), caller=hold),
            journal.answer("b", new_answer(early=True), caller=hold),
            journal.cancel("b", asked(), caller=hold),
        ):
            with pytest.raises(LeaseLost):
                await refused
        assert await other.run("c") is None
        row = await look(other, "b")
        assert (row.state, row.cancel) == (State.RUNNING, None)
        assert await other.mail(row.no) == Mail([], [], [])
        assert not (await other.ask(others_hold, new_question()))

    lab(program)


def test_what_a_body_asks_for_is_done_where_its_worker_holds_the_run(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        started, hold = await begin(journal)
        child = new_run("c", parent=started.row.no)
        assert (await journal.start(child, IfExists.ATTACH, drive=True, caller=hold)).hold is not None
        assert (await journal.signal("c", new_message(), caller=hold)).new
        assert (await journal.answer("c", new_answer(early=True), caller=hold)).key is None
        (row,) = await journal.cancel("c", asked(), caller=hold)
        assert row.cancel == asked()
        await journal.record(hold, entry(CANCEL_KEY, kind=Kind.CANCEL))

    lab(program)

"""What every journal promises about questions and their answers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

import pytest

from durable_sqlite._clock import to_datetime
from durable_sqlite._records import (
    End,
    Entry,
    Hold,
    Kind,
    Outcome,
    Question,
    QuestionQuery,
    State,
    Wait,
)
from durable_sqlite.errors import SignalRejected, SignalSuperseded, UnknownRun
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
    new_question,
    rest,
    wait,
)

Over = Callable[[Callable[[Lab], Coroutine[Any, Any, None]]], None]

_EVERY = QuestionQuery()


async def _asking(journal: Journal, *keys: str, deadline: int | None = None, run_id: str = "a") -> Hold:
    """A run that asks questions of these keys, one after the other."""
    _, hold = await begin(journal, run_id)
    for at, key in enumerate(keys or ("review#1",), 20):
        await journal.ask(hold, new_question(key, at=at, deadline=deadline))
    return hold


async def _one(journal: Journal, hold: Hold, key: str = "review#1") -> Question:
    (question,) = [each for each in (await journal.memory(hold.run)).questions if each.key == key]
    return question


async def _open(journal: Journal, query: QuestionQuery = _EVERY) -> list[str]:
    return [each.question.key for each in await journal.questions(query)]


def _answered(key: str = "review#1", *, seq: int = 1) -> Entry:
    return entry(key, seq=seq, kind=Kind.QUESTION, name="review")


def _timeout(key: str = "review#1", *, at: int = 100) -> Entry:
    return entry(key, kind=Kind.QUESTION, name="review", outcome=Outcome.TIMEOUT, payload=b"", at=at)


# Asking --------------------------------------------------------------------------------------------------------------


def test_a_question_is_kept_as_it_was_asked_first(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        _, hold = await begin(journal)
        new = new_question(at=20, deadline=99)
        assert not await journal.ask(hold, new)
        assert not await journal.ask(hold, replace(new, payload=b"other", schema="{}", at=30, deadline=None))
        assert not await journal.ask(hold, new_question("review#2", at=21))
        first, second = (await journal.memory(hold.run)).questions
        assert first == Question("review#1", "review", b"review#1?", '{"type":"boolean"}', 20, 99)
        assert (second.key, second.deadline, first.is_open, second.is_open) == ("review#2", None, True, True)
        (listed, _) = await journal.questions(_EVERY)
        assert (listed.run_id, listed.workflow, listed.question) == ("a", "ship", first)

    lab(program)


def test_open_questions_are_listed_oldest_first_filtered_and_paged(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        holds = {name: (await begin(journal, name, workflow=f"w{name[0]}"))[1] for name in ("b1", "a1", "b2")}
        for name, key, point, at in (
            ("b1", "k2", "review", 30),
            ("b1", "k1", "review", 30),
            ("a1", "k9", "review", 30),
            ("b2", "k1", "sign", 10),
            ("b2", "closed", "sign", 11),
            ("b2", "answered", "sign", 12),
        ):
            await journal.ask(holds[name], new_question(key, name=point, at=at))
        await journal.withdraw(holds["b2"], ["closed"], 40)
        await journal.answer("b2", new_answer("answered", name="sign"))

        async def listed(**changes: Any) -> list[tuple[str, str]]:
            found = await journal.questions(replace(_EVERY, **changes))
            return [(each.run_id, each.question.key) for each in found]

        everything = [("b2", "k1"), ("a1", "k9"), ("b1", "k1"), ("b1", "k2")]
        assert await listed() == everything
        assert await listed(run_id="b1") == [("b1", "k1"), ("b1", "k2")]
        assert await listed(workflow="wa") == [("a1", "k9")]
        assert await listed(name="sign") == [("b2", "k1")]
        assert await listed(run_id="b1", name="sign") == []
        assert await listed(limit=3) == everything[:3]
        assert await listed(after=(30, "a1", "k9")) == everything[2:]
        assert await listed(after=(30, "b1", "k1"), limit=1) == [("b1", "k2")]
        assert await listed(after=(10, "b2", "k0"), workflow="wb") == [("b2", "k1"), ("b1", "k1"), ("b1", "k2")]

    lab(program)


@pytest.mark.parametrize("end", [completed(), failed(), End(State.PARKED, "diverged", b"{}", 60)])
def test_the_end_of_a_run_closes_its_questions(lab: Over, end: End) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        hold = await _asking(journal, "review#1", "review#2")
        await _asking(journal, "other#1", run_id="b")
        await journal.answer("a", new_answer("review#2", at=55))
        await journal.end(hold, end)
        assert (await _one(journal, hold)).closed_at == 60
        assert (await _one(journal, hold, "review#2")).closed_at is None
        assert await _open(journal) == ["other#1"]
        with pytest.raises(SignalRejected) as caught:
            await journal.answer("a", new_answer("review#1", at=70))
        # A parked run has not ended; the question is over all the same.
        assert isinstance(caught.value, SignalSuperseded) is (end.state is State.PARKED)

    lab(program)


def test_a_question_that_the_body_no_longer_waits_for_is_closed(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        hold = await _asking(journal, "review#1", "review#2", "review#3")
        await journal.answer("a", new_answer("review#2"))
        await journal.withdraw(hold, ["review#1", "review#2", "unknown"], 60)
        assert await _open(journal) == ["review#3"]
        assert [each.closed_at for each in (await journal.memory(hold.run)).questions] == [60, None, None]
        await journal.withdraw(hold, ["review#1"], 70)
        with pytest.raises(SignalSuperseded) as caught:
            await journal.answer("a", new_answer("review#1", at=65))
        assert (caught.value.at, caught.value.by) == (to_datetime(60), "")

    lab(program)


# Answering -----------------------------------------------------------------------------------------------------------


def test_an_answer_is_kept_with_its_time_and_author(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal, other = await lab.worker(), await lab.worker()
        hold = await _asking(journal)
        answered = await other.answer("a", new_answer("review#1", payload=b"\x00\xff", at=51, by="ada"))
        assert (answered.key, answered.row) == ("review#1", await look(journal))
        question = await _one(journal, hold)
        assert (question.answer, question.answered_at, question.answered_by) == (b"\x00\xff", 51, "ada")
        assert (question.is_open, question.closed_at) == (False, None)
        assert (await journal.mail(hold.run)).questions == [question]
        assert await _open(journal) == []
        await journal.record(hold, _answered())
        assert (await journal.mail(hold.run)).questions == []

    lab(program)


def test_an_answer_wakes_a_suspended_run_that_waits_for_it(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        hold = await _asking(journal, "review#1", "review#2")
        await journal.suspend(hold, rest(awaits_answer(deadline=900), wait("t", deadline=800)))
        assert (await journal.answer("a", new_answer("review#2"))).row.state is State.SUSPENDED
        row = (await journal.answer("a", new_answer("review#1", at=70))).row
        assert (row.state, row.due_at, row.updated_at) == (State.PENDING, None, 70)
        assert await look(journal) == row
        assert len(await journal.claim(["ship"], 80, 9, suspects=False)) == 1

    lab(program)


@pytest.mark.parametrize("other", [awaits_message("review", key="review#1"), Wait("review#1", Kind.SLEEP, "review", 1)])
def test_an_answer_wakes_nobody_who_waits_for_something_else(lab: Over, other: Wait) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        hold = await _asking(journal)
        await journal.suspend(hold, rest(other))
        assert (await journal.answer("a", new_answer())).row.state is State.SUSPENDED

    lab(program)


def test_an_answer_to_a_paused_run_waits_until_it_goes_on(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        hold = await _asking(journal)
        await journal.suspend(hold, rest(awaits_answer()))
        await journal.pause("a", asked())
        answered = await journal.answer("a", new_answer())
        assert (answered.key, answered.row.state) == ("review#1", State.PAUSED)

    lab(program)


@pytest.mark.parametrize("answer_first", [True, False])
def test_no_wake_up_is_lost_between_an_answer_and_a_run_that_comes_to_rest(lab: Over, answer_first: bool) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        hold = await _asking(journal)
        if answer_first:
            answered, rested = journal.answer("a", new_answer()), journal.suspend(hold, rest(awaits_answer()))
            assert not (await rested).suspended
            assert (await answered).row.state is State.RUNNING
            await journal.record(hold, _answered())
            assert (await journal.suspend(hold, rest(awaits_answer("review#2")))).suspended
        else:
            rested, answered = journal.suspend(hold, rest(awaits_answer())), journal.answer("a", new_answer())
            assert (await rested).suspended
            assert (await answered).row.state is State.PENDING

    lab(program)


def test_an_answer_to_a_question_that_nobody_waits_for_any_more_lets_the_run_rest(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        hold = await _asking(journal)
        await journal.answer("a", new_answer())
        await journal.withdraw(hold, ["review#1"], 60)
        assert (await journal.suspend(hold, rest(wait("t", deadline=900), at=61))).suspended

    lab(program)


def test_of_two_answers_at_once_one_wins_and_the_other_learns_of_it(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal, other = await lab.worker(), await lab.worker()
        hold = await _asking(journal)
        answers = [
            sender.answer("a", new_answer(key, payload=by.encode(), at=at, by=by))
            for sender, key, at, by in (
                (journal, "review#1", 51, "ada"),
                (other, None, 52, "bob"),
                (journal, None, 53, "cid"),
            )
        ]
        done = await asyncio.gather(*answers, return_exceptions=True)
        losers = [each for each in done if isinstance(each, SignalSuperseded)]
        question = await _one(journal, hold)
        assert len(losers) == 2
        assert question.answer == question.answered_by.encode()
        assert question.answered_at is not None
        for loser in losers:
            told = (loser.run_id, loser.at, loser.by)
            assert told == ("a", to_datetime(question.answered_at), question.answered_by)

    lab(program)


def test_an_answer_that_was_sent_twice_is_one(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal, other = await lab.worker(), await lab.worker()
        hold = await _asking(journal, "review#1", "review#2")
        await journal.answer("a", new_answer("review#1", dedupe="x"))
        for again in (
            await other.answer("a", new_answer("review#1", at=70, by="bob", dedupe="x")),
            await other.answer("a", new_answer("review#2", at=70, dedupe="x")),
            await other.answer("a", new_answer(at=70, dedupe="x", early=True)),
        ):
            assert again.key == "review#1"
        assert (await _one(journal, hold)).answered_by == "ada"
        assert (await _one(journal, hold, "review#2")).is_open
        with pytest.raises(SignalSuperseded):
            await journal.answer("a", new_answer("review#1", dedupe="y"))
        await journal.end(hold, completed())
        assert (await journal.answer("a", new_answer("review#1", dedupe="x"))).key == "review#1"
        hold = await _asking(journal, run_id="b")
        await journal.answer("b", new_answer(dedupe="x"))
        assert not (await _one(journal, hold)).is_open

    lab(program)


# Which question ------------------------------------------------------------------------------------------------------


def test_an_answer_without_a_key_is_for_the_only_question_that_was_ever_asked(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        hold = await _asking(journal)
        await journal.ask(hold, new_question("sign#1", name="sign"))
        with pytest.raises(SignalRejected) as caught:
            await journal.answer("a", new_answer(name="other"))
        assert not isinstance(caught.value, SignalSuperseded)
        assert (await journal.answer("a", new_answer())).key == "review#1"
        with pytest.raises(SignalSuperseded):
            await journal.answer("a", new_answer())
        assert (await _one(journal, hold, "sign#1")).is_open

    lab(program)


@pytest.mark.parametrize("first_is_over", [True, False])
def test_where_several_were_asked_the_refusal_lists_their_keys(lab: Over, first_is_over: bool) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        hold = await _asking(journal, "review#1", "b/review#2")
        await journal.ask(hold, new_question("sign#1", name="sign"))
        if first_is_over:
            await journal.answer("a", new_answer("review#1"))
        with pytest.raises(SignalRejected) as caught:
            await journal.answer("a", new_answer())
        assert not isinstance(caught.value, SignalSuperseded)
        assert "review#1" in str(caught.value)
        assert "b/review#2" in str(caught.value)
        assert "sign#1" not in str(caught.value)
        assert (await journal.answer("a", new_answer("b/review#2"))).key == "b/review#2"

    lab(program)


@pytest.mark.parametrize("early", [True, False])
def test_an_answer_with_a_key_never_answers_another_question(lab: Over, early: bool) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        hold = await _asking(journal)
        for wrong in (new_answer("review#2", early=early), new_answer("review#1", name="sign", early=early)):
            with pytest.raises(SignalRejected) as caught:
                await journal.answer("a", wrong)
            assert not isinstance(caught.value, SignalSuperseded)
        assert (await _one(journal, hold)).is_open
        assert not await journal.ask(hold, new_question("review#2"))
        assert not await journal.ask(hold, new_question("sign#1", name="sign"))

    lab(program)


def test_an_answer_to_no_run_or_to_one_that_has_ended_says_so(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        hold = await _asking(journal)
        with pytest.raises(UnknownRun):
            await journal.answer("nobody", new_answer())
        await journal.end(hold, completed())
        for late in (new_answer(), new_answer("review#1"), new_answer(name="other", early=True)):
            with pytest.raises(SignalRejected, match="completed"):
                await journal.answer("a", late)

    lab(program)


def test_who_answers_after_the_end_learns_of_the_answer_that_counted(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        hold = await _asking(journal, "review#1", "review#2")
        await journal.answer("a", new_answer("review#1", at=51, by="ada"))
        await journal.withdraw(hold, ["review#2"], 55)
        await journal.end(hold, completed())
        for key, at, by in (("review#1", 51, "ada"), ("review#2", 55, "")):
            with pytest.raises(SignalSuperseded) as caught:
                await journal.answer("a", new_answer(key, at=70, by="bob"))
            assert (caught.value.at, caught.value.by) == (to_datetime(at), by)

    lab(program)


# Early answers -------------------------------------------------------------------------------------------------------


def test_early_answers_are_kept_in_order_for_the_next_questions_of_their_name(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        _, hold = await begin(journal)
        for at, name in ((31, "review"), (32, "sign"), (30, "review")):
            early = new_answer(name=name, payload=str(at).encode(), at=at, early=True)
            assert (await journal.answer("a", early)).key is None
        assert (await journal.mail(hold.run)).questions == []
        assert await journal.ask(hold, new_question("review#1", at=40, deadline=35))
        question = await _one(journal, hold)
        assert (question.answer, question.answered_at, question.answered_by) == (b"31", 31, "ada")
        assert await journal.ask(hold, new_question("review#1", at=41))
        assert await journal.ask(hold, new_question("review#2", at=41))
        assert (await _one(journal, hold, "review#2")).answer == b"30"
        assert not await journal.ask(hold, new_question("review#3", at=42))
        assert await journal.ask(hold, new_question("sign#1", name="sign", at=43))
        assert [each.key for each in (await journal.mail(hold.run)).questions] == ["review#1", "review#2", "sign#1"]

    lab(program)


def test_an_early_answer_to_a_question_that_was_asked_is_an_answer(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        hold = await _asking(journal)
        assert (await journal.answer("a", new_answer(early=True))).key == "review#1"
        assert not await journal.ask(hold, new_question("review#2"))

    lab(program)


def test_an_early_answer_that_was_sent_twice_is_one_before_and_after_it_was_used(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        _, hold = await begin(journal)
        early = new_answer(early=True, dedupe="x")
        assert [(await journal.answer("a", early)).key for _ in range(2)] == [None, None]
        assert await journal.ask(hold, new_question("review#1"))
        assert (await journal.answer("a", early)).key == "review#1"
        assert not await journal.ask(hold, new_question("review#2"))

    lab(program)


# Deadlines -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("at", "wins"), [(99, True), (100, True), (101, False)])
def test_an_answer_that_was_sent_at_the_deadline_or_before_wins_over_it(lab: Over, at: int, wins: bool) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        hold = await _asking(journal, deadline=100)
        answered, expired = journal.answer("a", new_answer(at=at)), journal.expire(hold, _timeout(), 100)
        if wins:
            assert (await answered).key == "review#1"
        else:
            with pytest.raises(SignalSuperseded) as caught:
                await answered
            assert (caught.value.at, caught.value.by) == (to_datetime(100), "")
        assert await expired is not wins
        assert await journal.entries(hold.run) == ([] if wins else [_timeout()])

    lab(program)


@pytest.mark.parametrize("key", ["review#1", None])
def test_an_answer_that_comes_after_its_wait_has_expired_is_superseded(lab: Over, key: str | None) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        hold = await _asking(journal, deadline=100)
        expired, answered = journal.expire(hold, _timeout(), 100), journal.answer("a", new_answer(key, at=99))
        with pytest.raises(SignalSuperseded) as caught:
            await answered
        assert (caught.value.at, caught.value.by) == (to_datetime(100), "")
        assert await expired
        question = await _one(journal, hold)
        assert (question.answer, question.is_open) == (None, False)
        assert await _open(journal) == []
        # The next question of the point is one of its own.
        assert not await journal.ask(hold, new_question("review#2", at=110))
        assert (await journal.answer("a", new_answer("review#2"))).key == "review#2"

    lab(program)


def test_an_answer_to_another_question_does_not_keep_a_wait_from_expiring(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        hold = await _asking(journal, "review#1", "review#2", deadline=100)
        await journal.answer("a", new_answer("review#2"))
        assert await journal.expire(hold, _timeout(), 100)
        assert [each.key for each in (await journal.mail(hold.run)).questions] == ["review#2"]

    lab(program)


# Answers that do not fit ---------------------------------------------------------------------------------------------


def test_a_question_whose_answer_is_taken_away_again_is_open_and_says_why(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        hold = await _asking(journal)
        await journal.answer("a", new_answer(by="ada"))
        await journal.reopen(hold, "review#1", b"true", b"\x00why")
        question = await _one(journal, hold)
        assert (question.answer, question.answered_at, question.answered_by) == (None, None, "")
        assert (question.is_open, question.error) == (True, b"\x00why")
        assert [each.question for each in await journal.questions(_EVERY)] == [question]
        assert (await journal.mail(hold.run)).questions == []
        assert (await journal.suspend(hold, rest(awaits_answer()))).suspended
        answered = await journal.answer("a", new_answer(payload=b"better", at=70, by="bob"))
        assert (answered.key, answered.row.state) == ("review#1", State.PENDING)
        question = await _one(journal, hold)
        assert (question.answer, question.answered_at, question.answered_by) == (b"better", 70, "bob")

    lab(program)


def test_an_answer_that_was_taken_away_again_is_not_taken_a_second_time(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        hold = await _asking(journal)
        await journal.answer("a", new_answer(dedupe="x"))
        await journal.reopen(hold, "review#1", b"true", b"why")
        assert (await journal.answer("a", new_answer(dedupe="x"))).key == "review#1"
        assert (await _one(journal, hold)).is_open
        assert (await journal.answer("a", new_answer(payload=b"better", dedupe="y"))).key == "review#1"
        assert (await _one(journal, hold)).answer == b"better"

    lab(program)

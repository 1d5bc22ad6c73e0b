"""What every journal promises about what is forgotten, given back and resumed with a dead letter."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Coroutine
from typing import Any

import pytest

from durable_sqlite._records import (
    CANCEL_KEY,
    End,
    Hold,
    IfExists,
    Intent,
    Kind,
    QuestionQuery,
    Resumption,
    RunQuery,
    Settlement,
    State,
)
from durable_sqlite.errors import SignalSuperseded, WrongState
from durable_sqlite.journal import Journal
from tests.conformance.adapters import Lab
from tests.support.journals import (
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
)

Over = Callable[[Callable[[Lab], Coroutine[Any, Any, None]]], None]

_PARKED = End(State.PARKED, "diverged", b"{}", 60)
_ALL = RunQuery(newest_first=False)
_ANY = QuestionQuery()


async def _child(journal: Journal, run_id: str, parent: int, key: str, **options: Any) -> Hold:
    new = new_run(run_id, at=20, parent=parent, parent_key=key, **options)
    started = await journal.start(new, IfExists.ATTACH, drive=True)
    assert started.hold is not None
    return started.hold


async def _record_all(journal: Journal, hold: Hold, keys: Collection[str], *, kind: Kind = Kind.STEP) -> None:
    for seq, key in enumerate(keys, 1):
        await journal.record(hold, entry(key, seq=seq, kind=kind))


# Messages and questions ----------------------------------------------------------------------------------------------


def test_messages_that_were_taken_after_the_failure_may_be_taken_again(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        _, hold = await begin(journal)
        for number in range(4):
            await journal.signal("a", new_message(payload=str(number).encode(), dedupe=f"x{number}"))
        await journal.record(hold, entry("paid#1", seq=1, kind=Kind.SIGNAL), [1])
        await journal.record(hold, entry("s#1", seq=2))
        await journal.record(hold, entry("paid#2", seq=3, kind=Kind.SIGNAL), [2])
        await journal.record(hold, entry("drain#1", seq=4, kind=Kind.DRAIN, asked=1), [3])
        await journal.end(hold, failed(keys=["s#1"]))
        assert (await journal.resume("a", Resumption(70))).forgotten == ("s#1", "paid#2")
        assert [each.no for each in (await journal.mail(hold.run)).messages] == [2, 4]
        assert not (await journal.signal("a", new_message(dedupe="x1"))).new
        (claimed,) = await journal.claim(["ship"], 80, 9, suspects=False)
        assert not (await journal.suspend(claimed.hold, rest(awaits_message(key="paid#2"), at=90))).suspended
        await journal.record(claimed.hold, entry("paid#2", seq=4, kind=Kind.SIGNAL), [2])

    lab(program)


@pytest.mark.parametrize("end", [failed(keys=["s#1"]), End(State.PARKED, "error", b"{}", 60, ("s#1",))])
def test_questions_that_were_asked_after_the_failure_or_had_no_answer_are_asked_again(lab: Over, end: End) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        _, hold = await begin(journal)
        for at, key in enumerate(("before", "answered", "open", "withdrawn", "after"), 20):
            await journal.ask(hold, new_question(key, at=at))
        for key in ("before", "answered", "after"):
            await journal.answer("a", new_answer(key))
        await journal.withdraw(hold, ["withdrawn"], 55)
        await journal.record(hold, entry("before", seq=1, kind=Kind.QUESTION))
        await journal.record(hold, entry("s#1", seq=2))
        await journal.record(hold, entry("after", seq=3, kind=Kind.QUESTION))
        await journal.end(hold, end)
        assert (await journal.resume("a", Resumption(70))).forgotten == ("s#1", "after")
        assert [each.key for each in (await journal.memory(hold.run)).questions] == ["before", "answered"]
        assert [each.key for each in (await journal.mail(hold.run)).questions] == ["answered"]
        (claimed,) = await journal.claim(["ship"], 80, 9, suspects=False)
        again = [
            await journal.ask(claimed.hold, new_question(key, at=at))
            for at, key in enumerate(("before", "answered", "open", "after"), 90)
        ]
        assert again == [True, True, False, False]
        assert [each.question.key for each in await journal.questions(_ANY)] == ["open", "after"]

    lab(program)


def test_a_question_that_was_open_when_the_run_was_parked_can_be_answered_after_it_was_settled(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        _, hold = await begin(journal)
        await journal.ask(hold, new_question())
        await journal.intend(hold, Intent("pay#1", "pay", b"", 0, 30))
        await journal.end(hold, End(State.PARKED, "ambiguous", b"{}", 60))
        with pytest.raises(SignalSuperseded):
            await journal.answer("a", new_answer("review#1", at=65))
        await journal.settle("a", Settlement("pay#1", "ada", 70, b"1", b"e"))
        (claimed,) = await journal.claim(["ship"], 80, 9, suspects=False)
        assert not await journal.ask(claimed.hold, new_question(at=90))
        assert (await journal.answer("a", new_answer("review#1", at=95))).key == "review#1"

    lab(program)


# Children ------------------------------------------------------------------------------------------------------------


def test_a_child_whose_failure_is_forgotten_is_resumed_first(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        _, hold = await begin(journal)
        child = await _child(journal, "b", hold.run, "child#1")
        grandchild = await _child(journal, "c", child.run, "child#1")
        await _record_all(journal, grandchild, ["s#1", "s#2"])
        await journal.end(grandchild, failed(30, keys=["s#2"]))
        await _record_all(journal, child, ["s#1", "child#1", "s#2"])
        await journal.end(child, failed(40, keys=["child#1"]))
        await _record_all(journal, hold, ["child#1"], kind=Kind.CHILD)
        await journal.end(hold, failed(50, keys=["child#1"]))
        resumed = await journal.resume("a", Resumption(70, accept_changes=True))
        assert (resumed.row.id, resumed.forgotten) == ("a", ("child#1",))
        assert [row.id for row in resumed.others] == ["c", "b"]
        for row in (*resumed.others, resumed.row):
            assert (row.state, row.reason, row.result, row.updated_at) == (State.PENDING, "", None, 70)
            assert (row.failed_keys, row.accept_changes) == ((), row.id == "a")
            assert await look(journal, row.id) == row
        for run, left in ((hold, []), (child, ["s#1"]), (grandchild, ["s#1"])):
            assert [each.key for each in await journal.entries(run.run)] == left

    lab(program)


def test_a_child_that_has_not_failed_or_whose_outcome_stays_is_left_alone(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        _, hold = await begin(journal)
        ends: dict[str, End | None] = {
            "stays": failed(30),
            "failed": failed(30),
            "parked": _PARKED,
            "completed": completed(30),
            "cancelled": End(State.CANCELLED, "enough", None, 30),
            "running": None,
        }
        for run_id, end in ends.items():
            child = await _child(journal, run_id, hold.run, run_id)
            if end is not None:
                await journal.end(child, end)
        other, _ = await begin(journal, "other")
        stranger = await _child(journal, "stranger", other.row.no, "failed")
        await journal.end(stranger, failed(30))
        await _record_all(journal, hold, ["stays", *(key for key in ends if key != "stays")])
        await journal.end(hold, failed(50, keys=["failed"]))
        resumed = await journal.resume("a", Resumption(70))
        assert resumed.forgotten == ("failed", "parked", "completed", "cancelled", "running")
        assert sorted(row.id for row in resumed.others) == ["failed", "parked"]
        assert (await look(journal, "stays")).state is State.FAILED
        assert (await look(journal, "stranger")).state is State.FAILED

    lab(program)


def test_a_child_that_failed_at_its_parents_deadline_has_the_new_one(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        _, hold = await begin(journal, deadline=100)
        inherited = await _child(journal, "b", hold.run, "child#1")
        below = await _child(journal, "c", inherited.run, "child#1")
        own = await _child(journal, "d", hold.run, "child#2", deadline=50)
        for each in (below, inherited):
            await _record_all(journal, each, ["child#1"])
            await journal.end(each, failed(110, reason="deadline", keys=["child#1"]))
        await journal.end(own, failed(70, reason="deadline"))
        await _record_all(journal, hold, ["child#1", "child#2"])
        await journal.end(hold, failed(120, reason="deadline", keys=["child#1"]))
        resumed = await journal.resume("a", Resumption(1_000))
        assert resumed.row.deadline_at == 1_100
        deadlines = {row.id: (row.deadline_at, row.discarded_at) for row in resumed.others}
        assert deadlines == {"b": (1_100, None), "c": (1_100, None), "d": (1_050, None)}
        assert [row.deadline_inherited for row in await journal.runs(_ALL)] == [False, True, True, False]

    lab(program)


def test_a_child_that_was_waited_for_by_its_handle_is_resumed_too(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        _, hold = await begin(journal)
        other, _ = await begin(journal, "other")
        for run_id, parent in (("b", hold.run), ("c", hold.run), ("no child", other.row.no)):
            await journal.end(await _child(journal, run_id, parent, "start#1"), failed(30))
        await journal.record(hold, entry("start#1", seq=1, kind=Kind.ACT))
        for seq, run_id in enumerate(("b", "no child"), 2):
            await journal.record(hold, entry(f"{run_id}/1", seq=seq, kind=Kind.RUN, name=run_id))
        await journal.record(hold, entry("s#1", seq=4, name="c"))
        await journal.end(hold, failed(50, keys=["b/1"]))
        resumed = await journal.resume("a", Resumption(70))
        assert resumed.forgotten == ("b/1", "no child/1", "s#1")
        assert [row.id for row in resumed.others] == ["b"]

    lab(program)


@pytest.mark.parametrize("reason", ["deadline", "error"])
def test_a_child_that_failed_at_the_same_deadline_goes_on_though_its_parent_was_not_given_its_end(
    lab: Over, reason: str
) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        _, hold = await begin(journal, deadline=100)
        for run_id, why, deadline in (
            ("unseen", "deadline", None),
            ("seen", "deadline", None),
            ("broke", "error", None),
            ("own", "deadline", 50),
        ):
            child = await _child(journal, run_id, hold.run, run_id, deadline=deadline)
            await journal.end(child, failed(110, reason=why))
        await journal.record(hold, entry("seen", kind=Kind.CHILD))
        await journal.end(hold, failed(120, reason=reason))
        resumed = await journal.resume("a", Resumption(1_000))
        assert [row.id for row in resumed.others] == (["unseen"] if reason == "deadline" else [])

    lab(program)


def test_a_child_that_failed_for_another_reason_has_its_parents_new_deadline_too(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        _, hold = await begin(journal, deadline=100)
        await journal.end(await _child(journal, "b", hold.run, "child#1"), failed(110))
        await _record_all(journal, hold, ["child#1"], kind=Kind.CHILD)
        await journal.end(hold, failed(120, reason="deadline", keys=["child#1"]))
        (child,) = (await journal.resume("a", Resumption(1_000))).others
        assert (child.deadline_at, child.deadline_inherited) == (1_100, True)

    lab(program)


def test_of_two_resumes_at_once_one_wins(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal, other = await lab.worker(), await lab.worker()
        _, hold = await begin(journal)
        child = await _child(journal, "b", hold.run, "child#1")
        await journal.end(child, failed(30))
        await _record_all(journal, hold, ["child#1"])
        await journal.end(hold, failed(50, keys=["child#1"]))
        done = await asyncio.gather(
            journal.resume("a", Resumption(70)), other.resume("a", Resumption(71)), return_exceptions=True
        )
        winners = [each for each in done if not isinstance(each, BaseException)]
        assert [[row.id for row in each.others] for each in winners] == [["b"]]
        assert sum(isinstance(each, WrongState) for each in done) == 1

    lab(program)


def test_a_resumption_that_is_refused_changes_nothing(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        _, hold = await begin(journal)
        child = await _child(journal, "b", hold.run, "child#1")
        await journal.end(child, failed(30))
        await _record_all(journal, hold, ["child#1"])
        await journal.ask(hold, new_question())
        await journal.end(hold, failed(50, keys=["child#1"]))
        before = await journal.memory(hold.run)
        for how in (Resumption(70, retry=("z#1",)), Resumption(70, input=(b"{}", b"d"))):
            with pytest.raises(WrongState):
                await journal.resume("a", how)
        assert await journal.memory(hold.run) == before
        assert (await look(journal, "b")).state is State.FAILED

    lab(program)


def test_a_run_that_fails_at_a_deadline_of_its_own_after_it_was_resumed_alone_leaves_a_letter(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        _, hold = await begin(journal, deadline=100)
        child = await _child(journal, "b", hold.run, "child#1")
        await journal.end(child, failed(110, reason="deadline"))
        row = (await journal.resume("b", Resumption(1_000))).row
        assert (row.deadline_at, row.deadline_inherited) == (1_090, False)
        (claimed,) = await journal.claim(["ship"], 1_001, 9, suspects=False)
        await journal.record(claimed.hold, entry(CANCEL_KEY, kind=Kind.CANCEL))
        await journal.end(claimed.hold, failed(1_100, reason="deadline"))
        assert [each.id for each in await journal.runs(RunQuery(letters=True))] == ["b"]

    lab(program)

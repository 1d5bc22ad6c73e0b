"""What every journal promises to a person who acts on what went wrong."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

import pytest

from durable_sqlite._records import (
    CANCEL_KEY,
    End,
    FailedAttempt,
    Hold,
    IfExists,
    Intent,
    Request,
    Resumption,
    RunQuery,
    Settlement,
    State,
)
from durable_sqlite.errors import LeaseLost, UnknownRun, WrongState
from durable_sqlite.journal import Journal
from tests.conformance.adapters import Lab
from tests.support.journals import begin, entry, new_run, rest, wait

Over = Callable[[Callable[[Lab], Coroutine[Any, Any, None]]], None]


async def _letter(journal: Journal, *, reason: str = "error", keys: tuple[str, ...] = ()) -> tuple[int, Hold]:
    started, hold = await begin(journal)
    for seq, key in enumerate(("a#1", "b#1", "c#1"), 1):
        await journal.record(hold, replace(entry(key, seq=seq), asked=seq - 1))
    for key in ("b#1", "d#1"):
        await journal.fail(hold, FailedAttempt(key, 1, 10, 20, 30, b"e"))
    state = State.PARKED if reason == "ambiguous" else State.FAILED
    await journal.end(hold, End(state, reason, b"{}", 40, keys))
    return started.row.no, hold


def test_resume_forgets_the_failures_and_what_was_asked_for_after_the_body_saw_them(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        run, _ = await _letter(journal, keys=("b#1",))
        resumed = await journal.resume("a", Resumption(50))
        assert resumed.forgotten == ("b#1", "c#1")
        assert (resumed.row.state, resumed.row.failed_keys, resumed.row.result) == (State.PENDING, (), None)
        memory = await journal.memory(run)
        assert ([kept.key for kept in memory.entries], memory.attempts) == (["a#1"], [])

    lab(program)


def test_resume_tries_what_a_person_names_and_refuses_what_is_not_recorded(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        run, _ = await _letter(journal)
        with pytest.raises(WrongState, match="z#1"):
            await journal.resume("a", Resumption(50, retry=("z#1",)))
        with pytest.raises(WrongState, match="input"):
            await journal.resume("a", Resumption(50, input=(b"{}", b"d")))
        assert (await journal.resume("a", Resumption(50, retry=("c#1",)))).forgotten == ("c#1",)
        assert [kept.key for kept in await journal.entries(run)] == ["a#1", "b#1"]
        with pytest.raises(WrongState):
            await journal.resume("a", Resumption(60))

    lab(program)


def test_a_corrected_input_replaces_the_first_one(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        _, hold = await begin(journal)
        await journal.end(hold, End(State.FAILED, "error", b"{}", 40))
        row = (await journal.resume("a", Resumption(50, input=(b"[7]", b"seven")))).row
        assert (row.input, row.input_digest) == (b"[7]", b"seven")

    lab(program)


def test_a_deadline_is_given_anew_only_where_it_was_the_reason(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        for name, reason, deadline in (("a", "deadline", 1100), ("b", "error", 110)):
            new = replace(new_run(name, at=10), deadline=100)
            started = await journal.start(new, IfExists.ATTACH, drive=True)
            assert started.hold is not None
            assert started.row.deadline_at == 110
            await journal.end(started.hold, End(State.FAILED, reason, b"{}", 200))
            assert (await journal.resume(name, Resumption(1000))).row.deadline_at == deadline

    lab(program)


def test_a_suspended_run_is_due_at_its_deadline_until_its_body_was_told(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        started = await journal.start(replace(new_run("a", at=10), deadline=100), IfExists.ATTACH, drive=True)
        hold = started.hold
        assert hold is not None
        await journal.suspend(hold, rest(wait("s#1", deadline=500), at=20))
        assert await journal.next_due(["ship"]) == 110
        (claimed,) = await journal.claim(["ship"], 110, 9, suspects=False)
        await journal.record(claimed.hold, entry(CANCEL_KEY, seq=1))
        await journal.suspend(claimed.hold, rest(wait("s#1", deadline=500), at=120))
        assert await journal.next_due(["ship"]) == 500

    lab(program)


def test_a_letter_is_listed_until_it_is_discarded_and_again_after_it_died_again(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        await _letter(journal)
        await begin(journal, "other")
        letters = RunQuery(letters=True)
        assert [row.id for row in await journal.runs(letters)] == ["a"]
        assert [row.id for row in await journal.runs(replace(letters, reason="deadline"))] == []
        assert (await journal.discard("a", 50)).discarded_at == 50
        assert (await journal.discard("a", 60)).discarded_at == 50
        assert await journal.runs(letters) == []
        for run_id, error in (("other", WrongState), ("nobody", UnknownRun)):
            with pytest.raises(error):
                await journal.discard(run_id, 70)
        assert (await journal.resume("a", Resumption(80))).row.discarded_at is None

    lab(program)


def test_a_cancel_that_was_committed_first_wins_over_the_end(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        _, hold = await begin(journal)
        await journal.cancel("a", Request(30, "enough", "ada"))
        await journal.end(hold, End(State.COMPLETED, "", b"1", 40))
        row = await journal.run("a")
        assert row is not None
        assert (row.state, row.reason, row.result) == (State.CANCELLED, "enough", None)

    lab(program)


def test_who_left_a_run_in_the_middle_is_remembered_until_it_rests(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        started, hold = await begin(journal)
        assert not started.row.interrupted
        await journal.give_back(hold, 20)
        (claimed,) = await journal.claim(["ship"], 30, 9, suspects=False)
        assert claimed.row.interrupted
        await journal.suspend(claimed.hold, rest(wait("s#1", deadline=40), at=35))
        (claimed,) = await journal.claim(["ship"], 50, 9, suspects=False)
        assert not claimed.row.interrupted

    lab(program)


@pytest.mark.parametrize("again", [True, False])
def test_what_is_in_doubt_is_decided_once_by_a_person(lab: Over, again: bool) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        run, hold = await _letter_in_doubt(journal)
        assert [intent.key for intent in (await journal.memory(run)).intents] == ["pay#1"]
        with pytest.raises(LeaseLost):
            await journal.intend(hold, Intent("late#1", "late", b"d", 3, 60))
        for run_id, key, error in (("nobody", "pay#1", UnknownRun), ("a", "a#1", WrongState)):
            with pytest.raises(error):
                await journal.settle(run_id, Settlement(key, "ada", 70, b"1", b"e"))
        row = await journal.settle("a", Settlement("pay#1", "ada", 70, None if again else b"1", b"e"))
        assert row.state is State.PENDING
        memory = await journal.memory(run)
        if again:
            assert ([(one.key, one.number) for one in memory.attempts][-1], memory.intents) == (("pay#1", 1), [])
        else:
            last = memory.entries[-1]
            assert (last.key, last.seq, last.decided_by, last.payload, last.digest) == ("pay#1", 4, "ada", b"1", b"d")
        with pytest.raises(WrongState):
            await journal.settle("a", Settlement("pay#1", "bob", 80, b"2", b"e"))

    lab(program)


async def _letter_in_doubt(journal: Journal) -> tuple[int, Hold]:
    started, hold = await begin(journal)
    for seq, key in enumerate(("a#1", "b#1", "c#1"), 1):
        await journal.record(hold, entry(key, seq=seq))
    await journal.intend(hold, Intent("pay#1", "pay", b"d", 3, 50))
    await journal.intend(hold, Intent("pay#1", "pay", b"d", 3, 55))
    await journal.end(hold, End(State.PARKED, "ambiguous", b"{}", 60))
    return started.row.no, hold

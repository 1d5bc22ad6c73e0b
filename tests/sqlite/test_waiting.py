"""Messages, questions, children and pauses in the SQLite file, where the port leaves it open how: costs, words, corners."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Coroutine
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from durable_sqlite._clock import to_datetime
from durable_sqlite._records import (
    CANCEL_KEY,
    End,
    Ended,
    Hold,
    IfExists,
    Kind,
    NewRun,
    Report,
    Resumption,
    RunQuery,
    RunRow,
    State,
)
from durable_sqlite._sqlite import SqliteJournal, connect, migrate
from durable_sqlite.errors import JournalError, LeaseLost, RunError, SignalRejected, SignalSuperseded, WrongState
from tests.sqlite.faults import Script, faulty, opened
from tests.support.journals import (
    asked,
    awaits_answer,
    awaits_end,
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

Over = Callable[[Callable[[SqliteJournal], Coroutine[Any, Any, None]]], None]

_PARK = End(State.PARKED, "diverged", b"{}", 60)


@pytest.fixture
def over(tmp_path: Path) -> Over:
    """Runs a program over a journal."""

    def run(program: Callable[[SqliteJournal], Coroutine[Any, Any, None]]) -> None:
        async def main() -> None:
            async with opened(tmp_path / "j.db") as journal:
                await program(journal)

        asyncio.run(main())

    return run


async def _child(journal: SqliteJournal, new: NewRun) -> tuple[RunRow, Hold]:
    started = await journal.start(new, IfExists.ATTACH, drive=True)
    assert started.hold is not None
    return started.row, started.hold


# What it costs -------------------------------------------------------------------------------------------------------


def test_a_recorded_step_is_one_statement_and_writes_no_run(tmp_path: Path) -> None:
    async def main() -> None:
        script = Script()
        async with opened(tmp_path / "j.db", connection=faulty(script)) as journal:
            started, hold = await begin(journal)
            script.seen.clear()
            await asyncio.gather(*(journal.record(hold, entry(f"s#{seq}", seq=seq)) for seq in (1, 2)))
            begun, bumped, *written, committed = script.seen
            assert (begun, bumped.split()[:2], committed) == (
                "BEGIN IMMEDIATE",
                ["UPDATE", "durable_workers"],
                "COMMIT",
            )
            assert [sql.split()[:3] for sql in written] == [["INSERT", "INTO", "durable_entries"]] * 2
            assert (await look(journal)).changed == started.row.changed

    asyncio.run(main())


def test_one_commit_has_one_number_and_takes_it_only_where_a_run_changes(tmp_path: Path) -> None:
    async def main() -> None:
        script = Script()
        async with opened(tmp_path / "j.db", connection=faulty(script)) as journal:
            holds = [(await begin(journal, name))[1] for name in "abc"]
            script.seen.clear()
            await asyncio.gather(*(journal.report(hold, Report("x", None, 20)) for hold in holds))
            assert sum("SET tick =" in sql for sql in script.seen) == 1
            assert len({row.changed for row in await journal.runs(RunQuery())}) == 1
            script.seen.clear()
            await journal.signal("a", new_message())
            await journal.claim(["ship"], 99, 9, suspects=False)
            await journal.start(new_run("a"), IfExists.ATTACH, drive=True)
            assert not any("SET tick =" in sql for sql in script.seen)

    asyncio.run(main())


def test_a_limit_does_not_cut_through_what_changed_together(over: Over) -> None:
    async def program(journal: SqliteJournal) -> None:
        await begin(journal, "first")
        starts = [journal.start(new_run(name), IfExists.ATTACH, drive=False) for name in "abc"]
        await asyncio.gather(*starts)
        await begin(journal, "last")
        two = await journal.changes(RunQuery(limit=2), 0)
        assert [row.id for row in two] == ["first", "a", "b", "c"]
        assert [row.id for row in await journal.changes(RunQuery(limit=9), two[-1].changed)] == ["last"]
        assert [row.id for row in await journal.changes(RunQuery(), 0)] == ["first", "a", "b", "c", "last"]

    over(program)


def test_a_journal_in_memory_has_no_pulse_because_nobody_else_can_write() -> None:
    async def main() -> None:
        async with opened(connect.MEMORY) as journal:
            before = await journal.pulse()
            await begin(journal)
            assert before == await journal.pulse()
            assert [row.id for row in await journal.changes(RunQuery(), 0)] == ["a"]
            assert await journal.news() == []

    asyncio.run(main())


# Taking --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["taken", "set aside", "unknown"])
def test_an_outcome_that_takes_what_is_not_there_is_not_kept_and_disturbs_nobody(over: Over, how: str) -> None:
    async def program(journal: SqliteJournal) -> None:
        _, hold = await begin(journal)
        for _ in range(2):
            await journal.signal("a", new_message())
        if how == "taken":
            await journal.record(hold, entry("paid#1", kind=Kind.SIGNAL), [1])
        elif how == "set aside":
            await journal.set_aside(hold, 1, b"why")
        no = 7 if how == "unknown" else 1
        refused = journal.record(hold, entry("paid#2", seq=2, kind=Kind.SIGNAL), [2, no])
        neighbour = journal.record(hold, entry("s#1", seq=3))
        with pytest.raises(JournalError, match=f"message {no} .*nothing was recorded"):
            await refused
        await neighbour
        assert "paid#2" not in {each.key for each in await journal.entries(hold.run)}
        assert [message.no for message in (await journal.mail(hold.run)).messages][-1:] == [2]

    over(program)


def test_what_a_body_does_with_its_mail_is_refused_without_its_hold(over: Over) -> None:
    async def program(journal: SqliteJournal) -> None:
        _, hold = await begin(journal)
        await journal.signal("a", new_message())
        await journal.ask(hold, new_question())
        stale = Hold(hold.run, hold.epoch + 1)
        for refused in (
            journal.record(stale, entry(), [1]),
            journal.expire(stale, entry(kind=Kind.QUESTION), 90),
            journal.ask(stale, new_question("review#2")),
            journal.withdraw(stale, ["review#1"], 30),
            journal.set_aside(stale, 1, b"why"),
            journal.reopen(stale, "review#1", b"true", b"why"),
            journal.report(stale, Report("x", None, 30)),
            journal.abandon(stale, [], asked()),
        ):
            with pytest.raises(LeaseLost):
                await refused
        memory = await journal.memory(hold.run)
        assert ([each.is_open for each in memory.questions], [each.error for each in memory.messages]) == (
            [True],
            [None],
        )

    over(program)


def test_a_fenced_worker_does_nothing_for_the_bodies_that_it_still_has(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path / "j.db") as journal:
            started, hold = await begin(journal)
            with closing(sqlite3.connect(tmp_path / "j.db", isolation_level=None)) as other:
                other.execute("UPDATE durable_workers SET fenced = 1")
            for refused in (
                journal.start(new_run("b", parent=started.row.no), IfExists.ATTACH, drive=True, caller=hold),
                journal.signal("a", new_message(), caller=hold),
                journal.answer("a", new_answer(early=True), caller=hold),
                journal.cancel("a", asked(), caller=hold),
            ):
                with pytest.raises(LeaseLost, match="struck off"):
                    await refused
            assert (await look(journal)).cancel is None
            assert (await journal.signal("a", new_message())).message.no == 1

    asyncio.run(main())


# What refusals say ---------------------------------------------------------------------------------------------------


async def _refusal(write: asyncio.Future[Any]) -> str:
    with pytest.raises(RunError) as caught:
        await write
    assert caught.value.run_id == "a"
    return str(caught.value)


def test_a_refused_answer_says_what_happened_and_what_to_do(over: Over) -> None:
    async def program(journal: SqliteJournal) -> None:
        _, hold = await begin(journal)
        assert "early=True" in await _refusal(journal.answer("a", new_answer()))
        assert "has asked none" in await _refusal(journal.answer("a", new_answer("review#1")))
        told = await _refusal(journal.answer("a", new_answer("review#1", early=True)))
        assert "an early answer takes no key" in told
        for number, name in enumerate(("review", "review", "review", "other"), 1):
            await journal.ask(hold, new_question(f"{name}#{number}", name=name))
        await journal.answer("a", new_answer("review#1", by=""))
        await journal.withdraw(hold, ["review#2"], 55)
        told = await _refusal(journal.answer("a", new_answer()))
        assert "review#1 (answered), review#2 (closed), review#3 (open)" in told
        assert "of other, not of review" in await _refusal(journal.answer("a", new_answer("other#4")))
        told = await _refusal(journal.answer("a", new_answer("review#1")))
        assert f"answered at {to_datetime(50).isoformat()} by somebody" in told
        assert f"closed at {to_datetime(55).isoformat()}" in await _refusal(journal.answer("a", new_answer("review#2")))
        await journal.end(hold, completed(60))
        for key, what in (("review#1", "was answered"), ("review#2", "was closed"), ("review#3", "is completed")):
            assert what in await _refusal(journal.answer("a", new_answer(key)))
        assert "never asked ghost" in await _refusal(journal.answer("a", new_answer(name="ghost", early=True)))
        assert "completed" in await _refusal(journal.signal("a", new_message()))

    over(program)


def test_whoever_answers_after_the_run_has_ended_still_learns_who_was_first(over: Over) -> None:
    async def program(journal: SqliteJournal) -> None:
        _, hold = await begin(journal)
        await journal.ask(hold, new_question())
        await journal.answer("a", new_answer(by="ada"))
        await journal.end(hold, completed(60))
        with pytest.raises(SignalSuperseded) as caught:
            await journal.answer("a", new_answer(by="bob"))
        assert (caught.value.at, caught.value.by) == (to_datetime(50), "ada")

    over(program)


def test_a_question_that_the_end_of_the_run_closed_was_answered_by_nobody(over: Over) -> None:
    async def program(journal: SqliteJournal) -> None:
        _, hold = await begin(journal)
        await journal.ask(hold, new_question())
        await journal.end(hold, failed(60))
        with pytest.raises(SignalRejected) as caught:
            await journal.answer("a", new_answer())
        assert not isinstance(caught.value, SignalSuperseded)

    over(program)


def test_only_a_dead_letter_can_try_again_or_get_another_input(over: Over) -> None:
    async def program(journal: SqliteJournal) -> None:
        _, hold = await begin(journal)
        await journal.record(hold, entry())
        with pytest.raises(WrongState, match="failed, parked or paused, or asked to pause"):
            await journal.resume("a", Resumption(50))
        await journal.pause("a", asked())
        for how in (Resumption(50, retry=("s#1",)), Resumption(50, input=(b"{}", b"d"))):
            with pytest.raises(WrongState, match="only a run that is failed or parked"):
                await journal.resume("a", how)
        assert (await look(journal)).pause is not None
        assert (await journal.resume("a", Resumption(50, accept_changes=True))).row.accept_changes

    over(program)


# Questions -----------------------------------------------------------------------------------------------------------


def test_questions_that_were_asked_at_one_time_keep_their_order(over: Over) -> None:
    async def program(journal: SqliteJournal) -> None:
        _, hold = await begin(journal)
        for key in ("z#1", "a#1", "m#1"):
            await journal.ask(hold, new_question(key))
        assert [each.key for each in (await journal.memory(hold.run)).questions] == ["z#1", "a#1", "m#1"]

    over(program)


def test_an_answer_that_was_set_aside_and_comes_again_is_known(over: Over) -> None:
    async def program(journal: SqliteJournal) -> None:
        _, hold = await begin(journal)
        await journal.ask(hold, new_question())
        await journal.answer("a", new_answer(dedupe="x"))
        await journal.reopen(hold, "review#1", b"true", b"why")
        assert (await journal.answer("a", new_answer(dedupe="x"))).key == "review#1"
        (question,) = (await journal.memory(hold.run)).questions
        assert (question.is_open, question.error) == (True, b"why")
        await journal.answer("a", new_answer(dedupe="y"))
        assert len((await journal.mail(hold.run)).questions) == 1

    over(program)


# Who never began -----------------------------------------------------------------------------------------------------


def test_a_run_that_waited_has_begun_though_nothing_is_recorded(over: Over) -> None:
    async def program(journal: SqliteJournal) -> None:
        _, hold = await begin(journal)
        await journal.suspend(hold, rest(awaits_message()))
        await journal.signal("a", new_message())
        (row,) = await journal.cancel("a", asked())
        assert (row.state, row.cancel) == (State.PENDING, asked())
        await journal.reclaim(hold, 60)

    over(program)


def test_a_run_that_was_driven_and_is_paused_has_begun_though_nothing_is_recorded(over: Over) -> None:
    async def program(journal: SqliteJournal) -> None:
        _, hold = await begin(journal)
        await journal.pause("a", asked(20))
        await journal.give_back(hold, 30)
        assert (await look(journal)).state is State.PAUSED
        (row,) = await journal.cancel("a", asked())
        assert (row.state, row.pause) == (State.PENDING, None)

    over(program)


def test_a_detached_grandchild_is_left_alone_with_what_is_below_it(over: Over) -> None:
    async def program(journal: SqliteJournal) -> None:
        parent = (await begin(journal))[0].row
        for name, detached in (("b", False), ("c", True), ("d", False)):
            parent, _ = await _child(journal, new_run(name, parent=parent.no, detached=detached))
        assert [row.id for row in await journal.cancel("a", asked())] == ["a", "b"]

    over(program)


# The ends of other runs ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["resumed", "replaced"])
def test_a_run_that_goes_on_is_waited_for_again(over: Over, how: str) -> None:
    async def program(journal: SqliteJournal) -> None:
        _, hold = await begin(journal)
        _, others = await begin(journal, "b")
        await journal.suspend(hold, rest(awaits_end("b"), at=40))
        await journal.reclaim(hold, 45)
        hold = replace(hold, epoch=2)
        assert await journal.end(others, failed()) == Ended(State.FAILED, 0)
        assert not (await journal.suspend(hold, rest(wait(), at=70))).suspended
        assert [news.run for news in await journal.news()] == [hold.run]
        if how == "resumed":
            await journal.resume("b", Resumption(75))
        else:
            await journal.start(new_run("b", digest=b"2"), IfExists.REPLACE, drive=False)
        assert await journal.news() == []
        assert (await journal.suspend(hold, rest(wait(), at=80))).suspended
        (claimed,) = await journal.claim(["ship"], 90, 9, suspects=False)
        assert await journal.end(claimed.hold, completed(95)) == Ended(State.COMPLETED, 1)
        assert (await look(journal)).state is State.PENDING

    over(program)


def test_an_end_that_a_run_did_not_look_for_because_it_paused_is_news_when_it_goes_on(over: Over) -> None:
    async def program(journal: SqliteJournal) -> None:
        _, hold = await begin(journal)
        _, others = await begin(journal, "b")
        await journal.pause("a", asked())
        await journal.end(others, completed())
        assert (await journal.suspend(hold, rest(awaits_end("b"), paused=True))).suspended
        await journal.resume("a", Resumption(70))
        await journal.reclaim(hold, 80)
        hold = replace(hold, epoch=2)
        assert not (await journal.suspend(hold, rest(at=85))).suspended
        assert [news.run for news in await journal.news()] == [hold.run]
        await journal.record(hold, entry("child#1", kind=Kind.CHILD))
        assert await journal.news() == []
        assert (await journal.suspend(hold, rest(wait(), closed=["child#1"], at=90))).suspended

    over(program)


def test_a_recorded_answer_and_a_wait_that_is_over_are_no_news(over: Over) -> None:
    async def program(journal: SqliteJournal) -> None:
        _, hold = await begin(journal)
        await journal.ask(hold, new_question())
        await journal.suspend(hold, rest(awaits_answer(), awaits_message(), at=40))
        await journal.answer("a", new_answer())
        await journal.reclaim(hold, 50)
        hold = replace(hold, epoch=2)
        await journal.record(hold, entry("review#1", kind=Kind.QUESTION))
        assert await journal.news() == []
        # The wait is still written, as after a crash before the next rest.
        assert (await journal.suspend(hold, rest(at=60))).suspended
        await journal.reclaim(hold, 61)
        hold = replace(hold, epoch=3)
        await journal.signal("a", new_message())
        assert not (await journal.suspend(hold, rest(closed=["review#1"], at=62))).suspended
        assert (await journal.suspend(hold, rest(wait(), closed=["review#1", "paid#1"], at=63))).suspended

    over(program)


def test_a_run_that_is_parked_wakes_nobody_who_is_suspended(over: Over) -> None:
    async def program(journal: SqliteJournal) -> None:
        _, hold = await begin(journal)
        _, others = await begin(journal, "b")
        await journal.suspend(hold, rest(awaits_end("b")))
        assert await journal.end(others, _PARK) == Ended(State.PARKED, 0)
        assert (await look(journal)).state is State.SUSPENDED

    over(program)


def test_a_run_that_is_parked_because_its_owners_die_waits_for_nothing_and_asks_nobody(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path / "j.db") as watcher, opened(tmp_path / "j.db") as victim:
            _, hold = await begin(victim)
            await victim.ask(hold, new_question())
            await victim.suspend(hold, rest(awaits_answer()))
            await victim.reclaim(hold, 50)
            (row,) = await watcher.take_over([each.no for each in await watcher.workers()], 1, b"{}", 60)
            assert row.state is State.PARKED
            memory = await watcher.memory(row.no)
            assert (memory.waits, [each.closed_at for each in memory.questions]) == ([], [60])

    asyncio.run(main())


# Resuming families ---------------------------------------------------------------------------------------------------


def test_a_child_that_was_waited_for_by_its_handle_is_resumed_with_the_wait(over: Over) -> None:
    async def program(journal: SqliteJournal) -> None:
        started, hold = await begin(journal)
        for name in ("b", "c"):
            _, childs = await _child(journal, new_run(name, parent=started.row.no, parent_key=f"start#{name}"))
            await journal.record(hold, entry(f"start#{name}", seq=ord(name) - 97, kind=Kind.ACT))
            await journal.end(childs, failed())
        await journal.record(hold, entry("result#1", seq=3, kind=Kind.RUN, name="b"))
        await journal.end(hold, failed(70, keys=["result#1"]))
        resumed = await journal.resume("a", Resumption(80))
        assert [row.id for row in resumed.others] == ["b"]
        assert (await look(journal, "c")).state is State.FAILED

    over(program)


def test_children_that_failed_at_the_deadline_with_their_parent_go_on_with_it(over: Over) -> None:
    async def program(journal: SqliteJournal) -> None:
        started, hold = await begin(journal, deadline=100)
        holds = {
            name: (await _child(journal, new_run(name, parent=started.row.no, parent_key=f"{name}#1", deadline=own)))[1]
            for name, own in (("given", None), ("unseen", None), ("own", 50))
        }
        await journal.end(holds["own"], failed(60, reason="deadline"))
        for name in ("given", "unseen"):
            await journal.end(holds[name], failed(110, reason="deadline"))
        await journal.record(hold, entry("given#1", seq=1, kind=Kind.CHILD))
        await journal.record(hold, entry(CANCEL_KEY, seq=2, kind=Kind.CANCEL, name="deadline", asked=0))
        await journal.end(hold, failed(115, reason="deadline", keys=[CANCEL_KEY]))
        resumed = await journal.resume("a", Resumption(1000))
        assert [(row.id, row.deadline_at, row.deadline_inherited) for row in resumed.others] == [("unseen", 1100, True)]
        assert (resumed.row.deadline_at, resumed.row.deadline_length) == (1100, 100)
        assert (await look(journal, "given")).state is State.FAILED

    over(program)


@pytest.mark.parametrize(
    ("parents", "deadline", "inherited"), [("resumed", 1100, True), ("as it was", 1090, False), ("gone", 1090, False)]
)
def test_a_child_that_is_resumed_alone_has_the_deadline_of_its_parent_where_that_is_still_to_come(
    over: Over, parents: str, deadline: int, inherited: bool
) -> None:
    async def program(journal: SqliteJournal) -> None:
        started, hold = await begin(journal, deadline=100)
        child, childs = await _child(journal, new_run("b", at=20, parent=started.row.no, parent_key="b#1"))
        assert (child.deadline_at, child.deadline_length) == (110, 90)
        await journal.record(hold, entry("b#1", kind=Kind.CHILD))
        await journal.end(hold, failed(115, reason="deadline"))
        if parents == "resumed":
            await journal.resume("a", Resumption(1000))
        elif parents == "gone":
            await journal.start(new_run(digest=b"2"), IfExists.REPLACE, drive=False)
        await journal.end(childs, failed(116, reason="deadline"))
        row = (await journal.resume("b", Resumption(1000))).row
        assert (row.deadline_at, row.deadline_inherited) == (deadline, inherited)

    over(program)


def test_an_inherited_deadline_stays_where_it_was_not_the_reason_and_has_passed(over: Over) -> None:
    async def program(journal: SqliteJournal) -> None:
        started, _ = await begin(journal, deadline=100)
        _, childs = await _child(journal, new_run("b", at=20, parent=started.row.no))
        await journal.end(childs, _PARK)
        row = (await journal.resume("b", Resumption(1000))).row
        assert (row.deadline_at, row.deadline_length, row.deadline_inherited) == (110, 90, True)

    over(program)


# Suspects ------------------------------------------------------------------------------------------------------------


def test_a_paused_run_whose_owners_keep_dying_is_claimed_as_a_suspect(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path / "j.db") as watcher:
            for deaths in (1, 2):
                victim = SqliteJournal(tmp_path / "j.db")
                await victim.open(f"victim {deaths}", 1)
                if deaths == 1:
                    await begin(victim, deadline=100)
                else:
                    await victim.claim(["ship"], 30, 9, suspects=False)
                    await watcher.pause("a", asked())
                dead = [each.no for each in await watcher.workers()]
                (row,) = await watcher.take_over(dead, 9, b"{}", 40)
                assert row.deaths == deaths
                await victim.close(45)
            assert (row.state, row.due_at) == (State.PAUSED, 110)
            assert await watcher.claim(["ship"], 200, 9, suspects=False) == []
            await watcher.start(new_run("b", at=300), IfExists.ATTACH, drive=False)
            (claimed,) = await watcher.claim(["ship"], 200, 9, suspects=True)
            assert (claimed.row.id, claimed.row.pause) == ("a", None)

    asyncio.run(main())


# Journals of before --------------------------------------------------------------------------------------------------


def test_a_journal_of_before_is_brought_up_to_date_with_its_runs(tmp_path: Path) -> None:
    path, known = tmp_path / "j.db", migrate.read(migrate.find())
    with closing(sqlite3.connect(path, isolation_level=None)) as old:
        connect.prepare(old, known[:2], path=str(path), synchronous="full", failpoint=lambda _name: None)
        old.execute("INSERT INTO meta (name, value) VALUES ('codec', '')")
        old.execute(
            "INSERT INTO runs (id, uid, workflow, origin, version, state, input_digest, created_at, updated_at, input,"
            " deadline_at, deadline_length) VALUES ('a', 'u', 'ship', '', '', 'suspended', x'', 1, 1, x'', 9, 8)"
        )
        old.execute("INSERT INTO waits (run, key, kind, name, since_at) VALUES (1, 'k', 'sleep', 'sleep', 1)")

    async def main() -> None:
        async with opened(path) as journal:
            row = await look(journal)
            assert (row.changed, row.parent, row.pause, row.deadline_inherited) == (0, None, None, False)
            assert [each.key for each in await journal.waits(row.no)] == ["k"]
            assert (await journal.signal("a", new_message())).new
            (row,) = await journal.pause("a", asked())
            assert (row.state, row.due_at, row.changed > 0) == (State.PAUSED, 9, True)

    asyncio.run(main())

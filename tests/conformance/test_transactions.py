"""What every journal promises about transactions: the application's rows, what is recorded, and runs are one commit."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

import pytest

from durable_sqlite._records import IfExists, Kind, Outcome, RunQuery, State
from durable_sqlite._tables import Door, Effect, Rows, Undone
from durable_sqlite.errors import LeaseLost, RunConflict, RunExists, SignalRejected, UnknownRun, UsageError
from durable_sqlite.journal import Journal
from tests.conformance.adapters import Lab
from tests.support.journals import (
    awaits_message,
    begin,
    bookings,
    completed,
    entry,
    inserts,
    look,
    make_bookings,
    new_message,
    new_run,
    rest,
    work,
)

Over = Callable[[Callable[[Lab], Coroutine[Any, Any, None]]], None]

OOPS = ValueError("oops")
ENTRY = replace(entry(), kind=Kind.TRANSACTION, payload=b"")


def _insert(door: Door, name: str) -> Rows:
    return door.execute("INSERT INTO bookings (name) VALUES (?)", (name,))


async def _prepared(lab: Lab) -> Journal:
    journal = await lab.worker()
    await make_bookings(journal)
    return journal


# A transaction by itself ---------------------------------------------------------------------------------------------


def test_what_a_transaction_writes_is_there_and_its_value_is_the_answer(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal = await _prepared(lab)
        assert await journal.transact(work(lambda door: _insert(door, "a").rowcount + 41)) == 42
        assert await bookings(await lab.worker()) == ["a"]

    lab(program)


@pytest.mark.parametrize("error", [OOPS, SystemExit(3), KeyboardInterrupt(), asyncio.CancelledError()], ids=repr)
def test_whatever_a_transaction_raises_is_its_answer_and_its_rows_alone_are_gone(
    lab: Over, error: BaseException
) -> None:
    async def program(lab: Lab) -> None:
        journal = await _prepared(lab)

        def body(door: Door) -> None:
            _insert(door, "gone")
            raise error

        before, failing = journal.transact(inserts("before")), journal.transact(work(body))
        after = journal.transact(inserts("after"))
        await asyncio.wait(list[asyncio.Future[Any]]([before, failing, after]))
        assert failing.exception() is error
        assert await bookings(journal) == ["before", "after"]

    lab(program)


def test_an_exception_that_is_returned_is_a_value_and_a_stop_iteration_is_told(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal = await _prepared(lab)
        assert await journal.transact(work(lambda _door: OOPS)) is OOPS

        def stop(_door: Door) -> None:
            raise StopIteration(7)

        with pytest.raises(RuntimeError, match="book raised StopIteration"):
            await journal.transact(work(stop))

    lab(program)


def test_a_transaction_sees_what_was_queued_before_it(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal = await _prepared(lab)
        first = journal.transact(inserts("a"))
        seen = journal.transact(work(lambda door: door.execute("SELECT name FROM bookings", ()).rows))
        await first
        assert await seen == [("a",)]

    lab(program)


def test_an_error_that_the_body_catches_undoes_its_statement_alone(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal = await _prepared(lab)

        def body(door: Door) -> str:
            _insert(door, "a")
            try:
                door.execute("INSERT INTO bookings (name) VALUES ('b'), ('a')", ())
            except sqlite3.IntegrityError as error:
                _insert(door, "c")
                return error.sqlite_errorname
            return ""

        assert await journal.transact(work(body)) == "SQLITE_CONSTRAINT_UNIQUE"
        assert await bookings(journal) == ["a", "c"]

    lab(program)


def test_the_rows_of_a_statement_are_ours_and_whole(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal = await _prepared(lab)

        def body(door: Door) -> list[Any]:
            made = door.execute("INSERT INTO bookings (name) VALUES (:name)", {"name": "a"})
            many = door.executemany("/* some */ INSERT INTO bookings (name) VALUES (?)", (("b",), ("c",)))
            none = door.executemany("INSERT INTO bookings (name) VALUES (?)", ())
            also = door.executemany("WITH x AS (SELECT ? AS n) INSERT INTO bookings SELECT n FROM x", (("d",), ("e",)))
            found = door.execute("SELECT name AS n, 1 AS one FROM bookings WHERE name < 'c'", ())
            nothing = door.execute("SELECT name FROM bookings WHERE name = '?'", ())
            back = door.execute("INSERT INTO bookings (name) VALUES ('f'), ('g') RETURNING name", ())
            ignored = door.execute("INSERT OR IGNORE INTO bookings (name) VALUES ('a')", ())
            gone = door.execute("WITH x AS (SELECT 'a') DELETE FROM bookings WHERE name IN x", ())
            return [made, many, none, also, found, nothing, back, ignored, gone]

        made, many, none, also, found, nothing, back, ignored, gone = await journal.transact(work(body))
        assert (made.rowcount, made.lastrowid, made.columns, list(made)) == (1, 1, (), [])
        assert (many, none, also) == (2, 0, 2)
        assert (list(found), found.columns, found.rowcount) == ([("a", 1), ("b", 1)], ("n", "one"), 2)
        assert found.lastrowid is None
        assert (len(nothing), nothing.rowcount, nothing.columns) == (0, 0, ("name",))
        assert (list(back), back.rowcount, back.lastrowid) == ([("f",), ("g",)], 2, 7)
        assert (ignored.rowcount, ignored.lastrowid) == (0, None)
        assert (gone.rowcount, gone.lastrowid) == (1, None)

    lab(program)


def test_what_a_body_is_given_is_dead_when_it_has_returned(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal = await _prepared(lab)
        kept: list[Door] = []
        await journal.transact(work(kept.append))
        (door,) = kept

        def later(_door: Door) -> None:
            for use in (
                lambda: door.execute("SELECT 1", ()),
                lambda: door.executemany("DELETE FROM bookings WHERE name = ?", ()),
                lambda: door.start(new_run(), IfExists.ATTACH),
                lambda: door.signal("a", new_message()),
            ):
                with pytest.raises(UsageError, match="this transaction is over"):
                    use()

        await journal.transact(work(later))

    lab(program)


@pytest.mark.parametrize(
    ("sql", "why"),
    [
        ("COMMIT", "it can neither begin nor end one"),
        ("ROLLBACK", "it can neither begin nor end one"),
        ("SAVEPOINT s", "it can neither begin nor end one"),
        ("ATTACH ':memory:' AS other", "atomic in each file for itself"),
        ("PRAGMA user_version = 9", "holds for the whole journal"),
        ("VACUUM", "cannot be part of a commit"),
        ("SELECT * FROM durable_runs", "the journal's own"),
        ("SELECT count(*) FROM Durable_Runs", "the journal's own"),
        ("DELETE FROM durable_runs", "the journal's own"),
        ("CREATE TABLE durable_mine (x)", "the journal's own"),
        ("CREATE TABLE mine (run INTEGER REFERENCES durable_runs (no))", "the journal's own"),
        ("ALTER TABLE bookings RENAME TO durable_bookings", "the journal's own"),
        ("CREATE TEMP TABLE passing (x)", "Make an ordinary table"),
        ("SELECT 1; SELECT 2", "several statements"),
    ],
)
def test_what_a_transaction_must_not_do_is_refused_with_the_reason(lab: Over, sql: str, why: str) -> None:
    async def program(lab: Lab) -> None:
        journal = await _prepared(lab)
        neighbour = journal.transact(inserts("a"))
        with pytest.raises(UsageError, match=why):
            await journal.transact(work(lambda door: door.execute(sql, ())))
        await neighbour
        assert await bookings(journal) == ["a"]

    lab(program)


def test_a_statement_that_rolls_everything_back_fails_its_transaction_and_no_other(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal = await _prepared(lab)
        _, hold = await begin(journal)

        def body(door: Door) -> None:
            _insert(door, "gone")
            with pytest.raises(sqlite3.IntegrityError):
                door.execute("INSERT OR ROLLBACK INTO bookings (name) VALUES ('gone')", ())
            with pytest.raises(sqlite3.IntegrityError):  # it would be a commit of its own
                _insert(door, "also gone")

        writes: list[asyncio.Future[Any]] = [journal.transact(inserts("before")), journal.record(hold, entry())]
        failing = journal.transact(work(body))
        writes.append(journal.transact(inserts("after")))
        with pytest.raises(sqlite3.IntegrityError):
            await failing
        await asyncio.gather(*writes)
        assert await bookings(journal) == ["before", "after"]
        assert len(await journal.entries(hold.run)) == 1

    lab(program)


def test_a_constraint_that_is_checked_at_commit_is_the_error_of_its_own_transaction(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal = await _prepared(lab)
        sql = "CREATE TABLE parts (of TEXT REFERENCES bookings (name) DEFERRABLE INITIALLY DEFERRED)"
        await journal.transact(work(lambda door: door.execute(sql, ())))
        _, hold = await begin(journal)

        def orphan(door: Door) -> Effect:
            door.execute("INSERT INTO parts VALUES ('nothing')", ())
            return Effect(Outcome.VALUE, b"1")

        writes: list[asyncio.Future[Any]] = [
            journal.transact(inserts("before")),
            journal.record(hold, entry("other#1", seq=1)),
        ]
        failing, step = journal.transact(work(orphan)), journal.transact_step(hold, ENTRY, work(orphan))
        writes.append(journal.transact(inserts("after")))
        with pytest.raises(sqlite3.IntegrityError, match="FOREIGN KEY"):
            await failing
        undone = await step
        assert isinstance(undone, Undone)
        assert isinstance(undone.error, sqlite3.IntegrityError)
        await asyncio.gather(*writes)
        assert await bookings(journal) == ["before", "after"]
        assert [each.key for each in await journal.entries(hold.run)] == ["other#1"]

    lab(program)


# Steps ---------------------------------------------------------------------------------------------------------------


def test_the_rows_of_a_step_and_its_outcome_are_one(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal = await _prepared(lab)
        _, hold = await begin(journal)
        recorded = await journal.transact_step(hold, ENTRY, inserts("a", payload=b"42"))
        assert recorded == replace(ENTRY, outcome=Outcome.VALUE, payload=b"42")
        assert await journal.entries(hold.run) == [recorded]
        assert await bookings(journal) == ["a"]

    lab(program)


def test_a_step_that_fails_leaves_neither_rows_nor_an_outcome_and_the_next_one_takes_its_place(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal = await _prepared(lab)
        _, hold = await begin(journal)

        def body(door: Door) -> Effect:
            _insert(door, "a")
            raise OOPS

        assert await journal.transact_step(hold, ENTRY, work(body)) == Undone(OOPS)
        assert await journal.entries(hold.run) == []
        assert await bookings(journal) == []
        assert not isinstance(await journal.transact_step(hold, ENTRY, inserts("a")), Undone)
        assert await bookings(journal) == ["a"]

    lab(program)


def test_an_error_that_is_an_answer_is_recorded_and_its_rows_are_gone(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal = await _prepared(lab)
        _, hold = await begin(journal)
        answer = inserts("a", outcome=Outcome.ERROR, payload=b"declined", keep=False)
        recorded = await journal.transact_step(hold, ENTRY, answer)
        assert await journal.entries(hold.run) == [recorded]
        assert recorded == replace(ENTRY, outcome=Outcome.ERROR, payload=b"declined")
        assert await bookings(journal) == []

    lab(program)


def test_a_step_of_a_run_that_is_driven_elsewhere_is_not_even_called(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal = await _prepared(lab)
        _, hold = await begin(journal)
        called: list[Door] = []

        def body(door: Door) -> Effect:
            called.append(door)
            return Effect(Outcome.VALUE, b"1")

        with pytest.raises(LeaseLost):
            await journal.transact_step(replace(hold, epoch=hold.epoch + 1), ENTRY, work(body))
        assert called == []
        assert await journal.entries(hold.run) == []

    lab(program)


def test_a_worker_that_was_struck_off_does_no_step_and_its_clients_go_on(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal, other = await _prepared(lab), await lab.worker()
        _, hold = await begin(journal)
        await other.take_over([each.no for each in await other.workers()], 9, b"{}", 40)
        with pytest.raises(LeaseLost):
            await journal.transact_step(hold, ENTRY, inserts("step"))
        await journal.transact(inserts("client"))
        assert await bookings(other) == ["client"]

    lab(program)


# Runs ----------------------------------------------------------------------------------------------------------------


def test_a_row_and_a_start_and_a_message_are_one_commit(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal = await _prepared(lab)
        _, hold = await begin(journal, "waits")
        await journal.suspend(hold, rest(awaits_message()))

        def body(door: Door) -> tuple[State, State]:
            _insert(door, "a")
            started = door.start(new_run("b"), IfExists.ATTACH, new_message())
            assert started.created
            assert started.hold is None
            return started.row.state, door.signal("waits", new_message()).row.state

        assert await journal.transact(work(body)) == (State.PENDING, State.PENDING)
        row = await look(journal, "b")
        assert len((await journal.memory(row.no)).messages) == 1
        assert (await look(journal, "waits")).state is State.PENDING
        assert await bookings(journal) == ["a"]

    lab(program)


@pytest.mark.parametrize("how", ["raises", "rolls back", "is an answer", "breaks at commit"])
def test_what_a_body_does_to_runs_is_undone_with_its_rows(lab: Over, how: str) -> None:
    async def program(lab: Lab) -> None:
        journal = await _prepared(lab)
        sql = "CREATE TABLE parts (of TEXT REFERENCES bookings (name) DEFERRABLE INITIALLY DEFERRED)"
        await journal.transact(work(lambda door: door.execute(sql, ())))
        await journal.start(new_run("old"), IfExists.ATTACH, drive=False)
        _, hold = await begin(journal)
        before = await journal.changes(RunQuery(), 0)

        def body(door: Door) -> Effect:
            door.start(new_run("new"), IfExists.ATTACH)
            door.signal("old", new_message())
            if how == "raises":
                raise OOPS
            if how == "rolls back":
                door.execute("INSERT OR ROLLBACK INTO bookings (name) VALUES (NULL)", ())
            if how == "breaks at commit":
                door.execute("INSERT INTO parts VALUES ('nothing')", ())
            return Effect(Outcome.ERROR, b"no", keep=how != "is an answer")

        done = await journal.transact_step(hold, ENTRY, work(body))
        assert isinstance(done, Undone) == (how != "is an answer")
        assert await journal.run("new") is None
        assert (await journal.memory((await look(journal, "old")).no)).messages == []
        assert await journal.changes(RunQuery(), 0) == before

    lab(program)


@pytest.mark.parametrize("how", ["raises", "fails as a step", "is an answer"])
def test_what_changed_after_a_body_that_was_undone_has_a_number_of_its_own(lab: Over, how: str) -> None:
    async def program(lab: Lab) -> None:
        journal = await _prepared(lab)
        _, hold = await begin(journal, "old")
        seen = (await look(journal, "old")).changed

        def body(door: Door) -> Effect:
            door.start(new_run("gone"), IfExists.ATTACH)
            if how == "is an answer":
                return Effect(Outcome.ERROR, b"no", keep=False)
            raise OOPS

        undone: asyncio.Future[Any]
        undone = journal.transact(work(body)) if how == "raises" else journal.transact_step(hold, ENTRY, work(body))
        one = journal.start(new_run("one"), IfExists.ATTACH, drive=False)
        await asyncio.wait([undone])
        assert (undone.exception() is OOPS) == (how == "raises")
        assert (await one).row.changed > seen
        two = await journal.start(new_run("two"), IfExists.ATTACH, drive=False)
        assert two.row.changed > (await one).row.changed
        assert [row.id for row in await journal.changes(RunQuery(), (await one).row.changed)] == ["two"]

    lab(program)


def test_refusals_are_raised_where_the_body_asked_and_it_may_go_on(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal = await _prepared(lab)
        _, hold = await begin(journal, "ended")
        await journal.end(hold, completed())

        def body(door: Door) -> None:
            with pytest.raises(UnknownRun):
                door.signal("nobody", new_message())
            with pytest.raises(SignalRejected):
                door.signal("ended", new_message())
            with pytest.raises(RunExists):
                door.start(new_run("ended"), IfExists.FAIL)
            with pytest.raises(RunConflict):
                door.start(new_run("ended", digest=b"other"), IfExists.ATTACH)
            assert not door.start(new_run("ended"), IfExists.ATTACH).created
            _insert(door, "a")

        await journal.transact(work(body))
        assert await bookings(journal) == ["a"]

    lab(program)

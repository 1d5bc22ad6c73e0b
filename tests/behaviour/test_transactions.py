"""Transactions in a body: steps whose rows, result and entry are one commit."""

from __future__ import annotations

import asyncio
import inspect
import pydoc
import sqlite3
import threading
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError
from typing_extensions import TypedDict

from durable_sqlite import (
    DefinitionError,
    Engine,
    Kind,
    Outcome,
    Retry,
    RunCancelled,
    RunConflict,
    RunExists,
    RunFailed,
    RunParked,
    Signal,
    SignalRejected,
    State,
    StepFailed,
    Tx,
    UnknownRun,
    UsageError,
    current_step,
    each,
    step,
    transaction,
    workflow,
)
from tests.support.clock import ManualClock
from tests.support.restarts import die, quiet
from tests.support.stage import Stage, ended, until

_PATIENCE = 20.0


def tables(tx: Tx) -> None:
    tx.execute("CREATE TABLE notes (no INTEGER PRIMARY KEY, text TEXT NOT NULL)")


def notes(tx: Tx) -> list[str]:
    return tx.fetch_all(str, "SELECT text FROM notes ORDER BY no")


@transaction
def note(tx: Tx, text: str) -> int:
    """Write a note.

    Args:
        text: What it says.
    """
    return tx.execute("INSERT INTO notes (text) VALUES (?)", (text,)).lastrowid or 0


@step
async def walk(to: str) -> str:
    return f"walked to {to}"


class Held:
    """Holds a transaction in the middle of its body, on the journal's thread, until the test lets it go on."""

    def __init__(self) -> None:
        self._here = threading.Event()
        self._go = threading.Event()

    def wait(self) -> None:
        self._here.set()
        assert self._go.wait(_PATIENCE)

    async def reached(self) -> None:
        await until(self._here.is_set)

    def let(self) -> None:
        self._go.set()


# What the decorator makes --------------------------------------------------------------------------------------------


def test_the_tx_is_injected_and_absent_from_what_callers_see() -> None:
    assert str(inspect.signature(note)) == "(text: 'str') -> 'int'"
    assert str(inspect.signature(note.options(key="k"))) == "(text: 'str') -> 'int'"
    assert (note.name, repr(note)) == ("note", "<transaction note>")
    assert "Write a note." in pydoc.render_doc(note)
    assert list(inspect.signature(note.fn).parameters) == ["tx", "text"]


def test_an_async_function_is_refused_where_it_is_defined_with_the_reason() -> None:
    with pytest.raises(DefinitionError, match=r"plain function, not `async def`.*nothing can be awaited.*@step"):

        @transaction
        async def book(tx: Tx) -> None:  # pyright: ignore[reportUnusedFunction]
            tx.execute("SELECT 1")


def no_parameter() -> None: ...


def generates(tx: Tx) -> Any:
    yield tx


@pytest.mark.parametrize("fn", [no_parameter, generates, note, walk, Stage, staticmethod(no_parameter), 3])
def test_what_can_be_no_transaction_is_refused_where_it_is_defined(fn: Any) -> None:
    with pytest.raises(DefinitionError):
        transaction(fn)


@pytest.mark.parametrize(
    "options",
    [{"retry": 3}, {"timeout": 0}, {"timeout": "1 s"}, {"raises": (int,)}, {"name": "a#b"}, {"ignore": ("no",)}],
)
def test_options_that_make_no_sense_are_refused_where_they_are_given(options: dict[str, Any]) -> None:
    def book(tx: Tx) -> None: ...

    with pytest.raises((DefinitionError, UsageError)):
        transaction(**options)(book)


def test_a_function_that_cannot_be_given_a_tx_first_is_refused_where_it_is_defined() -> None:
    def by_name(*, tx: Tx) -> None: ...

    def method(self, tx: Tx) -> None: ...  # type: ignore[no-untyped-def]  # noqa: ANN001

    fns: list[Any] = [by_name, method]
    for fn in fns:
        with pytest.raises(DefinitionError):
            transaction(fn)


# Values --------------------------------------------------------------------------------------------------------------


class Point(BaseModel):
    x: int
    y: int = 0


def test_the_body_gets_what_a_replay_would_give_it_decoded_from_the_stored_bytes() -> None:
    made: list[Any] = []

    @transaction
    def points(tx: Tx) -> dict[str, list[Point]]:
        made.append({"a": [Point(x=tx.fetch_one(int, "SELECT 7") or 0)]})
        return made[-1]  # type: ignore[no-any-return]

    @workflow
    async def flow() -> bool:
        got = await points()
        return got == made[0] and got is not made[0] and got["a"] is not made[0]["a"]

    async def scenario() -> None:
        async with Engine(":memory:"):
            assert await flow()
            assert len(made) == 1

    asyncio.run(scenario())


def test_a_result_that_cannot_be_stored_undoes_the_rows_and_is_not_tried_again() -> None:
    calls: list[int] = []

    @transaction(retry=Retry(max_attempts=5, initial_delay=0))
    def wrong(tx: Tx) -> int:
        calls.append(1)
        note.fn(tx, "wrong")
        return "seven"  # type: ignore[return-value]

    @workflow
    async def flow() -> tuple[str, int]:
        try:
            await wrong()
        except StepFailed as failed:
            return failed.key, failed.attempts
        raise AssertionError

    async def scenario() -> None:
        async with Engine(":memory:") as engine:
            await engine.transact(tables)
            assert await flow() == ("wrong#1", 1)
            assert await engine.transact(notes) == []
            assert calls == [1]

    asyncio.run(scenario())


def test_a_result_that_is_too_large_undoes_the_rows() -> None:
    @transaction
    def large(tx: Tx) -> str:
        note.fn(tx, "large")
        return "x" * 2_000

    @workflow
    async def flow() -> None:
        await large()

    async def scenario() -> None:
        async with Engine(":memory:", payload_limit=1_500) as engine:
            await engine.transact(tables)
            failed = await ended(await flow.start(), RunFailed)
            assert "PayloadTooLarge" in str(failed)
            assert await engine.transact(notes) == []

    asyncio.run(scenario())


def test_each_call_of_the_function_gets_its_own_copy_of_the_arguments() -> None:
    seen: list[list[str]] = []

    @transaction(retry=Retry(max_attempts=2, initial_delay=0, jitter=0))
    def add(tx: Tx, words: list[str]) -> int:
        tx.execute("SELECT 1")
        words.append("more")
        seen.append(list(words))
        if len(seen) == 1:
            raise ValueError
        return len(words)

    @workflow
    async def flow() -> tuple[int, list[str]]:
        words = ["a"]
        return await add(words), words

    async def scenario() -> None:
        async with Engine(":memory:"):
            assert await flow() == (2, ["a"])
            assert seen == [["a", "more"], ["a", "more"]]

    asyncio.run(scenario())


def test_an_argument_of_the_wrong_kind_is_refused_at_the_call() -> None:
    @workflow
    async def flow() -> str:
        try:
            await note(asyncio.Event())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        except Exception as error:
            return type(error).__name__
        raise AssertionError

    async def scenario() -> None:
        async with Engine(":memory:"):
            run = await flow.start()
            assert await run == "Unstorable"
            assert await run.history() == []

    asyncio.run(scenario())


# In the journal ------------------------------------------------------------------------------------------------------


def test_it_is_a_step_of_its_own_kind_in_the_history() -> None:
    @workflow
    async def flow() -> list[int]:
        return [await note("a"), await note.options(key="second")("b"), await note("c")]

    async def scenario() -> None:
        async with Engine(":memory:", clock=ManualClock()) as engine:
            await engine.transact(tables)
            run = await flow.start()
            assert await run == [1, 2, 3]
            found = [(entry.key, entry.kind, entry.name, entry.value) for entry in await run.history()]
            assert found == [
                ("note#1", Kind.TRANSACTION, "note", 1),
                ("second", Kind.TRANSACTION, "note", 2),
                ("note#2", Kind.TRANSACTION, "note", 3),
            ]
            assert {entry.outcome for entry in await run.history()} == {Outcome.VALUE}

    asyncio.run(scenario())


def test_it_knows_its_attempt_and_has_the_context_of_its_caller() -> None:
    colour: ContextVar[str] = ContextVar("colour", default="none")

    @transaction
    def look(tx: Tx) -> tuple[str, str, int, str]:
        tx.execute("SELECT 1")
        here, seen = current_step(), colour.get()
        colour.set("leaked")
        return here.run_id, here.key, here.attempt, seen

    @workflow
    async def flow() -> tuple[tuple[str, str, int, str], str]:
        colour.set("red")
        return await look(), colour.get()

    async def scenario() -> None:
        async with Engine(":memory:"):
            assert await flow.options(id="x").start() is not None
            assert await flow.run("x") == (("x", "look#1", 1, "red"), "red")

    asyncio.run(scenario())


def test_transactions_that_are_gathered_take_effect_once_and_in_order_also_over_a_restart(tmp_path: Path) -> None:
    stage = Stage()
    got: list[list[Any]] = []

    @step
    async def hold() -> None:
        await stage.enter("hold")

    @workflow
    async def flow() -> list[Any]:
        parts = await asyncio.gather(note("a"), walk("b"), note("c"), walk("d"), note("e"))
        got.append(list(parts))
        await hold()
        return [*parts, await note("f")]

    async def scenario() -> None:
        async with Engine(tmp_path / "j.db") as engine:
            await engine.transact(tables)
            await flow.options(id="x").start()
            await stage.seen("hold")
            assert await engine.transact(notes) == ["a", "c", "e"]
            await die(engine)
        stage.let("hold")
        async with Engine(tmp_path / "j.db", workflows=[flow]) as engine:
            assert await engine.run("x") == [1, "walked to b", 2, "walked to d", 3, 4]
            assert await engine.transact(notes) == ["a", "c", "e", "f"]
            history = await engine.run("x").history()
            assert [entry.key for entry in history if entry.kind is Kind.TRANSACTION] == [
                "note#1",
                "note#2",
                "note#3",
                "note#4",
            ]
        assert got[0] == got[1]

    asyncio.run(scenario())


def test_each_takes_a_transaction_as_it_takes_any_step() -> None:
    @workflow
    async def flow() -> list[int]:
        return await each(note, ["a", "b", "c"])

    async def scenario() -> None:
        async with Engine(":memory:") as engine:
            await engine.transact(tables)
            run = await flow.start()
            assert await run == [1, 2, 3]
            assert await engine.transact(notes) == ["a", "b", "c"]
            assert {entry.key for entry in await run.history()} == {"note#1[0]", "note#1[1]", "note#1[2]"}

    asyncio.run(scenario())


@pytest.mark.parametrize("stays", ["step", "transaction"])
def test_a_transaction_that_became_a_step_or_the_other_way_round_is_a_divergence(tmp_path: Path, stays: str) -> None:
    stage = Stage()

    @step
    async def hold() -> None:
        await stage.enter("hold")

    @transaction(name="act")
    def exact(tx: Tx) -> int:
        return tx.fetch_one(int, "SELECT 1") or 0

    @step(name="act")
    async def loose() -> int:
        return 1

    def flow_of(act: Callable[[], Any]) -> Any:
        @workflow
        async def flow() -> None:
            await act()
            await hold()

        return flow

    async def scenario() -> None:
        first, second = (exact, loose) if stays == "step" else (loose, exact)
        async with Engine(tmp_path / "j.db") as engine:
            await flow_of(first).options(id="x").start()
            await stage.seen("hold")
            await die(engine)
        stage.let("hold")
        async with Engine(tmp_path / "j.db", workflows=[flow_of(second)]) as engine:
            parked = await ended(engine.run("x"), RunParked)
            assert parked.reason == "diverged"
            assert "transaction" in str(parked)

    asyncio.run(scenario())


def test_called_outside_a_run_it_says_how_else_to_run_it() -> None:
    async def scenario() -> None:
        async with Engine(":memory:"):
            with pytest.raises(UsageError, match=r"outside a run.*await engine\.transact\(note"):
                _ = note("a")

    asyncio.run(scenario())


def test_called_in_a_step_or_in_another_transaction_it_is_refused() -> None:
    @step
    async def in_a_step() -> None:
        await note("a")

    @transaction
    def in_another(tx: Tx) -> None:
        _ = note("a")

    @workflow
    async def flow() -> list[str]:
        told: list[str] = []
        for act in (in_a_step, in_another):
            try:
                await act()
            except StepFailed as failed:
                told.append(failed.message)
        return told

    async def scenario() -> None:
        async with Engine(":memory:"):
            for told in await flow():
                assert "transaction note was called inside a " in told

    asyncio.run(scenario())


# SQL -----------------------------------------------------------------------------------------------------------------


@dataclass
class Note:
    no: int
    text: str


class NoteModel(BaseModel):
    no: int
    text: str


class NoteDict(TypedDict):
    no: int
    text: str


@pytest.mark.parametrize(
    ("model", "first"),
    [
        (Note, Note(1, "a")),
        (NoteModel, NoteModel(no=1, text="a")),
        (NoteDict, {"no": 1, "text": "a"}),
        (tuple[int, str], (1, "a")),
    ],
)
def test_rows_are_read_as_whatever_type_is_asked_for(model: Any, first: Any) -> None:
    def look(tx: Tx) -> None:
        note.fn(tx, "a")
        note.fn(tx, "b")
        assert tx.fetch_one(model, "SELECT no, text FROM notes ORDER BY no") == first
        rows = tx.fetch_all(model, "SELECT no, text FROM notes ORDER BY no")
        assert (rows[0], len(rows)) == (first, 2)
        assert tx.fetch_one(model, "SELECT no, text FROM notes WHERE no = ?", (9,)) is None
        assert tx.fetch_all(model, "SELECT no, text FROM notes WHERE no = :no", {"no": 9}) == []

    async def scenario() -> None:
        async with Engine(":memory:") as engine:
            await engine.transact(tables)
            await engine.transact(look)

    asyncio.run(scenario())


def test_a_row_that_does_not_fit_its_type_is_an_error_of_the_transaction() -> None:
    def misfit(tx: Tx) -> None:
        note.fn(tx, "a")
        tx.fetch_all(int, "SELECT text FROM notes")

    def two_columns(tx: Tx) -> None:
        tx.fetch_one(int, "SELECT 1, 2")

    async def scenario() -> None:
        async with Engine(":memory:") as engine:
            await engine.transact(tables)
            with pytest.raises(ValidationError):
                await engine.transact(misfit)
            with pytest.raises(TypeError, match="a row of 2 columns"):
                await engine.transact(two_columns)
            assert await engine.transact(notes) == []

    asyncio.run(scenario())


def test_a_statement_gives_its_rows_whole_with_their_count_and_the_new_number() -> None:
    def act(tx: Tx) -> None:
        made = tx.execute("INSERT INTO notes (text) VALUES ('a'), ('b')")
        assert (made.rowcount, made.lastrowid, list(made), made.columns) == (2, 2, [], ())
        back = tx.execute("INSERT INTO notes (text) VALUES (:text) RETURNING no, text", {"text": "c"})
        assert (back.rows, back.columns, len(back)) == ([(3, "c")], ("no", "text"), 1)
        found = tx.execute("SELECT text FROM notes ORDER BY no")
        assert (list(found), found.columns, found.rowcount) == ([("a",), ("b",), ("c",)], ("text",), 3)
        assert tx.execute("UPDATE notes SET text = 'x' WHERE no < 3").rowcount == 2
        assert tx.executemany("INSERT INTO notes (text) VALUES (?)", ((str(n),) for n in range(5))) == 5
        assert tx.execute("DELETE FROM notes").rowcount == 8

    async def scenario() -> None:
        async with Engine(":memory:") as engine:
            await engine.transact(tables)
            await engine.transact(act)

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("sql", "says"),
    [
        ("COMMIT", "neither begin nor end"),
        ("ROLLBACK", "neither begin nor end"),
        ("BEGIN", "neither begin nor end"),
        ("SAVEPOINT mine", "neither begin nor end"),
        ("ATTACH ':memory:' AS other", "atomic in each file"),
        ("PRAGMA foreign_keys = off", "PRAGMA foreign_keys is refused"),
        ("SELECT * FROM durable_runs", "the journal's own"),
        ("INSERT INTO notes (text) SELECT id FROM durable_runs", "the journal's own"),
        ("DELETE FROM durable_entries", "the journal's own"),
        ("DROP TABLE durable_entries", "the journal's own"),
        ("CREATE TABLE durable_mine (x)", "the journal's own"),
        ("CREATE TEMP TABLE mine (x)", "temporary"),
        ("VACUUM", "VACUUM is refused"),
        ("INSERT INTO notes (text) VALUES ('a'); INSERT INTO notes (text) VALUES ('b')", "several statements"),
    ],
)
def test_what_is_not_a_transaction_s_business_is_refused_with_the_reason(sql: str, says: str) -> None:
    @transaction
    def act(tx: Tx) -> None:
        note.fn(tx, "before")
        tx.execute(sql)

    @workflow
    async def flow() -> tuple[str, str]:
        try:
            await act()
        except StepFailed as failed:
            return failed.type, failed.message
        raise AssertionError

    async def scenario() -> None:
        async with Engine(":memory:") as engine:
            await engine.transact(tables)
            kind, message = await flow()
            assert kind.endswith(".UsageError")
            assert says in message
            assert await engine.transact(notes) == []
            await walks()  # the journal is as well as before

    asyncio.run(scenario())


@workflow
async def walks() -> str:
    return await walk("town")


def test_a_refused_statement_that_the_body_catches_leaves_the_rest_of_it_in_force() -> None:
    @transaction
    def act(tx: Tx) -> None:
        note.fn(tx, "before")
        with pytest.raises(UsageError):
            tx.execute("COMMIT")
        with pytest.raises(sqlite3.IntegrityError):
            tx.execute("INSERT INTO notes (text) VALUES (NULL)")
        note.fn(tx, "after")

    @workflow
    async def flow() -> None:
        await act()

    async def scenario() -> None:
        async with Engine(":memory:") as engine:
            await engine.transact(tables)
            await flow()
            assert await engine.transact(notes) == ["before", "after"]

    asyncio.run(scenario())


def test_a_tx_that_is_kept_is_dead_when_its_function_has_returned() -> None:
    kept: list[Tx] = []

    @transaction
    def keep(tx: Tx) -> None:
        kept.append(tx)

    @workflow
    async def flow() -> None:
        await keep()

    async def scenario() -> None:
        async with Engine(":memory:") as engine:
            await engine.transact(tables)
            await flow()
            acts: list[Callable[[Tx], Any]] = [
                lambda tx: tx.execute("SELECT 1"),
                lambda tx: tx.fetch_all(int, "SELECT 1"),
                lambda tx: tx.executemany("INSERT INTO notes (text) VALUES (?)", [("a",)]),
                lambda tx: tx.start(walks),
                lambda tx: tx.signal("x", RowNudge()),
            ]
            for act in acts:
                with pytest.raises(UsageError, match="this transaction is over"):
                    act(kept[0])
            assert await engine.transact(notes) == []

    asyncio.run(scenario())


def test_a_tx_works_on_the_thread_of_its_function_alone() -> None:
    caught: list[BaseException] = []

    def act(tx: Tx) -> None:
        def elsewhere() -> None:
            try:
                tx.execute("INSERT INTO notes (text) VALUES ('elsewhere')")
            except BaseException as error:
                caught.append(error)

        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        note.fn(tx, "here")

    async def scenario() -> None:
        async with Engine(":memory:") as engine:
            await engine.transact(tables)
            await engine.transact(act)
            assert await engine.transact(notes) == ["here"]
            (refused,) = caught
            assert isinstance(refused, UsageError)
            assert "thread of its function alone" in str(refused)

    asyncio.run(scenario())


# Runs ----------------------------------------------------------------------------------------------------------------


class RowNudge(Signal):
    text: str = ""


@workflow
async def listens() -> str:
    return (await RowNudge.wait()).text


@workflow
async def echoes(text: str) -> str:
    return await walk(text)


def test_a_run_that_a_transaction_starts_is_a_child_of_its_run_and_is_driven() -> None:
    @transaction
    def begin(tx: Tx, text: str) -> list[str]:
        note.fn(tx, text)
        return [tx.start(echoes.options(id="named"), text), tx.start(echoes.options(tags={"a": "b"}), "two")]

    @workflow
    async def flow() -> list[str]:
        return await begin("one")

    async def scenario() -> None:
        async with Engine(":memory:") as engine:
            await engine.transact(tables)
            run = await flow.options(id="parent").start()
            first, second = await run
            assert first == "named"
            assert await engine.run(first).result(timeout=_PATIENCE) == "walked to one"
            assert await engine.run(second).result(timeout=_PATIENCE) == "walked to two"
            for run_id in (first, second):
                assert (await engine.run(run_id).info()).parent == "parent"
            assert (await engine.run(second).info()).tags == {"a": "b"}

    asyncio.run(scenario())


def test_what_a_transaction_asks_of_runs_is_undone_with_it() -> None:
    attempts: list[str] = []

    @transaction(retry=Retry(max_attempts=2, initial_delay=0, jitter=0))
    def begin(tx: Tx) -> str:
        attempts.append(tx.start(echoes.options(), "one"))
        tx.signal("listener", RowNudge(text=f"attempt {len(attempts)}"))
        if len(attempts) == 1:
            raise ValueError
        return attempts[-1]

    @workflow
    async def flow() -> str:
        return await begin()

    async def scenario() -> None:
        async with Engine(":memory:") as engine:
            listener = await listens.options(id="listener").start()
            await quiet(engine)
            run_id = await flow()
            assert attempts == [run_id, run_id]  # the same child, whenever it is tried
            assert await engine.run(run_id).result(timeout=_PATIENCE) == "walked to one"
            assert await listener.result(timeout=_PATIENCE) == "attempt 2"
            assert await engine.count(workflow=echoes) == 1
            assert await listener.messages() == []

    asyncio.run(scenario())


def test_a_transaction_that_fails_for_good_starts_nothing_and_sends_nothing() -> None:
    @transaction
    def begin(tx: Tx) -> None:
        tx.start(echoes, "one")
        tx.signal("listener", RowNudge())
        raise ValueError

    @workflow
    async def flow() -> None:
        await begin()

    async def scenario() -> None:
        async with Engine(":memory:") as engine:
            listener = await listens.options(id="listener").start()
            await ended(await flow.start(), RunFailed)
            await quiet(engine)
            assert await engine.count(workflow=echoes) == 0
            assert (await listener.info()).state is State.SUSPENDED

    asyncio.run(scenario())


def test_a_refusal_about_runs_is_raised_inside_the_transaction_which_may_go_on() -> None:
    @transaction
    def begin(tx: Tx) -> list[str]:
        told: list[str] = []
        acts: list[Callable[[], Any]] = [
            lambda: tx.start(echoes.options(id="taken"), "other"),
            lambda: tx.start(echoes.options(id="taken", if_exists="fail"), "one"),
            lambda: tx.signal("nobody", RowNudge()),
            lambda: tx.signal("taken", RowNudge()),
        ]
        for act in acts:
            try:
                act()
            except (RunConflict, RunExists, UnknownRun, SignalRejected) as error:
                told.append(type(error).__name__)
        note.fn(tx, "went on")
        return told

    @workflow
    async def flow() -> list[str]:
        return await begin()

    async def scenario() -> None:
        async with Engine(":memory:") as engine:
            await engine.transact(tables)
            await (await echoes.options(id="taken").start("one"))
            assert await flow() == ["RunConflict", "RunExists", "UnknownRun", "SignalRejected"]
            assert await engine.transact(notes) == ["went on"]

    asyncio.run(scenario())


def test_a_run_that_signals_itself_in_a_transaction_gets_the_message() -> None:
    @transaction
    def remind(tx: Tx) -> None:
        tx.signal(current_step().run_id, RowNudge(text="me"))

    @workflow
    async def flow() -> str:
        await remind()
        return (await RowNudge.wait()).text

    async def scenario() -> None:
        async with Engine(":memory:"):
            assert await (await flow.start()).result(timeout=_PATIENCE) == "me"

    asyncio.run(scenario())


# What comes meanwhile ------------------------------------------------------------------------------------------------


def test_a_run_that_is_cancelled_during_a_transaction_keeps_what_that_committed_and_begins_no_other(
    tmp_path: Path,
) -> None:
    held, stage = Held(), Stage()

    @transaction
    def slow(tx: Tx) -> None:
        note.fn(tx, "slow")
        held.wait()

    @step
    async def hold() -> None:
        await stage.enter("hold")

    @workflow
    async def flow() -> None:
        await slow()
        await hold()
        await note("never")

    async def scenario() -> None:
        async with Engine(tmp_path / "j.db") as engine:
            await engine.transact(tables)
            run = await flow.start()
            await held.reached()
            cancelling = asyncio.create_task(run.cancel())
            await asyncio.sleep(0)
            held.let()
            await cancelling
            await ended(run, RunCancelled)
            assert await engine.transact(notes) == ["slow"]
            assert "slow#1" in [entry.key for entry in await run.history()]

    asyncio.run(scenario())


@pytest.mark.contradicts("two", "crash", reason="its pause is heard before the transaction ends")
def test_a_run_that_is_paused_during_a_transaction_records_it_and_goes_on_when_resumed(tmp_path: Path) -> None:
    held, stage = Held(), Stage()

    @transaction
    def slow(tx: Tx) -> None:
        note.fn(tx, "slow")
        held.wait()

    @step
    async def hold() -> None:
        await stage.enter("hold")

    @workflow
    async def flow() -> str:
        await slow()
        await hold()
        await note("later")
        return "done"

    async def scenario() -> None:
        async with Engine(tmp_path / "j.db") as engine:
            await engine.transact(tables)
            run = await flow.start()
            await held.reached()
            pausing = asyncio.create_task(run.pause(reason="stock"))
            await asyncio.sleep(0)
            held.let()
            await pausing
            stage.let("hold")
            await quiet(engine)
            assert (await run.info()).state is State.PAUSED
            assert await engine.transact(notes) == ["slow"]
            await run.resume()
            assert await run.result(timeout=_PATIENCE) == "done"
            assert await engine.transact(notes) == ["slow", "later"]

    asyncio.run(scenario())


def test_a_deadline_that_passes_during_a_transaction_keeps_what_that_committed() -> None:
    held = Held()

    @transaction
    def slow(tx: Tx) -> None:
        note.fn(tx, "slow")
        held.wait()

    @workflow
    async def flow() -> None:
        await slow()
        await note("never")

    async def scenario() -> None:
        clock = ManualClock()
        async with Engine(":memory:", clock=clock) as engine:
            await engine.transact(tables)
            run = await flow.options(deadline=10).start()
            await held.reached()
            clock.advance(11)
            await asyncio.sleep(0)
            held.let()
            failed = await ended(run, RunFailed)
            assert failed.reason == "deadline"
            assert await engine.transact(notes) == ["slow"]
            assert "slow#1" in [entry.key for entry in await run.history()]

    asyncio.run(scenario())


def test_a_group_that_is_aborted_during_a_transaction_leaves_rows_and_journal_in_step() -> None:
    held = Held()

    @transaction
    def slow(tx: Tx) -> None:
        note.fn(tx, "slow")
        held.wait()

    @step
    async def breaks() -> None:
        await held.reached()
        raise ValueError

    @workflow
    async def flow() -> list[str]:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(slow())
                group.create_task(breaks())
        except* StepFailed:
            pass
        await note("after")
        return ["done"]

    async def scenario() -> None:
        async with Engine(":memory:") as engine:
            await engine.transact(tables)
            run = await flow.start()
            await held.reached()
            await asyncio.sleep(0.01)  # so that the other branch has failed, if it can be told so at all
            held.let()
            assert await run.result(timeout=_PATIENCE) == ["done"]
            assert await engine.transact(notes) == ["slow", "after"]
            keys = [entry.key for entry in await run.history()]
            assert set(keys) == {"slow#1", "breaks#1", "note#1"}

    asyncio.run(scenario())


def test_a_transaction_that_nobody_waits_for_any_more_still_leaves_rows_and_journal_in_step() -> None:
    held = Held()

    @transaction
    def slow(tx: Tx) -> None:
        note.fn(tx, "slow")
        held.wait()

    @workflow
    async def flow() -> str:
        task = asyncio.create_task(slow())
        try:
            async with asyncio.timeout(10):
                await asyncio.shield(task)
        except TimeoutError:
            task.cancel()
            return "gave up"
        return "had it"

    async def scenario() -> None:
        clock = ManualClock()
        async with Engine(":memory:", clock=clock) as engine:
            await engine.transact(tables)
            run = await flow.start()
            await held.reached()
            clock.advance(11)
            await asyncio.sleep(0)
            held.let()
            told = await run.result(timeout=_PATIENCE)
            entries = [entry.key for entry in await run.history()]
            assert told in {"gave up", "had it"}
            assert await engine.transact(notes) == ["slow"]
            assert "slow#1" in entries

    asyncio.run(scenario())


def test_an_engine_that_is_left_during_a_transaction_waits_for_it_and_the_next_one_does_not_repeat_it(
    tmp_path: Path,
) -> None:
    held = Held()
    calls: list[str] = []

    @transaction
    def slow(tx: Tx) -> str:
        calls.append("slow")
        note.fn(tx, "slow")
        if len(calls) == 1:
            held.wait()
        return "done"

    @workflow
    async def flow() -> str:
        return await slow()

    async def scenario() -> None:
        async with Engine(tmp_path / "j.db") as engine:
            await engine.transact(tables)
            await flow.options(id="x").start()
            await held.reached()
            closing = asyncio.create_task(engine.close())
            await asyncio.sleep(0)
            held.let()
            await closing
        async with Engine(tmp_path / "j.db", workflows=[flow]) as engine:
            assert await engine.run("x").result(timeout=_PATIENCE) == "done"
            assert await engine.transact(notes) == ["slow"]
            assert len(await engine.run("x").history()) == 1
        assert calls == ["slow"]

    asyncio.run(scenario())

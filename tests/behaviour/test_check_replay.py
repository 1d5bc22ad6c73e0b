"""Old runs and today's code: what fits, what does not, with both sides; nothing is performed, and nothing written."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import sqlite3
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, Field

from durable_sqlite import (
    Engine,
    JournalDamaged,
    JournalError,
    JournalMismatch,
    JournalTooNew,
    NotAJournal,
    Signal,
    State,
    Suspend,
    Tx,
    UsageError,
    Workflow,
    current_run,
    each,
    now,
    set_status,
    sleep,
    step,
    transaction,
    workflow,
)
from durable_sqlite._sqlite import connect, migrate
from durable_sqlite._sqlite.glance import Glance
from durable_sqlite.testing import Difference, DifferenceKind, ReplayReport, check_replay
from tests.support.restarts import quiet

effects: list[str] = []

Body = Callable[..., Any]
Scenario = Callable[[Engine], Awaitable[None]]


@pytest.fixture(autouse=True)
def forget() -> None:
    effects.clear()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "runs.db"


@step
async def act(what: str) -> str:
    effects.append(what)
    return what.upper()


@step
async def other(what: str) -> str:
    effects.append(f"other {what}")
    return what


class Declined(Exception):
    """What the bank says."""


class Refused(Exception):
    """What another bank says."""


@step(raises=(Declined,))
async def charge(cents: int) -> int:
    effects.append("charge")
    if cents > 100:
        raise Declined(cents)
    return cents


@step
async def fail() -> None:
    raise RuntimeError("no")


@transaction
def book(tx: Tx, what: str) -> int:
    effects.append("book")
    return len(tx.execute("SELECT 1").rows) + len(what)


class CheckedPaid(Signal):
    cents: int


class CheckedRepaid(Signal):
    cents: int


class Decision(BaseModel):
    granted: bool


class CheckedReview(Suspend[Decision]):
    cents: int


def flow(body: Body, name: str = "flow") -> Workflow[..., Any]:
    """The body as the workflow of this name: the old code, or that of today."""
    return workflow(name=name)(body)


def recorded(path: Path, *flows: Workflow[..., Any], then: Scenario | None = None) -> None:
    """Start one run of each in a journal of its own, `a`, `b` and so on, and drive them as far as they come."""

    async def scenario() -> None:
        async with Engine(path) as engine:
            for number, one in enumerate(flows):
                await one.options(id="abcdef"[number]).start()
            await quiet(engine)
            if then is not None:
                await then(engine)
                await quiet(engine)

    asyncio.run(scenario())
    effects.clear()


def only(report: ReplayReport) -> Difference:
    (found,) = report.differences
    return found


def compared(path: Path, before: Body, after: Body, then: Scenario | None = None) -> ReplayReport:
    """What is found where a run was recorded by one body, and another is there today."""
    recorded(path, flow(before), then=then)
    report = check_replay(flow(after), path)
    assert report.runs == 1
    assert not effects
    return report


# Nothing happens -----------------------------------------------------------------------------------------------------


async def everything() -> list[Any]:
    set_status("working")
    seen: list[Any] = [await act("a"), await book("b")]
    with contextlib.suppress(Declined):
        await charge(200)
    seen += await asyncio.gather(act("c"), other("d"), charge(3))
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(act(name)) for name in "ef"]
    seen += [task.result() for task in tasks]
    seen += await each(act, ["g", "h"])
    seen.append(await child("i"))
    handle = await child.start("j")
    seen.append(await handle.result())
    await sleep(0)
    await asyncio.sleep(0.001)
    try:
        await asyncio.wait_for(CheckedPaid.wait(), 0.001)
    except TimeoutError:
        seen.append("late")
    seen.append(str(now()))
    return seen


@workflow
async def child(what: str) -> str:
    return await act(what)


async def asks() -> str:
    await act("asks")
    paid, decision = await asyncio.gather(CheckedPaid.wait(), CheckedReview(cents=1))
    await act("after")
    return f"{paid.cents} {decision.granted}"


async def breaks() -> None:
    await fail()


async def cleans_up() -> None:
    try:
        await CheckedPaid.wait()
    finally:
        await act("clean-up")


def test_unchanged_code_fits_every_state_and_nothing_is_performed_or_written(path: Path) -> None:
    flows = [flow(body, body.__name__) for body in (everything, asks, breaks, cleans_up)]

    async def then(engine: Engine) -> None:
        await engine.run("d").cancel(reason="dup")
        await engine.run("a").result()

    recorded(path, *flows, then=then)
    before = {file.name: file.read_bytes() for file in path.parent.iterdir()}
    report = check_replay([*flows, child], path)
    assert report.fits, report
    assert (report.differences, report.unknown) == ((), ())
    assert report.runs == 6
    assert not effects
    assert {file.name: file.read_bytes() for file in path.parent.iterdir()} == before
    assert str(report) == "6 of 6 runs fit the code"


def test_a_journal_in_use_is_checked_beside_its_engine_and_the_run_goes_on(path: Path) -> None:
    asking = flow(asks)

    async def scenario() -> None:
        async with Engine(path) as engine:
            run = await asking.options(id="a").start()
            await quiet(engine)
            effects.clear()
            assert check_replay(asking, path).fits
            assert not effects
            copy = await engine.backup(path.with_name("copy.db"))
            assert check_replay(asking, copy).runs == 1
            await run.signal(CheckedPaid(cents=1))
            await run.answer(CheckedReview, Decision(granted=True))
            assert await run.result() == "1 True"

    asyncio.run(scenario())


def test_a_body_that_is_taken_down_in_the_middle_knows_it_and_records_nothing(path: Path) -> None:
    told: list[bool] = []

    async def waits() -> None:
        try:
            await CheckedPaid.wait()
        finally:
            told.append(current_run().unloading)
            await act("clean-up")

    recorded(path, flow(waits))
    told.clear()
    assert check_replay(flow(waits), path).fits
    assert told == [True]
    assert not effects


def test_generators_that_a_body_leaves_open_are_closed_in_order_also_where_one_objects(path: Path) -> None:
    async def numbers(objects: bool) -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            await act("closed")
            if objects:
                raise ValueError("not yet")

    async def body() -> int:
        held = [numbers(False), numbers(True), numbers(False)]
        return sum([await anext(each) for each in held])

    report = compared(path, body, body)
    assert report.fits, report


def test_an_outcome_for_which_the_body_has_cancelled_its_own_future_is_passed_over(path: Path) -> None:
    async def body() -> str:
        dropped: Any = act("dropped")
        dropped.send(None).cancel()
        return await act("kept")

    assert compared(path, body, body).fits


# What an engine would park -------------------------------------------------------------------------------------------


def test_another_argument_is_told_with_both_sides(path: Path) -> None:
    async def before() -> None:
        await act("first")
        await act("a")

    async def after() -> None:
        await asyncio.gather(act("first"), act("b"))

    found = only(compared(path, before, after))
    assert (found.run, found.workflow, found.state) == ("a", "flow", State.COMPLETED)
    assert (found.kind, found.key) == (DifferenceKind.DIVERGED, "act#2")
    assert found.recorded.startswith("step act, arguments ")
    assert found.asked.startswith("step act, arguments ")
    assert found.recorded != found.asked
    assert "arguments of step act differ" in found.text


def test_a_wait_in_the_place_of_a_step_is_told(path: Path) -> None:
    async def before() -> None:
        await act.options(key="it")("a")

    async def after() -> None:
        await CheckedReview(cents=1).wait(key="it")

    found = only(compared(path, before, after))
    assert (found.kind, found.key) == ("diverged", "it")
    assert found.recorded.startswith("step act, ")
    assert found.asked.startswith("question CheckedReview")


def test_a_call_that_diverges_and_is_given_up_at_once_is_told_all_the_same(path: Path) -> None:
    async def before() -> None:
        await act.options(key="it")("a")

    async def after() -> None:
        task = asyncio.create_task(_wrapped())
        await _turns(3)
        task.cancel()
        await _turns(3)

    async def _wrapped() -> None:
        await act.options(key="it")("b")

    async def before_too() -> None:
        await asyncio.create_task(before())

    found = only(compared(path, before_too, after))
    assert (found.kind, found.key) == ("diverged", None)
    assert "0/it" in found.text


async def _turns(number: int) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


def test_a_call_that_was_moved_is_told_with_where_it_went(path: Path) -> None:
    async def before() -> None:
        await other("x")
        await act("a")

    async def after() -> None:
        await asyncio.create_task(_in_a_branch())

    async def _in_a_branch() -> None:
        await act("a")

    found = only(compared(path, before, after))
    assert (found.kind, found.key) == ("diverged", "act#1")
    assert found.asked.endswith("as 0/act#1")


def test_a_recorded_step_that_nobody_defines_any_more_is_told_before_a_fresh_call(path: Path) -> None:
    old = [step(name="gone")(act.fn)]

    async def before() -> None:
        await old[0]("x")
        await CheckedPaid.wait()

    recorded(path, flow(before))

    async def after() -> None:
        await act("x")

    old.clear()
    gc.collect()
    found = only(check_replay(flow(after), path))
    assert (found.kind, found.key, found.asked) == ("diverged", "gone#1", "no step gone any more")


def test_what_a_person_has_accepted_for_a_run_is_no_divergence(path: Path) -> None:
    async def before() -> None:
        await act("a")
        await other.options(key="it")("x")
        await CheckedPaid.wait()

    async def after() -> None:
        await act("b")
        await other.options(key="it")("x")
        await CheckedPaid.wait()

    recorded(path, flow(before))

    async def accept() -> None:
        async with Engine(path, workflows=[flow(after)]) as engine:
            await engine.run("a").signal(CheckedPaid(cents=1))
            await quiet(engine)
        async with Engine(path, drive=False) as engine:
            assert (await engine.run("a").info()).state is State.PARKED
            await engine.run("a").resume(accept_changes=True)

    found = only(check_replay(flow(after), path))
    assert found.kind == "diverged"
    asyncio.run(accept())
    assert check_replay(flow(after), path).fits

    async def conflict() -> None:
        await asyncio.gather(act("b"), CheckedReview(cents=1).wait(key="it"))

    found = only(check_replay(flow(conflict), path))  # which nobody can accept
    assert (found.kind, found.key) == ("diverged", "it")


@pytest.mark.parametrize(
    ("spins", "told"), [(False, "nothing in it will bring about"), (True, "goes on for ever")], ids=["rests", "spins"]
)
def test_a_body_that_waits_for_what_no_journal_has_is_told(
    path: Path, spins: bool, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("durable_sqlite._body_loop._SPIN", 500)
    monkeypatch.setattr("durable_sqlite._rehearsal._SLICE", 50)

    async def before() -> None:
        await act("a")

    async def after() -> None:
        await act("a")
        while spins:
            await _turns(1)
        await asyncio.Event().wait()

    found = only(compared(path, before, after))
    assert found.kind == "not_durable"
    assert told in found.text + found.asked
    assert found.recorded == "1 outcomes"


def test_a_body_that_ends_the_program_does_not_end_the_check(path: Path) -> None:
    async def before() -> None:
        await act("a")

    async def after() -> None:
        await act("a")
        sys.exit(0)

    found = only(compared(path, before, after))
    assert (found.kind, found.asked) == ("not_durable", "the body ends the program (SystemExit(0))")


# Values and types ----------------------------------------------------------------------------------------------------


class Order(BaseModel):
    id: str


class LargeOrder(BaseModel):
    id: str = Field(min_length=20)


def test_an_input_that_does_not_fit_today_is_told_with_its_path(path: Path) -> None:
    async def before(order: Order) -> None:
        await act(order.id)

    async def after(order: LargeOrder) -> None:
        await act(order.id)

    async def scenario() -> None:
        async with Engine(path):
            await flow(before)(Order(id="short"))

    asyncio.run(scenario())
    found = only(check_replay(flow(after), path))
    assert (found.kind, found.key, found.recorded) == ("undecodable", None, "the input of the run")
    assert "order.id" in found.text


def test_an_outcome_that_does_not_fit_today_is_told_with_its_path(path: Path) -> None:
    async def before() -> None:
        await step(name="makes")(_makes)()
        await act("a")

    async def _makes() -> dict[str, int]:
        return {"a": 1}

    async def _makes_too() -> dict[str, list[int]]:
        return {"a": [1]}

    async def after() -> None:
        await step(name="makes")(_makes_too)()
        await act("a")

    found = only(compared(path, before, after))
    assert (found.kind, found.key) == ("undecodable", "makes#1")
    assert "$.a" in found.text


def test_a_message_and_an_answer_that_wait_and_do_not_fit_today_are_told(path: Path) -> None:
    recorded(path, flow(asks))

    async def send() -> None:
        async with Engine(path, drive=False) as engine:
            await engine.run("a").signal(CheckedRepaid(cents=1))
            await engine.run("a").signal(CheckedPaid(cents=1))
            await engine.run("a").answer(CheckedReview, Decision(granted=True))

    asyncio.run(send())
    assert check_replay(flow(asks), path).fits

    class Strict(Signal, name="PaidStrictly"):
        cents: int = Field(gt=100)

    class Reply(BaseModel):
        by: str

    class Asks(Suspend[Reply], name="AsksReply"):
        cents: int

    _rename(path, CheckedPaid="PaidStrictly", CheckedReview="AsksReply")  # as if the classes themselves had changed

    async def after() -> None:
        await act("asks")
        await asyncio.gather(Strict.wait(), Asks(cents=1))

    report = check_replay(flow(after), path)
    assert [found.kind for found in report.differences] == ["damaged"]  # the sums tell that somebody was at it

    async def accept() -> None:
        async with Engine(path, drive=False) as engine:
            await engine.verify(accept=["a"])

    asyncio.run(accept())
    report = check_replay(flow(after), path)
    found = [each for each in report.differences if each.kind is DifferenceKind.UNDECODABLE]
    assert [each.recorded for each in found] == ["message 2, PaidStrictly", "the answer to AsksReply"]
    assert ["$.cents" in found[0].text, "$.by" in found[1].text] == [True, True]


def _rename(path: Path, **names: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        for old, new in names.items():
            for table, columns in (
                ("durable_signals", ["name"]),
                ("durable_questions", ["name", "key"]),
                ("durable_waits", ["name", "key"]),
            ):
                for column in columns:
                    connection.execute(f"UPDATE {table} SET {column} = replace({column}, ?, ?)", (old, new))
        connection.commit()


# Ends ----------------------------------------------------------------------------------------------------------------


def test_another_result_is_told_and_a_new_field_with_its_default_is_none(path: Path) -> None:
    class Receipt(BaseModel):
        total: int

    class Longer(BaseModel):
        total: int
        currency: str = "EUR"

    async def before() -> Receipt:
        return Receipt(total=1)

    async def same() -> Longer:
        return Longer(total=1)

    async def another() -> Longer:
        return Longer(total=2, currency="x" * 300)

    async def unreadable() -> list[int]:
        return [1]

    assert compared(path, before, same).fits
    found = only(check_replay(flow(another), path))
    assert (found.kind, found.recorded) == ("result", 'returned {"total":1}')
    assert found.asked.startswith('returns {"total":2,"currency":"xxx')
    assert len(found.asked) < 250
    found = only(check_replay(flow(unreadable), path))
    assert (found.kind, found.recorded) == ("undecodable", "the result of the run")


async def _breaks_down() -> None:
    raise Refused("another day" * 100)


async def _declines() -> None:
    raise Declined("today's words differ")


async def _returns() -> None:
    """It has come to its senses."""


async def _cancels_itself() -> None:
    raise asyncio.CancelledError


@pytest.mark.parametrize(
    ("after", "recorded_as", "asked"),
    [
        (_declines, None, None),
        (_returns, "failed with Declined", "the body returns"),
        (_breaks_down, "failed with Declined", "fails with Refused"),
        (_cancels_itself, "failed with Declined", "fails with CancelledError"),
    ],
)
def test_a_run_that_failed_has_to_fail_with_the_same_class(
    path: Path, after: Body, recorded_as: str | None, asked: str | None
) -> None:
    async def before() -> None:
        raise Declined("yesterday")

    report = compared(path, before, after)
    if recorded_as is None:
        assert report.fits
    else:
        found = only(report)
        assert (found.kind, found.recorded, found.asked) == ("result", recorded_as, asked)


@pytest.mark.parametrize(
    ("after", "asked"),
    [
        (_breaks_down, "the body raises tests.behaviour.test_check_replay.Refused: another day"),
        (_cancels_itself, "the body fails"),
    ],
)
def test_a_run_that_completed_and_fails_today_is_told(path: Path, after: Body, asked: str) -> None:
    found = only(compared(path, _returns, after))
    assert (found.kind, found.recorded) == ("result", "completed")
    assert found.asked.startswith(asked)


def test_a_run_that_was_cancelled_is_cancelled_in_the_same_place_today(path: Path) -> None:
    async def cancel(engine: Engine) -> None:
        await engine.run("a").cancel(reason="dup")

    async def swallows() -> str:
        try:
            await CheckedPaid.wait()
        except asyncio.CancelledError:
            await act("clean-up")
        task = asyncio.current_task()
        assert task is not None
        task.uncancel()
        return "done"

    assert compared(path, cleans_up, cleans_up, cancel).fits
    found = only(check_replay(flow(swallows), path))
    assert (found.kind, found.recorded, found.asked) == ("result", "cancelled", "the body returns")

    async def before() -> str:
        await act("clean-up")
        return "done"

    path = path.with_name("other.db")
    recorded(path, flow(before))
    found = only(check_replay(flow(_cleans_up_and_more), path))
    assert found.kind == "new_call"


async def _cleans_up_and_more() -> None:
    await CheckedPaid.wait()
    await act("clean-up")


def test_a_body_that_ends_cancelled_though_its_run_failed_says_so(path: Path) -> None:
    async def cancel(engine: Engine) -> None:
        await engine.run("a").cancel()

    async def before() -> None:
        try:
            await CheckedPaid.wait()
        finally:
            await fail()

    async def after() -> None:
        try:
            await CheckedPaid.wait()
        finally:
            with contextlib.suppress(Exception):
                await fail()

    found = only(compared(path, before, after, cancel))
    assert (found.kind, found.recorded, found.asked) == (
        "result",
        "failed with StepFailed",
        "the body ends cancelled",
    )


def test_a_run_that_was_terminated_has_no_end_of_its_own_to_compare(path: Path) -> None:
    async def terminate(engine: Engine) -> None:
        await engine.run("a").terminate()

    assert compared(path, asks, asks, terminate).fits
    assert check_replay(flow(_returns), path).divergences[0].kind == "ended_early"

    path = path.with_name("unbegun.db")

    async def unbegun() -> None:
        async with Engine(path, drive=False) as engine:
            run = await flow(_returns).options(id="a").start()
            await run.cancel()
            late = await flow(_returns).options(id="b", deadline=0.001).start()
            await engine.run(late.id).pause()

    asyncio.run(unbegun())
    assert check_replay(flow(_breaks_down), path).fits


@pytest.mark.parametrize("begun", [True, False])
def test_a_run_that_failed_by_its_deadline_fits_the_code_that_it_fitted(path: Path, begun: bool) -> None:
    async def scenario() -> None:
        async with Engine(path, workflows=[flow(cleans_up)]) as engine:
            run = await flow(cleans_up).options(id="a", deadline=0.02 if begun else 0.000001).start()
            with contextlib.suppress(Exception):
                await run.result()
            assert (await engine.run("a").info()).reason == "deadline"

    asyncio.run(scenario())
    effects.clear()
    assert check_replay(flow(cleans_up), path).fits
    assert not effects


def test_a_body_that_ends_before_its_record_does_is_told(path: Path) -> None:
    async def before() -> None:
        await act("a")
        await act("b")
        await other("c")

    async def after() -> None:
        await act("a")

    report = compared(path, before, after)
    assert [(found.kind, found.key) for found in report.divergences] == [
        ("ended_early", "act#2"),
        ("ended_early", "other#1"),
    ]
    assert report.divergences[0].asked == "the body returns"
    assert report.unfit == 1


# What an engine takes as it is ---------------------------------------------------------------------------------------


def test_a_call_that_is_no_longer_made_is_told_and_fits(path: Path) -> None:
    async def before() -> None:
        await act("a")
        await other("b")

    async def after() -> None:
        await other("b")

    report = compared(path, before, after)
    assert report.fits
    assert (only(report).kind, only(report).key) == ("unused", "act#1")
    assert only(report).kind.free


def test_a_call_that_is_no_longer_made_before_a_wait_is_told_and_fits(path: Path) -> None:
    async def before() -> None:
        await act("a")
        await CheckedPaid.wait()

    async def after() -> None:
        await CheckedPaid.wait()

    report = compared(path, before, after)
    assert report.fits
    assert (only(report).kind, only(report).key, only(report).asked) == (
        "unused",
        "act#1",
        "it waits for CheckedPaid#1 by now",
    )


def test_a_step_put_in_before_others_is_told_and_fits_as_the_engine_goes_on_with_it(path: Path) -> None:
    async def before() -> None:
        await act("a")
        await CheckedPaid.wait()

    async def after() -> None:
        await other("new")
        await act("a")
        await CheckedPaid.wait()

    report = compared(path, before, after)
    assert report.fits
    assert (only(report).kind, only(report).key, only(report).asked) == ("new_call", "act#1", "other#1 first")

    async def scenario() -> None:
        async with Engine(path, workflows=[flow(after)]) as engine:
            await engine.run("a").signal(CheckedPaid(cents=1))
            await engine.run("a").result()

    asyncio.run(scenario())
    assert effects == ["other new"]


def test_a_suspended_run_that_waits_for_something_else_today_is_told_and_fits(path: Path) -> None:
    async def before() -> None:
        await CheckedPaid.wait()

    async def after() -> None:
        await CheckedRepaid.wait()

    report = compared(path, before, after)
    assert report.fits
    found = only(report)
    assert (found.kind, found.key, found.recorded, found.asked) == (
        "other_wait",
        "CheckedPaid#1",
        "signal CheckedPaid, waited for",
        "CheckedRepaid#1",
    )


# Which runs ----------------------------------------------------------------------------------------------------------


def test_one_workflow_is_looked_at_alone_and_several_let_the_others_be_listed(path: Path) -> None:
    first, second, third = flow(asks, "first"), flow(_returns, "second"), flow(asks, "third")
    recorded(path, first, second, third, second)
    alone = check_replay(second, path)
    assert (alone.runs, alone.unknown, alone.fits) == (2, (), True)
    ended = check_replay([first, third], path)
    assert [(one.workflow, one.runs, one.open) for one in ended.unknown] == [("second", 2, 0)]
    assert ended.fits
    still_open = check_replay([second], path)
    assert [(one.workflow, one.runs, one.open) for one in still_open.unknown] == [("first", 1, 1), ("third", 1, 1)]
    assert not still_open.fits
    assert "unknown workflow first" in str(still_open)
    assert str(still_open).endswith("2 of 4 runs fit the code")
    assert check_replay([first, third], path, open_only=True).unknown == ()
    assert check_replay([first, third], path, open_only=True).runs == 2


def test_a_report_prints_so_many_differences_and_says_how_many_there_are(path: Path) -> None:
    async def before() -> None:
        for number in range(25):
            await act(str(number))

    text = str(compared(path, before, _returns))
    assert text.count("ended_early: run a, act#") == 20
    assert "… and 5 more" in text
    assert text.endswith("0 of 1 runs fit the code")


def test_more_runs_than_a_page_has_are_all_looked_at(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("durable_sqlite._check._PAGE", 2)
    recorded(path, *[flow(_returns)] * 5)
    assert check_replay(flow(_returns), path).runs == 5


def test_a_run_that_is_pruned_while_others_are_looked_at_is_passed_over(path: Path) -> None:
    recorded(path, flow(_returns), flow(_returns))

    async def prune() -> None:
        async with Engine(path, drive=False) as engine:
            assert await engine.prune(0) == 2

    class Pruning(Glance):
        """Somebody prunes as soon as the runs are listed."""

        def read(self, look: Any) -> Any:
            found: Any = super().read(look)
            if isinstance(found, list) and len(found) == 2:  # pyright: ignore[reportUnknownArgumentType]
                asyncio.run(prune())
            return found  # pyright: ignore[reportUnknownVariableType]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("durable_sqlite._check.Glance", Pruning)
        assert check_replay(flow(_returns), path).runs == 0


# Files ---------------------------------------------------------------------------------------------------------------


def _versioned(path: Path, change: int) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        ((version,),) = connection.execute("PRAGMA user_version").fetchall()
        connection.execute(f"PRAGMA user_version = {version + change}")


def test_what_is_no_journal_or_one_of_another_version_is_refused_untouched(path: Path, tmp_path: Path) -> None:
    checked = flow(_returns)
    with pytest.raises(JournalError, match=r"there is no journal .*nothing was created"):
        check_replay(checked, path)
    assert not list(tmp_path.iterdir())
    path.touch()
    with pytest.raises(NotAJournal, match="is empty"):
        check_replay(checked, path)
    path.write_text("no database at all, and long enough to be read as one" * 100)
    with pytest.raises(NotAJournal):
        check_replay(checked, path)
    path.unlink()
    recorded(path, checked)
    _versioned(path, 1)
    with pytest.raises(JournalTooNew, match="use a newer one"):
        check_replay(checked, path)
    _versioned(path, -2)
    with pytest.raises(JournalError, match="up to date with `durable_sqlite migrate`"):
        check_replay(checked, path)


def test_a_journal_of_an_older_version_is_read_once_it_was_migrated(path: Path) -> None:
    path.touch(mode=0o600)
    known = migrate.read(migrate.find())[:-1]
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connect.prepare(connection, known, path=str(path), synchronous="normal", failpoint=lambda _name: None)
    with pytest.raises(JournalError, match="migrate"):
        check_replay(flow(_returns), path)
    recorded(path, flow(_returns))
    assert check_replay(flow(_returns), path).runs == 1


class Rot13:
    """As simple as can be, and no JSON any more."""

    name = "rot13"

    def encode(self, data: bytes, /) -> bytes:
        return bytes(byte ^ 0x55 for byte in data)

    decode = encode


def test_a_journal_with_a_codec_is_read_with_it_alone(path: Path) -> None:
    async def scenario() -> None:
        async with Engine(path, codec=Rot13()) as engine:
            assert engine.codec is not None
            await flow(asks).options(id="a").start()
            await engine.join()

    asyncio.run(scenario())
    with pytest.raises(JournalMismatch, match="give the codec that wrote it"):
        check_replay(flow(asks), path)
    assert check_replay(flow(asks), path, codec=Rot13()).fits
    assert Engine(":memory:").codec is None


def test_a_file_that_is_damaged_is_said_to_be(path: Path) -> None:
    recorded(path, flow(_returns))
    whole = path.read_bytes()
    path.write_bytes(whole[:100] + b"\xff" * 4000 + whole[4100:])
    with pytest.raises(JournalDamaged):
        check_replay(flow(_returns), path)


def test_what_is_no_workflow_and_no_file_is_refused(path: Path) -> None:
    with pytest.raises(UsageError, match="one in memory has none"):
        check_replay(flow(_returns), ":memory:")
    with pytest.raises(UsageError, match="takes workflows, not <step act>"):
        check_replay([act], path)  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]


def test_a_file_that_is_opened_by_an_engine_meanwhile_is_looked_at_again(path: Path) -> None:
    recorded(path, flow(_returns))
    looks: list[int] = []

    def look(_tables: object) -> int:
        looks.append(1)
        if len(looks) == 1:
            with closing(sqlite3.connect(path, isolation_level=None)) as connection:
                connection.execute("CREATE TABLE orders (id TEXT)")
        return len(looks)

    with Glance(str(path), "") as glance:
        assert glance.read(look) == 2


def test_a_file_that_is_never_left_alone_is_given_up_with_a_word(path: Path) -> None:
    recorded(path, flow(_returns))

    def look(_tables: object) -> None:
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute("PRAGMA application_id = 1")
            connection.execute(f"PRAGMA application_id = {connect.APPLICATION_ID}")

    def fails(tables: object) -> None:
        look(tables)
        raise sqlite3.OperationalError("it is half written")

    with Glance(str(path), "") as glance:
        with pytest.raises(JournalError, match="opened and closed all the time"):
            glance.read(look)
        with pytest.raises(JournalError, match="opened and closed all the time"):
            glance.read(fails)


def test_a_file_that_vanishes_while_it_is_looked_at_is_not_as_it_was(path: Path) -> None:
    recorded(path, flow(_returns))
    with Glance(str(path), "") as glance, pytest.raises(JournalError):
        glance.read(lambda _tables: path.unlink(missing_ok=True))

"""What the parts of a pass do when a write of theirs comes back too late, refused or cancelled: nothing that counts."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import AsyncMock, Mock

import pytest

from durable_sqlite import JournalError, Suspend, UsageError
from durable_sqlite._call import Call, _Fan
from durable_sqlite._clerk import Clerk
from durable_sqlite._codec import describe, dump_error
from durable_sqlite._crew import Crew, _may_act
from durable_sqlite._errands import Errands
from durable_sqlite._giver import Giver
from durable_sqlite._ledger import Ledger
from durable_sqlite._leftovers import Leftovers
from durable_sqlite._records import Hold, Kind, Request
from durable_sqlite._rest import Rester
from durable_sqlite._run import Pass
from durable_sqlite._signals import point_spec
from durable_sqlite._stops import load_refusal, load_stop
from durable_sqlite._tables import Undone
from durable_sqlite.errors import Undecodable

REFUSED = JournalError("the disk is on fire")


def on_a_loop(act: Callable[[asyncio.AbstractEventLoop], None]) -> None:
    """Run it where futures can be made, and let their callbacks have their turn."""

    async def scenario() -> None:
        act(asyncio.get_running_loop())
        await asyncio.sleep(0)

    asyncio.run(scenario())


def refused(loop: asyncio.AbstractEventLoop) -> asyncio.Future[Any]:
    future: asyncio.Future[Any] = loop.create_future()
    future.set_exception(REFUSED)
    return future


def cancelled(loop: asyncio.AbstractEventLoop) -> asyncio.Future[Any]:
    future: asyncio.Future[Any] = loop.create_future()
    future.cancel()
    return future


@pytest.mark.parametrize("late", [refused, cancelled])
def test_a_pass_that_could_not_be_given_back_does_not_rest(
    late: Callable[[asyncio.AbstractEventLoop], asyncio.Future[Any]],
) -> None:
    def act(loop: asyncio.AbstractEventLoop) -> None:
        rester: Any = SimpleNamespace(suspending=True, at_rest=False)  # it knows nobody whom it could tell
        Rester._suspended(rester, {}, False, late(loop))
        assert not rester.suspending
        assert not rester.at_rest

    on_a_loop(act)


def test_a_pass_whose_return_was_cut_off_hears_no_more() -> None:
    def act(loop: asyncio.AbstractEventLoop) -> None:
        rester: Any = SimpleNamespace(returning=True)
        Rester._returned(rester, cancelled(loop))
        assert not rester.returning

    on_a_loop(act)


def test_children_whose_parent_may_not_write_any_more_are_told_nothing() -> None:
    told: list[object] = []

    def act(loop: asyncio.AbstractEventLoop) -> None:
        asked: list[Request] = []

        def abandon(children: list[str], request: Request) -> asyncio.Future[Any]:
            assert children == ["kid"]
            asked.append(request)
            return refused(loop)

        memory: Any = SimpleNamespace(questions=(), children=())
        leftovers = Leftovers(cast("Any", SimpleNamespace(id="x")), memory)
        leftovers._abandoned.append("kid")
        leftovers.tidy_up(cast("Any", SimpleNamespace(abandon=abandon)), 1, told.append)
        assert len(asked) == 1

    on_a_loop(act)
    assert not told


def test_what_a_body_said_of_itself_and_could_not_be_kept_is_reported_to_nobody() -> None:
    def act(loop: asyncio.AbstractEventLoop) -> None:
        Pass._report_kept(cast("Any", SimpleNamespace()), refused(loop))  # it knows nobody whom it could tell

    on_a_loop(act)


def test_a_deadline_that_could_not_be_recorded_gives_the_body_nothing() -> None:
    def act(loop: asyncio.AbstractEventLoop) -> None:
        giver: Any = SimpleNamespace(expiring=True, _is_over=lambda: False)  # it has nobody to whom it could give
        Giver._expired(giver, cast("Any", None), refused(loop))
        assert not giver.expiring

    on_a_loop(act)


def test_a_transaction_that_comes_back_too_late_changes_nothing_of_the_pass() -> None:
    def act(loop: asyncio.AbstractEventLoop) -> None:
        crew: Any = SimpleNamespace(_is_over=lambda: True)
        nothing: Any = None
        Crew._transacted(crew, nothing, nothing, nothing, refused(loop))
        undone: asyncio.Future[Any] = loop.create_future()
        undone.set_result(Undone(ValueError("late")))
        Crew._transacted(crew, nothing, nothing, nothing, undone)

    on_a_loop(act)


def test_a_failed_transaction_whose_judging_was_cut_off_ends_the_pass() -> None:
    def act(loop: asyncio.AbstractEventLoop) -> None:
        lost: list[bool] = []
        crew: Any = SimpleNamespace(transacting=True, _lost=lambda: lost.append(True))
        Crew._failed(crew, cast("Any", None), cast("Any", cancelled(loop)))
        assert lost == [True]
        assert not crew.transacting

    on_a_loop(act)


def ledger_of(*writes: asyncio.Future[Any]) -> Ledger:
    """What a pass writes, where the journal gives these answers."""
    answers = iter(writes)

    def fail(_hold: Hold, _attempt: object) -> asyncio.Future[Any]:
        return next(answers)

    ledger = Ledger(cast("Any", SimpleNamespace(fail=fail)), Hold(1, 1), lambda _error: None)
    for _ in writes:
        ledger.fail(cast("Any", None))
    return ledger


async def may_act(ledger: Ledger, call: Call, *, assured: Mock | None = None) -> bool:
    """What an attempt asks before it begins."""
    journal: Any = SimpleNamespace(assured=assured or AsyncMock())
    return await _may_act(ledger, journal, lambda: True, lambda: False, call)


@pytest.mark.parametrize("late", [refused, cancelled])
@pytest.mark.parametrize("heard", [False, True])
def test_no_attempt_begins_once_what_was_written_before_it_was_refused(
    late: Callable[[asyncio.AbstractEventLoop], asyncio.Future[Any]], *, heard: bool
) -> None:
    """The run may be driven elsewhere by now; so it is not even waited for that the journal is assured."""

    async def scenario() -> bool:
        write: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        never = AsyncMock(side_effect=AssertionError)
        asking: Awaitable[bool] = may_act(ledger_of(write), Call("s#1", Kind.STEP, "s"), assured=never)
        if heard:
            asking = asyncio.ensure_future(asking)
            await asyncio.sleep(0)
        answer = late(asyncio.get_running_loop())
        if answer.cancelled():
            write.cancel()
        else:
            write.set_exception(answer.exception() or REFUSED)
        return await asking

    assert asyncio.run(scenario()) is False


def test_attempts_begin_in_their_order_and_after_all_that_was_written_before_them() -> None:
    """Also after what another branch has recorded while they waited."""

    async def scenario() -> None:
        first, second = (asyncio.get_running_loop().create_future() for _ in range(2))
        writes = SimpleNamespace(fail=Mock(side_effect=(first, second)))
        ledger = Ledger(cast("Any", writes), Hold(1, 1), lambda _error: None)

        async def attempt(name: str) -> None:
            assert await may_act(ledger, Call(name, Kind.STEP, name))
            began.append(name)

        ledger.fail(cast("Any", None))
        waiting = [asyncio.ensure_future(attempt(name)) for name in "abc"]
        await asyncio.sleep(0)
        waiting[1].cancel()  # nobody waits for it any more
        ledger.fail(cast("Any", None))
        first.set_result(None)
        await asyncio.wait(waiting, timeout=0)
        assert began == []
        second.set_result(None)
        await asyncio.wait(waiting)

    began: list[str] = []
    asyncio.run(scenario())
    assert began == ["a", "c"]


@pytest.mark.parametrize("over", [False, True])
def test_an_errand_that_nobody_waits_for_any_more_is_dropped(over: bool) -> None:
    def act(loop: asyncio.AbstractEventLoop) -> None:
        refusals: list[BaseException] = []
        errands: Any = SimpleNamespace(_over=over, _refused_all=refusals.append, _under_way=set(), _results=[])
        errands._failed = partial(Errands._failed, errands)
        call = Call("Paid.signal#1", Kind.ACT, "Paid")
        Errands._expect(errands, call, cancelled(loop), cast("Any", None))
        Errands._expect(errands, call, refused(loop), cast("Any", None))
        loop.call_soon(lambda: seen.append(list(refusals)))
        if over:
            Errands._finish(errands, call, cast("Any", None))
            assert not errands._results

    seen: list[list[BaseException]] = []
    on_a_loop(act)
    assert seen == [[] if over else [REFUSED]]


def test_a_look_at_the_mail_that_fails_refuses_the_pass() -> None:
    refusals: list[BaseException] = []

    def act(loop: asyncio.AbstractEventLoop) -> None:
        clerk: Any = SimpleNamespace(_looking=object(), _refused=refusals.append)
        Clerk._looked(clerk, cast("Any", refused(loop)), [])
        assert clerk._looking is None

    on_a_loop(act)
    assert refusals == [REFUSED]


def test_what_has_landed_before_a_fan_out_listens_is_heard_at_once() -> None:
    def act(loop: asyncio.AbstractEventLoop) -> None:
        first: asyncio.Future[Any] = loop.create_future()
        second: asyncio.Future[Any] = loop.create_future()
        fan = _Fan(cast("Any", None), iter(()), collect=False)
        fan._land(first)
        news = fan.landing()
        assert news.done()
        fan._land(second)  # there is news already

    on_a_loop(act)


@pytest.mark.parametrize("damaged", [b"", b"[]", b"{}", b'{"class": "nobody"}', dump_error(describe(REFUSED), 1)])
def test_bytes_that_tell_neither_an_end_nor_a_refusal_are_named_as_damaged(damaged: bytes) -> None:
    with pytest.raises(Undecodable):
        load_refusal(damaged)
    with pytest.raises(Undecodable):
        load_stop(damaged, "child#1")


def test_a_suspend_point_without_an_answer_is_none() -> None:
    with pytest.raises(UsageError, match="is no suspend point"):
        point_spec(cast("Any", Suspend))

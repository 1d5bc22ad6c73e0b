"""What every journal promises to those who watch: what runs say of themselves, what has changed, what is new."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import fields, replace
from typing import Any

import pytest

from durable_sqlite._records import (
    CANCEL_KEY,
    End,
    FailedAttempt,
    IfExists,
    Intent,
    Kind,
    Memory,
    News,
    Report,
    Resumption,
    RunQuery,
    State,
)
from durable_sqlite.errors import LeaseLost
from durable_sqlite.journal import Journal
from tests.conformance.adapters import Lab
from tests.support.journals import (
    asked,
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

Over = Callable[[Callable[[Lab], Coroutine[Any, Any, None]]], None]

_EVERY = RunQuery()


async def _tick(journal: Journal, run_id: str = "a") -> int:
    return (await look(journal, run_id)).changed


# What runs say of themselves -----------------------------------------------------------------------------------------


def test_what_a_body_says_of_itself_is_kept(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal, other = await lab.worker(), await lab.worker()
        started, hold = await begin(journal)
        assert (started.row.status, started.row.progress) == (None, None)
        for report in (Report("charging", None, 20), Report("packing", (0, 7), 30), Report("", (7, 7), 40)):
            await journal.report(hold, report)
            row = await look(other)
            assert (row.status, row.progress, row.state) == (report.status, report.progress, State.RUNNING)
        await journal.suspend(hold, rest(wait()))
        assert (await look(other)).progress == (7, 7)
        await journal.reclaim(hold, 50)
        with pytest.raises(LeaseLost):
            await journal.report(hold, Report("late", None, 60))
        assert (await look(other)).status == ""

    lab(program)


# What has changed ----------------------------------------------------------------------------------------------------


def test_every_change_of_a_run_that_people_can_see_has_a_larger_number_than_the_one_before(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal, other = await lab.worker(), await lab.worker()
        started, hold = await begin(journal)
        seen = [started.row.changed]
        assert seen[0] > 0

        async def changed() -> None:
            seen.append(await _tick(other))

        await journal.report(hold, Report("x", None, 20))
        await changed()
        await journal.suspend(hold, rest(awaits_message()))
        await changed()
        await other.signal("a", new_message())
        await changed()
        await journal.reclaim(hold, 50)
        await changed()
        await other.pause("a", asked())
        await changed()
        await other.resume("a", Resumption(55))
        await changed()
        await journal.give_back(replace(hold, epoch=2), 56)
        await changed()
        (claimed,) = await other.claim(["ship"], 57, 9, suspects=False)
        await changed()
        assert claimed.row.changed == seen[-1]
        await journal.cancel("a", asked())
        await changed()
        await other.end(claimed.hold, End(State.PARKED, "diverged", b"{}", 58))
        await changed()
        (row,) = await journal.terminate("a", asked())
        await changed()
        assert row.changed == seen[-1]
        assert seen == sorted(set(seen))

    lab(program)


def test_an_outcome_alone_is_no_change_of_the_run(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        started, hold = await begin(journal)
        before = started.row
        await journal.record(hold, entry())
        await journal.fail(hold, FailedAttempt("s#2", 1, 10, 20, 30, b"e"))
        await journal.intend(hold, Intent("s#3", "s", b"", 1, 30))
        assert await look(journal) == before
        assert await journal.changes(_EVERY, before.changed) == []

    lab(program)


def test_a_request_that_changes_nothing_is_no_change(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        await begin(journal)
        await journal.pause("a", asked())
        before = await look(journal)
        await journal.pause("a", asked(60))
        await journal.start(new_run(), IfExists.ATTACH, drive=True)
        assert await look(journal) == before
        await journal.cancel("a", asked())
        before = await look(journal)
        await journal.cancel("a", asked(60))
        assert await look(journal) == before

    lab(program)


def test_changes_come_in_the_order_in_which_they_were_made(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal, other = await lab.worker(), await lab.worker()
        holds = {run_id: (await begin(journal, run_id))[1] for run_id in ("a", "b", "c")}
        await other.start(new_run("d", workflow="sail", tags={"team": "eu"}), IfExists.ATTACH, drive=False)
        await journal.report(holds["b"], Report("x", None, 20))
        await journal.end(holds["a"], failed())

        async def ids(since: int, **changes: Any) -> list[str]:
            return [row.id for row in await other.changes(replace(_EVERY, **changes), since)]

        assert await ids(0) == ["c", "d", "b", "a"]
        assert await ids(await _tick(journal, "c")) == ["d", "b", "a"]
        assert await ids(await _tick(journal, "a")) == []
        everywhere = RunQuery(newest_first=False, after=holds["c"].run)
        assert [row.id for row in await other.changes(everywhere, 0)] == ["c", "d", "b", "a"]
        assert await ids(0, workflow="ship") == ["c", "b", "a"]
        assert await ids(0, states=(State.RUNNING,)) == ["c", "b"]
        assert await ids(0, tags=(("team", "eu"),)) == ["d"]
        assert await ids(0, letters=True) == ["a"]
        assert await ids(0, limit=2) == ["c", "d"]
        (row,) = await other.changes(replace(_EVERY, reason="error"), 0)
        assert row == await look(journal)

    lab(program)


def test_whoever_is_changed_by_one_request_is_changed_by_one_commit(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        started, hold = await begin(journal)
        _, waiter = await begin(journal, "waiter")
        await journal.suspend(waiter, rest(awaits_end("a", kind=Kind.RUN)))
        await journal.start(new_run("b", parent=started.row.no), IfExists.ATTACH, drive=True)
        rows = await journal.pause("a", asked())
        assert len({row.changed for row in rows}) == 1
        assert await _tick(journal, "waiter") < rows[0].changed
        await journal.end(hold, completed())
        assert await _tick(journal, "waiter") == await _tick(journal)

    lab(program)


def test_a_limit_does_not_cut_through_what_one_commit_changed(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        started, _ = await begin(journal)
        for run_id in ("b", "c"):
            await journal.start(new_run(run_id, parent=started.row.no), IfExists.ATTACH, drive=True)
        await journal.pause("a", asked())
        _, hold = await begin(journal, "d")
        for limit, ids in ((1, "abc"), (3, "abc"), (4, "abcd")):
            assert [row.id for row in await journal.changes(RunQuery(limit=limit), 0)] == list(ids)
        await journal.report(hold, Report("x", None, 20))

    lab(program)


def test_a_takeover_and_a_close_are_changes(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        watcher, victim, closing = await lab.worker(), await lab.worker(), await lab.worker()
        await begin(victim, "a")
        await begin(closing, "b")
        before = max([await _tick(watcher, "a"), await _tick(watcher, "b")])
        await closing.close(70)
        assert [row.id for row in await watcher.changes(_EVERY, before)] == ["b"]
        await lab.kill(victim)
        (freed,) = await watcher.take_over([each.no for each in await watcher.workers()], 9, b"{}", 80)
        assert freed.changed > await _tick(watcher, "b")

    lab(program)


# What is new ---------------------------------------------------------------------------------------------------------


def test_the_pulse_tells_that_somebody_has_written(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal, other = await lab.worker(), await lab.worker()
        _, hold = await begin(journal)
        await other.run("a")
        seen = await other.pulse()
        assert await other.pulse() == seen
        await journal.record(hold, entry())
        after = await other.pulse()
        assert after != seen
        assert await other.pulse() == after
        await journal.signal("a", new_message())
        assert await other.pulse() != after
        own = await journal.pulse()
        await journal.report(hold, Report("x", None, 20))
        assert (await journal.pulse()).any != own.any

    lab(program)


def test_a_journal_seems_still_only_while_nobody_has_written_since_the_last_pulse(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal, other, client = await lab.worker(), await lab.worker(), await lab.worker()
        _, hold = await begin(journal)
        for write in (
            lambda: journal.record(hold, entry()),
            lambda: client.signal("a", new_message()),
            lambda: other.signal("a", new_message()),
            lambda: journal.report(hold, Report("x", None, 20)),
            lambda: client.close(99),
        ):
            seen = await other.pulse()
            await write()
            assert not other.seems_still(seen)
            await other.pulse()
            assert not other.seems_still(seen)  # whoever else may have looked meanwhile

    lab(program)


def test_the_pulse_tells_others_apart_from_oneself(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal, other = await lab.worker(), await lab.worker()
        _, hold = await begin(journal)
        own, theirs = await journal.pulse(), await other.pulse()
        await journal.record(hold, entry())
        assert (await journal.pulse()).others == own.others
        heard = await other.pulse()
        assert heard.others != theirs.others
        await journal.signal("a", new_message())
        await journal.close(99)  # what somebody wrote who has gone is heard of as well
        assert (await other.pulse()).others != heard.others

    lab(program)


def test_the_news_are_what_the_driven_runs_of_this_worker_may_not_have_heard_of(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal, other = await lab.worker(), await lab.worker()
        holds = {run_id: (await begin(journal, run_id))[1] for run_id in ("m", "q", "c", "p", "quiet", "s")}
        _, others = await begin(other, "theirs")
        assert await journal.news() == []
        await journal.ask(holds["q"], new_question())
        await journal.suspend(holds["s"], rest(wait()))
        assert await journal.news() == []
        for run_id in ("m", "theirs", "s"):
            await other.signal(run_id, new_message())
        await other.answer("q", new_answer())
        await other.cancel("c", asked())
        await other.pause("p", asked(51))
        news = sorted(await journal.news(), key=lambda each: each.run)
        assert news == [
            News(holds["m"].run, None, None),
            News(holds["q"].run, None, None),
            News(holds["c"].run, asked(), None),
            News(holds["p"].run, None, asked(51)),
        ]
        assert await other.news() == [News(others.run, None, None)]
        await journal.record(holds["m"], entry("paid#1", kind=Kind.SIGNAL), [1])
        await journal.record(holds["q"], entry("review#1", kind=Kind.QUESTION))
        await journal.record(holds["c"], entry(CANCEL_KEY, kind=Kind.CANCEL))
        await journal.suspend(holds["p"], rest(paused=True))
        assert [each.run for each in await journal.news() if each.cancel is None] == []

    lab(program)


def test_the_end_of_a_run_that_a_driven_run_has_waited_for_is_news_until_it_is_recorded(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal, other = await lab.worker(), await lab.worker()
        _, hold = await begin(journal)
        _, target = await begin(other, "b")
        await journal.suspend(hold, rest(awaits_end("b", kind=Kind.RUN), wait(deadline=50)))
        await journal.reclaim(hold, 50)
        assert await journal.news() == []
        await other.end(target, completed())
        assert await journal.news() == [News(hold.run, None, None)]
        await journal.record(replace(hold, epoch=2), entry("child#1", kind=Kind.RUN))
        assert await journal.news() == []

    lab(program)


def test_the_memories_of_many_runs_are_those_of_each(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        _, first = await begin(journal, "a")
        _, second = await begin(journal, "b")
        await journal.record(first, entry())
        await journal.fail(first, FailedAttempt("s#2", 1, 10, 20, 30, b"e"))
        await journal.intend(second, Intent("s#3", "s", b"", 0, 30))
        await journal.signal("a", new_message())
        await journal.ask(second, new_question())
        await journal.suspend(second, rest(wait(), awaits_message(since=41)))
        found = await journal.memories([second.run, first.run, second.run])
        assert list(found) == [await journal.memory(hold.run) for hold in (second, first, second)]
        assert ([each.key for each in found[0].waits], [each.key for each in found[1].entries]) == (
            ["sleep#1", "paid#1"],
            ["s#1"],
        )
        assert [len(memory.questions) for memory in found] == [1, 0, 1]
        assert [len(memory.messages) for memory in found] == [0, 1, 0]
        assert await journal.memories([]) == []
        (nothing,) = await journal.memories([99])
        assert nothing.damage is None
        for field in fields(Memory)[:-1]:
            assert list(getattr(nothing, field.name)) == []

    lab(program)

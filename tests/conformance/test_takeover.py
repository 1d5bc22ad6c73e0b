"""What every journal promises about the runs of workers that died."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from durable_sqlite._records import End, IfExists, Reason, Resumption, State
from durable_sqlite.errors import LeaseLost
from durable_sqlite.journal import Journal
from tests.conformance.adapters import Lab
from tests.support.journals import asked, begin, entry, new_run, rest, wait

Over = Callable[[Callable[[Lab], Coroutine[Any, Any, None]]], None]


async def _state(journal: Journal, run_id: str = "a") -> State:
    run = await journal.run(run_id)
    assert run is not None
    return run.state


def test_an_orderly_close_resets_the_count_of_deaths_and_giving_back_does_not(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        watcher = await lab.worker()
        await _die(lab, watcher)
        run = await watcher.run("a")
        assert run is not None
        assert run.deaths == 1
        (claimed,) = await watcher.claim(["ship"], 40, 9, suspects=False)
        await watcher.give_back(claimed.hold, 50)
        kept = await watcher.run("a")
        assert kept is not None
        assert (kept.deaths, kept.state, kept.updated_at) == (1, State.PENDING, 50)
        closing = await lab.worker()
        await closing.claim(["ship"], 60, 9, suspects=False)
        await closing.close(70)
        given = await watcher.run("a")
        assert given is not None
        assert given.deaths == 0

    lab(program)


async def _die(lab: Lab, watcher: Journal, *, records: int = 0, limit: int = 99) -> list[Any]:
    """Let a fresh worker take the run `a`, record something, and die; what the takeover did."""
    victim = await lab.worker()
    started = await victim.start(new_run(), IfExists.ATTACH, drive=True)
    hold = started.hold
    if hold is None:
        suspects = started.row.deaths >= 2
        (claimed,) = await victim.claim(["ship"], 1_000, 9, suspects=suspects)
        hold = claimed.hold
    seq = len(await victim.entries(hold.run))
    for _ in range(records):
        seq += 1
        await victim.record(hold, entry(f"s#{seq}", seq=seq))
    await lab.kill(victim)
    dead = [each.no for each in await watcher.workers()]
    freed = await watcher.take_over(dead, limit, b'{"crash":1}', 200)
    assert await watcher.workers() == []
    return freed


def test_progress_begins_the_count_of_deaths_anew(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        watcher = await lab.worker()
        counts: list[int] = []
        for records in (0, 0, 0, 2, 0, 1):
            (run,) = await _die(lab, watcher, records=records)
            assert (run.state, run.owner, run.updated_at) == (State.PENDING, None, 200)
            counts.append(run.deaths)
        assert counts == [1, 2, 3, 1, 2, 1]

    lab(program)


def test_a_run_whose_owners_keep_dying_is_parked(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        watcher = await lab.worker()
        for _ in range(2):
            (run,) = await _die(lab, watcher, limit=3)
            assert run.state is State.PENDING
        (run,) = await _die(lab, watcher, limit=3)
        assert (run.state, run.reason, run.result) == (State.PARKED, Reason.CRASH_LOOP, b'{"crash":1}')
        assert (run.deaths, run.ended_at, run.owner) == (3, 200, None)
        resumed = (await watcher.resume("a", Resumption(300, accept_changes=False))).row
        assert (resumed.deaths, resumed.state) == (0, State.PENDING)
        (again,) = await _die(lab, watcher, limit=3)
        assert (again.deaths, again.state) == (1, State.PENDING)

    lab(program)


def test_suspects_are_driven_one_at_a_time_and_apart_from_the_others(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        watcher = await lab.worker()
        for _ in range(2):
            victim = await lab.worker()
            for name in ("x", "y"):
                if await watcher.run(name) is None:
                    await begin(victim, name)
            await victim.claim(["ship"], 50, 9, suspects=False)
            await lab.kill(victim)
            await watcher.take_over([each.no for each in await watcher.workers()], 9, b"{}", 60)
        assert await watcher.ready(["ship"], 80)
        await watcher.start(new_run("healthy", at=70), IfExists.ATTACH, drive=False)
        assert [each.row.id for each in await watcher.claim(["ship"], 80, 9, suspects=False)] == ["healthy"]
        assert [each.row.id for each in await watcher.claim(["ship"], 80, 9, suspects=True)] == ["x"]
        assert [each.row.id for each in await watcher.claim(["ship"], 80, 9, suspects=True)] == ["y"]
        assert await watcher.claim(["ship"], 80, 9, suspects=True) == []
        assert not await watcher.ready(["ship"], 80)

    lab(program)


def test_suspending_clears_a_run_of_suspicion(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        watcher = await lab.worker()
        await _die(lab, watcher)
        await _die(lab, watcher)
        (claimed,) = await watcher.claim(["ship"], 80, 9, suspects=True)
        assert claimed.row.deaths == 2
        await watcher.suspend(claimed.hold, rest(wait(deadline=90), at=85))
        (again,) = await watcher.claim(["ship"], 95, 9, suspects=False)
        assert again.row.deaths == 0

    lab(program)


def test_a_worker_that_was_struck_off_may_not_drive_but_its_clients_go_on(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        zombie, other = await lab.worker(), await lab.worker()
        _, hold = await begin(zombie)
        (me,) = await other.workers()
        (freed,) = await other.take_over([me.no], 9, b"{}", 30)
        assert freed.deaths == 1
        for refused in (
            zombie.record(hold, entry()),
            zombie.reclaim(hold, 40),
            zombie.end(hold, End(State.COMPLETED, "", b"1", 40)),
        ):
            with pytest.raises(LeaseLost):
                await refused
        with pytest.raises(LeaseLost):
            await zombie.claim(["ship"], 40, 9, suspects=False)
        with pytest.raises(LeaseLost):
            await zombie.take_over([1], 9, b"{}", 40)
        started = await zombie.start(new_run("b"), IfExists.ATTACH, drive=True)
        assert (started.created, started.hold, started.row.state) == (True, None, State.PENDING)
        (cancelled,) = await zombie.cancel("b", asked())
        assert cancelled.state is State.CANCELLED
        assert await other.entries(hold.run) == []
        assert await _state(other) is State.PENDING

    lab(program)

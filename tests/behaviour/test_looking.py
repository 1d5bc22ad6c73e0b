"""Looking at runs: lists, pages, counts, what one is, what it recorded."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import Any

import pytest

from durable_sqlite import (
    Engine,
    Kind,
    Outcome,
    Run,
    RunFailed,
    State,
    UnknownRun,
    UsageError,
    sleep,
    step,
    workflow,
)
from durable_sqlite._clock import to_datetime
from tests.support.clock import START, ManualClock
from tests.support.restarts import quiet
from tests.support.stage import ended

BEGIN = to_datetime(START)


class Declined(Exception):
    """An answer."""


@step(raises=(Declined,))
async def act(how: str) -> str:
    if how == "fails":
        raise ValueError(how)
    if how == "declines":
        raise Declined(how)
    return how


@workflow
async def flow(how: str) -> str:
    try:
        return await act(how)
    except Declined as declined:
        return str(declined)


@workflow
async def naps() -> None:
    await asyncio.wait_for(sleep(100), 50)


async def listed(engine: Engine, **query: Any) -> list[str]:
    return [info.id async for info in engine.runs(**query)]


async def filled(engine: Engine, clock: ManualClock) -> None:
    for number in range(6):
        tags = {"team": "eu" if number % 2 else "us", "n": str(number)}
        how = "fails" if number == 3 else "works"
        await flow.options(id=f"f{number}", tags=tags).start(how)
        await quiet(engine)
        clock.advance(1)
    await naps.options(id="n0").start()
    await quiet(engine)


def test_runs_are_listed_and_counted_by_all_that_is_asked_for() -> None:
    clock = ManualClock()

    async def scenario() -> None:
        async with Engine(":memory:", clock=clock) as engine:
            await filled(engine, clock)
            everything = ["n0", "f5", "f4", "f3", "f2", "f1", "f0"]
            expected: list[tuple[dict[str, Any], list[str]]] = [
                ({}, everything),
                ({"newest_first": False}, everything[::-1]),
                ({"workflow": flow}, everything[1:]),
                ({"workflow": "naps"}, ["n0"]),
                ({"workflow": "nothing"}, []),
                ({"state": "failed"}, ["f3"]),
                ({"state": State.SUSPENDED}, ["n0"]),
                ({"state": ["suspended", State.FAILED]}, ["n0", "f3"]),
                ({"tags": {"team": "eu"}}, ["f5", "f3", "f1"]),
                ({"tags": {"team": "eu", "n": "1"}}, ["f1"]),
                ({"tags": {"team": "asia"}}, []),
                ({"created_from": BEGIN + timedelta(seconds=4)}, ["n0", "f5", "f4"]),
                ({"created_before": BEGIN + timedelta(seconds=2)}, ["f1", "f0"]),
                (
                    {"state": "completed", "tags": {"team": "us"}, "created_from": BEGIN + timedelta(seconds=1)},
                    ["f4", "f2"],
                ),
            ]
            for query, ids in expected:
                assert await listed(engine, **query) == ids, query
                query.pop("newest_first", None)
                assert await engine.count(**query) == len(ids), query

    asyncio.run(scenario())


def test_pages_follow_one_another_without_gap_or_overlap() -> None:
    clock = ManualClock()

    async def scenario() -> None:
        async with Engine(":memory:", clock=clock) as engine:
            await filled(engine, clock)
            for newest_first in (True, False):
                pages: list[str] = []
                after: str | None = None
                while page := await listed(engine, limit=3, after=after, newest_first=newest_first):
                    assert len(page) <= 3
                    pages += page
                    after = page[-1]
                assert pages == await listed(engine, newest_first=newest_first)
            assert await listed(engine, limit=0) == []
            with pytest.raises(UnknownRun):
                await listed(engine, after="nobody")

    asyncio.run(scenario())


def test_a_list_longer_than_what_is_read_at_once_is_whole() -> None:
    async def scenario() -> None:
        async with Engine(":memory:", drive=False) as engine:
            for number in range(250):
                await flow.options(id=f"f{number}").start("works")
            for limit, found in ((None, 250), (100, 100), (120, 120), (200, 200), (500, 250)):
                ids = await listed(engine, limit=limit, newest_first=False)
                assert ids == [f"f{number}" for number in range(found)]

    asyncio.run(scenario())


def test_questions_that_make_no_sense_are_refused() -> None:
    async def scenario() -> None:
        async with Engine(":memory:") as engine:
            vague: Any = engine
            with pytest.raises(UsageError, match="the states are pending"):
                await vague.count(state="broken")
            with pytest.raises(ValueError, match="time zone"):
                await listed(engine, created_from=datetime(2024, 1, 1))  # noqa: DTZ001

    asyncio.run(scenario())


def test_what_a_run_is_changes_with_what_it_does() -> None:
    clock = ManualClock()

    async def scenario() -> None:
        async with Engine(":memory:", clock=clock) as engine:
            run = await naps.options(id="x", tags={"k": "v"}).start()
            await quiet(engine)
            info = await run.info()
            assert (info.id, info.workflow, info.version, info.state) == ("x", "naps", "", State.SUSPENDED)
            assert (info.created_at, info.ended_at, info.reason, info.error) == (BEGIN, None, "", None)
            assert len(info.uid) == 26
            assert sorted(sentence.split(" since ")[0] for sentence in info.waiting_for) == [
                "asyncio.timeout (asyncio.timeout#1)",
                "sleep (sleep#1)",
            ]
            clock.advance(50)
            await ended(run, RunFailed)
            info = await run.info()
            assert (info.state, info.reason, info.ended_at) == (State.FAILED, "error", BEGIN + timedelta(seconds=50))
            assert info.updated_at == info.ended_at
            assert info.error is not None
            assert info.error.is_a(TimeoutError)
            assert info.waiting_for == ()

    asyncio.run(scenario())


def test_the_history_shows_each_outcome_in_order() -> None:
    clock = ManualClock()

    @workflow
    async def everything() -> None:
        await act("works")
        await sleep(5)
        for how in ("declines", "fails"):
            try:  # noqa: SIM105
                await act(how)
            except Exception:
                pass

    async def scenario() -> None:
        async with Engine(":memory:", clock=clock) as engine:
            run: Run[Any] = await everything.start()
            await quiet(engine)
            clock.advance(5)
            await run
            works, slept, declines, fails = await run.history()
            assert [entry.seq for entry in await run.history()] == [1, 2, 3, 4]
            assert (works.key, works.kind, works.name, works.outcome) == ("act#1", Kind.STEP, "act", Outcome.VALUE)
            assert (works.value, works.error, works.attempts, works.removed) == ("works", None, 1, False)
            assert (works.started_at, works.recorded_at) == (BEGIN, BEGIN)
            assert (slept.kind, slept.value) == (Kind.SLEEP, None)
            assert (slept.started_at, slept.recorded_at) == (BEGIN, BEGIN + timedelta(seconds=5))
            assert (declines.outcome, declines.value["args"]) == (Outcome.DECLARED, ["declines"])
            assert fails.outcome is Outcome.ERROR
            assert fails.error is not None
            assert fails.error.is_a(ValueError)

    asyncio.run(scenario())

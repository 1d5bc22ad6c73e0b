"""Outcomes that arrive in an order that a seed draws: what may be permuted, what not, and that a seed repeats it."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from durable_sqlite import Engine, Retry, State, Suspend, UsageError, each, step, workflow
from durable_sqlite.testing import Schedules, schedules
from tests.support.restarts import die, quiet
from tests.support.stage import Stage

SEEDS = range(8)


@step
async def fetch(name: str) -> str:
    return name


@step
def compute(name: str) -> str:
    return name


@workflow
async def in_order_of_arrival(names: str) -> str:
    """The planted bug: its result depends on the order in which outcomes arrive."""
    seen: list[str] = []

    async def one(name: str) -> None:
        seen.append(await (compute if name in "bd" else fetch)(name))
        seen.append(await fetch(name.upper()))

    async with asyncio.TaskGroup() as group:
        for name in names:
            group.create_task(one(name))
    return "".join(seen)


@workflow
async def in_order_of_calls(names: str) -> str:
    """The same without it."""
    return "".join(await asyncio.gather(*(fetch(name) for name in names)))


def driven(names: str, seed: int | None) -> str:
    async def scenario() -> str:
        async with Engine(":memory:"):
            return await in_order_of_arrival(names)

    if seed is None:
        return asyncio.run(scenario())
    with schedules(seed, patience=30):
        return asyncio.run(scenario())


def test_a_planted_order_dependence_is_found_and_repeats_by_its_seed() -> None:
    # Not in steps of threads: without a schedule those end when they end.
    usual = driven("acegi", None)
    found = {seed: driven("acegi", seed) for seed in SEEDS}
    assert usual == "acegiACEGI"
    assert len(set(found.values())) >= len(SEEDS) - 2
    assert {seed: driven("acegi", seed) for seed in SEEDS} == found


def test_a_seed_repeats_the_order_also_of_steps_in_threads() -> None:
    assert {driven("abcd", 3) for _ in range(5)} == {driven("abcd", 3)}


def test_what_follows_from_one_outcome_may_overtake_the_others() -> None:
    found = {driven("ac", seed) for seed in range(30)}
    assert found == {"acAC", "acCA", "caAC", "caCA", "aAcC", "cCaA"}


def test_code_that_does_not_depend_on_the_order_gives_one_result_under_every_seed() -> None:
    async def scenario() -> str:
        async with Engine(":memory:"):
            return await in_order_of_calls("abcde")

    for seed in SEEDS:
        with schedules(seed, patience=30):
            assert asyncio.run(scenario()) == "abcde"


def test_keys_stay_what_they_are_and_the_journal_replays_what_it_holds_without_the_schedule(tmp_path: Path) -> None:
    stage = Stage()

    @step
    async def stop(seen: str) -> str:
        await stage.enter(seen)
        return seen

    @workflow
    async def flow() -> str:
        seen: list[str] = []

        async def one(name: str) -> None:
            seen.append(await fetch(name))

        async with asyncio.TaskGroup() as group:
            for name in "abcd":
                group.create_task(one(name))
        return await stop("".join(seen))

    async def begun(path: Path) -> list[str]:
        engine = Engine(path, workflows=[flow])
        await engine.__aenter__()
        run = await flow.options(id="a").start()
        async with asyncio.timeout(20):
            while not stage.began:  # noqa: ASYNC110 - the name of what is waited for is what is looked for
                await asyncio.sleep(0)
        keys = [entry.key for entry in await run.history()]
        await die(engine)
        stage.forget()
        return keys

    async def ended(path: Path) -> str:
        async with Engine(path, workflows=[flow]):
            return await flow.run("a").result()

    recorded: set[str] = set()
    for seed in range(4):
        path = tmp_path / f"{seed}.db"
        stage.close("abcd")
        stage.began.clear()
        with schedules(seed, patience=30):
            keys = asyncio.run(begun(path))
        assert sorted(keys) == ["0/fetch#1", "1/fetch#1", "2/fetch#1", "3/fetch#1"]
        (arrived,) = stage.began
        assert arrived == "".join("abcd"[int(key[0])] for key in keys)
        stage.let(arrived)
        with schedules(seed + 100, patience=30):  # another one, which changes nothing of what is recorded
            assert asyncio.run(ended(path)) == arrived
        recorded.add(arrived)
    assert len(recorded) > 1


def test_a_step_that_waits_for_what_the_body_does_next_is_not_waited_for_for_ever() -> None:
    stage = Stage()

    @step
    async def wait(name: str) -> str:
        await stage.enter(name)
        return name

    @step
    async def release() -> None:
        stage.let("slow")

    @workflow
    async def flow() -> list[str]:
        async def quick() -> str:
            await fetch("a")
            await release()
            return "quick"

        return list(await asyncio.gather(wait("slow"), quick()))

    async def scenario() -> list[str]:
        async with Engine(":memory:"):
            return await flow()

    with schedules(1, patience=0.01):
        assert asyncio.run(scenario()) == ["slow", "quick"]


class ScheduledReview(Suspend[bool]):
    of: str


def test_outcomes_held_back_beside_a_question_are_given_before_the_run_rests() -> None:
    @workflow
    async def flow() -> list[str]:
        async def one(name: str) -> str:
            await fetch(name)
            return name if await ScheduledReview(of=name).wait(key=name) else "no"

        return list(await asyncio.gather(*(one(name) for name in "abc")))

    async def scenario() -> list[str]:
        async with Engine(":memory:") as engine:
            run = await flow.start()
            await quiet(engine)
            assert len(await run.questions()) == 3
            for question in await run.questions():
                await run.answer(ScheduledReview, True, key=question.key)
            return await run.result()

    for seed in SEEDS:
        with schedules(seed, patience=30):
            assert asyncio.run(scenario()) == ["a", "b", "c"]


def test_failed_attempts_arrive_in_a_drawn_order_too_and_are_retried() -> None:
    failed: list[str] = []

    @step(retry=Retry(max_attempts=2, initial_delay=0.0001))
    async def shaky(name: str) -> str:
        if name not in failed:
            failed.append(name)
            raise RuntimeError("not yet")
        return name

    @workflow
    async def flow() -> list[str]:
        return await each(shaky, ["a", "b", "c"])

    async def scenario() -> list[str]:
        async with Engine(":memory:"):
            return await flow()

    for seed in SEEDS:
        failed.clear()
        with schedules(seed, patience=30):
            assert asyncio.run(scenario()) == ["a", "b", "c"]


@workflow
async def child(name: str) -> str:
    return await fetch(name)


def test_starting_other_runs_is_among_what_is_permuted() -> None:
    @workflow
    async def flow() -> str:
        seen: list[str] = []

        async def one(name: str) -> None:
            run = await child.options(id=f"{name}-{token}").start(name)
            seen.append(name)
            await run.result()

        async with asyncio.TaskGroup() as group:
            for name in "abc":
                group.create_task(one(name))
        return "".join(seen)

    async def scenario() -> str:
        async with Engine(":memory:"):
            return await flow()

    found: dict[int, str] = {}
    for token in range(6):
        with schedules(token, patience=30):
            found[token] = asyncio.run(scenario())
    assert len(set(found.values())) > 1
    for token in range(6):
        with schedules(token, patience=30):
            assert asyncio.run(scenario()) == found[token]


@pytest.mark.contradicts("two", "crash", reason="its pause is heard before the step ends")
def test_a_paused_run_is_given_what_has_arrived_and_goes_on_when_it_is_resumed() -> None:
    stage = Stage()

    @step
    async def wait(name: str) -> str:
        await stage.enter(name)
        return name

    @workflow
    async def flow() -> list[str]:
        async def two(name: str) -> str:
            await fetch(name)
            return await fetch(name.upper())

        return list(await asyncio.gather(wait("slow"), two("a"), two("b")))

    async def scenario() -> list[str]:
        async with Engine(":memory:") as engine:
            run = await flow.start()
            await stage.seen("slow")
            await run.pause()
            stage.let("slow")
            async for info in run.watch():
                if info.state is State.PAUSED:
                    break
            assert len(await run.history()) == 3
            await run.resume()
            await engine.join()
            return await run.result()

    for seed in range(3):
        stage.close("slow")
        stage.forget()
        with schedules(seed, patience=30):
            assert asyncio.run(scenario()) == ["slow", "A", "B"]


def test_an_engine_that_closes_while_outcomes_are_held_back_leaves_nothing_behind(tmp_path: Path) -> None:
    stage = Stage()

    @step
    async def wait(name: str) -> str:
        await stage.enter(name)
        return name

    @step
    async def known(name: str) -> str:
        stage.began.append(name)
        return name

    @workflow
    async def flow() -> list[str]:
        return list(await asyncio.gather(wait("slow"), known("a")))

    async def first() -> None:
        async with Engine(tmp_path / "runs.db") as engine:
            await flow.options(id="a").start()
            await stage.seen("slow")
            async with asyncio.timeout(20):
                while "a" not in stage.began:  # noqa: ASYNC110 - see above
                    await asyncio.sleep(0)
            for _ in range(20):
                await asyncio.sleep(0)
            assert await engine.run("a").history() == []

    async def second() -> list[str]:
        async with Engine(tmp_path / "runs.db", workflows=[flow]):
            return await flow.run("a").result()

    with schedules(1, patience=30):
        asyncio.run(first())
    stage.forget()
    stage.let("slow")
    assert asyncio.run(second()) == ["slow", "a"]


def test_the_innermost_schedule_holds_and_each_is_over_at_its_end() -> None:
    inner = driven("acegi", 2)
    with schedules(1), schedules(2, patience=30) as both:
        assert repr(both) == "schedules(2)"
        assert driven("acegi", None) == inner
    assert driven("acegi", None) == "acegiACEGI"


def test_what_is_drawn_does_not_depend_on_the_order_in_which_it_came() -> None:
    schedule = Schedules(5, 1.0)
    assert {("abc"[schedule.pick(2, "abc")]), "cab"[schedule.pick(2, "cab")], "bca"[schedule.pick(2, "bca")]} == {
        "abc"[schedule.pick(2, "abc")]
    }
    assert {schedule.pick(place, "abc") for place in range(20)} == {0, 1, 2}


@pytest.mark.parametrize("seed", ["1", 1.5, True, None])
def test_a_seed_is_a_whole_number(seed: object) -> None:
    with pytest.raises(UsageError, match="whole number as its seed"):
        schedules(seed)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("patience", [0, -1.0])
def test_patience_is_a_positive_time(patience: float) -> None:
    with pytest.raises(UsageError, match="takes a positive time"):
        schedules(1, patience=patience)


def test_without_a_schedule_what_has_ended_is_given_at_once_while_others_are_under_way() -> None:
    gate = threading.Event()

    @step
    def blocked() -> None:
        assert gate.wait(20)

    @step
    async def opens() -> None:
        gate.set()

    @workflow
    async def flow() -> None:
        async def chain() -> None:
            await fetch("a")
            await opens()

        await asyncio.gather(blocked(), chain())

    async def scenario() -> None:
        async with Engine(":memory:"):
            await flow()

    asyncio.run(scenario())

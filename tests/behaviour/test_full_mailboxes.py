"""Messages by the thousand to one run: each is taken once, in order, one by one or all at once, whenever they came."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from durable_sqlite import Engine, Signal, State, Workflow, workflow
from tests.support.restarts import die, quiet

SENT_AT_ONCE = 100


class Grain(Signal):
    n: int


class Enough(Signal):
    pass


@workflow(name="full-one-by-one")
async def one_by_one(number: int) -> bool:
    """Whether each message comes once and in order."""
    return [(await Grain.wait()).n for _ in range(number)] == list(range(number))


@workflow(name="full-all-at-once")
async def all_at_once(number: int) -> bool:
    await Enough.wait()
    got: list[int] = []
    while grains := await Grain.drain():
        got += [grain.n for grain in grains]
    return got == list(range(number))


@workflow(name="full-of-others")
async def others(_number: int) -> bool:
    """Waits for something else."""
    return isinstance(await Enough.wait(), Enough)


FLOWS: dict[str, Workflow[[int], bool]] = {"one by one": one_by_one, "all at once": all_at_once, "none of them": others}


def opened(path: Path, *, drive: bool = True) -> Engine:
    return Engine(path, workflows=FLOWS.values(), synchronous="normal", max_entries=1_000_000, drive=drive)


async def pour(engine: Engine, first: int, last: int) -> None:
    run = engine.run("x")
    for begin in range(first, last, SENT_AT_ONCE):
        end = min(last, begin + SENT_AT_ONCE)
        await asyncio.gather(*[run.signal(Grain(n=n), dedupe=f"grain {n}") for n in range(begin, end)])


@pytest.mark.parametrize("how", FLOWS)
@pytest.mark.parametrize("sent", ["while it is driven", "while nobody is there", "over a crash"])
def test_hundreds_of_messages_to_one_run_are_kept_and_taken_once_in_order(tmp_path: Path, how: str, sent: str) -> None:
    many_are_kept_and_taken(tmp_path, 500, how, sent)


@pytest.mark.thorough
@pytest.mark.parametrize(("how", "sent"), [("one by one", "while it is driven"), ("all at once", "over a crash")])
def test_a_hundred_thousand_messages_to_one_run_are_kept_and_taken_once_in_order(
    tmp_path: Path, how: str, sent: str
) -> None:
    many_are_kept_and_taken(tmp_path, 100_000, how, sent)


def many_are_kept_and_taken(tmp_path: Path, number: int, how: str, sent: str) -> None:
    async def scenario() -> None:
        path = tmp_path / "j.db"
        async with opened(path, drive=sent != "while nobody is there") as engine:
            await FLOWS[how].options(id="x", engine=engine).start(number)
            await pour(engine, 0, number // 2)
            if sent == "over a crash":
                await die(engine)
        async with opened(path) as engine:
            run = engine.run("x")
            await pour(engine, number // 2 - (SENT_AT_ONCE if sent == "over a crash" else 0), number)
            if how != "one by one":
                await quiet(engine)
                assert (await run.info()).state is State.SUSPENDED
                await run.signal(Enough())
            assert await run.result(timeout=120)
            left = [message.message["n"] for message in await run.messages()]
            assert left == (list(range(number)) if how == "none of them" else [])

    asyncio.run(scenario())

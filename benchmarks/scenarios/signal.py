"""How soon a body hears: from the call that sends a message to the next line of the body that waits for it."""

from __future__ import annotations

import asyncio
import multiprocessing
import statistics
from collections.abc import Awaitable, Callable
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random
from time import monotonic, perf_counter
from typing import Any

from benchmarks.limits import bare
from benchmarks.peers import dbos_sqlite
from benchmarks.shape import OURS, Figures, Scenario, Side, least, most
from benchmarks.warm import warm_engine
from benchmarks.witness import WITNESS
from durable_sqlite import Engine, Signal, workflow

__all__ = ["SCENARIO"]

SAME = "ms in the same process, median"
OTHER = "ms from another process, median"
LONGEST_PAUSE = 0.05  # seconds between two messages: so that each finds the run at rest
HEARD: dict[int, float] = {}
"""When a body went on after each message, the first time: by the clock that all processes of a machine share."""
LISTENS: list[Any] = []
"""The workflow of DBOS that waits, once it is defined."""
DBOS_PAUSE = 0.2  # seconds: after each message, until its body waits again


class Note(Signal, name="bench-note"):
    """What is sent."""

    number: int


@workflow
async def listens(messages: int) -> int:
    """Take so many messages, and note when."""
    for number in range(messages):
        await Note.wait()
        HEARD.setdefault(number, monotonic())
    return messages


def _late(sent: list[float], heard: list[float]) -> tuple[float, float]:
    """Median and 99th percentile in milliseconds."""
    late = sorted(1000 * (then - before) for before, then in zip(sent, heard, strict=True))
    return statistics.median(late), late[len(late) * 99 // 100]


def _ours(folder: Path, messages: int) -> Figures:
    same, same_worst = asyncio.run(_same(folder / "same.db", messages))
    other, other_worst = _from_another(_drive, _send, folder / "other.db", messages)
    return {
        SAME: same,
        OTHER: other,
        "ms in the same process, 99th percentile": same_worst,
        "ms from another process, 99th percentile": other_worst,
    }


async def _same(journal: Path, messages: int) -> tuple[float, float]:
    HEARD.clear()
    sent: list[float] = []
    async with Engine(journal) as engine:
        await warm_engine(engine)
        run = await listens.start(messages)
        await engine.join()
        for number in range(messages):
            sent.append(monotonic())
            await run.signal(Note(number=number))
            await engine.join()
        await run
        WITNESS.look()
    return _late(sent, [*HEARD.values()])


def _drive(journal: Path, messages: int, tell: Connection) -> None:
    """The process whose body waits: says when it is ready, then when it heard."""

    async def main() -> None:
        async with Engine(journal) as engine:
            await warm_engine(engine)
            run = await listens.options(id="listener").start(messages)
            await engine.join()
            tell.send("ready")
            await run

    asyncio.run(main())
    tell.send([*HEARD.values()])


async def _send(journal: Path, messages: int) -> list[float]:
    sent: list[float] = []
    chance = Random(7)
    async with Engine(journal, workflows=[listens], drive=False) as engine:
        run = engine.run("listener")
        for number in range(messages):
            await asyncio.sleep(chance.random() * LONGEST_PAUSE)
            sent.append(monotonic())
            await run.signal(Note(number=number))
        await listens.run("listener").result(timeout=60)
        WITNESS.look()
    return sent


def _from_another(
    drive: Callable[[Path, int, Connection], None],
    send: Callable[[Path, int], Awaitable[list[float]]],
    place: Path,
    messages: int,
) -> tuple[float, float]:
    """How late a body hears in one process what another one sends."""

    async def sending() -> list[float]:
        return await send(place, messages)

    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    driver = context.Process(target=drive, args=(place, messages, there))
    driver.start()
    if not here.poll(60) or here.recv() != "ready":
        raise SystemExit("the process that waits does not begin")
    sent = asyncio.run(sending())
    heard: list[float] = here.recv()
    driver.join()
    return _late(sent, heard)


def _dbos(folder: Path, messages: int) -> Figures:
    same, _ = asyncio.run(_dbos_same(folder, messages))
    other, _ = _from_another(_dbos_drive, _dbos_send, folder / "other", messages)
    return {SAME: same, OTHER: other}


def _dbos_listens(api: Any) -> None:
    async def body(messages: int) -> int:
        for number in range(messages):
            await api.recv_async(timeout_seconds=60)
            HEARD.setdefault(number, monotonic())
        return messages

    LISTENS.append(api.workflow(name="listens")(body))


async def _dbos_start(api: Any, messages: int) -> Any:
    with dbos_sqlite.with_id("listener"):
        return await api.start_workflow_async(LISTENS[-1], messages)


async def _dbos_same(folder: Path, messages: int) -> tuple[float, float]:
    HEARD.clear()
    chance = Random(7)
    sent: list[float] = []
    async with dbos_sqlite.opened(folder, _dbos_listens) as peer:
        handle = await _dbos_start(peer.api, messages)
        for number in range(messages):
            await asyncio.sleep(DBOS_PAUSE + chance.random() * LONGEST_PAUSE)
            sent.append(monotonic())
            await peer.api.send_async("listener", number)
            while len(HEARD) <= number:
                await asyncio.sleep(0.001)
        await handle.get_result()
    return _late(sent, [*HEARD.values()])


def _dbos_drive(folder: Path, messages: int, tell: Connection) -> None:
    folder.mkdir()

    async def main() -> None:
        async with dbos_sqlite.opened(folder, _dbos_listens) as peer:
            handle = await _dbos_start(peer.api, messages)
            tell.send("ready")
            await handle.get_result()

    asyncio.run(main())
    tell.send([*HEARD.values()])


async def _dbos_send(folder: Path, messages: int) -> list[float]:
    chance = Random(7)
    sent: list[float] = []
    async with dbos_sqlite.client(folder) as client:
        for number in range(messages):
            # as far apart as its polls, so that each message finds the run at rest, at any moment between two polls
            await asyncio.sleep(1.5 + chance.random())
            sent.append(monotonic())
            await client.send_async("listener", number)
    return sent


def _limit(folder: Path, messages: int) -> Figures:
    took: list[float] = []
    with bare(folder) as connection:
        for number in range(messages):
            began = perf_counter()
            connection.execute("INSERT INTO entries VALUES ('run', ?, ?)", (f"note#{number}", b"1234"))
            took.append(perf_counter() - began)
    return {SAME: 1000 * statistics.median(took)}


SCENARIO = Scenario(
    name="signal",
    work="from the call that sends a message to the next line of the body that waits for it; the limit: one commit",
    size=200,
    quick=4,
    sides=(
        Side(OURS, _ours),
        Side("limit", _limit),
        Side("dbos", _dbos, needs=dbos_sqlite.NEEDS, share=0.04, most_rounds=2),
    ),
    floors=(
        most("bare commits in the same process", 4, lambda sides: sides[OURS][SAME] / sides["limit"][SAME]),
        least(
            "times sooner than DBOS, from another process", 20, lambda sides: sides["dbos"][OTHER] / sides[OURS][OTHER]
        ),
    ),
    main=SAME,
    rounds=3,
    notes="DBOS looks for messages once a second (its own default); it is sent few of them, at moments spread over that second.",
    tried=(
        (
            "The message was a commit, taking the suspended run again was another, and its mail was read in between: three ways "
            "to a thread of the journal and back, where the limit commits in place. Since the commit that stores the message "
            "takes the run too, where its body is in memory, it is one way, and less than half of the time besides the disk's."
        ),
    ),
)

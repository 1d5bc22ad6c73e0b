"""DBOS on SQLite: the library's own settings, with WAL and `synchronous=FULL` on every connection it opens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import AbstractContextManager, asynccontextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.stopwatch import Stopwatch, Took, agree
from benchmarks.warm import warm_file
from benchmarks.witness import WITNESS

__all__ = ["NEEDS", "Dbos", "client", "concurrent", "opened", "url_of", "with_id"]

NEEDS = "dbos"


@dataclass(frozen=True, slots=True)
class Dbos:
    """What a scenario needs of it."""

    api: Any
    """The class `DBOS`."""
    count: Callable[[int], Coroutine[Any, Any, int]]
    """The workflow of so many steps."""


async def _increment(number: int) -> int:
    return number + 1


def url_of(folder: Path) -> str:
    """The address of the database in this folder."""
    return f"sqlite:///{folder / 'dbos.sqlite'}"


def durable() -> None:
    """Let every connection of SQLAlchemy in this process begin with WAL and full durability."""
    sqlalchemy: Any = import_module("sqlalchemy")

    def force(connection: Any, _: object) -> None:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")

    sqlalchemy.event.listen(sqlalchemy.engine.Engine, "connect", force)


@asynccontextmanager
async def opened(folder: Path, *more: Callable[[Any], None]) -> AsyncGenerator[Dbos]:
    """DBOS, launched, with the workflow `count` known; `more` define what else is needed before that."""
    dbos: Any = import_module("dbos")
    durable()
    increment = dbos.DBOS.step(name="increment")(_increment)

    async def body(steps: int) -> int:
        number = 0
        for _ in range(steps):
            number = await increment(number)
        return number

    count = dbos.DBOS.workflow(name="count")(body)
    for define in more:
        define(dbos.DBOS)
    dbos.DBOS(config={"name": "bench", "system_database_url": url_of(folder), "log_level": "ERROR"})
    dbos.DBOS.launch()
    await count(2)
    warm_file(folder / "dbos.sqlite")
    yield Dbos(dbos.DBOS, count)
    WITNESS.look()
    dbos.DBOS.destroy()


@asynccontextmanager
async def client(folder: Path) -> AsyncGenerator[Any]:
    """A client of the same database, in a process that drives nothing."""
    dbos: Any = import_module("dbos")
    durable()
    client = dbos.DBOSClient(system_database_url=url_of(folder))
    yield client
    WITNESS.look()
    client.destroy()


def with_id(name: str) -> AbstractContextManager[object]:
    """What is started within has this id."""
    dbos: Any = import_module("dbos")
    given: AbstractContextManager[object] = dbos.SetWorkflowID(name)
    return given


def concurrent(folder: Path, runs: int, steps: int) -> Took:
    """What is taken by so many runs at once."""

    async def main() -> Took:
        async with opened(folder) as peer:
            watch = Stopwatch()
            agree(await asyncio.gather(*(peer.count(steps) for _ in range(runs))), [steps] * runs)
            return watch.took()

    return asyncio.run(main())

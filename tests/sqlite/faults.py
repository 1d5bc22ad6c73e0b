"""Connections that fail where a test wants it."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from durable_sqlite._sqlite import SqliteJournal
from durable_sqlite._sqlite.link import JobConnection

__all__ = [
    "BUSY",
    "FULL",
    "IOERR",
    "Hours",
    "Impatient",
    "Naps",
    "Script",
    "Weather",
    "faulty",
    "opened",
    "storage_error",
]


def storage_error(code: int, name: str) -> sqlite3.OperationalError:
    """An error as SQLite raises it."""
    error = sqlite3.OperationalError(f"injected {name}")
    error.sqlite_errorcode = code
    error.sqlite_errorname = name
    return error


Plan = Callable[[str, Callable[[], Any]], Any]
"""Gets a statement and the call that executes it; gives what that gives, or raises."""


def faulty(plan: Plan) -> type[JobConnection]:
    """A class of connections whose statements go through `plan`."""

    class Faulty(JobConnection):
        def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
            cursor: sqlite3.Cursor = plan(sql, lambda: super(Faulty, self).execute(sql, parameters))
            return cursor

        def rollback(self) -> None:
            plan("rollback()", super().rollback)

    return Faulty


class Naps:
    """Pauses that take no time; after each, `then` is called with how many there were."""

    def __init__(self, then: Callable[[int], object] = lambda _count: None) -> None:
        self.taken: list[float] = []
        self._then = then

    async def __call__(self, seconds: float) -> None:
        self.taken.append(seconds)
        self._then(len(self.taken))
        await asyncio.sleep(0)


BUSY = storage_error(sqlite3.SQLITE_BUSY, "SQLITE_BUSY")
FULL = storage_error(sqlite3.SQLITE_FULL, "SQLITE_FULL")
IOERR = storage_error(sqlite3.SQLITE_IOERR, "SQLITE_IOERR")


@asynccontextmanager
async def opened(path: Path | str, **options: Any) -> AsyncGenerator[SqliteJournal, None]:
    journal = SqliteJournal(path, **options)
    await journal.open(f"w{os.urandom(4).hex()}", 1)
    try:
        yield journal
    finally:
        await journal.close(99)


class Script:
    """Statements go through; those that begin with a word of the script fail in its order, before or after."""

    def __init__(self) -> None:
        self.before: dict[str, list[BaseException]] = {}
        self.after: dict[str, list[BaseException]] = {}
        self.seen: list[str] = []

    def __call__(self, sql: str, call: Callable[[], Any]) -> Any:
        self.seen.append(sql)
        self._fail(self.before, sql)
        answer = call()
        self._fail(self.after, sql)
        return answer

    @staticmethod
    def _fail(plan: dict[str, list[BaseException]], sql: str) -> None:
        for word, errors in plan.items():
            if errors and sql.startswith(word):
                raise errors.pop(0)


class Hours:
    """A clock that moves only in pauses, which take no time; after each, `then` is called with the time.

    It is what a journal takes as `monotonic`; its `sleep` is what it takes as `sleep`.
    """

    def __init__(self, then: Callable[[float], object] = lambda _now: None) -> None:
        self.now = 0.0
        self.pauses: list[float] = []
        self.then = then

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds
        self.then(self.now)
        await asyncio.sleep(0)

    @property
    def options(self) -> dict[str, Any]:
        """What makes a journal live by this clock."""
        return {"monotonic": self, "sleep": self.sleep, "chance": lambda: 1.0}


class Impatient(JobConnection):
    """A connection on which SQLite itself waits for no lock, so that tests of waiting take no time."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.execute("PRAGMA busy_timeout = 0").fetchall()


class Weather:
    """Statements go through; while it is bad, those that begin with a word fail, all but the first `spared` ones."""

    def __init__(self) -> None:
        self._bad: dict[str, tuple[BaseException, bool]] = {}
        self.spared = 0
        self.seen: list[str] = []

    def bad(self, error: BaseException, *words: str, after: bool = False) -> None:
        """From now on, statements that begin like this fail; `after` they have done their work."""
        self._bad.update(dict.fromkeys(words or ("BEGIN",), (error, after)))

    def good(self) -> None:
        """From now on all is well."""
        self._bad.clear()

    def __call__(self, sql: str, call: Callable[[], Any]) -> Any:
        self.seen.append(sql)
        found = next((trouble for word, trouble in self._bad.items() if sql.startswith(word)), None)
        if found is None:
            return call()
        if self.spared:
            self.spared -= 1
            return call()
        error, after = found
        if after:
            call()
        raise error

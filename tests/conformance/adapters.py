"""The journals that the port's suite is run over."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from durable_sqlite._sqlite import SqliteJournal
from durable_sqlite.journal import Journal
from tests.support.memory_journal import Disk, MemoryJournal

__all__ = ["ADAPTERS", "Lab", "in_lab"]


class Lab:
    """One storage, and as many workers on it as a test wants."""

    def __init__(self, make: Callable[[], Journal], stack: AsyncExitStack) -> None:
        self._make = make
        self._stack = stack
        self._workers = 0

    async def worker(self) -> Journal:
        """Open a worker; it signs off at the end of the test."""
        self._workers += 1
        journal = self._make()
        await journal.open(f"worker-{self._workers}", self._workers)
        self._stack.push_async_callback(journal.close, 1_000)
        return journal

    async def kill(self, journal: Journal) -> None:
        """Let a worker vanish as a killed process does: it gives nothing back."""
        await asyncio.sleep(0)
        journal.stop()


@asynccontextmanager
async def _sqlite_file(tmp_path: Path) -> AsyncGenerator[Lab, None]:
    async with AsyncExitStack() as stack:
        yield Lab(lambda: SqliteJournal(tmp_path / "a journal?#%41.db"), stack)


@asynccontextmanager
async def _memory(_tmp_path: Path) -> AsyncGenerator[Lab, None]:
    disk = Disk()
    async with AsyncExitStack() as stack:
        stack.callback(disk.tables.close)
        yield Lab(lambda: MemoryJournal(disk), stack)
    assert disk.violations == []


@asynccontextmanager
async def _delayed_memory(_tmp_path: Path) -> AsyncGenerator[Lab, None]:
    disk = Disk()
    async with AsyncExitStack() as stack:
        stack.callback(disk.tables.close)
        yield Lab(lambda: MemoryJournal(disk, delay=0.0001), stack)
    assert disk.violations == []


ADAPTERS = {"sqlite": _sqlite_file, "memory": _memory, "delayed memory": _delayed_memory}


def in_lab(adapter: str, tmp_path: Path, program: Callable[[Lab], Coroutine[Any, Any, None]]) -> None:
    """Run a test's program over one adapter."""

    async def main() -> None:
        async with ADAPTERS[adapter](tmp_path) as lab:
            await program(lab)

    asyncio.run(main())

"""Who is taken for dead, and who only could not write."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Self

import pytest

from durable_sqlite._liveness import Lifeline, side_file
from durable_sqlite._neighbours import Neighbours, Surveillance
from durable_sqlite._records import RunRow, State
from durable_sqlite.journal import Lease
from tests.support.journals import begin, rest, wait
from tests.support.memory_journal import Disk, MemoryJournal

LEASE = 10.0


class Street:
    """Two workers on one disk, of whom one watches the other."""

    def __init__(self, path: Path, *, local: bool = True, host: str = "") -> None:
        self.local = local
        self.host = host
        self.path = path
        self.now = 1_000.0
        self.naps: list[float] = []
        self.during_nap: Callable[[], Awaitable[object]] | None = None
        self.disk = Disk()
        self.watcher = MemoryJournal(self.disk)
        self.other = MemoryJournal(self.disk)
        self.lifeline = Lifeline(side_file(path, "other"))

    async def __aenter__(self) -> Self:
        await self.watcher.open("watcher", 1)
        lease = Lease(int(LEASE * 1_000_000), self.host, lambda: 0, lambda: None, lambda _why: None)
        await self.other.open("other", 2, lease)
        how = Surveillance(
            path=self.path,
            now=lambda: self.now,
            sleep=self._nap,
            at=lambda: 50,
            max_recoveries=3,
            parked_result=b"{}",
            local=self.local,
            here="here",
        )
        self.neighbours = Neighbours(self.watcher, how)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.lifeline.release()
        await self.watcher.close(99)
        await self.other.close(99)

    async def _nap(self, seconds: float) -> None:
        self.naps.append(seconds)
        self.now += seconds
        if self.during_nap is not None:
            await self.during_nap()

    async def after(self, seconds: float) -> list[str]:
        """Let time pass, and look; the ids of the runs that were taken."""
        self.now += seconds
        return [row.id for row in await self.neighbours.look()]

    async def watch(self, seconds: float) -> list[str]:
        """Look each quarter of a second for so long; the ids of the runs that were taken."""
        taken: list[str] = []
        for _ in range(int(seconds * 4)):
            taken += await self.after(0.25)
        return taken


def on_street(
    tmp_path: Path, program: Callable[[Street], Awaitable[None]], *, local: bool = True, host: str = ""
) -> None:
    async def main() -> None:
        async with Street(tmp_path / "j.db", local=local, host=host) as street:
            await program(street)

    asyncio.run(main())


def test_a_worker_that_died_on_this_host_is_noticed_at_the_next_look(tmp_path: Path) -> None:
    async def program(street: Street) -> None:
        await begin(street.other)
        assert await street.after(0.25) == []
        street.lifeline.forget()
        assert await street.after(0.25) == ["a"]
        assert street.naps == []
        assert await street.after(0.25) == []
        assert not side_file(street.path, "other").exists()

    on_street(tmp_path, program)


@pytest.mark.parametrize(
    ("local", "host", "seen"), [(True, "there", True), (False, "here", True), (False, "there", False)]
)
def test_the_lock_of_another_machine_on_a_network_file_system_says_nothing_and_its_lease_all(
    tmp_path: Path, local: bool, host: str, seen: bool
) -> None:
    async def program(street: Street) -> None:
        await begin(street.other)
        assert await street.after(0.25) == []
        street.lifeline.forget()
        assert await street.after(0.25) == (["a"] if seen else [])
        assert await street.watch(LEASE - 1.0) == []
        assert await street.watch(2.0) == ([] if seen else ["a"])

    on_street(tmp_path, program, local=local, host=host)


def test_a_worker_that_is_silent_for_its_whole_lease_is_given_up(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def program(street: Street) -> None:
        await begin(street.other)
        assert await street.watch(LEASE - 0.5) == []
        with caplog.at_level(logging.WARNING):
            assert await street.watch(1.0) == ["a"]
        assert street.naps == [LEASE / 5], "it was given a moment in which writing was possible"
        assert "silent for more than its lease of 10.0 s" in caplog.text
        row = await street.watcher.run("a")
        assert isinstance(row, RunRow)
        assert (row.state, row.deaths) == (State.PENDING, 1)

    on_street(tmp_path, program)


def test_a_worker_that_writes_now_and_then_is_left_alone(tmp_path: Path) -> None:
    async def program(street: Street) -> None:
        await begin(street.other)
        for _ in range(10):
            assert await street.watch(LEASE * 0.7) == []
            await street.other.sound()

    on_street(tmp_path, program)


def test_a_worker_that_drives_nothing_may_be_silent_for_ever(tmp_path: Path) -> None:
    async def program(street: Street) -> None:
        _, hold = await begin(street.other)
        assert await street.watch(LEASE / 2) == []
        await street.other.suspend(hold, rest(wait(), at=20))
        street.neighbours.heard()
        assert await street.watch(LEASE * 5) == []
        (row,) = await street.watcher.workers()
        assert row.name == "other"
        # Its lease begins with the run that it takes next.
        await begin(street.other, "b")
        street.neighbours.heard()
        assert await street.watch(LEASE - 0.5) == []

    on_street(tmp_path, program)


def test_a_worker_that_shows_itself_in_the_moment_it_is_given_is_left_alone(tmp_path: Path) -> None:
    async def program(street: Street) -> None:
        await begin(street.other)
        street.during_nap = street.other.sound
        assert await street.watch(LEASE * 3) == []
        assert street.naps

    on_street(tmp_path, program)


def test_a_worker_that_shows_itself_before_it_is_given_a_moment_is_left_alone(tmp_path: Path) -> None:
    async def program(street: Street) -> None:
        await begin(street.other)
        assert await street.watch(LEASE - 0.5) == []
        shown = street.other.sound()  # is committed after the look, and before what the watcher writes
        assert await street.after(1.0) == []
        await shown
        assert street.naps == []

    on_street(tmp_path, program)


def test_nobody_is_given_up_for_not_writing_while_nobody_could_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def program(street: Street) -> None:
        await begin(street.other)
        assert await street.watch(LEASE - 0.5) == []
        sound = street.watcher.sound

        async def after_the_lock_is_free() -> object:
            street.now += 60.0
            return await sound()

        # Each time, a foreign lock is let go only after a minute.
        monkeypatch.setattr(street.watcher, "sound", after_the_lock_is_free)
        assert await street.after(1.0) == []
        assert await street.after(1.0) == []
        monkeypatch.undo()
        await street.other.sound()  # it comes to write as well, before it is looked at again
        assert await street.after(1.0) == []
        assert await street.watch(LEASE - 1.0) == []

    on_street(tmp_path, program)


def test_a_worker_that_renews_its_lease_at_the_very_end_is_not_struck_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def program(street: Street) -> None:
        await begin(street.other)
        take_over = street.watcher.take_over

        async def in_the_last_moment(*args: object, **kwargs: object) -> object:
            await street.other.sound()
            return await take_over(*args, **kwargs)  # type: ignore[arg-type]

        monkeypatch.setattr(street.watcher, "take_over", in_the_last_moment)
        assert await street.watch(LEASE + 1.0) == []
        (row,) = await street.watcher.workers()
        assert (row.name, row.holds) == ("other", True)

    on_street(tmp_path, program)

"""Processes that hear of each other: cheaply while nothing happens, and of everything all the same."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from durable_sqlite import Engine, JournalError, Signal, _session, workflow
from durable_sqlite._records import Pulse
from durable_sqlite._sqlite import SqliteJournal
from tests.support.gates import session_of
from tests.support.restarts import quiet
from tests.support.stage import until


class Word(Signal):
    said: str


@workflow
async def hears() -> str:
    return (await Word.wait()).said


class Looks:
    """Counts how often journals are asked for signs and for the pulse, a thousand times a second."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, in_any_case: float, blind: bool = False) -> None:
        self.glances = self.pulses = 0
        glance, pulse = SqliteJournal.seems_still, SqliteJournal.pulse

        def seems_still(journal: SqliteJournal, since: Pulse) -> bool:
            self.glances += 1
            return blind or glance(journal, since)

        async def counted(journal: SqliteJournal) -> Pulse:
            self.pulses += 1
            return await pulse(journal)

        monkeypatch.setattr(SqliteJournal, "seems_still", seems_still)
        monkeypatch.setattr(SqliteJournal, "pulse", counted)
        monkeypatch.setattr(_session, "_LISTEN_OFTEN", 0.001)
        monkeypatch.setattr(_session, "_LISTEN_SELDOM", 0.001)
        monkeypatch.setattr(_session, "_LISTEN_IN_ANY_CASE", in_any_case)
        self._patch = monkeypatch

    async def only_at_signs(self) -> None:
        """Let all be heard that was written so far; from then on nothing is asked for without a sign."""
        seen = self.glances
        await until(lambda: self.glances > seen + 3)
        self._patch.setattr(_session, "_LISTEN_IN_ANY_CASE", 3_600)


@pytest.mark.contradicts("two", "crash", reason="it counts the looks of one engine")
def test_an_engine_that_nobody_writes_to_asks_sqlite_for_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        looks = Looks(monkeypatch, in_any_case=0.01)
        async with Engine(tmp_path / "j.db") as engine:
            await hears.start()
            await quiet(engine)
            await looks.only_at_signs()
            asked, seen = looks.pulses, looks.glances
            await until(lambda: looks.glances > seen + 50)
            assert looks.pulses == asked

    asyncio.run(scenario())


@pytest.mark.contradicts("two", "crash", reason="it counts the looks of one engine")
def test_what_another_engine_writes_is_heard_though_nothing_is_asked_for_in_any_case(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        looks = Looks(monkeypatch, in_any_case=0.01)
        async with Engine(tmp_path / "j.db") as engine, Engine(tmp_path / "j.db", drive=False) as client:
            run = await hears.start()
            await quiet(engine)
            await looks.only_at_signs()
            await client.run(run.id).signal(Word(said="now"))
            assert await run.result(timeout=20) == "now"

    asyncio.run(scenario())


def test_what_leaves_no_sign_is_heard_a_moment_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        looks = Looks(monkeypatch, in_any_case=0.01, blind=True)
        async with Engine(tmp_path / "j.db") as engine, Engine(tmp_path / "j.db", drive=False) as client:
            run = await hears.start()
            await quiet(engine)
            await client.run(run.id).signal(Word(said="now"))
            assert await run.result(timeout=20) == "now"
            assert looks.glances

    asyncio.run(scenario())


@pytest.mark.contradicts("two", "crash", reason="it counts the looks of one engine")
def test_what_could_not_be_heard_is_heard_at_the_next_look_without_another_sign(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = 0

    async def fail(*_args: object) -> Any:
        nonlocal failed
        failed += 1
        raise JournalError("the disk is on fire")

    async def scenario() -> None:
        looks = Looks(monkeypatch, in_any_case=0.01)
        async with Engine(tmp_path / "j.db") as engine, Engine(tmp_path / "j.db", drive=False) as client:
            run = await hears.start()
            await quiet(engine)
            await looks.only_at_signs()
            with monkeypatch.context() as patch:
                patch.setattr(session_of(engine), "_hear", fail)
                await client.run(run.id).signal(Word(said="now"))
                await until(lambda: failed >= 3)
            assert await run.result(timeout=20) == "now"

    asyncio.run(scenario())

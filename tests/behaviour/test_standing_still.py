"""A process that stood still, and others that took its runs over meanwhile."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from durable_sqlite import Engine, step, workflow
from durable_sqlite._sqlite import SqliteJournal
from durable_sqlite._sqlite.vigil import Vigil
from tests.support.gates import Gate, session_of
from tests.support.stage import Stage


def test_no_step_begins_before_it_is_certain_that_nobody_has_taken_its_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = Stage()

    @step
    async def act() -> int:
        await stage.enter("act")
        return 1

    @workflow
    async def flow() -> int:
        return await act()

    async def scenario() -> None:
        stage.let("act")
        async with Engine(tmp_path / "j.db") as engine:
            gate = Gate(engine, "assured", monkeypatch, before=True)
            run = await flow.start()
            await gate.reached()
            session_of(engine).lapsed("it stood still")
            await gate.reached(2)  # it has begun anew, and taken the run again
            assert not stage.began
            gate.open()
            assert await run == 1
            assert stage.began == ["act"]

    asyncio.run(scenario())


def test_who_is_not_sure_waits_until_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[Vigil] = []

    def is_sure(vigil: Vigil) -> bool:
        looks.append(vigil)
        return len(looks) == 3

    async def a_moment(_seconds: float) -> None:
        await asyncio.sleep(0)

    async def scenario() -> None:
        async with Engine(tmp_path / "j.db") as engine:
            journal = session_of(engine).journal
            assert isinstance(journal, SqliteJournal)
            monkeypatch.setattr(Vigil, "is_sure", property(is_sure))
            monkeypatch.setattr(journal._pauses, "sleep", a_moment)
            await journal.assured()
            assert len(looks) == 3

    asyncio.run(scenario())

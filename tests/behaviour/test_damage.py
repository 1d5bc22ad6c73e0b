"""Damage made visible: what does not fit its checksums is parked and named, and its neighbours go on."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from durable_sqlite import (
    DeadLetter,
    Engine,
    FindingKind,
    JournalDamaged,
    NotDurable,
    RunFailed,
    RunParked,
    Signal,
    Undecodable,
    UnknownRun,
    step,
    workflow,
)
from tests.support.restarts import quiet


class Go(Signal):
    by: int


ran: list[str] = []


@step(name="damage.note")
async def note(what: str) -> str:
    ran.append(what)
    return what


@workflow(name="damage.flow")
async def flow(what: str) -> str:
    first = await note(f"{what} 1")
    by = (await Go.wait()).by
    return f"{first}, {await note(f'{what} 2')}, {by}"


@pytest.fixture(autouse=True)
def nothing_ran() -> None:
    ran.clear()


def tamper(path: Path, *statements: str) -> None:
    """Write past the journal."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for sql in statements:
            assert connection.execute(sql).rowcount, sql


def start(path: Path, *names: str) -> None:
    """Let runs of these names come to their wait, and close."""

    async def main() -> None:
        async with Engine(path) as engine:
            for name in names:
                await flow.options(id=name).start(name)
            await quiet(engine)

    asyncio.run(main())


NUMBER = "(SELECT no FROM durable_runs WHERE id = '{}')"


OF_B = f"run = {NUMBER.format('b')}"
ENTRY = "its entry damage.note#1 is not what was recorded"
CASES = [
    (ENTRY, f"UPDATE durable_entries SET payload = CAST('\"no\"' AS BLOB) WHERE {OF_B}"),
    (ENTRY, f"UPDATE durable_entries SET kind = 'nonsense' WHERE {OF_B}"),
    ("of its entries, 1 were written: 1 are missing", f"DELETE FROM durable_entries WHERE {OF_B}"),
    ("its own row is not what was written", "UPDATE durable_runs SET input = CAST('{}' AS BLOB) WHERE id = 'b'"),
    ("of its waits, 1 were written: 1 are missing", f"DELETE FROM durable_waits WHERE {OF_B}"),
    ("its messages are not what was written", f"UPDATE durable_signals SET payload = CAST('7' AS BLOB) WHERE {OF_B}"),
]


@pytest.mark.parametrize(("told", "sql"), CASES, ids=[str(number) for number in range(len(CASES))])
def test_a_damaged_run_is_parked_by_name_and_its_neighbours_go_on(tmp_path: Path, told: str, sql: str) -> None:
    path = tmp_path / "j.db"

    async def main() -> None:
        letters: list[DeadLetter] = []
        async with Engine(path, drive=False) as client:
            for name in "abc":
                await client.run(name).signal(Go(by=3))
        tamper(path, sql)
        ran.clear()
        async with Engine(path, workflows=[flow], on_dead_letter=letters.append) as engine:
            for name in "ac":
                assert await engine.run(name).result(timeout=20) == f"{name} 1, {name} 2, 3"
            with pytest.raises(RunParked, match="damaged") as parked:
                await engine.run("b").result(timeout=20)
            assert parked.value.reason == "damaged"
            assert told in str(parked.value)
            assert "engine.verify(accept=" in str(parked.value)
            assert [letter.run.id for letter in letters] == ["b"]
            findings = (await engine.verify()).findings
            assert {finding.run for finding in findings} == {"b"}
            assert any(told in finding.what for finding in findings)
        assert sorted(ran) == ["a 2", "c 2"]

    start(path, *"abc")
    asyncio.run(main())


def test_a_run_that_cannot_even_be_read_is_put_aside_and_its_neighbours_go_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "j.db"

    async def main() -> None:
        async with Engine(path, drive=False) as client:
            for name in "abc":
                await client.run(name).signal(Go(by=3))
        tamper(path, f"UPDATE durable_runs SET failed_keys = 'no JSON' WHERE no = {NUMBER.format('b')}")
        async with Engine(path, workflows=[flow]) as engine:
            await quiet(engine)
            assert [await engine.run(name).result(timeout=20) for name in "ac"] == ["a 1, a 2, 3", "c 1, c 2, 3"]
            with pytest.raises(JournalDamaged, match="verify"):
                await engine.run("b").info()
            with closing(engine.connect()) as connection:
                assert connection.execute("SELECT state, reason FROM durable_runs WHERE id = 'b'").fetchall() == [
                    ("parked", "damaged")
                ]
        assert "run number 2 is damaged and is parked" in caplog.text

    start(path, *"abc")
    with caplog.at_level(logging.ERROR):
        asyncio.run(main())


def test_what_a_person_accepts_goes_on_as_it_is_stored(tmp_path: Path) -> None:
    path = tmp_path / "j.db"

    async def main() -> None:
        async with Engine(path, workflows=[flow]) as engine:
            await engine.run("a").signal(Go(by=3))
            with pytest.raises(RunParked, match="damaged"):
                await engine.run("a").result(timeout=20)
            (entry, *_) = await engine.run("a").history()
            assert entry.value == "forged"
            await engine.run("a").resume()
            with pytest.raises(RunParked, match="damaged"):
                await engine.run("a").result(timeout=20)
            assert not (await engine.verify(accept=["a"])).ok
            assert (await engine.verify()).ok
            await engine.run("a").resume()
            assert await engine.run("a").result(timeout=20) == "forged, a 2, 3"
            assert (await engine.verify()).ok
            with pytest.raises(UnknownRun):
                await engine.verify(accept="nobody")

    start(path, "a")
    tamper(path, "UPDATE durable_entries SET payload = CAST('\"forged\"' AS BLOB)")
    asyncio.run(main())


@pytest.mark.parametrize("instant", [2**62, -(2**62)])
def test_a_run_of_no_time_that_there_is_cannot_be_shown(tmp_path: Path, instant: int) -> None:
    path = tmp_path / "j.db"

    async def main() -> None:
        tamper(path, f"UPDATE durable_runs SET created_at = {instant}")
        async with Engine(path, drive=False) as client:
            with pytest.raises(JournalDamaged, match=r"what is stored cannot be shown .*engine\.verify"):
                await client.run("a").info()

    start(path, "a")
    asyncio.run(main())


def test_an_error_that_cannot_be_read_is_told_as_what_it_is(tmp_path: Path) -> None:
    path = tmp_path / "j.db"

    async def main() -> None:
        tamper(
            path,
            "UPDATE durable_runs SET state = 'parked', reason = 'error', ended_at = 9, due_at = NULL, "
            "result = CAST('no JSON' AS BLOB)",
        )
        async with Engine(path, drive=False) as client:
            with pytest.raises(Undecodable, match="a stored error cannot be read"):
                await client.run("a").info()

    start(path, "a")
    asyncio.run(main())


def test_a_result_that_is_not_what_was_written_is_given_to_nobody(tmp_path: Path) -> None:
    path = tmp_path / "j.db"

    async def main() -> None:
        async with Engine(path, workflows=[flow]) as engine:
            await engine.run("a").signal(Go(by=3))
            assert await engine.run("a").result(timeout=20) == "a 1, a 2, 3"
        tamper(path, "UPDATE durable_runs SET result = CAST('\"forged\"' AS BLOB)")
        async with Engine(path, workflows=[flow]) as engine:
            with pytest.raises(JournalDamaged, match="not to be relied on"):
                await engine.run("a").result(timeout=20)

    start(path, "a")
    asyncio.run(main())


def test_an_engine_that_drives_nothing_can_verify(tmp_path: Path) -> None:
    path = tmp_path / "j.db"

    async def main() -> Sequence[Any]:
        async with Engine(path, drive=False) as engine:
            found = await engine.verify()
            assert found.runs == 2
            assert found.rows > 4
            return found.findings

    start(path, *"ab")
    assert asyncio.run(main()) == ()
    tamper(path, f"UPDATE durable_entries SET seq = 2 WHERE run = {NUMBER.format('b')}")
    (finding,) = asyncio.run(main())
    assert (finding.kind, finding.run, finding.key) == (FindingKind.ENTRY, "b", "damage.note#1")
    assert "b: its entry damage.note#1" in str(finding)


def test_verifying_holds_up_nobody(tmp_path: Path) -> None:
    async def main() -> None:
        async with Engine(tmp_path / "j.db", workflows=[flow]) as engine:
            runs = [await flow.options(id=name).start(name) for name in "abcdef"]
            checks = [asyncio.create_task(engine.verify()) for _ in range(5)]
            for run in runs:
                await run.signal(Go(by=1))
            assert len([await run.result(timeout=20) for run in runs]) == 6
            assert [(await check).ok for check in checks] == [True] * 5

    asyncio.run(main())


def test_a_body_cannot_verify() -> None:
    async def main() -> None:
        async with Engine(":memory:") as engine:

            @workflow(name="damage.asks")
            async def asks() -> None:
                await engine.verify()

            with pytest.raises(RunFailed) as failed:
                await (await asks.start()).result(timeout=20)
            assert failed.value.record is not None
            assert failed.value.record.is_a(NotDurable)

    asyncio.run(main())

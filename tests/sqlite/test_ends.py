"""Ends of programs, tried in programs of their own: kills at each failpoint, and exits without a close."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from durable_sqlite._sqlite import SqliteJournal
from tests.support.house import environment

KILLED = """
import asyncio, os, signal, sys
from durable_sqlite._records import IfExists, State
from durable_sqlite._sqlite import SqliteJournal
from tests.support.journals import begin, entry, new_run

path, where, hits = sys.argv[1], sys.argv[2], int(sys.argv[3])

def failpoint(name):
    global hits
    if name == where:
        hits -= 1
        if not hits:
            os.kill(os.getpid(), signal.SIGKILL)

async def main():
    journal = SqliteJournal(path, failpoint=failpoint, checkpoint_bytes=50_000)
    await journal.open("victim", 1)
    _, hold = await begin(journal)
    print("started", flush=True)
    for seq in range(1, 80):
        await journal.record(hold, entry(f"s#{seq}", seq=seq, payload=bytes(2000)))
        print(seq, flush=True)
    await journal.close(90)
    print("closed", flush=True)

asyncio.run(main())
"""


def program(source: str, *arguments: str | Path, flags: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *flags, "-c", source, *map(str, arguments)]
    return subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(
    ("where", "hits"),
    [
        ("open.created", 1),
        ("migrate.before_commit", 1),
        ("migrate.after_commit", 1),
        ("commit.before", 1),
        ("commit.after", 1),
        ("commit.before", 7),
        ("commit.after", 7),
        ("checkpoint.before", 2),
        ("checkpoint.after", 2),
        ("close.before_release", 1),
        ("close.after_release", 1),
    ],
)
def test_a_kill_at_any_place_leaves_what_was_acknowledged(tmp_path: Path, where: str, hits: int) -> None:
    killed = program(KILLED, tmp_path / "j.db", where, str(hits))
    assert killed.returncode == -9, killed.stderr
    acknowledged = [int(line) for line in killed.stdout.split() if line.isdigit()]

    async def main() -> None:
        journal = SqliteJournal(tmp_path / "j.db")
        await journal.open("next", 100)
        dead = [each.no for each in await journal.workers()]
        freed = await journal.take_over(dead, 5, b"{}", 101)
        run = await journal.run("a")
        assert (run is not None) or "started" not in killed.stdout
        if run is not None:
            stored = [each.seq for each in await journal.entries(run.no)]
            assert stored in (acknowledged, [*acknowledged, len(acknowledged) + 1])
            assert len(freed) == (0 if where == "close.after_release" else 1)
            assert len(await journal.claim(["ship"], 102, 9, suspects=False)) == 1
        await journal.close(103)

    asyncio.run(main())


RACE = """
import asyncio, sys
from durable_sqlite._records import IfExists
from durable_sqlite._sqlite import SqliteJournal
from tests.support.journals import new_run

async def main():
    journal = SqliteJournal(sys.argv[1])
    await asyncio.to_thread(sys.stdin.readline)
    await journal.open(sys.argv[2], 1)
    started = await journal.start(new_run(), IfExists.ATTACH, drive=False)
    print("created" if started.created else "attached")
    await journal.close(2)

print("ready", flush=True)
asyncio.run(main())
"""


def _go(racer: subprocess.Popen[str]) -> str:
    return racer.communicate("go\n", timeout=60)[0].strip()


@pytest.mark.parametrize("races", [2, pytest.param(20, marks=pytest.mark.thorough)])
def test_processes_that_create_one_journal_at_once_all_succeed(tmp_path: Path, races: int) -> None:
    for attempt in range(races):
        racers = [
            subprocess.Popen(
                [sys.executable, "-c", RACE, str(tmp_path / f"{attempt}.db"), f"racer-{number}"],
                env=environment(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for number in range(3)
        ]
        for racer in racers:
            assert racer.stdout is not None
            assert racer.stdout.readline() == "ready\n"
        with ThreadPoolExecutor(len(racers)) as pool:
            told = sorted(pool.map(_go, racers))
        assert told == ["attached", "attached", "created"]
        assert [racer.returncode for racer in racers] == [0, 0, 0]


FORGOTTEN = """
import asyncio, sys, threading
from durable_sqlite._sqlite import SqliteJournal
from tests.support.journals import begin, entry

journal = SqliteJournal(sys.argv[1])

async def main(after=lambda: None):
    await journal.open("forgetful", 1)
    _, hold = await begin(journal)
    journal.record(hold, entry())
    after()

"""

ENDS = {
    "asyncio.run": "asyncio.run(main())",
    "a loop that is left behind": (
        "loop = asyncio.new_event_loop(); asyncio.set_event_loop(loop); loop.run_until_complete(main())"
    ),
    "sys.exit": "asyncio.run(main(sys.exit))",
    "an exception": "asyncio.run(main(lambda: 1 / 0))",
    "a thread": (
        "opened = threading.Event()\n"
        "threading.Thread(target=asyncio.run, args=(main(opened.set),)).start(); opened.wait()"
    ),
    "a daemon thread": "t = threading.Thread(target=asyncio.run, args=(main(),), daemon=True); t.start(); t.join()",
    "stop outside the loop": (
        "loop = asyncio.new_event_loop(); loop.run_until_complete(main()); journal.stop()\n"
        "loop.run_until_complete(asyncio.wait([journal._life])); loop.close()"
    ),
}


@pytest.mark.parametrize("end", list(ENDS))
def test_an_interpreter_exits_though_the_journal_was_never_closed(tmp_path: Path, end: str) -> None:
    done = program(FORGOTTEN + ENDS[end], tmp_path / "j.db")
    assert done.returncode == (1 if end == "an exception" else 0), done.stderr
    if end == "an exception":
        assert "ZeroDivisionError" in done.stderr
    elif "loop" not in end or "stop" in end:
        assert done.stderr == ""

    async def main() -> None:
        journal = SqliteJournal(tmp_path / "j.db")
        await journal.open("next", 2)
        run = await journal.run("a")
        assert run is not None
        assert [each.key for each in await journal.entries(run.no)] == ["s#1"]
        await journal.close(3)

    asyncio.run(main())


def test_an_orderly_close_is_silent_even_to_a_strict_interpreter(tmp_path: Path) -> None:
    source = FORGOTTEN + "async def orderly():\n    await main()\n    await journal.close(9)\nasyncio.run(orderly())\n"
    done = program(source, tmp_path / "j.db", flags=("-X", "dev", "-W", "error"))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")

"""Looking at a large journal costs little more than Python, argparse, sqlite3 and the query itself."""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.cli.journals import made
from tests.cli.support import environment

RUNS, ENTRIES, ROUNDS = 100_000, 10, 15

_BARE_LIST = """
import argparse, sqlite3
parser = argparse.ArgumentParser()
parser.add_argument("--db")
parser.add_argument("--limit", type=int, default=20)
options = parser.parse_args()
connection = sqlite3.connect(f"file:{options.db}?mode=ro&immutable=1", uri=True)
query = "SELECT id, workflow, state, updated_at, reason, status FROM durable_runs ORDER BY no DESC LIMIT ?"
for row in connection.execute(query, (options.limit,)).fetchall():
    print("  ".join(map(str, row)))
"""
_BARE_SHOW = """
import argparse, sqlite3
parser = argparse.ArgumentParser()
parser.add_argument("run")
parser.add_argument("--db")
options = parser.parse_args()
connection = sqlite3.connect(f"file:{options.db}?mode=ro&immutable=1", uri=True)
query = "SELECT no, id, workflow, state, reason, created_at, ended_at, input, result FROM durable_runs WHERE id = ?"
[run] = connection.execute(query, (options.run,)).fetchall()
print("  ".join(map(str, run)))
query = "SELECT seq, key, kind, outcome, started_at, recorded_at, payload FROM durable_entries WHERE run = ? ORDER BY seq"
for row in connection.execute(query, (run[0],)).fetchall():
    print("  ".join(map(str, row)))
for table in ("attempts", "waits", "signals", "questions"):
    print(connection.execute(f"SELECT * FROM durable_{table} WHERE run = ?", (run[0],)).fetchall())
"""


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A journal of a hundred thousand runs and a million entries."""
    path = tmp_path_factory.mktemp("large") / "large.db"
    with made(path) as make:
        base = {"n": RUNS, "e": ENTRIES, "now": make.now}
        make.connection.execute(
            """
            WITH RECURSIVE c (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < :n)
            INSERT INTO durable_runs (
                id, uid, workflow, origin, version, state, input_digest, created_at, updated_at, ended_at, input, result, changed)
            SELECT
                printf('run-%06d', n), 'u', 'w' || n % 7, 'shop:w', '',
                CASE n % 10 WHEN 0 THEN 'suspended' ELSE 'completed' END, x'', :now - 60000000 * (:n - n), :now,
                CASE n % 10 WHEN 0 THEN NULL ELSE :now END, x'7b226e616d65223a226120746561706f74227d',
                CASE n % 10 WHEN 0 THEN NULL ELSE x'31' END, n
            FROM c
            """,
            base,
        )
        make.connection.execute(
            """
            WITH RECURSIVE c (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < :e)
            INSERT INTO durable_entries (
                run, key, seq, kind, name, digest, outcome, asked, started_at, recorded_at, attempts, payload)
            SELECT no, 'step#' || n, n, 'step', 'step', x'', 'value', n - 1, :now, :now, 1, x'31' FROM durable_runs, c
            """,
            base,
        )
        make.connection.execute(
            "INSERT INTO durable_waits (run, key, kind, name, since_at) SELECT no, 'Paid#1', 'signal', 'Paid', 1"
            " FROM durable_runs WHERE state = 'suspended'"
        )
    return path


# What an installed `durable_sqlite` runs.
_SCRIPT = "import sys; from durable_sqlite.cli import main; sys.exit(main())"


def _tell(words: str) -> None:
    sys.stdout.write(f"\n{words}\n")


def _seconds(command: Sequence[str], folder: Path) -> float:
    """Processor time of one process whose modules were compiled before: what else the machine does is not counted."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        command,
        cwd=folder,
        env=environment(),
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        timeout=60,
        check=True,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("words", "bare"),
    [
        (["list"], [_BARE_LIST]),
        (["show", "run-050000"], [_BARE_SHOW, "run-050000"]),
    ],
    ids=["list", "show"],
)
def test_list_and_show_take_at_most_twice_the_time_of_bare_python(
    large: Path, words: list[str], bare: list[str]
) -> None:
    ours = [sys.executable, "-c", _SCRIPT, *words, "--db", str(large)]
    theirs = [sys.executable, "-c", *bare, "--db", str(large)]
    pairs = [(_seconds(ours, large.parent), _seconds(theirs, large.parent)) for _ in range(ROUNDS)]
    mine, plain = min(pair[0] for pair in pairs), min(pair[1] for pair in pairs)
    _tell(f"{' '.join(words)}: {mine * 1000:.0f} ms, bare Python {plain * 1000:.0f} ms, {mine / plain:.2f} times")
    assert mine <= 2 * plain


@pytest.mark.thorough
@pytest.mark.parametrize(
    "words",
    [
        ["list", "--limit", "1000"],
        ["list", "--status", "suspended"],
        ["list", "--status", "completed"],
        ["list", "--workflow", "w3"],
        ["list", "--since", "1h"],
        ["show", "050000"],
        ["why", "run-050000"],
        ["timeline", "run-050000"],
        ["stats"],
        ["doctor", "--quick"],
    ],
    ids=" ".join,
)
def test_other_looks_at_a_large_journal_are_told(large: Path, words: list[str]) -> None:
    command = [sys.executable, "-c", _SCRIPT, *words, "--db", str(large)]
    _tell(f"{' '.join(words)}: {min(_seconds(command, large.parent) for _ in range(3)) * 1000:.0f} ms")

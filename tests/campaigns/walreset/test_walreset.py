"""A bounded part of the campaign; the whole of it is `python -m tests.campaigns walreset`."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from .campaign import Told, play, problems
from .duel import duel

pytestmark = pytest.mark.campaign


def test_thousands_of_commits_beside_checkpoints_damage_nothing() -> None:
    tally = play(range(5))
    assert tally.problems == []
    assert tally.commits == 5 * 3 * 400
    assert tally.checkpoints > 1_000


def test_a_duel_of_a_commit_and_a_checkpoint_damages_nothing(tmp_path: Path) -> None:
    """With PASSIVE checkpoints and a mapped file, the builds concerned are damaged within a few of these rounds."""
    rounds, commits, trouble = duel(tmp_path / "j.db", 40, careless=False)
    assert trouble == []
    assert rounds == 40
    assert commits > rounds


def test_what_is_missing_or_damaged_is_seen(tmp_path: Path) -> None:
    """The judge is judged as well."""
    path = tmp_path / "j.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(
            "CREATE TABLE durable_runs (no, id); CREATE TABLE durable_entries (run, key, payload);"
            "INSERT INTO durable_runs VALUES (1, 'run-0');"
            "INSERT INTO durable_entries VALUES (1, 's#1', x'0101'), (1, 's#2', x'02');"
        )
    assert problems(path, [Told("run-0", {"s#1": 2, "s#2": 1}, 0)]) == []
    assert len(problems(path, [Told("run-0", {"s#1": 1, "s#2": 1, "s#3": 1}, 0)])) == 2
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(bytes(range(256)) * 16)
    assert problems(path, [Told("run-0", {}, 0)])

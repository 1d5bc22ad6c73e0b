"""What a forked child is told of the journals of its parent: here the child's part is played by the process itself.

That it is so between real processes is proved in `tests/behaviour/test_forks.py`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Generator
from contextlib import closing
from pathlib import Path

import pytest

from durable_sqlite._context import Nowhere
from durable_sqlite._sqlite import estate
from durable_sqlite._sqlite.estate import Estate, Gate, settle
from durable_sqlite.errors import JournalError


class Owner:
    """What has an estate."""


class Lent(sqlite3.Connection):
    """A connection that the application uses."""


class Family:
    """An opening of a journal whose process forks, and what the child has of it."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.path = path
        self.owner = Owner()
        self.connection = sqlite3.connect(path, isolation_level=None)
        self.connection.execute("PRAGMA journal_mode = WAL").fetchall()
        self.connection.execute("CREATE TABLE kept (n)")
        self.estate = Estate(str(path), self.owner)
        self.gate = self.estate.gate()
        self.gate.connection = self.connection
        self.pinned: list[object] = []
        monkeypatch.setattr(estate, "pin", self.pinned.append)
        self.nowhere = Nowhere()
        """What is known in the child, and forgotten after the test."""
        monkeypatch.setattr(estate, "NOWHERE", self.nowhere)

    def fork(self, *, seen: bool = True) -> None:
        """Become the child; `seen`: by a fork that was seen to come."""
        if seen:
            self.estate._before()
        self.estate._in_child()

    def lives(self) -> bool:
        """Whether the connection is open still."""
        try:
            self.connection.execute("SELECT 1")
        except sqlite3.ProgrammingError:
            return False
        return True


@pytest.fixture
def family(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[Family]:
    family = Family(tmp_path / "j.db", monkeypatch)
    yield family
    family.connection.close()


def test_a_child_keeps_all_that_it_has_inherited_and_closes_nothing_by_itself(family: Family) -> None:
    with closing(Lent(family.path)) as lent:
        lent.close()
        family.estate.lend(lent)
        family.fork()
        assert family.estate.inherited
        assert family.pinned == [family.estate, family.owner, family.connection, lent]
        assert family.lives()


def test_a_child_that_opens_the_file_closes_what_it_has_inherited_of_it_first(family: Family) -> None:
    family.fork()
    settle(str(family.path))
    assert not family.lives()
    assert family.nowhere.legacies == []
    settle(str(family.path))  # nothing is left to put away


def test_a_file_that_was_inherited_is_known_under_another_name_too(family: Family) -> None:
    family.fork()
    other = family.path.with_name("other.db")
    other.symlink_to(family.path)
    # Under it SQLite would find the same files.
    for end in ("-wal", "-shm"):
        Path(f"{other}{end}").symlink_to(f"{family.path}{end}")
    settle(str(other))
    assert not family.lives()


def test_another_file_may_be_opened_and_nothing_is_touched(family: Family, tmp_path: Path) -> None:
    family.fork()
    (tmp_path / "another.db").touch()
    settle(str(tmp_path / "another.db"))
    settle(str(tmp_path / "not there.db"))
    assert family.lives()
    assert len(family.nowhere.legacies) == 1


@pytest.mark.parametrize("how", ["unseen", "lent", "opening", "in use", "replaced", "closed"])
def test_a_child_is_refused_where_it_cannot_put_away_what_it_has_inherited(family: Family, how: str) -> None:
    with closing(Lent(family.path)) as lent:
        if how == "lent":
            family.estate.lend(lent)
        family.estate.opening = how == "opening"
        if how == "in use":
            with family.gate:
                family.fork()
        else:
            family.fork(seen=how != "unseen")
        if how == "replaced":
            family.path.rename(family.path.with_name("away.db"))
            family.path.touch()
        elif how == "closed":
            Path(f"{family.path}-wal").unlink()
        with pytest.raises(JournalError, match="forked"):
            settle(str(family.path))
        assert family.lives()
        assert len(family.nowhere.legacies) == 1


def test_a_journal_in_memory_leaves_a_child_nothing_to_put_away(monkeypatch: pytest.MonkeyPatch) -> None:
    nowhere = Nowhere()
    monkeypatch.setattr(estate, "NOWHERE", nowhere)
    pinned: list[object] = []
    monkeypatch.setattr(estate, "pin", pinned.append)
    owner = Owner()
    mine = Estate(None, owner)
    mine._before()
    mine._in_child()
    assert pinned == [mine, owner]
    assert nowhere.legacies == []


def test_the_child_of_a_child_inherits_nothing_for_the_second_time(family: Family) -> None:
    family.fork()
    family.pinned.clear()
    family.fork()
    assert family.pinned == []
    assert len(family.nowhere.legacies) == 1


def test_nobody_forks_while_a_thread_is_inside_sqlite_and_it_may_go_on_afterwards(family: Family) -> None:
    family.estate._before()
    assert family.gate._lock.locked()
    family.estate._after()
    with family.gate:
        assert not family.gate.shut(), "it is this very thread"
    family.estate._after()  # of a fork that began before there was anything to see
    assert not family.gate._lock.locked()


def test_a_gate_without_a_connection_holds_up_no_fork(family: Family) -> None:
    idle: Gate = family.estate.gate()
    family.estate._before()
    assert not idle._lock.locked()
    family.estate._after()

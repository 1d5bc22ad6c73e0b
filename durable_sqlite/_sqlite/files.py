"""Notices that the journal's files were moved, replaced or deleted while they are open.

Whatever is written into a file that has no name any more is lost, and SQLite does not say so. `stat` is harmless;
opening one of these files and closing it again would drop SQLite's locks.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from ..errors import JournalGone

__all__ = ["Files", "written_at"]

_LOOK_EVERY = 64
"""Operations after which the WAL is looked at in any case."""

_COARSEST = 2.1
"""Seconds within which two changes of a folder may carry one time: file systems count in steps of up to two seconds."""


class Files:
    """The three files of a journal, as they were when it was opened.

    The WAL is looked at only where something may have changed in its folder, and now and then: on file systems with fine
    timestamps each look makes the next write to it dearer by a fifth. A file that is taken away changes the time of its
    folder, but perhaps to the one that it had already, where something else has changed a moment before. So after each
    change the WAL is looked at until the time cannot be the same any more.

    Args:
        path: The journal's file.
        now: Seconds on a clock that never goes back.
    """

    def __init__(self, path: str, now: Callable[[], float]) -> None:
        self._path = path
        self._now = now
        self._often = (str(Path(path).parent), path, f"{path}-shm")
        self._wal = f"{path}-wal"
        self._folder_at = 0
        self._sure_at = 0.0
        """From when on the folder's time tells of all changes."""
        self._looked_at = 0.0
        self._identity: tuple[int, ...] = ()
        self._wal_identity: tuple[int, ...] = ()
        self._unseen = 0
        self.wal_size = 0
        """Bytes of the WAL when it was last looked at."""

    def remember(self) -> None:
        """Take the files as they are now for the right ones."""
        self._identity = self._look()
        self._wal_identity = self._look_at_wal()

    def check(self, operations: int, *, closely: bool = False) -> None:
        """See that the files are still the same.

        Args:
            operations: How many are about to be committed.
            closely: Look at the WAL in any case.

        Raises:
            JournalGone: They are not.
            OSError: They cannot be looked at now.
        """
        self._unseen += operations
        try:
            same = self._look() == self._identity
            if same and (closely or self._unseen >= _LOOK_EVERY or self._looked_at < self._sure_at):
                same = self._look_at_wal() == self._wal_identity
        except (FileNotFoundError, NotADirectoryError):
            same = False
        if not same:
            raise self._gone()

    def verify(self) -> None:
        """See that all three are still the same, from any thread.

        Raises:
            JournalGone: They are not.
            OSError: They cannot be looked at now.
        """
        try:
            now = [(found.st_dev, found.st_ino) for found in map(os.stat, (self._path, f"{self._path}-shm", self._wal))]
        except (FileNotFoundError, NotADirectoryError):
            now = []
        if [number for pair in now for number in pair] != [*self._identity, *self._wal_identity]:
            raise self._gone()

    def _gone(self) -> JournalGone:
        return JournalGone(
            f"{self._path} or its WAL was moved, replaced or deleted while it was open: the engine has stopped, and nothing "
            "more is written. A call that was not acknowledged may be lost. See what took the files away, put them back, and "
            "start again; runs go on from the last commit that is in them"
        )

    def _look(self) -> tuple[int, ...]:
        folder, database, memory = map(os.stat, self._often)
        # Not the time of modification, which whoever copies folders puts back.
        if folder.st_ctime_ns != self._folder_at:
            self._folder_at = folder.st_ctime_ns
            self._sure_at = self._now() + _COARSEST
        return database.st_dev, database.st_ino, memory.st_dev, memory.st_ino

    def _look_at_wal(self) -> tuple[int, ...]:
        now = self._now()  # before the look: what changes after it may not be seen by it
        wal = os.stat(self._wal)  # noqa: PTH116 - beside a commit: Path.stat() costs as much again
        self._looked_at = now
        self._unseen = 0
        self.wal_size = wal.st_size
        return wal.st_dev, wal.st_ino


def written_at(path: str) -> tuple[int, int]:
    """What changes when somebody writes into the WAL of this journal, unless it was written a moment before.

    Raises:
        OSError: It cannot be looked at.
    """
    wal = os.stat(f"{path}-wal")  # noqa: PTH116 - many times a second: Path.stat() costs as much again
    return wal.st_size, wal.st_mtime_ns

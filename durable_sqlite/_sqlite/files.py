"""Notices that the journal's files were moved, replaced or deleted while they are open.

Whatever is written into a file that has no name any more is lost, and SQLite does not say so. `stat` is harmless;
opening one of these files and closing it again would drop SQLite's locks.
"""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import JournalError
from .patience import LOGGER

__all__ = ["Files"]

_LOOK_EVERY = 64
"""Operations after which the WAL is looked at in any case."""


class Files:
    """The three files of a journal, as they were when it was opened.

    The WAL is looked at only where something changed in its folder, and now and then: on file systems with fine
    timestamps each look makes the next write to it dearer by a fifth.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._often = (str(Path(path).parent), path, f"{path}-shm")
        self._wal = f"{path}-wal"
        self._folder_at = 0
        self._identity: tuple[int, ...] = ()
        self._wal_identity: tuple[int, ...] = ()
        self._unseen = 0
        self._told = False
        self.wal_size = 0
        """Bytes of the WAL when it was last looked at."""

    def remember(self) -> None:
        """Take the files as they are now for the right ones."""
        self._identity = self._look()
        self._wal_identity = self._look_at_wal()

    def check(self, operations: int) -> None:
        """See, before a commit, that the files are still the same.

        Raises:
            JournalError: They are not.
        """
        self._unseen += operations
        folder_at = self._folder_at
        try:
            same = self._look() == self._identity
            if same and (self._unseen >= _LOOK_EVERY or self._folder_at != folder_at):
                same = self._look_at_wal() == self._wal_identity
        except FileNotFoundError:
            same = False
        if not same:
            # Look again next time, or a WAL that was found missing would be missed then.
            self._folder_at = 0
            told = f"{self._path} or its WAL was moved, replaced or deleted while it was open"
            if not self._told:
                self._told = True
                LOGGER.critical("%s; nothing more is written", told)
            raise JournalError(f"{told}: nothing was written. Put the files back or start again")

    def _look(self) -> tuple[int, ...]:
        folder, database, memory = map(os.stat, self._often)
        self._folder_at = folder.st_mtime_ns
        return database.st_dev, database.st_ino, memory.st_dev, memory.st_ino

    def _look_at_wal(self) -> tuple[int, ...]:
        wal = os.stat(self._wal)  # noqa: PTH116 - beside a commit: Path.stat() costs as much again
        self._unseen = 0
        self.wal_size = wal.st_size
        return wal.st_dev, wal.st_ino

"""The high-water mark: the number of the last commit, in a small file beside the journal.

SQLite leaves out the end of a WAL that does not fit its checksums, and says nothing. The mark says it: while it is there, a
journal that went back is noticed when it is opened. It is written after each commit and never synced, so it costs a few
microseconds; a commit is on the disk before its number is, so it never says too much, unless `synchronous=normal` let a power
cut take commits back.

Each slot stands for itself: which journal, which worker, which commit, and a checksum over that. A slot that was torn, or
damaged, says nothing.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2b
from weakref import finalize

from .patience import LOGGER

__all__ = ["Mark", "Seen", "glance", "mark_file"]

_SLOTS = 64
_SAID = struct.Struct("<8sqq")
_SIZE = _SAID.size + 8


def mark_file(journal: str) -> str:
    """Where the mark of a journal is: beside it, named after it."""
    return f"{journal}-mark"


@dataclass(frozen=True, slots=True)
class Seen:
    """What the mark said when the journal was opened.

    Args:
        latest: The largest number of a commit to this journal; 0 where there is none.
        strangers: The identities of other journals that the mark speaks of.
    """

    latest: int
    strangers: tuple[str, ...]


class Mark:
    """The mark of one journal, kept open by one worker.

    Args:
        path: The mark's file, created for its owner alone if it is not there. It is never opened through SQLite.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._descriptor: int | None = _open(path)
        self._shut = finalize(self, os.close, self._descriptor)
        self._shut.atexit = False
        self._identity = b""
        self._worker = 0
        self._failed = False

    def look(self, identity: str) -> Seen:
        """What it says, of the journal with this identity and of others.

        Raises:
            OSError: It cannot be read.
        """
        assert self._descriptor is not None
        return _seen(_slots(self._descriptor), identity)

    def take(self, identity: str, worker: int) -> None:
        """Write for this worker of this journal from now on, and wipe out what is said of other journals.

        Workers are numbered, so those that live together have slots of their own.
        """
        assert self._descriptor is not None
        self._identity = bytes.fromhex(identity)
        self._worker = worker
        for number, slot in enumerate(_slots(self._descriptor)):
            said = _read(slot)
            if said is not None and said[0] != self._identity:
                os.pwrite(self._descriptor, bytes(_SIZE), number * _SIZE)

    def write(self, latest: int) -> None:
        """Say that this commit is done. It never raises: a mark that cannot be written is told of, once."""
        if self._descriptor is None:
            return
        said = _SAID.pack(self._identity, self._worker, latest)
        slot = said + blake2b(said, digest_size=8).digest()
        try:
            os.pwrite(self._descriptor, slot, self._worker % _SLOTS * _SIZE)
        except OSError as error:
            if not self._failed:
                self._failed = True
                LOGGER.warning(
                    "%s cannot be written (%s): until it can, commits that get lost may not be noticed",
                    self._path,
                    error,
                )
        else:
            self._failed = False

    def said(self) -> bytes:
        """All that is said: it differs once anybody has said something new.

        Raises:
            OSError: It cannot be read.
        """
        return b"" if self._descriptor is None else os.pread(self._descriptor, _SLOTS * _SIZE, 0)

    def close(self) -> None:
        """Let the file go. It stays where it is: what it says is for whoever opens the journal next."""
        self._descriptor = None
        self._shut()


def _open(path: str) -> int:
    """Open a mark so that reading it writes nothing, where that is allowed: it is read on the event loop, many times a second."""
    flags = os.O_CREAT | os.O_RDWR | os.O_CLOEXEC
    try:
        return os.open(path, flags | getattr(os, "O_NOATIME", 0), 0o600)
    except PermissionError:  # it is another user's
        return os.open(path, flags, 0o600)


def glance(path: str, identity: str) -> Seen | None:
    """What a mark says, for somebody who does not keep it; None where there is none.

    Raises:
        OSError: It cannot be read.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe of that name is not waited for
    except FileNotFoundError:
        return None
    try:
        return _seen(_slots(descriptor), identity)
    finally:
        os.close(descriptor)


def _slots(descriptor: int) -> list[bytes]:
    data = os.pread(descriptor, _SLOTS * _SIZE, 0)
    return [data[at : at + _SIZE] for at in range(0, len(data), _SIZE)]


def _seen(slots: Iterable[bytes], identity: str) -> Seen:
    own, latest, strangers = bytes.fromhex(identity), 0, set[str]()
    for slot in slots:
        said = _read(slot)
        if said is None:
            continue
        journal, number = said
        if journal == own:
            latest = max(latest, number)
        else:
            strangers.add(journal.hex())
    return Seen(latest, tuple(sorted(strangers)))


def _read(slot: bytes) -> tuple[bytes, int] | None:
    """The journal and the commit that a slot speaks of, where it can be read."""
    said = slot[: _SAID.size]
    if len(slot) < _SIZE or blake2b(said, digest_size=8).digest() != slot[_SAID.size :]:
        return None
    journal, _worker, latest = _SAID.unpack(said)
    return journal, latest

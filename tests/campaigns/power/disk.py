"""A disk that plays a tape, and what a power cut may leave of it.

What may be lost is what POSIX lets a system lose, which is more than most systems do:

* Of what was written to a file since its last sync, any part may be there: each sector of 512 or 4,096 bytes, or each write,
  on its own, in any order, changes of size like writes.
* A file may have grown while what was written there is missing: then zeros are there, or anything.
* Of each name in the folder, any state since the folder's last sync may be there: a file that was made is missing, one that
  was removed is back, with what it held.

What is not lost, since SQLite itself relies on it: a sector is old or new, never a mixture, and bytes beside those that are
written stay as they are ("powersafe overwrite"); what a sync said to be on the disk is there.
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

from .tape import FolderSync, Link, Op, Said, Sync, Tape, Truncate, Unlink, Write

__all__ = ["Disk"]

_SECTORS = (512, 4096)
_GROWS_EMPTY = 0.25
"""How often a file has grown without what was written there."""

_OLD_MEMORY = 0.125
"""How often the file of the shared memory is left, with anything in it: it is no part of the tape, and must not matter."""

_Change = Write | Truncate


class Disk:
    """What is on the disk for certain at some place of a tape, and what may be."""

    def __init__(self, tape: Tape) -> None:
        self._ops: list[Op] = tape.ops
        self.at = 0
        """How many operations are over."""
        self._kept = {number: bytearray(tape.start[name]) for name, number in tape.numbers.items()}
        self._pending: dict[int, list[tuple[int, _Change]]] = {number: [] for number in self._kept}
        self._names: dict[str, int] = dict(tape.numbers)
        """The names that are there for certain."""
        self._renamed: list[tuple[int, Link | Unlink]] = []

    def play(self, to: int) -> None:
        """Go on to that place of the tape."""
        for index in range(self.at, to):
            match self._ops[index]:
                case Write() | Truncate() as change:
                    self._pending[change.file].append((index, change))
                case Sync(file, upto):
                    self._sync(file, upto)
                case Link(_, file) as op:
                    self._kept[file], self._pending[file] = bytearray(), []
                    self._renamed.append((index, op))
                case Unlink() as op:
                    self._renamed.append((index, op))
                case FolderSync(upto):
                    for when, op in self._renamed:
                        if when < upto:
                            _rename(self._names, op)
                    self._renamed = [(when, op) for when, op in self._renamed if when >= upto]
                case Said():
                    pass
        self.at = to

    def _sync(self, file: int, upto: int) -> None:
        kept = self._kept[file]
        for when, change in self._pending[file]:
            if when < upto:
                _apply(kept, change)
        self._pending[file] = [(when, change) for when, change in self._pending[file] if when >= upto]

    def as_it_is(self) -> dict[str, bytes]:
        """The files as whoever reads them now sees them: nothing is lost."""
        names = dict(self._names)
        for _, op in self._renamed:
            _rename(names, op)
        return {name: bytes(self._all(file)) for name, file in names.items()}

    def _all(self, file: int) -> bytearray:
        data = bytearray(self._kept[file])
        for _, change in self._pending[file]:
            _apply(data, change)
        return data

    def cut(self, chance: Random) -> dict[str, bytes]:
        """The files that a power cut leaves if it comes here; by chance."""
        names = self._names_left(chance)
        sector = chance.choice(_SECTORS)
        left = {name: bytes(self._left(file, sector, chance)) for name, file in names.items()}
        for wal in [name for name in left if name.endswith("-wal") and chance.random() < _OLD_MEMORY]:
            size = chance.choice((0, 100, 32768, 65536))
            left[wal.removesuffix("-wal") + "-shm"] = bytes(size) if chance.random() < 0.5 else chance.randbytes(size)
        return left

    def _names_left(self, chance: Random) -> dict[str, int]:
        names = dict(self._names)
        how = chance.random()
        if how < 0.25:
            return names
        if how < 0.5:
            for _, op in self._renamed[: chance.randint(0, len(self._renamed))]:
                _rename(names, op)
            return names
        for name in sorted({op.name for _, op in self._renamed}):
            of_it = [op for _, op in self._renamed if op.name == name]
            for op in of_it[: chance.randint(0, len(of_it))]:
                _rename(names, op)
        return names

    def _left(self, file: int, sector: int, chance: Random) -> bytearray:
        data = bytearray(self._kept[file])
        pending = [change for _, change in self._pending[file]]
        if not pending:
            return data
        for change in _some(pending, sector, chance):
            _apply(data, change)
        end = max((change.at + len(change.data) for change in pending if isinstance(change, Write)), default=0)
        if end > len(data) and chance.random() < _GROWS_EMPTY:
            grown = chance.randint(len(data), end) - len(data)
            data.extend(bytes(grown) if chance.random() < 0.5 else chance.randbytes(grown))
        return data


def _some(pending: list[_Change], sector: int, chance: Random) -> list[_Change]:
    """Which changes reach the disk, and in which order."""
    match chance.choice(("none", "all", "first", "first torn", "some", "some torn", "reordered", "reordered torn")):
        case "none":
            return []
        case "all":
            return pending
        case "first":
            return pending[: chance.randint(0, len(pending))]
        case "first torn":
            *whole, last = pending[: chance.randint(1, len(pending))]
            return [*whole, *(piece for piece in _pieces(last, sector) if chance.random() < 0.5)]
        case "some":
            return [change for change in pending if chance.random() < 0.5]
        case how:
            pieces = [piece for change in pending for piece in (_pieces(change, sector) if "torn" in how else [change])]
            likely = chance.choice((0.1, 0.5, 0.9))
            pieces = [piece for piece in pieces if chance.random() < likely]
            if "reordered" in how:
                chance.shuffle(pieces)
            return pieces


def _pieces(change: _Change, sector: int) -> Iterator[_Change]:
    """A write, sector by sector of the disk."""
    if isinstance(change, Truncate):
        yield change
        return
    at, end = change.at, change.at + len(change.data)
    while at < end:
        upto = min(end, at - at % sector + sector)
        yield Write(change.file, at, change.data[at - change.at : upto - change.at])
        at = upto


def _apply(data: bytearray, change: _Change) -> None:
    match change:
        case Write(_, at, new):
            if len(data) < at:
                data.extend(bytes(at - len(data)))
            data[at : at + len(new)] = new
        case Truncate(_, size):
            del data[size:]
            data.extend(bytes(size - len(data)))


def _rename(names: dict[str, int], op: Link | Unlink) -> None:
    if isinstance(op, Link):
        names[op.name] = op.file
    else:
        names.pop(op.name, None)

"""What may happen to the files of a journal while nobody looks."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random

__all__ = ["DAMAGES", "Damage"]

Damage = Callable[[Path, Path, Random], str]
"""Does something to a copy of the journal that lies in the first folder; the second holds what else there is. Says what."""

_PAGE = 4096
_FRAME = _PAGE + 24
_WAL_HEADER = 32


def _file(folder: Path, chance: Random) -> Path:
    """The database or the WAL, where there is one."""
    files = [file for file in (folder / "j.db", folder / "j.db-wal") if file.exists() and file.stat().st_size]
    return chance.choice(files)


def _write(file: Path, at: int, data: bytes) -> None:
    with file.open("r+b") as opened:
        opened.seek(at)
        opened.write(data)


def _place(file: Path, number: int) -> int:
    """Where a page begins in the database, or in the WAL the page of a frame."""
    return number * _PAGE if file.name == "j.db" else _WAL_HEADER + number * _FRAME + 24


def _pages(file: Path) -> int:
    size = file.stat().st_size
    return size // _PAGE if file.name == "j.db" else (size - _WAL_HEADER) // _FRAME


def flip(folder: Path, _beside: Path, chance: Random) -> str:
    """One bit."""
    file = _file(folder, chance)
    at, bit = chance.randrange(file.stat().st_size), chance.randrange(8)
    _write(file, at, bytes([file.read_bytes()[at] ^ (1 << bit)]))
    return f"bit {bit} of byte {at} of {file.name}"


def flip_in_text(folder: Path, _beside: Path, chance: Random) -> str:
    """One bit of something that can be read: payloads, keys, words."""
    file = _file(folder, chance)
    data = file.read_bytes()
    while True:
        at = chance.randrange(len(data))
        if 32 <= data[at] < 127:
            break
    bit = chance.randrange(8)
    _write(file, at, bytes([data[at] ^ (1 << bit)]))
    return f"bit {bit} of byte {at} of {file.name}, which was {chr(data[at])!r}"


def burst(folder: Path, _beside: Path, chance: Random) -> str:
    """Some bytes in a row."""
    file = _file(folder, chance)
    length = chance.choice([2, 8, 64, 512])
    at = chance.randrange(file.stat().st_size)
    _write(file, at, chance.randbytes(min(length, file.stat().st_size - at)))
    return f"{length} bytes at {at} of {file.name}"


def cut(folder: Path, _beside: Path, chance: Random) -> str:
    """The end of a file is missing: at a page, at a frame, or in the middle of one."""
    file = _file(folder, chance)
    size = file.stat().st_size
    places = [chance.randrange(size), _place(file, chance.randrange(_pages(file) + 1)) - 24 * (file.name != "j.db"), 0]
    at = chance.choices(places, [5, 5, 1])[0]
    with file.open("r+b") as opened:
        opened.truncate(at)
    return f"{file.name} cut at {at} of {size}"


def zero(folder: Path, _beside: Path, chance: Random) -> str:
    """A page, or a sector, that holds nothing."""
    file = _file(folder, chance)
    number, length = chance.randrange(_pages(file)), chance.choice([512, _PAGE])
    at = _place(file, number) + chance.randrange(0, _PAGE - length + 1, 512)
    _write(file, at, bytes(length))
    return f"{length} zeros in page {number} of {file.name}"


def misdirected(folder: Path, _beside: Path, chance: Random) -> str:
    """A page that was written where another one belongs."""
    file = _file(folder, chance)
    one, other = chance.randrange(_pages(file)), chance.randrange(_pages(file))
    at = _place(file, one)
    _write(file, _place(file, other), file.read_bytes()[at : at + _PAGE])
    return f"page {one} over page {other} of {file.name}"


def lost_write(folder: Path, beside: Path, chance: Random) -> str:
    """A page as it was before: the last write to it never came."""
    file = folder / "j.db"
    old = (beside / chance.choice(["oldest", "middle"]) / "j.db").read_bytes()
    number = chance.randrange(min(_pages(file), len(old) // _PAGE))
    _write(file, number * _PAGE, old[number * _PAGE : (number + 1) * _PAGE])
    return f"page {number} as it was"


def older_database(folder: Path, beside: Path, chance: Random) -> str:
    """The database as it was before; the WAL stays."""
    which = chance.choice(["oldest", "middle"])
    shutil.copy(beside / which / "j.db", folder / "j.db")
    return f"the database of {which}"


def older_wal(folder: Path, beside: Path, _chance: Random) -> str:
    """The WAL as it was before, or one where there was none."""
    shutil.copy(beside / "older" / "j.db-wal", folder / "j.db-wal")
    return "the WAL as it was"


def no_wal(folder: Path, _beside: Path, _chance: Random) -> str:
    """The WAL is gone."""
    (folder / "j.db-wal").unlink(missing_ok=True)
    return "no WAL"


def older_files(folder: Path, beside: Path, _chance: Random) -> str:
    """A backup is restored, and the mark stays."""
    for name in ("j.db", "j.db-wal"):
        shutil.copy(beside / "older" / name, folder / name)
    return "both files as they were"


def other_wal(folder: Path, beside: Path, _chance: Random) -> str:
    """The WAL of another journal."""
    shutil.copy(beside / "other" / "j.db-wal", folder / "j.db-wal")
    return "the WAL of another journal"


def other_database(folder: Path, beside: Path, _chance: Random) -> str:
    """The database of another journal; the WAL stays."""
    shutil.copy(beside / "other" / "j.db", folder / "j.db")
    return "the database of another journal"


def other_journal(folder: Path, beside: Path, _chance: Random) -> str:
    """Another journal, beside this one's mark."""
    for name in ("j.db", "j.db-wal"):
        shutil.copy(beside / "other" / name, folder / name)
    return "the files of another journal"


def no_database(folder: Path, _beside: Path, _chance: Random) -> str:
    """The database is gone; the WAL stays."""
    (folder / "j.db").unlink()
    return "no database"


def nothing(_folder: Path, _beside: Path, _chance: Random) -> str:
    """Nothing at all: it has to be the same data."""
    return "nothing"


DAMAGES: dict[Damage, int] = {
    flip: 20,
    flip_in_text: 20,
    burst: 10,
    cut: 15,
    zero: 10,
    misdirected: 10,
    lost_write: 10,
    older_database: 2,
    older_wal: 1,
    no_wal: 1,
    older_files: 1,
    other_wal: 1,
    other_database: 1,
    other_journal: 1,
    no_database: 1,
    nothing: 2,
}
"""Each with how often it comes."""

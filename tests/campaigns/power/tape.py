"""What happened to the files of a folder, in order, and what was said meanwhile."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["FolderSync", "Link", "Op", "Said", "Sync", "Tape", "Truncate", "Unlink", "Write"]


@dataclass(frozen=True, slots=True)
class Write:
    """Bytes of a file."""

    file: int
    at: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Truncate:
    """A new size of a file."""

    file: int
    size: int


@dataclass(frozen=True, slots=True)
class Sync:
    """The disk has all of a file that was written before that place of the tape, where the call began."""

    file: int
    upto: int


@dataclass(frozen=True, slots=True)
class Link:
    """A new file has a name."""

    name: str
    file: int


@dataclass(frozen=True, slots=True)
class Unlink:
    """A name is given up."""

    name: str


@dataclass(frozen=True, slots=True)
class FolderSync:
    """The disk has all names as they were at that place of the tape."""

    upto: int


@dataclass(frozen=True, slots=True)
class Said:
    """A line of the log: the application was told something, or a body began."""

    line: str


Op = Write | Truncate | Sync | Link | Unlink | FolderSync | Said


@dataclass(slots=True)
class Tape:
    """A recording.

    Args:
        start: What is on the disk before, by name.
        said: The lines of the lives before this one.
        numbers: The files of those names.
        synchronous: What the engine was told.
        sqlite: Which SQLite it ran on.
        ops: What happened.
    """

    start: dict[str, bytes]
    said: tuple[str, ...]
    numbers: dict[str, int]
    synchronous: str
    sqlite: str
    ops: list[Op] = field(default_factory=list[Op])

"""A VFS that writes down what SQLite does to its files, under the very SQLite that Python's sqlite3 is linked with.

Not one of APSW: APSW brings an SQLite of its own, and a VFS that is registered there is unknown to the library which the
engine runs on. So an engine on APSW's would be an engine on another SQLite, behind something that plays sqlite3. Here ctypes
reaches the functions of the library that sqlite3 has loaded already, and the VFS is a copy of the system's own, in which those
entries are replaced that change files. Everything else (locks, shared memory, reads) stays as it is.

A VFS holds for the whole process, so recordings are made in processes of their own.
"""

from __future__ import annotations

import ctypes
import os
import sqlite3
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from ctypes import CFUNCTYPE, POINTER, c_char_p, c_int, c_int64, c_void_p
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

from .tape import FolderSync, Link, Op, Said, Sync, Truncate, Unlink, Write

__all__ = ["Recorder", "why_not"]

_OPEN = CFUNCTYPE(c_int, c_void_p, c_void_p, c_void_p, c_int, c_void_p)
_DELETE = CFUNCTYPE(c_int, c_void_p, c_char_p, c_int)
_CLOSE = CFUNCTYPE(c_int, c_void_p)
_WRITE = CFUNCTYPE(c_int, c_void_p, c_void_p, c_int, c_int64)
_TRUNCATE = CFUNCTYPE(c_int, c_void_p, c_int64)
_SYNC = CFUNCTYPE(c_int, c_void_p, c_int)
_OPEN_DIRECTORY = CFUNCTYPE(c_int, c_char_p, c_void_p)
_SET_SYSTEM_CALL = CFUNCTYPE(c_int, c_void_p, c_char_p, c_void_p)
_GET_SYSTEM_CALL = CFUNCTYPE(c_void_p, c_void_p, c_char_p)


class _Vfs(ctypes.Structure):
    """`sqlite3_vfs`, version 3."""

    _fields_ = [
        ("version", c_int),
        ("file_size", c_int),
        ("longest_path", c_int),
        ("next", c_void_p),
        ("name", c_char_p),
        ("data", c_void_p),
        ("open", c_void_p),
        ("delete", c_void_p),
        ("others", c_void_p * 11),
        ("set_system_call", c_void_p),
        ("get_system_call", c_void_p),
        ("next_system_call", c_void_p),
    ]


class _Methods(ctypes.Structure):
    """`sqlite3_io_methods`, version 3."""

    _fields_ = [
        ("version", c_int),
        ("close", c_void_p),
        ("read", c_void_p),
        ("write", c_void_p),
        ("truncate", c_void_p),
        ("sync", c_void_p),
        ("others", c_void_p * 13),
    ]


def _library() -> ctypes.CDLL:
    """The SQLite of sqlite3: whatever its module, or the interpreter, is linked with."""
    import _sqlite3  # noqa: PLC0415

    return ctypes.CDLL(getattr(_sqlite3, "__file__", None))


def why_not() -> str | None:
    """Why nothing can be recorded here; None where it can be."""
    if not Path("/dev/shm").is_dir() or os.name != "posix":
        return "needs Linux: what a system does to its files is recorded there"
    if not hasattr(sqlite3.Connection, "serialize"):
        return "this Python has a sqlite3 that does not give out the pages of a database"
    try:
        _ = _library().sqlite3_vfs_register
    except (AttributeError, OSError) as error:
        return f"the SQLite of this Python cannot be reached ({error}), so nothing can be put under it"
    return None


class Recorder:
    """Writes down what happens in a folder: by SQLite, and by the engine itself past SQLite.

    Args:
        folder: The files of which are meant; there are none of the same name elsewhere.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = str(folder)
        self.ops: list[Op] = []
        """The tape; entries are appended when they are done, so that none is believed too early."""
        self._names: dict[str, int] = {}
        self._last = 0
        self._descriptors: dict[int, str] = {}
        self._files: dict[int, int] = {}
        """By the address of SQLite's object."""
        self._own = threading.local()
        self._kept: list[object] = []
        """What C has pointers to."""
        self._tables: dict[int, _Methods] = {}
        for path in sorted(folder.iterdir()):
            if self._is_here(str(path)):
                self._number(path.name)

    def say(self, line: str) -> None:
        """Put a line of the log on the tape."""
        self.ops.append(Said(line))

    @property
    def numbers(self) -> dict[str, int]:
        """The files by name, as they are now."""
        return dict(self._names)

    def _number(self, name: str) -> int:
        self._last += 1
        self._names[name] = self._last
        return self._last

    def _is_here(self, path: str) -> bool:
        # Shared memory is never read again after a cut: whoever comes first makes it anew.
        return os.path.dirname(path) == self._folder and not path.endswith("-shm")  # noqa: PTH120 - once a call

    def _created(self, path: str) -> None:
        name = os.path.basename(path)  # noqa: PTH119
        self.ops.append(Link(name, self._number(name)))

    def _removed(self, path: str) -> None:
        name = os.path.basename(path)  # noqa: PTH119
        self._names.pop(name, None)
        self.ops.append(Unlink(name))

    # Under SQLite ----------------------------------------------------------------------------------------------------

    def install(self) -> None:
        """Be what SQLite writes through in this process, from now on."""
        library = _library()
        library.sqlite3_vfs_find.restype = c_void_p
        at = library.sqlite3_vfs_find(None)
        system = _Vfs.from_address(at)
        assert system.version >= 3, system.version
        mine = _Vfs()
        ctypes.memmove(ctypes.byref(mine), at, ctypes.sizeof(_Vfs))
        mine.name = b"power"
        mine.open = self._c(_OPEN, self._opening(at, _OPEN(system.open)))
        mine.delete = self._c(_DELETE, self._deleting(at, _DELETE(system.delete)))
        get, put = _GET_SYSTEM_CALL(system.get_system_call), _SET_SYSTEM_CALL(system.set_system_call)
        open_directory = _OPEN_DIRECTORY(get(at, b"openDirectory"))

        def opens_directory(name: bytes, answer: int) -> int:
            found: int = open_directory(name, answer)
            self._own.folder = found == 0
            return found

        self._kept.append(mine)
        refused = put(at, b"openDirectory", self._c(_OPEN_DIRECTORY, opens_directory))
        refused = refused or library.sqlite3_vfs_register(ctypes.byref(mine), 1)
        assert refused == 0, refused

    def _c(self, kind: Any, function: Callable[..., int]) -> int:
        """The address of a function for C."""
        made = kind(function)
        self._kept.append(made)
        return ctypes.cast(made, c_void_p).value or 0

    def _opening(self, vfs: int, open_: Callable[..., int]) -> Callable[..., int]:
        def opens(_vfs: int, name: int | None, file: int, flags: int, answer: int | None) -> int:
            path = ctypes.string_at(name).decode() if name else ""
            here = bool(path) and self._is_here(path)
            known = here and os.path.exists(path)  # noqa: PTH110
            found = open_(vfs, name, file, flags, answer)
            if found == 0 and here:
                if not known:
                    self._created(path)
                self._files[file] = self._names[os.path.basename(path)]  # noqa: PTH119
                self._replace_methods(file)
            return found

        return opens

    def _deleting(self, vfs: int, delete: Callable[..., int]) -> Callable[..., int]:
        def deletes(_vfs: int, name: bytes, sync: int) -> int:
            path, upto = name.decode(), len(self.ops)
            self._own.folder = False
            found = delete(vfs, name, sync)
            if found == 0 and self._is_here(path):
                self._removed(path)
                if self._own.folder:
                    self.ops.append(FolderSync(upto + 1))
            return found

        return deletes

    def _replace_methods(self, file: int) -> None:
        slot = ctypes.cast(file, POINTER(c_void_p))
        at = slot[0]
        if at not in self._tables:
            self._tables[at] = self._methods(_Methods.from_address(at))
        slot[0] = ctypes.addressof(self._tables[at])

    def _methods(self, system: _Methods) -> _Methods:
        close, write = _CLOSE(system.close), _WRITE(system.write)
        truncate, sync = _TRUNCATE(system.truncate), _SYNC(system.sync)

        def closes(file: int) -> int:
            self._files.pop(file, None)
            found: int = close(file)
            return found

        def writes(file: int, data: int, length: int, at: int) -> int:
            found: int = write(file, data, length, at)
            if found == 0:
                self.ops.append(Write(self._files[file], at, ctypes.string_at(data, length)))
            return found

        def truncates(file: int, size: int) -> int:
            found: int = truncate(file, size)
            if found == 0:
                self.ops.append(Truncate(self._files[file], size))
            return found

        def syncs(file: int, flags: int) -> int:
            upto = len(self.ops)
            self._own.folder = False
            found: int = sync(file, flags)
            if found == 0:
                self.ops.append(Sync(self._files[file], upto))
                if self._own.folder:  # SQLite syncs the folder of a WAL that is new
                    self.ops.append(FolderSync(upto))
            return found

        mine = _Methods()
        ctypes.memmove(ctypes.byref(mine), ctypes.addressof(system), ctypes.sizeof(_Methods))
        mine.close, mine.write = self._c(_CLOSE, closes), self._c(_WRITE, writes)
        mine.truncate, mine.sync = self._c(_TRUNCATE, truncates), self._c(_SYNC, syncs)
        return mine

    # Past SQLite -----------------------------------------------------------------------------------------------------

    @contextmanager
    def beside(self) -> Generator[None]:
        """Also write down what is done by the functions of `os`: to the mark, to side files, to the folder."""
        with (
            patch.object(os, "open", partial(self._opens, os.open)),
            patch.object(os, "pwrite", partial(self._writes, os.pwrite)),
            patch.object(os, "fsync", partial(self._syncs, os.fsync)),
            patch.object(os, "unlink", partial(self._unlinks, os.unlink)),
        ):
            yield

    def _opens(
        self, open_: Callable[..., int], path: str | os.PathLike[str], flags: int, *args: Any, **how: Any
    ) -> int:
        name = os.fspath(path)
        here = self._is_here(name)
        known = here and os.path.exists(name)  # noqa: PTH110
        found = open_(path, flags, *args, **how)
        self._descriptors.pop(found, None)
        if here or name == self._folder:
            self._descriptors[found] = name
            if here and not known:
                self._created(name)
        return found

    def _writes(self, pwrite: Callable[..., int], descriptor: int, data: Any, at: int) -> int:
        found = pwrite(descriptor, data, at)
        if (name := self._descriptors.get(descriptor)) is not None:
            self.ops.append(Write(self._names[os.path.basename(name)], at, bytes(data[:found])))  # noqa: PTH119
        return found

    def _syncs(self, fsync: Callable[..., None], descriptor: int) -> None:
        upto = len(self.ops)
        fsync(descriptor)
        name = self._descriptors.get(descriptor)
        if name == self._folder:
            self.ops.append(FolderSync(upto))
        elif name is not None:
            self.ops.append(Sync(self._names[os.path.basename(name)], upto))  # noqa: PTH119

    def _unlinks(self, unlink: Callable[..., None], path: str | os.PathLike[str], *args: Any, **how: Any) -> None:
        unlink(path, *args, **how)
        if self._is_here(os.fspath(path)):
            self._removed(os.fspath(path))

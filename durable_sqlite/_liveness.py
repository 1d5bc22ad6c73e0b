"""Who is alive on this host: each worker holds a lock on a side file of its own, which the system releases when it dies.

The lock is `flock`, which belongs to the open file and so also tells apart two engines of one process. It is never taken on
the journal's own file, whose locks are SQLite's business.
"""

from __future__ import annotations

import fcntl
import os
import platform
from collections.abc import Collection
from contextlib import suppress
from glob import escape
from pathlib import Path
from weakref import finalize, ref

__all__ = ["Lifeline", "is_dead", "side_file", "sweep", "sweep_strays", "this_start"]

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def this_start() -> str:
    """Which start of which machine this is: only processes that share it see each other's locks for certain."""
    with suppress(OSError):
        return _BOOT_ID.read_text(encoding="ascii").strip()
    return platform.node()


def side_file(journal: Path, worker: str) -> Path:
    """Where a worker's side file is: beside the journal, named after both."""
    return journal.with_name(f"{journal.name}-worker-{worker}")


class Lifeline:
    """A worker's lock on its side file, held until `release` or the end of the process.

    Args:
        path: The side file, which is created.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = _hold(path)
        self._forget = finalize(self, os.close, self._descriptor)
        self._forget.atexit = False
        myself = ref(self)

        def forget() -> None:
            if (me := myself()) is not None:
                me.forget()

        os.register_at_fork(after_in_child=forget)

    def forget(self) -> None:
        """Let go of the lock without touching the file; in a forked child, the parent keeps it."""
        if self._descriptor is not None:
            self._descriptor = None
            self._forget()

    def release(self) -> None:
        """Remove the side file and let go of the lock."""
        if self._descriptor is not None:
            with suppress(FileNotFoundError):
                self._path.unlink()
            self.forget()


def _hold(path: Path) -> int:
    """Create a file and lock it; its descriptor."""
    while True:
        descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                return descriptor
        os.close(descriptor)  # somebody swept it away before it was locked


def is_dead(path: Path) -> bool:
    """Whether nobody holds the side file: its worker has died, or the journal was moved here without it.

    If somebody removed the file of a worker that lives, the journal's fence keeps that worker's writes out.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True


def sweep(path: Path) -> None:
    """Remove the side file of a worker that has been struck off."""
    with suppress(FileNotFoundError):
        path.unlink()


def sweep_strays(journal: Path, enrolled: Collection[str]) -> None:
    """Remove the side files of workers that died before they were enrolled, or that were struck off by one that died then.

    Args:
        journal: The journal's file.
        enrolled: The names of its workers, whose files are left alone.
    """
    known = {side_file(journal, name) for name in enrolled}
    for path in journal.parent.glob(f"{escape(side_file(journal, '').name)}*"):
        if path in known:
            continue
        with suppress(FileNotFoundError):
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.fstat(descriptor).st_size == 0:  # else it is none of ours
                    path.unlink()  # while it is locked: whoever is about to lock it sees that it has gone
            except BlockingIOError:
                pass  # it lives, and is about to be enrolled
            finally:
                os.close(descriptor)

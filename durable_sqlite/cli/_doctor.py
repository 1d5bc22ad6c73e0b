"""`doctor`: whether a journal and what it stands on are sound. It changes nothing."""

from __future__ import annotations

import argparse
import os
import sqlite3
import stat
import time
from collections.abc import Callable, Iterator
from functools import partial

from ._commands import Call, Command
from ._journal import Journal, Tables, address, known_version
from ._light import NamedTuple
from ._rows import Worker
from ._text import plural, size
from ._trouble import DONE, FAILED, trouble_of
from ._words import liveness, stands_still

__all__ = ["COMMANDS", "has_wal_reset_bug"]

_EPILOG = """\
Exit code 0: nothing is wrong, though something may deserve a look. 1: something is wrong.

examples:
  durable_sqlite doctor
  durable_sqlite doctor --quick --json | jq '.checks[] | select(.level != "ok")'
"""
_OLDEST_SQLITE = (3, 37, 0)
_ALARM = 64 * 1024 * 1024
"""Bytes of a WAL that somebody keeps from being written back."""
_FOUND = 20
"""Findings of SQLite that are shown."""
_NETWORK = frozenset(
    [
        "9p",
        "afs",
        "beegfs",
        "ceph",
        "cifs",
        "davfs",
        "glusterfs",
        "gpfs",
        "lustre",
        "ncpfs",
        "nfs",
        "nfs4",
        "ocfs2",
        "smb2",
        "smb3",
        "smbfs",
        "virtiofs",
    ]
)
_NETWORK_FUSE = frozenset(["cephfs", "davfs2", "glusterfs", "nfs", "rclone", "s3fs", "sshfs"])
_READ_LOCKS = range(123, 128)
"""The bytes of the -shm file on which SQLite's readers hold their locks."""


class Check(NamedTuple):
    """One thing that was looked at."""

    name: str
    level: str
    """`ok`, `note`: worth knowing; `wrong`."""
    text: str
    then: str = ""
    """What to do."""


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = "See whether the journal, its file, SQLite and the workers are sound."
    parser.epilog = _EPILOG
    parser.add_argument("--quick", action="store_true", help="do not read the whole file: check its structure in short")


def _run(call: Call) -> int:
    checks: list[Check] = []
    with call.journal(any_version=True) as journal:
        for look in (_sqlite, _file, _system):
            checks += look(journal.path)
        for ask in (_mode, _version, _structure(quick=call.options.quick), _references, _checksums, _workers, _wal):
            try:
                checks += journal.read(partial(_asked, ask, journal))
            except sqlite3.Error as error:
                trouble = trouble_of(error, journal=journal.path)
                checks.append(Check("structure", "wrong", trouble.what, "restore a backup"))
        checks += _readers(journal.path)
    checks = list(dict.fromkeys(checks))
    sound = all(check.level != "wrong" for check in checks)
    if call.out.json:
        call.out.document({"sound": sound, "checks": [check._asdict() for check in checks]})
        return DONE if sound else FAILED
    marks = {"ok": ("ok   ", "good"), "note": ("note ", "warn"), "wrong": ("WRONG", "bad")}
    wide = max(len(check.name) for check in checks)
    for check in checks:
        call.out.line(marks[check.level], f"  {check.name:<{wide}}  {check.text}")
        if check.then:
            call.out.line(" " * (wide + 9), check.then)
    wrong = sum(check.level == "wrong" for check in checks)
    call.out.line()
    call.out.line(
        ("nothing is wrong", "good") if sound else (f"{plural(wrong, 'thing is', 'things are')} wrong", "bad")
    )
    return DONE if sound else FAILED


def _asked(ask: Callable[[Tables, Journal], Iterator[Check]], journal: Journal, tables: Tables) -> list[Check]:
    return list(ask(tables, journal))


# What it stands on ---------------------------------------------------------------------------------------------------


def has_wal_reset_bug(version: tuple[int, ...]) -> bool:
    """Whether a version of SQLite can damage a database when a checkpoint runs beside a commit, in WAL mode."""
    if version < (3, 7, 0) or version >= (3, 51, 3):
        return False
    return not ((3, 44, 6) <= version < (3, 45, 0) or (3, 50, 7) <= version < (3, 51, 0))


def _sqlite(_path: str) -> Iterator[Check]:
    version, name = sqlite3.sqlite_version_info, f"SQLite {sqlite3.sqlite_version}"
    if version < _OLDEST_SQLITE:
        yield Check("sqlite", "wrong", f"{name} is too old", "use a Python that is linked with SQLite 3.37 or newer")
    elif has_wal_reset_bug(version):
        yield Check(
            "sqlite",
            "note",
            f"{name} has the WAL-reset bug: a checkpoint beside a commit may damage the file",
            "durable_sqlite itself stays clear of it; let no other program write to this file but by engine.connect(), "
            "or use SQLite 3.51.3 or newer",
        )
    else:
        yield Check("sqlite", "ok", f"{name} has no known bug that matters here")


def _file(path: str) -> Iterator[Check]:
    for each in (path, f"{path}-wal", f"{path}-shm"):
        try:
            mode = stat.S_IMODE(os.stat(each).st_mode)  # noqa: PTH116
        except OSError:
            continue
        if mode & 0o077:
            then = f"chmod 600 {each}, or see that only the right people can enter its folder"
            yield Check("permissions", "wrong", f"others may open {each} (mode {mode:04o})", then)
        elif each == path:
            yield Check("permissions", "ok", f"mode {mode:04o}: its owner's alone")


def _system(path: str) -> Iterator[Check]:
    kind = _kind_of_mount(os.path.dirname(os.path.realpath(path)))  # noqa: PTH120
    if kind is None:
        yield Check("file system", "note", "what it is cannot be found out here", "it has to be a local one")
    elif kind in _NETWORK or kind.removeprefix("fuse.") in _NETWORK_FUSE:
        then = "move the journal to a local disk: over a network SQLite's locks do not hold"
        yield Check("file system", "wrong", f"{kind} is a network file system", then)
    else:
        then = "it is empty after the next start of the machine" if kind in ("tmpfs", "ramfs") else ""
        yield Check("file system", "note" if then else "ok", kind, then)


def _kind_of_mount(folder: str) -> str | None:
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:  # noqa: PTH123
            lines = file.read().splitlines()
    except OSError:
        return None
    best: tuple[int, str] | None = None
    for line in lines:
        before, separator, after = line.partition(" - ")
        if not separator:
            continue
        point = before.split(" ")[4].replace("\\040", " ")
        # Of two on the same point, the later one hides the earlier one.
        if (folder == point or folder.startswith(point.rstrip("/") + "/")) and (best is None or len(point) >= best[0]):
            best = (len(point), after.split(" ")[0])
    return None if best is None else best[1]


# What is in it -------------------------------------------------------------------------------------------------------


def _mode(tables: Tables, journal: Journal) -> Iterator[Check]:
    mode = tables.pragma("journal_mode") if journal.is_live else _mode_of_resting(journal.path)
    if mode is None:
        yield Check("mode", "note", "nobody has it open, and you may not write to it: its mode cannot be seen")
    elif mode != "wal":
        then = "the next engine that opens it sets the right one"
        yield Check("mode", "wrong", f"its journal mode is {mode}, and not wal", then)
    else:
        yield Check(
            "mode",
            "ok",
            "wal; synchronous is no property of the file: each engine sets it, to full unless told otherwise",
        )


def _mode_of_resting(path: str) -> str | None:
    """The mode of a file that nobody has open. A reader alone would leave files behind; a writer removes its own."""
    try:
        connection = sqlite3.connect(address(path, "mode=rw"), uri=True, isolation_level=None, timeout=1.0)
    except sqlite3.Error:
        return None
    try:
        connection.execute("PRAGMA query_only = ON").fetchall()
        ((mode,),) = connection.execute("PRAGMA journal_mode").fetchall()
    except sqlite3.Error:
        return None
    else:
        return str(mode)
    finally:
        connection.close()


def _version(_tables: Tables, journal: Journal) -> Iterator[Check]:
    known = known_version()
    if journal.version < known:
        yield Check(
            "schema",
            "note",
            f"{journal.version}, and this version of durable_sqlite makes it {known}",
            "durable_sqlite migrate",
        )
    elif journal.version > known:
        yield Check(
            "schema",
            "note",
            f"{journal.version}, and this version of durable_sqlite knows {known}",
            "upgrade durable_sqlite",
        )
    else:
        yield Check("schema", "ok", str(journal.version))


def _structure(*, quick: bool) -> Callable[[Tables, Journal], Iterator[Check]]:
    def look(tables: Tables, _journal: Journal) -> Iterator[Check]:
        pragma = "quick_check" if quick else "integrity_check"
        lines = [str(line) for (line,) in tables.ask(f"PRAGMA {pragma}({_FOUND})", {})]
        if lines == ["ok"]:
            yield Check("structure", "ok", f"{pragma}: ok")
        for line in [each for each in lines if each != "ok"]:
            yield Check("structure", "wrong", f"{pragma}: {line}", "restore a backup")

    return look


def _references(tables: Tables, _journal: Journal) -> Iterator[Check]:
    rows = tables.all("foreign_key_check")
    if not rows:
        yield Check("references", "ok", "each row belongs to a row that is there")
    for table in dict.fromkeys(row[0] for row in rows):
        lost = [row for row in rows if row[0] == table]
        text = f"{plural(len(lost), 'row')} of {table} belong to a row of {lost[0][2]} that is not there"
        yield Check(
            "references", "wrong", text, "restore a backup" if table.startswith("durable_") else "mend your own table"
        )


def _checksums(_tables: Tables, _journal: Journal) -> Iterator[Check]:
    """Of rows, and of how many commits there have been: a journal of this schema has none, so nothing is said of them."""
    yield from ()


def _workers(tables: Tables, journal: Journal) -> Iterator[Check]:
    workers = [Worker(*row) for row in tables.all("workers")]
    if not workers:
        yield Check("workers", "ok", "no engine is open")
    for worker in workers:
        seen = liveness(journal.path, worker)
        who = f"worker {worker.no} (process {worker.pid})"
        still = stands_still(worker)
        if seen.alive is False and worker.holds:
            then = "the next engine that opens the journal takes its runs up; or `durable_sqlite resume ID`, one by one"
            yield Check("workers", "note", f"{who} drives runs, but {seen.words}", then)
        elif seen.alive is False:
            yield Check(
                "workers",
                "note",
                f"{who} is left over: {seen.words}",
                "the next engine that opens the journal strikes it off",
            )
        elif seen.alive and still:
            then = "look at what that process does; ended, its runs are taken up elsewhere"
            yield Check(
                "workers",
                "wrong",
                f"{who} lives, but its event loop stands still: it renews its lease, and does nothing",
                then,
            )
        else:
            yield Check("workers", "ok" if seen.alive else "note", f"{who}: {seen.words}")


def _wal(_tables: Tables, journal: Journal) -> Iterator[Check]:
    try:
        number = os.stat(f"{journal.path}-wal").st_size  # noqa: PTH116 - never by opening it
    except OSError:
        number = 0
    if number > _ALARM:
        then = "a reader that stays open keeps it from being written back: end it"
        yield Check("wal", "wrong", f"{size(number)} are not written back", then)
    else:
        yield Check("wal", "ok", size(number))


def _readers(path: str) -> Iterator[Check]:
    """Who has been reading for a while, where the system tells."""
    first = _holders(path)
    if first is None:
        return
    if first:
        time.sleep(0.2)
    stayed = first & (_holders(path) or set())
    for pid in sorted(stayed):
        yield Check("readers", "note", f"process {pid} reads all the time, and keeps the WAL from being written back")
    if not stayed:
        yield Check("readers", "ok", "nobody stays in a read transaction")


def _holders(path: str) -> set[int] | None:
    """The processes that hold a reader's lock now; None where that cannot be seen."""
    try:
        seen = os.stat(f"{path}-shm")  # noqa: PTH116
        with open("/proc/locks", encoding="ascii") as file:  # noqa: PTH123
            lines = [line.split() for line in file]
    except (OSError, ValueError):
        return None
    place = f"{os.major(seen.st_dev):02x}:{os.minor(seen.st_dev):02x}:{seen.st_ino}"
    found: set[int] = set()
    for words in lines:
        # 1: POSIX  ADVISORY  READ 1234 fd:01:5678 123 123
        if len(words) != 8 or (words[1], words[3], words[5]) != ("POSIX", "READ", place):  # noqa: PLR2004
            continue
        if int(words[6]) in _READ_LOCKS and int(words[4]) != os.getpid():
            found.add(int(words[4]))
    return found


COMMANDS = {"doctor": Command(_arguments, _run)}

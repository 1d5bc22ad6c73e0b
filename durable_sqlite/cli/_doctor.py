"""`doctor`: whether a journal and what it stands on are sound. It changes nothing."""

from __future__ import annotations

import argparse
import os
import sqlite3
from collections.abc import Callable, Iterator
from functools import partial

from ._commands import Call, Command
from ._journal import Journal, Tables, address, known_version
from ._rows import Worker, checked
from ._standing import Check, files, library, readers, system
from ._text import age, length, plural, size
from ._trouble import BUSY, DONE, FAILED, Trouble, trouble_of
from ._words import liveness, stands_still

__all__ = ["COMMANDS"]

_EPILOG = """\
Exit code 0: nothing is wrong, though something may deserve a look. 1: something is wrong.

It reads the whole file, and holds all that is recorded against its checksums. --quick leaves that out, and looks only at
what is seen at once.

examples:
  durable_sqlite doctor
  durable_sqlite doctor --quick --json | jq '.checks[] | select(.level != "ok")'
"""
_ALARM = 64 * 1024 * 1024
"""Bytes of a WAL that somebody keeps from being written back."""
_FOUND = 20
"""Findings of one kind that people are shown; programs get all that there are."""
_LEASES = 10
"""A worker elsewhere that drives runs and has written nothing for so many of its leases is told of as stale."""


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = "See whether the journal, its file, SQLite and the workers are sound."
    parser.epilog = _EPILOG
    parser.add_argument("--quick", action="store_true", help="do not read the whole file: about a tenth of a second")


def _run(call: Call) -> int:
    checks: list[Check] = []
    try:
        with call.journal(any_version=True) as journal:
            checks += _of(call, journal)
    except sqlite3.DatabaseError as error:
        checks.append(_damage(error, call.db().value))
    checks = list(dict.fromkeys(checks))
    wrong = sum(check.level == "wrong" for check in checks)
    if call.out.json:
        call.out.document({"sound": wrong == 0, "checks": [check._asdict() for check in checks]})
        return FAILED if wrong else DONE
    _tell(call, checks)
    call.out.line()
    if wrong:
        call.out.line((f"{plural(wrong, 'thing is', 'things are')} wrong", "bad"))
    elif call.options.quick:
        call.out.line(("nothing is wrong that is seen at once", "good"))
    else:
        call.out.line(("nothing is wrong", "good"))
    return FAILED if wrong else DONE


def _tell(call: Call, checks: list[Check]) -> None:
    marks = {"ok": ("ok   ", "good"), "note": ("note ", "warn"), "wrong": ("WRONG", "bad")}
    wide = max(len(check.name) for check in checks)
    said: dict[tuple[str, str], int] = {}
    for check in checks:
        kind = (check.name, check.level)
        said[kind] = said.get(kind, 0) + 1
        if said[kind] > _FOUND:
            continue
        call.out.line(marks[check.level], f"  {check.name:<{wide}}  {check.text}")
        if check.then:
            call.out.line(" " * (wide + 9), check.then)
    for (name, level), count in said.items():
        if count > _FOUND:
            call.out.line(marks[level], f"  {name:<{wide}}  and {count - _FOUND:,} more like these: --json names all")


def _of(call: Call, journal: Journal) -> Iterator[Check]:
    yield from library()
    yield from files(journal.path)
    yield from system(journal.path)
    looks: list[Callable[[], Iterator[Check]]] = [
        partial(_at_once, call, journal, ask) for ask in (_mode, _version, _damaged, _workers, _wal)
    ]
    if call.options.quick:
        looks.append(_left_out)
    else:
        looks += [partial(_at_once, call, journal, ask) for ask in (_structure, _references)]
        looks.append(partial(_written, call, journal))
    for look in looks:
        try:
            yield from look()
        except sqlite3.DatabaseError as error:
            if journal.version < known_version() and isinstance(error, sqlite3.OperationalError):
                yield Check("schema", "note", f"some of it is not looked at before it is migrated ({error})")
            else:
                yield _damage(error, journal.path)
        except Trouble as trouble:
            if trouble.code == BUSY:
                raise
            yield Check("structure", "wrong", trouble.what, "restore a backup")
    yield from readers(journal.path)


def _at_once(call: Call, journal: Journal, ask: Callable[[Call, Tables, Journal], Iterator[Check]]) -> Iterator[Check]:
    """What is seen at one moment."""
    yield from journal.read(lambda tables: list(ask(call, tables, journal)))


def _left_out() -> Iterator[Check]:
    yield Check(
        "structure", "note", "not looked at, nor the checksums: that means to read the whole file", "leave out --quick"
    )


def _damage(error: sqlite3.DatabaseError, path: str) -> Check:
    trouble = trouble_of(error, journal=path)
    if trouble.code == BUSY:
        raise trouble
    return Check("structure", "wrong", trouble.what, "restore a backup")


# What is in it -------------------------------------------------------------------------------------------------------


def _mode(_call: Call, tables: Tables, journal: Journal) -> Iterator[Check]:
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
    except (sqlite3.Error, UnicodeDecodeError):  # what SQLite says of it may be no text
        return None
    else:
        return str(mode)
    finally:
        connection.close()


def _version(call: Call, _tables: Tables, journal: Journal) -> Iterator[Check]:
    known = known_version()
    if journal.version < known:
        yield Check(
            "schema",
            "note",
            f"{journal.version}, and this version of durable_sqlite makes it {known}",
            call.command("migrate"),
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


def _damaged(call: Call, tables: Tables, _journal: Journal) -> Iterator[Check]:
    """What an engine has found damaged already."""
    for (run_id,) in tables.all("damaged_runs"):
        then = call.command("dead-letters", "show", run_id)
        yield Check("damage", "wrong", f"run {run_id} is parked, since its rows do not fit their checksums", then)


def _structure(_call: Call, tables: Tables, _journal: Journal) -> Iterator[Check]:
    lines = [str(line) for (line,) in tables.ask("PRAGMA integrity_check", {})]
    if lines == ["ok"]:
        yield Check("structure", "ok", "integrity_check: ok")
    for line in [each for each in lines if each != "ok"]:
        yield Check("structure", "wrong", f"integrity_check: {line}", "restore a backup")


def _references(_call: Call, tables: Tables, _journal: Journal) -> Iterator[Check]:
    rows = tables.all("foreign_key_check")
    if not rows:
        yield Check("references", "ok", "each row belongs to a row that is there")
    for table in dict.fromkeys(row[0] for row in rows):
        lost = [row for row in rows if row[0] == table]
        text = f"{plural(len(lost), 'row')} of {table} belong to a row of {lost[0][2]} that is not there"
        yield Check(
            "references", "wrong", text, "restore a backup" if table.startswith("durable_") else "mend your own table"
        )


def _written(call: Call, journal: Journal) -> Iterator[Check]:
    from ._written import FIRST_SUMMED, of_the_past, of_the_rows  # noqa: PLC0415 - it imports more than a quick look needs

    if journal.version < FIRST_SUMMED:
        yield Check(
            "checksums",
            "note",
            f"a journal of schema {journal.version} has none, so damage to what is recorded cannot be seen",
            call.command("migrate"),
        )
        return
    yield from of_the_past(journal)
    yield from of_the_rows(journal, call.out.note)


def _workers(call: Call, tables: Tables, journal: Journal) -> Iterator[Check]:
    workers = checked(Worker, tables.all("workers"))
    if not workers:
        yield Check("workers", "ok", "no engine is open")
    for worker in workers:
        yield _worker(call, tables, worker, journal)


def _worker(call: Call, tables: Tables, worker: Worker, journal: Journal) -> Check:
    seen = liveness(journal.path, worker)
    who = f"worker {worker.no} (process {worker.pid})"
    if seen.alive is False and worker.holds:
        then = f"the next engine that opens the journal takes its runs up, or you do: {call.command('resume', '--due')}"
        return Check("workers", "note", f"{who} drives runs, but {seen.words}", then)
    if seen.alive is False:
        then = "the next engine that opens the journal strikes it off"
        return Check("workers", "note", f"{who} is left over: {seen.words}", then)
    if seen.alive and stands_still(worker):
        text = f"{who} lives, but its event loop stands still: it renews its lease, and does nothing"
        return Check("workers", "wrong", text, "look at what that process does; ended, its runs are taken up elsewhere")
    if seen.alive or not worker.holds:
        return Check("workers", "ok" if seen.alive else "note", f"{who}: {seen.words}")
    return _elsewhere(call, tables, worker, f"{who} drives runs: {seen.words}")


def _elsewhere(call: Call, tables: Tables, worker: Worker, what: str) -> Check:
    """Of a worker that cannot be seen from here: only what it wrote tells of it."""
    silent = max(call.now() - tables.first("last_sign", worker=worker.no)[0], 0)
    text = f"{what}; it last wrote something {age(silent)} ago, by its own clock"
    if silent <= _LEASES * worker.lease:
        return Check("workers", "note", f"{text}, and its lease is {length(worker.lease)}")
    then = "an engine that is open here takes its runs up, once it has seen nothing of it for one lease"
    return Check("workers", "note", f"{text}: with a lease of {length(worker.lease)}, it looks dead", then)


def _wal(_call: Call, _tables: Tables, journal: Journal) -> Iterator[Check]:
    try:
        number = os.stat(f"{journal.path}-wal").st_size  # noqa: PTH116 - never by opening it
    except OSError:
        number = 0
    if number > _ALARM:
        then = "a reader that stays open keeps it from being written back: end it"
        yield Check("wal", "wrong", f"{size(number)} are not written back", then)
    else:
        yield Check("wal", "ok", size(number))


COMMANDS = {"doctor": Command(_arguments, _run)}

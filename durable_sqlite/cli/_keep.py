"""`migrate`, `backup`, `prune` and `export`: the care of a journal, while it is used or not."""

from __future__ import annotations

import argparse
import os

from ._commands import Call, Command
from ._facts import EVERYTHING, gather
from ._light import TYPE_CHECKING
from ._text import length, plural, size
from ._trouble import DONE, REFUSED, Trouble
from ._words import duration

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import Any

    from ..engine import Engine

__all__ = ["COMMANDS"]

_MIGRATE = """\
Every engine that opens the journal does the same. An older version of this library cannot open it after that: make a
backup first, and see that all programs that use it are up to date.

examples:
  durable_sqlite migrate
  durable_sqlite migrate --db runs.db --json
"""
_BACKUP = """\
The copy is of one moment, and there under its name only when it is complete. Others go on meanwhile.

examples:
  durable_sqlite backup /backups/runs-monday.db
  durable_sqlite backup latest.db --overwrite
"""
_PRUNE = """\
Runs that completed or were cancelled, and dead letters that were discarded; with --state only runs in these states. None
goes that another run may still ask for.

examples:
  durable_sqlite prune --older-than 30d
  durable_sqlite prune --older-than 1d --state cancelled --json
"""
_EXPORT = """\
The shape is that of `show --json`, with every entry and nothing shortened.

examples:
  durable_sqlite export order-A1 > order-A1.json
  durable_sqlite export @ | jq '.entries[].key'
"""
_STATES = ("completed", "cancelled", "failed", "parked")


def _migrate_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = "Bring the journal to the schema of this version."
    parser.epilog = _MIGRATE


def _backup_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = "Copy the journal into one file, while it goes on being used."
    parser.epilog = _BACKUP
    parser.add_argument("file", metavar="FILE", help="the file to be made")
    parser.add_argument("--overwrite", action="store_true", help="take the place of a file that is there")


def _prune_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = "Forget runs that ended long ago, with all that belongs to them."
    parser.epilog = _PRUNE
    parser.add_argument(
        "--older-than", metavar="TIME", type=duration, required=True, help="how long ago they ended, such as 30d"
    )
    parser.add_argument("--state", metavar="STATE", action="append", choices=_STATES, help=", ".join(_STATES))


def _export_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = "Print all that the journal holds of one run as one JSON document."
    parser.epilog = _EXPORT
    parser.add_argument("run", metavar="ID", help="its id, a beginning or an ending of it, or @ for the newest run")


def _with_engine(call: Call, work: Callable[[Engine], Awaitable[Any]], *, any_version: bool = False) -> Any:
    """What `work` gives, with an engine that drives nothing on a journal that is there."""
    from ._open import opened, perform, plain_engine  # noqa: PLC0415 - a journal that is not there needs no engine

    engine = plain_engine(call, any_version=any_version)

    async def act() -> Any:
        async with opened(engine):
            return await work(engine)

    return perform(call, act)


def _migrate(call: Call) -> int:
    from ._journal import known_version  # noqa: PLC0415

    with call.journal(any_version=True) as journal:
        path, before = journal.path, journal.version
    if before > known_version():
        raise Trouble(
            f"{path} was written by a newer durable_sqlite (schema {before}, this one knows {known_version()})",
            "use that version, or a newer one",
            code=REFUSED,
        )

    async def nothing(engine: Engine) -> None:
        del engine  # opening it is all

    if before < known_version():
        _with_engine(call, nothing, any_version=True)
    with call.journal() as journal:
        after = journal.version
    if call.out.json:
        call.out.document({"journal": path, "before": before, "after": after})
    elif before == after:
        call.out.line(f"{path} is up to date (schema {after})")
    else:
        call.out.line(f"{path} was brought from schema {before} to {after}")
    return DONE


def _backup(call: Call) -> int:
    file, overwrite = call.options.file, call.options.overwrite
    if not file:
        raise Trouble("the copy needs a name")
    target = _with_engine(call, lambda engine: engine.backup(file, overwrite=overwrite))
    many = os.stat(target).st_size  # noqa: PTH116 - as everywhere here
    if call.out.json:
        call.out.document({"file": str(target), "bytes": many})
    else:
        call.out.line(f"{target} is a complete copy ({size(many)})")
    return DONE


def _prune(call: Call) -> int:
    options = call.options
    states = tuple(options.state or ()) or None
    gone = _with_engine(call, lambda engine: engine.prune(options.older_than / 1_000_000, states=states))
    if call.out.json:
        call.out.document({"forgotten": gone, "older_than_seconds": options.older_than / 1_000_000})
    else:
        call.out.line(f"{plural(gone, 'run')} that ended more than {length(options.older_than)} ago forgotten")
    return DONE


def _export(call: Call) -> int:
    from ._document import document  # noqa: PLC0415

    with call.journal() as journal:
        facts = journal.read(lambda tables: gather(journal, tables, call.options.run, entries=-1, most=EVERYTHING))
        path = journal.path
    call.out.document(document(facts, path))
    return DONE


COMMANDS = {
    "migrate": Command(_migrate_arguments, _migrate),
    "backup": Command(_backup_arguments, _backup),
    "prune": Command(_prune_arguments, _prune),
    "export": Command(_export_arguments, _export),
}

"""`why`: why a run does not move, in one paragraph, from the journal alone."""

from __future__ import annotations

import argparse

from ._commands import Call, Command
from ._document import waits
from ._facts import Facts, gather
from ._light import TYPE_CHECKING
from ._payload import error_of
from ._reasons import Reasons, explain, tell
from ._rows import Worker
from ._text import iso
from ._trouble import DONE
from ._words import liveness, stands_still

if TYPE_CHECKING:
    from typing import Any

__all__ = ["COMMANDS"]

_EPILOG = """\
It also works while the application is down, and changes nothing.

examples:
  durable_sqlite why @
  durable_sqlite why order-A1 --json
"""


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Say why a run does not move: what it waits for, who has it, what failed, what would unblock it."
    )
    parser.epilog = _EPILOG
    parser.add_argument("run", metavar="ID", help="its id, a beginning or an ending of it, or @ for the newest run")


def _run(call: Call) -> int:
    with call.journal() as journal:
        facts = journal.read(lambda tables: gather(journal, tables, call.options.run, entries=100, most=4_000))
        path = journal.path
    reasons = explain(call, facts, path)
    if call.out.json:
        call.out.document(_document(facts, reasons, path))
    else:
        tell(call, reasons)
    return DONE


def _document(facts: Facts, reasons: Reasons, path: str) -> dict[str, Any]:
    run, owner = facts.run, facts.owner
    errors = [
        {
            "key": key,
            "attempt": failed[-1].number,
            "at": iso(failed[-1].ended_at),
            "next_at": iso(failed[-1].next_at),
            "error": None if (error := error_of(failed[-1].error, facts.codec)) is None else error.document(),
        }
        for key, failed in facts.trying.items()
    ]
    return {
        "id": run.id,
        "workflow": run.workflow,
        "state": run.state,
        "reason": run.reason,
        "text": reasons.text,
        "commands": reasons.commands,
        "waits": waits(facts),
        "owner": None if owner is None else _owner(owner, path),
        "retries": errors,
        "error": None if facts.error is None else facts.error.document(),
    }


def _owner(owner: Worker, path: str) -> dict[str, Any]:
    return {
        "no": owner.no,
        "pid": owner.pid,
        "alive": liveness(path, owner).alive,
        "lease_seconds": owner.lease / 1_000_000,
        "renewed_at": iso(owner.beat_at),
        "loop_stood_still_seconds": stands_still(owner) / 1_000_000,
    }


COMMANDS = {"why": Command(_arguments, _run)}

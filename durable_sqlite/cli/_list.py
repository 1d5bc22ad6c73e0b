"""`list`: which runs there are."""

from __future__ import annotations

import argparse

from ._commands import Call, Command
from ._journal import Tables
from ._light import TYPE_CHECKING, NamedTuple
from ._out import Out, Part
from ._rows import Run, Wait, Worker, checked
from ._text import age, iso
from ._trouble import DONE
from ._words import duration, limit, liveness, state_part, summary

if TYPE_CHECKING:
    from typing import Any

__all__ = ["COMMANDS"]

_EPILOG = """\
examples:
  durable_sqlite list
  durable_sqlite list --status failed --status parked
  durable_sqlite list --workflow order --tag team=eu --since 2h --limit 100
  durable_sqlite list --json | jq -r '.runs[].id'
"""
_STATES = ("pending", "running", "suspended", "paused", "completed", "cancelled", "failed", "parked")
_WAITS = 2
"""Waits that are named of one run."""


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = "List runs, newest first, and what they wait for."
    parser.epilog = _EPILOG
    parser.add_argument(
        "--status",
        action="append",
        choices=_STATES,
        metavar="STATE",
        help=f"one of {', '.join(_STATES)}; may be repeated",
    )
    parser.add_argument("--workflow", metavar="NAME", help="only runs of this workflow")
    parser.add_argument(
        "--tag",
        action="append",
        metavar="NAME=VALUE",
        type=_tag,
        help="only runs with this tag; may be repeated, and then all must fit",
    )
    parser.add_argument(
        "--since", metavar="TIME", type=duration, help="only runs started this long ago or later: 90s, 15m, 2h, 7d"
    )
    parser.add_argument("--limit", metavar="N", type=limit, default=20, help="how many at most; 0 for all of them (20)")


def _tag(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise argparse.ArgumentTypeError(f"{text!r} is no NAME=VALUE")
    return name, value


class Line(NamedTuple):
    """A run of the list."""

    run: Run
    waits: list[Wait]
    worker: Worker | None


def _look(tables: Tables, options: argparse.Namespace, now: int) -> list[Line]:
    limit = -1 if options.limit == 0 else options.limit + 1
    numbers = [no for (no,) in tables.ask(*compose(tables, options, now, limit))]
    # Written out, since numbers need no quoting and `json` is not imported yet.
    sql = f"{tables.sql['run_select']}\n{tables.sql['runs_of']}"
    runs = checked(Run, tables.ask(sql, {"numbers": f"[{','.join(map(str, numbers))}]"}))
    workers: dict[int, Worker] = {}
    if any(run.owner is not None for run in runs):
        workers = {worker.no: worker for worker in checked(Worker, tables.all("workers"))}
    return [
        Line(
            run,
            checked(Wait, tables.all("first_waits", run=run.no, limit=_WAITS + 1)) if run.state == "suspended" else [],
            None if run.owner is None else workers.get(run.owner),
        )
        for run in runs
    ]


def compose(tables: Tables, options: argparse.Namespace, now: int, limit: int) -> tuple[str, dict[str, object]]:
    """The statement of the numbers of the runs that were asked for; every value is bound."""
    parts: list[str] = []
    values: dict[str, object] = {"limit": limit}
    if options.status:
        names = [f"state_{number}" for number in range(len(options.status))]
        parts.append(f"state IN ({', '.join(f':{name}' for name in names)})")
        values.update(zip(names, options.status, strict=True))
    if options.workflow is not None:
        parts.append(tables.sql["where_workflow"])
        values["workflow"] = options.workflow
    tags: list[tuple[str, str]] = options.tag or []
    for number, (name, value) in enumerate(tags):
        part = tables.sql["where_tag"]
        parts.append(part.replace(":tag_name", f":name_{number}").replace(":tag_value", f":value_{number}"))
        values.update({f"name_{number}": name, f"value_{number}": value})
    if options.since is not None:
        parts.append(tables.sql["where_since"])
        values["since"] = max(now - options.since, -(2**63))
    where = "WHERE " + "\nAND ".join(parts) if parts else ""
    return f"{tables.sql['list_numbers']}\n{where}\n{tables.sql['list_newest']}", values


def _run(call: Call) -> int:
    options, now = call.options, call.now()
    with call.journal() as journal:
        lines = journal.read(lambda tables: _look(tables, options, now))
        path = journal.path
    more = options.limit > 0 and len(lines) > options.limit
    lines = lines[: options.limit] if more else lines
    if call.out.json:
        call.out.document({"runs": [_data(line, path) for line in lines], "more": more})
        return DONE
    if not lines:
        filtered = options.status or options.workflow or options.tag or options.since is not None
        call.out.note(f"no run of {path} fits" if filtered else f"{path} holds no runs")
        return DONE
    _print(call.out, lines, path, now)
    if more:
        call.out.note(f"there are more: --limit {options.limit * 2}, or --limit 0 for all")
    for line in lines:
        if line.run.state not in ("completed", "cancelled"):
            call.out.note(f"next: {call.command('why', line.run.id)}")
            break
    return DONE


def _print(out: Out, lines: list[Line], path: str, now: int) -> None:
    headers = ("ID", "WORKFLOW", "STATE", "FOR", "WHAT", "STATUS")
    rows: list[tuple[Part, ...]] = []
    for line in lines:
        run = line.run
        since = run.ended_at or (line.waits[0].since_at if line.waits else run.updated_at)
        progress = None if run.progress is None else f"{run.done:,}/{run.total:,}"
        rows.append(
            (
                run.id,
                run.workflow,
                state_part(run.state),
                age(now - since),
                summary(run, line.waits, _WAITS, liveness(path, line.worker), now),
                " ".join(filter(None, (run.status, progress))),
            )
        )
    used = [number for number in range(len(headers)) if number < 5 or any(row[number] for row in rows)]  # noqa: PLR2004
    out.table(
        [headers[number] for number in used],
        [[row[number] for number in used] for row in rows],
        right={3},
        whole={0, 2, 3},
    )


def _data(line: Line, path: str) -> dict[str, Any]:
    run = line.run
    return {
        "id": run.id,
        "workflow": run.workflow,
        "state": run.state,
        "reason": run.reason,
        "created_at": iso(run.created_at),
        "updated_at": iso(run.updated_at),
        "ended_at": iso(run.ended_at),
        "status": run.status,
        "progress": None if run.progress is None else {"done": run.done, "total": run.total},
        "parent": run.parent,
        "waits": [
            {
                "key": wait.key,
                "kind": wait.kind,
                "name": wait.name,
                "since": iso(wait.since_at),
                "until": iso(wait.deadline_at),
                "run": wait.target,
            }
            for wait in line.waits[:_WAITS]
        ],
        "worker": None
        if line.worker is None
        else {"no": line.worker.no, "pid": line.worker.pid, "alive": liveness(path, line.worker).alive},
    }


COMMANDS = {"list": Command(_arguments, _run)}

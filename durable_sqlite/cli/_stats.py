"""`stats`: how much there is in a journal."""

from __future__ import annotations

import argparse
import os

from ._commands import Call, Command
from ._journal import Tables
from ._light import TYPE_CHECKING, NamedTuple
from ._rows import Worker
from ._text import age, instant, iso, plural, size
from ._trouble import DONE
from ._words import liveness, state_part

if TYPE_CHECKING:
    from typing import Any

__all__ = ["COMMANDS"]

_EPILOG = """\
examples:
  durable_sqlite stats
  durable_sqlite stats --json | jq .runs.failed
"""
_STATES = ("pending", "running", "suspended", "paused", "completed", "cancelled", "failed", "parked")
_WORKFLOWS = 50
"""Workflows that are counted one by one."""


class _Counts(NamedTuple):
    """What was counted."""

    runs: dict[str, int]
    workflows: list[tuple[str, int]]
    letters: int
    questions: int
    messages: int
    pending_at: int | None
    due_at: int | None
    workers: list[Worker]
    pages: int
    page_size: int
    free_pages: int
    schema: int


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = "Count runs by state and workflow, and tell the sizes of the journal and who has it open."
    parser.epilog = _EPILOG


def _look(tables: Tables) -> _Counts:
    runs: dict[str, int] = dict.fromkeys(_STATES, 0)
    runs.update(tables.all("count_by_state"))
    letters, questions, messages, pending_at, due_at = tables.first("count_the_rest")
    return _Counts(
        runs=runs,
        workflows=tables.all("count_by_workflow", limit=_WORKFLOWS),
        letters=letters,
        questions=questions,
        messages=messages,
        pending_at=pending_at,
        due_at=due_at,
        workers=[Worker(*row) for row in tables.all("workers")],
        pages=tables.pragma("page_count"),
        page_size=tables.pragma("page_size"),
        free_pages=tables.pragma("freelist_count"),
        schema=tables.pragma("user_version"),
    )


def _run(call: Call) -> int:
    with call.journal() as journal:
        counts, path = journal.read(_look), journal.path
    sizes = {"file_bytes": _size(path), "wal_bytes": _size(f"{path}-wal")}
    if call.out.json:
        call.out.document(_document(counts, sizes, path))
        return DONE
    out, now = call.out, call.now()
    out.table(("STATE", "RUNS"), [(state_part(state), f"{count:,}") for state, count in counts.runs.items()], right={1})
    out.line()
    if len(counts.workflows) > 1:
        out.table(("WORKFLOW", "RUNS"), [(name, f"{count:,}") for name, count in counts.workflows], right={1})
        out.line()
    facts = [
        ("dead letters", f"{counts.letters:,} that nobody has seen to"),
        ("questions", f"{counts.questions:,} open"),
        ("messages", f"{counts.messages:,} that no run has taken"),
        ("oldest", "" if counts.pending_at is None else f"pending run waits for {age(now - counts.pending_at)}"),
        ("next due", "" if counts.due_at is None else instant(counts.due_at, now)),
        ("file", f"{size(sizes['file_bytes'])}, of it {size(counts.free_pages * counts.page_size)} free"),
        ("WAL", size(sizes["wal_bytes"])),
        ("schema", str(counts.schema)),
        ("workers", plural(len(counts.workers), "engine is", "engines are") + " enrolled"),
    ]
    for label, words in facts:
        if words:
            out.line(f"{label:<12}  {words}")
    for worker in counts.workers:
        drives = "drives runs" if worker.holds else "drives no run now"
        since = age(now - worker.started_at)
        out.line(f"  worker {worker.no}, process {worker.pid}, for {since}, {drives}: {liveness(path, worker).words}")
    return DONE


def _size(path: str) -> int:
    # Never by opening it: closing that descriptor again would drop SQLite's locks.
    try:
        return os.stat(path).st_size  # noqa: PTH116
    except OSError:
        return 0


def _document(counts: _Counts, sizes: dict[str, int], path: str) -> dict[str, Any]:
    return {
        "runs": counts.runs,
        "workflows": dict(counts.workflows),
        "dead_letters": counts.letters,
        "questions": counts.questions,
        "messages": counts.messages,
        "oldest_pending_at": iso(counts.pending_at),
        "next_due_at": iso(counts.due_at),
        **sizes,
        "page_bytes": counts.page_size,
        "pages": counts.pages,
        "free_pages": counts.free_pages,
        "schema": counts.schema,
        "workers": [
            {
                "no": worker.no,
                "pid": worker.pid,
                "host": worker.host,
                "started_at": iso(worker.started_at),
                "drives": bool(worker.holds),
                "alive": liveness(path, worker).alive,
            }
            for worker in counts.workers
        ],
    }


COMMANDS = {"stats": Command(_arguments, _run)}

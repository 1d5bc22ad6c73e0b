"""What the reading verbs look at, each in one short read transaction."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from typing import TypeVar

from .._records import Entry, FailedAttempt, Intent, Memory, RunQuery, RunRow, Wait, WorkerRow
from .rows import Tables, entry_of, wait_of, worker_of

__all__ = [
    "Look",
    "backlog",
    "compose",
    "count",
    "entries",
    "memory",
    "next_due",
    "run",
    "runs",
    "snapshot",
    "waits",
    "workers",
]

T = TypeVar("T")

Look = Callable[[Tables], T]


def snapshot(tables: Tables, look: Look[T]) -> T:
    """All of one look sees one state of the journal."""
    tables.connection.execute("BEGIN")
    try:
        return look(tables)
    finally:
        tables.connection.rollback()


def compose(tables: Tables, query: RunQuery) -> tuple[str, dict[str, object]]:
    """The conditions of a query out of named fragments; every value is bound."""
    fragments: list[str] = []
    values: dict[str, object] = {}
    for field in ("workflow", "reason", "created_from", "created_before"):
        value = getattr(query, field)
        if value is not None:
            fragments.append(tables.sql[f"where_{field}"])
            values[field] = value
    if query.letters:
        fragments.append(tables.sql["where_letters"])
    if query.states:
        # The parameters are numbered, so the fragment is made here.
        names = [f"state_{number}" for number in range(len(query.states))]
        fragments.append(f"state IN ({', '.join(f':{name}' for name in names)})")
        values.update(zip(names, query.states, strict=True))
    for number, (name, value) in enumerate(query.tags):
        fragment = tables.sql["where_tag"]
        fragments.append(fragment.replace(":tag_name", f":name_{number}").replace(":tag_value", f":value_{number}"))
        values.update({f"name_{number}": name, f"value_{number}": value})
    if query.after is not None:
        fragments.append(tables.sql["where_after_newest" if query.newest_first else "where_after_oldest"])
        values["after"] = query.after
    return ("WHERE " + "\nAND ".join(fragments) if fragments else ""), values


def run(tables: Tables, run_id: str) -> RunRow | None:
    """The run of this id, or None."""
    found = tables.runs(tables.sql["where_id"], {"id": run_id})
    return found[0] if found else None


def runs(tables: Tables, query: RunQuery) -> list[RunRow]:
    """The runs that a query asks for."""
    where, values = compose(tables, query)
    order = tables.sql["newest_first" if query.newest_first else "oldest_first"]
    values["limit"] = -1 if query.limit is None else query.limit
    return tables.runs(f"{where}\n{order}", values)


def count(tables: Tables, query: RunQuery) -> int:
    """How many runs a query asks for, whatever its limit."""
    where, values = compose(tables, query)
    ((number,),) = tables.connection.execute(f"{tables.sql['run_count']}\n{where}", values).fetchall()
    return int(number)


def entries(tables: Tables, number: int) -> list[Entry]:
    """All entries of a run by their order."""
    return [entry_of(row) for row in tables.all("entries", {"run": number})]


def memory(tables: Tables, number: int) -> Memory:
    """All that is known of what a run has done and waits for."""
    attempts = [FailedAttempt(*row) for row in tables.all("attempts", {"run": number})]
    intents = [Intent(*row) for row in tables.all("intents", {"run": number})]
    return Memory(entries(tables, number), waits(tables, number), attempts, intents)


def waits(tables: Tables, number: int) -> list[Wait]:
    """What a run waits for, or waited for."""
    return [wait_of(row) for row in tables.all("waits", {"run": number})]


def next_due(tables: Tables, workflows: Collection[str]) -> int | None:
    """When the next suspended run of these workflows is due, or None."""
    ((due,),) = tables.all("next_due", {"workflows": json.dumps(sorted(workflows))})
    return None if due is None else int(due)


def backlog(tables: Tables) -> list[tuple[str, str, int]]:
    """What waits to be driven, by workflow and origin."""
    return [(workflow, origin, number) for workflow, origin, number in tables.all("backlog", {})]


def workers(tables: Tables, me: int) -> list[WorkerRow]:
    """All other workers."""
    return [worker_of(row) for row in tables.all("workers", {"me": me})]

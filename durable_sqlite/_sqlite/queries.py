"""What the reading verbs look at, each in one short read transaction."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any, TypeVar

from .._records import (
    CANCEL_KEY,
    Entry,
    FailedAttempt,
    Intent,
    Mail,
    Memory,
    News,
    OpenQuestion,
    Pulse,
    QuestionQuery,
    RunQuery,
    RunRow,
    Wait,
    WorkerRow,
)
from ..errors import JournalDamaged
from .faults import STORAGE_ERRORS, Fault, fault_of
from .rows import Tables, entry_of, message_of, question_of, readable, request_of, wait_of, whole, worker_of
from .sums import DRIVEN, MAIL, RUN, Part, forgiving, misfits

__all__ = [
    "Look",
    "backlog",
    "changes",
    "compose",
    "compose_questions",
    "count",
    "entries",
    "mail",
    "memory",
    "news",
    "next_due",
    "pulse",
    "questions",
    "ready",
    "run",
    "runs",
    "see_that_it_goes_on",
    "snapshot",
    "stops",
    "strangers",
    "waits",
    "workers",
]

T = TypeVar("T")

_MANY = 3
"""How many damages of a run are named in one sentence."""

Look = Callable[[Tables], T]


def snapshot(tables: Tables, look: Look[T]) -> T:
    """All of one look sees one state of the journal."""
    tables.connection.execute("BEGIN")
    try:
        return look(tables)
    finally:
        tables.connection.rollback()


def see_that_it_goes_on(places: Sequence[Any], after: Any | None) -> None:
    """See that a page comes behind the one before: from a damaged tree it may not, and whoever turns it turns for ever.

    Args:
        places: Where the rows of the page stand, in their order: numbers, or tuples of what they are ordered by.
        after: Where the page before had ended, or None.

    Raises:
        JournalDamaged: It does not.
    """
    try:
        in_order = all(earlier < later for earlier, later in pairwise(places if after is None else (after, *places)))
    except TypeError:  # a number that is none any more
        in_order = False
    if not in_order:
        raise JournalDamaged(
            "what the journal lists is out of its order: `engine.verify()` names all that is damaged; restore a backup"
        )


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
    if not found:
        return None
    unfit, _ = misfits(tables, found[0].no, [RUN])
    return replace(found[0], damage=unfit[0].what) if unfit else found[0]


def runs(tables: Tables, query: RunQuery) -> list[RunRow]:
    """The runs that a query asks for."""
    where, values = compose(tables, query)
    order = tables.sql["newest_first" if query.newest_first else "oldest_first"]
    values["limit"] = -1 if query.limit is None else query.limit
    found = tables.runs(f"{where}\n{order}", values)
    sign = -1 if query.newest_first else 1
    see_that_it_goes_on([sign * row.no for row in found], None if query.after is None else sign * query.after)
    return found


def count(tables: Tables, query: RunQuery) -> int:
    """How many runs a query asks for, whatever its limit."""
    where, values = compose(tables, query)
    ((number,),) = tables.connection.execute(f"{tables.sql['run_count']}\n{where}", values).fetchall()
    return int(number)


def changes(tables: Tables, query: RunQuery, since: int) -> list[RunRow]:
    """The runs that a query asks for and that changed after `since`, in the order of their changes.

    A limit does not cut through what one commit changed: whoever goes on from the last number would miss the rest.
    """
    sql = tables.sql
    where, values = compose(tables, replace(query, after=None))
    values["since"] = since
    changed = f"{sql['by_change']}\n{where or 'WHERE true'}\nAND {sql['where_since']}"
    if query.limit is not None:
        nth = f"{sql['last_tick']}\n{changed}\n{sql['in_order_of_change']} {sql['nth']}"
        last = tables.connection.execute(nth, values | {"offset": query.limit - 1}).fetchall()
        if last:
            changed += f"\nAND {sql['where_whole_ticks']}"
            values["last"] = last[0][0]
    found = tables.runs(f"{changed}\n{sql['in_order_of_change']}", values)
    see_that_it_goes_on([row.changed for row in found[:1]], since)
    return found


def entries(tables: Tables, number: int) -> list[Entry]:
    """All entries of a run by their order."""
    return [readable(entry_of, row) for row in tables.all("entries", {"run": number})]


def memory(tables: Tables, number: int) -> Memory:
    """All that is known of what a run has done and waits for; where that is not what was written, as far as it can be read."""
    unfit, _ = misfits(tables, number, DRIVEN)
    if not unfit:
        return _memory(tables, number)
    damage = "; ".join(each.what for each in unfit[:_MANY]) + (
        f"; and {len(unfit) - _MANY} more" * (len(unfit) > _MANY)
    )
    try:
        with forgiving(tables.connection):
            return replace(_memory(tables, number), damage=damage)
    except (*STORAGE_ERRORS, JournalDamaged) as error:
        if isinstance(error, STORAGE_ERRORS) and fault_of(error) is not Fault.REFUSED:
            raise
        return Memory(damage=damage)


def _memory(tables: Tables, number: int) -> Memory:
    attempts = [FailedAttempt(*row) for row in tables.all("attempts", {"run": number})]
    intents = [Intent(*row) for row in tables.all("intents", {"run": number})]
    messages = [message_of(row) for row in tables.all("messages", {"run": number})]
    asked = [question_of(row) for row in tables.all("questions", {"run": number})]
    children = [child for (child,) in tables.all("children", {"run": number})]
    return Memory(entries(tables, number), waits(tables, number), attempts, intents, messages, asked, children)


def mail(tables: Tables, number: int, awaited: Collection[str]) -> Mail:
    """What has come for a run and was not recorded, and which of the awaited runs have ended."""
    messages = [message_of(row) for row in tables.all("waiting_messages", {"run": number})]
    answers = [question_of(row) for row in tables.all("fresh_answers", {"run": number})]
    ended = tables.runs(tables.sql["where_ended"], {"ids": json.dumps(sorted(awaited))}) if awaited else []
    # A body is given nothing that is not what was written.
    if messages or answers:
        _see_that_it_fits(tables, number, MAIL)
    for row in ended:
        _see_that_it_fits(tables, row.no, [RUN])
    return Mail(messages, answers, ended)


def _see_that_it_fits(tables: Tables, number: int, parts: Sequence[Part]) -> None:
    unfit, _ = misfits(tables, number, parts)
    if unfit:
        raise JournalDamaged(f"run number {number}: {unfit[0].what}. `engine.verify()` names all that is damaged")


def compose_questions(tables: Tables, query: QuestionQuery) -> tuple[str, dict[str, object]]:
    """The statement of a query for questions; every value is bound."""
    parts: list[str] = []
    values: dict[str, object] = {"limit": -1 if query.limit is None else query.limit}
    for field, fragment in (("run_id", "where_asked_by"), ("workflow", "where_asked_in"), ("name", "where_asked_at")):
        value = getattr(query, field)
        if value is not None:
            parts.append(tables.sql[fragment])
            values[field] = value
    if query.after is not None:
        parts.append(tables.sql["where_asked_after"])
        values.update(zip(("after_at", "after_run", "after_key"), query.after, strict=True))
    where = "".join(f"AND {part}\n" for part in parts)
    return f"{tables.sql['question_select']}\n{where}{tables.sql['oldest_question_first']}", values


def questions(tables: Tables, query: QuestionQuery) -> list[OpenQuestion]:
    """The open questions that a query asks for."""
    rows = tables.connection.execute(*compose_questions(tables, query)).fetchall()
    found = [OpenQuestion(row[0], row[1], question_of(row[2:])) for row in rows]
    see_that_it_goes_on([(each.question.at, each.run_id, each.question.key) for each in found], query.after)
    return found


def news(tables: Tables, me: int) -> list[News]:
    """The runs of this worker for which there is mail, or a request."""
    rows = tables.all("news", {"me": me, "cancel_key": CANCEL_KEY})
    return [News(no, request_of(*requests[:3]), request_of(*requests[3:])) for no, *requests in rows]


def stops(tables: Tables, since: int) -> tuple[int, list[int]]:
    """The numbers of the runs that stopped since, and the last change there is."""
    last = tables.number("tick_now", {})
    return last, sorted(no for (no,) in tables.all("stops", {"since": since}))


def pulse(tables: Tables, me: int) -> Pulse:
    """What moves with each commit of another connection than this one, and with each of another worker."""
    return Pulse(tables.number("pulse", {}), tables.number("others", {"me": me}))


def waits(tables: Tables, number: int) -> list[Wait]:
    """What a run waits for, or waited for."""
    return [readable(wait_of, row) for row in tables.all("waits", {"run": number})]


def ready(tables: Tables, workflows: Collection[str], now: int, only: Collection[str] | None) -> bool:
    """Whether there is a run to be claimed."""
    asked = {"workflows": json.dumps(sorted(workflows)), "now": now}
    if only is None:
        ((found,),) = tables.all("ready", asked)
    else:
        ((found,),) = tables.all("ready_below", asked | {"ids": json.dumps(sorted(only))})
    return bool(found)


def next_due(tables: Tables, workflows: Collection[str], only: Collection[str] | None) -> int | None:
    """When the next suspended run of these workflows is due, or None."""
    asked = {"workflows": json.dumps(sorted(workflows))}
    if only is None:
        (due,) = tables.one("next_due", asked)
    else:
        (due,) = tables.one("next_due_below", asked | {"ids": json.dumps(sorted(only))})
    return None if due is None else whole(due)


def backlog(tables: Tables) -> list[tuple[str, str, int]]:
    """What waits to be driven, by workflow and origin."""
    return [(workflow, origin, number) for workflow, origin, number in tables.all("backlog", {})]


def strangers(tables: Tables, known: Collection[str]) -> list[tuple[str, str]]:
    """The workflows besides those known of which there are runs that nobody drives."""
    return [(name, origin) for name, origin in tables.all("strangers", {"workflows": json.dumps(sorted(known))})]


def workers(tables: Tables, me: int) -> list[WorkerRow]:
    """All other workers."""
    return [worker_of(row) for row in tables.all("workers", {"me": me})]

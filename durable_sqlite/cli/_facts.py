"""All that the journal holds of one run, read in one moment."""

from __future__ import annotations

from collections.abc import Mapping

from ._journal import Journal, Tables
from ._light import NamedTuple
from ._payload import Error, Payload, error_of
from ._rows import (
    STOPPED,
    Attempt,
    Child,
    Count,
    Entry,
    Intent,
    Message,
    Question,
    Run,
    Stored,
    Tag,
    Wait,
    Worker,
    checked,
)

__all__ = ["EVERYTHING", "Facts", "gather"]

EVERYTHING = 2**31 - 1
"""More than SQLite keeps in one value."""

_LISTED = 200
"""Of waits, messages, questions and children, how many are shown."""


class Facts(NamedTuple):
    """What the journal holds of one run."""

    run: Run
    codec: str
    tags: Mapping[str, str]
    input: Payload
    result: Payload | None
    """The result where it completed, the error where it failed or is parked."""
    entries: list[Entry]
    """The last of them, in their order."""
    entry_count: int
    last_at: int | None
    """When the last outcome was recorded."""
    attempts: list[Attempt]
    """Those that failed."""
    intents: list[Intent]
    waits: list[Wait]
    wait_count: int
    messages: list[Message]
    questions: list[Question]
    children: list[Child]
    workers: list[Worker]
    sign: int | None
    """The last time that its owner wrote anything, by that one's clock."""

    @property
    def error(self) -> Error | None:
        """Why it failed or is parked."""
        if self.run.state not in ("failed", "parked") or self.result is None:
            return None
        return error_of(self.result.data, self.codec)

    @property
    def owner(self) -> Worker | None:
        """The worker that drives it."""
        return next((worker for worker in self.workers if worker.no == self.run.owner), None)

    @property
    def trying(self) -> dict[str, list[Attempt]]:
        """The failed attempts of steps that have no outcome, while the run may still make others."""
        if self.run.state in ("completed", "cancelled"):
            return {}
        done = {entry.key for entry in self.entries}
        found: dict[str, list[Attempt]] = {}
        for attempt in self.attempts:
            if attempt.key not in done:
                found.setdefault(attempt.key, []).append(attempt)
        return found

    def payload(self, of: Entry | Message | Question) -> Payload:
        """What was recorded, sent or asked."""
        return Payload(of.size, of.payload, self.codec)


def gather(journal: Journal, tables: Tables, typed: str | int, *, entries: int, most: int) -> Facts:
    """What there is of the run that a person means, or of the run of this number.

    Args:
        journal: Finds it.
        tables: What is read.
        typed: What a person typed, or the run's own number.
        entries: How many of the last entries at most; -1 for all.
        most: How many bytes of each payload at most. Errors are read whole.

    Raises:
        Trouble: There is no such run, or there are several.
    """
    no = typed if isinstance(typed, int) else journal.find(tables, typed).no
    (run,) = checked(Run, tables.ask(f"{tables.sql['run_select']}\n{tables.sql['run_by_no']}", {"no": no}))
    codec = str((tables.first("meta_value", name="codec") or ("",))[0])
    whole = EVERYTHING if run.state in ("failed", "parked") else most
    (given,) = checked(Stored, tables.all("input", run=no, most=most))
    results = checked(Stored, tables.all("result", run=no, most=whole))
    known = list(reversed(checked(Entry, tables.all("entries", run=no, most=most, limit=entries))))
    # A run that is driven has not forgotten yet what it waited for when it was suspended last.
    waits = checked(Wait, tables.all("first_waits", run=no, limit=_LISTED))
    done = {entry.key for entry in known}
    ((count, last_at),) = checked(Count, tables.all("entry_count", run=no))
    return Facts(
        run=run,
        codec=codec,
        tags={tag.name: tag.value for tag in checked(Tag, tables.all("tags", run=no))},
        input=Payload(given.size, given.data, codec),
        result=Payload(results[0].size, results[0].data, codec) if results else None,
        entries=known,
        entry_count=count,
        last_at=last_at,
        attempts=checked(Attempt, tables.all("attempts", run=no, limit=-1 if entries < 0 else 10 * entries)),
        intents=checked(Intent, tables.all("intents", run=no, limit=_LISTED)),
        waits=[] if run.state in STOPPED else [wait for wait in waits if wait.key not in done],
        wait_count=tables.first("wait_count", run=no)[0],
        messages=checked(Message, tables.all("messages", run=no, most=most, limit=_LISTED)),
        questions=checked(Question, tables.all("questions", run=no, most=most, limit=_LISTED)),
        children=checked(Child, tables.all("children", run=no, limit=_LISTED)),
        workers=checked(Worker, tables.all("workers")),
        sign=None if run.owner is None else (tables.first("last_sign", worker=run.owner) or (None,))[0],
    )

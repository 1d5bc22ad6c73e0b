"""Whether a journal still holds what was written into it, for `doctor`: by the library's own verification."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator

from .._findings import Finding, FindingKind
from .._sqlite import mark, past, sums, verify
from .._sqlite.rows import Tables as Rows
from .._sqlite.statements import load
from ._journal import Journal, Tables
from ._light import TYPE_CHECKING
from ._standing import Check
from ._text import plural

if TYPE_CHECKING:
    from typing import Any

__all__ = ["FIRST_SUMMED", "of_the_past", "of_the_rows"]

FIRST_SUMMED = 6
"""The schema that brought checksums and the mark."""
_MANY = 20_000
"""Runs of which it is said beforehand that they take a while."""


class _Hop:
    """Looks at one state of the journal after the other, with the library's statements."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._sql = load()

    def look(self, ask: Callable[[Rows], Any]) -> Any:
        """What is found at one moment."""

        def asked(tables: Tables) -> Any:
            return ask(Rows(tables.connection, self._sql))

        return self._journal.read(asked)

    async def __call__(self, ask: Callable[[Rows], Any]) -> Any:
        """The same, for what expects to wait for it."""
        return self.look(ask)


def _driven(work: Coroutine[Any, Any, Any]) -> Any:
    """What a coroutine returns that waits for nothing, and so needs no event loop."""
    try:
        work.send(None)
    except StopIteration as done:
        return done.value
    work.close()
    raise AssertionError("it waits for something")


def of_the_past(journal: Journal) -> Iterator[Check]:
    """Whether commits got lost, and whether the journal's own tables are as they were made."""
    hop = _Hop(journal)
    found = hop.look(past.told_of)
    identity = hop.look(lambda tables: tables.first("meta_value", {"name": "identity"}))
    if identity is None or not past.is_identity(identity[0]):
        yield from _told("commits", found)
        yield Check(
            "commits", "note", "no engine of this version has opened it yet, so nothing is known of earlier commits"
        )
        return
    yield from _told("schema", hop.look(verify.as_made))
    file = mark.mark_file(journal.path)
    try:
        seen = mark.glance(file, identity[0])
    except OSError as error:
        yield Check("commits", "note", f"{file} cannot be read ({error.strerror}), so a lost commit is not noticed")
        seen = mark.Seen(0, ())
    else:
        if seen is None:
            yield Check("commits", "note", "there is no mark beside it: if commits had got lost, nobody would notice")
            seen = mark.Seen(0, ())
    said: mark.Seen = seen
    found += hop.look(lambda tables: past.unfit(tables, said, identity[0]))
    yield from _told("commits", found)
    if not found and said.latest:
        yield Check("commits", "ok", f"all {said.latest:,} that its mark knows of are there")


def of_the_rows(journal: Journal, note: Callable[[str], object]) -> Iterator[Check]:
    """Whether the rows of all runs are those that were written."""
    hop = _Hop(journal)
    if not hop.look(sums.are_ours):
        yield Check(
            "checksums",
            "note",
            "they are those of another version of durable_sqlite, or not made yet: nothing can be held against them",
            "the next engine that opens it for work makes them, and takes for right what is there by then",
        )
        return
    many = hop.look(lambda tables: tables.connection.execute("SELECT count(*) FROM durable_runs").fetchone()[0])
    if many > _MANY:
        note(f"holds {many:,} runs against their checksums: this takes a while (--quick does without)")
    found = _driven(verify.as_written(hop))
    yield from _told("checksums", found.findings)
    if found.ok:
        text = f"{plural(found.rows, 'row')} of {plural(found.runs, 'run')} are as they were written"
        yield Check("checksums", "ok", text)


def _told(name: str, findings: list[Finding] | tuple[Finding, ...]) -> Iterator[Check]:
    for each in findings:
        yield Check("structure" if each.kind is FindingKind.STRUCTURE else name, "wrong", each.what, each.next_move)

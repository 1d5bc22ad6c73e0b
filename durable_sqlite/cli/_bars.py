"""A run as bars over time: which bars there are, whatever they are drawn with."""

from __future__ import annotations

from collections.abc import Iterator

from ._facts import Facts, gather
from ._journal import Journal, Tables
from ._light import NamedTuple
from ._rows import Attempt, Entry, Wait
from ._words import liveness

__all__ = ["KINDS", "Bar", "Chart", "Row", "chart"]

KINDS = {
    "work": "a step at work",
    "failed": "a failed attempt",
    "wait": "a wait",
    "back_off": "the pause before the next attempt",
    "run": "a run, from its start to its end",
    "crash": "its process died after this",
}
"""What each kind of bar means."""

_DEAD = "died"
_WORK = frozenset({"step", "transaction", "drain", "act"})
_DEEPEST = 8
_READ = 200
"""Bytes of a value."""


class Bar(NamedTuple):
    """Something that lasted."""

    start: int
    end: int
    kind: str
    words: str
    """What it is, for whoever points at it."""


class Row(NamedTuple):
    """What stands in one line."""

    label: str
    depth: int
    bars: list[Bar]
    outcome: str
    """The state of a run, the outcome of an entry; `open` while there is none."""
    note: str = ""


class Chart(NamedTuple):
    """A run and its children."""

    title: str
    start: int
    end: int
    rows: list[Row]
    left_out: int
    """Rows for which there was no room."""


def chart(journal: Journal, tables: Tables, typed: str, *, now: int, most: int) -> Chart:
    """The bars of a run and of the runs below it, in the order of their beginnings.

    Args:
        journal: Finds the run.
        tables: What is read.
        typed: What a person typed.
        now: Until when open bars last.
        most: How many rows at most.
    """
    look = _Look(journal, tables, now, most)
    top = look.at(typed)
    rows: list[Row] = []
    left = 0
    for row in _rows(look, top, 0):
        if len(rows) < most:
            rows.append(row)
        else:
            left += 1
    ends = [bar.end for row in rows for bar in row.bars]
    start = min((bar.start for row in rows for bar in row.bars), default=top.run.created_at)
    return Chart(f"{top.run.id}  {top.run.workflow}  {top.run.state}", start, max(ends, default=start), rows, left)


class _Look(NamedTuple):
    """How far, and until when."""

    journal: Journal
    tables: Tables
    now: int
    most: int

    def at(self, which: str | int) -> Facts:
        """A run with as many of its last entries as there may be rows."""
        return gather(self.journal, self.tables, which, entries=self.most, most=_READ)


def _rows(look: _Look, facts: Facts, depth: int) -> Iterator[Row]:
    run, now = facts.run, look.now
    end = now if run.ended_at is None else run.ended_at
    bars = [Bar(run.created_at, max(end, run.created_at), "run", f"run {run.id}: {run.state}")]
    crash, note = _crash(look, facts)
    bars += [] if crash is None else [crash]
    if facts.run.state == "running" and crash is not None and note == _DEAD:
        now = crash.start  # what it had begun then is not known to have gone on
    yield Row(f"{run.workflow} {run.id}" if depth == 0 else run.workflow, depth, bars, run.state, note)
    children = {child.parent_key: child for child in facts.children}
    shown: set[int] = set()
    for _, key, row in sorted(_parts(facts, now), key=lambda part: part[0]):
        child = children.get(key)
        if child is None or depth >= _DEEPEST or child.no in shown:
            yield row._replace(depth=depth + 1)
            continue
        # The wait for a child and the child are one line, with the child's own lines below it.
        shown.add(child.no)
        below = _rows(look, look.at(child.no), depth + 1)
        first = next(below)
        yield first._replace(label=f"{key} → {first.label}", bars=[*row.bars, *first.bars[1:]])
        yield from below
    for child in facts.children:
        if child.no not in shown and depth < _DEEPEST:
            yield from _rows(look, look.at(child.no), depth + 1)


def _crash(look: _Look, facts: Facts) -> tuple[Bar | None, str]:
    """The last crash that the journal tells of, at what was recorded last before it, and what is said behind the line.

    It tells of no more than one: how many outcomes there were when an owner died last.
    """
    run = facts.run
    signs = [run.created_at, *(failed.ended_at for failed in facts.attempts), *(intent.at for intent in facts.intents)]
    last = max(facts.last_at or 0, *signs)
    if run.state == "running" and liveness(look.journal.path, facts.owner).alive is False:
        seen, note = max(last, run.updated_at), _DEAD
    elif run.deaths and (run.state == "pending" or run.reason == "crash_loop"):
        # Nobody has driven it since.
        seen, note = last, f"{run.deaths} crashes" if run.deaths > 1 else "crashed"
    elif run.deaths or run.survived:
        note = "crashed"
        place = run.survived - (facts.entry_count - len(facts.entries))
        if not 0 < place <= len(facts.entries):
            # Before what is drawn; or so many outcomes are there no more, since some were forgotten to be tried again.
            return None, note
        seen = facts.entries[place - 1].recorded_at
    else:
        return None, ""
    return Bar(seen, seen, "crash", "its process died after this"), note


def _parts(facts: Facts, now: int) -> Iterator[tuple[int, str, Row]]:
    """What the run itself did, with when each began and its key."""
    by_key: dict[str, list[Attempt]] = {}
    for attempt in facts.attempts:
        by_key.setdefault(attempt.key, []).append(attempt)
    waits = {wait.key: wait for wait in facts.waits}
    for entry in facts.entries:
        bars = [*_failed(by_key.get(entry.key, []), entry.started_at), *_recorded(entry)]
        yield bars[0].start, entry.key, Row(entry.key, 0, bars, entry.outcome, _times(by_key.get(entry.key, [])))
    for key, failed in facts.trying.items():
        wait = waits.pop(key, None)
        bars = _failed(failed, now if wait is None else min(now, wait.deadline_at or now))
        yield bars[0].start, key, Row(key, 0, bars, "open", _times(failed))
    for wait in waits.values():
        yield wait.since_at, wait.key, Row(wait.key, 0, [_open(wait, now)], "open")
    for intent in facts.intents:
        if not any(entry.key == intent.key for entry in facts.entries):
            until = intent.at if facts.run.ended_at is not None else max(now, intent.at)
            bar = Bar(intent.at, until, "work", f"{intent.key} began")
            yield intent.at, intent.key, Row(intent.key, 0, [bar], "open", "at most once")


def _recorded(entry: Entry) -> Iterator[Bar]:
    start = min(entry.started_at, entry.recorded_at)
    kind = "wait" if entry.kind not in _WORK else "failed" if entry.outcome == "error" else "work"
    yield Bar(start, entry.recorded_at, kind, f"{entry.kind} {entry.key}: {entry.outcome}")


def _failed(attempts: list[Attempt], until: int) -> list[Bar]:
    """Failed attempts, and the pauses behind them."""
    bars: list[Bar] = []
    for number, attempt in enumerate(attempts):
        bars.append(
            Bar(attempt.started_at, attempt.ended_at, "failed", f"attempt {attempt.number} of {attempt.key} failed")
        )
        following = attempts[number + 1].started_at if number + 1 < len(attempts) else until
        if attempt.next_at is not None and following > attempt.ended_at:
            bars.append(Bar(attempt.ended_at, following, "back_off", f"before attempt {attempt.number + 1}"))
    if bars and attempts[-1].next_at is None:
        bars.pop()  # the last one is the entry itself
    return bars


def _times(failed: list[Attempt]) -> str:
    count = sum(attempt.next_at is not None for attempt in failed)
    return f"{count} failed" if count else ""


def _open(wait: Wait, now: int) -> Bar:
    return Bar(wait.since_at, max(now, wait.since_at), "wait", f"{wait.kind} {wait.key}, open")

"""`show`: all that the journal holds of one run."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from ._commands import Call, Command
from ._document import document
from ._facts import EVERYTHING, Facts, gather
from ._out import Out, Part
from ._payload import Error, Payload, declared_words, error_of
from ._rows import Attempt, Entry
from ._text import instant, length, plural
from ._trouble import DONE
from ._words import limit, liveness, state_part, wait_words

__all__ = ["COMMANDS"]

_EPILOG = """\
examples:
  durable_sqlite show @
  durable_sqlite show order-A1 --entries 0 --full
  durable_sqlite show order-A1 --json | jq '.entries[] | {key, outcome}'
"""
_SHORT = 60
"""Characters of a value in a table."""
_LONG = 500
"""Characters of the input and the result."""
_READ = 4_000
"""Bytes of a value that are read for that."""


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Show one run: its input and result or error, its entries and attempts in their order, and what it waits for."
    )
    parser.epilog = _EPILOG
    parser.add_argument("run", metavar="ID", help="its id, a beginning or an ending of it, or @ for the newest run")
    parser.add_argument("--entries", metavar="N", type=limit, default=100, help="the last so many; 0 for all (100)")
    parser.add_argument("--full", action="store_true", help="do not shorten values")
    parser.add_argument("--traceback", action="store_true", help="show where each error was raised")


def _run(call: Call) -> int:
    options = call.options
    entries = options.entries or -1
    most = EVERYTHING if options.full or call.out.json else _READ
    with call.journal() as journal:
        facts = journal.read(lambda tables: gather(journal, tables, options.run, entries=entries, most=most))
        path = journal.path
    if call.out.json:
        call.out.document(document(facts, path))
    else:
        _Page(call, facts, path, full=options.full, traceback=options.traceback).print()
    return DONE


class _Page:
    """One run as text."""

    def __init__(self, call: Call, facts: Facts, path: str, *, full: bool, traceback: bool) -> None:
        self._call = call
        self._out: Out = call.out
        self._now = call.now()
        self._facts = facts
        self._path = path
        self._short = EVERYTHING if full else _SHORT
        self._long = EVERYTHING if full else _LONG
        self._traceback = traceback

    def print(self) -> None:
        """All of it; what there is none of is left out."""
        facts = self._facts
        run = facts.run
        self._out.line((run.id, "strong"), "  ", run.workflow, "  ", state_part(run.state))
        for label, value in self._head():
            self._out.line(f"  {label:<10} ", value)
        if facts.error is not None:
            self._error("error", facts.error, "  ")
        self._entries()
        self._section("waits for", facts.wait_count if facts.waits else 0, self._waits())
        self._section("messages that nobody took", len(facts.messages), self._messages())
        self._section("questions", len(facts.questions), self._questions())
        self._section("child runs", len(facts.children), self._children())
        self._out.line()
        self._out.note(f"next: {self._call.command('why', run.id)}")

    def _crashes(self) -> str:
        run = self._facts.run
        if run.deaths:
            return f"{run.deaths:,} in a row without a new outcome"
        return f"its process died after outcome {run.survived:,}, and it went on" if run.survived else ""

    def _head(self) -> Iterator[tuple[str, Part]]:
        facts, run = self._facts, self._facts.run
        progress = None if run.progress is None else f"{run.done:,} of {run.total:,}"
        optional = (
            ("reason", run.reason),
            ("status", "  ".join(filter(None, (run.status, progress)))),
            ("driven by", self._owner()),
            ("started", self._since(run.created_at)),
            ("stopped", self._end()),
            ("deadline", "" if run.deadline_at is None else instant(run.deadline_at, self._now)),
            ("cancel", self._request(run.cancel_at, run.cancel_by, run.cancel_reason)),
            ("pause", self._request(run.pause_at, run.pause_by, run.pause_reason)),
            ("crashes", self._crashes()),
            ("seen to", "" if run.discarded_at is None else self._since(run.discarded_at)),
            ("parent", f"{run.parent} ({run.parent_key}{', detached' if run.detached else ''})" if run.parent else ""),
            ("tags", "  ".join(f"{name}={value}" for name, value in facts.tags.items())),
            ("defined in", run.origin),
        )
        yield from ((label, value) for label, value in optional if value)
        yield "input", facts.input.text(self._long)
        if run.state == "completed" and facts.result is not None:
            yield "result", facts.result.text(self._long)

    def _owner(self) -> str:
        owner = self._facts.owner
        if owner is None:
            return ""
        return f"worker {owner.no}, process {owner.pid}: {liveness(self._path, owner).words}"

    def _end(self) -> str:
        run = self._facts.run
        if run.ended_at is None:
            return ""
        return f"{self._since(run.ended_at)}, after {length(run.ended_at - run.created_at)}"

    def _since(self, at: int) -> str:
        return f"{instant(at, self._now)}, {length(self._now - at)} ago"

    def _request(self, at: int | None, by: str | None, reason: str | None) -> str:
        if at is None:
            return ""
        return " ".join(filter(None, (f"asked {self._since(at)}", by and f"by {by}", reason and f"({reason})")))

    def _section(self, title: str, count: int, rows: tuple[list[str], list[list[Part]]]) -> None:
        if count == 0:
            return
        headers, lines = rows
        self._out.line()
        self._out.line((f"{title} ({count:,})", "strong"))
        self._out.table(headers, lines)
        if len(lines) < count:
            self._out.note(f"{plural(count - len(lines), 'more')} not shown")

    def _error(self, label: str, error: Error, indent: str) -> None:
        attempts = f" (after {plural(error.attempts, 'attempt')})" if error.attempts > 1 else ""
        came = f"  [{error.key}]" if error.key is not None else ""
        self._out.line(f"{indent}{label:<10} ", (error.words, "bad"), attempts, came)
        for note in error.notes:
            self._out.line(f"{indent}           note: {note}")
        if self._traceback:
            for line in error.traceback.splitlines():
                self._out.line(f"{indent}           {line}")
        for member in error.members:
            self._error("with", member, indent + "  ")
        if error.cause is not None:
            self._error("because of", error.cause, indent)

    # Entries ---------------------------------------------------------------------------------------------------------

    def _entries(self) -> None:
        facts = self._facts
        trying = facts.trying
        if not facts.entries and not trying and not facts.intents:
            return
        by_key: dict[str, list[Attempt]] = {}
        for attempt in facts.attempts:
            by_key.setdefault(attempt.key, []).append(attempt)
        rows: list[list[Part]] = []
        for entry in facts.entries:
            rows += [self._attempt(attempt) for attempt in by_key.get(entry.key, []) if attempt.next_at is not None]
            rows.append(self._entry(entry))
        for failed in trying.values():
            rows += [self._attempt(attempt) for attempt in failed]
        done = {entry.key for entry in facts.entries}
        for intent in facts.intents:
            if intent.key not in done:
                began = instant(intent.at, self._now)
                rows.append(["", intent.key, "step", ("began", "warn"), "", began, "at most once"])
        self._out.line()
        self._out.line((f"entries ({facts.entry_count:,})", "strong"))
        if len(facts.entries) < facts.entry_count:
            hidden = plural(facts.entry_count - len(facts.entries), "earlier entry", "earlier entries")
            self._out.note(f"{hidden} not shown: --entries 0 shows all")
        headers = ("SEQ", "KEY", "KIND", "OUTCOME", "TOOK", "AT", "VALUE")
        self._out.table(headers, rows, right={0, 4})

    def _entry(self, entry: Entry) -> list[Part]:
        name = "" if entry.name in entry.key else f" ({entry.name})"
        removed = " removed" if entry.removed else ""
        took = length(entry.recorded_at - entry.started_at)
        at = instant(entry.recorded_at, self._now)
        return [
            str(entry.seq),
            f"{entry.key}{name}",
            entry.kind,
            (f"{entry.outcome}{removed}", "good" if entry.outcome == "value" else "bad"),
            took,
            at,
            self._value(entry),
        ]

    def _value(self, entry: Entry) -> str:
        payload = self._facts.payload(entry)
        decided = f"  (decided by {entry.decided_by})" if entry.decided_by else ""
        if entry.outcome == "timeout":
            return f"nothing came in time{decided}"
        if entry.outcome == "error":
            error = None if payload.size > len(payload.data) else error_of(payload.data, payload.codec)
            return (payload.text(self._short) if error is None else error.words[: self._short]) + decided
        if entry.outcome == "declared":
            return declared_words(payload)[: self._short] + decided
        return payload.text(self._short) + decided

    def _attempt(self, attempt: Attempt) -> list[Part]:
        error = error_of(attempt.error, self._facts.codec)
        again = "" if attempt.next_at is None else f"; again at {instant(attempt.next_at, self._now)}"
        words = "" if error is None else error.words[: self._short]
        took = length(attempt.ended_at - attempt.started_at)
        at = instant(attempt.ended_at, self._now)
        return ["", attempt.key, f"attempt {attempt.number}", ("failed", "bad"), took, at, f"{words}{again}"]

    # What it has to do with others -----------------------------------------------------------------------------------

    def _waits(self) -> tuple[list[str], list[list[Part]]]:
        rows: list[list[Part]] = [
            [
                wait_words(wait),
                wait.key,
                instant(wait.since_at, self._now),
                "" if wait.deadline_at is None else instant(wait.deadline_at, self._now),
            ]
            for wait in self._facts.waits
        ]
        return ["WHAT", "KEY", "SINCE", "UNTIL"], rows

    def _messages(self) -> tuple[list[str], list[list[Part]]]:
        rows: list[list[Part]] = []
        for message in self._facts.messages:
            error = error_of(message.error, self._facts.codec)
            aside = "" if error is None else f"  (set aside: {error.words[: self._short]})"
            text = self._facts.payload(message).text(self._short) + aside
            rows.append([message.name, instant(message.sent_at, self._now), message.dedupe or "", text])
        return ["NAME", "SENT", "DEDUPE", "MESSAGE"], rows

    def _questions(self) -> tuple[list[str], list[list[Part]]]:
        rows: list[list[Part]] = []
        for question in self._facts.questions:
            state: Part = ("open", "warn")
            answer = ""
            if question.answered_at is not None:
                state = ("answered", "good")
                text = Payload(question.answer_size or 0, question.answer or b"", self._facts.codec).text(self._short)
                by = f" by {question.answered_by}" if question.answered_by else ""
                answer = f"{text}{by} at {instant(question.answered_at, self._now)}"
            elif question.closed_at is not None:
                state = ("over", "faint")
            asked = self._facts.payload(question).text(self._short)
            rows.append([question.key, question.name, state, instant(question.asked_at, self._now), asked, answer])
        return ["KEY", "POINT", "STATE", "ASKED", "QUESTION", "ANSWER"], rows

    def _children(self) -> tuple[list[str], list[list[Part]]]:
        rows: list[list[Part]] = [
            [child.id, child.workflow, state_part(child.state), child.reason, child.parent_key or ""]
            for child in self._facts.children
        ]
        return ["ID", "WORKFLOW", "STATE", "REASON", "KEY"], rows


COMMANDS = {"show": Command(_arguments, _run)}

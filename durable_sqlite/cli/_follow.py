"""Driving a run in this process until it ends or waits, and telling of it step by step."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

from .._front import Front
from ..engine import Engine
from ._commands import Call
from ._facts import EVERYTHING, Facts, gather
from ._journal import Journal, Tables
from ._payload import error_of
from ._reasons import explain, tell
from ._text import instant, length
from ._trouble import BUSY, code_of_state
from ._words import liveness

__all__ = ["Teller", "drive", "keep_driven", "stands", "tell_end"]

_LOOK_EVERY = 0.1  # seconds between two looks at what was recorded
_OPEN = 1_000
"""Entries that are told of in one look."""
_MOMENT = 0.01  # seconds that an engine is given to take up what has become ready
_STUCK = 500
"""Such moments after which what is ready and not taken up is left alone."""


class Teller:
    """Tells on standard error what one run records, from some time on.

    Args:
        call: Where it is told.
        no: The run's number.
        since: From when on; from now, where nothing is said.
    """

    def __init__(self, call: Call, journal: Journal, no: int, *, since: int | None = None) -> None:
        self._call = call
        self._journal = journal
        self._no = no
        self._status: str | None = None
        self._pulse: object = None
        self._since = call.now() if since is None else since
        self._seq, self._attempts = journal.read(self._position)

    def begin_anew(self) -> None:
        """What is tried again was forgotten: what is recorded in its place is news."""
        self._seq, _ = self._journal.read(self._position)

    def _position(self, tables: Tables) -> tuple[int, set[tuple[str, int, int]]]:
        (seq,) = tables.first("last_entry", run=self._no, before=self._since)
        attempts = tables.all("attempts", run=self._no, limit=-1)
        return seq, {(row[0], row[1], row[3]) for row in attempts if row[3] < self._since}

    def look(self) -> None:
        """Tell what is new."""
        pulse = self._journal.pulse()
        if pulse != self._pulse:
            self._pulse = pulse
            for line in self._journal.read(self._news):
                self._call.out.note(line)

    def _news(self, tables: Tables) -> list[str]:
        found: list[tuple[int, str]] = []
        codec = (tables.first("meta_value", name="codec") or ("",))[0]
        for key, number, _started, ended, following, error in tables.all("attempts", run=self._no, limit=-1):
            if (key, number, ended) not in self._attempts:
                self._attempts.add((key, number, ended))
                told = error_of(error, codec)
                words = "" if told is None else f": {told.words}"
                again = "" if following is None else f"; the next one in {length(following - ended)}"
                found.append((ended, f"{key}  attempt {number} failed{words}{again}"))
        for seq, key, kind, outcome, started, at in tables.all(
            "entries_since", run=self._no, after=self._seq, limit=_OPEN
        ):
            self._seq = seq
            how = "" if outcome == "value" else f"  {outcome}"
            took = f"  after {length(at - started)}" if at > started else ""
            found.append((at, f"{key}  {kind}{how}{took}"))
        status = tables.first("status", run=self._no)
        if status is not None and status[0] and status[0] != self._status:
            found.append((self._call.now(), f"says: {status[0]}"))
        self._status = None if status is None else status[0]
        now = self._call.now()
        return [f"  {instant(at, now)}  {text}" for at, text in sorted(found, key=lambda each: each[0])]


def keep_driven(engine: Engine) -> set[str]:
    """The ids of the runs that an engine which is not open yet will have driven; they are added while it is open."""
    assert isinstance(engine.host, Front)
    engine.host.driven = set()
    return engine.host.driven


async def drive(engine: Engine, teller: Teller | None, *, patience: int) -> None:
    """Drive until nothing is left to do now, and what comes by itself is further away than `patience` microseconds."""
    telling = asyncio.create_task(_tell(teller))
    stuck = 0
    try:
        while stuck < _STUCK:
            await engine.join()
            due = await engine.next_due()
            left = None if due is None else (due - datetime.now(UTC)).total_seconds()  # noqa: TID251 - a person's clock
            if left is None or left > patience / 1_000_000:
                break
            # What has come due just now is taken up in one of the next turns.
            stuck = stuck + 1 if left <= 0 else 0
            await asyncio.sleep(max(left, 0) + _MOMENT)
    finally:
        telling.cancel()
    if teller is not None:
        teller.look()


async def _tell(teller: Teller | None) -> None:
    while teller is not None:
        teller.look()
        await asyncio.sleep(_LOOK_EVERY)


def tell_end(call: Call, path: str, facts: Facts, *, extra: dict[str, Any] | None = None) -> int:
    """Say how a run stands after it was driven: its result, or what it waits for and what to type next; the exit code."""
    run, out = facts.run, call.out
    code = code_of_state(run.state)
    held = run.state == "running" and liveness(path, facts.owner).alive is not False
    if held:
        code = BUSY
    reasons = explain(call, facts, path)
    if out.json:
        out.document(
            {
                "id": run.id,
                "workflow": run.workflow,
                "state": run.state,
                "reason": run.reason,
                "result": facts.result.document() if run.state == "completed" and facts.result is not None else None,
                "error": None if facts.error is None else facts.error.document(),
                "text": reasons.text,
                "commands": reasons.commands,
                **(extra or {}),
            }
        )
        return code
    if run.state == "completed":
        out.line((run.id, "strong"), " has ", ("completed", "completed"))
        if facts.result is not None:
            out.line("  result  ", facts.result.text(_RESULT))
        return code
    tell(call, reasons)
    return code


_RESULT = 2_000
"""Characters of a result that are shown."""


def stands(journal: Journal, no: int) -> Facts:
    """How a run stands now."""
    return journal.read(lambda tables: gather(journal, tables, no, entries=100, most=EVERYTHING))

"""Journals for the command line to look at, written row by row: each state there is, at times that are known."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Generator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from durable_sqlite._clock import SystemClock
from durable_sqlite._sqlite import connect, migrate, statements, sums, verify
from durable_sqlite._sqlite.rows import Tables

__all__ = ["HOUR", "MINUTE", "SECOND", "Maker", "error", "every_state", "hostile", "made"]

SECOND = 1_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE


def error(message: str = "no route to host", kind: str = "builtins.ConnectionError", **more: Any) -> bytes:
    """A stored error."""
    facts = {"attempts": more.pop("attempts", 1), "error": {"type": kind, "message": message, **more}}
    return json.dumps(facts).encode()


class Maker:
    """Writes rows into a journal. Times are counted back from `now`."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection
        self.now = SystemClock().now()
        self._changed = 0

    def insert(self, table: str, values: Mapping[str, object]) -> int:
        """One row; its number."""
        names = ", ".join(f'"{name}"' for name in values)
        marks = ", ".join(f":{name}" for name in values)
        row = self.connection.execute(f"INSERT INTO durable_{table} ({names}) VALUES ({marks})", values)
        return row.lastrowid or 0

    def run(
        self,
        run_id: str,
        state: str = "suspended",
        *,
        ago: int = 10 * MINUTE,
        tags: Mapping[str, str] | None = None,
        **more: object,
    ) -> int:
        """A run that was started so long ago."""
        at = self.now - ago
        self._changed += 1
        facts: dict[str, object] = {
            "id": run_id,
            "uid": f"uid of {run_id}",
            "workflow": "order",
            "origin": "shop.flows:order",
            "version": "",
            "state": state,
            "input_digest": b"",
            "created_at": at,
            "updated_at": at,
            "input": b'{"name":"a teapot"}',
            "changed": self._changed,
        }
        if state in ("completed", "failed", "parked", "cancelled"):
            facts |= {"ended_at": at + MINUTE, "updated_at": at + MINUTE}
        if state == "completed":
            facts["result"] = b'{"sent":true}'
        no = self.insert("runs", facts | more)
        for name, value in (tags or {}).items():
            self.insert("run_tags", {"run": no, "name": name, "value": value})
        return no

    def entry(self, run: int, key: str, seq: int, *, ago: int, took: int = SECOND, **more: object) -> None:
        """An outcome that was recorded so long ago."""
        facts: dict[str, object] = {
            "run": run,
            "key": key,
            "seq": seq,
            "kind": "step",
            "name": key.partition("#")[0],
            "digest": b"",
            "outcome": "value",
            "asked": seq - 1,
            "started_at": self.now - ago - took,
            "recorded_at": self.now - ago,
            "attempts": 1,
            "payload": b"1",
        }
        self.insert("entries", facts | more)

    def attempt(
        self, run: int, key: str, number: int, *, ago: int, took: int = SECOND, again: int | None = None
    ) -> None:
        """An attempt that failed so long ago, and is followed by the next one after `again`."""
        facts = {
            "run": run,
            "key": key,
            "number": number,
            "started_at": self.now - ago - took,
            "ended_at": self.now - ago,
            "next_at": None if again is None else self.now - ago + again,
            "error": error(),
        }
        self.insert("attempts", facts)

    def wait(self, run: int, key: str, kind: str, *, ago: int, until: int | None = None, **more: object) -> None:
        """A wait that was opened so long ago; `until` counts from now."""
        facts: dict[str, object] = {
            "run": run,
            "key": key,
            "kind": kind,
            "name": key.partition("#")[0],
            "since_at": self.now - ago,
            "deadline_at": None if until is None else self.now + until,
        }
        self.insert("waits", facts | more)

    def question(self, run: int, key: str, *, ago: int, schema: str = '{"type":"boolean"}', **more: object) -> None:
        """A question that was asked so long ago."""
        facts: dict[str, object] = {
            "run": run,
            "key": key,
            "name": key.partition("#")[0],
            "asked_at": self.now - ago,
            "schema": schema,
            "payload": b'{"cents":1200}',
        }
        self.insert("questions", facts | more)

    def message(self, run: int, no: int, name: str, *, ago: int, payload: bytes = b"{}", **more: object) -> None:
        """A message that was sent so long ago and nobody took."""
        facts: dict[str, object] = {"run": run, "no": no, "name": name, "sent_at": self.now - ago, "payload": payload}
        self.insert("signals", facts | more)

    def worker(self, name: str, *, pid: int | None = None, ago: int = HOUR, **more: object) -> int:
        """A worker that opened the journal so long ago."""
        facts: dict[str, object] = {"name": name, "pid": pid or os.getpid(), "started_at": self.now - ago}
        return self.insert("workers", facts | more)


@contextmanager
def made(path: Path) -> Generator[Maker]:
    """A new journal at `path`, as an engine makes it; what is written in the block is there after it, and summed."""
    path.touch(mode=0o600)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        known = migrate.read(migrate.find())
        connect.prepare(connection, known, path=str(path), synchronous="normal", failpoint=lambda _name: None)
        connection.execute("INSERT OR IGNORE INTO durable_meta (name, value) VALUES ('codec', '')")
        connection.execute("BEGIN")
        yield Maker(connection)
        connection.execute("INSERT INTO durable_meta (name, value) VALUES ('identity', '00112233445566ff')")
        tables = Tables(connection, statements.load())
        verify.remember_schema(tables)
        connection.execute("COMMIT")
        sums.fill(tables)


REVIEW = json.dumps(
    {
        "type": "object",
        "properties": {"granted": {"type": "boolean"}, "by": {"type": "string"}, "note": {"type": "string"}},
        "required": ["granted", "by"],
    }
)


def every_state(path: Path) -> None:
    """A journal with a run in each state, and with all that can be shown of one."""
    with made(path) as make:
        dead = make.worker("gone", pid=4_000_001)
        _ended_runs(make)
        _stopped_runs(make)
        _waiting_runs(make)
        no = make.run("run-held", "running", ago=5 * MINUTE, owner=dead, epoch=1, status="packing")
        make.entry(no, "reserve#1", 1, ago=4 * MINUTE)
        make.insert(
            "intents",
            {"run": no, "key": "charge#1", "name": "charge", "digest": b"", "asked": 1, "at": make.now - MINUTE},
        )
        make.run("run-ready", "pending", ago=MINUTE, deaths=2)
        pause: dict[str, Any] = {"pause_at": make.now - MINUTE, "pause_reason": "lunch", "pause_by": "ada"}
        make.run("run-paused", "paused", ago=3 * MINUTE, workflow="refund", **pause)


def _ended_runs(make: Maker) -> None:
    no = make.run("run-done", "completed", ago=20 * MINUTE, tags={"team": "eu"})
    make.attempt(no, "charge#1", 1, ago=20 * MINUTE - 10 * SECOND, again=10 * SECOND)
    make.attempt(no, "charge#1", 2, ago=20 * MINUTE - 25 * SECOND, again=10 * SECOND)
    make.entry(no, "charge#1", 1, ago=20 * MINUTE - 40 * SECOND, attempts=3, payload=b'"ch_17"')
    make.entry(no, "ship#1", 2, ago=19 * MINUTE, took=15 * SECOND, kind="child", payload=b'["a book"]')
    child = make.run(
        "child-of-done", "completed", ago=20 * MINUTE - 45 * SECOND, workflow="ship", parent=no, parent_key="ship#1"
    )
    make.entry(child, "pack#1", 1, ago=19 * MINUTE + 2 * SECOND, took=8 * SECOND)
    cancel: dict[str, Any] = {
        "cancel_at": make.now - 15 * MINUTE,
        "cancel_reason": "twice",
        "cancel_by": "bob",
        "reason": "twice",
    }
    make.run("run-cancelled", "cancelled", ago=16 * MINUTE, **cancel)


def _stopped_runs(make: Maker) -> None:
    cause = {"type": "shop.CardDeclined", "message": "card 42 was declined", "traceback": '  File "shop.py", line 7\n'}
    failed = error(
        "step charge#1 failed: CardDeclined: card 42 was declined",
        "durable_sqlite.errors.StepFailed",
        cause=cause,
        attempts=3,
        key="charge#1",
    )
    no = make.run(
        "run-failed", "failed", ago=30 * MINUTE, reason="retries_exhausted", result=failed, failed_keys='["charge#1"]'
    )
    make.attempt(no, "charge#1", 1, ago=30 * MINUTE, again=SECOND)
    make.entry(
        no, "charge#1", 1, ago=29 * MINUTE, outcome="error", payload=error("card 42 was declined", "shop.CardDeclined")
    )
    make.run(
        "run-parked",
        "parked",
        ago=30 * MINUTE,
        reason="diverged",
        result=error("step pay#1 was recorded", "durable_sqlite.errors.ReplayDiverged"),
    )


def _waiting_runs(make: Maker) -> None:
    no = make.run(
        "run-asks",
        ago=8 * MINUTE,
        status="in review",
        progress_done=1,
        progress_total=4,
        tags={"team": "eu", "kind": "big"},
    )
    make.entry(no, "reserve#1", 1, ago=8 * MINUTE - 2 * SECOND)
    make.question(no, "Review#1", ago=7 * MINUTE, schema=REVIEW)
    make.wait(no, "Review#1", "question", ago=7 * MINUTE, until=2 * HOUR)
    make.message(no, 1, "Paid", ago=MINUTE, payload=b'{"receipt":"r-1"}', dedupe="m-1")
    no = make.run("run-listens", ago=8 * MINUTE)
    make.wait(no, "Paid#1", "signal", ago=8 * MINUTE)
    no = make.run("run-sleeps", ago=8 * MINUTE, due_at=make.now + HOUR)
    make.wait(no, "sleep#1", "sleep", ago=8 * MINUTE, until=HOUR)
    no = make.run("run-overslept", ago=8 * MINUTE, due_at=make.now - MINUTE)
    make.wait(no, "sleep#1", "sleep", ago=8 * MINUTE, until=-MINUTE)
    no = make.run("run-retries", ago=8 * MINUTE, due_at=make.now + HOUR)
    make.attempt(no, "charge#1", 1, ago=8 * MINUTE, again=SECOND)
    make.attempt(no, "charge#1", 2, ago=7 * MINUTE, again=67 * MINUTE)
    make.wait(no, "charge#1", "step", ago=7 * MINUTE, until=HOUR)
    no = make.run("run-parent", ago=8 * MINUTE)
    make.wait(no, "ship#1", "child", ago=8 * MINUTE, target="child-parked")
    make.run(
        "child-parked",
        "parked",
        ago=8 * MINUTE,
        workflow="ship",
        parent=no,
        parent_key="ship#1",
        reason="crash_loop",
        result=error(),
        deaths=5,
    )


HOSTILE = "\x1b[31mred\x1b[0m\u202egnp.\u2066\x07\x9b2J\u200b[bold]<b>&\"'\ud7ff\x00\n\r\t"
"""Controls, marks for the direction of writing, markup of terminals and of pages."""


def hostile(path: Path) -> None:
    """A journal of a stranger, in which each text is out to harm whoever looks."""
    with made(path) as make:
        payload = json.dumps({"text": HOSTILE}, ensure_ascii=False).encode()
        failed = error(
            HOSTILE, f"shop.{HOSTILE}", notes=[HOSTILE], traceback=HOSTILE, cause={"type": HOSTILE, "message": HOSTILE}
        )
        no = make.run(
            f"x{HOSTILE}", "failed", workflow=HOSTILE, origin=HOSTILE, reason=HOSTILE, input=payload, result=failed,
            status=HOSTILE, tags={HOSTILE: HOSTILE}, failed_keys=json.dumps([HOSTILE]),
        )  # fmt: skip
        make.attempt(no, f"{HOSTILE}#1", 1, ago=MINUTE, again=SECOND)
        make.entry(no, f"{HOSTILE}#1", 1, ago=MINUTE, payload=payload, name=HOSTILE)
        make.entry(no, f"{HOSTILE}#2", 2, ago=MINUTE, payload=b"\xff\x1b[2J", kind=HOSTILE, decided_by=HOSTILE)
        make.entry(no, f"{HOSTILE}#3", 3, ago=MINUTE, payload=error(HOSTILE), outcome="error")
        make.message(no, 1, HOSTILE, ago=MINUTE, payload=payload, dedupe=HOSTILE)
        make.question(no, f"{HOSTILE}#4", ago=MINUTE, schema=HOSTILE, payload=payload)
        make.run("y", "failed", workflow=HOSTILE, parent=no, parent_key=HOSTILE, reason=HOSTILE, result=failed)
        no = make.run("z", workflow=HOSTILE, due_at=make.now)
        make.wait(no, f"{HOSTILE}#1", "question", ago=MINUTE, name=HOSTILE, until=0)
        make.wait(no, f"{HOSTILE}#2", HOSTILE, ago=MINUTE, name=HOSTILE, target=HOSTILE)
        make.question(
            no, f"{HOSTILE}#1", ago=MINUTE, schema=json.dumps({"const": HOSTILE}), name=HOSTILE, payload=payload
        )
        make.worker(HOSTILE.replace("\x00", ""), pid=4_000_002, host=HOSTILE)

"""Judges a fleet from outside: by the log that its processes kept, and by what stands in the journal at the end.

The order of the log's lines is the order of what they tell (see `trace`). What the journal says of itself is not believed
where the log knows better.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter, defaultdict
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .deeds import LETTERS, model
from .trace import digest

__all__ = ["Problem", "Verdict", "judge", "read_log"]

Line = tuple[str, int, list[str]]
"""A word, the process that wrote it, and what it says."""


@dataclass(frozen=True, slots=True)
class Problem:
    """A promise that was broken."""

    what: str
    detail: str


@dataclass(slots=True)
class Verdict:
    """What was found, and what was seen on the way."""

    problems: list[Problem] = field(default_factory=list[Problem])
    counts: Counter[str] = field(default_factory=Counter[str])

    def blame(self, what: str, detail: object) -> None:
        """A promise was broken."""
        self.problems.append(Problem(what, str(detail)))

    def expect(self, holds: bool, what: str, detail: object) -> None:
        """A promise was broken, unless this holds."""
        if not holds:
            self.blame(what, detail)


def read_log(path: Path) -> list[Line]:
    """The lines of a log."""
    lines: list[Line] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        word, pid, *facts = line.split(" ")
        lines.append((word, int(pid), facts))
    return lines


def judge(journal: Path, log: Path, *, stopped: bool, finished: bool = True) -> Verdict:
    """Look at what a fleet has left.

    Args:
        journal: Its journal, which nobody has open.
        log: What its processes noted.
        stopped: Whether processes were stopped, so that others may have taken runs from ones that lived; else killed.
        finished: Whether everything is to have come to its end.
    """
    verdict = Verdict()
    story = _Story(verdict, stopped=stopped)
    for number, line in enumerate(read_log(log)):
        story.read(number, *line)
    with closing(sqlite3.connect(f"file:{journal}?mode=ro", uri=True)) as connection:
        connection.row_factory = sqlite3.Row
        _Ledger(verdict, connection, story, log.with_name("effects")).read(finished=finished)
    return verdict


# The log -------------------------------------------------------------------------------------------------------------


class _Story:
    """What happened, line by line."""

    def __init__(self, verdict: Verdict, *, stopped: bool) -> None:
        self._verdict = verdict
        self._stopped = stopped
        self.ids: dict[int, str] = {}
        self.kept: dict[tuple[str, str], str] = {}
        """What was recorded, for certain, by run and key."""
        self.failed: set[tuple[str, str, int]] = set()
        self.started: set[str] = set()
        self.sent: set[tuple[str, int]] = set()
        self.results: dict[str, str] = {}
        self._workers: dict[int, int] = {}
        """The processes behind the numbers of workers."""
        self._over: dict[int, int] = {}
        """In which line a process was killed, or began to close."""
        self._taken: dict[int, tuple[int, int]] = {}
        """The last hold of each run: epoch and worker."""
        self._freed: dict[int, int] = {}
        """The last epoch of each run after which it was taken from its owner."""
        self._let_go: dict[str, int] = {}
        """In which line a run was last taken from its owner, or given back."""
        self._struck: set[int] = set()
        self._beating: dict[int, bool] = {}
        """Whether a worker's heart was still to beat when it last tried."""
        self._began: dict[tuple[str, str, int], tuple[int, int]] = {}
        """Which process last began an attempt, and in which line."""

    def read(self, number: int, word: str, pid: int, facts: list[str]) -> None:
        """One line."""
        self._verdict.counts[word] += 1
        self._read_of_processes(number, word, pid, facts)
        self._read_of_holds(number, word, [*facts, ""])
        match word, facts:
            case "started", [run_id]:
                self.started.add(run_id)
            case "sent", [run_id, n]:
                self.sent.add((run_id, int(n)))
            case "result", [run_id, value]:
                self.results[run_id] = value
            case "began", [run_id, key, attempt]:
                self._body_begins(number, pid, run_id, key, int(attempt))
            case "kept", [no, key, what]:
                self._recorded(self.ids[int(no)], key, what)
            case "failed", [no, key, attempt]:
                self.failed.add((self.ids[int(no)], key, int(attempt)))
            case _:
                pass

    def _read_of_processes(self, number: int, word: str, pid: int, facts: list[str]) -> None:
        match word, facts:
            case "killing", [victim]:
                self._over[int(victim)] = number
            case "closing", _:
                self._over[pid] = number
            case "enrolled", [me]:
                self._workers[int(me)] = pid
            case "refused", [verb]:
                self._verdict.counts[f"refused {verb}"] += 1
            case "complaint", what:
                self._verdict.blame("the engine complains", f"process {pid}: {' '.join(what)}")
            case "lost", _:
                self._verdict.expect(self._stopped, "a lease was lost though nobody was stopped", pid)
            case _:
                pass

    # Who holds what --------------------------------------------------------------------------------------------------

    def _read_of_holds(self, number: int, word: str, facts: list[str]) -> None:
        match word, facts:
            case "took", [me, no, epoch, run_id, *_]:
                if run_id:
                    self.ids[int(no)] = run_id
                self._take(int(me), int(no), int(epoch))
            case "freed", [no, epoch, run_id, *_]:
                self._freed[int(no)] = int(epoch)
                self._let_go[run_id] = number
            case "released", [me, no, *_]:
                self._verdict.expect(int(me) not in self._struck, "a late release was accepted", (me, no))
                self._let_go[self.ids[int(no)]] = number
            case "wrote", [me, verb, no, epoch, *_]:
                self._write(int(me), verb, int(no), int(epoch))
                if verb in ("give_back", "suspend"):
                    self._let_go[self.ids[int(no)]] = number
            case "struck", [no, *_]:
                self._strike(int(no), number)
            case "beating", [me, *_]:
                self._beating[int(me)] = int(me) not in self._struck
            case "beat", [me, *_]:
                self._verdict.expect(self._beating[int(me)], "a late heartbeat was accepted", me)
            case _:
                pass

    def _take(self, me: int, no: int, epoch: int) -> None:
        if self._stopped:
            before, owner = self._taken.get(no, (0, 0))
            self._verdict.expect(
                epoch > before or (epoch, me) == (before, owner),
                "one hold was given twice",
                f"run {self.ids.get(no)}: epoch {epoch} by worker {me}, epoch {before} by worker {owner}",
            )
        self._taken[no] = (epoch, me)

    def _write(self, me: int, verb: str, no: int, epoch: int) -> None:
        # Where processes are killed, a line may tell of a hold that was never committed: nothing follows from it then.
        if not self._stopped:
            return
        current, owner = self._taken.get(no, (0, 0))
        if epoch < current or epoch <= self._freed.get(no, 0):
            self._verdict.blame(
                f"a late write was accepted: {verb}",
                f"run {self.ids.get(no)}: by worker {me} in epoch {epoch}, worker {owner} has it in epoch {current}",
            )

    def _strike(self, no: int, number: int) -> None:
        self._struck.add(no)
        pid = self._workers.get(no)
        if not self._stopped and pid is not None:
            dead = self._over.get(pid, number) < number
            self._verdict.expect(dead, "a worker was taken for dead that lives", f"worker {no}, process {pid}")

    # Steps -----------------------------------------------------------------------------------------------------------

    def _body_begins(self, number: int, pid: int, run_id: str, key: str, attempt: int) -> None:
        step, where = (run_id, key, attempt), f"run {run_id}, {key}, attempt {attempt}, process {pid}"
        # Who was stopped between its last look and the beginning of the body cannot know that it is not to begin.
        zombie = self._stopped and not self._holds(pid, run_id)
        self._verdict.counts["begun by zombies"] += zombie
        if (run_id, key) in self.kept or step in self.failed:
            self._verdict.expect(zombie, "a body began for what was recorded before", where)
        before = self._began.get(step)
        if before is not None:
            process, since = before
            let_go = max(self._over.get(process, -1), self._let_go.get(run_id, -1))
            gone = let_go > since or zombie or (self._stopped and not self._holds(process, run_id))
            self._verdict.expect(gone, "a body began twice without a crash", where)
            self._verdict.counts["begun again"] += 1
        self._began[step] = (pid, number)

    def _holds(self, pid: int, run_id: str) -> bool:
        for no, (_, me) in self._taken.items():
            if self.ids.get(no) == run_id:
                return self._workers.get(me) == pid
        return False

    def _recorded(self, run_id: str, key: str, what: str) -> None:
        known = self.kept.get((run_id, key))
        self._verdict.expect(
            known is None, "an outcome was acknowledged twice", f"run {run_id}, {key}: {known}, {what}"
        )
        self.kept[run_id, key] = what


# The journal ---------------------------------------------------------------------------------------------------------


class _Ledger:
    """What stands in the journal."""

    def __init__(self, verdict: Verdict, connection: sqlite3.Connection, story: _Story, effects: Path) -> None:
        self._verdict = verdict
        self._connection = connection
        self._story = story
        self._effects = effects

    def read(self, *, finished: bool) -> None:
        """All of it."""
        verdict, story = self._verdict, self._story
        ((sound,),) = self._all("PRAGMA integrity_check")
        verdict.expect(sound == "ok", "the file is damaged", sound)
        runs = {row["id"]: row for row in self._all("SELECT * FROM durable_runs")}
        entries = self._entries()
        verdict.counts["runs"] = len(runs)
        verdict.counts["entries"] = sum(map(len, entries.values()))
        for run_id in story.started - runs.keys():
            verdict.blame("an acknowledged start is not there", run_id)
        for (run_id, key), what in story.kept.items():
            row = entries[run_id].get(key)
            there = None if row is None else digest(row["payload"])
            verdict.expect(there == what, "an acknowledged outcome is not there", f"run {run_id}, {key}: {there}")
        for run_id, value in story.results.items():
            row = runs.get(run_id)
            given = None if row is None or row["result"] is None else json.loads(row["result"])
            verdict.expect(given == _json(value), "an acknowledged result is not there", f"run {run_id}: {value}")
        for run_id, rows in entries.items():
            order = sorted(row["seq"] for row in rows.values())
            verdict.expect(order == list(range(1, len(rows) + 1)), "the order of a run has gaps", f"{run_id}: {order}")
        self._bookings(entries)
        self._messages()
        if finished:
            self._ends(runs)

    def _all(self, sql: str) -> list[Any]:
        return self._connection.execute(sql).fetchall()

    def _entries(self) -> defaultdict[str, dict[str, Any]]:
        found: defaultdict[str, dict[str, Any]] = defaultdict(dict)
        for row in self._all("SELECT r.id, e.* FROM durable_entries e JOIN durable_runs r ON r.no = e.run"):
            found[row["id"]][row["key"]] = row
        return found

    def _bookings(self, entries: defaultdict[str, dict[str, Any]]) -> None:
        rows = Counter((run, key, value) for run, key, value in self._all("SELECT run, key, value FROM bookings"))
        recorded = Counter(
            (run_id, key, json.loads(row["payload"]) - 7)
            for run_id, rows_of in entries.items()
            for key, row in rows_of.items()
            if row["kind"] == "transaction"
        )
        self._verdict.counts["bookings"] = rows.total()
        self._verdict.expect(
            rows == recorded,
            "rows of transactions are not as the journal says",
            f"{rows - recorded}, {recorded - rows}",
        )

    def _messages(self) -> None:
        """Each is taken once, by an entry, and in the order in which they came."""
        taken: defaultdict[str, list[tuple[int, str]]] = defaultdict(list)
        for row in self._all(
            "SELECT r.id, s.no, s.taken_by, s.dedupe FROM durable_signals s JOIN durable_runs r ON r.no = s.run ORDER BY s.no"
        ):
            if row["taken_by"] is not None:
                taken[row["id"]].append((row["no"], row["taken_by"]))
        entries = self._all(
            "SELECT r.id, e.key FROM durable_entries e JOIN durable_runs r ON r.no = e.run WHERE e.kind = 'signal' "
            "ORDER BY e.run, e.seq"
        )
        takers: defaultdict[str, list[str]] = defaultdict(list)
        for run_id, key in entries:
            takers[run_id].append(key)
        self._verdict.counts["messages"] = sum(map(len, taken.values()))
        for run_id in taken.keys() | takers.keys():
            by = [key for _, key in taken[run_id]]
            self._verdict.expect(by == takers[run_id], "messages were not taken once and in order", f"{run_id}: {by}")
        there = {
            (run, str(dedupe))
            for run, dedupe in self._all(
                "SELECT r.id, s.dedupe FROM durable_signals s JOIN durable_runs r ON r.no = s.run"
            )
        }
        for run_id, n in self._story.sent:
            self._verdict.expect((run_id, str(n)) in there, "an acknowledged message is not there", f"{run_id}: {n}")

    def _ends(self, runs: dict[str, Any]) -> None:
        verdict = self._verdict
        for run_id, row in runs.items():
            if row["state"] != "completed":
                verdict.blame("a run has not come to its end", f"{run_id}: {row['state']} {row['reason']}")
                continue
            n = next(iter(json.loads(row["input"]).values()))
            wanted, given = model(row["workflow"], n), json.loads(row["result"])
            verdict.expect(given == wanted, "a run came to something else", f"{run_id}: {given}, not {wanted}")
            verdict.counts[row["workflow"]] += 1
        for what, sql in (
            ("a run that has ended has an owner", "SELECT id FROM durable_runs WHERE owner IS NOT NULL"),
            ("a message was not taken", "SELECT run FROM durable_signals WHERE taken_by IS NULL"),
            ("a wait is left", "SELECT run FROM durable_waits"),
            ("a worker that has gone is still enrolled", "SELECT no FROM durable_workers"),
        ):
            found = self._all(sql)
            verdict.expect(not found, what, [tuple(row) for row in found[:5]])
        letters = Counter(run for run, _ in self._all("SELECT run, no FROM durable_signals WHERE dedupe IN (1, 2, 3)"))
        verdict.expect(all(n == LETTERS for n in letters.values()), "a message is there twice", letters)
        for effect in self._effects.iterdir():
            done = effect.read_text(encoding="utf-8").count("done")
            verdict.expect(done <= 1, "an at-most-once step had its effect more than once", f"{effect.name}: {done}")


def _json(text: str) -> Any:
    try:
        return json.loads(text.replace("_", " "))
    except ValueError:
        return text

"""Processes that do the same thing at the same moment: one wins, and the others are told."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Generator, Sequence
from contextlib import closing, contextmanager
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from time import monotonic
from typing import Any

from tests.kill.processes import CONTEXT

from .checker import Verdict
from .fleet import Outcome
from .racers import HELD, Racer, be_taken_over, race, take_over

__all__ = ["race_in_pairs", "race_to_start", "race_to_take_over"]

_PATIENCE = 60.0  # seconds after which a process hangs
_LEASE = 0.2  # seconds, of a process that is to fall silent


class _Track:
    """Processes on one journal, and the gate before which they gather."""

    def __init__(self, journal: Path, mutant: str | None) -> None:
        self._journal = journal
        self._mutant = mutant
        self._gate, self._key = CONTEXT.Pipe(duplex=False)
        self._born = 0
        self.racers: dict[int, tuple[BaseProcess, Connection]] = {}

    def bear(self, what: Callable[..., None], *arguments: Any, drives: bool = True) -> int:
        """One more process; its number."""
        self._born += 1
        here, there = CONTEXT.Pipe()
        racer = Racer(str(self._journal), self._born, there, self._gate, drives, self._mutant)
        child = CONTEXT.Process(target=what, args=(racer, *arguments))
        child.start()
        there.close()
        self.racers[self._born] = child, here
        return self._born

    def hear(self, number: int) -> Any:
        """What a process says next."""
        _, orders = self.racers[number]
        assert orders.poll(_PATIENCE), f"racer {number} hangs"
        return orders.recv()

    def tell(self, number: int, *order: Any) -> Any:
        """Let one process do something; what came of it."""
        self.racers[number][1].send((False, *order))
        return self.hear(number)

    def race(self, numbers: Sequence[int], *order: Any) -> list[Any]:
        """Let processes do something at the same moment; what came of it for each."""
        for number in numbers:
            self.racers[number][1].send((True, *order))
        for number in numbers:
            assert self.hear(number) == "ready"
        os.write(self._key.fileno(), b"!" * len(numbers))
        return [self.hear(number) for number in numbers]

    def kill(self, number: int) -> None:
        """Kill a process, and put away what is left."""
        child, orders = self.racers.pop(number)
        child.kill()
        child.join(_PATIENCE)
        orders.close()

    def dismiss(self) -> None:
        """Let all processes close their engines and end."""
        for _, orders in self.racers.values():
            orders.send(None)
        for number in self.racers:
            assert self.hear(number) == "over"
        for child, _ in self.racers.values():
            child.join(_PATIENCE)


@contextmanager
def _track(folder: Path, mutant: str | None) -> Generator[_Track, None, None]:
    track = _Track(folder / "journal.db", mutant)
    try:
        yield track
    finally:
        for number in list(track.racers):
            track.kill(number)
        track._gate.close()
        track._key.close()


def race_to_start(folder: Path, processes: int, rounds: int, mutant: str | None = None) -> Outcome:
    """Let processes start a run of one id at once: it is there once, and all have it."""
    began, verdict = monotonic(), Verdict()
    with _track(folder, mutant) as track:
        numbers = [track.bear(race, drives=n % 2 == 0) for n in range(processes)]
        for number in numbers:
            track.hear(number)
        for n in range(rounds):
            run_id = f"wanted-{n}"
            handles = track.race(numbers, "start", run_id)
            made = sum(created for _, created in handles)
            verdict.expect(made == 1, "a run was not created once", f"{run_id}: {handles}")
            verdict.expect({got for got, _ in handles} == {run_id}, "handles differ", f"{run_id}: {handles}")
            results = {track.tell(number, "outcome", run_id) for number in numbers[:3]}
            verdict.expect(results == {("completed", 2)}, "results differ", f"{run_id}: {results}")
            verdict.counts["starts"] += len(handles)
        track.dismiss()
        there = [run_id for (run_id,) in _ask(folder, "SELECT id FROM durable_runs")]
    verdict.expect(len(there) == rounds, "a run is there twice, or not at all", there)
    return Outcome(verdict.problems, verdict.counts, monotonic() - began)


_LOSERS: dict[str, set[str | None]] = {
    "resume": {"WrongState"},
    "answer": {"SignalSuperseded"},
    "cancel": {None, "WrongState"},
}
"""What the one that came second is told. A run that is to be cancelled already is asked in vain, and without an error."""


def race_in_pairs(folder: Path, rounds: int, mutant: str | None = None) -> Outcome:
    """Let two processes resume, answer or cancel one run at once: one wins, and the other is told."""
    began, verdict = monotonic(), Verdict()
    with _track(folder, mutant) as track:
        host, *pair = (track.bear(race), track.bear(race, drives=False), track.bear(race))
        for number in (host, *pair):
            track.hear(number)
        for n in range(rounds):
            verb = ("resume", "answer", "cancel")[n % 3]
            run_id, mark = f"{verb}-{n}", folder / f"mark-{n}"
            track.tell(host, "prepare", verb, run_id, str(mark))
            told = dict(zip(pair, track.race(pair, verb, run_id), strict=True))
            verdict.counts[f"races to {verb}"] += 1
            winners = [number for number, answer in told.items() if not isinstance(answer, str)]
            losers = {answer for answer in told.values() if isinstance(answer, str)}
            one = len(winners) == 1 or (verb == "cancel" and len(winners) == 2)
            verdict.expect(one and losers <= _LOSERS[verb], f"two processes {verb} one run, and not one wins", told)
            verdict.counts.update(f"{verb}: {answer}" for answer in losers)
            if verb == "answer":
                ended = track.tell(host, "outcome", run_id)
                verdict.expect(ended in [("completed", number) for number in winners], "another answer counts", ended)
            if verb == "cancel":
                state, reason = track.tell(host, "outcome", run_id)
                by = [f"racer-{number}" for number in winners]
                verdict.expect(state == "cancelled" and reason in by, "a run was cancelled by nobody", (state, reason))
                verdict.expect(mark.read_text() == "done\n", "clean-up did not run once", mark.read_text())
        track.dismiss()
    return Outcome(verdict.problems, verdict.counts, monotonic() - began)


def race_to_take_over(folder: Path, rounds: int, mutant: str | None = None, *, silent: bool = False) -> Outcome:
    """Let two workers take over from a third at once, which is dead or, with `silent`, stopped: that is done once."""
    began, verdict = monotonic(), Verdict()
    with _track(folder, mutant) as track:
        pair = [track.bear(take_over), track.bear(take_over)]
        for number in pair:
            track.hear(number)
        for _ in range(rounds):
            victim = track.bear(be_taken_over, _LEASE, silent)
            track.hear(victim)
            if silent:
                freed = track.race(pair, "watch", _PATIENCE / 2)
            else:
                child, _ = track.racers[victim]
                child.kill()
                child.join(_PATIENCE)
                freed = track.race(pair, "look")
            track.kill(victim)
            verdict.counts["taken over"] += 1
            verdict.expect(sum(freed) == HELD, "runs were not freed once", f"{freed} of {HELD}")
            deaths = _ask(
                folder, f"SELECT id, state, deaths, owner FROM durable_runs WHERE id LIKE 'endless-{victim}-%'"
            )
            right = [row[1:] for row in deaths] == [("pending", 1, None)] * HELD
            verdict.expect(right, "a death was not counted once", deaths)
            track.tell(pair[0], "clear", [row[0] for row in deaths])
            if verdict.problems:
                break
        track.dismiss()
        left = _ask(folder, "SELECT no, name FROM durable_workers")
    verdict.expect(not left, "a worker that has gone is still enrolled", left)
    return Outcome(verdict.problems, verdict.counts, monotonic() - began)


def _ask(folder: Path, sql: str) -> list[Any]:
    with closing(sqlite3.connect(f"file:{folder / 'journal.db'}?mode=ro", uri=True)) as connection:
        return connection.execute(sql).fetchall()

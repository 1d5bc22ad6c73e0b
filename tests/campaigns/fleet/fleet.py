"""Four workers and a client on one journal, killed at random with SIGKILL and replaced at once."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from time import monotonic

from .checker import Problem, judge
from .deeds import DEEDS
from .herd import Herd
from .member import Life
from .mutants import MUTANTS

__all__ = ["Outcome", "kill_fleet"]

_WORKERS = 4
_SOON = 0.05  # seconds in which a process has hardly opened its journal
_SPAN = 0.1  # seconds that a process lives on average
_POINTS = 80  # failpoints that a process may pass before it kills itself


@dataclass(slots=True)
class Outcome:
    """What came of a campaign."""

    problems: list[Problem] = field(default_factory=list[Problem])
    counts: Counter[str] = field(default_factory=Counter[str])
    seconds: float = 0.0


class _Fates:
    """Who is to die when: its time runs from when it is awake, or as good as nobody would come to anything."""

    def __init__(self, herd: Herd, chance: Random) -> None:
        self._herd = herd
        self._chance = chance
        self._roles: dict[int, str] = {}
        self._spans: dict[int, float] = {}
        """For how long those may live that are not awake yet."""
        self._due: dict[int, float] = {}

    def begin(self, *, gently: bool) -> None:
        """The first ones; `gently`: they live long enough for there to be something in the journal."""
        for role in ["worker"] * _WORKERS + ["client"]:
            if gently:
                self._add(self._herd.bear(role=role), role, _SPAN)
            else:
                self.bear(role)
        if gently:
            self._herd.wait_until_open()
            self._due = {number: monotonic() + span for number, span in self._spans.items()}
            self._spans.clear()

    def bear(self, role: str) -> None:
        """One more process, and its fate."""
        chance = self._chance
        point, span = 0, chance.expovariate(1 / _SPAN)
        match chance.randrange(5):
            case 0:
                span = chance.uniform(0, _SOON)
            case 1 | 2:
                # By its own hand, where it matters most; by ours if it does not come so far.
                point, span = chance.randint(1, _POINTS), 5 * _SPAN
            case _:
                pass
        self._add(self._herd.bear(role=role, point=point), role, span)

    def _add(self, number: int, role: str, span: float) -> None:
        self._roles[number] = role
        self._spans[number] = span

    def next_dead(self) -> list[int]:
        """Wait until somebody is to die or has done so; who."""
        ended, awake = self._herd.wait(self._until_next())
        for number in awake:
            if number in self._spans:
                self._due[number] = monotonic() + self._spans.pop(number)
        return ended or [number for number, due in self._due.items() if due <= monotonic()]

    def _until_next(self) -> float | None:
        return max(0.0, min(self._due.values()) - monotonic()) if self._due else None

    def bury(self, number: int) -> str:
        """It has died; what it was."""
        self._due.pop(number, None)
        self._spans.pop(number, None)
        return self._roles.pop(number)


def kill_fleet(
    folder: Path,
    kills: int,
    seed: int,
    mutant: str | None = None,
    *,
    until: float | None = None,
    gently: bool = False,
) -> Outcome:
    """Kill processes of a fleet, until there were so many kills or until that time, let one finish, and judge.

    Args:
        folder: Where journal and log are to be.
        kills: How many.
        seed: Decides who is to live for how long, though not what comes of it.
        mutant: Which rule is broken in all processes.
        until: When it is to end at the latest, by the monotonic clock.
        gently: Whether the first processes come to something before they are killed.
    """
    began, chance = monotonic(), Random(seed)
    deeds = (MUTANTS[mutant].deeds if mutant else None) or tuple(DEEDS)
    herd = Herd(folder, lambda journal, log: Life(str(journal), str(log), 0, deeds=deeds, mutant=mutant))
    fates, done = _Fates(herd, chance), 0
    with herd.at_work():
        fates.begin(gently=gently)
        while done < kills and (until is None or monotonic() < until):
            for number in fates.next_dead():
                herd.kill(number)
                done += 1
                fates.bear(fates.bury(number))
        for number in list(herd.living):
            herd.kill(number)
        # What is broken may never come to an end.
        finished = mutant is not None or herd.finish()
    verdict = judge(herd.journal, herd.log.path, stopped=False, finished=mutant is None)
    for fallen in herd.fallen:
        verdict.blame("a process fell over", fallen)
    verdict.expect(finished, "a healthy process does not finish", f"seed {seed}")
    verdict.counts["kills"] = done
    verdict.counts["side files left"] = len(list(folder.glob("journal.db-worker-*")))
    return Outcome(verdict.problems, verdict.counts, monotonic() - began)

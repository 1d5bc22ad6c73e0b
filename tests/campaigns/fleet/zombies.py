"""Workers on one journal that are stopped for longer than their lease, and go on when others have taken over."""

from __future__ import annotations

from pathlib import Path
from random import Random
from time import monotonic, sleep

from .checker import judge
from .deeds import SAFE
from .fleet import Outcome
from .herd import Herd
from .member import Life

__all__ = ["stop_fleet"]

_WORKERS = 5
_STOPPED = 3
"""How many stand still at once, at the most."""
LEASE = 0.2  # seconds
_DWELL = 0.04  # seconds that steps take: some are under way whenever a process is stopped
_LOOK_EVERY = 0.03  # seconds between two looks at the neighbours, so that a lease decides, and not how often one looks


def stop_fleet(
    folder: Path, stops: int, seed: int, mutant: str | None = None, *, until: float | None = None
) -> Outcome:
    """Stop processes of a fleet, until there were so many stops or until that time, let one finish, and judge."""
    began, chance = monotonic(), Random(seed)
    herd = Herd(
        folder,
        lambda journal, log: Life(
            str(journal),
            str(log),
            0,
            deeds=SAFE,
            lease=LEASE,
            dwell=_DWELL,
            look_every=_LOOK_EVERY,
            synchronous=("normal",),
            mutant=mutant,
        ),
    )
    done, finished = 0, True
    with herd.at_work():
        client = herd.bear(role="client")
        workers = [herd.bear() for _ in range(_WORKERS)]
        herd.wait_until_open()
        due: dict[int, float] = {}
        while done < stops and (until is None or monotonic() < until):
            if len(due) < _STOPPED:
                number = chance.choice([worker for worker in workers if worker not in due])
                herd.stop(number)
                done += 1
                # Some come back before anybody has missed them, most long after.
                due[number] = monotonic() + LEASE * (chance.uniform(2, 4) if chance.random() < 0.8 else chance.random())
                sleep(chance.uniform(0, 0.03))
                continue
            number = min(due, key=due.__getitem__)
            sleep(max(0.0, due.pop(number) - monotonic()))
            leaves = chance.random() < 0.2 and herd.is_open(number)
            herd.go_on(number, told_to_end=leaves)
            if leaves:
                workers.remove(number)
                workers.append(herd.bear())
        for number in due:
            herd.go_on(number)
        herd.wait_until_open()
        for number in [client, *workers]:
            herd.tell_to_end(number)
        ended = [herd.wait_for(number) for number in list(herd.living)]
        finished = all(code == 0 for code in ended)
        if mutant is None:
            finished = herd.finish() and finished
    verdict = judge(herd.journal, herd.log.path, stopped=True, finished=mutant is None)
    for fallen in herd.fallen:
        verdict.blame("a process fell over", fallen)
    verdict.expect(finished, "a process does not close, or does not finish", f"seed {seed}: {ended}")
    verdict.counts["stops"] = done
    return Outcome(verdict.problems, verdict.counts, monotonic() - began)

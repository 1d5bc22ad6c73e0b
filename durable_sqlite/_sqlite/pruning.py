"""The verb by which runs that ended long ago are forgotten, a small transaction at a time."""

from __future__ import annotations

import json

from .._records import Pruned, Pruning
from .desk import Desk
from .queries import see_that_it_goes_on

__all__ = ["prune"]

_FIRST = (-(2**63), 0)
"""Before the end of any run."""


def prune(desk: Desk, pruning: Pruning) -> Pruned:
    """Forget some of the runs that ended by then, and say where to go on."""
    after_at, after_no = pruning.after or _FIRST
    wanted = {
        "before": pruning.before,
        "states": json.dumps(pruning.states),
        "discarded": pruning.discarded,
    }
    place = {"after_at": after_at, "after_no": after_no, "looks": pruning.looks}
    found = desk.all("ended_by", wanted | place)
    see_that_it_goes_on([(ended_at, no) for ended_at, no, *_ in found], (after_at, after_no))
    rows = 0
    ids: list[str] = []
    for ended_at, no, run_id, is_wanted in found:
        if is_wanted and not desk.all("is_needed", wanted | {"run": no, "id": run_id})[0][0]:
            rows += desk.one("rows_of", {"run": no})[0]
            desk.change("forget", {"run": no})
            ids.append(run_id)
            if len(ids) >= pruning.limit or rows >= pruning.rows:
                return Pruned(tuple(ids), (ended_at, no))
    following = (found[-1][0], found[-1][1]) if len(found) == pruning.looks else None
    return Pruned(tuple(ids), following)

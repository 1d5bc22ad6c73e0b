"""What is forgotten for good."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from durable_sqlite._records import Pruned, Pruning, RunRow, State
from tests.support.disk import Disk
from tests.support.memory.door import Door

__all__ = ["Caring"]


class Caring(Door):
    """The verb by which runs that ended long ago are forgotten."""

    def prune(self, pruning: Pruning) -> asyncio.Future[Pruned]:
        """Forget runs that ended long ago."""
        return self._submit(lambda: _prune(self.disk, pruning), drives=False)


def _prune(disk: Disk, pruning: Pruning) -> Pruned:
    ended = sorted((row.ended_at, no) for no, row in disk.runs.items() if row.ended_at is not None)
    places = [place for place in ended if place[0] <= pruning.before and place > (pruning.after or (-(2**63), 0))]
    ids: list[str] = []
    rows = 0
    for place in places[: pruning.looks]:
        row = disk.runs[place[1]]
        if _is_wanted(row, pruning) and not _is_needed(disk, row, pruning):
            rows += _rows(disk, row)
            disk.forget(row.no)
            ids.append(row.id)
            if len(ids) >= pruning.limit or rows >= pruning.rows:
                return Pruned(tuple(ids), place)
    return Pruned(tuple(ids), places[pruning.looks - 1] if len(places) >= pruning.looks else None)


def _is_wanted(row: RunRow, pruning: Pruning) -> bool:
    if row.ended_at is None or row.ended_at > pruning.before:
        return False
    seen_to = row.discarded_at is not None and row.discarded_at <= pruning.before
    return row.state in pruning.states or (pruning.discarded and seen_to)


def _is_needed(disk: Disk, row: RunRow, pruning: Pruning) -> bool:
    awaited = any(wait.target == row.id for waits in disk.open_waits.values() for wait in waits)
    above = any(each.state not in {State.COMPLETED, State.CANCELLED} for each in _above(disk, row))
    return awaited or above or any(not _is_wanted(each, pruning) for each in disk.family(row.no))


def _above(disk: Disk, row: RunRow) -> Iterator[RunRow]:
    while row.parent is not None:
        row = disk.runs[row.parent]
        yield row


def _rows(disk: Disk, row: RunRow) -> int:
    """How many rows are gone with it, or are written because it is gone."""
    no = row.no
    own = (disk.kept, disk.failed, disk.intents, disk.open_waits, disk.mail, disk.asked, disk.early)
    children = sum(each.parent == no for each in disk.runs.values())
    return 1 + len(row.tags) + sum(len(table.get(no, ())) for table in own) + children

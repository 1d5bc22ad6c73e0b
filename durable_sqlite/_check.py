"""Replays every run of a journal's file against the code as it is now, and says what does not fit."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from ._clock import SystemClock
from ._codec import Codec, Vault
from ._front import Front
from ._ids import new_id
from ._lookup import step_exists
from ._records import Memory, RunQuery, RunRow, State
from ._rehearsal import Difference, DifferenceKind, Rehearsal
from ._specs import WorkflowSpec
from ._sqlite import queries
from ._sqlite.glance import Glance
from ._sqlite.rows import Tables
from ._workflows import Workflow
from .errors import UsageError

__all__ = ["Difference", "DifferenceKind", "ReplayReport", "UnknownWorkflow", "check_replay"]

T = TypeVar("T")

_PAGE = 100  # runs read at once; their entries are read one run at a time
_NO_LIMIT = 2**62  # bytes: what is stored already was not too large when it was stored
_OVER = frozenset({State.COMPLETED, State.CANCELLED})
_SHOWN = 20  # differences that a report prints


@dataclass(frozen=True, slots=True)
class UnknownWorkflow:
    """A workflow of which the journal holds runs, and which was not given."""

    workflow: str
    origin: str
    """Where it was defined, as `module:function`."""
    runs: int
    """How many runs of it there are."""
    open: int
    """How many of them may still be driven: neither completed nor cancelled."""


@dataclass(frozen=True, slots=True)
class ReplayReport:
    """What `check_replay` has found. As a text it is a line for each difference, and one in the end."""

    runs: int
    """How many runs were looked at, those of unknown workflows included."""
    differences: tuple[Difference, ...]
    """All that differs, run by run from the oldest to the newest; what an engine takes as it is included."""
    unknown: tuple[UnknownWorkflow, ...]

    @property
    def divergences(self) -> tuple[Difference, ...]:
        """The differences that an engine would not take as they are."""
        return tuple(each for each in self.differences if not each.kind.free)

    @property
    def unfit(self) -> int:
        """How many runs have a divergence."""
        return len({each.run for each in self.divergences})

    @property
    def fits(self) -> bool:
        """Whether there is no divergence, and no open run of an unknown workflow."""
        return not self.divergences and not any(each.open for each in self.unknown)

    def __str__(self) -> str:
        lines = [f"{each.kind}: {each.text}" for each in self.differences[:_SHOWN]]
        if len(self.differences) > _SHOWN:
            lines.append(f"… and {len(self.differences) - _SHOWN} more")
        lines += [
            f"unknown workflow {each.workflow} ({each.origin}): {each.runs} runs, {each.open} of them open"
            for each in self.unknown
        ]
        not_known = sum(each.runs for each in self.unknown)
        return "\n".join([*lines, f"{self.runs - self.unfit - not_known} of {self.runs} runs fit the code"])


def check_replay(
    workflow: Workflow[..., Any] | Collection[Workflow[..., Any]],
    journal: str | os.PathLike[str],
    *,
    codec: Codec | None = None,
    open_only: bool = False,
) -> ReplayReport:
    """Replay every run of a journal's file against the code as it is now; nothing is performed, and nothing written.

    The bodies of the workflows run, with what is recorded, and each stops where its record ends. The file may be in use.

    Args:
        workflow: A workflow, whose runs alone are looked at; or several, and then all runs are, and those of other workflows
            are listed as unknown.
        journal: The path of the file, or of a copy of it.
        codec: The codec of the journal, if it has one.
        open_only: Leave out runs that have completed or were cancelled, since nothing will replay them again.

    Raises:
        UsageError: What was given is no workflow, or the journal is no file.
        NotAJournal: The file is something else.
        JournalError: There is none, or it cannot be read, or an older version of this library wrote it.
        JournalMismatch: It was created with another codec.
    """
    path = os.fspath(journal)
    if path == ":memory:":
        raise UsageError("check_replay looks at the file of a journal, and one in memory has none")
    alone = isinstance(workflow, Workflow)
    given: list[Any] = [workflow] if isinstance(workflow, Workflow) else list(workflow)
    for each in given:
        if not isinstance(each, Workflow):
            raise UsageError(f"check_replay takes workflows, not {each!r}")
    specs: dict[str, WorkflowSpec] = {each.name: each.spec for each in given}
    vault = Vault(codec, _NO_LIMIT)
    check = _Check(str(Path(path).absolute()), specs, vault, codec.name if codec else "")
    names = list(specs) if alone else [None]
    return _off_the_loop(lambda: check.run(names, open_only=open_only))


def _off_the_loop(work: Callable[[], T]) -> T:
    """Do it here; in a thread where an event loop runs here, since a body's loop is not pumped inside a task of another."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return work()
    with ThreadPoolExecutor(1, thread_name_prefix="durable_sqlite check") as pool:
        return pool.submit(work).result()


class _Check:
    """One check of one file."""

    def __init__(self, path: str, workflows: Mapping[str, WorkflowSpec], vault: Vault, codec: str) -> None:
        self._path = path
        self._workflows = workflows
        self._vault = vault
        self._codec = codec
        # What handles on runs are bound to in a body; it is not open, so it does nothing for anybody.
        self._front = Front(path, drives=False, vault=vault, clock=SystemClock(), ids=new_id)
        self._differences: list[Difference] = []
        self._unknown: dict[tuple[str, str], UnknownWorkflow] = {}
        self._runs = 0

    def run(self, names: Collection[str | None], *, open_only: bool) -> ReplayReport:
        """Look at the runs of these workflows; None: of all."""
        states = tuple(state for state in State if state not in _OVER) if open_only else ()
        with Glance(self._path, self._codec) as glance:
            for name in names:
                after: int | None = 0
                while after is not None:
                    after = self._page(glance, RunQuery(name, states, newest_first=False, limit=_PAGE, after=after))
        unknown = sorted(self._unknown.values(), key=lambda each: (each.workflow, each.origin))
        return ReplayReport(self._runs, tuple(self._differences), tuple(unknown))

    def _page(self, glance: Glance, query: RunQuery) -> int | None:
        """Look at some runs; behind which to go on, or None."""
        rows = glance.read(lambda tables: queries.runs(tables, query))
        for row in rows:
            self._look_at(glance, row.no, row)
        return rows[-1].no if rows else None

    def _look_at(self, glance: Glance, no: int, row: RunRow) -> None:
        spec = self._workflows.get(row.workflow)
        if spec is None:
            self._runs += 1
            self._not_known(row)
            return
        found = glance.read(lambda tables: _whole(tables, no))
        if found is None:
            return  # it was pruned meanwhile
        self._runs += 1
        row, memory = found
        rehearsal = Rehearsal(row, memory, spec, host=self._front, vault=self._vault, step_exists=step_exists)
        self._differences += rehearsal.differences()

    def _not_known(self, row: RunRow) -> None:
        place = (row.workflow, row.origin)
        known = self._unknown.get(place) or UnknownWorkflow(*place, 0, 0)
        self._unknown[place] = UnknownWorkflow(*place, known.runs + 1, known.open + (row.state not in _OVER))


def _whole(tables: Tables, no: int) -> tuple[RunRow, Memory] | None:
    """A run and its record, both of one moment; None if it is gone."""
    found = tables.runs(tables.sql["where_no"], {"no": no})
    return (found[0], queries.memory(tables, no)) if found else None

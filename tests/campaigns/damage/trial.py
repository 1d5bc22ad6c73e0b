"""One damage, and what comes of it."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from collections.abc import Coroutine, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from durable_sqlite import DurableError, Engine, FindingKind, Run, Verification
from durable_sqlite._sqlite.mark import mark_file
from durable_sqlite._sqlite.sums import PARTS
from tests.support.restarts import quiet

from .damages import DAMAGES
from .flows import FLOWS, Decision, Go, Review
from .prepare import prepare

__all__ = ["Laboratory", "Trial"]

_ABOUT_ALL = frozenset(FindingKind) - {FindingKind.ENTRY, FindingKind.ROWS}
"""Findings that say something of more than one run."""

_PATIENCE = 10.0  # seconds after which a run that does not end has a fault
_LONGEST = 300.0  # seconds after which whatever goes on goes on for ever, also on a machine that has much else to do


@dataclass(frozen=True, slots=True)
class Trial:
    """What was done, and what came of it."""

    damage: str
    outcome: str
    """`same`, `refused`, `named`; or `broken`, with what was broken in `told`."""
    told: str


Dump = dict[str, list[Any]]


class Laboratory:
    """Journals to be damaged, each time a fresh copy.

    Args:
        folder: Where they are made.
        without_mark: Let the mark be lost each time: then the campaign has to find silent losses.
        drives: Let each journal be driven to its end as well, which takes twice as long.
    """

    def __init__(self, folder: Path, *, without_mark: bool = False, drives: bool = True) -> None:
        self._drives = drives
        self._beside = folder / "beside"
        self._work = folder / "work"
        self._without_mark = without_mark
        prepare(self._beside)
        asyncio.run(_closed(self._beside, "middle", self._beside / "older"))
        asyncio.run(_closed(self._beside, "closed", self._beside))
        shutil.copy(self._beside / "j.db-mark", self._beside / "closed" / "j.db-mark")
        self._same: dict[str, Dump] = {}
        self._ends: dict[str, object] = {}
        for name in (".", "closed"):
            path = self._fresh(name)
            found, data = asyncio.run(_look(path))
            assert found.ok, found
            self._same[name] = data
        self._ends = asyncio.run(_ends(self._fresh("."), {}))
        assert all(not isinstance(end, BaseException) or "failing" in run for run, end in self._ends.items()), (
            self._ends
        )

    def _fresh(self, name: str) -> Path:
        shutil.rmtree(self._work, ignore_errors=True)
        self._work.mkdir()
        for file in (self._beside / name).glob("j.db*"):
            shutil.copy(file, self._work)
        return self._work / "j.db"

    def play(self, seed: int) -> Trial:
        """Damage a copy as the seed says, and see what comes of it."""
        chance = Random(seed)
        name = chance.choice([".", "closed"])
        path = self._fresh(name)
        (damage,) = chance.choices(list(DAMAGES), list(DAMAGES.values()))
        did = f"{'with WAL' if name == '.' else 'closed'}: {damage(self._work, self._beside, chance)}"
        if self._without_mark:
            Path(mark_file(str(path))).unlink()
        try:
            outcome, told = asyncio.run(self._judge(path, self._same[name]))
        except TimeoutError:
            outcome, told = "broken", "it goes on for ever"
        except DurableError as error:
            outcome, told = "refused", f"{type(error).__name__}: {error}"
        except Exception as error:  # whatever it is, nobody should meet it
            outcome, told = "broken", f"raw {type(error).__name__}: {error}"
        return Trial(did, outcome, told)

    async def _judge(self, path: Path, same: Dump) -> tuple[str, str]:
        async with asyncio.timeout(_LONGEST):
            return await self._seen(path, same)

    async def _seen(self, path: Path, same: Dump) -> tuple[str, str]:
        found, data = await _look(path)
        if found.ok and data != same:
            names = [name for name in same if data[name] != same[name]]
            return "broken", f"silent: {', '.join(names)} differ"
        told = "; ".join(finding.what for finding in found.findings)
        if not self._drives:
            return ("same" if found.ok else "named"), told
        ends = await _ends(path, self._ends)
        named = {finding.run for finding in found.findings}
        spared: set[str] = (
            set() if {finding.kind for finding in found.findings} & _ABOUT_ALL else self._ends.keys() - named
        )
        for run in spared:
            if None in named or repr(ends[run]) == repr(self._ends[run]) or _is_kin(run, named):
                continue
            return (
                "broken",
                f"{run} came to {ends[run]!r} and not to {self._ends[run]!r}, and only this was found: {told}",
            )
        for run, end in ends.items():
            if isinstance(end, BaseException) and not isinstance(end, DurableError):
                return "broken", f"{run} came to {end!r}; found was {told}"
        return ("same" if found.ok else "named"), told


def _is_kin(run: str, named: set[str | None]) -> bool:
    """Whether a run waits for one that is damaged: children have ids of their own, and are not asked."""
    return run.startswith("family") and bool(named)


async def _closed(beside: Path, name: str, source: Path) -> None:
    """A copy of a journal as an engine leaves it behind when it is closed."""
    (beside / name).mkdir()
    for file in ("j.db", "j.db-wal"):
        shutil.copy(source / file, beside / name)
    async with Engine(beside / name / "j.db", drive=False):
        pass


async def _look(path: Path) -> tuple[Verification, Dump]:
    """What a client finds, and all that is stored."""
    async with Engine(path, drive=False, synchronous="normal") as engine:
        found = await engine.verify()
        return found, (await asyncio.to_thread(_dump, path)) if found.ok else {}


def _dump(path: Path) -> Dump:
    with closing(sqlite3.connect(path)) as connection:
        tables = {part.table for part in PARTS}
        return {name: sorted(connection.execute(f"SELECT * FROM {name}"), key=repr) for name in sorted(tables)}


async def _ends(path: Path, known: Mapping[str, object]) -> dict[str, object]:
    """What each run comes to when an engine drives it, as far as it goes; and what there is to be seen of it."""
    async with (
        Engine(path, workflows=FLOWS, unload_after=0, synchronous="normal") as engine,
        asyncio.timeout(_PATIENCE),
    ):
        await quiet(engine)
        runs = list(known) or [info.id async for info in engine.runs()]
        ends = {run_id: await _try(_look_at(engine.run(run_id))) for run_id in runs}
        for run_id in runs:
            if ends[run_id] is None:
                ends[run_id] = await _try(_move(engine.run(run_id)))
        await quiet(engine)
        for run_id in runs:
            if ends[run_id] is None:
                ends[run_id] = await _try(_end(engine.run(run_id)))
    return ends


async def _try(what: Coroutine[Any, Any, object]) -> object:
    try:
        return await what
    except Exception as error:
        return error


async def _look_at(run: Run[Any]) -> None:
    await run.info()
    await run.history()
    await run.messages()
    await run.questions()


async def _move(run: Run[Any]) -> None:
    """Give a run what it waits for, where it waits for somebody."""
    if (await run.info()).state != "suspended":
        return
    if "waiter" in run.id:
        await run.signal(Go(by=1))
        await run.signal(Go(by=2))
    elif "answered" in run.id:
        await run.answer(Review, Decision(granted=False), key="damage-review#2")


async def _end(run: Run[Any]) -> object:
    state = (await run.info()).state
    return await run.result() if state.stopped else str(state)

"""Looks at what a power cut left: each image by a glance, some by opening the engine and going on to the end.

A glance is what the engine does first (is it ours, may it be opened), then SQLite's own recovery, and then all pages that it
gives, which have to be those of a state that the journal was in: not older than what was acknowledged. What a state is worth
was seen before (`states`): by SQLite's check of the file, by the library's checksums over all rows, by its facts. The mark must
not tell of a commit that is not there. A second opinion is that of another build of SQLite, where there is one.

To go on to the end: the real engine opens the image, `verify` has to find nothing, and all runs are driven to their end. Then
the checker of the kill fleet reads the log, from before the cut and after it, and the journal.
"""

from __future__ import annotations

import asyncio
import importlib
import sqlite3
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any, Protocol, cast

from durable_sqlite import DurableError, FindingKind
from durable_sqlite._sqlite import mark as marks
from durable_sqlite._sqlite.connect import inspect
from tests.campaigns.fleet.checker import judge
from tests.campaigns.fleet.deeds import set_up

from .life import World, finish, open_engine
from .states import NOTHING, State, States, fingerprint, put, read_pages
from .tape import Said

__all__ = ["Trial", "second_opinion"]

_PATIENCE = 600.0  # seconds after which a run that does not end has a fault
_TOLD = frozenset({FindingKind.WENT_BACK, FindingKind.OTHER_JOURNAL})
"""What may be found where the last acknowledged commits may be lost: that they are."""


class Opinion(Protocol):
    """Another SQLite."""

    version: str

    def pages(self, path: Path) -> bytes:
        """All pages of the file, once its WAL was recovered."""
        ...


def second_opinion() -> Opinion | None:
    """That of the SQLite which APSW brings, if it is installed."""
    try:
        apsw = cast("Any", importlib.import_module("apsw"))
    except ImportError:
        return None
    return _Apsw(apsw)


class _Apsw:
    def __init__(self, apsw: Any) -> None:
        self._apsw = apsw
        self.version: str = apsw.sqlite_lib_version()

    def pages(self, path: Path) -> bytes:
        connection = self._apsw.Connection(str(path))
        try:
            ((many,),) = connection.execute("PRAGMA page_count").fetchall()
            return bytes(connection.serialize("main")) if many else b""
        finally:
            connection.close()


class Trial:
    """Looks at images of one tape.

    Args:
        states: The states of the tape.
        folder: An empty folder to work in.
    """

    def __init__(self, states: States, folder: Path) -> None:
        self._states = states
        self._disk = folder / "disk"
        self._disk.mkdir()
        self._log = folder / "log"
        self._effects = folder / "effects"
        self._effects.mkdir()
        self._is_full = states.tape.synchronous == "full"
        self._opinion = second_opinion()
        self.lost = 0
        """How many images lacked something that was acknowledged, where that may be."""

    def glance(self, cut: int, image: dict[str, bytes], *, twice: bool) -> str | None:
        """What is wrong with an image, or None; `twice`: another SQLite is asked as well."""
        if twice and self._opinion is not None:
            told = self._see(cut, image, "another SQLite: ", self._opinion.pages)
            if told is not None:
                return told
        return self._see(cut, image, "", read_pages)

    def _see(self, cut: int, image: dict[str, bytes], who: str, read: Callable[[Path], bytes]) -> str | None:
        path = put(self._disk, image)
        try:
            if path.exists():
                inspect(str(path), lambda _name: None, network=True)  # where it lies was seen before
            mark = fingerprint(read(path)) if path.exists() else NOTHING
        except (DurableError, sqlite3.Error) as error:
            return f"{who}it cannot be opened: {type(error).__name__}: {error}"
        except Exception as error:  # those of another SQLite are no relatives
            return f"{who}it cannot be opened: {error!r}"
        state = self._states.found.get(mark)
        if state is None:
            return f"{who}this is no state that the journal was ever in"
        return self._fits(cut, state, image.get("j.db-mark", b""))

    def _fits(self, cut: int, state: State, mark: bytes) -> str | None:
        states = self._states
        if state.number > states.reached[cut]:
            return f"state {state.number} was not there yet"
        if state.number < states.owed[cut]:
            if self._is_full:
                return f"state {state.number} lacks what was acknowledged: {states.lost(cut, state)}"
            self.lost += 1
        said = _says(mark)
        if self._is_full and said > state.commit:
            return f"the mark tells of commit {said}, and the last one there is {state.commit}"
        return None

    # To the end ------------------------------------------------------------------------------------------------------

    def go_on(self, cut: int, image: dict[str, bytes], chance: Random) -> list[str]:
        """Open an image with the engine, and go on until all runs have ended; what is wrong."""
        path = put(self._disk, image)
        tape = self._states.tape
        # Where acknowledged commits may be lost, nothing is owed of what was said before.
        lines = [*tape.said, *(op.line for op in tape.ops[:cut] if isinstance(op, Said))] if self._is_full else []
        effects = [line.split(" ")[2] for line in lines if line.startswith("effect ")]
        processes = {line.split(" ")[1] for line in lines}
        lines += [f"killing {process} {process}" for process in sorted(processes)]
        world = World(lines.append, effects)
        world.process = max(map(int, processes), default=0) + 1
        with world.around():
            try:
                problems = asyncio.run(self._finish(path, world, chance))
            except Exception as error:  # whatever it is, nobody should meet it
                return [f"going on: {error!r}"]
        if not self._is_full:
            lines = [line for line in lines if not (line.startswith("complaint ") and "What_to_do" in line)]
        return problems + self._judge(path, lines, world.effects)

    async def _finish(self, path: Path, world: World, chance: Random) -> list[str]:
        async with (
            asyncio.timeout(_PATIENCE),
            open_engine(path, self._states.tape.synchronous, chance) as engine,
        ):
            found = await engine.verify()
            await engine.transact(set_up)
            await finish(engine, world)
            world.note("closing")
        return [f"verify: {finding.what}" for finding in found.findings if self._is_full or finding.kind not in _TOLD]

    def _judge(self, path: Path, lines: list[str], effects: list[str]) -> list[str]:
        self._log.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        for left in self._effects.iterdir():
            left.unlink()
        for name in effects:
            with (self._effects / name.replace("/", "|")).open("a", encoding="utf-8") as file:
                file.write("done\n")
        verdict = judge(path, self._log, stopped=False)
        return [f"{problem.what}: {problem.detail}" for problem in verdict.problems]


def _says(mark: bytes) -> int:
    """The largest commit that a mark tells of."""
    slots = (mark[at : at + marks._SIZE] for at in range(0, len(mark), marks._SIZE))
    return max((said[1] for slot in slots if (said := marks._read(slot)) is not None), default=0)

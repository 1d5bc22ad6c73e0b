"""`durable_sqlite demo`: a run killed with -9 in the middle of a step, and finished by another process."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from .._records import HistoryEntry
from ..engine import Engine
from ._trouble import Trouble
from .demo_order import RUN_ID

__all__ = ["Shown", "run_demo"]

_STEPS = ("reserve", "price", "charge", "pack", "ship")
_KILL_AT = "charge#1"


@dataclass(frozen=True, slots=True)
class _Effect:
    """One line of the log that the steps write outside the journal."""

    key: str
    pid: int
    idempotency_key: str
    recovered: bool


@dataclass(frozen=True, slots=True)
class Shown:
    """What came of it.

    Args:
        processes: The one that was killed, and the one that went on.
        result: Of the run.
        checks: What it says, and whether that held.
    """

    processes: tuple[int, int]
    result: str
    checks: tuple[tuple[str, bool], ...]

    @property
    def held(self) -> bool:
        """Whether all of it held."""
        return all(held for _, held in self.checks)


def run_demo(keep: str | None, *, out: TextIO) -> Shown:
    """Show it on `out`.

    Raises:
        Trouble: There is a demo in the folder already, or none can be made there.
    """
    if keep is not None:
        folder = Path(keep)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            raise Trouble(f"{folder} is no folder", "name another one with --keep") from None
        if (folder / "demo.db").exists():
            raise Trouble(f"{folder / 'demo.db'} is there already", "name another folder with --keep")
        return _Demo(folder, out).show()
    with tempfile.TemporaryDirectory(prefix="durable_sqlite-demo-") as temporary:
        return _Demo(Path(temporary), out).show()


class _Demo:
    def __init__(self, folder: Path, out: TextIO) -> None:
        self._journal = folder / "demo.db"
        self._log = folder / "effects.log"
        self._out = out

    def show(self) -> Shown:
        """The whole demo."""
        self._say(f"A workflow of five steps: {', '.join(_STEPS)}.")
        self._say(f"Its journal is one SQLite file: {self._journal}")
        first = self._first_process()
        before = self._history()
        self._say()
        self._say(f"The journal now holds {len(before)} outcomes: {', '.join(entry.name for entry in before)}.")
        second, result = self._second_process()
        self._tell_second(before, second)
        self._say(f"  result: {result}")
        return Shown((first, second), result, self._judge(before, first, second))

    def _first_process(self) -> int:
        process = self._start()
        self._say()
        self._say(f"Process {process.pid} starts run {RUN_ID}:")
        assert process.stdout is not None
        with process.stdout as lines:
            for line in lines:
                effect = _parse(line)
                if effect.key != _KILL_AT:
                    self._say(f"  {_name(effect)}  ran")
                    continue
                os.kill(process.pid, signal.SIGKILL)
                self._say(f"  {_name(effect)}  is in the middle of its work … kill -9 {process.pid}")
                break
        process.wait()
        return process.pid

    def _second_process(self) -> tuple[int, str]:
        process = self._start()
        self._say()
        self._say(f"Process {process.pid} opens the same journal and asks for run {RUN_ID}:")
        said, _ = process.communicate()
        ended = [line.removeprefix("ended ") for line in said.splitlines() if line.startswith("ended ")]
        return process.pid, ended[0] if ended else "none"

    def _start(self) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "durable_sqlite.cli.demo_order", str(self._journal), str(self._log)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)  # noqa: S603 - our own module, by this Python

    def _tell_second(self, before: list[HistoryEntry], pid: int) -> None:
        for entry in before:
            self._say(f"  {entry.name:<8} remembered: {entry.value!r}")
        for effect in self._effects():
            if effect.pid == pid:
                again = (
                    f"ran again, with the same idempotency key {effect.idempotency_key}" if effect.recovered else "ran"
                )
                self._say(f"  {_name(effect)} {again}")

    def _judge(self, before: list[HistoryEntry], first: int, second: int) -> tuple[tuple[str, bool], ...]:
        effects = self._effects()
        recorded = {entry.key for entry in before}
        runs = Counter(effect.key for effect in effects)
        after = self._history()
        keys = {effect.idempotency_key for effect in effects if effect.key == _KILL_AT}
        again = [effect for effect in effects if effect.key == _KILL_AT and effect.pid == second]
        self._say()
        self._say("What it proves, by a log that the steps write outside the journal:")
        checks = (
            (
                all(runs[key] == 1 for key in recorded) and len(recorded) > 0,
                f"no step that was recorded ran twice ({', '.join(sorted(recorded))}: once each)",
            ),
            (
                runs[_KILL_AT] == len((first, second)) and len(keys) == 1 and len(again) == 1 and again[0].recovered,
                f"the step that was killed ran again, knew it (recovered), and with one idempotency key ({_KILL_AT}: twice)",
            ),
            (
                len(after) == len(_STEPS) and {effect.pid for effect in effects} == {first, second},
                f"the run went on in another process ({first}, then {second}) and has five outcomes, no more",
            ),
        )
        for held, what in checks:
            self._say(f"  {'yes' if held else 'NO '}  {what}")
        return tuple((what, held) for held, what in checks)

    def _effects(self) -> list[_Effect]:
        return [_parse(line) for line in self._log.read_text().splitlines()]

    def _history(self) -> list[HistoryEntry]:
        async def read() -> list[HistoryEntry]:
            async with Engine(self._journal, drive=False) as engine:
                return list(await engine.run(RUN_ID).history())

        return asyncio.run(read())

    def _say(self, line: str = "") -> None:
        print(line, file=self._out, flush=True)


def _parse(line: str) -> _Effect:
    _, key, pid, idempotency_key, recovered = line.split()
    return _Effect(key, int(pid), idempotency_key, recovered == "1")


def _name(effect: _Effect) -> str:
    return f"{effect.key.partition('#')[0]:<8}"

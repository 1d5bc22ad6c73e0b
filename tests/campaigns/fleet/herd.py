"""Processes of a fleet, and the parent that starts, kills and stops them and never opens their journal."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from tests.kill.processes import CONTEXT

from .member import Life, live

__all__ = ["Herd", "Log"]

_PATIENCE = 120.0  # seconds after which a process hangs


class Log:
    """The parent's end of the log."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.with_name("effects").mkdir(parents=True, exist_ok=True)
        self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def note(self, word: str, *facts: object) -> None:
        """Append a line."""
        os.write(self._descriptor, f"{' '.join([word, str(os.getpid()), *map(str, facts)])}\n".encode())

    def close(self) -> None:
        """Write no more."""
        os.close(self._descriptor)


class Herd:
    """Processes that live on one journal.

    Args:
        folder: Where journal and log are.
        life: How each process lives, its number and what else is its own aside.
    """

    def __init__(self, folder: Path, life: Callable[[Path, Path], Life]) -> None:
        self.journal, self._log_path = folder / "journal.db", folder / "log"
        self.log = Log(self._log_path)
        self._life = life(self.journal, self._log_path)
        self.born = 0
        """How many there were, the dead included."""
        self._words: dict[int, Connection] = {}
        """Where those say that they are awake, and then that they are open, that have not said so yet."""
        self._awake: set[int] = set()
        self.living: dict[int, BaseProcess] = {}
        """The processes by their numbers."""
        self.stopped: set[int] = set()
        self.fallen: list[str] = []
        """Processes that ended by themselves, and should not have."""

    @contextmanager
    def at_work(self) -> Generator[Herd, None, None]:
        """Whatever happens, no process is left over."""
        try:
            yield self
        finally:
            for number in list(self.living):
                self.kill(number)
            self.log.close()

    def bear(self, **own: Any) -> int:
        """One more process; its number."""
        self.born += 1
        here, there = CONTEXT.Pipe(duplex=False)
        child = CONTEXT.Process(target=live, args=(replace(self._life, number=self.born, **own), there))
        child.start()
        there.close()
        self.living[self.born] = child
        self._words[self.born] = here
        return self.born

    def wait(self, seconds: float | None) -> tuple[list[int], list[int]]:
        """Wait until processes have ended or are awake; who has ended, and who is awake."""
        sentinels = {child.sentinel: number for number, child in self.living.items()}
        words = {word: number for number, word in self._words.items() if number not in self._awake}
        heard = wait([*sentinels, *words], seconds)
        awake = [words[one] for one in heard if isinstance(one, Connection)]
        self._awake.update(awake)
        return [sentinels[one] for one in heard if isinstance(one, int)], awake

    def is_open(self, number: int) -> bool:
        """Whether a process has opened the journal, and hears what it is told."""
        word = self._words.get(number)
        while word is not None and word.poll():
            if word.recv_bytes() == b"open":
                self._words.pop(number).close()
                word = None
        return word is None

    def kill(self, number: int) -> None:
        """Kill a process with SIGKILL, and wait until it is gone."""
        child = self.living[number]
        if child.exitcode is None:
            self.log.note("killing", child.pid)
            child.kill()
        self.bury(number)

    def bury(self, number: int) -> int:
        """Put away what is left of a process that has ended; how it ended."""
        child = self.living.pop(number)
        self.stopped.discard(number)
        self._awake.discard(number)
        if number in self._words:
            self._words.pop(number).close()
        child.join(_PATIENCE)
        code = child.exitcode
        assert code is not None, f"process {number} cannot be killed"
        if code not in (0, -signal.SIGKILL):
            self.fallen.append(f"process {number} ended with {code}; what it said stands above")
        child.close()
        return code

    def stop(self, number: int) -> None:
        """Let a process stand still, in the middle of whatever it does."""
        pid = self.living[number].pid
        self.log.note("stopping", pid)
        self.stopped.add(number)
        _signal(pid, signal.SIGSTOP)

    def go_on(self, number: int, *, told_to_end: bool = False) -> None:
        """Let it go on; `told_to_end` is what it then hears first."""
        pid = self.living[number].pid
        if told_to_end:
            _signal(pid, signal.SIGTERM)
        self.log.note("continuing", pid)
        self.stopped.discard(number)
        _signal(pid, signal.SIGCONT)

    def tell_to_end(self, number: int) -> None:
        """SIGTERM: it closes its engine."""
        _signal(self.living[number].pid, signal.SIGTERM)

    def wait_for(self, number: int, seconds: float = _PATIENCE) -> int | None:
        """Wait until a process has ended; how it ended, None if it has not."""
        self.living[number].join(seconds)
        return None if self.living[number].exitcode is None else self.bury(number)

    def wait_until_open(self) -> None:
        """Wait until all processes have opened the journal."""
        until = time.monotonic() + _PATIENCE
        while not all(map(self.is_open, self.living)):
            assert time.monotonic() < until, "the processes do not open the journal"
            time.sleep(0.005)

    def finish(self) -> bool:
        """Let one healthy process do all that is left; whether it came to an end by itself."""
        return self.wait_for(self.bear(role="finisher", point=0, dwell=0.0)) == 0


def _signal(pid: int | None, which: signal.Signals) -> None:
    assert pid is not None
    os.kill(pid, which)

"""One fault in one process, and what is left of its journal."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from tests.campaigns.fleet.checker import judge, read_log
from tests.kill.processes import exit_code
from tests.support.house import environment

from .program import TOLD, live

__all__ = ["CALLS", "Fault", "Trial", "calls_of", "faults", "may_trace", "play"]

CALLS = ("pwrite64", "fdatasync", "fsync", "ftruncate")
_ERRORS = {"pwrite64": ("EIO", "ENOSPC"), "fdatasync": ("EIO",), "fsync": ("EIO",), "ftruncate": ("EIO", "ENOSPC")}
_PATIENCE = 60.0  # seconds after which a process hangs
_KILLED = (-9, 137)  # strace ends as what it traces did


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens at the n-th call of a name, in each thread of the process."""

    call: str
    number: int
    what: str
    """An error, or KILL."""
    for_ever: bool = False

    def __str__(self) -> str:
        return f"{self.what} at {self.call} {self.number}{' and all after it' if self.for_ever else ''}"

    @property
    def injection(self) -> str:
        """In the words of strace."""
        how = "signal=KILL" if self.what == "KILL" else f"error={self.what}"
        return f"inject={self.call}:{how}:when={self.number}{'+' if self.for_ever else ''}"


@dataclass(frozen=True, slots=True)
class Trial:
    """What came of a fault."""

    fault: Fault
    outcome: str
    """`passed`, `told` or `killed`: how the process that met it has ended."""
    problems: tuple[str, ...]


@functools.cache
def may_trace() -> bool:
    """Whether faults can be made here."""
    if sys.platform != "linux" or shutil.which("strace") is None:
        return False
    command = ["strace", "-f", "-o", os.devnull, "-e", "inject=fsync:error=EIO:when=1", "true"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def calls_of(folder: Path) -> dict[str, int]:
    """How often the thread that makes most of them makes each call, where nobody disturbs."""
    folder.mkdir()
    trace = folder / "trace"
    code, said = _run(folder, "-o", str(trace), "-e", f"trace={','.join(CALLS)}")
    assert code == 0, said
    made = Counter(
        (line.split(" ", 1)[0], call) for line in trace.read_text().splitlines() for call in CALLS if f"{call}(" in line
    )
    return {call: max((n for (_, each), n in made.items() if each == call), default=0) for call in CALLS}


def faults(calls: dict[str, int], each: int | None = None, chance: Random | None = None) -> Iterator[Fault]:
    """All faults at these calls; or at so many of each call, one in each part of the story."""
    for call, most in calls.items():
        parts = most if each is None else min(each, most)
        for part in range(parts):
            low, high = 1 + most * part // parts, most * (part + 1) // parts
            number = low if chance is None else chance.randint(low, high)
            for error in _ERRORS[call]:
                yield Fault(call, number, error)
                yield Fault(call, number, error, for_ever=True)
            yield Fault(call, number, "KILL")


def play(folder: Path, fault: Fault) -> Trial:
    """Let a process meet a fault, let a healthy one finish, and judge what both have left."""
    folder.mkdir()
    # Faster with a filter, under which no signal is sent.
    fast = () if fault.what == "KILL" else ("--seccomp-bpf",)
    code, said = _run(folder, *fast, "-o", os.devnull, "-e", f"trace={fault.call}", "-e", fault.injection)
    problems: list[str] = []
    outcome = {0: "passed", TOLD: "told", **dict.fromkeys(_KILLED, "killed")}.get(code, "fell over")
    expected = ("passed", "killed") if fault.what == "KILL" else ("passed", "told")
    if outcome not in expected:
        problems.append(f"the process {outcome} ({code}): {said[-2_000:]}")
    if not (folder / "log").exists():
        return Trial(fault, outcome, tuple(problems))
    _note_the_end(folder / "log")
    healthy = exit_code(live, str(folder / "j.db"), str(folder / "log"))
    if healthy != 0:
        problems.append(f"a healthy process does not finish what is left: {healthy}, {_told(folder / 'log')}")
    verdict = judge(folder / "j.db", folder / "log", stopped=False, finished=healthy == 0)
    problems += [f"{problem.what}: {problem.detail}" for problem in verdict.problems]
    return Trial(fault, outcome, tuple(problems))


def _run(folder: Path, *how: str) -> tuple[int, str]:
    program: Sequence[str] = (sys.executable, "-m", "tests.campaigns.injection.program")
    command = ["strace", "-f", *how, *program, str(folder / "j.db"), str(folder / "log")]
    process = subprocess.Popen(
        command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    try:
        said, _ = process.communicate(timeout=_PATIENCE)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 9)
        said, _ = process.communicate()
        return -1, f"it hangs; {said}"
    return process.returncode, said


def _note_the_end(log: Path) -> None:
    """However the process ended: what it had begun may begin again."""
    born = [pid for word, pid, _ in read_log(log) if word == "born"]
    with log.open("a", encoding="utf-8") as file:
        file.write(f"killing {os.getpid()} {born[-1]}\n")


def _told(log: Path) -> str:
    return next((" ".join(facts) for word, _, facts in reversed(read_log(log)) if word == "told"), "")

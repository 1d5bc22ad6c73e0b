"""Records what engines do to a disk: `python -m tests.campaigns.power.record FOLDER SEED`.

In the folder, `disk/` holds what is on the disk before, and `said` the lines of earlier lives; `tape` is left there.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import pickle
import sqlite3
import subprocess
import sys
from pathlib import Path
from random import Random

from .disk import Disk
from .life import World, live
from .mutants import MUTANTS
from .tape import Tape
from .vfs import Recorder

__all__ = ["record"]

_ROOT = Path(__file__).parents[3]


def record(folder: Path, seed: int, *, synchronous: str, mutant: str | None, runs: int) -> Tape:
    """Record a life in a process of its own.

    Args:
        folder: What is in `disk` there is on the disk before, and `said` tells what was said until then.
        seed: Decides what is started and how engines end, though not in which order things happen.
        synchronous: What the engines are told.
        mutant: Which rule is broken.
        runs: How many runs are started.
    """
    (folder / "disk").mkdir(parents=True, exist_ok=True)
    (folder / "said").touch()
    program = [sys.executable, "-m", "tests.campaigns.power.record", str(folder), str(seed), synchronous, str(runs)]
    environment = os.environ | {"PYTHONPATH": str(_ROOT)}
    subprocess.run([*program, *([mutant] if mutant else [])], check=True, cwd=_ROOT, env=environment)
    tape: Tape = pickle.loads((folder / "tape").read_bytes())
    disk = Disk(tape)
    disk.play(len(tape.ops))
    there = _files(folder / "disk")
    if disk.as_it_is() != there:  # else all that follows would be about another disk
        raise RuntimeError("the tape does not tell all that was done to the files")
    return tape


def _files(folder: Path) -> dict[str, bytes]:
    """All but the shared memory, which is no matter of the disk."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if not path.name.endswith("-shm")}


def _main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("seed", type=int)
    parser.add_argument("synchronous")
    parser.add_argument("runs", type=int)
    parser.add_argument("mutant", nargs="?")
    options = parser.parse_args()
    disk: Path = options.folder / "disk"
    said = tuple((options.folder / "said").read_text(encoding="utf-8").splitlines())
    start = _files(disk)
    recorder = Recorder(disk)
    recorder.install()
    world = World(recorder.say, [line.split(" ")[2] for line in said if line.startswith("effect ")])
    world.process = max((int(line.split(" ")[1]) for line in said), default=0) + 1
    tape = Tape(start, said, recorder.numbers, options.synchronous, sqlite3.sqlite_version, recorder.ops)
    with recorder.beside(), world.around(), MUTANTS[options.mutant].broken():
        asyncio.run(live(world, disk / "j.db", Random(options.seed), options.synchronous, options.runs))
    (options.folder / "tape").write_bytes(pickle.dumps(tape))


if __name__ == "__main__":
    _main()

"""One measurement in a process of its own: `python -m benchmarks.measure SCENARIO SIDE SIZE` prints it as one line of JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.scenarios import SCENARIOS
from benchmarks.shape import Figures, Scenario, Side
from benchmarks.witness import WITNESS

__all__ = ["Measured", "fresh", "here", "side_of"]

_ROOT = Path(__file__).resolve().parent.parent
_LONGEST = 900  # seconds


@dataclass(frozen=True, slots=True)
class Measured:
    """What one side measured, and at what durability."""

    figures: Figures
    durability: list[str]
    log_grew: int = 0
    """Bytes by which a log grew that was at its full length: then its commits cost more than those of others."""


def side_of(scenario: Scenario, name: str) -> Side:
    """The side of this name."""
    [side] = [side for side in scenario.sides if side.name == name]
    return side


def here(scenario: Scenario, side: Side, size: int) -> Measured:
    """Measure one side in this process, in a folder that is gone afterwards."""
    with WITNESS.watching(), tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as folder:
        figures = side.measure(Path(folder), size)
    if side.stores and (WITNESS.weak or not WITNESS.seen):
        found = sorted(WITNESS.seen) or "nothing"
        raise SystemExit(f"{scenario.name} ({side.name}): not seen to be durable, but {found}; this cannot be compared")
    return Measured(figures, sorted(WITNESS.seen), WITNESS.grown)


def fresh(scenario: Scenario, side: Side, size: int) -> Measured:
    """Measure one side in a fresh process."""
    command = [sys.executable, "-m", "benchmarks.measure", scenario.name, side.name, str(size)]
    paths = [str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    # An installation has its byte code; a checkout gets it with its first start.
    env.pop("PYTHONDONTWRITEBYTECODE", None)
    done = subprocess.run(command, capture_output=True, text=True, timeout=_LONGEST, env=env, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{scenario.name} ({side.name}) ended with {done.returncode}:\n{done.stderr.strip()}")
    return Measured(**json.loads(done.stdout.splitlines()[-1]))


def _main(name: str, side: str, size: str) -> None:
    scenario = SCENARIOS[name]
    print(json.dumps(asdict(here(scenario, side_of(scenario, side), int(size)))), flush=True)


if __name__ == "__main__":
    _main(*sys.argv[1:])

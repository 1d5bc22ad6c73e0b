"""The command line as a person runs it: in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tests.support.house import ROOT

__all__ = ["Said", "durable_sqlite", "environment", "traces"]

_TRACES = (
    "Traceback",
    "Exception ignored",
    "never retrieved",
    "never awaited",
    "Logging error",
    f"{ROOT}/durable_sqlite/",
)
"""What Python and asyncio say where an error is let go of, and where the lines of a traceback of ours would lie."""


class Said(NamedTuple):
    """What a command said."""

    code: int
    out: str
    err: str

    @property
    def data(self) -> Any:
        """Its standard output as JSON."""
        return json.loads(self.out)


def environment(**more: str) -> dict[str, str]:
    """The environment of a command: this tree's package, and nothing that says which journal or code is meant."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("DURABLE_SQLITE_") and name not in {"COLUMNS", "NO_COLOR"}
    }
    return {**kept, "PYTHONPATH": str(ROOT), "TZ": "UTC", **more}


def traces(text: str) -> list[str]:
    """What of an output is a traceback of ours, or the rest of one."""
    return [trace for trace in _TRACES if trace in text]


def durable_sqlite(
    *arguments: str | Path,
    cwd: Path,
    env: Mapping[str, str] | None = None,
    codes: tuple[int, ...] = (0,),
    by: tuple[str | Path, ...] = (),
) -> Said:
    """Run a command, or a program that becomes it; what it said. Its exit code is one of `codes`, and it shows no traceback."""
    command = [*map(str, by), sys.executable, "-m", "durable_sqlite", *map(str, arguments)]
    done = subprocess.run(
        command, cwd=cwd, env=environment(**(env or {})), capture_output=True, text=True, timeout=60, check=False
    )
    said = Said(done.returncode, done.stdout, done.stderr)
    assert traces(said.out + said.err) == [], said.err
    assert said.code in codes, said
    return said

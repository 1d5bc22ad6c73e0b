"""Keeps what a campaign has come to, one small file each, and what it ran on."""

from __future__ import annotations

import io
import json
import os
import platform
import sqlite3
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import closing, redirect_stdout
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

from .registry import Result

__all__ = ["RESULTS", "environment", "recorded", "save"]

ROOT = Path(__file__).parents[2]
RESULTS = Path(__file__).parent / "results"
_CHANGES = ("status", "--porcelain", "--untracked-files=no", "--", ".", f":(exclude){RESULTS.relative_to(ROOT)}")
"""What is not committed, but for what campaigns have come to: one after the other may be recorded."""
_SAID = 30  # lines of what a campaign said that are kept


class _Tee(io.TextIOBase):
    """Writes on, and keeps."""

    def __init__(self, target: TextIO) -> None:
        self._target = target
        self.kept: list[str] = []

    def write(self, text: str) -> int:
        self.kept.append(text)
        return self._target.write(text)

    def flush(self) -> None:
        self._target.flush()


def recorded(name: str, arguments: list[str], run: Any, options: Any, folder: Path = RESULTS) -> int:
    """Run a campaign, and keep what it came to in `NAME.json`; its exit code."""
    began, tee, here = time.perf_counter(), _Tee(sys.stdout), environment()
    with redirect_stdout(tee):
        came = run(options)
    result = came if isinstance(came, Result) else None
    code = came.code if isinstance(came, Result) else int(came)
    facts: dict[str, Any] = {
        "campaign": name,
        "command": " ".join(["python -m tests.campaigns", *(each for each in arguments if each != "--record")]),
        "seconds": round(time.perf_counter() - began, 1),
        "passed": code == 0,
        "seeds": result.seeds if result else "",
        "counts": dict(sorted(result.counts.items())) if result else {},
        "findings": list(result.findings)[:_SAID] if result else [],
        "said": "".join(tee.kept).splitlines()[:_SAID],
        **(result.figures if result else {}),
        "on": here,
    }
    save(name, facts, folder)
    return code


def save(name: str, facts: Mapping[str, Any], folder: Path = RESULTS) -> Path:
    """Write the record of a campaign, with what it ran on."""
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}.json"
    text = json.dumps({"on": environment(), **facts}, indent=1, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")
    return path


def environment() -> dict[str, str]:
    """What a campaign runs on, and on what code."""
    with closing(sqlite3.connect(":memory:")) as connection:
        ((source,),) = connection.execute("SELECT sqlite_source_id()").fetchall()
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": _git("rev-parse", "--short=12", "HEAD"),
        "changed": "yes" if _git(*_CHANGES) else "no",
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "sqlite source": source,
        "system": f"{platform.system()} {platform.machine()}",
        "cores": str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()),
    }


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip()

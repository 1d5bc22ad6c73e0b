"""Where things are in the repository, and how its programs are run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
"""Where the programs of this environment are, such as mypy."""


def environment() -> dict[str, str]:
    """The environment of a child process that imports the package from this tree."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}


def python(*arguments: str | Path) -> str:
    """Run Python in a process of its own; what it printed. Its errors are part of the failure's message."""
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@contextmanager
def started(*arguments: str | Path) -> Generator[subprocess.Popen[str]]:
    """Start Python with its output at hand line by line; it does not outlive the block."""
    command = [sys.executable, *map(str, arguments)]
    process = subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def killed_at(line: str, arguments: Sequence[str | Path]) -> list[str]:
    """Start Python, send it SIGKILL as soon as it prints `line`; the lines seen until then, that one included."""
    seen: list[str] = []
    with started(*arguments) as process:
        assert process.stdout is not None
        for text in process.stdout:
            seen.append(text.rstrip("\n"))
            if seen[-1] == line:
                process.kill()
                return seen
    raise AssertionError(f"it ended without printing {line!r}; it printed {seen}")


def readme() -> str:
    """The text of README.md."""
    return (ROOT / "README.md").read_text(encoding="utf-8")


def marked(name: str) -> str:
    """What stands in the fenced block of README.md between `<!-- name -->` and `<!-- end -->`."""
    found = re.search(
        rf"^<!-- {re.escape(name)} -->\n```\w+\n(.*?)^```\n<!-- end -->$", readme(), re.DOTALL | re.MULTILINE
    )
    assert found is not None, f"README.md has no block marked {name}"
    return found[1]

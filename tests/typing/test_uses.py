"""Both checkers see through the decorators: right uses pass, and each wrong use is rejected on its own line."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from shutil import copy
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from tests.support.house import BIN, ROOT

_RIGHT = Path(__file__).with_name("right_uses.py")
_WRONG = Path(__file__).with_name("wrong_uses.py")

Said = dict[Path, dict[int, str]]
"""What a checker says, by file and line."""


def _run(*command: str | Path) -> str:
    done = subprocess.run(
        [str(part) for part in command], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode in {0, 1}, done.stdout + done.stderr
    return done.stdout


def _mypy(*files: Path) -> Said:
    """What mypy says of files; what it says of others is not asked here."""
    found = [json.loads(line) for line in _run(BIN / "mypy", "--strict", "--output=json", *files).splitlines() if line]
    return {
        file: {
            row["line"]: row["message"]
            for row in found
            if row["severity"] == "error" and (ROOT / row["file"]).resolve() == file.resolve()
        }
        for file in files
    }


def _pyright(*files: Path) -> Said:
    """What pyright says of copies of the files: the project's configuration leaves out what is wrong."""
    settings = {
        "include": ["."],
        "extraPaths": [str(ROOT)],
        "typeCheckingMode": "strict",
        "pythonVersion": "3.11",
    }
    with TemporaryDirectory() as folder:
        config = Path(folder) / "pyrightconfig.json"
        for file in files:
            copy(file, folder)
        config.write_text(json.dumps(settings), encoding="utf-8")
        printed = _run(BIN / "pyright", "--outputjson", "--pythonpath", sys.executable, "--project", config)
    report: dict[str, Any] = json.loads(printed)
    assert report["summary"]["filesAnalyzed"] == len(files), report
    errors = [row for row in report["generalDiagnostics"] if row["severity"] == "error"]
    assert {Path(row["file"]).name for row in errors} <= {file.name for file in files}
    return {
        file: {
            row["range"]["start"]["line"] + 1: row["message"] for row in errors if Path(row["file"]).name == file.name
        }
        for file in files
    }


@pytest.fixture(scope="module", params=[_mypy, _pyright], ids=["mypy", "pyright"])
def said(request: pytest.FixtureRequest) -> Said:
    """What one checker says of both files: most of its time goes before it looks at the first."""
    check: Callable[..., Said] = request.param
    return check(_RIGHT, _WRONG)


def test_right_uses_are_accepted_with_their_types(said: Said) -> None:
    assert said[_RIGHT] == {}


def test_each_wrong_use_is_rejected_on_its_own_line(said: Said) -> None:
    lines = _WRONG.read_text(encoding="utf-8").splitlines()
    marked = {number: line.strip() for number, line in enumerate(lines, 1) if re.search(r"# E: ", line)}
    assert len(marked) >= 16
    found = said[_WRONG]
    assert {line: found[line] for line in found.keys() - marked.keys()} == {}, "rejected, and not marked"
    assert {line: marked[line] for line in marked.keys() - found.keys()} == {}, "marked, and not rejected"

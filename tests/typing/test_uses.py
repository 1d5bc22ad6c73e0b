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

Check = Callable[[Path], dict[int, str]]


def _run(*command: str | Path) -> str:
    done = subprocess.run(
        [str(part) for part in command], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode in {0, 1}, done.stdout + done.stderr
    return done.stdout


def _mypy(file: Path) -> dict[int, str]:
    """What mypy says of a file, by line; what it says of other files is not asked here."""
    found = [json.loads(line) for line in _run(BIN / "mypy", "--strict", "--output=json", file).splitlines() if line]
    return {
        row["line"]: row["message"]
        for row in found
        if row["severity"] == "error" and (ROOT / row["file"]).resolve() == file.resolve()
    }


def _pyright(file: Path) -> dict[int, str]:
    """What pyright says of a copy of the file, by line: the project's configuration leaves out what is wrong."""
    settings = {
        "include": ["."],
        "extraPaths": [str(ROOT)],
        "typeCheckingMode": "strict",
        "pythonVersion": "3.11",
    }
    with TemporaryDirectory() as folder:
        config = Path(folder) / "pyrightconfig.json"
        copy(file, folder)
        config.write_text(json.dumps(settings), encoding="utf-8")
        printed = _run(BIN / "pyright", "--outputjson", "--pythonpath", sys.executable, "--project", config)
    report: dict[str, Any] = json.loads(printed)
    assert report["summary"]["filesAnalyzed"] == 1, report
    rows = report["generalDiagnostics"]
    return {row["range"]["start"]["line"] + 1: row["message"] for row in rows if row["severity"] == "error"}


checkers = pytest.mark.parametrize("check", [_mypy, _pyright], ids=["mypy", "pyright"])


@checkers
def test_right_uses_are_accepted_with_their_types(check: Check) -> None:
    assert check(_RIGHT) == {}


@checkers
def test_each_wrong_use_is_rejected_on_its_own_line(check: Check) -> None:
    lines = _WRONG.read_text(encoding="utf-8").splitlines()
    marked = {number: line.strip() for number, line in enumerate(lines, 1) if re.search(r"# E: ", line)}
    assert len(marked) >= 16
    found = check(_WRONG)
    assert {line: found[line] for line in found.keys() - marked.keys()} == {}, "rejected, and not marked"
    assert {line: marked[line] for line in marked.keys() - found.keys()} == {}, "marked, and not rejected"

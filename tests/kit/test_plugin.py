"""The fixture, as pytest finds it in a program of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any, cast

import pytest

from durable_sqlite.testing import Harness, plugin
from tests.support.house import ROOT, environment

_TESTS = """
import asyncio, sys
from datetime import timedelta
import pytest
import durable_sqlite.testing

def test_nothing_heavy_was_loaded():
    assert "durable_sqlite.testing.plugin" in sys.modules
    assert not {"pydantic", "aiosqlite", "durable_sqlite.engine", "durable_sqlite.testing._harness"} & set(sys.modules)

def flows():
    from durable_sqlite import sleep, workflow
    @workflow
    async def naps(days: int) -> int:
        await sleep(timedelta(days=days))
        return days
    return naps

def test_time(durable):
    assert durable.run(flows(), 30) == 30

def test_a_run_that_is_left(durable):
    durable.start(flows(), 30)

async def in_async(durable):
    assert durable.run(flows(), 3) == 3

def test_async(durable):
    asyncio.run(in_async(durable))

@pytest.mark.durable(seed=5, unload_after=0)
def test_options(durable):
    assert durable.run(flows(), 3) == 3
"""


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """A folder with tests, and with the metadata by which pytest finds the plugin."""
    project: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    info = tmp_path / "site" / "durable_sqlite_kit-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: durable_sqlite_kit\nVersion: 1\n")
    entries = "".join(f"{name} = {value}\n" for name, value in project["entry-points"]["pytest11"].items())
    (info / "entry_points.txt").write_text(f"[pytest11]\n{entries}")
    (tmp_path / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n")
    (tmp_path / "test_program.py").write_text(_TESTS)
    return tmp_path


def _run(folder: Path, *arguments: str) -> str:
    path = os.pathsep.join([str(folder / "site"), str(ROOT)])
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:xdist", "-p", "no:hypothesispytest"]
    done = subprocess.run(
        [*command, "--strict-markers", *arguments],
        cwd=folder,
        env={**environment(), "PYTHONPATH": path, "PYTHONDEVMODE": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done.stdout + done.stderr


def test_the_fixture_is_there_for_every_kind_of_test(program: Path) -> None:
    assert "5 passed" in (said := _run(program)), said


def test_the_plugin_may_be_left_out(program: Path) -> None:
    said = _run(program, "-p", "no:durable_sqlite", "-k", "test_time")
    assert "fixture 'durable' not found" in said or "'durable' not found in `markers`" in said, said


def test_a_marker_with_wrong_options_says_what_is_wrong(program: Path) -> None:
    (program / "test_program.py").write_text(
        "import pytest\n"
        "@pytest.mark.durable('orders.db')\n"
        "def test_by_place(durable): ...\n"
        "@pytest.mark.durable(nobody=1)\n"
        "def test_unknown(durable): ...\n"
    )
    said = _run(program)
    assert "@pytest.mark.durable takes options by name, as harness() does" in said
    assert "unexpected keyword argument 'nobody'" in said
    assert "2 errors" in said


@pytest.mark.durable("orders.db")
def test_options_without_names_are_refused(request: pytest.FixtureRequest) -> None:
    with pytest.raises(pytest.UsageError, match="takes options by name"):
        request.getfixturevalue("durable")


def test_the_marker_is_made_known() -> None:
    class Config:
        lines: list[tuple[str, str]] = []  # noqa: RUF012

        def addinivalue_line(self, name: str, line: str) -> None:
            self.lines.append((name, line))

    plugin.pytest_configure(cast(pytest.Config, Config()))
    [(name, line)] = Config.lines
    assert name == "markers"
    assert line.startswith("durable(**options): ")


@pytest.mark.durable(file=True)
def test_the_journal_may_be_in_a_temporary_file(durable: Harness, tmp_path: Path) -> None:
    assert durable.do(durable.engine.count()) == 0
    assert (tmp_path / "journal.db").exists()

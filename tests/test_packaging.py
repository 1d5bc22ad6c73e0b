"""What is shipped: a wheel and an sdist that hold what a run needs, and nothing else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from email.message import Message
from email.parser import Parser
from importlib import metadata
from pathlib import Path

import pytest

from tests.support.house import ROOT
from tests.support.pages import blocks

_MIGRATIONS = sorted(path.name for path in (ROOT / "migrations").glob("*.sql"))

_TINY_RUN = """
import asyncio, sys
from pathlib import Path
import durable_sqlite
from durable_sqlite import Engine, step, workflow

assert Path(durable_sqlite.__file__).is_relative_to(sys.prefix), durable_sqlite.__file__

@step
async def double(number: int) -> int:
    return number * 2

@workflow
async def flow(number: int) -> int:
    return await double(await double(number))

async def main() -> None:
    async with Engine(sys.argv[1]):
        print(await flow(10))

asyncio.run(main())
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist, and the wheel that was built from it."""
    folder = tmp_path_factory.mktemp("dist")
    # Without isolation nothing is fetched: hatchling comes with the dev extra.
    _run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT)
    return folder


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    [path] = built.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def empty(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of a new virtual environment that holds the wheel and nothing else of its own.

    Its dependencies are the ones of this environment, found through a `.pth` behind its own packages: no index is
    asked. A `.pth` of this environment (an editable install) is not followed from there.
    """
    home = tmp_path_factory.mktemp("empty") / "venv"
    venv.create(home, with_pip=False, symlinks=True)
    bin_, library = home / "bin", Path(sysconfig.get_path("purelib", vars={"base": str(home)}))
    _run(sys.executable, "-m", "pip", "--python", bin_ / "python", "install", "-q", "--no-deps", "--no-index", wheel)
    (library / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    return bin_


def test_the_wheel_holds_the_package_with_its_migrations_and_types(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert _MIGRATIONS
    assert {f"durable_sqlite/migrations/{name}" for name in _MIGRATIONS} <= set(names)
    assert {"durable_sqlite/py.typed", "durable_sqlite/_sqlite/statements.sql"} <= set(names)
    assert {name.split("/")[0].split("-")[0] for name in names} == {"durable_sqlite"}


def test_the_sdist_holds_the_package_with_its_migrations_and_types(built: Path) -> None:
    [path] = built.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
    assert {f"migrations/{name}" for name in _MIGRATIONS} <= names
    assert {"durable_sqlite/py.typed", "pyproject.toml", "README.md", "LICENSE"} <= names
    assert not [name for name in names if name.startswith(("tests", "docs", "benchmarks", "examples"))]


def test_the_wheel_asks_for_three_packages_and_keeps_the_rest_in_extras(wheel: Path) -> None:
    metadata = _metadata(wheel)
    needed = [line for line in metadata.get_all("Requires-Dist", []) if "extra ==" not in line]
    assert sorted(line.split(">")[0] for line in needed) == ["aiosqlite", "pydantic", "typing-extensions"]
    assert metadata.get_all("Provides-Extra") == ["bench", "cli", "dev", "docs", "testing"]
    assert metadata["Requires-Python"] == ">=3.11"


def test_the_wheel_runs_in_an_empty_environment(empty: Path, tmp_path: Path) -> None:
    assert _run(empty / "python", "-c", _TINY_RUN, tmp_path / "tiny.db", cwd=tmp_path) == "40\n"
    listed = _run(empty / "durable_sqlite", "list", "--json", "--db", "tiny.db", cwd=tmp_path)
    assert [run["workflow"] for run in json.loads(listed)["runs"]] == ["flow"]


@pytest.mark.parametrize("command", [["durable_sqlite"], ["durable-sqlite"], ["python", "-m", "durable_sqlite"]])
def test_the_command_line_is_installed_under_each_of_its_names(empty: Path, tmp_path: Path, command: list[str]) -> None:
    assert "demo" in _run(empty / command[0], *command[1:], "--help", cwd=tmp_path)


def test_the_wheel_brings_the_fixture_for_pytest(empty: Path, tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text("def test_it(durable): assert durable.now\n", encoding="utf-8")
    assert "1 passed" in _run(empty / "python", "-m", "pytest", "-p", "no:cacheprovider", "test_it.py", cwd=tmp_path)


def test_the_lines_of_the_start_page_install_it(tmp_path: Path) -> None:
    """As a new user types them: in an empty folder, with a clone in the home folder; only that no index is asked."""
    (lines,) = [block.text for block in blocks(ROOT / "docs" / "start.md") if block.language == "sh"]
    for name in ("python3", "python"):  # what they find as Python is this one
        (tmp_path / "bin" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "bin" / name).symlink_to(sys.executable)
    for name in (
        "durable_sqlite",
        "migrations",
        "pyproject.toml",
        "README.md",
        "LICENSE",
        "CHANGELOG.md",
        "SECURITY.md",
    ):
        (tmp_path / "durable_sqlite").mkdir(exist_ok=True)
        (tmp_path / "durable_sqlite" / name).symlink_to(ROOT / name)
    (tmp_path / "shop").mkdir()
    script = f"set -eu\n{lines}command -v durable_sqlite\ndurable_sqlite --version\n"
    environment = {
        "HOME": str(tmp_path),
        "PATH": f"{tmp_path / 'bin'}{os.pathsep}/usr/bin{os.pathsep}/bin",
        "PIP_NO_BUILD_ISOLATION": "0",  # what it needs for building is found where it is installed here, and not fetched
        "PIP_NO_DEPS": "1",
        "PIP_NO_INDEX": "1",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PYTHONPATH": sysconfig.get_path("purelib"),
    }
    done = subprocess.run(
        ["bash", "-c", script],
        env=environment,
        cwd=tmp_path / "shop",
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    where, version = done.stdout.splitlines()[-2:]
    assert where == str(tmp_path / "shop" / ".venv" / "bin" / "durable_sqlite")
    assert metadata.version("durable_sqlite") in version


def _metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        [name] = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        return Parser().parsestr(archive.read(name).decode())


def _run(*command: str | Path, cwd: Path = ROOT) -> str:
    clean = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "PYTHONHOME"}}
    done = subprocess.run(
        [str(part) for part in command], env=clean, cwd=cwd, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout

"""What the repository promises about itself: layers, exports, documents and commands that say the same."""

from __future__ import annotations

import ast
import inspect
import os
import re
import subprocess
import tomllib
from typing import Any

import pytest

import durable_sqlite
from tests.support.house import BIN, ROOT, marked, readme

_PUBLIC = sorted(durable_sqlite.__all__)


def test_imports_go_down_only() -> None:
    done = subprocess.run([BIN / "lint-imports"], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_exports_are_exactly_the_documented_ones() -> None:
    reference = (ROOT / "docs" / "reference" / "api.md").read_text(encoding="utf-8")
    documented = re.findall(r"^::: durable_sqlite\.(\w+)$", reference, re.MULTILINE)
    assert sorted(set(documented) - {"errors"}) == _PUBLIC  # the module's docstring draws the tree of errors
    assert len(set(documented)) == len(documented)


def test_every_export_exists_and_no_public_name_is_left_out() -> None:
    assert len(set(_PUBLIC)) == len(_PUBLIC)
    found = {name: getattr(durable_sqlite, name) for name in _PUBLIC}  # each is found when it is first asked for
    public = {
        name for name, value in vars(durable_sqlite).items() if not name.startswith("_") and not inspect.ismodule(value)
    }
    assert public == set(found) == set(durable_sqlite._HOME_OF)
    assert set(_PUBLIC) <= set(dir(durable_sqlite))
    with pytest.raises(AttributeError, match="has no attribute 'Nobody'"):
        _ = durable_sqlite.Nobody  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType, reportUnknownVariableType]


def test_what_a_checker_reads_of_the_exports_is_where_they_are_found() -> None:
    tree = ast.parse((ROOT / "durable_sqlite" / "__init__.py").read_text(encoding="utf-8"))
    [block] = [node for node in tree.body if isinstance(node, ast.If) and isinstance(node.test, ast.Name)]
    read = {alias.name: node.module for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert read == durable_sqlite._HOME_OF


@pytest.mark.parametrize("name", _PUBLIC)
def test_every_export_says_what_it_does(name: str) -> None:
    silent = [where for where, thing in _documentable(name, getattr(durable_sqlite, name)) if not inspect.getdoc(thing)]
    assert not silent


def test_the_example_of_the_readme_is_the_file_beside_it() -> None:
    assert marked("examples/first.py") == (ROOT / "examples" / "first.py").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["command: test", "command: demo"])
def test_the_commands_of_the_readme_are_one_line_each(name: str) -> None:
    assert marked(name).count("\n") == 1


def test_ci_runs_both_commands_of_the_readme_and_no_copy_of_them() -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert 'from_readme "$python" "$tree" test' in script
    assert 'from_readme "$python" "$work/demo" demo' in script
    assert ".[dev]" not in script
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


def test_the_readme_links_to_files_that_exist() -> None:
    links = [link for link in re.findall(r"\]\(([^)#]+)", readme()) if "://" not in link]
    assert links
    assert not [link for link in links if not (ROOT / link).exists()]


def test_the_readme_is_two_screens_long_and_has_a_contract_of_seven_sentences() -> None:
    assert readme().count("\n") <= 100
    contract = readme().partition("\n## The contract\n")[2].partition("\n## ")[0]
    assert len(re.findall(r"^\d+\. ", contract, re.MULTILINE)) == 7


def test_no_module_of_the_package_pickles() -> None:
    found = {
        (path.name, name.split(".")[0])
        for path in (ROOT / "durable_sqlite").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([each.name for each in node.names] if isinstance(node, ast.Import) else [node.module or ""])
    }
    assert ("_failures.py", "json") in found
    assert [
        each for each in found if each[1] in {"pickle", "marshal", "shelve", "copyreg", "dill", "cloudpickle"}
    ] == []


def test_the_version_is_written_once() -> None:
    settings: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    version: str = settings["project"]["version"]
    assert not [
        path.name for path in ROOT.glob("durable_sqlite/**/*.py") if version in path.read_text(encoding="utf-8")
    ]


def _documentable(name: str, thing: Any) -> list[tuple[str, Any]]:
    """The export, and what is public in it if it is a class of this package."""
    found = [(name, thing)]
    if inspect.isclass(thing):
        found += [
            (f"{name}.{member}", value)
            for member, value in vars(thing).items()
            if not member.startswith("_") and (inspect.isfunction(value) or isinstance(value, property))
        ]
    return found

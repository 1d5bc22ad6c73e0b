"""What pages show besides Python: commands, units of a service, lines of a log. Each is typed, or is what the code would say."""

from __future__ import annotations

import argparse
import ast
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from benchmarks import __main__ as benchmarks
from tests.cli.support import durable_sqlite, environment
from tests.support.house import ROOT
from tests.support.pages import DOCS, blocks
from tests.support.sessions import plainly


def _texts(page: str, language: str) -> list[str]:
    return [block.text for block in blocks(DOCS / page) if block.language == language]


# Code under `shop/flows.py`, as two pages suppose it ----------------------------------------------------------------------


@pytest.fixture
def orders(tmp_path: Path) -> Path:
    """A folder with the code of the page about checking as it was, and the journal of its two runs."""
    program, live, *_ = _texts("checking.md", "python")
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "__init__.py").touch()
    (tmp_path / "shop" / "flows.py").write_text(program, encoding="utf-8")
    begin = f"from shop.flows import *\n{live.partition('folder =')[0]}asyncio.run(live(Path('orders.db')))\n"
    subprocess.run([sys.executable, "-c", begin], cwd=tmp_path, env=environment(), timeout=60, check=True)
    return tmp_path


def test_a_check_in_a_pipeline_says_what_its_page_shows(orders: Path) -> None:
    program, _, changed = _texts("checking.md", "python")
    code = program.partition("@workflow")[0] + changed.partition("report =")[0]
    (orders / "shop" / "flows.py").write_text(code, encoding="utf-8")
    (shown,) = _texts("checking.md", "console")
    typed = re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", shown, re.MULTILINE)
    (line, below), (code_line, code_below) = typed
    _, *words = shlex.split(line)
    said = durable_sqlite(*words, cwd=orders, env={"PYTHONUTF8": "1"}, codes=(1,))
    assert plainly(said.out) == plainly(below), said.out
    assert (code_line, code_below) == ("echo $?", f"{said.code}\n")


def _units() -> dict[str, dict[str, list[str]]]:
    """The units of the page about services: by file name, the values of each setting."""
    found: dict[str, dict[str, list[str]]] = {}
    for text in _texts("howto/service.md", "ini"):
        for file, rest in re.findall(r"^# /etc/systemd/system/(\S+)\n((?:(?!# /).*\n?)*)", text, re.MULTILINE):
            for name, value in re.findall(r"^(\w+)=(.*)$", rest, re.MULTILINE):
                found.setdefault(file, {}).setdefault(name, []).append(value)
    return found


def _here(text: str, folder: Path) -> list[str]:
    """A command of the page as it is typed in this environment, with its folder for theirs."""
    program, *words = shlex.split(text.replace("/srv/orders/.venv/bin/", "").replace("/srv/orders", str(folder)))
    assert program == "durable_sqlite"
    return words


def test_the_units_of_a_service_start_what_they_say(orders: Path) -> None:
    unit = _units()["orders-worker.service"]
    assert unit["WorkingDirectory"] == ["/srv/orders"]
    (command,) = unit["ExecStart"]
    words = _here(command, orders)
    drain = words[words.index("--drain") + 1]
    assert int(unit["TimeoutStopSec"][0]) > int(drain.removesuffix("s"))
    said = dict(setting.replace("/srv/orders", str(orders)).split("=", 1) for setting in unit["Environment"])
    process = subprocess.Popen(
        [sys.executable, "-m", "durable_sqlite", *words],
        cwd=orders,
        env=environment() | said,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    try:
        assert "drives 1 workflow of" in process.stderr.readline() + process.stderr.readline()
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert (process.returncode, "ended: everything was given back" in errors) == (0, True), errors


def test_what_cron_and_a_timer_call_drives_what_is_due(orders: Path) -> None:
    (line,) = _texts("howto/service.md", "cron")
    minute, *rest, command = line.split(maxsplit=5)
    assert (minute, rest) == ("*/10", ["*"] * 4)
    folder, _, typed = command.partition(" && ")
    assert folder == "cd /srv/orders"
    assert typed.startswith(".venv/bin/durable_sqlite ")
    words = _here(typed.removeprefix(".venv/bin/"), orders)
    units = _units()
    assert set(units) == {"orders-worker.service", "orders.service", "orders.timer"}
    assert _here(units["orders.service"]["ExecStart"][0], orders) == words
    assert units["orders.service"]["WorkingDirectory"] == ["/srv/orders"]
    assert durable_sqlite(*words, cwd=orders).out.startswith("nothing was due\n")
    durable_sqlite("signal", "run-2", "Paid", '{"receipt": "r2"}', "--db", "orders.db", cwd=orders)
    assert re.search(r"run-2 +fulfil +completed", durable_sqlite(*words, cwd=orders).out)


# Other commands -----------------------------------------------------------------------------------------------------------


def test_the_commands_of_the_benchmarks_are_understood() -> None:
    (shown,) = _texts("benchmarks.md", "console")
    install, *rest = [shlex.split(line.removeprefix("$ "), comments=True) for line in shown.splitlines()]
    assert install == ["pip", "install", "-e", ".[bench]"]
    parser: argparse.ArgumentParser = benchmarks._parser()
    for line in rest:
        assert line[:3] == ["python", "-m", "benchmarks"]
        assert parser.parse_args(line[3:])
    with pytest.raises(SystemExit):
        parser.parse_args(["--no-such-thing"])


def test_the_smallest_case_that_is_shown_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("docs.smallest_case")
    monkeypatch.setitem(sys.modules, module.__name__, module)  # where annotations are looked up
    names: dict[str, Any] = vars(module)
    for text in _texts("testing_properties.md", "python"):
        if "@given" not in text and "print(" not in text:
            exec(compile(text, "testing_properties.md", "exec", optimize=0), names)  # its own asserts count
    (shown,) = _texts("testing_properties.md", "console")
    call = re.sub(r"<workflow (\w+)>", r"\1", shown.partition(": ")[2])
    names["PlannedRun"] = names["strategies"].PlannedRun
    names[call.partition("(")[0]] = names["check"]
    with pytest.raises(AssertionError):
        eval(call, names)
    right = call.replace("[0, 1, 0]", "[0]")
    assert right != call
    assert eval(right, names) is None


# Lines of a log, and refusals ---------------------------------------------------------------------------------------------

_LEVELS = ("debug", "info", "warning", "error", "critical")
_LINE = re.compile(r"(?P<kind>[A-Z]+|\w+Error:) (?:durable_sqlite: )?(?P<text>.+)")
_Pieces = list[str | None]
_ENOUGH = 20
"""So many characters of a text have to be the code's own."""
_WORDS = 6
"""So many words that are filled in are a text of the code, and no name or path."""


def _said_in_code() -> Iterator[tuple[str, _Pieces]]:
    """What the package may log or raise: its kind, and its text in pieces, with None for what is filled in."""
    for path in sorted((ROOT / "durable_sqlite").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and node.args:
                pieces = _pieces(node.args[0])
                if isinstance(node.func, ast.Attribute) and node.func.attr in _LEVELS and pieces:
                    yield node.func.attr.upper(), pieces
                elif isinstance(node.func, ast.Name) and node.func.id.endswith("Error") and pieces:
                    yield f"{node.func.id}:", pieces
            if isinstance(node, ast.Constant | ast.JoinedStr) and (pieces := _pieces(node)):
                yield "", pieces  # it may be what is filled into another one


def _pieces(node: ast.expr) -> _Pieces:
    if isinstance(node, ast.JoinedStr):
        return [str(value.value) if isinstance(value, ast.Constant) else None for value in node.values]
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        split: list[str] = re.split(r"%[.\d]*[a-z]", node.value)
        return [piece for literal in split for piece in (literal, None)][:-1]
    return []


def _filled(pieces: _Pieces, text: str, enough: int) -> list[str] | None:
    """What is filled into the pieces where they are the text, or where the text is their beginning and ends with `…`."""
    elided, text = text.endswith("…"), text.removesuffix("…")
    filled: list[str] = []
    at = own = 0
    open_ = False  # something is filled in here
    for number, piece in enumerate(pieces):
        if piece is None:
            open_ = True
            continue
        last = number == len(pieces) - 1 and not elided
        place = (len(text) - len(piece) if last else text.find(piece, at + 1)) if open_ else at
        length = len(piece)
        if place < at + open_ or not text.startswith(piece, place):
            # It may be the one in which the text breaks off.
            length = next((end for end in range(len(piece) - 1, 0, -1) if text.endswith(piece[:end])), 0)
            place = len(text) - length
            if not elided or (place <= at if open_ else place != at):
                return None
        if open_ and (length or not elided):
            filled.append(text[at:place])
            open_ = False
        if not open_:
            at, own = place + length, own + length
        if elided and (open_ or at == len(text)):
            break
    if open_:
        filled.append(text[at:] + "…" * elided)
    elif at < len(text):
        return None
    return filled if own >= enough else None


def _is_a_name(part: str) -> bool:
    return len(part.split()) < _WORDS and not part.endswith("…")


def _is_said(kind: str, text: str, said: list[tuple[str, _Pieces]]) -> bool:
    """Whether the code has these words, and also those that are filled in, where they are more than a name."""
    return any(
        all(_is_a_name(part) or _is_said("", part, said) for part in filled)
        for other, pieces in said
        if other == kind and (filled := _filled(pieces, text, 0 if kind else _ENOUGH)) is not None
    )


def _shown_lines(page: str) -> list[str]:
    """The entries of a page's logs; one that was broken over two lines is one."""
    return [
        re.sub(r"\n", " ", entry)
        for text in _texts(page, "text")
        for entry in re.split(r"\n(?=[A-Z]{4,} |\w+Error: )", text.rstrip("\n"))
    ]


@pytest.fixture(scope="module")
def said() -> list[tuple[str, _Pieces]]:
    """All that the code says."""
    return list(_said_in_code())


@pytest.mark.parametrize(("page", "count"), [("storage.md", 8), ("processes.md", 1)])
def test_what_pages_show_of_a_log_is_what_the_code_says(page: str, count: int, said: list[tuple[str, _Pieces]]) -> None:
    lines = _shown_lines(page)
    assert len(lines) == count, lines
    for line in lines:
        found = _LINE.fullmatch(line)
        assert found is not None, line
        assert _is_said(found["kind"], found["text"], said), line


@pytest.mark.parametrize(
    "line",
    [
        "ERROR storage of /srv/app/orders.db works again",  # it is a warning
        "WARNING storage of /srv/app/orders.db works",
        "WARNING this worker lost its lease: it went for a long walk alone. It drops the bodies of all runs and begins anew",
        "JournalError: /mnt/share/orders.db is on a network file system (nfs4), which is fine …",
    ],
)
def test_a_line_that_the_code_never_says_is_found(line: str, said: list[tuple[str, _Pieces]]) -> None:
    found = _LINE.fullmatch(line)
    assert found is not None
    assert not _is_said(found["kind"], found["text"], said)

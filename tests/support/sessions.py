"""The sessions at a terminal that a page shows: typed again in an empty folder, and held against what the page prints.

A page that says `<!-- session -->`, perhaps with the module that it needs, is one story in one folder. A block of code with
`title="orders.py"` is that file from then on. In a `console` block each line after `$ ` is typed, and what stands below it is
what it prints. Where that ends with the line `Killed`, the program is killed with SIGKILL as soon as it has printed all lines
before.

`python -m tests.support.sessions PAGE…` types them, all pages in one folder, and writes what is printed into the pages.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from tests.support.house import BIN, ROOT

__all__ = ["Typed", "pages", "plainly", "played"]

_FENCED = re.compile(r"^```(\w+)([^\n]*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_TITLE = re.compile(r'title="([\w./-]+)"')
_KILLED = "Killed"
_FOLDER = "/home/you/shop"
_MARK = re.compile(r"^<!-- session(?:: needs ([\w.]+))? -->$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Typed:
    """A line that was typed, what the page shows below it, and what it printed."""

    at: int
    """Where the page's text shows what it prints."""
    command: str
    shown: str
    printed: str

    @property
    def is_shown(self) -> bool:
        """Whether the page shows what is printed; of the command line, whose two streams may mix in any order, its words."""
        shown, printed = plainly(self.shown), plainly(self.printed)
        if self.command.startswith("durable_sqlite "):
            return sorted(shown.split()) == sorted(printed.split())
        return shown == printed


def pages() -> list[Path]:
    """The pages that say that their sessions can be typed as they stand, here."""
    return [page for page in sorted((ROOT / "docs").rglob("*.md")) if _is_session(page.read_text(encoding="utf-8"))]


def _is_session(text: str) -> bool:
    said = _MARK.search(text)
    return said is not None and (said[1] is None or _is_there(said[1]))


def _is_there(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # not even what it is in
        return False


def played(text: str, folder: Path) -> Iterator[Typed]:
    """Play all blocks of a page in their order."""
    for block in _FENCED.finditer(text):
        language, options, inside = block.groups()
        title = _TITLE.search(options)
        if title is not None:
            put_in = re.fullmatch(r"--8<--\n([\w./-]+)\n--8<--\n", inside)
            file = folder / title[1]
            file.parent.mkdir(exist_ok=True)
            file.write_text(inside if put_in is None else (ROOT / put_in[1]).read_text(encoding="utf-8"))
        elif language == "console":
            for found in re.finditer(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", inside, re.MULTILINE):
                printed = _typed(found[1], found[2], folder).replace(str(folder), _FOLDER)
                yield Typed(block.start(3) + found.start(2), found[1], found[2], printed)


def _typed(command: str, shown: str, folder: Path) -> str:
    """What a command prints, on both of its streams as on a terminal."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("DURABLE_SQLITE", "COV_"))}
    environment |= {
        "PATH": f"{BIN}{os.pathsep}{os.environ.get('PATH', '')}",
        "PYTHONPATH": str(ROOT),
        "PYTHONUNBUFFERED": "1",
        "PYTHONUTF8": "1",
        "COLUMNS": "80",
        "NO_COLOR": "1",
        "USER": "you",
        "LOGNAME": "you",
    }
    # `exec`: what is killed is the program, not the shell that was asked to run it.
    single = re.match(r"\w+ ", command) is not None and not re.search(r"[|;&<>]", command)
    process = subprocess.Popen(
        ["bash", "-c", f"exec {command}" if single else command],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
    )
    assert process.stdout is not None
    lines = shown.splitlines()
    printed: list[str] = []
    try:
        if lines and lines[-1] == _KILLED:
            missing = Counter(plainly(line) for line in lines[:-1])
            for said in process.stdout:
                printed.append(said)
                missing -= Counter([plainly(said.replace(str(folder), _FOLDER))])
                if not missing:
                    process.kill()
                    break
            else:
                return "".join(printed)
            printed.append(f"{_KILLED}\n")
        else:
            printed.append(process.communicate(timeout=120)[0])
    finally:
        process.kill()
        process.stdout.close()
        process.wait()
    return "".join(printed)


def plainly(text: str) -> str:
    """A text without what is another one each time: times, durations, process numbers, sizes, where lines were broken."""
    text = " ".join(text.split())
    text = re.sub(r"\b(\d{4}-\d\d-\d\d )?\d\d:\d\d:\d\d\b", "TIME", text)  # today's have no date
    text = re.sub(r"<?\b\d+(\.\d+)? (ms|s|min|h)\b", "LONG", text)
    text = re.sub(r"\bLONG( LONG)+", "LONG", text)
    text = re.sub(r"\b\d+\.\d\ds\b", "LONG", text)  # as pytest writes it
    text = re.sub(r"\b[0-9A-Z]{26}\b", "ID", text)
    text = re.sub(r"\bprocess \d+", "process N", text)
    text = re.sub(r"\b\d+(\.\d+)? (KiB|MiB|bytes|B)\b", "SIZE", text)
    text = re.sub(r"[─█┄░✗]+", "", text)  # bars are as long as things took
    return " ".join(text.split())


def _write(page: Path, folder: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for typed in reversed(list(played(text, folder))):
        assert typed.shown.endswith(f"{_KILLED}\n") == typed.printed.endswith(f"{_KILLED}\n"), typed
        text = text[: typed.at] + typed.printed + text[typed.at + len(typed.shown) :]
    page.write_text(text, encoding="utf-8")


def _write_all(names: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            _write(Path(name), Path(folder))


if __name__ == "__main__":
    _write_all(sys.argv[1:])

"""What is different on a terminal: in place, in colour, cut to its width."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import sys
import termios
from importlib.util import find_spec
from pathlib import Path

import pytest

from durable_sqlite.cli._text import cells
from tests.cli.support import environment

_CONTROL = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


def on_terminal(*words: str | Path, width: int = 80, codes: tuple[int, ...] = (0,), **env: str) -> str:
    """What a command writes to a terminal of this width."""
    parent, child = pty.openpty()
    fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
    command = [sys.executable, "-m", "durable_sqlite", *map(str, words)]
    variables = environment(**({"TERM": "xterm-256color", "PYTHONUTF8": "1"} | env))
    pid = os.posix_spawn(
        sys.executable, command, variables, file_actions=[(os.POSIX_SPAWN_DUP2, child, number) for number in (0, 1, 2)]
    )
    os.close(child)
    said = b""
    while True:
        try:
            data = os.read(parent, 65_536)
        except OSError:  # the other end is closed
            break
        if not data:
            break
        said += data
    os.close(parent)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) in codes
    return said.decode().replace("\r\n", "\n")


def plain(text: str) -> list[str]:
    return _CONTROL.sub("", text).splitlines()


@pytest.mark.parametrize("width", [60, 80, 200])
@pytest.mark.parametrize(
    "words", [["list"], ["show", "run-done"], ["show", "run-asks"], ["timeline", "run-done"]], ids=" ".join
)
def test_nothing_but_ids_goes_beyond_the_width(shop: Path, words: list[str], width: int) -> None:
    lines = plain(on_terminal(*words, "--db", shop, width=width))
    tables = [line for line in lines if not line.startswith(("  ", "next:")) or "  " in line.strip()]
    assert [line for line in tables if cells(line) > width and not line.startswith("  ")] == []


def test_colours_are_there_with_the_extra_and_can_be_switched_off(shop: Path) -> None:
    if find_spec("rich") is None:
        pytest.skip("the `cli` extra is not installed")
    assert "\x1b[31mfailed" in on_terminal("list", "--db", shop)
    assert "╭" in on_terminal("list", "--db", shop, width=200)
    assert "\x1b[3" not in on_terminal("list", "--db", shop, width=200, NO_COLOR="1")
    assert "\x1b[3" not in on_terminal("list", "--db", shop, width=200, TERM="dumb")
    assert on_terminal("list", "--db", shop, TERM="dumb").startswith("ID ")


def test_watching_redraws_in_place(shop: Path) -> None:
    said = on_terminal("watch", "run-asks", "--db", shop, "--for", "1s", codes=(4,))
    assert re.search(r"\x1b\[4F\x1b\[J", said)  # it goes back over the lines that it drew
    assert "███" in said
    assert "1/4 25 %" in said
    assert {line.split("  ")[0] for line in plain(said) if line.startswith("run-asks")} == {"run-asks"}
    everything = on_terminal("watch", "--db", shop, "--for", "0s")
    assert "run-asks" in everything
    assert "run-done" not in everything


def test_what_a_stranger_wrote_is_harmless_on_a_terminal_too(hostile: Path) -> None:
    for words in (["list"], ["show", "x"], ["watch", "x"], ["timeline", "x"], ["watch", "--for", "0s"]):
        said = on_terminal(*words, "--db", hostile, width=200, codes=(0, 1))
        left = _CONTROL.sub("", said)
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2066-\u2069]", left)
        # Of our own there are colours, and going back to draw again.
        assert {found[-1] for found in _CONTROL.findall(said)} <= {"m", "F", "J"}
        assert "\x1b[2J" not in said

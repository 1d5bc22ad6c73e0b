"""The session that the docs show: a run is killed, found, resumed, answered and finished, by the printed hints alone."""

from __future__ import annotations

import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

from tests.cli.support import Said, durable_sqlite, environment
from tests.support.house import ROOT
from tests.support.sessions import plainly

_PAGE = ROOT / "docs" / "cli_acting.md"


def _script() -> str:
    """The program that the page shows, with which its session begins."""
    found = re.search(
        r"^```python\n(# orders\.py\n.*?)^```$", _PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )
    assert found is not None, "the page shows no orders.py"
    return found[1]


def _shown() -> list[str]:
    """What the page types after a prompt, in its session."""
    section = _PAGE.read_text(encoding="utf-8").partition("## From a crash to the end")[2].partition("\n## ")[0]
    return re.findall(r"^\$ (.*)$", section, re.MULTILINE)


def _below(line: str, time: int) -> str:
    """What the page shows below a line, where it is typed for the first or another time."""
    shown: list[str] = re.findall(
        rf"^\$ {re.escape(line)}\n((?:(?!\$ |```).*\n)*)", _PAGE.read_text(encoding="utf-8"), re.MULTILINE
    )
    return shown[time - 1]


def _hint(said: Said) -> str:
    """The command that the output says to type next: an indented line of its own."""
    return next(line.strip() for line in said.out.splitlines() if line.startswith("  durable_sqlite "))


def test_a_killed_run_is_brought_to_its_end_by_the_printed_hints_alone(tmp_path: Path) -> None:
    (tmp_path / "orders.py").write_text(_script())
    process = subprocess.Popen(
        [sys.executable, "orders.py"], cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "charging 120.00 …\n"
    process.send_signal(signal.SIGKILL)
    assert process.communicate(timeout=30)[0] == ""
    typed: list[str] = ["python orders.py", "kill -9 %1"]

    def type_it(line: str, *codes: int) -> Said:
        typed.append(line)
        words = shlex.split(line)
        assert words[0] == "durable_sqlite"
        said = durable_sqlite(*words[1:], cwd=tmp_path, env={"PYTHONUTF8": "1"}, codes=codes or (0,))
        shown, printed = plainly(_below(line, typed.count(line))), plainly(said.out + said.err)
        assert sorted(printed.split()) == sorted(shown.split()), said  # the two streams of a command mix in any order
        return said

    listed = type_it("durable_sqlite list --db orders.db")
    assert re.search(r"order-A1 +order +running +.* is gone", listed.out)
    why = type_it("durable_sqlite why @ --db orders.db")
    assert "but its process has ended" in " ".join(why.out.split())
    resumed = type_it(_hint(why), 4)
    assert "charge#1  step" in resumed.err
    assert "waits for an answer to Review" in resumed.out
    answer = _hint(resumed)
    assert answer == 'durable_sqlite answer order-A1 Review \'{"granted": true, "by": "you"}\' --db orders.db'
    answered = type_it(answer)
    done = type_it(_hint(answered))
    assert "order-A1 has completed" in done.out
    assert '"the teapot is on its way, granted by you"' in done.out
    timeline = type_it("durable_sqlite timeline @ --db orders.db")
    assert all(step in timeline.out for step in ("reserve#1", "charge#1", "Review#1"))
    assert "†" in timeline.out.splitlines()[2]
    assert "completed  crashed" in timeline.out
    assert typed == _shown()
    assert not [path for path in tmp_path.iterdir() if path.name.endswith("-wal")]  # nobody has it open

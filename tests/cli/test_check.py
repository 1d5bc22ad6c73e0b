"""`check` in a deploy pipeline: its exit code says whether the runs of a journal fit the code that is about to be deployed."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
import unicodedata
from contextlib import closing
from pathlib import Path

import pytest

from durable_sqlite.testing import DifferenceKind
from tests.cli.stand import Stand
from tests.cli.support import environment
from tests.support.house import ROOT

thorough = pytest.mark.thorough  # several processes: too many for every day


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an order that waits for its review, and a run that is done."""
    stand = Stand(tmp_path_factory.mktemp("begun"))
    assert stand.script("order", "order-1", "teapot") == 0
    assert stand.script("nap", "nap-1", "0") == 0
    return stand.folder


@pytest.fixture
def stand(tmp_path: Path, begun: Path) -> Stand:
    shutil.copytree(begun, tmp_path, dirs_exist_ok=True)
    return Stand(tmp_path)


def _change(stand: Stand, old: str, new: str) -> None:
    """Deploy new code."""
    file = stand.folder / "shop.py"
    text = file.read_text(encoding="utf-8")
    assert old in text
    file.write_text(text.replace(old, new), encoding="utf-8")


def _files(stand: Stand) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in stand.folder.iterdir() if file.is_file()}


def test_code_that_fits_passes_and_nothing_is_written(stand: Stand) -> None:
    before = _files(stand)
    said = stand.type("check", "--app", "shop")
    assert said.out == "2 of 2 runs fit the code of shop (--app)\n"
    assert "loads shop (--app)" in said.err
    assert _files(stand) == before


def test_code_that_does_not_fit_is_stopped_with_both_sides_as_json(stand: Stand) -> None:
    _change(stand, "await charge(cents)", "print('a body prints'); await charge(cents + 1)")
    before = _files(stand)
    said = stand.type("check", "--app", "shop", "--json", codes=(1,))
    document = said.data
    (found,) = document.pop("differences")
    assert document == {"journal": "runs.db", "fits": False, "runs": 2, "unfit": 1, "unknown": []}
    assert found.pop("recorded") != found.pop("asked")
    assert "arguments of step charge differ" in found.pop("text")
    assert found == {
        "run": "order-1",
        "workflow": "order",
        "state": "suspended",
        "kind": "diverged",
        "free": False,
        "key": "charge#1",
    }
    assert "a body prints" in said.err
    assert _files(stand) == before


@thorough
def test_the_text_names_run_key_and_both_sides_and_is_cut_where_there_is_much(stand: Stand) -> None:
    _change(stand, "await charge(cents)", "await charge(cents + 1)")
    _change(stand, 'return "awake"', 'return "asleep"')
    lines = stand.type("check", "--app", "shop", codes=(1,)).out.splitlines()
    assert lines[0] == "order-1  order  suspended  diverged  charge#1"
    assert lines[1].startswith("  recorded  step charge, arguments ")
    assert lines[2].startswith("  asked     step charge, arguments ")
    assert lines[3].startswith("  why       run order-1, charge#1: ")
    assert lines[4:] == [
        "nap-1  nap  completed  result",
        '  recorded  returned "awake"',
        '  asked     returns "asleep"',
        "2 of 2 runs do not fit the code of shop (--app)",
    ]
    lines = stand.type("check", "--app", "shop", "--limit", "1", codes=(1,)).out.splitlines()
    assert lines[4:] == [
        "… and 1 more: see them with --limit 0, or with --json",
        "2 of 2 runs do not fit the code of shop (--app)",
    ]
    said = stand.type("check", "--app", "shop", "--open", codes=(1,))
    assert said.out.endswith("1 of 1 run does not fit the code of shop (--app)\n")
    said = stand.type("check", "--app", "shop", "--workflow", "nap", codes=(1,))
    assert said.out.endswith("1 of 1 run does not fit the code of shop (--app)\n")
    stand.type("check", "--app", "shop", "--workflow", "nap", "--open")


@thorough
def test_workflows_that_the_code_does_not_know_stop_it_while_there_are_open_runs_of_them(stand: Stand) -> None:
    (stand.folder / "less.py").write_text("import shop\nworkflows = [shop.nap, shop.payment]\n")
    said = stand.type("check", "--app", "less:workflows", codes=(1,))
    assert said.out.splitlines() == [
        "unknown workflow order (shop:order): 1 run, 1 open",
        "1 of 2 runs fit the code of less (--app)",
    ]
    (stand.folder / "more.py").write_text("import shop\nworkflows = [shop.order]\n")
    said = stand.type("check", "--app", "more:workflows")
    assert said.out.splitlines()[0] == "unknown workflow nap (shop:nap): 1 run, none open"


@thorough
def test_a_free_change_is_told_and_passes(stand: Stand) -> None:
    _change(stand, "    await charge(cents)\n", "")
    said = stand.type("check", "--app", "shop")
    assert said.out.splitlines()[0] == "order-1  order  suspended  unused (free)  charge#1"


def test_a_journal_or_code_that_is_not_there_is_wrong_use(stand: Stand) -> None:
    said = stand.type("check", "--app", "shop", "--db", "none.db", codes=(2,))
    assert "there is no journal none.db" in said.err
    said = stand.type("check", codes=(2,))
    assert "nothing says where your code is" in said.err
    assert not (stand.folder / "none.db").exists()


@thorough
def test_other_bad_words_and_files_have_their_codes(stand: Stand) -> None:
    assert "no module nowhere" in stand.type("check", "--app", "nowhere", codes=(2,)).err
    assert "no workflow 'nix'" in stand.type("check", "--app", "shop", "--workflow", "nix", codes=(2,)).err
    stand.type("check", "--app", "shop", "--limit", "-1", codes=(2,))
    stand.type("check", "order-1", "--app", "shop", codes=(2,))
    (stand.folder / "empty.db").touch()
    stand.type("check", "--app", "shop", "--db", "empty.db", codes=(6,))
    (stand.folder / "text.db").write_text("no database" * 1000)
    assert "no journal" in stand.type("check", "--app", "shop", "--db", "text.db", codes=(6,)).err
    with closing(sqlite3.connect(stand.folder / "runs.db", isolation_level=None)) as connection:
        connection.execute("PRAGMA user_version = 1")
    assert "durable_sqlite migrate" in stand.type("check", "--app", "shop", codes=(6,)).err
    with closing(sqlite3.connect(stand.folder / "runs.db", isolation_level=None)) as connection:
        connection.execute("PRAGMA user_version = 9999")
    assert "use a newer one" in stand.type("check", "--app", "shop", codes=(6,)).err


_CODEC = """
from durable_sqlite import Engine

class Hidden:
    name = "hidden"

    def encode(self, data):
        return data[::-1]

    decode = encode

def made():
    import shop
    return Engine("elsewhere.db", codec=Hidden())
"""


@thorough
def test_a_journal_with_a_codec_needs_the_engine_that_has_it(stand: Stand) -> None:
    (stand.folder / "hidden.py").write_text(_CODEC)
    (stand.folder / "begin.py").write_text(
        "import asyncio, hidden, shop\nfrom durable_sqlite import Engine\n"
        "async def main():\n"
        "    async with Engine('hidden.db', codec=hidden.Hidden()) as engine:\n"
        "        await shop.nap.start(0)\n        await engine.join()\n"
        "asyncio.run(main())\n"
    )
    subprocess.run([sys.executable, "begin.py"], cwd=stand.folder, env=environment(), check=True, capture_output=True)
    said = stand.type("check", "--app", "shop", "--db", "hidden.db", codes=(6,))
    assert "has the codec hidden" in said.err
    said = stand.type("check", "--app", "hidden:made", "--db", "hidden.db")
    assert said.out.startswith("1 of 1 run fit")


@thorough
def test_what_a_stranger_wrote_is_printed_harmlessly(hostile: Path, tmp_path: Path) -> None:
    shutil.copy(hostile, tmp_path / "runs.db")
    said = Stand(tmp_path).type("check", "--app", "shop", codes=(0, 1, 6), PYTHONUTF8="1")
    risky = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
    text = said.out + said.err
    assert [char for char in text if char != "\n" and unicodedata.category(char) in risky] == []
    assert said.out or said.err


def test_the_page_names_each_field_and_kind() -> None:
    page = (ROOT / "docs" / "checking.md").read_text(encoding="utf-8")
    assert [kind for kind in DifferenceKind if f"| `{kind}` |" not in page] == []
    free = {kind for kind in DifferenceKind if f"| `{kind}` | *free*" in page}
    assert free == {kind for kind in DifferenceKind if kind.free}

"""`start`, `worker` and `dead-letters`: runs that begin, runs that are driven, runs that nobody has seen to."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.stand import Stand
from tests.cli.support import durable_sqlite, environment

pytestmark = pytest.mark.thorough  # each test starts several processes: too many for every day


@pytest.fixture(scope="session")
def failed_shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an application of which three runs have failed."""
    stand = Stand(tmp_path_factory.mktemp("failed"))
    assert stand.script("delivery", "d-one,d-two", "teapot") == 0
    return stand.folder


@pytest.fixture
def failed(tmp_path: Path, failed_shop: Path) -> Stand:
    """The same for one test alone."""
    shutil.copytree(failed_shop, tmp_path, dirs_exist_ok=True)
    return Stand(tmp_path)


# Start ---------------------------------------------------------------------------------------------------------------


def test_a_run_is_started_and_left_to_a_worker(failed: Stand) -> None:
    words = ["start", "order", "--app", "shop", "--input", '{"item": "cup"}', "--id", "o-1", "--tag", "team=eu"]
    said = failed.type(*words)
    assert said.out == "o-1\n"
    assert "started run o-1 of workflow order" in said.err
    assert "durable_sqlite resume o-1" in said.err
    assert failed.type("show", "o-1", "--json").data["tags"] == {"team": "eu"}
    again = failed.type(*words, "--json").data
    assert (again["id"], again["created"]) == ("o-1", False)
    other = [word.replace("cup", "pot") for word in words]
    assert "o-1" in failed.type(*other, codes=(6,)).err


def test_a_run_is_started_and_driven_here(failed: Stand) -> None:
    said = failed.type("start", "nap", "--app", "shop", "--input", '{"seconds": 0.1}', "--wait", "--json")
    assert said.data["result"]["value"] == "awake"
    assert failed.state("d-one") == "failed"  # others are left alone


_HASTY = """
from durable_sqlite import Workflow, step, workflow


@step
async def cook() -> str:
    return "an egg"


@workflow
async def breakfast() -> str:
    return await cook()


start = Workflow.start


async def start_and_end(*args, **kwargs):
    run = await start(*args, **kwargs)
    await run  # as fast as it may be
    return run


Workflow.start = start_and_end
"""


def test_what_was_recorded_before_anybody_could_look_is_told_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "hasty.py").write_text(_HASTY)
    said = Stand(tmp_path).type("start", "breakfast", "--app", "hasty", "--input", "{}", "--wait", "--create")
    assert "  cook#1  step" in said.err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["ordr", "--app", "shop"], "defines no workflow 'ordr'"),
        (["order"], "nothing says where your code is"),
        (["order", "--app", "shop", "--input", '{"item": 5}'], "$.item: Input should be a valid string"),
        (["order", "--app", "shop", "--input", '{"item": "a", "x": 1}'], "'x' is given, but order() does not take it"),
        (["order", "--app", "shop"], "order() needs 'item', which is not given"),
        (["order", "--app", "shop", "--input", "[1]"], "it is defined as order(item: str, cents: int = 1200)"),
        (["order", "--app", "shop", "--input", "{'item': 1}"], "(line 1, column 2)"),
        (["order", "--app", "shop", "--input", '{"item": "a"}', "--id", "a\nb"], "a run's id"),
        (["order", "--app", "shop", "--input", '{"item": "a"}', "--tag", "eu"], "write it as in `--tag team=eu`"),
    ],
)
def test_what_cannot_be_started_is_refused(failed: Stand, words: list[str], told: str) -> None:
    assert told in failed.type("start", *words, codes=(2,)).err


@pytest.mark.parametrize("words", [["start", "order", "--app", "shop", "--input", '{"item": "a"}'], ["worker"]])
def test_a_journal_is_made_on_wish_alone(stand: Stand, words: list[str]) -> None:
    said = stand.type(*words, codes=(2,))
    assert "there is no journal runs.db" in said.err
    assert not (stand.folder / "runs.db").exists()
    if words[0] == "start":
        stand.type(*words, "--create")
        assert (stand.folder / "runs.db").exists()


# Worker --------------------------------------------------------------------------------------------------------------


def _worker(stand: Stand, *words: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "durable_sqlite", "worker", "--db", "runs.db", *words]
    process = subprocess.Popen(command, cwd=stand.folder, env=environment(), stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    assert "loads shop" in process.stderr.readline()
    assert f"process {process.pid} drives 5 workflows of runs.db: delivery, nap" in process.stderr.readline()
    return process


def test_a_worker_drives_what_comes_and_ends_in_good_order(failed: Stand) -> None:
    (failed.folder / "open").touch()
    process = _worker(failed, "--app", "shop")
    try:
        failed.type("dead-letters", "redrive", "--all")
        with subprocess.Popen(
            [sys.executable, "-m", "durable_sqlite", "watch", "d-one", "--db", "runs.db"],
            cwd=failed.folder,
            env=environment(),
            stdout=subprocess.DEVNULL,
        ) as watching:
            assert watching.wait(timeout=30) == 0
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 0
    assert "ended: everything was given back" in errors


def test_a_worker_without_code_or_workflows_does_not_begin(failed: Stand) -> None:
    assert "nothing says where your code is" in failed.type("worker", codes=(2,)).err
    (failed.folder / "bare.py").touch()
    assert "defines no workflow" in failed.type("worker", "--app", "bare", codes=(2,)).err
    assert "is no length of time" in failed.type("worker", "--app", "shop", "--drain", "soon", codes=(2,)).err


def test_an_engine_of_the_application_lends_its_options(stand: Stand) -> None:
    (stand.folder / "coded.py").write_text(
        "from durable_sqlite import Engine\nfrom shop import *\n"
        "class Backwards:\n    name = 'backwards'\n"
        "    def encode(self, data): return data[::-1]\n    def decode(self, data): return data[::-1]\n"
        "def engine(): return Engine('runs.db', codec=Backwards())\n"
        "elsewhere = Engine('other.db')\n"
        "async def coroutine(): pass\ndef fails(): raise ValueError('not today')\n"
    )
    words = ["start", "nap", "--input", '{"seconds": 0}', "--wait"]
    stand.type(*words, "--id", "n", "--create", "--app", "coded:engine")
    assert "encoded by the codec backwards" in stand.type("show", "n").out
    assert "created with the codec" in stand.type(*words, "--app", "coded", codes=(6,)).err
    assert "is on " in stand.type(*words, "--app", "coded:elsewhere", codes=(2,)).err
    assert "no function that makes one" in stand.type(*words, "--app", "coded:coroutine", codes=(2,)).err
    assert "ValueError: not today" in stand.type(*words, "--app", "coded:fails", codes=(2,)).err


# Dead letters --------------------------------------------------------------------------------------------------------


def test_dead_letters_are_listed_and_shown(failed: Stand) -> None:
    said = failed.type("dead-letters", "list")
    assert [line.split()[:4] for line in said.out.splitlines()[1:]] == [
        ["d-two", "delivery", "failed", "retries_exhausted"],
        ["d-one", "delivery", "failed", "retries_exhausted"],
    ]
    listed = failed.type("dead-letters", "list", "--json", "--limit", "1", "--workflow", "delivery").data
    assert [(letter["id"], letter["keys"]) for letter in listed] == [("d-two", ["ship#1"])]
    assert "no dead letters that fit" in failed.type("dead-letters", "list", "--reason", "deadline").err
    shown = failed.type("dead-letters", "show", "d-one").out
    assert "RuntimeError: the warehouse is closed" in shown
    assert 'raise RuntimeError("the warehouse is closed")' in shown
    assert "durable_sqlite resume d-one" in shown
    document = failed.type("dead-letters", "show", "d-one", "--json").data
    assert document["input"]["value"] == {"item": "teapot"}
    assert document["commands"][0] == "durable_sqlite resume d-one"


def test_dead_letters_are_redriven_or_marked_as_seen_to(failed: Stand) -> None:
    said = failed.type("dead-letters", "redrive", "d-one")
    assert said.out == "d-one goes on, and tries ship#1 again\n"
    assert failed.state("d-one") == "pending"
    assert failed.type("dead-letters", "discard", "--all", "--json").data == {
        "done": [{"id": "d-two", "tried_again": []}],
        "refused": [],
    }
    assert "holds no dead letters" in failed.type("dead-letters", "list").err
    assert "it was marked as seen to" in failed.type("dead-letters", "show", "d-two").out
    faster = failed.type("dead-letters", "redrive", "d-two", "d-one", codes=(6,))
    assert "d-two goes on" in faster.out
    assert "d-one" in faster.err


@pytest.mark.parametrize("name", ["redrive", "discard"])
def test_which_dead_letters_are_meant_is_said_in_one_way(failed: Stand, name: str) -> None:
    assert "name dead letters, or say --all" in failed.type("dead-letters", name, codes=(2,)).err
    assert "choose among --all" in failed.type("dead-letters", name, "d-one", "--workflow", "x", codes=(2,)).err
    assert "holds no run" in failed.type("dead-letters", name, "nobody", codes=(3,)).err
    assert "no dead letters that fit" in failed.type("dead-letters", name, "--all", "--workflow", "x").err


def test_what_is_no_dead_letter_is_said(failed: Stand, tmp_path_factory: pytest.TempPathFactory) -> None:
    failed.type("dead-letters", "redrive", "d-one")
    assert "is pending, so it is no dead letter" in failed.type("dead-letters", "show", "d-one", codes=(6,)).err
    assert "is no number" in failed.type("dead-letters", "list", "--limit", "x", codes=(2,)).err
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    for words in (["list"], ["show", "@"], ["redrive", "@"], ["discard", "--all"]):
        durable_sqlite("dead-letters", *words, "--db", "new.db", cwd=elsewhere, codes=(2,))
    assert list(elsewhere.iterdir()) == []

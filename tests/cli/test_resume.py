"""`resume` drives one run in the process of the command, and says what it waits for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.journals import HOUR, made
from tests.cli.stand import Stand
from tests.cli.support import durable_sqlite, environment


def test_a_crashed_run_goes_on_until_it_waits_and_the_next_command_is_said(crashed: Stand) -> None:
    before = crashed.type("show", "order-2", "--json").data
    said = crashed.type("resume", "order-1", codes=(4,))
    assert "loads shop.py (where the run was started from)" in said.err
    assert "has died; 1 outcome recorded" in said.err
    assert "charge#1  step" in said.err
    assert "reserve" not in said.err  # it is recorded, so it did not run again
    assert "waits for an answer to Review" in said.out
    assert 'durable_sqlite answer order-1 Review \'{"granted": true' in said.out
    other = crashed.type("show", "order-2", "--json").data
    assert (other["state"], other["entries"]) == ("pending", before["entries"])


def test_for_programs_it_is_one_document(crashed: Stand) -> None:
    document = crashed.type("resume", "order-1", "--json", codes=(4,)).data
    assert (document["id"], document["state"], document["result"]) == ("order-1", "suspended", None)
    assert document["commands"][0].startswith("durable_sqlite answer order-1 Review")


def test_what_failed_is_tried_again_with_a_fresh_budget(stand: Stand) -> None:
    stand.script("delivery", "d", "teapot")
    again = stand.type("resume", "d", codes=(1,))
    assert "tries again, with a fresh budget: ship#1" in again.err
    assert "ship#1  attempt 1 failed: RuntimeError: the warehouse is closed; the next one in" in again.err
    assert "durable_sqlite resume d" in again.out
    (stand.folder / "open").touch()
    done = stand.type("resume", "d", "--json")
    assert done.data["result"]["value"] == "teapot, on its way"
    assert done.data["tried_again"] == ["ship#1"]
    ended = stand.type("resume", "d")
    assert "there is nothing to resume: run d is completed" in ended.err
    assert '"teapot, on its way"' in ended.out


def test_a_short_sleep_is_stayed_for_and_a_long_one_is_not(stand: Stand) -> None:
    stand.script("nap", "n", "0.3")
    assert '"awake"' in stand.type("resume", "n").out
    stand.script("nap", "long", "3600")
    said = stand.type("resume", "long", codes=(4,))
    assert "nothing of run long is due" in said.err
    assert "waits for its sleep" in said.out


_HELD = """
import asyncio
from durable_sqlite import Engine, step, workflow

@step
async def still():
    print("here", flush=True)
    await asyncio.sleep(60)

@workflow
async def held():
    await still()

async def main():
    async with Engine("runs.db"):
        await held.options(id="held")()

asyncio.run(main())
"""


def test_a_run_of_a_live_worker_is_refused_and_the_worker_named(stand: Stand) -> None:
    (stand.folder / "held.py").write_text(_HELD)
    process = subprocess.Popen(
        [sys.executable, "held.py"], cwd=stand.folder, env=environment(), stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "here\n"
        said = stand.type("resume", "held", codes=(75,))
    finally:
        process.kill()
        process.communicate()
    assert f"is driven by process {process.pid}" in said.err
    assert "durable_sqlite watch held" in said.err
    assert said.out == ""


def test_all_that_is_due_is_driven_and_the_next_time_is_said(crashed: Stand) -> None:
    (crashed.folder / "die").unlink()
    said = crashed.type("resume", "--due", "--app", "shop")
    assert "order-1" in said.out
    assert "order-2" in said.out
    assert "nothing comes due by itself" in said.out
    crashed.script("nap", "long", "3600")
    assert "call again at" in crashed.type("resume", "--due").out
    again = crashed.type("resume", "--due", "--json", "--app", "shop").data
    assert again["driven"] == []
    assert again["next_due"] is not None


_OURS = """
import subprocess, sys
from durable_sqlite import step, workflow

@step
def meanwhile():
    subprocess.run([sys.executable, "theirs.py"], check=True)

@workflow
async def ours():
    await meanwhile()
"""
_THEIRS = """
import asyncio
from durable_sqlite import Engine, workflow

@workflow
async def theirs():
    return 1

async def main():
    async with Engine("runs.db"):
        await theirs.options(id="theirs")()

asyncio.run(main())
"""


@pytest.mark.thorough  # three processes, one in the other
def test_what_others_drive_meanwhile_is_not_said_to_be_driven_here(stand: Stand) -> None:
    (stand.folder / "ours.py").write_text(_OURS)
    (stand.folder / "theirs.py").write_text(_THEIRS)
    stand.type("start", "ours", "--id", "mine", "--create", "--app", "ours")
    said = stand.type("resume", "--due", "--app", "ours", "--json")
    assert said.data["driven"] == [{"id": "mine", "workflow": "ours", "state": "completed"}]
    assert stand.state("theirs") == "completed"


# Which code ----------------------------------------------------------------------------------------------------------


def test_the_origin_is_loaded_only_where_one_stands_in_its_directory(
    crashed: Stand, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    said = durable_sqlite("resume", "@", "--db", crashed.folder / "runs.db", cwd=elsewhere, codes=(2,))
    assert "was defined in shop, which is not below" in said.err
    assert "--app MODULE" in said.err


def test_a_file_that_defines_no_such_workflow_is_not_run(crashed: Stand) -> None:
    (crashed.folder / "shop.py").write_text(
        "open('ran', 'w').close()\nfrom elsewhere import workflow\n@workflow\nasync def order(item): pass\n"
    )
    said = crashed.type("resume", "order-1", codes=(2,))
    assert "shop.py defines no `@workflow` order as order, so it was not loaded" in said.err
    (crashed.folder / "shop.py").write_text("open('ran', 'w').close()\nasync def order(:\n")
    said = crashed.type("resume", "order-1", codes=(2,))
    assert "shop.py is no Python, so it was not loaded" in said.err
    assert "async def order(:" in said.err
    assert not (crashed.folder / "ran").exists()


def test_a_link_out_of_the_directory_is_not_followed(crashed: Stand, tmp_path_factory: pytest.TempPathFactory) -> None:
    outside = tmp_path_factory.mktemp("outside") / "shop.py"
    (crashed.folder / "shop.py").rename(outside)
    (crashed.folder / "shop.py").symlink_to(outside)
    assert "leads out of" in crashed.type("resume", "order-1", codes=(2,)).err


def test_an_origin_with_the_name_of_an_installed_module_is_not_mixed_up(tmp_path: Path) -> None:
    with made(tmp_path / "runs.db") as make:
        make.run("a", "pending", origin="sys:order", ago=HOUR)
        make.run("b", "pending", origin="../shop:order", ago=HOUR)
        make.run("c", "pending", origin="", ago=HOUR)
    stand = Stand(tmp_path)
    (tmp_path / "shop.py").rename(tmp_path / "sys.py")
    assert "another module has the name sys" in stand.type("resume", "a", codes=(2,)).err
    for run in "bc":
        assert "does not say where" in stand.type("resume", run, codes=(2,)).err


def test_a_module_that_cannot_be_imported_shows_its_own_lines_and_none_of_ours(crashed: Stand) -> None:
    (crashed.folder / "broken.py").write_text("def low():\n    return 1 / 0\n\nlow()\n")
    said = crashed.type("resume", "order-1", "--app", "broken", codes=(2,))
    assert "broken (--app) cannot be imported" in said.err
    assert 'broken.py", line 4, in <module>' in said.err
    assert "ZeroDivisionError: division by zero" in said.err
    assert "importlib" not in said.err
    assert "durable_sqlite/" not in said.err


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("raise SystemExit(3)", "ended the program while it was imported (exit code 3)"),
        ("import nowhere_at_all", "No module named 'nowhere_at_all'"),
        ("x = (", "SyntaxError"),
        ("raise ValueError('\\x1b[31m')", "\\x1b[31m"),
        ("thing = 5", "defines no workflow 'order'"),
    ],
)
def test_other_modules_that_are_no_application_are_told_of(crashed: Stand, text: str, words: str) -> None:
    (crashed.folder / "app.py").write_text(text)
    assert words in crashed.type("resume", "order-1", "--app", "app", codes=(2,)).err


def test_what_is_typed_wrong_is_said(crashed: Stand) -> None:
    assert "there is no module nowhere" in crashed.type("resume", "@", "--app", "nowhere", codes=(2,)).err
    assert "names no module" in crashed.type("resume", "@", "--app", "a b", codes=(2,)).err
    assert "no workflow, no list" in crashed.type("resume", "@", "--app", "shop:Decision", codes=(2,)).err
    assert "name a run, or say --due" in crashed.type("resume", codes=(2,)).err
    assert "name a run, or say --due" in crashed.type("resume", "@", "--due", codes=(2,)).err
    assert "holds no run" in crashed.type("resume", "nobody", codes=(3,)).err

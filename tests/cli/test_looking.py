"""Each command that looks: what it prints for people and for programs, with which code, and what it refuses."""

from __future__ import annotations

import json
import os
import re
import select
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Generator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Self, cast
from xml.etree import ElementTree as ET

import pytest

from durable_sqlite._liveness import Lifeline, side_file, this_start
from durable_sqlite._records import Kind, Reason, State
from durable_sqlite.cli import _trouble, main
from durable_sqlite.cli._commands import TABLE
from tests.cli.journals import MINUTE, SECOND, made
from tests.cli.support import Said, durable_sqlite, environment
from tests.support.house import ROOT, started


def look(shop: Path, *words: str, codes: tuple[int, ...] = (0,), **env: str) -> Said:
    return durable_sqlite(*words, "--db", shop, cwd=shop.parent, codes=codes, env=env)


def flat(said: Said) -> str:
    """A wrapped paragraph as one line."""
    return " ".join(said.out.split())


# list ----------------------------------------------------------------------------------------------------------------


def test_list_shows_newest_first_what_each_run_does(shop: Path) -> None:
    said = look(shop, "list")
    lines = said.out.splitlines()
    assert lines[0].split() == ["ID", "WORKFLOW", "STATE", "FOR", "WHAT", "STATUS"]
    assert [line.split()[0] for line in lines[1:4]] == ["run-paused", "run-ready", "run-held"]
    assert "paused by ada (lunch)" in lines[1]
    assert "anybody to drive it (2 crashes)" in lines[2]
    assert "worker 1 is gone" in lines[3]
    assert "an answer to Review until" in said.out
    assert "in review 1/4" in said.out


@pytest.mark.parametrize(
    ("filters", "runs"),
    [
        (["--status", "failed", "--status", "cancelled"], ["run-failed", "run-cancelled"]),
        (["--workflow", "ship"], ["child-parked", "child-of-done"]),
        (["--tag", "team=eu"], ["run-asks", "run-done"]),
        (["--tag", "team=eu", "--tag", "kind=big"], ["run-asks"]),
        (["--status", "suspended", "--workflow", "order", "--limit", "1"], ["run-parent"]),
        (["--workflow", "nobody"], []),
    ],
    ids=" ".join,
)
def test_list_filters(shop: Path, filters: list[str], runs: list[str]) -> None:
    assert [run["id"] for run in look(shop, "list", "--json", *filters).data["runs"]] == runs


def test_list_shows_what_was_started_since(shop: Path) -> None:
    older = {"run-failed", "run-parked"}
    runs = {run["id"] for run in look(shop, "list", "--json", "--since", "25m").data["runs"]}
    assert len(runs) == 13
    assert not older & runs
    assert older < {run["id"] for run in look(shop, "list", "--json", "--since", "2h").data["runs"]}


def test_list_says_that_there_are_more_and_when_nothing_fits(shop: Path) -> None:
    few = look(shop, "list", "--limit", "2")
    assert "there are more: --limit 4" in few.err
    assert len(few.out.splitlines()) == 3
    assert len(look(shop, "list", "--limit", "0").out.splitlines()) == 16
    assert f"next: durable_sqlite why run-paused --db {shop}" in few.err
    assert look(shop, "list", "--status", "completed").err == ""
    nothing = look(shop, "list", "--workflow", "nobody")
    assert (nothing.out, nothing.err) == ("", f"no run of {shop} fits\n")


def test_list_has_a_stable_shape_for_programs(shop: Path) -> None:
    data = look(shop, "list", "--json", "--workflow", "order", "--limit", "3").data
    assert data["more"] is True
    ready, held, _ = data["runs"]
    assert list(ready) == [
        "id", "workflow", "state", "reason", "created_at", "updated_at", "ended_at", "status", "progress", "parent",
        "waits", "worker",
    ]  # fmt: skip
    assert held["worker"] == {"no": 1, "pid": 4_000_001, "alive": False}
    asks = look(shop, "list", "--json", "--tag", "kind=big").data["runs"][0]
    assert asks["progress"] == {"done": 1, "total": 4}
    [wait] = asks["waits"]
    assert (wait["key"], wait["kind"], wait["name"], wait["run"]) == ("Review#1", "question", "Review", None)
    assert wait["since"].endswith("Z")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--status", "sleepy"], "invalid choice: 'sleepy'"),
        (["--tag", "team"], "'team' is no NAME=VALUE"),
        (["--since", "yesterday"], "'yesterday' is no length of time such as 90s, 15m, 2h or 7d"),
        (["--since", "nan"], "is no length of time"),
        (["--limit", "-1"], "'-1' is no number from 0 to"),
        (["--limit", "many"], "'many' is no number"),
        (["@"], "unrecognized arguments: @"),
    ],
)
def test_list_refuses_what_it_does_not_know(shop: Path, words: list[str], told: str) -> None:
    said = look(shop, "list", *words, codes=(2,))
    assert told in said.err
    assert "durable_sqlite list --help" in said.err


# show ----------------------------------------------------------------------------------------------------------------


def test_show_tells_all_of_a_run_that_waits(shop: Path) -> None:
    said = look(shop, "show", "run-asks")
    for text in (
        "run-asks  order  suspended", "in review  1 of 4", "kind=big  team=eu", "shop.flows:order", '{"name":"a teapot"}',
        "entries (1)", "reserve#1", "waits for (1)", "an answer to Review", "messages that nobody took (1)",
        '{"receipt":"r-1"}', "questions (1)", '{"cents":1200}',
    ):  # fmt: skip
        assert text in said.out, text
    assert f"next: durable_sqlite why run-asks --db {shop}" in said.err


def test_show_puts_attempts_before_their_outcome_and_names_children(shop: Path) -> None:
    said = look(shop, "show", "run-done")
    attempts = [line.split() for line in said.out.splitlines() if "charge#1" in line]
    assert [words[1] for words in attempts] == ["attempt", "attempt", "charge#1"]
    assert "ConnectionError: no route to host; again at" in said.out
    assert '"ch_17"' in said.out
    assert "child-of-done" in said.out
    assert '{"sent":true}' in said.out


def test_show_follows_an_error_to_its_cause(shop: Path) -> None:
    said = look(shop, "show", "run-failed")
    assert (
        "StepFailed: step charge#1 failed: CardDeclined: card 42 was declined (after 3 attempts)  [charge#1]"
        in said.out
    )
    assert "because of CardDeclined: card 42 was declined" in said.out
    assert 'File "shop.py"' not in said.out
    assert 'File "shop.py", line 7' in look(shop, "show", "run-failed", "--traceback").out


def test_show_gives_programs_the_values_themselves(shop: Path) -> None:
    data = look(shop, "show", "run-done", "--json").data
    assert data["input"] == {"bytes": 19, "value": {"name": "a teapot"}}
    assert data["result"]["value"] == {"sent": True}
    charge, ship = data["entries"]
    assert charge["value"]["value"] == "ch_17"
    assert [failure["number"] for failure in charge["failures"]] == [1, 2]
    assert charge["failures"][0]["error"] == {"type": "builtins.ConnectionError", "message": "no route to host"}
    assert (ship["kind"], ship["key"]) == ("child", "ship#1")
    assert data["children"][0]["id"] == "child-of-done"
    failed = look(shop, "show", "run-failed", "--json").data
    assert failed["error"]["cause"]["type"] == "shop.CardDeclined"
    assert failed["entries"][0]["error"]["message"] == "card 42 was declined"
    assert failed["result"] is None


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A journal with long runs, large values and a codec."""
    path = tmp_path_factory.mktemp("odd") / "odd.db"
    with made(path) as make:
        make.connection.execute("UPDATE durable_meta SET value = 'zlib' WHERE name = 'codec'")
        no = make.run("sealed", "failed", input=b"x\x9c+.", result=b"x\x9cabc", reason="error")
        make.entry(no, "a#1", 1, ago=0, payload=b"x\x9c\x00")
        make.attempt(no, "b#1", 1, ago=0)
    long = path.with_name("long.db")
    with made(long) as make:
        no = make.run("long", "completed", input=b'"' + b"y" * 50_000 + b'"', result=b"{}")
        for number in range(1, 131):
            make.entry(no, f"step#{number}", number, ago=0)
    return path


def test_show_names_the_codec_of_what_it_cannot_read(odd: Path) -> None:
    said = look(odd, "show", "sealed")
    assert "input      <4 bytes, encoded by the codec zlib>" in said.out
    assert "error      <encoded by the codec zlib>" in said.out
    assert look(odd, "show", "sealed", "--json").data["input"] == {"bytes": 4, "codec": "zlib"}


def test_show_bounds_what_it_prints_unless_it_is_told_otherwise(odd: Path) -> None:
    long = odd.with_name("long.db")
    said = look(long, "show", "long")
    assert "30 earlier entries not shown: --entries 0 shows all" in said.err
    assert "step#30 " not in said.out
    assert "step#31 " in said.out
    assert "y… (48.8 KiB)" in said.out
    whole = look(long, "show", "long", "--entries", "0", "--full")
    assert "step#1 " in whole.out
    assert "y" * 50_000 in whole.out


@pytest.mark.parametrize("command", ["show", "why", "timeline"])
def test_a_run_has_to_be_named_and_be_there(shop: Path, command: str) -> None:
    assert "required: ID" in look(shop, command, codes=(2,)).err
    assert "holds no run" in look(shop, command, "nobody", codes=(3,)).err
    assert look(shop, command, "nobody", "--json", codes=(3,)).out == ""


# why -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("run", "texts", "command"),
    [
        (
            "run-asks",
            ["waits for an answer to Review (Review#1), since", "until", "(in 1 h 5", 'It asks: {"cents":1200}. An answer'],
            """answer run-asks Review '{"granted": true, "by": "you"}'""",
        ),
        ("run-listens", ["waits for a message Paid (Paid#1)"], "signal run-listens Paid"),
        ("run-sleeps", ["waits for its sleep", "(in 5", "by itself then, while a worker is open; none is open here now"], None),
        ("run-overslept", ["That time came at", "No worker is open here", "(shop.flows:order)"], "resume run-overslept"),
        (
            "run-retries",
            ["the next attempt of charge", "Attempt 2 of charge#1 failed at", "ConnectionError: no route", "attempt 3 may begin"],
            None,
        ),
        ("run-parent", ["child run child-parked", "that one is parked (crash_loop)"], "why child-parked"),
        ("child-parked", ["is parked since", "died one after the other", "(crash_loop)"], "resume child-parked"),
        (
            "run-held",
            ["was driven by worker 1 (process 4000001), but its process has ended", "1 outcome, the last, reserve#1,"],
            "resume run-held",
        ),
        ("run-ready", ["nobody drives it, since", "2 processes in a row died"], "resume run-ready"),
        ("run-paused", ["is paused by ada (lunch), since"], "resume run-paused"),
        (
            "run-failed",
            ["failed at", "each of its attempts", "CardDeclined: card 42 was declined, after 3 attempts", "tries charge#1 again"],
            "resume run-failed",
        ),
        ("run-parked", ["its code asks for something else", "ReplayDiverged: step pay#1"], "resume run-parked"),
        ("run-done", ["has completed at", "after 1 min"], None),
        ("run-cancelled", ["was cancelled by bob (twice)", "final"], None),
    ],
)  # fmt: skip
def test_why_says_what_a_run_waits_for_and_what_to_type(
    shop: Path, run: str, texts: list[str], command: str | None
) -> None:
    said = look(shop, "why", run)
    for text in texts:
        assert text in flat(said), text
    commands = [line.strip() for line in said.out.splitlines() if line.startswith("  durable_sqlite")]
    assert commands == ([] if command is None else [f"durable_sqlite {command} --db {shop}"])


def test_why_repeats_the_journal_only_where_it_was_typed(shop: Path) -> None:
    said = durable_sqlite("why", "run-paused", cwd=shop.parent, env={"DURABLE_SQLITE_DB": str(shop)})
    assert said.out.splitlines()[-1] == "  durable_sqlite resume run-paused"


def test_why_gives_programs_the_facts(shop: Path) -> None:
    data = look(shop, "why", "run-retries", "--json").data
    assert data["text"].startswith("Run run-retries of workflow order waits for")
    assert data["waits"][0]["kind"] == "step"
    assert data["retries"][0]["attempt"] == 2
    assert data["retries"][0]["error"]["message"] == "no route to host"
    held = look(shop, "why", "run-held", "--json").data
    assert held["owner"]["alive"] is False
    assert held["commands"] == [f"durable_sqlite resume run-held --db {shop}"]


@contextmanager
def held(folder: Path, **more: Any) -> Generator[tuple[Path, Lifeline]]:
    """A journal with a run that a worker of this very process drives."""
    path = folder / "held.db"
    lifeline = Lifeline(side_file(path, "me"))
    with made(path) as make:
        worker = make.worker("me", host=this_start(), **more.pop("worker", {}))
        make.run("r", "running", owner=worker, epoch=1, **more)
    try:
        yield path, lifeline
    finally:
        lifeline.release()


def test_why_tells_a_live_owner_from_one_that_has_died(tmp_path: Path) -> None:
    with held(tmp_path) as (path, lifeline):
        alive = flat(look(path, "why", "r"))
        assert f"is driven by worker 1 (process {os.getpid()}): it lives." in alive
        assert f"end process {os.getpid()}" in alive
        assert "It renews a lease of 15 s, and last wrote something at" in alive
        assert look(path, "list", "--json").data["runs"][0]["worker"]["alive"] is True
        lifeline.release()
        dead = flat(look(path, "why", "r"))
        assert "but its process has ended" in dead
        assert "durable_sqlite resume r" in dead


def test_why_sees_that_a_live_owner_hangs(tmp_path: Path) -> None:
    at = 1_700_000_000 * SECOND
    with held(tmp_path, worker={"beat_at": at, "ticked_at": at - MINUTE}) as (path, _):
        assert "its event loop had stood still for 1 min" in flat(look(path, "why", "r"))
        doctor = look(path, "doctor", codes=(1,))
        assert "its event loop stands still" in doctor.out


def test_why_tells_when_a_lease_elsewhere_ends_and_guesses_nothing(tmp_path: Path) -> None:
    with made(tmp_path / "far.db") as make:
        worker = make.worker("far", host="another machine", lease=20 * MINUTE)
        no = make.run("held", "running", owner=worker, epoch=1)
        make.entry(no, "step#1", 1, ago=5 * MINUTE)
        silent = make.worker("silent", host="another machine", lease=20 * SECOND)
        make.run("silent", "running", owner=silent, epoch=1)
    said = flat(look(tmp_path / "far.db", "why", "held"))
    assert "is driven by worker 1" in said
    assert "on another machine" in said
    assert re.search(
        r"It last wrote something at [\d:]+ \(5 min.* ago\), so its lease of 20 min ends at [\d:]+ \(in 14 min", said
    )
    assert "takes the run over once it has itself seen nothing of it for that long" in said
    assert "resume" not in said
    said = flat(look(tmp_path / "far.db", "why", "silent"))
    assert re.search(r"its lease of 20 s ended at [\d:]+ \(9 min", said)


def test_each_state_each_reason_and_each_kind_of_wait_has_words_of_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "all.db"
    kinds = [Kind.STEP, Kind.TRANSACTION, *(kind for kind in Kind if kind.waits and kind is not Kind.CANCEL)]
    with made(path) as make:
        for reason in Reason:
            make.run(f"for-{reason}", "parked", reason=reason)
        for kind in kinds:
            make.wait(make.run(f"waits-{kind}"), "a#1", kind, ago=MINUTE, until=MINUTE, target="other")
        worker = make.worker("w", host="another machine")
        for state in State:
            more: dict[State, dict[str, Any]] = {
                State.RUNNING: {"owner": worker, "epoch": 1},
                State.PAUSED: {"pause_at": make.now, "pause_by": "ada", "pause_reason": "lunch"},
            }
            make.run(f"is-{state}", state, **more.get(state, {}))

    def why(run: str) -> str:
        assert main(["why", run, "--db", str(path), "--json"]) == 0
        return str(json.loads(capsys.readouterr().out)["text"])

    for reason in Reason:
        assert f"because {reason} ({reason})" not in why(f"for-{reason}")
    for kind in kinds:
        assert f"waits for {kind} a (a#1)" not in why(f"waits-{kind}")
    for state in State:
        assert why(f"is-{state}") != f"Run is-{state} of workflow order is {state}."


_AT_WORK = """
import asyncio, sys
from durable_sqlite import Engine, Signal, step, workflow

class Paid(Signal):
    receipt: str

@step
async def stay() -> None:
    print("at work", flush=True)
    await asyncio.Event().wait()

@workflow
async def works() -> None:
    await stay()

@workflow
async def waits() -> str:
    return (await Paid.wait()).receipt

async def main() -> None:
    async with Engine(sys.argv[1]):
        await waits.options(id="waits").start()
        await (await works.options(id="works").start())

asyncio.run(main())
"""


def test_a_program_at_work_is_told_from_one_that_was_killed(tmp_path: Path) -> None:
    path = tmp_path / "real.db"
    with started("-c", _AT_WORK, path) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "at work\n"
        assert f"driven by worker 1 (process {process.pid}): it lives" in flat(look(path, "why", "works"))
        assert look(path, "doctor", "--json").data["sound"] is True
        process.kill()
        process.wait()
    why = flat(look(path, "why", "works"))
    assert f"was driven by worker 1 (process {process.pid}), but its process has ended" in why
    assert f"durable_sqlite resume works --db {path}" in why
    assert "a message Paid" in look(path, "list").out
    assert "†" in look(path, "timeline", "works", PYTHONUTF8="1").out
    left_over = [check for check in look(path, "doctor", "--json").data["checks"] if check["name"] == "workers"]
    assert [check["level"] for check in left_over] == ["note"]


# timeline ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [40, 80, 200])
def test_a_timeline_fills_the_width_and_no_more(shop: Path, width: int) -> None:
    said = look(shop, "timeline", "run-done", COLUMNS=str(width), PYTHONUTF8="1")
    lines = said.out.splitlines()
    chart = lines[2 : lines.index("")]
    assert max(map(len, chart)) <= width
    assert width < 80 or max(map(len, chart)) >= width - 2


def test_a_timeline_draws_attempts_apart_hatches_waits_and_indents_children(shop: Path) -> None:
    run, charge, ship, pack = look(shop, "timeline", "run-done", COLUMNS="100", PYTHONUTF8="1").out.splitlines()[2:6]
    assert "─────" in run
    assert "✗┄" in charge
    assert charge.index("✗") < charge.rindex("✗") < charge.index("█")
    assert charge.count("┄") > 10
    assert ship.startswith("  ship#1 → ship")
    assert "░" in ship
    assert pack.startswith("    pack#1")
    assert ship.index("░") < pack.index("█")


def test_a_timeline_marks_a_crash(shop: Path) -> None:
    said = look(shop, "timeline", "run-held", PYTHONUTF8="1")
    assert "†" in said.out
    assert "running  died" in said.out


def test_a_crash_stays_marked_where_it_was_after_the_run_went_on(tmp_path: Path) -> None:
    path = tmp_path / "crashes.db"
    with made(path) as make:
        no = make.run("went-on", "completed", ago=10 * MINUTE, survived=2, ended_at=make.now - 6 * MINUTE)
        for number, ago in enumerate((9, 8, 7, 6), start=1):
            make.entry(no, f"step#{number}", number, ago=ago * MINUTE)
        no = make.run("forgot", "completed", survived=3)
        make.entry(no, "step#1", 1, ago=9 * MINUTE)
        no = make.run("loops", "parked", ago=10 * MINUTE, deaths=5, survived=1, reason="crash_loop")
        make.entry(no, "step#1", 1, ago=9 * MINUTE)
        make.attempt(no, "charge#1", 1, ago=8 * MINUTE, again=SECOND)
        make.run("never", "completed")

    def of(run: str, *words: str) -> tuple[list[dict[str, Any]], str]:
        rows = look(path, "timeline", run, "--json", *words).data["rows"]
        return [bar for row in rows for bar in row["bars"] if bar["kind"] == "crash"], rows[0]["note"]

    [crash], note = of("went-on")
    entries = look(path, "show", "went-on", "--json").data["entries"]
    assert (crash["start"], note) == (entries[1]["recorded_at"], "crashed")
    assert "†" in look(path, "timeline", "went-on", PYTHONUTF8="1").out.splitlines()[2]
    assert of("went-on", "--rows", "2") == ([], "crashed")  # it lies before what is drawn
    assert of("forgot") == ([], "crashed")
    assert "crashes    its process died after outcome 2, and it went on" in look(path, "show", "went-on").out
    [crash], note = of("loops")
    attempts = look(path, "show", "loops", "--json").data["trying"][0]["attempts"]
    assert (crash["start"], note) == (attempts[0]["ended_at"], "5 crashes")
    assert of("never") == ([], "")


def test_a_timeline_needs_no_more_than_ascii(shop: Path) -> None:
    said = look(shop, "timeline", "run-done", PYTHONIOENCODING="ascii", PYTHONUTF8="0", LC_ALL="C")
    chart = said.out.splitlines()[2:6]
    assert "x." in chart[1]
    assert "#" in chart[3]
    assert said.out.isascii()


def test_a_timeline_is_there_for_programs(shop: Path) -> None:
    rows = look(shop, "timeline", "run-done", "--json").data["rows"]
    assert [(row["depth"], row["outcome"]) for row in rows] == [
        (0, "completed"),
        (1, "value"),
        (1, "completed"),
        (2, "value"),
    ]
    assert [bar["kind"] for bar in rows[1]["bars"]] == ["failed", "back_off", "failed", "back_off", "work"]


def test_a_picture_is_complete_in_itself_and_well_formed(shop: Path, tmp_path: Path) -> None:
    target = tmp_path / "run.svg"
    said = look(shop, "timeline", "run-done", "--svg", str(target))
    assert said.err == f"wrote {target}\n"
    assert [path.name for path in tmp_path.iterdir()] == ["run.svg"]
    text = target.read_text(encoding="utf-8")
    tags = {element.tag.rpartition("}")[2] for element in ET.fromstring(text).iter()}
    assert tags <= {"svg", "title", "defs", "pattern", "rect", "style", "text", "line", "path"}
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "")
    assert "url(#wait)" in text
    look(shop, "timeline", "run-failed", "--svg", str(target))  # a picture may take the place of one
    assert "run-failed" in target.read_text(encoding="utf-8")
    assert look(shop, "timeline", "run-failed", "--svg", "-").out == target.read_text(encoding="utf-8")


def test_a_picture_takes_the_place_of_nothing_else(shop: Path, tmp_path: Path) -> None:
    journal = tmp_path / "j.db"
    shutil.copy(shop, journal)
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "link.svg").symlink_to(journal)
    before = journal.read_bytes()
    for target in ("j.db", "notes.txt", "link.svg", "."):
        said = durable_sqlite("timeline", "@", "--db", "j.db", "--svg", target, cwd=tmp_path, codes=(6,))
        assert "is there already" in said.err
    assert (
        "cannot be written"
        in durable_sqlite("timeline", "@", "--db", "j.db", "--svg", "no/where.svg", cwd=tmp_path, codes=(6,)).err
    )
    assert (journal.read_bytes(), (tmp_path / "notes.txt").read_text()) == (before, "mine")


def test_a_timeline_of_many_lines_says_what_it_leaves_out(shop: Path) -> None:
    said = look(shop, "timeline", "run-done", "--rows", "2")
    assert "2 lines left out: --rows 4" in said.err


# watch ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("run", "code"), [("run-done", 0), ("run-failed", 1), ("run-cancelled", 1), ("run-parked", 5)])
def test_watching_a_run_that_has_stopped_ends_with_its_code(shop: Path, run: str, code: int) -> None:
    assert run in look(shop, "watch", run, codes=(code,)).out


def test_watching_ends_after_the_time_that_was_given(shop: Path) -> None:
    said = look(shop, "watch", "run-asks", "--for", "0s", codes=(4,))
    assert "an answer to Review" in said.out
    assert look(shop, "watch", "--for", "0s").out == ""


class Watch:
    """A `watch` in a process of its own, line by line."""

    def __init__(self, path: Path, *words: str) -> None:
        command = [sys.executable, "-m", "durable_sqlite", "watch", *words, "--db", str(path)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment())
        self._rest = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.process.kill()
        self.process.communicate()

    def heard(self, seconds: float) -> bool:
        """Whether there is something to read, or will be in that time."""
        assert self.process.stdout is not None
        return b"\n" in self._rest or bool(select.select([self.process.stdout], [], [], seconds)[0])

    def line(self) -> str:
        """The next line; no test hangs where none comes."""
        assert self.process.stdout is not None
        while b"\n" not in self._rest:
            assert self.heard(30), "nothing more was printed"
            data = os.read(self.process.stdout.fileno(), 65_536)
            assert data, "it has ended"
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        return line.decode()


@pytest.mark.parametrize("rests", [True, False], ids=["resting", "open"])
def test_watching_a_run_prints_a_line_for_each_change_until_it_ends(tmp_path: Path, rests: bool) -> None:
    path = tmp_path / "w.db"
    with made(path) as make:
        no = make.run("r", "pending")
    with closing(sqlite3.connect(path, isolation_level=None)) as writer:
        if not rests:
            writer.execute("UPDATE durable_runs SET changed = 2")
        with Watch(path, "r") as watch:
            assert "pending" in watch.line()
            report = "UPDATE durable_runs SET changed = 3, status = 'half way', progress_done = 1, progress_total = 2"
            writer.execute(report)
            assert "half way  1/2" in watch.line()
            end = "UPDATE durable_runs SET changed = 4, state = 'completed', ended_at = 9, result = x'31' WHERE no = ?"
            writer.execute(end, (no,))
            assert "completed" in watch.line()
            assert watch.process.wait(timeout=60) == 0


def test_watching_all_runs_tells_programs_of_each_that_changes(tmp_path: Path) -> None:
    path = tmp_path / "w.db"
    with made(path) as make:
        for name in "abc":
            make.run(name, "pending")
    with closing(sqlite3.connect(path, isolation_level=None)) as writer, Watch(path, "--json") as watch:
        # The first look is at what there is; so one run changes until it is heard of.
        for tick in range(10, 160):
            writer.execute("UPDATE durable_runs SET changed = ? WHERE id = 'b'", (tick,))
            if watch.heard(0.2):
                break
        assert json.loads(watch.line())["id"] == "b"


# stats and doctor ----------------------------------------------------------------------------------------------------


def test_stats_counts(shop: Path) -> None:
    said = look(shop, "stats")
    assert "suspended     6" in said.out
    assert "3 that nobody has seen to" in said.out
    assert "worker 1, process 4000001" in said.out
    assert "its process has ended" in said.out
    data = look(shop, "stats", "--json").data
    assert data["runs"] == {
        "pending": 1, "running": 1, "suspended": 6, "paused": 1, "completed": 2, "cancelled": 1, "failed": 1, "parked": 2,
    }  # fmt: skip
    assert data["workflows"] == {"order": 12, "ship": 2, "refund": 1}
    assert (data["dead_letters"], data["questions"], data["messages"]) == (3, 1, 1)
    assert data["file_bytes"] == data["pages"] * data["page_bytes"] == shop.stat().st_size
    assert data["workers"][0]["alive"] is False


@pytest.mark.parametrize("command", ["stats", "doctor", "watch"])
def test_what_a_command_does_not_take_is_refused(shop: Path, command: str) -> None:
    assert "unrecognized arguments" in look(shop, command, "a", "b", codes=(2,)).err


# The page about it ---------------------------------------------------------------------------------------------------


def _keys(value: object) -> set[str]:
    """All names of fields in a document."""
    if isinstance(value, list):
        items = cast("list[object]", value)
        return {key for item in items for key in _keys(item)}
    if isinstance(value, dict):
        fields = cast("dict[str, object]", value)
        return {*fields, *(key for item in fields.values() for key in _keys(item))}
    return set()


def test_the_page_names_each_command_exit_code_and_field(shop: Path) -> None:
    page = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    pages = page + (ROOT / "docs" / "cli_acting.md").read_text(encoding="utf-8")
    named = {entry.name.split()[0] for entry in TABLE} - {"demo"}
    assert [name for name in sorted(named) if f"`{name}" not in pages] == []
    codes = [value for name, value in vars(_trouble).items() if name.isupper() and isinstance(value, int)]
    assert all(f"| {code} |" in page for code in codes)
    shown: set[str] = set()
    for words in (
        ["list"],
        ["show", "run-asks"],
        ["show", "run-failed"],
        ["why", "run-held"],
        ["timeline", "@"],
        ["doctor"],
    ):
        shown |= _keys(look(shop, *words, "--json").data)
    shown |= set(look(shop, "stats", "--json").data) | _keys(json.loads(look(shop, "watch", "run-done", "--json").out))
    ours = shown - {"receipt", "cents", "sent", "team"}  # which are the application's
    assert {key for key in ours if f'"{key}"' not in page and f"`{key}`" not in page and f"`{key}" not in page} == set()

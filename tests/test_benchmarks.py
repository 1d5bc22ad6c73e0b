"""The benchmarks work, and their report is made from what was measured; the figures themselves are for people to read."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from benchmarks import __main__ as command
from benchmarks import measure, profiling
from benchmarks.report import report
from benchmarks.results import verdicts
from benchmarks.scenarios import SCENARIOS
from benchmarks.shape import OURS, Figures, Scenario, Side, least, most, ratio
from benchmarks.witness import WITNESS
from tests.support.house import ROOT


def _command(tmp_path: Path, *arguments: str) -> dict[str, Any]:
    """What the command writes as JSON, in its quickest form."""
    command.main([*arguments, "--quick", "--json", str(tmp_path / "found.json"), "--svg", str(tmp_path / "pictures")])
    found: dict[str, Any] = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))
    return found


@pytest.mark.parametrize("name", [*SCENARIOS])
def test_every_scenario_measures_each_of_its_sides(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(measure, "fresh", measure.here)
    found = _command(tmp_path, "--only", name, "--no-peers")
    [result] = found["scenarios"].values()
    [measured] = result["rounds"]
    scenario = SCENARIOS[name]
    own = [side for side in scenario.sides if not side.needs]
    assert [*measured] == [side.name for side in own]
    for side in own:
        assert measured[side.name][scenario.main] > 0
        assert all(isinstance(figure, float) for figure in measured[side.name].values())
        assert result["durability"][side.name] == (["wal, synchronous=2"] if side.stores else [])
    peers = {side.name for side in scenario.sides} - {side.name for side in own}
    assert set(result["left_out"]) == peers
    assert [floor["says"] for floor in result["floors"]] == [floor.says for floor in scenario.floors]
    by_peers = [floor for floor in result["floors"] if floor["verdict"] == "not measured"]
    assert all("DBOS" in floor["says"] for floor in by_peers)
    assert (tmp_path / "pictures" / f"{name}.svg").exists() == (len(own) > 1)
    printed = capsys.readouterr()
    assert f"{name}: round 1 of 1, {own[-1].name}" in printed.err
    assert scenario.main in printed.out


def test_the_command_measures_in_processes_of_their_own(tmp_path: Path) -> None:
    where = tmp_path / "found.json"
    arguments = ["--only", "sequential", "--quick", "--no-peers", "--json", str(where)]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    [measured] = json.loads(where.read_text(encoding="utf-8"))["scenarios"]["sequential"]["rounds"]
    assert set(measured) == {OURS, "limit"}
    assert "of the limit, at least 0.50" in done.stdout


def test_a_peer_that_is_not_installed_is_left_out_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def figures(_: Path, size: int) -> Figures:
        return {"rate": float(size)}

    sides = (Side(OURS, figures, stores=False), Side("rival", figures, needs="no_such_module_here", stores=False))
    toy = Scenario("toy", "nothing", 10, 1, sides, (least("times rival", 2, ratio("rate", "rival")),), "rate")
    monkeypatch.setitem(SCENARIOS, "toy", toy)
    monkeypatch.setattr(measure, "fresh", measure.here)
    result = _command(tmp_path, "--only", "toy")["scenarios"]["toy"]
    assert result["left_out"] == ["rival"]
    assert result["floors"][0]["verdict"] == "not measured"
    assert "toy: rival is left out: it is not installed" in capsys.readouterr().out


def _writes(pragma: str) -> Callable[[Path, int], Figures]:
    def work(folder: Path, _: int) -> Figures:
        with closing(sqlite3.connect(folder / "some.db")) as connection:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute(f"PRAGMA synchronous={pragma}")
            WITNESS.look()
        return {"rate": 1.0}

    return work


def _writes_nothing(_: Path, size: int) -> Figures:
    return {"rate": float(size)}


def test_a_measurement_at_less_durability_is_refused() -> None:
    def side(work: Callable[[Path, int], Figures]) -> Scenario:
        return Scenario("toy", "nothing", 1, 1, (Side(OURS, work),), (), "rate")

    good = side(_writes("FULL"))
    assert measure.here(good, good.sides[0], 1).durability == ["wal, synchronous=2"]
    for work, said in ((_writes("NORMAL"), "wal, synchronous=1"), (_writes_nothing, "nothing")):
        weak = side(work)
        with pytest.raises(SystemExit, match=f"not seen to be durable, but .*{said}"):
            measure.here(weak, weak.sides[0], 1)


def test_a_floor_is_met_or_missed_where_all_rounds_agree() -> None:
    floors = (least("of the limit", 0.5, ratio("rate", "limit")), most("ms", 3, lambda sides: sides[OURS]["ms"]))
    toy = Scenario("toy", "nothing", 1, 1, (), floors, "rate")
    rounds = [
        {OURS: {"rate": 1.0, "ms": 1.0}, "limit": {"rate": 10.0}},
        {OURS: {"rate": 60.0, "ms": 4.0}, "limit": {"rate": 100.0}},
        {OURS: {"rate": 7.0, "ms": 5.0}, "limit": {"rate": 10.0}},
    ]
    half, time = verdicts(toy, rounds)
    assert (half.value, half.word) == (0.6, "unclear")
    assert (time.value, time.word) == (4.0, "unclear")
    [nothing, _] = verdicts(toy, [{OURS: {"rate": 1.0, "ms": 1.0}}])
    assert (nothing.value, nothing.word) == (None, "not measured")
    assert [verdict.word for verdict in verdicts(toy, rounds[1:])] == ["met", "missed"]


def test_whoever_beats_a_limit_is_not_believed() -> None:
    floor = least("of the limit", 0.5, ratio("rate", "limit"), believable=1.0)
    toy = Scenario("toy", "nothing", 1, 1, (), (floor,), "rate")
    fair, odd = ({OURS: {"rate": rate}, "limit": {"rate": 10.0}} for rate in (9.0, 11.0))
    assert [verdict.word for verdict in verdicts(toy, [fair, fair])] == ["met"]
    assert [verdict.word for verdict in verdicts(toy, [fair, fair, odd])] == ["not believable"]


def test_every_side_comes_first_and_last_and_after_each_other_way_round() -> None:
    sides = [Side(name, _writes_nothing) for name in ("a", "b", "c")]
    orders = ["".join(side.name for side in command._turned(sides, turn)) for turn in range(6)]
    assert orders == ["abc", "cba", "bca", "acb", "cab", "bac"]


def test_the_profile_of_a_scenario_names_what_costs_most(capsys: pytest.CaptureFixture[str]) -> None:
    command.main(["--profile", "concurrent", "--quick"])
    title, _, *costs = capsys.readouterr().out.splitlines()
    assert title.startswith("concurrent: ")
    shares = [float(cost.split("%")[0]) for cost in costs]
    assert shares == sorted(shares, reverse=True)
    assert 0 < len(costs) <= 10  # which ones they are depends on the machine
    ours = str(ROOT / "durable_sqlite" / "_run.py")
    assert profiling._where("drive", ours, 7) == "durable_sqlite/_run.py:7 drive"
    assert profiling._where("select", "/lib/python3.11/selectors.py", 7) == "python3.11/selectors.py select"
    assert profiling._where("<built-in method len>", "~", 0) == "<built-in method len>"


def test_the_published_report_is_made_from_the_results_that_are_kept() -> None:
    found = json.loads((ROOT / "benchmarks" / "results" / "latest.json").read_text(encoding="utf-8"))
    assert [*found["scenarios"]] == [*SCENARIOS]
    assert report(found, folder="../docs/benchmarks") == (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
    assert report(found, folder="benchmarks") == (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    for result in found["scenarios"].values():
        for floor in result["floors"]:
            assert floor["verdict"] in {"met", "missed", "unclear", "not believable", "not measured"}


def test_a_connection_that_calls_back_is_asked_only_while_no_thread_is_at_work_on_it(tmp_path: Path) -> None:
    held: list[bool] = []
    asked: list[bool] = []

    @contextmanager
    def gate() -> Generator[None]:
        held.append(True)
        yield
        held.pop()

    class Ours(sqlite3.Connection):
        @property
        def _gate(self) -> AbstractContextManager[None]:
            return gate()

        def cursor(self, *_args: Any, **_how: Any) -> Any:
            asked.append(bool(held))
            return super().cursor()

    with WITNESS.watching(), closing(sqlite3.connect(tmp_path / "j.db", factory=Ours)):
        WITNESS.look()
        assert WITNESS.seen
    assert asked
    assert all(asked)
    assert not held


@pytest.mark.parametrize(("verdict", "told"), [("missed", True), ("unclear", True), ("met", False)])
def test_the_report_says_what_was_tried_where_a_floor_is_not_met(verdict: str, told: bool) -> None:
    found = json.loads((ROOT / "benchmarks" / "results" / "latest.json").read_text(encoding="utf-8"))
    result = found["scenarios"]["concurrent"]
    result["tried"] = ["threads instead of tasks, which took twice as long"]
    for floor in result["floors"]:
        floor["verdict"] = "met"
    result["floors"][0]["verdict"] = verdict
    page = report(found, folder="benchmarks")
    assert ("* threads instead of tasks, which took twice as long\n" in page) is told

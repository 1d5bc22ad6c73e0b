"""`python -m benchmarks [--only NAME] [--quick] [--json FILE] [--svg DIR] [--profile NAME] [--publish]`."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter
from typing import Any

from benchmarks import measure
from benchmarks.machine import machine, versions
from benchmarks.profiling import costs
from benchmarks.report import number, pictures, report, spread
from benchmarks.results import Result, beside, median, verdicts
from benchmarks.scenarios import SCENARIOS
from benchmarks.shape import OURS, Scenario, Side

__all__ = ["main"]

_ROOT = Path(__file__).resolve().parent.parent
_RESULTS = _ROOT / "benchmarks" / "results" / "latest.json"
_HELP = (
    "Each figure is a median over rounds in fresh processes, ours, the limit and the peers in turn; the ratio is the one "
    "to quote."
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and write what was asked for."""
    chosen = _parser().parse_args(arguments)
    if chosen.profile:
        _print_profile(SCENARIOS[chosen.profile], quick=chosen.quick)
        return
    if chosen.again:
        _publish(json.loads(_RESULTS.read_text(encoding="utf-8")))
        return
    found = _run(chosen.only or [*SCENARIOS], chosen)
    if chosen.svg:
        pictures(found, chosen.svg)
    if chosen.publish:
        _publish(json.loads(_RESULTS.read_text(encoding="utf-8")))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=_HELP)
    names = ", ".join(SCENARIOS)
    parser.add_argument(
        "--only", choices=[*SCENARIOS], metavar="NAME", action="append", help=f"this scenario; may be repeated: {names}"
    )
    parser.add_argument("--rounds", type=int, metavar="N", help="how often each side is measured, at most")
    parser.add_argument("--quick", action="store_true", help="small and once: to see that it works, not to quote")
    parser.add_argument("--no-peers", action="store_true", help="leave the peers out, also if they are installed")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write all measurements there")
    parser.add_argument("--svg", metavar="DIR", type=Path, help="draw pictures there")
    parser.add_argument("--profile", choices=[*SCENARIOS], metavar="NAME", help="show where a scenario spends its time")
    publishing = parser.add_mutually_exclusive_group()
    publishing.add_argument("--publish", action="store_true", help="keep the results, and write the report from them")
    publishing.add_argument(
        "--again", action="store_true", help="write the report again from the results that are kept"
    )
    return parser


def _run(names: list[str], chosen: argparse.Namespace) -> dict[str, Any]:
    began = perf_counter()
    found: dict[str, Any] = {
        "machine": machine(),
        "versions": versions(),
        "scenarios": {},
    }
    for name in names:
        found["scenarios"][name] = asdict(_measure(SCENARIOS[name], chosen))
        for path in _kept(chosen):
            _write(path, found)  # what is measured stays, whatever becomes of the rest
    words = [floor["verdict"] for result in found["scenarios"].values() for floor in result["floors"]]
    said = ", ".join(f"{words.count(word)} {word}" for word in dict.fromkeys(words))
    print(f"floors: {said}; {perf_counter() - began:.0f} s")
    return found


def _kept(chosen: argparse.Namespace) -> list[Path]:
    return [path for path in (chosen.json, _RESULTS if chosen.publish else None) if path is not None]


def _measure(scenario: Scenario, chosen: argparse.Namespace) -> Result:
    """All rounds of one scenario; prints what was found."""
    size = scenario.quick if chosen.quick else scenario.size
    rounds = 1 if chosen.quick else min(scenario.rounds, chosen.rounds or scenario.rounds)
    began = perf_counter()
    result = Result(
        scenario.name,
        scenario.work,
        scenario.notes,
        scenario.tried,
        scenario.main,
        size,
        chosen.quick,
        taken_at=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        load=os.getloadavg()[0],
    )
    sides = _present(scenario, result, peers=not chosen.no_peers)
    for turn in range(rounds):
        measured: dict[str, dict[str, float]] = {}
        for side in _turned(sides, turn):
            if turn < side.most_rounds:
                _progress(f"{scenario.name}: round {turn + 1} of {rounds}, {side.name}")
                result.sizes[side.name] = max(1, round(size * (1.0 if chosen.quick else side.share)))
                done = measure.fresh(scenario, side, result.sizes[side.name])
                measured[side.name] = done.figures
                result.durability[side.name] = done.durability
                result.log_grew[side.name] = max(done.log_grew, result.log_grew.get(side.name, done.log_grew))
        result.rounds.append(measured)
    result.floors = [verdict.plain() for verdict in verdicts(scenario, result.rounds)]
    _progress("")
    _print(result)
    if not chosen.quick and any(floor["verdict"] not in {"met", "not measured"} for floor in result.floors):
        _progress(f"{scenario.name}: where the time goes")
        result.profile = [asdict(cost) for cost in costs(scenario, max(scenario.quick, size // 10))]
        _progress("")
    result.seconds = perf_counter() - began
    return result


def _turned(sides: list[Side], turn: int) -> list[Side]:
    """The sides in another order each round: who comes first, or after whom, is an advantage on a disk that writes behind."""
    first = turn // 2 % len(sides)
    turned = [*sides[first:], *sides[:first]]
    return turned[::-1] if turn % 2 else turned


def _present(scenario: Scenario, result: Result, *, peers: bool) -> list[Side]:
    present: list[Side] = []
    for side in scenario.sides:
        if not side.needs or (peers and find_spec(side.needs) is not None):
            present.append(side)
        else:
            result.left_out.append(side.name)
            if peers:
                print(f"{scenario.name}: {side.name} is left out: it is not installed (pip install -e .[bench])")
    return present


def _progress(words: str) -> None:
    print(f"\r\033[K{words}", end="", file=sys.stderr, flush=True)


def _print(result: Result) -> None:
    print(f"{result.name}: {result.work}")
    for side in dict.fromkeys(side for one in result.rounds for side in one):
        value = median(result.rounds, side, result.main)
        if value is None:
            continue
        times = beside(result.rounds, side, result.main)
        ours = "" if side == OURS or times is None else f"ours: {number(times)} times"
        print(f"  {side:<10}{number(value):>12} {result.main:<38}{ours:<22}{'; '.join(result.durability[side])}")
    for figure in dict.fromkeys(figure for one in result.rounds for figure in one[OURS]):
        if figure != result.main:
            print(f"  {'':<10}{number(median(result.rounds, OURS, figure) or 0):>12} {figure}")
    for floor in result.floors:
        reached = "nothing" if floor["value"] is None else number(floor["value"])
        bound = f"at {'least' if floor['at_least'] else 'most'} {number(floor['bound'])}"
        print(f"  {floor['verdict']:<15}{reached:>7} {floor['says']}, {bound}; rounds: {spread(floor)}")


def _print_profile(scenario: Scenario, *, quick: bool) -> None:
    print(f"{scenario.name}: {scenario.work}")
    print(f"{'itself':>8}{'with calls':>12}{'calls':>12}")
    for cost in costs(scenario, scenario.quick if quick else scenario.size):
        print(f"{cost.share:>8.1%}{cost.total:>12.1%}{cost.calls:>12,}  {cost.where}")


def _write(path: Path, found: dict[str, Any]) -> None:
    """Write what was found; of the results that are kept, scenarios that were not measured now stay as they are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path == _RESULTS and path.exists():
        kept = json.loads(path.read_text(encoding="utf-8"))["scenarios"] | found["scenarios"]
        found = {**found, "scenarios": {name: kept[name] for name in SCENARIOS if name in kept}}
    path.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _publish(found: dict[str, Any]) -> None:
    """Write the report: beside the code, and into the docs with its pictures."""
    pictures(found, _ROOT / "docs" / "benchmarks")
    (_ROOT / "benchmarks" / "README.md").write_text(report(found, folder="../docs/benchmarks"), encoding="utf-8")
    (_ROOT / "docs" / "benchmarks.md").write_text(report(found, folder="benchmarks"), encoding="utf-8")


if __name__ == "__main__":
    main()

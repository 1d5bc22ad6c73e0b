"""The report: the same words for `benchmarks/README.md` and for the docs, made from the results that are kept."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.picture import bars
from benchmarks.results import beside, median
from benchmarks.shape import OURS

__all__ = ["number", "pictures", "report", "spread"]

_NAMES = {
    OURS: "durable_sqlite",
    "limit": "the limit",
    "collected": "the same, with `gc.set_threshold(50_000)`",
    "plain": "plain steps",
    "dbos": "DBOS",
    "mundane": "mundane",
    "unhinged": "unhinged",
}
_ORDER = tuple(_NAMES)

_BUSY = 1.5
"""Processes that want a core, for each core, from which on the machine is said to do other work: a scenario itself wants two."""

_METHOD = """\
Each measurement is made in a fresh process and an empty folder. The sides of a scenario are measured in turn, round after
round, so that whatever else the machine does meets all of them; a figure is the median over the rounds, and **the ratio is
the figure to quote**: the median of the ratios of the rounds, each between neighbours in time. Seconds depend on the machine.
The order of the sides changes from round to round, since it matters who comes after whom. A floor counts as met or missed
only where all rounds agree, and is *unclear* otherwise; a figure that beats its own limit is *not believable*, and says that
the machine was not quiet enough.

Where commits are timed (`sequential`, `concurrent`, `start`, `transaction`, `signal`), every side begins with a write-ahead log
of its full length (but mundane, which has none). A commit that makes the log longer
took about three times as long here as one that writes over it; without this, a side that writes little is timed while its log
grows, and one that writes much is not. The first version of these measurements had that fault, and showed our engine at four
times its own limit.

Where a table shows time of the processor, that is of all threads of the process while the work went on: it hardly depends on
what else the machine does, so it tells costs apart where the clock cannot.

All sides write at the same durability. Each process asks its own open connections by `PRAGMA` for what is in force, and a
measurement is refused where `synchronous` is not FULL. The journal mode is WAL where a system allows it: mundane-sdk keeps
one file a run, opened with a file system layer that cannot do WAL. In our own process one connection stores no facts and is
not asked: that of the lease, which says that a worker lives. On DBOS, WAL and FULL are set on each of its connections, where
its own default is a rollback journal; nothing else of a peer is changed.

*The limit* is the smallest plain `sqlite3` program that makes the same facts durable. A peer that is slow is given less of
the work, and its figure is a rate all the same; where that is so, a scenario says it.
"""


def report(found: Mapping[str, Any], *, folder: str) -> str:
    """The whole page, with pictures from this folder."""
    return "\n".join(_page(found, folder)).rstrip() + "\n"


def _page(found: Mapping[str, Any], folder: str) -> Iterator[str]:
    yield "<!-- made by `python -m benchmarks --publish` from benchmarks/results/latest.json: do not edit -->"
    yield ""
    yield "# Benchmarks"
    yield ""
    if any(result["quick"] for result in found["scenarios"].values()):
        yield "**Some of this was a quick run, to see that it works: it is not to be quoted.**"
        yield ""
    yield from _summary(found)
    yield "## Method"
    yield ""
    yield _METHOD
    yield from _machine(found)
    for result in found["scenarios"].values():
        yield from _scenario(result, folder)
    yield "## Run it"
    yield ""
    yield "```console"
    yield "$ pip install -e .[bench]"
    yield "$ python -m benchmarks --publish    # everything, and this page"
    yield "$ python -m benchmarks --only concurrent --json concurrent.json --svg pictures"
    yield "$ python -m benchmarks --quick      # sees that it works"
    yield "$ python -m benchmarks --profile concurrent"
    yield "```"
    yield ""
    yield "Nothing in the test suite asserts a time."


def _summary(found: Mapping[str, Any]) -> Iterator[str]:
    rows = [(result["name"], floor) for result in found["scenarios"].values() for floor in result["floors"]]
    met = sum(floor["verdict"] == "met" for _, floor in rows)
    yield f"{met} of {len(rows)} floors are met in every round."
    yield ""
    yield "| scenario | floor | median | rounds | |"
    yield "|---|---|---:|---:|---|"
    for name, floor in rows:
        bound = f"at {'least' if floor['at_least'] else 'most'} {number(floor['bound'])} {floor['says']}"
        yield f"| [`{name}`](#{name}) | {bound} | {_value(floor)} | {spread(floor)} | {_verdict(floor)} |"
    yield ""


def _value(floor: Mapping[str, Any]) -> str:
    return "" if floor["value"] is None else number(floor["value"])


def spread(floor: Mapping[str, Any]) -> str:
    """The least and the most of the rounds."""
    values = sorted(floor["values"])
    if len(values) < 2:  # noqa: PLR2004 - nothing lies between
        return "one" if values else "none"
    return f"{number(values[0])} to {number(values[-1])}"


def _verdict(floor: Mapping[str, Any]) -> str:
    if floor["verdict"] == "not believable":
        return "**not believable**: more than the limit itself"
    if floor["verdict"] != "missed":
        return str(floor["verdict"])
    value, bound = floor["value"], floor["bound"]
    factor = bound / value if floor["at_least"] else value / bound
    return f"**missed by a factor of {factor:.2f}**"


def _machine(found: Mapping[str, Any]) -> Iterator[str]:
    if found.get("remark"):
        yield f"**About these results:** {found['remark']}"
        yield ""
    results = found["scenarios"].values()
    times = sorted(result["taken_at"] for result in results)
    loads = sorted(result["load"] for result in results)
    facts = {
        **found["machine"],
        **found["versions"],
        "taken": times[0] if times[0] == times[-1] else f"{times[0]} to {times[-1]}",
        "minutes in all": f"{sum(result['seconds'] for result in results) / 60:.1f}",
        "load before each scenario": f"{loads[0]:.1f} to {loads[-1]:.1f}",
    }
    yield "| | |"
    yield "|---|---|"
    for what, value in facts.items():
        yield f"| {what} | {value} |"
    yield ""
    if loads[len(loads) // 2] > _BUSY * float(found["machine"]["cores"]):
        yield (
            "**Other work ran on this machine meanwhile**: ratios between neighbours are of use, absolute figures "
            "(rates, milliseconds, lag, idle load) are worse than they would be on a machine at rest."
        )
        yield ""


def _scenario(result: Mapping[str, Any], folder: str) -> Iterator[str]:
    rounds = result["rounds"]
    sides = [side for side in _ORDER if any(side in one for one in rounds)]
    yield f"## {result['name']}"
    yield ""
    yield f"{_capital(result['work'])}."
    yield ""
    if len(sides) > 1:
        yield f"![{result['name']}]({folder}/{result['name']}.svg)"
        yield ""
        cpu = next((figure for figure in rounds[0][OURS] if figure.startswith("µs of CPU")), "")
        yield f"| | {result['main']} | ours beside it |{f' {cpu} |' if cpu else ''} rounds | in force |"
        yield f"|---|---:|---:|{'---:|' if cpu else ''}---:|---|"
        for side in sides:
            value = median(rounds, side, result["main"])
            times = "" if side == OURS else f"{number(beside(rounds, side, result['main']) or 0)} times"
            took = sum(side in one for one in rounds)
            cost = f" {number(median(rounds, side, cpu) or 0)} |" if cpu else ""
            force = "; ".join(result["durability"][side])
            yield f"| {_NAMES[side]} | {number(value or 0)} | {times} |{cost} {took} | {force} |"
        yield ""
    yield from _more(result, sides)
    for floor in result["floors"]:
        bound = f"at {'least' if floor['at_least'] else 'most'} {number(floor['bound'])} {floor['says']}"
        yield f"* Floor: {bound}. Measured: {_value(floor) or 'nothing'} (rounds: {spread(floor)}); {_verdict(floor)}."
    if result["floors"]:
        yield ""
    if result["notes"]:
        yield result["notes"]
        yield ""
    if result["left_out"]:
        yield f"Not installed, and left out: {', '.join(result['left_out'])}."
        yield ""
    yield from _profile(result)
    if result["tried"] and any(floor["verdict"] != "met" for floor in result["floors"]):
        yield "What was tried:"
        yield ""
        yield from (f"* {what}" for what in result["tried"])
        yield ""


def _more(result: Mapping[str, Any], sides: list[str]) -> Iterator[str]:
    """Figures besides the main one."""
    rounds = result["rounds"]
    rows = [
        (_NAMES[side], figure, value)
        for side in sides
        for figure in dict.fromkeys(figure for one in rounds for figure in one.get(side, {}))
        if (len(sides) == 1 or (figure != result["main"] and not figure.startswith("µs of CPU")))
        and (value := median(rounds, side, figure)) is not None
    ]
    if rows:
        yield "| | figure | median |"
        yield "|---|---|---:|"
        for name, figure, value in rows:
            yield f"| {name} | {figure} | {number(value)} |"
        yield ""


def _profile(result: Mapping[str, Any]) -> Iterator[str]:
    if not result["profile"]:
        return
    yield "Where the time goes, on the thread of the event loop, under a profiler (which itself makes small calls dearer):"
    yield ""
    yield "| itself | with what it calls | calls | |"
    yield "|---:|---:|---:|---|"
    for cost in result["profile"]:
        where = cost["where"].replace("|", "\\|")
        yield f"| {cost['share']:.1%} | {cost['total']:.1%} | {cost['calls']:,} | `{where}` |"
    yield ""


def pictures(found: Mapping[str, Any], folder: Path) -> None:
    """Write one picture for each scenario with several sides."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, result in found["scenarios"].items():
        rounds, main = result["rounds"], result["main"]
        sides = [side for side in _ORDER if median(rounds, side, main) is not None]
        if len(sides) < 2:  # noqa: PLR2004 - nothing stands beside it
            continue
        rows = [(_NAMES[side], median(rounds, side, main) or 0.0, _words(rounds, side, main)) for side in sides]
        if any(floor["verdict"] == "not believable" for floor in result["floors"]):
            name_and_doubt = f"{name}: {main} (not believable: the machine was too busy)"
        else:
            name_and_doubt = f"{name}: {main}"
        subtitle = textwrap.shorten(result["work"], 110, placeholder=" …")
        drawn = bars(name_and_doubt, subtitle, rows, _NAMES[OURS])
        (folder / f"{name}.svg").write_text(drawn, encoding="utf-8")


def _words(rounds: list[dict[str, dict[str, float]]], side: str, figure: str) -> str:
    value = number(median(rounds, side, figure) or 0)
    if side == OURS:
        return value
    return f"{value} (ours: {number(beside(rounds, side, figure) or 0)} times)"


def number(value: float) -> str:
    """With as many digits as are worth reading."""
    if value >= 100:  # noqa: PLR2004
        return f"{value:,.0f}"
    if value >= 10:  # noqa: PLR2004
        return f"{value:.1f}".removesuffix(".0")
    return f"{value:.2f}".removesuffix(".00")


def _capital(words: str) -> str:
    return words[:1].upper() + words[1:]

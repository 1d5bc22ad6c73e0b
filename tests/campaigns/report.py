"""Writes one page about what was run and what came of it: `python -m tests.campaigns report`. Nothing on it is typed by hand."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .record import RESULTS, ROOT

__all__ = ["PAGE", "page", "register"]

PAGE = ROOT / "docs" / "reliability.md"

_HEAD = """# Reliability: what was run, and what came of it

<!-- Written by `python -m tests.campaigns report` from the records in tests/campaigns/results. Do not edit. -->

Beside the everyday tests, campaigns play programs, kills, stops, races, damages and faults of the storage by the thousand
against the real engine, and judge it from outside. Each line is the last recorded run of one campaign, and the command that
repeats it. A bounded part of every campaign runs with each change.
"""

_MUTANTS = """
## Rules broken on purpose

A judge who finds nothing may be blind. So single rules of the engine, of its journal or of a checker are broken, one at a
time, and the named campaign must notice within its bounded profile.
"""


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add this command."""
    parser = commands.add_parser("report", help="write the page about what was recorded")
    parser.add_argument("--to", type=Path, default=PAGE, help="where to")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    records = read(RESULTS)
    options.to.write_text(page(records), encoding="utf-8")
    sys.stdout.write(f"{options.to}: {len(records)} records\n")
    return 0


def read(folder: Path) -> list[Mapping[str, Any]]:
    """The records of a folder, by name."""
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]


def page(records: Sequence[Mapping[str, Any]]) -> str:
    """The page about these records."""
    parts = [_HEAD]
    played = [record for record in records if "table" not in record]
    if played:
        rows = [
            (
                record["campaign"],
                record["on"]["date"],
                _time(record["seconds"]),
                _findings(record),
                f"`{record['on']['commit']}`{' and changes' if record['on']['changed'] == 'yes' else ''}",
            )
            for record in played
        ]
        parts.append("\n" + _table(("campaign", "when", "took", "findings", "commit"), rows))
        parts += [_campaign(record) for record in played]
    parts += [_mutants(record) for record in records if "table" in record]
    return "".join(parts)


def _campaign(record: Mapping[str, Any]) -> str:
    lines = [f"\n## {record['campaign'].capitalize()}\n\n"]
    lines.append(f"`{record['command']}`{', ' + record['seeds'] if record['seeds'] else ''}\n\n")
    if record["counts"]:
        lines.append(", ".join(f"{name} {count:,}" for name, count in record["counts"].items()) + "\n\n")
    else:
        lines += ["```text\n", *(f"{line}\n" for line in record["said"]), "```\n\n"]
    if record["findings"]:
        lines += ["Found:\n\n", *(f"* {_cell(finding)}\n" for finding in record["findings"]), "\n"]
    lines.append(_on(record["on"]) + "\n")
    return "".join(lines)


def _mutants(record: Mapping[str, Any]) -> str:
    table = sorted(record["table"], key=lambda row: (row["campaign"], row["name"]))
    counts = ", ".join(f"{name} {count:,}" for name, count in record["counts"].items())
    rows = [(row["what"], row["campaign"], row["noticed"]) for row in table]
    return (
        f"{_MUTANTS}\n`{record['command']}`: {counts}\n\n{_on(record['on'])}\n\n"
        f"{_table(('what is broken', 'campaign', 'noticed'), rows)}"
    )


def _on(on: Mapping[str, str]) -> str:
    changed = " with changes that are not committed" if on["changed"] == "yes" else ""
    return (
        f"On {on['date']}, commit `{on['commit']}`{changed}, Python {on['python']}, SQLite {on['sqlite']} "
        f"(`{on['sqlite source']}`), {on['system']}, {on['cores']} cores."
    )


def _findings(record: Mapping[str, Any]) -> str:
    if record["passed"]:
        return "none"
    return f"**{len(record['findings']) or 'some'}**"


def _time(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(_cell(cell) for cell in line)} |\n" for line in lines)


def _cell(text: object) -> str:
    return str(text).replace("|", "\\|").replace("\n", " ")

"""`check`: every run of the journal against the code as it is now, for the pipeline that deploys it."""

from __future__ import annotations

import argparse

from ._commands import Call, Command
from ._light import TYPE_CHECKING
from ._text import plural
from ._trouble import DONE, FAILED, REFUSED, Trouble
from ._words import limit

if TYPE_CHECKING:
    from typing import Any

    from .._check import Difference, ReplayReport
    from .._codec import Codec
    from ._code import Code

__all__ = ["COMMANDS"]

_EPILOG = """\
Each body runs with what is recorded, and stops where its record ends. Nothing is performed and nothing written; the journal
may be in use, or be a copy. It ends with 0 if everything fits the code, and with 1 if something does not.

examples:
  durable_sqlite check --app shop.flows --db orders.db
  durable_sqlite check --app shop.flows --db copy.db --open --json
"""
_TELLING = {"diverged", "undecodable", "not_durable"}
"""Kinds whose text says more than what was recorded and what is asked."""


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = "Replay every run of the journal against your code, and print what does not fit."
    parser.epilog = _EPILOG
    parser.add_argument("--workflow", metavar="NAME", help="only runs of this workflow")
    parser.add_argument("--open", action="store_true", help="leave out what has completed or was cancelled")
    parser.add_argument(
        "--limit", metavar="N", type=limit, default=20, help="how many differences are printed; 0 for all of them (20)"
    )


def _run(call: Call) -> int:
    from ._code import need_app  # noqa: PLC0415 - `check --help` imports no engine

    with call.journal() as journal:  # first, since it says best what is wrong with a file
        path = journal.path
        name = str((journal.read(lambda tables: tables.first("meta_value", name="codec")) or ("",))[0])
    code = need_app(call)
    report = _report(call, path, code, _codec(path, name, code))
    if call.out.json:
        call.out.document(_document(path, report))
    else:
        _print(call, report, code)
    return DONE if report.fits else FAILED


def _codec(path: str, name: str, code: Code) -> Codec | None:
    """The codec of the application's engine, where the journal needs one."""
    if not name:
        return None
    codec = None if code.engine is None else code.engine.codec
    if codec is None:
        raise Trouble(
            f"{path} has the codec {name}, and {code.source} names no engine that has it",
            "name your own engine, or a function that makes it, with --app MODULE:ATTR",
            code=REFUSED,
        )
    return codec


def _report(call: Call, path: str, code: Code, codec: Codec | None) -> ReplayReport:
    from .._check import check_replay  # noqa: PLC0415
    from ._open import heard  # noqa: PLC0415

    chosen: str | None = call.options.workflow
    wanted: Any = list(code.workflows.values()) if chosen is None else code.workflow(chosen)
    with heard(call):
        return check_replay(wanted, path, codec=codec, open_only=call.options.open)


def _print(call: Call, report: ReplayReport, code: Code) -> None:
    out = call.out
    most = call.options.limit or len(report.differences)
    for each in report.differences[:most]:
        _print_one(call, each)
    if len(report.differences) > most:
        out.line(f"… and {len(report.differences) - most} more: see them with --limit 0, or with --json")
    for unknown in report.unknown:
        is_open = (f"{unknown.open} open", "bad") if unknown.open else "none open"
        out.line(
            "unknown workflow ", unknown.workflow, f" ({unknown.origin}): {plural(unknown.runs, 'run')}, ", is_open
        )
    verb = "does" if report.unfit == 1 else "do"
    told = f"{report.unfit} of {plural(report.runs, 'run')} {verb} not fit the code of {code.source}"
    if report.unfit == 0:
        strange = sum(each.runs for each in report.unknown)
        told = f"{report.runs - strange} of {plural(report.runs, 'run')} fit the code of {code.source}"
    out.line((told, "good" if report.fits else "bad"))


def _print_one(call: Call, each: Difference) -> None:
    out = call.out
    kind = f"{each.kind} (free)" if each.kind.free else each.kind.value
    out.line(
        (each.run, "strong"),
        f"  {each.workflow}  ",
        (each.state.value, each.state.value),
        "  ",
        (kind, "faint" if each.kind.free else "bad"),
        "" if each.key is None else f"  {each.key}",
    )
    out.line("  recorded  ", each.recorded)
    out.line("  asked     ", each.asked)
    if each.kind.value in _TELLING:
        out.line("  why       ", each.text)


def _document(path: str, report: ReplayReport) -> dict[str, Any]:
    return {
        "journal": path,
        "fits": report.fits,
        "runs": report.runs,
        "unfit": report.unfit,
        "differences": [
            {
                "run": each.run,
                "workflow": each.workflow,
                "state": each.state.value,
                "kind": each.kind.value,
                "free": each.kind.free,
                "key": each.key,
                "recorded": each.recorded,
                "asked": each.asked,
                "text": each.text,
            }
            for each in report.differences
        ],
        "unknown": [
            {"workflow": each.workflow, "origin": each.origin, "runs": each.runs, "open": each.open}
            for each in report.unknown
        ],
    }


COMMANDS = {"check": Command(_arguments, _run)}

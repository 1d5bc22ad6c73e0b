"""`timeline`: one run as bars over time, on a terminal or as a picture."""

from __future__ import annotations

import argparse
import os

from ._bars import KINDS, Bar, Chart, Row, chart
from ._commands import Call, Command
from ._light import TYPE_CHECKING
from ._out import Out, Part
from ._svg import picture
from ._text import cells, cut, instant, iso, length, pad, plural, safe
from ._trouble import DONE, REFUSED, Trouble
from ._words import limit

if TYPE_CHECKING:
    from typing import Any

__all__ = ["COMMANDS", "draw"]

_EPILOG = """\
Bars show what the journal holds: when an attempt began and ended, and since when something is waited for. What runs now
is known to its process alone. A crash is marked at what was recorded last before it; the journal keeps the last one.

examples:
  durable_sqlite timeline @
  durable_sqlite timeline order-A1 --svg order.svg
"""
_GLYPHS = {"work": "█", "failed": "✗", "wait": "░", "back_off": "┄", "run": "─", "crash": "†"}
_ASCII = {"work": "#", "failed": "x", "wait": ":", "back_off": ".", "run": "-", "crash": "!"}
_STYLES = {"work": "good", "failed": "bad", "wait": "warn", "back_off": "faint", "run": "faint", "crash": "bad"}
_NARROWEST = 10
"""Columns that the bars have at least."""
_NOTES = 30
"""Columns of what stands behind the bars, where they are few."""
_OVER = ("run", "back_off", "wait", "work", "failed", "crash")
"""What is drawn later covers what lies below it."""


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Draw one run as bars over time: attempts apart, waits hatched, child runs indented, crashes marked."
    )
    parser.epilog = _EPILOG
    parser.add_argument("run", metavar="ID", help="its id, a beginning or an ending of it, or @ for the newest run")
    parser.add_argument(
        "--svg", metavar="FILE", help="write a picture instead, complete in itself; - for standard output"
    )
    parser.add_argument("--rows", metavar="N", type=limit, default=200, help="how many lines at most (200)")


def _run(call: Call) -> int:
    options, now = call.options, call.now()
    with call.journal() as journal:
        found = journal.read(lambda tables: chart(journal, tables, options.run, now=now, most=max(options.rows, 1)))
        path = journal.path
    if options.svg is not None:
        _write(call, options.svg, picture(found, now), path)
    elif call.out.json:
        call.out.document(_document(found))
    else:
        draw(call.out, found, now)
    if found.left_out:
        call.out.note(f"{plural(found.left_out, 'line')} left out: --rows {(len(found.rows) + found.left_out)}")
    return DONE


def draw(out: Out, found: Chart, now: int) -> None:
    """Draw it at the terminal's width."""
    width = out.width
    labels = [f"{'  ' * row.depth}{safe(row.label)}" for row in found.rows]
    notes = [_note(row) for row in found.rows]
    left = min(max(map(cells, labels), default=0), max(width * 3 // 10, 12))
    spare = width - left - 4
    right = min(max(map(cells, notes), default=0), max(_NOTES, spare - width // 2), max(spare - _NARROWEST, 0))
    room = max(width - left - right - 4, _NARROWEST)
    glyphs = _GLYPHS if out.unicode else _ASCII
    out.line((cut(safe(found.title), width), "strong"))
    out.line(*_axis(found, left, room, now))
    for row, label, note in zip(found.rows, labels, notes, strict=True):
        out.line(
            pad(cut(label, left), left),
            "  ",
            *_line(row, found, room, glyphs),
            "  ",
            (cut(note, right), _note_style(row)),
        )
    used = {bar.kind for row in found.rows for bar in row.bars}
    out.line()
    line = ""
    for kind in [kind for kind in KINDS if kind in used]:
        words = f"{glyphs[kind]} {KINDS[kind]}"
        if line and cells(line) + 3 + cells(words) > width:
            out.line((line, "faint"))
            line = ""
        line = f"{line}   {words}" if line else words
    out.line((line, "faint"))


def _note(row: Row) -> str:
    took = length(max(bar.end for bar in row.bars) - min(bar.start for bar in row.bars))
    return "  ".join(filter(None, (took, "" if row.outcome == "value" else row.outcome, row.note)))


def _note_style(row: Row) -> str:
    return "bad" if row.outcome in ("failed", "parked", "error", "cancelled") else "faint"


def _axis(found: Chart, left: int, room: int, now: int) -> tuple[str, ...]:
    first, last = instant(found.start, now), instant(found.end, now)
    span = f"{length(found.end - found.start)} in all"
    middle = room - len(first) - len(last)
    between = span.center(middle) if middle > len(span) + 1 else " " * max(middle, 1)
    return (" " * left, "  ", first, between, last)


def _line(row: Row, found: Chart, room: int, glyphs: dict[str, str]) -> list[Part]:
    """The cells of one row; each bar takes at least one."""
    kinds = [""] * room
    for layer in _OVER:
        for bar in row.bars:
            if bar.kind == layer:
                start, end = _place(bar, found, room)
                kinds[start:end] = [layer] * (end - start)
    parts: list[Part] = []
    at = 0
    while at < room:
        stop = at
        while stop < room and kinds[stop] == kinds[at]:
            stop += 1
        text = (glyphs[kinds[at]] if kinds[at] else " ") * (stop - at)
        parts.append((text, _STYLES.get(kinds[at], "")))
        at = stop
    return parts


def _place(bar: Bar, found: Chart, room: int) -> tuple[int, int]:
    span = max(found.end - found.start, 1)
    start = min((bar.start - found.start) * room // span, room - 1)
    end = -(-(bar.end - found.start) * room // span)
    return start, min(max(end, start + 1), room)


# Files ---------------------------------------------------------------------------------------------------------------


def _write(call: Call, target: str, text: str, journal: str) -> None:
    if target == "-":
        call.out.raw(text)
        return
    if os.path.exists(target) and not _is_picture(target, journal):  # noqa: PTH110
        raise Trouble(
            f"{target} is there already and is no SVG picture: it was not touched", "name another file", code=REFUSED
        )
    beside = f"{target}.{os.getpid()}.new"
    try:
        with open(beside, "x", encoding="utf-8") as file:  # noqa: PTH123
            file.write(text)
        os.replace(beside, target)  # noqa: PTH105
    except OSError as error:
        raise Trouble(f"{target} cannot be written ({error.strerror})", "name another file", code=REFUSED) from None
    call.out.note(f"wrote {target}")


def _is_picture(target: str, journal: str) -> bool:
    # To open one of the journal's own files would drop SQLite's locks.
    own = (journal, f"{journal}-wal", f"{journal}-shm")
    if any(os.path.exists(each) and os.path.samefile(each, target) for each in own):  # noqa: PTH110, PTH121
        return False
    if not os.path.isfile(target):  # noqa: PTH113
        return False
    with open(target, "rb") as file:  # noqa: PTH123
        return file.read(4) == b"<svg"


def _document(found: Chart) -> dict[str, Any]:
    return {
        "start": iso(found.start),
        "end": iso(found.end),
        "rows": [
            {
                "label": row.label,
                "depth": row.depth,
                "outcome": row.outcome,
                "note": row.note,
                "bars": [{"start": iso(bar.start), "end": iso(bar.end), "kind": bar.kind} for bar in row.bars],
            }
            for row in found.rows
        ],
        "left_out": found.left_out,
    }


COMMANDS = {"timeline": Command(_arguments, _run)}

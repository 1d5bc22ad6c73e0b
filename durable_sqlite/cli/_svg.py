"""A run as a picture that is complete in itself: no script, no font, nothing from elsewhere."""

from __future__ import annotations

from collections.abc import Iterator

from ._bars import KINDS, Bar, Chart, Row
from ._text import cells, cut, instant, length, safe

__all__ = ["picture"]

_WIDTH = 1200
_LINE = 22
_TOP = 74
_PAD = 16
_CHAR = 7.3
"""The width of a letter of the labels."""
_TICKS = 5
_NOTES = 34
"""Letters of what stands behind a line."""
_COLOURS = {
    "work": "#2da44e",
    "failed": "#cf222e",
    "wait": "url(#wait)",
    "back_off": "#d0d7de",
    "run": "#8c959f",
    "crash": "#82071e",
}
_HEAD = """\
<defs><pattern id="wait" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">\
<rect width="6" height="6" fill="#fff3cd"/><rect width="2.5" height="6" fill="#d4a72c"/></pattern></defs>
<style>text{font:12px ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;fill:#1f2328}\
.title{font-size:15px;font-weight:bold}.faint{fill:#656d76}.bad{fill:#cf222e}</style>
"""


def picture(found: Chart, now: int) -> str:
    """The picture as SVG."""
    return "".join(_parts(found, now))


def _parts(found: Chart, now: int) -> Iterator[str]:
    widest = max((cells(safe(row.label)) + 2 * row.depth for row in found.rows), default=0)
    left = _PAD + min(max(widest, 12), 44) * _CHAR + 10
    right = _WIDTH - _PAD - _NOTES * _CHAR - 10
    height = _TOP + len(found.rows) * _LINE + 56
    yield (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" viewBox="0 0 {_WIDTH} {height}" '
        f'role="img">\n<title>{_escape(found.title)}</title>\n{_HEAD}'
        f'<rect width="{_WIDTH}" height="{height}" fill="#ffffff"/>\n'
    )
    yield _text(_PAD, 28, cut(safe(found.title), 110), "title")
    span = max(found.end - found.start, 1)
    for tick in range(_TICKS + 1):
        x = left + (right - left) * tick / _TICKS
        at = found.start + span * tick // _TICKS
        yield f'<line x1="{x:.1f}" y1="{_TOP - 8}" x2="{x:.1f}" y2="{height - 48}" stroke="#eaeef2"/>\n'
        if tick not in (0, _TICKS):
            # The first and the last say their date where it is not today's, and want room for it.
            wide = len(instant(found.start, now) if tick == 1 else instant(found.end, now)) * _CHAR
            if tick in (1, _TICKS - 1) and wide > (right - left) / _TICKS - 5 * _CHAR:
                continue
            yield _text(x, _TOP - 16, f"+{length(at - found.start)}", "faint", anchor="middle")
        else:
            yield _text(x, _TOP - 16, instant(at, now), "faint", anchor="end" if tick else "start")
    for number, row in enumerate(found.rows):
        yield from _row(row, found, _TOP + number * _LINE, left, right)
    yield from _legend(found, height - 22)
    yield "</svg>\n"


def _row(row: Row, found: Chart, y: int, left: float, right: float) -> Iterator[str]:
    room = round((left - _PAD - 10) / _CHAR) - 2 * row.depth
    yield _text(_PAD + 2 * row.depth * _CHAR, y + 15, cut(safe(row.label), max(room, 4)), "")
    for kind in KINDS:
        for bar in row.bars:
            if bar.kind == kind == "run":
                yield _rect(bar, found, (left, right), y + 9, height=4)
    for bar in row.bars:
        if bar.kind == "crash":
            yield _cross(bar, found, left, right, y)
        elif bar.kind == "back_off":
            yield _rect(bar, found, (left, right), y + 8, height=6)
        elif bar.kind != "run":
            yield _rect(bar, found, (left, right), y + 3, height=16)
    took = length(max(bar.end for bar in row.bars) - min(bar.start for bar in row.bars))
    note = "  ".join(filter(None, (took, "" if row.outcome == "value" else row.outcome, row.note)))
    bad = row.outcome in ("failed", "parked", "error", "cancelled")
    yield _text(right + 10, y + 15, cut(safe(note), _NOTES), "bad" if bad else "faint")


def _x(at: int, found: Chart, left: float, right: float) -> float:
    return left + (right - left) * (at - found.start) / max(found.end - found.start, 1)


def _rect(bar: Bar, found: Chart, sides: tuple[float, float], y: int, *, height: int) -> str:
    left, right = sides
    start, end = _x(bar.start, found, left, right), _x(bar.end, found, left, right)
    # Narrow enough to keep neighbours apart, wide enough to be seen; never beyond the right edge.
    wide = max(end - start, 2.0)
    start = min(start, right - wide)
    return (
        f'<rect x="{start:.1f}" y="{y}" width="{wide:.1f}" height="{height}" rx="1.5" fill="{_COLOURS[bar.kind]}">'
        f"<title>{_escape(bar.words)}, {_escape(length(bar.end - bar.start))}</title></rect>\n"
    )


def _cross(bar: Bar, found: Chart, left: float, right: float, y: int) -> str:
    x = min(max(_x(bar.start, found, left, right), left + 6), right - 6)
    return _two_strokes(x, y + 6, f"<title>{_escape(bar.words)}</title>")


def _two_strokes(x: float, y: int, title: str = "") -> str:
    lines = f"M{x - 5:.1f} {y}L{x + 5:.1f} {y + 10}M{x + 5:.1f} {y}L{x - 5:.1f} {y + 10}"
    return f'<path d="{lines}" stroke="{_COLOURS["crash"]}" stroke-width="2.5">{title}</path>\n'


def _legend(found: Chart, y: int) -> Iterator[str]:
    used = {bar.kind for row in found.rows for bar in row.bars}
    x = float(_PAD)
    for kind, words in KINDS.items():
        if kind in used:
            if kind == "crash":
                yield _two_strokes(x + 7, y - 10)
            else:
                yield f'<rect x="{x:.1f}" y="{y - 10}" width="14" height="10" fill="{_COLOURS[kind]}"/>\n'
            yield _text(x + 20, y, words, "faint")
            x += 20 + len(words) * _CHAR + 18


def _text(x: float, y: float, words: str, style: str, *, anchor: str = "") -> str:
    place = f' text-anchor="{anchor}"' if anchor else ""
    named = f' class="{style}"' if style else ""
    return f'<text x="{x:.1f}" y="{y}"{named}{place} xml:space="preserve">{_escape(words)}</text>\n'


def _escape(text: str) -> str:
    return safe(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;")

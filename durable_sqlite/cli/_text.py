"""Text for people: made harmless, cut to size, and times and sizes in words."""

from __future__ import annotations

import time
import unicodedata

__all__ = ["age", "cells", "cut", "instant", "iso", "length", "pad", "plural", "quote", "safe", "size", "wall"]

_SECOND = 1_000_000
_SHORT_ESCAPES = {"\n": "\\n", "\t": "\\t", "\r": "\\r"}
_PLAIN = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-:@+=,/%")


def safe(text: str) -> str:
    r"""The text with everything that could do something to a terminal, or hide, written as an escape such as `\x1b`.

    That is all that Unicode calls a control, a format (marks for the direction of writing, characters of no width), a
    separator of lines, a surrogate, private or unassigned. What is left is what can be seen.
    """
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() or unicodedata.category(char) == "Zs" else _escaped(char) for char in text
    )


def _escaped(char: str) -> str:
    code = ord(char)
    if char in _SHORT_ESCAPES:
        return _SHORT_ESCAPES[char]
    return f"\\x{code:02x}" if code <= 0xFF else f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"  # noqa: PLR2004


def cells(text: str) -> int:
    """How many columns of a terminal the text takes."""
    if text.isascii():
        return len(text)
    return sum(map(_cell, text))


def _cell(char: str) -> int:
    if unicodedata.combining(char):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def cut(text: str, width: int) -> str:
    """The text, cut to this many columns, with an ellipsis where something is left out."""
    if cells(text) <= width:
        return text
    taken, used = 0, 0
    for char in text:
        used += _cell(char)
        if used > width - 1:
            break
        taken += 1
    return f"{text[:taken]}…" if width > 0 else ""


def pad(text: str, width: int, *, right: bool = False) -> str:
    """The text, filled up with blanks to this many columns; to the right edge on wish."""
    blanks = " " * (width - cells(text))
    return blanks + text if right else text + blanks


def plural(number: int, one: str, many: str | None = None) -> str:
    """`1 run`, `2,000 runs`."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def quote(word: str) -> str:
    """A word as it is typed into a shell."""
    return word if word and _PLAIN.issuperset(word) else "'" + word.replace("'", "'\\''") + "'"


def size(number: int) -> str:
    """A number of bytes: `812 bytes`, `3.4 MiB`."""
    if number < 10_000:  # noqa: PLR2004
        return plural(number, "byte")
    value = float(number)
    for unit in ("KiB", "MiB", "GiB"):
        value /= 1024
        if value < 1000:  # noqa: PLR2004
            return f"{value:.1f} {unit}"
    return f"{value / 1024:.1f} TiB"


# Time ----------------------------------------------------------------------------------------------------------------


def wall() -> int:
    """The time in microseconds UTC; `_clock` has the same, and imports more than a look needs."""
    return time.time_ns() // 1000  # noqa: TID251


def length(microseconds: int) -> str:
    """A length of time in its two largest units: `15 ms`, `3.2 s`, `4 min 10 s`, `2 d 3 h`; never negative."""
    span = max(microseconds, 0)
    if span < _SECOND // 1000:
        return "0 ms" if span == 0 else "<1 ms"
    if span < _SECOND:
        return f"{span // 1000} ms"
    if span < 10 * _SECOND:
        return f"{span / _SECOND:.1f} s"
    seconds = span // _SECOND
    for unit, name, smaller, small_name in ((86_400, "d", 3_600, "h"), (3_600, "h", 60, "min"), (60, "min", 1, "s")):
        if seconds >= unit:
            whole, rest = divmod(seconds, unit)
            return f"{whole:,} {name} {rest // smaller} {small_name}" if rest >= smaller else f"{whole:,} {name}"
    return f"{seconds} s"


def age(microseconds: int) -> str:
    """A length of time in its largest unit: `15 ms`, `3 s`, `4 min`, `2 d`."""
    seconds = microseconds // _SECOND
    for unit, name in ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s")):
        if seconds >= unit:
            return f"{seconds // unit:,} {name}"
    return length(microseconds)


def instant(microseconds: int, now: int) -> str:
    """A point in time by the clock on the wall here: without its date where that is today's."""
    try:
        there, here = time.localtime(microseconds // _SECOND), time.localtime(now // _SECOND)
    except (OverflowError, ValueError, OSError):
        return "beyond the year 9999"
    if there.tm_year > 9999:  # noqa: PLR2004
        return "beyond the year 9999"
    return time.strftime("%H:%M:%S" if there[:3] == here[:3] else "%Y-%m-%d %H:%M:%S", there)


def iso(microseconds: int | None) -> str | None:
    """A point in time as ISO 8601 in UTC with microseconds, for programs; None where there is none.

    None also where no calendar of four digits has it.
    """
    if microseconds is None:
        return None
    seconds, rest = divmod(microseconds, _SECOND)
    try:
        there = time.gmtime(seconds)
    except (OverflowError, ValueError, OSError):
        return None
    if not 0 < there.tm_year <= 9999:  # noqa: PLR2004
        return None
    return f"{there.tm_year:04}-{time.strftime('%m-%dT%H:%M:%S', there)}.{rest:06}Z"

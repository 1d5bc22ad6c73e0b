"""Where a command writes: lines and tables on standard output, made harmless; notes on standard error; or JSON."""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Mapping, Sequence

from ._light import TYPE_CHECKING
from ._text import cells, cut, pad, safe

if TYPE_CHECKING:
    from typing import Any, TextIO

__all__ = ["Out", "OutputLost", "Part"]

Part = str | tuple[str, str]
"""A text, or a text and the name of a style."""

_STYLES = {
    "good": "32",
    "bad": "31",
    "warn": "33",
    "busy": "36",
    "faint": "2",
    "strong": "1",
    "completed": "32",
    "running": "36",
    "pending": "36",
    "suspended": "33",
    "paused": "33",
    "cancelled": "31",
    "failed": "31",
    "parked": "31",
}
_PLAIN_WIDTH = 80


class OutputLost(OSError):
    """What was to be printed could not be written."""


class Out:
    """The output of one command. All text given to it is made harmless here, so that no caller can forget it.

    Args:
        json: Print one JSON document instead of text.
        stdout: For what was asked for.
        stderr: For progress, hints and errors.
        environment: For NO_COLOR, TERM and COLUMNS.
    """

    def __init__(
        self,
        *,
        json: bool = False,
        stdout: TextIO | None = None,
        stderr: TextIO | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.json = json
        self._stdout = sys.stdout if stdout is None else stdout
        self._stderr = sys.stderr if stderr is None else stderr
        variables = os.environ if environment is None else environment
        self.on_terminal = _is_terminal(self._stdout) and variables.get("TERM") != "dumb"
        encoding = getattr(self._stdout, "encoding", None) or ""
        self.unicode = encoding.lower().replace("-", "").startswith("utf")
        """Whether bars and dots beyond ASCII may be drawn."""
        self._columns = variables.get("COLUMNS", "")
        self.pretty = self.on_terminal and not json and _has_rich()
        """Colours and boxes: with the `cli` extra, on a terminal."""
        self._colours = self.pretty and not variables.get("NO_COLOR")

    @property
    def width(self) -> int:
        """Columns of the terminal; 80 where there is none and nobody says otherwise."""
        if self._columns.isascii() and self._columns.isdigit() and int(self._columns) > 0:
            return min(int(self._columns), 1_000)
        if self.on_terminal:
            try:
                return max(os.get_terminal_size(self._stdout.fileno()).columns, 20)
            except (OSError, ValueError):
                return _PLAIN_WIDTH
        return _PLAIN_WIDTH

    @property
    def height(self) -> int:
        """Lines of the terminal."""
        try:
            return max(os.get_terminal_size(self._stdout.fileno()).lines, 5)
        except (OSError, ValueError):
            return 24

    def line(self, *parts: Part) -> None:
        """Print one line."""
        self.raw(self.styled(*parts) + "\n")

    def styled(self, *parts: Part) -> str:
        """The parts as one harmless text, with colours where they are wanted."""
        return "".join(
            safe(part) if isinstance(part, str) else self._coloured(safe(part[0]), part[1]) for part in parts
        )

    def _coloured(self, text: str, style: str) -> str:
        if not self._colours or style not in _STYLES:
            return text
        return f"\x1b[{_STYLES[style]}m{text}\x1b[0m"

    def raw(self, text: str) -> None:
        """Write what is known to be harmless, control characters of our own included."""
        if self._stdout is None:
            return
        try:
            self._stdout.write(text)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise OutputLost(error.errno, error.strerror) from error

    def flush(self) -> None:
        """Let whoever reads see what was written."""
        if self._stdout is not None:
            self._stdout.flush()

    def note(self, *parts: Part) -> None:
        """Say something besides what was asked for, on standard error."""
        if self._stderr is not None:
            text = "".join(safe(part) if isinstance(part, str) else safe(part[0]) for part in parts)
            self._stderr.write(text + "\n")
            self._stderr.flush()

    def document(self, value: Any, *, lines: bool = False) -> None:
        """Print one JSON document, on a line of its own where more may follow. It is ASCII, so nothing in it can harm."""
        import json  # noqa: PLC0415 - text needs none

        self.raw(json.dumps(value, indent=None if lines else 2, allow_nan=False) + "\n")

    def table(
        self,
        headers: Sequence[str],
        rows: Sequence[Sequence[Part]],
        *,
        right: Collection[int] = (),
        whole: Collection[int] = (),
    ) -> None:
        """Print aligned columns, cut to the terminal where there is one: the widest gives way first.

        Args:
            headers: One for each column.
            rows: The cells.
            right: The columns whose cells stand at the right edge.
            whole: The columns that are not cut: what people copy.
        """
        texts = [[safe(part if isinstance(part, str) else part[0]) for part in row] for row in rows]
        styles = [["" if isinstance(part, str) else part[1] for part in row] for row in rows]
        widths = [max(map(cells, column)) for column in zip(headers, *texts, strict=True)]
        if self.pretty and sum(widths) + 3 * len(widths) + 1 <= self.width:
            self._box(headers, texts, styles, widths, right)
            return
        if self.on_terminal:
            widths = _fitted(widths, self.width - 2 * (len(widths) - 1), whole)
        self.raw("  ".join(_fill(headers, widths, right)).rstrip() + "\n")
        for row, row_styles in zip(texts, styles, strict=True):
            parts = zip(_fill(row, widths, right), row_styles, strict=True)
            self.raw("  ".join(self._coloured(text, style) for text, style in parts).rstrip() + "\n")

    def _box(
        self,
        headers: Sequence[str],
        texts: Sequence[Sequence[str]],
        styles: Sequence[Sequence[str]],
        widths: Sequence[int],
        right: Collection[int],
    ) -> None:
        from rich import box  # noqa: PLC0415 - an extra, and slow to import
        from rich.console import Console  # noqa: PLC0415
        from rich.table import Table  # noqa: PLC0415
        from rich.text import Text  # noqa: PLC0415

        table = Table(box=box.ROUNDED if self.unicode else box.ASCII, header_style="bold", border_style="dim")
        for header, width in zip(headers, widths, strict=True):
            table.add_column(cut(header, width), width=width, no_wrap=True)
        for row, row_styles in zip(texts, styles, strict=True):
            # Text, so that what looks like markup is shown and not obeyed.
            parts = zip(_fill(row, widths, right), row_styles, strict=True)
            table.add_row(*(Text(text, _RICH.get(_STYLES.get(style, ""), "")) for text, style in parts))
        Console(file=self._stdout, width=self.width, no_color=not self._colours, highlight=False).print(table)


_RICH = {"31": "red", "32": "green", "33": "yellow", "36": "cyan", "2": "dim", "1": "bold"}


def _fill(row: Sequence[str], widths: Sequence[int], right: Collection[int]) -> list[str]:
    return [
        pad(cut(text, width), width, right=number in right)
        for number, (text, width) in enumerate(zip(row, widths, strict=True))
    ]


def _fitted(widths: list[int], room: int, whole: Collection[int]) -> list[int]:
    """Narrow the widest columns until the row fits, none below six cells."""
    least = 6
    excess = sum(widths) - room
    while excess > 0:
        widest = max(
            (number for number in range(len(widths)) if number not in whole), key=widths.__getitem__, default=None
        )
        if widest is None or widths[widest] <= least:
            break
        widths[widest] -= 1
        excess -= 1
    return widths


def _is_terminal(stream: TextIO | None) -> bool:
    try:
        return stream is not None and stream.isatty()
    except ValueError:  # closed
        return False


def _has_rich() -> bool:
    from importlib.util import find_spec  # noqa: PLC0415 - on a terminal only

    return find_spec("rich") is not None

"""Bars as SVG: one picture for each scenario that more than one side took part in."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

__all__ = ["bars"]

_WIDTH = 720
_BAR = 26
_GAP = 10
_TOP = 62
_LEFT = 110
_RIGHT = 190
_STYLE = (
    "text{font:14px system-ui,sans-serif;fill:#1b1b1b}.small{font-size:12px;fill:#555}.ours{fill:#00897b}"
    ".other{fill:#9aa5ab}.back{fill:#fff}"
    "@media(prefers-color-scheme:dark){text{fill:#e8e8e8}.small{fill:#aaa}.back{fill:#1e2129}.other{fill:#667077}}"
)


def bars(title: str, subtitle: str, rows: Sequence[tuple[str, float, str]], ours: str) -> str:
    """A picture of bars whose lengths are in proportion; each row is a name, a value and the words beside its bar."""
    height = _TOP + len(rows) * (_BAR + _GAP) + 6
    longest = max(value for _, value, _ in rows) or 1.0
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{escape(title)}">',
        f"<style>{_STYLE}</style>",
        f'<rect class="back" width="{_WIDTH}" height="{height}"/>',
        f'<text x="12" y="24" font-weight="600">{escape(title)}</text>',
        f'<text x="12" y="44" class="small">{escape(subtitle)}</text>',
    ]
    for number, (name, value, words) in enumerate(rows):
        y = _TOP + number * (_BAR + _GAP)
        width = max(1.0, value / longest * (_WIDTH - _LEFT - _RIGHT))
        kind = "ours" if name == ours else "other"
        lines += [
            f'<text x="{_LEFT - 8}" y="{y + 18}" text-anchor="end">{escape(name)}</text>',
            f'<rect class="{kind}" x="{_LEFT}" y="{y}" width="{width:.1f}" height="{_BAR}" rx="2"/>',
            f'<text x="{_LEFT + width + 8:.1f}" y="{y + 18}">{escape(words)}</text>',
        ]
    return "\n".join([*lines, "</svg>", ""])

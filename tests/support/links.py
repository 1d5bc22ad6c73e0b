"""The addresses elsewhere that the documents name: each is in `links.toml`, with what it is for and how it was last looked at.

The everyday suite asks nobody: it holds the documents against that file. `python -m tests.support.links` fetches all of them,
where there is a network, and says of each whether it is there.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO
from urllib.error import HTTPError, URLError
from urllib.parse import urldefrag, urlsplit
from urllib.request import Request, urlopen

from tests.support.house import ROOT

__all__ = ["ASKED", "DEAD", "NOBODY", "Link", "Reviewed", "fault_of", "links", "look_at", "reviewed", "tell"]

ASKED, DEAD, NOBODY = 0, 1, 2
"""The exit codes: all were found, one is not there, or nobody could be asked at all."""

_LIST = Path(__file__).with_name("links.toml")
_ADDRESS = re.compile(r"\b[a-z][a-z0-9+.-]*://[^\s\"'`<>|\\]+", re.IGNORECASE)
_HOST = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)+")
_AGENT = "Mozilla/5.0 (X11; Linux x86_64) durable_sqlite-links"


@dataclass(frozen=True, slots=True)
class Link:
    """An address, and where it stands."""

    file: str
    line: int
    address: str


@dataclass(frozen=True, slots=True)
class Reviewed:
    """An address that somebody has looked at."""

    address: str
    purpose: str
    seen: str
    """How it was last looked at: `copy` (a stored copy of that page), `fetched`, or `never`."""


def links() -> list[Link]:
    """All addresses that the documents name, in prose and in code alike."""
    files = [ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "pyproject.toml")]
    files += [ROOT / "mkdocs.yml", *sorted((ROOT / "docs").rglob("*.md")), ROOT / "docs" / "llms.txt"]
    return [
        Link(str(file.relative_to(ROOT)), number, _without_what_ends_it(found[0]))
        for file in files
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1)
        for found in _ADDRESS.finditer(line)
    ]


def _without_what_ends_it(address: str) -> str:
    """Without the punctuation of the sentence, or the parenthesis of the markup, that it stands in."""
    while address[-1] in ".,;:!?*_" or (address[-1] == ")" and address.count(")") > address.count("(")):
        address = address[:-1]
    while address.count(")") > address.count("("):
        address = address[: address.rindex(")")]
    return address


def reviewed() -> list[Reviewed]:
    """What `links.toml` holds."""
    return [Reviewed(**entry) for entry in tomllib.loads(_LIST.read_text(encoding="utf-8"))["link"]]


def fault_of(address: str) -> str | None:
    """What is wrong with the form of an address, if anything is."""
    try:
        parts = urlsplit(address)
        port = parts.port
    except ValueError as error:
        return str(error)
    if parts.scheme != "https":
        return "it is not https"
    if _HOST.fullmatch(parts.netloc) is None or port is not None:
        return "its host is not a plain name"
    if parts.query:
        return "it has a query, which often is of one visit"
    return None


def look_at(address: str, timeout: float = 20) -> str | None:
    """Fetch it; what is wrong with it, if anything is. An anchor has to be in the page.

    Raises:
        URLError: Nobody could be asked.
    """
    page, anchor = urldefrag(address)
    try:
        with urlopen(Request(page, headers={"User-Agent": _AGENT}), timeout=timeout) as answer:
            text = answer.read().decode("utf-8", "replace")
    except HTTPError as refused:
        return f"{refused.code} {refused.reason}"
    if anchor and re.search(rf"(?:id|name)=[\"']?{re.escape(anchor)}\b", text) is None:
        return f"the page has no place named {anchor}"
    return None


def tell(found: Iterable[Reviewed], look: Callable[[str], str | None] = look_at, out: TextIO = sys.stdout) -> int:
    """Look at each and print a line for it; the exit code."""
    unheard = dead = asked = 0
    for link in found:
        try:
            fault = look(link.address)
        except (URLError, OSError) as error:
            unheard += 1
            print(f"?     {link.address}  nobody could be asked: {getattr(error, 'reason', error)}", file=out)
        else:
            asked += 1
            dead += fault is not None
            print(f"{'ok' if fault is None else 'DEAD':<6}{link.address}{f'  {fault}' if fault else ''}", file=out)
    print(f"{asked} asked, {dead} dead, {unheard} could not be asked", file=out)
    if dead:
        return DEAD
    return NOBODY if unheard else ASKED


if __name__ == "__main__":
    raise SystemExit(tell(reviewed()))

"""The addresses elsewhere: well-formed, looked at by somebody, and told of honestly by the command that fetches them."""

from __future__ import annotations

import io
import re
from urllib.error import URLError

import pytest

from tests.support.house import ROOT
from tests.support.links import ASKED, DEAD, NOBODY, Reviewed, fault_of, links, reviewed, tell

_KNOWN = {link.address: link for link in reviewed()}
_FOR_EXAMPLES = ("https://example.com/", "https://example.org/")  # reserved by RFC 2606: nobody need look at them


def _elsewhere() -> list[tuple[str, str]]:
    return [
        (link.address, f"{link.file}:{link.line}") for link in links() if not link.address.startswith(_FOR_EXAMPLES)
    ]


def test_every_address_that_a_document_names_is_well_formed_and_https() -> None:
    assert [(where, address, fault) for address, where in _elsewhere() if (fault := fault_of(address))] == []


def test_every_address_that_a_document_names_is_in_the_reviewed_list_and_nothing_else_is() -> None:
    named = dict(_elsewhere())
    assert len(named) >= 20
    assert {address: where for address, where in named.items() if address not in _KNOWN} == {}
    assert sorted(set(_KNOWN) - set(named)) == []
    assert len(_KNOWN) == len(reviewed())


def test_the_reviewed_list_says_what_each_address_is_for_and_how_it_was_looked_at() -> None:
    assert [link.address for link in reviewed() if not link.purpose.strip()] == []
    assert {link.seen for link in reviewed()} <= {"copy", "fetched", "never"}


def test_what_is_said_of_another_project_links_to_a_page_that_somebody_has_read() -> None:
    page = (ROOT / "docs" / "comparison.md").read_text(encoding="utf-8")
    addresses = [link.address for link in links() if link.file == "docs/comparison.md"]
    assert [address for address in addresses if _KNOWN[address].seen == "never"] == []
    rows = [line for line in page.splitlines() if line.startswith("| ") and "https://" not in line]
    heads = [line for line in rows if line.startswith(("| |", "| **durable_sqlite**", "| what it is"))]
    assert rows == heads, "each row about another project names its documentation"


@pytest.mark.parametrize(
    ("address", "fault"),
    [
        ("https://sqlite.org/wal.html#walresetbug", None),
        ("http://sqlite.org/wal.html", "https"),
        ("ftp://sqlite.org/wal.html", "https"),
        ("https://localhost/page", "host"),
        ("https://sqlite..org/page", "host"),
        ("https://user@sqlite.org/page", "host"),
        ("https://sqlite.org:8443/page", "host"),
        ("https://sqlite.org:port/page", "ort"),
        ("https://sqlite.org/page?utm_source=mail", "query"),
    ],
)
def test_an_address_that_is_not_what_it_should_be_is_refused(address: str, fault: str | None) -> None:
    found = fault_of(address)
    assert found is None if fault is None else found is not None and fault in found


_ALL = [Reviewed(f"https://example.com/{name}", "", "copy") for name in ("here", "gone", "silent")]


def _look(address: str) -> str | None:
    if address.endswith("silent"):
        raise URLError("no route")
    return "404 Not Found" if address.endswith("gone") else None


@pytest.mark.parametrize(("last", "code"), [(1, ASKED), (2, DEAD), (3, DEAD)])
def test_the_command_names_what_is_dead_and_ends_accordingly(last: int, code: int) -> None:
    out = io.StringIO()
    assert tell(_ALL[:last], _look, out) == code
    lines = out.getvalue().splitlines()
    assert [re.split(r" +", line)[0] for line in lines[:-1]] == ["ok", "DEAD", "?"][:last]
    assert lines[-1] == f"{min(last, 2)} asked, {int(last > 1)} dead, {int(last > 2)} could not be asked"


def test_the_command_does_not_pass_where_nobody_could_be_asked() -> None:
    assert tell(_ALL[2:], _look, io.StringIO()) == NOBODY

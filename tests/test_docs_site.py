"""The pages as a whole: every link leads somewhere, and what is listed is what there is."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from pathlib import Path
from pkgutil import resolve_name

import pytest

import durable_sqlite
from durable_sqlite import Engine, step, transaction, workflow
from tests.support.house import ROOT
from tests.support.sessions import pages, played

DOCS = ROOT / "docs"
_PAGES = sorted(DOCS.rglob("*.md"))
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_FENCE = re.compile(r"^( *)```.*?^\1```$", re.DOTALL | re.MULTILINE)


def _prose(page: Path) -> str:
    """A page without its blocks of code."""
    return _FENCE.sub("", page.read_text(encoding="utf-8"))


def _anchors(page: Path) -> set[str]:
    """Where a link into a page can lead: its headings as the site names them, and what it documents of the API."""
    text = _prose(page)
    found: set[str] = set()
    for heading in re.findall(r"^#+ (.*)$", text, re.MULTILINE):
        plain = re.sub(r"[`*]|\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", plain).strip().lower())
        number = 0
        while (named := f"{slug}_{number}" if number else slug) in found:
            number += 1
        found.add(named)
    for name in re.findall(r"^::: ([\w.]+)$", text, re.MULTILINE):
        found.add(name)
        thing = resolve_name(name)
        if inspect.isclass(thing):
            found |= {f"{name}.{member}" for member in dir(thing) if not member.startswith("_")}
    return found


def _names(*files: Path) -> list[str]:
    return [str(file.relative_to(ROOT)) for file in files]


@pytest.mark.parametrize("page", [*_PAGES, DOCS / "llms.txt"], ids=lambda page: page.name)
def test_every_link_of_a_page_leads_to_a_page_and_to_a_place_in_it(page: Path) -> None:
    for link in _LINK.findall(_prose(page)):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.is_file(), link
        assert target.is_relative_to(DOCS), link
        if anchor:
            assert anchor in _anchors(target), link


def test_files_that_pages_name_exist() -> None:
    named = {
        name
        for page in _PAGES
        for name in re.findall(r"`((?:tests|durable_sqlite|examples|benchmarks)/[\w./]+)`", _prose(page))
        if "{" not in name
    }
    assert named
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


def test_every_page_is_in_the_menu_and_in_the_list_for_machines() -> None:
    menu = set(re.findall(r"^ +- .+: ([\w/]+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.MULTILINE))
    there = {str(page.relative_to(DOCS)) for page in _PAGES}
    assert menu == there
    machines = set(_LINK.findall((DOCS / "llms.txt").read_text(encoding="utf-8")))
    chapters = {page for page in there if page.startswith("tutorial/")} - {"tutorial/index.md"}
    assert machines == there - chapters - {"index.md"}


def test_the_site_takes_nothing_from_other_hosts() -> None:
    settings = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert "font: false" in settings
    assert not re.search(r"extra_javascript|analytics|mermaid|- https?:", settings)
    for picture in sorted([*DOCS.rglob("*.svg"), *DOCS.rglob("*.css")]):
        text = picture.read_text(encoding="utf-8")
        assert not re.search(r"href|url\((?!#)|<script|@import", text), picture.name
    assert [
        page.name for page in _PAGES if re.search(r"!\[[^\]]*\]\(\w+://|<(?:script|img|iframe)", _prose(page))
    ] == []


def _rows(page: Path) -> list[list[str]]:
    return [
        [cell.strip() for cell in line.strip("|").replace(r"\|", "¦").split("|")]
        for line in page.read_text(encoding="utf-8").splitlines()
        if line.startswith("| `")
    ]


def test_every_error_has_its_cause_and_its_cure() -> None:
    rows = {row[0].strip("`"): row[1:] for row in _rows(DOCS / "reference" / "errors.md")}
    errors = {
        name
        for name in durable_sqlite.__all__
        if inspect.isclass(thing := getattr(durable_sqlite, name)) and issubclass(thing, BaseException)
    }
    assert set(rows) == errors
    assert [name for name, (cause, cure) in rows.items() if not cause or not cure] == ["DurableError"]


def test_every_option_of_an_engine_is_listed_with_its_default() -> None:
    page = DOCS / "reference" / "configuration.md"
    listed = {
        row[0].strip("`"): row[1].strip("`") for row in _rows(page) if len(row) == 4 and not row[0].startswith("`@")
    }
    parameters = inspect.signature(Engine).parameters.values()
    assert {
        each.name: "" if each.default is inspect.Parameter.empty else repr(each.default).replace("'", '"')
        for each in parameters
    } == {name: default for name, default in listed.items() if name in {each.name for each in parameters}}


@pytest.mark.parametrize(("name", "decorator"), [("step", step), ("transaction", transaction), ("workflow", workflow)])
def test_every_option_of_a_decorator_is_listed(name: str, decorator: Callable[..., object]) -> None:
    page = (DOCS / "reference" / "configuration.md").read_text(encoding="utf-8")
    row = next(line for line in page.splitlines() if line.startswith(f"| `@{name}("))
    listed = set(re.findall(r"`(\w+)`", row.split("|")[2]))
    parameters = inspect.signature(decorator).parameters.values()
    assert listed == {each.name for each in parameters if each.kind is each.KEYWORD_ONLY}


@pytest.mark.thorough  # some forty processes, and what they wait for
@pytest.mark.parametrize("story", ["start", "tutorial/"])
def test_whoever_types_what_the_pages_show_sees_what_they_show(story: str, tmp_path: Path) -> None:
    menu = re.findall(r": ([\w/]+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.MULTILINE)
    told = [DOCS / name for name in menu if name.startswith(story) and DOCS / name in pages()]
    assert told
    typed = 0
    for page in told:
        for each in played(page.read_text(encoding="utf-8"), tmp_path):
            assert each.is_shown, f"{page.name}: $ {each.command}\n{each.printed}"
            typed += 1
    assert typed >= 5


def test_every_page_with_a_session_is_part_of_a_story() -> None:
    assert [name for name in _names(*pages()) if not name.startswith(("docs/start", "docs/tutorial/"))] == []

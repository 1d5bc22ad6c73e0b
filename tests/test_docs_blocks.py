"""The documents' own code: every block is Python, and those of some pages print what stands below them."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import inspect
import io
import re
import sys
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any, TypeVar, cast
from weakref import WeakValueDictionary

import pytest
from pydantic import BaseModel, ConfigDict

import durable_sqlite
from durable_sqlite import Engine, RunParked, Step, _signals, step, workflow
from durable_sqlite.testing import harness
from tests.support.house import ROOT

T = TypeVar("T")

_PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
_FENCED = re.compile(r"^( *)```(\w+)[^\n]*\n(.*?)^\1```$", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Block:
    """One block of code of a page."""

    language: str
    line: int
    text: str


def _blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    return [
        Block(
            found[2], text.count("\n", 0, found.start()) + 1, re.sub(f"^{found[1]}", "", found[3], flags=re.MULTILINE)
        )
        for found in _FENCED.finditer(text)
    ]


@pytest.mark.parametrize("page", _PAGES, ids=lambda page: page.name)
def test_what_a_page_shows_as_python_is_python(page: Path) -> None:
    for block in _blocks(page):
        if block.language == "python" and not block.text.startswith("--8<--"):  # a file that is put in there
            compile(block.text, f"{page.name}:{block.line}", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


def test_the_files_that_pages_put_in_exist_and_no_formatter_has_spoilt_the_marks() -> None:
    texts = [page.read_text(encoding="utf-8") for page in _PAGES]
    marks = [mark for text in texts for mark in re.findall(r"^-*8 ?<.*$|^--8.*$", text, re.MULTILINE)]
    assert all(re.fullmatch(r'--8<--( ".+")?', mark) for mark in marks), marks
    put_in: list[str] = [
        file for text in texts for file in re.findall(r"^--8<--[ \n]\"?([\w./]+)\"?$", text, re.MULTILINE)
    ]
    assert sorted(put_in) == ["CHANGELOG.md", "examples/first.py"]


@pytest.mark.parametrize(
    ("name", "outputs"),
    [
        ("failure", 2),
        ("waiting", 8),
        ("children", 4),
        ("control", 4),
        ("exactly_once", 2),
        ("care", 5),
        ("damage", 2),
        ("checking", 2),
        ("testing_properties", 3),
        ("howto/web", 2),
        ("howto/notebook", 1),
        ("howto/encryption", 1),
        ("howto/monitoring", 2),
        ("howto/upgrading", 1),
        ("testing", 6),
        ("replay", 1),
        ("spec", 1),
    ],
)
def test_a_page_prints_what_it_says_it_prints(
    name: str, outputs: int, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.setattr(_signals, "_KNOWN", WeakValueDictionary[Any, Any]())  # a page is a program by itself
    page = ROOT / "docs" / f"{name}.md"
    blocks = _blocks(page)
    module = ModuleType(f"docs.{name.replace('/', '.')}")
    monkeypatch.setitem(sys.modules, module.__name__, module)  # where pydantic looks for it
    compared = 0
    cells = asyncio.Runner()
    request.addfinalizer(cells.close)
    for number, block in enumerate(blocks):
        if block.language != "python":
            continue
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            # At its own lines of the page, which what it prints may name; and some await at the top, as a notebook lets them.
            flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
            code = compile(
                "\n" * block.line + block.text, str(page), "exec", flags=flags, optimize=0
            )  # its own asserts count
            awaited = eval(code, vars(module))
            if awaited is not None:
                cells.run(awaited)
        shown = blocks[number + 1] if number + 1 < len(blocks) else None
        if shown is not None and shown.language == "text":
            assert shown.text == printed.getvalue(), (
                f"{name}.md, line {shown.line}: this is what the block above prints"
            )
            compared += 1
        else:
            assert not printed.getvalue()
    assert compared == outputs
    for test in [value for key, value in vars(module).items() if key.startswith("test_")]:
        if "durable" not in inspect.signature(test).parameters:
            continue  # the page runs it itself
        options: dict[str, Any] = {
            key: value for mark in getattr(test, "pytestmark", ()) for key, value in mark.kwargs.items()
        }
        with harness(**options) as durable:
            module.__dict__["outbox"] = durable.effects
            test(durable)


# Pieces: blocks that show a part of a program are given the rest of it ---------------------------------------------------


class CardDeclined(Exception):
    pass


class Bank:
    """What pieces of code call `bank` or `shop`."""

    def __init__(self) -> None:
        self.keys: list[str] = []

    async def charge(self, cents: int, *, idempotency_key: str) -> str:
        self.keys.append(idempotency_key)
        return f"{cents} paid"

    async def price(self, item: str) -> int:
        return len(item)


def _around() -> dict[str, Any]:
    names = {name: getattr(durable_sqlite, name) for name in durable_sqlite.__all__}
    return {**names, "asyncio": asyncio, "BaseModel": BaseModel, "ConfigDict": ConfigDict, "CardDeclined": CardDeclined}


def _pieces(name: str, **more: Any) -> tuple[dict[str, Any], list[CodeType]]:
    """What the blocks of a page that await nothing have defined; and the others, compiled."""
    module = ModuleType(f"docs.pieces.{name}")
    vars(module).update(_around() | more)
    sys.modules[module.__name__] = module  # where annotations are looked up
    waiting: list[CodeType] = []
    for block in _blocks(ROOT / "docs" / f"{name}.md"):
        if block.language == "python" and not block.text.startswith("--8<--"):
            code = compile(block.text, f"{name}.md:{block.line}", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            if code.co_flags & inspect.CO_COROUTINE:
                waiting.append(code)
            else:
                exec(code, vars(module))
    return vars(module), waiting


@pytest.fixture(autouse=True)
def nothing_is_left_behind() -> Iterator[None]:
    yield
    for name in [name for name in sys.modules if name.startswith("docs.pieces.")]:
        del sys.modules[name]


async def _in_a_run(body: Callable[[], Awaitable[T]], **options: Any) -> T:
    @workflow(name="piece")
    async def piece() -> Any:
        return await body()

    async with Engine(options.pop("path", ":memory:"), **options):
        return cast("T", await piece())


def test_the_step_of_the_start_page_charges_with_its_key() -> None:
    bank = Bank()
    names, _ = _pieces("start", bank=bank)
    assert asyncio.run(_in_a_run(lambda: names["charge"](500))) == "500 paid"
    assert len(bank.keys) == 1


def test_the_piece_of_the_contract_page_is_a_step() -> None:
    assert isinstance(_pieces("contract")[0]["charge"], Step)


def test_the_branches_of_the_page_about_bodies_get_their_own_results() -> None:
    @step
    async def observe(city: str) -> str:
        return city.upper()

    names, (code,) = _pieces("bodies", observe=observe)

    async def body() -> list[str]:
        await eval(code, names)
        return [names["oslo"].result(), names["lima"].result()]

    assert asyncio.run(_in_a_run(body)) == ["OSLO", "LIMA"]


def test_the_ways_out_of_the_page_about_identity_let_a_parked_run_go_on() -> None:
    @workflow
    async def parks() -> None:
        await asyncio.get_running_loop().create_future()

    async def main() -> None:
        async with Engine(":memory:") as engine:
            names, ways = _pieces("identity", engine=engine)
            run = await parks.options(id="order-A1").start()
            assert len(ways) == 2
            for way in ways:
                with pytest.raises(RunParked):
                    await run
                before = (await run.info()).updated_at
                await eval(way, names)
                with pytest.raises(RunParked):
                    await run
                assert (await run.info()).updated_at > before

    asyncio.run(main())


_PHOTO = """
class Photo(Scan):
    data: bytes
    weight: float


@step
async def develop(photo: Photo) -> Photo:
    return photo
"""


def test_the_pieces_of_the_page_about_values_store_what_they_say() -> None:
    names, _ = _pieces("values")

    exec(_PHOTO, names)
    photo = names["Photo"](data=bytes(range(256)), weight=float("inf"))

    async def body() -> bool:
        return cast("bool", await names["develop"](photo) == photo)

    assert asyncio.run(_in_a_run(body, codec=names["Compressed"]()))


def test_the_piece_of_the_page_about_storage_makes_an_engine() -> None:
    assert _pieces("storage")[0]["engine"].path.name == "orders.db"


def test_the_lifespan_of_the_page_about_processes_drains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names, _ = _pieces("processes")

    async def main() -> None:
        async with names["lifespan"](None):
            assert (tmp_path / "orders.db").exists()

    asyncio.run(main())


def test_the_pieces_about_plain_functions_book_what_they_were_quoted(tmp_path: Path) -> None:
    (tmp_path / "schema").mkdir()
    (tmp_path / "schema" / "0001_bookings.sql").write_text("CREATE TABLE bookings (item TEXT, cents INTEGER) STRICT;")
    names, _ = _pieces("why_plain", shop=Bank())

    async def main() -> list[Any]:
        async with Engine(tmp_path / "orders.db", schema=tmp_path / "schema") as engine:
            await names["order"]("tea")
            with engine.connect() as connection:
                return connection.execute("SELECT item, cents FROM bookings").fetchall()

    assert asyncio.run(main()) == [("tea", 3)]


def test_every_page_with_code_is_run_by_one_of_these() -> None:
    (whole,) = [mark for mark in test_a_page_prints_what_it_says_it_prints.pytestmark if mark.name == "parametrize"]  # type: ignore[attr-defined]
    run = {name for name, _ in whole.args[1]}
    run |= {"start", "contract", "bodies", "identity", "values", "storage", "processes", "why_plain"}  # in pieces
    run |= {"cli_acting"}  # in tests/cli/test_session.py
    names = {str(page.relative_to(ROOT / "docs").with_suffix("")): page for page in _PAGES[1:]}
    code = {name for name, page in names.items() if any(block.language == "python" for block in _blocks(page))}
    assert {name for name in code - run if not name.startswith("tutorial/")} == set()

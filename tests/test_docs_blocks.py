"""The documents' own code: every block is Python, and those of some pages print what stands below them."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import inspect
import io
import os
import re
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator
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
from tests.support.pages import PAGES, Block, blocks
from tests.support.sessions import pages as sessions
from tests.support.stage import until

T = TypeVar("T")

_WHOLE = {
    "failure": 2,
    "waiting": 8,
    "children": 4,
    "control": 4,
    "exactly_once": 2,
    "care": 5,
    "damage": 2,
    "checking": 2,
    "testing_properties": 3,
    "howto/web": 2,
    "howto/notebook": 1,
    "howto/encryption": 1,
    "howto/monitoring": 2,
    "howto/upgrading": 1,
    "testing": 6,
    "replay": 1,
    "spec": 1,
}
"""Pages that are programs, and how many of their blocks print what stands below them."""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_shows_as_python_is_python(page: Path) -> None:
    for block in blocks(page):
        if block.language == "python" and not block.text.startswith("--8<--"):  # a file that is put in there
            compile(block.text, f"{page.name}:{block.line}", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


def test_the_files_that_pages_put_in_exist_and_no_formatter_has_spoilt_the_marks() -> None:
    texts = [page.read_text(encoding="utf-8") for page in PAGES]
    marks = [mark for text in texts for mark in re.findall(r"^-*8 ?<.*$|^--8.*$", text, re.MULTILINE)]
    assert all(re.fullmatch(r'--8<--( ".+")?', mark) for mark in marks), marks
    put_in: list[str] = [
        file for text in texts for file in re.findall(r"^--8<--[ \n]\"?([\w./]+)\"?$", text, re.MULTILINE)
    ]
    assert sorted(put_in) == ["CHANGELOG.md", "examples/first.py", "tests/golden/schema.sql"]


@pytest.mark.parametrize(("name", "outputs"), _WHOLE.items())
def test_a_page_prints_what_it_says_it_prints(
    name: str, outputs: int, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.setattr(_signals, "_KNOWN", WeakValueDictionary[Any, Any]())  # a page is a program by itself
    page = ROOT / "docs" / f"{name}.md"
    shown_all = blocks(page)
    module = ModuleType(f"docs.{name.replace('/', '.')}")
    monkeypatch.setitem(sys.modules, module.__name__, module)  # where pydantic looks for it
    compared = 0
    cells = asyncio.Runner()
    request.addfinalizer(cells.close)
    for number, block in enumerate(shown_all):
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
        shown = shown_all[number + 1] if number + 1 < len(shown_all) else None
        if shown is not None and shown.language == "text":
            assert shown.text == printed.getvalue(), (
                f"{name}.md, line {shown.line}: this is what the block above prints"
            )
            compared += 1
        else:
            assert not printed.getvalue()
    assert compared == outputs == sum(block.language == "text" for block in shown_all)
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
    for block in blocks(ROOT / "docs" / f"{name}.md"):
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


def test_the_program_of_the_page_about_processes_ends_when_it_is_told_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names, _ = _pieces("processes")
    before = signal.getsignal(signal.SIGTERM)

    async def told() -> None:
        await until(lambda: signal.getsignal(signal.SIGTERM) != before)  # that it serves is told by nothing else
        os.kill(os.getpid(), signal.SIGTERM)

    async def both() -> None:
        async with asyncio.timeout(60), asyncio.TaskGroup() as group:
            group.create_task(names["main"]())
            group.create_task(told())

    asyncio.run(both())
    assert signal.getsignal(signal.SIGTERM) == before


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


# Who holds what -----------------------------------------------------------------------------------------------------------

_KEEPERS = {
    ("README.md", "python"): "test_house.py::test_the_example_of_the_readme_is_the_file_beside_it",
    ("README.md", "sh"): "test_house.py::test_ci_runs_both_commands_of_the_readme_and_no_copy_of_them",
    ("docs/benchmarks.md", "console"): "test_docs_terminal.py::test_the_commands_of_the_benchmarks_are_understood",
    ("docs/checking.md", "console"): "test_docs_terminal.py::test_a_check_in_a_pipeline_says_what_its_page_shows",
    ("docs/cli.md", "console"): "cli/test_page.py::test_the_page_shows_what_is_printed",
    ("docs/cli_acting.md", "console"): (
        "cli/test_session.py::test_a_killed_run_is_brought_to_its_end_by_the_printed_hints_alone"
    ),
    ("docs/cli_acting.md", "python"): (
        "cli/test_session.py::test_a_killed_run_is_brought_to_its_end_by_the_printed_hints_alone"
    ),
    ("docs/howto/service.md", "cron"): "test_docs_terminal.py::test_what_cron_and_a_timer_call_drives_what_is_due",
    ("docs/howto/service.md", "ini"): "test_docs_terminal.py::test_the_units_of_a_service_start_what_they_say",
    ("docs/processes.md", "text"): "test_docs_terminal.py::test_what_pages_show_of_a_log_is_what_the_code_says",
    ("docs/spec.md", "sql"): "sqlite/test_schema.py::test_the_schema_after_all_migrations_is_the_golden_one",
    ("docs/start.md", "sh"): "test_packaging.py::test_the_lines_of_the_start_page_install_it",
    ("docs/storage.md", "text"): "test_docs_terminal.py::test_what_pages_show_of_a_log_is_what_the_code_says",
    ("docs/testing_properties.md", "console"): "test_docs_terminal.py::test_the_smallest_case_that_is_shown_fails",
}
"""What is neither run as a program nor typed as a session, by page and language; there is no other block."""


def _keepers() -> dict[tuple[Path, int], str | None]:
    """For each block, by page and line, the test that holds it, if there is one."""
    typed = sessions()
    pieces = {
        found[1]: name
        for name, test in globals().items()
        if name.startswith("test_") and (found := re.search(r'_pieces\("(\w+)"', inspect.getsource(test)))
    }

    def keeper(page: Path, block: Block) -> str | None:
        name = str(page.relative_to(ROOT))
        short = name.removeprefix("docs/").removesuffix(".md")
        if page in typed and (block.language == "console" or "title=" in block.options):
            return "test_docs_site.py::test_whoever_types_what_the_pages_show_sees_what_they_show"
        if short in _WHOLE and block.language in {"python", "text"}:
            return "test_docs_blocks.py::test_a_page_prints_what_it_says_it_prints"
        if block.language == "python" and short in pieces:
            return f"test_docs_blocks.py::{pieces[short]}"
        return _KEEPERS.get((name, block.language))

    return {(page, block.line): keeper(page, block) for page in PAGES for block in blocks(page)}


def test_every_block_of_every_page_is_held_by_a_test() -> None:
    held = _keepers()
    assert [f"{page.relative_to(ROOT)}:{line}" for (page, line), keeper in held.items() if keeper is None] == []
    for keeper in {keeper for keeper in held.values() if keeper is not None}:
        file, _, test = keeper.rpartition("::")
        code = (ROOT / "tests" / file).read_text(encoding="utf-8")
        assert f"\ndef {test}(" in code, keeper
    assert set(_KEEPERS.values()) <= set(held.values()), "nothing is named for a block that is gone"


def test_no_block_is_hidden_from_these_tests() -> None:
    for page in PAGES:
        fences = re.findall(r"^ *(?:```|~~~).*$", page.read_text(encoding="utf-8"), re.MULTILINE)
        assert len(fences) == 2 * len(blocks(page)), page.name
        assert not any("~~~" in fence for fence in fences), page.name


def test_each_example_is_started_by_a_test_and_by_ci() -> None:
    tests = (ROOT / "tests" / "test_examples.py").read_text(encoding="utf-8")
    examples = [path.stem for path in sorted((ROOT / "examples").glob("*.py"))]
    assert len(examples) >= 6
    assert [name for name in examples if f'"{name}.py"' not in tests and f"examples.{name}:" not in tests] == []

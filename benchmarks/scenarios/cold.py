"""What a start from nothing takes: an import, and a look into a journal from the command line."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

from benchmarks.bodies import count
from benchmarks.peers import dbos_sqlite, mundane_file, unhinged_sqlite
from benchmarks.shape import OURS, Figures, Scenario, Side, most, ratio
from durable_sqlite import Engine

__all__ = ["SCENARIO"]

IMPORT = "ms to import it"
LIST = "ms to list runs"

SCRIPT = """
import argparse, sqlite3
parser = argparse.ArgumentParser()
parser.add_argument("db")
parser.add_argument("--state")
db = parser.parse_args().db
connection = sqlite3.connect("file:" + db + "?mode=ro", uri=True)
for row in connection.execute("SELECT id, workflow, state, created_at FROM durable_runs ORDER BY no DESC LIMIT 50"):
    print(*row)
"""
"""The least that lists runs: the limit of `durable_sqlite list`."""


COMMAND = Path(sys.executable).with_name("durable_sqlite")
"""What the installation put beside Python: what people type."""


def _took(times: int, *command: str | Path) -> float:
    """Milliseconds until a command has done its work, the fastest of several times after one that nobody times."""
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    took: list[float] = []
    for _ in range(times):
        began = perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        took.append(1000 * (perf_counter() - began))
    return min(took)


def _python(times: int, statement: str, *arguments: str) -> float:
    return _took(times, sys.executable, "-c", statement, *arguments)


def _journal(folder: Path) -> str:
    async def main() -> None:
        async with Engine(folder / "journal.db"):
            await asyncio.gather(*(count(1) for _ in range(20)))

    asyncio.run(main())
    return str(folder / "journal.db")


def _ours(folder: Path, times: int) -> Figures:
    journal = _journal(folder)
    return {
        IMPORT: _python(times, "from durable_sqlite import *"),
        "ms to import its door alone": _python(times, "import durable_sqlite"),
        LIST: _took(times, COMMAND, "--db", journal, "list"),
    }


def _limit(folder: Path, times: int) -> Figures:
    return {
        IMPORT: _python(times, "import pydantic, aiosqlite; pydantic.BaseModel"),
        LIST: _python(times, SCRIPT, _journal(folder)),
        "ms of bare Python": _python(times, "pass"),
    }


def _import(statement: str) -> Callable[[Path, int], Figures]:
    return lambda _, times: {IMPORT: _python(times, statement)}


SCENARIO = Scenario(
    name="cold",
    work="import of everything; `durable_sqlite list`. The limit: import of pydantic and aiosqlite; a bare script that lists",
    size=5,
    quick=1,
    sides=(
        Side(OURS, _ours, stores=False),
        Side("limit", _limit, stores=False),
        Side("dbos", _import("import dbos"), needs=dbos_sqlite.NEEDS, stores=False),
        Side("mundane", _import("import mundane"), needs=mundane_file.NEEDS, stores=False),
        Side("unhinged", _import("import unhinged"), needs=unhinged_sqlite.NEEDS, stores=False),
    ),
    floors=(
        most("times the import of pydantic with aiosqlite", 2, ratio(IMPORT, "limit")),
        most("times a bare script that lists", 1.5, ratio(LIST, "limit")),
    ),
    main=IMPORT,
    rounds=5,
    notes=(
        "`from durable_sqlite import *` imports every part; `import durable_sqlite` alone imports them when they are first "
        "asked for. Each figure is the fastest of five starts, so that other work of the machine does not count; one before "
        "them lets Python keep the byte code, which an installation has and a checkout has not."
    ),
    tried=(
        "What runs engines is imported when one is opened, pydantic's adapters when a type is first met.",
        (
            "Of the rest, most is the making of some eighty frozen classes with slots, about half a millisecond each: what "
            "is stored and told. Plain classes would be faster here, and nowhere safer."
        ),
    ),
)

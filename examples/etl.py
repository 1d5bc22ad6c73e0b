"""Ten thousand lines are cleaned, a hundred at once, and loaded in one commit.

Kill it in the middle, start it again: lines that were cleaned stay cleaned, and nothing is loaded twice.
"""

import asyncio
import sys
from pathlib import Path

from pydantic import BaseModel

from durable_sqlite import Engine, Tx, each, set_progress, step, transaction, workflow

LINES = 10_000
SCHEMA = Path(__file__).parent / "etl_schema"  # numbered SQL files, applied when the engine opens

cleaned = 0  # by this process, for people to look at


class Row(BaseModel):
    number: int
    name: str
    cents: int


def extract(first: int, count: int) -> list[str]:
    """What a file or another system would give: the same lines for the same numbers."""
    return [
        f" {number};Item {number % 97:02} ; {number % 500}.{number % 100:02} " for number in range(first, first + count)
    ]


@step
async def clean(line: str) -> Row:
    global cleaned  # noqa: PLW0603 - it only counts what this process does
    cleaned += 1
    if cleaned % 1_000 == 0:
        print(f"{cleaned} lines cleaned here", flush=True)
    number, name, price = (part.strip() for part in line.split(";"))
    euros, cents = price.split(".")
    return Row(number=int(number), name=name.lower(), cents=100 * int(euros) + int(cents))


@transaction
def load(tx: Tx, rows: list[Row]) -> int:
    for row in rows:
        tx.execute("INSERT INTO items (number, name, cents) VALUES (?, ?, ?)", (row.number, row.name, row.cents))
    return len(rows)


@workflow
async def etl(lines: int) -> int:
    loaded, page = 0, 1_000
    for first in range(0, lines, page):
        rows = await each(clean, extract(first, page), concurrency=100)  # in the order of the lines
        loaded += await load(rows)
        set_progress(loaded, lines)
    return loaded


async def main() -> None:
    journal = sys.argv[1] if len(sys.argv) > 1 else "etl.db"
    async with Engine(journal, schema=SCHEMA) as engine:
        loaded = await (await etl.options(id="etl").start(LINES))

        def total(tx: Tx) -> int:
            ((cents,),) = tx.execute("SELECT sum(cents) FROM items").rows
            return int(cents)

        print(f"{loaded} rows loaded, {await engine.transact(total)} cents in all", flush=True)


if __name__ == "__main__":
    asyncio.run(main())

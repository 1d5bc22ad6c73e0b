"""Five cups. Kill it, start it again: it goes on with the cup it was at."""

import asyncio
import sys

from durable_sqlite import Engine, step, workflow


@step
async def brew(cup: int) -> str:
    print(f"brewing cup {cup}", flush=True)
    await asyncio.sleep(1)
    return f"cup {cup}"


@workflow
async def breakfast(cups: int) -> list[str]:
    return [await brew(cup) for cup in range(1, cups + 1)]


async def main() -> None:
    async with Engine(sys.argv[1] if len(sys.argv) > 1 else "first.db"):
        # The same id again attaches to the run that exists.
        run = await breakfast.options(id="breakfast").start(5)
        print("served:", ", ".join(await run), flush=True)


if __name__ == "__main__":
    asyncio.run(main())

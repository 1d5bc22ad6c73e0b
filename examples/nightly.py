"""A job for each night, with no process kept running and no scheduler but the one that the system has.

In this folder, `python nightly.py nightly.db` starts the run and ends. Then let cron or a systemd timer call
`durable_sqlite resume --due --app nightly --db nightly.db` there now and then: it does what is due, and ends.
"""

import asyncio
import sys
from datetime import timedelta

from durable_sqlite import Engine, now, sleep_until, step, workflow


@step
async def report(night: int) -> str:
    print(f"report of night {night}", flush=True)
    return f"report {night}"


@workflow
async def nightly(nights: int, every: float) -> int:
    begin = now()  # the run's own time: the same on each replay
    for night in range(1, nights + 1):
        await sleep_until(begin + timedelta(seconds=every) * night)  # the process may be gone meanwhile
        await report(night)
    return nights


async def main() -> None:
    journal = sys.argv[1] if len(sys.argv) > 1 else "nightly.db"
    every = float(sys.argv[2]) if len(sys.argv) > 2 else 86_400.0  # noqa: PLR2004
    async with Engine(journal, drive=False):  # a client: it starts the run, and drives nothing
        run = await nightly.options(id="nightly").start(3, every)
        print(f"{run.id} is {(await run.info()).state}", flush=True)


if __name__ == "__main__":
    asyncio.run(main())

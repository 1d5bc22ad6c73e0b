"""Makes a journal to be damaged, with a WAL as a killed process leaves it: `python -m tests.campaigns.damage.prepare FOLDER`.

In the folder are then `j.db` with all that is beside it, `older/` with the same files as they were a moment before, `oldest/`
with the database as it was when an engine had closed it, and `other/` with the files of another journal.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

from durable_sqlite import Engine
from tests.support.restarts import quiet

from .flows import FLOWS, Decision, Go, Note, Review, add, answered, failing, family, sleeper, waiter

__all__ = ["prepare"]


def prepare(folder: Path) -> None:
    """Make the journals of a campaign, each in a process that dies in the end."""
    for name in ("other", "."):
        (folder / name).mkdir(parents=True, exist_ok=True)
        program = [sys.executable, "-m", "tests.campaigns.damage.prepare", str(folder / name)]
        subprocess.run(program, check=True, cwd=Path(__file__).parents[3])
        for left in (folder / name).glob("*-worker-*"):
            left.unlink()
        (folder / name / "j.db-shm").unlink()


async def _work(engine: Engine, name: str, text: str) -> None:
    """Some runs in every state that a run can be left in."""
    for number in range(4):
        await add.options(id=f"add-{name}-{number}", tags={"team": "blue"}).start(number + 2, text * number)
    for number in range(3):
        await waiter.options(id=f"waiter-{name}-{number}").start(number + 1, text)
    await answered.options(id=f"answered-{name}").start(text)
    await family.options(id=f"family-{name}").start(text)
    await failing.options(id=f"failing-{name}").start(text)
    await sleeper.options(id=f"sleeper-{name}", tags={"team": "s"}).start(text)
    await quiet(engine)
    await engine.run(f"answered-{name}").answer(Review, Decision(granted=True), by="ada")
    await engine.run(f"waiter-{name}-0").signal(Go(by=7))
    for number in range(3):
        await engine.run(f"waiter-{name}-{number}").signal(Note(text=text), dedupe=f"{number}")
    await engine.run(f"sleeper-{name}").answer(Review, Decision(granted=False), early=True)
    await quiet(engine)


async def _main(folder: Path) -> None:
    path = folder / "j.db"
    async with Engine(path, workflows=FLOWS, unload_after=0) as engine:
        await _work(engine, "a", "some text that may get damaged")
    (folder / "oldest").mkdir()
    shutil.copy(path, folder / "oldest")
    async with Engine(path, workflows=FLOWS, unload_after=0) as engine:
        await _work(engine, "b", "other words")
        # In a process of its own: to close such a file here would drop the locks of SQLite.
        (folder / "older").mkdir()
        files = [str(path), f"{path}-wal"]
        subprocess.run(["cp", *files, str(folder / "older")], check=True)  # noqa: ASYNC221 - nothing else runs
        await _work(engine, "c", "words that came last")
        sys.stdout.flush()
        os._exit(0)


if __name__ == "__main__":
    logging.getLogger("durable_sqlite").setLevel(logging.CRITICAL)
    asyncio.run(_main(Path(sys.argv[1])))

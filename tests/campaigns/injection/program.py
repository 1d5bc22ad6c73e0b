"""A process that starts runs, sends what they wait for, and leaves when all have ended; or when it is told that it cannot be."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
from contextlib import ExitStack
from pathlib import Path
from unittest.mock import patch

from durable_sqlite import Engine, JournalError
from durable_sqlite._sqlite import driving
from tests.campaigns.fleet.deeds import DEEDS, LETTERS, POST, WORKFLOWS, Letter, model, set_up
from tests.campaigns.fleet.trace import LOG, TracedEngine, traced_release

__all__ = ["TOLD", "live"]

TOLD = 3
"""How it ends when the engine has said that the storage is in trouble."""

_RUNS = ("errand", "books", "post", "hill", "careful", "nap")
_PATIENCE = 0.3  # seconds after which calls of the application are told


async def _live(journal: str) -> None:
    engine = TracedEngine(
        journal, workflows=WORKFLOWS, storage_patience=_PATIENCE, unload_after=0, max_recoveries=1_000_000
    )
    async with engine:
        LOG.note("open")
        try:
            await _use(engine)
        finally:
            LOG.note("closing")
    LOG.note("closed")


async def _use(engine: Engine) -> None:
    await engine.transact(set_up)
    runs = [await DEEDS[name].options(id=f"{name}-{n}").start(n) for n, name in enumerate(_RUNS)]
    for run in runs:
        LOG.note("started", run.id)
    for n in range(1, LETTERS + 1):
        post = next(run for run in runs if run.id.startswith("post-"))
        await POST.run(post.id).signal(Letter(n=n), dedupe=str(n))
        LOG.note("sent", post.id, n)
    for n, run in enumerate(runs):
        result = await run.result(timeout=20)
        LOG.note("result", run.id, json.dumps(result))
        assert result == model(DEEDS[_RUNS[n]].name, n), result


def live(journal: str, log: str) -> None:
    """Live once; ends with `TOLD` where the engine has told of trouble with the storage."""
    logging.getLogger("durable_sqlite").setLevel(logging.CRITICAL)
    Path(log).with_name("effects").mkdir(exist_ok=True)
    LOG.open(log)
    LOG.note("born", "injected", os.getpid())
    with ExitStack() as changes:
        changes.enter_context(patch.object(driving, "release", traced_release))
        try:
            asyncio.run(_live(journal))
        except JournalError as error:
            LOG.note("told", f"{type(error).__name__} {error}"[:300])
            sys.exit(TOLD)


if __name__ == "__main__":
    live(*sys.argv[1:])

"""Programs that end with their engine open, in whatever way: no hang, no outcome, no death, and bodies are unloaded only."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from durable_sqlite import Engine, State, sleep, step, workflow
from tests.support.gates import session_of
from tests.support.house import environment

ENDING = """
import asyncio, sys
from durable_sqlite import Engine, sleep, step, workflow

never = asyncio.Event()

@step
async def hold() -> str:
    print("in flight", flush=True)
    await never.wait()
    return "held"

@step
async def tidy() -> None:
    print("the step that cleans up", flush=True)

@workflow
async def held() -> str:
    try:
        return await hold()
    except asyncio.CancelledError:
        print("cancelled", flush=True)
        await tidy()
        raise
    finally:
        print("left", flush=True)

@workflow
async def naps() -> None:
    try:
        await sleep(3600)
    except asyncio.CancelledError:
        print("cancelled", flush=True)
        await tidy()
        raise

async def main():
    {opens}
        await naps.options(id="naps", engine=engine).start()
        await held.options(id="held", engine=engine).start()
        while not (await engine.run("naps").info()).state == "suspended":
            await asyncio.sleep(0.001)
        {ends}

asyncio.run(main())
"""

OPENS = {
    "in a block": "async with Engine(sys.argv[1]) as engine:",
    "never closed": "engine = Engine(sys.argv[1]); await engine.__aenter__()\n    if True:",
}
ENDS = {
    "an exception": ("await asyncio.sleep(0.01); 1 / 0", 1),
    "sys.exit": ("await asyncio.sleep(0.01); sys.exit(3)", 3),
    "Ctrl-C": ("print('ready', flush=True); await never.wait()", -signal.SIGINT),
}


@step
async def hold() -> str:
    return "held elsewhere"


@workflow
async def held() -> str:
    return await hold()


@workflow
async def naps() -> None:
    await sleep(3600)


@pytest.mark.parametrize("end", list(ENDS))
@pytest.mark.parametrize("opens", list(OPENS))
def test_a_program_that_ends_with_runs_in_memory_ends_at_once_and_others_go_on(
    tmp_path: Path, opens: str, end: str
) -> None:
    how, code = ENDS[end]
    source = ENDING.format(opens=OPENS[opens], ends=how)
    command = [sys.executable, "-c", source, str(tmp_path / "j.db")]
    with subprocess.Popen(
        command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        if end == "Ctrl-C":
            assert process.stdout is not None
            seen = {process.stdout.readline().strip() for _ in range(2)}
            assert seen == {"in flight", "ready"}
            process.send_signal(signal.SIGINT)
        try:
            out, errors = process.communicate(timeout=20)
        finally:
            process.kill()
    assert process.returncode == code, errors
    assert [line for line in out.split("\n") if line not in ("", "in flight")] == ["left"], errors

    async def scenario() -> None:
        async with Engine(tmp_path / "j.db", drive=False) as engine:
            row = await session_of(engine).journal.run("held")
            assert row is not None
            assert (row.state, row.deaths, row.owner) == (State.PENDING, 0, None)
            assert await engine.run("held").history() == []
            assert (await engine.run("naps").info()).state is State.SUSPENDED
        async with Engine(tmp_path / "j.db", workflows=[held, naps]) as engine:
            assert await engine.run("held").result(timeout=20) == "held elsewhere"

    asyncio.run(scenario())

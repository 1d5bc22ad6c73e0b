"""Versions and origins: what is recorded of the code, and how the code of a run is found again."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from durable_sqlite import Engine, RunParked, State, step, workflow
from tests.support.restarts import die, quiet
from tests.support.stage import Stage, ended, until

CODE = """
from durable_sqlite import step, workflow

@step
async def act() -> int:
    return 5

@workflow(version="7")
async def flow() -> int:
    return await act()

class Flows:
    @workflow(name="nested")
    async def inner() -> int:
        return 6

not_one = 5

@workflow(name="another_name")
async def renamed() -> int:
    return 7
"""


def run_code(module: Any) -> None:
    names: dict[str, Any] = module.__dict__
    exec(CODE, names)


@pytest.fixture
def module() -> Iterator[Any]:
    made: Any = ModuleType("shop_flows")
    run_code(made)
    sys.modules["shop_flows"] = made
    yield made
    sys.modules.pop("shop_flows", None)


async def pending(path: Path, *workflows: Any) -> list[str]:
    """Runs that nobody drives yet."""
    async with Engine(path, drive=False):
        return [(await flow.start()).id for flow in workflows]


def test_a_workflow_s_version_is_recorded_with_each_run(tmp_path: Path) -> None:
    @workflow(name="flow", version="1.4")
    async def old() -> int:
        return 1

    @workflow(name="flow", version="2")
    async def new() -> int:
        return 2

    async def scenario() -> None:
        async with Engine(tmp_path / "j.db", drive=False):
            first = await old.options(id="a").start()
        async with Engine(tmp_path / "j.db") as engine:
            second = await new.options(id="b").start()
            assert await second == 2
            assert await engine.run("a") == 2  # the code of a run is that of its name; the version is for people
            assert (await engine.run(first.id).info()).version == "1.4"
            assert (await second.info()).version == "2"

    asyncio.run(scenario())


def test_recovery_finds_the_code_of_a_run_among_the_modules_that_are_imported(tmp_path: Path, module: Any) -> None:
    async def scenario() -> None:
        flow, nested = await pending(tmp_path / "j.db", module.flow, module.Flows.inner)
        async with Engine(tmp_path / "j.db") as engine:
            assert await engine.run(flow).result(timeout=20) == 5
            assert await engine.run(nested).result(timeout=20) == 6

    asyncio.run(scenario())


@pytest.mark.parametrize("spec", [None, "shop_flows", "shop_flows.__main__"])
def test_a_script_is_known_by_its_real_name(
    tmp_path: Path, module: Any, monkeypatch: pytest.MonkeyPatch, spec: str | None
) -> None:
    del sys.modules["shop_flows"]
    script: Any = ModuleType("__main__")
    script.__spec__ = None if spec is None else SimpleNamespace(name=spec)
    script.__file__ = "/srv/shop_flows.py" if spec is None else "/srv/elsewhere.py"
    monkeypatch.setitem(sys.modules, "__main__", script)
    run_code(script)

    async def scenario() -> None:
        (run,) = await pending(tmp_path / "j.db", script.flow)
        async with Engine(tmp_path / "j.db") as engine:
            assert await engine.run(run).result(timeout=20) == 5

    assert script.flow.spec.origin == "shop_flows:flow"
    asyncio.run(scenario())


def test_code_without_a_file_is_known_as_the_main_module(monkeypatch: pytest.MonkeyPatch) -> None:
    shell: Any = ModuleType("__main__")
    shell.__spec__ = None
    monkeypatch.setitem(sys.modules, "__main__", shell)
    run_code(shell)
    assert shell.flow.spec.origin == "__main__:flow"


def test_what_stands_at_the_recorded_place_must_be_that_workflow(tmp_path: Path, module: Any) -> None:
    async def scenario() -> None:
        runs = await pending(tmp_path / "j.db", module.flow, module.renamed, module.Flows.inner)
        module.flow = module.not_one
        module.renamed = module.Flows.inner
        del module.Flows
        async with Engine(tmp_path / "j.db") as engine:
            await quiet(engine)
            for run in runs:
                assert (await engine.run(run).info()).state is State.PENDING

    asyncio.run(scenario())


def test_a_resumed_run_s_code_is_looked_for_as_well(tmp_path: Path, module: Any) -> None:
    stage = Stage()

    @step
    async def hold() -> None:
        await stage.enter("hold")

    async def wrong() -> int:
        await asyncio.Event().wait()
        return 1

    module.flow = workflow(name="flow")(wrong)
    wrong.__module__, wrong.__qualname__ = "shop_flows", "flow"
    module.flow = workflow(name="flow")(wrong)

    async def scenario() -> None:
        (run,) = await pending(tmp_path / "j.db", module.flow)
        async with Engine(tmp_path / "j.db") as engine:
            assert (await ended(engine.run(run), RunParked)).reason == "not_durable"
        run_code(module)
        async with Engine(tmp_path / "j.db") as engine:
            await engine.run(run).resume()
            assert await engine.run(run).result(timeout=20) == 5
        del sys.modules["shop_flows"]
        async with Engine(tmp_path / "j.db", drive=False) as client:
            with pytest.raises(Exception, match="completed"):
                await client.run(run).resume()

    del hold
    asyncio.run(scenario())


def test_a_client_may_resume_a_run_that_a_worker_drives_later(tmp_path: Path) -> None:
    async def wrong() -> int:
        await asyncio.Event().wait()
        return 1

    async def right() -> int:
        return 2

    async def scenario() -> None:
        async with Engine(tmp_path / "j.db"):
            run = await workflow(name="flow")(wrong).options(id="x").start()
            await ended(run, RunParked)
        async with Engine(tmp_path / "j.db", drive=False) as client:
            await client.run("x").resume()
            assert (await client.run("x").info()).state is State.PENDING
        async with Engine(tmp_path / "j.db") as engine:
            await engine.run("x").cancel()
            await die(engine)
        async with Engine(tmp_path / "j.db", workflows=[workflow(name="flow")(right)]) as engine:
            assert (await engine.run("x").info()).state is State.CANCELLED

    asyncio.run(scenario())


def test_a_journal_that_names_a_module_does_not_get_it_imported(
    tmp_path: Path, module: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The module could be had: it lies where Python looks, and would leave a mark."""
    mark = tmp_path / "it_was_run"
    (tmp_path / "shop_flows.py").write_text(f"open({str(mark)!r}, 'w').close()\n{CODE}", encoding="utf-8")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])

    async def scenario() -> None:
        (run,) = await pending(tmp_path / "j.db", module.flow)
        del sys.modules["shop_flows"]
        async with Engine(tmp_path / "j.db") as engine:
            await until(lambda: caplog.records or mark.exists())  # it says that it does not know the run
            assert (await engine.run(run).info()).state == "pending"

    asyncio.run(scenario())
    assert "flow" in caplog.text
    assert not mark.exists()
    assert "shop_flows" not in sys.modules

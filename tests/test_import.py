"""Importing the package changes nothing: it starts nothing, opens nothing, and loads no more than it needs."""

from __future__ import annotations

import json

import pytest

import durable_sqlite
from tests.support.house import python

_WATCHED = """
import json, sys, threading
events = []
def watch(event, arguments):
    if event == "open" and isinstance(arguments[0], str) and not arguments[0].endswith((".py", ".pyc", ".so")):
        writes = isinstance(arguments[1], str) and set(arguments[1]) & set("wax+")
        if writes or not arguments[0].startswith((sys.prefix, sys.base_prefix)):
            events.append(f"open {arguments[0]}")
    elif event in {"sqlite3.connect", "subprocess.Popen", "os.fork", "socket.__new__", "_thread.start_new_thread",
                   "os.mkdir", "os.remove", "os.rename"}:
        events.append(event)
"""

_CHANGES = f"""
import warnings
warnings.simplefilter("error")
import pydantic, aiosqlite, asyncio, signal, logging, atexit
{_WATCHED}
def state():
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM), logging.root.handlers[:]
    return threading.active_count(), handlers, asyncio._get_running_loop()
before = state()
sys.addaudithook(watch)
import durable_sqlite
if state() != before:
    events.append(f"{{before}} became {{state()}}")
print(json.dumps(events))
"""
# A new event loop would show as a socket: its self-pipe.

_DEFINITIONS = f"""
{_WATCHED}
import durable_sqlite
from durable_sqlite import step, workflow
sys.addaudithook(watch)
@step
async def one(number: int) -> int: return number
@workflow
async def flow(number: int) -> int: return await one(number)
print(json.dumps(events))
"""

_LOADED = """
import json, sys
import pydantic, aiosqlite
pydantic.BaseModel, pydantic.TypeAdapter, pydantic.ConfigDict
before = set(sys.modules)
import durable_sqlite
for name in set(durable_sqlite.__all__) - {"Signal", "Suspend"}:  # these are pydantic models
    getattr(durable_sqlite, name)
print(json.dumps(sorted(set(sys.modules) - before)))
"""


def test_importing_opens_nothing_and_starts_nothing() -> None:
    assert json.loads(python("-c", _CHANGES)) == []


def test_defining_steps_and_workflows_opens_nothing_and_starts_nothing() -> None:
    assert json.loads(python("-c", _DEFINITIONS)) == []


def test_importing_loads_no_edge_and_no_optional_package() -> None:
    loaded = json.loads(python("-c", _LOADED))
    edges = {"cli", "demo", "testing", "__main__"}
    assert not [name for name in loaded if name.startswith("durable_sqlite.") and name.split(".")[1] in edges]
    assert not {"argparse", "rich", "importlib.metadata", "multiprocessing"} & set(loaded)


def test_importing_loads_little_besides_pydantic_and_aiosqlite() -> None:
    # Stands for "at most twice the time of pydantic and aiosqlite": a count does not depend on the machine.
    foreign = [name for name in json.loads(python("-c", _LOADED)) if name.split(".")[0] != "durable_sqlite"]
    assert len(foreign) <= 40, foreign


def test_importing_alone_loads_no_module_of_ours() -> None:
    code = "import json, sys, durable_sqlite; print(json.dumps(sorted(sys.modules)))"
    loaded = json.loads(python("-c", code))
    assert [name for name in loaded if name.split(".")[0] == "durable_sqlite"] == ["durable_sqlite"]
    assert not {"asyncio", "dataclasses", "pydantic", "sqlite3"} & set(loaded)


def test_the_modules_of_the_package_are_found_by_their_names() -> None:
    assert python("-c", "import durable_sqlite; print(durable_sqlite.errors.UnknownRun.__name__)") == "UnknownRun\n"


def test_a_module_of_the_package_is_given_to_whoever_asks_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(durable_sqlite, "errors")  # as it is before anything has imported it
    assert durable_sqlite.errors.UnknownRun is durable_sqlite.UnknownRun

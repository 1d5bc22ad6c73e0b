"""What a test leaves behind is found: threads, tasks, descriptors, connections."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

from tests.support import leftovers
from tests.support.leftovers import Leftovers


@pytest.fixture
def watch() -> Iterator[Leftovers]:
    watch = Leftovers()
    with watch.watching():
        watch.begin()
        yield watch


def test_who_leaves_nothing_is_blamed_for_nothing(watch: Leftovers) -> None:
    async def work() -> None:
        await asyncio.gather(asyncio.to_thread(sum, (1, 2)), asyncio.sleep(0))

    asyncio.run(work())
    with closing(sqlite3.connect(":memory:")):
        pass
    assert watch.found() == []


def test_a_thread_that_goes_on_is_found(watch: Leftovers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leftovers, "_PATIENCE", 0)
    go = threading.Event()
    thread = threading.Thread(target=go.wait, name="who stays")
    thread.start()
    (found,) = watch.found()
    go.set()
    thread.join()
    assert "who stays" in found
    assert watch.found() == []


def test_a_task_that_could_go_on_is_found(watch: Leftovers) -> None:
    loop = asyncio.new_event_loop()
    task = loop.create_task(asyncio.sleep(0), name="who waits")
    found = [each for each in watch.found() if "who waits" in each]
    loop.run_until_complete(task)
    loop.close()
    assert len(found) == 1
    assert watch.found() == []


@pytest.mark.skipif(not leftovers._DESCRIPTORS.is_dir(), reason="descriptors are listed on Linux only")
def test_a_descriptor_is_found(watch: Leftovers) -> None:
    descriptor = os.open(os.devnull, os.O_RDONLY)
    (found,) = watch.found()
    os.close(descriptor)
    assert os.devnull in found


@pytest.mark.parametrize("where", [":memory:", ""])
def test_a_connection_is_found_though_it_has_no_descriptor(watch: Leftovers, where: str) -> None:
    connect: Callable[[str], sqlite3.Connection] = sqlite3.connect
    connection = connect(where)
    (found,) = watch.found()
    connection.close()
    assert "connection" in found
    assert watch.found() == []


def test_what_was_there_before_is_not_this_tests(watch: Leftovers) -> None:
    with closing(sqlite3.connect(":memory:")):
        watch.begin()
        assert watch.found() == []

"""Taking a loop apart from the one of the parent process; between real processes: `tests/behaviour/test_forks.py`."""

from __future__ import annotations

import asyncio
import os
import select
import selectors
import socket
import sys
from contextlib import closing
from typing import Any

import pytest

from durable_sqlite._fork import detach, pin


class Parent:
    """Holds what the system keeps for a loop, as the parent of a forked child does."""

    def __init__(self, loop: Any) -> None:
        self.set = select.epoll.fromfd(os.dup(loop._selector.fileno()))
        self.ear, self.mouth = loop._ssock.dup(), loop._csock.dup()

    def wakes(self) -> bool:
        """Whether a thread of the parent could still wake its loop."""
        self.mouth.send(b"\0")
        return bool(self.set.poll(0))

    def close(self) -> None:
        for one in (self.set, self.ear, self.mouth):
            one.close()


@pytest.mark.skipif(sys.platform != "linux", reason="only epoll is shared by a fork")
def test_a_loop_that_was_taken_apart_works_and_its_end_leaves_the_parent_s_awake() -> None:
    loop: Any = asyncio.new_event_loop()
    near, far = socket.socketpair()
    gone, other = socket.socketpair()
    with closing(Parent(loop)) as parent, near, far, other:
        heard: asyncio.Future[bytes] = loop.create_future()

        def hear() -> None:
            heard.set_result(near.recv(1))
            loop.remove_reader(near)

        loop.add_reader(near, hear)
        loop.add_writer(gone, lambda: None)
        gone.close()  # it is in the loop's list still, and in no set
        detach(loop)
        loop.call_soon_threadsafe(list)
        assert [key.fd for key, _ in loop._selector.select(0)] == [loop._ssock.fileno()], "it is woken"
        assert parent.set.poll(0) == [], "and nobody else"
        far.send(b"!")
        assert loop.run_until_complete(asyncio.wait_for(heard, 20)) == b"!"
        loop.close()
        assert parent.wakes()


@pytest.mark.skipif(sys.platform != "linux", reason="only epoll is shared by a fork")
def test_a_loop_whose_selector_is_its_own_is_left_as_it_is() -> None:
    loop: Any = asyncio.SelectorEventLoop(selectors.SelectSelector())
    with closing(loop):
        before = os.fstat(loop._ssock.fileno()).st_ino
        detach(loop)
        assert os.fstat(loop._ssock.fileno()).st_ino == before


def test_what_is_pinned_is_never_put_away() -> None:
    thing = object()
    before = sys.getrefcount(thing)
    pin(thing)
    assert sys.getrefcount(thing) == before + 1

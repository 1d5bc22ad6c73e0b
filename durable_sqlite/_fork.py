"""What a process that forks owes to itself and to its child."""

from __future__ import annotations

import asyncio
import ctypes
import os
import select
import selectors
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from weakref import WeakMethod

__all__ = ["at_fork", "detach", "pin"]


def at_fork(
    *,
    child: Callable[[], None],
    before: Callable[[], None] | None = None,
    parent: Callable[[], None] | None = None,
) -> None:
    """Call these methods around each fork, for as long as their object lives.

    Args:
        child: Called in the child, before anything else of ours happens there.
        before: Called in the parent before the fork, by the thread that forks.
        parent: Called there after it.
    """
    # Python keeps what is registered for ever, so it must not keep the object.
    os.register_at_fork(
        before=_weakly(before) if before is not None else _nothing,
        after_in_parent=_weakly(parent) if parent is not None else _nothing,
        after_in_child=_weakly(child),
    )


def _weakly(method: Callable[[], None]) -> Callable[[], None]:
    reference = WeakMethod(method)

    def call() -> None:
        if (alive := reference()) is not None:
            alive()

    return call


def _nothing() -> None:
    """Nobody is to be told."""


def pin(thing: object) -> None:
    """Keep an object to the end of the process, and past that of the interpreter, which would put it away in its own way.

    What a child has from its parent must not be finalized there: an SQLite connection would be closed, a coroutine would
    run its `finally`, a task would complain.
    """
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))


def detach(loop: asyncio.AbstractEventLoop) -> None:
    """In a forked child: take an event loop apart from the parent's, as far as they share what the system keeps for them.

    Both have one epoll set and one self-pipe. A child that leaves `asyncio.run` closes the loop, which takes the self-pipe
    out of the set; then no thread could wake the parent's loop any more, and all that waits for the journal there would wait
    for ever. asyncio does not guard against that, and has no public way to do it.
    """
    selector: Any = getattr(loop, "_selector", None)
    pipe: list[Any] = [getattr(loop, "_ssock", None), getattr(loop, "_csock", None)]
    if type(selector).__name__ != "EpollSelector" or not all(pipe):
        return  # no other selector of the standard library is shared
    ends = socket.socketpair(type=socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    for mine, end in zip(pipe, ends, strict=True):
        os.dup2(end.fileno(), mine.fileno(), inheritable=False)
        end.close()
    fresh = select.epoll()
    for key in selector.get_map().values():
        wanted = (key.events & selectors.EVENT_READ and select.EPOLLIN) | (
            key.events & selectors.EVENT_WRITE and select.EPOLLOUT
        )
        with suppress(OSError):  # closed meanwhile: the set of the parent has forgotten it by itself
            fresh.register(key.fd, wanted)
    os.dup2(fresh.fileno(), selector.fileno(), inheritable=False)
    fresh.close()

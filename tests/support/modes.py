"""The behavioural tests once more, with the engine used otherwise than they ask for: `pytest tests/behaviour --mode=crash`.

* `unload`: a body leaves memory whenever it waits, however long the test would keep it there.
* `two`: every engine that drives runs hands that to a second one on the same file, and only asks: whatever the one does, the
  other hears of by the file. Both live in the test's process, as the bodies and the stages that they enter do; processes of
  their own are the business of `tests/kill` and of the fleet.
* `crash`: the same, and the second engine dies as by a kill after one of its first commits, which chance decides, and is
  replaced. It dies between two steps, so that whatever a test counts stays as it was; deaths in the middle of steps are the
  business of the campaigns. An engine that a test has looked into, or that drains, is spared.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from contextvars import Context
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Literal, get_args
from unittest.mock import patch

import pytest

from durable_sqlite import Engine, EngineClosed, _session
from durable_sqlite._context import NOWHERE
from durable_sqlite._session import Session
from durable_sqlite._sqlite import SqliteJournal
from durable_sqlite._sqlite.writer import Writer

__all__ = ["MODES", "Mode", "Play", "driver_of"]

Mode = Literal["as_is", "unload", "crash", "two"]
MODES: tuple[Mode, ...] = get_args(Mode)

_SOONEST, _LATEST = 1, 12
"""After which commit of an engine it may die."""
_OFTEN = 0.002  # seconds between two looks for what another engine has written


@dataclass(slots=True)
class Play:
    """What a mode has done so far."""

    mode: Mode
    counts: Counter[str] = field(default_factory=Counter[str])
    began: float = field(default_factory=time.monotonic)

    @contextmanager
    def on(self, test: str) -> Generator[None, None, None]:
        """Play one test, of this name, in this mode."""
        match self.mode:
            case "as_is":
                yield
            case "unload":
                with _unloading():
                    yield
            case "two" | "crash":
                with tempfile.TemporaryDirectory() as folder, _in_pairs(self, Path(folder), Random(test)):
                    yield


@contextmanager
def _unloading() -> Generator[None, None, None]:
    make = Engine.__init__

    def made(self: Engine, *args: Any, **options: Any) -> None:
        make(self, *args, **options)
        self._unload_after = 0

    with patch.object(Engine, "__init__", made):
        yield


# Two engines for one -------------------------------------------------------------------------------------------------


class _Pair:
    """An engine that only asks, and the one that drives."""

    def __init__(self, play: Play, client: Engine, chance: Random) -> None:
        self._play = play
        self._client = client
        self._chance = chance
        self._known: list[Any] = []
        self._commits = 0
        self._fatal = chance.randint(_SOONEST, _LATEST) if play.mode == "crash" else 0
        self._there = asyncio.Event()
        self._closing = False
        self._dying: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()
        self.driver: Engine | None = None

    async def open(self) -> None:
        """Open the engine that drives, in a context of its own: nothing that the test does is to find it."""
        client = self._client
        driver = Engine(client._path or "", **client._given)
        vars(driver)["_is_driver"] = True
        driver._chance = client._chance
        driver._failpoint = self._failpoint
        await self._loop.create_task(driver.__aenter__())
        NOWHERE.engines.discard(driver._front)
        self.driver = driver
        self._watch(_writer_of(driver))
        for workflow in self._known:
            _session_of(driver).know(workflow)
        self._there.set()
        self._play.counts["engines"] += 1

    def know(self, workflow: Any) -> None:
        """What was started here may be driven there."""
        self._known.append(workflow)
        if self.driver is not None and self._there.is_set():
            _session_of(self.driver).know(workflow)

    async def there(self, *, spared: bool = False) -> Engine:
        """The engine that drives, once there is one; if it is spared, it does not die from now on."""
        if spared:
            self.spare()
        await self._there.wait()
        assert self.driver is not None
        return self.driver

    def inside(self) -> Session:
        """What the engine that drives has open, for a test that looks into it: from now on it is spared."""
        self.spare()
        if not self._there.is_set():
            pytest.skip("contradicts --mode=crash: it looks into an engine that has just died")
        assert self.driver is not None
        return _session_of(self.driver)

    def spare(self) -> None:
        """From now on the engine that drives does not die."""
        self._fatal = 0

    async def quiet(self) -> None:
        """Wait until both have heard of all, and nothing is left to drive."""
        while True:
            driver = await self.there()
            session = _session_of(driver)
            try:
                before = await session.journal.pulse()
                await session._hear()
                await driver.join()
                if self._client._session is not None:
                    await self._client._session._hear()
                if self._there.is_set() and driver is self.driver and before == await session.journal.pulse():
                    return
            except EngineClosed:
                if self._closing:
                    return
                if driver is self.driver and self._there.is_set():
                    raise  # else it has died meanwhile

    async def close(self) -> None:
        """Close the engine that drives."""
        self._closing = True
        if self._dying is not None:
            await asyncio.wait([self._dying])
        if self.driver is not None:
            await self.driver.close()

    async def die(self, die: Callable[[Engine], Awaitable[None]]) -> None:
        """The engine that drives dies with the one that asks."""
        self._fatal = 0
        await die(await self.there())
        self.driver = None

    def _failpoint(self, name: str) -> None:
        self._client._failpoint(name)
        if name == "commit.after":
            self._commits += 1

    def _watch(self, writer: Writer) -> None:
        """Look, whenever commits were answered, whether it is time to die: then no thread has anything in its hands."""
        answer = writer._answer

        def answered(most: int | None = None) -> None:
            answer(most)
            if self._fatal and self._commits >= self._fatal and (self._dying is None or self._dying.done()):
                # It looks when those who waited for the commits have heard; and as a stranger to what the engine is doing.
                self._dying = self._loop.create_task(self._die_between_steps(), context=Context())

        writer._answer = answered  # type: ignore[method-assign]

    async def _die_between_steps(self) -> None:
        driver = self.driver
        if driver is None or not self._fatal or driver._front.state != "open" or self._client._front.state != "open":
            return
        if _writer_of(driver).batch or _session_of(driver).worker.in_flight():
            return  # at the next commit, perhaps
        from tests.support.restarts import die_alone  # noqa: PLC0415 - it asks for pairs itself

        self._fatal = 0
        self._there.clear()
        # A process would have imported them; what is defined in a test cannot be.
        self._known = list(_session_of(driver).worker._workflows.values())
        await die_alone(driver)  # it begins here and now: no step begins meanwhile
        self._play.counts["crashes"] += 1
        await self.open()


def _session_of(engine: Engine) -> Session:
    assert engine._session is not None
    return engine._session


def _writer_of(engine: Engine) -> Writer:
    journal = _session_of(engine).journal
    assert isinstance(journal, SqliteJournal)
    assert journal._writer is not None
    return journal._writer


def driver_of(engine: Engine) -> _Pair | None:
    """The pair that stands for an engine, where there is one."""
    return vars(engine).get("_pair")


@contextmanager
def _in_pairs(play: Play, folder: Path, chance: Random) -> Generator[None, None, None]:
    enter, close = Engine.__aenter__, Engine.close
    numbers = iter(range(1_000_000))

    async def entered(self: Engine) -> Engine:
        stays = not self._drives or self._only is not None or "_is_driver" in vars(self) or self._front.state != "new"
        if stays or type(self)._make_journal is not Engine._make_journal:
            return await enter(self)
        if self._path is None:
            self._path = folder / f"{next(numbers)}.db"
        self._drives = self._front._drives = False
        await enter(self)
        pair = vars(self)["_pair"] = _Pair(play, self, chance)
        _session_of(self).know = pair.know  # type: ignore[method-assign]
        try:
            await pair.open()
        except BaseException:
            await self.close()
            raise
        return self

    async def closed(self: Engine) -> None:
        pair = driver_of(self)
        if pair is not None and self._front.state == "open":
            await pair.close()
        await close(self)

    def handed_on(name: str) -> Callable[..., Any]:
        method = getattr(Engine, name)

        async def asked(self: Engine, *args: Any, **how: Any) -> Any:
            pair = driver_of(self)
            # The engine after one that drains would not drain.
            there = self if pair is None else await pair.there(spared=name in {"drain", "serve"})
            return await method(there, *args, **how)

        return asked

    join = Engine.join

    async def joined(self: Engine) -> None:
        pair = driver_of(self)
        await (join(self) if pair is None or self._front.state != "open" else pair.quiet())

    with (
        patch.object(_session, "_LISTEN_OFTEN", _OFTEN),
        patch.object(_session, "_LISTEN_SELDOM", _OFTEN),
        patch.object(Engine, "__aenter__", entered),
        patch.object(Engine, "close", closed),
        patch.object(Engine, "join", joined),
        patch.object(Engine, "next_due", handed_on("next_due")),
        patch.object(Engine, "drain", handed_on("drain")),
        patch.object(Engine, "serve", handed_on("serve")),
        patch.object(Engine, "stats", handed_on("stats")),
    ):
        yield

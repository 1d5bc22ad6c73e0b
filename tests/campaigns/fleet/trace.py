"""The log that processes keep outside the journal, and an engine and a journal that write into it.

Every line is one write to a file that is only appended to, so the lines have one order over all processes. What is noted
inside a transaction is noted while the write lock is held: those lines stand in the order of the transactions. A line that
says `kept` is written after the commit, when the engine is told of it.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import sqlite3
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, TypeVar

from durable_sqlite import Engine, LeaseLost, current_step
from durable_sqlite._records import Answered, Claimed, Entry, FailedAttempt, Hold, RunRow, Sent, Started
from durable_sqlite._sqlite import SqliteJournal, driving
from durable_sqlite._sqlite.desk import Desk
from durable_sqlite._sqlite.vigil import Vigil
from durable_sqlite.journal import Journal

__all__ = ["LOG", "Log", "TracedEngine", "TracedJournal", "digest", "traced_release", "traced_renewal"]


T = TypeVar("T")


class Log:
    """This process's end of the log. It is there when `open` was called."""

    def __init__(self) -> None:
        self._descriptor = -1
        self._effects = Path()
        self._dwell = 0.0
        self._chance = Random()

    def open(self, path: str, dwell: float = 0.0, seed: int = 0) -> None:
        """Write to this file; steps take up to `dwell` seconds."""
        self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._effects = Path(path).with_name("effects")
        self._dwell = dwell
        self._chance = Random(seed)

    def note(self, word: str, *facts: object) -> None:
        """Append a line, in one write that no kill can undo."""
        line = " ".join([word, str(os.getpid()), *(str(fact).replace(" ", "_").replace("\n", "|") for fact in facts)])
        os.write(self._descriptor, f"{line}\n".encode())

    async def work(self) -> None:
        """What a step does: begin, and take its time."""
        self.began()
        if self._dwell:
            await asyncio.sleep(self._chance.uniform(0, self._dwell))

    def began(self) -> None:
        """Note that the body of a step begins."""
        here = current_step()
        self.note("began", here.run_id, here.key, here.attempt)

    def effect(self) -> None:
        """Have an effect in the world, that can be asked about."""
        with self._effect().open("a", encoding="utf-8") as file:
            file.write("done\n")

    def had_effect(self) -> bool:
        """Whether there was one."""
        return self._effect().exists() and self._effect().stat().st_size > 0

    def _effect(self) -> Path:
        here = current_step()
        return self._effects / f"{here.run_id}.{here.key}"


LOG = Log()
"""The log of this process: steps have no other way to it."""


def digest(payload: bytes) -> str:
    """What tells payloads apart in the log."""
    return hashlib.sha1(payload).hexdigest()[:12]


class TracedJournal(SqliteJournal):
    """Notes, in each transaction, who takes, frees and writes; and what was acknowledged."""

    _noting: Callable[[Desk, Any], None] | None = None

    def _submit(self, act: Callable[[Desk], Any], **how: Any) -> asyncio.Future[Any]:
        noting, self._noting = self._noting, None

        def traced(desk: Desk) -> Any:
            answer = act(desk)
            if noting is not None and not isinstance(answer, BaseException):
                noting(desk, answer)
            return answer

        return super()._submit(traced, **how)

    def _enrol(self, connection: sqlite3.Connection, name: str, at: int) -> int:
        number = super()._enrol(connection, name, at)
        LOG.note("enrolled", number)
        return number

    # Who holds a run -------------------------------------------------------------------------------------------------

    def start(self, *args: Any, **how: Any) -> asyncio.Future[Started]:
        caller: Hold | None = how.get("caller")

        def noting(desk: Desk, started: Started) -> None:
            if started.hold is not None:
                LOG.note("took", desk.me, started.hold.run, started.hold.epoch, started.row.id)

        self._noting = noting
        return self._by(caller, "start", partial(super().start, *args, **how))

    def claim(self, *args: Any, **how: Any) -> asyncio.Future[list[Claimed]]:
        def noting(desk: Desk, claimed: list[Claimed]) -> None:
            for one in claimed:
                LOG.note("took", desk.me, one.hold.run, one.hold.epoch, one.row.id)

        self._noting = noting
        return super().claim(*args, **how)

    def reclaim(self, hold: Hold, *args: Any, **how: Any) -> asyncio.Future[Any]:
        def noting(desk: Desk, _answer: object) -> None:
            LOG.note("wrote", desk.me, "reclaim", hold.run, hold.epoch)
            LOG.note("took", desk.me, hold.run, hold.epoch + 1, "")

        self._noting = noting
        return super().reclaim(hold, *args, **how)

    def take_over(self, dead: Sequence[int], *args: Any, **how: Any) -> asyncio.Future[list[RunRow]]:
        def noting(desk: Desk, freed: list[RunRow]) -> None:
            for row in freed:
                LOG.note("freed", row.no, row.epoch, row.id)
            for no in dead:
                if not desk.all("batch", {"me": no}):
                    LOG.note("struck", no)

        self._noting = noting
        return super().take_over(dead, *args, **how)

    # What is written under a hold ------------------------------------------------------------------------------------

    def record(self, hold: Hold, *args: Any, **how: Any) -> asyncio.Future[None]:
        write = self._under(hold, "record", partial(super().record, hold, *args, **how))
        write.add_done_callback(lambda done: _kept(hold, args[0]) if _went_well(done) else None)
        return write

    def expire(self, hold: Hold, *args: Any, **how: Any) -> asyncio.Future[bool]:
        write = self._under(hold, "expire", partial(super().expire, hold, *args, **how))
        write.add_done_callback(lambda done: _kept(hold, args[0]) if _went_well(done) and done.result() else None)
        return write

    def transact_step(self, hold: Hold, *args: Any, **how: Any) -> asyncio.Future[Any]:
        def acknowledged(done: asyncio.Future[Any]) -> None:
            if _went_well(done) and isinstance(done.result(), Entry):
                _kept(hold, done.result())

        write = self._under(hold, "transact_step", partial(super().transact_step, hold, *args, **how))
        write.add_done_callback(acknowledged)
        return write

    def fail(self, hold: Hold, *args: Any, **how: Any) -> asyncio.Future[None]:
        attempt: FailedAttempt = args[0]
        write = self._under(hold, "fail", partial(super().fail, hold, *args, **how))
        write.add_done_callback(
            lambda done: LOG.note("failed", hold.run, attempt.key, attempt.number) if _went_well(done) else None
        )
        return write

    def suspend(self, hold: Hold, *args: Any, **how: Any) -> asyncio.Future[Any]:
        return self._under(hold, "suspend", partial(super().suspend, hold, *args, **how))

    def end(self, hold: Hold, *args: Any, **how: Any) -> asyncio.Future[Any]:
        return self._under(hold, "end", partial(super().end, hold, *args, **how))

    def give_back(self, hold: Hold, *args: Any, **how: Any) -> asyncio.Future[None]:
        return self._under(hold, "give_back", partial(super().give_back, hold, *args, **how))

    def ask(self, hold: Hold, *args: Any, **how: Any) -> asyncio.Future[bool]:
        return self._under(hold, "ask", partial(super().ask, hold, *args, **how))

    def intend(self, hold: Hold, *args: Any, **how: Any) -> asyncio.Future[None]:
        return self._under(hold, "intend", partial(super().intend, hold, *args, **how))

    def signal(self, *args: Any, **how: Any) -> asyncio.Future[Any]:
        self._noting = _took_along
        return self._by(how.get("caller"), "signal", partial(super().signal, *args, **how))

    def answer(self, *args: Any, **how: Any) -> asyncio.Future[Any]:
        self._noting = _took_along
        return self._by(how.get("caller"), "answer", partial(super().answer, *args, **how))

    def _by(self, caller: Hold | None, verb: str, write: Callable[[], asyncio.Future[T]]) -> asyncio.Future[T]:
        """Something that a body asks for, or somebody outside."""
        return write() if caller is None else self._under(caller, verb, write)

    def _under(self, hold: Hold, verb: str, write: Callable[[], asyncio.Future[T]]) -> asyncio.Future[T]:
        """Something that only the owner of a run may do."""
        more = self._noting

        def noting(desk: Desk, answer: Any) -> None:
            LOG.note("wrote", desk.me, verb, hold.run, hold.epoch)
            if more is not None:
                more(desk, answer)

        self._noting = noting
        asked = write()
        asked.add_done_callback(lambda done: LOG.note("refused", verb) if _was_refused(done) else None)
        return asked


def _took_along(desk: Desk, sent: Sent | Answered) -> None:
    if sent.taken is not None:
        LOG.note("took", desk.me, sent.taken.hold.run, sent.taken.hold.epoch, sent.row.id)


def _went_well(write: asyncio.Future[Any]) -> bool:
    return not write.cancelled() and write.exception() is None


def _was_refused(write: asyncio.Future[Any]) -> bool:
    return not write.cancelled() and isinstance(write.exception(), LeaseLost)


def _kept(hold: Hold, entry: Entry) -> None:
    LOG.note("kept", hold.run, entry.key, digest(entry.payload))


class TracedEngine(Engine):
    """The engine, on a journal that notes what it does."""

    def _make_journal(self) -> Journal:
        self._sqlite = TracedJournal(self._path or ":memory:", failpoint=self._failpoint, **self._journal_options)
        return self._sqlite


def traced_release(desk: Desk, at: int) -> None:
    """`driving.release`, noted."""
    for (no,) in desk.connection.execute("SELECT no FROM durable_runs WHERE owner = ?", (desk.me,)).fetchall():
        LOG.note("released", desk.me, no)
    _release(desk, at)


_release = driving.release


def traced_renewal(vigil: Vigil, connection: sqlite3.Connection) -> bool:
    """`Vigil._renew`, noted."""
    me = vigil._me
    LOG.note("beating", me)
    renewed = _renew(vigil, connection)
    if renewed:
        LOG.note("beat", me)
    return renewed


_renew = Vigil._renew

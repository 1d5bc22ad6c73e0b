"""Keeps a worker's lease, from a thread and a connection of its own: neither a blocked event loop nor a long step loses it.

A lease is kept by a counter that moves. Each batch of the writer moves it, so this thread writes only while the writer is
silent and the worker holds runs: an idle process takes no write lock.

Where the counter cannot be moved, nothing is lost as long as nobody else has written either: whoever takes runs over has
to write. Once others have written for most of a lease without this worker, it must take its hands off its runs, since
somebody may be about to take them.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass

from .estate import Gate
from .faults import name_of

__all__ = ["Vigil", "VigilSettings", "since_boot"]

_BEATS = 5
"""How often a lease is renewed in its time."""

_TRIES = 100
"""How often in its time, once it could not be renewed: as soon as it can be again, it should be."""

_LONGEST_SILENCE = 2 / 3
"""The part of a lease after which a worker that cannot renew it lets go, before others may take its runs."""


def since_boot() -> float:
    """Seconds on a clock that never goes back and also counts while the machine sleeps, where there is one."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


@dataclass(frozen=True, slots=True)
class VigilSettings:
    """What a vigil is given. All of it is called on its thread.

    Args:
        connect: Opens and configures its connection.
        gate: Is held while the connection is at work.
        sql: The named statements.
        lease: Seconds for which a lease lasts.
        me: The number of the worker.
        commits: How many batches the writer has committed, as this worker.
        at: The time for people, in microseconds UTC.
        ticked: When the event loop last turned, likewise, or None.
        lapsed: Is told, once for each number, why the worker may no longer drive its runs.
        ended: Is told that its connection is closed.
        needed: Whether the event loop is still there: a lease for a loop that is closed would keep others from its runs.
        now: Seconds on a clock that never goes back.
    """

    connect: Callable[[], sqlite3.Connection]
    gate: Gate
    sql: Mapping[str, str]
    lease: float
    me: Callable[[], int]
    commits: Callable[[], int]
    at: Callable[[], int]
    ticked: Callable[[], int | None]
    lapsed: Callable[[str], None]
    ended: Callable[[], None]
    needed: Callable[[], bool]
    now: Callable[[], float] = since_boot


class Vigil:
    """The keeper of one worker's lease."""

    def __init__(self, settings: VigilSettings) -> None:
        self._settings = settings
        self._stop = threading.Event()
        self.thread: threading.Thread | None = None
        self._connection: sqlite3.Connection | None = None
        self._me = settings.me()
        self._commits = settings.commits()
        self._version = -1
        self._proved = settings.now()
        """When the lease was last seen to be this worker's."""
        self._looked = self._proved
        self._told = False

    def begin(self) -> None:
        """Watch until `end`, on a thread that does not hold up the end of the program."""
        self.thread = threading.Thread(target=self._watch, name="durable_sqlite lease", daemon=True)
        self.thread.start()

    def end(self) -> None:
        """Watch no longer."""
        self._stop.set()

    @property
    def is_sure(self) -> bool:
        """Whether nobody else can have taken this worker's runs yet; any thread may ask.

        A process that stood still asks before this thread has had its turn again.
        """
        if self._settings.me() != self._me:
            return True  # it has begun anew just now
        return not self._told and self._settings.now() - self._proved <= self._settings.lease * _LONGEST_SILENCE

    def _watch(self) -> None:
        with suppress(sqlite3.Error), self._settings.gate:  # else at the first turn
            self._connect()
        pause = self._settings.lease / _BEATS
        while not self._stop.wait(pause) and self._settings.needed():
            pause = self.turn()
        self.close()

    def close(self) -> None:
        """Close the connection; on the vigil's own thread."""
        with self._settings.gate:
            if self._connection is not None:
                self._connection.close()
            self._connection = self._settings.gate.connection = None
        self._settings.ended()

    def turn(self) -> float:
        """See that the lease is still this worker's, and renew it where nothing else does; seconds until the next turn."""
        now = self._settings.now()
        self._follow(now)
        pause = self._settings.lease / _BEATS
        if self._told:
            return pause
        try:
            with self._settings.gate:
                mine = self._is_mine(now)
        except sqlite3.Error as error:
            self._not_renewed(now, error)
            pause = self._settings.lease / _TRIES
        else:
            if not mine:
                self._tell("it did not renew its lease in time, and others have taken its runs over")
        self._looked = now
        return pause

    def _follow(self, now: float) -> None:
        """A worker that began anew has another number, and a new lease."""
        me = self._settings.me()
        if me != self._me:
            self._me, self._commits, self._told = me, self._settings.commits(), False
            self._proved = now

    def _is_mine(self, now: float) -> bool:
        """Whether nobody else has the lease, which is renewed if it is needed.

        Raises:
            sqlite3.Error: It could not be found out.
        """
        commits = self._settings.commits()
        moved, self._commits = commits != self._commits, commits
        connection = self._connection or self._connect()
        state = connection.execute(self._settings.sql["lease"], {"me": self._me}).fetchall()
        if not state:
            return False
        ((holds,),) = state
        if holds and not moved and not self._renew(connection):
            return False
        self._version = self._data_version(connection)
        # The writer has moved the counter at some time since the last look.
        self._proved = self._looked if holds and moved else now
        return True

    def _connect(self) -> sqlite3.Connection:
        self._connection = self._settings.gate.connection = self._settings.connect()
        return self._connection

    def _renew(self, connection: sqlite3.Connection) -> bool:
        settings = self._settings
        connection.execute("BEGIN IMMEDIATE")
        try:
            beat = {"me": self._me, "at": settings.at(), "ticked": settings.ticked()}
            renewed = connection.execute(settings.sql["beat"], beat).rowcount
            connection.execute("COMMIT")
        except BaseException:
            connection.rollback()
            raise
        return renewed == 1

    def _not_renewed(self, now: float, error: sqlite3.Error) -> None:
        if self._nobody_has_written():
            self._proved = now
        if now - self._proved > self._settings.lease * _LONGEST_SILENCE:
            self._tell(f"its lease could not be renewed for {now - self._proved:.1f} s ({name_of(error)}: {error})")

    def _nobody_has_written(self) -> bool:
        """Whether the journal is as it was when the lease was last renewed."""
        with suppress(sqlite3.Error), self._settings.gate:
            return self._connection is not None and self._data_version(self._connection) == self._version
        return False

    def _data_version(self, connection: sqlite3.Connection) -> int:
        ((version,),) = connection.execute(self._settings.sql["pulse"]).fetchall()
        return int(version)

    def _tell(self, why: str) -> None:
        self._told = True
        self._settings.lapsed(why)

"""How sure a worker may be of its lease, while the thread that keeps it has not had its turn."""

from __future__ import annotations

import sqlite3

from durable_sqlite._sqlite.estate import Gate
from durable_sqlite._sqlite.vigil import Vigil, VigilSettings


class World:
    """What a vigil sees."""

    def __init__(self) -> None:
        self.now = 0.0
        self.me = 1
        self.enrolled = True
        self.told: list[str] = []
        self.ended = 0

    def vigil(self) -> Vigil:
        return Vigil(
            VigilSettings(
                connect=self.connect,
                gate=Gate(),
                sql={"lease": "SELECT 0 WHERE enrolled()", "pulse": "SELECT 1"},
                lease=3.0,
                me=lambda: self.me,
                commits=lambda: 0,
                at=lambda: 0,
                ticked=lambda: None,
                lapsed=self.told.append,
                ended=self.end,
                needed=lambda: True,
                now=lambda: self.now,
            )
        )

    def end(self) -> None:
        self.ended += 1

    def connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(":memory:", isolation_level=None)
        connection.create_function("enrolled", 0, lambda: self.enrolled)
        return connection


def test_a_process_that_stood_still_is_not_sure_of_its_lease_until_that_was_looked_at_again() -> None:
    world = World()
    vigil = world.vigil()
    assert vigil.is_sure
    world.now = 1.9
    assert vigil.is_sure
    world.now = 60.0
    assert not vigil.is_sure
    vigil.turn()
    assert vigil.is_sure
    vigil.close()


def test_a_worker_that_was_struck_off_is_not_sure_of_anything_until_it_begins_anew() -> None:
    world = World()
    vigil = world.vigil()
    world.enrolled = False
    vigil.turn()
    assert world.told
    assert not vigil.is_sure
    world.me, world.enrolled = 2, True
    assert vigil.is_sure
    vigil.turn()
    assert vigil.is_sure
    vigil.close()


def test_a_vigil_that_never_got_a_connection_ends_all_the_same() -> None:
    world = World()
    world.vigil().close()
    assert world.ended == 1

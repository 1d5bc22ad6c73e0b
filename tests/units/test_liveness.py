"""The lock that tells the living from the dead."""

from __future__ import annotations

import fcntl
import gc
import os
import platform
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from durable_sqlite import _liveness
from durable_sqlite._liveness import Lifeline, is_dead, side_file, sweep, sweep_strays, this_start
from tests.support.house import environment


def test_a_worker_lives_as_long_as_it_holds_its_side_file(tmp_path: Path) -> None:
    path = side_file(tmp_path / "j.db", "me")
    assert path == tmp_path / "j.db-worker-me"
    lifeline = Lifeline(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert not is_dead(path)
    assert not is_dead(path)  # asking does not change the answer
    lifeline.release()
    assert not path.exists()
    assert is_dead(path)
    lifeline.release()


def test_a_worker_that_let_go_without_a_word_is_dead_and_swept_away(tmp_path: Path) -> None:
    path = tmp_path / "side"
    lifeline = Lifeline(path)
    lifeline.forget()
    lifeline.forget()
    assert path.exists()
    assert is_dead(path)
    sweep(path)
    sweep(path)
    assert not path.exists()


def test_a_side_file_that_somebody_removed_does_not_trouble_its_worker(tmp_path: Path) -> None:
    lifeline = Lifeline(tmp_path / "side")
    (tmp_path / "side").unlink()
    lifeline.release()


def test_a_lifeline_that_was_dropped_lets_go(tmp_path: Path) -> None:
    path = tmp_path / "side"
    lifeline = Lifeline(path)
    del lifeline
    gc.collect()
    assert is_dead(path)


def test_a_killed_process_is_dead_at_once(tmp_path: Path) -> None:
    path = tmp_path / "side"
    code = f"""
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from durable_sqlite._liveness import Lifeline
lifeline = Lifeline(Path({str(path)!r}))
print("held", flush=True)
sys.stdin.read()
"""
    command = [sys.executable, "-c", code]
    with subprocess.Popen(
        command, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        assert not is_dead(path)
        process.kill()
        process.wait()
        assert is_dead(path)


def test_side_files_of_nobody_are_swept_away_and_all_others_left_alone(tmp_path: Path) -> None:
    journal = tmp_path / "[j].db"
    about_to_enrol = Lifeline(side_file(journal, "alive"))
    for name in ("stray", "enrolled"):
        side_file(journal, name).touch()
    side_file(journal, "notes").write_text("of somebody")
    side_file(tmp_path / "j.db", "another").touch()
    sweep_strays(journal, ["enrolled"])
    left = {"[j].db-worker-alive", "[j].db-worker-enrolled", "[j].db-worker-notes", "j.db-worker-another"}
    assert {path.name for path in tmp_path.iterdir()} == left
    about_to_enrol.release()


def test_a_side_file_that_is_swept_away_before_it_is_locked_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal, lock = tmp_path / "j.db", fcntl.flock
    path, sweeps = side_file(journal, "me"), [True]

    def late(descriptor: int, how: int) -> None:
        if sweeps:
            sweeps.clear()
            sweep_strays(journal, [])
            assert not path.exists()
        lock(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", late)
    lifeline = Lifeline(path)
    assert not is_dead(path)
    lifeline.release()


def test_a_forked_child_neither_holds_the_lock_nor_lets_it_go(tmp_path: Path) -> None:
    path = tmp_path / "side"
    lifeline = Lifeline(path)
    dropped = Lifeline(tmp_path / "other")
    del dropped
    gc.collect()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        lifeline.release()
        os._exit(0 if path.exists() and not is_dead(path) else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert not is_dead(path)
    lifeline.release()


def test_what_a_forked_child_does_first_is_to_forget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    in_child: list[Callable[[], None]] = []

    def register(*, after_in_child: Callable[[], None]) -> None:
        in_child.append(after_in_child)

    monkeypatch.setattr(os, "register_at_fork", register)
    lifeline = Lifeline(tmp_path / "side")
    in_child[0]()
    assert is_dead(tmp_path / "side")  # here nobody else holds the open file
    del lifeline
    gc.collect()
    in_child[0]()


def test_a_machine_that_does_not_number_its_starts_is_known_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert this_start() != platform.node()
    monkeypatch.setattr(_liveness, "_BOOT_ID", tmp_path / "boot_id")
    assert this_start() == platform.node()

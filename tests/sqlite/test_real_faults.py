"""Faults that the system itself makes: a full disk, a limit for files, I/O errors in the middle of writes and syncs."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.support.house import environment

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="these faults are made by means of Linux")

PROGRAM = """
import asyncio, contextlib, logging, os, resource, subprocess, sys
from durable_sqlite import Engine, StorageStalled, step, workflow

path, how = sys.argv[1:]
go, seen = asyncio.Event(), []
size, steps = (10, 25) if how == "injected" else (50_000, 5)

class Ear(logging.Handler):
    def emit(self, record):
        seen.append(record.getMessage())

logging.getLogger("durable_sqlite.storage").addHandler(Ear())

@step
async def begin():
    await go.wait()

@step
async def work(number: int) -> str:
    return str(number) * size

@workflow
async def flow() -> int:
    await begin()
    return sum([len(await work(number % 10)) for number in range(steps)])

def squeeze():
    if how == "limit":
        most = os.stat(path + "-wal").st_size + 30_000
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))
    elif how == "full":
        with contextlib.suppress(OSError), open(path + ".ballast", "wb", buffering=0) as ballast:
            while ballast.write(bytes(4096)):
                pass

def ease():
    if how == "limit":
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    elif how == "full":
        os.unlink(path + ".ballast")

async def main():
    async with Engine(path, storage_patience=0.2 if how != "injected" else 30) as engine:
        if how == "opened":
            return
        runs = [await flow.options(id=f"run-{number}").start() for number in range(4)]
        squeeze()
        go.set()
        if how != "injected":
            while not any("storage stalled" in each for each in seen):
                await asyncio.sleep(0.001)
            try:
                await flow.options(id="late").start()
            except StorageStalled as error:
                print("told:", error)
            ease()
        print("results:", await asyncio.gather(*(run.result() for run in runs)))
        print("ended:", await engine.count(state="completed"), await engine.count(state=("failed", "parked")))
        steps = [sum(entry.name == "work" for entry in await run.history()) for run in runs]
        print("steps:", steps)
    print("stalled:", any("storage stalled" in each for each in seen))
    print("healed:", any("works again" in each for each in seen))

if how == "full":
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", os.path.dirname(path)], check=True)
asyncio.run(main())
"""


def played(path: Path, how: str, *before: str) -> dict[str, str]:
    """What the program said, word by word."""
    command = [*before, sys.executable, "-c", PROGRAM, str(path), how]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return dict(line.split(": ", 1) for line in done.stdout.splitlines())


def all_is_well(said: dict[str, str]) -> None:
    """Each run has completed, with what it would have returned anyway, and each step has one outcome."""
    assert said["results"] in (str([250] * 4), str([250_000] * 4))
    assert said["ended"] == "4 0"
    assert said["steps"] in (str([25] * 4), str([5] * 4))


@functools.cache
def may_mount() -> bool:
    if shutil.which("unshare") is None or os.geteuid() != 0:
        return False
    command = ["unshare", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@functools.cache
def may_trace() -> bool:
    if shutil.which("strace") is None:
        return False
    command = ["strace", "-f", "-o", os.devnull, "-e", "inject=fsync:error=EIO:when=1", "true"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def test_a_limit_for_the_size_of_files_is_waited_out(tmp_path: Path) -> None:
    said = played(tmp_path / "j.db", "limit")
    all_is_well(said)
    assert said["stalled"] == said["healed"] == "True"
    assert "nothing of this call was stored" in said["told"] or "nobody knows yet" in said["told"]
    assert "SQLITE_IOERR" in said["told"] or "SQLITE_FULL" in said["told"]


def test_a_full_disk_is_waited_out(tmp_path: Path) -> None:
    if not may_mount():
        pytest.skip("a small file system can only be made by root, in a mount namespace of its own")
    said = played(tmp_path / "j.db", "full", "unshare", "--mount", "--propagation", "private")
    all_is_well(said)
    assert said["stalled"] == said["healed"] == "True"
    assert "SQLITE_FULL" in said["told"]


def calls_of_the_writer(path: Path, how: str, name: str) -> int:
    """How many system calls of this name the thread makes that makes most of them."""
    log = path.with_suffix(".trace")
    played(path, how, "strace", "-f", "--seccomp-bpf", "-o", str(log), "-e", f"trace={name}")
    by_thread = Counter(line.split(" ", 1)[0] for line in log.read_text().splitlines() if f"{name}(" in line)
    return max(by_thread.values(), default=0)


_ROOM = {"fdatasync": 2, "pwrite64": 60}
"""Calls are counted anew in each thread, and so for each connection: one commit has to fit in before the first error."""


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("name", "error"), [("fdatasync", "EIO"), ("pwrite64", "EIO"), ("pwrite64", "ENOSPC"), ("pwrite64", "EROFS")]
)
def test_errors_of_the_disk_at_any_write_and_sync_lose_nothing_and_heal(tmp_path: Path, name: str, error: str) -> None:
    if not may_trace():
        pytest.skip("strace is needed, and leave to trace")
    played(tmp_path / "new.db", "opened")
    first = calls_of_the_writer(tmp_path / "new.db", "opened", name) + _ROOM[name]
    shutil.copy(tmp_path / "new.db", tmp_path / "whole.db")
    last = calls_of_the_writer(tmp_path / "whole.db", "injected", name)
    assert last > first + 8
    stalls = 0
    for number in range(6):
        path = tmp_path / f"{number}.db"
        shutil.copy(tmp_path / "new.db", path)
        begin = first + (last - first) * number // 6
        inject = f"inject={name}:error={error}:when={begin}..{begin + 3}"
        said = played(
            path, "injected", "strace", "-f", "--seccomp-bpf", "-o", os.devnull, "-e", f"trace={name}", "-e", inject
        )
        all_is_well(said)
        stalls += said["stalled"] == said["healed"] == "True"
        assert played(path, "opened") == {}
    assert stalls >= 3

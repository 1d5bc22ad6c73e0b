"""Forks while an engine is open, in programs of their own: the child is told at once, and the parent is unharmed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.house import environment

PARENT = """
import asyncio, gc, multiprocessing, os, sqlite3, subprocess, sys, threading, warnings
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor  # what is imported in a fork has hooks in it
from contextlib import closing
from pathlib import Path
from durable_sqlite import (
    Engine, JournalError, Signal, Suspend, WrongLoop, sleep, step, transaction, workflow,
)
from durable_sqlite._liveness import is_dead

warnings.simplefilter("ignore", DeprecationWarning)  # that threads and forks do not mix is the point
path = Path(sys.argv[1])

go = asyncio.Event()

@step
async def hold() -> str:
    try:
        await go.wait()
    finally:
        if os.getpid() != parent:
            print("the child runs the step's clean-up", flush=True)
    return "held"

@step
async def act(number: int) -> int:
    return number

@workflow
async def held() -> str:
    try:
        return await hold()
    finally:
        if os.getpid() != parent:
            print("the child runs the body's clean-up", flush=True)

@workflow
async def flow(number: int) -> int:
    return await act(number)

@workflow
async def naps() -> None:
    try:
        await sleep(3600)
    finally:
        if os.getpid() != parent:
            print("the child runs the body's clean-up", flush=True)

parent = os.getpid()

async def ended(child):
    '''Wait for a child without holding up the loop; its exit code.'''
    while True:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        await asyncio.sleep(0.001)

def intact():
    '''What a stranger finds in the journal: how many runs are completed.'''
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        ((count,),) = connection.execute("SELECT count(*) FROM durable_runs WHERE state = 'completed'").fetchall()
        return count

async def unharmed(engine, run):
    '''The engine goes on, nothing of it was given back, and nobody takes it for dead.'''
    side_files = [file for file in path.parent.iterdir() if file.name.startswith(f"{path.name}-worker-")]
    assert len(side_files) == 1 and not is_dead(side_files[0])
    async with asyncio.timeout(10):
        assert await asyncio.gather(*(flow.options(engine=engine)(n) for n in range(20))) == list(range(20))
        go.set()
        assert await run == "held"
    print("unharmed", flush=True)
"""


def program(source: str, path: Path, *flags: str) -> tuple[int, list[str], str]:
    """Run a program to its end: its exit code, the lines it printed, and its errors."""
    command = [sys.executable, *flags, "-c", PARENT + source, str(path)]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=30, check=False)
    return done.returncode, done.stdout.split("\n")[:-1], done.stderr


LEAVING = """
async def main():
    async with Engine(path) as engine:
        run = await held.start()
        await naps.start()
        await flow(0)
        child = os.fork()
        if child == 0:
            {leaves}
        print(await ended(child), flush=True)
        await unharmed(engine, run)

{runs}
print(intact())
"""

WAYS = {
    "os._exit": ("os._exit(3)", 3, ""),
    "sys.exit": ("sys.exit(3)", 3, ""),
    "an exception": ("1 / 0", 1, "ZeroDivisionError: division by zero"),
    "the engine dropped": ("del engine, run; gc.collect(); os._exit(3)", 3, ""),
}


@pytest.mark.parametrize("way", list(WAYS))
def test_a_forked_child_may_end_in_any_way_and_does_not_hang_and_the_parent_goes_on(tmp_path: Path, way: str) -> None:
    leaves, code, error = WAYS[way]
    source = LEAVING.format(leaves=leaves, runs="asyncio.run(main())")
    ended, lines, errors = program(source, tmp_path / "j.db")
    # asyncio cancels the child's copies of tasks, a step in flight among them; a body is no task of that loop.
    printed = [line for line in lines if "the step's clean-up" not in line]
    assert (ended, printed) == (0, [str(code), "unharmed", "22"]), errors
    assert errors.strip().split("\n")[-1] == error


@pytest.mark.parametrize("flags", [(), ("-W", "always::ResourceWarning")], ids=["plainly", "strictly"])
def test_a_child_of_the_main_thread_that_comes_to_its_end_as_ever_is_silent(
    tmp_path: Path, flags: tuple[str, ...]
) -> None:
    source = """
opened, forked = threading.Event(), threading.Event()

async def main():
    async with Engine(path) as engine:
        run = await held.start()
        await naps.start()
        await flow(0)
        opened.set()
        await asyncio.to_thread(forked.wait)
        await unharmed(engine, run)

thread = threading.Thread(target=asyncio.run, args=(main(),))
thread.start()
opened.wait()
child = os.fork()
if child:
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
    forked.set()
    thread.join()
    print(intact())
"""
    assert program(source, tmp_path / "j.db", *flags) == (0, ["0", "unharmed", "22"], "")


USES = """
class ForkedPaid(Signal):
    number: int

class ForkedReview(Suspend[bool]):
    what: str

@transaction
def book(tx) -> None: ...

async def first(things):
    async for thing in things:
        return thing

async def told(use):
    try:
        found = use()
        if asyncio.iscoroutine(found) or isinstance(found, asyncio.Future):
            await found
        elif hasattr(found, "__aiter__"):
            await first(found)
        elif hasattr(found, "__await__"):
            await found
        return "nothing"
    except WrongLoop as error:
        return "" if "forked" in str(error) else str(error)
    except BaseException as error:
        return repr(error)

async def main():
    async with Engine(path) as engine:
        run = await held.start()
        letter_of = engine._letter
        letter = letter_of(await engine._front.row(run.id))
        watching = run.watch()
        await anext(watching)
        child = os.fork()
        if child == 0:
            uses = {
                "engine.join": engine.join, "engine.drain": engine.drain, "engine.serve": engine.serve,
                "engine.close": engine.close, "engine.count": engine.count, "engine.runs": engine.runs,
                "engine.questions": engine.questions, "engine.watch": engine.watch,
                "engine.dead_letters": engine.dead_letters, "engine.redrive": engine.redrive,
                "engine.resume": lambda: engine.resume(run.id), "engine.connect": engine.connect,
                "engine.backup": lambda: engine.backup(f"{path}.copy"), "engine.prune": lambda: engine.prune(0),
                "engine.stats": engine.stats, "engine.verify": engine.verify,
                "engine.next_due": engine.next_due,
                "engine.transact": lambda: engine.transact(lambda tx: None),
                "engine.transact of a transaction": lambda: engine.transact(book),
                "run.result": run.result, "await run": lambda: run, "run.info": run.info, "run.history": run.history,
                "run.messages": run.messages, "run.questions": run.questions, "run.watch": run.watch,
                "a watch under way": lambda: watching,
                "run.signal": lambda: run.signal(ForkedPaid(number=1)),
                "run.answer": lambda: run.answer(ForkedReview, True),
                "run.cancel": run.cancel, "run.terminate": run.terminate, "run.pause": run.pause,
                "run.resume": run.resume, "run.discard": run.discard, "run.settle": lambda: run.settle("act#1", 1),
                "letter.redrive": letter.redrive, "letter.discard": letter.discard,
                "workflow.start": lambda: flow.start(1), "a workflow": lambda: flow(1),
                "workflow.signal_with_start": lambda: flow.options(id="x").signal_with_start(ForkedPaid(number=1), 1),
                "a handle by id": lambda: flow.run(run.id).info(),
            }
            names = {name for name in dir(engine) if not name.startswith("_")} - {"host", "run", "path", "codec", "anew"}
            assert {f"engine.{name}" for name in names} <= set(uses), names
            names = {name for name in dir(run) if not name.startswith("_")} - {"id", "created"}
            assert {f"run.{name}" for name in names} <= set(uses), names
            for name, use in uses.items():
                if said := await told(use):
                    print(name, said, flush=True)
            os._exit(3)
        print(await ended(child), flush=True)
        await unharmed(engine, run)

asyncio.run(main())
print(intact())
"""


def test_every_use_of_an_engine_and_of_its_runs_is_refused_in_a_forked_child(tmp_path: Path) -> None:
    assert program(USES, tmp_path / "j.db") == (0, ["3", "unharmed", "21"], "")


WORKERS = """
def works(ear, mouth):
    async def main():
        async with Engine(path) as engine:
            mouth.send(await flow(-1))
            ear.recv()  # the parent has closed its engine by now
            mouth.send(await flow(-2))
    asyncio.run(main())

async def main():
    context = multiprocessing.get_context("fork")
    (ear, to_child), (from_child, mouth) = context.Pipe(False), context.Pipe(False)
    async with Engine(path) as engine:
        run = await held.start()
        await flow(0)
        with closing(engine.connect()) as connection:  # SQLite keeps its descriptor for the next one
            assert connection.execute("SELECT 1").fetchall() == [(1,)]
        child = context.Process(target=works, args=(ear, mouth))
        child.start()
        assert await asyncio.to_thread(from_child.recv) == -1
        go.set()
        assert await run == "held"
        assert await asyncio.gather(*(flow(n) for n in range(20))) == list(range(20))
    to_child.send("closed")
    assert await asyncio.to_thread(from_child.recv) == -2
    await asyncio.to_thread(child.join, 10)
    print(child.exitcode, flush=True)

asyncio.run(main())
print(intact())
"""


def test_a_child_may_open_the_same_journal_and_nothing_is_lost_whoever_closes_first(tmp_path: Path) -> None:
    assert program(WORKERS, tmp_path / "j.db") == (0, ["0", "24"], "")


REFUSED = """
def opens(mouth):
    async def main():
        try:
            async with Engine(path) as engine:
                mouth.send(str(await flow(-1)))
        except JournalError as error:
            mouth.send(str(error))
    asyncio.run(main())

def forks(tx=None):
    ear, mouth = os.pipe()
    ears, mouths = multiprocessing.Pipe(False)
    child = os.fork()
    if child == 0:
        {first}
        opens(mouths)
        os._exit(0)
    return child, ears

async def main():
    async with Engine(path) as engine:
        run = await held.start()
        await flow(0)
        {how}
        print(await asyncio.to_thread(ears.recv), flush=True)
        await ended(child)
        {after}
        go.set()
        assert await run == "held"
        assert await flow(5) == 5

asyncio.run(main())
print(intact())
"""


@pytest.mark.parametrize(
    "how",
    [
        "child, ears = await engine.transact(forks)",
        "connection = engine.connect(); child, ears = forks(); connection.close()",
    ],
    ids=["in a transaction", "in use by the application"],
)
def test_a_child_that_has_inherited_what_cannot_be_put_right_is_refused_the_journal(tmp_path: Path, how: str) -> None:
    code, lines, errors = program(REFUSED.format(how=how, first="", after=""), tmp_path / "j.db")
    assert (code, lines[1:]) == (0, ["3"]), errors
    assert "was open in the process that this one was forked from" in lines[0]


def test_what_was_lent_and_closed_before_the_fork_is_in_nobody_s_way(tmp_path: Path) -> None:
    how = "engine.connect().close(); connection = engine.connect(); connection.close(); child, ears = forks()"
    assert program(REFUSED.format(how=how, first="", after=""), tmp_path / "j.db") == (0, ["-1", "4"], "")


def test_a_child_that_opens_the_journal_after_its_parent_has_closed_it_is_refused(tmp_path: Path) -> None:
    source = """
async def main():
    ears, mouths = multiprocessing.Pipe(False)
    ready, tell = multiprocessing.Pipe(False)
    async with Engine(path) as engine:
        await flow(0)
        child = os.fork()
        if child == 0:
            ready.recv()
            async def opens():
                try:
                    async with Engine(path) as engine:
                        mouths.send(str(await flow(-1)))
                except JournalError as error:
                    mouths.send(str(error))
            asyncio.run(opens())
            os._exit(0)
    async with Engine(path) as engine:  # other files for the WAL and its index
        await flow(1)
        tell.send("closed")
        print(await asyncio.to_thread(ears.recv), flush=True)
        await ended(child)
        await flow(2)

asyncio.run(main())
print(intact())
"""
    code, lines, errors = program(source, tmp_path / "j.db")
    assert (code, lines[1:]) == (0, ["3"]), errors
    assert "was closed or replaced since" in lines[0]


POOLS = """
def square(number):
    return number * number

context = multiprocessing.get_context("fork")
pool = ProcessPoolExecutor(2, mp_context=context)

async def nine():
    child = context.Process(target=sys.exit, args=(9,))
    child.start()
    await asyncio.to_thread(child.join, 10)
    return child.exitcode

async def main():
    async with Engine(path) as engine:
        run = await held.start()
        await flow(0)
        {work}
        await unharmed(engine, run)

asyncio.run(main())
pool.shutdown()
print(intact())
"""


@pytest.mark.parametrize(
    "work",
    [
        "print(await asyncio.wait_for(asyncio.wrap_future(pool.submit(square, 3)), 10))",
        "with context.Pool(2) as workers: print(sum(await asyncio.to_thread(workers.map, square, [0, 3])))",
        "print(await nine())",
    ],
    ids=["ProcessPoolExecutor", "Pool", "Process"],
)
def test_processes_of_multiprocessing_that_do_not_touch_the_engine_work(tmp_path: Path, work: str) -> None:
    assert program(POOLS.format(work=work), tmp_path / "j.db") == (0, ["9", "unharmed", "22"], "")


STEP_IN_POOL = """
import asyncio, multiprocessing, sys
from concurrent.futures import ProcessPoolExecutor
from durable_sqlite import Engine, step, workflow

pool = ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("fork"))

def square(number: int) -> int:
    return number * number

compute = step(executor=pool)(square)

@workflow
async def squares() -> list[int]:
    return list(await asyncio.gather(*(compute(n) for n in range(8))))

async def main():
    async with Engine(sys.argv[1]):
        print(await asyncio.wait_for(squares(), 10))

if __name__ == "__main__":
    import warnings
    warnings.simplefilter("ignore", DeprecationWarning)
    asyncio.run(main())
    pool.shutdown()
"""


def test_a_step_may_run_in_forked_processes_while_its_engine_is_open(tmp_path: Path) -> None:
    script = tmp_path / "pooled.py"
    script.write_text(STEP_IN_POOL)
    command = [sys.executable, str(script), str(tmp_path / "j.db")]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stdout) == (0, "[0, 1, 4, 9, 16, 25, 36, 49]\n"), done.stderr


def test_a_program_that_is_started_inherits_no_descriptor_of_the_journal(tmp_path: Path) -> None:
    source = """
LOOK = '''
import os
names = []
for number in os.listdir("/proc/self/fd"):
    try:
        names.append(os.readlink(f"/proc/self/fd/{number}"))
    except FileNotFoundError:
        pass  # that of the listing itself
print([name for name in names if "j.db" in name])
'''

async def main():
    async with Engine(path) as engine:
        run = await held.start()
        for before in (None, lambda: None):
            command = [sys.executable, "-c", LOOK]
            done = subprocess.run(command, capture_output=True, text=True, close_fds=False, preexec_fn=before)
            print(done.stdout.strip(), done.stderr, flush=True)
        await unharmed(engine, run)

asyncio.run(main())
"""
    assert program(source, tmp_path / "j.db") == (0, ["[] ", "[] ", "unharmed"], "")


def test_forks_from_several_threads_in_the_middle_of_writes_hold_up_nobody(tmp_path: Path) -> None:
    source = """
def forks():
    for _ in range(10):
        child = os.fork()
        if child == 0:
            os._exit(0)
        os.waitpid(child, 0)

async def main():
    async with Engine(path) as engine, Engine(path.with_name("other.db")) as other:
        run = await held.options(engine=engine).start()
        forking = [asyncio.to_thread(forks) for _ in range(3)]
        working = [flow.options(engine=each)(n) for each in (engine, other) for n in range(100)]
        async with asyncio.timeout(20):
            await asyncio.gather(*forking, *working)
        await unharmed(engine, run)

asyncio.run(main())
print(intact())
"""
    assert program(source, tmp_path / "j.db") == (0, ["unharmed", "121"], "")


def test_a_child_of_a_child_is_told_as_well(tmp_path: Path) -> None:
    source = """
async def middle():
    async with Engine(path) as engine:
        await flow(-1)
        child = os.fork()
        if child == 0:
            try:
                await engine.count()
            except WrongLoop:
                async def last():
                    async with Engine(path):
                        await flow(-2)
                asyncio.run(last())
                os._exit(4)
            os._exit(1)
        assert await ended(child) == 4
        await flow(-3)

async def main():
    async with Engine(path) as engine:
        run = await held.start()
        await flow(0)
        child = os.fork()
        if child == 0:
            asyncio.run(middle())
            os._exit(3)
        print(await ended(child), flush=True)
        await unharmed(engine, run)

asyncio.run(main())
print(intact())
"""
    assert program(source, tmp_path / "j.db") == (0, ["3", "unharmed", "25"], "")

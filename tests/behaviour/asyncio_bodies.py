"""Small bodies that use asyncio, one for each row of the tables in docs/asyncio.md.

`fetch` is a step, and `visit` a coroutine of the body that calls `fetch` once. What a body sees is noted in its scene.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Any, Protocol

from durable_sqlite import NotDurable, StepFailed, current_run

__all__ = ["SAMPLES", "Fetch", "Sample", "Scene"]

_LONG = 100.0  # seconds that a step takes for whose end nobody waits


class Fetch(Protocol):
    """The step. It takes a while and gives back its name; what is called "bad" fails."""

    def __call__(self, name: str, seconds: float = 1.0) -> Coroutine[Any, Any, str]:
        """Fix the key of this call."""
        ...


class Scene:
    """What one pass of a body can call, and what it has seen."""

    def __init__(self, fetch: Fetch) -> None:
        self.fetch = fetch
        self.seen: list[str] = []
        self._body = current_run()

    def note(self, what: object) -> None:
        """The body sees something."""
        if not self._body.unloading:
            self.seen.append(str(what))

    async def visit(self, name: str, seconds: float = 1.0) -> str:
        """Call the step once, and note what becomes of it."""
        self.note(f"to {name}")
        try:
            found = await self.fetch(name, seconds)
        except BaseException as error:
            self.note(f"{name}: {type(error).__name__}")
            raise
        self.note(f"from {name}")
        return found

    def visits(self, **seconds: float) -> list[asyncio.Task[str]]:
        """Branches, each of which visits one place."""
        return [asyncio.create_task(self.visit(name, long)) for name, long in seconds.items()]

    async def leave(self, *tasks: asyncio.Task[str]) -> None:
        """Cancel branches, and wait until they have ended."""
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


Play = Callable[[Scene], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Sample:
    """A row of the tables, and the body that holds it to its word."""

    row: str
    """The first cell."""
    records: tuple[str, ...]
    """Key and kind of each entry, in the order of the run."""
    gives_up: tuple[str, ...]
    """Keys of the steps that begin and whose outcome is nobody's."""
    gives: Any
    """The run's result; for one that has none, the name of what waiting for it raises."""
    play: Play
    cancel_after: float | None
    """Seconds after which a client asks the run to end."""


SAMPLES: list[Sample] = []


def sample(
    row: str, *records: str, gives: Any, gives_up: tuple[str, ...] = (), cancel_after: float | None = None
) -> Callable[[Play], Play]:
    """Hold a row to its word by this body."""

    def keep(play: Play) -> Play:
        SAMPLES.append(Sample(row, records, gives_up, gives, play, cancel_after))
        return play

    return keep


def numbers(tasks: list[asyncio.Task[str]], some: set[asyncio.Task[str]]) -> list[int]:
    """The numbers of some of these tasks, in the order in which the set is walked."""
    return [tasks.index(task) for task in some]


# Time ----------------------------------------------------------------------------------------------------------------


@sample("`asyncio.sleep(5)`", "asyncio.sleep#1 timer", gives="five")
async def sleeps(_scene: Scene) -> Any:
    return await asyncio.sleep(5, "five")


@sample("`asyncio.sleep(0)`", gives=["a", "b", "a", "b"])
async def gives_way(_scene: Scene) -> Any:
    turns: list[str] = []

    async def take_turns(name: str) -> None:
        for _ in range(2):
            turns.append(name)
            await asyncio.sleep(0)

    await asyncio.gather(take_turns("a"), take_turns("b"))
    return turns


@sample("`asyncio.timeout(5)`, in time", "fetch#1 step", gives=["quick", False])
async def is_in_time(scene: Scene) -> Any:
    async with asyncio.timeout(5) as limit:
        found = await scene.visit("quick")
    return [found, limit.expired()]


@sample("`asyncio.timeout(5)`, too late", "asyncio.timeout#1 timer", gives_up=("fetch#1",), gives="too late")
async def is_too_late(scene: Scene) -> Any:
    try:
        async with asyncio.timeout(5):
            return await scene.visit("slow", _LONG)
    except TimeoutError:
        return "too late"


@sample("`asyncio.timeout(0)`", gives="too late")
async def is_too_late_at_once(scene: Scene) -> Any:
    try:
        async with asyncio.timeout(0):
            return await scene.visit("never")
    except TimeoutError:
        return "too late"


@sample("`asyncio.timeout_at(when)`, too late", "asyncio.timeout#1 timer", gives_up=("fetch#1",), gives="too late")
async def is_too_late_for_a_moment(scene: Scene) -> Any:
    try:
        async with asyncio.timeout_at(asyncio.get_running_loop().time() + 5):
            return await scene.visit("slow", _LONG)
    except TimeoutError:
        return "too late"


@sample("`limit.reschedule(when)`, too late", "asyncio.timeout#2 timer", gives_up=("fetch#1",), gives="too late")
async def gets_more_time(scene: Scene) -> Any:
    try:
        async with asyncio.timeout(5) as limit:
            limit.reschedule(asyncio.get_running_loop().time() + 10)
            return await scene.visit("slow", _LONG)
    except TimeoutError:
        return "too late"


@sample("`asyncio.wait_for(visit(), 5)`, in time", "fetch#1 step", gives="quick")
async def is_waited_for(scene: Scene) -> Any:
    return await asyncio.wait_for(scene.visit("quick"), 5)


@sample("`asyncio.wait_for(visit(), 5)`, too late", "asyncio.timeout#1 timer", gives_up=("fetch#1",), gives="too late")
async def is_waited_for_in_vain(scene: Scene) -> Any:
    try:
        return await asyncio.wait_for(scene.visit("slow", _LONG), 5)
    except TimeoutError:
        return "too late"


@sample("`loop.call_later(5, …)`", "asyncio.timeout#1 timer", gives=True)
async def is_called_later(scene: Scene) -> Any:
    loop = asyncio.get_running_loop()
    called = asyncio.Event()
    loop.call_later(5, called.set)
    loop.call_later(4, scene.note, "called off").cancel()
    return await called.wait()


@sample("`loop.call_soon(…)`", gives=True)
async def is_called_soon(_scene: Scene) -> Any:
    called = asyncio.Event()
    asyncio.get_running_loop().call_soon(called.set)
    return await called.wait()


@sample("`loop.time()`, around `asyncio.sleep(5)`", "asyncio.sleep#1 timer", gives=[0.0, 5.0])
async def looks_at_the_time(_scene: Scene) -> Any:
    loop = asyncio.get_running_loop()
    begin = loop.time()
    before = loop.time() - begin
    await asyncio.sleep(5)
    return [before, round(loop.time() - begin, 3)]


# Several at once -----------------------------------------------------------------------------------------------------


@sample("`asyncio.gather(fetch(), fetch())`", "fetch#2 step", "fetch#1 step", gives=["slow", "quick"])
async def gathers_calls(scene: Scene) -> Any:
    return await asyncio.gather(scene.fetch("slow", 2), scene.fetch("quick"))


@sample("`asyncio.gather(visit(), visit())`", "1/fetch#1 step", "0/fetch#1 step", gives=["slow", "quick"])
async def gathers_branches(scene: Scene) -> Any:
    return await asyncio.gather(scene.visit("slow", 2), scene.visit("quick"))


@sample("`asyncio.gather(…)`, one fails", "1/fetch#1 step", "0/fetch#1 step", gives=["1/fetch#1", "slow"])
async def gathers_a_failure(scene: Scene) -> Any:
    tasks = scene.visits(slow=2, bad=1)
    failed = ""
    try:
        await asyncio.gather(*tasks)
    except StepFailed as error:
        failed = error.key
    return [failed, await tasks[0]]


@sample("`asyncio.gather(…, return_exceptions=True)`", "1/fetch#1 step", "0/fetch#1 step", gives=["slow", "StepFailed"])
async def gathers_errors(scene: Scene) -> Any:
    slow, bad = await asyncio.gather(*scene.visits(slow=2, bad=1), return_exceptions=True)
    return [slow, type(bad).__name__]


@sample("`asyncio.TaskGroup()`", "1/fetch#1 step", "0/fetch#1 step", gives=["slow", "quick"])
async def groups(scene: Scene) -> Any:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(scene.visit("slow", 2)), group.create_task(scene.visit("quick"))]
    return [task.result() for task in tasks]


@sample(
    "`asyncio.TaskGroup()`, one fails",
    "1/fetch#1 step",
    gives_up=("0/fetch#1", "2/fetch#1"),
    gives=["1/fetch#1"],
)
async def groups_a_failure(scene: Scene) -> Any:
    failures: list[str] = []
    try:
        async with asyncio.TaskGroup() as group:
            for name, seconds in (("slow", _LONG), ("bad", 1), ("slower", _LONG)):
                group.create_task(scene.visit(name, seconds))
    except* StepFailed as group_of_errors:
        failures += [error.key for error in group_of_errors.exceptions if isinstance(error, StepFailed)]
    return failures


@sample("`asyncio.wait(tasks)`", "1/fetch#1 step", "0/fetch#1 step", gives=[[0, 1], []])
async def waits_for_all(scene: Scene) -> Any:
    tasks = scene.visits(slow=2, quick=1)
    done, pending = await asyncio.wait(tasks)
    return [numbers(tasks, done), numbers(tasks, pending)]


@sample(
    "`asyncio.wait(…, return_when=FIRST_COMPLETED)`",
    "1/fetch#1 step",
    gives_up=("0/fetch#1", "2/fetch#1"),
    gives=[[1], [0, 2]],
)
async def waits_for_the_first(scene: Scene) -> Any:
    tasks = scene.visits(slow=_LONG, quick=1, slower=_LONG)
    done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    await scene.leave(*pending)
    return [numbers(tasks, done), numbers(tasks, pending)]


@sample(
    "`asyncio.wait(…, return_when=FIRST_EXCEPTION)`",
    "1/fetch#1 step",
    "2/fetch#1 step",
    gives_up=("0/fetch#1",),
    gives=[[1, 2], [0]],
)
async def waits_for_a_failure(scene: Scene) -> Any:
    tasks = scene.visits(slow=_LONG, quick=1, bad=2)
    done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    await scene.leave(*pending)
    return [numbers(tasks, done), numbers(tasks, pending)]


@sample("`asyncio.wait(…, timeout=5)`, in time", "1/fetch#1 step", "0/fetch#1 step", gives=[[0, 1], []])
async def waits_for_all_in_time(scene: Scene) -> Any:
    tasks = scene.visits(slow=2, quick=1)
    done, pending = await asyncio.wait(tasks, timeout=5)
    return [numbers(tasks, done), numbers(tasks, pending)]


@sample(
    "`asyncio.wait(…, timeout=5)`, too late",
    "1/fetch#1 step",
    "asyncio.timeout#1 timer",
    gives_up=("0/fetch#1",),
    gives=[[1], [0]],
)
async def waits_for_some(scene: Scene) -> Any:
    tasks = scene.visits(slow=_LONG, quick=1)
    done, pending = await asyncio.wait(tasks, timeout=5)
    await scene.leave(*pending)
    return [numbers(tasks, done), numbers(tasks, pending)]


@sample(
    "`asyncio.as_completed(tasks)`",
    "2/fetch#1 step",
    "1/fetch#1 step",
    "0/fetch#1 step",
    gives=["quick", "middling", "slow"],
)
async def takes_as_completed(scene: Scene) -> Any:
    completed: Any = asyncio.as_completed(scene.visits(slow=3, middling=2, quick=1))
    if hasattr(completed, "__aiter__"):  # from Python 3.13
        return [await task async for task in completed]
    return [await task for task in completed]


@sample(
    "`asyncio.as_completed(tasks, timeout=5)`, too late",
    "1/fetch#1 step",
    "asyncio.timeout#1 timer",
    gives_up=("0/fetch#1",),
    gives=["quick"],
)
async def takes_as_completed_in_time(scene: Scene) -> Any:
    tasks = scene.visits(slow=_LONG, quick=1)
    found: list[str] = []
    with suppress(TimeoutError):
        for task in asyncio.as_completed(tasks, timeout=5):
            found.append(await task)  # noqa: PERF401 - what was found before the timeout counts
    await scene.leave(tasks[0])
    return found


@sample("`asyncio.as_completed([fetch(), fetch()])`", "fetch#2 step", "fetch#1 step", gives=["quick", "slow"])
async def takes_calls_as_completed(scene: Scene) -> Any:
    calls = [scene.fetch("slow", 2), scene.fetch("quick")]
    return [await call for call in asyncio.as_completed(calls)]


@sample("`asyncio.shield(task)`", "asyncio.timeout#1 timer", "0/fetch#1 step", gives=["too late", "slow"])
async def shields(scene: Scene) -> Any:
    task = asyncio.create_task(scene.visit("slow", 8))
    told = ""
    try:
        async with asyncio.timeout(5):
            await asyncio.shield(task)
    except TimeoutError:
        told = "too late"
    return [told, await task]


@sample(
    "`asyncio.timeout(5)`, around a `TaskGroup()` that failed",
    "0/fetch#1 step",
    "asyncio.timeout#1 timer",
    gives_up=("fetch#1",),
    gives="TimeoutError" if sys.version_info >= (3, 13) else "CancelledError",
)
async def groups_in_a_time_limit(scene: Scene) -> Any:
    try:
        async with asyncio.timeout(5):
            with suppress(ExceptionGroup):
                async with asyncio.TaskGroup() as group:
                    group.create_task(scene.visit("bad"))
            return await scene.visit("slow", _LONG)
    except (TimeoutError, asyncio.CancelledError) as error:
        return type(error).__name__


# Between branches ----------------------------------------------------------------------------------------------------


@sample(
    "`asyncio.Queue`",
    "1/fetch#1 step",
    "2/fetch#1 step",
    "0/fetch#1 step",
    "2/fetch#2 step",
    gives=["quick", "slow"],
)
async def hands_over_in_a_queue(scene: Scene) -> Any:
    queue: asyncio.Queue[str] = asyncio.Queue(1)

    async def bring(name: str, seconds: float) -> None:
        await queue.put(await scene.visit(name, seconds))

    async def take() -> list[str]:
        return [await scene.visit(await queue.get(), 0.5) for _ in range(2)]

    return (await asyncio.gather(bring("slow", 4), bring("quick", 1), take()))[2]


@sample("`asyncio.Event`", "1/fetch#1 step", "0/fetch#1 step", gives=["after", None])
async def hands_over_by_an_event(scene: Scene) -> Any:
    event = asyncio.Event()

    async def wait() -> str:
        await event.wait()
        return await scene.visit("after")

    async def tell() -> None:
        await scene.visit("before")
        event.set()

    return await asyncio.gather(wait(), tell())


@sample(
    "`asyncio.Condition`",
    "fetch#1 step",
    "0/fetch#1 step",
    "fetch#2 step",
    "1/fetch#1 step",
    gives=["first", "second"],
)
async def hands_over_by_a_condition(scene: Scene) -> Any:
    condition = asyncio.Condition()

    async def wait(name: str) -> str:
        async with condition:
            await condition.wait()
        return await scene.visit(name)

    tasks = [asyncio.create_task(wait(name)) for name in ("first", "second")]
    for name in ("one", "two"):
        await scene.visit(name, 4)
        async with condition:
            condition.notify()
    return await asyncio.gather(*tasks)


@sample(
    "`asyncio.Semaphore`",
    "1/fetch#1 step",
    "2/fetch#1 step",
    "0/fetch#1 step",
    gives=["slow", "quick", "later"],
)
async def takes_turns_at_a_semaphore(scene: Scene) -> Any:
    semaphore = asyncio.Semaphore(2)

    async def enter(name: str, seconds: float) -> str:
        async with semaphore:
            return await scene.visit(name, seconds)

    return await asyncio.gather(enter("slow", 4), enter("quick", 1), enter("later", 1))


@sample("`asyncio.Lock`", "0/fetch#1 step", "1/fetch#1 step", gives=["slow", "quick"])
async def takes_turns_at_a_lock(scene: Scene) -> Any:
    lock = asyncio.Lock()

    async def enter(name: str, seconds: float) -> str:
        async with lock:
            return await scene.visit(name, seconds)

    return await asyncio.gather(enter("slow", 2), enter("quick", 1))


@sample("`asyncio.Barrier`", "1/fetch#1 step", "0/fetch#1 step", gives=[1, 0])
async def meets_at_a_barrier(scene: Scene) -> Any:
    barrier = asyncio.Barrier(2)

    async def come(name: str, seconds: float) -> int:
        await scene.visit(name, seconds)
        return await barrier.wait()

    return await asyncio.gather(come("slow", 2), come("quick", 1))


@sample("`loop.create_future()`", "fetch#1 step", "0/fetch#1 step", gives=["quick", "after"])
async def hands_over_in_a_future(scene: Scene) -> Any:
    future: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def wait() -> list[str]:
        return [await future, await scene.visit("after")]

    task = asyncio.create_task(wait())
    future.set_result(await scene.visit("quick"))
    return await task


# Tasks and their ends ------------------------------------------------------------------------------------------------


@sample(
    "`asyncio.create_task(visit())`, `cancel()` after `fetch()`",
    "fetch#1 step",
    gives_up=("0/fetch#1",),
    gives=True,
)
async def cancels_a_task(scene: Scene) -> Any:
    (task,) = scene.visits(slow=_LONG)
    await scene.visit("quick")
    await scene.leave(task)
    return task.cancelled()


@sample("`asyncio.create_task(visit())`, `cancel()` at once", gives=True)
async def cancels_a_task_that_has_not_begun(scene: Scene) -> Any:
    (task,) = scene.visits(never=1)
    await scene.leave(task)
    return task.cancelled()


@sample("`task.add_done_callback(…)`", "1/fetch#1 step", "0/fetch#1 step", gives=["quick", "slow"])
async def hears_of_the_end(scene: Scene) -> Any:
    told: list[str] = []
    tasks = scene.visits(slow=2, quick=1)
    for task in tasks:
        task.add_done_callback(lambda done: told.append(done.result()))
    await asyncio.wait(tasks)
    return told


@sample(
    "`except asyncio.CancelledError`, the run is cancelled",
    "fetch#1 step",
    "~cancel cancel",
    "fetch#3 step",
    gives_up=("fetch#2",),
    gives="RunCancelled",
    cancel_after=3,
)
async def is_cancelled(scene: Scene) -> Any:
    await scene.visit("quick")
    try:
        return await scene.visit("slow", _LONG)
    except asyncio.CancelledError:
        await scene.visit("clean up")
        raise


@sample(
    "`asyncio.current_task().uncancel()`, the run is cancelled",
    "fetch#1 step",
    "~cancel cancel",
    "fetch#3 step",
    gives_up=("fetch#2",),
    gives=[0, "go on"],
    cancel_after=3,
)
async def goes_on(scene: Scene) -> Any:
    await scene.visit("quick")
    try:
        return await scene.visit("slow", _LONG)
    except asyncio.CancelledError:
        task = asyncio.current_task()
        assert task is not None
        return [task.uncancel(), await scene.visit("go on")]


async def places(scene: Scene) -> AsyncGenerator[str, None]:
    """Fetch one place after the other, and something at the end."""
    try:
        for name in ("one", "two"):
            yield await scene.visit(name)
    finally:
        await scene.visit("end")


@sample("an async generator, read to its end", "fetch#1 step", "fetch#2 step", "fetch#3 step", gives=["one", "two"])
async def reads_a_generator(scene: Scene) -> Any:
    return [place async for place in places(scene)]


@sample("an async generator, in `aclosing(…)`", "fetch#1 step", "fetch#2 step", "fetch#3 step", gives=["one", "after"])
async def closes_a_generator(scene: Scene) -> Any:
    async with aclosing(places(scene)) as generator:
        first = await anext(generator)
    return [first, await scene.visit("after")]


@sample("an async generator, left open", "fetch#1 step", "fetch#2 step", "~g/fetch#1 step", gives=["one", "after"])
async def leaves_a_generator(scene: Scene) -> Any:
    first = ""
    async for place in places(scene):
        first = place
        break
    return [first, await scene.visit("after")]


# Refused -------------------------------------------------------------------------------------------------------------


def refused(row: str, *records: str, gives: str = "NotDurable") -> Callable[[Play], Play]:
    """Hold a row to its word that this is refused."""

    def keep(play: Play) -> Play:
        async def handles(scene: Scene) -> Any:
            try:
                await play(scene)
            except (NotDurable, RuntimeError) as refusal:
                scene.note(refusal)
                return type(refusal).__name__

        sample(row, *records, gives=gives)(handles)
        return play

    return keep


@refused("`asyncio.as_completed([visit(), visit()])`")
async def takes_coroutines_as_completed(scene: Scene) -> Any:
    visits = [scene.visit("slow", 2), scene.visit("quick")]
    try:
        return [await visit for visit in asyncio.as_completed(visits)]
    finally:
        for visit in visits:
            visit.close()


@refused("`asyncio.to_thread(…)`")
async def goes_to_a_thread(scene: Scene) -> Any:
    return await asyncio.to_thread(scene.note, "in a thread")


@refused("`loop.run_in_executor(…)`")
async def goes_to_an_executor(scene: Scene) -> Any:
    return await asyncio.get_running_loop().run_in_executor(None, scene.note, "in a thread")


@refused("`asyncio.open_connection(…)`")
async def opens_a_connection(_scene: Scene) -> Any:
    return await asyncio.open_connection("127.0.0.1", 9)


@refused("`loop.sock_recv(…)`")
async def reads_a_socket(_scene: Scene) -> Any:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        return await asyncio.get_running_loop().sock_recv(ours, 1)


@refused("`asyncio.create_subprocess_exec(…)`")
async def starts_a_process(_scene: Scene) -> Any:
    return await asyncio.create_subprocess_exec("true")


@refused("`loop.add_signal_handler(…)`")
async def listens_to_the_system(scene: Scene) -> Any:
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, scene.note, "signalled")


@refused("`loop.call_soon_threadsafe(…)`")
async def is_called_from_a_thread(scene: Scene) -> Any:
    asyncio.get_running_loop().call_soon_threadsafe(scene.note, "called")


@refused("`loop.set_task_factory(…)`")
async def makes_tasks_otherwise(_scene: Scene) -> Any:
    asyncio.get_running_loop().set_task_factory(None)


@refused("`asyncio.run(…)`", gives="RuntimeError")
async def runs_a_loop_of_its_own(scene: Scene) -> Any:
    visit = scene.visit("never")
    try:
        asyncio.run(visit)
    finally:
        visit.close()


@refused("`asyncio.Runner().run(…)`", gives="RuntimeError")
async def has_a_runner_of_its_own(scene: Scene) -> Any:
    visit = scene.visit("never")
    try:
        asyncio.Runner().run(visit)
    finally:
        visit.close()

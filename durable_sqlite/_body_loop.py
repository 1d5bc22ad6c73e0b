"""The small event loop that a workflow's body runs on.

It never waits: it is pumped until nothing in it is ready, and then whoever pumps it gives the body exactly one thing.
So the order in which anything reaches a body is decided in one place and can be repeated. It knows nothing of journals.

Rules that keep a replay equal to the first pass:

* Every task is a branch, numbered by its parent in the order of creation; a task that only wraps one of the library's own
  calls, or that `asyncio.wait_for` makes on some Python versions and not on others, is none.
* Tasks hash by the order of their creation, because asyncio keeps tasks in sets and walks them.
* Async generators are held from their first iteration, so that no collector decides when they are closed.
* What a journal cannot give back (sockets, threads, signals, subprocesses) is refused.

The loop is pumped from a callback of the host's loop, never inside one of the host's tasks.
"""
# asyncio's seams for writing an event loop carry underscores, though `asyncio.events.__all__` and `asyncio.tasks` export them.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
import contextvars
import inspect
import logging
import sys
import zlib
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random
from types import AsyncGeneratorType, CodeType
from typing import Any, NoReturn, Protocol, TypeVar, TypeVarTuple, cast

from .errors import NotDurable, Unloading

__all__ = ["BodyLoop", "BodyTask", "BodyTimer", "Branch", "Owner", "body_loop"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

logger = logging.getLogger("durable_sqlite")

_MOST_THROWS = 200  # how often a frame that keeps on waiting is asked to let go before it is left alone for good
_SPIN = 100_000  # callbacks without rest after which a body is taken to spin
_PRUNE = 64  # tasks or generators held before those that have ended are let go
_FRAMES_TO_LOOK_AT = 4  # asyncio's own frames between a caller and create_task


class Owner(Protocol):
    """Whoever pumps the loop, and decides what timers mean."""

    def time(self) -> float:
        """The body's time in seconds."""
        ...

    def open_timer(self, timer: BodyTimer) -> None:
        """The body armed a timer."""
        ...

    def drop_timer(self, timer: BodyTimer) -> None:
        """The body called a timer off."""
        ...

    def forbid(self, message: str) -> None:
        """The body did something that ends the run, and no exception can reach it any more."""
        ...


class _Nobody:
    """Owns the loop of a body that was unloaded, for whatever of it somebody still holds."""

    __slots__ = ("_at",)

    def __init__(self, at: float) -> None:
        self._at = at

    def time(self) -> float:
        """It stands still."""
        return self._at

    def open_timer(self, timer: BodyTimer) -> None:
        """It never rings."""

    def drop_timer(self, timer: BodyTimer) -> None:
        """It would not have rung."""

    def forbid(self, message: str) -> None:
        """Nothing is to be ended any more."""


@dataclass(slots=True, eq=False)
class Branch:
    """A task's place in the body: the numbers of its ancestors and itself, in the order of creation."""

    path: str = ""
    children: int = 0
    calls: dict[str, int] = field(default_factory=dict[str, int])
    chance: Random | None = None
    """The branch's own source of chance, once it was asked for."""

    def fork(self) -> Branch:
        """The branch of the next task that this one creates."""
        number, self.children = self.children, self.children + 1
        return Branch(f"{self.path}.{number}" if self.path else str(number))

    def key(self, name: str) -> str:
        """The key of the next call of `name` in this branch."""
        count = self.calls[name] = self.calls.get(name, 0) + 1
        return self.place(f"{name}#{count}")

    def place(self, label: str) -> str:
        """`label` in this branch."""
        return f"{self.path}/{label}" if self.path else label


class BodyTask(asyncio.Task[T]):
    """A task of a body. Its hash is its place in the order of creation, so sets of tasks are walked alike on every pass."""

    def __init__(
        self,
        coro: Coroutine[Any, Any, T],
        *,
        order: int,
        branch: Branch,
        loop: BodyLoop,
        context: contextvars.Context,
        name: str | None = None,
    ) -> None:
        self._order = order  # before Task.__init__, which already puts the task into a set
        self.branch = branch
        self.own_context = context
        super().__init__(coro, loop=loop, name=name, context=context)
        self._log_destroy_pending = False  # a task of an unloaded body is pending for ever, on purpose

    def __hash__(self) -> int:
        return self._order


class BodyFuture(asyncio.Future[Any]):
    """A future of a body. Like a task's, its hash is its place in the order of creation."""

    def __init__(self, order: int, loop: BodyLoop) -> None:
        self._order = order
        super().__init__(loop=loop)

    def __hash__(self) -> int:
        return self._order


class BodyTimer(asyncio.TimerHandle):
    """A timer that a body armed; `tag` is its owner's."""

    tag: Any = None
    _scheduled = True  # asyncio tells the loop of a cancelled timer only if this says that it was armed

    @property
    def label(self) -> str:
        """What armed it, alike on every Python version: asyncio's `sleep`, or any of its time limits."""
        callback: Any = getattr(self, "_callback", None)
        return (
            "asyncio.sleep"
            if getattr(callback, "__name__", "") == "_set_result_unless_cancelled"
            else "asyncio.timeout"
        )


class BodyLoop(asyncio.AbstractEventLoop):
    """An event loop without a clock, a selector or threads.

    Args:
        owner: Decides what timers mean.
        salt: Keeps the hashes of one run's tasks apart from those of other runs.
        own_calls: Code objects of the coroutines by which the library's own calls are awaited.
    """

    def __init__(self, owner: Owner, salt: str, own_calls: frozenset[CodeType]) -> None:
        self._owner = owner
        self._salt = zlib.crc32(salt.encode()) << 24
        self._own_calls = own_calls
        self._ready: deque[asyncio.Handle] = deque()
        self._tasks: list[BodyTask[Any]] = []
        self._generators: list[tuple[contextvars.Context, AsyncGeneratorType[Any, Any]]] = []
        self._made = 0
        self._prune_at = _PRUNE
        self._prune_generators_at = _PRUNE
        self._callbacks_since_rest = 0
        self._over = False
        self.pumped = False
        self.root = Branch()

    # What asyncio asks of a loop -------------------------------------------------------------------------------------

    def call_soon(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        """Call `callback` in this pump.

        Raises:
            NotDurable: It is the first step of a task that was not made by `create_task`.
        """
        owner = getattr(callback, "__self__", None)
        if isinstance(owner, asyncio.Task) and not isinstance(owner, BodyTask):
            cast("Coroutine[Any, Any, Any]", owner.get_coro()).close()
            raise NotDurable(
                "asyncio.Task(...) in the body of a workflow makes no branch: use asyncio.create_task(...)"
            )
        handle = asyncio.Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    def call_later(
        self,
        delay: float,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        """Arm a durable timer."""
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def call_at(
        self,
        when: float,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        """Arm a durable timer: it is recorded when it fires."""
        timer = BodyTimer(when, callback, args, self, context)
        if not self._over:
            self._owner.open_timer(timer)
        return timer

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        if not self._over and isinstance(handle, BodyTimer):
            self._owner.drop_timer(handle)

    def time(self) -> float:
        """The time of the last entry that the body was given."""
        return self._owner.time()

    def create_future(self) -> asyncio.Future[Any]:
        """A future of this loop, which hashes by the order of its creation, as tasks do."""
        self._made += 1
        return BodyFuture(self._salt + self._made, self)

    def create_task(
        self,
        coro: Generator[Any, None, T] | Coroutine[Any, Any, T],
        *,
        name: str | None = None,
        context: contextvars.Context | None = None,
        **options: Any,
    ) -> BodyTask[T]:
        """Start a task: a branch of the body, unless it only wraps one of the library's own calls."""
        del options  # eager_start and its like would change the order of events between Python versions
        if not asyncio.iscoroutine(coro):
            raise TypeError(f"a coroutine was expected, got {coro!r}")
        current = asyncio.current_task(self)
        parent = current.branch if isinstance(current, BodyTask) else self.root
        if getattr(coro, "cr_code", None) in self._own_calls:
            branch = parent  # gather(step(), …): its key is fixed already
        elif self._made_by_wait_for(coro):
            branch = parent
        else:
            branch = parent.fork()
        return self.spawn(coro, branch, context or contextvars.copy_context(), name)

    def get_task_factory(self) -> None:
        """None: tasks are made by the loop itself."""
        return

    def get_debug(self) -> bool:
        """False: asyncio's debug mode would look at the host's clock."""
        return False

    def is_running(self) -> bool:
        """True: code that can ask runs on it."""
        return True

    def is_closed(self) -> bool:
        """False: an unloaded body's loop is dropped, not closed."""
        return False

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Log what asyncio has nobody to tell, unless the body is gone."""
        if not self._over:
            logger.error("in the body of a run: %s", context.get("message"), exc_info=context.get("exception"))

    async def shutdown_asyncgens(self) -> None:
        """Nothing: generators are closed in order when the body ends."""

    # What the driver does with it ------------------------------------------------------------------------------------

    def spawn(
        self, coro: Coroutine[Any, Any, T], branch: Branch, context: contextvars.Context, name: str | None = None
    ) -> BodyTask[T]:
        """Start a task in a branch that is already known."""
        self._made += 1
        task = BodyTask(coro, order=self._salt + self._made, branch=branch, loop=self, context=context, name=name)
        if len(self._tasks) >= self._prune_at:
            self._tasks = [task for task in self._tasks if not task.done()]
            self._prune_at = _PRUNE + 2 * len(self._tasks)
        self._tasks.append(task)
        return task

    @property
    def busy(self) -> bool:
        """Whether something is ready to run."""
        return bool(self._ready)

    def fire(self, timer: BodyTimer) -> None:
        """Let a timer's callback run in the next pump."""
        self._ready.append(timer)

    def pump(self, most: int) -> bool:
        """Run what is ready until nothing is, or `most` callbacks have run; whether the body is at rest.

        Cutting a pump is invisible to the body: nothing is given to it before it is at rest.
        """
        outer = asyncio._get_running_loop()
        hooks = sys.get_asyncgen_hooks()
        asyncio._set_running_loop(self)
        sys.set_asyncgen_hooks(self._hold_generator)
        self.pumped = True
        try:
            for _ in range(most):
                if not self._ready:
                    break
                handle = self._ready.popleft()
                self._callbacks_since_rest += 1
                if not handle.cancelled():
                    handle._run()
        finally:
            self.pumped = False
            sys.set_asyncgen_hooks(*hooks)
            asyncio._set_running_loop(outer)
        if not self._ready:
            self._callbacks_since_rest = 0
            return True
        if self._callbacks_since_rest > _SPIN:
            self._ready.clear()
            self._owner.forbid("the body spins: it goes on for ever without waiting for anything durable")
            return True
        return False

    def open_branches(self, main: asyncio.Task[Any]) -> list[BodyTask[Any]]:
        """Tasks that have not ended, besides `main`."""
        return [task for task in self._tasks if task is not main and not task.done()]

    def open_generators(self) -> list[AsyncGeneratorType[Any, Any]]:
        """Async generators that were begun and not ended, in the order of their first iteration."""
        return [generator for _, generator in self._generators if generator.ag_frame is not None]

    def unwind(self) -> None:
        """End every frame of the body on this thread, youngest task first, by throwing `Unloading` where it waits.

        Not by `close()`: a frame that waits during `close()` makes Python throw a RuntimeError into the frames above it,
        where `except Exception` sees it. Not by `cancel()`: that is an outcome. Nothing is pumped again.
        """
        if self._over:
            return
        self._over = True
        outer = asyncio._get_running_loop()
        hooks = sys.get_asyncgen_hooks()
        asyncio._set_running_loop(self)
        sys.set_asyncgen_hooks(self._hold_generator)
        try:
            while self._tasks:  # clean-up code may make new ones
                self._unwind_task(self._tasks.pop())
            for context, generator in self._generators:
                _unwind_generator(context, generator)
        finally:
            self._owner = _Nobody(self._owner.time())
            self._generators.clear()
            self._ready.clear()
            sys.set_asyncgen_hooks(*hooks)
            asyncio._set_running_loop(outer)

    # Inner part ------------------------------------------------------------------------------------------------------

    def _unwind_task(self, task: BodyTask[Any]) -> None:
        _untie(task)
        coro: Any = task.get_coro()
        if not _waits(coro):
            coro.close()  # ended, or never begun: no frame can notice
            return
        for _ in range(_MOST_THROWS):
            try:
                task.own_context.run(self._as_task, task, coro.throw, Unloading())
            except (Unloading, StopIteration, asyncio.CancelledError, BaseExceptionGroup) as end:
                end.__traceback__ = None  # one of its frames has been given the exception that it is
                return
            except BaseException as error:  # noqa: BLE001 - a body's clean-up may raise anything, and none of it is an outcome
                logger.debug("a body raised %r while it was unloaded", error)
                return
        logger.warning(
            "a body goes on waiting although it is being unloaded: a loop in it swallows BaseException; its frame is left alone"
        )
        _keep(coro)

    def _as_task(self, task: BodyTask[Any], function: Callable[..., T], *args: Any) -> T:
        outer = asyncio.current_task(self)
        if outer is not None:
            asyncio.tasks._leave_task(self, outer)
        asyncio.tasks._enter_task(self, task)
        try:
            return function(*args)
        finally:
            asyncio.tasks._leave_task(self, task)
            if outer is not None:
                asyncio.tasks._enter_task(self, outer)

    def _hold_generator(self, generator: AsyncGenerator[Any, Any]) -> None:
        assert isinstance(generator, AsyncGeneratorType)
        if len(self._generators) >= self._prune_generators_at:
            self._generators = [held for held in self._generators if held[1].ag_frame is not None]
            self._prune_generators_at = _PRUNE + 2 * len(self._generators)
        self._generators.append((contextvars.copy_context(), generator))

    def _made_by_wait_for(self, coro: Coroutine[Any, Any, Any]) -> bool:
        """Whether `asyncio.wait_for` makes this task, which only some Python versions do.

        Raises:
            NotDurable: `asyncio.as_completed` makes it, which starts coroutines in the order of a set.
        """
        frame = sys._getframe(2)
        for _ in range(_FRAMES_TO_LOOK_AT):
            if frame.f_code is asyncio.wait_for.__code__:
                return True
            if frame.f_globals.get("__name__") == asyncio.tasks.__name__ and _is_as_completed(
                frame.f_code.co_name, frame.f_locals
            ):
                coro.close()
                raise NotDurable(
                    "asyncio.as_completed starts coroutines in an order that differs from process to process: "
                    "make them tasks first, as in as_completed([asyncio.create_task(c) for c in ...])"
                )
            if frame.f_back is None:
                break
            frame = frame.f_back
        return False


# Frames that never let go. Python would finalize them at a moment and in a thread of its own choosing; they must not be.
_KEPT: list[Coroutine[Any, Any, Any] | AsyncGenerator[Any, Any]] = []


def _is_as_completed(function: str, variables: dict[str, Any]) -> bool:
    return function == "as_completed" or type(variables.get("self")).__name__ == "_AsCompletedIterator"


def _waits(coro: Any) -> bool:
    """Whether a task's frame has begun and not ended. Before Python 3.12 asyncio puts other awaitables into a generator."""
    if inspect.isgenerator(coro):
        return inspect.getgeneratorstate(coro) == inspect.GEN_SUSPENDED
    return inspect.getcoroutinestate(coro) == inspect.CORO_SUSPENDED


def _is_over(generator: Any) -> bool:
    return generator.ag_frame is None


def _keep(frame: Coroutine[Any, Any, Any] | AsyncGenerator[Any, Any]) -> None:
    """Let nobody close what swallows everything: whoever does waits for ever, and at its end Python does, unless it may not."""
    _KEPT.append(frame)
    with suppress(ImportError, AttributeError):  # not every Python has it, and it takes a while to import
        import ctypes  # noqa: PLC0415

        ctypes.pythonapi.Py_IncRef(ctypes.py_object(frame))


def _untie(task: BodyTask[Any]) -> None:
    """Take apart a task and what it waits for, which hold each other: nothing is called back any more."""
    waiter: Any = getattr(task, "_fut_waiter", None)
    if asyncio.isfuture(waiter):
        callbacks: list[tuple[Callable[[Any], object], object]] = list(getattr(waiter, "_callbacks", None) or ())
        for callback, _ in callbacks:
            waiter.remove_done_callback(callback)


def _unwind_generator(context: contextvars.Context, generator: AsyncGeneratorType[Any, Any]) -> None:
    if generator.ag_frame is None or generator.ag_running:
        return
    try:
        waiter = context.run(generator.athrow, Unloading())
        context.run(waiter.send, None)
        for _ in range(_MOST_THROWS):
            context.run(waiter.throw, Unloading())
    except BaseException:  # noqa: BLE001, S110 - whatever a clean-up raises while unloading is no outcome
        pass
    if not _is_over(generator):
        _keep(generator)


def _refuse(name: str) -> Callable[..., NoReturn]:
    def refused(*_args: object, **_kwargs: object) -> NoReturn:
        raise NotDurable(
            f"loop.{name}() in the body of a workflow: the journal cannot give back what network, files, threads and "
            "processes do, so this belongs in a step"
        )

    refused.__name__ = name
    return refused


def body_loop(owner: Owner, salt: str, own_calls: frozenset[CodeType]) -> BodyLoop:
    """A loop for one body; see `BodyLoop`."""
    # What is abstract to a checker is refused below, method by method.
    return BodyLoop(owner, salt, own_calls)  # type: ignore[abstract]  # pyright: ignore[reportAbstractUsage]


for _name in vars(asyncio.AbstractEventLoop):
    if not _name.startswith("__") and _name not in vars(BodyLoop):
        setattr(BodyLoop, _name, _refuse(_name))

"""What a test holds in its hand: an engine, a clock, and the power to kill."""
# A handle is taken from one process to the next.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
import contextvars
import itertools
import os
from collections.abc import Callable, Collection, Coroutine, Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from typing import Any, Concatenate, ParamSpec, TypeVar, overload

from .._clock import from_datetime, microseconds, to_datetime
from .._codec import Codec
from .._handle import DeadLetter, Run
from .._records import HistoryEntry, QuestionInfo, RunInfo, State
from .._signals import Signal, Suspend
from .._steps import Step
from .._transactions import Transaction
from .._tx import Tx
from .._workflows import Workflow
from ..engine import Engine
from ..errors import RunError, SignalSuperseded, UsageError
from ..retry import Retry
from ._clock import START, StandingClock, StandingLoop, aside
from ._explore import Explored, Explorer, Script, Story
from ._faults import AnyStep, Crashed, Effects, Faults, Line, ProcessDied, StepCalled
from ._process import Process, World
from ._store import Store

__all__ = ["Harness", "Stuck", "harness"]

A = TypeVar("A")
P = ParamSpec("P")
R = TypeVar("R")

_LONGEST = timedelta(days=3650)
_MOST_MOMENTS = 100_000


class Stuck(AssertionError):
    """What the test waits for does not come: nothing is due any more that would bring it about."""


class Harness:
    """An engine on a journal of its own, in a process that the test may kill, at a time that the test sets.

    All methods are plain ones: each lets the engine's loop run until nothing is left to do, and comes back. Time stands still
    unless a method says that it passes. Get one from the fixture `durable`, or from `harness()`.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._runner = asyncio.Runner(loop_factory=lambda: StandingLoop(world.clock))
        self._context = contextvars.copy_context()
        self._process: Process | None = None
        self._story: Story | None = None
        self._closed = False

    def __repr__(self) -> str:
        return f"<Harness at {self.now:%Y-%m-%d %H:%M:%S}, {'open' if self._process else 'without a process'}>"

    # Life ------------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """End the process in good order and let go of everything. Runs that have not ended are left. Twice is harmless."""
        self._leave().close()

    def _leave(self) -> Store:
        """The same, but for the journal, which is given."""
        if not self._closed:
            self._closed = True
            try:
                if self._process is not None:
                    self._world.faults.crash = None
                    self._drive(self._process.leave(), until=self._later(_LONGEST))
                    self._process.end_threads()
            finally:
                self._process = None
                with aside():
                    self._runner.close()
        return self._world.store

    @property
    def engine(self) -> Engine:
        """The engine, for what this class does not do by itself: `durable.do(durable.engine.count())`.

        Raises:
            Crashed: The process has died, and there was no `restart()`.
        """
        return self._alive()

    @property
    def effects(self) -> Effects:
        """What the program has done to the world: let the test's fakes append to it."""
        return self._world.effects

    @property
    def now(self) -> datetime:
        """The time, which stands still."""
        return to_datetime(self._world.clock.now())

    @property
    def writes(self) -> tuple[str, ...]:
        """What each write to the journal was about, since the process began."""
        return tuple(self._world.faults.writes)

    # Runs ------------------------------------------------------------------------------------------------------------

    def start(self, workflow: Workflow[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Run[R]:
        """Start a run and drive it as far as it comes while time stands still.

        Raises:
            Crashed: The process died, as it was told to.
        """
        run = self.do(workflow.start(*args, **kwargs))
        self.settle()
        return run

    def run(self, workflow: Workflow[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Start a run, let time pass until it has ended, and give what it returned.

        Raises:
            RunFailed: It failed; and so on, as for `Run.result`.
            Crashed: The process died, as it was told to.
            Stuck: It waits for what time does not bring.
        """
        return self.result(self.start(workflow, *args, **kwargs))

    def result(self, run: Run[R], /, *, within: float | timedelta = _LONGEST) -> R:
        """Let time pass until a run has ended, and give what it returned.

        Args:
            run: The run.
            within: How much time may pass, in seconds.

        Raises:
            RunFailed: It failed; and so on, as for `Run.result`.
            Crashed: The process died, as it was told to.
            Stuck: It waits for what time does not bring, or takes longer.
        """
        run = self._here(run)
        until = self._later(within)
        try:
            return self._drive(run.result(), until=until)
        except Stuck:
            raise Stuck(self._why(run, until)) from None

    def settle(self) -> None:
        """Let everything happen that can happen while time stands still."""
        self._alive()
        self._drive(None)

    def do(self, call: Coroutine[Any, Any, R], /) -> R:
        """Await a coroutine on the engine's loop while time stands still: `durable.do(run.cancel())`.

        Raises:
            Crashed: The process died, as it was told to.
            Stuck: It waits for time, or for what nobody does.
        """
        if not asyncio.iscoroutine(call):
            raise UsageError(f"durable.do() takes a coroutine, as in `durable.do(run.cancel())`, not {call!r}")
        try:
            self._alive()
        except BaseException:
            call.close()
            raise
        return self._drive(call)

    def info(self, run: Run[Any] | str, /) -> RunInfo:
        """What a run is now."""
        return self.do(self._here(run).info())

    def state(self, run: Run[Any] | str, /) -> State:
        """The state of a run."""
        return self.info(run).state

    def history(self, run: Run[Any] | str, /) -> Sequence[HistoryEntry]:
        """What a run has recorded, in its order."""
        return self.do(self._here(run).history())

    def questions(self, run: Run[Any] | str, /) -> Sequence[QuestionInfo]:
        """What a run asks now, oldest first."""
        return self.do(self._here(run).questions())

    def signal(self, run: Run[Any] | str, message: Signal, /, *, dedupe: str | None = None) -> None:
        """Send a message to a run, and let it do what it does then."""
        if self._story is not None and dedupe is None:
            dedupe = self._story.name()
        self.do(self._here(run).signal(message, dedupe=dedupe))
        self.settle()

    def answer(
        self,
        run: Run[Any] | str,
        point: type[Suspend[A]],
        answer: A,
        /,
        *,
        key: str | None = None,
        by: str = "",
        early: bool = False,
    ) -> None:
        """Answer a question of a run, and let it do what it does then."""
        self.settle()
        try:
            self.do(self._here(run).answer(point, answer, key=key, by=by, early=early))
        except SignalSuperseded:
            if self._story is None or not self._story.again:
                raise
        self.settle()

    # Time ------------------------------------------------------------------------------------------------------------

    def advance(self, duration: float | timedelta, /) -> None:
        """Let time pass, and what becomes due happen at its time, one after the other.

        Args:
            duration: In seconds, or a `timedelta`.

        Raises:
            Crashed: The process died, as it was told to.
        """
        length = microseconds(duration)
        if length < 0:
            raise UsageError(f"time does not go back: advance() takes no negative duration, such as {duration!r}")
        clock = self._world.clock
        until = clock.now() + length if self._story is None else self._story.later(length)
        self._alive()
        self._drive(None, until=until)
        if clock.now() < until:
            clock.move_to(until)
            self._drive(None)

    # Faults ----------------------------------------------------------------------------------------------------------

    @overload
    def crash(self, *, before: AnyStep) -> None: ...
    @overload
    def crash(self, *, after: AnyStep) -> None: ...
    @overload
    def crash(self, *, at: int, landed: bool = False) -> None: ...
    def crash(
        self,
        *,
        before: AnyStep | None = None,
        after: AnyStep | None = None,
        at: int | None = None,
        landed: bool = False,
    ) -> None:
        """Let the process die the next time it comes to a place; the call that brings it there raises `Crashed`.

        Args:
            before: As this step's function is about to be called; of a transaction, just before its commit.
            after: As this step's function has ended, and before anything of that is recorded; of a transaction, just after
                its commit.
            at: At the journal's write of this number, counted from now, beginning with 1.
            landed: With `at`, just after that write; else just before it.
        """
        faults = self._world.faults
        match before, after, at:
            case (None, None, int()) if at > 0:
                faults.crash_at(at, after=landed)
            case (None, _, None) if after is not None:
                faults.crash_around(after, after=True)
            case (_, None, None) if before is not None:
                faults.crash_around(before, after=False)
            case _:
                raise UsageError("crash() takes one of before=step, after=step, and at=n with n from 1")

    def run_until_crash(self, workflow: Workflow[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Run[R]:
        """Start a run, let time pass until the process dies as `crash` has said, and give a handle for after `restart()`.

        Where it died before the run was stored, the handle is of a run that does not exist.

        Raises:
            AssertionError: The run has ended, or waits for what time does not bring, and the process has not died.
        """
        if self._world.faults.crash is None:
            raise UsageError("nothing was said of where to crash: call durable.crash(...) first")
        host = self._alive().host
        run_id = workflow.chosen.id or self._world.new_id(0)
        try:
            run = self.start(workflow.options(id=run_id), *args, **kwargs)
            self._drive(self._ended(run), until=self._later(_LONGEST))
        except (Crashed, Stuck):
            ...
        if self._process is None:
            return Run(host, run_id, workflow.spec.parameters.returns.load)
        raise AssertionError(f"the process has not died: {self._why(run_id, self._world.clock.now())}")

    def restart(self, *, after: float | timedelta = 0) -> None:
        """Begin the next process, which takes over what the one before it left; if that one lives, it is killed first.

        Args:
            after: How much time passes between the two, in seconds.

        Raises:
            Crashed: The new process died, as it was told to.
        """
        if self._closed:
            raise UsageError("this harness is closed")
        if self._process is not None:
            self._die("by restart()")
        self._world.clock.move_to(self._world.clock.now() + microseconds(after))
        self._world.faults.begin()
        self._process = Process(self._world)
        try:
            self._drive(self._process.__aenter__())
        except Crashed:
            raise
        except BaseException:
            self._process = None  # it has put itself away
            raise
        self.settle()

    def fail(
        self, step: AnyStep, /, *, times: int = 1, error: BaseException | type[BaseException] | None = None
    ) -> None:
        """Let the next attempts of a step raise an error instead of calling its function.

        Args:
            step: A step or a transaction.
            times: How many attempts.
            error: What is raised: an error, or a class that takes no arguments; a `RuntimeError` unless it is said.
        """
        told = RuntimeError(f"{step!r} fails, as the test has asked") if error is None else error
        self._world.faults.fail(step, times, told)

    @overload
    def replace(self, step: Step[P, R], fake: Callable[P, R | Coroutine[Any, Any, R]], /) -> None: ...
    @overload
    def replace(self, step: Transaction[P, R], fake: Callable[Concatenate[Tx, P], R], /) -> None: ...
    def replace(self, step: Any, fake: Callable[..., Any], /) -> None:
        """Call `fake` in runs instead of a step's function, with the same arguments; what it gives is recorded as the step's.

        Args:
            step: A step or a transaction.
            fake: A function or a coroutine function; for a transaction, a function whose first parameter is the `Tx`.
        """
        self._world.faults.put(step, fake)

    def calls(self, step: AnyStep, /) -> list[StepCalled]:
        """The attempts of a step so far, in all processes; replays of what is recorded are none."""
        return self._world.faults.calls(step)

    # All crashes -----------------------------------------------------------------------------------------------------

    def crash_everywhere(
        self,
        workflow: Workflow[..., Any],
        /,
        *args: Any,
        script: Script | None = None,
        setup: Callable[[], object] | None = None,
        nested: bool = False,
        repeats: bool = True,
        downtime: float | timedelta = 0,
        only: str | None = None,
        examples: int = 10,
        **kwargs: Any,
    ) -> Explored:
        """Run a workflow once for each side of each write to the journal, with a crash there, and compare how it ends.

        First it runs undisturbed, and the writes are counted. Then, each time on a journal of its own, the process dies just
        before or just after one of them, the next one finishes the run, and result and effects must be the same.

        Args:
            workflow: The workflow; its steps as they are faked and failed in this harness.
            args: Its input. Where it takes one and none is given, hypothesis draws inputs from the types of its parameters.
            script: What the application does once the run was started: is called with a harness and the run, and once more
                from its beginning in the process after the crash. What it sends is sent once, and time passes once. What it
                adds to `effects` itself is not compared.
            setup: Is called before each run, to make what is outside of the journal as it was.
            nested: Let the process that takes over crash as well, at each of its writes.
            repeats: A step that was in flight in the crash may repeat its effects; with False, that is reported as well.
            downtime: How much time passes between a crash and the next process, in seconds.
            only: Crash at this point only, as a report has named it.
            examples: How many inputs are drawn.
            kwargs: Input by name.

        Raises:
            CrashFound: There is a crash after which something differs.
            UsageError: The run does not end by itself: `script` is to send what it waits for.
        """
        explorer = Explorer(
            self._another,
            workflow,
            self._world.effects,
            script=script,
            setup=setup,
            nested=nested,
            repeats=repeats,
            downtime=downtime,
            only=only,
        )
        before = self._world.effects.take()
        try:
            if args or kwargs or not explorer.needs_input:
                return explorer.explore(args, kwargs)
            from ._drawn import explore_drawn  # noqa: PLC0415 - needs hypothesis, which is optional

            return explore_drawn(explorer, examples=examples, seed=self._world.seed)
        finally:
            explorer.close()
            self._world.effects.give(before)

    def _another(self, template: Store | None) -> Harness:
        """A harness like this one, with a journal of its own on which nothing has happened."""
        mine = self._world
        world = World(
            clock=StandingClock(mine.clock.now()),
            store=Store(None),
            faults=mine.faults.copy(),
            effects=mine.effects,
            seed=mine.seed,
            options=mine.options,
            known=dict(mine.known),
        )
        if template is not None:
            template.copy_to(world.store)
        return Harness(world)

    # What crash_everywhere needs -------------------------------------------------------------------------------------

    def _begin_story(self, *, again: bool) -> None:
        """From now on whatever is done here may be done once more after a crash, and counts once."""
        world = self._world
        if self._story is None:
            self._story = Story(world.clock.now())
        self._story.tell(again=again)
        world.ids = itertools.count()
        world.faults.begin()

    def _finish(self, run: Run[Any]) -> None:
        """Let time pass until a run has ended, or waits for what time does not bring."""
        with suppress(Stuck):
            self._drive(self._ended(self._here(run)), until=self._later(_LONGEST))

    def _typed(self, workflow: Workflow[..., R], run_id: str) -> Run[R]:
        """A handle that knows what the run returns."""
        return Run(self._alive().host, run_id, workflow.spec.parameters.returns.load)

    def _seen(self, run_id: str) -> tuple[dict[tuple[str, str], Line], Line | None]:
        """The lines of the calls of bodies, and the one at which this run diverged."""
        return self._world.lines, self._world.diverged.get(run_id)

    # Inner part ------------------------------------------------------------------------------------------------------

    def _alive(self) -> Process:
        if self._closed:
            raise UsageError("this harness is closed")
        if self._process is None:
            raise Crashed(f"the process died {self._world.faults.died}: call durable.restart() for the next one")
        return self._process

    def _here(self, run: Run[R] | str) -> Run[R]:
        """The handle of a run in this process."""
        process = self._alive()
        if isinstance(run, str):
            return process.run(run)
        return Run(process.host, run.id, run._decode, created=run.created)

    async def _ended(self, run: Run[Any]) -> None:
        with suppress(RunError):
            await run.result()

    def _later(self, duration: float | timedelta) -> int:
        return self._world.clock.now() + microseconds(duration)

    def _drive(self, call: Coroutine[Any, Any, R] | None, *, until: int | None = None) -> R:
        """Let the loop run until `call` is done, or until nothing is left to do; time passes until `until`, if at all."""
        try:
            with aside():
                result: R = self._runner.run(self._main(call, until), context=self._context)
                return result
        except ProcessDied as died:
            self._die(str(died))
            raise Crashed(f"the process died {died}") from None

    async def _main(self, call: Coroutine[Any, Any, Any] | None, until: int | None) -> Any:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, StandingLoop)
        still: asyncio.Future[None] = loop.create_future()
        moments = iter(range(_MOST_MOMENTS))

        def pass_time() -> None:
            due = _earlier(self._world.clock.next(), loop.next_timer())
            if until is not None and due is not None and due <= until and next(moments, None) is not None:
                self._world.clock.move_to(due)
            else:
                still.set_result(None)

        process = self._process
        loop.foreign, loop.unseen = (lambda: process and process.jobs), (lambda: process and process.in_flight)
        loop.when_still(pass_time)
        try:
            if call is None:
                await still
                return None
            task = asyncio.ensure_future(call)
            await asyncio.wait((task, still), return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                task.cancel()
                still = loop.create_future()
                await asyncio.wait((task, still), return_when=asyncio.FIRST_COMPLETED)
                raise Stuck("what is awaited does not come while time stands still, and nobody else brings it about")
            return task.result()
        finally:
            loop.when_still(None)

    def _die(self, where: str) -> None:
        process, self._process = self._process, None
        self._world.faults.died = where
        assert process is not None
        with aside():
            process.die(self._runner.get_loop(), self._context)

    def _why(self, run: Run[Any] | str, until: int) -> str:
        """Why a run does not end; the time that it was given is over then."""
        info = self.info(run)
        clock, told = self._world.clock, f"run {info.id} is {info.state.value}"
        if (due := clock.next()) is not None and due > until:
            clock.move_to(until)
            return f"{told} at {self.now:%Y-%m-%d %H:%M:%S}, and was given no more time"
        waits = f"; it waits for {'; '.join(info.waiting_for)}" if info.waiting_for else ""
        return f"{told} at {self.now:%Y-%m-%d %H:%M:%S}{waits}"


def _earlier(one: int | None, other: int | None) -> int | None:
    return min((each for each in (one, other) if each is not None), default=None)


@contextmanager
def harness(
    *,
    path: str | os.PathLike[str] | None = None,
    now: datetime | None = None,
    seed: int = 0,
    workflows: Collection[Workflow[..., Any]] = (),
    retry: Retry | None = None,
    unload_after: float | timedelta = 5.0,
    max_recoveries: int = 5,
    max_entries: int = 100_000,
    payload_limit: int = 1_048_576,
    schema: str | os.PathLike[str] | None = None,
    on_dead_letter: Callable[[DeadLetter], Any] | None = None,
    codec: Codec | None = None,
) -> Generator[Harness]:
    """A harness for a `with` block: what the fixture `durable` gives, for `@given` and for tests without pytest.

    Args:
        path: The journal's file, for tests that look at it by other means; else it is in memory.
        now: The time at which the test begins; a moment of 2023 unless it is said.
        seed: Where the ids of runs come from, and the spread of retries.
        workflows: As of `Engine`; those that the test starts are known anyway.
        retry: As of `Engine`.
        unload_after: As of `Engine`; with 0, each wait takes the body out of memory, so that it is replayed.
        max_recoveries: As of `Engine`.
        max_entries: As of `Engine`.
        payload_limit: As of `Engine`.
        schema: As of `Engine`.
        on_dead_letter: As of `Engine`.
        codec: As of `Engine`.
    """
    options: Mapping[str, Any] = {
        "workflows": workflows,
        "retry": retry,
        "unload_after": unload_after,
        "max_recoveries": max_recoveries,
        "max_entries": max_entries,
        "payload_limit": payload_limit,
        "schema": schema,
        "on_dead_letter": on_dead_letter,
        "codec": codec,
    }
    world = World(
        clock=StandingClock(START if now is None else from_datetime(now)),
        store=Store(path),
        faults=Faults(),
        effects=Effects(),
        seed=seed,
        options=dict(options),
    )
    opened = Harness(world)
    try:
        opened.restart()
        yield opened
    finally:
        opened.close()

"""What a body asks for: keys are fixed here, open calls kept, and every call held against the journal.

The body, asyncio in it, and the library's calls all end up at this desk; whoever drives the body takes from it what is to
be done. It performs nothing itself.
"""

from __future__ import annotations

import asyncio
import contextvars
import hashlib
import heapq
import itertools
from collections.abc import Callable, Coroutine, Iterator, Sequence
from functools import partial
from inspect import CORO_CREATED, getcoroutinestate
from random import Random
from typing import Any
from uuid import UUID

from ._body_loop import BodyTask, BodyTimer, Branch, body_loop
from ._call import OWN_CALLS, Call, awaiting, fanning_out
from ._codec import Vault
from ._context import Host
from ._ids import check_name
from ._mail import Mailbox
from ._records import FailedAttempt, Kind, Memory, Reason, RunRow
from ._replay import Conflict, Divergence, Replay
from ._specs import Mode, StepCall, Until, Wish
from .errors import DuplicateKey, DurableError, NotDurable, ReplayDiverged, SuspendedStepConflict

__all__ = ["Desk"]

_FOR_EVER = 2**63 - 1
"""The last microsecond that a journal can name: 292,000 years from now."""


class Desk:
    """Everything that one pass of a body asks for.

    Args:
        row: The run.
        host: The engine that drives it.
        vault: Says how large a value may be.
        replay: What the journal holds of it.
        memory: Deadlines that are in force from earlier passes, and attempts that those made in vain.
        mailbox: Where waits for messages, answers and other runs are listed.
        replaying: Whether a pass came before this one.
        given_up: Is told of each call that the body no longer waits for.
    """

    def __init__(
        self,
        row: RunRow,
        *,
        host: Host,
        vault: Vault,
        replay: Replay,
        memory: Memory,
        mailbox: Mailbox,
        replaying: bool,
        given_up: Callable[[Call], None],
    ) -> None:
        self.run_id = row.id
        self.workflow = row.workflow
        self.host = host
        self.replaying = replaying
        self.unloading = False
        self.loop = body_loop(self, row.uid, OWN_CALLS)
        self.clock = row.created_at
        """The time of the last entry that the body was given, in microseconds."""
        self.waiting: dict[str, Call] = {}
        """Open calls by key, in the order in which they were asked."""
        self.trouble: tuple[Reason, DurableError] | None = None
        """Why the run must be parked."""
        self.status = row.status
        """What the body says of itself."""
        self.progress = row.progress
        """How far it has come, as it says."""
        self._uid = row.uid
        self._vault = vault
        self._replay = replay
        self._mailbox = mailbox
        self._deadlines = {wait.key: wait.deadline for wait in memory.waits}
        self._deadlines |= {question.key: question.deadline for question in memory.questions}
        self._failed: dict[str, list[FailedAttempt]] = {}
        for attempt in memory.attempts:
            self._failed.setdefault(attempt.key, []).append(attempt)
        self._given_up = given_up
        self._explicit: set[str] = set()
        self._unawaited: dict[Call, Coroutine[Any, Any, Any]] = {}
        self._fresh: list[Call] = []
        self._due: list[tuple[int, int, Call]] = []
        self._numbers = itertools.count()

    # The body's side -------------------------------------------------------------------------------------------------

    @property
    def pumped(self) -> bool:
        """Whether the body's loop runs right now."""
        return self.loop.pumped

    def call(self, request: StepCall) -> Coroutine[Any, Any, Any]:
        """Fix the key of a step, and give what the body awaits."""
        return self._issue(self._call_of(request, self._key(request.spec.name, request.key)))

    def sleep(self, until: Until) -> Coroutine[Any, Any, None]:
        """Fix the key of a sleep, and give what the body awaits."""
        return self._issue(Call(self._key("sleep", None), Kind.SLEEP, "sleep", delay=until))

    def wish(self, wish: Wish) -> Coroutine[Any, Any, Any]:
        """Fix the key of any other durable call, and give what the body awaits.

        Raises:
            PayloadTooLarge: What it sends is too large to be stored.
        """
        return self._issue(self._call_of(wish, self._key(wish.label or wish.name, wish.key)))

    def many(
        self,
        name: str,
        key: str | None,
        make: Callable[[int], StepCall | Wish],
        count: int,
        limit: int,
        *,
        collect: bool,
    ) -> Coroutine[Any, Any, list[Any]]:
        """Fix the key of a fan-out, and give what the body awaits."""
        fixed = self._key(name, key)
        whole = Call(fixed, Kind.STEP, name)
        parts: Iterator[Call] = (self._call_of(make(index), f"{fixed}[{index}]") for index in range(count))
        coro = fanning_out(self, whole, parts, limit, collect=collect)
        self._unawaited[whole] = coro
        return coro

    def report_status(self, text: str | None) -> None:
        """Note what the body says of itself; the driver sees to it that people see it."""
        self.status = text

    def report_progress(self, done: int, total: int) -> None:
        """Note how far the body says that it has come."""
        self.progress = (done, total)

    def now(self) -> int:
        """The time of the last entry that the body was given."""
        return self.clock

    def uuid(self) -> UUID:
        """The next UUID of the calling branch."""
        return UUID(int=self.random().getrandbits(128), version=4)

    def random(self) -> Random:
        """The calling branch's source of chance."""
        branch = self._branch()
        if branch.chance is None:
            seed = hashlib.blake2b(f"{self._uid}\0{branch.path}".encode(), digest_size=16).digest()
            branch.chance = Random(int.from_bytes(seed, "big"))
        return branch.chance

    def register(self, call: Call) -> asyncio.Future[Any]:
        """Note that the body waits for `call`; while it is unloaded, nothing ever answers."""
        self.awaited(call)
        call.future = asyncio.Future(loop=self.loop)
        if not self.unloading:
            self._ask(call)
        return call.future

    def give_up(self, call: Call) -> None:
        """Note that the body no longer waits for `call`."""
        if not self.unloading and self.waits_for(call):
            del self.waiting[call.key]
            call.given_up = True
            self._mailbox.forget(call)
            self._given_up(call)

    def awaited(self, call: Call) -> None:
        """Note that what was called is awaited by now."""
        self._unawaited.pop(call, None)

    # asyncio's side --------------------------------------------------------------------------------------------------

    def time(self) -> float:
        """The body's time in seconds."""
        return self.clock / 1_000_000

    def open_timer(self, timer: BodyTimer) -> None:
        """Note that asyncio waits in the body."""
        when = timer.when()
        if when != when:  # noqa: PLR0124 - only NaN differs from itself
            raise ValueError("a delay must be a number, not NaN")
        call = Call(self._branch().key(timer.label), Kind.TIMER, timer.label, timer=timer)
        if abs(when) < float("inf"):
            call.delay = partial(_at, round(when * 1_000_000))
        timer.tag = call
        self._ask(call)

    def drop_timer(self, timer: BodyTimer) -> None:
        """Note that asyncio no longer waits."""
        self.waiting.pop(timer.tag.key, None)

    def forbid(self, message: str) -> None:
        """Note that the body does what cannot be repeated: the run must be parked."""
        self.park(Reason.NOT_DURABLE, NotDurable(f"run {self.run_id}: {message}"))

    # The driver's side -----------------------------------------------------------------------------------------------

    def is_open(self, key: str) -> bool:
        """Whether the body waits for the call of this key."""
        return key in self.waiting

    def waits_for(self, call: Call) -> bool:
        """Whether the body waits for this very call."""
        return self.waiting.get(call.key) is call

    def close(self, key: str, at: int) -> Call:
        """Take an open call, whose outcome of time `at` is about to be given."""
        self.clock = max(self.clock, at)
        call = self.waiting.pop(key)
        self._mailbox.forget(call)
        return call

    def fresh(self) -> list[Call]:
        """Calls that are not recorded, have not begun, and need somebody to begin them; they stay listed until `begun`."""
        if self._fresh:
            self._fresh = [call for call in self._fresh if self.waits_for(call)]
        return self._fresh

    def put_off(self, call: Call, until: int) -> None:
        """Let a step that failed wait for its next attempt."""
        call.deadline = until
        heapq.heappush(self._due, (until, next(self._numbers), call))

    def again(self, call: Call) -> None:
        """Let the step with the nearest deadline, whose wait is over, begin again."""
        heapq.heappop(self._due)
        call.deadline = None
        self._fresh.append(call)

    def once_more(self, call: Call) -> None:
        """Let a step begin of which it is known by now that it did not begin before."""
        self._fresh.append(call)

    def cut_all_off(self) -> None:
        """Note of all steps that are open that their next attempt may have begun in a process that left the run.

        Also of those that wait for theirs, since the clock may have been ahead there.
        """
        for call in self.waiting.values():
            call.cut_off = call.step is not None

    @property
    def cut_off(self) -> bool:
        """Whether an open step may have begun an attempt in a process that left the run in the middle."""
        return any(call.cut_off for call in self.waiting.values())

    def begun(self, left: Sequence[Call] = ()) -> None:
        """Note that the fresh calls have begun, but for those that are left for later."""
        self._fresh = list(left)

    def nearest(self) -> tuple[int, Call] | None:
        """The open call with the nearest deadline."""
        while self._due and not self.waits_for(self._due[0][2]):
            heapq.heappop(self._due)
        return (self._due[0][0], self._due[0][2]) if self._due else None

    def park(self, reason: Reason, error: DurableError) -> None:
        """Note that the run must be parked; the first reason stands."""
        self.trouble = self.trouble or (reason, error)

    def diverge(self, problem: Divergence) -> None:
        """Note that the code asked for something else than the journal holds."""
        kind = SuspendedStepConflict if isinstance(problem, Conflict) else ReplayDiverged
        self.park(Reason.DIVERGED, kind(problem.message))

    def left_open(self, main: asyncio.Task[Any]) -> str:
        """What the body had not finished when it returned, in words; empty if nothing."""
        forgotten = [call.key for call, coro in self._unawaited.items() if getcoroutinestate(coro) == CORO_CREATED]
        paths = dict.fromkeys(task.branch.path for task in self.loop.open_branches(main))
        parts: list[str] = []
        if paths:
            # A task that only wraps a call is in its caller's branch. Its own name would differ from pass to pass.
            branches = ", ".join(path for path in paths if path)
            what = f"branches {branches}" if branches else "calls that were put into tasks"
            waiting = ", ".join(self.waiting) or "nothing durable"
            parts.append(f"{what} were still open (waiting for {waiting})")
        if forgotten:
            parts.append(f"{', '.join(forgotten)} was called and never awaited")
        return " and ".join(parts)

    def unload(self) -> None:
        """Take the body out of memory; nothing that its clean-up code does meanwhile is noted."""
        self.unloading = True
        self.loop.unwind()
        for coro in self._unawaited.values():
            coro.close()  # called and never awaited: said in the run's error, not in a RuntimeWarning
        self._unawaited.clear()
        self.waiting.clear()
        self._mailbox.close()
        self._fresh.clear()
        self._due.clear()

    # Inner part ------------------------------------------------------------------------------------------------------

    def _branch(self) -> Branch:
        task = asyncio.current_task(self.loop)
        return task.branch if isinstance(task, BodyTask) else self.loop.root

    def _key(self, name: str, explicit: str | None) -> str:
        branch = self._branch()
        if explicit is None:
            return branch.key(name)
        check_name("a key", explicit)
        if explicit in self._explicit:
            raise DuplicateKey(
                f"run {self.run_id}: the key {explicit!r} is used twice; a second call would get the first one's result. "
                "Give each call a key of its own, or none."
            )
        self._explicit.add(explicit)
        return branch.place(explicit)

    def _issue(self, call: Call) -> Coroutine[Any, Any, Any]:
        coro = awaiting(self, call)
        self._unawaited[call] = coro
        return coro

    def _call_of(self, request: StepCall | Wish, key: str) -> Call:
        if isinstance(request, StepCall):
            kind = Kind.TRANSACTION if request.spec.mode is Mode.TRANSACTION else Kind.STEP
            return Call(key, kind, request.spec.name, request.digest, request, contextvars.copy_context())
        data = getattr(request.errand, "data", None)
        if data is not None:
            self._vault.check(data, f"run {self.run_id}, {key}")
        return Call(key, request.kind, request.name, request.digest, wish=request, delay=request.until)

    def _ask(self, call: Call) -> None:
        call.asked = self._replay.given
        call.since = self.clock
        if call.delay is not None:
            written = self._deadlines.get(call.key)  # in force even if the code has another delay by now
            call.deadline = written if written is not None else max(0, min(call.delay(self.clock), _FOR_EVER))
        self.waiting[call.key] = call
        problem = self._replay.ask(call)
        if problem is not None:
            self.diverge(problem)
        elif call.key not in self._replay:
            if call.deadline is not None:
                heapq.heappush(self._due, (call.deadline, next(self._numbers), call))
            if call.step is not None:
                self._begin_or_put_off(call)
            elif call.wish is not None:
                self._mailbox.wait(call)
                if call.wish.errand is not None:
                    self._fresh.append(call)

    def _begin_or_put_off(self, call: Call) -> None:
        failed = self._failed.get(call.key)
        if failed is None:
            self._fresh.append(call)
            return
        call.began = failed[0].started_at
        call.attempt = failed[-1].number + 1
        self.put_off(call, failed[-1].next_at or failed[-1].at)


def _at(deadline: int, _: int) -> int:
    return deadline

"""One case while it is played: processes and clients take turns by chance, the disk and the clock have their troubles."""

from __future__ import annotations

import heapq
import itertools
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from hashlib import blake2b
from pathlib import Path
from random import Random
from typing import Any

from durable_sqlite import (
    Done,
    DurableError,
    Engine,
    NotDone,
    SignalRejected,
    SignalSuperseded,
    Unknown,
    WrongState,
)
from durable_sqlite._codec import Vault
from durable_sqlite._context import StepInfo

from .cases import HEALED_AT, Case, Trouble
from .checker import Checker
from .errands import Act, Letter, Stage, Whether, acts_in, come_to
from .processes import Process
from .storage import Storage

__all__ = ["World"]

_HORIZON = 120.0  # seconds after which every run must have ended
_MOST_TICKS = 50_000
_DURATIONS = (0.0, 0.0, 0.01, 0.3, 1.0, 2.5)
_VAULT = Vault(None, 1_000_000)


@dataclass(slots=True, eq=False)
class _Errand:
    """What a client wants, and asks again until it is done."""

    what: str
    run_id: str
    ask: Callable[[Engine], Awaitable[object]]
    done: Callable[[], object] = lambda: None
    dedupe: str = ""
    process: Process | None = field(default=None)
    """Which one was asked."""
    over: bool = False


class World:
    """One case while it is played.

    Args:
        case: What is decided.
        path: The journal's file, which is new.
        stage: The workflow.
    """

    def __init__(self, case: Case, path: Path, stage: Stage) -> None:
        self.case = case
        self.now = 0.0
        self.offset = 0.0
        self.checker = Checker(str(path))
        self.ticks = 0
        self._chance = Random(f"{case.seed} world")
        self._stage = stage
        self._storage = Storage(str(path))
        self._processes: list[Process] = []
        self._all = itertools.count()
        self._events: list[tuple[float, int, Callable[[], object]]] = []
        self._numbers = itertools.count()
        self._errands: list[_Errand] = []
        self._running: Process | None = None
        self._trace = blake2b(digest_size=8)
        self._healed = False
        self._told: dict[str, Any] = {}
        self._eager: dict[str, _Errand] = {}
        """What is sent as soon as something is recorded of a run: then it may be about to rest."""

    @property
    def trace(self) -> str:
        """A digest of all that has happened, in its order."""
        return self._trace.hexdigest()

    # As processes and steps see it -----------------------------------------------------------------------------------

    def failed(self, what: str) -> None:
        """Something came out of an engine that nobody expects."""
        self.checker.broken("an error came out of the engine", what)

    def duration(self) -> float:
        """How long the next attempt takes."""
        return self._chance.choice(_DURATIONS)

    def began(self, info: StepInfo) -> None:
        """An attempt's body begins."""
        assert self._running is not None
        self._note("began", info.run_id, info.key)
        self.checker.began(self._running, info)

    def effect(self, info: StepInfo, value: int) -> None:
        """It has its effect, and would return this."""
        self.checker.effect(info, value)

    def gone(self, info: StepInfo) -> None:
        """Its body is over."""
        if self._running is not None:  # else it is put away with its process
            self.checker.gone(self._running, info)

    def probe(self, info: StepInfo) -> Done[int] | NotDone | Unknown:
        """What became of an attempt that began before."""
        value = self.checker.effect_of(info.run_id, info.key)
        if value is not None:
            return Done(value)
        if self.checker.is_flying(info.run_id, info.key):
            return Unknown()
        self.checker.is_undone(info.run_id, info.key)
        return NotDone()

    def _note(self, *what: object) -> None:
        self._trace.update(f"{self.now:.6f} {what}\n".encode())

    # The play --------------------------------------------------------------------------------------------------------

    def play(self) -> None:
        """Play the case to its end; what was broken is with the checker."""
        self._stage.scene = self
        for _ in range(self.case.engines):
            self._begin()
        for number, script in enumerate(self.case.scripts):
            self._at(self.case.starts[number], partial(self._start, f"run-{number}", script))
        for trouble in self.case.troubles:
            self._at(trouble.at, partial(self._befall, trouble))
        self._at(HEALED_AT, self._heal)
        try:
            while not self.checker.problems and not self._is_over():
                self._tick()
                if self.now > _HORIZON or self.ticks > _MOST_TICKS:
                    self.checker.broken(
                        "a run never ended", [(run.id, run.state) for run in self.checker.runs.values()]
                    )
            if not self.checker.problems:
                self._see_ends()
        finally:
            for process in self._processes:
                process.put_away()
            self._storage.close()
            self.checker.close()

    def _is_over(self) -> bool:
        runs = self.checker.ids
        mains = [f"run-{number}" for number in range(len(self.case.scripts))]
        return (
            self._healed
            and all(name in runs for name in mains)
            and all(run.has_stopped and run.state != "parked" for run in runs.values())
        )

    def _tick(self) -> None:
        """Whoever is next does one thing; of several, chance decides."""
        self.ticks += 1
        choices: list[tuple[float, Process | None, bool]] = [(self._events[0][0], None, False)] if self._events else []
        for process in self._processes:
            if (at := process.next_turn()) is not None:
                choices.append((at, process, True))
            if (at := process.next_hop()) is not None:
                choices.append((at, process, False))
        if not choices:
            self.checker.broken("nothing is scheduled and a run has not ended", self.checker.ids)
            return
        self.now = max(self.now, min(choices, key=lambda choice: choice[0])[0])
        _, chosen, turns = self._chance.choice([choice for choice in choices if choice[0] <= self.now])
        if chosen is None:
            heapq.heappop(self._events)[2]()
            return
        process = chosen
        before, self._running = process.worker, process
        (process.turn if turns else process.hop)()
        self._running = None
        self.checker.look(process, before)
        self.checker.see_worker(process, self.now)
        if self._eager:
            self._send_eager()
        if process.over:
            self._bury(process)

    def _at(self, when: float, what: Callable[[], object]) -> None:
        heapq.heappush(self._events, (when, next(self._numbers), what))

    def _begin(self) -> None:
        number = next(self._all)
        seed = f"{self.case.seed} process {number}"
        self._processes.append(Process(number, self, self._storage, [self._stage.workflow], seed))

    def _bury(self, process: Process) -> None:
        self._note("over", process.number)
        self.checker.counts["processes"] += 1
        process.put_away()
        self.checker.process_ended(process)
        self._processes.remove(process)
        for errand in self._errands:
            if errand.process is process and not errand.over:
                self._at(self.now + 0.2, partial(self._send, errand))
        if not self._healed or not self._processes:
            self._at(self.now + self._chance.choice((0.0, 0.5, 3.0)), self._replace)

    def _replace(self) -> None:
        if len(self._processes) < self.case.engines:
            self._begin()

    # Troubles --------------------------------------------------------------------------------------------------------

    def _befall(self, trouble: Trouble) -> None:  # noqa: C901, PLR0912 - one case for each kind of trouble
        storage, length = self._storage, trouble.length
        self.checker.counts[trouble.kind] += 1
        self._note(trouble.kind)
        if trouble.kind in {"lock", "full", "stuck", "unreadable"}:
            self.checker.obstructed_until = max(self.checker.obstructed_until, self.now + length)
        process = self._processes[trouble.process % len(self._processes)] if self._processes else None
        match trouble.kind:
            case "lock":
                storage.lock()
                self._at(self.now + length, storage.unlock)
            case "full" | "stuck":
                setattr(storage, trouble.kind, True)
                self._at(self.now + length, partial(setattr, storage, trouble.kind, False))
            case "jump":
                self.offset += length
            case "join":
                self._begin()
            case _ if process is None:
                pass
            case "kill":
                process.kill()
                self._bury(process)
            case "die":
                process.dies_at = trouble.place, trouble.count
            case "stand" if trouble.count:
                process.stands_after_commit = length
            case "stand":
                process.stand(length)
            case "block":
                process.blocked_until = max(process.blocked_until, self.now + length)
            case "doubt":
                process.mount.doubts += trouble.outcomes
                self.checker.obstructed_until = max(self.checker.obstructed_until, self.now + 6.0)
            case "unreadable":
                process.mount.unreadable = True
                self._at(self.now + length, partial(setattr, process.mount, "unreadable", False))
            case "close" if process.open:
                process.close()
            case "interrupt" if process.open:
                process.interrupt()
            case _:
                pass

    def _heal(self) -> None:
        """From now on nothing goes wrong any more."""
        self._healed = True
        self._note("healed")
        self._storage.full = self._storage.stuck = False
        self._storage.unlock()
        self.offset = max(self.offset, 0.0)
        for process in self._processes:
            process.stands_until = process.blocked_until = min(self.now, process.stands_until)
            process.dies_at, process.stands_after_commit = None, 0.0
            process.mount.doubts.clear()
            process.mount.unreadable = False
        if not self._processes:
            self._begin()
        self._settle()

    # Clients ---------------------------------------------------------------------------------------------------------

    def _start(self, run_id: str, script: list[Act]) -> None:
        play = self._stage.workflow.options(id=run_id)
        number = int(run_id.rpartition("-")[2])

        def started() -> None:
            letters = [act[1] for act in acts_in(script, "letter")]
            self._post(run_id, letters)
            self._send(_Errand("result", run_id, lambda engine: engine.run(run_id).result()))
            if (cancel_at := self.case.cancels[number]) is not None:
                cancel = _Errand("cancel", run_id, lambda engine: engine.run(run_id).cancel())
                self._at(cancel_at, partial(self._send, cancel))

        self._send(_Errand("start", run_id, lambda engine: play.options(engine=engine).start(script), started))
        self._answer_all()

    def _post(self, run_id: str, letters: list[int]) -> None:
        """One letter after the other, so that their order is told."""
        if not letters:
            return
        letter = Letter(n=letters[0])
        errand = _Errand(
            "signal",
            run_id,
            lambda engine: engine.run(run_id).signal(letter, dedupe=str(letter.n)),
            lambda: self._post(run_id, letters[1:]),
            str(letter.n),
        )
        if self._chance.random() < 0.5 and not self._healed:
            self._eager[run_id] = errand
        else:
            self._at(self.now + self._chance.random() * 3, partial(self._send, errand))

    def _send_eager(self) -> None:
        for run_id in list(self._eager):
            if self._healed or (run_id in self.checker.moved and self._chance.random() < 0.4):
                self._send(self._eager.pop(run_id))

    def _answer_all(self) -> None:
        """Somebody answers every question from time to time."""
        self._send(_Errand("answers", "", self._answer))

    async def _answer(self, engine: Engine) -> None:
        async for question in engine.questions():
            with_key = engine.run(question.run_id)
            try:
                await with_key.answer(Whether, question.question["n"] + 5, key=question.key)
            except (SignalSuperseded, SignalRejected):
                continue

    def _settle(self) -> None:
        """A person decides what nobody else knows, as it was; and somebody answers."""
        for run in self.checker.runs.values():
            if run.state == "parked" and run.reason == "ambiguous":
                self._send(_Errand("settle", run.id, partial(self._settle_run, run.id)))
        self._answer_all()
        self._at(self.now + 1.0, self._settle)

    async def _settle_run(self, run_id: str, engine: Engine) -> None:
        run, key = engine.run(run_id), self.checker.in_doubt(run_id)
        value = self.checker.effect_of(run_id, key)
        if self.checker.is_flying(run_id, key):
            return
        if value is None:
            self.checker.is_undone(run_id, key)
            await run.settle(key, retry=True, by="a person")
        else:
            await run.settle(key, value, by="a person")

    def _send(self, errand: _Errand) -> None:
        """Ask one of the processes that are open, or wait for one."""
        there = [process for process in self._processes if process.open and not process.over]
        if errand not in self._errands:
            self._errands.append(errand)
        if not there:
            errand.process = None
            self._at(self.now + 0.3, partial(self._send, errand))
            return
        process = errand.process = self._chance.choice(there)
        process.begin(self._ask(process, errand))

    async def _ask(self, process: Process, errand: _Errand) -> None:
        try:
            got = await errand.ask(process.engine)
        except (SignalRejected, WrongState):
            errand.over = True
        except DurableError as error:
            if errand.what == "result" and self._has_ended_badly(errand.run_id):
                errand.over = True
            elif not process.over:
                self.checker.counts[type(error).__name__] += 1
                self._at(self.now + 0.4, partial(self._send, errand))
        else:
            if not process.over:
                self._acknowledge(errand, got)

    def _acknowledge(self, errand: _Errand, got: object) -> None:
        errand.over = True
        self._note("acknowledged", errand.what, errand.run_id)
        if errand.what == "result":
            self._told[errand.run_id] = got
        if errand.what in {"start", "signal", "cancel", "result"}:
            self.checker.acknowledged(errand.what, errand.run_id, errand.dedupe)
        errand.done()

    def _has_ended_badly(self, run_id: str) -> bool:
        run = self.checker.ids.get(run_id)
        return run is not None and run.has_stopped and run.state != "completed"

    # At the end ------------------------------------------------------------------------------------------------------

    def _see_ends(self) -> None:
        for run in self.checker.runs.values():
            self.checker.counts[run.state] += 1
            self._note("end", run.id, run.state)
            if run.state == "failed":
                self.checker.broken("a run failed by itself", run.id, run.reason, (run.result or b"")[:600])
        for number, script in enumerate(self.case.scripts):
            run = self.checker.ids[f"run-{number}"]
            if run.state == "completed":
                result = json.loads(_VAULT.open(run.result or b"", ""))
                if result != come_to(script):
                    self.checker.broken("a run came to something else", run.id, result, come_to(script))
                if self._told.get(run.id, result) != result:
                    self.checker.broken("somebody was told another result", run.id, self._told[run.id], result)
            elif not run.cancelled:
                self.checker.broken("a run did not come to its end", run.id, run.state)

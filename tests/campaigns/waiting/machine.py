"""The hypothesis state machine: what may happen to runs from outside, in any order, against the engine and the model."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from .acts import POINTS, SIGNALS, Stage
from .model import Play
from .programs import Node, programs
from .world import Life, World

__all__ = ["WaitingMachine"]

_MOST = 3  # runs that are started from outside

_turns = st.sampled_from((None, None, None, 0, 1, 2, 4, 7))
"""How many turns the process is given then; None until nothing is left to do."""
_which = st.integers(min_value=0, max_value=7)
_lives = st.builds(
    Life,
    unload_after=st.sampled_from((1e6, 0.0, 0.0, 0.5)),
    commit_delay=st.sampled_from((None, None, 0.02, 0.5)),
    max_resident=st.sampled_from((100, 100, 2)),
    shuffle=st.one_of(st.none(), st.integers(min_value=0, max_value=3)),
)


class WaitingMachine(RuleBasedStateMachine):
    """Each rule is something that happens to the runs; after each, the engine must agree with the model."""

    world: World

    @initialize(life=_lives)
    def open(self, life: Life) -> None:
        self._messages: list[tuple[str, str, str]] = []
        self._count = 0
        self.world = World(Stage(), life)

    def teardown(self) -> None:
        if hasattr(self, "world"):
            try:
                if not self.world.broken:
                    self.world.heal()
            finally:
                self.world.close()

    # Runs ------------------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.world.roots < _MOST)
    @rule(program=programs(), turns=_turns, deadline=st.sampled_from((None, None, None, 7.0)), message=st.booleans())
    def start(self, program: Node, turns: int | None, deadline: float | None, message: bool) -> None:
        sent = SIGNALS["waiting-ping"](n=self._number()) if message else None
        self.world.start(program, run=self.world.roots, deadline=deadline, message=sent)
        self.world.roots += 1
        self.world.turn(turns)

    @precondition(lambda self: self.world.roots)
    @rule(which=_which, turns=_turns)
    def start_again(self, which: int, turns: int | None) -> None:
        self.world.start(None, run=which % self.world.roots, deadline=None)
        self.world.turn(turns)

    # Messages and answers --------------------------------------------------------------------------------------------

    @precondition(lambda self: self.world.plays)
    @rule(which=_which, signal=st.sampled_from(sorted(SIGNALS)), dedupe=st.booleans(), turns=_turns)
    def send(self, which: int, signal: str, dedupe: bool, turns: int | None) -> None:
        number, run = self._number(), self._run(which)
        self.world.ask(lambda engine: engine.run(run.id).signal(SIGNALS[signal](n=number), dedupe=number if dedupe else None))
        if dedupe:
            self._messages.append((run.id, signal, number))
        self.world.turn(turns)

    @precondition(lambda self: self._messages)
    @rule(which=_which, turns=_turns)
    def send_once_more(self, which: int, turns: int | None) -> None:
        run, signal, number = self._messages[which % len(self._messages)]
        self.world.ask(lambda engine: engine.run(run).signal(SIGNALS[signal](n=number), dedupe=number))
        self.world.turn(turns)

    @precondition(lambda self: self.world.plays)
    @rule(
        which=_which,
        point=st.sampled_from(sorted(POINTS)),
        key=st.one_of(st.none(), st.integers(min_value=0, max_value=3)),
        early=st.booleans(),
        turns=_turns,
    )
    def answer(self, which: int, point: str, key: int | None, early: bool, turns: int | None) -> None:
        run, number = self._run(which), int(self._number())
        keys = [question.key for question in run.questions.values() if question.name == point]
        named = None if key is None else keys[key % len(keys)] if keys else f"{point}#1"
        self.world.ask(lambda engine: engine.run(run.id).answer(POINTS[point], number, key=named, early=early))
        self.world.turn(turns)

    # Control ---------------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.world.plays)
    @rule(which=_which, turns=_turns)
    def cancel(self, which: int, turns: int | None) -> None:
        run = self._run(which)
        self.world.ask(lambda engine: engine.run(run.id).cancel(reason="no longer wanted"))
        self.world.turn(turns)

    @precondition(lambda self: self.world.plays)
    @rule(which=_which, turns=_turns)
    def terminate(self, which: int, turns: int | None) -> None:
        run = self._run(which)
        self.world.ask(lambda engine: engine.run(run.id).terminate())
        self.world.turn(turns)

    @precondition(lambda self: self.world.plays)
    @rule(which=_which, turns=_turns)
    def pause(self, which: int, turns: int | None) -> None:
        run = self._run(which)
        self.world.ask(lambda engine: engine.run(run.id).pause())
        self.world.turn(turns)

    @precondition(lambda self: any(play.paused for play in self.world.plays.values()))
    @rule(which=_which, turns=_turns)
    def resume(self, which: int, turns: int | None) -> None:
        paused = [play for play in self.world.plays.values() if play.paused]
        run = paused[which % len(paused)]
        self.world.ask(lambda engine: engine.run(run.id).resume())
        self.world.turn(turns)

    # Time and processes ----------------------------------------------------------------------------------------------

    @rule(turns=_turns)
    def turn(self, turns: int | None) -> None:
        self.world.turn(turns)

    @rule(seconds=st.sampled_from((0.5, 1.0, 3.0, 7.0)))
    def pass_time(self, seconds: float) -> None:
        self.world.forward(seconds)

    @precondition(lambda self: self.world.plays)
    @rule(microseconds=st.sampled_from((0, 0, 1, -1)), turns=_turns)
    def jump(self, microseconds: int, turns: int | None) -> None:
        self.world.jump(microseconds)
        if turns != 0:
            self.world.turn(turns)

    @precondition(lambda self: self.world.plays)
    @rule(
        how=st.sampled_from(("kill", "kill", "close", "interrupt")),
        life=_lives,
        downtime=st.sampled_from((0.0, 0.0, 1.0, 7.0)),
        turns=_turns,
    )
    def end_process(self, how: str, life: Life, downtime: float, turns: int | None) -> None:
        self.world.end_process(how, life, downtime)
        self.world.turn(turns)

    @rule(commits=st.integers(min_value=1, max_value=6), lands=st.booleans())
    def crash_soon(self, commits: int, lands: bool) -> None:
        self.world.crash_in(commits, lands=lands)

    # Inner part ------------------------------------------------------------------------------------------------------

    def _run(self, which: int) -> Play:
        plays: list[Any] = list(self.world.plays.values())
        return plays[which % len(plays)]

    def _number(self) -> str:
        self._count += 1
        return str(self._count)

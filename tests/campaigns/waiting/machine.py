"""The hypothesis state machine: what may happen to runs from outside, in any order, against the engine and the model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from .acts import POINTS, SIGNALS
from .bodies import Call
from .model import Play
from .processes import Life
from .programs import Node, programs
from .world import World

__all__ = ["WaitingMachine"]

T = TypeVar("T")

_MOST = 4  # runs that are started from outside
_FINAL = ("completed", "cancelled")

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
        self.world = World(life)

    def teardown(self) -> None:
        if hasattr(self, "world"):
            try:
                if not self.world.broken:
                    self.world.heal()
            finally:
                self.world.close()

    # Runs ------------------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.world.started < _MOST)
    @rule(
        program=programs(),
        deadline=st.sampled_from((None, None, None, None, 7.0)),
        message=st.booleans(),
        crash=st.sampled_from((0, 0, 0, 0, 1, 2, 3, 4, 5, 6)),
        lands=st.booleans(),
        turns=_turns,
    )
    def start(
        self, *, program: Node, deadline: float | None, message: bool, crash: int, lands: bool, turns: int | None
    ) -> None:
        """Start a run, perhaps with a message; the process may die at one of the commits that follow."""
        if crash:
            self.world.crash_in(crash, lands=lands, life=Life(), downtime=0.0)
        sent = SIGNALS["waiting-ping"](n=self._number()) if message else None
        self.world.start(program, deadline=deadline, message=sent)
        self.world.turn(turns)

    @precondition(lambda self: self.world.plays)
    @rule(which=_which, what=st.sampled_from(("start", "send")), turns=_turns)
    def again(self, which: int, what: str, turns: int | None) -> None:
        """Start a run once more, or send a message once more."""
        if what == "start":
            self.world.start_again(which)
        elif self._messages:
            run, signal, number = _pick(self._messages, which)
            self.world.ask(lambda engine: engine.run(run).signal(SIGNALS[signal](n=number), dedupe=number))
        self.world.turn(turns)

    # Messages and answers --------------------------------------------------------------------------------------------

    @precondition(lambda self: self.world.plays)
    @rule(which=_which, signal=st.sampled_from(sorted(SIGNALS)), dedupe=st.booleans(), turns=_turns)
    def send(self, which: int, signal: str, dedupe: bool, turns: int | None) -> None:
        run = _pick(self.world.plays, which)
        number = self._send(run, signal, dedupe=dedupe)
        if dedupe:
            self._messages.append((run.id, signal, number))
        self.world.turn(turns)

    @precondition(lambda self: self._waits("signal"))
    @rule(which=_which, turns=_turns)
    def feed(self, which: int, turns: int | None) -> None:
        """Send what somebody waits for."""
        run, call = _pick(self._waits("signal"), which)
        self._send(run, call.name)
        self.world.turn(turns)

    @precondition(lambda self: self.world.plays)
    @rule(which=_which, point=st.sampled_from(sorted(POINTS)), early=st.booleans(), turns=_turns)
    def answer(self, which: int, point: str, early: bool, turns: int | None) -> None:
        self._answer(_pick(self.world.plays, which), point, None, early=early)
        self.world.turn(turns)

    @precondition(lambda self: any(play.questions for play in self.world.plays))
    @rule(which=_which, keyed=st.booleans(), turns=_turns)
    def reply(self, which: int, keyed: bool, turns: int | None) -> None:
        """Answer a question, perhaps one that is over."""
        asked = [(play, question) for play in self.world.plays for question in play.questions.values()]
        run, question = _pick(asked, which)
        self._answer(run, question.name, question.key if keyed else None)
        self.world.turn(turns)

    # Control ---------------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.world.plays)
    @rule(
        which=_which, what=st.sampled_from(("pause", "resume", "pause", "resume", "cancel", "terminate")), turns=_turns
    )
    def control(self, which: int, what: str, turns: int | None) -> None:
        plays = self.world.plays
        if what == "resume":  # a failed run would go on, and that is another campaign's business
            plays = [play for play in plays if play.paused] or [play for play in plays if play.end in _FINAL]
        elif what == "pause":
            plays = [play for play, _ in self._waits("step")] or plays
        if plays:
            self._ask(_pick(plays, which), what)
        self.world.turn(turns)

    # Time and processes ----------------------------------------------------------------------------------------------

    @rule(seconds=st.sampled_from((0.0, 0.5, 1.0, 3.0, 7.0)))
    def pass_time(self, seconds: float) -> None:
        self.world.forward(seconds)

    @precondition(lambda self: self._timed())
    @rule(
        which=_which,
        microseconds=st.sampled_from((0, 1, -1)),
        act=st.sampled_from(("give", "give", "give", "cancel", "pause", "kill", "")),
        turns=_turns,
        then=_turns,
    )
    def meet_a_deadline(self, which: int, microseconds: int, act: str, turns: int | None, then: int | None) -> None:
        """At the deadline of a wait, before anything is done about it, something else happens to its run."""
        run, call = _pick(self._timed(), which)
        assert call.deadline is not None
        self.world.jump(call.deadline, microseconds)
        if turns is not None:
            self.world.turn(turns)
        if act == "give" and call.kind == "signal":
            self._send(run, call.name)
        elif act == "give" and call.kind == "question":
            self._answer(run, call.name, call.key)
        elif act in {"cancel", "pause"}:
            self._ask(run, act)
        elif act == "kill":
            self.world.leave("kill", Life(), 0.0)
        self.world.turn(then)

    @precondition(lambda self: self.world.plays)
    @rule(
        commits=st.integers(min_value=0, max_value=6),
        lands=st.booleans(),
        life=_lives,
        downtime=st.sampled_from((0.0, 0.0, 1.0, 7.0)),
        turns=_turns,
    )
    def kill(self, commits: int, lands: bool, life: Life, downtime: float, turns: int | None) -> None:
        """Kill the process now, or at a commit to come, which is the last or was not made."""
        if commits:
            self.world.crash_in(commits, lands=lands, life=life, downtime=downtime)
        else:
            self.world.leave("kill", life, downtime)
        self.world.turn(turns)

    @precondition(lambda self: self.world.plays)
    @rule(how=st.sampled_from(("close", "interrupt")), life=_lives, downtime=st.sampled_from((0.0, 7.0)), turns=_turns)
    def leave(self, how: str, life: Life, downtime: float, turns: int | None) -> None:
        """Close the engine, or let the program end."""
        self.world.leave(how, life, downtime)
        self.world.turn(turns)

    # Inner part ------------------------------------------------------------------------------------------------------

    def _waits(self, *kinds: str) -> list[tuple[Play, Call]]:
        return [(play, call) for play in self.world.plays for call in play.body.open.values() if call.kind in kinds]

    def _timed(self) -> list[tuple[Play, Call]]:
        waits = self._waits("signal", "question", "sleep")
        return [
            (play, call) for play, call in waits if call.deadline is not None and self.world.is_ahead(call.deadline)
        ]

    def _number(self) -> str:
        self._count += 1
        return str(self._count)

    def _send(self, run: Play, signal: str, *, dedupe: bool = False) -> str:
        number = self._number()
        message, key = SIGNALS[signal](n=number), number if dedupe else None
        self.world.ask(lambda engine: engine.run(run.id).signal(message, dedupe=key))
        return number

    def _answer(self, run: Play, point: str, key: str | None, *, early: bool = False) -> None:
        answer = int(self._number())
        self.world.ask(lambda engine: engine.run(run.id).answer(POINTS[point], answer, key=key, early=early))

    def _ask(self, run: Play, what: str) -> None:
        accepted = run.promise_pause if what == "pause" else None
        self.world.ask(lambda engine: getattr(engine.run(run.id), what)(), accepted)


def _pick(some: Sequence[T], which: int) -> T:
    return some[which % len(some)]

"""One case while it is played: the scene of its programs, the clients of its runs, one process after the other."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from durable_sqlite import DurableError, Engine, State
from durable_sqlite._context import StepInfo
from durable_sqlite._records import Memory, RunRow
from tests.campaigns.bodies.replays import check_replay
from tests.support.memory_journal import Disk

from .acts import POINTS, SIGNALS, Ping, Pong, Stage
from .bodies import Call
from .facts import Broken
from .model import Play
from .processes import Life, Process
from .programs import Node, by_name
from .witness import Witness, agree

__all__ = ["World"]

_TICK = 0.001  # seconds that pass between what one rule does and the next
_MOST_COMMITS = 100  # without a rest, after which a process writes for ever
_HELPS = 300  # times that every run is helped on, after which it must have ended


class World:
    """All processes of a case, and the witness of what they do."""

    def __init__(self, life: Life) -> None:
        self.started = 0
        self.broken = False
        """The engine and the model do not agree: there is nothing more to be seen."""
        self._stage = Stage()
        self._stage.scene = self
        self._programs: dict[str, Node] = {}
        self._disk = Disk()
        self._witness = Witness(self._disk, self.program)
        self._next = (life, 0.0)
        self._process = self._begin(life, 0.0)

    @property
    def plays(self) -> list[Play]:
        """What the model knows of each run, in the order in which they were started."""
        return list(self._witness.plays.values())

    @property
    def counts(self) -> dict[str, int]:
        """How often things happened."""
        return dict(self._witness.counts)

    # As programs and steps see it ------------------------------------------------------------------------------------

    def program(self, name: str) -> Node:
        """The program of this name."""
        return self._programs[name]

    def began(self, info: StepInfo) -> None:
        """An attempt's body begins."""
        self._witness.began(info)

    def gone(self, info: StepInfo, *, performed: bool) -> None:
        """An attempt's body is over; if `performed`, its effect has happened."""
        self._witness.gone(info, performed=performed)

    def had_effect(self, info: StepInfo) -> bool:
        """Whether the effect of a step has happened."""
        return self._witness.had_effect(info)

    # Clients ---------------------------------------------------------------------------------------------------------

    def ask(self, what: Callable[[Engine], Awaitable[object]], accepted: Callable[[], None] | None = None) -> None:
        """Let a client ask something, and do not wait for what comes of it; the model hears `accepted` when it is."""
        engine = self._process.engine

        async def client() -> None:
            got = "accepted"
            try:
                await what(engine)
                if accepted is not None:
                    self._witness.note(accepted)
            except DurableError as error:
                got = type(error).__name__
            self._witness.answered(asyncio.current_task(), got)

        self._process.loop.create_task(client())

    def start(self, program: Node, *, deadline: float | None, message: Ping | Pong | None) -> None:
        """Start a run."""
        name = f"run-{self.started}"
        self.started += 1
        self._programs.update(by_name(name, program))
        self._start(name, deadline, message)

    def start_again(self, which: int) -> None:
        """Start a run that was started before."""
        self._start(f"run-{which % self.started}", None, None)

    def _start(self, name: str, deadline: float | None, message: Ping | Pong | None) -> None:
        play = self._stage.workflow.options(id=name, deadline=deadline)

        async def start(engine: Engine) -> None:
            here = play.options(engine=engine)
            await (here.start(name) if message is None else here.signal_with_start(message, name))

        self.ask(start)

    # Time and processes ----------------------------------------------------------------------------------------------

    def turn(self, turns: int | None) -> None:
        """Let the process do what there is to do now, or so many turns of it; then the engine and the model must agree."""
        process = self._process
        if turns is None:
            for _ in range(_MOST_COMMITS):
                process.run(process.loop.time() + (0.5 if process.journal.busy else 0.0))
                if process.died or not process.journal.busy:
                    break
            else:
                raise Broken("the engine writes and writes")
        elif turns:
            process.run(process.loop.time(), turns)
        if process.died:
            self._bury(*self._next)
            if turns is None:
                self.turn(None)
                return
        self._check(rests=turns is None)

    def forward(self, seconds: float) -> None:
        """Let time pass."""
        process = self._process
        until = process.loop.time() + seconds
        process.run(until)
        if not process.died:
            process.loop.forward(until)
        self.turn(None)

    def is_ahead(self, moment: int) -> bool:
        """Whether a time is still to come."""
        return moment > self._now()

    def jump(self, moment: int, microseconds: int) -> None:
        """Put the clock to a time, or so far beside it, and let nothing happen yet."""
        loop = self._process.loop
        loop.forward(loop.time() + (moment - self._now() + microseconds) / 1_000_000)

    def leave(self, how: str, life: Life, downtime: float) -> None:
        """Let the process end by itself, or kill it, and another one begin after a while."""
        self._witness.counts[how] += 1
        if how != "kill":
            self._process.leave(how)
        self._bury(life, downtime)

    def crash_in(self, commits: int, *, lands: bool, life: Life, downtime: float) -> None:
        """Let the process die at a commit to come, and another one begin after a while."""
        self._next = (life, downtime)
        self._process.journal.crash_in(commits, lands=lands)

    def _now(self) -> int:
        return self._process.clock.now()

    def _begin(self, life: Life, now: float) -> Process:
        return Process(self._disk, self._stage, life, now, self._witness)

    def _bury(self, life: Life, downtime: float) -> None:
        self._witness.counts["processes"] += 1
        self._witness.counts["crash"] += self._process.died
        self._process.put_away()
        self._witness.process_ended()
        self._process = self._begin(life, self._process.loop.time() + downtime)

    def _check(self, *, rests: bool) -> None:
        self.broken = True
        self._witness.hear(self._now())
        if rests:
            self._witness.at_rest(self._process.life, self._now())
            self._process.loop.forward(self._process.loop.time() + _TICK)
        self.broken = False

    # At the end ------------------------------------------------------------------------------------------------------

    def heal(self) -> None:
        """Bring every run to its end: without any more crashes, with an answer and a message for each that waits."""
        self._process.journal.crash_in(0, lands=False)
        self.turn(None)
        self.leave("close", Life(), 0.0)
        for number in range(_HELPS):
            self.turn(None)
            left = [play for play in self.plays if not play.end]
            if not left:
                self._look_back()
                return
            for play in left:
                self._help(play, number)
            self.turn(None)
            self.forward(20.0)
        raise Broken(f"runs never end: {[(play.id, list(play.body.open)) for play in self.plays if not play.end]}")

    def _help(self, play: Play, number: int) -> None:
        if play.paused:
            self.ask(lambda engine: engine.run(play.id).resume())
        for call in play.body.open.values():
            if call.kind in {"signal", "question"}:
                self._give(play, call, number)

    def _give(self, play: Play, call: Call, number: int) -> None:
        if call.kind == "signal":
            message = SIGNALS[call.name](n=f"help {number} {call.key}")
            self.ask(lambda engine: engine.run(play.id).signal(message))
        else:
            point = POINTS[call.name]
            self.ask(lambda engine: engine.run(play.id).answer(point, number, key=call.key))

    def _look_back(self) -> None:
        """Look at every run as people do, and drive it once more from the top."""
        self.broken = True
        memories: list[tuple[RunRow, Memory]] = []
        self._process.finish(self._look(memories))
        for row, memory in memories:
            surprises = check_replay(row, memory, self._stage.workflow.spec, self._process.loop.time())
            agree(f"{row.id}, driven once more", surprises, [])
        self.broken = False

    async def _look(self, memories: list[tuple[RunRow, Memory]]) -> None:
        for play in self.plays:
            run, row = self._process.engine.run(play.id), self._witness.row(play)
            info, messages = await run.info(), await run.messages()
            agree(f"the public view of {play.id}", (info.state.value, info.waiting_for), (play.end, ()))
            listed = [(message.name, message.message["n"]) for message in messages]
            agree(f"the messages of {play.id}", listed, [(letter.name, letter.value) for letter in play.mail])
            self._witness.counts[play.end] += 1
            memory = await self._process.journal.memory(row.no)
            if not play.terminated and (row.state is not State.CANCELLED or play.told == "cancel"):
                memories.append((row, memory))  # else its body did not hear of its end

    def close(self) -> None:
        """Put everything away."""
        self._process.put_away()
        self._witness.close()
        self._disk.tables.close()

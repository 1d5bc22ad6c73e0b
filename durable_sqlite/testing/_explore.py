"""Runs a workflow with a crash at each side of each of its writes, and says where it ends differently."""

# What only this asks of a harness is none of a test's business.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import inspect
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from .._codec._faithful import same
from .._handle import Run
from .._records import HistoryEntry, RunInfo, State
from .._workflows import Workflow
from ..errors import UsageError
from ._faults import Crashed, Effects, Line, Origin
from ._store import Store

if TYPE_CHECKING:
    from ._harness import Harness  # which explores

__all__ = ["CrashFound", "Explored", "Explorer", "Point", "Script", "Story"]

Script = Callable[["Harness", Run[Any]], object]

_POINT = re.compile(r"(before|after) write ([1-9][0-9]*)")


class CrashFound(AssertionError):
    """After a crash a run ends differently. The message says where the crash was, what differs, and how to repeat it."""

    def __init__(self, message: str, point: str) -> None:
        super().__init__(message)
        self.point = point
        """Where the crash was: what `only=` takes."""


@dataclass(frozen=True, slots=True)
class Explored:
    """What `crash_everywhere` has seen: nothing differed."""

    writes: tuple[str, ...]
    """What each write of the undisturbed run was about."""
    crashes: int
    """At how many points the process died."""
    result: Any
    """What the run returned; None where it failed."""
    effects: tuple[Any, ...]
    """What the undisturbed run did to the world."""


@dataclass(frozen=True, slots=True)
class Point:
    """One side of one write of one process."""

    write: int
    """Counted from 1."""
    landed: bool

    def __str__(self) -> str:
        return f"{'after' if self.landed else 'before'} write {self.write}"


Crashes = tuple[Point, ...]
"""Where one process after the other dies."""


@dataclass(frozen=True, slots=True)
class _Told:
    """What a run came to."""

    info: RunInfo
    result: Any
    history: dict[str, HistoryEntry]
    effects: tuple[tuple[Any, Origin], ...]
    writes: tuple[tuple[str, ...], ...]
    """What the writes of each process were about."""
    lines: dict[tuple[str, str], Line]
    diverged: Line | None
    died: tuple[str, ...]

    @property
    def end(self) -> str:
        """How it ended, in words."""
        info = self.info
        why = f" ({info.reason})" if info.reason else ""
        error = "" if info.error is None else f": {info.error.type}: {info.error.message}"
        return f"{info.state.value}{why}{error}"


class Explorer:
    """Tells what happens in a run once for each point at which its process may die.

    Args:
        another: Makes a harness on which nothing has happened, on a copy of a journal if one is given.
        workflow: The workflow.
        effects: What it does to the world.
        script: What the application does.
        setup: Is called before each run.
        nested: Let the process that takes over crash as well.
        repeats: A step that was in flight may repeat its effects.
        downtime: How much time passes between two processes.
        only: The one point to crash at.
    """

    def __init__(
        self,
        another: Callable[[Store | None], Harness],
        workflow: Workflow[..., Any],
        effects: Effects,
        *,
        script: Script | None,
        setup: Callable[[], object] | None,
        nested: bool,
        repeats: bool,
        downtime: float | timedelta,
        only: str | None,
    ) -> None:
        if not isinstance(workflow, Workflow):
            raise UsageError(f"crash_everywhere() takes a workflow, not {workflow!r}")
        self.workflow = workflow
        self._another = another
        self._effects = effects
        self._script = script
        self._setup = setup
        self._nested = nested
        self._repeats = repeats
        self._downtime = downtime
        self._only = None if only is None else _read(only)
        self._narrowed: Crashes | None = None
        self._template: Store | None = None

    @property
    def needs_input(self) -> bool:
        """Whether the workflow has a parameter without a default."""
        parameters = inspect.signature(self.workflow.fn).parameters.values()
        packed = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
        return any(each.default is each.empty and each.kind not in packed for each in parameters)

    def close(self) -> None:
        """Let go of what was kept for the next run."""
        if self._template is not None:
            self._template.close()

    def narrow(self, point: str) -> None:
        """From now on, crash there only, and not at all where a run does not come that far."""
        self._narrowed = _read(point)

    def explore(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Explored:
        """Crash everywhere, with this input.

        Raises:
            CrashFound: Something differs after a crash.
        """
        if self._template is None:
            empty = self._another(None)
            empty.restart()
            self._template = empty._leave()  # so that the journal is made once
        base = self._tell((), args, kwargs)
        if not base.info.state.stopped:
            waits = "; ".join(base.info.waiting_for)
            raise UsageError(
                f"{self.workflow.name} does not end by itself: it waits for {waits or 'nothing that time brings'}. "
                "Give crash_everywhere(script=...) a function that sends it"
            )
        crashes = 0
        for path in self._paths(base, args, kwargs):
            told = self._tell(path, args, kwargs)
            crashes += len(told.died)
            self._compare(base, told, path, args, kwargs)
        done = tuple(effect for effect, _ in base.effects)
        return Explored(base.writes[0], crashes, base.result, done)

    def _paths(self, base: _Told, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[Crashes]:
        if self._only is not None:
            if self._only[0].write > len(base.writes[0]):
                raise UsageError(
                    f"there is no {self._only[0]}: undisturbed, the run makes {len(base.writes[0])} writes"
                )
            yield self._only
            return
        if self._narrowed is not None:
            if self._narrowed[0].write <= len(base.writes[0]):
                yield self._narrowed
            return
        for first in _sides(len(base.writes[0])):
            yield (first,)
            if self._nested:
                rest = self._tell((first,), args, kwargs).writes[-1]
                for second in _sides(len(rest)):
                    yield (first, second)

    def _tell(self, path: Crashes, args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Told:
        if self._setup is not None:
            self._setup()
        self._effects.clear()
        scene = self._another(self._template)
        try:
            return _Telling(scene, self, path).tell(args, kwargs)
        finally:
            scene.close()

    def tell_on(self, scene: Harness, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        """What the application does, from its beginning; the id of the run."""
        chosen = self.workflow if self.workflow.chosen.id else self.workflow.options(id=self.workflow.name)
        run = scene.start(chosen, *args, **kwargs)
        if self._script is not None:
            self._script(scene, run)
        scene._finish(run)
        return run.id

    @property
    def downtime(self) -> float | timedelta:
        """How much time passes between two processes."""
        return self._downtime

    # What differs ----------------------------------------------------------------------------------------------------

    def _compare(self, base: _Told, told: _Told, path: Crashes, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        found = (
            self._other_end(base, told) or self._other_result(base, told) or self._other_effects(base, told, len(path))
        )
        if not found:
            return
        name = self.workflow.name
        given = ", ".join([*map(repr, args), *(f"{key}={value!r}" for key, value in kwargs.items())])
        head = f"{name} ends differently after a crash {_and_then(told.died)}"
        place = ", ".join(map(str, path))
        again = ", ".join(
            each for each in (name, given, "script=..." if self._script else "", f'only="{place}"') if each
        )
        lines = [head, *self._made_by(told), *found, f"To repeat this one: durable.crash_everywhere({again})"]
        raise CrashFound("\n  ".join(lines), place)

    def _made_by(self, told: _Told) -> list[str]:
        """The lines of the calls that the crashes were about."""
        found: list[str] = []
        for died in told.died:
            found += [
                f"{key} is called at {line}"
                for (_, key), line in told.lines.items()
                if re.search(rf"(?<![\w/]){re.escape(key)}(?!\w)", died)
            ]
        return list(dict.fromkeys(found))

    def _other_end(self, base: _Told, told: _Told) -> list[str]:
        if (base.info.state, base.info.reason) == (told.info.state, told.info.reason) and (_said(base) == _said(told)):
            return []
        found = [f"Without it the run is {base.end}", f"With it the run is {told.end}"]
        if told.diverged is not None:
            found += [
                f"It went another way when it was run again, at {told.diverged}",
                "What a body does must be the same each time: take chance, time and the world from steps, random() and now()",
            ]
        return found

    def _other_result(self, base: _Told, told: _Told) -> list[str]:
        if same(base.result, told.result):
            return []
        found = [f"Without it the result is {base.result!r}", f"With it the result is {told.result!r}"]
        for key, entry in base.history.items():
            other = told.history.get(key)
            if other is None or not same(other.value, entry.value):
                was = "is not recorded" if other is None else f"gave {other.value!r}"
                line = told.lines.get((told.info.id, key))
                called = "" if line is None else f", called at {line}"
                found.append(f"The first difference: {key} gave {entry.value!r} without it, and {was} with it{called}")
                break
        else:
            found.append(
                "Every step gave the same, so the body itself differs: chance, time and the world belong in steps"
            )
        return found

    def _other_effects(self, base: _Told, told: _Told, crashes: int) -> list[str]:
        once, now = _count(base), _count(told)
        for what in dict.fromkeys([*now, *once]):
            (text, step), usual, often = what, once[what], now[what]
            if often == usual:
                continue
            if step is not None and self._repeats and usual < often <= usual * (1 + crashes):
                continue  # it was in flight
            lines = [
                origin.line for effect, origin in (*told.effects, *base.effects) if (repr(effect), origin.step) == what
            ]
            where = "the body of the workflow, outside of any step" if step is None else f"step {step}"
            found = [f"The effect {text} happened {_times(often)}; without the crash, {_times(usual)}"]
            found.append(f"It comes from {where}: {lines[0]}")
            if step is None:
                found.append(
                    "A body is run again from its top after a crash: what it does to the world belongs in a step"
                )
            return found
        return []


class Story:
    """What happens in a run of `crash_everywhere`, told once more after a crash."""

    def __init__(self, begin: int) -> None:
        self._begin = begin
        self.again = False
        self.tell(again=False)

    def tell(self, *, again: bool) -> None:
        """It begins, perhaps not for the first time."""
        self.again = again
        self._time, self._number = self._begin, 0

    def later(self, length: int) -> int:
        """When the story has gone on for this long."""
        self._time += length
        return self._time

    def name(self) -> str:
        """The name of the next thing that is sent: the same whenever the story is told."""
        self._number += 1
        return f"script-{self._number}"


class _Telling:
    """One run in one or more processes.

    Args:
        scene: Where.
        explorer: What happens.
        path: Where the processes die.
    """

    def __init__(self, scene: Harness, explorer: Explorer, path: Crashes) -> None:
        self._scene = scene
        self._explorer = explorer
        self._path = path

    def tell(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Told:
        """Let it happen, to its end."""
        scene = self._scene
        writes: list[tuple[str, ...]] = []
        died: list[str] = []
        begun = False
        points = list(self._path)
        while True:
            scene._begin_story(again=begun)
            if points:
                point = points.pop(0)
                scene.crash(at=point.write, landed=point.landed)
            try:
                scene.restart(after=self._explorer.downtime if begun else 0)
                run_id = self._explorer.tell_on(scene, args, kwargs)
            except Crashed as crash:
                died.append(str(crash).removeprefix("the process died "))
            else:
                return self._told(run_id, (*writes, scene.writes), tuple(died))
            begun = True
            writes.append(scene.writes)

    def _told(self, run_id: str, writes: tuple[tuple[str, ...], ...], died: tuple[str, ...]) -> _Told:
        scene = self._scene
        info = scene.info(run_id)
        history = {entry.key: entry for entry in scene.history(run_id) if entry.seq}
        result = scene.result(scene._typed(self._explorer.workflow, run_id)) if info.state is State.COMPLETED else None
        lines, diverged = scene._seen(run_id)
        effects = tuple(scene.effects.noted)
        return _Told(info, result, history, effects, writes, lines, diverged, died)


def _said(told: _Told) -> tuple[str, str] | None:
    error = told.info.error
    return None if error is None else (error.type, error.message)


def _count(told: _Told) -> Counter[tuple[str, str | None]]:
    return Counter((repr(effect), origin.step) for effect, origin in told.effects if origin.run_id is not None)


def _times(number: int) -> str:
    return {0: "never", 1: "once", 2: "twice"}.get(number, f"{number} times")


def _and_then(died: tuple[str, ...]) -> str:
    return ", and then ".join(died)


def _sides(writes: int) -> Iterator[Point]:
    for number in range(1, writes + 1):
        yield Point(number, landed=False)
        yield Point(number, landed=True)


def _read(only: str) -> Crashes:
    points = [_POINT.fullmatch(part.strip()) for part in only.split(",")]
    if not all(points):
        raise UsageError(f'only= takes a point as a report names it, such as "before write 3", not {only!r}')
    return tuple(Point(int(point[2]), landed=point[1] == "after") for point in points if point is not None)

"""Plain asyncio in bodies: docs/asyncio.md says of each part what is recorded, and each row is held to it over crashes."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pytest

from durable_sqlite import RunCancelled, WrongState, current_step, sleep, step, workflow
from tests.behaviour.asyncio_bodies import SAMPLES, Sample, Scene
from tests.support.crash_points import Teller, crash_everywhere, tell
from tests.support.disk import Disk
from tests.support.house import ROOT
from tests.support.memory_journal import MemoryJournal
from tests.support.sim_loop import SimClock, SimLoop

RESIDENT = 1_000_000.0  # seconds after which a suspended body leaves memory: never
UNLOADED = 0.0
PAGE = ROOT / "docs" / "asyncio.md"

each_row = pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.row.replace("`", ""))


@dataclass(frozen=True, slots=True)
class Seen:
    """What must be the same, whichever process dies."""

    gives: Any
    records: list[str]
    """Key and kind of what the sample records, in its order."""
    trace: list[str]
    """What the last pass has seen, from the top of the body."""


class Stage:
    """Where one sample is played, by one process or by two."""

    def __init__(self, sample: Sample) -> None:
        self.begun: list[str] = []
        """Keys of the steps that began, as often as they did."""
        self.given_up: set[str] = set()
        """Keys of the steps that were cancelled."""
        self.scenes: list[Scene] = []
        """One for each pass."""
        self._sample = sample
        self._wrong: list[str] = []
        self._disk = Disk()

        @step
        async def fetch(name: str, seconds: float = 1.0) -> str:
            key = current_step().key
            self.begun.append(key)
            if key in self.given_up or key in self._disk.kept[1]:
                self._wrong.append(f"{key} began again after it was given up or recorded")
            try:
                await asyncio.sleep(seconds)
            except asyncio.CancelledError:
                self.given_up.add(key)
                raise
            if name == "bad":
                raise ValueError(name)
            return name

        @workflow
        async def play() -> Any:
            scene = Scene(fetch)
            self.scenes.append(scene)
            try:
                gives = await sample.play(scene)
                scene.note(gives)
                return gives
            finally:
                await sleep(1)  # so that a process may die when all that the sample records is recorded

        self.workflow = play

    async def story(self, teller: Teller) -> Seen:
        """Start the run or go on with it, cancel it where the sample says so, and wait for its end."""
        self._enter(teller)
        run = await self.workflow.options(id="x").start()
        if self._sample.cancel_after is not None:
            await teller.at(self._sample.cancel_after)
            with suppress(WrongState):
                await run.cancel()
        try:
            gives = await run
        except RunCancelled as cancelled:
            gives = type(cancelled).__name__
        trace = self.scenes[-1].seen
        assert all(trace[: len(scene.seen)] == scene.seen for scene in self.scenes), "a pass has seen something else"
        assert not self._wrong
        entries = sorted(self._disk.kept[1].values(), key=lambda entry: entry.seq)
        return Seen(gives, [f"{entry.key} {entry.kind}" for entry in entries if entry.key != "sleep#1"], trace)

    def _enter(self, teller: Teller) -> None:
        assert teller.engine._session is not None
        journal = teller.engine._session.journal
        assert isinstance(journal, MemoryJournal)
        if journal.disk is not self._disk:  # told anew, and not gone on with
            self._disk = journal.disk
            self.begun.clear()
            self.given_up.clear()
            self.scenes.clear()

    async def timed(self, teller: Teller) -> Any:
        """The story of a sample whose timer is to fire five seconds after its run was created."""
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SimLoop)
        opened_at = SimClock(loop).now()
        self._enter(teller)
        fired_before = self._timers()
        seen = await self.story(teller)
        assert self._timers() == (fired_before or [max(self._disk.runs[1].created_at + 5_000_000, opened_at)])
        return seen.gives

    def _timers(self) -> list[int]:
        return [entry.at for entry in self._disk.kept.get(1, {}).values() if entry.kind == "timer"]


@each_row
def test_a_body_records_what_the_page_says_and_nothing_else(sample: Sample) -> None:
    stage = Stage(sample)
    seen = tell(stage.story, stage.workflow, unload_after=RESIDENT).returned
    assert seen.gives == sample.gives
    assert seen.records == list(sample.records)
    recorded = [record.removesuffix(" step") for record in sample.records if record.endswith(" step")]
    assert Counter(stage.begun) == Counter([*recorded, *sample.gives_up])
    assert stage.given_up == set(sample.gives_up)


@each_row
def test_a_body_comes_out_alike_when_it_is_unloaded_at_every_wait(sample: Sample) -> None:
    stage = Stage(sample)
    resident = tell(stage.story, stage.workflow, unload_after=RESIDENT)
    assert tell(stage.story, stage.workflow, unload_after=UNLOADED) == resident


@each_row
@pytest.mark.parametrize("unload_after", [RESIDENT, UNLOADED], ids=["resident", "unloaded"])
def test_a_body_comes_out_alike_after_a_crash_at_any_write_and_begins_nothing_recorded_again(
    sample: Sample, unload_after: float
) -> None:
    stage = Stage(sample)
    crash_everywhere(stage.story, stage.workflow, unload_after=unload_after, effects=stage.begun)


@pytest.mark.parametrize("unload_after", [RESIDENT, UNLOADED], ids=["resident", "unloaded"])
@pytest.mark.parametrize("downtime", [0.0, 2.0, 1_000.0])
@pytest.mark.parametrize(
    "row",
    ["`asyncio.sleep(5)`", "`asyncio.timeout(5)`, too late", "`asyncio.wait_for(visit(), 5)`, too late"],
    ids=["sleep", "timeout", "wait_for"],
)
def test_a_crash_does_not_move_a_deadline_of_asyncio_and_a_downtime_makes_it_late_never_early(
    row: str, downtime: float, unload_after: float
) -> None:
    (sample,) = (sample for sample in SAMPLES if sample.row == row)
    stage = Stage(sample)

    async def story(teller: Teller) -> Any:
        gives = await stage.timed(teller)
        if teller.retold and downtime > 5:  # the deadline came in the meantime
            assert stage.begun in ([], ["fetch#1"]), "a step began again whose time was over"
        return gives

    assert (
        crash_everywhere(story, stage.workflow, unload_after=unload_after, downtime=downtime).returned == sample.gives
    )


def test_the_tables_of_the_page_and_the_bodies_that_hold_them_are_the_same() -> None:
    lines = re.findall(r"^\|(.*)\|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    cells = [[cell.strip() for cell in line.split("|")] for line in lines]
    heads = [row for row in cells if row[0] == "in a body"]
    rows = [row for row in cells if row[0] != "in a body" and not row[0].startswith("---")]
    assert {tuple(head[:2]) for head in heads} == {("in a body", "recorded")}
    assert [row[:2] for row in rows] == [[sample.row, recorded(sample)] for sample in SAMPLES]
    refused = [row for row in rows if len(row) == 3]
    assert [row[0] for row in refused] == [sample.row for sample in SAMPLES if sample.gives in REFUSALS]
    assert all(
        row[2].startswith(f"`{sample.gives}`") for row, sample in zip(rows, SAMPLES, strict=True) if row in refused
    )


REFUSALS = ("NotDurable", "RuntimeError")


def recorded(sample: Sample) -> str:
    """What a sample records, as the page writes it."""
    entries = [record.split() for record in sample.records]
    return ", ".join(f"`{key}` {kind}" for key, kind in entries) or "nothing"

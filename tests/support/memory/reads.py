"""What is read."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from durable_sqlite._records import (
    Entry,
    Mail,
    Memory,
    News,
    OpenQuestion,
    Pulse,
    QuestionQuery,
    RunQuery,
    RunRow,
    State,
    Wait,
    WorkerRow,
)
from tests.support.disk import ENDED, fits, is_ready
from tests.support.memory.door import Door

__all__ = ["Reads"]


class Reads(Door):
    """The reads."""

    async def run(self, run_id: str, *, patient: bool = False) -> RunRow | None:
        """The run of this id, or None."""
        await self._alive()
        return self.disk.by_id(run_id)

    async def runs(self, query: RunQuery) -> list[RunRow]:
        """The runs that a query asks for."""
        await self._alive()
        found = sorted((row for row in self.disk.runs.values() if fits(row, query)), key=lambda row: row.no)
        if query.newest_first:
            found.reverse()
        after = query.after
        if after is not None:
            found = [row for row in found if (row.no < after if query.newest_first else row.no > after)]
        return found[: query.limit]

    async def count(self, query: RunQuery) -> int:
        """How many runs a query asks for."""
        return len(await self.runs(replace(query, limit=None)))

    async def changes(self, query: RunQuery, since: int) -> list[RunRow]:
        """The runs that changed."""
        await self._alive()
        found = [row for row in self.disk.runs.values() if row.changed > since and fits(row, query)]
        found.sort(key=lambda row: (row.changed, row.no))
        # What one commit changed stays together: whoever goes on from the last number would miss the rest.
        last = {row.changed for row in found[: query.limit]}
        return [row for row in found if row.changed in last]

    async def stops(self, since: int) -> tuple[int, list[int]]:
        """The runs that stopped."""
        await self._alive()
        last = max((row.changed for row in self.disk.runs.values()), default=0)
        found = [row.no for row in self.disk.runs.values() if row.changed > since and row.state.stopped]
        return max(last, since), sorted(found)

    async def pulse(self) -> Pulse:
        """How many commits there were."""
        await self._alive()
        return Pulse(self.disk.commits, self.disk.commits - self.commits)

    def seems_still(self, since: Pulse) -> bool:
        """Nothing shows without a look here."""
        return False

    async def entries(self, run: int) -> list[Entry]:
        """All entries of a run by their order."""
        await self._alive()
        return sorted(self.disk.kept.get(run, {}).values(), key=lambda entry: entry.seq)

    async def memory(self, run: int) -> Memory:
        """All that is known of what a run has done and waits for."""
        entries, waits = await self.entries(run), await self.waits(run)
        if run not in self.disk.runs:
            return Memory()
        return Memory(
            entries,
            waits,
            [attempt for _, attempt in sorted(self.disk.failed.get(run, {}).items())],
            sorted(self.disk.intents.get(run, {}).values(), key=lambda intent: intent.key),
            [message for message in self.disk.mail[run] if message.taken_by is None],
            self.disk.questions(run),
            [row.id for row in self.disk.runs.values() if row.parent == run and not row.state.stopped],
        )

    async def memories(self, runs: Sequence[int]) -> list[Memory]:
        """The memory of each of these runs."""
        return [await self.memory(run) for run in runs]

    async def waits(self, run: int) -> list[Wait]:
        """What a run waits for, or waited for."""
        await self._alive()
        return sorted(self.disk.open_waits.get(run, ()), key=lambda wait: (wait.since, wait.key))

    async def mail(self, run: int, awaited: Collection[str] = ()) -> Mail:
        """What has come for a run."""
        await self._alive()
        found = [row for row in map(self.disk.by_id, awaited) if row is not None and row.state in ENDED]
        if run not in self.disk.runs:
            return Mail(ended=found)
        return Mail(self.disk.waiting_mail(run), self.disk.unrecorded_answers(run), found)

    async def questions(self, query: QuestionQuery) -> list[OpenQuestion]:
        """The open questions that a query asks for."""
        await self._alive()
        found = sorted(
            (
                OpenQuestion(row.id, row.workflow, question)
                for row in self.disk.runs.values()
                if query.run_id in {None, row.id} and query.workflow in {None, row.workflow}
                for question in self.disk.asked[row.no].values()
                if question.is_open and query.name in {None, question.name}
            ),
            key=_place,
        )
        return [each for each in found if query.after is None or _place(each) > query.after][: query.limit]

    async def news(self) -> list[News]:
        """What the runs that this worker drives may not have heard of."""
        await self._alive()
        mine = [row for row in self.disk.runs.values() if row.owner == self.me]
        return [News(row.no, self.disk.unheard(row), row.pause) for row in mine if self._has_news(row)]

    def _has_news(self, row: RunRow) -> bool:
        mail = self.disk.waiting_mail(row.no) or self.disk.unrecorded_answers(row.no)
        kept = self.disk.kept[row.no]
        ended = any(self.disk.has_ended(wait.target) and wait.key not in kept for wait in self.disk.open_waits[row.no])
        return bool(mail) or ended or self.disk.unheard(row) is not None or row.pause is not None

    async def ready(self, workflows: Collection[str], now: int, *, only: Collection[str] | None = None) -> bool:
        """Whether `claim` would find a run."""
        await self._alive()
        return any(row.workflow in workflows and is_ready(row, now) for row in self.disk.wanted(only))

    async def next_due(self, workflows: Collection[str], *, only: Collection[str] | None = None) -> int | None:
        """When the next run at rest is due, or None."""
        await self._alive()
        due = [row.due_at for row in self.disk.wanted(only) if row.due_at is not None and row.workflow in workflows]
        return min(due, default=None)

    async def backlog(self) -> list[tuple[str, str, int]]:
        """What waits to be driven, by workflow and origin."""
        await self._alive()
        counts: dict[tuple[str, str], int] = {}
        for row in self.disk.runs.values():
            if row.state in (State.PENDING, State.SUSPENDED, State.PAUSED):
                counts[row.workflow, row.origin] = counts.get((row.workflow, row.origin), 0) + 1
        return [(workflow, origin, number) for (workflow, origin), number in sorted(counts.items())]

    async def strangers(self, known: Collection[str]) -> list[tuple[str, str]]:
        """The workflows besides those known."""
        found = {name: origin for name, origin, _ in reversed(await self.backlog()) if name not in known}
        return sorted(found.items())

    async def workers(self) -> list[WorkerRow]:
        """All other workers."""
        await self._alive()
        return self.disk.workers(but=self.me)


def _place(each: OpenQuestion) -> tuple[int, str, str]:
    return each.question.at, each.run_id, each.question.key

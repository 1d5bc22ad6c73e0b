"""What a transaction asks of runs: written out as the journal takes it, and told to whoever drives them once it is committed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ._clock import Clock
from ._codec import Vault
from ._ids import derived
from ._records import NewMessage, NewRun, RunRow
from ._specs import SendMessage, StartOptions, WorkflowSpec

__all__ = ["Orders", "Origin"]


@dataclass(frozen=True, slots=True)
class Origin:
    """The step of a run in whose transaction runs are started: they are its children."""

    run: int
    """The run's number."""
    uid: str
    """Its own random identity."""
    key: str
    """The step's key."""

    def ids(self, _at: int, number: int) -> tuple[str, str]:
        """Id and uid of the run that the step starts as its `number`th, the same whenever it is tried."""
        return derived(self.uid, self.key, str(number)), derived(self.uid, self.key, str(number), "uid")


class Orders:
    """The orders of one transaction. Its body may be called more than once, so each call begins them anew.

    Args:
        vault: Seals what is stored.
        clock: The time of what is sent.
        ids: Makes id and uid of the run that is started as the nth at some time.
        origin: The step whose transaction this is, if it is one's.
    """

    def __init__(
        self, vault: Vault, clock: Clock, ids: Callable[[int, int], tuple[str, str]], origin: Origin | None = None
    ) -> None:
        self._vault = vault
        self._clock = clock
        self._ids = ids
        self._origin = origin
        self._workflows: list[WorkflowSpec] = []
        self._rows: dict[str, RunRow] = {}

    def begin(self) -> None:
        """Forget what an earlier call of the body ordered: it was undone."""
        self._workflows.clear()
        self._rows.clear()

    def new_run(
        self, workflow: WorkflowSpec, args: tuple[Any, ...], kwargs: Mapping[str, Any], options: StartOptions
    ) -> NewRun:
        """A run to be started.

        Raises:
            Unstorable: An argument cannot be stored; the message has its path.
        """
        at = self._clock.now()
        origin = self._origin
        made_id, uid = self._ids(at, len(self._workflows))
        run_id = options.id or made_id
        where = f"run {run_id}: input"
        bound = workflow.parameters.bind(args, kwargs)
        new = NewRun(
            id=run_id,
            uid=uid,
            workflow=workflow.name,
            origin=workflow.origin,
            version=workflow.version,
            input=self._vault.seal(workflow.parameters.dump(bound, where), where),
            input_digest=workflow.parameters.digest(bound, where),
            at=at,
            tags=options.tags,
            deadline=options.deadline,
            parent=None if origin is None else origin.run,
            parent_key=None if origin is None else origin.key,
            detached=options.detached,
        )
        self._workflows.append(workflow)
        return new

    def new_message(self, message: SendMessage) -> NewMessage:
        """A message to be sent."""
        where = f"run {message.run_id}: message {message.name}"
        return NewMessage(message.name, self._vault.seal(message.data, where), self._clock.now(), message.dedupe)

    def done(self, row: RunRow) -> None:
        """Note that this run was started, or was sent a message."""
        self._rows[row.id] = row

    def tell(self, know: Callable[[WorkflowSpec], object], told: Callable[[RunRow], object]) -> None:
        """After the commit: which workflows were used, and which runs have something new."""
        for workflow in self._workflows:
            know(workflow)
        for row in self._rows.values():
            told(row)

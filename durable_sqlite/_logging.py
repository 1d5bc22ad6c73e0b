"""Log records that know their run."""

from __future__ import annotations

import logging

from ._context import BodyScope, StepScope, scope

__all__ = ["RunLogFilter"]


class RunLogFilter(logging.Filter):
    """Adds `run_id`, `workflow`, `step` and `attempt` to log records, and drops those of replayed code.

    Put it on a handler. The four are empty (`attempt` is 0) outside runs. A body's records are dropped until its pass has
    come to the end of what is recorded, so that each line is logged once; records of steps are never dropped.

    Args:
        replayed: Keep the records of replayed code as well.
    """

    def __init__(self, *, replayed: bool = False) -> None:
        super().__init__()
        self._replayed = replayed

    def filter(self, record: logging.LogRecord) -> bool:
        """Add the four fields; whether to keep the record."""
        fields: dict[str, object] = {"run_id": "", "workflow": "", "step": "", "attempt": 0}
        keep = True
        match scope.get():
            case StepScope(step):
                fields = {"run_id": step.run_id, "workflow": step.workflow, "step": step.key, "attempt": step.attempt}
            case BodyScope(body):
                fields |= {"run_id": body.run_id, "workflow": body.workflow}
                keep = self._replayed or not (body.replaying or body.unloading)
            case _:
                pass
        vars(record).update(fields)
        return keep

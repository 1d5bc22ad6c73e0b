"""Tests of durable workflows: a clock that a test moves, a process that it kills, and all the places to kill it at.

The pytest fixture `durable` gives a `Harness`; `harness()` makes one anywhere else. `check_replay` holds new code against the
runs of a journal, and `schedules` lets outcomes arrive in another order. Importing this imports nothing more.
"""

TYPE_CHECKING = False  # as in the package's own door: nothing is imported before somebody asks for it

if TYPE_CHECKING:
    from .._check import Difference, DifferenceKind, ReplayReport, UnknownWorkflow, check_replay
    from ._explore import CrashFound, Explored
    from ._faults import Crashed, Effects, StepCalled
    from ._harness import Harness, Stuck, harness
    from ._plans import Crash, Fail
    from ._schedules import Schedules, schedules

__all__ = [
    "Crash",
    "CrashFound",
    "Crashed",
    "Difference",
    "DifferenceKind",
    "Effects",
    "Explored",
    "Fail",
    "Harness",
    "ReplayReport",
    "Schedules",
    "StepCalled",
    "Stuck",
    "UnknownWorkflow",
    "check_replay",
    "harness",
    "schedules",
]

_HOMES = {
    ".._check": "Difference DifferenceKind ReplayReport UnknownWorkflow check_replay",
    "._explore": "CrashFound Explored",
    "._faults": "Crashed Effects StepCalled",
    "._harness": "Harness Stuck harness",
    "._plans": "Crash Fail",
    "._schedules": "Schedules schedules",
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names.split()}

if not TYPE_CHECKING:  # a checker reads the imports above, and knows of no other name

    def __getattr__(name: str) -> object:
        """Import what is asked for, once."""
        from importlib import import_module  # noqa: PLC0415

        if name not in _HOME_OF:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        found = globals()[name] = getattr(import_module(_HOME_OF[name], __name__), name)
        return found

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})


del TYPE_CHECKING

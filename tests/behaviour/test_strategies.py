"""What hypothesis is given to draw: inputs that fit a workflow, plans of what goes wrong, orders of arrival."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal

import pytest
from hypothesis import HealthCheck, Phase, find, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from pydantic import BaseModel, Field, field_validator

from durable_sqlite import DefinitionError, Engine, Tx, UsageError, step, transaction, workflow
from durable_sqlite import testing as kit
from durable_sqlite.testing import Crash, Fail, Schedules, strategies
from tests.support.house import python

quick = settings(
    max_examples=30, deadline=None, database=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
# Without the phase that explains, which tries a thing hundreds of times.
smallest = settings(
    max_examples=20, deadline=None, database=None, derandomize=True, phases=[Phase.generate, Phase.shrink]
)


class Line(BaseModel):
    name: str = Field(min_length=1, max_length=8)
    count: int = Field(ge=1, le=9)

    @field_validator("count")
    @classmethod
    def _odd(cls, count: int) -> int:
        if count % 2 == 0:
            raise ValueError("an odd number, please")
        return count


@dataclass(frozen=True)
class Address:
    street: str
    number: int | None


class Order(BaseModel):
    lines: list[Line] = Field(max_length=2)
    to: Address
    kind: Literal["gift", "own"] = "own"


@workflow
async def fulfil(order: Order, times: int = 3, *notes: bool, fast: bool, more: Any = None, **prices: Decimal) -> int:
    return len(order.lines) * times


@step
async def charge(cents: int) -> int:
    return cents


@transaction
def book(tx: Tx) -> None:
    tx.execute("SELECT 1")


# Runs ----------------------------------------------------------------------------------------------------------------


def test_every_run_that_is_drawn_can_be_started_and_its_input_fits_the_types() -> None:
    started: list[strategies.PlannedRun[..., int]] = []

    @quick
    @given(strategies.runs(fulfil))
    def check(run: strategies.PlannedRun[..., int]) -> None:
        assert run.workflow is fulfil
        for line in run.args[0].lines:
            assert line.count in (1, 3, 5, 7, 9)
            assert 1 <= len(line.name) <= 8
        assert isinstance(run.args[0].to, Address)
        started.append(run)

    check()
    assert any(run.args[0].lines for run in started)
    assert any(run.args[1] != 3 for run in started)
    assert any(run.args[2:] for run in started)

    async def scenario() -> None:
        async with Engine(":memory:"):
            for run in started[:5]:
                assert await (await run.start()).result() == len(run.args[0].lines) * run.args[1]

    asyncio.run(scenario())


def test_the_smallest_run_is_the_one_of_the_defaults_and_prints_as_a_call() -> None:
    run = find(strategies.runs(fulfil), lambda _run: True, settings=smallest)
    assert repr(run) == (
        "fulfil(Order(lines=[], to=Address(street='', number=None), kind='own'), 3, fast=False, more=None)"
    )


def test_a_parameter_of_any_type_gets_what_json_has() -> None:
    @workflow
    async def anything(value: Any, *, more: Any = None) -> None:
        """Takes it."""

    def holds(kind: type) -> Callable[[Any], bool]:
        return lambda run: isinstance(run.args[0], kind)

    for kind in (dict, list, str, float, bool, type(None)):
        assert holds(kind)(find(strategies.runs(anything), holds(kind), settings=settings(smallest, max_examples=300)))


def test_a_strategy_of_ones_own_takes_the_place_of_the_type() -> None:
    orders = st.builds(Order, lines=st.just([]), to=st.just(Address("Main Street", 1)))

    @quick
    @given(strategies.runs(fulfil, order=orders, times=st.just(7)))
    def check(run: strategies.PlannedRun[..., int]) -> None:
        assert run.args[0].to.street == "Main Street"
        assert run.args[1] == 7

    check()


def test_what_the_journal_cannot_store_is_not_drawn() -> None:
    @workflow
    async def takes(value: float) -> None:
        """Takes it."""

    with pytest.raises(Unsatisfiable):
        find(strategies.runs(takes, value=st.just(object())), lambda _run: True, settings=smallest)


def test_options_of_a_start_are_kept() -> None:
    chosen = fulfil.options(tags={"team": "eu"})
    run = find(strategies.runs(chosen), lambda _run: True, settings=smallest)

    async def scenario() -> None:
        async with Engine(":memory:"):
            assert (await (await run.start()).info()).tags == {"team": "eu"}

    asyncio.run(scenario())


def test_what_is_no_workflow_or_no_parameter_of_it_is_refused() -> None:
    with pytest.raises(UsageError, match="takes a workflow, not <step charge>"):
        strategies.runs(charge)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    with pytest.raises(UsageError, match="no parameter 'oder': it has order, times, notes"):
        strategies.runs(fulfil, oder=st.none())

    async def unresolved(value: str) -> None:
        """Its annotation is put there below."""

    unresolved.__annotations__["value"] = "Nowhere"
    with pytest.raises(DefinitionError, match="cannot be resolved"):
        strategies.runs(workflow(unresolved))


# Faults --------------------------------------------------------------------------------------------------------------


def test_plans_hold_failures_first_then_crashes_all_within_their_bounds() -> None:
    plans: list[tuple[Crash | Fail, ...]] = []

    @settings(quick, max_examples=200)
    @given(strategies.faults(charge, "ship", charge, crashes=2, writes=4, times=2))
    def check(plan: tuple[Crash | Fail, ...]) -> None:
        plans.append(plan)
        fails = [fault for fault in plan if isinstance(fault, Fail)]
        crashes = [fault for fault in plan if isinstance(fault, Crash)]
        assert plan == (*fails, *crashes)
        assert [fault.step for fault in fails] in ([], ["charge"], ["ship"], ["charge", "ship"])
        assert all(1 <= fault.times <= 2 for fault in fails)
        assert len(crashes) <= 2
        assert all(1 <= fault.at <= 4 for fault in crashes)

    check()
    drawn = {fault for plan in plans for fault in plan}
    assert drawn >= {Fail("charge", 1), Fail("ship", 2), Crash(1, "before"), Crash(4, "after")}


def test_the_smallest_plan_is_that_nothing_goes_wrong() -> None:
    assert find(strategies.faults(charge, book), lambda _plan: True, settings=smallest) == ()
    crash = find(
        strategies.faults(charge, book), lambda plan: any(isinstance(f, Crash) for f in plan), settings=smallest
    )
    assert crash == (Crash(1, "before"),)
    assert find(strategies.faults(book), bool, settings=settings(smallest, max_examples=200))[0] in (
        Fail("book", 1),
        Crash(1, "before"),
    )


def test_without_steps_and_crashes_nothing_goes_wrong() -> None:
    with pytest.raises(Exception, match=r"(?i)no.*(satisf|found)|satisfy"):
        find(strategies.faults(crashes=0), bool, settings=quick)


@pytest.mark.parametrize(
    "options", [{"crashes": -1}, {"writes": 0}, {"times": 0}, {"times": True}, {"writes": 1.5}], ids=str
)
def test_numbers_of_a_plan_are_checked(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="takes a whole number from"):
        strategies.faults("a", **options)


@pytest.mark.parametrize("wrong", ["", 7, fulfil])
def test_faults_are_of_steps(wrong: Any) -> None:
    with pytest.raises(UsageError, match="takes steps or their names"):
        strategies.faults(wrong)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Crash(0, "before"),
        lambda: Crash(True, "before"),
        lambda: Crash(1.0, "before"),  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        lambda: Crash(1, "beside"),  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        lambda: Fail("", 1),
        lambda: Fail(charge, 1),  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        lambda: Fail("charge", 0),
    ],
)
def test_a_plan_that_says_nothing_that_can_happen_is_refused(make: Callable[[], object]) -> None:
    with pytest.raises(UsageError, match=r"^(Crash|Fail)\("):
        make()


# Schedules -----------------------------------------------------------------------------------------------------------


def test_schedules_are_drawn_and_print_as_what_repeats_them() -> None:
    @quick
    @given(strategies.schedules(patience=2.0))
    def check(schedule: Schedules) -> None:
        assert repr(schedule) == f"schedules({schedule.seed})"
        assert schedule.patience == 2.0
        with schedule:
            pass

    check()
    assert find(strategies.schedules(), lambda _schedule: True, settings=smallest).seed == 0


# The module ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [lambda: strategies.runs(fulfil), lambda: strategies.faults("a"), strategies.schedules],
    ids=["runs", "faults", "schedules"],
)
def test_where_hypothesis_is_missing_the_error_has_the_line_that_installs_it(
    make: Callable[[], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "hypothesis", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'durable_sqlite\[testing\]'") as caught:
        make()
    assert caught.value.name == "hypothesis"


def test_nothing_is_imported_before_it_is_asked_for() -> None:
    script = (
        "import sys, durable_sqlite.testing as kit\n"
        "assert 'durable_sqlite.errors' not in sys.modules and 'asyncio' not in sys.modules\n"
        "from durable_sqlite.testing import Crash, Fail, strategies\n"
        "assert 'hypothesis' not in sys.modules\n"
        "assert 'durable_sqlite._check' not in sys.modules\n"
        "print(len(dir(kit)))\n"
    )
    assert int(python("-c", script)) > len(kit.__all__)


def test_all_that_the_kit_names_is_there_and_documented_and_nothing_else() -> None:
    for name in kit.__all__:
        thing = getattr(kit, name)
        assert thing.__doc__, name
    assert sorted(kit.__all__) == sorted(kit._HOME_OF)
    assert set(kit.__all__) <= set(dir(kit))
    with pytest.raises(AttributeError, match="has no attribute 'Nobody'"):
        _ = kit.Nobody  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType, reportUnknownVariableType]

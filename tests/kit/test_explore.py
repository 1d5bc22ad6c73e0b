"""A crash at each side of each write, and what is said of the first one after which something differs."""

from __future__ import annotations

import asyncio
import inspect
import re
import sys
from collections.abc import Callable
from datetime import timedelta
from typing import Annotated, Any

import pytest
from hypothesis import strategies as st

from durable_sqlite import Done, NotDone, Retry, Run, current_step, now, step, workflow
from durable_sqlite.errors import UsageError
from durable_sqlite.testing import CrashFound, Harness
from tests.kit import flows


@step
async def tag(word: str) -> str:
    return word.upper()


def _line(of: Callable[..., Any], text: str) -> str:
    """`file:line` of a line of a workflow."""
    lines, first = inspect.getsourcelines(of)
    return f"test_explore.py:{first + next(n for n, line in enumerate(lines) if text in line)}"


def test_a_sound_workflow_passes_and_says_how_much_was_tried(durable: Harness) -> None:
    seen = durable.crash_everywhere(flows.both, 3)
    assert seen.result == "both 30"
    assert seen.writes == (
        "the start of a run",
        "the outcome of fetch#1",
        "the outcome of grind#1 and the end of the run",
    )
    assert seen.crashes == 2 * len(seen.writes)
    assert flows.world.count("grind 3") > len(seen.writes)


def test_an_effect_outside_of_a_step_is_found_and_its_line_named(durable: Harness) -> None:
    @workflow
    async def hasty(word: str) -> str:
        await tag(word)
        durable.effects.append(f"mail {word}")  # outside of a step
        return await tag("b")

    with pytest.raises(CrashFound) as found:
        durable.crash_everywhere(hasty, "a")
    said = str(found.value)
    assert found.value.point == "before write 2"
    assert "hasty ends differently after a crash before write 2 (the outcome of tag#1)" in said
    assert f"tag#1 is called at {_line(hasty.fn, 'tag(word)')}, in hasty: await tag(word)" in said
    assert "The effect 'mail a' happened twice; without the crash, once" in said
    where = _line(hasty.fn, "outside of a step")
    assert f"It comes from the body of the workflow, outside of any step: {where}, in hasty: durable.effects" in said
    assert """To repeat this one: durable.crash_everywhere(hasty, 'a', only="before write 2")""" in said


def test_a_finding_is_repeated_by_its_point_alone(durable: Harness) -> None:
    @workflow
    async def hasty(*, word: str) -> str:
        await tag(word)
        durable.effects.append(f"mail {word}")
        return await tag("b")

    with pytest.raises(CrashFound) as found:
        durable.crash_everywhere(hasty, word="a")
    assert """durable.crash_everywhere(hasty, word='a', only=""" in str(found.value)
    with pytest.raises(CrashFound) as again:
        durable.crash_everywhere(hasty, word="a", only=found.value.point)
    assert str(again.value) == str(found.value)
    assert durable.crash_everywhere(hasty, word="a", only="before write 1").crashes == 1


def test_an_order_that_differs_is_found_and_its_line_named(durable: Harness) -> None:
    shelf = ["a", "b"]

    @workflow
    async def shuffled() -> list[str]:
        shelf.reverse()
        return sorted([await tag(word) for word in tuple(shelf)])  # another order each time

    with pytest.raises(CrashFound, match=r"parked \(diverged\)") as found:
        durable.crash_everywhere(shuffled)
    said = str(found.value)
    assert f"It went another way when it was run again, at {_line(shuffled.fn, 'another order')}, in shuffled" in said
    assert "tag#1" in said
    assert "Without it the run is completed" in said


def test_the_mended_workflows_pass(durable: Harness) -> None:
    @step
    async def mail(word: str) -> None:
        durable.effects.append(f"mail {word}")

    @workflow
    async def mended(words: list[str]) -> list[str]:
        await mail("a")
        return [await tag(word) for word in sorted(words)]

    seen = durable.crash_everywhere(mended, ["b", "a"])
    assert (seen.result, seen.effects) == (["A", "B"], ("mail a",))


def test_a_result_that_differs_is_told_with_the_first_step_that_differs(durable: Harness) -> None:
    class Drawn:
        number = 0

    @step
    async def draw() -> int:
        Drawn.number += 1
        return Drawn.number

    @workflow
    async def lottery() -> int:
        return await draw()

    with pytest.raises(CrashFound) as found:
        durable.crash_everywhere(lottery)
    assert "Without it the result is 1\n  With it the result is 2" in str(found.value)
    line = _line(lottery.fn, "await draw()")
    assert f"The first difference: draw#1 gave 1 without it, and gave 2 with it, called at {line}" in str(found.value)

    def setup() -> None:
        Drawn.number = 0

    with pytest.raises(CrashFound, match="gave 1 without it, and gave 2") as found:
        durable.crash_everywhere(lottery, setup=setup)
    assert found.value.point == "before write 2"  # the step was in flight; before that, nothing had been drawn


def test_a_body_that_looks_at_the_world_is_told_so(durable: Harness) -> None:
    counted = iter(range(1_000))

    @workflow
    async def looks() -> int:
        await tag("a")
        return next(counted)

    with pytest.raises(CrashFound, match="Every step gave the same, so the body itself differs"):
        durable.crash_everywhere(looks)


def test_a_step_that_is_not_asked_for_after_a_crash_is_told(durable: Harness) -> None:
    passes: list[int] = []

    @workflow
    async def forgets() -> int:
        passes.append(1)
        if len(passes) == 1:
            await tag("a")
            return 1
        return 2

    with pytest.raises(
        CrashFound, match=r"The first difference: tag#1 gave 'A' without it, and is not recorded with it\n"
    ):
        durable.crash_everywhere(forgets)


def test_a_run_that_fails_must_fail_with_the_same_error(durable: Harness) -> None:
    counted = iter(range(1_000))

    @workflow
    async def fails(same: bool) -> None:
        await tag("a")
        raise ValueError("the same" if same else f"number {next(counted)}")

    assert durable.crash_everywhere(fails, True).result is None
    with pytest.raises(CrashFound, match=r"Without it the run is failed .*ValueError: number 0"):
        durable.crash_everywhere(fails, False)


def test_an_effect_that_is_missing_or_new_after_a_crash_is_found(durable: Harness) -> None:
    passes: list[int] = []

    @step
    async def says() -> None:
        durable.effects.append(f"pass {len(passes)}")

    @workflow
    async def counts() -> None:
        passes.append(1)
        await says()

    with pytest.raises(CrashFound, match="The effect 'pass 2' happened once; without the crash, never") as found:
        durable.crash_everywhere(counts, setup=passes.clear)
    assert "It comes from step says#1: " in str(found.value)


def test_a_step_in_flight_may_repeat_its_effect_unless_the_test_forbids_it(durable: Harness) -> None:
    @step
    async def mail() -> None:
        durable.effects.append("mail")

    @workflow
    async def mails() -> None:
        await mail()

    assert durable.crash_everywhere(mails).effects == ("mail",)
    with pytest.raises(CrashFound, match="The effect 'mail' happened twice; without the crash, once"):
        durable.crash_everywhere(mails, repeats=False)


def test_an_effect_with_an_idempotency_key_may_be_told_by_it(durable: Harness) -> None:
    charges = set[str]()

    @step
    async def charge() -> None:
        key = current_step().idempotency_key
        if key not in charges:
            charges.add(key)
            durable.effects.append(("charge", key))

    @workflow
    async def charging() -> None:
        await charge()

    assert len(durable.crash_everywhere(charging, setup=charges.clear, repeats=False).effects) == 1


def test_what_the_script_itself_adds_to_the_effects_is_not_compared(durable: Harness) -> None:
    told: list[Any] = []

    def script(scene: Harness, run: Run[Any]) -> None:
        scene.effects.extend([f"told {run.id}"])
        told.extend(scene.effects)
        scene.signal(run, flows.Go(word="go"))

    assert durable.crash_everywhere(flows.hears, script=script).effects == ("told hears",)
    assert told.count("told hears") > durable.crash_everywhere(flows.hears, script=script).crashes


def test_a_script_sends_what_it_sends_once_and_lets_time_pass_once(durable: Harness) -> None:
    @workflow
    async def talks() -> str:
        first = (await flows.Go.wait()).word
        answer = await flows.Question(text=first).wait()
        began = now()
        await flows.naps(1.5)
        second = (await flows.Go.wait()).word
        return f"{first} {answer} {second} {now() - began}"

    def script(scene: Harness, run: Run[Any]) -> None:
        scene.advance(60)
        scene.signal(run, flows.Go(word="one"))
        scene.answer(run, flows.Question, "two")
        scene.advance(timedelta(hours=1))
        scene.signal(run, flows.Go(word="three"))

    seen = durable.crash_everywhere(talks, script=script)
    assert seen.result == "one two three 1:00:00"
    assert "the message kit-go" in seen.writes


def test_what_a_long_downtime_changes_is_found(durable: Harness) -> None:
    def script(scene: Harness, run: Run[Any]) -> None:
        scene.answer(run, flows.Question, "in time")

    assert durable.crash_everywhere(flows.asks, script=script, downtime=timedelta(hours=8)).result == "in time"
    with pytest.raises(CrashFound, match="Without it the result is 'in time'\n  With it the result is None") as found:
        durable.crash_everywhere(flows.asks, script=script, downtime=timedelta(days=8))
    assert "durable.crash_everywhere(asks, script=..., only=" in str(found.value)


def test_a_run_that_does_not_end_asks_for_a_script(durable: Harness) -> None:
    with pytest.raises(UsageError, match=r"hears does not end by itself: it waits for .*kit-go.*script="):
        durable.crash_everywhere(flows.hears)


def test_fakes_and_failures_are_in_force_at_each_crash(durable: Harness) -> None:
    @workflow
    async def tries() -> int:
        return await flows.fetch.options(retry=Retry(max_attempts=2, initial_delay=60))(1)

    durable.fail(flows.fetch, error=ConnectionError("no answer"))
    durable.replace(flows.fetch, lambda number: number + 1)
    seen = durable.crash_everywhere(tries)
    assert seen.result == 2
    assert "a failed attempt of fetch#1" in " ".join(seen.writes)
    assert flows.world == []


def test_what_was_done_before_is_still_noted_afterwards(durable: Harness) -> None:
    durable.effects.append("before")
    durable.start(flows.once, 1)
    durable.crash_everywhere(flows.once, 1)
    assert durable.effects == ["before"]
    assert durable.effects.noted[0][1].run_id is None
    assert len(durable.calls(flows.fetch)) == 1


def test_effects_are_noted_however_they_are_added_and_whatever_the_test_does_with_the_list(durable: Harness) -> None:
    @workflow
    async def adds() -> None:
        durable.effects.extend(["a"])
        world = durable.effects
        world += ["b"]
        world.pop()
        await tag("c")

    with pytest.raises(CrashFound, match="The effect 'a' happened twice"):
        durable.crash_everywhere(adds)
    durable.start(adds)
    assert durable.effects == ["a"]
    assert [effect for effect, _ in durable.effects.noted] == ["a", "b"]


def test_children_and_their_effects_survive_crashes(durable: Harness) -> None:
    @workflow
    async def parent() -> int:
        return await flows.once(1) + await flows.once(2)

    assert durable.crash_everywhere(parent).result == 30


def test_nested_crashes_name_both_points(durable: Harness) -> None:
    lives: list[str] = []

    @workflow
    async def third() -> int:
        lives.append("a")
        await tag("a")
        return 1 if len(lives) < 3 else 2

    durable.crash_everywhere(third, setup=lives.clear)
    with pytest.raises(CrashFound, match="and then") as found:
        durable.crash_everywhere(third, setup=lives.clear, nested=True)
    assert re.fullmatch(r"(before|after) write \d+, (before|after) write \d+", found.value.point)
    with pytest.raises(CrashFound):
        durable.crash_everywhere(third, setup=lives.clear, only=found.value.point)


def test_points_that_are_none_are_refused(durable: Harness) -> None:
    for only in ("3", "before write 0", "before write 1, later"):
        with pytest.raises(UsageError, match="only= takes a point as a report names it"):
            durable.crash_everywhere(flows.once, 1, only=only)
    with pytest.raises(UsageError, match="there is no before write 99: undisturbed, the run makes 2 writes"):
        durable.crash_everywhere(flows.once, 1, only="before write 99")


def test_what_is_no_workflow_is_refused(durable: Harness) -> None:
    wrong: Any = tag
    with pytest.raises(UsageError, match="takes a workflow, not <step tag>"):
        durable.crash_everywhere(wrong, "a")


def test_an_id_that_was_chosen_is_kept(durable: Harness) -> None:
    ids: list[str] = []
    durable.crash_everywhere(flows.once.options(id="mine"), 1, script=lambda _, run: ids.append(run.id))
    assert set(ids) == {"mine"}


def test_inputs_are_drawn_from_the_types_of_the_parameters(durable: Harness) -> None:
    seen: list[flows.Parcel] = []

    @workflow
    async def sends(parcel: flows.Parcel, note: str = "") -> int:
        seen.append(parcel)
        await tag(note)
        return parcel.weight

    assert durable.crash_everywhere(sends, examples=4).crashes > 0
    assert len({parcel.model_dump_json() for parcel in seen}) > 1


def test_a_finding_among_drawn_inputs_comes_with_the_simplest(durable: Harness) -> None:
    @workflow
    async def heavy(weight: Annotated[int, st.integers(min_value=0, max_value=30)]) -> None:
        if weight > 10:
            durable.effects.append("overweight")
        await tag("a")

    with pytest.raises(CrashFound) as found:
        durable.crash_everywhere(heavy, examples=20)
    assert "durable.crash_everywhere(heavy, weight=11, only=" in str(found.value)


def test_inputs_that_no_run_can_begin_with_are_passed_over(durable: Harness) -> None:
    begun: list[str] = []

    @workflow
    async def says(word: Annotated[str, st.sampled_from(["\ud800", "a"])]) -> str:
        begun.append(word)
        return word

    assert durable.crash_everywhere(says, examples=8).result == "a"
    assert set(begun) == {"a"}


def test_a_result_that_does_not_equal_itself_is_the_same_all_the_same(durable: Harness) -> None:
    @workflow
    async def gives() -> float:
        return float("nan")

    assert durable.crash_everywhere(gives).crashes > 0


def test_a_simpler_input_with_fewer_writes_is_passed_over_where_the_finding_cannot_be(durable: Harness) -> None:
    @workflow
    async def counts(number: Annotated[int, st.integers(min_value=0, max_value=3)]) -> None:
        for index in range(number):
            await tag(f"a{index}")
        if number > 1:
            durable.effects.append("many")
            await tag("b")

    with pytest.raises(CrashFound, match=r"durable\.crash_everywhere\(counts, number=[23], only="):
        durable.crash_everywhere(counts, examples=10)


def test_inputs_are_asked_for_where_there_is_no_hypothesis(durable: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "hypothesis", None)
    with pytest.raises(UsageError, match="once takes an input and none was given"):
        durable.crash_everywhere(flows.once)


def test_a_step_that_runs_at_most_once_is_a_finding_unless_it_can_be_asked(durable: Harness) -> None:
    done: list[int] = []

    async def probe() -> Done[str] | NotDone:
        return Done("done") if done else NotDone()

    async def act() -> str:
        done.append(1)
        return "done"

    blind, probed = step(name="blind", at_most_once=True)(act), step(name="probed", at_most_once=True, probe=probe)(act)

    @workflow
    async def blindly() -> str:
        return await blind()

    @workflow
    async def asking() -> str:
        return await probed()

    with pytest.raises(CrashFound, match=r"With it the run is parked \(ambiguous\)") as found:
        durable.crash_everywhere(blindly)
    assert found.value.point == "after write 2"
    seen = durable.crash_everywhere(asking, setup=done.clear)
    assert "that probed#1 is about to begin" in seen.writes


def test_it_is_repeatable(durable: Harness) -> None:
    @workflow
    async def several(words: list[str]) -> list[str]:
        return list(await asyncio.gather(*(tag(word) for word in words)))

    one, other = (durable.crash_everywhere(several, ["a", "b", "c"]) for _ in range(2))
    assert one == other

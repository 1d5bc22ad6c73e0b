"""Starting a run, and meeting one that exists."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from durable_sqlite import (
    Engine,
    InvalidName,
    NoEngine,
    PayloadTooLarge,
    Run,
    RunConflict,
    RunExists,
    RunFailed,
    Signal,
    State,
    UnknownRun,
    Unstorable,
    current_step,
    sleep,
    step,
    workflow,
)
from durable_sqlite._records import RunRow
from tests.support.gates import session_of
from tests.support.restarts import die, quiet
from tests.support.stage import Stage, ended

called: list[str] = []


@step
async def greet(name: str) -> str:
    called.append(name)
    return f"hello {name}"


@workflow
async def hello(name: str, *, loud: bool = False) -> str:
    said = await greet(name)
    return said.upper() if loud else said


@workflow
async def other(name: str) -> str:
    return name


@workflow
async def broken(name: str) -> str:
    raise LookupError(name)


@pytest.fixture(autouse=True)
def forget() -> None:
    called.clear()


def test_a_run_gives_what_its_body_returned() -> None:
    async def scenario() -> None:
        async with Engine(":memory:"):
            run = await hello.start("ada", loud=True)
            assert run.created
            assert await run == "HELLO ADA"
            assert await run.result() == "HELLO ADA"
            assert await hello("bob") == "hello bob"

    asyncio.run(scenario())
    assert called == ["ada", "bob"]


def test_a_started_run_survives_a_kill_that_comes_at_once(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Engine(tmp_path / "j.db", drive=False) as engine:
            run = await hello.options(tags={"team": "eu"}).start("ada")
            await die(engine)
        async with Engine(tmp_path / "j.db", workflows=[hello]) as engine:
            assert await engine.run(run.id).result() == "hello ada"
            assert (await engine.run(run.id).info()).tags == {"team": "eu"}

    asyncio.run(scenario())
    assert called == ["ada"]


def test_the_same_id_and_input_attach_to_the_run_ended_or_not() -> None:
    async def scenario() -> None:
        stage = Stage()

        @step
        async def hold() -> None:
            await stage.enter("hold")

        @workflow
        async def held(number: int) -> int:
            await hold()
            return number

        async with Engine(":memory:"):
            first = await held.options(id="a").start(1)
            await stage.seen("hold")
            second = await held.options(id="a").start(1)
            assert (first.created, second.created) == (True, False)
            stage.let("hold")
            assert await second == await first == 1
            third = await held.options(id="a", if_exists="attach").start(1)
            assert not third.created
            assert await third == 1
        assert stage.began == ["hold"]

    asyncio.run(scenario())


def test_an_argument_that_equals_its_default_is_the_same_input() -> None:
    async def scenario() -> None:
        async with Engine(":memory:"):
            await hello.options(id="a").start("ada")
            assert not (await hello.options(id="a").start("ada", loud=False)).created

    asyncio.run(scenario())


def test_a_taken_id_with_another_input_or_workflow_is_a_conflict() -> None:
    async def scenario() -> None:
        async with Engine(":memory:") as engine:
            await hello.options(id="a").start("ada")
            with pytest.raises(RunConflict, match="input") as caught:
                await hello.options(id="a").start("bob")
            assert caught.value.run_id == "a"
            with pytest.raises(RunConflict, match="hello"):
                await other.options(id="a").start("ada")
            await engine.join()
            assert await engine.count() == 1

    asyncio.run(scenario())
    assert called == ["ada"]


def test_if_exists_fail_refuses_a_taken_id() -> None:
    async def scenario() -> None:
        async with Engine(":memory:"):
            strict = hello.options(id="a", if_exists="fail")
            assert (await strict.start("ada")).created
            with pytest.raises(RunExists):
                await strict.start("ada")

    asyncio.run(scenario())


def test_if_exists_replace_makes_a_new_run_of_one_that_has_ended_only() -> None:
    async def scenario() -> None:
        keys: list[str] = []

        @step
        async def note() -> None:
            keys.append(current_step().idempotency_key)

        @workflow
        async def noted(wait: float) -> float:
            await note()
            await sleep(wait)
            return wait

        async with Engine(":memory:") as engine:
            again = noted.options(id="a", if_exists="replace")
            before = await again.start(0.0)
            assert await before == 0.0
            uid = (await before.info()).uid
            after = await again.start(3600.0)
            assert after.created
            await quiet(engine)
            assert (await after.info()).uid != uid
            assert len(set(keys)) == 2
            with pytest.raises(RunConflict, match="suspended"):
                await again.start(0.0)

    asyncio.run(scenario())


@pytest.mark.parametrize("state", ["pending", "running", "suspended", "paused", "parked"])
@pytest.mark.parametrize("with_input", ["the same input", "another input"])
def test_a_run_that_has_not_ended_is_not_replaced_whatever_the_input(state: str, with_input: str) -> None:
    stage = Stage()

    @step
    async def hold() -> None:
        await stage.enter("hold")

    @workflow
    async def held(number: int) -> int:
        if state == "running":
            await hold()
        if state == "parked":
            await asyncio.get_running_loop().create_future()
        await sleep(3600)
        return number

    async def scenario() -> None:
        async with Engine(":memory:", drive=state != "pending") as engine:
            run = await held.options(id="a").start(1)
            if state == "running":
                await stage.seen("hold")
            else:
                await quiet(engine)
            if state == "paused":
                await run.pause()
                await quiet(engine)
            before = await run.info()
            assert before.state == state
            number = 1 if with_input == "the same input" else 2
            with pytest.raises(RunConflict, match=f"run a is {state}: only a run that has ended can be replaced"):
                await held.options(id="a", if_exists="replace").start(number)
            assert await run.info() == before

    asyncio.run(scenario())


@pytest.mark.parametrize("state", ["completed", "failed", "cancelled"])
def test_a_run_that_has_ended_is_replaced_with_all_that_it_had(state: str) -> None:
    class Leftover(Signal, name=f"starting.leftover.{state}"):
        pass

    @workflow
    async def ends(how: str) -> str:
        await greet("ada")
        if how == "failed":
            raise LookupError
        if how == "cancelled":
            await sleep(3600)
        return how

    async def scenario() -> None:
        async with Engine(":memory:") as engine:
            run = await ends.options(id="a", tags={"k": "old"}).start(state)
            await run.signal(Leftover())
            await quiet(engine)
            if state == "cancelled":
                await run.cancel()
                await quiet(engine)
            assert (await run.info()).state == state
            assert len(await run.messages()) == 1
            again = await ends.options(id="a", if_exists="replace").start("completed")
            assert again.created
            assert await again.result(timeout=20) == "completed"
            assert (await again.info()).tags == {}
            assert await again.messages() == []
            assert [entry.key for entry in await again.history()] == ["greet#1"]
            assert [letter async for letter in engine.dead_letters()] == []
            assert await engine.count() == 1

    asyncio.run(scenario())
    assert called == ["ada", "ada"]


def test_options_of_a_start_add_up_and_leave_the_workflow_alone() -> None:
    async def scenario() -> None:
        async with Engine(":memory:") as engine:
            run = await hello.options(id="a").options(tags={"k": "v"}).options().start("ada")
            info = await run.info()
            assert (info.id, info.tags) == ("a", {"k": "v"})
            plain = await hello.start("ada")
            assert plain.id != "a"
            assert repr(run) == "<Run a in :memory:>"
            assert repr(engine) == "<Engine :memory:, open>"

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "name",
    [
        "",
        "a b",
        "../../x",
        "'; DROP TABLE",
        "<script>",
        "a\u200fb",
        "-a",
        "a" * 201,
        "a/b",
        "\x1b[31m",
    ],
)
def test_ids_and_tags_outside_the_rule_are_refused_at_the_door(name: str) -> None:
    for refuse in (
        lambda: hello.options(id=name),
        lambda: hello.options(tags={name: "v"}),
        lambda: hello.options(tags={"k": name}),
        lambda: Engine(":memory:").run(name),
    ):
        with pytest.raises(InvalidName):
            refuse()


def test_an_input_that_cannot_be_stored_is_refused_and_nothing_is_stored() -> None:
    async def scenario() -> None:
        vague: Any = hello
        async with Engine(":memory:", payload_limit=1_000) as engine:
            with pytest.raises(Unstorable, match=r"\$\.name"):
                await vague.start(object())
            with pytest.raises(PayloadTooLarge):
                await hello.start("x" * 1_000)
            with pytest.raises(TypeError, match="hello"):
                await vague.start()
            assert await engine.count() == 0

    asyncio.run(scenario())


def test_the_error_of_a_failed_run_is_described_and_no_dead_weight() -> None:
    async def scenario() -> None:
        async with Engine(":memory:"):
            run = await broken.start("ada")
            failed = await ended(run, RunFailed)
            assert (failed.run_id, failed.reason) == (run.id, "error")
            assert failed.record is not None
            assert failed.record.is_a(LookupError)
            assert failed.record.message == "ada"
            info = await run.info()
            assert (info.state, info.reason, info.error) == (State.FAILED, "error", failed.record)
            assert info.ended_at is not None

    asyncio.run(scenario())


def test_a_result_that_cannot_be_stored_fails_the_run_with_its_path() -> None:
    async def scenario() -> None:
        @workflow
        async def odd() -> dict[str, Any]:
            return {"deep": [object()]}

        async with Engine(":memory:"):
            failed = await ended(await odd.start(), RunFailed)
            assert failed.record is not None
            assert failed.record.is_a(Unstorable)
            assert "$.deep[0]" in failed.record.message

    asyncio.run(scenario())


def test_asking_about_a_run_that_does_not_exist_says_so() -> None:
    async def scenario() -> None:
        async with Engine(":memory:") as engine:
            nobody: Run[Any] = engine.run("nobody")
            for question in (nobody.info, nobody.history, nobody.result, nobody.cancel, nobody.resume):
                with pytest.raises(UnknownRun) as caught:
                    await question()
                assert caught.value.run_id == "nobody"

    asyncio.run(scenario())


def test_a_result_may_be_waited_for_with_a_limit_and_the_run_goes_on() -> None:
    async def scenario() -> None:
        stage = Stage()

        @step
        async def hold() -> int:
            await stage.enter("hold")
            return 7

        @workflow
        async def held() -> int:
            return await hold()

        async with Engine(":memory:"):
            run = await held.start()
            with pytest.raises(TimeoutError):
                await run.result(timeout=0.01)
            waiting = [asyncio.create_task(run.result()) for _ in range(3)]
            await stage.seen("hold")
            waiting[0].cancel()
            stage.let("hold")
            assert await asyncio.gather(*waiting[1:]) == [7, 7]

    asyncio.run(scenario())


@pytest.mark.contradicts("two", "crash", reason="its run has begun when it is started")
def test_a_start_that_nobody_waits_for_any_more_is_driven_all_the_same() -> None:
    async def scenario() -> None:
        async with Engine(":memory:") as engine:
            starting = asyncio.create_task(hello.options(id="a").start("ada"))
            await asyncio.sleep(0)
            starting.cancel()
            await asyncio.wait([starting])
            assert await engine.run("a").result(timeout=5) == "hello ada"

    asyncio.run(scenario())


def test_without_an_engine_a_start_says_how_to_open_one() -> None:
    with pytest.raises(NoEngine, match="async with Engine"):
        asyncio.run(hello.start("ada"))
    assert called == []


def test_a_handle_that_is_asked_for_where_no_event_loop_runs_says_what_is_missing() -> None:
    @workflow
    async def flow() -> None: ...

    with pytest.raises(NoEngine, match=r"no engine is open here: .*\.options\(engine=engine\)"):
        flow.run("x")


def test_an_engine_that_does_not_drive_starts_runs_that_another_one_drives(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Engine(tmp_path / "j.db", drive=False) as client:
            run = await hello.start("ada")
            await client.join()
            assert (await run.info()).state is State.PENDING
            async with Engine(tmp_path / "j.db", workflows=[hello]) as worker:
                await worker.join()
            assert await run == "hello ada"

    asyncio.run(scenario())


@pytest.mark.contradicts("two", "crash", reason="it counts the looks of its own engine")
def test_whoever_waits_for_a_run_that_completes_here_has_its_result_without_a_look_at_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with Engine(tmp_path / "j.db") as engine:
            run = await hello.start("ada")
            looks: list[str] = []
            journal = session_of(engine).journal
            look = journal.run

            async def noted(run_id: str, *, patient: bool = False) -> RunRow | None:
                looks.append(run_id)
                return await look(run_id, patient=patient)

            monkeypatch.setattr(journal, "run", noted)
            assert [*await asyncio.gather(run, run)] == ["hello ada"] * 2
            assert looks == []
            assert await run == "hello ada"
            assert looks == [run.id]

    asyncio.run(scenario())

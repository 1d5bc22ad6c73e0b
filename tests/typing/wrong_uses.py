"""Wrong uses, one a line: both checkers must reject each line marked `# E`, and no other line."""

import asyncio

from durable_sqlite import (
    DeadLetter,
    Engine,
    Retry,
    Run,
    Signal,
    Suspend,
    Tx,
    current_step,
    each,
    set_progress,
    set_status,
    sleep,
    sleep_until,
    step,
    transaction,
    workflow,
)
from durable_sqlite.testing import Harness


@step
async def charge(order: str, *, cents: int = 1) -> str:
    return order * cents


@step
def render(order: str) -> bytes:
    return order.encode()


class Shop:
    @step
    async def stock(self, name: str) -> int:
        return len(name)


class Paid(Signal):
    charge: str


class Review(Suspend[int]):
    reason: str


@workflow
async def waiting(order: str) -> int:
    paid: Paid = await Paid.wait(timeout=3)  # E: with a timeout there may be nothing
    await Paid.wait("a")  # E: options are keyword-only
    await Paid.wait(timeout="3 s")  # E: a time limit is a number or a timedelta
    answer: str = await Review(reason="a")  # E: an answer of the wrong type
    sure: int = await Review(reason="a").wait(timeout=3)  # E: with a timeout there may be no answer
    await Review(reason=1)  # E: a question of the wrong type
    await Review(reason="a").wait(3)  # E: options are keyword-only
    first: Paid = await Paid.drain()  # E: drain gives a list
    sizes: list[int] = await each(render, ["a"])  # E: each keeps the type of results
    await each(render, [1])  # E: an item of the wrong type
    plain: list[bytes] = await each(render, ["a"], on_error="collect")  # E: errors stand among the results
    await each(render, ["a"], 4)  # E: options are keyword-only
    await each(render, ["a"], on_error="ignore")  # E: fail or collect
    await each(len, ["a"])  # E: neither a step nor a workflow
    set_status(1)  # E: a status is a text
    set_progress("1", 2)  # E: progress is counted in whole numbers
    child: Run[str] = await fulfil.start("a")  # E: a child run knows its result
    await child.signal("paid")  # E: a message is a Signal
    await child.answer(Review, "seven")  # E: the answer of the wrong type
    await child.answer(Review(reason="a"), 7)  # E: the class is the address
    await child.answer(Review, 7, "Review#1")  # E: the key is keyword-only
    await fulfil.options(detached="yes").start("a")  # E: detached or not
    print(paid, answer, sure, first, sizes, plain)
    return 1


@workflow
async def fulfil(order: str) -> int:
    await charge(1)  # E: a step's argument of the wrong type
    await charge()  # E: a step's argument left out
    await charge("a", 2)  # E: a keyword-only argument by position
    await charge("a", cent=2)  # E: no such parameter
    await render(order, 2)  # E: one argument too many for a plain step
    await Shop().stock(3)  # E: a method's argument of the wrong type
    await Shop().stock(Shop(), "tea")  # E: `self` given twice
    await charge.options(key=1)("a")  # E: a key is a string
    await charge.options("v2")("a")  # E: options are keyword-only
    await charge.options(key="v2")(1)  # E: options keep the signature
    await charge.options(id="v2")("a")  # E: a step has no id
    await charge.options(retry=3)("a")  # E: a policy is a Retry
    await charge.options(timeout="1 s")("a")  # E: a time limit is a number or a timedelta
    await charge.options(retry=Retry.none())(1)  # E: options of failure keep the signature
    text: int = await charge("a")  # E: a step's result of the wrong type
    data: str = await render("a")  # E: a plain step's result of the wrong type
    late: int = charge("a")  # E: a step's result without await
    both: tuple[str, str] = await asyncio.gather(charge("a"), render("a"))  # E: gather keeps the types of steps
    await sleep("1")  # E: a duration is a number or a timedelta
    await sleep_until(3)  # E: an instant is a datetime
    current_step().attempt = 3  # E: what a step may know is frozen
    return text + len(data) + late + len(both)


@transaction
def book(tx: Tx, order: str, *, cents: int = 1) -> int:
    tx.execute(1)  # E: SQL is text
    tx.execute("SELECT ?", 3)  # E: values are a sequence or a mapping
    number: int = tx.fetch_one(int, "SELECT 1")  # E: there may be no row
    names: list[str] = tx.fetch_all(int, "SELECT 1")  # E: rows are of the type that was asked for
    tx.start(fulfil, 1)  # E: a workflow's argument of the wrong type
    tx.start(charge, "a")  # E: what is started is a workflow
    tx.signal("x", "paid")  # E: a message is a Signal
    tx.signal("x", Paid(charge="c"), "once")  # E: dedupe is keyword-only
    return number + len(names) + cents


@workflow
async def booking(order: str) -> int:
    await book(1)  # E: a transaction's argument of the wrong type
    await book()  # E: a transaction's argument left out
    await book("a", 2)  # E: a keyword-only argument by position
    await book.options(key=1)("a")  # E: a key is a string
    await book.options(timeout="1 s")("a")  # E: a time limit is a number or a timedelta
    text: str = await book("a")  # E: a transaction's result of the wrong type
    return len(text)


@transaction  # E: the first parameter is the Tx
def without(order: str) -> None: ...


@transaction(raises=ValueError)  # E: declared errors are a tuple
def wrongly(tx: Tx) -> None: ...


@transaction(at_most_once=True)  # E: no such option of a transaction
def oddly(tx: Tx) -> None: ...


def accept(tx: Tx, order: str) -> str:
    return tx.start(fulfil, order)


async def outside(engine: Engine) -> None:
    await engine.transact(accept)  # E: an argument left out
    await engine.transact(accept, 1)  # E: an argument of the wrong type
    await engine.transact(book, 1)  # E: a transaction's argument of the wrong type
    await engine.transact(charge, "a")  # E: a step is no transaction
    count: int = await engine.transact(accept, "a")  # E: the function's own result
    print(count)
    async with Engine("orders.db", schema=3):  # E: a folder
        pass


@step(executor=3)  # E: an executor is one of concurrent.futures
def shrink(pdf: bytes) -> bytes:
    return pdf


@step(raises=ValueError)  # E: declared errors are a tuple
async def one() -> None: ...


@step(raises=(int,))  # E: declared errors are exceptions
async def two() -> None: ...


@step(retry=3)  # E: a policy is a Retry
async def once() -> None: ...


@step(timeout="20 s")  # E: a time limit is a number or a timedelta
async def slow() -> None: ...


@step(at_most_once=True, probe=lambda: True)  # E: a probe answers Done, NotDone or Unknown
async def transfer() -> None: ...


Retry(5)  # E: a policy's options are keyword-only
Retry(max_attempts="3")  # E: a number of attempts
Retry(on="OSError")  # E: errors are classes or a function
Retry(unless=repr)  # E: a predicate says yes or no
Retry(max_attempts=3).max_attempts = 4  # E: a policy is frozen


@step(nme="other")  # E: no such option of a step
async def three() -> None: ...


@workflow(version=2)  # E: a version is a string
async def four() -> None: ...


@workflow  # E: a workflow is a coroutine function
def five() -> int:
    return 1


def hook(run: Run[int]) -> None: ...


async def application() -> None:
    async with Engine("orders.db", sync="full"):  # E: no such option of an engine
        pass
    async with Engine("orders.db", synchronous="off"):  # E: full or normal
        pass
    async with Engine("orders.db", retry=3):  # E: a policy is a Retry
        pass
    async with Engine("orders.db", on_dead_letter=hook):  # E: the hook gets a letter
        pass
    async with Engine("orders.db") as engine:
        await fulfil.start(1)  # E: a workflow's argument of the wrong type
        await fulfil.start("a", id="b")  # E: options go before start
        await fulfil.options(id=1).start("a")  # E: an id is a string
        await fulfil.options(tags={"a": 1}).start("a")  # E: tags are strings
        await fulfil.options(if_exists="maybe").start("a")  # E: attach, fail or replace
        run: Run[str] = await fulfil.start("a")  # E: a run knows its result
        result: str = await fulfil("a")  # E: a workflow's result of the wrong type
        await run.result(3)  # E: a timeout is keyword-only
        await run.resume(True)  # E: options are keyword-only
        await run.resume(retry=3)  # E: keys of steps
        await run.resume(input="a")  # E: an input is given by parameter
        await run.settle("a#1", "value", "ada")  # E: the author is keyword-only
        await run.pause("stock")  # E: the reason is keyword-only
        await run.terminate("stuck")  # E: the reason is keyword-only
        await fulfil.signal_with_start("a")  # E: the message comes first
        await fulfil.signal_with_start(Paid(charge="c"), 1)  # E: a workflow's argument of the wrong type
        named: Run[str] = fulfil.run("x")  # E: a handle knows the result
        async for _ in engine.watch(state="asleep"):  # E: no such state to watch
            print(named)
        async for _ in engine.questions(point=3):  # E: a suspend point or its name
            pass
        await fulfil.options(deadline="1 h").start("a")  # E: a deadline is a number or a timedelta
        letters: list[DeadLetter] = engine.dead_letters()  # E: letters come one by one
        async for _ in engine.dead_letters(state="failed"):  # E: letters are not chosen by state
            print(letters)
        async for letter in engine.dead_letters():
            letter.reason = "error"  # E: a letter is frozen
        count: int = await engine.redrive(reason="permanent")  # E: redrive gives ids
        await engine.redrive("permanent", count)  # E: filters are keyword-only
        await engine.run(7)  # E: an id is a string
        await engine.backup("copy.db", True)  # E: what may overwrite says so by name
        await engine.prune()  # E: how old is old has to be said
        await engine.prune(30, states=["asleep"])  # E: no such state to prune
        (await engine.stats()).alive = 3  # E: stats are facts
        async for _ in engine.runs(state="asleep"):  # E: no such state
            print(result)


def testing_kit(durable: Harness) -> None:
    durable.run(waiting, 3)  # E: an input of the wrong type
    result: str = durable.run(waiting, "a")  # E: the result is the workflow's
    durable.replace(render, lambda order: result)  # E: a fake gives what the step gives
    durable.replace(render, lambda: b"")  # E: a fake takes what the step takes
    durable.crash(charge)  # E: before or after is said
    durable.crash(before=charge, after=charge)  # E: one place only
    durable.crash(at=1, before=charge)  # E: one place only
    durable.answer("run", Review, "yes")  # E: an answer of the wrong type
    durable.advance("1 h")  # E: a duration is a number or a timedelta
    durable.fail(waiting)  # E: a workflow is no step
    durable.do(waiting)  # E: a coroutine is awaited

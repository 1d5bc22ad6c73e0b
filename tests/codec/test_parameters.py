"""Arguments: bound as the function would, stored whole for a run, copied for a step."""

from __future__ import annotations

import functools
import gc
import typing
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Final, ParamSpec

import pytest
from pydantic import BaseModel
from typing_extensions import TypedDict, Unpack

from durable_sqlite._codec import Parameters
from durable_sqlite.errors import DefinitionError, Undecodable, Unstorable

if typing.TYPE_CHECKING:
    from decimal import Decimal as OnlyForCheckers

P = ParamSpec("P")


class Order(BaseModel):
    id: str
    cents: int = 0


class Options(TypedDict, total=False):
    loud: bool
    tags: list[str]


class Client:
    """Cannot be stored."""

    def __init__(self) -> None:
        self.calls = 0


def fulfil(
    order: Order, /, count: int, *rest: tuple[int, str], fast: bool = False, **tags: set[str]
) -> tuple[int, str]:
    return count, order.id


CALL: tuple[tuple[Any, ...], dict[str, Any]] = ((Order(id="a"), 2, (1, "x"), (2, "y")), {"fast": True, "team": {"eu"}})


def test_a_run_gets_its_input_back_as_it_was_given() -> None:
    parameters = Parameters(fulfil)
    data = parameters.dump(parameters.bind(*CALL), "run r: input")
    assert parameters.load(data, "run r: input") == CALL
    assert data.startswith(b'{"order":{"id":"a","cents":0},"count":2,"rest":[[1,"x"],[2,"y"]],"fast":true,')


def test_a_run_keeps_the_defaults_it_was_started_with() -> None:
    def before(a: int, b: str = "old") -> None: ...

    def after(a: int, b: str = "new", c: str = "added") -> None: ...

    old = Parameters(before)
    data = old.dump(old.bind((1,), {}), "w")
    assert data == b'{"a":1,"b":"old"}'
    assert Parameters(after).load(data, "w") == ((1, "old", "added"), {})


def test_an_input_that_no_longer_fits_the_parameters_says_how() -> None:
    def after(b: int) -> None: ...

    with pytest.raises(
        Undecodable, match=r"'a' is stored, but \S+after\(\) does not take it; \S+ needs 'b', which is not"
    ):
        Parameters(after).load(b'{"a":1}', "run r")
    with pytest.raises(Undecodable, match=r"run r: .*\$\.b: Input should be a valid integer"):
        Parameters(after).load(b'{"b":"x"}', "run r")


def test_a_step_cannot_change_what_the_body_holds() -> None:
    def step(order: Order, items: list[list[int]], note: str) -> None: ...

    parameters = Parameters(step)
    order, items = Order(id="a"), [[1], [2]]
    args, kwargs = parameters.copy(parameters.bind((order, items), {"note": "n"}), "w")
    assert (args, kwargs) == ((order, items, "n"), {})
    args[0].cents = 5
    args[1][0].append(9)
    assert order.cents == 0
    assert items == [[1], [2]]


def test_immutable_scalars_are_passed_as_they_are() -> None:
    def step(a: int, b: str, *, c: bytes = b"") -> None: ...

    text = "x" * 1000
    args, kwargs = Parameters(step).copy(Parameters(step).bind((1, text), {"c": b"a"}), "w")
    assert args[1] is text
    assert kwargs == {"c": b"a"}


def test_an_argument_that_cannot_be_stored_is_named_with_its_path() -> None:
    parameters = Parameters(fulfil)
    bound = parameters.bind((Order(id="a"), 1, (1, 2)), {})
    for use in (parameters.dump, parameters.copy):
        with pytest.raises(Unstorable, match=r"^run r, step a#1: \$\.rest\[0\]\[1\]: an int does not fit"):
            use(bound, "run r, step a#1")


def test_the_receiver_and_what_is_ignored_are_neither_stored_nor_digested() -> None:
    class Shop:
        def charge(self, order: Order, client: Client, note: str = "") -> int:
            return 1

    parameters = Parameters(Shop.charge, skip_first=True, ignore=("client",))
    shop, client, order = Shop(), Client(), Order(id="a")
    bound = parameters.bind((shop, order, client), {})
    args, kwargs = parameters.copy(bound, "w")
    assert args[0] is shop
    assert args[1] == order
    assert args[1] is not order
    assert args[2] is client
    assert kwargs == {}
    assert parameters.dump(bound, "w") == b'{"order":{"id":"a","cents":0},"note":""}'
    other = parameters.bind((Shop(), order, Client()), {"note": ""})
    assert parameters.digest(bound, "w") == parameters.digest(other, "w")
    assert parameters.load(parameters.dump(bound, "w"), "w") == ((order, ""), {})


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [((), {}), ((1, 2, 3), {}), ((1,), {"c": 1}), ((1,), {"a": 1})],
)
def test_a_wrong_call_is_the_type_error_that_python_raises(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    def step(a: int, b: int = 0) -> None: ...

    with pytest.raises(TypeError, match=r"step\(\) "):
        Parameters(step).bind(args, kwargs)
    with pytest.raises(TypeError):
        step(*args, **kwargs)


def test_ignore_names_that_do_not_exist_are_refused_at_once() -> None:
    def step(a: int) -> None: ...

    with pytest.raises(DefinitionError, match=r"ignore names 'clent', which is no parameter; there are: a"):
        Parameters(step, ignore=("clent",))
    with pytest.raises(DefinitionError, match=r"there are: none"):
        Parameters(lambda: None, ignore="a")
    assert Parameters(step, ignore="a").dump(Parameters(step).bind((object(),), {}), "w") == b"{}"


def test_a_method_without_a_receiver_is_refused() -> None:
    with pytest.raises(DefinitionError, match="not even self"):
        Parameters(lambda: None, skip_first=True)


def test_a_function_that_hides_its_signature_is_refused() -> None:
    with pytest.raises(DefinitionError, match="wrap it in a function"):
        Parameters(dict)


def test_a_parameter_that_cannot_be_stored_is_named_at_first_use() -> None:
    def step(order: Order, client: Client) -> Client:
        return client

    parameters = Parameters(step)
    bound = parameters.bind((Order(id="a"), Client()), {})
    with pytest.raises(DefinitionError, match=r"parameter 'client' of \S+step\(\): values of Client cannot be stored"):
        parameters.copy(bound, "w")
    with pytest.raises(DefinitionError, match=r"the result of \S+step\(\): values of Client"):
        parameters.returns.dump(Client(), "w")


@pytest.mark.parametrize("annotation", [Annotated[Final[int], "x"], Final[int]])
def test_qualifiers_that_mean_nothing_here_are_refused(annotation: Any) -> None:
    def step(a: int) -> None: ...

    step.__annotations__["a"] = annotation
    with pytest.raises(DefinitionError, match=r"(the parameters|parameter 'a') of \S+step\(\)"):
        Parameters(step).load(b"{}", "w")


def test_an_annotation_that_cannot_be_resolved_names_its_parameter() -> None:
    def step(a: int, price: OnlyForCheckers) -> OnlyForCheckers:
        return price * a

    parameters = Parameters(step)
    with pytest.raises(DefinitionError, match=r"'OnlyForCheckers' of parameter 'price' of \S+step\(\) .*TYPE_CHECKING"):
        parameters.dump(parameters.bind((1, 2), {}), "w")
    with pytest.raises(DefinitionError, match="of the result of"):
        _ = parameters.returns


def test_an_ignored_parameter_needs_no_resolvable_annotation() -> None:
    def step(a: int, price: OnlyForCheckers) -> None: ...

    parameters = Parameters(step, ignore=("price",))
    assert parameters.dump(parameters.bind((1, 2), {}), "w") == b'{"a":1}'


def defined_inside() -> tuple[Parameters, Any, weakref.ref[Client]]:
    class Local(BaseModel):
        a: int

    big = Client()

    def step(x: Local, y: list[Local]) -> Local:
        return y[0] if y else x

    return Parameters(step, localns=locals()), Local, weakref.ref(big)


def test_local_classes_are_found_in_the_defining_frame_which_is_not_kept() -> None:
    parameters, local, big = defined_inside()
    args = (local(a=1), [local(a=2)])
    assert parameters.load(parameters.dump(parameters.bind(args, {}), "w"), "w") == (args, {})
    assert parameters.returns.load(b'{"a":1}', "w") == local(a=1)
    gc.collect()
    assert big() is None


def test_local_classes_are_found_in_the_closure() -> None:
    class Local(BaseModel):
        a: int

    def step(x: Local) -> None:
        Local(a=1)

    parameters = Parameters(step)
    args = (Local(a=1),)
    assert parameters.load(parameters.dump(parameters.bind(args, {}), "w"), "w") == (args, {})


def test_a_closure_that_is_not_filled_yet_does_no_harm() -> None:
    def step(x: int) -> None:
        later()

    parameters = Parameters(step)
    assert parameters.dump(parameters.bind((1,), {}), "w") == b'{"x":1}'

    def later() -> None: ...


def keep(order: Order) -> Order:
    return order


@functools.wraps(keep)
def wrapped(*args: Any) -> Any:
    return args


@pytest.mark.parametrize("fn", [keep, functools.partial(keep), wrapped, functools.partial(wrapped)])
def test_names_are_looked_up_where_the_annotations_were_written(fn: Callable[..., Any]) -> None:
    assert Parameters(fn).load(b'{"order":{"id":"a"}}', "w") == ((Order(id="a"),), {})


class Desk:
    def __call__(self, order: Order) -> Order:
        return order

    def method(self, order: Order) -> Order:
        return order


def test_callable_objects_and_bound_methods_have_parameters_too() -> None:
    for fn in (Desk(), Desk().method):
        assert Parameters(fn).load(b'{"order":{"id":"a"}}', "w") == ((Order(id="a"),), {})


def test_parameters_without_annotation_take_what_json_holds() -> None:
    def step(a, b):  # type: ignore[no-untyped-def]  # pyright: ignore[reportUnknownParameterType, reportMissingParameterType]  # noqa: ANN001, ANN202
        return [a, b]  # pyright: ignore[reportUnknownVariableType]

    parameters = Parameters(step)  # pyright: ignore[reportUnknownArgumentType]
    assert parameters.load(parameters.dump(parameters.bind(([1], {"x": None}), {}), "w"), "w") == (
        ([1], {"x": None}),
        {},
    )
    with pytest.raises(Unstorable, match=r"\$\.a: a tuple comes back as a list"):
        parameters.dump(parameters.bind(((1,), 2), {}), "w")
    assert parameters.returns.load(b"[1]", "w") == [1]


def test_typed_keywords_and_unpacked_tuples_keep_their_types() -> None:
    def step(*args: *tuple[int, bytes], **kwargs: Unpack[Options]) -> None: ...

    parameters = Parameters(step)
    call = ((1, b"\xff"), {"loud": True, "tags": ["a"]})
    assert parameters.load(parameters.dump(parameters.bind(*call), "w"), "w") == call


def test_forwarded_arguments_take_what_json_holds() -> None:
    def forward(fn: Callable[P, None]) -> Callable[..., None]:
        def step(*args: P.args, **kwargs: P.kwargs) -> None: ...

        return step

    parameters = Parameters(forward(print))
    call = ((1, [2]), {"a": None})
    assert parameters.load(parameters.dump(parameters.bind(*call), "w"), "w") == call


def test_an_empty_call_is_stored_too() -> None:
    def step() -> None: ...

    parameters = Parameters(step)
    assert parameters.load(parameters.dump(parameters.bind((), {}), "w"), "w") == ((), {})
    assert parameters.copy(parameters.bind((), {}), "w") == ((), {})


def test_the_result_of_a_plain_function_is_what_it_is_annotated_with() -> None:
    assert Parameters(fulfil).returns.load(b'[1,"a"]', "w") == (1, "a")
    assert Parameters(fulfil).returns.json_schema()["type"] == "array"


def test_names_that_are_awkward_elsewhere_are_fine_as_parameters() -> None:
    def step(cls: int, _hidden: int, model_config: int, schema: int) -> None: ...

    parameters = Parameters(step)
    assert parameters.load(parameters.dump(parameters.bind((1, 2, 3, 4), {}), "w"), "w") == ((1, 2, 3, 4), {})


@dataclass
class Raw:
    data: bytes


def test_bytes_in_a_dataclass_are_arguments_like_others() -> None:
    def step(raw: Raw) -> None: ...

    parameters = Parameters(step)
    args, _ = parameters.copy(parameters.bind((Raw(b"\xff"),), {}), "w")
    assert args == (Raw(b"\xff"),)

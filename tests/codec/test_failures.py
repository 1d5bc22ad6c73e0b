"""Errors: recorded as bounded facts, whatever they are; declared ones come back as themselves."""

from __future__ import annotations

import functools
import itertools
import json
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import pytest
from hypothesis import given
from hypothesis import strategies as st

from durable_sqlite._codec import Shape, describe, dump_declared, dump_error, load_declared, load_error
from durable_sqlite.errors import ErrorRecord, RunFailed, StepFailed, Undecodable


def fail(error: BaseException) -> None:
    raise error


def raised(error: BaseException) -> BaseException:
    return caught(lambda: fail(error))


def caught(call: Callable[[], object]) -> BaseException:
    try:
        call()
    except BaseException as error:
        return error
    raise AssertionError("it should have raised")


def round_trip(record: ErrorRecord) -> ErrorRecord:
    back, attempts, _ = load_error(dump_error(record, 3))
    assert attempts == 3
    return back


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")

    __repr__ = __str__


class CardDeclined(ValueError):
    def __init__(self, code: str, *, retry: bool = False) -> None:
        super().__init__(code)
        self.retry = retry


class Stolen(CardDeclined):
    pass


def test_an_error_is_recorded_structurally() -> None:
    record = describe(raised(CardDeclined("51")))
    assert record.type == f"{__name__}.CardDeclined"
    assert record.message == "51"
    assert [name.rpartition(".")[2] for name in record.bases] == [
        "CardDeclined", "ValueError", "Exception", "BaseException",
    ]  # fmt: skip
    assert record.is_a(CardDeclined)
    assert record.is_a(ValueError)
    assert not record.is_a(KeyError)
    assert "in fail" in record.traceback
    assert "raise error" in record.traceback
    assert round_trip(record) == record


@pytest.mark.parametrize(
    "error",
    [
        Mute(),
        ValueError("x" * 10_000_000),
        ValueError("\ud800\0\x1b[31m"),
        KeyError(),
        ExceptionGroup("two", [ValueError("a"), ExceptionGroup("deep", [KeyError("b"), Mute()])]),
        StepFailed("a#1", ErrorRecord("x.Y", "z"), 2),
        KeyboardInterrupt(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_is_recorded_is_what_is_read(error: BaseException) -> None:
    record = describe(raised(error))
    assert round_trip(record) == record
    assert len(dump_error(record, 1)) < 1_000_000


def test_an_error_that_cannot_say_anything_is_recorded_all_the_same() -> None:
    error = Mute()
    error.__dict__["__notes__"] = [Mute(), "fine"]
    record = describe(raised(error))
    assert record.message == "<no message: its str() raised RuntimeError>"
    assert record.notes == ("<no note: its str() raised RuntimeError>", "fine")


def test_ten_megabytes_of_message_are_cut_in_the_middle() -> None:
    message = describe(ValueError("a" + "x" * 10_000_000 + "b")).message
    assert len(message) <= 4_000
    assert "10,000,002 characters in all" in message
    assert message[0] == "a"
    assert message[-1] == "b"


def test_notes_are_kept_and_bounded() -> None:
    error = ValueError("a")
    for number in range(20):
        error.add_note(f"{number}" + "x" * 5_000)
    notes = describe(error).notes
    assert len(notes) == 10
    assert all(len(note) <= 1_000 for note in notes)
    assert notes[0].startswith("0x")


def test_notes_that_are_no_list_are_left_out() -> None:
    error = ValueError("a")
    error.__dict__["__notes__"] = "odd"
    assert describe(error).notes == ()


def chained(length: int) -> BaseException:
    error: BaseException = ValueError("first")
    for number in range(length):
        following = ValueError(f"{number}")
        following.__cause__ = error
        error = following
    return error


def causes(record: ErrorRecord) -> list[str]:
    found: list[str] = []
    cause = record.cause
    while cause is not None:
        found.append(cause.message)
        cause = cause.cause
    return found


def test_causes_are_followed_ten_deep() -> None:
    assert causes(describe(chained(4))) == ["2", "1", "0", "first"]
    assert len(causes(describe(chained(100)))) == 10


def test_the_context_is_a_cause_unless_it_is_suppressed() -> None:
    first, second = ValueError("first"), ValueError("second")
    second.__context__ = first
    assert causes(describe(second)) == ["first"]
    second.__suppress_context__ = True
    assert causes(describe(second)) == []
    second.__cause__ = KeyError("third")
    assert causes(describe(second)) == ["'third'"]


def test_cyclic_causes_end() -> None:
    first, second = ValueError("first"), ValueError("second")
    first.__cause__, second.__cause__ = second, first
    assert causes(describe(first)) == ["second"]


def test_groups_are_recorded_with_twenty_members() -> None:
    record = describe(ExceptionGroup("many", [ValueError(str(number)) for number in range(50)]))
    assert [member.message for member in record.members] == [str(number) for number in range(20)]


def test_the_whole_description_is_bounded() -> None:
    def group(depth: int) -> BaseException:
        if depth == 0:
            return ValueError("\0" * 10_000)
        return ExceptionGroup("\0" * 10_000, [group(depth - 1) for _ in range(3)])  # type: ignore[type-var]

    record = describe(group(6))
    assert round_trip(record) == record
    assert len(dump_error(record, 1)) < 1_000_000


def recurse(depth: int) -> None:
    if depth == 0:
        raise ValueError("deep")
    recurse(depth - 1)


def generated(depth: int) -> None:
    """Frames that differ, so that their formatted lines are not folded."""
    namespace: dict[str, Any] = {}
    lines = [f"def f{n}():\n    f{n + 1}()\n" for n in range(depth)]
    exec("".join(lines) + f"def f{depth}():\n    raise ValueError('deep')\n", namespace)
    namespace["f0"]()


def test_the_message_and_the_traceback_of_wide_frames_are_cut() -> None:
    names = [f"{'n' * 200}{number}" for number in range(60)]
    code = "".join(f"def {a}():\n    {b}()\n" for a, b in itertools.pairwise(names))
    namespace: dict[str, Any] = {}
    exec(f"{code}def {names[-1]}():\n    raise ValueError('deep')\n", namespace)
    record = describe(caught(namespace[names[0]]))
    assert len(record.traceback) <= 8_000
    assert "characters in all" in record.traceback


def test_long_tracebacks_are_cut_in_the_middle() -> None:
    folded = describe(caught(functools.partial(recurse, 500))).traceback
    assert len(folded) <= 8_000
    assert "in recurse" in folded
    trace = describe(caught(functools.partial(generated, 400))).traceback
    assert len(trace) <= 8_000
    assert " frames …" in trace
    assert "in f400" in trace


def test_frames_of_this_library_are_left_out_of_others_tracebacks() -> None:
    trace = describe(caught(lambda: Shape[Any](Any).dump(object(), "w"))).traceback
    assert "in <lambda>" in trace
    assert "_codec" not in trace


def test_an_error_of_the_library_alone_keeps_its_frames() -> None:
    error = caught(lambda: Shape[Any](Any).dump(object(), "w"))
    while error.__traceback__ is not None and "codec/test_" in error.__traceback__.tb_frame.f_code.co_filename:
        error.__traceback__ = error.__traceback__.tb_next
    assert "_codec" in describe(error).traceback


def test_a_traceback_that_cannot_be_formatted_is_no_second_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("gone")

    monkeypatch.setattr(traceback.StackSummary, "extract", fail)
    assert describe(raised(ValueError("a"))).traceback == "<no traceback: formatting it raised OSError>"


def test_a_failed_step_keeps_its_key_and_what_it_raised() -> None:
    inner = describe(ExceptionGroup("g", [ValueError("x")]))
    record = describe(raised(StepFailed("charge#1", inner, 2)))
    assert record.key == "charge#1"
    assert record.cause is not None
    assert record.cause.members == inner.members
    assert record.is_a(StepFailed)
    outer = describe(RunFailed("r", "failed", reason="error", record=record))
    assert causes(outer) == [record.message, inner.message]


def test_records_of_records_are_bounded_too() -> None:
    record = ErrorRecord("a.B", "x" * 20_000, notes=("n" * 5_000,))
    for number in range(100):
        record = ErrorRecord("a.B", f"{number}", cause=record)
    wide = ErrorRecord("a.B", "wide", members=tuple(ErrorRecord("a.B", "y" * 9_000) for _ in range(90)))
    assert len(causes(describe(StepFailed("k", record)))) == 10
    fitted = describe(StepFailed("k", wide)).cause
    assert fitted is not None
    assert len(fitted.members) < 60
    assert sum(len(member.message) for member in fitted.members) <= 100_000


@given(
    st.recursive(
        st.builds(ErrorRecord, type=st.text(), message=st.text()),
        lambda inner: st.builds(
            ErrorRecord,
            type=st.text(),
            message=st.text(),
            bases=st.lists(st.text()).map(tuple),
            traceback=st.text(),
            notes=st.lists(st.text()).map(tuple),
            cause=st.none() | inner,
            members=st.lists(inner, max_size=3).map(tuple),
            key=st.none() | st.text(),
        ),
        max_leaves=5,
    ),
    st.integers(1, 99),
)
def test_any_record_comes_back_equal(record: ErrorRecord, attempts: int) -> None:
    assert load_error(dump_error(record, attempts)) == (record, attempts, "")
    assert load_error(dump_error(record, attempts, "permanent")).reason == "permanent"


@pytest.mark.parametrize(
    "data",
    [
        b"", b"\xff", b"[]", b"{}", b'{"attempts":"1","error":{"type":"a","message":"b"}}',
        b'{"attempts":1,"error":{"type":1,"message":"b"}}', b'{"attempts":1,"error":{"type":"a","message":"b","key":5}}',
        b'{"attempts":1,"error":{"type":"a","message":"b","bases":[1]}}',
    ],
)  # fmt: skip
def test_damaged_errors_are_named_as_such(data: bytes) -> None:
    with pytest.raises(Undecodable, match="damaged, or changed by hand"):
        load_error(data)


# Declared -------------------------------------------------------------------------------------------------------------


class Slotted(Exception):
    __slots__ = ("code",)

    def __init__(self, code: int) -> None:
        self.code = code


@dataclass
class Detailed(Exception):
    code: int
    texts: list[str]


class Picky(Exception):
    def __new__(cls, code: int) -> Self:
        if code > 5:
            raise ValueError("too picky")
        return super().__new__(cls, code)

    def __init__(self, code: int) -> None:
        super().__init__(code)


class Worded(Exception):
    """Says something that is kept in neither args nor attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        said.append((self, text))

    def __str__(self) -> str:
        return next((text for error, text in said if error is self), "nothing")


said: list[tuple[Exception, str]] = []


def back(error: Exception, *raises: type[Exception]) -> Exception:
    data = dump_declared(error, raises, "w")
    assert data is not None
    json.loads(data)
    return load_declared(data, raises)


def test_a_declared_error_comes_back_as_its_own_class_with_arguments_and_attributes() -> None:
    error = CardDeclined("51", retry=True)
    error.add_note("seen")
    again = back(error, KeyError, CardDeclined)
    assert type(again) is CardDeclined
    assert again.args == ("51",)
    assert again.retry is True
    assert again.__notes__ == ["seen"]
    assert str(again) == "51"


def test_slots_and_dataclasses_are_kept() -> None:
    slotted = back(Slotted(4), Slotted)
    assert isinstance(slotted, Slotted)
    assert slotted.code == 4
    detailed = back(Detailed(3, ["a"]), Detailed)
    assert detailed == Detailed(3, ["a"])
    assert back(OSError(2, "gone"), OSError).errno == 2  # type: ignore[attr-defined]


def test_a_subclass_comes_back_as_the_nearest_declared_class() -> None:
    assert type(back(Stolen("7"), ValueError, CardDeclined)) is CardDeclined
    assert type(back(Stolen("7"), ValueError, CardDeclined, Stolen)) is Stolen


def nested(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    "error",
    [
        ValueError(object()),
        ValueError((1, 2)),
        ValueError({1: 2}),
        ValueError([{"a": {1}}]),
        ValueError(b"a"),
        ValueError("\ud800"),
        ValueError(float("nan")),
        ValueError(10**5000),
        ValueError(nested(60)),
        CardDeclined("1", retry=object()),  # type: ignore[arg-type]
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_does_not_come_back_is_an_ordinary_failure(error: Exception) -> None:
    assert dump_declared(error, (ValueError,), "w") is None


def test_an_error_that_would_say_something_else_is_an_ordinary_failure() -> None:
    assert dump_declared(Worded("a"), (Worded,), "w") is None


def test_an_error_that_cannot_be_made_again_is_an_ordinary_failure() -> None:
    picky = Picky(1)
    picky.args = (9,)
    assert dump_declared(picky, (Picky,), "w") is None
    data = dump_declared(Picky(1), (Picky,), "w")
    assert data is not None
    with pytest.raises(Undecodable, match=r"Picky cannot be made from its stored arguments \(ValueError: too picky\)"):
        load_declared(data.replace(b"[1]", b"[9]"), (Picky,))


def test_the_class_is_looked_up_among_the_declared_ones_only() -> None:
    data = dump_declared(CardDeclined("1"), (CardDeclined,), "w")
    assert data is not None
    with pytest.raises(Undecodable, match=r"CardDeclined was recorded, but the step declares builtins\.KeyError;"):
        load_declared(data, (KeyError,))
    with pytest.raises(Undecodable, match=r"declares nothing;"):
        load_declared(b'{"class":"os.system","args":["x"],"state":{}}', ())


@pytest.mark.parametrize("data", [b"", b"[]", b'{"class":1,"args":[],"state":{}}', b'{"class":"a"}'])
def test_damaged_declared_errors_are_named_as_such(data: bytes) -> None:
    with pytest.raises(Undecodable, match="damaged"):
        load_declared(data, (ValueError,))


def test_an_error_that_is_not_declared_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(TypeError, match=r"^w: builtins\.ValueError is none of the declared errors"):
        dump_declared(ValueError(), (KeyError,), "w")

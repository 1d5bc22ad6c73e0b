"""The stored form of a call's arguments."""

from __future__ import annotations

import functools
import inspect
import re
import typing
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from datetime import date, timedelta
from decimal import Decimal
from functools import cached_property
from inspect import BoundArguments, Parameter
from types import GenericAlias, SimpleNamespace
from typing import Any, Final
from uuid import UUID

import typing_extensions
from pydantic_core import from_json

from ..errors import DefinitionError, Undecodable, Unstorable
from ._canonical import NoCanonicalForm, digest, encode, tree
from ._faithful import same
from ._shape import Shape

__all__ = ["Parameters"]

_IMMUTABLE: Final = frozenset({str, int, float, bool, type(None), bytes, Decimal, UUID, date, timedelta})
"""Exact classes whose values a step may be handed as they are: it cannot change them."""

_PACKED: Final = frozenset({Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD})
_UNPACK: Final = frozenset({getattr(typing, "Unpack", None), typing_extensions.Unpack})


class Parameters:
    """The stored form of the arguments and the result of one function.

    Annotations are resolved, and pydantic asked about them, at the first use that needs them: a class that is named in
    an annotation may be defined after the function.

    Args:
        fn: The function. Parameters without an annotation take what JSON can hold.
        ignore: Names of parameters that are neither stored nor digested.
        skip_first: The first parameter is a receiver, `self` or `cls`, and is treated like an ignored one.
        localns: Names that annotations may use besides the function's globals and closure: the locals of the frame in
            which it is defined. Only what the annotations mention is kept.

    Raises:
        DefinitionError: `ignore` names a parameter that does not exist, or `fn` has no signature.
    """

    def __init__(
        self,
        fn: Callable[..., Any],
        *,
        ignore: Collection[str] = (),
        skip_first: bool = False,
        localns: Mapping[str, Any] | None = None,
    ) -> None:
        self._fn = fn
        self._label = f"{getattr(fn, '__qualname__', type(fn).__qualname__)}()"
        self._signature = _signature(fn, self._label)
        parameters = self._signature.parameters
        self._names = tuple(parameters)
        self._aside = self._set_aside([ignore] if isinstance(ignore, str) else ignore, skip_first=skip_first)
        self._stored = tuple(name for name in parameters if name not in self._aside)
        self._defaults = {name: parameters[name].default for name in self._stored if _is_optional(parameters[name])}
        self._simple = all(parameter.kind is Parameter.POSITIONAL_OR_KEYWORD for parameter in parameters.values())
        self._required = sum(not _is_optional(parameter) for parameter in parameters.values())
        self._localns = _mentioned(self._signature, localns or {})

    def _set_aside(self, ignore: Iterable[str], *, skip_first: bool) -> frozenset[str]:
        for name in ignore:
            if name not in self._names:
                raise DefinitionError(
                    f"{self._label}: ignore names {name!r}, which is no parameter; "
                    f"there are: {', '.join(self._names) or 'none'}"
                )
        if skip_first and not self._names:
            raise DefinitionError(f"{self._label} takes no parameters, not even self; make it a staticmethod")
        return frozenset(ignore) | frozenset(self._names[:1] if skip_first else ())

    def types(self) -> dict[str, Any]:
        """What is stored of each parameter, by name: its annotation, resolved; of `*args` a tuple, and of `**kwargs` a dict.

        Raises:
            DefinitionError: The annotation of a parameter cannot be resolved.
        """
        return {name: self._type(name) for name in self._stored}

    def bind(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> BoundArguments:
        """Arguments by parameter, as the call would have them; with `skip_first`, the receiver is `args[0]`.

        Raises:
            TypeError: The function cannot be called like this.
        """
        if self._simple and not kwargs and self._required <= len(args) <= len(self._names):
            return BoundArguments(self._signature, dict(zip(self._names, args, strict=False)))
        try:
            return self._signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{self._label} {error}") from None

    def digest(self, bound: BoundArguments, where: str) -> bytes:
        """12 bytes that are the same for the same arguments, in every process and Python version.

        Arguments equal to the parameter's default are left out, like the receiver and what is ignored.

        Raises:
            Unstorable: An argument has no JSON form.
        """
        form: dict[str, Any] = {}
        for name, value in bound.arguments.items():
            if name not in self._aside and not self._is_default(name, value):
                form[name] = self._tree(name, value, where)
        try:
            return digest(encode(form))
        except Unstorable as error:
            raise Unstorable(f"{where}: {error}") from None

    def dump(self, bound: BoundArguments, where: str) -> bytes:
        """All arguments as a JSON object by parameter name, defaults included, for a run's input.

        Defaults are stored too, so that a run keeps them when the code changes. The receiver and what is ignored are
        left out.

        Raises:
            Unstorable: An argument does not come back as it is; the message has its path, beginning with the parameter.
            DefinitionError: The annotation of a parameter cannot be stored, or not be resolved.
        """
        full = BoundArguments(self._signature, bound.arguments.copy())
        full.apply_defaults()
        return self._whole.dump({name: full.arguments[name] for name in self._stored if name in full.arguments}, where)

    def load(self, data: bytes, where: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Positional and keyword arguments, without the receiver, from what `dump` gave.

        A parameter that was added since takes its default.

        Raises:
            Undecodable: The function has other parameters now, or other annotations that do not accept the data.
            DefinitionError: The annotation of a parameter cannot be stored, or not be resolved.
        """
        values = self._whole.load(data, where)
        gone = sorted(from_json(data).keys() - set(self._stored))
        lacking = [name for name in self._stored if name not in values and self._needed(name)]
        if gone or lacking:
            facts = [f"{name!r} is stored, but {self._label} does not take it" for name in gone]
            facts += [f"{self._label} needs {name!r}, which is not stored" for name in lacking]
            raise Undecodable(
                f"{where}: {'; '.join(facts)}; take the old parameters again, or give new ones a default, "
                f"then resume the run"
            )
        bound = BoundArguments(self._loaded, {name: values[name] for name in self._stored if name in values})
        bound.apply_defaults()
        return bound.args, bound.kwargs

    def copy(self, bound: BoundArguments, where: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Fresh arguments, decoded from their encoding, so that whoever gets them cannot change what the caller holds.

        Immutable scalars, the receiver and what is ignored are passed as they are.

        Raises:
            Unstorable: An argument does not come back as it is; the message has its path, beginning with the parameter.
            DefinitionError: The annotation of a parameter cannot be stored, or not be resolved.
        """
        own = {name: value for name, value in bound.arguments.items() if self._is_mutable(name, value)}
        if not own:
            return self._spread(bound)
        _, fresh = self._whole.round_trip(own, where)
        return self._spread(BoundArguments(self._signature, {**bound.arguments, **fresh}))

    def _spread(self, bound: BoundArguments) -> tuple[tuple[Any, ...], dict[str, Any]]:
        given = tuple(bound.arguments)
        if self._simple and given == self._names[: len(given)]:  # nearly always, and inspect takes its time
            return tuple(bound.arguments.values()), {}
        return bound.args, bound.kwargs

    @cached_property
    def returns(self) -> Shape[Any]:
        """The stored form of what the function returns.

        Raises:
            DefinitionError: The name of a class in the annotation cannot be resolved.
        """
        return Shape(self._resolve("return", self._signature.return_annotation), what=f"the result of {self._label}")

    def _is_default(self, name: str, value: Any) -> bool:
        if name in self._defaults:
            return same(value, self._defaults[name])
        return not value and self._signature.parameters[name].kind in _PACKED

    def _is_mutable(self, name: str, value: Any) -> bool:
        return type(value) not in _IMMUTABLE and name not in self._aside

    def _needed(self, name: str) -> bool:
        return name not in self._defaults and self._signature.parameters[name].kind not in _PACKED

    def _tree(self, name: str, value: Any, where: str) -> Any:
        try:
            return tree(value)
        except NoCanonicalForm:
            return tree(from_json(self._whole.dump({name: value}, where)))
        except Unstorable as error:
            raise Unstorable(f"{where}: $.{name}: {error}") from None

    @cached_property
    def _loaded(self) -> inspect.Signature:
        """The signature without the receiver and what is ignored: what can be called with loaded arguments."""
        return self._signature.replace(parameters=[self._signature.parameters[name] for name in self._stored])

    @cached_property
    def _whole(self) -> Shape[dict[str, Any]]:
        types = self.types()
        try:
            shape = Shape[dict[str, Any]](typing_extensions.TypedDict("Arguments", types, total=False))  # type: ignore[operator]
            shape.prepare()
        except TypeError as error:  # a DefinitionError is one
            for name, annotation in types.items():
                Shape[Any](annotation, what=f"parameter {name!r} of {self._label}").prepare()
            raise DefinitionError(f"the parameters of {self._label} cannot be stored: {error}") from error
        else:
            return shape

    def _type(self, name: str) -> Any:
        parameter = self._signature.parameters[name]
        annotation = self._resolve(name, parameter.annotation)
        if parameter.kind not in _PACKED:
            return annotation
        if isinstance(annotation, (typing.ParamSpecArgs, typing.ParamSpecKwargs)):
            annotation = Any
        if typing.get_origin(annotation) in _UNPACK:
            return typing.get_args(annotation)[0]
        if parameter.kind is Parameter.VAR_POSITIONAL:
            return GenericAlias(tuple, (annotation, ...))
        return GenericAlias(dict, (str, annotation))

    def _resolve(self, name: str, annotation: Any) -> Any:
        if annotation is Parameter.empty:
            return Any
        hinted = SimpleNamespace(__annotations__={name: annotation})
        home = _home(self._fn)
        try:
            hints = typing.get_type_hints(
                hinted,
                getattr(home, "__globals__", {}),
                {**self._localns, **dict(_closure(home)), **_type_parameters(home)},
                include_extras=True,
            )
        except Exception as error:
            what = "the result" if name == "return" else f"parameter {name!r}"
            raise DefinitionError(
                f"the annotation {annotation!r} of {what} of {self._label} cannot be resolved: {error}; "
                f"define the name in the module, and outside `if TYPE_CHECKING`"
            ) from error
        return hints[name]


def _is_optional(parameter: Parameter) -> bool:
    return parameter.default is not Parameter.empty


def _signature(fn: Callable[..., Any], label: str) -> inspect.Signature:
    try:
        return inspect.signature(fn)
    except (TypeError, ValueError) as error:
        raise DefinitionError(f"{label}: its parameters cannot be told ({error}); wrap it in a function") from error


def _home(fn: Callable[..., Any]) -> Any:
    """The plain function in which the annotations were written."""
    home: Any = inspect.unwrap(fn)
    while isinstance(home, functools.partial):
        home = inspect.unwrap(home.func)
    if not hasattr(home, "__globals__") and not inspect.ismethod(home):
        home = type(home).__call__
    return getattr(home, "__func__", home)


def _closure(home: Any) -> Iterator[tuple[str, Any]]:
    names = home.__code__.co_freevars if hasattr(home, "__code__") else ()
    for name, cell in zip(names, getattr(home, "__closure__", None) or (), strict=False):
        try:
            yield name, cell.cell_contents
        except ValueError:  # not assigned yet
            continue


def _type_parameters(home: Any) -> dict[str, Any]:
    return {parameter.__name__: parameter for parameter in getattr(home, "__type_params__", ())}


def _mentioned(signature: inspect.Signature, names: Mapping[str, Any]) -> dict[str, Any]:
    """Those of `names` that the annotations mention, so that a frame's other locals are not kept alive."""
    annotations = [signature.return_annotation, *(parameter.annotation for parameter in signature.parameters.values())]
    words = {word for annotation in annotations for word in re.findall(r"[^\W\d]\w*", str(annotation))} if names else ()
    return {word: names[word] for word in words if word in names}

"""How values of one type are stored."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast, get_args

from pydantic_core import ValidationError, from_json
from typing_extensions import TypeAliasType

from ..errors import DefinitionError, Undecodable, Unstorable
from ._canonical import NoCanonicalForm, digest, encode, tree
from ._faithful import difference

if TYPE_CHECKING:
    from types import ModuleType

    from pydantic import ConfigDict, TypeAdapter

# pydantic itself, and the words for what went wrong, are imported where they are first needed: a program that only opens a
# journal does not wait for them.

__all__ = ["Shape"]

T = TypeVar("T")

_alias: Any = TypeAliasType
_CONFIG: ConfigDict = {"ser_json_bytes": "base64", "val_json_bytes": "base64", "ser_json_inf_nan": "strings"}


class Shape(Generic[T]):
    """How values of one type are stored: as JSON that gives back an equal value of the same type, or not at all.

    Build one per annotation and keep it: pydantic's part is made at the first use and takes far longer than any value.

    Args:
        annotation: What is written in the code, with its names resolved.
        what: Says in errors about the annotation where it stands.
    """

    def __init__(self, annotation: Any, *, what: str = "") -> None:
        self._annotation = annotation
        self._what = what

    def dump(self, value: T, where: str) -> bytes:
        """The value as UTF-8 JSON from which `load` makes an equal value of the same type.

        Raises:
            Unstorable: There is no such JSON under this annotation; the message has the path and what to write instead.
            DefinitionError: Nothing can be stored under this annotation.
        """
        return self.round_trip(value, where)[0]

    def round_trip(self, value: T, where: str) -> tuple[bytes, T]:
        """What `dump` gives, and what `load` gives for it, in one go. Both raise as they do."""
        adapter = self._adapter
        try:
            data = adapter.serializer.to_json(value, warnings=False, by_alias=False, round_trip=True)
        except Exception as error:
            raise Unstorable(f"{where}: {_explain().not_encoded(value, error)}") from error
        try:
            back = adapter.validator.validate_json(data, by_alias=False, by_name=True)
        except ValidationError as error:
            raise Unstorable(f"{where}: {_explain().not_fitting(value, error)}") from None
        except Exception as error:
            raise Unstorable(f"{where}: $: a validator failed: {type(error).__name__}: {error}") from error
        gap = difference(value, back)
        if gap is not None:
            raise Unstorable(f"{where}: {_explain().changed(value, gap)}")
        return data, cast("T", back)

    def load(self, data: bytes, where: str) -> T:
        """A fresh value from what `dump` gave.

        Raises:
            Undecodable: The data does not fit the annotation any more; the message has the paths.
            DefinitionError: Nothing can be stored under this annotation.
        """
        validator = self._adapter.validator
        try:
            return cast("T", validator.validate_json(data, by_alias=False, by_name=True))
        except ValidationError as error:
            reason = _explain().not_read(data, error)
        except Exception as error:  # noqa: BLE001 - a validator of the application may raise anything
            reason = f"$: a validator failed: {type(error).__name__}: {error}"
        raise Undecodable(
            f"{where}: what is stored does not fit {self._name}: {reason}; "
            f"let the type accept it again (an older form, a default), then resume the run"
        )

    def canonical(self, value: T, where: str) -> bytes:
        """The value as JSON that depends on nothing but the value: for digests, not for decoding.

        Keys and sets are sorted; fields equal to their defaults are left out.

        Raises:
            Unstorable: It has no JSON form.
        """
        return encode(self.tree(value, where))

    def digest(self, value: T, where: str) -> bytes:
        """12 bytes that are the same for the same value, in every process. Raises as `canonical` does."""
        return digest(self.canonical(value, where))

    def tree(self, value: T, where: str) -> Any:
        """The canonical form as plain JSON data. Raises as `canonical` does."""
        try:
            return tree(value)
        except NoCanonicalForm:
            return tree(from_json(self.dump(value, where)))
        except Unstorable as error:
            raise Unstorable(f"{where}: {error}") from None

    def prepare(self) -> None:
        """Build pydantic's part now; harmless when it is there.

        Raises:
            DefinitionError: Nothing can be stored under this annotation.
        """
        self._adapter  # noqa: B018 - reading it builds it

    def json_schema(self) -> dict[str, Any]:
        """The JSON schema of what is stored."""
        return self._adapter.json_schema(by_alias=False)

    @property
    def _name(self) -> str:
        annotation = self._annotation
        return annotation.__qualname__ if isinstance(annotation, type) else str(annotation).replace("typing.", "")

    @cached_property
    def _adapter(self) -> TypeAdapter[Any]:
        from pydantic import PydanticUserError  # noqa: PLC0415
        from pydantic.errors import PydanticSchemaGenerationError, PydanticUndefinedAnnotation  # noqa: PLC0415

        try:
            adapter = _adapt(self._annotation)
            adapter.rebuild(raise_errors=True)
        except (PydanticUserError, PydanticSchemaGenerationError, PydanticUndefinedAnnotation, NameError) as error:
            what = f"{self._what}: " if self._what else ""
            reason = str(error).partition("\n")[0]
            raise DefinitionError(f"{what}values of {self._name} cannot be stored: {reason}") from error
        else:
            return adapter


def _explain() -> ModuleType:
    from . import _explain as explain  # noqa: PLC0415

    return explain


def _adapt(annotation: Any) -> TypeAdapter[Any]:
    from pydantic import BaseModel, TypeAdapter  # noqa: PLC0415

    bare = get_args(annotation)[0] if hasattr(annotation, "__metadata__") else annotation
    if isinstance(bare, type) and issubclass(bare, BaseModel):
        return TypeAdapter(annotation)
    # Behind an alias, because pydantic takes no config for a bare dataclass or TypedDict, which would follow it well.
    return TypeAdapter(_alias("Value", annotation), config=_CONFIG)

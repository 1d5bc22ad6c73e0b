"""What a command that only looks imports in place of `typing`, which would take it longer than its query.

A type checker reads the names of `typing` itself.
"""

from __future__ import annotations

TYPE_CHECKING = False

if TYPE_CHECKING:
    from typing import NamedTuple
else:
    from operator import itemgetter

    class NamedTuple(tuple):
        """The same as `typing.NamedTuple`, which compiles a constructor for each class: half a millisecond for each."""

        __slots__ = ()
        _fields = ()
        _defaults = {}  # noqa: RUF012 - each class has its own

        def __init_subclass__(cls) -> None:
            cls._fields = tuple(cls.__annotations__)
            cls._defaults = {name: cls.__dict__[name] for name in cls._fields if name in cls.__dict__}
            for place, name in enumerate(cls._fields):
                setattr(cls, name, property(itemgetter(place)))

        def __new__(cls, *values: object, **named: object) -> NamedTuple:
            if len(values) != len(cls._fields) or named:
                known = cls._defaults | dict(zip(cls._fields, values, strict=False)) | named
                values = tuple(known.pop(name) for name in cls._fields)
                if known:
                    raise TypeError(f"{cls.__name__} has no {', '.join(known)}")
            return super().__new__(cls, values)

        def _asdict(self) -> dict[str, object]:
            return dict(zip(self._fields, self, strict=True))

        def _replace(self, **named: object) -> NamedTuple:
            return type(self)(**(self._asdict() | named))


__all__ = ["TYPE_CHECKING", "NamedTuple"]

"""How values and errors are stored: as JSON that gives back what went in, or not at all.

The one rule: **a value comes back equal, and of the same type, or it is refused at that step with its path** and the
advice what to write. So whatever is encoded is decoded at once and compared, part by part, with the original.
"""

from __future__ import annotations

from ._canonical import digest_of
from ._failures import describe, dump_declared, dump_error, load_declared, load_error
from ._parameters import Parameters
from ._shape import Shape
from ._vault import Codec, Vault

__all__ = [
    "Codec",
    "Parameters",
    "Shape",
    "Vault",
    "describe",
    "digest_of",
    "dump_declared",
    "dump_error",
    "load_declared",
    "load_error",
]

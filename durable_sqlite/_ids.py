"""Ids and the one rule for every name a person may choose."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable

from .errors import InvalidName, UsageError

__all__ = ["RULE", "Ids", "check_name", "check_text", "derived", "new_id"]

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # Crockford's base 32: no I, L, O, U
_PUNCTUATION = frozenset("._-:@+=,")
_MAX_LENGTH = 200
_LONGEST_TEXT = 1_000  # characters

RULE = "1 to 200 letters, digits or any of . _ - : @ + = , beginning with a letter, a digit or an underscore"

Ids = Callable[[int], str]
"""Makes a new id from the time in microseconds."""


_PAIRS = tuple(high + low for high in _ALPHABET for low in _ALPHABET)  # one is made for each step


def _base32(number: int) -> str:
    return "".join([_PAIRS[number >> shift & 1023] for shift in range(120, -1, -10)])


def new_id(now: int) -> str:
    """Make a 128-bit id of 26 characters that sorts by its creation time.

    Args:
        now: The time in microseconds UTC; the id keeps its milliseconds in the leading 48 bits.
    """
    return _base32((now // 1000 & (1 << 48) - 1) << 80 | secrets.randbits(80))


def derived(*parts: str) -> str:
    """Make the same 26-character id from the same parts, everywhere and always."""
    raw = hashlib.blake2b("\0".join(parts).encode(), digest_size=16).digest()
    return _base32(int.from_bytes(raw, "big"))


def check_text(what: str, value: str | None) -> str | None:
    """Give a text back that people wrote and that is stored as it is: at most 1,000 characters, which UTF-8 can hold.

    Raises:
        UsageError: It is not.
    """
    if value is None:
        return None
    if not isinstance(value, str) or len(value) > _LONGEST_TEXT:
        raise UsageError(f"{what} takes a text of at most {_LONGEST_TEXT:,} characters")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"{what} takes a text that UTF-8 can hold; at {error.start} it has a lone surrogate") from None
    return value


def check_name(what: str, value: str) -> str:
    """Give `value` back if it follows `RULE`.

    Raises:
        InvalidName: It does not; the message names the first character that is refused.
    """
    if not isinstance(value, str):
        raise InvalidName(f"{what} must be a string, not {type(value).__name__}")
    if not 1 <= len(value) <= _MAX_LENGTH:
        raise InvalidName(f"{what} has {len(value)} characters; allowed are {RULE}")
    if not (value[0].isalnum() or value[0] == "_"):
        raise InvalidName(f"{what} {value!a} begins with {value[0]!a}; allowed are {RULE}")
    for char in value:
        if not (char.isalnum() or char in _PUNCTUATION):
            raise InvalidName(f"{what} {value!a} contains {char!a}; allowed are {RULE}")
    return value

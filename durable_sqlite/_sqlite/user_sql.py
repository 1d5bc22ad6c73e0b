"""What can be seen of a statement of the application's from its text alone."""

from __future__ import annotations

import re
import sqlite3
from functools import lru_cache
from typing import NamedTuple

__all__ = ["Verb", "mark", "several", "verb_of"]

_BLANK = re.compile(r"(?:\s|--[^\n]*(?:\n|$)|/\*.*?(?:\*/|$))+", re.DOTALL)
_PIECE = re.compile(
    r"""--[^\n]*|/\*.*?(?:\*/|$)|'(?:[^']|'')*'|"(?:[^"]|"")*"|`(?:[^`]|``)*`|\[[^\]]*\]|\w+|[()]""", re.DOTALL
)
_MAIN = frozenset({"INSERT", "REPLACE", "UPDATE", "DELETE", "SELECT", "VALUES"})


def mark(sql: str) -> str:
    """The same statement, with a text that no statement of ours has."""
    return f"/* tx */ {sql}"


class Verb(NamedTuple):
    """What a statement does, in capitals."""

    first: str
    """Its first word."""
    main: str
    """The same; for one that begins WITH, the verb that follows."""


@lru_cache(maxsize=1024)
def verb_of(sql: str) -> Verb:
    """What a statement does; empty words where it does nothing."""
    depth = 0
    first = ""
    for piece in _PIECE.findall(sql):
        if piece == "(":
            depth += 1
        elif piece == ")":
            depth -= 1
        elif piece[0].isalpha() and depth == 0:
            word = piece.upper()
            if not first:
                first = word
            if first != "WITH" or word in _MAIN:
                return Verb(first, word)
    return Verb(first, first)


def several(sql: str) -> bool:
    """Whether more than one statement stands there."""
    end = sql.find(";")
    while end != -1:
        if sqlite3.complete_statement(sql[: end + 1]):
            return bool(_BLANK.sub("", sql[end + 1 :]))
        end = sql.find(";", end + 1)
    return False

"""What can be wrong with a formula, said with its place in the text."""

from __future__ import annotations

__all__ = ["FormulaError"]

_SHOWN = 72
"""How much of a long formula is shown around the place."""


class FormulaError(Exception):
    """Expected error: a formula, or a parameter of it, is not what it may be. The fault of whoever wrote it.

    >>> try:
    ...     parse("x + foo(x)", ())
    ... except FormulaError as error:
    ...     print(error.pointed)
    x + foo(x)
        ^

    `field` names what is at fault, `column` is the place in it, counted from 1, and `pointed` shows that place with a caret.
    """

    def __init__(self, message: str, *, field: str = "formula", text: str = "", column: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        self.column = column
        self.pointed = _pointed(text, column) if column is not None else ""


def _pointed(text: str, column: int) -> str:
    # A caret under a tab or under what no font shows would not be where it should.
    shown = "".join(character if character.isprintable() else " " for character in text)
    begin = max(0, min(column - 1 - _SHOWN // 2, len(shown) - _SHOWN))
    return f"{shown[begin : begin + _SHOWN]}\n{' ' * (column - 1 - begin)}^"

"""How activations are found by their names: what the engine asks of whoever knows them."""

from __future__ import annotations

from typing import Protocol

from actserve_server.activations import catalogue
from actserve_server.activations.spec import Library, Record

__all__ = ["BUILT_IN", "Names", "Pinned"]


class Names(Protocol):
    """Knows activations."""

    def find(self, name: str) -> Record | None:
        """The activation of that name or alias, or None."""

    def find_in(self, library: str, name: str) -> tuple[Record, Library | None] | None:
        """The activation that a library calls by that name, or else we do, and how it is there, if it is there; or None."""

    def near(self, name: str, library: str | None = None) -> tuple[str, ...]:
        """Names like the one given, the likeliest first."""


class Pinned:
    """Names as they were when they were first asked for: what a stream began with, it goes on with."""

    def __init__(self, names: Names) -> None:
        self._names = names
        self._found: dict[str, Record] = {}

    def find(self, name: str) -> Record | None:
        """The activation of that name or alias, or None."""
        found = self._found.get(name)
        if found is None and (found := self._names.find(name)) is not None:
            self._found[name] = found
        return found

    def find_in(self, library: str, name: str) -> tuple[Record, Library | None] | None:
        """The activation that a library calls by that name, or else we do, and how it is there, if it is there; or None."""
        pinned = self._found.get(name)
        return (pinned, None) if pinned is not None and "." in name else self._names.find_in(library, name)

    def near(self, name: str, library: str | None = None) -> tuple[str, ...]:
        """Names like the one given, the likeliest first."""
        return self._names.near(name, library)


class _BuiltIn:
    find = staticmethod(catalogue.find)
    find_in = staticmethod(catalogue.find_in)
    near = staticmethod(catalogue.near)


BUILT_IN: Names = _BuiltIn()
"""The catalogue, and nothing else."""

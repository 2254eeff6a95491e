"""Every activation that a server has, by name: the catalogue's, and those that callers added."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from pathlib import Path

from actserve_server.activations import catalogue
from actserve_server.activations.spec import Activation, Library, Record
from actserve_server.custom.entry import Entry, EntryError, check_name
from actserve_server.custom.store import Store
from actserve_server.errors import InvalidOption
from actserve_server.formulas import FormulaError
from actserve_server.kernels import compiler

__all__ = ["Added", "Registry"]


@dataclasses.dataclass(frozen=True, slots=True)
class Added:
    """An activation that was added."""

    entry: Entry
    record: Activation


class Registry:
    """Finds activations. What was added by another server on the same folder is found as soon as it is asked for.

    >>> registry = Registry(None, longest=1000)
    >>> registry.add(Entry("team.double", "2 * x"), replace=False)
    True
    >>> registry.find("team.double").formula
    '2 * x'
    """

    def __init__(self, folder: Path | None, longest: int) -> None:
        self._longest = longest
        self._store: Store[Added] = Store(folder, self._read, lambda added: compiler.forget(added.record))

    def _read(self, name: str, text: str) -> Added:
        entry = Entry.from_json(text)
        if entry.name != name:
            raise EntryError(f"it holds {entry.name!r}")
        try:
            check_name(name)
            return Added(entry, entry.record(self._longest))
        except InvalidOption as error:
            raise EntryError(error.message) from None
        except FormulaError as error:
            raise EntryError(error.message) from None

    def find(self, name: str) -> Record | None:
        """The activation of that name or alias, or None."""
        if "." not in name:
            return catalogue.find(name)
        # Fresh, as the caller may have added it at another server a moment ago; it costs a look at the folder's time.
        added = self._store.all(fresh=True).get(name)
        return None if added is None else added.record

    def find_in(self, library: str, name: str) -> tuple[Record, Library | None] | None:
        """The activation that a library calls by that name, or else we do, and how it is there, if it is there; or None."""
        found = catalogue.find_in(library, name)
        if found is None and (record := self.find(name)) is not None:
            return record, None
        return found

    def near(self, name: str, library: str | None = None) -> tuple[str, ...]:
        """Names like the one given, the likeliest first."""
        added = difflib.get_close_matches(name, self._store.all())
        return (*added, *catalogue.near(name, library))

    def added(self, *, fresh: bool = False) -> Mapping[str, Added]:
        """What was added, by name."""
        return self._store.all(fresh=fresh)

    def add(self, entry: Entry, *, replace: bool, most: int | None = None) -> bool:
        """Add an activation whose formula was found right; False where there is one of that name, and it is not to be replaced.

        Raises store.Full where there are `most` already, store.Alike where a name differs only by case, and OSError.
        """
        return self._store.put(entry.name, entry.to_json(), replace=replace, most=most)

    def remove(self, name: str) -> bool:
        """Remove an activation that was added; False where there is none. Raises OSError."""
        return self._store.remove(name)

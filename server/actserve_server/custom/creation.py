"""Adding and removing activations: what may be added, in which order things happen, and what a caller is told."""

from __future__ import annotations

import dataclasses
import logging

from actserve_server.activations import catalogue
from actserve_server.custom.entry import Entry, check_name, defined
from actserve_server.custom.registry import Added, Registry
from actserve_server.custom.store import Alike, Full
from actserve_server.custom.workshop import NotKept, TooLong, Workshop
from actserve_server.errors import (
    ActivationExists,
    CannotKeep,
    CreationOff,
    InvalidOption,
    LimitExceeded,
    UnknownActivation,
)

__all__ = ["Creation", "Quotas"]

_FOLDER = "the folder of added activations (--activations-dir)"

log = logging.getLogger("actserve.custom")


@dataclasses.dataclass(frozen=True, slots=True)
class Quotas:
    """The settings that bound what callers may add; see `actserve_server.config.Config` for what each means."""

    allow_create: bool
    max_activations: int
    max_formula_length: int
    max_create_s: float


class Creation:
    """Adds activations to a registry, and removes them."""

    def __init__(self, registry: Registry, workshop: Workshop, quotas: Quotas) -> None:
        self._registry = registry
        self._workshop = workshop
        self._quotas = quotas

    def create(self, entry: Entry, *, replace: bool, validate_only: bool) -> Added:
        """Look into a formula, and add it unless it is only to be looked into.

        Raises CreationOff, InvalidFormula, InvalidOption, ActivationExists, LimitExceeded and CannotKeep.
        """
        self._check_allowed()
        quotas = self._quotas
        definition = defined(entry, quotas.max_formula_length)
        if not validate_only:
            self._check_room(entry.name, replace=replace)
        try:
            report = self._workshop.examine(entry, longest=quotas.max_formula_length, within_s=quotas.max_create_s)
        except TooLong as error:
            raise LimitExceeded(
                f"compiling {entry.name}, in seconds ({error})",
                field="formula",
                value=quotas.max_create_s,
                limit=quotas.max_create_s,
                setting="max_create_s",
            ) from None
        except NotKept as error:
            raise CannotKeep(error.error, "the cache of kernels (--cache-dir)") from None
        kept = dataclasses.replace(entry, report=report, rewrites=definition.rewrites)
        added = Added(kept, kept.record(quotas.max_formula_length))
        if validate_only:
            return added
        # Asked again, as others may have added some meanwhile.
        try:
            if not self._registry.add(kept, replace=replace, most=quotas.max_activations):
                raise _exists(entry.name)
        except Full as error:
            raise self._too_many(error.count) from None
        except Alike as error:
            raise _alike(entry.name, error.other) from None
        except OSError as error:
            raise CannotKeep(error, _FOLDER) from None
        log.info("activation added", extra={"activation": entry.name, "revision": kept.revision})
        return self._registry.added(fresh=True).get(entry.name, added)

    def delete(self, name: str) -> None:
        """Remove an activation that was added. Raises CreationOff, InvalidOption, UnknownActivation and CannotKeep."""
        self._check_allowed()
        if "." not in name and catalogue.find(name) is not None:
            raise InvalidOption(f"{name} is the catalogue's, and cannot be removed", field="name", value=name)
        if "." in name:
            check_name(name)
        try:
            removed = "." in name and self._registry.remove(name)
        except OSError as error:
            raise CannotKeep(error, _FOLDER) from None
        if not removed:
            raise UnknownActivation(name, self._registry.near(name), field="name")
        log.info("activation removed", extra={"activation": name})

    def _check_allowed(self) -> None:
        if not self._quotas.allow_create:
            raise CreationOff("this server does not let callers add or remove activations (--allow-create)")

    def _check_room(self, name: str, *, replace: bool) -> None:
        present = self._registry.added(fresh=True)
        if name in present:
            if not replace:
                raise _exists(name)
            return
        for other in present:
            if other.lower() == name.lower():
                raise _alike(name, other)
        if len(present) >= self._quotas.max_activations:
            raise self._too_many(len(present))

    def _too_many(self, count: int) -> LimitExceeded:
        return LimitExceeded(
            f"{count + 1} activations",
            field="name",
            value=count + 1,
            limit=self._quotas.max_activations,
            setting="max_activations",
        )


def _exists(name: str) -> ActivationExists:
    return ActivationExists(
        f"an activation {name} exists; replace=True puts this one in its place", field="name", value=name
    )


def _alike(name: str, other: str) -> ActivationExists:
    return ActivationExists(
        f"an activation {other} exists, and {name} differs from it only by case: on some disks they would be one file",
        field="name",
        value=name,
        near=other,
    )

"""Kinds of storage besides local files, one module each, found by scanning this folder, and those of other packages.

A module that ends in a constant ``STORAGE`` is one; nothing else has to know about it. A package that is installed
beside this one adds its own by an entry point of the group ``ckconv.storages``, which names such a constant.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from converter.entry_points import STORAGES, added
from converter.errors import UsageError
from converter.model.file import Elsewhere, Location

_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")


@dataclass(frozen=True, slots=True, kw_only=True)
class Storage:
    """One kind of storage.

    `schemes`   what its addresses begin with, before ``://``
    `at`        address, its scheme in lower case -> place; nothing is connected. Raises UsageError for one that it
                cannot have, MissingExtraError
    """

    schemes: tuple[str, ...]
    at: Callable[[str], Elsewhere]


@cache
def registry() -> Mapping[str, Storage]:
    """Return all kinds of storage by scheme: those of this folder, then those of other packages.

    Raises UsageError when an entry point cannot be loaded, and when two claim one scheme.
    """
    modules = sorted(module_info.name for module_info in pkgutil.iter_modules(__path__))
    own = [getattr(importlib.import_module(f"{__name__}.{name}"), "STORAGE", None) for name in modules]
    others = [storage for _, storage in added(STORAGES, Storage)]
    found: dict[str, Storage] = {}
    for storage in (*(each for each in own if isinstance(each, Storage)), *others):
        for scheme in storage.schemes:
            if scheme in found:
                raise UsageError(f"two storages are called {scheme!r}", hint="uninstall the package with the other")
            found[scheme] = storage
    return found


def location_of(address: str | os.PathLike[str]) -> Location:
    """Return the place that a user names: a path, or the address of another storage.

    Raises UsageError for an address of no storage that is known.
    """
    match = _ADDRESS.match(os.fspath(address))
    if match is None:
        return Path(address)
    storage = registry().get(match[1].lower())
    if storage is None:
        known = ", ".join(f"{scheme}://" for scheme in registry()) or "local paths alone"
        raise UsageError(f"{match[1]}:// is no storage that is known", path=address, hint=f"known: {known}")
    return storage.at(match[1].lower() + os.fspath(address)[match.end(1) :])

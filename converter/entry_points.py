"""What other packages add: entry points, which are the user's own installed code and never named by a file."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import metadata
from typing import TypeVar

from converter.errors import UsageError

FORMATS, DIALECTS, STORAGES = "ckconv.formats", "ckconv.dialects", "ckconv.storages"

_Added = TypeVar("_Added")


def added(group: str, type_: type[_Added]) -> Iterator[tuple[str, _Added]]:
    """Yield name and object of every entry point of `group`, in the order of their names.

    Raises UsageError, which names the package, for one that cannot be loaded or is not of `type_`.
    """
    for point in sorted(metadata.entry_points(group=group), key=lambda point: (point.name, point.value)):
        whose = f"entry point {point.name} of {group}, {point.value}"
        try:
            found = point.load()
        except Exception as error:
            raise UsageError(f"{whose}, cannot be loaded: {type(error).__name__}: {error}") from error
        if not isinstance(found, type_):
            raise UsageError(f"{whose}, is no {type_.__module__}.{type_.__qualname__} but {type(found).__name__}")
        yield point.name, found

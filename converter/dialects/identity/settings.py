"""Which settings the config of a model of transformers has, whether its file says them: `tables/configs.json`.

`tests/oracle/generate/configs.py` makes the table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from converter.dialects.identity import disentangled
from converter.dialects.tables import document, naming_entry
from converter.errors import ArchitectureError

_TABLE = "configs"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Settings:
    """What the table has of the config of a model type.

    `keys`    its settings, those of every config too
    `parts`   setting that is a config of its own -> the model type of that
    `maps`    setting that is a plain map -> the keys of that
    """

    keys: frozenset[str]
    parts: Mapping[str, str]
    maps: Mapping[str, frozenset[str]]


@cache
def _settings(model_type: str) -> _Settings | None:
    """Return what the table has of a model type, None when it does not know it. Raises ValueError for a slip in it."""
    table = document(_TABLE)
    entry = table["models"].get(model_type)
    if entry is None:
        return None
    with naming_entry(_TABLE, model_type):
        return _parsed(every=table["every"], **entry)


def _parsed(
    *, every: Sequence[str], keys: Sequence[str], parts: Mapping[str, str], maps: Mapping[str, Sequence[str]]
) -> _Settings:
    sets = {name: frozenset(held) for name, held in maps.items()}
    return _Settings(keys=frozenset((*keys, *every)), parts=parts, maps=sets)


def is_type(model_type: str) -> bool:
    """Whether the table knows a model type."""
    return _settings(model_type) is not None


def is_setting(config: Mapping[str, Any], name: str) -> bool:
    """Whether a config has a setting, dotted where it is of a part, by the table of its model type.

    Raises ArchitectureError for a model type that no table knows.
    """
    return _has(str(config.get("model_type")), config, name.split("."))


def _has(model_type: str, config: Mapping[str, Any], path: Sequence[str]) -> bool:
    known = _settings(model_type)
    if known is None:
        raise ArchitectureError(f"no table knows the settings of model type {model_type!r}")
    first, *rest = path
    if not rest:
        return first in known.keys or first in disentangled.SETTINGS.get(model_type, ())
    value = config.get(first)
    part = value if isinstance(value, Mapping) else {}
    inside = part.get("model_type", known.parts.get(first))
    if isinstance(inside, str):
        return _has(inside, part, rest)
    return len(rest) == 1 and rest[0] in known.maps.get(first, ())

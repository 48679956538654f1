"""Which settings the config of a model of transformers has, whether its file says them: `tables/configs.json`.

`tests/oracle/generate/configs.py` makes the table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from converter.dialects.tables import document
from converter.errors import ArchitectureError

_TABLE = "configs"


def is_setting(config: Mapping[str, Any], name: str) -> bool:
    """Whether a config has a setting, dotted where it is of a part, by the table of its model type.

    Raises ArchitectureError for a model type that no table knows.
    """
    return _has(str(config.get("model_type")), config, name.split("."))


def _has(model_type: str, config: Mapping[str, Any], path: Sequence[str]) -> bool:
    table = document(_TABLE)
    known = table["models"].get(model_type)
    if known is None:
        raise ArchitectureError(f"no table knows the settings of model type {model_type!r}")
    first, *rest = path
    if not rest:
        return first in known["keys"] or first in table["every"]
    value = config.get(first)
    part = value if isinstance(value, Mapping) else {}
    inside = part.get("model_type", known["parts"].get(first))
    if isinstance(inside, str):
        return _has(inside, part, rest)
    return len(rest) == 1 and rest[0] in known["maps"].get(first, ())

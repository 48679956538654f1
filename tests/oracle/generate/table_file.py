"""The table files: where they are, and writing one so that a row is a line."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

TABLES = Path(__file__).parents[3] / "converter" / "dialects" / "tables"


def write(path: Path, document: Mapping[str, Any]) -> None:
    """Write `document`; innermost lists, and maps without containers in them, take one line each."""
    path.write_text(_text(document, 0) + "\n", encoding="utf-8")


def _text(value: Any, depth: int) -> str:
    inside = list(value.values()) if isinstance(value, Mapping) else value if isinstance(value, list) else []
    if not any(isinstance(item, (Mapping, list)) for item in inside):
        return json.dumps(value)
    pad = " " * (depth + 1)
    if isinstance(value, Mapping):
        lines = [f"{pad}{json.dumps(key)}: {_text(item, depth + 1)}" for key, item in value.items()]
        opening, closing = "{", "}"
    else:
        lines = [pad + _text(item, depth + 1) for item in value]
        opening, closing = "[", "]"
    return opening + "\n" + ",\n".join(lines) + "\n" + " " * depth + closing

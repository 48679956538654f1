"""The generated tables: per model type of transformers, the rows between one framework's names and PyTorch's.

A table file (`converter/dialects/tables/<framework>.json`) is ``{"versions": {...}, "models": {model type: {"prefix":
..., "rows": [[theirs, canonical, layout], ...], ...}}}``. `tests/oracle/generate/` makes them. A file is read when
the first of its models is asked for, and a model's rows are built and validated when that model is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from converter.dialects.transformers.rows import Match, Row, Rows


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelTable:
    """What a table knows of one model type.

    `prefix`    the base model's attribute in a class with a head, `base_model_prefix`; canonical names of rows have it
    `rows`      names and layouts, both ways
    `aliases`   names that are only read: those of old releases, and of tensors that several names are stored under
    `more`      everything else that the file says of it
    """

    model_type: str
    prefix: str
    rows: Rows
    aliases: Rows
    more: Mapping[str, Any]

    def to_canonical(self, name: str, rank: int | None = None) -> Match | None:
        """Return what PyTorch calls their `name`, None when no row has it; `rank` where names alone do not tell."""
        return self.rows.to_canonical(name, rank) or self.aliases.to_canonical(name, rank)

    def from_canonical(self, name: str, rank: int | None = None) -> Match | None:
        """Return what they call PyTorch's `name`, None when no row has it; `rank` is that of PyTorch's tensor."""
        return self.rows.from_canonical(name, rank)


def model_table(framework: str, model_type: str) -> ModelTable | None:
    """Return the table of a model type, None when there is none.

    `framework` is the stem of a table file. Raises ValueError for a table that contradicts itself.
    """
    return _built(framework, model_type) if model_type in document(framework)["models"] else None


@cache
def document(framework: str) -> Mapping[str, Any]:
    """Return a whole table file, parsed."""
    file = resources.files("converter.dialects") / "tables" / f"{framework}.json"
    parsed: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    if not isinstance(parsed.get("versions"), dict) or not isinstance(parsed.get("models"), dict):
        raise ValueError(f"{framework}.json is no table: it needs versions and models")
    return parsed


@cache
def _built(framework: str, model_type: str) -> ModelTable:
    entry = document(framework)["models"][model_type]
    try:
        return ModelTable(
            model_type=model_type,
            prefix=entry["prefix"],
            rows=Rows(map(Row.of, entry["rows"])),
            aliases=Rows(map(Row.of, entry.get("aliases", ())), is_two_way=False),
            more={key: value for key, value in entry.items() if key not in ("prefix", "rows", "aliases")},
        )
    except ValueError as error:
        raise ValueError(f"{framework}.json, {model_type}: {error}") from error

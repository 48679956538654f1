"""Which leaf of a Flax model of transformers is which tensor of PyTorch, by the table of its model type."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from converter.dialects.names.rearrangement import Rearrangement
from converter.dialects.tables import FlaxTable, flax_table
from converter.dialects.tables.rows import Match, Rows, Template
from converter.model.checkpoint import type_named

_PART_DEPTH_LIMIT = 4

NameAndLayout = tuple[str, Rearrangement | None]
"""A name on the other side, and how the layouts differ."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """The names of one model. Leaves are paths joined with `/`, without the collection that they are in.

    `parts`       the names of the models that it is made of, by what it calls them
    `otherwise`   rows that go before those of the table, as the config has it
    """

    table: FlaxTable
    config: Mapping[str, Any]
    parts: Mapping[str, Names] = field(default_factory=dict)
    otherwise: Rows | None = None

    @classmethod
    def of(cls, config: Mapping[str, Any], *, depth: int = 0) -> Names | None:
        """Return the names of the model that a config describes, None when no table knows it or a part of it."""
        model_type = type_named(config)
        table = None if model_type is None else flax_table(model_type)
        if table is None or depth > _PART_DEPTH_LIMIT:
            return None
        parts: dict[str, Names] = {}
        for part, key in table.parts.items():
            inner = config.get(key)
            names = cls.of(inner, depth=depth + 1) if isinstance(inner, Mapping) else None
            if names is None:
                return None
            parts[part] = names
        return cls(table=table, config=config, parts=parts, otherwise=_rows_otherwise(table, config))

    def to_canonical(self, leaf: str) -> NameAndLayout | None:
        """Return what PyTorch calls a leaf, None when no row has it."""
        part, _, rest = leaf.partition("/")
        if part in self.parts and rest:
            found = self.parts[part].to_canonical(rest)
            return None if found is None else (f"{part}.{found[0]}", found[1])
        match = self._matched("to_canonical", leaf, "/")
        return None if match is None else (self._own(match.name, leaf.startswith(self._start("/")), "."), match.layout)

    def from_canonical(self, name: str) -> NameAndLayout | None:
        """Return which leaf a tensor of PyTorch is, None when no row has it."""
        part, _, rest = name.partition(".")
        if part in self.parts and rest:
            found = self.parts[part].from_canonical(rest)
            return None if found is None else (f"{part}/{found[0]}", found[1])
        match = self._matched("from_canonical", name, ".")
        return None if match is None else (self._own(match.name, name.startswith(self._start(".")), "/"), match.layout)

    def is_constant(self, name: str) -> bool:
        """Whether a name is that of a buffer that every model computes, and old checkpoints have."""
        part, _, rest = name.partition(".")
        if part in self.parts:
            return self.parts[part].is_constant(rest)
        templates = (Template(text=text) for text in self.table.constants)
        return any(template.indices(each) is not None for template in templates for each in self._spelled(name))

    def split(self) -> tuple[str, tuple[str, ...]] | None:
        """Return the tensor that Flax has once and PyTorch under each of several names, None when there is none."""
        if self.table.model_type == "marian" and self.config.get("share_encoder_decoder_embeddings") is False:
            return "shared.weight", ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
        return None

    def _matched(self, side: str, name: str, joint: str) -> Match | None:
        for rows in (self.otherwise, self.table.rows, self.table.aliases):
            for spelled in (name, self._start(joint) + name) if self.table.prefix else (name,):
                if rows is not None and (match := getattr(rows, side)(spelled)) is not None:
                    found: Match = match
                    return found
        return None

    def _own(self, name: str, is_prefixed: bool, joint: str) -> str:
        """Return a name of the other side with the base model's prefix as this side has it."""
        return name if is_prefixed else name.removeprefix(self._start(joint))

    def _start(self, joint: str) -> str:
        return f"{self.table.prefix}{joint}" if self.table.prefix else "\0"

    def _spelled(self, name: str) -> tuple[str, ...]:
        return (name, self._start(".") + name)

    def each(self) -> Iterator[tuple[str, Names]]:
        """Yield what names of PyTorch start with in every model that this one is made of, itself last."""
        for part, names in self.parts.items():
            for start, inner in names.each():
                yield f"{part}.{start}", inner
        yield "", self


def _rows_otherwise(table: FlaxTable, config: Mapping[str, Any]) -> Rows | None:
    found = table.otherwise
    return None if found is None else Rows(found.rows, is_two_way=config.get(found.key) == found.value)

"""Which variables of a checkpoint are those of a model that a table knows, wherever in a larger model it is.

A variable's name starts with the names of the models around it: ``tf_bert_model/bert/...`` of a model on its own,
``my_model/encoder/bert/...`` inside another one, ``bert/...`` in a shard of a tf_model.h5. What comes before the names
of a table is told by which beginning fits most variables.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from converter.dialects.tables import TensorFlowTable
from converter.dialects.tables.rows import Match

_OLD_NORM = re.compile(r"(?<![^/])layer_normalization(?:_\d+)?(?=/)")
_LEAVES = {"weight": "embeddings", "embeddings": "weight"}

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoder:
    """The variables of one model: `start` is what their names have before those of the table.

    `found`     name -> what it is
    `unknown`   names inside the model that no row has
    `outside`   all other names
    """

    start: str
    found: Mapping[str, Match]
    unknown: tuple[str, ...]
    outside: tuple[str, ...]


def located(table: TensorFlowTable, shapes: Mapping[str, Shape]) -> Encoder | None:
    """Return the model that is in a checkpoint with these variables, None when none of them is in the table."""
    candidates = {name: dict(_candidates(table, name, len(shape))) for name, shape in shapes.items()}
    counts = Counter(start for starts in candidates.values() for start in starts)
    if not counts:
        return None
    start = max(counts, key=lambda each: (counts[each], -len(each)))
    found = {name: starts[start] for name, starts in candidates.items() if start in starts}
    found |= _shared(table, {name: shape for name, shape in shapes.items() if name not in found})
    left = [name for name in shapes if name not in found]
    inside = _insides(table, start, found, left)
    return Encoder(
        start=start,
        found=found,
        unknown=tuple(name for name in left if name.startswith(inside)),
        outside=tuple(name for name in left if not name.startswith(inside)),
    )


def plain(name: str) -> str:
    """Return the name of a variable without the number of its output, as Keras 2 writes it."""
    return name.removesuffix(":0")


def _candidates(table: TensorFlowTable, name: str, rank: int) -> Iterator[tuple[str, Match]]:
    parts = plain(name).split("/")
    for length in range(len(parts)):
        match = found_as(table, "/".join(parts[length:]), rank)
        if match is not None:
            yield "/".join(parts[:length]), match


def found_as(table: TensorFlowTable, name: str, rank: int) -> Match | None:
    """Return the row of a name, as it is or as old releases wrote it, None when there is none."""
    path, _, leaf = name.rpartition("/")
    for spelled in (name, f"{path}/{_LEAVES[leaf]}" if leaf in _LEAVES else name):
        for older in (spelled, _OLD_NORM.sub("LayerNorm", spelled)):
            match = table.to_canonical(older, rank)
            if match is not None:
                return match
    return None


def _shared(table: TensorFlowTable, shapes: Mapping[str, Shape]) -> dict[str, Match]:
    """Return those of the variables whose names never start with the name of their model."""
    found = {}
    known = table.outside
    for name, shape in shapes.items():
        own = plain(name)
        whole = next((each for each in known if own == each or own.endswith(f"/{each}")), None)
        if whole is None and "/" in own:
            continue
        full = whole or own
        match = found_as(table, full.partition("/")[2] or full, len(shape)) or found_as(table, full, len(shape))
        if match is not None:
            found[name] = match
    return found


def _insides(table: TensorFlowTable, start: str, found: Mapping[str, Match], left: list[str]) -> tuple[str, ...]:
    """Return what the names of all variables of the model start with: its own name where Keras chose that.

    Where the user chose it, other layers of the user's may be in the same place.
    """
    if any(known.is_called(start) for known in table.classes.values()):
        return (f"{start}/",)
    before = f"{start}/" if start else ""
    if not table.prefix:
        return (before,) if start else ("\0",)
    return (f"{before}{table.prefix}/",)

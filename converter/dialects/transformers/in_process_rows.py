"""The rows of `tables/in_process.json`: names of transformers 5 in memory, and those that it saves.

Per model type and class: renamed tensors; tensors packed on one side (experts stacked, queries, keys and values
joined); paths below which every name keeps what follows, or stays; and what no row can say.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

from converter.dialects.names.operations import Each, Split, TwoWay, Unstack
from converter.dialects.rewriting import Derivation
from converter.dialects.tables import document, naming_entry
from converter.dialects.tables.rows import Indices, Row, Rows, Template, key_of
from converter.errors import LossError
from converter.model.tensor import Tensor

_TABLE = "in_process"
_ITEM = "e"
_SIDES = ("process", "hub")


@dataclass(frozen=True, slots=True, kw_only=True)
class Packed:
    """One tensor on one side that is several on the other.

    `whole`        its template; `is_in_process` says on which side
    `parts`        the templates of what it is made of, in order, joined along `axis`; None for a single part
    `is_stacked`   whether it has one item for each ``{e}`` along a first axis of its own
    """

    whole: Template
    parts: tuple[Template, ...]
    axis: int | None
    is_stacked: bool
    is_in_process: bool

    @classmethod
    def of(cls, side: str, axis: int | None, is_stacked: bool, whole: str, *parts: str) -> Packed:
        """Return the row that the table file has as [side of the whole, axis, is_stacked, whole, *parts].

        Raises ValueError for a side that is neither.
        """
        return cls(
            whole=Template(text=whole),
            parts=tuple(Template(text=part) for part in parts),
            axis=axis,
            is_stacked=is_stacked,
            is_in_process=_SIDES.index(side) == 0,
        )

    def derivation(
        self, names: Collection[str], indices: Indices, *, before: str, after: str, whole: Tensor | None
    ) -> Derivation:
        """Return how the source's tensor `whole` becomes its parts; if it is None, how the parts become one tensor.

        `names` are those of the source; `before` and `after` stand before names there and in what is made. Raises
        LossError when a part is missing.
        """
        own, theirs = (before, after) if whole is not None else (after, before)
        items = self._items(names, indices, before, whole) if self.is_stacked else 1
        parts = tuple(
            theirs + part.filled({**indices, _ITEM: str(item)}) for item in range(items) for part in self.parts
        )
        missing = next((name for name in parts if whole is None and name not in names), None)
        if missing is not None:
            raise LossError("is not in the checkpoint, and others are stored together with it", tensor=missing)
        one = (own + self.whole.filled(indices),)
        sides = (one, parts) if whole is not None else (parts, one)
        operations = self._operations(items)
        return Derivation(before=sides[0], after=sides[1], operations=operations, is_forward=whole is not None)

    def _operations(self, items: int) -> tuple[TwoWay, ...]:
        """Return what makes the parts of a whole of so many items."""
        split = () if self.axis is None else (Split(self.axis - self.is_stacked, (1,) * len(self.parts)),)
        if not self.is_stacked:
            return split
        return (Unstack(0, items), *(Each(operation, items) for operation in split))

    def _items(self, names: Collection[str], indices: Indices, before: str, whole: Tensor | None) -> int:
        if whole is not None:
            return (*whole.shape, 1)[0]
        count = 0
        while before + self.parts[0].filled({**indices, _ITEM: str(count)}) in names:
            count += 1
        return max(count, 1)


@dataclass(frozen=True, kw_only=True)
class Variant:
    """Rows of classes of one model type; names are without the prefix that each class has before them.

    `classes`    class -> prefix
    `moved`      paths below which every name keeps what follows, memory -> hub
    `stays`      templates of paths below which every name is the same on both sides
    `left_out`   templates of names in memory that no row can say, and why
    """

    classes: Mapping[str, str]
    rows: Rows
    packed: tuple[Packed, ...]
    moved: Mapping[str, str]
    stays: tuple[re.Pattern[str], ...]
    left_out: Mapping[str, str]

    @classmethod
    def of(
        cls, *, rows: Sequence[Sequence[Any]], packed: Sequence[Sequence[Any]], stays: Sequence[str], **rest: Any
    ) -> Variant:
        """Return the variant that the table file says.

        Raises ValueError when it contradicts itself, TypeError for a key that it does not have.
        """
        return cls(
            rows=Rows(map(Row.of, rows)),
            packed=tuple(Packed.of(*row) for row in packed),
            stays=tuple(map(_below, stays)),
            **rest,
        )

    @cached_property
    def _templates(self) -> Mapping[tuple[bool, str], tuple[tuple[Packed, Template], ...]]:
        """Templates of packed rows by side (True: in process) and key."""
        found: dict[tuple[bool, str], tuple[tuple[Packed, Template], ...]] = {}
        for row in self.packed:
            for template, is_in_process in (
                (row.whole, row.is_in_process),
                *((part, not row.is_in_process) for part in row.parts),
            ):
                key = (is_in_process, template.key)
                found[key] = (*found.get(key, ()), (row, template))
        return found

    def packed_row(self, name: str, *, in_process: bool) -> tuple[Packed, Indices] | None:
        """Return the packed row that has `name` on a side, and what its placeholders stand for."""
        for row, template in self._templates.get((in_process, key_of(name)), ()):
            indices = template.indices(name)
            if indices is not None:
                return row, {letter: value for letter, value in indices.items() if letter != _ITEM}
        return None

    def has(self, name: str, *, in_process: bool) -> bool:
        """Whether a row has `name` on a side."""
        renamed = self.rows.to_canonical(name) if in_process else self.rows.from_canonical(name)
        return renamed is not None or self.packed_row(name, in_process=in_process) is not None

    def moved_name(self, name: str, *, in_process: bool) -> str | None:
        """Return what a name below a path that moves is on the other side, None for others."""
        if any(path.fullmatch(name) for path in self.stays):
            return None
        for process, hub in self.moved.items():
            before, after = (process, hub) if in_process else (hub, process)
            is_there_already = after.startswith(f"{before}.") and name.startswith(f"{after}.")
            if name.startswith(f"{before}.") and not is_there_already:
                return after + name.removeprefix(before)
        return None

    def why_left_out(self, name: str) -> str | None:
        """Return why no row can say what `name` is on the hub, None when it is not one of those."""
        for template, why in self.left_out.items():
            if Template(text=template).indices(name) is not None:
                return why
        return None


def _below(template: str) -> re.Pattern[str]:
    parts = [re.escape(part) for part in re.split(r"\{[a-z]+\}", template)]
    return re.compile("[0-9]+".join(parts) + r"(?:\..+)?")


@cache
def variants(model_type: str) -> tuple[Variant, ...]:
    """Return the rows of a model type; none when its names in memory are the hub's, or it is not known."""
    entry = document(_TABLE)["models"].get(model_type)
    if entry is None:
        return ()
    with naming_entry(_TABLE, model_type):
        return _variants_of(**entry)


def _variants_of(*, variants: Sequence[Mapping[str, Any]]) -> tuple[Variant, ...]:
    return tuple(Variant.of(**each) for each in variants)

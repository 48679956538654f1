"""Axes of inputs that vary no more, because a user gave them an extent."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any


def fix_extents(model: Any, shapes: Mapping[str, Sequence[int | str]]) -> None:
    """Give the inputs of these names these shapes, and whatever else has their axes the same extents."""
    import onnx_ir as ir

    fixed: dict[str | int | None, str | int] = {}
    for value in model.graph.inputs:
        if value.name in shapes:
            changed = zip(_extents(value), shapes[value.name], strict=True)
            fixed.update({had: extent for had, extent in changed if isinstance(had, str)})
            value.shape = ir.Shape(shapes[value.name])
    for value in _values(model):
        if value.shape is not None:
            value.shape = ir.Shape([fixed.get(each, each) for each in _extents(value)])


def _extents(value: Any) -> list[int | str | None]:
    return [getattr(each, "value", each) for each in value.shape]


def _values(model: Any) -> Iterator[Any]:
    for graph in model.graphs():
        yield from graph.inputs
        for node in graph:
            yield from node.outputs

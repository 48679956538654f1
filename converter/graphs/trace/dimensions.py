"""Dimensions of a graph that may vary.

At which extents they are traced and checked, what they are called, and whether the export kept them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from converter.errors import GraphError
from converter.graphs.description.signature import Dimension, GraphInput

_PRIMES = (11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83, 89, 97)
_SMALL = (5, 7, 3, 2, 1)


class FrozenDimensionError(GraphError):
    """A dimension that was to vary has one extent in the exported graph."""


def checked_sizes(dimensions: Sequence[Dimension]) -> tuple[dict[str, int], ...]:
    """Return sets of extents to check a graph at."""
    return tuple(
        {each.name: each.extent(each.checked[case % len(each.checked)]) for each in dimensions}
        for case in range(max((len(each.checked) for each in dimensions), default=2))
    )


def traced_sizes(model: Any, dimensions: Sequence[Dimension], attempt: int = 0) -> dict[str, int]:
    """Choose extents to trace at that the model has no other reason to have, so that a frozen one is recognised.

    No two are alike, nor is one among those that are checked. Another `attempt` gives other ones.
    """
    fixed_extents = {extent for tensor in (*model.parameters(), *model.buffers()) for extent in tensor.shape}
    fixed_extents.update(_numbers(model.config.to_dict()))
    fixed_extents.update(extent for sizes in checked_sizes(dimensions) for extent in sizes.values())
    sizes: dict[str, int] = {}
    for each in dimensions:
        counts = _PRIMES if each.step == 1 else (*_SMALL, *_PRIMES)
        extents = [each.extent(count) for count in counts if each.has(each.low + count * each.step)]
        free = [extent for extent in extents if extent not in fixed_extents] or extents or [each.extent(1)]
        sizes[each.name] = free[min(2 * attempt, len(free) - 1)]
        fixed_extents.add(sizes[each.name])
    return sizes


def _numbers(values: Any) -> Iterator[int]:
    if type(values) is int:
        yield values
    elif isinstance(values, Mapping):
        for value in values.values():
            yield from _numbers(value)
    elif isinstance(values, (list, tuple)):
        for value in values:
            yield from _numbers(value)


def name_dimensions(model: Any, inputs: Sequence[GraphInput]) -> None:
    """Give the exporter's symbols (`s18`) the names of the dimensions they stand for, wherever they occur.

    Inputs are declared to agree on them, whether or not the trace found that out. Raises FrozenDimensionError for a
    dimension that the export froze, GraphError for two that it cannot tell apart.
    """
    import onnx_ir

    declared = {each.name: each.shape for each in inputs}
    words: dict[str, str] = {}
    for value in model.graph.inputs:
        for name, extent in zip(declared[value.name], value.shape, strict=True):
            if isinstance(name, int):
                continue
            symbol = extent.value if isinstance(extent, onnx_ir.SymbolicDim) else None
            if symbol is None:
                raise FrozenDimensionError(f"the export froze the {name} dimension of {value.name} at {extent}")
            if symbol.isidentifier() and words.setdefault(symbol, name) != name:
                raise GraphError(f"the export cannot tell {name} from {words[symbol]} in {value.name}")
    if not words:
        return
    pattern = re.compile("|".join(rf"\b{re.escape(symbol)}\b" for symbol in words))
    for value in (*model.graph.inputs, *_values(model)):
        if value.shape is not None:
            value.shape = onnx_ir.Shape(
                pattern.sub(lambda match: words[match[0]], extent.value)
                if isinstance(extent, onnx_ir.SymbolicDim) and extent.value is not None
                else extent
                for extent in value.shape
            )


def check_extents(model: Any, sizes: Mapping[str, int]) -> None:
    """Raise FrozenDimensionError when a value has the very extent that a dimension had while it was traced.

    The exporter may declare an input dynamic and still have burnt its extent into the graph.
    """
    frozen = {extent: dimension for dimension, extent in sizes.items() if extent > 1}
    for value in _values(model):
        for extent in value.shape or ():
            if isinstance(extent, int) and extent in frozen:
                where = f"the {frozen[extent]} dimension of {value.name}"
                raise FrozenDimensionError(f"the export froze {where} at {extent}")


def _values(model: Any) -> Iterator[Any]:
    for node in model.graph.all_nodes():
        yield from node.outputs

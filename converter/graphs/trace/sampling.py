"""Which values an input of a graph may have, from its name and from what the graph does with it."""

from __future__ import annotations

from typing import Any

from converter.graphs.architecture import GraphInput, Sampling

_MASK_SUFFIX = "attention_mask"
_SAME_VALUES = ("Cast", "Identity", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Transpose", "Slice")


def sampling_of(graph: Any, described: GraphInput) -> Sampling:
    """Return what values an input of an onnx_ir.Graph may have: rows of the table that it looks up, where it does."""
    if described.name.endswith(_MASK_SUFFIX):
        return Sampling(role="mask")
    rows: list[int] = []
    waiting = [value for value in graph.inputs if value.name == described.name and not described.dtype.is_floating]
    seen: set[int] = set()
    while waiting:
        value = waiting.pop()
        for node, position in value.uses():
            if id(node) in seen:
                continue
            seen.add(id(node))
            table = node.inputs[0]
            if node.op_type == "Gather" and position == 1 and table.name in graph.initializers and table.shape:
                axis = node.attributes.get("axis")
                rows.append(table.shape[0 if axis is None else axis.as_int()])
            elif node.op_type in _SAME_VALUES and position == 0:
                waiting.append(node.outputs[0])
    known = [each for each in rows if isinstance(each, int)]
    return Sampling(role="ids", high=min(known)) if known else Sampling()

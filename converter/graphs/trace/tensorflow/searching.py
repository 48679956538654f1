"""Looking integers up in a table, as nodes of a TensorFlow graph that only compute: a binary search, unrolled.

No operator of ONNX searches. Each step halves the sorted keys; after the last there is one that may be the right one.
Arithmetic is of int64, which has the keys of every table; comparisons and choices alone are made of what is asked for.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from converter.graphs.trace.tensorflow.tables import Table

_OUTPUTS = dict.fromkeys(("AddV2", "Equal", "LessEqual", "LogicalAnd", "LogicalOr", "Mul", "NotEqual"), "z")
_OUTPUTS |= {"Cast": "y", "LogicalNot": "y"}
"""The name of an operator's output, where that is not `output`."""
_NUMBERS = {"bool": 10, "float32": 1, "float64": 2, "int32": 3, "int64": 9}
_INT32, _INT64, _BOOL = _NUMBERS["int32"], _NUMBERS["int64"], _NUMBERS["bool"]


def set_constant(node: Any, array: Any) -> None:
    """Give a Const node its value."""
    tensor = node.attr["value"].tensor
    tensor.dtype = node.attr["dtype"].type = _NUMBERS[array.dtype.name]
    tensor.tensor_shape.SetInParent()
    for extent in array.shape:
        tensor.tensor_shape.dim.add(size=extent)
    tensor.tensor_content = array.astype(array.dtype.newbyteorder("<")).tobytes()


class Search:
    """Nodes that are added to those of a graph or a function, under names that no other one starts with."""

    def __init__(self, nodes: Any, *, is_function: bool) -> None:
        self._nodes = nodes
        self._is_function = is_function
        self._prefix = "lookup"
        while any(node.name.startswith(self._prefix) for node in nodes):
            self._prefix += "_"
        self._count = 0

    def found(self, table: Table, asked: str, default: str, *, key_type: int, value_type: int) -> str:
        """Return a reference to the values in `table` of the keys `asked`, or `default` for those that have none.

        Types are protobuf's numbers.
        """
        keys, values = table.keys.astype(np.int64), table.values
        is_empty = not len(keys)
        if is_empty:
            keys, values = np.zeros(1, np.int64), np.zeros((1, *values.shape[1:]), values.dtype)
        if len(keys) == 1:  # one step then, so that what is asked for has a place in any case
            keys, values = keys.repeat(2), values.repeat(2, axis=0)
        if key_type != _INT64:
            asked = self._add("Cast", asked, SrcT=key_type, DstT=_INT64)
        stored = self._constant(keys)
        place, left = self._constant(np.array(0, np.int64)), len(keys)
        while left > 1:
            half = left // 2
            step = self._constant(np.array(half, np.int64))
            further = self._gathered(stored, self._add("AddV2", place, step, T=_INT64), _INT64)
            is_reached = self._add("LessEqual", further, asked, T=_INT64)
            times = self._add("Cast", is_reached, SrcT=_BOOL, DstT=_INT64)
            place = self._add("AddV2", place, self._add("Mul", times, step, T=_INT64), T=_INT64)
            left -= half
        nearest = asked if is_empty else self._gathered(stored, place, _INT64)
        is_there = self._add("NotEqual" if is_empty else "Equal", nearest, asked, T=_INT64)
        for _ in values.shape[1:]:
            is_there = self._add("ExpandDims", is_there, self._constant(np.array(-1, np.int32)), T=_BOOL, Tdim=_INT32)
        value = self._gathered(self._constant(values), place, value_type)
        if value_type != _BOOL:
            return self._add("SelectV2", is_there, value, default, T=value_type)
        otherwise = self._add("LogicalAnd", self._add("LogicalNot", is_there), default)
        return self._add("LogicalOr", self._add("LogicalAnd", is_there, value), otherwise)

    def _gathered(self, rows: str, places: str, dtype: int) -> str:
        axis = self._constant(np.array(0, np.int32))
        return self._add("GatherV2", rows, places, axis, Tparams=dtype, Tindices=_INT64, Taxis=_INT32)

    def _constant(self, array: Any) -> str:
        reference = self._add("Const")
        set_constant(self._nodes[-1], array)
        return reference

    def _add(self, operator: str, *inputs: str, **types: int) -> str:
        """Add a node and return a reference to its output."""
        node = self._nodes.add()
        node.name, node.op = f"{self._prefix}/{self._count}", operator
        node.input.extend(inputs)
        for key, dtype in types.items():
            node.attr[key].type = dtype
        self._count += 1
        output = _OUTPUTS.get(operator, "output")
        return f"{node.name}:{output}:0" if self._is_function else node.name

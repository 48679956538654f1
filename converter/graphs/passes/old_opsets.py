"""Graphs in ONNX's operators before version 7, raised to it: neither onnxruntime nor our lowerings know older ones.

https://github.com/onnx/onnx/blob/v1.19.0/docs/Changelog.md. onnx's own converter lacks slopes of a PReLU and graphs
inside nodes, and asks for the shapes of all that is broadcast.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from converter.errors import GraphError
from converter.graphs.passes.constants import constant, constant_node

FIRST = 7
"""The version that graphs are raised to."""
_BROADCASTING = ("Add", "And", "Div", "Equal", "Greater", "Less", "Mul", "Or", "Pow", "Sub", "Xor")
_SAME_RANK = frozenset((
    *_BROADCASTING, "Abs", "AveragePool", "BatchNormalization", "Cast", "Ceil", "Clip", "Concat", "Conv",
    "ConvTranspose", "Dropout", "Elu", "Exp", "Floor", "GlobalAveragePool", "GlobalMaxPool", "HardSigmoid", "Identity",
    "InstanceNormalization", "LRN", "LeakyRelu", "Log", "LogSoftmax", "LpNormalization", "LpPool", "Max", "MaxPool",
    "Mean", "Min", "Neg", "Not", "PRelu", "Pad", "Reciprocal", "Relu", "Selu", "Sigmoid", "Slice", "Softmax",
    "Softplus", "Softsign", "Sqrt", "Sum", "Tanh", "Tile", "Transpose", "Upsample",
))  # fmt: skip
"""Operators whose result has as many axes as their first input."""
_IN_PLACE = "consumed_inputs"
_SELU = {"alpha": 1.6732, "gamma": 1.0507}
_STEPS = 1000


def raise_old(model: Any) -> bool:
    """Bring an onnx_ir.Model to version 7 where it is older; return whether it was.

    Raises GraphError where that cannot be done: what normalises by its own batch, and shapes that are not known.
    """
    version = model.opset_imports.get("", FIRST)
    if version >= FIRST:
        return False
    for graph in model.graphs():
        for node in list(graph):
            if node.domain in ("", "ai.onnx"):
                _raise(graph, node, version)
    model.opset_imports[""] = FIRST
    return True


def _raise(graph: Any, node: Any, version: int) -> None:
    node.attributes.pop(_IN_PLACE, None)
    node.version = None
    change = _CHANGES.get(node.op_type)
    try:
        if change is not None:
            change(graph, node, version)
    except (TypeError, AttributeError, ValueError) as error:
        raise GraphError(f"node {node.name or '?'} is a {node.op_type} with inputs or attributes of no kind") from error


def _broadcast(graph: Any, node: Any, version: int) -> None:
    """Let the second operand have its axes where `axis` says; from the last ones on they are there already."""
    node.attributes.pop("broadcast", None)
    axis = node.attributes.pop("axis", None)
    if axis is None:
        return
    left, right = (_rank(value) for value in node.inputs)
    if left is None or right is None:
        raise GraphError(f"node {node.name or '?'}, a {node.op_type}, broadcasts along an axis of an unknown shape")
    start = axis.as_int() + (left if axis.as_int() < 0 else 0)
    _with_axes_after(graph, node, 1, right, left - start - right)


def _slope(graph: Any, node: Any, version: int) -> None:
    """Let a slope for each channel have the axes that come after the channels."""
    value, slope = (_rank(each) for each in node.inputs)
    if slope == 1 and node.inputs[1].shape is not None and node.inputs[1].shape[0] == 1:
        return
    if value is None or slope is None:
        raise GraphError(f"node {node.name or '?'}, a PRelu, is of an unknown shape")
    if slope == 1:
        _with_axes_after(graph, node, 1, slope, value - 2)


def _with_axes_after(graph: Any, node: Any, position: int, rank: int, count: int) -> None:
    import onnx_ir

    if count <= 0:
        return
    source = node.inputs[position]
    made = onnx_ir.node("Unsqueeze", [source], {"axes": list(range(rank, rank + count))})
    made.outputs[0].type = source.type
    if source.shape is not None:
        made.outputs[0].shape = onnx_ir.Shape([*source.shape, *[1] * count])
    _insert(graph, node, made, "axes")
    node.replace_input_with(position, made.outputs[0])


def _insert(graph: Any, node: Any, made: Any, what: str) -> None:
    name = f"{node.outputs[0].name}/{what}"
    made.name = made.outputs[0].name = name
    graph.insert_before(node, made)


def _add_input(graph: Any, node: Any, values: Any, what: str) -> None:
    """Let a node have one more input, a constant."""
    made = constant_node(values, "")
    _insert(graph, node, made, what)
    node.resize_inputs(len(node.inputs) + 1)
    node.replace_input_with(len(node.inputs) - 1, made.outputs[0])


def _rank(value: Any) -> int | None:
    for _ in range(_STEPS):
        if value is None or value.shape is not None:
            break
        if value.const_value is not None:
            return len(value.const_value.shape)
        node = value.producer()
        if node is None or not node.inputs or node.op_type not in _SAME_RANK:
            return None
        value = node.inputs[0]
    return None if value is None or value.shape is None else len(value.shape)


def _normalisation(graph: Any, node: Any, version: int) -> None:
    is_test = node.attributes.pop("is_test", None)
    if is_test is None or not is_test.as_int():
        raise GraphError(
            f"node {node.name or '?'}, a BatchNormalization, is in training: it normalises by its own batch"
        )
    _drop_outputs(node)


def _drop_outputs(node: Any) -> None:
    """Leave a node its first output where nothing uses the others."""
    if len(node.outputs) > 1 and not any(each.uses() or each.is_graph_output() for each in node.outputs[1:]):
        node.resize_outputs(1)


def _dropout(graph: Any, node: Any, version: int) -> None:
    node.attributes.pop("is_test", None)


def _without_broadcast(graph: Any, node: Any, version: int) -> None:
    node.attributes.pop("broadcast", None)


def _cast(graph: Any, node: Any, version: int) -> None:
    import onnx_ir

    to = node.attributes["to"]
    if to.type.name == "STRING":
        node.attributes["to"] = onnx_ir.AttrInt64("to", int(onnx_ir.DataType[to.as_string().upper()]))


def _concat(graph: Any, node: Any, version: int) -> None:
    import onnx_ir

    if "axis" not in node.attributes:
        node.attributes["axis"] = onnx_ir.AttrInt64("axis", 1)


def _reshape(graph: Any, node: Any, version: int) -> None:
    shape = node.attributes.pop("shape", None)
    if shape is not None:
        _add_input(graph, node, np.array(shape.as_ints(), np.int64), "shape")


def _pad(graph: Any, node: Any, version: int) -> None:
    import onnx_ir

    paddings = node.attributes.pop("paddings", None)
    if paddings is not None:
        node.attributes["pads"] = onnx_ir.AttrInt64s("pads", paddings.as_ints())


def _split(graph: Any, node: Any, version: int) -> None:
    import onnx_ir

    if len(node.inputs) < 2:
        return
    lengths = constant(node.inputs[1])
    if lengths is None:
        raise GraphError(f"node {node.name or '?'}, a Split, has lengths that are computed")
    node.resize_inputs(1)
    node.attributes["split"] = onnx_ir.AttrInt64s("split", [int(each) for each in lengths.reshape(-1)])


def _tile(graph: Any, node: Any, version: int) -> None:
    if len(node.inputs) < 3:
        return
    rank, tiles, axis = _rank(node.inputs[0]), constant(node.inputs[1]), constant(node.inputs[2])
    if rank is None or tiles is None or axis is None:
        raise GraphError(f"node {node.name or '?'}, a Tile, is of an unknown shape")
    repeats = np.ones(rank, np.int64)
    repeats[int(axis.reshape(-1)[0])] = int(tiles.reshape(-1)[0])
    node.resize_inputs(1)
    _add_input(graph, node, repeats, "repeats")


def _upsample(graph: Any, node: Any, version: int) -> None:
    import onnx_ir

    scales = [node.attributes.pop(f"{side}_scale", None) for side in ("height", "width")]
    if "scales" not in node.attributes:
        factors = [1.0, 1.0, *(1.0 if each is None else each.as_float() for each in scales)]
        node.attributes["scales"] = onnx_ir.AttrFloat32s("scales", factors)


def _power(graph: Any, node: Any, version: int) -> None:
    import onnx_ir

    power = node.attributes.get("p")
    if power is not None and power.type.name == "FLOAT":
        if power.as_float() != int(power.as_float()):
            raise GraphError(f"node {node.name or '?'}, a {node.op_type}, has the power {power.as_float():g}")
        node.attributes["p"] = onnx_ir.AttrInt64("p", int(power.as_float()))


def _selu(graph: Any, node: Any, version: int) -> None:
    import onnx_ir

    for name, value in _SELU.items() if version < 6 else ():
        if name not in node.attributes:
            node.attributes[name] = onnx_ir.AttrFloat32(name, value)


def _recurrent(graph: Any, node: Any, version: int) -> None:
    node.attributes.pop("output_sequence", None)


_CHANGES: Mapping[str, Callable[[Any, Any, int], None]] = {
    **dict.fromkeys(_BROADCASTING, _broadcast),
    **dict.fromkeys(("GRU", "LSTM", "RNN"), _recurrent),
    **dict.fromkeys(("GlobalLpPool", "LpPool"), _power),
    "BatchNormalization": _normalisation,
    "Cast": _cast,
    "Concat": _concat,
    "Dropout": _dropout,
    "Gemm": _without_broadcast,
    "PRelu": _slope,
    "Pad": _pad,
    "Reshape": _reshape,
    "Selu": _selu,
    "Split": _split,
    "Tile": _tile,
    "Upsample": _upsample,
}

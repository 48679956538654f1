"""Operators that a runtime computes inexactly in single precision: computed in double, and cast back.

onnxruntime transforms a length that is no power of two by way of a longer one, whose factors it rounds: in float32 it
is 1e-3 of the outputs' scale away at 1000, in float64 1e-12; a power of two is 6e-6 away at 2**20 (onnxruntime 1.31).
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from converter.graphs.passes.constants import constant

_DATA = {"DFT": (0,), "STFT": (0, 2)}
"""Which inputs are transformed, or multiplied with what is."""
_LENGTH = {"DFT": 1, "STFT": 3}
"""Which input says how many numbers are transformed at a time."""


def compute_exactly(model: Any, operators: Collection[str]) -> bool:
    """Let nodes of these `operators` compute in float64; what goes in and comes out is of the type that it was.

    Those of functions and inner graphs, too. Transforms of a length that is known to be exact stay as they are.
    Returns whether there was any to change. Raises ValueError for an operator that nothing is known of.
    """
    unknown = sorted(set(operators) - set(_DATA))
    if unknown:
        raise ValueError(f"no way is known to compute {unknown[0]} exactly")
    graphs = list(model.graphs())
    for function in model.functions.values():
        graphs += [function.graph, *function.subgraphs()]
    found = [
        (graph, node)
        for graph in graphs
        for node in graph
        if node.op_type in operators and node.domain in ("", "ai.onnx") and not _is_exact(node)
    ]
    for graph, node in found:
        _compute_in_double(graph, node)
    return bool(found)


def _compute_in_double(graph: Any, node: Any) -> None:
    import onnx_ir

    double, like = onnx_ir.DataType.DOUBLE, node.inputs[0]
    (old,) = node.outputs
    for at in _DATA[node.op_type]:
        value = _input(node, at)
        if value is None:
            continue
        cast = onnx_ir.node("Cast", [value], {"to": double}, name=f"{old.name}/cast_{at}")
        (output,) = cast.outputs
        output.name, output.shape, output.type = cast.name, value.shape, onnx_ir.TensorType(double)
        graph.insert_before(node, cast)
        node.replace_input_with(at, output)
    new = onnx_ir.Value(name=old.name, shape=old.shape, type=like.type)
    old.name, old.type = f"{old.name}/double", onnx_ir.TensorType(double)
    old.replace_all_uses_with(new, replace_graph_outputs=True)
    # In a function nothing says which type a value has.
    kind, inputs, to = ("CastLike", [old, like], {}) if like.dtype is None else ("Cast", [old], {"to": like.dtype})
    back = onnx_ir.node(kind, inputs, to, outputs=[new], name=f"{new.name}/cast_back")
    graph.insert_after(node, back)


def _is_exact(node: Any) -> bool:
    import onnx_ir

    if node.inputs[0].dtype == onnx_ir.DataType.DOUBLE:
        return True
    length = _length(node)
    return length is not None and length > 0 and length & (length - 1) == 0


def _length(node: Any) -> int | None:
    """Return how many numbers are transformed at a time, None where it is not known."""
    length = _input(node, _LENGTH[node.op_type])
    if length is not None:
        return _number(length)
    if node.op_type == "STFT":
        window = _input(node, 2)
        return _extent(node.inputs[0], 1) if window is None else _extent(window, 0)
    # Half a spectrum may be of an even length or an odd one.
    is_of_half = _attribute(node, "inverse") != 0 and _attribute(node, "onesided") != 0
    return None if is_of_half else _extent(node.inputs[0], _axis(node))


def _axis(node: Any) -> int | None:
    """Return along which axis a DFT is: an attribute and, since opset 20, an input."""
    axis = _input(node, 2)
    if axis is not None:
        return _number(axis)
    if "axis" in node.attributes:
        return _attribute(node, "axis")
    # 1 or, since opset 20, -2.
    shape = node.inputs[0].shape
    return 1 if shape is not None and len(shape) == 3 else None


def _attribute(node: Any, name: str) -> int | None:
    """Return 0 for an attribute that is not there, None for one that a function is yet to be given."""
    attribute = node.attributes.get(name)
    return 0 if attribute is None else None if attribute.is_ref() else attribute.as_int()


def _input(node: Any, at: int) -> Any:
    return node.inputs[at] if at < len(node.inputs) else None


def _number(value: Any) -> int | None:
    array = constant(value)
    return None if array is None else int(array.reshape(()))


def _extent(value: Any, axis: int | None) -> int | None:
    shape = value.shape
    if shape is None or axis is None or not -len(shape) <= axis < len(shape):
        return None
    extent = shape[axis]
    return extent if isinstance(extent, int) else None

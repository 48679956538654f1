"""Nodes in front of a graph that put its weights together from the tensors of the file, as `saved_form` says.

Gradients flow through them to the variables of those tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from converter.errors import GraphError
from converter.graphs.trace.saved_form import Assembly, TensorOperation


def assemble(graph: Any, assembly: Assembly, references: Mapping[str, Any]) -> dict[str, Any]:
    """Put nodes at the start of an onnx_ir.Graph that make what `assembly` makes; return the values by name.

    `references` are the values of the saved tensors. Raises GraphError for an operation that is not known.
    """
    values: dict[int, Any] = {number: references[name] for name, number in assembly.saved.items()}
    nodes = _Nodes()
    for step in assembly.steps:
        if step.operation not in _OPERATIONS:
            name = next(iter(assembly.built))
            raise GraphError(f"is made from what is saved by {step.operation}, which is not known here", tensor=name)
        inputs = [values[number] for number in step.inputs]
        outputs = _OPERATIONS[step.operation](nodes, inputs, step)
        values.update(zip(step.outputs, outputs, strict=True))
    if nodes.in_order:
        graph.insert_before(graph[0], nodes.in_order) if len(graph) else graph.extend(nodes.in_order)
    return {name: values[number] for name, number in assembly.built.items()}


class _Nodes:
    """Nodes in the order they are made."""

    def __init__(self) -> None:
        self.in_order: list[Any] = []

    def add(self, operator: str, inputs: list[Any], shape: tuple[int, ...], **attributes: Any) -> Any:
        import onnx_ir

        node = onnx_ir.node(operator, inputs, attributes=attributes)
        self.in_order.append(node)
        node.outputs[0].shape = onnx_ir.Shape(shape)
        return node.outputs[0]

    def weight(self, operator: str, inputs: list[Any], shape: tuple[int, ...], **attributes: Any) -> Any:
        """Add a node of the element type of its first input."""
        value = self.add(operator, inputs, shape, **attributes)
        value.type = inputs[0].type
        return value

    def numbers(self, *values: int) -> Any:
        """Add a constant of integers."""
        import onnx_ir

        value = self.add("Constant", [], (len(values),), value=onnx_ir.tensor(np.array(values, np.int64)))
        value.type = onnx_ir.TensorType(onnx_ir.DataType.INT64)
        return value

    def reshaped(self, value: Any, shape: tuple[int, ...]) -> Any:
        """Add a Reshape."""
        return self.weight("Reshape", [value, self.numbers(*shape)], shape)

    def sliced(self, value: Any, axis: int, start: int, shape: tuple[int, ...], step: int = 1) -> Any:
        """Add a Slice of `shape[axis]` items, every `step`-th from `start`."""
        bounds = (start,), (start + shape[axis] * step,), (axis,), (step,)
        return self.weight("Slice", [value, *(self.numbers(*each) for each in bounds)], shape)


_Operation = Callable[[_Nodes, list[Any], TensorOperation], list[Any]]


def _axis(step: TensorOperation, rank: int, position: int = 0) -> int:
    axis = step.arguments[position] if len(step.arguments) > position else 0
    return int(axis) % rank


def _cat(nodes: _Nodes, inputs: list[Any], step: TensorOperation) -> list[Any]:
    shape = step.shapes[0]
    return [nodes.weight("Concat", inputs, shape, axis=_axis(step, len(shape)))]


def _stack(nodes: _Nodes, inputs: list[Any], step: TensorOperation) -> list[Any]:
    shape = step.shapes[0]
    axis = _axis(step, len(shape))
    item = (*shape[:axis], 1, *shape[axis + 1 :])
    return [nodes.weight("Concat", [nodes.reshaped(each, item) for each in inputs], shape, axis=axis)]


def _split(nodes: _Nodes, inputs: list[Any], step: TensorOperation) -> list[Any]:
    axis, start, pieces = _axis(step, len(step.shapes[0]), 1), 0, []
    for shape in step.shapes:
        pieces.append(nodes.sliced(inputs[0], axis, start, shape))
        start += shape[axis]
    return pieces


def _slice(nodes: _Nodes, inputs: list[Any], step: TensorOperation) -> list[Any]:
    arguments = (*step.arguments, None, None, None, None)
    axis, start, stride = (arguments[0] or 0) % len(step.shapes[0]), arguments[1] or 0, arguments[3] or 1
    extent = inputs[0].shape[axis]
    begin = min(start + extent if start < 0 else start, extent)
    return [nodes.sliced(inputs[0], axis, begin, step.shapes[0], stride)]


def _transpose(nodes: _Nodes, inputs: list[Any], step: TensorOperation) -> list[Any]:
    order = list(range(len(step.shapes[0])))
    first, second = step.arguments if step.arguments else (0, 1)
    order[first], order[second] = order[second], order[first]
    return [nodes.weight("Transpose", inputs, step.shapes[0], perm=order)]


def _permute(nodes: _Nodes, inputs: list[Any], step: TensorOperation) -> list[Any]:
    order = [axis % len(step.shapes[0]) for axis in step.arguments[0]]
    return [nodes.weight("Transpose", inputs, step.shapes[0], perm=order)]


def _reshape(nodes: _Nodes, inputs: list[Any], step: TensorOperation) -> list[Any]:
    return [nodes.reshaped(inputs[0], step.shapes[0])]


def _select(nodes: _Nodes, inputs: list[Any], step: TensorOperation) -> list[Any]:
    axis, index = step.arguments
    shape = step.shapes[0]
    axis %= len(shape) + 1
    item = (*shape[:axis], 1, *shape[axis:])
    return [nodes.reshaped(nodes.sliced(inputs[0], axis, index % inputs[0].shape[axis], item), shape)]


def _unbind(nodes: _Nodes, inputs: list[Any], step: TensorOperation) -> list[Any]:
    shape = step.shapes[0]
    axis = _axis(step, len(shape) + 1)
    item = (*shape[:axis], 1, *shape[axis:])
    return [nodes.reshaped(nodes.sliced(inputs[0], axis, index, item), shape) for index in range(len(step.outputs))]


def _itself(nodes: _Nodes, inputs: list[Any], step: TensorOperation) -> list[Any]:
    return inputs[:1]


_OPERATIONS: dict[str, _Operation] = {
    "cat": _cat,
    "stack": _stack,
    "split": _split,
    "split_with_sizes": _split,
    "slice": _slice,
    "select": _select,
    "unbind": _unbind,
    "transpose": _transpose,
    "t": _transpose,
    "permute": _permute,
    **dict.fromkeys(("view", "_unsafe_view", "reshape", "unsqueeze", "squeeze"), _reshape),
    **dict.fromkeys(("clone", "contiguous", "alias", "detach"), _itself),
}
"""Operations of torch (torch.ops.aten) that are known to be done to weights."""

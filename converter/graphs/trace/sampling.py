"""Which values an input of a graph may have, from its name and from what the graph does with it.

Integers of the whole type are for inputs of which whole numbers alone are computed, element by element, and compared,
or divided by a constant for the remainder, which is small. There onnxruntime, TensorFlow and torch give the same for
every integer of every type, overflow included. Elsewhere they do not: onnxruntime 1.31 has sums of int64, and fmod, in
double precision, exact to 2**53, and sums of int32 that do not wrap; a floating-point number that is too large for an
integer becomes any. Inputs of such graphs, and those that are sizes, counts or indices, end at 2**24.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from converter.graphs.description.signature import GraphInput, Role, Sampling
from converter.graphs.passes.constants import constant

_MASK_SUFFIX = "attention_mask"
_SAME_VALUES = ("Cast", "Expand", "Identity", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Transpose", "Slice")
_WRAPPING = (
    "Abs",
    "Add",
    "BitwiseAnd",
    "BitwiseNot",
    "BitwiseOr",
    "BitwiseXor",
    "Clip",
    "Max",
    "Min",
    "Mul",
    "Neg",
    "Sign",
    "Sub",
    "Where",
)
_LOOKING_UP = ("Gather", "GatherElements", "ScatterElements")
_COMPARING = ("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual")
_ELEMENT_BY_ELEMENT: Mapping[str, Callable[..., Any]] = {
    "Add": np.add,
    "Cast": np.asarray,
    "Less": np.less,
    "Mul": np.multiply,
    "Not": np.logical_not,
    "Where": np.where,
}
_STEPS = 16
_SMALL = 1 << 24
_KEYS_SHOWN = 256
_FAR = (-1, 0, 1, -(1 << 24), 1 << 24, (1 << 31) - 1, -(1 << 40), 1 << 40)
_LARGEST = (1 << 63) - 1
_BOOL = 9
_INTEGERS = (2, 3, 4, 5, 6, 7, 12, 13)
"""What ONNX calls truth values, and integers of 8 to 64 bits."""


def sampling_of(graph: Any, described: GraphInput, reserved: Collection[int] = ()) -> Sampling:
    """Return what values an input of an onnx_ir.Graph may have: rows of the table that it looks up, where it does.

    Or keys that it is compared with, one of many, but those that are `reserved`.
    """
    if described.name.endswith(_MASK_SUFFIX):
        return Sampling(role=Role.MASK)
    uses = [] if described.dtype.is_floating else list(_uses(graph, described.name))
    rows = [count for use in uses if (count := _rows(*use)) is not None]
    if not described.dtype.is_floating:
        rows += _rows_from_either_end(graph, described.name)
    keys = [listed for node, position in uses if node.op_type == "Equal" for listed in _compared_with(node, position)]
    if not rows and not keys and all(extent == 1 for extent in described.shape):
        keys = [number for node, position in uses if node.op_type in _COMPARING for number in _limits(node, position)]
    among = _of_keys(keys, described, min(rows, default=None), reserved) if keys else None
    if among is not None:
        return among
    if rows:
        return Sampling(role=Role.IDS, high=min(rows))
    return Sampling(role=Role.NUMBERS) if _takes_any(graph, described) else Sampling()


def _uses(graph: Any, name: str) -> Iterator[tuple[Any, int]]:
    """Yield the nodes that use an input, as it is or cast or reshaped, and as which of their inputs."""
    waiting = [value for value in graph.inputs if value.name == name]
    seen: set[int] = set()
    while waiting:
        for node, position in waiting.pop().uses():
            if id(node) in seen:
                continue
            seen.add(id(node))
            yield node, position
            if node.op_type in _SAME_VALUES and position == 0:
                waiting.append(node.outputs[0])


def _rows(node: Any, position: int) -> int | None:
    """Return how many rows there are that a node looks its input up in, None for any other node or where it may be any.

    What is one of as many classes is looked up like that, too.
    """
    axis = node.attributes.get("axis")
    if node.op_type in _LOOKING_UP and position == 1 and len(node.inputs) > 1:
        return _extent(node.inputs[0], 0 if axis is None else axis.as_int())
    if node.op_type == "OneHot" and position == 0 and len(node.inputs) > 1:
        depth = constant(node.inputs[1])
        return None if depth is None or depth.size != 1 or not depth.reshape(()) > 0 else int(depth.reshape(()))
    return _classes(node.inputs[1 - position]) if node.op_type == "Equal" and len(node.inputs) == 2 else None


def _classes(value: Any) -> int | None:
    """Return how many integers from 0 on a value lists, each once, None where it does not."""
    for _ in range(_STEPS):
        listed, node = constant(value), None if value is None else value.producer()
        if listed is not None:
            is_list = listed.size > 1 and np.array_equal(np.sort(listed, axis=None), np.arange(listed.size))
            return int(listed.size) if is_list and listed.dtype.kind in "iu" else None
        if node is None or node.op_type not in _SAME_VALUES:
            return None
        value = node.inputs[0]
    return None


def _extent(value: Any, axis: int) -> int | None:
    """Return an extent of a value that is known, be it a table of the graph or computed."""
    if value is None or value.shape is None or not -len(value.shape) <= axis < len(value.shape):
        return None
    extent = value.shape[axis]
    return extent or None if isinstance(extent, int) else None


def _rows_from_either_end(graph: Any, name: str) -> Iterator[int]:
    """Yield how many rows a table has that an input is looked up in where negative ones count from its end, as Keras's.

    That is told by what comes of the first rows and the last.
    """
    for node in graph:
        count = _rows(node, 1)
        if count and node.inputs[1] is not None and node.inputs[1].producer() is not None:
            rows = np.unique(np.array([0, 1 % count, count // 2, count - 1], np.int64))
            found = _computed(node.inputs[1], {name: rows}, _STEPS)
            if found is not None and np.array_equal(found, rows):
                yield count


def _computed(value: Any, known: dict[str, Any], steps: int) -> Any:
    """Return what comes of the numbers that are `known` and of constants, None where that is not told in `steps`."""
    if value is None or value.name in known:
        return None if value is None else known[value.name]
    found, node = constant(value), value.producer()
    compute = None if node is None else _ELEMENT_BY_ELEMENT.get(node.op_type)
    if found is None and compute is not None and steps:
        inputs = [_computed(each, known, steps - 1) for each in node.inputs]
        if all(each is not None for each in inputs):
            with suppress(TypeError, ValueError):  # a node of a file from elsewhere may be anything
                found = compute(*inputs)
    known[value.name] = found
    return found


def _compared_with(node: Any, position: int) -> list[Any]:
    """Return the integers that one of the inputs of an Equal is compared with, if they come from a constant list."""
    producer = node.inputs[1 - position].producer()
    if producer is None or producer.op_type != "Gather":
        return []
    listed = constant(producer.inputs[0])
    return [] if listed is None or listed.ndim != 1 or listed.dtype.kind not in "iu" else [listed]


def _limits(node: Any, position: int) -> list[Any]:
    """Return the integer that one of the inputs of a comparison is compared with: a rate of samples, a mode."""
    number = constant(node.inputs[1 - position])
    return [] if number is None or number.size != 1 or number.dtype.kind not in "iu" else [number.reshape(1)]


def _of_keys(
    listed: Sequence[Any], described: GraphInput, rows: int | None, reserved: Collection[int]
) -> Sampling | None:
    """Return some keys, among them the first and the last, and integers beside them and far away; None without any.

    All are of the input's type and, where it also chooses from that many `rows`, one of these.
    """
    if np.dtype(described.dtype.numpy).kind not in "iu":
        return None
    limits, every = np.iinfo(described.dtype.numpy), np.unique(np.concatenate(listed))
    low, high = (int(limits.min), min(int(limits.max), _LARGEST)) if rows is None else (0, rows - 1)
    keys = _spread(every[(every >= low) & (every <= high)])
    near = {key + step for key in keys for step in (-1, 1)}.union(_FAR, (low, high)).difference(reserved)
    possible = np.array(sorted(each for each in near if low <= each <= high), np.int64)
    beside = _spread(possible[~np.isin(possible, every)])
    return Sampling(role=Role.KEYS, keys=keys, beside=beside) if keys else None


def _spread(numbers: Any) -> tuple[int, ...]:
    """Return at most some of the numbers, from the first to the last."""
    places = np.linspace(0, max(len(numbers) - 1, 0), min(len(numbers), _KEYS_SHOWN)).round().astype(np.int64)
    return tuple(int(each) for each in numbers[places])


def _takes_any(graph: Any, described: GraphInput) -> bool:
    """Whether an input takes every integer of its type: nothing that is computed of it has a limit of its own."""
    if np.dtype(described.dtype.numpy).kind not in "iu":
        return False
    waiting = [value for value in graph.inputs if value.name == described.name]
    seen = {id(value) for value in waiting}
    while waiting:
        for node, position in waiting.pop().uses():
            if node.domain not in ("", "ai.onnx"):
                return False
            outputs = _outputs_as_large(node, position)
            if outputs is None:
                return False
            waiting += [value for value in outputs if id(value) not in seen]
            seen.update(map(id, outputs))
    return True


def _outputs_as_large(node: Any, position: int) -> list[Any] | None:
    """Return what a node computes that may be as large as its input; None where it does not take every integer."""
    match node.op_type:
        case "Cast":
            to = node.attributes["to"].as_int()
            return [] if to == _BOOL else list(node.outputs) if to in _INTEGERS else None
        case "Mod" | "Div":
            divisor = constant(node.inputs[1]) if position == 0 else None
            fmod = node.attributes.get("fmod")
            if divisor is None or not (divisor > 0).all() or (fmod is not None and fmod.as_int()):
                return None
            return [] if node.op_type == "Mod" and (divisor <= _SMALL).all() else list(node.outputs)
        case operator if operator in _COMPARING:
            return []
        case operator if operator in _WRAPPING or (operator in _SAME_VALUES and position == 0):
            return list(node.outputs)
    return None

"""The lowest and the highest values of every type, where a lowering negates, sorts, compares or divides them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from tests.graphs import node_suite_tensorflow, node_suite_torch

_RUNS = {"tensorflow": node_suite_tensorflow.run, "torch": node_suite_torch.run}
_INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
_FLOATS = ("float16", "float32", "float64")
_COUNT = 4
_SIGNED, _WHOLE = ("Neg",), ("Div", "Mod")  # the only operators that are not for every type


def values(dtype: str) -> Any:
    """Rows with the limits in them, in no order, some of them twice."""
    if dtype.startswith("float"):
        limits = np.finfo(dtype)
        rows = [[1, limits.min, -2, limits.max, 0.5, -1], [limits.max, 2, -3, -np.inf, np.inf, limits.min]]
    else:
        limits = np.iinfo(dtype)
        low, high = int(limits.min), int(limits.max)
        rows = [[1, low, low + 1, high, high - 1, 0], [high, low, high, low, 0, high // 2 + 1]]
    return np.array([*rows, [3, 3, 0, 3, 0, 3]], dtype)


def smallest(x: Any) -> tuple[Any, Any]:
    places = np.argsort(x, axis=-1, kind="stable")[:, :_COUNT]
    return np.take_along_axis(x, places, -1), places


def largest(x: Any) -> tuple[Any, Any]:
    # A stable sort backwards has the last of equals first; of a row turned round that is the first.
    places = x.shape[-1] - 1 - np.argsort(x[:, ::-1], axis=-1, kind="stable")[:, ::-1][:, :_COUNT]
    return np.take_along_axis(x, places, -1), places


def quotient(x: Any, by: Any) -> Any:
    exact = [int(abs(int(a)) // abs(int(b))) * (-1 if (a < 0) != (b < 0) else 1) for a, b in pairs(x, by)]
    return np.array(exact, x.dtype).reshape(x.shape)


def remainder(x: Any, by: Any) -> Any:
    return np.array([int(a) % int(b) for a, b in pairs(x, by)], x.dtype).reshape(x.shape)


def pairs(x: Any, by: Any) -> Any:
    return zip(x.ravel(), by.ravel(), strict=True)


Expected = Callable[..., Any]
_K, _AXIS = np.array([_COUNT]), np.array([1])
# operator, attributes, further inputs (arrays are constants, "other" and the rest are inputs of the type), and what
# numpy has for it
_ROWS: tuple[tuple[str, dict[str, Any], tuple[Any, ...], Expected], ...] = (
    ("TopK", {"largest": 0}, (_K,), lambda x: smallest(x)),
    ("TopK", {"largest": 1}, (_K,), lambda x: largest(x)),
    ("ArgMin", {"axis": 1, "keepdims": 0}, (), lambda x: x.argmin(1)),
    ("ArgMax", {"axis": 1, "keepdims": 0}, (), lambda x: x.argmax(1)),
    ("ReduceMin", {}, (_AXIS,), lambda x: x.min(1, keepdims=True)),
    ("ReduceMax", {}, (_AXIS,), lambda x: x.max(1, keepdims=True)),
    ("Unique", {}, (), lambda x: np.unique(x)),
    ("Neg", {}, (), lambda x: -x),
    ("Abs", {}, (), lambda x: np.abs(x)),
    ("Sign", {}, (), lambda x: np.sign(x)),
    ("Relu", {}, (), lambda x: np.maximum(x, 0)),
    ("Min", {}, ("other",), lambda x, other: np.minimum(x, other)),
    ("Max", {}, ("other",), lambda x, other: np.maximum(x, other)),
    ("Clip", {}, ("two", "three"), lambda x, two, three: np.minimum(np.maximum(x, two), three)),
    ("Less", {}, ("other",), lambda x, other: x < other),
    ("LessOrEqual", {}, ("other",), lambda x, other: x <= other),
    ("Greater", {}, ("other",), lambda x, other: x > other),
    ("GreaterOrEqual", {}, ("other",), lambda x, other: x >= other),
    ("Equal", {}, ("other",), lambda x, other: x == other),
    ("Div", {}, ("divisor",), quotient),
    ("Mod", {}, ("divisor",), remainder),
)


@pytest.mark.parametrize("dtype", [*_INTEGERS, *_FLOATS])
@pytest.mark.parametrize("side", _RUNS)
def test_limits(dtype: str, side: str) -> None:
    x = values(dtype)
    divisor = np.full_like(x, 3)
    divisor[1] = x[1] if dtype.startswith("u") else 7
    divisor[divisor == 0] = 5
    given = {"x": x, "other": x[::-1].copy(), "divisor": divisor}
    given |= {"two": np.array(2, dtype), "three": np.array(3, dtype)}
    nodes, constants, expected = [], {}, {}
    for place, (operator, attributes, further, reference) in enumerate(_ROWS):
        if operator in (_WHOLE if dtype in _FLOATS else _SIGNED if dtype.startswith("u") else ()):
            continue
        with np.errstate(over="ignore"):
            found = reference(x, *(given[name] for name in further if isinstance(name, str)))
        found = found if isinstance(found, tuple) else (found,)
        names = []
        for each in further:
            names.append(each if isinstance(each, str) else f"c{len(constants)}")
            constants |= {} if isinstance(each, str) else {names[-1]: each}
        outputs = [f"{operator}_{place}_{each}" for each in range(len(found))]
        expected |= dict(zip(outputs, found, strict=True))
        nodes.append(helper.make_node(operator, ["x", *names], outputs, **attributes))
    inputs = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
        for name, value in given.items()
    ]
    held = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "limits", inputs, [onnx.ValueInfoProto(name=name) for name in expected], held)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    results = dict(zip(expected, _RUNS[side](model, list(given.values())), strict=True))
    wrong = [name for name, value in expected.items() if not np.array_equal(results[name], value)]
    assert not wrong, [(name, results[name], expected[name]) for name in wrong]
    assert all(results[name].dtype == value.dtype for name, value in expected.items())

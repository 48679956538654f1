"""ONNX models that other programs could have made: every place a weight can be in, old and new IR, inner graphs."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

KERNEL = np.random.default_rng(1).normal(size=(3, 4)).astype(np.float32)
BIAS = np.linspace(-1, 1, 4, dtype=np.float32)


def _model(graph: Any, *, ir_version: int = 10, opset: int = 18, **more: Any) -> Any:
    imports = [helper.make_opsetid("", opset), *more.pop("opsets", [])]
    return helper.make_model(graph, opset_imports=imports, ir_version=ir_version, **more)


def _value(name: str, shape: list[Any] | None, elem: int = TensorProto.FLOAT) -> Any:
    return helper.make_tensor_value_info(name, elem, shape)


def dense(*, inputs: list[Any] | None = None, **settings: Any) -> Any:
    """y = relu(x @ fc.weight + fc.bias) * scale + reshaped constant; a shape and an axis are initializers."""
    nodes = [
        helper.make_node("MatMul", ["x", "fc.weight"], ["product"]),
        helper.make_node("Add", ["product", "fc.bias"], ["sum"]),
        helper.make_node("Relu", ["sum"], ["positive"]),
        helper.make_node("Mul", ["positive", "scale"], ["scaled"]),
        helper.make_node("ReduceSum", ["scaled", "axes"], ["total"], keepdims=1),
        helper.make_node("Constant", [], ["shift"], value=numpy_helper.from_array(np.array([0.5], np.float32))),
        helper.make_node("Add", ["total", "shift"], ["y"]),
    ]
    initializers = [
        numpy_helper.from_array(KERNEL, "fc.weight"),
        numpy_helper.from_array(BIAS, "fc.bias"),
        numpy_helper.from_array(np.array(2, np.float32), "scale"),
        numpy_helper.from_array(np.array([1], np.int64), "axes"),
    ]
    graph = helper.make_graph(
        nodes, "dense", [_value("x", ["batch", 3]), *(inputs or [])], [_value("y", ["batch", 1])], initializers
    )
    return _model(graph, **settings)


def with_initializers_as_inputs() -> Any:
    """As before IR version 4: every initializer is an input too."""
    return dense(inputs=[_value("fc.weight", [3, 4]), _value("fc.bias", [4])], ir_version=3, opset=13)


def normalised() -> Any:
    """A BatchNormalization whose running statistics are initializers."""
    graph = helper.make_graph(
        [helper.make_node("BatchNormalization", ["x", "bn.weight", "bn.bias", "bn.mean", "bn.var"], ["y"])],
        "normalised",
        [_value("x", ["n", 3, "length"])],
        [_value("y", ["n", 3, "length"])],
        [
            numpy_helper.from_array(np.array(values, np.float32), f"bn.{name}")
            for name, values in {"weight": [1, 2, 3], "bias": [0, 1, 0], "mean": [0.5, 0, 1], "var": [1, 2, 4]}.items()
        ],
    )
    return _model(graph)


def branching(*, own: bool = False) -> Any:
    """Two branches that capture the outer weights; with `own`, one has an initializer of its own."""
    inner = [numpy_helper.from_array(BIAS * 2, "inner")] if own else []
    bias = "inner" if own else "fc.bias"
    branches = {
        "then_branch": helper.make_graph(
            [helper.make_node("Add", ["product", bias], ["then"])], "t", [], [_value("then", None)], inner
        ),
        "else_branch": helper.make_graph(
            [helper.make_node("Sub", ["product", "fc.bias"], ["else"])], "e", [], [_value("else", None)]
        ),
    }
    nodes = [
        helper.make_node("MatMul", ["x", "fc.weight"], ["product"]),
        helper.make_node("If", ["flag"], ["y"], **branches),
    ]
    inputs = [_value("x", ["batch", 3]), _value("flag", [], TensorProto.BOOL)]
    initializers = [numpy_helper.from_array(KERNEL, "fc.weight"), numpy_helper.from_array(BIAS, "fc.bias")]
    return _model(helper.make_graph(nodes, "branching", inputs, [_value("y", ["batch", 4])], initializers))


def with_function() -> Any:
    """A function of the model's own, in a domain of its own."""
    body = helper.make_function(
        "own", "Affine", ["a", "k", "b"], ["z"],
        [helper.make_node("MatMul", ["a", "k"], ["p"]), helper.make_node("Add", ["p", "b"], ["z"])],
        [helper.make_opsetid("", 18)],
    )  # fmt: skip
    graph = helper.make_graph(
        [helper.make_node("Affine", ["x", "fc.weight", "fc.bias"], ["y"], domain="own")],
        "with_function",
        [_value("x", [None, 3])],
        [_value("y", [None, 4])],
        [numpy_helper.from_array(KERNEL, "fc.weight"), numpy_helper.from_array(BIAS, "fc.bias")],
    )
    return _model(graph, opsets=[helper.make_opsetid("own", 1)], functions=[body])


def foreign() -> Any:
    """A node of a domain that is not ONNX's, and no function of the model."""
    made = with_function()
    del made.functions[:]
    return made


def learnt() -> Any:
    """x @ fc.weight, and a regression whose coefficients are attributes."""
    numbers = {"coefficients": [1.0, -2.0, 3.0, 0.5], "intercepts": [0.25]}
    nodes = [
        helper.make_node("MatMul", ["x", "fc.weight"], ["product"]),
        helper.make_node("LinearRegressor", ["product"], ["y"], name="learnt", domain="ai.onnx.ml", **numbers),
    ]
    graph = helper.make_graph(
        nodes,
        "learnt",
        [_value("x", [None, 3])],
        [_value("y", [None, 1])],
        [numpy_helper.from_array(KERNEL, "fc.weight")],
    )
    return _model(graph, opsets=[helper.make_opsetid("ai.onnx.ml", 3)])


def with_sequence_input() -> Any:
    """An input that is a sequence of tensors."""
    made = dense()
    made.graph.input.append(helper.make_tensor_sequence_value_info("pieces", TensorProto.FLOAT, None))
    return made


def endless() -> Any:
    """x @ fc.weight, and then a Loop of 2^62 steps."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["going"], ["on"]), helper.make_node("Add", ["value", "one"], ["more"])],
        "body",
        [_value("step", [], TensorProto.INT64), _value("going", [], TensorProto.BOOL), _value("value", ["n", 4])],
        [_value("on", [], TensorProto.BOOL), _value("more", ["n", 4])],
    )
    nodes = [
        helper.make_node("MatMul", ["x", "fc.weight"], ["product"]),
        helper.make_node("Loop", ["steps", "true", "product"], ["y"], body=body),
    ]
    initializers = [
        numpy_helper.from_array(KERNEL, "fc.weight"),
        numpy_helper.from_array(np.array(2**62), "steps"),
        numpy_helper.from_array(np.array(True), "true"),
        numpy_helper.from_array(np.array(1, np.float32), "one"),
    ]
    return _model(helper.make_graph(nodes, "endless", [_value("x", ["n", 3])], [_value("y", ["n", 4])], initializers))


def growing() -> Any:
    """x @ fc.weight, and then a Loop whose value is twice as long after every step."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["going"], ["on"]), helper.make_node("Concat", ["value"] * 2, ["more"], axis=0)],
        "body",
        [_value("step", [], TensorProto.INT64), _value("going", [], TensorProto.BOOL), _value("value", ["n", 4])],
        [_value("on", [], TensorProto.BOOL), _value("more", ["m", 4])],
    )
    nodes = [
        helper.make_node("MatMul", ["x", "fc.weight"], ["product"]),
        helper.make_node("Loop", ["steps", "true", "product"], ["long"], body=body),
        helper.make_node("ReduceSum", ["long"], ["y"], keepdims=1),
    ]
    initializers = [
        numpy_helper.from_array(KERNEL, "fc.weight"),
        numpy_helper.from_array(np.array(60), "steps"),
        numpy_helper.from_array(np.array(True), "true"),
    ]
    return _model(helper.make_graph(nodes, "growing", [_value("x", ["n", 3])], [_value("y", [1, 1])], initializers))


VALID = {
    "dense": dense,
    "inputs too": with_initializers_as_inputs,
    "normalised": normalised,
    "branching": branching,
    "a branch's own": lambda: branching(own=True),
    "function": with_function,
}


def save(model: Any, path: Any, *, external: bool = False) -> None:
    """Save a model, its weights in a file beside it or not."""
    onnx.save(
        model, path, save_as_external_data=external, location="weights", size_threshold=45
    )  # bytes of the Python object

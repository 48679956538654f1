"""A source with a graph of its own, in Keras's layout: what readers and tracers of other frameworks make."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir

from converter.graphs.description.signature import GraphInput, Signature
from converter.graphs.description.traced import WEIGHTS_LOCATION
from converter.graphs.run.answers import Answer
from converter.graphs.run.arrays import read_sets, write_sets
from converter.model.child_function import child_function
from converter.model.dtype import DType

WEIGHTS = {
    "dense/kernel": np.arange(12, dtype=np.float32).reshape(3, 4) / 7,
    "dense/bias": np.arange(4, dtype=np.float32) - 1,
    "count": np.array([2, 3], np.float32),
}


@child_function("reading the graph: dense")
def trace(*, model: str, graph: str, trained: list[str]) -> dict[str, Any]:
    """Write y = x @ kernel + bias; the kernel is used twice, the second time as an output."""
    values = {}
    for name in ("dense/kernel", "dense/bias"):
        shape = onnx_ir.Shape(WEIGHTS[name].shape)
        tensor = onnx_ir.ExternalTensor(WEIGHTS_LOCATION, None, None, onnx_ir.DataType.FLOAT, shape=shape, name=name)
        values[name] = onnx_ir.Value(
            name=name, shape=shape, type=onnx_ir.TensorType(onnx_ir.DataType.FLOAT), const_value=tensor
        )
    x = onnx_ir.val("x", onnx_ir.DataType.FLOAT, ["batch", 3])
    product = onnx_ir.node("MatMul", [x, values["dense/kernel"]], name="product")
    product.outputs[0].name = "dense.weight"  # the very name that the kernel is going to have
    total = onnx_ir.node("Add", [product.outputs[0], values["dense/bias"]], name="total")
    total.outputs[0].name = "y"
    for node in (product, total):
        node.outputs[0].type = onnx_ir.TensorType(onnx_ir.DataType.FLOAT)
        node.outputs[0].shape = onnx_ir.Shape(["batch", 4])
    made = onnx_ir.Graph(
        [x],
        [total.outputs[0], values["dense/kernel"]],
        nodes=[product, total],
        initializers=list(values.values()),
        opset_imports={"": 18},
        name="dense",
    )
    onnx_ir.save(onnx_ir.Model(made, ir_version=10), graph)
    declared = {name: (DType.FLOAT32, WEIGHTS[name].shape) for name in values}
    return Signature(
        title="dense",
        parameters={name: each for name, each in declared.items() if name in trained},
        buffers={name: each for name, each in declared.items() if name not in trained},
        inputs=(GraphInput(name="x", dtype=DType.FLOAT32, shape=("batch", 3)),),
        outputs=("y", "dense/kernel"),
    ).to_json()


@child_function("reading the graph: nothing")
def trace_of_nothing(*, model: str, graph: str) -> dict[str, Any]:
    """Fail."""
    raise ValueError("nonsense")


@child_function("comparing outputs: nothing")
def run_nothing(*, model: str, inputs: str, outputs: str) -> Answer:
    """Give no outputs."""
    write_sets(outputs, {})
    return {"failed": {}}


@child_function("comparing outputs: dense")
def run(*, model: str, inputs: str, outputs: str) -> Answer:
    """Compute the same with numpy."""
    kernel, bias = WEIGHTS["dense/kernel"], WEIGHTS["dense/bias"]
    results = {key: {"y": each["x"] @ kernel + bias, "dense/kernel": kernel} for key, each in read_sets(inputs).items()}
    write_sets(outputs, results)
    return {"failed": {}}

"""Constants of a graph, read and made."""

from __future__ import annotations

from typing import Any


def constant(value: Any) -> Any:
    """Return the array that a value is known to be; None for tensors of the checkpoint, and what is computed."""
    import onnx_ir

    tensor = onnx_ir.convenience.get_const_tensor(value)
    return None if tensor is None or isinstance(tensor, onnx_ir.ExternalTensor) else tensor.numpy()


def constant_node(array: Any, name: str) -> Any:
    """Return a Constant node whose output is called `name`."""
    import onnx_ir

    tensor = onnx_ir.tensor(array)
    node = onnx_ir.node("Constant", [], {"value": tensor}, name=name)
    (output,) = node.outputs
    output.name, output.shape, output.type = name, tensor.shape, onnx_ir.TensorType(tensor.dtype)
    return node

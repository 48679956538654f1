"""Which initializers TensorFlow would rather have as kernels: weights that every use of them permutes first."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from converter.model.kernels import LEAST_RANK, kernel_axes


def kernels_of(model: Any) -> Iterator[str]:
    """Yield the names of initializers that only linear layers and convolutions use, in the layout of PyTorch.

    Depthwise convolutions are none of them: their kernels have an order of their own in TensorFlow.
    """
    for name, value in model.graph.initializers.items():
        uses = [(use.node, use.idx) for use in value.uses()]
        if uses and not value.is_graph_output() and all(_is_permuted(value, *use) for use in uses):
            yield name


def _is_permuted(value: Any, node: Any, index: int) -> bool:
    if value.shape is None or len(value.shape) < LEAST_RANK or node.domain not in ("", "ai.onnx"):
        return False
    match node.op_type:
        case "Transpose":
            return bool(_attribute(node, "perm", None) == list(kernel_axes(len(value.shape))))
        case "Gemm":
            return index == 1 and bool(_attribute(node, "transB", 0) == 1)
        case "Conv":
            return index == 1 and bool(value.shape[1] != 1 or _attribute(node, "group", 1) == 1)
    return False


def _attribute(node: Any, name: str, default: Any) -> Any:
    if name not in node.attributes or node.attributes[name].is_ref():
        return default
    value = node.attributes[name].value
    return list(value) if isinstance(value, list | tuple) else value

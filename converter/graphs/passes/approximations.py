"""Which outputs of a graph onnxruntime computes to so many places behind the point, and not to so many of their own.

Its Sigmoid of float32 is a quotient of polynomials between -18 and 18 (mlas/lib/logistic.cpp): measured with 1.31 it is
1.6e-7 off at the most, which is all of a value below 1e-7. Others are right: PyTorch's, and TensorFlow's.
"""

from __future__ import annotations

from typing import Any

_MOVES = """
Cast Concat Expand Flatten Gather GatherElements GatherND Identity Reshape Slice Split Squeeze Tile Transpose Unsqueeze
Where Pad Max Min ReduceMax ReduceMin ReduceMean ReduceSum Sum Mean Add Sub Neg Clip TopK Dropout
"""
_CARRIES = frozenset(_MOVES.split())
"""Operators that leave a value that is off by so much off by about as much."""
_LIMIT_DEPTH = 64


def approximated_outputs(model: Any) -> list[str]:
    """Return the names of those outputs."""
    known: dict[Any, bool] = {}
    return [value.name for value in model.graph.outputs if _is_approximated(value, known, 0)]


def _is_approximated(value: Any, known: dict[Any, bool], depth: int) -> bool:
    if value not in known:
        known[value] = False  # whatever comes back to it
        node = value.producer() if depth < _LIMIT_DEPTH else None
        known[value] = node is not None and _gives(node, known, depth + 1)
    return known[value]


def _gives(node: Any, known: dict[Any, bool], depth: int) -> bool:
    inputs = [each for each in node.inputs if each is not None]
    if node.op_type == "Sigmoid":
        return True
    if node.op_type in ("If", "Loop", "Scan"):
        bodies = [each.value for each in node.attributes.values() if each.type.name == "GRAPH"]
        return any(_is_approximated(each, known, depth) for body in bodies for each in body.outputs)
    if node.op_type == "Mul":  # scores of an object and of its class
        return all(_is_approximated(each, known, depth) for each in inputs)
    return node.op_type in _CARRIES and any(_is_approximated(each, known, depth) for each in inputs)

"""Which outputs of a graph are sigmoids or softmaxes, which float32 holds otherwise than what they are made of.

onnxruntime's Sigmoid of float32 is a quotient of polynomials between -18 and 18 (mlas/lib/logistic.cpp): measured with
1.31 it is 1.6e-7 off at the most, which is all of a value below 1e-7. Others are right: PyTorch's, and TensorFlow's. A
softmax is by so much of itself off as its logits are at all (dp = p dz): what is 1e-6 of 40 is 4e-5 of its exponential.
"""

from __future__ import annotations

from typing import Any

from converter.graphs.description.traced import SIGMOID, SOFTMAX

_MOVES = """
Cast Concat Expand Flatten Gather GatherElements GatherND Identity Reshape Slice Split Squeeze Tile Transpose Unsqueeze
Where Pad Max Min ReduceMax ReduceMin ReduceMean ReduceSum Sum Mean Add Sub Neg Clip TopK Dropout
"""
_CARRIES = frozenset(_MOVES.split())
"""Operators that leave a value that is off by so much off by about as much."""
_SPREADS = ("Cast", "Expand", "Identity", "Reshape", "Squeeze", "Unsqueeze")
_KINDS = {"Sigmoid": SIGMOID, "Softmax": SOFTMAX}
_LIMIT_DEPTH = 64


def activations_of(model: Any) -> dict[str, str]:
    """Return the kind, SIGMOID or SOFTMAX, of those outputs by name. The former where one may be both."""
    known: dict[Any, frozenset[str]] = {}
    kinds = {value.name: _kinds(value, known, 0) for value in model.graph.outputs}
    return {name: SIGMOID if SIGMOID in found else SOFTMAX for name, found in kinds.items() if found}


def _kinds(value: Any, known: dict[Any, frozenset[str]], depth: int) -> frozenset[str]:
    if value not in known:
        known[value] = frozenset()  # whatever comes back to it
        node = value.producer() if depth < _LIMIT_DEPTH else None
        known[value] = frozenset() if node is None else _given(node, known, depth + 1)
    return known[value]


def _given(node: Any, known: dict[Any, frozenset[str]], depth: int) -> frozenset[str]:
    if node.op_type in _KINDS:
        return frozenset((_KINDS[node.op_type],))
    if node.op_type == "Div" and _is_share(*node.inputs):
        return frozenset((SOFTMAX,))
    kinds = [_kinds(each, known, depth) for each in _given_on(node)]
    if node.op_type == "Mul" and not all(kinds):  # scores of an object and of its class
        return frozenset()
    return frozenset().union(*kinds)


def _given_on(node: Any) -> list[Any]:
    """Return the values that a node gives on, but for a Mul, which gives on what all are."""
    if node.op_type in ("If", "Loop", "Scan"):
        bodies = [each.value for each in node.attributes.values() if each.type.name == "GRAPH"]
        return [each for body in bodies for each in body.outputs]
    return [each for each in node.inputs if each is not None] if node.op_type in (*_CARRIES, "Mul") else []


def _is_share(value: Any, of: Any) -> bool:
    """Whether exponentials are divided by their sum, as JAX writes a softmax."""
    if value.producer() is None or value.producer().op_type != "Exp":
        return False
    for _ in range(_LIMIT_DEPTH):
        node = of.producer()
        if node is None or node.op_type not in _SPREADS:
            return node is not None and node.op_type == "ReduceSum" and node.inputs[0] is value
        of = node.inputs[0]
    return False

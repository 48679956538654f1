"""A small encoder in ONNX, as it should be and wrong in one way after another."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

WIDTH, HEADS, WORDS, LENGTH, CLASSES = 16, 2, 40, 24, 12
_LOW = -1e9
_RANDOM = np.random.default_rng(8)


def _normal(*shape: int, scale: float = 0.4) -> Any:
    return (_RANDOM.standard_normal(shape) * scale).astype(np.float32)


def weights() -> dict[str, Any]:
    """Return the weights of two layers, an embedding and a classifier."""
    found = {
        "word": _normal(WORDS, WIDTH, scale=2.0),
        "position": _normal(LENGTH, WIDTH),
        "out.weight": _normal(WIDTH, CLASSES),
    }
    found["out.bias"] = _normal(CLASSES, scale=0.1)
    for layer in range(2):
        for part in ("query", "key", "value", "dense"):
            found[f"layer.{layer}.{part}.weight"] = _normal(WIDTH, WIDTH)
            found[f"layer.{layer}.{part}.bias"] = _normal(WIDTH, scale=0.1)
        found[f"layer.{layer}.up.weight"], found[f"layer.{layer}.up.bias"] = _normal(WIDTH, 32), _normal(32, scale=0.1)
        found[f"layer.{layer}.down.weight"], found[f"layer.{layer}.down.bias"] = (
            _normal(32, WIDTH),
            _normal(WIDTH, scale=0.1),
        )
        for norm in ("norm1", "norm2"):
            found[f"layer.{layer}.{norm}.weight"], found[f"layer.{layer}.{norm}.bias"] = (
                1 + _normal(WIDTH),
                _normal(WIDTH, scale=0.1),
            )
    return found


WEIGHTS = weights()


@dataclass(frozen=True, slots=True, kw_only=True)
class Graph:
    """What may be wrong with the graph; the defaults are right."""

    weights: Mapping[str, Any] = field(default_factory=lambda: WEIGHTS)
    approximate: str = "none"
    activation: str = "Gelu"
    epsilon: float = 1e-12
    first_position: int = 0
    heads: int = HEADS
    head_order: tuple[int, ...] = (0, 1)
    is_mask_inverted: bool = False
    has_mask: bool = True
    is_scaled: bool = True
    dropped_residual: str = ""
    scale: float = 1.0
    softmax_axis: int = -1
    labels: str = "ArgMax"
    last_of_ties: int = 0
    label_type: int = TensorProto.INT64
    output_type: int = TensorProto.FLOAT
    outputs: tuple[str, ...] = ("logits", "probabilities", "label")

    def model(self) -> Any:
        """Return the ONNX model. Inputs `ids` and `mask` [batch, length]."""
        build = _Builder()
        constant, node = build.constant, build.node
        for name, value in self.weights.items():
            build.initializers.append(numpy_helper.from_array(value, name))
        length = node("Slice", node("Shape", "ids"), constant([1]), constant([2]))
        start = constant([self.first_position])
        hidden = node(
            "Add",
            node("Gather", "word", "ids"),
            node("Slice", "position", start, node("Add", start, length), constant([0])),
        )
        mask = node("Cast", "mask", to=1)
        hidden_where = mask if self.is_mask_inverted else node("Sub", constant(1.0), mask)
        bias = node("Unsqueeze", node("Mul", hidden_where, constant(_LOW)), constant([1, 2]))
        for layer in range(2):
            hidden = self._layer(build, f"layer.{layer}", hidden, bias)
        logits = node("Add", node("MatMul", hidden, "out.weight"), "out.bias")
        logits = node("Mul", logits, constant(self.scale))
        closed = constant(np.arange(CLASSES) % 5 == 4)
        logits = node("Where", closed, constant(_LOW), logits)
        node("Cast", logits, to=self.output_type, output="logits")
        node("Softmax", logits, axis=self.softmax_axis, output="probabilities")
        label = node(self.labels, logits, axis=-1, keepdims=0, select_last_index=self.last_of_ties)
        node("Cast", label, to=self.label_type, output="label")
        node("ReduceMean", hidden, constant([1]), keepdims=0, output="pooled")
        types = {"logits": self.output_type, "label": self.label_type}
        graph = helper.make_graph(
            build.nodes,
            "encoder",
            [helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "length"]) for name in ("ids", "mask")],
            [helper.make_tensor_value_info(name, types.get(name, 1), None) for name in self.outputs],
            build.initializers,
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)

    def _layer(self, build: _Builder, path: str, hidden: str, bias: str) -> str:
        constant, node = build.constant, build.node

        def dense(value: str, part: str) -> str:
            product = node("MatMul", value, f"{path}.{part}.weight")
            return node("Add", product, f"{path}.{part}.bias") if f"{path}.{part}.bias" in self.weights else product

        def split(value: str) -> str:
            shape = constant([0, 0, self.heads, WIDTH // self.heads])
            heads = node("Transpose", node("Reshape", value, shape), perm=[0, 2, 1, 3])
            return node("Gather", heads, constant(list(self.head_order)), axis=1) if self.heads == HEADS else heads

        query, key, value = (node("Identity", dense(hidden, part)) for part in ("query", "key", "value"))
        scores = node("MatMul", split(query), node("Transpose", split(key), perm=[0, 1, 3, 2]))
        scores = node("Div", scores, constant(float(np.sqrt(WIDTH // self.heads)))) if self.is_scaled else scores
        scores = node("Add", scores, bias) if self.has_mask else scores
        context = node("MatMul", node("Softmax", scores, axis=-1), split(value))
        context = node("Reshape", node("Transpose", context, perm=[0, 2, 1, 3]), constant([0, 0, WIDTH]))
        attended = dense(context, "dense")
        if self.dropped_residual != path:
            attended = node("Add", attended, hidden)
        attended = self._normalised(build, attended, f"{path}.norm1")
        up = dense(attended, "up")
        up = node("Gelu", up, approximate=self.approximate) if self.activation == "Gelu" else node(self.activation, up)
        return self._normalised(build, node("Add", dense(up, "down"), attended), f"{path}.norm2")

    def _normalised(self, build: _Builder, value: str, name: str) -> str:
        return build.node("LayerNormalization", value, f"{name}.weight", f"{name}.bias", epsilon=self.epsilon)


class _Builder:
    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.initializers: list[Any] = []

    def node(self, operator: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        name = output or f"value{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [name], **attributes))
        return name

    def constant(self, value: Any) -> str:
        array = np.asarray(value)
        array = array.astype(np.float32) if array.dtype.kind == "f" else array
        return self.node("Constant", value=numpy_helper.from_array(array))


def inputs(batch: int, length: int, seed: int) -> dict[str, Any]:
    """Return ids, and a mask in which all rows but the first end early."""
    random = np.random.default_rng(seed)
    ends = random.integers(2, length, batch)
    ends[0] = length
    return {
        "ids": random.integers(0, WORDS, (batch, length)),
        "mask": (np.arange(length) < ends[:, None]).astype(np.int64),
    }


SETS = {"0": inputs(3, 17, 1), "1": inputs(1, 9, 2)}


def run(graph: Graph) -> dict[str, Any]:
    """Return the outputs of all cases by `<case>/<output>`."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(graph.model().SerializeToString(), options)
    names = [each.name for each in session.get_outputs()]
    return {
        f"{case}/{name}": array
        for case, arrays in SETS.items()
        for name, array in zip(names, session.run(names, arrays), strict=True)
    }


def changed(name: str, change: Callable[[Any], Any]) -> Graph:
    """Return the graph with one weight changed."""
    return Graph(weights={**WEIGHTS, name: change(WEIGHTS[name].copy())})


def swapped(one: str, other: str) -> Graph:
    """Return the graph with two weights exchanged."""
    return Graph(weights={**WEIGHTS, one: WEIGHTS[other], other: WEIGHTS[one]})


def without(name: str) -> Graph:
    """Return the graph without a bias."""
    return Graph(weights={key: value for key, value in WEIGHTS.items() if key != name})


def _with_one(array: Any) -> Any:
    array.flat[5] += 0.02
    return array


_Q, _K = "layer.1.query.weight", "layer.1.key.weight"
WRONG: dict[str, Graph] = {
    "a weight of zeros": changed("layer.1.dense.weight", np.zeros_like),
    "one element changed": changed("layer.0.up.weight", _with_one),
    "two weights exchanged": swapped(_Q, _K),
    "two layers exchanged": swapped("layer.0.value.weight", "layer.1.value.weight"),
    "two norms exchanged": swapped("layer.0.norm1.weight", "layer.0.norm2.weight"),
    "a square weight transposed": changed(_Q, lambda array: np.ascontiguousarray(array.T)),
    "rows turned round": changed("word", lambda array: np.ascontiguousarray(array[::-1])),
    "one weight rounded to float16": changed("layer.0.up.weight", lambda a: a.astype(np.float16).astype(np.float32)),
    "one weight x (1 + 1e-3)": changed("layer.1.value.weight", lambda array: array * np.float32(1.001)),
    "no bias": without("layer.0.down.bias"),
    "no bias of queries": without("layer.1.query.bias"),
    "a bias of the wrong sign": changed("out.bias", lambda array: -array),
    "tanh for GELU": Graph(approximate="tanh"),
    "ReLU for GELU": Graph(activation="Relu"),
    "epsilon 1e-3": Graph(epsilon=1e-3),
    "positions off by one": Graph(first_position=1),
    "heads exchanged": Graph(head_order=(1, 0), weights={**WEIGHTS, "layer.0.value.bias": WEIGHTS["layer.0.key.bias"]}),
    "four heads": Graph(heads=4),
    "the mask the other way": Graph(is_mask_inverted=True),
    "no mask": Graph(has_mask=False),
    "scores not scaled": Graph(is_scaled=False),
    "a residual dropped": Graph(dropped_residual="layer.1"),
    "logits x (1 + 1e-3)": Graph(scale=1.001),
    "softmax over positions": Graph(softmax_axis=1),
    "the least class": Graph(labels="ArgMin"),
    "labels of int32": Graph(label_type=TensorProto.INT32),
    "logits of float64": Graph(output_type=TensorProto.DOUBLE),
    "logits of float16": Graph(output_type=TensorProto.FLOAT16),
    "an output missing": Graph(outputs=("logits", "label")),
    "an output more": Graph(outputs=("logits", "probabilities", "label", "pooled")),
}

"""Operators that onnxruntime's quantiser writes (com.microsoft), spelled out in ONNX's own: what they are is the same.

https://github.com/microsoft/onnxruntime/blob/v1.23.0/docs/ContribOperators.md. Of reals they are ONNX's operator
between DequantizeLinear and QuantizeLinear; of an LSTM, both products of a step are of what is quantised right then.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from converter.errors import GraphError

_DOMAIN = "com.microsoft"
_FLOAT = 1
_SPLIT_IN_SO_MANY = 18
_LIMIT_LSTM = ("activations", "activation_alpha", "activation_beta", "clip", "input_forget", "layout")


def spell_out(model: Any) -> None:
    """Rewrite those operators of an onnx_ir.Model. Raises GraphError for settings that ONNX's do not have."""
    import onnx_ir

    for graph in model.graphs():
        for node in list(graph):
            rule = _RULES.get(node.op_type) if node.domain == _DOMAIN else None
            if rule is None:
                continue
            written = _Written(node, model.opset_imports[""])
            for old, new in zip(node.outputs, rule(written), strict=False):
                new.type, new.shape = new.type or old.type, new.shape or old.shape
                if old.is_graph_output():
                    new.name, old.name = old.name, f"{old.name}/quantised"
                onnx_ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
            graph.insert_before(node, written.nodes)
            graph.remove(node, safe=True)
    if all(node.domain != _DOMAIN for node in model.graph.all_nodes()):
        model.opset_imports.pop(_DOMAIN, None)


class _Written:
    """The nodes that take the place of one."""

    def __init__(self, node: Any, opset: int, place: str = "") -> None:
        self.node, self.opset = node, opset
        self.name = (node.name or next(each.name for each in node.outputs if each.name)) + place
        self.inputs = [*node.inputs, *[None] * 12]
        self.nodes: list[Any] = []

    def attributes(self, *names: str) -> dict[str, Any]:
        """Return those of the node that it has."""
        return {name: self.node.attributes[name] for name in names if name in self.node.attributes}

    def value(self, name: str, default: Any) -> Any:
        """Return what an attribute of the node is."""
        return self.node.attributes[name].value if name in self.node.attributes else default

    def op(self, op_type: str, *inputs: Any, count: int = 1, **attributes: Any) -> Any:
        """Write a node; return its output, or as many as there are."""
        import onnx_ir

        name = f"{self.name}/{op_type}_{len(self.nodes)}"
        outputs = [onnx_ir.Value(name=f"{name}:{number}") for number in range(count)]
        self.nodes.append(onnx_ir.node(op_type, inputs, attributes, outputs=outputs, name=name))
        return outputs[0] if count == 1 else outputs

    def constant(self, values: Any) -> Any:
        """Write integers."""
        import onnx_ir

        return self.op("Constant", value=onnx_ir.tensor(np.array(values, np.int64)))

    def real(self, values: Any, scale: Any, zero: Any) -> Any:
        """Write what quantised numbers stand for."""
        return self.op("DequantizeLinear", *_up_to_last(values, scale, zero))

    def stored(self, values: Any, scale: Any, zero: Any) -> list[Any]:
        """Write numbers as they are quantised."""
        return [self.op("QuantizeLinear", *_up_to_last(values, scale, zero))]

    def product(self, a: Any, b: Any, b_scale: Any, b_zero: Any) -> Any:
        """Write the product of reals, which are quantised for that, and of integers."""
        quantised, scale, zero = self.op("DynamicQuantizeLinear", a, count=3)
        total = self.op("MatMulInteger", *_up_to_last(quantised, b, zero, b_zero))
        return self.op("Mul", self.op("Cast", total, to=_FLOAT), self.op("Mul", scale, b_scale))

    def refuse(self, *names: str) -> None:
        """Raise GraphError for attributes that are set to anything but nothing."""
        for name in names:
            if self.value(name, None):
                raise GraphError(f"node {self.name} is a {self.node.op_type} with {name}, which is not converted")


_Rule = Callable[[_Written], Sequence[Any]]


def _up_to_last(*values: Any) -> list[Any]:
    last = max(number for number, each in enumerate(values) if each is not None)
    return list(values[: last + 1])


def _of_one(op_type: str, *attributes: str, fixed: Mapping[str, Any] | None = None) -> _Rule:
    """An operator of one value: (x, scale, zero point, scale and zero point of the result)."""

    def rule(written: _Written) -> Sequence[Any]:
        written.refuse("channels_last")
        x, scale, zero, y_scale, y_zero, *_ = written.inputs
        result = written.op(op_type, written.real(x, scale, zero), **written.attributes(*attributes), **(fixed or {}))
        return written.stored(result, y_scale, y_zero)

    return rule


def _of_two(op_type: str) -> _Rule:
    """An operator of two values, each with its scale and zero point, and the result's."""

    def rule(written: _Written) -> Sequence[Any]:
        values = written.real(*written.inputs[:3]), written.real(*written.inputs[3:6])
        return written.stored(written.op(op_type, *values), *written.inputs[6:8])

    return rule


def _concat(written: _Written) -> Sequence[Any]:
    parts = written.node.inputs[2:]
    values = [written.real(*parts[start : start + 3]) for start in range(0, len(parts), 3)]
    return written.stored(written.op("Concat", *values, **written.attributes("axis")), *written.inputs[:2])


def _where(written: _Written) -> Sequence[Any]:
    condition, *rest = written.inputs
    chosen = written.op("Where", condition, written.real(*rest[:3]), written.real(*rest[3:6]))
    return written.stored(chosen, *rest[6:8])


def _gemm(written: _Written) -> Sequence[Any]:
    a, b = written.real(*written.inputs[:3]), written.real(*written.inputs[3:6])
    bias, scale, zero = written.inputs[6:9]
    result = written.op("Gemm", a, b, **written.attributes("alpha", "transA", "transB"))
    if bias is not None:
        factor = written.op("Mul", written.inputs[1], written.inputs[4])
        if written.value("alpha", 1.0) != 1.0:
            written.refuse("alpha")
        result = written.op("Add", result, written.op("Mul", written.op("Cast", bias, to=_FLOAT), factor))
    return [result] if scale is None else written.stored(result, scale, zero)


def _dynamic_matmul(written: _Written) -> Sequence[Any]:
    a, b, scale, zero, bias, *_ = written.inputs
    result = written.product(a, b, scale, zero)
    return [result if bias is None else written.op("Add", result, bias)]


def _matmul_to_float(written: _Written) -> Sequence[Any]:
    a, b, a_scale, b_scale, a_zero, b_zero, bias, *_ = written.inputs
    total = written.op("MatMulInteger", *_up_to_last(a, b, a_zero, b_zero))
    result = written.op("Mul", written.op("Cast", total, to=_FLOAT), written.op("Mul", a_scale, b_scale))
    return [result if bias is None else written.op("Add", result, bias)]


def _renamed(op_type: str) -> _Rule:
    return lambda written: [written.op(op_type, *written.node.inputs, **written.node.attributes)]


def _lstm(written: _Written) -> Sequence[Any]:
    """Gates are input, output, forget and cell; (X, W, R, B, lengths, h, c, P, and scale and zero point of W and R)."""
    written.refuse(*_LIMIT_LSTM)
    if written.inputs[4] is not None or written.inputs[7] is not None:
        raise GraphError(f"node {written.name}: a DynamicQuantizeLSTM with lengths or peepholes is not converted")
    direction = written.value("direction", "forward")
    reverse = [False, True] if direction == "bidirectional" else [direction == "reverse"]
    found = [_lstm_direction(written, number, is_reverse) for number, is_reverse in enumerate(reverse)]
    outputs = []
    for place, shape, axis in ((2, [0, 1, -1], 1), (0, [1, -1], 0), (1, [1, -1], 0)):
        whole = [*shape, written.value("hidden_size", 0)]
        parts = [written.op("Reshape", each[place], written.constant(whole)) for each in found]
        outputs.append(parts[0] if len(parts) == 1 else written.op("Concat", *parts, axis=axis))
    return outputs


def _lstm_direction(written: _Written, number: int, is_reverse: bool) -> Sequence[Any]:
    """Return the last hidden state and cell of one direction, and all hidden states in order."""
    import onnx_ir

    size = written.value("hidden_size", 0)

    def own(value: Any) -> Any:
        return None if value is None else written.op("Gather", value, written.constant(number), axis=0)

    x, w, r, bias, _, h, c, _, w_scale, w_zero, r_scale, r_zero, *_ = written.inputs
    gates = written.product(x, own(w), own(w_scale), own(w_zero))
    if bias is not None:
        halves = written.op("Reshape", own(bias), written.constant([2, 4 * size]))
        for half in (0, 1):
            gates = written.op("Add", gates, written.op("Gather", halves, written.constant(half), axis=0))
    extents = written.op("Gather", written.op("Shape", x), written.constant([1]), axis=0)
    shape = written.op("Concat", extents, written.constant([size]), axis=0)
    starts = [written.op("ConstantOfShape", shape) if each is None else own(each) for each in (h, c)]
    before = [onnx_ir.Value(name=f"{written.name}/{number}/{name}") for name in ("hidden", "cell", "gates")]
    inside = _Written(written.node, written.opset, f"/{number}")
    hidden, cell = _lstm_step(inside, before, (own(r), own(r_scale), own(r_zero)))
    kept = inside.op("Identity", hidden)
    body = onnx_ir.Graph(before, [hidden, cell, kept], nodes=inside.nodes, name=f"{written.name}/{number}")
    for value in (*before, hidden, cell, kept):
        value.type = onnx_ir.TensorType(onnx_ir.DataType.FLOAT)
    along = [int(is_reverse)]
    how = {"num_scan_inputs": 1, "scan_input_directions": along, "scan_output_directions": along}
    found: Sequence[Any] = written.op("Scan", *starts, gates, count=3, body=body, **how)
    return found


def _lstm_step(written: _Written, before: Sequence[Any], weights: Sequence[Any]) -> tuple[Any, Any]:
    hidden, cell, gates = before
    total = written.op("Add", gates, written.product(hidden, *weights))
    number = {} if written.opset < _SPLIT_IN_SO_MANY else {"num_outputs": 4}
    parts = written.op("Split", total, count=4, axis=-1, **number)
    kept = written.op("Mul", written.op("Sigmoid", parts[2]), cell)
    added = written.op("Mul", written.op("Sigmoid", parts[0]), written.op("Tanh", parts[3]))
    new = written.op("Add", kept, added)
    return written.op("Mul", written.op("Sigmoid", parts[1]), written.op("Tanh", new)), new


_POOLING = ("auto_pad", "ceil_mode", "count_include_pad", "kernel_shape", "pads", "strides")
_RULES: dict[str, _Rule] = {
    "DequantizeLinear": _renamed("DequantizeLinear"),
    "DynamicQuantizeLSTM": _lstm,
    "DynamicQuantizeMatMul": _dynamic_matmul,
    "MatMulIntegerToFloat": _matmul_to_float,
    "QGemm": _gemm,
    "QLinearAdd": _of_two("Add"),
    "QLinearAveragePool": _of_one("AveragePool", *_POOLING),
    "QLinearConcat": _concat,
    "QLinearGlobalAveragePool": _of_one("GlobalAveragePool"),
    "QLinearLeakyRelu": _of_one("LeakyRelu", "alpha"),
    "QLinearMul": _of_two("Mul"),
    "QLinearReduceMean": _of_one("ReduceMean", "axes", "keepdims"),
    "QLinearSigmoid": _of_one("Sigmoid"),
    "QLinearSoftmax": _of_one("Softmax", "axis"),
    "QLinearWhere": _where,
    "QuantizeLinear": _renamed("QuantizeLinear"),
}

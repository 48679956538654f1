"""Operators that TensorFlow 2.21 emits and tf2onnx 1.17 has no handler for, in terms of ONNX's.

tf2onnx passes an operator that it does not know through as it is, and says that it succeeded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np

Handler = Callable[..., Any]

_FLOAT, _INT32, _INT64, _DOUBLE, _BFLOAT16 = 1, 6, 7, 11, 16  # of TensorProto.DataType
_BFLOAT16_OF_TENSORFLOW = 14
_FLOATS = (_FLOAT, 10, _DOUBLE)


def _erfc(graph: Any, x: Any) -> Any:
    """1 - erf(x); TensorFlow 2.21 emits it for the exact gelu."""
    return graph.op("Sub", graph.constant(1), graph.op("Erf", x))


def _expm1(graph: Any, x: Any) -> Any:
    return graph.op("Sub", graph.op("Exp", x), graph.constant(1))


def _log1p(graph: Any, x: Any) -> Any:
    return graph.op("Log", graph.op("Add", x, graph.constant(1)))


def _where_zero(graph: Any, x: Any, otherwise: Any) -> Any:
    """0 where x is 0, whatever the other value is there."""
    is_zero = graph.op("Equal", x, graph.constant(0))
    return graph.op("Where", is_zero, graph.constant(0), otherwise)


def _xlogy(graph: Any, x: Any, y: Any) -> Any:
    return _where_zero(graph, x, graph.op("Mul", x, graph.op("Log", y)))


def _xlog1py(graph: Any, x: Any, y: Any) -> Any:
    return _where_zero(graph, x, graph.op("Mul", x, _log1p(graph, y)))


def _xdivy(graph: Any, x: Any, y: Any) -> Any:
    return _where_zero(graph, x, graph.op("Div", x, y))


def _mul_no_nan(graph: Any, x: Any, y: Any) -> Any:
    return _where_zero(graph, y, graph.op("Mul", x, y))


def _broadcast_shape(graph: Any, left: Any, right: Any) -> Any:
    """Return the shape to which two broadcast: ones before the shorter, then the larger extent, or 0 beside a 0."""
    counts = [graph.op("Shape", each) for each in (left, right)]
    longest = graph.op("Max", *counts)
    one = graph.constant([1])
    padded = [
        graph.op("Concat", graph.op("Expand", one, graph.op("Sub", longest, count)), shape, axis=0)
        for count, shape in zip(counts, (left, right), strict=True)
    ]
    return graph.op("Mul", graph.op("Max", *padded), graph.op("Min", *padded, one))


def _bucketize(graph: Any, x: Any) -> Any:
    """How many boundaries are not above x; all in double precision, which holds what either side can be."""
    last = graph.constant([-1], np.int64)
    wide = graph.op("Unsqueeze", graph.op("Cast", x, to=_DOUBLE), last)
    reached = graph.op("GreaterOrEqual", wide, graph.constant(graph.numbers("boundaries"), np.float64))
    return graph.op("ReduceSum", graph.op("Cast", reached, to=_INT32), last, keepdims=0)


def _same(graph: Any, x: Any) -> Any:
    return graph.op("Identity", x)


_HANDLERS: dict[str, Handler] = {
    "Erfc": _erfc,
    "Expm1": _expm1,
    "Log1p": _log1p,
    "Xlogy": _xlogy,
    "Xlog1py": _xlog1py,
    "Xdivy": _xdivy,
    "MulNoNan": _mul_no_nan,
    "BroadcastArgs": _broadcast_shape,
    "Bucketize": _bucketize,
    "GuaranteeConst": _same,
    "PreventGradient": _same,
    "Snapshot": _same,
    "DeepCopy": _same,
}


class _Builder:
    """Nodes that take the place of one node of tf2onnx's graph."""

    def __init__(self, graph: Any, node: Any) -> None:
        self._graph = graph
        self._node = node
        self._dtype = graph.get_dtype(node.output[0])

    def op(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """Add a node and return its output."""
        name: str = self._graph.make_node(operator, list(inputs), attr=attributes).output[0]
        return name

    def numbers(self, attribute: str) -> list[float]:
        """Return an attribute of the replaced node that is a list of numbers."""
        return list(self._node.get_attr(attribute).floats)

    def constant(self, value: float | Sequence[float], dtype: Any = None) -> str:
        """Return a constant, of the replaced node's type where no other is given."""
        from tf2onnx import utils

        array = np.array(value, dtype or utils.map_onnx_to_numpy_type(self._dtype))
        name: str = self._graph.make_const(utils.make_name("constant"), array).output[0]
        return name


_OF_CONSTANTS = (
    "rewriter_lstm_tf2",
    "rewrite_gru_tf2",
    "rewrite_single_direction_lstm",
    "rewrite_bi_direction_lstm",
    "rewrite_single_direction_gru",
    "rewrite_bi_direction_gru",
)
"""Passes of tf2onnx that make LSTM and GRU of loops with constant weights. Here weights vary, and loops stay."""


@cache
def register() -> None:
    """Make the handlers known to tf2onnx, once in a process. Those that it has of its own stay."""
    from tf2onnx import tfonnx
    from tf2onnx.handler import tf_op

    for rewriter in _OF_CONSTANTS:
        setattr(tfonnx, rewriter, _unchanged)
    for mend in (_mend_bfloat16, _mend_select, _mend_bias, _mend_division, _mend_comparison):
        mend()
    for mend in (_mend_top_k, _mend_resizing):
        mend()
    for operator, handler in _HANDLERS.items():
        tf_op(operator)(_class_of(handler))


def _mend_bfloat16() -> None:
    """The type of graphs that compute in float32 and round to it (`bfloat16`): tf2onnx takes it for float16."""
    import ml_dtypes
    from tf2onnx import tf_utils, utils

    tf_utils.TF_TO_ONNX_DTYPE[_BFLOAT16_OF_TENSORFLOW] = _BFLOAT16
    utils.ONNX_TO_NUMPY_DTYPE[_BFLOAT16] = ml_dtypes.bfloat16


def _mend_select() -> None:
    """A choice between floats: tf2onnx adds both, times 0 and 1, which NaN and infinity do not survive."""
    from tf2onnx.onnx_opset.controlflow import Select

    added = Select.version_7

    def chosen(cls: Any, context: Any, node: Any, /, **more: Any) -> None:
        if context.get_dtype(node.output[0]) not in _FLOATS:
            added(context, node, **more)
            return
        node.set_attr("handles_nan", True)
        cls.version_9(context, node, **more)
        del node.attr["handles_nan"]

    Select.version_7 = classmethod(chosen)


def _mend_bias() -> None:
    """A bias of channels that are first: tf2onnx adds one that is a weight to the last axis."""
    from tf2onnx import utils
    from tf2onnx.handler import tf_op
    from tf2onnx.onnx_opset.nn import BiasAdd

    def biased(_: Any, context: Any, node: Any, /, **more: Any) -> None:
        rank = context.get_rank(node.input[0])
        if node.type == "BiasAdd" and node.data_format.startswith("NC") and rank is not None:
            shape = np.array([-1, *(1,) * (rank - 2)], np.int64)
            places = context.make_const(utils.make_name("channels"), shape).output[0]
            bias = context.make_node("Reshape", [node.input[1], places]).output[0]
            context.replace_input(node, node.input[1], bias, 1)
            node.type = "Add"
            return
        BiasAdd.version_7(context, node, **more)

    tf_op("BiasAdd")(type("Biased", (), {"version_7": classmethod(biased)}))


def _mend_division() -> None:
    """Quotient and remainder of integers: tf2onnx rounds towards zero."""
    from tf2onnx.handler import tf_op
    from tf2onnx.onnx_opset.math import FloorDiv, FloorMod

    def quotient(_: Any, context: Any, node: Any, /, **more: Any) -> None:
        if context.get_dtype(node.input[0]) not in _FLOATS:
            rest = context.make_node("Mod", list(node.input)).output[0]
            whole = context.make_node("Sub", [node.input[0], rest]).output[0]
            context.replace_input(node, node.input[0], whole, 0)
        FloorDiv.version_6(context, node, **more)

    def modulo(_: Any, context: Any, node: Any, /, **more: Any) -> None:
        if context.get_dtype(node.input[0]) in _FLOATS:
            FloorMod.version_7(context, node, **more)
            return
        node.type = "Mod"

    tf_op("FloorDiv")(type("FloorDiv", (), {"version_10": classmethod(quotient)}))
    tf_op("FloorMod")(type("FloorMod", (), {"version_10": classmethod(modulo)}))


def _mend_comparison() -> None:
    """What is greater or less: tf2onnx compares as float32, which does not tell all integers apart."""
    from tf2onnx.handler import tf_op
    from tf2onnx.onnx_opset.logical import GreaterLess

    def compared(_: Any, context: Any, node: Any, /, **more: Any) -> None:
        dtype = context.get_dtype(node.input[0])
        if dtype not in (_INT32, _INT64):
            GreaterLess.version_7(context, node, **more)
        for place, value in enumerate(node.input if dtype == _INT32 else ()):  # a loop's counter is of int64 later
            wide = context.make_node("Cast", [value], attr={"to": _INT64}).output[0]
            context.replace_input(node, value, wide, place)

    for operator in ("Greater", "Less"):
        tf_op(operator)(type(operator, (), {"version_9": classmethod(compared)}))


def _mend_top_k() -> None:
    """The largest: tf2onnx compares as float32, which does not tell all integers and doubles apart."""
    from tf2onnx.handler import tf_op
    from tf2onnx.onnx_opset.tensor import TopKV2

    def largest(_: Any, context: Any, node: Any, /, **more: Any) -> None:
        if context.get_dtype(node.input[0]) not in (_INT32, _INT64, _DOUBLE):
            TopKV2.version_13(context, node, **more)
            return
        index_type = context.get_dtype(node.output[1])
        count = context.make_node("Cast", [node.input[1]], attr={"to": _INT64}).output[0]
        one = context.make_const(f"{node.name}/one", np.array([1], np.int64)).output[0]
        context.replace_input(node, node.input[1], context.make_node("Reshape", [count, one]).output[0], 1)
        cast = context.insert_new_node_on_output("Cast", node.output[1], name=f"{node.name}/cast", to=index_type)
        context.set_dtype(cast.output[0], index_type)
        context.copy_shape(node.output[1], cast.output[0])
        context.set_dtype(node.output[1], _INT64)

    tf_op("TopKV2", onnx_op="TopK")(type("TopKV2", (), {"version_13": classmethod(largest)}))


def _mend_resizing() -> None:
    """Images of other types, which TensorFlow makes float32: tf2onnx leaves them as they are."""
    from tf2onnx.handler import tf_op
    from tf2onnx.onnx_opset.nn import CropAndResize, Resize

    for operator, resize in (
        ("ResizeBilinear", Resize.version_11),
        ("ResizeBicubic", Resize.version_11),
        ("CropAndResize", CropAndResize.version_13),
    ):

        def resized(_: Any, context: Any, node: Any, /, resize: Handler = resize, **more: Any) -> None:
            if context.get_dtype(node.input[0]) != _FLOAT:
                shape = context.get_shape(node.input[0])
                cast = context.make_node("Cast", [node.input[0]], attr={"to": _FLOAT}, shapes=[shape], dtypes=[_FLOAT])
                context.replace_input(node, node.input[0], cast.output[0], 0)
            resize(context, node, **more)

        tf_op(operator)(type(operator, (), {"version_13": classmethod(resized)}))


def _unchanged(graph: Any, nodes: Any) -> Any:
    return nodes


def _class_of(handler: Handler) -> type:
    """Return a class as tf2onnx wants one, with a method for opset 9, the first that has Where and Erf."""

    def version_9(cls: Any, context: Any, node: Any, /, **_: Any) -> None:
        inputs, outputs = list(node.input), list(node.output)
        shapes, dtypes = [context.get_shape(each) for each in outputs], [context.get_dtype(each) for each in outputs]
        builder = _Builder(context, node)
        context.remove_node(node.name)
        result = handler(builder, *inputs)
        context.make_node("Identity", [result], outputs=outputs, shapes=shapes, dtypes=dtypes)

    return type(handler.__name__, (), {"version_9": classmethod(version_9)})

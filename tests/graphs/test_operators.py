"""Single operators against onnxruntime, in a tf.function: with the shapes known while it is built, and unknown."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import onnx
import onnx.reference
import onnx_ir
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from converter.errors import GraphError
from converter.graphs.lower.tensorflow.core import lower
from converter.graphs.lower.tensorflow.registry import Registry, registry

INT64_MAX, INT64_MIN = np.iinfo(np.int64).max, np.iinfo(np.int64).min


def ints(*values: int) -> Any:
    return np.array(values, np.int64)


def floats(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@dataclass(frozen=True, kw_only=True)
class Case:
    """A node: its inputs, those of them that are initializers (the rest are graph inputs), and its attributes."""

    name: str
    op_type: str
    inputs: tuple[Any, ...]
    constant: tuple[int, ...] = ()
    attributes: dict[str, Any] = field(default_factory=dict)
    opset: int = 20
    output_count: int = 1
    needs_extents: bool = False


def case(name: str, op_type: str, *inputs: Any, constant: tuple[int, ...] = (), opset: int = 20, **how: Any) -> Case:
    count, needs_extents = how.pop("output_count", 1), how.pop("needs_extents", False)
    return Case(
        name=name,
        op_type=op_type,
        inputs=inputs,
        constant=constant,
        attributes=how,
        opset=opset,
        output_count=count,
        needs_extents=needs_extents,
    )


_X = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
_IMAGE = floats(2, 4, 7, 6)

CASES = [
    case("backwards", "Slice", _X, ints(-1), ints(INT64_MIN), ints(2), ints(-1), constant=(1, 2, 3, 4)),
    case("backwards, every other", "Slice", _X, ints(3, 2), ints(-5, 0), ints(-1, 1), ints(-2, -1), constant=(3, 4)),
    case("to the largest integer", "Slice", _X, ints(1), ints(INT64_MAX), ints(1), ints(1), constant=(1, 2, 3, 4)),
    case("beyond the end", "Slice", _X, ints(-100, 1), ints(100, 2), constant=(1, 2)),
    case("bounds at run time", "Slice", _X, ints(-2), ints(INT64_MAX), ints(1), constant=(3,)),
    case("empty", "Slice", _X, ints(2), ints(1), ints(0), constant=(1, 2, 3)),
    case("by attributes", "Slice", _X, opset=9, starts=[1], ends=[-1], axes=[2]),
    case("negative indices", "Gather", _X, ints(-1, 0, -3), axis=1),
    case("negative constant indices", "Gather", _X, ints(-1, 0), constant=(1,), axis=-1),
    case("scalar index", "Gather", _X, np.array(1, np.int64), constant=(1,), axis=2),
    case("index tuples", "GatherND", _X, np.array([[0, 1], [-1, -1]], np.int64), needs_extents=True),
    case("batched index tuples", "GatherND", _X, np.array([[1], [-2]], np.int64), batch_dims=1, needs_extents=True),
    case("negative element indices", "GatherElements", _X, np.array([[[-1, 0, 1, -2]]] * 2, np.int64), axis=1),
    case("scatter", "ScatterElements", _X, np.array([[[0], [-1], [2]]] * 2, np.int64), floats(2, 3, 1), axis=2),
    case("scatter and add", "ScatterElements", floats(3, 3), ints(1, 1).reshape(1, 2), floats(1, 2), reduction="add"),
    case("scatter tuples", "ScatterND", _X, np.array([[0, -1], [1, 0]], np.int64), floats(2, 4), needs_extents=True),
    case("copy and infer", "Reshape", _X, ints(0, -1), constant=(1,)),
    case("copy at run time", "Reshape", _X, ints(0, 0, 2, -1), needs_extents=True),
    case("no copying", "Reshape", np.zeros((0, 3), np.float32), ints(3, 0), constant=(1,), allowzero=1),
    case("both ways", "Expand", floats(3, 1), ints(2, 1, 4), constant=(1,)),
    case("both ways at run time", "Expand", floats(3, 1), ints(2, 1, 4)),
    case("booleans", "Expand", np.array([[True], [False]]), ints(1, 3)),
    case("towards zero", "Div", ints(7, -7, 7, -7), ints(2, 2, -2, -2)),
    case("of floats", "Div", floats(4), floats(4, seed=1)),
    case("sign of the divisor", "Mod", ints(7, -7, 7, -7), ints(3, 3, -3, -3)),
    case("sign of the dividend", "Mod", ints(7, -7, 7, -7), ints(3, 3, -3, -3), fmod=1),
    case("base decides the type", "Pow", floats(2, 3) ** 2, ints(3), constant=(1,)),
    case("float to integer", "Cast", np.array([1.9, -1.9, 0.0], np.float32), to=TensorProto.INT64),
    case("float to boolean", "Cast", np.array([0.5, 0.0, -2.0, np.nan], np.float32), to=TensorProto.BOOL),
    case("boolean to float", "Cast", np.array([True, False]), to=TensorProto.FLOAT),
    case("to the other's type", "CastLike", ints(1, 2), floats(1)),
    case("three ways", "Where", np.array([[True], [False]]), floats(1, 3), floats(2, 1)),
    case("three maxima", "Max", floats(3), floats(2, 3, seed=1), floats(1, seed=2)),
    case("lower bound alone", "Clip", floats(5), np.array(0, np.float32), constant=(1,)),
    case("forwards", "CumSum", _X, np.array(1, np.int64), constant=(1,)),
    case("exclusive from the end", "CumSum", ints(1, 2, 3), np.array(-1, np.int64), exclusive=1, reverse=1),
    case("delta below zero", "Range", np.array(5, np.int64), np.array(-1, np.int64), np.array(-2, np.int64)),
    case("part of a shape", "Shape", _X, start=-2, end=100),
    case("values at a shape", "ConstantOfShape", ints(2, 3), value=numpy_helper.from_array(ints(7))),
    case("negative axes", "Unsqueeze", _X, ints(-1, 0), constant=(1,)),
    case("one axis", "Squeeze", floats(2, 1, 3), ints(-2), constant=(1,)),
    case("permutation", "Transpose", _X, perm=[2, 0, 1]),
    case("reversal", "Transpose", _X),
    case("unequal parts", "Split", floats(7, 2), axis=0, num_outputs=3, output_count=3, needs_extents=True),
    case("parts given", "Split", floats(2, 5), ints(1, 4), constant=(1,), axis=-1, output_count=2),
    case("vectors", "MatMul", floats(4), floats(4, seed=1)),
    case("vector and batch", "MatMul", floats(3), floats(2, 3, 4, seed=1)),
    case("batch and matrix", "MatMul", floats(2, 5, 3), floats(3, 4, seed=1)),
    case("batches broadcast", "MatMul", floats(2, 1, 5, 3), floats(4, 3, 2, seed=1)),
    case("all of it", "Gemm", floats(3, 2), floats(4, 3), floats(4), transA=1, transB=1, alpha=0.5, beta=2.0),
    case("contraction", "Einsum", floats(2, 3), floats(3, 4), equation="ij, jk -> ki"),
    case("all axes", "ReduceSum", _X, keepdims=0),
    case("no axes, nothing done", "ReduceSum", _X, ints(), constant=(1,), noop_with_empty_axes=1),
    case("some axes", "ReduceMean", _X, ints(0, -1), constant=(1,), keepdims=0),
    case("axes by attribute", "ReduceMean", _X, opset=13, axes=[1], keepdims=1),
    case("axes at run time", "ReduceMax", _X, ints(1), keepdims=1),
    case("euclidean", "ReduceL2", _X, ints(2), constant=(1,)),
    case("last of equals", "ArgMax", np.array([[1, 3, 3]], np.float32), axis=1, select_last_index=1),
    case("of a middle axis", "Softmax", floats(2, 3, 4), axis=1),
    case("of a matrix", "Softmax", floats(2, 3, 4), opset=11, axis=1),
    case("two axes", "LayerNormalization", floats(2, 3, 4), floats(3, 4), floats(3, 4, seed=1), axis=1),
    case("no bias", "LayerNormalization", floats(2, 3, 4), floats(4), epsilon=1e-2),
    case("channels", "BatchNormalization", _IMAGE, floats(4), floats(4), floats(4), floats(4) ** 2 + 1),
    case(
        "running statistics",
        "BatchNormalization",
        _IMAGE,
        floats(4),
        floats(4),
        floats(4),
        floats(4) ** 2 + 1,
        training_mode=1,
        momentum=0.7,
        output_count=3,
    ),
    case("exact", "Gelu", floats(20)),
    case("by tanh", "Gelu", floats(20), approximate="tanh"),
    case("below the diagonal", "Trilu", floats(2, 4, 5), np.array(-1, np.int64), constant=(1,), upper=0),
    case("smallest", "TopK", floats(3, 6), ints(2), constant=(1,), largest=0, axis=0, output_count=2),
    case("negative indices", "OneHot", ints(1, -1, 9), ints(4), np.array([2, 5], np.float32), constant=(1,), axis=0),
    case("negative amounts", "Pad", _X, ints(0, -1, 1, 0, 2, -1), np.array(9, np.float32), constant=(1,)),
    case("edge", "Pad", _X, ints(1, 0, 2, 0, 1, 1), constant=(1,), mode="edge"),
    case("reflection", "Pad", _X, ints(0, 1, 2, 0, 1, 1), constant=(1,), mode="reflect"),
    case(
        "groups",
        "Conv",
        _IMAGE,
        floats(6, 2, 3, 2),
        floats(6),
        constant=(1,),
        group=2,
        strides=[2, 1],
        pads=[1, 0, 2, 1],
    ),
    case("one place, strides", "Conv", floats(2, 3, 5, 6), floats(4, 3, 1, 1), constant=(1,), strides=[2, 3]),
    case("by channel", "Conv", _IMAGE, floats(8, 1, 3, 2), floats(8), constant=(1,), group=4, pads=[1, 0, 2, 1]),
    case("by channel, strides", "Conv", _IMAGE, floats(4, 1, 2, 2), constant=(1,), group=4, strides=[2, 2]),
    case("by channel, a line", "Conv", floats(2, 3, 9), floats(6, 1, 4), constant=(1,), group=3, strides=[2]),
    case("by channel, dilated", "Conv", floats(2, 3, 9), floats(3, 1, 3), constant=(1,), group=3, dilations=[2]),
    case("dilated", "Conv", floats(1, 3, 9), floats(2, 3, 3), dilations=[2], pads=[2, 1], constant=(1,)),
    case("same", "Conv", floats(1, 3, 9), floats(2, 3, 4), auto_pad="SAME_LOWER", strides=[2], needs_extents=True),
    case("asymmetric", "ConvTranspose", _IMAGE, floats(4, 3, 3, 2), constant=(1,), strides=[2, 2], pads=[1, 0, 0, 1]),
    case(
        "rounded up",
        "MaxPool",
        _IMAGE,
        kernel_shape=[3, 2],
        strides=[2, 2],
        pads=[1, 0, 0, 1],
        ceil_mode=1,
        needs_extents=True,
    ),
    case("padding not counted", "AveragePool", _IMAGE, kernel_shape=[3, 2], pads=[1, 1, 1, 0]),
    case("padding counted", "AveragePool", _IMAGE, kernel_shape=[3, 2], pads=[1, 1, 1, 0], count_include_pad=1),
    case("column, row, depth", "DepthToSpace", _IMAGE, blocksize=2, mode="CRD"),
    case("depth first", "DepthToSpace", _IMAGE, blocksize=2),
    case("blocks", "SpaceToDepth", floats(1, 2, 4, 6), blocksize=2),
    case("axes at run time", "Slice", _X, ints(-1, 0), ints(INT64_MIN, 3), ints(2, 0), ints(-2, 1)),
    case("axes at run time", "Squeeze", floats(2, 1, 3, 1), ints(1, -1), needs_extents=True),
    case("axes at run time", "Unsqueeze", _X, ints(-1, 0), needs_extents=True),
    case("axes at run time, dropped", "ReduceSum", _X, ints(-1, 0), keepdims=0, needs_extents=True),
    case("amounts at run time", "Pad", _X, ints(0, -1, 1, 0, 2, -1), np.array(9, np.float32)),
    case("wrapped round", "Pad", _X, ints(0, 1, 2, 0, 1, 1), constant=(1,), mode="wrap"),
    case(
        "products", "ScatterElements", floats(3, 3), ints(1, 1, 0).reshape(1, 3), floats(1, 3, seed=1), reduction="mul"
    ),
    case("grouped", "ConvTranspose", _IMAGE, floats(4, 3, 3, 2), constant=(1,), group=2, strides=[2, 1]),
    case("dilated", "ConvTranspose", floats(1, 2, 5), floats(2, 3, 3), constant=(1,), dilations=[2], strides=[3]),
    case("of volumes", "ConvTranspose", floats(1, 2, 3, 4, 3), floats(2, 3, 2, 2, 2), constant=(1,), strides=[2, 1, 2]),
    case("same", "ConvTranspose", _IMAGE, floats(4, 3, 3, 3), constant=(1,), auto_pad="SAME_UPPER", strides=[2, 2]),
    case("same, extents unknown", "Conv", floats(1, 3, 9), floats(2, 3, 4), constant=(1,), auto_pad="SAME_UPPER"),
    case("dilated and strided", "MaxPool", _IMAGE, kernel_shape=[2, 2], dilations=[2, 1], strides=[2, 2]),
    case("positions", "MaxPool", _IMAGE, kernel_shape=[3, 2], pads=[1, 0, 0, 1], strides=[2, 1], output_count=2),
    case("rounded up", "AveragePool", _IMAGE, kernel_shape=[3, 2], strides=[2, 2], ceil_mode=1, pads=[1, 0, 0, 1]),
    case("dilated", "AveragePool", _IMAGE, kernel_shape=[2, 2], dilations=[2, 1]),
    case("norms", "LpPool", _IMAGE, kernel_shape=[3, 2], p=3, strides=[2, 1]),
    case("blocks overlap", "Col2Im", floats(2, 12, 6), ints(4, 3), ints(2, 2), constant=(1, 2)),
    case(
        "halves",
        "RotaryEmbedding",
        floats(2, 3, 5, 8),
        floats(2, 5, 4),
        floats(2, 5, 4, seed=1),
        opset=23,
        needs_extents=True,
    ),
    case("epsilon", "RMSNormalization", floats(2, 3, 4), floats(4), opset=23, epsilon=1e-2),
    case("once each", "Unique", ints(3, 1, 3, 2), output_count=4),
    case("one true", "Compress", _X, np.array([False, True]), axis=1),
    case("per column", "QuantizeLinear", floats(2, 3), floats(3) ** 2 + 1, np.uint8([1, 2, 3]), constant=(1, 2)),
    case("per row", "DequantizeLinear", np.int8([[-3], [5]]), floats(2) ** 2 + 1, constant=(1,), axis=0),
    case("integers", "MatMulInteger", np.uint8([[1, 250], [3, 4]]), np.int8([[1], [-7]]), np.array(12, np.uint8)),
    case("half of it", "DFT", floats(2, 9, 1), opset=17, axis=1, onesided=1, needs_extents=True),
    case(
        "frames",
        "STFT",
        floats(2, 20, 1),
        np.array(3, np.int64),
        floats(8),
        np.array(8, np.int64),
        constant=(1, 3),
        needs_extents=True,
    ),
    case("of three classes", "SoftmaxCrossEntropyLoss", floats(4, 3), ints(2, 0, 1, 1), floats(3) ** 2, output_count=2),
]
IN_TENSORFLOW_ALONE = [
    case(
        "pairs after single words",
        "TfIdfVectorizer",
        ints(2, 3, 5, 4, 2),
        mode="TF",
        min_gram_length=1,
        max_gram_length=2,
        max_skip_count=0,
        ngram_counts=[0, 3],
        ngram_indexes=[0, 1, 2, 3, 4],
        pool_int64s=[2, 3, 5, 5, 4, 3, 5],
    ),
]


def _layers(name: str, gates: int, **how: Any) -> list[Case]:
    """A layer of four units over three steps of a batch of two, one way and both ways, sequences of unequal length."""
    x, lengths = floats(3, 2, 5), np.int32([3, 2])
    return [
        case(
            f"{direction}, {'some shorter' if is_shorter else 'all long'}",
            name,
            x,
            floats(count, gates * 4, 5, seed=1),
            floats(count, gates * 4, 4, seed=2),
            floats(count, gates * 8, seed=3),
            *([lengths] if is_shorter else []),
            constant=(1, 2, 3),
            hidden_size=4,
            direction=direction,
            **how,
        )
        for direction, count in (("forward", 1), ("reverse", 1), ("bidirectional", 2))
        for is_shorter in (False, True)
    ]


CASES += [*_layers("RNN", 1, output_count=2), *_layers("GRU", 3, output_count=2), *_layers("LSTM", 4, output_count=3)]
CASES += _layers("GRU", 3, output_count=2, linear_before_reset=1, clip=0.5)[:1]


def _resize(name: str, *, sizes: bool = False, **how: Any) -> Case:
    scales, target = np.float32([1, 1, 1.6, 0.7]), ints(2, 4, 11, 4)
    given = (np.float32([]), target) if sizes else (scales,)
    return case(name, "Resize", _IMAGE, np.float32([]), *given, constant=(1, 2, 3)[: len(given) + 1], opset=19, **how)


CASES += [
    _resize(f"{mode}, {coordinates}, {'to sizes' if sizes else 'by scales'}", sizes=sizes, mode=mode, **how)
    for mode, coordinates in (
        ("nearest", "half_pixel"),
        ("nearest", "asymmetric"),
        ("linear", "half_pixel"),
        ("linear", "pytorch_half_pixel"),
        ("cubic", "half_pixel"),
    )
    for sizes in (False, True)
    for how in ({"coordinate_transformation_mode": coordinates},)
]
CASES += [
    _resize("linear, corners aligned", sizes=True, mode="linear", coordinate_transformation_mode="align_corners"),
    _resize("linear, antialiased", sizes=True, mode="linear", antialias=1),
    _resize("cubic, antialiased", sizes=True, mode="cubic", antialias=1, exclude_outside=1),
]
_GRID = np.tanh(floats(2, 3, 5, 2)) * 1.3
CASES += [
    case(
        f"{mode}, {padding}, {aligned}",
        "GridSample",
        _IMAGE,
        _GRID,
        mode=mode,
        padding_mode=padding,
        align_corners=aligned,
    )
    for mode in ("linear", "nearest", "cubic")
    for padding in ("zeros", "border", "reflection")
    for aligned in (0, 1)
]

_ELEMENTWISE = (
    *("Abs", "Ceil", "Cos", "Erf", "Exp", "Floor", "Identity", "IsNaN", "Neg", "Reciprocal", "Relu", "Round"),
    *("Sigmoid", "Sign", "Sin", "Softplus", "Softsign", "Tan", "Tanh", "Elu", "Selu", "LeakyRelu", "HardSigmoid"),
    *("HardSwish", "Mish", "ThresholdedRelu", "Atan", "Sinh", "Celu"),
)
CASES += [case("values", op_type, np.array([-2.5, -1, -0.5, 0.5, 1.5, 3], np.float32)) for op_type in _ELEMENTWISE]


def _model(case: Case) -> Any:
    names = [f"input_{position}" for position in range(len(case.inputs))]
    dynamic, constant = [], []
    for position, (name, array) in enumerate(zip(names, case.inputs, strict=True)):
        if position in case.constant:
            constant.append(numpy_helper.from_array(array, name))
        else:
            shape = [f"{name}_{axis}" for axis in range(array.ndim)]
            dynamic.append(helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), shape))
    outputs = [f"output_{position}" for position in range(case.output_count)]
    node = helper.make_node(case.op_type, names, outputs, name="the_node", **case.attributes)
    values = [onnx.ValueInfoProto(name=name) for name in outputs]
    graph = helper.make_graph([node], "graph", dynamic, values, constant)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", case.opset)], ir_version=9)
    return onnx.shape_inference.infer_shapes(model)


@pytest.mark.parametrize("is_known", [True, False], ids=["known", "unknown"])
@pytest.mark.parametrize("case", [*CASES, *IN_TENSORFLOW_ALONE], ids=lambda each: f"{each.op_type}: {each.name}")
def test_operator(case: Case, is_known: bool) -> None:
    import tensorflow as tf

    model = _model(case)
    feeds = {f"input_{i}": each for i, each in enumerate(case.inputs) if i not in case.constant}
    expected = onnxruntime.InferenceSession(model.SerializeToString()).run(None, feeds)

    run = lower(onnx_ir.from_proto(model), {})
    specifications = {
        name: tf.TensorSpec(array.shape if is_known or case.needs_extents else [None] * array.ndim, array.dtype)
        for name, array in feeds.items()
    }
    function = tf.function(lambda **tensors: run(**tensors), autograph=False).get_concrete_function(**specifications)
    found = function(**{name: tf.constant(array) for name, array in feeds.items()})

    for position, wanted in enumerate(expected):
        value = found[f"output_{position}"].numpy()
        assert value.dtype == wanted.dtype
        assert value.shape == wanted.shape
        np.testing.assert_allclose(value, wanted, rtol=1e-5, atol=1e-5)


def test_no_convolution_of_one_place_has_strides() -> None:
    """Their gradient writes beyond its memory in TensorFlow 2.21: see the lowering."""
    import tensorflow as tf

    case = next(each for each in CASES if each.name == "one place, strides")
    run = lower(onnx_ir.from_proto(_model(case)), {})
    function = tf.function(lambda x: run(input_0=x), autograph=False).get_concrete_function(tf.TensorSpec([2, 3, 5, 6]))
    (convolution,) = (each for each in function.graph.get_operations() if each.type == "Conv2D")
    assert list(convolution.get_attr("strides")) == [1, 1, 1, 1]


@pytest.mark.parametrize("is_node", [False, True])
def test_a_large_array_that_several_nodes_choose_from_is_held_once(is_node: bool) -> None:
    import tensorflow as tf

    table = numpy_helper.from_array(np.arange(1 << 14, dtype=np.int64), "table")
    nodes = [helper.make_node("Constant", [], ["table"], value=table)] if is_node else []
    names = ["place", "first", "second", "third"]
    nodes += [helper.make_node("Gather", ["table", name], [after]) for name, after in pairwise(names)]
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("place", TensorProto.INT64, ["n"])],
        [helper.make_tensor_value_info("third", TensorProto.INT64, ["n"])],
        [] if is_node else [table],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    run = lower(onnx_ir.from_proto(model), {})
    specification = tf.TensorSpec([None], tf.int64)
    function = tf.function(lambda place: run(place=place), autograph=False).get_concrete_function(specification)
    assert function(tf.constant([5, 7], tf.int64))["third"].numpy().tolist() == [5, 7]
    constants = [each for each in function.graph.get_operations() if each.type == "Const"]
    assert [each.outputs[0].shape for each in constants if each.outputs[0].shape.num_elements() > 99] == [[1 << 14]]


def test_sequences_are_taken_apart() -> None:
    import tensorflow as tf

    nodes = [
        helper.make_node("SplitToSequence", ["x", "sizes"], ["parts"], axis=1),
        helper.make_node("SequenceAt", ["parts", "second"], ["y"]),
    ]
    constants = [numpy_helper.from_array(ints(1, 2), "sizes"), numpy_helper.from_array(np.array(-1), "second")]
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    x = floats(4, 3)
    np.testing.assert_array_equal(lower(onnx_ir.from_proto(model), {})(x=tf.constant(x))["y"], x[:, 1:])


def _branches(*, is_known: bool) -> Any:
    """y = x * w where x sums to more than zero, else y = x + w: the branches read values around them."""
    float_x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 2])
    bodies = {
        f"{name}_branch": helper.make_graph(
            [helper.make_node(op_type, ["x", "w"], [f"{name}_y"])],
            name,
            [],
            [helper.make_tensor_value_info(f"{name}_y", TensorProto.FLOAT, ["n", 2])],
        )
        for name, op_type in (("then", "Mul"), ("else", "Add"))
    }
    nodes = [
        helper.make_node("ReduceSum", ["x"], ["sum"], keepdims=0),
        helper.make_node("Greater", ["known" if is_known else "sum", "zero"], ["condition"]),
        helper.make_node("If", ["condition"], ["y"], **bodies),
    ]
    constants = [numpy_helper.from_array(np.float32(value), name) for name, value in (("zero", 0), ("known", -1))]
    graph = helper.make_graph(
        nodes,
        "graph",
        [float_x, helper.make_tensor_value_info("w", TensorProto.FLOAT, [2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2])],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


def _rounds(*, trip_count: int | None) -> Any:
    """y = w * w * ... * x, once for each round, all of them stacked; the count is an input when not given."""
    nodes = (("Mul", ["before", "w"], "after"), ("Identity", ["keep"], "kept"), ("Identity", ["after"], "scanned"))
    body = helper.make_graph(
        [helper.make_node(op_type, inputs, [output]) for op_type, inputs, output in nodes],
        "body",
        [
            helper.make_tensor_value_info("step", TensorProto.INT64, []),
            helper.make_tensor_value_info("keep", TensorProto.BOOL, []),
            helper.make_tensor_value_info("before", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("kept", TensorProto.BOOL, []),
            helper.make_tensor_value_info("after", TensorProto.FLOAT, None),
            helper.make_tensor_value_info("scanned", TensorProto.FLOAT, None),
        ],
    )
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 2]) for name in ("x", "w")]
    if trip_count is None:
        inputs.append(helper.make_tensor_value_info("count", TensorProto.INT64, []))
    constants = [] if trip_count is None else [numpy_helper.from_array(np.array(trip_count), "count")]
    graph = helper.make_graph(
        [helper.make_node("Loop", ["count", "", "x"], ["y", "all"], body=body)],
        "graph",
        inputs,
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("y", "all")],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


def _lowered(model: Any) -> Any:
    """The graph as a function of any batch."""
    import tensorflow as tf

    run = lower(onnx_ir.from_proto(model), {})
    specifications = {
        value.name: tf.TensorSpec(
            [each.dim_value or None for each in value.type.tensor_type.shape.dim],
            tf.as_dtype(helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)),
        )
        for value in model.graph.input
    }
    return tf.function(lambda **tensors: run(**tensors), autograph=False).get_concrete_function(**specifications)


@pytest.mark.parametrize("is_known", [True, False])
@pytest.mark.parametrize("sign", [1, -1])
def test_one_of_two_branches_is_taken_and_gradients_flow(is_known: bool, sign: int) -> None:
    import tensorflow as tf

    model = _branches(is_known=is_known)
    feeds = {"x": sign * np.abs(floats(3, 2)), "w": floats(2, seed=1)}
    (expected,) = onnxruntime.InferenceSession(model.SerializeToString()).run(None, feeds)
    tensors = {name: tf.constant(value) for name, value in feeds.items()}
    with tf.GradientTape() as tape:
        tape.watch(tensors["w"])
        y = _lowered(model)(**tensors)["y"]
    np.testing.assert_allclose(y, expected, rtol=1e-6)
    multiplies = sign == 1 and not is_known
    wanted = feeds["x"].sum(0) if multiplies else np.float32([3, 3])
    np.testing.assert_allclose(tape.gradient(y, tensors["w"]), wanted, rtol=1e-5)


@pytest.mark.parametrize("trip_count", [None, 3, 40])
def test_a_loop_gives_its_last_state_and_every_round_and_gradients_flow(trip_count: int | None) -> None:
    import tensorflow as tf

    model = _rounds(trip_count=trip_count)
    feeds = {"x": floats(3, 2), "w": np.tanh(floats(3, 2, seed=1))}
    if trip_count is None:
        feeds["count"] = np.array(5, np.int64)
    expected = onnxruntime.InferenceSession(model.SerializeToString()).run(None, feeds)
    tensors = {name: tf.constant(value) for name, value in feeds.items()}
    with tf.GradientTape() as tape:
        tape.watch(tensors["w"])
        found = _lowered(model)(**tensors)
    np.testing.assert_allclose(found["y"], expected[0], rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(found["all"], expected[1], rtol=1e-5, atol=1e-7)
    count = 5 if trip_count is None else trip_count
    wanted = count * feeds["x"] * feeds["w"] ** (count - 1)
    np.testing.assert_allclose(tape.gradient(found["y"], tensors["w"]), wanted, rtol=1e-4, atol=1e-7)


def test_attention_over_grouped_heads_with_a_past_of_any_length() -> None:
    import tensorflow as tf

    shapes = {
        "q": ["n", 4, "s", 8],
        "k": ["n", 2, "s", 8],
        "v": ["n", 2, "s", 8],
        "mask": ["s", "t"],
        "past_k": ["n", 2, "p", 8],
        "past_v": ["n", 2, "p", 8],
    }
    node = helper.make_node("Attention", [*shapes], ["y", "present_k", "present_v"], is_causal=1, softcap=2.0)
    graph = helper.make_graph(
        [node],
        "graph",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in node.output],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=11)
    run = _lowered(model)
    reference = onnx.reference.ReferenceEvaluator(model)
    for sizes in ({"n": 1, "s": 3, "p": 2, "t": 5}, {"n": 2, "s": 1, "p": 4, "t": 5}):
        feeds = {name: floats(*(sizes.get(each, each) for each in shape)) for name, shape in shapes.items()}
        found = run(**{name: tf.constant(value) for name, value in feeds.items()})
        for name, wanted in zip(node.output, reference.run(None, feeds), strict=True):
            np.testing.assert_allclose(found[name], wanted, rtol=1e-4, atol=1e-5)


def test_random_numbers_are_new_at_every_call() -> None:
    node = helper.make_node("RandomNormal", [], ["y"], shape=[4])
    graph = helper.make_graph([node], "graph", [], [helper.make_tensor_value_info("y", TensorProto.FLOAT, [4])])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    run = _lowered(model)
    assert np.any(run()["y"].numpy() != run()["y"].numpy())


def test_a_models_own_function_is_lowered_by_its_body() -> None:
    import tensorflow as tf

    body = [helper.make_node("Mul", ["a", "a"], ["square"]), helper.make_node("Add", ["square", "a"], ["b"])]
    own = helper.make_function("own", "SquareAndAdd", ["a"], ["b"], body, [helper.make_opsetid("", 20)])
    nodes = [helper.make_node("SquareAndAdd", ["x"], ["h"], domain="own")]
    nodes.append(helper.make_node("SquareAndAdd", ["h"], ["y"], domain="own"))
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n"]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "graph", values[:1], values[1:])
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("own", 1)]
    model = helper.make_model(graph, functions=[own], opset_imports=opsets, ir_version=9)
    x = floats(3)
    (expected,) = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": x})
    np.testing.assert_allclose(_lowered(model)(x=tf.constant(x))["y"], expected, rtol=1e-6)


def _two_nodes(*op_types: str) -> Any:
    nodes = [
        helper.make_node(op_type, ["x" if position == 0 else f"v{position}"], [f"v{position + 1}"], f"node_{position}")
        for position, op_type in enumerate(op_types)
    ]
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n"])],
        [helper.make_tensor_value_info(f"v{len(op_types)}", TensorProto.FLOAT, ["n"])],
    )
    return onnx_ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)]))


def test_all_missing_operators_are_named_before_anything_is_built() -> None:
    lower(_two_nodes("Relu", "Tanh"), {})
    with pytest.raises(GraphError) as caught:
        lower(_two_nodes("NoSuchOp", "Relu", "NorThisOne"), {})
    for part in ("NoSuchOp", "NorThisOne", "node_0", "node_2", "opset 20", "'ai.onnx'", "2 node(s)"):
        assert part in str(caught.value)


def test_an_attribute_that_is_not_covered_is_refused() -> None:
    model = _two_nodes("Relu")
    lower(model, {})
    model.graph.node(0).attributes["novelty"] = onnx_ir.AttrInt64("novelty", 1)
    with pytest.raises(GraphError, match="novelty"):
        lower(model, {})


def test_a_failing_node_is_named() -> None:
    import tensorflow as tf

    run = lower(_two_nodes("Relu", "Tanh"), {})
    assert run(x=tf.zeros([2]))["v2"].shape == [2]
    with pytest.raises(GraphError, match=r"node_1 \(Tanh\)"):
        run(x=tf.zeros([2], tf.int32))


def test_other_inputs_than_the_graphs_are_refused() -> None:
    import tensorflow as tf

    with pytest.raises(GraphError, match="takes x"):
        lower(_two_nodes("Relu"), {})(y=tf.zeros([2]))


def test_an_operator_is_registered_once_per_version() -> None:
    table = Registry()
    table.add("Relu", lambda x: x, since=6)
    table.add("Relu", lambda x: x, since=14)
    with pytest.raises(ValueError, match="two lowerings since opset 14"):
        table.add("Relu", lambda x: x, since=14)


@pytest.mark.parametrize(("version", "since"), [(5, None), (6, 6), (13, 6), (14, 14), (25, 14)])
def test_the_newest_variant_of_an_opset_is_taken(version: int, since: int | None) -> None:
    table = Registry()
    table.add("Relu", lambda x: x, since=14)
    table.add("Relu", lambda x: x, since=6)
    for domain in ("", "ai.onnx"):
        found = table.find(domain, "Relu", version)
        assert (None if found is None else found.since) == since
    assert table.find("com.example", "Relu", version) is None


def test_every_registered_operator_exists_in_onnx() -> None:
    for operator in registry():
        version = onnx.defs.onnx_opset_version()
        schema = onnx.defs.get_schema(operator.op_type, max_inclusive_version=version, domain=operator.domain)
        keywords = {
            name
            for name, parameter in operator.signature.parameters.items()
            if parameter.kind is parameter.KEYWORD_ONLY and name not in ("output_count", "padding_row")
        }
        newest = registry().find(operator.domain, operator.op_type, version)
        if operator is newest:
            assert keywords <= set(schema.attributes), operator.op_type


def test_the_gradient_of_a_reduction_where_no_extent_is_known() -> None:
    import tensorflow as tf

    x = onnx_ir.val("x", dtype=onnx_ir.DataType.FLOAT, shape=["a", "b", "c"])
    axes = onnx_ir.node("Constant", [], {"value": onnx_ir.tensor(ints(-1, 0))})
    mean = onnx_ir.node("ReduceMean", [x, axes.outputs[0]], {"keepdims": 0})
    mean.outputs[0].name = "y"
    graph = onnx_ir.Graph([x], mean.outputs, nodes=[axes, mean], opset_imports={"": 20})
    run = lower(onnx_ir.Model(graph, ir_version=10), {})

    @tf.function(input_signature=[tf.TensorSpec([None, None, None])], autograph=False)
    def gradient(value: Any) -> Any:
        return tf.gradients(run(x=value)["y"], value)[0]

    np.testing.assert_allclose(gradient(tf.constant(_X)), np.full_like(_X, 1 / 8))

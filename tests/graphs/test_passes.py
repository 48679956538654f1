"""Passes over graphs: what they leave computes the same, and every parameter is there under its name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converter.errors import GraphError
from converter.graphs.passes.attach import attach
from converter.graphs.passes.cleaning import clean, constants_as_nodes
from converter.graphs.passes.kernels import kernels_of
from converter.graphs.passes.preparing import convert_opset

ir = pytest.importorskip("onnx_ir")
pytest.importorskip("onnxscript")

from onnx.reference import ReferenceEvaluator  # noqa: E402

WEIGHT = np.random.default_rng(2).normal(size=(4, 6)).astype(np.float32)
X = np.random.default_rng(3).normal(size=(5, 4)).astype(np.float32)


def parameter(name: str = "weight", array: Any = WEIGHT) -> Any:
    """A reference to a tensor of the checkpoint."""
    dtype = ir.DataType.from_numpy(array.dtype)
    tensor = ir.ExternalTensor("weights", None, None, dtype, shape=ir.Shape(array.shape), name=name)
    return ir.Value(name=name, shape=tensor.shape, type=ir.TensorType(dtype), const_value=tensor)


def constant(name: str, values: Any) -> Any:
    tensor = ir.tensor(np.asarray(values), name=name)
    return ir.Value(name=name, shape=tensor.shape, type=ir.TensorType(tensor.dtype), const_value=tensor)


def model(build: Callable[[Any, Any], list[Any]], *constants: Any, opset: int = 18) -> Any:
    """A model of x[n, 4] and the weight; `build` gives its nodes, the last one makes y."""
    x, weight = ir.val("x", ir.DataType.FLOAT, ["n", 4]), parameter()
    nodes = build(x, weight)
    y = nodes[-1].outputs[0]
    y.name, y.type = "y", ir.TensorType(ir.DataType.FLOAT)
    graph = ir.Graph([x], [y], nodes=nodes, initializers=[weight, *constants], opset_imports={"": opset}, name="g")
    return ir.Model(graph, ir_version=10)


def computed(made: Any, weights: dict[str, Any] | None = None, *, output: str = "y") -> Any:
    """What onnx's own evaluator makes of it, with the weights in place."""
    copy = ir.from_proto(ir.to_proto(made))
    for name, value in copy.graph.initializers.items():
        if isinstance(value.const_value, ir.ExternalTensor):
            value.const_value = ir.tensor((weights or {"weight": WEIGHT})[name], name=name)
    return ReferenceEvaluator(ir.to_proto(copy)).run([output], {"x": X})[0]


def op_types(made: Any) -> list[str]:
    return [node.op_type for node in made.graph.all_nodes() if node.op_type != "Constant"]


def test_identities_casts_and_dead_nodes_go() -> None:
    def build(x: Any, weight: Any) -> list[Any]:
        same = ir.node("Identity", [weight])
        cast = ir.node("CastLike", [x, weight])
        cast.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
        dead = ir.node("Exp", [x])
        return [same, cast, dead, ir.node("MatMul", [cast.outputs[0], same.outputs[0]])]

    made = model(build)
    expected = computed(made)
    clean(made)
    assert op_types(made) in (["MatMul"], ["Cast", "MatMul"])
    assert list(made.graph.initializers) == ["weight"]
    np.testing.assert_array_equal(computed(made), expected)


def test_what_is_made_of_a_parameter_stays() -> None:
    def build(x: Any, weight: Any) -> list[Any]:
        turned = ir.node("Transpose", [weight], {"perm": [1, 0]})
        back = ir.node("Transpose", turned.outputs, {"perm": [1, 0]})
        scaled = ir.node("Mul", [back.outputs[0], two])
        return [turned, back, scaled, ir.node("MatMul", [x, scaled.outputs[0]])]

    two = constant("two", np.float32(2))
    made = model(build, two)
    expected = computed(made)
    clean(made)
    assert isinstance(made.graph.initializers["weight"].const_value, ir.ExternalTensor)
    np.testing.assert_array_equal(computed(made), expected)


def test_a_parameter_whose_file_is_there_is_not_folded(tmp_path: Path) -> None:
    """Its bytes are the checkpoint's to write; the graph of another program has them beside it."""

    def build(x: Any, weight: Any) -> list[Any]:
        scaled = ir.node("Mul", [weight, two])
        return [scaled, ir.node("MatMul", [x, scaled.outputs[0]])]

    two = constant("two", np.float32(2))
    made = model(build, two)
    (tmp_path / "weights").write_bytes(WEIGHT.tobytes())
    made.graph.initializers["weight"].const_value = ir.ExternalTensor(
        "weights", 0, WEIGHT.nbytes, ir.DataType.FLOAT, shape=ir.Shape(WEIGHT.shape), name="weight", base_dir=tmp_path
    )
    clean(made)
    assert op_types(made) == ["Mul", "MatMul"]
    assert isinstance(made.graph.initializers["weight"].const_value, ir.ExternalTensor)


def test_shape_arithmetic_on_constants_is_done() -> None:
    def build(x: Any, weight: Any) -> list[Any]:
        total = ir.node("Add", [one, one])
        shape = ir.node("Concat", [minus, total.outputs[0]], {"axis": 0})
        return [total, shape, ir.node("Reshape", [x, shape.outputs[0]])]

    one, minus = constant("one", np.array([1])), constant("minus", np.array([-1]))
    made = model(build, one, minus)
    expected = computed(made)
    clean(made)
    assert op_types(made) == ["Reshape"]
    np.testing.assert_array_equal(computed(made), expected)


@pytest.mark.parametrize(
    ("lengths", "attributes", "position"),
    [
        (None, {"axis": 1, "keepdims": 0}, 2),
        (None, {"axis": 1, "keepdims": 1}, -1),
        (np.int64(3), {"axis": 0}, 1),
        (np.array([1, 3], np.int64), {"axis": 1}, 1),
        (np.array([1, 3], np.int64), {"axis": 1}, -1),
        (np.array([4, 1], np.int64), {"axis": 0}, 0),
    ],
)
def test_a_piece_of_a_sequence_is_cut_out(lengths: Any, attributes: dict[str, int], position: int) -> None:
    def build(x: Any, weight: Any) -> list[Any]:
        split = ir.node("SplitToSequence", [x] if lengths is None else [x, sizes], attributes)
        return [split, ir.node("SequenceAt", [split.outputs[0], at])]

    sizes, at = constant("sizes", np.int64(0) if lengths is None else lengths), constant("at", np.int64(position))
    made = model(build, sizes, at)
    expected = computed(made)
    clean(made)
    assert not {"SplitToSequence", "SequenceAt"}.intersection(op_types(made))
    assert [value.name for value in made.graph.outputs] == ["y"]
    np.testing.assert_array_equal(computed(made), expected)


def test_the_last_of_pieces_whose_number_is_not_known_is_left_as_it_is() -> None:
    def build(x: Any, weight: Any) -> list[Any]:
        split = ir.node("SplitToSequence", [x, sizes], {"axis": 0})
        return [split, ir.node("SequenceAt", [split.outputs[0], at])]

    sizes, at = constant("sizes", np.int64(3)), constant("at", np.int64(-1))
    made = model(build, sizes, at)
    expected = computed(made)
    clean(made)
    assert {"SplitToSequence", "SequenceAt"} <= set(op_types(made))
    np.testing.assert_array_equal(computed(made), expected)


def test_only_tensors_of_the_checkpoint_stay_initializers() -> None:
    def build(x: Any, weight: Any) -> list[Any]:
        return [ir.node("Mul", [x, scale]), ir.node("Add", [x, other])]

    scale, other = constant("scale", np.float32(2)), constant("other", np.float32(3))
    made = model(build, scale, other)
    constants_as_nodes(made, frozenset({"weight", "scale"}), frozenset({"weight", "scale", "other"}))
    assert set(made.graph.initializers) == {"weight", "scale"}
    assert [node.outputs[0].name for node in made.graph if node.op_type == "Constant"] == ["other/constant"]
    np.testing.assert_array_equal(computed(made), X + 3)


def stored(name: str, array: Any, *steps: Any) -> dict[str, Any]:
    return {"name": name, "dtype": array.dtype.name, "shape": list(array.shape), "steps": list(steps)}


def test_a_tensor_that_was_moved_renamed_and_cast() -> None:
    made = model(lambda x, weight: [ir.node("MatMul", [x, weight])])
    expected = computed(made)
    kept = WEIGHT.T.reshape(2, 3, 4).astype(np.float16)
    steps = [["reshape", [6, 4]], ["transpose", [1, 0]]]
    attach(made, {"weight": stored("dense.weight", kept, *steps)}, frozenset({"dense.weight"}))
    assert next(iter(made.graph.initializers)) == "dense.weight"
    np.testing.assert_allclose(computed(made, {"dense.weight": kept}), expected, rtol=1e-2, atol=1e-2)


def test_reshapes_are_those_of_every_opset_unless_an_extent_is_zero() -> None:
    """Reshape has allowzero since opset 14."""
    for shape, has_zero in ((WEIGHT.shape, False), ((0, 6), True)):
        made = model(lambda x, weight: [ir.node("MatMul", [x, weight])])
        kept = np.zeros(shape, np.float32).reshape(shape[::-1])
        attach(made, {"weight": stored("w", kept, ["reshape", list(shape)])}, frozenset({"w"}))
        (node,) = (node for node in made.graph if node.op_type == "Reshape")
        assert list(node.attributes) == (["allowzero"] if has_zero else [])


def test_a_tensor_that_is_cast_a_second_time() -> None:
    made = model(lambda x, weight: [ir.node("MatMul", [x, weight])])
    expected = computed(made)
    for array in (WEIGHT.astype(np.float16), WEIGHT.astype(np.float64)):
        attach(made, {"weight": stored("weight", array)}, frozenset({"weight"}))
    assert op_types(made) == ["Cast", "Cast", "MatMul"]
    clean(made)
    np.testing.assert_allclose(computed(made, {"weight": WEIGHT.astype(np.float64)}), expected, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("steps", [[], [["transpose", [1, 0]]]], ids=["renamed", "moved"])
def test_a_tensor_that_is_an_output_keeps_the_name_of_the_output(steps: list[Any]) -> None:
    kept = np.ascontiguousarray(WEIGHT.T) if steps else WEIGHT
    made = model(lambda x, weight: [ir.node("MatMul", [x, weight])])
    made.graph.outputs.append(made.graph.initializers["weight"])
    attach(made, {"weight": stored("dense.weight", kept, *steps)}, frozenset({"dense.weight"}))
    assert [value.name for value in made.graph.outputs][1:] == ["weight"]
    assert "dense.weight" in made.graph.initializers
    assert op_types(made).count("Identity") == 1
    np.testing.assert_array_equal(computed(made, {"dense.weight": kept}, output="weight"), WEIGHT)


def test_outputs_that_are_one_value_stay_apart() -> None:
    import onnx.parser

    text = """
    <ir_version: 10, opset_import: ["": 18]>
    g (float[n, 4] x, bool turned) => (float[n, 4] y, float[n, 4] also, float[n, 4] chosen)
    {
      y = Abs (x)
      also = Identity (y)
      chosen = If (turned) <
        then_branch = t () => (float[n, 4] kept) { kept = Identity (y) },
        else_branch = e () => (float[n, 4] other) { other = Neg (x) }
      >
    }
    """
    proto = onnx.parser.parse_model(text)
    made = ir.from_proto(proto)
    clean(made)
    onnx.checker.check_model(ir.to_proto(made), full_check=True)
    assert [value.name for value in made.graph.outputs] == ["y", "also", "chosen"]
    for turned in (True, False):
        inputs = {"x": X, "turned": np.array(turned)}
        expected = ReferenceEvaluator(proto).run(None, inputs)
        for ours, theirs in zip(ReferenceEvaluator(ir.to_proto(made)).run(None, inputs), expected, strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_what_a_branch_returns_of_the_graph_around_it_is_its_own() -> None:
    """onnx has no output of an inner graph that is a value of the outer one."""
    import onnx.parser

    text = """
    <ir_version: 10, opset_import: ["": 18]>
    g (float[n, 4] x, bool turned) => (float[n, 4] chosen)
    {
      z = Abs (x)
      chosen = If (turned) <
        then_branch = t () => (float[n, 4] kept) { kept = Identity (z) },
        else_branch = e () => (float[n, 4] other) { inner = Neg (z)  other = Identity (inner) }
      >
    }
    """
    proto = onnx.parser.parse_model(text)
    made = ir.from_proto(proto)
    clean(made)
    onnx.checker.check_model(ir.to_proto(made), full_check=True)
    assert sorted(op_types(made)) == ["Abs", "Identity", "If", "Neg"]
    for turned in (True, False):
        inputs = {"x": X, "turned": np.array(turned)}
        (expected,) = ReferenceEvaluator(proto).run(None, inputs)
        np.testing.assert_array_equal(ReferenceEvaluator(ir.to_proto(made)).run(None, inputs)[0], expected)


def test_a_name_that_an_input_has_is_refused() -> None:
    attach(model(lambda x, weight: [ir.node("MatMul", [x, weight])]), {"weight": stored("w", WEIGHT)}, frozenset("w"))
    with pytest.raises(GraphError, match="tensor x: is the name of an input"):
        attach(model(lambda x, weight: [ir.node("MatMul", [x, weight])]), {"weight": stored("x", WEIGHT)}, frozenset())
    unused = model(lambda x, weight: [ir.node("MatMul", [x, weight])])
    attach(unused, {"none": stored("w", WEIGHT)}, frozenset())  # such as what only training reads
    assert list(unused.graph.initializers) == ["weight"]


KERNELS: list[tuple[str, Callable[[Any, Any], list[Any]], bool]] = [
    ("of a linear layer", lambda x, w: [ir.node("Gemm", [x, w], {"transB": 1})], True),
    ("as the layer has it", lambda x, w: [ir.node("Gemm", [x, w])], False),
    ("what is multiplied", lambda x, w: [ir.node("Gemm", [w, x], {"transB": 1})], False),
    ("turned", lambda x, w: [ir.node("Transpose", [w], {"perm": [1, 0]})], True),
    ("not turned", lambda x, w: [ir.node("Transpose", [w], {"perm": [0, 1]})], False),
    ("turned without a word", lambda x, w: [ir.node("Transpose", [w])], False),
    ("of a convolution", lambda x, w: [ir.node("Conv", [x, w])], True),
    ("of groups", lambda x, w: [ir.node("Conv", [x, w], {"group": 2})], True),
    ("what is convolved", lambda x, w: [ir.node("Conv", [w, x])], False),
    ("of another domain", lambda x, w: [ir.node("Gemm", [x, w], {"transB": 1}, domain="own")], False),
    ("added, too", lambda x, w: [ir.node("Add", [w, w]), ir.node("Gemm", [x, w], {"transB": 1})], False),
    ("nobody's", lambda x, w: [ir.node("Identity", [x])], False),
]


@pytest.mark.parametrize(("build", "is_kernel"), [row[1:] for row in KERNELS], ids=[row[0] for row in KERNELS])
def test_which_weights_tensorflow_would_have_as_kernels(
    build: Callable[[Any, Any], list[Any]], is_kernel: bool
) -> None:
    made = model(build)
    assert list(kernels_of(made)) == (["weight"] if is_kernel else [])
    made.graph.outputs.append(made.graph.initializers["weight"])
    assert list(kernels_of(made)) == []


def test_a_depthwise_convolution_has_no_kernel_of_its_own() -> None:
    for extents, groups, is_kernel in (((6, 1, 3), 6, False), ((6, 1, 3), 1, True), ((6, 2, 3), 3, True)):
        weight = parameter("deep", np.zeros(extents, np.float32))
        made = model(lambda x, _: [ir.node("Conv", [x, weight], {"group": groups})], weight)  # noqa: B023
        assert list(kernels_of(made)) == (["deep"] if is_kernel else [])


def test_opsets() -> None:
    made = model(lambda x, weight: [ir.node("MatMul", [x, weight])])
    expected = computed(made)
    convert_opset(made, 21)
    assert made.opset_imports[""] == 21
    np.testing.assert_array_equal(computed(made), expected)
    for impossible in (3, 9999):
        with pytest.raises(GraphError, match=f"to opset {impossible}"):
            convert_opset(model(lambda x, weight: [ir.node("Gelu", [x])], opset=20), impossible)


LOOP = """
<ir_version: 10, opset_import: ["": 18]>
g (float[4] start, float[steps, 4] x) => (float[4] y, float[steps, 4] all)
<float scale = {{2.0}}, int64 none = {{0}}, int64 fewer = {{2}}, int32 first = {{{first}}},
 float[4] other = {{1, 1, 1, 1}}>
{{
  shape = Shape (x)
  extent = Gather <axis = 0> (shape, none)
  limit = {limit}
  narrow = Cast <to = 6> (limit)
  begins = Less (first, narrow)
  last, y, kept, moved, all = Loop (extent, begins, first, start, scale, other) <body = b (
      int64 step, bool before, int32 done, float[4] state, float factor, float[4] changing
  ) => (bool goes_on, int32 next, float[4] after, float same, float[4] changed, float[4] seen)
  <int32 one = {{1}}> {{
    next = Add (done, one)
    row = Gather <axis = 0> (x, done)
    scaled = Mul (state, factor)
    after = Add (scaled, row)
    seen = Identity (after)
    same = Identity (factor)
    changed = Neg (changing)
    far = Cast <to = 7> (next)
    is_left = Less (far, limit)
    is_step = Less (step, limit)
    goes_on = And (is_left, is_step)
  }}>
}}
"""


@pytest.mark.parametrize(
    ("first", "limit", "is_counted"),
    [(0, "Identity (extent)", True), (0, "Sub (extent, fewer)", False), (1, "Identity (extent)", False)],
    ids=["all steps", "fewer by the condition", "fewer by the counter"],
)
def test_a_loop_that_only_counts_has_no_condition(first: int, limit: str, is_counted: bool) -> None:
    import onnx.parser

    text = LOOP.format(first=first, limit=limit)
    made = ir.from_proto(onnx.parser.parse_model(text))
    x = np.random.default_rng(5).normal(size=(5, 4)).astype(np.float32)
    feeds = {"start": np.ones(4, np.float32), "x": x}
    before = ReferenceEvaluator(ir.to_proto(made)).run(None, feeds)
    clean(made)
    onnx.checker.check_model(ir.to_proto(made), full_check=True)
    (loop,) = (node for node in made.graph if node.op_type == "Loop")
    body = loop.attributes["body"].value
    assert (loop.inputs[1].producer().op_type == "Constant") == is_counted
    counter = ["done"] if first else []
    assert [value.name for value in body.inputs] == ["step", "before", *counter, "state", "changing"]
    assert ("Less" in op_types(made)) != is_counted
    for found, expected in zip(ReferenceEvaluator(ir.to_proto(made)).run(None, feeds), before, strict=True):
        np.testing.assert_array_equal(found, expected)

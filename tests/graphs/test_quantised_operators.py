"""Operators of onnxruntime's quantiser, spelled out in ONNX's own: onnxruntime computes the same of both."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import converter
from converter.errors import GraphError
from converter.graphs.passes.quantised import spell_out

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
ir = pytest.importorskip("onnx_ir")
helper, TensorProto = onnx.helper, onnx.TensorProto
pytestmark = pytest.mark.framework

CHANCE = np.random.default_rng(6)
SCALE, OTHER, RESULT = (np.float32(each) for each in (0.02, 0.03, 0.05))
ZERO, POINT = np.uint8(120), np.uint8(7)
LSTM = {"hidden_size": 3, "direction": "bidirectional"}


def bytes_of(*shape: int) -> Any:
    return CHANCE.integers(0, 255, shape, np.uint8)


def codes(*shape: int) -> Any:
    return CHANCE.integers(-128, 127, shape, np.int8)


def floats(*shape: int) -> Any:
    return CHANCE.normal(size=shape).astype(np.float32)


ONE = [bytes_of(2, 3, 4, 4), SCALE, ZERO, RESULT, POINT]
TWO = [bytes_of(2, 5), SCALE, ZERO, bytes_of(2, 5), OTHER, POINT]
GEMM = [bytes_of(2, 5), SCALE, ZERO, codes(5, 4), OTHER, np.int8(3)]
CASES: dict[str, tuple[str, list[Any], dict[str, Any]]] = {
    "add": ("QLinearAdd", [*TWO, RESULT, ZERO], {}),
    "mul": ("QLinearMul", [*TWO, RESULT, ZERO], {}),
    "sigmoid": ("QLinearSigmoid", [bytes_of(2, 9), SCALE, ZERO, np.float32(1 / 256), np.uint8(0)], {}),
    "leaky": ("QLinearLeakyRelu", [bytes_of(2, 9), SCALE, ZERO, RESULT, POINT], {"alpha": 0.3}),
    "pool": ("QLinearAveragePool", ONE, {"kernel_shape": [2, 2], "strides": [1, 1]}),
    "global pool": ("QLinearGlobalAveragePool", ONE, {"channels_last": 0}),
    "concat": ("QLinearConcat", [RESULT, ZERO, *TWO], {"axis": 1}),
    "softmax": ("QLinearSoftmax", [bytes_of(2, 9), SCALE, ZERO, np.float32(1 / 256), np.uint8(0)],
                {"axis": -1, "opset": 13}),
    "where": ("QLinearWhere", [CHANCE.random((2, 5)) < 0.5, *TWO, RESULT, ZERO], {}),
    "gemm": ("QGemm", [*GEMM, CHANCE.integers(-99, 99, 4, np.int32), RESULT, ZERO], {}),
    "gemm of floats": ("QGemm", [*GEMM], {}),
    "gemm turned": ("QGemm", [*GEMM[:3], codes(4, 5), *GEMM[4:]], {"transB": 1}),
    "dynamic product": ("DynamicQuantizeMatMul", [floats(2, 5), codes(5, 4), OTHER, np.int8(3), floats(4)], {}),
    "dynamic product alone": ("DynamicQuantizeMatMul", [floats(2, 5), codes(5, 4), OTHER], {}),
    "product": ("MatMulIntegerToFloat",
                [bytes_of(2, 5), codes(5, 4), SCALE, OTHER, ZERO, np.int8(3), floats(4)], {}),
    "lstm": ("DynamicQuantizeLSTM",
             [floats(4, 1, 5), codes(2, 5, 12), codes(2, 3, 12), floats(2, 24), None, floats(2, 1, 3), floats(2, 1, 3),
              None, np.float32([0.01, 0.02]), codes(2), np.float32([0.03, 0.01]), codes(2)], LSTM),
    "lstm from zero": ("DynamicQuantizeLSTM",
                       [floats(4, 1, 5), codes(1, 5, 12), codes(1, 3, 12), None, None, None, None, None,
                        np.float32([0.01]), codes(1), np.float32([0.03]), codes(1)],
                       {"hidden_size": 3, "direction": "reverse"}),
    "quantize": ("QuantizeLinear", [floats(2, 5), OTHER, ZERO], {}),
    "dequantize": ("DequantizeLinear", [bytes_of(2, 5), OTHER, ZERO], {}),
}  # fmt: skip


def model_of(op_type: str, inputs: list[Any], attributes: dict[str, Any]) -> Any:
    """The first input of floats or bytes with axes is the graph's, all else are initializers."""
    names = ["" if each is None else f"i{number}" for number, each in enumerate(inputs)]
    outputs = ["y", "h", "c"] if op_type == "DynamicQuantizeLSTM" else ["y"]
    node = helper.make_node(op_type, names, outputs, name="it", domain="com.microsoft", **attributes)
    first = next(number for number, each in enumerate(inputs) if each is not None and each.ndim)
    held = [
        onnx.numpy_helper.from_array(np.asarray(each), names[number])
        for number, each in enumerate(inputs)
        if each is not None and number != first
    ]
    kind = helper.np_dtype_to_tensor_dtype(inputs[first].dtype)
    shape = ["n", *inputs[first].shape[1:]]
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info(names[first], kind, shape)],
        [helper.make_empty_tensor_value_info(name) for name in outputs],
        held,
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9), {names[first]: inputs[first]}


@pytest.mark.parametrize("case", CASES)
def test_it_computes_the_same(case: str) -> None:
    model, given = model_of(*CASES[case])
    expected = onnxruntime.InferenceSession(model.SerializeToString()).run(None, given)
    loaded = ir.from_proto(model)
    spell_out(loaded)
    assert all(node.domain == "" for node in loaded.graph.all_nodes())
    assert "com.microsoft" not in loaded.opset_imports
    session = onnxruntime.InferenceSession(ir.to_proto(loaded).SerializeToString())
    assert [each.name for each in session.get_outputs()] == [each.name for each in model.graph.output]
    for ours, theirs in zip(session.run(None, given), expected, strict=True):
        assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)
        if ours.dtype.kind == "f":
            np.testing.assert_allclose(ours, theirs, atol=2e-6)
        else:  # a half is rounded where a float32 puts it
            assert np.abs(ours.astype(int) - theirs.astype(int)).max() <= 1
            assert np.mean(ours != theirs) <= 0.05


@pytest.mark.parametrize(
    ("case", "attributes", "why"),
    [
        ("global pool", {"channels_last": 1}, "it is a QLinearGlobalAveragePool with channels_last"),
        ("lstm", {**LSTM, "clip": 3.0}, "it is a DynamicQuantizeLSTM with clip"),
    ],
)
def test_what_onnx_has_not_is_refused(case: str, attributes: dict[str, Any], why: str) -> None:
    op_type, inputs, _ = CASES[case]
    with pytest.raises(GraphError, match=why):
        spell_out(ir.from_proto(model_of(op_type, inputs, attributes)[0]))


@pytest.mark.parametrize("target", ["savedmodel", "pt2"])
def test_a_quantised_network_converts(target: str, tmp_path: Path) -> None:
    """As onnxruntime's quantiser writes one, in QOperator form."""
    pytest.importorskip({"savedmodel": "tensorflow", "pt2": "torch"}[target])
    scale, zero = np.float32(0.02), np.uint8(120)
    held = {
        "xs": scale, "xz": zero, "w": codes(4, 3, 3, 3), "ws": np.float32(0.01), "wz": np.int8(0),
        "ys": np.float32(0.1), "yz": np.uint8(128), "ps": np.float32(0.1), "pz": np.uint8(128),
    }  # fmt: skip
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "xs", "xz"], ["q"]),
        helper.make_node("QLinearConv", ["q", "xs", "xz", "w", "ws", "wz", "ys", "yz"], ["a"], pads=[1, 1, 1, 1]),
        helper.make_node("QLinearAdd", ["a", "ys", "yz", "a", "ys", "yz", "ys", "yz"], ["b"], domain="com.microsoft"),
        helper.make_node(
            "QLinearGlobalAveragePool", ["b", "ys", "yz", "ps", "pz"], ["p"], domain="com.microsoft", channels_last=0
        ),
        helper.make_node("DequantizeLinear", ["p", "ps", "pz"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 16, 16])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4, 1, 1])],
        [onnx.numpy_helper.from_array(np.asarray(each), name) for name, each in held.items()],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), tmp_path / "x.onnx")
    report = converter.convert(tmp_path / "x.onnx", tmp_path / "out", to=target)
    assert report.verification.per_output[0].reason is None

"""Attributes that stand in few graphs, one row a condition, through both lowerings on every commit.

What they mean is onnxruntime's to say, or, where it has no such kernel, that of ONNX's own reference.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from tests.graphs import node_suite_tensorflow, node_suite_torch

RUNS = {"TensorFlow": node_suite_tensorflow.run, "PyTorch": node_suite_torch.run}


def floats(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def ints(*values: int) -> Any:
    return np.array(values, np.int64)


X = floats(1, 4, 7, 6)
LINE = floats(2, 3, 11)
CHANNELS = [X, *(np.abs(floats(4, seed=seed)) + 0.5 for seed in range(4))]
SEQUENCE = [floats(4, 2, 3), floats(2, 12, 3, seed=1), floats(2, 12, 3, seed=2), floats(2, 24, seed=3)]

Row = tuple[str, str, list[Any], dict[str, Any], int, int]


def row(name: str, operator: str, *inputs: Any, opset: int = 20, outputs: int = 1, **attributes: Any) -> Row:
    return name, operator, list(inputs), attributes, opset, outputs


def pools() -> list[Row]:
    rows = []
    for counts in (0, 1):
        for rounds_up in (0, 1):
            how = {"count_include_pad": counts, "ceil_mode": rounds_up}
            name = f"counts {counts}, rounds up {rounds_up}"
            rows += [
                row(f"{name}, even", "AveragePool", X, kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[2, 2], **how),
                row(f"{name}, odd", "AveragePool", X, kernel_shape=[3, 2], pads=[0, 1, 2, 0], strides=[2, 3], **how),
            ]
    return rows


ROWS: list[Row] = [
    *(
        row(f"size {size}", "LRN", floats(2, 6, 3, 2), size=size, alpha=0.5, beta=0.6, bias=1.5)
        for size in (1, 2, 3, 4, 5)
    ),
    row("defaults", "LRN", 30 * floats(1, 3, 2, 2), size=3),
    *(
        row(f"to {list(shape)}", "CenterCropPad", floats(5, 4, 6), ints(*shape), axes=[0, -1])
        for shape in ((4, 5), (2, 9))
    ),
    row("every axis", "CenterCropPad", floats(5, 4), ints(2, 7)),
    *pools(),
    row("momentum", "BatchNormalization", *CHANNELS, training_mode=1, momentum=0.7, epsilon=0.01, outputs=3),
    row("default momentum", "BatchNormalization", *CHANNELS, training_mode=1, outputs=3),
    row("epsilon", "BatchNormalization", *CHANNELS, epsilon=0.5),
    *(
        row(
            f"output_shape {wanted} {auto_pad}",
            "ConvTranspose",
            floats(1, 2, 4, 5),
            floats(2, 3, 3, 3),
            auto_pad=auto_pad,
            strides=[2, 3],
            output_shape=wanted,
        )
        for auto_pad in ("NOTSET", "SAME_UPPER")
        for wanted in ([9, 14], [6, 12], [10, 17])
    ),
    row(
        "output_padding",
        "ConvTranspose",
        floats(1, 2, 4, 5),
        floats(2, 3, 3, 3),
        floats(3),
        strides=[2, 3],
        output_padding=[1, 2],
        pads=[1, 0, 0, 1],
    ),
    row(
        "groups and dilations",
        "ConvTranspose",
        floats(1, 4, 4, 5),
        floats(4, 3, 2, 2),
        group=2,
        dilations=[2, 3],
        strides=[1, 2],
    ),
    row("groups", "Conv", X, floats(6, 2, 3, 2), floats(6), group=2, dilations=[2, 1], pads=[1, 0, 2, 1]),
    row("by channel", "Conv", X, floats(8, 1, 3, 3), group=4, strides=[2, 2], pads=[1, 1, 1, 1]),
    row("where the largest are", "MaxPool", X, kernel_shape=[3, 2], strides=[2, 1], pads=[1, 1, 0, 0], outputs=2),
    row("by columns", "MaxPool", X, kernel_shape=[2, 2], storage_order=1, strides=[2, 2], outputs=2),
    row("dilations", "MaxPool", X, kernel_shape=[2, 3], dilations=[3, 2], pads=[1, 2, 1, 0]),
    row("rounded up", "MaxPool", LINE, kernel_shape=[3], strides=[3], pads=[1, 0], ceil_mode=1),
    *(
        row("a window that would begin in padding", operator, floats(1, 1, 6), kernel_shape=[2], strides=[3],
            pads=[0, 1], ceil_mode=1)
        for operator in ("AveragePool", "MaxPool")
    ),
    row("p of 3", "LpPool", X, kernel_shape=[2, 3], p=3, strides=[2, 1], pads=[1, 0, 0, 1]),
    row("p of 1", "GlobalLpPool", X, p=1),
    row("p of 1", "LpNormalization", LINE, p=1, axis=1, opset=18),
    row("p of 2", "LpNormalization", LINE, axis=0, opset=18),
    row("epsilon", "InstanceNormalization", LINE, floats(3), floats(3, seed=1), epsilon=0.3),
    row("epsilon", "GroupNormalization", X, floats(4), floats(4, seed=1), num_groups=2, epsilon=0.3, opset=21),
    row("axis", "LayerNormalization", X, floats(7, 6), floats(7, 6, seed=1), axis=2, epsilon=0.2),
    row("all three", "LayerNormalization", LINE, floats(11), axis=-1, outputs=3),
    row("axes", "MeanVarianceNormalization", X, axes=[0, 2], opset=13),
    row("alpha and beta", "Gemm", floats(3, 2), floats(3, 4), floats(4), alpha=0.3, beta=1.7, transA=1),
    row("alpha and beta", "HardSigmoid", LINE, alpha=0.4, beta=0.3),
    row("alpha", "LeakyRelu", LINE, alpha=0.3),
    row("alpha", "Elu", LINE, alpha=2.0),
    row("alpha", "Celu", LINE, alpha=2.0),
    row("alpha", "ThresholdedRelu", LINE, alpha=0.5),
    row("alpha and gamma", "Selu", LINE, alpha=1.5, gamma=1.2),
    row("bias and lambd", "Shrink", LINE, bias=0.3, lambd=0.6),
    row("exact", "Gelu", LINE),
    row("by tanh", "Gelu", LINE, approximate="tanh"),
    row("exclusive", "CumSum", LINE, np.array(2, np.int64), exclusive=1),
    row("reverse", "CumSum", LINE, np.array(-1, np.int64), reverse=1),
    row("smallest", "TopK", LINE, ints(3), axis=1, largest=0, outputs=2),
    row("last of equals", "ArgMin", np.array([[1, 0, 0], [2, 2, 3]], np.float32), axis=1, select_last_index=1),
    row("one and off", "OneHot", ints(1, -1, 4), np.array(3, np.int64), np.array([2, 5], np.float32), axis=0),
    *(
        row(f"{reduction} of opset {opset}", "ScatterND", floats(4, 3), np.array([[1], [1], [3]], np.int64),
            floats(3, 3, seed=1), reduction=reduction, opset=opset)
        for reduction, opset in (("add", 16), ("mul", 16), ("max", 18), ("min", 18))
    ),
    *(
        row(f"part of a head, interleaved {pairs}", "RotaryEmbedding", floats(1, 2, 3, 8), floats(5, 2),
            floats(5, 2, seed=1), np.array([[4, 0, 2]], np.int64), rotary_embedding_dim=4, interleaved=pairs, opset=23)
        for pairs in (0, 1)
    ),
    row("above", "EyeLike", floats(3, 4), k=1),
    row("below", "Trilu", floats(3, 4), np.array(-1, np.int64), upper=0),
    row("above", "Trilu", floats(3, 4), np.array(1, np.int64), upper=1),
    row("DCR", "DepthToSpace", floats(1, 8, 2, 3), blocksize=2),
    row("CRD", "DepthToSpace", floats(1, 8, 2, 3), blocksize=2, mode="CRD"),
    row("to the right", "BitShift", np.array([8, 5], np.uint8), np.array([1, 2], np.uint8), direction="RIGHT"),
    *(
        row(f"{mode} with axes", "Pad", LINE, ints(2, 1), np.array(0.5, np.float32), ints(2), mode=mode)
        for mode in ("constant", "reflect", "edge", "wrap")
    ),
    row("a cut", "Pad", LINE, ints(0, 0, -2, 0, 1, -1)),
    *(
        row(f"{mode} {where}", "Resize", floats(1, 1, 4, 3), None, None, ints(1, 1, 7, 5), mode=mode,
            coordinate_transformation_mode=where, opset=18)
        for mode in ("nearest", "linear", "cubic")
        for where in ("half_pixel", "align_corners", "asymmetric", "pytorch_half_pixel")
    ),
    *(
        row(f"nearest {rounding}", "Resize", floats(1, 1, 4, 3), None, np.float32([1, 1, 1.5, 2]), mode="nearest",
            nearest_mode=rounding, opset=18)
        for rounding in ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
    ),
    row("nearest tf_half_pixel_for_nn", "Resize", floats(1, 1, 4, 3), np.float32([]), np.float32([1, 1, 1.5, 2]),
        mode="nearest", nearest_mode="floor", coordinate_transformation_mode="tf_half_pixel_for_nn", opset=11),
    row("cubic pytorch_half_pixel to one", "Resize", floats(1, 1, 4, 4), None, None, ints(1, 1, 1, 6), mode="cubic",
        coordinate_transformation_mode="pytorch_half_pixel", opset=18),
    row("crop", "Resize", floats(1, 1, 4, 5), np.float32([0, 0, 0.2, 0.1, 1, 1, 0.7, 0.9]), None, ints(1, 1, 3, 1),
        mode="linear", coordinate_transformation_mode="tf_crop_and_resize", extrapolation_value=3.0, opset=18),
    row("a crop of the same size", "Resize", floats(1, 1, 4, 4), np.float32([0, 0, 0.25, 0.25, 1, 1, 0.75, 0.75]), None,
        ints(1, 1, 4, 4), mode="linear", coordinate_transformation_mode="tf_crop_and_resize", opset=18),
    row("coefficient", "Resize", floats(1, 1, 4, 4), None, np.float32([1, 1, 2, 2]), mode="cubic", cubic_coeff_a=-0.5,
        exclude_outside=1, opset=18),
    *(
        row(f"{mode} {padding} {corners}", "GridSample", floats(1, 2, 4, 3), 1.2 * floats(1, 3, 2, 2, seed=1),
            mode=mode, padding_mode=padding, align_corners=corners)
        for mode in ("linear", "nearest")
        for padding, corners in (("zeros", 0), ("border", 1), ("reflection", 0), ("reflection", 1))
    ),
    *(
        row(direction, "LSTM", SEQUENCE[0], *(each[:count] for each in SEQUENCE[1:]), hidden_size=3,
            direction=direction, outputs=3)
        for direction, count in (("forward", 1), ("reverse", 1), ("bidirectional", 2))
    ),
    row("clipped", "LSTM", 9 * SEQUENCE[0], *(each[:1] for each in SEQUENCE[1:]), hidden_size=3, clip=0.5, outputs=3),
    *(
        row(f"reset before {before}", "GRU", SEQUENCE[0], SEQUENCE[1][:1, :9], SEQUENCE[2][:1, :9],
            SEQUENCE[3][:1, :18], hidden_size=3, linear_before_reset=before, outputs=2)
        for before in (0, 1)
    ),
    *(
        row(reduction, "NegativeLogLikelihoodLoss", floats(3, 5), ints(1, 4, 2), np.abs(floats(5, seed=1)),
            reduction=reduction, ignore_index=4)
        for reduction in ("none", "mean", "sum")
    ),
    row("ignored", "SoftmaxCrossEntropyLoss", floats(3, 5), ints(1, -1, 2), ignore_index=-1, outputs=2),
    row("axis", "QuantizeLinear", 9 * floats(2, 3), np.float32([0.1, 0.2, 0.3]), np.int8([0, 1, -2]), axis=1),
    row("axis", "DequantizeLinear", np.int8([[1, 2, 3], [4, 5, 6]]), np.float32([0.1, 0.2]), np.int8([0, 3]), axis=0),
    row("periodic", "HannWindow", np.array(7, np.int64), periodic=1),
    row("symmetric", "HammingWindow", np.array(7, np.int64), periodic=0),
]  # fmt: skip


def model_of(operator: str, inputs: list[Any], attributes: dict[str, Any], opset: int, outputs: int) -> Any:
    names = [f"i{place}" if value is not None else "" for place, value in enumerate(inputs)]
    made = [f"o{place}" for place in range(outputs)]
    graph = helper.make_graph(
        [helper.make_node(operator, names, made, **attributes)],
        "g",
        [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
            for name, value in zip(names, inputs, strict=True)
            if value is not None
        ],
        [onnx.ValueInfoProto(name=name) for name in made],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    for value in onnx.shape_inference.infer_shapes(model).graph.output:
        place = made.index(value.name)
        element = value.type.tensor_type.elem_type or TensorProto.FLOAT
        model.graph.output[place].CopyFrom(helper.make_tensor_value_info(value.name, element, None))
    return model


def normalised(x: Any, *, size: int, alpha: float = 1e-4, beta: float = 0.75, bias: float = 1.0) -> Any:
    """LRN as ONNX has it: sums over channels c - floor((size - 1) / 2) to c + ceil((size - 1) / 2)."""
    result = np.empty_like(x)
    for channel in range(x.shape[1]):
        near = x[:, max(0, channel - (size - 1) // 2) : channel + -(-(size - 1) // 2) + 1]
        result[:, channel] = x[:, channel] / (bias + alpha / size * (near**2).sum(1)) ** beta
    return result


def meant(model: Any, feeds: dict[str, Any]) -> list[Any]:
    (node,) = model.graph.node
    operator = node.op_type
    if operator == "LRN":  # onnxruntime has no even size, and the reference forgets channels (onnx 1.23.2)
        return [normalised(*feeds.values(), **{each.name: helper.get_attribute_value(each) for each in node.attribute})]
    is_cropped = any(each.s == b"tf_crop_and_resize" for each in node.attribute)
    # onnxruntime has no CenterCropPad, and takes a crop that is as large as its input for no crop.
    if operator != "CenterCropPad" and not is_cropped:
        try:
            session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
            return list(session.run(None, feeds))
        except onnxruntime.capi.onnxruntime_pybind11_state.NotImplemented:
            pass
    return list(ReferenceEvaluator(model).run(None, feeds))


@pytest.mark.parametrize(
    ("operator", "inputs", "attributes", "opset", "outputs"), [each[1:] for each in ROWS],
    ids=[f"{each[1]}: {each[0]}" for each in ROWS],
)  # fmt: skip
def test_attributes_mean_what_onnx_says(
    operator: str, inputs: list[Any], attributes: dict[str, Any], opset: int, outputs: int
) -> None:
    model = model_of(operator, inputs, attributes, opset, outputs)
    given = [value for value in inputs if value is not None]
    expected = meant(model, {f"i{place}": value for place, value in enumerate(inputs) if value is not None})
    for side, run in RUNS.items():
        found = run(onnx.ModelProto.FromString(model.SerializeToString()), given)
        assert len(found) == len(expected)
        for ours, theirs in zip(found, expected, strict=True):
            assert ours.shape == theirs.shape, side
            np.testing.assert_allclose(ours, theirs, rtol=2e-4, atol=2e-5, err_msg=side)


def test_fixed_statistics_of_batchnormalization_have_its_epsilon() -> None:
    import torch

    from converter.graphs.lower.torch.normalisation import batch_normalization

    values = [torch.tensor(each) for each in CHANNELS]
    fixed, given = (batch_normalization(*values, epsilon=0.5, is_fixed=each, output_count=1) for each in (True, False))
    torch.testing.assert_close(fixed, given)

"""Detectors as YOLO exports them: images of any size, halved and doubled again, anchors made of extents."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import converter

onnx = pytest.importorskip("onnx")


def detector() -> Any:
    """Halves an image twice, doubles the smaller one, joins both; adds to each row its number, which is a float."""
    helper, elem, node = onnx.helper, onnx.TensorProto.FLOAT, onnx.helper.make_node
    random = np.random.default_rng(5)
    values = {
        "down.weight": random.normal(size=(2, 3, 3, 3)).astype(np.float32),
        "deeper.weight": random.normal(size=(2, 2, 3, 3)).astype(np.float32),
        "scales": np.array([1, 1, 2, 2], np.float32),
        "roi": np.zeros(0, np.float32),
        "height": np.array(2, np.int64),
        "zero": np.array(0, np.float32),
        "one": np.array(1, np.float32),
        "column": np.array([-1, 1], np.int64),
    }
    halving = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}
    nodes = [
        node("Conv", ["images", "down.weight"], ["half"], **halving),
        node("Conv", ["half", "deeper.weight"], ["quarter"], **halving),
        node("Resize", ["quarter", "roi", "scales"], ["doubled"], mode="nearest", nearest_mode="floor"),
        node("Concat", ["half", "doubled"], ["joined"], axis=1),
        node("Shape", ["joined"], ["extents"]),
        node("Gather", ["extents", "height"], ["rows"], axis=0),
        node("Cast", ["rows"], ["last"], to=elem),
        node("Range", ["zero", "last", "one"], ["numbers"]),
        node("Reshape", ["numbers", "column"], ["positions"]),
        node("Add", ["joined", "positions"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "detector",
        [helper.make_tensor_value_info("images", elem, ["batch", 3, "height_", "width_"])],
        [helper.make_tensor_value_info("y", elem, [None, 4, None, None])],
        [onnx.numpy_helper.from_array(value, name) for name, value in values.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize("target", ["x.pt2", "savedmodel", "y.onnx"])
def test_scales_are_constants_and_weights_are_trained(target: str, tmp_path: Path) -> None:
    framework = pytest.importorskip({"x.pt2": "torch", "savedmodel": "tensorflow"}.get(target, "onnxruntime"))
    onnx.save(detector(), tmp_path / "x.onnx")
    to = target if target == "savedmodel" else None
    report = converter.convert(tmp_path / "x.onnx", tmp_path / target, to=to)
    assert report.verification.outputs, report.verification.reason
    trained = {"down.weight", "deeper.weight"}
    assert trained <= set(converter.read(tmp_path / target).tensors)
    assert "scales" not in converter.read(tmp_path / target).tensors
    if target == "x.pt2":
        program = framework.export.load(tmp_path / target)
        assert {name for name, _ in program.named_parameters()} == trained
    if target == "savedmodel":
        loaded = framework.saved_model.load(str(tmp_path / target))
        assert {each.name.removesuffix(":0") for each in loaded.trainable_variables} == trained

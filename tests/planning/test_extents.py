"""Graphs that do not run at the extents that others are checked at: where they do is found."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

import converter
from converter.errors import GraphError
from converter.graphs.description.cases import Case
from converter.graphs.description.signature import Dimension, GraphInput, Signature
from converter.model.dtype import DType
from converter.planning.extents import with_extents

onnx = pytest.importorskip("onnx")
helper = onnx.helper

IMAGE = GraphInput(name="x", dtype=DType.FLOAT32, shape=("batch", "high", "wide", 3))
ROWS = GraphInput(name="x", dtype=DType.FLOAT32, shape=("batch", "length", 2))


def run(takes: Callable[[int], bool]) -> Callable[[Sequence[Case]], Mapping[str, str]]:
    return lambda cases: {case.name: "no" for case in cases if not all(map(takes, case.arrays["x"].shape[1:-1]))}


@pytest.mark.parametrize(
    ("each", "takes", "low", "step"),
    [
        (ROWS, lambda extent: extent > 40, 41, 1),
        (ROWS, lambda extent: extent > 10_000, 10_001, 1),
        (ROWS, lambda extent: extent % 48 == 0, 48, 48),
        (ROWS, lambda extent: extent % 2 == 0 and extent > 100, 102, 2),
        (IMAGE, lambda extent: extent % 128 == 0, 128, 128),
        (ROWS, lambda extent: extent == 224, 224, 1),
    ],
)
def test_where_a_source_runs_is_found(each: GraphInput, takes: Callable[[int], bool], low: int, step: int) -> None:
    found = with_extents(Signature(title="x", parameters={}, inputs=(each,)), run(takes))
    assert found is not None
    signature, note = found
    assert [(known.low, known.step) for known in signature.dimensions] == [(low, step)] * (len(each.shape) - 2)
    assert all(takes(known.extent(count)) for known in signature.dimensions for count in known.checked)
    assert f"{low} or more" in note


def test_nothing_is_found_where_nothing_is_taken_or_all_is_known() -> None:
    signature = Signature(title="x", parameters={}, inputs=(ROWS,))
    assert with_extents(signature, run(lambda extent: False)) is None
    known = Signature(title="x", parameters={}, inputs=(ROWS,), dimensions=(Dimension(name="length"),))
    assert with_extents(known, run(lambda extent: True)) is None


def cropping(path: Path, cropped: int, rows: int = 4) -> Path:
    """Rows but `cropped` at either end, times a matrix, so many `rows` at once."""
    nodes = [
        helper.make_node("Slice", ["x", "start", "end", "axis"], ["inner"]),
        helper.make_node("Reshape", ["inner", "shape"], ["held"], allowzero=0),
        helper.make_node("MatMul", ["held", "w"], ["y"]),
    ]
    arrays = {
        "start": np.array([cropped]),
        "end": np.array([-cropped or 1 << 40]),
        "axis": np.array([1]),
        "shape": np.array([0, -1, rows, 2]),
        "w": np.arange(6, dtype=np.float32).reshape(2, 3),
    }
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", "length", 2])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["n", None, rows, 3])],
        [onnx.numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def test_outputs_are_compared_where_the_source_runs(tmp_path: Path) -> None:
    pytest.importorskip("tensorflow")
    report = converter.convert(cropping(tmp_path / "a.onnx", 20), tmp_path / "b", to="savedmodel", verify="outputs")
    assert any("is 44 or more, 4 apart" in note for note in report.verification.left_out)


def test_a_source_that_runs_nowhere_says_what_was_tried(tmp_path: Path) -> None:
    pytest.importorskip("tensorflow")
    path = cropping(tmp_path / "a.onnx", 0, rows=99_991)
    with pytest.raises(GraphError, match=r"the source does not run, at length from 1 to 32768: ") as raised:
        converter.convert(path, tmp_path / "b", to="savedmodel", verify="outputs")
    assert raised.value.hint == "--inputs FILE.npz gives inputs that it takes"

"""Numbers of ONNX models wherever they stand: none is lost, in any target, and each has a name of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import converter
from converter.errors import ReadError
from converter.model.tensor import FileTensor

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

from tests.graphs import onnx_places  # noqa: E402

SEEDS = range(8)
TARGETS = {"x.onnx": "onnx", "x.pt2": "torch", "savedmodel": "tensorflow"}


def accounted(checkpoint: Any) -> int:
    return sum(tensor.size for tensor in checkpoint.tensors.values()) + sum(checkpoint.constants.values())


@pytest.mark.parametrize("seed", SEEDS)
def test_every_number_is_a_weight_or_a_constant(seed: int, tmp_path: Path) -> None:
    made = onnx_places.Maker(seed).model()
    onnx.checker.check_model(made)
    onnx.save(made, tmp_path / "x.onnx")
    source = converter.read(tmp_path / "x.onnx")
    assert accounted(source) == onnx_places.numbers_in(made)
    report = converter.convert(tmp_path / "x.onnx", tmp_path / "x.safetensors")
    found = converter.read(tmp_path / "x.safetensors").tensors
    assert set(found) == set(source.tensors)
    left = sum(source.constants.values())
    assert [each for each in report.warnings if f" {left} numbers: " in each]


def test_names_have_the_way_before_them_where_two_are_equal(tmp_path: Path) -> None:
    def constant(name: str) -> Any:
        return onnx.helper.make_node(
            "Constant", [], [name], value=onnx.numpy_helper.from_array(np.arange(4, dtype=np.float32))
        )

    def branch(*names: str) -> Any:
        return onnx.helper.make_graph([*map(constant, names)], "g", [], [])

    maker = onnx_places.Maker(0)
    maker.nodes, maker.initializers, maker.sparse, maker.last = [], [], [], "x"
    maker.functions = [onnx.helper.make_function("own", "f", ["x"], ["y"], [constant("w"), constant("f's")], [])]
    maker.nodes = [
        constant("w"),
        onnx.helper.make_node("If", ["c"], ["z"], then_branch=branch("t", "x"), else_branch=branch("e", "u")),
        onnx.helper.make_node("If", ["c"], ["v"], name="two", then_branch=branch("u"), else_branch=branch("y")),
    ]
    maker.initializers = [onnx.numpy_helper.from_array(np.ones(3, np.float32), "two/then_branch/u")]
    (tmp_path / "x.onnx").write_bytes(maker.model().SerializeToString())
    assert list(converter.read(tmp_path / "x.onnx").tensors) == [
        "two/then_branch/u", "w", "e", "If_1/else_branch/u", "t", "If_1/then_branch/x", "two/else_branch/y",
        "two/then_branch/u_1", "own.f/w", "f's",
    ]  # fmt: skip


def test_changed_weights_reach_the_graph(tmp_path: Path) -> None:
    onnx.save(onnx_places.Maker(1).model(), tmp_path / "x.onnx")
    report = converter.convert(tmp_path / "x.onnx", tmp_path / "y.onnx", dtype="float16")
    assert report.verification.outputs, report.verification.reason
    found = converter.read(tmp_path / "y.onnx").tensors
    assert {tensor.dtype.value for tensor in found.values() if tensor.dtype.is_floating} == {"float16"}
    inside = {name for name in converter.read(tmp_path / "x.onnx").tensors if name.startswith("in")}
    held = {value.name for value in onnx.load(tmp_path / "y.onnx").graph.initializer}
    assert set() < inside <= held


def test_large_constants_stay_in_the_file(tmp_path: Path) -> None:
    for kind in ("value", "value_floats"):
        values = np.arange(100_000, dtype=np.float32)
        value = onnx.numpy_helper.from_array(values) if kind == "value" else values.tolist()
        node = onnx.helper.make_node("Constant", [], ["w"], **{kind: value})
        graph = onnx.helper.make_graph([node], "g", [], [])
        onnx.save(onnx.helper.make_model(graph), tmp_path / "x.onnx")
        tensor = converter.read(tmp_path / "x.onnx").tensors["w"]
        assert isinstance(tensor, FileTensor) is (kind == "value")
        np.testing.assert_array_equal(tensor.numpy(), values)


def test_what_operators_take_is_no_weight(tmp_path: Path) -> None:
    """Directly, through what computes shapes, and through a function; not what is used in another way, too."""
    four = onnx.numpy_helper.from_array(np.ones(4, np.float32))
    resize = onnx.helper.make_node("Resize", ["a", "", "b"], ["c"])
    function = onnx.helper.make_function("own", "Resized", ["a", "b"], ["c"], [resize], [])
    nodes = [onnx.helper.make_node("Constant", [], [name], value=four) for name in ("far", "both", "called", "free")]
    nodes += [
        onnx.helper.make_node("Mul", ["far", "near"], ["scales"]),
        onnx.helper.make_node("Resize", ["x", "roi", "scales"], ["x1"]),
        onnx.helper.make_node("Resize", ["x1", "", "both"], ["x2"]),
        onnx.helper.make_node("Sub", ["x2", "both"], ["x3"]),
        onnx.helper.make_node("Resized", ["x3", "called"], ["x4"], domain="own"),
        onnx.helper.make_node("Mul", ["x4", "free"], ["x5"]),
        onnx.helper.make_node("Relu", ["x5"], ["y"]),
    ]
    output = onnx.helper.make_tensor_value_info("y", 1, None)
    near = [onnx.numpy_helper.from_array(np.ones(size, np.float32), name) for name, size in (("near", 4), ("roi", 0))]
    graph = onnx.helper.make_graph(nodes, "g", [onnx.helper.make_tensor_value_info("x", 1, None)], [output], near)
    (tmp_path / "x.onnx").write_bytes(onnx.helper.make_model(graph, functions=[function]).SerializeToString())
    found = converter.read(tmp_path / "x.onnx")
    assert (set(found.tensors), set(found.constants)) == ({"both", "free"}, {"far", "near", "roi", "called"})


SPARSE = {
    "outside its shape": {"places": [1, 4]},
    "not in order": {"places": [3, 1]},
    "where its 2 values are": {"places": [1]},
    "at most 2 GiB": {"shape": [1 << 20, 1 << 20]},
    "impossible shape": {"shape": [-4]},
}


@pytest.mark.parametrize("problem", SPARSE)
def test_sparse_tensors_that_are_malformed(problem: str, tmp_path: Path) -> None:
    def made(*, places: list[int], shape: list[int]) -> Any:
        values = onnx.numpy_helper.from_array(np.array([5, 6], np.float32), "w")
        sparse = onnx.helper.make_sparse_tensor(values, onnx.numpy_helper.from_array(np.array(places)), shape)
        (tmp_path / "x.onnx").write_bytes(
            onnx.helper.make_model(
                onnx.helper.make_graph([], "g", [], [], sparse_initializer=[sparse])
            ).SerializeToString()
        )

    made(places=[1, 3], shape=[4])
    tensor = converter.read(tmp_path / "x.onnx").tensors["w"]
    assert tensor.numpy().tolist() == [0, 5, 0, 6]
    made(places=[1, 3], shape=[2, 2])
    assert converter.read(tmp_path / "x.onnx").tensors["w"].numpy().tolist() == [[0, 5], [0, 6]]
    made(**{"places": [1, 3], "shape": [4], **SPARSE[problem]})
    with pytest.raises(ReadError, match=problem):
        converter.read(tmp_path / "x.onnx").tensors["w"].numpy()


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("seed", SEEDS[:3])
def test_graphs_carry_all_of_them(seed: int, target: str, tmp_path: Path) -> None:
    pytest.importorskip(TARGETS[target])
    onnx.save(onnx_places.Maker(seed).model(), tmp_path / "source.onnx")
    to = target if target == "savedmodel" else None
    report = converter.convert(tmp_path / "source.onnx", tmp_path / target, to=to)
    assert report.verification.outputs, report.verification.reason
    assert report.counts["dropped"] == 0
    source, found = converter.read(tmp_path / "source.onnx"), converter.read(tmp_path / target)
    for name, tensor in source.tensors.items():
        np.testing.assert_array_equal(found.tensors[name].numpy(), tensor.numpy())

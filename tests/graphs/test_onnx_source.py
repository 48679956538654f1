"""ONNX files as sources of graphs: to SavedModel and to ONNX again, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import converter
from converter.errors import GraphError, LossError, SafetyError, VerificationError
from converter.graphs.trace.onnx_model import trace

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

from tests.graphs import onnx_models  # noqa: E402


def traced(model: Any, tmp_path: Path, **settings: Any) -> dict[str, Any]:
    """The architecture of a model, its graph in `graph.onnx`."""
    onnx_models.save(model, tmp_path / "x.onnx", **settings)
    return trace(model=str(tmp_path / "x.onnx"), graph=str(tmp_path / "graph.onnx"), names={})


@pytest.mark.parametrize("kind", onnx_models.VALID)
def test_what_is_trained_and_what_is_a_constant(kind: str, tmp_path: Path) -> None:
    found = traced(onnx_models.VALID[kind](), tmp_path)
    declared = {"parameters": set(found["parameters"]), "buffers": set(found["buffers"]), "computed": found["computed"]}
    weights = {"fc.weight", "fc.bias"}
    assert (
        declared
        == {
            "dense": {"parameters": weights, "buffers": {"scale", "axes"}, "computed": []},
            "inputs too": {"parameters": weights, "buffers": {"scale", "axes"}, "computed": []},
            "normalised": {"parameters": {"bn.weight", "bn.bias"}, "buffers": {"bn.mean", "bn.var"}, "computed": []},
            "branching": {"parameters": weights, "buffers": set(), "computed": []},
            "a branch's own": {"parameters": {*weights, "inner"}, "buffers": set(), "computed": []},
            "function": {"parameters": weights, "buffers": set(), "computed": []},
        }[kind]
    )
    inputs = {each["name"]: each["shape"] for each in found["inputs"]}
    assert inputs["x"] == {"normalised": ["n", 3, "length"], "function": ["x_0", 3]}.get(kind, ["batch", 3])


def test_what_is_no_graph_of_tensors_is_refused(tmp_path: Path) -> None:
    assert traced(onnx_models.dense(), tmp_path)["outputs"] == ["y"]
    with pytest.raises(GraphError, match="Affine of the domain 'own'"):
        traced(onnx_models.foreign(), tmp_path)
    with pytest.raises(GraphError, match="input 'pieces' is no tensor"):
        traced(onnx_models.with_sequence_input(), tmp_path)


def test_graphs_that_are_malformed_are_refused_in_one_line(tmp_path: Path) -> None:
    def refused(change: Callable[[Any], object], expected: str) -> None:
        made = onnx_models.dense()
        change(made)
        (tmp_path / "x.onnx").write_bytes(made.SerializeToString())
        with pytest.raises(GraphError, match=expected) as caught:
            trace(model=str(tmp_path / "x.onnx"), graph=str(tmp_path / "graph.onnx"), names={})
        assert "\n" not in str(caught.value)

    def named_in_the_old_way(made: Any) -> None:
        made.opset_import[0].domain = "ai.onnx"

    made = onnx_models.dense()
    named_in_the_old_way(made)
    assert traced(made, tmp_path)["outputs"] == ["y"]
    refused(lambda made: made.ClearField("opset_import"), "does not say which version")
    refused(lambda made: setattr(made.graph.node[0], "op_type", "Nonsense"), "checker of onnx refuses")
    refused(lambda made: made.graph.node[0].input.__setitem__(1, "nowhere"), "checker of onnx refuses")
    refused(lambda made: made.graph.ClearField("node"), "checker of onnx refuses|is no graph")
    refused(lambda made: made.graph.node.append(made.graph.node[0]), "is no graph")
    refused(lambda made: made.graph.input[0].type.tensor_type.ClearField("shape"), "'x' has no shape")
    refused(lambda made: setattr(made.graph.input[0].type.tensor_type, "elem_type", 8), "STRING")


def test_external_data_of_an_inner_graph_stays_in_the_folder(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "outside").write_bytes(onnx_models.BIAS.tobytes())
    made = onnx_models.branching(own=True)
    assert "inner" in traced(made, tmp_path / "model")["parameters"]
    (tensor,) = (each for attribute in made.graph.node[1].attribute for each in attribute.g.initializer)
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../outside")
    (tmp_path / "model" / "x.onnx").write_bytes(made.SerializeToString())
    with pytest.raises(SafetyError):
        trace(model=str(tmp_path / "model" / "x.onnx"), graph=str(tmp_path / "graph.onnx"), names={})


@pytest.mark.parametrize("kind", onnx_models.VALID)
def test_to_onnx_again(kind: str, tmp_path: Path) -> None:
    """In onnxruntime, to the bit: the graph is the same but for what was cleaned."""
    onnx_models.save(onnx_models.VALID[kind](), tmp_path / "x.onnx", external=kind == "dense")
    report = converter.convert(tmp_path / "x.onnx", tmp_path / "y.onnx")
    assert report.verification.outputs
    onnx.checker.check_model(str(tmp_path / "y.onnx"), full_check=True)
    source, target = converter.read(tmp_path / "x.onnx"), converter.read(tmp_path / "y.onnx")
    assert set(source.tensors) == set(target.tensors)
    metadata = {entry.key: json.loads(entry.value) for entry in onnx.load(tmp_path / "y.onnx").metadata_props}
    assert metadata["ckconv"]["provenance"]["source"]["name"] == "x.onnx"


def test_to_a_savedmodel(tmp_path: Path) -> None:
    tensorflow = pytest.importorskip("tensorflow")
    onnx_models.save(onnx_models.dense(), tmp_path / "x.onnx")
    report = converter.convert(tmp_path / "x.onnx", tmp_path / "out", to="savedmodel")
    assert report.verification.outputs
    loaded = tensorflow.saved_model.load(str(tmp_path / "out"))
    names = {variable.name.removesuffix(":0"): variable.trainable for variable in loaded.variables}
    assert names == {"fc.weight": True, "fc.bias": True, "scale": False, "axes": False}
    x = np.ones((2, 3), np.float32)
    expected = np.maximum(x @ onnx_models.KERNEL + onnx_models.BIAS, 0).sum(1, keepdims=True) * 2 + 0.5
    np.testing.assert_allclose(loaded.signatures["serving_default"](x=tensorflow.constant(x))["y"], expected, rtol=1e-5)


def test_a_perturbed_weight_is_caught(tmp_path: Path) -> None:
    onnx_models.save(onnx_models.dense(), tmp_path / "x.onnx")
    checkpoint = converter.read(tmp_path / "x.onnx")
    report = converter.write(checkpoint, tmp_path / "same.onnx")
    assert report.verification.outputs
    made = onnx_models.dense()
    made.graph.initializer[1].CopyFrom(onnx.numpy_helper.from_array(onnx_models.BIAS + 1e-3, "fc.bias"))
    onnx_models.save(made, tmp_path / "other.onnx")
    object.__setattr__(checkpoint.graph, "model", tmp_path / "other.onnx")
    with pytest.raises(VerificationError, match="output 'y' differs"):
        converter.write(checkpoint, tmp_path / "y.onnx")


def test_in_another_opset(tmp_path: Path) -> None:
    onnx_models.save(onnx_models.dense(), tmp_path / "x.onnx")
    report = converter.convert(tmp_path / "x.onnx", tmp_path / "y.onnx", opset=21)
    assert report.verification.outputs
    assert [each.version for each in onnx.load(tmp_path / "y.onnx").opset_import] == [21]
    with pytest.raises(GraphError, match="cannot be converted to opset 7") as caught:
        converter.convert(tmp_path / "x.onnx", tmp_path / "z.onnx", opset=7)
    assert caught.value.exit_code == 7


def test_what_is_an_attribute_is_no_loss_where_the_graph_goes_along(tmp_path: Path) -> None:
    onnx.save(onnx_models.learnt(), tmp_path / "x.onnx")
    with pytest.raises(LossError, match="attribute of the operator LinearRegressor"):
        converter.convert(tmp_path / "x.onnx", tmp_path / "weights.onnx", weights_only=True)
    report = converter.convert(tmp_path / "x.onnx", tmp_path / "y.onnx")
    assert report.verification.outputs
    assert [(line.name, line.reason) for line in report.lines if line.name != "fc.weight"] == [
        ("learnt/coefficients", "no tensor of its own: a constant of the graph"),
        ("learnt/intercepts", "no tensor of its own: a constant of the graph"),
    ]


@pytest.mark.parametrize("extent", ["?", -1, ""])
def test_extents_without_a_name_are_not_one_extent(extent: Any, tmp_path: Path) -> None:
    """Paddle calls every axis that may vary "?", or writes -1."""
    from onnx import TensorProto, helper, numpy_helper

    float_ = TensorProto.FLOAT
    weight = numpy_helper.from_array(np.arange(12, dtype=np.float32).reshape(2, 3, 1, 2), "w")
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["c"]), helper.make_node("Relu", ["c"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", float_, [extent, 3, extent, extent])],
        [helper.make_tensor_value_info("y", float_, [extent, 2, extent, extent])],
        [weight],
        value_info=[helper.make_tensor_value_info("c", float_, [extent, 2, extent, extent])],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    assert traced(made, tmp_path)["inputs"][0]["shape"] == ["x_0", 3, "x_2", "x_3"]
    (tmp_path / "own.onnx").write_bytes(made.SerializeToString())
    converter.convert(tmp_path / "own.onnx", tmp_path / "own", to="savedmodel")
    converter.convert(tmp_path / "own.onnx", tmp_path / "own.pt2")
    import torch

    found = torch.export.load(tmp_path / "own.pt2").module()(x=torch.ones(2, 3, 4, 7))
    assert found["y"].shape == (2, 2, 4, 6)


def test_an_output_that_is_declared_with_other_axes(tmp_path: Path) -> None:
    """As in a model of ddddocr; onnxruntime warns and goes on."""
    from onnx import TensorProto, helper

    graph = helper.make_graph(
        [
            helper.make_node("Shape", ["x"], ["extents"]),
            helper.make_node("Concat", ["one", "extents"], ["wider"], axis=0),
            helper.make_node("Reshape", ["x", "wider"], ["y"]),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, "n"])],
        [helper.make_tensor("one", TensorProto.INT64, [1], [1])],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (tmp_path / "x.onnx").write_bytes(made.SerializeToString())
    report = converter.convert(tmp_path / "x.onnx", tmp_path / "out", to="savedmodel")
    assert report.verification.outputs

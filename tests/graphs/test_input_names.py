"""Inputs and outputs of ONNX files that are no names of Python: called by their own, where the framework takes that."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import converter
from converter.graphs.description.input_names import (
    not_taken_by_tensorflow,
    tensorflow_parameters,
    torch_parameters,
)

onnx = pytest.importorskip("onnx")

ODD = ("0", "self", "class", "入力", "input.1", "x:0", "a/b", "a_b", "_x", " ", "x²", "plain")
OTHERWISE = {"self": "self_", "class": "class_", "入力": "u5165u529b", "a/b": "a_b_", "x²": "xub2"}


def odd(path: Path) -> dict[str, Any]:
    """A model that gives each of its inputs times a number of its own; what to give it."""
    helper, elem = onnx.helper, onnx.TensorProto.FLOAT
    weight = onnx.numpy_helper.from_array(np.array([2.0, 3.0], np.float32), "w")
    graph = helper.make_graph(
        [helper.make_node("Mul", [name, "w"], [f"{name} out"]) for name in ODD],
        "odd",
        [helper.make_tensor_value_info(name, elem, ["n", 2]) for name in ODD],
        [helper.make_tensor_value_info(f"{name} out", elem, ["n", 2]) for name in ODD],
        [weight],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    return {name: np.full((1, 2), number, np.float32) for number, name in enumerate(ODD)}


def assert_computed(found: Any) -> None:
    assert set(found) == {f"{name} out" for name in ODD}
    for number, name in enumerate(ODD):
        np.testing.assert_array_equal(np.asarray(found[f"{name} out"]), [[2 * number, 3 * number]])


def test_to_a_savedmodel(tmp_path: Path) -> None:
    tensorflow = pytest.importorskip("tensorflow")
    from tensorflow.core.protobuf import saved_model_pb2

    given = odd(tmp_path / "x.onnx")
    report = converter.convert(tmp_path / "x.onnx", tmp_path / "out", to="savedmodel")
    assert report.verification.outputs
    assert {each for each in report.warnings if each.startswith("the input")} == {
        f"the input {name!r} is called {other!r}" for name, other in OTHERWISE.items()
    }
    document = json.loads((tmp_path / "out" / "assets.extra" / "ckconv.json").read_text())
    assert document["inputs"] == OTHERWISE
    loaded = tensorflow.saved_model.load(str(tmp_path / "out"))
    tensors = {OTHERWISE.get(name, name): tensorflow.constant(array) for name, array in given.items()}
    for function in (loaded, loaded.signatures["serving_default"]):
        assert_computed(function(**tensors))
    saved = saved_model_pb2.SavedModel.FromString((tmp_path / "out" / "saved_model.pb").read_bytes())
    inputs = saved.meta_graphs[0].signature_def["serving_default"].inputs
    as_before = {"input.1": "input_1", "x:0": "x_0"}
    assert set(inputs) == {as_before.get(name, name) for name in ODD}
    assert converter.verify(tmp_path / "x.onnx", tmp_path / "out").verification.outputs
    converter.convert(tmp_path / "out", tmp_path / "again.onnx")
    assert {"0", "self", "class", "入力", " "} <= {each.name for each in onnx.load(tmp_path / "again.onnx").graph.input}


def test_to_a_program(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    given = odd(tmp_path / "x.onnx")
    report = converter.convert(tmp_path / "x.onnx", tmp_path / "x.pt2")
    assert report.verification.outputs
    with zipfile.ZipFile(tmp_path / "x.pt2") as archive:
        (name,) = (each for each in archive.namelist() if each.endswith("ckconv.json"))
        called = json.loads(archive.read(name))["inputs"]
    assert called == torch_parameters(ODD)
    noted = {each for each in report.warnings if each.startswith("the input")}
    assert noted == {f"the input {name!r} is called {other!r}" for name, other in called.items() if name != other}
    program = torch.export.load(tmp_path / "x.pt2").module()
    with torch.no_grad():
        assert_computed(program(**{called[name]: torch.from_numpy(array) for name, array in given.items()}))


def test_to_onnx(tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    given = odd(tmp_path / "x.onnx")
    report = converter.convert(tmp_path / "x.onnx", tmp_path / "y.onnx")
    assert report.verification.outputs
    session = onnxruntime.InferenceSession(str(tmp_path / "y.onnx"), providers=["CPUExecutionProvider"])
    assert_computed(dict(zip([each.name for each in session.get_outputs()], session.run(None, given), strict=True)))


def test_parameters_are_the_names_where_python_has_them() -> None:
    assert torch_parameters(["input_ids", "x.1", "x_1", "0", "class", "self", "入力", "x²", "ﬁ"]) == {
        "input_ids": "input_ids",
        "x.1": "x_1_",
        "x_1": "x_1",
        "0": "input_0",
        "class": "input_class",
        "self": "input_self",
        "入力": "入力",
        "x²": "input_x_",
        "ﬁ": "_",
    }


def test_parameters_of_tensorflow_are_those_that_it_makes_of_names_itself() -> None:
    pytest.importorskip("tensorflow")
    from tensorflow.core.function.polymorphism.function_type import sanitize_arg_name

    called, others = tensorflow_parameters(ODD), not_taken_by_tensorflow(ODD)
    assert others == OTHERWISE
    assert {name: sanitize_arg_name(name) for name in ODD if name not in others} == {
        name: other for name, other in called.items() if name not in others
    }
    assert all(other.isidentifier() for other in called.values())
    assert len(set(called.values())) == len(ODD)

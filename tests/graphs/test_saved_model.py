"""The SavedModel around a graph: names, refusals, variables alone, the same bytes every time."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir
import pytest
from safetensors.numpy import save_file

from converter.errors import GraphError, UsageError
from converter.graphs.lower.tensorflow.saved_model import build

WEIGHTS = {
    "dense.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
    "scale": np.array(2, np.float32),
    "unused.running_mean": np.array([1.5, 2.5], np.float64),
    "step": np.array(7, np.int64),
    "mask": np.array([True, False]),
    "nothing": np.zeros((0, 4), np.float32),
}


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    """y = x @ dense.weight * scale, with both as references to the weights."""
    x = onnx_ir.val("x", dtype=onnx_ir.DataType.FLOAT, shape=["batch", 2])
    product = onnx_ir.node("MatMul", [x, _reference("dense.weight", [2, 3])])
    scaled = onnx_ir.node("Mul", [product.outputs[0], _reference("scale", [])])
    scaled.outputs[0].name = "y"
    initializers = [product.inputs[1], scaled.inputs[1]]
    made = onnx_ir.Graph(
        [x], scaled.outputs, nodes=[product, scaled], initializers=initializers, opset_imports={"": 20}
    )
    onnx_ir.save(onnx_ir.Model(made, ir_version=10), tmp_path / "graph.onnx")
    return tmp_path / "graph.onnx"


def _reference(name: str, shape: list[int]) -> Any:
    dtype = onnx_ir.DataType.FLOAT
    tensor = onnx_ir.ExternalTensor("weights", None, None, dtype, shape=onnx_ir.Shape(shape), name=name)
    return onnx_ir.Value(name=name, shape=tensor.shape, type=onnx_ir.TensorType(dtype), const_value=tensor)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    save_file(WEIGHTS, tmp_path / "weights.safetensors")
    return tmp_path / "weights.safetensors"


def test_variables_and_function_of_the_loaded_model(graph: Path, weights: Path, tmp_path: Path) -> None:
    import tensorflow as tf

    names = {"step": "escaped/step"}
    build(
        graph=str(graph), weights=str(weights), folder=str(tmp_path / "saved"), trainable=["dense.weight"], names=names
    )
    model = tf.saved_model.load(str(tmp_path / "saved"))
    served = model.signatures["serving_default"]
    assert (list(served.structured_input_signature[1]), list(served.structured_outputs)) == (["x"], ["y"])
    found = {variable.name: variable for variable in model.variables}
    assert set(found) == {f"{names.get(name, name)}:0" for name in WEIGHTS}
    for name, value in WEIGHTS.items():
        variable = found[f"{names.get(name, name)}:0"]
        assert variable.dtype == value.dtype
        assert variable.trainable == (name == "dense.weight")
        np.testing.assert_array_equal(variable.numpy(), value)
    assert [variable.name for variable in model.trainable_variables] == ["dense.weight:0"]

    for batch in (1, 5):
        x = np.random.default_rng(batch).normal(size=(batch, 2)).astype(np.float32)
        expected = x @ WEIGHTS["dense.weight"] * 2
        np.testing.assert_allclose(model(x=x)["y"], expected, rtol=1e-6)
        np.testing.assert_allclose(model.signatures["serving_default"](x=tf.constant(x))["y"], expected, rtol=1e-6)

    found["dense.weight:0"].assign(np.ones((2, 3), np.float32))
    np.testing.assert_allclose(model(x=np.ones((1, 2), np.float32))["y"], [[4, 4, 4]])


def test_variables_alone(weights: Path, tmp_path: Path) -> None:
    import tensorflow as tf

    build(graph=None, weights=str(weights), folder=str(tmp_path / "saved"), trainable=["scale"], names={})
    model = tf.saved_model.load(str(tmp_path / "saved"))
    assert {variable.name for variable in model.variables} == {f"{name}:0" for name in WEIGHTS}
    assert list(model.signatures) == []


@pytest.mark.parametrize("name", ["_hidden", "has space", "a@b", ""])
def test_a_name_that_tensorflow_refuses(name: str, graph: Path, weights: Path, tmp_path: Path) -> None:
    arguments: dict[str, Any] = {"graph": str(graph), "weights": str(weights), "trainable": []}
    build(**arguments, folder=str(tmp_path / "right"), names={})
    with pytest.raises(GraphError, match="refuses the variable name") as caught:
        build(**arguments, folder=str(tmp_path / "wrong"), names={"scale": name})
    assert caught.value.tensor == "scale"
    assert not (tmp_path / "wrong").exists()


def test_an_initializer_without_values(graph: Path, weights: Path, tmp_path: Path) -> None:
    arguments: dict[str, Any] = {"graph": str(graph), "trainable": [], "names": {}}
    build(**arguments, weights=str(weights), folder=str(tmp_path / "right"))
    save_file({name: each for name, each in WEIGHTS.items() if name != "scale"}, weights)
    with pytest.raises(GraphError, match="neither a variable nor a constant") as caught:
        build(**arguments, weights=str(weights), folder=str(tmp_path / "wrong"))
    assert caught.value.tensor == "scale"


def test_a_tensor_of_another_shape(graph: Path, weights: Path, tmp_path: Path) -> None:
    save_file({**WEIGHTS, "dense.weight": np.zeros((3, 2), np.float32)}, weights)
    with pytest.raises(GraphError, match=r"has shape \[3, 2\], the graph declares \[2, 3\]"):
        build(graph=str(graph), weights=str(weights), folder=str(tmp_path / "saved"), trainable=[])


def test_an_input_type_that_is_no_index(graph: Path, weights: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="int16"):
        build(graph=str(graph), weights=str(weights), folder=str(tmp_path), trainable=[], input_dtype="int16")


def test_a_header_that_lies(weights: Path, tmp_path: Path) -> None:
    good = weights.read_bytes()
    build(graph=None, weights=str(weights), folder=str(tmp_path / "right"), trainable=[])
    for bad in (good[:-8], b"\xff" * 8 + good[8:], good[:8] + b"x" + good[9:]):
        weights.write_bytes(bad)
        with pytest.raises(GraphError, match="header"):
            build(graph=None, weights=str(weights), folder=str(tmp_path / "wrong"), trainable=[])


def test_inputs_whose_names_are_no_identifiers(weights: Path, tmp_path: Path) -> None:
    import tensorflow as tf

    x = onnx_ir.val("past.0.key", dtype=onnx_ir.DataType.FLOAT, shape=["batch", 2])
    product = onnx_ir.node("MatMul", [x, _reference("dense.weight", [2, 3])])
    product.outputs[0].name = "present.0.key"
    made = onnx_ir.Graph(
        [x], product.outputs, nodes=[product], initializers=[product.inputs[1]], opset_imports={"": 20}
    )
    onnx_ir.save(onnx_ir.Model(made, ir_version=10), tmp_path / "graph.onnx")
    graph, folder = str(tmp_path / "graph.onnx"), str(tmp_path / "saved")
    build(graph=graph, weights=str(weights), folder=folder, trainable=[], names={})
    loaded = tf.saved_model.load(folder)
    array = np.array([[1, 2]], np.float32)
    for function in (loaded, loaded.signatures["serving_default"]):
        found = function(past_0_key=tf.constant(array))["present.0.key"]
        np.testing.assert_allclose(found, array @ WEIGHTS["dense.weight"])


def test_the_same_bytes_from_every_process(
    graph: Path, weights: Path, tmp_path: Path, child_environment: dict[str, str]
) -> None:
    program = (
        "import sys; from converter.graphs.lower.tensorflow.saved_model import build; "
        "build(graph=sys.argv[1], weights=sys.argv[2], folder=sys.argv[3], trainable=['scale'], names={})"
    )
    digests = []
    for number in range(2):
        folder = tmp_path / f"saved{number}"
        environment = {**child_environment, "PYTHONHASHSEED": str(number)}
        subprocess.run(
            [sys.executable, "-c", program, str(graph), str(weights), str(folder)],
            env=environment,
            check=True,
            capture_output=True,
        )
        digests.append(
            {
                str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
                for path in folder.rglob("*")
                if path.is_file() and path.name != "fingerprint.pb"
            }
        )
    assert digests[0] == digests[1]
    assert "saved_model.pb" in digests[0]


def test_integer_inputs_are_of_the_types_that_the_graph_has_unless_another_is_asked_for(
    weights: Path, tmp_path: Path
) -> None:
    import tensorflow as tf

    narrow = onnx_ir.val("narrow", dtype=onnx_ir.DataType.INT32, shape=["batch"])
    wide = onnx_ir.val("wide", dtype=onnx_ir.DataType.INT64, shape=["batch"])
    cast = onnx_ir.node("Cast", [narrow], {"to": onnx_ir.DataType.INT64})
    total = onnx_ir.node("Add", [cast.outputs[0], wide])
    total.outputs[0].name = "y"
    made = onnx_ir.Graph([narrow, wide], total.outputs, nodes=[cast, total], opset_imports={"": 20})
    onnx_ir.save(onnx_ir.Model(made, ir_version=10), tmp_path / "graph.onnx")
    arguments: dict[str, Any] = {"graph": str(tmp_path / "graph.onnx"), "weights": str(weights), "trainable": []}
    for asked, expected in (("auto", ["int32", "int64"]), ("int64", ["int64"] * 2), ("int32", ["int32"] * 2)):
        build(**arguments, folder=str(tmp_path / asked), input_dtype=asked)
        serve = tf.saved_model.load(str(tmp_path / asked)).signatures["serving_default"]
        types = [serve.structured_input_signature[1][name].dtype.name for name in ("narrow", "wide")]
        assert types == expected

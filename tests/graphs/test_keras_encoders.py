"""Whole Keras models around TensorFlow models of transformers: the graph of the whole computes what they did."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import converter
from converter.errors import ArchitectureError, CkconvError, GraphError, SafetyError

for framework in ("tensorflow", "torch", "transformers", "onnxruntime"):
    pytest.importorskip(framework)

pytestmark = pytest.mark.one_in(3)
FIXTURES = Path(__file__).resolve().parents[2] / "fixtures" / "keras-encoders"
CASES = ["numbers.h5", "numbers.keras", "pooling.h5", "pooling.keras", "siamese.h5", "siamese.keras", "by-name.h5"]
CASES += ["deberta.h5", "deberta-v2.h5"]


def stored(case: str, what: str) -> dict[str, Any]:
    """Inputs ("in") or outputs ("out") that TensorFlow's own class gave."""
    with np.load(FIXTURES / f"{case.partition('.')[0]}.npz") as arrays:
        return {name.partition(":")[2]: arrays[name] for name in arrays.files if name.startswith(f"{what}:")}


def assert_equal(outputs: dict[str, Any], case: str) -> None:
    wanted = stored(case, "out")
    assert set(outputs) == set(wanted)
    for name, each in wanted.items():
        np.testing.assert_allclose(outputs[name], each, rtol=1e-5, atol=2e-6)


def run_onnx(file: Path, case: str) -> dict[str, Any]:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file))
    names = [each.name for each in session.get_outputs()]
    return dict(zip(names, session.run(None, stored(case, "in")), strict=True))


@pytest.mark.parametrize("case", CASES)
def test_the_graph_of_the_whole_model_computes_what_tensorflow_did(case: str, tmp_path: Path) -> None:
    report = converter.convert(FIXTURES / case, tmp_path / "out.onnx", optimizer="drop")
    assert report.verification.outputs
    assert any("is computed as PyTorch's" in each for each in report.warnings)
    assert_equal(run_onnx(tmp_path / "out.onnx", case), case)


def test_a_saved_model_has_the_inputs_and_outputs_of_the_keras_model(tmp_path: Path) -> None:
    import tensorflow as tf

    converter.convert(FIXTURES / "siamese.h5", tmp_path / "out", to="savedmodel")
    serve = tf.saved_model.load(str(tmp_path / "out")).signatures["serving_default"]
    types = {name: each.dtype for name, each in serve.structured_input_signature[1].items()}
    given = serve(**{name: tf.cast(each, types[name]) for name, each in stored("siamese", "in").items()})
    assert_equal({name: each.numpy() for name, each in given.items()}, "siamese")


def test_a_program_of_torch_computes_the_same(tmp_path: Path) -> None:
    import torch

    converter.convert(FIXTURES / "numbers.h5", tmp_path / "out.pt2")
    program = torch.export.load(tmp_path / "out.pt2")
    inputs = {name: torch.from_numpy(each) for name, each in stored("numbers", "in").items()}
    (output,) = program.module()(**inputs).values()
    assert_equal({"answer": output.detach().numpy()}, "numbers")


def changed(tmp_path: Path, change: Any) -> Path:
    """The model with three inputs, its config changed."""
    path = tmp_path / "changed.h5"
    shutil.copyfile(FIXTURES / "numbers.h5", path)
    with h5py.File(path, "r+") as file:
        config = json.loads(file.attrs["model_config"])
        change({layer["name"]: layer for layer in config["config"]["layers"]})
        file.attrs["model_config"] = json.dumps(config)
    return path


def test_a_function_of_tensorflow_that_no_model_calls_is_refused(tmp_path: Path) -> None:
    def change(layers: dict[str, Any]) -> None:
        layer = layers["tf.__operators__.getitem"]
        layer["class_name"], layer["config"]["function"] = "TFOpLambda", "io.read_file"

    with pytest.raises(SafetyError, match=r"tf\.io\.read_file"):
        converter.convert(changed(tmp_path, change), tmp_path / "out.onnx")


def test_a_file_cannot_name_the_layers_that_stand_in(tmp_path: Path) -> None:
    def change(layers: dict[str, Any]) -> None:
        layer = layers["tf.__operators__.getitem"]
        layer["class_name"], layer["config"] = "OperationOfTensorFlow", {"name": "sine", "function": "math.sin"}

    with pytest.raises(ArchitectureError, match=r"OperationOfTensorFlow.*not Keras's own"):
        converter.convert(changed(tmp_path, change), tmp_path / "out.onnx")


def test_a_call_with_more_than_the_class_takes_is_refused(tmp_path: Path) -> None:
    def change(layers: dict[str, Any]) -> None:
        (call,) = layers["tf_bert_model"]["inbound_nodes"]
        call[0][3]["head_mask"] = ["attention_mask", 0, 0]

    with pytest.raises(CkconvError, match="head_mask, which its graph does not take"):
        converter.convert(changed(tmp_path, change), tmp_path / "out.onnx")


def test_inputs_in_a_list_of_another_order_are_refused(tmp_path: Path) -> None:
    def change(layers: dict[str, Any]) -> None:
        (call,) = layers["tf_bert_model"]["inbound_nodes"]
        call.reverse()

    with pytest.raises(CkconvError, match="has attention_mask in the place of input_ids"):
        converter.convert(changed(tmp_path, change), tmp_path / "out.onnx")


def without(words: str, folder: Path) -> Path:
    """The model with three inputs, without the variables of its encoder whose names have `words` in them."""
    path = folder / "numbers.h5"
    shutil.copyfile(FIXTURES / "numbers.h5", path)
    with h5py.File(path, "r+") as file:
        group = file["model_weights/tf_bert_model"]
        names = list(group.attrs["weight_names"])
        for name in names:
            if words in name:
                del group[name]
        group.attrs["weight_names"] = [name for name in names if words not in name]
    return path


def test_a_model_without_the_pooler_of_its_class_computes_without_it(tmp_path: Path) -> None:
    """As add_pooling_layer=False saves it, which the config does not say."""
    report = converter.convert(without("/pooler/", tmp_path), tmp_path / "out.onnx", optimizer="drop")
    assert report.verification.outputs
    assert_equal(run_onnx(tmp_path / "out.onnx", "numbers"), "numbers")


def test_a_weight_that_all_of_it_needs_is_missed(tmp_path: Path) -> None:
    with pytest.raises(GraphError, match="the class has it, the Keras model does not"):
        converter.convert(without("_0/output", tmp_path), tmp_path / "out.onnx", optimizer="drop")


def apart(model: Path, folder: Path, *, is_whole: bool) -> tuple[Path, Path]:
    """The config of a Keras model as `to_json` or, if not whole, `get_config` gives it, and its weights: two files."""
    config = folder / "keras.json"
    if model.suffix == ".keras":
        weights = folder / "model.weights.h5"
        with zipfile.ZipFile(model) as archive:
            weights.write_bytes(archive.read("model.weights.h5"))
            values = json.loads(archive.read("config.json"))
    else:
        weights = folder / "weights.h5"
        with h5py.File(model) as source, h5py.File(weights, "w") as target:
            values = json.loads(source.attrs["model_config"])
            for name, group in source["model_weights"].items():
                source.copy(group, target, name)
            target.attrs.update(source["model_weights"].attrs)
    config.write_text(json.dumps(values if is_whole else values["config"]))
    return config, weights


@pytest.mark.parametrize(
    ("case", "is_whole"),
    [("numbers.keras", True), ("siamese.keras", False), ("by-name.h5", True), ("numbers.h5", False)],
)
def test_config_and_weights_may_be_in_two_files(case: str, is_whole: bool, tmp_path: Path) -> None:
    config, weights = apart(FIXTURES / case, tmp_path, is_whole=is_whole)
    report = converter.convert(weights, tmp_path / "out.onnx", config=config, optimizer="drop")
    assert report.verification.outputs
    assert_equal(run_onnx(tmp_path / "out.onnx", case), case)


def ports(file: Path) -> list[str]:
    import onnx

    graph = onnx.load(file).graph
    return [each.name for each in (*graph.input, *graph.output)]


@pytest.mark.parametrize("is_whole", [True, False])
def test_those_of_keras_3_alone_may_be_too(is_whole: bool, tmp_path: Path) -> None:
    model = FIXTURES.parent / "graphs" / "two-inputs.keras"
    converter.convert(model, tmp_path / "whole.onnx", optimizer="drop")
    config, weights = apart(model, tmp_path, is_whole=is_whole)
    report = converter.convert(weights, tmp_path / "out.onnx", config=config, optimizer="drop")
    assert report.verification.outputs
    assert ports(tmp_path / "out.onnx") == ports(tmp_path / "whole.onnx")


STATES = ("output_hidden_states", "output_attentions")


@pytest.mark.parametrize("where", ["config", "call"])
def test_places_of_outputs_count_the_states_that_a_model_returns(where: str, tmp_path: Path) -> None:
    """tf.nest lists fields by their names: attentions, hidden_states, last_hidden_state, pooler_output."""

    def change(layers: dict[str, Any]) -> None:
        layer = layers["tf_bert_model"]
        (call,) = layer["inbound_nodes"]
        call[0][3] |= {"training": False, **(dict.fromkeys(STATES, True) if where == "call" else {})}
        if where == "config":
            layer["config"] |= dict.fromkeys(STATES, True)
        (port,) = layers["tf.__operators__.getitem"]["inbound_nodes"]
        count = layer["config"]["num_hidden_layers"]
        port[2] = 2 * count  # the last of the hidden states, behind attentions, embeddings and the other layers

    converter.convert(changed(tmp_path, change), tmp_path / "out.onnx", optimizer="drop")
    assert_equal(run_onnx(tmp_path / "out.onnx", "numbers.h5"), "numbers.h5")


def test_calls_that_return_other_states_are_refused(tmp_path: Path) -> None:
    def change(layers: dict[str, Any]) -> None:
        calls = layers["tf_bert_model"]["inbound_nodes"]
        calls.append([[*calls[0][0][:3], {**calls[0][0][3], "output_hidden_states": True}]])

    with pytest.raises(ArchitectureError, match=r"with and without output_hidden_states.*model\.save\(folder\)"):
        converter.convert(changed(tmp_path, change), tmp_path / "out.onnx", optimizer="drop")

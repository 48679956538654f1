"""Graphs of TensorFlow to ONNX: valid, the same outputs at two shapes as the source itself, every variable by its name.

The sources are those of fixtures/graphs, older fixtures, and what tests.graphs.tensorflow_sources makes; one process
converts and runs them all.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import converter

pytest.importorskip("tensorflow")

ROOT = Path(__file__).parents[2]
FIXTURES = ROOT / "fixtures"
TRANSFORMERS = ("bert", "gpt2", "t5", "vit", "xlm-roberta")
KERAS = tuple(
    f"{case}{suffix}" for case in ("attention", "cnn", "lstm", "siamese", "two-inputs") for suffix in (".h5", ".keras")
)
OLDER = {
    "keras2": "keras/saved_model",
    "bert_func": "names/bert_func_savedmodel/saved_model",
    "model.h5": "keras/model.h5",
}
MADE = ("own.keras", "tf1", "loops", "exported", "arithmetic")
SMALL = 1e-5

Found = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Found:
    folder = tmp_path_factory.mktemp("sources")
    sources = [FIXTURES / "graphs" / name for name in KERAS]
    for case in TRANSFORMERS:
        shutil.unpack_archive(FIXTURES / f"graphs/{case}.tar.xz", folder / "unpacked" / case)
        (folder / case).symlink_to(folder / "unpacked" / case / "saved_model/1")
        sources.append(folder / case)
    for name, path in OLDER.items():
        (folder / name).symlink_to(FIXTURES / path)
        sources.append(folder / name)
    command = [sys.executable, "-m", "tests.graphs.tensorflow_side", str(folder / "answer.json"), *map(str, sources)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    answer: Found = json.loads((folder / "answer.json").read_text())
    return answer


@pytest.mark.parametrize("name", [*TRANSFORMERS, *KERAS, *OLDER, *MADE])
def test_the_graph_is_valid_and_computes_what_the_source_does(found: Found, name: str) -> None:
    assert found[name].get("error") is None
    assert found[name]["worst"] < SMALL
    assert found[name]["unknown"] == []
    assert found[name]["initializers"]


def test_how_far_the_worst_of_them_is(found: Found, tell: Callable[[str], None]) -> None:
    worst = {name: each["worst"] for name, each in found.items() if "worst" in each}
    assert len(worst) == len([*TRANSFORMERS, *KERAS, *OLDER, *MADE])
    far = max(worst, key=lambda name: worst[name])
    classes = ", ".join(f"{name} {worst[name]:.1e}" for name in TRANSFORMERS)
    tell(
        f"TensorFlow to ONNX: {len(worst)} sources, at most {worst[far]:.1e} ({far}) from their own outputs; {classes}"
    )


@pytest.mark.parametrize("name", [*TRANSFORMERS, *KERAS])
def test_every_variable_is_an_initializer_by_its_name(found: Found, name: str) -> None:
    assert found[name]["unused"] == []


def test_inputs_and_outputs_keep_names_and_free_dimensions(found: Found) -> None:
    text = ["batch", "sequence"]
    assert found["bert"]["inputs"] == {"attention_mask": text, "input_ids": text, "token_type_ids": text}
    assert found["bert"]["outputs"] == ["end_logits", "start_logits"]
    assert found["t5"]["inputs"]["decoder_input_ids"] == ["batch", "decoder_sequence"]
    assert found["vit"]["inputs"] == {"pixel_values": ["batch", 3, 12, 12]}
    assert found["cnn.keras"]["inputs"] == {"image": ["batch", 12, 12, 3]}
    assert found["lstm.h5"]["inputs"] == {"ids": text}
    assert found["attention.keras"]["inputs"] == {"x": ["batch", "x_1", 8]}
    assert list(found["two-inputs.keras"]["inputs"]) == ["left", "right"]
    assert sorted(found["two-inputs.keras"]["outputs"]) == ["joined", "score"]
    assert found["siamese.keras"]["outputs"] == ["similarity"]


def test_what_is_not_trained_in_the_source_is_a_buffer(found: Found) -> None:
    assert found["cnn.keras"]["buffers"] == ["norm/moving_mean", "norm/moving_variance"]
    assert found["exported"]["buffers"] == ["norm/moving_mean", "norm/moving_variance"]
    assert found["tf1"]["buffers"] == ["steps"]
    assert found["loops"]["buffers"] == ["also_zeros"]
    assert found["bert"]["buffers"] == []


def test_equal_values_are_not_taken_for_one_another(found: Found) -> None:
    assert {"zeros", "also_zeros", "table", "kernel"} == set(found["loops"]["initializers"])


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_a_model_of_keras_2_computes_what_keras_2_does(suffix: str, tmp_path: Path) -> None:
    import numpy as np
    import onnxruntime

    converter.convert(FIXTURES / f"graphs/keras-2{suffix}", tmp_path / "x.onnx")
    expected = np.load(FIXTURES / "graphs/keras-2.npz")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(tmp_path / "x.onnx", options)
    assert [each.shape for each in session.get_inputs()] == [["batch", "left_1"], ["batch", "right_1"]]
    found = session.run(["same", "head"], {name: expected[name] for name in ("left", "right")})
    for name, array in zip(("same", "head"), found, strict=True):
        np.testing.assert_allclose(array, expected[name], atol=SMALL)


def test_a_keras_model_becomes_a_savedmodel_that_trains(tmp_path: Path) -> None:
    import tensorflow as tf

    report = converter.convert(FIXTURES / "graphs/cnn.keras", tmp_path / "out", to="savedmodel")
    assert report.verification.outputs
    loaded = tf.saved_model.load(str(tmp_path / "out"))
    names = {variable.name.removesuffix(":0") for variable in loaded.variables}
    trained = {variable.name.removesuffix(":0") for variable in loaded.trainable_variables}
    assert {"conv.weight", "norm.running_mean", "head.bias"} < names
    assert trained == {name for name in names if not name.startswith("norm.running") and "num_batches" not in name}
    with tf.GradientTape() as tape:
        scores = loaded(image=tf.ones([2, 12, 12, 3]))["head"]
        loss = tf.reduce_sum(scores[:, 0])
    assert all(each is not None for each in tape.gradient(loss, loaded.trainable_variables))


def test_recurrent_layers_become_a_program_of_torch_that_trains(tmp_path: Path) -> None:
    import keras
    import numpy as np
    import torch

    layers = keras.layers
    x = layers.Input((None, 6), name="x")
    here = layers.TimeDistributed(layers.Dense(7, activation="tanh"))(x)
    here = layers.Bidirectional(layers.LSTM(5, return_sequences=True))(here)
    model = keras.Model(x, layers.Dense(3, name="head")(layers.GRU(4)(here)))
    model.save(tmp_path / "x.keras")
    report = converter.convert(tmp_path / "x.keras", tmp_path / "x.pt2")
    assert report.verification.outputs
    program = torch.export.load(tmp_path / "x.pt2").module()
    for shape in ((2, 4, 6), (3, 9, 6)):
        given = np.random.default_rng(0).normal(size=shape).astype(np.float32)
        found = program(x=torch.from_numpy(given))["head"]
        np.testing.assert_allclose(found.detach().numpy(), model(given), atol=SMALL)
    found.sum().backward()
    trained = {name: parameter for name, parameter in program.named_parameters() if ".bias_hh" not in name}
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in trained.values())


def test_what_keras_compiles_is_a_part_of_the_graph(tmp_path: Path) -> None:
    """Convolutions of groups, which TensorFlow has for a CPU in functions of XLA alone."""
    import keras
    import onnx

    x = keras.Input((8, 8, 4), name="x")
    keras.Model(x, keras.layers.Conv2D(6, 3, groups=2, name="grouped")(x)).save(tmp_path / "x.keras")
    assert converter.convert(tmp_path / "x.keras", tmp_path / "x.onnx").verification.outputs
    assert "Conv" in {node.op_type for node in onnx.load(tmp_path / "x.onnx").graph.node}


def test_a_value_on_a_boundary_is_in_the_bucket_above(tmp_path: Path) -> None:
    import keras
    import numpy as np
    import onnxruntime

    inputs = keras.Input((3,), name="x")
    buckets = keras.layers.Discretization([-0.5, 0.0, 0.7])(inputs)
    model = keras.Model(inputs, keras.layers.Flatten()(keras.layers.Embedding(4, 2)(buckets)))
    model.save(tmp_path / "model.keras")
    assert converter.convert(tmp_path / "model.keras", tmp_path / "model.onnx").verification.outputs
    x = np.array([[-0.5, 0.0, 0.7], [-0.6, -1e-7, np.float32(0.7) - 1e-6], [9.0, -9.0, 0.1]], np.float32)
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"))
    np.testing.assert_array_equal(session.run(None, {"x": x})[0], model(x))

"""Config -> trace -> lower -> SavedModel -> reload, against torch: values, gradients and names."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from converter.graphs.description.signature import Signature
from converter.graphs.lower.tensorflow.saved_model import build
from converter.graphs.run.arrays import read_sets
from tests.graphs.conftest import ARCHITECTURES, EVERY_ARCHITECTURE

Prepared = Callable[[str], Path]


def _described(folder: Path) -> Signature:
    return Signature.from_json(json.loads((folder / "architecture.json").read_text()))


def _built(folder: Path, target: Path, weights: Path | None = None, **options: Any) -> Any:
    import tensorflow as tf

    build(
        graph=str(folder / "graph.onnx"),
        weights=str(weights or folder / "model.safetensors"),
        folder=str(target),
        trainable=list(_described(folder).parameters),
        **options,
    )
    return tf.saved_model.load(str(target))


def _difference(folder: Path, model: Any) -> float:
    """The largest difference to torch at both shapes, in units of max(1, max |output|)."""
    expected = read_sets(str(folder / "outputs.npz"))
    worst = 0.0
    for number, inputs in read_sets(str(folder / "inputs.npz")).items():
        outputs = model(**inputs)
        assert set(outputs) == set(expected[number])
        for name, value in expected[number].items():
            assert outputs[name].shape == value.shape
            worst = max(worst, float(np.abs(outputs[name] - value).max() / max(1.0, np.abs(value).max())))
    return worst


def test_what_is_left_out_is_told(tell: Callable[[str], None]) -> None:
    count, everything = len(ARCHITECTURES), len(EVERY_ARCHITECTURE)
    assert count >= everything // 6
    if count < everything:
        tell(f"{count} classes by parity; {everything - count} left out (CKCONV_ORACLE_FULL=1 takes all)")


def test_parity(architecture: str, prepared: Prepared, tmp_path: Path) -> None:
    import tensorflow as tf

    folder = prepared(architecture)
    described = _described(folder)
    with safe_open(folder / "model.safetensors", "numpy") as stored:
        names = set(stored.keys())
    assert set(described.parameters) | set(described.buffers) == names

    model = _built(folder, tmp_path / "saved")

    assert {variable.name.removesuffix(":0") for variable in model.variables} == names
    assert {variable.name.removesuffix(":0") for variable in model.trainable_variables} == set(described.parameters)
    assert _difference(folder, model) < 1e-5

    inputs = read_sets(str(folder / "inputs.npz"))["0"]
    with tf.GradientTape() as tape:
        loss = tf.add_n([tf.reduce_sum(tf.square(output)) for output in model(**inputs).values()])
    found = dict(
        zip(
            (variable.name.removesuffix(":0") for variable in model.trainable_variables),
            tape.gradient(loss, model.trainable_variables),
            strict=True,
        )
    )
    with np.load(folder / "gradients.npz") as expected:
        assert len(expected.files) > 10
        for name in expected.files:
            assert found[name] is not None, name
            np.testing.assert_allclose(
                tf.convert_to_tensor(found[name]), expected[name], atol=1e-4 * max(1, np.abs(expected[name]).max())
            )


def test_the_comparison_sees_one_changed_tensor(prepared: Prepared, tmp_path: Path) -> None:
    folder = prepared("BertModel")
    assert _difference(folder, _built(folder, tmp_path / "right")) < 1e-5
    tensors = load_file(folder / "model.safetensors")
    tensors["encoder.layer.0.output.dense.bias"][0] += 1e-3
    save_file(tensors, tmp_path / "changed.safetensors")
    assert _difference(folder, _built(folder, tmp_path / "wrong", tmp_path / "changed.safetensors")) > 1e-5


def test_int32_inputs(prepared: Prepared, tmp_path: Path) -> None:
    import tensorflow as tf

    folder = prepared("BertModel")
    model = _built(folder, tmp_path / "saved", input_dtype="int32")
    signature = model.signatures["serving_default"].structured_input_signature[1]
    assert {name: (each.dtype, each.shape.as_list()) for name, each in signature.items()} == dict.fromkeys(
        ["input_ids", "token_type_ids", "attention_mask"], (tf.int32, [None, None])
    )
    inputs = {name: array.astype(np.int32) for name, array in read_sets(str(folder / "inputs.npz"))["0"].items()}
    expected = read_sets(str(folder / "outputs.npz"))["0"]
    np.testing.assert_allclose(model(**inputs)["pooler_output"], expected["pooler_output"], atol=1e-5)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_weights_compute_as_the_graph_says(dtype: str, prepared: Prepared, tmp_path: Path) -> None:
    import ml_dtypes  # noqa: F401

    folder = prepared("BertModel")
    half = {name: tensor.astype(np.dtype(dtype)) for name, tensor in load_file(folder / "model.safetensors").items()}
    save_file(half, tmp_path / "half.safetensors")
    save_file({name: each.astype(np.float32) for name, each in half.items()}, tmp_path / "rounded.safetensors")
    model = _built(folder, tmp_path / "half", tmp_path / "half.safetensors")
    rounded = _built(folder, tmp_path / "rounded", tmp_path / "rounded.safetensors")
    assert {variable.dtype.name for variable in model.variables} == {dtype}
    inputs = read_sets(str(folder / "inputs.npz"))["0"]
    np.testing.assert_array_equal(model(**inputs)["last_hidden_state"], rounded(**inputs)["last_hidden_state"])

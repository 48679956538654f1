"""Graphs of files of Keras 1, held against its equations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import converter
from tests.dialects import keras_1_files as older
from tests.dialects.keras_1_files import drawn, layer, placed

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("tensorflow")


def outputs(source: Path, inputs: dict[str, Any]) -> Any:
    target = source.with_suffix(".onnx")
    report = converter.convert(source, target)
    assert report.verification is not None
    session = onnxruntime.InferenceSession(target, providers=["CPUExecutionProvider"])
    (result,) = session.run(None, inputs)
    return result


def test_recurrent_layers_and_merges(tmp_path: Path) -> None:
    """An Embedding, an LSTM and a GRU with hard gates, both directions and a merge of each kind."""
    table = drawn(7, 3)
    forward, backward = (older.gates(f"{way}_gru_1", "zrh", 3, 4) for way in ("forward", "backward"))
    long = older.gates("lstm_1", "icfo", 3, 8)
    dense = {"dense_1_W": drawn(8, 2), "dense_1_b": drawn(2)}
    inner = older.recurrent("GRU", "forward_gru_1", 4)
    merge = {"mode_type": "raw", "concat_axis": -1, "dot_axes": -1, "output_shape": None, "arguments": {}}
    config = older.functional(
        [
            older.source("words", [5], "int32"),
            placed(layer("Embedding", "embedding_1", input_dim=7, output_dim=3, input_length=5, dropout=0.0), "words"),
            placed(layer("Bidirectional", "bidirectional_1", layer=inner, merge_mode="concat"), "embedding_1"),
            placed(older.recurrent("LSTM", "lstm_1", 8), "embedding_1"),
            placed(
                {"class_name": "Merge", "config": {"name": "merge_1", "mode": "mul", **merge}},
                "bidirectional_1",
                "lstm_1",
            ),
            placed({"class_name": "Merge", "config": {"name": "merge_2", "mode": "sum", **merge}}, "merge_1", "lstm_1"),
            placed(
                layer("TimeDistributed", "timedistributed_1", layer=layer("Dense", "dense_1", output_dim=2, bias=True)),
                "merge_2",
            ),
        ],
        "timedistributed_1",
    )
    weights = {
        "words": {},
        "embedding_1": {"embedding_1_W": table},
        "bidirectional_1": {**forward, **backward},
        "lstm_1": long,
        "merge_1": {},
        "merge_2": {},
        "timedistributed_1": dense,
    }
    words = np.array([[1, 2, 3, 4, 5], [6, 5, 0, 1, 1]], np.int32)
    steps = table[words]
    ways = [older.gru(steps, "forward_gru_1", forward), older.gru(steps[:, ::-1], "backward_gru_1", backward)[:, ::-1]]
    both, own = np.concatenate(ways, -1), older.lstm(steps, "lstm_1", long)
    expected = (both * own + own) @ dense["dense_1_W"] + dense["dense_1_b"]
    result = outputs(older.write(tmp_path / "m.h5", config, weights), {"words": words})
    np.testing.assert_allclose(result, expected, atol=1e-5)


@pytest.mark.parametrize("is_theano", [True, False])
def test_a_sequential_with_a_flatten(is_theano: bool, tmp_path: Path) -> None:
    kernel, rows = drawn(2, 3, 3, 4), drawn(64, 2)
    config = older.sequential(
        older.convolution("Convolution2D", "convolution2d_1", "tf", (2, 3), nb_filter=4, bias=False),
        layer("Flatten", "flatten_1"),
        layer("Dense", "dense_1", output_dim=2, activation="linear", bias=False, input_dim=64),
        shape=(5, 6, 3),
    )
    weights = {"convolution2d_1": {"convolution2d_1_W": kernel}, "flatten_1": {}, "dense_1": {"dense_1_W": rows}}
    maps = drawn(2, 5, 6, 3)
    expected = older.convolved(maps, kernel, "tf", is_theano=is_theano).reshape(2, 64) @ rows
    source = older.write(tmp_path / "m.h5", config, weights, is_theano=is_theano)
    np.testing.assert_allclose(outputs(source, {"convolution2d_1_input": maps}), expected, atol=1e-5)


def test_a_sequential_that_begins_with_a_merge(tmp_path: Path) -> None:
    def branch(number: int) -> dict[str, Any]:
        name = f"dense_{number}"
        own = layer("Dense", name, output_dim=4, activation="linear", bias=False, batch_input_shape=[None, 3])
        return {"class_name": "Sequential", "config": [own]}

    merge = {
        "name": "merge_1",
        "mode": "concat",
        "mode_type": "raw",
        "concat_axis": -1,
        "layers": [branch(1), branch(2)],
    }
    last = layer("Dense", "dense_3", output_dim=2, activation="linear", bias=False, W_regularizer=None)
    config = {"class_name": "Sequential", "config": [{"class_name": "Merge", "config": merge}, last]}
    kernels = {number: drawn(*((8, 2) if number == 3 else (3, 4)), seed=number) for number in (1, 2, 3)}
    weights = {f"dense_{number}": {f"dense_{number}_W": kernel} for number, kernel in kernels.items()}
    a, b = drawn(2, 3, seed=5), drawn(2, 3, seed=6)
    expected = np.concatenate([a @ kernels[1], b @ kernels[2]], -1) @ kernels[3]
    source = older.write(tmp_path / "m.h5", config, weights)
    np.testing.assert_allclose(outputs(source, {"dense_1_input": a, "dense_2_input": b}), expected, atol=1e-5)


@pytest.mark.parametrize("is_theano", [True, False])
def test_channels_first_of_as_many_as_places(is_theano: bool, tmp_path: Path) -> None:
    """The bias belongs to the channels, normalization too; the Flatten has them first."""
    kernel, rows = drawn(4, 3, 3, 3), drawn(16, 2)
    norm = {name: np.abs(drawn(4, seed=number)) for number, name in enumerate(("gamma", "beta", "mean", "std"))}
    config = older.sequential(
        layer("ZeroPadding2D", "pad", padding=[1, 1], dim_ordering="th"),
        older.convolution("Convolution2D", "conv", "th", (3, 3), nb_filter=4, activation="relu"),
        layer("BatchNormalization", "norm", epsilon=0.001, mode=0, axis=1, momentum=0.99),
        layer("MaxPooling2D", "pool", pool_size=[2, 2], strides=[2, 2], border_mode="valid", dim_ordering="th"),
        layer("Dropout", "dropout", p=0.5),
        layer("Flatten", "flatten"),
        layer("Dense", "dense", output_dim=2, activation="linear", bias=False, input_dim=16),
        shape=(3, 4, 4),
    )
    weights = {
        "conv": {"conv_W": kernel, "conv_b": drawn(4)},
        "norm": {f"norm_{'running_' if name in ('mean', 'std') else ''}{name}": array for name, array in norm.items()},
        "dense": {"dense_W": rows},
    }
    maps = drawn(2, 3, 4, 4)
    padded = np.pad(maps, ((0, 0), (0, 0), (1, 1), (1, 1)))
    here = older.convolved(padded, kernel, "th", is_theano=is_theano) + weights["conv"]["conv_b"][:, None, None]
    gamma, beta, mean, variance = (array[:, None, None] for array in norm.values())
    here = (np.maximum(here, 0) - mean) / np.sqrt(variance + 0.001) * gamma + beta
    expected = here.reshape(2, 4, 2, 2, 2, 2).max((3, 5)).reshape(2, 16) @ rows
    source = older.write(tmp_path / "m.h5", config, weights, is_theano=is_theano)
    np.testing.assert_allclose(outputs(source, {"pad_input": maps}), expected, atol=1e-4)


def test_a_bias_of_keras_3_is_added_to_channels_that_are_first(tmp_path: Path) -> None:
    """Where the last axis is as long as there are channels, Keras 3 adds it along that; kernels of 0 leave it alone."""
    import keras

    settings = {"padding": "same", "data_format": "channels_first", "bias_initializer": "normal"}
    kinds = keras.layers
    layers = {
        "line": (kinds.Conv1D(4, 3, kernel_initializer="zeros", **settings), (2, 4)),
        "map": (kinds.Conv2D(4, 3, kernel_initializer="zeros", **settings), (2, 5, 4)),
        "volume": (kinds.Conv3D(4, 3, kernel_initializer="zeros", **settings), (2, 4, 4, 4)),
        "back": (kinds.Conv2DTranspose(4, 3, kernel_initializer="zeros", **settings), (2, 4, 4)),
        "apart": (kinds.SeparableConv2D(4, 3, pointwise_initializer="zeros", **settings), (2, 4, 4)),
        "deep": (kinds.DepthwiseConv2D(3, depthwise_initializer="zeros", **settings), (4, 4, 4)),
    }
    sources = {name: keras.Input(shape, name=name) for name, (_, shape) in layers.items()}
    model = keras.Model(sources, {name: biased(sources[name]) for name, (biased, _) in layers.items()})
    model.save(tmp_path / "m.keras")
    converter.convert(tmp_path / "m.keras", tmp_path / "m.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx", providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_outputs()]
    results = session.run(None, {name: drawn(2, *shape) for name, (_, shape) in layers.items()})
    assert len(results) == len(layers)
    for name, (biased, _) in layers.items():
        (result,) = (each for called, each in zip(names, results, strict=True) if name in called)
        expected = biased.bias.numpy().reshape(-1, *(1,) * (result.ndim - 2))
        np.testing.assert_allclose(result, np.broadcast_to(expected, result.shape), atol=1e-6, err_msg=name)


def test_a_weight_added_to_channels_that_are_first(tmp_path: Path) -> None:
    """In any graph of TensorFlow, not only in those of Keras."""
    import tensorflow as tf

    class Biased(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bias = tf.Variable(drawn(4))

        @tf.function(input_signature=[tf.TensorSpec([None, 4, 5, 4], tf.float32, name="maps")])
        def __call__(self, maps: Any) -> Any:
            return {"sums": tf.nn.bias_add(maps, self.bias, data_format="NCHW")}

    module = Biased()
    tf.saved_model.save(module, str(tmp_path / "saved"), signatures={"serving_default": module.__call__})
    maps = drawn(2, 4, 5, 4)
    expected = maps + drawn(4)[:, None, None]
    np.testing.assert_allclose(outputs(tmp_path / "saved", {"maps": maps}), expected, atol=1e-6)

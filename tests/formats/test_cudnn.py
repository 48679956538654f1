"""CuDNNLSTM and CuDNNGRU of Keras 2: each gate has its weights as cuDNN does, and there are two biases.

What they compute is said by Keras's own conversion into LSTM and GRU: `_convert_rnn_weights`, here in numpy.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import converter

UNITS, FEATURES, STEPS = 3, 4, 5
GATES = {"CuDNNLSTM": 4, "CuDNNGRU": 3}
LEAVES = ("kernel", "recurrent_kernel", "bias")
Arrays = list[np.ndarray[Any, Any]]


def weights(gates: int, seed: int) -> Arrays:
    random = np.random.default_rng(seed)
    width = gates * UNITS
    return [random.normal(size=shape).astype(np.float32) for shape in ((FEATURES, width), (UNITS, width), (2 * width,))]


def converted(stored: Arrays, gates: int) -> Arrays:
    """Return kernels and biases of the LSTM or GRU that computes the same, as Keras has them."""
    kernel, recurrent, bias = stored
    read = [gate.T.reshape(gate.shape, order="F") for gate in np.hsplit(kernel, gates)]
    turned = [gate.T for gate in np.hsplit(recurrent, gates)]
    return [np.hstack(read), np.hstack(turned), bias.reshape(2, -1)]


def in_torch(array: np.ndarray[Any, Any], gates: int) -> np.ndarray[Any, Any]:
    """Return gates side by side as PyTorch has them below each other: a GRU's reset before its update."""
    order = (0, 1, 2, 3) if gates == 4 else (1, 0, 2)
    apart = np.split(array, gates, axis=-1)
    return np.concatenate([apart[gate] for gate in order], axis=-1).T


def saved(path: Path, class_name: str, *, is_both: bool, has_config: bool = True, **config: Any) -> dict[str, Arrays]:
    """Write a file as Keras 2.3 does: the shape of the input is in the first layer. Return the weights by direction."""
    layer = {"class_name": class_name, "config": {"name": "rnn", "units": UNITS, **config}}
    shape = {"batch_input_shape": [None, STEPS, FEATURES], "dtype": "float32"}
    if is_both:
        entry = {"class_name": "Bidirectional", "config": {"name": "both", "layer": layer, **shape}}
        places = {"forward": "both/forward_rnn", "backward": "both/backward_rnn"}
    else:
        entry = {**layer, "config": {**layer["config"], **shape}}  # type: ignore[dict-item]
        places = {"forward": "rnn"}
    found = {name: weights(GATES[class_name], seed) for seed, name in enumerate(places)}
    with h5py.File(path, "w") as file:
        group: Any = file
        if has_config:
            model = {"class_name": "Sequential", "config": {"name": "m", "layers": [entry]}}
            file.attrs["model_config"], group = json.dumps(model), file.create_group("model_weights")
        name = entry["config"]["name"]
        group.attrs["layer_names"] = [name]
        names = {
            f"{place}/{leaf}:0": array
            for key, place in places.items()
            for leaf, array in zip(LEAVES, found[key], strict=True)
        }
        group.create_group(name).attrs["weight_names"] = list(names)
        for each, array in names.items():
            group[f"{name}/{each}"] = array
    return found


@pytest.mark.parametrize("has_config", [True, False])
@pytest.mark.parametrize("is_both", [False, True])
@pytest.mark.parametrize("class_name", GATES)
def test_weights_are_those_of_the_module_that_computes_the_same(
    class_name: str, is_both: bool, has_config: bool, tmp_path: Path
) -> None:
    found = saved(tmp_path / "x.h5", class_name, is_both=is_both, has_config=has_config)
    assert converter.convert(tmp_path / "x.h5", tmp_path / "x.safetensors").counts["defaulted"] == 0
    tensors = converter.read(tmp_path / "x.safetensors").tensors
    assert len(tensors) == 4 * len(found)
    gates, module = GATES[class_name], "both" if is_both else "rnn"
    for direction, stored in found.items():
        suffix = "_l0_reverse" if direction == "backward" else "_l0"
        kernel, recurrent, biases = converted(stored, gates)
        expected = {"weight_ih": kernel, "weight_hh": recurrent, "bias_ih": biases[0], "bias_hh": biases[1]}
        for name, array in expected.items():
            held = tensors[f"{module}.{name}{suffix}"].numpy()
            np.testing.assert_array_equal(held, in_torch(array, gates), strict=True)


def test_a_copy_has_what_is_stored(tmp_path: Path) -> None:
    found = saved(tmp_path / "x.h5", "CuDNNGRU", is_both=True)
    converter.convert(tmp_path / "x.h5", tmp_path / "y.h5")
    for direction, stored in found.items():
        for leaf, array in zip(LEAVES, stored, strict=True):
            held = converter.read(tmp_path / "y.h5").tensors[f"both/{direction}_rnn/{leaf}:0"]
            np.testing.assert_array_equal(held.numpy(), array, strict=True)


@pytest.mark.framework
@pytest.mark.parametrize(
    ("class_name", "is_both", "config"),
    [
        ("CuDNNLSTM", False, {"return_sequences": True, "unit_forget_bias": True}),
        ("CuDNNLSTM", True, {}),
        ("CuDNNGRU", False, {"go_backwards": True, "kernel_initializer": "zeros"}),
        ("CuDNNGRU", True, {"return_sequences": True}),
    ],
)
def test_the_graph_is_that_of_the_layer_of_today(
    class_name: str, is_both: bool, config: dict[str, Any], tmp_path: Path
) -> None:
    keras = pytest.importorskip("keras")
    onnxruntime = pytest.importorskip("onnxruntime")
    found = saved(tmp_path / "x.h5", class_name, is_both=is_both, **config)
    converter.convert(tmp_path / "x.h5", tmp_path / "x.onnx")
    gates = GATES[class_name]
    used = {key: value for key, value in config.items() if key in ("return_sequences", "go_backwards")}
    layer = (keras.layers.LSTM if gates == 4 else keras.layers.GRU)(UNITS, **used)
    model = keras.Sequential([keras.Input((STEPS, FEATURES)), keras.layers.Bidirectional(layer) if is_both else layer])
    values = []
    for stored in found.values():
        kernel, recurrent, biases = converted(stored, gates)
        values += [kernel, recurrent, biases.sum(0) if gates == 4 else biases]
    model.set_weights(values)
    session = onnxruntime.InferenceSession(tmp_path / "x.onnx")
    inputs = np.random.default_rng(9).normal(size=(2, STEPS, FEATURES)).astype(np.float32)
    (outputs,) = session.run(None, {session.get_inputs()[0].name: inputs})
    np.testing.assert_allclose(outputs, model.predict(inputs, verbose=0), atol=1e-5)

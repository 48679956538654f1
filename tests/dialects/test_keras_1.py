"""Files of Keras 1: arrays held against what its equations make of them, for each backend and order of axes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import converter
from converter.dialects import canonical
from converter.errors import ReadError
from converter.formats import NoOptions, by_name
from converter.model.checkpoint import Checkpoint
from tests.dialects import keras_1_files as older
from tests.dialects.keras_1_files import drawn, layer

torch = pytest.importorskip("torch")

FIXTURE = Path(__file__).parents[2] / "fixtures" / "keras" / "keras-1.2.2-cnn.h5"


def read(path: Path) -> Checkpoint:
    return canonical(by_name("h5").read(path, NoOptions()))


def tensors(path: Path, prefix: str = "") -> dict[str, Any]:
    checkpoint = read(path)
    found = {name: torch.from_numpy(np.array(checkpoint.tensor(name).numpy())) for name in checkpoint.names}
    return {name.removeprefix(prefix): tensor for name, tensor in found.items()}


def test_a_file_of_keras_1_gets_the_names_and_layouts_of_pytorch() -> None:
    with h5py.File(FIXTURE) as file:
        held = {name.rpartition("/")[2]: item[()] for name, item in _datasets(file["model_weights"])}
    found = tensors(FIXTURE)
    kernel = held["convolution2d_2_W"][::-1, ::-1].transpose(3, 2, 0, 1)  # of Theano, by its names
    assert found["convolution2d_2.weight"].shape == (6, 2, 3, 3)
    np.testing.assert_array_equal(found["convolution2d_2.weight"], kernel)
    np.testing.assert_array_equal(found["batchnormalization_2.running_var"], held["batchnormalization_2_running_std"])
    rows = held["dense_2_W"].reshape(4, 4, 6, 5).transpose(3, 2, 0, 1).reshape(5, 96)
    np.testing.assert_array_equal(found["dense_2.weight"], rows)


def _datasets(group: Any) -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    group.visititems(lambda name, item: found.append((name, item)) if isinstance(item, h5py.Dataset) else None)
    return found


@pytest.mark.parametrize("has_config", [True, False])
@pytest.mark.parametrize("is_theano", [True, False])
@pytest.mark.parametrize("dim_ordering", ["th", "tf"])
def test_convolutions_compute_what_their_backend_did(
    dim_ordering: str, is_theano: bool, has_config: bool, tmp_path: Path
) -> None:
    shape, stored = ((3, 6, 7), (5, 3, 2, 4)) if dim_ordering == "th" else ((6, 7, 3), (2, 4, 3, 5))
    arrays = {"convolution2d_1_W": drawn(*stored), "convolution2d_1_b": drawn(5)}
    entry = older.convolution("Convolution2D", "convolution2d_1", dim_ordering, (2, 4), nb_filter=5)
    config = older.sequential(entry, shape=shape) if has_config else None
    path = older.write(tmp_path / "m.h5", config, {"convolution2d_1": arrays}, is_theano=is_theano)
    found, maps = tensors(path, "convolution2d_1."), drawn(2, *shape)
    expected = older.convolved(maps, arrays["convolution2d_1_W"], dim_ordering, is_theano=is_theano)
    first = torch.from_numpy(maps if dim_ordering == "th" else np.moveaxis(maps, -1, 1).copy())
    result = torch.nn.functional.conv2d(first, found["weight"]).numpy()
    np.testing.assert_allclose(result, expected if dim_ordering == "th" else np.moveaxis(expected, -1, 1), atol=1e-5)
    np.testing.assert_array_equal(found["bias"], arrays["convolution2d_1_b"])


@pytest.mark.parametrize("is_theano", [True, False])
@pytest.mark.parametrize("is_oldest", [True, False])
def test_kernels_in_one_dimension_have_two_layouts(is_oldest: bool, is_theano: bool, tmp_path: Path) -> None:
    kernel = drawn(5, 3, 4, 1) if is_oldest else drawn(4, 1, 3, 5)
    config = older.sequential(
        layer(
            "Convolution1D", "line", nb_filter=5, filter_length=4, subsample_length=1, border_mode="valid", bias=False
        ),
        shape=(9, 3),
    )
    path = older.write(tmp_path / "m.h5", config, {"line": {"line_W": kernel}}, is_theano=is_theano)
    there = kernel[:, :, :, 0] if is_oldest else kernel[:, 0].transpose(2, 1, 0)
    expected = there[:, :, ::-1] if is_theano else there
    np.testing.assert_array_equal(tensors(path)["line.weight"], expected)


@pytest.mark.parametrize("is_theano", [True, False])
@pytest.mark.parametrize("dim_ordering", ["th", "tf"])
def test_other_kernels(dim_ordering: str, is_theano: bool, tmp_path: Path) -> None:
    is_first = dim_ordering == "th"
    entries = {
        "volume": ("Convolution3D", (2, 3, 4), (5, 3, 2, 3, 4) if is_first else (2, 3, 4, 3, 5), {"nb_filter": 5}),
        "back": ("Deconvolution2D", (2, 4), (5, 3, 2, 4) if is_first else (2, 4, 3, 5), {"nb_filter": 5}),
        "holes": ("AtrousConvolution2D", (2, 4), (5, 3, 2, 4) if is_first else (2, 4, 3, 5), {"atrous_rate": [2, 2]}),
    }
    for name, (class_name, window, stored, settings) in entries.items():
        shape = (3, *(9,) * len(window)) if is_first else (*(9,) * len(window), 3)
        entry = older.convolution(class_name, name, dim_ordering, window, bias=False, **{"nb_filter": 5, **settings})
        config, kernel = older.sequential(entry, shape=shape), drawn(*stored)
        path = older.write(tmp_path / f"{name}.h5", config, {name: {f"{name}_W": kernel}}, is_theano=is_theano)
        out_first = kernel if is_first else np.moveaxis(kernel, (-1, -2), (0, 1))
        expected = out_first.swapaxes(0, 1) if name == "back" else out_first
        turned = np.flip(expected, range(2, expected.ndim)) if is_theano else expected
        np.testing.assert_array_equal(tensors(path)[f"{name}.weight"], turned, err_msg=name)


@pytest.mark.parametrize("dim_ordering", ["th", "tf"])
def test_separable_convolutions(dim_ordering: str, tmp_path: Path) -> None:
    is_first = dim_ordering == "th"
    arrays = {
        "apart_depthwise_kernel": drawn(2, 3, 2, 4) if is_first else drawn(2, 4, 3, 2),
        "apart_pointwise_kernel": drawn(5, 6, 1, 1) if is_first else drawn(1, 1, 6, 5),
        "apart_b": drawn(5),
    }
    entry = older.convolution("SeparableConvolution2D", "apart", dim_ordering, (2, 4), nb_filter=5, depth_multiplier=2)
    config = older.sequential(entry, shape=(3, 8, 8) if is_first else (8, 8, 3))
    found = tensors(older.write(tmp_path / "m.h5", config, {"apart": arrays}), "apart.")
    depthwise = arrays["apart_depthwise_kernel"]
    depthwise = depthwise if is_first else depthwise.transpose(3, 2, 0, 1)  # [multiplier, in, rows, columns]
    np.testing.assert_array_equal(found["depthwise.weight"], depthwise.swapaxes(0, 1).reshape(6, 1, 2, 4))
    pointwise = arrays["apart_pointwise_kernel"]
    np.testing.assert_array_equal(found["pointwise.weight"], pointwise if is_first else pointwise.transpose(3, 2, 0, 1))


@pytest.mark.parametrize("has_config", [True, False])
def test_an_lstm_computes_what_it_did(has_config: bool, tmp_path: Path) -> None:
    arrays = older.gates("lstm_1", "icfo", 3, 4)
    entry = older.recurrent("LSTM", "lstm_1", 4, inner_activation="sigmoid")
    config = older.sequential(entry, shape=(6, 3)) if has_config else None
    found = tensors(older.write(tmp_path / "m.h5", config, {"lstm_1": arrays}), "lstm_1.")
    module, steps = torch.nn.LSTM(3, 4, batch_first=True), drawn(2, 6, 3)
    module.load_state_dict(found)
    result = module(torch.from_numpy(steps))[0].detach().numpy()
    np.testing.assert_allclose(result, older.lstm(steps, "lstm_1", arrays, older.sigmoid), atol=1e-5)


def test_an_lstm_may_have_its_gates_side_by_side(tmp_path: Path) -> None:
    apart = older.gates("rnn", "icfo", 3, 4)
    joined = {f"rnn_{kind}": np.concatenate([apart[f"rnn_{kind}_{gate}"] for gate in "ifco"], -1) for kind in "WUb"}
    ways = {"cpu": apart, "gpu": joined}
    found = []
    for way, arrays in ways.items():
        config = older.sequential(older.recurrent("LSTM", "rnn", 4, consume_less=way), shape=(6, 3))
        found.append(tensors(older.write(tmp_path / f"{way}.h5", config, {"rnn": arrays})))
    assert found[0].keys() == found[1].keys()
    assert all(torch.equal(tensor, found[1][name]) for name, tensor in found[0].items())


def test_both_directions_and_a_plain_recurrent_layer(tmp_path: Path) -> None:
    arrays = older.gates("forward_lstm_1", "icfo", 3, 4) | older.gates("backward_lstm_1", "icfo", 3, 4)
    arrays |= {name: -array for name, array in arrays.items() if name.startswith("backward")}
    plain = {"simplernn_1_W": drawn(8, 4), "simplernn_1_U": drawn(4, 4), "simplernn_1_b": drawn(4)}
    inner = older.recurrent("LSTM", "forward_lstm_1", 4)
    both = layer("Bidirectional", "bidirectional_1", layer=inner, merge_mode="concat")
    config = older.sequential(both, older.recurrent("SimpleRNN", "simplernn_1", 4), shape=(6, 3))
    path = older.write(tmp_path / "m.h5", config, {"bidirectional_1": arrays, "simplernn_1": plain})
    found = tensors(path)
    for suffix, direction in (("", "forward"), ("_reverse", "backward")):
        rows = np.concatenate([arrays[f"{direction}_lstm_1_W_{gate}"] for gate in "ifco"], -1).T
        np.testing.assert_array_equal(found[f"bidirectional_1.weight_ih_l0{suffix}"], rows)
    np.testing.assert_array_equal(found["simplernn_1.weight_hh_l0"], plain["simplernn_1_U"].T)


@pytest.mark.parametrize(("window", "stride", "is_told"), [(3, 1, False), (4, 1, True), (3, 2, True)])
def test_where_theano_pads_otherwise_is_told(window: int, stride: int, is_told: bool, tmp_path: Path) -> None:
    settings = {"nb_filter": 4, "border_mode": "same", "subsample": [stride, stride], "bias": False}
    entry = older.convolution("Convolution2D", "conv", "tf", (window, window), **settings)
    weights = {"conv": {"conv_W": drawn(window, window, 3, 4)}}
    for is_theano in (True, False):
        path = older.write(tmp_path / "m.h5", older.sequential(entry, shape=(8, 8, 3)), weights, is_theano=is_theano)
        told = [warning for warning in read(path).warnings if "Theano pads" in warning]
        assert bool(told) == (is_told and is_theano)


def test_arrays_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    arrays = older.gates("rnn", "icfo", 3, 4)
    config = older.sequential(older.recurrent("LSTM", "rnn", 4), shape=(6, 3))
    assert read(older.write(tmp_path / "m.h5", config, {"rnn": arrays})).names
    for shape in ((), (5, 4)):
        path = older.write(tmp_path / "odd.h5", config, {"rnn": {**arrays, "rnn_W_c": np.zeros(shape, np.float32)}})
        with pytest.raises(ReadError, match="rnn/kernel"):
            read(path)


def test_what_has_no_equal_stays_as_stored_and_is_named(tmp_path: Path) -> None:
    highway = layer("Highway", "highway_1", init="glorot_uniform", activation="linear", bias=True, input_dim=4)
    dense = layer("Dense", "dense_1", output_dim=2, activation="linear", bias=True, input_dim=4)
    arrays = {f"highway_1_{name}": drawn(4, 4) for name in ("W", "W_carry")}
    arrays |= {f"highway_1_{name}": drawn(4) for name in ("b", "b_carry")}
    weights = {"highway_1": arrays, "dense_1": {"dense_1_W": drawn(4, 2), "dense_1_b": drawn(2)}}
    checkpoint = read(older.write(tmp_path / "m.h5", older.sequential(highway, dense, shape=(4,)), weights))
    assert {"highway_1_W:0", "highway_1_b_carry:0", "dense_1.weight"} <= {*checkpoint.names}
    assert any("highway_1_W:0" in warning and "as stored" in warning for warning in checkpoint.warnings)


def test_layers_of_models_inside_of_models_are_found_by_name(tmp_path: Path) -> None:
    inner = [
        layer("Dense", "dense_1", output_dim=5, activation="relu", bias=False, batch_input_shape=[None, 4]),
        layer("BatchNormalization", "norm", epsilon=0.001, mode=0, axis=-1, momentum=0.99),
        layer("Dense", "dense_2", output_dim=2, activation="linear", bias=True),
    ]
    config = {"class_name": "Sequential", "config": [{"class_name": "Sequential", "config": inner}]}
    arrays = {"dense_1_W": drawn(4, 5), "norm_gamma": drawn(5), "norm_beta": drawn(5, seed=1), "dense_2_W": drawn(5, 2)}
    arrays |= {"dense_2_b": drawn(2), "norm_running_mean": drawn(5, seed=2), "norm_running_std": drawn(5, seed=3) ** 2}
    found = tensors(older.write(tmp_path / "m.h5", config, {"sequential_1": arrays}))
    np.testing.assert_array_equal(found["sequential_1.dense_2.weight"], arrays["dense_2_W"].T)
    np.testing.assert_array_equal(found["sequential_1.norm.running_var"], arrays["norm_running_std"])
    renamed = {f"{name}_1" if name.endswith("_W") else f"other_{name}": array for name, array in arrays.items()}
    again = tensors(older.write(tmp_path / "again.h5", config, {"sequential_1": renamed}))  # by their order
    assert all(torch.equal(tensor, again[name]) for name, tensor in found.items())


@pytest.mark.parametrize("is_theano", [True, False])
def test_the_state_of_an_optimizer_goes_with_its_weights(is_theano: bool, tmp_path: Path) -> None:
    """Keras 1 has slot after slot, each with the weights sorted by name; kernels are turned with theirs."""
    arrays = {
        "two": {"two_W": drawn(2, 2, 3, 4), "two_b": drawn(4)},
        "norm": {f"norm_{name}": drawn(4, seed=9) ** 2 for name in ("gamma", "beta", "running_mean", "running_std")},
        "one": older.gates("one", "icfo", 4, 2),
    }
    config = older.sequential(
        older.convolution("Convolution2D", "two", "tf", (2, 2), nb_filter=4),
        layer("BatchNormalization", "norm", epsilon=0.001, mode=0, axis=-1, momentum=0.99),
        layer("Reshape", "reshape", target_shape=[16, 4]),
        older.recurrent("LSTM", "one", 2),
        shape=(5, 5, 3),
    )
    path = older.write(tmp_path / "m.h5", config, arrays, is_theano=is_theano)
    trained = sorted(name for held in arrays.values() for name in held if "running" not in name)
    weights = {name: array for held in arrays.values() for name, array in held.items()}
    slots = [np.float32(7), *(weights[name] * factor for factor in (2, 3) for name in trained)]
    called = [f"param_{number}" if is_theano else f"Variable_{number}:0" for number in range(len(slots))]
    settings = {"lr": 0.01, "beta_1": 0.9, "beta_2": 0.999, "decay": 0.0, "epsilon": 1e-8}
    with h5py.File(path, "r+") as file:
        compiled = {"optimizer_config": {"class_name": "Adam", "config": settings}, "loss": "mse"}
        file.attrs["training_config"] = json.dumps(compiled).encode()
        group = file.create_group("optimizer_weights")
        group.attrs["weight_names"] = [name.encode() for name in called]
        for name, array in zip(called, slots, strict=True):
            group[name] = array
    checkpoint = by_name("h5").read(path, NoOptions())
    assert checkpoint.optimizer is not None, checkpoint.optimizer_refused
    assert checkpoint.optimizer.step == 7
    for factor, held in zip((2, 3), checkpoint.optimizer.slots.values(), strict=True):
        assert {"two/kernel", "two/bias", "norm/gamma", "norm/beta", "one/kernel", "one/bias"} <= held.keys()
        for name, tensor in held.items():
            np.testing.assert_allclose(tensor.numpy(), checkpoint.tensor(name).numpy() * factor, rtol=1e-6)


def test_a_file_of_keras_2_is_written(tmp_path: Path) -> None:
    target = tmp_path / "out.h5"
    converter.convert(FIXTURE, target)
    again, once = tensors(target), tensors(FIXTURE)
    assert again.keys() == once.keys()
    assert all(torch.equal(tensor, again[name]) for name, tensor in once.items())
    with h5py.File(target) as file:
        assert file.attrs["keras_version"].startswith("2.")

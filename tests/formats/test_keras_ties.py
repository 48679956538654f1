"""Ties in files of Keras layers: one dataset under two names, which Keras and tf_keras load."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import converter

keras = pytest.importorskip("keras")
torch = pytest.importorskip("torch")


def siamese() -> Any:
    left, right = keras.Input((4,)), keras.Input((4,))
    one, two = keras.layers.Dense(3, name="one"), keras.layers.Dense(3, name="two")
    return keras.Model([left, right], keras.layers.Add()([one(left), two(right)]))


@pytest.mark.parametrize("name", ["x.h5", "x.weights.h5", "x.keras"])
def test_ties_are_stored_once_and_load_as_copies(name: str, tmp_path: Path) -> None:
    model = siamese()
    model.save(tmp_path / "config.keras")
    weight, bias = torch.randn(3, 4), torch.randn(3)
    state = {"one.weight": weight, "one.bias": bias, "two.weight": weight, "two.bias": bias.clone()}
    torch.save(state, tmp_path / "x.pth")
    config = tmp_path / "config.json"
    config.write_text(model.to_json())
    report = converter.convert(tmp_path / "x.pth", tmp_path / name, config=config)
    assert report.counts["dropped"] == 0
    if name == "x.keras":
        loaded = keras.saving.load_model(tmp_path / name)
    else:
        loaded = siamese()
        loaded.load_weights(tmp_path / name)
    for layer in ("one", "two"):
        kernel, found_bias = loaded.get_layer(layer).get_weights()
        np.testing.assert_array_equal(kernel, weight.numpy().T)
        np.testing.assert_array_equal(found_bias, bias.numpy())
    checkpoint = converter.read(tmp_path / name)
    assert len(checkpoint.tensors) == 3
    assert list(checkpoint.aliases.items()) == [("two/kernel", "one/kernel")]
    converter.convert(tmp_path / name, tmp_path / "back.pth")
    back = torch.load(tmp_path / "back.pth", weights_only=True)
    assert {key: value.tolist() for key, value in back.items()} == {key: value.tolist() for key, value in state.items()}
    assert back["one.weight"].data_ptr() == back["two.weight"].data_ptr()


def test_layers_that_another_program_linked(tmp_path: Path) -> None:
    model = siamese()
    model.save_weights(tmp_path / "apart.weights.h5")
    before = converter.read(tmp_path / "apart.weights.h5")
    assert (len(before.tensors), before.aliases) == (4, {})
    with h5py.File(tmp_path / "apart.weights.h5", "a") as file:
        del file["layers/dense_1/vars/1"]
        file["layers/dense_1/vars/1"] = file["layers/dense/vars/1"]
    after = converter.read(tmp_path / "apart.weights.h5")
    assert (len(after.tensors), len(after.aliases)) == (3, 1)

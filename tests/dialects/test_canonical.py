"""Any dialect to PyTorch's: what the program does to every checkpoint before it looks at the target."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import converter
from converter.dialects import canonical
from converter.model.checkpoint import Checkpoint, Config
from converter.model.tensor import ArrayTensor


def tensor(*shape: int) -> ArrayTensor:
    return ArrayTensor.of(np.arange(np.prod(shape), dtype=np.float32).reshape(shape))


def test_ties_stay_ties() -> None:
    keras = Checkpoint(
        tensors={"dense/kernel": tensor(2, 3), "embedding/embeddings": tensor(4, 2)},
        aliases={"other/embeddings": "embedding/embeddings", "same/kernel": "dense/kernel"},
        dialect="tensorflow",
    )
    torch = canonical(keras)
    assert torch.aliases == {"other.weight": "embedding.weight", "same.weight": "dense.weight"}
    assert list(torch.tensors) == ["dense.weight", "embedding.weight"]
    assert torch.tensors["dense.weight"].shape == (3, 2)
    assert torch.origin("other.weight") == "other/embeddings"


def test_names_of_no_framework_stay_and_are_said() -> None:
    generic = Checkpoint(tensors={"a/b": tensor(2)}, dialect="generic")
    kept = canonical(generic)
    assert list(kept.tensors) == ["a/b"]
    assert any("layout as stored" in warning for warning in kept.warnings)


def test_what_names_of_pytorch_are_in_a_savedmodel_a_config_of_keras_beside_them_says() -> None:
    """Without one they are PyTorch's; with one they are the names of its layers, which may look like PyTorch's."""
    variables = {"fc.weight": tensor(3, 2), "fc.bias": tensor(3)}
    saved = Checkpoint(tensors=variables, dialect="tensorflow")
    assert canonical(saved).dialect == "pytorch"
    assert canonical(saved).warnings == ("layouts are taken to be PyTorch's, as the names are",)
    layers = [{"class_name": "Dense", "config": {"name": "fc", "units": 3}}]
    config = Config(values={"class_name": "Sequential", "config": {"layers": layers}}, raw=b"{}")
    beside = canonical(replace(saved, keras_config=config))
    assert beside.dialect == "generic"
    (said,) = beside.warnings
    assert said.startswith("layout as stored: fc.weight, fc.bias")


def test_a_keras_model_goes_through_pytorch_and_back(tmp_path: Path) -> None:
    """`.keras` to `.safetensors`, and with its config to a `.keras` that Keras opens."""
    keras = pytest.importorskip("keras")
    model = keras.Sequential(
        [keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3), keras.layers.Flatten(), keras.layers.Dense(2)]
    )
    model.save(tmp_path / "in.keras")
    report = converter.convert(tmp_path / "in.keras", tmp_path / "x.safetensors")
    assert report.counts == {"mapped": 4, "tied": 0, "dropped": 0, "defaulted": 0}
    assert {t.shape for t in converter.read(tmp_path / "x.safetensors").tensors.values()} == {
        (4, 3, 3, 3),
        (4,),
        (2, 144),
        (2,),
    }
    converter.convert(tmp_path / "in.keras", tmp_path / "again.keras")
    inputs = np.random.default_rng(0).random((2, 8, 8, 3), np.float32)
    again = keras.saving.load_model(tmp_path / "again.keras")
    np.testing.assert_array_equal(again.predict(inputs, verbose=0), model.predict(inputs, verbose=0))
    converter.convert(tmp_path / "in.keras", tmp_path / "again.weights.h5")
    again.load_weights(tmp_path / "again.weights.h5")

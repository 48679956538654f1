"""Any dialect to PyTorch's: what the program does to every checkpoint before it looks at the target."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import converter
from converter.dialects import canonical
from converter.model.checkpoint import Checkpoint
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

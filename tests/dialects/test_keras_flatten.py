"""The trap of Flatten: Keras flattens maps with channels last, PyTorch with channels first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converter.dialects import canonical
from converter.dialects.keras import FLATTEN_ORDER, to_keras
from converter.formats import NoOptions, by_name
from converter.model.checkpoint import Checkpoint
from tests.dialects.keras_zoo import randomised

keras = pytest.importorskip("keras")
torch = pytest.importorskip("torch")

IMAGE = (6, 5, 3)


def read(path: Path) -> Checkpoint:
    name = "keras" if path.name.endswith((".keras", ".weights.h5")) else "h5"
    return by_name(name).read(path, NoOptions())


def saved(model: Any, path: Path) -> Path:
    randomised(model)
    (model.save_weights if path.name.endswith(".weights.h5") else model.save)(path)
    return path


def sequential(*layers: Any) -> Any:
    return keras.Sequential([keras.Input(IMAGE), *layers])


def classifier() -> Any:
    k = keras.layers
    return sequential(
        k.Conv2D(4, 2, name="conv"),
        k.MaxPooling2D(2),
        k.Activation("relu"),
        k.Flatten(),
        k.Dropout(0.5),
        k.BatchNormalization(name="norm"),
        k.Dense(3, name="head"),
    )


def functional() -> Any:
    k = keras.layers
    base = keras.Sequential([keras.Input(IMAGE), k.Conv2D(4, 2, name="conv"), k.MaxPooling2D(2)], name="base")
    image = keras.Input(IMAGE)
    here = k.Flatten()(k.Activation("relu")(base(image)))
    return keras.Model(image, k.Dense(3, name="head")(k.BatchNormalization(name="norm")(here)))


def torch_classifier(conv: str) -> Any:
    nn = torch.nn
    return nn.Sequential(
        *(nn.Conv2d(3, 4, 2), nn.MaxPool2d(2), nn.ReLU(), nn.Flatten(), nn.BatchNorm1d(16, eps=1e-3), nn.Linear(16, 3))
    ), {conv: "0", "norm": "4", "head": "5"}


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize(("build", "conv"), [(classifier, "conv"), (functional, "base.conv")])
def test_rows_behind_a_flatten_are_permuted(build: Any, conv: str, suffix: str, tmp_path: Path) -> None:
    model = build()
    source = read(saved(model, tmp_path / f"model{suffix}"))
    checkpoint = canonical(source)
    module, places = torch_classifier(conv)
    state = {}
    for name, tensor in checkpoint.tensors.items():
        path, _, leaf = name.rpartition(".")
        state[f"{places[path]}.{leaf}"] = torch.from_numpy(np.array(tensor.numpy()))
    module.load_state_dict(state, strict=True)
    inputs = np.random.default_rng(0).normal(size=(2, *IMAGE)).astype("float32")
    with torch.no_grad():
        ours = module.eval()(torch.from_numpy(inputs).movedim(-1, 1)).numpy()
    assert np.abs(ours - np.asarray(model(inputs))).max() < 1e-5
    assert source.keras_config is not None
    back = to_keras(checkpoint, source.keras_config.values)
    assert len(back.tensors) == len(source.tensors)
    for name, tensor in source.tensors.items():  # Keras 3 puts a Sequential's own name before those in .h5
        same = next(key for key in back.tensors if f"/{name}".endswith(f"/{key}"))
        assert back.tensors[same].numpy().tobytes() == tensor.numpy().tobytes()


def test_no_config_is_a_loss_that_must_be_allowed(tmp_path: Path) -> None:
    model = classifier()
    told = canonical(read(saved(model, tmp_path / "model.keras")))
    assert not [line for line in told.lines if line.name == FLATTEN_ORDER]
    blind = canonical(read(saved(model, tmp_path / "model.weights.h5")))
    lines = [line for line in blind.lines if line.name == FLATTEN_ORDER]
    assert [line.is_refused_by_default for line in lines] == [True]
    assert "head/kernel" in lines[0].reason
    kept = np.asarray(model.get_layer("head").kernel).T
    assert np.array_equal(blind.tensors["head.weight"].numpy(), kept)


def test_an_order_that_merging_hides_is_a_loss_that_must_be_allowed(tmp_path: Path) -> None:
    k = keras.layers
    image = keras.Input(IMAGE)
    flat = k.Flatten()(k.Conv2D(4, 2)(image))
    model = keras.Model(image, k.Dense(3, name="head")(k.Concatenate()([flat, k.Flatten()(image)])))
    checkpoint = canonical(read(saved(model, tmp_path / "model.keras")))
    lines = [line for line in checkpoint.lines if line.name == FLATTEN_ORDER]
    assert [line.is_refused_by_default for line in lines] == [True]


@pytest.mark.parametrize(
    ("shape", "middle"),
    [
        ((4, 6), lambda k: []),  # rows of an image without channels: the same order in both
        (IMAGE, lambda k: [k.Conv2D(4, 2), k.GlobalAveragePooling2D()]),
        ((7,), lambda k: [k.Dense(6), k.Reshape((2, 3))]),
        (IMAGE, lambda k: [k.Permute((3, 1, 2))]),  # PyTorch's own order
    ],
)
def test_what_is_in_one_order_stays(shape: tuple[int, ...], middle: Any, tmp_path: Path) -> None:
    k = keras.layers
    model = keras.Sequential([keras.Input(shape), *middle(k), k.Flatten(), k.Dense(3, name="head")])
    checkpoint = canonical(read(saved(model, tmp_path / "model.keras")))
    kernel = np.asarray(model.get_layer("head").kernel)
    assert np.array_equal(checkpoint.tensors["head.weight"].numpy(), kernel.T)
    assert not [line for line in checkpoint.lines if line.name == FLATTEN_ORDER]


@pytest.mark.parametrize("is_flattened", [False, True])
def test_a_map_whose_axes_are_permuted_is_refused_if_it_is_flattened(is_flattened: bool, tmp_path: Path) -> None:
    k = keras.layers
    behind = [k.Flatten()] if is_flattened else []
    model = sequential(k.AveragePooling2D(2), k.Permute((1, 3, 2)), *behind, k.Dense(3, name="head"))
    checkpoint = canonical(read(saved(model, tmp_path / "model.keras")))
    assert bool([line for line in checkpoint.lines if line.name == FLATTEN_ORDER]) is is_flattened


def test_sequences_behind_a_convolution_are_permuted(tmp_path: Path) -> None:
    k = keras.layers
    model = keras.Sequential([keras.Input((6, 3)), k.Conv1D(4, 2), k.Flatten(), k.Dense(3, name="head")])
    checkpoint = canonical(read(saved(model, tmp_path / "model.keras")))
    kernel = np.asarray(model.get_layer("head").kernel)
    expected = kernel.reshape(5, 4, 3).transpose(2, 1, 0).reshape(3, 20)
    assert np.array_equal(checkpoint.tensors["head.weight"].numpy(), expected)

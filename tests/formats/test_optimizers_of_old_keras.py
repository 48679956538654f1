"""Optimizers of Keras 2.0 to 2.3, whose variables have no weights' names: they stand in the order of the model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import converter
from converter.errors import LossError
from converter.model.optimizer import Convention

WEIGHTS = {"d/kernel:0": (3, 4), "d/bias:0": (4,), "n/gamma:0": (4,), "n/beta:0": (4,), "e/kernel:0": (4, 2)}
STATISTICS = {"n/moving_mean:0": (4,), "n/moving_variance:0": (4,)}
LAYERS = [
    ("Dense", {"name": "d", "units": 4, "batch_input_shape": [None, 3]}),
    ("BatchNormalization", {"name": "n"}),
    ("Dense", {"name": "e", "units": 2, "use_bias": False}),
]
SIZES = list(WEIGHTS.values())


def file(
    path: Path, class_name: str, names: list[str], shapes: list[tuple[int, ...]], version: str = "2.2.4", **config: Any
) -> Path:
    """A whole model of two Dense and a BatchNormalization, and an optimizer whose variables count on from 1."""
    random = np.random.default_rng(0)
    layers = [{"class_name": kind, "config": each} for kind, each in LAYERS]
    with h5py.File(path, "w") as root:
        root.attrs["keras_version"] = version
        root.attrs["backend"] = "tensorflow"
        root.attrs["model_config"] = json.dumps({"class_name": "Sequential", "config": layers})
        compiled = {"class_name": class_name, "config": {"lr": 0.01, **config}}
        root.attrs["training_config"] = json.dumps({"optimizer_config": compiled, "loss": "mse"})
        weights = root.create_group("model_weights")
        weights.attrs["layer_names"] = [b"d", b"n", b"e"]
        for layer in "dne":
            held = {name: shape for name, shape in {**WEIGHTS, **STATISTICS}.items() if name.startswith(layer)}
            weights.create_group(layer).attrs["weight_names"] = [name.encode() for name in held]
            for name, shape in held.items():
                weights[layer].create_dataset(name, data=random.normal(size=shape).astype(np.float32))
        group = root.create_group("optimizer_weights")
        group.attrs["weight_names"] = [name.encode() for name in names]
        for number, (name, shape) in enumerate(zip(names, shapes, strict=True), 1):
            group.create_dataset(name, data=np.full(shape, number, np.int64 if shape == () else np.float32))
    return path


def numbered(count: int, first: int = 0, before: str = "training/Adam/Variable") -> list[str]:
    return [f"{before}_{number}:0" if number else f"{before}:0" for number in range(first, first + count)]


STEP = "Adam/iterations:0"
CASES = {
    "Adam": (["momentum", "velocity"], [STEP, *numbered(10)], [(), *SIZES * 2], {"beta_1": 0.9}),
    "Adam, with what it does not use": (
        ["momentum", "velocity"],
        [STEP, *numbered(15, 3)],
        [(), *SIZES * 2, *[(1,)] * 5],
        {},
    ),
    "Adam with amsgrad": (
        ["momentum", "velocity", "velocity_hat"],
        [STEP, *(f"training/Adam/{slot}_{number}:0" for slot in ("m", "v", "vhat") for number in range(5))],
        [(), *SIZES * 3],
        {"amsgrad": True},
    ),
    "SGD": (["momentum"], ["SGD/iterations:0", *numbered(5, 1)], [(), *SIZES], {"momentum": 0.9}),
    "SGD of 2.3": (["momentum"], ["iterations_1:0", *numbered(5, 0, "moment")], [(), *SIZES], {"momentum": 0.9}),
    "RMSprop": (["velocity"], numbered(5, 7), SIZES, {"rho": 0.9}),
    "Adagrad": (["accumulator"], numbered(5, 0, "variable"), SIZES, {}),
}


@pytest.mark.parametrize("case", CASES)
def test_each_slot_is_that_of_its_weight(case: str, tmp_path: Path) -> None:
    slots, names, shapes, config = CASES[case]
    path = file(tmp_path / "old.h5", case.partition(" ")[0].strip(","), names, shapes, **config)
    state = converter.read(path).optimizer
    assert state is not None
    assert (state.convention, state.basis) == (Convention.KERAS_LEGACY, "verified (order)")
    assert list(state.slots) == slots
    assert state.parameters == tuple(WEIGHTS)
    has_step = shapes[0] == ()
    assert state.step == (1 if has_step else 0)
    first = 2 if has_step else 1
    for number, slot in enumerate(slots):
        marks = [int(state.slots[slot][name].numpy().flat[0]) for name in WEIGHTS]
        assert marks == list(range(first + 5 * number, first + 5 * number + 5))
    report = converter.convert(path, tmp_path / "new.pth")
    assert report.optimizer.status == "carried"


@pytest.mark.parametrize(
    ("names", "shapes"),
    [
        (numbered(10), SIZES * 2),
        ([STEP, *numbered(9)], [(), *SIZES, *SIZES[:4]]),
        ([STEP, *numbered(10)], [(), *SIZES, *SIZES[::-1]]),
    ],
)
def test_other_shapes_are_not_taken(names: list[str], shapes: list[tuple[int, ...]], tmp_path: Path) -> None:
    report = converter.convert(file(tmp_path / "old.h5", "Adam", names, shapes), tmp_path / "new.pth", optimizer="drop")
    assert report.optimizer.status == "dropped"
    with pytest.raises(LossError):
        converter.convert(file(tmp_path / "other.h5", "Adam", names, shapes), tmp_path / "kept.pth")


def test_weights_that_keras_2_0_sorted_by_name(tmp_path: Path) -> None:
    names = sorted(WEIGHTS)
    shapes = [WEIGHTS[name] for name in names]
    arguments = ("Adam", [STEP, *numbered(10)], [(), *shapes * 2])
    state = converter.read(file(tmp_path / "old.h5", *arguments, version="2.0.5")).optimizer
    assert state is not None
    assert [int(state.slots["momentum"][name].numpy().flat[0]) for name in names] == [2, 3, 4, 5, 6]
    with pytest.raises(LossError, match="have not the shapes of the trained weights"):
        converter.convert(file(tmp_path / "other.h5", *arguments), tmp_path / "x.pth")

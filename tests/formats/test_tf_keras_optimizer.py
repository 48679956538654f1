"""Optimizers of tf_keras, new and legacy, in the files that it writes, against what they held in memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import converter
from converter.errors import LossError

FOLDER = Path(__file__).parents[2] / "fixtures" / "optimizer"
CASES = {
    "adam-new": ("adam-new.h5", "adam"),
    "adam-savedmodel": ("adam-savedmodel", "adam"),
    "sgd-new": ("sgd-new.keras", "sgd"),
    "rmsprop-new": ("rmsprop-new.h5", "rmsprop"),
    "sgd-legacy": ("sgd-legacy.h5", "sgd"),
    "rmsprop-legacy": ("rmsprop-legacy.h5", "rmsprop"),
    "adam-weight-decay": ("adam-weight-decay-checkpoint.index", "adamw"),
}
SLOTS = {
    "adam": {"momentum": "exp_avg", "velocity": "exp_avg_sq", "velocity_hat": "max_exp_avg_sq"},
    "adamw": {"momentum": "exp_avg", "velocity": "exp_avg_sq"},
    "sgd": {"momentum": "momentum_buffer"},
    "rmsprop": {"velocity": "square_avg", "momentum": "momentum_buffer", "average_gradient": "grad_avg"},
}
SIGNS = {"sgd": -1, "rmsprop": 1}
LEAVES = {"kernel": "weight", "gamma": "weight", "beta": "bias", "bias": "bias"}


@pytest.mark.parametrize("case", CASES)
def test_every_slot_is_with_its_weight(case: str, tmp_path: Path) -> None:
    source, algorithm = CASES[case]
    held = np.load(FOLDER / f"{case}.npz")
    report = converter.convert(FOLDER / source, tmp_path / "out.pth")
    assert (report.optimizer.status, report.optimizer.algorithm) == ("carried", algorithm)
    state = converter.read(tmp_path / "out.pth").optimizer
    assert state is not None
    assert state.step == held["step"]
    rate = state.groups[0].hyperparameters["lr"]
    assert rate == pytest.approx(float(held["learning_rate"]), rel=1e-6)
    expected = [key for key in held.files if "|" in key]
    assert len(expected) == sum(map(len, state.slots.values()))
    for key in expected:
        slot, _, variable = key.partition("|")
        path, _, leaf = variable.partition("/")
        found, array = state.slots[SLOTS[algorithm][slot]][f"{path}.{LEAVES[leaf]}"].numpy(), held[key].T
        if slot == "momentum" and algorithm in SIGNS:
            np.testing.assert_array_max_ulp(found, array / np.float32(SIGNS[algorithm] * rate), maxulp=1)
        else:
            assert np.array_equal(found, array), key


def test_epsilon_stands_where_the_source_has_it(tmp_path: Path) -> None:
    """Legacy RMSprop without momentum adds it to the root, as PyTorch does; all others below it."""
    epsilons = {}
    for case in ("rmsprop-legacy", "rmsprop-new"):
        converter.convert(FOLDER / CASES[case][0], tmp_path / f"{case}.pth")
        state = converter.read(tmp_path / f"{case}.pth").optimizer
        assert state is not None
        epsilons[case] = state.groups[0].hyperparameters["eps"]
    assert epsilons["rmsprop-legacy"] == 1e-7
    state = converter.read(tmp_path / "rmsprop-new.pth").optimizer
    assert state is not None
    roots = [np.sqrt(tensor.numpy().astype("f8")) for tensor in state.slots["square_avg"].values()]
    flat = np.concatenate([root.reshape(-1) for root in roots])

    def error(epsilon: float) -> float:
        exact = np.sqrt(flat * flat + 1e-7)
        return float(np.median(np.abs(flat + epsilon - exact) / exact))

    assert error(epsilons["rmsprop-new"]) < min(error(1e-7), error(1e-7**0.5))


def test_a_decay_of_the_file_is_not_lost(tmp_path: Path) -> None:
    report = converter.convert(FOLDER / "adam-weight-decay-checkpoint.index", tmp_path / "out.pth")
    assert "optimizer.weight_decay" in {line.target for line in report.lines}
    asked = ("weight_decay=0.05",)
    report = converter.convert(
        FOLDER / "adam-weight-decay-checkpoint.index", tmp_path / "given.pth", hyperparameter=asked
    )
    assert "optimizer.weight_decay" not in {line.target for line in report.lines}
    state = converter.read(tmp_path / "given.pth").optimizer
    assert state is not None
    assert state.groups[0].hyperparameters["weight_decay"] == 0.05


def test_keep_is_refused_where_the_target_holds_no_state(tmp_path: Path) -> None:
    converter.convert(FOLDER / "adam-new.h5", tmp_path / "x.pth", optimizer="keep")
    with pytest.raises(LossError, match="does not hold optimizer state"):
        converter.convert(FOLDER / "adam-new.h5", tmp_path / "x.safetensors", optimizer="keep")

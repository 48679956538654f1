"""Optimizers into Keras's conventions and back: the two directions invert, for every algorithm and kind of Keras."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from converter.dialects.optimizer.epsilon import Squares, below_root, beside_root, correction
from converter.dialects.optimizer.flavors import KerasFlavor
from converter.dialects.optimizer.semantics import to_keras, to_torch
from converter.errors import LossError
from converter.model.checkpoint import Checkpoint
from converter.model.optimizer import Convention, OptimizerState, ParameterGroup
from converter.model.tensor import ArrayTensor, Tensor

GENERATOR = np.random.default_rng(0)
NAMES = ("fc.weight", "fc.bias")
SHAPES = {"fc.weight": (4, 3), "fc.bias": (4,)}
COMMON = {"weight_decay": 0, "maximize": False}
CASES: dict[str, tuple[str, dict[str, Any], tuple[str, ...]]] = {
    "adam": ("adam", {"lr": 0.01, "betas": (0.8, 0.99), "eps": 1e-6, "amsgrad": False}, ("exp_avg", "exp_avg_sq")),
    "amsgrad": (
        "adam",
        {"lr": 0.01, "betas": (0.9, 0.999), "eps": 1e-8, "amsgrad": True},
        ("exp_avg", "exp_avg_sq", "max_exp_avg_sq"),
    ),
    "adamw": (
        "adamw",
        {"lr": 0.3, "betas": (0.9, 0.0), "eps": 1e-3, "amsgrad": False, "decoupled_weight_decay": True},
        ("exp_avg", "exp_avg_sq"),
    ),
    "sgd": ("sgd", {"lr": 0.07, "momentum": 0.9, "dampening": 0, "nesterov": True}, ("momentum_buffer",)),
    "sgd without momentum": ("sgd", {"lr": 0.07, "momentum": 0, "dampening": 0, "nesterov": False}, ()),
    "rmsprop": ("rmsprop", {"lr": 0.01, "alpha": 0.95, "eps": 1e-8, "momentum": 0, "centered": False}, ("square_avg",)),
    "centered": (
        "rmsprop",
        {"lr": 0.01, "alpha": 0.95, "eps": 1e-3, "momentum": 0.5, "centered": True},
        ("square_avg", "momentum_buffer", "grad_avg"),
    ),
    "adagrad": ("adagrad", {"lr": 0.1, "lr_decay": 0, "eps": 1e-10, "initial_accumulator_value": 0.1}, ("sum",)),
}
SCALED = ("momentum_buffer",)


def slot(name: str, shape: tuple[int, ...]) -> Tensor:
    values = GENERATOR.normal(size=shape).astype(np.float32)
    if name in ("exp_avg_sq", "max_exp_avg_sq", "square_avg", "sum"):
        values = values**2 + 1  # above the square of any average
    return ArrayTensor.of(values)


def checkpoint_of(kind: str, *, decays: tuple[float, ...] = (0.0,), **changed: Any) -> Checkpoint:
    algorithm, hyperparameters, slots = CASES[kind]
    held = {**COMMON, **hyperparameters, **changed}
    each = len(NAMES) // len(decays)
    groups = tuple(
        ParameterGroup(parameters=NAMES[at * each :][:each], hyperparameters={**held, "weight_decay": decay})
        for at, decay in enumerate(decays)
    )
    state = OptimizerState(
        algorithm=algorithm,
        step=7,
        groups=groups,
        slots={name: {parameter: slot(name, SHAPES[parameter]) for parameter in NAMES} for name in slots},
    )
    tensors = {name: ArrayTensor.of(np.zeros(shape, np.float32)) for name, shape in SHAPES.items()}
    return Checkpoint(tensors=tensors, optimizer=state)


def state_of(checkpoint: Checkpoint) -> OptimizerState:
    assert checkpoint.optimizer is not None, checkpoint.optimizer_refused
    return checkpoint.optimizer


def same(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> None:
    for name, value in theirs.items():
        if name == "eps":
            assert ours[name] == pytest.approx(value, rel=1e-6)
        else:
            assert np.array_equal(np.float32(ours[name]), np.float32(value)), name


@pytest.mark.parametrize("is_exact", [False, True])
@pytest.mark.parametrize("flavor", KerasFlavor)
@pytest.mark.parametrize("kind", CASES)
def test_there_and_back(kind: str, flavor: KerasFlavor, is_exact: bool) -> None:
    source = checkpoint_of(kind)
    if kind == "adamw" and flavor is KerasFlavor.LEGACY:
        with pytest.raises(LossError, match="has no AdamW"):
            to_keras(source, flavor)
        return
    there = to_keras(source, flavor, is_exact=is_exact)
    assert state_of(there).convention is (Convention.KERAS_LEGACY if flavor is KerasFlavor.LEGACY else Convention.KERAS)
    back, expected = state_of(to_torch(there)), state_of(source)
    is_plain = kind == "adamw" and is_exact and flavor is KerasFlavor.TF_KERAS  # no decay, so no AdamW is needed
    assert (back.algorithm, back.step) == ("adam" if is_plain else expected.algorithm, 7)
    assert back.convention is Convention.TORCH
    (ours,), (theirs,) = back.groups, expected.groups
    assert ours.parameters == theirs.parameters
    kept = {key: value for key, value in theirs.hyperparameters.items() if key != "decoupled_weight_decay"}
    same(ours.hyperparameters, kept if is_plain else theirs.hyperparameters)
    assert back.slots.keys() == expected.slots.keys()
    for name, tensors in expected.slots.items():
        for parameter, tensor in tensors.items():
            found = back.slots[name][parameter].numpy()
            np.testing.assert_array_max_ulp(found, tensor.numpy(), maxulp=1 if name in SCALED else 0)


def test_weights_that_do_not_decay_stay_apart() -> None:
    there = to_keras(checkpoint_of("adamw", decays=(0.0, 0.1)), KerasFlavor.KERAS_3)
    assert [group.hyperparameters["weight_decay"] for group in state_of(there).groups] == [0.1, 0.0]
    back = state_of(to_torch(there))
    decays = {group.parameters: group.hyperparameters["weight_decay"] for group in back.groups}
    assert decays == {("fc.bias",): 0.1, ("fc.weight",): 0.0}


def test_two_decays_or_rates_are_refused() -> None:
    with pytest.raises(LossError, match=r"decay by \[0.1, 0.2\]"):
        to_keras(checkpoint_of("adamw", decays=(0.1, 0.2)), KerasFlavor.KERAS_3)


@pytest.mark.parametrize("algorithm", ["adafactor", "nadam", "unknown"])
def test_an_algorithm_of_one_framework_is_refused(algorithm: str) -> None:
    source = checkpoint_of("adam")
    other = replace(source, optimizer=replace(state_of(source), algorithm=algorithm))
    with pytest.raises(LossError, match=algorithm):
        to_keras(other, KerasFlavor.KERAS_3)


def test_the_epsilon_of_adam_is_exact_for_the_next_update() -> None:
    """PyTorch's update 8 and Keras's, from the same moments."""
    beta_1, beta_2, epsilon, step = 0.9, 0.999, 1e-2, 7
    first, second = 0.3, 0.0002
    placed = epsilon * correction(beta_2, step)
    corrections = 1 - beta_1 ** (step + 1), math.sqrt(1 - beta_2 ** (step + 1))
    torch = first / corrections[0] / (math.sqrt(second) / corrections[1] + epsilon)
    keras = first * corrections[1] / corrections[0] / (math.sqrt(second) + placed)
    assert keras == pytest.approx(torch, rel=1e-14)
    stated = state_of(to_keras(checkpoint_of("adam"), KerasFlavor.KERAS_3)).groups[0].hyperparameters["epsilon"]
    assert stated == pytest.approx(1e-6 * correction(0.99, step), rel=1e-14)


@pytest.mark.parametrize("epsilon", [1e-10, 1e-8, 1e-3])
@pytest.mark.parametrize("spread", [0.01, 4.0])
@pytest.mark.parametrize("place", [below_root, beside_root])
def test_no_other_epsilon_has_less_of_an_error(place: Any, epsilon: float, spread: float) -> None:
    """What is least is the error for the loss, where elements count by their squares, once that is to be seen."""
    roots = np.exp(GENERATOR.normal(-6, spread, 2000))
    placed = place(epsilon, Squares(squares={"x": ArrayTensor.of(roots**2)}, averages={}))

    def errors(other: float) -> tuple[float, float]:
        if place is below_root:
            updates = (roots + epsilon) / np.sqrt(roots**2 + other)
        else:
            updates = np.sqrt(roots**2 + epsilon) / (roots + other)
        squares = (updates - 1) ** 2
        return float(np.sqrt(np.average(squares, weights=roots**2))), float(np.sqrt(np.mean(squares)))

    found = errors(placed.value)
    assert (placed.error, placed.plain_error) == pytest.approx(found, rel=0.02)
    others = [errors(float(other)) for other in np.geomspace(1e-24, 10, 800)]
    closest = min(others, key=lambda each: each[1])
    kind = 1 if closest[0] < 1e-5 else 0
    assert found[kind] <= min(each[kind] for each in others) * 1.02

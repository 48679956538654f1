"""Optimizers of TensorFlow 1 among the variables of a checkpoint, one row a condition; no framework.

tests/formats/test_tensorflow1_optimizer.py has the same with checkpoints that TensorFlow wrote, and updates after them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from converter.dialects.optimizer.semantics import to_torch
from converter.dialects.optimizer.tensorflow1 import is_complete, with_state
from converter.model.checkpoint import Checkpoint
from converter.model.optimizer import Convention, OptimizerState
from converter.model.tensor import ArrayTensor, Tensor

SHAPES = {"body/kernel": (3, 2), "body/bias": (2,), "body/LayerNorm/gamma": (2,)}
KINDS: dict[str, tuple[str, dict[str, str]]] = {
    "Adam": ("adam", {"Adam": "exp_avg", "Adam_1": "exp_avg_sq"}),
    "adam": ("adamw", {"adam_m": "exp_avg", "adam_v": "exp_avg_sq"}),
    "Momentum": ("sgd", {"Momentum": "momentum_buffer"}),
    "RMSProp": ("rmsprop", {"RMSProp": "square_avg", "RMSProp_1": "momentum_buffer"}),
    "centered RMSProp": (
        "rmsprop",
        {"RMSProp": "square_avg", "RMSProp_1": "grad_avg", "RMSProp_2": "momentum_buffer"},
    ),
    "Adagrad": ("adagrad", {"Adagrad": "sum"}),
}
WEIGHTS = {name: ArrayTensor.of(np.zeros(shape, np.float32)) for name, shape in SHAPES.items()}


def scalar(value: float, dtype: str = "float32") -> Tensor:
    return ArrayTensor.of(np.asarray(value, dtype))


def filled(shape: tuple[int, ...], value: float) -> Tensor:
    return ArrayTensor.of(np.full(shape, value, np.float32))


def variables(kind: str, **more: Tensor | None) -> dict[str, Tensor]:
    """What stands beside the weights, the slots of each numbered from 1; and `more`, or less where it is None."""
    made: dict[str, Tensor | None] = {
        f"{name}/{end}": filled(shape, number)
        for name, shape in SHAPES.items()
        for number, end in enumerate(KINDS[kind][1], start=1)
    }
    made |= {"global_step": scalar(7, "int64"), **more}
    return {name: tensor for name, tensor in made.items() if tensor is not None}


def found(kind: str, **more: Tensor | None) -> OptimizerState | None:
    return with_state(Checkpoint(tensors=WEIGHTS), variables(kind, **more)).optimizer


def state_of(checkpoint: Checkpoint) -> OptimizerState:
    assert checkpoint.optimizer is not None, checkpoint.optimizer_refused
    return checkpoint.optimizer


def in_torch(kind: str, given: Mapping[str, Any] = {}, **more: Tensor | None) -> Checkpoint:
    """The checkpoint with its state in PyTorch's conventions, a rate and what else is `given` told."""
    source = with_state(Checkpoint(tensors=WEIGHTS), variables(kind, **more))
    state = state_of(source)
    groups = tuple(
        replace(group, hyperparameters={**group.hyperparameters, "learning_rate": 0.5, **given})
        for group in state.groups
    )
    return to_torch(replace(source, optimizer=replace(state, groups=groups)))


def held(checkpoint: Checkpoint) -> Mapping[str, Any]:
    return state_of(checkpoint).groups[0].hyperparameters


@pytest.mark.parametrize("kind", KINDS)
def test_slots_are_told_by_the_ends_of_their_names(kind: str) -> None:
    state = found(kind)
    assert state is not None
    algorithm, slots = KINDS[kind]
    assert (state.algorithm, state.step, state.convention) == (algorithm, 7, Convention.TENSORFLOW_1)
    assert state.groups[0].parameters == tuple(SHAPES)
    for number, slot in enumerate(slots.values(), start=1):
        assert {name: tensor.shape for name, tensor in state.slots[slot].items()} == SHAPES
        assert {float(tensor.numpy().max()) for tensor in state.slots[slot].values()} == {number}
    assert not is_complete(state)
    assert is_complete(replace(state, convention=Convention.TORCH))


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        ("Adam", {"body/bias/Adam_1": None}),
        ("Adam", dict.fromkeys([f"{name}/Adam_1" for name in SHAPES])),
        ("Adam", {"body/bias/Momentum": filled((2,), 1)}),
        ("Adam", {"body/bias/Adam_2": filled((2,), 1)}),
        ("Adam", {"body/bias/Adam": filled((3,), 1)}),
        ("Adam", dict.fromkeys(f"{name}/{end}" for name in SHAPES for end in ("Adam", "Adam_1"))),
        ("Adam", {"beta1_power": scalar(0.9), "other/beta1_power": scalar(0.9)}),
        ("RMSProp", dict.fromkeys(f"{name}/RMSProp_1" for name in SHAPES)),
    ],
)
def test_what_is_no_whole_optimizer_is_none(kind: str, more: dict[str, Tensor | None]) -> None:
    assert found(kind) is not None
    assert found(kind, **more) is None


def test_what_is_beside_an_optimizer_is_not_of_it() -> None:
    """A weight that is not trained has no slots, a slot of no weight is nobody's, other scalars say nothing."""
    state = found(
        "Adam",
        **dict.fromkeys(["body/bias/Adam", "body/bias/Adam_1"]),
        **{"head/kernel/Adam": filled((2,), 1), "loss_scale": scalar(2), "beta1_power": filled((2,), 0.9)},
    )
    assert state is not None
    assert state.groups[0].parameters == ("body/kernel", "body/LayerNorm/gamma")
    assert state.groups[0].hyperparameters == {}


# steps


def powers(steps: float, betas: tuple[float, float] = (0.9, 0.999)) -> dict[str, Tensor]:
    return {f"beta{number}_power": scalar(beta ** (steps + 1)) for number, beta in enumerate(betas, start=1)}


@pytest.mark.parametrize(
    ("given", "more", "step", "is_said"),
    [
        ({}, {}, 7, False),
        ({}, powers(7), 7, False),
        ({}, powers(0), 0, True),
        ({}, powers(40), 40, True),
        ({}, {**powers(40), "global_step": None}, 40, False),
        ({}, {**powers(7), "beta1_power": None}, 7, False),
        ({}, {**powers(9), "beta2_power": None}, 9, True),
        ({}, {**powers(2000), "global_step": scalar(2000, "int64")}, 2000, False),
        ({}, {**powers(2000), "beta1_power": scalar(0)}, 2000, True),
        ({}, {**powers(20000), "global_step": scalar(20010, "int64")}, 20010, False),
        ({}, {**powers(20000), "global_step": scalar(20100, "int64")}, 20000, True),
        ({"betas": (0.5, 0.75)}, powers(7, (0.5, 0.75)), 7, False),
        ({"betas": (0.0, 0.75)}, powers(3, (0.0, 0.75)), 3, True),
    ],
)
def test_steps_are_counted_by_the_powers_of_the_betas(
    given: dict[str, Any], more: dict[str, Tensor | None], step: int, is_said: bool
) -> None:
    """And `global_step`, which may count something else, is believed where it agrees with them."""
    spelt = dict(zip(("beta_1", "beta_2"), given.get("betas", (0.9, 0.999)), strict=True))
    made = in_torch("Adam", spelt, **more)
    assert state_of(made).step == step
    assert any(f"made {step} updates, by its powers of beta" in each for each in made.warnings) == is_said


@pytest.mark.parametrize(
    ("kind", "given", "more", "why"),
    [
        ("Adam", {}, powers(7, (0.8, 0.999)), r"do not fit the betas 0.9 and 0.999; --hyperparameter betas="),
        ("Adam", {}, {"beta1_power": scalar(1)}, "its beta1_power is 1.0"),
        ("Adam", {}, {"beta2_power": scalar(-0.5)}, "its beta2_power is -0.5"),
        ("Adam", {}, {"beta2_power": scalar(0.99999)}, "do not fit the betas"),
        ("Adam", {"beta_1": 1.0}, {}, "its betas are 1.0 and 0.999"),
        ("adam", {"beta_2": 1.0}, {}, "its betas are 0.9 and 1.0"),
        ("Adam", {}, {"global_step": scalar(-1, "int64")}, "its step count is -1"),
        ("Momentum", {}, {}, "has momentum, and the file does not say how much; --hyperparameter momentum=VALUE"),
        ("Momentum", {"momentum": 0.9, "learning_rate": None}, {}, "does not say its learning rate; --hyperparameter"),
        ("RMSProp", {"momentum": 0.9, "learning_rate": 0.0}, {}, "its learning rate is 0"),
        ("Adam", {}, {"beta1_power": scalar(float("nan"))}, "its beta1_power is nan, which is no number"),
        ("RMSProp", {"epsilon": -1.0}, {}, "its epsilon is -1.0, which is below zero"),
    ],
)
def test_what_torch_does_not_go_on_as(
    kind: str, given: dict[str, Any], more: dict[str, Tensor | None], why: str
) -> None:
    made = in_torch(kind, given, **more)
    assert made.optimizer is None
    assert made.optimizer_refused is not None
    assert why in made.optimizer_refused


@pytest.mark.parametrize("kind", KINDS)
def test_steps_that_nothing_tells_are_a_line_and_of_sgd_none(kind: str) -> None:
    made = in_torch(kind, {"momentum": 0.5}, global_step=None)
    assumed = [line.reason for line in made.lines if line.target == "optimizer.step"]
    if kind == "Momentum":
        assert (state_of(made).step, assumed) == (None, [])
    elif kind == "adam":  # which does not correct moments for their start: PyTorch has to be far from it
        assert (state_of(made).step, assumed) == (20785, [])
    else:
        assert (state_of(made).step, assumed) == (0, ["0: the file does not say how many steps were taken"])


def test_the_adam_of_bert_is_as_far_as_where_pytorch_corrects_nothing_any_more() -> None:
    for betas, least in (((0.9, 0.999), 20785), ((0.99, 0.9), 2070), ((0.5, 0.0), 30), ((0.0, 0.0), 7)):
        given = dict(zip(("beta_1", "beta_2"), betas, strict=True))
        made = in_torch("adam", given)
        assert state_of(made).step == least
        assert all(beta**least < 2.0**-29.9 for beta in betas)
        assert len([each for each in made.warnings if "as this optimizer never does" in each]) == (least > 7)
        later = in_torch("adam", given, global_step=scalar(50_000, "int64"))
        assert (state_of(later).step, later.warnings) == (50_000, ())


# numbers


def test_which_weights_of_bert_decay() -> None:
    made = state_of(in_torch("adam"))
    decayed, apart = made.groups
    assert (decayed.parameters, apart.parameters) == (("body/kernel",), ("body/bias", "body/LayerNorm/gamma"))
    assert (decayed.hyperparameters["weight_decay"], apart.hyperparameters["weight_decay"]) == (0.01, 0.0)
    assert {**decayed.hyperparameters, "weight_decay": 0.0} == apart.hyperparameters
    (whole,) = state_of(in_torch("adam", {"weight_decay": 0.0})).groups
    assert whole.parameters == tuple(SHAPES)
    (whole,) = state_of(in_torch("Adam", {"weight_decay": 0.1})).groups
    assert (whole.parameters, whole.hyperparameters["weight_decay"]) == (tuple(SHAPES), 0.0)


ASSUMED: dict[str, dict[str, Any]] = {
    "Adam": {"betas": (0.9, 0.999), "eps": 1e-8 / math.sqrt(1 - 0.999**8), "decoupled_weight_decay": False},
    "adam": {"betas": (0.9, 0.999), "eps": 1e-6, "weight_decay": 0.01, "decoupled_weight_decay": True},
    "Momentum": {"momentum": 0.5, "dampening": 0, "nesterov": False, "weight_decay": 0},
    "RMSProp": {"momentum": 0.5, "alpha": 0.9, "centered": False, "weight_decay": 0},
    "centered RMSProp": {"momentum": 0.5, "alpha": 0.9, "centered": True},
    "Adagrad": {"eps": 0.0, "lr_decay": 0, "initial_accumulator_value": 0.1, "weight_decay": 0},
}
SAID = {
    "Adam": {"beta_1", "beta_2", "epsilon"},
    "adam": {"beta_1", "beta_2", "epsilon", "weight_decay"},
    "Momentum": {"nesterov"},
    "RMSProp": {"rho", "epsilon"},
    "centered RMSProp": {"rho", "epsilon"},
    "Adagrad": {"initial_accumulator_value"},
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_tensorflow_would_have_done(kind: str) -> None:
    made = in_torch(kind, {"momentum": 0.5})
    values = held(made)
    assert {name: values[name] for name in ASSUMED[kind]} == ASSUMED[kind]
    assert values["lr"] == 0.5
    assert {str(line.target) for line in made.lines} == {f"optimizer.{name}" for name in SAID[kind]}
    assert all("TensorFlow's default" in line.reason for line in made.lines)
    told = {"beta_1": 0.5, "beta_2": 0.75, "epsilon": 1e-3, "momentum": 0.25, "rho": 0.5, "weight_decay": 0.5}
    told |= {"nesterov": True, "initial_accumulator_value": 0.25}
    values = held(in_torch(kind, told))
    names = {"betas": (0.5, 0.75), "momentum": 0.25, "alpha": 0.5, "nesterov": True, "initial_accumulator_value": 0.25}
    assert {name: values[name] for name in names if name in values} == {
        name: value for name, value in names.items() if name in values
    }
    assert not in_torch(kind, told).lines


def test_momentum_has_the_rate_in_it_in_rmsprop_alone() -> None:
    for kind, factor in (("Momentum", 1.0), ("RMSProp", 2.0), ("centered RMSProp", 2.0)):
        slot = state_of(in_torch(kind, {"momentum": 0.5})).slots["momentum_buffer"]["body/bias"].numpy()
        number = list(KINDS[kind][1].values()).index("momentum_buffer") + 1
        assert slot.tolist() == [number * factor] * 2
    for kind in ("RMSProp", "centered RMSProp"):
        made = state_of(in_torch(kind, {"momentum": 0.0}))
        assert made.slots.keys() == {"square_avg", *(("grad_avg",) if "centered" in kind else ())}


def test_the_epsilon_of_rmsprop_is_brought_out_of_the_root() -> None:
    """All squares are 1 here: sqrt(1 + e) is 1 + e'."""
    made = in_torch("RMSProp", {"epsilon": 0.5})
    assert held(made)["eps"] == pytest.approx(math.sqrt(1.5) - 1, rel=1e-3)
    assert held(in_torch("RMSProp"))["eps"] == pytest.approx(0.5e-10, rel=1e-3)

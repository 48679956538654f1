"""One optimizer state on its way between conventions: its hyperparameters, checked, and defaults for absent ones."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from converter.dialects.optimizer.flavors import KerasFlavor
from converter.dialects.optimizer.schedules import learning_rate_at
from converter.dialects.optimizer.settings import NO_RATE
from converter.errors import LossError
from converter.model.dtype import DType
from converter.model.ledger import LedgerLine, defaulted
from converter.model.optimizer import Convention, OptimizerState
from converter.model.tensor import Array, ArrayTensor, ComputedTensor, Tensor

OWN_PACKAGE = "ckconv>"
"""What the registered names of the optimizers in converter.keras_optimizers start with."""

EPSILON_OF_TORCH = "epsilon_of_torch"
"""A hyperparameter in Keras's conventions: its epsilon, and that of PyTorch which it was made from."""

NO_MOMENTUM = "it has momentum, and the file does not say how much; --hyperparameter momentum=VALUE"

SWITCHES: Mapping[str, Mapping[str, str]] = {
    "adam": {"amsgrad": "velocity_hat"},
    "adamw": {"amsgrad": "velocity_hat"},
    "rmsprop": {"momentum": "momentum", "centered": "average_gradient"},
}
"""Settings of Keras's algorithms -> the slot that an optimizer has where they are on."""

_EPSILONS = ("eps", "epsilon", EPSILON_OF_TORCH)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaled:
    """A tensor times a factor, computed in float64 and rounded once."""

    factor: float

    def declare(self, inputs: Sequence[Tensor]) -> tuple[DType, tuple[int, ...]]:
        return inputs[0].dtype, inputs[0].shape

    def __call__(self, *arrays: Array) -> Array:
        scaled: Array = (arrays[0].astype(np.float64) * self.factor).astype(arrays[0].dtype)
        return scaled


def scaled(tensor: Tensor, factor: float) -> Tensor:
    """Return `tensor` times `factor`; nothing is read."""
    operation = Scaled(factor=factor)
    return ComputedTensor(dtype=tensor.dtype, shape=tensor.shape, inputs=(tensor,), operation=operation)


def not_zero(rate: float) -> float:
    """Return a learning rate that Keras's momentum is scaled by. Raises LossError for 0."""
    if rate == 0:
        raise LossError("its learning rate is 0, and in Keras its momentum is scaled by it")
    return rate


Converted = tuple[str, dict[str, Any], dict[str, dict[str, Tensor]]]
"""Algorithm, hyperparameters, and slots, in the other conventions."""


@dataclass(slots=True, kw_only=True)
class FromKeras:
    """A state in Keras's conventions on its way to PyTorch's."""

    state: OptimizerState
    lines: list[LedgerLine] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def hyperparameters(self) -> Mapping[str, Any]:
        """The hyperparameters; of two groups, those of the one that decays."""
        decaying = (group.hyperparameters for group in self.state.groups if group.hyperparameters.get("weight_decay"))
        return next(decaying, self.state.groups[0].hyperparameters)

    @property
    def step(self) -> int:
        """How many steps were made."""
        return self.state.step or 0

    @property
    def is_legacy(self) -> bool:
        """Whether it is an optimizer of Keras 2 before 2.11."""
        return self.state.convention is Convention.KERAS_LEGACY

    def value(self, name: str, default: Any) -> Any:
        """Return a hyperparameter, or the default of its class, which is then a ledger line."""
        if name in self.hyperparameters:
            return self.hyperparameters[name]
        whose = "transformers'" if self.is_of_transformers else "Keras's"
        if self.state.convention is Convention.TENSORFLOW_1:
            whose = "TensorFlow's"
        hint = f"the file does not say; {default} is {whose} default, --hyperparameter {name}=VALUE sets another"
        self.lines.append(defaulted(f"optimizer.{name}", hint))
        return default

    def number(self, name: str, default: float) -> float:
        """Return a hyperparameter, or `default`. Raises LossError for what is no finite number."""
        return _number(name, self.value(name, default))

    def epsilon(self, default: float) -> tuple[float, float | None]:
        """Return Keras's epsilon, and PyTorch's where the file says which one that was made from."""
        epsilon = self.number("epsilon", default)
        if self.is_exact:
            return epsilon, epsilon
        match self.hyperparameters.get(EPSILON_OF_TORCH):
            case [of_keras, of_torch] if of_keras == epsilon:
                return epsilon, _number(EPSILON_OF_TORCH, of_torch)
        return epsilon, None

    @property
    def is_of_transformers(self) -> bool:
        """Whether the optimizer is AdamWeightDecay, which create_optimizer of transformers 4 makes."""
        return "AdamWeightDecay" in str(self.hyperparameters.get("class_name"))

    @property
    def is_exact(self) -> bool:
        """Whether the optimizer is one of converter.keras_optimizers, or of tf_keras's that can do as PyTorch does."""
        is_ours = str(self.hyperparameters.get("class_name")).startswith(OWN_PACKAGE)
        return is_ours or bool(self.hyperparameters.get("adaptive_epsilon"))

    def optional(self, name: str) -> float:
        """Return a hyperparameter that Keras has only when it is set."""
        return 0.0 if self.hyperparameters.get(name) is None else self.number(name, 0.0)

    def learning_rate(self) -> float:
        """Return the learning rate. Raises LossError where the file does not say it."""
        stated = self.hyperparameters.get("learning_rate", self.hyperparameters.get("lr"))
        if stated is None:
            raise LossError(NO_RATE, hint="--hyperparameter learning_rate=VALUE")
        rate = _number("learning rate", stated if isinstance(stated, bool) else learning_rate_at(stated, self.step))
        slowed = 1 + (self.optional("decay") if self.is_legacy else 0.0) * self.step
        if slowed <= 0:
            raise LossError(f"its learning rate decays to nothing before step {self.step}")
        return rate / slowed

    def weight_decay(self, *, default: float | None) -> float:
        """Return the weight decay; `default` is that of the algorithm, None where it has none."""
        name = "weight_decay_rate" if "weight_decay_rate" in self.hyperparameters else "weight_decay"
        if default is None or name in self.hyperparameters:
            return self.optional(name)
        return self.number(name, default)

    def refuse_decay(self) -> None:
        """Raise LossError for a weight decay that PyTorch's algorithm lacks."""
        if self.optional("weight_decay"):
            raise LossError("its weight decay is decoupled from the gradient, which only AdamW has in PyTorch")

    def has(self, slot: str, switch: str) -> bool:
        """Whether an optimizer keeps a slot that a setting switches on. Before the first step only the setting says it.

        Raises LossError where a setting says that there is a slot, and there is none beside the others.
        """
        is_on = bool(self.hyperparameters.get(switch))
        if is_on and self.state.slots and slot not in self.state.slots:
            raise LossError(f"it says {switch}, and has no {slot}")
        return is_on or slot in self.state.slots

    def momentum(self, slot: str) -> float:
        """Return the coefficient of the momentum slot. It is never assumed when the slot holds something.

        Raises LossError where the file does not say it.
        """
        if slot in self.state.slots and "momentum" not in self.hyperparameters:
            raise LossError(NO_MOMENTUM)
        return self.number("momentum", 0.0) if "momentum" in self.hyperparameters else 0.0

    @property
    def slots(self) -> dict[str, dict[str, Tensor]]:
        """All slots as they are."""
        return {name: self.slot(name) for name in self.state.slots}

    def slot(self, name: str, factor: float | None = None) -> dict[str, Tensor]:
        """Return parameter -> tensor of a slot, each times `factor` if that is given."""
        held = self.state.slots.get(name, {})
        return {key: tensor if factor is None else scaled(tensor, factor) for key, tensor in held.items()}


@dataclass(slots=True, kw_only=True)
class FromTorch:
    """A state in PyTorch's conventions on its way to those of one kind of Keras's optimizers.

    `trained`   the parameters that it has state for, or those of its groups before the first step
    `like`      the weights, for slots that have to be made
    """

    state: OptimizerState
    flavor: KerasFlavor
    is_exact: bool
    trained: tuple[str, ...]
    like: Mapping[str, Tensor]
    lines: list[LedgerLine] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def step(self) -> int:
        """How many steps were made."""
        return self.state.step or 0

    @property
    def groups(self) -> list[Mapping[str, Any]]:
        """The hyperparameters of each group that trains something."""
        trained = frozenset(self.trained)
        held = [group.hyperparameters for group in self.state.groups if not trained.isdisjoint(group.parameters)]
        return held or [group.hyperparameters for group in self.state.groups[:1]]

    def value(self, name: str, default: Any) -> Any:
        """Return a hyperparameter, or torch.optim's default, which is then a ledger line.

        Raises LossError when groups differ in it.
        """
        values = [group[name] for group in self.groups if name in group]
        if not values:
            hint = f"the file does not say; {default} is PyTorch's default, --hyperparameter {name}=VALUE sets another"
            self.lines.append(defaulted(f"optimizer.{name}", hint))
            return default
        if any(value is not values[0] and value != values[0] for value in values) or len(values) < len(self.groups):
            raise LossError(f"its groups differ in {name}, and an optimizer of Keras has one for all")
        return values[0]

    def number(self, name: str, default: float) -> float:
        """Return a hyperparameter, or `default`. Raises LossError for what is no finite number."""
        return _number(name, self.value(name, default))

    def learning_rate(self) -> float:
        """Return the rate of the next step as Keras stores it, in float32.

        Raises LossError where the file does not say it.
        """
        if not any("lr" in group for group in self.groups):
            raise LossError(NO_RATE, hint="--hyperparameter lr=VALUE")
        return as_float32(self.number("lr", 0.0))

    def betas(self) -> tuple[float, float]:
        """Return both betas. Raises LossError for anything but two numbers."""
        betas = self.value("betas", (0.9, 0.999))
        if not isinstance(betas, list | tuple) or len(betas) != 2:
            raise LossError(f"its betas are {betas!r}, not two numbers")
        beta_1, beta_2 = (_number("betas", beta) for beta in betas)
        if not (0 <= beta_1 < 1 and 0 <= beta_2 < 1):
            raise LossError(f"its betas are {beta_1} and {beta_2}, not both from 0 to below 1")
        return beta_1, beta_2

    def refuse_decay(self) -> None:
        """Raise LossError for weight decay that is part of the gradient: Keras's is apart from it."""
        if any(map(decay_of, self.groups)):
            raise LossError(
                "its weight decay is added to the gradient, which no optimizer of Keras does",
                hint="regularizers.L2 of half of it in the layers does, in the model's own config",
            )

    def slot(self, name: str, factor: float | None = None) -> dict[str, Tensor]:
        """Return one slot of every trained parameter, zeros before the first step. Raises LossError if one lacks it."""
        held = self.state.slots.get(name, {})
        if not held and not self.state.slots:
            return {parameter: self.zeros(parameter) for parameter in self.trained}
        lacking = [parameter for parameter in self.trained if parameter not in held]
        if lacking:
            raise LossError(f"it has no {name} for {lacking[0]!r}, which has other slots")
        return {key: held[key] if factor is None else scaled(held[key], factor) for key in self.trained}

    def zeros(self, parameter: str) -> Tensor:
        """Return zeros of the shape and element type of a parameter."""
        weight = self.like[parameter]
        return ArrayTensor.of(np.zeros(weight.shape, weight.dtype.numpy))


def decay_of(hyperparameters: Mapping[str, Any]) -> float:
    """Return the weight decay of a group of torch.optim's, 0 where it has none. Raises LossError for no number."""
    return _number("weight_decay", hyperparameters.get("weight_decay") or 0)


def as_float32(value: float) -> float:
    """Return a number as a float32 variable holds it."""
    return float(np.float32(value))


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise LossError(f"its {name} is {value!r}, which is no number")
    if value < 0 and name in _EPSILONS:
        raise LossError(f"its {name} is {value}, which is below zero")
    return float(value)

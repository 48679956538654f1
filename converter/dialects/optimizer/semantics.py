"""Keras's conventions of optimizer state as torch.optim's: slots, signs, hyperparameters, and where epsilon stands.

Update rules: keras/src/optimizers (Keras 3.15), tf_keras/src/optimizers and its legacy folder (tf_keras 2.21), and
torch/optim (torch 2.13). Moments are the same numbers on both sides; what differs is

- Adam: Keras adds epsilon to the root of the raw second moment, PyTorch to that of the corrected one: PyTorch's is
  Keras's divided by sqrt(1 - beta_2^(t+1)), exact for the next step.
- RMSprop and Adagrad: Keras adds it below the root, PyTorch to the root. The constant that is right where the root has
  its median is within a few parts per million of the step for the usual epsilons.
- SGD and RMSprop: Keras's momentum has the learning rate in it, SGD's the opposite sign besides.
- Decay: Keras's is decoupled from the gradient in every optimizer, which in PyTorch only AdamW has.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from converter.dialects.optimizer.schedules import learning_rate_at
from converter.errors import LossError
from converter.model.checkpoint import Checkpoint
from converter.model.dtype import DType
from converter.model.ledger import LedgerLine, defaulted
from converter.model.optimizer import OptimizerState, ParameterGroup
from converter.model.tensor import Array, ComputedTensor, Tensor

_LEGACY = "keras-legacy"
_PLAIN = {"maximize": False, "foreach": None, "capturable": False, "differentiable": False}
_EXTENSIONS = ("use_ema", "loss_scale_factor", "gradient_accumulation_steps")
_CLIPPING = ("clipnorm", "global_clipnorm", "clipvalue")


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


def to_torch(checkpoint: Checkpoint) -> Checkpoint:
    """Return the checkpoint with its optimizer state, already in PyTorch's layouts, in torch.optim's conventions.

    Hyperparameters that the source lacks get Keras's defaults, as ledger lines. State that PyTorch has no equivalent
    for is refused: `optimizer_refused` says why.
    """
    state = checkpoint.optimizer
    if state is None or state.convention == "torch":
        return checkpoint
    made = _Conversion(state=_with_parameters(state, checkpoint))
    try:
        converted = made.converted()
    except LossError as error:
        return replace(checkpoint, optimizer=None, optimizer_refused=error.message)
    warnings = (*checkpoint.warnings, *made.warnings)
    return replace(checkpoint, optimizer=converted, lines=(*checkpoint.lines, *made.lines), warnings=warnings)


def _with_parameters(state: OptimizerState, checkpoint: Checkpoint) -> OptimizerState:
    """Return the state of an optimizer without slots as one of all trained weights."""
    if state.slots or any(group.parameters for group in state.groups):
        return state
    trained = tuple(
        name
        for name, tensor in checkpoint.tensors.items()
        if tensor.dtype.is_floating and name not in checkpoint.buffers and name not in checkpoint.frozen
    )
    return replace(state, groups=tuple(replace(group, parameters=trained) for group in state.groups))


@dataclass(slots=True, kw_only=True)
class _Conversion:
    """One state on its way; what had to be assumed, and what a user should know."""

    state: OptimizerState
    lines: list[LedgerLine] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def converted(self) -> OptimizerState:
        for extension in _EXTENSIONS:
            if self.given.get(extension):
                raise LossError(f"it uses {extension}, which torch.optim does not have")
        clipping = [name for name in _CLIPPING if self.given.get(name) is not None]
        if clipping:
            self.warnings.append(f"{', '.join(clipping)} not carried: in PyTorch the training loop clips gradients")
        if self.state.algorithm not in _ALGORITHMS:
            raise LossError(f"Keras's {self.state.algorithm} has no equivalent in PyTorch")
        algorithm, hyperparameters, slots = _ALGORITHMS[self.state.algorithm](self)
        groups = tuple(
            ParameterGroup(parameters=group.parameters, hyperparameters=hyperparameters) for group in self.state.groups
        )
        return replace(self.state, algorithm=algorithm, groups=groups, slots=slots, convention="torch")

    @property
    def given(self) -> Mapping[str, Any]:
        return self.state.groups[0].hyperparameters

    @property
    def step(self) -> int:
        return self.state.step or 0

    @property
    def is_legacy(self) -> bool:
        return self.state.convention == _LEGACY

    def value(self, name: str, default: Any) -> Any:
        """Return a hyperparameter, or Keras's default, which is then a ledger line."""
        if name in self.given:
            return self.given[name]
        hint = f"the file does not say; {default} is Keras's default, --hyperparameter {name}=VALUE sets another"
        self.lines.append(defaulted(f"optimizer.{name}", hint))
        return default

    def number(self, name: str, default: float) -> float:
        value = self.value(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise LossError(f"its {name} is {value!r}, which is no number")
        return float(value)

    def optional(self, name: str) -> float:
        """Return a hyperparameter that Keras has only when it is set."""
        return 0.0 if self.given.get(name) is None else self.number(name, 0.0)

    def learning_rate(self) -> float:
        given = self.given.get("learning_rate", self.given.get("lr"))
        if given is None:
            raise LossError("the file does not say its learning rate", hint="--hyperparameter learning_rate=VALUE")
        decay = self.optional("decay") if self.is_legacy else 0.0
        return learning_rate_at(given, self.step) / (1 + decay * self.step)

    def weight_decay(self, *, default: float | None) -> float:
        name = "weight_decay_rate" if "weight_decay_rate" in self.given else "weight_decay"
        if default is None or name in self.given:
            return self.optional(name)
        return self.number(name, default)

    def refuse_decay(self) -> None:
        if self.optional("weight_decay"):
            raise LossError("its weight decay is decoupled from the gradient, which only AdamW has in PyTorch")

    def momentum(self, slot: str) -> float:
        """Return the coefficient of the momentum slot. It is never assumed when the slot holds something."""
        if slot in self.state.slots and "momentum" not in self.given:
            raise LossError("it has momentum, and the file does not say how much; --hyperparameter momentum=VALUE")
        return self.number("momentum", 0.0) if "momentum" in self.given else 0.0

    def slot(self, name: str, factor: float | None = None) -> dict[str, Tensor]:
        held = self.state.slots.get(name, {})
        return {key: tensor if factor is None else scaled(tensor, factor) for key, tensor in held.items()}


Converted = tuple[str, dict[str, Any], dict[str, dict[str, Tensor]]]


def _adam(made: _Conversion) -> Converted:
    beta_1, beta_2 = made.number("beta_1", 0.9), made.number("beta_2", 0.999)
    epsilon = made.number("epsilon", 1e-7)
    if not (0 <= beta_1 < 1 and 0 <= beta_2 < 1):
        raise LossError(f"its betas are {beta_1} and {beta_2}")
    is_decoupled_class = made.state.algorithm == "adamw"
    of_transformers = "AdamWeightDecay" in str(made.given.get("class_name"))
    default = (0.0 if of_transformers else 0.004) if is_decoupled_class else None
    decay = made.weight_decay(default=default)
    if decay:
        made.warnings.append("weight decay is for all parameters: Keras does not save which it is not for")
    has_maximum = "velocity_hat" in made.state.slots
    hyperparameters = {
        "lr": made.learning_rate(),
        "betas": (beta_1, beta_2),
        "eps": epsilon / math.sqrt(1 - beta_2 ** (made.step + 1)) if beta_2 else epsilon,
        "weight_decay": decay,
        "amsgrad": has_maximum,
        **_PLAIN,
        "fused": None,
        "decoupled_weight_decay": is_decoupled_class or bool(decay),
    }
    slots = {"exp_avg": made.slot("momentum"), "exp_avg_sq": made.slot("velocity")}
    if has_maximum:
        slots["max_exp_avg_sq"] = made.slot("velocity_hat")
    return "adamw" if hyperparameters["decoupled_weight_decay"] else "adam", hyperparameters, slots


def _sgd(made: _Conversion) -> Converted:
    made.refuse_decay()
    momentum, rate = made.momentum("momentum"), made.learning_rate()
    slots = {}
    if momentum and "momentum" in made.state.slots:
        slots["momentum_buffer"] = made.slot("momentum", -_inverse(rate))
    hyperparameters = {
        "lr": rate,
        "momentum": momentum,
        "dampening": 0,
        "weight_decay": 0,
        "nesterov": bool(made.value("nesterov", False)),
        "maximize": False,
        "foreach": None,
        "differentiable": False,
        "fused": None,
    }
    return "sgd", hyperparameters, slots


def _rmsprop(made: _Conversion) -> Converted:
    made.refuse_decay()
    momentum, rate = made.momentum("momentum"), made.learning_rate()
    epsilon = made.number("epsilon", 1e-7)
    is_beside_root = made.is_legacy and not momentum
    slots = {"square_avg": made.slot("velocity")}
    if momentum:
        slots["momentum_buffer"] = made.slot("momentum", _inverse(rate))
    is_centered = "average_gradient" in made.state.slots
    if is_centered:
        slots["grad_avg"] = made.slot("average_gradient")
    hyperparameters = {
        "lr": rate,
        "momentum": momentum,
        "alpha": made.number("rho", 0.9),
        "eps": epsilon if is_beside_root else epsilon_beside_root(epsilon, typical_root(slots["square_avg"])),
        "centered": is_centered,
        "weight_decay": 0,
        **_PLAIN,
    }
    return "rmsprop", hyperparameters, slots


def _adagrad(made: _Conversion) -> Converted:
    made.refuse_decay()
    epsilon = made.number("epsilon", 1e-7)
    slots = {"sum": made.slot("accumulator")}
    hyperparameters = {
        "lr": made.learning_rate(),
        "lr_decay": 0,
        "eps": epsilon if made.is_legacy else epsilon_beside_root(epsilon, typical_root(slots["sum"])),
        "weight_decay": 0,
        "initial_accumulator_value": made.number("initial_accumulator_value", 0.1),
        "foreach": None,
        "maximize": False,
        "differentiable": False,
        "fused": None,
    }
    return "adagrad", hyperparameters, slots


_ALGORITHMS: Mapping[str, Callable[[_Conversion], Converted]] = {
    "adam": _adam,
    "adamw": _adam,
    "sgd": _sgd,
    "rmsprop": _rmsprop,
    "adagrad": _adagrad,
}


def _inverse(rate: float) -> float:
    if rate == 0:
        raise LossError("its learning rate is 0, and its momentum was scaled by it")
    return 1 / rate


def typical_root(squares: Mapping[str, Tensor]) -> float:
    """Return the median over tensors, by size, of the median root of their elements that are not zero.

    It does not depend on layouts. Reads every tensor once, one at a time.
    """
    medians: list[tuple[float, int]] = []
    for tensor in squares.values():
        values = tensor.numpy().astype(np.float64).reshape(-1)
        values = values[np.isfinite(values) & (values > 0)]
        if values.size:
            medians.append((math.sqrt(float(np.median(values))), values.size))
    medians.sort()
    half, counted = sum(size for _, size in medians) / 2, 0
    for root, size in medians:
        counted += size
        if counted >= half:
            return root
    return 0.0


def epsilon_beside_root(epsilon: float, root: float) -> float:
    """Return e for which root + e is sqrt(root^2 + epsilon)."""
    whole = math.sqrt(root * root + epsilon) + root
    return epsilon / whole if whole else 0.0


def epsilon_below_root(epsilon: float, root: float) -> float:
    """Return e for which sqrt(root^2 + e) is root + epsilon: the inverse of `epsilon_beside_root`."""
    return epsilon * (epsilon + 2 * root)

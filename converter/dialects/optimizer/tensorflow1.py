"""Optimizers of TensorFlow 1, whose variables stand beside the weights: `dense/kernel/Adam`, `.../kernel/adam_m`.

tensorflow/python/training/{adam,momentum,rmsprop,adagrad}.py (TF 2.21, `tf.compat.v1.train`), and optimization.py of
google-research/bert. A checkpoint of theirs says no hyperparameter, and no learning rate above all.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from converter.dialects.optimizer.conversion import Converted, FromKeras, not_zero
from converter.dialects.optimizer.epsilon import Squares, beside_root, correction
from converter.errors import LossError
from converter.model.checkpoint import Checkpoint
from converter.model.ledger import defaulted
from converter.model.optimizer import Convention, OptimizerState, ParameterGroup
from converter.model.tensor import Tensor

STEP = "global_step"
_POWERS = ("beta1_power", "beta2_power")
_SLOT = re.compile(r"(.+)/(Adam|Momentum|RMSProp|Adagrad|adam)(?:_([12mv]))?")
_KINDS: Mapping[str, tuple[str, tuple[Mapping[str, str], ...]]] = {
    "Adam": ("adam", ({"": "exp_avg", "1": "exp_avg_sq"},)),
    "adam": ("adamw", ({"m": "exp_avg", "v": "exp_avg_sq"},)),
    "Momentum": ("sgd", ({"": "momentum_buffer"},)),
    "RMSProp": (
        "rmsprop",
        (
            {"": "square_avg", "1": "momentum_buffer"},
            {"": "square_avg", "1": "grad_avg", "2": "momentum_buffer"},
        ),
    ),
    "Adagrad": ("adagrad", ({"": "sum"},)),
}
"""What an optimizer calls its slots -> its algorithm, and, by the ends of these names, what torch.optim calls them."""

_WITHOUT_DECAY = re.compile(r"LayerNorm|layer_norm|bias")
"""`exclude_from_weight_decay` of BERT, ALBERT and ELECTRA, found anywhere in a name."""
_VANISHING = 2.0**-30
_SMALLEST_POWER = 1e-30


def with_state(checkpoint: Checkpoint, variables: Mapping[str, Tensor]) -> Checkpoint:
    """Return the checkpoint of a name-based bundle with the optimizer that is among its `variables`, if it is known.

    Its weights are the checkpoint's tensors. The lines that say that slots are no weights stay: they are right until
    the learning rate is known (`is_complete`).
    """
    found: dict[str, dict[str, dict[str, Tensor]]] = {}
    for name, tensor in variables.items():
        match = _SLOT.fullmatch(name)
        owner = None if match is None else checkpoint.tensors.get(match[1])
        if match is not None and owner is not None and owner.shape == tensor.shape:
            found.setdefault(match[2], {}).setdefault(match[3] or "", {})[match[1]] = tensor
    if len(found) != 1:
        return checkpoint
    ((kind, held),) = found.items()
    algorithm, layouts = _KINDS[kind]
    layout = next((layout for layout in layouts if layout.keys() == held.keys()), None)
    if layout is None or len({tuple(tensors) for tensors in held.values()}) != 1:
        return checkpoint
    scalars = _scalars(variables)
    if scalars is None:
        return checkpoint
    step = scalars.pop(STEP, None)
    parameters = tuple(name for name in checkpoint.tensors if name in next(iter(held.values())))
    state = OptimizerState(
        algorithm=algorithm,
        step=None if step is None else int(step),
        groups=(ParameterGroup(parameters=parameters, hyperparameters=scalars),),
        slots={slot: held[end] for end, slot in layout.items()},
        convention=Convention.TENSORFLOW_1,
    )
    return replace(checkpoint, optimizer=state)


def _scalars(variables: Mapping[str, Tensor]) -> dict[str, Any] | None:
    """Return the counters of an only optimizer by their last components, None when there are those of several."""
    found: dict[str, Any] = {}
    for name, tensor in variables.items():
        leaf = name.rpartition("/")[2]
        if tensor.shape != () or not (leaf in _POWERS or name == STEP):
            continue
        if leaf in found:
            return None
        found[leaf] = tensor.numpy().reshape(()).item()
    return found


def is_complete(state: OptimizerState) -> bool:
    """Whether a state has what no checkpoint of TensorFlow 1 says and nothing can stand for: its learning rate."""
    return state.convention is not Convention.TENSORFLOW_1 or "learning_rate" in state.groups[0].hyperparameters


def to_torch(conversion: FromKeras) -> OptimizerState:
    """Return the state in torch.optim's conventions; its names are PyTorch's already. Raises LossError."""
    state = conversion.state
    (group,) = state.groups
    if state.step is not None and state.step < 0:
        raise LossError(f"its step count is {state.step}, which is below zero")
    convert: Callable[[FromKeras], tuple[int | None, Converted]] = _CONVERSIONS[state.algorithm]
    step, (algorithm, hyperparameters, slots) = convert(conversion)
    if step is None and algorithm != "sgd":
        conversion.lines.append(defaulted("optimizer.step", "0: the file does not say how many steps were taken"))
        step = 0
    groups = [replace(group, hyperparameters=hyperparameters)]
    if algorithm == "adamw" and hyperparameters["weight_decay"]:
        apart = tuple(name for name in group.parameters if _WITHOUT_DECAY.search(name))
        decayed = tuple(name for name in group.parameters if name not in apart)
        groups = [
            ParameterGroup(parameters=decayed, hyperparameters=hyperparameters),
            ParameterGroup(parameters=apart, hyperparameters={**hyperparameters, "weight_decay": 0.0}),
        ]
    return replace(
        state,
        algorithm=algorithm,
        step=step,
        groups=tuple(each for each in groups if each.parameters),
        slots=slots,
        convention=Convention.TORCH,
    )


def _betas(conversion: FromKeras) -> tuple[float, float]:
    betas = conversion.number("beta_1", 0.9), conversion.number("beta_2", 0.999)
    if not all(0 <= beta < 1 for beta in betas):
        raise LossError(f"its betas are {betas[0]} and {betas[1]}, not both from 0 to below 1")
    return betas


def _adam(conversion: FromKeras) -> tuple[int | None, Converted]:
    """`AdamOptimizer`: epsilon is added to the root of the raw second moment, as in Keras."""
    betas = _betas(conversion)
    step = _step(conversion, betas)
    hyperparameters = {
        **_of_adam(conversion, betas),
        "eps": conversion.number("epsilon", 1e-8) / correction(betas[1], step or 0),
        "weight_decay": 0.0,
        "decoupled_weight_decay": False,
    }
    return step, ("adam", hyperparameters, conversion.slots)


def _step(conversion: FromKeras, betas: tuple[float, float]) -> int | None:
    """Return how many updates were made: by the powers of the betas, which start at the first and grow with each.

    `global_step` is right where it agrees with them; it may count something else. Raises LossError where the powers
    do not agree with each other.
    """
    counted = []
    for name, beta in zip(_POWERS, betas, strict=True):
        if conversion.hyperparameters.get(name) is None or not beta:
            continue
        power = conversion.number(name, 0.0)
        if not 0 <= power < 1:
            raise LossError(f"its {name} is {power}, which is no power of a beta")
        if power > _SMALLEST_POWER:
            counted.append(math.log(power) / math.log(beta) - 1)
    stated = conversion.state.step
    if not counted:
        return stated
    steps = counted[-1]
    near = 0.5 + 1e-3 * steps  # a power is rounded at each step
    if steps < -near or any(abs(other - steps) > near for other in counted):
        what = " and ".join(
            f"{name} {conversion.hyperparameters[name]:.6g}" for name in _POWERS if name in conversion.hyperparameters
        )
        raise LossError(f"its {what} do not fit the betas {betas[0]} and {betas[1]}", hint="--hyperparameter betas=")
    if stated is not None and abs(stated - steps) <= near:
        return stated
    if stated is not None:
        conversion.warnings.append(
            f"the optimizer made {max(0, round(steps))} updates, by its powers of beta; {STEP} is {stated}"
        )
    return max(0, round(steps))


def _adam_weight_decay(conversion: FromKeras) -> tuple[int | None, Converted]:
    """`AdamWeightDecayOptimizer` of BERT: moments are not corrected for their start, and weights decay beside them.

    PyTorch corrects by the step, and by nothing that is seen once there were enough of them.
    """
    betas = _betas(conversion)
    enough = max((math.ceil(math.log(_VANISHING) / math.log(beta)) for beta in betas if beta), default=0)
    step = max(conversion.state.step or 0, enough)
    if step != conversion.state.step:
        conversion.warnings.append(
            f"the optimizer's step is {step}, from which on PyTorch's AdamW corrects moments for their start by "
            f"nothing, as this optimizer never does; {STEP} is {conversion.state.step}"
        )
    hyperparameters = {
        **_of_adam(conversion, betas),
        "eps": conversion.number("epsilon", 1e-6),
        "weight_decay": conversion.weight_decay(default=0.01),
        "decoupled_weight_decay": True,
    }
    return step, ("adamw", hyperparameters, conversion.slots)


def _of_adam(conversion: FromKeras, betas: tuple[float, float]) -> dict[str, Any]:
    return {
        "lr": conversion.learning_rate(),
        "betas": betas,
        "amsgrad": False,
        "maximize": False,
        "foreach": None,
        "capturable": False,
        "differentiable": False,
        "fused": None,
    }


def _momentum(conversion: FromKeras) -> tuple[int | None, Converted]:
    """`MomentumOptimizer` has the learning rate outside its momentum, as PyTorch has."""
    if "momentum" not in conversion.hyperparameters:
        raise LossError("it has momentum, and the file does not say how much", hint="--hyperparameter momentum=VALUE")
    hyperparameters = {
        "lr": conversion.learning_rate(),
        "momentum": conversion.number("momentum", 0.9),
        "dampening": 0,
        "weight_decay": 0,
        "nesterov": bool(conversion.value("nesterov", False)),
        "maximize": False,
        "foreach": None,
        "differentiable": False,
        "fused": None,
    }
    return conversion.state.step, ("sgd", hyperparameters, conversion.slots)


def _rmsprop(conversion: FromKeras) -> tuple[int | None, Converted]:
    """`RMSPropOptimizer`: epsilon below the root and the learning rate in the momentum, as in Keras."""
    rate, momentum = conversion.learning_rate(), conversion.number("momentum", 0.0)
    slots = {name: held for name, held in conversion.slots.items() if name != "momentum_buffer"}
    if momentum:
        slots["momentum_buffer"] = conversion.slot("momentum_buffer", 1 / not_zero(rate))
    squares = Squares(squares=slots["square_avg"], averages=slots.get("grad_avg", {}))
    epsilon = conversion.number("epsilon", 1e-10)
    placed = beside_root(epsilon, squares)
    conversion.warnings += placed.note(epsilon, "PyTorch, which adds it to the root instead of below")
    hyperparameters = {
        "lr": rate,
        "momentum": momentum,
        "alpha": conversion.number("rho", 0.9),
        "eps": placed.value,
        "centered": "grad_avg" in slots,
        "weight_decay": 0,
        "maximize": False,
        "foreach": None,
        "capturable": False,
        "differentiable": False,
    }
    return conversion.state.step, ("rmsprop", hyperparameters, slots)


def _adagrad(conversion: FromKeras) -> tuple[int | None, Converted]:
    """`AdagradOptimizer` has no epsilon."""
    hyperparameters = {
        "lr": conversion.learning_rate(),
        "lr_decay": 0,
        "eps": 0.0,
        "weight_decay": 0,
        "initial_accumulator_value": conversion.number("initial_accumulator_value", 0.1),
        "foreach": None,
        "maximize": False,
        "differentiable": False,
        "fused": None,
    }
    return conversion.state.step, ("adagrad", hyperparameters, conversion.slots)


_CONVERSIONS: Mapping[str, Callable[[FromKeras], tuple[int | None, Converted]]] = {
    "adam": _adam,
    "adamw": _adam_weight_decay,
    "sgd": _momentum,
    "rmsprop": _rmsprop,
    "adagrad": _adagrad,
}

"""The optimizers that both frameworks have, each in the conventions of one and the other.

Update rules: keras/src/optimizers (Keras 3.15), tf_keras/src/optimizers and its legacy folder (tf_keras 2.21), and
torch/optim (torch 2.13). Hyperparameters in Keras's conventions are what get_config() says, without what is the same
in every optimizer (`_CONFIGS`), which `to_keras` adds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from converter.dialects.optimizer.conversion import (
    EPSILON_OF_TORCH,
    Converted,
    FromKeras,
    FromTorch,
    decay_of,
    not_zero,
)
from converter.dialects.optimizer.epsilon import TELLING, Squares, below_root, beside_root, correction
from converter.dialects.optimizer.flavors import KerasFlavor
from converter.errors import LossError

_PLAIN = {"maximize": False, "foreach": None, "capturable": False, "differentiable": False}


def adam_to_torch(conversion: FromKeras) -> Converted:
    """Return Keras's Adam, Nadam or AdamW as PyTorch has it. Raises LossError for what PyTorch's lacks."""
    beta_1, beta_2 = conversion.number("beta_1", 0.9), conversion.number("beta_2", 0.999)
    epsilon, epsilon_of_torch = conversion.epsilon(1e-7)
    if not (0 <= beta_1 < 1 and 0 <= beta_2 < 1):
        raise LossError(f"its betas are {beta_1} and {beta_2}, not both from 0 to below 1")
    is_decoupled_class = conversion.state.algorithm == "adamw"
    default = (0.0 if conversion.is_of_transformers else 0.004) if is_decoupled_class else None
    decay = conversion.weight_decay(default=default)
    if decay and len(conversion.state.groups) == 1:
        conversion.warnings.append("weight decay applies to all parameters: Keras does not save which ones it excludes")
    has_maximum = conversion.has("velocity_hat", "amsgrad")
    hyperparameters = {
        "lr": conversion.learning_rate(),
        "betas": (beta_1, beta_2),
        "eps": epsilon / correction(beta_2, conversion.step) if epsilon_of_torch is None else epsilon_of_torch,
        "weight_decay": decay,
        "amsgrad": has_maximum,
        **_PLAIN,
        "fused": None,
        "decoupled_weight_decay": is_decoupled_class or bool(decay),
    }
    slots = {"exp_avg": conversion.slot("momentum"), "exp_avg_sq": conversion.slot("velocity")}
    if "velocity_hat" in conversion.state.slots:
        slots["max_exp_avg_sq"] = conversion.slot("velocity_hat")
    return "adamw" if hyperparameters["decoupled_weight_decay"] else "adam", hyperparameters, slots


def adam_to_keras(conversion: FromTorch) -> Converted:
    """Return PyTorch's Adam, NAdam or AdamW as Keras has it. Raises LossError for what Keras's lacks."""
    if any("correct_bias" in group for group in conversion.groups):
        raise LossError("transformers' own AdamW decays weights after the step, which no optimizer of Keras does")
    beta_1, beta_2 = conversion.betas()
    decays = [
        (decay_of(group), group.get("decoupled_weight_decay", conversion.state.algorithm == "adamw"))
        for group in conversion.groups
    ]
    if any(decay and not is_decoupled for decay, is_decoupled in decays):
        conversion.refuse_decay()
    decay = max(decay for decay, _ in decays)
    is_decoupled_class = conversion.state.algorithm == "adamw" or bool(decay)
    if is_decoupled_class and conversion.flavor is KerasFlavor.LEGACY:
        raise LossError(f"{conversion.flavor.value} has no AdamW", hint="a config of a later version does")
    has_maximum = bool(conversion.value("amsgrad", False))
    hyperparameters = {
        "learning_rate": conversion.learning_rate(),
        "beta_1": beta_1,
        "beta_2": beta_2,
        **_adam_epsilon(conversion, beta_2),
        "amsgrad": has_maximum,
        "weight_decay": float(decay) if is_decoupled_class else None,
    }
    slots = {"momentum": conversion.slot("exp_avg"), "velocity": conversion.slot("exp_avg_sq")}
    if has_maximum:
        slots["velocity_hat"] = conversion.slot("max_exp_avg_sq")
    has_no_adamw = "adaptive_epsilon" in hyperparameters  # AdamW of tf_keras takes none, its Adam decays alike
    return "adamw" if is_decoupled_class and not has_no_adamw else "adam", hyperparameters, slots


def _adam_epsilon(conversion: FromTorch, beta_2: float) -> dict[str, Any]:
    epsilon = conversion.number("eps", 1e-8)
    if conversion.is_exact and conversion.flavor is not KerasFlavor.LEGACY:
        return {"epsilon": epsilon, **({"adaptive_epsilon": True} if conversion.flavor is KerasFlavor.TF_KERAS else {})}
    factor = correction(beta_2, conversion.step)
    placed = epsilon * factor
    most = 1 / factor - 1
    if epsilon and most > TELLING:
        advice = "" if conversion.is_exact else "; --epsilon exact writes an optimizer without this error"
        conversion.warnings.append(
            f"epsilon {epsilon:g} is {placed:.4g} in Keras, which adds it to another root: exact for the next update, "
            f"later ones grow too large by at most {most:.2g} of themselves, where the second moment is far below "
            f"epsilon squared{advice}"
        )
    return {"epsilon": placed, EPSILON_OF_TORCH: [placed, epsilon]}


def sgd_to_torch(conversion: FromKeras) -> Converted:
    """Return Keras's SGD as PyTorch has it: its momentum has the learning rate in it, PyTorch's has not."""
    conversion.refuse_decay()
    momentum, rate = conversion.momentum("momentum"), conversion.learning_rate()
    slots = {}
    if momentum and "momentum" in conversion.state.slots:
        slots["momentum_buffer"] = conversion.slot("momentum", -1 / not_zero(rate))
    hyperparameters = {
        "lr": rate,
        "momentum": momentum,
        "dampening": 0,
        "weight_decay": 0,
        "nesterov": bool(conversion.value("nesterov", False)),
        "maximize": False,
        "foreach": None,
        "differentiable": False,
        "fused": None,
    }
    return "sgd", hyperparameters, slots


def sgd_to_keras(conversion: FromTorch) -> Converted:
    """Return PyTorch's SGD as Keras has it. Raises LossError for dampening that Keras lacks."""
    conversion.refuse_decay()
    momentum, rate = conversion.number("momentum", 0.0), conversion.learning_rate()
    is_nesterov, dampening = bool(conversion.value("nesterov", False)), conversion.number("dampening", 0.0)
    slots = {}
    if momentum:
        slots["momentum"] = conversion.slot("momentum_buffer", -not_zero(rate))
    elif conversion.flavor is KerasFlavor.TF_KERAS:  # it keeps a momentum even where it has none
        slots["momentum"] = {parameter: conversion.zeros(parameter) for parameter in conversion.trained}
    if momentum and dampening:
        if is_nesterov or not conversion.state.slots:
            raise LossError("its gradients are dampened in a way that no optimizer of Keras has")
        conversion.warnings.append(
            f"dampening {dampening:g} is in the learning rate now, {rate:g} times {1 - dampening:g}"
        )
        rate *= 1 - dampening
    hyperparameters = {"learning_rate": rate, "momentum": momentum, "nesterov": is_nesterov}
    return "sgd", hyperparameters, slots


def rmsprop_to_torch(conversion: FromKeras) -> Converted:
    """Return Keras's RMSprop as PyTorch has it."""
    conversion.refuse_decay()
    momentum, rate = conversion.momentum("momentum"), conversion.learning_rate()
    slots = {"square_avg": conversion.slot("velocity")}
    if momentum:
        slots["momentum_buffer"] = conversion.slot("momentum", 1 / not_zero(rate))
    is_centered = conversion.has("average_gradient", "centered")
    if "average_gradient" in conversion.state.slots:
        slots["grad_avg"] = conversion.slot("average_gradient")
    squares = Squares(squares=slots["square_avg"], averages=slots.get("grad_avg", {}))
    hyperparameters = {
        "lr": rate,
        "momentum": momentum,
        "alpha": conversion.number("rho", 0.9),
        "eps": _beside_root(conversion, squares, is_there=conversion.is_legacy and not momentum),
        "centered": is_centered,
        "weight_decay": 0,
        **_PLAIN,
    }
    return "rmsprop", hyperparameters, slots


def rmsprop_to_keras(conversion: FromTorch) -> Converted:
    """Return PyTorch's RMSprop as Keras has it."""
    conversion.refuse_decay()
    momentum, rate = conversion.number("momentum", 0.0), conversion.learning_rate()
    is_centered = bool(conversion.value("centered", False))
    slots = {"velocity": conversion.slot("square_avg")}
    if momentum:
        slots["momentum"] = conversion.slot("momentum_buffer", not_zero(rate))
    if is_centered:
        slots["average_gradient"] = conversion.slot("grad_avg")
    squares = Squares(squares=slots["velocity"], averages=slots.get("average_gradient", {}))
    hyperparameters = {
        "learning_rate": rate,
        "rho": conversion.number("alpha", 0.99),
        "momentum": momentum,
        **_below_root(conversion, 1e-8, squares, is_there=conversion.flavor is KerasFlavor.LEGACY and not momentum),
        "centered": is_centered,
    }
    return "rmsprop", hyperparameters, slots


def adagrad_to_torch(conversion: FromKeras) -> Converted:
    """Return Keras's Adagrad as PyTorch has it."""
    conversion.refuse_decay()
    slots = {"sum": conversion.slot("accumulator")}
    hyperparameters = {
        "lr": conversion.learning_rate(),
        "lr_decay": 0,
        "eps": _beside_root(conversion, Squares(squares=slots["sum"], averages={}), is_there=conversion.is_legacy),
        "weight_decay": 0,
        "initial_accumulator_value": conversion.number("initial_accumulator_value", 0.1),
        "foreach": None,
        "maximize": False,
        "differentiable": False,
        "fused": None,
    }
    return "adagrad", hyperparameters, slots


def adagrad_to_keras(conversion: FromTorch) -> Converted:
    """Return PyTorch's Adagrad as Keras has it. Raises LossError for a decay of its learning rate."""
    conversion.refuse_decay()
    if conversion.number("lr_decay", 0.0):
        raise LossError("its learning rate decays by itself, which no optimizer of Keras's does")
    if not conversion.state.slots:
        raise LossError("it has no sums of squared gradients, which torch.optim.Adagrad has from the start")
    slots = {"accumulator": conversion.slot("sum")}
    squares = Squares(squares=slots["accumulator"], averages={})
    hyperparameters = {
        "learning_rate": conversion.learning_rate(),
        "initial_accumulator_value": conversion.number("initial_accumulator_value", 0.0),
        **_below_root(conversion, 1e-10, squares, is_there=conversion.flavor is KerasFlavor.LEGACY),
    }
    return "adagrad", hyperparameters, slots


def _beside_root(conversion: FromKeras, squares: Squares, *, is_there: bool) -> float:
    epsilon, epsilon_of_torch = conversion.epsilon(1e-7)
    if is_there:
        return epsilon
    if epsilon_of_torch is not None:
        return epsilon_of_torch
    placed = beside_root(epsilon, squares)
    conversion.warnings += placed.note(epsilon, "PyTorch, which adds it to the root instead of below")
    return placed.value


def _below_root(conversion: FromTorch, default: float, squares: Squares, *, is_there: bool) -> dict[str, Any]:
    epsilon = conversion.number("eps", default)
    if is_there or (conversion.is_exact and conversion.flavor is KerasFlavor.KERAS_3):
        return {"epsilon": epsilon}
    placed = below_root(epsilon, squares)
    conversion.warnings += placed.note(epsilon, "Keras, which adds it below the root instead of to it")
    return {"epsilon": placed.value, EPSILON_OF_TORCH: [placed.value, epsilon]}


@dataclass(frozen=True, slots=True, kw_only=True)
class Algorithm:
    """One optimizer, both ways."""

    to_torch: Callable[[FromKeras], Converted]
    to_keras: Callable[[FromTorch], Converted]


_ADAM = Algorithm(to_torch=adam_to_torch, to_keras=adam_to_keras)
ALGORITHMS: Mapping[str, Algorithm] = {
    "adam": _ADAM,
    "adamw": _ADAM,
    "sgd": Algorithm(to_torch=sgd_to_torch, to_keras=sgd_to_keras),
    "rmsprop": Algorithm(to_torch=rmsprop_to_torch, to_keras=rmsprop_to_keras),
    "adagrad": Algorithm(to_torch=adagrad_to_torch, to_keras=adagrad_to_keras),
}

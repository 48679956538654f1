"""The rates of Keras's schedules at a step: keras/src/optimizers/schedules/learning_rate_schedule.py (3.15)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from converter.errors import LossError

Config = Mapping[str, Any]


def _exponential(config: Config, step: int) -> float:
    power = step / config["decay_steps"]
    power = math.floor(power) if config.get("staircase") else power
    return float(config["initial_learning_rate"] * config["decay_rate"] ** power)


def _inverse_time(config: Config, step: int) -> float:
    power = step / config["decay_steps"]
    power = math.floor(power) if config.get("staircase") else power
    return float(config["initial_learning_rate"] / (1 + config["decay_rate"] * power))


def _piecewise(config: Config, step: int) -> float:
    index = next((index for index, bound in enumerate(config["boundaries"]) if step <= bound), -1)
    return float(config["values"][index])


def _polynomial(config: Config, step: int) -> float:
    steps = config["decay_steps"]
    if config.get("cycle"):
        steps *= max(1, math.ceil(step / steps))
    start, end = config["initial_learning_rate"], config.get("end_learning_rate", 1e-4)
    return float((start - end) * (1 - min(step, steps) / steps) ** config.get("power", 1.0) + end)


def _cosine(config: Config, step: int) -> float:
    start, target = config["initial_learning_rate"], config.get("warmup_target")
    warmup, alpha = config.get("warmup_steps", 0), config.get("alpha", 0.0)
    if target is not None and step < warmup:
        return float(start + (target - start) * step / warmup)
    if target is not None:
        step, start = step - warmup, target
    part = min(step, config["decay_steps"]) / config["decay_steps"]
    return float(start * ((1 - alpha) * 0.5 * (1 + math.cos(math.pi * part)) + alpha))


def _cosine_restarts(config: Config, step: int) -> float:
    start, alpha = config["initial_learning_rate"], config.get("alpha", 0.0)
    longer, lower = config.get("t_mul", 2.0), config.get("m_mul", 1.0)
    part, restarts = step / config["first_decay_steps"], 0
    if longer == 1.0:
        restarts, part = math.floor(part), part - math.floor(part)
    else:
        restarts = math.floor(math.log(1 - part * (1 - longer)) / math.log(longer))
        part = (part - (1 - longer**restarts) / (1 - longer)) / longer**restarts
    return float(start * ((1 - alpha) * 0.5 * lower**restarts * (1 + math.cos(math.pi * part)) + alpha))


def _warm_up(config: Config, step: int) -> float:
    """transformers.optimization_tf.WarmUp (4.57): a power of the step, then another schedule."""
    warmup = config["warmup_steps"]
    if step < warmup:
        return float(config["initial_learning_rate"] * (step / warmup) ** config.get("power", 1.0))
    return learning_rate_at(config["decay_schedule_fn"], step - warmup)


_SCHEDULES: Mapping[str, Callable[[Config, int], float]] = {
    "ExponentialDecay": _exponential,
    "InverseTimeDecay": _inverse_time,
    "PiecewiseConstantDecay": _piecewise,
    "PolynomialDecay": _polynomial,
    "CosineDecay": _cosine,
    "CosineDecayRestarts": _cosine_restarts,
    "WarmUp": _warm_up,
}
_OF_KERAS = frozenset(_SCHEDULES) - {"WarmUp"}


def learning_rate_at(config: object, step: int) -> float:
    """Return the rate that the update after `step` completed ones uses; `config` is a number or a schedule's config.

    Raises LossError for a schedule that is not known, or lacks what it needs.
    """
    if isinstance(config, int | float):
        return float(config)
    name = config.get("class_name") if isinstance(config, Mapping) else config
    name = name.rpartition(">")[2] if isinstance(name, str) else name
    if not isinstance(config, Mapping) or not isinstance(name, str) or name not in _SCHEDULES:
        raise LossError(f"its learning rate is a schedule that is not known: {name!r}", hint=_HINT)
    try:
        return _SCHEDULES[name](_of_numbers(config["config"]), step)
    except (KeyError, ValueError, IndexError, ZeroDivisionError, OverflowError) as error:
        raise LossError(f"its {name} has no valid {error}", hint=_HINT) from error


_LISTS, _MAY_LACK = ("boundaries", "values"), ("warmup_target",)
_NO_NUMBERS, _NOT_NEGATIVE = (
    ("name", "decay_schedule_fn"),
    ("decay_rate", "decay_steps", "first_decay_steps", "warmup_steps"),
)


def _of_numbers(config: object) -> Config:
    """Return the config of a schedule. Raises ValueError for what is no number where there has to be one."""
    if not isinstance(config, Mapping):
        raise ValueError("its config")
    for name, value in config.items():
        if name in _NO_NUMBERS or (value is None and name in _MAY_LACK):
            continue
        if name in _LISTS:
            is_right = isinstance(value, list | tuple) and all(isinstance(each, int | float) for each in value)
        else:
            is_right = isinstance(value, int | float) and (value >= 0 or name not in _NOT_NEGATIVE)
        if not is_right:
            raise ValueError(name)
    return config


def shown_schedule(config: object) -> str:
    """Return a schedule's config as the call that makes it: `CosineDecay(initial_learning_rate=0.001, ...)`."""
    if not isinstance(config, Mapping):
        return str(config)
    values = config.get("config")
    arguments = values if isinstance(values, Mapping) else {}
    shown = [
        f"{name}={shown_schedule(value) if isinstance(value, Mapping) else value}"
        for name, value in arguments.items()
        if name != "name" and value is not None
    ]
    return f"{str(config.get('class_name')).rpartition('>')[2]}({', '.join(shown)})"


def of_keras(config: object) -> dict[str, Any] | None:
    """Return a schedule's config as every version of Keras reads it, None for one that is not Keras's own."""
    name = config.get("class_name") if isinstance(config, Mapping) else None
    if not isinstance(config, Mapping) or name not in _OF_KERAS or not isinstance(config.get("config"), Mapping):
        return None
    module = "keras.optimizers.schedules"
    return {"module": module, "class_name": name, "config": dict(config["config"]), "registered_name": None}


def inverse_time(rate: float, decay: float) -> dict[str, Any]:
    """Return the schedule that Keras 2's `decay` of a rate was."""
    config = {"initial_learning_rate": rate, "decay_steps": 1, "decay_rate": decay, "staircase": False, "name": None}
    return {
        "module": "keras.optimizers.schedules",
        "class_name": "InverseTimeDecay",
        "config": {key: value for key, value in config.items() if value is not None},
        "registered_name": None,
    }


_HINT = "--hyperparameter learning_rate=VALUE gives the rate of the next step"

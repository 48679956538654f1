"""The variables of a Keras optimizer as its files have them: names and order. `keras_names` reads what this writes.

keras/src/optimizers (Keras 3.15), tf_keras/src/optimizers and its legacy folder (tf_keras 2.21): `build` and
`_create_slots` say the order, `add_optimizer_variables` and `add_variable_from_reference` the names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from converter.dialects.optimizer.conversion import EPSILON_OF_TORCH, OWN_PACKAGE
from converter.dialects.optimizer.flavors import KerasFlavor
from converter.model.optimizer import OptimizerState
from converter.model.tensor import ArrayTensor, Tensor

_ADAM = (("momentum", "velocity"), ("velocity_hat",))
_PLANS: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "adam": _ADAM,
    "adamw": _ADAM,
    "sgd": (("momentum",),),
    "rmsprop": (("velocity",), ("momentum",), ("average_gradient",)),
    "adagrad": (("accumulator",),),
}
"""Slots side by side for each weight, and what comes for all weights after that; legacy optimizers have none beside."""

WITHOUT_DECAY = "without_weight_decay"
"""What the optimizers of converter.keras_optimizers call the positions of the weights that do not decay."""

_OLDER = {"momentum": "m", "velocity": "v", "velocity_hat": "vhat"}
_LEGACY_RMSPROP = {"velocity": "rms", "momentum": "momentum", "average_gradient": "mg"}


def config_of(state: OptimizerState) -> tuple[str, dict[str, Any]]:
    """Return the class of an optimizer in Keras's conventions, and what its get_config() says."""
    (first, *others) = state.groups
    kept = {key: value for key, value in first.hyperparameters.items() if key not in ("class_name", EPSILON_OF_TORCH)}
    class_name = first.hyperparameters["class_name"]
    if others and class_name.startswith(OWN_PACKAGE):
        apart = {name for group in others for name in group.parameters}
        kept[WITHOUT_DECAY] = [position for position, name in enumerate(parameters_of(state)) if name in apart]
    return class_name, kept


def parameters_of(state: OptimizerState) -> list[str]:
    """Return the parameters in the order of the slots, or of the groups where there are none."""
    return list(next(iter(state.slots.values()), state.parameters))


def in_order(state: OptimizerState, order: Mapping[str, Any]) -> OptimizerState:
    """Return the state with its parameters in the order that `order` has them, as readers give them."""
    groups = tuple(
        replace(group, parameters=tuple(name for name in order if name in group.parameters)) for group in state.groups
    )
    slots = {slot: {name: held[name] for name in order if name in held} for slot, held in state.slots.items()}
    return replace(state, groups=groups, slots=slots)


def variables(state: OptimizerState, flavor: KerasFlavor) -> dict[str, Tensor]:
    """Return the variables of an optimizer by their full names, in its own order; `state` is in Keras's conventions."""
    title = config_of(state)[1]["name"]
    found: dict[str, Tensor] = {_step_name(title, flavor): ArrayTensor.of(np.asarray(state.step or 0, np.int64))}
    rate = config_of(state)[1]["learning_rate"]
    if flavor is KerasFlavor.KERAS_3 and not isinstance(rate, Mapping):  # a schedule has no variable
        found[f"{title}/learning_rate"] = ArrayTensor.of(np.asarray(rate, np.float32))
    plan = _PLANS[state.algorithm]
    if flavor is KerasFlavor.LEGACY:
        plan = tuple((slot,) for part in plan for slot in part)
    for part in plan:
        held = [slot for slot in part if slot in state.slots]
        for name in state.slots[held[0]] if held else ():
            for slot in held:
                found[_slot_name(title, slot, name, state.algorithm, flavor)] = state.slots[slot][name]
    return found


def _step_name(title: str, flavor: KerasFlavor) -> str:
    return {
        KerasFlavor.KERAS_3: f"{title}/iteration",
        KerasFlavor.TF_KERAS: "iteration",
        KerasFlavor.LEGACY: f"{title}/iter",
    }[flavor]


def _slot_name(title: str, slot: str, weight: str, algorithm: str, flavor: KerasFlavor) -> str:
    if flavor is KerasFlavor.KERAS_3:
        return f"{title}/{weight.replace('/', '_')}_{slot}"
    if flavor is KerasFlavor.TF_KERAS:
        own = slot if algorithm in ("rmsprop", "adagrad") else _OLDER[slot]
        return f"{title}/{own}/{weight}"
    return f"{title}/{weight}/{slot_of_legacy(slot, algorithm)}"


def slot_of_legacy(slot: str, algorithm: str) -> str:
    """Return what optimizers before TensorFlow 2.11 call a slot."""
    names = _LEGACY_RMSPROP if algorithm == "rmsprop" else _OLDER if algorithm in ("adam", "adamw") else {}
    return names.get(slot, slot)

"""What a file of Keras has no place for in its optimizer, kept beside it: `{"class_name", "config", "epsilon", ...}`.

A `.weights.h5` or a checkpoint of TensorFlow says neither class nor hyperparameters, and no file says which weights do
not decay. What Keras itself writes has no record; what this program writes has one, and it is read where it agrees.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from converter.dialects.optimizer.conversion import EPSILON_OF_TORCH
from converter.dialects.optimizer.keras_layouts import WITHOUT_DECAY, config_of
from converter.dialects.optimizer.settings import Settings
from converter.model.optimizer import OptimizerState, ParameterGroup

_EPSILON = "epsilon"


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """`settings` of the optimizer, PyTorch's epsilon beside them, weights that do not decay, all in their order."""

    settings: Settings = field(default_factory=Settings)
    epsilon_of_torch: tuple[float, float] | None = None
    without_decay: frozenset[str] = frozenset()
    parameters: tuple[str, ...] = ()

    def completing(self, settings: Settings) -> Settings:
        """Return what the file itself says, or what the record does where it says nothing."""
        is_stated = bool(settings.config) and not settings.is_by_name
        stated = self.settings if self.settings.class_name and not is_stated else settings
        not_keras = (WITHOUT_DECAY, EPSILON_OF_TORCH)
        stated = replace(stated, config={key: value for key, value in stated.config.items() if key not in not_keras})
        if self.epsilon_of_torch is None:
            return stated
        return replace(stated, config={**stated.config, EPSILON_OF_TORCH: list(self.epsilon_of_torch)})

    def applied(self, state: OptimizerState, positions: object = None) -> OptimizerState:
        """Return the state with the weights that do not decay in a group of their own.

        Where there is no record of them, `positions` tells them among the parameters in their order.
        """
        (group,) = state.groups
        recorded = {name.removesuffix(":0") for name in self.without_decay}
        apart = tuple(name for name in group.parameters if name.removesuffix(":0") in recorded)
        if not self.parameters and isinstance(positions, list):
            apart = tuple(name for position, name in enumerate(group.parameters) if position in positions)
        if not apart or not group.hyperparameters.get("weight_decay"):
            return state
        decayed = tuple(name for name in group.parameters if name not in apart)
        others = {**group.hyperparameters, "weight_decay": 0.0}
        groups = (replace(group, parameters=decayed), ParameterGroup(parameters=apart, hyperparameters=others))
        return replace(state, groups=groups)


def record_of(state: OptimizerState) -> dict[str, Any]:
    """Return the record of a state in Keras's conventions, for JSON; without the weights that do not decay."""
    class_name, config = config_of(state)
    document = {"class_name": class_name, "config": config}
    epsilons = state.groups[0].hyperparameters.get(EPSILON_OF_TORCH)
    return document if epsilons is None else {**document, _EPSILON: epsilons}


def parsed(value: object, names: Collection[str] = (), parameters: Sequence[str] = ()) -> Record:
    """Return the record that `value` is, an empty one for anything else; `names` of `parameters` do not decay."""
    if not isinstance(value, Mapping):
        return Record()
    class_name, config = value.get("class_name"), value.get("config")
    settings = Settings()
    if isinstance(class_name, str) and isinstance(config, Mapping):
        settings = Settings(class_name=class_name, config=config)
    epsilons = value.get(_EPSILON)
    is_pair = isinstance(epsilons, list) and len(epsilons) == 2 and all(map(_is_number, epsilons))
    return Record(
        settings=settings,
        epsilon_of_torch=(epsilons[0], epsilons[1]) if is_pair and epsilons is not None else None,
        without_decay=frozenset(names),
        parameters=tuple(parameters),
    )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value >= 0

"""What an optimizer of Keras did besides its updates, given to one of another version of Keras: schedules, clipping."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from converter.dialects.optimizer.conversion import as_float32
from converter.dialects.optimizer.flavors import KerasFlavor
from converter.dialects.optimizer.keras_settings import TORCH
from converter.dialects.optimizer.schedules import inverse_time, of_keras
from converter.model.optimizer import OptimizerState

_CLIPPING = ("clipnorm", "global_clipnorm", "clipvalue")


def with_besides(
    config: Mapping[str, Any], state: OptimizerState, groups: Iterable[Mapping[str, Any]], flavor: KerasFlavor
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the config of an optimizer with what `state` had besides, and what that kind of Keras has no place for.

    `groups` are PyTorch's; what they have that no table knows is left, too.
    """
    extended, left = dict(config), dict(state.beside)
    for name in (*_CLIPPING, *(("loss_scale_factor",) if flavor is KerasFlavor.KERAS_3 else ())):
        if name in left:
            extended[name] = left.pop(name)
    schedule = of_keras(left.get("learning_rate"))
    if schedule is not None:
        extended["learning_rate"] = schedule
        del left["learning_rate"]
    decay = left.get("decay")
    if isinstance(decay, int | float) and schedule is None and "learning_rate" not in left:
        first = as_float32(extended["learning_rate"] * (1 + decay * (state.step or 0)))
        if flavor is KerasFlavor.LEGACY:
            extended |= {"learning_rate": first, "decay": decay}
        else:
            extended["learning_rate"] = inverse_time(first, decay)
        del left["decay"]
    return extended, left | {name: group[name] for group in groups for name in group if name not in TORCH}

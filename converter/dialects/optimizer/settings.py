"""What a Keras file says of its optimizer: class and hyperparameters."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

_ALGORITHMS = {
    "adam": "adam",
    "adamw": "adamw",
    "adamweightdecay": "adamw",
    "sgd": "sgd",
    "rmsprop": "rmsprop",
    "adagrad": "adagrad",
}

_RATE, _RATE_OF_SGD = 0.001, 0.01

NO_RATE = "the file does not say its learning rate"

SCALING_TITLE = "loss_scale_optimizer"
_SCALING_CLASSES = ("LossScaleOptimizer", "LossScaleOptimizerV3")
"""What Keras wraps an optimizer in where gradients are of half precision: what Keras 3 calls it, and the classes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """`class_name` as the file has it, "" when only names of variables tell; `config` is what get_config() returned.

    Of an optimizer that `is_by_name`, as in ``compile("adam")``, Keras makes one of its own rate.
    """

    class_name: str = ""
    config: Mapping[str, Any] = field(default_factory=dict)
    is_by_name: bool = False

    @property
    def algorithm(self) -> str | None:
        """What the algorithm is called here, None for one that no other framework has."""
        return algorithm_of(self.class_name)


def algorithm_of(class_name: str) -> str | None:
    """Return the algorithm of a class (`Custom>AdamW`), or of an optimizer of that name (`adam_w`)."""
    bare = re.sub(r"_\d+$", "", class_name.rpartition(">")[2])
    return _ALGORITHMS.get(bare.replace("_", "").lower())


def settings_of(compiled: object) -> Settings:
    """Return the settings in a `training_config` or `compile_config`; empty ones when it has none."""
    if not isinstance(compiled, Mapping):
        return Settings()
    entry = compiled.get("optimizer_config", compiled.get("optimizer"))
    if isinstance(entry, str):
        algorithm = algorithm_of(entry)
        made = {} if algorithm is None else {"learning_rate": _RATE_OF_SGD if algorithm == "sgd" else _RATE}
        return Settings(class_name=entry, config=made, is_by_name=True)
    if not isinstance(entry, Mapping) or not isinstance(entry.get("class_name"), str):
        return Settings()
    config, registered = entry.get("config"), entry.get("registered_name")
    if entry["class_name"].rpartition(">")[2] in _SCALING_CLASSES and isinstance(config, Mapping):
        return settings_of({"optimizer": config.get("inner_optimizer", config.get("optimizer"))})
    class_name = registered if isinstance(registered, str) and ">" in registered else entry["class_name"]
    return Settings(class_name=class_name, config=config if isinstance(config, Mapping) else {})

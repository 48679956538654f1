"""The three kinds of optimizer that Keras has had: names of variables, their order, and what a config says."""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import Enum

from converter.dialects.keras.architecture import is_of_keras_2
from converter.model.checkpoint import Checkpoint


class KerasFlavor(Enum):
    """Keras 3; tf_keras, and Keras from TensorFlow 2.11 on; Keras before that, in `optimizers.legacy` since."""

    KERAS_3 = "Keras 3"
    TF_KERAS = "tf_keras"
    LEGACY = "Keras 2 before TensorFlow 2.11"


_VERSION = re.compile(r"(\d+)\.(\d+)")
_FIRST_NEW = (2, 11)

CLASSES: Mapping[str, str] = {
    "adam": "Adam",
    "adamw": "AdamW",
    "sgd": "SGD",
    "rmsprop": "RMSprop",
    "adagrad": "Adagrad",
}
"""Algorithm -> its class, in every kind."""

TITLES: Mapping[str, str] = {
    "Adam": "adam",
    "AdamW": "adam_w",
    "SGD": "sgd",
    "RMSprop": "rmsprop",
    "Adagrad": "adagrad",
}
"""Class -> what Keras 3 calls an optimizer of it; the others call it as its class."""


def flavor_of(checkpoint: Checkpoint, *, default: KerasFlavor | None = None) -> KerasFlavor:
    """Return the kind of Keras that a model's file is for: by the version in the source, or in its config.

    Where neither states one, a config with shapes as Keras 2 gives them is that of tf_keras, any other `default`'s, or
    by the names of modules in it that of Keras 3 or tf_keras.
    """
    stated = stated_version(checkpoint)
    match = None if stated is None else _VERSION.match(stated)
    if match is not None:
        version = (int(match[1]), int(match[2]))
        if version >= (3, 0):
            return KerasFlavor.KERAS_3
        return KerasFlavor.TF_KERAS if version >= _FIRST_NEW else KerasFlavor.LEGACY
    config = checkpoint.keras_config
    if config is not None and is_of_keras_2(config.values):
        return KerasFlavor.TF_KERAS
    if default is not None:
        return default
    is_latest = config is not None and "module" in config.values
    return KerasFlavor.KERAS_3 if is_latest else KerasFlavor.TF_KERAS


def stated_version(checkpoint: Checkpoint) -> str | None:
    """Return the version of Keras that a source or its config states."""
    values = {} if checkpoint.keras_config is None else checkpoint.keras_config.values
    stated = checkpoint.metadata.get("keras_version", values.get("keras_version"))
    return stated if isinstance(stated, str) else None

"""The generic dialect of Keras: any model made of Keras's own layers, to PyTorch's names and layouts and back.

`modules` is the table of layers; `architecture` finds them in a config, `leaves` in names and shapes, `flattening`
says whose inputs are in another order, `rearrangement` is what a layout is, and `translation` applies it all.
Before all this, what Keras 1 wrote is made that of Keras 2: its config by `keras_1`, its weights by `keras_1_weights`,
whose names `keras_1_names` knows.
`settings` is the table of what layers are set to, and `semantics` says which of it weights do not hold.
"""

from __future__ import annotations

from converter.dialects.keras.architecture import (
    class_of_layers,
    is_class,
    is_model,
    parse,
    said_of_modules,
    with_modules,
    with_registered_classes,
)
from converter.dialects.keras.arrays import arrays_alone
from converter.dialects.keras.keras_1_weights import Recipes, is_of_keras_1, renewed
from converter.dialects.keras.leaves import are_keras
from converter.dialects.keras.objects import OBJECTS
from converter.dialects.keras.semantics import with_settings
from converter.dialects.keras.translation import (
    FLATTEN_ORDER,
    adapted,
    carry_layers,
    config_modules,
    is_only_listed,
    to_keras,
    to_pytorch,
)

__all__ = [
    "FLATTEN_ORDER",
    "OBJECTS",
    "Recipes",
    "adapted",
    "are_keras",
    "arrays_alone",
    "carry_layers",
    "class_of_layers",
    "config_modules",
    "is_class",
    "is_model",
    "is_of_keras_1",
    "is_only_listed",
    "parse",
    "renewed",
    "said_of_modules",
    "to_keras",
    "to_pytorch",
    "with_modules",
    "with_registered_classes",
    "with_settings",
]

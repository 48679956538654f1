"""Configs of all that a Keras model can be made of, by the Keras that is installed.

    python -m tests.graphs.keras_layers keras|tf_keras layers|applications [NAME ...]

writes JSON: ``{"configs": {name: config as the model says it}, "unbuilt": {name: why}}``. `layers` are those that Keras
exports, each in a model of its own where it can be called, else by itself; `applications` all of keras.applications,
or those named.
"""

from __future__ import annotations

import importlib
import inspect
import json
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["TF_USE_LEGACY_KERAS"] = "1"

_LINE, _MAP, _BLOCK = (6, 4), (8, 8, 3), (6, 6, 6, 2)
_ARGUMENTS: dict[str, dict[str, Any]] = {
    "Activation": {"activation": "relu"},
    "CategoryEncoding": {"num_tokens": 4},
    "CenterCrop": {"height": 4, "width": 4},
    "Cropping1D": {"cropping": 1},
    "Discretization": {"bin_boundaries": [0.0, 1.0]},
    "EinsumDense": {"equation": "abc,cd->abd", "output_shape": (None, 5)},
    "GroupNormalization": {"groups": 1},
    "GroupQueryAttention": {"head_dim": 4, "num_query_heads": 2, "num_key_value_heads": 1},
    "GroupedQueryAttention": {"head_dim": 4, "num_query_heads": 2, "num_key_value_heads": 1},
    "HashedCrossing": {"num_bins": 4},
    "Hashing": {"num_bins": 4},
    "InputLayer": {"input_shape": (3,)},
    "IntegerLookup": {"vocabulary": [1, 2]},
    "MultiHeadAttention": {"num_heads": 2, "key_dim": 4},
    "Normalization": {"mean": 0.0, "variance": 1.0},
    "Permute": {"dims": (2, 1)},
    "RandomCrop": {"height": 4, "width": 4},
    "RepeatVector": {"n": 2},
    "Rescaling": {"scale": 0.5},
    "Reshape": {"target_shape": (-1,)},
    "Resizing": {"height": 4, "width": 4},
    "RandomPosterization": {"factor": 4},
    "StringLookup": {"vocabulary": ["a", "b"]},
    "TextVectorization": {"vocabulary": ["a", "b"]},
    "UpSampling2D": {"size": 2},
}
_VALUES = {
    "units": 4,
    "filters": 4,
    "kernel_size": 3,
    "factor": 0.1,
    "rate": 0.1,
    "stddev": 0.1,
    "pool_size": 2,
    "output_size": 2,
    "input_dim": 5,
    "output_dim": 4,
    "height_factor": 0.1,
    "width_factor": 0.1,
    "height": 4,
    "width": 4,
    "axes": 1,
    "max_number": 2,
    "bounding_box_format": "xyxy",
    "num_bins": 4,
}


def _arguments(keras: Any, name: str, class_: Any) -> dict[str, Any]:
    if name in _ARGUMENTS:
        return _ARGUMENTS[name]
    layers = keras.layers
    made: dict[str, Callable[[], Any]] = {
        "layer": lambda: layers.LSTM(3) if name == "Bidirectional" else layers.Dense(3, activation="gelu"),
        "layers": lambda: [layers.RandomFlip(), layers.Rescaling(0.5)],
        "cell": lambda: layers.LSTMCell(3, kernel_regularizer="l2"),
        "cells": lambda: [layers.GRUCell(3), layers.LSTMCell(3)],
    }
    found = {}
    parameters = dict(inspect.signature(class_.__init__).parameters)
    if name == "SpectralNormalization":
        return {"layer": layers.Dense(3)}
    for key, parameter in parameters.items():
        if parameter.default is inspect.Parameter.empty and key in _VALUES:
            found[key] = _VALUES[key]
        elif parameter.default is inspect.Parameter.empty and key in made:
            found[key] = made[key]()
    if "kernel_size" in found and "Conv" in name and "1D" not in name:
        found["kernel_size"] = 2
    return found


def _configs(keras: Any, name: str, class_: Any) -> Iterator[dict[str, Any]]:
    """Yield the configs of models that call the layer, of those that can be built, and of the layer by itself."""
    layer = class_(**_arguments(keras, name, class_))
    if hasattr(keras, "saving") and hasattr(keras.saving, "serialize_keras_object"):
        yield json.loads(json.dumps(keras.saving.serialize_keras_object(layer), default=str))
    yield json.loads(json.dumps({"class_name": class_.__name__, "config": layer.get_config()}, default=_plain))
    for shape, count in ((_LINE, 1), (_MAP, 1), (_BLOCK, 1), ((4,), 1), (_LINE, 2), (_MAP[:2], 1)):
        try:
            inputs = [
                keras.Input(shape, dtype="string" if "Text" in name or "String" in name else None) for _ in range(count)
            ]
            model = keras.Model(inputs, class_(**_arguments(keras, name, class_))(inputs if count > 1 else inputs[0]))
        except Exception:  # the layer takes other inputs
            continue
        yield json.loads(model.to_json())
        return


def _plain(value: Any) -> Any:
    return value.get_config() if hasattr(value, "get_config") else str(value)


def layers(keras: Any, _: list[str]) -> dict[str, Any]:
    """Return the configs of every layer that Keras exports."""
    configs: dict[str, Any] = {}
    unbuilt = {}
    for name, class_ in vars(keras.layers).items():
        if inspect.isclass(class_) and issubclass(class_, keras.layers.Layer):
            try:
                configs.update({f"{name}-{number}": each for number, each in enumerate(_configs(keras, name, class_))})
            except Exception as error:
                unbuilt[name] = f"{type(error).__name__}: {error}"[:200]
    return {"configs": configs, "unbuilt": unbuilt}


def applications(keras: Any, names: list[str]) -> dict[str, Any]:
    """Return the configs of the models that come with Keras, without weights."""
    configs = {}
    for name, make in vars(keras.applications).items():
        if inspect.isfunction(make) and (not names or name in names):
            keras.backend.clear_session()
            configs[name] = json.loads(make(weights=None).to_json())
    return {"configs": configs, "unbuilt": {}}


if __name__ == "__main__":
    _, _framework, _what, *_names = sys.argv
    _made = {"layers": layers, "applications": applications}[_what](importlib.import_module(_framework), _names)
    sys.stdout.write(json.dumps(_made))

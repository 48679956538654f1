"""Makes models of Keras with their inputs and outputs: `python -m tests.keras_models.making FRAMEWORK FOLDER NAME ...`.

FRAMEWORK is `keras` or `tf_keras`. Each name gets a folder with `model.keras`, of tf_keras also `model.h5` and the
SavedModel `model`, `inputs.npz` by name, `outputs.npz` and `weights.npz` in the model's order.
"""

from __future__ import annotations

import importlib
import inspect
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

Make = Callable[[Any], Any]

_LARGER = {"Inception": 75, "Xception": 71}
"""The least side of an image, where it is not 32."""
_CLASSES = 7
_STEPS, _FEATURES, _UNITS = 5, 3, 4


def applications(keras: Any) -> dict[str, Make]:
    """Return name -> what makes a model of keras.applications, with logits: probabilities would be alike."""

    def of(class_: Any, side: int) -> Make:
        return lambda _: class_(weights=None, input_shape=(side, side, 3), classes=_CLASSES, classifier_activation=None)

    found = {name: each for name, each in vars(keras.applications).items() if inspect.isfunction(each)}
    sides = {name: next((size for part, size in _LARGER.items() if part in name), 32) for name in found}
    return {name: of(each, sides[name]) for name, each in found.items()}


def _of_steps(
    layer: Callable[[Any], Any], *, is_masked: bool = False, is_stateful: bool = False, before: Make | None = None
) -> Make:
    def make(keras: Any) -> Any:
        layers = keras.layers
        inputs = keras.Input((_STEPS, _FEATURES), batch_size=2 if is_stateful else None, name="x")
        x = layers.Masking(0.0)(inputs) if is_masked else inputs
        x = before(layers)(x) if before is not None else x
        return keras.Model(inputs, layer(layers)(x))

    return make


def _with_state(name: str, states: int) -> Make:
    """Begins with states that are inputs, and returns those that it ends with."""

    def make(keras: Any) -> Any:
        inputs = [keras.Input((_STEPS, _FEATURES), name="x")]
        inputs += [keras.Input((_UNITS,), name=f"state_{number}") for number in range(states)]
        layer = getattr(keras.layers, name)(_UNITS, return_state=True, return_sequences=True)
        return keras.Model(inputs, layer(inputs[0], initial_state=inputs[1:]))

    return make


def _of_images(keras: Any) -> Any:
    inputs = keras.Input((_STEPS, 6, 6, 2), name="x")
    return keras.Model(inputs, keras.layers.ConvLSTM2D(3, 3, padding="same", return_sequences=True)(inputs))


def _of_signals(keras: Any) -> Any:
    inputs = keras.Input((_STEPS, 6, 2), name="x")
    return keras.Model(inputs, keras.layers.ConvLSTM1D(3, 3)(inputs))


def _of_words(name: str) -> Make:
    def make(keras: Any) -> Any:
        inputs = keras.Input((_STEPS,), dtype="int32", name="x")
        x = keras.layers.Embedding(9, _FEATURES, mask_zero=True)(inputs)
        return keras.Model(inputs, keras.layers.Bidirectional(getattr(keras.layers, name)(_UNITS))(x))

    return make


def recurrent(keras: Any) -> dict[str, Make]:
    """Return name -> what makes a model of a recurrent layer, in the variants that Keras has."""
    variants: dict[str, dict[str, Any]] = {
        "plain": {},
        "sequences": {"return_sequences": True},
        "backwards": {"go_backwards": True},
        "backwards-sequences": {"go_backwards": True, "return_sequences": True},
        "relu": {"activation": "relu"},
        "without-bias": {"use_bias": False},
        "stateful": {"stateful": True},
        "unrolled": {"unroll": True},
        "dropout": {"dropout": 0.3, "recurrent_dropout": 0.2},
    }
    of_gates = {
        "hard-sigmoid": {"recurrent_activation": "hard_sigmoid"},
        "relu-gates": {"recurrent_activation": "relu"},
    }
    made: dict[str, Make] = {}
    for name in ("LSTM", "GRU", "SimpleRNN"):
        more = of_gates if name != "SimpleRNN" else {}
        more = {**more, "before-reset": {"reset_after": False}} if name == "GRU" else more
        for variant, options in {**variants, **more}.items():
            made[f"{name}-{variant}"] = _of_steps(_layer(name, options), is_stateful="stateful" in options)
        for variant, options in (("masked", {}), ("masked-sequences", {"return_sequences": True})):
            made[f"{name}-{variant}"] = _of_steps(_layer(name, options), is_masked=True)
        made[f"{name}-bidirectional"] = _of_steps(_both(name, {"return_sequences": True}))
        made[f"{name}-bidirectional-masked"] = _of_steps(_both(name, {}), is_masked=True)
        made[f"{name}-two-directions"] = _of_steps(_two(name))
        made[f"{name}-stacked"] = _of_steps(_layer(name, {}), before=_layer(name, {"return_sequences": True}))
        made[f"{name}-cells"] = _of_steps(_cells(name))
        made[f"{name}-state"] = _with_state(name, 2 if name == "LSTM" else 1)
        made[f"{name}-words"] = _of_words(name)
    return {**made, "ConvLSTM1D": _of_signals, "ConvLSTM2D": _of_images}


def _layer(name: str, options: dict[str, Any]) -> Callable[[Any], Any]:
    return lambda layers: getattr(layers, name)(_UNITS, **options)


def _both(name: str, options: dict[str, Any]) -> Callable[[Any], Any]:
    return lambda layers: layers.Bidirectional(getattr(layers, name)(_UNITS, **options))


def _two(name: str) -> Callable[[Any], Any]:
    def make(layers: Any) -> Any:
        class_ = getattr(layers, name)
        backward = class_(_UNITS, activation="relu", go_backwards=True)
        return layers.Bidirectional(class_(_UNITS), backward_layer=backward, merge_mode="sum")

    return make


def _cells(name: str) -> Callable[[Any], Any]:
    return lambda layers: layers.RNN([getattr(layers, f"{name}Cell")(units) for units in (_UNITS, 2)])


def kinds(keras: Any) -> dict[str, Make]:
    """Return everything that can be made."""
    return {**applications(keras), **recurrent(keras)}


def _randomize(model: Any, random: np.random.Generator) -> None:
    """Give every variable values that differ: many are made all zeros or ones."""
    for variable in model.weights:
        value = np.asarray(variable)
        name = getattr(variable, "path", variable.name)
        if not np.issubdtype(value.dtype, np.floating) or value.size == 0:
            continue
        noise = random.uniform(-0.2, 0.2, value.shape).astype(value.dtype)
        if "variance" in name or "gamma" in name:
            variable.assign(1 + noise)
        elif value.ndim < 2 or not value.any():
            variable.assign(noise)


def _drawn(model: Any, random: np.random.Generator) -> Iterator[np.ndarray]:
    for tensor in model.inputs:
        shape = tuple(2 if extent is None else extent for extent in tensor.shape)
        if "int" in str(tensor.dtype):
            yield random.integers(0, 9, shape).astype(np.int32)
        else:
            value = random.standard_normal(shape).astype(np.float32)
            if value.ndim == 3:
                value[0, -2:] = 0  # what a mask leaves out
            yield value


def _input_names(model: Any) -> list[str]:
    """Return what inputs are called in a saved model: by their layers."""
    histories = [each._keras_history for each in model.inputs]
    return [(each.operation if hasattr(each, "operation") else each.layer).name for each in histories]


def make(keras: Any, folder: Path, name: str) -> None:
    """Write one model in every form that its framework saves."""
    keras.backend.clear_session()
    keras.utils.set_random_seed(zlib.crc32(name.encode()))
    random = np.random.default_rng(zlib.crc32(name.encode()))
    model = kinds(keras)[name](keras)
    _randomize(model, random)
    given = list(_drawn(model, random))
    outputs = model(given if len(given) > 1 else given[0], training=False)
    if "stateful" in name:
        (model.reset_states if hasattr(model, "reset_states") else model.layers[-1].reset_states)()
    outputs = outputs if isinstance(outputs, list | tuple) else [outputs]
    folder.mkdir(parents=True, exist_ok=True)
    model.save(folder / "model.keras")
    if keras.__name__ == "tf_keras":
        model.save(folder / "model.h5")
        model.save(folder / "model", save_format="tf")
    np.savez(folder / "inputs.npz", **dict(zip(_input_names(model), given, strict=True)))
    np.savez(folder / "weights.npz", *(np.asarray(each) for each in model.weights))
    np.savez(folder / "outputs.npz", *(np.asarray(each) for each in outputs))


def main(framework: str, folder: Path, names: list[str]) -> None:
    keras = importlib.import_module(framework)
    for name in names:
        if not (folder / name / "outputs.npz").exists():
            make(keras, folder / name, name)


if __name__ == "__main__":
    _, _framework, _folder, *_names = sys.argv
    main(_framework, Path(_folder), _names)

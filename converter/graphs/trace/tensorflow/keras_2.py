"""The config of a Keras 2 (tf_keras) model in the terms of Keras 3, which reads some of it by itself.

Facts: keras 3.15 (models/functional.py, layers/layer.py) beside tf_keras 2.21 (engine/functional.py). Rules touch only
what Keras 3 does not write.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from converter.graphs.trace.tensorflow import cudnn
from converter.graphs.trace.tensorflow.keras_names import known

_MODELS = {"Functional": "keras.src.models.functional", "Sequential": "keras.src.models.sequential"}
_KERNEL = ("kernel_initializer", "kernel_regularizer", "kernel_constraint")
_REMOVED_ARGUMENTS: Mapping[str, Collection[str]] = {
    "Conv": ("groups",),
    "Depthwise": ("groups",),
    "Separable": ("groups", *_KERNEL),
    "Spatial": ("noise_shape", "trainable"),
    "Random": ("rng_type",),
    "Discretization": ("trainable",),
    "Attention": ("score_mode",),
    "MultiHeadAttention": ("query_shape", "key_shape", "value_shape", "softmax_robust_masking"),
    "": ("batch_input_shape", "time_major"),
}
"""Arguments that layers of Keras 3 do not take, by how the names of their classes begin.

`dot` is no string to it where it reads configs of Keras 2, but the function of that name.
"""
_POLICIES = ("Policy", "PolicyV1")
"""What Keras 2 writes of a layer that computes in another type than it stores; Keras 3 takes the policy by its name."""
_WRAPPED = ("layer", "backward_layer")
_TAKES_STATES = frozenset(
    ("RNN", "LSTM", "GRU", "SimpleRNN", "ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D", "Bidirectional", *cudnn.NAMES)
)
"""Layers that Keras 2 calls with the list of an input and the states to begin with, and Keras 3 with two arguments."""
_INERT = {"groups": 1, "softmax_robust_masking": False, "time_major": False, "score_mode": "dot"}
"""Values of those that matter which mean what Keras 3 does; others stay, and Keras 3 refuses them."""


def as_keras_3(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return `config` as Keras 3 takes it. A config that Keras 3 wrote is returned as it is."""
    return _object(config)


def is_of_keras_2(config: Mapping[str, Any]) -> bool:
    """Whether Keras 3 would have written this config in another way."""
    return as_keras_3(config) != config


def has_shapes_of_keras_2(value: Any) -> bool:
    """Whether a config gives the shape of an input as Keras 2 does, and Keras 3 never."""
    if isinstance(value, Mapping):
        return "batch_input_shape" in value or any(map(has_shapes_of_keras_2, value.values()))
    return isinstance(value, list) and any(map(has_shapes_of_keras_2, value))


def mixed_policy(config: Any) -> str | None:
    """Return the policy that layers of a config have, if all that have one agree: the one that they were made under."""
    names = set(_policies(config))
    return names.pop() if len(names) == 1 else None


def _policies(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        name = _name_of_policy(value, (*_POLICIES, "DTypePolicy"))
        if name is not None and name.startswith("mixed_"):
            yield name
        value = list(value.values())
    for each in value if isinstance(value, list) else ():
        yield from _policies(each)


def _value(value: Any) -> Any:
    if isinstance(value, Mapping):
        return _name_of_policy(value) or _object(value)
    return [_value(each) for each in value] if isinstance(value, list) else value


def _name_of_policy(value: Mapping[str, Any], classes: Collection[str] = _POLICIES) -> str | None:
    if value.get("class_name") not in classes or not isinstance(value.get("config"), Mapping):
        return None
    name = value["config"].get("name")
    return name if isinstance(name, str) else None


def _object(value: Mapping[str, Any]) -> dict[str, Any]:
    if value.get("class_name") == "Sequential":
        value = _with_input(value)
    found = {key: _value(each) for key, each in value.items()}
    class_name, inner = found.get("class_name"), found.get("config")
    if not isinstance(class_name, str) or not isinstance(inner, dict):
        return found
    if isinstance(found.get("module"), str) and class_name in _MODELS:
        found["module"] = _MODELS[class_name]
    if class_name != "InputLayer":
        _drop_arguments(class_name, inner)
    for wrapped in filter(None, map(inner.get, _WRAPPED)):
        if isinstance(wrapped, dict) and "module" not in wrapped and _is_layer(wrapped.get("class_name")):
            wrapped["module"] = "keras.layers"
    if isinstance(inner.get("layers"), list):
        _write_calls_anew(inner)
    return found


def _is_layer(class_name: object) -> bool:
    """Whether a class is a layer of Keras's own. It finds those inside of wrappers by their module alone."""
    return isinstance(class_name, str) and class_name in known().classes["layers"] and class_name not in cudnn.NAMES


def _with_input(model: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a Sequential with a layer for the input that its first layer says. Early ones are a list of layers."""
    config = model.get("config")
    config = {"name": "sequential", "layers": config} if isinstance(config, list) else config
    layers = config.get("layers") if isinstance(config, dict) else None
    first = layers[0] if isinstance(layers, list) and layers else None
    said = first.get("config") if isinstance(first, dict) and first.get("class_name") != "InputLayer" else None
    shape = said.get("batch_input_shape") if isinstance(said, dict) else None
    if not (isinstance(config, dict) and isinstance(layers, list) and isinstance(said, dict) and shape):
        return {**model, "config": config}
    source = {"name": f"{said.get('name')}_input", "batch_shape": shape}
    dtype = said.get("input_dtype", said.get("dtype"))
    source |= {"dtype": dtype} if isinstance(dtype, str) else {}
    return {**model, "config": {**config, "layers": [{"class_name": "InputLayer", "config": source}, *layers]}}


def _drop_arguments(class_name: str, arguments: dict[str, Any]) -> None:
    for beginning, names in _REMOVED_ARGUMENTS.items():
        if class_name.startswith(beginning) and (beginning != "Conv" or class_name.endswith("Transpose")):
            for name in names:
                if name in arguments and (name not in _INERT or arguments[name] == _INERT[name]):
                    del arguments[name]
    axis = arguments.get("axis")
    if class_name == "BatchNormalization" and isinstance(axis, list) and len(axis) == 1:
        arguments["axis"] = axis[0]


def _write_calls_anew(model: dict[str, Any]) -> None:
    """Say the calls of a functional model's layers as Keras 3 does: in no other form it reads tensors among keywords.

    Calls of models inside it are counted from 0, in Keras 2 from 1, for 0 is their own graph. Keras 3 knows this of
    outputs that are a Functional's, and of nothing else.
    """
    layers = [layer for layer in model["layers"] if isinstance(layer, dict)]
    if not any(_is_of_keras_2(call) for layer in layers for call in _calls(layer)):
        return
    classes = {name: layer.get("class_name") for layer in layers if isinstance(name := layer.get("name"), str)}
    models = {name for name, each in classes.items() if each in ("Model", *_MODELS)}
    for layer in layers:
        layer.pop("build_config", None)  # the calls build it; an attention has more than the one shape in here
        calls = layer.get("inbound_nodes") or []
        if isinstance(calls, list):
            made = [_call(each, models) if _is_of_keras_2(each) else each for each in calls]
            layer["inbound_nodes"] = [_with_states(each) for each in made] if _takes_states(layer) else made
    sequential = {name for name, each in classes.items() if each == "Sequential"}
    model["output_layers"] = _mapped(model.get("output_layers"), lambda place: _counted(place, sequential))


def _calls(layer: Mapping[str, Any]) -> list[Any]:
    calls = layer.get("inbound_nodes")
    return calls if isinstance(calls, list) else []


def _is_of_keras_2(call: Any) -> bool:
    return isinstance(call, list) or (isinstance(call, dict) and "args" not in call)


def _call(call: Any, models: Collection[Any]) -> dict[str, Any]:
    def tensor(place: list[Any]) -> dict[str, Any]:
        nothing: dict[str, Any] = {"shape": [], "dtype": "float32"}  # of the stand-in, which Keras replaces
        history = _counted(place, models)[:3]
        return {"class_name": "__keras_tensor__", "config": {**nothing, "keras_history": history}}

    keywords: dict[str, Any] = {}
    _mapped(call, lambda place: keywords.update(place[3]) if len(place) > 3 and isinstance(place[3], dict) else None)
    inputs = _mapped(call, tensor)
    inputs = inputs[0] if isinstance(inputs, list) and len(inputs) == 1 else inputs
    return {"args": [inputs], "kwargs": _mapped(keywords, tensor)}


def _takes_states(layer: Mapping[str, Any]) -> bool:
    class_name = layer.get("class_name")
    return isinstance(class_name, str) and class_name in _TAKES_STATES


def _with_states(call: Any) -> Any:
    """Return a call of a recurrent layer with what it begins with by name; one of Keras 3 has no list there."""
    match call:
        case {"args": [[first, _, *_] as inputs], "kwargs": {**others}}:
            return {"args": [first], "kwargs": {**others, "initial_state": inputs[1:]}}
    return call


def _mapped(value: Any, change: Callable[[list[Any]], Any]) -> Any:
    """Return a structure with each place in it, [layer, call, tensor], changed."""
    if isinstance(value, dict):
        return {key: _mapped(each, change) for key, each in value.items()}
    if not isinstance(value, list):
        return value
    if len(value) >= 3 and isinstance(value[0], str) and all(type(each) is int for each in value[1:3]):
        return change(value)
    return [_mapped(each, change) for each in value]


def _counted(place: list[Any], models: Collection[Any]) -> list[Any]:
    name, call, *others = place
    return [name, call - 1 if name in models and call > 0 else call, *others]

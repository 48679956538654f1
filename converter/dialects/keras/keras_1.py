"""The config of a Keras 1 model (1.0 to 1.2.2) in the terms of Keras 2.

Facts: `get_config` of the layers of Keras 1.2.2, and newer names by keras/legacy/interfaces.py of Keras 2.0.

What Keras 1 has that Keras 2 has not:

- other names of classes and settings, which the tables say; what no table knows stays as it is, for Keras to refuse
- a Sequential that is a list of layers, without a name, whose first layer has the input among its settings
- Merge, one class for all ways of joining; as the first layer of a Sequential it holds the branches that it joins
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import repeat
from typing import Any

from converter.dialects.keras import architecture
from converter.dialects.keras.settings import OLDER

_CLASSES: Mapping[str, str] = {
    **{f"Convolution{rank}D": f"Conv{rank}D" for rank in "123"},
    **{f"AtrousConvolution{rank}D": f"Conv{rank}D" for rank in "12"},
    "Deconvolution2D": "Conv2DTranspose",
    "SeparableConvolution2D": "SeparableConv2D",
    "TimeDistributedDense": "Dense",
}
"""Classes of Keras 1 that have another name in Keras 2; its Dense takes inputs of any rank."""

_MERGES: Mapping[str, str] = {
    "sum": "Add",
    "mul": "Multiply",
    "ave": "Average",
    "max": "Maximum",
    "concat": "Concatenate",
    "dot": "Dot",
}
"""Mode of a Merge -> class in Keras 2."""

_WINDOW = ("kernel_dim1", "kernel_dim2", "kernel_dim3", "nb_row", "nb_col")
_STARTS = ("init", "inner_init", "forget_bias_init", "beta_init", "gamma_init", "t_left_init", "weights")
_OF_THE_INPUT = ("batch_input_shape", "input_dtype", "input_dim", "input_length")
_NAMES: Mapping[str, str | None] = {
    **OLDER,
    **dict.fromkeys((*_WINDOW, *_STARTS, *_OF_THE_INPUT, "consume_less")),
}
"""Setting of Keras 1 -> what Keras 2 calls it; None where it has none, or the converted config says it elsewhere."""

_MODES = "mode mode_type concat_axis dot_axes output_shape output_shape_type output_mask output_mask_type arguments"
_MERGED: Mapping[str, str | None] = dict.fromkeys((*_MODES.split(), "layers"))
_OWN_NAMES: Mapping[str, Mapping[str, str | None]] = {
    **{name: {"output_dim": "units"} for name in ("Dense", "LSTM", "GRU", "SimpleRNN")},
    **dict.fromkeys(_MERGES.values(), _MERGED),
    "Merge": {"layers": None},
    "Concatenate": {**_MERGED, "concat_axis": "axis"},
    "Dot": {**_MERGED, "dot_axes": "axes"},
    "Conv1D": {"filter_length": "kernel_size"},
    "Conv2DTranspose": {"output_shape": None},
    "Embedding": {
        "input_dim": "input_dim",
        "W_regularizer": "embeddings_regularizer",
        "W_constraint": "embeddings_constraint",
    },
    "InputLayer": {"batch_input_shape": "batch_input_shape", "input_dtype": "dtype"},
}
"""Class in Keras 2 -> settings that it has by other names than `_NAMES` says."""

_WITHOUT_EFFECT: Mapping[str, Mapping[str, tuple[Any, ...]]] = {
    "BatchNormalization": {"mode": (0,)},
    "Embedding": {"dropout": (None, 0)},
}
"""Class -> settings that Keras 2 has not -> the values for which it computes the same."""

_ORDERS: Mapping[str, str] = {"th": "channels_first", "tf": "channels_last"}
_OF_EACH_AXIS = ("kernel_size", "strides", "dilation_rate", "pool_size")
_PENALTY = {"l1": "l1", "l2": "l2"}
_OBJECTS: Mapping[str, tuple[str, Mapping[str, str]]] = {
    **dict.fromkeys(("WeightRegularizer", "ActivityRegularizer", "L1L2Regularizer"), ("L1L2", _PENALTY)),
    "MaxNorm": ("MaxNorm", {"m": "max_value", "axis": "axis"}),
    "UnitNorm": ("UnitNorm", {"axis": "axis"}),
    "NonNeg": ("NonNeg", {}),
}
"""Regularizers and constraints of Keras 1 -> class in Keras 2, and its arguments by their older names."""

_TELLING_NAMES = """
nb_filter border_mode dim_ordering W_regularizer dropout_W inner_init input_dtype concat_axis pool_length
"""
_TELLING = frozenset(_TELLING_NAMES.split())
"""Settings that only Keras 1 wrote, of which every model of it has one."""


def is_of_keras_1(config: Mapping[str, Any], version: str | None) -> bool:
    """Whether Keras 1 wrote the config of a model: by the version that its file states, or by its settings."""
    if not architecture.is_model(config):
        return False
    return version.startswith("1.") if version is not None else not _TELLING.isdisjoint(_settings(config))


def _settings(value: object) -> Iterator[str]:
    if isinstance(value, Mapping):
        yield from value
        value = list(value.values())
    for each in value if isinstance(value, list) else ():
        yield from _settings(each)


def as_keras_2(config: Mapping[str, Any], names: Sequence[str] = ()) -> dict[str, Any]:
    """Return the config of a Keras 1 model as Keras 2 would have written it.

    `names` are those of the layers, as a file lists them: in the config of a Sequential, models have none. Raises as
    `architecture.parse` does for what is no config of a model.
    """
    architecture.parse(config)
    return _model(config, "sequential", names)


def _converted(entry: Mapping[str, Any], name: str = "sequential") -> dict[str, Any]:
    """Return a layer or model; one that has no name is called `name`."""
    return _model(entry, name) if entry["class_name"] in architecture.MODELS else _layer(entry)


def _model(entry: Mapping[str, Any], name: str, names: Sequence[str] = ()) -> dict[str, Any]:
    own, layers = entry["config"], _layers_of(entry)
    if isinstance(own, Mapping):
        return {**entry, "config": {**own, "layers": [*map(_converted, layers)]}}
    if layers and _is_merge(layers[0]):
        return {**entry, "class_name": "Model", "config": {"name": name, **_joined(layers)}}
    called = names if len(names) == len(layers) else repeat("sequential")
    listed = [*map(_converted, _inputs(layers)), *map(_converted, layers, called)]
    return {**entry, "config": {"name": name, "layers": listed}}


def _layers_of(entry: Mapping[str, Any]) -> list[Any]:
    """Return the layers of a model, none for a layer."""
    if entry["class_name"] not in architecture.MODELS:
        return []
    own = entry["config"]
    layers: list[Any] = own["layers"] if isinstance(own, Mapping) else own
    return layers


def _settings_of(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    own = entry.get("config")
    return own if isinstance(own, Mapping) else {}


def _inputs(layers: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return what has to stand before the layers of a Sequential: its input, unless the first of them is that."""
    source = _input_of(layers[0]) if layers else None
    return [] if source is None or source is layers[0] else [source]


def _input_of(entry: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the input that a layer is, that is among its settings, or that the first layer of a model has."""
    own, inner = _settings_of(entry), _layers_of(entry)
    if inner:
        return _input_of(inner[0])
    if entry["class_name"] == "InputLayer":
        return entry
    if "batch_input_shape" not in own:
        return None
    said = {name: own[name] for name in ("batch_input_shape", "input_dtype") if name in own}
    return {"class_name": "InputLayer", "config": {"name": f"{own.get('name')}_input", **said}}


def _layer(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return a layer with the class and settings of Keras 2, those of Keras 1 where it has no equal."""
    own = _settings_of(entry)
    class_name = _class_of(entry["class_name"], own)
    names = {**_NAMES, **_OWN_NAMES.get(class_name, {})}
    inert = _WITHOUT_EFFECT.get(class_name, {})
    config = {
        newer: _value(newer, value)
        for name, value in own.items()
        if (newer := names.get(name, name)) is not None and value not in inert.get(name, ())
    }
    made = {name: make(own) for name, make in _MADE.get(class_name, {}).items()}
    return {**entry, "class_name": class_name, "config": {**config, **made}}


def _class_of(class_name: str, own: Mapping[str, Any]) -> str:
    if class_name == "Merge" and own.get("mode_type", "raw") == "raw":  # else a function of the user's
        return _MERGES.get(str(own.get("mode")), class_name)
    return _CLASSES.get(class_name, class_name)


def _value(name: str, value: Any) -> Any:
    """Return the value of a setting that Keras 2 calls `name`."""
    if name == "layer":
        return _converted(value)
    if name == "data_format":
        return _ORDERS.get(str(value), value)
    if name in _OF_EACH_AXIS and isinstance(value, int):
        return [value]
    return _object(value) if isinstance(value, Mapping) else value


def _object(value: Mapping[str, Any]) -> Mapping[str, Any]:
    class_name, names = _OBJECTS.get(str(value.get("name")), ("", {}))
    config = {newer: value[older] for older, newer in names.items() if older in value}
    return {"class_name": class_name, "config": config} if class_name else value


def _window(own: Mapping[str, Any]) -> list[Any]:
    return [own[name] for name in _WINDOW if name in own]


def _padding(sides: Sequence[str], own: Mapping[str, Any]) -> Any:
    """Return the padding before and after each axis; Keras 1 had all numbers in one list, or by name."""
    value = own.get("padding")
    if isinstance(value, Mapping):
        value = [value.get(side, 0) for side in sides]
    return [value[:2], value[2:]] if isinstance(value, list) and len(value) == 4 else value


def _output_padding(own: Mapping[str, Any]) -> list[int] | None:
    """Return what Keras 2 has to add to get the shape that a Deconvolution2D was told, None where it gets it alone."""
    shape, strides, window = map(_sizes, (own.get("output_shape"), own.get("subsample"), _window(own)))
    places = shape[-2:] if own.get("dim_ordering") == "th" else shape[-3:-1]
    if not len(places) == len(strides) == len(window) == 2:
        return None
    axes = list(zip(places, strides, window, strict=True))
    if own.get("border_mode") == "valid":
        return [(extent - size) % stride for extent, stride, size in axes]
    is_whole = all(extent % stride == 0 for extent, stride, _ in axes)
    return None if is_whole else [(extent - size % 2) % stride for extent, stride, size in axes]


def _sizes(value: object) -> list[int]:
    return [each for each in value if isinstance(each, int) and each > 0] if isinstance(value, list) else []


def _never(_: object) -> bool:
    return False


_ENDS, _CORNERS = ("left_pad", "right_pad"), ("top_pad", "bottom_pad", "left_pad", "right_pad")
_MADE: Mapping[str, Mapping[str, Callable[[Mapping[str, Any]], Any]]] = {
    **{name: {"kernel_size": _window} for name in ("Conv2D", "Conv3D", "SeparableConv2D")},
    "Conv2DTranspose": {"kernel_size": _window, "output_padding": _output_padding},
    "GRU": {"reset_after": _never},
    "ZeroPadding1D": {"padding": partial(_padding, _ENDS)},
    "ZeroPadding2D": {"padding": partial(_padding, _CORNERS)},
}
"""Class in Keras 2 -> settings that are made of several in Keras 1, or that Keras 1 had no need to say."""


def _is_merge(entry: Mapping[str, Any]) -> bool:
    return entry["class_name"] == "Merge" and "layers" in _settings_of(entry)


def _joined(layers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the layers of a Sequential that begins with a Merge, and of all its branches, as a functional model's."""
    found: dict[str, dict[str, Any]] = {}
    outputs = _put_chain(layers, found)
    inputs = [[name, 0, 0] for name, layer in found.items() if layer["class_name"] == "InputLayer"]
    return {"layers": list(found.values()), "input_layers": inputs, "output_layers": outputs}


def _put_chain(layers: Sequence[Mapping[str, Any]], found: dict[str, dict[str, Any]]) -> list[list[Any]]:
    """Put layers that follow one another among those `found`, and return the places of the outputs of the last."""
    if _is_merge(layers[0]):
        branches = _settings_of(layers[0])["layers"]
        architecture.parse({"class_name": "Sequential", "config": branches})
        before = [place for branch in branches for place in _put_branch(branch, found)]
    else:
        before = [_put(source, [], found) for source in _inputs(layers)]
    for each in layers:
        before = [_put(each, before, found)]
    return before


def _put_branch(entry: Mapping[str, Any], found: dict[str, dict[str, Any]]) -> list[list[Any]]:
    outputs = architecture.parse(entry).outputs if entry["class_name"] in architecture.MODELS else ()
    if not outputs:
        return _put_chain(_layers_of(entry) or [entry], found)
    for each in map(_converted, _layers_of(entry)):  # of a functional model, which says its calls
        found.setdefault(str(each["config"].get("name")), each)
    return [[name, call, 0] for name, call in outputs]


def _put(entry: Mapping[str, Any], before: list[list[Any]], found: dict[str, dict[str, Any]]) -> list[Any]:
    """Put a layer that takes the outputs of others; one that is there already is shared by two branches."""
    layer = _converted(entry)
    name = str(layer["config"].get("name"))
    found.setdefault(name, {**layer, "name": name, "inbound_nodes": [before] if before else []})
    return [name, 0, 0]

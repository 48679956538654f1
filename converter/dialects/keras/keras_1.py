"""The config of a Keras 1 model (1.0 to 1.2.2) in the terms of Keras 2.

Facts: `get_config` of the layers of Keras 1.2.2, and newer names by keras/legacy/interfaces.py of Keras 2.0.
A layer that Keras 2 has no equal of keeps its class, so that it is known for what it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from converter.dialects.keras.settings import OLDER

_DEPTH_LIMIT = 32
_MODELS = ("Sequential", "Model")

_CLASSES: Mapping[str, str] = {
    **{f"Convolution{rank}D": f"Conv{rank}D" for rank in "123"},
    **{f"AtrousConvolution{rank}D": f"Conv{rank}D" for rank in "12"},
    "Deconvolution2D": "Conv2DTranspose",
    "SeparableConvolution2D": "SeparableConv2D",
    "TimeDistributedDense": "Dense",
}
"""Classes of Keras 1 that have another name in Keras 2; its Dense takes inputs of any rank."""

_OWN: Mapping[str, Mapping[str, str]] = {
    **{name: {"output_dim": "units"} for name in ("Dense", "LSTM", "GRU", "SimpleRNN")},
    "Conv1D": {"filter_length": "kernel_size"},
    "Embedding": {"W_regularizer": "embeddings_regularizer", "W_constraint": "embeddings_constraint"},
}
"""Settings whose newer name depends on the layer: class in Keras 2 -> older -> newer name."""

_WINDOW = ("kernel_dim1", "kernel_dim2", "kernel_dim3", "nb_row", "nb_col")
_STARTS = ("init", "inner_init", "forget_bias_init", "beta_init", "gamma_init", "t_left_init", "weights")
_NOT_IN_KERAS_2 = frozenset(
    (*_WINDOW, *_STARTS, "consume_less", "input_dtype", "batch_input_shape", "input_dim", "input_length")
)
"""What Keras 2 has no argument for, or what the converted config says in another place."""
_VALUES: Mapping[str, Mapping[Any, Any]] = {"data_format": {"th": "channels_first", "tf": "channels_last"}}
_CONSTRAINTS: Mapping[str, Mapping[str, str]] = {
    "MaxNorm": {"m": "max_value", "axis": "axis"},
    "UnitNorm": {"axis": "axis"},
    "NonNeg": {},
}
_MERGES: Mapping[str, str] = {
    "sum": "Add",
    "mul": "Multiply",
    "ave": "Average",
    "max": "Maximum",
    "concat": "Concatenate",
    "dot": "Dot",
}
_TELLING_NAMES = (
    "nb_filter border_mode dim_ordering W_regularizer dropout_W inner_init input_dtype concat_axis pool_length"
)
_TELLING = frozenset(_TELLING_NAMES.split())
"""Settings that only Keras 1 wrote, of which every model of it has one."""
_PADDED = (("top_pad", "bottom_pad"), ("left_pad", "right_pad"))


def is_of_keras_1(config: Mapping[str, Any], version: str | None) -> bool:
    """Whether Keras 1 wrote the config of a model: by the version that its file states, or by its settings."""
    if config.get("class_name") not in _MODELS:
        return False
    if version is not None:
        return version.startswith("1.")
    return any(not _TELLING.isdisjoint(each) for each in _configs(config, 0))


def as_keras_2(config: Mapping[str, Any], names: Sequence[str] = ()) -> dict[str, Any]:
    """Return the config of a Keras 1 model as Keras 2 would have written it.

    `names` are those of the layers, as a file lists them: in the config of a Sequential, models have none.
    """
    values: dict[str, Any] = _converted(config, names, 0)
    return values


def _configs(entry: object, depth: int) -> Iterator[Mapping[str, Any]]:
    own = entry.get("config") if isinstance(entry, Mapping) else None
    listed = own
    if isinstance(own, Mapping):
        yield own
        listed = own.get("layers")
        if depth < _DEPTH_LIMIT and "layer" in own:
            yield from _configs(own["layer"], depth + 1)
    for each in listed if isinstance(listed, list) and depth < _DEPTH_LIMIT else ():
        yield from _configs(each, depth + 1)


def _converted(entry: Any, names: Sequence[str], depth: int) -> Any:
    """Return the entry of a model or layer; what is none stays, for those to refuse who read it."""
    own = entry.get("config") if isinstance(entry, Mapping) else None
    if depth > _DEPTH_LIMIT or not isinstance(own, Mapping | list):
        return entry
    if entry.get("class_name") == "Sequential" and isinstance(own, list):
        return _sequential(entry, names, depth)
    if entry.get("class_name") in _MODELS and isinstance(own, Mapping):
        layers = own.get("layers")
        layers = [_converted(each, (), depth + 1) for each in layers] if isinstance(layers, list) else layers
        return {**entry, "config": {**own, "layers": layers}}
    if not isinstance(own, Mapping):
        return entry
    class_name, config = _layer(str(entry.get("class_name")), own)
    if isinstance(config.get("layer"), Mapping):
        config["layer"] = _converted(config["layer"], (), depth + 1)
    return {**entry, "class_name": class_name, "config": config}


def _sequential(entry: Mapping[str, Any], names: Sequence[str], depth: int) -> dict[str, Any]:
    """Return a Sequential with a name and its input as a layer; one that begins with a Merge is a functional model."""
    listed: list[Any] = entry["config"]
    name = entry.get("name")
    name = name if isinstance(name, str) else "sequential"
    if _is_merge(listed[0] if listed else None):
        chain = _Chain()
        output = chain.add_sequential(listed, depth)
        own = {"name": name, "layers": chain.layers, "input_layers": chain.inputs, "output_layers": [[output, 0, 0]]}
        return {**entry, "class_name": "Model", "config": own}
    named = [
        {**each, "name": called} if isinstance(each, Mapping) and each.get("class_name") in _MODELS else each
        for each, called in zip(listed, names, strict=True)
    ] if len(names) == len(listed) else listed  # fmt: skip
    source = _input_of(listed, depth)
    layers = [_converted(each, (), depth + 1) for each in named]
    return {**entry, "config": {"name": name, "layers": [*source, *layers]}}


def _is_merge(entry: Any) -> bool:
    is_merge = isinstance(entry, Mapping) and entry.get("class_name") == "Merge"
    return is_merge and isinstance(entry.get("config"), Mapping) and isinstance(entry["config"].get("layers"), list)


def _input_of(layers: Sequence[Any], depth: int) -> list[dict[str, Any]]:
    """Return the layer of the input that the first layer of a Sequential says, or the first of the model that it is."""
    first = layers[0] if layers else None
    own = first.get("config") if isinstance(first, Mapping) else None
    if isinstance(own, list) and depth < _DEPTH_LIMIT:
        return _input_of(own, depth + 1)
    if not isinstance(first, Mapping) or not isinstance(own, Mapping) or first.get("class_name") == "InputLayer":
        return []
    if first.get("class_name") in _MODELS and isinstance(own.get("layers"), list) and depth < _DEPTH_LIMIT:
        inner = next(iter(own["layers"]), None)
        return [_converted(inner, (), depth)] if isinstance(inner, Mapping) else []
    shape = own.get("batch_input_shape")
    if not isinstance(shape, list):
        return []
    return [{"class_name": "InputLayer", "config": _input(f"{own.get('name')}_input", own)}]


def _input(name: object, config: Mapping[str, Any]) -> dict[str, Any]:
    dtype = config.get("input_dtype")
    return {
        "name": name,
        "batch_input_shape": config.get("batch_input_shape"),
        "dtype": dtype if isinstance(dtype, str) else "float32",
        "sparse": bool(config.get("sparse")),
    }


def _layer(class_name: str, config: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return class and settings of a layer, those of Keras 1 where Keras 2 has no equal."""
    if class_name == "InputLayer":
        return class_name, _input(config.get("name"), config)
    if class_name == "Merge":
        return _merge(config)
    newer = _CLASSES.get(class_name, class_name)
    own, found = _OWN.get(newer, {}), dict[str, Any]()
    kept = ("input_dim",) if newer == "Embedding" else ("weights",) if newer == "Lambda" else ()
    left = _NOT_IN_KERAS_2 | {"output_shape"} if newer == "Conv2DTranspose" else _NOT_IN_KERAS_2
    for name, value in config.items():
        if name in kept or name not in left:
            key = own.get(name, OLDER.get(name, name))
            found[key] = _value(key, value)
    found |= _settings_of(newer, class_name, config, found)
    for name, plain in _WITHOUT_EFFECT.get(newer, {}).items():
        if name in found and found[name] in plain:
            del found[name]
    return newer, found


_WITHOUT_EFFECT: Mapping[str, Mapping[str, tuple[Any, ...]]] = {
    "BatchNormalization": {"mode": (0,)},
    "Embedding": {"dropout": (None, 0)},
}
"""Settings that Keras 2 has not, and the values for which it computes the same."""


def _value(name: str, value: Any) -> Any:
    if name in _VALUES and isinstance(value, str):
        return _VALUES[name].get(value, value)
    if isinstance(value, Mapping) and name.endswith("_regularizer") and "name" in value:
        return {"class_name": "L1L2", "config": {key: value.get(key) or 0.0 for key in ("l1", "l2")}}
    if isinstance(value, Mapping) and name.endswith("_constraint") and value.get("name") in _CONSTRAINTS:
        renamed = _CONSTRAINTS[value["name"]]
        own = {newer: value[older] for older, newer in renamed.items() if older in value}
        return {"class_name": value["name"], "config": own}
    return value


def _settings_of(newer: str, older: str, config: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that Keras 2 says in another way, of a layer with `found` so far."""
    more: dict[str, Any] = {}
    window = [config[name] for name in _WINDOW if name in config]
    if newer in ("Conv2D", "Conv3D", "Conv2DTranspose", "SeparableConv2D") and window:
        more["kernel_size"] = window
    if newer == "Conv1D":
        more |= {name: [found[name]] for name in ("kernel_size", "strides", "dilation_rate") if name in found}
    if newer == "Conv2DTranspose":
        more["output_padding"] = _output_padding(config)
    if newer == "GRU":
        more["reset_after"] = False
    if newer in ("LSTM", "GRU"):
        more["recurrent_activation"] = found.get("recurrent_activation", "hard_sigmoid")
    if newer in ("ZeroPadding1D", "ZeroPadding2D"):
        more["padding"] = _padding(found.get("padding"))
    return more


def _padding(value: Any) -> Any:
    """Return the padding before and after each axis; Keras 1 had all numbers in one list, or by name."""
    if isinstance(value, Mapping):
        pairs = [[value.get(each, 0) for each in pair] for pair in _PADDED if not value.keys().isdisjoint(pair)]
        return pairs[0] if len(pairs) == 1 else pairs
    return [value[:2], value[2:]] if isinstance(value, list) and len(value) == 4 else value


def _output_padding(config: Mapping[str, Any]) -> list[int] | None:
    """Return what Keras 2 has to add to get the shape that a Deconvolution2D was told, None where it gets it alone."""
    shape, strides = config.get("output_shape"), config.get("subsample")
    sizes: list[Any] = [config.get("nb_row"), config.get("nb_col")]
    if not isinstance(shape, list) or len(shape) != 4 or not isinstance(strides, list) or len(strides) != 2:
        return None
    places = shape[2:] if config.get("dim_ordering") == "th" else shape[1:3]
    if not all(isinstance(each, int) and each > 0 for each in (*places, *strides, *sizes)):
        return None
    is_same = config.get("border_mode") == "same"
    added, plain = [], []
    for extent, stride, size in zip(places, strides, sizes, strict=True):
        taken = 2 * (size // 2) if is_same else 0
        added.append((extent - size + taken) % stride)
        plain.append((stride - size + taken) % stride if is_same else max(stride - size, 0) % stride)
    return None if added == plain else added


def _merge(config: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    mode = config.get("mode")
    class_name = _MERGES.get(mode) if isinstance(mode, str) and config.get("mode_type", "raw") == "raw" else None
    if class_name is None:
        return "Merge", dict(config)
    found: dict[str, Any] = {"name": config.get("name"), "trainable": config.get("trainable", True)}
    if class_name == "Concatenate":
        found["axis"] = config.get("concat_axis", -1)
    if class_name == "Dot":
        found |= {"axes": config.get("dot_axes", -1), "normalize": False}
    return class_name, found


class _Chain:
    """The layers of Sequentials that a Merge joins, as those of one functional model."""

    def __init__(self) -> None:
        self.layers: list[dict[str, Any]] = []
        self.inputs: list[list[Any]] = []
        self._outputs: dict[str, str] = {}

    def add_sequential(self, entries: Sequence[Any], depth: int) -> str:
        """Add the layers of a Sequential and return the name of the last."""
        if _is_merge(entries[0] if entries else None):
            merge = entries[0]["config"]
            before = [self._add_branch(each, depth + 1) for each in merge["layers"]] if depth < _DEPTH_LIMIT else []
            class_name, own = _merge(merge)
            own.pop("layers", None)
            last = self._add({"class_name": class_name, "config": own}, before)
        else:
            source = _input_of(entries, depth)
            last = self._add(source[0], []) if source else ""
            if not entries:
                return last
            last = self._add(_converted(entries[0], (), depth + 1), [last] if last else [])
        for each in entries[1:]:
            last = self._add(_converted(each, (), depth + 1), [last])
        return last

    def _add_branch(self, entry: Any, depth: int) -> str:
        own = entry.get("config") if isinstance(entry, Mapping) else None
        if isinstance(own, list):
            return self.add_sequential(own, depth)
        if isinstance(own, Mapping) and isinstance(own.get("layers"), list):  # its layers are listed as the model's own
            for each in own["layers"]:
                layer = _converted(each, (), depth)
                if isinstance(layer, dict) and self._is_new(layer):
                    self.layers.append(layer)
            places = own.get("input_layers")
            self.inputs += places if isinstance(places, list) else []
            match own.get("output_layers"):
                case [[str(output), *_], *_]:
                    return output
            return ""
        return self._add(_converted(entry, (), depth), [])

    def _is_new(self, layer: Mapping[str, Any]) -> bool:
        config = layer.get("config")
        name = config.get("name") if isinstance(config, Mapping) else None
        return name not in self._outputs and self._outputs.setdefault(str(name), str(name)) == name

    def _add(self, layer: Any, before: Sequence[str]) -> str:
        """Add a layer that takes the outputs of others; one that is there already is shared by two branches."""
        config = layer.get("config") if isinstance(layer, Mapping) else None
        name = str(config.get("name", "")) if isinstance(config, Mapping) else ""
        if name in self._outputs:
            return name
        self._outputs[name] = name
        if isinstance(layer, Mapping):
            calls = [[[each, 0, 0] for each in before]] if before else []
            self.layers.append({**layer, "name": name, "inbound_nodes": calls})
        if isinstance(layer, Mapping) and layer.get("class_name") == "InputLayer":
            self.inputs.append([name, 0, 0])
        return name

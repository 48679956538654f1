"""What the layers of a Keras config compute that weights do not say: found by the table of `settings`, told in notes.

Where a graph goes along, or the config itself, nothing is lost, and there is no note. Weights alone are not a model:
who builds one of PyTorch's modules for them has to know its arguments, what stands beside it, and what it cannot do.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from converter.dialects.keras import activations, architecture, flattening
from converter.dialects.keras.architecture import MODELS, Layer
from converter.dialects.keras.grouping import lines
from converter.dialects.keras.modules import RECURRENT, WITHOUT_VARIABLES
from converter.dialects.keras.settings import CALLS, COMMON, INERT, LAYERS, OLDER, OLDER_HELD, Fate, Rule
from converter.errors import ReadError
from converter.model.checkpoint import Checkpoint, Dialect
from converter.model.ledger import Setting, SettingKind

_OF_KERAS = (Dialect.KERAS, Dialect.TENSORFLOW)
_SHOWN_CHARACTERS = 60


def with_settings(planned: Checkpoint, source: Checkpoint, *, has_own_graph: bool) -> Checkpoint:
    """Return what a target is to hold with the settings that its weights do not say, and a warning for each kind.

    `source` is where it came from, with its Keras config; `has_own_graph` says whether the target has the graph of
    the source. A config of no Keras model is none to look at, and a copy is what its source is.
    """
    config = None if source.keras_config is None else source.keras_config.values
    is_of_keras, is_for_keras = source.dialect in _OF_KERAS, planned.dialect == Dialect.KERAS
    is_alike = is_of_keras is is_for_keras or planned.structure is not None
    if has_own_graph or is_alike or not architecture.is_model(config):
        return planned
    assert config is not None
    try:
        listed = {} if source.listing is None else source.listing.layers
        names = (*source.names, *(f"{place}/" for place, held in listed.items() if held))
        found = settings(architecture.parse(config), names, is_keras_3=_is_keras_3(source, config))
    except (ReadError, RecursionError):  # what has no weights to translate may be a config that is not understood
        warning = "the Keras config is not understood: what its layers compute is not compared"
        return replace(planned, warnings=(*planned.warnings, warning))
    warnings = lines(found, is_for_keras=is_for_keras)
    return replace(planned, settings=found, warnings=(*planned.warnings, *warnings))


def _is_keras_3(source: Checkpoint, config: Mapping[str, Any]) -> bool:
    stated = source.metadata.get("keras_version", config.get("keras_version"))
    if isinstance(stated, str):
        return stated.split(".")[0] not in ("0", "1", "2")
    return "module" in config and not architecture.is_of_keras_2(config)


def settings(model: Layer, names: Collection[str] = (), *, is_keras_3: bool) -> tuple[Setting, ...]:
    """Return every setting of a model's layers that changes what it computes and that weights do not say.

    `names` are those of the variables that a file has, or their places: a layer that no table knows and that has none
    is listed.
    """
    owners = frozenset(part for name in names for part in name.split("/")[:-1])
    maps = flattening.on_maps(model)
    return tuple(dict.fromkeys(_of_layers(model, owners, maps, is_keras_3=is_keras_3)))


def _of_layers(model: Layer, owners: frozenset[str], maps: frozenset[str], *, is_keras_3: bool) -> Iterator[Setting]:
    for layer in map(_as_recurrent, model.layers):
        if layer.class_name in MODELS:
            yield from _called(layer)
            yield from _of_layers(layer, owners, maps, is_keras_3=is_keras_3)
        elif layer.is_operation or layer.class_name not in LAYERS:
            if layer.is_operation or owners.isdisjoint((layer.name, layer.store.rpartition("/")[2])):
                yield _unwritten(layer)
        else:
            found = _PlacedLayer(layer=layer, is_keras_3=is_keras_3, is_on_map=layer.path in maps)
            yield from found.settings()
            yield from _called(layer)
            if layer.class_name == "Bidirectional":
                yield from _of_directions(layer, is_keras_3=is_keras_3)
            else:
                yield from _of_layers(layer, owners | {each.name for each in layer.layers}, maps, is_keras_3=is_keras_3)


def _of_directions(layer: Layer, *, is_keras_3: bool) -> Iterator[Setting]:
    """Yield the settings of both directions as those of one module; the second goes backwards by itself."""
    has_own = "backward_layer" in layer.config
    for number, inner in enumerate(map(_as_recurrent, layer.layers)):
        config = dict(inner.config)
        if number:
            config["go_backwards"] = has_own and not config.get("go_backwards", False)
            if not has_own:
                config["go_backwards"] = layer.layers[0].config.get("go_backwards", False)
        if inner.class_name in LAYERS:
            one = replace(inner, config=config, path=layer.path)
            for setting in _PlacedLayer(layer=one, is_keras_3=is_keras_3, is_on_map=False).settings():
                yield replace(setting, class_name=f"Bidirectional({inner.class_name})")


def _as_recurrent(layer: Layer) -> Layer:
    """Return an RNN around a known cell as the layer that has it built in: its settings are those of both."""
    cell = layer.config.get("cell")
    inner = cell.get("config") if layer.class_name == "RNN" and isinstance(cell, Mapping) else None
    class_name = str(cell.get("class_name")).removesuffix("Cell") if isinstance(cell, Mapping) else ""
    if class_name not in RECURRENT or not isinstance(inner, Mapping):
        return layer
    config = {**inner, **{name: value for name, value in layer.config.items() if name != "cell"}}
    return replace(layer, class_name=class_name, config=config)


def _unwritten(layer: Layer) -> Setting:
    return Setting(
        layer=layer.path, class_name=layer.class_name, name="", value="", kind=SettingKind.UNWRITTEN, note=""
    )


def _called(layer: Layer) -> Iterator[Setting]:
    for name, value in layer.called_with.items():
        if value not in CALLS.get(name, (None, False)):
            shown = f"{name}={shown_value(value)}"
            yield Setting(
                layer=layer.path,
                class_name=layer.class_name,
                name=name,
                value=shown_value(value),
                kind=SettingKind.BESIDE,
                note=f"what the call with {shown} does",
            )


Finding = tuple[Fate, str]
Reading = Callable[["_PlacedLayer", str, Any], list[Finding]]


@dataclass(frozen=True, slots=True, kw_only=True)
class _PlacedLayer:
    """One layer, and what is known of where it stands."""

    layer: Layer
    is_keras_3: bool
    is_on_map: bool

    @property
    def config(self) -> Mapping[str, Any]:
        return _renewed(self.layer.config, self.layer.class_name)

    def settings(self) -> Iterator[Setting]:
        class_name = self.layer.class_name
        is_written = class_name not in WITHOUT_VARIABLES
        rules = {**COMMON, **LAYERS[class_name]}
        if not is_written:  # which has nothing to train
            rules["trainable"] = INERT
        config = self.config
        if not is_written and class_name != "InputLayer":
            yield _unwritten(self.layer)
        for name, rule in rules.items():
            if name in config or (is_written and rule.default is not None):
                value = config.get(name, self._default(name, rule))
                for fate, note in self._findings(name, rule, value):
                    kind = SettingKind[fate.name] if is_written or name == "dtype" else SettingKind.UNWRITTEN
                    yield self._setting(name, value, kind, note)
        for name in config.keys() - rules.keys():
            yield self._setting(name, config[name], SettingKind.UNKNOWN, f"{name} {shown_value(config[name])}")

    def _setting(self, name: str, value: Any, kind: SettingKind, note: str) -> Setting:
        layer = self.layer
        shown = shown_value(value)
        return Setting(layer=layer.path, class_name=layer.class_name, name=name, value=shown, kind=kind, note=note)

    def _default(self, name: str, rule: Rule) -> Any:
        """Return what Keras took when the config was written; early ones lack what came later."""
        if self.is_keras_3:
            return rule.default
        return {"recurrent_activation": "hard_sigmoid", "reset_after": False}.get(name, rule.default)

    def _findings(self, name: str, rule: Rule, value: Any) -> list[Finding]:
        if rule.reading:
            return _READINGS[rule.reading](self, name, value)
        if rule.fate in (Fate.HELD, Fate.INERT) or _one(value) in rule.plain:
            return []
        if rule.fate is Fate.ARGUMENT:
            return [(rule.fate, f"{rule.argument}={shown_value(_one(value))}")]
        return [(rule.fate, _setting_text(name, value))]


def _renewed(config: Mapping[str, Any], class_name: str) -> dict[str, Any]:
    """Return a config with the settings of Keras 1 by the names that Keras 2 gave them."""
    rules = LAYERS[class_name]
    renewed: dict[str, Any] = {}
    for name, value in config.items():
        newer = OLDER.get(name)
        if name in rules or name in COMMON:
            renewed[name] = value
        elif newer in rules and newer not in config:
            renewed[str(newer)] = value
        elif name not in OLDER_HELD:
            renewed[name] = value
    return renewed


def shown_value(value: Any) -> str:
    """Return a value of a config in few words."""
    if isinstance(value, Mapping):
        text = activations.named(value)
    elif isinstance(value, float):
        text = f"{value:g}"
    elif isinstance(value, list | tuple):
        text = f"({', '.join(map(shown_value, value))})"
    else:
        text = repr(value) if not isinstance(value, str) else f"'{value}'"
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}..."


def _setting_text(name: str, value: Any) -> str:
    return name if value is True else f"{name} {shown_value(_one(value)).strip(chr(39))}"


def _one(value: Any) -> Any:
    """Return the one value that all axes have, as a number; else the value."""
    if isinstance(value, list | tuple) and value and all(each == value[0] for each in value):
        return _one(value[0])
    return (
        tuple(value) if isinstance(value, list) else activations.named(value) if isinstance(value, Mapping) else value
    )


def _axes(value: Any, count: int) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value] * count


def _activation(found: _PlacedLayer, name: str, value: Any) -> list[Finding]:
    is_convolution = "Conv" in found.layer.class_name
    torch = activations.in_torch(value, is_keras_3=found.is_keras_3, axis=1 if is_convolution else -1)
    if torch == "":
        return []
    return [(Fate.BESIDE, f"{torch or f'the activation {activations.named(value)}'} after it")]


def _function(found: _PlacedLayer, name: str, value: Any) -> list[Finding]:
    torch = activations.in_torch(value, is_keras_3=found.is_keras_3)
    return [(Fate.WIRING, torch or activations.named(value))]


def _gate(found: _PlacedLayer, name: str, value: Any) -> list[Finding]:
    called = activations.named(value)
    if called == {"activation": "tanh", "recurrent_activation": "sigmoid"}[name]:
        return []
    is_older = called == "hard_sigmoid" and not found.is_keras_3
    return [(Fate.ABSENT, f"{name} {called}{' (0.2 x + 0.5, cut at 0 and 1)' if is_older else ''}")]


def _nonlinearity(found: _PlacedLayer, name: str, value: Any) -> list[Finding]:
    called = activations.named(value)
    if called == "relu":
        return [(Fate.ARGUMENT, "nonlinearity='relu'")]
    return [] if called == "tanh" else [(Fate.ABSENT, f"activation {called}")]


def _precision(found: _PlacedLayer, name: str, value: Any) -> list[Finding]:
    inner = value.get("config") if isinstance(value, Mapping) else None
    policy = str(inner.get("name")) if isinstance(inner, Mapping) and "name" in inner else activations.named(value)
    if policy.startswith("mixed_"):
        return [(Fate.BESIDE, f"torch.autocast(dtype=torch.{policy.removeprefix('mixed_')})")]
    is_plain = value is None or policy.startswith(("float", "bfloat", "int", "uint", "bool", "string", "complex"))
    return [] if is_plain and "_from_" not in policy else [(Fate.ABSENT, f"dtype {policy}")]


def _padding(found: _PlacedLayer, name: str, value: Any) -> list[Finding]:
    strides = _one(found.config.get("strides", 1))
    if value == "same" and strides == 1:
        return [(Fate.ARGUMENT, "padding='same'")]
    if value == "same":
        return [(Fate.BESIDE, "padding 'same' by torch.nn.functional.pad before it, as none goes with a stride")]
    if value == "causal":
        size, dilation = (_one(found.config.get(key, 1)) for key in ("kernel_size", "dilation_rate"))
        by = f"({(size - 1) * dilation}, 0)" if isinstance(size, int) and isinstance(dilation, int) else "causal"
        return [(Fate.BESIDE, f"torch.nn.functional.pad by {by} before it")]
    return [] if value == "valid" else [(Fate.ABSENT, _setting_text(name, value))]


def _cropping(found: _PlacedLayer, name: str, value: Any) -> list[Finding]:
    """A transposed convolution gives (n - 1) * stride + kernel in PyTorch, n * stride or more in Keras.

    TensorFlow takes what is too much from both ends, one more from the last: conv2d_transpose, by its output shape.
    """
    excess = _transposed_excess(found.config, value)
    if excess is None:
        return [(Fate.ABSENT, _setting_text(name, value))]
    if not any(excess):
        return []
    if all(each <= 0 for each in excess):
        return [(Fate.ARGUMENT, f"output_padding={shown_value(_one([-each for each in excess]))}")]
    if all(each >= 0 and each % 2 == 0 for each in excess):
        return [(Fate.ARGUMENT, f"padding={shown_value(_one([each // 2 for each in excess]))}")]
    ends = shown_value(_one([(each // 2, each - each // 2) for each in excess]))
    return [(Fate.BESIDE, f"its output cropped at the ends by {ends}")]


def _transposed_excess(config: Mapping[str, Any], padding: Any) -> list[int] | None:
    """Return by how much PyTorch's output is longer than Keras's, for each axis; None for settings of no such layer."""
    sizes = _axes(config.get("kernel_size"), 1)
    strides, dilations, output_paddings = (
        _axes(config.get(key, default), len(sizes))
        for key, default in (("strides", 1), ("dilation_rate", 1), ("output_padding", None))
    )
    if padding not in ("same", "valid") or len({*map(len, (sizes, strides, dilations, output_paddings))}) != 1:
        return None
    numbers = [*sizes, *strides, *dilations, *(each for each in output_paddings if each is not None)]
    if not all(isinstance(each, int) for each in numbers):
        return None
    return [_excess(padding, *axis) for axis in zip(sizes, strides, dilations, output_paddings, strict=True)]


def _excess(padding: str, size: int, stride: int, dilation: int, added: int | None) -> int:
    if added is not None:
        return (2 * (size // 2) if padding == "same" else 0) - added
    excess = (size - 1) * dilation + 1 - stride
    return excess if padding == "same" else min(excess, 0)


def _channel_axis(found: _PlacedLayer, name: str, value: Any) -> list[Finding]:
    axis, shape = _one(value), found.layer.input_shape
    if axis == -1 or (shape is not None and axis == len(shape) - 1):
        return []
    is_last = isinstance(axis, int) and axis > 1 and shape is None
    is_torchs = axis == 1 and not found.is_on_map and (shape is None or len(shape) > 3)
    return [] if is_last or is_torchs else [(Fate.ABSENT, _setting_text(name, value))]


def _last_axes(found: _PlacedLayer, name: str, value: Any) -> list[Finding]:
    axes, shape = _axes(value, 1), found.layer.input_shape
    own = [(Fate.BESIDE, "(x - mean) / variance.sqrt() for it")] if found.layer.class_name == "Normalization" else []
    rank = 0 if shape is None else len(shape)
    if axes == [-1] or (rank and axes == list(range(rank - len(axes), rank))):
        return own
    shown = ", ".join(map(str, axes))
    return [*own, (Fate.BESIDE, f"axis {shown} as the last" if len(axes) == 1 else f"the axes {shown} as the last")]


def _momentum(found: _PlacedLayer, name: str, value: Any) -> list[Finding]:
    if not isinstance(value, int | float) or not 0 <= value <= 1:
        return [(Fate.TRAINING, _setting_text(name, value))]
    torch = round(1 - value, 9)
    return [] if torch == 0.1 else [(Fate.ARGUMENT, f"momentum={torch:g}")]


def _sequences(found: _PlacedLayer, name: str, value: Any) -> list[Finding]:
    first = [] if found.config.get("time_major") else [(Fate.ARGUMENT, "batch_first=True")]
    return first if value else [*first, (Fate.BESIDE, "h_n for its output (return_sequences is off)")]


def _groups(found: _PlacedLayer, name: str, value: Any) -> list[Finding]:
    return [(Fate.ARGUMENT, f"num_groups={value}") if value != -1 else (Fate.BESIDE, "a group for each channel")]


def _equation(found: _PlacedLayer, name: str, value: Any) -> list[Finding]:
    """A kernel of two axes is what torch.nn.Linear has; others are flattened to one, inputs and outputs with them."""
    rest = str(value).partition(",")[2]
    kernel = rest.partition("->")[0].strip()
    return [] if len(kernel) == 2 else [(Fate.BESIDE, f"inputs and outputs flattened and not as in {value}")]


def _attention_axes(found: _PlacedLayer, name: str, value: Any) -> list[Finding]:
    shape = found.layer.input_shape or found.config.get("query_shape")
    axes = _axes(value, 1)
    is_only = axes == [1] and isinstance(shape, list | tuple) and len(shape) == 3
    return [] if value is None or is_only else [(Fate.BESIDE, f"attention along {_setting_text('axes', value)}")]


def _heads(found: _PlacedLayer, name: str, value: Any) -> list[Finding]:
    if value is None or (name == "value_dim" and value == found.config.get("key_dim")):
        return []
    return [(Fate.BESIDE, f"{name}={value}")]


_READINGS: Mapping[str, Reading] = {
    "activation": _activation,
    "function": _function,
    "gate": _gate,
    "nonlinearity": _nonlinearity,
    "precision": _precision,
    "padding": _padding,
    "cropping": _cropping,
    "channel_axis": _channel_axis,
    "last_axes": _last_axes,
    "momentum": _momentum,
    "sequences": _sequences,
    "heads": _heads,
    "groups": _groups,
    "equation": _equation,
    "attention_axes": _attention_axes,
}

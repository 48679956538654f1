"""The config of a Keras model, read as a tree of layers and, from that, the modules they are.

Formats: `config.json` of a `.keras` archive (Keras 3 and tf_keras), and the attribute `model_config` of HDF5 files.
Nothing of it is imported or evaluated: class names are looked up in the tables of `modules`, or are unknown.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from converter.dialects.keras import modules as table
from converter.dialects.keras.modules import Module, Slot
from converter.errors import ReadError, SafetyError
from converter.model.checkpoint import Config

MODELS = ("Sequential", "Functional", "Model")
_DEPTH_LIMIT = 32
_OUTPUT = "attention_output"
_PROJECTIONS = {
    "query": ("query_dense", "_query_dense"),
    "key": ("key_dense", "_key_dense"),
    "value": ("value_dense", "_value_dense"),
    _OUTPUT: ("output_dense", "_output_dense"),
}
_CELLS = {"LSTM": "lstm_cell", "GRU": "gru_cell", "SimpleRNN": "simple_rnn_cell"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """A layer, wrapper or model of a config; `layers` are those of a model or the ones that a wrapper wraps.

    `path`     names from the model down, without the model's own
    `store`    where `.weights.h5` keeps it
    `inbound`  for each time it is called, the names of the layers whose outputs it takes
    `called_with`   what it is called with besides tensors, as in ``use_causal_mask=True``, of all its calls together
    """

    class_name: str
    name: str
    config: Mapping[str, Any]
    path: str
    store: str
    layers: tuple[Layer, ...] = ()
    inbound: tuple[tuple[tuple[str, int], ...], ...] = ()
    input_shape: tuple[int | None, ...] | None = None
    outputs: tuple[tuple[str, int], ...] = ()
    is_operation: bool = False
    called_with: Mapping[str, Any] = field(default_factory=dict)

    @property
    def bare_class_name(self) -> str:
        """The class without the package that it is registered for (``Custom>``)."""
        return self.class_name.rpartition(">")[2]


def is_model(config: object) -> bool:
    """Whether a config is that of a Sequential or functional Keras model."""
    return (
        isinstance(config, Mapping)
        and config.get("class_name") in MODELS
        and isinstance(config.get("config"), Mapping | list)
    )


def is_class(config: Mapping[str, Any]) -> bool:
    """Whether this is what `to_json` of a Keras model returns, of a class of its own too, which lists no layers."""
    return is_model(config) or (
        "model_type" not in config
        and isinstance(config.get("class_name"), str)
        and isinstance(config.get("config"), Mapping)
    )


def is_of_keras_2(config: Mapping[str, Any]) -> bool:
    """Whether the config of a model gives the shape of an input as Keras 2 does, and Keras 3 never."""
    waiting: list[object] = [config]
    while waiting:
        entry = waiting.pop()
        own = entry.get("config", entry) if isinstance(entry, Mapping) else None
        if isinstance(own, Mapping) and "batch_input_shape" in own:
            return True
        listed = own.get("layers") if isinstance(own, Mapping) else own
        waiting += listed if isinstance(listed, list) else ()
    return False


def class_of_layers(config: Mapping[str, Any]) -> str | None:
    """Return the class of the Keras model whose `get_config` returned this, None for anything else."""
    listed = config.get("layers")
    is_listed = isinstance(listed, list) and all(isinstance(each, Mapping) and "class_name" in each for each in listed)
    if not listed or not is_listed or "name" not in config or "class_name" in config:
        return None
    return "Functional" if "output_layers" in config else "Sequential"


def parse(config: Mapping[str, Any]) -> Layer:
    """Return the model that a config describes.

    Raises ReadError when it is not a config of one, SafetyError when the class of a layer is not text.
    """
    if not is_model(config):
        raise ReadError("is not the config of a Sequential or functional Keras model")
    return _layer(config, path="", store="", depth=0, is_root=True)


def _layer(entry: object, *, path: str, store: str, depth: int, is_root: bool = False) -> Layer:
    if depth > _DEPTH_LIMIT:
        raise ReadError(f"is a Keras config nested more than {_DEPTH_LIMIT} deep")
    if not isinstance(entry, Mapping) or "class_name" not in entry:
        raise ReadError("is a Keras config with something that is no layer")
    if not isinstance(entry["class_name"], str):
        raise SafetyError("is a Keras config with a layer whose class is not text")
    config = entry.get("config")
    if isinstance(config, list) and entry["class_name"] in MODELS:  # Sequential before Keras 2.3
        config = {"layers": config}
    if not isinstance(config, Mapping):
        config = {}
    name = config.get("name") or entry.get("name") or ""
    if not isinstance(name, str):
        raise ReadError("is a Keras config with a name that is no text")
    path = "" if is_root else f"{path}/{name}".lstrip("/")
    class_name = entry["class_name"]
    if class_name == "GRU" and "module" not in entry:  # Keras before 2.2 had no `reset_after`, nor what it switches on
        config = {"reset_after": False, **config}
    layers: tuple[Layer, ...] = ()
    if class_name in MODELS:
        layers = tuple(_children(config.get("layers"), path=path, store=store, depth=depth))
    elif "layer" in config:
        layers = tuple(_wrapped(class_name, config, path=path, store=store, depth=depth))
    build = entry.get("build_config")
    return Layer(
        class_name=class_name,
        name=name,
        config=config,
        path=path,
        store=store,
        layers=layers,
        inbound=tuple(_calls(entry.get("inbound_nodes"))),
        input_shape=_input_shape(build) if isinstance(build, Mapping) else None,
        outputs=tuple(_histories(config.get("output_layers"))) if class_name in MODELS else (),
        is_operation=str(entry.get("module", "")).startswith("keras.src.ops"),
        called_with=_call_arguments(entry.get("inbound_nodes")),
    )


def _children(entries: object, *, path: str, store: str, depth: int) -> Iterator[Layer]:
    """Yield the layers of a model. Keras numbers those of one class apart (saving_lib.py, _save_container_state)."""
    if not isinstance(entries, list):
        raise ReadError("is a Keras config of a model without layers")
    seen: Counter[str] = Counter()
    for entry in entries:
        class_name = entry.get("class_name", "") if isinstance(entry, Mapping) else ""
        snake = snake_case("Functional" if class_name == "Model" else str(class_name).rpartition(">")[2])
        number = seen[snake]
        seen[snake] += 1
        own = f"{snake}_{number}" if number else snake
        yield _layer(entry, path=path, store=f"{store}/layers/{own}".lstrip("/"), depth=depth + 1)


def _wrapped(class_name: str, config: Mapping[str, Any], *, path: str, store: str, depth: int) -> Iterator[Layer]:
    if class_name != "Bidirectional":
        yield _layer(config["layer"], path=path, store=f"{store}/layer", depth=depth + 1)
        return
    for direction in ("forward", "backward"):
        entry = config.get("backward_layer", config["layer"]) if direction == "backward" else config["layer"]
        inner = _layer(entry, path=path, store=f"{store}/{direction}_layer", depth=depth + 1)
        bare = re.sub(r"^(forward|backward)_", "", inner.name)
        name = f"{direction}_{bare}" if "backward_layer" not in config else inner.name
        yield _layer(
            {**entry, "config": {**inner.config, "name": name}},
            path=path,
            store=f"{store}/{direction}_layer",
            depth=depth + 1,
        )


def said_of_modules(*, is_older: bool) -> str:
    """Return what a user should know of an archive whose config is made by `with_modules`."""
    said = "config.json has the module of each class of layers, which archives say and the source does not"
    return f"{said}; it is for tf_keras (Keras 2), as the source's config is, and not for Keras 3" if is_older else said


def with_modules(
    config: Mapping[str, Any], *, is_older: bool, module_of: Callable[[Mapping[str, Any]], str | None]
) -> dict[str, Any]:
    """Return a config of an HDF5 file as archives have it: each layer says which module its class is in.

    `module_of` returns that of a class that is not Keras's. What no table knows is registered under its name, by which
    Keras finds what `custom_objects` give before it looks among its own layers.
    """
    functional = "tf_keras.src.engine.functional" if is_older else "keras.src.models.functional"

    def placed(entry: Any, depth: int) -> Any:
        if not isinstance(entry, Mapping) or not isinstance(entry.get("config"), Mapping) or depth > _DEPTH_LIMIT:
            return entry
        inner = dict(entry["config"])
        for key in ("layer", "backward_layer", "cell"):
            if key in inner:
                inner[key] = placed(inner[key], depth + 1)
        if isinstance(inner.get("layers"), list):
            inner["layers"] = [placed(layer, depth + 1) for layer in inner["layers"]]
        full = "Functional" if entry.get("class_name") == "Model" else str(entry.get("class_name"))
        class_name = full.rpartition(">")[2]
        module = {"Functional": functional, "Sequential": "keras"}.get(class_name, "keras.layers")
        if is_older and class_name in _OPERATIONS:
            module = _MODULE_OF_OPERATIONS
        own = module_of(entry)
        is_named = own is not None or class_name == "Functional" or class_name in _OPERATIONS or not _is_known(full)
        registered = full if is_named else None
        where = {"module": own or module, "registered_name": registered}
        return {**where, **entry, "class_name": class_name, "config": inner}

    placed_config: dict[str, Any] = placed(config, 0)
    return placed_config


def with_registered_classes(config: Config) -> Config:
    """Return a config as HDF5 files have it: classes that are registered are called by the name of that.

    The reader of tf_keras looks for no other name in these files.
    """

    def called(value: Any) -> Any:
        if isinstance(value, list):
            return [called(each) for each in value]
        if not isinstance(value, Mapping):
            return value
        registered = value.get("registered_name")
        is_renamed = isinstance(registered, str) and registered.endswith(f">{value.get('class_name')}")
        return {key: called(each) for key, each in value.items()} | ({"class_name": registered} if is_renamed else {})

    values = called(config.values)
    return config if values == config.values else Config(values=values, raw=json.dumps(values).encode("utf-8"))


_OPERATIONS = ("TFOpLambda", "SlicingOpLambda", "ClassMethod", "InstanceMethod", "InstanceProperty")
_MODULE_OF_OPERATIONS = "tf_keras.src.layers.core.tf_op_layer"


def _is_known(class_name: str) -> bool:
    """Whether a class is one of Keras's own layers that the tables have."""
    wrappers = ("MultiHeadAttention", "Bidirectional", "TimeDistributed", "Wrapper")
    return class_name in (*MODELS, *table.SIMPLE, *table.RECURRENT, *table.WITHOUT_VARIABLES, *wrappers)


def snake_case(class_name: str) -> str:
    """Return what Keras (utils/naming.py, to_snake_case) makes of a class name."""
    name = re.sub(r"\W+", "", class_name)
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()


def _shape(value: object) -> tuple[int | None, ...] | None:
    if isinstance(value, list) and all(extent is None or type(extent) is int for extent in value):
        return tuple(value)
    return None


def _input_shape(build: Mapping[str, Any]) -> tuple[int | None, ...] | None:
    """Return the shape that a layer was built with; attention was with several, of which the query's is one."""
    several = build.get("shapes_dict")
    first = several.get("query_shape") if isinstance(several, Mapping) else None
    return _shape(build.get("input_shape", first))


def _calls(nodes: object) -> Iterator[tuple[tuple[str, int], ...]]:
    for node in nodes if isinstance(nodes, list) else []:
        yield tuple(_histories(node))


def _call_arguments(nodes: object) -> dict[str, Any]:
    """Return the keyword arguments of all calls that are no tensors: of nodes in Keras 3, of each input in Keras 2."""
    found: dict[str, Any] = {}
    for node in nodes if isinstance(nodes, list) else []:
        inputs = node if isinstance(node, list) else []
        keywords = [node.get("kwargs")] if isinstance(node, Mapping) else [at[3] for at in inputs if _has_arguments(at)]
        for arguments in keywords:
            if isinstance(arguments, Mapping):
                found |= {str(key): value for key, value in arguments.items() if next(_histories(value), None) is None}
    return found


def _has_arguments(entry: object) -> bool:
    return isinstance(entry, list) and len(entry) > 3


def _histories(value: object) -> Iterator[tuple[str, int]]:
    """Yield (layer, call) of every tensor named in a node: `keras_history` in Keras 3, lists in Keras 2."""
    waiting: list[tuple[object, int]] = [(value, 0)]
    while waiting:
        here, depth = waiting.pop()
        match here:
            case {"keras_history": [str(name), int(call), *_]}:
                yield name, call
            case [str(name), int(call), int(_), *arguments] if depth < _DEPTH_LIMIT:
                yield name, call
                waiting += [(item, depth + 1) for item in reversed(arguments)]
            case Mapping() | list() if depth < _DEPTH_LIMIT:
                inner: Sequence[object] = list(here.values()) if isinstance(here, Mapping) else here
                waiting += [(item, depth + 1) for item in reversed(inner)]


def modules(model: Layer) -> tuple[list[Module], list[Layer]]:
    """Return the modules of a model in order, and its layers whose variables no table names."""
    known: list[Module] = []
    unknown: list[Layer] = []
    for layer in model.layers:
        found = _modules(layer)
        known += found[0]
        unknown += found[1]
    return known, unknown


def _modules(layer: Layer) -> tuple[list[Module], list[Layer]]:
    if layer.class_name in MODELS:
        return modules(layer)
    if layer.class_name in table.WITHOUT_VARIABLES or layer.is_operation:
        return [], []
    try:
        found = _of_class(layer)
    except (KeyError, ValueError) as error:
        raise ReadError(
            f"is a Keras config whose {layer.class_name} has no valid {error}", tensor=layer.path
        ) from error
    if found is None:
        return [], [layer]
    is_trainable = bool(layer.config.get("trainable", True))
    return [replace(module, is_trainable=is_trainable and module.is_trainable) for module in found], []


def _of_class(layer: Layer) -> list[Module] | None:
    """Return the modules that a layer is, None when no table knows its class or what it is set to."""
    if layer.class_name in table.SIMPLE:
        return _simple(layer)
    if layer.class_name in table.RECURRENT:
        return _recurrent(layer, module=layer.path, suffix="_l0")
    match layer.class_name:
        case "MultiHeadAttention":
            return _attention(layer)
        case "Bidirectional" if all(inner.class_name in table.RECURRENT for inner in layer.layers):
            both = [
                _recurrent(inner, module=layer.path, suffix=suffix)
                for inner, suffix in zip(layer.layers, ("_l0", "_l0_reverse"), strict=True)
            ]
            return None if None in both else [module for modules in both if modules for module in modules]
        case "TimeDistributed" | "Wrapper" if layer.layers:
            return _wrapped_modules(layer, layer.layers[0])
        case _:
            return None


def _wrapped_modules(wrapper: Layer, layer: Layer) -> list[Module] | None:
    found, unknown = _modules(layer)
    also = () if layer.class_name in MODELS else (wrapper.path,)
    return None if unknown else [replace(module, also=(*module.also, *also)) for module in found]


def _simple(layer: Layer) -> list[Module] | None:
    slots = table.SIMPLE[layer.class_name](layer.config)
    if slots is None:
        return None
    return [
        Module(
            path=layer.path,
            module=_dotted(layer.path),
            slots=slots,
            stores=(layer.store,),
            constants=_constants(layer.class_name, slots),
        )
    ]


def _recurrent(layer: Layer, *, module: str, suffix: str) -> list[Module] | None:
    slots = table.RECURRENT[layer.class_name](layer.config, suffix=suffix)
    if slots is None:
        return None
    if layer.class_name in table.CUDNN:
        return [Module(path=layer.path, module=_dotted(module), slots=slots, stores=(layer.store,))]
    path, stores = f"{layer.path}/{_CELLS[layer.class_name]}", (f"{layer.store}/cell",)
    return [Module(path=path, module=_dotted(module), slots=slots, also=(layer.path,), stores=stores)]


def _attention(layer: Layer) -> list[Module] | None:
    projections = table.attention(layer.config)
    if projections is None:
        return None
    return [
        Module(
            path=f"{layer.path}/{name}",
            module=_dotted(f"{layer.path}/{name}"),
            slots=slots,
            stores=tuple(f"{layer.store}/{attribute}" for attribute in _PROJECTIONS[name]),
        )
        for name, slots in projections.items()
    ]


def projections(layer: Layer) -> tuple[str, ...]:
    """Return the paths of what an attention makes heads of its inputs with; none of another layer."""
    is_attention = layer.class_name == "MultiHeadAttention"
    return tuple(f"{layer.path}/{name}" for name in _PROJECTIONS if name != _OUTPUT) if is_attention else ()


def _dotted(path: str) -> str:
    return path.replace("/", ".")


def _constants(class_name: str, slots: tuple[Slot, ...]) -> Mapping[str, int] | None:
    held = {slot.keras for slot in slots}
    return table.batch_constants("gamma" in held, "beta" in held) if class_name == "BatchNormalization" else None

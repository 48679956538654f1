"""The config of a Keras model with a model of transformers inside, as it is checked and as Keras 3 is to build it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from converter.errors import ArchitectureError
from converter.graphs.trace.tensorflow import cudnn, keras_config
from converter.graphs.trace.tensorflow.keras_2 import mixed_policy

LAYER, OPERATION = "ModelOfTransformers", "OperationOfTensorFlow"
"""What stands in for the model of transformers, and for a layer that calls a function of TensorFlow."""
STATES = ("output_hidden_states", "output_attentions")
"""Settings of a model of transformers that say what it returns, in its config or in a call."""
_WAY_OUT = "the same model by model.save(folder) has a graph of its own"
_PORT = 4
"""How many parts a port of Keras 2 has that comes with keywords: layer, call, output, keywords."""
_OPERATIONS = ("TFOpLambda", "SlicingOpLambda")
_CONSTANT = "_CONSTANT_VALUE"


def checked(
    config: Mapping[str, Any], custom: frozenset[str], encoder: Mapping[str, Any] | None
) -> tuple[Mapping[str, Any], frozenset[str]]:
    """Check a config but for the layer of transformers; return it with what stands in for that, and all names to know.

    `encoder` has the `layer` and its `class_name`, as converter.planning.encoders says them. No name of what stands in
    for a function is known while the config is checked: a file cannot use it. Raises as `keras_config.check`.
    """
    custom = custom | cudnn.NAMES
    if encoder is None:
        keras_config.check(config, custom)
        return config, custom
    config, custom = _with_layer(config, encoder), custom | {LAYER}
    keras_config.check(config, custom)
    return _with_operations(config), custom | {OPERATION}


def states_of_calls(config: Mapping[str, Any], layer: str, model: Mapping[str, Any]) -> dict[str, bool]:
    """Return which states a model of transformers returns, as its own config or all calls of the layer say.

    Raises ArchitectureError where calls differ, and where what is returned has no names, and so other places.
    """
    calls = list(_calls_of(config, layer)) or [{}]
    found = {}
    for state in STATES:
        said = [call.get(state) for call in calls]
        each = {model.get(state) is True if value is None else value is True for value in said}
        if len(each) > 1:
            raise ArchitectureError(f"layer {layer!r} is called with and without {state}", hint=_WAY_OUT)
        found[state] = each.pop()
    if model.get("return_dict") is False and any(found.values()):
        raise ArchitectureError(f"layer {layer!r} returns states without names (return_dict)", hint=_WAY_OUT)
    return found


def _calls_of(value: Any, layer: str) -> Iterator[dict[str, Any]]:
    """Yield the settings of each call of a layer, wherever it is in a Keras config."""
    for each in value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ():
        yield from _calls_of(each, layer)
    if not isinstance(value, Mapping) or not isinstance(value.get("inbound_nodes"), list):
        return
    inner = value.get("config")
    if isinstance(inner, Mapping) and (inner.get("name") or value.get("name")) == layer:
        for call in value["inbound_nodes"]:
            keywords = [port[3] for port in call if isinstance(port, list) and len(port) == _PORT] if call else []
            yield {name: each for given in keywords if isinstance(given, Mapping) for name, each in given.items()}


def _without_settings(value: Any) -> Any:
    """Return calls without what the layer is traced with, beside which Keras 3 takes no tensors by name."""
    if isinstance(value, list):
        return [_without_settings(each) for each in value]
    if not isinstance(value, Mapping):
        return value
    return {name: each for name, each in value.items() if not (isinstance(each, bool) and _is_settled(name, each))}


def _is_settled(name: str, value: bool) -> bool:
    return name in (*STATES, "training") or (name == "return_dict" and value)


def _with_layer(config: Mapping[str, Any], encoder: Mapping[str, Any]) -> dict[str, Any]:
    """Return a Keras config with the class of this module for the layer that is a model of transformers.

    Its own config, which is that of transformers, does not say under which policy it was made.
    """
    policy = mixed_policy(config)

    def changed(value: Mapping[str, Any], name: object) -> dict[str, Any] | None:
        is_it = value["class_name"].rpartition(">")[2] == encoder["class_name"] and name == encoder["layer"]
        calls = {"inbound_nodes": _without_settings(value["inbound_nodes"])} if "inbound_nodes" in value else {}
        return {"class_name": LAYER, "config": {"name": name, "dtype": policy}, **calls} if is_it else None

    return _changed(config, changed)  # type: ignore[no-any-return]


def _with_operations(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a Keras config, whose functions of TensorFlow have been checked, with the class of this module for them.

    Keras 3 has no layers that call them.
    """

    def changed(value: Mapping[str, Any], name: object) -> dict[str, Any] | None:
        if value["class_name"] not in _OPERATIONS:
            return None
        own = {"name": name, "function": value["config"].get("function")}
        return {"class_name": OPERATION, "config": own, **_without_constant(value.get("inbound_nodes"), own)}

    return _changed(config, changed)  # type: ignore[no-any-return]


def _without_constant(calls: Any, own: dict[str, Any]) -> dict[str, Any]:
    """Put the constant that a function is called with first, for which Keras 3 has no form, into its layer's config.

    Return the calls, where they change: the first tensor among the keywords comes first.
    """
    match calls:
        case [[str(first), _, constant, {**keywords}]] if first == _CONSTANT:
            places = [(key, each) for key, each in keywords.items() if isinstance(each, list) and len(each) == 3]
            if places:
                tensor, place = places[0]
                own |= {"constant": constant, "keyword": tensor}
                others = {key: each for key, each in keywords.items() if key != tensor}
                return {"inbound_nodes": [[[*place, others]]]}
    return {}


def _changed(value: Any, change: Callable[[Mapping[str, Any], object], dict[str, Any] | None]) -> Any:
    """Return a config with some of its layers changed: their classes and configs, not their places in the model."""
    if isinstance(value, list):
        return [_changed(each, change) for each in value]
    if not isinstance(value, Mapping):
        return value
    inner = value.get("config")
    if isinstance(value.get("class_name"), str) and isinstance(inner, Mapping):
        name = inner.get("name") or value.get("name")
        found = change(value, name)
        if found is not None:
            place = {key: value[key] for key in ("inbound_nodes",) if key in value}
            return {"name": name, **place, **found}
    return {key: _changed(each, change) for key, each in value.items()}

"""What surrounds a model of transformers in a Keras model: other layers and their variables, and the model's config.

Variables outside the model are called ``heads.<name>`` and stored apart from it: with the name and layout of PyTorch
where their layer is known, else with their own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from converter.errors import ArchitectureError
from converter.model.checkpoint import Config

PREFIX = "heads."
METADATA_KEY = "heads"
_DEPTH_LIMIT = 64
_LAYER_LISTS = ("layers",)
_OF_TOWER = re.compile(r"_(?:text|vision)_model$")
_ODD_MODULES = {"openai_gpt": ("openai", "openai"), "data2vec_vision": ("data2vec", "data2vec_vision")}
"""Model type -> folder and file of its TensorFlow classes, where these are not called as it is."""
_NOT_OF_A_CONFIG = ("_name_or_path", "_attn_implementation_autoset")


def head_name(name: str) -> str:
    """Return what a variable outside the model is called."""
    return PREFIX + name.removesuffix(":0")


def is_head(name: str) -> bool:
    """Whether a tensor is one of another layer than the model."""
    return name.startswith(PREFIX)


def encoder_config(keras_config: Config | None) -> Config | None:
    """Return the config of the model of transformers that is a layer of a Keras model, None when there is none.

    transformers' get_config writes it: the whole config of TFPreTrainedModel, or below `config` of a main layer.
    """
    if keras_config is None:
        return None
    found = next(_configs(keras_config.values, 0), None)
    if found is None:
        return None
    values = {key: value for key, value in found.items() if key not in _NOT_OF_A_CONFIG}
    return Config(values=values, raw=(json.dumps(values, indent=2, sort_keys=True) + "\n").encode("ascii"))


def encoder_settings(keras_config: Config | None) -> Mapping[str, Any]:
    """Return what `encoder_config` says, nothing when there is none."""
    found = encoder_config(keras_config)
    return {} if found is None else found.values


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInside:
    """A layer of a Keras model that is a model of transformers: its name, its config, and its class in TensorFlow.

    The class is without the package that Keras registers it for (``Custom>``).
    """

    layer: str
    class_name: str
    config: Mapping[str, Any]


def models_inside(value: object, depth: int = 0) -> Iterator[ModelInside]:
    """Yield each layer of a Keras config that is a model of transformers, once."""
    if depth > _DEPTH_LIMIT:
        return
    if isinstance(value, Mapping):
        class_name, inner = value.get("class_name"), value.get("config")
        if isinstance(class_name, str) and isinstance(inner, Mapping):
            own = next(_configs(inner, depth), None)
            if own is not None and own in (inner, inner.get("config")):
                name = inner.get("name") or value.get("name")
                yield ModelInside(layer=str(name), class_name=class_name.rpartition(">")[2], config=own)
                return
        value = list(value.values())
    for item in value if isinstance(value, list) else ():
        yield from models_inside(item, depth + 1)


def only_model_inside(keras_config: Config | None, *, problem: str, hint: str) -> ModelInside | None:
    """Return the layer of a Keras model that is a model of transformers, None where there is none.

    Raises ArchitectureError for several, which ends in `problem`.
    """
    inside = [] if keras_config is None else list(models_inside(keras_config.values))
    if len(inside) > 1:
        layers = ", ".join(each.layer for each in inside)
        raise ArchitectureError(
            f"has {len(inside)} models of transformers as layers ({layers}), and {problem}", hint=hint
        )
    return inside[0] if inside else None


def _configs(value: object, depth: int) -> Iterator[Mapping[str, Any]]:
    if depth > _DEPTH_LIMIT:
        return
    if isinstance(value, Mapping):
        if isinstance(value.get("model_type"), str) and "transformers_version" in value:
            yield value
            return
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _configs(item, depth + 1)


def module_of(entry: Mapping[str, Any]) -> str | None:
    """Return the module of transformers that has the class of a layer, None for a layer of another package."""
    inside = next(models_inside(entry), None)
    if inside is None or inside.config not in (entry.get("config"), entry["config"].get("config")):
        return None
    kind = _OF_TOWER.sub("", str(inside.config["model_type"]).replace("-", "_"))
    folder, file = _ODD_MODULES.get(kind, (kind, kind))
    return f"transformers.models.{folder}.modeling_tf_{file}"


def config_around(model: Config | None, layers: Mapping[str, Mapping[str, Any]]) -> Config | None:
    """Return the Keras config of a SavedModel: its `model`'s, or one of its layers where only those name transformers.

    `layers` are class and config by path. Those inside a model of transformers are left out: its own config says them.
    """
    inner = [path for path, layer in layers.items() if next(_configs(layer, 0), None) is not None]
    if not inner or encoder_config(model) is not None:
        return model
    outer = [layer for path, layer in layers.items() if not any(path.startswith(f"{other}.") for other in inner)]
    values = {"class_name": "SavedModel", "config": {"layers": outer}}
    return Config(values=values, raw=json.dumps(values).encode("ascii"))


def layer_configs(keras_config: Config | None, names: Iterable[str]) -> str | None:
    """Return the configs of the layers that variables with these names are of, as JSON; None when nothing says them."""
    if keras_config is None:
        return None
    wanted = {part for name in names for part in name.removeprefix(PREFIX).split("/")[:-1]}
    found = {name: layer for name, layer in _layers(keras_config.values, 0) if name in wanted}
    return json.dumps(found, sort_keys=True) if found else None


def _layers(value: object, depth: int) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield name, class and config of every layer of a Keras config that is no model of transformers."""
    if depth > _DEPTH_LIMIT or not isinstance(value, Mapping):
        return
    config = value.get("config")
    if isinstance(value.get("class_name"), str) and isinstance(config, Mapping):
        name = config.get("name") or value.get("name")
        is_model = any(key in config for key in _LAYER_LISTS)
        if isinstance(name, str) and not is_model and next(_configs(config, 0), None) is None:
            yield name, {"class_name": value["class_name"], "config": config}
        for key in _LAYER_LISTS:
            for layer in config.get(key) or () if isinstance(config.get(key), list) else ():
                yield from _layers(layer, depth + 1)

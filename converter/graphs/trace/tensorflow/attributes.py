"""Under which attributes the user's own Keras layers have the layers inside them, which an archive's places are.

A layer is made by `from_config` of its class and looked at as Keras does when it saves: attribute by attribute, and
what is in lists by its class and a number (`keras.src.saving.saving_lib`, Keras 3.15 and tf_keras 2.21). It is not
built, so that layers which only `build` makes are not found.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from operator import itemgetter
from typing import Any

from converter.errors import ArchitectureError
from converter.graphs.failures import summary_of
from converter.graphs.trace.tensorflow import keras_config
from converter.graphs.trace.tensorflow.own_code import OwnCode, framework_of

_Where = tuple[str, str, str, str]
Inside = list[_Where]
_DEPTH_LIMIT = 32


def run(
    *, layers: Mapping[str, Mapping[str, Any]], custom_objects: Sequence[str], folder: str, is_older: bool
) -> dict[str, Inside]:
    """Return what is inside each of the `layers` that is of a class of the user's: place, name, path and class.

    It stands in the order in which Keras lists the variables of layers, and last what it does not list. A name is that
    of the layer behind those of what it is in, as in the names of Keras 2's variables. A path is of attributes, keys of
    dicts and numbers in lists, as in a graph of objects. A class is given where it is Keras's own. `is_older` says that
    Keras 2 is to find the places, which goes through attributes from the last to the first. Raises SafetyError for a
    config that is a program, ArchitectureError when a layer cannot be made of its config.
    """
    custom = keras_config.names_of_users(custom_objects)
    called = {layer: str(entry["class_name"]).rpartition(">")[2] for layer, entry in layers.items()}
    own = {layer: entry for layer, entry in layers.items() if called[layer] in custom}
    for entry in own.values():
        keras_config.check(entry, custom)
    os.environ["KERAS_BACKEND"] = "tensorflow"
    classes = OwnCode(custom_objects, is_older=is_older).imported(folder)
    found: dict[str, Inside] = {}
    for layer, entry in own.items():
        try:
            made = classes[called[layer]].from_config(dict(keras_config.for_keras(entry, custom)["config"]))
            inside = _inside(made, ("", "", "", ""), {id(made)}, is_older=is_older)
            ranks = {id(each): rank for rank, each in enumerate(_tracked(made))}
            ranked = sorted(inside, key=lambda pair: ranks.get(id(pair[0]), len(ranks)))
            found[layer] = [where for _, where in ranked]
        except Exception as error:  # the user's own code
            what = f"layer {layer!r} cannot be made of its config by --custom-objects: {summary_of(error)}"
            raise ArchitectureError(what) from error
    return found


def _tracked(layer: Any) -> Iterator[Any]:
    """Yield the layers inside another as Keras lists their variables: each before those inside it."""
    for inner in layer._flatten_layers(include_self=False, recursive=False):
        yield inner
        yield from _tracked(inner)


def _inside(layer: Any, around: _Where, seen: set[int], *, is_older: bool) -> Iterator[tuple[Any, _Where]]:
    place, name, path, _ = around
    for attribute, value in sorted(_saving_of(layer)[0](layer), reverse=is_older, key=itemgetter(0)):
        yield from _found(value, (_below(place, attribute), name, _below(path, attribute), ""), seen, is_older=is_older)


def _found(value: Any, where: _Where, seen: set[int], *, is_older: bool) -> Iterator[tuple[Any, _Where]]:
    place, name, path, _ = where
    if id(value) in seen or place.count("/") > _DEPTH_LIMIT:
        return
    if hasattr(value, "save_own_variables"):
        seen.add(id(value))
        own = (place, _below(name, getattr(value, "name", "")), path, _class_of(value))
        yield value, own
        yield from _inside(value, own, seen, is_older=is_older)
    elif isinstance(value, list | tuple | dict):
        counts: dict[str, int] = {}
        for key, each in value.items() if isinstance(value, dict) else enumerate(value):
            if hasattr(each, "save_own_variables") and id(each) not in seen:
                kind = _saving_of(each)[1](type(each).__name__)
                number = counts[kind] = counts.get(kind, -1) + 1
                here = (f"{place}/{kind}_{number}" if number else f"{place}/{kind}", name, f"{path}/{key}", "")
                yield from _found(each, here, seen, is_older=is_older)


def _class_of(layer: Any) -> str:
    """Return the class of one of Keras's own layers, nothing of another."""
    is_of_keras = type(layer).__module__.partition(".")[0] in ("keras", "tf_keras")
    return type(layer).__name__ if is_of_keras else ""


def _below(around: str, own: str) -> str:
    return f"{around}/{own}".lstrip("/")


def _saving_of(layer: Any) -> tuple[Callable[[Any], Iterator[tuple[str, Any]]], Callable[[str], str]]:
    """Return how the Keras of a layer goes through its attributes, and what it makes of the name of a class."""
    framework = framework_of(layer)
    saving = importlib.import_module(f"{framework}.src.saving.saving_lib")
    if framework == "keras":
        return saving._walk_saveable, saving.naming.to_snake_case
    return saving._walk_trackable, saving.generic_utils.to_snake_case

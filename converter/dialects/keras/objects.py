"""Where the variables of a Keras model hang in the graph of objects that tf.train.Checkpoint and SavedModels have.

Keras 3.15 keeps the layers of a model in `_operations`, tf_keras 2.21 as `layer-0`, `layer_with_weights-0` ...; a
variable is an attribute of its layer, with an underscore before its name or without.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from converter.dialects.keras.architecture import MODELS, Layer
from converter.dialects.keras.modules import Module, Slot
from converter.dialects.keras.stores import NOT_TRAINED
from converter.dialects.keras.translation import config_modules
from converter.encoding.object_graph import Node, ObjectTree
from converter.model.checkpoint import Listing

OBJECTS = ("savedmodel", "tf-checkpoint")
"""The formats that have a graph of objects."""
_LAYER = re.compile(r"layer-(\d+)")
_ITEM = re.compile(r"\d+|layer-\d+|layer_with_weights-\d+")
_OF_TWO = re.compile("layer_with_weights-")
"""What a layer of a model is called beside its number among all."""
_ALL, _TRAINED = "variables", "trainable_variables"
_OF_LAYERS = "keras_api"
_BESIDES = (_OF_LAYERS, _ALL, _TRAINED, "regularization_losses")
_DEPTH_LIMIT = 64


def listing_of(nodes: Sequence[Node], names: Mapping[str, str], kind: str) -> Listing | None:
    """Return the layers of a model of tf_keras with their variables as `layer.weights` has them, None without layers.

    `names` maps the keys of weights -> names. What a variable is called is its path from the layer. SavedModels list
    the variables of each layer; elsewhere a layer's own come before those of the layers inside it.
    """
    numbered = {name: index for name, index in (nodes[0].children if nodes else {}).items() if _LAYER.fullmatch(name)}
    layers: dict[str, tuple[tuple[str, str], ...]] = {}
    for number in range(len(numbered)):
        local_name = f"layer-{number}"
        if local_name not in numbered:
            return None
        layers[local_name] = tuple(_variables_of(nodes, numbered[local_name], names))
    held = [name for pairs in layers.values() for _, name in pairs]
    return Listing(format=kind, layers=layers) if held and len(set(held)) == len(held) else None


def _variables_of(nodes: Sequence[Node], layer: int, names: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    paths = _paths(nodes, layer, names)
    listed = nodes[layer].children.get(_ALL)
    if listed is None:
        yield from sorted(((path, name) for name, path in paths.items()), key=lambda pair: _is_untrained(pair[0]))
        return
    trained = nodes[layer].children.get(_TRAINED)
    order = dict.fromkeys(_listed(nodes, trained, names) if trained is not None else ())
    order |= dict.fromkeys(_listed(nodes, listed, names))  # of a model inside that is layer by layer
    yield from ((paths[name], name) for name in order if name in paths)


def _listed(nodes: Sequence[Node], index: int, names: Mapping[str, str]) -> Iterator[str]:
    """Yield the names of the variables in a list of objects."""
    children = nodes[index].children
    for number in range(len(children)):
        key = nodes[children[str(number)]].key if str(number) in children else None
        if key in names:
            yield names[str(key)]


def _is_untrained(path: str) -> bool:
    return path.rpartition("/")[2] in NOT_TRAINED


def _paths(nodes: Sequence[Node], layer: int, names: Mapping[str, str]) -> dict[str, str]:
    """Return name -> path from a layer: its own variables, then those of what is inside it, in order.

    What is in a list, a dict or a model inside is no attribute, and stands in brackets. A SavedModel tells a dict,
    which is no layer; a checkpoint does not.
    """
    found: dict[str, str] = {}
    seen = {layer}
    tells_layers = _OF_LAYERS in nodes[layer].children

    def walk(at: int, path: str, depth: int) -> None:
        inner = []
        is_dict = tells_layers and _OF_LAYERS not in nodes[at].children
        for local_name, index in sorted(nodes[at].children.items(), key=lambda child: bool(_OF_TWO.match(child[0]))):
            if index in seen or local_name in _BESIDES or depth > _DEPTH_LIMIT:
                continue
            seen.add(index)
            part = f"[{local_name}]" if is_dict or _ITEM.fullmatch(local_name) else local_name
            below = f"{path}/{part}".lstrip("/")
            if nodes[index].key in names:
                found[names[str(nodes[index].key)]] = below
            else:
                inner.append((index, below))
        for index, below in inner:
            walk(index, below, depth + 1)

    walk(layer, "", 0)
    return found


def add_model(tree: ObjectTree, root: int, model: Layer, *, is_older: bool) -> tuple[dict[str, int], dict[str, str]]:
    """Hang the layers of a model below `root`; return the node of each variable by its name, and key -> name."""
    by_store: dict[str, tuple[int, str]] = {}
    for layer, node, path in _layers(tree, root, "model", model, is_older=is_older):
        by_store[layer.store] = (node, path)
    nodes: dict[str, int] = {}
    keys: dict[str, str] = {}
    for module in config_modules(model)[0]:
        holder, place = _holder(tree, module, by_store)
        for slot in module.slots:
            name = f"{module.path}/{slot.keras}"
            nodes[name] = tree.child(holder, *_attributes(slot))
            keys[tree.set_variable(nodes[name], f"{place}/{slot.keras}", name)] = name
    return nodes, keys


def _layers(
    tree: ObjectTree, root: int, path: str, model: Layer, *, is_older: bool
) -> Iterator[tuple[Layer, int, str]]:
    """Yield every layer with its node and a path to it; the layers of nested models, too."""
    holder = root
    if not is_older:
        if model.class_name == "Sequential":
            holder, path = tree.child(holder, "_functional"), f"{path}/_functional"
        holder, path = tree.child(holder, "_operations"), f"{path}/_operations"
    layers = model.layers
    if is_older and model.class_name == "Sequential":
        layers = tuple(layer for layer in layers if layer.class_name != "InputLayer")
    for number, layer in enumerate(layers):
        local_name = f"layer-{number}" if is_older else str(number)
        node = tree.child(holder, local_name)
        yield layer, node, f"{path}/{local_name}"
        if layer.class_name in MODELS:
            yield from _layers(tree, node, f"{path}/{local_name}", layer, is_older=is_older)


def _holder(tree: ObjectTree, module: Module, by_store: dict[str, tuple[int, str]]) -> tuple[int, str]:
    """Return the object whose attributes the variables of a module are: its layer, or what that wraps."""
    store = next(store for store in sorted(by_store, key=len, reverse=True) if _is_in(module.stores[0], store))
    node, path = by_store[store]
    for part in filter(None, module.stores[0].removeprefix(store).split("/")):
        node, path = tree.child(node, part, f"_{part}"), f"{path}/{part}"
    return node, path


def _is_in(place: str, store: str) -> bool:
    return place == store or place.startswith(f"{store}/")


def _attributes(slot: Slot) -> tuple[str, ...]:
    return tuple(attribute for name in slot.names for attribute in (name, f"_{name}"))

"""Where the variables of a Keras model hang in the graph of objects that tf.train.Checkpoint saves.

Keras 3.15 keeps the layers of a model in `_operations`, tf_keras 2.21 as `layer-0`, `layer_with_weights-0` ...; a
variable is an attribute of its layer, with an underscore before its name or without.
"""

from __future__ import annotations

from collections.abc import Iterator

from converter.dialects.keras.architecture import MODELS, Layer
from converter.dialects.keras.modules import Module, Slot
from converter.dialects.keras.translation import config_modules
from converter.encoding.object_graph import ObjectTree


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

"""Names for the numbered variables of `.weights.h5`, which has them at ``<place of the layer>/vars/<position>``.

Keras 3.15 (saving_lib.py) and tf_keras 2.21. The layers of a config name every position; without one, what a group is
called, or says it is called, is the class of its layer in snake case, and positions follow from class and shapes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from converter.dialects.keras import leaves
from converter.dialects.keras.architecture import snake_case
from converter.dialects.keras.modules import SIMPLE, Module

Shape = tuple[int, ...]

_NUMBER = re.compile(r"_\d+$")
_CLASSES = {snake_case(name): name for name in SIMPLE}
_PROJECTIONS = {
    "query_dense": "query",
    "key_dense": "key",
    "value_dense": "value",
    "output_dense": "attention_output",
}
_DIRECTIONS = ("forward_layer", "backward_layer")
_CANDIDATES: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "Dense": (("kernel", "bias"), ("kernel",)),
    "EinsumDense": (("kernel", "bias"), ("kernel",)),
    "Embedding": (("embeddings",),),
    "PReLU": (("alpha",),),
    "RMSNormalization": (("scale",),),
    "Normalization": (("mean", "variance", "count"),),
    "LayerNormalization": (("gamma", "beta"),),
    "GroupNormalization": (("gamma", "beta"),),
    "BatchNormalization": (("gamma", "beta", "moving_mean", "moving_variance"), ("moving_mean", "moving_variance")),
}
NOT_TRAINED = ("moving_mean", "moving_variance", "mean", "variance", "count")
"""What variables are called that no layer of Keras trains."""
IN_ORDER = (
    *("depthwise_kernel", "pointwise_kernel", "kernel", "recurrent_kernel", "embeddings"),
    *("gamma", "beta", "scale", "alpha", "bias"),
    *NOT_TRAINED,
)
"""What the variables of Keras's own layers are called, each before those that it has after them."""
_CELL = ("kernel", "recurrent_kernel", "bias")
_OLD_PLACE, _PLACE = "_layer_checkpoint_dependencies", "layers"


def as_today(place: str) -> str:
    """Return a place of an archive as Keras calls it today; the first archives of Keras 2 had another word in it."""
    return place.replace(_OLD_PLACE, _PLACE)


def names_from_modules(modules: Sequence[Module], counts: Mapping[str, int]) -> dict[str, tuple[str, ...]]:
    """Return store -> names of its variables, for the stores of which `counts` has as many as their modules hold."""
    found: dict[str, tuple[str, ...]] = {}
    for module in modules:
        for store in module.stores:
            if counts.get(store) == len(module.slots):
                found[store] = tuple(f"{module.path}/{slot.keras}" for slot in module.slots)
    return found


def names_from_path(store: str, shapes: Sequence[Shape], titles: Mapping[str, str]) -> tuple[str, ...] | None:
    """Return the names of the variables of a store, None when nothing says what they are.

    `titles`   store -> the name that its group gives its layer, as Keras 3 writes it
    """
    parts = store.split("/")
    own = parts[-1].lstrip("_")
    path = _path(parts, titles)
    if own == "cell":
        is_cell = len(shapes) in (2, 3) and all(len(shape) == 2 for shape in shapes[:2])
        is_cell = is_cell and shapes[0][1] == shapes[1][1]
        return tuple(f"{path}/{leaf}" for leaf in _CELL[: len(shapes)]) if is_cell else None
    if own in _PROJECTIONS and "multi_head_attention" in store:
        return tuple(f"{path}/{leaf}" for leaf in ("kernel", "bias")[: len(shapes)]) if len(shapes) < 3 else None
    for title in (own, titles.get(store, "")):
        names = leaves_of(_CLASSES.get(title) or _CLASSES.get(_NUMBER.sub("", title)), shapes)
        if names is not None:
            return tuple(f"{path}/{leaf}" for leaf in names)
    return None


def is_unnamed(place: str, names: Sequence[str]) -> bool:
    """Whether the variables at a place are called after it, as nothing says what they are."""
    return bool(names) and names[0] == f"{place}/vars/0"


def leaves_of(class_name: str | None, shapes: Sequence[Shape]) -> tuple[str, ...] | None:
    """Return what the variables of one of Keras's layers are called, None where its class or their number tells not."""
    if class_name is None or class_name not in SIMPLE:
        return None
    if class_name.startswith("Separable"):
        leaf_sets: tuple[tuple[str, ...], ...] = (
            ("depthwise_kernel", "pointwise_kernel", "bias"),
            ("depthwise_kernel", "pointwise_kernel"),
        )
    elif class_name.startswith("Depthwise"):
        leaf_sets = (("depthwise_kernel", "bias"), ("depthwise_kernel",))
    else:
        leaf_sets = _CANDIDATES.get(class_name, (("kernel", "bias"), ("kernel",)))
    found = next((names for names in leaf_sets if len(names) == len(shapes)), None)
    if found is None or (found[-1] == "bias" and class_name != "EinsumDense" and len(shapes[-1]) != 1):
        return None
    return found


def _path(parts: Sequence[str], titles: Mapping[str, str]) -> str:
    """Return the path of a layer: names that groups give where Keras numbers them, else what attributes are called."""
    path: list[str] = []
    for index, part in enumerate(parts):
        store = "/".join(parts[: index + 1])
        before = parts[index - 1] if index else ""
        if part in ("layers", "_layer_checkpoint_dependencies") and index + 1 < len(parts):
            continue
        if part == "cell":
            path.append(_cell(store, path, titles))
        elif part.lstrip("_") in _PROJECTIONS and "multi_head_attention" in before:
            path.append(_PROJECTIONS[part.lstrip("_")])
        elif part in (*_DIRECTIONS, "layer") or before in ("layers", "_layer_checkpoint_dependencies"):
            path.append(titles.get(store) or part)
        else:
            path.append(part)
    return "/".join(path)


def _cell(store: str, path: Sequence[str], titles: Mapping[str, str]) -> str:
    title = titles.get(store, "lstm_cell")
    return title if leaves.without_cell(f"x/{title}") == "x" else "lstm_cell"

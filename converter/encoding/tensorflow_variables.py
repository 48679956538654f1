"""Which entries of a tensor bundle are weights, and what they are called.

Object-based bundles (TensorFlow 2) keep a graph of objects, and every variable under the shortest path to it: the
full name in that graph is what the program called it. Name-based bundles (TensorFlow 1) have names for keys.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

from converter.encoding.tensor_bundle import OBJECT_GRAPH_KEY, Bundle, Entry, object_names
from converter.errors import ReadError
from converter.model.ledger import Kind, LedgerLine, Status, dropped, no_weight
from converter.model.tensor import Tensor

_VALUE_SUFFIX = "/.ATTRIBUTES/VARIABLE_VALUE"
_SLOT_MARK = "/.OPTIMIZER_SLOT/"
_METRICS = "keras_api/metrics/"
_LISTED_WEIGHTS = "/_trainable_variables/"
"""Keras 3 optimizers list the weights they train, and a weight's shortest path may be by that list."""
_SLOT_OF_TENSORFLOW_1 = re.compile(
    r"(.+)/(?:adam_[mv]|lamb_[mv]|(?:Adam|AdamW|Momentum|RMSProp|Adagrad|AdagradDA|Adadelta|Ftrl)(?:_\d)?)"
)
_OPTIMIZERS = "(?:Adadelta|Adagrad|Adam|Adamax|AdamW|Ftrl|Nadam|RMSprop|SGD)(?:_[0-9]+)?"
_OF_TRAINING = re.compile(rf"training(?:_[0-9]+)?/{_OPTIMIZERS}/.+")
_SLOT_OF_KERAS = re.compile(rf"(?:.+/)?{_OPTIMIZERS}/(.+)/[a-z_]+")
_SCALAR_OF_KERAS = re.compile(
    rf"(?:.+/)?{_OPTIMIZERS}/(?:iter|iterations|beta_1|beta_2|decay|learning_rate|momentum|rho)"
)
"""What optimizers of Keras call their variables in the name-based bundles of estimators and sessions."""


def variable_names(bundle: Bundle) -> dict[str, str]:
    """Return key -> name of every entry but the object graph: the full name, or the path of objects.

    The path, too, where several variables have one full name, as all have that a tf.Module makes without names.
    """
    full_names = _full_names(bundle)
    found = {key: full_names.get(key, key) for key in bundle.entries if key != OBJECT_GRAPH_KEY}
    first: dict[str, str] = {}
    shared = {
        name
        for key, name in found.items()
        if not _holds_the_same(bundle.entries[key], bundle.entries[first.setdefault(name, key)])
    }
    return {key: object_path(key) if name in shared else name for key, name in found.items()}


def object_path(key: str) -> str:
    """Return the path of objects that the key of a variable is made of."""
    return key.removesuffix(_VALUE_SUFFIX)


def _full_names(bundle: Bundle) -> dict[str, str]:
    if OBJECT_GRAPH_KEY not in bundle.entries:
        return {}
    graph = bundle.text(OBJECT_GRAPH_KEY)
    if len(graph) != 1:
        raise ReadError(f"has {len(graph)} object graphs", path=bundle.path)
    full_names = object_names(graph[0], path=bundle.path)
    return {
        key: full_name.removesuffix(":0") or object_path(key)
        for key, full_name in full_names.items()
        if key.endswith(_VALUE_SUFFIX)
    }


def kinds_besides_weights(bundle: Bundle) -> dict[str, Kind]:
    """Return key -> what it is, for what is no weight: state of optimizers and metrics, and counters."""
    optimizers = _optimizer_prefixes(bundle)
    kinds = {key: _kind(key, bundle, optimizers) for key in bundle.entries if key != OBJECT_GRAPH_KEY}
    return {key: kind for key, kind in kinds.items() if kind is not None}


def _optimizer_prefixes(bundle: Bundle) -> tuple[str, ...]:
    """Return what the keys of variables of optimizers start with; users give optimizers names of their own."""
    found = {"optimizer/"}
    for key in bundle.entries:
        above, _, last = object_path(key).rpartition("/")
        is_optimizer = last == "_iterations" or (
            last == "iter" and f"{above}/learning_rate{_VALUE_SUFFIX}" in bundle.entries
        )
        if above and is_optimizer and key.endswith(_VALUE_SUFFIX):
            found.add(f"{above}/")
    return tuple(sorted(found))


def _kind(key: str, bundle: Bundle, optimizers: tuple[str, ...]) -> Kind | None:
    if _SLOT_MARK in key:
        return Kind.OPTIMIZER
    if key.startswith(optimizers):
        return None if _LISTED_WEIGHTS in key else Kind.OPTIMIZER
    if key.startswith(_METRICS) or f"/{_METRICS}" in key:
        return Kind.METRIC
    if key.startswith("save_counter/"):
        return Kind.SAVES
    return _kind_in_tensorflow_1(key, bundle.entries)


def _kind_in_tensorflow_1(key: str, entries: Mapping[str, Entry]) -> Kind | None:
    is_scalar = entries[key].shape == ()
    if is_scalar and key == "global_step":
        return Kind.STEPS
    if is_scalar and key.rpartition("/")[2] in ("beta1_power", "beta2_power"):
        return Kind.OPTIMIZER
    if _OF_TRAINING.fullmatch(key) or (is_scalar and _SCALAR_OF_KERAS.fullmatch(key)):
        return Kind.OPTIMIZER
    slot = _SLOT_OF_TENSORFLOW_1.fullmatch(key) or _SLOT_OF_KERAS.fullmatch(key)
    owner = None if slot is None else entries.get(slot[1])
    return Kind.OPTIMIZER if owner is not None and owner.shape == entries[key].shape else None


def weights(
    bundle: Bundle, names: Mapping[str, str], kinds: Mapping[str, Kind]
) -> tuple[dict[str, Tensor], tuple[LedgerLine, ...]]:
    """Return the weights by name, and what became of everything else in the bundle.

    `names` and `kinds` are what `variable_names` and `kinds_besides_weights` say, or better. Raises ReadError for types
    that are no numbers, and for two variables of one name that do not hold the same.
    """
    bearers = Counter(names.values())
    keys: dict[str, str] = {}
    lines: list[LedgerLine] = []
    for key, name in names.items():
        entry = bundle.entries[key]
        if key in kinds:
            lines.append(no_weight(name if bearers[name] == 1 else object_path(key), kinds[key]))
        elif entry.is_text:
            text = dropped(name, "text, not numbers", is_refused_by_default=True)
            lines.append(replace(text, kind=Kind.VALUE))
        elif key not in bundle.tensors:
            raise ReadError(f"is of type {entry.type_name}, which is not read", path=bundle.path, tensor=name)
        elif name not in keys:
            keys[name] = key
        elif _holds_the_same(entry, bundle.entries[keys[name]]):
            lines.append(LedgerLine(status=Status.TIED, name=key, target=name, reason="stored twice"))
        else:
            raise ReadError(f"is the name of both {keys[name]} and {key}", path=bundle.path, tensor=name)
    return {name: bundle.tensors[key] for name, key in keys.items()}, tuple(lines)


def _holds_the_same(entry: Entry, other: Entry) -> bool:
    """Whether two entries are one variable: Keras 3 exports keep each under `variables` and `_all_variables`."""
    if entry is other:
        return True
    is_stored_whole = not entry.slices and not other.slices
    return is_stored_whole and (entry.dtype, entry.shape, entry.crc32c) == (other.dtype, other.shape, other.crc32c)

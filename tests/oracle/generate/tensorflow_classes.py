"""Makes converter/dialects/tables/tensorflow_classes.json: how the TensorFlow classes lay out a tf_model.h5.

    TF_USE_LEGACY_KERAS=1 python -m tests.oracle.generate.tensorflow_classes FOLDER

FOLDER is what tensorflow_dump.py wrote; the rows of tensorflow.json are needed. Per class: the layers of a file in
order, each with the paths of the variables in it; how many layers Keras has numbered before one without a name, as a
function of the config; variables that repeat a tensor of PyTorch, and those that PyTorch has nothing for.
"""

from __future__ import annotations

import itertools
import json
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from converter.dialects.tables import TensorFlowTable, exceptions, tensorflow_table
from tests.oracle.generate import tensorflow_models as models
from tests.oracle.generate.table_file import TABLES, write
from tests.oracle.generate.tensorflow import dumps, stripped

TABLE = TABLES / "tensorflow_classes.json"
TOP_LEVEL = "top_level_model_weights"
_NUMBERED = re.compile(r"(activation|average_pooling2d|dropout|flatten|max_pooling2d)(_\d+)?")
_COUNTS = ("num_hidden_groups", "inner_group_num", "num_feedforward_networks", "block_sizes", "depths")
CROSS = "cross attention"


def templates(table: TensorFlowTable, variable: str, rank: int) -> list[str]:
    """Return the row of a variable, as the other table has it; those of a layer that Keras numbers come together."""
    match = table.to_canonical(stripped(variable), rank)
    if match is None:
        raise ValueError(f"{table.model_type}: no row for {variable}")
    same = [row for row in table.aliases.all if row.canonical.text == match.row.canonical.text]
    is_numbered = any(len(row.theirs.placeholders) > len(row.canonical.placeholders) for row in same)
    return [row.theirs.text for row in same] if is_numbered else [match.row.theirs.text]


def covering(own: Iterable[str], others: Iterable[str]) -> list[str]:
    """Return the fewest paths that all of `own` are below and none of `others`."""
    rest = set(others)
    found: list[str] = []
    for name in own:
        if any(name == path or name.startswith(f"{path}/") for path in found):
            continue
        parts = name.split("/")
        paths = ("/".join(parts[:length]) for length in range(1, len(parts) + 1))
        found.append(next(p for p in paths if not any(other == p or other.startswith(f"{p}/") for other in rest)))
    return found


def layers(entries: list[Mapping[str, Any]], table: TensorFlowTable) -> list[list[Any]]:
    """Return [name, whether it is there without weights too, paths ...] of the layers of a class, in order."""
    every = dict.fromkeys(row.theirs.text for row in (*table.rows.all, *table.aliases.all))
    held: dict[str, dict[str, None]] = {}
    seen: list[set[str]] = []
    for entry in entries:
        for name, (_, weights) in zip(_names(entry), _with_top_level(entry), strict=True):
            own = held.setdefault(name, {})
            for weight in weights:
                own.update(dict.fromkeys(templates(table, weight, len(entry["variables"][weight]))))
        seen.append(set(_names(entry)))
    ordered = _ordered([[*_names(entry)] for entry in entries], held)
    return [
        [name, all(name in s for s in seen), *covering(held[name], (each for each in every if each not in held[name]))]
        for name in ordered
    ]


def _with_top_level(entry: Mapping[str, Any]) -> list[tuple[str, list[str]]]:
    listed = {weight for _, weights in entry["layers"] for weight in weights}
    left = [name for name in entry["variables"] if name not in listed]
    return [*((layer, weights) for layer, weights in entry["layers"]), *([(TOP_LEVEL, left)] if left else [])]


def _names(entry: Mapping[str, Any]) -> Iterable[str]:
    for layer, weights in _with_top_level(entry):
        numbered = _NUMBERED.fullmatch(layer)
        yield layer if numbered is None or weights else f"{numbered[1]}#"


def _ordered(orders: list[list[str]], names: Iterable[str]) -> list[str]:
    """Return names in an order that all `orders` agree with."""
    longest = max(orders, key=len)
    found = [*longest]
    for name in names:
        if name not in found:
            order = next(each for each in orders if name in each)
            before = order[: order.index(name)]
            found.insert(max((found.index(other) + 1 for other in before if other in found), default=0), name)
    return found


def copies(entries: list[Mapping[str, Any]], table: TensorFlowTable) -> dict[str, str]:
    """Return PyTorch's name of a variable -> the tensor that save_pretrained keeps of the same values."""
    found = {}
    for entry in entries:
        base = _base(entry, table)
        saved = {base + name for name in entry["saved"]}
        for variable, shape in entry["variables"].items():
            match = table.to_canonical(stripped(variable), len(shape))
            if match is not None and match.name not in saved:
                same = [base + name for name, _ in entry["mapping"][variable] if base + name in saved]
                found.update({match.name: same[0]} if same else {})
    return found


def made(entries: list[Mapping[str, Any]], table: TensorFlowTable) -> list[list[Any]]:
    """Return those of exceptions.json that a class of PyTorch lacks in some variant, or under some config."""
    known = exceptions("made").get(table.model_type, ())
    missing = set()
    for entry in entries:
        base = _base(entry, table)
        saved = {base + name for name in entry["saved"]}
        for variable, shape in entry["variables"].items():
            match = table.to_canonical(stripped(variable), len(shape))
            if match is None:
                continue
            theirs = match.row.theirs.text
            is_conditional = any(each[:2] == [theirs, "biases"] for each in known)
            if is_conditional or match.name not in saved:
                missing.add(theirs)
    return [each for each in known if each[0] in missing]


def _base(entry: Mapping[str, Any], table: TensorFlowTable) -> str:
    return f"{table.prefix}." if entry["is_base"] and table.prefix else ""


def numbers(class_name: str, family: str, model_class: Any) -> dict[str, dict[str, int]]:
    """Return layer -> product of keys of the config -> factor: the sum is which number Keras gives the layer."""

    def number(changes: Mapping[str, int]) -> dict[str, int]:
        import tf_keras

        config = models.config_of(class_name, family, model_class, 0)
        for key, more in changes.items():
            _change(config, key, more)
        tf_keras.backend.clear_session()
        names = [layer.name for layer in model_class(config).layers]
        found = (_NUMBERED.fullmatch(name) for name in names)
        return {match[1]: int((match[2] or "_0")[1:]) for match in found if match}

    config = models.config_of(class_name, family, model_class, 0)
    base = number({})
    keys = [key for key in _keys(config) if _can(number, {key: 1}, base)]
    return {layer: _fitted(layer, keys, config, number) for layer in base}


def _keys(config: Any) -> list[str]:
    values = config.to_dict()
    counts = [
        key
        for key, value in values.items()
        if (isinstance(value, int) and not isinstance(value, bool) and "layer" in key) or key in _COUNTS
    ]
    return counts + ([CROSS] if hasattr(config, "add_cross_attention") else [])


def _change(config: Any, key: str, more: int) -> None:
    if key == CROSS:
        config.is_decoder = config.add_cross_attention = bool(more)
        return
    value = getattr(config, key)
    setattr(config, key, [*value[:-1], value[-1] + more] if isinstance(value, list) else value + more)


def _can(number: Callable[[Mapping[str, int]], Mapping[str, int]], changes: Mapping[str, int], base: Any) -> bool:
    """Whether a key of the config changes a number at all."""
    try:
        return number(changes) != base
    except Exception:  # a config that the class refuses
        return False


def _fitted(
    layer: str, keys: list[str], config: Any, number: Callable[[Mapping[str, int]], Mapping[str, int]]
) -> dict[str, int]:
    start = {key: 0 if key == CROSS else _size(getattr(config, key)) for key in keys}
    terms = [(), *((key,) for key in keys), *itertools.combinations(keys, 2)]
    points = [{}, *({key: 1} for key in keys), *({a: 1, b: 1} for a, b in itertools.combinations(keys, 2))]
    rows = [[np.prod([start[k] + point.get(k, 0) for k in term]) for term in terms] for point in points]
    factors = np.linalg.solve(np.array(rows, float), np.array([number(point)[layer] for point in points], float))
    found = {term: round(factor) for factor, term in zip(factors, terms, strict=True) if round(factor)}
    far = {key: 1 if key == CROSS else 2 for key in keys}
    told = sum(f * int(np.prod([start[k] + far[k] for k in term])) for term, f in found.items())
    if told != number(far)[layer]:
        raise ValueError(f"{layer}: no sum of products of {keys} gives its number")
    return {" * ".join(term): factor for term, factor in found.items()}


def _size(value: Any) -> int:
    return sum(value) if isinstance(value, list) else value


def main(folder: Path) -> None:
    """Write the table."""
    by_class: dict[str, list[dict[str, Any]]] = {}
    for dump in dumps(folder):
        by_class.setdefault(dump["class"], []).append(dump)
    classes = models.classes()
    found = {}
    for name, entries in sorted(by_class.items()):
        table = tensorflow_table(entries[0]["model_type"])
        if table is None:
            raise ValueError(f"{name}: tensorflow.json lacks {entries[0]['model_type']}")
        listed = layers(entries, table)
        numbered = numbers(name, *classes[name]) if any(layer.endswith("#") for layer, *_ in listed) else {}
        found[name] = {
            "model_type": table.model_type,
            "copies": copies(entries, table),
            "made": made(entries, table),
            "chosen": exceptions("chosen").get(table.model_type, []),
            "numbers": numbered,
            "layers": listed,
        }
        print(name, numbered or "", flush=True)
    versions = json.loads((folder / "versions.json").read_text())
    write(TABLE, {"versions": versions, "models": found})


if __name__ == "__main__":
    main(Path(sys.argv[1]))

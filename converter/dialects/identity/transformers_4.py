"""Which class of transformers 4.57.6 a set of tensors is of, by `tables/tensorflow.json`, which has all their names.

It says of classes that have a TensorFlow twin what the table of transformers 5 does not: each tensor that they need,
and what Keras calls them. What it says of a class that a config names stands before what layers tell.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

from converter.dialects.tables import ModelClass, TensorFlowTable, document, tensorflow_table
from converter.model.checkpoint import class_named

_NUMBER = re.compile(r"_\d+$")

INNER_PREFIXES = frozenset({"audio_model.", "text_model.", "vision_model."})
"""What towers have before all of their names, and save no more since transformers 5, which reads either."""


def classes_like(table: TensorFlowTable, present: Iterable[str], named: str | None, start: str) -> list[ModelClass]:
    """Return the classes that have tensors of the templates `present`, the likeliest first; those that fit alike.

    It is the class `named` by the config when that has them all and none of its own head is missing, else the one
    whose head fits best; of several, the one whose variables have names that begin with `start`, else what fits best.
    """
    held = set(present)
    every = {row.canonical.text for row in (*table.rows.all, *table.aliases.all)}
    known = tuple(table.classes.values())

    def misfits(candidate: ModelClass, *, of_head: bool) -> int:
        extra = {template for template in held if not candidate.has(template)}
        missing = {template for template in every - held if candidate.needs(template)}
        return sum(not of_head or _is_of_head(template, table.prefix) for template in extra | missing)

    for candidate in known:
        if candidate.name == named and not misfits(candidate, of_head=bool(table.prefix)):
            return [candidate]
    ranks = {
        candidate.name: (
            misfits(candidate, of_head=bool(table.prefix)),
            not candidate.is_called(start),
            misfits(candidate, of_head=False),
            candidate.name != named,
        )
        for candidate in known
    }
    best = min(ranks.values())
    return sorted((each for each in known if ranks[each.name] == best), key=lambda each: not each.is_base)


def type_called(layers: Iterable[str]) -> str | None:
    """Return the model type whose classes Keras calls as one of these layers, numbered or not; None for several."""
    types = _types_by_layer()
    bare = {_NUMBER.sub("", layer) for layer in layers}
    found = {types[layer] for layer in bare if layer in types}
    return found.pop() if len(found) == 1 else None


def base_called(layer: str) -> str | None:
    """Return what Keras calls the model without a head of the type that has a class called as this layer is."""
    model_type = _types_by_layer().get(layer)
    classes = () if model_type is None else document("tensorflow")["models"][model_type]["classes"].values()
    return next((str(each["layer"]) for each in classes if each["is_base"]), None)


def type_inside(layers: Iterable[str]) -> str | None:
    """Return the model type that is called as one of these layers is, as its main layer is; None for several.

    It is a guess: `bert` and `resnet` are names that anybody gives.
    """
    models = document("tensorflow")["models"]
    found = {layer for layer in layers if layer in models and models[layer]["prefix"] == layer}
    named = {_types_by_layer().get(_NUMBER.sub("", layer)) for layer in layers} - {None}
    return found.pop() if len(found) == 1 and not named else None


def is_whole(table: TensorFlowTable, present: Iterable[str]) -> bool:
    """Whether tensors of the templates `present` are all that one of the classes of a table needs."""
    held = set(present)
    needed = [row.canonical.text for row in table.rows.all]
    return any(all(template in held for template in needed if each.needs(template)) for each in table.classes.values())


@cache
def _types_by_layer() -> Mapping[str, str]:
    """Return what Keras calls each class, and its model type; none that classes of two types are called."""
    types: dict[str, set[str]] = {}
    for model_type, entry in document("tensorflow")["models"].items():
        for known in entry["classes"].values():
            types.setdefault(known["layer"], set()).add(model_type)
    return {layer: held.pop() for layer, held in types.items() if len(held) == 1}


def is_class_named(names: Iterable[str], config: Mapping[str, Any]) -> bool:
    """Whether tensors are just those of the class that a config names: none of another, all that it needs."""
    found = named_in_table(config)
    if found is None:
        return False
    table, known = found
    prefix = f"{table.prefix}." if known.is_base else ""
    held = set()
    for name in names:
        match = table.from_canonical(prefix + name)
        if match is not None:
            held.add(match.row.canonical.text)
        elif prefix + name not in known.ties and not name.endswith("num_batches_tracked"):
            return False
    every = {row.canonical.text for row in table.rows.all}
    return all(map(known.has, held)) and not any(known.needs(template) for template in every - held)


def is_known(name: str, config: Mapping[str, Any]) -> bool:
    """Whether the class that a config names has a tensor of PyTorch's `name` with some config."""
    found = named_in_table(config)
    if found is None:
        return False
    table, known = found
    name = f"{table.prefix}.{name}" if known.is_base else name
    match = table.from_canonical(name)
    return name in known.ties or (match is not None and known.has(match.row.canonical.text))


def named_in_table(config: Mapping[str, Any]) -> tuple[TensorFlowTable, ModelClass] | None:
    """Return the class that a config names, with its table; None where the tables do not have it."""
    table, named = tensorflow_table(str(config.get("model_type"))), class_named(config)
    known = None if table is None or named is None else table.classes.get(named)
    return None if table is None or known is None else (table, known)


def _is_of_head(template: str, prefix: str) -> bool:
    return not template.startswith(f"{prefix}.")

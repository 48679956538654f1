"""What is known of the classes of a model type of transformers: `tables/classes.json`, parsed and checked.

`tests/oracle/generate/classes.py` makes the table. A name of a head stands for all that differ from it in numbers
alone (``#``); its layer is the name less its last component, or less all from the first number on.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from converter.dialects.identity.tasks import BASE_TASK
from converter.dialects.tables import document, naming_entry

POSITION_EMBEDDINGS = "embeddings.position_embeddings.weight"
"""What the base models of encoders have, once; unlike the word embeddings they are tied to nothing."""

_TABLE = "classes"
_NUMBER = re.compile(r"(?<![^.])\d+(?![^.])")


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownClass:
    """A class, and the names that it has.

    `prefix`         the name of its base model, "" for a class that has none inside
    `base`           the first components of the base model's names, or of all its own; `base_optional` those that only
                     some configs or files have
    `head`           the names outside the base model; `optional` those that only some configs or files have
    `layers`         the layers of `head`; `optional_layers` those of `optional`
    `tells`          of a class without a base model inside: layers by which it differs from those that start alike
    `output`         of a class for multiple choice: the name of the weight with one row
    `ties`           tied name -> the name that is stored, when the config ties word embeddings
    """

    name: str
    tasks: tuple[str, ...]
    prefix: str
    base: frozenset[str]
    base_optional: frozenset[str]
    head: frozenset[str]
    optional: frozenset[str]
    layers: frozenset[str]
    optional_layers: frozenset[str]
    tells: frozenset[str]
    output: str
    ties: Mapping[str, str]

    @property
    def tied_layers(self) -> frozenset[str]:
        """The layers whose tensors are another's, when the config ties word embeddings."""
        return frozenset(map(layer_of, self.ties))

    @property
    def is_base(self) -> bool:
        """Whether it is a base model."""
        return BASE_TASK in self.tasks and not self.prefix


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownType:
    """A model type.

    `anchor`    the name that every base model of the type has just once, "" where there is none
    `is_tied`   whether word embeddings are tied where the config says nothing
    `others`    classes of which nothing but the name is known: those in no list of transformers, or not built
    `modules`   the first components of the names of its base models, wherever those are
    """

    name: str
    anchor: str
    is_tied: bool
    others: frozenset[str]
    classes: Mapping[str, KnownClass]
    modules: frozenset[str]

    def for_task(self, task: str) -> list[KnownClass]:
        """Return the classes for a task."""
        return [each for each in self.classes.values() if task in each.tasks]

    @property
    def prefixes(self) -> tuple[str, ...]:
        """What classes of the type call their base model."""
        return tuple(dict.fromkeys(each.prefix for each in self.classes.values() if each.prefix))


def template_of(name: str) -> str:
    """Return a name with ``#`` for each number that is a component."""
    return _NUMBER.sub("#", name)


def layer_of(name: str) -> str:
    """Return the layer that a tensor of this name, or template, is in; the name itself where it has one component."""
    before, is_numbered, _ = template_of(name).partition(".#")
    return before if is_numbered else before.rpartition(".")[0] or before


@cache
def known_type(model_type: str) -> KnownType | None:
    """Return what the table has of a model type, None when it does not know it. Raises ValueError for a slip in it."""
    entry = document(_TABLE)["models"].get(model_type)
    if entry is None:
        return None
    with naming_entry(_TABLE, model_type):
        classes = {name: _class_of(name, **each) for name, each in entry["classes"].items()}
        rest = {key: value for key, value in entry.items() if key not in ("classes", "others")}
        bases = [each for each in classes.values() if each.is_base or each.prefix]
        modules = frozenset[str]().union(*(each.base | each.base_optional for each in bases))
        return KnownType(name=model_type, classes=classes, modules=modules, others=frozenset(entry["others"]), **rest)


def _class_of(name: str, **entry: Any) -> KnownClass:
    keys = ("base", "base_optional", "head", "optional", "tells")
    sets: dict[str, Any] = {key: frozenset(entry.pop(key)) for key in keys}
    layers, optional = (frozenset(map(layer_of, sets[key])) for key in ("head", "optional"))
    tasks = tuple(entry.pop("tasks"))
    return KnownClass(name=name, tasks=tasks, layers=layers, optional_layers=optional - layers, **sets, **entry)


@cache
def type_with(class_name: str) -> str | None:
    """Return the model type that has a class, None where none or several have."""
    found = [name for name, entry in document(_TABLE)["models"].items() if class_name in entry["classes"]]
    return found[0] if len(found) == 1 else None

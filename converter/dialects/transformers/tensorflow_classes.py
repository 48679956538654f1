"""The TensorFlow classes of transformers (4.57.6): their layers, and which variables are in each, by the tables.

A class that is made of two others has a layer for each, or one around both, with what is in the layers of its class.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from converter.dialects.tables import ModelClass, TensorFlowTable, document, naming_entry
from converter.dialects.tables.rows import Row, key_of
from converter.dialects.transformers import composites
from converter.dialects.transformers.extents import sizes
from converter.errors import UsageError
from converter.model.checkpoint import ADDS_MODEL_TYPE, NO_MODEL_TYPE, Config, class_named

TOP_LEVEL = "top_level_model_weights"
"""The group of variables that no layer holds: a file has it beside its layers, and does not list it."""

MAIN_LAYER = "MainLayer"
"""The end of the name of the layer that all classes of a type have inside; Keras models take it alone, too."""

_TABLE = "tensorflow_classes"
_CLASSES_SHOWN = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """A layer of a class: what it is called, whether it is there without weights, and the paths of its variables.

    A name that ends with ``#`` is numbered by Keras. The first `depth` components of a path say which layer
    inside it that is.
    """

    name: str
    is_constant: bool
    paths: tuple[str, ...]
    depth: int = 1

    def holds(self, template: str) -> bool:
        """Whether the variables of a row are in this layer."""
        return any(template == path or template.startswith(f"{path}/") for path in self.paths)

    def place(self, template: str) -> int:
        """Return where among the variables of the layer those are that start as a template does."""
        starts = [path.split("/")[: self.depth] for path in self.paths]
        return starts.index(template.split("/")[: self.depth])


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    """What `tensorflow_classes.json` has of a class; `TensorFlowClass` says what its fields are.

    `made`     [variable, what is in it, keys of the config for its shape] of variables that PyTorch may not have
    `chosen`   when second names of variables are the right ones: key of the config, value, what it is when the config
               is silent; nothing where they never are
    """

    model_type: str
    layers: tuple[Layer, ...]
    copies: Mapping[str, str]
    made: tuple[tuple[str, ...], ...]
    chosen: tuple[Any, ...]
    numbers: Mapping[str, Mapping[str, int]]

    @classmethod
    def of(
        cls, *, layers: Sequence[Sequence[Any]], made: Sequence[Sequence[str]], chosen: Sequence[Any], **rest: Any
    ) -> _Entry:
        return cls(
            layers=tuple(
                Layer(name=name, is_constant=is_constant, paths=tuple(paths)) for name, is_constant, *paths in layers
            ),
            made=tuple(map(tuple, made)),
            chosen=tuple(chosen),
            **rest,
        )

    @property
    def paths(self) -> tuple[str, ...]:
        """The paths of the variables in all layers."""
        return tuple(dict.fromkeys(path for layer in self.layers for path in layer.paths))

    def is_second(self, config: Mapping[str, Any]) -> bool:
        """Whether a config is one under which second names of variables are the right ones."""
        if not self.chosen:
            return False
        key, value, default = self.chosen
        return bool(config.get(key, default) == value)


@cache
def _entries() -> Mapping[str, _Entry]:
    """Return what the table has, by TensorFlow class. Raises ValueError for a slip in it."""
    found = {}
    for name, entry in document(_TABLE)["models"].items():
        with naming_entry(_TABLE, name):
            found[name] = _Entry.of(**entry)
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorFlowClass:
    """What the tables know of one class.

    `torch`    the class of PyTorch that it is made from
    `layers`   in the order of a file
    `copies`   PyTorch's name of a variable -> the tensor that has its values when PyTorch stores no own
    `own_variables`   [variable, what is in it, keys of the config for its shape] of variables that PyTorch may not
               have, each with that config
    `second`   paths of the variables whose second names are the right ones, "" being all
    `numbers`  layer -> product of keys of the config -> factor; the sum is its number
    """

    name: str
    table: TensorFlowTable
    torch: ModelClass
    layers: tuple[Layer, ...]
    copies: Mapping[str, str]
    own_variables: tuple[tuple[tuple[str, ...], Mapping[str, Any]], ...]
    second: tuple[str, ...]
    numbers: Mapping[str, Mapping[str, int]]

    def holds(self, template: str) -> bool:
        """Whether the class has the variables of a row."""
        return any(layer.holds(template) for layer in self.layers)

    def variable(self, theirs: str) -> str:
        """Return the whole name of a variable."""
        for name in self.table.outside:
            if key_of(name.partition("/")[2] or name) == key_of(theirs):
                first, slash, _ = name.partition("/")
                return f"{first}/{theirs}:0" if slash else f"{theirs}:0"
        return f"{self.torch.layer}/{theirs}:0"

    def template(self, variable: str, rank: int) -> str:
        """Return the row of a variable, by its whole name. Raises KeyError when no row has it."""
        match = self.table.to_canonical(self.path(variable), rank)
        if match is None:
            raise KeyError(variable)
        return match.row.theirs.text

    def path(self, variable: str) -> str:
        """Return the name of a variable as rows have it, without the model's own."""
        name = variable.removesuffix(":0")
        if name.startswith(f"{self.torch.layer}/"):
            return name.removeprefix(f"{self.torch.layer}/")
        return name.partition("/")[2] or name

    def rows(self) -> Iterator[Row]:
        """Yield the rows of the class's variables; of two for one tensor, the one to write comes first."""
        aliases = self.table.aliases.all
        first = [row for row in aliases if any(row.theirs.text.startswith(path) for path in self.second)]
        for row in (*first, *self.table.rows.all, *(row for row in aliases if row not in first)):
            if self.holds(row.theirs.text):
                yield row

    def layer_name(self, layer: Layer, config: Mapping[str, Any]) -> str:
        """Return what Keras calls a layer, in a process that has made no other model. Raises UsageError."""
        if not layer.name.endswith("#"):
            return layer.name
        kind = layer.name[:-1]
        number = sum(factor * math.prod(sizes(config, term)) for term, factor in self.numbers[kind].items())
        return f"{kind}_{number}" if number else kind


def knows(config: Config | None) -> bool:
    """Whether a config is of a class that the tables have a TensorFlow class for."""
    named = None if config is None else named_class(config.values)
    if config is None or named is None:
        return False
    return f"TF{named}" in _known(config.values, composites.table_of(config.values))


def class_of_layer(class_name: str) -> str:
    """Return the class of TensorFlow that a layer is of, or whose main layer it is, without a package before it."""
    name = class_name.rpartition(">")[2]
    return name.removesuffix(MAIN_LAYER) + "Model" if name.endswith(MAIN_LAYER) else name


def named_class(config: Mapping[str, Any]) -> str | None:
    """Return the class of PyTorch that a config names, None when it names none."""
    named = class_named(config)
    return None if named is None else named.removeprefix("TF")


def class_of(config: Mapping[str, Any], architecture: str | None) -> TensorFlowClass:
    """Return the TensorFlow class of a class of PyTorch. Raises UsageError when the tables have none."""
    model_type = config.get("model_type")
    table = composites.table_of(config)
    own = _known(config, table)
    if model_type is None and table is None:
        raise UsageError(NO_MODEL_TYPE, hint=ADDS_MODEL_TYPE)
    if table is None or not own:
        raise UsageError(
            f"transformers has no TensorFlow class that is known here for model type {model_type!r}",
            hint="--flavor safetensors or bin; --config FILE if this is not the model's config",
        )
    name = f"TF{architecture}"
    if architecture is None or name not in own:
        problem = "config.json names no class" if architecture is None else f"no TensorFlow class {name} is known"
        shown = ", ".join(each[2:] for each in own[:_CLASSES_SHOWN])
        raise UsageError(problem, hint=f"--config with one of these as its architectures: {shown}")
    torch = table.classes[architecture]
    parts = composites.parts_of(config) if composites.is_composite(model_type) else None
    if parts is not None:
        return _composite(parts, name, table, torch)
    entry = _entries()[name]
    return TensorFlowClass(
        name=name,
        table=table,
        torch=torch,
        layers=entry.layers,
        copies=entry.copies,
        own_variables=tuple((each, config) for each in entry.made),
        second=("",) if entry.is_second(config) else (),
        numbers=entry.numbers,
    )


def _known(config: Mapping[str, Any], table: TensorFlowTable | None) -> list[str]:
    """Return the TensorFlow classes of the type of a config."""
    known = _entries()
    if table is None:
        return []
    if not composites.is_composite(config.get("model_type")):
        return sorted(name for name, entry in known.items() if entry.model_type == table.model_type)
    parts = composites.parts_of(config)
    if parts is None or not composites.is_built(config) or not all(f"TF{part.model}" in known for part in parts):
        return []
    return sorted(f"TF{name}" for name in table.classes)


def _composite(
    parts: Sequence[composites.CompositePart], name: str, table: TensorFlowTable, torch: ModelClass
) -> TensorFlowClass:
    entries = [(part, _entries()[f"TF{part.model}"]) for part in parts]
    held = {part.name: tuple(map(part.theirs, entry.paths)) for part, entry in entries}
    inside = torch.layer.partition("/")[2]
    if inside:
        paths = tuple(path for paths in held.values() for path in paths)
        layers = [Layer(name=inside, is_constant=True, paths=paths, depth=2)]
    else:
        layers = [Layer(name=part, is_constant=True, paths=paths, depth=2) for part, paths in held.items()]
    own = dict.fromkeys(row.theirs.text.partition("/") for row in table.rows.all)
    layers += [
        Layer(name=first if slash else TOP_LEVEL, is_constant=False, paths=(first,))
        for first, slash in dict.fromkeys((first, slash) for first, slash, _ in own)
        if not any(layer.holds(first) or first in held for layer in layers)
    ]
    return TensorFlowClass(
        name=name,
        table=table,
        torch=torch,
        layers=tuple(layers),
        copies={copy: owner for part, entry in entries for copy, owner in part.both_named(entry.copies).items()},
        own_variables=tuple(
            ((part.theirs(theirs), *rest), part.config) for part, entry in entries for theirs, *rest in entry.made
        ),
        second=tuple(f"{part.name}/" for part, entry in entries if entry.is_second(part.config)),
        numbers={},
    )

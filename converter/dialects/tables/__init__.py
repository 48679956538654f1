"""The generated tables: per model type of transformers, the rows between one framework's names and PyTorch's.

A table file (`converter/dialects/tables/<framework>.json`, see the README there) is ``{"versions": {...}, "models":
{model type: {"prefix": ..., "rows": [[theirs, canonical, layout], ...], ...}}}``. A file is read when the first of its
models is asked for; a model's entry is checked and built when that model is, with what `exceptions.json`, which people
write, says of it besides. A key that is not known here raises ValueError, so that a slip in a table is never silence.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Any

from converter.dialects.tables.rows import Match, Row, Rows

TENSORFLOW, FLAX, TENSORFLOW_1 = "tensorflow", "flax", "tf1"

_NUMBER = re.compile(r"_\d+(?=/|$)")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelTable:
    """What a table knows of one model type.

    `prefix`    the base model's attribute in a class with a head, `base_model_prefix`; canonical names of rows have it
    `rows`      names and layouts, both ways
    `aliases`   names that are only read: those of old releases, and of tensors that several names are stored under
    """

    model_type: str
    prefix: str
    rows: Rows
    aliases: Rows

    def to_canonical(self, name: str, rank: int | None = None) -> Match | None:
        """Return what PyTorch calls their `name`, None when no row has it; `rank` where names alone do not tell."""
        return self.rows.to_canonical(name, rank) or self.aliases.to_canonical(name, rank)

    def from_canonical(self, name: str, rank: int | None = None) -> Match | None:
        """Return what they call PyTorch's `name`, None when no row has it; `rank` is that of PyTorch's tensor."""
        return self.rows.from_canonical(name, rank)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelClass:
    """A class of a model type.

    `is_base`   whether its own names lack the base model's prefix
    `layer`     what Keras calls the TensorFlow class
    `lacks`     paths of templates of which it has none; `optional` those that a config may leave out
    `ties`      tied name -> the name that is stored, when the config ties embeddings; `ties_when_untied` when it does
                not
    `is_decided`  whether `ties_when_untied` are all, as the configs of its parts say, and its own says nothing
    """

    name: str
    is_base: bool
    layer: str
    lacks: tuple[str, ...]
    optional: tuple[str, ...]
    ties: Mapping[str, str]
    ties_when_untied: Mapping[str, str]
    is_decided: bool = False

    def has(self, template: str) -> bool:
        """Whether the class has tensors of a template."""
        return not _is_below(template, self.lacks)

    def needs(self, template: str) -> bool:
        """Whether every config of the class has tensors of a template."""
        return self.has(template) and not _is_below(template, self.optional)

    def ties_with(self, config: Mapping[str, Any], *, default: bool) -> Mapping[str, str]:
        """Return the ties under a config; `default` is what its class does when it does not say."""
        is_tied = config.get("tie_word_embeddings", default) and not self.is_decided
        return self.ties if is_tied else self.ties_when_untied

    def is_called(self, start: str) -> bool:
        """Whether `start` is what Keras puts before the names of its variables, numbered or not."""
        own = _NUMBER.sub("", start)
        return own == self.layer or own.endswith(f"/{self.layer}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """Tensors are there only when the config says `value` under `key`; dots in a key lead into the config of a part."""

    key: str
    value: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorFlowTable(ModelTable):
    """What is known of the TensorFlow classes of a model type.

    `classes`          the classes by name
    `tied_by_default`  whether word embeddings are tied where the config says nothing
    `prevails`         tied names that the TensorFlow class uses, where the file has other values for the two
    `outside`          variables whose names never start with the name of their model
    `not_trained`      ends of the names of variables that are no parameters
    `unless`           template -> what the config must say for PyTorch's class to have such tensors
    `used`             templates of `unless` whose tensors TensorFlow uses whatever the config says
    """

    classes: Mapping[str, ModelClass]
    tied_by_default: bool
    outside: tuple[str, ...]
    not_trained: tuple[str, ...] = ()
    prevails: tuple[str, ...] = ()
    unless: Mapping[str, Condition] = field(default_factory=dict)
    used: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Sinusoids:
    """Position tables that Flax computes: how (`converter.dialects.transformers.sinusoids`), and who stores them.

    `names`     what PyTorch calls them
    `classes`   the classes of PyTorch whose files have them
    """

    kind: str
    names: tuple[str, ...]
    classes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ConditionalRows:
    """Rows that go before those of the table, both ways when the config says `value` under `key`."""

    key: str
    value: Any
    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class FlaxTable(ModelTable):
    """What is known of the Flax classes of a model type.

    `classes`     their names, as PyTorch's are
    `constants`   buffers that every model computes, and that old checkpoints of PyTorch have
    `lacks`       class -> tensors that PyTorch's has, does not use, and Flax's has not
    `parts`       part -> the key of its config, of models that are made of others
    `ties`        tied name -> owner that Flax stores twice
    """

    classes: tuple[str, ...]
    constants: tuple[str, ...] = ()
    lacks: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    sinusoids: Sinusoids | None = None
    parts: Mapping[str, str] = field(default_factory=dict)
    ties: Mapping[str, str] = field(default_factory=dict)
    otherwise: ConditionalRows | None = None


@cache
def tensorflow_table(model_type: str) -> TensorFlowTable | None:
    """Return the table of a model type, None when there is none. Raises ValueError when it contradicts itself."""
    with _entry(TENSORFLOW, model_type) as entry:
        if entry is None:
            return None
        classes = {name: ModelClass(name=name, **each) for name, each in entry.pop("classes").items()}
        unless = {name: Condition(key=key, value=value) for name, (key, value) in entry.pop("unless", {}).items()}
        return TensorFlowTable(classes=classes, unless=unless, **entry)


@cache
def flax_table(model_type: str) -> FlaxTable | None:
    """Return the table of a model type, None when there is none. Raises ValueError when it contradicts itself."""
    with _entry(FLAX, model_type) as entry:
        if entry is None:
            return None
        sinusoids, otherwise = entry.pop("sinusoids", None), entry.pop("otherwise", None)
        if otherwise is not None:
            key, value, rows = otherwise
            otherwise = ConditionalRows(key=key, value=value, rows=tuple(map(Row.of, rows)))
        return FlaxTable(sinusoids=None if sinusoids is None else Sinusoids(**sinusoids), otherwise=otherwise, **entry)


@cache
def tensorflow_1_table(model_type: str) -> ModelTable | None:
    """Return the table of a released model, None when there is none. Raises ValueError when it contradicts itself."""
    with _entry(TENSORFLOW_1, model_type) as entry:
        return None if entry is None else ModelTable(**entry)


@cache
def document(framework: str) -> Mapping[str, Any]:
    """Return a whole table file, parsed. Raises ValueError for one without versions and models."""
    file = resources.files(__name__) / f"{framework}.json"
    parsed: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    if not isinstance(parsed.get("versions"), dict) or not isinstance(parsed.get("models"), dict):
        raise ValueError(f"{framework}.json is no table: it needs versions and models")
    return parsed


@cache
def exceptions(kind: str) -> Mapping[str, Any]:
    """Return model type -> what no generator finds out, of one kind: see the README of the tables."""
    file = resources.files(__name__) / "exceptions.json"
    found: Mapping[str, Any] = json.loads(file.read_text(encoding="utf-8"))[kind]
    return found


@contextmanager
def naming_entry(table: str, key: str) -> Iterator[None]:
    """Raise ValueError, which says of which entry it is, for a slip in one.

    A key that is unknown or missing is one of the function or dataclass that takes the entry.
    """
    try:
        yield
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{table}.json, {key}: {error}") from error


@contextmanager
def _entry(framework: str, model_type: str) -> Iterator[dict[str, Any] | None]:
    """Yield what a table has of a model type, rows built and lists made tuples; None when it has nothing."""
    with naming_entry(framework, model_type):
        entry = document(framework)["models"].get(model_type)
        if entry is not None and framework == TENSORFLOW:
            entry = _with_exceptions(entry, exceptions(TENSORFLOW).get(model_type, {}))
        yield None if entry is None else _parsed(model_type, entry)


def _parsed(model_type: str, entry: Mapping[str, Any]) -> dict[str, Any]:
    rest = {key: _frozen(value) for key, value in entry.items() if key not in ("rows", "aliases")}
    rows = Rows(map(Row.of, entry["rows"]))
    aliases = Rows(map(Row.of, entry.get("aliases", ())), is_two_way=False)
    return {"model_type": model_type, "rows": rows, "aliases": aliases, **rest}


def _with_exceptions(entry: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Return an entry with more rows and aliases, and keys that a generator does not make."""
    rows = {key: [*entry.get(key, ()), *own.get(key, ())] for key in ("rows", "aliases")}
    others = {key: value for key, value in own.items() if key not in rows}
    if twice := sorted(entry.keys() & others.keys()):
        raise ValueError(f"exceptions.json has {', '.join(twice)}, too")
    return {**entry, **others, **rows}


def _frozen(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _frozen(each) for key, each in value.items()}
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


def _is_below(template: str, paths: tuple[str, ...]) -> bool:
    return any(template == path or template.startswith(f"{path}.") for path in paths)

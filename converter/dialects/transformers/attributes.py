"""Names for the variables of transformers' TensorFlow models in `.keras` and `.weights.h5` files.

Those have attributes and positions (``tf_bert_model/layers/tf_bert_main_layer/encoder/layer/tf_bert_layer_1/...``), no
names; `tables/keras_attributes.json` has what each is called, per model type and class. What comes before the model's
own attributes, the models and layers around it, is told by which beginning explains most.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from converter.dialects.identity.transformers_4 import base_called
from converter.dialects.keras.architecture import snake_case
from converter.dialects.tables import document, exceptions, naming_entry
from converter.dialects.transformers.tensorflow_classes import MAIN_LAYER, class_of_layer

_TABLE = "keras_attributes"
_PLACEHOLDER = re.compile(r"_\{([a-z]+)\}")
_INDEX = re.compile(r"\{([a-z]+)(?:\+([0-9]+))?\}")
_NUMBER = re.compile(r"_\d+(?=/|$)")
_TELLING = re.compile(r"(?:^|/)tf[^/]*/")
"""A class of transformers in a place; what has none, such as ``layers/dense/vars/0``, may be of any model."""

_VARIABLES = "/vars/"
_OLD_LAYERS, _LAYERS = "_layer_checkpoint_dependencies", "layers"
_OF_MAIN_LAYER = re.compile(rf"(?<![^/]){_LAYERS}/(tf\w+_main_layer)(?:_\d+)?(?=/)")


@dataclass(frozen=True, slots=True, kw_only=True)
class AttributeRow:
    """A place in a model and the name of the variable there.

    The first item of a list has no number in a place; ``{n+1}`` in a name is one more than the number in the place.
    """

    place: re.Pattern[str]
    name: str
    text: str

    @classmethod
    def of(cls, place: str, name: str) -> AttributeRow:
        """Return the row that a table file has as [place, name]."""
        parts = _PLACEHOLDER.split(place)
        pattern = "".join(
            f"(?:_(?P<{part}>[0-9]+))?" if index % 2 else re.escape(part) for index, part in enumerate(parts)
        )
        return cls(place=re.compile(pattern), name=name, text=place)

    def name_at(self, place: str) -> str | None:
        """Return the name of the variable at `place`, None when it is not of this row."""
        match = self.place.fullmatch(place)
        if match is None:
            return None
        return _INDEX.sub(lambda index: str(int(match[index[1]] or 0) + int(index[2] or 0)), self.name)

    def place_of(self, name: str) -> str | None:
        """Return the place of the variable with this name, None when it is not of this row."""
        numbers = numbers_in(self.name, name)
        if numbers is None or set(_PLACEHOLDER.findall(self.text)) - set(numbers):
            return None
        return _PLACEHOLDER.sub(lambda each: f"_{numbers[each[1]]}" if numbers[each[1]] else "", self.text)


def numbers_in(template: str, name: str) -> dict[str, int] | None:
    """Return what the indices of a template are in a name, None when it is none of that: ``{n+1}`` is one more."""
    parts = _INDEX.split(template)
    indices = list(zip(parts[1::3], parts[2::3], strict=True))
    match = re.fullmatch("([0-9]+)".join(map(re.escape, parts[::3])), name)
    if match is None:
        return None
    numbers: dict[str, int] = {}
    for (index, more), digits in zip(indices, match.groups(), strict=True):
        number = int(digits) - int(more or 0)
        if number < 0 or numbers.setdefault(index, number) != number:
            return None
    return numbers


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Where a class of models has its variables: rows by place, less the numbers in it.

    `optional`  part of a name -> the setting without which a layer has no such variable, and counts the others on
    """

    class_name: str
    rows: Mapping[str, tuple[AttributeRow, ...]]
    optional: Mapping[str, str]

    def name_at(self, place: str) -> str | None:
        """Return the name of the variable at a place in the model, None when there is none."""
        for row in self.rows.get(_NUMBER.sub("", place), ()):
            name = row.name_at(place)
            if name is not None:
                return name
        return None

    def place_of(self, name: str) -> str | None:
        """Return the place in the model of the variable with a name, None when no row has it."""
        for rows in self.rows.values():
            for row in rows:
                place = row.place_of(name)
                if place is not None:
                    return place
        return None

    def names_at(self, places: Sequence[str], config: Mapping[str, object]) -> dict[str, str | None]:
        """Return place -> name for all that is in a model of that config. A setting that it does not state is off."""
        found: dict[str, str | None] = {}
        for layer, numbers in _numbers(places).items():
            whole = itertools.takewhile(bool, (self.name_at(_at(layer, number)) for number in itertools.count()))
            names = list(whole) if self.optional else []
            present = self._present(names, len(numbers), config)
            for number in numbers:
                if number < len(present) < len(names):
                    found[_at(layer, number)] = present[number]
        return {place: found[place] if place in found else self.name_at(place) for place in places}

    def _present(self, names: Sequence[str | None], count: int, config: Mapping[str, object]) -> list[str | None]:
        """Return which of a layer's variables `count` of them are: all without those that settings leave out, first."""
        optional = {
            name: bool(config.get(setting))
            for name in names
            for part, setting in self.optional.items()
            if part in str(name).split("/")
        }
        in_order = sorted(optional, key=lambda name: optional[name])
        left_out = in_order[: max(0, len(names) - count)]
        return [name for name in names if name not in left_out]


def _numbers(places: Iterable[str]) -> dict[str, list[int]]:
    """Return the place of a layer -> the numbers of its variables."""
    found: dict[str, list[int]] = defaultdict(list)
    for place in places:
        layer, _, number = place.rpartition(_VARIABLES)
        if number.isdigit():
            found[layer].append(int(number))
    return found


def _at(layer: str, number: int) -> str:
    return f"{layer}{_VARIABLES}{number}"


def without_gaps(places: Mapping[str, str]) -> dict[str, str]:
    """Return name -> place, of places as `place_of` says them, where layers have all variables, as a model has them."""
    numbers = {layer: sorted(those) for layer, those in _numbers(places.values()).items()}
    found = {}
    for name, place in places.items():
        layer, _, number = place.rpartition(_VARIABLES)
        found[name] = _at(layer, numbers[layer].index(int(number))) if layer in numbers else place
    return found


def place_of(class_name: str, name: str) -> str | None:
    """Return where an archive has a variable, below the place of its model; None where no row says it.

    `name` is that of the variable, with or without the model's own before it. The layer is taken to have all variables
    that it may have: see `without_gaps`.
    """
    of_class = class_of_layer(class_name)
    layout = next((each for each in layouts() if each.class_name == of_class), None)
    if layout is None:
        return None
    place = layout.place_of(name.partition("/")[2]) or layout.place_of(name)
    if place is None or of_class == class_name:
        return place
    return place.removeprefix(f"{_LAYERS}/").partition("/")[2]  # below the model's one layer


@cache
def layouts() -> tuple[Layout, ...]:
    """Return what the table has, a layout for each class."""
    found: dict[str, dict[str, tuple[AttributeRow, ...]]] = defaultdict(dict)
    optional: dict[str, Mapping[str, str]] = {}
    for model_type, groups in document(_TABLE)["models"].items():
        for group in groups:
            with naming_entry(_TABLE, model_type):
                for class_name, key, row in _rows_of(**group):
                    optional[class_name] = exceptions("optional").get(model_type, {})
                    found[class_name][key] = (*found[class_name].get(key, ()), row)
    return tuple(
        Layout(class_name=class_name, rows=rows, optional=optional[class_name]) for class_name, rows in found.items()
    )


def _rows_of(*, classes: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[tuple[str, str, AttributeRow]]:
    """Yield class, place less its numbers, and row of what the table has of classes whose variables are alike."""
    for place, name in rows:
        key, row = _NUMBER.sub("", _PLACEHOLDER.sub("", place)), AttributeRow.of(place, name)
        yield from ((class_name, key, row) for class_name in classes)


@cache
def _by_key() -> Mapping[str, tuple[Layout, ...]]:
    found: dict[str, list[Layout]] = defaultdict(list)
    for layout in layouts():
        for key in layout.rows:
            found[key].append(layout)
    return {key: tuple(those) for key, those in found.items()}


def names_from_places(
    places: Iterable[str], *, is_around: bool = False, config: Mapping[str, object] | None = None
) -> dict[str, str]:
    """Return place -> name for the variables of models of transformers, whatever is around these.

    Names start with that of the model's place, but for those of variables outside all scopes. What a model has at a
    place that no row has, or where classes that fit as well disagree, is called after the place. `is_around`: the root
    is no class of transformers, so that a Dense beside a main layer is not that of a class that has just these two.
    `config` is that of the model of transformers, where it is known.
    """
    left: dict[str, str] = {}
    for place in places:
        now = place.replace(_OLD_LAYERS, _LAYERS)
        own = _as_in_its_model(now)
        left[now if own in left else own] = place
    if is_around:
        left = {now: place for now, place in left.items() if _TELLING.search(place)}
    if not any(map(_TELLING.search, left)):
        return {}
    named: dict[str, str] = {}
    while left:
        start, chosen = _located(left)
        if not chosen:
            break
        before = f"{start}/" if start else ""
        inside = {place: place.removeprefix(before) for place in left if place.startswith(before)}
        for place, name in _names_inside(inside, start, chosen, config or {}).items():
            named[left.pop(place)] = name
    return named


def _names_inside(
    inside: Mapping[str, str], start: str, chosen: Sequence[Layout], config: Mapping[str, object]
) -> dict[str, str]:
    """Return place -> name of what is in one model; `inside` has the places without what is around it, its `start`."""
    own = start.rpartition("/")[2] or _called_as([snake_case(layout.class_name) for layout in chosen])
    said = [layout.names_at(list(inside.values()), config) for layout in chosen]
    found: dict[str, str] = {}
    for place, rest in inside.items():
        names = {each[rest] for each in said}
        if names != {None} or start or _TELLING.search(place):
            found[place] = _below(own, names.pop() if len(names) == 1 else None, rest)
    return found


def _called_as(layers: Sequence[str]) -> str:
    """Return what Keras calls one class; of several what it calls their base, so that none is said to be the one."""
    return layers[0] if len(layers) == 1 else base_called(layers[0]) or layers[0]


def _as_in_its_model(place: str) -> str:
    """Return the place of a variable of a main layer as the model of that layer alone has it."""
    found = _OF_MAIN_LAYER.search(place)
    attribute = None if found is None else _main_layers().get(found[1])
    return place if found is None or attribute is None else f"{place[: found.start()]}{attribute}{place[found.end() :]}"


@cache
def _main_layers() -> Mapping[str, str]:
    """Return main layer, as an archive of a model around it has it -> the attribute that it is in its own model."""
    found: dict[str, str] = {}
    for layout in layouts():
        starts = {row.text.partition("/")[0] for rows in layout.rows.values() for row in rows}
        if layout.class_name.endswith("Model") and len(starts) == 1 and starts != {_LAYERS}:
            found[snake_case(layout.class_name.removesuffix("Model") + MAIN_LAYER)] = starts.pop()
    return found


def _below(own: str, name: str | None, rest: str) -> str:
    """Return the name of a variable below that of its model, but for one that is outside all scopes."""
    return name if name and "/" not in name else f"{own}/{name or rest}"


def _located(places: Iterable[str]) -> tuple[str, tuple[Layout, ...]]:
    """Return the place of the model that explains most, and the classes that do it equally well."""
    counts: Counter[tuple[str, str]] = Counter()
    known: dict[str, Layout] = {}
    named: set[tuple[str, str]] = set()
    for place in places:
        for start, layout in _starts(place):
            counts[start, layout.class_name] += 1
            known[layout.class_name] = layout
            if _TELLING.search(place, len(start)):
                named.add((start, layout.class_name))
    counts = Counter({each: count for each, count in counts.items() if each in named})
    if not counts:
        return "", ()
    start = max(counts, key=lambda each: (counts[each], -len(each[0])))[0]
    own = _NUMBER.sub("", start.rpartition("/")[2])
    here = {name: (count, -len(known[name].rows)) for (where, name), count in counts.items() if where == start}
    called = [name for name in here if snake_case(name) == own]
    best = max(here.values())
    fitting = called or [name for name, score in here.items() if score == best]
    return start, tuple(known[name] for name in sorted(fitting))


def _starts(place: str) -> Iterator[tuple[str, Layout]]:
    """Yield each beginning of a place after which a class has a variable, and the class."""
    parts = place.split("/")
    for length in range(len(parts) - 1):
        rest = "/".join(parts[length:])
        for layout in _by_key().get(_NUMBER.sub("", rest), ()):
            if layout.name_at(rest) is not None:
                yield "/".join(parts[:length]), layout

"""What the shapes of tensors tell of the settings of their class: the formulas of `shapes.py`, read backwards."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from converter.dialects.identity import disentangled
from converter.dialects.identity.formulas import UnknownError, names_of, value_of
from converter.dialects.identity.shapes import (
    INDEX,
    UNKNOWN,
    Settings,
    Tree,
    dims_of,
    is_known,
    known_class,
    nested,
    parsed_key,
)
from converter.model.checkpoint import type_named

_LABELS = "num_labels"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sighting:
    """What is seen of a formula in a checkpoint: its value there, and where among the items of lists.

    `value` is an extent, a number of items, or whether something that has a condition is there; `at` is the name of
    what shows it.
    """

    formula: str
    value: int | bool
    at: str
    index: tuple[int, ...] = ()

    @property
    def settings(self) -> frozenset[str]:
        """What it depends on."""
        return frozenset(name for name in names_of(self.formula) if not INDEX.fullmatch(name))

    @property
    def is_numbered(self) -> bool:
        """Whether the number of an item is in it."""
        return any(map(INDEX.fullmatch, names_of(self.formula)))

    def computed(self, setting: Callable[[str], Any]) -> Any:
        """Return what the formula is with some settings. Raises UnknownError."""
        return value_of(
            self.formula, lambda name: self.index[int(name[1:])] if INDEX.fullmatch(name) else setting(name)
        )

    def is_right(self, setting: Callable[[str], Any]) -> bool | None:
        """Whether the formula has the value that is seen, None where that is not known."""
        try:
            found = self.computed(setting)
        except UnknownError:
            return None
        if isinstance(self.value, bool):
            return bool(found) is self.value
        return found == self.value if isinstance(found, int) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What a checkpoint tells of the settings that its config does not say.

    `values`   setting -> what it is
    `differs`  whether its class has any size, or number of layers, otherwise by default
    `wrong`    tensors that the class has otherwise with these values -> settings that nothing says and that decide it
    """

    values: Mapping[str, Any]
    differs: bool
    wrong: Mapping[str, tuple[str, ...]]


def settings_told(config: Mapping[str, Any], architecture: str, held: Mapping[str, Sequence[int]]) -> Told:
    """Return what the shapes of a class's tensors, `held`, tell of the settings that a config leaves out.

    Raises UncheckedError for a class that no table knows.
    """
    entry, settings = known_class(config, architecture, is_seen=False)
    model_type = type_named(config)
    more = disentangled.formulas(model_type, config)
    seen = _told_apart(
        [*_sightings(entry.classes[architecture].tree, entry.parts, nested(held), held), *_more(held, more)]
    )
    solver = _Solver(settings, disentangled.told_by_names(model_type, held))
    solver.solve(seen)
    values = {
        name: value
        for name, value in ((name, solver.found[name]) for name in solver.told)
        if not isinstance(value, bool) or value is not settings.default(name)
    }
    sizes = [name for name, value in values.items() if not isinstance(value, bool) and name != _LABELS]
    return Told(
        values=values,
        differs=any(values[name] != settings.default(name) for name in sizes),
        wrong=_wrong(seen, solver) if is_known({**config, **values}, architecture) else {},
    )


def _told_apart(seen: Iterable[Sighting]) -> list[Sighting]:
    """Return the first of each that says the same: layers are alike, and there may be many."""
    found: dict[tuple[Any, ...], Sighting] = {}
    for each in seen:
        numbers = each.index if each.is_numbered else ()
        found.setdefault((each.formula, type(each.value), each.value, numbers), each)
    return list(found.values())


def _wrong(seen: Iterable[Sighting], solver: _Solver) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for sighting in seen:
        names = tuple(sorted(name for name in sighting.settings if solver.is_open(name)))
        if names and not any(map(solver.is_of_absent_part, names)) and sighting.is_right(solver) is False:
            found.setdefault(sighting.at, names)
    return found


def _sightings(
    tree: Any, parts: Sequence[Tree], held: Mapping[str, Any], shapes: Mapping[str, Sequence[int]]
) -> Iterator[Sighting]:
    def below(tree: Any, held: Mapping[str, Any], path: str, index: tuple[int, ...]) -> Iterator[Sighting]:
        for key, inside in (parts[tree] if isinstance(tree, int) else tree).items():
            name, items, when, _ = parsed_key(key)
            numbers = sorted(int(each) for each in held if each.isdecimal())
            if items is None:
                places = [(name, index)]
                if when:
                    yield Sighting(formula=when, value=name in held, at=path + name, index=index)
            else:
                places = [(str(number), (*index, number)) for number in numbers]
                start, step, count = items.split(":", 2)
                if numbers and count != UNKNOWN:
                    value = (numbers[-1] - int(start)) // int(step) + 1
                    yield Sighting(formula=count, value=value, at=f"{path}{numbers[-1]}", index=index)
            for part, numbers_in in places:
                if isinstance(inside, str):
                    yield from _of_shape(inside, shapes.get(path + part), path + part, numbers_in)
                elif part in held:
                    yield from below(inside, held[part], f"{path}{part}.", numbers_in)

    return below(tree, held, "", ())


def _of_shape(formulas: str, shape: Sequence[int] | None, name: str, index: tuple[int, ...] = ()) -> Iterator[Sighting]:
    if shape is not None and len(shape) == len(dims_of(formulas)):
        for formula, size in zip(dims_of(formulas), shape, strict=True):
            if formula != UNKNOWN:
                yield Sighting(formula=formula, value=size, at=name, index=index)


def _more(held: Mapping[str, Sequence[int]], more: Mapping[str, str]) -> Iterator[Sighting]:
    for name, shape in held.items():
        for ending, formulas in more.items():
            if name == ending or name.endswith(f".{ending}"):
                yield from _of_shape(formulas, shape, name)


class _Solver:
    """Settings as a config says them, as is found, and else as the class has them by default.

    `fitting` are those whose default is what is seen, where that is not seen by itself.
    """

    def __init__(self, settings: Settings, told: Mapping[str, Any]) -> None:
        self._settings = settings
        self.fitting: set[str] = set()
        self.found: dict[str, Any] = {}
        self.found.update({name: value for name, value in told.items() if self.is_open(name)})

    def __call__(self, name: str) -> Any:
        """Return a setting. Raises UnknownError where nothing tells it."""
        return self.found[name] if name in self.found else self._settings(name)

    def is_open(self, name: str) -> bool:
        """Whether neither the config nor anything that was seen says a setting."""
        return name not in self.found and self._settings.stated(name) is None

    def is_of_absent_part(self, name: str) -> bool:
        """Whether a setting is of a config inside the config, which says nothing of that."""
        part = name.rpartition(".")[0]
        return bool(part) and self._settings.stated(part) is None

    @property
    def told(self) -> list[str]:
        """What was found, but for what the class computes of that."""
        return [name for name in self.found if name not in self.fitting and not self._is_computed(name)]

    def _is_computed(self, name: str) -> bool:
        """Whether a class computes what was found of what else is known."""
        formula = self._settings.derived(name)
        try:
            return formula is not None and bool(value_of(formula, self) == self.found[name])
        except UnknownError:
            return False

    def solve(self, seen: Sequence[Sighting]) -> None:
        """Find what there is to find: first what stands alone, then what is left alone by that."""
        alone = [each for each in seen if _is_name(each.formula)]
        self._take((next(iter(each.settings)), self._plain(each)) for each in alone)
        self._take_lists(seen)
        others = [each for each in seen if each not in alone]
        while True:
            before = len(self.found)
            for sighting in others:
                open_ = [name for name in sighting.settings if self.is_open(name)]
                if len(open_) == 1:
                    self._close(open_[0], sighting)
            if len(self.found) == before:
                return

    def _close(self, name: str, sighting: Sighting) -> None:
        if sighting.is_right(self):
            self.fitting.add(name)
            self.found[name] = self(name)
        else:
            self._take([(name, self._solved(sighting, name))])

    def _take(self, pairs: Iterable[tuple[str, Any]]) -> None:
        values: dict[str, list[Any]] = {}
        for name, value in pairs:
            if value is not None and self.is_open(name) and "." not in name:
                values.setdefault(name, []).append(value)
        for name, those in values.items():
            if all(each == those[0] for each in those):
                self.found[name] = those[0]

    def _plain(self, sighting: Sighting) -> Any:
        """Return what a formula that is one setting says of it."""
        default = self._settings.default(sighting.formula)
        if not isinstance(sighting.value, bool):
            return sighting.value
        if isinstance(default, bool) or default is None:
            return sighting.value if isinstance(default, bool) else None
        return None if sighting.value or not isinstance(default, int) else 0

    def _take_lists(self, seen: Sequence[Sighting]) -> None:
        """Take the items of lists, where as many are seen as the class has by default."""
        items: dict[str, dict[int, set[int]]] = {}
        for sighting in seen:
            match ast.parse(sighting.formula, mode="eval").body:
                case ast.Subscript(value=ast.Name(id=name), slice=ast.Name(id=index)) if INDEX.fullmatch(index):
                    number = sighting.index[int(index[1:])]
                    items.setdefault(name, {}).setdefault(number, set()).add(sighting.value)
        for name, values in items.items():
            default = self._settings.default(name)
            numbers = range(len(default) if isinstance(default, list) else 0)
            if sorted(values) == list(numbers) and all(len(each) == 1 for each in values.values()):
                self._take([(name, [min(values[number]) for number in numbers])])

    def _solved(self, sighting: Sighting, name: str) -> Any:
        """Return the value of one setting with which a formula has the value that is seen, None for none or several."""
        if isinstance(sighting.value, bool):
            choices: list[Any] = [True, False] if isinstance(self._settings.default(name), bool) else []
        else:
            choices = self._choices(sighting, name)
        right = [each for each in choices if sighting.is_right(partial(self._with, name, each))]
        return right[0] if len(right) == 1 else None

    def _with(self, name: str, value: Any, other: str) -> Any:
        return value if other == name else self(other)

    def _choices(self, sighting: Sighting, name: str) -> list[Any]:
        tree = ast.walk(ast.parse(sighting.formula, mode="eval"))
        numbers = [node.value for node in tree if isinstance(node, ast.Constant) and isinstance(node.value, int)]
        for other in sighting.settings - {name}:
            try:
                value = self(other)
            except UnknownError:
                continue
            numbers += [value] if isinstance(value, int) else []
        seen = int(sighting.value)
        found = {seen, *(seen * each for each in numbers), *(seen - each for each in numbers)}
        found |= {seen + each for each in numbers} | {seen // each for each in numbers if each}
        return sorted(each for each in found if each > 0)


def _is_name(formula: str) -> bool:
    return isinstance(ast.parse(formula, mode="eval").body, ast.Name)

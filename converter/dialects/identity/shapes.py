"""What a class of transformers saves, name by name and in which shape: `tables/shapes.json`, parsed and checked.

`tests/oracle/generate/shapes.py` makes the table. It has a tree of names for each class; ``parts`` are trees that come
back, for which their number stands. A key is ``name``, or ``#start:step:count`` for the items of a list, then
``?condition`` for what some configs leave out, and ``~condition`` for a tensor that is another's. Where nothing stands
behind ``?`` or ``~`` the table does not know when. A tensor is the formulas of its shape, ``_`` for what is not known,
``*`` for a shape of which nothing is. What formulas may say is in `formulas.py`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Any

from converter.dialects.identity.classes import type_with
from converter.dialects.identity.formulas import UnknownError, names_of, value_of
from converter.dialects.tables import naming_entry
from converter.model.checkpoint import type_named

_TABLE = "shapes"
UNKNOWN, _ANY = "_", "*"
_SPARE = 64
"""Of a list that is longer than what is held, so many more items are looked at: a config may say any number."""
INDEX = re.compile(r"i\d")
_NO_SIZES = ("num_labels",)
_NOT_IN_TABLE = ("auto_map", "quantization_config")

Tree = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """A tensor of a class: its shape as far as it is known, the formula of that, and whether a file must have it.

    `is_certain` says that the table knows whether the class has it.
    """

    shape: tuple[int | None, ...] | None
    formula: str
    is_required: bool
    is_certain: bool = True

    @property
    def is_known(self) -> bool:
        """Whether the table knows all of its shape, and whether the class has it."""
        return self.is_certain and self.shape is not None and None not in self.shape

    def takes(self, shape: Sequence[int]) -> bool:
        """Whether a tensor of that shape may be this one."""
        if self.shape is None:
            return True
        return len(shape) == len(self.shape) and all(
            own in (None, other) for own, other in zip(self.shape, shape, strict=True)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Shapes:
    """What a class saves with a config.

    `slots`       name -> tensor
    `base`        what the class, or others of its type, call its base model
    `missing`     patterns of names that its loader does without
    `unexpected`  patterns of names that its loader passes over
    `renamings`   what its loader does to names, in this order
    `settings`    what the config says of a name
    """

    slots: Mapping[str, Slot]
    base: str
    missing: Sequence[str]
    unexpected: Sequence[str]
    renamings: Sequence[Renaming]
    settings: Settings

    def told(self, name: str) -> str:
        """Return the shape that a tensor has, and the settings that it comes from."""
        slot = self.slots[name]
        dims = ", ".join("?" if each is None else str(each) for each in slot.shape or ())
        names = sorted(set[str]().union(*map(names_of, dims_of(slot.formula))))
        values = [f"{name} {self.settings(name)}" for name in names if self.settings.is_told(name)]
        return f"[{dims}]" + (f" ({', '.join(values)})" if values else "")

    def in_memory(self, name: str) -> tuple[str, bool]:
        """Return the name that the loader looks for, instead of one in a file, and whether it makes it of others."""
        is_made = False
        for renaming in self.renamings:
            renamed = renaming(name)
            is_made |= renaming.is_converter and renamed != name
            name = renamed
        return name, is_made

    def read_as(self, names: Iterable[str]) -> dict[str, tuple[str, ...]]:
        """Return name -> the tensors that the loader takes it for, of names that are older than the class's own."""
        own: dict[str, list[str]] = {}
        for slot in self.slots:
            own.setdefault(self.in_memory(slot)[0], []).append(slot)
        found = {}
        for name in names:
            renamed, _ = self.in_memory(name)
            tried = (renamed, renamed.removeprefix(f"{self.base}."), f"{self.base}.{renamed}")
            slots = next((own[each] for each in tried if each in own), None)
            if slots is not None:
                found[name] = tuple(slots)
        return found

    def is_ignored(self, name: str) -> bool:
        """Whether the loader passes over a tensor that the class does not have."""
        return any(re.search(pattern, name) for pattern in self.unexpected)

    def is_spared(self, name: str) -> bool:
        """Whether the loader does without a tensor of the class."""
        return any(re.search(pattern, name) for pattern in self.missing)


class UncheckedError(Exception):
    """No table knows what a class saves: the message says which."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Renaming:
    """A pattern in names of files, and what comes in its place; only below `scope`, where there is one."""

    pattern: re.Pattern[str]
    targets: Sequence[str]
    scope: str | None
    base: str | None
    offset: int | None
    is_group: bool
    is_converter: bool

    def __call__(self, name: str) -> str:
        """Return the name as the loader of transformers renames it."""
        before, inside = self._scoped(name)
        match = None if inside is None else self.pattern.search(inside)
        if inside is None or match is None:
            return name
        group = next(key for key, value in match.groupdict().items() if value is not None)
        target = self.targets[int(group[1:]) if self.is_group else 0]
        first = self.pattern.groupindex[group]

        def taken(number: re.Match[str]) -> str:
            found = match.group(first + int(number[1]))
            return str(int(found) + self.offset) if self.offset else str(found)

        return before + inside.replace(match.group(0), re.sub(r"\\(\d+)", taken, target), 1)

    def _scoped(self, name: str) -> tuple[str, str | None]:
        if self.scope is None:
            return "", name
        scope = f"{self.scope}." if self.scope else ""
        for before in (f"{self.base}.{scope}" if self.base else scope, scope):
            if name.startswith(before):
                return before, name.removeprefix(before)
        return "", None


class Settings:
    """What a config says: by itself, by the names that it may have for it, or by the defaults of its class."""

    def __init__(self, config: Mapping[str, Any], entry: Entry) -> None:
        self._config, self._entry = config, entry
        self._names: dict[str, list[str]] = {}
        for alias, name in entry.names.items():
            self._names.setdefault(name, []).append(alias)
        self._open: set[str] = set()

    def stated(self, name: str) -> Any:
        """Return what the config itself says, None for nothing."""
        before, _, last = name.rpartition(".")
        if last == "num_labels":
            labels = _inside(self._config, f"{before}.id2label" if before else "id2label")
            if isinstance(labels, Mapping):
                return len(labels)
        values = (_inside(self._config, each) for each in (name, *self._names.get(name, ())))
        return next((value for value in values if value is not None), None)

    def default(self, name: str) -> Any:
        """Return what a class has for a setting that its config does not say, None where the table does not know."""
        return self._entry.defaults.get(name)

    def derived(self, name: str) -> str | None:
        """Return the formula by which a class computes a setting that its config does not say."""
        return self._entry.derived.get(name)

    def is_told(self, name: str) -> bool:
        """Whether a name in a formula is a setting whose value is known."""
        try:
            return not isinstance(self(name), Mapping)
        except UnknownError:
            return False

    def __call__(self, name: str) -> Any:
        """Return a setting. Raises UnknownError where nothing tells it."""
        stated = self.stated(name)
        if stated is not None:
            return stated
        if name in self._entry.derived and name not in self._open:
            self._open.add(name)
            try:
                return value_of(self._entry.derived[name], self)
            finally:
                self._open.discard(name)
        part = name.rpartition(".")[0]
        if name in self._entry.inside and isinstance(_inside(self._config, part), Mapping):
            return self._entry.inside[name]
        if name not in self._entry.defaults:
            raise UnknownError(name)
        return self._entry.defaults[name]


def _inside(values: Any, path: str) -> Any:
    for part in path.split("."):
        values = values.get(part) if isinstance(values, Mapping) else None
    return values


def shapes_of(config: Mapping[str, Any], architecture: str, held: Iterable[str]) -> Shapes:
    """Return what a class saves with a config; of lists of unknown length, as much as there is in `held`.

    Raises UncheckedError for a class that the table does not know, or that it was not seen with such a config.
    """
    entry, settings = known_class(config, architecture)
    own = entry.classes[architecture]
    walk = _Walk(entry.parts, settings)
    return Shapes(
        slots=dict(walk.slots(own.tree, nested(held), "", (), is_open=False)),
        base=own.base,
        missing=own.missing,
        unexpected=own.unexpected,
        renamings=(*own.renamings, *_legacy()),
        settings=settings,
    )


def known_class(config: Mapping[str, Any], architecture: str, *, is_seen: bool = True) -> tuple[Entry, Settings]:
    """Return what the table has of the type of a class, and what the config says.

    Raises UncheckedError for a class that the table does not know, or, unless that is not asked for, that it was not
    seen with such a config.
    """
    model_type = type_named(config) or type_with(architecture)
    entry = None if model_type is None else _entry(model_type)
    if entry is None or architecture not in entry.classes:
        raise UncheckedError(str(model_type or architecture) if entry is None else architecture)
    settings = Settings(config, entry)
    if is_seen:
        _check_seen(str(model_type), config, entry.seen, settings)
    return entry, settings


def leaves_sizes_out(config: Mapping[str, Any]) -> bool:
    """Whether a config says nothing of some size that the classes of its type have by default."""
    entry = _entry(str(type_named(config)))
    if entry is None:
        return False
    settings = Settings(config, entry)
    sizes = (name for name, value in entry.defaults.items() if type(value) in (int, list) and name not in _NO_SIZES)
    return any("." not in name and settings.stated(name) is None for name in sizes)


def is_known(config: Mapping[str, Any], architecture: str) -> bool:
    """Whether the table knows a class, and has seen it with such a config."""
    try:
        known_class(config, architecture)
    except UncheckedError:
        return False
    return True


def _check_seen(model_type: str, config: Mapping[str, Any], seen: Tree, settings: Settings) -> None:
    for key in _NOT_IN_TABLE:
        if config.get(key) is not None:
            raise UncheckedError(f"{model_type} with {key}")
    for name, known in seen.items():
        value = settings.stated(name)
        if value is None or _is_seen(value, known):
            continue
        raise UncheckedError(f"{model_type} with {name} {json.dumps(value)[:60]}")


def _is_seen(value: Any, known: Any) -> bool:
    if isinstance(known, Mapping):
        words = {each for each in value if isinstance(each, str)} if isinstance(value, list) else None
        return words is not None and len(value) in known["lengths"] and words <= {*known["words"]}
    return any(type(each) is type(value) and each == value for each in known)


def nested(names: Iterable[str]) -> dict[str, Any]:
    """Return the parts of names as a tree."""
    tree: dict[str, Any] = {}
    for name in names:
        inside = tree
        for part in name.split("."):
            inside = inside.setdefault(part, {})
    return tree


@dataclass(frozen=True, slots=True)
class _Walk:
    """The way through a tree with one config."""

    parts: Sequence[Tree]
    settings: Settings

    def slots(
        self, tree: Any, held: Mapping[str, Any], path: str, index: tuple[int, ...], *, is_open: bool
    ) -> Iterator[tuple[str, Slot]]:
        """Yield the tensors below a path; of what is `is_open`, or may be left out, none is required."""
        for key, inside in (self.parts[tree] if isinstance(tree, int) else tree).items():
            name, items, when, tied = parsed_key(key)
            if items is None:
                places = [(name, index)]
                is_counted = True
            else:
                numbers, is_counted = self._items(items, held, index)
                places = [(str(number), (*index, number)) for number in numbers]
            for part, numbers_in in places:
                is_there = self._holds(when, numbers_in)
                if is_there is False:
                    continue
                is_optional = is_open or is_there is None or not is_counted
                below = f"{path}.{part}" if path else part
                if isinstance(inside, str):
                    is_required = not is_optional and (tied is None or self._holds(tied, numbers_in) is False)
                    yield below, self._slot(inside, numbers_in, is_required=is_required, is_certain=not is_optional)
                else:
                    yield from self.slots(inside, held.get(part, {}), below, numbers_in, is_open=is_optional)

    def _items(self, items: str, held: Mapping[str, Any], index: tuple[int, ...]) -> tuple[Sequence[int], bool]:
        start, step, formula = items.split(":", 2)
        found = sorted(int(key) for key in held if key.isdecimal())
        count = self._value(formula, index)
        if not isinstance(count, int):
            return found, False
        most = (found[-1] if found else 0) + _SPARE
        return range(int(start), int(start) + min(count, most) * int(step), int(step)), True

    def _holds(self, formula: str | None, index: tuple[int, ...]) -> bool | None:
        """Whether a condition is true, None where that is not known."""
        if formula is None:
            return True
        if not formula:
            return None
        try:
            return bool(value_of(formula, lambda name: self._setting(name, index)))
        except UnknownError:
            return None

    def _value(self, formula: str, index: tuple[int, ...]) -> int | None:
        if formula == UNKNOWN:
            return None
        try:
            value = value_of(formula, lambda name: self._setting(name, index))
        except UnknownError:
            return None
        return value if isinstance(value, int) else None

    def _setting(self, name: str, index: tuple[int, ...]) -> Any:
        return index[int(name[1:])] if INDEX.fullmatch(name) else self.settings(name)

    def _slot(self, formulas: str, index: tuple[int, ...], *, is_required: bool, is_certain: bool) -> Slot:
        shape = None if formulas == _ANY else tuple(self._value(each, index) for each in dims_of(formulas))
        return Slot(shape=shape, formula=formulas, is_required=is_required, is_certain=is_certain)


def dims_of(formulas: str) -> list[str]:
    """Return the formula of each extent of a shape."""
    return formulas.split(",") if formulas not in ("", _ANY) else []


@cache
def parsed_key(key: str) -> tuple[str, str | None, str | None, str | None]:
    """Return the name of a child, what says how many there are, when it is there, and when it is another's."""
    rest, is_tied, tied = key.partition("~")
    rest, is_open, when = rest.partition("?")
    items = rest[1:] if rest.startswith("#") else None
    return rest.rstrip("/"), items, when if is_open else None, tied if is_tied else None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Class:
    """What the table has of a class."""

    tree: Any
    base: str = ""
    missing: Sequence[str] = ()
    unexpected: Sequence[str] = ()
    renamings: Sequence[Renaming] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What the table has of a model type.

    `defaults`  setting -> what it is where a file does not say it; `derived` the formulas of others
    `inside`    what it is where a file has the part of the config that it is in
    `names`     other name of a setting -> its name
    `seen`      setting -> the values that classes were built with, where these were not any
    """

    classes: Mapping[str, _Class]
    parts: Sequence[Tree] = ()
    defaults: Tree = field(default_factory=dict)
    derived: Tree = field(default_factory=dict)
    inside: Tree = field(default_factory=dict)
    names: Tree = field(default_factory=dict)
    seen: Tree = field(default_factory=dict)


@cache
def _text() -> str:
    return (resources.files("converter.dialects.tables") / f"{_TABLE}.json").read_text(encoding="utf-8")


def _section(key: str, indent: str) -> Any:
    """Return what stands at a key that begins a line. The table is large, and one model type is a small part of it."""
    start = f"\n{indent}{json.dumps(key)}: "
    _, is_found, rest = _text().partition(start)
    return json.JSONDecoder().raw_decode(rest)[0] if is_found else None


@cache
def _entry(model_type: str) -> Entry | None:
    """Return what the table has of a model type, None when it does not know it. Raises ValueError for a slip in it."""
    entry = _section(model_type, " ")
    if entry is None:
        return None
    with naming_entry(_TABLE, model_type):
        renamings = [tuple(map(_renaming, rows)) for rows in entry.pop("renamings", ())]
        classes = {name: _class(renamings, **own) for name, own in entry.pop("classes").items()}
        return Entry(classes=classes, **{"defaults": {}, "derived": {}, "inside": {}, "names": {}, "seen": {}, **entry})


def _class(every: Sequence[Sequence[Renaming]], *, renamings: int | None = None, **own: Any) -> _Class:
    return _Class(renamings=() if renamings is None else every[renamings], **own)


@cache
def _legacy() -> tuple[Renaming, ...]:
    return tuple(map(_renaming, _section("renamings", "")))


def _renaming(row: Sequence[Any]) -> Renaming:
    kind, pattern, targets, scope, base, offset, is_converter = row
    return Renaming(
        pattern=re.compile(pattern),
        targets=targets,
        scope=scope,
        base=base,
        offset=offset,
        is_group=kind == "GroupWeightRename",
        is_converter=is_converter,
    )

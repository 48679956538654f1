"""Makes converter/dialects/tables/shapes.json: what each class of transformers saves, in which shape, by its config.

    python -m tests.oracle.generate.shapes TABLE DUMP [model type ...]

of what `shapes_dump DUMP` has seen. A formula is right of all configs that were built; where none is, the table says
that it is not known. What a class was not seen with is listed: `ckconv` then says that it did not check.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import keyword
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import transformers

from converter.dialects.identity.formulas import UnknownError, names_of, value_of
from converter.graphs.trace.model_building import abstract_model
from tests.oracle.generate.formulas import Conditions, Numbers, is_size
from tests.oracle.generate.shapes_dump import INERT, flattened, renamings_of

Flat = dict[str, Any]
Instance = tuple[int, str, tuple[int, ...], Any]
"""The number of a config, a class, the numbers in the path so far, and what is there: a map, or a shape."""
Truth = tuple[int, str, tuple[int, ...], Any]

UNKNOWN = "_"
_ABSENT = "<absent>"
_INDEX = re.compile(r"\bi\d\b")
_SWITCH = re.compile(r"(not )?[\w.]+")
_PLAIN = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
_SHARED_CHARACTERS = 60
_NEAR_LIMIT = 40
_ROWS_LIMIT = 120
_SPLITS_SECONDS = 10
_SPLITS_LIMIT = 60
_TOGETHER, _SEEN_TOGETHER = 3, 3
"""With fewer configs that change so many settings at once, a number could be right by chance."""


def _some(places: Sequence[Any], target: Sequence[int]) -> list[int]:
    """Return the numbers of as many rows as formulas are looked for with: they must be right of all others, too."""
    if len(places) <= _ROWS_LIMIT:
        return list(range(len(places)))
    step = len(places) / _ROWS_LIMIT
    first = {value: number for number, value in reversed(list(enumerate(target)))}
    return sorted({*(int(number * step) for number in range(_ROWS_LIMIT)), *list(first.values())[:_ROWS_LIMIT]})


@dataclass
class Leaf:
    """A tensor: the formula of its shape, by class where classes differ."""

    shape: Any
    tied: Any


@dataclass
class Branch:
    """A child of a module: when it is there, how many of it, and what it is; formulas by class where they differ."""

    when: Any
    count: Any
    node: Any
    has: set[str]
    lacks: set[str]


@dataclass
class Fitting:
    """What was seen of a model type, and the formulas found so far."""

    flats: list[Flat]
    given: list[Flat]
    changed: list[frozenset[str]]
    effective: list[str]
    homes: Mapping[str, str]
    keys: frozenset[str] = frozenset()
    varied: Sequence[str] = ()
    opaque: frozenset[str] = frozenset()
    deadline: float = field(default_factory=lambda: time.process_time() + _SPLITS_SECONDS)
    _numbers: dict[Any, Numbers] = field(default_factory=dict)
    _conditions: dict[Any, Conditions] = field(default_factory=dict)
    _known: dict[Any, Any] = field(default_factory=dict)

    def relevant(self, rows: Mapping[tuple[int, tuple[int, ...]], Any]) -> list[str]:
        """Return the settings that by themselves change what a row has."""
        found: dict[str, None] = {}
        for (sample, index), value in rows.items():
            usual = rows.get((0, index), value)
            if len(self.given[sample]) == 1 and value != usual:
                found.update(dict.fromkeys(sorted(self.changed[sample] & self.keys)))
        return list(found)

    def by_class(self, truths: Sequence[Truth], fit: Callable[[Mapping[Any, Any]], Any]) -> Any:
        """Return the formula for all classes, or where they contradict each other one for each."""
        rows: dict[Any, Any] = {}
        for sample, _, index, value in truths:
            if rows.setdefault((sample, index), value) != value:
                return self._each(truths, fit)
        made = fit(rows)
        return self._each(truths, fit) if made == UNKNOWN else made

    def _each(self, truths: Sequence[Truth], fit: Callable[[Mapping[Any, Any]], Any]) -> Any:
        """Return a formula for each class; one where that is the same for all."""
        rows: dict[str, dict[Any, Any]] = {}
        for sample, name, index, value in truths:
            rows.setdefault(name, {})[sample, index] = value
        made = {name: fit(own) for name, own in rows.items()}
        return made if len({*made.values()}) > 1 else next(iter(made.values()))

    def number(self, rows: Mapping[tuple[int, tuple[int, ...]], int]) -> str:
        """Return the formula of a number."""
        places, target = tuple(rows), tuple(rows.values())
        known = (hash(places), len(places), target)
        if known not in self._known:
            self._known[known] = self._number(rows, places, target)
        found: str = self._known[known]
        return found

    def _number(self, rows: Mapping[Any, int], places: Any, target: Sequence[int]) -> str:
        if len({sample for sample, _ in places if len(self.given[sample]) >= _TOGETHER}) < _SEEN_TOGETHER:
            return UNKNOWN
        if len(set(target)) == 1:
            return str(target[0])
        choices = self._choices(rows)
        some = _some(places, target)
        for keys in choices:
            made = self._of(tuple(places[each] for each in some), keys).formula([target[each] for each in some])
            if made is not None and all(self.is_right(made, *row, value) for row, value in rows.items()):
                return made
        return self._split(places, target, choices[0][:20]) or UNKNOWN

    def is_right(self, formula: str, sample: int, index: tuple[int, ...], value: int) -> bool:
        """Whether a formula gives that value for a row."""
        try:
            return bool(value_of(formula, lambda name: self.setting(name, sample, index)) == value)
        except UnknownError:
            return False

    def _choices(self, rows: Mapping[tuple[int, tuple[int, ...]], Any]) -> list[list[str]]:
        """Return which settings to look for a formula of, in this order: those that nothing tells come last."""
        relevant = self.relevant(rows)
        parts = {key.rpartition(".")[0] for key in relevant}
        near = [key for key in self.varied if key.rpartition(".")[0] in parts][:_NEAR_LIMIT]
        choices = []
        for keys in (relevant, self.effective, [*relevant, *(key for key in near if key not in relevant)]):
            told = [key for key in keys if key not in self.opaque]
            choices += [each for each in (told, keys) if each and each not in choices]
        return choices or [self.varied[:_NEAR_LIMIT]]

    def _split(self, places: Sequence[Any], target: Sequence[int], keys: Sequence[str]) -> str | None:
        """Return a formula for where something holds and one for where it does not."""
        if time.process_time() > self.deadline:
            return None
        literals = self._true(tuple(places), keys).found
        for bits, text in list(literals.items())[:_SPLITS_LIMIT]:
            sides: list[list[int]] = [[], []]
            for number in range(len(places)):
                sides[bits >> number & 1].append(number)
            if min(map(len, sides)) < 3:
                continue
            made = [
                self._of(tuple(places[number] for number in side), keys).formula([target[number] for number in side])
                for side in sides
            ]
            whole = f"({made[1]}) if {text} else ({made[0]})"
            if None not in made and all(
                self.is_right(whole, *row, value) for row, value in zip(places, target, strict=True)
            ):
                return whole
        return None

    def _of(self, places: tuple[Any, ...], keys: Sequence[str]) -> Numbers:
        known = (hash(places), len(places), tuple(keys))
        if known not in self._numbers:
            self._numbers[known] = Numbers([(self.flats[sample], index) for sample, index in places], keys)
        return self._numbers[known]

    def _true(self, places: tuple[Any, ...], keys: Sequence[str]) -> Conditions:
        known = (hash(places), len(places), tuple(keys))
        if known not in self._conditions:
            self._conditions[known] = Conditions([(self.flats[sample], index) for sample, index in places], keys)
        return self._conditions[known]

    def condition(self, rows: Mapping[tuple[int, tuple[int, ...]], bool]) -> str:
        """Return the condition that is true of some rows; "" for all of them."""
        places, target = tuple(rows), tuple(rows.values())
        if all(target):
            return ""
        if not any(target):
            return "False"
        known = (hash(places), len(places), target)
        if known not in self._known:
            made = None
            for keys in self._choices(rows):
                made = made or self._true(places, keys).formula(target)
            self._known[known] = made or UNKNOWN
        found: str = self._known[known]
        return found

    def holds(self, formula: str, sample: int, index: tuple[int, ...]) -> bool | None:
        """Whether a condition is true of a row, None where that is not known."""
        if formula in ("", UNKNOWN):
            return None if formula else True
        try:
            return bool(value_of(formula, lambda name: self.setting(name, sample, index)))
        except UnknownError:
            return None

    def setting(self, name: str, sample: int, index: tuple[int, ...]) -> Any:
        """Return what a config says of a name, or the number in a path."""
        if re.fullmatch(r"i\d", name):
            return index[int(name[1:])]
        return self.flats[sample].get(name)


def nodes_of(
    fitting: Fitting, instances: Sequence[Instance], tied: Mapping[Any, frozenset[str]], path: str
) -> dict[str, Branch]:
    """Return the children of a module, in as many configs and classes as it was seen in."""
    names: dict[str, None] = {}
    numbers: list[tuple[int, ...]] = []
    for _, _, _, node in instances:
        own = [key for key in node if key.isdecimal()]
        numbers.append(tuple(sorted(map(int, own))))
        names.update(dict.fromkeys(key for key in node if not key.isdecimal()))
    found: dict[str, Branch] = {}
    if any(numbers):
        if len(set(numbers)) == 1 or len({each for each in numbers if each}) == 1:
            names.update(dict.fromkeys(map(str, next(each for each in numbers if each))))
        else:
            found["#"] = _listed(fitting, instances, numbers, tied, f"{path}.#")
    for name in names:
        for is_leaf in (True, False):
            held = [each for each in instances if name in each[3] and isinstance(each[3][name], tuple) == is_leaf]
            if held:
                branch = _child(fitting, instances, held, name, tied, f"{path}.{name}")
                found[name + "/" * (name in found)] = branch
    return found


def _child(
    fitting: Fitting, instances: Sequence[Instance], held: Sequence[Instance], name: str, tied: Any, path: str
) -> Branch:
    has = {each[1] for each in held}
    there = {(sample, class_, index) for sample, class_, index, _ in held}
    truths = [
        (sample, class_, index, (sample, class_, index) in there)
        for sample, class_, index, _ in instances
        if class_ in has
    ]
    when = fitting.by_class(truths, fitting.condition)
    inside = [(sample, class_, index, node[name]) for sample, class_, index, node in held]
    node = _leaf(fitting, inside, tied) if isinstance(inside[0][3], tuple) else nodes_of(fitting, inside, tied, path)
    lacks = {
        class_
        for sample, class_, index, _ in instances
        if class_ not in has and not isinstance(when, dict) and fitting.holds(when, sample, index)
    }
    return Branch(when, None, node, has, lacks)


def _listed(
    fitting: Fitting, instances: Sequence[Instance], numbers: Sequence[tuple[int, ...]], tied: Any, path: str
) -> Branch:
    """Return the items of a list, whose number differs."""
    counted = [(each, own) for each, own in zip(instances, numbers, strict=True) if own]
    start = min(own[0] for _, own in counted)
    steps = {later - own for _, each in counted for own, later in itertools.pairwise(each)}
    step = steps.pop() if len(steps) == 1 else 1
    ends = [(*each[:3], (own[-1] - start) // step + 1) for each, own in counted]
    count = fitting.by_class(ends, fitting.number)
    truths, inside = [], []
    for (sample, class_, index, node), own in counted:
        for number in range(start, own[-1] + 1, step):
            truths.append((sample, class_, (*index, number), str(number) in node))
            if str(number) in node:
                inside.append((sample, class_, (*index, number), node[str(number)]))
    when = fitting.by_class(truths, fitting.condition)
    leaf = isinstance(inside[0][3], tuple)
    inside = [each for each in inside if isinstance(each[3], tuple) == leaf]
    node = _leaf(fitting, inside, tied) if leaf else nodes_of(fitting, inside, tied, path)
    return Branch(when, (start, step, count), node, {each[1] for each in inside}, set())


def _leaf(fitting: Fitting, inside: Sequence[Instance], tied: Any) -> Leaf:
    ranks = {len(shape) for _, _, _, (shape, _) in inside}
    if len(ranks) > 1:
        shape: Any = "*"
    else:
        dims = [
            fitting.by_class([(*each[:3], each[3][0][axis]) for each in inside], fitting.number)
            for axis in range(ranks.pop())
        ]
        classes = {name for dim in dims if isinstance(dim, dict) for name in dim}
        shape = (
            {name: _spaced([dim[name] if isinstance(dim, dict) else dim for dim in dims]) for name in classes}
            if classes
            else _spaced(dims)
        )
    marks = [(*each[:3], each[3][1]) for each in inside]
    return Leaf(shape, fitting.by_class(marks, fitting.condition))


def _spaced(dims: Sequence[str]) -> str:
    return ",".join(dim if _is_likely(dim) else UNKNOWN for dim in dims)


def _is_likely(formula: str) -> bool:
    """Whether a formula with two cases tells them by an index or by a switch: others are right by chance too often."""
    _, is_split, test = formula.partition(" if ")
    test = test.partition(" else ")[0]
    return not is_split or bool(_INDEX.search(test)) or bool(_SWITCH.fullmatch(test))


def encoded(branches: Mapping[str, Branch], class_: str) -> dict[str, Any]:
    """Return the children of a module of a class as the table has them."""
    made: dict[str, Any] = {}
    for name, branch in branches.items():
        if class_ in branch.lacks or (branch.has and class_ not in branch.has and isinstance(branch.when, dict)):
            continue
        key = name
        if branch.count is not None:
            start, step, count = branch.count
            key += f"{start}:{step}:{_own(count, class_, UNKNOWN)}"
        when = _own(branch.when, class_, UNKNOWN)
        if when == "False":
            continue
        key += "" if when == "" else "?" + when.replace(UNKNOWN, "") if when == UNKNOWN else "?" + when
        if isinstance(branch.node, Leaf):
            tied = _own(branch.node.tied, class_, UNKNOWN)
            key += "" if tied == "False" else "~" + ("" if tied == UNKNOWN else tied)
            made[key] = _own(branch.node.shape, class_, "*")
        elif inside := encoded(branch.node, class_):
            made[key] = inside
    return made


def _own(formula: Any, class_: str, otherwise: str) -> str:
    found: str = formula.get(class_, otherwise) if isinstance(formula, dict) else formula
    return found


def _homes(prefixes: Mapping[str, str]) -> dict[str, str]:
    common = Counter(prefix for prefix in prefixes.values() if prefix)
    home = common.most_common(1)[0][0] if common else ""
    return {name: "" if prefix else home for name, prefix in prefixes.items()}


def _concrete(form: tuple[Any, Any, Any], home: str) -> Any:
    shapes, tied, unsaved = form
    tree: dict[str, Any] = {}
    for name, shape in shapes:
        inside = tree
        *modules, leaf = [*(home.split(".") if home else ()), *name.split(".")]
        for module in modules:
            inside = inside.setdefault(module, {})
        inside[leaf] = (shape, name in tied or name in unsaved)
    return tree


def entry_of(dump: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the table says of a model type."""
    base: Flat = dump["base"]
    samples = dump["samples"]
    flats = []
    for _, changed, _ in samples:
        flat = {**base, **changed}
        flats.append({key: value for key, value in flat.items() if value != _ABSENT})
    pairs = [(given, flat) for (given, _, _), flat in zip(samples, flats, strict=True)]
    untold = {key for given, flat in pairs for key in given if _is_overruled(key, given, flat)}
    keys = frozenset(
        key
        for key in base
        if key not in untold and _PLAIN.fullmatch(key) and not any(map(keyword.iskeyword, key.split(".")))
    )
    usual = samples[0][2]
    effective: dict[str, None] = {}
    alone: set[str] = set()
    for given, changed, forms in samples:
        if len(given) == 1:
            alone.update(given)
            if any(usual.get(name, number) != number for name, number in forms.items()):
                effective.update(dict.fromkeys(sorted(changed.keys() & keys)))
    varied = {key for flat in flats for key in keys if flat.get(key) != base[key]}
    effective.update(dict.fromkeys(sorted(varied - alone - effective.keys())))
    homes = _homes(dump["prefixes"])
    fitting = Fitting(
        flats=flats,
        given=[given for given, _, _ in samples],
        changed=[frozenset(changed) for _, changed, _ in samples],
        effective=list(effective),
        homes=homes,
        keys=keys,
        varied=[key for key in base if key in varied],
    )
    fitting.opaque = frozenset(key for key in fitting.varied if _default(dump, fitting, key) is None)
    trees: dict[tuple[int, str], Any] = {}
    instances: list[Instance] = []
    for number, (_, _, forms) in enumerate(samples):
        for name, form in forms.items():
            if name not in EXPORTED:
                continue
            place = (form, homes[name])
            if place not in trees:
                trees[place] = _concrete(dump["forms"][form], homes[name])
            instances.append((number, name, (), trees[place]))
    branches = nodes_of(fitting, instances, {}, "")
    classes = {}
    for name in dump["prefixes"]:
        if name not in EXPORTED:
            continue
        tree = encoded(branches, name)
        for part in homes[name].split(".") if homes[name] else ():
            tree = next((inside for key, inside in tree.items() if re.split(r"[?~/]", key)[0] == part), {})
        classes[name] = tree
    return _described(dump, fitting, classes)


def _is_overruled(key: str, given: Flat, flat: Flat) -> bool:
    """Whether a config has something else than what it was given, as what follows from another setting."""
    return given[key] is not None and key in flat and flat[key] != given[key]


def _of_parts(dump: Mapping[str, Any]) -> Flat:
    """Return the settings that the parts of a config have where a file has them, and says nothing in them."""
    found: Flat = {}
    for key, value in dump["whole"].items():
        part, _, last = key.rpartition(".")
        if last == "model_type" and part and value in transformers.CONFIG_MAPPING:
            with contextlib.suppress(Exception):  # a config that does not build by default
                found |= flattened(transformers.CONFIG_MAPPING[value]().to_dict(), f"{part}.")
    return found


def _of_deep_parts(dump: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Return what the settings of parts of parts are by default, as the one or the other part is in a file."""
    found: dict[str, list[Any]] = {}
    for key, value in dump["whole"].items():
        part, _, last = key.rpartition(".")
        if last == "model_type" and part and value in transformers.CONFIG_MAPPING:
            with contextlib.suppress(Exception):  # a config that does not build by default
                for name, own in flattened(transformers.CONFIG_MAPPING[value]().to_dict(), f"{part}.").items():
                    found.setdefault(name, []).append(own)
    return {key: values for key, values in found.items() if key.count(".") > 1}


def _described(dump: Mapping[str, Any], fitting: Fitting, classes: Mapping[str, Any]) -> dict[str, Any]:
    used = set(_names_in(classes))
    defaults, derived = {}, {}
    wanted = sorted(used)
    while wanted:
        key = wanted.pop()
        made = _default(dump, fitting, key)
        if made is not None and made[0]:
            derived[key] = made[1]
            wanted += sorted(_settings(made[1]) - {*derived, *defaults})
        elif made is not None:
            defaults[key] = made[1]
    for key, values in _of_deep_parts(dump).items():
        if key in defaults and any(value != defaults[key] for value in values):
            del defaults[key]
    used |= {*defaults, *derived}
    inside = {
        key: value
        for key, value in _of_parts(dump).items()
        if key in defaults and json.dumps(value, default=str) != json.dumps(defaults[key], default=str)
    }
    aliases = {alias: name for alias, name in dump["names"].items() if name in used}
    trees, parts = shared(classes)
    described: dict[str, Any] = {}
    every: list[Any] = []
    for name, tree in trees.items():
        missing, unexpected = dump["ignored"][name]
        renamings = [each for each in dump["renamings"][name] if each not in legacy()]
        if renamings not in every:
            every.append(renamings)
        entry = {
            "base": dump["prefixes"][name] or fitting.homes[name],
            "missing": list(missing),
            "unexpected": list(unexpected),
            "renamings": every.index(renamings) if renamings else None,
            "tree": tree,
        }
        described[name] = {key: value for key, value in entry.items() if value or (value == 0 and key != "base")}
    entry = {
        "defaults": dict(sorted(defaults.items())),
        "inside": inside,
        "derived": derived,
        "names": aliases,
        "seen": _explored(dump, fitting, used),
        "parts": parts,
        "renamings": every if any(every) else [],
        "classes": described,
    }
    return {key: value for key, value in entry.items() if value}


def shared(classes: Mapping[str, Any]) -> tuple[dict[str, Any], list[Any]]:
    """Return the trees of classes, with the number of a part for each that comes back, and the parts."""
    counts: Counter[str] = Counter()

    def count(tree: Any) -> None:
        if isinstance(tree, dict):
            text = json.dumps(tree)
            counts[text] += 1
            if counts[text] == 1:
                for inside in tree.values():
                    count(inside)

    for tree in classes.values():
        count(tree)
    parts: list[Any] = []
    numbers: dict[str, int] = {}

    def folded(tree: Any) -> Any:
        if not isinstance(tree, dict):
            return tree
        text = json.dumps(tree)
        if text in numbers:
            return numbers[text]
        made = {key: folded(inside) for key, inside in tree.items()}
        if counts[text] > 1 and len(text) > _SHARED_CHARACTERS:
            numbers[text] = len(parts)
            parts.append(made)
            return numbers[text]
        return made

    return {name: folded(tree) for name, tree in classes.items()}, parts


def _settings(formula: str) -> set[str]:
    return {name for name in names_of(formula) if not re.fullmatch(r"i\d|_|int|len|sum", name)}


def _names_in(tree: Any) -> Iterator[str]:
    if isinstance(tree, str):
        for dim in tree.split(",") if tree not in ("", "*") else ():
            yield from _settings(dim)
        return
    for key, inside in tree.items():
        for formula in parsed_key(key)[1:]:
            yield from _settings(formula) if formula else ()
        yield from _names_in(inside)


def parsed_key(key: str) -> tuple[str, str | None, str | None, str | None]:
    """Return the name of a child, how many there are, when it is there, and when it is another's."""
    rest, is_tied, tied = key.partition("~")
    rest, is_open, when = rest.partition("?")
    name, count = (rest, None) if not rest.startswith("#") else ("#", rest[1:].split(":", 2)[2])
    return name, count, when if is_open else None, tied if is_tied else None


def _default(dump: Mapping[str, Any], fitting: Fitting, key: str) -> tuple[bool, Any] | None:
    """Return what a setting is that a file does not say: a value, or (True) a formula; None where nothing tells."""
    whole = dump["whole"].get(key, dump["base"].get(key))
    rows = {
        (number, ()): flat.get(key)
        for number, flat in enumerate(fitting.flats)
        if key not in fitting.given[number] and key not in dump["given"]
    }
    values = {json.dumps(value, default=str) for value in rows.values()}
    if len(values) <= 1:
        return False, whole
    if not all(type(value) is int for value in rows.values()):
        return None
    relevant = [name for name in fitting.relevant(rows) if name != key and _is_free(dump, fitting, name)]
    made = Numbers([(fitting.flats[sample], ()) for sample, _ in rows], relevant).formula(list(rows.values()))
    return None if made is None else (True, made)


def _is_free(dump: Mapping[str, Any], fitting: Fitting, key: str) -> bool:
    """Whether a setting is what a file says, or always the same."""
    return all(
        flat.get(key) == dump["base"].get(key)
        for flat, given in zip(fitting.flats, fitting.given, strict=True)
        if key not in given
    )


def _explored(dump: Mapping[str, Any], fitting: Fitting, used: set[str]) -> dict[str, Any]:
    """Return the settings of which only some values were seen: these, "?" for what no other value was seen of."""
    found: dict[str, Any] = {
        key: [] for key, whole in dump["whole"].items() if whole is None and key not in used and is_size(key)
    }
    for key in fitting.keys:
        if key in found:
            continue
        if INERT.fullmatch(key.rpartition(".")[2]) and not key.endswith(".model_type"):
            continue
        values = [flat[key] for flat in fitting.flats if key in flat]
        distinct = {json.dumps(value): value for value in values}
        kinds = {type(value) for value in values}
        is_inert = key not in used and key not in fitting.effective
        if len(distinct) > 1 and is_inert:
            continue
        if (
            len(distinct) > 1
            and kinds <= {int, float, bool, type(None)}
            and (len(distinct) > 2 or bool in kinds or type(None) in kinds)
        ):
            continue
        whole = dump["whole"].get(key)
        if kinds == {list}:
            words = {word for value in values for word in value if isinstance(word, str)}
            lengths = sorted({len(value) for value in values})
            if len(distinct) > 1 and not words and len(lengths) > 2:
                continue
            found[key] = {"lengths": lengths, "words": sorted(words)} if len(distinct) > 1 else [whole]
        else:
            found[key] = [*distinct.values(), *([whole] if json.dumps(whole) not in distinct else [])]
    return dict(sorted(found.items()))


def text_of(models: Mapping[str, Any]) -> str:
    """Return the table as text: a model type begins a line, and so does each of its parts and classes."""
    types = []
    for model_type, entry in models.items():
        lines = []
        for key, value in entry.items():
            if key == "classes":
                inside = ",\n".join(f"  {json.dumps(name)}: {_short(own)}" for name, own in value.items())
                lines.append(f'  "classes": {{\n{inside}\n  }}')
            elif key in ("parts", "renamings"):
                lines.append(f'  "{key}": [\n' + ",\n".join(f"  {_short(part)}" for part in value) + "\n  ]")
            else:
                lines.append(f"  {json.dumps(key)}: {_short(value)}")
        types.append(f" {json.dumps(model_type)}: {{\n" + ",\n".join(lines) + "\n }")
    versions = json.dumps({"transformers": transformers.__version__})
    return (
        f'{{\n"versions": {versions},\n"renamings": {_short(legacy())},\n"models": {{\n'
        + ",\n".join(types)
        + "\n}\n}\n"
    )


def _short(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


COMPOSITES = ("encoder-decoder", "rag", "speech-encoder-decoder", "vision-encoder-decoder", "vision-text-dual-encoder")
"""Model types made of any two others."""
LEFT_OUT = [
    "blt",
    "bridgetower",
    "cohere_asr",
    "depth_pro",
    "fastspeech2_conformer_with_hifigan",
    "glmasr",
    "kyutai_speech_to_text",
    "longcat_flash",
    "mimi_decoder",
    "mistral_large4",
    "moshi",
    "nemotron3_5_asr",
    "nemotron_asr_streaming",
    "neucodec",
    "nllb-moe",
    "patchtst",
    "pe_audio",
    "pe_audio_encoder",
    "pi0",
    "pp_lcnet_v3",
    "pp_ocrv5_server_rec",
    "qwen2_5_omni",
    "qwen3_5_moe_text",
    "qwen3_asr_encoder",
    "rt_detr_resnet",
    "sam3_tracker",
    "vibevoice",
    "vibevoice_asr",
    "voxtral",
    "voxtral_realtime",
    "wav2vec2-bert",
    "xcodec",
]
"""Model types whose parts have other settings by default than the parts alone, or tensors that come and go otherwise
than by what was tried: `tests/oracle/test_shapes.py` shows it."""
EXPORTED = frozenset(dir(transformers))
"""What one may import from transformers: others are parts of these."""


@cache
def legacy() -> list[Any]:
    """Return the renamings that all classes have."""
    model = abstract_model(transformers.BertModel, transformers.BertConfig(num_hidden_layers=1))
    return renamings_of(model)


def main(table: Path, folder: Path, model_types: list[str]) -> None:
    """Write the table."""
    models = {}
    for path in sorted(folder.glob("*.json")):
        if path.stem not in (*COMPOSITES, *LEFT_OUT) and (not model_types or path.stem in model_types):
            dump = json.loads(path.read_text())
            start = time.process_time()
            models[path.stem] = entry_of(dump)
            seconds = time.process_time() - start
            print(path.stem, len(_short(models[path.stem])), f"{seconds:.1f} s", flush=True)
    table.write_text(text_of(models), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])

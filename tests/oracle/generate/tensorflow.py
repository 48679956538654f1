"""Makes converter/dialects/tables/tensorflow.json of what tensorflow_dump.py wrote down.

    python -m tests.oracle.generate.tensorflow FOLDER

Per model type: rows (templates of variables and of PyTorch's tensors), and of each class what it lacks of them, and its
ties. What transformers' own loader leaves out or gets wrong is in exceptions.json beside the table.
"""

from __future__ import annotations

import difflib
import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from converter.dialects.tables import exceptions
from converter.dialects.tables.rows import Row, Rows
from converter.dialects.transformers.mechanical import translated
from tests.oracle.generate.table_file import TABLES, write
from tests.oracle.generate.tensorflow_configs import COMPOSITES

TABLE = TABLES / "tensorflow.json"
_NUMBER = re.compile(r"\d+")
_NUMBERED = re.compile(r"/tf_\w+_attention(_\d+)?/")
"""Layers without a name of their own, which Keras numbers through the process: exceptions.json has their rows."""
_LETTERS = "nmklh"
_COUNTER = "num_batches_tracked"

Sample = tuple[str, str, str | None, frozenset[int]]
"""A variable, the tensor it is, the pattern of its layout, and which components of the tensor's name are indices."""


def dumps(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield what was written down of models that are not made of others, first variants first."""
    paths = sorted(folder.glob("*/dump.json"), key=lambda path: path.parent.name.rpartition(".")[::-1])
    for path in paths:
        dump = json.loads(path.read_text())
        if dump["family"] not in COMPOSITES:
            yield dump


def stripped(name: str) -> str:
    """Return the name of a variable without the model's own and the number of the output."""
    name = name.removesuffix(":0")
    return name.partition("/")[2] or name


def fixed(entries: Iterable[Mapping[str, Any]], bases: Iterable[str]) -> frozenset[str]:
    """Return the lists of modules that are not alike in some variant: a number says which of them it is."""
    return frozenset(
        _NUMBER.sub("#", base + path)
        for entry, base in zip(entries, bases, strict=True)
        for path, (kind, *items) in entry["containers"].items()
        if kind == "Sequential" and len(set(items)) != 1
    )


def indices(name: str, base: str, containers: Mapping[str, list[str]], literal: frozenset[str]) -> frozenset[int]:
    """Return which components of a name are indices of a list of modules that are alike."""
    parts = name.split(".")
    lists = {base + path for path in containers}
    return frozenset(
        position
        for position, part in enumerate(parts)
        if part.isdigit() and (path := ".".join(parts[:position])) in lists and _NUMBER.sub("#", path) not in literal
    )


def sample(dump: Mapping[str, Any], variable: str, base: str, literal: frozenset[str]) -> Sample | None:
    """Return which tensor a variable is, of those with its values: the one that is called most alike."""
    same = [(name, layout) for name, layout in dump["mapping"][variable] if layout is not None]
    if not same:
        return None
    rank = len(dump["variables"][variable])
    wanted = translated(stripped(variable), rank).name
    saved = set(dump["saved"])

    def likeness(entry: tuple[str, str]) -> tuple[float, bool]:
        name = base + entry[0]
        alike = difflib.SequenceMatcher(None, name, wanted).ratio()
        same_numbers = _NUMBER.findall(name) == _NUMBER.findall(wanted)
        return (2.0 if wanted in (name, entry[0]) else alike + 0.5 * same_numbers, entry[0] in saved)

    name, layout = max(same, key=likeness)
    positions = indices(base + name, base, dump["containers"], literal)
    return stripped(variable), base + name, layout or None, positions


def template(group: list[Sample], held: frozenset[int]) -> tuple[str, str] | None:
    """Return the two templates of variables that differ in numbers alone, None when no pair of them fits all.

    `held` are components of the tensors' names that stay as they are.
    """
    numbers = [[*_NUMBER.finditer(theirs)] for theirs, *_ in group]
    parts = [name.split(".") for _, name, *_ in group]
    wanted = sorted(position for position in group[0][3] if position not in held)
    chosen: dict[int, int] = {}
    for position in wanted:
        fitting = [
            place
            for place in range(len(numbers[0]))
            if place not in chosen.values()
            and all(found[place][0] == part[position] for found, part in zip(numbers, parts, strict=True))
        ]
        after = [place for place in fitting if place > max(chosen.values(), default=-1)]
        if fitting:
            chosen[position] = (after or fitting)[0]
    theirs, name = group[0][0], list(parts[0])
    for letter, position in zip(_LETTERS, chosen, strict=False):
        name[position] = f"{{{letter}}}"
    by_place = {place: letter for letter, place in zip(_LETTERS, chosen.values(), strict=False)}
    for place in sorted(by_place, reverse=True):
        match = numbers[0][place]
        theirs = f"{theirs[: match.start()]}{{{by_place[place]}}}{theirs[match.end() :]}"
    return theirs, ".".join(name)


def rows_of(samples: Iterable[Sample]) -> list[list[str | None]]:
    """Return the rows of a model type: what differs in list indices alone is one row."""
    groups: dict[tuple[Any, ...], list[Sample]] = {}
    for entry in dict.fromkeys(samples):
        theirs, name, layout, positions = entry
        parts = [("#" if place in positions else part) for place, part in enumerate(name.split("."))]
        groups.setdefault((_NUMBER.sub("#", theirs), tuple(parts), layout, positions), []).append(entry)
    found: list[list[str | None]] = []
    for group in groups.values():
        found += _rows_of_group(group)
    return found


def _rows_of_group(group: list[Sample]) -> list[list[str | None]]:
    whole = template(group, frozenset())
    if whole is not None and all(_fits(whole, entry) for entry in group):
        return [[*whole, group[0][2]]]
    by_literal: dict[tuple[str, ...], list[Sample]] = {}
    for entry in group:  # numbers that stand for no index stay as they are, each in a row of its own
        taken = {part for place, part in enumerate(entry[1].split(".")) if place in entry[3]}
        by_literal.setdefault(tuple(n for n in _NUMBER.findall(entry[0]) if n not in taken), []).append(entry)
    if len(by_literal) > 1:
        return [row for part in by_literal.values() for row in _rows_of_group(part)]
    return [[theirs, name, layout] for theirs, name, layout, _ in group]


def _fits(pair: tuple[str, str], entry: Sample) -> bool:
    row = Row.of([*pair, None])
    found = row.theirs.indices(entry[0])
    return found is not None and row.canonical.filled(found) == entry[1]


def separated(rows: list[list[str | None]]) -> tuple[list[list[str | None]], list[list[str | None]]]:
    """Return the rows that read both ways, and those that are a second name of a tensor.

    Raises ValueError when one variable would be two tensors.
    """
    two_way: list[list[str | None]] = []
    aliases: list[list[str | None]] = []
    for row in rows:
        try:
            Rows(map(Row.of, [*two_way, row]))
        except ValueError:
            Rows(map(Row.of, [*two_way, *aliases, row]), is_two_way=False)
            aliases.append(row)
        else:
            two_way.append(row)
    return two_way, aliases


def absent(names: Iterable[str], own: set[str]) -> list[str]:
    """Return the fewest paths that cover the templates a class does not have, and none that it has."""
    found: list[str] = []
    for name in names:
        if name in own or any(name == path or name.startswith(f"{path}.") for path in found):
            continue
        parts = name.split(".")
        for length in range(1, len(parts) + 1):
            path = ".".join(parts[:length])
            if not any(other == path or other.startswith(f"{path}.") for other in own):
                found.append(path)
                break
    return found


def samples_of(
    entries: list[dict[str, Any]], bases: list[str], literal: frozenset[str]
) -> tuple[list[Sample], set[str]]:
    """Return which tensor each variable is, and the variables that are none."""
    samples: list[Sample] = []
    left: set[str] = set()
    for entry, base in zip(entries, bases, strict=True):
        for variable in entry["variables"]:
            if _NUMBERED.search(variable):
                continue
            found = sample(entry, variable, base, literal)
            if found is None:
                left.add(stripped(variable))
            else:
                samples.append(found)
    return samples, left


def lists_behind(aliases: list[list[str | None]]) -> frozenset[str]:
    """Return the lists of modules whose items have other names for tensors of one name."""
    last = (re.fullmatch(r"(.*)\.\{[a-z]\}\.[^{}]*", str(canonical)) for _, canonical, _ in aliases)
    return frozenset(re.sub(r"\{[a-z]\}|\d+", "#", match[1]) for match in last if match)


def mixed(entries: Iterable[Mapping[str, Any]], bases: Iterable[str]) -> frozenset[str]:
    """Return the lists of modules whose items are of several classes."""
    return frozenset(
        _NUMBER.sub("#", base + path)
        for entry, base in zip(entries, bases, strict=True)
        for path, (_, *items) in entry["containers"].items()
        if len(set(items)) > 1
    )


def model_of(entries: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what the table says of one model type."""
    model_type, prefix = entries[0]["model_type"], entries[0]["prefix"]
    has_prefix = any(not entry["is_base"] for entry in entries)
    bases = [f"{prefix}." if has_prefix and entry["is_base"] else "" for entry in entries]
    own = exceptions("tensorflow").get(model_type, {})
    literal = fixed(entries, bases)
    samples, left = samples_of(entries, bases, literal)
    rows, aliases = separated(rows_of(samples))
    if ambiguous := lists_behind(aliases) & mixed(entries, bases):
        literal |= ambiguous
        samples, left = samples_of(entries, bases, literal)
        rows, aliases = separated(rows_of(samples))
    every = [*rows, *aliases, *own.get("rows", ()), *own.get("aliases", ())]
    built = Rows(map(Row.of, every), is_two_way=False)
    for name in sorted(name for name in left if built.to_canonical(name) is None):
        print(f"{model_type}: no tensor of PyTorch is {name}")
    children = children_of(built, entries)
    classes: dict[str, Any] = {}
    for entry, base in zip(entries, bases, strict=True):
        held = {match.row.canonical.text for match in _matches(built, entry, base)}
        known = classes.setdefault(entry["torch_class"], {"base": base, "held": set(), "always": None, "entries": []})
        known["held"] |= held
        known["always"] = held if known["always"] is None else known["always"] & held
        known["entries"].append(entry)
    templates = list(dict.fromkeys(str(canonical) for _, canonical, _ in every))
    return {
        "prefix": prefix if has_prefix else "",
        "tied_by_default": entries[0]["tied_by_default"],
        "classes": {name: _class(known, templates) for name, known in classes.items()},
        "outside": outside(entries),
        "rows": in_order(rows, children),
        "aliases": in_order(aliases, children),
    }


def children_of(rows: Rows, entries: Iterable[Mapping[str, Any]]) -> dict[tuple[str, ...], list[str]]:
    """Return path of components of a template -> those that follow it, in the order in which Keras lists them."""
    found: dict[tuple[str, ...], list[str]] = {}
    for entry in entries:
        for _, weights in entry["layers"]:
            own: dict[tuple[str, ...], dict[tuple[tuple[str, ...], str], None]] = {}
            for weight in weights:
                name = stripped(weight)
                match = rows.to_canonical(name, len(entry["variables"][weight]))
                parts = match.row.theirs.text.split("/") if match is not None else []
                for length, part in enumerate(parts):
                    place = tuple(name.split("/")[:length])
                    own.setdefault(place, {})[tuple(parts[:length]), part] = None
            for seen in own.values():
                for path in dict.fromkeys(path for path, _ in seen):
                    _merge(found.setdefault(path, []), [part for other, part in seen if other == path])
    return found


def _merge(known: list[str], seen: list[str]) -> None:
    """Add what is new among `seen` behind what comes before it there."""
    for index, part in enumerate(seen):
        if part not in known:
            known.insert(max((known.index(other) + 1 for other in seen[:index]), default=0), part)


def in_order(rows: list[list[str | None]], children: Mapping[tuple[str, ...], list[str]]) -> list[list[str | None]]:
    """Return rows in Keras's order; what no file has stays behind the rest."""

    def place(row: list[str | None]) -> list[int]:
        parts = str(row[0]).split("/")
        known = [children.get(tuple(parts[:length]), []) for length in range(len(parts))]
        return [own.index(part) if part in own else len(own) for own, part in zip(known, parts, strict=True)]

    return sorted(rows, key=place)


def outside(entries: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the whole names of variables that do not start with the name of their model."""
    found = set()
    for entry in entries:
        names = [name.removesuffix(":0") for name in entry["variables"]]
        first = [name.partition("/")[0] for name in names]
        usual = max(first, key=first.count)
        found |= {name for name in names if not name.startswith(f"{usual}/")}
    return sorted(found)


def _matches(rows: Rows, entry: Mapping[str, Any], base: str) -> Iterator[Any]:
    saved = set(entry["saved"]) | set(entry["could_tie"]) | set(entry["ties"])
    for variable in entry["variables"]:
        match = rows.to_canonical(stripped(variable))
        if match is not None and match.name.removeprefix(base) in saved:
            yield match


def _class(known: Mapping[str, Any], every: list[str]) -> dict[str, Any]:
    first = known["entries"][0]
    ties = {known["base"] + alias: known["base"] + owner for alias, owner in first["could_tie"].items()}
    untied = next((entry["ties"] for entry in known["entries"] if not entry["is_tied"]), {})
    return {
        "layer": _layer_name(first),
        "is_base": bool(known["base"]),
        "lacks": absent(every, known["held"]),
        "optional": absent([name for name in every if name in known["held"]], known["always"]),
        "ties": ties,
        "ties_when_untied": {known["base"] + alias: known["base"] + owner for alias, owner in untied.items()},
    }


def _layer_name(entry: Mapping[str, Any]) -> str:
    """Return what Keras calls a model of the class on its own, which variables start with."""
    first = [name.partition("/")[0] for name in entry["variables"]]
    return re.sub(r"_\d+$", "", max(first, key=first.count))


def main(folder: Path) -> None:
    """Write the table."""
    by_type: dict[str, list[dict[str, Any]]] = {}
    for dump in dumps(folder):
        by_type.setdefault(dump["model_type"], []).append(dump)
    versions = json.loads((folder / "versions.json").read_text())
    models = {model_type: model_of(entries) for model_type, entries in sorted(by_type.items())}
    write(TABLE, {"versions": versions, "models": models})


if __name__ == "__main__":
    main(Path(sys.argv[1]))

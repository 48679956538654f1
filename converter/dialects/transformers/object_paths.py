"""Where a model of transformers' TensorFlow classes has its objects: paths of attributes, as tf.train.Checkpoint has.

`tables/tensorflow_objects.json` has them per model type and class: variables by name, layers and lists without any.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from converter.dialects.tables import document, naming_entry
from converter.dialects.transformers.attributes import numbers_in

_TABLE = "tensorflow_objects"
_PLACEHOLDER = re.compile(r"\{([a-z])\}")
_NUMBER = re.compile(r"\d+|\{[^}]*\}")
_ITEM = re.compile(r"(?<=/)\d+(?=/|$)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Objects:
    """The objects of a model: path -> variable, and the paths of the others."""

    variables: Mapping[str, str]
    others: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Layout:
    """What the table has of a class: the template of a path and that of a name, by the name without its numbers."""

    named: Mapping[str, tuple[tuple[str, str], ...]]
    others: tuple[str, ...]

    def path_of(self, name: str) -> str | None:
        for path, template in self.named.get(_NUMBER.sub("#", name), ()):
            numbers = numbers_in(template, name)
            if numbers is not None:
                return path.format_map(numbers)
        return None


def objects_of(class_name: str, variables: Iterable[str]) -> Objects | None:
    """Return the objects of a model of a class that has these variables, None where the table lacks one of them.

    Of lists there are as many items as have variables. Names are whole, the model's own first.
    """
    layout = _layout_of(class_name)
    found: dict[str, str] = {}
    for variable in variables:
        path = layout.path_of(variable.partition("/")[2] or variable)
        if path is None or path in found:
            return None
        found[path] = variable
    return Objects(variables=found, others=tuple(_filled(layout.others, found)))


def _filled(templates: Iterable[str], paths: Iterable[str]) -> Iterator[str]:
    """Yield the paths that templates stand for in a model that has these paths."""
    items: dict[str, dict[str, None]] = {}
    for path in paths:
        for number in _ITEM.finditer(path):
            items.setdefault(_NUMBER.sub("#", path[: number.end()]), {})[path[: number.end()]] = None
    for template in templates:
        item, brace, rest = template.rpartition("}")
        if not brace:
            yield template
            continue
        of_item = re.compile("[0-9]+".join(map(re.escape, _PLACEHOLDER.split(item + brace)[::2])))
        held = items.get(_NUMBER.sub("#", item + brace), ())
        yield from (each + rest for each in held if of_item.fullmatch(each))


@cache
def _layout_of(class_name: str) -> _Layout:
    """Return what the table has of a class, nothing where it does not know it. Raises ValueError for a slip in it."""
    named: dict[str, tuple[tuple[str, str], ...]] = {}
    others: list[str] = []
    for model_type, groups in document(_TABLE)["models"].items():
        for group in groups:
            with naming_entry(_TABLE, model_type):
                for path, name in _rows_of(class_name, **group):
                    if name is None:
                        others.append(path)
                    else:
                        key = _NUMBER.sub("#", name)
                        named[key] = (*named.get(key, ()), (path, name))
    return _Layout(named=named, others=tuple(others))


def _rows_of(
    class_name: str, *, classes: Sequence[str], rows: Sequence[tuple[str, str | None]]
) -> Sequence[tuple[str, str | None]]:
    return rows if class_name in classes else ()

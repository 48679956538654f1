"""The functions of a SavedModel's objects: what each was traced with, read as data and without TensorFlow.

Messages: SavedFunction and SavedConcreteFunction of tensorflow/core/protobuf/saved_object_graph.proto, StructuredValue
of struct.proto, TF 2.21.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from converter.encoding.graph_def import entries
from converter.encoding.protobuf import LENGTH_DELIMITED, VARINT, Message, as_text, fields
from converter.errors import ReadError

_FUNCTION = {1: LENGTH_DELIMITED, 2: LENGTH_DELIMITED}
_FUNCTION_SPEC = {1: LENGTH_DELIMITED}
_CONCRETE = {3: LENGTH_DELIMITED, 4: LENGTH_DELIMITED}
_VALUES, _FIELDS = {1: LENGTH_DELIMITED}, {1: LENGTH_DELIMITED}
_NAMED_TUPLE = {2: LENGTH_DELIMITED}
_PAIR = {1: LENGTH_DELIMITED, 2: LENGTH_DELIMITED}
_SPEC = {1: LENGTH_DELIMITED, 2: LENGTH_DELIMITED, 3: VARINT}
_SHAPE, _DIMENSION = {2: LENGTH_DELIMITED, 3: VARINT}, {1: VARINT}
_NONE, _FLOAT, _INTEGER, _STRING, _BOOLEAN = 1, 11, 12, 13, 14
_PLAIN = (_NONE, _FLOAT, _INTEGER, _STRING, _BOOLEAN, 31, 32)
"""Values that are no tensors: those, shapes and types."""
_TENSOR_SPEC, _BOUNDED_SPEC, _LIST, _TUPLE, _DICTIONARY, _NAMED = 33, 35, 51, 52, 53, 54
_DEPTH_LIMIT = 32
_POSITION = re.compile("[0-9]{1,5}")

Shape = tuple[int | None, ...] | None
Place = tuple[str, ...]
"""Where a leaf is in a structure: positions and keys."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaf:
    """A value inside a structure.

    `type_number`, `shape`   of a tensor, 0 for what is none; `is_other` for what is made of several tensors
    `name`                   of a tensor, where it has one
    `value`                  what else it is, as it is stored
    """

    type_number: int = 0
    shape: Shape = None
    name: str = ""
    value: tuple[int, int | bytes] = (_NONE, b"")
    is_other: bool = False

    @property
    def is_true(self) -> bool:
        """Whether it is the constant True."""
        return self.value == (_BOOLEAN, 1)

    @property
    def text(self) -> str | None:
        """A string's text, None for what is none."""
        kind, value = self.value
        return as_text(value) if kind == _STRING and isinstance(value, bytes) else None


Leaves = tuple[tuple[Place, Leaf], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedFunction:
    """An object that is called: the names of what it was traced as, and of its arguments by position."""

    traced: tuple[str, ...]
    arguments: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Traced:
    """One function of the graph as it is called: leaves in the order of its arguments, and of its results.

    Places of `inputs` start with the name of the argument, or its position where it has none.
    """

    name: str
    inputs: Leaves
    outputs: Leaves


def saved_function(data: memoryview, path: str | None) -> SavedFunction:
    """Return what a SavedFunction says."""
    message = Message.parse(data, _FUNCTION, path)
    spec = Message.parse(message.content(2), _FUNCTION_SPEC, path)
    declared = tuple(_leaves(spec.content(1), path, (), 0)) if spec.has(1) else ()
    return SavedFunction(
        traced=tuple(as_text(each, path) for each in message.repeated(1)),
        arguments=tuple(leaf.text or "" for place, leaf in declared if len(place) == 2 and place[0] == "args"),
    )


def traced(name: str, data: memoryview, function: SavedFunction, path: str | None) -> Traced:
    """Return how the function `name` is called, which `data`, a SavedConcreteFunction, says.

    Raises ReadError when that is not positional and named arguments.
    """
    message = Message.parse(data, _CONCRETE, path)
    found = tuple(_leaves(message.content(3), path, (), 0))
    if not all(_is_argument(place) for place, _ in found):
        raise ReadError(f"has a function ({name!r}) whose arguments are not declared", path=path)
    inputs = []
    for (group, argument, *rest), leaf in found:
        position = int(argument) if group == "0" else len(function.arguments)
        called = function.arguments[position] if position < len(function.arguments) else argument
        inputs.append(((called, *rest), leaf))
    outputs = tuple(_leaves(message.content(4), path, (), 0)) if message.has(4) else ()
    return Traced(name=name, inputs=tuple(inputs), outputs=outputs)


def _is_argument(place: Place) -> bool:
    """Whether it is inside an argument by position, or by name."""
    group, argument = place[:2] if len(place) > 1 else ("", "")
    return group == "1" or (group == "0" and _POSITION.fullmatch(argument) is not None)


def _leaves(data: memoryview, path: str | None, place: Place, depth: int) -> Iterator[tuple[Place, Leaf]]:
    """Yield the leaves of a StructuredValue in TensorFlow's order: dictionaries by their keys."""
    if depth > _DEPTH_LIMIT:
        raise ReadError(f"has a structure nested more than {_DEPTH_LIMIT} deep", path=path)
    found = list(fields(data, path))
    if len(found) > 1:
        raise ReadError("has a structure of several kinds at once", path=path)
    number, _, value = found[0] if found else (_NONE, LENGTH_DELIMITED, memoryview(b""))
    if number in _PLAIN or not isinstance(value, memoryview):
        yield place, Leaf(value=(number, value if isinstance(value, int) else bytes(value)))
    elif number in (_TENSOR_SPEC, _BOUNDED_SPEC):
        yield place, _spec(value, path)
    elif number in (_LIST, _TUPLE):
        for position, each in enumerate(Message.parse(value, _VALUES, path).repeated(1)):
            yield from _leaves(each, path, (*place, str(position)), depth + 1)
    elif number in (_DICTIONARY, _NAMED):
        for key, each in _members(number, value, path):
            yield from _leaves(each, path, (*place, key), depth + 1)
    else:
        yield place, Leaf(is_other=True)


def _members(number: int, data: memoryview, path: str | None) -> list[tuple[str, memoryview]]:
    if number == _DICTIONARY:
        return sorted(entries(Message.parse(data, _FIELDS, path).repeated(1), path), key=lambda member: member[0])
    pairs = [Message.parse(each, _PAIR, path) for each in Message.parse(data, _NAMED_TUPLE, path).repeated(2)]
    return [(pair.text(1), pair.content(2)) for pair in pairs]


def _spec(data: memoryview, path: str | None) -> Leaf:
    message = Message.parse(data, _SPEC, path)
    return Leaf(name=message.text(1), type_number=message.unsigned(3), shape=shape_of(message.content(2), path))


def shape_of(data: memoryview, path: str | None) -> Shape:
    """Return what a TensorShapeProto says; None for an unknown rank, and for an extent that is free."""
    shape = Message.parse(data, _SHAPE, path)
    extents = tuple(Message.parse(each, _DIMENSION, path).signed(1) for each in shape.repeated(2))
    return None if shape.unsigned(3) else tuple(None if extent < 0 else extent for extent in extents)

"""TensorFlow's graphs without TensorFlow: nodes and functions read one by one, and written anew.

Messages: tensorflow/core/framework/{graph,node_def,function,op_def,attr_value,tensor,versions}.proto, TF 2.21. What is
written holds what was read here and nothing else: no device, no attribute that is an annotation (`_...`), no default of
a parameter, no gradient, no debug information, no field that is not known. So TensorFlow is never handed a message that
it could read otherwise than it was inspected.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from converter.encoding.protobuf import (
    FIXED32,
    LENGTH_DELIMITED,
    VARINT,
    Message,
    as_text,
    content_field,
    content_fields,
    fields,
    number_field,
)
from converter.errors import ReadError, SafetyError

_GRAPH = dict.fromkeys((1, 2, 4), LENGTH_DELIMITED)
_LIBRARY = dict.fromkeys((1, 2), LENGTH_DELIMITED)
_VERSIONS = {1: VARINT, 2: VARINT}
_GRADIENT = dict.fromkeys((1, 2), LENGTH_DELIMITED)
_FUNCTION = dict.fromkeys((1, 3, 4, 5, 6, 7), LENGTH_DELIMITED)
_SIGNATURE = {1: LENGTH_DELIMITED, 2: LENGTH_DELIMITED, 3: LENGTH_DELIMITED, 4: LENGTH_DELIMITED, 17: VARINT}
_SIGNATURE |= {20: LENGTH_DELIMITED}
_ARGUMENT = {1: LENGTH_DELIMITED, 3: VARINT, 4: LENGTH_DELIMITED, 5: LENGTH_DELIMITED, 6: LENGTH_DELIMITED}
_ARGUMENT_ATTRIBUTES = {1: LENGTH_DELIMITED}
_NODE = dict.fromkeys((1, 2, 3, 5), LENGTH_DELIMITED)
_NAMED = {1: LENGTH_DELIMITED}
_ENTRY = {1: LENGTH_DELIMITED, 2: LENGTH_DELIMITED}
_NUMBERED_ENTRY = {1: VARINT, 2: LENGTH_DELIMITED}
_TENSOR = {1: VARINT, 14: LENGTH_DELIMITED, 15: LENGTH_DELIMITED}
_LIST, _TEXT, _TRUTH, _TYPE, _SHAPE, _TENSOR_VALUE, _OF_CALLER, _CALLED = 1, 2, 5, 6, 7, 8, 9, 10
_VALUES = {1: LENGTH_DELIMITED, 2: LENGTH_DELIMITED, 3: VARINT, 4: FIXED32, 5: VARINT, 6: VARINT}
_VALUES |= dict.fromkeys((7, 8, 9, 10), LENGTH_DELIMITED)
_LISTED = frozenset(range(2, 10))
_LISTED_SHAPES, _LISTED_TENSORS, _LISTED_CALLED = 7, 8, 9
_RESOURCE, _VARIANT, _REFERENCE = 20, 21, 100
_DEPTH_LIMIT = 8
_INPUT = re.compile(r"\^[^:]+|[^^:][^:]*(:[^:0-9][^:]*)?(:[0-9]{1,5})?")
"""`^node`, `node`, `node:1` and, in functions, `node:output:0`; more outputs than that no operator has."""
_VARIABLE, _OF_RESOURCE = "VarHandleOp", "shared_name"
_LOCAL = ("container", _OF_RESOURCE, "allowed_devices", "debug_name", "config", "config_proto", "executor_type")
"""Attributes of variables and calls that say where and how they are run: TensorFlow has its own way here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attribute:
    """A value as it is stored, which of AttrValue's alternatives it is (0 for none), the functions that it names."""

    data: memoryview
    kind: int
    functions: tuple[str, ...]

    @classmethod
    def of_types(cls, numbers: int | Sequence[int]) -> Attribute:
        """Return a type, or a list of types, by their numbers."""
        if isinstance(numbers, int):
            return cls(data=memoryview(number_field(_TYPE, numbers)), kind=_TYPE, functions=())
        listed = b"".join(number_field(_TYPE, number) for number in numbers)
        return cls(data=memoryview(content_field(_LIST, listed)), kind=_LIST, functions=())

    @classmethod
    def of_shape(cls, extents: Sequence[int | None] | None) -> Attribute:
        """Return a shape; None is an extent that is free, and no extents an unknown rank."""
        dimensions = (number_field(1, -1 if each is None else each) for each in extents or ())
        shape = number_field(3, 1) if extents is None else content_fields(2, dimensions)
        return cls(data=memoryview(content_field(_SHAPE, shape)), kind=_SHAPE, functions=())

    @classmethod
    def of_function(cls, name: str) -> Attribute:
        """Return a function that is called."""
        data = content_field(_CALLED, content_field(1, name))
        return cls(data=memoryview(data), kind=_CALLED, functions=(name,))

    @property
    def text(self) -> str:
        """A string's text, empty for what is none."""
        return self._message().text(_TEXT) if self.kind == _TEXT else ""

    @property
    def type_number(self) -> int:
        """A type's number, 0 for what is none."""
        return self._message().unsigned(_TYPE) if self.kind == _TYPE else 0

    @property
    def is_true(self) -> bool:
        """Whether it is the truth value True."""
        return self.kind == _TRUTH and bool(self._message().unsigned(_TRUTH))

    @property
    def called(self) -> tuple[str, ...]:
        """The functions that it is, or is a list of; not those that only their attributes name."""
        if self.kind == _CALLED:
            return (_named(self._message().content(_CALLED)),)
        if self.kind == _LIST:
            listed = Message.parse(self._message().content(_LIST), {_LISTED_CALLED: LENGTH_DELIMITED})
            return tuple(_named(each) for each in listed.repeated(_LISTED_CALLED))
        return ()

    def encoded(self) -> bytes:
        """The value with nothing but the names of functions: none is made for attributes of its callers."""
        functions = [content_field(1, name) for name in self.called]
        if self.kind == _CALLED:
            return content_field(_CALLED, functions[0])
        return content_field(_LIST, content_fields(_LISTED_CALLED, functions)) if functions else bytes(self.data)

    def is_shapes(self) -> bool:
        """Whether it is a list of shapes."""
        if self.kind != _LIST:
            return False
        return all(number == _LISTED_SHAPES for number, _, _ in fields(self._message().content(_LIST)))

    def _message(self) -> Message:
        return Message.parse(self.data, _VALUES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One operation: its operator, what it takes (`node:1`, `^node`), its attributes."""

    name: str
    operator: str
    inputs: tuple[str, ...]
    attributes: Mapping[str, Attribute]

    @property
    def functions(self) -> tuple[str, ...]:
        """The functions that attributes name, in functions' own attributes and in annotations too."""
        return tuple(name for attribute in self.attributes.values() for name in attribute.functions)

    @property
    def sources(self) -> tuple[str, ...]:
        """The nodes that it takes from, or waits for."""
        return tuple(map(node_of, self.inputs))

    def text(self, key: str) -> str:
        """Return an attribute that is text, empty for one that is none or not there."""
        return self.attributes[key].text if key in self.attributes else ""

    def encoded(self) -> bytes:
        """The NodeDef anew, without device and annotations; what a node holds on to is called as the node is."""
        entries = [
            content_field(1, key) + content_field(2, value.encoded())
            for key, value in self.attributes.items()
            if not key.startswith("_") and key not in _LOCAL
        ]
        if self.operator == _VARIABLE or _OF_RESOURCE in self.attributes:
            entries.append(content_field(1, _OF_RESOURCE) + content_field(2, content_field(_TEXT, self.name)))
        inputs = content_fields(3, self.inputs)
        return content_field(1, self.name) + content_field(2, self.operator) + inputs + content_fields(5, entries)


@dataclass(frozen=True, slots=True, kw_only=True)
class Argument:
    """An argument or a result of a function, of the type of that number."""

    name: str
    type_number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Function:
    """A function of the library.

    `returned`, `controls`   result, and control output, -> what is returned for it, and the node that it is
    `shapes`                 the arguments' shapes: by the function, and by argument
    """

    name: str
    arguments: tuple[Argument, ...]
    results: tuple[Argument, ...]
    control_outputs: tuple[str, ...]
    is_stateful: bool
    nodes: tuple[Node, ...]
    returned: Mapping[str, str]
    controls: Mapping[str, str]
    shapes: Attribute | None
    argument_shapes: Mapping[int, Attribute]

    def encoded(self) -> bytes:
        """The FunctionDef anew."""
        signature = content_field(1, self.name) + _arguments_field(2, self.arguments)
        signature += _arguments_field(3, self.results) + number_field(17, int(self.is_stateful))
        signature += content_fields(20, self.control_outputs)
        encoded = content_field(1, signature) + content_fields(3, (node.encoded() for node in self.nodes))
        encoded += _texts_field(4, self.returned) + _texts_field(6, self.controls)
        if self.shapes is not None:
            encoded += content_field(5, content_field(1, "_input_shapes") + content_field(2, self.shapes.encoded()))
        for position, shape in self.argument_shapes.items():
            entry = content_field(1, "_output_shapes") + content_field(2, shape.encoded())
            encoded += content_field(7, number_field(1, position) + content_field(2, content_field(1, entry)))
        return encoded


class Graph:
    """A GraphDef whose nodes and functions are read when they are asked for.

    Raises ReadError when it is malformed, or has two nodes or two functions of one name; SafetyError for a constant
    that is a handle, and for what a caller would have to fill in.
    """

    def __init__(self, data: memoryview, path: str | None = None) -> None:
        self._path = path
        message = Message.parse(data, _GRAPH, path)
        library = Message.parse(message.content(2), _LIBRARY, path)
        self._nodes = self._by_name("nodes", ((_named(each, path), each) for each in message.repeated(1)))
        self._functions = self._by_name("functions", ((self._called(each), each) for each in library.repeated(1)))
        self._gradients: dict[str, list[str]] = {}
        for each in library.repeated(2):
            gradient = Message.parse(each, _GRADIENT, path)
            self._gradients.setdefault(gradient.text(1), []).append(gradient.text(2))
        versions = Message.parse(message.content(4), _VERSIONS, path)
        self._versions = number_field(1, versions.unsigned(1)) + number_field(2, versions.unsigned(2))
        self._read: dict[str, Node] = {}

    @property
    def nodes(self) -> Iterable[str]:
        """The names of the nodes of the main graph."""
        return self._nodes.keys()

    @property
    def functions(self) -> Iterable[str]:
        """The names of the functions."""
        return self._functions.keys()

    def node(self, name: str) -> Node:
        """Return a node of the main graph. Raises ReadError when there is none."""
        if name not in self._nodes:
            raise ReadError(f"has no node {name!r}, and its graph needs one", path=self._path)
        if name not in self._read:
            self._read[name] = _node(self._nodes[name], self._path)
        return self._read[name]

    def function(self, name: str) -> Function:
        """Return a function of the library."""
        return _function(self._functions[name], self._path)

    def gradients(self, name: str) -> list[str]:
        """Return the functions that are declared as gradients of a function."""
        return [each for each in self._gradients.get(name, ()) if each in self._functions]

    def encoded(self, nodes: Iterable[Node], functions: Iterable[Function]) -> bytes:
        """Return a GraphDef of these nodes and functions, in this order."""
        library = content_fields(1, (function.encoded() for function in functions))
        return (
            content_fields(1, (node.encoded() for node in nodes))
            + content_field(2, library)
            + content_field(4, self._versions)
        )

    def _called(self, function: memoryview) -> str:
        return _named(Message.parse(function, _FUNCTION, self._path).content(1), self._path)

    def _by_name(self, what: str, found: Iterable[tuple[str, memoryview]]) -> dict[str, memoryview]:
        named: dict[str, memoryview] = {}
        for name, data in found:
            if name in named:
                raise ReadError(f"has two {what} called {name!r}", path=self._path)
            named[name] = data
        return named


def node_of(reference: str) -> str:
    """Return the node that `^node`, `node:1` and `node:output:0` refer to."""
    return reference.removeprefix("^").partition(":")[0]


def entries(data: Iterable[memoryview], path: str | None = None) -> Iterator[tuple[str, memoryview]]:
    """Yield key and value of a map from text. Raises ReadError when a key is there twice."""
    seen: set[str] = set()
    for each in data:
        entry = Message.parse(each, _ENTRY, path)
        key = entry.text(1)
        if key in seen:
            raise ReadError(f"has two entries called {key!r} in one map", path=path)
        seen.add(key)
        yield key, entry.content(2)


def _reference(data: memoryview, path: str | None) -> str:
    text = as_text(data, path)
    if not _INPUT.fullmatch(text):
        raise ReadError(f"has a node that takes {text!r}, which is no output of a node", path=path)
    return text


def _named(data: memoryview, path: str | None = None) -> str:
    return Message.parse(data, _NAMED, path).text(1)


def _node(data: memoryview, path: str | None) -> Node:
    message = Message.parse(data, _NODE, path)
    return Node(
        name=message.text(1),
        operator=message.text(2),
        inputs=tuple(_reference(each, path) for each in message.repeated(3)),
        attributes={key: _attribute(value, path, 0) for key, value in entries(message.repeated(5), path)},
    )


def _function(data: memoryview, path: str | None) -> Function:
    message = Message.parse(data, _FUNCTION, path)
    signature = Message.parse(message.content(1), _SIGNATURE, path)
    if signature.has(4):
        raise SafetyError(f"has a function ({signature.text(1)!r}) that is made for its caller's types", path=path)
    attributes = dict(entries(message.repeated(5), path))
    shapes = None if "_input_shapes" not in attributes else _attribute(attributes["_input_shapes"], path, 0)
    return Function(
        name=signature.text(1),
        arguments=tuple(_argument(each, path) for each in signature.repeated(2)),
        results=tuple(_argument(each, path) for each in signature.repeated(3)),
        control_outputs=tuple(as_text(each, path) for each in signature.repeated(20)),
        is_stateful=bool(signature.unsigned(17)),
        nodes=tuple(_node(each, path) for each in message.repeated(3)),
        returned={key: _reference(value, path) for key, value in entries(message.repeated(4), path)},
        controls={key: _reference(value, path) for key, value in entries(message.repeated(6), path)},
        shapes=shapes if shapes is not None and shapes.is_shapes() else None,
        argument_shapes=dict(_argument_shapes(message.repeated(7), path)),
    )


def _argument(data: memoryview, path: str | None) -> Argument:
    message = Message.parse(data, _ARGUMENT, path)
    if any(map(message.has, (4, 5, 6))):
        raise SafetyError(f"has a function with an argument ({message.text(1)!r}) of its caller's type", path=path)
    return Argument(name=message.text(1), type_number=message.unsigned(3))


def _argument_shapes(data: Iterable[memoryview], path: str | None) -> Iterator[tuple[int, Attribute]]:
    for each in data:
        entry = Message.parse(each, _NUMBERED_ENTRY, path)
        attributes = Message.parse(entry.content(2), _ARGUMENT_ATTRIBUTES, path)
        for key, value in entries(attributes.repeated(1), path):
            shapes = _attribute(value, path, 0)
            if key == "_output_shapes" and shapes.is_shapes():
                yield entry.unsigned(1), shapes


def _attribute(data: memoryview, path: str | None, depth: int) -> Attribute:
    if depth > _DEPTH_LIMIT:
        raise ReadError(f"has attributes nested more than {_DEPTH_LIMIT} deep", path=path)
    values = list(fields(data, path))
    if len(values) > 1 or any(_VALUES.get(number) != wire_type for number, wire_type, _ in values):
        raise ReadError("has an attribute that is not one value of a known kind", path=path)
    if not values:
        return Attribute(data=data, kind=0, functions=())
    kind, _, value = values[0]
    called: list[memoryview] = []
    if kind == _OF_CALLER:
        raise SafetyError("has an attribute whose value is its caller's to say", path=path)
    if kind == _LIST and isinstance(value, memoryview):
        called = list(_listed(value, path))
    elif kind == _TENSOR_VALUE and isinstance(value, memoryview):
        _check_constant(value, path)
    elif kind == _CALLED and isinstance(value, memoryview):
        called = [value]
    functions = tuple(name for each in called for name in _functions_of(each, path, depth))
    return Attribute(data=data, kind=kind, functions=functions)


def _listed(data: memoryview, path: str | None) -> Iterator[memoryview]:
    """Yield the functions of a list. Raises ReadError for a list of several kinds with functions in it."""
    kinds: set[int] = set()
    for number, wire_type, value in fields(data, path):
        kinds.add(number)
        is_content = isinstance(value, memoryview)
        if number not in _LISTED or (number >= _LISTED_SHAPES and not is_content):
            raise ReadError("has a list of values of an unknown kind", path=path)
        if number == _LISTED_TENSORS and wire_type == LENGTH_DELIMITED and isinstance(value, memoryview):
            _check_constant(value, path)
        if number == _LISTED_CALLED and wire_type == LENGTH_DELIMITED and isinstance(value, memoryview):
            yield value
    if _LISTED_CALLED in kinds and len(kinds) > 1:
        raise ReadError("has a list of functions and of something else", path=path)


def _functions_of(data: memoryview, path: str | None, depth: int) -> Iterator[str]:
    message = Message.parse(data, _ENTRY, path)
    yield message.text(1)
    for _, value in entries(message.repeated(2), path):
        yield from _attribute(value, path, depth + 1).functions


def _check_constant(data: memoryview, path: str | None) -> None:
    message = Message.parse(data, _TENSOR, path)
    number = message.unsigned(1)
    if number in (_RESOURCE, _VARIANT) or number >= _REFERENCE or message.has(14) or message.has(15):
        raise SafetyError("has a constant that is a handle or an object, not numbers or text", path=path)


def _arguments_field(number: int, arguments: Iterable[Argument]) -> bytes:
    encoded = (content_field(1, each.name) + number_field(3, each.type_number) for each in arguments)
    return content_fields(number, encoded)


def _texts_field(number: int, texts: Mapping[str, str]) -> bytes:
    return content_fields(number, (content_field(1, key) + content_field(2, value) for key, value in texts.items()))

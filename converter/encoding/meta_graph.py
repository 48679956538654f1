"""What a `saved_model.pb` says around its graph, without TensorFlow: signatures, objects, which variables are trained.

Messages: tensorflow/core/protobuf/{saved_model,meta_graph,saved_object_graph}.proto and
tensorflow/core/framework/variable.proto, TF 2.21. All of it is data here: savers, initialisers, assets and collections
are what a loader would run. Nothing else reads them, but for the constants that initialisers put into tables.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from converter.encoding.graph_def import Graph, entries, node_of
from converter.encoding.protobuf import LENGTH_DELIMITED, VARINT, Message, as_text, fields, read_varint
from converter.encoding.saved_function import SavedFunction, saved_function, shape_of
from converter.errors import ReadError

_SAVED_MODEL = {2: LENGTH_DELIMITED}
_META_GRAPH = dict.fromkeys((1, 2, 4, 5, 7), LENGTH_DELIMITED)
_INFO = {4: LENGTH_DELIMITED}
_SIGNATURE = {1: LENGTH_DELIMITED, 2: LENGTH_DELIMITED}
_TENSOR_INFO = {1: LENGTH_DELIMITED, 2: VARINT, 3: LENGTH_DELIMITED, 4: LENGTH_DELIMITED, 5: LENGTH_DELIMITED}
_COLLECTION = {1: LENGTH_DELIMITED, 2: LENGTH_DELIMITED}
_VALUES = {1: LENGTH_DELIMITED}
_OBJECTS = {1: LENGTH_DELIMITED, 2: LENGTH_DELIMITED}
_OBJECT = dict.fromkeys((1, 6, 7, 9), LENGTH_DELIMITED)
_CHILD = {1: VARINT, 2: LENGTH_DELIMITED}
_VARIABLE = {1: VARINT, 2: LENGTH_DELIMITED, 3: VARINT, 6: LENGTH_DELIMITED}
_CONSTANT = {1: LENGTH_DELIMITED}
_BOUND_INPUTS = 2
_VARIABLE_NAME = {1: LENGTH_DELIMITED}
_TRAINED = "trainable_variables"
_INITIALISERS = ("saved_model_main_op", "legacy_init_op", "table_initializer")
"""Of these a loader runs the first that there is, and none beside the signature below."""
_INITIALISING = "__saved_model_init_op"


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorInfo:
    """A tensor of the main graph that a signature names, empty for several in one; None is a free extent."""

    tensor: str
    type_number: int
    shape: tuple[int | None, ...] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """What a signature takes and returns, by name."""

    inputs: Mapping[str, TensorInfo]
    outputs: Mapping[str, TensorInfo]


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedVariable:
    """A variable among the objects."""

    name: str
    type_number: int
    shape: tuple[int | None, ...] | None
    is_trainable: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedObject:
    """An object: its children by local name, and the variable, the function or the constant's node that it is."""

    children: Mapping[str, int]
    variable: SavedVariable | None
    function: SavedFunction | None
    constant: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class MetaGraph:
    """A graph and its description.

    `objects`       None for a graph of TensorFlow 1, which has none
    `captures`      function -> the objects that are its last arguments
    `traced`        function of an object -> how it is called, as it is stored
    `trained`       the variables of TensorFlow 1 that are trained
    `initialisers`  nodes that a loader would run first: they fill tables
    """

    graph: Graph
    signatures: Mapping[str, Signature]
    objects: tuple[SavedObject, ...] | None
    captures: Mapping[str, tuple[int, ...]]
    traced: Mapping[str, memoryview]
    trained: frozenset[str]
    initialisers: tuple[str, ...]


def meta_graph(data: bytes | memoryview, tag: str, path: str | None = None) -> MetaGraph | None:
    """Return the first graph with this tag, None when there is none. Raises ReadError for what is malformed."""
    for each in Message.parse(data, _SAVED_MODEL, path).repeated(2):
        message = Message.parse(each, _META_GRAPH, path)
        tags = Message.parse(message.content(1), _INFO, path).repeated(4)
        if tag in [as_text(found, path) for found in tags]:
            return _meta_graph(message, path)
    return None


def _meta_graph(message: Message, path: str | None) -> MetaGraph:
    collections = dict(entries(message.repeated(4), path))
    signatures = {
        name: _signature(Message.parse(content, _SIGNATURE, path), path)
        for name, content in entries(message.repeated(5), path)
    }
    saved = Message.parse(message.content(7), _OBJECTS, path)
    objects = tuple(_object(each, path) for each in saved.repeated(1))
    traced = dict(entries(saved.repeated(2), path))
    captures = {name: tuple(_bound_inputs(content, len(objects), path)) for name, content in traced.items()}
    if _INITIALISING in signatures:
        initialisers = [node_of(each.tensor) for each in signatures[_INITIALISING].outputs.values()]
    else:
        listed = [_listed(collections[name], path) for name in _INITIALISERS if name in collections]
        initialisers = list(listed[0]) if listed else []
    return MetaGraph(
        graph=Graph(message.content(2), path),
        signatures=signatures,
        objects=objects if message.has(7) else None,
        captures=captures,
        traced=traced,
        trained=frozenset(_names_of_variables(collections[_TRAINED], path) if _TRAINED in collections else ()),
        initialisers=tuple(initialisers),
    )


def _signature(message: Message, path: str | None) -> Signature:
    return Signature(
        inputs={name: _tensor_info(content, path) for name, content in entries(message.repeated(1), path)},
        outputs={name: _tensor_info(content, path) for name, content in entries(message.repeated(2), path)},
    )


def _tensor_info(data: memoryview, path: str | None) -> TensorInfo:
    message = Message.parse(data, _TENSOR_INFO, path)
    return TensorInfo(
        tensor="" if message.has(4) or message.has(5) else message.text(1),
        type_number=message.unsigned(2),
        shape=shape_of(message.content(3), path),
    )


def _object(data: memoryview, path: str | None) -> SavedObject:
    message = Message.parse(data, _OBJECT, path)
    references = [Message.parse(each, _CHILD, path) for each in message.repeated(1)]
    variable = None
    if message.has(7):
        described = Message.parse(message.content(7), _VARIABLE, path)
        variable = SavedVariable(
            name=described.text(6),
            type_number=described.unsigned(1),
            shape=shape_of(described.content(2), path),
            is_trainable=bool(described.unsigned(3)),
        )
    return SavedObject(
        children={each.text(2): each.signed(1) for each in references},
        variable=variable,
        function=saved_function(message.content(6), path) if message.has(6) else None,
        constant=Message.parse(message.content(9), _CONSTANT, path).text(1) if message.has(9) else None,
    )


def _bound_inputs(data: memoryview, count: int, path: str | None) -> Iterator[int]:
    """Yield the numbers of a repeated int32, packed or not. Raises ReadError for an object that is not there."""
    for number, _, value in fields(data, path):
        if number != _BOUND_INPUTS:
            continue
        for index in (value,) if isinstance(value, int) else _packed(value, path):
            if index >= count:
                raise ReadError("has a function that captures an object which is not there", path=path)
            yield index


def _packed(data: memoryview, path: str | None) -> Iterator[int]:
    position = 0
    while position < len(data):
        value, position = read_varint(data, position, path)
        yield value


def _listed(data: memoryview, path: str | None) -> Iterator[str]:
    """Yield the nodes that a collection lists by name."""
    names = Message.parse(Message.parse(data, _COLLECTION, path).content(1), _VALUES, path)
    yield from (node_of(as_text(each, path)) for each in names.repeated(1))


def _names_of_variables(data: memoryview, path: str | None) -> Iterable[str]:
    """Yield the nodes of the variables that a collection holds as VariableDef messages."""
    values = Message.parse(Message.parse(data, _COLLECTION, path).content(2), _VALUES, path)
    for each in values.repeated(1):
        yield node_of(Message.parse(each, _VARIABLE_NAME, path).text(1))

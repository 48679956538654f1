"""TensorFlow's graphs as a SavedModel stores them, without TensorFlow: which operators there are, and who runs them.

Messages: tensorflow/core/framework/{graph,node_def,function,attr_value}.proto, tensorflow/core/protobuf/{meta_graph,
saver}.proto, TF 2.21. Only what an inspection needs is kept: names, operators, edges, and the functions that
attributes refer to.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from converter.encoding.protobuf import LENGTH_DELIMITED, Message, as_text
from converter.errors import ReadError

_SAVED_MODEL = {2: LENGTH_DELIMITED}
_META_GRAPH = dict.fromkeys((2, 3, 4, 5, 7), LENGTH_DELIMITED)
_GRAPH = {1: LENGTH_DELIMITED, 2: LENGTH_DELIMITED}
_LIBRARY = {1: LENGTH_DELIMITED, 2: LENGTH_DELIMITED, 3: LENGTH_DELIMITED}
_FUNCTION = {1: LENGTH_DELIMITED, 3: LENGTH_DELIMITED, 5: LENGTH_DELIMITED}
_NODE = {1: LENGTH_DELIMITED, 2: LENGTH_DELIMITED, 3: LENGTH_DELIMITED, 5: LENGTH_DELIMITED}
_ENTRY = {1: LENGTH_DELIMITED, 2: LENGTH_DELIMITED}
_ATTRIBUTE = {1: LENGTH_DELIMITED, 10: LENGTH_DELIMITED}
_LIST = {9: LENGTH_DELIMITED}
_CALLED = {1: LENGTH_DELIMITED, 2: LENGTH_DELIMITED}
_SAVER = {1: LENGTH_DELIMITED, 2: LENGTH_DELIMITED, 3: LENGTH_DELIMITED}
_SIGNATURE = {1: LENGTH_DELIMITED, 2: LENGTH_DELIMITED, 3: LENGTH_DELIMITED}
_NAMED = {1: LENGTH_DELIMITED}
_ATTRIBUTE_DEPTH_LIMIT = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One operation: its operator, the nodes it takes from, and the functions its attributes name."""

    name: str
    operator: str
    inputs: tuple[str, ...]
    calls: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class MetaGraph:
    """A graph with its function library.

    `nodes`, `functions`   the main graph, and each function of the library, by name
    `savers`       nodes of the main graph that save and restore variables
    `signatures`   signature -> the nodes of the main graph that compute its outputs
    `listed`       nodes that a collection lists: those that initialise a graph of TensorFlow 1 among them
    """

    nodes: Mapping[str, Node]
    functions: Mapping[str, tuple[Node, ...]]
    savers: tuple[str, ...]
    signatures: Mapping[str, tuple[str, ...]]
    listed: tuple[str, ...]


def meta_graphs(data: bytes | memoryview, path: str | None = None) -> tuple[MetaGraph, ...]:
    """Return the graphs of a `saved_model.pb`. Raises ReadError when it is malformed or says a name twice."""
    return tuple(_meta_graph(each, path) for each in Message.parse(data, _SAVED_MODEL, path).repeated(2))


def _meta_graph(data: memoryview, path: str | None) -> MetaGraph:
    message = Message.parse(data, _META_GRAPH, path)
    graph = Message.parse(message.content(2), _GRAPH, path)
    library = Message.parse(graph.content(2), _LIBRARY, path)
    functions: dict[str, tuple[Node, ...]] = {}
    for each in library.repeated(1):
        function = Message.parse(each, _FUNCTION, path)
        name = Message.parse(function.content(1), _NAMED, path).text(1)
        if name in functions:
            raise ReadError(f"has two functions called {name!r}", path=path)
        functions[name] = tuple(_node(node, path) for node in function.repeated(3))
    nodes: dict[str, Node] = {}
    for node in (_node(each, path) for each in graph.repeated(1)):
        if node.name in nodes:
            raise ReadError(f"has two nodes called {node.name!r}", path=path)
        nodes[node.name] = node
    saver = Message.parse(message.content(3), _SAVER, path)
    savers = {_node_of(saver.text(number)) for number in (1, 2, 3)}
    return MetaGraph(
        nodes=nodes,
        functions=functions,
        savers=tuple(sorted(savers & nodes.keys())),
        signatures=dict(_signatures(message.repeated(5), path)),
        listed=tuple(_listed(message.repeated(4), path)),
    )


def _node(data: memoryview, path: str | None) -> Node:
    message = Message.parse(data, _NODE, path)
    calls: list[str] = []
    for entry in message.repeated(5):
        calls += _functions_of(Message.parse(entry, _ENTRY, path).content(2), path, 0)
    return Node(
        name=message.text(1),
        operator=message.text(2),
        inputs=tuple(_node_of(as_text(each, path)) for each in message.repeated(3)),
        calls=tuple(calls),
    )


def _functions_of(attribute: memoryview, path: str | None, depth: int) -> Iterator[str]:
    """Yield the functions that an attribute names, in lists and in the attributes of functions too."""
    if depth > _ATTRIBUTE_DEPTH_LIMIT:
        raise ReadError(f"has attributes nested more than {_ATTRIBUTE_DEPTH_LIMIT} deep", path=path)
    message = Message.parse(attribute, _ATTRIBUTE, path)
    called = list(message.repeated(10))
    for values in message.repeated(1):
        called += Message.parse(values, _LIST, path).repeated(9)
    for each in called:
        function = Message.parse(each, _CALLED, path)
        yield function.text(1)
        for entry in function.repeated(2):
            yield from _functions_of(Message.parse(entry, _ENTRY, path).content(2), path, depth + 1)


def _signatures(entries: Iterable[memoryview], path: str | None) -> Iterator[tuple[str, tuple[str, ...]]]:
    for entry in entries:
        pair = Message.parse(entry, _ENTRY, path)
        signature = Message.parse(pair.content(2), _SIGNATURE, path)
        outputs = [Message.parse(each, _ENTRY, path).content(2) for each in signature.repeated(2)]
        yield pair.text(1), tuple(_node_of(Message.parse(each, _NAMED, path).text(1)) for each in outputs)


def _listed(entries: Iterable[memoryview], path: str | None) -> Iterator[str]:
    for entry in entries:
        collection = Message.parse(Message.parse(entry, _ENTRY, path).content(2), _NAMED, path)
        for names in collection.repeated(1):
            yield from (_node_of(as_text(name, path)) for name in Message.parse(names, _NAMED, path).repeated(1))


def _node_of(reference: str) -> str:
    """Return the node that `^node`, `node:1` and `node:output:0` refer to."""
    return reference.removeprefix("^").partition(":")[0]

"""SavedModels as TensorFlow writes them, message by message and without it, for what reads them as data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from converter.encoding.graph_def import Attribute
from converter.encoding.meta_graph import MetaGraph, meta_graph
from converter.encoding.protobuf import content_field, content_fields, number_field, tag, varint

FLOAT, INT32, STRING, INT64, RESOURCE = 1, 3, 7, 9, 20
Value = bytes
"""A StructuredValue."""


def text_attribute(text: str) -> bytes:
    return content_field(2, text)


def types(*numbers: int) -> bytes:
    return bytes(Attribute.of_types(numbers).data)


def type_(number: int) -> bytes:
    return bytes(Attribute.of_types(number).data)


def function_named(name: str) -> bytes:
    return bytes(Attribute.of_function(name).data)


def node(name: str, operator: str, *inputs: str, device: str = "", **attributes: bytes) -> bytes:
    """A NodeDef; attributes are AttrValues."""
    entries = (content_field(1, key) + content_field(2, value) for key, value in attributes.items())
    placed = content_field(4, device) if device else b""
    return (
        content_field(1, name)
        + content_field(2, operator)
        + content_fields(3, inputs)
        + placed
        + content_fields(5, entries)
    )


def function(
    name: str,
    *nodes: bytes,
    takes: Mapping[str, int] | None = None,
    returns: Mapping[str, tuple[int, str]] | None = None,
    more: bytes = b"",
) -> bytes:
    """A FunctionDef: types by argument, type and node by result; `more` is added to its OpDef."""
    results = returns or {}
    signature = content_field(1, name)
    signature += content_fields(
        2, (content_field(1, key) + number_field(3, kind) for key, kind in (takes or {}).items())
    )
    signature += content_fields(
        3, (content_field(1, key) + number_field(3, kind) for key, (kind, _) in results.items())
    )
    returned = (content_field(1, key) + content_field(2, of) for key, (_, of) in results.items())
    return content_field(1, signature + more) + content_fields(3, nodes) + content_fields(4, returned)


def graph_def(
    nodes: Sequence[bytes] = (), functions: Sequence[bytes] = (), *, versions: tuple[int, int] = (2000, 12)
) -> bytes:
    """A GraphDef."""
    said = number_field(1, versions[0]) + number_field(2, versions[1])
    return content_fields(1, nodes) + content_field(2, content_fields(1, functions)) + content_field(4, said)


# structured values


def shape(*extents: int | None) -> bytes:
    """A TensorShapeProto."""
    return content_fields(2, (number_field(1, -1 if each is None else each) for each in extents))


def tensor(name: str = "", kind: int = FLOAT, *extents: int | None, is_unknown: bool = False) -> Value:
    said = number_field(3, 1) if is_unknown else shape(*extents)
    return content_field(33, content_field(1, name) + content_field(2, said) + number_field(3, kind))


def nothing() -> Value:
    return content_field(1, b"")


def word(text: str) -> Value:
    return content_field(13, text)


def truth(value: bool) -> Value:
    return tag(14, 0) + varint(int(value))


def listed(*values: Value) -> Value:
    return content_field(51, content_fields(1, values))


def tuple_(*values: Value) -> Value:
    return content_field(52, content_fields(1, values))


def dictionary(**values: Value) -> Value:
    return content_field(53, _items(values))


def named_tuple(name: str, **values: Value) -> Value:
    pairs = (content_field(1, key) + content_field(2, value) for key, value in values.items())
    return content_field(54, content_field(1, name) + content_fields(2, pairs))


def ragged() -> Value:
    """A TypeSpec of several tensors."""
    return content_field(34, b"")


def _items(values: Mapping[str, Value]) -> bytes:
    return content_fields(1, (content_field(1, key) + content_field(2, value) for key, value in values.items()))


def concrete(arguments: Value, results: Value | None, *captured: int) -> bytes:
    """A SavedConcreteFunction."""
    packed = content_field(2, b"".join(map(varint, captured))) if captured else b""
    return packed + content_field(3, arguments) + (b"" if results is None else content_field(4, results))


# objects


def child(name: str, place: int) -> bytes:
    return content_field(1, number_field(1, place) + content_field(2, name))


def variable(name: str, kind: int, *extents: int | None, is_trainable: bool = True) -> bytes:
    said = number_field(1, kind) + content_field(2, shape(*extents)) + number_field(3, int(is_trainable))
    return content_field(7, said + content_field(6, name))


def constant(name: str) -> bytes:
    return content_field(9, content_field(1, name))


def called(*names: str, arguments: Sequence[str] | None = None) -> bytes:
    """A SavedFunction that was traced as `names`."""
    said = b""
    if arguments is not None:
        said = content_field(1, named_tuple("FullArgSpec", args=listed(*map(word, arguments))))
    return content_field(6, content_fields(1, names) + content_field(2, said))


def saved_model(
    graph: bytes,
    *,
    objects: Sequence[bytes] | None = (),
    functions: Mapping[str, bytes] | None = None,
    signatures: Mapping[str, bytes] | None = None,
    collections: Mapping[str, bytes] | None = None,
    tags: Sequence[str] = ("serve",),
) -> bytes:
    """A SavedModel of one graph."""
    whole = content_field(1, content_fields(4, tags)) + content_field(2, graph)
    whole += content_fields(4, _entries(collections or {})) + content_fields(5, _entries(signatures or {}))
    if objects is not None:
        whole += content_field(7, content_fields(1, objects) + content_fields(2, _entries(functions or {})))
    return content_field(2, whole)


def _entries(values: Mapping[str, bytes]) -> list[bytes]:
    return [content_field(1, key) + content_field(2, value) for key, value in values.items()]


def served(data: bytes) -> MetaGraph:
    """What is read of the graph that serves."""
    found = meta_graph(data, "serve")
    assert found is not None
    return found

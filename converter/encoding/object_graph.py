"""The graph of objects that a TensorFlow 2 checkpoint keeps beside its tensors: which variable hangs where.

tensorflow/core/protobuf/trackable_object_graph.proto (TF 2.21), read and written without TensorFlow.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from converter.encoding.protobuf import (
    LENGTH_DELIMITED,
    VARINT,
    Message,
    content_field,
    encoded_field,
    fields,
    number_field,
)
from converter.encoding.tensor_bundle import OBJECT_GRAPH_KEY, Bundle
from converter.errors import ReadError

_GRAPH = {1: LENGTH_DELIMITED}
_OBJECT = {1: LENGTH_DELIMITED, 2: LENGTH_DELIMITED, 3: LENGTH_DELIMITED}
_REFERENCE = {1: VARINT, 2: LENGTH_DELIMITED}
_SERIALIZED_TENSOR = {1: LENGTH_DELIMITED, 2: LENGTH_DELIMITED, 3: LENGTH_DELIMITED}
_SLOT = {1: VARINT, 2: LENGTH_DELIMITED, 3: VARINT}
_VALUE, _TABLE = "VARIABLE_VALUE", "table"
ATTRIBUTE = 2
"""The field of an object that says under which key a value of it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotVariable:
    """A slot variable of an optimizer: the node whose values it goes with, what it is, its own node."""

    owner: int
    name: str
    node: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """An object: its children by local name, and, for a variable, its key and full name.

    `table` is what the keys of a lookup table's two tensors start with, before `-keys` and `-values`.
    """

    children: Mapping[str, int]
    key: str | None
    full_name: str
    slots: tuple[SlotVariable, ...]
    table: str | None = None


def object_graph(bundle: Bundle) -> tuple[Node, ...]:
    """Return the nodes of a bundle's graph, none for a name-based checkpoint. Raises ReadError when it is malformed."""
    if OBJECT_GRAPH_KEY not in bundle.entries:
        return ()
    (graph,) = bundle.text(OBJECT_GRAPH_KEY)
    nodes = tuple(_node(data, bundle) for data in Message.parse(graph, _GRAPH, bundle.path).repeated(1))
    for node in nodes:
        indexes = [*node.children.values(), *(index for slot in node.slots for index in (slot.owner, slot.node))]
        if any(not 0 <= index < len(nodes) for index in indexes):
            raise ReadError("has an object graph that refers to an object it does not have", path=bundle.path)
    return nodes


def raw_nodes(bundle: Bundle) -> Iterator[list[tuple[int, bytes, bytes]]]:
    """Yield the fields of each object as they are: number, the whole field, and what is in it where it is a message."""
    (graph,) = bundle.text(OBJECT_GRAPH_KEY)
    for data in Message.parse(graph, _GRAPH, bundle.path).repeated(1):
        found = []
        for number, wire_type, value in fields(data, bundle.path):
            content = b"" if isinstance(value, int) else bytes(value)
            found.append((number, encoded_field(number, wire_type, value), content))
        yield found


def attribute_key(attribute: bytes, path: object = None) -> str:
    """Return the key that the attribute of an object names."""
    return Message.parse(attribute, _SERIALIZED_TENSOR, path).text(3)


def _node(data: memoryview, bundle: Bundle) -> Node:
    message = Message.parse(data, _OBJECT, bundle.path)
    children = {}
    for reference in message.repeated(1):
        child = Message.parse(reference, _REFERENCE, bundle.path)
        children[child.text(2)] = child.signed(1)
    key, full_name, table = None, "", None
    for attribute in message.repeated(2):
        value = Message.parse(attribute, _SERIALIZED_TENSOR, bundle.path)
        if value.text(1) == _VALUE:
            key, full_name = value.text(3), value.text(2).removesuffix(":0")
        elif value.text(1) == _TABLE:
            table = value.text(3)
    slots = []
    for reference in message.repeated(3):
        slot = Message.parse(reference, _SLOT, bundle.path)
        slots.append(SlotVariable(owner=slot.signed(1), name=slot.text(2), node=slot.signed(3)))
    return Node(children=children, key=key, full_name=full_name, slots=tuple(slots), table=table)


_VALUE_SUFFIX = "/.ATTRIBUTES/VARIABLE_VALUE"


class ObjectTree:
    """A graph of objects being made: paths of local names from the root, several of which may lead to one object."""

    def __init__(self) -> None:
        self._children: list[dict[str, int]] = [{}]
        self._variables: dict[int, tuple[str, str]] = {}
        self._slots: dict[int, list[SlotVariable]] = {}

    def child(self, parent: int, *local_names: str) -> int:
        """Return the object below `parent` that has one of these names, made if there is none; it gets all of them."""
        known = (self._children[parent][name] for name in local_names if name in self._children[parent])
        node = next(known, len(self._children))
        if node == len(self._children):
            self._children.append({})
        self._children[parent].update(dict.fromkeys(local_names, node))
        return node

    def children(self, parent: int) -> Mapping[str, int]:
        """Return the objects below `parent`, by local name."""
        return self._children[parent]

    def link(self, parent: int, local_name: str, node: int) -> None:
        """Let another path lead to `node`."""
        self._children[parent][local_name] = node

    def set_variable(self, node: int, path: str, full_name: str) -> str:
        """Make `node` the variable `full_name`; return the key of its values, which says a `path` to it."""
        key = path + _VALUE_SUFFIX
        self._variables[node] = (key, full_name)
        return key

    def add_slot(self, optimizer: int, owner: int, name: str, full_name: str) -> str:
        """Give `optimizer` a slot variable that goes with the variable `owner`; return its key."""
        node = len(self._children)
        self._children.append({})
        self._slots.setdefault(optimizer, []).append(SlotVariable(owner=owner, name=name, node=node))
        path = self._variables[owner][0].removesuffix(_VALUE_SUFFIX)
        return self.set_variable(node, f"{path}/.OPTIMIZER_SLOT/optimizer/{name}", full_name)

    def serialized(self) -> bytes:
        """Return the TrackableObjectGraph."""
        return b"".join(content_field(1, self._serialized(node)) for node in range(len(self._children)))

    def _serialized(self, node: int) -> bytes:
        data = b"".join(
            content_field(1, number_field(1, child) + content_field(2, name))
            for name, child in self._children[node].items()
        )
        if node in self._variables:
            key, full_name = self._variables[node]
            data += content_field(2, content_field(1, _VALUE) + content_field(2, full_name) + content_field(3, key))
        for slot in self._slots.get(node, ()):
            content = number_field(1, slot.owner) + content_field(2, slot.name) + number_field(3, slot.node)
            data += content_field(3, content)
        return data + content_field(5, number_field(1, 1))  # has_checkpoint_values

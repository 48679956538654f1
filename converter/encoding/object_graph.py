"""The graph of objects that a TensorFlow 2 checkpoint keeps beside its tensors: which variable hangs where.

tensorflow/core/protobuf/trackable_object_graph.proto (TF 2.21), read without TensorFlow.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from converter.encoding.protobuf import LENGTH_DELIMITED, VARINT, Message
from converter.encoding.tensor_bundle import OBJECT_GRAPH_KEY, Bundle
from converter.errors import ReadError

_GRAPH = {1: LENGTH_DELIMITED}
_OBJECT = {1: LENGTH_DELIMITED, 2: LENGTH_DELIMITED, 3: LENGTH_DELIMITED}
_REFERENCE = {1: VARINT, 2: LENGTH_DELIMITED}
_SERIALIZED_TENSOR = {1: LENGTH_DELIMITED, 2: LENGTH_DELIMITED, 3: LENGTH_DELIMITED}
_SLOT = {1: VARINT, 2: LENGTH_DELIMITED, 3: VARINT}
_VALUE = "VARIABLE_VALUE"


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """A slot variable of an optimizer: the node whose values it goes with, what it is, its own node."""

    owner: int
    name: str
    node: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """An object: its children by local name, and, for a variable, its key and full name."""

    children: Mapping[str, int]
    key: str | None
    full_name: str
    slots: tuple[Slot, ...]


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


def _node(data: memoryview, bundle: Bundle) -> Node:
    message = Message.parse(data, _OBJECT, bundle.path)
    children = {}
    for reference in message.repeated(1):
        child = Message.parse(reference, _REFERENCE, bundle.path)
        children[child.text(2)] = child.signed(1)
    key, full_name = None, ""
    for attribute in message.repeated(2):
        value = Message.parse(attribute, _SERIALIZED_TENSOR, bundle.path)
        if value.text(1) == _VALUE:
            key, full_name = value.text(3), value.text(2).removesuffix(":0")
    slots = []
    for reference in message.repeated(3):
        slot = Message.parse(reference, _SLOT, bundle.path)
        slots.append(Slot(owner=slot.signed(1), name=slot.text(2), node=slot.signed(3)))
    return Node(children=children, key=key, full_name=full_name, slots=tuple(slots))

"""The weights of a frozen graph of TensorFlow (GraphDef), whose variables were made constants.

A weight is a constant of floating-point numbers with at least one axis and more than one element; scalars, integers and
text are settings of the graph.
"""

from __future__ import annotations

import math
import re

from converter.encoding.graph_def import Graph, Node
from converter.encoding.protobuf import LENGTH_DELIMITED, VARINT, Message
from converter.encoding.saved_function import shape_of
from converter.encoding.tensor_proto import constant
from converter.errors import ReadError
from converter.model.tensor import ArrayTensor

_GRAPH_DEF = re.compile(rb"\n[\x03-\xff][\x00-\x7f]{0,4}\n")
"""A message whose first field is a message whose first field is text: a node and its name."""
_META_GRAPH = re.compile(rb"\n[\x80-\xff]{1,4}[\x00-\x7f]\x12")
_FLOATING = (1, 2)
_LARGEST_RATIO, _BEYOND_BYTES = 8, 64 << 20
"""A constant of one number repeated is stored as that: all such together may be so large."""
_SHAPE, _TENSOR = 7, 8


def looks_like(head: bytes) -> bool:
    """Whether a file that begins so may be a GraphDef: of a MetaGraphDef the first message is another."""
    return bool(_GRAPH_DEF.match(head)) and not _META_GRAPH.match(head)


def weights(graph: Graph, path: str) -> dict[str, ArrayTensor]:
    """Return the weights by the names of their nodes.

    Raises ReadError for what is malformed, and for constants that are much larger than what is stored of them.
    """
    found: dict[str, ArrayTensor] = {}
    beyond = 0
    for name in graph.nodes:
        node = graph.node(name)
        value = node.attributes.get("value") if node.operator == "Const" else None
        if value is None or value.kind != _TENSOR:
            continue
        data = Message.parse(value.data, {_TENSOR: LENGTH_DELIMITED}, path).content(_TENSOR)
        if Message.parse(data, {1: VARINT}, path).unsigned(1) not in _FLOATING:
            continue
        held = constant(data, path)
        if held is not None and held.shape and math.prod(held.shape) > 1:
            beyond += max(0, held.nbytes - _LARGEST_RATIO * len(data))
            if beyond > _BEYOND_BYTES:
                raise ReadError("is larger than what is stored of it", path=path, tensor=name)
            found[name] = ArrayTensor.of(held.numpy())
    return found


def placeholder_shape(node: Node) -> tuple[int | None, ...] | None:
    """Return the shape that a placeholder says it has; None is an extent that is free, or an unknown rank."""
    stated = node.attributes.get("shape")
    if stated is None or stated.kind != _SHAPE:
        return None
    return shape_of(Message.parse(stated.data, {_SHAPE: LENGTH_DELIMITED}).content(_SHAPE), None)

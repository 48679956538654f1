"""What is known of a TensorFlow graph to be converted or run: its ports, variables and tables. No TensorFlow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from converter.encoding.tensor_bundle import TYPE_NUMBERS
from converter.errors import WITHOUT_GRAPH, GraphError, MissingExtraError, ReadError
from converter.graphs.trace.tensorflow.conversion import Port, Variable
from converter.graphs.trace.tensorflow.tables import Table
from converter.model.dtype import DType
from converter.model.tensor import Tensor

_TEXT = 7
_DTYPES = {number: dtype for dtype, number in TYPE_NUMBERS.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredVariable:
    """A variable, and its values in the bundle, unread."""

    variable: Variable
    tensor: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A signature: the GraphDef that computes it, its ports, variables and tables by the node that makes their handle.

    `note` says what was taken in the place of one.
    """

    title: str
    graph: bytes
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    variables: Mapping[str, StoredVariable]
    tables: Mapping[str, Table]
    note: str = ""

    def graph_def(self) -> Any:
        """Return the graph as TensorFlow has it. Raises MissingExtraError without it, ReadError for what it refuses."""
        try:
            from google.protobuf.message import DecodeError
            from tensorflow.core.framework import graph_pb2
        except ImportError as error:
            raise MissingExtraError("tensorflow", "converting a SavedModel") from error
        try:
            return graph_pb2.GraphDef.FromString(self.graph)
        except DecodeError as error:
            raise ReadError("has a shape or a constant that is malformed") from error


def dtype_of(number: int, name: str) -> DType:
    """Return the type of that number. Raises GraphError for text, and for what no checkpoint holds."""
    if number == _TEXT:
        raise GraphError("is text, which no converted graph takes or returns", tensor=name, hint=WITHOUT_GRAPH)
    if number not in _DTYPES:
        raise GraphError(f"has elements of a type ({number}) that no tensor of a checkpoint has", tensor=name)
    return _DTYPES[number]

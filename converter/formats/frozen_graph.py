"""A frozen graph of TensorFlow 1: a GraphDef (`frozen_inference_graph.pb`) with constants for variables. Read."""

from __future__ import annotations

from converter.encoding import frozen_graph
from converter.encoding.graph_def import Graph
from converter.errors import ReadError
from converter.formats import Format, NoOptions, Probe, not_written
from converter.graphs.calls import run_foreign_saved_model, trace_saved_model
from converter.graphs.description.source import GraphSource
from converter.model.checkpoint import Checkpoint, Dialect, Part
from converter.model.dtype import DType
from converter.model.file import Location, absolute, open_file

_LIMIT_BYTES = 2 << 30
"""No message of Protocol Buffers is larger."""


def sniff(probe: Probe) -> bool:
    """A message of nodes that have names."""
    return not probe.is_folder and frozen_graph.looks_like(probe.head)


def read(path: Location, options: NoOptions) -> Checkpoint:
    """Read the constants that are weights, by the names of their nodes; the graph is run by none but its targets.

    The whole file is in memory. Raises ReadError for a malformed message, and for one without weights.
    """
    file = open_file(path)
    if file.size > _LIMIT_BYTES:
        raise ReadError(f"has {file.size} bytes, and no graph has more than {_LIMIT_BYTES}", path=path)
    tensors = frozen_graph.weights(Graph(memoryview(file.read(0, file.size)), str(path)), str(path))
    if not tensors:
        hint = "tf.compat.v1.graph_util.convert_variables_to_constants makes a whole one"
        raise ReadError("is a graph of TensorFlow without weights: they are in a checkpoint", path=path, hint=hint)
    where = absolute(path)
    graph = GraphSource(
        model=where,
        trace=trace_saved_model.with_arguments(names={name: name for name in tensors}, kernels=[]),
        reference=run_foreign_saved_model,
        extra="tensorflow",
    )
    return Checkpoint(tensors={**tensors}, dialect=Dialect.GENERIC, graph=graph)


FORMAT = Format(
    name="frozen-graph",
    description="frozen graphs of TensorFlow 1 (GraphDef, .pb), read, not written",
    suffixes=(".pb",),
    holds=frozenset({Part.WEIGHTS}),
    dtypes=frozenset({DType.FLOAT32, DType.FLOAT64}),
    sniff=sniff,
    read=read,
    write=not_written,
    file_name="frozen_graph.pb",
)

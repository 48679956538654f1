"""A SavedModel from elsewhere, run by TensorFlow without its loader: the part that its signature reaches, and no more.

Variables get their values from our own reader of the bundle, and tables what was read of them as data.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from converter.errors import GraphError
from converter.graphs.description.input_names import tensorflow_parameters
from converter.graphs.lower.tensorflow.framework import tf
from converter.graphs.run.answers import Answer
from converter.graphs.run.arrays import fitting, read_sets, run_sets
from converter.graphs.run.canary import is_floating, nudged, try_groups
from converter.graphs.trace.tensorflow.served import Served, StoredVariable
from converter.graphs.trace.tensorflow.serving import serve
from converter.graphs.trace.tensorflow.tables import Table

_FILLING = {
    (False, False): tf.raw_ops.LookupTableImport,
    (False, True): tf.raw_ops.LookupTableImportV2,
    (True, False): tf.raw_ops.LookupTableInsert,
    (True, True): tf.raw_ops.LookupTableInsertV2,
}
"""The operation that fills a table, by (whether the table is mutable, whether its handle is a resource)."""


def run(
    *,
    model: str,
    inputs: str,
    outputs: str,
    canary: str | None = None,
    since: float = 0.0,
    nudge: str | None = None,
    signature: str | None = None,
) -> Answer:
    """Compute the `signature` that is converted, on the inputs of an .npz file; write another.

    Inputs are cast to the signature's types. With `nudge` every weight is changed in its last place before; with
    `canary`, an .npz to write, weights are changed afterwards (converter.graphs.run.canary).
    Raises as `serving.serve` does, before TensorFlow is imported, and GraphError when the graph fails.
    """
    served = serve(Path(model), signature)
    graph_def = served.graph_def()
    sets, unfit = fitting(read_sets(inputs), {port.name: port.dtype.numpy for port in served.inputs})
    tried = None
    failures = (KeyError, TypeError, ValueError, tf.errors.OpError)
    with tf.Graph().as_default() as graph, tf.compat.v1.Session(graph=graph) as session:

        def called(arrays: Mapping[str, Any]) -> dict[str, Any]:
            found: dict[str, Any] = session.run(
                {port.name: port.tensor for port in served.outputs}, _fed(served, arrays)
            )
            return found

        try:
            tf.import_graph_def(graph_def, name="")
            variables = _Variables(session, graph, served.variables)
            variables.fill((lambda values, _: values) if nudge is None else partial(nudged, dtype=nudge))
            _fill(session, graph, served.tables)
        except failures as error:
            raise GraphError(f"does not run: {' '.join(str(error).split())[:300]}", path=model) from error
        failed = run_sets(sets, outputs, called, failures)
        if canary is not None:
            tried = try_groups(variables, called, sets, path=canary, since=since)
    return {"failed": failed, "unfit": unfit, "canary": tried}


class _Variables:
    """The variables of a graph by their nodes, as `converter.graphs.run.canary.Weights`."""

    def __init__(self, session: Any, graph: Any, variables: Mapping[str, StoredVariable]) -> None:
        self._session, self._variables = session, variables
        self._assigned = {}
        for node, held in variables.items():
            handle = graph.get_tensor_by_name(f"{node}:0")
            value = tf.compat.v1.placeholder(tf.as_dtype(held.tensor.dtype.numpy), held.tensor.shape)
            if handle.dtype == tf.resource:
                self._assigned[node] = value, tf.raw_ops.AssignVariableOp(resource=handle, value=value)
            else:
                self._assigned[node] = value, tf.raw_ops.Assign(ref=handle, value=value).op

    def fill(self, change: Callable[[Any, str], Any]) -> None:
        """Give every variable its values, one after the other; `change` is asked about those of weights."""
        weights = self.sizes()
        for node in self._assigned:
            values = self.read(node)
            self.write(node, change(values, node) if node in weights else values)

    def sizes(self) -> Mapping[str, int]:
        return {
            node: held.tensor.nbytes
            for node, held in self._variables.items()
            if is_floating(held.tensor.dtype.numpy) and held.tensor.nbytes
        }

    def read(self, name: str) -> Any:
        return self._variables[name].tensor.numpy()

    def write(self, name: str, values: Any) -> None:
        value, operation = self._assigned[name]
        self._session.run(operation, {value: values})


def _fill(session: Any, graph: Any, tables: Mapping[str, Table]) -> None:
    """Give every table its keys and values: those that look values up here are TensorFlow's own."""
    for node, table in tables.items():
        handle = graph.get_tensor_by_name(f"{node}:0")
        keys, values = (tf.compat.v1.placeholder(each.dtype, each.shape) for each in (table.keys, table.values))
        fill = _FILLING[handle.op.type.startswith("Mutable"), handle.dtype == tf.resource]
        session.run(fill(table_handle=handle, keys=keys, values=values), {keys: table.keys, values: table.values})


def _fed(served: Served, arrays: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arrays by the tensors that they are; names that are none of Python's may be written otherwise."""
    by_name = {**{parameter: arrays[name] for name, parameter in tensorflow_parameters(list(arrays)).items()}, **arrays}
    return {port.tensor: by_name[port.name].astype(port.dtype.numpy) for port in served.inputs}

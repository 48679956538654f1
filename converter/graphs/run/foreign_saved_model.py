"""A SavedModel from elsewhere, run by TensorFlow without its loader: the part that its signature reaches, and no more.

Variables get their values from our own reader of the bundle.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from converter.errors import GraphError
from converter.graphs.lower.tensorflow.framework import tf
from converter.graphs.lower.tensorflow.saved_model import parameter_names
from converter.graphs.run.arrays import read_inputs, write_outputs
from converter.graphs.trace.tensorflow.serving import Held, Served, serve


def run(*, model: str, architecture: str, inputs: str, outputs: str) -> dict[str, Any]:
    """Compute the signature that is converted, on the inputs of an .npz file; write another.

    Inputs are cast to the signature's types. `architecture` is not needed, and is taken so that every runner is called
    alike. Returns `missing` and `unexpected`, both empty. Raises as `serving.serve` does, before TensorFlow is
    imported, and GraphError when the graph fails.
    """
    served = serve(Path(model))
    graph_def = served.graph_def()
    with tf.Graph().as_default() as graph, tf.compat.v1.Session(graph=graph) as session:
        try:
            tf.import_graph_def(graph_def, name="")
            _fill(session, graph, served.variables)
            results = {
                number: session.run({port.name: port.tensor for port in served.outputs}, _fed(served, arrays))
                for number, arrays in read_inputs(inputs).items()
            }
        except (KeyError, TypeError, ValueError, tf.errors.OpError) as error:
            raise GraphError(f"does not run: {' '.join(str(error).split())[:300]}", path=model) from error
    write_outputs(outputs, results)
    return {"missing": [], "unexpected": []}


def _fill(session: Any, graph: Any, variables: Mapping[str, Held]) -> None:
    """Give every variable its values, one after the other."""
    assigned = {}
    for node, held in variables.items():
        handle = graph.get_tensor_by_name(f"{node}:0")
        value = tf.compat.v1.placeholder(tf.as_dtype(held.tensor.dtype.numpy), held.tensor.shape)
        if handle.dtype == tf.resource:
            assigned[node] = value, tf.raw_ops.AssignVariableOp(resource=handle, value=value)
        else:
            assigned[node] = value, tf.raw_ops.Assign(ref=handle, value=value).op
    for node, (value, operation) in assigned.items():
        session.run(operation, {value: variables[node].tensor.numpy()})


def _fed(served: Served, arrays: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arrays by the tensors that they are; names that are none of Python's may be written otherwise."""
    given = {**{parameter: arrays[name] for name, parameter in parameter_names(list(arrays)).items()}, **arrays}
    return {port.tensor: given[port.name].astype(port.dtype.numpy) for port in served.inputs}

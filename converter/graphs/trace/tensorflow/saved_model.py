"""A SavedModel to an ONNX graph whose initializers name the variables as they are read from its bundle.

Its `saved_model.pb` is cut and checked without TensorFlow first (`cutting`): the cut graph is all that TensorFlow gets.
Its loader is not run; what TensorFlow's optimiser computes of the graph beforehand is of operators that compute.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from converter.graphs.description.signature import Signature
from converter.graphs.fitting.fitting import Stored
from converter.graphs.fitting.layout_steps import LayoutStep
from converter.graphs.passes.attach import attach
from converter.graphs.trace.tensorflow.conversion import Source, convert
from converter.graphs.trace.tensorflow.serving import serve
from converter.graphs.trace.tensorflow.tables import note_of
from converter.model.kernels import kernel_axes, weight_axes


def trace(
    *,
    model: str,
    graph: str,
    names: Mapping[str, str] | None = None,
    kernels: Sequence[str] = (),
    signature: str | None = None,
) -> dict[str, Any]:
    """Convert what the SavedModel in the folder `model` serves, or that `signature`; write the ONNX file `graph`.

    Returns the Signature as JSON values: parameters and buffers by the names in the bundle, or what `names` says
    that they stand for; those named in `kernels` become weights (`model.kernels`). Raises SafetyError for an operator
    that is not known to compute alone, ArchitectureError when no signature is the one to take, GraphError when it
    cannot be converted.
    """
    served, called = serve(Path(model), signature), names or {}
    variables = {
        node: replace(held.variable, name=called.get(held.variable.name, held.variable.name))
        for node, held in served.variables.items()
    }
    source = Source(
        title=served.title,
        graph=served.graph_def(),
        inputs=served.inputs,
        outputs=served.outputs,
        variables=variables,
        tables=served.tables,
    )
    converted = convert(source)
    found = converted.signature
    if kernels:
        found = _with_weights(converted.graph, found, frozenset(kernels))
    import onnx_ir

    onnx_ir.save(converted.graph, graph)
    notes = tuple(each for each in (served.note, note_of(served.tables.values())) if each)
    return replace(found, notes=notes).to_json()


def _with_weights(model: Any, signature: Signature, kernels: frozenset[str]) -> Signature:
    """Let initializers that are kernels be weights, and nodes make kernels of them."""
    declared = {**signature.parameters, **signature.buffers}
    weights = {}
    for name, (dtype, shape) in declared.items():
        if name in kernels:
            moved = tuple(shape[axis] for axis in weight_axes(len(shape)))
            step = LayoutStep(kind="transpose", values=kernel_axes(len(shape)))
            weights[name] = Stored(name=name, dtype=dtype, shape=moved, steps=(step,))
    attach(model, {name: each.to_json() for name, each in weights.items()}, frozenset(declared))
    moved_to = {name: (each.dtype, each.shape) for name, each in weights.items()}
    return replace(
        signature,
        parameters={name: moved_to.get(name, each) for name, each in signature.parameters.items()},
        buffers={name: moved_to.get(name, each) for name, each in signature.buffers.items()},
    )

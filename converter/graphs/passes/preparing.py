"""From a graph as it was traced to the one that targets get: the checkpoint's tensors, plain nodes, the opset asked."""

from __future__ import annotations

from typing import Any

from converter.errors import GraphError
from converter.graphs.passes.activations import activations_of
from converter.graphs.passes.attach import attach
from converter.graphs.passes.cleaning import clean, constants_as_nodes
from converter.graphs.passes.extents import fix_extents
from converter.graphs.passes.kernels import kernels_of
from converter.graphs.passes.precision import compute_exactly
from converter.graphs.passes.rounding import rounded_outputs
from converter.graphs.run.answers import Prepared


def run(
    *,
    graph: str,
    stored: dict[str, dict[str, Any]],
    declared: list[str],
    names: list[str],
    shapes: dict[str, list[int | str]],
    opset: int | None,
    inexact: list[str],
) -> Prepared:
    """Rewrite the ONNX file `graph`. Returns what of its tensors and outputs is known then.

    `stored` maps initializers to `fitting.Stored` as JSON; `declared` are the tensors that the graph has afterwards,
    `names` those of the whole checkpoint, which no other value gets to have. `shapes` are those of inputs, where axes
    were given an extent. `inexact` are operators that the target's
    runtime needs double precision for. Raises GraphError when a name is taken, or there is no way to `opset`.
    """
    import onnx_ir

    model = onnx_ir.load(graph)
    attach(model, stored, frozenset(names))
    fix_extents(model, shapes)
    clean(model)
    if opset is not None and opset != model.opset_imports[""]:
        convert_opset(model, opset)
    compute_exactly(model, inexact)
    constants_as_nodes(model, frozenset(declared), frozenset(names))
    onnx_ir.save(model, graph)
    return {
        "kernels": list(kernels_of(model)),
        "rounded": rounded_outputs(model),
        "activations": activations_of(model),
    }


def convert_opset(model: Any, opset: int) -> None:
    """Bring the nodes of `model` to `opset`. Raises GraphError when the converters of onnxscript and onnx cannot."""
    from onnxscript import version_converter

    had = model.opset_imports[""]
    # Both converters fail with whatever exception the operator at hand brings about.
    try:
        version_converter.convert_version(model, opset, fallback=True)
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise GraphError(f"the graph of opset {had} cannot be converted to opset {opset}: {reason}") from error
    if model.opset_imports[""] != opset:
        raise GraphError(f"the graph of opset {had} cannot be converted to opset {opset}")

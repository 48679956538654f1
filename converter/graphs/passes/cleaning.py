"""What exporters leave behind, made plain: same values, fewer and simpler nodes. No parameter is folded or renamed.

The exporter writes unoptimised graphs, for its own optimiser folds weights. These passes are those of onnx_ir and
onnxscript, kept off the parameters, and a few of our own.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

from converter.graphs.passes import loops
from converter.graphs.passes.constants import constant, constant_node

_LOG = logging.getLogger(__name__)
_FOLDED_LIMIT_BYTES = 64 << 10


def clean(model: Any) -> None:
    """Fold what is constant, and remove identities, sequences of one use, and what nothing uses.

    Initializers that nothing uses go too: the tensors are the checkpoint's.
    """
    import onnx_ir.passes.common as passes
    from onnxscript import optimizer

    _rewrite(model, "SequenceAt", _read_from_sequence)
    # Types of values in the middle say what a CastLike is to cast to.
    passes.ShapeInferencePass(check_type=False, strict_mode=False, data_prop=False)(model)
    _rewrite(model, "Gather", _know_extent)
    # Its warnings are about nodes it could not fold, which stay as they are.
    logging.getLogger("onnxscript").setLevel(logging.ERROR)
    optimizer.fold_constants(
        model,
        input_size_limit=_FOLDED_LIMIT_BYTES,
        output_size_limit=_FOLDED_LIMIT_BYTES,
        should_fold=lambda node: False if any(map(_is_stored, node.inputs)) else None,
    )
    _rewrite(model, "Identity", _pass_on)
    _rewrite(model, "Loop", loops.simplify)
    passes.RemoveUnusedNodesPass()(model)
    passes.RemoveUnusedOpsetsPass()(model)


def _rewrite(model: Any, op_type: str, rule: Callable[[Any, Any], None]) -> None:
    """Call `rule(graph, node)` for all operators of a kind."""
    for graph in model.graphs():
        for node in list(graph):
            if node.op_type == op_type and node.domain in ("", "ai.onnx"):
                rule(graph, node)


def _pass_on(graph: Any, node: Any) -> None:
    """Remove an Identity, but for an output of a graph that is not computed there, or is another output, too.

    onnx_ir's pass makes such outputs values of other graphs, or two of them one (onnx_ir 1.1).
    """
    import onnx_ir

    (source,), (value,) = node.inputs, node.outputs
    if value.is_graph_output():
        producer = source.producer()
        if producer is None or producer.graph is not graph or source.is_graph_output():
            return
        source.name, source.shape = value.name, value.shape or source.shape
    source.shape, source.type = source.shape or value.shape, source.type or value.type
    onnx_ir.convenience.replace_all_uses_with(value, source, replace_graph_outputs=True)
    graph.remove(node, safe=True)


def _know_extent(graph: Any, node: Any) -> None:
    """Replace one extent of a value whose others may vary, which onnxscript 0.7 leaves where it is a scalar."""
    import numpy as np
    import onnx_ir

    value, position = node.inputs
    shape, number = value.producer(), constant(position)
    if shape is None or shape.op_type != "Shape" or shape.attributes or number is None or number.ndim:
        return
    extent = dict(enumerate(shape.inputs[0].shape or ())).get(int(number))
    (old,) = node.outputs
    if isinstance(extent, int) and not old.is_graph_output():
        new = constant_node(np.array(extent, np.int64), f"{old.name}/extent")
        graph.insert_before(node, new)
        onnx_ir.convenience.replace_all_uses_with(old, new.outputs[0])
        graph.remove(node, safe=True)


def _is_stored(value: Any) -> bool:
    import onnx_ir

    return value is not None and isinstance(value.const_value, onnx_ir.ExternalTensor)


def _read_from_sequence(graph: Any, node: Any) -> None:
    """Replace SequenceAt(SplitToSequence(x), constant) by the piece of x that it is."""
    sequence, position = node.inputs
    split = sequence.producer()
    number = constant(position)
    if split is None or split.op_type != "SplitToSequence" or number is None or number.size != 1:
        return
    nodes = list(_piece(split, int(number.reshape(-1)[0]), node.name or node.outputs[0].name))
    if not nodes:
        return
    graph.insert_before(node, nodes)
    (old,), (new,) = node.outputs, nodes[-1].outputs
    new.type, new.shape = split.inputs[0].type, old.shape
    if old.is_graph_output():
        new.name, old.name = old.name, f"{old.name}_in_sequence"
    old.replace_all_uses_with(new, replace_graph_outputs=True)
    graph.remove(node, safe=True)


def _piece(split: Any, number: int, name: str) -> Iterator[Any]:
    """Yield the nodes that compute one element of a SplitToSequence; none when its lengths are not known."""
    import numpy as np
    import onnx_ir

    source, lengths = (*split.inputs, None)[:2]
    axis = split.attributes["axis"].value if "axis" in split.attributes else 0
    if lengths is None:
        keeps = split.attributes["keepdims"].value if "keepdims" in split.attributes else 1
        index = constant_node(np.array([number] if keeps else number, np.int64), f"{name}/index")
        yield index
        yield onnx_ir.node("Gather", [source, index.outputs[0]], {"axis": axis}, name=f"{name}/gather")
        return
    sizes = constant(lengths)
    if sizes is None or (sizes.ndim == 0 and number < 0):
        return
    if sizes.ndim == 0:
        start, stop = number * int(sizes), (number + 1) * int(sizes)
    else:
        number %= len(sizes)
        start, stop = int(sizes[:number].sum()), int(sizes[: number + 1].sum())
    bounds = {"start": start, "stop": stop, "axis": axis}
    constants = [constant_node(np.array([value], np.int64), f"{name}/{what}") for what, value in bounds.items()]
    yield from constants
    yield onnx_ir.node("Slice", [source, *(each.outputs[0] for each in constants)], name=f"{name}/slice")


def constants_as_nodes(model: Any, declared: frozenset[str], names: frozenset[str]) -> None:
    """Turn every initializer that is none of the `declared` tensors into a Constant node, none called as in `names`."""
    import onnx_ir

    graph = model.graph
    nodes = []
    for name, value in list(graph.initializers.items()):
        if name in declared or value.const_value is None:
            continue
        del graph.initializers[name]
        node = onnx_ir.node("Constant", [], {"value": value.const_value}, name=f"{name}/constant")
        (output,) = node.outputs
        output.shape, output.type = value.const_value.shape, onnx_ir.TensorType(value.const_value.dtype)
        value.replace_all_uses_with(output, replace_graph_outputs=True)
        output.name = f"{name}/constant" if name in names else name
        nodes.append(node)
    if nodes and len(graph):
        graph.insert_before(graph[0], nodes)
    else:
        graph.extend(nodes)

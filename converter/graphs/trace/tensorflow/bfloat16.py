"""A TensorFlow graph that computes in bfloat16 as one that computes in float32, and rounds what it computes.

tf2onnx 1.17 takes bfloat16 for float16, and onnxruntime 1.31 has no arithmetic for it on processors, but casts.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from converter.errors import GraphError

_FLOAT, _BFLOAT16 = 1, 14  # of TensorFlow's DataType
_NAMES_OF_EXACT = """
Abs BatchToSpaceND BroadcastTo Case Concat ConcatV2 Const DepthToSpace DynamicStitch EnsureShape Enter Exit
ExpandDims Fill Gather GatherNd GatherV2 Identity IdentityN If Max MaxPool MaxPoolV2 Maximum Merge Min Minimum
MirrorPad Neg NextIteration OneHot OnesLike Pack Pad PadV2 PartitionedCall Placeholder PlaceholderWithDefault
PreventGradient Relu Reshape ResourceGather Reverse ReverseSequence ReverseV2 Select SelectV2 Sign Slice Snapshot
SpaceToBatchND SpaceToDepth Split SplitV Squeeze StatefulPartitionedCall StatelessCase StatelessIf StatelessWhile
StopGradient StridedSlice Switch TensorListFromTensor TensorListGetItem TensorListPopBack TensorListReserve
TensorListSetItem TensorListStack TensorScatterUpdate Tile TopKV2 Transpose Unpack While ZerosLike
"""
_EXACT = frozenset(_NAMES_OF_EXACT.split())
"""Operators that give what they were given, or a part of it: nothing to round where that was."""


def computed_in_float32(graph: Any) -> None:
    """Change a GraphDef that computes in bfloat16; any other stays as it is.

    Placeholders of bfloat16, and Identity nodes that nothing takes from, keep their type: they are the graph's inputs
    and outputs. Raises GraphError for an operator that reads the bits of a bfloat16.
    """
    functions = list(graph.library.function)
    bodies = [graph.node, *(function.node_def for function in functions)]
    if any(_is_of_bfloat16(node) for nodes in bodies for node in nodes):
        _change_graph(graph.node)
        for function in functions:
            _change_function(function)


def _change_graph(nodes: Any) -> None:
    used = {_parts(each)[0] for node in nodes for each in node.input}
    ends = {node.name for node in nodes if node.op == "Identity" and node.name not in used}
    inputs = [node for node in nodes if node.op == "Placeholder" and node.attr["dtype"].type == _BFLOAT16]
    casts = list(_casts_of_inputs(inputs, nodes))
    _change(nodes, ends | {node.name for node in inputs}, is_function=False)
    for node in nodes:
        if node.name in ends and node.attr["T"].type == _BFLOAT16:
            _cast(node, node.name, node.input[0], _FLOAT, _BFLOAT16)
    nodes.extend(casts)


def _change_function(function: Any) -> None:
    renamed = _change(function.node_def, (), is_function=True)
    for name, reference in function.ret.items():
        function.ret[name] = _redirected(reference, renamed)
    for argument in (*function.signature.input_arg, *function.signature.output_arg):
        if argument.type == _BFLOAT16:
            argument.type = _FLOAT


def _is_of_bfloat16(node: Any) -> bool:
    return any(
        value.type == _BFLOAT16 or _BFLOAT16 in value.list.type or value.tensor.dtype == _BFLOAT16
        for value in node.attr.values()
    )


def _parts(reference: str) -> tuple[str, str, int]:
    """Return (node, its output, number) of `^node`, `node`, `node:1` and `node:output:0`, which functions have."""
    name, _, rest = reference.removeprefix("^").partition(":")
    output, _, number = rest.rpartition(":")
    return name, output, int(number or 0)


def _casts_of_inputs(inputs: Collection[Any], nodes: Any) -> Iterator[Any]:
    """Yield a cast for each input of bfloat16, from which all take that took from the input."""
    names = {node.name for node in nodes}
    renamed = {node.name: _apart(f"{node.name}/float32", names) for node in inputs}
    for node in nodes:
        for position, reference in enumerate(node.input):
            if not reference.startswith("^"):
                node.input[position] = renamed.get(_parts(reference)[0], reference)
    for name, cast in renamed.items():
        yield _cast(type(nodes[0])(), cast, name, _BFLOAT16, _FLOAT)


def _change(nodes: Any, kept: Collection[str], *, is_function: bool) -> dict[str, tuple[str, str]]:
    """Let nodes compute in float32, and nodes of their names round what they gave.

    Return the new names of the former, each with what its first output is called.
    """
    names = {node.name for node in nodes}
    renamed: dict[str, tuple[str, str]] = {}
    for node in list(nodes):
        if node.name in kept or not _is_of_bfloat16(node):
            continue
        if node.op == "Bitcast":
            raise GraphError(f"reads the bits of a bfloat16 (node {node.name!r}), which no converted graph has")
        output = _rounded_output(node)
        for value in node.attr.values():
            _widen(value)
        if output is not None:
            name = node.name
            node.name = _apart(f"{name}/float32", names)
            renamed[name] = (node.name, output)
    _round(nodes, renamed, is_function=is_function)
    return renamed


def _rounded_output(node: Any) -> str | None:
    """Return what the first output of a node is called that computes it in bfloat16."""
    from tensorflow.python.framework import op_def_registry

    definition = op_def_registry.get(node.op)
    if node.op in _EXACT or definition is None or not definition.output_arg:
        return None
    first = definition.output_arg[0]
    is_rounded = first.type_attr in node.attr and node.attr[first.type_attr].type == _BFLOAT16
    return str(first.name) if is_rounded else None


def _round(nodes: Any, renamed: dict[str, tuple[str, str]], *, is_function: bool) -> None:
    """Add the nodes that round, and let references to other outputs of what was renamed follow it."""
    names = {node.name for node in nodes} | set(renamed)
    for node in nodes:
        for position, reference in enumerate(node.input):
            node.input[position] = _redirected(reference, renamed)
    for name, (computed, output) in renamed.items():
        inner = _apart(f"{name}/rounded", names)
        names.add(inner)
        outer_from = f"{inner}:y:0" if is_function else inner
        inner_from = f"{computed}:{output}:0" if is_function else computed
        _cast(nodes.add(), inner, inner_from, _FLOAT, _BFLOAT16)
        _cast(nodes.add(), name, outer_from, _BFLOAT16, _FLOAT)


def _redirected(reference: str, renamed: dict[str, tuple[str, str]]) -> str:
    name, output, number = _parts(reference)
    if name not in renamed or reference.startswith("^"):
        return reference
    computed, first = renamed[name]
    if number == 0 and output in ("", first):
        return f"{name}:y:0" if output else reference
    return f"{computed}:{reference.partition(':')[2]}"


def _widen(value: Any) -> None:
    """Let an attribute that is bfloat16, or values of it, be float32."""
    import tensorflow as tf

    if value.type == _BFLOAT16:
        value.type = _FLOAT
    for position, dtype in enumerate(value.list.type):
        if dtype == _BFLOAT16:
            value.list.type[position] = _FLOAT
    if value.tensor.dtype == _BFLOAT16:
        values = tf.make_ndarray(value.tensor).astype("float32")
        value.tensor.CopyFrom(tf.make_tensor_proto(values, shape=values.shape))


def _cast(node: Any, name: str, reference: str, source: int, target: int) -> Any:
    node.Clear()
    node.name, node.op = name, "Cast"
    node.input.append(reference)
    node.attr["SrcT"].type, node.attr["DstT"].type = source, target
    return node


def _apart(name: str, names: Collection[str]) -> str:
    """Return a name that no node has."""
    found, number = name, 1
    while found in names:
        found, number = f"{name}_{number}", number + 1
    return found

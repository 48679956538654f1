"""What a frozen graph computes: placeholders are inputs, what nothing takes is an output, constants are weights.

`tf.compat.v1.graph_util` makes such a GraphDef of a graph and its variables. No signature says what is served.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from converter.encoding.frozen_graph import placeholder_shape, weights
from converter.encoding.graph_def import Attribute, Graph, Node
from converter.encoding.tensor_bundle import TYPE_NUMBERS
from converter.errors import ArchitectureError, GraphError, MissingExtraError, UsageError
from converter.graphs.trace.tensorflow.conversion import Port, Variable
from converter.graphs.trace.tensorflow.cutting import reached
from converter.graphs.trace.tensorflow.served import Served, StoredVariable, dtype_of
from converter.model.file import LocalFile
from converter.model.tensor import Tensor

_INPUT = "Placeholder"
_NO_OUTPUTS = frozenset(("Const", "NoOp", "Assert", _INPUT))


def serve(path: Path, signature: str | None = None) -> Served:
    """Return what the frozen graph at `path` computes. TensorFlow is asked for the types of its operators alone.

    Raises SafetyError for an operator that is not known to compute alone, ArchitectureError for a graph without inputs
    or outputs, GraphError for text, ReadError for a malformed file.
    """
    if signature is not None:
        raise UsageError(f"--signature {signature}: a frozen graph has none", path=path)
    file = LocalFile(path)
    graph = Graph(memoryview(file.read(0, file.size)), str(path))
    held = weights(graph, str(path))
    ends = list(_ends(graph))
    nodes, functions = reached(graph, ends, str(path))
    outputs = tuple(port for name in ends for port in _outputs(nodes[name]))
    inputs = tuple(_input(node) for node in nodes.values() if node.operator == _INPUT)
    if not inputs or not outputs:
        what = "inputs" if not inputs else "outputs"
        raise ArchitectureError(f"is a frozen graph without {what}", path=path)
    kept = [_as_variable(node, held[name]) if name in held else node for name, node in nodes.items()]
    variables = {name: held[name] for name in nodes if name in held}
    return Served(
        title="the frozen graph",
        graph=graph.encoded(kept, functions.values()),
        inputs=tuple(sorted(inputs, key=lambda port: port.name)),
        outputs=outputs,
        variables={name: _stored(name, tensor) for name, tensor in variables.items()},
        tables={},
        note=f"the outputs are what nothing in the graph takes: {', '.join(port.name for port in outputs)}",
    )


def _ends(graph: Graph) -> Iterator[str]:
    """Yield the nodes that compute something which no other node takes, in the order of the graph."""
    taken = Counter(source for name in graph.nodes for source in graph.node(name).sources)
    yield from (name for name in graph.nodes if not taken[name] and graph.node(name).operator not in _NO_OUTPUTS)


def _outputs(node: Node) -> Iterator[Port]:
    for position, number in enumerate(_types(node)):
        name = node.name if position == 0 else f"{node.name}_{position}"
        yield Port(name=name, tensor=f"{node.name}:{position}", dtype=dtype_of(number, name), shape=None)


def _types(node: Node) -> Sequence[int]:
    """Return the numbers of the types of a node's outputs, as the definition of its operator says."""
    try:
        from tensorflow.python.framework import op_def_registry
    except ImportError as error:
        raise MissingExtraError("tensorflow", "converting a frozen graph") from error
    definition = op_def_registry.get(node.operator)
    if definition is None:
        raise GraphError(f"has the operator {node.operator}, which TensorFlow does not know", tensor=node.name)
    found: list[int] = []
    for each in definition.output_arg:
        if each.number_attr or each.type_list_attr:
            raise GraphError("is a list of outputs that nothing takes", tensor=node.name)
        found.append(_type(each, node, {attribute.name: attribute for attribute in definition.attr}))
    return found


def _type(argument: Any, node: Node, declared: Mapping[str, Any]) -> int:
    if not argument.type_attr:
        return int(argument.type)
    stated = node.attributes.get(argument.type_attr)
    return int(declared[argument.type_attr].default_value.type) if stated is None else stated.type_number


def _input(node: Node) -> Port:
    number = node.attributes["dtype"].type_number if "dtype" in node.attributes else 0
    dtype = dtype_of(number, node.name)
    return Port(name=node.name, tensor=f"{node.name}:0", dtype=dtype, shape=placeholder_shape(node))


def _as_variable(node: Node, tensor: Tensor) -> Node:
    kind = {"dtype": Attribute.of_types(TYPE_NUMBERS[tensor.dtype]), "shape": Attribute.of_shape(tensor.shape)}
    return Node(name=node.name, operator="VariableV2", inputs=(), attributes=kind)


def _stored(name: str, tensor: Tensor) -> StoredVariable:
    variable = Variable(name=name, dtype=tensor.dtype, shape=tensor.shape, is_trainable=True)
    return StoredVariable(variable=variable, tensor=tensor)

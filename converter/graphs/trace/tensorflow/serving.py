"""What a SavedModel serves, cut and checked, with its variables and its tables as they are read. No TensorFlow.

Whoever converts the graph and whoever runs it take the same from here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from converter.encoding.folder import open_inside
from converter.encoding.graph_def import Node as GraphNode
from converter.encoding.meta_graph import SavedObject, TensorInfo
from converter.encoding.object_graph import Node, object_graph
from converter.encoding.tensor_bundle import Bundle, read_bundle_inside
from converter.encoding.tensorflow_variables import variable_names
from converter.errors import GraphError, ReadError
from converter.graphs.trace.tensorflow import frozen
from converter.graphs.trace.tensorflow.conversion import Port, Variable
from converter.graphs.trace.tensorflow.cutting import Cut, cut
from converter.graphs.trace.tensorflow.operators import makes_table
from converter.graphs.trace.tensorflow.served import Served, StoredVariable, dtype_of
from converter.graphs.trace.tensorflow.tables import tables
from converter.model.dtype import DType

_GRAPH_NAME = "saved_model.pb"
_VARIABLES = "variables/variables"
_HANDLES = ("VarHandleOp", "Variable", "VariableV2")


def serve(folder: Path, signature: str | None = None) -> Served:
    """Return what the SavedModel in `folder` serves, or that `signature` of it; all of a file, a frozen graph.

    Nothing is run, no tensor read but those of tables.

    Raises what `cutting.cut` and `tables.tables` do, ReadError for a damaged bundle, GraphError for a variable without
    values, and for text: targets are made of ONNX's operators, and these have none.
    """
    if not folder.is_dir():
        return frozen.serve(folder, signature)
    file = open_inside(folder, _GRAPH_NAME)
    part = cut(file.read(0, file.size), str(file.path), signature)
    bundle = read_bundle_inside(folder, _VARIABLES)
    has_tables = any(makes_table(node.operator) for node in part.nodes.values())
    return Served(
        title=part.name if part.note else f"the signature {part.name}",
        graph=part.graph,
        inputs=tuple(_port(name, info) for name, info in sorted(part.signature.inputs.items())),
        outputs=tuple(_port(name, info) for name, info in sorted(part.signature.outputs.items())),
        variables=dict(_variables(part, bundle)),
        tables=tables(part, _keys_of_tables(part, bundle), bundle) if has_tables else {},
        note=part.note,
    )


def _port(name: str, info: TensorInfo) -> Port:
    return Port(name=name, tensor=info.tensor, dtype=dtype_of(info.type_number, name), shape=info.shape)


def _variables(part: Cut, bundle: Bundle) -> Iterator[tuple[str, StoredVariable]]:
    """Yield the variables of the main graph by the node that makes their handle.

    Objects are matched by the path they are reached by, variables of TensorFlow 1 are called as their node is.
    """
    names = variable_names(bundle)
    objects = part.meta.objects
    if objects is None:
        yield from _variables_by_node(part, bundle, names)
        return
    keys = _saved(objects, object_graph(bundle))
    for handle, index in _captured(part):
        variable = objects[index].variable
        if handle.operator not in _HANDLES or variable is None:
            continue
        key = keys[index].key if index in keys else None
        if key is None:
            raise GraphError("is a variable of the graph that has no values", tensor=variable.name)
        dtype = dtype_of(variable.type_number, variable.name)
        yield handle.name, _held(bundle, key, names, dtype, is_trainable=variable.is_trainable)


def _captured(part: Cut) -> Iterator[tuple[GraphNode, int]]:
    """Yield the nodes of the main graph that functions capture, and the objects that they are."""
    for node in part.nodes.values():
        called = node.attributes["f"].called if "f" in node.attributes else ()
        captures = part.meta.captures.get(called[0], ()) if called else ()
        data = [each for each in node.inputs if not each.startswith("^")]
        if len(captures) > len(data):
            raise ReadError(f"has a call (node {node.name!r}) without what the function captures")
        for reference, index in zip(data[len(data) - len(captures) :], captures, strict=True):
            yield part.nodes[reference.partition(":")[0]], index


def _keys_of_tables(part: Cut, bundle: Bundle) -> dict[str, str]:
    """Return by node what the keys of its table's tensors start with, if there are any."""
    if part.meta.objects is None:
        return _keys_by_node(part)
    saved = _saved(part.meta.objects, object_graph(bundle))
    return {handle.name: saved[index].table or "" for handle, index in _captured(part) if index in saved}


def _keys_by_node(part: Cut) -> dict[str, str]:
    """Return what TensorFlow 1 calls the tensors of a table: as its node, without scopes; of two it saves neither."""
    graph = part.meta.graph
    makers = [name for name in graph.nodes if makes_table(graph.node(name).operator)]
    last = Counter(name.rpartition("/")[2] for name in makers)
    return {name: name.rpartition("/")[2] for name in makers if last[name.rpartition("/")[2]] == 1}


def _held(bundle: Bundle, key: str, names: Mapping[str, str], dtype: DType, *, is_trainable: bool) -> StoredVariable:
    if key not in bundle.tensors:
        raise GraphError("is a variable of the graph that has no values", tensor=names.get(key, key))
    shape = bundle.entries[key].shape
    variable = Variable(name=names[key], dtype=dtype, shape=shape, is_trainable=is_trainable)
    return StoredVariable(variable=variable, tensor=bundle.tensors[key])


def _saved(objects: Sequence[SavedObject], checkpoint: Sequence[Node]) -> dict[int, Node]:
    """Return the checkpoint's object for each of the graph: both have the same paths from the root."""
    found: dict[int, Node] = {}
    waiting = [(0, 0)] if checkpoint and objects else []
    while waiting:
        ours, theirs = waiting.pop()
        if ours in found or not 0 <= ours < len(objects):
            continue
        found[ours] = checkpoint[theirs]
        children = checkpoint[theirs].children
        waiting += [
            (child, children[local_name])
            for local_name, child in objects[ours].children.items()
            if local_name in children and child not in found
        ]
    return found


def _variables_by_node(part: Cut, bundle: Bundle, names: Mapping[str, str]) -> Iterator[tuple[str, StoredVariable]]:
    for node in part.nodes.values():
        if node.operator not in _HANDLES:
            continue
        key = next((key for key in (node.text("shared_name"), node.name) if key in bundle.entries), None)
        if key is not None and "dtype" in node.attributes:
            dtype = dtype_of(node.attributes["dtype"].type_number, node.name)
            yield node.name, _held(bundle, key, names, dtype, is_trainable=node.name in part.meta.trained)

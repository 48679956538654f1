"""A SavedModel to an ONNX graph whose initializers name the variables as they are read from its bundle.

Its `saved_model.pb` is inspected without TensorFlow first (`operators`), and it is those bytes that TensorFlow parses.
Nothing of the graph is run, nor is TensorFlow's loader: the graph is taken apart as data.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from converter.encoding.folder import open_inside
from converter.encoding.object_graph import Node, object_graph
from converter.encoding.tensor_bundle import Bundle, read_bundle
from converter.encoding.tensorflow_variables import variable_names
from converter.errors import ArchitectureError, GraphError, MissingExtraError
from converter.graphs.architecture import Architecture
from converter.graphs.fitting import Stored
from converter.graphs.movement import Step
from converter.graphs.passes.attach import attach
from converter.graphs.trace.tensorflow import operators
from converter.graphs.trace.tensorflow.conversion import Port, Source, Variable, convert
from converter.model.dtype import DType
from converter.model.kernels import kernel_axes, weight_axes

GRAPH_NAME = "saved_model.pb"
_VARIABLES = "variables/variables"
_SERVING = "serving_default"
_NOT_CALLED = ("__saved_model_init_op", "__saved_model_train_op")
_HANDLES = ("VarHandleOp", "Variable", "VariableV2")


def trace(
    *, model: str, graph: str, names: Mapping[str, str] | None = None, kernels: Sequence[str] = ()
) -> dict[str, Any]:
    """Convert the serving signature of the SavedModel in the folder `model`; write the ONNX file `graph`.

    Returns the Architecture as JSON values: parameters and buffers by the names in the bundle, or what `names` says
    that they stand for; those named in `kernels` become weights (`model.kernels`). Raises SafetyError for an operator
    that is not known to compute alone, ArchitectureError when no signature is the one to take, GraphError when it
    cannot be converted.
    """
    folder = Path(model)
    file = open_inside(folder, GRAPH_NAME)
    data = file.read(0, file.size)
    operators.check(data, str(file.path))
    converted = convert(_source(data, folder, names or {}))
    architecture = converted.architecture
    if kernels:
        architecture = _with_weights(converted.graph, architecture, frozenset(kernels))
    import onnx_ir

    onnx_ir.save(converted.graph, graph)
    return architecture.to_json()


def _with_weights(model: Any, architecture: Architecture, kernels: frozenset[str]) -> Architecture:
    """Let initializers that are kernels be weights, and nodes make kernels of them."""
    declared = {**architecture.parameters, **architecture.buffers}
    weights = {}
    for name, (dtype, shape) in declared.items():
        if name in kernels:
            moved = tuple(shape[axis] for axis in weight_axes(len(shape)))
            step = Step(kind="transpose", values=kernel_axes(len(shape)))
            weights[name] = Stored(name=name, dtype=dtype, shape=moved, steps=(step,))
    attach(model, {name: each.to_json() for name, each in weights.items()}, frozenset(declared))
    moved_to = {name: (each.dtype, each.shape) for name, each in weights.items()}
    return replace(
        architecture,
        parameters={name: moved_to.get(name, each) for name, each in architecture.parameters.items()},
        buffers={name: moved_to.get(name, each) for name, each in architecture.buffers.items()},
    )


def signature_name(data: bytes, folder: Path) -> str:
    """Return the signature that is converted. Raises ArchitectureError when there is none, or no telling which."""
    return _signature(_meta_graph(data, folder).signature_def, folder)[0]


def _meta_graph(data: bytes, folder: Path) -> Any:
    try:
        from tensorflow.core.protobuf import saved_model_pb2
    except ImportError as error:
        raise MissingExtraError("tensorflow", "converting a SavedModel") from error
    saved = saved_model_pb2.SavedModel.FromString(data)
    for meta_graph in saved.meta_graphs:
        if "serve" in meta_graph.meta_info_def.tags:
            return meta_graph
    raise ArchitectureError("is a SavedModel without a graph that serves", path=folder)


def _source(data: bytes, folder: Path, names: Mapping[str, str]) -> Source:
    meta_graph = _meta_graph(data, folder)
    name, signature = _signature(meta_graph.signature_def, folder)
    bundle = read_bundle(folder / _VARIABLES, root=folder)
    return Source(
        title=f"the signature {name}",
        graph=meta_graph.graph_def,
        inputs=_ports(signature.inputs, folder),
        outputs=_ports(signature.outputs, folder),
        variables={
            node: replace(variable, name=names.get(variable.name, variable.name))
            for node, variable in _variables(meta_graph, bundle)
        },
    )


def _signature(signatures: Mapping[str, Any], folder: Path) -> tuple[str, Any]:
    found = {name: each for name, each in signatures.items() if name not in _NOT_CALLED and each.outputs}
    if _SERVING in found:
        return _SERVING, found[_SERVING]
    if len(found) != 1:
        which = f"several signatures, none of them {_SERVING}: {', '.join(sorted(found))}" if found else "no signature"
        raise ArchitectureError(f"is a SavedModel with {which}", path=folder, hint="--weights-only writes no graph")
    return next(iter(found.items()))


def _ports(tensors: Mapping[str, Any], folder: Path) -> tuple[Port, ...]:
    ports = []
    for name, info in sorted(tensors.items()):
        if info.WhichOneof("encoding") != "name":
            raise GraphError(f"{name!r} of the signature is not one tensor", path=folder)
        dtype = _dtype(info.dtype, name)
        extents = tuple(None if each.size < 0 else each.size for each in info.tensor_shape.dim)
        ports.append(
            Port(name=name, tensor=info.name, dtype=dtype, shape=None if info.tensor_shape.unknown_rank else extents)
        )
    return tuple(ports)


def _dtype(number: int, name: str) -> DType:
    import tensorflow as tf

    try:
        return DType(tf.dtypes.as_dtype(number).name)
    except (TypeError, ValueError) as error:
        raise GraphError(f"has elements of a type ({number}) that no tensor here has", tensor=name) from error


def _variables(meta_graph: Any, bundle: Bundle) -> Iterator[tuple[str, Variable]]:
    """Yield the variables of the main graph by the node that makes their handle.

    Objects are matched by the path they are reached by, variables of TensorFlow 1 are called as their node is.
    """
    names = variable_names(bundle)
    if not meta_graph.HasField("object_graph_def"):
        yield from _variables_by_node(meta_graph, bundle, names)
        return
    saved = meta_graph.object_graph_def
    keys = _keys(saved.nodes, object_graph(bundle))
    nodes = {node.name: node for node in meta_graph.graph_def.node}
    for node in nodes.values():
        called = node.attr["f"].func.name if "f" in node.attr else ""
        if called not in saved.concrete_functions:
            continue
        captures = saved.concrete_functions[called].bound_inputs
        data = [each for each in node.input if not each.startswith("^")]
        for reference, index in zip(data[len(data) - len(captures) :], captures, strict=True):
            handle = nodes.get(reference.partition(":")[0])
            if handle is None or handle.op not in _HANDLES:
                continue
            variable = saved.nodes[index].variable
            if index not in keys:
                raise GraphError("is a variable of the graph that has no values", tensor=variable.name)
            yield (
                handle.name,
                Variable(
                    name=names[keys[index]],
                    dtype=_dtype(variable.dtype, variable.name),
                    shape=bundle.entries[keys[index]].shape,
                    is_trainable=variable.trainable,
                ),
            )


def _keys(saved: Any, checkpoint: tuple[Node, ...]) -> dict[int, str]:
    """Return the key of every variable of the graph by its node: both graphs have the same paths from the root."""
    keys: dict[int, str] = {}
    seen: set[int] = set()
    waiting = [(0, 0)] if checkpoint and len(saved) else []
    while waiting:
        ours, theirs = waiting.pop()
        if ours in seen:
            continue
        seen.add(ours)
        key = checkpoint[theirs].key
        if key is not None:
            keys[ours] = key
        children = checkpoint[theirs].children
        waiting += [
            (child.node_id, children[child.local_name])
            for child in saved[ours].children
            if child.local_name in children and child.node_id not in seen
        ]
    return keys


def _variables_by_node(meta_graph: Any, bundle: Bundle, names: Mapping[str, str]) -> Iterator[tuple[str, Variable]]:
    trainable = _names_of_trainable(meta_graph)
    for node in meta_graph.graph_def.node:
        if node.op not in _HANDLES:
            continue
        key = next((key for key in (node.attr["shared_name"].s.decode(), node.name) if key in bundle.entries), None)
        if key is None:
            continue
        yield (
            node.name,
            Variable(
                name=names[key],
                dtype=_dtype(node.attr["dtype"].type, node.name),
                shape=bundle.entries[key].shape,
                is_trainable=node.name in trainable,
            ),
        )


def _names_of_trainable(meta_graph: Any) -> set[str]:
    from tensorflow.core.framework import variable_pb2

    collection = meta_graph.collection_def["trainable_variables"].bytes_list.value
    return {variable_pb2.VariableDef.FromString(each).variable_name.partition(":")[0] for each in collection}

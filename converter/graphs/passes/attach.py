"""Making the initializers of a graph agree with the tensors of a checkpoint, in name, layout and element type."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

from converter.errors import GraphError
from converter.graphs.description.traced import WEIGHTS_LOCATION
from converter.model.dtype import DType


def attach(model: Any, stored: Mapping[str, Mapping[str, Any]], names: frozenset[str]) -> None:
    """Let each initializer named in `stored` be the checkpoint's tensor, and nodes make of it what the graph had.

    `stored` is `fitting.Stored` as JSON, `names` are those of all tensors. Two initializers may become one tensor; what
    the graph has no use for it does not have. Raises GraphError for the name of a tensor that an input or output of the
    graph has.
    """
    graph = model.graph
    stored = {name: each for name, each in stored.items() if name in graph.initializers}
    old = {name: graph.initializers.pop(name) for name in stored}
    _make_way(model, {each["name"] for each in stored.values()}, names)
    labels = {value.name.rpartition("/")[0] for value in _values(model)}
    nodes: list[Any] = []
    for name, each in stored.items():
        source = graph.initializers.get(each["name"])
        if source is None:
            source = _reference(each) if _has_changed(old[name], each) else _renamed(old[name], each["name"])
            graph.initializers[each["name"]] = source
        moving = list(_moving(graph, source, each["steps"], old[name], _label(name, labels)))
        if old[name].is_graph_output():
            moving.append(_node("Identity", [moving[-1].outputs[0] if moving else source], old[name], name))
        old[name].replace_all_uses_with(moving[-1].outputs[0] if moving else source, replace_graph_outputs=True)
        nodes += moving
    if len(graph):
        graph.insert_before(graph[0], nodes)
    else:
        graph.extend(nodes)


def _make_way(model: Any, used: set[str], names: frozenset[str]) -> None:
    """Rename values in the middle of the graph that have a name which a tensor has, or is to have."""
    graph = model.graph
    outer = [*graph.inputs, *graph.outputs, *graph.initializers.values()]
    names_in_use = next((value.name for value in outer if value.name in used), None)
    if names_in_use is not None:
        raise GraphError("is the name of an input, output or other initializer of the graph", tensor=names_in_use)
    fixed = {id(value) for value in outer}
    inner = [value for value in _values(model) if id(value) not in fixed]
    labels_in_use = {*names, *used, *(value.name for value in (*outer, *inner))}
    for value in inner:
        if value.name in names or value.name in used:
            value.name = next(
                new for count in range(len(labels_in_use) + 1) if (new := f"{value.name}_{count}") not in labels_in_use
            )
            labels_in_use.add(value.name)


def _label(name: str, labels_in_use: set[str]) -> str:
    """Return `name`, or one like it where that is taken by nodes of an earlier time; it is taken then, too."""
    label = next(
        new for count in itertools.count() if (new := f"{name}_{count}" if count else name) not in labels_in_use
    )
    labels_in_use.add(label)
    return label


def _values(model: Any) -> Iterator[Any]:
    for graph in model.graphs():
        yield from graph.inputs
        yield from graph.initializers.values()
    for node in model.graph.all_nodes():
        yield from node.outputs


def _has_changed(value: Any, stored: Mapping[str, Any]) -> bool:
    return bool(stored["steps"]) or _dtype(stored) != value.dtype


def _renamed(value: Any, name: str) -> Any:
    """Return the same initializer under another name; the value of a constant stays in the graph."""
    import onnx_ir

    return onnx_ir.Value(name=name, shape=value.shape, type=value.type, const_value=value.const_value)


def _dtype(stored: Mapping[str, Any]) -> Any:
    import onnx_ir

    return onnx_ir.DataType.from_numpy(DType(stored["dtype"]).numpy)


def _reference(stored: Mapping[str, Any]) -> Any:
    import onnx_ir

    dtype, shape = _dtype(stored), onnx_ir.Shape(stored["shape"])
    tensor = onnx_ir.ExternalTensor(WEIGHTS_LOCATION, None, None, dtype, shape=shape, name=stored["name"])
    type_ = onnx_ir.TensorType(dtype)
    return onnx_ir.Value(name=stored["name"], shape=shape, type=type_, const_value=tensor)


def _moving(graph: Any, value: Any, steps: list[Any], old: Any, name: str) -> Iterator[Any]:
    """Yield the nodes of `steps` and, where the element type differs from what `old` had, of a cast."""
    import onnx_ir

    for number, (kind, values) in enumerate(steps):
        label = f"{name}/{kind}_{number}"
        if kind == "transpose":
            shape = [value.shape[axis] for axis in values]
            node = _node("Transpose", [value], value, label, attributes={"perm": values}, shape=shape)
        else:
            extents = onnx_ir.Value(
                name=f"{label}/shape",
                shape=onnx_ir.Shape([len(values)]),
                type=onnx_ir.TensorType(onnx_ir.DataType.INT64),
                const_value=onnx_ir.tensor(values, onnx_ir.DataType.INT64),
            )
            graph.initializers[extents.name] = extents
            attributes = {} if 0 not in values else {"allowzero": 1}
            node = _node("Reshape", [value, extents], value, label, attributes=attributes, shape=values)
        yield node
        (value,) = node.outputs
    if value.dtype != old.dtype:
        yield _node("Cast", [value], old, f"{name}/cast", attributes={"to": int(old.dtype)})


def _node(
    op_type: str,
    inputs: list[Any],
    like: Any,
    label: str,
    *,
    attributes: Mapping[str, Any] | None = None,
    shape: Any = None,
) -> Any:
    """Return a node whose output is called `label` and has the element type of `like`."""
    import onnx_ir

    node = onnx_ir.node(op_type, inputs, attributes or {}, name=label)
    (output,) = node.outputs
    output.name = label
    output.type = onnx_ir.TensorType(like.dtype)
    output.shape = onnx_ir.Shape(like.shape if shape is None else shape)
    return node

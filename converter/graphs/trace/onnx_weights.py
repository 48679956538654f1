"""Weights of an ONNX model that are no initializers of its graph, made such.

`converter.encoding.onnx_graphs` says which they are, where they stand and what they are called. Sparse tensors, which
onnx_ir does not have, become dense ones.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from converter.encoding.onnx_graphs import Held
from converter.errors import GraphError
from converter.graphs.description.traced import WEIGHTS_LOCATION

_MARK = "ckconv.weight"
"""The metadata of a Constant that says which weight it is, as long as there are functions."""


def load(path: Path, held: Iterable[Held]) -> Any:
    """Return the onnx_ir.Model of a file. What is sparse is empty, but for constants.

    Raises what onnx and onnx_ir do for malformed ones.
    """
    import onnx
    import onnx_ir

    proto = onnx.load(path, format="protobuf", load_external_data=False)
    sparse = [each for each in held if each.is_sparse]
    if sparse:
        _fill_sparse(proto.graph)
        for function in proto.functions:
            _fill_in_nodes(function.node)
    model = onnx_ir.from_proto(proto)
    for each in sparse:
        if not each.is_weight and each.tensor is not None:
            _set_constant(model, each, onnx_ir.tensor(each.tensor.numpy()))
    return model


def _fill_sparse(graph: Any) -> None:
    for each in graph.sparse_initializer:
        graph.initializer.add(name=each.values.name, data_type=each.values.data_type, dims=[0], raw_data=b"")
    graph.ClearField("sparse_initializer")
    _fill_in_nodes(graph.node)


def _fill_in_nodes(nodes: Any) -> None:
    for node in nodes:
        for attribute in node.attribute:
            for graph in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                _fill_sparse(graph)
            if attribute.HasField("sparse_tensor") and node.op_type == "Constant":
                data_type = attribute.sparse_tensor.values.data_type
                attribute.ClearField("sparse_tensor")
                attribute.t.data_type, attribute.t.raw_data = data_type, b""
                attribute.t.dims.append(0)
                attribute.name, attribute.type = "value", type(attribute).TENSOR


def _set_constant(model: Any, held: Held, tensor: Any) -> None:
    import onnx_ir

    graph = _graph_of(model, held)
    if held.place.node is None:
        value = graph.initializers[held.value]
        value.const_value, value.shape = tensor, tensor.shape
    else:
        node = list(graph)[held.place.node]
        node.attributes["value"] = onnx_ir.AttrTensor("value", tensor)


def _graph_of(model: Any, held: Held) -> Any:
    """Return the graph or function that a tensor stands in. Raises GraphError where the model has another form."""
    place = held.place
    try:
        graph = model.graph if place.function is None else _function(model, place.function)
        for node, attribute, number in place.through:
            value = list(graph)[node].attributes[attribute].value
            graph = value[number] if isinstance(value, list | tuple) else value
    except (KeyError, IndexError, AttributeError) as error:
        raise GraphError("is in a part of the graph that cannot be told", tensor=held.full_name) from error
    return graph


def _function(model: Any, identifier: tuple[str, str, str]) -> Any:
    domain, name, overload = identifier
    found = model.functions.get(identifier)
    return model.functions["ai.onnx", name, overload] if found is None and not domain else found


def mark(model: Any, weights: Mapping[str, Held]) -> None:
    """Let each weight be a Constant that says its name, before functions are put where they are called."""
    for node in _all_nodes(model):
        node.metadata_props.pop(_MARK, None)
    listed: dict[int, list[Any]] = {}
    inner: list[tuple[Any, Held, str]] = []
    for name, held in weights.items():
        graph = _graph_of(model, held)
        if held.place.node is not None:
            nodes = listed.setdefault(id(graph), list(graph))
            nodes[held.place.node].metadata_props[_MARK] = name
        elif graph is not model.graph:
            inner.append((graph, held, name))
        elif held.value != name:
            graph.initializers[held.value].name = name
    for graph, held, name in inner:  # places of nodes hold no more
        _constant_for(graph, held.value, name)


def _all_nodes(model: Any) -> Iterator[Any]:
    yield from model.graph.all_nodes()
    for function in model.functions.values():
        yield from function.all_nodes()


def _constant_for(graph: Any, initializer: str, name: str) -> None:
    import onnx_ir

    value = graph.initializers[initializer]
    if value.is_graph_input():
        raise GraphError("is an input of a graph inside the graph, too", tensor=name)
    node = onnx_ir.node("Constant", [], {"value": value.const_value})
    node.metadata_props[_MARK] = name
    (output,) = node.outputs
    output.type, output.shape = value.type, value.shape
    del graph.initializers[initializer]
    value.replace_all_uses_with(output, replace_graph_outputs=True)
    output.name = initializer
    graph.insert_before(graph[0], [node]) if len(graph) else graph.extend([node])


def lift(model: Any, weights: Mapping[str, Held]) -> None:
    """Let the Constants that are marked be initializers of the graph, one for all that are of one weight."""
    main = model.graph
    for graph in list(model.graphs()):
        for node in list(graph):
            name = node.metadata_props.pop(_MARK, None)
            if name in weights:
                _lift(main, graph, node, _initializer(main, name, weights[name]))
    _make_way(model, frozenset(weights).intersection(main.initializers))


def _initializer(main: Any, name: str, held: Held) -> Any:
    import onnx_ir

    if name not in main.initializers:
        assert held.tensor is not None, "a weight has a tensor"
        dtype, shape = onnx_ir.DataType.from_numpy(held.tensor.dtype.numpy), onnx_ir.Shape(held.tensor.shape)
        tensor = onnx_ir.ExternalTensor(WEIGHTS_LOCATION, None, None, dtype, shape=shape, name=name)
        value = onnx_ir.Value(name=name, shape=shape, type=onnx_ir.TensorType(dtype), const_value=tensor)
        main.initializers[name] = value
    return main.initializers[name]


def _lift(main: Any, graph: Any, node: Any, value: Any) -> None:
    import onnx_ir

    (output,) = node.outputs
    if output.is_graph_output() and (graph is not main or output.name != value.name):
        passed = onnx_ir.node("Identity", [value])
        passed.outputs[0].name = output.name
        passed.outputs[0].type, passed.outputs[0].shape = value.type, value.shape
        graph.insert_before(node, [passed])
        value = passed.outputs[0]
    output.replace_all_uses_with(value, replace_graph_outputs=True)
    graph.remove(node, safe=True)


def _make_way(model: Any, names: frozenset[str]) -> None:
    """Rename other values that are called as one of the weights: names of inner graphs hide those around them."""
    main = model.graph
    own = {id(main.initializers[name]) for name in names}
    values = [value for node in main.all_nodes() for value in node.outputs]
    values += [value for graph in model.graphs() if graph is not main for value in graph.inputs]
    taken = {*names, *main.initializers, *(value.name for value in (*values, *main.inputs))}
    for value in values:
        if value.name in names and id(value) not in own:
            value.name = next(new for count in itertools.count() if (new := f"{value.name}_{count}") not in taken)
            taken.add(value.name)

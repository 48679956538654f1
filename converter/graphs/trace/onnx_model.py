"""An ONNX file as a graph: its weights become references to the tensors that the reader found in it.

https://github.com/onnx/onnx/blob/v1.19.0/docs/IR.md. Which tensors are trained, ONNX does not say. The rule here:
floating-point initializers with at least one axis are parameters, and what converter.encoding.onnx_graphs takes for
weights elsewhere, unless a BatchNormalization takes them for its running mean or variance, or what is quantised for its
scales; all else is a buffer, but for what operators take as parameters (converter.encoding.onnx_operands), which is a
constant of the graph. Integers and truth values of few elements, and single numbers, are shapes, axes and scales:
buffers whose values the graph keeps too, for what must be known when it is built.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from converter.encoding.onnx_file import Model, read_model
from converter.encoding.onnx_graphs import Held
from converter.encoding.onnx_tensors import FilesBeside
from converter.errors import GraphError
from converter.graphs.description.signature import Declaration, GraphInput, Signature
from converter.graphs.description.traced import WEIGHTS_LOCATION
from converter.graphs.passes.old_opsets import raise_old
from converter.graphs.passes.quantised import spell_out
from converter.graphs.trace import onnx_weights
from converter.graphs.trace.sampling import sampling_of
from converter.model.dtype import DType
from converter.model.file import LocalFile

_DOMAINS = ("", "ai.onnx", "ai.onnx.ml")
_KEPT_LIMIT = 4096
_UNTRAINED = {
    "BatchNormalization": (3, 4),
    "DequantizeLinear": (1,),
    "DynamicQuantizeLSTM": (8, 10),
    "DynamicQuantizeMatMul": (2,),
    "MatMulIntegerToFloat": (2, 3),
    "QGemm": (1, 4),
    "QuantizeLinear": (1,),
    "QLinearConv": (1, 4, 6),
    "QLinearMatMul": (1, 4, 6),
}
_IR_VERSION = 4
"""The first IR version in which an initializer need not be an input."""


def trace(*, model: str, graph: str, names: dict[str, str], has_weights_inside: bool = True) -> dict[str, Any]:
    """Write the graph of the ONNX file `model` to `graph`, which names tensors as the reader does.

    `names` maps initializers to what the reader calls them, where that differs; `has_weights_inside` says whether it
    takes for weights what stands in nodes, functions and inner graphs. Functions are inlined, initializers of inner
    graphs that are none become constants, weights that nothing uses are left to the checkpoint. Returns the Signature
    as JSON values. Raises GraphError for operators of other domains than ONNX's own, for inputs and outputs that are no
    tensors, and for malformed graphs; SafetyError for external data that is not a file of its own in the model's
    folder.
    """
    import onnx_ir

    found = read_model(LocalFile(Path(model)))
    tensors, weights = dict(found.tensors), dict(found.weights) if has_weights_inside else {}
    if has_weights_inside:
        tensors = {name: tensor for name, tensor in tensors.items() if name not in found.operands}
    loaded = _loaded(Path(model), found)
    main = loaded.graph
    _flatten(loaded, weights)
    untrained = {value.name for value in _untrained(loaded)}
    spell_out(loaded)
    _check_nodes(loaded)
    raise_old(loaded)
    _read_attributes(loaded)
    untrained |= {value.name for value in _untrained(loaded)}
    tensors |= {name: held.tensor for name, held in weights.items() if held.tensor is not None}
    parameters: dict[str, Declaration] = {}
    buffers: dict[str, Declaration] = {}
    computed = list(found.attributes)
    for value in list(main.initializers.values()):
        if not value.uses() and not value.is_graph_output():
            del main.initializers[value.name]
            continue
        if value.name not in tensors:
            value.const_value = _in_memory(value.const_value)
            computed.append(value.name)
            continue
        is_frozen = value.name in untrained
        declaration = (tensors[value.name].dtype, tensors[value.name].shape)
        name = names.get(value.name, value.name)
        _settle(value, name, declaration)
        is_trained = declaration[0].is_floating and declaration[1] and not is_frozen
        (parameters if is_trained else buffers)[name] = declaration
    _forget_nameless(loaded)
    inputs = tuple(map(_input, main.inputs))
    loaded.ir_version = max(loaded.ir_version, _IR_VERSION)
    _check(loaded, Path(model))
    loaded = _with_shapes(loaded)
    main = loaded.graph
    described = Signature(
        title=main.name or "the graph",
        parameters=parameters,
        buffers=buffers,
        computed=tuple(computed),
        inputs=tuple(replace(each, sampling=sampling_of(main, each)) for each in inputs),
        outputs=tuple(map(_output, main.outputs)),
    )
    onnx_ir.save(loaded, graph)
    return described.to_json()


def _loaded(path: Path, found: Model) -> Any:
    """Return the model, its external data looked at only when all of it is known to be beside the file."""
    import google.protobuf.message
    import onnx_ir

    try:
        model = onnx_weights.load(path, (*found.weights.values(), *found.constants.values()))
    except (ValueError, TypeError, KeyError, RuntimeError, google.protobuf.message.DecodeError) as error:
        raise GraphError(f"is no graph: {' '.join(str(error).split())[:300]}", path=path) from error
    if "ai.onnx" in model.opset_imports:
        model.opset_imports.setdefault("", model.opset_imports.pop("ai.onnx"))
    if "" not in model.opset_imports:
        raise GraphError("does not say which version of ONNX's operators it is in", path=path)
    beside = FilesBeside(model=path)
    for tensor in _tensors(model):
        if isinstance(tensor, onnx_ir.ExternalTensor):
            beside.open(str(tensor.location))
            tensor.base_dir = path.parent
    return model


def _tensors(model: Any) -> Iterator[Any]:
    for graph in (*model.graphs(), *(each for function in model.functions.values() for each in _graphs(function))):
        yield from (value.const_value for value in graph.initializers.values())
    nodes = [*model.graph.all_nodes(), *(node for each in model.functions.values() for node in each.all_nodes())]
    for node in nodes:
        for attribute in node.attributes.values():
            if attribute.is_ref():
                continue
            if attribute.type.name == "TENSOR":
                yield attribute.value
            elif attribute.type.name == "TENSORS":
                yield from attribute.value


def _graphs(function: Any) -> Iterator[Any]:
    for node in function.all_nodes():
        for attribute in node.attributes.values():
            if attribute.type.name == "GRAPH" and not attribute.is_ref():
                yield attribute.value
            elif attribute.type.name == "GRAPHS" and not attribute.is_ref():
                yield from attribute.value


def _flatten(model: Any, weights: Mapping[str, Held]) -> None:
    """Inline functions, and let weights and initializers be those of the main graph, and none of them an input too."""
    import onnx_ir
    import onnx_ir.passes.common as passes

    onnx_weights.mark(model, weights)
    try:
        if model.functions:
            passes.InlinePass()(model)
        passes.RemoveInitializersFromInputsPass()(model)
        onnx_weights.lift(model, weights)
        passes.LiftSubgraphInitializersToMainGraphPass()(model)
    except (ValueError, RuntimeError, onnx_ir.passes.PassError, onnx_ir.passes.InvariantError) as error:
        raise GraphError(f"cannot be made one graph: {' '.join(str(error).split())[:300]}") from error


def _read_attributes(model: Any) -> None:
    """Let no attribute have its values in another file: the graph goes elsewhere."""
    import onnx_ir

    for node in model.graph.all_nodes():
        for name, attribute in list(node.attributes.items()):
            if attribute.type.name == "TENSOR" and isinstance(attribute.value, onnx_ir.ExternalTensor):
                node.attributes[name] = onnx_ir.AttrTensor(name, _in_memory(attribute.value))


def _check_nodes(model: Any) -> None:
    for node in model.graph.all_nodes():
        if node.domain not in _DOMAINS:
            raise GraphError(f"node {node.name or '?'} is a {node.op_type} of the domain {node.domain!r}, not of ONNX")


def _untrained(model: Any) -> Iterator[Any]:
    """Yield what operators take that no optimizer changes: running statistics, and the scales of what is quantised."""
    for node in model.graph.all_nodes():
        places = _UNTRAINED.get(node.op_type, ())
        yield from (node.inputs[at] for at in places if at < len(node.inputs) and node.inputs[at] is not None)


def _known(dtype: Any, what: str) -> DType:
    try:
        return DType.of(dtype.numpy())
    except (KeyError, TypeError) as error:
        raise GraphError(f"{what} is of the type {dtype.name}, which is not converted") from error


def _settle(value: Any, name: str, declaration: Declaration) -> None:
    """Make an initializer a reference to a tensor of the checkpoint or, if it is small, a constant called the same."""
    import onnx_ir

    tensor, (dtype, shape) = value.const_value, declaration
    value.name = name
    value.type, value.shape = onnx_ir.TensorType(tensor.dtype), onnx_ir.Shape(shape)
    if not shape or (not dtype.is_floating and tensor.size <= _KEPT_LIMIT):
        value.const_value = _in_memory(tensor)
    else:
        value.const_value = onnx_ir.ExternalTensor(
            WEIGHTS_LOCATION, None, None, tensor.dtype, shape=onnx_ir.Shape(shape), name=name
        )


def _in_memory(tensor: Any) -> Any:
    import onnx_ir

    return onnx_ir.tensor(tensor.numpy(), name=tensor.name) if isinstance(tensor, onnx_ir.ExternalTensor) else tensor


def _forget_nameless(model: Any) -> None:
    """Let extents that have no letter in their name be unknown, and negative ones: axes "?" are not all alike."""
    import onnx_ir

    values = [*model.graph.inputs, *(output for node in model.graph.all_nodes() for output in node.outputs)]
    for value in values:
        if value.shape is not None and any(map(_is_nameless, value.shape)):
            value.shape = onnx_ir.Shape(None if _is_nameless(extent) else extent for extent in value.shape)


def _is_nameless(extent: Any) -> bool:
    return extent < 0 if isinstance(extent, int) else not re.search(r"[^\W\d_]", extent.value or "")


def _input(value: Any) -> GraphInput:
    dtype = _element_type(value, "input")
    if value.shape is None:
        raise GraphError(f"the input {value.name!r} has no shape")
    shape = tuple(_extent(extent, f"{value.name}_{axis}") for axis, extent in enumerate(value.shape))
    return GraphInput(name=value.name, dtype=dtype, shape=shape)


def _extent(extent: Any, unnamed: str) -> int | str:
    if isinstance(extent, int):
        return extent if extent >= 0 else unnamed
    return extent.value or unnamed


def _output(value: Any) -> str:
    _element_type(value, "output")
    return str(value.name)


def _element_type(value: Any, what: str) -> DType:
    import onnx_ir

    if not isinstance(value.type, onnx_ir.TensorType):
        raise GraphError(f"the {what} {value.name!r} is no tensor")
    return _known(value.type.dtype, f"the {what} {value.name!r}")


def _check(model: Any, path: Path) -> None:
    """Hold the graph to the checker of onnx; its weights, which are elsewhere, are inputs to it."""
    import onnx
    import onnx_ir

    proto = onnx_ir.to_proto(model)
    for each in proto.graph.initializer:
        proto.graph.input.append(onnx.helper.make_tensor_value_info(each.name, each.data_type, each.dims))
    del proto.graph.initializer[:]
    try:
        onnx.checker.check_model(proto)
    except (onnx.checker.ValidationError, ValueError) as error:
        reason = " ".join(str(error).split())[:300]
        raise GraphError(f"the checker of onnx refuses the graph: {reason}", path=path) from error


def _with_shapes(model: Any) -> Any:
    """Return the model with the shapes that onnx can infer, itself where it cannot."""
    import onnx_ir.passes.common as passes

    return passes.ShapeInferencePass(check_type=False, strict_mode=False, data_prop=True)(model).model

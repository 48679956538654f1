"""Making every initializer of an exported graph a reference to a tensor of the checkpoint, or a constant."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from converter.errors import GraphError
from converter.graphs.description.signature import Declaration
from converter.graphs.description.traced import WEIGHTS_LOCATION
from converter.graphs.trace.assembling import assemble
from converter.graphs.trace.model_building import unsaved_parameters
from converter.graphs.trace.saved_form import SavedForm
from converter.model.dtype import DType


def attach_tensors(
    model: Any, source: Any, form: SavedForm, ties: Mapping[str, str], buffers: Callable[[], Mapping[str, Any]]
) -> tuple[str, ...]:
    """Give every initializer of an onnx_ir.Model its tensor: one of the checkpoint by its saved name, or a constant.

    `source` is the torch model, `ties` its tied names in memory, `buffers` computes those that no checkpoint has.
    Returns the names of the constants. Raises GraphError for an initializer that is neither.
    """
    graph = model.graph
    declared = {name: each for name, each in declarations(source).items() if name not in unsaved_parameters(source)}
    values: Mapping[str, Any] | None = None
    computed: list[str] = []
    assembled: dict[str, Any] = {}
    for name, value in list(graph.initializers.items()):
        owner = ties.get(name, name)
        if owner in form.names and owner in declared:
            _refer(graph, value, form.names[owner], declared[owner])
        elif owner in form.parts:
            if owner not in assembled:
                assembled.update(_assembled(graph, form, owner))
            value.replace_all_uses_with(assembled[owner], replace_graph_outputs=True)
            del graph.initializers[name]
        elif value.const_value is None or _is_abstract(value.const_value):
            values = buffers() if values is None else values
            if name not in values:
                raise GraphError("is in no checkpoint, and cannot be computed from the config", tensor=name)
            _make_constant(value, name, values[name])
            computed.append(name)
    return tuple(computed)


def declarations(source: Any) -> dict[str, Declaration]:
    """Return dtype and shape of everything in the state dict of a torch model, by its name in memory."""
    return {name: (dtype_of(tensor), tuple(tensor.shape)) for name, tensor in source.state_dict().items()}


def dtype_of(tensor: Any) -> DType:
    """Return the element type of a torch tensor."""
    return DType(str(tensor.dtype).removeprefix("torch."))


def _is_abstract(tensor: Any) -> bool:
    return bool(getattr(getattr(tensor, "raw", None), "is_meta", False))


def _refer(graph: Any, value: Any, name: str, declaration: Declaration) -> None:
    if value.name != name and name in graph.initializers:
        value.replace_all_uses_with(graph.initializers[name], replace_graph_outputs=True)
        del graph.initializers[value.name]
        return
    value.name = name
    value.const_value = _external(name, declaration)


def _external(name: str, declaration: Declaration) -> Any:
    import onnx_ir

    dtype, shape = declaration
    onnx_dtype = onnx_ir.DataType.from_numpy(dtype.numpy)
    return onnx_ir.ExternalTensor(WEIGHTS_LOCATION, None, None, onnx_dtype, shape=onnx_ir.Shape(shape), name=name)


def _assembled(graph: Any, form: SavedForm, name: str) -> dict[str, Any]:
    import onnx_ir

    assembly = next(each for each in form.assemblies if name in each.built)
    references = {}
    for saved in assembly.saved:
        if saved not in graph.initializers:
            tensor = _external(saved, form.declared[saved])
            kind = onnx_ir.TensorType(tensor.dtype)
            graph.register_initializer(onnx_ir.Value(name=saved, shape=tensor.shape, type=kind, const_value=tensor))
        references[saved] = graph.initializers[saved]
    return assemble(graph, assembly, references)


def _make_constant(value: Any, name: str, tensor: Any) -> None:
    import onnx_ir

    array = tensor.cpu().numpy()
    if tuple(array.shape) != tuple(value.shape) or onnx_ir.DataType.from_numpy(array.dtype) != value.dtype:
        raise GraphError(f"was computed as {array.dtype} {list(array.shape)}, not as the graph has it", tensor=name)
    value.const_value = onnx_ir.tensor(array, name=name)

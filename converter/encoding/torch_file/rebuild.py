"""What torch pickles its own values through (torch/_utils.py, torch 2.13), as pure functions that declare tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from converter.encoding.pickle import PLAIN, Constructor, Global, Placeholder
from converter.encoding.torch_file.numpy_values import NUMPY, NumpyArray
from converter.encoding.torch_file.pending import CONJUGATE, NEGATIVE
from converter.encoding.torch_file.script import SCRIPT
from converter.encoding.torch_file.storages import DTYPES, Storage, View
from converter.errors import ReadError
from converter.model.dtype import DType
from converter.model.structure import TorchDevice, TorchSize

_CODES = frozenset({DType.INT8, DType.UINT8})
_ATTRIBUTES_DEPTH, _ATTRIBUTES_LOOKED_AT = 3, 8


def _refused(what: str) -> ReadError:
    return ReadError(f"the pickle has {what} that is malformed")


def _tensor(arguments: tuple[Any, ...]) -> View:
    match arguments:
        case (Storage() as storage, offset, shape, strides):
            if storage.dtype is None:
                raise _refused("a tensor of a storage without a type")
            return View(storage=storage, dtype=storage.dtype, offset=offset, shape=shape, strides=strides)
    raise _refused("a tensor")


def _tensor_v2(arguments: tuple[Any, ...]) -> View:
    match arguments:
        case (storage, offset, shape, strides, requires_grad, _, *metadata) if len(metadata) <= 1:
            view = _tensor((storage, offset, shape, strides))
            return _with_metadata(replace(view, requires_grad=requires_grad is True), metadata)
    raise _refused("a tensor")


def _tensor_v3(arguments: tuple[Any, ...]) -> View:
    match arguments:
        case (Storage() as storage, offset, shape, strides, requires_grad, _, dtype, *metadata) if len(metadata) <= 1:
            view = View(
                storage=storage, offset=offset, shape=shape, strides=strides, requires_grad=requires_grad is True
            )
            return _with_metadata(_with_dtype(view, dtype), metadata)
    raise _refused("a tensor")


def _with_dtype(view: View, dtype: Any) -> View:
    if not (isinstance(dtype, Global) and dtype.module == "torch"):
        raise _refused("an element type")
    if dtype.name not in DTYPES:
        return replace(view, problem=f"has the element type {dtype}, which is not supported")
    return replace(view, dtype=DTYPES[dtype.name])


def _with_metadata(view: View, metadata: list[Any]) -> View:
    """Note what is still to be done to the elements of a lazily conjugated or negated tensor."""
    bits = metadata[0] if metadata else None
    if not bits:
        return view
    if not isinstance(bits, dict):
        raise _refused("a tensor")
    pending = frozenset(str(bit) for bit, is_set in bits.items() if is_set)
    if pending <= {CONJUGATE, NEGATIVE}:
        return replace(view, pending=pending)
    return replace(view, problem=f"is stored with {' and '.join(sorted(pending))} still to be applied")


def _parameter(arguments: tuple[Any, ...]) -> View:
    match arguments:
        case (View() as view, bool() as requires_grad, _):
            return view.as_parameter(requires_grad)
        case (View() as view, bool() as requires_grad, _, state):
            return _with_attributes(view.as_parameter(requires_grad), state)
    raise _refused("a parameter")


def _with_attributes(view: View, state: Any) -> View:
    """Return a tensor with the attributes that its state has: codes with tensors beside them are no weights."""
    if view.dtype not in _CODES:
        return view
    parts = state if isinstance(state, tuple) else (state,)
    attributes = [item for part in parts if isinstance(part, dict) for item in part.items()]
    scales = next((key for key, value in attributes[:_ATTRIBUTES_LOOKED_AT] if _has_tensors(value)), None)
    if scales is None:
        return view
    return replace(view, problem=f"is quantised, and its scales are its attribute {scales}, which is not supported")


def _has_tensors(value: Any, depth: int = 0) -> bool:
    match value:
        case View():
            return True
        case dict():
            inside = list(value.values())
        case list() | tuple():
            inside = list(value)
        case Placeholder():
            inside = [value.state, value.arguments, value.items]
        case _:
            return False
    return depth < _ATTRIBUTES_DEPTH and any(_has_tensors(item, depth + 1) for item in inside[:_ATTRIBUTES_LOOKED_AT])


def _from_type(arguments: tuple[Any, ...]) -> View:
    """A subclass of Tensor: the tensor, without what the subclass adds; of those with tensors inside the whole one."""
    match arguments:
        case (Global() as function, Global() as of, tuple() as inner, state) if (
            function.module,
            function.name,
        ) == _WRAPPER:
            return _of_wrapper(of, inner, state)
        case (Global() as function, Global() as of, tuple() as inner, state):
            rebuild = _TENSORS.get((function.module, function.name))
            view = View(problem=f"is a {of}, which is not supported") if rebuild is None else rebuild(inner)
            if not isinstance(view, View):
                raise _refused("a tensor subclass")
            if of.name in ("Parameter", "UninitializedParameter"):
                view = view.as_parameter(view.requires_grad)
            view = _with_attributes(view, state)
            is_buffer = of.name == "Buffer" or (isinstance(state, dict) and state.get("_is_buffer") is True)
            return replace(view, is_buffer=is_buffer)
    raise _refused("a tensor subclass")


def _of_wrapper(of: Global, arguments: tuple[Any, ...], state: Any) -> View:
    """A subclass that has tensors inside: of a DTensor the one of this process, where that is all of it."""
    parts = state if isinstance(state, tuple) else (state,)
    attributes = {key: value for part in parts if isinstance(part, dict) for key, value in part.items()}
    local, spec = attributes.get("_local_tensor"), attributes.get("_spec")
    if of.name != "DTensor" or not isinstance(local, View):
        return View(problem=f"is a {of}, which is not supported")
    size = next((each for each in arguments if isinstance(each, tuple)), None)
    described = spec.state if isinstance(spec, Placeholder) and isinstance(spec.state, dict) else {}
    placements = [each.of.name for each in described.get("placements") or () if isinstance(each, Placeholder)]
    if local.shape != size or not placements or not _WHOLE.issuperset(placements):
        return View(
            problem=f"is one part of a DTensor of {list(size or ())}, of {list(local.shape)} "
            f"({', '.join(placements)}): save its full_tensor(), or all parts with torch.distributed.checkpoint"
        )
    return replace(local, requires_grad=arguments[-1] is True)


_WRAPPER = ("torch._utils", "_rebuild_wrapper_subclass")
_WHOLE = frozenset(("Shard", "_StridedShard", "Replicate"))
"""Placements of which a tensor of the size of the whole is the whole; the parts of a sum are not."""


def _from_numpy(arguments: tuple[Any, ...]) -> NumpyArray:
    match arguments:
        case (NumpyArray() as array, *_):
            return array
    raise _refused("a device tensor")


def _from_cpu(arguments: tuple[Any, ...]) -> View:
    match arguments:
        case (View() as view, *_):
            return view
    raise _refused("a device tensor")


def _unsupported(kind: str) -> Constructor:
    return lambda arguments: View(problem=f"is {kind}, which is not supported")


def _size(arguments: tuple[Any, ...]) -> TorchSize:
    match arguments:
        case ():
            return TorchSize()
        case (tuple() | list() as extents,):
            return TorchSize(extents)
    raise _refused("a torch.Size")


def _device(arguments: tuple[Any, ...]) -> TorchDevice:
    match arguments:
        case (str() as kind,):
            return TorchDevice(kind)
        case (str() as kind, int() as index):
            return TorchDevice(f"{kind}:{index}")
    raise _refused("a torch.device")


def _layout(arguments: tuple[Any, ...]) -> str:
    match arguments:
        case (str() as layout,):
            return layout
    raise _refused("a torch.layout")


_TENSORS: dict[tuple[str, str], Constructor] = {
    ("torch._utils", "_rebuild_tensor"): _tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor_v2,
    ("torch._utils", "_rebuild_tensor_v3"): _tensor_v3,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("torch._utils", "_rebuild_parameter_with_state"): _parameter,
    ("torch._utils", "_rebuild_device_tensor_from_cpu_tensor"): _from_cpu,
    ("torch._utils", "_rebuild_qtensor"): _unsupported("a quantized tensor"),
    ("torch._utils", "_rebuild_sparse_tensor"): _unsupported("a sparse tensor"),
    ("torch._utils", "_rebuild_sparse_csr_tensor"): _unsupported("a sparse tensor"),
    ("torch._utils", "_rebuild_nested_tensor"): _unsupported("a nested tensor"),
    ("torch._utils", "_rebuild_meta_tensor_no_storage"): _unsupported("a tensor on the meta device, without values"),
    ("torch._utils", "_rebuild_wrapper_subclass"): _unsupported("a tensor subclass without storage"),
}

CONSTRUCTORS: Mapping[tuple[str, str], Constructor] = MappingProxyType(
    {
        **PLAIN,
        **NUMPY,
        **_TENSORS,
        **SCRIPT,
        ("torch._utils", "_rebuild_device_tensor_from_numpy"): _from_numpy,
        ("torch._utils", "_rebuild_xla_tensor"): _from_numpy,
        ("torch._tensor", "_rebuild_from_type_v2"): _from_type,
        ("torch.nn.parameter", "UninitializedParameter"): _unsupported("an uninitialized parameter, without values"),
        ("torch.nn.parameter", "UninitializedBuffer"): _unsupported("an uninitialized buffer, without values"),
        ("torch.nn.parameter", "Parameter"): lambda arguments: _parameter((*arguments, None)),
        ("torch", "Size"): _size,
        ("torch", "device"): _device,
        ("torch.serialization", "_get_layout"): _layout,
    }
)

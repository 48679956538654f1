"""`torch`, imported at its first use, and the values that lowerings are given.

What a lowering gets for an ONNX input, its annotation says:

`Tensor`   a torch.Tensor
`Ints`     a list of Python ints, or of SymInts where extents are dynamic under torch.export
`Int`      one of them
`Value`    whatever the value is: a tensor, a host array, a list (a sequence)

Host arrays are numpy arrays: what the graph computes from extents and constants, which is what decides shapes. Their
element type is `object` when a SymInt is among them. None is an input left out.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Any

import ml_dtypes
import numpy as np

from converter.errors import GraphError, MissingExtraError
from converter.graphs.lower.onnx import types

Tensor = Any
Ints = Any
Int = Any
Value = Any


class _Torch:
    """Stands for the torch module. Raises MissingExtraError when it is used and not installed."""

    def __getattr__(self, name: str) -> Any:
        try:
            module = importlib.import_module("torch")
        except ImportError as error:
            raise MissingExtraError("torch", "building a PyTorch module") from error
        return getattr(module, name)


torch: Any = _Torch()

# torch has no arithmetic for integers of 4 and 2 bits, nor for float4: their values are held in the next wider type.
_HELD_AS = {"uint4": "uint8", "int4": "int8", "float4_e2m1fn": "float32", "uint2": "uint8", "int2": "int8"}
_DTYPES = {number: _HELD_AS.get(name, name) for number, name in types.NAMES.items() if number != types.STRING}
_HELD_WIDER = {np.dtype(getattr(ml_dtypes, name)): np.dtype(wider) for name, wider in _HELD_AS.items()}
# numpy has these element types through ml_dtypes alone, and torch takes no array of them: bits are passed.
_BY_BITS = {
    np.dtype(ml_dtypes.bfloat16): "bfloat16",
    np.dtype(ml_dtypes.float8_e4m3fn): "float8_e4m3fn",
    np.dtype(ml_dtypes.float8_e4m3fnuz): "float8_e4m3fnuz",
    np.dtype(ml_dtypes.float8_e5m2): "float8_e5m2",
    np.dtype(ml_dtypes.float8_e5m2fnuz): "float8_e5m2fnuz",
    np.dtype(ml_dtypes.float8_e8m0fnu): "float8_e8m0fnu",
}


def dtype_of(data_type: int) -> Any:
    """Return the torch dtype that holds an ONNX TensorProto.DataType. Raises GraphError when none does."""
    if data_type not in _DTYPES:
        raise GraphError(f"PyTorch holds no element type {data_type} of ONNX")
    return getattr(torch, _DTYPES[data_type])


def number_of(dtype: Any, wanted: int | None = None) -> int:
    """Return the TensorProto.DataType of a torch dtype: `wanted` when it holds that, for some hold several."""
    if wanted in _DTYPES and dtype_of(wanted) == dtype:
        return int(wanted)
    return next(number for number in _DTYPES if dtype_of(number) == dtype)


def to_tensor(array: Any) -> Any:
    """Return a tensor of an array of any element type that a graph may have. Raises GraphError for text."""
    array = np.asarray(array)
    if array.dtype in _HELD_WIDER:
        array = array.astype(_HELD_WIDER[array.dtype])
    if array.dtype in _BY_BITS:
        bits = np.uint16 if array.dtype.itemsize == 2 else np.uint8
        return torch.from_numpy(array.reshape(-1).view(bits).copy()).view(_named(array.dtype)).reshape(array.shape)
    if array.dtype.kind not in "biufc":
        raise GraphError("PyTorch holds no text")
    tensor = torch.from_numpy(array.copy())
    # torch.export.save (2.13) takes an empty tensor on memory of numpy's for a part of a tensor.
    return tensor if array.size else tensor.clone()


def _named(dtype: Any) -> Any:
    return getattr(torch, _BY_BITS[dtype])


def to_array(tensor: Any) -> Any:
    """Return the array that `to_tensor` takes."""
    tensor = tensor.detach().cpu().contiguous()
    for dtype in _BY_BITS:
        if tensor.dtype == _named(dtype):
            bits = torch.uint16 if dtype.itemsize == 2 else torch.uint8
            flat: Any = tensor.reshape(-1).view(bits).numpy().view(dtype)
            return flat.reshape(tuple(tensor.shape))
    return tensor.resolve_conj().resolve_neg().numpy()


def is_host(value: Any) -> bool:
    """Whether a value is a numpy array: known while the graph runs, or is exported, without looking into a tensor."""
    return isinstance(value, np.ndarray)


def host(values: Sequence[Any]) -> Any:
    """Return ints and SymInts as one host vector."""
    if all(isinstance(value, int) for value in values):
        return np.array(values, np.int64)
    array = np.empty(len(values), object)
    array[:] = list(values)
    return array


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """A constant: an array where it decides shapes, a tensor where it takes part in computing."""

    array: Any
    tensor: Any


def as_tensor(value: Any) -> Any:
    """Return a value as a tensor; SymInts become int64, or float32 where a graph made floats of them."""
    if isinstance(value, Known):
        return value.tensor
    if not is_host(value):
        return value
    if value.dtype != object:
        return to_tensor(value)
    flat = [_scalar(element) for element in value.reshape(-1).tolist()]
    return torch.stack(flat).reshape(value.shape) if flat else torch.zeros(value.shape, dtype=torch.int64)


def _scalar(element: Any) -> Any:
    is_float = isinstance(element, (float, torch.SymFloat))
    is_bool = isinstance(element, (bool, torch.SymBool))
    return torch.scalar_tensor(element, dtype=torch.float32 if is_float else torch.bool if is_bool else torch.int64)


def as_ints(value: Any) -> Any:
    """Return a value as a list of ints or SymInts, None as None. A tensor is looked into."""
    value = as_is(value)
    if value is None:
        return None
    if is_host(value):
        return value.reshape(-1).tolist()
    if not torch.compiler.is_exporting():
        return value.reshape(-1).tolist()
    return [element.item() for element in value.reshape(-1).unbind()]


def as_int(value: Any) -> Any:
    """Return a value of one element as an int or SymInt, None as None."""
    return None if value is None else as_ints(value)[0]


def as_is(value: Any) -> Any:
    """Return a value, a constant as its array."""
    return value.array if isinstance(value, Known) else value


def as_passed(value: Any) -> Any:
    """Return a value as it is, a constant as one."""
    return value


KINDS: dict[str, Callable[[Any], Any]] = {
    **{"Tensor": as_tensor, "Ints": as_ints, "Int": as_int},
    **{"Value": as_is, "Passed": as_passed},
}


def typed(tensor: Any, dtype: Any) -> Any:
    """Return a tensor in a type. A conversion to the type it has would be one more node of a program."""
    return tensor if tensor.dtype == dtype else tensor.to(dtype)


def product(extents: Iterable[Any]) -> Any:
    """Return the product of extents."""
    return math.prod(extents)


def axis_of(axis: int, x: Any) -> int:
    """Return an axis counted from the start. Raises GraphError when `x` has no such axis."""
    if not -x.ndim <= axis < max(x.ndim, 1):
        raise GraphError(f"axis {axis} of {x.ndim}")
    return int(axis % max(x.ndim, 1))


def widened(function: Callable[..., Any], *, by_order: bool = False) -> Callable[..., Any]:
    """Let a lowering compute in int64 what comes as uint16, uint32 or uint64: torch lacks most operations on them.

    The results wrap as unsigned arithmetic does. An operand beyond 2**63 is negative meanwhile; for what goes
    `by_order`, 2**63 is taken off every operand of uint64, and put back on the result.
    """

    @wraps(function)
    def lowering(*values: Any, **attributes: Any) -> Any:
        unsigned = (torch.uint16, torch.uint32, torch.uint64)
        dtype = next((value.dtype for value in values if getattr(value, "dtype", None) in unsigned), None)
        if dtype is None:
            return function(*values, **attributes)
        is_moved = by_order and dtype == torch.uint64
        result = function(*(_signed(value, unsigned, is_moved=is_moved) for value in values), **attributes)
        is_wrapped = result.dtype == torch.int64 and values[0].dtype in unsigned
        return (moved(result) if is_moved else result).to(dtype) if is_wrapped else result

    return lowering


def moved(value: Any) -> Any:
    """Return what stands for a uint64 in an int64 moved by 2**63, there or back: its order is that of the uint64."""
    return value ^ torch.iinfo(torch.int64).min


def ordered(x: Any) -> Any:
    """Return what has the order of `x` and a type that torch sorts: it sorts no uint16, uint32 and uint64."""
    if x.dtype not in (torch.uint16, torch.uint32, torch.uint64):
        return x
    return moved(x.to(torch.int64)) if x.dtype == torch.uint64 else x.to(torch.int64)


def _signed(value: Any, unsigned: tuple[Any, ...], *, is_moved: bool) -> Any:
    if getattr(value, "dtype", None) not in unsigned:
        return value
    return moved(value.to(torch.int64)) if is_moved else value.to(torch.int64)

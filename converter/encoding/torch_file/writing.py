"""Plain data with Tensor leaves -> the zip layout of torch.save, which torch.load opens without trusting it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from converter.encoding import zip as zip_archive
from converter.encoding.pickle import Global, writer
from converter.encoding.torch_file.storages import STORAGE_DTYPES
from converter.encoding.zip import Record
from converter.model.dtype import DType
from converter.model.output import Late, Piece, Provenance
from converter.model.structure import OrderedMapping, TorchDevice, TorchDType, TorchSize
from converter.model.tensor import Tensor

_ROOT = "archive"
PROVENANCE_RECORD = "ckconv.json"
_STORAGE_NAMES = {dtype: name for name, dtype in STORAGE_DTYPES.items() if dtype is not None}
_UNTYPED = Global(module="torch.storage", name="UntypedStorage")
_SIZE, _DEVICE = Global(module="torch", name="Size"), Global(module="torch", name="device")
_REBUILD_V2 = Global(module="torch._utils", name="_rebuild_tensor_v2")
_REBUILD_V3 = Global(module="torch._utils", name="_rebuild_tensor_v3")


@dataclass(frozen=True, slots=True, kw_only=True)
class StateDict:
    """A state_dict: tensors by name, and names that share the storage of another."""

    tensors: Mapping[str, Tensor]
    aliases: Mapping[str, str] = field(default_factory=dict)


def torch_file(value: Any, provenance: Provenance | None = None) -> list[Piece]:
    """Return the pieces of a file that ``torch.load(weights_only=True, mmap=True)`` reads as `value`.

    `value` is plain Python data; its leaves may be tensors and `StateDict`s. A tensor that occurs twice, the same
    object, is stored once and shared. The same data give the same bytes.
    """
    tensors: dict[int, tuple[str, Tensor]] = {}
    pickled = writer.dumps(_pickled(value, tensors))
    records = [Record(name=f"{_ROOT}/data.pkl", content=pickled), Record(name=f"{_ROOT}/byteorder", content=b"little")]
    records += [Record(name=f"{_ROOT}/data/{key}", content=tensor) for key, tensor in tensors.values()]
    records.append(Record(name=f"{_ROOT}/version", content=b"3\n"))
    if provenance is not None:
        late = Late(nbytes=provenance.nbytes, render=provenance.render)
        records.append(Record(name=f"{_ROOT}/{PROVENANCE_RECORD}", content=late))
    return zip_archive.archive(records)


def _pickled(value: Any, tensors: dict[int, tuple[str, Tensor]]) -> Any:
    match value:
        case Tensor():
            key, _ = tensors.setdefault(id(value), (str(len(tensors)), value))
            return _rebuilt(value, key)
        case StateDict():
            owned = {name: _pickled(tensor, tensors) for name, tensor in value.tensors.items()}
            tied = {name: owned[owner] for name, owner in value.aliases.items()}
            return writer.Ordered(items={**owned, **tied})
        case Mapping():
            items = {_pickled(key, tensors): _pickled(item, tensors) for key, item in value.items()}
            if not isinstance(value, OrderedMapping):
                return items
            attributes = None if value.attributes is None else _pickled(value.attributes, tensors)
            return writer.Ordered(items=items, attributes=attributes)
        case TorchSize():
            return writer.Call(function=_SIZE, arguments=(tuple(value),))
        case TorchDevice():
            kind, _, index = value.partition(":")
            return writer.Call(function=_DEVICE, arguments=(kind, int(index)) if index else (kind,))
        case TorchDType():
            return Global(module="torch", name=value.removeprefix("torch."))
        case list():
            return [_pickled(item, tensors) for item in value]
        case tuple():
            return tuple(_pickled(item, tensors) for item in value)
        case np.generic():
            return value.item()
        case _:
            return value


def _rebuilt(tensor: Tensor, key: str) -> writer.Call:
    """Return the call that makes a tensor of its storage; types without a storage class have an untyped one."""
    name = _STORAGE_NAMES.get(tensor.dtype)
    strides = tuple(math.prod(extent or 1 for extent in tensor.shape[axis + 1 :]) for axis in range(len(tensor.shape)))
    of = _UNTYPED if name is None else Global(module="torch", name=name)
    numel = tensor.nbytes if name is None else tensor.size
    storage = writer.Persistent(identity=("storage", of, key, "cpu", numel))
    view = (storage, 0, tensor.shape, strides, False, writer.ordered_dict())
    if name is None:
        return writer.Call(function=_REBUILD_V3, arguments=(*view, _torch_dtype(tensor.dtype)))
    return writer.Call(function=_REBUILD_V2, arguments=view)


def _torch_dtype(dtype: DType) -> Global:
    return Global(module="torch", name=dtype.value)

"""Storages and the tensors that view them: declared while the pickle is read, checked when a tensor is asked for."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

from converter.encoding.pickle import Global, runs_code
from converter.encoding.torch_file.pending import resolved
from converter.errors import ReadError, SafetyError
from converter.model.dtype import DType
from converter.model.tensor import Tensor, strided

EXPANSION_FREE_BYTES = 16 << 20
EXPANSION_RATIO_LIMIT = 64
_RANK_LIMIT = 64
_EXTENT_LIMIT = 1 << 62

STORAGE_DTYPES: Mapping[str, DType | None] = {
    "DoubleStorage": DType.FLOAT64,
    "FloatStorage": DType.FLOAT32,
    "HalfStorage": DType.FLOAT16,
    "BFloat16Storage": DType.BFLOAT16,
    "LongStorage": DType.INT64,
    "IntStorage": DType.INT32,
    "ShortStorage": DType.INT16,
    "CharStorage": DType.INT8,
    "ByteStorage": DType.UINT8,
    "BoolStorage": DType.BOOL,
    "ComplexDoubleStorage": DType.COMPLEX128,
    "ComplexFloatStorage": DType.COMPLEX64,
    "UntypedStorage": None,
    **dict.fromkeys(("QInt8Storage", "QInt32Storage", "QUInt8Storage", "QUInt4x2Storage", "QUInt2x4Storage")),
}
"""Element types of the storage classes (torch.storage._dtype_to_storage_type_map).

An untyped storage counts bytes; quantized ones are never read.
"""

_STORAGE_MODULES = ("torch", "torch.cuda", "torch.storage")

DTYPES = {
    **{dtype.value: dtype for dtype in DType},
    "double": DType.FLOAT64,
    "float": DType.FLOAT32,
    "half": DType.FLOAT16,
    "long": DType.INT64,
    "int": DType.INT32,
    "short": DType.INT16,
    "cfloat": DType.COMPLEX64,
    "cdouble": DType.COMPLEX128,
    "float4_e2m1fn_x2": DType.UINT8,
}
"""torch.dtype by name; two numbers of four bits are a byte."""


class Archive(Protocol):
    """A file that holds storages."""

    def flat(self, storage: Storage, dtype: DType, numel: int) -> Tensor:
        """Return the elements of a whole storage. Raises ReadError when the file does not hold them."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Storage:
    """A storage, or in legacy files a part of one: `start` and `numel` count elements, bytes where `dtype` is None.

    `is_another` says that the same one was of another type or size before, which torch takes for both.
    """

    archive: Archive
    key: str
    dtype: DType | None
    numel: int
    start: int = 0
    root_numel: int
    is_another: bool = False

    def elements(self, dtype: DType) -> tuple[Tensor, int, int]:
        """Return all elements of the root storage as `dtype`, and which of them are this storage's.

        Raises ReadError where the root storage is no whole number of them.
        """
        itemsize = 1 if self.dtype is None else self.dtype.itemsize
        scale = dtype.itemsize
        if self.root_numel * itemsize % scale or self.start * itemsize % scale:
            raise ReadError(f"views a storage of {self.root_numel * itemsize} bytes as {dtype.value}")
        flat = self.archive.flat(self, dtype, self.root_numel * itemsize // scale)
        return flat, self.start * itemsize // scale, self.numel * itemsize // scale


def storage_dtype(of: Any) -> DType | None:
    """Return the element type of a storage class, None for untyped ones.

    Raises ReadError for other classes, SafetyError for what would run code in the place of one.
    """
    if isinstance(of, Global) and runs_code(of):
        raise SafetyError(f"has storages of the type {of}, which can run code")
    if not (isinstance(of, Global) and of.module in _STORAGE_MODULES):
        raise ReadError(f"the pickle has a storage of the type {of}, which torch does not have")
    if of.name not in STORAGE_DTYPES:
        raise ReadError(f"storages of the type {of} are not supported")
    return STORAGE_DTYPES[of.name]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class View:
    """A tensor as the pickle declares it: a strided view of a storage.

    `problem` says why it cannot be read, where that is known already; `pending` is what is to be done to its elements.
    """

    storage: Storage | None = None
    dtype: DType | None = None
    offset: Any = 0
    shape: Any = ()
    strides: Any = ()
    is_parameter: bool = False
    is_buffer: bool = False
    requires_grad: bool = False
    problem: str | None = None
    pending: frozenset[str] = frozenset()

    @property
    def identity(self) -> Hashable | None:
        """What two names share when they are tied, None for what cannot be. Only for views that can be read."""
        if self.storage is None or 0 in self.shape:
            return None
        strides = tuple(stride for extent, stride in zip(self.shape, self.strides, strict=True) if extent > 1)
        return (self.storage.key, self.storage.start + self.offset, self.shape, strides, self.dtype, self.pending)

    def as_parameter(self, requires_grad: bool) -> View:
        """Return the view marked as an nn.Parameter."""
        return replace(self, is_parameter=True, requires_grad=requires_grad)

    def tensor(self) -> Tensor:
        """Return the tensor, every bound checked. Raises ReadError, without a name, when one does not hold."""
        if self.problem is not None or self.storage is None or self.dtype is None:
            raise ReadError(self.problem or "has no storage")
        _check_extents(self.shape, self.strides, self.offset)
        flat, start, numel = self.storage.elements(self.dtype)
        size = math.prod(self.shape)
        span = 1 + sum((extent - 1) * stride for extent, stride in zip(self.shape, self.strides, strict=True))
        if self.offset + (span if size else 0) > numel:
            raise ReadError(f"views elements {self.offset} to {self.offset + span} of a storage that has {numel}")
        if self.storage.is_another:
            raise ReadError("views a storage that is of another type or size elsewhere")
        declared, stored = size * self.dtype.itemsize, numel * self.dtype.itemsize
        if declared > max(EXPANSION_FREE_BYTES, EXPANSION_RATIO_LIMIT * stored):
            raise ReadError(f"expands {stored} stored bytes to {declared}")
        if not size:
            return strided(flat, offset=0, shape=self.shape, strides=self.strides)
        tensor = strided(flat, offset=start + self.offset, shape=self.shape, strides=self.strides)
        return resolved(tensor, self.pending)


def _check_extents(shape: Any, strides: Any, offset: Any) -> None:
    for what, values in (("shape", shape), ("strides", strides), ("offset", (offset,))):
        is_sound = type(values) is tuple and all(type(value) is int and 0 <= value < _EXTENT_LIMIT for value in values)
        if not is_sound:
            raise ReadError(f"has an impossible {what}")
    if len(shape) != len(strides) or len(shape) > _RANK_LIMIT:
        raise ReadError(f"has {len(shape)} axes and {len(strides)} strides")

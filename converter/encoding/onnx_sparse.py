"""Sparse tensors of ONNX, as the dense ones that they stand for.

https://github.com/onnx/onnx/blob/v1.19.0/onnx/onnx.proto, SparseTensorProto: values, where each stands, and the shape.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from converter.encoding.onnx_tensors import (
    FilesBeside,
    TensorDeclaration,
    checked_shape,
    declaration_of,
    extents_of,
    read_tensor,
)
from converter.encoding.protobuf_file import Range, fields
from converter.errors import ReadError
from converter.model.dtype import DType
from converter.model.file import SourceFile
from converter.model.tensor import Array, ComputedTensor, Tensor

_VALUES, _INDICES, _DIMS = 1, 2, 3
_LIMIT_BYTES = (1 << 31) - 1
"""What a model could have of a dense tensor: a file of some bytes must not claim more."""
_PIECE_BYTES = 1 << 20


def sparse_declaration(file: SourceFile, within: Range) -> TensorDeclaration:
    """Return the type and shape of the dense tensor. Raises ReadError for an impossible shape."""
    parts, shape = _parts(file, within)
    values = parts.get(_VALUES)
    type_number = 0 if values is None else declaration_of(file, values).type_number
    return TensorDeclaration(type_number=type_number, shape=shape)


def read_sparse(file: SourceFile, within: Range, beside: FilesBeside) -> Tensor:
    """Return the dense tensor that a SparseTensorProto stands for, computed when it is read.

    Raises ReadError for what is malformed or larger than a dense tensor of a model can be, and what `read_tensor` does
    for its parts.
    """
    parts, shape = _parts(file, within)
    values, indices = (
        read_tensor(file, parts[number], beside) if number in parts else None for number in (_VALUES, _INDICES)
    )
    if values is None or len(values.shape) != 1:
        raise ReadError("is sparse, and has no list of values")
    count, rank = values.shape[0], len(shape)
    if indices is None or indices.dtype is not DType.INT64 or indices.shape not in ((count,), (count, rank)):
        raise ReadError(f"is sparse, and does not say where its {count} values are")
    if math.prod(shape) * values.dtype.itemsize > _LIMIT_BYTES:
        raise ReadError(f"is sparse, and would have {math.prod(shape)} elements: at most 2 GiB are read")
    operation = Dense(dtype=values.dtype, shape=shape)
    return ComputedTensor(dtype=values.dtype, shape=shape, inputs=(values, indices), operation=operation)


def _parts(file: SourceFile, within: Range) -> tuple[dict[int, Range], tuple[int, ...]]:
    parts, extents = dict[int, Range](), list[int]()
    for number, wire_type, value in fields(file, within):
        if number == _DIMS:
            extents += extents_of(file, wire_type, value)
        elif number in (_VALUES, _INDICES) and isinstance(value, Range):
            if number in parts:
                raise ReadError(f"has field {number} twice", path=file.path)
            parts[number] = value
    return parts, checked_shape(extents)


@dataclass(frozen=True, slots=True, kw_only=True)
class Dense:
    """Values at their places among zeros. Places are numbers of elements, or one number for each axis."""

    dtype: DType
    shape: tuple[int, ...]

    def declare(self, inputs: Sequence[Tensor]) -> tuple[DType, tuple[int, ...]]:
        """Return dtype and shape of the result."""
        return self.dtype, self.shape

    def __call__(self, *arrays: Array) -> Array:
        """Return the dense array. Raises ReadError for places that are outside, or not in ascending order."""
        values, places = arrays[0], self._places(arrays[1])
        dense = np.zeros(math.prod(self.shape), self.dtype.numpy)
        dense[places] = values
        return dense.reshape(self.shape)

    def stream(self, inputs: Sequence[Tensor]) -> Iterator[memoryview]:
        """Yield the dense array in pieces. Raises ReadError as a call does."""
        values, places = inputs[0].numpy(), self._places(inputs[1].numpy())
        size, step = math.prod(self.shape), max(_PIECE_BYTES // self.dtype.itemsize, 1)
        for start in range(0, size, step):
            stop = min(start + step, size)
            first, last = np.searchsorted(places, (start, stop))
            piece = np.zeros(stop - start, self.dtype.numpy)
            piece[places[first:last] - start] = values[first:last]
            yield piece.view(np.uint8).data

    def _places(self, indices: Array) -> Array:
        places = indices
        if indices.ndim == 2:
            extents = np.array(self.shape, np.int64)
            if ((indices < 0) | (indices >= extents)).any():
                raise ReadError("is sparse, and has a value outside its shape")
            strides = [math.prod(self.shape[axis + 1 :]) for axis in range(len(self.shape))]
            places = indices @ np.array(strides, np.int64)
        if len(places) and (places[0] < 0 or places[-1] >= math.prod(self.shape) or (np.diff(places) <= 0).any()):
            raise ReadError("is sparse, and its values are outside its shape or not in order")
        return places

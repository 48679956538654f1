"""TensorFlow's constants without TensorFlow: the numbers of a TensorProto.

tensorflow/core/framework/{tensor,tensor_shape}.proto, TF 2.21. Elements are bytes as memory has them, or listed one by
one, where the last stands for all that follow it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converter.encoding.protobuf import FIXED32, FIXED64, LENGTH_DELIMITED, VARINT, Message, fields, read_varint
from converter.encoding.saved_function import shape_of
from converter.encoding.tensor_bundle import TYPE_NUMBERS
from converter.errors import ReadError
from converter.model.dtype import DType

_TENSOR = {1: VARINT, 2: LENGTH_DELIMITED, 4: LENGTH_DELIMITED}
_FLOATS, _DOUBLES, _SMALL_INTEGERS, _INTEGERS, _BOOLEANS, _UNSIGNED_32, _UNSIGNED_64 = 5, 6, 7, 10, 11, 16, 17
_LISTED = {
    1: ("<f4", _FLOATS),
    2: ("<f8", _DOUBLES),
    3: ("<i4", _SMALL_INTEGERS),
    4: ("|u1", _SMALL_INTEGERS),
    5: ("<i2", _SMALL_INTEGERS),
    6: ("|i1", _SMALL_INTEGERS),
    9: ("<i8", _INTEGERS),
    10: ("|u1", _BOOLEANS),
    17: ("<u2", _SMALL_INTEGERS),
    22: ("<u4", _UNSIGNED_32),
    23: ("<u8", _UNSIGNED_64),
}
"""By a type's number: what its elements are as bytes, and the field that lists them."""
_BOOL = 10
_FIXED = {_FLOATS: FIXED32, _DOUBLES: FIXED64}


@dataclass(frozen=True, slots=True, kw_only=True)
class Constant:
    """A constant whose numbers are unread; `type_number` is its type, 0 extents and up are its shape."""

    type_number: int
    shape: tuple[int, ...]
    data: memoryview
    path: str | None = None

    @classmethod
    def of(cls, dtype: DType, shape: tuple[int, ...], data: memoryview, path: str) -> Constant:
        """Return a constant whose message says neither its type, which `is_listed`, nor its shape."""
        return cls(type_number=TYPE_NUMBERS[dtype], shape=shape, data=data, path=path)

    @property
    def nbytes(self) -> int:
        """How large its array is."""
        return math.prod(self.shape) * np.dtype(_LISTED[self.type_number][0]).itemsize

    def numpy(self) -> Any:
        """Return the array. Raises ReadError for more or other elements than it says, and for a shape that none has."""
        stored, field = _LISTED[self.type_number]
        dtype, count = np.dtype(stored), math.prod(self.shape)
        content = Message.parse(self.data, _TENSOR, self.path).content(4)
        if content:
            if len(content) != self.nbytes:
                raise ReadError(f"has a constant of {len(content)} bytes for {list(self.shape)}", path=self.path)
            found = np.frombuffer(content, dtype)
        else:
            listed = _bits(self.data, field, self.path).astype(f"<u{dtype.itemsize}").view(dtype)
            if len(listed) > count:
                raise ReadError(f"has a constant of {len(listed)} numbers for {list(self.shape)}", path=self.path)
            found = np.zeros(count, dtype)
            found[: len(listed)] = listed
            if len(listed):
                found[len(listed) :] = listed[-1]
        try:
            found = found.reshape(self.shape)
        except ValueError as error:
            raise ReadError(f"has a constant of a shape that no array has: {error}", path=self.path) from error
        return found != 0 if self.type_number == _BOOL else found


def is_listed(dtype: DType) -> bool:
    """Whether constants of a type are read."""
    return TYPE_NUMBERS.get(dtype) in _LISTED


def constant(data: memoryview, path: str | None) -> Constant | None:
    """Return a constant of integers, floats or truth values, None for one of anything else.

    Raises ReadError for a shape that is none.
    """
    message = Message.parse(data, _TENSOR, path)
    number, shape = message.unsigned(1), shape_of(message.content(2), path)
    if number not in _LISTED:
        return None
    if shape is None or None in shape:
        raise ReadError("has a constant whose shape is not known", path=path)
    return Constant(type_number=number, shape=tuple(each or 0 for each in shape), data=data, path=path)


def _bits(data: memoryview, field: int, path: str | None) -> NDArray[Any]:
    """Return the bits of the elements of a repeated field, packed or not: those of floats, or integers in 64."""
    pieces: list[Any] = [[]]
    for number, wire_type, value in fields(data, path):
        if number != field:
            continue
        if isinstance(value, int):
            if wire_type != _FIXED.get(field, VARINT):
                raise ReadError(f"field {number} of a message has wire type {wire_type}", path=path)
            pieces[-1].append(value)
        elif field in _FIXED:
            width = 4 if _FIXED[field] == FIXED32 else 8
            if len(value) % width:
                raise ReadError("ends inside a number", path=path)
            pieces += [np.frombuffer(value, f"<u{width}"), []]
        else:
            position = 0
            while position < len(value):
                element, position = read_varint(value, position, path)
                pieces[-1].append(element)
    return np.concatenate([np.asarray(piece, np.uint64) for piece in pieces])

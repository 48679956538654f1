"""Numpy arrays, scalars and dtypes inside pickles, made from plain values only (numpy 1 and 2 spell modules apart).

What is no array of numbers is a placeholder, or says so: text, objects, dates, records, numbers of 80 bits.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from converter.encoding.pickle import Constructed, Constructor, FileBytes, Global, Placeholder
from converter.errors import ReadError
from converter.model.dtype import DType
from converter.model.file import SourceFile
from converter.model.tensor import ArrayTensor, FileTensor, Tensor, byteswapped

_KINDS = frozenset("biufc")
_DATA = (bytes, FileBytes, str, list)
_NDARRAY = Global(module="numpy", name="ndarray")
_SCALAR = Global(module="numpy", name="generic")


class NumpyDType(Constructed):
    """A numpy dtype: `value` is None for what holds no plain numbers."""

    __slots__ = ("value",)

    def __init__(self, code: Any) -> None:
        self.value = _plain_dtype(code)

    def build(self, state: Any) -> None:
        """Take the byte order, second of the state."""
        order = state[1] if isinstance(state, tuple) and len(state) >= 2 else None
        if order not in ("<", ">", "|", "="):
            raise ReadError("the pickle has a numpy dtype without a byte order")
        if self.value is not None and order != "|":
            self.value = self.value.newbyteorder("<" if order == "=" else order)


class NumpyArray(Constructed):
    """A numpy array, complete once its state has come."""

    __slots__ = ("_data", "_dtype", "_is_fortran", "_shape")

    def __init__(self) -> None:
        self._shape: tuple[int, ...] | None = None
        self._dtype: np.dtype[Any] | None = None
        self._is_fortran = False
        self._data: bytes | FileBytes = b""

    def build(self, state: Any) -> None:
        """Take ``(version, shape, dtype, is_fortran, data)``; objects come as a list, Python 2's bytes may be text."""
        match state:
            case (
                _,
                tuple() as shape,
                NumpyDType() as dtype,
                is_fortran,
                bytes() | FileBytes() | str() | list() as data,
            ):
                self._shape, self._is_fortran = shape, bool(is_fortran)
                self._dtype = None if isinstance(data, list) else dtype.value
                self._data = b"" if isinstance(data, list) else data if not isinstance(data, str) else _as_bytes(data)
            case _:
                raise ReadError("the pickle has a malformed numpy array")

    @property
    def holds_numbers(self) -> bool:
        """Whether it is an array of numbers that a tensor can have, whatever else is wrong with it."""
        return self._dtype is not None

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape as declared, () as long as nothing is."""
        return self._shape or ()

    @property
    def dtype(self) -> DType | None:
        """Its element type, None for one that no tensor has."""
        return None if self._dtype is None else DType.of(self._dtype)

    def tensor(self) -> Tensor:
        """Return the array; its bytes are not copied. Raises ReadError when it holds no numbers, or too few."""
        if self._shape is None or self._dtype is None:
            raise ReadError("is a numpy array of something else than numbers")
        if not all(type(extent) is int and extent >= 0 for extent in self._shape) or len(self._shape) > 32:
            raise ReadError("has an impossible shape")
        if math.prod(self._shape) * self._dtype.itemsize != len(self._data):
            raise ReadError(f"has {len(self._data)} bytes, its shape and type need another number")
        tensor = _flat(self._data, self._dtype.newbyteorder("<"))
        if self._dtype.byteorder == ">":
            tensor = byteswapped(tensor)
        if not self._is_fortran:
            return tensor.reshape(self._shape)
        return tensor.reshape(self._shape[::-1]).transpose(tuple(reversed(range(len(self._shape)))))


def _as_bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _flat(data: bytes | FileBytes, dtype: np.dtype[Any]) -> Tensor:
    if isinstance(data, bytes):
        return ArrayTensor.of(np.frombuffer(data, dtype))
    assert isinstance(data.file, SourceFile)
    shape = (data.length // dtype.itemsize,)
    return FileTensor(dtype=DType.of(dtype), shape=shape, file=data.file, offset=data.offset)


def _plain_dtype(code: Any) -> np.dtype[Any] | None:
    if not isinstance(code, str) or not 1 < len(code) <= 4 or code[0] not in _KINDS or not code[1:].isdigit():
        return None
    sizes = {"b": (1,), "i": (1, 2, 4, 8), "u": (1, 2, 4, 8), "f": (2, 4, 8), "c": (8, 16)}
    return np.dtype(code).newbyteorder("<") if int(code[1:]) in sizes[code[0]] else None


def _dtype(arguments: tuple[Any, ...]) -> NumpyDType:
    if not 1 <= len(arguments) <= 3:
        raise ReadError("the pickle has a malformed numpy dtype")
    return NumpyDType(arguments[0])


def _reconstruct(arguments: tuple[Any, ...]) -> NumpyArray | Placeholder:
    if not arguments or not isinstance(arguments[0], Global):
        raise ReadError("the pickle has a malformed numpy array")
    return NumpyArray() if arguments[0] == _NDARRAY else Placeholder(arguments[0], arguments[1:])


def _from_buffer(arguments: tuple[Any, ...]) -> NumpyArray:
    match arguments:
        case (bytes() | FileBytes() as data, NumpyDType() as dtype, tuple() as shape, "C" | "F" as order):
            array = NumpyArray()
            array.build((1, shape, dtype, order == "F", data))
            return array
    raise ReadError("the pickle has a malformed numpy array")


def _scalar(arguments: tuple[Any, ...]) -> Any:
    """A numpy scalar as Python's own number."""
    match arguments:
        case (NumpyDType(value=None), *_):
            return Placeholder(_SCALAR, arguments)
        case (NumpyDType(value=np.dtype() as dtype), bytes() | str() as data):
            raw = data.encode("utf-8") if isinstance(data, str) else data
            if len(raw) == dtype.itemsize:
                return np.frombuffer(raw, dtype)[0].item()
    raise ReadError("the pickle has a numpy scalar that is no number")


NUMPY: dict[tuple[str, str], Constructor] = {
    ("numpy", "dtype"): _dtype,
    **{
        (f"{package}.{module}", name): constructor
        for package in ("numpy.core", "numpy._core")
        for module, name, constructor in (
            ("multiarray", "_reconstruct", _reconstruct),
            ("multiarray", "scalar", _scalar),
            ("numeric", "_frombuffer", _from_buffer),
        )
    },
}

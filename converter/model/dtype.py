"""Element types of tensors: numpy's own, and those of ml_dtypes for what numpy lacks."""

from __future__ import annotations

from enum import Enum
from typing import Any

import ml_dtypes
import numpy as np


class DType(Enum):
    """An element type. Values are the names that torch, TensorFlow and numpy agree on."""

    BOOL = "bool"
    UINT8 = "uint8"
    INT8 = "int8"
    UINT16 = "uint16"
    INT16 = "int16"
    UINT32 = "uint32"
    INT32 = "int32"
    UINT64 = "uint64"
    INT64 = "int64"
    FLOAT16 = "float16"
    BFLOAT16 = "bfloat16"
    FLOAT32 = "float32"
    FLOAT64 = "float64"
    COMPLEX64 = "complex64"
    COMPLEX128 = "complex128"
    FLOAT8_E4M3FN = "float8_e4m3fn"
    FLOAT8_E5M2 = "float8_e5m2"
    FLOAT8_E4M3FNUZ = "float8_e4m3fnuz"
    FLOAT8_E5M2FNUZ = "float8_e5m2fnuz"
    FLOAT8_E8M0FNU = "float8_e8m0fnu"

    @property
    def numpy(self) -> np.dtype[Any]:
        """The little-endian numpy dtype."""
        return _NUMPY[self]

    @property
    def itemsize(self) -> int:
        """Bytes per element."""
        return int(_NUMPY[self].itemsize)

    @property
    def is_floating(self) -> bool:
        """Whether this is a real floating-point type, the only kind that `--dtype` casts."""
        return "float" in self.value

    @classmethod
    def of(cls, dtype: np.dtype[Any]) -> DType:
        """Return the element type of a numpy dtype, whatever its byte order.

        Raises KeyError when there is none (strings, objects, records).
        """
        return _OF_NUMPY[dtype.newbyteorder("=")]


def _numpy_dtype(name: str) -> np.dtype[Any]:
    little_endian: np.dtype[Any] = np.dtype(getattr(ml_dtypes, name, name)).newbyteorder("<")
    return little_endian


_NUMPY = {dtype: _numpy_dtype(dtype.value) for dtype in DType}
_OF_NUMPY = {numpy_dtype.newbyteorder("="): dtype for dtype, numpy_dtype in _NUMPY.items()}

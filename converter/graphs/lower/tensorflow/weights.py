"""Reading the one safetensors file that hands tensors from the driver to the process that builds a SavedModel.

Specification: https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from converter.errors import GraphError
from converter.model.dtype import DType
from converter.model.file import LocalFile, SourceFile

_HEADER_LIMIT_BYTES = 100_000_000
_DTYPES = {
    "BOOL": DType.BOOL,
    "U8": DType.UINT8,
    "I8": DType.INT8,
    "U16": DType.UINT16,
    "I16": DType.INT16,
    "U32": DType.UINT32,
    "I32": DType.INT32,
    "U64": DType.UINT64,
    "I64": DType.INT64,
    "F16": DType.FLOAT16,
    "BF16": DType.BFLOAT16,
    "F32": DType.FLOAT32,
    "F64": DType.FLOAT64,
    "C64": DType.COMPLEX64,
    "F8_E4M3": DType.FLOAT8_E4M3FN,
    "F8_E5M2": DType.FLOAT8_E5M2,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredTensor:
    """Where a tensor lies in the file; read when asked for."""

    file: SourceFile
    dtype: DType
    shape: tuple[int, ...]
    offset: int

    def numpy(self) -> Any:
        """Return a fresh array."""
        array = np.empty(self.shape, self.dtype.numpy)
        if array.size:
            self.file.read_into(self.offset, array.reshape(-1).view(np.uint8).data)
        return array


def stored_tensors(path: str) -> dict[str, StoredTensor]:
    """Return the tensors of a safetensors file by name, in its order; no tensor is read.

    Raises ReadError when the file is too short, GraphError when its header is not what the specification says.
    """
    file = LocalFile(Path(path))
    length = int.from_bytes(file.read(0, 8), "little")
    if length > min(_HEADER_LIMIT_BYTES, file.size - 8):
        raise GraphError(f"the weights' header claims {length} bytes", path=path)
    tensors = {}
    try:
        header = json.loads(file.read(8, length))
        for name, entry in header.items():
            if name != "__metadata__":
                tensors[name] = _tensor(file, entry, 8 + length)
    except (ValueError, KeyError) as error:
        raise GraphError(f"the weights' header is malformed: {error}", path=path) from error
    return tensors


def _tensor(file: SourceFile, entry: dict[str, Any], base: int) -> StoredTensor:
    dtype, shape, (begin, end) = _DTYPES[entry["dtype"]], tuple(entry["shape"]), entry["data_offsets"]
    if any(extent < 0 for extent in shape) or end - begin != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"{end - begin} bytes do not hold {dtype.value} {list(shape)}")
    if begin < 0 or base + end > file.size:
        raise ValueError(f"bytes {begin} to {end} are outside the file")
    return StoredTensor(file=file, dtype=dtype, shape=shape, offset=base + begin)

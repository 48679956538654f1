"""TensorFlow checkpoints of the format V1, which `Saver` wrote until 2017: one sorted table with all in it.

tensorflow/core/util/saved_tensor_slice.proto and tensor_slice_writer.cc, TF 2.21. The entry of the empty key says the
type and the shape of each tensor, and in which slices it is; each other entry has the numbers of one slice.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from converter.encoding.leveldb_table import MAGIC, read_table
from converter.encoding.protobuf import LENGTH_DELIMITED, VARINT, Message
from converter.encoding.saved_function import shape_of
from converter.encoding.tensor_bundle import Bundle, Entry, extents_of, type_named
from converter.encoding.tensor_proto import Constant, is_listed
from converter.encoding.tensor_slices import Extent, Slice, joined
from converter.errors import ReadError
from converter.model.dtype import DType
from converter.model.file import SourceFile
from converter.model.tensor import ArrayTensor, Tensor

_LIMIT_BYTES = 4 << 30
_SAVED = {1: LENGTH_DELIMITED, 2: LENGTH_DELIMITED}
_META = {1: LENGTH_DELIMITED}
_DECLARED = {1: LENGTH_DELIMITED, 2: LENGTH_DELIMITED, 3: VARINT, 4: LENGTH_DELIMITED}
_SLICE = {1: LENGTH_DELIMITED, 2: LENGTH_DELIMITED, 3: LENGTH_DELIMITED}
_FIRST_KEY = b"\0\0"

_Slices = list[tuple[tuple[Extent, ...], memoryview]]
"""Where each slice of a tensor is, and the message that has its numbers."""


def looks_like(head: bytes, tail: bytes) -> bool:
    """Whether a file is such a table, by its first bytes and its last eight: of its first entry the key is empty."""
    return head.startswith(_FIRST_KEY) and tail == MAGIC


def read_bundle(file: SourceFile) -> Bundle:
    """Return the tensors of a checkpoint; the whole file is read. What is no number, as text is, has no tensor.

    Raises ReadError for a damaged file, a tensor that lacks a slice or has one twice, and types that nobody knows.
    """
    entries: dict[str, Entry] = {}
    slices: dict[str, _Slices] = {}
    for number, (key, value) in enumerate(read_table(file, limit_bytes=_LIMIT_BYTES)):
        saved = Message.parse(value, _SAVED, file.path)
        if number == 0:
            if key:
                raise ReadError("does not begin with what it holds", path=file.path)
            entries = dict(_declared(saved.content(1), file))
            continue
        held = Message.parse(saved.content(2), _SLICE, file.path)
        name = held.text(1)
        if name not in entries:
            raise ReadError("is not among what the file says it holds", path=file.path, tensor=name)
        slices.setdefault(name, []).append((extents_of(held.content(2), file.path), held.content(3)))
    tensors = {
        name: _tensor(entry, entry.dtype, slices.get(name, []), file, name)
        for name, entry in entries.items()
        if entry.dtype is not None and is_listed(entry.dtype)
    }
    return Bundle(path=file.path, entries=entries, tensors=tensors, shards={}, is_big_endian=False)


def _declared(meta: memoryview, file: SourceFile) -> Iterator[tuple[str, Entry]]:
    for each in Message.parse(meta, _META, file.path).repeated(1):
        message = Message.parse(each, _DECLARED, file.path)
        name, shape = message.text(1), shape_of(message.content(2), str(file.path))
        if shape is None or None in shape:
            raise ReadError("is of no known shape", path=file.path, tensor=name)
        type_name, dtype = type_named(message.unsigned(3), file.path, name)
        known = tuple(extent or 0 for extent in shape)
        yield name, Entry(type_name=type_name, dtype=dtype, shape=known, shard=0, offset=0, size=0, crc32c=0)


def _tensor(entry: Entry, dtype: DType, slices: _Slices, file: SourceFile, name: str) -> Tensor:
    parts = []
    for extents, data in slices:
        if len(extents) != len(entry.shape):
            raise ReadError(f"has a slice of {len(extents)} axes", path=file.path, tensor=name)
        ranges = [extent.within(whole) for extent, whole in zip(extents, entry.shape, strict=True)]
        shape = tuple(length for _, length in ranges)
        if min(shape, default=0) < 0 or math.prod(shape) * _least_bytes(dtype) > len(data):
            raise ReadError("has a slice of fewer numbers than it says", path=file.path, tensor=name)
        numbers = ArrayTensor.of(Constant.of(dtype, shape, data, str(file.path)).numpy())
        parts.append(Slice(starts=tuple(start for start, _ in ranges), tensor=numbers))
    whole = joined(parts, entry.shape) if parts else None
    if whole is None:
        raise ReadError("has slices that overlap, leave gaps or form no grid", path=file.path, tensor=name)
    return whole


def _least_bytes(dtype: DType) -> int:
    """Return how many bytes a number takes at least: integers are stored in as few as they need."""
    return np.dtype(dtype.numpy).itemsize if dtype.is_floating else 1

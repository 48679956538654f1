"""TensorFlow checkpoints of the format V1, which `Saver` wrote until 2017: one sorted table with all in it.

tensorflow/core/util/saved_tensor_slice.proto and tensor_slice_writer.cc, TF 2.21. The entry of the empty key says the
type and the shape of each tensor, and in which slices it is; each other entry has the numbers of one slice.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from converter.encoding.leveldb_table import MAGIC, read_table
from converter.encoding.protobuf import LENGTH_DELIMITED, VARINT, Message
from converter.encoding.saved_function import shape_of
from converter.encoding.tensor_bundle import Bundle, Entry, type_named
from converter.encoding.tensor_proto import Constant, is_listed
from converter.errors import ReadError
from converter.model.file import SourceFile
from converter.model.tensor import ArrayTensor, Tensor

_LIMIT_BYTES = 4 << 30
_SAVED = {1: LENGTH_DELIMITED, 2: LENGTH_DELIMITED}
_META = {1: LENGTH_DELIMITED}
_DECLARED = {1: LENGTH_DELIMITED, 2: LENGTH_DELIMITED, 3: VARINT, 4: LENGTH_DELIMITED}
_SLICE = {1: LENGTH_DELIMITED, 2: LENGTH_DELIMITED, 3: LENGTH_DELIMITED}
_EXTENTS, _EXTENT = {1: LENGTH_DELIMITED}, {1: VARINT, 2: VARINT}
_FIRST_KEY = b"\0\0"

Slice = tuple[slice, ...]


def looks_like(head: bytes, tail: bytes) -> bool:
    """Whether a file is such a table, by its first bytes and its last eight: of its first entry the key is empty."""
    return head.startswith(_FIRST_KEY) and tail == MAGIC


def read_bundle(file: SourceFile) -> Bundle:
    """Return the tensors of a checkpoint; the whole file is read. What is no number, as text is, has no tensor.

    Raises ReadError for a damaged file, a tensor that lacks a slice or has one twice, and types that nobody knows.
    """
    entries: dict[str, Entry] = {}
    slices: dict[str, list[tuple[Slice, memoryview]]] = {}
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
        place = tuple(_place(held.content(2), entries[name].shape, file, name))
        slices.setdefault(name, []).append((place, held.content(3)))
    tensors = {
        name: _tensor(entry, slices.get(name, ()), file, name)
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


def _place(data: memoryview, shape: Sequence[int], file: SourceFile, name: str) -> Iterator[slice]:
    """Yield where a slice is along each axis; one without a length is the whole axis."""
    extents = Message.parse(data, _EXTENTS, file.path).repeated(1)
    if len(extents) != len(shape):
        raise ReadError(f"has a slice of {len(extents)} axes, and {len(shape)} itself", path=file.path, tensor=name)
    for each, size in zip(extents, shape, strict=True):
        message = Message.parse(each, _EXTENT, file.path)
        start = message.unsigned(1)
        stop = start + message.unsigned(2) if message.has(2) else size
        if not 0 <= start <= stop <= size:
            raise ReadError(f"has a slice from {start} to {stop} of {size}", path=file.path, tensor=name)
        yield slice(start, stop)


def _tensor(entry: Entry, slices: Sequence[tuple[Slice, memoryview]], file: SourceFile, name: str) -> Tensor:
    assert entry.dtype is not None
    count = sum(math.prod(each.stop - each.start for each in place) for place, _ in slices)
    if count != math.prod(entry.shape) or len({str(place) for place, _ in slices}) < len(slices):
        raise ReadError(f"has slices of {count} numbers for {list(entry.shape)}", path=file.path, tensor=name)
    whole = np.empty(entry.shape, entry.dtype.numpy)
    for place, data in slices:
        shape = tuple(each.stop - each.start for each in place)
        whole[place] = Constant.of(entry.dtype, shape, data, str(file.path)).numpy()
    return ArrayTensor.of(whole)

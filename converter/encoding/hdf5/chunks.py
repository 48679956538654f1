"""Datasets that are stored in chunks: filters undone and chunks put in their places, without libhdf5."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from converter.errors import ReadError
from converter.model.dtype import DType
from converter.model.file import Location
from converter.model.tensor import Array, Tensor

DEFLATE, SHUFFLE, FLETCHER32, LZF = 1, 2, 3, 32000
"""Registered filter numbers: H5Zpublic.h, and LZF_FILTER_ID of h5py."""

_FLETCHER_BYTES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """Where a chunk belongs in the dataset, and which filters it skipped (bit n: the n-th)."""

    origin: tuple[int, ...]
    skipped: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Assembled:
    """A dataset, given the stored bytes of its chunks; what no chunk covers holds the fill value."""

    dtype: DType
    shape: tuple[int, ...]
    chunk_shape: tuple[int, ...]
    chunks: tuple[Chunk, ...]
    filters: tuple[int, ...]
    fill: bytes
    path: Location

    def declare(self, inputs: Sequence[Tensor]) -> tuple[DType, tuple[int, ...]]:
        return self.dtype, self.shape

    def __call__(self, *arrays: Array) -> Array:
        whole = self._filled(self.shape)
        for chunk, stored in zip(self.chunks, arrays, strict=True):
            self._place(whole, chunk, chunk.origin, stored)
        return whole.view(self.dtype.numpy) if self.shape else whole.reshape(1).view(self.dtype.numpy).reshape(())

    def stream(self, inputs: Sequence[Tensor]) -> Iterator[memoryview] | None:
        return self._bands(inputs) if self.shape else None

    def _bands(self, inputs: Sequence[Tensor]) -> Iterator[memoryview]:
        """Yield the dataset one row of chunks after the other."""
        rows: dict[int, list[tuple[Chunk, Tensor]]] = {}
        for chunk, stored in zip(self.chunks, inputs, strict=True):
            rows.setdefault(chunk.origin[0], []).append((chunk, stored))
        for start in range(0, self.shape[0], self.chunk_shape[0]):
            stop = min(start + self.chunk_shape[0], self.shape[0])
            band = self._filled((stop - start, *self.shape[1:]))
            for chunk, stored in rows.get(start, ()):
                self._place(band, chunk, (0, *chunk.origin[1:]), stored.numpy())
            yield band.reshape(-1).view(np.uint8).data

    def _filled(self, shape: tuple[int, ...]) -> Array:
        item = self.dtype.numpy.itemsize
        array = np.empty(shape, f"V{item}")
        array[...] = np.frombuffer(self.fill, f"V{item}")[0]
        return array

    def _place(self, whole: Array, chunk: Chunk, origin: tuple[int, ...], stored: Array) -> None:
        try:
            data = self._decoded(stored.tobytes(), chunk)
        except ReadError as error:
            raise ReadError(error.message, path=self.path) from error
        block = np.frombuffer(data, whole.dtype).reshape(self.chunk_shape)
        inside = whole[tuple(slice(at, at + extent) for at, extent in zip(origin, self.chunk_shape, strict=True))]
        inside[...] = block[tuple(slice(0, extent) for extent in inside.shape)]

    def _decoded(self, data: bytes, chunk: Chunk) -> bytes:
        item_bytes = self.dtype.itemsize
        expected = math.prod(self.chunk_shape) * item_bytes
        for index in reversed(range(len(self.filters))):
            if not chunk.skipped >> index & 1:
                data = _UNDO[self.filters[index]](data, item_bytes, expected + _FLETCHER_BYTES)
        if len(data) != expected:
            raise ReadError(f"has a chunk of {len(data)} bytes instead of {expected}")
        return data


def _inflate(data: bytes, item_bytes: int, limit_bytes: int) -> bytes:
    inflater = zlib.decompressobj()
    try:
        inflated = inflater.decompress(data, limit_bytes)
    except zlib.error as error:
        raise ReadError(f"has a damaged chunk: {error}") from error
    if not inflater.eof:
        raise ReadError("has a damaged chunk: it inflates to more than was declared, or is cut short")
    return inflated


def _unshuffle(data: bytes, item_bytes: int, limit_bytes: int) -> bytes:
    count = len(data) // item_bytes
    planes = np.frombuffer(data, np.uint8, count * item_bytes).reshape(item_bytes, count)
    return bytes(planes.T.tobytes()) + data[count * item_bytes :]


def _verified(data: bytes, item_bytes: int, limit_bytes: int) -> bytes:
    """Check H5_checksum_fletcher32 (H5checksum.c): 16-bit big-endian words, stored little-endian at the end."""
    content, stored = data[:-_FLETCHER_BYTES], data[-_FLETCHER_BYTES:]
    padded = content + b"\0" * (len(content) % 2)
    words = np.frombuffer(padded, ">u2").astype(np.uint64)
    weights = np.arange(len(words), 0, -1, dtype=np.uint64) % np.uint64(65535)
    first = int(words.sum()) % 65535
    second = int((words * weights % np.uint64(65535)).sum()) % 65535
    # sums modulo 65535 have two zeros; libhdf5's reduction ends on 65535 for any sum that is not plain zero
    if words.any():
        first, second = first or 65535, second or 65535
    if int.from_bytes(stored, "little") != second << 16 | first:
        raise ReadError("has a chunk whose checksum does not match")
    return content


def _unlzf(data: bytes, item_bytes: int, limit_bytes: int) -> bytes:
    """LibLZF's lzf_decompress: literal runs of up to 32 bytes, and copies of up to 264 bytes from 8 KiB back."""
    out, position = bytearray(), 0
    try:
        while position < len(data):
            control = data[position]
            position += 1
            if control < 32:
                run = data[position : position + control + 1]
                if len(run) != control + 1:
                    raise IndexError
                out += run
                position += control + 1
            else:
                length = control >> 5
                if length == 7:
                    length += data[position]
                    position += 1
                start = len(out) - ((control & 31) << 8) - data[position] - 1
                position += 1
                if start < 0:
                    raise IndexError
                pattern = out[start : start + length + 2]
                repeats = -(-(length + 2) // len(pattern))  # a copy may reach into what it writes
                out += (pattern * repeats)[: length + 2]
            if len(out) > limit_bytes:
                raise IndexError
    except IndexError:
        raise ReadError("has a damaged chunk: not LZF, or more than was declared") from None
    return bytes(out)


_UNDO: dict[int, Callable[[bytes, int, int], bytes]] = {
    DEFLATE: _inflate,
    SHUFFLE: _unshuffle,
    FLETCHER32: _verified,
    LZF: _unlzf,
}

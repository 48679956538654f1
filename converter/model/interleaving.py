"""Joining arrays along an axis that is not the first, each of them read once, from its start to its end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from converter.errors import ReadError
from converter.model.file import CHUNK_BYTES


class _Stream:
    """Bytes that come in chunks, taken in other lengths."""

    def __init__(self, chunks: Iterator[memoryview]) -> None:
        self._chunks = chunks
        self._rest = memoryview(b"")

    def pieces(self, length: int) -> Iterator[memoryview]:
        """Yield the next `length` bytes in pieces that are valid until the next one is asked for.

        Raises ReadError for a part that ends early.
        """
        while length:
            if not self._rest:
                chunk = next(self._chunks, None)
                if chunk is None:
                    raise ReadError("a part is shorter than it was declared")
                self._rest = chunk
            piece = self._rest[:length]
            length, self._rest = length - len(piece), self._rest[len(piece) :]
            yield piece

    def end(self) -> None:
        """Go past the last byte, where a checksum is looked at. Raises ReadError when there is one more."""
        if self._rest or any(len(chunk) for chunk in self._chunks):
            raise ReadError("a part is longer than it was declared")


def interleaved(parts: Sequence[Iterator[memoryview]], widths: Sequence[int], rows: int) -> Iterator[memoryview]:
    """Yield, for each of `rows` rows, the next `widths` bytes of every part.

    Takes one chunk of each part and CHUNK_BYTES of memory. Raises ReadError for parts that are shorter or longer.
    """
    streams = [_Stream(part) for part in parts]
    row_bytes = sum(widths)
    if row_bytes >= CHUNK_BYTES:
        for _ in range(rows):
            for stream, width in zip(streams, widths, strict=True):
                yield from stream.pieces(width)
    elif row_bytes:
        yield from _blocks(streams, widths, rows)
    for stream in streams:
        stream.end()


def _blocks(streams: Sequence[_Stream], widths: Sequence[int], rows: int) -> Iterator[memoryview]:
    """Yield as many whole rows at a time as make a chunk."""
    row_bytes = sum(widths)
    block = np.empty((min(rows, CHUNK_BYTES // row_bytes), row_bytes), np.uint8)
    for start in range(0, rows, len(block)):
        filled = block[: min(len(block), rows - start)]
        column = 0
        for stream, width in zip(streams, widths, strict=True):
            filled[:, column : column + width] = _next_rows(stream, len(filled), width)
            column += width
        yield filled.reshape(-1).data


def _next_rows(stream: _Stream, rows: int, width: int) -> np.ndarray[tuple[int, int], np.dtype[np.uint8]]:
    pieces = stream.pieces(rows * width)
    first = next(pieces, memoryview(b""))
    data = first if len(first) == rows * width else b"".join([bytes(first), *map(bytes, pieces)])
    return np.frombuffer(data, np.uint8).reshape(rows, width)

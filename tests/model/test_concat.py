"""Joining parts along any axis: in pieces, each part read once and to its end, and as little memory as said."""

from __future__ import annotations

import os
import tracemalloc
import zlib
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from converter.errors import ReadError
from converter.model.dtype import DType
from converter.model.file import CHUNK_BYTES, Checksum, LocalFile
from converter.model.interleaving import interleaved
from converter.model.tensor import ArrayTensor, FileTensor, Tensor, concat

WHOLE = np.random.default_rng(0).integers(0, 1 << 16, (31, 40, 3000), dtype=np.uint16)  # chunks end within rows


def cut(array: np.ndarray, axis: int, places: list[int], folder: Path) -> list[Tensor]:
    """The parts of an array, each in a file of its own."""
    parts: list[Tensor] = []
    for start, stop in pairwise([0, *places, array.shape[axis]]):
        part = np.ascontiguousarray(np.moveaxis(np.moveaxis(array, axis, 0)[start:stop], 0, axis))
        path = folder / f"{axis}-{start}-{len(parts)}"
        path.write_bytes(part.tobytes())
        checksum = Checksum(file=LocalFile(path), offset=0, length=part.nbytes, expected=zlib.crc32(part))
        parts.append(FileTensor(dtype=DType.UINT16, shape=part.shape, file=checksum.file, offset=0, checksum=checksum))
    return parts


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("places", [[], [7], [0, 1, 1, 29], list(range(1, 31))])
def test_parts_along_any_axis(axis: int, places: list[int], tmp_path: Path) -> None:
    joined = concat(cut(WHOLE, axis, places, tmp_path), axis=axis)
    chunks = [bytes(chunk) for chunk in joined.chunks()]
    assert b"".join(chunks) == WHOLE.tobytes()
    assert max(map(len, chunks)) <= CHUNK_BYTES
    np.testing.assert_array_equal(joined.numpy(), WHOLE)


def test_rows_longer_than_a_chunk(tmp_path: Path) -> None:
    array = np.arange(2 * CHUNK_BYTES + 300, dtype=np.uint16).reshape(2, -1)
    joined = concat(cut(array, 1, [5, CHUNK_BYTES // 3], tmp_path), axis=1)
    assert b"".join(map(bytes, joined.chunks())) == array.tobytes()


def test_grids_within_grids(tmp_path: Path) -> None:
    layers = []
    for start, stop in ((0, 5), (5, 31)):
        rows = []
        for top, bottom in ((0, 39), (39, 40)):
            block = np.ascontiguousarray(WHOLE[start:stop, top:bottom])
            (tmp_path / f"{start}-{top}").mkdir()
            rows.append(concat(cut(block, 2, [1, 2000], tmp_path / f"{start}-{top}"), axis=2))
        layers.append(concat(rows, axis=1))
    np.testing.assert_array_equal(concat(layers, axis=0).numpy(), WHOLE)


@pytest.mark.parametrize("axis", [0, 1])
def test_empty_tensors(axis: int) -> None:
    empty = ArrayTensor.of(np.zeros((0, 3) if axis else (3, 0), np.float32))
    assert concat([empty, empty], axis=axis).numpy().size == 0


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_damaged_part_is_found_at_its_end(axis: int, tmp_path: Path) -> None:
    parts = cut(WHOLE, axis, [11], tmp_path)
    concat(parts, axis=axis).numpy()
    path = parts[1].file.path
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(ReadError, match="CRC"):
        concat(cut_again(parts), axis=axis).numpy()


def cut_again(parts: list[Tensor]) -> list[Tensor]:
    """The same declarations, none of them read before."""
    again: list[Tensor] = []
    for part in parts:
        assert isinstance(part, FileTensor)
        assert part.checksum is not None
        old = part.checksum
        checksum = Checksum(file=old.file, offset=0, length=old.length, expected=old.expected)
        again.append(FileTensor(dtype=part.dtype, shape=part.shape, file=part.file, offset=0, checksum=checksum))
    return again


@pytest.mark.parametrize(("lengths", "what"), [((8, 3), "is shorter than"), ((8, 5), "is longer than")])
@pytest.mark.parametrize("row_bytes", [1, CHUNK_BYTES])
def test_parts_of_another_length_are_refused(row_bytes: int, lengths: tuple[int, int], what: str) -> None:
    def parts(*counts: int) -> list[Iterator[memoryview]]:
        return [iter([memoryview(bytes(count * row_bytes))]) for count in counts]

    widths = [2 * row_bytes, row_bytes]
    assert sum(map(len, interleaved(parts(8, 4), widths, 4))) == 12 * row_bytes
    with pytest.raises(ReadError, match=what):
        list(interleaved(parts(*lengths), widths, 4))


def test_a_range_of_parts_reads_no_other_part(tmp_path: Path) -> None:
    parts = cut(WHOLE, 0, [10, 20], tmp_path)
    joined = concat(parts, axis=0)
    for start, stop in ((0, 31), (0, 3), (5, 15), (10, 20), (25, 31), (7, 7)):
        np.testing.assert_array_equal(joined.take(axis=0, start=start, stop=stop).numpy(), WHOLE[start:stop])
    os.truncate(tmp_path / "0-20-2", 0)
    flat = joined.reshape((WHOLE.size,)).reshape(WHOLE.shape)
    np.testing.assert_array_equal(flat.take(axis=0, start=5, stop=15).numpy(), WHOLE[5:15])
    with pytest.raises(ReadError):
        joined.take(axis=0, start=5, stop=21).numpy()


@pytest.mark.parametrize("count", [2, 64])
def test_memory_does_not_grow_with_the_parts(count: int, tmp_path: Path) -> None:
    (tmp_path / "x").touch()
    os.truncate(tmp_path / "x", 256 << 20)
    file = LocalFile(tmp_path / "x")
    width = (256 << 20) // count // 1024
    parts = [
        FileTensor(dtype=DType.UINT8, shape=(1024, width), file=file, offset=n * 1024 * width) for n in range(count)
    ]
    joined = concat(parts, axis=1)
    tracemalloc.start()
    assert sum(map(len, joined.chunks())) == 256 << 20
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 * CHUNK_BYTES


def test_a_chunk_too_many_is_refused() -> None:
    def parts(*lengths: int) -> list[Iterator[memoryview]]:
        return [iter([memoryview(bytes(4))] * (length // 4)) for length in lengths]

    assert sum(map(len, interleaved(parts(8, 4), [2, 1], 4))) == 12
    for lengths in ((12, 4), (8, 8)):
        with pytest.raises(ReadError, match="is longer than"):
            list(interleaved(parts(*lengths), [2, 1], 4))

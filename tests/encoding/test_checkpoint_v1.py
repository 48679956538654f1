from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from converter.encoding.checkpoint_v1 import read_bundle
from converter.encoding.leveldb_table import build_table
from converter.encoding.protobuf import content_field, content_fields, number_field
from converter.errors import ReadError
from converter.model.file import LocalFile

FLOAT, FLOATS = 1, 5


def place(*extents: tuple[int, int] | None) -> bytes:
    """A slice by start and length of each axis; None is a whole axis."""
    ranges = (b"" if each is None else number_field(1, each[0]) + number_field(2, each[1]) for each in extents)
    return content_fields(1, ranges)


def written(path: Path, shape: tuple[int, ...], *slices: tuple[bytes, list[float]]) -> LocalFile:
    dims = content_fields(2, [number_field(1, extent) for extent in shape])
    declared = content_field(1, "w") + content_field(2, dims) + number_field(3, FLOAT)
    entries = [(b"", content_field(1, content_field(1, declared)))]
    for number, (where, numbers) in enumerate(slices):
        values = content_field(FLOATS, struct.pack(f"<{len(numbers)}f", *numbers))
        held = content_field(1, "w") + content_field(2, where) + content_field(3, values)
        entries.append((b"\0w%d" % number, content_field(2, held)))
    path.write_bytes(build_table(entries))
    return LocalFile(path)


def test_slices_are_put_together(tmp_path: Path) -> None:
    file = written(tmp_path / "x", (3, 2), (place((0, 1), None), [1, 2]), (place((1, 2), None), [3, 4, 5, 6]))
    assert np.array_equal(read_bundle(file).tensors["w"].numpy(), [[1, 2], [3, 4], [5, 6]])


@pytest.mark.parametrize(
    ("slices", "message"),
    [
        ([(place((0, 2)), [1, 2]), (place((1, 2)), [3, 4])], "overlap"),
        ([(place((0, 2)), [1, 2]), (place((0, 2)), [1, 2])], "overlap"),
        ([(place((0, 1)), [1]), (place((2, 2)), [3, 4])], "leave gaps"),
        ([(place((0, 3)), [1, 2, 3])], "leave gaps"),
        ([(place((2, 4)), [1, 2, 3, 4])], "leave gaps"),
        ([], "leave gaps"),
        ([(place(None), [1])], "fewer numbers"),
        ([(place((0, 1 << 40)), [1])], "fewer numbers"),
        ([(place((0, -1)), [])], "fewer numbers"),
        ([(place(None), [1, 2, 3, 4, 5])], "5 numbers"),
        ([(place(None, None), [1, 2, 3, 4])], "2 axes"),
    ],
)
def test_slices_that_are_not_the_tensor_are_refused(
    slices: list[tuple[bytes, list[float]]], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ReadError, match=message):
        read_bundle(written(tmp_path / "x", (4,), *slices))


def test_a_tensor_of_any_size_takes_no_memory(tmp_path: Path) -> None:
    with pytest.raises(ReadError, match="fewer numbers"):
        read_bundle(written(tmp_path / "x", (1 << 20, 1 << 20), (place(None, None), [1.0])))


def test_a_tensor_without_elements_has_a_slice_too(tmp_path: Path) -> None:
    assert read_bundle(written(tmp_path / "x", (0, 2), (place(None, None), []))).tensors["w"].shape == (0, 2)
    with pytest.raises(ReadError, match="leave gaps"):
        read_bundle(written(tmp_path / "y", (0, 2)))

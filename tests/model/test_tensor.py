"""Tensors declare first and read late; what they read is what they declared."""

from __future__ import annotations

import io
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from converter.errors import ReadError
from converter.model.dtype import DType
from converter.model.file import CHUNK_BYTES, Checksum, LocalFile
from converter.model.tensor import (
    ArrayTensor,
    Cast,
    ComputedTensor,
    FileTensor,
    Tensor,
    byteswapped,
    concat,
    files_of,
    identity,
    is_equal,
    is_same_bytes,
    strided,
    tensor_names,
)


@pytest.fixture
def stored(tmp_path: Path) -> FileTensor:
    path = tmp_path / "data"
    path.write_bytes(b"head" + np.arange(24, dtype="<f4").tobytes())
    return FileTensor(dtype=DType.FLOAT32, shape=(2, 3, 4), file=LocalFile(path), offset=4)


def test_file_tensor_reads_its_range(stored: FileTensor) -> None:
    assert stored.nbytes == 96
    np.testing.assert_array_equal(stored.numpy(), np.arange(24, dtype="<f4").reshape(2, 3, 4))
    out = io.BytesIO()
    stored.write_to(out)
    assert out.getvalue() == np.arange(24, dtype="<f4").tobytes()


@pytest.mark.parametrize(
    ("shape", "offset"), [((2, 3, 5), 4), ((24,), 8), ((-1, 24), 4), ((24,), -4), ((1 << 62, 1 << 62), 0)]
)
def test_file_tensor_outside_its_file_is_refused(stored: FileTensor, shape: tuple[int, ...], offset: int) -> None:
    with pytest.raises(ReadError, match="data"):
        FileTensor(dtype=DType.FLOAT32, shape=shape, file=stored.file, offset=offset)


def test_a_file_that_shrinks_is_an_error(stored: FileTensor) -> None:
    stored.numpy()
    with open(stored.file.path, "r+b") as file:
        file.truncate(50)
    with pytest.raises(ReadError, match="ended while it was being read"):
        stored.numpy()


def test_rows_and_shapes_of_a_file_tensor_stay_in_the_file(stored: FileTensor) -> None:
    row = stored.take(axis=0, start=1, stop=2).reshape((12,)).take(axis=0, start=4, stop=8)
    assert isinstance(row, FileTensor)
    np.testing.assert_array_equal(row.numpy(), np.arange(16, 20, dtype="<f4"))


def test_operations_equal_numpys(stored: FileTensor) -> None:
    array = stored.numpy()
    transposed = stored.transpose((2, 0, 1))
    assert transposed.shape == (4, 2, 3)
    np.testing.assert_array_equal(transposed.numpy(), array.transpose(2, 0, 1))
    np.testing.assert_array_equal(stored.take(axis=2, start=1, stop=3).numpy(), array[:, :, 1:3])
    np.testing.assert_array_equal(concat([stored, stored], axis=1).numpy(), np.concatenate([array, array], axis=1))
    assert stored.cast(DType.BFLOAT16).numpy().dtype == ml_dtypes.bfloat16
    assert list(files_of(concat([stored, transposed.transpose((1, 2, 0))], axis=0))) == [stored.file, stored.file]


def test_adjacent_transposes_merge_and_identity_vanishes(stored: FileTensor) -> None:
    once = stored.transpose((2, 0, 1)).transpose((0, 2, 1))
    assert isinstance(once, ComputedTensor)
    assert once.inputs == (stored,)
    np.testing.assert_array_equal(once.numpy(), stored.numpy().transpose(2, 1, 0))
    assert stored.transpose((2, 0, 1)).transpose((1, 2, 0)) is stored


def test_strided_views(stored: FileTensor) -> None:
    flat = stored.reshape((24,))
    contiguous = strided(flat, offset=3, shape=(2, 2), strides=(2, 1))
    assert isinstance(contiguous, FileTensor)
    np.testing.assert_array_equal(contiguous.numpy(), [[3, 4], [5, 6]])
    column = strided(flat, offset=1, shape=(3, 2), strides=(1, 8))
    np.testing.assert_array_equal(column.numpy(), [[1, 9], [2, 10], [3, 11]])
    expanded = strided(flat, offset=5, shape=(3,), strides=(0,))
    np.testing.assert_array_equal(expanded.numpy(), [5, 5, 5])


@pytest.mark.parametrize("dtype", list(DType))
def test_every_element_type_keeps_its_bits(dtype: DType, tmp_path: Path) -> None:
    raw = bytes(range(256))[: 16 * dtype.itemsize] if dtype is not DType.BOOL else bytes([0, 1] * 8)
    (tmp_path / "x").write_bytes(raw)
    tensor = FileTensor(dtype=dtype, shape=(16,), file=LocalFile(tmp_path / "x"), offset=0)
    assert tensor.numpy().tobytes() == raw
    assert b"".join(map(bytes, ArrayTensor.of(tensor.numpy()).chunks())) == raw
    assert DType.of(tensor.numpy().dtype) is dtype
    if dtype.itemsize > 1:
        assert byteswapped(byteswapped(tensor)).numpy().tobytes() == raw
        assert byteswapped(tensor).numpy().tobytes() != raw


def test_big_endian_arrays_are_made_little(tmp_path: Path) -> None:
    tensor = ArrayTensor.of(np.arange(5, dtype=">i4"))
    assert b"".join(map(bytes, tensor.chunks())) == np.arange(5, dtype="<i4").tobytes()


def test_what_is_read_is_checked_against_the_declaration() -> None:
    liar = ArrayTensor(dtype=DType.FLOAT32, shape=(3,), array=np.zeros(4, np.float32))
    with pytest.raises(ReadError, match="declared as"):
        liar.numpy()


@pytest.mark.parametrize("array", [np.zeros(3, np.int32), np.zeros((1, 3), np.float32), np.zeros(3, ">f4")])
def test_each_part_of_the_declaration_is_checked(array: np.ndarray) -> None:
    assert ArrayTensor(dtype=DType.FLOAT32, shape=(3,), array=np.zeros(3, np.float32)).numpy().size == 3
    with pytest.raises(ReadError, match=r"declared as float32\[3\], read as"):
        ArrayTensor(dtype=DType.FLOAT32, shape=(3,), array=array).numpy()


@pytest.mark.parametrize("shape", [(2.0, 3), (True, 3), (np.int64(2), 3)])
def test_extents_are_integers(stored: FileTensor, shape: tuple[int, ...]) -> None:
    with pytest.raises(ReadError, match="impossible shape"):
        FileTensor(dtype=DType.FLOAT32, shape=shape, file=stored.file, offset=4)


@pytest.mark.parametrize("shape", [(2, 3, 3), (23,), (25,), ()])
def test_a_shape_of_another_size_is_refused_before_anything_is_read(stored: FileTensor, shape: tuple[int, ...]) -> None:
    tensors = [stored, ArrayTensor.of(stored.numpy()), stored.transpose((1, 0, 2)), stored.cast(DType.FLOAT64)]
    for tensor in tensors:
        assert tensor.reshape((4, 6)).shape == (4, 6)
        with pytest.raises(ReadError, match="cannot be reshaped"):
            tensor.reshape(shape)


@pytest.mark.parametrize(("axis", "start", "stop"), [(0, 1, 3), (0, -1, 1), (0, 2, 1), (2, 0, 5), (2, -2, 2)])
def test_a_range_outside_an_axis_is_refused(stored: FileTensor, axis: int, start: int, stop: int) -> None:
    head = FileTensor(dtype=DType.FLOAT32, shape=(2, 2, 4), file=stored.file, offset=4)  # the file goes on behind it
    joined = concat([head, head.transpose((0, 1, 2))], axis=1)
    for tensor in (head, ArrayTensor.of(head.numpy()), head.transpose((0, 2, 1)).transpose((0, 2, 1)), joined):
        assert tensor.take(axis=axis, start=1, stop=2).shape[axis] == 1
        with pytest.raises(ReadError, match=f"elements on axis {axis}"):
            tensor.take(axis=axis, start=start, stop=stop)


def test_an_axis_of_one_element_may_have_any_stride(stored: FileTensor) -> None:
    flat = stored.reshape((24,))
    row = strided(flat, offset=2, shape=(1, 4), strides=(99, 1))
    assert isinstance(row, FileTensor)
    np.testing.assert_array_equal(row.numpy(), [[2, 3, 4, 5]])
    assert strided(flat, offset=0, shape=(0, 4), strides=(7, 7)).numpy().shape == (0, 4)


def test_parts_that_do_not_join(stored: FileTensor) -> None:
    array = stored.numpy()
    assert concat([stored, ArrayTensor.of(array[:1])], axis=0).shape == (3, 3, 4)
    for other in (array.astype(np.float64), array.view(np.int32), array[:, :2], array[..., :1], array[0]):
        with pytest.raises(ReadError, match="do not join"):
            concat([stored, ArrayTensor.of(other)], axis=0)


class Uneven(Tensor):
    """Zero to n, in chunks of any length."""

    lengths = (3, 1, 5, 7, 2, 6)

    def _read(self) -> np.ndarray:
        return np.arange(self.size, dtype=self.dtype.numpy).reshape(self.shape)

    def chunks(self) -> Iterator[memoryview]:
        data = self.numpy().tobytes()
        position = 0
        for length in self.lengths:
            yield memoryview(data)[position : position + length]
            position += length


class CutOff(Uneven):
    lengths = (4, 2)


def test_elements_that_chunks_share() -> None:
    uneven = Uneven(dtype=DType.UINT32, shape=(6,))
    assert uneven.cast(DType.INT64).numpy().tolist() == list(range(6))
    assert byteswapped(uneven).numpy().byteswap().tolist() == list(range(6))
    wide = Uneven(dtype=DType.UINT64, shape=(3,))
    assert wide.cast(DType.UINT8).numpy().tolist() == [0, 1, 2]
    with pytest.raises(ReadError, match="ends within an element of uint32"):
        list(CutOff(dtype=DType.UINT32, shape=(2,)).cast(DType.INT64).chunks())


def test_equality_is_of_bits() -> None:
    nan = ArrayTensor.of(np.array([np.nan, 0.0], np.float32))
    assert is_equal(nan, ArrayTensor.of(np.array([np.nan, 0.0], np.float32)))
    assert not is_equal(nan, ArrayTensor.of(np.array([np.nan, -0.0], np.float32)))
    assert not is_equal(nan, nan.reshape((2, 1)))
    assert not is_equal(nan, ArrayTensor.of(nan.numpy().view(np.int32)))
    assert not is_equal(nan, ArrayTensor.of(np.array([np.nan], np.float32)))


@pytest.mark.parametrize(
    ("ours", "theirs", "is_same"),
    [
        ((b"ab", b"c"), (b"a", b"", b"bc"), True),
        ((b"ab",), (b"ab", b"c"), False),
        ((b"ab", b"c"), (b"ab",), False),
        ((b"ab", b"c"), (b"ab", b"d"), False),
        ((), (b"",), True),
    ],
)
def test_streams_are_the_same_to_their_ends(ours: tuple[bytes, ...], theirs: tuple[bytes, ...], is_same: bool) -> None:
    assert is_same_bytes(map(memoryview, ours), map(memoryview, theirs)) is is_same


def test_what_is_one_tensor_looked_at_in_one_way(stored: FileTensor) -> None:
    def again(**changed: object) -> FileTensor:
        return replace(stored, **changed)  # type: ignore[arg-type]

    assert identity(stored) == identity(again())
    turned = stored.transpose((1, 0, 2))
    assert identity(turned) == identity(again().transpose((1, 0, 2)))
    square = FileTensor(dtype=DType.FLOAT32, shape=(4, 4), file=stored.file, offset=4)
    others = [
        stored.transpose((0, 1, 2)),
        turned,
        stored.transpose((2, 1, 0)),
        stored.reshape((6, 4)),
        again(dtype=DType.INT32),
        again(offset=0),
        again(file=LocalFile(stored.file.path)),
        stored.cast(DType.FLOAT64),
        stored.cast(DType.FLOAT64),
        square,
        square.transpose((1, 0)),
    ]
    assert len(set(map(identity, others))) == len(others)
    assert [identity(other) == identity(stored) for other in others] == [True] + [False] * (len(others) - 1)
    empty = FileTensor(dtype=DType.FLOAT32, shape=(0, 4), file=stored.file, offset=4)
    assert identity(empty) != identity(replace(empty))


def test_names_of_tensors_in_nested_values(stored: FileTensor) -> None:
    value = {"a": [1, stored, {"b": stored}], "c": (stored,), "d": "text", "e": stored}
    assert list(tensor_names("x", value)) == ["x.a.1", "x.a.2.b", "x.c.0", "x.e"]
    assert list(tensor_names("x", stored)) == ["x"]


def test_what_dtype_casts() -> None:
    floating = {dtype for dtype in DType if dtype.is_floating}
    assert {dtype.value for dtype in set(DType) - floating} == {
        *("bool", "uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "complex64", "complex128")
    }
    assert DType.BFLOAT16 in floating


def test_checksum_covers_whole_and_partial_reads(tmp_path: Path) -> None:
    data = np.arange(CHUNK_BYTES // 2, dtype="<f4").tobytes()
    path = tmp_path / "x"
    path.write_bytes(data)
    file = LocalFile(path)

    def tensors(expected: int) -> tuple[FileTensor, FileTensor]:
        checksum = Checksum(file=file, offset=0, length=len(data), expected=expected)
        whole = FileTensor(dtype=DType.FLOAT32, shape=(len(data) // 4,), file=file, offset=0, checksum=checksum)
        return whole, FileTensor(dtype=DType.FLOAT32, shape=(2,), file=file, offset=8, checksum=checksum)

    for tensor in tensors(zlib.crc32(data)):
        tensor.numpy()
    for tensor in tensors(zlib.crc32(data) ^ 1):
        with pytest.raises(ReadError, match="CRC"):
            tensor.numpy()


@pytest.mark.parametrize("dtype", [DType.FLOAT16, DType.BFLOAT16, DType.FLOAT8_E4M3FN, DType.FLOAT8_E5M2])
def test_a_cast_counts_what_it_loses(dtype: DType) -> None:
    limits = ml_dtypes.finfo(dtype.numpy)
    values = [0.0, 1.0, np.inf, float(limits.smallest_normal), float(limits.smallest_normal) / 2, -1e-44]
    overflowing = [3e38] * 2 if dtype is not DType.BFLOAT16 else []
    cast = ArrayTensor.of(np.array(values + overflowing, np.float32)).cast(dtype)
    assert isinstance(cast, ComputedTensor)
    cast.numpy()
    cast.numpy()
    assert isinstance(cast.operation, Cast)
    assert (cast.operation.tally.overflowed, cast.operation.tally.subnormal) == (len(overflowing), 2)


def test_a_cast_counts_in_every_piece() -> None:
    values = np.zeros(CHUNK_BYTES // 4 + 2, np.float32)
    values[[0, -1]], values[[1, -2]] = 3e38, 1e-44
    cast = ArrayTensor.of(values).cast(DType.FLOAT16)
    assert len(list(cast.chunks())) == 2
    assert isinstance(cast, ComputedTensor)
    assert isinstance(cast.operation, Cast)
    assert (cast.operation.tally.overflowed, cast.operation.tally.subnormal) == (2, 2)


@pytest.fixture
def large(tmp_path: Path) -> FileTensor:
    """Three chunks and a bit, in rows that do not end where chunks do."""
    array = np.arange(3 * CHUNK_BYTES // 4 + 4443, dtype="<u4")
    array = array[: len(array) // 333 * 333]
    (tmp_path / "large").write_bytes(array.tobytes())
    return FileTensor(dtype=DType.UINT32, shape=(len(array) // 333, 333), file=LocalFile(tmp_path / "large"), offset=0)


def test_what_is_computed_comes_in_pieces(large: FileTensor) -> None:
    array = large.numpy()
    expected = {
        large.transpose((1, 0)): array.T,
        large.reshape((333, -(-large.size // 333))).transpose((1, 0)): array.reshape(333, -1).T,
        large.reshape((array.size, 1, 1)).transpose((2, 1, 0)): array.reshape(1, 1, -1),
        large.reshape((9, -(-large.size // 9))).reshape((1, 9, large.size // 9)).transpose((0, 2, 1)): array.reshape(
            1, 9, -1
        ).transpose(0, 2, 1),
        large.cast(DType.UINT16): array.astype("<u2"),
        large.transpose((1, 0)).cast(DType.INT64): array.T.astype("<i8"),
        byteswapped(large): array.byteswap(),
        concat([large, large.cast(DType.UINT16).cast(DType.UINT32)], axis=0): np.concatenate(
            [array, array.astype("<u2").astype("<u4")]
        ),
        large.cast(DType.INT64).take(axis=0, start=5, stop=9000): array[5:9000].astype("<i8"),
        large.transpose((1, 0)).reshape((large.size,)): array.T.reshape(-1),
    }
    for tensor, wanted in expected.items():
        chunks = [bytes(chunk) for chunk in tensor.chunks()]
        assert b"".join(chunks) == wanted.tobytes()
        assert max(map(len, chunks)) <= 2 * CHUNK_BYTES
        np.testing.assert_array_equal(tensor.numpy(), wanted)
        assert is_equal(tensor, ArrayTensor.of(np.ascontiguousarray(wanted)))
        changed = np.ascontiguousarray(wanted).copy()
        changed.reshape(-1)[-1] ^= 1
        assert not is_equal(tensor, ArrayTensor.of(changed))


def test_what_must_be_whole_says_so(large: FileTensor) -> None:
    turned = large.transpose((1, 0))
    assert (large.working_bytes, large.cast(DType.INT64).working_bytes) == (0, 0)
    assert turned.working_bytes == large.nbytes
    assert turned.cast(DType.INT64).reshape((large.size,)).working_bytes == large.nbytes
    assert concat([turned, turned], axis=1).working_bytes == 2 * (large.nbytes + CHUNK_BYTES)
    assert concat([large, large], axis=1).working_bytes == CHUNK_BYTES
    assert concat([turned, turned], axis=0).working_bytes == large.nbytes
    assert turned.take(axis=1, start=0, stop=2).working_bytes == 2 * large.nbytes
    assert turned.take(axis=0, start=0, stop=2).working_bytes == large.nbytes

    class Doubled:
        def declare(self, inputs: object) -> tuple[DType, tuple[int, ...]]:
            return DType.UINT32, large.shape

        def __call__(self, *arrays: np.ndarray) -> np.ndarray:
            return arrays[0] * 2

    doubled = ComputedTensor(dtype=DType.UINT32, shape=large.shape, inputs=(large,), operation=Doubled())
    assert doubled.working_bytes == 2 * large.nbytes


def test_a_computation_of_another_size_is_refused(stored: FileTensor) -> None:
    class Streamed:
        def __init__(self, nbytes: int) -> None:
            self.nbytes = nbytes

        def declare(self, inputs: object) -> tuple[DType, tuple[int, ...]]:
            return DType.UINT8, (10,)

        def __call__(self, *arrays: object) -> np.ndarray:
            raise AssertionError

        def stream(self, inputs: object) -> object:
            return iter([memoryview(bytes(self.nbytes))])

    def tensor(nbytes: int) -> ComputedTensor:
        return ComputedTensor(dtype=DType.UINT8, shape=(10,), inputs=(stored,), operation=Streamed(nbytes))

    assert tensor(10).numpy().tobytes() == bytes(10)
    for nbytes in (9, 11):
        with pytest.raises(ReadError, match="declared as 10 bytes"):
            tensor(nbytes).numpy()


def test_a_cast_of_what_is_no_number_says_nothing() -> None:
    """A warning of numpy's would be printed by whoever calls the library: signalling NaNs, overflow and underflow."""
    signalling = np.array([0x7FF0000000000001, 0xFFF0000000000001], np.uint64).view(np.float64)
    values = np.concatenate([signalling, [np.inf, 1e300, 1e-300, -1e300]])
    for dtype in (DType.FLOAT32, DType.FLOAT16, DType.BFLOAT16, DType.FLOAT8_E4M3FN):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            cast = ArrayTensor.of(values).cast(dtype)
            assert cast.numpy().shape == values.shape
            assert sum(len(chunk) for chunk in cast.chunks()) == cast.nbytes

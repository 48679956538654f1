"""NumPy's archives and arrays: every layout that numpy writes is read bit for bit, and what is written it loads."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import converter
from converter.encoding import npy
from converter.errors import CkconvError, LossError, ReadError
from converter.model.checkpoint import Checkpoint
from converter.model.tensor import ArrayTensor

RANDOM = np.random.default_rng(0)
ARRAYS: dict[str, Any] = {
    "plain": RANDOM.standard_normal((3, 4)).astype(np.float32),
    "layers/0/kernel": RANDOM.standard_normal((2, 3, 4)).astype(np.float16),
    "fortran": np.asfortranarray(RANDOM.standard_normal((3, 4, 5))),
    "swapped": np.arange(6, dtype=">i4").reshape(2, 3),
    "both": np.asfortranarray(np.arange(6, dtype=">f8").reshape(2, 3)),
    "bytes": np.arange(5, dtype=np.uint8),
    "truth": np.array([True, False]),
    "complex": np.array([1 + 2j, 3 - 4j], np.complex64),
    "complex swapped": np.array([1 + 2j, 3 - 4j], ">c16"),
    "scalar": np.float32(3),
    "empty": np.zeros((0, 7), np.float32),
    "long": np.arange(100_000, dtype=np.int64),
}
OTHERS: dict[str, Any] = {
    "objects": np.array([{"a": 1}, None], object),
    "text": np.array(["a", "bc"]),
    "bytes": np.array([b"a"]),
    "dates": np.array(["2020-01-01"], "M8[D]"),
    "records": np.zeros(2, [("x", "f4"), ("y", "i4")]),
    "bfloat16": np.zeros(3, ml_dtypes.bfloat16),
    "longdouble": np.zeros(3, np.longdouble),
}


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_every_layout_is_read(save: Any, tmp_path: Path) -> None:
    save(tmp_path / "x.npz", **ARRAYS)
    found = converter.read(tmp_path / "x.npz")
    assert found.names == tuple(ARRAYS)
    for name, array in ARRAYS.items():
        read = found.tensor(name).numpy()
        assert read.dtype == array.dtype.newbyteorder("<")
        np.testing.assert_array_equal(read, array)
        assert b"".join(bytes(chunk) for chunk in found.tensor(name).chunks()) == read.tobytes()


@pytest.mark.parametrize("name", ["plain", "fortran", "swapped", "scalar", "empty"])
def test_an_array_alone_has_the_name_of_its_file(name: str, tmp_path: Path) -> None:
    np.save(tmp_path / "weight.npy", ARRAYS[name])
    report = converter.convert(tmp_path / "weight.npy", tmp_path / "out.safetensors")
    assert report.counts["mapped"] == 1
    np.testing.assert_array_equal(converter.read(tmp_path / "out.safetensors").tensor("weight").numpy(), ARRAYS[name])


def test_what_is_no_numbers_is_told(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", plain=ARRAYS["plain"], **OTHERS)
    report = converter.convert(tmp_path / "x.npz", tmp_path / "x.pth")
    assert report.counts["mapped"] == 1
    told = {line.name: line.reason for line in report.lines if line.name in OTHERS}
    assert told.keys() == OTHERS.keys()
    assert told["objects"] == "Python objects, which are a pickle"
    assert told["bfloat16"] == "raw bytes, whose type numpy does not say"


@pytest.mark.parametrize(("value", "what"), [({"w": [1.0]}, "Python objects"), (np.zeros(2, [("x", "f4")]), "records")])
def test_an_array_of_no_numbers_alone_is_told(value: Any, what: str, tmp_path: Path) -> None:
    np.save(tmp_path / "weights.npy", value)
    np.savez(tmp_path / "weights.npz", weights=value)
    for path in tmp_path.iterdir():
        with pytest.raises(ReadError, match=f"tensor weights: holds no array of numbers, but {what}.*; numpy.savez"):
            converter.read(path)


@pytest.mark.parametrize("name", list(ARRAYS))
def test_numpy_loads_what_is_written(name: str, tmp_path: Path) -> None:
    array = np.asarray(ARRAYS[name])
    plain = ArrayTensor.of(np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<")).reshape(array.shape))
    checkpoint = Checkpoint(tensors={name: plain}, aliases={"alias": name})
    converter.write(checkpoint, tmp_path / "x.npz")
    with np.load(tmp_path / "x.npz", allow_pickle=False) as found:
        assert set(found.files) == {name, "alias"}
        np.testing.assert_array_equal(found[name], array)
        np.testing.assert_array_equal(found["alias"], array)
    with zipfile.ZipFile(tmp_path / "x.npz") as archive:
        assert archive.testzip() is None
        assert archive.read(f"{name}.npy") == _saved(plain.numpy())


def _saved(array: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def test_bfloat16_is_cast_or_refused(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tensors={"x": ArrayTensor.of(np.ones(3, ml_dtypes.bfloat16))})
    with pytest.raises(LossError, match="bfloat16"):
        converter.write(checkpoint, tmp_path / "x.npz")
    converter.write(checkpoint, tmp_path / "x.npz", dtype="float32")
    assert np.load(tmp_path / "x.npz")["x"].dtype == np.float32


def test_names_may_differ_in_case_alone(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", a=np.zeros(2), A=np.ones(2))
    converter.convert(tmp_path / "x.npz", tmp_path / "y.npz")
    with np.load(tmp_path / "y.npz") as found:
        assert (found["a"].sum(), found["A"].sum()) == (0, 2)


def header(text: str, *, major: int = 1, length: int | None = None) -> bytes:
    raw = text.encode("latin-1")
    size = (len(raw) if length is None else length).to_bytes(2 if major == 1 else 4, "little")
    return b"\x93NUMPY" + bytes([major, 0]) + size + raw


GOOD = "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }"
HEADERS = {
    "another version": header(GOOD, major=4),
    "cut short": header(GOOD, length=200),
    "very long": header(GOOD, major=2, length=1 << 30),
    "no dict": header("'descr'"),
    "an expression": header("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 1 + 2), }"),
    "a call": header("{'descr': '<f4', 'fortran_order': False, 'shape': (int('2'), 3), }"),
    "a key less": header("{'descr': '<f4', 'shape': (2, 3), }"),
    "a key twice": header("{'descr': '<f4', 'descr': '<i4', 'fortran_order': False, 'shape': (2, 3), }"),
    "a key more": header("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), 'x': 1}"),
    "a negative extent": header("{'descr': '<f4', 'fortran_order': False, 'shape': (-2, 3), }"),
    "many axes": header("{'descr': '<f4', 'fortran_order': False, 'shape': (" + "1, " * 65 + "), }"),
    "huge": header("{'descr': '<f4', 'fortran_order': False, 'shape': (9999999999999999999, 3), }"),
    "not its size": header("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 2), }"),
    "no utf-8": header("{'descr': '\xff', 'fortran_order': False, 'shape': (2, 3), }", major=3),
}


@pytest.mark.parametrize("kind", HEADERS)
@pytest.mark.parametrize("is_archive", [True, False])
def test_a_malformed_header_is_refused(kind: str, is_archive: bool, tmp_path: Path) -> None:
    content = HEADERS[kind] + bytes(24)
    path = tmp_path / ("x.npz" if is_archive else "x.npy")
    if is_archive:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("x.npy", content)
    else:
        path.write_bytes(content)
    with pytest.raises(ReadError):
        converter.read(path)


def test_a_header_is_read_in_any_order(tmp_path: Path) -> None:
    for major in (1, 2, 3):
        text = "{'shape': (2L, 3L),'fortran_order' :True , 'descr': '<f4'}\n"
        (tmp_path / "x.npy").write_bytes(header(text, major=major) + np.arange(6, dtype="<f4").tobytes())
        found = converter.read(tmp_path / "x.npy").tensor("x").numpy()
        np.testing.assert_array_equal(found, np.arange(6).reshape(3, 2).T)


def test_every_flipped_byte_of_an_archive_is_noticed_or_harmless(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "x.npz", a=ARRAYS["plain"], b=ARRAYS["swapped"])
    good, refused = (tmp_path / "x.npz").read_bytes(), 0
    for position in range(len(good)):
        (tmp_path / "y.npz").write_bytes(good[:position] + bytes([good[position] ^ 0x41]) + good[position + 1 :])
        try:
            found = converter.read(tmp_path / "y.npz")
            held = {name.casefold(): found.tensor(name).numpy() for name in found.names}
        except CkconvError:
            refused += 1
            continue
        for name, array in held.items():
            np.testing.assert_array_equal(array, ARRAYS["plain" if array.shape == (3, 4) else "swapped"], err_msg=name)
    assert refused > len(good) * 3 // 4


def test_headers_are_those_that_numpy_writes() -> None:
    for array in map(np.asarray, ARRAYS.values()):
        plain = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<")).reshape(array.shape)
        tensor = ArrayTensor.of(plain)
        assert _saved(plain).startswith(npy.written_header(tensor.dtype, tensor.shape))

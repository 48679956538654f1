"""`--inputs FILE.npz`: a user's own arrays are checked against the graph, and outputs are compared on them alone."""

from __future__ import annotations

import io
import re
import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import converter
from converter.errors import CkconvError, UsageError
from converter.graphs.description.signature import GraphInput
from converter.graphs.description.user_inputs import user_cases
from converter.model.dtype import DType
from tests.conftest import Ckconv

_IDS = GraphInput(name="ids", dtype=DType.INT64, shape=("batch", "sequence"))
_BOXES = GraphInput(name="a/b", dtype=DType.FLOAT32, shape=("batch", 4))
GOOD: dict[str, Any] = {"ids": np.array([[1, -5]]), "a/b": np.ones((1, 4), np.float32)}


def cases(path: Path, arrays: dict[str, Any]) -> Any:
    np.savez(path / "data.npz", **arrays)
    return user_cases(path / "data.npz", (_IDS, _BOXES))


def test_one_set_and_several(tmp_path: Path) -> None:
    (case,) = cases(tmp_path, GOOD)
    assert case.name == "data.npz"
    np.testing.assert_array_equal(case.arrays["ids"], [[1, -5]])
    found = cases(tmp_path, {f"{name}/{key}": array for name in ("first", "second") for key, array in GOOD.items()})
    assert [each.name for each in found] == ["first", "second"]
    assert set(found[0].arrays) == {"ids", "a/b"}
    (case,) = cases(tmp_path, {**GOOD, "ids": np.asfortranarray(np.array([[1, 2]], np.dtype(">i4")))})
    assert case.arrays["ids"].dtype == np.int64
    np.testing.assert_array_equal(case.arrays["ids"], [[1, 2]])


def test_a_type_is_widened_where_no_value_changes(tmp_path: Path) -> None:
    """int32 where the graph takes int64; float64 has not every int64, which numpy would cast."""
    doubles = (GraphInput(name="x", dtype=DType.FLOAT64, shape=("n",)),)
    for dtype in (np.bool_, np.int32, np.uint32, np.float32):
        np.savez(tmp_path / "data.npz", x=np.ones(2, dtype))
        (case,) = user_cases(tmp_path / "data.npz", doubles)
        assert case.arrays["x"].dtype == np.float64
    for dtype in (np.int64, np.uint64):
        np.savez(tmp_path / "data.npz", x=np.full(2, 2**53 + 1, dtype))
        with pytest.raises(UsageError, match=r"'x' is u?int64, and the graph takes float64\[n\]"):
            user_cases(tmp_path / "data.npz", doubles)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"idz": np.ones(1)}, "'idz' is not an input of the graph; it takes ids, a/b"),
        ({"ids": np.ones((1, 2), np.float32)}, r"'ids' is float32, and the graph takes int64\[batch, sequence\]"),
        ({"a/b": np.ones((1, 4))}, "'a/b' is float64, and the graph takes float32"),
        ({"ids": np.ones(2, np.int64)}, r"'ids' is of shape \[2\]"),
        ({"a/b": np.ones((1, 3), np.float32)}, r"'a/b' is of shape \[1, 3\]"),
        ({"ids": np.ones((2, 2), np.int64)}, "batch is 2 in 'ids' and 1 in 'a/b'"),
        ({"ids": np.array([["x"]])}, "which no input takes"),
        ({"ids": np.array([[None]])}, "which no input takes"),
        ({"other/ids": np.ones((1, 1), np.int64)}, "the set 'other' has no array for the input 'a/b'"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, Any], expected: str, tmp_path: Path) -> None:
    assert len(cases(tmp_path, GOOD)) == 1
    with pytest.raises(UsageError, match=expected):
        cases(tmp_path, GOOD | change)


def _member(header: str, data: bytes = b"") -> bytes:
    text = header.encode().ljust(118) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + data


_HEADER = "{'descr': '%s', 'fortran_order': False, 'shape': %s}"


def _of(*members: tuple[str, bytes]) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in members:
                archive.writestr(name, data)

    return write


def _damaged(path: Path) -> None:
    np.savez(path, **GOOD)
    data = bytearray(path.read_bytes())
    data[150] ^= 0xFF
    path.write_bytes(data)


_NO_FILE = "is not a .npz file, or a damaged one"
_NONE: list[tuple[str, Callable[[Path], None], str]] = [
    ("empty", lambda path: path.write_bytes(b""), _NO_FILE),
    ("no directory", lambda path: path.write_bytes(b"PK\x03\x04" + bytes(40)), _NO_FILE),
    ("a bit flipped", _damaged, _NO_FILE),
    ("no arrays", _of(), "has no arrays"),
    ("no array", _of(("ids.txt", b"1")), "it has 'ids.txt'"),
    ("no header", _of(("ids.npy", b"1")), "'ids' is not an array"),
    ("a header that is code", _of(("ids.npy", _member("{'descr': open}"))), "'ids' is not an array"),
    ("a header of later", _of(("ids.npy", b"\x93NUMPY\x03\x00" + bytes(64))), "'ids' is in version (3, 0) of .npy"),
    ("a pickle", _of(("ids.npy", _member(_HEADER % ("|O", "(1, 1)"), b"cos\nsystem\n."))), "which no input takes"),
    ("huge and empty", _of(("ids.npy", _member(_HEADER % ("<i8", f"({1 << 40}, {1 << 20})")))), "has 0 bytes, not"),
    ("negative", _of(("ids.npy", _member(_HEADER % ("<i8", "(-1, -8)"), bytes(64)))), "which no input takes"),
    ("bytes too few", _of(("ids.npy", _member(_HEADER % ("<i8", "(1, 2)"), bytes(15)))), "has 15 bytes, not those of"),
    (
        "bytes left over",
        _of(("ids.npy", _member(_HEADER % ("<i8", "(1, 2)"), bytes(17)))),
        "has 17 bytes, not those of",
    ),
    ("a bomb", _of(("ids.npy", bytes(1200 << 20))), "is larger than 1024 MiB"),
    ("many members", _of(*((f"{n}/ids.npy", b"") for n in range(5000))), "is larger than 1024 MiB or 4096 arrays"),
]


@pytest.mark.parametrize(("write", "why"), [row[1:] for row in _NONE], ids=[row[0] for row in _NONE])
def test_files_that_are_none_are_refused_cheaply(write: Callable[[Path], None], why: str, tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    write(path)
    tracemalloc.start()
    with pytest.raises(UsageError, match=re.escape(why)) as caught:
        user_cases(path, (_IDS,))
    assert tracemalloc.get_traced_memory()[1] < 64 << 20
    tracemalloc.stop()
    assert "\n" not in str(caught.value)


@pytest.fixture
def dense(tmp_path: Path) -> Path:
    """An ONNX model with a weight that only one of its inputs shows."""
    onnx_models = pytest.importorskip("tests.graphs.onnx_models")
    pytest.importorskip("onnxruntime")
    onnx_models.save(onnx_models.dense(), tmp_path / "x.onnx")
    return tmp_path / "x.onnx"


def test_outputs_are_compared_on_a_users_inputs(dense: Path, tmp_path: Path, ckconv: Ckconv) -> None:
    out, data = tmp_path / "out.onnx", tmp_path / "data.npz"
    values = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    np.savez(data, **{"one/x": values[:1], "many/x": values})
    report = converter.convert(dense, out, inputs=data)
    assert report.verdict.endswith("on the inputs of data.npz alone")
    done = ckconv("verify", dense, out, "--inputs", data)
    assert done.returncode == 0
    assert done.stdout.splitlines()[-1].endswith("on the inputs of data.npz alone")
    assert "data.npz" not in converter.verify(dense, out).verdict

    np.savez(data, y=np.ones((1, 3), np.float32))
    done = ckconv("verify", dense, out, "--inputs", data)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"ckconv: {data}: 'y' is not an input of the graph; it takes x\n"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"inputs": "absent.npz"}, "no such file"),
        ({"inputs": "data.npz", "verify": "weights"}, "--verify weights does not compare"),
        ({"inputs": "data.npz", "to": "safetensors"}, "needs a target that runs"),
        ({"inputs": ("data.npz", "data.npz")}, "is given twice"),
        ({"inputs": "data.npz", "model": "a:b"}, "--model needs --inputs"),
        ({"inputs": "data.npy"}, "'data.npy' says what --model takes, and there is no --model; .* ends in .npz"),
    ],
)
def test_a_file_that_cannot_apply_is_refused(
    options: dict[str, Any], expected: str, dense: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = io.BytesIO()
    np.savez(file, x=np.ones((1, 3), np.float32))
    (tmp_path / "data.npz").write_bytes(file.getvalue())
    with pytest.raises(CkconvError, match=expected) as caught:
        converter.convert(dense, tmp_path / "out", **{"to": "onnx", **options})
    assert caught.value.exit_code == 2
    assert not (tmp_path / "out").exists()

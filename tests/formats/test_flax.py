"""flax: files that flax wrote (fixtures/flax), and files made by hand from the MessagePack specification."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import converter
from converter.encoding import flax_file
from converter.errors import LossError, ReadError
from converter.model.checkpoint import Checkpoint
from converter.model.dtype import DType
from converter.model.tensor import ArrayTensor, FileTensor

FIXTURES = Path(__file__).parents[2] / "fixtures" / "flax"
RESTORED = json.loads((FIXTURES / "restored.json").read_text())


def text(value: str) -> bytes:
    return bytes([0xA0 | len(value)]) + value.encode()


def mapping(**items: bytes) -> bytes:
    return bytes([0x80 | len(items)]) + b"".join(text(key) + value for key, value in items.items())


def array(shape: bytes = b"\x91\x02", dtype: str = "int16", data: bytes = b"\1\0\2\0", code: int = 1) -> bytes:
    body = b"\x93" + shape + text(dtype) + b"\xc4" + bytes([len(data)]) + data
    return b"\xc7" + bytes([len(body), code]) + body


def read(folder: Path, data: bytes) -> Checkpoint:
    (folder / "x.msgpack").write_bytes(data)
    return converter.read(folder / "x.msgpack", from_format="flax")


@pytest.mark.parametrize("name", RESTORED)
def test_reads_what_flax_reads(name: str) -> None:
    checkpoint = converter.read(FIXTURES / f"{name}.msgpack")
    assert checkpoint.dialect == "flax"
    tensors = dict(checkpoint.tensors)
    if name == "arrays":
        kernel = tensors.pop("params/head/kernel")
        assert isinstance(kernel, FileTensor)
        assert (kernel.dtype, kernel.shape) == (DType.INT16, (70, 5, 100))
    found = {
        key: [tensor.dtype.value, list(tensor.shape), tensor.numpy().tobytes().hex()] for key, tensor in tensors.items()
    }
    assert found == RESTORED[name]


@pytest.mark.parametrize("name", ["types", "chunked"])
def test_writes_the_bytes_that_flax_writes(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if name == "chunked":
        monkeypatch.setattr(flax_file, "_CHUNK_BYTES", 100)
    converter.convert(FIXTURES / f"{name}.msgpack", tmp_path / "out.msgpack")
    golden, ours = ((folder).read_bytes() for folder in (FIXTURES / f"{name}.msgpack", tmp_path / "out.msgpack"))
    assert ours.endswith(golden[1:])
    assert ours.startswith(bytes([golden[0] + 1]) + text("__ckconv__"))


def test_names_of_other_dialects_are_nested_and_come_back(tmp_path: Path) -> None:
    one = ArrayTensor.of(np.ones(2, np.float32))
    checkpoint = Checkpoint(tensors={"a.b.weight": one, "a.c/d": one, "": one, "x..": one}, aliases={"tied": "a.c/d"})
    report = converter.write(checkpoint, tmp_path / "x.msgpack")
    assert report.counts == {"mapped": 4, "tied": 1, "dropped": 0, "defaulted": 0}
    assert b"\x81\xa1b\x81\xa6weight" not in (tmp_path / "x.msgpack").read_bytes()  # `a` has two children
    assert b"\x82\xa1b\x81\xa6weight" in (tmp_path / "x.msgpack").read_bytes()
    again = converter.read(tmp_path / "x.msgpack")
    assert (set(again.tensors), again.dialect) == (set(checkpoint.names), "pytorch")


def test_names_that_start_others_are_not_nested(tmp_path: Path) -> None:
    tensors = {name: ArrayTensor.of(np.full(2, len(name), np.int8)) for name in ("a", "a.b", "a.b.c", "z.y")}
    converter.write(Checkpoint(tensors=tensors), tmp_path / "x.msgpack")
    assert text("a.b.c") in (tmp_path / "x.msgpack").read_bytes()
    assert {name: t.numpy()[0] for name, t in converter.read(tmp_path / "x.msgpack").tensors.items()} == {
        "a": 1, "a.b": 3, "a.b.c": 5, "z.y": 3,
    }  # fmt: skip


def test_names_with_a_meaning_are_stored_under_others(tmp_path: Path) -> None:
    names = ["__ckconv__", "__ckconv___", "x.__msgpack_chunked_array__.y", "__msgpack_chunked_array__"]
    tensors = {name: ArrayTensor.of(np.full(2, len(name), np.int8)) for name in names}
    converter.write(Checkpoint(tensors=tensors), tmp_path / "x.msgpack")
    again = converter.read(tmp_path / "x.msgpack")
    assert {name: tensor.numpy()[0] for name, tensor in again.tensors.items()} == {name: len(name) for name in names}


def test_buffers_and_frozen_parameters_come_back(tmp_path: Path) -> None:
    tensors = {name: ArrayTensor.of(np.zeros(1, ml_dtypes.bfloat16)) for name in "abc"}
    checkpoint = Checkpoint(tensors=tensors, buffers=frozenset("a"), frozen=frozenset("b"), dialect="generic")
    converter.write(checkpoint, f"{tmp_path}/out/", to="flax")
    again = converter.read(tmp_path / "out")
    assert (again.buffers, again.frozen, again.dialect) == ({"a"}, {"b"}, "generic")


def test_text_is_a_loss_that_must_be_allowed(tmp_path: Path) -> None:
    read(tmp_path, mapping(w=array(), note=text("hello")))
    with pytest.raises(LossError, match="text"):
        converter.convert(tmp_path / "x.msgpack", tmp_path / "y.safetensors")
    report = converter.convert(tmp_path / "x.msgpack", tmp_path / "y.safetensors", allow_dropped=("note",))
    assert report.counts["dropped"] == 1


STATES = {
    "TrainState": (
        mapping(
            step=b"\x07",
            params=mapping(a=mapping(w=array()), stepped=array()),
            batch_stats=mapping(a=mapping(m=array())),
            opt_state=mapping(x=mapping(count=array(b"\x90", "int32"), mu=mapping(a=mapping(w=array())))),
        ),
        ["params/a/w", "params/stepped", "batch_stats/a/m"],
    ),
    "T5X": (
        mapping(
            version=b"\x03",
            optimizer=mapping(
                target=mapping(a=array()),
                state=mapping(step=array(b"\x90", "int32"), param_states=mapping(a=mapping(v=array()))),
            ),
        ),
        ["version", "optimizer/target/a"],
    ),
    "no state": (mapping(opt_state=mapping(a=array()), step=array()), ["opt_state/a", "step"]),
}


@pytest.mark.parametrize("case", STATES)
def test_the_state_of_an_optimizer_is_no_weight(case: str, tmp_path: Path) -> None:
    data, names = STATES[case]
    checkpoint = read(tmp_path, data)
    assert list(checkpoint.tensors) == names
    report = converter.convert(tmp_path / "x.msgpack", tmp_path / "x.safetensors", from_format="flax")
    assert (report.optimizer.status, report.counts["mapped"]) == (
        "absent" if case == "no state" else "dropped",
        len(names),
    )
    if case != "no state":
        with pytest.raises(LossError, match="the source says too little of it"):
            converter.convert(tmp_path / "x.msgpack", tmp_path / "x.pth", from_format="flax", optimizer="keep")


def chunked(shape: bytes = b"\x81\xa10\x04", chunks: bytes | None = None, marker: bytes = b"\xc3") -> bytes:
    parts = b"\x82\xa10" + array() + b"\xa11" + array() if chunks is None else chunks
    return b"\x83\xd9\x19__msgpack_chunked_array__" + marker + text("shape") + shape + text("chunks") + parts


BAD = {
    "no .shape, dtype, bytes": array(b"\xa3abc"),
    r"impossible shape \[-1\]": array(b"\x91\xff"),
    r"impossible shape \[True\]": array(b"\x91\xc3"),
    "impossible shape \\[1844": array(b"\x91\xcf" + b"\xff" * 8),
    "impossible shape \\[0, 0": array(b"\xdc\x00\x41" + bytes(65)),
    "has 4 bytes, int16.3. needs 6": array(b"\x91\x03"),
    "element type 'V4'": array(b"\x91\x01", "V4"),
    "element type 'object'": array(b"\x91\x02", "object"),
    "scalar that has a shape": array(code=3),
    "extension type 42": array(code=42),
    "no complex number": array(code=2),
    "byte string": b"\xc4\x01a",
    "no array in chunks": chunked(marker=b"\xc2"),
    "4 elements in chunks, its shape .5": chunked(b"\x81\xa10\x05"),
    "chunks that are no arrays": chunked(chunks=b"\x81\xa10\x05"),
    "chunks of several types": chunked(chunks=b"\x82\xa10" + array() + b"\xa11" + array(b"\x91\x04", "int8")),
    "or with several axes": chunked(chunks=b"\x81\xa10" + array(b"\x92\x02\x01")),
}


@pytest.mark.parametrize("problem", BAD)
def test_leaves_that_are_no_arrays_are_refused(problem: str, tmp_path: Path) -> None:
    assert read(tmp_path, mapping(w=array())).tensors["w"].numpy().tolist() == [1, 2]
    assert read(tmp_path, mapping(w=chunked())).tensors["w"].numpy().tolist() == [1, 2, 1, 2]
    with pytest.raises(ReadError, match=problem) as caught:
        read(tmp_path, mapping(w=BAD[problem]))
    assert caught.value.tensor == "w"
    assert caught.value.path == str(tmp_path / "x.msgpack")


def test_keys_that_give_one_name_twice_are_refused(tmp_path: Path) -> None:
    read(tmp_path, b"\x82" + text("a/c") + array() + text("a") + mapping(b=array()))
    with pytest.raises(ReadError, match="name of two arrays"):
        read(tmp_path, b"\x82" + text("a/b") + array() + text("a") + mapping(b=array()))


@pytest.mark.parametrize(
    ("document", "what"),
    [({"dialect": "klingon"}, "dialect"), ({"dialect": "flax", "separator": "%"}, "joins names"),
     ({"dialect": "flax", "names": {"v": "u"}}, "table of names")],
)  # fmt: skip
def test_a_description_that_does_not_fit_is_refused(document: Any, what: str, tmp_path: Path) -> None:
    def described(values: Any) -> bytes:
        data = json.dumps(values).encode()
        return b"\x82" + text("__ckconv__") + array(b"\x91" + bytes([len(data)]), "uint8", data) + text("w") + array()

    assert read(tmp_path, described({"dialect": "flax"})).names == ("w",)
    with pytest.raises(ReadError, match=what):
        read(tmp_path, described(document))


def test_a_description_is_not_read_whatever_its_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = json.dumps({"dialect": "flax"}).encode()
    whole = b"\x82" + text("__ckconv__") + array(b"\x91" + bytes([len(data)]), "uint8", data) + text("w") + array()
    monkeypatch.setattr("converter.formats.flax.LIMIT_BYTES", len(data))
    assert read(tmp_path, whole).names == ("w",)
    monkeypatch.setattr("converter.formats.flax.LIMIT_BYTES", len(data) - 1)
    with pytest.raises(ReadError, match="is no JSON document"):
        read(tmp_path, whole)


@pytest.mark.parametrize("value", [b"\x91\x01", b"\xc0", text("x"), b"\x80"])
def test_a_description_that_is_no_array_is_refused(value: bytes, tmp_path: Path) -> None:
    with pytest.raises(ReadError):
        read(tmp_path, b"\x82" + text("__ckconv__") + value + text("w") + array())


@pytest.mark.parametrize("name", [*RESTORED])
def test_truncation_anywhere_is_refused(name: str, tmp_path: Path) -> None:
    whole = (FIXTURES / f"{name}.msgpack").read_bytes()
    read(tmp_path, whole)
    for length in {*range(0, len(whole), max(1, len(whole) // 200)), len(whole) - 1}:
        with pytest.raises(ReadError):
            read(tmp_path, whole[:length])


def test_a_root_that_is_no_map_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ReadError, match="map of arrays"):
        read(tmp_path, b"\x07")


def test_a_large_sparse_file_opens_in_no_time(tmp_path: Path) -> None:
    length = (1 << 32) - 100
    shape = b"\x91\xce" + length.to_bytes(4, "big")
    body = b"\x93" + shape + text("uint8") + b"\xc6" + length.to_bytes(4, "big")
    path = tmp_path / "x.msgpack"
    path.write_bytes(b"\x81" + text("w") + b"\xc9" + (len(body) + length).to_bytes(4, "big") + b"\x01" + body)
    os.truncate(path, path.stat().st_size + length)
    began = time.process_time()
    assert converter.read(path).tensors["w"].nbytes == length
    assert time.process_time() - began < 1

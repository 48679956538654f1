"""safetensors: goldens from the official library, and the official library on ours."""

from __future__ import annotations

import json
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
from safetensors.numpy import save_file

import converter
from converter.errors import ReadError, SafetyError, UsageError
from converter.model.checkpoint import Checkpoint
from converter.model.dtype import DType
from converter.model.tensor import ArrayTensor


def craft(path: Path, header: Any, data: bytes = b"", *, raw: bytes | None = None) -> Path:
    text = json.dumps(header).encode() if raw is None else raw
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def entry(dtype: str = "F32", shape: Any = (2,), offsets: Any = (0, 8)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def test_reads_what_the_official_library_wrote(tmp_path: Path) -> None:
    arrays = {
        "matrix": np.arange(6, dtype=np.float32).reshape(2, 3),
        "scalar": np.array(3, dtype=np.int64),
        "empty": np.zeros((0, 4), np.float16),
        "flags": np.array([True, False]),
        "wild name \u202e\x1b/..": np.ones(1, np.uint8),
    }
    save_file(arrays, tmp_path / "x.safetensors", metadata={"format": "pt", "by": "hand"})
    checkpoint = converter.read(tmp_path / "x.safetensors")
    assert dict(checkpoint.metadata) == {"by": "hand"}
    assert checkpoint.tensors.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(checkpoint.tensors[name].numpy(), array)


def test_the_official_library_reads_what_we_write(tmp_path: Path) -> None:
    types = [dtype for dtype in DType if dtype not in (DType.COMPLEX128, DType.BOOL)]
    tensors = {dtype.value: ArrayTensor.of(np.arange(5).astype(dtype.numpy)) for dtype in types}
    tensors["bool"] = ArrayTensor.of(np.array([True, False]))
    converter.write(Checkpoint(tensors=tensors), tmp_path / "x.safetensors")
    with safetensors.safe_open(tmp_path / "x.safetensors", "np") as file:
        assert file.metadata()["format"] == "pt"
        assert set(file.keys()) == set(tensors)
        codes = {name: file.get_slice(name).get_dtype() for name in tensors}
        assert (codes["bfloat16"], codes["float8_e4m3fn"], codes["float8_e8m0fnu"]) == ("BF16", "F8_E4M3", "F8_E8M0")
        for name in ("float32", "float16", "int64", "uint16", "complex64", "bool"):
            np.testing.assert_array_equal(file.get_tensor(name), tensors[name].numpy())
    header = (tmp_path / "x.safetensors").read_bytes()
    assert int.from_bytes(header[:8], "little") % 8 == 0


def test_same_tensors_give_the_same_bytes(tmp_path: Path) -> None:
    tensors = {name: ArrayTensor.of(np.full(3, ord(name), np.float32)) for name in "abc"}
    converter.write(Checkpoint(tensors=tensors), tmp_path / "one.safetensors")
    converter.write(Checkpoint(tensors=dict(reversed(tensors.items()))), tmp_path / "two.safetensors")
    assert (tmp_path / "one.safetensors").read_bytes() == (tmp_path / "two.safetensors").read_bytes()


@pytest.mark.parametrize("tied", ["copies", "once"])
def test_ties(tmp_path: Path, tied: str) -> None:
    checkpoint = Checkpoint(tensors={"a": ArrayTensor.of(np.ones(2, np.float32))}, aliases={"b": "a"})
    report = converter.write(checkpoint, tmp_path / "x.safetensors", tied=tied)
    assert report.counts == {"mapped": 1, "tied": 1, "dropped": 0, "defaulted": 0}
    with safetensors.safe_open(tmp_path / "x.safetensors", "np") as file:
        assert list(file.keys()) == (["a", "b"] if tied == "copies" else ["a"])
    assert set(converter.read(tmp_path / "x.safetensors").names) == {"a", "b"}


def test_shards_open_as_huggingface_writes_them(tmp_path: Path) -> None:
    tensors = {f"t{number}": ArrayTensor.of(np.full(25, number, np.float32)) for number in range(5)}
    converter.write(Checkpoint(tensors=tensors), f"{tmp_path}/out/", to="safetensors", max_shard_size="200")
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == 500
    assert sorted(set(index["weight_map"].values())) == [f"model-0000{n}-of-00003.safetensors" for n in (1, 2, 3)]
    for name, shard in index["weight_map"].items():
        with safetensors.safe_open(tmp_path / "out" / shard, "np") as file:
            np.testing.assert_array_equal(file.get_tensor(name), tensors[name].numpy())
    again = converter.read(tmp_path / "out")
    assert {name: tensor.numpy()[0] for name, tensor in again.tensors.items()} == {f"t{n}": n for n in range(5)}


def test_shards_need_a_folder(tmp_path: Path) -> None:
    tensors = {f"t{number}": ArrayTensor.of(np.zeros(25, np.float32)) for number in range(5)}
    with pytest.raises(UsageError, match="several files"):
        converter.write(Checkpoint(tensors=tensors), tmp_path / "x.safetensors", max_shard_size="200")
    assert list(tmp_path.iterdir()) == []


GOOD = {"x": entry()}
BAD = {
    "unknown dtype": {"x": entry("F99")},
    "malformed header entry": {"x": {"dtype": "F32", "shape": [2]}},
    "shape needs": {"x": entry(shape=[3])},
    "malformed shape": {"x": entry(shape=["2"])},
    "malformed shape or range": {"x": entry(offsets=[-8, 0])},
    "leaves a hole": {"x": entry(offsets=[4, 12])},
    "overlaps": {"x": entry(), "y": entry()},
    "past the end": {"x": entry(offsets=[1 << 62, (1 << 62) + 8])},
    "map strings to strings": {"x": entry(), "__metadata__": {"n": 1}},
}


@pytest.mark.parametrize("problem", BAD)
def test_what_the_spec_does_not_allow_is_refused(tmp_path: Path, problem: str) -> None:
    assert converter.read(craft(tmp_path / "good.safetensors", GOOD, bytes(8))).names == ("x",)
    with pytest.raises(ReadError, match=problem) as caught:
        converter.read(craft(tmp_path / "bad.safetensors", BAD[problem], bytes(8)))
    assert "bad.safetensors" in str(caught.value)


BAD_ENTRIES = {
    "another key": (entry() | {"strides": [1]}, "malformed header entry"),
    "no dtype": ({"shape": [2], "data_offsets": [0, 8]}, "malformed header entry"),
    "a list": (["F32", [2], [0, 8]], "malformed header entry"),
    "dtype that is no text": (entry() | {"dtype": ["F32"]}, "unknown dtype"),
    "three offsets": (entry(offsets=[0, 8, 8]), "malformed shape or range"),
    "one offset": (entry(offsets=[8]), "malformed shape or range"),
    "offsets that go back": (entry(offsets=[8, 0]), "has -8 bytes"),
    "a truth for an extent": (entry(shape=[True, 2]), "malformed shape or range"),
    "a fraction": (entry(shape=[2.0]), "malformed shape or range"),
    "a shape that is a number": (entry() | {"shape": 2}, "malformed shape or range"),
    "too many axes": (entry(shape=[1] * 64 + [2]), "malformed shape or range"),
    "an extent of 64 bits": (entry(shape=[1 << 63, 0], offsets=[0, 0]), "malformed shape or range"),
}


@pytest.mark.parametrize("case", BAD_ENTRIES)
def test_each_part_of_an_entry_is_checked(tmp_path: Path, case: str) -> None:
    assert converter.read(craft(tmp_path / "good.safetensors", GOOD, bytes(8))).names == ("x",)
    most_axes = {"x": entry(shape=[1] * 63 + [2])}
    assert converter.read(craft(tmp_path / "axes.safetensors", most_axes, bytes(8))).names == ("x",)
    bad, what = BAD_ENTRIES[case]
    with pytest.raises(ReadError, match=what) as caught:
        converter.read(craft(tmp_path / "bad.safetensors", {"x": bad}, bytes(8)))
    assert caught.value.tensor == "x"


def test_bytes_after_the_last_tensor_are_refused(tmp_path: Path) -> None:
    assert converter.read(craft(tmp_path / "x.safetensors", GOOD, bytes(8))).names == ("x",)
    with pytest.raises(ReadError, match="holds 9 bytes of data, its header describes 8"):
        converter.read(craft(tmp_path / "x.safetensors", GOOD, bytes(9)))


def test_what_is_written_is_aligned_and_says_pt(tmp_path: Path) -> None:
    """safetensors maps tensors where they stand, and transformers takes no other `format`."""
    arrays = {"a": np.ones(3, np.int8), "b": np.ones(3, np.float64), "c": np.ones(3, np.float16), "d": np.ones(1, "f4")}
    checkpoint = Checkpoint(
        tensors={name: ArrayTensor.of(array) for name, array in arrays.items()}, metadata={"format": "tf", "x": "y"}
    )
    for length in range(8):  # of what makes the header longer
        tensors = {name + "x" * length: tensor for name, tensor in checkpoint.tensors.items()}
        converter.write(replace(checkpoint, tensors=tensors), tmp_path / f"{length}.safetensors")
        raw = (tmp_path / f"{length}.safetensors").read_bytes()
        start = 8 + int.from_bytes(raw[:8], "little")
        header = json.loads(raw[8:start])
        assert header.pop("__metadata__") | {"ckconv": ""} == {"format": "pt", "x": "y", "ckconv": ""}
        assert start % 8 == 0
        for name, described in header.items():
            assert (start + described["data_offsets"][0]) % arrays[name[0]].itemsize == 0


def test_a_file_beside_the_one_model_of_a_folder_is_refused(tmp_path: Path) -> None:
    craft(tmp_path / "a.safetensors", {"x": entry()}, bytes(8))
    assert converter.read(tmp_path).names == ("x",)
    assert converter.read(index(tmp_path, {"x": "a.safetensors"})).names == ("x",)
    craft(tmp_path / ".hidden.safetensors", {"x": entry()}, bytes(8))
    assert converter.read(tmp_path).names == ("x",)
    craft(tmp_path / "b.safetensors", {"x": entry()}, bytes(8))
    with pytest.raises(ReadError, match="is another model than the one"):
        converter.read(tmp_path)
    (tmp_path / "model.safetensors.index.json").unlink()
    with pytest.raises(ReadError, match=r"holds several models: a\.safetensors, b\.safetensors"):
        converter.read(tmp_path)
    (tmp_path / "b.safetensors").unlink()
    for name in ("one", "two"):
        (tmp_path / f"{name}.safetensors.index.json").write_text(json.dumps({"weight_map": {"x": "a.safetensors"}}))
    with pytest.raises(ReadError, match="holds several models: one"):
        converter.read(tmp_path)


@pytest.mark.parametrize("cut", [1, 8, 9, 40, 90])
def test_truncation_anywhere_is_refused(tmp_path: Path, cut: int) -> None:
    whole = craft(tmp_path / "good.safetensors", GOOD, bytes(8))
    converter.read(whole)
    (tmp_path / "cut.safetensors").write_bytes(whole.read_bytes()[:-cut])
    with pytest.raises(ReadError, match=r"cut\.safetensors"):
        converter.read(tmp_path / "cut.safetensors", from_format="safetensors")


def test_a_name_twice_is_refused_whatever_its_range(tmp_path: Path) -> None:
    raw = b'{"x":%b,"x":%b}' % ((json.dumps(entry()).encode(),) * 2)
    with pytest.raises(ReadError, match="twice"):
        converter.read(craft(tmp_path / "x.safetensors", None, bytes(8), raw=raw))


def index(folder: Path, weight_map: Any) -> Path:
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return folder


def test_a_file_whose_tensors_have_no_element_is_one(tmp_path: Path) -> None:
    """Nothing stands after its header."""
    save_file({"empty": np.zeros((0, 3), np.float32)}, tmp_path / "x.safetensors")
    assert converter.read(tmp_path / "x.safetensors").tensors["empty"].shape == (0, 3)


def test_an_index_is_held_to_its_word(tmp_path: Path) -> None:
    craft(tmp_path / "a.safetensors", {"x": entry()}, bytes(8))
    assert converter.read(index(tmp_path, {"x": "a.safetensors"})).names == ("x",)
    for weight_map, error, message in (
        ({"x": "a.safetensors", "y": "a.safetensors"}, ReadError, "is not in this shard"),
        ({"y": "a.safetensors"}, ReadError, "does not say so"),
        ({"x": "missing.safetensors"}, ReadError, "No such file"),
        ({"x": ["a.safetensors"]}, ReadError, "not a file name"),
        ({"x": "../outside.safetensors"}, SafetyError, "outside its folder"),
        ({"x": "/etc/passwd"}, SafetyError, "outside its folder"),
        ({"x": "file:///etc/passwd"}, SafetyError, "no checkpoint does"),
        ({"x": "model.safetensors.index.json"}, ReadError, "is mapped to the index itself"),
    ):
        with pytest.raises(error, match=message):
            converter.read(index(tmp_path, weight_map))


def test_a_shard_may_be_a_link_inside_the_model_only(tmp_path: Path) -> None:
    snapshot = tmp_path / "model" / "snapshots" / "1"
    blobs = tmp_path / "model" / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    craft(blobs / "abc", {"x": entry()}, bytes(8))
    craft(tmp_path / "outside", {"x": entry()}, bytes(8))
    (snapshot / "a.safetensors").symlink_to("../../blobs/abc")
    assert converter.read(index(snapshot, {"x": "a.safetensors"})).names == ("x",)
    (snapshot / "a.safetensors").unlink()
    (snapshot / "a.safetensors").symlink_to(tmp_path / "outside")
    with pytest.raises(SafetyError, match="link that leaves"):
        converter.read(snapshot)


def test_a_huge_sparse_file_opens_in_no_time(tmp_path: Path) -> None:
    size = 256 << 30
    path = craft(tmp_path / "x.safetensors", {"x": entry("U8", [size], [0, size])})
    os.truncate(path, path.stat().st_size + size)
    began = time.process_time()
    assert converter.read(path).tensors["x"].nbytes == size
    assert time.process_time() - began < 1

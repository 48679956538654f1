from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

from converter.encoding import crc32c, protobuf
from converter.encoding.leveldb_table import build_table, read_table
from converter.encoding.tensor_bundle import OBJECT_GRAPH_KEY, bundle_files, object_names, read_bundle
from converter.encoding.tensor_slices import Extent, slice_key
from converter.errors import CkconvError, ReadError, SafetyError, WriteError
from converter.model.dtype import DType
from converter.model.file import LocalFile
from converter.model.output import Late, OutputFile, Watched
from converter.model.tensor import ArrayTensor, Tensor

tf = pytest.importorskip("tensorflow")

Raw = dict[bytes, bytes]
NUMPY_NAMES = [dtype for dtype in DType if dtype is not DType.FLOAT8_E8M0FNU]
TF_VARIABLES = [dtype for dtype in NUMPY_NAMES if not dtype.value.endswith("fnuz")]


def arrays() -> dict[str, np.ndarray[Any, Any]]:
    """One array of every type, random bits and so NaN payloads too, and some odd shapes and names."""
    generator = np.random.default_rng(0)
    found = {f"type/{dtype.value}": bits(generator, dtype, (3, 5)) for dtype in TF_VARIABLES}
    found |= {"scalar": np.array(7, np.int64), "empty": np.zeros((0, 3), np.float32), "a": np.ones(1, np.float16)}
    found |= {"../../x": np.ones(2, np.float32), "a//b": np.ones(2, np.int8), "café": np.arange(300, dtype=np.int16)}
    return found | {"large": generator.standard_normal((300, 100)).astype(np.float32)}


def bits(generator: np.random.Generator, dtype: DType, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    raw = generator.integers(0, 2 if dtype is DType.BOOL else 256, (*shape, dtype.itemsize), dtype=np.uint8)
    return raw.view(dtype.numpy).reshape(shape)


def save(prefix: Path, named: Mapping[str, Any], slices: Mapping[str, str] | None = None) -> None:
    """Write a bundle with TensorFlow's own kernel; `slices` are its shape-and-slice specifications."""
    prefix.parent.mkdir(parents=True, exist_ok=True)
    specifications = [(slices or {}).get(name, "") for name in named]
    names = [name.split("#")[0] for name in named]
    tensors = [tf.constant(array) for array in named.values()]
    tf.raw_ops.SaveV2(prefix=str(prefix), tensor_names=names, shape_and_slices=specifications, tensors=tensors)


def write_files(folder: Path, files: tuple[OutputFile, ...]) -> None:
    """Write pieces as the pipeline does: checksums fed on the way, late pieces last."""
    for file in files:
        with (folder / file.name).open("wb") as out:
            for piece in file.pieces:
                data = rendered(piece)
                out.write(data)
        assert (folder / file.name).stat().st_size == file.nbytes


def rendered(piece: Any) -> bytes:
    if isinstance(piece, Late):
        assert len(piece.render()) == piece.nbytes
        return piece.render()
    if isinstance(piece, Watched):
        data = rendered(piece.piece)
        half = len(data) // 2
        piece.sum.update(memoryview(data)[:half])
        piece.sum.update(data[half:])
        return data
    if isinstance(piece, Tensor):
        out = BytesIO()
        piece.write_to(out)
        return out.getvalue()
    assert isinstance(piece, bytes)
    return piece


def assert_same(tensors: Mapping[str, Tensor], expected: Mapping[str, np.ndarray[Any, Any]]) -> None:
    assert set(tensors) == set(expected)
    for name, array in expected.items():
        read = tensors[name].numpy()
        assert (read.dtype, read.shape) == (array.dtype, array.shape), name
        assert read.tobytes() == array.tobytes(), name


def test_reads_what_tensorflow_writes(tmp_path: Path) -> None:
    save(tmp_path / "c", arrays())
    assert_same(read_bundle(tmp_path / "c").tensors, arrays())


def test_reads_several_data_files(tmp_path: Path) -> None:
    first = dict(list(arrays().items())[::2])
    second = dict(list(arrays().items())[1::2])
    save(tmp_path / "one", first)
    save(tmp_path / "two", second)
    tf.raw_ops.MergeV2Checkpoints(
        checkpoint_prefixes=[str(tmp_path / "one"), str(tmp_path / "two")],
        destination_prefix=str(tmp_path / "c"),
        delete_old_dirs=False,
    )
    bundle = read_bundle(tmp_path / "c")
    assert len(bundle.shards) == 2
    assert_same(bundle.tensors, arrays())


def test_reads_text(tmp_path: Path) -> None:
    texts = [b"", b"x" * 200, b"\0\xff", "é".encode()]
    save(tmp_path / "c", {"t": np.array(texts).reshape(2, 2), "one": b"a" * 70_000, "none": np.zeros((0,), "S1")})
    bundle = read_bundle(tmp_path / "c")
    assert bundle.tensors == {}
    assert bundle.entries["t"].is_text
    assert bundle.text("t") == [b"", b"x" * 200, b"\0\xff", "é".encode()]
    assert bundle.text("one") == [b"a" * 70_000]
    assert bundle.text("none") == []


def test_damaged_text_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "c", {"t": np.array([b"abc", b"defg"])})
    assert read_bundle(tmp_path / "c").text("t") == [b"abc", b"defg"]
    data = tmp_path / "c.data-00000-of-00001"
    good = data.read_bytes()
    for position in range(len(good)):
        data.write_bytes(good[:position] + bytes([good[position] ^ 1]) + good[position + 1 :])
        with pytest.raises(ReadError):
            read_bundle(tmp_path / "c").text("t")


SPECIFICATIONS = {
    "rows": {"v#0": "9000 2 0,70:-", "v#1": "9000 2 70,8200:-", "v#2": "9000 2 8270,730:-"},
    "columns": {"v#0": "3 20 -:0,1", "v#1": "3 20 -:1,19"},
    "grid": {"v#0": "4 6 0,1:0,2", "v#1": "4 6 0,1:2,4", "v#2": "4 6 1,3:0,5", "v#3": "4 6 1,3:5,1"},
    "whole": {"v#0": "4 6 -:-"},
}


@pytest.mark.parametrize("case", SPECIFICATIONS)
def test_reads_partitioned_variables(case: str, tmp_path: Path) -> None:
    specifications = SPECIFICATIONS[case]
    shape = tuple(int(extent) for extent in specifications["v#0"].split()[:2])
    whole = np.arange(shape[0] * shape[1], dtype=np.float32).reshape(shape)
    slices = {name: whole[_window(text)] for name, text in specifications.items()}
    save(tmp_path / "c", {"a": np.ones(2, np.int32), **slices, "w": np.zeros(1)}, specifications)
    assert_same(read_bundle(tmp_path / "c").tensors, {"a": np.ones(2, np.int32), "v": whole, "w": np.zeros(1)})


def _window(specification: str) -> tuple[slice, ...]:
    extents = [
        None if text == "-" else [int(n) for n in text.split(",")] for text in specification.split()[-1].split(":")
    ]
    return tuple(slice(None) if extent is None else slice(extent[0], sum(extent)) for extent in extents)


@pytest.mark.parametrize(
    ("left_out", "reason"), [("v#0", "no grid"), ("v#1", "no grid"), ("v#3", "no grid")], ids=["first", "inner", "last"]
)
def test_partitions_with_a_gap_are_refused(left_out: str, reason: str, tmp_path: Path) -> None:
    specifications = dict(SPECIFICATIONS["grid"])
    whole = np.arange(24, dtype=np.float32).reshape(4, 6)
    slices = {name: whole[_window(text)] for name, text in specifications.items()}
    save(tmp_path / "good", slices, specifications)
    assert_same(read_bundle(tmp_path / "good").tensors, {"v": whole})
    del slices[left_out]
    save(tmp_path / "c", slices, specifications)
    with pytest.raises(ReadError, match=reason) as caught:
        read_bundle(tmp_path / "c")
    assert caught.value.tensor == "v"


def test_slices_are_of_the_tensor_that_says_so(tmp_path: Path) -> None:
    whole = np.arange(60, dtype=np.float32).reshape(3, 20)
    specifications = SPECIFICATIONS["columns"]
    save(tmp_path / "c", {name: whole[_window(text)] for name, text in specifications.items()}, specifications)
    assert_same(read_bundle(tmp_path / "c").tensors, {"v": whole})
    first = slice_key("v", (Extent(), Extent(start=0, length=1)))

    def without_slice(raw: Raw) -> Raw:
        return {key: value for key, value in raw.items() if key != first}

    def without_tensor(raw: Raw) -> Raw:
        return {key: value for key, value in raw.items() if key != b"v"}

    assert first in raw_entries(tmp_path / "c")
    for edit, reason in [(without_slice, "not there"), (without_tensor, "belong to no tensor")]:
        with pytest.raises(ReadError, match=reason):
            read_bundle(edited(tmp_path / "c", tmp_path / edit.__name__, edit))


def test_reads_big_endian_files_as_tensorflow_does(tmp_path: Path) -> None:
    named = {"f": np.array([[1.5, -2.25]], np.float32), "i": np.array([1, 2**40]), "b": np.array([3, 4], np.uint8)}
    named |= {"h": np.array([1, 2], ml_dtypes.bfloat16), "c": np.array([1 + 2j], np.complex64)}
    save(
        tmp_path / "c",
        {name: array.view(swappable(array)).byteswap().view(array.dtype) for name, array in named.items()},
    )
    edited(tmp_path / "c", tmp_path / "big", lambda raw: raw | {b"": raw[b""] + protobuf.number_field(2, 1)})
    reader = tf.train.load_checkpoint(str(tmp_path / "big"))
    for name in ("f", "i", "b", "c"):
        np.testing.assert_array_equal(reader.get_tensor(name), named[name])
    assert_same(read_bundle(tmp_path / "big").tensors, named)


def swappable(array: np.ndarray[Any, Any]) -> str:
    return {"bfloat16": "u2", "complex64": "f4"}.get(array.dtype.name, array.dtype.str)


def test_every_tensor_is_checked_when_it_is_read(tmp_path: Path) -> None:
    save(tmp_path / "c", arrays())
    assert_same(read_bundle(tmp_path / "c").tensors, arrays())
    data = tmp_path / "c.data-00000-of-00001"
    content = bytearray(data.read_bytes())
    entry = read_bundle(tmp_path / "c").entries["large"]
    content[entry.offset + 60_000] ^= 1
    data.write_bytes(content)
    tensors = read_bundle(tmp_path / "c").tensors
    assert tensors["café"].numpy()[2] == 2
    for read in (tensors["large"].numpy, lambda: tensors["large"].take(axis=0, start=0, stop=1).numpy()):
        with pytest.raises(ReadError, match="CRC mismatch"):
            read()


def raw_entries(prefix: Path) -> Raw:
    return {key: bytes(value) for key, value in read_table(LocalFile(f"{prefix}.index"))}


def edited(prefix: Path, new_prefix: Path, edit: Callable[[Raw], Raw]) -> Path:
    """Copy a bundle, its index edited and put together again with good checksums."""
    Path(f"{new_prefix}.index").write_bytes(build_table(sorted(edit(raw_entries(prefix)).items())))
    shutil.copy(f"{prefix}.data-00000-of-00001", f"{new_prefix}.data-00000-of-00001")
    return new_prefix


def entry(*, number: int = 1, dims: tuple[int, ...] = (2, 3), shard: int = 0, offset: int = 0, size: int = 24) -> bytes:
    shape = protobuf.content_fields(2, [protobuf.number_field(1, extent) for extent in dims])
    values = [(3, shard), (4, offset), (5, size)]
    return (
        protobuf.number_field(1, number)
        + protobuf.content_field(2, shape)
        + b"".join(protobuf.number_field(field, value) for field, value in values)
        + protobuf.fixed32_field(6, crc32c.mask(crc32c.update(np.arange(6, dtype=np.float32).tobytes())))
    )


VERSION_99 = protobuf.content_field(3, protobuf.number_field(1, 99) + protobuf.number_field(2, 99))
HOSTILE = {
    "negative dimension": ({b"w": entry(dims=(-2, -3))}, "impossible shape"),
    "dimensions that wrap": ({b"w": entry(dims=(2**32, 2**32))}, "an entry that contradicts itself"),
    "unknown type": ({b"w": entry(number=99)}, "unknown type number 99"),
    "no type": ({b"w": entry(number=0)}, "unknown type number 0"),
    "negative size": ({b"w": entry(size=-24)}, "an entry that contradicts itself"),
    "size is not the shape's": ({b"w": entry(size=20)}, "an entry that contradicts itself"),
    "negative offset": ({b"w": entry(offset=-4)}, "an entry that contradicts itself"),
    "past the data": ({b"w": entry(offset=16)}, "has 36 bytes, the index tells of 40"),
    "no such data file": ({b"w": entry(shard=7)}, "data file 7 of 1"),
    "negative data file": ({b"w": entry(shard=-1)}, "data file -1 of 1"),
    "overlap": ({b"w": entry(), b"x": entry(offset=12)}, "overlap at byte 12"),
    "same range twice": ({b"w": entry(), b"x": entry()}, "overlap at byte 0"),
    "giant rank": ({b"w": entry(dims=(1,) * 40 + (6,))}, "impossible shape"),
    "not UTF-8": ({b"\xff": entry()}, "not UTF-8"),
    "entry is no message": ({b"w": b"\xff\xff"}, "inside a number"),
    "future version": ({b"": protobuf.number_field(1, 1) + VERSION_99}, "readers of version 99"),
    "no data files": ({b"": b""}, "says it has 0 data files"),
    "too many data files": ({b"": protobuf.number_field(1, 2**31)}, "says it has 2147483648 data files"),
    "other byte order": ({b"": protobuf.number_field(1, 1) + protobuf.number_field(2, 2)}, "byte order 2"),
    "data file missing": ({b"": protobuf.number_field(1, 2)}, "needs bad.data-00000-of-00002, which is not there"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_indexes_are_refused(case: str, tmp_path: Path) -> None:
    weight = np.arange(6, dtype=np.float32).reshape(2, 3)
    save(tmp_path / "c", {"w": weight, "x": np.zeros(3, np.float32)})
    copy = edited(tmp_path / "c", tmp_path / "copy", lambda raw: raw | {b"w": entry()})
    assert_same(read_bundle(copy).tensors, {"w": weight, "x": np.zeros(3, np.float32)})
    changes, what = HOSTILE[case]
    bad = edited(tmp_path / "c", tmp_path / "bad", lambda raw: raw | changes)
    with pytest.raises(ReadError, match=what) as caught:
        read_bundle(bad)
    assert str(caught.value.path).startswith(str(tmp_path / "bad"))


def test_nothing_is_read_before_it_is_asked_for(tmp_path: Path) -> None:
    save(tmp_path / "c", {"w": np.zeros(6, np.float32)})
    huge = entry(dims=(2**26, 2**10), size=2**38)
    sparse = edited(tmp_path / "c", tmp_path / "sparse", lambda raw: raw | {b"w": huge})
    os.truncate(f"{sparse}.data-00000-of-00001", 2**38)
    assert read_bundle(sparse).tensors["w"].shape == (2**26, 2**10)


def test_header_must_come_first(tmp_path: Path) -> None:
    save(tmp_path / "c", {"w": np.zeros(2)})
    assert_same(read_bundle(tmp_path / "c").tensors, {"w": np.zeros(2)})
    headless = edited(tmp_path / "c", tmp_path / "bad", lambda raw: {b"w": raw[b"w"]})
    with pytest.raises(ReadError, match="header"):
        read_bundle(headless)


def test_quantized_types_are_listed_and_are_no_tensors(tmp_path: Path) -> None:
    save(tmp_path / "c", {"w": np.zeros(6, np.float32)})
    bundle = read_bundle(edited(tmp_path / "c", tmp_path / "q", lambda raw: raw | {b"w": entry(number=11)}))
    assert (bundle.entries["w"].type_name, bundle.entries["w"].dtype, bundle.tensors) == ("qint8", None, {})


@pytest.mark.parametrize("name", ["c.index", "c.data-00000-of-00001"])
def test_links_that_leave_the_folder_are_refused(name: str, tmp_path: Path) -> None:
    save(tmp_path / "in" / "c", {"w": np.zeros(2)})
    assert_same(read_bundle(tmp_path / "in" / "c").tensors, {"w": np.zeros(2)})
    (tmp_path / "in" / name).rename(tmp_path / name)
    (tmp_path / "in" / name).symlink_to(tmp_path / name)
    with pytest.raises(SafetyError):
        read_bundle(tmp_path / "in" / "c")


def test_tensorflow_reads_what_is_written(tmp_path: Path) -> None:
    graph = tf.train.Checkpoint(a=tf.Variable(1.0))
    graph.write(str(tmp_path / "theirs"))
    object_graph = read_bundle(tmp_path / "theirs").text(OBJECT_GRAPH_KEY)[0]
    tensors = {name: ArrayTensor.of(array) for name, array in arrays().items()}
    many = {f"layer/{number}/w": ArrayTensor.of(np.full(2, number, np.int32)) for number in range(5000)}
    write_files(tmp_path, bundle_files("ours", tensors | many, object_graph))
    reader = tf.train.load_checkpoint(str(tmp_path / "ours"))
    assert set(reader.get_variable_to_shape_map()) == {*tensors, *many, OBJECT_GRAPH_KEY}
    for name, array in arrays().items():
        read = reader.get_tensor(name)
        assert (read.dtype, read.shape, read.tobytes()) == (array.dtype, array.shape, array.tobytes()), name
    assert all((reader.get_tensor(f"layer/{n}/w") == n).all() for n in range(0, 5000, 250))
    assert reader.get_tensor(OBJECT_GRAPH_KEY) == object_graph
    bundle = read_bundle(tmp_path / "ours")
    assert_same({name: bundle.tensors[name] for name in tensors}, arrays())
    assert bundle.text(OBJECT_GRAPH_KEY) == [object_graph]


def test_no_object_graph_and_types_that_variables_lack(tmp_path: Path) -> None:
    generator = np.random.default_rng(1)
    named = {dtype.value: bits(generator, dtype, (4,)) for dtype in NUMPY_NAMES}
    tensors = {name: ArrayTensor.of(array) for name, array in named.items()}
    write_files(tmp_path, bundle_files("ours", tensors, None))
    assert_same(read_bundle(tmp_path / "ours").tensors, named)
    assert set(tf.train.load_checkpoint(str(tmp_path / "ours")).get_variable_to_dtype_map()) == set(named)


@pytest.mark.parametrize("name", ["", "\0x", OBJECT_GRAPH_KEY])
def test_names_that_mean_something_else_are_not_written(name: str) -> None:
    tensor = ArrayTensor.of(np.zeros(1))
    bundle_files("ours", {"fine": tensor}, None)
    with pytest.raises(WriteError):
        bundle_files("ours", {name: tensor}, None)


def test_types_that_tensorflow_lacks_are_not_written() -> None:
    with pytest.raises(WriteError, match="float8_e8m0fnu"):
        bundle_files("ours", {"w": ArrayTensor.of(np.zeros(1, ml_dtypes.float8_e8m0fnu))}, None)


def test_object_names(tmp_path: Path) -> None:
    layer = tf.Module()
    layer.kernel = tf.Variable(tf.ones((2, 2)), name="dense/kernel")
    tf.train.Checkpoint(layer=layer, same=layer).write(str(tmp_path / "c"))
    graph = read_bundle(tmp_path / "c").text(OBJECT_GRAPH_KEY)[0]
    assert object_names(graph, path=tmp_path) == {"layer/kernel/.ATTRIBUTES/VARIABLE_VALUE": "dense/kernel"}
    with pytest.raises(CkconvError):
        object_names(graph[:-1], path=tmp_path)


def test_a_key_with_two_names_is_refused(tmp_path: Path) -> None:
    def node(name: str) -> bytes:
        attribute = protobuf.content_field(2, name) + protobuf.content_field(3, "key")
        return protobuf.content_field(1, protobuf.content_field(2, attribute))

    assert object_names(node("a") + node("a"), path=tmp_path) == {"key": "a"}
    with pytest.raises(ReadError, match="called both 'a' and 'b'"):
        object_names(node("a") + node("b"), path=tmp_path)


@pytest.mark.parametrize(("producer", "least", "is_read"), [(1, 0, True), (2, 1, True), (2, 2, False), (-1, 0, False)])
def test_versions(producer: int, least: int, is_read: bool, tmp_path: Path) -> None:
    save(tmp_path / "c", {"w": np.ones(6, np.float32).reshape(2, 3)})
    versions = protobuf.number_field(1, producer) + (protobuf.number_field(2, least) if least else b"")
    header = protobuf.number_field(1, 1) + protobuf.content_field(3, versions)
    edited(tmp_path / "c", tmp_path / "v", lambda raw: raw | {b"": header})
    if is_read:
        assert read_bundle(tmp_path / "v").tensors["w"].shape == (2, 3)
    else:
        with pytest.raises(ReadError, match=f"is of version {producer}, for readers of version {least}"):
            read_bundle(tmp_path / "v")


def test_slices_are_of_the_type_and_rank_that_their_tensor_says(tmp_path: Path) -> None:
    whole = np.arange(60, dtype=np.float32).reshape(3, 20)
    specifications = SPECIFICATIONS["columns"]
    save(tmp_path / "c", {name: whole[_window(text)] for name, text in specifications.items()}, specifications)
    assert_same(read_bundle(tmp_path / "c").tensors, {"v": whole})
    key = slice_key("v", (Extent(), Extent(start=0, length=1)))
    raw = raw_entries(tmp_path / "c")
    for number, dims, size in ((3, (3, 1), 12), (22, (3, 1), 12), (1, (1, 3), 12), (1, (3,), 12)):
        changed = raw | {key: entry(number=number, dims=dims, size=size)}
        edited(tmp_path / "c", tmp_path / "bad", lambda _, changed=changed: changed)
        with pytest.raises(ReadError, match="another type or shape than it says") as caught:
            read_bundle(tmp_path / "bad")
        assert caught.value.tensor == "v"

"""HDF5: what h5py writes is read by position, what is written here h5py reads, and nothing leads out of a file."""

from __future__ import annotations

import math
import os
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import ml_dtypes
import numpy as np
import pytest

from converter.encoding import hdf5
from converter.encoding.hdf5 import layers as hdf5_layers
from converter.encoding.hdf5.names import escaped, unescaped
from converter.errors import CkconvError, ReadError, SafetyError
from converter.model.dtype import DType
from converter.model.file import LocalFile
from converter.model.output import Late, Piece
from converter.model.tensor import ArrayTensor, ComputedTensor, FileTensor, Tensor

STORAGES: dict[str, dict[str, Any]] = {
    "whole": {},
    "chunks": {"chunks": (3, 4)},
    "gzip": {"chunks": (3, 4), "compression": "gzip"},
    "gzip-shuffle-fletcher": {"chunks": (5, 3), "compression": "gzip", "shuffle": True, "fletcher32": True},
    "lzf": {"chunks": (40, 7), "maxshape": (None, 7), "compression": "lzf", "shuffle": True},
    "fletcher": {"chunks": (7, 7), "fletcher32": True},
}
DTYPES = ["<f4", ">f8", "<f2", ">i2", "u1", "?", "<c8", ">c16", "<u8"]


def tensors_of(path: Path) -> dict[str, Tensor]:
    found = {}
    for place, dataset in hdf5.read(LocalFile(path)).datasets():
        assert dataset.tensor is not None
        found["/".join(place)] = dataset.tensor
    return found


def put(pieces: list[Piece], path: Path) -> Path:
    with path.open("wb") as file:
        for piece in pieces:
            match piece:
                case bytes():
                    file.write(piece)
                case Late():
                    file.write(piece.render())
                case Tensor():
                    piece.write_to(file)
    return path


@pytest.mark.parametrize("userblock", [0, 512])
@pytest.mark.parametrize("storage", STORAGES)
def test_reads_what_h5py_writes(storage: str, userblock: int, tmp_path: Path) -> None:
    generator, expected = np.random.default_rng(1), {}
    with h5py.File(tmp_path / "x.h5", "w", userblock_size=userblock) as file:
        for dtype in DTYPES:
            array = (generator.normal(size=(17, 7)) * 5).round(1).astype(dtype)
            array[3:9] = array[3]
            file.create_dataset(f"group/{dtype}", data=array, **STORAGES[storage])
            expected[f"group/{dtype}"] = array
    for name, tensor in tensors_of(tmp_path / "x.h5").items():
        found = tensor.numpy()
        assert np.array_equal(found, expected[name])
        assert found.dtype == expected[name].dtype.newbyteorder("<")
        if storage == "whole" and not name.startswith("group/>"):
            assert isinstance(tensor, FileTensor)


@pytest.mark.parametrize("seed", range(5))
def test_lzf_of_what_repeats(seed: int, tmp_path: Path) -> None:
    generator = np.random.default_rng(seed)
    array = np.repeat(generator.integers(0, 4, 3000).astype("u1"), generator.integers(1, 400, 3000))
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("x", data=array, compression="lzf")
    assert np.array_equal(tensors_of(tmp_path / "x.h5")["x"].numpy(), array)


def test_reads_scalars_fills_and_compact_data(tmp_path: Path) -> None:
    compact = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    compact.set_layout(h5py.h5d.COMPACT)
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["scalar"] = np.float32(3)
        file.create_dataset("empty", shape=(0, 3), dtype="f4")
        file.create_dataset("never", shape=(4, 4), dtype=">f4", fillvalue=3)
        file.create_dataset("partly", shape=(4, 5), chunks=(2, 2), dtype="f4", fillvalue=7)[0, 0] = 1
        file.create_dataset("compact", data=np.arange(5, dtype=">f4"), dcpl=compact)
        expected = {name: file[name][()] for name in file}
    found = tensors_of(tmp_path / "x.h5")
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        assert np.array_equal(tensor.numpy(), expected[name])


def test_bfloat16_as_keras_and_as_a_float_type(tmp_path: Path) -> None:
    array = np.arange(6).astype(ml_dtypes.bfloat16)
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("opaque", data=array.view("V2")).attrs["dtype"] = "bfloat16"
        kind = h5py.h5t.IEEE_F32LE.copy()
        kind.set_fields(15, 7, 8, 0, 7)
        kind.set_size(2)
        kind.set_ebias(127)
        space = h5py.h5s.create_simple((6,))
        dataset = h5py.h5d.create(file.id, b"float", kind, space)
        dataset.write(h5py.h5s.ALL, h5py.h5s.ALL, array.view("u2"), kind)
    for tensor in tensors_of(tmp_path / "x.h5").values():
        assert tensor.dtype is DType.BFLOAT16
        assert np.array_equal(tensor.numpy(), array)


def test_two_links_to_one_dataset_are_one_object(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["a"] = np.arange(3.0)
        file["b/c"] = file["a"]
    (_, first), (_, second) = hdf5.read(LocalFile(tmp_path / "x.h5")).datasets()
    assert first is second


def external(file: h5py.File) -> None:
    file["leak"] = h5py.ExternalLink("other.h5", "/secret")


def soft(file: h5py.File) -> None:
    file["leak"] = h5py.SoftLink("/x")


def external_storage(file: h5py.File) -> None:
    file.create_dataset("leak", (4,), "u1", external=[("/etc/hostname", 0, 4)])


def virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((4,), "u1")
    layout[:] = h5py.VirtualSource("other.h5", "secret", (4,))
    file.create_virtual_dataset("leak", layout)


def foreign_filter(file: h5py.File) -> None:
    file.create_dataset("leak", data=np.arange(100), chunks=(10,), scaleoffset=0)


def compound(file: h5py.File) -> None:
    file["bad"] = np.zeros(3, [("a", "f4"), ("b", "i4")])


def opaque(file: h5py.File) -> None:
    file["bad"] = np.zeros(3, "V8")


def reference(file: h5py.File) -> None:
    file["bad"] = np.array([file["x"].ref], h5py.ref_dtype)


def ragged(file: h5py.File) -> None:
    file.create_dataset("bad", (2,), h5py.vlen_dtype("f4"))


def bomb(file: h5py.File) -> None:
    file.create_dataset("bad", shape=(32 << 20,), dtype="u1", chunks=(32 << 20,), compression="gzip")[:1] = 0


def never_written(file: h5py.File) -> None:
    file.create_dataset("bad", shape=(1 << 40,), dtype="f4")


def cycle(file: h5py.File) -> None:
    file["g/again"] = file.require_group("g")


def deep(file: h5py.File) -> None:
    file.require_group("/".join("g" * 100))


def not_utf8(file: h5py.File) -> None:
    h5py.h5g.create(file.id, b"\xff\xfe")


@pytest.mark.parametrize(
    ("spoil", "error"),
    [
        *((spoil, SafetyError) for spoil in (external, soft, external_storage, virtual, foreign_filter)),
        *((spoil, ReadError) for spoil in (compound, opaque, reference, ragged, bomb, never_written)),
        *((spoil, ReadError) for spoil in (cycle, deep, not_utf8)),
    ],
)
def test_refuses(spoil: Callable[[h5py.File], None], error: type[CkconvError], tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        file["x"] = np.arange(4.0)
    assert np.array_equal(tensors_of(path)["x"].numpy(), np.arange(4.0))
    with h5py.File(path, "a") as file:
        spoil(file)
    with pytest.raises(error) as caught:
        hdf5.read(LocalFile(path))
    assert caught.value.path == os.fspath(path)


def test_damage_in_a_chunk_is_noticed(tmp_path: Path) -> None:
    array = np.random.default_rng(0).normal(size=(64, 64))
    for number, storage in enumerate(({"compression": "gzip"}, {"fletcher32": True})):
        path = tmp_path / f"{number}.h5"
        with h5py.File(path, "w") as file:
            file.create_dataset("x", data=array, chunks=(64, 64), **storage)
        tensor = tensors_of(path)["x"]
        assert np.array_equal(tensor.numpy(), array)
        assert isinstance(tensor, ComputedTensor)
        (chunk,) = tensor.inputs
        assert isinstance(chunk, FileTensor)
        with path.open("r+b") as file:
            file.seek(chunk.offset + chunk.nbytes // 2)
            byte = file.read(1)
            file.seek(-1, os.SEEK_CUR)
            file.write(bytes([byte[0] ^ 0xFF]))
        with pytest.raises(ReadError, match="chunk"):
            tensors_of(path)["x"].numpy()


def test_every_truncation_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        file["a/b"] = np.arange(50.0)
        file.create_dataset("c", data=np.arange(50.0), chunks=(10,), compression="gzip")
        file["a"].attrs["weight_names"] = [b"b"]
    whole = path.read_bytes()
    assert len(tensors_of(path)) == 2
    for length in range(0, len(whole), 61):
        path.write_bytes(whole[:length])
        with pytest.raises(ReadError):
            [tensor.numpy() for tensor in tensors_of(path).values()]


def test_a_flipped_byte_is_an_error_or_other_numbers(tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        file["a/b"] = np.arange(5.0)
        file.create_dataset("c", data=np.arange(50.0), chunks=(10,), compression="gzip")
    whole = path.read_bytes()
    generator = np.random.default_rng(0)
    refused = 0
    for position in generator.integers(0, len(whole), 300):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 0xFF]) + whole[position + 1 :])
        try:
            tensors = tensors_of(path)
            for tensor in tensors.values():
                if tensor.nbytes < 1 << 20:
                    tensor.numpy()
        except CkconvError:  # any other exception is a failure
            refused += 1
    assert 10 < refused < 100


def test_writes_what_h5py_reads(tmp_path: Path) -> None:
    generator = np.random.default_rng(2)
    tensors: dict[str, Tensor] = {
        f"group {dtype.value}/x": ArrayTensor.of(generator.integers(0, 2, (5, 3)).astype(dtype.numpy))
        for dtype in DType
    }
    tensors["scalar"] = ArrayTensor.of(np.array(4, "f4"))
    tensors["empty"] = ArrayTensor.of(np.zeros((0, 3), "f4"))
    late = Late(nbytes=40, render=lambda: b"{}".ljust(40))
    content = hdf5.FileContent(
        tensors=tensors,
        links={"tied/x": "scalar"},
        attributes={"": {"layer_names": ["one", "twelve"] * 9000, "ckconv": late}, "bare": {"weight_names": []}},
    )
    path = put(hdf5.pieces(content), tmp_path / "x.h5")
    with h5py.File(path) as file:
        for name, tensor in tensors.items():
            assert file[name].shape == tensor.shape
            assert file[name][()].tobytes() == tensor.numpy().tobytes()
        assert file.attrs["ckconv"] == b"{}".ljust(40)
        names = [*file.attrs["layer_names0"], *file.attrs["layer_names1"]]
        assert names == [b"one", b"twelve"] * 9000
        assert file["tied/x"] == file["scalar"]
        assert len(file["bare"].attrs["weight_names"]) == 0
    found = tensors_of(path)
    assert {name: (tensor.dtype, tensor.shape) for name, tensor in found.items()} == {
        name: (tensor.dtype, tensor.shape) for name, tensor in {**tensors, "tied/x": tensors["scalar"]}.items()
    }
    assert put(hdf5.pieces(content), tmp_path / "y.h5").read_bytes() == path.read_bytes()


def test_laying_out_a_huge_tensor_takes_no_room() -> None:
    class Huge(ArrayTensor):
        pass

    huge = Huge(dtype=DType.FLOAT32, shape=(1 << 36,), array=np.zeros(0, "f4"))
    pieces = hdf5.pieces(hdf5.FileContent(tensors={"a/huge": huge, "b": ArrayTensor.of(np.zeros(3, "f4"))}))
    assert huge in pieces
    assert sum(len(piece) for piece in pieces if isinstance(piece, bytes)) < 1 << 16


@pytest.mark.parametrize("name", ["plain.weight", "a/b", "", ".", "..", "50%", "%2F", "a\0b", "\ud800", "\U0001f600"])
def test_names_come_back(name: str) -> None:
    link = escaped(name)
    assert link
    assert link != "."
    assert "/" not in link
    assert "\0" not in link
    link.encode("utf-8")
    assert unescaped(link) == name


def test_links_that_stand_for_no_name_are_refused() -> None:
    assert unescaped("%2F") == "/"
    with pytest.raises(ReadError, match="stands for no name"):
        unescaped("100%")


def test_a_sparse_file_of_256_gib_opens(tmp_path: Path) -> None:
    path, count = tmp_path / "x.h5", 1 << 36
    with h5py.File(path, "w") as file:
        properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        properties.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
        properties.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
        space = h5py.h5s.create_simple((count,))
        h5py.h5d.create(file.id, b"x", h5py.h5t.IEEE_F32LE, space, properties)
    assert path.stat().st_size > 4 * count
    (tensor,) = tensors_of(path).values()
    assert (tensor.shape, math.prod(tensor.shape)) == ((count,), count)


FILTERED: dict[str, Any] = {"chunks": (3, 4), "compression": "gzip", "shuffle": True, "fletcher32": True}


@pytest.mark.parametrize("mask", range(8))
def test_filters_that_a_chunk_skipped(mask: int, tmp_path: Path) -> None:
    """libhdf5 skips an optional filter that fails, and says so in the chunk's mask: bit n is the n-th filter's."""
    array = np.arange(12, dtype="<u2").reshape(3, 4) * 257
    with h5py.File(tmp_path / "source.h5", "w") as file:
        for name, without in (("all", ()), ("none", ("shuffle", "compression", "fletcher32"))):
            kept = {key: value for key, value in FILTERED.items() if key not in without}
            file.create_dataset(name, data=array, **kept)
        properties = file["all"].id.get_create_plist()
        order = [properties.get_filter(place)[0] for place in range(3)]
    assert order == [2, 1, 3]  # H5Z_FILTER_SHUFFLE, _DEFLATE, _FLETCHER32
    stored = array.tobytes()
    if not mask & 1:
        stored = np.frombuffer(stored, np.uint8).reshape(-1, 2).T.tobytes()
    if not mask & 2:
        stored = zlib.compress(stored)
    if not mask & 4:
        stored += fletcher32(stored).to_bytes(4, "little")
    with h5py.File(tmp_path / "x.h5", "w") as file:
        dataset = file.create_dataset("x", (3, 4), "<u2", **FILTERED)
        dataset.id.write_direct_chunk((0, 0), stored, mask)
    with h5py.File(tmp_path / "x.h5") as file:
        assert np.array_equal(file["x"][()], array)
    np.testing.assert_array_equal(tensors_of(tmp_path / "x.h5")["x"].numpy(), array)


def fletcher32(data: bytes) -> int:
    """H5_checksum_fletcher32, word by word."""
    words = [int.from_bytes(data[place : place + 2].ljust(2, b"\0"), "big") for place in range(0, len(data), 2)]
    first = second = 0
    for word in words:
        first += word
        second += first
    folded = []
    for total in (first, second):
        while total >> 16:
            total = (total & 0xFFFF) + (total >> 16)
        folded.append(total)
    return folded[1] << 16 | folded[0]


SUMS = {
    "zeros": [0, 0, 0, 0],
    "sum of 65535": [0xFF, 0xFF, 0, 0],
    "sum of twice 65535": [0xFF, 0xFF, 0xFF, 0xFF],
    "sum of sums of 65535": [0, 0, 0xFF, 0xFF],
    "only the second": [0x80, 0, 0x7F, 0xFE, 0, 1],
    "odd": [1, 2, 3, 4, 5],
    "one": [7],
    "one and a full word": [0xFF, 0xFF, 1],
}


@pytest.mark.parametrize("case", SUMS)
def test_checksums_that_are_no_plain_remainders(case: str, tmp_path: Path) -> None:
    """A sum modulo 65535 is 0 or 65535: libhdf5 stores 65535 but for plain zeros."""
    array = np.array(SUMS[case], np.uint8)
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("x", data=array, chunks=array.shape, fletcher32=True)
    np.testing.assert_array_equal(tensors_of(path)["x"].numpy(), array)
    whole = path.read_bytes()
    tensor = tensors_of(path)["x"]
    assert isinstance(tensor, ComputedTensor)
    (chunk,) = tensor.inputs
    assert isinstance(chunk, FileTensor)
    for place in range(chunk.nbytes):
        at = chunk.offset + place
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x10]) + whole[at + 1 :])
        with pytest.raises(ReadError, match="checksum does not match"):
            tensors_of(path)["x"].numpy()


@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<i2", ">i2", "u1"])
@pytest.mark.parametrize("is_chunked", [False, True])
def test_what_was_never_written_holds_the_fill_value(dtype: str, is_chunked: bool, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        storage = {"chunks": (2, 2)} if is_chunked else {}
        dataset = file.create_dataset("x", (3, 5), dtype, fillvalue=3, **storage)
        if is_chunked:
            dataset[:2, :2] = 9
        expected = dataset[()]
    np.testing.assert_array_equal(tensors_of(tmp_path / "x.h5")["x"].numpy(), expected)


@pytest.mark.parametrize(("item_bytes", "named"), [(2, "bfloat16"), (4, "bfloat16"), (2, "float16"), (1, "bfloat16")])
def test_opaque_elements_are_what_their_attribute_says_when_they_can_be(
    item_bytes: int, named: str, tmp_path: Path
) -> None:
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        file["x"] = np.zeros(3, f"V{item_bytes}")
        file["x"].attrs["dtype"] = named
    if (item_bytes, named) in ((2, "bfloat16"), (2, "float16")):
        assert tensors_of(path)["x"].dtype is DType(named)
        return
    with pytest.raises(ReadError, match="elements of type opaque"):
        tensors_of(path)


def test_two_datasets_in_one_place_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        for name in ("first", "second"):
            file[name] = np.arange(5000, dtype="<i4")
        places = [file[name].id.get_offset().to_bytes(8, "little") for name in ("first", "second")]
    whole = path.read_bytes()
    assert whole.count(places[1]) == 1
    assert len(tensors_of(path)) == 2
    path.write_bytes(whole.replace(places[1], places[0]))
    with h5py.File(path) as file:
        assert np.array_equal(file["second"][()], file["first"][()])
    with pytest.raises(ReadError, match="shares bytes with") as caught:
        tensors_of(path)
    assert caught.value.tensor in ("first", "second")


def test_ties_are_links_only_where_they_are_the_same(tmp_path: Path) -> None:
    """The same elements in another shape, turned, or of another type are datasets of their own."""
    (tmp_path / "raw").write_bytes(np.arange(16, dtype="<f4").tobytes())
    raw = FileTensor(dtype=DType.FLOAT32, shape=(4, 4), file=LocalFile(tmp_path / "raw"), offset=0)
    tensors: dict[str, Tensor] = {
        "a": raw,
        "same": raw,
        "turned": raw.transpose((1, 0)),
        "turned again": raw.transpose((1, 0)),
        "flat": raw.reshape((16,)),
        "half": raw.take(axis=0, start=0, stop=2),
        "bits": FileTensor(dtype=DType.INT32, shape=(4, 4), file=raw.file, offset=0),
    }
    kept, links = hdf5.shared(tensors)
    assert links == {"same": "a", "turned again": "turned"}
    path = put(hdf5.pieces(hdf5.FileContent(tensors=kept, links=links)), tmp_path / "x.h5")
    with h5py.File(path) as file:
        for name, tensor in tensors.items():
            np.testing.assert_array_equal(file[name][()], tensor.numpy())
        assert file["same"] == file["a"]
        assert file["turned"] != file["a"]


def layered(path: Path, copies: dict[str, np.ndarray]) -> Path:
    """Layers that each list a weight of one name."""
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [name.encode() for name in copies]
        for name, array in copies.items():
            group = file.create_group(name)
            group.attrs["weight_names"] = [b"shared/kernel:0"]
            group["shared/kernel:0"] = array
    return path


def test_the_second_copy_of_a_tie_that_changed_is_a_tensor_of_its_own(tmp_path: Path) -> None:
    ones = np.ones((2, 2), np.float32)
    changed = ones.copy()
    changed[1, 1] += np.finfo(np.float32).eps
    same = hdf5_layers.layered(*roots(layered(tmp_path / "same.h5", {"a": ones, "b": ones})))
    assert list(same.tensors) == ["shared/kernel:0"]
    assert [(line.name, line.target) for line in same.lines] == [("b/shared/kernel:0", "shared/kernel:0")]
    for number, other in enumerate((changed, ones.astype(np.float64), ones.reshape(4), -ones)):
        path = layered(tmp_path / f"{number}.h5", {"a": ones, "b": other})
        checkpoint = hdf5_layers.layered(*roots(path))
        assert set(checkpoint.tensors) == {"shared/kernel:0", "b/shared/kernel:0"}
        np.testing.assert_array_equal(checkpoint.tensors["b/shared/kernel:0"].numpy(), other)
        assert not checkpoint.lines


def roots(path: Path) -> tuple[hdf5.Group, hdf5.Group, Path]:
    root = hdf5.read(LocalFile(path))
    return root, root, path


def test_lists_of_layers_are_held_to_their_word(tmp_path: Path) -> None:
    ones = np.ones(2, np.float32)
    path = layered(tmp_path / "x.h5", {"a": ones, "b": ones})
    hdf5_layers.layered(*roots(path))
    spoils: dict[str, Callable[[h5py.File], None]] = {
        "lists a layer twice": lambda file: file.attrs.modify("layer_names", [b"a", b"a"]),
        "listed as a layer, but is not in the file": lambda file: file.attrs.modify("layer_names", [b"a", b"c"]),
        "listed in layer 'a', but is not in the file": lambda file: file["a"].attrs.modify("weight_names", [b"gone"]),
        "in layer 'a', but is not in the file": lambda file: file["a"].attrs.modify("weight_names", [b"shared"]),
    }
    for message, spoil in spoils.items():
        spoilt = layered(tmp_path / "spoilt.h5", {"a": ones, "b": ones})
        with h5py.File(spoilt, "a") as file:
            spoil(file)
        with pytest.raises(ReadError, match=message):
            hdf5_layers.layered(*roots(spoilt))
    with h5py.File(path, "a") as file:
        file["a/stray"] = ones
        file["optimizer_weights/iteration"] = ones
    lines = {line.name: line.is_refused_by_default for line in hdf5_layers.layered(*roots(path)).lines}
    assert lines == {"b/shared/kernel:0": False, "a/stray": True, "optimizer_weights/iteration": False}


@pytest.mark.parametrize("shape", [(), (1,), (3,), (5, 4), (0, 2)])
def test_what_is_stored_in_the_header_is_read(shape: tuple[int, ...], tmp_path: Path) -> None:
    array = np.arange(1, 1 + math.prod(shape), dtype=">f4").reshape(shape)
    with h5py.File(tmp_path / "x.h5", "w") as file:
        properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        properties.set_layout(h5py.h5d.COMPACT)
        space = h5py.h5s.create_simple(shape) if shape else h5py.h5s.create(h5py.h5s.SCALAR)
        dataset = h5py.h5d.create(file.id, b"x", h5py.h5t.IEEE_F32BE, space, properties)
        dataset.write(h5py.h5s.ALL, h5py.h5s.ALL, array)
    np.testing.assert_array_equal(tensors_of(tmp_path / "x.h5")["x"].numpy(), array)

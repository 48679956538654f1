"""HDF5 files made to hurt: what leads out of a file, what never ends, what declares more than it stores."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import converter
from converter.errors import CkconvError, ReadError, SafetyError

SECRET = b"kept outside of every checkpoint"


def read(path: Path) -> converter.Checkpoint:
    """Read a checkpoint and all its tensors; whatever is refused must name the file, in one line."""
    try:
        checkpoint = converter.read(path)
        for tensor in checkpoint.tensors.values():
            tensor.numpy()
    except CkconvError as error:
        said = str(error)
        if str(path) not in said or len(said.splitlines()) != 1:
            pytest.fail(f"names no file in one line: {said!r}")
        raise
    return checkpoint


Spoil = Callable[[h5py.File], Any]


def soft_links(file: h5py.File) -> None:
    file["group/a"] = h5py.SoftLink("/x")
    file["group/b"] = h5py.SoftLink("../nowhere")


def soft_cycle(file: h5py.File) -> None:
    file["a"], file["b"] = h5py.SoftLink("/b"), h5py.SoftLink("/a")


def external_group(file: h5py.File) -> None:
    file["group"] = h5py.ExternalLink("secret.h5", "/")


def external_to_itself(file: h5py.File) -> None:
    file["group"] = h5py.ExternalLink(file.filename, "/x")


def external_in_the_listed_layer(file: h5py.File) -> None:
    file.attrs["layer_names"] = [b"dense"]
    file.create_group("dense").attrs["weight_names"] = [b"outside/secret"]
    file["dense/outside"] = h5py.ExternalLink("secret.h5", "/")


def storage(name: str, *, offset: int = 0) -> Spoil:
    def spoil(file: h5py.File) -> None:
        file.create_dataset("leak", (len(SECRET),), "u1", external=[(name, offset, len(SECRET))])

    return spoil


def storage_in_pieces(file: h5py.File) -> None:
    file.create_dataset("leak", (8,), "u1", external=[("secret.bin", 0, 4), ("secret.bin", 4, 4)])


def storage_in_no_pieces(file: h5py.File) -> None:
    file.create_dataset("leak", (0,), "u1", external=[("secret.bin", 0, 0)], maxshape=(0,))


def virtual(source: str) -> Spoil:
    def spoil(file: h5py.File) -> None:
        layout = h5py.VirtualLayout((4,), "f8")
        layout[:] = h5py.VirtualSource(source, "x", (4,))
        file.create_virtual_dataset("leak", layout)

    return spoil


def virtual_without_sources(file: h5py.File) -> None:
    file.create_virtual_dataset("leak", h5py.VirtualLayout((4,), "f8"))


def foreign_filter(number: int) -> Spoil:
    def spoil(file: h5py.File) -> None:
        properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        properties.set_chunk((4,))
        properties.set_filter(number, h5py.h5z.FLAG_OPTIONAL, (1, 2, 3))
        h5py.h5d.create(file.id, b"x2", h5py.h5t.IEEE_F64LE, h5py.h5s.create_simple((4,)), properties)

    return spoil


def scale_offset(file: h5py.File) -> None:
    file.create_dataset("x2", data=np.arange(100), chunks=(10,), scaleoffset=0)


LEADING_OUT: dict[str, Spoil] = {
    "soft links": soft_links,
    "soft links in a circle": soft_cycle,
    "an external link to a group": external_group,
    "an external link to the file itself": external_to_itself,
    "an external link below a listed layer": external_in_the_listed_layer,
    "storage in a file": storage("secret.bin"),
    "storage in a file by its whole path": storage("/etc/hostname"),
    "storage in the file itself": storage("x.h5", offset=8),
    "storage in a device": storage("/dev/zero"),
    "storage in pieces": storage_in_pieces,
    "storage in no pieces": storage_in_no_pieces,
    "virtual": virtual("secret.h5"),
    "virtual, of the file itself": virtual("."),
    "virtual, of nothing": virtual_without_sources,
    "a filter that is a plug-in": foreign_filter(32015),
    "a filter that nobody has": foreign_filter(60000),
    "a filter of libhdf5's": scale_offset,
}


def group_in_itself(file: h5py.File) -> None:
    group = file.create_group("group")
    group["again"] = group


def root_in_a_group(file: h5py.File) -> None:
    file["group/root"] = file["/"]


def groups_in_each_other(file: h5py.File) -> None:
    file["a/b"] = file.create_group("b")
    file["b/a"] = file["a"]


def doubling(file: h5py.File) -> None:
    """A hundred groups, 2 ** 50 paths."""
    for number in range(50):
        file[f"{number + 1}/a"] = file[f"{number + 1}/b"] = file.require_group(f"{number}")


def nested(file: h5py.File) -> None:
    file.require_group("/".join("g" * 5000))


def never_written(file: h5py.File) -> None:
    file.create_dataset("bad", (1 << 60,), "u1")


def little_of_much_never_written(file: h5py.File) -> None:
    for number in range(100):
        file.create_dataset(f"bad {number}", (1 << 23,), "u1")


def large_chunks_of_little(file: h5py.File) -> None:
    for number in range(20):
        options = {"chunks": (1 << 23,), "maxshape": (None,), "compression": "gzip"}
        file.create_dataset(f"bad {number}", (1,), "u1", **options)[0] = 1


def never_written_in_chunks(file: h5py.File) -> None:
    file.create_dataset("bad", (1 << 40, 1 << 20), "f8", chunks=(1 << 10, 1 << 10))


def one_of_many_chunks(file: h5py.File) -> None:
    file.create_dataset("bad", (1 << 62,), "u1", chunks=(1 << 20,), compression="gzip")[:1] = 1


def inflating(file: h5py.File) -> None:
    file.create_dataset("bad", (1 << 26,), "u1", chunks=(1 << 26,), compression="gzip")[:1] = 0


def inflating_twice(file: h5py.File) -> None:
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_chunk((1 << 26,))
    properties.set_deflate(9)
    properties.set_deflate(9)
    dataset = h5py.h5d.create(file.id, b"bad", h5py.h5t.STD_U8LE, h5py.h5s.create_simple((1 << 26,)), properties)
    h5py.Dataset(dataset)[:1] = 0


def chunk_of_another_size(file: h5py.File) -> None:
    dataset = file.create_dataset("bad", (100,), "f8", chunks=(10,), compression="gzip")
    import zlib

    dataset.id.write_direct_chunk((0,), zlib.compress(bytes(1 << 20)))


def chunk_that_is_short(file: h5py.File) -> None:
    file.create_dataset("bad", (100,), "f8", chunks=(10,)).id.write_direct_chunk((0,), bytes(79))


def chunk_of_garbage(file: h5py.File) -> None:
    file.create_dataset("bad", (10,), "f8", chunks=(10,), compression="lzf").id.write_direct_chunk((0,), b"\xff" * 99)


def committed(file: h5py.File) -> None:
    file["bad"] = np.dtype("f4")


def made_of(dtype: Any) -> Spoil:
    return lambda file: file.create_dataset("bad", (2,), dtype)


def of_references(file: h5py.File) -> None:
    file.create_dataset("bad", data=np.array([file["x"].ref, file.ref], h5py.ref_dtype))


def of_regions(file: h5py.File) -> None:
    file.create_dataset("bad", data=np.array([file["x"].regionref[:2]], h5py.regionref_dtype))


def of_type(kind: Any) -> Spoil:
    def spoil(file: h5py.File) -> None:
        h5py.h5d.create(file.id, b"bad", kind, h5py.h5s.create_simple((2,)))

    return spoil


def float_of_strange_bits() -> Any:
    kind = h5py.h5t.IEEE_F32LE.copy()
    kind.set_fields(31, 20, 11, 0, 20)
    return kind


def null(file: h5py.File) -> None:
    file.create_dataset("bad", data=h5py.Empty("f4"))


def named_text_of_many_axes(file: h5py.File) -> None:
    file.attrs["layer_names"] = np.full((2, 2), b"x")


def listed_text_that_is_not_utf8(file: h5py.File) -> None:
    file.attrs["layer_names"] = [b"\xff"]


def config_that_is_not_utf8(file: h5py.File) -> None:
    kind = h5py.string_dtype("utf-8")
    file.attrs.create("model_config", b"{\xff}", dtype=kind)
    file.attrs["layer_names"] = [b"x"]


def listed_text_of_an_unknown_encoding(file: h5py.File) -> None:
    file.attrs["layer_names"] = np.array([b"distinctive"])
    file.close()
    path = Path("x.h5")
    data = path.read_bytes()
    flags = data.index(b"\x13\x01\0\0\x0b", data.index(b"layer_names")) + 1  # a string of 11 bytes, padded with zeros
    path.write_bytes(data[:flags] + b"\x31" + data[flags + 1 :])


DAMAGE: dict[str, Spoil] = {
    "a group in itself": group_in_itself,
    "the root in a group": root_in_a_group,
    "groups in each other": groups_in_each_other,
    "groups linked twice, over and over": doubling,
    "five thousand levels": nested,
    "an exbibyte never written": never_written,
    "800 MiB never written, in pieces": little_of_much_never_written,
    "160 MiB of chunks that hold a byte each": large_chunks_of_little,
    "chunks never written": never_written_in_chunks,
    "one chunk of 2 ** 42": one_of_many_chunks,
    "64 MiB of zeros": inflating,
    "64 MiB of zeros, deflated twice": inflating_twice,
    "a chunk larger than declared": chunk_of_another_size,
    "a chunk smaller than declared": chunk_that_is_short,
    "a chunk of garbage": chunk_of_garbage,
    "a committed type": committed,
    "records": made_of([("a", "f4"), ("b", "i4")]),
    "real and imaginary parts under other names": made_of([("real", "f4"), ("imag", "f4")]),
    "integers with names": made_of(h5py.enum_dtype({"a": 1})),
    "opaque bytes": made_of("V2"),
    "arrays": made_of(np.dtype(("f4", (3,)))),
    "numbers of any length": made_of(h5py.vlen_dtype("f4")),
    "references": of_references,
    "regions": of_regions,
    "bit fields": of_type(h5py.h5t.STD_B32LE),
    "times": of_type(h5py.h5t.UNIX_D32LE),
    "floats of strange bits": of_type(float_of_strange_bits()),
    "no dataspace": null,
    "names in a table": named_text_of_many_axes,
    "names that are not UTF-8": listed_text_that_is_not_utf8,
    "names in an unknown encoding": listed_text_of_an_unknown_encoding,
    "a config that is not UTF-8": config_that_is_not_utf8,
}


@pytest.fixture
def spoiled(tmp_path: Path) -> Iterator[Callable[[Spoil], Path]]:
    """Spoil a good file; the test fails when a secret beside it gets out."""
    (tmp_path / "secret.bin").write_bytes(SECRET)
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["x"] = file["secret"] = np.arange(4.0)
    path = tmp_path / "x.h5"

    def spoiled(spoil: Spoil) -> Path:
        with h5py.File(path, "w") as file:
            file["x"] = np.arange(4.0)
        assert read(path).tensors["x"].numpy().tolist() == [0, 1, 2, 3]
        with h5py.File(path, "a") as file:
            spoil(file)
        return path

    before = os.getcwd()
    os.chdir(tmp_path)  # storage outside is looked for in the current folder
    yield spoiled
    os.chdir(before)


@pytest.mark.parametrize("case", LEADING_OUT)
def test_what_leads_out_of_the_file_is_refused(case: str, spoiled: Callable[[Spoil], Path]) -> None:
    with pytest.raises(SafetyError):
        read(spoiled(LEADING_OUT[case]))


@pytest.mark.parametrize("case", DAMAGE)
def test_what_makes_no_sense_is_refused(case: str, spoiled: Callable[[Spoil], Path]) -> None:
    with pytest.raises(ReadError):
        read(spoiled(DAMAGE[case]))


def unknown_attributes(file: h5py.File) -> None:
    file.attrs["reference"] = file["x"].ref
    file.attrs["keras_version"] = np.arange(3)
    file.attrs["backend"] = h5py.Empty("S10")
    file.attrs["records"] = np.zeros(3, [("a", "f4")])
    file.attrs["name"] = np.array([1, 2], h5py.vlen_dtype("i4").metadata and "i4")
    file["x"].attrs["dtype"] = "bfloat16"  # which it is not


def large_attribute(file: h5py.File) -> None:
    file.attrs["notes"] = "x" * (8 << 20)


def text_beside(file: h5py.File) -> None:
    file["text"] = ["a", "b"]


def shape_of_ones(file: h5py.File) -> None:
    file["ones"] = np.ones((1,) * 32, "f4")


def empty_and_scalar(file: h5py.File) -> None:
    file["scalar"] = np.float32(1)
    file.create_dataset("nothing", (0, 1 << 40), "f8")
    file.create_dataset("nothing in chunks", (0, 5), "f8", chunks=(2, 5), maxshape=(None, 5))


def strange_names(file: h5py.File) -> None:
    for name in ("\x1b[2J", "\u202egnp.exe", "a\nb", "..", " ", "é" * 3000):
        file[name] = np.arange(2.0)


HARMLESS: dict[str, Spoil] = {
    "attributes of other kinds": unknown_attributes,
    "a large attribute": large_attribute,
    "text": text_beside,
    "thirty-two axes": shape_of_ones,
    "nothing, and one number": empty_and_scalar,
    "strange names": strange_names,
}


@pytest.mark.parametrize("case", HARMLESS)
def test_what_is_only_odd_is_read(case: str, spoiled: Callable[[Spoil], Path]) -> None:
    assert read(spoiled(HARMLESS[case])).tensors["x"].numpy().tolist() == [0, 1, 2, 3]

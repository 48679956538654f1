"""Zip archives: goldens by zipfile and torch, damage of every kind, and what is written."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from converter.encoding import zip as zip_archive
from converter.encoding.zip import Member, Record
from converter.errors import ReadError, SafetyError
from converter.execution.local import stream
from converter.model.dtype import DType
from converter.model.file import CHUNK_BYTES, SourceFile
from converter.model.output import Late, OutputFile
from converter.model.tensor import ArrayTensor

CONTENTS = {"root/a": b"alpha" * 100, "root/empty": b"", "root/ü": bytes(range(256))}


@pytest.fixture
def read(tmp_path: Path) -> Callable[[bytes], dict[str, Member]]:
    def read(data: bytes) -> dict[str, Member]:
        path = tmp_path / "archive.zip"
        path.write_bytes(data)
        return zip_archive.read_members(SourceFile(path))

    return read


def made(contents: dict[str, bytes] = CONTENTS, method: int = zipfile.ZIP_STORED, comment: bytes = b"") -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        archive.comment = comment
        for name, content in contents.items():
            archive.writestr(zipfile.ZipInfo(name), content, method)
    return buffer.getvalue()


def contents(path: Path) -> dict[str, bytes]:
    file = SourceFile(path)
    members = zip_archive.read_members(file)
    return {name: zip_archive.read_bytes(file, member, limit_bytes=1 << 24) for name, member in members.items()}


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_reads_what_zipfile_writes(tmp_path: Path, method: int) -> None:
    path = tmp_path / "x.zip"
    path.write_bytes(made(method=method, comment=b"PK\x05\x06 is a comment"))
    assert contents(path) == CONTENTS
    assert zip_archive.read_names(SourceFile(path), limit=3) == list(CONTENTS)
    with pytest.raises(ReadError, match="3 members"):
        zip_archive.read_names(SourceFile(path), limit=2)


@pytest.mark.parametrize("force_zip64", [False, True])
def test_reads_streamed_members(tmp_path: Path, force_zip64: bool) -> None:
    class Unseekable(io.BytesIO):
        def seekable(self) -> bool:
            return False

        def tell(self) -> int:
            raise OSError

    buffer = Unseekable()
    with zipfile.ZipFile(buffer, "w") as archive, archive.open("root/x", "w", force_zip64=force_zip64) as member:
        member.write(b"streamed")
    path = tmp_path / "x.zip"
    path.write_bytes(buffer.getvalue())
    assert contents(path) == {"root/x": b"streamed"}


def patched(data: bytes, signature: bytes, offset: int, form: str, value: object, *, last: bool = False) -> bytes:
    start = data.rindex(signature) if last else data.index(signature)
    changed = bytearray(data)
    struct.pack_into(form, changed, start + offset, value)
    return bytes(changed)


LOCAL, CENTRAL, END = b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06"
BROKEN = {
    "cut short": lambda data: data[:-5],
    "bytes after the end": lambda data: data + b"x",
    "bytes before the start": lambda data: b"x" + data,
    "local name": lambda data: data.replace(b"root/a", b"root/b", 1),
    "local method": lambda data: patched(data, LOCAL, 8, "<H", 8),
    "local size": lambda data: patched(data, LOCAL, 18, "<I", 7),
    "local flags": lambda data: patched(data, LOCAL, 6, "<H", 8),
    "local signature": lambda data: data.replace(LOCAL, b"PK\x03\x05", 1),
    "encrypted": lambda data: patched(data, CENTRAL, 8, "<H", 1),
    "method": lambda data: patched(data, CENTRAL, 10, "<H", 12),
    "two sizes": lambda data: patched(data, CENTRAL, 24, "<I", 7),
    "size past the end": lambda data: patched(data, CENTRAL, 20, "<I", 1 << 30),
    "offset past the end": lambda data: patched(data, CENTRAL, 42, "<I", 1 << 30),
    "other volume": lambda data: patched(data, CENTRAL, 34, "<H", 3),
    "central signature": lambda data: data.replace(CENTRAL, b"PK\x01\x03", 1),
    "fewer entries": lambda data: patched(patched(data, END, 8, "<H", 2), END, 10, "<H", 2),
    "more entries": lambda data: patched(patched(data, END, 8, "<H", 4), END, 10, "<H", 4),
    "directory elsewhere": lambda data: patched(data, END, 16, "<I", 3),
    "name too long": lambda data: patched(data, CENTRAL, 28, "<H", 60_000, last=True),
}


@pytest.mark.parametrize("what", BROKEN)
def test_damage_is_refused(read: Callable[[bytes], dict[str, Member]], what: str) -> None:
    data = made()
    assert read(data)
    assert BROKEN[what](data) != data
    with pytest.raises(ReadError, match=r"zip|needs"):
        read(BROKEN[what](data))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_duplicate_names_are_refused(read: Callable[[bytes], dict[str, Member]]) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("root/a", b"1")
        archive.writestr("root/a", b"2")
    with pytest.raises(ReadError, match="twice"):
        read(buffer.getvalue())


def test_overlapping_members_are_refused(read: Callable[[bytes], dict[str, Member]]) -> None:
    """One member's local header inside another member's data, as a quoted archive would have it."""
    inner = made({"root/b": b"1"})
    inner = inner[: inner.index(CENTRAL)]
    data = made({"root/a": inner, "root/b": b"1"})
    assert read(data)
    with pytest.raises(ReadError, match="overlaps"):
        read(patched(data, CENTRAL, 42, "<I", data.index(LOCAL, 4), last=True))


@pytest.mark.parametrize("name", ["../a", "/a", "root/../../a", "root\\a", "root/./a"])
def test_names_that_point_elsewhere_are_refused(read: Callable[[bytes], dict[str, Member]], name: str) -> None:
    assert read(made({"root/a": b"1"}))
    with pytest.raises(SafetyError, match="elsewhere"):
        read(made({name: b"1"}))


def test_a_flipped_bit_is_found(tmp_path: Path) -> None:
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        data = bytearray(made({"root/a": bytes(range(200))}, method))
        path = tmp_path / f"{method}.zip"
        path.write_bytes(data)
        assert contents(path)
        data[60] ^= 1
        path.write_bytes(data)
        with pytest.raises(ReadError, match=r"CRC|damaged"):
            contents(path)


def test_inflation_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "bomb.zip"
    path.write_bytes(made({"root/a": bytes(1 << 25)}, zipfile.ZIP_DEFLATED))
    file = SourceFile(path)
    member = zip_archive.read_members(file)["root/a"]
    with pytest.raises(ReadError, match="grows"):
        zip_archive.read_bytes(file, member, limit_bytes=1 << 30)
    with pytest.raises(ReadError, match="at most 1000"):
        zip_archive.read_bytes(file, member, limit_bytes=1000)


def test_a_member_that_lies_about_its_size_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "lie.zip"
    data = made({"root/a": b"x" * 1000}, zipfile.ZIP_DEFLATED)
    path.write_bytes(data)
    assert contents(path)
    for size in (999, 1001):
        path.write_bytes(patched(patched(data, CENTRAL, 24, "<I", size), LOCAL, 22, "<I", size))
        with pytest.raises(ReadError, match="damaged"):
            contents(path)


def test_deflated_members_are_tensors(tmp_path: Path) -> None:
    values = np.arange(100, dtype="<f4").reshape(4, 25)
    path = tmp_path / "x.zip"
    path.write_bytes(made({"root/a": values.tobytes()}, zipfile.ZIP_DEFLATED))
    file = SourceFile(path)
    member = zip_archive.read_members(file)["root/a"]
    tensor = zip_archive.member_tensor(file, member, dtype=DType.FLOAT32, shape=(4, 25))
    assert np.array_equal(tensor.numpy(), values)
    with pytest.raises(ReadError, match="needs 396 bytes"):
        zip_archive.member_tensor(file, member, dtype=DType.FLOAT32, shape=(99,))


def test_a_sparse_file_of_256_gib_is_judged_at_once(tmp_path: Path) -> None:
    path = tmp_path / "sparse.zip"
    path.write_bytes(b"PK\x03\x04")
    with open(path, "r+b") as file:
        file.truncate(256 << 30)
    with pytest.raises(ReadError, match="cut short"):
        zip_archive.read_members(SourceFile(path))


def written(tmp_path: Path, records: list[Record]) -> Path:
    stream(OutputFile(name="out.zip", pieces=zip_archive.archive(records)), tmp_path)
    return tmp_path / "out.zip"


def test_zipfile_reads_what_is_written(tmp_path: Path) -> None:
    array = np.arange(7, dtype="<i4")
    path = written(
        tmp_path,
        [
            Record(name="root/ü", content=b"text"),
            Record(name="root/array", content=ArrayTensor.of(array)),
            Record(name="root/late", content=Late(nbytes=4, render=lambda: b"late")),
            Record(name="root/empty", content=b""),
        ],
    )
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert archive.read("root/array") == array.tobytes()
        assert {info.date_time for info in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert all(info.compress_type == zipfile.ZIP_STORED for info in archive.infolist())
    members = zip_archive.read_members(SourceFile(path))
    assert all(member.data_offset % 64 == 0 for member in members.values())
    assert contents(path)["root/late"] == b"late"


def test_members_and_offsets_beyond_4_gib(tmp_path: Path) -> None:
    """A hole stands for the large member: its CRC is not that of zeros, and nothing reads it."""
    size = (4 << 30) + 5
    large = ArrayTensor(dtype=DType.UINT8, shape=(size,), array=np.empty(0, np.uint8))
    records = [Record(name="root/large", content=large), Record(name="root/after", content=b"after")]
    path = tmp_path / "large.zip"
    with open(path, "wb") as out:
        for piece in zip_archive.archive(records):
            match piece:
                case bytes():
                    out.write(piece)
                case Late():
                    out.write(piece.render())
                case _ if piece.nbytes == size:
                    out.seek(size, io.SEEK_CUR)
        assert out.tell() == sum(OutputFile(name="x", pieces=[p]).nbytes for p in zip_archive.archive(records))
    file = SourceFile(path)
    members = zip_archive.read_members(file)
    assert members["root/large"].uncompressed_bytes == size
    assert zip_archive.read_bytes(file, members["root/after"], limit_bytes=10) == b"after"
    with zipfile.ZipFile(path) as archive:
        assert archive.read("root/after") == b"after"
        assert archive.getinfo("root/large").file_size == size
    assert zlib.crc32(b"after") == members["root/after"].crc32


def deflated(tmp_path: Path, content: bytes) -> tuple[SourceFile, Member]:
    path = tmp_path / "deflated.zip"
    path.write_bytes(made({"root/x": content}, zipfile.ZIP_DEFLATED))
    file = SourceFile(path)
    return file, zip_archive.read_members(file)["root/x"]


@pytest.mark.parametrize("size", [1, 258, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 2 * CHUNK_BYTES])
def test_deflated_members_come_in_pieces(tmp_path: Path, size: int) -> None:
    values = np.random.default_rng(size).integers(0, 9, size, dtype=np.uint8)
    file, member = deflated(tmp_path, values.tobytes())
    tensor = zip_archive.member_tensor(file, member, dtype=DType.UINT8, shape=(size,))
    chunks = [bytes(chunk) for chunk in tensor.chunks()]
    assert b"".join(chunks) == values.tobytes() == tensor.numpy().tobytes()
    assert max(map(len, chunks)) <= CHUNK_BYTES
    for changed in (
        replace(member, crc32=member.crc32 ^ 1),
        replace(member, uncompressed_bytes=size - 1),
        replace(member, uncompressed_bytes=size + 1),
        replace(member, compressed_bytes=member.compressed_bytes - 1),
        replace(member, compressed_bytes=member.compressed_bytes + 1),
    ):
        shape = (changed.uncompressed_bytes,)
        damaged = zip_archive.member_tensor(file, changed, dtype=DType.UINT8, shape=shape)
        with pytest.raises(ReadError, match="damaged"):
            damaged.numpy()

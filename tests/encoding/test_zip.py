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
from converter.encoding.zip import Member, Record, reading
from converter.errors import ReadError, SafetyError
from converter.execution.streaming import stream
from converter.model.dtype import DType
from converter.model.file import CHUNK_BYTES, LocalFile, SourceFile
from converter.model.output import Late, OutputFile
from converter.model.tensor import ArrayTensor

CONTENTS = {"root/a": b"alpha" * 100, "root/empty": b"", "root/ü": bytes(range(256))}


@pytest.fixture
def read(tmp_path: Path) -> Callable[[bytes], dict[str, Member]]:
    def read(data: bytes) -> dict[str, Member]:
        path = tmp_path / "archive.zip"
        path.write_bytes(data)
        return zip_archive.read_members(LocalFile(path))

    return read


def made(contents: dict[str, bytes] = CONTENTS, method: int = zipfile.ZIP_STORED, comment: bytes = b"") -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        archive.comment = comment
        for name, content in contents.items():
            archive.writestr(zipfile.ZipInfo(name), content, method)
    return buffer.getvalue()


def contents(path: Path) -> dict[str, bytes]:
    file = LocalFile(path)
    members = zip_archive.read_members(file)
    return {name: zip_archive.read_bytes(file, member, limit_bytes=1 << 24) for name, member in members.items()}


@pytest.mark.parametrize(
    ("stored", "is_utf8", "name"), [(b"\x81", False, "\u00fc"), ("\u00fc".encode(), True, "\u00fc")]
)
def test_a_name_is_in_the_characters_that_its_flag_says(
    stored: bytes, is_utf8: bool, name: str, read: Callable[[bytes], dict[str, Member]]
) -> None:
    """APPNOTE 4.4.4, bit 11: UTF-8, else code page 437."""
    data = made({"root/" + "u" * len(stored): b"content"})
    for magic, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data = patched(data, magic, place, "<H", 0x800 if is_utf8 else 0)
    data = data.replace(b"root/" + b"u" * len(stored), b"root/" + stored)
    assert list(read(data)) == [f"root/{name}"]
    assert zipfile.ZipFile(io.BytesIO(data)).namelist() == [f"root/{name}"]


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_reads_what_zipfile_writes(tmp_path: Path, method: int) -> None:
    path = tmp_path / "x.zip"
    path.write_bytes(made(method=method, comment=b"PK\x05\x06 is a comment"))
    assert contents(path) == CONTENTS
    assert zip_archive.read_names(LocalFile(path), limit=3) == list(CONTENTS)
    with pytest.raises(ReadError, match="3 members"):
        zip_archive.read_names(LocalFile(path), limit=2)


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
    file = LocalFile(path)
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
    file = LocalFile(path)
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
        zip_archive.read_members(LocalFile(path))


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
    members = zip_archive.read_members(LocalFile(path))
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
    file = LocalFile(path)
    members = zip_archive.read_members(file)
    assert members["root/large"].uncompressed_bytes == size
    assert zip_archive.read_bytes(file, members["root/after"], limit_bytes=10) == b"after"
    with zipfile.ZipFile(path) as archive:
        assert archive.read("root/after") == b"after"
        assert archive.getinfo("root/large").file_size == size
    assert zlib.crc32(b"after") == members["root/after"].crc32


def ends(*records: Record) -> tuple[bytes, bytes, bytes]:
    """The first local header, the directory, and the end records of an archive."""
    first, *_, directory, end = zip_archive.archive(records)
    assert isinstance(first, Late)
    assert isinstance(directory, Late)
    assert isinstance(end, bytes)
    return first.render(), directory.render(), end


def hole(size: int) -> Record:
    return Record(name="x", content=Late(nbytes=size, render=lambda: b""))


def test_a_field_that_is_all_ones_is_wide_and_no_other_is() -> None:
    """What is all ones says that zip64 has the number: a number that happens to be all ones is there, too."""
    most, name_and_id = (1 << 32) - 1, 1 + 2
    header, *_ = ends(hole(1))
    for size in (most - 1, most):
        local, directory, _ = ends(hole(size))
        assert struct.unpack_from("<2I", local, 18) == struct.unpack_from("<2I", directory, 20) == (size, size)
        assert local[30 : 30 + name_and_id] == (b"x\1\0" if size == most else b"xFB")
        assert directory[46 : 46 + name_and_id] == (b"x\1\0" if size == most else b"x")
    for offset in (most - 1, most):
        *_, end = ends(hole(offset - len(header)))
        assert (len(end) > 22, end[-22 + 16 :][:4]) == (offset == most, offset.to_bytes(4, "little"))
        *_, directory, _ = ends(hole(offset - len(header)), Record(name="y", content=b""))
        assert (b"y\1\0" in directory) is (offset == most)
    for count in ((1 << 16) - 2, (1 << 16) - 1):
        *_, end = ends(*[Record(name="x", content=b"")] * count)
        assert (len(end) > 22, end[-22 + 10 :][:2]) == (count == (1 << 16) - 1, count.to_bytes(2, "little"))


def deflated(tmp_path: Path, content: bytes) -> tuple[SourceFile, Member]:
    path = tmp_path / "deflated.zip"
    path.write_bytes(made({"root/x": content}, zipfile.ZIP_DEFLATED))
    file = LocalFile(path)
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


def both(data: bytes, local: int, central: int, form: str, value: int) -> bytes:
    """Patch a field in the local header and in the directory alike."""
    return patched(patched(data, LOCAL, local, form, value), CENTRAL, central, form, value)


@pytest.mark.parametrize("flag", [1, 1 << 5, 1 << 6])
def test_each_kind_of_encryption_is_refused(read: Callable[[bytes], dict[str, Member]], flag: int) -> None:
    assert read(both(made(), 6, 8, "<H", 1 << 11))
    with pytest.raises(ReadError, match="is encrypted"):
        read(both(made(), 6, 8, "<H", flag))


@pytest.mark.parametrize(("offset", "value"), [(14, 7), (18, 7), (22, 7)])
@pytest.mark.parametrize("is_streamed", [False, True])
def test_each_number_of_a_local_header_agrees(
    read: Callable[[bytes], dict[str, Member]], offset: int, value: int, is_streamed: bool
) -> None:
    data = both(made(), 6, 8, "<H", 8) if is_streamed else made()
    assert read(data)
    with pytest.raises(ReadError, match="contradicts the directory"):
        read(patched(data, LOCAL, offset, "<I", value))


@pytest.mark.parametrize("names", [("root/A", "root/a"), ("root/e\u0301", "root/é"), ("root/a", "root/a/")])
def test_names_that_some_systems_take_for_one(
    read: Callable[[bytes], dict[str, Member]], names: tuple[str, str]
) -> None:
    assert len(read(made({names[0]: b"1", "root/b": b"2"}))) == 2
    with pytest.raises(ReadError, match="twice, or one of nearly its name"):
        read(made(dict.fromkeys(names, b"1")))


def with_gap(data: bytes, gap: bytes) -> bytes:
    """Put bytes between the last member and the directory."""
    start = data.index(CENTRAL)
    moved = data[:start] + gap + data[start:]
    return patched(moved, END, 16, "<I", start + len(gap), last=True)


@pytest.mark.parametrize("length", [1, 11, 12, 16, 24])
def test_bytes_of_no_member_are_refused(read: Callable[[bytes], dict[str, Member]], length: int) -> None:
    """As long as a descriptor, too, where no member says it has one."""
    assert read(with_gap(made(), b""))
    with pytest.raises(ReadError, match=f"has {length} bytes before its directory, of no member"):
        read(with_gap(made(), bytes(length)))


def with_gap_inside(data: bytes, gap: bytes) -> bytes:
    """Put bytes before the second member of two."""
    at, directory = data.index(LOCAL, 1), data.index(CENTRAL)
    moved = data[:at] + gap + data[at:]
    moved = patched(moved, END, 16, "<I", directory + len(gap), last=True)
    return patched(moved, CENTRAL, 42, "<I", at + len(gap), last=True)


def test_bytes_between_members_are_refused(read: Callable[[bytes], dict[str, Member]]) -> None:
    data = made({"root/a": b"1", "root/b": b"2"})
    assert read(with_gap_inside(data, b""))
    with pytest.raises(ReadError, match="has 12 bytes before 'root/b', of no member"):
        read(with_gap_inside(data, bytes(12)))


def wide(
    data: bytes, *, record: dict[int, int] | None = None, locator: dict[int, int] | None = None, gap: bytes = b""
) -> bytes:
    """Give an archive the end records of zip64, with numbers replaced by their place; the old record stays true."""
    start = data.rindex(END)
    _, _, _, here, count, size, offset, _ = struct.unpack_from("<4s4H2IH", data, start)
    numbers = [44, 45, 45, 0, 0, here, count, size, offset]
    for place, value in (record or {}).items():
        numbers[place] = value
    record64 = struct.pack("<4sQ2H2I4Q", b"PK\x06\x06", *numbers) + gap
    where = [0, start, 1]
    for place, value in (locator or {}).items():
        where[place] = value
    return data[:start] + record64 + struct.pack("<4sIQI", b"PK\x06\x07", *where) + data[start:]


DISAGREEING = {
    "count": ({"record": {5: 2, 6: 2}}, "two end records that disagree"),
    "size": ({"record": {7: 1}}, "two end records that disagree"),
    "offset": ({"record": {8: 1}}, "two end records that disagree"),
    "one volume of the count": ({"record": {5: 2}}, "one volume of several"),
    "volume": ({"record": {3: 1}}, "one volume of several"),
    "volume of the directory": ({"record": {4: 1}}, "one volume of several"),
    "length": ({"record": {0: 43}}, "damaged zip64 end record"),
    "bytes behind the record": ({"gap": b"x"}, "damaged zip64 end record"),
    "volume of the record": ({"locator": {0: 1}}, "impossible zip64 locator"),
    "place of the record": ({"locator": {1: 1 << 40}}, "impossible zip64 locator"),
    "volumes": ({"locator": {2: 2}}, "impossible zip64 locator"),
}


@pytest.mark.parametrize("what", DISAGREEING)
def test_end_records_that_disagree(read: Callable[[bytes], dict[str, Member]], what: str) -> None:
    changes, message = DISAGREEING[what]
    assert len(read(wide(made()))) == 3
    with pytest.raises(ReadError, match=message):
        read(wide(made(), **changes))


def test_a_saturated_end_record_stands_for_any_number(read: Callable[[bytes], dict[str, Member]]) -> None:
    data = wide(made())
    for place, form, value in ((8, "<H", 0xFFFF), (10, "<H", 0xFFFF), (12, "<I", 0xFFFFFFFF), (16, "<I", 0xFFFFFFFF)):
        data = patched(data, END, place, form, value, last=True)
    assert len(read(data)) == 3


@pytest.mark.parametrize("place", [4, 6])
def test_one_volume_of_several_is_refused(read: Callable[[bytes], dict[str, Member]], place: int) -> None:
    assert read(made())
    with pytest.raises(ReadError, match="one volume of several"):
        read(patched(made(), END, place, "<H", 1, last=True))
    with pytest.raises(ReadError, match="one volume of several"):
        read(patched(made(), END, 8, "<H", 2, last=True))


def test_a_tensor_ends_where_its_member_does(tmp_path: Path) -> None:
    (tmp_path / "x.zip").write_bytes(made({"root/a": bytes(8), "root/b": bytes(8)}))
    file = LocalFile(tmp_path / "x.zip")
    member = zip_archive.read_members(file)["root/a"]
    assert zip_archive.member_tensor(file, member, dtype=DType.UINT8, shape=(8,)).numpy().size == 8
    with pytest.raises(ReadError, match="needs 9 bytes, zip member 'root/a' has 8"):
        zip_archive.member_tensor(file, member, dtype=DType.UINT8, shape=(9,))


def test_a_tensor_that_inflates_too_much_is_refused_before_it_is_read(tmp_path: Path) -> None:
    zeros = bytes(17 << 20)
    file, member = deflated(tmp_path, zeros)
    with pytest.raises(ReadError, match=f"grows from {member.compressed_bytes} to {17 << 20} bytes"):
        zip_archive.member_tensor(file, member, dtype=DType.UINT8, shape=(17 << 20,))


@pytest.mark.parametrize("size", [(1 << 32) - 2, (1 << 32) - 1, 1 << 32])
def test_a_member_as_large_as_the_old_fields_hold(tmp_path: Path, size: int) -> None:
    """A hole stands for it; zipfile reads what comes after."""
    large = ArrayTensor(dtype=DType.UINT8, shape=(size,), array=np.empty(0, np.uint8))
    path = tmp_path / "large.zip"
    with open(path, "wb") as out:
        for piece in zip_archive.archive([Record(name="a", content=large), Record(name="b", content=b"after")]):
            match piece:
                case bytes():
                    out.write(piece)
                case Late():
                    out.write(piece.render())
                case _:
                    out.seek(size, io.SEEK_CUR)
    with zipfile.ZipFile(path) as archive:
        assert archive.getinfo("a").file_size == size
        assert archive.getinfo("a").extra.startswith(b"\x01\0") == (size >= (1 << 32) - 1)
        assert archive.read("b") == b"after"
    assert zip_archive.read_members(LocalFile(path))["a"].uncompressed_bytes == size
    with open(path, "rb") as file:
        fields = struct.unpack("<4s5H3I2H", file.read(30))
        kind, length, *sizes = struct.unpack("<2H2Q", file.read(1 + 20)[1:])
    is_wide = fields[7] == fields[8] == (1 << 32) - 1
    assert is_wide == (size >= (1 << 32) - 1)
    assert ((kind, length, *sizes) == (1, 16, size, size)) == is_wide  # APPNOTE 4.5.3: it MUST be there


@pytest.mark.parametrize("cut", [None, -1, 3], ids=["whole", "late", "early"])
def test_nothing_follows_the_end_of_what_is_deflated(cut: int | None) -> None:
    """Wherever the pieces that are read happen to end: where the stream does, before it, and behind it."""
    content = b"alpha" * 100
    deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    stored = deflater.compress(content) + deflater.flush()
    member = Member(
        name="a",
        data_offset=0,
        compressed_bytes=len(stored),
        uncompressed_bytes=len(content),
        crc32=zlib.crc32(content),
        is_stored=False,
    )
    pieces = [stored] if cut is None else [stored[:cut], stored[cut:]]
    assert b"".join(reading._inflated(iter(pieces), member, Path("x"))) == content
    for wrong in ([*pieces, b"more"], [*pieces[:-1], pieces[-1] + b"more"]):
        with pytest.raises(ReadError, match="is damaged: size or CRC mismatch"):
            list(reading._inflated(iter(wrong), member, Path("x")))


@pytest.mark.parametrize(("volume", "is_read"), [(0, True), (0xFFFF, True), (1, False), (0xFFFE, False)])
def test_a_member_is_in_the_one_volume_that_there_is(
    volume: int, is_read: bool, read: Callable[[bytes], dict[str, Member]]
) -> None:
    """All ones says that zip64 has the number, and writers say so of the first volume, too."""
    data = patched(made(), CENTRAL, 34, "<H", volume)
    if is_read:
        assert len(read(data)) == len(CONTENTS)
    else:
        with pytest.raises(ReadError, match="is one volume of several"):
            read(data)

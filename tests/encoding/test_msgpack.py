"""MessagePack against the specification's own bytes; https://github.com/msgpack/msgpack/blob/master/spec.md."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from converter.encoding import msgpack
from converter.encoding.msgpack import Binary, Extension
from converter.errors import ReadError
from converter.model.file import LocalFile


def parse(folder: Path, data: bytes) -> Any:
    (folder / "x").write_bytes(data)
    return msgpack.read(LocalFile(folder / "x"))


VALUES = [
    ("00", 0), ("7f", 127), ("ff", -1), ("e0", -32), ("cc ff", 255), ("cd 0100", 256), ("ce 00010000", 65536),
    ("cf ffffffffffffffff", 2**64 - 1), ("d0 80", -128), ("d1 8000", -32768), ("d2 80000000", -(2**31)),
    ("d3 8000000000000000", -(2**63)), ("ca 3fc00000", 1.5), ("cb 3ff8000000000000", 1.5), ("c0", None),
    ("c2", False), ("c3", True), ("a0", ""), ("a2 c3a9", "é"), ("d9 02 6162", "ab"), ("da 0001 61", "a"),
    ("db 00000001 61", "a"), ("c4 02 0102", Binary(offset=2, length=2)), ("c5 0000", Binary(offset=3, length=0)),
    ("c6 00000001 00", Binary(offset=5, length=1)), ("d4 01 ff", Extension(code=1, offset=2, length=1)),
    ("d8 ff" + "00" * 16, Extension(code=-1, offset=2, length=16)),
    ("c7 03 05 010203", Extension(code=5, offset=3, length=3)),
    ("c8 0001 02 00", Extension(code=2, offset=4, length=1)),
    ("c9 00000000 7f", Extension(code=127, offset=6, length=0)),
    ("90", []), ("92 01 a161", [1, "a"]), ("dc 0001 c0", [None]), ("dd 00000001 c0", [None]), ("80", {}),
    ("82 a161 01 a162 90", {"a": 1, "b": []}), ("de 0001 a161 80", {"a": {}}), ("df 00000001 a161 c3", {"a": True}),
]  # fmt: skip


@pytest.mark.parametrize(("encoded", "value"), VALUES)
def test_every_kind_of_value(encoded: str, value: Any, tmp_path: Path) -> None:
    data = bytes.fromhex(encoded)
    found = parse(tmp_path, data)
    assert (found, type(found)) == (value, type(value))
    for length in range(len(data)):
        with pytest.raises(ReadError):
            parse(tmp_path, data[:length])
    with pytest.raises(ReadError, match="after its end"):
        parse(tmp_path, data + b"\xc0")


def nested(levels: int) -> bytes:
    return b"\x91" * levels + b"\xc0"


@pytest.mark.parametrize(
    ("good", "bad", "what"),
    [
        (b"\x81\xa1a\x01", b"\x81\x01\x01", "a key that is int"),
        (b"\x82\xa1a\x01\xa1b\x01", b"\x82\xa1a\x01\xa1a\x01", "'a' twice"),
        (b"\xa1a", b"\xa1\xff", "not UTF-8"),
        (b"\xc0", b"\xc1", "no value starts"),
        (nested(64), nested(65), "nested"),
        (b"\xdd\0\0\0\1\xc0", b"\xdd\xff\xff\xff\xff\xc0", "4294967295 values in 1 bytes"),
        (b"\xdf\0\0\0\0", b"\xdf\xff\xff\xff\xff\xa1a\x01", "8589934590 values"),
        (b"\xc6\0\0\0\1a", b"\xc6\xff\xff\xff\xffa", "needs 4294967295 bytes"),
    ],
)
def test_what_is_refused(good: bytes, bad: bytes, what: str, tmp_path: Path) -> None:
    parse(tmp_path, good)
    with pytest.raises(ReadError, match=what) as caught:
        parse(tmp_path, bad)
    assert str(caught.value.path) == str(tmp_path / "x")


def test_too_many_values_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(msgpack, "_ITEM_LIMIT", 10)
    assert parse(tmp_path, b"\x99" + b"\xc0" * 9) == [None] * 9
    with pytest.raises(ReadError, match="more than 10 values"):
        parse(tmp_path, b"\x9a" + b"\xc0" * 10)


def test_values_longer_than_a_window(tmp_path: Path) -> None:
    text = "x" * 10_000
    data = msgpack.array_header(3) + msgpack.text(text) + msgpack.binary_header(9000) + bytes(9000) + msgpack.number(-5)
    assert parse(tmp_path, data) == [text, Binary(offset=10_007, length=9000), -5]


@pytest.mark.parametrize("value", [0, 1, 127, 128, 255, 256, 65535, 65536, 2**32 - 1, 2**32, 2**64 - 1])
def test_numbers_are_written_in_the_fewest_bytes(value: int, tmp_path: Path) -> None:
    assert parse(tmp_path, msgpack.number(value)) == value
    widths = {1: 127, 2: 255, 3: 65535, 5: 2**32 - 1, 9: 2**64 - 1}
    assert len(msgpack.number(value)) == next(width for width, limit in widths.items() if value <= limit)


@pytest.mark.parametrize("value", [-1, -32, -33, -128, -129, -32768, -32769, -(2**31), -(2**31) - 1, -(2**63)])
def test_negative_numbers(value: int, tmp_path: Path) -> None:
    assert parse(tmp_path, msgpack.number(value)) == value


@pytest.mark.parametrize("length", [0, 15, 16, 31, 32, 255, 256, 65535, 65536])
def test_headers_of_every_width(length: int, tmp_path: Path) -> None:
    assert parse(tmp_path, msgpack.text("x" * length)) == "x" * length
    assert parse(tmp_path, msgpack.array_header(length) + b"\xc0" * length) == [None] * length
    keys = b"".join(msgpack.text(str(number)) + b"\xc0" for number in range(length))
    assert len(parse(tmp_path, msgpack.map_header(length) + keys)) == length
    assert parse(tmp_path, msgpack.binary_header(length) + bytes(length)).length == length
    extension = parse(tmp_path, msgpack.extension_header(-7, length) + bytes(length))
    assert (extension.code, extension.length) == (-7, length)


def test_what_a_start_tells() -> None:
    array = b"\x81\xa1a\xc7\x10\x01" + bytes(16)
    assert msgpack.starts_with_map_of_extensions(array, len(array))
    assert msgpack.starts_with_map_of_extensions(array[:4], len(array))
    assert msgpack.starts_with_map_of_extensions(b"\x82\xa1s\x05" + array[1:], len(array) + 3)
    for other in (b"", b"\x80", b"\x80\x02}q\x00.", b"\x81\xa1a\x01", b"\x91\xa1a", b"\x81\x01\x02", b"PK\x03\x04"):
        assert not msgpack.starts_with_map_of_extensions(other, max(len(other), 1))

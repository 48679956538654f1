from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from converter.encoding import crc32c, leveldb_table
from converter.encoding.leveldb_table import build_table, read_table
from converter.encoding.protobuf import varint
from converter.errors import ReadError
from converter.model.file import LocalFile, SourceFile

ENTRIES = [(f"layer/{number:05d}/kernel".encode(), bytes([number % 251]) * (number % 40)) for number in range(20_000)]
SMALL = [(b"", b"header"), (b"ab", b"1"), (b"abc", b""), (b"b", b"22")]


def write(path: Path, table: bytes) -> SourceFile:
    path.write_bytes(table)
    return LocalFile(path)


def entries(file: SourceFile) -> list[tuple[bytes, bytes]]:
    return [(key, bytes(value)) for key, value in read_table(file)]


def block(*content: tuple[int, bytes, bytes], restarts: tuple[int, ...] = (0,), compression: int = 0) -> bytes:
    """A block with its trailer, from (shared, rest of the key, value), with restart points as given."""
    body = b"".join(
        varint(shared) + varint(len(key)) + varint(len(value)) + key + value for shared, key, value in content
    )
    body += b"".join(number.to_bytes(4, "little") for number in (*restarts, len(restarts)))
    if compression == 1:  # of Snappy, one literal
        body = varint(len(body)) + bytes([(len(body) - 1) << 2]) + body
    body += bytes([compression])
    return sealed(body)


def sealed(body: bytes) -> bytes:
    return body + crc32c.mask(crc32c.update(body)).to_bytes(4, "little")


def table(*blocks: bytes, handles: tuple[tuple[int, int], ...] | None = None) -> bytes:
    offsets = [sum(map(len, blocks[:number])) for number in range(len(blocks))]
    handles = handles or tuple((offset, len(data) - 5) for offset, data in zip(offsets, blocks, strict=True))
    data = b"".join(blocks)
    index = block(*((0, bytes([97 + number]), varint(at) + varint(size)) for number, (at, size) in enumerate(handles)),
                  restarts=tuple(_starts(handles)))  # fmt: skip
    footer = varint(0) + varint(0) + varint(len(data)) + varint(len(index) - 5)
    return data + index + footer.ljust(40, b"\0") + bytes.fromhex("57fb808b247547db")


def _starts(handles: tuple[tuple[int, int], ...]) -> list[int]:
    sizes = [4 + len(varint(at)) + len(varint(size)) for at, size in handles]
    return [sum(sizes[:number]) for number in range(len(sizes))]


def test_blocks_compressed_with_snappy_are_read(tmp_path: Path) -> None:
    made = table(block((0, b"ab", b"1"), (2, b"c", b"22"), compression=1), block((0, b"b", b""), compression=1))
    assert entries(write(tmp_path / "t", made)) == [(b"ab", b"1"), (b"abc", b"22"), (b"b", b"")]


def test_many_blocks_come_back(tmp_path: Path) -> None:
    built = build_table(ENTRIES)
    assert len(built) < sum(len(key) + len(value) for key, value in ENTRIES)
    assert entries(write(tmp_path / "t", built)) == ENTRIES


def test_hand_made_table_is_read(tmp_path: Path) -> None:
    good = table(block((0, b"a", b"1"), (1, b"b", b"2"), restarts=(0,)), block((0, b"c", b"")))
    assert entries(write(tmp_path / "t", good)) == [(b"a", b"1"), (b"ab", b"2"), (b"c", b"")]


A, C = block((0, b"a", b"1")), block((0, b"c", b""))
HOSTILE = {
    "same block twice": (table(A, C, handles=((0, len(A) - 5), (0, len(A) - 5))), "overlap or go back"),
    "key twice": (table(A, A), "twice"),
    "keys go back": (table(C, A), "out of order"),
    "handle past the end": (table(A, handles=((0, 10_000),)), "not inside"),
    "handle wraps": (table(A, handles=((2**64 - 8, 16),)), "not inside"),
    "handle of the footer": (table(A, handles=((len(A), 60),)), "not inside|CRC"),
    "snappy that is none": (table(sealed(b"\x20aaaa\1")), "declares 32 bytes|cut short|Snappy"),
    "unknown compression": (table(block((0, b"a", b"1"), compression=9)), "method 9"),
    "shares more than there is": (table(block((0, b"a", b"1"), (2, b"b", b"2"))), "past its block"),
    "first key shares": (table(block((1, b"a", b"1"))), "past its block"),
    "value past the block": (table(sealed(b"\x00\x01\x70a1" + bytes(4) + b"\1\0\0\0" + b"\0")), "past its block"),
    "no restart points": (table(block((0, b"a", b"1"), restarts=())), "restart points"),
    "restart inside an entry": (table(block((0, b"a", b"1"), restarts=(0, 2))), "restart points"),
    "restart past the entries": (table(block((0, b"a", b"1"), restarts=(0, 900))), "restart points"),
    "restart that shares": (table(block((0, b"a", b"1"), (1, b"b", b"2"), restarts=(0, 5))), "past its block"),
    "giant key": (table(block((0, b"a" * 70_000, b"1"))), "key of 70000 bytes"),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_tables_are_refused(case: str, tmp_path: Path) -> None:
    assert entries(write(tmp_path / "good", table(A, C))) == [(b"a", b"1"), (b"c", b"")]
    data, what = HOSTILE[case]
    with pytest.raises(ReadError, match=what) as caught:
        entries(write(tmp_path / "bad", data))
    assert caught.value.path == str(tmp_path / "bad")


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "footer magic": lambda data: data[:-1] + b"\0",
    "cut in the footer": lambda data: data[:-1],
    "cut at the front": lambda data: data[1:],
    "shorter than a footer": lambda data: data[-40:],
    "empty": lambda data: b"",
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_tables_are_refused(damage: str, tmp_path: Path) -> None:
    good = build_table(SMALL)
    assert entries(write(tmp_path / "good", good)) == SMALL
    with pytest.raises(ReadError):
        entries(write(tmp_path / "bad", DAMAGES[damage](good)))


def test_every_flipped_bit_of_blocks_is_noticed(tmp_path: Path) -> None:
    good = bytearray(build_table(SMALL))
    assert entries(write(tmp_path / "good", bytes(good))) == SMALL
    metadata_bytes = 8 + 5  # nothing is in the metadata block, and nothing of it is read
    data_bytes = good.index(bytes(4) + b"\1\0\0\0", 1) + 8 + 5
    for position in [*range(data_bytes), *range(data_bytes + metadata_bytes, len(good) - 48)]:
        good[position] ^= 4
        with pytest.raises(ReadError):
            entries(write(tmp_path / "bad", bytes(good)))
        good[position] ^= 4


def test_keys_are_bounded_all_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prefixes are shared: a small file may hold a great many long keys."""
    file = write(tmp_path / "t", build_table([(b"a" * 500 + bytes([number]), b"") for number in range(20)]))
    monkeypatch.setattr(leveldb_table, "_ALL_KEYS_LIMIT_BYTES", 20 * 501)
    assert len(entries(file)) == 20
    monkeypatch.setattr(leveldb_table, "_ALL_KEYS_LIMIT_BYTES", 20 * 501 - 1)
    with pytest.raises(ReadError, match="in all"):
        entries(file)

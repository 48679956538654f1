"""A writer of zip archives that lays out before it writes: sizes and places are known before any byte is."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field

from converter.encoding.zip.records import (
    CENTRAL,
    END,
    END64,
    IS_UTF8,
    LOCAL,
    LOCATOR64,
    MAX16,
    MAX32,
    STORED,
    ZIP64_FIELD,
)
from converter.model.output import Late, Piece, Watched, piece_bytes
from converter.model.tensor import Tensor

_DOS_DATE_1980 = (1 << 5) | 1
_VERSION_ZIP64 = 45


@dataclass(slots=True)
class Crc32:
    """A running CRC-32, from that of what comes before."""

    start: int = 0
    value: int = 0

    def reset(self) -> None:
        self.value = self.start

    def update(self, data: memoryview | bytes, /) -> None:
        self.value = zlib.crc32(data, self.value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A member to be written: its name, its content, and the byte boundary that it starts on.

    `head` comes before the content of a tensor.
    """

    name: str
    content: bytes | Tensor | Late
    head: bytes = b""
    alignment_bytes: int = 64
    crc32: Crc32 = field(default_factory=Crc32)

    @classmethod
    def headed(cls, name: str, head: bytes, content: Tensor) -> Record:
        """Return a member that is `head` and then the bytes of a tensor."""
        return cls(name=name, head=head, content=content, crc32=Crc32(start=zlib.crc32(head)))

    @property
    def nbytes(self) -> int:
        """How many bytes the member has."""
        return len(self.head) + piece_bytes(self.content)

    @property
    def crc(self) -> int:
        """The CRC-32 of the member, known once it has been written."""
        match self.content:
            case bytes():
                return zlib.crc32(self.content)
            case Late():
                return zlib.crc32(self.content.render())
            case Tensor():
                return self.crc32.value


def archive(records: Sequence[Record]) -> list[Piece]:
    """Return the pieces of an uncompressed zip archive, the same bytes for the same records.

    Local headers hold the CRC of what follows them and so are rendered late. Padding before the content is an extra
    field "FB", as PyTorchStreamWriter (caffe2/serialize/inline_container.cc, torch 2.13) writes it.
    """
    pieces: list[Piece] = []
    offset, central_bytes, placed = 0, 0, []
    for record in records:
        extra = _local_extra(record, offset)
        header_bytes = LOCAL.size + len(record.name.encode()) + len(extra)
        pieces.append(Late(nbytes=header_bytes, render=_LocalHeader(record=record, extra=extra)))
        content = record.content
        pieces += [record.head] if record.head else []
        pieces.append(Watched(piece=content, sum=record.crc32) if isinstance(content, Tensor) else content)
        placed.append((record, offset))
        central_bytes += len(_central_header(record, offset, crc=0))
        offset += header_bytes + record.nbytes
    pieces.append(Late(nbytes=central_bytes, render=_CentralDirectory(placed=tuple(placed))))
    pieces.append(_end_records(count=len(records), offset=offset, size=central_bytes))
    return pieces


@dataclass(frozen=True, slots=True, kw_only=True)
class _LocalHeader:
    record: Record
    extra: bytes

    def __call__(self) -> bytes:
        name, size = self.record.name.encode(), self.record.nbytes
        narrow = MAX32 if size >= MAX32 else size
        fixed = LOCAL.pack(
            b"PK\x03\x04",
            *(_VERSION_ZIP64 if size >= MAX32 else 20, IS_UTF8, STORED, 0, _DOS_DATE_1980),
            *(self.record.crc, narrow, narrow, len(name), len(self.extra)),
        )
        return fixed + name + self.extra


@dataclass(frozen=True, slots=True, kw_only=True)
class _CentralDirectory:
    placed: tuple[tuple[Record, int], ...]

    def __call__(self) -> bytes:
        return b"".join(_central_header(record, offset, crc=record.crc) for record, offset in self.placed)


def _local_extra(record: Record, offset: int) -> bytes:
    size = record.nbytes
    wide = struct.pack("<2H2Q", ZIP64_FIELD, 16, size, size) if size >= MAX32 else b""
    unpadded = offset + LOCAL.size + len(record.name.encode()) + len(wide) + 4
    padding = -unpadded % record.alignment_bytes
    return wide + b"FB" + struct.pack("<H", padding) + b"Z" * padding


def _central_header(record: Record, offset: int, *, crc: int) -> bytes:
    name, size = record.name.encode(), record.nbytes
    wide = [value for value in (size, size, offset) if value >= MAX32]
    extra = struct.pack(f"<2H{len(wide)}Q", ZIP64_FIELD, 8 * len(wide), *wide) if wide else b""
    version = _VERSION_ZIP64 if wide else 20
    fixed = CENTRAL.pack(
        b"PK\x01\x02",
        *(version, version, IS_UTF8, STORED, 0, _DOS_DATE_1980),
        *(crc, min(size, MAX32), min(size, MAX32), len(name), len(extra), 0, 0, 0, 0, min(offset, MAX32)),
    )
    return fixed + name + extra


def _end_records(*, count: int, offset: int, size: int) -> bytes:
    end = END.pack(b"PK\x05\x06", 0, 0, *[min(count, MAX16)] * 2, min(size, MAX32), min(offset, MAX32), 0)
    if count < MAX16 and size < MAX32 and offset < MAX32:
        return end
    record = END64.pack(b"PK\x06\x06", 44, *[_VERSION_ZIP64] * 2, 0, 0, count, count, size, offset)
    return record + LOCATOR64.pack(b"PK\x06\x07", 0, offset + size, 1) + end

"""A strict reader of zip archives by position.

Readers of zip files disagree about duplicate names, headers that contradict each other, and data between members;
whatever two of them could read differently is refused here.
"""

from __future__ import annotations

import struct
import unicodedata
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

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
from converter.errors import ReadError, SafetyError
from converter.model.dtype import DType
from converter.model.file import CHUNK_BYTES, Checksum, Location, SourceFile
from converter.model.tensor import Array, ComputedTensor, FileTensor, Tensor

_DEFLATED = 8
_IS_ENCRYPTED, _HAS_DESCRIPTOR, _IS_PATCH, _IS_STRONGLY_ENCRYPTED = 1 << 0, 1 << 3, 1 << 5, 1 << 6
_NO_GAP = frozenset({0})
_DESCRIPTOR_BYTES = frozenset({0, 12, 16, 20, 24})
"""A CRC and two sizes of 4 or 8 bytes, with a signature or without one."""

_MEMBER_LIMIT = 1 << 19
_DIRECTORY_LIMIT_BYTES = 128 << 20
_INFLATE_FREE_BYTES = 16 << 20
_INFLATE_RATIO_LIMIT = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One member: where its stored bytes are in the archive, and what they must come to."""

    name: str
    data_offset: int
    compressed_bytes: int
    uncompressed_bytes: int
    crc32: int
    is_stored: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    raw_name: bytes
    name: str
    flags: int
    method: int
    crc32: int
    compressed_bytes: int
    uncompressed_bytes: int
    local_offset: int


def read_names(file: SourceFile, *, limit: int) -> list[str]:
    """Return the names in the central directory, in its order.

    Raises ReadError when there is no sound directory, or it has more than `limit` entries.
    """
    return [entry.name for entry in _entries(file, limit)[0]]


def read_members(file: SourceFile, *, are_keys: bool = False) -> dict[str, Member]:
    """Return all members by name, every local header checked against the central directory.

    Where names `are_keys` nobody makes files of them: they may differ in case alone, and look like any path.

    Raises ReadError for damage and ambiguity, SafetyError for names that point outside the archive.
    """
    entries, directory_offset = _entries(file, _MEMBER_LIMIT)
    members: dict[str, Member] = {}
    seen: set[str] = set()
    ranges: list[tuple[int, int, _Entry]] = []
    for entry in entries:
        _check_entry(file, entry, are_keys=are_keys)
        folded = unicodedata.normalize("NFC", entry.name.rstrip("/"))
        folded = folded if are_keys else folded.casefold()
        if folded in seen:  # torch, for one, looks members up whatever their case
            raise ReadError(
                f"zip archive has the member {entry.name!r} twice, or one of nearly its name", path=file.path
            )
        seen.add(folded)
        data_offset = _data_offset(file, entry)
        ranges.append((entry.local_offset, data_offset + entry.compressed_bytes, entry))
        members[entry.name] = Member(
            name=entry.name,
            data_offset=data_offset,
            compressed_bytes=entry.compressed_bytes,
            uncompressed_bytes=entry.uncompressed_bytes,
            crc32=entry.crc32,
            is_stored=entry.method == STORED,
        )
    _check_ranges(file, ranges, directory_offset)
    return members


def _check_ranges(file: SourceFile, ranges: list[tuple[int, int, _Entry]], directory_offset: int) -> None:
    """Refuse members that overlap, and bytes that belong to none: they could be members to another reader."""
    end, allowed = 0, _NO_GAP
    for start, stop, entry in sorted(ranges, key=lambda placed: placed[:2]):
        if start < end:
            raise ReadError(f"zip member {entry.name!r} overlaps what is stored beside it", path=file.path)
        if start - end not in allowed:
            raise ReadError(f"zip archive has {start - end} bytes before {entry.name!r}, of no member", path=file.path)
        end, allowed = stop, _DESCRIPTOR_BYTES if entry.flags & _HAS_DESCRIPTOR else _NO_GAP
    if directory_offset < end:
        raise ReadError("zip archive has a member that overlaps its directory", path=file.path)
    if directory_offset - end not in allowed:
        raise ReadError(
            f"zip archive has {directory_offset - end} bytes before its directory, of no member", path=file.path
        )


def read_bytes(file: SourceFile, member: Member, *, limit_bytes: int) -> bytes:
    """Return the content of a member. Raises ReadError when it is larger than `limit_bytes` or damaged."""
    if member.uncompressed_bytes > limit_bytes:
        raise ReadError(
            f"zip member {member.name!r} has {member.uncompressed_bytes} bytes, at most {limit_bytes} are read",
            path=file.path,
        )
    if member.is_stored:
        return b"".join(bytes(chunk) for chunk in checksum(file, member).chunks())
    return b"".join(_inflated(file.chunks(member.data_offset, member.compressed_bytes), member, file.path))


def read_start(file: SourceFile, member: Member, nbytes: int) -> bytes:
    """Return the first bytes of a member, all if it has no more. The CRC is not checked."""
    if member.is_stored:
        return file.read(member.data_offset, min(nbytes, member.uncompressed_bytes))
    found = b""
    for piece in _inflated(file.chunks(member.data_offset, member.compressed_bytes), member, file.path):
        found += piece[: nbytes - len(found)]
        if len(found) == nbytes:
            break
    return found


def checksum(file: SourceFile, member: Member) -> Checksum:
    """Return the CRC of a stored member, to be checked as its bytes are read."""
    whole, offset = file.at(member.data_offset)
    return Checksum(
        file=whole, offset=offset, length=member.uncompressed_bytes, expected=member.crc32, update=zlib.crc32
    )


def member_tensor(
    file: SourceFile,
    member: Member,
    *,
    dtype: DType,
    shape: tuple[int, ...],
    crc: Checksum | None = None,
    head_bytes: int = 0,
) -> Tensor:
    """Return the content of a member behind its first `head_bytes` as a tensor, or its beginning if it is stored.

    Reading checks the CRC. Tensors of one member may share `crc`, so that it is checked once. Raises ReadError when the
    member is too small, and when it is deflated and of another size.
    """
    if member.is_stored:
        crc = crc or checksum(file, member)
        whole, offset = file.at(member.data_offset + head_bytes)
        tensor = FileTensor(dtype=dtype, shape=shape, file=whole, offset=offset, checksum=crc)
        if head_bytes + tensor.nbytes > member.uncompressed_bytes:
            raise _wrong_size(tensor, member, file)
        return tensor
    whole, offset = file.at(member.data_offset)
    compressed = FileTensor(dtype=DType.UINT8, shape=(member.compressed_bytes,), file=whole, offset=offset)
    inflate = Inflate(dtype=dtype, shape=shape, member=member, path=file.path, head_bytes=head_bytes)
    inflated = ComputedTensor(dtype=dtype, shape=shape, inputs=(compressed,), operation=inflate)
    if head_bytes + inflated.nbytes != member.uncompressed_bytes:
        raise _wrong_size(inflated, member, file)
    _check_growth(member, file.path)
    return inflated


def _wrong_size(tensor: Tensor, member: Member, file: SourceFile) -> ReadError:
    return ReadError(
        f"needs {tensor.nbytes} bytes, zip member {member.name!r} has {member.uncompressed_bytes}", path=file.path
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Inflate:
    """The content of a deflated member behind its first `head_bytes`, given its bytes."""

    dtype: DType
    shape: tuple[int, ...]
    member: Member
    path: Location
    head_bytes: int = 0

    def declare(self, inputs: Sequence[Tensor]) -> tuple[DType, tuple[int, ...]]:
        return self.dtype, self.shape

    def __call__(self, *arrays: Array) -> Array:
        inflated = b"".join(_inflated(iter([arrays[0].data]), self.member, self.path))
        return np.frombuffer(inflated, self.dtype.numpy, offset=self.head_bytes).reshape(self.shape)

    def stream(self, inputs: Sequence[Tensor]) -> Iterator[memoryview]:
        left = self.head_bytes
        for piece in _inflated(inputs[0].chunks(), self.member, self.path):
            if len(piece) > left:
                yield memoryview(piece)[left:]
            left = max(left - len(piece), 0)


def _inflated(stored: Iterator[memoryview | bytes], member: Member, path: Location) -> Iterator[bytes]:
    """Yield the content of a member in pieces; the last one only when all of it proved to be whole."""
    _check_growth(member, path)
    inflater, value, left = zlib.decompressobj(-zlib.MAX_WBITS), 0, member.uncompressed_bytes
    piece, extra = b"", 0
    for data in chain(stored, (b"",)):
        extra += len(data) if inflater.eof else 0
        is_full = True
        while (data or is_full) and left >= 0 and not inflater.eof:
            if piece:
                yield piece
            limit = min(CHUNK_BYTES, left + 1)
            try:
                piece = inflater.decompress(data, limit)
            except zlib.error as error:
                raise ReadError(f"zip member {member.name!r} is damaged: {error}", path=path) from error
            value, left = zlib.crc32(piece, value), left - len(piece)
            data, is_full = inflater.unconsumed_tail, len(piece) == limit
    if not inflater.eof or inflater.unused_data or extra or left or value != member.crc32:
        raise ReadError(f"zip member {member.name!r} is damaged: size or CRC mismatch", path=path)
    yield piece


def _check_growth(member: Member, path: Location) -> None:
    if member.uncompressed_bytes > max(_INFLATE_FREE_BYTES, _INFLATE_RATIO_LIMIT * member.compressed_bytes):
        raise ReadError(
            f"zip member {member.name!r} grows from {member.compressed_bytes} to {member.uncompressed_bytes} bytes",
            path=path,
        )


def _entries(file: SourceFile, limit: int) -> tuple[list[_Entry], int]:
    count, size, offset = _directory(file)
    if count > limit:
        raise ReadError(f"zip archive has {count} members, at most {limit} are read", path=file.path)
    if size > _DIRECTORY_LIMIT_BYTES:
        raise ReadError(
            f"zip archive has a directory of {size} bytes, and at most {_DIRECTORY_LIMIT_BYTES} are read",
            path=file.path,
        )
    directory, position, entries = file.read(offset, size), 0, []
    for _ in range(count):
        entry, position = _entry(file, directory, position)
        entries.append(entry)
    if position != size:
        raise ReadError("zip archive has a directory with bytes left over", path=file.path)
    return entries, offset


def _directory(file: SourceFile) -> tuple[int, int, int]:
    """Return number of entries, size and offset of the central directory."""
    start = max(0, file.size - END.size - MAX16)
    tail = file.read(start, file.size - start)
    position = tail.rfind(b"PK\x05\x06")
    while position >= 0 and not _ends_archive(tail, position):
        position = tail.rfind(b"PK\x05\x06", 0, position)
    if position < 0:
        raise _without_end(file, tail, start)
    end_offset = start + position
    _, disk, directory_disk, here, count, size, offset, _ = END.unpack_from(tail, position)
    has_zip64 = end_offset >= LOCATOR64.size and file.read(end_offset - LOCATOR64.size, 4) == b"PK\x06\x07"
    if has_zip64:
        _, locator_disk, record_offset, disks = LOCATOR64.unpack(file.read(end_offset - LOCATOR64.size, LOCATOR64.size))
        if locator_disk or disks > 1 or record_offset + END64.size > end_offset - LOCATOR64.size:
            raise ReadError("zip archive has an impossible zip64 locator", path=file.path)
        narrow = (count, size, offset)
        magic, record_size, _, _, disk, directory_disk, here, count, size, offset = END64.unpack(
            file.read(record_offset, END64.size)
        )
        if magic != b"PK\x06\x06" or record_offset + 12 + record_size != end_offset - LOCATOR64.size:
            raise ReadError("zip archive has a damaged zip64 end record", path=file.path)
        saturated = (MAX16, MAX32, MAX32)
        for small, large, full in zip(narrow, (count, size, offset), saturated, strict=True):
            if small not in (full, large):
                raise ReadError("zip archive has two end records that disagree", path=file.path)
        end_offset = record_offset
    if disk or directory_disk or here != count:
        raise ReadError("zip archive is one volume of several", path=file.path)
    if offset + size != end_offset:
        raise ReadError("zip archive has a directory that is not where its end record says", path=file.path)
    return count, size, offset


def _without_end(file: SourceFile, tail: bytes, start: int) -> ReadError:
    """Return the error for an archive that does not end where its file does."""
    position = tail.rfind(b"PK\x05\x06")
    end = position + END.size
    if position >= 0 and end <= len(tail):
        end += END.unpack_from(tail, position)[7]
    if position < 0 or end >= len(tail):
        return ReadError("zip archive is cut short: its end record is missing", path=file.path)
    count = len(tail) - end
    hint = f"head -c {start + end} FILE > OTHER cuts them off"
    return ReadError(f"zip archive has {count} bytes behind its end that are no padding", path=file.path, hint=hint)


def _ends_archive(tail: bytes, position: int) -> bool:
    """Whether an end record is at `position`, and behind its comment at most zeros: torch opens padded downloads."""
    if position + END.size > len(tail):
        return False
    end = position + END.size + END.unpack_from(tail, position)[7]
    return end <= len(tail) and not any(tail[end:])


def _entry(file: SourceFile, directory: bytes, position: int) -> tuple[_Entry, int]:
    if position + CENTRAL.size > len(directory):
        raise ReadError("zip archive has a directory that is cut short", path=file.path)
    header = CENTRAL.unpack_from(directory, position)
    magic, flags, method, crc32, compressed, uncompressed = header[0], *header[3:5], *header[7:10]
    name_length, extra_length, comment_length, disk, local_offset = *header[10:14], header[16]
    extra_start = position + CENTRAL.size + name_length
    end = extra_start + extra_length + comment_length
    if magic != b"PK\x01\x02" or end > len(directory):
        raise ReadError("zip archive has a damaged directory", path=file.path)
    raw_name = directory[position + CENTRAL.size : extra_start]
    extra = directory[extra_start : extra_start + extra_length]
    uncompressed, compressed, local_offset = _widened(file, extra, (uncompressed, compressed, local_offset))
    if disk not in (0, MAX16):
        raise ReadError("zip archive is one volume of several", path=file.path)
    entry = _Entry(
        raw_name=raw_name,
        name=_decoded(file, raw_name, flags),
        flags=flags,
        method=method,
        crc32=crc32,
        compressed_bytes=compressed,
        uncompressed_bytes=uncompressed,
        local_offset=local_offset,
    )
    return entry, end


def _decoded(file: SourceFile, raw_name: bytes, flags: int) -> str:
    try:
        return raw_name.decode("utf-8" if flags & IS_UTF8 else "cp437")
    except UnicodeDecodeError as error:
        raise ReadError("zip archive has a member name that is not UTF-8", path=file.path) from error


def _widened(file: SourceFile, extra: bytes, values: tuple[int, ...]) -> tuple[int, ...]:
    """Return 32-bit fields with those that are saturated taken from the zip64 extra field."""
    field64, position = None, 0
    while position + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, position)
        if position + 4 + length > len(extra):
            raise ReadError("zip archive has an extra field that is cut short", path=file.path)
        if kind == ZIP64_FIELD:
            if field64 is not None:
                raise ReadError("zip archive has two zip64 fields for one member", path=file.path)
            field64 = extra[position + 4 : position + 4 + length]
        position += 4 + length
    wide, position = list(values), 0
    for index, value in enumerate(values):
        if value == MAX32 and field64 is not None:
            if position + 8 > len(field64):
                raise ReadError("zip archive has a zip64 field that is cut short", path=file.path)
            (wide[index],) = struct.unpack_from("<Q", field64, position)
            position += 8
    return tuple(wide)


def _check_entry(file: SourceFile, entry: _Entry, *, are_keys: bool) -> None:
    if entry.flags & (_IS_ENCRYPTED | _IS_STRONGLY_ENCRYPTED | _IS_PATCH):
        raise ReadError(f"zip member {entry.name!r} is encrypted", path=file.path)
    if entry.method not in (STORED, _DEFLATED):
        raise ReadError(f"zip member {entry.name!r} uses compression method {entry.method}", path=file.path)
    if entry.method == STORED and entry.compressed_bytes != entry.uncompressed_bytes:
        raise ReadError(f"zip member {entry.name!r} is stored and has two sizes", path=file.path)
    parts = entry.name.rstrip("/").split("/")
    is_path_within = "\\" not in entry.name and parts[0] and {".", ".."}.isdisjoint(parts)
    if not entry.name or "\0" in entry.name or not (are_keys or is_path_within):
        raise SafetyError(f"zip member {entry.name!r} has a name that points elsewhere", path=file.path)


def _data_offset(file: SourceFile, entry: _Entry) -> int:
    """Return where the data of a member start. Raises ReadError when its local header contradicts the directory."""
    header = file.read(entry.local_offset, LOCAL.size)
    magic, _, flags, method, _, _, crc32, compressed, uncompressed, name_length, extra_length = LOCAL.unpack(header)
    if magic != b"PK\x03\x04":
        raise ReadError(f"zip member {entry.name!r} has no local header", path=file.path)
    rest = file.read(entry.local_offset + LOCAL.size, name_length + extra_length)
    uncompressed, compressed = _widened(file, rest[name_length:], (uncompressed, compressed))
    agrees = (flags, method, rest[:name_length]) == (entry.flags, entry.method, entry.raw_name)
    declared = (crc32, compressed, uncompressed)
    expected = (entry.crc32, entry.compressed_bytes, entry.uncompressed_bytes)
    is_deferred = bool(flags & _HAS_DESCRIPTOR) and not any(declared)
    if not agrees or (declared != expected and not is_deferred):
        raise ReadError(f"zip member {entry.name!r} has a local header that contradicts the directory", path=file.path)
    header_bytes: int = LOCAL.size + name_length + extra_length
    return entry.local_offset + header_bytes


# --- writing

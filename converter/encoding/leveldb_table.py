"""The sorted table of LevelDB, which TensorFlow keeps checkpoint indices in.

https://github.com/google/leveldb/blob/main/doc/table_format.md. Blocks of prefix-compressed entries, each with a
compression byte and a masked CRC-32C behind it; a block that lists the blocks; a footer that says where that is.
The table is read from front to back, and every key must be greater than the one before.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from converter.encoding import crc32c
from converter.encoding.protobuf import read_varint, varint
from converter.encoding.snappy import uncompressed
from converter.errors import ReadError
from converter.model.file import SourceFile

MAGIC = bytes.fromhex("57fb808b247547db")
_FOOTER_BYTES = 48
_TRAILER_BYTES = 5
_UNCOMPRESSED, _SNAPPY = 0, 1
_RESTART_INTERVAL = 16
_BLOCK_BYTES = 256 << 10
_TABLE_LIMIT_BYTES = 256 << 20
_KEY_LIMIT_BYTES = 64 << 10
_ALL_KEYS_LIMIT_BYTES = 256 << 20


def read_table(file: SourceFile, *, limit_bytes: int = _TABLE_LIMIT_BYTES) -> Iterator[tuple[bytes, memoryview]]:
    """Yield the entries of a table, of at most so many bytes, in order of their keys.

    Raises ReadError for a damaged block, a block outside the file, and keys that repeat or go back.
    """
    previous: bytes | None = None
    all_keys_bytes = blocks_end = 0
    for _, handle in _block_entries(_read_block(file, _index_handle(file, limit_bytes)), file):
        offset, length = _extent(handle, file)
        if offset < blocks_end:
            raise ReadError("has blocks that overlap or go back", path=file.path)
        blocks_end = offset + length
        for key, value in _block_entries(_read_block(file, handle), file):
            if previous is not None and key <= previous:
                what = "twice" if key == previous else "out of order"
                raise ReadError(f"lists {key.decode('utf-8', 'replace')!r} {what}", path=file.path)
            all_keys_bytes += len(key)
            if all_keys_bytes > _ALL_KEYS_LIMIT_BYTES:
                raise ReadError(f"has keys of more than {_ALL_KEYS_LIMIT_BYTES} bytes in all", path=file.path)
            yield key, value
            previous = key


def _index_handle(file: SourceFile, limit_bytes: int) -> memoryview:
    if not _FOOTER_BYTES <= file.size <= limit_bytes:
        raise ReadError(f"has {file.size} bytes, which no checkpoint index has", path=file.path)
    footer = memoryview(file.read(file.size - _FOOTER_BYTES, _FOOTER_BYTES))
    if footer[-8:] != MAGIC:
        raise ReadError("is no checkpoint index, or is cut off: its last bytes are not a table's", path=file.path)
    position = 0
    for _ in range(2):  # the handle of the metadata block, which TensorFlow leaves empty, comes first
        _, position = read_varint(footer, position, file.path)
    return footer[position:-8]


def _extent(handle: memoryview, file: SourceFile) -> tuple[int, int]:
    offset, position = read_varint(handle, 0, file.path)
    length, _ = read_varint(handle, position, file.path)
    if offset + length + _TRAILER_BYTES > file.size - _FOOTER_BYTES:
        raise ReadError(f"has a block of {length} bytes at {offset}, which is not inside it", path=file.path)
    return offset, length


def _read_block(file: SourceFile, handle: memoryview) -> memoryview:
    offset, length = _extent(handle, file)
    block = memoryview(file.read(offset, length + _TRAILER_BYTES))
    if crc32c.mask(crc32c.update(block[: length + 1])) != int.from_bytes(block[length + 1 :], "little"):
        raise ReadError(f"CRC mismatch in the block at byte {offset}: the file is damaged", path=file.path)
    if block[length] == _SNAPPY:
        return memoryview(uncompressed(block[:length], file.path))
    if block[length] != _UNCOMPRESSED:
        raise ReadError(f"has blocks compressed with method {block[length]}, which are not read", path=file.path)
    return block[:length]


def _block_entries(block: memoryview, file: SourceFile) -> Iterator[tuple[bytes, memoryview]]:
    end, restarts = _restart_points(block, file)
    key, position, restarts_met = b"", 0, 0
    while position < end:
        is_restart = restarts_met < len(restarts) and position == restarts[restarts_met]
        restarts_met += is_restart
        shared, position = read_varint(block, position, file.path)
        unshared, position = read_varint(block, position, file.path)
        value_length, position = read_varint(block, position, file.path)
        if shared > (0 if is_restart else len(key)) or unshared + value_length > end - position:
            raise ReadError("has an entry that runs past its block", path=file.path)
        if shared + unshared > _KEY_LIMIT_BYTES:
            raise ReadError(f"has a key of {shared + unshared} bytes", path=file.path)
        key = key[:shared] + bytes(block[position : position + unshared])
        position += unshared
        yield key, block[position : position + value_length]
        position += value_length
    if restarts_met != len(restarts) and end:
        raise ReadError("has a block with impossible restart points", path=file.path)


def _restart_points(block: memoryview, file: SourceFile) -> tuple[int, NDArray[np.uint32]]:
    """Return where the entries of a block end, and at which of them its keys start anew."""
    count = int.from_bytes(block[-4:], "little") if len(block) >= 4 else 0
    end = len(block) - 4 - 4 * count
    if count == 0 or end < 0:
        raise ReadError("has a block with impossible restart points", path=file.path)
    return end, np.frombuffer(block[end:-4], dtype="<u4")


def build_table(entries: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return a table of `entries`, whose keys must rise. Its size depends on the sizes of keys and values alone."""
    table, index = bytearray(), []
    for block_entries in _blocks(entries):
        index.append((block_entries[-1][0], _append_block(table, block_entries)))
    metadata_handle = _append_block(table, [])
    handles = metadata_handle + _append_block(table, index)
    return bytes(table) + handles.ljust(_FOOTER_BYTES - len(MAGIC), b"\0") + MAGIC


def _blocks(entries: Iterable[tuple[bytes, bytes]]) -> Iterator[list[tuple[bytes, bytes]]]:
    block: list[tuple[bytes, bytes]] = []
    block_bytes = 0
    for key, value in entries:
        block.append((key, value))
        block_bytes += len(key) + len(value)
        if block_bytes >= _BLOCK_BYTES:
            yield block
            block, block_bytes = [], 0
    if block:
        yield block


def _append_block(table: bytearray, entries: list[tuple[bytes, bytes]]) -> bytes:
    """Append a block and what comes behind it; return its handle."""
    block, restarts, previous = bytearray(), [0], b""
    for number, (key, value) in enumerate(entries):
        shared = 0
        if number % _RESTART_INTERVAL:
            shared = next((at for at, (a, b) in enumerate(zip(previous, key, strict=False)) if a != b), len(previous))
        elif number:
            restarts.append(len(block))
        block += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
        previous = key
    block += b"".join(number.to_bytes(4, "little") for number in (*restarts, len(restarts)))
    handle = varint(len(table)) + varint(len(block))
    block.append(_UNCOMPRESSED)
    table += block + crc32c.mask(crc32c.update(block)).to_bytes(4, "little")
    return handle

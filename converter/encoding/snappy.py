"""Bytes compressed with Snappy, as the blocks of some checkpoint indices are.

https://github.com/google/snappy/blob/main/format_description.txt: the length, then pieces that are literal bytes or a
copy of what came before.
"""

from __future__ import annotations

from converter.encoding.protobuf import read_varint
from converter.errors import ReadError

_LARGEST_RATIO = 22
"""A piece of three bytes makes 64, no other makes more of a byte."""
_LITERAL, _NEAR, _FARTHER = 0, 1, 2
_SHORT_LITERALS = 60


def uncompressed(data: memoryview, path: object) -> bytes:
    """Return the bytes that `data` stands for.

    Raises ReadError for what is cut short, a copy from outside, and another length than is declared: no more memory is
    taken than 22 times the bytes that there are.
    """
    declared, position = read_varint(data, 0, path)
    if declared > _LARGEST_RATIO * len(data):
        raise ReadError(f"declares {declared} bytes in a Snappy block of {len(data)}", path=path)
    found = bytearray()
    while position < len(data):
        tag = data[position]
        kind, length, number = tag & 3, (tag >> 2) + 1, 0
        if kind == _LITERAL:
            more = max(0, length - _SHORT_LITERALS)
        elif kind == _NEAR:
            more, length, number = 1, 4 + (tag >> 2 & 7), tag >> 5 << 8
        else:
            more = 2 if kind == _FARTHER else 4
        position += 1 + more
        if position > len(data):
            raise ReadError("has a Snappy block that is cut short", path=path)
        number += int.from_bytes(data[position - more : position], "little")
        if kind == _LITERAL:
            length = number + 1 if more else length
            if position + length > len(data):
                raise ReadError("has a Snappy block that is cut short", path=path)
            found += data[position : position + length]
            position += length
        else:
            if not 0 < number <= len(found):
                raise ReadError("has a Snappy block that copies from outside itself", path=path)
            piece = bytes(found[len(found) - number :][:length])
            found += (piece * (length // len(piece) + 1))[:length]
        if len(found) > declared:
            break
    if len(found) != declared:
        raise ReadError(f"has a Snappy block of another length than the {declared} bytes that it declares", path=path)
    return bytes(found)

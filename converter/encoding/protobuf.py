"""The protocol buffer wire format, without schemas or generated code.

https://protobuf.dev/programming-guides/encoding/. Nothing here recurses: a nested message is bytes until its caller
asks for its fields, so depth is bounded by the reader's code and not by the file.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from converter.errors import ReadError

VARINT, FIXED64, LENGTH_DELIMITED, FIXED32 = 0, 1, 2, 5

_VARINT_LIMIT_BYTES = 10
_FIELD_NUMBER_LIMIT = 1 << 29
_WORD = (1 << 64) - 1

Value = int | memoryview


def read_varint(data: memoryview, position: int, path: object = None) -> tuple[int, int]:
    """Return an unsigned 64-bit varint and the position after it.

    Raises ReadError when the data ends inside it, or when it takes more than 10 bytes or 64 bits.
    """
    value = 0
    for count in range(_VARINT_LIMIT_BYTES):
        if position + count >= len(data):
            raise ReadError("ends inside a number", path=path)
        byte = data[position + count]
        value |= (byte & 0x7F) << (7 * count)
        if byte < 0x80:
            if value > _WORD:
                break
            return value, position + count + 1
    raise ReadError("holds a number of more than 64 bits", path=path)


def fields(data: bytes | memoryview, path: object = None) -> Iterator[tuple[int, int, Value]]:
    """Yield (field number, wire type, value) of a message, in its order.

    Values are unsigned ints for VARINT, FIXED64 and FIXED32, and views into `data` for LENGTH_DELIMITED.
    Raises ReadError for groups, unknown wire types, field numbers out of range and anything that runs past the end.
    """
    view, position = memoryview(data), 0
    while position < len(view):
        key, position = read_varint(view, position, path)
        number, wire_type = key >> 3, key & 7
        if not 0 < number < _FIELD_NUMBER_LIMIT:
            raise ReadError(f"holds a message with the impossible field number {number}", path=path)
        if wire_type == VARINT:
            value, position = read_varint(view, position, path)
            yield number, wire_type, value
            continue
        if wire_type == LENGTH_DELIMITED:
            length, position = read_varint(view, position, path)
        elif wire_type in (FIXED32, FIXED64):
            length = 4 if wire_type == FIXED32 else 8
        else:
            raise ReadError(f"holds a message with wire type {wire_type}, which is not read", path=path)
        if length > len(view) - position:
            raise ReadError(f"field {number} of a message runs past its end", path=path)
        content, position = view[position : position + length], position + length
        is_fixed = wire_type != LENGTH_DELIMITED
        yield number, wire_type, int.from_bytes(content, "little") if is_fixed else content


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """The known fields of one message. A singular field that is absent has proto3's default."""

    numbers: Mapping[int, list[int]]
    contents: Mapping[int, list[memoryview]]
    path: object = None

    @classmethod
    def parse(cls, data: bytes | memoryview, known: Mapping[int, int], path: object = None) -> Message:
        """Sort the fields of `data` by number. `known` says which wire type each must have; others are passed over.

        Raises ReadError as `fields` does, and for a known field of another wire type.
        """
        numbers: dict[int, list[int]] = {}
        contents: dict[int, list[memoryview]] = {}
        for number, wire_type, value in fields(data, path):
            expected = known.get(number)
            if expected is None:
                continue
            if wire_type != expected:
                raise ReadError(f"field {number} of a message has wire type {wire_type}, not {expected}", path=path)
            if isinstance(value, int):
                numbers.setdefault(number, []).append(value)
            else:
                contents.setdefault(number, []).append(value)
        return cls(numbers=numbers, contents=contents, path=path)

    def unsigned(self, number: int) -> int:
        """Return a singular number. Raises ReadError when it is there twice."""
        values = self.numbers.get(number, [0])
        if len(values) > 1:
            raise ReadError(f"field {number} of a message is there {len(values)} times", path=self.path)
        return values[0]

    def signed(self, number: int) -> int:
        """Return a singular int32 or int64. Raises ReadError when it is there twice."""
        value = self.unsigned(number)
        return value - (1 << 64) if value >> 63 else value

    def content(self, number: int) -> memoryview:
        """Return a singular string, bytes or nested message. Raises ReadError when it is there twice."""
        values = self.contents.get(number, [memoryview(b"")])
        if len(values) > 1:
            raise ReadError(f"field {number} of a message is there {len(values)} times", path=self.path)
        return values[0]

    def text(self, number: int) -> str:
        """Return a singular string. Raises ReadError when it is there twice or is not UTF-8."""
        return as_text(self.content(number), self.path)

    def repeated(self, number: int) -> list[memoryview]:
        """Return all values of a repeated string, bytes or message field."""
        return self.contents.get(number, [])

    def has(self, number: int) -> bool:
        """Whether the field is there at all."""
        return number in self.numbers or number in self.contents


def as_text(data: bytes | memoryview, path: object = None) -> str:
    """Return UTF-8 bytes as text. Raises ReadError when they are not UTF-8."""
    try:
        return bytes(data).decode("utf-8")
    except UnicodeDecodeError as error:
        raise ReadError(f"holds the name {bytes(data)!r}, which is not UTF-8", path=path) from error


def varint(value: int) -> bytes:
    """Encode an int64 or uint64."""
    value &= _WORD
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def tag(number: int, wire_type: int) -> bytes:
    """Encode what comes before a field's value."""
    return varint(number << 3 | wire_type)


def number_field(number: int, value: int) -> bytes:
    """Encode a varint field; zero is proto3's default and takes no bytes."""
    return tag(number, VARINT) + varint(value) if value else b""


def encoded_field(number: int, wire_type: int, value: Value) -> bytes:
    """Encode a field as `fields` yields it."""
    if not isinstance(value, int):
        return content_field(number, bytes(value))
    if wire_type == VARINT:
        return tag(number, VARINT) + varint(value)
    return tag(number, wire_type) + value.to_bytes(4 if wire_type == FIXED32 else 8, "little")


def fixed32_field(number: int, value: int) -> bytes:
    """Encode a fixed32 field, zero included, so that its size does not depend on its value."""
    return tag(number, FIXED32) + value.to_bytes(4, "little")


def content_field(number: int, content: bytes | str) -> bytes:
    """Encode a string, bytes or nested message field, empty ones included."""
    data = content.encode("utf-8") if isinstance(content, str) else content
    return tag(number, LENGTH_DELIMITED) + varint(len(data)) + data


def content_fields(number: int, contents: Iterable[bytes | str]) -> bytes:
    """Encode a repeated string, bytes or message field."""
    return b"".join(content_field(number, content) for content in contents)

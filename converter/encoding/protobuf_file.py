"""Messages of protocol buffers in a file, whose long fields are ranges of it: nothing long is read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from converter.encoding import protobuf
from converter.encoding.protobuf import FIXED32, FIXED64, LENGTH_DELIMITED, VARINT, Message
from converter.errors import ReadError
from converter.model.file import Location

_ENTRY = {1: LENGTH_DELIMITED, 2: LENGTH_DELIMITED}
_WINDOW_BYTES = 4096
_TEXT_LIMIT_BYTES = 64 << 20
_VARINT_LIMIT_BYTES = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """Where the content of a field is in the file."""

    start: int
    stop: int

    @property
    def nbytes(self) -> int:
        """Bytes of the content."""
        return self.stop - self.start


class Readable(Protocol):
    """What messages are read from: a file, or a `Window`."""

    path: Location

    def read(self, offset: int, nbytes: int) -> bytes:
        """Return bytes of the file. Raises ReadError when it ends before that."""


class Window:
    """A part of a file that is in memory, read by the file's own positions."""

    def __init__(self, file: Readable, within: Range) -> None:
        self.path = file.path
        self._start, self._data = within.start, file.read(within.start, within.nbytes)

    @property
    def is_ascii(self) -> bool:
        """Whether all of it is ASCII: so is then every name in it, which is faster to say."""
        return self._data.isascii()

    def read(self, offset: int, nbytes: int) -> bytes:
        """Return bytes of the file, which must be among those that are here."""
        return self._data[offset - self._start : offset - self._start + nbytes]


Field = tuple[int, int, int | Range]


def fields(file: Readable, within: Range) -> Iterator[Field]:
    """Yield (field number, wire type, value) of the message in a range of the file, as encoding.protobuf does.

    Values are ints for VARINT, and ranges for all else: nothing long is read. Raises ReadError for what is malformed.
    """
    position, window, window_start = within.start, memoryview(b""), within.start
    while position < within.stop:
        if position + 2 * _VARINT_LIMIT_BYTES > window_start + len(window):
            window_start = position
            window = memoryview(file.read(position, min(_WINDOW_BYTES, within.stop - position)))
        key, relative = protobuf.read_varint(window, position - window_start, file.path)
        number, wire_type = key >> 3, key & 7
        if number == 0:
            raise ReadError("holds a message with the impossible field number 0", path=file.path)
        if wire_type == VARINT:
            value, relative = protobuf.read_varint(window, relative, file.path)
            position = window_start + relative
            yield number, wire_type, value
            continue
        if wire_type == LENGTH_DELIMITED:
            length, relative = protobuf.read_varint(window, relative, file.path)
        elif wire_type in (FIXED32, FIXED64):
            length = 4 if wire_type == FIXED32 else 8
        else:
            raise ReadError(f"holds a message with wire type {wire_type}, which is not read", path=file.path)
        start = window_start + relative
        position = start + length
        if position > within.stop:
            raise ReadError(f"field {number} of a message runs past its end", path=file.path)
        yield number, wire_type, Range(start=start, stop=position)


def contents(file: Readable, within: Range, numbers: Sequence[int]) -> Iterator[tuple[int, Range]]:
    """Yield (field number, content) of those fields, which must be length-delimited; others are passed over."""
    for number, wire_type, value in fields(file, within):
        if number in numbers:
            if wire_type != LENGTH_DELIMITED or not isinstance(value, Range):
                raise wrong_wire_type(file, number)
            yield number, value


def wrong_wire_type(file: Readable, number: int) -> ReadError:
    """Return the error for a field that is not encoded as its number says."""
    return ReadError(f"field {number} of a message has another wire type than it should", path=file.path)


def read_text(file: Readable, value: Range) -> str:
    """Return a string. Raises ReadError when it is not UTF-8."""
    return protobuf.as_text(read_bytes(file, value), file.path)


def read_entry(file: Readable, value: Range) -> tuple[str, str]:
    """Return key and value of a StringStringEntryProto."""
    message = Message.parse(read_bytes(file, value), _ENTRY, file.path)
    return message.text(1), message.text(2)


def read_bytes(file: Readable, value: Range) -> bytes:
    """Return the content of a field. Raises ReadError where it is longer than any text."""
    if value.nbytes > _TEXT_LIMIT_BYTES:
        raise ReadError(
            f"holds a text of {value.nbytes} bytes, and at most {_TEXT_LIMIT_BYTES} are read", path=file.path
        )
    return file.read(value.start, value.nbytes)

"""MessagePack, read by position and written in pieces: long values are ranges of the file, never copied.

https://github.com/msgpack/msgpack/blob/master/spec.md
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any, Protocol

from converter.errors import ReadError
from converter.model.file import SourceFile

_WINDOW_BYTES = 4096
_DEPTH_LIMIT = 64
_ITEM_LIMIT = 5_000_000
_TEXT_LIMIT_BYTES = 1 << 20
_NUMBERS = {
    0xCA: ">f", 0xCB: ">d", 0xCC: ">B", 0xCD: ">H", 0xCE: ">I", 0xCF: ">Q",
    0xD0: ">b", 0xD1: ">h", 0xD2: ">i", 0xD3: ">q",
}  # fmt: skip
_CONSTANTS = {0xC0: None, 0xC2: False, 0xC3: True}
_BINARY = {0xC4: 1, 0xC5: 2, 0xC6: 4}
_EXTENSION = {0xC7: 1, 0xC8: 2, 0xC9: 4}
_FIXED_EXTENSION = {0xD4: 1, 0xD5: 2, 0xD6: 4, 0xD7: 8, 0xD8: 16}
_TEXT = {0xD9: 1, 0xDA: 2, 0xDB: 4}
_ARRAY = {0xDC: 2, 0xDD: 4}
_MAP = {0xDE: 2, 0xDF: 4}


@dataclass(frozen=True, slots=True, kw_only=True)
class Binary:
    """A byte string: a range of the file."""

    offset: int
    length: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Extension:
    """A value of an application's own type `code` (-128 to 127): a range of the file."""

    code: int
    offset: int
    length: int


Value = Any
"""None, bool, int, float, str, Binary, Extension, list of values, or dict of str -> value."""


class _Stop(Exception):  # noqa: N818 - not an error
    """A scan has seen what it was made for."""


class Source(Protocol):
    """Bytes by position: a SourceFile, or the start of one."""

    size: int

    def read(self, offset: int, length: int) -> bytes:
        """Return `length` bytes from `offset`."""


def read(file: SourceFile, start: int = 0, stop: int | None = None) -> Value:
    """Return the one value that `file` holds between `start` and `stop`; byte strings and extensions stay unread.

    Raises ReadError for anything malformed or truncated, a second value, keys that are not text or are there twice,
    text that is not UTF-8 or longer than 1 MiB, and more than 64 levels or 5 million values.
    """
    reader = _Reader(file, start, file.size if stop is None else stop)
    try:
        value = reader.value(0)
        reader.check_ended()
    except ReadError as error:
        raise ReadError(error.message, path=file.path, tensor=error.tensor) from error
    return value


def starts_with_map_of_extensions(head: bytes, size: int) -> bool:
    """Whether `head`, the start of `size` bytes, is a map whose first long value is an extension, or may yet be."""
    reader = _Reader(_Head(head, size), 0, size, stops_at_extension=True)
    if not head or not _is_map(head[0]):
        return False
    try:
        reader.value(0)
    except _Stop:
        return True
    except ReadError:
        return False
    return False


def _is_map(first: int) -> bool:
    return first >> 4 == 0x8 or first in _MAP


class _Head:
    """The start of a file whose end cannot be seen."""

    def __init__(self, data: bytes, size: int) -> None:
        self.data = data
        self.size = size

    def read(self, offset: int, length: int) -> bytes:
        if offset >= len(self.data) and offset < self.size:
            raise _Stop
        return self.data[offset : offset + length]


class _Reader:
    """A position in a source, and what is left of the limits."""

    def __init__(self, source: Source, start: int, stop: int, *, stops_at_extension: bool = False) -> None:
        self.source = source
        self.position = start
        self.stop = stop
        self.stops_at_extension = stops_at_extension
        self.items = 0
        self._window = b""
        self._window_start = start

    def value(self, depth: int) -> Value:
        self.items += 1
        if self.items > _ITEM_LIMIT or depth > _DEPTH_LIMIT:
            raise ReadError(f"holds more than {_ITEM_LIMIT} values, or is nested more than {_DEPTH_LIMIT} deep")
        first = self._take(1)[0]
        if first < 0x80:
            return first
        if first >= 0xE0:
            return first - 0x100
        if first in _CONSTANTS:
            return _CONSTANTS[first]
        if first in _NUMBERS:
            code = _NUMBERS[first]
            return struct.unpack(code, self._take(struct.calcsize(code)))[0]
        if _is_map(first):
            return self._map(self._length(first, _MAP, 0x0F), depth)
        if first >> 4 == 0x9 or first in _ARRAY:
            return self._array(self._length(first, _ARRAY, 0x0F), depth)
        if first >> 5 == 0b101 or first in _TEXT:
            return self._text(self._length(first, _TEXT, 0x1F))
        if first in _BINARY:
            length = self._length(first, _BINARY, 0)
            return Binary(offset=self._skip(length), length=length)
        if first in _EXTENSION or first in _FIXED_EXTENSION:
            return self._extension(first)
        raise ReadError(f"has the byte {first:#x} at {self.position - 1}, where no value starts with that")

    def check_ended(self) -> None:
        if self.position != self.stop:
            raise ReadError(f"has {self.stop - self.position} bytes after its end")

    def _map(self, count: int, depth: int) -> dict[str, Value]:
        self._check_room(2 * count)
        values: dict[str, Value] = {}
        for _ in range(count):
            key = self.value(depth + 1)
            if type(key) is not str:
                raise ReadError(f"has a key that is {type(key).__name__}, not text")
            if key in values:
                raise ReadError(f"has the key {key!r} twice in one map")
            values[key] = self.value(depth + 1)
        return values

    def _array(self, count: int, depth: int) -> list[Value]:
        self._check_room(count)
        return [self.value(depth + 1) for _ in range(count)]

    def _text(self, length: int) -> str:
        if length > _TEXT_LIMIT_BYTES:
            raise ReadError(f"holds a text of {length} bytes, and at most {_TEXT_LIMIT_BYTES} are read")
        data = self._take(length)
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError as error:
            raise ReadError(f"holds the text {data[:100]!r}, which is not UTF-8") from error

    def _extension(self, first: int) -> Extension:
        length = _FIXED_EXTENSION.get(first)
        if length is None:
            length = int.from_bytes(self._take(_EXTENSION[first]), "big")
        (code,) = struct.unpack(">b", self._take(1))
        extension = Extension(code=code, offset=self._skip(length), length=length)
        if self.stops_at_extension:
            raise _Stop
        return extension

    def _length(self, first: int, width_bytes: dict[int, int], mask: int) -> int:
        """Return the length that follows `first`, or that is in its low bits."""
        width = width_bytes.get(first)
        return first & mask if width is None else int.from_bytes(self._take(width), "big")

    def _check_room(self, values: int) -> None:
        if values > self.stop - self.position:
            raise ReadError(f"says it has {values} values in {self.stop - self.position} bytes")

    def _skip(self, length: int) -> int:
        start = self.position
        if length > self.stop - start:
            raise ReadError(f"needs {length} bytes at {start}, and ends at {self.stop}")
        self.position += length
        return start

    def _take(self, length: int) -> bytes:
        start = self._skip(length)
        if not self._window_start <= start or start + length > self._window_start + len(self._window):
            span = min(max(length, _WINDOW_BYTES), self.stop - start)
            self._window, self._window_start = self.source.read(start, span), start
            if len(self._window) < length:
                raise _Stop
        relative = start - self._window_start
        return self._window[relative : relative + length]


def map_header(count: int) -> bytes:
    """Encode what comes before the keys and values of a map."""
    return _header(count, 0x80, 0x0F, _MAP)


def array_header(count: int) -> bytes:
    """Encode what comes before the values of an array."""
    return _header(count, 0x90, 0x0F, _ARRAY)


def text(value: str) -> bytes:
    """Encode text. Raises UnicodeEncodeError for half a surrogate pair."""
    data = value.encode("utf-8")
    return text_header(len(data)) + data


def text_header(length: int) -> bytes:
    """Encode what comes before the bytes of a text."""
    return _header(length, 0xA0, 0x1F, _TEXT)


def binary_header(length: int) -> bytes:
    """Encode what comes before a byte string."""
    return _header(length, 0, -1, _BINARY)


def extension_header(code: int, length: int) -> bytes:
    """Encode what comes before the bytes of an extension."""
    fixed = next((first for first, width in _FIXED_EXTENSION.items() if width == length), None)
    start = _header(length, 0, -1, _EXTENSION) if fixed is None else bytes([fixed])
    return start + struct.pack(">b", code)


def number(value: int) -> bytes:
    """Encode an integer of -(2**63) to 2**64 - 1 in the fewest bytes. Raises ValueError for any other."""
    if -0x20 <= value < 0x80:
        return struct.pack(">b", value)
    codes = (0xCC, 0xCD, 0xCE, 0xCF) if value > 0 else (0xD0, 0xD1, 0xD2, 0xD3)
    for code in codes:
        width_bits = 8 * struct.calcsize(_NUMBERS[code])
        if -(1 << width_bits - 1) <= value if value < 0 else value < 1 << width_bits:
            return bytes([code]) + struct.pack(_NUMBERS[code], value)
    raise ValueError(f"{value} does not fit 64 bits")


def _header(length: int, short: int, short_limit: int, widths: dict[int, int]) -> bytes:
    if length <= short_limit:
        return bytes([short | length])
    for first, width in widths.items():
        if length < 1 << 8 * width:
            return bytes([first]) + length.to_bytes(width, "big")
    raise ValueError(f"{length} does not fit 32 bits")

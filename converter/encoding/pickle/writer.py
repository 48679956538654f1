"""A pickle writer of protocol 2, for what torch.load(weights_only=True) reads back: plain data and a few calls."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

from converter.encoding.pickle.globals import Global

_ORDERED_DICT = Global(module="collections", name="OrderedDict")
_ENCODE = Global(module="_codecs", name="encode")
_SET = Global(module="__builtin__", name="set")
_COMPLEX = Global(module="__builtin__", name="complex")


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """The result of a function, called when the pickle is loaded."""

    function: Global
    arguments: tuple[Any, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Persistent:
    """What the loader finds by an identity of its own."""

    identity: tuple[Any, ...]


def ordered_dict() -> Call:
    """Return an empty collections.OrderedDict."""
    return Call(function=_ORDERED_DICT, arguments=())


@dataclass(frozen=True, slots=True, kw_only=True)
class Ordered:
    """A collections.OrderedDict with these items, and attributes, None for none."""

    items: dict[Any, Any]
    attributes: dict[str, Any] | None = None


def dumps(value: Any) -> bytes:
    """Return the pickle of plain Python data, `Call`, `Persistent`, `Ordered` and `Global`; equal data, equal bytes.

    Raises TypeError for anything else.
    """
    parts = [b"\x80\x02"]
    _write(value, parts)
    parts.append(b".")
    return b"".join(parts)


def _write(value: Any, parts: list[bytes]) -> None:
    match value:
        case bytes() | complex() | set() | frozenset():
            _write(_as_call(value), parts)
        case tuple():
            _write_tuple(value, parts)
        case list():
            parts.append(b"]")
            _write_many(value, b"e", parts)
        case dict():
            parts.append(b"}")
            _write_items(value, parts)
        case Ordered():
            _write(ordered_dict(), parts)
            _write_items(value.items, parts)
            if value.attributes:
                _write(value.attributes, parts)
                parts.append(b"b")
        case Call():
            _write(value.function, parts)
            _write_tuple(value.arguments, parts)
            parts.append(b"R")
        case Persistent():
            _write_tuple(value.identity, parts)
            parts.append(b"Q")
        case _:
            parts.append(_atom(value))


def _atom(value: Any) -> bytes:
    """Return the opcode of a value that holds no others."""
    match value:
        case None:
            return b"N"
        case bool():
            return b"\x88" if value else b"\x89"
        case int():
            return _integer(value)
        case float():
            return b"G" + struct.pack(">d", value)
        case str():
            data = value.encode("utf-8", "surrogatepass")
            return b"X" + struct.pack("<I", len(data)) + data
        case Global():
            return f"c{value.module}\n{value.name}\n".encode()
    raise TypeError(f"{type(value).__name__} has no pickle here")


def _as_call(value: bytes | complex | set[Any] | frozenset[Any]) -> Call:
    """Return the call that makes a value for which protocol 2 has no opcode."""
    match value:
        case bytes():
            return Call(function=_ENCODE, arguments=(value.decode("latin-1"), "latin1"))
        case complex():
            return Call(function=_COMPLEX, arguments=(value.real, value.imag))
    return Call(function=_SET, arguments=(sorted(value, key=repr),))


def _write_items(items: dict[Any, Any], parts: list[bytes]) -> None:
    _write_many([part for item in items.items() for part in item], b"u", parts)


def _write_many(values: list[Any], opcode: bytes, parts: list[bytes]) -> None:
    if values:
        parts.append(b"(")
        for value in values:
            _write(value, parts)
        parts.append(opcode)


def _write_tuple(values: tuple[Any, ...], parts: list[bytes]) -> None:
    if not values:
        parts.append(b")")
        return
    if len(values) > 3:
        parts.append(b"(")
    for value in values:
        _write(value, parts)
    parts.append(b"t" if len(values) > 3 else (b"\x85", b"\x86", b"\x87")[len(values) - 1])


def _integer(value: int) -> bytes:
    if 0 <= value < 1 << 8:
        return b"K" + struct.pack("<B", value)
    if 0 <= value < 1 << 16:
        return b"M" + struct.pack("<H", value)
    if -(1 << 31) <= value < 1 << 31:
        return b"J" + struct.pack("<i", value)
    data = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + struct.pack("<B", len(data)) + data

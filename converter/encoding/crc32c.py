"""CRC-32C (Castagnoli, RFC 3720 appendix B.4) at some gigabytes per second, and the masking of LevelDB.

A CRC is the remainder of the message, read as a polynomial over GF(2), divided by P. Nothing changes when a multiple
of P is added to the message, and P has the multiple x^6777 + x^484 + x^100 + 1. Squaring a polynomial over GF(2)
doubles its exponents, so for every k there is one with exponents 2^k times as large: with k = 6 they count 64-bit
words, and a leading word can be struck out by adding it to three words further on, which numpy does for 6293 words
at a time. What is left, at most 6777 words, is halved again and again: the first half, advanced over the length of
the second by a table, is added to the second.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

_REFLECTED_POLYNOMIAL = 0x82F63B78
_MASK_DELTA = 0xA282EAD8
_ONES = 0xFFFFFFFF

_MULTIPLE_WORDS = 6777
"""Degree of the sparse multiple, in words; its other exponents are 484, 100 and 0."""
_TARGET_WORDS = (6777 - 484, 6777 - 100, 6777)
"""How much further on a struck-out word is added."""
_BYTEWISE_LIMIT_BYTES = 512

Words = NDArray[np.uint32]


def update(data: bytes | bytearray | memoryview, value: int = 0) -> int:
    """Return the CRC-32C of what `value` is the CRC of, followed by `data`: called as zlib.crc32 is."""
    view = memoryview(data).cast("B")
    register = value ^ _ONES
    if len(view) < _BYTEWISE_LIMIT_BYTES:
        return _bytewise(view, register) ^ _ONES
    return _remainder(_struck_out(_words(view, register))) ^ _ONES


def mask(value: int) -> int:
    """Return `value` as LevelDB and TensorFlow store it, so that a CRC of data with CRCs in it stays a good one."""
    return (((value >> 15) | (value << 17)) + _MASK_DELTA) & _ONES


def unmask(value: int) -> int:
    """Return the CRC that is stored as `value`."""
    rotated = (value - _MASK_DELTA) & _ONES
    return ((rotated >> 17) | (rotated << 15)) & _ONES


def _bytewise(view: memoryview, register: int) -> int:
    table = _byte_table()
    for byte in view:
        register = table[(register ^ byte) & 0xFF] ^ (register >> 8)
    return register


def _words(view: memoryview, register: int) -> NDArray[np.uint64]:
    """Return the message as little-endian words; zeros in front, which are worth nothing, make it whole ones."""
    padding = -len(view) % 8
    words: NDArray[np.uint64] = np.empty((len(view) + padding) // 8, dtype="<u8")
    octets = words.view(np.uint8)
    octets[:padding] = 0
    octets[padding:] = view
    octets[padding : padding + 4] ^= np.frombuffer(register.to_bytes(4, "little"), dtype=np.uint8)
    return words


def _struck_out(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Strike leading words out, in place, until no more are left than the multiple is long."""
    start, surplus = 0, len(words) - _MULTIPLE_WORDS
    while start < surplus:
        stop = min(start + _TARGET_WORDS[0], surplus)
        for distance in _TARGET_WORDS:
            words[start + distance : stop + distance] ^= words[start:stop]
        start = stop
    return words[start:]


def _remainder(message: NDArray[np.uint64]) -> int:
    words: Words = message.view("<u4")
    level = (len(words) - 1).bit_length()
    if len(words) != 1 << level:
        words = np.concatenate([np.zeros((1 << level) - len(words), dtype="<u4"), words])
    while level:
        level -= 1
        half = 1 << level
        words = _advanced(words[:half], level) ^ words[half:]
    return int(_advanced(words, 0)[0])


def _advanced(registers: Words, level: int) -> Words:
    """Return the registers after 2^level words of zeros."""
    tables = _advance_tables(level)
    octets = registers.view(np.uint8).reshape(-1, 4)
    result: Words = tables[0][octets[:, 0]]
    for table, column in zip(tables[1:], octets.T[1:], strict=True):
        result ^= table[column]
    return result


@cache
def _advance_tables(level: int) -> NDArray[Any]:
    """Return [4, 256]: what each byte of a register becomes after 2^level words of zeros."""
    single_bytes = np.array([[byte << shift for byte in range(256)] for shift in (0, 8, 16, 24)], dtype=np.uint32)
    if level:
        once = _advanced(single_bytes.reshape(-1), level - 1)
        return _advanced(once, level - 1).reshape(4, 256)
    registers = [_bytewise(memoryview(bytes(4)), int(register)) for register in single_bytes.reshape(-1)]
    return np.array(registers, dtype="<u4").reshape(4, 256)


@cache
def _byte_table() -> tuple[int, ...]:
    table = []
    for register in range(256):
        for _ in range(8):
            register = (register >> 1) ^ (_REFLECTED_POLYNOMIAL if register & 1 else 0)
        table.append(register)
    return tuple(table)

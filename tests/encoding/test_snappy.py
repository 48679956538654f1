from __future__ import annotations

import random

import pytest

from converter.encoding.protobuf import varint
from converter.encoding.snappy import uncompressed
from converter.errors import ReadError

MADE_BY_SNAPPY = bytes.fromhex(
    "bf02306c617965722f6b65726e656c20660d00f049000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
    "202122232425262728292a2b2c2d2e2f303132333435363738393a3b3c3d3e3f40414243444500000000fe0300fe0300fe03000103"
    "246c617965722f62696173"
)
BYTES = b"layer/kernel " * 3 + bytes(range(70)) + b"\0" * 200 + b"layer/bias"


def test_what_snappy_made_comes_back() -> None:
    assert uncompressed(memoryview(MADE_BY_SNAPPY), "x") == BYTES


def test_copies_of_four_bytes_come_back() -> None:
    long = bytes(random.Random(0).randbytes(75_000))
    block = varint(75_008) + bytes([62 << 2]) + (74_999).to_bytes(3, "little") + long
    block += bytes([(8 - 1) << 2 | 3]) + (75_000).to_bytes(4, "little")
    assert uncompressed(memoryview(block), "x") == long + long[:8]


@pytest.mark.parametrize(
    ("block", "message"),
    [
        (varint(1000) + b"\x04ab", "declares 1000 bytes"),
        (varint(3) + b"\x08ab", "cut short"),
        (varint(5) + b"\xf4\x01", "cut short"),
        (varint(6) + b"\x04ab\x01\x03", "from outside itself"),
        (varint(6) + b"\x04ab\x01\x00", "from outside itself"),
        (varint(5) + b"\x04ab\x01\x02", "another length"),
        (varint(7) + b"\x04ab\x01\x02", "another length"),
    ],
)
def test_a_block_that_is_none_is_refused(block: bytes, message: str) -> None:
    with pytest.raises(ReadError, match=message):
        uncompressed(memoryview(block), "x")


def test_one_changed_byte_does_no_harm() -> None:
    rng = random.Random(1)
    for _ in range(2000):
        block = bytearray(MADE_BY_SNAPPY)
        block[rng.randrange(len(block))] = rng.randrange(256)
        try:
            uncompressed(memoryview(bytes(block)), "x")
        except ReadError:
            continue

from __future__ import annotations

import random

import pytest

from converter.encoding import crc32c


def bit_by_bit(data: bytes) -> int:
    """The definition, one bit at a time, sharing nothing with the module."""
    register = 0xFFFFFFFF
    for byte in data:
        register ^= byte
        for _ in range(8):
            register = (register >> 1) ^ (0x82F63B78 if register & 1 else 0)
    return register ^ 0xFFFFFFFF


RFC_3720 = [
    (bytes(32), 0x8A9136AA),
    (b"\xff" * 32, 0x62A8AB43),
    (bytes(range(32)), 0x46DD794E),
    (bytes(reversed(range(32))), 0x113FDB5C),
    (bytes.fromhex("01c00000 00000000 00000000 00000000 14000000 00000400 00000014 00000018 28000000" + "00" * 4)
     + bytes.fromhex("02000000 00000000"), 0xD9963A56),
    (b"123456789", 0xE3069283),
    (b"", 0),
    (b"a", 0xC1D04330),
]  # fmt: skip


@pytest.mark.parametrize(("data", "expected"), RFC_3720, ids=[f"{expected:08x}" for _, expected in RFC_3720])
def test_published_vectors(data: bytes, expected: int) -> None:
    assert crc32c.update(data) == expected


@pytest.mark.parametrize(
    "length", [1, 511, 512, 513, 519, 520, 1027, 4096, 54_215, 54_216, 54_217, 54_224, 105_000, 200_003]
)
def test_equals_the_definition_at_every_kind_of_length(length: int) -> None:
    data = random.Random(length).randbytes(length)
    assert crc32c.update(data) == bit_by_bit(data)


def test_continues_from_any_cut() -> None:
    generator = random.Random(1)
    data = generator.randbytes(150_000)
    whole = bit_by_bit(data)
    for cut in [0, 1, 3, 511, 512, 149_999, 150_000, *(generator.randrange(150_000) for _ in range(20))]:
        assert crc32c.update(memoryview(data)[cut:], crc32c.update(data[:cut])) == whole


def test_input_is_left_alone() -> None:
    data = bytearray(random.Random(2).randbytes(100_000))
    before = bytes(data)
    crc32c.update(data)
    assert data == before


def test_one_flipped_bit_anywhere_is_noticed() -> None:
    data = bytearray(random.Random(3).randbytes(120_000))
    good = crc32c.update(data)
    for position in random.Random(4).sample(range(len(data)), 50):
        data[position] ^= 0x10
        assert crc32c.update(data) != good
        data[position] ^= 0x10
    assert crc32c.update(data) == good


def test_mask_is_leveldbs() -> None:
    value = crc32c.update(b"foo")
    assert crc32c.mask(value) != value
    assert crc32c.mask(crc32c.mask(value)) != value
    assert crc32c.unmask(crc32c.mask(value)) == value
    assert crc32c.unmask(crc32c.unmask(crc32c.mask(crc32c.mask(value)))) == value
    assert crc32c.mask(0) == 0xA282EAD8

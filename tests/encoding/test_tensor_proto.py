"""TensorFlow's constants, read without it: what TensorFlow itself writes, and what is none."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from converter.encoding.protobuf import content_field, number_field, varint
from converter.encoding.tensor_proto import Constant, constant
from converter.errors import ReadError

ARRAYS = {
    "float32": [1.5, -0.0, np.inf],
    "float64": [1.5, -0.0, -np.inf],
    "int8": [-1, 2, -128],
    "uint8": [1, 2, 255],
    "int16": [-1, 2, -(1 << 15)],
    "uint16": [1, 2, (1 << 16) - 1],
    "int32": [-1, 2, -(1 << 31)],
    "uint32": [1, 2, (1 << 32) - 1],
    "int64": [-1, 2, -(1 << 63)],
    "uint64": [1, 2, (1 << 64) - 1],
    "bool": [True, False, True],
}
LISTED = {"int64": "int64_val", "float32": "float_val", "float64": "double_val", "bool": "bool_val"}
LISTED |= {"uint32": "uint32_val", "uint64": "uint64_val"}


def read(data: bytes) -> Constant:
    found = constant(memoryview(data), None)
    assert found is not None
    return found


def shaped(number: int, *extents: int, more: bytes = b"") -> bytes:
    shape = b"".join(content_field(2, number_field(1, extent)) for extent in extents)
    return number_field(1, number) + content_field(2, shape) + more


@pytest.mark.parametrize("dtype", ARRAYS)
@pytest.mark.parametrize("way", ["bytes", "listed", "last for all", "none", "one number"])
def test_what_tensorflow_writes(dtype: str, way: str) -> None:
    tf = pytest.importorskip("tensorflow")
    array: Any = np.array(ARRAYS[dtype], dtype).reshape(3, 1)
    if way == "one number":
        array = array[2, 0]
    elif way == "none":
        array = array[:0]
    elif way == "last for all":
        array[1:] = array[1]
    proto = tf.make_tensor_proto(array)
    if way in ("listed", "last for all"):
        proto.tensor_content = b""
        proto.ClearField(LISTED.get(dtype, "int_val"))
        kept = array.reshape(-1)[: 2 if way == "last for all" else 3]
        getattr(proto, LISTED.get(dtype, "int_val")).extend(kept.tolist())
    found = read(proto.SerializeToString())
    assert found.nbytes == array.nbytes
    assert found.numpy().dtype == array.dtype
    assert found.numpy().shape == array.shape
    assert found.numpy().tobytes() == array.tobytes()


def test_numbers_that_are_not_packed() -> None:
    one_by_one = b"".join(number_field(10, number) for number in (5, 6, 7))
    assert read(shaped(9, 3, more=one_by_one)).numpy().tolist() == [5, 6, 7]


def test_what_has_other_elements_is_none_and_a_large_one_is_not_made() -> None:
    for number in (0, 7, 8, 14, 18, 19, 20, 21, 23 + 100):
        assert constant(memoryview(shaped(number, 2)), None) is None
    assert read(shaped(9, 1 << 40, 1 << 20)).nbytes == 1 << 63


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (shaped(9, 2, more=content_field(4, b"\0" * 15)), "15 bytes"),
        (shaped(9, 2, more=content_field(4, b"\0" * 24)), "24 bytes"),
        (shaped(9, 2, more=content_field(10, varint(1) * 3)), "3 numbers"),
        (shaped(9, 2, more=content_field(10, b"\xff")), "inside a number"),
        (shaped(1, 2, more=content_field(5, b"\0" * 7)), "inside a number"),
        (shaped(1, 2, more=number_field(5, 1)), "wire type 0"),
        (number_field(1, 9) + content_field(2, number_field(3, 1)), "not known"),
        (shaped(9, -1), "not known"),
    ],
)
def test_what_is_no_constant(data: bytes, match: str) -> None:
    with pytest.raises(ReadError, match=match):
        read(data).numpy()

"""Operators that change the element type."""

from __future__ import annotations

from typing import Any

from converter.graphs.lower.tensorflow.framework import dtype_of, number_of, tf
from converter.graphs.lower.tensorflow.registry import REGISTRY
from converter.graphs.lower.tensorflow.text import cast_text

lowers = REGISTRY.lowers


@lowers("Cast", since=6)
def cast(x: Any, *, to: int, saturate: int = 1, round_mode: str = "up") -> Any:
    """Floats are truncated towards zero; anything but zero is true. `round_mode` concerns e8m0, which nothing holds."""
    x, target = tf.convert_to_tensor(x), dtype_of(to)
    if x.dtype == target:
        return tf.identity(x)
    if target == tf.string or x.dtype == tf.string:
        return cast_text(x, target)
    if target == tf.bool:
        return tf.not_equal(x, tf.zeros([], x.dtype))
    if x.dtype.name in _SMALL_FLOATS or x.dtype.name in _SMALL_INTEGERS:
        x = tf.cast(x, tf.float32 if x.dtype.name in _SMALL_FLOATS else tf.int8)
    if target.name in _SMALL_FLOATS:
        return _cast_to_float8(x, target, saturate)
    return tf.cast(tf.cast(x, tf.int8), target) if target.name in _SMALL_INTEGERS else tf.cast(x, target)


# What has few kernels, and what it passes through.
_SMALL_FLOATS = {"float8_e4m3fn": 448.0, "float8_e5m2": 57344.0}
_SMALL_INTEGERS = ("int4", "uint4")


def _cast_to_float8(x: Any, target: Any, saturate: int) -> Any:
    x = x if x.dtype.is_floating else tf.cast(x, tf.float32)
    if saturate:
        largest = tf.cast(_SMALL_FLOATS[target.name], x.dtype)
        x = tf.where(tf.math.is_nan(x), x, tf.clip_by_value(x, -largest, largest))
    return tf.cast(x, target)


@lowers("CastLike", since=15)
def cast_like(x: Any, target: Any, *, saturate: int = 1, round_mode: str = "up") -> Any:
    """Cast to the type of another tensor."""
    return cast(x, to=number_of(tf.as_dtype(target.dtype)), saturate=saturate)


@lowers("BitCast", since=26)
def bit_cast(x: Any, *, to: int) -> Any:
    """The same bits as another type of the same width."""
    x, target = tf.convert_to_tensor(x), dtype_of(to)
    # A boolean's bits are those of a byte, and TensorFlow's bitcast takes none of the two as a boolean.
    x = tf.cast(x, tf.uint8) if x.dtype == tf.bool else x
    return tf.cast(tf.bitcast(x, tf.uint8), tf.bool) if target == tf.bool else tf.bitcast(x, target)

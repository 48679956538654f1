"""Integers for reals: x is about (q - zero point) * scale. Products of integers are exact in int32."""

from __future__ import annotations

from typing import Any

from converter.graphs.lower.tensorflow.casting import cast
from converter.graphs.lower.tensorflow.convolution import conv
from converter.graphs.lower.tensorflow.framework import dtype_of, number_of, rank_of, tf
from converter.graphs.lower.tensorflow.linear_algebra import matmul
from converter.graphs.lower.tensorflow.registry import REGISTRY, refuse

lowers = REGISTRY.lowers
# TensorFlow has no limits of its types of four bits.
_LIMITS = {"int4": (-8, 7), "uint4": (0, 15)}


def _spread(values: Any, x: Any, axis: int, block_size: int) -> Any:
    """Shape scales or zero points so that they broadcast: one of all, one per index of an axis, or one per block."""
    values = tf.convert_to_tensor(values)
    rank = rank_of(x)
    if block_size:
        axis = axis % rank
        repeated = tf.repeat(values, block_size, axis=axis)
        extent = tf.shape(x)[axis]
        return tf.gather(repeated, tf.range(extent), axis=axis)
    if values.shape.rank == 0 or values.shape.num_elements() == 1:
        return tf.reshape(values, [])
    refuse(values.shape.rank != 1, "scales that are neither one, nor one per index of an axis, nor of blocks")
    axis = axis % rank
    return tf.reshape(values, [-1 if each == axis else 1 for each in range(rank)])


def _as(x: Any, dtype: Any) -> Any:
    return cast(x, to=number_of(dtype))


def _quantised(scaled: Any, zero_point: Any, dtype: Any, saturate: int = 1) -> Any:
    if dtype.name.startswith("float8"):
        return cast(scaled, to=number_of(dtype), saturate=saturate)
    low, high = _LIMITS.get(dtype.name) or (dtype.min, dtype.max)
    moved = tf.round(tf.cast(scaled, tf.float32))
    moved = moved if zero_point is None else moved + _as(zero_point, tf.float32)
    return _as(tf.cast(tf.clip_by_value(moved, low, high), tf.int32), dtype)


@lowers("QuantizeLinear", since=10)
def quantize_linear(
    x: Any,
    scale: Any,
    zero_point: Any = None,
    *,
    axis: int = 1,
    block_size: int = 0,
    output_dtype: int = 0,
    precision: int = 0,
    saturate: int = 1,
) -> Any:
    """Rounded to the nearest, of two equally near to the even one, and cut to what the type holds."""
    zero_type = tf.uint8 if zero_point is None else tf.convert_to_tensor(zero_point).dtype
    dtype = dtype_of(output_dtype) if output_dtype else zero_type
    scales = _spread(scale, x, axis, block_size)
    wide = dtype_of(precision) if precision else scales.dtype
    zero = None if zero_point is None else _spread(zero_point, x, axis, block_size)
    return _quantised(tf.cast(x, wide) / tf.cast(scales, wide), zero, dtype, saturate)


@lowers("DequantizeLinear", since=10)
def dequantize_linear(
    x: Any, scale: Any, zero_point: Any = None, *, axis: int = 1, block_size: int = 0, output_dtype: int = 0
) -> Any:
    """(x - zero point) * scale."""
    scales = _spread(scale, x, axis, block_size)
    dtype = dtype_of(output_dtype) if output_dtype else scales.dtype
    values = _as(x, tf.float32)
    if zero_point is not None:
        values -= _as(_spread(zero_point, x, axis, block_size), tf.float32)
    return tf.cast(values * tf.cast(scales, tf.float32), dtype)


def _centred(x: Any, zero_point: Any, axis: int) -> Any:
    wide = tf.cast(x, tf.int32)
    return wide if zero_point is None else wide - tf.cast(_spread(zero_point, x, axis, 0), tf.int32)


@lowers("MatMulInteger", since=10)
def matmul_integer(a: Any, b: Any, a_zero_point: Any = None, b_zero_point: Any = None) -> Any:
    """The product of integers, int32; zero points are one per row of a and per column of b."""
    return matmul(_centred(a, a_zero_point, -2), _centred(b, b_zero_point, -1))


@lowers("QLinearMatMul", since=10)
def qlinear_matmul(
    a: Any, a_scale: Any, a_zero: Any, b: Any, b_scale: Any, b_zero: Any, y_scale: Any, y_zero: Any
) -> Any:
    """MatMulInteger, quantised again."""
    total = tf.cast(matmul_integer(a, b, a_zero, b_zero), tf.float32)
    scales = [
        tf.cast(_spread(scale, total, axis, 0), tf.float32)
        for scale, axis in ((a_scale, -2), (b_scale, -1), (y_scale, -1))
    ]
    y_zero = tf.convert_to_tensor(y_zero)
    return _quantised(total * scales[0] * scales[1] / scales[2], _spread(y_zero, total, -1, 0), y_zero.dtype)


@lowers("ConvInteger", since=10)
def conv_integer(
    x: Any,
    weight: Any,
    x_zero_point: Any = None,
    weight_zero_point: Any = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Any = None,
    group: int = 1,
    kernel_shape: Any = None,
    pads: Any = None,
    strides: Any = None,
) -> Any:
    """Conv of integers, int32. Computed in float64, in which sums of such products are exact: Conv is of floats."""
    values = tf.cast(_centred(x, x_zero_point, 1), tf.float64)
    filters = tf.cast(_centred(weight, weight_zero_point, 0), tf.float64)
    total = conv(
        values,
        filters,
        auto_pad=auto_pad,
        dilations=dilations,
        group=group,
        kernel_shape=kernel_shape,
        pads=pads,
        strides=strides,
    )
    return tf.cast(total, tf.int32)


@lowers("QLinearConv", since=10)
def qlinear_conv(
    x: Any,
    x_scale: Any,
    x_zero: Any,
    weight: Any,
    weight_scale: Any,
    weight_zero: Any,
    y_scale: Any,
    y_zero: Any,
    bias: Any = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Any = None,
    group: int = 1,
    kernel_shape: Any = None,
    pads: Any = None,
    strides: Any = None,
) -> Any:
    """ConvInteger and a bias of the product's scale, quantised again."""
    total = conv_integer(
        x,
        weight,
        x_zero,
        weight_zero,
        auto_pad=auto_pad,
        dilations=dilations,
        group=group,
        kernel_shape=kernel_shape,
        pads=pads,
        strides=strides,
    )
    if bias is not None:
        total += _spread(bias, total, 1, 0)
    scales = tf.reshape(x_scale, []) * _spread(weight_scale, total, 1, 0) / tf.reshape(y_scale, [])
    y_zero = tf.convert_to_tensor(y_zero)
    return _quantised(tf.cast(total, tf.float32) * scales, _spread(y_zero, total, 1, 0), y_zero.dtype)

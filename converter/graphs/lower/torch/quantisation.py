"""Operators on quantised numbers: value = (stored - zero point) * scale."""

from __future__ import annotations

from typing import Any

from converter.graphs.lower.torch.casting import cast
from converter.graphs.lower.torch.convolution import conv
from converter.graphs.lower.torch.framework import Tensor, axis_of, dtype_of, number_of, torch
from converter.graphs.lower.torch.registry import REGISTRY, refuse

lowers = REGISTRY.lowers

_LIMITS = {2: (0, 255), 3: (-128, 127), 4: (0, 65535), 5: (-32768, 32767), 6: (-(2**31), 2**31 - 1),
           21: (0, 15), 22: (-8, 7), 25: (0, 3), 26: (-2, 1)}  # fmt: skip
_UINT8 = 2


def _spread(values: Any, x: Any, axis: int, block_size: int) -> Any:
    """Values per tensor, per slice of an axis, or per block along it, in a shape that fits `x`."""
    if block_size:
        return values.repeat_interleave(block_size, axis).narrow(axis, 0, x.shape[axis])
    if values.ndim == 0 or (values.ndim == 1 and values.shape[0] == 1):
        return values.reshape(())
    return values.reshape([-1 if each == axis else 1 for each in range(x.ndim)])


@lowers("QuantizeLinear", since=10)
def quantize_linear(
    x: Tensor,
    scale: Tensor,
    zero_point: Tensor = None,
    *,
    axis: int = 1,
    block_size: int = 0,
    output_dtype: int = 0,
    precision: int = 0,
    saturate: int = 1,
    output_type: int | None,
) -> Any:
    """Round half to even, add the zero point, keep within the type."""
    number = output_type or output_dtype or (_UINT8 if zero_point is None else number_of(zero_point.dtype))
    axis = axis_of(axis, x) if scale.ndim else 0
    compute = torch.float32 if x.itemsize < 4 or not x.is_floating_point() else x.dtype
    if precision:
        compute = dtype_of(precision)
    scaled = x.to(compute) / _spread(scale, x, axis, block_size).to(compute)
    if number not in _LIMITS:
        return cast(scaled, to=number, saturate=saturate)
    rounded = torch.round(scaled)
    if zero_point is not None:
        rounded = rounded + _spread(zero_point.to(compute), x, axis, block_size)
    return torch.clamp(rounded, *_LIMITS[number]).to(torch.int32).to(dtype_of(number))


@lowers("DequantizeLinear", since=10)
def dequantize_linear(
    x: Tensor,
    scale: Tensor,
    zero_point: Tensor = None,
    *,
    axis: int = 1,
    block_size: int = 0,
    output_dtype: int = 0,
) -> Any:
    """Return the real numbers that quantised integers stand for."""
    axis = axis_of(axis, x) if scale.ndim else 0
    target = dtype_of(output_dtype) if output_dtype else scale.dtype
    compute = torch.float32 if scale.itemsize < 4 else scale.dtype
    values = x.to(compute)
    if zero_point is not None:
        values = values - _spread(zero_point.to(compute), x, axis, block_size)
    return (values * _spread(scale.to(compute), x, axis, block_size)).to(target)


def _shifted(x: Any, zero_point: Any, axis: int) -> Any:
    """As float64, which holds products and sums of these integers exactly."""
    wide = x.to(torch.float64)
    return wide if zero_point is None else wide - _along(zero_point.to(torch.float64), x, axis)


def _along(values: Any, x: Any, axis: int) -> Any:
    if values.ndim != 1 or values.shape[0] == 1:
        return values.reshape(()) if values.ndim <= 1 else values
    return values.reshape([-1 if each == axis % x.ndim else 1 for each in range(x.ndim)])


@lowers("MatMulInteger", since=10)
def matmul_integer(a: Tensor, b: Tensor, a_zero: Tensor = None, b_zero: Tensor = None) -> Any:
    """Zero points per row of `a`, per column of `b`."""
    return torch.matmul(_shifted(a, a_zero, -2), _shifted(b, b_zero, -1)).to(torch.int32)


@lowers("ConvInteger", since=10)
def conv_integer(x: Tensor, weight: Tensor, x_zero: Tensor = None, w_zero: Tensor = None, **how: Any) -> Any:
    """As Conv, with a zero point per output channel."""
    return conv(_shifted(x, x_zero, 1), _shifted(weight, w_zero, 0), **how).to(torch.int32)


@lowers("QLinearMatMul", since=10)
def qlinear_matmul(
    a: Tensor, a_scale: Tensor, a_zero: Tensor, b: Tensor, b_scale: Tensor, b_zero: Tensor, scale: Tensor, zero: Tensor
) -> Any:
    """Dequantised, multiplied, quantised."""
    product = torch.matmul(_shifted(a, a_zero, -2), _shifted(b, b_zero, -1))
    factor = _along(a_scale.to(torch.float64), a, -2) * _along(b_scale.to(torch.float64), b, -1)
    return _requantised(product * factor, scale, zero)


@lowers("QLinearConv", since=10)
def qlinear_conv(
    x: Tensor,
    x_scale: Tensor,
    x_zero: Tensor,
    weight: Tensor,
    w_scale: Tensor,
    w_zero: Tensor,
    scale: Tensor,
    zero: Tensor,
    bias: Tensor = None,
    **how: Any,
) -> Any:
    """Dequantised, convolved, quantised; the bias has the scale of the products."""
    result = conv(_shifted(x, x_zero, 1), _shifted(weight, w_zero, 0), None if bias is None else bias.double(), **how)
    return _requantised(result * x_scale.double() * _along(w_scale.double(), result, 1), scale, zero)


def _requantised(values: Any, scale: Any, zero: Any) -> Any:
    number = number_of(zero.dtype)
    refuse(number not in _LIMITS, "a quantised result of this type")
    return torch.clamp(torch.round(values / scale.double()) + zero.double(), *_LIMITS[number]).to(zero.dtype)

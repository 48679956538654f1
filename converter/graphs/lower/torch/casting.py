"""Operators that change the element type."""

from __future__ import annotations

from typing import Any

from converter.graphs.lower.torch.framework import Tensor, Value, as_tensor, dtype_of, is_host, number_of, torch
from converter.graphs.lower.torch.registry import REGISTRY, refuse

lowers = REGISTRY.lowers

_STRING = 8
_FLOAT4, _E8M0 = 23, 24
_FLOAT4_VALUES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
# Where the next value begins: halves go to the one whose last bit is zero.
_FLOAT4_STEPS = ((0.25, False), (0.75, True), (1.25, False), (1.75, True), (2.5, False), (3.5, True), (5.0, False))
_LOW_BITS = {21: (4, False), 22: (4, True), 25: (2, False), 26: (2, True)}
_E4M3FN, _E4M3FN_BEYOND = 17, 464.0
_FLOAT8_LARGEST = {17: 448.0, 18: 240.0, 19: 57344.0, 20: 57344.0}


@lowers("Cast", since=6)
def cast(x: Tensor, *, to: int, saturate: int = 1, round_mode: str = "up") -> Any:
    """Floats are truncated towards zero; anything but zero is true; `saturate` and `round_mode` are float8's."""
    refuse(to == _STRING, "PyTorch holds no text")
    target = dtype_of(to)
    if to in _LOW_BITS:
        return _to_low_bits(x, *_LOW_BITS[to]).to(target)
    if to == _FLOAT4:
        return to_float4(x)
    if to == _E8M0:
        return _to_e8m0(x, saturate, round_mode)
    if to in _FLOAT8_LARGEST:
        return to_float8(x, to, saturate)
    if target == torch.bool:
        return x.to(torch.float32) != 0 if x.itemsize == 1 and x.is_floating_point() else x != 0
    if x.is_floating_point() and not target.is_floating_point and not target.is_complex:
        # A float beyond int64 is undefined in C; through int64 the smaller types wrap, as numpy has it.
        return x.to(torch.float32 if x.itemsize == 1 else x.dtype).to(torch.int64).to(target)
    if x.is_floating_point() and x.itemsize == 1:
        return x.to(torch.float32).to(target)
    return x.to(target)


@lowers("Cast")
def cast_by_name(x: Tensor, *, to: str) -> Any:
    """The type by its name, before opset 6."""
    import onnx

    return cast(x, to=onnx.TensorProto.DataType.Value(to.upper()))


@lowers("CastLike", since=15)
def cast_like(x: Value, target: Value, *, saturate: int = 1, round_mode: str = "up", output_type: int | None) -> Any:
    """Cast to the type of another tensor, which PyTorch may hold in a wider one."""
    target = as_tensor(target)
    if is_host(x) and x.dtype != object and target.dtype in (torch.int32, torch.int64, torch.float32, torch.float64):
        # A constant stays one: exporters write the bounds of ranges like this.
        return x.astype(str(target.dtype).removeprefix("torch."))
    return cast(as_tensor(x), to=number_of(target.dtype, output_type), saturate=saturate, round_mode=round_mode)


@lowers("BitCast", since=26)
def bit_cast(x: Tensor, *, to: int) -> Any:
    """The same bits as another type of that size."""
    return x.view(dtype_of(to))


def _to_low_bits(x: Any, bits: int, is_signed: bool) -> Any:
    """Integers of fewer bits, which wrap."""
    whole = x.to(torch.float32).to(torch.int64) if x.is_floating_point() else x.to(torch.int64)
    whole = whole & ((1 << bits) - 1)
    return torch.where(whole >= 1 << (bits - 1), whole - (1 << bits), whole) if is_signed else whole


def to_float4(x: Any) -> Any:
    """The values of float4 (e2m1), nearest, halves to even, beyond them the last; NaN becomes -0 as in ml_dtypes."""
    x = x.to(torch.float32)
    magnitude, level = x.abs(), torch.zeros_like(x, dtype=torch.int64)
    for bound, is_included in _FLOAT4_STEPS:
        level = level + ((magnitude >= bound) if is_included else (magnitude > bound)).to(torch.int64)
    values = torch.copysign(torch.tensor(_FLOAT4_VALUES, dtype=torch.float32)[level], x)
    return torch.where(torch.isnan(x), -0.0, values)


def to_float8(x: Any, to: int, saturate: int) -> Any:
    """float8 of four kinds: what is beyond the largest becomes it, or, unsaturated, infinite or NaN."""
    largest, target = _FLOAT8_LARGEST[to], dtype_of(to)
    x = x.to(torch.float32) if x.dtype != torch.float64 else x
    if saturate:
        return torch.clamp(x, -largest, largest).to(torch.float32).to(target)
    if to == _E4M3FN:  # torch saturates; what would round to a value beyond the largest is NaN
        x = torch.where(x.abs() > _E4M3FN_BEYOND, torch.nan, x)
    return x.to(torch.float32).to(target)


def _to_e8m0(x: Any, saturate: int, round_mode: str) -> Any:
    """Powers of two, from 2**-127 to 2**127; NaN is 255."""
    refuse(round_mode not in ("up", "down", "nearest"), f"Cast with round_mode {round_mode!r}")
    x = x.to(torch.float32)
    bits = x.abs().view(torch.int32)
    exponent, fraction = bits >> 23, bits & 0x7FFFFF
    if round_mode == "up":
        exponent = exponent + (fraction > 0).to(torch.int32)
    elif round_mode == "nearest":
        exponent = exponent + (fraction >= 0x400000).to(torch.int32)
    if saturate:
        exponent = exponent.clamp(max=254)
    exponent = torch.where(torch.isnan(x), 255, exponent.clamp(0, 255))
    return exponent.to(torch.uint8).view(torch.float8_e8m0fnu)

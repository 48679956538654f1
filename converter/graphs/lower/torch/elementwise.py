"""Operators that work element by element, with numpy's broadcasting."""

from __future__ import annotations

import operator
from functools import partial, reduce
from typing import Any

from converter.graphs.lower.registry import Lowering
from converter.graphs.lower.torch.framework import Tensor, moved, torch, widened
from converter.graphs.lower.torch.registry import REGISTRY, refuse

lowers = REGISTRY.lowers

# ONNX op type, the function of torch that is the same.
_UNARY = (
    ("Acos", "acos"),
    ("Acosh", "acosh"),
    ("Asin", "asin"),
    ("Asinh", "asinh"),
    ("Atan", "atan"),
    ("Atanh", "atanh"),
    ("BitwiseNot", "bitwise_not"),
    ("Ceil", "ceil"),
    ("Cos", "cos"),
    ("Cosh", "cosh"),
    ("Erf", "erf"),
    ("Exp", "exp"),
    ("Floor", "floor"),
    ("HardSwish", "nn.functional.hardswish"),
    ("IsNaN", "isnan"),
    ("Log", "log"),
    ("Mish", "nn.functional.mish"),
    ("Neg", "neg"),
    ("Not", "logical_not"),
    ("Reciprocal", "reciprocal"),
    ("Round", "round"),
    ("Sigmoid", "sigmoid"),
    ("Sin", "sin"),
    ("Sinh", "sinh"),
    ("Softplus", "nn.functional.softplus"),
    ("Softsign", "nn.functional.softsign"),
    ("Sqrt", "sqrt"),
    ("Tan", "tan"),
    ("Tanh", "tanh"),
)
_BINARY = (
    ("Add", "add"),
    ("And", "logical_and"),
    ("BitwiseAnd", "bitwise_and"),
    ("BitwiseOr", "bitwise_or"),
    ("BitwiseXor", "bitwise_xor"),
    ("Equal", "eq"),
    ("Greater", "gt"),
    ("GreaterOrEqual", "ge"),
    ("Less", "lt"),
    ("LessOrEqual", "le"),
    ("Mul", "mul"),
    ("Or", "logical_or"),
    ("Sub", "sub"),
    ("Xor", "logical_xor"),
)


_BY_ORDER = ("gt", "ge", "lt", "le", "maximum", "minimum")


def _unary(path: str) -> Lowering:
    def lowering(x: Tensor) -> Any:
        return operator.attrgetter(path)(torch)(x)

    return widened(lowering)


def _binary(path: str) -> Lowering:
    def lowering(a: Tensor, b: Tensor) -> Any:
        return getattr(torch, path)(a, b)

    return widened(lowering, by_order=path in _BY_ORDER)


def _before_numpy(path: str) -> Lowering:
    """Broadcasting before opset 7: only `b`, only when asked to, its axes beginning at `axis` of `a`."""

    def lowering(
        a: Tensor, b: Tensor, *, axis: int | None = None, broadcast: int = 0, consumed_inputs: Any = ()
    ) -> Any:
        if broadcast and axis is not None:
            b = b.reshape(list(b.shape) + [1] * (a.ndim - axis % a.ndim - b.ndim))
        return getattr(torch, path)(a, b)

    return lowering


for _op_type, _path in _UNARY:
    REGISTRY.add(_op_type, _unary(_path))
for _op_type, _path in _BINARY:
    REGISTRY.add(_op_type, _binary(_path), since=7)
    REGISTRY.add(_op_type, _before_numpy(_path))


def _is_unsigned(x: Any) -> bool:
    return x.dtype in (torch.uint8, torch.uint16, torch.uint32, torch.uint64)


@lowers("Abs")
def absolute(x: Tensor) -> Any:
    """The absolute value; the lowest integer, which has none, stays."""
    return x if _is_unsigned(x) else torch.abs(x)


@lowers("Relu")
def relu(x: Tensor) -> Any:
    """x, or zero where negative."""
    return x if _is_unsigned(x) else torch.relu(x)


@lowers("Sign", since=9)
def sign(x: Tensor) -> Any:
    """-1, 0 or 1."""
    return (x != 0).to(x.dtype) if _is_unsigned(x) else torch.sign(x)


@lowers("Identity")
def identity(x: Any) -> Any:
    """The same value, also of a sequence or an absent optional."""
    return x


def div(a: Tensor, b: Tensor) -> Any:
    """Integers are divided towards zero, as in C."""
    if a.dtype == torch.uint64:
        return _divided(a.to(torch.int64), b.to(torch.int64)).to(torch.uint64)
    return _divide(a, b)


@widened
def _divide(a: Any, b: Any) -> Any:
    return torch.div(a, b) if a.is_floating_point() or a.is_complex() else torch.div(a, b, rounding_mode="trunc")


def _divided(a: Any, b: Any) -> Any:
    """Divide what int64 has of uint64: half of `a` is positive, so its quotient is right, and the rest is at most one.

    A divisor that is negative is 2**63 or more, and goes into `a` once or not at all.
    """
    half = (a >> 1) & torch.iinfo(torch.int64).max
    quotient = torch.div(half, b, rounding_mode="trunc") << 1
    quotient = quotient + (moved(a - quotient * b) >= moved(b))
    return torch.where(b < 0, (moved(a) >= moved(b)).to(torch.int64), quotient)


REGISTRY.add("Div", div, since=7)


@lowers("Div")
def div_before_numpy(a: Tensor, b: Tensor, *, axis: int | None = None, broadcast: int = 0) -> Any:
    """As other binary operators before opset 7."""
    if broadcast and axis is not None:
        b = b.reshape(list(b.shape) + [1] * (a.ndim - axis % a.ndim - b.ndim))
    return div(a, b)


@lowers("Mod", since=10)
def mod(a: Tensor, b: Tensor, *, fmod: int = 0) -> Any:
    """The sign is the divisor's, with fmod=1 the dividend's."""
    if a.dtype == torch.uint64:
        dividend, divisor = a.to(torch.int64), b.to(torch.int64)
        return (dividend - _divided(dividend, divisor) * divisor).to(torch.uint64)
    return _remainder(a, b, fmod=fmod)


@widened
def _remainder(a: Any, b: Any, *, fmod: int) -> Any:
    return torch.fmod(a, b) if fmod else torch.remainder(a, b)


@lowers("Pow", since=7)
@widened
def power(x: Tensor, exponent: Tensor) -> Any:
    """The result has the type of the base, whatever that of the exponent."""
    if x.is_floating_point() and exponent.is_floating_point():
        return torch.pow(x, exponent.to(x.dtype))
    return torch.pow(x, exponent).to(x.dtype)


def _fold(path: str) -> Lowering:
    def lowering(*values: Tensor) -> Any:
        return reduce(getattr(torch, path), values)

    return widened(lowering, by_order=path in _BY_ORDER)


for _op_type, _path in (("Max", "maximum"), ("Min", "minimum"), ("Sum", "add")):
    REGISTRY.add(_op_type, _fold(_path), since=6)


@lowers("Mean", since=6)
def mean(*values: Tensor) -> Any:
    """The mean of the inputs, broadcast against each other."""
    return reduce(torch.add, values) / len(values)


@lowers("Where", since=9)
@widened
def where(condition: Tensor, x: Tensor, y: Tensor) -> Any:
    """Three-way broadcasting."""
    return torch.where(condition, x, y)


@lowers("IsInf", since=10)
def is_inf(x: Tensor, *, detect_negative: int = 1, detect_positive: int = 1) -> Any:
    """Infinities of the signs asked for."""
    wanted = torch.zeros_like(x, dtype=torch.bool)
    wanted = wanted | torch.isposinf(x) if detect_positive else wanted
    return wanted | torch.isneginf(x) if detect_negative else wanted


@lowers("Clip", since=11)
@partial(widened, by_order=True)
def clip(x: Tensor, low: Tensor = None, high: Tensor = None) -> Any:
    """Bounds may be left out; where they cross, the upper one holds."""
    x = x if low is None else torch.maximum(x, low.reshape(()))
    return x if high is None else torch.minimum(x, high.reshape(()))


@lowers("Clip")
def clip_by_attributes(
    x: Tensor, *, min: float | None = None, max: float | None = None, consumed_inputs: Any = ()
) -> Any:
    """Bounds as attributes, before opset 11."""
    return x if min is None and max is None else torch.clamp(x, min, max)


@lowers("Gelu", since=20)
def gelu(x: Tensor, *, approximate: str = "none") -> Any:
    """Exact, or by tanh."""
    return torch.nn.functional.gelu(x, approximate=approximate)


@lowers("Elu")
def elu(x: Tensor, *, alpha: float = 1.0) -> Any:
    """x, or alpha * (exp(x) - 1) where negative."""
    return torch.nn.functional.elu(x, alpha)


@lowers("Celu", since=12)
def celu(x: Tensor, *, alpha: float = 1.0) -> Any:
    """max(0, x) + min(0, alpha * (exp(x / alpha) - 1))."""
    return torch.nn.functional.celu(x, alpha)


@lowers("Selu")
def selu(x: Tensor, *, alpha: float = 1.67326319217681884765625, gamma: float = 1.05070102214813232421875) -> Any:
    """gamma * Elu(x)."""
    return gamma * torch.where(x > 0, x, alpha * torch.expm1(torch.clamp(x, max=0)))


@lowers("LeakyRelu")
def leaky_relu(x: Tensor, *, alpha: float = 0.01) -> Any:
    """x, or alpha * x where negative."""
    return torch.nn.functional.leaky_relu(x, alpha)


@lowers("PRelu", since=7)
@widened
def prelu(x: Tensor, slope: Tensor) -> Any:
    """x, or slope * x where negative; the slope broadcasts."""
    return torch.where(x < 0, slope * x, x)


@lowers("ThresholdedRelu")
def thresholded_relu(x: Tensor, *, alpha: float = 1.0) -> Any:
    """x where it is above alpha, else zero."""
    return torch.where(x > alpha, x, torch.zeros_like(x))


@lowers("HardSigmoid")
def hard_sigmoid(x: Tensor, *, alpha: float = 0.2, beta: float = 0.5) -> Any:
    """alpha * x + beta, clipped to [0, 1]."""
    return torch.clamp(alpha * x + beta, 0, 1)


@lowers("Swish", since=24)
def swish(x: Tensor, *, alpha: float = 1.0) -> Any:
    """x * sigmoid(alpha * x)."""
    return torch.nn.functional.silu(x) if alpha == 1 else x * torch.sigmoid(alpha * x)


@lowers("Shrink", since=9)
def shrink(x: Tensor, *, bias: float = 0.0, lambd: float = 0.5) -> Any:
    """x moved by `bias` towards zero where it is beyond `lambd`, else zero."""
    moved = torch.where(x < -lambd, x + bias, torch.where(x > lambd, x - bias, torch.zeros_like(x)))
    return moved.to(x.dtype)


@lowers("BitShift", since=11)
def bit_shift(x: Tensor, amount: Tensor, *, direction: str) -> Any:
    """Shift left or right; zeros come in, from the left the sign of signed integers."""
    refuse(direction not in ("LEFT", "RIGHT"), f"BitShift direction {direction!r}")
    bits, wide, count = 8 * x.itemsize, x.to(torch.int64), amount.to(torch.int64)
    if direction == "LEFT":
        return torch.where(count < bits, wide << count.clamp(max=63), 0).to(x.dtype)
    shifted = wide >> count.clamp(max=63)
    if x.dtype == torch.uint64:  # the sign of an int64 would come in
        kept = ~(torch.full_like(wide, -1) << (64 - count.clamp(min=1, max=64)))
        shifted = torch.where(count > 0, torch.where(count < bits, shifted & kept, 0), wide)
    return shifted.to(x.dtype)

"""Operators that work element by element, with numpy's broadcasting."""

from __future__ import annotations

from functools import partial
from typing import Any

from converter.graphs.lower.tensorflow.framework import before_reshape, tf
from converter.graphs.lower.tensorflow.registry import REGISTRY, refuse

lowers = REGISTRY.lowers

# ONNX op type, the TensorFlow function that is the same.
_UNARY = (
    ("Acos", "math.acos"),
    ("Acosh", "math.acosh"),
    ("Asin", "math.asin"),
    ("Asinh", "math.asinh"),
    ("Atan", "math.atan"),
    ("Atanh", "math.atanh"),
    ("BitwiseNot", "bitwise.invert"),
    ("Ceil", "math.ceil"),
    ("Cos", "math.cos"),
    ("Cosh", "math.cosh"),
    ("Erf", "math.erf"),
    ("Exp", "math.exp"),
    ("Floor", "math.floor"),
    ("IsNaN", "math.is_nan"),
    ("Log", "math.log"),
    ("Neg", "math.negative"),
    ("Not", "math.logical_not"),
    ("Reciprocal", "math.reciprocal"),
    ("Relu", "nn.relu"),
    ("Round", "math.round"),
    ("Sigmoid", "math.sigmoid"),
    ("Sin", "math.sin"),
    ("Sinh", "math.sinh"),
    ("Softplus", "math.softplus"),
    ("Softsign", "nn.softsign"),
    ("Sqrt", "math.sqrt"),
    ("Tan", "math.tan"),
    ("Tanh", "math.tanh"),
)
_BINARY = (
    ("And", "math.logical_and"),
    ("BitwiseAnd", "bitwise.bitwise_and"),
    ("BitwiseOr", "bitwise.bitwise_or"),
    ("BitwiseXor", "bitwise.bitwise_xor"),
    ("Equal", "math.equal"),
    ("Greater", "math.greater"),
    ("GreaterOrEqual", "math.greater_equal"),
    ("Less", "math.less"),
    ("LessOrEqual", "math.less_equal"),
    ("Mul", "math.multiply"),
    ("Or", "math.logical_or"),
    ("Sub", "math.subtract"),
    ("Xor", "math.logical_xor"),
)


def _resolve(path: str) -> Any:
    target = tf
    for part in path.split("."):
        target = getattr(target, part)
    return target


def _unary(path: str, x: Any) -> Any:
    return _resolve(path)(x)


def _binary(path: str, a: Any, b: Any) -> Any:
    return _resolve(path)(a, b)


REGISTRY.add_named((op_type, partial(_unary, path)) for op_type, path in _UNARY)
# Before opset 7 these took `axis` and `broadcast`: not numpy's rule, and no exporter has written it since 2018.
for _op_type, _path in _BINARY:
    REGISTRY.add(_op_type, partial(_binary, _path), since=7)


@lowers("Identity")
def identity(x: Any) -> Any:
    """The same value, also of a sequence or an absent optional."""
    return x if x is None or isinstance(x, list) else tf.identity(x)


@lowers("Add", since=7)
def add(a: Any, b: Any) -> Any:
    """A bias is added to a product of matrices before its rows get their extents back."""
    for product, bias in ((a, b), (b, a)):
        reshape = before_reshape(product, ("MatMul",))
        if reshape is None or product.shape[-1] is None:
            continue
        shape = tf.TensorShape(bias.shape)
        if shape.rank == 1 and shape[0] == product.shape[-1]:
            return tf.reshape(tf.nn.bias_add(reshape.inputs[0], bias), reshape.inputs[1])
    return tf.math.add(a, b)


@lowers("Div", since=7)
def div(a: Any, b: Any) -> Any:
    """Integers are divided towards zero, as in C."""
    a, b = tf.convert_to_tensor(a), tf.convert_to_tensor(b)
    return tf.truncatediv(a, b) if a.dtype.is_integer else tf.math.divide(a, b)


@lowers("Abs")
def absolute(x: Any) -> Any:
    """The absolute value; the lowest integer, which has none, stays."""
    x = tf.convert_to_tensor(x)
    return tf.identity(x) if x.dtype.is_unsigned else tf.math.abs(x)


@lowers("Sign", since=9)
def sign(x: Any) -> Any:
    """-1, 0 or 1."""
    x = tf.convert_to_tensor(x)
    return tf.cast(tf.not_equal(x, tf.zeros([], x.dtype)), x.dtype) if x.dtype.is_unsigned else tf.math.sign(x)


@lowers("Mod", since=10)
def mod(a: Any, b: Any, *, fmod: int = 0) -> Any:
    """The sign is the divisor's, with fmod=1 the dividend's."""
    a, b = tf.convert_to_tensor(a), tf.convert_to_tensor(b)
    if a.dtype in (tf.float32, tf.float64, tf.int32, tf.int64):
        return tf.truncatemod(a, b) if fmod else tf.math.floormod(a, b)
    if a.dtype.is_unsigned:
        return a - tf.truncatediv(a, b) * b
    wide = tf.float32 if a.dtype == tf.float16 else tf.int64
    return tf.cast(mod(tf.cast(a, wide), tf.cast(b, wide), fmod=fmod), a.dtype)


@lowers("Pow", since=7)
def power(x: Any, exponent: Any) -> Any:
    """The result has the type of the base, whatever that of the exponent."""
    x, exponent = tf.convert_to_tensor(x), tf.convert_to_tensor(exponent)
    if x.dtype.is_integer and exponent.dtype.is_floating:
        return tf.cast(tf.pow(tf.cast(x, exponent.dtype), exponent), x.dtype)
    return tf.pow(x, tf.cast(exponent, x.dtype))


def _fold(path: str, *values: Any) -> Any:
    function, result = _resolve(path), values[0]
    for value in values[1:]:
        result = function(result, value)
    return tf.identity(result)


for _op_type, _path in (("Max", "math.maximum"), ("Min", "math.minimum"), ("Sum", "math.add")):
    REGISTRY.add(_op_type, partial(_fold, _path))


@lowers("Mean")
def mean(*values: Any) -> Any:
    """The mean of the inputs, broadcast against each other."""
    total = _fold("math.add", *values)
    return total / tf.cast(len(values), total.dtype)


@lowers("Where", since=9)
def where(condition: Any, x: Any, y: Any) -> Any:
    """Three-way broadcasting."""
    return tf.where(condition, x, y)


@lowers("IsInf", since=10)
def is_inf(x: Any, *, detect_negative: int = 1, detect_positive: int = 1) -> Any:
    """Infinities of the signs asked for."""
    signs = ([tf.less(x, 0)] if detect_negative else []) + ([tf.greater(x, 0)] if detect_positive else [])
    wanted = tf.zeros_like(x, tf.bool)
    for sign in signs:
        wanted = tf.logical_or(wanted, sign)
    return tf.logical_and(tf.math.is_inf(x), wanted)


@lowers("Clip", since=11)
def clip(x: Any, low: Any = None, high: Any = None) -> Any:
    """Bounds may be left out."""
    x = x if low is None else tf.maximum(x, low)
    return tf.identity(x if high is None else tf.minimum(x, high))


@lowers("Clip", since=6)
def clip_by_attributes(x: Any, *, min: float | None = None, max: float | None = None) -> Any:
    """Bounds as attributes, before opset 11."""
    x = x if min is None else tf.maximum(x, tf.cast(min, x.dtype))
    return tf.identity(x if max is None else tf.minimum(x, tf.cast(max, x.dtype)))


@lowers("Gelu", since=20)
def gelu(x: Any, *, approximate: str = "none") -> Any:
    """Exact, or by tanh; of a product and its bias before its rows get their extents back."""
    reshape = before_reshape(x, ("BiasAdd",))
    if reshape is not None:
        return tf.reshape(gelu(reshape.inputs[0], approximate=approximate), reshape.inputs[1])
    if approximate == "tanh":
        return tf.nn.gelu(x, approximate=True)
    # By Erf, which grappler knows, where tf.nn.gelu of TensorFlow 2.21 has Erfc.
    x = tf.convert_to_tensor(x)
    return tf.cast(0.5, x.dtype) * x * (1 + tf.math.erf(x * tf.cast(0.5**0.5, x.dtype)))


@lowers("Elu")
def elu(x: Any, *, alpha: float = 1.0) -> Any:
    """x, or alpha * (exp(x) - 1) where negative."""
    return tf.where(tf.less(x, 0), tf.cast(alpha, x.dtype) * tf.math.expm1(tf.minimum(x, 0)), x)


@lowers("Celu", since=12)
def celu(x: Any, *, alpha: float = 1.0) -> Any:
    """max(0, x) + min(0, alpha * (exp(x / alpha) - 1))."""
    return tf.maximum(x, 0) + tf.minimum(alpha * tf.math.expm1(tf.minimum(x, 0) / alpha), 0)


@lowers("Selu", since=6)
def selu(x: Any, *, alpha: float = 1.67326319217681884765625, gamma: float = 1.05070102214813232421875) -> Any:
    """gamma * Elu(x)."""
    return tf.cast(gamma, x.dtype) * elu(x, alpha=alpha)


@lowers("LeakyRelu", since=6)
def leaky_relu(x: Any, *, alpha: float = 0.01) -> Any:
    """x, or alpha * x where negative."""
    return tf.where(tf.less(x, 0), tf.cast(alpha, x.dtype) * x, x)


@lowers("PRelu", since=7)
def prelu(x: Any, slope: Any) -> Any:
    """x, or slope * x where negative; the slope broadcasts."""
    return tf.where(tf.less(x, 0), slope * x, x)


@lowers("ThresholdedRelu", since=10)
def thresholded_relu(x: Any, *, alpha: float = 1.0) -> Any:
    """x where it is above alpha, else zero."""
    return tf.where(tf.greater(x, tf.cast(alpha, x.dtype)), x, tf.zeros_like(x))


@lowers("HardSigmoid", since=6)
def hard_sigmoid(x: Any, *, alpha: float = 0.2, beta: float = 0.5) -> Any:
    """alpha * x + beta, clipped to [0, 1]."""
    return tf.clip_by_value(tf.cast(alpha, x.dtype) * x + tf.cast(beta, x.dtype), 0, 1)


@lowers("HardSwish", since=14)
def hard_swish(x: Any) -> Any:
    """x * HardSigmoid(x, 1/6, 1/2)."""
    return x * hard_sigmoid(x, alpha=1 / 6, beta=0.5)


@lowers("Mish", since=18)
def mish(x: Any) -> Any:
    """x * tanh(softplus(x))."""
    return x * tf.tanh(tf.math.softplus(x))


@lowers("Swish", since=24)
def swish(x: Any, *, alpha: float = 1.0) -> Any:
    """x * sigmoid(alpha * x)."""
    return x * tf.sigmoid(tf.cast(alpha, x.dtype) * x)


@lowers("BitShift", since=11)
def bit_shift(x: Any, amount: Any, *, direction: str) -> Any:
    """Shift left or right. By the width or more nothing is left but the sign; so it is by a negative amount."""
    refuse(direction not in ("LEFT", "RIGHT"), f"BitShift direction {direction!r}")
    x, amount = tf.convert_to_tensor(x), tf.convert_to_tensor(amount)
    width = x.dtype.size * 8
    is_beyond = tf.greater_equal(amount, tf.cast(width, amount.dtype))
    is_beyond = is_beyond if x.dtype.is_unsigned else tf.logical_or(is_beyond, tf.less(amount, 0))
    kept = tf.where(is_beyond, tf.zeros_like(amount), amount)
    if direction == "LEFT":
        return tf.where(is_beyond, tf.zeros_like(x), tf.bitwise.left_shift(x, kept))
    emptied = tf.zeros_like(x) if x.dtype.is_unsigned else tf.where(tf.less(x, 0), -tf.ones_like(x), tf.zeros_like(x))
    return tf.where(is_beyond, emptied, tf.bitwise.right_shift(x, kept))


@lowers("Shrink", since=9)
def shrink(x: Any, *, bias: float = 0.0, lambd: float = 0.5) -> Any:
    """What lies within lambd of zero becomes zero; the rest moves towards it by bias."""
    x = tf.convert_to_tensor(x)
    bound, moved = tf.cast(lambd, x.dtype), tf.cast(bias, x.dtype)
    return tf.where(x < -bound, x + moved, tf.where(x > bound, x - moved, tf.zeros_like(x)))

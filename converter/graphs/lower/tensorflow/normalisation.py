"""Softmax and the norms. Statistics of half-precision inputs are taken in float32, as ONNX's stash_type says."""

from __future__ import annotations

import math
from typing import Any

from converter.graphs.lower.tensorflow.framework import (
    as_shape,
    dtype_of,
    extents_of,
    is_static,
    product,
    rank_of,
    shape_of,
    tf,
)
from converter.graphs.lower.tensorflow.registry import REGISTRY, refuse

lowers = REGISTRY.lowers


@lowers("Softmax", since=13)
def softmax(x: Any, *, axis: int = -1) -> Any:
    """Along one axis."""
    return tf.nn.softmax(x, axis=axis)


@lowers("LogSoftmax", since=13)
def log_softmax(x: Any, *, axis: int = -1) -> Any:
    """Along one axis."""
    return tf.nn.log_softmax(x, axis=axis)


def _as_matrix(function: Any, x: Any, axis: int) -> Any:
    extents = extents_of(x)
    rows = as_shape([product(extents[: axis % rank_of(x)]), product(extents[axis % rank_of(x) :])])
    return tf.reshape(function(tf.reshape(x, rows)), as_shape(extents))


@lowers("Softmax")
def softmax_of_matrix(x: Any, *, axis: int = 1) -> Any:
    """Over all axes from `axis` on together, before opset 13."""
    return _as_matrix(tf.nn.softmax, x, axis)


@lowers("LogSoftmax")
def log_softmax_of_matrix(x: Any, *, axis: int = 1) -> Any:
    """Over all axes from `axis` on together, before opset 13."""
    return _as_matrix(tf.nn.log_softmax, x, axis)


@lowers("LayerNormalization", since=17)
def layer_normalization(
    x: Any, scale: Any, bias: Any = None, *, axis: int = -1, epsilon: float = 1e-5, stash_type: int = 1
) -> Any:
    """Over all axes from `axis` on; also returns mean and inverse standard deviation."""
    x, stash = tf.convert_to_tensor(x), dtype_of(stash_type)
    axes = list(range(axis % rank_of(x), rank_of(x)))
    wide = tf.cast(x, stash)
    mean, variance = tf.nn.moments(wide, axes, keepdims=True)
    inverse = tf.math.rsqrt(variance + tf.cast(epsilon, stash))
    if x.dtype == stash and bias is not None:
        # In this form grappler makes one kernel of it, where oneDNN is there.
        return tf.nn.batch_normalization(x, mean, variance, bias, scale, epsilon), mean, inverse
    y = tf.cast((wide - mean) * inverse, x.dtype) * scale
    return (y if bias is None else y + bias), mean, inverse


@lowers("RMSNormalization", since=23)
def rms_normalization(x: Any, scale: Any, *, axis: int = -1, epsilon: float = 1e-5, stash_type: int = 1) -> Any:
    """Division by the root of the mean square over all axes from `axis` on."""
    x = tf.convert_to_tensor(x)
    axes = list(range(axis % rank_of(x), rank_of(x)))
    wide = tf.cast(x, dtype_of(stash_type))
    inverse = tf.math.rsqrt(tf.reduce_mean(tf.square(wide), axis=axes, keepdims=True) + epsilon)
    return tf.cast(wide * inverse, x.dtype) * scale


def _per_channel(values: Any, rank: int) -> Any:
    return tf.reshape(values, [1, -1] + [1] * (rank - 2))


@lowers("BatchNormalization", since=7)
def batch_normalization_of_places(
    x: Any,
    scale: Any,
    bias: Any,
    mean: Any,
    variance: Any,
    *,
    epsilon: float = 1e-5,
    momentum: float = 0.9,
    spatial: int = 1,
) -> Any:
    """By stored statistics; without `spatial` each place of a channel has its own. Before opset 9."""
    if spatial:
        return batch_normalization(x, scale, bias, mean, variance, epsilon=epsilon, momentum=momentum)
    factor = scale * tf.math.rsqrt(variance + tf.cast(epsilon, variance.dtype))
    return x * factor + (bias - mean * factor)


@lowers("BatchNormalization", since=9)
def batch_normalization(
    x: Any,
    scale: Any,
    bias: Any,
    mean: Any,
    variance: Any,
    *,
    epsilon: float = 1e-5,
    momentum: float = 0.9,
    training_mode: int = 0,
) -> Any:
    """By stored statistics, or in training mode by those of the batch, whose running means are returned then too."""
    rank, running = rank_of(x), ()
    if training_mode:
        others = [axis for axis in range(rank) if axis != 1]
        old, kept = (mean, variance), tf.cast(momentum, mean.dtype)
        own = tf.nn.moments(tf.cast(x, mean.dtype), others)
        running = tuple(each * kept + new * (1 - kept) for each, new in zip(old, own, strict=True))
        mean, variance = own
    factor = scale * tf.math.rsqrt(variance + tf.cast(epsilon, variance.dtype))
    y = x * _per_channel(factor, rank) + _per_channel(bias - mean * factor, rank)
    return y, *running


@lowers("InstanceNormalization", since=6)
def instance_normalization(x: Any, scale: Any, bias: Any, *, epsilon: float = 1e-5) -> Any:
    """Each channel of each example by itself."""
    rank = rank_of(x)
    mean, variance = tf.nn.moments(x, axes=list(range(2, rank)), keepdims=True)
    return (x - mean) * tf.math.rsqrt(variance + epsilon) * _per_channel(scale, rank) + _per_channel(bias, rank)


@lowers("GroupNormalization", since=21)
def group_normalization(
    x: Any, scale: Any, bias: Any, *, num_groups: int, epsilon: float = 1e-5, stash_type: int = 1
) -> Any:
    """Groups of channels of each example; scale and bias are per channel (per group before opset 21)."""
    x, extents, rank = tf.convert_to_tensor(x), extents_of(x), rank_of(x)
    grouped = tf.cast(tf.reshape(x, as_shape([extents[0], num_groups, -1])), dtype_of(stash_type))
    mean, variance = tf.nn.moments(grouped, axes=[2], keepdims=True)
    normalised = tf.reshape((grouped - mean) * tf.math.rsqrt(variance + epsilon), as_shape(extents))
    return tf.cast(normalised, x.dtype) * _per_channel(scale, rank) + _per_channel(bias, rank)


@lowers("LpNormalization")
def lp_normalization(x: Any, *, axis: int = -1, p: int = 2) -> Any:
    """Division by the norm along one axis; zeros stay."""
    refuse(p not in (1, 2), f"LpNormalization with p={p}")
    return tf.math.divide_no_nan(x, tf.norm(x, ord=1 if p == 1 else 2, axis=axis, keepdims=True))


@lowers("LRN")
def local_response_normalization(
    x: Any, *, size: int, alpha: float = 1e-4, beta: float = 0.75, bias: float = 1.0
) -> Any:
    """Across neighbouring channels."""
    before, after = (size - 1) // 2, math.ceil((size - 1) / 2)
    squares = tf.pad(tf.square(x), [[0, 0], [before, after]] + [[0, 0]] * (rank_of(x) - 2))
    extent = extents_of(x)[1]
    total = tf.add_n([squares[:, start : start + extent] for start in range(size)])
    return x / tf.pow(bias + (alpha / size) * total, beta)


@lowers("Hardmax", since=13)
def hardmax(x: Any, *, axis: int = -1) -> Any:
    """One where the first of the largest is along an axis, zero elsewhere."""
    return tf.one_hot(tf.argmax(x, axis=axis), tf.shape(x)[axis], axis=axis % rank_of(x), dtype=x.dtype)


@lowers("Hardmax")
def hardmax_of_matrix(x: Any, *, axis: int = 1) -> Any:
    """Over all axes from `axis` on together, before opset 13."""
    return _as_matrix(hardmax, x, axis)


@lowers("Dropout", since=12)
def dropout(
    x: Any, ratio: Any = None, training_mode: Any = None, *, seed: int | None = None, output_count: int = 1
) -> Any:
    """Nothing is dropped unless the graph says that it is for training."""
    x = tf.convert_to_tensor(x)
    if training_mode is None or (is_static(training_mode) and not training_mode.reshape(())):
        return (tf.identity(x), tf.ones_like(x, tf.bool))[:output_count]
    ratio = tf.cast(0.5 if ratio is None else tf.reshape(ratio, []), tf.float32)
    is_training = tf.cast(tf.reshape(training_mode, []), tf.bool)
    kept = tf.random.uniform(shape_of(x), seed=seed) >= tf.where(is_training, ratio, 0.0)
    scale = tf.cast(tf.where(is_training, 1 / (1 - ratio), 1.0), x.dtype)
    return (tf.where(kept, x * scale, tf.zeros_like(x)), kept)[:output_count]


@lowers("Dropout", since=7)
def dropout_for_inference(x: Any, *, ratio: float = 0.5, output_count: int = 1) -> Any:
    """Before opset 12 the graph was an evaluation graph: nothing is dropped."""
    return dropout(x, output_count=output_count)

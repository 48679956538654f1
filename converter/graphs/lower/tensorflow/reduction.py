"""Operators that reduce along axes."""

from __future__ import annotations

from functools import partial
from typing import Any

from converter.graphs.lower.tensorflow.framework import is_static, rank_of, tf, with_rank
from converter.graphs.lower.tensorflow.registry import REGISTRY, refuse

lowers = REGISTRY.lowers

# ONNX op type, what it reduces by, and the opset in which its axes became an input.
_REDUCTIONS = (
    ("ReduceL1", lambda x, **how: tf.reduce_sum(tf.abs(x), **how), 18),
    ("ReduceL2", lambda x, **how: tf.sqrt(tf.reduce_sum(tf.square(x), **how)), 18),
    ("ReduceLogSum", lambda x, **how: tf.math.log(tf.reduce_sum(x, **how)), 18),
    ("ReduceLogSumExp", lambda x, **how: tf.reduce_logsumexp(x, **how), 18),
    ("ReduceMax", lambda x, **how: _extreme(tf.reduce_max, x, **how), 18),
    ("ReduceMean", lambda x, **how: tf.reduce_mean(x, **how), 18),
    ("ReduceMin", lambda x, **how: _extreme(tf.reduce_min, x, **how), 18),
    ("ReduceProd", lambda x, **how: tf.reduce_prod(x, **how), 18),
    ("ReduceSum", lambda x, **how: tf.reduce_sum(x, **how), 13),
    ("ReduceSumSquare", lambda x, **how: tf.reduce_sum(tf.square(x), **how), 18),
)


def _extreme(function: Any, x: Any, **how: Any) -> Any:
    x = tf.convert_to_tensor(x)
    if x.dtype == tf.bool:
        return (tf.reduce_any if function is tf.reduce_max else tf.reduce_all)(x, **how)
    return function(x, **how)


def _reduce(reducer: Any, x: Any, axes: Any = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0) -> Any:
    if axes is None or axes.shape[0] == 0:
        if not noop_with_empty_axes:
            return reducer(x, axis=None, keepdims=bool(keepdims))
        return reducer(tf.expand_dims(x, 0), axis=[0], keepdims=False)
    # Axes are never int64: where the shape is not known the gradient takes none (tensorflow 2.21, reduced_shape).
    if is_static(axes):
        return reducer(x, axis=[int(axis) for axis in axes], keepdims=bool(keepdims))
    axes = tf.cast(axes, tf.int32)
    refuse(axes.shape[0] is None and not keepdims, "an unknown number of reduction axes, with keepdims=0")
    rank = rank_of(x) if keepdims else rank_of(x) - axes.shape[0]
    return with_rank(reducer(x, axis=axes, keepdims=bool(keepdims)), rank)


def _reduce_by_attribute(reducer: Any, x: Any, *, axes: Any = None, keepdims: int = 1) -> Any:
    return reducer(x, axis=None if axes is None else list(axes), keepdims=bool(keepdims))


for _op_type, _reducer, _since in _REDUCTIONS:
    REGISTRY.add(_op_type, partial(_reduce, _reducer), since=_since)
    REGISTRY.add(_op_type, partial(_reduce_by_attribute, _reducer), since=1)


def _position(function: Any, x: Any, axis: int, keepdims: int, select_last_index: int) -> Any:
    axis = axis % rank_of(x)
    if select_last_index:
        extent = tf.shape(x, out_type=tf.int64)[axis]
        found = extent - 1 - function(tf.reverse(x, [axis]), axis=axis, output_type=tf.int64)
    else:
        found = function(x, axis=axis, output_type=tf.int64)
    return tf.expand_dims(found, axis) if keepdims else found


@lowers("ArgMax")
def arg_max(x: Any, *, axis: int = 0, keepdims: int = 1, select_last_index: int = 0) -> Any:
    """Where the largest is: the first of equals, or the last."""
    return _position(tf.argmax, x, axis, keepdims, select_last_index)


@lowers("ArgMin")
def arg_min(x: Any, *, axis: int = 0, keepdims: int = 1, select_last_index: int = 0) -> Any:
    """Where the smallest is: the first of equals, or the last."""
    return _position(tf.argmin, x, axis, keepdims, select_last_index)


@lowers("CumSum", since=11)
def cumulative_sum(x: Any, axis: Any, *, exclusive: int = 0, reverse: int = 0) -> Any:
    """Running sums along an axis."""
    return tf.cumsum(x, axis=tf.reshape(axis, []), exclusive=bool(exclusive), reverse=bool(reverse))


@lowers("CumProd", since=26)
def cumulative_product(x: Any, axis: Any, *, exclusive: int = 0, reverse: int = 0) -> Any:
    """Running products along an axis."""
    return tf.math.cumprod(x, axis=tf.reshape(axis, []), exclusive=bool(exclusive), reverse=bool(reverse))

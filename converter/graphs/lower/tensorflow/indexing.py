"""Operators that pick elements by position, or put them there."""

from __future__ import annotations

from typing import Any

from converter.graphs.lower.tensorflow.framework import as_shape, extents_of, is_static, rank_of, tf
from converter.graphs.lower.tensorflow.registry import REGISTRY, refuse

lowers = REGISTRY.lowers
_BEYOND = (1 << 31) - 1


def _from_start(indices: Any, extent: Any) -> Any:
    """Make negative indices, which count from the end, count from the start."""
    import numpy as np

    if is_static(indices) and np.all(indices >= 0):
        return indices
    return tf.where(tf.less(indices, 0), indices + tf.cast(extent, indices.dtype), indices)


@lowers("Gather")
def gather(x: Any, indices: Any, *, axis: int = 0) -> Any:
    """Slices of one axis."""
    return tf.gather(x, _from_start(indices, extents_of(x)[axis]), axis=axis)


@lowers("GatherND", since=11)
def gather_nd(x: Any, indices: Any, *, batch_dims: int = 0) -> Any:
    """Slices at index tuples, which lie along the last axis of `indices`."""
    depth = indices.shape[-1]
    refuse(depth is None, "GatherND with index tuples of unknown length")
    indexed = extents_of(x)[batch_dims : batch_dims + depth]
    return tf.gather_nd(x, _from_start(indices, as_shape(indexed)), batch_dims=batch_dims)


def _grid(indices: Any, axis: int, extent: Any) -> Any:
    """Full index tuples of the elements that `indices` names along `axis`."""
    indices = _from_start(tf.cast(indices, tf.int64), extent)
    axes = tf.meshgrid(*(tf.range(each, dtype=tf.int64) for each in extents_of(indices)), indexing="ij")
    axes[axis] = indices
    return tf.stack(axes, axis=-1)


@lowers("GatherElements", since=11)
def gather_elements(x: Any, indices: Any, *, axis: int = 0) -> Any:
    """One element per index, along one axis."""
    axis = axis % rank_of(x)
    return tf.gather_nd(x, _grid(indices, axis, extents_of(x)[axis]))


@lowers("ScatterElements", since=18)
def scatter_elements(x: Any, indices: Any, updates: Any, *, axis: int = 0, reduction: str = "none") -> Any:
    """Put one element per index, along one axis."""
    axis = axis % rank_of(x)
    return _scatter(x, _grid(indices, axis, extents_of(x)[axis]), updates, reduction)


@lowers("ScatterElements", since=11)
def scatter_elements_plain(x: Any, indices: Any, updates: Any, *, axis: int = 0) -> Any:
    """Without a reduction, before opset 16."""
    return scatter_elements(x, indices, updates, axis=axis)


@lowers("ScatterND", since=16)
def scatter_nd(x: Any, indices: Any, updates: Any, *, reduction: str = "none") -> Any:
    """Put slices at index tuples."""
    depth = indices.shape[-1]
    refuse(depth is None, "ScatterND with index tuples of unknown length")
    return _scatter(x, _from_start(indices, as_shape(extents_of(x)[:depth])), updates, reduction)


@lowers("ScatterND", since=11)
def scatter_nd_plain(x: Any, indices: Any, updates: Any) -> Any:
    """Without a reduction, before opset 16."""
    return scatter_nd(x, indices, updates)


def _scatter(x: Any, indices: Any, updates: Any, reduction: str) -> Any:
    if reduction == "none":
        return tf.tensor_scatter_nd_update(x, indices, updates)
    if reduction == "add":
        return tf.tensor_scatter_nd_add(x, indices, updates)
    refuse(reduction not in ("max", "min"), f"scatter with reduction {reduction!r}")
    return (tf.tensor_scatter_nd_max if reduction == "max" else tf.tensor_scatter_nd_min)(x, indices, updates)


@lowers("Slice", since=10)
def slice_(x: Any, starts: Any, ends: Any, axes: Any = None, steps: Any = None) -> Any:
    """Python's rule: negative positions count from the end, those beyond it are cut to it, steps may be negative."""
    import numpy as np

    refuse(not is_static(axes, steps), "Slice axes or steps that are not constant")
    rank, count = rank_of(x), starts.shape[0] if axes is None else len(axes)
    refuse(count is None, "Slice of an unknown number of axes")
    chosen = list(range(count)) if axes is None else [int(axis) % rank for axis in axes]
    strides = [1] * rank
    begin, end = _Bounds(rank), _Bounds(rank)
    for position, axis in enumerate(chosen):
        strides[axis] = 1 if steps is None else int(steps[position])
        begin.set(axis, starts[position], is_open_above=strides[axis] < 0)
        end.set(axis, ends[position], is_open_above=strides[axis] > 0)
    return tf.strided_slice(
        x, begin.vector(), end.vector(), np.array(strides, np.int64), begin_mask=begin.mask, end_mask=end.mask
    )


class _Bounds:
    """Positions that a slice of all axes begins or ends at; open ones, which is what they all are at first, are bits.

    ONNX writes the largest (smallest) integer for an open one; TensorFlow 2.21's layout pass fails on it.
    """

    def __init__(self, rank: int) -> None:
        self.positions: list[Any] = [0] * rank
        self.mask = (1 << rank) - 1

    def set(self, axis: int, position: Any, *, is_open_above: bool) -> None:
        """Bound one axis, unless the position lies beyond any extent on the side that means open."""
        if not tf.is_tensor(position):
            position = int(position)
            if position >= _BEYOND if is_open_above else position <= -_BEYOND:
                return
        self.positions[axis] = position
        self.mask &= ~(1 << axis)

    def vector(self) -> Any:
        """Return the positions as one vector."""
        return as_shape(self.positions)


@lowers("Slice")
def slice_by_attributes(x: Any, *, starts: Any, ends: Any, axes: Any = None) -> Any:
    """Bounds as attributes, before opset 10."""
    import numpy as np

    arrays = [None if each is None else np.array(each, np.int64) for each in (starts, ends, axes)]
    return slice_(x, *arrays)


@lowers("TopK", since=11)
def top_k(x: Any, k: Any, *, axis: int = -1, largest: int = 1, sorted: int = 1) -> Any:
    """The k largest (smallest) values along an axis, and where they are; of equals the first comes first."""
    axis = axis % rank_of(x)
    order = [each for each in range(rank_of(x)) if each != axis] + [axis]
    inverse = [order.index(each) for each in range(rank_of(x))]
    last = tf.transpose(x, order)
    # top_k of the negated values: negation is exact for floats, and integers lack only the lowest one's opposite.
    values, positions = tf.math.top_k(last if largest else -last, k=tf.cast(tf.reshape(k, []), tf.int32))
    values = values if largest else -values
    return tf.transpose(values, inverse), tf.cast(tf.transpose(positions, inverse), tf.int64)


@lowers("NonZero", since=9)
def non_zero(x: Any) -> Any:
    """Positions of what is not zero, one column each."""
    return tf.transpose(tf.where(tf.not_equal(x, tf.zeros([], x.dtype))))

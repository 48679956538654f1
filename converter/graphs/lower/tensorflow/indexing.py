"""Operators that pick elements by position, or put them there."""

from __future__ import annotations

from typing import Any

from converter.graphs.lower.tensorflow.framework import (
    as_shape,
    extents_of,
    is_static,
    rank_of,
    shape_of,
    tf,
    with_rank,
)
from converter.graphs.lower.tensorflow.registry import REGISTRY, refuse

lowers = REGISTRY.lowers
_BEYOND = (1 << 31) - 1
_TABLE_RANK = 2


def _from_start(indices: Any, extent: Any) -> Any:
    """Make negative indices, which count from the end, count from the start."""
    import numpy as np

    if is_static(indices) and np.all(indices >= 0):
        return indices
    return tf.where(tf.less(indices, 0), indices + tf.cast(extent, indices.dtype), indices)


@lowers("Gather")
def gather(x: Any, indices: Any, *, axis: int = 0, padding_row: int | None = None) -> Any:
    """Slices of one axis. The row `padding_row` gets no gradient."""
    positions = _from_start(indices, extents_of(x)[axis])
    picked = tf.gather(x, positions, axis=axis)
    if padding_row is None or axis != 0 or rank_of(x) != _TABLE_RANK:
        return picked
    return tf.where(tf.equal(positions, padding_row)[..., None], tf.stop_gradient(picked), picked)


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


@lowers("Scatter", "ScatterElements", since=9)
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
    if reduction == "mul":
        return _scatter_products(x, indices, updates)
    refuse(reduction not in ("max", "min"), f"scatter with reduction {reduction!r}")
    return (tf.tensor_scatter_nd_max if reduction == "max" else tf.tensor_scatter_nd_min)(x, indices, updates)


def _scatter_products(x: Any, indices: Any, updates: Any) -> Any:
    """TensorFlow has no such scatter: multiply by one update at a time, for an index may come more than once."""
    depth = indices.shape[-1]
    places = tf.reshape(tf.cast(indices, tf.int64), [-1, depth])
    rows = tf.reshape(updates, tf.concat([[-1], tf.shape(x)[depth:]], 0))

    def multiply(step: Any, product: Any) -> Any:
        place = places[step][None]
        value = tf.tensor_scatter_nd_update(product, place, tf.gather_nd(product, place) * rows[step][None])
        return step + 1, tf.ensure_shape(value, x.shape)

    return tf.while_loop(lambda step, _: step < tf.shape(places)[0], multiply, (0, x))[1]


@lowers("Slice", since=10)
def slice_(x: Any, starts: Any, ends: Any, axes: Any = None, steps: Any = None) -> Any:
    """Python's rule: negative positions count from the end, those beyond it are cut to it, steps may be negative."""
    import numpy as np

    if not is_static(axes, steps):
        return _slice_at_run_time(x, starts, ends, axes, steps)
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


def _slice_at_run_time(x: Any, starts: Any, ends: Any, axes: Any, steps: Any) -> Any:
    rank, extents = rank_of(x), tf.shape(x, out_type=tf.int64)
    axes = tf.range(tf.size(starts, tf.int64), dtype=tf.int64) if axes is None else tf.cast(axes, tf.int64) % rank
    steps = tf.ones_like(axes) if steps is None else tf.cast(steps, tf.int64)
    limits = tf.gather(extents, axes)
    bounds = [tf.clip_by_value(tf.cast(each, tf.int64), -limits - 1, limits) for each in (starts, ends)]
    whole = (tf.zeros([rank], tf.int64), extents, tf.ones([rank], tf.int64))
    begin, end, strides = (
        tf.tensor_scatter_nd_update(every, axes[:, None], limit)
        for every, limit in zip(whole, (*bounds, steps), strict=True)
    )
    return with_rank(tf.strided_slice(x, begin, end, strides), rank)


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
    # top_k of the opposites: every float has a negative; every integer, the lowest and unsigned ones too, a complement.
    opposite = tf.bitwise.invert if last.dtype.is_integer else tf.math.negative
    values, positions = tf.math.top_k(last if largest else opposite(last), k=tf.cast(tf.reshape(k, []), tf.int32))
    values = values if largest else opposite(values)
    return tf.transpose(values, inverse), tf.cast(tf.transpose(positions, inverse), tf.int64)


@lowers("TopK", since=10)
def top_k_largest(x: Any, k: Any, *, axis: int = -1) -> Any:
    """The largest, before opset 11."""
    return top_k(x, k, axis=axis)


@lowers("TopK")
def top_k_by_attribute(x: Any, *, k: int, axis: int = -1) -> Any:
    """k as an attribute, before opset 10."""
    return top_k(x, k, axis=axis)


@lowers("NonZero", since=9)
def non_zero(x: Any) -> Any:
    """Positions of what is not zero, one column each."""
    return tf.transpose(tf.where(tf.not_equal(x, tf.zeros([], x.dtype))))


@lowers("Compress", since=9)
def compress(x: Any, condition: Any, *, axis: int | None = None) -> Any:
    """The slices along `axis` where the condition, which may be shorter, is true; elements when no axis is given."""
    x = tf.reshape(x, [-1]) if axis is None else x
    return tf.gather(x, tf.reshape(tf.where(condition), [-1]), axis=0 if axis is None else axis)


@lowers("Unique", since=11)
def unique(x: Any, *, axis: int | None = None, sorted: int = 1) -> Any:
    """Values (slices of an axis) once, the first position of each, where each element's is, and how often it comes."""
    x = tf.convert_to_tensor(x)
    flat = tf.reshape(x, [-1]) if axis is None else x
    # tf.unique knows no bfloat16; float32 holds its values.
    wide = tf.cast(flat, tf.float32) if x.dtype in (tf.bfloat16, tf.float16) else flat
    values, inverse, counts = tf.raw_ops.UniqueWithCountsV2(x=wide, axis=[axis or 0], out_idx=tf.int64)
    values = tf.cast(values, x.dtype)
    positions = tf.range(tf.size(inverse, tf.int64), dtype=tf.int64)
    first = tf.math.unsorted_segment_min(positions, inverse, tf.size(counts, tf.int64))
    if sorted:
        order = _lexicographic(values, axis or 0)
        ranks = tf.math.invert_permutation(order)
        values, first, counts = (
            tf.gather(values, order, axis=axis or 0),
            tf.gather(first, order),
            tf.gather(counts, order),
        )
        inverse = tf.gather(ranks, inverse)
    return values, first, inverse, counts


def _lexicographic(values: Any, axis: int) -> Any:
    """Return the order that sorts the slices along an axis, the first differing element deciding."""
    axis = axis % rank_of(values)
    order = [axis, *(each for each in range(rank_of(values)) if each != axis)]
    extents = shape_of(values)
    rows = tf.reshape(tf.transpose(values, order), as_shape([extents[axis], -1]) if rank_of(values) > 1 else [-1, 1])
    start = tf.range(tf.shape(rows, out_type=tf.int64)[0], dtype=tf.int64)

    def by_column(step: Any, found: Any) -> Any:
        column = tf.gather(tf.gather(rows, found), step, axis=1)
        found = tf.gather(found, tf.argsort(column, stable=True))
        found.set_shape(start.shape)
        return step - 1, found

    return tf.while_loop(lambda step, _: step >= 0, by_column, (tf.shape(rows)[1] - 1, start))[1]


@lowers("ReverseSequence", since=10)
def reverse_sequence(x: Any, lengths: Any, *, batch_axis: int = 1, time_axis: int = 0) -> Any:
    """Reverse the first `lengths` steps of each sequence."""
    return tf.reverse_sequence(x, lengths, seq_axis=time_axis, batch_axis=batch_axis)


@lowers("TensorScatter", since=24)
def tensor_scatter(past: Any, update: Any, write_indices: Any = None, *, axis: int = -2, mode: str = "linear") -> Any:
    """Writes `update` into a cache along an axis, each example from its own index on, perhaps round the end."""
    axis = axis % rank_of(past)
    extents = extents_of(update)
    starts = tf.zeros([extents[0]], tf.int64) if write_indices is None else write_indices
    places = tf.reshape(starts, [-1] + [1] * (rank_of(past) - 1))
    along = tf.reshape(tf.range(extents[axis], dtype=tf.int64), [-1] + [1] * (rank_of(past) - 1 - axis))
    places = places + along
    places = places % tf.cast(extents_of(past)[axis], tf.int64) if mode == "circular" else places
    return scatter_elements(past, tf.broadcast_to(places, shape_of(update)), update, axis=axis)

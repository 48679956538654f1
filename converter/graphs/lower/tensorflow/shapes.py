"""Operators that move elements without looking at them: reshape, transpose, concatenate, pad."""

from __future__ import annotations

from typing import Any

from converter.graphs.lower.tensorflow.framework import (
    as_shape,
    extents_of,
    is_static,
    product,
    rank_of,
    shape_of,
    tf,
    with_rank,
)
from converter.graphs.lower.tensorflow.registry import REGISTRY, refuse

lowers = REGISTRY.lowers


@lowers("Reshape", since=5)
def reshape(x: Any, shape: Any, *, allowzero: int = 0) -> Any:
    """-1 is inferred; 0 copies the input's extent unless `allowzero`."""
    import numpy as np

    if allowzero or (is_static(shape) and not np.any(shape == 0)):
        return tf.reshape(x, shape)
    if is_static(shape):
        extents = extents_of(x)
        return tf.reshape(x, as_shape([extent or extents[axis] for axis, extent in enumerate(shape.tolist())]))
    refuse(shape.shape[0] is None, "Reshape to an unknown number of dimensions, 0 meaning copy")
    copied = [*extents_of(x), *[0] * shape.shape[0]][: shape.shape[0]]
    return tf.reshape(x, tf.where(tf.equal(shape, 0), as_shape(copied), shape))


@lowers("Flatten")
def flatten(x: Any, *, axis: int = 1) -> Any:
    """A matrix: the extents before `axis` by those from it on."""
    extents = extents_of(x)
    return tf.reshape(x, as_shape([product(extents[:axis]), product(extents[axis:])]))


@lowers("Transpose")
def transpose(x: Any, *, perm: Any = None) -> Any:
    """Axes reversed when no permutation is given."""
    return tf.transpose(x, perm=None if perm is None else list(perm))


@lowers("Squeeze", since=13)
def squeeze(x: Any, axes: Any = None) -> Any:
    """Drop axes of extent 1: those named, or all of them."""
    if axes is None:
        return tf.squeeze(x)
    if is_static(axes):
        return tf.squeeze(x, axis=axes.reshape(-1).tolist())
    rank = rank_of(x)
    kept = tf.boolean_mask(tf.shape(x, out_type=tf.int64), tf.logical_not(_is_among(axes, rank)))
    return with_rank(tf.reshape(x, kept), rank - _count(axes))


def _is_among(axes: Any, rank: int) -> Any:
    """Return for each of `rank` axes whether run-time `axes` name it."""
    return tf.reduce_any(tf.equal(tf.range(rank, dtype=axes.dtype)[:, None], tf.reshape(axes, [-1]) % rank), axis=1)


def _count(axes: Any) -> int:
    count = axes.shape.num_elements()
    refuse(count is None, "an unknown number of axes")
    return int(count)


@lowers("Squeeze")
def squeeze_by_attribute(x: Any, *, axes: Any = None) -> Any:
    """Axes as an attribute, before opset 13."""
    return tf.squeeze(x, axis=None if axes is None else list(axes))


@lowers("Unsqueeze", since=13)
def unsqueeze(x: Any, axes: Any) -> Any:
    """Axes count in the result; their order does not matter."""
    if is_static(axes):
        return unsqueeze_by_attribute(x, axes=axes.reshape(-1).tolist())
    rank = rank_of(x) + _count(axes)
    others = tf.where(tf.logical_not(_is_among(axes, rank)))
    extents = tf.tensor_scatter_nd_update(tf.ones([rank], tf.int64), others, tf.shape(x, out_type=tf.int64))
    return with_rank(tf.reshape(x, extents), rank)


@lowers("Unsqueeze")
def unsqueeze_by_attribute(x: Any, *, axes: Any) -> Any:
    """Axes as an attribute, before opset 13."""
    rank = rank_of(x) + len(axes)
    for axis in sorted(axis if axis >= 0 else axis + rank for axis in axes):
        x = tf.expand_dims(x, axis)
    return x


@lowers("Concat", since=4)
def concat(*values: Any, axis: int) -> Any:
    """Join along an axis."""
    return tf.concat(list(values), axis)


@lowers("Split", since=18)
def split(x: Any, sizes: Any = None, *, axis: int = 0, num_outputs: int | None = None, output_count: int) -> Any:
    """Into the sizes given, or into equal parts of which the last may be smaller."""
    if sizes is not None:
        return tuple(tf.split(x, sizes, axis=axis, num=output_count))
    extent = x.shape[axis]
    count = num_outputs or output_count
    if extent is None:
        extent = extents_of(x)[axis]
    part = -(-extent // count)
    return tuple(tf.split(x, as_shape([part] * (count - 1) + [extent - part * (count - 1)]), axis=axis, num=count))


@lowers("Split", since=13)
def split_by_sizes(x: Any, sizes: Any = None, *, axis: int = 0, output_count: int) -> Any:
    """Without `num_outputs`, before opset 18."""
    return split(x, sizes, axis=axis, output_count=output_count)


@lowers("Split", since=2)
def split_by_attribute(x: Any, *, axis: int = 0, split: Any = None, output_count: int) -> Any:
    """Sizes as an attribute, before opset 13."""
    return tuple(tf.split(x, output_count if split is None else list(split), axis=axis))


@lowers("Expand", since=8)
def expand(x: Any, shape: Any) -> Any:
    """Broadcasting goes both ways: an extent of 1 in `shape` keeps the input's."""
    import numpy as np

    extents = shape_of(x)
    if is_static(extents, shape):
        return tf.broadcast_to(x, np.array(np.broadcast_shapes(tuple(extents), tuple(shape)), np.int64))
    return tf.broadcast_to(x, tf.broadcast_dynamic_shape(tf.convert_to_tensor(extents), tf.convert_to_tensor(shape)))


@lowers("Tile", since=6)
def tile(x: Any, repeats: Any) -> Any:
    """Repeat along each axis."""
    return tf.tile(x, repeats)


@lowers("Pad", since=11)
def pad(x: Any, pads: Any, value: Any = None, axes: Any = None, *, mode: str = "constant") -> Any:
    """Begins of all axes, then ends; negative ones cut. Modes constant, reflect, edge and wrap."""
    x, amounts = tf.convert_to_tensor(x), _amounts(x, pads, axes)
    if mode == "constant":
        fill = tf.zeros([], x.dtype) if value is None else tf.cast(tf.reshape(value, []), x.dtype)
        return _padded(x, amounts, fill)
    refuse(mode not in _SOURCES, f"Pad mode {mode!r}")
    for axis in range(rank_of(x)):
        before, after = amounts[axis][0], amounts[axis][1]
        if is_static(amounts) and not before and not after:
            continue
        extent = tf.cast(extents_of(x)[axis], tf.int64)
        x = tf.gather(x, _SOURCES[mode](tf.range(-before, extent + after, dtype=tf.int64), extent), axis=axis)
    return x


# Where the elements of a padded axis come from, by their positions before padding.
_SOURCES = {
    "edge": lambda at, extent: tf.clip_by_value(at, 0, extent - 1),
    "wrap": lambda at, extent: at % extent,
    "reflect": lambda at, extent: (
        extent - 1 - tf.abs(at % tf.maximum(2 * extent - 2, 1) - (extent - 1))  # a wave of period 2 n - 2
    ),
}


def _amounts(x: Any, pads: Any, axes: Any) -> Any:
    """Return [rank, 2] amounts: an array when they are known, else a tensor."""
    import numpy as np

    rank = rank_of(x)
    if is_static(pads, axes):
        amounts = np.zeros((rank, 2), np.int64)
        amounts[list(range(rank)) if axes is None else [int(axis) % rank for axis in axes]] = pads.reshape(2, -1).T
        return amounts
    pairs = tf.cast(tf.transpose(tf.reshape(pads, [2, -1])), tf.int64)
    if axes is None:
        return tf.ensure_shape(pairs, [rank, 2])
    places = tf.cast(tf.reshape(axes, [-1, 1]), tf.int64) % rank
    return tf.tensor_scatter_nd_update(tf.zeros([rank, 2], tf.int64), places, pairs)


def _padded(x: Any, amounts: Any, fill: Any) -> Any:
    if is_static(amounts) and not amounts.any():
        return tf.identity(x)
    if not is_static(amounts) or (amounts < 0).any():
        rank, extents = rank_of(x), shape_of(x)
        cut = tf.minimum(amounts, 0)
        static = x.shape
        x = tf.slice(x, -cut[:, 0], extents + cut[:, 0] + cut[:, 1])
        x = with_rank(x, rank) if None in static else x
    return tf.pad(x, tf.maximum(amounts, 0), constant_values=fill)


@lowers("Pad", since=2)
def pad_by_attributes(x: Any, *, pads: Any, mode: str = "constant", value: float = 0.0) -> Any:
    """Amounts and value as attributes, before opset 11."""
    import numpy as np

    return pad(x, np.array(pads, np.int64), np.array(value, np.float32), mode=mode)


@lowers("DepthToSpace")
def depth_to_space(x: Any, *, blocksize: int, mode: str = "DCR") -> Any:
    """[n, c, h, w] -> [n, c / b^2, h * b, w * b]; the block comes before (DCR) or after (CRD) the channels."""
    b = blocksize
    n, c, h, w = extents_of(x)
    depth = c // (b * b)
    if mode == "DCR":
        blocks = tf.transpose(tf.reshape(x, as_shape([n, b, b, depth, h, w])), [0, 3, 4, 1, 5, 2])
    else:
        blocks = tf.transpose(tf.reshape(x, as_shape([n, depth, b, b, h, w])), [0, 1, 4, 2, 5, 3])
    return tf.reshape(blocks, as_shape([n, depth, h * b, w * b]))


@lowers("SpaceToDepth")
def space_to_depth(x: Any, *, blocksize: int, mode: str = "DCR") -> Any:
    """[n, c, h, w] -> [n, c * b^2, h / b, w / b]; the block comes before (DCR) or after (CRD) the channels."""
    b = blocksize
    n, c, h, w = extents_of(x)
    blocks = tf.reshape(x, as_shape([n, c, h // b, b, w // b, b]))
    blocks = tf.transpose(blocks, [0, 3, 5, 1, 2, 4] if mode == "DCR" else [0, 1, 3, 5, 2, 4])
    return tf.reshape(blocks, as_shape([n, c * b * b, h // b, w // b]))

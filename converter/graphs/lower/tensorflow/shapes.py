"""Operators that move elements without looking at them: reshape, transpose, concatenate, pad."""

from __future__ import annotations

from typing import Any

from converter.graphs.lower.tensorflow.framework import as_shape, extents_of, is_static, product, rank_of, shape_of, tf
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
    refuse(not is_static(axes), "Squeeze axes that are not constant")
    if axes is not None:
        return tf.squeeze(x, axis=axes.reshape(-1).tolist())
    refuse(None in list(x.shape) if rank_of(x) else False, "Squeeze of all axes of extent 1, with unknown extents")
    return tf.squeeze(x)


@lowers("Squeeze")
def squeeze_by_attribute(x: Any, *, axes: Any = None) -> Any:
    """Axes as an attribute, before opset 13."""
    return tf.squeeze(x, axis=None if axes is None else list(axes))


@lowers("Unsqueeze", since=13)
def unsqueeze(x: Any, axes: Any) -> Any:
    """Axes count in the result; their order does not matter."""
    refuse(not is_static(axes), "Unsqueeze axes that are not constant")
    return unsqueeze_by_attribute(x, axes=axes.reshape(-1).tolist())


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
    refuse(extent is None, "Split of an unknown extent into equal parts")
    part = -(-extent // count)
    return tuple(tf.split(x, [part] * (count - 1) + [extent - part * (count - 1)], axis=axis))


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
    """Begins of all axes, then ends; negative ones cut. Modes constant, reflect and edge."""
    import numpy as np

    refuse(not is_static(pads, axes), "Pad amounts that are not constant")
    rank = rank_of(x)
    chosen = range(rank) if axes is None else [int(axis) % rank for axis in axes]
    amounts = np.zeros((rank, 2), np.int64)
    amounts[list(chosen)] = pads.reshape(2, -1).T
    x = _cut(x, np.minimum(amounts, 0))
    amounts = np.maximum(amounts, 0)
    if mode == "constant":
        return tf.pad(x, amounts, constant_values=0 if value is None else tf.cast(tf.reshape(value, []), x.dtype))
    refuse(mode not in ("reflect", "edge"), f"Pad mode {mode!r}")
    if mode == "reflect":
        return tf.pad(x, amounts, mode="REFLECT")
    for axis, (before, after) in enumerate(amounts.tolist()):
        if before or after:
            last = extents_of(x)[axis] - 1
            last = tf.cast(last, tf.int64)
            kept = tf.clip_by_value(tf.range(-before, last + 1 + after, dtype=tf.int64), 0, last)
            x = tf.gather(x, kept, axis=axis)
    return x


@lowers("Pad", since=2)
def pad_by_attributes(x: Any, *, pads: Any, mode: str = "constant", value: float = 0.0) -> Any:
    """Amounts and value as attributes, before opset 11."""
    import numpy as np

    return pad(x, np.array(pads, np.int64), np.array(value, np.float32), mode=mode)


def _cut(x: Any, amounts: Any) -> Any:
    return x[tuple(slice(-before, after or None) for before, after in amounts.tolist())] if amounts.any() else x


@lowers("DepthToSpace", since=11)
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
def space_to_depth(x: Any, *, blocksize: int) -> Any:
    """[n, c, h, w] -> [n, c * b^2, h / b, w / b]."""
    b = blocksize
    n, c, h, w = extents_of(x)
    blocks = tf.transpose(tf.reshape(x, as_shape([n, c, h // b, b, w // b, b])), [0, 3, 5, 1, 2, 4])
    return tf.reshape(blocks, as_shape([n, c * b * b, h // b, w // b]))

"""Pools. tf.nn.pool does the common ones, channels last; windows gathered axis by axis do all the others."""

from __future__ import annotations

from typing import Any

from converter.graphs.lower.tensorflow.convolution import (
    channels_first,
    channels_last,
    is_nothing,
    larger,
    padded,
    padding,
)
from converter.graphs.lower.tensorflow.framework import as_shape, extents_of, product, rank_of, shape_of, tf
from converter.graphs.lower.tensorflow.registry import REGISTRY

lowers = REGISTRY.lowers


class _Window:
    """The geometry of a pool: what its attributes mean for one input."""

    def __init__(
        self, x: Any, kernel: Any, strides: Any, dilations: Any, auto_pad: str, pads: Any, ceil_mode: int
    ) -> None:
        self.kernel = list(kernel)
        self.strides = list(strides or [1] * len(self.kernel))
        self.dilations = list(dilations or [1] * len(self.kernel))
        self.padding_of_node = padding(x, auto_pad, pads, self.kernel, self.strides, self.dilations)
        self.full = self._with_last_window(x) if ceil_mode else self.padding_of_node

    def _with_last_window(self, x: Any) -> list[list[Any]]:
        """Padding that also holds the last, partial window of `ceil_mode`, unless it would begin in padding."""
        result = []
        for axis, (before, after) in enumerate(self.padding_of_node):
            stride, extent = self.strides[axis], extents_of(x)[axis + 2]
            span = extent + before + after - (self.kernel[axis] - 1) * self.dilations[axis] - 1
            windows = -(-span // stride)
            begins_late = windows * stride >= extent + before
            windows -= begins_late if isinstance(begins_late, bool) else tf.cast(begins_late, tf.int64)
            result.append([before, after + larger(windows * stride - span, 0)])
        return result

    @property
    def is_plain(self) -> bool:
        """Whether tf.nn.pool computes a pool of this geometry."""
        is_dilated = any(dilation != 1 for dilation in self.dilations)
        skips = any(stride > extent for stride, extent in zip(self.strides, self.kernel, strict=True))
        return not skips and not (is_dilated and any(stride != 1 for stride in self.strides))

    def gathered(self, x: Any, fill: Any) -> Any:
        """Return [n, c, windows..., elements of a window] of an [n, c, ...]."""
        y = padded(tf.expand_dims(x, -1), [[0, 0], *self.full], fill)
        for axis, extent in enumerate(extents_of(y)[2:-1]):
            reach = (self.kernel[axis] - 1) * self.dilations[axis] + 1
            starts = tf.range((extent - reach) // self.strides[axis] + 1) * self.strides[axis]
            elements = tf.range(self.kernel[axis]) * self.dilations[axis]
            places = tf.cast(starts, tf.int64)[:, None] + tf.cast(elements, tf.int64)[None, :]
            y = tf.gather(y, places, axis=axis + 2)
            # The elements of this axis go last, to those of the axes before.
            rank = rank_of(y)
            y = tf.transpose(y, [each for each in range(rank) if each != axis + 3] + [axis + 3])
            extents = extents_of(y)
            y = tf.reshape(y, as_shape([*extents[:-2], extents[-2] * extents[-1]]))
        return y


@lowers("MaxPool")
def max_pool(
    x: Any,
    *,
    kernel_shape: Any,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    dilations: Any = None,
    pads: Any = None,
    storage_order: int = 0,
    strides: Any = None,
    output_count: int = 1,
) -> Any:
    """The largest of each window and, if asked for, its position in the flat input, the last axes perhaps swapped."""
    x = tf.convert_to_tensor(x)
    window = _Window(x, kernel_shape, strides, dilations, auto_pad, pads, ceil_mode)
    if output_count == 1 and window.is_plain and x.dtype.is_floating:
        wide = padded(channels_last(x), window.full, x.dtype.min)
        how = {"strides": window.strides, "padding": "VALID", "dilations": window.dilations}
        return channels_first(tf.nn.pool(wide, window.kernel, "MAX", **how))
    values = window.gathered(x, x.dtype.min)
    if output_count == 1:
        return tf.reduce_max(values, -1)
    positions = tf.reshape(tf.range(tf.size(x, tf.int64), dtype=tf.int64), shape_of(x))
    if storage_order:
        extents, rank = extents_of(x), rank_of(x)
        turned = [0, 1, *reversed(range(2, rank))]
        positions = tf.reshape(positions, as_shape([extents[axis] for axis in turned]))
        positions = tf.transpose(positions, turned)
    places = window.gathered(positions, 0)
    best = tf.argmax(values, -1)
    return tf.reduce_max(values, -1), tf.gather(places, best, batch_dims=rank_of(x))


@lowers("AveragePool")
def average_pool(
    x: Any,
    *,
    kernel_shape: Any,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    count_include_pad: int = 0,
    dilations: Any = None,
    pads: Any = None,
    strides: Any = None,
) -> Any:
    """The mean of each window, over its padding too when `count_include_pad`."""
    x = tf.convert_to_tensor(x)
    window = _Window(x, kernel_shape, strides, dilations, auto_pad, pads, ceil_mode)
    if window.is_plain and all(dilation == 1 for dilation in window.dilations):

        def mean(values: Any) -> Any:
            how = {"strides": window.strides, "padding": "VALID"}
            return channels_first(tf.nn.pool(padded(channels_last(values), window.full), window.kernel, "AVG", **how))

    else:

        def mean(values: Any) -> Any:
            return tf.reduce_mean(window.gathered(values, 0), -1)

    if is_nothing(window.full):
        return mean(x)
    # Ones where a cell counts towards the mean: input, padding if `count_include_pad`, never the extra of `ceil_mode`.
    counted = tf.ones(as_shape([1, 1, *extents_of(x)[2:]]), x.dtype)
    if count_include_pad:
        counted = tf.pad(counted, [[0, 0], [0, 0], *window.padding_of_node], constant_values=1)
        x = tf.pad(x, [[0, 0], [0, 0], *window.padding_of_node])
        window.full = [[0, full[1] - own[1]] for full, own in zip(window.full, window.padding_of_node, strict=True)]
    return mean(x) / mean(counted)


@lowers("LpPool")
def lp_pool(
    x: Any,
    *,
    kernel_shape: Any,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    dilations: Any = None,
    p: int = 2,
    pads: Any = None,
    strides: Any = None,
) -> Any:
    """The p-norm of each window."""
    window = _Window(x, kernel_shape, strides, dilations, auto_pad, pads, ceil_mode)
    return tf.pow(tf.reduce_sum(window.gathered(tf.abs(x) ** p, 0), -1), 1 / p)


@lowers("GlobalAveragePool")
def global_average_pool(x: Any) -> Any:
    """The mean over all spatial axes, kept as ones."""
    return tf.reduce_mean(x, axis=list(range(2, rank_of(x))), keepdims=True)


@lowers("GlobalMaxPool")
def global_max_pool(x: Any) -> Any:
    """The largest over all spatial axes, kept as ones."""
    return tf.reduce_max(x, axis=list(range(2, rank_of(x))), keepdims=True)


@lowers("GlobalLpPool", since=2)
def global_lp_pool(x: Any, *, p: int = 2) -> Any:
    """The p-norm over all spatial axes, kept as ones."""
    total = tf.reduce_sum(tf.abs(x) ** p, axis=list(range(2, rank_of(x))), keepdims=True)
    return tf.pow(total, 1 / p)


@lowers("MaxUnpool", since=9)
def max_unpool(
    x: Any, indices: Any, output_shape: Any = None, *, kernel_shape: Any, pads: Any = None, strides: Any = None
) -> Any:
    """Zeros, but for x at the positions that MaxPool gave; a larger shape asked for is padded at its ends."""
    count = len(kernel_shape)
    strides, pads = list(strides or [1] * count), list(pads or [0] * (2 * count))
    extents = extents_of(x)
    own = extents[:2] + [
        (extents[axis + 2] - 1) * strides[axis] + kernel_shape[axis] - pads[axis] - pads[axis + count]
        for axis in range(count)
    ]
    flat = tf.scatter_nd(
        tf.reshape(indices, [-1, 1]), tf.reshape(x, [-1]), tf.reshape(tf.cast(product(own), tf.int64), [1])
    )
    y = tf.reshape(flat, as_shape(own))
    if output_shape is None:
        return y
    missing = tf.cast(output_shape, tf.int64) - as_shape(own)
    return tf.pad(y, tf.stack([tf.zeros_like(missing), missing], axis=1))

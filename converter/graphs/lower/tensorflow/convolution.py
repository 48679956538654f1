"""Convolutions and pools. ONNX has the channels in axis 1; TensorFlow on a CPU wants them last."""

from __future__ import annotations

from typing import Any

from converter.graphs.lower.tensorflow.framework import as_shape, extents_of, rank_of, tf
from converter.graphs.lower.tensorflow.registry import REGISTRY, refuse

lowers = REGISTRY.lowers


def _channels_last(x: Any) -> Any:
    rank = rank_of(x)
    return tf.transpose(x, [0, *range(2, rank), 1])


def _channels_first(x: Any) -> Any:
    rank = rank_of(x)
    return tf.transpose(x, [0, rank - 1, *range(1, rank - 1)])


def _amounts(x: Any, auto_pad: str, pads: Any, kernel: Any, strides: Any, dilations: Any) -> list[list[int]]:
    """Padding before and after each spatial axis, as the attributes have it."""
    count = len(kernel)
    if auto_pad in ("NOTSET", "VALID"):
        pads = [0] * (2 * count) if pads is None or auto_pad == "VALID" else list(pads)
        return [[pads[axis], pads[axis + count]] for axis in range(count)]
    amounts = []
    for axis in range(count):
        extent = x.shape[axis + 2]
        refuse(extent is None, f"auto_pad {auto_pad} of an unknown extent")
        total = max(
            (-(-extent // strides[axis]) - 1) * strides[axis] + (kernel[axis] - 1) * dilations[axis] + 1 - extent, 0
        )
        small, large = total // 2, total - total // 2
        amounts.append([small, large] if auto_pad == "SAME_UPPER" else [large, small])
    return amounts


@lowers("Conv")
def convolution(
    x: Any,
    weight: Any,
    bias: Any = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Any = None,
    group: int = 1,
    kernel_shape: Any = None,
    pads: Any = None,
    strides: Any = None,
) -> Any:
    """In one to three spatial dimensions; groups are convolved apart."""
    spatial = rank_of(x) - 2
    kernel = list(kernel_shape or weight.shape[2:])
    refuse(None in kernel, "Conv by a kernel of unknown extents")
    strides, dilations = list(strides or [1] * spatial), list(dilations or [1] * spatial)
    amounts = _amounts(x, auto_pad, pads, kernel, strides, dilations)
    padded = tf.pad(_channels_last(x), [[0, 0], *amounts, [0, 0]])
    filters = tf.transpose(weight, [*range(2, spatial + 2), 1, 0])
    parts = [
        tf.nn.convolution(part, each, strides=strides, padding="VALID", dilations=dilations)
        for part, each in zip(tf.split(padded, group, axis=-1), tf.split(filters, group, axis=-1), strict=True)
    ]
    y = parts[0] if group == 1 else tf.concat(parts, -1)
    return _channels_first(y if bias is None else y + bias)


def _output_extents(x: Any, kernel: Any, strides: Any, amounts: Any, ceil_mode: int) -> list[list[int]]:
    """Padding that also holds the last, partial window of `ceil_mode`."""
    if not ceil_mode:
        return list(amounts)
    result = []
    for axis, (before, after) in enumerate(amounts):
        extent = x.shape[axis + 2]
        refuse(extent is None, "a pool with ceil_mode over an unknown extent")
        span = extent + before + after - kernel[axis]
        windows = -(-span // strides[axis])
        windows -= windows * strides[axis] >= extent + before
        result.append([before, after + max(windows * strides[axis] - span, 0)])
    return result


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
    """The largest of each window; positions are not returned."""
    refuse(output_count > 1, "MaxPool with its Indices output")
    kernel = list(kernel_shape)
    strides, dilations = list(strides or [1] * len(kernel)), list(dilations or [1] * len(kernel))
    amounts = _amounts(x, auto_pad, pads, kernel, strides, dilations)
    reach = [(extent - 1) * dilation + 1 for extent, dilation in zip(kernel, dilations, strict=True)]
    amounts = _output_extents(x, reach, strides, amounts, ceil_mode)
    padded = tf.pad(_channels_last(x), [[0, 0], *amounts, [0, 0]], constant_values=x.dtype.min)
    pooled = tf.nn.pool(padded, kernel, "MAX", strides=strides, padding="VALID", dilations=dilations)
    return _channels_first(pooled)


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
    kernel = list(kernel_shape)
    strides, dilations = list(strides or [1] * len(kernel)), list(dilations or [1] * len(kernel))
    refuse(any(dilation != 1 for dilation in dilations), "AveragePool with dilations")
    given = _amounts(x, auto_pad, pads, kernel, strides, dilations)
    amounts = _output_extents(x, kernel, strides, given, ceil_mode)
    extra = [[0, full[1] - own[1]] for full, own in zip(amounts, given, strict=True)]
    counted = tf.ones_like(_channels_last(x))
    counted = tf.pad(counted, [[0, 0], *given, [0, 0]], constant_values=1 if count_include_pad else 0)
    counted = tf.pad(counted, [[0, 0], *extra, [0, 0]])
    padded = tf.pad(_channels_last(x), [[0, 0], *amounts, [0, 0]])
    total, count = (tf.nn.pool(each, kernel, "AVG", strides=strides, padding="VALID") for each in (padded, counted))
    return _channels_first(total / count)


@lowers("GlobalAveragePool")
def global_average_pool(x: Any) -> Any:
    """The mean over all spatial axes, kept as ones."""
    return tf.reduce_mean(x, axis=list(range(2, rank_of(x))), keepdims=True)


@lowers("GlobalMaxPool")
def global_max_pool(x: Any) -> Any:
    """The largest over all spatial axes, kept as ones."""
    return tf.reduce_max(x, axis=list(range(2, rank_of(x))), keepdims=True)


@lowers("ConvTranspose")
def transposed_convolution(
    x: Any,
    weight: Any,
    bias: Any = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Any = None,
    group: int = 1,
    kernel_shape: Any = None,
    output_padding: Any = None,
    pads: Any = None,
    strides: Any = None,
) -> Any:
    """The gradient of Conv with respect to its input, in two spatial dimensions."""
    refuse(rank_of(x) != 4, "ConvTranspose outside two spatial dimensions")
    refuse(None in list(weight.shape), "ConvTranspose by weights of unknown extents")
    refuse(group != 1 or auto_pad != "NOTSET" or any(each != 1 for each in dilations or ()), "ConvTranspose variant")
    strides, kernel = list(strides or [1, 1]), list(kernel_shape or weight.shape[2:])
    before_after, extra = list(pads or [0] * 4), list(output_padding or [0, 0])
    extents = extents_of(x)
    full = [(extents[axis + 2] - 1) * strides[axis] + kernel[axis] + extra[axis] for axis in range(2)]
    y = tf.nn.conv2d_transpose(
        _channels_last(x),
        tf.transpose(weight, [2, 3, 1, 0]),
        tf.cast(as_shape([extents[0], *full, weight.shape[1]]), tf.int32),
        strides=strides,
        padding="VALID",
    )
    y = y[:, before_after[0] : full[0] - before_after[2], before_after[1] : full[1] - before_after[3], :]
    return _channels_first(y if bias is None else y + bias)

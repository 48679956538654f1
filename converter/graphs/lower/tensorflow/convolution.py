"""Convolutions. ONNX has the channels in axis 1; TensorFlow on a CPU wants them last."""

from __future__ import annotations

from typing import Any

from converter.graphs.lower.onnx.windows import check_auto_pad, windows
from converter.graphs.lower.tensorflow.framework import as_shape, extents_of, rank_of, tf
from converter.graphs.lower.tensorflow.registry import REGISTRY, refuse

lowers = REGISTRY.lowers


def channels_last(x: Any) -> Any:
    """[n, c, ...] -> [n, ..., c]."""
    rank = rank_of(x)
    return tf.transpose(x, [0, *range(2, rank), 1])


def channels_first(x: Any) -> Any:
    """[n, ..., c] -> [n, c, ...]."""
    rank = rank_of(x)
    return tf.transpose(x, [0, rank - 1, *range(1, rank - 1)])


def padding(x: Any, auto_pad: str, pads: Any, kernel: Any, strides: Any, dilations: Any) -> list[list[Any]]:
    """Return the padding before and after each spatial axis as the attributes have it: ints, or tensors for SAME."""
    where = windows(
        extents_of(x)[2:], kernel, strides=strides, dilations=dilations, pads=pads, auto_pad=auto_pad, larger=larger
    )
    return [[before, after] for before, after in zip(where.before, where.after, strict=True)]


def larger(a: Any, b: Any) -> Any:
    """Return the larger of two extents, each an int or a tensor."""
    return max(a, b) if isinstance(a, int) and isinstance(b, int) else tf.maximum(a, b)


def is_nothing(amounts: list[list[Any]]) -> bool:
    """Whether all amounts are known to be zero."""
    return all(isinstance(amount, int) and amount == 0 for pair in amounts for amount in pair)


def padded(x: Any, amounts: list[list[Any]], fill: Any = 0) -> Any:
    """Pad the axes between the first and the last; nothing is added to the graph for no padding."""
    if is_nothing(amounts):
        return x
    return tf.pad(x, [[0, 0], *amounts, [0, 0]], constant_values=fill)


@lowers("Conv")
def conv(
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
    """In one to three spatial dimensions; groups are convolved apart, but for groups of one channel each."""
    spatial = rank_of(x) - 2
    kernel = list(kernel_shape or weight.shape[2:])
    refuse(None in kernel, "Conv by a kernel of unknown extents")
    strides, dilations = list(strides or [1] * spatial), list(dilations or [1] * spatial)
    amounts = padding(x, auto_pad, pads, kernel, strides, dilations)
    wide = padded(channels_last(x), amounts)
    if kernel == [1] * spatial and strides != kernel:
        wide, strides = _every(wide, strides), kernel
    if group > 1 and weight.shape[1] == 1 and spatial <= 2 and len({*strides}) == 1 and {*dilations} == {1}:
        y = _by_channel(wide, weight, kernel, group, strides[0])
    else:
        filters = tf.transpose(weight, [*range(2, spatial + 2), 1, 0])
        is_both = max(strides) > 1 and max(dilations) > 1  # TensorFlow has no such convolution
        steps = [1] * spatial if is_both else strides
        parts = [
            tf.nn.convolution(part, each, strides=steps, padding="VALID", dilations=dilations)
            for part, each in zip(tf.split(wide, group, axis=-1), tf.split(filters, group, axis=-1), strict=True)
        ]
        y = parts[0] if group == 1 else tf.concat(parts, -1)
        y = _every(y, strides) if is_both else y
    return channels_first(y if bias is None else y + bias)


def _every(x: Any, strides: list[int]) -> Any:
    """Take every `stride`-th place of each spatial axis.

    A kernel of one place with strides sees no other, and the gradient of such a one writes beyond its memory
    (TensorFlow 2.21 with oneDNN: batch 3 of 28 x 28 x 8, strides of 2).
    """
    places = (slice(None, None, stride) for stride in (1, *strides, 1))
    return x[tuple(places)]


def _by_channel(x: Any, weight: Any, kernel: list[int], channels: int, stride: int) -> Any:
    """Convolve every channel with kernels of its own, [c * m, 1, ...], along one or two axes of [n, ..., c]."""
    if x.dtype.size < tf.float32.size:
        # TensorFlow's kernel sums in the type of its input, other convolutions do so in single precision.
        wide = _by_channel(tf.cast(x, tf.float32), tf.cast(weight, tf.float32), kernel, channels, stride)
        return tf.cast(wide, x.dtype)
    is_flat = len(kernel) == 1
    filters = tf.reshape(weight, [channels, -1, *([1] * is_flat), *kernel])
    y = tf.nn.depthwise_conv2d(
        tf.expand_dims(x, 1) if is_flat else x,
        tf.transpose(filters, [2, 3, 0, 1]),
        strides=[1, stride, stride, 1],
        padding="VALID",
    )
    return tf.squeeze(y, 1) if is_flat else y


@lowers("ConvTranspose")
def conv_transpose(
    x: Any,
    weight: Any,
    bias: Any = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Any = None,
    group: int = 1,
    kernel_shape: Any = None,
    output_padding: Any = None,
    output_shape: Any = None,
    pads: Any = None,
    strides: Any = None,
) -> Any:
    """The gradient of Conv with respect to its input; groups are convolved apart."""
    spatial = rank_of(x) - 2
    kernel = list(kernel_shape or weight.shape[2:])
    refuse(None in kernel, "ConvTranspose by a kernel of unknown extents")
    strides, dilations = list(strides or [1] * spatial), list(dilations or [1] * spatial)
    extra = list(output_padding or [0] * spatial)
    reach = [(extent - 1) * dilation + 1 for extent, dilation in zip(kernel, dilations, strict=True)]
    if output_shape is not None:
        full = [(extent - 1) * strides[axis] + reach[axis] for axis, extent in enumerate(extents_of(x)[2:])]
        wanted = list(output_shape)[-spatial:]
        extra = [larger(wanted[axis] - full[axis], extra[axis]) for axis in range(spatial)]
    cut = _cut(x, auto_pad, pads, output_shape, reach, strides, extra)
    transpose = _by_gradient if spatial == 2 and dilations == [1, 1] else _by_spreading
    parts = [
        transpose(part, each, strides, dilations, reach, extra, cut)
        for part, each in zip(tf.split(channels_last(x), group, axis=-1), tf.split(weight, group, axis=0), strict=True)
    ]
    y = parts[0] if group == 1 else tf.concat(parts, -1)
    return channels_first(y if bias is None else y + bias)


def _cut(x: Any, auto_pad: str, pads: Any, shape: Any, reach: Any, strides: Any, extra: Any) -> list[list[Any]]:
    """How much of the full result goes, before and after each spatial axis."""
    check_auto_pad(auto_pad)
    count = len(reach)
    if shape is None and not auto_pad.startswith("SAME"):
        pads = list(pads or [0] * (2 * count))
        return [[pads[axis], pads[axis + count]] for axis in range(count)]
    cut = []
    for axis, extent in enumerate(extents_of(x)[2:]):
        wanted = extent * strides[axis] if shape is None else list(shape)[-count:][axis]
        total = larger((extent - 1) * strides[axis] + extra[axis] + reach[axis] - wanted, 0)
        small, large = total // 2, total - total // 2
        cut.append([small, large] if auto_pad == "SAME_UPPER" else [large, small])
    return cut


def _by_gradient(x: Any, weight: Any, strides: Any, dilations: Any, reach: Any, extra: Any, cut: Any) -> Any:
    n, height, width, _ = extents_of(x)
    full = [(height - 1) * strides[0] + reach[0] + extra[0], (width - 1) * strides[1] + reach[1] + extra[1]]
    y = tf.nn.conv2d_transpose(
        x,
        tf.transpose(weight, [2, 3, 1, 0]),
        tf.cast(as_shape([n, *full, weight.shape[1]]), tf.int32),
        strides=strides,
        padding="VALID",
    )
    (top, bottom), (left, right) = cut
    return y[:, top : full[0] - bottom, left : full[1] - right, :]


def _by_spreading(x: Any, weight: Any, strides: Any, dilations: Any, reach: Any, extra: Any, cut: Any) -> Any:
    """Spread the input by zeros and convolve with the kernel turned round: any rank, any dilation."""
    spatial = len(reach)
    for axis, stride in enumerate(strides, start=1):
        if stride > 1:
            extents = extents_of(x)
            spread = tf.pad(
                tf.expand_dims(x, axis + 1), [[0, 0]] * (axis + 1) + [[0, stride - 1]] + [[0, 0]] * (spatial + 1 - axis)
            )
            x = tf.reshape(spread, as_shape([*extents[:axis], extents[axis] * stride, *extents[axis + 1 :]]))
    # Spreading left zeros after the last element too.
    amounts = [
        [reach[axis] - 1 - cut[axis][0], reach[axis] - strides[axis] + extra[axis] - cut[axis][1]]
        for axis in range(spatial)
    ]
    index = [slice(None), *(_kept(before, after) for before, after in amounts), slice(None)]
    x = padded(x[tuple(index)], [[larger(amount, 0) for amount in pair] for pair in amounts])
    turned = tf.reverse(tf.transpose(weight, [*range(2, spatial + 2), 0, 1]), list(range(spatial)))
    return tf.nn.convolution(x, turned, padding="VALID", dilations=dilations)


def _kept(before: Any, after: Any) -> slice:
    """Return the part of an axis that negative padding leaves."""
    refuse(not (isinstance(before, int) and isinstance(after, int)), "ConvTranspose that cuts an unknown extent")
    return slice(max(-before, 0), None if after >= 0 else after)


@lowers("DeformConv", since=19)
def deform_conv(
    x: Any,
    weight: Any,
    offset: Any,
    bias: Any = None,
    mask: Any = None,
    *,
    dilations: Any = None,
    group: int = 1,
    kernel_shape: Any = None,
    offset_group: int = 1,
    pads: Any = None,
    strides: Any = None,
) -> Any:
    """In two dimensions: each element of the kernel looks where its offset says, between pixels too, zero outside."""
    refuse(rank_of(x) != 4, "DeformConv outside two spatial dimensions")
    kernel = list(kernel_shape or weight.shape[2:])
    strides, dilations, pads = list(strides or [1, 1]), list(dilations or [1, 1]), list(pads or [0] * 4)
    n, channels, _, _ = extents_of(x)
    height, width = extents_of(offset)[2:]
    count = kernel[0] * kernel[1]
    moved = tf.reshape(offset, as_shape([n, offset_group, count, 2, height, width]))
    starts = []
    for axis, extent in enumerate((height, width)):
        along = tf.range(extent, dtype=tf.int64) * strides[axis] - pads[axis]
        element = [position // kernel[1] if axis == 0 else position % kernel[1] for position in range(count)]
        element = tf.constant(element, tf.int64)[:, None, None] * dilations[axis]
        starts.append(element + (along[:, None] if axis == 0 else along[None, :]))
    rows, columns = (tf.cast(start, x.dtype) + moved[:, :, :, axis] for axis, start in enumerate(starts))
    grouped = tf.reshape(x, as_shape([n * offset_group, channels // offset_group, *extents_of(x)[2:]]))
    places = [tf.reshape(each, as_shape([n * offset_group, count, height, width])) for each in (rows, columns)]
    sampled = interpolated(channels_last(grouped), places)
    if mask is not None:
        sampled *= tf.reshape(mask, as_shape([n * offset_group, count, height, width, 1]))
    sampled = tf.reshape(sampled, as_shape([n, offset_group, count, height, width, channels // offset_group]))
    sampled = tf.reshape(tf.transpose(sampled, [0, 3, 4, 1, 5, 2]), as_shape([n, height, width, channels, count]))
    filters = tf.reshape(weight, as_shape([*extents_of(weight)[:2], count]))
    parts = [
        tf.einsum("nhwck,ock->nohw", part, each)
        for part, each in zip(tf.split(sampled, group, axis=3), tf.split(filters, group, axis=0), strict=True)
    ]
    y = tf.concat(parts, 1)
    return y if bias is None else y + tf.reshape(bias, [-1, 1, 1])


def interpolated(x: Any, places: list[Any], combine: Any = None) -> Any:
    """Return values of [n, ..., c] at real positions, one tensor [n, ...] per axis: linear, zero outside.

    `combine` says what becomes of the shares of neighbouring pixels; their sum if nothing else.
    """
    extents = extents_of(x)[1:-1]
    result: Any = None
    for corner in range(1 << len(places)):
        indices, share, is_inside = [], 1, True
        for axis, place in enumerate(places):
            below = tf.floor(place)
            at = below + 1 if corner >> axis & 1 else below
            share *= 1 - tf.abs(place - at)
            extent = tf.cast(extents[axis], place.dtype)
            is_inside = tf.logical_and(is_inside, tf.logical_and(at >= 0, at < extent))
            indices.append(tf.cast(tf.clip_by_value(at, 0, extent - 1), tf.int64))
        values = tf.gather_nd(x, tf.stack(indices, -1), batch_dims=1)
        part = values * tf.where(is_inside, share, tf.zeros_like(share))[..., None]
        result = part if result is None else (combine or tf.add)(result, part)
    return result


@lowers("Col2Im", since=18)
def col2im(
    columns: Any, image_shape: Any, block_shape: Any, *, dilations: Any = None, pads: Any = None, strides: Any = None
) -> Any:
    """Blocks [n, c * elements of a block, blocks] put where they come from, summed where they overlap."""
    count = image_shape.shape[0]
    refuse(count is None, "Col2Im into an unknown number of dimensions")
    pads = list(pads or [0] * (2 * count))
    strides, dilations = list(strides or [1] * count), list(dilations or [1] * count)
    image = [tf.cast(image_shape[axis], tf.int64) for axis in range(count)]
    block = [tf.cast(block_shape[axis], tf.int64) for axis in range(count)]
    full = [image[axis] + pads[axis] + pads[axis + count] for axis in range(count)]
    elements, starts = tf.zeros([1], tf.int64), tf.zeros([1], tf.int64)
    for axis in range(count):
        steps = (full[axis] - dilations[axis] * (block[axis] - 1) - 1) // strides[axis] + 1
        elements = elements[:, None] * full[axis] + tf.range(block[axis]) * dilations[axis]
        starts = starts[:, None] * full[axis] + tf.range(steps) * strides[axis]
        elements, starts = tf.reshape(elements, [-1]), tf.reshape(starts, [-1])
    places = tf.reshape(elements[:, None] + starts[None, :], [-1])
    n = tf.cast(extents_of(columns)[0], tf.int64)
    values = tf.reshape(columns, tf.stack([n, -1, tf.size(places, tf.int64)]))
    values = tf.transpose(values, [2, 0, 1])
    summed = tf.math.unsorted_segment_sum(values, places, tf.reduce_prod(full))
    pixels = tf.reshape(tf.transpose(summed, [1, 2, 0]), tf.stack([n, tf.shape(values, tf.int64)[2], *full]))
    kept = tuple(slice(pads[axis], pads[axis] + image[axis]) for axis in range(count))
    return pixels[(slice(None),) * 2 + kept]

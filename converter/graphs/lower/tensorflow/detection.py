"""Boxes: which to keep, and what lies in them."""

from __future__ import annotations

from typing import Any

from converter.graphs.lower.onnx.boxes import corners
from converter.graphs.lower.tensorflow.convolution import interpolated
from converter.graphs.lower.tensorflow.framework import as_scalar, extents_of, tf
from converter.graphs.lower.tensorflow.registry import REGISTRY, refuse

lowers = REGISTRY.lowers


@lowers("NonMaxSuppression", since=10)
def non_max_suppression(
    boxes: Any,
    scores: Any,
    max_boxes: Any = None,
    iou_threshold: Any = None,
    score_threshold: Any = None,
    *,
    center_point_box: int = 0,
) -> Any:
    """[boxes kept, 3]: batch, class and box, class after class, the best first."""
    if center_point_box:
        boxes = tf.concat(corners(boxes, is_centred=True, least=tf.minimum, largest=tf.maximum), -1)
    limit = tf.constant(0) if max_boxes is None else tf.cast(as_scalar(max_boxes), tf.int32)
    overlap = tf.constant(0.0) if iou_threshold is None else as_scalar(iou_threshold)
    lowest = tf.constant(float("-inf")) if score_threshold is None else as_scalar(score_threshold)
    classes = tf.shape(scores, tf.int64)[1]
    count = tf.shape(scores, tf.int64)[0] * classes

    def once(number: Any, rows: Any) -> Any:
        batch, label = number // classes, number % classes
        kept = tf.raw_ops.NonMaxSuppressionV3(
            boxes=boxes[batch],
            scores=scores[batch, label],
            max_output_size=limit,
            iou_threshold=overlap,
            score_threshold=lowest,
        )
        kept = tf.cast(kept, tf.int64)
        found = tf.stack([tf.fill(tf.shape(kept), batch), tf.fill(tf.shape(kept), label), kept], 1)
        return number + 1, tf.concat([rows, found], 0)

    start = (tf.constant(0, tf.int64), tf.zeros([0, 3], tf.int64))
    shapes = (tf.TensorShape([]), tf.TensorShape([None, 3]))
    return tf.while_loop(lambda number, _: number < count, once, start, shape_invariants=shapes)[1]


@lowers("RoiAlign", since=16)
def roi_align(
    x: Any,
    rois: Any,
    batch_indices: Any,
    *,
    coordinate_transformation_mode: str = "half_pixel",
    mode: str = "avg",
    output_height: int = 1,
    output_width: int = 1,
    sampling_ratio: int = 0,
    spatial_scale: float = 1.0,
) -> Any:
    """Bins of each box [x1, y1, x2, y2]: the mean, or the largest share, of values between pixels."""
    refuse(mode not in ("avg", "max"), f"RoiAlign mode {mode!r}")
    refuse(coordinate_transformation_mode not in ("half_pixel", "output_half_pixel"), "RoiAlign coordinates")
    refuse(x.shape[1] is None, "RoiAlign of an unknown number of channels")
    is_shifted = coordinate_transformation_mode == "half_pixel"
    bins = (output_height, output_width)
    height, width = (tf.cast(extent, x.dtype) for extent in extents_of(x)[2:])
    channels_last = tf.transpose(x, [0, 2, 3, 1])

    def of_box(box: Any) -> Any:
        roi, batch = box
        left, top, right, bottom = tf.unstack(roi * spatial_scale - (0.5 if is_shifted else 0.0))
        places = []
        for begin, end, count, extent in ((top, bottom, bins[0], height), (left, right, bins[1], width)):
            span = end - begin if is_shifted else tf.maximum(end - begin, 1)
            samples = tf.constant(sampling_ratio) if sampling_ratio else tf.cast(tf.math.ceil(span / count), tf.int32)
            samples = tf.cast(tf.maximum(samples, 1), x.dtype)
            steps = tf.range(tf.cast(count, x.dtype) * samples)
            at = begin + (steps + 0.5) * span / count / samples
            # A pixel beyond the border still counts, at the border; farther out nothing is.
            outside = tf.logical_or(at < -1, at > extent)
            places.append(tf.where(outside, tf.cast(-2, x.dtype), tf.clip_by_value(at, 0, extent - 1)))
        rows, columns = tf.meshgrid(*places, indexing="ij")
        combine = tf.add if mode == "avg" else tf.maximum
        values = interpolated(channels_last[batch][None], [rows[None], columns[None]], combine)
        per_bin = tf.reshape(values, [bins[0], tf.size(places[0]) // bins[0], bins[1], -1, x.shape[1]])
        return tf.reduce_mean(per_bin, [1, 3]) if mode == "avg" else tf.reduce_max(per_bin, [1, 3])

    specification = tf.TensorSpec([*bins, x.shape[1]], x.dtype)
    pooled = tf.map_fn(of_box, (rois, tf.cast(batch_indices, tf.int64)), fn_output_signature=specification)
    return tf.transpose(pooled, [0, 3, 1, 2])


@lowers("RoiAlign", since=10)
def roi_align_unshifted(
    x: Any,
    rois: Any,
    batch_indices: Any,
    *,
    mode: str = "avg",
    output_height: int = 1,
    output_width: int = 1,
    sampling_ratio: int = 0,
    spatial_scale: float = 1.0,
) -> Any:
    """Before opset 16 boxes were not moved by half a pixel."""
    return roi_align(
        x,
        rois,
        batch_indices,
        coordinate_transformation_mode="output_half_pixel",
        mode=mode,
        output_height=output_height,
        output_width=output_width,
        sampling_ratio=sampling_ratio,
        spatial_scale=spatial_scale,
    )


@lowers("MaxRoiPool")
def max_roi_pool(x: Any, rois: Any, *, pooled_shape: Any, spatial_scale: float = 1.0) -> Any:
    """The largest of each bin of the boxes [batch, x1, y1, x2, y2], whose corners are rounded to pixels."""
    height, width = extents_of(x)[2:]
    lowest = tf.constant(x.dtype.min, x.dtype)

    def reduced(values: Any, axis: int, first: Any, last: Any, bins: int, extent: Any) -> Any:
        """The largest along an axis, for each of the bins of pixels from first to last."""
        size = tf.cast(tf.maximum(last - first + 1, 1), x.dtype) / bins
        numbers = tf.range(bins, dtype=x.dtype)
        begin = tf.floor(numbers * size)[:, None] + tf.cast(first, x.dtype)
        end = tf.math.ceil((numbers + 1) * size)[:, None] + tf.cast(first, x.dtype)
        at = tf.cast(tf.range(extent), x.dtype)[None, :]
        is_within = tf.logical_and(at >= begin, at < end)
        shape = [bins, -1, 1] if axis == 0 else [1, bins, -1]
        wide = tf.expand_dims(values, axis)
        return tf.reduce_max(tf.where(tf.reshape(is_within, [*shape, 1]), wide, lowest), axis + 1)

    channels_last = tf.transpose(x, [0, 2, 3, 1])

    def of_box(roi: Any) -> Any:
        batch = tf.cast(roi[0], tf.int64)
        left, top, right, bottom = tf.unstack(tf.cast(tf.round(roi[1:] * spatial_scale), tf.int64))
        by_row = reduced(channels_last[batch], 0, top, bottom, pooled_shape[0], height)
        pooled = reduced(by_row, 1, left, right, pooled_shape[1], width)
        return tf.where(tf.equal(pooled, lowest), tf.zeros_like(pooled), pooled)

    specification = tf.TensorSpec([*pooled_shape, x.shape[1]], x.dtype)
    return tf.transpose(tf.map_fn(of_box, rois, fn_output_signature=specification), [0, 3, 1, 2])

"""Resize, one axis after the other: every output position is a weighted sum of a few input positions.

Semantics: https://onnx.ai/onnx/operators/onnx__Resize.html; positions are computed in float32, as onnxruntime does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from converter.graphs.lower.onnx.resizing import POSITIONS, REACHES, ROUNDINGS, ResizedAxis, cubic_weight
from converter.graphs.lower.tensorflow.framework import as_scalar, extents_of, is_static, rank_of, tf
from converter.graphs.lower.tensorflow.registry import REGISTRY, refuse

lowers = REGISTRY.lowers


@dataclass(frozen=True, slots=True, kw_only=True)
class _Method:
    """How positions are found and weighed."""

    mode: str
    coordinates: str
    nearest: str
    cubic_a: float
    antialias: bool
    exclude_outside: bool
    extrapolation: float


@lowers("Resize", since=11)
def resize(
    x: Any,
    roi: Any = None,
    scales: Any = None,
    sizes: Any = None,
    *,
    antialias: int = 0,
    axes: Any = None,
    coordinate_transformation_mode: str = "half_pixel",
    cubic_coeff_a: float = -0.75,
    exclude_outside: int = 0,
    extrapolation_value: float = 0.0,
    keep_aspect_ratio_policy: str = "stretch",
    mode: str = "nearest",
    nearest_mode: str = "round_prefer_floor",
) -> Any:
    """To scales or to sizes, of all axes or of those named."""
    method = _Method(
        mode=mode,
        coordinates=coordinate_transformation_mode,
        nearest=nearest_mode,
        cubic_a=cubic_coeff_a,
        antialias=bool(antialias),
        exclude_outside=bool(exclude_outside),
        extrapolation=extrapolation_value,
    )
    rank = rank_of(x)
    chosen = [axis % rank for axis in axes] if axes else list(range(rank))
    is_cropped = coordinate_transformation_mode == "tf_crop_and_resize"
    extents = [extents_of(x)[axis] for axis in chosen]
    for position, axis in enumerate(chosen):
        if is_static(scales, sizes) and _is_kept(scales, sizes, position, extents) and not is_cropped:
            continue
        geometry = _geometry(position, extents, scales, sizes, roi if is_cropped else None, keep_aspect_ratio_policy)
        is_outer = axis < _OUTER and not (isinstance(extents[position], int) and is_static(sizes, scales))
        x = (_if_resized if is_outer and not is_cropped else _resized)(x, axis, geometry, method)
    return x


# Batch and channels are among the axes of most graphs, and never change in them.
_OUTER = 2


def _if_resized(x: Any, axis: int, geometry: ResizedAxis, method: _Method) -> Any:
    is_same = tf.equal(tf.cast(geometry.extent, tf.int64), tf.cast(geometry.size, tf.int64))
    return tf.cond(is_same, lambda: tf.identity(x), lambda: _resized(x, axis, geometry, method))


def _is_given(value: Any) -> bool:
    return value is not None and value.shape[0] != 0


def _is_kept(scales: Any, sizes: Any, position: int, extents: list[Any]) -> bool:
    if _is_given(sizes):
        return isinstance(extents[position], int) and bool(sizes[position] == extents[position])
    return bool(scales[position] == 1)


def _geometry(position: int, extents: list[Any], scales: Any, sizes: Any, roi: Any, policy: str) -> ResizedAxis:
    before = tf.cast(extents[position], tf.float32)
    begin = tf.constant(0, tf.float32) if roi is None else tf.cast(roi[position], tf.float32)
    end = tf.constant(1, tf.float32) if roi is None else tf.cast(roi[len(extents) + position], tf.float32)
    if not _is_given(sizes):
        refuse(not _is_given(scales), "Resize without scales and sizes")
        scale = tf.cast(scales[position], tf.float32)
        after = tf.floor(before * (end - begin) * scale)
    elif policy == "stretch":
        after = tf.cast(sizes[position], tf.float32)
        scale = after / before
    else:
        ratios = tf.cast(sizes, tf.float32) / tf.stack([tf.cast(extent, tf.float32) for extent in extents])
        scale = tf.reduce_min(ratios) if policy == "not_larger" else tf.reduce_max(ratios)
        after = tf.floor(scale * before + 0.5)
    return ResizedAxis(extent=before, size=after, length=after, scale=scale, begin=begin, end=end)


def _weight_of(distance: Any, method: _Method) -> Any:
    if method.mode == "cubic":
        return cubic_weight(tf.abs(distance), method.cubic_a, tf.where)
    return tf.maximum(1 - tf.abs(distance), 0)


def _resized(x: Any, axis: int, geometry: ResizedAxis, method: _Method) -> Any:
    x = tf.convert_to_tensor(x)

    def choose(one: Callable[[], Any], more: Callable[[], Any]) -> Any:
        return tf.where(geometry.size > 1, more(), one())

    at = POSITIONS[method.coordinates](tf.range(geometry.size, dtype=tf.float32), geometry, choose)
    last = geometry.extent - 1
    if method.mode == "nearest":
        places = ROUNDINGS[method.nearest](at, tf.floor, tf.math.ceil)
        y = tf.gather(x, tf.cast(tf.clip_by_value(places, 0, last), tf.int64), axis=axis)
    else:
        y = _weighed(x, axis, at, geometry, method)
    if method.coordinates != "tf_crop_and_resize":
        return y
    is_inside = tf.logical_and(at >= 0, at <= last)
    is_inside = tf.reshape(is_inside, [-1 if each == axis else 1 for each in range(rank_of(x))])
    return tf.where(is_inside, y, tf.cast(method.extrapolation, y.dtype))


def _weighed(x: Any, axis: int, at: Any, geometry: ResizedAxis, method: _Method) -> Any:
    # Shrinking with antialias widens the filter to what an output pixel covers.
    narrowed = tf.minimum(geometry.scale, 1) if method.antialias else tf.constant(1, tf.float32)
    taps = tf.math.ceil(REACHES[method.mode] / narrowed)
    offsets = tf.range(-taps + 1, taps + 1, dtype=tf.float32)
    places = tf.floor(at)[:, None] + offsets[None, :]
    weights = _weight_of((places - at[:, None]) * narrowed, method)
    last = geometry.extent - 1
    if method.exclude_outside:
        weights = tf.where(tf.logical_and(places >= 0, places <= last), weights, tf.zeros_like(weights))
    if method.exclude_outside or method.antialias:
        weights /= tf.reduce_sum(weights, axis=1, keepdims=True)
    y = tf.gather(x, tf.cast(tf.clip_by_value(places, 0, last), tf.int64), axis=axis)
    shape = [1] * (rank_of(x) + 1)
    shape[axis], shape[axis + 1] = -1, tf.shape(weights)[1]
    wide = x.dtype if x.dtype.is_floating else tf.float32
    y = tf.reduce_sum(tf.cast(y, wide) * tf.cast(tf.reshape(weights, shape), wide), axis=axis + 1)
    return y if x.dtype.is_floating else tf.cast(tf.round(y), x.dtype)


@lowers("Resize", since=10)
def resize_by_scales(x: Any, scales: Any, *, mode: str = "nearest") -> Any:
    """Before opset 11: to scales alone, positions asymmetric, the nearest below."""
    how = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    return resize(x, None, scales, mode="linear" if mode == "bilinear" else mode, **how)


@lowers("Upsample", since=9)
def upsample(x: Any, scales: Any, *, mode: str = "nearest") -> Any:
    """Resize before it was called so."""
    return resize_by_scales(x, scales, mode=mode)


@lowers("Upsample", since=7)
def upsample_by_attribute(x: Any, *, scales: Any, mode: str = "nearest") -> Any:
    """Scales as an attribute, before opset 9."""
    import numpy as np

    return resize_by_scales(x, np.array(scales, np.float32), mode=mode)


_GRID_MODES = {"bilinear": "linear", "bicubic": "cubic"}


@lowers("GridSample", since=16)
def grid_sample(x: Any, grid: Any, *, align_corners: int = 0, mode: str = "linear", padding_mode: str = "zeros") -> Any:
    """Values of [n, c, ...] at the positions that `grid` names in [-1, 1], x first, of any number of dimensions."""
    mode = _GRID_MODES.get(mode, mode)
    refuse(mode not in REACHES, f"GridSample mode {mode!r}")
    x, grid = tf.convert_to_tensor(x), tf.convert_to_tensor(grid)
    spatial = rank_of(x) - 2
    extents = [tf.cast(extent, grid.dtype) for extent in extents_of(x)[2:]]
    channels_last = tf.transpose(x, [0, *range(2, spatial + 2), 1])
    taps = {"nearest": [0], "linear": [0, 1], "cubic": [-1, 0, 1, 2]}[mode]
    method = _Method(
        mode=mode, coordinates="", nearest="", cubic_a=-0.75, antialias=False, exclude_outside=False, extrapolation=0.0
    )
    choices = []  # per axis, for each tap: where, whether inside, and its weight
    for axis, extent in enumerate(extents):
        at = grid[..., spatial - 1 - axis]
        at = (at + 1) / 2 * (extent - 1) if align_corners else ((at + 1) * extent - 1) / 2
        low, high = (
            (tf.zeros_like(extent), extent - 1) if align_corners else (tf.zeros_like(extent) - 0.5, extent - 0.5)
        )
        if mode != "cubic":  # cubic looks at pixels beyond the border, each of them put inside by itself
            at = _inside(at, padding_mode, low, high, extent)
        base = tf.round(at) if mode == "nearest" else tf.floor(at)
        of_axis = []
        for tap in taps:
            place = base + tap
            weight = tf.ones_like(at) if mode == "nearest" else _weight_of(place - at, method)
            place = _inside(place, padding_mode, low, high, extent) if mode == "cubic" else place
            is_inside = tf.logical_and(place >= 0, place <= extent - 1)
            of_axis.append((tf.cast(tf.clip_by_value(place, 0, extent - 1), tf.int64), is_inside, weight))
        choices.append(of_axis)
    y: Any = 0
    for number in range(len(taps) ** spatial):
        picked = [choices[axis][number // len(taps) ** axis % len(taps)] for axis in range(spatial)]
        share = as_scalar(tf.ones([1], x.dtype))
        for _, is_inside, weight in picked:
            share *= tf.cast(tf.where(is_inside, weight, tf.zeros_like(weight)), x.dtype)
        y += (
            tf.gather_nd(channels_last, tf.stack([place for place, _, _ in picked], -1), batch_dims=1)
            * share[..., None]
        )
    return tf.transpose(y, [0, spatial + 1, *range(1, spatial + 1)])


def _inside(at: Any, padding_mode: str, low: Any, high: Any, extent: Any) -> Any:
    refuse(padding_mode not in ("zeros", "border", "reflection"), f"GridSample padding {padding_mode!r}")
    if padding_mode == "zeros":
        return at
    if padding_mode == "reflection":
        span = tf.maximum(high - low, 1e-9)
        at = span - tf.abs((at - low) % (2 * span) - span) + low
    return tf.clip_by_value(at, 0, extent - 1)


@lowers("AffineGrid", since=20)
def affine_grid(theta: Any, size: Any, *, align_corners: int = 0) -> Any:
    """Positions for GridSample: `theta` [n, d, d + 1] applied to those of the pixels of [n, c, ...], x first."""
    count = size.shape[0] - 2
    along = []
    for axis in range(count):
        extent = tf.cast(size[axis + 2], theta.dtype)
        steps = tf.range(extent)
        spread = 2 * steps / tf.maximum(extent - 1, 1) - 1 if align_corners else (2 * steps + 1) / extent - 1
        along.append(spread)
    grid = tf.meshgrid(*along, indexing="ij")
    positions = tf.stack([*reversed(grid), tf.ones_like(grid[0])], -1)
    letters = "xyz"[:count]
    return tf.einsum(f"{letters}k,njk->n{letters}j", positions, theta)

"""Resize, and sampling by grids."""

from __future__ import annotations

from typing import Any

from converter.graphs.lower.torch.framework import Ints, Tensor, Value, as_ints, is_host, torch
from converter.graphs.lower.torch.registry import REGISTRY, refuse
from converter.graphs.lower.torch.resampling import Resampling

lowers = REGISTRY.lowers


@lowers("Resize", since=11)
def resize(
    x: Tensor,
    roi: Value = None,
    scales: Value = None,
    sizes: Ints = None,
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
    """One axis after the other, each output a weighted sum of a few inputs."""
    chosen = [axis % x.ndim for axis in axes] if axes is not None else list(range(x.ndim))
    extents = [x.shape[axis] for axis in chosen]
    if scales is None or 0 in scales.shape:
        refuse(not sizes, "Resize without scales or sizes")
        sizes, factors = _by_sizes(extents, sizes, keep_aspect_ratio_policy)
    else:
        factors = [float(each) for each in _floats(scales)]
        sizes = [_floored(extent, factor) for extent, factor in zip(extents, factors, strict=True)]
    regions = _regions(roi, len(chosen)) if coordinate_transformation_mode == "tf_crop_and_resize" else None
    how = Resampling(
        mode=mode,
        coordinates=coordinate_transformation_mode,
        nearest_mode=nearest_mode,
        cubic=cubic_coeff_a,
        is_antialiased=bool(antialias),
        excludes_outside=bool(exclude_outside),
    )
    dtype, outside = x.dtype, torch.zeros([1] * x.ndim, dtype=torch.bool)
    x = x if x.is_floating_point() or mode == "nearest" else x.to(torch.float32)
    for at, axis in enumerate(chosen):
        region = None if regions is None else regions[at]
        if _is_whole(factors[at], region):
            continue
        x, beyond = how.along(x, axis, sizes[at], factors[at], region)
        if region is not None:
            outside = outside | beyond.reshape([-1 if each == axis else 1 for each in range(x.ndim)])
    if regions is not None:
        x = torch.where(outside, torch.full_like(x, extrapolation_value), x)
    return x if x.dtype == dtype else x.round().to(dtype)


def _by_sizes(extents: Any, sizes: Any, policy: str) -> tuple[list[Any], list[Any]]:
    """Return sizes and factors: those wanted, or what one factor for all axes makes the largest or smallest of them."""
    factors = [size / extent for size, extent in zip(sizes, extents, strict=True)]
    if policy == "stretch":
        return list(sizes), factors
    factor = max(factors) if policy == "not_smaller" else min(factors)
    return [int(extent * factor + 0.5) for extent in extents], [factor] * len(factors)


def _regions(roi: Value, count: int) -> list[tuple[float, float]]:
    """Return where on each axis a region starts and ends; the input has all starts, then all ends."""
    refuse(roi is None, "Resize by a region that is not given")
    ends = [float(each) for each in _floats(roi)]
    return list(zip(ends[:count], ends[count : 2 * count], strict=True))


def _is_whole(factor: Any, region: tuple[float, float] | None) -> bool:
    """Whether an axis stays as it is; of a factor that varies with the input, that is not known."""
    return isinstance(factor, float) and factor == 1 and region in (None, (0.0, 1.0))


def _floats(value: Any) -> Any:
    return value.tolist() if is_host(value) else as_ints(value)


def _floored(extent: Any, factor: float) -> Any:
    if not isinstance(extent, int) and factor == int(factor):
        return extent * int(factor)
    # A scale is a float32: 0.6 of 10 is 6.0000002, 1.4 of 5 is 6.9999999.
    return int(extent * factor + 1e-6 * factor)


@lowers("Resize", since=10)
def resize_by_scales(x: Tensor, scales: Value, *, mode: str = "nearest") -> Any:
    """Before opset 11: to scales alone, positions asymmetric, the nearest below."""
    how = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    return resize(x, None, scales, mode="linear" if mode == "bilinear" else mode, **how)


@lowers("Upsample", since=9)
def upsample(x: Tensor, scales: Value, *, mode: str = "nearest") -> Any:
    """Resize before it was called so."""
    return resize_by_scales(x, scales, mode=mode)


@lowers("Upsample", since=7)
def upsample_by_attribute(x: Tensor, *, scales: Any, mode: str = "nearest") -> Any:
    """Scales as an attribute, before opset 9."""
    import numpy as np

    return resize_by_scales(x, np.array(list(scales), np.float32), mode=mode)


_GRID_MODES = {"bilinear": "bilinear", "linear": "bilinear", "bicubic": "bicubic", "cubic": "bicubic"}


@lowers("GridSample", since=16)
def grid_sample(
    x: Tensor, grid: Tensor, *, align_corners: int = 0, mode: str = "linear", padding_mode: str = "zeros"
) -> Any:
    """x where the grid says, from -1 to 1 along each axis."""
    return torch.nn.functional.grid_sample(
        x,
        grid.to(x.dtype),
        mode=_GRID_MODES.get(mode, mode),
        padding_mode=padding_mode,
        align_corners=bool(align_corners),
    )


@lowers("AffineGrid", since=20)
def affine_grid(theta: Tensor, size: Ints, *, align_corners: int = 0) -> Any:
    """The grid of an affine map."""
    return torch.nn.functional.affine_grid(theta, size, bool(align_corners))

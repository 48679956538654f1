"""Pools, which look at the same windows as convolutions do."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from converter.graphs.lower.onnx.windows import Windows, flat, windows
from converter.graphs.lower.torch.framework import Ints, Tensor, product, torch
from converter.graphs.lower.torch.registry import REGISTRY

lowers = REGISTRY.lowers


@lowers("MaxPool")
def max_pool(
    x: Tensor,
    *,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    dilations: Any = None,
    kernel_shape: Any,
    pads: Any = None,
    storage_order: int = 0,
    strides: Any = None,
    output_count: int,
) -> Any:
    """The largest of each window, and where it is in the whole input."""
    where = windows(
        x.shape[2:],
        kernel_shape,
        strides=strides,
        dilations=dilations,
        pads=pads,
        auto_pad=auto_pad,
        ceil_mode=ceil_mode,
    )
    function = getattr(torch.nn.functional, f"max_pool{len(where.kernel)}d")
    dtype = x.dtype
    computed = x if x.is_floating_point() else x.to(torch.float32)
    how = {"stride": where.strides, "dilation": where.dilations}
    is_plain = where.is_symmetric and all(2 * pad <= size for pad, size in zip(where.before, where.kernel, strict=True))
    if output_count == 1 and is_plain:
        return function(computed, where.kernel, padding=where.before, **how).to(dtype)
    padded = torch.nn.functional.pad(computed, where.pads, value=-torch.inf)
    if output_count == 1:
        return function(padded, where.kernel, **how).to(dtype)
    values, positions = function(padded, where.kernel, return_indices=True, **how)
    return values.to(dtype), _in_whole(positions, padded.shape, x.shape, where, storage_order)


def _in_whole(positions: Any, padded: Any, shape: Any, where: Windows, storage_order: int) -> Any:
    """Positions in each padded plane as positions in the whole input, by rows or, with storage_order=1, by columns."""
    rank = len(where.kernel)
    coordinates = []
    for axis in reversed(range(rank)):
        coordinates.append(positions % padded[2 + axis] - where.before[axis])
        positions = positions // padded[2 + axis]
    coordinates.reverse()
    order = list(range(rank)) if not storage_order else list(reversed(range(rank)))
    flat = torch.zeros_like(coordinates[0])
    for axis in order:
        flat = flat * shape[2 + axis] + coordinates[axis]
    planes = torch.arange(shape[0] * shape[1]).reshape([shape[0], shape[1]] + [1] * rank)
    return planes * product(shape[2:]) + flat


def _sums(x: Any, where: Windows) -> Any:
    """Sums over windows of what is padded already: a convolution of each channel with ones."""
    planes = x.reshape([-1, 1, *x.shape[2:]])
    ones = torch.ones([1, 1, *where.kernel], dtype=x.dtype)
    function = getattr(torch.nn.functional, f"conv{len(where.kernel)}d")
    sums = function(planes, ones, stride=where.strides, dilation=where.dilations)
    return sums.reshape([*x.shape[:2], *sums.shape[2:]])


@lowers("AveragePool")
def average_pool(
    x: Tensor,
    *,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    count_include_pad: int = 0,
    dilations: Any = None,
    kernel_shape: Any,
    pads: Any = None,
    strides: Any = None,
) -> Any:
    """The mean of each window, over what is there, or over padding too; never over what rounding up adds."""
    where = windows(
        x.shape[2:],
        kernel_shape,
        strides=strides,
        dilations=dilations,
        pads=pads,
        auto_pad=auto_pad,
        ceil_mode=ceil_mode,
    )
    is_plain = where.is_symmetric and all(2 * pad <= size for pad, size in zip(where.before, where.kernel, strict=True))
    if is_plain and set(where.dilations) == {1}:
        function = getattr(torch.nn.functional, f"avg_pool{len(where.kernel)}d")
        return function(
            x, where.kernel, stride=where.strides, padding=where.before, count_include_pad=bool(count_include_pad)
        )
    padding = torch.nn.functional.pad
    there = torch.ones([1, 1, *x.shape[2:]], dtype=x.dtype)
    if count_include_pad:
        none = (0,) * len(where.kernel)
        there = padding(there, replace(where, beyond=none).pads, value=1.0)
        there = padding(there, replace(where, before=none, after=none).pads)
    else:
        there = padding(there, where.pads)
    return _sums(padding(x, where.pads), where) / _sums(there, where)


@lowers("LpPool")
def lp_pool(
    x: Tensor,
    *,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    dilations: Any = None,
    kernel_shape: Any,
    p: float = 2,
    pads: Any = None,
    strides: Any = None,
) -> Any:
    """The p-norm of each window."""
    where = windows(
        x.shape[2:],
        kernel_shape,
        strides=strides,
        dilations=dilations,
        pads=pads,
        auto_pad=auto_pad,
        ceil_mode=ceil_mode,
    )
    return _sums(torch.nn.functional.pad(x.abs() ** p, where.pads), where) ** (1 / p)


@lowers("GlobalAveragePool")
def global_average_pool(x: Tensor) -> Any:
    """The mean of all spatial axes."""
    return x.mean(list(range(2, x.ndim)), keepdim=True)


@lowers("GlobalMaxPool")
def global_max_pool(x: Tensor) -> Any:
    """The largest over all spatial axes."""
    return x.amax(list(range(2, x.ndim)), keepdim=True)


@lowers("GlobalLpPool")
def global_lp_pool(x: Tensor, *, p: float = 2) -> Any:
    """The p-norm of all spatial axes."""
    return torch.linalg.vector_norm(x, p, dim=list(range(2, x.ndim)), keepdim=True)


@lowers("MaxUnpool", since=9)
def max_unpool(
    x: Tensor, positions: Tensor, output_shape: Ints = None, *, kernel_shape: Any, pads: Any = None, strides: Any = None
) -> Any:
    """The values put back where MaxPool found them, zero elsewhere."""
    rank = len(kernel_shape)
    strides, pads = list(strides or [1] * rank), list(pads or [0] * (2 * rank))
    extents = [
        (extent - 1) * stride - pads[axis] - pads[rank + axis] + kernel
        for axis, (extent, stride, kernel) in enumerate(zip(x.shape[2:], strides, kernel_shape, strict=True))
    ]
    shape = [*x.shape[:2], *extents]
    full = x.new_zeros(product(shape)).scatter(0, positions.reshape(-1), x.reshape(-1)).reshape(shape)
    if output_shape is None:
        return full
    missing = [wanted - have for wanted, have in zip(output_shape[2:], extents, strict=True)]
    return torch.nn.functional.pad(full, flat([0] * rank, missing))

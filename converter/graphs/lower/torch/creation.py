"""Operators that make tensors out of attributes, shapes or ranges."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from converter.graphs.lower.torch.framework import (
    Int,
    Ints,
    Tensor,
    Value,
    as_int,
    as_tensor,
    dtype_of,
    host,
    is_host,
    product,
    to_tensor,
    torch,
)
from converter.graphs.lower.torch.registry import REGISTRY, refuse

lowers = REGISTRY.lowers


@lowers("Constant")
def constant(
    *,
    value: Any = None,
    value_float: float | None = None,
    value_floats: Any = None,
    value_int: int | None = None,
    value_ints: Any = None,
) -> Any:
    """Exactly one attribute is given."""
    if value is not None:
        return value
    if value_float is not None or value_floats is not None:
        return np.array(value_float if value_floats is None else value_floats, np.float32)
    refuse(value_int is None and value_ints is None, "a Constant without a numeric value")
    return np.array(value_int if value_ints is None else value_ints, np.int64)


@lowers("ConstantOfShape", since=9)
def constant_of_shape(shape: Ints, *, value: Any = None) -> Any:
    """A tensor of one value; float zero when none is given."""
    filling = to_tensor(np.zeros(1, np.float32) if value is None else value).reshape(())
    if filling.is_floating_point() and filling.itemsize == 1:
        return filling.expand(shape).clone()
    return torch.full(shape, filling.item(), dtype=filling.dtype)


def _steps(first: float, last: Any, step: float) -> Any:
    """Return how many numbers there are from `first` on before `last`, which may be an extent that is a float."""
    if not isinstance(last, torch.SymFloat):
        return max(0, math.ceil((last - first) / step))
    if (first, step) == (0, 1) and type(last.node.expr).__name__ == "ToFloat":
        return torch.sym_int(last)
    count = (last - first) / step
    whole = torch.sym_int(count)
    return torch.sym_max(whole + torch.sym_ite(count > torch.sym_float(whole), 1, 0), 0)


@lowers("Range", since=11)
def range_(start: Value, limit: Value, delta: Value) -> Any:
    """Scalars of one type."""
    dtype = start.dtype if not is_host(start) else torch.int32 if start.dtype == np.int32 else torch.int64
    is_integer = start.dtype in (torch.int16, torch.int32, torch.int64, np.int16, np.int32, np.int64, object)
    if is_integer:
        first, last, step = (as_int(value) for value in (start, limit, delta))
        if not isinstance(last, int) and not is_host(limit):
            torch._check(last >= first)  # a number that only a run has: a program must be told it is an extent
        elif isinstance(first, int) and isinstance(last, int) and (last - first) * step < 0:
            last = first
        return torch.arange(first, last, step, dtype=dtype)
    if all(map(is_host, (start, limit, delta))):
        # Of an extent that a graph made a float of: no program looks into a tensor for how many there are.
        first, last, step = (value.reshape(-1)[0] for value in (start, limit, delta))
        positions = torch.arange(_steps(float(first), last, float(step)))
        first, step = (as_tensor(value).reshape(()) for value in (start, delta))
        return (first + positions.to(first.dtype) * step).to(first.dtype)
    first, last, step = (as_tensor(value).reshape(()) for value in (start, limit, delta))
    count = torch.ceil((last.to(torch.float64) - first.to(torch.float64)) / step.to(torch.float64))
    positions = torch.arange(max(0, int(count.item())))
    return (first + positions.to(first.dtype) * step).to(first.dtype)


@lowers("Shape")
def shape(x: Tensor) -> Any:
    """All extents."""
    return host(list(x.shape))


@lowers("Shape", since=15)
def shape_range(x: Tensor, *, start: int = 0, end: int | None = None) -> Any:
    """The extents from `start` to `end`."""
    return host(list(x.shape)[start:end])


@lowers("Size")
def size(x: Tensor) -> Any:
    """The number of elements."""
    return host([product(x.shape)]).reshape(())


@lowers("EyeLike", since=9)
def eye_like(x: Tensor, *, dtype: int | None = None, k: int = 0) -> Any:
    """Ones on diagonal `k` of a matrix of this shape."""
    rows, columns = (torch.arange(extent) for extent in x.shape)
    return (columns[None, :] - rows[:, None] == k).to(x.dtype if dtype is None else dtype_of(dtype))


@lowers("OneHot", since=9)
def one_hot(indices: Tensor, depth: Int, values: Tensor, *, axis: int = -1) -> Any:
    """Negative indices count from the end; those out of range give the off value throughout."""
    depth = int(depth)
    indices = indices.to(torch.int64)
    indices = torch.where(indices < 0, indices + depth, indices)
    axis = axis if axis >= 0 else axis + indices.ndim + 1
    along = torch.arange(depth).reshape([depth if each == axis else 1 for each in range(indices.ndim + 1)])
    return torch.where(indices.unsqueeze(axis) == along, values[1], values[0])


@lowers("Trilu", since=14)
def trilu(x: Tensor, k: Int = None, *, upper: int = 1) -> Any:
    """The triangle above (below) diagonal `k` of the last two dimensions, zero elsewhere."""
    k = 0 if k is None else k
    return torch.triu(x, k) if upper else torch.tril(x, k)

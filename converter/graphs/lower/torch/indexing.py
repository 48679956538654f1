"""Operators that pick elements by position, or put them there."""

from __future__ import annotations

from typing import Any

from converter.graphs.lower.torch.framework import (
    Int,
    Ints,
    Tensor,
    Value,
    as_int,
    as_tensor,
    axis_of,
    is_host,
    moved,
    ordered,
    torch,
    typed,
)
from converter.graphs.lower.torch.registry import REGISTRY, refuse

lowers = REGISTRY.lowers
_BEYOND = 2**31 - 1
_TABLE_RANK = 2
_REDUCTIONS = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}


def _from_start(indices: Any, extent: Any) -> Any:
    """Make negative indices, which count from the end, count from the start."""
    indices = typed(indices, torch.int64)
    return torch.where(indices < 0, indices + extent, indices)


@lowers("Gather")
def gather(x: Tensor, indices: Value, *, axis: int = 0, padding_row: int | None = None) -> Any:
    """Slices of one axis. The row `padding_row` gets no gradient."""
    axis = axis_of(axis, x)
    if padding_row is not None and axis == 0 and x.ndim == _TABLE_RANK and not is_host(indices):
        return torch.nn.functional.embedding(_from_start(indices, x.shape[0]), x, padding_idx=padding_row)
    if is_host(indices) and indices.size == 1:
        # One position known: a view, and the other extents stay what they are.
        position = as_int(indices)
        picked = x.select(axis, position)
        return (
            picked if indices.ndim == 0 else picked.reshape(x.shape[:axis] + (1,) * indices.ndim + x.shape[axis + 1 :])
        )
    # Indexing, unlike index_select, takes negative indices itself, and looks into a tensor without axes.
    at = typed(as_tensor(indices), torch.int64)
    picked = x[(slice(None),) * axis + (at if at.ndim else at[None],)]
    return picked if at.ndim else picked.select(axis, 0)


@lowers("GatherND", since=11)
def gather_nd(x: Tensor, indices: Tensor, *, batch_dims: int = 0) -> Any:
    """Slices at index tuples, which lie along the last axis of `indices`."""
    shape = list(indices.shape[:-1])
    batches = [
        torch.arange(extent).reshape([extent if each == axis else 1 for each in range(len(shape))])
        for axis, extent in enumerate(shape[:batch_dims])
    ]
    where = (*batches, *typed(indices, torch.int64).unbind(-1))
    return x[where]


@lowers("GatherElements", since=11)
def gather_elements(x: Tensor, indices: Tensor, *, axis: int = 0) -> Any:
    """One element per index, along one axis."""
    return torch.gather(x, axis, _from_start(indices, x.shape[axis]))


@lowers("ScatterElements", since=16)
def scatter_elements(x: Tensor, indices: Tensor, updates: Tensor, *, axis: int = 0, reduction: str = "none") -> Any:
    """Put one element per index, along one axis."""
    refuse(reduction != "none" and reduction not in _REDUCTIONS, f"scatter with reduction {reduction!r}")
    indices = _from_start(indices, x.shape[axis])
    if reduction == "none":
        return x.scatter(axis, indices, updates)
    return x.scatter_reduce(axis, indices, updates, _REDUCTIONS[reduction], include_self=True)


@lowers("Scatter", "ScatterElements", since=9)
def scatter_elements_plain(x: Tensor, indices: Tensor, updates: Tensor, *, axis: int = 0) -> Any:
    """Without a reduction, before opset 16."""
    return scatter_elements(x, indices, updates, axis=axis)


@lowers("ScatterND", since=16)
def scatter_nd(x: Tensor, indices: Tensor, updates: Tensor, *, reduction: str = "none") -> Any:
    """Put slices at index tuples."""
    refuse(reduction != "none" and reduction not in _REDUCTIONS, f"scatter with reduction {reduction!r}")
    tuples = tuple(typed(indices, torch.int64).unbind(-1))
    if reduction in ("none", "add"):
        return x.index_put(tuples, updates, accumulate=reduction == "add")
    depth = indices.shape[-1]
    rows = torch.zeros_like(tuples[0])
    for axis, positions in enumerate(tuples):
        rows = rows * x.shape[axis] + _from_start(positions, x.shape[axis])
    flat = x.reshape(-1, *x.shape[depth:])
    sources = updates.reshape(-1, *x.shape[depth:])
    where = rows.reshape([-1] + [1] * (flat.ndim - 1)).expand_as(sources)
    return flat.scatter_reduce(0, where, sources, _REDUCTIONS[reduction], include_self=True).reshape(x.shape)


@lowers("ScatterND", since=11)
def scatter_nd_plain(x: Tensor, indices: Tensor, updates: Tensor) -> Any:
    """Without a reduction, before opset 16."""
    return scatter_nd(x, indices, updates)


@lowers("TensorScatter", since=24)
def tensor_scatter(
    cache: Tensor, update: Tensor, starts: Tensor = None, *, axis: int = -2, mode: str = "linear"
) -> Any:
    """Write `update` into a cache at each batch's own position along an axis, around its end when circular."""
    axis = axis_of(axis, cache)
    along = torch.arange(update.shape[axis]).reshape([-1] + [1] * (update.ndim - axis - 1))
    first = 0 if starts is None else starts.to(torch.int64).reshape([-1] + [1] * (update.ndim - 1))
    positions = along + first
    positions = torch.remainder(positions, cache.shape[axis]) if mode == "circular" else positions
    return cache.scatter(axis, positions.expand(update.shape), update)


@lowers("Slice", since=10)
def slice_(x: Tensor, starts: Ints, ends: Ints, axes: Ints = None, steps: Ints = None) -> Any:
    """Python's rule: negative positions count from the end, those beyond it are cut to it, steps may be negative."""
    for at, axis in enumerate(range(len(starts)) if axes is None else [axis_of(each, x) for each in axes]):
        step = 1 if steps is None else steps[at]
        is_from_start = isinstance(starts[at], int) and starts[at] == 0
        if step == 1 and is_from_start and isinstance(ends[at], int) and ends[at] >= _BEYOND:
            continue
        if step < 0:
            first, last, stride = slice(_open(starts[at]), _open(ends[at]), step).indices(x.shape[axis])
            x = x.index_select(axis, torch.arange(first, last, stride))
        elif not (isinstance(ends[at], int) and ends[at] <= -_BEYOND):
            x = x[(slice(None),) * axis + (slice(_open(starts[at]), _open(ends[at]), step),)]
        else:
            x = x.narrow(axis, 0, 0)
    return x


def _open(position: Any) -> Any:
    """A position, None when it lies beyond any extent: ONNX writes the largest or smallest integer for that."""
    return None if isinstance(position, int) and abs(position) >= _BEYOND else position


@lowers("Slice")
def slice_by_attributes(x: Tensor, *, starts: Any, ends: Any, axes: Any = None) -> Any:
    """Bounds as attributes, before opset 10."""
    return slice_(x, list(starts), list(ends), axes)


@lowers("TopK", since=11)
def top_k(x: Tensor, k: Int, *, axis: int = -1, largest: int = 1, sorted: int = 1) -> Any:
    """The k largest (smallest) values along an axis, and where they are; of equals the first comes first."""
    values, positions = torch.sort(ordered(x), dim=axis, descending=bool(largest), stable=True)
    values, positions = values.narrow(axis, 0, k), positions.narrow(axis, 0, k)
    return (moved(values) if x.dtype == torch.uint64 else values).to(x.dtype), positions


@lowers("TopK", since=10)
def top_k_largest(x: Tensor, k: Int, *, axis: int = -1) -> Any:
    """The largest, before opset 11."""
    return top_k(x, k, axis=axis)


@lowers("TopK")
def top_k_by_attribute(x: Tensor, *, k: int, axis: int = -1) -> Any:
    """k as an attribute, before opset 10."""
    return top_k(x, k, axis=axis)


@lowers("NonZero", since=9)
def non_zero(x: Tensor) -> Any:
    """Positions of what is not zero, one column each."""
    return torch.nonzero(x).t() if x.ndim else torch.nonzero(x.reshape(1)).t()[:0]


@lowers("Compress", since=9)
def compress(x: Tensor, condition: Tensor, *, axis: int | None = None) -> Any:
    """The slices along `axis` where the condition, which may be shorter, is true; elements when no axis is given."""
    x = x.reshape(-1) if axis is None else x
    return x.index_select(axis or 0, torch.nonzero(condition).reshape(-1))


@lowers("Unique", since=11)
def unique(x: Tensor, *, axis: int | None = None, sorted: int = 1, output_count: int) -> Any:
    """Distinct elements, or slices, in order or as they first come: also where they first are, and the ways back."""
    values, inverse, counts = torch.unique(x, sorted=True, return_inverse=True, return_counts=True, dim=axis)
    inverse = inverse.reshape(-1)
    count, length = counts.shape[0], inverse.shape[0]
    firsts = torch.full((count,), length, dtype=torch.int64)
    firsts = firsts.scatter_reduce(0, inverse, torch.arange(length), "amin", include_self=True)
    if not sorted:
        order = torch.argsort(firsts)
        rank = torch.argsort(order)
        values, firsts, counts = values.index_select(axis or 0, order), firsts[order], counts[order]
        inverse = rank[inverse]
    return (values, firsts, inverse, counts)[:output_count]


@lowers("ReverseSequence", since=10)
def reverse_sequence(x: Tensor, lengths: Tensor, *, batch_axis: int = 1, time_axis: int = 0) -> Any:
    """Each batch's first elements backwards, the rest as they are."""
    x = x.movedim((time_axis, batch_axis), (0, 1))
    steps = torch.arange(x.shape[0])[:, None]
    ends = lengths.to(torch.int64)[None, :]
    source = torch.where(steps < ends, ends - 1 - steps, steps)
    rest = [1] * (x.ndim - 2)
    return torch.gather(x, 0, source.reshape(*source.shape, *rest).expand(x.shape)).movedim(
        (0, 1), (time_axis, batch_axis)
    )

"""Operators that reduce along axes, or run along one."""

from __future__ import annotations

from typing import Any

from converter.graphs.lower.registry import Lowering
from converter.graphs.lower.torch.framework import Int, Ints, Tensor, axis_of, moved, ordered, torch
from converter.graphs.lower.torch.registry import REGISTRY

lowers = REGISTRY.lowers


def _l1(x: Any, axes: list[int], keepdims: bool) -> Any:
    return _sum(x.abs(), axes, keepdims)


def _l2(x: Any, axes: list[int], keepdims: bool) -> Any:
    # Through linalg where it can be: the gradient of a root is infinite at zero, that of a norm is not.
    if x.is_floating_point():
        return torch.linalg.vector_norm(x, dim=axes, keepdim=keepdims)
    return torch.sqrt(_sum_of_squares(x, axes, keepdims).to(torch.float64)).to(x.dtype)


def _log_sum(x: Any, axes: list[int], keepdims: bool) -> Any:
    return torch.log(_sum(x, axes, keepdims).to(_floating(x))).to(x.dtype)


def _log_sum_exp(x: Any, axes: list[int], keepdims: bool) -> Any:
    return torch.logsumexp(x.to(_floating(x)), axes, keepdim=keepdims).to(x.dtype)


def _floating(x: Any) -> Any:
    return x.dtype if x.is_floating_point() else torch.float64


def _max(x: Any, axes: list[int], keepdims: bool) -> Any:
    return _extreme(torch.amax, x, axes, keepdims, smallest=True)


def _min(x: Any, axes: list[int], keepdims: bool) -> Any:
    return _extreme(torch.amin, x, axes, keepdims, smallest=False)


def _extreme(function: Any, x: Any, axes: list[int], keepdims: bool, *, smallest: bool) -> Any:
    if any(isinstance(x.shape[axis], int) and x.shape[axis] == 0 for axis in axes):
        shape = [1 if axis in axes else extent for axis, extent in enumerate(x.shape)]
        found = torch.full(shape, _limit(x, smallest), dtype=x.dtype)
        return found if keepdims else found.squeeze(axes)
    if x.dtype == torch.bool:
        return function(x.to(torch.uint8), axes, keepdims).to(torch.bool)
    found = function(ordered(x), axes, keepdims)
    return (moved(found) if x.dtype == torch.uint64 else found).to(x.dtype)


def _limit(x: Any, smallest: bool) -> Any:
    if x.dtype == torch.bool:
        return not smallest
    if x.is_floating_point():
        return -torch.inf if smallest else torch.inf
    return torch.iinfo(x.dtype).min if smallest else torch.iinfo(x.dtype).max


def _mean(x: Any, axes: list[int], keepdims: bool) -> Any:
    return torch.mean(x.to(_floating(x)), axes, keepdim=keepdims).to(x.dtype)


def _product(x: Any, axes: list[int], keepdims: bool) -> Any:
    for axis in sorted(axes, reverse=True):
        x = torch.prod(x, axis, keepdim=keepdims, dtype=x.dtype)
    return x


def _sum(x: Any, axes: list[int], keepdims: bool) -> Any:
    return torch.sum(x, axes, keepdim=keepdims, dtype=x.dtype)


def _sum_of_squares(x: Any, axes: list[int], keepdims: bool) -> Any:
    return _sum(x * x, axes, keepdims)


# ONNX op type, what it reduces by, and the opset in which its axes became an input.
_REDUCTIONS = (
    ("ReduceL1", _l1, 18),
    ("ReduceL2", _l2, 18),
    ("ReduceLogSum", _log_sum, 18),
    ("ReduceLogSumExp", _log_sum_exp, 18),
    ("ReduceMax", _max, 18),
    ("ReduceMean", _mean, 18),
    ("ReduceMin", _min, 18),
    ("ReduceProd", _product, 18),
    ("ReduceSum", _sum, 13),
    ("ReduceSumSquare", _sum_of_squares, 18),
)


def _by_input(reducer: Lowering) -> Lowering:
    def lowering(x: Tensor, axes: Ints = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0) -> Any:
        if not axes and noop_with_empty_axes:
            return reducer(x.unsqueeze(0), [0], False) if reducer in (_l1, _l2, _sum_of_squares, _log_sum) else x
        chosen = [axis_of(axis, x) for axis in axes] if axes else list(range(x.ndim))
        return reducer(x, chosen, bool(keepdims)) if x.ndim else reducer(x.reshape(1), [0], False)

    return lowering


def _by_attribute(reducer: Lowering) -> Lowering:
    def lowering(x: Tensor, *, axes: Any = None, keepdims: int = 1) -> Any:
        chosen = [axis_of(axis, x) for axis in axes] if axes else list(range(x.ndim))
        return reducer(x, chosen, bool(keepdims)) if x.ndim else reducer(x.reshape(1), [0], False)

    return lowering


for _op_type, _reducer, _since in _REDUCTIONS:
    REGISTRY.add(_op_type, _by_input(_reducer), since=_since)
    REGISTRY.add(_op_type, _by_attribute(_reducer), since=1)


def _position(function: Any, x: Any, axis: int, keepdims: int, select_last_index: int) -> Any:
    axis, x = axis_of(axis, x), ordered(x)
    if select_last_index:
        return x.shape[axis] - 1 - function(x.flip(axis), axis, keepdim=bool(keepdims))
    return function(x, axis, keepdim=bool(keepdims))


@lowers("ArgMax")
def arg_max(x: Tensor, *, axis: int = 0, keepdims: int = 1, select_last_index: int = 0) -> Any:
    """Where the largest is: the first of equals, or the last."""
    return _position(torch.argmax, x, axis, keepdims, select_last_index)


@lowers("ArgMin")
def arg_min(x: Tensor, *, axis: int = 0, keepdims: int = 1, select_last_index: int = 0) -> Any:
    """Where the smallest is: the first of equals, or the last."""
    return _position(torch.argmin, x, axis, keepdims, select_last_index)


def _running(function: str, first: int) -> Lowering:
    def lowering(x: Tensor, axis: Int, *, exclusive: int = 0, reverse: int = 0) -> Any:
        axis = axis_of(axis, x)
        x = x.flip(axis) if reverse else x
        if exclusive:
            start = torch.full_like(x.narrow(axis, 0, 1), first)
            x = torch.cat([start, x.narrow(axis, 0, x.shape[axis] - 1)], axis)
        result = getattr(torch, function)(x, axis, dtype=x.dtype)
        return result.flip(axis) if reverse else result

    return lowering


REGISTRY.add("CumSum", _running("cumsum", 0), since=11)
REGISTRY.add("CumProd", _running("cumprod", 1), since=26)

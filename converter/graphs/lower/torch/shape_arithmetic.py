"""What graphs compute from extents, on host arrays: with SymInts no tensor could do it under torch.export.

Each function takes the node's inputs and attributes, whichever opset they are of, and returns an array, or None to
leave the node to the op table.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from functools import reduce
from typing import Any

import numpy as np

from converter.graphs.lower.torch.framework import torch

_INTEGERS = {6: np.int32, 7: np.int64}
_FLOATS = {1: np.float32, 11: np.float64}
_BOOL = 9
# Symbolic extents are int64.
_NUMBERS = {
    np.dtype(object): 7,
    np.dtype(np.int64): 7,
    np.dtype(np.int32): 6,
    np.dtype(np.float32): 1,
    np.dtype(np.float64): 11,
    np.dtype(np.bool_): _BOOL,
}


def _settled(array: Any, like: Any) -> Any:
    """Return an object array as an integer or boolean one when there is nothing symbolic in it."""
    elements = array.reshape(-1).tolist()
    if all(isinstance(each, bool) for each in elements) and elements:
        return array.astype(np.bool_)
    if all(isinstance(each, int) for each in elements):
        return array.astype(np.int64 if like.dtype == object else like.dtype)
    return array


def _each(function: Callable[..., Any]) -> Callable[..., Any]:
    def lowering(*arrays: Any, **attributes: Any) -> Any:
        if any(attributes.values()):
            return None
        mixed = np.broadcast_arrays(*(array.astype(object) for array in arrays))
        result = np.empty(mixed[0].shape, object)
        for position in np.ndindex(mixed[0].shape):
            result[position] = function(*(array[position] for array in mixed))
        return _settled(result, arrays[-1])

    return lowering


def _fold(function: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    def lowering(*arrays: Any) -> Any:
        return reduce(_each(function), arrays)

    return lowering


def _extreme(function: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    fold = _fold(function)

    def lowering(*arrays: Any) -> Any:
        return None if all(array.dtype.kind == "f" for array in arrays) else fold(*arrays)

    return lowering


def _truncated(a: Any, b: Any) -> Any:
    return a // b if bool(a >= 0) == bool(b > 0) else -(-a // b)


def _compared(function: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    return _each(lambda a, b: _decided(function(a, b)))


def _decided(value: Any) -> Any:
    """A comparison as True or False where extents of any size decide it; else it stays symbolic, and nothing guards."""
    if not isinstance(value, torch.SymBool):
        return bool(value)
    from torch.fx.experimental.symbolic_shapes import statically_known_true

    if statically_known_true(value):
        return True
    return False if statically_known_true(torch.sym_not(value)) else value


# Whether an extent is zero, where its size does not decide it, is a SymInt of 0 or 1: sympy cannot divide by less.


def _is_some(a: Any) -> Any:
    decided = _decided(a != 0)
    return torch.sym_min(abs(a), 1) if isinstance(decided, torch.SymBool) else decided


def _not(a: Any) -> Any:
    if isinstance(a, torch.SymInt):
        return 1 - a
    return torch.sym_not(a) if isinstance(a, torch.SymBool) else not a


def _and(a: Any, b: Any) -> Any:
    if a is False or b is False:
        return False
    return b if a is True else a if b is True else _integer(a) * _integer(b)


def _or(a: Any, b: Any) -> Any:
    if a is True or b is True:
        return True
    return b if a is False else a if b is False else torch.sym_max(_integer(a), _integer(b))


def _sign(a: Any) -> Any:
    above, below = _decided(a > 0), _decided(a < 0)
    return _integer(above) - _integer(below)


def _integer(value: Any) -> Any:
    if isinstance(value, torch.SymBool):
        return torch.sym_ite(value, 1, 0)
    if isinstance(value, (bool, int, float)):
        return int(value)
    return value if isinstance(value, torch.SymInt) else torch.sym_int(value)


def _cast(x: Any, *, to: int, **_: Any) -> Any:
    if to in _INTEGERS:
        if x.dtype != object:
            return x.astype(_INTEGERS[to])
        return _settled(_mapped(_integer, x), np.zeros(0, _INTEGERS[to]))
    if to in _FLOATS:
        return _mapped(torch.sym_float, x) if x.dtype == object else x.astype(_FLOATS[to])
    if to == _BOOL and x.dtype.kind != "f":
        return _each(_is_some)(x)
    return None


def _mapped(function: Callable[[Any], Any], x: Any) -> Any:
    result = np.empty(x.shape, object)
    for position in np.ndindex(x.shape):
        result[position] = function(x[position])
    return result


def _cast_like(x: Any, like: Any, **_: Any) -> Any:
    number = _NUMBERS.get(like.dtype)
    return None if number is None else _cast(x, to=number)


def _gather(x: Any, indices: Any, *, axis: int = 0) -> Any:
    return np.asarray(np.take(x, indices.astype(np.int64), axis)) if indices.dtype != object else None


def _slice(x: Any, starts: Any, ends: Any, axes: Any = None, steps: Any = None) -> Any:
    bounds = [None if each is None else np.asarray(each).reshape(-1).tolist() for each in (starts, ends, axes, steps)]
    if any(not isinstance(each, int) for values in bounds for each in values or ()):
        return None
    first, last, chosen, stride = bounds
    assert first is not None
    assert last is not None
    for at, axis in enumerate(range(len(first)) if chosen is None else chosen):
        step = 1 if stride is None else stride[at]
        end = None if step < 0 and last[at] <= -(2**31) else last[at]
        x = x[(slice(None),) * (axis % x.ndim) + (slice(first[at], end, step),)]
    return x


def _concat(*arrays: Any, axis: int) -> Any:
    return np.concatenate([array.astype(object) if _is_mixed(arrays) else array for array in arrays], axis)


def _is_mixed(arrays: Any) -> bool:
    return any(array.dtype == object for array in arrays)


def _axes(axes: Any) -> Any:
    return None if axes is None else tuple(int(axis) for axis in np.asarray(axes).reshape(-1))


def _squeeze(x: Any, axes: Any = None) -> Any:
    return np.squeeze(x, _axes(axes))


def _unsqueeze(x: Any, axes: Any) -> Any:
    return np.expand_dims(x, _axes(axes))


def _reshape(x: Any, shape: Any, *, allowzero: int = 0, **_: Any) -> Any:
    wanted = np.asarray(shape)
    return None if wanted.dtype == object or 0 in wanted else x.reshape(wanted.tolist())


def _expand(x: Any, shape: Any) -> Any:
    return None if shape.dtype == object else np.broadcast_to(x, np.broadcast_shapes(x.shape, tuple(shape.tolist())))


def _where(condition: Any, x: Any, y: Any) -> Any:
    return _each(lambda c, a, b: torch.sym_ite(c, a, b) if isinstance(c, torch.SymBool) else a if c else b)(
        condition, x, y
    )


def _reduced(function: Callable[..., Any]) -> Callable[..., Any]:
    def lowering(x: Any, axes: Any = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0) -> Any:
        chosen = _axes(axes) or None
        if x.ndim != 1 or chosen not in (None, (0,), (-1,)) or (chosen is None and noop_with_empty_axes):
            return None
        array = np.empty((1,) if keepdims else (), object)
        array[...] = function(x.tolist())
        return _settled(array, x)

    return lowering


HOST: dict[str, Callable[..., Any]] = {
    "Abs": _each(abs),
    "Add": _each(operator.add),
    "And": _each(_and),
    "Cast": _cast,
    "CastLike": _cast_like,
    "Ceil": _each(math.ceil),
    "Concat": _concat,
    "Div": _each(lambda a, b: a / b if isinstance(a, (float, torch.SymFloat)) else _truncated(a, b)),
    "Equal": _compared(operator.eq),
    "Expand": _expand,
    "Floor": _each(math.floor),
    "Gather": _gather,
    "Greater": _compared(operator.gt),
    "GreaterOrEqual": _compared(operator.ge),
    "Identity": lambda x: x,
    "Less": _compared(operator.lt),
    "LessOrEqual": _compared(operator.le),
    "Max": _extreme(lambda a, b: torch.sym_max(a, b)),
    "Min": _extreme(lambda a, b: torch.sym_min(a, b)),
    "Mod": _each(operator.mod),
    "Mul": _each(operator.mul),
    "Neg": _each(operator.neg),
    "Not": _each(_not),
    "Or": _each(_or),
    "ReduceMax": _reduced(lambda values: reduce(torch.sym_max, values)),
    "ReduceMin": _reduced(lambda values: reduce(torch.sym_min, values)),
    "ReduceProd": _reduced(math.prod),
    "ReduceSum": _reduced(sum),
    "Reshape": _reshape,
    "Sign": _each(_sign),
    "Slice": _slice,
    "Squeeze": _squeeze,
    "Sub": _each(operator.sub),
    "Unsqueeze": _unsqueeze,
    "Where": _where,
}

TAKES_FLOATS = frozenset(("Cast", "CastLike", "Identity", "Max", "Min", "Reshape", "Squeeze", "Unsqueeze"))
"""Operators that round nothing. What does is the op table's for floats: it rounds as their type does."""

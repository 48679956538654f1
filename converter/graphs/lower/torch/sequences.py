"""Sequences of tensors, which are Python lists, and optional values, which are the value or None."""

from __future__ import annotations

from typing import Any

import numpy as np

from converter.graphs.lower.torch.framework import Int, Tensor, Value, as_int, as_ints, as_tensor, torch
from converter.graphs.lower.torch.registry import REGISTRY, refuse

lowers = REGISTRY.lowers


@lowers("SequenceConstruct", since=11)
def sequence_construct(*values: Tensor) -> Any:
    """A list of its inputs."""
    return list(values)


@lowers("SequenceEmpty", since=11)
def sequence_empty(*, dtype: int = 1) -> Any:
    """A list of nothing."""
    return []


@lowers("SequenceInsert", since=11)
def sequence_insert(sequence: Value, value: Tensor, position: Int = None) -> Any:
    """A copy with one more element, at the end unless a place is given."""
    where = len(sequence) if position is None else int(position)
    return [*sequence[:where], value, *sequence[where:]]


@lowers("SequenceErase", since=11)
def sequence_erase(sequence: Value, position: Int = None) -> Any:
    """A copy without one element, the last unless a place is given."""
    refuse(not sequence, "an element of an empty sequence")
    where = (len(sequence) - 1 if position is None else int(position)) % len(sequence)
    return [*sequence[:where], *sequence[where + 1 :]]


@lowers("SequenceAt", since=11)
def sequence_at(sequence: Value, position: Int) -> Any:
    """One element; negative positions count from the end."""
    refuse(not -len(sequence) <= position < len(sequence), f"element {position} of a sequence of {len(sequence)}")
    return sequence[int(position)]


@lowers("SequenceLength", since=11)
def sequence_length(sequence: Value) -> Any:
    """The number of elements."""
    return np.array(len(sequence), np.int64)


@lowers("SplitToSequence", since=11)
def split_to_sequence(x: Tensor, sizes: Value = None, *, axis: int = 0, keepdims: int = 1) -> Any:
    """Parts of the sizes given, of one size, or of extent 1, which then may lose the axis."""
    if sizes is None:
        return list(x.unbind(axis)) if not keepdims else list(torch.split(x, 1, axis))
    return list(torch.split(x, as_ints(sizes) if sizes.ndim else int(as_int(sizes)), axis))


@lowers("ConcatFromSequence", since=11)
def concat_from_sequence(sequence: Value, *, axis: int, new_axis: int = 0) -> Any:
    """Joined along an axis, or stacked on a new one."""
    tensors = [as_tensor(each) for each in sequence]
    return torch.stack(tensors, axis) if new_axis else torch.cat(tensors, axis)


@lowers("Optional", since=15)
def optional(value: Value = None, *, type: Any = None) -> Any:
    """The value, or nothing."""
    return value


@lowers("OptionalHasElement", since=15)
def optional_has_element(value: Value = None) -> Any:
    """Whether there is one."""
    return np.array(value is not None)


@lowers("OptionalGetElement", since=15)
def optional_get_element(value: Value) -> Any:
    """The value that is there."""
    refuse(value is None, "the value of an empty optional")
    return value

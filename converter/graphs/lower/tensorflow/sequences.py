"""Sequences of tensors, which are Python lists, and optional values: both must be known while the graph is built."""

from __future__ import annotations

from typing import Any

from converter.graphs.lower.tensorflow.framework import is_static, tf
from converter.graphs.lower.tensorflow.registry import REGISTRY, refuse

lowers = REGISTRY.lowers


@lowers("SequenceConstruct", since=11)
def sequence_construct(*values: Any) -> Any:
    """A list of its inputs."""
    return list(values)


@lowers("SequenceEmpty", since=11)
def sequence_empty(*, dtype: int = 1) -> Any:
    """A list of nothing."""
    return []


@lowers("SequenceInsert", since=11)
def sequence_insert(sequence: Any, value: Any, position: Any = None) -> Any:
    """A copy with one more element, at the end unless a place is given."""
    where = len(sequence) if position is None else _integer(position)
    return [*sequence[:where], value, *sequence[where:]]


@lowers("SequenceErase", since=11)
def sequence_erase(sequence: Any, position: Any = None) -> Any:
    """A copy without one element, the last unless a place is given."""
    where = (len(sequence) - 1 if position is None else _integer(position)) % len(sequence)
    return [*sequence[:where], *sequence[where + 1 :]]


@lowers("SequenceAt", since=11)
def sequence_at(sequence: Any, position: Any) -> Any:
    """One element; negative positions count from the end."""
    return sequence[_integer(position)]


@lowers("SequenceLength", since=11)
def sequence_length(sequence: Any) -> Any:
    """The number of elements."""
    import numpy as np

    return np.array(len(sequence), np.int64)


@lowers("SplitToSequence", since=11)
def split_to_sequence(x: Any, sizes: Any = None, *, axis: int = 0, keepdims: int = 1) -> Any:
    """Parts of the sizes given, of one size, or of extent 1, which then may lose the axis."""
    extent = x.shape[axis]
    if sizes is None:
        refuse(extent is None, "SplitToSequence of an unknown extent")
        parts = tf.split(x, [1] * extent, axis=axis)
        return list(parts) if keepdims else [tf.squeeze(part, axis) for part in parts]
    if not is_static(sizes):
        refuse(sizes.shape.rank != 1 or sizes.shape[0] is None, "SplitToSequence into an unknown number of parts")
        return list(tf.split(x, sizes, axis=axis, num=sizes.shape[0]))
    lengths = sizes.tolist()
    if isinstance(lengths, int):
        refuse(extent is None, "SplitToSequence of an unknown extent")
        whole, rest = divmod(extent, lengths)
        lengths = [lengths] * whole + ([rest] if rest else [])
    return list(tf.split(x, lengths, axis=axis))


@lowers("ConcatFromSequence", since=11)
def concat_from_sequence(sequence: Any, *, axis: int, new_axis: int = 0) -> Any:
    """Joined along an axis, or stacked on a new one."""
    return tf.stack(sequence, axis) if new_axis else tf.concat(sequence, axis)


@lowers("Optional", since=15)
def optional(value: Any = None, *, type: Any = None) -> Any:
    """A value, or none: which of both is known while the graph is built."""
    return value


@lowers("OptionalHasElement", since=15)
def optional_has_element(value: Any = None) -> Any:
    """Whether there is a value."""
    import numpy as np

    return np.array(value is not None)


@lowers("OptionalGetElement", since=15)
def optional_get_element(value: Any) -> Any:
    """The value."""
    refuse(value is None, "OptionalGetElement of nothing")
    return value


def _integer(position: Any) -> int:
    refuse(not is_static(position), "a position in a sequence that is not constant")
    return int(position.reshape(()))

"""Operators that hold graphs. Those are functions of their inputs here, which see the values around them.

What is decided while the graph is built costs nothing at run time; the rest becomes tf.cond and tf.while_loop, through
which gradients flow.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from converter.graphs.lower.tensorflow.framework import as_scalar, extents_of, is_static, rank_of, tf
from converter.graphs.lower.tensorflow.registry import REGISTRY, refuse

lowers = REGISTRY.lowers
Body = Callable[..., tuple[Any, ...]]

# Longer loops are loops at run time, unless they carry sequences, which exist while the graph is built alone.
_UNROLLED_LIMIT = 16
_ENDLESS = (1 << 63) - 1


@lowers("If")
def if_(condition: Any, *, then_branch: Body, else_branch: Body) -> Any:
    """One of two graphs without inputs."""
    if is_static(condition):
        return then_branch() if condition.reshape(()) else else_branch()
    return tf.cond(tf.reshape(condition, []), lambda: _tensors(then_branch()), lambda: _tensors(else_branch()))


@lowers("Loop")
def loop(trip_count: Any, condition: Any = None, *initial: Any, body: Body) -> Any:
    """Until the count is reached or the condition false. Returns the last states, then the results of all rounds."""
    unrolled = _unrolled(trip_count, condition, initial, body)
    return _repeated(trip_count, condition, initial, body) if unrolled is None else unrolled


def _unrolled(trip_count: Any, condition: Any, initial: Sequence[Any], body: Body) -> tuple[Any, ...] | None:
    """Return the results when the number of rounds is known and small, else None."""
    import numpy as np

    limit = int(trip_count.reshape(())) if isinstance(trip_count, np.ndarray) else _ENDLESS
    keep = np.array(True) if condition is None else condition
    if not is_static(trip_count, keep) or (_UNROLLED_LIMIT < limit < _ENDLESS and not _has_sequence(initial)):
        return None
    states, rounds, step = list(initial), [], 0
    while step < limit and keep.reshape(()):
        keep, *results = body(np.array(step, np.int64), keep, *states)
        if not is_static(keep) or (step >= _UNROLLED_LIMIT and limit == _ENDLESS):
            return None
        states, step = results[: len(initial)], step + 1
        rounds.append(results[len(initial) :])
    if not rounds:
        return None
    return *states, *(_stack(values) for values in zip(*rounds, strict=True))


def _has_sequence(values: Sequence[Any]) -> bool:
    return any(isinstance(value, list) for value in values)


def _stack(values: Sequence[Any]) -> Any:
    import numpy as np

    return np.stack(values) if is_static(*values) else tf.stack(values)


def _repeated(trip_count: Any, condition: Any, initial: Sequence[Any], body: Body) -> tuple[Any, ...]:
    refuse(_has_sequence(initial) or any(value is None for value in initial), "a run-time Loop that carries sequences")
    limit = _ENDLESS if trip_count is None else tf.cast(as_scalar(trip_count), tf.int64)
    keep = tf.constant(True) if condition is None else as_scalar(condition)
    states, shapes = _loosened([tf.convert_to_tensor(value) for value in initial], body)
    arrays = [
        tf.TensorArray(each.dtype, size=0, dynamic_size=True, element_shape=each.shape, clear_after_read=False)
        for each in shapes
    ]

    def goes_on(step: Any, keep: Any, states: Any, arrays: Any) -> Any:
        return tf.logical_and(tf.less(step, limit), keep)

    def once(step: Any, keep: Any, states: Any, arrays: Any) -> Any:
        keep, *results = _tensors(body(step, keep, *states))
        place, rest = tf.cast(step, tf.int32), results[len(states) :]
        for value, before in zip(results, states, strict=False):
            value.set_shape(before.shape)
        written = [array.write(place, value) for array, value in zip(arrays, rest, strict=True)]
        return step + 1, as_scalar(keep), results[: len(states)], written

    start = (tf.constant(0, tf.int64), keep, states, arrays)
    _, _, states, arrays = tf.while_loop(goes_on, once, start)
    return *states, *(array.stack() for array in arrays)


def _loosened(states: Sequence[Any], body: Body) -> tuple[list[Any], list[Any]]:
    """Forget the extents of states that change from round to round. Also returns what a round gives besides states."""
    while True:
        results = _traced(states, body)
        shapes = [
            state.shape.most_specific_compatible_shape(result.shape)
            for state, result in zip(states, results, strict=False)
        ]
        if all(shape.as_list() == state.shape.as_list() for shape, state in zip(shapes, states, strict=True)):
            return list(states), results[len(states) :]
        refuse(any(shape.rank is None for shape in shapes), "a Loop that carries a changing number of dimensions")
        states = [
            tf.raw_ops.PlaceholderWithDefault(input=state, shape=shape)
            for state, shape in zip(states, shapes, strict=True)
        ]


def _traced(states: Sequence[Any], body: Body) -> list[Any]:
    """Return the states and other results of a round, built aside to learn their types and shapes."""
    function = tf.function(lambda *values: _tensors(body(*values))[1:], autograph=False)
    specifications = [tf.TensorSpec(state.shape, state.dtype) for state in states]
    first = (tf.TensorSpec([], tf.int64), tf.TensorSpec([], tf.bool))
    return list(function.get_concrete_function(*first, *specifications).structured_outputs)


def _tensors(values: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(_tensor(value) for value in values)


def _tensor(value: Any) -> Any:
    refuse(value is None, "an empty optional that is known at run time alone")
    return [_tensor(each) for each in value] if isinstance(value, list) else tf.convert_to_tensor(value)


@lowers("Scan", since=9)
def scan(
    *values: Any,
    body: Body,
    num_scan_inputs: int,
    scan_input_axes: Any = None,
    scan_input_directions: Any = None,
    scan_output_axes: Any = None,
    scan_output_directions: Any = None,
) -> Any:
    """Round after round over the slices of the last inputs; results are stacked, along an axis, perhaps backwards."""
    count = len(values) - num_scan_inputs
    directions = scan_input_directions or [0] * num_scan_inputs
    axes = scan_input_axes or [0] * num_scan_inputs
    scanned = [
        _turned(_moved(value, axis, 0), direction)
        for value, axis, direction in zip(values[count:], axes, directions, strict=True)
    ]

    def once(step: Any, keep: Any, *states: Any) -> tuple[Any, ...]:
        return keep, *body(*states, *(tf.gather(value, step) for value in scanned))

    results = loop(_extent(scanned[0]), None, *values[:count], body=once)
    stacked = results[count:]
    axes = scan_output_axes or [0] * len(stacked)
    directions = scan_output_directions or [0] * len(stacked)
    return *results[:count], *(
        _moved(_turned(value, direction), 0, axis)
        for value, axis, direction in zip(stacked, axes, directions, strict=True)
    )


def _extent(value: Any) -> Any:
    import numpy as np

    extent = extents_of(value)[0]
    return np.array(extent, np.int64) if isinstance(extent, int) else extent


def _turned(value: Any, is_backwards: int) -> Any:
    return tf.reverse(value, [0]) if is_backwards else value


def _moved(value: Any, source: int, destination: int) -> Any:
    rank = rank_of(value)
    source, destination = source % rank, destination % rank
    if source == destination:
        return value
    order = [axis for axis in range(rank) if axis != source]
    order.insert(destination, source)
    return tf.transpose(value, order)


@lowers("Scan", since=8)
def scan_of_batches(
    sequence_lengths: Any, *values: Any, body: Body, num_scan_inputs: int, directions: Any = None
) -> Any:
    """Before opset 9 the first axis of everything is a batch, the second what is scanned."""
    refuse(sequence_lengths is not None, "Scan of opset 8 with lengths of sequences")
    refuse(values[0].shape[0] is None, "Scan of opset 8 with an unknown batch")
    how = {"num_scan_inputs": num_scan_inputs, "scan_input_directions": directions}
    examples = [scan(*parts, body=body, **how) for parts in zip(*(tf.unstack(each) for each in values), strict=True)]
    return tuple(tf.stack(parts) for parts in zip(*examples, strict=True))

"""RNN, GRU and LSTM: a loop over the time steps, per direction. Layouts as ONNX has them: [time, batch, width]."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from converter.graphs.lower.onnx.cells import activations_of, direction_count
from converter.graphs.lower.tensorflow.framework import extents_of, tf
from converter.graphs.lower.tensorflow.registry import REGISTRY

lowers = REGISTRY.lowers

_ACTIVATIONS: dict[str, Callable[..., Any]] = {
    "affine": lambda x, alpha, beta: alpha * x + beta,
    "elu": lambda x, alpha: tf.where(x < 0, alpha * tf.math.expm1(x), x),
    "hardsigmoid": lambda x, alpha, beta: tf.clip_by_value(alpha * x + beta, 0, 1),
    "leakyrelu": lambda x, alpha: tf.nn.leaky_relu(x, alpha),
    "relu": lambda x: tf.nn.relu(x),
    "scaledtanh": lambda x, alpha, beta: alpha * tf.tanh(beta * x),
    "sigmoid": lambda x: tf.sigmoid(x),
    "softplus": lambda x: tf.math.softplus(x),
    "softsign": lambda x: tf.nn.softsign(x),
    "tanh": lambda x: tf.tanh(x),
    "thresholdedrelu": lambda x, alpha: tf.where(x > alpha, x, tf.zeros_like(x)),
}

TimeStep = Callable[[Any, Sequence[Any]], list[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Layer:
    """The attributes and inputs that all three have in common."""

    x: Any
    lengths: Any
    initial: list[Any]
    direction: str
    layout: int
    hidden: Any

    def run(self, step_of: Callable[[int], TimeStep]) -> Any:
        """Return the states of all times, then the last of each kind of state."""
        x = tf.transpose(self.x, [1, 0, 2]) if self.layout else tf.convert_to_tensor(self.x)
        batch = extents_of(x)[1]
        outputs, lasts = [], []
        backwards = {"forward": [False], "reverse": [True], "bidirectional": [False, True]}[self.direction]
        for number, is_backwards in enumerate(backwards):
            states = [self._first(value, number, batch, x) for value in self.initial]
            sequence = self._turned(x) if is_backwards else x
            every, last = _over_time(sequence, self.lengths, states, step_of(number))
            outputs.append(self._turned(every) if is_backwards else every)
            lasts.append(last)
        every = tf.stack(outputs, 1)
        final = [tf.stack(parts) for parts in zip(*lasts, strict=True)]
        if self.layout:
            every, final = tf.transpose(every, [2, 0, 1, 3]), [tf.transpose(each, [1, 0, 2]) for each in final]
        return every, *final

    def _first(self, value: Any, number: int, batch: Any, x: Any) -> Any:
        if value is None:
            return tf.zeros(tf.stack([batch, self.hidden]), x.dtype)
        return value[:, number] if self.layout else value[number]

    def _turned(self, x: Any) -> Any:
        if self.lengths is None:
            return tf.reverse(x, [0])
        return tf.reverse_sequence(x, self.lengths, seq_axis=0, batch_axis=1)


def _over_time(x: Any, lengths: Any, states: list[Any], step: TimeStep) -> tuple[Any, list[Any]]:
    """Loop over axis 0. Past the length of a sequence its output is zero and its state stays."""
    count = tf.shape(x)[0]
    hidden = states[0]
    history = tf.TensorArray(x.dtype, size=count, element_shape=hidden.shape)

    def once(time: Any, states: list[Any], history: Any) -> Any:
        moved = step(x[time], states)
        output = moved[0]
        if lengths is not None:
            goes_on = (time < tf.cast(lengths, time.dtype))[:, None]
            output = tf.where(goes_on, output, tf.zeros_like(output))
            moved = [tf.where(goes_on, new, old) for new, old in zip(moved, states, strict=True)]
        for new, old in zip(moved, states, strict=True):
            new.set_shape(old.shape)
        return time + 1, moved, history.write(time, output)

    _, states, history = tf.while_loop(lambda time, *_: time < count, once, (tf.constant(0), states, history))
    every = history.stack()
    every.set_shape([x.shape[0], *hidden.shape])
    return every, states


def _functions(
    names: Any, alphas: Any, betas: Any, defaults: tuple[str, ...], direction: str
) -> list[list[Callable[[Any], Any]]]:
    """Return the activations of each direction."""
    chosen = activations_of(names, alphas, betas, defaults=defaults, directions=direction_count(direction))
    return [[partial(_ACTIVATIONS[each.name], **each.parameters) for each in of_direction] for of_direction in chosen]


def _clipped(x: Any, clip: float | None) -> Any:
    return x if clip is None else tf.clip_by_value(x, -clip, clip)


def _biases(bias: Any, direction: int, gates: int, hidden: Any) -> tuple[Any, Any]:
    """Return those of the input and of the recurrence: numbers where there are none.

    Adding a vector of zeros instead is folded to an empty tensor inside of a loop (TensorFlow 2.21's grappler).
    """
    if bias is None:
        return 0.0, 0.0
    return bias[direction, : gates * hidden], bias[direction, gates * hidden :]


def _plus(x: Any, bias: Any) -> Any:
    return x if isinstance(bias, float) else x + bias


@lowers("RNN", since=7)
def rnn(
    x: Any,
    weight: Any,
    recurrence: Any,
    bias: Any = None,
    lengths: Any = None,
    initial: Any = None,
    *,
    activation_alpha: Any = None,
    activation_beta: Any = None,
    activations: Any = None,
    clip: float | None = None,
    direction: str = "forward",
    hidden_size: int | None = None,
    layout: int = 0,
) -> Any:
    """h = f(x W' + h R' + b)."""
    hidden = extents_of(recurrence)[-1]
    functions = _functions(activations, activation_alpha, activation_beta, ("tanh",), direction)

    def step_of(number: int) -> TimeStep:
        (f,) = functions[number]
        inner, outer = _biases(bias, number, 1, hidden)

        def step(value: Any, states: Sequence[Any]) -> list[Any]:
            total = _plus(tf.matmul(value, weight[number], transpose_b=True), inner)
            total += _plus(tf.matmul(states[0], recurrence[number], transpose_b=True), outer)
            return [f(_clipped(total, clip))]

        return step

    layer = _Layer(x=x, lengths=lengths, initial=[initial], direction=direction, layout=layout, hidden=hidden)
    return layer.run(step_of)


@lowers("GRU", since=7)
def gru(
    x: Any,
    weight: Any,
    recurrence: Any,
    bias: Any = None,
    lengths: Any = None,
    initial: Any = None,
    *,
    activation_alpha: Any = None,
    activation_beta: Any = None,
    activations: Any = None,
    clip: float | None = None,
    direction: str = "forward",
    hidden_size: int | None = None,
    layout: int = 0,
    linear_before_reset: int = 0,
) -> Any:
    """Gates z (update), r (reset), h, in this order; the reset comes before or after the recurrence's product."""
    hidden = extents_of(recurrence)[-1]
    functions = _functions(activations, activation_alpha, activation_beta, ("sigmoid", "tanh"), direction)

    def step_of(number: int) -> TimeStep:
        f, g = functions[number]
        inner, outer = _biases(bias, number, 3, hidden)
        outer = (outer, outer) if bias is None else (outer[: 2 * hidden], outer[2 * hidden :])
        of_gates, of_hidden = recurrence[number, : 2 * hidden], recurrence[number, 2 * hidden :]

        def step(value: Any, states: Sequence[Any]) -> list[Any]:
            before = states[0]
            projected = _plus(tf.matmul(value, weight[number], transpose_b=True), inner)
            gates = _plus(tf.matmul(before, of_gates, transpose_b=True), outer[0]) + projected[:, : 2 * hidden]
            gates = f(_clipped(gates, clip))
            update, reset = gates[:, :hidden], gates[:, hidden:]
            if linear_before_reset:
                turned = reset * _plus(tf.matmul(before, of_hidden, transpose_b=True), outer[1])
            else:
                turned = _plus(tf.matmul(reset * before, of_hidden, transpose_b=True), outer[1])
            new = g(_clipped(projected[:, 2 * hidden :] + turned, clip))
            return [(1 - update) * new + update * before]

        return step

    layer = _Layer(x=x, lengths=lengths, initial=[initial], direction=direction, layout=layout, hidden=hidden)
    return layer.run(step_of)


@lowers("LSTM", since=7)
def lstm(
    x: Any,
    weight: Any,
    recurrence: Any,
    bias: Any = None,
    lengths: Any = None,
    initial_hidden: Any = None,
    initial_cell: Any = None,
    peepholes: Any = None,
    *,
    activation_alpha: Any = None,
    activation_beta: Any = None,
    activations: Any = None,
    clip: float | None = None,
    direction: str = "forward",
    hidden_size: int | None = None,
    input_forget: int = 0,
    layout: int = 0,
) -> Any:
    """Gates i, o, f, c, in this order; peepholes let the first three look at the cell."""
    hidden = extents_of(recurrence)[-1]
    functions = _functions(activations, activation_alpha, activation_beta, ("sigmoid", "tanh", "tanh"), direction)

    def step_of(number: int) -> TimeStep:
        f, g, h = functions[number]
        inner, outer = _biases(bias, number, 4, hidden)
        seen = None if peepholes is None else tf.split(peepholes[number], 3)

        def gate(value: Any, which: int, cell: Any) -> Any:
            return f(_clipped(value if seen is None else value + seen[which] * cell, clip))

        def step(value: Any, states: Sequence[Any]) -> list[Any]:
            before, cell = states
            total = _plus(tf.matmul(value, weight[number], transpose_b=True), inner)
            total += _plus(tf.matmul(before, recurrence[number], transpose_b=True), outer)
            entry, exit_, forget, new = tf.split(total, 4, axis=1)
            entry = gate(entry, 0, cell)
            forget = 1 - entry if input_forget else gate(forget, 2, cell)
            cell = forget * cell + entry * g(_clipped(new, clip))
            exit_ = gate(exit_, 1, cell)
            return [exit_ * h(cell), cell]

        return step

    initial = [initial_hidden, initial_cell]
    layer = _Layer(x=x, lengths=lengths, initial=initial, direction=direction, layout=layout, hidden=hidden)
    return layer.run(step_of)

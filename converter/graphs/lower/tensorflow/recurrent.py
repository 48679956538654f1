"""RNN, GRU and LSTM: a loop over the time steps, per direction. Layouts as ONNX has them: [time, batch, width]."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from converter.graphs.lower.tensorflow.framework import extents_of, tf
from converter.graphs.lower.tensorflow.registry import REGISTRY, refuse

lowers = REGISTRY.lowers

# By the names ONNX has for them, in lower case; some take alpha and beta.
_ACTIVATIONS: dict[str, Callable[[Any, float | None, float | None], Any]] = {
    "relu": lambda x, alpha, beta: tf.nn.relu(x),
    "tanh": lambda x, alpha, beta: tf.tanh(x),
    "sigmoid": lambda x, alpha, beta: tf.sigmoid(x),
    "affine": lambda x, alpha, beta: (1.0 if alpha is None else alpha) * x + (beta or 0.0),
    "leakyrelu": lambda x, alpha, beta: tf.nn.leaky_relu(x, 0.01 if alpha is None else alpha),
    "thresholdedrelu": lambda x, alpha, beta: tf.where(x > (1.0 if alpha is None else alpha), x, tf.zeros_like(x)),
    "scaledtanh": lambda x, alpha, beta: (
        (1.0 if alpha is None else alpha) * tf.tanh((1.0 if beta is None else beta) * x)
    ),
    "hardsigmoid": lambda x, alpha, beta: tf.clip_by_value(
        (0.2 if alpha is None else alpha) * x + (0.5 if beta is None else beta), 0, 1
    ),
    "elu": lambda x, alpha, beta: tf.where(x < 0, (1.0 if alpha is None else alpha) * tf.math.expm1(x), x),
    "softsign": lambda x, alpha, beta: tf.nn.softsign(x),
    "softplus": lambda x, alpha, beta: tf.math.softplus(x),
}
_TAKE_ALPHA = ("affine", "leakyrelu", "thresholdedrelu", "scaledtanh", "hardsigmoid", "elu")
_TAKE_BETA = ("affine", "scaledtanh", "hardsigmoid")

Step = Callable[[Any, Sequence[Any]], list[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Layer:
    """The attributes and inputs that all three have in common."""

    x: Any
    lengths: Any
    initial: list[Any]
    direction: str
    layout: int
    hidden: Any

    def run(self, step_of: Callable[[int], Step]) -> Any:
        """Return the states of all times, then the last of each kind of state."""
        refuse(self.direction not in ("forward", "reverse", "bidirectional"), f"direction {self.direction!r}")
        x = tf.transpose(self.x, [1, 0, 2]) if self.layout else tf.convert_to_tensor(self.x)
        batch = extents_of(x)[1]
        outputs, lasts = [], []
        backwards = {"forward": [False], "reverse": [True], "bidirectional": [False, True]}[self.direction]
        for number, is_backwards in enumerate(backwards):
            states = [self._first(value, number, batch, x) for value in self.initial]
            given = self._turned(x) if is_backwards else x
            every, last = _over_time(given, self.lengths, states, step_of(number))
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


def _over_time(x: Any, lengths: Any, states: list[Any], step: Step) -> tuple[Any, list[Any]]:
    """Loop over axis 0. Past the length of a sequence its output is zero and its state stays."""
    count = tf.shape(x)[0]
    hidden = states[0]
    history = tf.TensorArray(x.dtype, size=count, element_shape=hidden.shape)

    def once(time: Any, states: list[Any], history: Any) -> Any:
        moved = step(x[time], states)
        given = moved[0]
        if lengths is not None:
            goes_on = (time < tf.cast(lengths, time.dtype))[:, None]
            given = tf.where(goes_on, given, tf.zeros_like(given))
            moved = [tf.where(goes_on, new, old) for new, old in zip(moved, states, strict=True)]
        for new, old in zip(moved, states, strict=True):
            new.set_shape(old.shape)
        return time + 1, moved, history.write(time, given)

    _, states, history = tf.while_loop(lambda time, *_: time < count, once, (tf.constant(0), states, history))
    every = history.stack()
    every.set_shape([x.shape[0], *hidden.shape])
    return every, states


class _Activations:
    """The functions of one direction, in the order ONNX lists them; each takes the next alpha and beta it needs."""

    def __init__(self, names: Any, alphas: Any, betas: Any, defaults: tuple[str, ...], directions: int) -> None:
        alphas, betas = list(alphas or ()), list(betas or ())
        self._functions = []
        for name in [name.lower() for name in names or defaults * directions]:
            refuse(name not in _ACTIVATIONS, f"activation {name!r}")
            alpha = alphas.pop(0) if name in _TAKE_ALPHA and alphas else None
            beta = betas.pop(0) if name in _TAKE_BETA and betas else None
            self._functions.append((_ACTIVATIONS[name], alpha, beta))
        self._per_direction = len(defaults)

    def of(self, direction: int) -> list[Callable[[Any], Any]]:
        """Return the functions of a direction."""
        first = direction * self._per_direction
        chosen = self._functions[first : first + self._per_direction]
        return [_bound(*each) for each in chosen]


def _bound(function: Any, alpha: float | None, beta: float | None) -> Callable[[Any], Any]:
    return lambda x: function(x, alpha, beta)


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


def _directions(direction: str) -> int:
    return 2 if direction == "bidirectional" else 1


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
    functions = _Activations(activations, activation_alpha, activation_beta, ("tanh",), _directions(direction))

    def step_of(number: int) -> Step:
        (f,) = functions.of(number)
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
    functions = _Activations(
        activations, activation_alpha, activation_beta, ("sigmoid", "tanh"), _directions(direction)
    )

    def step_of(number: int) -> Step:
        f, g = functions.of(number)
        inner, outer = _biases(bias, number, 3, hidden)
        outer = (outer, outer) if bias is None else (outer[: 2 * hidden], outer[2 * hidden :])
        of_gates, of_hidden = recurrence[number, : 2 * hidden], recurrence[number, 2 * hidden :]

        def step(value: Any, states: Sequence[Any]) -> list[Any]:
            before = states[0]
            given = _plus(tf.matmul(value, weight[number], transpose_b=True), inner)
            gates = _plus(tf.matmul(before, of_gates, transpose_b=True), outer[0]) + given[:, : 2 * hidden]
            gates = f(_clipped(gates, clip))
            update, reset = gates[:, :hidden], gates[:, hidden:]
            if linear_before_reset:
                turned = reset * _plus(tf.matmul(before, of_hidden, transpose_b=True), outer[1])
            else:
                turned = _plus(tf.matmul(reset * before, of_hidden, transpose_b=True), outer[1])
            new = g(_clipped(given[:, 2 * hidden :] + turned, clip))
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
    defaults = ("sigmoid", "tanh", "tanh")
    functions = _Activations(activations, activation_alpha, activation_beta, defaults, _directions(direction))

    def step_of(number: int) -> Step:
        f, g, h = functions.of(number)
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

"""RNN, GRU and LSTM: PyTorch's own where it has what the node asks for, else step by step.

In a torch.export over a number of steps that varies, which PyTorch's own would fix, the steps are one `scan`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from converter.graphs.lower.onnx import cells
from converter.graphs.lower.torch.framework import Tensor, torch
from converter.graphs.lower.torch.indexing import reverse_sequence
from converter.graphs.lower.torch.registry import REGISTRY

lowers = REGISTRY.lowers

Activation = Callable[[Any], Any]
Cell = Callable[[Sequence[Activation], Sequence[Any], Any, Sequence[Any]], tuple[Any, ...]]
"""(activations, weights of one direction, one step's input, states) -> states, of which the first is the output."""

_ACTIVATIONS: dict[str, Callable[..., Any]] = {
    "affine": lambda x, alpha, beta: alpha * x + beta,
    "elu": lambda x, alpha: torch.nn.functional.elu(x, alpha),
    "hardsigmoid": lambda x, alpha, beta: torch.clamp(alpha * x + beta, 0, 1),
    "leakyrelu": lambda x, alpha: torch.nn.functional.leaky_relu(x, alpha),
    "relu": lambda x: torch.relu(x),
    "scaledtanh": lambda x, alpha, beta: alpha * torch.tanh(beta * x),
    "sigmoid": lambda x: torch.sigmoid(x),
    "softplus": lambda x: torch.nn.functional.softplus(x),
    "softsign": lambda x: torch.nn.functional.softsign(x),
    "tanh": lambda x: torch.tanh(x),
    "thresholdedrelu": lambda x, alpha: torch.where(x > alpha, x, torch.zeros_like(x)),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Node:
    """What the three have in common."""

    direction: str
    layout: int
    lengths: Any
    activations: list[list[cells.Activation]]
    clip: float | None

    @classmethod
    def of(cls, defaults: Sequence[str], direction: str, layout: int, lengths: Any, **how: Any) -> _Node:
        """Resolve the attributes."""
        count = cells.direction_count(direction)
        chosen = cells.activations_of(
            how["activations"], how["alpha"], how["beta"], defaults=defaults, directions=count
        )
        return cls(direction=direction, layout=layout, lengths=lengths, activations=chosen, clip=how["clip"] or None)

    @property
    def directions(self) -> int:
        """One or two."""
        return len(self.activations)

    def is_plain(self, *names: str) -> bool:
        """Whether each direction has these activations, without lengths and without a clip."""
        is_default = all([each.name for each in of_direction] == [*names] for of_direction in self.activations)
        return self.lengths is None and self.clip is None and is_default

    def is_native(self, x: Any, *names: str) -> bool:
        """Whether PyTorch's own layer computes the same, for every number of steps that the graph takes."""
        return self.is_plain(*names) and not _is_dynamic(x)

    def functions(self, direction: int) -> list[Activation]:
        """The activations of one direction, each clipped before."""
        clip = self.clip

        def function(activation: cells.Activation) -> Activation:
            bare = partial(_ACTIVATIONS[activation.name], **activation.parameters)
            return bare if clip is None else lambda x: bare(x.clamp(-clip, clip))

        return [function(each) for each in self.activations[direction]]

    def started(self, x: Any, initial: Any, hidden: int) -> Any:
        """The initial state, [directions, batch, hidden]; zeros when none is given."""
        if initial is None:
            return x.new_zeros(self.directions, x.shape[1], hidden)
        return initial.transpose(0, 1) if self.layout else initial

    def finished(self, y: Any, states: Sequence[Any], output_count: int) -> Any:
        """[time, directions, batch, hidden] and [directions, batch, hidden] in the layout asked for."""
        if self.layout:
            y, states = y.permute(2, 0, 1, 3), [state.transpose(0, 1) for state in states]
        return (y, *states)[:output_count]

    def run(self, x: Any, cell: Cell, weights: Sequence[Any], starts: Sequence[Any]) -> tuple[Any, list[Any]]:
        """Step through time, in each direction with its own part of each of the weights."""
        outputs, ends = [], []
        for direction in range(self.directions):
            is_backward = self.direction == "reverse" or direction == 1
            sequence = self._reversed(x) if is_backward else x
            stepped = self._scanned if _is_dynamic(x) else self._stepped
            own, state = [each[direction] for each in weights], [start[direction] for start in starts]
            y, end = stepped(sequence, partial(cell, self.functions(direction)), own, state)
            outputs.append(self._reversed(y) if is_backward else y)
            ends.append(end)
        return torch.stack(outputs, 1), [torch.stack(states) for states in zip(*ends, strict=True)]

    def _reversed(self, x: Any) -> Any:
        return x.flip(0) if self.lengths is None else reverse_sequence(x, self.lengths)

    def _stepped(self, x: Any, cell: Any, weights: Any, state: Sequence[Any]) -> tuple[Any, Sequence[Any]]:
        outputs = []
        for step in range(x.shape[0]):
            output, state = self._within(step, self.lengths, cell(weights, x[step], state), state)
            outputs.append(output)
        return torch.stack(outputs) if outputs else x.new_zeros(0, *state[0].shape), state

    def _scanned(self, x: Any, cell: Any, weights: Any, state: Sequence[Any]) -> tuple[Any, Sequence[Any]]:
        from torch._higher_order_ops.scan import scan_op

        def step(*values: Any) -> list[Any]:
            old, (at, each, *rest) = values[: len(state)], values[len(state) :]
            lengths, own = (None, rest) if self.lengths is None else (rest[0], rest[1:])
            output, new = self._within(at, lengths, cell(own, each, old), old)
            return [*new, output.clone()]

        steps = torch.arange(x.shape[0])
        around = (*(() if self.lengths is None else (self.lengths,)), *(each.clone() for each in weights))
        *states, outputs = scan_op(step, [each.clone() for each in state], [steps, x], around)
        return outputs, states

    @staticmethod
    def _within(step: Any, lengths: Any, new: Sequence[Any], old: Sequence[Any]) -> tuple[Any, Sequence[Any]]:
        """Return the output and the states of one step: beyond its length a sequence has zeros, and keeps its state."""
        if lengths is None:
            return new[0], new
        is_within = (step < lengths)[:, None]
        output = torch.where(is_within, new[0], torch.zeros_like(new[0]))
        return output, [torch.where(is_within, *pair) for pair in zip(new, old, strict=True)]


def _is_dynamic(x: Any) -> bool:
    """Whether a torch.export is to hold for any number of steps."""
    return not isinstance(x.shape[0], int)


def _native(node: _Node, function: Any, x: Any, weights: tuple[Any, ...], order: list[int], starts: Any) -> Any:
    """Run PyTorch's own: `order` are ONNX's gates in PyTorch's order."""
    flat = [
        torch.cat([each[direction].chunk(len(order))[gate] for gate in order])
        for direction in range(node.directions)
        for each in weights
    ]
    is_backward = node.direction == "reverse"
    x = x.flip(0) if is_backward else x
    y, *states = function(x, starts, flat, True, 1, 0.0, False, node.directions == 2, False)
    y = y.reshape(y.shape[0], y.shape[1], node.directions, -1).transpose(1, 2)
    return y.flip(0) if is_backward else y, states


def _split_bias(x: Any, w: Any, bias: Any) -> Any:
    bias = x.new_zeros(w.shape[0], 2 * w.shape[1]) if bias is None else bias
    return bias.chunk(2, 1)


@lowers("RNN")
def rnn(
    x: Tensor,
    w: Tensor,
    r: Tensor,
    bias: Tensor = None,
    lengths: Tensor = None,
    initial: Tensor = None,
    *,
    activation_alpha: Any = None,
    activation_beta: Any = None,
    activations: Any = None,
    clip: float = 0.0,
    direction: str = "forward",
    hidden_size: int | None = None,
    layout: int = 0,
    output_sequence: int = 0,
    output_count: int,
) -> Any:
    """H = f(X W + H R + b)."""
    how = {"activations": activations, "alpha": activation_alpha, "beta": activation_beta, "clip": clip}
    node = _Node.of(["tanh"], direction, layout, lengths, **how)
    x = x.transpose(0, 1) if layout else x
    start = node.started(x, initial, r.shape[2])
    of_input, of_state = _split_bias(x, w, bias)
    for name, function in (("tanh", torch.rnn_tanh), ("relu", torch.rnn_relu)):
        if node.is_native(x, name):
            y, states = _native(node, function, x, (w, r, of_input, of_state), [0], start)
            return node.finished(y, states, output_count)
    y, states = node.run(x, _rnn_cell, (w, r, of_input, of_state), [start])
    return node.finished(y, states, output_count)


def _rnn_cell(functions: Sequence[Activation], weights: Sequence[Any], x: Any, state: Sequence[Any]) -> tuple[Any, ...]:
    (f,), (w, r, of_input, of_state) = functions, weights
    return (f(x @ w.t() + of_input + state[0] @ r.t() + of_state),)


@lowers("GRU", since=3)
def gru(
    x: Tensor,
    w: Tensor,
    r: Tensor,
    bias: Tensor = None,
    lengths: Tensor = None,
    initial: Tensor = None,
    *,
    activation_alpha: Any = None,
    activation_beta: Any = None,
    activations: Any = None,
    clip: float = 0.0,
    direction: str = "forward",
    hidden_size: int | None = None,
    layout: int = 0,
    linear_before_reset: int = 0,
    output_sequence: int = 0,
    output_count: int,
) -> Any:
    """Gates z, r, h; the reset gate is applied before, or after, the state's product."""
    how = {"activations": activations, "alpha": activation_alpha, "beta": activation_beta, "clip": clip}
    node = _Node.of(["sigmoid", "tanh"], direction, layout, lengths, **how)
    x = x.transpose(0, 1) if layout else x
    start = node.started(x, initial, r.shape[2])
    of_input, of_state = _split_bias(x, w, bias)
    if node.is_native(x, "sigmoid", "tanh") and linear_before_reset:
        y, states = _native(node, torch.gru, x, (w, r, of_input, of_state), [1, 0, 2], start)
        return node.finished(y, states, output_count)
    cell = partial(_gru_cell, bool(linear_before_reset))
    y, states = node.run(x, cell, (w, r, of_input, of_state), [start])
    return node.finished(y, states, output_count)


def _gru_cell(
    resets_last: bool, functions: Sequence[Activation], weights: Sequence[Any], x: Any, state: Sequence[Any]
) -> tuple[Any, ...]:
    (f, g), (w, r, of_input, of_state), (hidden,) = functions, weights, state
    size = hidden.shape[1]
    z, reset, new = (x @ w.t() + of_input).chunk(3, 1)
    z_state, reset_state = (hidden @ r[: 2 * size].t() + of_state[: 2 * size]).chunk(2, 1)
    z, reset = f(z + z_state), f(reset + reset_state)
    r_hidden, b_hidden = r[2 * size :].t(), of_state[2 * size :]
    from_state = reset * (hidden @ r_hidden + b_hidden) if resets_last else (reset * hidden) @ r_hidden + b_hidden
    return ((1 - z) * g(new + from_state) + z * hidden,)


@lowers("LSTM")
def lstm(
    x: Tensor,
    w: Tensor,
    r: Tensor,
    bias: Tensor = None,
    lengths: Tensor = None,
    initial: Tensor = None,
    initial_cell: Tensor = None,
    peepholes: Tensor = None,
    *,
    activation_alpha: Any = None,
    activation_beta: Any = None,
    activations: Any = None,
    clip: float = 0.0,
    direction: str = "forward",
    hidden_size: int | None = None,
    input_forget: int = 0,
    layout: int = 0,
    output_sequence: int = 0,
    output_count: int,
) -> Any:
    """Gates i, o, f, c; peepholes, where given, in the order i, o, f."""
    how = {"activations": activations, "alpha": activation_alpha, "beta": activation_beta, "clip": clip}
    node = _Node.of(["sigmoid", "tanh", "tanh"], direction, layout, lengths, **how)
    x = x.transpose(0, 1) if layout else x
    starts = [node.started(x, each, r.shape[2]) for each in (initial, initial_cell)]
    of_input, of_state = _split_bias(x, w, bias)
    if node.is_native(x, "sigmoid", "tanh", "tanh") and peepholes is None and not input_forget:
        y, states = _native(node, torch.lstm, x, (w, r, of_input, of_state), [0, 2, 3, 1], starts)
        return node.finished(y, states, output_count)
    weights = (w, r, of_input, of_state, *(() if peepholes is None else (peepholes,)))
    y, states = node.run(x, partial(_lstm_cell, bool(input_forget)), weights, starts)
    return node.finished(y, states, output_count)


def _lstm_cell(
    couples_gates: bool, functions: Sequence[Activation], weights: Sequence[Any], x: Any, state: Sequence[Any]
) -> tuple[Any, ...]:
    (f, g, h), (w, r, of_input, of_state, *peepholes), (hidden, memory) = functions, weights, state
    peeps = peepholes[0].chunk(3) if peepholes else [0.0] * 3
    enter, leave, forget, new = (x @ w.t() + of_input + hidden @ r.t() + of_state).chunk(4, 1)
    enter = f(enter + peeps[0] * memory)
    forget = 1 - enter if couples_gates else f(forget + peeps[2] * memory)
    memory = forget * memory + enter * g(new)
    return f(leave + peeps[1] * memory) * h(memory), memory

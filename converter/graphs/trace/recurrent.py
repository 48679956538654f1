"""nn.LSTM, nn.GRU and nn.RNN as the operators of ONNX that they are, while a module is traced.

torch.export (2.13) writes their steps out one by one, as many as the traced sequence is long. Gates have another order:
an LSTM's are input, forget, cell and output in PyTorch, input, output, forget and cell in ONNX; a GRU's are reset,
update and new, or update, reset and hidden (https://onnx.ai/onnx/operators/onnx__LSTM.html, onnx__GRU.html).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

_GATES = {"LSTM": (0, 3, 1, 2), "GRU": (1, 0, 2), "RNN": (0,)}
_OPERATORS: dict[str, tuple[str, dict[str, Any]]] = {
    "lstm": ("LSTM", {}),
    "gru": ("GRU", {"linear_before_reset": 1}),
    "rnn_tanh": ("RNN", {"activations": ["Tanh"]}),
    "rnn_relu": ("RNN", {"activations": ["Relu"]}),
}


@contextlib.contextmanager
def as_operators() -> Iterator[None]:
    """Trace recurrent modules as one operator a layer. What goes through them meanwhile has the right shape alone.

    Packed sequences and LSTMs with projections stay as they are: ONNX has none.
    """
    from torch.nn.modules.rnn import _VF

    originals = {name: getattr(_VF, name) for name in _OPERATORS}
    for name, original in originals.items():
        setattr(_VF, name, _traced(name, original))
    try:
        yield
    finally:
        for name in originals:
            delattr(_VF, name)


def _traced(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
    operator, attributes = _OPERATORS[name]

    def call(x: Any, state: Any, weights: Any, *rest: Any) -> Any:
        if not isinstance(weights, list) or len(rest) != 6:
            return original(x, state, weights, *rest)
        has_bias, layers, _, _, is_bidirectional, is_batch_first = rest
        states = state if operator == "LSTM" else (state,)
        directions = 2 if is_bidirectional else 1
        kinds = 4 if has_bias else 2
        if len(weights) != layers * directions * kinds:
            return original(x, state, weights, *rest)
        y, finals = x.transpose(0, 1) if is_batch_first else x, []
        for layer in range(layers):
            rows = slice(layer * directions, (layer + 1) * directions)
            own = weights[rows.start * kinds : rows.stop * kinds]
            y, *last = _layer(
                operator, attributes, y, [own[at::kinds] for at in range(kinds)], [s[rows] for s in states]
            )
            finals.append(last)
        joined = [_joined(each) for each in zip(*finals, strict=True)]
        return (y.transpose(0, 1) if is_batch_first else y, *joined)

    return call


def _layer(
    operator: str, attributes: dict[str, Any], x: Any, weights: Sequence[Sequence[Any]], states: Sequence[Any]
) -> tuple[Any, ...]:
    """Return y, [length, batch, directions * size], and the last states, [directions, batch, size]."""
    import torch

    directions, batch, size = states[0].shape
    to_inputs, to_states, *biases = ([_gates_moved(each, operator) for each in kind] for kind in weights)
    bias = torch.stack([torch.cat(pair) for pair in zip(*biases, strict=True)]) if biases else None
    how = {
        **{name: value * directions if isinstance(value, list) else value for name, value in attributes.items()},
        "hidden_size": size,
        "direction": "bidirectional" if directions == 2 else "forward",
    }
    y, *last = torch.onnx.ops.symbolic_multi_out(
        operator,
        (x, torch.stack(to_inputs), torch.stack(to_states), bias, None, *states),
        how,
        dtypes=[x.dtype] * (1 + len(states)),
        shapes=[(x.shape[0], directions, batch, size), *((directions, batch, size) for _ in states)],
    )
    return (y.transpose(1, 2).reshape(x.shape[0], batch, directions * size), *last)


def _gates_moved(weight: Any, operator: str) -> Any:
    import torch

    order = _GATES[operator]
    parts = weight.chunk(len(order))
    return torch.cat([parts[gate] for gate in order]) if len(order) > 1 else weight


def _joined(parts: Sequence[Any]) -> Any:
    import torch

    return torch.cat(list(parts)) if len(parts) > 1 else parts[0]

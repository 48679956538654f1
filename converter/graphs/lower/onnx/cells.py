"""The activations of RNN, GRU and LSTM: https://onnx.ai/onnx/operators/onnx__LSTM.html."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from converter.graphs.lower.registry import refuse

_PARAMETERS: Mapping[str, Mapping[str, float]] = {
    "affine": {"alpha": 1.0, "beta": 0.0},
    "elu": {"alpha": 1.0},
    "hardsigmoid": {"alpha": 0.2, "beta": 0.5},
    "leakyrelu": {"alpha": 0.01},
    "relu": {},
    "scaledtanh": {"alpha": 1.0, "beta": 1.0},
    "sigmoid": {},
    "softplus": {},
    "softsign": {},
    "tanh": {},
    "thresholdedrelu": {"alpha": 1.0},
}
ACTIVATIONS = frozenset(_PARAMETERS)
"""What ONNX has, by its names in lower case."""

DIRECTIONS: Mapping[str, int] = {"forward": 1, "reverse": 1, "bidirectional": 2}
"""How many directions a layer has, by `direction`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Activation:
    """One of ACTIVATIONS, and its own parameters."""

    name: str
    parameters: Mapping[str, float]


def direction_count(direction: str) -> int:
    """Return how many directions `direction` is. Raises GraphError when ONNX has no such one."""
    refuse(direction not in DIRECTIONS, f"direction {direction!r}")
    return DIRECTIONS[direction]


def activations_of(
    names: Sequence[str] | None,
    alphas: Sequence[float] | None,
    betas: Sequence[float] | None,
    *,
    defaults: Sequence[str],
    directions: int,
) -> list[list[Activation]]:
    """Return the activations of each direction. The values of `alphas` and `betas` go to those that take one, in order.

    Raises GraphError for a name that ONNX does not have.
    """
    remaining: Mapping[str, Iterator[float]] = {"alpha": iter(alphas or ()), "beta": iter(betas or ())}
    found = []
    for name in [name.lower() for name in names or [*defaults] * directions]:
        refuse(name not in ACTIVATIONS, f"activation {name!r}")
        parameters = {key: next(remaining[key], default) for key, default in _PARAMETERS[name].items()}
        found.append(Activation(name=name, parameters=parameters))
    count = len(defaults)
    return [found[count * direction : count * (direction + 1)] for direction in range(directions)]

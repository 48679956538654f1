"""Three steps of training, the same in every framework: no dropout, and a loss of all outputs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

STEPS = 3
Outputs = Mapping[str, Any]


def _loss(outputs: Outputs, mean: Callable[[Any], Any]) -> Any:
    return sum(mean((value - 0.5) ** 2) for value in outputs.values())


def of_tensorflow(
    model: Any, optimizer: Any, compute: Callable[[], Outputs], padding_rows: Mapping[str, int] | None = None
) -> Outputs:
    """Train a model of tf_keras or Keras 3, but for rows of tables by a part of their name; return its outputs then."""
    import tensorflow as tf

    def whole(gradient: Any, variable: Any) -> Any:
        """Rows summed first: Keras 3 squares each of several for one row by itself."""
        gradient = tf.convert_to_tensor(gradient)
        row = next((row for part, row in (padding_rows or {}).items() if part in variable.name), None)
        zeros = tf.zeros([1, *variable.shape[1:]])
        return gradient if row is None else tf.tensor_scatter_nd_update(gradient, [[row]], zeros)

    @tf.function
    def step() -> None:
        with tf.GradientTape() as tape:
            loss = _loss(compute(), tf.reduce_mean)
        variables = list(model.trainable_variables)
        gradients = zip(tape.gradient(loss, variables), variables, strict=True)
        optimizer.apply_gradients(
            [(whole(each, variable), variable) for each, variable in gradients if each is not None]
        )

    for _ in range(STEPS):
        step()
    return compute()


def goes_on_in_tensorflow(model: Any, compute: Callable[[], Outputs]) -> tuple[Outputs, Outputs]:
    """Train on, and from the same weights without the optimizer's state; return what is computed in the end."""
    optimizer, weights = model.optimizer, model.get_weights()
    after = of_tensorflow(model, optimizer, compute)
    model.set_weights(weights)
    return after, of_tensorflow(model, type(optimizer).from_config(optimizer.get_config()), compute)


def of_torch(optimizer: Any, compute: Callable[[], Outputs], *, epsilon_of_keras: float | None = None) -> Outputs:
    """Train what the optimizer has, Adam with the epsilon that Keras would have; return what is computed then."""
    import torch

    for _ in range(STEPS):
        if epsilon_of_keras is not None:
            (group,) = optimizer.param_groups
            step = int(optimizer.state[group["params"][0]]["step"]) + 1
            group["eps"] = epsilon_of_keras / math.sqrt(1 - group["betas"][1] ** step)
        optimizer.zero_grad()
        _loss(compute(), torch.mean).backward()
        optimizer.step()
    with torch.no_grad():
        return compute()

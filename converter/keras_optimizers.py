"""Keras 3 optimizers that add epsilon where PyTorch's do, for models converted with `--epsilon exact`.

Import this module before `keras.models.load_model`; it is the only one here that imports Keras by itself. Configs are
those of Keras's own classes. `without_weight_decay` are positions in `model.trainable_variables` that do not decay,
which Keras's own optimizers do not save.

Update rules: torch/optim/adam.py, adamw.py, rmsprop.py and adagrad.py (torch 2.13).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras  # type: ignore[import-untyped]
from keras import ops

_registered = keras.saving.register_keras_serializable(package="ckconv")


def _one_less_power(base: float, exponent: Any) -> Any:
    """Return 1 - base**exponent, precise where that is small."""
    return -ops.expm1(exponent * math.log(base)) if base else ops.ones_like(exponent)


@_registered
class Adam(keras.optimizers.Adam):  # type: ignore[misc]
    """Adam and AMSGrad: epsilon is added to the root of the corrected second moment."""

    def __init__(self, *arguments: Any, without_weight_decay: Sequence[int] = (), **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.without_weight_decay = list(without_weight_decay)

    def build(self, variables: Sequence[Any]) -> None:
        if not self.built and self.without_weight_decay:
            self.exclude_from_weight_decay(var_list=[variables[position] for position in self.without_weight_decay])
        super().build(variables)

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        index = self._get_variable_index(variable)
        first, second = self._momentums[index], self._velocities[index]
        gradient, rate = ops.cast(gradient, variable.dtype), ops.cast(learning_rate, variable.dtype)
        step = ops.cast(self.iterations + 1, variable.dtype)
        self.assign_add(first, ops.multiply(ops.subtract(gradient, first), 1 - self.beta_1))
        self.assign_add(second, ops.multiply(ops.subtract(ops.square(gradient), second), 1 - self.beta_2))
        if self.amsgrad:
            largest = self._velocity_hats[index]
            self.assign(largest, ops.maximum(largest, second))
            second = largest
        root = ops.sqrt(second) / ops.sqrt(_one_less_power(self.beta_2, step))
        size = rate / _one_less_power(self.beta_1, step)
        self.assign_sub(variable, ops.divide(ops.multiply(first, size), ops.add(root, self.epsilon)))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "without_weight_decay": self.without_weight_decay}


@_registered
class AdamW(Adam):
    """AdamW: weights decay before each step, apart from the gradient."""

    def __init__(self, *arguments: Any, weight_decay: float = 0.01, **options: Any) -> None:
        super().__init__(*arguments, weight_decay=weight_decay, **options)


@_registered
class RMSprop(keras.optimizers.RMSprop):  # type: ignore[misc]
    """RMSprop, centered or not: epsilon is added to the root."""

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        index = self._get_variable_index(variable)
        gradient, rate = ops.cast(gradient, variable.dtype), ops.cast(learning_rate, variable.dtype)
        square = self._velocities[index]
        self.assign(square, ops.add(self.rho * square, (1 - self.rho) * ops.square(gradient)))
        variance = square
        if self.centered:
            average = self._average_gradients[index]
            self.assign(average, ops.add(self.rho * average, (1 - self.rho) * gradient))
            variance = square - ops.square(average)
        update = ops.divide(ops.multiply(rate, gradient), ops.add(ops.sqrt(variance), self.epsilon))
        if self.momentum > 0:
            momentum = self._momentums[index]
            self.assign(momentum, ops.add(self.momentum * momentum, update))
            update = momentum
        self.assign_sub(variable, update)


@_registered
class Adagrad(keras.optimizers.Adagrad):  # type: ignore[misc]
    """Adagrad: epsilon is added to the root."""

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        gradient, rate = ops.cast(gradient, variable.dtype), ops.cast(learning_rate, variable.dtype)
        total = self._accumulators[self._get_variable_index(variable)]
        self.assign_add(total, ops.square(gradient))
        self.assign_sub(variable, ops.divide(ops.multiply(rate, gradient), ops.add(ops.sqrt(total), self.epsilon)))

"""Losses over class indices, and the steps of optimizers (ai.onnx.preview.training)."""

from __future__ import annotations

from typing import Any

from converter.graphs.lower.tensorflow.framework import rank_of, tf
from converter.graphs.lower.tensorflow.registry import REGISTRY, refuse

lowers = REGISTRY.lowers
_TRAINING = "ai.onnx.preview.training"


@lowers("NegativeLogLikelihoodLoss", since=12)
def negative_log_likelihood_loss(
    x: Any, target: Any, weight: Any = None, *, ignore_index: int | None = None, reduction: str = "mean"
) -> Any:
    """x is [n, classes, ...] of log probabilities; ignored targets have weight zero."""
    refuse(reduction not in ("none", "sum", "mean"), f"reduction {reduction!r}")
    x, target = tf.convert_to_tensor(x), tf.convert_to_tensor(target)
    is_counted = tf.ones_like(target, tf.bool) if ignore_index is None else tf.not_equal(target, ignore_index)
    chosen = tf.where(is_counted, target, tf.zeros_like(target))
    last = tf.transpose(x, [0, *range(2, rank_of(x)), 1])
    picked = tf.gather(last, chosen, batch_dims=rank_of(target))
    weights = tf.ones_like(picked) if weight is None else tf.gather(weight, chosen)
    weights = tf.where(is_counted, weights, tf.zeros_like(weights))
    losses = -picked * weights
    if reduction == "none":
        return losses
    total = tf.reduce_sum(losses)
    return total if reduction == "sum" else total / tf.reduce_sum(weights)


@lowers("SoftmaxCrossEntropyLoss", since=12)
def softmax_cross_entropy_loss(
    scores: Any, labels: Any, weights: Any = None, *, ignore_index: int | None = None, reduction: str = "mean"
) -> Any:
    """The loss, and the log probabilities it is taken from."""
    last = rank_of(scores) - 1
    there, back = [0, *range(2, last + 1), 1], [0, last, *range(1, last)]
    logarithms = tf.transpose(tf.nn.log_softmax(tf.transpose(scores, there)), back)
    loss = negative_log_likelihood_loss(logarithms, labels, weights, ignore_index=ignore_index, reduction=reduction)
    return loss, logarithms


def _of_each(step: Any, values: tuple[Any, ...], kinds: int) -> Any:
    """Apply a step to each of the tensors whose x, gradient and states lie in groups after each other."""
    count = len(values) // kinds
    results = [step(*(values[kind * count + each] for kind in range(kinds))) for each in range(count)]
    return tuple(value for group in zip(*results, strict=True) for value in group)


@lowers("Adagrad", domain=_TRAINING)
def adagrad(
    rate: Any, time: Any, *values: Any, decay_factor: float = 0.0, epsilon: float = 1e-6, norm_coefficient: float = 0.0
) -> Any:
    """Returns the new values of all tensors, then their new squared gradients."""
    rate = rate / (1 + tf.cast(time, tf.float32) * decay_factor)

    def step(x: Any, gradient: Any, squares: Any) -> Any:
        gradient = norm_coefficient * x + gradient
        squares = squares + gradient * gradient
        return x - rate * gradient / (tf.sqrt(squares) + epsilon), squares

    return _of_each(step, values, 3)


@lowers("Momentum", domain=_TRAINING)
def momentum(rate: Any, time: Any, *values: Any, alpha: float, beta: float, mode: str, norm_coefficient: float) -> Any:
    """Returns the new values of all tensors, then their new velocities."""
    refuse(mode not in ("standard", "nesterov"), f"Momentum mode {mode!r}")
    factor = tf.where(tf.greater(time, 0), tf.constant(beta, tf.float32), 1.0)

    def step(x: Any, gradient: Any, velocity: Any) -> Any:
        gradient = norm_coefficient * x + gradient
        velocity = alpha * velocity + factor * gradient
        return x - rate * (velocity if mode == "standard" else gradient + alpha * velocity), velocity

    return _of_each(step, values, 3)


@lowers("Adam", domain=_TRAINING)
def adam(
    rate: Any,
    time: Any,
    *values: Any,
    alpha: float = 0.9,
    beta: float = 0.999,
    epsilon: float = 1e-8,
    norm_coefficient: float = 0.0,
    norm_coefficient_post: float = 0.0,
) -> Any:
    """Returns the new values of all tensors, then their new averages, then the averages of their squares."""
    steps = tf.cast(time, tf.float32)
    corrected = rate * tf.sqrt(1 - beta**steps) / (1 - alpha**steps)
    rate = tf.where(tf.greater(time, 0), corrected, rate)

    def step(x: Any, gradient: Any, mean: Any, square: Any) -> Any:
        gradient = norm_coefficient * x + gradient
        mean = alpha * mean + (1 - alpha) * gradient
        square = beta * square + (1 - beta) * gradient * gradient
        moved = x - rate * mean / (tf.sqrt(square) + epsilon)
        return (1 - norm_coefficient_post) * moved, mean, square

    return _of_each(step, values, 4)

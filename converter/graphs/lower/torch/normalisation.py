"""Operators that normalise, and those that make probabilities."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import replace
from typing import Any

from converter.graphs.lower.steps import Step
from converter.graphs.lower.torch.framework import Tensor, axis_of, product, torch
from converter.graphs.lower.torch.registry import REGISTRY

lowers = REGISTRY.lowers


def _of_matrix(function: Any, x: Any, axis: int) -> Any:
    """Before opset 13 all axes from `axis` on were one."""
    axis = axis_of(axis, x)
    return function(x.reshape([product(x.shape[:axis]), product(x.shape[axis:])]), 1).reshape(x.shape)


def _hardmax(x: Any, axis: int) -> Any:
    return torch.zeros_like(x).scatter(axis, torch.argmax(x, axis, keepdim=True), 1.0)


@lowers("Softmax", since=13)
def softmax(x: Tensor, *, axis: int = -1) -> Any:
    """Along one axis."""
    return torch.softmax(x, axis)


@lowers("LogSoftmax", since=13)
def log_softmax(x: Tensor, *, axis: int = -1) -> Any:
    """Along one axis."""
    return torch.log_softmax(x, axis)


@lowers("Hardmax", since=13)
def hardmax(x: Tensor, *, axis: int = -1) -> Any:
    """One where the first of the largest is, zero elsewhere."""
    return _hardmax(x, axis)


@lowers("Softmax")
def softmax_of_matrix(x: Tensor, *, axis: int = 1) -> Any:
    """Of a matrix, before opset 13."""
    return _of_matrix(torch.softmax, x, axis)


@lowers("LogSoftmax")
def log_softmax_of_matrix(x: Tensor, *, axis: int = 1) -> Any:
    """Of a matrix, before opset 13."""
    return _of_matrix(torch.log_softmax, x, axis)


@lowers("Hardmax")
def hardmax_of_matrix(x: Tensor, *, axis: int = 1) -> Any:
    """Of a matrix, before opset 13."""
    return _of_matrix(_hardmax, x, axis)


def _stashed(x: Any, stash_type: int) -> Any:
    return x.to(torch.float32) if stash_type == 1 and x.itemsize < 4 else x


@lowers("LayerNormalization", since=17)
def layer_normalization(
    x: Tensor,
    scale: Tensor,
    bias: Tensor = None,
    *,
    axis: int = -1,
    epsilon: float = 1e-5,
    stash_type: int = 1,
    output_count: int,
) -> Any:
    """Over the axes from `axis` on; also the mean and the inverse standard deviation."""
    axis = axis_of(axis, x)
    if output_count == 1 and scale.ndim == x.ndim - axis and (bias is None or bias.ndim == scale.ndim):
        static = all(isinstance(extent, int) for extent in scale.shape)
        if static and list(scale.shape) == list(x.shape[axis:]) and scale.dtype == x.dtype:
            return torch.nn.functional.layer_norm(x, list(scale.shape), scale, bias, epsilon)
    wide, axes = _stashed(x, stash_type), list(range(axis, x.ndim))
    variance, mean = torch.var_mean(wide, axes, correction=0, keepdim=True)
    inverse = torch.rsqrt(variance + epsilon)
    normal = ((wide - mean) * inverse).to(x.dtype) * scale
    return (normal if bias is None else normal + bias, mean, inverse)[:output_count]


@lowers("RMSNormalization", since=23)
def rms_normalization(x: Tensor, scale: Tensor, *, axis: int = -1, epsilon: float = 1e-5, stash_type: int = 1) -> Any:
    """By the root of the mean square over the axes from `axis` on."""
    wide = _stashed(x, stash_type)
    square = (wide * wide).mean(list(range(axis_of(axis, x), x.ndim)), keepdim=True)
    return (wide * torch.rsqrt(square + epsilon)).to(x.dtype) * scale


def with_fixed_statistics(steps: tuple[Step, ...], fixed: Container[str | None]) -> tuple[Step, ...]:
    """Return steps of which those that normalise by statistics in `fixed`, which take no gradient, say so.

    A graph computes others for the layer normalization of Keras, whose gradient goes through them.
    """
    return tuple(
        replace(step, attributes={**step.attributes, "is_fixed": True})
        if step.operator.op_type == "BatchNormalization" and all(name in fixed for name in step.inputs[3:5])
        else step
        for step in steps
    )


def _per_channel(x: Any, values: Any) -> Any:
    return values.reshape([1, -1] + [1] * (x.ndim - 2))


@lowers("BatchNormalization", since=14)
def batch_normalization(
    x: Tensor,
    scale: Tensor,
    bias: Tensor,
    mean: Tensor,
    variance: Tensor,
    *,
    epsilon: float = 1e-5,
    momentum: float = 0.9,
    training_mode: int = 0,
    is_fixed: bool = False,
    output_count: int,
) -> Any:
    """By the running statistics; in training mode by the batch's, with the new running ones."""
    if not training_mode:
        if is_fixed and all(each.dtype == x.dtype for each in (scale, bias, mean, variance)) and x.ndim > 1:
            return torch.nn.functional.batch_norm(x, mean, variance, scale, bias, False, 0.0, epsilon)
        inverse = torch.rsqrt(_per_channel(x, variance) + epsilon)
        normal = (x - _per_channel(x, mean)) * inverse * _per_channel(x, scale) + _per_channel(x, bias)
        return normal.to(x.dtype)
    axes = [axis for axis in range(x.ndim) if axis != 1]
    new_variance, new_mean = torch.var_mean(x, axes, correction=0)
    normal = (x - _per_channel(x, new_mean)) * torch.rsqrt(_per_channel(x, new_variance) + epsilon)
    normal = normal * _per_channel(x, scale) + _per_channel(x, bias)
    running = (
        mean * momentum + new_mean * (1 - momentum),
        variance * momentum + new_variance * (1 - momentum),
    )
    return (normal, *running)[:output_count]


@lowers("BatchNormalization")
def batch_normalization_at_first(
    x: Tensor,
    scale: Tensor,
    bias: Tensor,
    mean: Tensor,
    variance: Tensor,
    *,
    epsilon: float = 1e-5,
    momentum: float = 0.9,
    spatial: int = 1,
    is_test: int = 1,
    consumed_inputs: Any = (),
    is_fixed: bool = False,
    output_count: int,
) -> Any:
    """For inference, before opset 14; without `spatial` each place of a channel has statistics of its own."""
    if not spatial:
        return (x - mean) * torch.rsqrt(variance + epsilon) * scale + bias
    return batch_normalization(x, scale, bias, mean, variance, epsilon=epsilon, is_fixed=is_fixed, output_count=1)


@lowers("InstanceNormalization")
def instance_normalization(
    x: Tensor, scale: Tensor, bias: Tensor, *, epsilon: float = 1e-5, consumed_inputs: Any = ()
) -> Any:
    """Over the spatial axes of each channel."""
    variance, mean = torch.var_mean(x, list(range(2, x.ndim)), correction=0, keepdim=True)
    return (x - mean) * torch.rsqrt(variance + epsilon) * _per_channel(x, scale) + _per_channel(x, bias)


@lowers("GroupNormalization", since=21)
def group_normalization(
    x: Tensor, scale: Tensor, bias: Tensor, *, epsilon: float = 1e-5, num_groups: int, stash_type: int = 1
) -> Any:
    """Over the channels of each group; one scale per channel."""
    return torch.nn.functional.group_norm(x, num_groups, scale, bias, epsilon)


@lowers("GroupNormalization", since=18)
def group_normalization_by_group(
    x: Tensor, scale: Tensor, bias: Tensor, *, epsilon: float = 1e-5, num_groups: int
) -> Any:
    """One scale per group, before opset 21."""
    repeats = x.shape[1] // num_groups
    scale, bias = (each.repeat_interleave(repeats) for each in (scale, bias))
    return torch.nn.functional.group_norm(x, num_groups, scale, bias, epsilon)


@lowers("LpNormalization")
def lp_normalization(x: Tensor, *, axis: int = -1, p: int = 2) -> Any:
    """By the p-norm along an axis; what has the norm zero stays zero."""
    norm = torch.linalg.vector_norm(x, p, dim=axis, keepdim=True)
    return torch.where(norm == 0, torch.zeros_like(x), x / torch.where(norm == 0, 1.0, norm).to(x.dtype))


@lowers("MeanVarianceNormalization", since=9)
def mean_variance_normalization(x: Tensor, *, axes: Any = (0, 2, 3)) -> Any:
    """To mean zero and variance one."""
    variance, mean = torch.var_mean(x, list(axes), correction=0, keepdim=True)
    return (x - mean) / (torch.sqrt(variance) + 1e-9)


@lowers("LRN")
def local_response_normalization(
    x: Tensor, *, alpha: float = 1e-4, beta: float = 0.75, bias: float = 1.0, size: int
) -> Any:
    """By the squares of the channels around."""
    before = (size - 1) // 2
    pads = [0, 0] * (x.ndim - 2) + [before, size - 1 - before]
    squares = torch.nn.functional.pad(x * x, pads).unfold(1, size, 1).sum(-1)
    return x / (bias + alpha / size * squares) ** beta


@lowers("Dropout", since=12)
def dropout(
    x: Tensor, ratio: Tensor = None, training_mode: Tensor = None, *, seed: int | None = None, output_count: int
) -> Any:
    """Nothing but in training mode; also which elements were kept."""
    kept = torch.ones_like(x, dtype=torch.bool)
    if training_mode is not None and ratio is not None and bool(training_mode):
        chance = float(ratio)
        kept = torch.rand(x.shape) >= chance
        x = torch.where(kept, x / (1 - chance), torch.zeros_like(x)) if chance < 1 else torch.zeros_like(x)
    return (x, kept)[:output_count]


@lowers("Dropout")
def dropout_for_inference(
    x: Tensor, *, ratio: float = 0.5, is_test: int = 1, consumed_inputs: Any = (), output_count: int
) -> Any:
    """Nothing, before opset 12."""
    return (x, torch.ones_like(x, dtype=torch.bool))[:output_count]

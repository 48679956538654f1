"""Losses over class indices."""

from __future__ import annotations

from typing import Any

from converter.graphs.lower.torch.framework import Tensor, torch
from converter.graphs.lower.torch.registry import REGISTRY

lowers = REGISTRY.lowers


@lowers("NegativeLogLikelihoodLoss", since=12)
def negative_log_likelihood_loss(
    x: Tensor, target: Tensor, weight: Tensor = None, *, ignore_index: int | None = None, reduction: str = "mean"
) -> Any:
    """Of log-probabilities, the classes along axis 1; the mean is weighted."""
    # An ignored class is never looked up, whatever its number.
    ignored = torch.zeros_like(target, dtype=torch.bool) if ignore_index is None else target == ignore_index
    classes = torch.where(ignored, 0, target).to(torch.int64)
    weights = torch.ones_like(classes, dtype=x.dtype) if weight is None else weight[classes].to(x.dtype)
    weights = torch.where(ignored, torch.zeros_like(weights), weights)
    losses = -torch.gather(x, 1, classes.unsqueeze(1)).squeeze(1) * weights
    if reduction == "none":
        return losses
    return losses.sum() if reduction == "sum" else losses.sum() / weights.sum()


@lowers("SoftmaxCrossEntropyLoss", since=12)
def softmax_cross_entropy_loss(
    x: Tensor,
    target: Tensor,
    weight: Tensor = None,
    *,
    ignore_index: int | None = None,
    reduction: str = "mean",
    output_count: int,
) -> Any:
    """Of scores; also the log-probabilities."""
    logarithms = torch.log_softmax(x, 1)
    loss = negative_log_likelihood_loss(logarithms, target, weight, ignore_index=ignore_index, reduction=reduction)
    return (loss, logarithms)[:output_count]

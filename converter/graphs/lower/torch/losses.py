"""Losses, and what detectors do last."""

from __future__ import annotations

from typing import Any

from converter.graphs.lower.onnx.boxes import corners
from converter.graphs.lower.torch.framework import Int, Tensor, torch
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


@lowers("NonMaxSuppression", since=10)
def non_max_suppression(
    boxes: Tensor,
    scores: Tensor,
    limit: Int = None,
    overlap: Tensor = None,
    least: Tensor = None,
    *,
    center_point_box: int = 0,
) -> Any:
    """Batch, class and number of the boxes kept: the best first, none that overlaps a better one too much."""
    threshold = 0.0 if overlap is None else float(overlap)
    found: list[list[int]] = []
    for batch in range(boxes.shape[0]):
        given = corners(boxes[batch], is_centred=bool(center_point_box), least=torch.minimum, largest=torch.maximum)
        boxed = torch.stack(given, 1)
        for kind in range(scores.shape[1]):
            kept: list[int] = []
            order = torch.argsort(scores[batch, kind], descending=True, stable=True).tolist()
            for number in order:
                if len(kept) >= (limit or 0) or (least is not None and scores[batch, kind, number] <= least):
                    break
                if not kept or float(_overlaps(boxed[number], boxed[kept]).max()) <= threshold:
                    kept.append(number)
            found += [[batch, kind, number] for number in kept]
    return torch.tensor(found, dtype=torch.int64).reshape(-1, 3)


def _overlaps(box: Any, others: Any) -> Any:
    """Intersection over union."""
    common = (box[1].minimum(others[:, 1]) - box[0].maximum(others[:, 0])).clamp(min=0).prod(1)
    union = (box[1] - box[0]).prod() + (others[:, 1] - others[:, 0]).prod(1) - common
    return torch.where(union > 0, common / union, torch.zeros_like(common))

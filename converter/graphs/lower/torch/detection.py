"""Boxes: which to keep, and what lies in them."""

from __future__ import annotations

from typing import Any

from converter.graphs.lower.onnx.boxes import corners
from converter.graphs.lower.torch.framework import Int, Tensor, torch
from converter.graphs.lower.torch.registry import REGISTRY, refuse

lowers = REGISTRY.lowers


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
        edges = corners(boxes[batch], is_centred=bool(center_point_box), least=torch.minimum, largest=torch.maximum)
        boxed = torch.stack(edges, 1)
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


@lowers("RoiAlign", since=16)
def roi_align(
    x: Tensor,
    rois: Tensor,
    batch_indices: Tensor,
    *,
    coordinate_transformation_mode: str = "half_pixel",
    mode: str = "avg",
    output_height: int = 1,
    output_width: int = 1,
    sampling_ratio: int = 0,
    spatial_scale: float = 1.0,
) -> Any:
    """Each region in bins, each bin the mean (largest) of bilinear samples.

    How many samples depends on the size of the region, unless `sampling_ratio` says.
    """
    shift = 0.5 if coordinate_transformation_mode == "half_pixel" else 0.0
    refuse(sampling_ratio == 0 and torch.compiler.is_exporting(), "RoiAlign with sampling_ratio=0 in a torch.export")
    found = []
    for position in range(rois.shape[0]):
        left, top, right, bottom = (rois[position] * spatial_scale - shift).unbind()
        width, height = right - left, bottom - top
        if not shift:
            width, height = width.clamp(min=1), height.clamp(min=1)
        bins = (height / output_height, width / output_width)
        counts = [sampling_ratio or max(int(torch.ceil(each)), 1) for each in bins]
        image = x[batch_indices[position].to(torch.int64)]
        rows = _bin_positions(top, bins[0], output_height, counts[0])
        columns = _bin_positions(left, bins[1], output_width, counts[1])
        samples = _bilinear(image, rows, columns, is_largest=mode == "max")
        samples = samples.reshape(-1, output_height, counts[0], output_width, counts[1])
        found.append(samples.amax((2, 4)) if mode == "max" else samples.mean((2, 4)))
    return torch.stack(found) if found else x.new_zeros(0, x.shape[1], output_height, output_width)


@lowers("RoiAlign", since=10)
def roi_align_unshifted(x: Tensor, rois: Tensor, batch_indices: Tensor, **how: Any) -> Any:
    """Without the shift by half a pixel, before opset 16."""
    return roi_align(x, rois, batch_indices, coordinate_transformation_mode="output_half_pixel", **how)


def _bin_positions(start: Any, size: Any, bins: int, samples: int) -> Any:
    within = (torch.arange(samples) + 0.5) / samples
    return (start + (torch.arange(bins)[:, None] + within[None, :]) * size).reshape(-1)


def _bilinear(image: Any, rows: Any, columns: Any, *, is_largest: bool) -> Any:
    """Samples at all pairs; more than a pixel outside is zero. For a maximum ONNX takes that of the weighted four."""
    (low, high, part), (left, right, across) = (
        _neighbours(each, extent) for each, extent in zip((rows, columns), image.shape[1:], strict=True)
    )
    part, across = part[:, None], across[None, :]
    corners = (
        image[:, low][:, :, left] * (1 - part) * (1 - across),
        image[:, low][:, :, right] * (1 - part) * across,
        image[:, high][:, :, left] * part * (1 - across),
        image[:, high][:, :, right] * part * across,
    )
    inside = [(each >= -1) & (each <= extent) for each, extent in zip((rows, columns), image.shape[1:], strict=True)]
    found = torch.stack(corners).amax(0) if is_largest else torch.stack(corners).sum(0)
    return torch.where(inside[0][:, None] & inside[1][None, :], found, torch.zeros_like(found))


def _neighbours(positions: Any, extent: Any) -> tuple[Any, Any, Any]:
    positions = positions.clamp(min=0)
    low = positions.to(torch.int64).clamp(max=extent - 1)
    return low, (low + 1).clamp(max=extent - 1), torch.where(low >= extent - 1, 0, positions - low)

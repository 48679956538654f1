"""What one output of Resize is a weighted sum of: https://onnx.ai/onnx/operators/onnx__Resize.html."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from converter.graphs.lower.onnx.resizing import POSITIONS, REACHES, ROUNDINGS, ResizedAxis, cubic_weight
from converter.graphs.lower.torch.framework import torch


@dataclass(frozen=True, slots=True, kw_only=True)
class Resampling:
    """How an axis is resampled."""

    mode: str
    coordinates: str
    nearest_mode: str
    cubic: float
    is_antialiased: bool
    excludes_outside: bool

    def along(self, x: Any, axis: int, size: Any, factor: Any, region: tuple[float, float] | None) -> tuple[Any, Any]:
        """Return `x` with `size` along `axis`, and which positions lay outside the input."""
        extent = x.shape[axis]
        begin, end = region or (0.0, 1.0)
        resized = ResizedAxis(extent=extent, size=size, length=factor * extent, scale=factor, begin=begin, end=end)
        is_single = isinstance(size, int) and size == 1
        at = torch.arange(size).to(torch.float32)
        positions = POSITIONS[self.coordinates](at, resized, lambda one, more: one() if is_single else more())
        outside = (positions < 0) | (positions > extent - 1)
        if self.mode == "nearest":
            nearest = ROUNDINGS[self.nearest_mode](positions, torch.floor, torch.ceil)
            return x.index_select(axis, nearest.to(torch.int64).clamp(0).clamp(max=extent - 1)), outside
        first, weights = self._weights(positions, factor)
        taps = first[:, None] + torch.arange(weights.shape[1])
        if self.excludes_outside:
            weights = torch.where((taps < 0) | (taps >= extent), 0.0, weights)
            weights = weights / weights.sum(1, keepdim=True)
        taps = taps.clamp(min=0).clamp(max=extent - 1)
        shape = [-1 if each == axis else 1 for each in range(x.ndim)]
        parts = [
            x.index_select(axis, taps[:, tap]) * weights[:, tap].to(x.dtype).reshape(shape)
            for tap in range(weights.shape[1])
        ]
        return sum(parts[1:], parts[0]), outside

    def _weights(self, positions: Any, factor: Any) -> tuple[Any, Any]:
        """Return for each position of the result the first input that weighs, and the weights from there on."""
        is_wide = self.is_antialiased and factor < 1
        reach, scale = REACHES[self.mode], (factor if is_wide else 1.0)
        begin = math.floor(-reach / scale) + 1
        # The position lies after the input before it, or at the one after: 0 < ratio <= 1.
        left = torch.ceil(positions) - 1
        ratio = positions - left
        taps = torch.arange(begin, 2 - begin)
        distance = ((taps[None, :] - ratio[:, None]) * scale).abs()
        weights = (
            (1 - distance).clamp(min=0) if self.mode == "linear" else cubic_weight(distance, self.cubic, torch.where)
        )
        weights = weights / weights.sum(1, keepdim=True) if is_wide else weights
        return left.to(torch.int64) + begin, weights

"""What one output of Resize is a weighted sum of: https://onnx.ai/onnx/operators/onnx__Resize.html."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from converter.graphs.lower.registry import refuse
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
        positions = self._positions(torch.arange(size).to(torch.float32), extent, size, factor, region)
        outside = (positions < 0) | (positions > extent - 1)
        if self.mode == "nearest":
            return x.index_select(axis, self._rounded(positions).clamp(0).clamp(max=extent - 1)), outside
        refuse(self.mode not in ("linear", "cubic"), f"Resize mode {self.mode!r}")
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

    def _positions(self, x: Any, extent: Any, size: Any, factor: Any, region: tuple[float, float] | None) -> Any:
        width = factor * extent
        match self.coordinates:
            case "align_corners":
                return x * 0.0 if isinstance(size, int) and size == 1 else x * (extent - 1) / (width - 1)
            case "asymmetric":
                return x / factor
            case "half_pixel":
                return (x + 0.5) / factor - 0.5
            case "pytorch_half_pixel":
                return x - 0.5 if isinstance(size, int) and size == 1 else (x + 0.5) / factor - 0.5
            case "half_pixel_symmetric":
                return extent / 2 * (1 - size / width) + (x + 0.5) / factor - 0.5
            case "tf_crop_and_resize":
                assert region is not None
                start, end = region
                if isinstance(size, int) and size == 1:
                    return x + (start + end) * (extent - 1) / 2
                return x * (end - start) * (extent - 1) / (width - 1) + start * (extent - 1)
        refuse(True, f"Resize coordinates {self.coordinates!r}")
        return None

    def _rounded(self, positions: Any) -> Any:
        match self.nearest_mode:
            case "round_prefer_floor":
                rounded = torch.ceil(positions - 0.5)
            case "round_prefer_ceil":
                rounded = torch.floor(positions + 0.5)
            case "floor":
                rounded = torch.floor(positions)
            case "ceil":
                rounded = torch.ceil(positions)
            case _:
                refuse(True, f"Resize nearest_mode {self.nearest_mode!r}")
        return rounded.to(torch.int64)

    def _weights(self, positions: Any, factor: Any) -> tuple[Any, Any]:
        """The first input of each output, and the weights of it and those after it: one row per output."""
        is_wide = self.is_antialiased and factor < 1
        reach, scale = (1 if self.mode == "linear" else 2), (factor if is_wide else 1.0)
        begin = math.floor(-reach / scale) + 1
        # The position lies after the input before it, or at the one after: 0 < ratio <= 1.
        left = torch.ceil(positions) - 1
        ratio = positions - left
        taps = torch.arange(begin, 2 - begin)
        distance = ((taps[None, :] - ratio[:, None]) * scale).abs()
        weights = (1 - distance).clamp(min=0) if self.mode == "linear" else self._cubic(distance)
        weights = weights / weights.sum(1, keepdim=True) if is_wide else weights
        return left.to(torch.int64) + begin, weights

    def _cubic(self, x: Any) -> Any:
        a = self.cubic
        near = ((a + 2) * x - (a + 3)) * x * x + 1
        far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
        return torch.where(x <= 1, near, torch.where(x < 2, far, 0.0))

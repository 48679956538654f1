"""Boxes of detectors: https://onnx.ai/onnx/operators/onnx__NonMaxSuppression.html."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Pair = Callable[[Any, Any], Any]


def corners(boxes: Any, *, is_centred: bool, least: Pair, largest: Pair) -> tuple[Any, Any]:
    """Return the lower and the upper corner of boxes [..., 4].

    They are a centre and an extent (`is_centred`), or two corners that lie across from one another, in any order.
    """
    first, second = boxes[..., :2], boxes[..., 2:]
    if is_centred:
        return first - second / 2, first + second / 2
    return least(first, second), largest(first, second)

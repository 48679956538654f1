"""Where Resize looks for each position of its result, and how it weighs what it finds there.

Semantics: https://onnx.ai/onnx/operators/onnx__Resize.html.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class ResizedAxis:
    """One axis: numbers, or what a framework has for those that are not known yet.

    `extent`      of the input, `size` of the result
    `length`      of the result, from which positions are reckoned: ONNX's own implementation takes `extent * scale`,
                  onnxruntime and torch take `size`, to which that is rounded
    `scale`       `size / extent`, or what was asked for
    `begin`, `end`   the part of the axis that a region has, of which 1 is all
    """

    extent: Any
    size: Any
    length: Any
    scale: Any
    begin: Any = 0.0
    end: Any = 1.0


Choose = Callable[[Callable[[], Any], Callable[[], Any]], Any]
"""The first of two values where the size of the result is one, else the second: it may not be known yet which."""


def _half_pixel(at: Any, axis: ResizedAxis, choose: Choose) -> Any:
    return (at + 0.5) / axis.scale - 0.5


def _half_pixel_symmetric(at: Any, axis: ResizedAxis, choose: Choose) -> Any:
    return axis.extent / 2 * (1 - axis.size / (axis.scale * axis.extent)) + (at + 0.5) / axis.scale - 0.5


def _pytorch_half_pixel(at: Any, axis: ResizedAxis, choose: Choose) -> Any:
    return choose(lambda: at * 0.0, lambda: (at + 0.5) / axis.scale - 0.5)


def _align_corners(at: Any, axis: ResizedAxis, choose: Choose) -> Any:
    return choose(lambda: at * 0.0, lambda: at * (axis.extent - 1) / (axis.length - 1))


def _asymmetric(at: Any, axis: ResizedAxis, choose: Choose) -> Any:
    return at / axis.scale


def _tf_half_pixel_for_nn(at: Any, axis: ResizedAxis, choose: Choose) -> Any:
    return (at + 0.5) / axis.scale


def _tf_crop_and_resize(at: Any, axis: ResizedAxis, choose: Choose) -> Any:
    last, begin, end = axis.extent - 1, axis.begin, axis.end
    return choose(
        lambda: at * 0.0 + 0.5 * (begin + end) * last,
        lambda: begin * last + at * (end - begin) * last / (axis.length - 1),
    )


POSITIONS: Mapping[str, Callable[[Any, ResizedAxis, Choose], Any]] = {
    "half_pixel": _half_pixel,
    "half_pixel_symmetric": _half_pixel_symmetric,
    "pytorch_half_pixel": _pytorch_half_pixel,
    "align_corners": _align_corners,
    "asymmetric": _asymmetric,
    "tf_half_pixel_for_nn": _tf_half_pixel_for_nn,
    "tf_crop_and_resize": _tf_crop_and_resize,
}
"""Positions in the input of positions in the result, by coordinate_transformation_mode."""

Round = Callable[[Any], Any]
ROUNDINGS: Mapping[str, Callable[[Any, Round, Round], Any]] = {
    "round_prefer_floor": lambda at, floor, ceil: ceil(at - 0.5),
    "round_prefer_ceil": lambda at, floor, ceil: floor(at + 0.5),
    "floor": lambda at, floor, ceil: floor(at),
    "ceil": lambda at, floor, ceil: ceil(at),
}
"""The nearest whole position, by nearest_mode."""

REACHES: Mapping[str, int] = {"nearest": 0, "linear": 1, "cubic": 2}
"""How many positions to either side weigh, by mode."""


def cubic_weight(distance: Any, a: float, where: Callable[[Any, Any, Any], Any]) -> Any:
    """Return the weight of what is so far away; `a` is cubic_coeff_a, `where` chooses element by element."""
    near = ((a + 2) * distance - (a + 3)) * distance * distance + 1
    far = ((a * distance - 5 * a) * distance + 8 * a) * distance - 4 * a
    return where(distance <= 1, near, where(distance < 2, far, distance * 0.0))

"""Where the windows of convolutions and pools lie: strides, dilations and pads of each spatial axis."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from converter.graphs.lower.registry import refuse

AUTO_PADS = frozenset(("", "NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Windows:
    """One entry per spatial axis. `beyond` is what rounding up needs after the pads."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    before: tuple[Any, ...]
    after: tuple[Any, ...]
    beyond: tuple[Any, ...]

    @property
    def is_symmetric(self) -> bool:
        """Whether the padding is the same before and after, as PyTorch's own is."""
        amounts = (*self.before, *self.beyond)
        is_static = all(isinstance(amount, int) and amount >= 0 for amount in amounts)
        return is_static and self.before == self.after and not any(self.beyond)

    @property
    def pads(self) -> list[Any]:
        """The amounts as torch.nn.functional.pad has them: last axis first."""
        return flat(self.before, [each + more for each, more in zip(self.after, self.beyond, strict=True)])


def flat(before: Sequence[Any], after: Sequence[Any]) -> list[Any]:
    """Return amounts of spatial axes as torch.nn.functional.pad has them: last axis first."""
    return [amount for pair in reversed(list(zip(before, after, strict=True))) for amount in pair]


def _larger(a: Any, b: Any) -> Any:
    """Return the larger of two ints, and `a` where an extent is not known: a graph of torch has no maximum of those."""
    return max(a, b) if isinstance(a, int) and isinstance(b, int) else a


def check_auto_pad(auto_pad: str) -> None:
    """Raise GraphError when ONNX has no such `auto_pad`."""
    refuse(auto_pad not in AUTO_PADS, f"auto_pad {auto_pad!r}")


def windows(
    extents: Sequence[Any],
    kernel: Sequence[int],
    *,
    strides: Any,
    dilations: Any,
    pads: Any,
    auto_pad: str,
    ceil_mode: int = 0,
    larger: Callable[[Any, Any], Any] = _larger,
) -> Windows:
    """Return the windows over spatial `extents`, with ONNX's defaults for what is None.

    Extents are ints, or what a framework has for one that is not known yet; `larger` is then its maximum. Raises
    GraphError for an `auto_pad` that ONNX does not have; the empty one is NOTSET, as onnxruntime takes it.
    """
    rank = len(kernel)
    strides = tuple(strides or [1] * rank)
    dilations = tuple(dilations or [1] * rank)
    spans = [(size - 1) * dilation + 1 for size, dilation in zip(kernel, dilations, strict=True)]
    check_auto_pad(auto_pad)
    before: list[Any] = [0] * rank
    after: list[Any] = [0] * rank
    if auto_pad.startswith("SAME"):
        for axis, (extent, stride, span) in enumerate(zip(extents, strides, spans, strict=True)):
            total = larger((-(-extent // stride) - 1) * stride + span - extent, 0)
            less = total // 2
            before[axis], after[axis] = (less, total - less) if auto_pad == "SAME_UPPER" else (total - less, less)
    elif auto_pad != "VALID" and pads:
        before, after = list(pads[:rank]), list(pads[rank:])
    beyond = [0] * rank
    if ceil_mode and not auto_pad.startswith("SAME"):
        beyond = [_beyond(*each) for each in zip(extents, before, after, strides, spans, strict=True)]
    return Windows(
        kernel=tuple(kernel),
        strides=strides,
        dilations=dilations,
        before=tuple(before),
        after=tuple(after),
        beyond=tuple(beyond),
    )


def _beyond(extent: Any, before: Any, after: Any, stride: int, span: int) -> Any:
    """Return how many cells beyond the padding the last window needs when the number of windows is rounded up.

    A window that would begin in the padding after is left out.
    """
    count = -(-(extent + before + after - span) // stride) + 1
    if (count - 1) * stride >= extent + before:
        count = count - 1
    return (count - 1) * stride + span - (extent + before + after)

"""What was done to the layout of a source's tensors on their way into a checkpoint, as far as a graph can undo it.

A dialect that renames a tensor and permutes its axes leaves a graph of the source with another name and layout. A
transpose or a reshape has an inverse that is a node; joining and cutting are left to the caller.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from converter.model.tensor import Cast, ComputedTensor, FileTensor, Reshape, Tensor, Transpose


@dataclass(frozen=True, slots=True, kw_only=True)
class LayoutStep:
    """One node of a graph: "transpose" with axes, or "reshape" with a shape."""

    kind: str
    values: tuple[int, ...]


def steps_back(moved: Tensor, source: Tensor) -> tuple[LayoutStep, ...] | None:
    """Return what makes `source` of `moved`, casts aside; None when it takes more than transposes and reshapes."""
    (core, there), (origin, from_core) = _peeled(moved), _peeled(source)
    if not _is_same(core, origin):
        return None
    while there and from_core and there[0] == from_core[0]:
        there, from_core = there[1:], from_core[1:]
    back = [_inverse(step, shape) for shape, step in reversed(there)]
    if core.shape != origin.shape:
        back.append(LayoutStep(kind="reshape", values=origin.shape))
    return (*back, *(step for _, step in from_core))


def derives_from(tensor: Tensor, sources: Iterable[Tensor]) -> bool:
    """Whether bytes of `tensor` are bytes of one of `sources`."""
    leaves = _leaves(tensor)
    return any(_overlaps(leaf, other) for source in sources for other in _leaves(source) for leaf in leaves)


def _peeled(tensor: Tensor) -> tuple[Tensor, list[tuple[tuple[int, ...], LayoutStep]]]:
    """Return the tensor below transposes, reshapes and casts, and the steps from there, each with its shape before."""
    steps: list[tuple[tuple[int, ...], LayoutStep]] = []
    while isinstance(tensor, ComputedTensor) and isinstance(tensor.operation, Transpose | Reshape | Cast):
        (inner,) = tensor.inputs
        match tensor.operation:
            case Transpose(axes=axes):
                steps.append((inner.shape, LayoutStep(kind="transpose", values=axes)))
            case Reshape(shape=shape):
                steps.append((inner.shape, LayoutStep(kind="reshape", values=shape)))
        tensor = inner
    return tensor, steps[::-1]


def _inverse(step: LayoutStep, shape: tuple[int, ...]) -> LayoutStep:
    if step.kind == "reshape":
        return LayoutStep(kind="reshape", values=shape)
    return LayoutStep(kind="transpose", values=tuple(step.values.index(axis) for axis in range(len(step.values))))


def _is_same(left: Tensor, right: Tensor) -> bool:
    if isinstance(left, FileTensor) and isinstance(right, FileTensor):
        ranges = [(each.file.path, each.offset, each.nbytes, each.dtype) for each in (left, right)]
        return ranges[0] == ranges[1]
    return left is right


def _leaves(tensor: Tensor) -> list[Tensor]:
    if isinstance(tensor, ComputedTensor):
        return [leaf for each in tensor.inputs for leaf in _leaves(each)]
    return [tensor]


def _overlaps(left: Tensor, right: Tensor) -> bool:
    if isinstance(left, FileTensor) and isinstance(right, FileTensor):
        is_apart = left.offset + left.nbytes <= right.offset or right.offset + right.nbytes <= left.offset
        return left.file.path == right.file.path and not is_apart
    return left is right

"""Layouts as patterns that read both ways: ``"y x i o -> o i y x"``, ``"(s c) o -> o (c s)"``.

The notation is that of einops (https://einops.rocks): names are axes, parentheses join axes into one, ``1`` is an axis
of extent one. Keras's layout is on the left and PyTorch's on the right.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from converter.errors import ReadError
from converter.model.tensor import Tensor, concat

_TOKEN = re.compile(r"\(([^()]*)\)|(\S+)")
_GATE = "g"

Side = tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rearrangement:
    """A bijection between two layouts of the same elements.

    `sizes`   extents of axes that shapes alone do not give
    `gates`   the order in which PyTorch has the slices of the axis `g`, None when it is Keras's; its own inverse

    Raises ValueError when the pattern does not name the same axes on both sides, once each.
    """

    pattern: str
    sizes: Mapping[str, int] = field(default_factory=dict)
    gates: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        left, right = (sorted(axis for group in side for axis in group) for side in self._sides())
        if left != right or len(set(left)) != len(left):
            raise ValueError(f"{self.pattern!r} does not read both ways")
        if self.gates is not None and any(self.gates[gate] != index for index, gate in enumerate(self.gates)):
            raise ValueError(f"gate order {self.gates} is not its own inverse")

    def to_torch(self, tensor: Tensor) -> Tensor:
        """Return a tensor of Keras's layout in PyTorch's. Raises ReadError when its shape does not fit."""
        keras, torch = self._sides()
        return self._rearranged(tensor, keras, torch)

    def to_keras(self, tensor: Tensor) -> Tensor:
        """Return a tensor of PyTorch's layout in Keras's. Raises ReadError when its shape does not fit."""
        keras, torch = self._sides()
        return self._rearranged(tensor, torch, keras)

    def _sides(self) -> tuple[Side, Side]:
        keras, _, torch = self.pattern.partition("->")
        return _parsed(keras), _parsed(torch)

    def _rearranged(self, tensor: Tensor, before: Side, after: Side) -> Tensor:
        extents = self._extents(tensor.shape, before)
        source = [axis for group in before for axis in group]
        target = [axis for group in after for axis in group]
        tensor = tensor.reshape(tuple(extents[axis] for axis in source))
        if self.gates is not None:
            axis = source.index(_GATE)
            tensor = concat([tensor.take(axis=axis, start=gate, stop=gate + 1) for gate in self.gates], axis=axis)
        tensor = tensor.transpose(tuple(source.index(axis) for axis in target))
        return tensor.reshape(tuple(math.prod(extents[axis] for axis in group) for group in after))

    def _extents(self, shape: tuple[int, ...], side: Side) -> dict[str, int]:
        extents = dict(self.sizes)
        if len(shape) != len(side):
            raise ReadError(f"has shape {list(shape)}, not one that reads {self.pattern!r}")
        for extent, group in zip(shape, side, strict=True):
            unknown = [axis for axis in group if axis not in extents]
            known = math.prod(extents[axis] for axis in group if axis in extents)
            if len(unknown) == 1 and known and extent % known == 0:
                extents[unknown[0]] = extent // known
            elif unknown or known != extent:
                raise ReadError(f"has shape {list(shape)}, not one that reads {self.pattern!r} with {dict(self.sizes)}")
        return extents


def _parsed(side: str) -> Side:
    groups = (tuple((joined or single).split()) for joined, single in _TOKEN.findall(side))
    return tuple(() if group == ("1",) else group for group in groups)


AS_IS = None
"""The layout of what both frameworks store alike, of any rank."""

"""How TensorFlow stores one tensor in slices: the keys that slices have in a bundle, and putting them together.

tensorflow/core/util/saved_tensor_slice_util.cc and tensorflow/core/lib/strings/ordered_code.cc: a key is an encoding
of the tensor's name and the slice's extents that sorts as they do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from converter.model.tensor import Tensor, concat


@dataclass(frozen=True, slots=True, kw_only=True)
class Extent:
    """The range of one axis that a slice covers; all of the axis when `length` is None."""

    start: int = 0
    length: int | None = None

    def within(self, whole: int) -> tuple[int, int]:
        """Return start and length on an axis of `whole` elements."""
        return (0, whole) if self.length is None else (self.start, self.length)


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """A part of a tensor: where it begins on each axis of the whole, and what is there."""

    starts: tuple[int, ...]
    tensor: Tensor


def slice_key(name: str, extents: Sequence[Extent]) -> bytes:
    """Return the key of a slice of the tensor `name`."""
    escaped = b"".join(_ESCAPES.get(byte, bytes([byte])) for byte in name.encode("utf-8"))
    key = _unsigned(0) + escaped + b"\0\1" + _unsigned(len(extents))
    for extent in extents:
        key += _signed(0 if extent.length is None else extent.start)
        key += _signed(-1 if extent.length is None else extent.length)
    return key


_ESCAPES = {0x00: b"\x00\xff", 0xFF: b"\xff\x00"}


def _unsigned(value: int) -> bytes:
    length = (value.bit_length() + 7) // 8
    return bytes([length]) + value.to_bytes(length, "big")


def _signed(value: int) -> bytes:
    """As many leading ones as there are bytes, then the number; all bits inverted when it is negative."""
    length = (value if value >= 0 else ~value).bit_length() // 7 + 1
    header = ((1 << length) - 1) << (7 * length)
    return ((value & ((1 << (8 * length)) - 1)) ^ header).to_bytes(length, "big")


def joined(slices: Sequence[Slice], shape: tuple[int, ...], axis: int = 0) -> Tensor | None:
    """Return the tensor of `shape` that the slices are a grid of, None when they overlap, leave gaps or form no grid.

    Axes before `axis` are already known to be whole.
    """
    if axis == len(shape):
        return slices[0].tensor if len(slices) == 1 else None
    rows: dict[int, list[Slice]] = {}
    for part in slices:
        rows.setdefault(part.starts[axis], []).append(part)
    position, tensors = 0, []
    for start, row in sorted(rows.items()):
        lengths = {part.tensor.shape[axis] for part in row}
        if start != position or len(lengths) != 1:
            return None
        position += lengths.pop()
        row_shape = (*shape[:axis], position - start, *shape[axis + 1 :])
        tensor = joined(row, row_shape, axis + 1)
        if tensor is None:
            return None
        tensors.append(tensor)
    return concat(tensors, axis=axis) if position == shape[axis] else None

"""What lies between the tensors of two sides, each operation with its inverse: transpose, rearrange, split, unstack.

An operation takes the tensors of the left side, in order, and makes those of the right, or goes back; none is read.
The idea is that of transformers' WeightConverter (core_model_loading.py, transformers 5).
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from converter.dialects.names.rearrangement import Rearrangement
from converter.errors import ReadError, UsageError
from converter.model.tensor import Tensor, concat

_ALONG = re.compile(r"(split|join|unstack|stack) (\d{1,2})(?: (\d+(?::\d+)+))?")
_SIZE = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=(\d+)")
_AS_IS, _TRANSPOSE = "as is", "transpose"
_FORMS = f'"{_AS_IS}", "{_TRANSPOSE}", "split 0", "split 0 4:1:1", "join 0", "unstack 0", "stack 0", "i o -> o i"'


class TwoWay(ABC):
    """One step between two sides."""

    __slots__ = ()

    @property
    def counts(self) -> tuple[int, int] | None:
        """How many tensors it takes and makes; None where it does the same to each, however many there are."""
        return None

    @abstractmethod
    def forward(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Return the tensors of the right side. Raises ReadError for shapes that do not fit."""

    @abstractmethod
    def backward(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Return the tensors of the left side. Raises ReadError for shapes that do not fit."""


@dataclass(frozen=True, slots=True)
class Inverse(TwoWay):
    """What goes the other way."""

    operation: TwoWay

    @property
    def counts(self) -> tuple[int, int] | None:
        own = self.operation.counts
        return None if own is None else (own[1], own[0])

    def forward(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        return self.operation.backward(tensors)

    def backward(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        return self.operation.forward(tensors)


@dataclass(frozen=True, slots=True)
class Reverse(TwoWay):
    """All axes in the other order."""

    def forward(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        return [tensor.transpose(tuple(reversed(range(len(tensor.shape))))) for tensor in tensors]

    def backward(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        return self.forward(tensors)


@dataclass(frozen=True, slots=True)
class Rearrange(TwoWay):
    """A pattern of axes; what Rearrangement calls Keras's is the left side."""

    layout: Rearrangement

    def forward(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        return [self.layout.to_torch(tensor) for tensor in tensors]

    def backward(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        return [self.layout.to_keras(tensor) for tensor in tensors]


@dataclass(frozen=True, slots=True)
class Split(TwoWay):
    """One tensor into parts along an axis; `parts` are their extents in proportion, as (4, 1, 1)."""

    axis: int
    parts: tuple[int, ...]

    @property
    def counts(self) -> tuple[int, int]:
        return 1, len(self.parts)

    def forward(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        (tensor,) = tensors
        total = sum(self.parts)
        if len(tensor.shape) <= self.axis or tensor.shape[self.axis] % total:
            raise ReadError(f"has shape {list(tensor.shape)}, which is not {self._shown()} on axis {self.axis}")
        unit, start, slices = tensor.shape[self.axis] // total, 0, []
        for part in self.parts:
            slices.append(tensor.take(axis=self.axis, start=start * unit, stop=(start + part) * unit))
            start += part
        return slices

    def backward(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        shapes = [tensor.shape for tensor in tensors]
        extents = [shape[self.axis] if self.axis < len(shape) else -1 for shape in shapes]
        unit = max(0, extents[0] // self.parts[0])
        if extents != [part * unit for part in self.parts]:
            raise ReadError(f"cannot be joined: shapes {[*map(list, shapes)]} are not {self._shown()}")
        return [concat(tensors, axis=self.axis)]

    def _shown(self) -> str:
        is_even = len(set(self.parts)) == 1
        return f"{len(self.parts)} parts" if is_even else f"parts of {':'.join(map(str, self.parts))}"


@dataclass(frozen=True, slots=True)
class Unstack(TwoWay):
    """One tensor into as many as an axis has items, without that axis."""

    axis: int
    items: int

    @property
    def counts(self) -> tuple[int, int]:
        return 1, self.items

    def forward(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        (tensor,) = tensors
        shape, axis = tensor.shape, self.axis
        if len(shape) <= axis or shape[axis] != self.items:
            raise ReadError(f"has shape {list(shape)}, not {self.items} items on axis {axis}")
        rest = (*shape[:axis], *shape[axis + 1 :])
        return [tensor.take(axis=axis, start=item, stop=item + 1).reshape(rest) for item in range(self.items)]

    def backward(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        axis = self.axis
        if any(len(tensor.shape) < axis or tensor.shape != tensors[0].shape for tensor in tensors):
            shapes = [list(tensor.shape) for tensor in tensors]
            raise ReadError(f"cannot be stacked on axis {axis}: shapes {shapes} differ")
        widened = [tensor.reshape((*tensor.shape[:axis], 1, *tensor.shape[axis:])) for tensor in tensors]
        return [concat(widened, axis=axis)]


@dataclass(frozen=True, slots=True)
class Each(TwoWay):
    """What another operation does to one tensor, done to several by themselves."""

    operation: TwoWay
    times: int

    @property
    def counts(self) -> tuple[int, int] | None:
        own = self.operation.counts
        return None if own is None else (self.times * own[0], self.times * own[1])

    def forward(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        return [result for tensor in tensors for result in self.operation.forward([tensor])]

    def backward(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        count = len(tensors) // self.times
        parts = (tensors[start : start + count] for start in range(0, len(tensors), count))
        return [result for part in parts for result in self.operation.backward(part)]


def parse(text: str, others: int) -> tuple[TwoWay, ...]:
    """Return the operations that `text` names; `others` is how many tensors the side that has several has.

    Raises UsageError for what is none.
    """
    if text == _AS_IS:
        return ()
    if text == _TRANSPOSE:
        return (Reverse(),)
    if "->" in text:
        pattern, *sizes = text.split(",")
        found = [_SIZE.fullmatch(size.strip()) for size in sizes]
        try:
            layout = Rearrangement(pattern=pattern.strip(), sizes={each[1]: int(each[2]) for each in found if each})
        except ValueError as error:
            raise UsageError(f"layout {text!r}: {error}") from error
        if None in found:
            raise UsageError(f"layout {text!r}: sizes are written as in 'i (h d) -> (h d) i, h=12'")
        return (Rearrange(layout),)
    match = _ALONG.fullmatch(text)
    if match is None or (match[3] and "stack" in match[1]):
        raise UsageError(f"layout is of {_FORMS}, not {text!r}")
    parts = tuple(map(int, match[3].split(":"))) if match[3] else (1,) * others
    if 0 in parts:
        raise UsageError(f"layout {text!r}: a part has no extent")
    axis = int(match[2])
    operation = Unstack(axis, others) if "stack" in match[1] else Split(axis, parts)
    return (Inverse(operation) if match[1] in ("join", "stack") else operation,)


def check_counts(operations: Sequence[TwoWay], before: int, after: int) -> None:
    """Raise UsageError where the operations do not make `after` tensors of `before`."""
    count = before
    for operation in operations:
        if operation.counts is None:
            continue
        inputs, outputs = operation.counts
        if inputs != count:
            raise UsageError(f"a step of its layout takes {inputs} tensors, and there are {count}")
        count = outputs
    if count != after:
        raise UsageError(f"its layout makes {count} tensors, and there are names for {after}")


def applied(operations: Sequence[TwoWay], tensors: Sequence[Tensor], *, is_forward: bool) -> list[Tensor]:
    """Return the tensors of the other side. Raises ReadError for shapes that do not fit."""
    results = list(tensors)
    for operation in operations if is_forward else reversed(operations):
        results = operation.forward(results) if is_forward else operation.backward(results)
    return results

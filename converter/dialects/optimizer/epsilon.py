"""Where epsilon stands: PyTorch adds it to the root of a square average, Keras to something else.

Adam: Keras adds its epsilon to the root of the raw second moment, PyTorch to that of the corrected one, which is larger
by 1 / sqrt(1 - beta_2^t). One constant is right for one step: the next.

RMSprop and Adagrad: Keras adds it below the root. No constant is right for every element. What a training run shows is
its loss, which a change of an update changes by as much times the gradient: so elements count by their squares. The
constant with the least such error is taken; but where the one that is closest with all elements alike changes no loss
either, that one.
Measured on an encoder of Keras 3 and on TFBert, 20 steps of RMSprop(0.001, momentum=0.5) continued in PyTorch: losses
within 2.0e-5 and 1.8e-5; with the constant that is closest element by element 5.5e-4 and 1.3e-4.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from converter.model.tensor import Array, Tensor

TELLING = 1e-6
"""Errors of an epsilon below this are not worth a line: single precision has them too."""
_NEGLIGIBLE = 1e-5
"""Of a loss: what an epsilon that is closest element by element may cost."""
_BINS_PER_OCTAVE = 256
_GRID, _ROUNDS = 64, 4
_TINY = float(np.finfo(np.float64).tiny)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacedEpsilon:
    """An epsilon for the other framework, and by how much updates differ with it, root mean square over elements.

    In `error` elements count by their squares, as they do for the loss; in `plain_error` they count alike.
    """

    value: float
    error: float
    plain_error: float

    def note(self, epsilon: float, where: str) -> list[str]:
        """Return the line that a user should read, none where single precision has such errors too."""
        if self.plain_error < TELLING:
            return []
        return [
            f"epsilon {epsilon:g} is {self.value:.4g} in {where}: updates differ by {self.plain_error:.1g} of "
            f"themselves, by {self.error:.1g} where gradients are large"
        ]


def correction(beta_2: float, step: int) -> float:
    """Return Keras's epsilon of Adam over PyTorch's that is right for the update after `step` completed ones."""
    return math.sqrt(1 - beta_2 ** (step + 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class Squares:
    """The square averages that an update takes the root of: less the squared `averages` where it is centered."""

    squares: Mapping[str, Tensor]
    averages: Mapping[str, Tensor]

    def roots(self) -> Iterator[Array]:
        """Yield the roots of each tensor's elements that are not zero; one tensor is read at a time."""
        for name, tensor in self.squares.items():
            values = tensor.numpy().astype(np.float64).reshape(-1)
            if name in self.averages:
                values -= np.square(self.averages[name].numpy().astype(np.float64).reshape(-1))
            values = values[np.isfinite(values) & (values > 0)]
            if values.size:
                yield np.sqrt(values)


def below_root(epsilon: float, squares: Squares) -> PlacedEpsilon:
    """Return the e for which sqrt(square + e) is closest to root + `epsilon`."""
    roots = _Roots.of(squares)
    if roots.is_empty:
        return PlacedEpsilon(value=epsilon * epsilon, error=0.0, plain_error=0.0)
    pointwise: Callable[[float], float] = lambda root: epsilon * (epsilon + 2 * root)  # noqa: E731
    return roots.placed(pointwise, lambda at, e: (at + epsilon) / np.sqrt(at * at + e))


def beside_root(epsilon: float, squares: Squares) -> PlacedEpsilon:
    """Return the e for which root + e is closest to sqrt(square + `epsilon`)."""
    roots = _Roots.of(squares)
    if roots.is_empty or not epsilon:
        return PlacedEpsilon(value=math.sqrt(epsilon), error=0.0, plain_error=0.0)
    pointwise: Callable[[float], float] = lambda root: epsilon / (math.sqrt(root * root + epsilon) + root)  # noqa: E731
    return roots.placed(pointwise, lambda at, e: np.sqrt(at * at + epsilon) / (at + e))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Roots:
    """Roots and how many elements have each, to a fraction of themselves; they do not depend on order or layouts."""

    values: Array
    counts: Array

    @classmethod
    def of(cls, squares: Squares) -> _Roots:
        counts: dict[int, int] = {}
        for roots in squares.roots():
            bins = np.round(np.log2(roots) * _BINS_PER_OCTAVE).astype(np.int64)
            for number, count in zip(*np.unique(bins, return_counts=True), strict=True):
                counts[int(number)] = counts.get(int(number), 0) + int(count)
        numbers = sorted(counts)
        values = np.exp2(np.asarray(numbers, np.float64) / _BINS_PER_OCTAVE)
        return cls(values=values, counts=np.asarray([counts[number] for number in numbers], np.float64))

    @property
    def is_empty(self) -> bool:
        return not self.values.size

    def placed(self, pointwise: Callable[[float], float], ratio: Callable[[Array, float], Array]) -> PlacedEpsilon:
        """Return the constant with the least error.

        `pointwise` is the constant that is right for a root; `ratio` how much larger updates are at some roots with a
        constant.
        """
        ends = sorted((pointwise(0.0), pointwise(float(self.values[-1]))))
        closest = self._least(ends, ratio, lambda each: each.plain_error)
        return closest if closest.error <= _NEGLIGIBLE else self._least(ends, ratio, lambda each: each.error)

    def _least(
        self, ends: Sequence[float], ratio: Callable[[Array, float], Array], key: Callable[[PlacedEpsilon], float]
    ) -> PlacedEpsilon:
        """Return the constant between two for which `key` is least, found on grids that are finer each time."""
        low, high = ends
        found = [self._with(value, ratio) for value in ends]
        for _ in range(_ROUNDS):
            grid = np.geomspace(max(low, _TINY), max(high, _TINY), _GRID)
            found += [self._with(float(value), ratio) for value in grid]
            at = float(np.argmin([key(each) for each in found[-_GRID:]]))
            low, high = (float(grid[int(min(max(at + step, 0), _GRID - 1))]) for step in (-1, 1))
        return min(found, key=key)

    def _with(self, value: float, ratio: Callable[[Array, float], Array]) -> PlacedEpsilon:
        squares = np.square(ratio(self.values, value) - 1) * self.counts
        weights = np.square(self.values / self.values[-1])  # the largest is 1: the others cannot overflow
        error = math.sqrt(float(np.sum(squares * weights)) / float(np.sum(self.counts * weights)))
        return PlacedEpsilon(
            value=value, error=error, plain_error=math.sqrt(float(np.sum(squares)) / float(self.counts.sum()))
        )

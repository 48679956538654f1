"""Where epsilon stands: PyTorch adds it to the root of a square average, Keras to something else.

Adam: Keras adds its epsilon to the root of the raw second moment, PyTorch to that of the corrected one, which is larger
by 1 / sqrt(1 - beta_2^t). One constant is right for one step: the next.

RMSprop and Adagrad: Keras adds it below the root. No constant is right for every element, so two are tried, one that is
right where squares are zero and one that is right at their median, and the one with the smaller error is taken.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from converter.model.tensor import Array, Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """An epsilon for the other framework, and by how much updates differ with it, root mean square over elements."""

    value: float
    error: float


def correction(beta_2: float, step: int) -> float:
    """Return Keras's epsilon of Adam over PyTorch's that is right for the update after `step` completed ones."""
    return math.sqrt(1 - beta_2 ** (step + 1)) if beta_2 else 1.0


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


def below_root(epsilon: float, squares: Squares) -> Placed:
    """Return the e for which sqrt(square + e) is closest to root + `epsilon`."""
    root = typical_root(squares.roots())
    candidates = (epsilon * epsilon, epsilon * (epsilon + 2 * root))
    return _best(candidates, squares, lambda at, e: (at + epsilon) / np.sqrt(at * at + e))


def beside_root(epsilon: float, squares: Squares) -> Placed:
    """Return the e for which root + e is closest to sqrt(square + `epsilon`)."""
    root = typical_root(squares.roots())
    whole = math.sqrt(root * root + epsilon) + root
    candidates = (math.sqrt(epsilon), epsilon / whole if whole else 0.0)
    return _best(candidates, squares, lambda at, e: np.sqrt(at * at + epsilon) / (at + e))


def _best(candidates: Iterable[float], squares: Squares, ratio: Callable[[Array, float], Array]) -> Placed:
    """Return the candidate with which updates are most alike; `ratio` is how much larger they are at some roots."""
    placed = []
    for candidate in candidates:
        total, count = 0.0, 0
        for roots in squares.roots():
            total += float(np.sum(np.square(ratio(roots, candidate) - 1)))
            count += roots.size
        placed.append(Placed(value=candidate, error=math.sqrt(total / count) if count else 0.0))
    return min(placed, key=lambda each: each.error)


def typical_root(roots: Iterable[Array]) -> float:
    """Return the median over tensors, by size, of the median of their roots. It does not depend on layouts."""
    medians = sorted((float(np.median(values)), values.size) for values in roots)
    half, counted = sum(size for _, size in medians) / 2, 0
    for root, size in medians:
        counted += size
        if counted >= half:
            return root
    return 0.0

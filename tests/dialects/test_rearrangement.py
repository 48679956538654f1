"""Layout patterns: that they read both ways, and refuse what does not fit."""

from __future__ import annotations

import numpy as np
import pytest

from converter.dialects.names.rearrangement import Rearrangement
from converter.errors import ReadError
from converter.model.tensor import ArrayTensor

PATTERNS = [
    (Rearrangement(pattern="i o -> o i"), (3, 4), lambda a: a.T),
    (Rearrangement(pattern="y x i o -> o i y x"), (2, 3, 4, 5), lambda a: a.transpose(3, 2, 0, 1)),
    (
        Rearrangement(pattern="y x c m -> (c m) 1 y x", sizes={"m": 2}),
        (2, 3, 4, 2),
        lambda a: a.transpose(2, 3, 0, 1).reshape(8, 1, 2, 3),
    ),
    (
        Rearrangement(pattern="(s c) o -> o (c s)", sizes={"c": 3}),
        (12, 5),
        lambda a: a.reshape(4, 3, 5).transpose(2, 1, 0).reshape(5, 12),
    ),
    (
        Rearrangement(pattern="i (g n) -> (g n) i", sizes={"g": 3}, gates=(1, 0, 2)),
        (2, 12),
        lambda a: np.concatenate([a[:, 4:8], a[:, :4], a[:, 8:]], axis=1).T,
    ),
    (Rearrangement(pattern="1 1 c -> c"), (1, 1, 6), lambda a: a[0, 0]),
]


@pytest.mark.parametrize(("layout", "shape", "expected"), PATTERNS)
def test_reads_both_ways(layout: Rearrangement, shape: tuple[int, ...], expected: object) -> None:
    array = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    there = layout.to_torch(ArrayTensor.of(array))
    assert np.array_equal(there.numpy(), expected(array))  # type: ignore[operator]
    assert np.array_equal(layout.to_keras(there).numpy(), array)


def test_refuses_shapes_that_do_not_fit() -> None:
    layout = Rearrangement(pattern="(s c) o -> o (c s)", sizes={"c": 3})
    layout.to_torch(ArrayTensor.of(np.zeros((6, 2), np.float32)))
    for shape in [(7, 2), (6,), (6, 2, 1)]:
        with pytest.raises(ReadError, match="shape"):
            layout.to_torch(ArrayTensor.of(np.zeros(shape, np.float32)))


@pytest.mark.parametrize("pattern", ["i o -> o", "i o -> o x", "i i -> i i"])
def test_refuses_patterns_that_lose_an_axis(pattern: str) -> None:
    with pytest.raises(ValueError, match="both ways"):
        Rearrangement(pattern=pattern)


def test_refuses_gates_that_are_not_their_own_inverse() -> None:
    with pytest.raises(ValueError, match="inverse"):
        Rearrangement(pattern="(g n) -> (g n)", gates=(1, 2, 0))

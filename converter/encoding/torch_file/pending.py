"""Tensors that torch saves with a sign still to be changed: conjugated ones, and imaginary parts of such."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from converter.model.dtype import DType
from converter.model.tensor import Array, ComputedTensor, Tensor

CONJUGATE, NEGATIVE = "conj", "neg"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Signed:
    """The same elements with their imaginary parts, or all of them, of the other sign."""

    bits: frozenset[str]

    def declare(self, inputs: Sequence[Tensor]) -> tuple[DType, tuple[int, ...]]:
        return inputs[0].dtype, inputs[0].shape

    def __call__(self, *arrays: Array) -> Array:
        array = np.conjugate(arrays[0]) if CONJUGATE in self.bits else arrays[0]
        return np.negative(array) if NEGATIVE in self.bits else array


def resolved(tensor: Tensor, bits: frozenset[str]) -> Tensor:
    """Return the tensor as its values are, `bits` being what torch says is still to be done to it."""
    if not bits:
        return tensor
    return ComputedTensor(dtype=tensor.dtype, shape=tensor.shape, inputs=(tensor,), operation=_Signed(bits=bits))

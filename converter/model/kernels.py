"""How TensorFlow lays out what PyTorch calls the weight of a linear layer or convolution.

PyTorch has [out, in, *extents], TensorFlow [*extents, in, out], and calls it the kernel (`tf.nn.convolution`,
`tf.matmul`).
"""

from __future__ import annotations

from converter.model.tensor import Tensor

WEIGHT, KERNEL = "weight", "kernel"
LEAST_RANK = 2


def kernel_axes(rank: int) -> tuple[int, ...]:
    """Return the axes of a weight in the order of a kernel's."""
    return (*range(2, rank), 1, 0)


def weight_axes(rank: int) -> tuple[int, ...]:
    """Return the axes of a kernel in the order of a weight's."""
    return (rank - 1, rank - 2, *range(rank - 2))


def to_kernel(weight: Tensor) -> Tensor:
    """Return a weight of two axes or more in the layout of a kernel; nothing is read."""
    return weight.transpose(kernel_axes(len(weight.shape)))


def to_weight(kernel: Tensor) -> Tensor:
    """Return a kernel in the layout of a weight; nothing is read."""
    return kernel.transpose(weight_axes(len(kernel.shape)))


def kernel_name(weight: str) -> str | None:
    """Return ``dense.kernel`` for ``dense.weight``, None for what is not called a weight."""
    module, dot, last = weight.rpartition(".")
    return f"{module}{dot}{KERNEL}" if last == WEIGHT else None

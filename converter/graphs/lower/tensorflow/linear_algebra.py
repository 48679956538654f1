"""Products of matrices."""

from __future__ import annotations

from typing import Any

from converter.graphs.lower.tensorflow.framework import as_shape, extents_of, rank_of, tf
from converter.graphs.lower.tensorflow.registry import REGISTRY

lowers = REGISTRY.lowers


@lowers("MatMul")
def matmul(a: Any, b: Any) -> Any:
    """numpy.matmul: a vector on either side loses its axis again, leading axes broadcast."""
    left, right = rank_of(a), rank_of(b)
    if left == 1 or right == 1:
        product = matmul(a[None, :] if left == 1 else a, b[:, None] if right == 1 else b)
        product = tf.squeeze(product, -2) if left == 1 else product
        return tf.squeeze(product, -1) if right == 1 else product
    if left > 2 and right == 2:
        # One large product instead of a batch of small ones: twice as fast on a CPU, and the gradient needs no sum.
        extents = extents_of(a)
        product = tf.matmul(tf.reshape(a, as_shape([-1, extents[-1]])), b)
        return tf.reshape(product, as_shape([*extents[:-1], extents_of(b)[-1]]))
    return tf.matmul(a, b)


@lowers("Gemm", since=7)
def gemm(
    a: Any,
    b: Any,
    c: Any = None,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    transA: int = 0,  # noqa: N803
    transB: int = 0,  # noqa: N803
) -> Any:
    """alpha * a' @ b' + beta * c."""
    product = tf.matmul(a, b, transpose_a=bool(transA), transpose_b=bool(transB))
    product = product if alpha == 1 else tf.cast(alpha, product.dtype) * product
    if c is None:
        return product
    addend = c if beta == 1 else tf.cast(beta, product.dtype) * c
    # Grappler fuses a product and an addend into a biased product, which wants a vector.
    addend = tf.reshape(addend, [-1]) if rank_of(addend) == 2 and addend.shape[0] == 1 else addend
    return product + addend


@lowers("Einsum", since=12)
def einsum(*values: Any, equation: str) -> Any:
    """The same notation."""
    return tf.einsum(equation.replace(" ", ""), *values)


@lowers("Det", since=11)
def det(x: Any) -> Any:
    """Of the last two dimensions."""
    return tf.linalg.det(x)

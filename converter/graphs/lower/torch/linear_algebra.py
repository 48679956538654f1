"""Matrix products."""

from __future__ import annotations

from typing import Any

from converter.graphs.lower.torch.framework import Tensor, torch, widened
from converter.graphs.lower.torch.registry import REGISTRY

lowers = REGISTRY.lowers


@lowers("MatMul")
@widened
def matmul(a: Tensor, b: Tensor) -> Any:
    """numpy's rule for vectors and for batches."""
    return torch.matmul(a, b)


@lowers("Gemm", since=11)
def gemm(
    a: Tensor,
    b: Tensor,
    c: Tensor = None,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    transA: int = 0,  # noqa: N803
    transB: int = 0,  # noqa: N803
) -> Any:
    """alpha * a @ b + beta * c."""
    a = a.t() if transA else a
    if alpha == 1 and (c is None or (beta == 1 and c.ndim == 1)):
        return torch.nn.functional.linear(a, b if transB else b.t(), c)
    product = torch.matmul(a, b.t() if transB else b)
    product = product if alpha == 1 else product * _factor(alpha, product)
    return product if c is None else product + (c if beta == 1 else c * _factor(beta, c))


def _factor(value: float, x: Any) -> Any:
    return value if x.is_floating_point() else int(value)


@lowers("Gemm")
def gemm_before_numpy(
    a: Tensor,
    b: Tensor,
    c: Tensor,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    transA: int = 0,  # noqa: N803
    transB: int = 0,  # noqa: N803
    broadcast: int = 0,
) -> Any:
    """Broadcasting of `c` had to be asked for before opset 7; the result is the same."""
    return gemm(a, b, c, alpha=alpha, beta=beta, transA=transA, transB=transB)


@lowers("Einsum", since=12)
def einsum(*operands: Tensor, equation: str) -> Any:
    """Sums of products by index letters."""
    return torch.einsum(equation.replace(" ", ""), *operands)


@lowers("Det", since=11)
def det(x: Tensor) -> Any:
    """Of the last two dimensions."""
    return torch.linalg.det(x)

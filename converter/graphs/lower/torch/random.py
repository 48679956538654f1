"""Operators that draw numbers. `seed` is not that of PyTorch's generator, and is not used."""

from __future__ import annotations

from typing import Any

from converter.graphs.lower.torch.framework import Tensor, dtype_of, torch
from converter.graphs.lower.torch.registry import REGISTRY

lowers = REGISTRY.lowers


@lowers("RandomNormal")
def random_normal(
    *, shape: Any, dtype: int = 1, mean: float = 0.0, scale: float = 1.0, seed: float | None = None
) -> Any:
    """Normal numbers."""
    return mean + scale * torch.randn(list(shape), dtype=dtype_of(dtype))


@lowers("RandomNormalLike")
def random_normal_like(
    x: Tensor, *, dtype: int | None = None, mean: float = 0.0, scale: float = 1.0, seed: float | None = None
) -> Any:
    """Normal numbers in the shape of another tensor."""
    return mean + scale * torch.randn_like(x, dtype=x.dtype if dtype is None else dtype_of(dtype))


@lowers("RandomUniform")
def random_uniform(
    *, shape: Any, dtype: int = 1, low: float = 0.0, high: float = 1.0, seed: float | None = None
) -> Any:
    """Uniform numbers."""
    return low + (high - low) * torch.rand(list(shape), dtype=dtype_of(dtype))


@lowers("RandomUniformLike")
def random_uniform_like(
    x: Tensor, *, dtype: int | None = None, low: float = 0.0, high: float = 1.0, seed: float | None = None
) -> Any:
    """Uniform numbers in the shape of another tensor."""
    return low + (high - low) * torch.rand_like(x, dtype=x.dtype if dtype is None else dtype_of(dtype))


@lowers("Bernoulli", since=15)
def bernoulli(x: Tensor, *, dtype: int | None = None, seed: float | None = None) -> Any:
    """One with the probability that the input is."""
    return torch.bernoulli(x).to(x.dtype if dtype is None else dtype_of(dtype))


@lowers("Multinomial", since=7)
def multinomial(x: Tensor, *, dtype: int = 6, sample_size: int = 1, seed: float | None = None) -> Any:
    """Classes drawn by unnormalised log-probabilities."""
    return torch.multinomial(torch.softmax(x, -1), sample_size, replacement=True).to(dtype_of(dtype))

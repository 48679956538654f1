"""Random numbers, new at every call. ONNX says which distribution, not which generator."""

from __future__ import annotations

from typing import Any

from converter.graphs.lower.tensorflow.framework import as_shape, dtype_of, extents_of, shape_of, tf
from converter.graphs.lower.tensorflow.registry import REGISTRY

lowers = REGISTRY.lowers


def _seed(seed: float | None) -> int | None:
    return None if seed is None else int(seed)


def _wide(dtype: Any) -> Any:
    return dtype if dtype.is_floating else tf.float32


@lowers("RandomUniform")
def random_uniform(
    *, shape: Any, dtype: int = 1, high: float = 1.0, low: float = 0.0, seed: float | None = None
) -> Any:
    """Evenly between two bounds."""
    return tf.random.uniform(list(shape), low, high, dtype_of(dtype), _seed(seed))


@lowers("RandomUniformLike")
def random_uniform_like(
    x: Any, *, dtype: int | None = None, high: float = 1.0, low: float = 0.0, seed: float | None = None
) -> Any:
    """Of the shape and, unless one is given, the type of x."""
    kind = _wide(tf.as_dtype(x.dtype)) if dtype is None else dtype_of(dtype)
    return tf.random.uniform(shape_of(x), low, high, kind, _seed(seed))


@lowers("RandomNormal")
def random_normal(
    *, shape: Any, dtype: int = 1, mean: float = 0.0, scale: float = 1.0, seed: float | None = None
) -> Any:
    """Normally distributed."""
    return tf.random.normal(list(shape), mean, scale, dtype_of(dtype), _seed(seed))


@lowers("RandomNormalLike")
def random_normal_like(
    x: Any, *, dtype: int | None = None, mean: float = 0.0, scale: float = 1.0, seed: float | None = None
) -> Any:
    """Of the shape and, unless one is given, the type of x."""
    kind = _wide(tf.as_dtype(x.dtype)) if dtype is None else dtype_of(dtype)
    return tf.random.normal(shape_of(x), mean, scale, kind, _seed(seed))


@lowers("Bernoulli", since=15)
def bernoulli(x: Any, *, dtype: int | None = None, seed: float | None = None) -> Any:
    """One with the probability x, else zero."""
    x = tf.convert_to_tensor(x)
    drawn = tf.random.uniform(shape_of(x), 0, 1, x.dtype, _seed(seed))
    return tf.cast(drawn < x, x.dtype if dtype is None else dtype_of(dtype))


@lowers("Multinomial", since=7)
def multinomial(x: Any, *, dtype: int = 6, sample_size: int = 1, seed: float | None = None) -> Any:
    """Draws of classes by unnormalised log probabilities, [batch, classes] -> [batch, draws]."""
    drawn = tf.random.categorical(x, sample_size, tf.int64, _seed(seed))
    return tf.cast(tf.reshape(drawn, as_shape([extents_of(x)[0], sample_size])), dtype_of(dtype))

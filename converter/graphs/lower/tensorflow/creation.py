"""Operators that make tensors out of attributes, shapes or ranges."""

from __future__ import annotations

from typing import Any

from converter.graphs.lower.tensorflow.framework import as_shape, dtype_of, extents_of, product, rank_of, shape_of, tf
from converter.graphs.lower.tensorflow.registry import REGISTRY, refuse

lowers = REGISTRY.lowers


@lowers("Constant")
def constant(
    *,
    value: Any = None,
    value_float: float | None = None,
    value_floats: Any = None,
    value_int: int | None = None,
    value_ints: Any = None,
    value_string: str | None = None,
    value_strings: Any = None,
) -> Any:
    """Exactly one attribute is given."""
    import numpy as np

    if value is not None:
        return value
    if value_float is not None or value_floats is not None:
        return np.array(value_float if value_floats is None else value_floats, np.float32)
    if value_string is not None or value_strings is not None:
        return np.array(value_string if value_strings is None else list(value_strings), object)
    refuse(value_int is None and value_ints is None, "a Constant without a dense value")
    return np.array(value_int if value_ints is None else value_ints, np.int64)


@lowers("ConstantOfShape", since=9)
def constant_of_shape(shape: Any, *, value: Any = None) -> Any:
    """A tensor of one value; float zero when none is given."""
    import numpy as np

    value = np.zeros(1, np.float32) if value is None else value
    return tf.fill(shape, tf.constant(value.reshape(())))


@lowers("Range", since=11)
def range_(start: Any, limit: Any, delta: Any) -> Any:
    """Scalars of one type, which some write as vectors of one element."""
    return tf.range(*(tf.reshape(each, []) for each in (start, limit, delta)))


@lowers("Shape")
def shape(x: Any) -> Any:
    """All extents."""
    return shape_of(x)


@lowers("Shape", since=15)
def shape_range(x: Any, *, start: int = 0, end: int | None = None) -> Any:
    """The extents from `start` to `end`, static ones while the graph is built."""
    return as_shape(extents_of(x)[start:end])


@lowers("Size")
def size(x: Any) -> Any:
    """The number of elements, as int64."""
    import numpy as np

    count = product(extents_of(x))
    return np.array(count, np.int64) if isinstance(count, int) else count


@lowers("EyeLike", since=9)
def eye_like(x: Any, *, dtype: int | None = None, k: int = 0) -> Any:
    """Ones on diagonal `k` of a matrix of this shape."""
    rows, columns = (tf.range(extent, dtype=tf.int64) for extent in extents_of(x))
    rows, columns = rows[:, None], columns[None, :]
    return tf.cast(tf.equal(columns - rows, k), x.dtype if dtype is None else dtype_of(dtype))


@lowers("OneHot", since=9)
def one_hot(indices: Any, depth: Any, values: Any, *, axis: int = -1) -> Any:
    """Negative indices count from the end; those out of range give the off value throughout."""
    depth = tf.cast(tf.reshape(depth, []), tf.int64)
    indices = tf.cast(indices, tf.int64)
    indices = tf.where(tf.less(indices, 0), indices + depth, indices)
    axis = axis if axis >= 0 else axis + rank_of(indices) + 1
    return tf.one_hot(
        indices, tf.cast(depth, tf.int32), on_value=values[1], off_value=values[0], axis=axis, dtype=values.dtype
    )


@lowers("Trilu", since=14)
def trilu(x: Any, k: Any = None, *, upper: int = 1) -> Any:
    """The triangle above (below) diagonal `k` of the last two dimensions, zero elsewhere."""
    k = tf.constant(0, tf.int64) if k is None else tf.reshape(k, [])
    rows, columns = (tf.range(extent, dtype=tf.int64) for extent in extents_of(x)[-2:])
    distance = columns[None, :] - rows[:, None]
    kept = tf.greater_equal(distance, k) if upper else tf.less_equal(distance, k)
    return tf.where(kept, x, tf.zeros([], x.dtype))

"""`tf`, imported at its first use: some 150 small functions would otherwise repeat the import in each."""

from __future__ import annotations

import importlib
import math
from collections.abc import Sequence
from typing import Any

from converter.errors import GIVES_EXTENTS, GraphError, MissingExtraError
from converter.graphs.lower.onnx import types


class _TensorFlow:
    """Stands for the tensorflow module. Raises MissingExtraError when it is used and not installed."""

    def __getattr__(self, name: str) -> Any:
        try:
            module = importlib.import_module("tensorflow")
        except ImportError as error:
            raise MissingExtraError("tensorflow", "building a TensorFlow graph") from error
        return getattr(module, name)


tf: Any = _TensorFlow()


def dtype_of(data_type: int) -> Any:
    """Return the TensorFlow dtype of an ONNX TensorProto.DataType number. Raises GraphError when it has none."""
    if data_type not in _DTYPES:
        raise GraphError(f"TensorFlow holds no element type {data_type} of ONNX")
    name = _DTYPES[data_type]
    return getattr(tf.dtypes.experimental if name in _EXPERIMENTAL else tf, name)


def number_of(dtype: Any) -> int:
    """Return the TensorProto.DataType number of a TensorFlow dtype, the inverse of `dtype_of`.

    Raises GraphError for one that no tensor can be cast to.
    """
    number = next((number for number, name in _DTYPES.items() if name == dtype.name), None)
    if number is None:
        raise GraphError(f"TensorFlow names {dtype.name}, but converts nothing to it")
    return number


# Names alone: no kernel of TensorFlow 2.21 converts float8 fnuz and e8m0fnu, float4, int2 or uint2.
_NOT_CONVERTED = {"float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu", "float4_e2m1fn", "uint2", "int2"}
_DTYPES = {number: name for number, name in types.NAMES.items() if name not in _NOT_CONVERTED}
_EXPERIMENTAL = {"float8_e4m3fn", "float8_e5m2", "uint4", "int4"}


def is_static(*values: Any) -> bool:
    """Whether all values are numpy arrays known while the graph is built, or sequences of such, or absent."""
    import numpy as np

    return all(
        is_static(*value) if isinstance(value, list) else value is None or isinstance(value, np.ndarray)
        for value in values
    )


def extents_of(value: Any) -> list[Any]:
    """Return the extents one by one: an int where it is known while the graph is built, else an int64 scalar tensor."""
    static = list(value.shape) if rank_of(value) else []
    if None not in static:
        return static
    dynamic = tf.shape(value, out_type=tf.int64)
    return [dynamic[axis] if extent is None else extent for axis, extent in enumerate(static)]


def as_shape(extents: Sequence[Any]) -> Any:
    """Return extents as one int64 vector: a numpy array when all are ints, else a tensor.

    A vector put together keeps its known extents in shape inference, and grappler's layout pass fails on slices of
    shapes with open ends (TensorFlow 2.21: "Subshape start out of bounds").
    """
    import numpy as np

    if all(isinstance(extent, int) for extent in extents):
        return np.array(extents, np.int64)
    return tf.stack([tf.cast(extent, tf.int64) for extent in extents])


def shape_of(value: Any) -> Any:
    """Return the shape as int64: a numpy array when it is fully known, else a tensor."""
    return as_shape(extents_of(value))


def product(extents: Sequence[Any]) -> Any:
    """Return the product of extents."""
    return (
        math.prod(extents) if all(isinstance(extent, int) for extent in extents) else tf.reduce_prod(as_shape(extents))
    )


def rank_of(value: Any) -> int:
    """Return the number of dimensions. Raises GraphError when it is not known while the graph is built."""
    rank = len(value.shape) if is_static(value) else value.shape.rank
    if rank is None:
        raise GraphError("an operand has an unknown number of dimensions", hint=GIVES_EXTENTS)
    return int(rank)


def as_scalar(value: Any) -> Any:
    """Return a tensor of one element without its dimensions."""
    return tf.reshape(value, [])


def before_reshape(value: Any, op_types: tuple[str, ...]) -> Any:
    """Return the operation Reshape that made a tensor out of the result of one of `op_types`, None when none did.

    Products of matrices are taken of flat rows. What follows row by row is done before their extents return, for
    grappler makes one kernel of a product, its bias and its activation, but not through a Reshape.
    """
    if is_static(value) or not hasattr(value, "graph") or value.op.type != "Reshape":
        return None
    return value.op if value.op.inputs[0].op.type in op_types else None


def with_rank(value: Any, rank: int) -> Any:
    """Return a tensor whose number of dimensions is known to be `rank`."""
    value.set_shape([None] * rank)
    return value

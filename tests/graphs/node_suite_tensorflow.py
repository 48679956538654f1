"""One node test inside a tf.function, which is what a SavedModel is: no input has a value while the graph is built."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir
import tensorflow as tf

from converter.graphs.lower.tensorflow.core import lower


def run(model: Any, inputs: list[Any]) -> list[Any]:
    """Build the graph for the declared shapes, None where a symbol stands, and call it."""
    names = [value.name for value in model.graph.input]
    given = dict(zip(names, inputs, strict=True))
    run_lowered = lower(onnx_ir.from_proto(model), {})
    shapes = {value.name: _declared(value) for value in model.graph.input}
    specifications = [_specification(given[name], shapes[name]) for name in names]
    function = tf.function(lambda *tensors: run_lowered(**dict(zip(names, tensors, strict=True))), autograph=False)
    found = function.get_concrete_function(*specifications)(*[_tensors(given[name]) for name in names])
    return [_arrays(found[value.name]) for value in model.graph.output]


def _declared(value: Any) -> list[int | None] | None:
    kind = value.type.tensor_type
    if not value.type.HasField("tensor_type") or not kind.HasField("shape"):
        return None
    return [each.dim_value if each.HasField("dim_value") else None for each in kind.shape.dim]


def _specification(value: Any, shape: list[int | None] | None) -> Any:
    if value is None:
        return None
    if isinstance(value, list):
        return [_specification(each, None) for each in value]
    value = np.asarray(value)
    return tf.TensorSpec(value.shape if shape is None else shape, _dtype(value))


def _dtype(value: Any) -> Any:
    return tf.string if value.dtype == object or value.dtype.kind in "SU" else tf.as_dtype(value.dtype)


def _tensors(value: Any) -> Any:
    if value is None:
        return None
    return (
        [_tensors(each) for each in value] if isinstance(value, list) else tf.constant(value, _dtype(np.asarray(value)))
    )


def _arrays(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_arrays(each) for each in value]
    array = value.numpy()
    if value.dtype == tf.string:
        return np.vectorize(lambda each: each.decode(), otypes=[object])(array)
    return np.asarray(array)

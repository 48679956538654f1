"""One node test inside a tf.function, which is what a SavedModel is: no input has a value while the graph is built."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir
import tensorflow as tf

from converter.graphs.lower.tensorflow.core import lower


def run(model: Any, inputs: list[Any]) -> list[Any]:
    """Call it with the inputs, then with what an exporter folds: each input a constant, which is a numpy array here."""
    given = dict(zip([value.name for value in model.graph.input], inputs, strict=True))
    found, again = _called(model, given), _called(*_folded(model, given))
    for one, other in zip(found, again, strict=True):
        _same(one, other)
    return found


def _called(model: Any, given: dict[str, Any]) -> list[Any]:
    """Build the graph for the declared shapes, None where a symbol stands, and call it."""
    run_lowered = lower(onnx_ir.from_proto(model), {})
    shapes = {value.name: _declared(value) for value in model.graph.input}
    specifications = [_specification(given[name], shapes[name]) for name in given]
    function = tf.function(lambda *tensors: run_lowered(**dict(zip(given, tensors, strict=True))), autograph=False)
    found = function.get_concrete_function(*specifications)(*[_tensors(value) for value in given.values()])
    return [_arrays(found[value.name]) for value in model.graph.output]


def _folded(model: Any, given: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Make initializers of the inputs that are arrays of numbers; return the rest beside the model."""
    folded, left = onnx.ModelProto(), {}
    folded.CopyFrom(model)
    for name, value in given.items():
        if value is None or isinstance(value, list) or np.asarray(value).dtype.kind in "OSU":
            left[name] = value
        else:
            folded.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(value), name))
    kept = [value for value in folded.graph.input if value.name in left]
    del folded.graph.input[:]
    folded.graph.input.extend(kept)
    return folded, left


def _same(one: Any, other: Any) -> None:
    if isinstance(one, list):
        for each, its in zip(one, other, strict=True):
            _same(each, its)
        return
    assert (one.shape, one.dtype) == (other.shape, other.dtype), "with constants another shape or type"
    if one.dtype == object:
        assert np.array_equal(one, other), "with constants another answer"
        return
    rtol = 2**-6 if one.dtype.name == "bfloat16" else 1e-3
    one, other = (each.astype(np.float64 if each.dtype.kind == "V" else each.dtype) for each in (one, other))
    assert np.allclose(one, other, rtol=rtol, atol=1e-5, equal_nan=True), "with constants another answer"


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

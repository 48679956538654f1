"""Walking an ONNX graph, node by node, with TensorFlow operations."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any

from converter.errors import GraphError
from converter.graphs.lower.steps import Body, Step, check_shape, initializers_of, steps_of
from converter.graphs.lower.tensorflow.framework import is_static, tf
from converter.graphs.lower.tensorflow.registry import registry

# What these give is not known while the graph is built, though their inputs may be.
_RANDOM = frozenset(
    ("Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "function")
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reference:
    """An initializer that names a tensor of the checkpoint."""

    variable: Any
    dtype: Any


def lower(model: Any, variables: Mapping[str, Any]) -> Callable[..., dict[str, Any]]:
    """Return a function of the graph's inputs, by name, that returns its outputs by name.

    `model` is an onnx_ir.Model; `variables` holds what its external initializers name, variables or tensors. Called in
    a tf.function it builds the graph; what depends on no input and no variable is computed then, once. Raises
    GraphError, before anything is built, naming all operators without a lowering and all tensors without values.
    """
    steps = steps_of(model, registry(), "TensorFlow")
    references, constants = _initializers(model, variables)
    inputs = tuple(value.name for value in model.graph.inputs)
    outputs = tuple(value.name for value in model.graph.outputs)

    def call(**tensors: Any) -> dict[str, Any]:
        if set(tensors) != set(inputs):
            raise GraphError(f"the graph takes {', '.join(inputs)}, not {', '.join(tensors) or 'nothing'}")
        values: dict[str | None, Any] = {None: None}
        values.update(constants)
        values.update(tensors)
        for name, reference in references.items():
            values[name] = tf.cast(tf.convert_to_tensor(reference.variable), reference.dtype)
        _walk(steps, values)
        return {name: _as_tensors(values[name]) for name in outputs}

    return call


def _walk(steps: Iterable[Step], values: MutableMapping[str | None, Any]) -> None:
    for step in steps:
        for (name, shape), value in zip(step.outputs, _run(step, values), strict=False):
            values[name] = _with_shape(value, shape, step)


def _function(body: Body, around: MutableMapping[str | None, Any]) -> Callable[..., tuple[Any, ...]]:
    """Return a body as a function of its inputs, which sees the values around it."""

    def call(*inputs: Any) -> tuple[Any, ...]:
        # A function's optional inputs may be left out at its end.
        own: dict[str | None, Any] = dict.fromkeys(body.inputs)
        own.update(body.constants)
        own.update(zip(body.inputs, inputs, strict=False))
        values = ChainMap(own, around)
        _walk(body.steps, values)
        return tuple(values[name] for name in body.outputs)

    return call


def _as_tensors(value: Any) -> Any:
    if value is None:
        return None
    return [_as_tensors(each) for each in value] if isinstance(value, list) else tf.convert_to_tensor(value)


def _run(step: Step, values: MutableMapping[str | None, Any]) -> tuple[Any, ...]:
    arguments = [values[name] for name in step.inputs]
    captured = [values[name] for body in step.bodies.values() for name in body.captured]
    keywords = dict(step.attributes)
    keywords.update((name, _function(body, values)) for name, body in step.bodies.items())
    if step.operator.takes_output_count:
        keywords["output_count"] = len(step.outputs)
    try:
        if step.operator.op_type in _RANDOM or not is_static(*arguments, *captured):
            return _as_tuple(step.operator.function(*arguments, **keywords))
        with tf.init_scope():
            return tuple(_as_array(value) for value in _as_tuple(step.operator.function(*arguments, **keywords)))
    except GraphError as error:
        raise GraphError(f"node {step.name} ({step.operator.op_type}): {error.message}") from error
    except (ValueError, tf.errors.OpError) as error:
        reason = " ".join(str(error).split())[:300]
        raise GraphError(f"node {step.name} ({step.operator.op_type}) cannot be lowered: {reason}") from error


def _as_tuple(result: Any) -> tuple[Any, ...]:
    return result if isinstance(result, tuple) else (result,)


def _as_array(value: Any) -> Any:
    if value is None or isinstance(value, list):
        return None if value is None else [_as_array(each) for each in value]
    return value.numpy() if tf.is_tensor(value) and value.shape.rank else _as_scalar(value)


def _as_scalar(value: Any) -> Any:
    import numpy as np

    return np.asarray(value.numpy() if tf.is_tensor(value) else value)


def _with_shape(value: Any, shape: tuple[int | None, ...] | None, step: Step) -> Any:
    """Restore what reshaping by a run-time shape loses: rank and static extents, as the graph declares them."""
    if shape is None or not tf.is_tensor(value):
        return value
    try:
        value.set_shape(shape)
    except ValueError as error:
        raise GraphError(
            f"node {step.name} ({step.operator.op_type}) gives {value.shape}, the graph declares {list(shape)}"
        ) from error
    return value


def _initializers(model: Any, variables: Mapping[str, Any]) -> tuple[dict[str, _Reference], Mapping[str, Any]]:
    held = initializers_of(model)
    references: dict[str, _Reference] = {}
    for name, (dtype, shape) in held.references.items():
        if name not in variables:
            raise GraphError("is used by the graph, and there is neither a variable nor a constant for it", tensor=name)
        check_shape(name, variables[name].shape, shape)
        references[name] = _Reference(variable=variables[name], dtype=tf.as_dtype(dtype))
    return references, held.constants

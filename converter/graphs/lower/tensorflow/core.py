"""Walking an ONNX graph, node by node, with TensorFlow operations."""

from __future__ import annotations

from collections import ChainMap, Counter
from collections.abc import Callable, Collection, Iterable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from converter.errors import GraphError
from converter.graphs.lower.steps import Body, Step, check_shape, initializers_of, steps_of
from converter.graphs.lower.tensorflow.framework import is_static, rank_of, tf
from converter.graphs.lower.tensorflow.registry import registry
from converter.model.kernels import weight_axes

# What these give is not known while the graph is built, though their inputs may be.
_RANDOM = frozenset(
    ("Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "function")
)


_LARGE_BYTES = 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reference:
    """An initializer that names a tensor of the checkpoint."""

    variable: Any
    dtype: Any
    is_kernel: bool

    def read(self) -> Any:
        """Return the tensor as the graph has it. Grappler cancels the transposition of a kernel with its use's."""
        value = tf.cast(tf.convert_to_tensor(self.variable), self.dtype)
        return tf.transpose(value, weight_axes(rank_of(value))) if self.is_kernel else value


def lower(model: Any, variables: Mapping[str, Any], kernels: Collection[str] = ()) -> Callable[..., dict[str, Any]]:
    """Return a function of the graph's inputs, by name, that returns its outputs by name.

    `model` is an onnx_ir.Model; `variables` holds what its external initializers name, variables or tensors, `kernels`
    of which are laid out as kernels. Called in a tf.function it builds the graph; what depends on no input and no
    variable is computed then, once. Raises GraphError, before anything is built, naming all operators without a
    lowering and all tensors without values.
    """
    steps = steps_of(model, registry(), "TensorFlow")
    references, constants = _initializers(model, variables, kernels)
    often = _often_chosen_from(steps)
    inputs = tuple(value.name for value in model.graph.inputs)
    outputs = tuple(value.name for value in model.graph.outputs)

    def call(**tensors: Any) -> dict[str, Any]:
        if set(tensors) != set(inputs):
            raise GraphError(f"the graph takes {', '.join(inputs)}, not {', '.join(tensors) or 'nothing'}")
        values: dict[str | None, Any] = {None: None}
        values.update({name: _kept_once(value) if name in often else value for name, value in constants.items()})
        values.update(tensors)
        for name, reference in references.items():
            values[name] = reference.read()
        _walk(steps, values, often)
        return {name: _as_tensors(values[name]) for name in outputs}

    return call


def _often_chosen_from(steps: Iterable[Step]) -> set[str | None]:
    """Return what several nodes choose from, and none computes with; each would get an array of its own."""
    chosen: list[str | None] = []
    others: set[str | None] = set()
    for step in steps:
        from_first = step.operator.op_type == "Gather"
        chosen += step.inputs[:from_first]
        others.update(step.inputs[from_first:])
        others.update(name for body in step.bodies.values() for name in body.captured)
    return {name for name, count in Counter(chosen).items() if count > 1} - others


def _kept_once(value: Any) -> Any:
    """Return a tensor in the place of a large array: graphs hold an array for every use."""
    return tf.constant(value) if isinstance(value, np.ndarray) and value.nbytes >= _LARGE_BYTES else value


def _walk(steps: Iterable[Step], values: MutableMapping[str | None, Any], often: Collection[str | None] = ()) -> None:
    for step in steps:
        for (name, shape), value in zip(step.outputs, _run(step, values), strict=False):
            values[name] = _with_shape(_kept_once(value) if name in often else value, shape)


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
        raise GraphError(f"node {step.name} ({step.operator.op_type}): {error.message}", hint=error.hint) from error
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
    return np.asarray(value.numpy() if tf.is_tensor(value) else value)


def _with_shape(value: Any, shape: tuple[int | None, ...] | None) -> Any:
    """Restore what reshaping by a run-time shape loses: rank and static extents, as the graph declares them.

    A declaration that is not so is passed over, as onnxruntime does: exporters have written those of other axes.
    """
    if shape is not None and tf.is_tensor(value) and value.shape.is_compatible_with(shape):
        value.set_shape(shape)
    return value


def _initializers(
    model: Any, variables: Mapping[str, Any], kernels: Collection[str]
) -> tuple[dict[str, _Reference], Mapping[str, Any]]:
    held = initializers_of(model)
    references: dict[str, _Reference] = {}
    for name, (dtype, shape) in held.references.items():
        if name not in variables:
            raise GraphError("is used by the graph, and there is neither a variable nor a constant for it", tensor=name)
        extents, is_kernel = tuple(variables[name].shape), name in kernels
        check_shape(name, [extents[axis] for axis in weight_axes(len(extents))] if is_kernel else extents, shape)
        references[name] = _Reference(variable=variables[name], dtype=tf.as_dtype(dtype), is_kernel=is_kernel)
    return references, held.constants

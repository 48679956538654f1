"""Walking an ONNX graph, node by node, with TensorFlow operations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from converter.errors import GraphError
from converter.graphs.lower.tensorflow.framework import is_static, tf
from converter.graphs.lower.tensorflow.registry import Operator, registry

_LISTED_LIMIT = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class _Step:
    """One node, resolved: nothing about it is left to find out while the graph is built."""

    name: str
    operator: Operator
    inputs: tuple[str | None, ...]
    attributes: Mapping[str, Any]
    outputs: tuple[tuple[str, tuple[int | None, ...] | None], ...]


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
    steps = _steps(model)
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
        for step in steps:
            for (name, shape), value in zip(step.outputs, _run(step, values), strict=False):
                values[name] = _with_shape(value, shape, step)
        return {name: tf.convert_to_tensor(values[name]) for name in outputs}

    return call


def _run(step: _Step, values: Mapping[str | None, Any]) -> tuple[Any, ...]:
    arguments = [values[name] for name in step.inputs]
    keywords = dict(step.attributes)
    if step.operator.takes_output_count:
        keywords["output_count"] = len(step.outputs)
    try:
        if not is_static(*arguments):
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
    if isinstance(value, list):
        return [_as_array(each) for each in value]
    return value.numpy() if tf.is_tensor(value) and value.shape.rank else _as_scalar(value)


def _as_scalar(value: Any) -> Any:
    import numpy as np

    return np.asarray(value.numpy() if tf.is_tensor(value) else value)


def _with_shape(value: Any, shape: tuple[int | None, ...] | None, step: _Step) -> Any:
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


def _steps(model: Any) -> tuple[_Step, ...]:
    operators = registry()
    steps: list[_Step] = []
    missing: list[str] = []
    for node in model.graph:
        version = node.version or model.opset_imports.get(node.domain, 1)
        operator = operators.find(node.domain, node.op_type, version)
        inputs = tuple(None if value is None else value.name for value in node.inputs)
        what = f"{node.op_type} (domain {node.domain or 'ai.onnx'!r}, opset {version}, node {node.name})"
        if operator is None or any(_is_subgraph(attribute) for attribute in node.attributes.values()):
            missing.append(what)
            continue
        attributes = {name: _attribute(attribute) for name, attribute in node.attributes.items()}
        mismatch = operator.mismatch(len(inputs), attributes)
        if mismatch is not None:
            missing.append(f"{what}: {mismatch}")
            continue
        outputs = tuple((value.name, _declared_shape(value)) for value in node.outputs)
        steps.append(_Step(name=node.name, operator=operator, inputs=inputs, attributes=attributes, outputs=outputs))
    if missing:
        shown = ", ".join(missing[:_LISTED_LIMIT]) + (", ..." if len(missing) > _LISTED_LIMIT else "")
        raise GraphError(f"no TensorFlow lowering for {len(missing)} node(s): {shown}")
    return tuple(steps)


def _is_subgraph(attribute: Any) -> bool:
    return attribute.type.name in ("GRAPH", "GRAPHS")


def _attribute(attribute: Any) -> Any:
    return attribute.value.numpy() if attribute.type.name == "TENSOR" else attribute.value


def _declared_shape(value: Any) -> tuple[int | None, ...] | None:
    if value.shape is None:
        return None
    return tuple(extent if isinstance(extent, int) else None for extent in value.shape)


def _initializers(model: Any, variables: Mapping[str, Any]) -> tuple[dict[str, _Reference], dict[str, Any]]:
    import onnx_ir

    references: dict[str, _Reference] = {}
    constants: dict[str, Any] = {}
    for name, value in model.graph.initializers.items():
        tensor = value.const_value
        if tensor is not None and not isinstance(tensor, onnx_ir.ExternalTensor):
            constants[name] = tensor.numpy()
            continue
        if name not in variables:
            raise GraphError("is used by the graph, and there is neither a variable nor a constant for it", tensor=name)
        variable = variables[name]
        declared = _declared_shape(value)
        if declared is not None and tuple(variable.shape) != declared:
            raise GraphError(f"has shape {list(variable.shape)}, the graph declares {list(declared)}", tensor=name)
        references[name] = _Reference(variable=variable, dtype=tf.as_dtype(value.dtype.numpy()))
    return references, constants

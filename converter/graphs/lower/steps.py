"""An onnx_ir.Model as steps to walk: every node resolved to the function that lowers it, in any framework."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from converter.errors import GraphError
from converter.graphs.description.traced import MODULE_KEY, PADDING_ROW_KEY
from converter.graphs.lower.onnx import attributes
from converter.graphs.lower.onnx.definitions import definition_of
from converter.graphs.lower.registry import Operator, Registry

Shape = tuple[int | None, ...]
_LISTED_LIMIT = 20
_DOMAINS = ("", "ai.onnx", "ai.onnx.preview.training")
_DIGITS_LIMIT = 18
_DEPTH_LIMIT = 16  # of functions defined by functions: a model's own might go round in a circle


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One node, resolved: nothing about it is left to find out while the graph is built.

    `outputs` are names, each with the shape that the graph declares, `output_type` the declared TensorProto.DataType of
    the first. `bodies` are the attributes that are graphs; the lowering takes them as functions of their inputs that
    return a tuple of their outputs.
    """

    name: str
    operator: Operator
    inputs: tuple[str | None, ...]
    attributes: Mapping[str, Any]
    bodies: Mapping[str, Body]
    outputs: tuple[tuple[str, Shape | None], ...]
    output_type: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    """A graph inside a node, or the body of a function. `captured` are what it reads of the graphs around it."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    steps: tuple[Step, ...]
    constants: Mapping[str, Any]
    captured: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Initializers:
    """What a graph holds besides nodes.

    `references` are the names of tensors of the checkpoint, each with its element type (numpy) and declared shape;
    `constants` are arrays.
    """

    references: Mapping[str, tuple[Any, Shape | None]]
    constants: Mapping[str, Any]


def steps_of(model: Any, registry: Registry, framework: str) -> tuple[Step, ...]:
    """Return the nodes of an onnx_ir.Model in order. Raises GraphError naming all that `registry` does not lower.

    A node without a lowering that ONNX or the model defines by other operators becomes a step that calls its body.
    """
    resolver = _Resolver(registry=registry, functions=model.functions)
    steps = resolver.steps(model.graph, model.opset_imports, None)
    missing = resolver.missing
    if missing:
        shown = ", ".join(missing[:_LISTED_LIMIT]) + (", ..." if len(missing) > _LISTED_LIMIT else "")
        raise GraphError(f"no {framework} lowering for {len(missing)} node(s): {shown}")
    return steps


def initializers_of(model: Any) -> Initializers:
    """Return the initializers of an onnx_ir.Model, without reading those that lie outside the file."""
    import onnx_ir

    references, constants = {}, {}
    for name, value in model.graph.initializers.items():
        tensor = value.const_value
        if tensor is not None and not isinstance(tensor, onnx_ir.ExternalTensor):
            constants[name] = tensor.numpy()
        else:
            references[name] = (value.dtype.numpy(), _declared_shape(value))
    return Initializers(references=references, constants=constants)


def check_shape(name: str, shape: Any, declared: Shape | None) -> None:
    """Raise GraphError when a tensor of the checkpoint has another shape than the graph declares."""
    if declared is not None and tuple(shape) != declared:
        raise GraphError(f"has shape {list(shape)}, the graph declares {list(declared)}", tensor=name)


def _label(node: Any) -> str:
    """Return what errors call a node: its name and, where the exporter knew it, the module that it is of."""
    path = node.metadata_props.get(MODULE_KEY)
    return str(node.name) if not path else f"{node.name} of {path}"


Passed = Any
"""An input as the graph around has it: a constant stays one inside of a function."""


def _call(*inputs: Passed, body: Any) -> Any:
    return body(*inputs)


_CALL = Operator(op_type="function", domain="", since=1, function=_call, signature=inspect.signature(_call))


class _Resolver:
    """Turns nodes into steps, graphs in graphs and bodies of functions included; collects what has no lowering."""

    def __init__(self, *, registry: Registry, functions: Any) -> None:
        self._registry = registry
        self._functions = functions
        self._depth = 0
        self.missing: list[str] = []

    def steps(self, graph: Any, opsets: Mapping[str, int], bound: Mapping[str, Any] | None) -> tuple[Step, ...]:
        """Resolve the nodes of a graph; `bound` are the attributes of the function it belongs to, if it does."""
        return tuple(step for node in graph if (step := self._step(node, opsets, bound)) is not None)

    def _step(self, node: Any, opsets: Mapping[str, int], bound: Mapping[str, Any] | None) -> Step | None:
        version = node.version or opsets.get(node.domain, 1)
        resolved = _resolved(node.attributes, bound)
        if node.domain in _DOMAINS:
            _check(node, resolved)
        inputs = tuple(None if value is None or not value.name else value.name for value in node.inputs)
        outputs = tuple((value.name, _declared_shape(value)) for value in node.outputs)
        operator = self._registry.find(node.domain, node.op_type, version)
        mismatch = None if operator is None else operator.mismatch(len(inputs), resolved)
        if operator is None or mismatch is not None:
            body = self._defined(node, version, resolved)
            if body is not None:
                return Step(
                    name=_label(node),
                    operator=_CALL,
                    inputs=inputs,
                    attributes={},
                    bodies={"body": body},
                    outputs=outputs,
                )
            what = f"{node.op_type} (domain {node.domain or 'ai.onnx'!r}, opset {version}, node {_label(node)})"
            self.missing.append(what if mismatch is None else f"{what}: {mismatch}")
            return None
        bodies = {
            name: self._body(attribute.value, opsets, bound)
            for name, attribute in resolved.items()
            if attribute.type.name == "GRAPH"
        }
        values = {name: _attribute(each) for name, each in resolved.items() if name not in bodies}
        if operator.takes_padding_row:
            values |= _padding_row(node)
        return Step(
            name=_label(node),
            operator=operator,
            inputs=inputs,
            attributes=values,
            bodies=bodies,
            outputs=outputs,
            output_type=next((int(each.dtype) for each in node.outputs[:1] if each.dtype is not None), None),
        )

    def _defined(self, node: Any, version: int, resolved: Mapping[str, Any]) -> Body | None:
        definition = definition_of(node, version, self._functions)
        if definition is None or self._depth == _DEPTH_LIMIT:
            return None
        self._depth += 1
        function = definition.function
        body = self._body(function, definition.opsets, {**definition.attributes, **resolved})
        self._depth -= 1
        return body

    def _body(self, graph: Any, opsets: Mapping[str, int], bound: Mapping[str, Any] | None) -> Body:
        inputs = tuple(value.name for value in graph.inputs)
        outputs = tuple(value.name for value in graph.outputs)
        held = getattr(graph, "initializers", {})
        constants = {name: value.const_value.numpy() for name, value in held.items()}
        resolved = self.steps(graph, opsets, bound)
        constants |= {each.outputs[0][0]: array for each in resolved if (array := _constant(each)) is not None}
        steps = tuple(_with_constants_outside(each, constants) for each in resolved if _constant(each) is None)
        own, captured = {*inputs, *constants}, dict[str, None]()
        for step in steps:
            read = (*step.inputs, *(name for body in step.bodies.values() for name in body.captured))
            captured.update((name, None) for name in read if name is not None and name not in own)
            own.update(name for name, _ in step.outputs)
        captured.update((name, None) for name in outputs if name not in own)
        return Body(inputs=inputs, outputs=outputs, steps=steps, constants=constants, captured=tuple(captured))


def _constant(step: Step) -> Any:
    """Return the array that a Constant gives, None for anything else."""
    if step.operator.op_type != "Constant":
        return None
    array = step.operator.function(**step.attributes)
    return array if isinstance(array, np.ndarray) else None


def _with_constants_outside(step: Step, constants: dict[str, Any]) -> Step:
    """Let a call of a function take the constants of that, which are put to the others of the graph that it is in."""
    body = step.bodies.get("body")
    if step.operator is not _CALL or body is None or not body.constants:
        return step
    names = {name: f"{step.name}/{name}" for name in body.constants}
    constants.update((names[name], array) for name, array in body.constants.items())
    left_out = [None] * (len(body.inputs) - len(step.inputs))
    inside = replace(body, inputs=(*body.inputs, *names), constants={})
    return replace(step, inputs=(*step.inputs, *left_out, *names.values()), bodies={"body": inside})


def _padding_row(node: Any) -> dict[str, int]:
    """Return the keyword that says which row of an embedding is not trained, nothing where the node does not say it."""
    row = node.metadata_props.get(PADDING_ROW_KEY, "")
    return {"padding_row": int(row)} if row.isdecimal() and len(row) <= _DIGITS_LIMIT else {}


def _check(node: Any, resolved: Mapping[str, Any]) -> None:
    try:
        attributes.check(node.op_type, {name: each.value for name, each in resolved.items()})
    except GraphError as error:
        raise GraphError(f"node {_label(node)}: {error.message}", hint=error.hint) from error


def _resolved(declared: Mapping[str, Any], bound: Mapping[str, Any] | None) -> dict[str, Any]:
    """Replace references to the attributes of a function by what they stand for; absent ones are left out."""
    resolved = {}
    for name, attribute in declared.items():
        if not attribute.is_ref():
            resolved[name] = attribute
        elif bound is not None and attribute.ref_attr_name in bound:
            resolved[name] = bound[attribute.ref_attr_name]
    return resolved


def _attribute(attribute: Any) -> Any:
    return attribute.value.numpy() if attribute.type.name == "TENSOR" else attribute.value


def _declared_shape(value: Any) -> Shape | None:
    if value.shape is None:
        return None
    return tuple(extent if isinstance(extent, int) else None for extent in value.shape)

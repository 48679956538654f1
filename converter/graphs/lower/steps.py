"""An onnx_ir.Model as steps to walk: every node resolved to the function that lowers it, in any framework."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from converter.errors import GraphError
from converter.graphs.lower.registry import Operator, Registry

Shape = tuple[int | None, ...]
_LISTED_LIMIT = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One node, resolved: nothing about it is left to find out while the graph is built.

    `outputs` are names, each with the shape that the graph declares. `bodies` are the attributes that are graphs.
    """

    name: str
    operator: Operator
    inputs: tuple[str | None, ...]
    attributes: Mapping[str, Any]
    bodies: Mapping[str, Body]
    outputs: tuple[tuple[str, Shape | None], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    """A graph inside a node. `captured` are the values of the graphs around it that it reads."""

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
    """Return the nodes of an onnx_ir.Model in order. Raises GraphError naming all that `registry` does not lower."""
    missing: list[str] = []
    steps = _steps(model.graph, model.opset_imports, registry, missing)
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


def _steps(graph: Any, opsets: Mapping[str, int], registry: Registry, missing: list[str]) -> tuple[Step, ...]:
    steps: list[Step] = []
    for node in graph:
        version = node.version or opsets.get(node.domain, 1)
        operator = registry.find(node.domain, node.op_type, version)
        what = f"{node.op_type} (domain {node.domain or 'ai.onnx'!r}, opset {version}, node {node.name})"
        if operator is None:
            missing.append(what)
            continue
        inputs = tuple(None if value is None or not value.name else value.name for value in node.inputs)
        mismatch = operator.mismatch(len(inputs), node.attributes)
        if mismatch is not None:
            missing.append(f"{what}: {mismatch}")
            continue
        bodies = {
            name: _body(attribute.value, opsets, registry, missing)
            for name, attribute in node.attributes.items()
            if attribute.type.name == "GRAPH"
        }
        attributes = {name: _attribute(each) for name, each in node.attributes.items() if name not in bodies}
        outputs = tuple((value.name, _declared_shape(value)) for value in node.outputs)
        steps.append(
            Step(
                name=node.name, operator=operator, inputs=inputs, attributes=attributes, bodies=bodies, outputs=outputs
            )
        )
    return tuple(steps)


def _body(graph: Any, opsets: Mapping[str, int], registry: Registry, missing: list[str]) -> Body:
    steps = _steps(graph, opsets, registry, missing)
    inputs = tuple(value.name for value in graph.inputs)
    outputs = tuple(value.name for value in graph.outputs)
    constants = {name: value.const_value.numpy() for name, value in graph.initializers.items()}
    own, captured = {*inputs, *constants}, dict[str, None]()
    for step in steps:
        read = (*step.inputs, *(name for body in step.bodies.values() for name in body.captured))
        captured.update((name, None) for name in read if name is not None and name not in own)
        own.update(name for name, _ in step.outputs)
    captured.update((name, None) for name in outputs if name not in own)
    return Body(inputs=inputs, outputs=outputs, steps=steps, constants=constants, captured=tuple(captured))


def _attribute(attribute: Any) -> Any:
    return attribute.value.numpy() if attribute.type.name == "TENSOR" else attribute.value


def _declared_shape(value: Any) -> Shape | None:
    if value.shape is None:
        return None
    return tuple(extent if isinstance(extent, int) else None for extent in value.shape)

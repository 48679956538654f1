"""Operators that ONNX itself defines by others: a node's body, where no lowering of its own exists.

Source: the functions of https://onnx.ai/onnx/operators/ (onnx.defs), and those a model brings (ModelProto.functions).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Definition:
    """A node's body: an onnx_ir.Function, and what its references to attributes stand for (onnx_ir.Attr by name)."""

    function: Any
    attributes: dict[str, Any]

    @property
    def opsets(self) -> dict[str, int]:
        """The opsets it is written in. Definitions of the preview domains leave out that of ONNX: the newest."""
        import onnx

        return {"": onnx.defs.onnx_opset_version(), **self.function.opset_imports}


def definition_of(node: Any, version: int, local: Any) -> Definition | None:
    """Return the definition of an onnx_ir.Node at an opset, None when it has none.

    `local` is the model's own functions (onnx_ir.Model.functions). Some definitions of ONNX depend on the types of the
    node's inputs: there is none while those are unknown.
    """
    own = local.get(node.op_identifier())
    if own is not None:
        defaults = {name: each for name, each in own.attributes.items() if each.value is not None}
        return Definition(function=own, attributes={**defaults, **node.attributes})
    schema = _schema(node, version)
    if schema is None or not set(node.attributes) <= set(schema.attributes):
        return None
    function = _function(schema, node, version)
    if function is None:
        return None
    return Definition(function=function, attributes={**_defaults(schema), **node.attributes})


def _schema(node: Any, version: int) -> Any:
    import onnx

    try:
        return onnx.defs.get_schema(node.op_type, version, "" if node.domain == "ai.onnx" else node.domain)
    except onnx.defs.SchemaError:
        return None


def _function(schema: Any, node: Any, version: int) -> Any:
    import onnx_ir

    plain = [each for each in schema.function_opset_versions if each <= version]
    dependent = [each for each in schema.context_dependent_function_opset_versions if each <= version]
    if plain:
        serialised = schema.get_function_with_opset_version(max(plain))
    elif dependent and (types := _input_types(node)) is not None:
        proto = onnx_ir.serde.serialize_node(node).SerializeToString()
        serialised = schema.get_context_dependent_function_with_opset_version(max(dependent), proto, types)
    else:
        return None
    return onnx_ir.serde.deserialize_function(_complete(serialised)) if serialised else None


def _complete(serialised: bytes) -> Any:
    """Return the FunctionProto, its outputs all made: a definition for one node lacks those the node leaves out.

    onnx_ir refuses that. Nobody reads them, so any value does.
    """
    import onnx

    function = onnx.FunctionProto.FromString(serialised)
    defined = {*function.input, *(name for node in function.node for name in node.output)}
    outputs = [name if name in defined else function.input[0] for name in function.output]
    del function.output[:]
    function.output.extend(outputs)
    return function


def _input_types(node: Any) -> list[bytes] | None:
    import onnx
    import onnx_ir

    types = []
    for value in node.inputs:
        if value is not None and value.name and value.type is None:
            return None
        is_given = value is not None and value.name
        kind = onnx_ir.serde.serialize_value(value).type if is_given else onnx.TypeProto()
        types.append(kind.SerializeToString())
    return types


def _defaults(schema: Any) -> dict[str, Any]:
    import onnx_ir

    return {
        name: onnx_ir.serde.deserialize_attribute(attribute.default_value)
        for name, attribute in schema.attributes.items()
        if attribute.default_value.name
    }

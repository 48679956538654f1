"""Planted operators that TensorFlow would run, were they let pass: with the inputs and attributes that it asks for.

What `hostile_graph_defs` plants is refused by its name; here each node gets what its operator's definition demands, and
every string is a path at which nothing may appear.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.graphs.hostile_graph_defs import Case

_SAID = {
    "PrintV2": {"output_stream": "file://{}"},
    "DebugIdentity": {"debug_urls": ["file://{}"]},
    "DebugIdentityV2": {"debug_urls": ["file://{}"], "dump_root": "{}"},
    "DebugNumericSummary": {"debug_urls": ["file://{}"]},
    "MergeV2Checkpoints": {"allow_missing_files": True},
    "ImmutableConst": {"memory_region_name": "{}"},
    "SaveV2": {"dtypes": [7]},
    "Save": {"T": [7]},
    "SaveSlices": {"T": [7]},
    "DataServiceDatasetV4": {"task_refresh_interval_hint_ms": 1},
}
"""Attributes that have a default, or could be anything."""
_PLAIN = "__planted_plain"
_VECTORS = ("tensor_names", "shape_and_slices", "shapes_and_slices", "checkpoint_prefixes")
_STRING, _BOOL, _FLOAT = 7, 10, 1


def arm(meta_graph: Any, case: Case, mark: str) -> None:
    """Let TensorFlow take what was planted as `case`, and let what it does be at the path `mark`."""
    graph = meta_graph.graph_def
    is_other_branch = case.way == "else_branch"
    graph.library.function.add().signature.name = _PLAIN
    for function in graph.library.function:
        if function.signature.name.startswith("__planted_"):
            for node in list(function.node_def):
                _fill(function.node_def, node, mark, "{}:output:0", value=not is_other_branch)
                if node.name not in function.control_ret.values():  # it is not to be left out as of no use
                    function.control_ret[f"{node.name}_done"] = node.name
                    function.signature.control_output.append(f"{node.name}_done")
    for node in [each for each in graph.node if each.name.startswith("planted_")]:
        _fill(graph.node, node, mark, "{}:0", value=not is_other_branch)
    for node in graph.node:
        if node.name.startswith("planted_") and node.name.endswith("_taken"):
            _take(graph.node, node)


def _take(nodes: Any, node: Any) -> None:
    """Let an Identity be of the type of what it takes; let it wait for what has no output."""
    source = next(each for each in nodes if each.name == node.input[0].partition(":")[0])
    definition = _definition(source.op)
    if definition is None or not definition.output_arg:
        node.op, node.input[0] = "NoOp", f"^{source.name}"
        node.attr.clear()
        return
    argument = definition.output_arg[0]
    node.attr["T"].type = argument.type or source.attr[argument.type_attr].type


def _definition(operator: str) -> Any:
    from tensorflow.python.framework import op_def_registry

    return op_def_registry.get(operator)


def _fill(nodes: Any, node: Any, mark: str, reference: str, *, value: bool) -> None:
    definition = _definition(node.op)
    if definition is None or any(not each.startswith("^") for each in node.input):
        return
    said = _SAID.get(node.op, {})
    for attribute in definition.attr:
        if attribute.name in said or (attribute.name not in node.attr and not attribute.HasField("default_value")):
            _say(node.attr[attribute.name], attribute, said.get(attribute.name), mark)
    waited_for = list(node.input)
    del node.input[:]
    for argument in definition.input_arg:
        for number, type_number in enumerate(_types(definition, argument, node)):
            constant = nodes.add(name=f"{node.name}_{argument.name}_{number}", op="Const")
            constant.attr["dtype"].type = type_number
            constant.attr["value"].tensor.CopyFrom(_constant(type_number, argument.name, mark, value=value))
            node.input.append(reference.format(constant.name))
    node.input.extend(waited_for)


def _say(value: Any, attribute: Any, said: Any, mark: str) -> None:
    match attribute.type, said:
        case "type", _:
            allowed = attribute.allowed_values.list.type
            value.type = _BOOL if attribute.name == "Tcond" else _STRING if not allowed else allowed[0]
        case "list(type)", _:
            value.list.type.extend(said or [_STRING] * attribute.minimum)
        case "string", _:
            allowed = attribute.allowed_values.list.s
            value.s = allowed[0] if allowed else (said or "{}").format(mark).encode()
        case "list(string)", _:
            value.list.s.extend(each.format(mark).encode() for each in said or ["{}"])
        case "int", _:
            value.i = said or max(attribute.minimum, 1)
        case "bool", _:
            value.b = bool(said)
        case "float", _:
            value.f = 1.0
        case "func", _:
            value.func.name = _PLAIN
        case "shape", _:
            value.shape.SetInParent()
        case "list(shape)", _:
            value.list.shape.add()
        case _:
            pass


def _types(definition: Any, argument: Any, node: Any) -> Iterator[int]:
    """Yield the type of every tensor that an argument is."""
    defaults = {each.name: each.default_value for each in definition.attr}
    said = {name: node.attr.get(name, default) for name, default in defaults.items()}
    if argument.type_list_attr:
        yield from said[argument.type_list_attr].list.type
        return
    type_number = argument.type or said[argument.type_attr].type
    yield from [type_number] * (said[argument.number_attr].i if argument.number_attr else 1)


def _constant(type_number: int, name: str, mark: str, *, value: bool) -> Any:
    import tensorflow as tf

    dtype = tf.as_dtype(type_number)
    if dtype.is_compatible_with(tf.resource) or dtype.is_compatible_with(tf.variant):
        return tf.make_tensor_proto(0.0)  # there is none: TensorFlow refuses the graph
    said = "" if "slice" in name else mark
    one = said if dtype == tf.string else value if dtype == tf.bool else 1
    return tf.make_tensor_proto([one] if name in _VECTORS else one, dtype)

"""Calls in the bodies of functions replaced by the bodies of what they call.

TensorFlow's own optimiser does so in the main graph, and leaves the bodies of loops and branches as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from converter.errors import GraphError

CALLS = ("PartitionedCall", "StatefulPartitionedCall")


def inline_calls(function: Any, functions: Mapping[str, Any], outer: frozenset[str] = frozenset()) -> None:
    """Change a FunctionDef so that it calls none of `functions` but as a branch or the body of a loop.

    Control edges from a call go: only outputs count. Raises GraphError for a function that calls itself.
    """
    name = function.signature.name
    if name in outer:
        raise GraphError(f"function {name!r} calls itself")
    nodes: list[Any] = []
    results: dict[str, str] = {}
    calls: set[str] = set()
    for node in function.node_def:
        callee = functions.get(node.attr["f"].func.name) if node.op in CALLS else None
        if callee is None:
            nodes.append(node)
            continue
        inline_calls(callee, functions, outer | {name})
        calls.add(node.name)
        nodes += _body(node, callee, results)
    if not calls:
        return
    kept = []
    for node in nodes:
        copy = type(node)()
        copy.CopyFrom(node)
        copy.input[:] = [_resolved(each, results) for each in node.input if not (each[0] == "^" and each[1:] in calls)]
        kept.append(copy)
    del function.node_def[:]
    function.node_def.extend(kept)
    for key, returned in list(function.ret.items()):
        function.ret[key] = _resolved(returned, results)


def _body(call: Any, callee: Any, results: dict[str, str]) -> list[Any]:
    """Return the nodes of `callee` as a part of its caller; what stands for the call's outputs goes into `results`."""
    inputs = [each for each in call.input if each[0] != "^"]
    arguments: dict[str, str] = {
        argument.name: each for argument, each in zip(callee.signature.input_arg, inputs, strict=True)
    }

    def placed(reference: str) -> str:
        is_control = reference.startswith("^")
        name, colon, rest = reference.removeprefix("^").partition(":")
        if name in arguments and not colon:
            return arguments[name]
        return f"{'^' * is_control}{call.name}/{name}{colon}{rest}"

    nodes = []
    for node in callee.node_def:
        copy = type(node)()
        copy.CopyFrom(node)
        copy.name = f"{call.name}/{node.name}"
        copy.input[:] = [placed(each) for each in node.input]
        nodes.append(copy)
    for number, output in enumerate(callee.signature.output_arg):
        results[f"{call.name}:output:{number}"] = placed(callee.ret[output.name])
    return nodes


def _resolved(reference: str, results: Mapping[str, str]) -> str:
    while reference in results:
        reference = results[reference]
    return reference

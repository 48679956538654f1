"""Loops over a known number of steps, as such: what exporters of while loops have every step find out.

tf2onnx writes the loops of recurrent layers with the number of steps, and also with a condition that holds until they
are done; with a counter and the layers' weights among the states. A loop that only counts can be unrolled or scanned.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from converter.graphs.passes.constants import constant, constant_node

_SAME = ("Cast", "Identity")


def simplify(graph: Any, loop: Any) -> None:
    """Drop states of a Loop that never change or count its steps, and a condition that the number of steps implies."""
    body, count = loop.attributes["body"].value, loop.inputs[0]
    states = list(zip(body.inputs[2:], loop.inputs[2:], body.outputs[1:], loop.outputs, strict=False))
    dropped = []
    for at, (before, initial, after, last) in enumerate(states):
        if last.is_graph_output() or initial is None or sum(_origin(each) is before for each in body.outputs) > 1:
            continue
        if _origin(after) is before:
            last.replace_all_uses_with(initial)
            now = initial
        elif not last.uses() and _number(initial) == 0 and _is_next(after, before):
            now = _cast(body, body.inputs[0], before)
        else:
            continue
        body.outputs[1 + at] = body.inputs[1]  # until it goes: what is an output cannot be replaced
        before.replace_all_uses_with(now)
        dropped.append(at)
    loop = _without(graph, loop, dropped) if dropped else loop
    if count is not None and _is_implied(body.outputs[0], body.inputs[0], count):
        body.outputs[0] = body.inputs[1]
        if loop.inputs[1] is not None and _is_implied(loop.inputs[1], None, count):
            loop.replace_input_with(1, _true(graph, loop))


def _without(graph: Any, loop: Any, dropped: list[int]) -> Any:
    """Return the node without these states that took the place of `loop`."""
    import onnx_ir

    body = loop.attributes["body"].value
    for at in reversed(dropped):
        body.outputs.pop(1 + at)
        body.inputs.pop(2 + at)
    kept = [output for at, output in enumerate(loop.outputs) if at not in dropped]
    inputs = [value for at, value in enumerate(loop.inputs) if at - 2 not in dropped]
    attributes = list(loop.attributes.values())
    smaller = onnx_ir.Node("", "Loop", inputs, attributes, num_outputs=len(kept), name=loop.name, version=loop.version)
    smaller.metadata_props.update(loop.metadata_props)
    onnx_ir.convenience.replace_nodes_and_values(graph, loop, [loop], [smaller], kept, smaller.outputs)
    return smaller


def _true(graph: Any, loop: Any) -> Any:
    """Return a constant. A Loop may go without a condition, and onnx's own evaluator takes that for one that fails."""
    node = constant_node(np.array(True), f"{loop.name}/goes_on")
    graph.insert_before(loop, node)
    return node.outputs[0]


def _cast(body: Any, value: Any, to: Any) -> Any:
    """Return `value` in the element type of `to`, cast before anything else in `body`."""
    import onnx_ir

    if to.dtype == value.dtype:
        return value
    node = onnx_ir.node("Cast", [value], {"to": to.dtype}, name=f"{to.name}/cast")
    (output,) = node.outputs
    output.name, output.shape, output.type = f"{to.name}/cast", value.shape, to.type
    body.insert_before(body[0], node)
    return output


def _is_implied(condition: Any, step: Any, count: Any) -> bool:
    """Whether a condition holds in every `step` but the last of `count`; without a step, whether it holds before them.

    Before them there is nothing to be done if `0 < count` does not hold.
    """
    if condition is None:
        return True
    node = condition.producer()
    if node is not None and node.op_type in _SAME:
        return _is_implied(node.inputs[0], step, count)
    if node is not None and node.op_type == "And":
        return all(_is_implied(each, step, count) for each in node.inputs)
    if node is not None and node.op_type == "Less":
        done, limit = (_origin(each) for each in node.inputs)
        is_counter = _number(done) == 0 if step is None else done is step or _is_next(done, step)
        return is_counter and _is_same(limit, _origin(count))
    number = _number(condition)
    return number is not None and bool(number)


def _origin(value: Any) -> Any:
    """Return the value that was cast or passed on to become this one."""
    while value is not None and (node := value.producer()) is not None and node.op_type in _SAME:
        value = node.inputs[0]
    return value


def _is_same(one: Any, other: Any) -> bool:
    number = _number(one)
    return one is other or (number is not None and number == _number(other))


def _is_next(after: Any, before: Any) -> bool:
    """Whether `after` is `before + 1`."""
    node = _origin(after).producer()
    if node is None or node.op_type != "Add":
        return False
    addends = [_origin(each) for each in node.inputs]
    return before in addends and any(_number(each) == 1 for each in addends)


def _number(value: Any) -> Any:
    array = constant(_origin(value))
    return array.reshape(-1)[0] if array is not None and array.size == 1 else None

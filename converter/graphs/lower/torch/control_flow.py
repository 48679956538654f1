"""If, Loop and Scan: Python's own in a run; torch.cond, while_loop and scan in a torch.export that cannot unroll."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from converter.graphs.lower.torch.bodies import BoundBody
from converter.graphs.lower.torch.framework import Tensor, Value, as_int, as_tensor, is_host, torch
from converter.graphs.lower.torch.registry import REGISTRY, refuse

lowers = REGISTRY.lowers


def _is_known(condition: Any) -> bool:
    return condition is None or is_host(condition) or not torch.compiler.is_exporting()


def _truth(condition: Any) -> bool:
    return bool(condition.reshape(-1)[0])


@lowers("If")
def if_(condition: Value, *, then_branch: BoundBody, else_branch: BoundBody) -> Any:
    """One of two graphs."""
    if _is_known(condition):
        return (then_branch if _truth(condition) else else_branch)()
    then_held, else_held = then_branch.captured_tensors, else_branch.captured_tensors
    operands = {id(tensor): tensor for tensor in (*then_held.values(), *else_held.values())}
    places = {key: place for place, key in enumerate(operands)}

    def branch(body: BoundBody, held: Mapping[str, Any]) -> Any:
        own = {name: places[id(tensor)] for name, tensor in held.items()}
        return lambda *tensors: body.as_tensors({name: tensors[place] for name, place in own.items()})

    # torch.cond itself would have dynamo read these functions; the operator alone traces what they do.
    from torch._higher_order_ops.cond import cond_op

    branches = branch(then_branch, then_held), branch(else_branch, else_held)
    return tuple(cond_op(condition.reshape(()), *branches, tuple(operands.values())))


@lowers("Loop")
def loop(count: Value, condition: Value = None, *states: Value, body: BoundBody) -> Any:
    """While the condition holds, and at most `count` times; what each step gives besides the states is stacked."""
    scans = len(body.outputs) - 1 - len(states)
    only_counts = _is_known(condition) and not body.changes_condition
    is_unrolled = only_counts and is_host(count) and isinstance(as_int(count), int)
    if is_unrolled or not torch.compiler.is_exporting():
        return _looped(None if count is None else as_int(count), condition, states, body, scans)
    if scans and only_counts and count is not None and (condition is None or _truth(condition)):
        return _counted(as_int(count), states, body)
    refuse(scans > 0, "Loop that collects outputs over an unknown number of steps in a torch.export")
    return _while(count, condition, states, body)


def _counted(count: Any, states: Sequence[Any], body: BoundBody) -> Any:
    """As a scan over the numbers of the steps."""

    def step(captured: Mapping[str, Any], *values: Any) -> list[Any]:
        *before, number = values
        return list(body.as_tensors(captured, number, np.array(True), *before)[1:])

    return tuple(_scan_exported(body, states, [torch.arange(count)], step))


def _unknown(state: Any) -> Any:
    """Return a state as a tensor of its own whose value torch does not know: only the first step has it."""
    tensor = as_tensor(state)
    return torch.where(torch.ones((), dtype=torch.bool), tensor, tensor)


def _looped(count: Any, condition: Any, states: Sequence[Any], body: BoundBody, scans: int) -> Any:
    collected: list[list[Any]] = [[] for _ in range(scans)]
    step, goes_on = 0, condition is None or _truth(condition)
    while goes_on and (count is None or step < count):
        new_condition, *results = body(np.array(step, np.int64), np.array(True), *states)
        states = results[: len(states)]
        for into, value in zip(collected, results[len(states) :], strict=True):
            into.append(as_tensor(value))
        step += 1
        goes_on = not body.changes_condition or _truth(new_condition)
    return (*states, *(_stacked(values) for values in collected))


def _stacked(values: list[Any]) -> Any:
    return torch.stack(values) if values else torch.zeros(0)


def _while(count: Any, condition: Any, states: Sequence[Any], body: BoundBody) -> Any:
    from torch._higher_order_ops.while_loop import while_loop_op

    captured = body.captured_tensors
    limit = torch.scalar_tensor(2**62, dtype=torch.int64) if count is None else as_tensor(count).reshape(())
    start = torch.ones((), dtype=torch.bool) if condition is None else as_tensor(condition).reshape(())
    carried = (torch.zeros((), dtype=torch.int64), start.clone(), *map(_unknown, states))

    def goes_on(step: Any, holds: Any, *rest: Any) -> Any:
        return (step < rest[len(states)]) & holds

    def stepped(step: Any, holds: Any, *rest: Any) -> Any:
        own = dict(zip(captured, rest[len(states) + 1 :], strict=True))
        holds, *results = body.as_tensors(own, step, holds, *rest[: len(states)])
        return (step + 1, holds.reshape(()), *results)

    _, _, *results = while_loop_op(goes_on, stepped, carried, (limit, *captured.values()))
    return tuple(results)


@lowers("Scan", since=9)
def scan(
    *values: Tensor,
    body: BoundBody,
    num_scan_inputs: int,
    scan_input_axes: Any = None,
    scan_input_directions: Any = None,
    scan_output_axes: Any = None,
    scan_output_directions: Any = None,
) -> Any:
    """One step per slice of the scanned inputs; what each gives besides the states is stacked."""
    states, scanned = list(values[:-num_scan_inputs]), values[-num_scan_inputs:]
    axes = list(scan_input_axes or [0] * num_scan_inputs)
    backwards = list(scan_input_directions or [0] * num_scan_inputs)
    length = scanned[0].shape[axes[0]]
    slices = [
        _sliced(each, axis, bool(is_backward)) for each, axis, is_backward in zip(scanned, axes, backwards, strict=True)
    ]
    if isinstance(length, int):
        states, collected = _scan_stepped(body, states, slices, length)
    else:
        results = _scan_exported(body, states, slices, lambda *tensors: list(body.as_tensors(*tensors)))
        states, collected = results[: len(states)], results[len(states) :]
    to_axes = list(scan_output_axes or [0] * len(collected))
    reverses = list(scan_output_directions or [0] * len(collected))
    turned = [
        (each.flip(0) if is_reversed else each).movedim(0, axis)
        for each, axis, is_reversed in zip(collected, to_axes, reverses, strict=True)
    ]
    return (*states, *turned)


def _sliced(value: Any, axis: int, is_backward: bool) -> Any:
    """Return the slices of one axis as those of the first, in the order in which they are taken."""
    first = value.movedim(axis, 0)
    return first.flip(0) if is_backward else first


def _scan_stepped(body: BoundBody, states: Sequence[Any], slices: Sequence[Any], length: int) -> tuple[Any, Any]:
    count = len(states)
    collected: list[list[Any]] = [[] for _ in body.outputs[count:]]
    for step in range(length):
        results = body(*states, *(each[step] for each in slices))
        states = list(results[:count])
        for into, value in zip(collected, results[count:], strict=True):
            into.append(as_tensor(value))
    return states, [_stacked(values) for values in collected]


def _scan_exported(body: BoundBody, states: Sequence[Any], slices: Sequence[Any], step: Callable[..., Any]) -> Any:
    """Scan `slices` with what `body` captures; `step` takes that by name, states and slices."""
    from torch._higher_order_ops.scan import scan_op

    captured, inputs = body.captured_tensors, len(states) + len(slices)

    def stepped(*values: Any) -> Any:
        return step(dict(zip(captured, values[inputs:], strict=True)), *values[:inputs])

    return scan_op(stepped, [_unknown(state) for state in states], list(slices), tuple(captured.values()))


@lowers("Scan", since=8)
def scan_of_batches(
    lengths: Tensor, *values: Tensor, body: BoundBody, num_scan_inputs: int, directions: Any = None
) -> Any:
    """Batch by batch, before opset 9, the scanned axis being the second."""
    refuse(lengths is not None, "Scan of sequences of different lengths")
    batches = [
        scan(
            *(value[batch] for value in values),
            body=body,
            num_scan_inputs=num_scan_inputs,
            scan_input_directions=directions,
        )
        for batch in range(values[0].shape[0])
    ]
    return tuple(torch.stack(parts) for parts in zip(*batches, strict=True))

"""Walking steps, those of a graph and those of graphs inside it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from converter.errors import GraphError
from converter.graphs.lower.registry import Lowering
from converter.graphs.lower.steps import Body, Step
from converter.graphs.lower.torch.framework import KINDS, Known, as_tensor, is_host, to_tensor, torch
from converter.graphs.lower.torch.shape_arithmetic import HOST, TAKES_FLOATS


@dataclass(frozen=True, slots=True, kw_only=True)
class BoundBody:
    """A graph inside a node, with the values around it: called with its inputs it returns its outputs."""

    body: Body
    around: Mapping[str | None, Any]

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names of what it returns."""
        return self.body.outputs

    @property
    def changes_condition(self) -> bool:
        """Whether the body of a Loop computes the condition it returns first, instead of passing it on."""
        passed = {self.body.inputs[1]}
        for step in self.body.steps:
            if step.operator.op_type == "Identity" and step.inputs[0] in passed:
                passed.add(step.outputs[0][0])
        constant = self.body.constants.get(self.body.outputs[0])
        return self.body.outputs[0] not in passed and not (constant is not None and bool(np.all(constant)))

    @property
    def captured_tensors(self) -> dict[str, Any]:
        """The tensors that it has from outside: those around it that it reads, and its constants."""
        found = {**{name: self.around[name] for name in self.body.captured}, **self.body.constants}
        return {name: as_tensor(value) for name, value in found.items() if _is_held(value)}

    def __call__(self, *inputs: Any) -> tuple[Any, ...]:
        """Return its outputs for `inputs`."""
        return self._run(inputs, {})

    def as_tensors(self, captured: Mapping[str, Any], *inputs: Any) -> tuple[Any, ...]:
        """Run with these in place of captured tensors; no result is one of the operands, as torch.cond demands."""
        results = [as_tensor(value) for value in self._run(inputs, captured)]
        return tuple(result.clone() for result in results)

    def _run(self, inputs: Sequence[Any], captured: Mapping[str, Any]) -> tuple[Any, ...]:
        values = {**{name: self.around[name] for name in self.body.captured}, **self.body.constants}
        for name, tensor in captured.items():
            array = values[name].array if isinstance(values[name], Known) else values[name]
            values[name] = Known(array=array, tensor=tensor) if is_host(array) and is_small(array) else tensor
        values.update(dict.fromkeys(self.body.inputs))  # a function's optional inputs may be left out at its end
        values.update(zip(self.body.inputs, inputs, strict=False))
        walk(self.body.steps, values)
        return tuple(values[name] for name in self.body.outputs)


def _is_held(value: Any) -> bool:
    """Whether a value has a tensor, or is a constant that can be one: a program has none inside its graphs."""
    return isinstance(value, (Known, torch.Tensor)) or (is_host(value) and value.dtype.kind in "biufc")


def walk(steps: Sequence[Step], values: dict[Any, Any]) -> None:
    """Run steps in order, taking what they read from `values` and putting what they make there."""
    values[None] = None
    for step in steps:
        values.update(zip((name for name, _ in step.outputs), run_step(step, values), strict=False))


def run_step(step: Step, values: Mapping[Any, Any]) -> tuple[Any, ...]:
    """Return the outputs of one step. Raises GraphError naming the node when it cannot be run."""
    try:
        return _run(step, values)
    except GraphError as error:
        if error.message.startswith("node "):
            raise
        raise GraphError(f"node {step.name} ({step.operator.op_type}): {error.message}") from error
    except (RuntimeError, ValueError, IndexError, TypeError, ArithmeticError) as error:
        if torch.compiler.is_exporting():
            raise
        reason = " ".join(str(error).split())[:300]
        raise GraphError(f"node {step.name} ({step.operator.op_type}) cannot be run: {reason}") from error


def _run(step: Step, values: Mapping[Any, Any]) -> tuple[Any, ...]:
    inputs = [values[name] for name in step.inputs]
    on_host = HOST.get(step.operator.op_type)
    kinds = _KINDS_AND_FLOATS if step.operator.op_type in TAKES_FLOATS else _KINDS
    if on_host is not None and inputs and all(_is_arithmetic(value, kinds) for value in inputs):
        arrays = [value.array if isinstance(value, Known) else value for value in inputs]
        result = on_host(*arrays, **step.attributes)
        if result is not None:
            return (result,)
    converters = _converters(step.operator.function, len(inputs))
    arguments = [convert(value) for convert, value in zip(converters, inputs, strict=True)]
    keywords = dict(step.attributes)
    keywords.update((name, BoundBody(body=body, around=values)) for name, body in step.bodies.items())
    if step.operator.takes_output_count:
        keywords["output_count"] = len(step.outputs)
    if step.operator.takes_output_type:
        keywords["output_type"] = step.output_type
    result = step.operator.function(*arguments, **keywords)
    return tuple(result) if isinstance(result, tuple) else (result,)


_KINDS, _KINDS_AND_FLOATS = "iubO", "iubOf"


def _is_arithmetic(value: Any, kinds: str) -> bool:
    """Whether a value can take part in the arithmetic of shapes."""
    array = value.array if isinstance(value, Known) else value
    return array is None or (is_host(array) and array.dtype.kind in kinds)


@cache
def _converters(function: Lowering, count: int) -> tuple[Callable[[Any], Any], ...]:
    kinds: list[Callable[[Any], Any]] = []
    for parameter in inspect.signature(function).parameters.values():
        kind = KINDS.get(str(parameter.annotation).partition(" ")[0], KINDS["Value"])
        if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            kinds += [kind] * (count - len(kinds))
        elif parameter.kind is not inspect.Parameter.KEYWORD_ONLY:
            kinds.append(kind)
    return tuple(kinds[:count])


def known(array: Any) -> Any:
    """Return a constant as a value: an array that can decide shapes, and a tensor of it, or a tensor alone."""
    tensor = to_tensor(array)
    return Known(array=array, tensor=tensor) if is_small(array) else tensor


def is_small(array: Any) -> bool:
    """Whether an array could be a shape, axes or positions."""
    return array.dtype in _HOST_TYPES and array.size <= _HOST_ELEMENTS


_HOST_ELEMENTS = 1024
_HOST_TYPES = (np.int64, np.int32, np.bool_, np.float32, np.float64)

"""A torch.export program out of an ONNX graph, without the weights: the format `pt2` lays those out around it."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from converter.errors import GIVES_EXTENTS, GraphError
from converter.graphs.description.input_names import torch_parameters
from converter.graphs.description.sample_inputs import sample_inputs, sample_sizes
from converter.graphs.description.signature import Signature
from converter.graphs.lower.torch.framework import to_tensor, torch
from converter.graphs.lower.torch.module import lower

_INEQUALITY = re.compile(r"[^=<>!]+ != [^=<>!]+")
_FIXED = re.compile(r"[^=<>!%]+ == \d+")
"""A number of windows or steps that was decided upon; that something divides is a condition, and no length."""
_MORE_THAN_ONE = re.compile(r".+ (> 1|>= 2)")
_EXTENT = re.compile(r"L\['(\w+)'\]\.size\(\)\[(\d+)\]")
_SEED = 20180611
_HALVED = 32
"""What images are multiples of that a graph halves five times, and joins with what it has doubled again."""
# What a node remembers of where it came from: paths of this machine, and most of the file.
_TRACES = ("stack_trace", "nn_module_stack", "source_fn_stack", "torch_fn", "from_node")


def build(
    *,
    graph: str,
    signature: dict[str, Any],
    tensors: dict[str, list[Any]],
    small: dict[str, list[Any]],
    trainable: list[str],
    ties: dict[str, str],
    file: str,
) -> dict[str, str]:
    """Write the program of the ONNX file `graph` into `file`, an archive of torch.export.save without weights.

    `signature`  Signature.to_json(); its inputs are the program's, named dimensions are dynamic
    `tensors`       name -> element type and shape of every tensor; `small` has the values of integer ones that may
                    decide shapes
    `trainable`     those that become parameters, `ties` further names of tensors
    Returns the program's keywords by input name. Raises GraphError when an operator has no lowering, or
    torch.export fails or fixes a dimension that the graph leaves open.
    """
    import onnx_ir

    described = Signature.from_json(signature)
    held = {name: torch.empty(shape, dtype=getattr(torch, dtype)) for name, (dtype, shape) in tensors.items()}
    for name, values in small.items():
        held[name] = torch.tensor(values, dtype=held[name].dtype).reshape(held[name].shape)
    module = lower(onnx_ir.load(graph), held, trainable=trainable, ties=ties)
    program = exported(module, *samples(described))
    _begin_where_they_do(program, described)
    for key, tensor in program.state_dict.items():
        program.state_dict[key] = _stand_in(tensor)
    torch.export.save(program, file)
    return torch_parameters([each.name for each in described.inputs])


def samples(signature: Signature) -> tuple[dict[str, Any], dict[str, dict[int, str]]]:
    """Return inputs to export with, and the dimension of each of their axes that is dynamic."""
    arrays = sample_inputs(signature.inputs, seed=_SEED, sizes=_traced_sizes(signature))
    dynamic = {
        each.name: {axis: extent for axis, extent in enumerate(each.shape) if isinstance(extent, str)}
        for each in signature.inputs
    }
    return {name: to_tensor(array) for name, array in arrays.items()}, dynamic


def _stand_in(tensor: Any) -> Any:
    """A tensor of that shape with a storage of one element: torch saves no program without its state."""
    small = torch.zeros((), dtype=tensor.dtype).expand(tensor.shape) if tensor.numel() else tensor.detach()
    is_parameter = isinstance(tensor, torch.nn.Parameter)
    return torch.nn.Parameter(small, requires_grad=tensor.requires_grad) if is_parameter else small


def _traced_sizes(signature: Signature) -> dict[str, int]:
    """Extents that lie between two at which the program is going to be checked, of images a multiple like these."""
    cases = sample_sizes(signature)[:2]
    between = {name: sorted(case[name] for case in cases) for name in cases[0]}
    return {name: _between(*extents) for name, extents in between.items()}


def _between(low: int, high: int) -> int:
    if low >= _HALVED and low % _HALVED == high % _HALVED == 0:
        return high + _HALVED
    return min(low + 1, high)


def exported(module: Any, inputs: Mapping[str, Any], dynamic: Mapping[str, Mapping[int, str]]) -> Any:
    """Return the torch.export.ExportedProgram of a module of `lower`.

    `dynamic` are the axes that may vary, and their dimensions: axes of one dimension vary together. The program's
    inputs are keywords, and it returns a dict. Raises GraphError with one line of torch's reason.
    """
    import inspect

    called = torch_parameters(list(inputs))
    names = {plain: name for name, plain in called.items()}
    dimensions: dict[str, list[tuple[str, int]]] = {}
    for name, axes in dynamic.items():
        for axis, dimension in axes.items():
            dimensions.setdefault(dimension, []).append((name, axis))

    def forward(**values: Any) -> Any:
        for (first, first_axis), *others in dimensions.values():
            for name, axis in others:
                # Else each input has symbols of its own, and what torch cannot decide of them becomes a guard.
                torch._check(values[called[name]].shape[axis] == values[called[first]].shape[first_axis])
        return type(module).forward(module, **{names[plain]: value for plain, value in values.items()})

    kind = inspect.Parameter.KEYWORD_ONLY
    forward.__signature__ = inspect.Signature([inspect.Parameter(plain, kind) for plain in names])  # type: ignore[attr-defined]
    module.forward = forward
    shapes = {
        called[name]: dict.fromkeys(dynamic.get(name, ()), torch.export.Dim.DYNAMIC) or None
        for name, value in inputs.items()
    }
    try:
        with torch.no_grad():
            program = torch.export.export(
                module,
                (),
                {called[name]: value for name, value in inputs.items()},
                dynamic_shapes=shapes if any(shapes.values()) else None,
                strict=False,
            )
    except GraphError:
        raise
    except Exception as error:
        # torch raises what it likes here, RuntimeError and its own kinds, and prints the graph: one line is kept.
        hint = GIVES_EXTENTS if any(shapes.values()) else None
        raise GraphError(f"torch.export fails: {_reason(error)}", hint=hint) from error
    finally:
        del module.forward
    _check_open(program._guards_code, {(called[name], axis) for name, axes in dynamic.items() for axis in axes})
    for node in program.graph.nodes:
        for key in _TRACES:
            node.meta.pop(key, None)
    # That two extents differ is what torch takes for granted where it goes the general way, which holds where they do
    # not: a table of positions that is as long as the text, a text of one token.
    program._guards_code = [guard for guard in program._guards_code if not _INEQUALITY.fullmatch(guard)]
    return program


def _begin_where_they_do(program: Any, signature: Signature) -> None:
    """Let the extents begin where the signature says that they do, if torch begins one step later.

    It takes an extent of 1 for one that it need not think of, also where it is what a crop leaves.
    """
    from torch.utils._sympy.value_ranges import ValueRanges

    lows = {each.name: each.low for each in signature.dimensions if each.low}
    called = torch_parameters([each.name for each in signature.inputs])
    values = {node.name: node.meta["val"] for node in program.graph.nodes if node.op == "placeholder"}
    axes = [(called[each.name], axis, extent) for each in signature.inputs for axis, extent in enumerate(each.shape)]
    for name, axis, extent in axes:
        if extent in lows:
            symbol, low = values[name].shape[axis].node.expr, lows[str(extent)]
            range_ = program.range_constraints.get(symbol)
            if range_ is not None and range_.lower == low + 1:
                program.range_constraints[symbol] = ValueRanges(low, range_.upper)
                program._guards_code = [each for each in program._guards_code if not _MORE_THAN_ONE.fullmatch(each)]


def _check_open(guards: Sequence[str], free: Collection[tuple[str, int]]) -> None:
    """Raise GraphError when a program holds for one length alone of what is to be `free`, by keyword and axis."""
    for guard in guards:
        extents = {(name, int(axis)) for name, axis in _EXTENT.findall(guard)}
        if _FIXED.fullmatch(guard) and not extents.isdisjoint(free):
            condition = _EXTENT.sub(r"\1.shape[\2]", guard)
            raise GraphError(
                f"torch.export makes a program for some lengths alone: where {condition}", hint=GIVES_EXTENTS
            )


def _reason(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:3])[:400] or type(error).__name__

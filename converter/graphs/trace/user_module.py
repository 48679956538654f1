"""A user's own nn.Module to an ONNX graph whose initializers have the names of its state dict.

Source: torch.onnx.export(dynamo=True), unoptimised: the optimiser folds weights into constants of its own, and their
names are lost. The module is the user's own code, and is run.
"""

from __future__ import annotations

import importlib
import inspect
import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from converter.errors import CkconvError, GraphError, MissingExtraError, UsageError
from converter.graphs.description.sample_inputs import extents
from converter.graphs.description.signature import Declaration, GraphInput, Signature
from converter.graphs.description.traced import WEIGHTS_LOCATION
from converter.graphs.failures import summary_of
from converter.graphs.trace.dimensions import check_extents, name_dimensions
from converter.graphs.trace.module_paths import keep_module_paths
from converter.graphs.trace.padding_rows import note_padding_rows
from converter.graphs.trace.patches import attention_without_keys
from converter.graphs.trace.recurrent import as_operators
from converter.graphs.trace.sampling import sampling_of
from converter.model.dtype import DType

_PRIMES = (11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71)
_LOG = logging.getLogger(__name__)


def trace(*, factory: str, folder: str, inputs: list[dict[str, Any]], graph: str, opset: int | None) -> dict[str, Any]:
    """Export what ``package.module:factory``, importable from `folder` too, returns; write the ONNX file `graph`.

    `inputs` are `GraphInput`s as JSON, called as the parameters of `forward`. Returns the Signature as JSON values.
    Raises UsageError for a factory or inputs that do not work, GraphError for a module that cannot be exported, or
    whose export froze a dimension that was to vary.
    """
    import onnx_ir

    module = built(factory, folder)
    declared = tuple(map(GraphInput.from_json, inputs))
    _check_signature(module, declared)
    sizes = _sizes(module, declared)
    examples = _examples(declared, sizes)
    names = [name for name, _ in named_outputs(_called(module, examples))]
    model = _exported(module, declared, examples, names, opset)
    name_dimensions(model, declared)
    check_extents(model, sizes)
    keep_module_paths(model)
    note_padding_rows(model, module)
    ties = _ties(module)
    state = {name: _declaration(tensor) for name, tensor in module.state_dict().items() if name not in ties}
    computed = _attach(model.graph, state, ties)
    trained = {name for name, parameter in module.named_parameters() if parameter.requires_grad}
    by_name = {each.name: each for each in declared}
    unused = [name for name in by_name if name not in {value.name for value in model.graph.inputs}]
    if unused:
        raise UsageError(f"the model makes no use of the input {unused[0]!r}", hint="leave it out of --inputs")
    onnx_ir.save(model, graph)
    return Signature(
        title=factory,
        parameters={name: each for name, each in state.items() if name in trained},
        buffers={name: each for name, each in state.items() if name not in trained},
        ties=ties,
        computed=computed,
        inputs=tuple(
            replace(by_name[value.name], sampling=sampling_of(model.graph, by_name[value.name]))
            for value in model.graph.inputs
        ),
        outputs=tuple(value.name for value in model.graph.outputs),
    ).to_json()


def built(factory: str, folder: str) -> Any:
    """Return the module, in evaluation mode. Raises UsageError when there is none to be had, MissingExtraError."""
    try:
        import torch
    except ImportError as error:
        raise MissingExtraError("torch", "tracing a model") from error
    module_name, _, path = factory.partition(":")
    if not module_name or not path:
        raise UsageError(f"--model is package.module:factory, not {factory!r}")
    sys.path.insert(0, folder)
    # What follows is the user's own code, which fails in any way it likes.
    try:
        found = importlib.import_module(module_name)
        for name in path.split("."):
            found = getattr(found, name)
        module = found if isinstance(found, torch.nn.Module) else found()  # type: ignore[operator]
    except CkconvError:
        raise
    except Exception as error:
        _LOG.debug("%s failed", factory, exc_info=True)
        raise UsageError(f"--model {factory} failed: {summary_of(error)}") from error
    if not isinstance(module, torch.nn.Module):
        raise UsageError(f"--model {factory} returns a {type(module).__name__}, which is no torch.nn.Module")
    return module.eval()


def named_outputs(result: Any) -> list[tuple[str, Any]]:
    """Return name and tensor of each output: keys and fields are names, places in a sequence `output_<number>`."""
    import torch
    from torch.utils import _pytree

    leaves, _ = _pytree.tree_flatten_with_path(result)
    found = []
    for path, leaf in leaves:
        if isinstance(leaf, torch.Tensor):
            words = [str(getattr(key, "key", getattr(key, "name", getattr(key, "idx", "")))) for key in path]
            name = "_".join(words) or "output"
            found.append((f"output_{name}" if name[0].isdecimal() else name, leaf))
    return found


def _called(module: Any, examples: Mapping[str, Any]) -> Any:
    import torch

    try:
        with torch.no_grad():
            return module(**examples)
    except Exception as error:
        _LOG.debug("forward failed", exc_info=True)
        shapes = ", ".join(f"{name} {list(tensor.shape)}" for name, tensor in examples.items())
        raise UsageError(f"the model does not take {shapes}: {summary_of(error)}") from error


def _check_signature(module: Any, inputs: Sequence[GraphInput]) -> None:
    parameters = inspect.signature(module.forward).parameters.values()
    if any(each.kind is inspect.Parameter.VAR_KEYWORD for each in parameters):
        return
    known = [each.name for each in parameters if each.kind is not inspect.Parameter.VAR_POSITIONAL]
    unknown = [each.name for each in inputs if each.name not in known]
    if unknown:
        raise UsageError(f"forward takes no {unknown[0]!r}", hint=f"it takes {', '.join(known)}")


def _sizes(module: Any, inputs: Sequence[GraphInput]) -> dict[str, int]:
    """Choose extents that the model has no other reason to have, so that a frozen one is recognised."""
    fixed_extents = {extent for tensor in module.state_dict().values() for extent in tensor.shape}
    fixed_extents.update(extent for each in inputs for extent in each.shape if isinstance(extent, int))
    free = iter([prime for prime in _PRIMES if prime not in fixed_extents] + list(_PRIMES))
    names = dict.fromkeys(extent for each in inputs for extent in each.shape if isinstance(extent, str))
    return {name: next(free) for name in names}


def _examples(inputs: Sequence[GraphInput], sizes: Mapping[str, int]) -> dict[str, Any]:
    import torch

    return {each.name: torch.ones(extents(each, sizes), dtype=getattr(torch, each.dtype.value)) for each in inputs}


def _exported(
    module: Any, inputs: Sequence[GraphInput], examples: Mapping[str, Any], outputs: list[str], opset: int | None
) -> Any:
    import onnx_ir.passes.common as passes
    import torch

    dynamic = torch.export.Dim.AUTO
    shapes = {
        each.name: {axis: dynamic for axis, extent in enumerate(each.shape) if isinstance(extent, str)}
        for each in inputs
    }
    # torch.export runs the model's own Python code symbolically: it can fail with any exception there is.
    try:
        with as_operators(), attention_without_keys():
            program = torch.onnx.export(
                module,
                (),
                kwargs=dict(examples),
                dynamic_shapes=shapes,
                output_names=outputs,
                opset_version=opset,
                dynamo=True,
                optimize=False,
                verbose=False,
            )
    except Exception as error:
        _LOG.debug("export failed", exc_info=True)
        raise GraphError(f"{type(module).__name__} could not be exported: {summary_of(error)}") from error
    model = program.model
    if model.functions:
        passes.InlinePass()(model)
    return model


def _ties(module: Any) -> dict[str, str]:
    """Return tied name -> the first name of the same tensor."""
    owners: dict[int, str] = {}
    ties: dict[str, str] = {}
    for name, tensor in module.state_dict(keep_vars=True).items():
        owner = owners.setdefault(id(tensor), name)
        if owner != name:
            ties[name] = owner
    return ties


def _declaration(tensor: Any) -> Declaration:
    return DType(str(tensor.dtype).removeprefix("torch.")), tuple(tensor.shape)


def _attach(graph: Any, state: Mapping[str, Declaration], ties: Mapping[str, str]) -> tuple[str, ...]:
    """Make the initializers that the state dict has references to it. Returns the names of the others, constants."""
    import onnx_ir

    constants = []
    for name, value in list(graph.initializers.items()):
        owner = ties.get(name, name)
        if owner not in state:
            constants.append(name)
            continue
        if owner != name and owner in graph.initializers:
            value.replace_all_uses_with(graph.initializers[owner], replace_graph_outputs=True)
            del graph.initializers[name]
            continue
        dtype, shape = state[owner]
        value.name = owner
        value.const_value = onnx_ir.ExternalTensor(
            WEIGHTS_LOCATION,
            None,
            None,
            onnx_ir.DataType.from_numpy(dtype.numpy),
            shape=onnx_ir.Shape(shape),
            name=owner,
        )
    return tuple(constants)
